"""The same picture, less well resolved: blurred, on coarser pixels, with noise to match.

For pictures of real galaxies, whose light can't be drawn again. A twin at a lower α shows what annotators and
classifiers would have been given, had the galaxy been farther away or the seeing worse.
"""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter, zoom

from truemorph.errors import InputError
from truemorph.images.stretch import stretch, unstretch

# SDSS frames have about three pixels of 0.396 arcsec a PSF FWHM.
_PIXELS_PER_SIGMA = 1.4
_BORDER = 0.1
_SMOOTH = 3.0  # pixels


def degrade(
    images: np.ndarray, alpha: np.ndarray, to_alpha: np.ndarray, radius: np.ndarray | float, seed: int = 0
) -> np.ndarray:
    """Lower the resolution of pictures from α to `to_alpha`.

    In light, not in brightness as shown: a Gaussian makes up for the PSFs' difference in quadrature, the result is
    averaged over pixels as coarse as a frame's would be relative to the new PSF, receives the noise that the
    original had (correlated over such a pixel), and is stretched again. Light that was white in the picture is lost
    to it.

    Parameters
    ----------
    images : array of uint8, shape (N, S, S, 3)
    alpha : array, shape (N,)
        Resolution R_petro / σ_PSF of the pictures; infinite where the PSF doesn't matter.
    to_alpha : array, shape (N,)
        Wanted resolution; a picture whose α is not above it comes back as it is.
    radius : array, shape (N,), or float
        R_petro in pixels of the picture.
    seed : int
        Of the noise.

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
    n = len(images)
    alpha, to_alpha = np.asarray(alpha, np.float64), np.asarray(to_alpha, np.float64)
    radii = np.broadcast_to(np.asarray(radius, np.float64), (n,))
    if alpha.shape != (n,) or to_alpha.shape != (n,):
        raise InputError(f"alpha and to_alpha must have shape ({n},), one a picture")
    if not (np.all(alpha > 0) and np.all(to_alpha > 0) and np.all(radii > 0)):
        raise InputError("alpha, to_alpha and radius must be positive")
    out = images.copy()
    for row in np.flatnonzero(alpha > to_alpha):
        sigma = radii[row] * np.sqrt(1 / to_alpha[row] ** 2 - 1 / alpha[row] ** 2)
        pixel = radii[row] / to_alpha[row] / _PIXELS_PER_SIGMA
        out[row] = _degraded(images[row], sigma, pixel, np.random.default_rng([seed, 6, int(row)]))
    return out


def _degraded(image: np.ndarray, sigma: float, pixel: float, rng: np.random.Generator) -> np.ndarray:
    light = unstretch(image)
    side = light.shape[1]
    border = max(2, round(_BORDER * side))
    edge = np.ones((side, side), bool)
    edge[border:-border, border:-border] = False
    # Light of a galaxy that reaches the border is smooth there: noise is what a wide filter takes away (half of it lies
    # within 0.67 σ).
    grains = light - gaussian_filter(light, (0, _SMOOTH, _SMOOTH), mode="reflect")
    noise = np.median(np.abs(grains[:, edge]), axis=1) / 0.6745
    blurred = gaussian_filter(light, (0, sigma, sigma), mode="reflect")
    coarse = max(8, round(side / pixel))
    if coarse < side:
        # Averaged over coarse pixels, and straight between their centres: what resampling a frame does.
        factor = side / coarse
        averaged = gaussian_filter(blurred, (0, factor / 3.46, factor / 3.46), mode="reflect")  # a box of that width
        blurred = zoom(averaged, (1, coarse / side, coarse / side), order=1, grid_mode=True, mode="nearest")
        grain = rng.standard_normal(blurred.shape, dtype=np.float32) * noise[:, None, None].astype(np.float32)
        blurred = zoom(blurred + grain, (1, side / coarse, side / coarse), order=1, grid_mode=True, mode="nearest")
    else:
        lost = 1 - _kept_variance(sigma, side)
        grain = rng.standard_normal(blurred.shape, dtype=np.float32) * noise[:, None, None].astype(np.float32)
        blurred = blurred + grain * np.float32(np.sqrt(lost))
    return stretch(blurred[:, :side, :side].astype(np.float32))


def _kept_variance(sigma: float, side: int) -> float:
    """Share of white noise's variance that a Gaussian blur leaves."""
    frequency = fft.fftfreq(side)
    one_axis = np.mean(np.exp(-((2 * np.pi * frequency * sigma) ** 2)))
    return float(one_axis**2)
