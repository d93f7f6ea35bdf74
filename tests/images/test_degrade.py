"""Degrading images, the stretch and its inverse, and measuring shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from truemorph import degrade
from truemorph.errors import InputError
from truemorph.images.shapes import measure_shapes
from truemorph.images.stretch import stretch, unstretch


@given(arrays(np.uint8, (4, 4, 3)))
@settings(max_examples=60)
def test_the_stretch_and_its_inverse_agree_within_a_grey_level(pixels):
    again = stretch(unstretch(pixels))
    assert np.abs(again.astype(int) - pixels.astype(int)).max() <= 1


def star(fwhm, side=65, peak=0.8):
    """An image of a Moffat profile with β = 3.5."""
    radius = fwhm / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    axis = np.arange(side) - (side - 1) / 2
    light = peak * (1 + (axis[:, None] ** 2 + axis[None, :] ** 2) / radius**2) ** -3.5
    return np.repeat(light[None].astype(np.float32), 3, axis=0)


@pytest.mark.parametrize(("alpha", "lower"), [(12.0, 6.0), (15.0, 5.0), (9.0, 8.0)])
def test_a_degraded_star_has_the_wider_psf(alpha, lower):
    radius = 25.0
    image = stretch(star(2.3548 * radius / alpha))[None]
    out = unstretch(degrade(image, np.array([alpha]), np.array([lower]), radius, how="seeing")[0])[1]
    # The same flux in a wider profile.
    expected = star(2.3548 * radius / lower, peak=0.8 * (lower / alpha) ** 2)[1]
    middle = slice(20, 45)
    np.testing.assert_allclose(out[middle, middle], expected[middle, middle], atol=0.03 * expected.max() + 0.006)


def sky(seed, side=65, noise=0.02):
    light = np.full((3, side, side), 0.1, np.float32)
    return stretch(light + np.random.default_rng(seed).normal(0, noise, light.shape).astype(np.float32))


def spread(pictures):
    return np.stack([unstretch(picture) for picture in pictures]).std()


@pytest.mark.parametrize(("how", "alpha", "lower", "factor"), [
    # Camera pixels of 0.48 and 1.59 image pixels: averaging leaves 0.48² of the variance, interpolation (2/3)².
    ("distance", 30.0, 9.0, (2 / 3) / 0.476),
    # Pixels of 0.24 and 0.48: twice the noise.
    ("distance", 60.0, 30.0, 2.0),
    # Worse seeing loses no flux.
    ("seeing", 30.0, 9.0, 1.0),
])  # fmt: skip
def test_noise_increases_with_distance_but_not_with_seeing(how, alpha, lower, factor):
    images = np.stack([sky(seed) for seed in range(8)])
    out = degrade(images, np.full(8, alpha), np.full(8, lower), 20.0, seed=5, how=how)
    assert spread(out) == pytest.approx(factor * spread(images), rel=0.08)
    np.testing.assert_array_equal(out, degrade(images, np.full(8, alpha), np.full(8, lower), 20.0, seed=5, how=how))


@pytest.mark.parametrize(("how", "first", "second"), [("distance", 9, 6), ("distance", 25, 12), ("seeing", 6, 4)])
def test_two_steps_give_the_same_noise_as_one(how, first, second):
    images, sharp = np.stack([sky(seed) for seed in range(8)]), np.full(8, 60.0)
    halfway = degrade(images, sharp, np.full(8, first), 25.0, seed=1, how=how)
    twice = degrade(halfway, np.full(8, first), np.full(8, second), 25.0, seed=2, how=how)
    once = degrade(images, sharp, np.full(8, second), 25.0, seed=3, how=how)
    assert spread(twice) == pytest.approx(spread(once), rel=0.15)


def test_images_below_the_target_resolution_are_unchanged():
    images = np.stack([stretch(star(5.0)), stretch(star(7.0))])
    out = degrade(images, np.array([10.0, 10.0]), np.array([10.0, 25.0]), 20.0)
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize(("alpha", "lower", "options", "says"), [
    ([1, 1], [1], {}, "one per image"), ([1], [0], {}, "positive"), ([9], [1], {"how": "luck"}, "distance"),
])  # fmt: skip
def test_invalid_input_raises_errors(alpha, lower, options, says):
    with pytest.raises(InputError, match=says):
        degrade(stretch(star(5.0))[None], np.array(alpha), np.array(lower), 20.0, **options)


def ellipse(ratio, angle, arms=0.0, star=False, side=64):
    axis = (np.arange(side) - (side - 1) / 2) / side
    x, y = axis[None, :], axis[:, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(along, across / ratio)
    azimuth = np.arctan2(across / ratio, along)
    light = 2 * np.exp(-radius / 0.08) * (1 + arms * np.cos(2 * azimuth - 3 * np.log(radius + 0.02)))
    if star:
        light += 3 * np.exp(-((x - 0.22) ** 2 + (y + 0.15) ** 2) / (2 * 0.02**2))
    light = np.repeat(light[None].astype(np.float32), 3, axis=0)
    light += np.random.default_rng(1).normal(0, 0.01, light.shape).astype(np.float32)
    return stretch(light)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("star", [False, True])
def test_axis_ratios_are_measured_with_and_without_a_star(ratio, star):
    shapes = measure_shapes(np.stack([ellipse(ratio, angle, star=star) for angle in (0.0, 0.7, 2.0)]))
    np.testing.assert_allclose(shapes["axis_ratio"], ratio, atol=0.07)


def test_contrast_is_sensitive_to_arms_but_not_to_neighbours():
    smooth, spiral, beside = (
        measure_shapes(np.stack([ellipse(0.8, a, **more) for a in (0.1, 1.0)]))["contrast"].to_numpy()
        for more in ({}, {"arms": 0.6}, {"star": True})
    )
    assert np.all(spiral > 3 * smooth + 0.05)
    assert np.all(beside < 0.5 * spiral)
