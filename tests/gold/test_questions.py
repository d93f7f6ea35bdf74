"""Gold labels for a question of a decision tree: plans, answers along its gates, and fractions from them."""

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from truemorph.bias.binning import Bins
from truemorph.errors import InputError
from truemorph.gold.plan import Strata, make_plan
from truemorph.questions import read_tree
from truemorph.tables import CatalogTable

GZ2 = read_tree("gz2")
CLASSES, QUANTITIES = GZ2.quantities("bar")
ENDS = np.array(["smooth", "edge-on", "no bar", "bar"])


def survey(n=2_000, seed=0):
    """Votes along the tree of Galaxy Zoo 2, and the true class; volunteers miss disks, and bars even more."""
    rng = np.random.default_rng(seed)
    radius = rng.lognormal(2.0, 0.4, n)
    truth = rng.choice(4, n, p=[0.4, 0.1, 0.3, 0.2])
    disk = rng.binomial(40, np.where(truth > 0, 0.2 + 0.6 * (radius > 6), 0.15))
    edge = rng.binomial(disk, np.where(truth == 1, 0.8, 0.1))
    bar = rng.binomial(disk - edge, np.where(truth == 3, 0.6 * (radius > 7) + 0.15, 0.08))
    table = pl.DataFrame({
        "objid": np.arange(n),
        "t01_smooth_or_features_a01_smooth_count": 40 - disk,
        "t01_smooth_or_features_a02_features_or_disk_count": disk,
        "t01_smooth_or_features_a03_star_or_artifact_count": np.zeros(n, dtype=int),
        "t01_smooth_or_features_a01_smooth_weighted_fraction": (40 - disk) / 40,
        "t01_smooth_or_features_a02_features_or_disk_weighted_fraction": disk / 40,
        "t02_edgeon_a04_yes_count": edge,
        "t02_edgeon_a05_no_count": disk - edge,
        "t03_bar_a06_bar_count": bar,
        "t03_bar_a07_no_bar_count": disk - edge - bar,
        "petroRad_r": radius,
        "psfWidth_r": rng.uniform(1.0, 1.5, n),
    })  # fmt: skip
    return table, truth


def prepared(n=2_000, seed=0):
    """Return a catalogue prepared for the question, and the true class of each of its galaxies."""
    table, truth = survey(n, seed)
    found = tm.prepare_catalogue(table, question="bar").catalogue
    return found, truth[found.frame["object_id"].cast(pl.Int64).to_numpy()]


@pytest.fixture(scope="module")
def bars():
    return prepared()


def fraction(classes, weights, bins):
    return bins.sums(weights * (classes == 3)) / bins.sums(weights * (classes >= 2))


def test_a_plan_for_a_question_draws_from_all_galaxies(bars):
    catalogue, _ = bars
    plan = tm.plan_gold(catalogue, question="bar", error=0.08, bins=4)
    assert plan.frame["probability"].min() > 0
    weights = 1 / plan.selected["probability"].to_numpy()
    assert weights.max() < 10.001 * weights.mean()
    asked = plan.frame.filter(catalogue.frame["label_bar"].is_in(["no bar", "bar"]))
    assert 0 < asked["position"].count() < plan.selected.height
    assert 0.07 < plan.predicted.max() <= 0.08
    described = plan.to_dict()
    assert (described["question"], described["quantity"]) == ("bar", "bar fraction")
    assert described["choices"] == [*ENDS, "cannot tell", "disk, cannot tell", "unclear", "artefact"]
    assert described["classes"] == list(CLASSES)
    assert read_tree(described["tree"]) == GZ2
    assert "bar fraction" in plan.summary()
    assert np.all(plan.comparison["planned"].to_numpy() < plan.comparison["random"].to_numpy())
    again = tm.plan_gold(catalogue, question="bar", error=0.08, bins=4)
    assert plan.frame.equals(again.frame)


def test_predicted_errors_of_a_quantity_are_the_scatter_over_plans(bars):
    """Errors of the ratio of weighted sums, in units of those predicted; classes follow the probabilities."""
    rng = np.random.default_rng(3)
    n = 3_000
    alpha = rng.lognormal(2.6, 0.45, n)
    label = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    probabilities = np.array([[0.6, 0.25, 0.15], [0.1, 0.7, 0.2], [0.05, 0.15, 0.8]])[label]
    cut = Bins.cut(alpha, 4)
    strata = Strata.of(label, cut, probabilities, quantities=QUANTITIES[:1])
    drawn = strata.for_budget(400)
    errors = np.empty((100, 4))
    for seed in range(100):
        one = np.random.default_rng([seed, 5])
        truth = (one.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
        order = one.permutation(n)
        order = order[np.argsort(strata.index[order], kind="stable")]
        rank = np.arange(n) - np.searchsorted(strata.index[order], strata.index[order])
        chosen = np.zeros(n)
        chosen[order] = rank < drawn[strata.index[order]]
        weights = chosen * (strata.sizes / drawn)[strata.index]
        classes = truth + 1
        errors[seed] = fraction(classes, weights, cut) - fraction(classes, np.ones(n), cut)
    pulls = errors / strata.errors(drawn)
    # The rms of 100 plans of 4 bins has an error of 4 %.
    assert np.sqrt(np.mean(pulls**2)) == pytest.approx(1, abs=0.2)
    assert abs(pulls.mean()) < 4 / np.sqrt(pulls.size)


def test_of_two_classes_the_spread_is_that_of_the_class():
    rng = np.random.default_rng(0)
    alpha, p_disk, label = rng.lognormal(2.6, 0.45, 800), rng.random(800), rng.integers(0, 2, 800)
    strata = Strata.of(label, Bins.cut(alpha, 4), np.column_stack([1 - p_disk, p_disk]), 3)
    mean = np.bincount(strata.index, p_disk) / strata.sizes
    np.testing.assert_array_equal(strata.spread, np.sqrt(np.clip(mean * (1 - mean), 0.02 * 0.98, None)))


def test_a_pilot_predicts_the_classes(bars):
    """Its galaxies are not drawn again if their probability of selection is known."""
    catalogue, truth = bars
    known = np.random.default_rng(1).random(truth.size) < 0.2
    gold = pl.Series("gold_bar", np.where(known, ENDS[truth], "")).replace("", None)
    pilot = CatalogTable(catalogue.frame.with_columns(gold), metadata=catalogue.metadata)
    plan, blind = (make_plan(one, error=0.08, bins=4, question="bar") for one in (pilot, catalogue))
    assert (plan.about["pilot"], blind.about["pilot"]) == (known.sum(), 0)
    assert plan.selected.height != blind.selected.height
    again = pilot.frame.with_columns(gold_probability_bar=pl.lit(0.2))
    second = make_plan(CatalogTable(again, metadata=catalogue.metadata), budget=100, bins=4, question="bar").frame
    assert second.filter(pl.Series(known))["position"].count() == 0
    assert second["probability"].min() > 0.2


def test_what_a_plan_for_a_question_cannot_use_is_refused(bars, catalogue):
    labels = pl.DataFrame({"object_id": bars[0].frame["object_id"], "label": 1, "p_disk": 0.5})
    for table, options in (
        (bars[0], {"purpose": "transition"}),
        (bars[0], {"labels": labels}),
        (bars[0], {"question": "spiral"}),
        (catalogue, {}),
    ):
        with pytest.raises(InputError):
            tm.plan_gold(table, **{"question": "bar", "budget": 60, **options})
