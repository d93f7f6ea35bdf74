"""Strata of similar galaxies: how many gold labels each needs, and the errors that follow.

Strata in which the class is uncertain get more labels (Neyman 1934, J. R. Stat. Soc. 97, 558).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from truemorph.bias.binning import Bins
from truemorph.questions import Quantity

# No weight (inverse probability) above this multiple of the mean of the galaxies that are labelled.
_MOST_WEIGHT = 10.0
_FEWEST_IN_STRATUM = 2
# Least variance of a class: that of a fraction of 11 %.
_LEAST_VARIANCE = 0.10
# Most steps of a search.
_STEPS = 60


@dataclass(frozen=True)
class Strata:
    """Groups of similar galaxies from which gold labels are drawn."""

    index: np.ndarray  # (N,): stratum of each galaxy
    bins: np.ndarray  # (H,): bin of α of each stratum; 0 for all where the bias curve is wanted
    sizes: np.ndarray  # (H,): galaxies that can be labelled
    # (H,): predicted standard deviation of a galaxy's influence on the quantity of its bin, or on the bias curve; on
    # the fraction of a class it is that of the class, at least `_LEAST_VARIANCE`
    spread: np.ndarray
    given: np.ndarray  # (H,): galaxies that have a gold label already

    @property
    def totals(self) -> np.ndarray:
        """Galaxies of each stratum, with and without a gold label, shape (H,)."""
        return self.sizes + self.given

    @property
    def fraction(self) -> np.ndarray:
        """Fraction of the galaxies of its bin that a stratum has, shape (H,)."""
        return self.totals / np.bincount(self.bins, self.totals)[self.bins]

    @classmethod
    def of(
        cls, label: np.ndarray, bins: Bins, probabilities: np.ndarray, quantities: Sequence[Quantity], groups: int = 1
    ) -> Strata:
        """Strata of bin, label and `groups` equal-count groups of the last class's p; `probabilities` are (N, K).

        The spread is that of the quantity for which it is the largest.
        """
        key = bins.index * probabilities.shape[1] + label
        if groups > 1:
            order = np.lexsort([probabilities[:, -1], key])
            within = np.empty_like(key)
            within[order] = rank_among_equal(key[order])
            key = key * groups + within * groups // np.bincount(key)[key]
        _, first, index, sizes = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        mean = np.stack([np.bincount(index, column) / sizes for column in probabilities.T[1:]])
        mean = np.concatenate([1 - mean.sum(axis=0, keepdims=True), mean])  # (K, H)
        of_bin = bins.index[first]
        variances = [_influence_variance(mean, of_bin, sizes, quantity) for quantity in quantities]
        spread = np.sqrt(np.max(variances, axis=0))
        return cls(index, of_bin, sizes.astype(float), spread, np.zeros(sizes.size))

    def with_labels(self, label: np.ndarray, bins: np.ndarray, of: np.ndarray) -> Strata:
        """The same strata, with galaxies that are labelled already, by observed label and bin, shape (P,) each.

        `of`, shape (N,), are the observed labels of the others. Where they make several strata, each gets a part.
        """
        first = np.unique(self.index, return_index=True)[1]
        alike = (of[first][:, None] == label) & (self.bins[:, None] == bins)
        part = self.sizes[:, None] * alike
        return replace(self, given=(part / np.maximum(part.sum(axis=0), 1)).sum(axis=1))

    def errors(self, drawn: np.ndarray) -> np.ndarray:
        """Standard error of the quantity of each bin if so many more galaxies of each stratum are labelled, (B,)."""
        # Σ_h (W_h s_h)² (1 / n_h - 1 / N_h), with W the fraction and s the spread.
        remaining = np.clip(1 / np.maximum(drawn + self.given, 1e-9) - 1 / self.totals, 0, None)
        return np.sqrt(np.bincount(self.bins, (self.fraction * self.spread) ** 2 * remaining))

    def allocation(self, error: float) -> np.ndarray:
        """Further labels of each stratum that give every bin this standard error, shape (H,); not rounded."""
        scatter = self.fraction * self.spread  # W_h s_h
        # Neyman: in a bin, n_h is W_h s_h / x within its limits, with the x that gives the error. Between them,
        # Σ (W s)² / n is linear in x, so Newton's method needs few steps.
        target = error**2 + np.bincount(self.bins, scatter**2 / self.totals)
        low, high = np.full((2, target.size), [[1e-6], [1e3]])
        x = low
        for _ in range(_STEPS):
            drawn = np.clip(scatter / x[self.bins], self.given, self.totals)
            off = np.bincount(self.bins, scatter**2 / np.maximum(drawn, 1e-9)) - target
            low, high = np.where(off <= 0, x, low), np.where(off <= 0, high, x)
            if np.all((np.abs(off) < 1e-12 * target) | (high - low < 1e-9 * high)):
                break
            slope = np.bincount(self.bins, ((self.given < drawn) & (drawn < self.totals)) * scatter)
            x = x - np.divide(off, slope, out=np.full(x.shape, np.inf), where=slope > 0)
            x = np.where((low < x) & (x < high), x, np.sqrt(low * high))
        drawn = drawn - self.given
        for _ in range(3):  # the floor depends on the total
            drawn = np.clip(drawn, np.minimum(self.fewest(drawn.sum()), self.sizes), self.sizes)
        return drawn

    def for_budget(self, n: int) -> np.ndarray:
        """Labels a stratum of the smallest common error that n labels reach, shape (H,) of int."""
        low, high = 1e-5, 1.0
        for _ in range(_STEPS):
            middle = np.sqrt(low * high)
            low, high = (low, middle) if self.allocation(middle).sum() <= n else (middle, high)
            if high < low * (1 + 1e-9):
                break
        return self.rounded(self.allocation(high))

    def rounded(self, drawn: np.ndarray) -> np.ndarray:
        """Whole numbers of labels, none less than asked for, and no larger weight than allowed."""
        numbers = np.minimum(np.ceil(drawn - 1e-6), self.sizes)
        while np.any(numbers < np.minimum(self.fewest(numbers.sum()), self.sizes)):
            numbers = np.clip(np.ceil(self.fewest(numbers.sum())), numbers, self.sizes)
        return numbers.astype(int)

    def fewest(self, total: float) -> np.ndarray:
        """Labels that a stratum needs at least if there are so many in total, shape (H,)."""
        return np.maximum(self.sizes * total / (_MOST_WEIGHT * self.sizes.sum()), _FEWEST_IN_STRATUM)


def _influence_variance(mean: np.ndarray, bins: np.ndarray, sizes: np.ndarray, quantity: Quantity) -> np.ndarray:
    """Variance of a galaxy's influence on the quantity of its bin, shape (H,), from mean class probabilities (K, H).

    The influence of a galaxy of class k on F = N / D, N and D being means over the bin, is (n_k - F d_k) / D.
    """
    in_numerator, in_denominator = np.array(quantity.numerator)[:, None], quantity.counted[:, None]
    above, below = (np.bincount(bins, sizes * (part * mean).sum(axis=0)) for part in (in_numerator, in_denominator))
    below = np.maximum(below, 1e-9)
    influence = (in_numerator - (above / below)[bins] * in_denominator) / (below / np.bincount(bins, sizes))[bins]
    # Between the variance for the mean p and the largest possible, as p is uncertain itself.
    variance = np.sum(mean * (influence - (mean * influence).sum(axis=0)) ** 2, axis=0)
    return np.maximum(variance, _LEAST_VARIANCE * np.ptp(influence, axis=0) ** 2)


def rank_among_equal(key: np.ndarray) -> np.ndarray:
    """Place of each element of a sorted array among those that are equal to it, from 0; shape (N,)."""
    return np.arange(key.size) - np.searchsorted(key, key)
