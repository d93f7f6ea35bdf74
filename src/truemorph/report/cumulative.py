"""Cumulative curves of samples, and distances between two of them with their errors and floors.

Two samples of the same galaxies mostly share members, and what they share doesn't vary between them. Comparisons
therefore resample galaxies, each with its weight in either sample; the spread of the resampled difference around the
measured one is what chance does where there is none (Præstgaard 1995, Scand. J. Stat. 22, 305).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from truemorph.arrays import float_array
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
    def of(cls, values: np.ndarray, weights: np.ndarray | None = None) -> Cumulative:
        """Curve of a sample.

        Parameters
        ----------
        values : array, shape (N,)
            Non-finite ones are left out and counted.
        weights : array, shape (N,), optional
            Not negative; a galaxy of weight 2 counts as two.

        Raises
        ------
        InputError
            If no galaxy is left.

        Examples
        --------
        >>> Cumulative.of([1.0, 4.0, 1.0, float("nan")]).share.round(3)
        array([0.667, 1.   ])
        """
        values, weights, n_dropped = _sample(values, weights, "values")
        distinct, which = np.unique(values, return_inverse=True)
        share = np.cumsum(np.bincount(which, weights))
        return cls(distinct, share / share[-1], values.size, float(weights.sum()), _effective(weights), n_dropped)

    def __call__(self, at: np.ndarray | float) -> np.ndarray:
        """Share at or below these values."""
        return np.concatenate([[0.0], self.share])[np.searchsorted(self.values, at, side="right")]

    def quantile(self, share: np.ndarray | float) -> np.ndarray:
        """Smallest values at or below which these shares lie."""
        return self.values[np.minimum(np.searchsorted(self.share, share), self.values.size - 1)]

    def thinned(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """Values and shares of at most so many points, evenly spaced in rank; the first and the last among them."""
        chosen = np.unique(np.round(np.linspace(0, self.values.size - 1, points)).astype(np.int64))
        return self.values[chosen], self.share[chosen]


@dataclass(frozen=True)
class ShareAbove:
    """Share of a sample above a boundary, and its binomial error.

    Attributes
    ----------
    value, stderr : float
        The error is that with one success and one failure added (Agresti & Coull), so that 0 and 1 have one too.
    """

    value: float
    stderr: float


@dataclass(frozen=True)
class TwoSample:
    """Distances between two cumulative curves, with their errors and what chance alone gives.

    Attributes
    ----------
    ks, ks_stderr : float
        Kolmogorov-Smirnov: the largest difference between the curves; bootstrap standard error.
    ks_floor : float
        Its mean where there is no difference; not 0.
    p_value : float
        Chance of so large a `ks` where there is no difference: asymptotic for independent samples, by the bootstrap,
        at least 1 / (resamples + 1), for samples that share galaxies.
    area, area_stderr, area_floor : float
        The same for the area between the curves (Wasserstein's distance), in the unit of the values.
    n_a, n_b : int
        Galaxies of positive weight.
    n_dropped : int
        Galaxies left out because the value was not finite.
    """

    ks: float
    ks_stderr: float
    ks_floor: float
    p_value: float
    area: float
    area_stderr: float
    area_floor: float
    n_a: int
    n_b: int
    n_dropped: int


def two_sample(
    a: np.ndarray,
    b: np.ndarray,
    *,
    weights_a: np.ndarray | None = None,
    weights_b: np.ndarray | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> TwoSample:
    """Distances between two independent samples, of no galaxy in common.

    Parameters
    ----------
    a, b : array, shapes (N,) and (M,)
        Non-finite values are left out and counted.
    weights_a, weights_b : array, optional
        Not negative; only their ratios matter.
    bootstrap : int
        Resamples for errors and floors, each sample on its own; 0 for none (both are NaN then).
    seed : int

    Raises
    ------
    InputError
        If a sample is empty, or weights are negative or of another length.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = two_sample(rng.normal(0, 1, 500), rng.normal(0.5, 1, 500), bootstrap=200)
    >>> found.ks > 3 * found.ks_floor, found.p_value < 1e-6
    (True, True)
    """
    a, weights_a, dropped_a = _sample(a, weights_a, "a")
    b, weights_b, dropped_b = _sample(b, weights_b, "b")
    values = np.concatenate([a, b])
    in_a = np.concatenate([weights_a, np.zeros(b.size)])
    in_b = np.concatenate([np.zeros(a.size), weights_b])
    curves = _Pair.of(values, in_a, in_b)
    sizes = _effective(weights_a), _effective(weights_b)
    rng = np.random.default_rng(seed)
    blocks = [np.flatnonzero(curves.a > 0), np.flatnonzero(curves.b > 0)]
    found = _resampled(curves, blocks, bootstrap, rng)
    ks, area = curves.distances(curves.difference())
    # scipy's own choice for large samples: the exact law of one sample of the harmonic size.
    p_value = float(stats.kstwo.sf(ks, max(1, round(sizes[0] * sizes[1] / sum(sizes)))))
    return TwoSample(
        ks=ks,
        area=area,
        p_value=p_value,
        n_a=a.size,
        n_b=b.size,
        n_dropped=dropped_a + dropped_b,
        **found.errors(),
    )


def compare_memberships(
    values: np.ndarray, in_a: np.ndarray, in_b: np.ndarray, *, bootstrap: int = 1000, seed: int = 0
) -> TwoSample:
    """Distances between two samples of the same galaxies, which may share members.

    Parameters
    ----------
    values : array, shape (N,)
        Non-finite ones are left out and counted.
    in_a, in_b : array, shape (N,)
        Weight of each galaxy in either sample: 0 or 1, or a probability.
    bootstrap : int
        Resamples of galaxies for errors, floors and p-value; 0 for none (they are NaN then).
    seed : int

    Raises
    ------
    InputError
        If a sample is empty, or weights are negative or of another length.
    """
    values, in_a, in_b = (float_array(one, name) for one, name in ((values, "values"), (in_a, "in_a"), (in_b, "in_b")))
    check_weights(values, in_a, "in_a")
    check_weights(values, in_b, "in_b")
    member = (in_a > 0) | (in_b > 0)
    kept = member & np.isfinite(values)
    n_a, n_b = (int(np.count_nonzero(one[kept])) for one in (in_a, in_b))
    if not (n_a and n_b):
        raise InputError(f"a sample has no galaxy with a finite value: {n_a} in a, {n_b} in b")
    curves = _Pair.of(values[kept], in_a[kept], in_b[kept])
    found = _resampled(curves, [np.arange(curves.a.size)], bootstrap, np.random.default_rng(seed))
    ks, area = curves.distances(curves.difference())
    return TwoSample(
        ks=ks,
        area=area,
        p_value=found.p_value(ks),
        n_a=n_a,
        n_b=n_b,
        n_dropped=int(member.sum() - kept.sum()),
        **found.errors(),
    )


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


@dataclass(frozen=True)
class _Resampled:
    """Distances of resamples, shape (B, 2), and of their differences from the measured one: chance alone."""

    distances: np.ndarray
    chance: np.ndarray

    def errors(self) -> dict[str, float]:
        if not len(self.distances):
            return dict.fromkeys(("ks_stderr", "ks_floor", "area_stderr", "area_floor"), float("nan"))
        (ks, area), (ks_floor, area_floor) = self.distances.std(axis=0), self.chance.mean(axis=0)
        return {
            "ks_stderr": float(ks),
            "ks_floor": float(ks_floor),
            "area_stderr": float(area),
            "area_floor": float(area_floor),
        }

    def p_value(self, ks: float) -> float:
        count = len(self.chance)
        return float((1 + np.count_nonzero(self.chance[:, 0] >= ks)) / (count + 1)) if count else float("nan")


def _resampled(curves: _Pair, blocks: list[np.ndarray], bootstrap: int, rng: np.random.Generator) -> _Resampled:
    """Resample rows within blocks: only how often each was drawn matters, so nothing is sorted again."""
    if bootstrap < 0:
        raise InputError(f"bootstrap is a number of resamples, 0 or more; got {bootstrap}")
    measured = curves.difference()
    counts = np.empty(curves.a.size)
    distances, chance = [], []
    for _ in range(bootstrap):
        for rows in blocks:
            counts[rows] = np.bincount(rng.integers(0, rows.size, rows.size), minlength=rows.size)
        if not (counts @ curves.a > 0 and counts @ curves.b > 0):  # of a handful of galaxies, none was drawn
            continue
        difference = curves.difference(counts)
        distances.append(curves.distances(difference))
        chance.append(curves.distances(difference - measured))
    return _Resampled(np.array(distances).reshape(-1, 2), np.array(chance).reshape(-1, 2))


def share_above(values: np.ndarray, boundary: float, weights: np.ndarray | None = None) -> ShareAbove:
    """Share of a sample above a boundary.

    Parameters
    ----------
    values : array, shape (N,)
        Non-finite ones are left out.
    boundary : float
    weights : array, shape (N,), optional

    Examples
    --------
    >>> share_above([1.0, 2.0, 4.0, 5.0], 3.0).value
    0.5
    """
    values, weights, _ = _sample(values, weights, "values")
    share = float(np.average(values > boundary, weights=weights))
    count = _effective(weights)
    smoothed = (share * count + 1) / (count + 2)
    return ShareAbove(share, float(np.sqrt(smoothed * (1 - smoothed) / (count + 2))))


def _effective(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / np.square(weights).sum())


def check_weights(values: np.ndarray, weights: np.ndarray, name: str) -> None:
    """Raise InputError unless there is one finite weight a galaxy, none negative."""
    if weights.shape != values.shape:
        raise InputError(f"{name} needs one weight a galaxy; got shape {weights.shape} for {values.shape}")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        raise InputError(f"{name} must be finite and not negative; row {wrong[0]} is {weights[wrong[0]]}")


def _sample(values: Any, weights: Any, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Finite values of positive weight, their weights, and how many were not finite."""
    values = float_array(values, name)
    if values.ndim != 1:
        raise InputError(f"{name} must have one value a galaxy; got shape {values.shape}")
    weights = np.ones(values.size) if weights is None else float_array(weights, f"weights of {name}")
    check_weights(values, weights, f"weights of {name}")
    kept = np.isfinite(values) & (weights > 0)
    if not kept.any():
        raise InputError(f"{name}: none of {values.size} galaxies has a finite value and a weight")
    return values[kept], weights[kept], int(np.count_nonzero(~np.isfinite(values) & (weights > 0)))
