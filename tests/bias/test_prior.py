"""Class fractions of another sample, re-estimated from a classifier's probabilities."""

import numpy as np
import pytest

import truemorph as tm
from truemorph.bias.prior import HeldOut, certainty, reestimated_fractions, sharpened

MEANS = np.array([[0.0, 0.0], [2.0, 0.0], [0.5, 1.5]])
TRAINED, NEW = np.array([0.5, 0.3, 0.2]), np.array([0.15, 0.25, 0.6])


def drawn(fractions, n, rng):
    """p(y | x), for the class fractions of training, of n galaxies with other class fractions; and true classes."""
    truth = rng.choice(3, n, p=fractions)
    x = MEANS[truth] + rng.normal(size=(n, 2))
    density = np.exp(-0.5 * ((x[:, None] - MEANS) ** 2).sum(axis=2)) * TRAINED
    return density / density.sum(axis=1, keepdims=True), truth


def with_classes(p, truth):
    """Held-out galaxies whose classes are known."""
    return HeldOut(p, np.where(np.eye(3, dtype=bool)[truth], 0.0, -np.inf), np.ones(len(p)))


@pytest.mark.slow
def test_a_shifted_prior_is_recovered_with_errors_that_cover():
    """200 samples, each with class fractions of training from 1,000 held-out galaxies."""
    rng, off = np.random.default_rng(0), []
    for _ in range(200):
        held_out = with_classes(*drawn(TRAINED, 1000, rng))
        fractions, covariance = reestimated_fractions(drawn(NEW, 1500, rng)[0], held_out)
        off.append((fractions - NEW) / np.sqrt(np.diag(covariance)))
    # With 200 samples the standard error of the mean is 0.07, that of the scatter 0.05.
    np.testing.assert_allclose(np.mean(off, axis=0), 0, atol=0.25)
    np.testing.assert_allclose(np.std(off, axis=0), 1, atol=0.15)
    assert 0.9 < np.mean(np.abs(off) < 1.96) < 0.99


def test_the_estimate_is_the_fixed_point_of_the_em_algorithm():
    rng = np.random.default_rng(1)
    held_out, (p, _) = with_classes(*drawn(TRAINED, 500, rng)), drawn(NEW, 500, rng)
    fractions, covariance = reestimated_fractions(p, held_out)
    factor, _ = held_out.sharpness()
    again = sharpened(p, factor) * fractions / held_out.fractions(factor)[0]  # eq. 2.4 of Saerens et al.
    np.testing.assert_allclose((again / again.sum(axis=1, keepdims=True)).mean(axis=0), fractions, atol=1e-7)
    np.testing.assert_allclose(covariance.sum(axis=0), 0, atol=1e-6)


def test_probabilities_that_do_not_depend_on_the_galaxy_say_nothing():
    truth = np.repeat([0, 1, 2], [10, 6, 4])
    fractions, covariance = reestimated_fractions(
        np.tile(TRAINED, (20, 1)), with_classes(np.tile(TRAINED, (20, 1)), truth)
    )
    np.testing.assert_allclose(fractions, TRAINED, atol=1e-6)  # derivatives are differences
    assert np.isnan(covariance).all()


def of_two(factor, fraction, n, rng):
    """p of two classes whose logits are wrong by a factor, for the class fractions of training; and true classes."""
    truth = (rng.random(n) < fraction).astype(int)
    x = rng.normal(size=n) + 2 * truth
    disk = 1 / (1 + np.exp(-factor * (2 * x - 2 + np.log(0.7 / 0.3))))
    return np.column_stack([1 - disk, disk]), truth


def through_flips(p, truth, rng):
    """Held-out galaxies whose classes are known through T(α) only."""
    alpha, curve = np.exp(2.8 + 0.45 * rng.normal(size=truth.size)), tm.RayleighTransition(11.25)
    flips = curve.flip_probability(alpha)
    label = truth * (rng.random(truth.size) > flips)
    with np.errstate(divide="ignore"):
        evidence = np.log(np.column_stack([1.0 - label, np.where(label == 1, 1 - flips, flips)]))
    return HeldOut(p, evidence, np.ones(truth.size))


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_errors_hold_where_logits_of_all_galaxies_are_wrong_by_a_factor(factor):
    rng, covered, seen = np.random.default_rng(1), [], []
    for _ in range(40):
        held_out = through_flips(*of_two(factor, 0.7, 3000, rng), rng)
        p, truth = of_two(factor, 0.3, 3000, rng)
        fractions, covariance = reestimated_fractions(p, held_out)
        covered.append(abs(fractions[1] - truth.mean()) < 1.96 * np.sqrt(covariance[1, 1]))
        found, error = held_out.sharpness()
        seen.append((found + np.log(factor)) / error)
    assert np.mean(covered) >= 0.9 - 1.96 * np.sqrt(0.05 * 0.95 / 40)
    assert abs(np.mean(seen)) < 3 / np.sqrt(40)


@pytest.mark.parametrize(("factor", "differs"), [(0.8, True), (0.9, True), (1.0, False), (1.25, True)])
def test_logits_of_new_images_alone_that_are_wrong_by_a_factor_are_seen(factor, differs):
    rng = np.random.default_rng(2)
    for _ in range(5):
        held_out = through_flips(*of_two(1.0, 0.7, 3000, rng), rng)
        p, _ = of_two(factor, 0.3, 4000, rng)
        ratio, error = certainty(p, reestimated_fractions(p, held_out)[0], held_out)
        assert (abs(ratio - 1) > 3.5 * error) == differs
