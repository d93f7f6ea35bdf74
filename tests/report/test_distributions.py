"""Cumulative curves and distances: scipy's, repetition as weights, errors and floors against repeated draws."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from truemorph.errors import InputError
from truemorph.report.distributions import compare_distributions, cumulative, cumulative_panels, distance, share_above
from truemorph.report.figures import STYLE

PLAIN = {"bootstrap": 0}
# Few distinct values, so that ties happen.
samples = st.lists(st.integers(-20, 20).map(lambda x: x / 4), min_size=4, max_size=40).map(np.array)
seeds = st.integers(0, 10_000)


def apart(a, b, weights=None, **options):
    """Distances between two samples without galaxies in common."""
    in_a = np.concatenate([np.ones(a.size) if weights is None else weights, np.zeros(b.size)])
    return distance(np.concatenate([a, b]), in_a, np.repeat([0.0, 1.0], [a.size, b.size]), **options)


def paired(size, seed):
    """Values, and weights in two samples that share most members."""
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0.7, 0.6, size)
    in_a = rng.integers(0, 2, size).astype(float)
    changed = rng.random(size) < 0.2
    return values, in_a, np.where(changed, 1 - in_a, in_a)


@given(samples, samples)
@settings(max_examples=100)
def test_distances_are_those_of_scipy(a, b):
    found = apart(a, b, **PLAIN)
    theirs = stats.ks_2samp(a, b, method="asymp")
    assert found.ks == pytest.approx(theirs.statistic, abs=1e-12)
    assert found.area == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-9)


@given(samples, samples, seeds)
@settings(max_examples=60)
def test_a_weight_is_a_repetition(a, b, seed):
    weights = np.random.default_rng(seed).integers(1, 4, a.size)
    found, repeated = apart(a, b, weights, **PLAIN), np.repeat(a, weights)
    assert found.ks == pytest.approx(stats.ks_2samp(repeated, b).statistic, abs=1e-12)
    assert found.area == pytest.approx(stats.wasserstein_distance(a, b, u_weights=weights), abs=1e-9)
    curve, other = cumulative(a, weights), cumulative(repeated, np.ones(repeated.size))
    np.testing.assert_array_equal(curve[0], other[0])
    np.testing.assert_allclose(curve[1], other[1])
    assert share_above(a, 0.5, weights)[0] == pytest.approx(np.mean(repeated > 0.5))


@given(samples, seeds)
@settings(max_examples=60)
def test_curves_rise_from_nothing_to_all(values, seed):
    weights = np.random.default_rng(seed).random(values.size) + 0.01
    distinct, share = cumulative(values, weights)
    assert np.all(np.diff(share) > 0)
    assert share[-1] == pytest.approx(1)
    below = [weights[values <= x].sum() / weights.sum() for x in distinct]
    np.testing.assert_allclose(share, below, atol=1e-12)


@given(seeds)
@settings(max_examples=20)
def test_distances_know_neither_order_nor_which_came_first(seed):
    values, in_a, in_b = paired(200, seed)
    found, rows = distance(values, in_a, in_b, **PLAIN), np.random.default_rng(seed).permutation(200)
    swapped = distance(values[rows], in_b[rows], in_a[rows], **PLAIN)
    assert (swapped.ks, swapped.area) == pytest.approx((found.ks, found.area))
    # Kolmogorov-Smirnov asks for ranks alone, the area for values.
    logarithmic = distance(np.log(values), in_a, in_b, **PLAIN)
    assert logarithmic.ks == pytest.approx(found.ks)
    assert distance(3 * values + 1, in_a, in_b, **PLAIN).area == pytest.approx(3 * found.area)


def test_the_same_sample_twice_is_no_distance_away_and_never_varies():
    values, in_a, _ = paired(300, 1)
    found = distance(values, in_a, in_a, bootstrap=20)
    assert (found.ks, found.ks_stderr, found.ks_floor, found.area, found.p_value) == (0, 0, 0, 0, 1)


def spread_and_its_error(draws):
    """Standard deviation over draws, and its relative error (of a normal distribution)."""
    return np.std(draws, ddof=1), 1 / np.sqrt(2 * (len(draws) - 1))


def test_errors_are_the_scatter_of_repeated_draws():
    rng = np.random.default_rng(3)

    def draw():
        return rng.lognormal(0.3, 0.5, 400), rng.lognormal(0.8, 0.5, 300)

    repeated = [apart(*draw(), **PLAIN) for _ in range(400)]
    resampled = [apart(*draw(), bootstrap=200, seed=seed) for seed in range(12)]
    for name in ("ks", "area"):
        spread, relative = spread_and_its_error([getattr(one, name) for one in repeated])
        errors = np.array([getattr(one, f"{name}_stderr") for one in resampled])
        # 4 σ, of the scatter of both; and the largest of many differences moves between values: 1 / sqrt(n) of it.
        tolerance = 4 * np.hypot(relative, errors.std(ddof=1) / errors.mean() / np.sqrt(errors.size)) + 1 / np.sqrt(300)
        assert errors.mean() == pytest.approx(spread, rel=tolerance)


def test_floor_is_what_equal_samples_are_apart():
    rng = np.random.default_rng(4)

    def draw():
        return rng.gamma(2, 1, 500), rng.gamma(2, 1, 250)

    repeated = [apart(*draw(), **PLAIN) for _ in range(500)]
    resampled = [apart(*draw(), bootstrap=150, seed=seed) for seed in range(12)]
    for name in ("ks", "area"):
        chance = np.array([getattr(one, name) for one in repeated])
        floors = np.array([getattr(one, f"{name}_floor") for one in resampled])
        error = np.hypot(chance.std() / np.sqrt(chance.size), floors.std(ddof=1) / np.sqrt(floors.size))
        # The steps of curves of n galaxies count as 1 / (2 n) in the largest difference.
        assert floors.mean() == pytest.approx(chance.mean(), abs=4 * error + 0.5 / 250)
    # E sup |bridge| = sqrt(π / 2) ln 2; samples of finite size differ by 0.12 / sqrt(n) (Stephens 1970).
    asymptotic, size = np.sqrt(np.pi / 2) * np.log(2), 500 * 250 / 750
    floors = np.sqrt(size) * np.array([one.ks_floor for one in resampled])
    error = 4 * floors.std(ddof=1) / np.sqrt(floors.size) + 0.12 * asymptotic / np.sqrt(size)
    assert floors.mean() == pytest.approx(asymptotic, abs=error)


def test_floor_of_samples_that_share_galaxies_is_lower():
    def draw(seed):
        return paired(800, seed)

    chance = np.array([distance(*draw(seed), **PLAIN).ks for seed in range(400)])
    found = [distance(*draw(1000 + seed), bootstrap=150) for seed in range(12)]
    floors = np.array([one.ks_floor for one in found])
    error = np.hypot(chance.std() / np.sqrt(chance.size), floors.std(ddof=1) / np.sqrt(floors.size))
    assert floors.mean() == pytest.approx(chance.mean(), abs=4 * error + 0.5 / 400)
    apart = np.sqrt(np.pi / 2) * np.log(2) * np.sqrt(2 / 400)
    assert floors.mean() < 0.6 * apart
    # Without a difference, p-values are even between 0 and 1 up to the resamples' number.
    p_values = [distance(*draw(seed), bootstrap=60).p_value for seed in range(150)]
    assert stats.kstest(p_values, "uniform").statistic < 1.95 / np.sqrt(150) + 1 / 61  # 0.1 % level


def labelled(n, seed):
    """Sérsic indices, observed labels of which disks are missing, and better ones."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.6).astype(int)
    sersic = np.where(truth == 1, rng.lognormal(0.2, 0.35, n), rng.lognormal(1.35, 0.3, n))
    observed = np.where(rng.random(n) < 0.4, 0.0, truth)
    return sersic, observed, truth


