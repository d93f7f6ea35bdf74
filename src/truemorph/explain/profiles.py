"""Maps of many galaxies made one: mean maps, intensity against distance from the centre, differences (paper, Figs 5-7).

Plain arrays in, plain arrays out. Maps are in the pixels of the picture; its centre is ((S - 1) / 2, (S - 1) / 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from truemorph.errors import InputError

_RESAMPLES_AT_ONCE = 64
_MAPS_AT_ONCE = 256
_BANDS = (0.68, 0.95)


@dataclass(frozen=True)
class MeanMap:
    """Mean over galaxies.

    Attributes
    ----------
    mean, stderr : array, shape (S, S)
        NaN where no galaxy (one galaxy, for the error) has a value.
    count : array of int, shape (S, S)
        Galaxies that have a value in a pixel: aligned pictures don't reach everywhere.
    """

    mean: np.ndarray
    stderr: np.ndarray
    count: np.ndarray

    @property
    def galaxies(self) -> int:
        """Largest count."""
        return int(self.count.max(initial=0))


class MapSum:
    """Adds maps up, a batch at a time, in memory of one map.

    Parameters
    ----------
    size : int
        Side of the maps.
    """

    def __init__(self, size: int) -> None:
        self._sum, self._squares = np.zeros((size, size)), np.zeros((size, size))
        self._count = np.zeros((size, size), np.int64)

    def add(self, maps: np.ndarray) -> None:
        """Add maps, shape (N, S, S); NaN counts for nothing."""
        there = np.isfinite(maps)
        values = np.where(there, maps, 0).astype(np.float64)
        self._sum += values.sum(axis=0)
        self._squares += (values**2).sum(axis=0)
        self._count += there.sum(axis=0)

    def mean(self) -> MeanMap:
        """Mean of what was added."""
        mean, stderr = _mean_and_error(self._sum, self._squares, self._count)
        return MeanMap(mean, stderr, self._count.copy())


@dataclass(frozen=True)
class Profile:
    """Mean intensity in rings around the centre.

    Attributes
    ----------
    edges : array, shape (B + 1,)
    mean, stderr : array, shape (B,)
        Mean over galaxies of each one's mean in the ring, and its error from their scatter; NaN where none reaches.
    counts : array of int, shape (B,)
        Galaxies whose picture reaches the ring.
    unit : str
        Of the edges.
    """

    edges: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray
    counts: np.ndarray
    unit: str

    @property
    def middles(self) -> np.ndarray:
        """Of the rings, shape (B,)."""
        return (self.edges[1:] + self.edges[:-1]) / 2


@dataclass(frozen=True)
class ProfileDifference:
    """Profile of one model less that of another.

    Attributes
    ----------
    edges : array, shape (B + 1,)
    difference : array, shape (B,)
    bands : dict of float to array, shape (2, B)
        Lower and upper limit by share of bootstrap resamples between them, 0.68 and 0.95.
    galaxies : tuple of int
        Of the first, of the second, and of both.
    unit : str
    """

    edges: np.ndarray
    difference: np.ndarray
    bands: dict[float, np.ndarray]
    galaxies: tuple[int, int, int]
    unit: str

    @property
    def middles(self) -> np.ndarray:
        """Of the rings, shape (B,)."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    def significant(self, share: float = 0.95) -> np.ndarray:
        """Rings whose band leaves zero out, shape (B,) of bool."""
        low, high = self.bands[share]
        return (low > 0) | (high < 0)


