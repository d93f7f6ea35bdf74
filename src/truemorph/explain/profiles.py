"""Combine maps of many galaxies: mean maps, radial profiles and their differences (paper, Figs 5-7)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

PIXELS, RADII = "pixel", "R_petro"  # units of rings
# Column of Petrosian radii in units of the width of an image file, before cropping.
RADIUS = "explained radius"
# Extent of profiles in units of R_petro.
REACH = 2.0


def moments(values: np.ndarray) -> np.ndarray:
    """Return sum, sum of squares and number of the finite values of all galaxies (axis 0); batches add up."""
    there = np.isfinite(values)
    kept = np.where(there, values, 0).astype(float)
    return np.stack([kept.sum(axis=0), (kept**2).sum(axis=0), there.sum(axis=0)])


@dataclass(frozen=True)
class MeanMap:
    """Mean over galaxies of maps or profiles, and its error from their scatter; NaN where no galaxy reaches."""

    mean: np.ndarray
    stderr: np.ndarray
    count: np.ndarray  # galaxies

    @classmethod
    def of(cls, summed: np.ndarray) -> MeanMap:
        """Compute the mean from `moments`."""
        total, squares, count = summed
        n = np.maximum(count, 1)
        mean = total / n
        # For two or more galaxies; rounding may give a negative variance.
        variance = np.clip(squares - n * mean**2, 0, None) / np.maximum(count - 1, 1)
        stderr = np.where(count > 1, np.sqrt(variance / n), np.nan)
        return cls(np.where(count > 0, mean, np.nan), stderr, count.astype(int))


@dataclass(frozen=True)
class Profiles:
    """Intensity of maps in rings around the centre, from `radial_profiles`."""

    edges: np.ndarray  # shape (B + 1,)
    profiles: np.ndarray  # shape (N, B)

    @cached_property
    def average(self) -> MeanMap:
        """Mean over the galaxies whose image reaches the ring."""
        return MeanMap.of(moments(self.profiles))

    @property
    def middles(self) -> np.ndarray:
        """Radii at the middle of the rings."""
        return (self.edges[1:] + self.edges[:-1]) / 2


def radial_profiles(maps: np.ndarray, edges: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """Compute the mean intensity of maps, shape (N, S, S), in rings around the centre, shape (N, B).

    Edges are in pixels, or in units of each galaxy's `scale` (in pixels, shape (N,)); where it is NaN, the profile is.
    A ring without the centre of a pixel is NaN.
    """
    n, size = maps.shape[:2]
    away = np.arange(size) - (size - 1) / 2
    scales = np.ones(n) if scale is None else scale
    ring = np.searchsorted(edges, np.hypot(away[:, None], away).ravel() / scales[:, None], "right") - 1
    rows = np.arange(n)[:, None] * (edges.size + 1) + ring
    count, total = (
        np.bincount(rows.ravel(), weights, n * (edges.size + 1)).reshape(n, -1)[:, : edges.size - 1]
        for weights in (None, maps.ravel())
    )
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def profile_difference(
    first: np.ndarray, second: np.ndarray, ids: tuple[Sequence[Any], Sequence[Any]], bootstrap: int, seed: int
) -> dict[str, Any]:
    """Subtract the mean profiles of two models, shapes (N, B) and (M, B), with bootstrap limits over galaxies.

    A resample draws galaxies (by `ids`), not profiles, so that noise of galaxies in both samples cancels. Returns a
    `difference` per ring, limits `low_68`, `high_68`, `low_95`, `high_95`, and numbers of galaxies.
    """
    numbers: dict[Any, int] = {}
    samples = []
    for profiles, own in zip((first, second), ids, strict=True):
        there = np.isfinite(profiles)
        places = np.array([numbers.setdefault(galaxy, len(numbers)) for galaxy in own])
        samples.append((places, np.where(there, profiles, 0).astype(float), there.astype(float)))

    def difference(drawn: np.ndarray) -> np.ndarray:
        """Difference of means, with the number of times that each galaxy was drawn."""
        sums = [(drawn[places] @ values, drawn[places] @ there) for places, values, there in samples]
        means = [np.where(n > 0, total / np.maximum(n, 1), np.nan) for total, n in sums]
        return means[0] - means[1]

    every = len(numbers)
    rng, equal = np.random.default_rng(seed), np.full(every, 1 / every)
    resamples = [difference(rng.multinomial(every, equal).astype(float)) for _ in range(bootstrap)]
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a ring that no galaxy reaches
        limits = np.nanpercentile(resamples, [16, 84, 2.5, 97.5], axis=0)
    n, m = len(first), len(second)
    return {
        "difference": difference(np.ones(every)),
        **dict(zip(("low_68", "high_68", "low_95", "high_95"), limits, strict=True)),
        "galaxies_first": n,
        "galaxies_second": m,
        "galaxies_both": n + m - every,
    }
