"""What else is in a cutout: stars, distant galaxies, a companion now and then.

Counts a square arcminute are those of high galactic latitude, in round numbers: 2 stars brighter than r = 21, rising by
0.2 dex a magnitude, and 0.6 galaxies brighter than 21, rising by 0.45 dex.
"""

from __future__ import annotations

import numpy as np

from truemorph.simulate.light import sersic_light

_STARS, _STAR_SLOPE = 2.0, 0.20
_GALAXIES, _GALAXY_SLOPE = 0.6, 0.45
_REFERENCE, _FAINTEST, _BRIGHTEST = 21.0, 22.3, 13.0
_SPIKED = 14.0  # stars brighter than this show diffraction spikes
_COMPANIONS = 0.10  # share of galaxies with one
_STAMP = 24  # half side of a background galaxy's stamp, pixels


def _magnitudes(rng: np.random.Generator, area: float, density: float, slope: float) -> np.ndarray:
    """Magnitudes of a Poisson number of objects in an area (square arcmin)."""
    brightest, faintest = (10 ** (slope * (m - _REFERENCE)) for m in (_BRIGHTEST, _FAINTEST))
    number = rng.poisson(area * density * (faintest - brightest))
    return _REFERENCE + np.log10(rng.uniform(brightest, faintest, number)) / slope


def nanomaggies(magnitude: np.ndarray | float) -> np.ndarray:
    """Flux of an AB magnitude in nanomaggies."""
    return 10 ** (-0.4 * (np.asarray(magnitude) - 22.5))


def in_bands(r_flux: np.ndarray | float, g_r: np.ndarray | float, r_i: np.ndarray | float) -> np.ndarray:
    """Fluxes in i, r, g (red, green, blue of a picture), shape (3, ...)."""
    return np.stack(
        [r_flux * 10 ** (0.4 * np.asarray(r_i)), np.asarray(r_flux), r_flux * 10 ** (-0.4 * np.asarray(g_r))]
    )


def _add_points(light: np.ndarray, x: np.ndarray, y: np.ndarray, fluxes: np.ndarray) -> None:
    """Share each point's flux, shape (3, M), out to the four pixels around it."""
    size = light.shape[1]
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    inside = (left >= 0) & (top >= 0) & (left < size - 1) & (top < size - 1)
    left, top, fluxes = left[inside], top[inside], fluxes[:, inside]
    right_share, low_share = x[inside] - left, y[inside] - top
    for dy, dx, share in (
        (0, 0, (1 - low_share) * (1 - right_share)),
        (0, 1, (1 - low_share) * right_share),
        (1, 0, low_share * (1 - right_share)),
        (1, 1, low_share * right_share),
    ):
        for band, flux in zip(light, fluxes, strict=True):
            np.add.at(band, (top + dy, left + dx), (flux * share).astype(light.dtype))


def _add_galaxy(
    light: np.ndarray, pixel: float, x: float, y: float, fluxes: np.ndarray, shape: tuple[float, float, float, float]
) -> None:
    size = light.shape[1]
    column, row = round(x), round(y)
    index, radius, ratio, angle = shape
    half = int(min(_STAMP * max(1.0, radius / pixel / 4), size // 2 - 1))
    top, left = max(0, row - half), max(0, column - half)
    bottom, right = min(size, row + half), min(size, column + half)
    if top >= bottom or left >= right:
        return
    axis = (np.arange(-half, half, dtype=np.float32) + np.float32(0.5)) * np.float32(pixel)
    stamp = sersic_light(axis, index, radius, ratio, angle)
    stamp = stamp[top - row + half : bottom - row + half, left - column + half : right - column + half]
    light[:, top:bottom, left:right] += fluxes[:, None, None].astype(np.float32) * stamp


def add_surroundings(
    light: np.ndarray,
    pixel: float,
    side: float,
    magnitude: float,
    r50: float,
    rng: np.random.Generator,
    galaxy_colour: float,
) -> None:
    """Add stars and galaxies at random places, in place.

    Parameters
    ----------
    light : array, shape (3, S, S)
        Nanomaggies per square arcsec in i, r, g, before the PSF.
    pixel : float
        Side of a pixel, arcsec.
    side : float
        Side of the square of sky that is filled, arcsec; the same whatever the pixels.
    magnitude, r50 : float
        Of the galaxy in the middle, which a companion resembles (mag, arcsec).
    rng : numpy.random.Generator
    galaxy_colour : float
        g - r of the galaxy in the middle.
    """
    size = light.shape[1]
    area = (side / 60) ** 2
    middle = (size - 1) / 2

    def place(number: int) -> np.ndarray:
        return middle + rng.uniform(-0.5, 0.5, (2, number)) * (side / pixel)

    stars = _magnitudes(rng, area, _STARS, _STAR_SLOPE)
    where = place(stars.size)
    # Faint stars are mostly M dwarfs of the disk, bright ones F to K stars.
    red = rng.random(stars.size) < np.clip(0.10 + 0.07 * (stars - 14), 0.05, 0.6)
    g_r = np.where(red, rng.normal(1.35, 0.12, stars.size), rng.normal(0.5, 0.15, stars.size))
    r_i = np.where(red, rng.uniform(0.4, 1.2, stars.size), 0.4 * g_r)
    fluxes = in_bands(nanomaggies(stars), g_r, r_i) / pixel**2
    _add_points(light, where[0], where[1], fluxes)
    for x, y, flux in zip(*where[:, stars < _SPIKED], fluxes[:, stars < _SPIKED].T, strict=True):
        reach = np.arange(1, size // 3, dtype=np.float64)
        arm = 0.02 * flux[:, None] / (1 + reach) ** 1.5
        turn = rng.uniform(0, np.pi / 2)
        for quarter in range(4):
            angle = turn + quarter * np.pi / 2
            _add_points(light, x + reach * np.cos(angle), y + reach * np.sin(angle), arm)
    others = _magnitudes(rng, area, _GALAXIES, _GALAXY_SLOPE)
    for one in others:
        colour = rng.normal(0.8, 0.25)
        radius = float(np.clip(1.3 * 10 ** (-0.12 * (one - 20)) * rng.lognormal(0, 0.3), 0.3, 4))
        shape = (float(rng.choice([1.0, 2.5])), radius, float(rng.uniform(0.3, 1.0)), float(rng.uniform(0, np.pi)))
        x, y = place(1)[:, 0]
        _add_galaxy(light, pixel, x, y, in_bands(float(nanomaggies(one)), colour, 0.45 * colour), shape)
    if rng.random() < _COMPANIONS:
        distance, towards = rng.uniform(1.5, 6) * r50 / pixel, rng.uniform(0, 2 * np.pi)
        fainter = rng.exponential(1.2) + 0.3
        radius = float(r50 * 10 ** (-0.12 * fainter) * rng.lognormal(0, 0.25))
        shape = (float(rng.choice([1.0, 3.0])), radius, float(rng.uniform(0.25, 1.0)), float(rng.uniform(0, np.pi)))
        _add_galaxy(
            light,
            pixel,
            middle + distance * np.cos(towards),
            middle + distance * np.sin(towards),
            in_bands(float(nanomaggies(magnitude + fainter)), galaxy_colour + rng.normal(0, 0.12), 0.35),
            shape,
        )
