"""Galaxies are compared with held-out training galaxies, with a known rate of false alarms."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from scipy.stats import betabinom

from conftest import stripes
from truemorph.classifiers.held_out import BEYOND, Comparison, measured

FEATURES = ("a", "b", "c")


def galaxies(n, rng):
    """Correlated features with heavy tails, and α."""
    x = rng.standard_t(3, (n, 3)) @ rng.normal(size=(3, 3))
    frame = pl.DataFrame(x, schema=FEATURES)
    return frame.with_columns(alpha=pl.Series(rng.normal(2.3, 0.4, n)))


def comparison(held_out, with_alpha=True):
    model = SimpleNamespace(uses_images=False, features=FEATURES, held_out=held_out)
    return Comparison.of(model, with_alpha)


def test_the_rate_of_false_alarms_is_calibrated():
    rng, fractions, alarms = np.random.default_rng(0), [], []
    for _ in range(300):
        found = galaxies(1400, np.random.default_rng(rng.integers(2**32)))
        compared = comparison(found[:600])
        unlike = compared.unlike(found[600:])
        fractions.append(unlike.count() / len(unlike))
        alarms.append(compared.chance(unlike.count(), len(unlike)) <= 0.05)
    assert np.mean(fractions) == pytest.approx(3 / 301, abs=0.001)  # the third of 300 gives the limit
    assert np.mean(alarms) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert np.mean(alarms) > 0.01


def test_the_probability_by_chance_is_that_of_the_beta_binomial_distribution():
    compared = comparison(galaxies(1001, np.random.default_rng(0)))
    held_out, k = 500, compared.reach
    assert k == int(BEYOND * (held_out + 1))
    for galaxies_compared, beyond in ((1, 0), (1, 1), (40, 0), (40, 2), (3000, 45), (3000, 3000)):
        expected = betabinom.sf(beyond - 1, galaxies_compared, k, held_out + 1 - k)
        assert compared.chance(beyond, galaxies_compared) == pytest.approx(expected, rel=1e-6)
    assert compared.chance(10**7, 10**9) == pytest.approx(compared.chance(10**4, 10**6), rel=0.01)


def test_galaxies_are_unlike_where_they_differ_and_what_is_unknown_is_not_compared():
    rng = np.random.default_rng(1)
    every = galaxies(2000, rng)
    compared, new = comparison(every[:1000]), every[1000:]
    far = new.with_columns(alpha=pl.col("alpha") + pl.when(pl.int_range(pl.len()) < 500).then(-60.0).otherwise(np.nan))
    found = compared.unlike(far)
    assert set(found[:500]) == {"alpha low"}
    without = comparison(every[:1000], with_alpha=False)
    assert found[500:].equals(without.unlike(new)[500:])
    # One galaxy at a time gives the same.
    assert found.equals(pl.concat([compared.unlike(iter_slice) for iter_slice in far.iter_slices(1)]))


def test_few_held_out_galaxies_are_not_compared():
    every = galaxies(198, np.random.default_rng(0))
    assert comparison(every) is not None
    assert comparison(every[:195]) is None
    assert comparison(None) is None


def test_images_with_other_noise_and_of_another_band_are_unlike():
    model = SimpleNamespace(uses_images=True, held_out=None)
    pixels = np.repeat(np.repeat(stripes(900)[0].inputs, 2, axis=1), 2, axis=2)
    rng = np.random.default_rng(0)
    pixels = np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)
    model.held_out = measured(model, pixels[:600])
    assert np.isfinite(model.held_out.to_numpy()).all()
    compared = Comparison.of(model, False)
    noisy = np.clip(pixels[600:] + rng.normal(0, 12, (300, 32, 32, 3)), 0, 255).astype(np.uint8)
    redder = (pixels[600:] * np.array([1.0, 0.6, 0.3])).astype(np.uint8)
    unlike = [compared.unlike(measured(model, some)) for some in (pixels[600:], noisy, redder)]
    like, noise, colour = (one.count() / 300 for one in unlike)
    assert like < 0.04
    assert noise > 0.5
    assert colour > 0.5
    alone = [measured(model, noisy[row : row + 1]) for row in range(20)]
    assert compared.unlike(pl.concat(alone)).equals(unlike[1][:20])
    blank = np.zeros((2, 32, 32, 3), np.uint8)
    assert np.isfinite(measured(model, blank).to_numpy()).all()