def test_relabelled_galaxies_of_figure_3():
    sersic, observed, truth = labelled(4000, 1)
    observed[:50], sersic[50:60] = np.nan, np.nan
    found = compare_distributions(sersic, observed, {"debiased": truth}, bootstrap=100)
    finite = np.isfinite(sersic)
    expected = {
        ("smooth", "observed"): observed == 0,
        ("smooth", "debiased"): truth == 0,
        ("to_disk", "observed"): observed == 1,
        ("to_disk", "debiased"): (observed == 0) & (truth == 1),
        ("disk", "observed"): observed == 1,
        ("disk", "debiased"): truth == 1,
    }
    assert {(one.panel, one.labels): one.n for one in found.samples} == {
        key: np.count_nonzero(rows & finite) for key, rows in expected.items()
    }
    for one in found.samples:
        rows = expected[one.panel, one.labels] & finite
        np.testing.assert_array_equal(one.values, np.unique(sersic[rows]))
        assert one.above[0] == pytest.approx(np.mean(sersic[rows] > 3))
        if one.distance is not None:
            other = sersic[expected[one.panel, "observed"] & finite]
            assert one.distance.ks == pytest.approx(stats.ks_2samp(sersic[rows], other).statistic)
    assert found.n_dropped == 10
    table = found.table().filter(pl.col("panel") == "smooth")
    # The observed's smooth galaxies hold disks; that this is no accident is far beyond its error.
    few, many = table["share_above"]
    assert many - few > 10 * np.hypot(*table["share_above_stderr"])
    assert table["ks"][1] > 5 * table["ks_floor"][1]


