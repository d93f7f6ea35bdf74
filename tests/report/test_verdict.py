"""What the page says of its own trust, in worlds where the answer is known."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from conftest import confounded_labels, flipped_labels
from truemorph.bias.study import study_transition
from truemorph.bias.transitions import MatrixTransition, RayleighTransition
from truemorph.catalogs.selected import select_rows
from truemorph.report.evidence import Evidence, ModelLabels, is_naive
from truemorph.report.measures import LabelSet, Tree
from truemorph.report.page import Check
from truemorph.report.verdict import answer, checks, verdict
from truemorph.tables import CatalogTable

N = 8000
STUDIES = {}
FLIPS = RayleighTransition(11.25)


def evidence(labels, alpha, model=None, truths=None, transition=FLIPS, columns=None, study=True):
    frame = pl.DataFrame({"object_id": np.arange(labels.size), "label": labels, "alpha": alpha, "split": "test"})
    names = []
    if columns is not None:
        names = ["M_r", "log_r"]
        frame = frame.with_columns(M_r=pl.Series(columns[:, 0]), log_r=pl.Series(columns[:, 1]))
    tree = Tree.fitting(alpha, None if columns is None else columns[:, :2], bootstrap=0, seed=0)
    key = labels.tobytes(), tuple(names)
    if study and key not in STUDIES:  # one fit for all that is said of the same labels
        rows = select_rows(CatalogTable(frame), intrinsic=names)
        STUDIES[key] = study_transition(
            rows.labels, rows.alpha, intrinsic=rows.intrinsic, about=rows.about, findings=rows.findings
        )
    fitted = STUDIES[key] if study else None
    models = [] if model is None else [ModelLabels.of("net", transition, model, None)]
    sets = {name: LabelSet(f"truth, {name}", "truth", one.astype(float)) for name, one in (truths or {}).items()}
    return Evidence(frame, models, [], sets, names, tree, fitted, f"{labels.size} galaxies")


def said(found, status):
    return [one.text for one in checks(found) if one.status == status]


def calibrated(truth, seed=1):
    """Probabilities that mean what they say: those of a Gaussian score."""
    score = np.random.default_rng(seed).normal(2.0 * truth - 1.0, 0.8)
    prior = np.log(truth.mean() / (1 - truth.mean()))
    return 1 / (1 + np.exp(-(prior + 2 * score / 0.8**2)))


@pytest.fixture(scope="module")
def plain():
    return flipped_labels(N, seed=21, smooth=0.3, median=16.8)


def test_a_right_correction_is_called_right(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, calibrated(truth), {"all": truth})
    assert said(found, "bad") == []
    good = " ".join(said(found, "good"))
    for words in ("Nearer to the truth", "predicts how people label", "above noise falls", "agrees with the labels"):
        assert words in good
    assert any(text.startswith("Labels are better") for text in said(found, "good"))
    text = answer(found)
    assert "change from smooth to disk" in text
    assert f"{np.mean(labels[np.argsort(alpha, kind='stable')][-N // 5 :]):.2f} in the best" in text


def test_over_correction_is_called_a_problem(plain):
    labels, alpha, truth = plain
    rng = np.random.default_rng(3)
    narrow = truth * (rng.random(N) < np.clip(alpha / 25, 0.1, 1))  # a narrower disk, that people don't miss so often
    found = evidence(labels, alpha, calibrated(truth), {"all": truth, "late": narrow})
    bad = said(found, "bad")
    assert any(text.startswith("Farther from the truth") for text in bad)
    assert all("late" in text for text in bad)
    assert verdict(checks(found)).status == "bad"
    assert any("by each definition" in text for text in said(found, "note"))


def test_probabilities_that_contradict_the_labels_are_a_problem(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, np.clip(calibrated(truth) ** 4, 0, 1))
    assert any("does not predict how people label" in text for text in said(found, "bad"))


def test_a_model_that_calls_all_galaxies_disks_is_told_of(plain):
    labels, alpha, _ = plain
    found = evidence(labels, alpha, np.full(N, 0.7))
    assert any("calls 100% of the galaxies disk" in text for text in said(found, "care"))


def test_bias_that_stays_is_a_problem(plain):
    labels, alpha, _ = plain
    rng = np.random.default_rng(4)
    found = evidence(labels, alpha, np.clip(labels + rng.normal(0, 0.01, N), 0.01, 0.99), transition=FLIPS)
    assert any("does not predict how people label" in text for text in said(found, "bad"))
    assert any("does not change beyond its error" in text for text in said(found, "care"))


def test_what_was_not_checked_is_said(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, calibrated(truth))
    care = " ".join(said(found, "care"))
    for words in ("No galaxy's true class is known", "Not checked", "No intrinsic columns"):
        assert words in care
    assert verdict(checks(found)).status == "care"


@pytest.mark.slow
def test_confounding_with_intrinsic_columns_is_care_not_failure():
    labels, alpha, _, columns = confounded_labels(5_000, seed=5)
    found = evidence(labels, alpha, columns=columns)
    assert found.study.check.confounded
    text = found.study.check.statement
    assert any(one.text.startswith(text[:1].upper() + text[1:]) and one.status == "care" for one in checks(found))


def test_of_two_models_the_naive_one_is_not_judged(plain):
    labels, alpha, truth = plain
    identity = MatrixTransition.identity()
    assert is_naive(identity)
    assert not is_naive(FLIPS)
    found = evidence(labels, alpha, calibrated(truth), {"all": truth})
    naive = ModelLabels.of("naive", identity, np.clip(labels.astype(float), 0.01, 0.99), None)
    assert naive.posterior is None
    both = replace(found, models=[naive, *found.models])
    assert both.principal.name == "net"
    assert not any("naive" in one.text for one in checks(both) if one.status in ("bad", "good"))


def test_a_naive_model_alone_corrects_nothing(plain):
    labels, alpha, truth = plain
    rng = np.random.default_rng(6)
    copied = np.clip(np.where(rng.random(N) < 0.1, 1 - labels, labels), 0.05, 0.95)  # the crowd's labels, and worse
    found = evidence(labels, alpha, copied, {"all": truth}, transition=MatrixTransition.identity())
    assert any("corrects nothing" in text for text in said(found, "care"))
    assert any(text.startswith("Labels are worse than people's") for text in said(found, "bad"))


def test_worse_labels_are_a_problem_though_fractions_are_right(plain):
    labels, alpha, truth = plain
    shuffled = np.random.default_rng(7).permutation(calibrated(truth))  # right on average, blind to each galaxy
    found = evidence(labels, alpha, shuffled, {"all": truth})
    assert any(text.startswith("Nearer to the truth") for text in said(found, "good"))
    assert any(text.startswith("Labels are worse than people's") for text in said(found, "bad"))


@pytest.mark.parametrize("n", [100, 400])
def test_few_galaxies_are_not_held_against_a_right_model(n):
    """Probabilities that are right are rarely called wrong, however few galaxies there are."""
    blamed = 0
    for seed in range(20):
        labels, alpha, truth = flipped_labels(n, seed=seed, smooth=0.3, median=16.8)
        found = evidence(labels, alpha, calibrated(truth, seed), study=False)
        blamed += any("does not predict" in text for text in said(found, "bad"))
    assert blamed <= 2


def test_another_t_than_the_labels_is_told_of(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, calibrated(truth), transition=RayleighTransition(18.0))
    assert any("differ by" in text and "trained through" in text for text in said(found, "care"))


def test_true_classes_that_depend_on_alpha_are_told_of():
    labels, alpha, truth, _ = confounded_labels(N, seed=5)
    found = evidence(labels, alpha, calibrated(truth), {"all": truth})
    assert any(text.startswith("By the truth (all)") for text in said(found, "bad"))
    labels, alpha, truth = flipped_labels(N, seed=22, smooth=0.3, median=16.8)
    found = evidence(labels, alpha, calibrated(truth), {"all": truth}, study=True)
    assert any(text.startswith("By the truth (all)") for text in said(found, "good"))


def test_galaxies_without_an_answer_count(plain):
    labels, alpha, truth = plain
    found = replace(evidence(labels, alpha, calibrated(truth)), left_out={"net": N})
    assert any("says nothing of 8,000 galaxies (50%)" in text for text in said(found, "care"))


def test_without_a_model_the_inversion_speaks(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, truths={"all": truth})
    assert "Inverted through the fitted T" in answer(found)
    assert any("inverted through T(α), disk fractions are wrong by" in text for text in said(found, "good"))


def test_the_verdict_counts():
    assert verdict([Check("good", "a")]).status == "good"
    assert "one point" in verdict([Check("care", "a"), Check("note", "b")]).text
    assert "2 points" in verdict([Check("bad", "a"), Check("bad", "b"), Check("care", "c")]).text
