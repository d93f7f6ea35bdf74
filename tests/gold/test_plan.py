"""Which galaxies get a gold label: errors as predicted, known probabilities, and no large weights."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import truemorph as tm
from conftest import codes
from truemorph.bias.binning import Bins
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.errors import InputError
from truemorph.gold.plan import PlanOptions, make_plan
from truemorph.gold.strata import Strata
from truemorph.tables import CatalogTable


def strata_of(bins, sizes, spread):
    none = np.zeros(len(sizes))
    return Strata(np.array([], dtype=int), np.array(bins), np.array(sizes, dtype=float), np.array(spread), none)


def world(n=3000, seed=0, **options):
    return read_catalogue(tm.simulate_catalogue(n, seed=seed, **options).drop("truth"))


@pytest.fixture(scope="module")
def catalogue():
    return world(drift=-0.4)


@pytest.mark.parametrize(("bins", "sizes", "spread"), [
    ([0, 0, 0], [300, 200, 100], [0.45, 0.2, 0.35]),
    ([0, 0, 1, 1], [150, 100, 150, 100], [0.5, 0.25, 0.2, 0.3]),
])  # fmt: skip
def test_no_other_allocation_of_the_same_number_of_labels_has_a_clearly_smaller_error(bins, sizes, spread):
    strata = strata_of(bins, sizes, spread)
    found = strata.for_budget(40)
    others = product(range(2, 40), repeat=len(sizes) - 1)
    every = np.array([[*other, found.sum() - sum(other)] for other in others if sum(other) <= found.sum() - 2])
    best = min(strata.errors(one).max() for one in every)
    # Numbers of labels are rounded up, by less than one a stratum.
    assert strata.errors(found).max() < best * 1.04
    assert 40 <= found.sum() < 40 + len(sizes)
    assert strata.errors(found.sum() * strata.sizes / strata.sizes.sum()).max() > strata.errors(found).max()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(5, 2000), st.floats(0.14, 0.5)), min_size=2, max_size=20),
    st.floats(0.01, 0.2),
)
@example([(0, 5, 0.5), (0, 5, 0.25)], 0.03125)  # the first stratum is labelled whole
def test_an_allocation_has_the_wanted_error_and_no_large_weight(groups, error):
    names = {name: number for number, name in enumerate(sorted({group[0] for group in groups}))}
    bins, sizes, spread = zip(*((names[name], size, sigma) for name, size, sigma in groups), strict=True)
    strata = strata_of(bins, sizes, spread)
    drawn = strata.allocation(error)
    assert np.all(drawn > 0)
    assert np.all(drawn <= strata.sizes)
    assert np.all(strata.errors(drawn) < error * 1.0001)
    # The mean weight of the selected galaxies is the number of galaxies over the number of labels.
    labels = strata.rounded(drawn)
    assert np.all(labels >= np.floor(drawn))
    assert np.max(strata.sizes / labels) < 10.0001 * strata.sizes.sum() / labels.sum()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"budget": 150, "by": "covariate"}, {"budget": 400}, {"error": 0.05}])
def test_every_galaxy_can_be_selected_and_no_weight_is_large(catalogue, options):
    plan = make_plan(catalogue, PlanOptions(bins=4, **options))
    assert plan.frame["probability"].min() > 0
    assert plan.frame["probability"].max() <= 1
    weights = 1 / plan.selected["probability"].to_numpy()
    assert weights.max() < 10.001 * weights.mean()
    assert plan.selected["position"].to_list() == list(range(plan.selected.height))
    by_stratum = plan.frame.group_by("stratum").agg(
        pl.len(), pl.col("position").count().alias("drawn"), pl.col("probability").first()
    )
    np.testing.assert_allclose(by_stratum["drawn"] / by_stratum["len"], by_stratum["probability"])


@pytest.mark.slow
def test_the_wanted_error_is_predicted_for_every_bin(catalogue):
    plan = make_plan(catalogue, PlanOptions(error=0.06, seed=0))
    again, other = (make_plan(catalogue, PlanOptions(error=0.06, seed=seed)).frame for seed in (0, 1))
    assert plan.frame.equals(again)
    assert not plan.frame.equals(other)
    assert plan.predicted.size == 8
    assert 0.05 < plan.predicted.max() <= 0.06
    assert make_plan(catalogue, PlanOptions(error=0.03)).selected.height > plan.selected.height
    table = plan.comparison
    assert np.all(table["planned"].to_numpy() < table["random"].to_numpy())
    assert np.all(np.diff(table["planned"]) < 0)


@pytest.mark.slow
def test_a_plan_uses_the_estimate_that_it_is_given(catalogue, tmp_path):
    """That of the labels gives the plan that is made without one; another curve, another plan."""
    table, options = catalogue.frame.select("object_id", "label", "alpha"), {"budget": 200, "seed": 0}
    own = tm.plan_gold(table, **options)
    estimate = tm.estimate_transition(table, compare=False, out=tmp_path / "fit.json")
    for one in (estimate, tmp_path / "fit.json"):
        again = tm.plan_gold(table, estimate=one, **options)
        np.testing.assert_allclose(again.frame["probability"], own.frame["probability"], rtol=0.1)
    wide = tm.estimate_transition(table.with_columns(pl.col("alpha") / 3), compare=False)
    other = tm.plan_gold(table, estimate=wide, **options)
    assert not np.allclose(other.frame["probability"], own.frame["probability"], rtol=0.1)


def test_galaxies_without_an_image_are_left_out_and_counted(catalogue):
    has = np.arange(3000) % 5 > 0
    image = pl.Series([f"{k}.jpg" if one else None for k, one in enumerate(has)])
    plan = make_plan(CatalogTable(catalogue.frame.with_columns(image=image)), PlanOptions(budget=200))
    assert codes(plan) == ["galaxies-left-out"]
    assert "600 of 3,000" in plan.findings[0].message
    probability = plan.frame["probability"].to_numpy()
    assert np.all((probability > 0) == has)
    assert plan.selected["image"].null_count() == 0


@pytest.mark.slow
def test_a_catalogue_prepared_without_images_has_the_plan_of_one_without_the_column(catalogue):
    image = pl.lit(None, pl.String)
    plan = make_plan(CatalogTable(catalogue.frame.with_columns(image=image)), PlanOptions(budget=200))
    assert plan.findings == ()
    assert plan.frame.equals(make_plan(catalogue, PlanOptions(budget=200)).frame)


@pytest.mark.slow
def test_probabilities_of_a_pilot_and_of_the_next_plan_combine():
    """A galaxy has a gold label unless neither selected it: 1 - (1 - p₁)(1 - p₂), those of the pilot too."""
    table = world(seed=4)
    first = make_plan(table, PlanOptions(budget=100, bins=4, seed=1))
    chosen = first.frame["position"].is_not_null().to_numpy()
    truth = tm.simulate_catalogue(3000, seed=4)["truth"].to_numpy()
    before = first.frame["probability"].to_numpy()
    frame = table.frame.with_columns(
        gold=pl.Series(np.where(chosen, truth, -1)).replace(-1, None), gold_probability=before
    )
    second = make_plan(CatalogTable(frame), PlanOptions(budget=200, bins=4, seed=2))
    again = second.frame["position"].is_not_null().to_numpy()
    assert not np.any(chosen & again)
    assert second.about["pilot"] == chosen.sum()
    assert "gold-taken-as-random" not in codes(second)
    assert "gold-taken-as-random" in codes(
        make_plan(CatalogTable(frame.drop("gold_probability")), PlanOptions(budget=200))
    )
    after = second.frame["probability"].to_numpy()
    # The pilot's galaxies have the probability of others of the same bin and label.
    rest, alpha = ~chosen, table.frame["alpha"].to_numpy()
    edges = Bins.cut(alpha[rest], 4).edges
    cell = np.searchsorted(edges[1:-1], alpha, side="right") * 2 + table.frame["label"].to_numpy()
    drawn = (np.bincount(cell, again) / np.bincount(cell, rest))[cell]
    np.testing.assert_allclose(after, 1 - (1 - before) * (1 - drawn))
    # Inverse probabilities of both samples together add up to the number of galaxies.
    weights = 1 / after[chosen | again]
    assert abs(weights.sum() - 3000) < 4 * np.sqrt(np.sum(weights**2 * (1 - after[chosen | again])))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("budget", 19), ("budget", 3001), ("error", 0.0), ("error", 0.5)])
def test_budgets_and_errors_that_cannot_be_are_refused(catalogue, name, value):
    with pytest.raises(InputError, match=f"got {value}"):
        make_plan(catalogue, PlanOptions(**{name: value}))


def test_bins_are_of_two_columns_at_most(catalogue):
    with pytest.raises(InputError, match="`by`"):
        make_plan(catalogue, PlanOptions(budget=60, by="alpha,x2,x3"))


def test_an_estimate_of_a_question_predicts_no_labels(catalogue):
    frame = tm.simulate_catalogue(400, seed=1, gold=400)
    gold = frame["gold"].to_numpy() + (frame["x2"].to_numpy() > 0)  # 0, 1, 2
    labels = np.where(np.arange(400) % 5, gold, np.arange(400) % 3)
    curve = tm.fit_transition(labels, frame["alpha"].to_numpy(), "matrix", gold=gold).curve
    with pytest.raises(InputError, match="`estimate`"):
        make_plan(catalogue, PlanOptions(budget=60), curve=curve)
