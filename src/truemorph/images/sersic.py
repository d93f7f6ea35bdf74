"""Fit Sérsic profiles to images: index, half-light radius and ellipticity of the central galaxy.

The profile is integrated over pixels, convolved with the PSF and fitted with a free sky; neighbours are masked. The
inverse of `truemorph.images.stretch` is applied to colour images. For real Galaxy Zoo 2 JPEGs, whose stretch can't be
inverted exactly, n is about half of the usual values: enough to rank galaxies, but a boundary such as n = 3 needs
linear images (docs/report.md).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import polars as pl
from astropy.modeling.functional_models import Sersic2D
from astropy.nddata import block_reduce
from astropy.stats import mad_std, sigma_clip
from scipy import fft, ndimage, optimize

from truemorph.arrays import float_array
from truemorph.catalogs.physical import FWHM_PER_SIGMA
from truemorph.errors import InputError, reason, require_extra
from truemorph.images.decode import decode, fits_values, is_fits, listed, read_image_file
from truemorph.images.degrade import moffat_transfer
from truemorph.images.stretch import unstretch
from truemorph.io import shown_path
from truemorph.progress import progress
from truemorph.workers import one_thread, worker_pool

GOOD, SUSPECT, FAILED = 0, 1, 2

_GREEN = 1  # the r band of SDSS colour images
_SMALLEST_SIDE = 16
_MOST_PIXELS = 128  # image width; larger images are binned before fitting
_NARROWEST = 1.0  # σ of the PSF after binning, pixels
_WHITE = 254  # saturated from this grey level on
_LEVEL = 1.0  # uncertainty in grey levels, from rounding and JPEG compression
_PER_TASK = 4

# Detection of the galaxy and its neighbours.
_DETECTED = 2.0  # in units of the noise of the smoothed image
_CONTRAST = 0.02  # minimum to separate a neighbour from its parent
_SMALLEST_SOURCE = 9  # pixels
_GROWN = 2  # pixels masked around a neighbour
_LEAST_SKY = 0.05  # fraction of the pixels, to measure the sky again
_REACH = 0.15  # maximum distance of the galaxy's peak from the centre, fraction of the width
_MOST_EDGE = 0.05  # fraction of the border pixels
_MOST_LOST = 0.2  # fraction of the galaxy's central pixels
_MODEL_ERROR = 0.05  # fraction of the flux: galaxies and PSFs differ from the model

_PSF_REACH = 6  # in units of σ
_INDICES = (0.2, 8.0)
_SMALLEST_RADIUS = 0.2  # pixels
_LARGEST_RADIUS = 0.25  # fraction of the width
_FINE, _BOX = 7, 5  # points per pixel and axis, and their distance from the centre in pixels


def measure_sersic(
    images: Any, psf_sigma: float | Sequence[float] | np.ndarray = 0.0, *, jobs: int | None = None
) -> pl.DataFrame:
    """Fit a Sérsic profile to the central galaxy of each image.

    Parameters
    ----------
    images : array, or sequence of paths, bytes or arrays
        Colour images, uint8 (H, W, 3), or flux on a linear scale, float (H, W); arrays of N of them; or files: JPEG and
        PNG are colour images, FITS images are flux (the first HDU with an image, of three bands the second, r). The r
        band (green) of colour images is converted to flux with `truemorph.images.stretch.unstretch`; see the limits in
        the docstring of this module. Images should include some sky. Non-finite pixels are masked.
    psf_sigma : float or array, shape (N,)
        σ of the PSF, FWHM / 2.355, in pixels; it is a Moffat profile with β = 3.5, as in SDSS. If it is 0, the PSF is
        ignored and indices are too small.
    jobs : int, optional
        Number of processes; default one per core. Scripts with more than one need `if __name__ == "__main__":`.

    Returns
    -------
    polars.DataFrame
        One row per image: `object_id` (paths, if all images are files) or `row` (numbers); `sersic_n`;
        `sersic_n_stderr`, from noise that is independent between pixels and a model error of 5 % of the flux;
        `sersic_rhalf` (pixels, along the major axis); `sersic_ellipticity` (1 - b/a); `flag` (0 good, 1 suspect, 2
        failed, with null measurements) and `problem`, the reason if it is not 0.

    Raises
    ------
    InputError
        If photutils is not installed, or arguments are inconsistent. Problems of single images are in `problem`.

    Examples
    --------
    >>> axis = np.arange(48) - 23.5
    >>> light = 100 * np.exp(-np.hypot(axis, axis[:, None]) / 4)  # exponential: n = 1, half-light radius 1.678 × 4
    >>> light += np.random.default_rng(0).normal(0, 0.5, light.shape)
    >>> found = measure_sersic([light], jobs=1)
    >>> found["sersic_n"].round(1).item(), found["sersic_rhalf"].round(1).item()
    (1.0, 6.7)
    """
    require_extra("morphology")
    images = listed(images)
    shape = tuple(getattr(images, "shape", ()))
    if shape and (len(shape) not in (3, 4) or (len(shape) == 3 and shape[2] == 3)):
        raise InputError(f"images must be colour (N, H, W, 3) or flux (N, H, W); got shape {shape}")
    count = len(images)
    sigma = float_array(psf_sigma, "psf_sigma")
    if sigma.shape not in ((), (count,)):
        raise InputError(f"psf_sigma must be one number, or one per image; got shape {sigma.shape} for {count} images")
    jobs = min((os.cpu_count() or 1) if jobs is None else jobs, -(-count // _PER_TASK))

    each = (images[row] for row in range(count)), np.broadcast_to(sigma, count)
    with worker_pool(jobs) if jobs > 1 else nullcontext() as pool:
        measured = pool.map(_measured, *each, chunksize=_PER_TASK) if pool else map(_measured, *each)
        rows = list(progress(count, "Sérsic profiles", "galaxies", of=measured))
    files = count > 0 and all(isinstance(image, str | os.PathLike) for image in images)
    names = pl.Series("object_id", map(shown_path, images)) if files else pl.Series("row", range(count), pl.Int64)
    return pl.DataFrame(rows, schema=_SCHEMA).insert_column(0, names)


_SCHEMA = {
    **dict.fromkeys(("sersic_n", "sersic_n_stderr", "sersic_rhalf", "sersic_ellipticity"), pl.Float64),
    "flag": pl.Int64,
    "problem": pl.String,
}


def _measured(image: Any, sigma: float) -> dict[str, Any]:
    try:
        if not 0 <= sigma < np.inf:
            raise InputError(f"psf_sigma must be a width in pixels, 0 or more; got {sigma}")
        values, noise = _read(image)
        side = min(values.shape)
        if side < _SMALLEST_SIDE:
            raise InputError(f"only {side} pixels wide; at least {_SMALLEST_SIDE} are needed")
        factor = int(np.ceil(max(values.shape) / _MOST_PIXELS))
        if sigma:  # keep the PSF resolved
            factor = max(1, min(factor, int(sigma / _NARROWEST)))
        # A bin with a masked pixel is masked.
        values, noise = (block_reduce(part, factor, np.mean) for part in (values, noise))
        found, problems = _fitted(values, noise, float(sigma) / factor)
        found["sersic_rhalf"] *= factor
        return {**found, "flag": SUSPECT if problems else GOOD, "problem": "; ".join(problems) or None}
    except Exception as problem:  # one bad image must not stop the others; its row has the problem
        return {"flag": FAILED, "problem": reason(problem)}


def _read(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return flux of an image, and its noise in addition to the sky's (infinite if masked); shapes (H, W)."""
    if isinstance(image, str | os.PathLike):
        image = read_image_file(image)
    if isinstance(image, bytes):
        image = fits_values(image) if is_fits(image) else decode(image)
        image = image[_GREEN] if image.ndim == 3 and image.dtype == np.float64 else image
    pixels = np.asarray(image)
    if pixels.shape[2:] == (3,) and pixels.dtype == np.uint8:
        ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
        flux_per_level = np.gradient(unstretch(ramp)[_GREEN, :, 0].astype(np.float64))
        noise = _LEVEL * flux_per_level[pixels.mean(axis=2).astype(np.uint8)]
        white = pixels.max(axis=2) >= _WHITE
        return unstretch(pixels)[_GREEN].astype(np.float64), np.where(white, np.inf, noise)
    if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(
            f"an image must be uint8 (H, W, 3), or float (H, W) on a linear scale; got {pixels.dtype} {pixels.shape}"
        )
    return pixels.astype(np.float64), np.where(np.isfinite(pixels), 0.0, np.inf)


