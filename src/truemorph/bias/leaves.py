"""k-d leaves and their equal-count bins, recomputed for every bootstrap resample without copying rows.

The rules are those of Cabrera-Vives, Miller & Schneider 2018 (AJ 156, 284): a node is split at its median (`<` left,
`>=` right), with columns in turn; each leaf is divided into equal-count bins of each observable. A resample is a count
per object. Columns are sorted once; after that, objects in the order of a column are only grouped by leaf, which needs
no sort. `take(mode="clip")` avoids a bounds check that costs a few per cent: indices are positions in sorted columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from truemorph.bias.binning import equal_count_edges
from truemorph.errors import InputError


@dataclass(frozen=True)
class _Column:
    """A sorted column."""

    order: np.ndarray | None  # (N,): object of each rank; None if objects are already in order
    values: np.ndarray  # (N,): value of each rank

    def drawn(self, counts: np.ndarray) -> _Drawn:
        """Return the objects of a resample."""
        times = counts if self.order is None else counts.take(self.order, mode="clip")
        ranks = np.flatnonzero(times > 0)
        objects = ranks if self.order is None else self.order.take(ranks, mode="clip")
        return _Drawn(objects, times.take(ranks, mode="clip"), ranks.astype(np.int32), self.values)


@dataclass(frozen=True)
class _Drawn:
    """Drawn objects in the order of a column: numbers, counts, ranks; and values of all ranks."""

    objects: np.ndarray
    times: np.ndarray
    ranks: np.ndarray
    values: np.ndarray

    def children(self, node: np.ndarray, n_nodes: int, numbers: np.ndarray) -> np.ndarray:
        """Return the child node of each object; nodes are split at their medians."""
        together, times, ends = _by_leaf(node, self.times, n_nodes, numbers)
        drawn = _running(times)
        before = np.where(ends > 0, drawn[ends - 1], 0)
        held = np.diff(before)
        middle = before[:-1] + np.stack([np.maximum(held - 1, 0) // 2, held // 2])
        at = np.minimum(np.searchsorted(drawn, middle, side="right"), together.size - 1)
        median = self.values[self.ranks[together[at]]].mean(axis=0)
        last_left = np.searchsorted(self.values, median).astype(np.int32) - 1
        behind = last_left.take(node, mode="clip")
        behind -= self.ranks
        behind >>= 31  # -1 for the right child, 0 for the left one
        child = node << 1
        child -= behind
        return child


def _running(times: np.ndarray) -> np.ndarray:
    """Return the running sum. A cast inside `cumsum` would hold the interpreter's lock."""
    return np.cumsum(times.astype(np.int32), dtype=np.int32)