def _mean_and_error(total: np.ndarray, squares: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = np.maximum(count, 1)
    mean = total / n
    # Of two galaxies or more; rounding may leave a variance below zero.
    variance = np.clip(squares - n * mean**2, 0, None) / np.maximum(count - 1, 1)
    return np.where(count > 0, mean, np.nan), np.where(count > 1, np.sqrt(variance / n), np.nan)


def _within(x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Area of the rectangle from the origin to (x, y), both ≥ 0, that lies in a circle around the origin."""
    x, y = np.minimum(x, radius), np.minimum(y, radius)
    # The circle comes down through the rectangle's top at `left`.
    left = np.minimum(np.sqrt(np.clip(radius**2 - y**2, 0, None)), x)

    def below(t: np.ndarray) -> np.ndarray:
        """Area under the circle from 0 to t."""
        angle = np.arcsin(np.clip(t / np.maximum(radius, 1e-300), 0, 1))
        return (t * np.sqrt(np.clip(radius**2 - t**2, 0, None)) + radius**2 * angle) / 2

    return left * y + below(x) - below(left)


def ring_areas(size: int, edges: np.ndarray) -> np.ndarray:
    """Area of each pixel in each ring, exact.

    Parameters
    ----------
    size : int
        Pixels on a side, S.
    edges : array, shape (..., B + 1)
        Radii, pixels, ascending.

    Returns
    -------
    array, shape (..., B, S, S)
        Square pixels; what lies in a ring and in no pixel counts nowhere.

    Examples
    --------
    >>> ring_areas(8, np.array([0.0, 3.0])).sum().round(6)  # π 3²
    np.float64(28.274334)
    """
    # One quadrant: the picture is symmetric around its centre. In the middle column of an odd side, pixels are halves.
    corners = np.arange(size % 2, size + 1, 2) / 2 if size % 2 else np.arange(size // 2 + 1, dtype=float)
    if size % 2:
        corners = np.concatenate([[0.0], corners])
    radius = np.asarray(edges, np.float64)[..., None, None]
    inside = _within(corners[:, None], corners[None, :], radius)
    quadrant = np.diff(np.diff(np.diff(inside, axis=-1), axis=-2), axis=-3)
    if size % 2:
        quadrant[..., 0, :] *= 2
        quadrant[..., :, 0] *= 2
    half = np.concatenate([quadrant[..., ::-1, :][..., : size // 2, :], quadrant], axis=-2)
    return np.concatenate([half[..., ::-1][..., : size // 2], half], axis=-1)


def radial_profiles(maps: np.ndarray, edges: Any, scale: Any = None) -> np.ndarray:
    """Mean intensity of each map in rings around the centre of the picture.

    Parameters
    ----------
    maps : array, shape (N, S, S)
        Finite, or NaN where there is no value.
    edges : array-like, shape (B + 1,)
        Of the rings, ascending; pixels, or units of `scale`.
    scale : array-like, shape (N,), optional
        Pixels of the unit, galaxy by galaxy (R_petro, say). NaN where it isn't known: that row is NaN.

    Returns
    -------
    array, shape (N, B)
        Weighted by the area that a pixel and a ring share. Of rings that leave the picture, the part in it; NaN where
        no part is.

    Raises
    ------
    InputError
        If edges don't ascend from 0 or above, or a scale isn't positive.
    """
    edges = np.asarray(edges, np.float64)
    if edges.ndim != 1 or edges.size < 2 or not np.isfinite(edges).all() or edges[0] < 0 or np.any(np.diff(edges) <= 0):
        raise InputError(f"edges of rings should ascend from 0 or above, two at least; got {edges.tolist()}")
    n, size = maps.shape[:2]
    out = np.full((n, edges.size - 1), np.nan)
    if scale is None:
        areas = ring_areas(size, edges)
        for start in range(0, n, _MAPS_AT_ONCE):
            rows = slice(start, start + _MAPS_AT_ONCE)
            out[rows] = _weighted(maps[rows], areas)
        return out
    scale = np.broadcast_to(np.asarray(scale, np.float64), (n,))
    if np.any(scale <= 0):
        raise InputError(f"scale is a radius in pixels, above 0; got {scale[scale <= 0][0]:g}")
    for row in np.flatnonzero(np.isfinite(scale)):
        out[row] = _weighted(maps[row : row + 1], ring_areas(size, edges * scale[row]))[0]
    return out


def _weighted(maps: np.ndarray, areas: np.ndarray) -> np.ndarray:
    weights = areas.reshape(len(areas), -1).T
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    there = np.isfinite(flat)
    total = np.where(there, flat, 0) @ weights
    # All pixels are there but in aligned maps.
    area = there.astype(np.float64) @ weights if not there.all() else np.broadcast_to(weights.sum(axis=0), total.shape)
    # Less than a thousandth of a pixel is rounding.
    return np.where(area > 1e-3, total / np.maximum(area, 1e-3), np.nan)


def mean_profile(profiles: np.ndarray, edges: Any, unit: str) -> Profile:
    """Mean over galaxies.

    Parameters
    ----------
    profiles : array, shape (N, B)
        From `radial_profiles`.
    edges : array-like, shape (B + 1,)
    unit : str
    """
    there = np.isfinite(profiles)
    values, counts = np.where(there, profiles, 0), there.sum(axis=0)
    total, squares = values.sum(axis=0), (values**2).sum(axis=0)
    mean, stderr = _mean_and_error(total, squares, counts)
    return Profile(np.asarray(edges, np.float64), mean, stderr, counts, unit)


def profile_difference(
    first: np.ndarray,
    second: np.ndarray,
    edges: Any,
    unit: str,
    ids: tuple[Sequence[Any], Sequence[Any]] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> ProfileDifference:
    """Mean profile of one model less that of another, with bootstrap bands over galaxies.

    A resample draws galaxies, not profiles: one that is in both samples comes equally often in both, so that what both
    models see of it alike cancels. Galaxies that one model alone puts into the class count where they are.

    Parameters
    ----------
    first, second : array, shape (N, B) and (M, B)
        From `radial_profiles`.
    edges : array-like, shape (B + 1,)
    unit : str
    ids : pair of sequences, lengths N and M, optional
        Which galaxies they are; default all different.
    bootstrap : int
        Resamples; multinomial counts.
    seed : int

    Raises
    ------
    InputError
        If a sample is empty or names a galaxy twice, or there are no resamples.
    """
    n, m = len(first), len(second)
    if not n or not m:
        raise InputError("a difference needs galaxies of both models")
    if bootstrap < 1:
        raise InputError(f"bootstrap is a number of resamples, 1 or more; got {bootstrap}")
    if ids is None:
        place_first, place_second, every = np.arange(n), n + np.arange(m), n + m
    else:
        known: dict[Any, int] = {}
        place_first, place_second = (np.array([known.setdefault(one, len(known)) for one in some]) for some in ids)
        every = len(known)
        if len(set(place_first)) < n or len(set(place_second)) < m:
            raise InputError("a galaxy comes twice in one sample; give each once")
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
    bands = {share: _band(resamples, share) for share in _BANDS}
    both = n + m - every
    return ProfileDifference(np.asarray(edges, np.float64), point[0] - point[1], bands, (n, m, both), unit)


def _filled(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(profiles)
    return np.where(there, profiles, 0).astype(np.float64), there.astype(np.float64)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _band(resamples: np.ndarray, share: float) -> np.ndarray:
    """Limits that hold this share of the resamples, shape (2, B); NaN where there are none."""
    band = np.full((2, resamples.shape[1]), np.nan)
    for ring in range(resamples.shape[1]):
        found = resamples[np.isfinite(resamples[:, ring]), ring]
        if found.size:
            band[:, ring] = np.quantile(found, [(1 - share) / 2, (1 + share) / 2])
    return band


def aligned(
    maps: np.ndarray,
    angle: np.ndarray | None = None,
    radius: np.ndarray | None = None,
    size: int | None = None,
    extent: float = 2.0,
) -> np.ndarray:
    """Turn each map until its galaxy's major axis lies along x, and scale it by its radius; bilinear.

    Parameters
    ----------
    maps : array, shape (N, S, S)
    angle : array, shape (N,), optional
        Of the major axis, radians, from +x (columns) towards +y (rows). Default: not turned.
    radius : array, shape (N,), optional
        Pixels. Default: not scaled.
    size : int, optional
        Side of the maps that come out; default S.
    extent : float
        With `radius`: half a side of these, in radii.

    Returns
    -------
    array, shape (N, size, size)
        NaN outside of the picture, and all over where angle or radius is NaN.

    Examples
    --------
    >>> bar = np.zeros((1, 5, 5)); bar[0, :, 2] = 1
    >>> aligned(bar, np.array([np.pi / 2]))[0, 2].round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    n, side = maps.shape[:2]
    size = side if size is None else size
    # Pixel centres of the result, from its centre, in units of half its side.
    axis = (2 * np.arange(size) + 1 - size) / size
    half = np.full(n, side / 2) if radius is None else extent * np.asarray(radius, np.float64)
    turn = np.zeros(n) if angle is None else np.asarray(angle, np.float64)
    out = np.empty((n, size, size), maps.dtype if maps.dtype.kind == "f" else np.float64)
    for row in range(n):
        cosine, sine = np.cos(turn[row]), np.sin(turn[row])
        x = half[row] * (cosine * axis[None, :] - sine * axis[:, None]) + (side - 1) / 2
        y = half[row] * (sine * axis[None, :] + cosine * axis[:, None]) + (side - 1) / 2
        out[row] = _bilinear(maps[row], x, y)
    return out


def _bilinear(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values at places in pixels; NaN outside of the picture, and at places that are NaN."""
    side = len(values)
    # A pixel reaches half a pixel beyond its centre; rounding may go a little farther.
    inside = (np.abs(x - (side - 1) / 2) <= side / 2 + 1e-9) & (np.abs(y - (side - 1) / 2) <= side / 2 + 1e-9)
    x, y = (np.clip(np.where(inside, one, 0), 0, side - 1) for one in (x, y))
    left, top = (np.minimum(one.astype(np.int64), max(side - 2, 0)) for one in (x, y))
    right, below = np.minimum(left + 1, side - 1), np.minimum(top + 1, side - 1)
    across, down = x - left, y - top
    upper = values[top, left] * (1 - across) + values[top, right] * across
    lower = values[below, left] * (1 - across) + values[below, right] * across
    return np.where(inside, upper * (1 - down) + lower * down, np.nan)
