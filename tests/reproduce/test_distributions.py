"""Cumulative curves and fractions of the Sérsic index, against those of numpy."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truemorph.reproduce.distributions import compare_distributions, cumulative, cumulative_panels, share_above

# Few distinct values, so that ties happen.
samples = st.lists(st.integers(-20, 20).map(lambda x: x / 4), min_size=4, max_size=40).map(np.array)


@given(samples)
def test_curves_have_the_fraction_at_or_below_each_value(values):
    curve = cumulative(values)
    np.testing.assert_array_equal(curve["value"], np.unique(values))
    np.testing.assert_allclose(curve["share"], [np.mean(values <= x) for x in curve["value"]])
    assert share_above(values)[0] == pytest.approx(np.mean(values > 3))


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
    found = compare_distributions(sersic, {"observed": observed, "debiased": truth})
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
    assert found.n_dropped == 10


def test_the_figure_shows_every_sample_and_its_data():
    sersic, observed, truth = labelled(2000, 4)
    found = compare_distributions(sersic, {"observed": observed, "debiased": truth, "A $ B": truth[::-1]})
    panels = cumulative_panels(found, {name: {"color": "0.5", "ls": "-"} for name in found.table["labels"]})
    assert [len(panel.axes[0].get_legend().get_texts()) for panel in panels] == [3, 3, 3]
    data = found.data()
    assert set(data.columns) == {*found.table.columns, "value", "share"}
    assert data.group_by("panel", "labels").agg(pl.col("share").last())["share"].to_list() == 9 * [1]


def test_empty_samples_are_left_out():
    found = compare_distributions(np.linspace(0, 1, 100), {"observed": np.zeros(100), "same": np.zeros(100)})
    assert found.table.select("panel", "labels", "share_above").rows() == [
        ("smooth", "observed", 0),
        ("smooth", "same", 0),
    ]
