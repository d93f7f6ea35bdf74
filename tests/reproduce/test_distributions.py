"""Cumulative curves and distances: scipy's, errors and floors against repeated draws."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from truemorph.report.figures import STYLE
from truemorph.reproduce.distributions import (
    compare_distributions,
    cumulative,
    cumulative_panels,
    distance,
    share_above,
)

# Few distinct values, so that ties happen.
samples = st.lists(st.integers(-20, 20).map(lambda x: x / 4), min_size=4, max_size=40).map(np.array)


def apart(a, b, bootstrap=0, seed=0):
    """Distance between two samples without galaxies in common."""
    in_b = np.repeat([False, True], [a.size, b.size])
    return distance(np.concatenate([a, b]), ~in_b, in_b, bootstrap, seed)


def paired(size, seed):
    """Values, and weights in two samples that share most members."""
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0.7, 0.6, size)
    in_a = rng.random(size) < 0.5
    return values, in_a, in_a ^ (rng.random(size) < 0.2)


@given(samples, samples)
@settings(max_examples=60)
def test_distances_are_those_of_scipy(a, b):
    assert apart(a, b)["ks"] == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-12)
    curve = cumulative(a)
    np.testing.assert_array_equal(curve["value"], np.unique(a))
    np.testing.assert_allclose(curve["share"], [np.mean(a <= x) for x in curve["value"]])
    assert share_above(a)[0] == pytest.approx(np.mean(a > 3))


def test_errors_are_the_scatter_of_repeated_draws():
    rng = np.random.default_rng(3)

    def draw():
        return rng.lognormal(0.3, 0.5, 400), rng.lognormal(0.8, 0.5, 300)

    repeated = [apart(*draw())["ks"] for _ in range(400)]
    spread, relative = np.std(repeated, ddof=1), 1 / np.sqrt(2 * 399)
    errors = np.array([apart(*draw(), bootstrap=200, seed=seed)["ks_stderr"] for seed in range(12)])
    # 4 σ, of the scatter of both; and the largest of many differences moves between values: 1 / sqrt(n) of it.
    tolerance = 4 * np.hypot(relative, errors.std(ddof=1) / errors.mean() / np.sqrt(errors.size)) + 1 / np.sqrt(300)
    assert errors.mean() == pytest.approx(spread, rel=tolerance)


def test_floor_of_samples_that_share_galaxies_is_lower():
    chance = np.array([distance(*paired(800, seed), 0)["ks"] for seed in range(400)])
    floors = np.array([distance(*paired(800, 1000 + seed), 150)["ks_floor"] for seed in range(12)])
    error = np.hypot(chance.std() / np.sqrt(chance.size), floors.std(ddof=1) / np.sqrt(floors.size))
    # The steps of curves of n galaxies count as 1 / (2 n) in the largest difference.
    assert floors.mean() == pytest.approx(chance.mean(), abs=4 * error + 0.5 / 400)
    assert floors.mean() < 0.6 * np.sqrt(np.pi / 2) * np.log(2) * np.sqrt(2 / 400)


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
    rows = {(row["panel"], row["labels"]): row for row in found.table.iter_rows(named=True)}
    finite = np.isfinite(sersic)
    expected = {
        ("smooth", "observed"): observed == 0,
        ("smooth", "debiased"): truth == 0,
        ("to_disk", "observed"): observed == 1,
        ("to_disk", "debiased"): (observed == 0) & (truth == 1),
        ("disk", "observed"): observed == 1,
        ("disk", "debiased"): truth == 1,
    }
    assert rows.keys() == set(found.curves.select("panel", "labels").rows()) == expected.keys()
    for (panel, labels), row in rows.items():
        own = sersic[expected[panel, labels] & finite]
        assert row["n"] == own.size
        curve = found.curves.filter(panel=panel, labels=labels)
        np.testing.assert_allclose(curve["share"], [np.mean(own <= x) for x in curve["value"]])
        assert row["share_above"] == pytest.approx(np.mean(own > 3))
        if labels != "observed":
            other = sersic[expected[panel, "observed"] & finite]
            assert row["ks"] == pytest.approx(stats.ks_2samp(own, other).statistic)
    assert found.n_dropped == 10


def test_the_figure_shows_every_sample_and_its_data():
    sersic, observed, truth = labelled(2000, 4)
    found = compare_distributions(sersic, observed, {"debiased": truth, "A $ B": truth[::-1]}, bootstrap=20)
    panels = cumulative_panels(found, dict.fromkeys(found.table["labels"], STYLE["observed"]))
    assert [len(panel.axes[0].get_legend().get_texts()) for panel in panels] == [3, 3, 3]
    data = found.data()
    assert set(data.columns) == {*found.table.columns, "value", "share"}
    assert data.group_by("panel", "labels").agg(pl.col("share").last())["share"].to_list() == 9 * [1]


def test_empty_samples_are_left_out():
    found = compare_distributions(np.linspace(0, 1, 100), np.zeros(100), {"same": np.zeros(100)}, bootstrap=5)
    assert found.table.select("panel", "labels", "share_above").rows() == [
        ("smooth", "observed", 0),
        ("smooth", "same", 0),
    ]
