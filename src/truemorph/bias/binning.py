"""Bins that hold equal numbers of galaxies.

The edges of b equal-count bins of n sorted objects are round(linspace(0, n, b + 1)), as in Cabrera-Vives, Miller &
Schneider 2018 (AJ 156, 284).
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
