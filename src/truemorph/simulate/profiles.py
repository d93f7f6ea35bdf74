"""Light profiles of galaxies: Sérsic laws, and the radii that SDSS measures on them in circular apertures.

Sérsic (1963) profiles follow Graham & Driver (2005, PASA 22, 118); the Petrosian radius is where the local surface
brightness is 0.2 of the mean inside, and R50 and R90 hold 50 and 90 % of the light inside two Petrosian radii
(Strauss et al. 2002, AJ 124, 1810).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.special import gamma, gammainc, gammaincinv

_PETROSIAN_RATIO = 0.2
_INDICES = np.linspace(0.5, 6.5, 61)
# ln(r / R_e), and how far inside and outside the tables reach.
_LOG_RADII = np.linspace(np.log(1e-4), np.log(1e3), 400)
_ANGLES = 8


def sersic_b(index: np.ndarray | float) -> np.ndarray:
    """Constant b of a Sérsic law, for which R_e holds half of the light."""
    return gammaincinv(2 * np.asarray(index, dtype=np.float64), 0.5)


def sersic_area(index: np.ndarray | float) -> np.ndarray:
    """Light of a round Sérsic law exp(-b (r/R_e)^(1/n)) of unit central brightness, in units of R_e²."""
    index = np.asarray(index, dtype=np.float64)
    return 2 * np.pi * index * sersic_b(index) ** (-2 * index) * gamma(2 * index)


@cache
def _growth_table() -> np.ndarray:
    """Share of the light inside r, by n and ln(r / R_e)."""
    n = _INDICES[:, None]
    return gammainc(2 * n, sersic_b(n) * np.exp(_LOG_RADII / n))


def light_inside(index: np.ndarray, log_radius: np.ndarray) -> np.ndarray:
    """Share of a Sérsic profile's light inside a circle, from a table; `log_radius` is ln(r / R_e)."""
    at_index = (index - _INDICES[0]) / (_INDICES[1] - _INDICES[0])
    at_radius = (log_radius - _LOG_RADII[0]) / (_LOG_RADII[1] - _LOG_RADII[0])
    where = np.broadcast_arrays(at_index, at_radius)
    return map_coordinates(_growth_table(), where, order=1, mode="nearest")


def _crossing(rising: np.ndarray, level: np.ndarray | float, grid: np.ndarray) -> np.ndarray:
    """Where rows of non-decreasing values first reach a level, straight between grid points."""
    level = np.broadcast_to(level, rising.shape[:1])[:, None]
    after = np.clip((rising < level).sum(axis=1), 1, grid.size - 1)
    rows = np.arange(rising.shape[0])
    low, high = rising[rows, after - 1], rising[rows, after]
    share = np.clip((level[:, 0] - low) / np.maximum(high - low, 1e-12), 0, 1)
    return grid[after - 1] + share * (grid[after] - grid[after - 1])


def aperture_radii(
    bulge_fraction: np.ndarray,
    bulge_radius: np.ndarray,
    bulge_index: np.ndarray,
    bulge_axis_ratio: np.ndarray,
    disk_scale: np.ndarray,
    axis_ratio: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radii of a bulge and an inclined exponential disk, as circular apertures see them, before the PSF.

    Parameters
    ----------
    bulge_fraction : array, shape (N,)
        Share of the light in the bulge; 1 for a galaxy without a disk.
    bulge_radius : array, shape (N,)
        R_e of the bulge along its major axis.
    bulge_index : array, shape (N,)
        Its Sérsic index, 0.5 to 6.5.
    bulge_axis_ratio : array, shape (N,)
    disk_scale : array, shape (N,)
        Exponential scale length of the disk, in the unit of `bulge_radius`.
    axis_ratio : array, shape (N,)
        Of the disk as projected.

    Returns
    -------
    r50, r90, r_petro : arrays, shape (N,)
        In the unit of `bulge_radius`.

    Examples
    --------
    >>> one = np.ones(1)
    >>> r50, r90, r_petro = aperture_radii(0 * one, one, 4 * one, one, one, one)
    >>> (r_petro / r90).round(2), (r_petro / r50).round(2)  # of an exponential disk
    (array([0.95]), array([2.17]))
    """
    grid = np.linspace(np.log(2e-3), np.log(40.0), 160)
    angle = (np.arange(_ANGLES) + 0.5) * (np.pi / 2 / _ANGLES)
    # An ellipse of light is spread evenly in its eccentric angle, at these distances from the centre.
    cos2, sin2 = np.cos(angle) ** 2, np.sin(angle) ** 2
    scale = np.where(bulge_fraction < 1, disk_scale, bulge_radius)
    disk_half = 1.678347  # R_e of an exponential disk in scale lengths
    growth = np.zeros((bulge_fraction.size, grid.size))
    parts = (
        (bulge_fraction, bulge_radius, bulge_index, bulge_axis_ratio),
        (1 - bulge_fraction, disk_half * disk_scale, np.ones_like(disk_scale), axis_ratio),
    )
    for share, radius, index, ratio in parts:
        used = np.flatnonzero(share > 0)
        for c2, s2 in zip(cos2, sin2, strict=True):
            stretch = np.log(radius[used] / scale[used]) + 0.5 * np.log(c2 + ratio[used] ** 2 * s2)
            inside = light_inside(index[used, None], grid[None] - stretch[:, None])
            growth[used] += share[used, None] * inside / _ANGLES
    # The local brightness over the mean inside is half the slope of ln F against ln r.
    slope = 0.5 * np.gradient(np.log(np.maximum(growth, 1e-12)), grid, axis=1)
    petrosian = _crossing(np.maximum.accumulate(-slope, axis=1), -_PETROSIAN_RATIO, grid)
    at_twice = (petrosian + np.log(2) - grid[0]) / (grid[1] - grid[0])
    total = map_coordinates(growth, [np.arange(growth.shape[0]), at_twice], order=1, mode="nearest")
    r50, r90 = (np.exp(_crossing(growth, part * total, grid)) * scale for part in (0.5, 0.9))
    return r50, r90, np.exp(petrosian) * scale
