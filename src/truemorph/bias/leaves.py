"""k-d leaves and their equal-count bins, recomputed for every bootstrap resample without copying rows.

The rules are those of Cabrera-Vives, Miller & Schneider 2018 (AJ 156, 284): a node is split at its median (`<` left,
`>=` right), with columns in turn; each leaf is divided into equal-count bins of each observable. A resample is a count
per object. Columns are sorted once; after that, objects in the order of a column are only grouped by leaf, which needs
no sort. (numpy's integer sort would be an alternative, and is fast with its AVX-512 code; on AMD Zen 4 that code is
eight times slower than the one without.) `take(mode="clip")` avoids a bounds check that costs a few per cent: indices
are positions in sorted columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from truemorph.bias.binning import equal_count_edges
from truemorph.errors import InputError

_FEW_LEAVES = 8


@dataclass(frozen=True)
class Members:
    """Class memberships, with a contiguous column per class.

    Attributes
    ----------
    columns : list of K arrays, shape (N,)
    whole : bool
        Whether every row sums to 1, so that the first class follows from the others.
    """

    columns: list[np.ndarray]
    whole: bool

    @classmethod
    def of(cls, table: np.ndarray) -> Members:
        """Make columns from an (N, K) table of labels or probabilities."""
        columns = [np.ascontiguousarray(column) for column in table.T]
        return cls(columns, bool(np.all(np.abs(sum(columns) - 1) < 1e-12)))

    def rows(self, chosen: np.ndarray) -> Members:
        """Return rows in another order."""
        first = self.columns[:1] if self.whole else [self.columns[0][chosen]]  # follows from the others, not used
        return Members([*first, *(column[chosen] for column in self.columns[1:])], self.whole)


@dataclass(frozen=True)
class _Column:
    """A sorted column.

    Attributes
    ----------
    order : array of int, shape (N,), or None
        Object of each rank; None if objects are already in order.
    values : array, shape (N,)
        Value of each rank.
    """

    order: np.ndarray | None
    values: np.ndarray

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


def by_leaf(leaf: np.ndarray) -> np.ndarray:
    """Return objects in the order of leaves, shape (N,), stable within a leaf."""
    numbers = np.arange(leaf.size + 1, dtype=np.int32)
    return _by_leaf(leaf, np.ones(leaf.size, dtype=np.uint8), int(leaf.max(initial=0)) + 1, numbers)[0]


def _by_leaf(
    leaf: np.ndarray, times: np.ndarray, n_leaves: int, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group objects by leaf, stable: return positions, counts, and the limits of leaves.

    Converting a sparse table of objects × leaves from rows to columns is a counting sort. For few leaves, a radix sort
    is faster. `numbers` counts up from 0 to at least the size.
    """
    if n_leaves == 1:
        return numbers[: leaf.size], times, np.array([0, leaf.size])
    if n_leaves == 2:
        left, right = np.flatnonzero(leaf == 0), np.flatnonzero(leaf)
        together = np.concatenate([left, right])
        return together, times.take(together), np.array([0, left.size, leaf.size])
    if n_leaves <= _FEW_LEAVES:
        narrow = leaf.astype(np.uint8)
        together = np.argsort(narrow, kind="stable")
        return together, times.take(together), np.searchsorted(narrow.take(together), np.arange(n_leaves + 1))
    table = csr_array((times, leaf, numbers[: leaf.size + 1]), shape=(leaf.size, n_leaves)).tocsc()
    return table.indices, table.data, table.indptr


@dataclass(frozen=True)
class Cut:
    """Leaves and bins of a sample or resample.

    Attributes
    ----------
    objects : list of J int arrays
        Objects in the order of leaf, then observable.
    weights : list of J unsigned arrays
        Number of times each was drawn.
    running : list of J int arrays
        Cumulative sums of the weights.
    edges : array of int, shape (L, b + 1)
        Edges of bins, in numbers of draws.
    leaf : array of int, shape (N,)
        Leaf of each object; not meaningful for objects that were not drawn.
    """

    objects: list[np.ndarray]
    weights: list[np.ndarray]
    running: list[np.ndarray]
    edges: np.ndarray
    leaf: np.ndarray

    def fractions(self, members: Members) -> np.ndarray:
        """Return the mean membership in each bin of each observable, shape (J, L, b, K)."""
        counts = np.diff(self.edges, axis=1)
        n_classes = len(members.columns)
        out = np.empty((len(self.objects), *counts.shape, n_classes))
        for j, (objects, weights, drawn) in enumerate(zip(self.objects, self.weights, self.running, strict=True)):
            cuts = np.append(self.edges[:, :-1], drawn[-1])
            at = np.searchsorted(drawn, cuts, side="right")
            inside = cuts - np.where(at > 0, drawn[at - 1], 0)  # draws of the divided object before the edge
            cut_through = objects[np.minimum(at, objects.size - 1)]
            for k in range(int(members.whole), n_classes):
                column = members.columns[k]
                sums = np.add.reduceat(column.take(objects) * weights, at[:-1])
                sums[at[:-1] == at[1:]] = 0.0  # a bin within one object
                parts = inside * column[cut_through]
                out[j, :, :, k] = (sums - parts[:-1] + parts[1:]).reshape(counts.shape) / counts
        if members.whole:
            out[..., 0] = 1 - out[..., 1:].sum(axis=-1)
        return out


@dataclass(frozen=True)
class RankedTable:
    """Ranks of observables and intrinsic columns, sorted once for all resamples.

    Attributes
    ----------
    rows : array of int, shape (N,)
        Row of the data of each object. Objects are numbered in the order of the first column, so that memory is read
        sequentially.
    numbers : array of int, shape (N + 1,)
        0 to N.
    observables, intrinsic : list of columns
    """

    rows: np.ndarray
    numbers: np.ndarray
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
        """Grow the tree and divide its leaves into bins.

        Parameters
        ----------
        depth, bins : int
            2^depth leaves, and number of bins per leaf and observable.
        counts : array of int, shape (N,), optional
            Number of times each object was drawn; default once.

        Raises
        ------
        InputError
            If a leaf has fewer draws than bins.
        """
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
        """Return the leaf of each drawn object, in the order of the last split column.

        Children of a node are found in the order of its column, and mapped to the order of the next column by
        precomputed positions.
        """
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
