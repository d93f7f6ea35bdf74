"""Bins that hold equal numbers of galaxies: in α, and in intrinsic properties by a k-d tree.

The rules are those of Cabrera-Vives, Miller & Schneider 2018 (AJ 156, 284), restated: a node is split at its
median (`<` left, `>=` right), columns take turns; the edges of b equal-count bins of n sorted objects are
round(linspace(0, n, b + 1)).
"""

from __future__ import annotations

import numpy as np


def equal_count_edges(n: int | np.ndarray, bins: int) -> np.ndarray:
    """Positions in a sorted array of n objects where its equal-count bins begin and end.

    Parameters
    ----------
    n : int or array of int, shape (L,)
        Number of objects, or one number a leaf.
    bins : int
        Number of bins b.

    Returns
    -------
    array of int, shape (b + 1,) or (L, b + 1)

    Examples
    --------
    >>> equal_count_edges(10, 4)
    array([ 0,  2,  5,  8, 10])
    """
    return np.round(np.linspace(0, n, bins + 1, axis=-1)).astype(np.int64)


def bin_index(n: int, bins: int) -> np.ndarray:
    """Equal-count bin of each of n sorted objects, shape (n,)."""
    return np.repeat(np.arange(bins), np.diff(equal_count_edges(n, bins)))


def group_stably(groups: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Reorder `order` so that objects of one group are together, each group still in the given order.

    Small unsigned integers make numpy's stable sort a radix sort, linear in the number of objects.
    """
    in_order = groups[order]
    if in_order.size and in_order.max() < np.iinfo(np.uint16).max:
        in_order = in_order.astype(np.uint16)
    return order[np.argsort(in_order, kind="stable")]


def kd_leaves(values: np.ndarray, orders: list[np.ndarray], depth: int) -> np.ndarray:
    """Leaf of each object in a k-d tree of 2^depth leaves.

    Parameters
    ----------
    values : array, shape (N, P)
        Intrinsic properties, finite; column 0 splits the root, column 1 the next level, and so on in turn.
    orders : list of P int arrays, shape (N,)
        The sort order of each column (sorted once by the caller, who may need it again).
    depth : int
        Number of levels; 0 puts every object into one leaf.

    Returns
    -------
    array of int, shape (N,)
        Leaf numbers 0 … 2^depth - 1; leaves can be empty where a column has many equal values.
    """
    leaf = np.zeros(values.shape[0], dtype=np.int64)
    for level in range(depth):
        column = values[:, level % values.shape[1]]
        order = group_stably(leaf, orders[level % values.shape[1]])
        counts = np.bincount(leaf, minlength=2**level)
        starts = np.cumsum(counts) - counts
        filled = counts > 0
        median = np.full(2**level, np.nan)
        lower = order[(starts + (counts - 1) // 2)[filled]]
        upper = order[(starts + counts // 2)[filled]]
        median[filled] = 0.5 * (column[lower] + column[upper])
        leaf = 2 * leaf + (column >= median[leaf])
    return leaf


def choose_bins(n: int, with_intrinsic: bool, per_bin: int = 25) -> tuple[int, int]:
    """Depth and bins for n objects that leave at least `per_bin` in each bin where that is possible.

    Without intrinsic columns up to 20 bins in one leaf (CV14's default); with them up to 2^6 leaves of 8 bins
    (CV18's), fewer bins before fewer leaves.

    Returns
    -------
    depth, bins : int

    Examples
    --------
    >>> choose_bins(100_000, True), choose_bins(1_800, True), choose_bins(246, False)
    ((6, 8), (4, 4), (0, 9))
    """
    if not with_intrinsic:
        return 0, int(np.clip(n // per_bin, 2, 20))
    for depth in range(6, 0, -1):
        # k-d leaves differ by an object or two; leave room for that.
        bins = int((n // 2**depth - 1) // per_bin)
        if bins >= 4:
            return depth, min(bins, 8)
    return 1, max(2, int((n // 2 - 1) // per_bin))
