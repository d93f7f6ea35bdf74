"""Degrade images to a lower resolution: blur, coarser pixels and matching noise.

For images of real galaxies, which can't be simulated again. A degraded image at lower α shows what annotators and
classifiers would have seen if the galaxy were more distant or the seeing worse.
"""

from typing import Literal

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter, zoom

from truemorph.arrays import float_array
from truemorph.catalogs.physical import FWHM_PER_SIGMA
from truemorph.errors import InputError
from truemorph.images.stretch import stretch, unstretch

# SDSS frames have about three pixels (0.396 arcsec) per PSF FWHM.
_PIXELS_PER_SIGMA = 1.4
_BORDER = 0.1
_SMOOTH = 3.0  # pixels


def degrade(
    images: np.ndarray,
    alpha: np.ndarray | float,
    to_alpha: np.ndarray | float,
    radius: np.ndarray | float,
    seed: int = 0,
    *,
    how: Literal["distance", "seeing"] = "distance",
) -> np.ndarray:
    """Degrade the resolution of images from α to `to_alpha`.

    This is done on a linear flux scale: the PSF (Moffat, β = 3.5) is replaced by a wider one, the result is averaged
    over coarser camera pixels, noise is added, and the image is stretched again. Flux above saturation (white) can't be
    recovered.

    Parameters
    ----------
    images : array of uint8, shape (N, S, S, 3)
    alpha : array, shape (N,)
        Resolution R_petro / σ_PSF of the images; infinite if the PSF is negligible.
    to_alpha : array, shape (N,)
        Target resolution; images that are not above it are returned unchanged.
    radius : array, shape (N,), or float
        R_petro in pixels of the image.
    seed : int
        Seed of the noise.
    how : {"distance", "seeing"}
        "distance": the galaxy is farther away. Camera pixels (1.4 per σ_PSF, as in SDSS) become coarser relative to the
        galaxy, so that noise is averaged less. In surveys, α decreases mostly with distance, so a classifier can tell
        the resolution from the noise alone. "seeing": the seeing is worse with the same pixels, and no flux is lost. If
        α is infinite, the original noise is unknown, and a coarse pixel gets the noise of an original pixel.

    Returns
    -------
    array of uint8, shape (N, S, S, 3)

    Raises
    ------
    InputError
        If shapes disagree or a resolution is not positive.

    Examples
    --------
    >>> sharp = np.zeros((1, 32, 32, 3), np.uint8)
    >>> sharp[0, 16, 16] = 200
    >>> int(degrade(sharp, np.array([np.inf]), np.array([5.0]), 10.0)[0, 16, 16, 0]) < 100
    True
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise InputError(f"images must be uint8 of shape (N, S, S, 3); got {images.dtype} {images.shape}")
    if how not in ("distance", "seeing"):
        raise InputError(f'how must be "distance" or "seeing"; got {how!r}')
    n = len(images)
    given = [*map(float_array, (alpha, to_alpha, radius), ("alpha", "to_alpha", "radius"))]
    if any(values.shape not in ((), (n,)) for values in given):
        raise InputError(f"alpha, to_alpha and radius must be numbers, or have shape ({n},), one per image")
    alpha, to_alpha, radii = (np.broadcast_to(values, n) for values in given)
    if not (np.all(alpha > 0) and np.all(to_alpha > 0) and np.all((radii > 0) & (radii < 4 * images.shape[1]))):
        raise InputError("alpha, to_alpha and radius must be positive, and radius below four image widths")
    out = images.copy()
    for row in np.flatnonzero(alpha > to_alpha):
        widths = radii[row] / alpha[row], radii[row] / to_alpha[row]
        before, after = (width / _PIXELS_PER_SIGMA for width in widths)
        if how == "seeing":
            after = before if before > 0 else 1.0
        out[row] = _degraded(images[row], widths, before, after, np.random.default_rng([seed, 6, int(row)]))
    return out


def moffat_transfer(squared_frequency: np.ndarray, fwhm: float) -> np.ndarray:
    """Transfer function of a Moffat PSF with β = 3.5, from ν² and the FWHM: (1 + k + k²/3) exp(-k), k = 2π ν r_0."""
    radius = fwhm / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    k = np.float32(2 * np.pi * radius) * np.sqrt(squared_frequency)
    return (1 + k + k * k * np.float32(1 / 3)) * np.exp(-k)


def _degraded(
    image: np.ndarray, widths: tuple[float, float], before: float, after: float, rng: np.random.Generator
) -> np.ndarray:
    """Replace the PSF (two σ) and the camera pixels (widths `before` and `after`); all in image pixels."""
    light = unstretch(image)
    side = light.shape[1]
    border = max(2, round(_BORDER * side))
    edge = np.ones((side, side), bool)
    edge[border:-border, border:-border] = False
    # Noise is the difference between the image and its smoothed version. Noise is measured from positive differences,
    # because images are black where noise is negative.
    wide = max(_SMOOTH, 3 * before)
    grains = (light - gaussian_filter(light, (0, wide, wide), mode="reflect"))[:, edge]
    middle, upper = np.percentile(grains, [50, 84.13], axis=1)
    noise = (upper - middle).astype(np.float32)[:, None, None]
    # A cosine transform mirrors the image at its edges.
    frequency = np.arange(side) / (2 * side)
    squared = frequency[:, None] ** 2 + frequency**2
    sharp, blunt = (moffat_transfer(squared, width * FWHM_PER_SIGMA) for width in widths)
    transfer = (blunt / sharp).astype(np.float32)
    blurred = fft.idctn(fft.dctn(light, axes=(1, 2)) * transfer, axes=(1, 2))
    # Correlated noise (grains wider than a pixel, interpolated) is blurred less.
    grain_power = np.sinc(frequency * before) ** 4 if before > 1 else np.ones(side)
    spectrum = grain_power[:, None] * grain_power
    left = float(np.sum(spectrum * transfer**2) / np.sum(spectrum))
    coarse = min(max(8, round(side / after)), side)
    # Noise to reach on the pixels to which it is added, in units of the image's; camera pixels that are some image
    # pixels wide leave so much of it, 2/3 where they are interpolated.
    target = (1 / min(before, 2 / 3) if before > 0 else 1.0) * (min(after, 2 / 3) if coarse == side else 1.0)
    resampled = after != before
    missing = np.sqrt(max(target**2 - left, 0.0)) if resampled else target * np.sqrt(1 - left)
    grain = np.float32(missing) * noise * rng.standard_normal((3, coarse, coarse), dtype=np.float32)
    if coarse < side:
        # Linear interpolation between the centres of coarse pixels, as when a frame is resampled. (The PSF's width is
        # measured on pixels, so it includes averaging over them.)
        if resampled:
            grain += zoom(blurred, (1, coarse / side, coarse / side), order=1, grid_mode=True, mode="nearest")
            blurred = np.zeros_like(blurred)
        grain = zoom(grain, (1, side / coarse, side / coarse), order=1, grid_mode=True, mode="nearest")
    return stretch(blurred + grain)
