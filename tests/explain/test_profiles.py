"""Rings, mean maps, differences and alignment: exact geometry, recovered truth, and coverage of limits."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from truemorph.errors import InputError
from truemorph.explain.catalogue import edge_contrast
from truemorph.explain.profiles import (
    MapSum,
    Profiles,
    aligned,
    profile_difference,
    radial_profiles,
    ring_areas,
)

EDGES = np.array([0.0, 1.5, 3.0, 4.2, 6.0])


def maps_of(n, size, seed):
    return np.random.default_rng(seed).random((n, size, size))


@pytest.mark.parametrize("size", [8, 9])
def test_areas_equal_those_of_fine_subpixels(size):
    fine = 300
    axis = (np.arange(size * fine) + 0.5) / fine - size / 2
    distance = np.hypot(axis[:, None], axis)
    got = ring_areas(size, EDGES)
    for ring in range(EDGES.size - 1):
        inside = (distance >= EDGES[ring]) & (distance < EDGES[ring + 1])
        counted = inside.reshape(size, fine, size, fine).mean(axis=(1, 3))
        # Only subpixels on the circles are uncertain: an arc in a pixel is at most π/2 long, so it crosses 2 × 300.
        np.testing.assert_allclose(got[ring], counted, atol=2 * 2 / fine)
    np.testing.assert_allclose(ring_areas(size, EDGES[:3]).sum(axis=(1, 2)), np.pi * np.diff(EDGES[:3] ** 2))


@given(st.integers(4, 15), st.floats(0.01, 1), st.integers(0, 10**6))
@settings(max_examples=25)
def test_profiles_of_constant_rotated_and_summed_maps(size, value, seed):
    edges = np.linspace(0, size / 2, 4)
    np.testing.assert_allclose(radial_profiles(np.full((1, size, size), value), edges), value)
    first, second = maps_of(2, size, seed), maps_of(2, size, seed + 1)
    profile = radial_profiles(first, edges)
    for turns in (1, 2, 3):
        np.testing.assert_allclose(radial_profiles(np.rot90(first, turns, axes=(1, 2)), edges), profile)
    both = radial_profiles(first + 3 * second, edges)
    np.testing.assert_allclose(both, profile + 3 * radial_profiles(second, edges))
    assert (profile >= first.min()).all()
    assert (profile <= first.max()).all()


def test_rings_that_cover_the_image_contain_all_of_it():
    maps = maps_of(3, 11, 0)
    edges = np.array([0, 2, 5, 8.0])  # the corners are at 7.8
    areas = ring_areas(11, edges).sum(axis=(1, 2))
    np.testing.assert_allclose(radial_profiles(maps, edges) @ areas, maps.sum(axis=(1, 2)))


def test_a_radial_profile_is_recovered():
    """Pixels have the value at their centres, which varies by at most half a diagonal times the slope 1/h."""
    size, scale_length = 101, 12.0
    axis = np.arange(size) - (size - 1) / 2
    law = np.exp(-np.hypot(axis[:, None], axis) / scale_length)
    edges = np.linspace(0, 48, 9)
    got = radial_profiles(law[None], edges)[0]
    for ring, (inner, outer) in enumerate(pairwise(edges)):
        integral, _ = quad(lambda r: r * np.exp(-r / scale_length), inner, outer)
        true = 2 * integral / (outer**2 - inner**2)
        assert got[ring] == pytest.approx(true, abs=np.sqrt(0.5) / scale_length * np.exp(-inner / scale_length))
        assert got[ring] == pytest.approx(true, rel=0.01)


def test_galaxies_with_one_profile_agree_in_units_of_their_radii():
    size, radii = 128, np.array([12.0, 20.0, 31.0])
    axis = np.arange(size) - (size - 1) / 2
    maps = np.exp(-np.hypot(axis[:, None], axis)[None] / radii[:, None, None])
    got = radial_profiles(maps, np.linspace(0, 2, 5), radii)
    # As above, half a pixel diagonal over the smallest radius.
    np.testing.assert_allclose(got, np.broadcast_to(got[2], got.shape), atol=np.sqrt(0.5) / 12 / 4)
    unknown = radial_profiles(maps, np.linspace(0, 2, 5), np.array([12.0, np.nan, 31.0]))
    assert np.isnan(unknown[1]).all()
    np.testing.assert_array_equal(unknown[[0, 2]], got[[0, 2]])


def test_rings_outside_of_the_image_are_nan_and_rings_at_its_corners_are_not():
    ramp = np.ones((1, 10, 10))
    ramp[0, 0, 0] = 5  # its outer corner has the largest distance from the centre, 7.07
    got = radial_profiles(ramp, np.array([0, 1, 6.9, 7.05, 8, 9]))[0]
    assert got[0] == pytest.approx(1)
    assert got[2] == pytest.approx((5 + 3) / 4)  # one of four corners
    assert np.isnan(got[4])


def test_mean_maps_ignore_missing_pixels():
    maps = maps_of(6, 5, 1)
    maps[1, 2, 2] = np.nan
    maps[:, 0, 0] = np.nan
    maps[1:, 0, 1] = np.nan
    total = MapSum(5)
    total.add(maps[:4])
    total.add(maps[4:])
    got = total.mean()
    assert (got.count.max(), got.count[2, 2], got.count[0, 0], got.count[0, 1]) == (6, 5, 0, 1)
    assert np.isnan(got.mean[0, 0])
    assert (got.mean[0, 1], np.isnan(got.stderr[0, 1])) == (maps[0, 0, 1], True)
    inner = maps[:, 1:, 1:]
    np.testing.assert_allclose(got.mean[1:, 1:], np.nanmean(inner, axis=0))
    count = np.isfinite(inner).sum(axis=0)
    np.testing.assert_allclose(got.stderr[1:, 1:], np.nanstd(inner, axis=0, ddof=1) / np.sqrt(count))
    single = MapSum(5)
    single.add(maps[:1])
    assert np.isnan(single.mean().stderr).all()


def test_mean_profiles_have_errors():
    profiles = np.random.default_rng(0).normal(0.4, 0.1, (50, 3))
    profiles[:, 2] = np.nan
    profiles[0, 1] = np.nan
    got = Profiles(np.array([0, 1, 2, 4]), "pixel", profiles)
    np.testing.assert_allclose(got.mean[:2], np.nanmean(profiles[:, :2], axis=0))
    np.testing.assert_allclose(got.stderr[0], profiles[:, 0].std(ddof=1) / np.sqrt(50))
    assert got.counts.tolist() == [50, 49, 0]
    assert got.middles.tolist() == [0.5, 1.5, 3.0]
    assert np.isnan([got.mean[2], got.stderr[2]]).all()


def test_limits_have_their_nominal_coverage():
    """With partly shared galaxies, 95 % of limits contain the true difference, within 3σ of 400 experiments."""
    rng, experiments, n = np.random.default_rng(0), 400, 60
    within, narrow = 0, 0
    for number in range(experiments):
        common = rng.normal(0, 0.2, n)
        first = (0.6 + common + rng.normal(0, 0.05, n))[:45, None]
        second = (0.5 + common + rng.normal(0, 0.05, n))[15:, None]
        _, limits, galaxies = profile_difference(first, second, (range(45), range(15, n)), bootstrap=200, seed=number)
        (low,), (high,) = limits[0.95]
        within += low <= 0.1 <= high
        (low,), (high,) = limits[0.68]
        narrow += low <= 0.1 <= high
    assert galaxies == (45, 45, 30)
    for share, found in ((0.95, within), (0.68, narrow)):
        # Percentiles of 60 galaxies are slightly narrow: a factor of sqrt((n - 1) / n), and 200 resamples.
        expected, spread = share, 3 * np.sqrt(share * (1 - share) / experiments)
        assert expected - spread - 0.01 <= found / experiments <= expected + spread


def test_common_noise_of_models_cancels():
    rng = np.random.default_rng(0)
    common = rng.normal(0.5, 0.3, (300, 2))
    first, second = common + rng.normal(0.02, 0.01, (300, 2)), common
    names = [f"g{k}" for k in range(300)]
    paired, paired_limits, _ = profile_difference(first, second, (names, names))
    apart, apart_limits, _ = profile_difference(first, second, (range(300), range(300, 600)))
    np.testing.assert_allclose(paired, (first - second).mean(axis=0))
    np.testing.assert_allclose(apart, paired)
    half_paired, half_apart = (np.diff(one[0.68], axis=0)[0] / 2 for one in (paired_limits, apart_limits))
    # Standard errors of the differences and of two means. With 1000 resamples, a width has an error of about 4 %.
    np.testing.assert_allclose(half_paired, (first - second).std(axis=0) / np.sqrt(300), rtol=0.15)
    expected = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 300)
    np.testing.assert_allclose(half_apart, expected, rtol=0.15)
    assert (paired_limits[0.95][0] > 0).all()
    assert (apart_limits[0.95][0] < 0).all()
    _, same, _ = profile_difference(first, first[::-1], (names, names[::-1]))
    np.testing.assert_allclose(same[0.95], 0, atol=1e-12)


def test_multinomial_resamples_equal_drawing_galaxies():
    rng = np.random.default_rng(4)
    first, second = rng.random((8, 1)), rng.random((6, 1))
    ids = (list("abcdefgh"), list("efghij"))
    _, got, _ = profile_difference(first, second, ids, bootstrap=20_000, seed=1)
    drawn = []
    for some in rng.integers(0, 10, (20_000, 10)):
        names = np.array(list("abcdefghij"))[some]
        one, other = ([values["abcdefghij".index(n) - shift, 0] for n in names if n in own]
                      for values, own, shift in ((first, ids[0], 0), (second, ids[1], 4)))  # fmt: skip
        if one and other:
            drawn.append(np.mean(one) - np.mean(other))
    for share in (0.68, 0.95):
        limits = [(1 - share) / 2, (1 + share) / 2]
        # The error of a quantile is estimated from tenths of the draws, for both methods.
        error = np.std([np.quantile(drawn[k::10], limits) for k in range(10)], axis=0, ddof=1).max() / np.sqrt(10)
        np.testing.assert_allclose(got[share][:, 0], np.quantile(drawn, limits), atol=5 * np.sqrt(2) * error)


def test_results_depend_on_the_seed_and_empty_rings_are_nan():
    first, second = maps_of(20, 3, 0)[:, 0], maps_of(20, 3, 1)[:, 0]
    first[:, 2] = np.nan
    (difference, limits, _), (_, again, _), (_, other, _) = (
        profile_difference(first, second, (range(20), range(20)), bootstrap=100, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(limits[0.95], again[0.95])
    assert not np.array_equal(limits[0.95], other[0.95])
    assert np.isnan(difference[2])
    assert np.isnan(limits[0.68][:, 2]).all()


def test_aligned_major_axes_are_along_x():
    size = 65
    axis = np.arange(size) - (size - 1) / 2
    angles = np.radians([0, 30, 75, 90, 140])
    maps = np.stack(
        [
            np.exp(
                -((axis[None, :] * np.cos(a) + axis[:, None] * np.sin(a)) ** 2) / (2 * 14**2)
                - (axis[:, None] * np.cos(a) - axis[None, :] * np.sin(a)) ** 2 / (2 * 5**2)
            )
            for a in angles
        ]
    )
    got = aligned(maps, angles)
    disk = np.hypot(axis[:, None], axis) < 30
    # Bilinear interpolation: an eighth of the second derivative, 1 / 5², in both directions.
    assert np.abs(got - maps[0])[:, disk].max() < 2 / 8 / 25
    np.testing.assert_allclose(aligned(maps, np.zeros(5)), maps, atol=1e-9)
    quarter = aligned(maps_of(1, 9, 0), np.array([np.pi / 2]))
    np.testing.assert_allclose(quarter, np.rot90(maps_of(1, 9, 0), 1, axes=(1, 2)), atol=1e-9)


def test_scaled_galaxies_have_the_same_size():
    size, radii = 96, np.array([16.0, 24.0, 60.0, np.nan])
    axis = np.arange(size) - (size - 1) / 2
    maps = np.exp(-((np.hypot(axis[:, None], axis)[None] / radii[:3, None, None]) ** 2))
    maps = np.concatenate([maps, maps[:1]])
    got = aligned(maps, np.zeros(4), radii)
    place = 2.0 * (2 * np.arange(size) + 1 - size) / size
    expected = np.exp(-(place[:, None] ** 2 + place**2))
    np.testing.assert_allclose(got[:2], np.broadcast_to(expected, (2, size, size)), atol=2 * 2 / 8 / 16**2)
    # Two radii of the third are outside of the image, whose half width is 0.8 radii.
    outside = np.abs(place) > 0.8
    assert np.isnan(got[2][outside]).all()
    assert np.isfinite(got[2][~outside][:, ~outside]).all()
    assert np.isnan(got[3]).all()


def test_zero_resamples_raise_an_error():
    profiles = maps_of(4, 3, 0)[:, 0]
    with pytest.raises(InputError, match="1 or more; got 0"):
        profile_difference(profiles, profiles, (range(4), range(4)), bootstrap=0)


def test_maps_that_are_bright_at_the_edge_of_the_picture():
    y, x = np.abs(np.indices((64, 64)) - 31.5)
    frame, blob = (np.maximum(x, y) > 26).astype(float), np.exp(-(x**2 + y**2) / 100)
    assert edge_contrast(frame + 0.2) > 1.5
    assert edge_contrast(blob) < 0.1
    assert edge_contrast(np.ones((8, 8))) == 1.0
