"""What the page says of its own trust, in worlds where the answer is known."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from conftest import flipped_labels
from truemorph import Classifier, MatrixTransition, RayleighTransition, ReportOptions
from truemorph.bias.curves.families import transition_to_dict
from truemorph.bias.estimate import Context, make_estimate
from truemorph.bias.sample import Sample
from truemorph.catalogs.label_sets import LabelSet
from truemorph.config import PRESETS
from truemorph.questions import SMOOTH_OR_DISK, Head, Quantity
from truemorph.report.evidence import OBSERVED, Evidence, Model
from truemorph.report.lights import DATA, lights
from truemorph.report.page import in_order
from truemorph.report.writing import sentences
from truemorph.tables import CatalogTable

N = 8000
ESTIMATES = {}
FLIPS, NAIVE = RayleighTransition(11.25), MatrixTransition.identity()
SOME = 1 * (np.random.default_rng(6).random(N) < 0.1)


def model_of(name, transition, p, features=("covariate",)):
    """A model without posteriors; without features, it knows class fractions alone."""
    training = PRESETS["dcv14"].model_dump() | {"features": features}
    described = {"transition": transition_to_dict(transition), "catalogue": {}, "training": training}
    described["classes"] = SMOOTH_OR_DISK
    classifier, both = Classifier(described, [], pl.DataFrame()), np.column_stack([1 - p, p])
    nothing = np.full(both.shape, np.nan)
    head = Head(None, SMOOTH_OR_DISK, (1,), SMOOTH_OR_DISK)
    return Model(name, classifier, head, described["transition"], both, nothing, SMOOTH_OR_DISK, np.arange(2), "disk")


def evidence(labels, alpha, model=None, truths=None, transition=FLIPS, gold=None):
    """What a report measures, with an estimate from the labels alone, or from the gold labels that are given."""
    frame = pl.DataFrame({"object_id": np.arange(labels.size), "label": labels, "alpha": alpha, "split": "test"})
    beside = next(iter((truths or {}).values()), None)
    key = tuple(None if one is None else one.tobytes() for one in (labels, gold, beside))
    if key not in ESTIMATES:  # tests of the same labels share one estimate
        context = Context(shown=None if gold is not None else beside)
        ESTIMATES[key] = make_estimate(Sample.of(labels, alpha, gold=gold), context=context, fraction_bins=5)
    models = [] if model is None else [model_of("net", transition, model)]
    sets = {
        name: LabelSet.of_two(f"truth, {name}", "truth", one.astype(float), SMOOTH_OR_DISK)
        for name, one in (truths or {}).items()
    }
    return Evidence(
        question=None,
        classes=SMOOTH_OR_DISK,
        quantity=Quantity("disk fraction", (0.0, 1.0)),
        catalogue=CatalogTable(frame),
        rows=np.arange(labels.size),
        which=f"{labels.size} galaxies",
        observed=LabelSet.of_two(OBSERVED, "observed", labels.astype(float), SMOOTH_OR_DISK),
        options=ReportOptions(bootstrap=0),
        models=models,
        truths=sets,
        estimate=ESTIMATES[key],
        origin="made here",
        names=[model.name for model in models],
    )


def findings_of(found):
    return in_order([finding for light in lights([found]) for finding in light.findings])


def codes(found, severity=None):
    return {one.code for one in findings_of(found) if severity in (None, one.severity)}


def passed(found):
    return [name for light in lights([found]) for name, _ in light.passed]


def calibrated(truth, seed=1):
    """Probabilities that mean what they say: those of a Gaussian score."""
    score = np.random.default_rng(seed).normal(2.0 * truth - 1.0, 0.8)
    prior = np.log(truth.mean() / (1 - truth.mean()))
    return 1 / (1 + np.exp(-(prior + 2 * score / 0.8**2)))


@pytest.fixture(scope="module")
def plain():
    return flipped_labels(N, seed=21, smooth=0.3, median=16.8)


@pytest.mark.slow
def test_a_right_correction_passes(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, calibrated(truth), {"all": truth})
    assert codes(found, "problem") == set()
    expected = ("Error of the disk fractions", "Balanced accuracy", "Observed labels as", "Drift of", "Fit of the")
    for one in expected:
        assert any(name.startswith(one) for name in passed(found)), one
    fifths = np.array_split(labels[np.argsort(alpha, kind="stable")], 5)
    headline = sentences(found)["headline"]
    assert all(f"{100 * fifths[k].mean():.0f} %" in headline for k in (0, -1))
    table = found.correction
    np.testing.assert_allclose(table["labelled"], [fifth.mean() for fifth in fifths])
    assert (table["lowest"] <= table["gold"]).all()
    assert (table["gold"] <= table["highest"]).all()
    assert f"{100 * table['corrected'][0]:.0f} %" in sentences(found)["answer"]


def test_a_model_whose_curve_gold_labels_contradict_is_judged_by_its_probabilities(plain):
    """Its T(α) is known to be wrong, so that it need not predict the observed labels."""
    labels, alpha, truth = plain
    found = evidence(labels, alpha, calibrated(truth), {"all": truth}, RayleighTransition(40.0))
    (model,) = found.models
    model = replace(model, after=np.column_stack([1 - labels, labels]).astype(float))
    tuning = {"gold_labels": 300, "epochs": 32, "before": 1.0, "after": 0.2, "beyond": 0.5, "beyond_stderr": 0.05}
    described = model.classifier.described | {"tuning": [tuning]}
    tuned = replace(model, classifier=replace(model.classifier, described=described))
    assert (model.best.kind, tuned.best.kind) == ("posterior", "probabilities")
    before, after = (codes(replace(found, models=[one])) for one in (model, tuned))
    assert {"labels-not-predicted", "curve-contradicted"} & before == {"labels-not-predicted"}
    assert {"labels-not-predicted", "curve-contradicted"} & after == {"curve-contradicted"}


def test_the_labels_of_a_model_without_features_are_not_a_problem(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, abs(labels - SOME), {"all": truth}, NAIVE)
    fit = model_of("fit", NAIVE, abs(labels - SOME), features=())
    assert "labels-worse" in codes(replace(found, models=[fit]), "caution")


@pytest.mark.slow
def test_what_could_not_be_checked_is_told_once(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, calibrated(truth))
    again = [finding for light in lights([found], {DATA: found.estimate.findings}) for finding in light.findings]
    assert len(again) == len(set(again)) == len(findings_of(found))


@pytest.mark.slow
def test_gold_labels_answer_what_labels_alone_cannot(plain):
    """Many gold labels test that class fractions are constant; a few leave it as it was."""
    labels, alpha, truth = plain
    found = evidence(labels, alpha, calibrated(truth), {"all": truth})
    assert not codes(found, "caution") & {"flat-fractions-assumed", "gold-missing", "range-wide"}
    few = np.where(np.arange(N) < 80, truth, np.nan)
    assert "flat-fractions-assumed" in codes(evidence(labels, alpha, calibrated(truth), {"few": few}))


def test_of_two_models_the_naive_one_is_not_judged(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, calibrated(truth), {"all": truth})
    naive = model_of("naive", NAIVE, np.clip(labels.astype(float), 0.01, 0.99))
    for both in (replace(found, models=[naive, *found.models]), replace(found, models=[*found.models, naive])):
        assert both.principal.name == "net"
        assert not any("naive" in text for text in (*(one.message for one in findings_of(both)), *passed(both)))


def test_without_a_model_the_corrected_labels_are_compared(plain):
    labels, alpha, truth = plain
    found = evidence(labels, alpha, truths={"all": truth})
    table = found.correction
    assert (np.abs(table["corrected"] - table["gold"]) < 4 * table["stderr"]).all()
    assert any(name.startswith("Error of the corrected disk fractions") for name in passed(found))


@pytest.mark.slow
def test_without_a_model_some_gold_labels_are_the_correction(plain):
    """Of a catalogue alone the fractions are those of its gold labels, with their range."""
    labels, alpha, truth = plain
    some = np.where(np.random.default_rng(5).random(N) < 0.06, truth, np.nan)
    gold = np.where(np.isfinite(some), np.nan_to_num(some), -1).astype(int)
    found = evidence(labels, alpha, truths={"all": some}, gold=gold)
    table = found.correction
    assert table["gold"].null_count() == table.height  # they are the estimate
    true = np.array([part.mean() for part in np.array_split(truth[np.argsort(alpha, kind="stable")], 5)])
    assert (table["lowest"].to_numpy() < true).all()
    assert (table["highest"].to_numpy() > true).all()
    assert (table["highest"] - table["lowest"]).max() < 0.35
    assert codes(found, "caution") == set()
