"""Images of simulated galaxies as annotators see them: cutout scaled by radius, PSF, colour, noise, 8 bits.

Galaxy Zoo 2 shows 424×424 pixels, scaled by R90 and resampled from SDSS frames of 0.396 arcsec (Willett et al.
2013); the PSF's size in pixels, the grain of the noise and how many stars are about follow from the galaxy's
radius. All blurring is a product of transfer functions: atmosphere and telescope (Moffat), and the interpolation of
the frame's pixels, which also correlates the noise. Colour and stretch are Lupton et al.'s (2004, PASP 116, 133):
red, green and blue are i, r and g, stretched together by an asinh of their mean; its constants were chosen so that
brightness profiles and background noise equal those of real Galaxy Zoo 2 JPEGs (docs/simulator.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
from scipy import fft

from truemorph.errors import InputError
from truemorph.images.psf import moffat_transfer
from truemorph.images.stretch import stretch
from truemorph.simulate.light import Galaxy, components
from truemorph.simulate.surroundings import add_surroundings, in_bands, nanomaggies

GZ2_SIZE = 424
# Side of a Galaxy Zoo 2 cutout. Growth curves of real ones put R90 at 67 of 424 pixels, not at the 50 of their
# stated scale.
FIELD_R90 = 6.3
CENTRAL_R90 = FIELD_R90 * 207 / GZ2_SIZE  # side of what the paper's crop keeps of it
FRAME_PIXEL = 0.396  # arcsec
# Sky noise of a frame's pixel in i, r, g, nanomaggies; the PSF's width in i, r, g relative to r.
_SKY_NOISE = (0.032, 0.022, 0.015)
_BAND_WIDTHS = (0.95, 1.0, 1.08)
_MISALIGNED = 0.12  # rms shift of i and g against r, frame pixels
_MARGIN = 1.12  # the grid drawn on, relative to the cutout: light comes and goes over its edges
_SAMPLING = 2.2  # pixels of that grid a PSF FWHM, at least


def _band_colours(galaxy: Galaxy) -> np.ndarray:
    """Fluxes of bulge, disk and young stars in i, r, g for unit r light, shape (3 bands, 3 components)."""
    z = galaxy["redshift"]
    rest = np.array([galaxy["g_r_bulge"], galaxy["g_r_disk"], galaxy["g_r_young"]])
    # Redder with redshift, old stars more so (K corrections, Chilingarian et al. 2010, roughly); r - i follows g - r.
    g_r = rest + (2.6 * np.clip(rest, 0, 0.8) - 0.1) * z
    return in_bands(np.ones(3), g_r, 0.08 + 0.42 * rest + 0.5 * z)


def _expose(
    galaxy: Galaxy,
    size: int,
    field: float,
    arms: np.random.Generator,
    around: np.random.Generator,
    noise: np.random.Generator,
) -> np.ndarray:
    """One image in i, r, g, shape (3, size, size), nanomaggies a frame pixel, noise included."""
    pixel = field * galaxy["r90"] / size
    finer = int(np.clip(np.ceil(_SAMPLING * pixel / galaxy["psf_fwhm"]), 1, 6))
    fine = pixel / finer
    grid = fft.next_fast_len(int(_MARGIN * size * finer), real=True)
    grid += (grid - size * finer) % 2  # the galaxy sits in the middle of both
    axis = (np.arange(grid, dtype=np.float32) - np.float32((grid - 1) / 2)) * np.float32(fine)
    parts = components(galaxy, axis, fine, arms)
    colours = (_band_colours(galaxy) * float(nanomaggies(galaxy["magnitude"]))).astype(np.float32)
    light = np.stack([sum(c * part for c, part in zip(row, parts, strict=True)) for row in colours])
    colour = galaxy["g_r_disk"] if galaxy["bulge_fraction"] < 0.5 else galaxy["g_r_bulge"]
    side = _MARGIN * field * galaxy["r90"]
    add_surroundings(light, fine, side, galaxy["magnitude"], galaxy["r50"], around, colour)

    along = fft.rfftfreq(grid, fine).astype(np.float32)
    across = fft.fftfreq(grid, fine).astype(np.float32)
    squared = across[:, None] ** 2 + along[None, :] ** 2
    interpolation = np.sinc(across * FRAME_PIXEL)[:, None] ** 2 * np.sinc(along * FRAME_PIXEL)[None, :] ** 2
    shifts = noise.normal(0, _MISALIGNED * FRAME_PIXEL, (3, 2)) * [[1], [0], [1]]
    spectrum = fft.rfft2(light, axes=(1, 2))
    for band, (width, (dx, dy)) in enumerate(zip(_BAND_WIDTHS, shifts, strict=True)):
        transfer = moffat_transfer(squared, width * galaxy["psf_fwhm"]) * interpolation
        spectrum[band] *= transfer
        if dx or dy:
            spectrum[band] *= np.exp(-2j * np.pi * across * dy).astype(np.complex64)[:, None]
            spectrum[band] *= np.exp(-2j * np.pi * along * dx).astype(np.complex64)[None, :]
    blurred = fft.irfft2(spectrum, s=(grid, grid), axes=(1, 2))
    edge = (grid - size * finer) // 2
    inner = blurred[:, edge : edge + size * finer, edge : edge + size * finer]
    image = inner.reshape(3, size, finer, size, finer).mean(axis=(2, 4)) * np.float32(FRAME_PIXEL**2)
    return image + _noise(size, pixel, noise)


def _noise(size: int, pixel: float, rng: np.random.Generator) -> np.ndarray:
    """Sky noise of frames of 0.396 arcsec a pixel, interpolated to another scale, shape (3, size, size)."""
    along, across = fft.rfftfreq(size, pixel).astype(np.float32), fft.fftfreq(size, pixel).astype(np.float32)

    def passed(frequency: np.ndarray) -> np.ndarray:
        through = np.sinc(frequency * FRAME_PIXEL) ** 2
        return through * np.sinc(frequency * pixel) if pixel > FRAME_PIXEL else through

    white = rng.standard_normal((3, size, size), dtype=np.float32)
    spectrum = fft.rfft2(white, axes=(1, 2)) * (passed(across)[:, None] * passed(along)[None, :])
    grain = fft.irfft2(spectrum, s=(size, size), axes=(1, 2)) * np.float32(FRAME_PIXEL / pixel)
    depth = np.float32(rng.lognormal(0, 0.12))  # of this field
    return grain * (depth * np.array(_SKY_NOISE, np.float32))[:, None, None]


def render(
    galaxies: pl.DataFrame,
    size: int = 64,
    seed: int = 0,
    *,
    field: float = CENTRAL_R90,
    exposure: int = 0,
    threads: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Draw galaxies.

    Parameters
    ----------
    galaxies : polars.DataFrame
        From `simulate_galaxies`.
    size : int
        Pixels on a side.
    seed : int
        Arms, surroundings and noise of a galaxy follow from this and its `object_id` alone: the same seed gives the
        same pixels, whatever is drawn beside it and by however many threads.
    field : float
        Side of the image in R90: what the paper's central crop keeps by default, `FIELD_R90` for the whole Galaxy Zoo 2
        cutout.
    exposure : int
        Another number is another night: noise and the bands' alignment are drawn anew, the sky behind stays.
    threads : int, optional
        Default: one a core.

    Yields
    ------
    row : int
        Row of the galaxy.
    image : array of uint8, shape (size, size, 3)

    Raises
    ------
    InputError
        If the size is below 16 pixels or the field is not positive.

    Examples
    --------
    >>> from truemorph.simulate.galaxies import simulate_galaxies
    >>> row, image = next(render(simulate_galaxies(2), size=32))
    >>> image.shape
    (32, 32, 3)
    """
    if size < 16 or not field > 0:
        raise InputError(f"an image has at least 16 pixels a side and a positive field; got {size} and {field}")
    names = [name for name in galaxies.columns if galaxies.schema[name].is_numeric()]

    def draw(row: int) -> np.ndarray:
        galaxy = galaxies.row(row, named=True)
        arms, around = (np.random.default_rng([seed, part, galaxy["object_id"]]) for part in (1, 2))
        noise = np.random.default_rng([seed, 3, galaxy["object_id"], exposure])
        return stretch(_expose({name: galaxy[name] for name in names}, size, field, arms, around, noise))

    count = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        ahead = 8 * count
        for start in range(0, galaxies.height, ahead):
            rows = range(start, min(start + ahead, galaxies.height))
            yield from zip(rows, pool.map(draw, rows), strict=True)
