"""Vote counts: recovered overdispersion, unbiased θ, T(α) of majority labels."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import betabinom

from conftest import codes, some_known
from truemorph.bias.curves import RayleighTransition
from truemorph.bias.fitting import fit_transition
from truemorph.bias.fractions import debiased_fractions
from truemorph.bias.vote_model import beta_binomial_log_probability
from truemorph.errors import InputError

THETA, FALSE_DISK, RHO = 11.25, 0.12, (0.15, 0.3)


def voted(n, seed):
    """Simulated counts of smooth and disk votes: (votes, alpha, truth)."""
    rng = np.random.default_rng(seed)
    alpha = rng.lognormal(np.log(14), 0.45, n)
    truth = (rng.random(n) < 0.6).astype(int)
    mean = RayleighTransition(THETA, FALSE_DISK).matrix(alpha)[np.arange(n), truth, 1]
    concentration = (1 - np.array(RHO)[truth]) / np.array(RHO)[truth]
    mean = np.clip(mean, 1e-6, 1 - 1e-6)
    volunteers = rng.integers(30, 50, n)
    disk = rng.binomial(volunteers, rng.beta(mean * concentration, (1 - mean) * concentration))
    return np.column_stack([volunteers - disk, disk]), alpha, truth


@pytest.fixture(scope="module")
def counted():
    """Votes, alpha and truth of 3,000 galaxies, and the fit of their counts."""
    votes, alpha, truth = voted(3_000, 1)
    return votes, alpha, truth, fit_transition(votes, alpha, delta=None)


def test_beta_binomial_equals_that_of_scipy():
    k, n = np.repeat(np.arange(41), 5), np.tile([40, 41, 50, 60, 80], 41)
    for mean, rho in ((0.01, 0.9), (0.3, 0.2), (0.99, 0.01)):
        got = beta_binomial_log_probability(k, n, np.full(k.size, mean), rho)
        c = (1 - rho) / rho
        np.testing.assert_allclose(got, betabinom(n, mean * c, (1 - mean) * c).logpmf(k), atol=1e-8)


@pytest.mark.slow
def test_every_parameter_is_recovered_with_its_error():
    true = {
        "theta": THETA, "false_disk": FALSE_DISK, "overdispersion_smooth": RHO[0], "overdispersion_disk": RHO[1],
        "disk_fraction": 0.6,
    }  # fmt: skip
    pulls = {name: [] for name in true}
    for seed in range(25):
        votes, alpha, _ = voted(2_000, seed)
        fit = fit_transition(votes, alpha, delta=None)
        assert fit.method == "votes"
        found = {**fit.values, "disk_fraction": fit.class_fractions[1]}
        for name, value in true.items():
            pulls[name].append((found[name] - value) / fit.stderr[name])
    for name, ones in pulls.items():
        # 25 pulls: the mean has an error of 0.2, the scatter 0.14; three and a half of those.
        assert abs(np.mean(ones)) < 0.7, name
        assert 0.5 < np.std(ones, ddof=1) < 1.5, name


def test_votes_that_do_not_separate_two_classes_give_a_finding(counted):
    # One class of galaxies, with about 60 % disk votes at any resolution.
    rng = np.random.default_rng(0)
    alpha = rng.lognormal(np.log(14), 0.45, 250)
    disk = rng.binomial(40, rng.beta(6, 4, 250))
    fit = fit_transition(np.column_stack([40 - disk, disk]), alpha, delta=None)
    assert "classes-not-separated" in codes(fit)
    assert codes(counted[-1]) == ["flat-fractions-assumed"]


def test_counts_give_smaller_errors_than_majority_labels_and_the_t_of_these(counted):
    votes, alpha, truth, counts = counted
    label = (votes[:, 1] > votes[:, 0]).astype(int)
    many, at, _ = voted(20_000, 2)
    majority = fit_transition((many[:, 1] > many[:, 0]).astype(int), at, delta=None)
    assert abs(counts.class_fractions[1] - 0.6) < 4 * counts.stderr["disk_fraction"]
    assert abs(majority.class_fractions[1] - 0.6) > 3 * majority.stderr["disk_fraction"]
    assert counts.stderr["disk_fraction"] < fit_transition(label, alpha, delta=None).stderr["disk_fraction"]
    for y in (0, 1):
        for part in np.array_split(np.argsort(alpha), 4):
            chosen = part[truth[part] == y]
            fitted = counts.transition.matrix(alpha[chosen])[:, y, 1].mean()
            assert fitted == pytest.approx(label[chosen].mean(), abs=4 * np.sqrt(0.25 / chosen.size))
    numbers, shares = counts.votes.numbers
    assert numbers @ shares == pytest.approx(votes.sum(axis=1).mean())


def test_few_and_even_numbers_of_votes_with_ties():
    """Four votes are often tied; a tie gives a smooth label, in T and in the labels."""
    rng = np.random.default_rng(5)
    alpha = rng.lognormal(np.log(14), 0.45, 5_000)
    truth = (rng.random(alpha.size) < 0.7).astype(int)
    mean = np.where(truth == 1, 0.85, 0.15)
    disk = rng.binomial(4, rng.beta(2.0 * mean, 2.0 * (1 - mean)))
    fit = fit_transition(np.column_stack([4 - disk, disk]), alpha, "constant", gold=some_known(truth, 0.1, 5),
                         delta=None)  # fmt: skip
    label = fit.labels
    found = debiased_fractions(label, alpha, fit, bins=2, systematic=False)
    assert np.all(np.abs(found.fractions[:, 1] - 0.7) < 4 * found.stderr[:, 1])
    # This includes the error of the fit; for a known T it would be smaller.
    assert np.all(found.stderr > debiased_fractions(label, alpha, fit.transition, bins=2).stderr)


def test_weights_are_used_with_votes():
    votes, alpha, _ = voted(4_000, 6)
    majority = (votes[:, 1] > votes[:, 0]).astype(int)
    kept = np.random.default_rng(6).random(4_000) < np.where(majority == 1, 0.3, 1.0)
    weights = np.where(majority == 1, 1 / 0.3, 1.0)[kept]
    fit = fit_transition(votes[kept], alpha[kept], weights=weights, delta=None)
    assert abs(fit.class_fractions[1] - 0.6) < 4 * fit.stderr["disk_fraction"]
    assert abs(majority[kept].mean() - 0.6) > 4 * fit.stderr["disk_fraction"]


@pytest.mark.parametrize(
    ("votes", "says"),
    [
        ([[3, 4], [-1, 2]], "row 1 is"),
        ([[3.5, 4], [1, 2]], "integers"),
        ([[3, 4, 5], [1, 2, 3]], "counts of smooth and disk"),
    ],
)
def test_invalid_counts_raise_errors(votes, says):
    with pytest.raises(InputError, match=says):
        fit_transition(np.array(votes), [5.0, 9.0], method="votes")


def test_the_posterior_of_counts_is_calibrated(counted):
    votes, alpha, truth, fit = counted
    given = np.log(fit.class_fractions) + fit.votes.log_probabilities(votes, alpha)
    disk = expit(given[:, 1] - given[:, 0])
    for part in np.array_split(np.argsort(disk), 4):
        assert disk[part].mean() == pytest.approx(truth[part].mean(), abs=0.07)  # 750 each: 0.018, and the fit
    majority = votes[:, 1] > votes[:, 0]
    assert np.mean((disk > 0.5) == truth) > np.mean(majority == truth) + 0.02


@pytest.mark.parametrize("shared", [False, True])
def test_disks_that_all_volunteers_miss_are_seen_with_gold_labels(shared):
    rng = np.random.default_rng(8)
    alpha, truth = rng.lognormal(2.8, 0.45, 1_500), (rng.random(1_500) < 0.7).astype(int)
    flips = RayleighTransition(11.25).flip_probability(alpha)
    of_disks = np.where(rng.random(1_500) < flips, 0.1, 0.85) if shared else 1 - flips
    mean = np.clip(np.where(truth == 1, of_disks, 0.1), 1e-3, 1 - 1e-3)
    disk = rng.binomial(40, rng.beta(7 * mean, 7 * (1 - mean)))
    gold = np.where(np.arange(1_500) < 250, truth, -1)
    fit = fit_transition(np.column_stack([40 - disk, disk]), alpha, method="votes", gold=gold, delta=None)
    assert ("votes-rejected" in codes(fit)) == shared