def _separated(values: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return flux above the sky, its noise (infinite where masked), the galaxy's pixels, and why a fit may be wrong."""
    from photutils.segmentation import deblend_sources, detect_sources

    bad, known = ~np.isfinite(values) | np.isinf(noise), np.isfinite(values)
    if known.mean() < 0.5:
        raise InputError("more than half of the pixels are not finite")
    values = np.where(known, values, np.median(values[known]))
    smooth = ndimage.gaussian_filter(values, 1.0)
    sky = known
    with warnings.catch_warnings(action="ignore"):  # of photutils, such as those of an argument that 3.1 deprecates
        for _ in range(3):
            level, spread = _clipped(values[sky])
            threshold = level + _DETECTED * _clipped(smooth[sky])[1]
            segments = detect_sources(smooth, threshold, n_pixels=_SMALLEST_SOURCE)
            if segments is None:
                raise InputError("no source found")
            beyond = known & ~ndimage.binary_dilation(segments.data > 0, iterations=2 * _GROWN)
            if beyond.mean() < _LEAST_SKY:
                break
            sky = beyond
        labels = deblend_sources(
            smooth, segments, n_pixels=_SMALLEST_SOURCE, n_levels=16, contrast=_CONTRAST, progress_bar=False
        ).data
    height, width = labels.shape
    distance = np.hypot(*np.ogrid[-(height - 1) / 2 : height / 2, -(width - 1) / 2 : width / 2])
    own = labels == labels.flat[np.argmin(np.where(labels > 0, distance, np.inf))]
    peak = np.argmax(np.where(own, smooth, -np.inf))
    if distance.flat[peak] > _REACH * min(height, width):
        raise InputError("no source at the centre of the image")
    around = ndimage.binary_dilation((labels > 0) & ~own, iterations=_GROWN) & ~own
    problems = []
    border = np.concatenate([own[[0, -1]].ravel(), own[:, [0, -1]].ravel()])
    if border.mean() > _MOST_EDGE:
        problems.append("the galaxy reaches the edge of the image")
    # Within a third of the galaxy's detected radius.
    if bad[distance < max(1.5, np.sqrt(own.sum() / np.pi) / 3)].mean() > _MOST_LOST:
        problems.append("the centre of the galaxy is saturated or not finite")
    of_model = _MODEL_ERROR * np.clip(smooth - level, 0, None)
    total = np.sqrt(spread**2 + noise**2 + of_model**2)
    return values - level, np.where(bad | around, np.inf, total), own, problems


def _clipped(values: np.ndarray) -> tuple[float, float]:
    """Return the 3σ-clipped median, and the standard deviation from the median absolute deviation."""
    kept = sigma_clip(values, sigma=3.0, maxiters=2, stdfunc="mad_std", masked=False)
    return float(np.median(kept)), float(max(mad_std(kept), 1e-12))


def _shape(parameters: np.ndarray) -> tuple[float, float, float, float]:
    """Half-light radius along the major axis, index, ellipticity and angle from the parameters of a fit."""
    _, _, log_radius, log_index, g1, g2 = parameters
    distortion = min(np.hypot(g1, g2), 0.99)
    ratio = (1 - distortion) / (1 + distortion)
    return np.exp(log_radius) / np.sqrt(ratio), np.exp(log_index), 1 - ratio, 0.5 * np.arctan2(g2, g1)


def _sersic_law(shape: tuple[int, int], sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the Sérsic profile, integrated over the pixels of an image and convolved with the PSF.

    A function of x, y (pixels from the centre), ln of the circularised half-light radius, ln n, and the components of
    the distortion (a - b) / (a + b). It gives the brightness relative to that at the half-light radius.
    """
    margin = int(np.ceil(_PSF_REACH * sigma))
    height, width = whole = [fft.next_fast_len(length + 2 * margin, real=True) for length in shape]
    y = (np.arange(height) - margin - (shape[0] - 1) / 2)[:, None]
    x = (np.arange(width) - margin - (shape[1] - 1) / 2)[None, :]
    frequency = fft.fftfreq(height)[:, None] ** 2 + fft.rfftfreq(width)[None, :] ** 2
    transfer = moffat_transfer(frequency, FWHM_PER_SIGMA * sigma)
    offsets = (np.arange(_FINE) + 0.5) / _FINE - 0.5

    def near(axis: np.ndarray, at: float) -> slice:
        middle = int(np.clip(np.round(at - axis[0]), _BOX, axis.size - 1 - _BOX))
        return slice(middle - _BOX, middle + _BOX + 1)

    def profile(parameters: np.ndarray) -> np.ndarray:
        x0, y0 = parameters[:2]
        radius, index, ellipticity, angle = _shape(parameters)
        law = (1.0, radius, index, x0, y0, ellipticity, angle)
        values = Sersic2D.evaluate(x, y, *law)
        # More points per pixel around the peak.
        rows, columns = near(y[:, 0], y0), near(x[0], x0)
        fine_y, fine_x = (y[rows] + offsets).reshape(-1, 1), (x[0, columns, None] + offsets).reshape(1, -1)
        values[rows, columns] = block_reduce(Sersic2D.evaluate(fine_x, fine_y, *law), _FINE, np.mean)
        if sigma:
            values = fft.irfft2(fft.rfft2(values) * transfer, s=whole)
        return values[margin:, margin:][: shape[0], : shape[1]]

    return profile


@one_thread
def _fitted(values: np.ndarray, noise: np.ndarray, sigma: float) -> tuple[dict[str, Any], list[str]]:
    """Fit a profile by least squares, with brightness and sky solved at each step; return columns, and problems."""
    light, noise, own, problems = _separated(values, noise)
    kept = np.isfinite(noise)
    data, weight = light[kept], 1 / noise[kept]
    law = _sersic_law(light.shape, sigma)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        design = np.stack([law(parameters)[kept] * weight, weight], axis=1)
        solved = np.linalg.solve(design.T @ design, design.T @ (data * weight))
        return data * weight - design @ solved

    start, low, high = _first_guess(np.where(own, np.clip(light, 0, None), 0))
    found = optimize.least_squares(
        residuals, start, bounds=(low, high), x_scale=[1, 1, 0.3, 0.3, 0.2, 0.2], xtol=1e-4, ftol=1e-5, max_nfev=60
    )
    radius, index, ellipticity, _ = _shape(found.x)
    possible = {
        "the fit did not converge": not found.success,
        "a parameter is at the edge of its range": np.any(np.minimum(found.x - low, high - found.x) < 0.01),
        "smaller than the PSF": radius < sigma,
        "too large for the image, which has no sky": radius > _LARGEST_RADIUS * min(light.shape),
    }
    measured = {
        "sersic_n": index,
        "sersic_n_stderr": index * np.sqrt(np.linalg.pinv(found.jac.T @ found.jac)[3, 3]),
        "sersic_rhalf": radius,
        "sersic_ellipticity": ellipticity,
    }
    return measured, problems + [text for text, holds in possible.items() if holds]


def _first_guess(light: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return initial parameters from the moments of the galaxy's flux, shape (H, W), and their limits."""
    height, width = light.shape
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    total = light.sum()
    if not total > 0:
        raise InputError("the central source has no flux above the sky")
    x0, y0 = (light * x).sum() / total, (light * y).sum() / total
    xx, yy, xy = ((light * product).sum() / total for product in ((x - x0) ** 2, (y - y0) ** 2, (x - x0) * (y - y0)))
    both = xx + yy + 2 * np.sqrt(max(xx * yy - xy**2, 1e-6))
    half = max(0.7 * np.sqrt(xx + yy), 1.0)  # exact for an exponential profile
    reach = min(height, width) / 8
    low = np.array([x0 - reach, y0 - reach, np.log(_SMALLEST_RADIUS), np.log(_INDICES[0]), -0.9, -0.9])
    high = np.array([x0 + reach, y0 + reach, np.log(2.0 * max(height, width)), np.log(_INDICES[1]), 0.9, 0.9])
    start = np.array([x0, y0, np.log(half), np.log(1.8), (xx - yy) / both, 2 * xy / both])
    return np.clip(start, low + 1e-3, high - 1e-3), low, high
