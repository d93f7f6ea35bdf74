"""Rings, means, differences and alignment: exact geometry, recovered truth, and coverage of limits."""

import numpy as np
import pytest

from truemorph.explain.profiles import MeanMap, moments, profile_difference, radial_profiles

EDGES = np.array([0.0, 1.5, 3.0, 4.2, 6.0])


@pytest.mark.parametrize("size", [8, 9])
def test_profiles_are_means_of_the_pixels_whose_centre_is_in_a_ring(size):
    maps = np.random.default_rng(0).random((3, size, size))
    axis = np.arange(size) - (size - 1) / 2
    distance = np.hypot(axis[:, None], axis)
    for scale in (None, np.array([1.0, 0.7, np.nan])):
        got = radial_profiles(maps, EDGES, scale)
        for k, one in enumerate(maps):
            edges = EDGES * (1 if scale is None else scale[k])
            for ring in range(EDGES.size - 1):
                inside = (distance >= edges[ring]) & (distance < edges[ring + 1])
                expected = one[inside].mean() if inside.any() else np.nan
                np.testing.assert_allclose(got[k, ring], expected)


def test_means_ignore_missing_values_and_add_up_over_batches():
    values = np.random.default_rng(1).random((6, 5))
    values[1, 2] = np.nan
    values[:, 0] = np.nan
    values[1:, 1] = np.nan
    got = MeanMap.of(moments(values[:4]) + moments(values[4:]))
    assert got.count.tolist() == [0, 1, 5, 6, 6]
    np.testing.assert_allclose(got.mean[1:], np.nanmean(values[:, 1:], axis=0))
    expected = np.nanstd(values[:, 2:], axis=0, ddof=1) / np.sqrt(got.count[2:])
    np.testing.assert_allclose(got.stderr[2:], expected)
    assert np.isnan([got.mean[0], *got.stderr[:2]]).all()


def test_limits_have_their_nominal_coverage():
    """With partly shared galaxies, whose common noise cancels; within 3σ of 200 experiments."""
    rng, experiments, n = np.random.default_rng(0), 200, 60
    within = {68: 0, 95: 0}
    for number in range(experiments):
        common = rng.normal(0, 0.2, n)
        first = (0.6 + common + rng.normal(0, 0.05, n))[:45, None]
        second = (0.5 + common + rng.normal(0, 0.05, n))[15:, None]
        found = profile_difference(first, second, (range(45), range(15, n)), bootstrap=200, seed=number)
        assert [found[f"galaxies_{name}"] for name in ("first", "second", "both")] == [45, 45, 30]
        for percent in within:
            within[percent] += found[f"low_{percent}"][0] <= 0.1 <= found[f"high_{percent}"][0]
    for percent, times in within.items():
        # Percentiles of 60 galaxies are slightly narrow: a factor of sqrt((n - 1) / n), and 200 resamples.
        fraction = percent / 100
        spread = 3 * np.sqrt(fraction * (1 - fraction) / experiments)
        assert times / experiments == pytest.approx(fraction, abs=spread + 0.01)
