"""What labels say about T(α): the log-likelihood of galaxies with, and without, a gold class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from truemorph.bias.binning import equal_count_edges
from truemorph.bias.likelihood import label_log_likelihood
from truemorph.bias.transitions import Transition

UNKNOWN = -1


@dataclass(frozen=True)
class Evidence:
    """Rows that enter the likelihood: single galaxies, or runs of galaxies with like label and nearly like α.

    Attributes
    ----------
    labels : array of int, shape (M,)
        Observed labels.
    trusted : array of int, shape (M,)
        True classes, -1 where unknown.
    alpha : array, shape (M,) or (M, J)
    weights, squares : array, shape (M,)
        Sums over the row's galaxies of their weight and of its square.
    n_classes : int
    """

    labels: np.ndarray
    trusted: np.ndarray
    alpha: np.ndarray
    weights: np.ndarray
    squares: np.ndarray
    n_classes: int

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        alpha: np.ndarray,
        n_classes: int,
        trusted: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> Evidence:
        """Every galaxy a row of its own."""
        weights = np.ones(labels.size) if weights is None else weights
        known = np.full(labels.size, UNKNOWN) if trusted is None else trusted
        return cls(labels, known, alpha, weights, weights**2, n_classes)

    def rows(self, chosen: np.ndarray) -> Evidence:
        """Only the chosen rows."""
        return Evidence(
            self.labels[chosen],
            self.trusted[chosen],
            self.alpha[chosen],
            self.weights[chosen],
            self.squares[chosen],
            self.n_classes,
        )

    def scaled(self, factors: np.ndarray) -> Evidence:
        """Weights multiplied row by row."""
        return Evidence(
            self.labels, self.trusted, self.alpha, self.weights * factors, self.squares * factors**2, self.n_classes
        )

    def grouped(self, most: int = 2048) -> Evidence:
        """Merge neighbours in α that share label and gold class into at most `most` rows for each such pair.

        Within a run α is replaced by its mean, which changes the log-likelihood in the second order of the run's
        width only: good enough to climb and for second derivatives; the last steps are taken on all rows. Several
        observables are left as they are.
        """
        if self.alpha.ndim != 1 or self.labels.size <= most:
            return self
        parts: list[Evidence] = []
        kind = self.labels * (self.n_classes + 1) + self.trusted + 1
        for one in np.unique(kind):
            members = np.flatnonzero(kind == one)
            members = members[np.argsort(self.alpha[members])]
            edges = equal_count_edges(members.size, min(most, members.size))
            begin = edges[:-1]
            weights = np.add.reduceat(self.weights[members], begin)
            parts.append(
                Evidence(
                    self.labels[members[begin]],
                    self.trusted[members[begin]],
                    np.add.reduceat(self.weights[members] * self.alpha[members], begin) / weights,
                    weights,
                    np.add.reduceat(self.squares[members], begin),
                    self.n_classes,
                )
            )
        return stacked(parts)

    def rough(self, most: int) -> Evidence:
        """Few rows that stand for all: `grouped`, or with several observables every so-maniest row, weighted up."""
        if self.alpha.ndim == 1:
            return self.grouped(most)
        known = np.flatnonzero(self.trusted != UNKNOWN)
        others = np.flatnonzero(self.trusted == UNKNOWN)
        step = max(1, others.size // (16 * most))
        part = self.rows(np.concatenate([known, others[::step]]))
        return part.scaled(np.where(part.trusted != UNKNOWN, 1.0, float(step)))

    @cached_property
    def _possible(self) -> np.ndarray:
        """0 for classes that a row may have, -inf for those its gold label rules out, shape (M, K)."""
        other = (self.trusted != UNKNOWN)[:, None] & (self.trusted[:, None] != np.arange(self.n_classes))
        return np.where(other, -np.inf, 0.0)

    def log_terms(self, transition: Transition, log_fractions: np.ndarray) -> np.ndarray:
        """Log-probability of each row, shape (M,).

        log Σ_y f_y p(ỹ | y, α) where the true class is unknown (eq. 15), log f_y + log p(ỹ | y, α) where it is y.
        """
        return label_log_likelihood(log_fractions + self._possible, self.labels, self.alpha, transition)

    def log_likelihood(self, transition: Transition, log_fractions: np.ndarray) -> float:
        """Weighted sum of `log_terms`."""
        return float(np.sum(self.weights * self.log_terms(transition, log_fractions)))


def stacked(parts: list[Evidence]) -> Evidence:
    """All rows of several."""
    return Evidence(
        np.concatenate([one.labels for one in parts]),
        np.concatenate([one.trusted for one in parts]),
        np.concatenate([one.alpha for one in parts]),
        np.concatenate([one.weights for one in parts]),
        np.concatenate([one.squares for one in parts]),
        parts[0].n_classes,
    )
