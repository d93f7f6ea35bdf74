"""Model vote counts, k of n votes for "disk", with more scatter than binomial.

Each galaxy's probability of a disk vote is beta-distributed around the mean of its class: 1 - flip(α) for disks, and
the false-disk rate for smooth galaxies. Given the class, k is therefore beta-binomial, with an intra-galaxy correlation
ρ for each class (variance n μ (1 - μ) (1 + (n - 1) ρ)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import betaln, expit, gammaln, log_softmax
from scipy.stats import betabinom

from truemorph.bias.maximum import climb, differences, maximise, with_differences
from truemorph.bias.result import Settings, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.bias.transitions import DISK, SMOOTH, Space, TabulatedTransition, Transition

_RHO_BOUNDS, _RHO_START = (-7.0, 4.0), (-1.5, -1.0)
_FRACTION_BOUND = 9.0
_KNOTS = 32
_ROUGH = 3_000


def beta_parameters(mean: np.ndarray, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the parameters a, b of a beta distribution with this mean and intra-galaxy correlation."""
    mean, concentration = np.clip(mean, 1e-9, 1 - 1e-9), (1 - rho) / rho
    return mean * concentration, (1 - mean) * concentration


def beta_binomial_log_probability(k: np.ndarray, n: np.ndarray, mean: np.ndarray, rho: float) -> np.ndarray:
    """Return log p(k of n), shape (N,); scipy's function gives the same in three times the time."""
    a, b = beta_parameters(mean, rho)
    choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return choose + betaln(k + a, n - k + b) - betaln(a, b)


@dataclass(frozen=True)
class VoteModel:
    """Model of single votes and of vote counts."""

    transition: Transition  # T(α) of a single vote
    overdispersion: np.ndarray  # (2,): ρ of smooth galaxies and of disks; 0 is binomial
    numbers: tuple[np.ndarray, np.ndarray]  # numbers of votes per galaxy, and their frequencies
    class_fractions: np.ndarray  # (2,)

    @classmethod
    def at(cls, space: Space, point: np.ndarray, numbers: tuple[np.ndarray, np.ndarray]) -> VoteModel:
        """Return the model at a point [T's point, logit of the disk fraction, logits of ρ]."""
        n = space.size
        return cls(space.build(point[:n]), expit(point[n + 1 :]), numbers, np.exp(log_softmax([0.0, point[n]])))

    def log_probabilities(self, votes: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """Return log p(k of n | y, α), shape (N, 2)."""
        n, k = votes.sum(axis=1), votes[:, DISK]
        means = self.transition.matrix(alpha)[:, :, DISK]
        of_class = zip(means.T, self.overdispersion, strict=True)
        return np.stack([beta_binomial_log_probability(k, n, mean, rho) for mean, rho in of_class], axis=1)

    def label_transition(self, alpha: np.ndarray) -> TabulatedTransition:
        """Return T(α) of majority labels (smooth if tied), averaged over the numbers of votes per galaxy."""
        numbers, shares = self.numbers
        knots = np.unique(np.quantile(alpha, np.linspace(0, 1, _KNOTS)))
        means = self.transition.matrix(knots)[:, :, DISK]  # (M, 2)
        tables = np.empty((knots.size, 2, 2))
        for y in (SMOOTH, DISK):
            votes = betabinom(numbers, *beta_parameters(means[:, y, None], self.overdispersion[y]))
            smooth = votes.cdf(numbers // 2) @ shares
            tables[:, y, SMOOTH], tables[:, y, DISK] = smooth, 1 - smooth
        return TabulatedTransition(tuple(knots.tolist()), np.clip(tables, 0, 1).tolist())


def _vote_numbers(votes: np.ndarray, most: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of votes per galaxy and their frequencies; at most `most` values, by quantiles."""
    per_galaxy = votes.sum(axis=1)
    numbers, counts = np.unique(per_galaxy, return_counts=True)
    if numbers.size > most:
        middle = np.quantile(per_galaxy, (np.arange(most) + 0.5) / most, method="nearest")
        numbers, counts = np.unique(middle, return_counts=True)
    return numbers.astype(np.int64), counts / counts.sum()


def by_votes(space: Space, sample: Sample, settings: Settings) -> TransitionFit:
    """Maximise the likelihood of counts: Σ log Σ_y f_y BetaBinomial(k; n, μ_y(α), ρ_y).

    A point is [T's point, logit of the disk fraction, logits of ρ]. Rows with a gold label have only that class.
    """
    assert sample.votes is not None
    votes, numbers, n = sample.votes, _vote_numbers(sample.votes), space.size
    known = np.full(votes.shape, False)
    if sample.gold is not None:
        known = (sample.gold[:, None] >= 0) & (sample.gold[:, None] != np.arange(2))

    def terms(point: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        given = VoteModel.at(space, point, numbers).log_probabilities(votes[rows], sample.argument[rows])
        joint = np.where(known[rows], -np.inf, log_softmax([0.0, point[n]]) + given)
        return np.logaddexp(joint[:, 0], joint[:, 1])

    lower = np.concatenate([space.lower, [-_FRACTION_BOUND], [_RHO_BOUNDS[0]] * 2])
    upper = np.concatenate([space.upper, [_FRACTION_BOUND], [_RHO_BOUNDS[1]] * 2])
    starts = np.array([np.concatenate([start, [0.5], _RHO_START]) for start in space.starts])
    part = slice(None, None, max(1, len(votes) // _ROUGH))
    rough = with_differences(lambda at: float(sample.weights[part] @ terms(at, part)))
    begin, _ = climb(rough, starts, lower, upper, sample.weights[part].size)
    objective = with_differences(lambda at: float(sample.weights @ terms(at)))
    best = maximise(objective, begin[None], lower, upper, len(votes))

    def scores() -> np.ndarray:
        return differences(terms, best.point) * sample.weights

    covariance = best.covariance(scores() @ scores().T if np.ptp(sample.weights) else None)
    found, variance = VoteModel.at(space, best.point, numbers), covariance[n, n]
    rho = found.overdispersion
    rho_stderr = rho * (1 - rho) * np.sqrt(np.diag(covariance)[n + 1 :])
    fit = TransitionFit.of(
        space,
        sample,
        settings,
        best.point,
        covariance,
        found.class_fractions,
        float(found.class_fractions.prod() * np.sqrt(variance)) if variance > 0 else float("nan"),
        log_likelihood=best.value,
        n_parameters=best.point.size,
        influence=lambda: np.nan_to_num(best.covariance()) @ scores(),
        at_bound=not best.free[n],
        votes=found,
    )
    names = ("overdispersion_smooth", "overdispersion_disk")
    values, errors = (dict(zip(names, one.tolist(), strict=True)) for one in (rho, rho_stderr))
    return replace(fit, values=fit.values | values, stderr=fit.stderr | errors)
