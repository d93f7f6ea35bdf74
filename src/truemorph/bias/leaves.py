"""k-d leaves and their equal-count bins, cut anew for every bootstrap resample without copying a row.

The rules are those of Cabrera-Vives, Miller & Schneider 2018 (AJ 156, 284), restated: a node is split at its
median (`<` left, `>=` right), columns take turns; each leaf is cut into equal-count bins of each observable. A
resample is a count for every object. Leaf, rank and count of an object are packed into one unsigned integer,
leaf foremost, so that one sort of plain integers puts leaves together and orders each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from truemorph.bias.binning import equal_count_edges
from truemorph.errors import InputError


@dataclass(frozen=True)
class Members:
    """Class memberships, a contiguous column for each class.

    Attributes
    ----------
    columns : list of K arrays, shape (N,)
    whole : bool
        Whether every row sums to 1: the first class then follows from the others.
    """

    columns: list[np.ndarray]
    whole: bool

    @classmethod
    def of(cls, table: np.ndarray) -> Members:
        """Columns of an (N, K) table of labels or probabilities."""
        columns = [np.ascontiguousarray(column) for column in table.T]
        return cls(columns, bool(np.all(np.abs(sum(columns) - 1) < 1e-12)))

    def rows(self, chosen: np.ndarray) -> Members:
        """Rows in another order."""
        return Members([column[chosen] for column in self.columns], self.whole)


@dataclass(frozen=True)
class _Column:
    """A column by rank: which object has which rank, and the sorted values."""

    order: np.ndarray  # (N,) object of each rank
    ranks: np.ndarray  # (N,) rank of each object
    values: np.ndarray  # (N,) sorted

    @classmethod
    def of(cls, values: np.ndarray) -> _Column:
        order = np.argsort(values, kind="stable")
        ranks = np.empty(order.size, dtype=np.uint64)
        ranks[order] = np.arange(order.size, dtype=np.uint64)
        return cls(order, ranks, values[order])


@dataclass(frozen=True)
class _Packing:
    """Where leaf, rank and count of an object sit in one unsigned integer, the narrowest that holds them."""

    count_bits: int
    rank_bits: int
    dtype: type

    @classmethod
    def of(cls, depth: int, size: int, most: int) -> _Packing:
        rank_bits, count_bits = max(1, (size - 1).bit_length()), max(1, most.bit_length())
        total = depth + rank_bits + count_bits
        if total > 64:
            raise InputError(f"depth {depth} is too deep for {size} galaxies; use a smaller one")
        return cls(count_bits, rank_bits, np.uint32 if total <= 32 else np.uint64)

    @property
    def leaf_at(self) -> int:
        return self.rank_bits + self.count_bits

    def leaf(self, leaf: np.ndarray) -> np.ndarray:
        return leaf.astype(self.dtype) << self.dtype(self.leaf_at)

    def rank(self, ranks: np.ndarray) -> np.ndarray:
        return ranks.astype(self.dtype) << self.dtype(self.count_bits)

    def rank_of(self, packed: np.ndarray) -> np.ndarray:
        mask = self.dtype((1 << self.rank_bits) - 1)
        return ((packed >> self.dtype(self.count_bits)) & mask).astype(np.int64)

    def count_of(self, packed: np.ndarray) -> np.ndarray:
        return packed & self.dtype((1 << self.count_bits) - 1)


@dataclass(frozen=True)
class Cut:
    """Leaves and bins of one (re)sample.

    Attributes
    ----------
    objects : list of J int arrays
        Objects in order of leaf and then of the observable.
    weights : list of J unsigned arrays
        How often each of them was drawn.
    edges : array of int, shape (L, b + 1)
        Where bins begin and end, counting every draw.
    leaf : array of int
        Leaf of each drawn object, in order of object number.
    """

    objects: list[np.ndarray]
    weights: list[np.ndarray]
    edges: np.ndarray
    leaf: np.ndarray

    def fractions(self, members: Members) -> np.ndarray:
        """Mean membership in each bin of each observable, shape (J, L, b, K)."""
        counts = np.diff(self.edges, axis=1)
        n_classes = len(members.columns)
        out = np.empty((len(self.objects), *counts.shape, n_classes))
        for j, (objects, weights) in enumerate(zip(self.objects, self.weights, strict=True)):
            drawn = np.cumsum(weights, dtype=np.int64)
            at = np.searchsorted(drawn, self.edges, side="right")
            inside = self.edges - np.where(at > 0, drawn[at - 1], 0)  # draws of the object that straddles the edge
            straddling = objects[np.minimum(at, objects.size - 1)]
            for k in range(int(members.whole), n_classes):
                column = members.columns[k]
                sums = np.zeros(objects.size + 1)
                np.cumsum(column[objects] * weights, out=sums[1:])
                out[j, :, :, k] = np.diff(sums[at] + inside * column[straddling], axis=1) / counts
        if members.whole:
            out[..., 0] = 1 - out[..., 1:].sum(axis=-1)
        return out


@dataclass(frozen=True)
class RankedTable:
    """Observables and intrinsic columns by rank, sorted once for all resamples.

    Attributes
    ----------
    observables, intrinsic : list of columns
    """

    observables: list[_Column]
    intrinsic: list[_Column]

    @classmethod
    def of(cls, observables: np.ndarray, intrinsic: np.ndarray) -> RankedTable:
        """Rank the columns of (N, J) observables and (N, P) intrinsic properties, all finite."""
        return cls([_Column.of(c) for c in observables.T], [_Column.of(c) for c in intrinsic.T])

    @property
    def size(self) -> int:
        """Number of objects."""
        return self.observables[0].order.size

    def cut(self, depth: int, bins: int, counts: np.ndarray | None = None) -> Cut:
        """Grow the tree and cut its leaves into bins.

        Parameters
        ----------
        depth, bins : int
            2^depth leaves; bins of each observable a leaf.
        counts : array of int, shape (N,), optional
            How often each object was drawn; once without.

        Raises
        ------
        InputError
            If a leaf holds fewer draws than bins.
        """
        drawn = np.arange(self.size) if counts is None else np.flatnonzero(counts)
        times = np.ones(drawn.size, dtype=np.int64) if counts is None else counts[drawn]
        pack = _Packing.of(depth, self.size, int(times.max(initial=1)))
        narrow: np.ndarray = times.astype(pack.dtype)

        def packed(column: _Column) -> np.ndarray:
            """Rank and count of the drawn objects."""
            return pack.rank(column.ranks[drawn]) | narrow

        columns = [(packed(column), column.values) for column in self.intrinsic[:depth]]
        leaf = np.zeros(drawn.size, dtype=np.int64)
        for level in range(depth):
            ranked, values = columns[level % len(columns)]
            leaf = _split(leaf, 2**level, ranked, values, pack)
        held = np.bincount(leaf, weights=times, minlength=2**depth).astype(np.int64)
        if held.min() < bins:
            raise InputError(
                f"a leaf of the intrinsic tree holds {held.min()} galaxies, too few for {bins} bins: "
                f"use a smaller depth (now {depth}) or fewer bins"
            )
        edges = (np.cumsum(held) - held)[:, None] + equal_count_edges(held, bins)
        in_order = [np.sort(packed(column) | pack.leaf(leaf)) for column in self.observables]
        objects = [column.order[pack.rank_of(one)] for column, one in zip(self.observables, in_order, strict=True)]
        return Cut(objects, [pack.count_of(one) for one in in_order], edges, leaf)


def _split(leaf: np.ndarray, n_nodes: int, ranked: np.ndarray, values: np.ndarray, pack: _Packing) -> np.ndarray:
    """Send each drawn object to the left or right child of its node, which is split at its median."""
    in_order = np.sort(ranked | pack.leaf(leaf))
    cumulative: np.ndarray = np.cumsum(pack.count_of(in_order), dtype=pack.dtype)
    begins = np.searchsorted(in_order, pack.leaf(np.arange(n_nodes)))
    before = np.concatenate([np.where(begins > 0, cumulative[begins - 1], 0), cumulative[-1:]]).astype(np.int64)
    held = np.diff(before)
    middle = []
    for target in (before[:-1] + (held - 1) // 2, before[:-1] + held // 2):
        at = np.searchsorted(cumulative, np.maximum(target, 0).astype(pack.dtype), side="right")
        middle.append(values[pack.rank_of(in_order[np.minimum(at, in_order.size - 1)])])
    threshold = pack.rank(np.searchsorted(values, 0.5 * (middle[0] + middle[1])))
    children = leaf << 1
    children += ranked >= threshold[leaf]
    return children
