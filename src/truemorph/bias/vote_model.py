"""Model vote counts, k of n votes for the second class ("disk"), with more scatter than binomial.

Each galaxy's probability of a disk vote is beta-distributed around the mean of its class: 1 - flip(α) for disks, and
the false-disk rate for smooth galaxies. Given the class, k is therefore beta-binomial, with an intra-galaxy correlation
ρ for each class (variance n μ (1 - μ) (1 + (n - 1) ρ)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, expit, gammaln, log_softmax

from truemorph.bias.curves import TabulatedTransition
from truemorph.bias.transitions import DISK, SMOOTH, Space, Transition

_KNOTS = 32


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
        from scipy.stats import betabinom  # takes a second

        numbers, shares = self.numbers
        knots = np.unique(np.quantile(alpha, np.linspace(0, 1, _KNOTS)))
        means = self.transition.matrix(knots)[:, :, DISK]  # (M, 2)
        tables = np.empty((knots.size, 2, 2))
        for y in (SMOOTH, DISK):
            votes = betabinom(numbers, *beta_parameters(means[:, y, None], self.overdispersion[y]))
            smooth = votes.cdf(numbers // 2) @ shares
            tables[:, y, SMOOTH], tables[:, y, DISK] = smooth, 1 - smooth
        return TabulatedTransition(tuple(knots.tolist()), np.clip(tables, 0, 1).tolist())
