"""Bins with equal numbers of galaxies, and the leaves of a k-d tree that are divided into them.

The rules are those of Cabrera-Vives, Miller & Schneider 2018 (AJ 156, 284). The edges of b bins of n sorted objects are
round(linspace(0, n, b + 1)). A node of the tree is split at its median (`<` left, `>=` right), with columns in turn;
each leaf is divided into bins of each observable separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from truemorph.errors import InputError

MINIMUM_PER_BIN = 25


def equal_count_edges(n: int | np.ndarray, bins: int) -> np.ndarray:
    """Return the edges of equal-count bins of n sorted objects, shape (b + 1,), or (L, b + 1) for an array of n."""
    return np.round(np.linspace(0, n, bins + 1, axis=-1)).astype(int)


def limits_of_bins(ordered: np.ndarray, bins: int, amounts: np.ndarray | None = None) -> np.ndarray:
    """Return the edges of bins of sorted values, as positions, with equal counts or amounts; equal values share a bin.

    An edge between equal values moves to the nearer end of them, so there may be fewer bins than asked for.
    """
    if amounts is None:
        limits = equal_count_edges(ordered.size, bins)
    else:
        total = np.cumsum(amounts)
        limits = np.searchsorted(total, total[-1] * np.arange(1, bins) / bins) + 1
    inner = limits[(limits > 0) & (limits < ordered.size)]
    begin, end = (np.searchsorted(ordered, ordered[inner], side=side) for side in ("left", "right"))
    tied = ordered[inner - 1] == ordered[inner]
    inner = np.where(tied, np.where(inner - begin <= end - inner, begin, end), inner)
    return np.unique(np.concatenate([[0], inner, [ordered.size]]))


def choose_bins(n: int, with_intrinsic: bool) -> tuple[int, int]:
    """Choose depth and bins so that each bin has at least 25 of n objects, if possible.

    Without intrinsic columns: up to 20 bins in one leaf (the default of CV14). With them: up to 2^6 leaves of 8 bins
    (as in CV18); the number of bins is reduced before the number of leaves.
    """
    if not with_intrinsic:
        return 0, int(np.clip(n // MINIMUM_PER_BIN, 2, 20))
    for depth in range(6, 0, -1):
        # The sizes of k-d leaves differ by one or two objects.
        bins = int((n // 2**depth - 1) // MINIMUM_PER_BIN)
        if bins >= 4:
            return depth, min(bins, 8)
    return depth, max(2, bins)


def proportion_error(proportion: Any, count: Any) -> Any:
    """Return the standard error of a proportion p, never zero: √(p̃ (1 - p̃) / (n + 2)) with p̃ = (n p + 1) / (n + 2).

    That is, with one success and one failure more (Agresti & Caffo 2000, Am. Stat. 54, 280).
    """
    smoothed = (proportion * count + 1) / (count + 2)
    return np.sqrt(smoothed * (1 - smoothed) / (count + 2))


def default_bins(n: int, most: int = 8) -> int:
    """Return the number of bins of so many galaxies, at most `most`, with 50 galaxies or more each."""
    return max(1, min(most, n // 50))


class Groups(np.ndarray[Any, np.dtype[np.float64]]):
    """Numbers of groups of galaxies, shape (N,), such as the tier of a survey: a bin each, instead of values to cut."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> Groups:
        """Number the groups by their names, shape (N,), in alphabetical order."""
        names, index = np.unique(values, return_inverse=True)
        groups = index.astype(float).view(cls)
        groups.names = tuple(map(str, names))
        return groups

    def of_bins(self, edges: np.ndarray) -> tuple[tuple[str, ...], ...]:
        """Return the names of the groups in each bin; several were merged."""
        return tuple(self.names[low:high] for low, high in pairwise(np.ceil(edges).astype(int)))