def test_certain_probabilities_are_labels_and_others_weigh_in():
    sersic, observed, truth = labelled(1000, 2)
    hard = compare_distributions(sersic, observed, {"one": truth}, bootstrap=10)
    soft = compare_distributions(sersic, observed.astype(float), {"one": truth.astype(float)}, bootstrap=10)
    assert hard.table().equals(soft.table())
    halves = compare_distributions(sersic, observed, {"one": np.full(1000, 0.25)}, bootstrap=10)
    (disk,) = (one for one in halves.samples if (one.panel, one.labels) == ("disk", "one"))
    assert (disk.n, disk.total) == (1000, pytest.approx(250))
    np.testing.assert_allclose(disk.share, np.arange(1, 1001) / 1000)
    (switched,) = (one for one in halves.samples if (one.panel, one.labels) == ("to_disk", "one"))
    assert switched.total == pytest.approx(0.25 * np.count_nonzero(observed == 0))


def test_row_order_does_not_matter():
    sersic, observed, truth = labelled(500, 3)
    rows = np.random.default_rng(0).permutation(500)
    found = compare_distributions(sersic, observed, {"one": truth}, bootstrap=0)
    again = compare_distributions(sersic[rows], observed[rows], {"one": truth[rows]}, bootstrap=0)
    for one, other in zip(found.samples, again.samples, strict=True):
        np.testing.assert_allclose(one.share, other.share)
        assert one.above == other.above


def test_share_above_has_its_binomial_error():
    rng = np.random.default_rng(5)
    draws = [share_above(rng.normal(size=200), 0.5, np.ones(200)) for _ in range(400)]
    spread, relative = spread_and_its_error([value for value, _ in draws])
    assert np.mean([stderr for _, stderr in draws]) == pytest.approx(spread, rel=4 * relative)
    assert share_above(np.array([1.0, 2.0]), 3.0, np.ones(2))[1] > 0.2


def test_the_figure_shows_every_sample_and_its_data():
    sersic, observed, truth = labelled(2000, 4)
    back = np.where(np.arange(2000) % 9 == 0, 0, truth)
    found = compare_distributions(sersic, observed, {"debiased": back, "A $ B": truth}, bootstrap=20)
    panels = cumulative_panels(found, dict.fromkeys({one.labels for one in found.samples}, STYLE["observed"]))
    for one in panels:
        one.draw_without_rendering()
    texts = [[text.get_text() for text in one.axes[0].get_legend().get_texts()] for one in panels]
    assert [len(one) for one in texts] == [3, 4, 3]
    assert texts[1][-1].startswith("debiased: disk → smooth")
    curves = found.curves(points=50)
    assert curves.columns == ["panel", "labels", "value", "share"]
    for (_, _), part in curves.group_by("panel", "labels"):
        assert part.height <= 50
        assert part["share"].is_sorted()
        assert part["share"][-1] == pytest.approx(1)


def test_other_columns_need_no_boundary_and_empty_samples_are_left_out():
    values, observed = np.linspace(0, 1, 100), np.zeros(100)
    found = compare_distributions(values, observed, {"same": observed}, column="axis_ratio", boundary=None, bootstrap=5)
    assert [(one.panel, one.above) for one in found.samples] == [("smooth", None)] * 2
    panels = cumulative_panels(found, dict.fromkeys({one.labels for one in found.samples}, STYLE["observed"]))
    panels[2].draw_without_rendering()
    assert panels[2].axes[0].texts[0].get_text() == "no galaxy"


def test_samples_without_a_value_are_refused():
    sersic, observed, truth = labelled(50, 5)
    with pytest.raises(InputError, match="sersic_n"):
        compare_distributions(sersic * np.nan, observed, {"one": truth})
    with pytest.raises(InputError):
        distance(sersic, np.zeros(50), np.ones(50))
