"""Class fractions of another sample, re-estimated from a classifier's probabilities."""

import numpy as np

from truemorph.bias.prior import reestimated_fractions

MEANS = np.array([[0.0, 0.0], [2.0, 0.0], [0.5, 1.5]])
TRAINED, NEW = np.array([0.5, 0.3, 0.2]), np.array([0.15, 0.25, 0.6])


def drawn(fractions, n, rng):
    """p(y | x), for the class fractions of training, of n galaxies with other class fractions."""
    x = MEANS[rng.choice(3, n, p=fractions)] + rng.normal(size=(n, 2))
    density = np.exp(-0.5 * ((x[:, None] - MEANS) ** 2).sum(axis=2)) * TRAINED
    return density / density.sum(axis=1, keepdims=True)


def test_a_shifted_prior_is_recovered_with_errors_that_cover():
    """200 samples, each with class fractions of training from 2,000 held-out galaxies."""
    rng, off = np.random.default_rng(0), []
    for _ in range(200):
        held_out = drawn(TRAINED, 2000, rng)
        uncertain = np.cov(held_out, rowvar=False) / len(held_out)
        fractions, covariance = reestimated_fractions(drawn(NEW, 4000, rng), held_out.mean(axis=0), uncertain)
        off.append((fractions - NEW) / np.sqrt(np.diag(covariance)))
    # With 200 samples the standard error of the mean is 0.07, that of the scatter 0.05.
    np.testing.assert_allclose(np.mean(off, axis=0), 0, atol=0.25)
    np.testing.assert_allclose(np.std(off, axis=0), 1, atol=0.15)
    assert 0.9 < np.mean(np.abs(off) < 1.96) < 0.99


def test_the_estimate_is_the_fixed_point_of_the_em_algorithm():
    p = drawn(NEW, 500, np.random.default_rng(1))
    fractions, covariance = reestimated_fractions(p, TRAINED)
    again = p * fractions / TRAINED  # eq. 2.4 of Saerens et al.
    np.testing.assert_allclose((again / again.sum(axis=1, keepdims=True)).mean(axis=0), fractions, atol=1e-7)
    np.testing.assert_allclose(covariance.sum(axis=0), 0, atol=1e-12)
    only_first = np.tile([0.9, 0.05, 0.05], (50, 1))
    np.testing.assert_allclose(reestimated_fractions(only_first, TRAINED)[0], [1, 0, 0], atol=1e-6)


def test_probabilities_that_do_not_depend_on_the_galaxy_say_nothing():
    fractions, covariance = reestimated_fractions(np.tile(TRAINED, (20, 1)), TRAINED)
    np.testing.assert_allclose(fractions, TRAINED)
    assert np.isnan(covariance).all()
