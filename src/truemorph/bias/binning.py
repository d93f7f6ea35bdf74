"""Bins with equal numbers of galaxies.

The edges of b equal-count bins of n sorted objects are round(linspace(0, n, b + 1)), as in Cabrera-Vives, Miller &
Schneider 2018 (AJ 156, 284).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


def equal_count_edges(n: int | np.ndarray, bins: int) -> np.ndarray:
    """Return the edges of equal-count bins of n sorted objects, shape (b + 1,), or (L, b + 1) for an array of n."""
    return np.round(np.linspace(0, n, bins + 1, axis=-1)).astype(np.int64)


def choose_bins(n: int, with_intrinsic: bool, per_bin: int = 25) -> tuple[int, int]:
    """Choose depth and bins so that each bin has at least `per_bin` of n objects, if possible.

    Without intrinsic columns: up to 20 bins in one leaf (the default of CV14). With them: up to 2^6 leaves of 8 bins
    (as in CV18); the number of bins is reduced before the number of leaves.

    Examples
    --------
    >>> choose_bins(100_000, True), choose_bins(1_800, True), choose_bins(246, False)
    ((6, 8), (4, 4), (0, 9))
    """
    if not with_intrinsic:
        return 0, int(np.clip(n // per_bin, 2, 20))
    for depth in range(6, 0, -1):
        # The sizes of k-d leaves differ by one or two objects.
        bins = int((n // 2**depth - 1) // per_bin)
        if bins >= 4:
            return depth, min(bins, 8)
    return 1, max(2, int((n // 2 - 1) // per_bin))


def proportion_error(proportion: Any, count: Any) -> Any:
    """Return the standard error of a proportion, never zero (Agresti & Coull: add one success and one failure).

    Examples
    --------
    >>> round(float(proportion_error(0.0, 98)), 4), round(float(proportion_error(0.5, 98)), 4)
    (0.0099, 0.05)
    """
    smoothed = (proportion * count + 1) / (count + 2)
    return np.sqrt(smoothed * (1 - smoothed) / (count + 2))


@dataclass(frozen=True)
class Bins:
    """Equal-count bins of a column, with (weighted) means in each bin."""

    index: np.ndarray  # (N,): bin of each object
    edges: np.ndarray  # (B + 1,)
    middles: np.ndarray  # (B,): mean of the column
    count: int  # number of bins B
    weights: np.ndarray  # (N,)

    @classmethod
    def cut(cls, column: np.ndarray, bins: int, weights: np.ndarray | None = None) -> Bins:
        """Divide a column of shape (N,) into bins; edges are half-way between neighbours."""
        order, limits = np.argsort(column, kind="stable"), equal_count_edges(column.size, bins)
        index = np.empty(column.size, dtype=np.int64)
        index[order] = np.repeat(np.arange(bins), np.diff(limits))
        inner = 0.5 * (column[order[limits[1:-1] - 1]] + column[order[limits[1:-1]]])
        edges = np.concatenate([[column.min()], inner, [column.max()]])
        weights = np.ones(column.size) if weights is None else weights
        middles = np.bincount(index, weights=weights * column) / np.bincount(index, weights=weights)
        return cls(index, edges, middles, bins, weights)

    @cached_property
    def totals(self) -> np.ndarray:
        """Sum of the weights in each bin, shape (B,)."""
        return self.sums(np.ones(self.index.size))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the weighted sum of (N,) values in each bin, shape (B,)."""
        return np.bincount(self.index, weights=self.weights * values, minlength=self.count)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the weighted mean of (N, K) values in each bin, shape (B, K)."""
        return np.stack([self.sums(column) for column in values.T], axis=1) / self.totals[:, None]

    def effective_counts(self) -> np.ndarray:
        """Return the effective number of objects in each bin, (Σ w)² / Σ w², shape (B,)."""
        return self.totals**2 / self.sums(self.weights)
