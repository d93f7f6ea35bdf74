"""Networks are tuned on gold labels after training through T(α), where that improves gold labels that are left out."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import truemorph as tm
from conftest import TINY, codes, stripes, tiny
from truemorph import ConstantTransition, MatrixTransition, write_table
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.classifiers import tuning
from truemorph.classifiers.classifier import contradictions
from truemorph.classifiers.learned import gold_evidence, learned_questions
from truemorph.classifiers.members import train_members
from truemorph.classifiers.module import evidence_loss
from truemorph.classifiers.rows import Gold
from truemorph.classifiers.tuning import recalibration
from truemorph.config import run_config
from truemorph.errors import InputError
from truemorph.questions import heads_of
from truemorph.tables import CatalogTable

HALF = ConstantTransition(flip=0.5)
SETTINGS = {"image_size": 32, "rotation": "none", "flip": False, "shift": 0.0, "epochs": 4, "learning_rate": 3e-3}


@pytest.fixture
def briefly(monkeypatch):
    """Tuning for eight epochs, or not at all."""
    monkeypatch.setattr(tuning, "EPOCHS", (8,))


def certain(truth, known):
    """Gold labels of some galaxies, which are correct."""
    evidence = np.where(np.eye(2, dtype=bool)[truth] | ~known[:, None], 0.0, -np.inf)
    return Gold(known.astype(float), evidence)


def hidden(n=600, seed=1):
    """Disks of two kinds, of which people call the second smooth at any α; with a third of true classes as gold."""
    rows, truth = stripes(n, seed)
    second = (truth == 1) & (np.random.default_rng(seed).random(n) < 0.5)
    pixels = rows.inputs.copy()
    pixels[second] = pixels[second].transpose(0, 2, 1, 3)  # a horizontal gradient
    frame = rows.frame.with_columns(label=pl.Series(np.where(second, 0, truth)))
    known = np.random.default_rng(seed + 1).random(n) < 0.35
    return replace(rows, frame=frame, inputs=pixels, gold=certain(truth, known)), truth, second


def folded(rows, **changes):
    return train_members(rows, HALF, tiny(**{**SETTINGS, "folds": 2, "epochs": 1, **changes}))


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_gold_labels_show_disks_that_labels_hide():
    """Half of the disks are called smooth, because of how they look. T(α) = 0.5 is right on average."""
    rows, truth, second = hidden()
    before, after = (train_members(some, HALF, tiny(**SETTINGS)) for some in (replace(rows, gold=None), rows))
    unseen = ~rows.gold.known
    p = [model.probabilities(rows.inputs[unseen])[:, 1] for model in (before, after)]
    loss = [-np.log(np.where(truth[unseen] == 1, one, 1 - one)).mean() for one in p]
    assert loss[1] < 0.5 * loss[0]
    assert p[1][second[unseen]].mean() > 0.9
    (found,) = after.described["tuning"]
    assert found["gold_labels"] == np.sum(rows.gold.known & (rows.column("split") == "train"))
    assert found["epochs"] in tuning.EPOCHS
    assert found["after"] < 0.5 * found["before"]
    assert (codes(before), codes(after)) == ([], ["curve-contradicted"])
    assert after.temperatures == [1.0]


@pytest.mark.slow
@pytest.mark.usefixtures("briefly")
def test_networks_are_left_as_they_are_without_gold_labels_or_where_these_say_nothing_new():
    rows, truth, _ = hidden()
    few = np.zeros(truth.size, bool)
    few[:20] = True
    plain = train_members(replace(rows, gold=None), HALF, tiny(**SETTINGS, seed=2))
    for gold in (certain(truth, few), Gold(np.ones(truth.size), np.zeros((truth.size, 2)))):
        model = train_members(replace(rows, gold=gold), HALF, tiny(**SETTINGS, seed=2))
        assert same(model.members[0], plain.members[0])
        assert model.temperatures == plain.temperatures
        assert not codes(model)


def test_gold_labels_of_all_galaxies_are_true_classes():
    rows, truth, _ = hidden(200)
    whole = replace(rows, gold=certain(truth, np.ones(truth.size, bool))).with_gold()
    logits = torch.randn((truth.size, 2), generator=torch.Generator().manual_seed(1))
    evidence = whole.observed(np.arange(truth.size))["evidence"]
    loss = evidence_loss(logits, evidence, [slice(0, 2)])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(truth), reduction="none")
    torch.testing.assert_close(loss, expected)
    named = replace(rows, frame=rows.frame.with_columns(label=pl.Series(truth)), gold=None)
    models = (train_members(some, MatrixTransition.identity(), tiny(**SETTINGS)) for some in (whole, named))
    first, second = (model.members[0] for model in models)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("briefly")
def test_no_network_is_tuned_on_gold_labels_of_galaxies_that_it_labels():
    """Other gold labels of the galaxies that member 0 labels change member 1 only; those of validation, none."""
    rows, truth, _ = hidden(400)
    rows = replace(rows, gold=certain(truth, np.ones(truth.size, bool)))
    model = folded(rows)
    fold = rows.frame.join(model.seen, on="object_id", maintain_order="left")["fold"].to_numpy()
    assert {*fold} == {-1, 0, 1}

    def with_others(where):
        evidence = np.where(where[:, None], rows.gold.evidence[:, ::-1], rows.gold.evidence)
        return folded(replace(rows, gold=replace(rows.gold, evidence=evidence))).members

    assert all(map(same, with_others(fold == -1), model.members))
    assert list(map(same, with_others(fold == 0), model.members)) == [True, False]


@pytest.mark.parametrize("planned", [False, True])
def test_selected_gold_labels_count_by_their_probability(planned):
    """Of class 1, selected four times as often, there are twice as many, so it is a third of all galaxies."""
    truth, n = np.repeat([0, 1], [100, 200]), 300
    probability = np.where(truth == 1, 0.8, 0.2) if planned else np.ones(n)
    frame = pl.DataFrame({"object_id": np.arange(n), "label": truth, "alpha": np.ones(n), "split": ["train"] * n})
    rows = replace(stripes(n)[0], frame=frame, gold=Gold(probability, certain(truth, truth >= 0).evidence)).with_gold()
    weights = torch.tensor(rows.weights)
    factor, offset = recalibration(torch.zeros((n, 2)), torch.tensor(rows.evidence), weights, heads_of([None]))
    fraction = torch.softmax(torch.zeros(2) * factor + offset, 0)[1]
    assert float(fraction) == pytest.approx(1 / 3 if planned else 2 / 3, abs=0.005)


def test_recalibration_finds_overconfidence_and_a_wrong_fraction():
    rng, n = np.random.default_rng(2), 20_000
    true = np.column_stack([np.zeros(n), rng.normal(0.5, 2, n)])
    truth = (rng.random(n) < 1 / (1 + np.exp(-true[:, 1]))).astype(int)
    logits = torch.tensor(3 * (true - [0, 1]))
    evidence = torch.tensor(certain(truth, truth >= 0).evidence)
    factor, offset = recalibration(logits, evidence, torch.ones(n), heads_of([None]))
    torch.testing.assert_close(factor, torch.full((2,), 1 / 3).double(), rtol=0.05, atol=0)
    assert float(offset[1]) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(("gain", "error", "told"), [(0.2, 0.05, True), (0.1, 0.05, False), (-0.2, 0.01, False)])
def test_gold_labels_contradict_a_curve_if_tuning_helps_by_more_than_chance(gain, error, told):
    found = {"gold_labels": 300, "epochs": 8, "before": 1.0, "after": 0.3, "beyond": gain, "beyond_stderr": error}
    assert bool(contradictions({"tuning": [found, None]})) == told


# What is read from a catalogue.


def read_gold(frame, curve, tmp_path, metadata=None, **options):
    """Gold labels that a network would be tuned on."""
    path = write_table(CatalogTable(frame, metadata=metadata or {}), tmp_path / "gold.parquet")
    catalogue = read_catalogue(path)
    learned = learned_questions(catalogue, run_config(path, out="m", **options), [curve])
    return gold_evidence(learned, catalogue, catalogue.frame)


def test_gold_labels_of_the_estimate_are_read_with_their_probability_and_doubt(tmp_path):
    frame = tm.simulate_catalogue(500, seed=1, gold=100)
    gold = frame["gold"].to_numpy()
    known = frame["gold"].is_not_null().to_numpy()
    unsure = np.flatnonzero(known)[:10]
    beside = frame.with_columns(
        gold_probability=pl.Series(np.where(known, 0.25, None).astype(float)),
        gold_uncertain=pl.Series(np.isin(np.arange(500), unsure).astype(int)),
    )
    curve = {"family": "rayleigh", "parameters": {"theta": 11.25}, "gold_rule": "gold"}
    found = read_gold(beside, curve, tmp_path)
    certainly = known & ~np.isin(np.arange(500), unsure)
    np.testing.assert_array_equal(found.known, certainly)
    np.testing.assert_allclose(found.probability[certainly], 0.25)
    assert np.all(found.evidence[certainly, gold[certainly].astype(int)] == 0)
    assert np.all(found.evidence[certainly, 1 - gold[certainly].astype(int)] == -np.inf)
    labels = tm.RayleighTransition(11.25).matrix(frame["alpha"].to_numpy())[np.arange(500), :, frame["label"]]
    expected = np.log(np.maximum(labels, 1e-300))
    left = ~certainly
    np.testing.assert_allclose(
        np.exp(found.evidence[left]), np.exp(expected - expected.max(axis=1, keepdims=True))[left], atol=1e-12
    )
    assert read_gold(beside, curve, tmp_path, labels="observed") is None
    assert read_gold(beside, curve | {"gold_rule": None}, tmp_path) is None


def test_a_catalogue_without_the_gold_labels_of_an_estimate_is_refused(tmp_path):
    frame = tm.simulate_catalogue(500, seed=1)
    curve = {"family": "rayleigh", "parameters": {"theta": 11.25}, "gold_rule": "expert"}
    with pytest.raises(InputError, match=r"expert.*observed"):
        read_gold(frame, curve, tmp_path)
    assert read_gold(frame, curve, tmp_path, labels="observed") is None


@pytest.mark.slow
@pytest.mark.usefixtures("briefly")
def test_training_uses_the_gold_labels_behind_its_estimate_unless_it_is_told_not_to(catalogue, tmp_path):
    curve = {"family": "rayleigh", "parameters": {"theta": 11.25}, "gold_rule": "gold"}
    options = {"transition": curve, "settings": TINY | {"folds": 1}}
    tm.train_classifier(catalogue, out=tmp_path / "gold", **options)
    (found,) = tm.load(tmp_path / "gold").described["tuning"]
    assert found["gold_labels"] == (read_catalogue(catalogue).frame["split"] == "train").sum()
    without = tm.train_classifier(catalogue, out=tmp_path / "observed", labels="observed", **options).model
    assert "tuning" not in without.described


def test_a_run_is_not_resumed_with_other_gold_labels(catalogue, tmp_path, monkeypatch):
    curve = {"family": "rayleigh", "parameters": {"theta": 11.25}, "gold_rule": "gold"}
    options = {"transition": curve, "out": tmp_path / "m", "settings": TINY | {"folds": 1, "epochs": 1}}
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "recalibration", lambda *_: pytest.fail("cut"))
        patch.setattr(tuning, "EPOCHS", ())
        with pytest.raises(pytest.fail.Exception):
            tm.train_classifier(catalogue, **options)
    table = read_catalogue(catalogue)
    fewer = table.frame.with_columns(gold=pl.when(pl.int_range(pl.len()) > 100).then("gold"))
    monkeypatch.setattr(tuning, "EPOCHS", ())
    with pytest.raises(InputError, match="galaxies"):
        tm.train_classifier(replace(table, frame=fewer), **options)
    with pytest.raises(InputError, match="gold_labels"):
        tm.train_classifier(catalogue, labels="observed", **options)
    assert tm.train_classifier(catalogue, **options).model.described["tuning"] is not None
