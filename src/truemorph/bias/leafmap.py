"""Where in the space of intrinsic properties labels drift with resolution: CV18, leaf by leaf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from truemorph.bias.leaves import Members, RankedTable
from truemorph.bias.metrics import finite_columns
from truemorph.bias.transitions import Array
from truemorph.errors import InputError


@dataclass(frozen=True)
class LeafMap:
    """Drift of class fractions with α in each leaf of the intrinsic tree.

    Attributes
    ----------
    medians : array, shape (L, P)
        Median of each intrinsic column in each leaf.
    counts : array of int, shape (L,)
    values : array, shape (L,)
        Root mean square deviation of class fractions from the leaf's best resolved bin; the rms of all leaves is CV18.
    floors : array, shape (L,)
        Its expected value without any drift, from the binomial variances of the bins.
    """

    medians: np.ndarray
    counts: np.ndarray
    values: np.ndarray
    floors: np.ndarray

    @property
    def excess(self) -> np.ndarray:
        """What lies above the floor, shape (L,): sqrt(max(0, value² - floor²))."""
        return np.sqrt(np.clip(self.values**2 - self.floors**2, 0, None))


def cv18_by_leaf(labels: Array, alpha: Array, intrinsic: Array, depth: int, bins: int, seed: int = 0) -> LeafMap:
    """CV18 of each leaf (see `cv18`, whose tree and bins these are).

    Parameters
    ----------
    labels : array, shape (N,) or (N, K)
        Classes, or class probabilities.
    alpha : array, shape (N,)
    intrinsic : array, shape (N, P)
        Rows with a value that is not finite are left out.
    depth, bins : int
        2^depth leaves of `bins` equal-count bins of α.
    seed : int
        Of the order of ties.

    Raises
    ------
    InputError
        If shapes disagree or a leaf holds fewer galaxies than bins.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z, alpha = rng.random((4000, 2)), rng.random(4000)
    >>> labels = (rng.random(4000) < np.where(z[:, 0] < 0.5, 0.5, alpha)).astype(int)  # one half drifts
    >>> found = cv18_by_leaf(labels, alpha, z, depth=1, bins=5)
    >>> found.excess.round(1)
    array([0. , 0.5])
    """
    members, resolution, columns, _ = finite_columns(labels, alpha, intrinsic)
    if resolution.shape[1] != 1:
        raise InputError(f"a map of leaves takes one observable, alpha of shape (N,); got {np.shape(alpha)}")
    if bins < 2 or depth < 0:
        raise InputError(f"needs at least 2 bins and a depth of 0 or more; got bins={bins}, depth={depth}")
    shuffled = np.random.default_rng(seed).permutation(len(members))
    table = RankedTable.of(resolution[shuffled], columns[shuffled])
    cut, rows = table.cut(depth, bins), shuffled[table.rows]
    shares = Members.of(members[rows])
    fractions = cut.fractions(shares)[0]  # (L, b, K)
    squares = cut.fractions(Members([column**2 for column in shares.columns], whole=False))[0]
    held = np.diff(cut.edges, axis=1)
    variance = np.clip(squares - fractions**2, 0, None) / held[:, :, None]
    expected = variance + variance[:, -1:]
    expected[:, -1] = 0.0
    order = np.argsort(cut.leaf, kind="stable")
    parts = np.split(columns[rows][order], np.cumsum(np.bincount(cut.leaf, minlength=2**depth))[:-1])
    return LeafMap(
        medians=np.array([np.median(part, axis=0) for part in parts]),
        counts=held.sum(axis=1),
        values=np.sqrt(np.mean((fractions - fractions[:, -1:]) ** 2, axis=(1, 2))),
        floors=np.sqrt(np.mean(expected, axis=(1, 2))),
    )
