"""Cumulative curves of samples, and distances between two of them with their errors and floors.

Two samples of the same galaxies mostly share members, and what they share doesn't vary between them. Comparisons
therefore resample galaxies, each with its weight in either sample; the spread of the resampled difference around the
measured one is what chance does where there is none (Præstgaard 1995, Scand. J. Stat. 22, 305).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from truemorph.bias.binning import proportion_error
from truemorph.errors import InputError


@dataclass(frozen=True)
class Cumulative:
    """Share of galaxies at or below each value.

    Attributes
    ----------
    values : array, shape (M,)
        Distinct values, ascending.
    share : array, shape (M,)
        Weighted share at or below, ascending to 1.
    n : int
        Galaxies of positive weight.
    total : float
        Sum of their weights: the number expected where weights are probabilities.
    effective_n : float
        (Σ w)² / Σ w²: as many galaxies of equal weight would have the same error.
    n_dropped : int
        Galaxies of positive weight left out because the value was not finite.
    """

    values: np.ndarray
    share: np.ndarray
    n: int
    total: float
    effective_n: float
    n_dropped: int

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray) -> Cumulative:
        """Curve of a sample.

        Parameters
        ----------
        values, weights : array, shape (N,)
            Values that are not finite are left out and counted; a galaxy of weight 2 counts as two.

        Raises
        ------
        InputError
            If no galaxy is left.

        Examples
        --------
        >>> Cumulative.of(np.array([1.0, 4.0, 1.0, np.nan]), np.ones(4)).share.round(3)
        array([0.667, 1.   ])
        """
        member, finite = weights > 0, np.isfinite(values)
        kept = member & finite
        if not kept.any():
            raise InputError(f"none of {values.size} galaxies has a finite value and a weight")
        distinct, which = np.unique(values[kept], return_inverse=True)
        share = np.cumsum(np.bincount(which, weights[kept]))
        return cls(
            distinct,
            share / share[-1],
            int(kept.sum()),
            float(weights[kept].sum()),
            _effective(weights[kept]),
            int((member & ~finite).sum()),
        )

    def quantile(self, share: np.ndarray | float) -> np.ndarray:
        """Smallest values at or below which these shares lie."""
        return self.values[np.minimum(np.searchsorted(self.share, share), self.values.size - 1)]

    def thinned(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """Values and shares of at most so many points, evenly spaced in rank; the first and the last among them."""
        chosen = np.unique(np.round(np.linspace(0, self.values.size - 1, points)).astype(np.int64))
        return self.values[chosen], self.share[chosen]


@dataclass(frozen=True)
class Distance:
    """Distances between the cumulative curves of two samples, with their errors and what chance alone gives.

    Attributes
    ----------
    ks, ks_stderr : float
        Kolmogorov-Smirnov: the largest difference between the curves; bootstrap standard error.
    ks_floor : float
        Its mean where there is no difference; not 0.
    p_value : float
        Chance of so large a `ks` where there is no difference, by the bootstrap: at least 1 / (resamples + 1).
    area, area_stderr, area_floor : float
        The same for the area between the curves (Wasserstein's distance), in the unit of the values.
    """

    ks: float
    ks_stderr: float
    ks_floor: float
    p_value: float
    area: float
    area_stderr: float
    area_floor: float


def distance(
    values: np.ndarray, in_a: np.ndarray, in_b: np.ndarray, *, bootstrap: int = 1000, seed: int = 0
) -> Distance:
    """Distances between two samples of the same galaxies, which may share members.

    Parameters
    ----------
    values : array, shape (N,)
        Those that are not finite are left out.
    in_a, in_b : array, shape (N,)
        Weight of each galaxy in either sample: 0 or 1, or a probability.
    bootstrap : int
        Resamples of galaxies for errors, floors and p-value; 0 for none (they are NaN then).
    seed : int

    Raises
    ------
    InputError
        If a sample is empty.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> first = np.arange(1000) < 500
    >>> found = distance(rng.normal(np.where(first, 0, 0.5)), first * 1.0, ~first * 1.0, bootstrap=200)
    >>> found.ks > 3 * found.ks_floor, found.p_value < 0.01
    (True, True)
    """
    kept = ((in_a > 0) | (in_b > 0)) & np.isfinite(values)
    if not (in_a[kept].any() and in_b[kept].any()):
        raise InputError("a sample has no galaxy with a finite value")
    curves = _Pair.of(values[kept], in_a[kept], in_b[kept])
    measured, rng, n = curves.difference(), np.random.default_rng(seed), int(kept.sum())
    resampled, chance = [], []
    for _ in range(bootstrap):
        # Only how often each galaxy was drawn matters, so nothing is sorted again.
        counts = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        if not (counts @ curves.a > 0 and counts @ curves.b > 0):  # of a handful of galaxies, none was drawn
            continue
        difference = curves.difference(counts)
        resampled.append(curves.distances(difference))
        chance.append(curves.distances(difference - measured))
    ks, area = curves.distances(measured)
    if not chance:
        nan = float("nan")
        return Distance(ks, nan, nan, nan, area, nan, nan)
    (ks_stderr, area_stderr), (ks_floor, area_floor) = np.std(resampled, axis=0), np.mean(chance, axis=0)
    p_value = (1 + np.count_nonzero(np.array(chance)[:, 0] >= ks)) / (len(chance) + 1)
    return Distance(ks, float(ks_stderr), float(ks_floor), float(p_value), area, float(area_stderr), float(area_floor))


@dataclass(frozen=True)
class _Pair:
    """Two samples on their pooled values, ascending: weights in either, and distances to the next value."""

    a: np.ndarray
    b: np.ndarray
    gaps: np.ndarray
    last: np.ndarray | slice

    @classmethod
    def of(cls, values: np.ndarray, in_a: np.ndarray, in_b: np.ndarray) -> _Pair:
        order = np.argsort(values, kind="stable")
        gaps = np.diff(values[order], append=values[order[-1]])
        last = np.append(gaps[:-1] > 0, True)  # of equal values: there the curves have a value
        return cls(in_a[order], in_b[order], gaps, slice(None) if last.all() else np.flatnonzero(last))

    def difference(self, counts: np.ndarray | None = None) -> np.ndarray:
        """Curve of a less that of b at each value, with each row so many times."""
        a, b = (np.cumsum(one if counts is None else one * counts) for one in (self.a, self.b))
        return a / a[-1] - b / b[-1]

    def distances(self, difference: np.ndarray) -> tuple[float, float]:
        """Largest difference between the curves, and the area between them."""
        apart = np.abs(difference)
        return float(apart[self.last].max()), float(apart @ self.gaps)


def share_above(values: np.ndarray, boundary: float, weights: np.ndarray) -> tuple[float, float]:
    """Weighted fraction of the finite values above a boundary, and its `proportion_error`.

    Examples
    --------
    >>> share_above(np.array([1.0, 2.0, 4.0, 5.0]), 3.0, np.ones(4))[0]
    0.5
    """
    kept = np.isfinite(values) & (weights > 0)
    share = float(np.average(values[kept] > boundary, weights=weights[kept]))
    return share, float(proportion_error(share, _effective(weights[kept])))


def _effective(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / np.square(weights).sum())
