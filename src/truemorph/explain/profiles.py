"""Combine maps of many galaxies: mean maps, radial profiles and their differences (paper, Figs 5-7).

All functions use plain arrays. Maps are in image pixels; the centre is ((S - 1) / 2, (S - 1) / 2).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from truemorph.errors import InputError

PIXELS, RADII = "pixel", "R_petro"  # units of rings
# Extent of profiles and aligned maps in units of R_petro.
REACH = 2.0
_RESAMPLES_AT_ONCE = 64
_LIMITS = (0.68, 0.95)


@dataclass(frozen=True)
class MeanMap:
    """Mean map over galaxies.

    Attributes
    ----------
    mean, stderr : array, shape (S, S)
        Mean and its error; NaN with no galaxy (for the error, with one).
    count : array of int, shape (S, S)
        Number of galaxies per pixel; aligned images do not cover all pixels.
    """

    mean: np.ndarray
    stderr: np.ndarray
    count: np.ndarray


class MapSum:
    """Add maps in batches, with the memory of one map.

    Parameters
    ----------
    size : int
        Width of the maps.
    """

    def __init__(self, size: int) -> None:
        self._sum, self._squares = np.zeros((size, size)), np.zeros((size, size))
        self._count = np.zeros((size, size), np.int64)

    def add(self, maps: np.ndarray) -> None:
        """Add maps, shape (N, S, S); NaN is ignored."""
        there = np.isfinite(maps)
        values = np.where(there, maps, 0).astype(np.float64)
        self._sum += values.sum(axis=0)
        self._squares += (values**2).sum(axis=0)
        self._count += there.sum(axis=0)

    def mean(self) -> MeanMap:
        """Return the mean of the maps."""
        return MeanMap(*_mean_and_error(self._sum, self._squares, self._count), self._count)


@dataclass(frozen=True)
class Profiles:
    """Intensity of maps in rings around the centre.

    Attributes
    ----------
    edges : array, shape (B + 1,)
    unit : str
        Unit of the edges: "pixel" (of the network's image) or "R_petro".
    profiles : array, shape (N, B)
        Profiles from `radial_profiles`.
    """

    edges: np.ndarray
    unit: str
    profiles: np.ndarray

    @cached_property
    def _mean(self) -> tuple[np.ndarray, np.ndarray]:
        values = np.where(np.isfinite(self.profiles), self.profiles, 0)
        return _mean_and_error(values.sum(axis=0), (values**2).sum(axis=0), self.counts)

    @property
    def mean(self) -> np.ndarray:
        """Mean over galaxies; NaN if no image reaches the ring."""
        return self._mean[0]

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of the mean, from the scatter of galaxies."""
        return self._mean[1]

    @property
    def counts(self) -> np.ndarray:
        """Number of galaxies whose image reaches the ring."""
        return np.isfinite(self.profiles).sum(axis=0)

    @property
    def middles(self) -> np.ndarray:
        """Radii at the middle of the rings."""
        return (self.edges[1:] + self.edges[:-1]) / 2


def _mean_and_error(total: np.ndarray, squares: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = np.maximum(count, 1)
    mean = total / n
    # For two or more galaxies; rounding may give a negative variance.
    variance = np.clip(squares - n * mean**2, 0, None) / np.maximum(count - 1, 1)
    return np.where(count > 0, mean, np.nan), np.where(count > 1, np.sqrt(variance / n), np.nan)


def _within(x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Area of the rectangle from the origin to (x, y), both ≥ 0, inside a circle around the origin."""
    x, y = np.minimum(x, radius), np.minimum(y, radius)
    # The circle crosses the top of the rectangle at `left`.
    left = np.minimum(np.sqrt(np.clip(radius**2 - y**2, 0, None)), x)

    def below(t: np.ndarray) -> np.ndarray:
        """Area under the circle from 0 to t."""
        angle = np.arcsin(np.clip(t / np.maximum(radius, 1e-300), 0, 1))
        return (t * np.sqrt(np.clip(radius**2 - t**2, 0, None)) + radius**2 * angle) / 2

    return left * y + below(x) - below(left)


def ring_areas(size: int, edges: np.ndarray) -> np.ndarray:
    """Compute the exact area of each pixel in each ring.

    Parameters
    ----------
    size : int
        Image width S.
    edges : array, shape (..., B + 1)
        Radii, pixels, ascending.

    Returns
    -------
    array, shape (..., B, S, S)
        Areas in pixels.

    Examples
    --------
    >>> ring_areas(8, np.array([0.0, 3.0])).sum().round(6)  # π 3²
    np.float64(28.274334)
    """
    corner = np.arange(size + 1) - size / 2
    # The image is symmetric around its centre.
    away, place = np.unique(np.abs(corner), return_inverse=True)
    inside = _within(away[:, None], away[None, :], np.asarray(edges, np.float64)[..., None, None])
    signed = inside[..., place[:, None], place] * np.sign(corner)[:, None] * np.sign(corner)
    return np.diff(np.diff(np.diff(signed, axis=-1), axis=-2), axis=-3)


def radial_profiles(maps: np.ndarray, edges: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """Compute the mean intensity of each map in rings around the centre.

    Parameters
    ----------
    maps : array, shape (N, S, S)
    edges : array, shape (B + 1,)
        Edges of the rings, ascending, in pixels or units of `scale`.
    scale : array, shape (N,), optional
        Unit of each galaxy in pixels (for example R_petro). If NaN, the row is NaN.

    Returns
    -------
    array, shape (N, B)
        Means weighted by the area that a pixel and a ring have in common, inside the image; NaN if a ring is outside of
        the image.
    """
    n, size = maps.shape[:2]
    flat = maps.reshape(n, -1).astype(np.float64)
    if scale is None:
        return _ring_means(flat, ring_areas(size, edges))
    out = np.full((n, edges.size - 1), np.nan)
    for row in np.flatnonzero(np.isfinite(scale)):
        out[row] = _ring_means(flat[row], ring_areas(size, edges * scale[row]))
    return out


def _ring_means(flat: np.ndarray, areas: np.ndarray) -> np.ndarray:
    weights = areas.reshape(len(areas), -1).T
    area = weights.sum(axis=0)
    # An area below a thousandth of a pixel is rounding.
    return np.where(area > 1e-3, flat @ weights / np.maximum(area, 1e-3), np.nan)


def profile_difference(
    first: np.ndarray,
    second: np.ndarray,
    ids: tuple[Sequence[Any], Sequence[Any]],
    bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, dict[float, np.ndarray], tuple[int, int, int]]:
    """Subtract the mean profiles of two models, with bootstrap limits over galaxies.

    A resample draws galaxies, not profiles: a galaxy in both samples is drawn equally often in both, so that common
    noise cancels. Galaxies that only one model assigns to the class are included.

    Parameters
    ----------
    first, second : array, shape (N, B) and (M, B)
        From `radial_profiles`.
    ids : pair of sequences, lengths N and M
        Unique ids of the galaxies.
    bootstrap : int
        Number of resamples.
    seed : int

    Returns
    -------
    difference : array, shape (B,)
    limits : dict of float to array, shape (2, B)
        Lower and upper limits for the central 0.68 and 0.95 of resamples.
    galaxies : tuple of int
        Numbers of galaxies in the first, the second, and both.

    Raises
    ------
    InputError
        If `bootstrap` is below 1.
    """
    if bootstrap < 1:
        raise InputError(f"bootstrap must be 1 or more; got {bootstrap}")
    known: dict[Any, int] = {}
    place_first, place_second = (np.array([known.setdefault(one, len(known)) for one in some]) for some in ids)
    n, m, every = len(first), len(second), len(known)
    rng = np.random.default_rng(seed)
    samples = [(place_first, *_filled(first)), (place_second, *_filled(second))]
    drawn = []
    for start in range(0, bootstrap, _RESAMPLES_AT_ONCE):
        how_many = min(_RESAMPLES_AT_ONCE, bootstrap - start)
        counts = rng.multinomial(every, np.full(every, 1 / every), size=how_many).astype(np.float64)
        means = [_ratio(counts[:, place] @ values, counts[:, place] @ there) for place, values, there in samples]
        drawn.append(means[0] - means[1])
    resamples = np.concatenate(drawn)
    point = [_ratio(values.sum(axis=0), there.sum(axis=0)) for _, values, there in samples]
    limits = {}
    for fraction in _LIMITS:
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a ring that no galaxy reaches
            limits[fraction] = np.nanquantile(resamples, [(1 - fraction) / 2, (1 + fraction) / 2], axis=0)
    return point[0] - point[1], limits, (n, m, n + m - every)


def _filled(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(profiles)
    return np.where(there, profiles, 0).astype(np.float64), there.astype(np.float64)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def aligned(maps: np.ndarray, angle: np.ndarray, radius: np.ndarray | None = None) -> np.ndarray:
    """Rotate each map so that the galaxy's major axis is along x, and scale it by the radius (bilinear).

    Parameters
    ----------
    maps : array, shape (N, S, S)
    angle : array, shape (N,)
        Angle of the major axis in radians, from +x (columns) towards +y (rows).
    radius : array, shape (N,), optional
        Radius in pixels; half the width of the result is then `REACH` radii. Default: not scaled.

    Returns
    -------
    array, shape (N, S, S)
        NaN outside of the image; all NaN if angle or radius is NaN.

    Examples
    --------
    >>> bar = np.zeros((1, 5, 5)); bar[0, :, 2] = 1
    >>> aligned(bar, np.array([np.pi / 2]))[0, 2].round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    n, side = maps.shape[:2]
    # Pixel centres of the result, from its centre, in units of half its width.
    axis = (2 * np.arange(side) + 1 - side) / side
    half = np.full(n, side / 2) if radius is None else REACH * radius
    out = np.empty_like(maps)
    for row in range(n):
        cosine, sine = np.cos(angle[row]), np.sin(angle[row])
        x = half[row] * (cosine * axis[None, :] - sine * axis[:, None]) + (side - 1) / 2
        y = half[row] * (sine * axis[None, :] + cosine * axis[:, None]) + (side - 1) / 2
        outside = (np.abs(x - (side - 1) / 2) > side / 2 + 1e-9) | (np.abs(y - (side - 1) / 2) > side / 2 + 1e-9)
        # Between the outermost pixel centres and the edge, use the outermost values.
        found = map_coordinates(maps[row], [y, x], order=1, mode="nearest", output=out.dtype)
        out[row] = np.where(outside | np.isnan(x), np.nan, found)
    return out