@dataclass(frozen=True)
class Bins:
    """Equal-count bins of a column, with (weighted) means in each bin; equal values share a bin."""

    index: np.ndarray  # (N,): bin of each object
    edges: np.ndarray  # (B + 1,), or (B, 2, 2) of two columns: lower and upper edge in each
    column: np.ndarray  # (N,), or (N, 2) of two columns
    weights: np.ndarray  # (N,)
    ordered: bool = True  # whether neighbouring bins are more alike than others

    @classmethod
    def cut(cls, column: np.ndarray, bins: int, weights: np.ndarray | None = None) -> Bins:
        """Divide a finite column of shape (N,), or two, into at most so many bins; edges are midway between values."""
        if column.ndim == 2:
            return cls.of_two(column, bins, weights)
        if isinstance(column, Groups):
            column = np.asarray(column)
            return replace(cls.at(column, np.arange(column.max() + 2) - 0.5, weights), ordered=False)
        ordered = np.sort(column)
        limits = limits_of_bins(ordered, max(1, min(bins, column.size)))[1:-1]
        below, above = ordered[limits - 1], ordered[limits]
        inner = np.maximum(0.5 * (below + above), np.nextafter(below, above))  # never the value below
        return cls.at(column, np.concatenate([ordered[:1], inner, ordered[-1:]]), weights)

    @classmethod
    def between(cls, column: np.ndarray, edges: np.ndarray, weights: np.ndarray) -> Bins:
        """Divide a column of shape (N,) at given edges; an InputError if some values are beyond, or a bin is empty."""
        if column.ndim > 1 or isinstance(column, Groups):
            raise InputError("edges of bins are for one column of numbers; give a number of bins for others")
        if edges.size < 2 or not np.all(np.diff(edges) > 0):
            raise InputError(f"edges of bins must increase, such as 0.01,0.03,0.06; got {', '.join(map(str, edges))}")
        if beyond := np.count_nonzero((column < edges[0]) | (column > edges[-1])):
            raise InputError(
                f"{beyond:,} galaxies are beyond the edges of the bins, {edges[0]:g} to {edges[-1]:g}; values are "
                f"{column.min():.4g} to {column.max():.4g}: give wider edges, or select galaxies (`where`)"
            )
        inside = np.histogram(column, edges)[0]
        if not inside.all():
            empty = int(inside.argmin())
            raise InputError(f"no galaxy is between {edges[empty]:g} and {edges[empty + 1]:g}; leave out an edge")
        return cls.at(column, edges, weights)

    @classmethod
    def at(cls, column: np.ndarray, edges: np.ndarray, weights: np.ndarray | None = None) -> Bins:
        """Put a column of shape (N,), or two, into bins of known edges; what is beyond is in the first or last bin."""
        weights = np.broadcast_to(1.0, len(column)) if weights is None else weights
        bins = cls(np.empty(0, int), edges, column, weights)
        return replace(bins, index=bins.find(column))

    @classmethod
    def of_two(cls, columns: np.ndarray, bins: int, weights: np.ndarray | None = None) -> Bins:
        """Divide two columns, shape (N, 2), into at most so many bins: by the first, and each part by the second."""
        first = cls.cut(columns[:, 0], round(np.sqrt(bins)))
        edges = list[Any]()
        for part, ends in enumerate(pairwise(first.edges)):
            second = cls.cut(columns[first.index == part, 1], bins // first.count)
            edges += [(ends, others) for others in pairwise(second.edges)]
        return cls.at(columns, np.array(edges), weights)

    def merged(self, number: int) -> Bins:
        """Merge a bin with its smaller neighbour; of two columns, if possible, in the same part of the first."""
        near = [neighbour for neighbour in (number - 1, number + 1) if 0 <= neighbour < self.count]
        if self.edges.ndim == 3:
            near = [
                neighbour for neighbour in near if np.array_equal(self.edges[neighbour, 0], self.edges[number, 0])
            ] or near
        low, high = sorted((number, min(near, key=lambda candidate: self.totals[candidate])))
        edges = np.delete(self.edges, high, axis=0)
        if edges.ndim == 3:
            both = self.edges[[low, high]]
            edges[low] = np.column_stack([both[:, :, 0].min(axis=0), both[:, :, 1].max(axis=0)])
        return replace(self, index=self.index - (self.index >= high), edges=edges)

    @cached_property
    def middles(self) -> np.ndarray:
        """Mean of the column in each bin, shape (B,), or (B, 2) of two columns."""
        return self.means(self.column)

    @property
    def count(self) -> int:
        """Number of bins B."""
        return len(self.edges) - (self.edges.ndim == 1)

    @property
    def positions(self) -> np.ndarray:
        """Place of each bin among the bins of each column, shape (B, D); those of groups are far from each other."""
        if self.edges.ndim == 1:
            return np.arange(self.count)[:, None] * (1 if self.ordered else 1000)
        _, first = np.unique(self.edges[:, 0, 0], return_inverse=True)
        return np.column_stack([first, [np.sum(first[:b] == first[b]) for b in range(self.count)]])

    def find(self, column: np.ndarray) -> np.ndarray:
        """Return the bin of each value of a column, (M,), or of two, (M, 2); the nearest one where it is in none."""
        if self.edges.ndim == 1:
            return np.searchsorted(self.edges[1:-1], column, side="right")
        first, out = np.unique(self.edges[:, 0, 0]), np.empty(len(column), int)
        part = np.searchsorted(first[1:], column[:, 0], side="right")
        for k, low in enumerate(first):
            inside, rows = np.flatnonzero(self.edges[:, 0, 0] == low), part == k
            out[rows] = inside[np.searchsorted(self.edges[inside[1:], 1, 0], column[rows, 1], side="right")]
        return out

    def averages(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mean, binomial error and number of the (N,) values in each bin, shape (B,) each; NaN is left out."""
        finite = np.isfinite(values)
        part = replace(self, index=self.index[finite], weights=self.weights[finite])
        with np.errstate(invalid="ignore", divide="ignore"):  # empty bins
            means = part.sums(values[finite]) / part.totals
            error = proportion_error(means, part.effective_counts())
        return means, error, np.bincount(part.index, minlength=self.count)

    @cached_property
    def totals(self) -> np.ndarray:
        """Sum of the weights in each bin, shape (B,)."""
        return np.bincount(self.index, weights=self.weights, minlength=self.count)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the weighted sum of (N,) values in each bin, shape (B,)."""
        return np.bincount(self.index, weights=self.weights * values, minlength=self.count)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the weighted mean of (N,) or (N, K) values in each bin, shape (B,) or (B, K)."""
        return (np.apply_along_axis(self.sums, 0, values).T / self.totals).T

    def effective_counts(self) -> np.ndarray:
        """Return the effective number of objects in each bin, (Σ w)² / Σ w², shape (B,)."""
        return self.totals**2 / self.sums(self.weights)


@dataclass(frozen=True)
class Leaves:
    """Leaves of M draws of N objects, divided into bins of J observables; a sample is one draw of each object."""

    leaf: np.ndarray  # (N,): leaf of each object
    edges: np.ndarray  # (L, b + 1): edges of the bins of each leaf, as positions among all draws
    objects: list[np.ndarray]  # of each observable: drawn objects in the order of leaf, then observable
    counts: np.ndarray  # (N,): how often each object was drawn

    def fractions(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Return the mean of K columns of shape (N,) in each bin of each observable, shape (J, L, b, K)."""
        means = []
        for objects in self.objects:
            counts = self.counts[objects]
            through = np.append(0, np.cumsum(counts, dtype=int))
            # Sums of all draws before an edge; the draws of one object may belong to two bins.
            sums = [np.append(0.0, np.cumsum(counts * column.take(objects))) for column in columns]
            before = np.stack([np.interp(self.edges, through, total) for total in sums], axis=2)
            means.append(np.diff(before, axis=1) / np.diff(self.edges)[:, :, None])
        return np.array(means)


def _by_leaf(objects: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """Return objects sorted by leaf, and in a leaf in their order; small integers are sorted by radix, in time O(N)."""
    return objects[np.argsort(leaf[objects], kind="stable")]


class RankedTable:
    """Intrinsic columns, shape (N, P), and observables, shape (N, J), ranked once for the trees of all resamples.

    A resample is handled as the number of draws of each object. Objects are numbered in the order of the first column,
    so that memory is read in sequence; `rows`, shape (N,), are their rows in the data.
    """

    def __init__(self, observables: np.ndarray, intrinsic: np.ndarray) -> None:
        columns = [*intrinsic.T, *observables.T]
        orders = [np.argsort(column, kind="stable") for column in columns]
        self.rows, self.n_intrinsic = orders[0], intrinsic.shape[1]
        number = np.argsort(self.rows)  # of each row: argsort inverts a permutation
        small = np.min_scalar_type(self.rows.size)  # half the memory
        self._objects = [number[order].astype(small) for order in orders]  # of each rank
        self._values = intrinsic[self.rows].T  # of each object, column by column

    def cut(self, depth: int, bins: int, draws: np.ndarray | None = None) -> Leaves:
        """Grow a tree of 2^depth leaves, and divide each into bins; `draws`, shape (N,), are objects of a resample."""
        n = self.rows.size
        self._check_held(np.array([n // 2**depth]), depth, bins)
        counts = np.ones(n, np.uint8) if draws is None else np.bincount(draws, minlength=n)
        counts = counts.astype(np.min_scalar_type(counts.max()))
        orders = [objects[counts[objects] > 0] for objects in self._objects]
        leaf, held = np.zeros(n, dtype=np.min_scalar_type(2**depth)), np.array([n])
        for level in range(depth):
            k = level % self.n_intrinsic
            ordered, values = _by_leaf(orders[k], leaf), self._values[k]
            through = np.cumsum(counts[ordered], dtype=int)
            middle = np.cumsum(held) - held + np.stack([(held - 1) // 2, held // 2])  # draws of each leaf
            median = values[ordered[np.searchsorted(through, middle, side="right")]].mean(axis=0)
            leaf = 2 * leaf + (values >= median[leaf])
            held = np.bincount(leaf, counts, 2 * held.size).astype(int)
            self._check_held(held, depth, bins)
        edges = (np.cumsum(held) - held)[:, None] + equal_count_edges(held, bins)
        return Leaves(leaf, edges, [_by_leaf(objects, leaf) for objects in orders[self.n_intrinsic :]], counts)

    @staticmethod
    def _check_held(held: np.ndarray, depth: int, bins: int) -> None:
        if held.min() < bins:
            few = f"a leaf of the intrinsic tree has {held.min()} galaxies, too few for {bins} bins"
            raise InputError(f"{few}: use a smaller depth (now {depth}) or fewer bins")
