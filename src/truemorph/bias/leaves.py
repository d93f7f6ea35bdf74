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
class _Column:
    """A column by rank: which object has which rank, and the sorted values."""

    order: np.ndarray  # (N,) object of each rank
    ranks: np.ndarray  # (N,) rank of each object
    values: np.ndarray  # (N,) sorted

    @classmethod
    def of(cls, values: np.ndarray) -> _Column:
        order = np.argsort(values, kind="stable")
        ranks = np.empty(order.size, dtype=np.int64)
        ranks[order] = np.arange(order.size)
        return cls(order, ranks, values[order])


@dataclass(frozen=True)
class Cut:
    """Leaves and bins of one (re)sample.

    Attributes
    ----------
    objects : list of J int arrays
        Objects in order of leaf and then of the observable.
    weights : list of J int arrays
        How often each of them was drawn.
    edges : array of int, shape (L, b + 1)
        Where bins begin and end, counting every draw.
    leaf : array of int
        Leaf of each object that was drawn, by object number.
    """

    objects: list[np.ndarray]
    weights: list[np.ndarray]
    edges: np.ndarray
    leaf: np.ndarray

    def fractions(self, members: np.ndarray) -> np.ndarray:
        """Mean of members, shape (N, K), in each bin of each observable: (J, L, b, K)."""
        counts = np.diff(self.edges, axis=1)
        n_classes = members.shape[1]
        # Where memberships sum to 1, so do their means: one class fewer to add up.
        whole = bool(np.all(np.abs(members.sum(axis=1) - 1) < 1e-12))
        out = np.empty((len(self.objects), *counts.shape, n_classes))
        for j, (objects, weights) in enumerate(zip(self.objects, self.weights, strict=True)):
            drawn = np.cumsum(weights)
            at = np.searchsorted(drawn, self.edges, side="right")
            inside = self.edges - np.where(at > 0, drawn[at - 1], 0)  # draws of the object that straddles the edge
            straddling = objects[np.minimum(at, objects.size - 1)]
            for k in range(int(whole), n_classes):
                column = np.ascontiguousarray(members[:, k])
                sums = np.zeros(objects.size + 1)
                np.cumsum(column[objects] * weights, out=sums[1:])
                out[j, :, :, k] = np.diff(sums[at] + inside * column[straddling], axis=1) / counts
        if whole:
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
        leaf = self._leaves(drawn, times, depth, pack)
        held = np.bincount(leaf, weights=times, minlength=2**depth).astype(np.int64)
        if held.min() < bins:
            raise InputError(
                f"a leaf of the intrinsic tree holds {held.min()} galaxies, too few for {bins} bins: "
                f"use a smaller depth (now {depth}) or fewer bins"
            )
        edges = (np.cumsum(held) - held)[:, None] + equal_count_edges(held, bins)
        objects, weights = [], []
        for column in self.observables:
            packed = np.sort(pack.rank_and_count(column.ranks[drawn], times) | pack.leaf(leaf))
            objects.append(column.order[pack.rank_of(packed)])
            weights.append(pack.count_of(packed))
        by_object = np.zeros(self.size, dtype=np.int64)
        by_object[drawn] = leaf
        return Cut(objects, weights, edges, by_object)

    def _leaves(self, drawn: np.ndarray, times: np.ndarray, depth: int, pack: _Packing) -> np.ndarray:
        """Leaf of each drawn object."""
        leaf = np.zeros(drawn.size, dtype=np.int64)
        used = self.intrinsic[: max(1, depth)]
        ranks = [column.ranks[drawn] for column in used]
        without_leaf = [pack.rank_and_count(one, times) for one in ranks]
        for level in range(depth):
            turn = level % len(self.intrinsic)
            column = self.intrinsic[turn]
            packed = np.sort(without_leaf[turn] | pack.leaf(leaf))
            cumulative = np.cumsum(pack.count_of(packed))
            nodes = np.arange(2**level + 1, dtype=np.int64)
            begins = np.searchsorted(packed, pack.leaf(nodes[:-1]))
            before = np.concatenate([np.where(begins > 0, cumulative[begins - 1], 0), cumulative[-1:]])
            held = np.diff(before)
            middle = [
                column.values[pack.rank_of(packed[np.minimum(at, packed.size - 1)])]
                for at in (
                    np.searchsorted(cumulative, before[:-1] + (held - 1) // 2, side="right"),
                    np.searchsorted(cumulative, before[:-1] + held // 2, side="right"),
                )
            ]
            threshold = np.searchsorted(column.values, 0.5 * (middle[0] + middle[1]))
            leaf = 2 * leaf + (ranks[turn] >= threshold[leaf])
        return leaf


@dataclass(frozen=True)
class _Packing:
    """Bits of leaf, rank and count in one unsigned integer, the narrowest that holds them."""

    rank_bits: int
    count_bits: int
    dtype: type

    @classmethod
    def of(cls, depth: int, size: int, most: int) -> _Packing:
        rank_bits, count_bits = max(1, (size - 1).bit_length()), max(1, most.bit_length())
        total = depth + rank_bits + count_bits
        if total > 64:
            raise InputError(f"depth {depth} is too deep for {size} galaxies; use a smaller one")
        return cls(rank_bits, count_bits, np.uint32 if total <= 32 else np.uint64)

    def rank_and_count(self, ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return ((ranks << self.count_bits) | counts).astype(self.dtype)

    def leaf(self, leaf: np.ndarray) -> np.ndarray:
        return (leaf << (self.rank_bits + self.count_bits)).astype(self.dtype)

    def rank_of(self, packed: np.ndarray) -> np.ndarray:
        mask = self.dtype((1 << self.rank_bits) - 1)
        return ((packed >> self.dtype(self.count_bits)) & mask).astype(np.int64)

    def count_of(self, packed: np.ndarray) -> np.ndarray:
        return (packed & self.dtype((1 << self.count_bits) - 1)).astype(np.int64)
