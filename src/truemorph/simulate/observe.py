"""Images of simulated galaxies as annotators see them: cutout scaled by radius, PSF, colour, noise, JPEG.

A plain FFT renderer. The cutout reaches 2.1 Petrosian radii from the centre, what the central crop of a Galaxy
Zoo 2 image shows, so the PSF is R_petro / α in pixels: what resolution does to a galaxy is in the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy import fft
from scipy.special import gammaincinv

from truemorph.catalogs.resolution import FWHM_PER_SIGMA
from truemorph.simulate.galaxies import petrosian_over_effective

CUTOUT_RADII = 2.1
_MOFFAT_BETA = 3.0
# Asinh stretch (Lupton et al. 2004): softening, and the surface brightness that comes out white.
_SOFTENING, _WHITE = 8.0, 0.9


def _sersic(radius: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Sérsic profile of unit total light per R_e², radius in R_e; softened inside a twentieth of R_e."""
    b = gammaincinv(2 * index, 0.5)
    return np.exp(-b * ((radius**2 + 0.05**2) ** (0.5 / index)))


def _components(g: dict[str, np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Bulge and disk light, each summing to its share of the galaxy, shape (n, size, size)."""
    axis = (np.arange(size) - (size - 1) / 2) * (2 * CUTOUT_RADII / size)  # in Petrosian radii
    y, x = axis[None, :, None], axis[None, None, :]
    cos, sin = np.cos(g["position_angle"]), np.sin(g["position_angle"])
    along, across = x * cos + y * sin, (y * cos - x * sin)
    in_disk_plane = np.hypot(along, across / g["axis_ratio"])
    azimuth = np.arctan2(across / g["axis_ratio"], along)
    # A bulge is rounder than the disk it sits in; a smooth galaxy is all bulge and keeps its axis ratio.
    roundness = np.where(g["bulge_fraction"] < 1, np.maximum(g["axis_ratio"], 0.6), g["axis_ratio"])
    in_bulge = np.hypot(along, across / roundness)
    size_ratio = np.where(g["bulge_fraction"] < 1, g["bulge_size"], 1.0)
    bulge = _sersic(in_bulge * petrosian_over_effective(g["sersic_index"]) * size_ratio, g["sersic_index"])
    disk_radius = in_disk_plane * petrosian_over_effective(np.array(1.0))
    winding = np.log(np.maximum(in_disk_plane, 0.03)) / np.tan(g["pitch"])
    wave = np.cos(g["arm_number"] * (azimuth - winding) + g["arm_phase"])
    beyond_bulge = 1 - np.exp(-((in_disk_plane / 0.25) ** 2))
    disk = _sersic(disk_radius, np.ones_like(g["pitch"])) * (1 + g["arm_strength"] * beyond_bulge * wave)
    share = g["bulge_fraction"]
    bulge *= share / bulge.sum(axis=(1, 2), keepdims=True)
    disk *= (1 - share) / disk.sum(axis=(1, 2), keepdims=True)
    return bulge, disk


def _moffat(sigma: np.ndarray, size: int) -> np.ndarray:
    """Centred-at-origin Moffat kernels of the given Gaussian-equivalent σ in pixels, shape (n, size, size)."""
    scale = sigma * FWHM_PER_SIGMA / (2 * np.sqrt(2 ** (1 / _MOFFAT_BETA) - 1))
    offset = np.fft.fftfreq(size, 1 / size)
    squared = offset[:, None] ** 2 + offset[None, :] ** 2
    kernel = (1 + squared[None] / scale**2) ** -_MOFFAT_BETA
    return kernel / kernel.sum(axis=(1, 2), keepdims=True)


def _render_batch(frame: pl.DataFrame, size: int, rng: np.random.Generator) -> np.ndarray:
    numeric = frame.select(pl.all().exclude("object_id"))
    g = {name: numeric[name].to_numpy().astype(np.float64)[:, None, None] for name in numeric.columns}
    bulge, disk = _components(g, size)
    sigma = size / (2 * CUTOUT_RADII) / g["alpha"]
    # Twice the cutout, so that light spread by the PSF doesn't come back in at the other edge.
    padded = 2 * size
    transfer = fft.rfft2(_moffat(sigma, padded), workers=-1)

    def blurred(light: np.ndarray) -> np.ndarray:
        spread = fft.irfft2(fft.rfft2(light, s=(padded, padded), workers=-1) * transfer, workers=-1)
        return spread[:, :size, :size]

    bulge, disk = blurred(bulge), blurred(disk)
    # Bulges of disks are redder than the disks; a smooth galaxy has one colour.
    bulge_colour = np.where(g["bulge_fraction"] < 1, np.maximum(g["colour"], 1.0), g["colour"])
    disk_colour = g["colour"]
    bands = []
    for slope in (0.5, 0.0, -0.5):  # i, r, g as red, green, blue
        bands.append(bulge * 10 ** (0.4 * slope * bulge_colour) + disk * 10 ** (0.4 * slope * disk_colour))
    light = np.stack(bands, axis=-1)
    # Light per pixel relative to the mean surface brightness inside the Petrosian radius; noise to match.
    mean_brightness = 1 / (np.pi * (size / (2 * CUTOUT_RADII)) ** 2)
    light /= mean_brightness
    noise = rng.normal(size=light.shape) / g["signal_to_noise"][..., None] * 2
    light += noise
    intensity = np.maximum(light.mean(axis=-1, keepdims=True), 1e-3)
    stretched = np.arcsinh(_SOFTENING * intensity) / np.arcsinh(_SOFTENING * 6 * _WHITE)
    rgb = np.clip(light * stretched / intensity, 0, 1)
    return np.round(rgb * 255).astype(np.uint8)


def render(galaxies: pl.DataFrame, size: int = 64, seed: int = 0, batch: int = 128) -> Iterator[tuple[int, np.ndarray]]:
    """Draw galaxies.

    Parameters
    ----------
    galaxies : polars.DataFrame
        From `simulate_galaxies`.
    size : int
        Pixels on a side; a cutout reaches 2.1 Petrosian radii from the centre.
    seed : int
        Seed of the noise; the same galaxies, size, batch and seed give the same pixels.
    batch : int
        Galaxies drawn together.

    Yields
    ------
    row : int
        Row of the galaxy.
    image : array of uint8, shape (size, size, 3)

    Examples
    --------
    >>> from truemorph.simulate.galaxies import simulate_galaxies
    >>> row, image = next(render(simulate_galaxies(2), size=32))
    >>> image.shape
    (32, 32, 3)
    """
    rng = np.random.default_rng([seed, 1])
    for start in range(0, galaxies.height, batch):
        for offset, image in enumerate(_render_batch(galaxies[start : start + batch], size, rng)):
            yield start + offset, image