def _by_leaf(
    leaf: np.ndarray, times: np.ndarray, n_leaves: int, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group objects by leaf, stable: return positions, counts, and limits of leaves; `numbers` counts from 0."""
    if n_leaves == 1:
        return numbers[: leaf.size], times, np.array([0, leaf.size])
    # Converting a sparse table of objects × leaves from rows to columns is a counting sort.
    table = csr_array((times, leaf, numbers[: leaf.size + 1]), shape=(leaf.size, n_leaves)).tocsc()
    return table.indices, table.data, table.indptr


@dataclass(frozen=True)
class Cut:
    """Leaves and bins of a sample or resample, for J observables."""

    objects: list[np.ndarray]  # in the order of leaf, then observable
    weights: list[np.ndarray]  # number of times each was drawn
    running: list[np.ndarray]  # cumulative sums of the weights
    edges: np.ndarray  # (L, b + 1): edges of bins, in numbers of draws
    leaf: np.ndarray  # (N,): leaf of each object; not meaningful for objects that were not drawn

    def fractions(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Return the mean of K columns of shape (N,) in each bin of each observable, shape (J, L, b, K)."""
        counts = np.diff(self.edges, axis=1)
        out = np.empty((len(self.objects), *counts.shape, len(columns)))
        for j, (objects, weights, drawn) in enumerate(zip(self.objects, self.weights, self.running, strict=True)):
            cuts = np.append(self.edges[:, :-1], drawn[-1])
            at = np.searchsorted(drawn, cuts, side="right")
            inside = cuts - np.where(at > 0, drawn[at - 1], 0)  # draws of the divided object before the edge
            cut_through = objects[np.minimum(at, objects.size - 1)]
            for k, column in enumerate(columns):
                sums = np.add.reduceat(column.take(objects) * weights, at[:-1])
                sums[at[:-1] == at[1:]] = 0.0  # a bin within one object
                parts = inside * column[cut_through]
                out[j, :, :, k] = (sums - parts[:-1] + parts[1:]).reshape(counts.shape) / counts
        return out


@dataclass(frozen=True)
class RankedTable:
    """Ranks of observables and intrinsic columns, sorted once for all resamples.

    Objects are numbered in the order of the first column, so that memory is read sequentially.
    """

    rows: np.ndarray  # (N,): row of the data of each object
    numbers: np.ndarray  # 0 to N
    observables: list[_Column]
    intrinsic: list[_Column]

    @classmethod
    def of(cls, observables: np.ndarray, intrinsic: np.ndarray) -> RankedTable:
        """Rank the columns of (N, J) observables and (N, P) intrinsic properties (finite; P may be 0)."""
        columns = [*intrinsic.T, *observables.T]
        orders = [np.argsort(column, kind="stable") for column in columns]
        rows = orders[0]
        numbers = np.arange(rows.size + 1, dtype=np.int32)
        number = np.empty(rows.size, dtype=np.int64)
        number[rows] = numbers[:-1]
        ranked = [_Column(None, columns[0].take(rows))]
        for column, order in zip(columns[1:], orders[1:], strict=True):
            ranked.append(_Column(number.take(order), column.take(order)))
        return cls(rows, numbers, ranked[intrinsic.shape[1] :], ranked[: intrinsic.shape[1]])

    def cut(self, depth: int, bins: int, counts: np.ndarray | None = None) -> Cut:
        """Grow a tree of 2^depth leaves, and divide each into bins; `counts` are numbers of draws of objects."""
        counts = np.ones(self.rows.size, dtype=np.uint8) if counts is None else counts
        total = int(counts.sum())
        if total < bins * 2**depth:
            raise self._too_small(total // 2**depth, depth, bins)
        # The smallest integers, because memory bandwidth limits the speed.
        counts = counts.astype(np.min_scalar_type(counts.max()))
        columns = [column.drawn(counts) for column in self.intrinsic[:depth]]
        leaf = np.zeros(self.rows.size, dtype=np.int32)
        if depth:
            leaf[columns[(depth - 1) % len(columns)].objects] = self._grow(columns, depth)
        objects, times = [], []
        for column in [column.drawn(counts) for column in self.observables]:
            together, drawn, ends = _by_leaf(leaf.take(column.objects), column.times, 2**depth, self.numbers)
            objects.append(column.objects.take(together))
            times.append(drawn)
        running = [_running(one) for one in times]
        begins = np.where(ends > 0, running[0][ends - 1], 0)
        held = np.diff(begins)
        if held.min() < bins:
            raise self._too_small(int(held.min()), depth, bins)
        edges = begins[:-1, None] + equal_count_edges(held, bins)
        return Cut(objects, times, running, edges, leaf)

    def _grow(self, columns: list[_Drawn], depth: int) -> np.ndarray:
        """Return the leaf of each drawn object, in the order of the last split column."""
        # Children of a node are found in the order of its column, and mapped by position to that of the next one.
        place, carried = np.empty(self.rows.size, dtype=np.int64), []
        for column, following in zip(columns, columns[1:] + columns[:1], strict=True):
            place[column.objects] = self.numbers[: column.objects.size]
            carried.append(place.take(following.objects, mode="clip"))
        child = columns[0].children(np.zeros(columns[0].objects.size, dtype=np.int32), 1, self.numbers)
        for level in range(1, depth):
            node = child.take(carried[(level - 1) % len(columns)], mode="clip")
            child = columns[level % len(columns)].children(node, 2**level, self.numbers)
        return child

    @staticmethod
    def _too_small(held: int, depth: int, bins: int) -> InputError:
        return InputError(
            f"a leaf of the intrinsic tree has {held} galaxies, too few for {bins} bins: "
            f"use a smaller depth (now {depth}) or fewer bins"
        )
