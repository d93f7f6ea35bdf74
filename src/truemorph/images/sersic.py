"""Fit Sérsic profiles to images: index, half-light radius and ellipticity of the central galaxy.

The profile is integrated over pixels and convolved with the PSF, and fitted with a free sky, weighted by the noise
(docs/report.md compares it with statmorph). Neighbours are found with photutils and masked.

Colour images (JPEG, PNG) are not on a linear scale: a stretch that enhances faint parts flattens the profile. By
default, `truemorph.images.stretch` is inverted. For simulated JPEGs this recovers n (0.9 of it for ellipticals, 1.0
for disks; without inversion 0.36 and 0.64). For real Galaxy Zoo 2 JPEGs, whose stretch can't be inverted exactly, n is
about half of the usual values. This is enough to rank galaxies, but a boundary such as n = 3 needs linear images, as
in Simard et al. (2011, ApJS 196, 11).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import fft, ndimage, optimize
from scipy.special import gammaincinv

from truemorph.arrays import float_array
from truemorph.catalogs.physical import FWHM_PER_SIGMA
from truemorph.errors import InputError, TruemorphError, reason, require_extra
from truemorph.images.decode import decode, fits_values, is_fits, read_image_file
from truemorph.images.inputs import listed
from truemorph.images.psf import moffat_transfer
from truemorph.images.stretch import unstretch
from truemorph.io import shown_path
from truemorph.progress import progress
from truemorph.workers import worker_pool

PsfShape = Literal["moffat", "gaussian"]
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
_LEAST_SKY = 0.05  # fraction of the pixels
_REACH = 0.15  # maximum distance of the galaxy's peak from the centre, fraction of the width
_MOST_EDGE = 0.05  # fraction of the border pixels
_MOST_LOST = 0.2  # fraction of the galaxy's central pixels
_MODEL_ERROR = 0.05  # fraction of the flux: galaxies and PSFs differ from the model

# Fit.
_PSF_REACH = 6  # in units of σ
_INDICES = (0.2, 8.0)
_SMALLEST_RADIUS = 0.2  # pixels
_LARGEST_RADIUS = 0.25  # fraction of the width
_FINE, _BOX = 7, 5  # points per pixel and axis, and their distance from the centre in pixels


def measure_sersic(
    images: Any,
    psf_sigma: float | Sequence[float] | np.ndarray | None = None,
    *,
    psf_shape: PsfShape = "moffat",
    undo_stretch: bool = True,
    hdu: int | str | None = None,
    jobs: int | None = None,
) -> pl.DataFrame:
    """Fit a Sérsic profile to the central galaxy of each image.

    Parameters
    ----------
    images : array, or sequence of paths, bytes or arrays
        Colour images, uint8 (H, W, 3), or flux on a linear scale, float (H, W); arrays of N of them; or files: JPEG and
        PNG are colour images, FITS images are flux (of three bands the second, r). The images should include some sky.
        Non-finite pixels are masked.
    psf_sigma : float or array, shape (N,), optional
        σ of the PSF, FWHM / 2.355, in pixels. Without it, the PSF is ignored and indices are too small.
    psf_shape : {"moffat", "gaussian"}
        A Moffat profile with β = 3.5, as in SDSS, or a Gaussian, with the FWHM given by `psf_sigma`.
    undo_stretch : bool
        Whether to convert colour images to flux with `truemorph.images.stretch.unstretch`; see the limits in the
        docstring of this module. The r band (green) is measured.
    hdu : int or str, optional
        Number or name of the HDU of FITS images; default the first that has an image.
    jobs : int, optional
        Number of processes; default one per core. Scripts with more than one need `if __name__ == "__main__":`.

    Returns
    -------
    polars.DataFrame
        One row per image: `object_id` (paths, if all images are files) or `row` (numbers); `sersic_n`;
        `sersic_n_stderr`, from noise that is independent between pixels and a model error of 5 % of the flux;
        `sersic_rhalf` (pixels, along the major axis); `sersic_ellipticity` (1 - b/a); `light` ("linear", "unstretched"
        or "as shown"); `flag` (0 good, 1 suspect, 2 failed, with null measurements) and `problem`, the reason if it is
        not 0.

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
    if psf_shape not in ("moffat", "gaussian"):
        raise InputError(f'psf_shape must be "moffat" or "gaussian"; got {psf_shape!r}')
    images = listed(images)
    shape = tuple(getattr(images, "shape", ()))
    if shape and (len(shape) not in (3, 4) or (len(shape) == 3 and shape[2] == 3)):
        raise InputError(f"images must be colour (N, H, W, 3) or flux (N, H, W); got shape {shape}")
    count = len(images)
    sigma = np.zeros(count) if psf_sigma is None else float_array(psf_sigma, "psf_sigma")
    if sigma.ndim == 0:
        sigma = np.full(count, sigma)
    if sigma.shape != (count,):
        raise InputError(f"psf_sigma must be one number, or one per image; got shape {sigma.shape} for {count} images")
    jobs = min((os.cpu_count() or 1) if jobs is None else jobs, -(-count // _PER_TASK))

    work = partial(_measured, psf_shape=psf_shape, undo_stretch=undo_stretch, hdu=hdu)
    rows: list[dict[str, Any]] = []
    try:
        with (
            progress(count, "Sérsic profiles", "galaxies") as bar,
            worker_pool(jobs) if jobs > 1 else nullcontext() as pool,
        ):
            given = (images[row] for row in range(count))
            for row in pool.map(work, given, sigma, chunksize=_PER_TASK) if pool else map(work, given, sigma):
                rows.append(row)
                bar.update(1)
    except BrokenProcessPool as problem:
        raise TruemorphError(
            "a process that measured profiles died: use fewer jobs if memory ran out; "
            'scripts need `if __name__ == "__main__":`'
        ) from problem
    files = count > 0 and all(isinstance(one, str | os.PathLike) for one in images)
    names = pl.Series("object_id", map(shown_path, images)) if files else pl.Series("row", range(count), pl.Int64)
    return pl.DataFrame(rows, schema=_SCHEMA).insert_column(0, names)


_SCHEMA = {
    "sersic_n": pl.Float64,
    "sersic_n_stderr": pl.Float64,
    "sersic_rhalf": pl.Float64,
    "sersic_ellipticity": pl.Float64,
    "light": pl.String,
    "flag": pl.Int64,
    "problem": pl.String,
}


def _measured(
    image: Any, sigma: float, psf_shape: PsfShape, undo_stretch: bool, hdu: int | str | None
) -> dict[str, Any]:
    """Return the result row of an image."""
    light = None
    try:
        if not 0 <= sigma < np.inf:
            raise InputError(f"psf_sigma must be a width in pixels, 0 or more; got {sigma}")
        values, noise, light = _read(image, undo_stretch, hdu)
        return {"light": light, **_fitted(values, noise, float(sigma), psf_shape)}
    except Exception as problem:  # one bad image must not stop the others; its row has the problem
        return {"light": light, "flag": FAILED, "problem": reason(problem)}


def _read(image: Any, undo_stretch: bool, hdu: int | str | None) -> tuple[np.ndarray, np.ndarray, str]:
    """Return flux of an image, its noise in addition to the sky's (infinite if masked), and its kind."""
    if isinstance(image, str | os.PathLike):
        data, name = read_image_file(image), shown_path(image)
    else:
        data, name = image, "image"
    if isinstance(data, bytes):
        if is_fits(data):
            bands = fits_values(data, hdu)
            image = bands if bands.ndim == 2 else bands[_GREEN]
        else:
            image = decode(data, name)
    pixels = np.asarray(image)
    if pixels.shape[2:] == (3,) and pixels.dtype == np.uint8:
        white = pixels.max(axis=2) >= _WHITE
        if not undo_stretch:
            shown = pixels[..., _GREEN].astype(np.float64)
            return shown, np.where(white, np.inf, _LEVEL), "as shown"
        light = unstretch(pixels)[_GREEN].astype(np.float64)
        step = _worth_of_a_level()[pixels.mean(axis=2).astype(np.uint8)]
        return light, np.where(white, np.inf, _LEVEL * step), "unstretched"
    if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(
            f"an image must be uint8 (H, W, 3), or float (H, W) on a linear scale; got {pixels.dtype} {pixels.shape}"
        )
    return pixels.astype(np.float64), np.where(np.isfinite(pixels), 0.0, np.inf), "linear"


@cache
def _worth_of_a_level() -> np.ndarray:
    """Flux difference between neighbouring grey levels, shape (256,)."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    return np.gradient(unstretch(ramp)[_GREEN, :, 0].astype(np.float64))


def _fitted(values: np.ndarray, noise: np.ndarray, sigma: float, psf_shape: PsfShape) -> dict[str, Any]:
    side = min(values.shape)
    if side < _SMALLEST_SIDE:
        raise InputError(f"only {side} pixels wide; at least {_SMALLEST_SIDE} are needed")
    factor = 1
    if max(values.shape) > _MOST_PIXELS:
        factor = int(np.ceil(max(values.shape) / _MOST_PIXELS))
        # Keep the PSF resolved.
        factor = max(1, min(factor, int(sigma / _NARROWEST))) if sigma else factor
    values, noise = _binned(values, noise, factor)
    galaxy, doubts = _separated(values, noise)
    found, problems = _fit_profile(galaxy, sigma / factor, psf_shape)
    found["sersic_rhalf"] *= factor
    problems = doubts + problems
    return {**found, "flag": SUSPECT if problems else GOOD, "problem": "; ".join(problems) or None}


def _binned(values: np.ndarray, noise: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Bin pixels; a bin with a masked pixel is masked."""
    if factor == 1:
        return values, noise
    height, width = (length // factor for length in values.shape)
    # Trim evenly, to keep the centre.
    top, left = ((length - count * factor) // 2 for length, count in zip(values.shape, (height, width), strict=True))
    cut = np.s_[top : top + height * factor, left : left + width * factor]
    squares = [part[cut].reshape(height, factor, width, factor) for part in (values, noise)]
    return squares[0].mean(axis=(1, 3)), squares[1].mean(axis=(1, 3))


@dataclass(frozen=True)
class _Galaxy:
    """The central source of an image; arrays have the shape of the image, (H, W)."""

    light: np.ndarray  # flux, sky subtracted
    noise: np.ndarray  # standard deviation from sky, image and source
    masked: np.ndarray  # pixels that are not used
    own: np.ndarray  # pixels of the galaxy


def _separated(values: np.ndarray, noise: np.ndarray) -> tuple[_Galaxy, list[str]]:
    """Subtract the sky, find the central galaxy, mask its neighbours, and say why a fit may be wrong."""
    from astropy.utils.exceptions import AstropyUserWarning
    from photutils.segmentation import deblend_sources, detect_sources
    from photutils.utils.exceptions import NoDetectionsWarning

    bad = ~np.isfinite(values) | np.isinf(noise)
    known = np.isfinite(values)
    if known.mean() < 0.5:
        raise InputError("more than half of the pixels are not finite")
    values = np.where(known, values, np.median(values[known]))
    smooth = ndimage.gaussian_filter(values, 1.0)
    sky, segments = known, None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=NoDetectionsWarning)
        warnings.filterwarnings("ignore", category=AstropyUserWarning, module=r"photutils\.")
        # photutils 3.0 shows a progress bar by default; 3.1 deprecates the argument.
        warnings.filterwarnings("ignore", message="'progress_bar' was deprecated")
        for _ in range(3):
            level, spread = _clipped(values[sky])
            fluctuation = _clipped(smooth[sky])[1]
            segments = detect_sources(smooth, level + max(_DETECTED * fluctuation, 1e-12), n_pixels=_SMALLEST_SOURCE)
            if segments is None:
                raise InputError("no source found")
            beyond = known & ~ndimage.binary_dilation(segments.data > 0, iterations=2 * _GROWN)
            if beyond.mean() < _LEAST_SKY:
                break
            sky = beyond
        segments = deblend_sources(
            smooth, segments, n_pixels=_SMALLEST_SOURCE, n_levels=16, contrast=_CONTRAST, progress_bar=False
        )
    labels = segments.data
    height, width = labels.shape
    distance = np.hypot(*np.ogrid[-(height - 1) / 2 : height / 2, -(width - 1) / 2 : width / 2])
    own = labels == labels.flat[np.argmin(np.where(labels > 0, distance, np.inf))]
    peak = np.argmax(np.where(own, smooth, -np.inf))
    if distance.flat[peak] > _REACH * min(height, width):
        raise InputError("no source at the centre of the image")
    around = ndimage.binary_dilation((labels > 0) & ~own, iterations=_GROWN) & ~own
    problems = []
    if beyond.mean() < _LEAST_SKY:
        problems.append("hardly any sky in the image")
    border = np.concatenate([own[[0, -1]].ravel(), own[:, [0, -1]].ravel()])
    if border.mean() > _MOST_EDGE:
        problems.append("the galaxy reaches the edge of the image")
    # Within a third of the galaxy's detected radius.
    if bad[distance < max(1.5, np.sqrt(own.sum() / np.pi) / 3)].mean() > _MOST_LOST:
        problems.append("the centre of the galaxy is saturated or not finite")
    light = values - level
    total = np.sqrt(
        spread**2 + np.where(np.isinf(noise), 0, noise) ** 2 + (_MODEL_ERROR * np.clip(smooth - level, 0, None)) ** 2
    )
    return _Galaxy(light, total, bad | around, own), problems


def _clipped(values: np.ndarray) -> tuple[float, float]:
    """Return the 3σ-clipped median, and the standard deviation from the median absolute deviation."""
    for _ in range(3):
        middle = np.median(values)
        spread = 1.4826 * np.median(np.abs(values - middle))
        if spread == 0:
            break
        values = values[np.abs(values - middle) < 3 * spread]
    return float(middle), float(max(spread, 1e-12))


class _SersicLaw:
    """A Sérsic profile integrated over the pixels of an image and convolved with the PSF.

    Its parameters are x, y (pixels from the centre), ln of the circularised half-light radius, ln n, and the two
    components of the distortion (a - b) / (a + b), which are defined for all values, unlike an axis ratio and an angle.
    """

    def __init__(self, shape: tuple[int, int], sigma: float, psf_shape: PsfShape) -> None:
        self._sigma, self._margin = sigma, int(np.ceil(_PSF_REACH * sigma))
        height, width = (fft.next_fast_len(length + 2 * self._margin, real=True) for length in shape)
        self._shape, self._whole = shape, (height, width)
        self._y = (np.arange(height) - self._margin - (shape[0] - 1) / 2)[:, None]
        self._x = (np.arange(width) - self._margin - (shape[1] - 1) / 2)[None, :]
        squared = fft.fftfreq(height)[:, None] ** 2 + fft.rfftfreq(width)[None, :] ** 2
        if psf_shape == "moffat":
            self._transfer = moffat_transfer(squared, FWHM_PER_SIGMA * sigma)
        else:
            self._transfer = np.exp(-2 * np.pi**2 * sigma**2 * squared)
        self._offsets = (np.arange(_FINE) + 0.5) / _FINE - 0.5

    def __call__(self, parameters: np.ndarray) -> np.ndarray:
        """Return the surface brightness relative to that at the half-light radius, with the shape of the image."""
        x0, y0, log_radius, log_index, g1, g2 = parameters
        index = np.exp(log_index)
        b = gammaincinv(2 * index, 0.5)
        squeeze = 1 / (max(1 - g1**2 - g2**2, 0.01) * np.exp(2 * log_radius))

        def law(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            dx, dy = x - x0, y - y0
            squared = (((1 - g1) * dx - g2 * dy) ** 2 + ((1 + g1) * dy - g2 * dx) ** 2) * squeeze
            return np.exp(-b * (np.power(squared + 1e-12, 0.5 / index) - 1))

        values = law(self._x, self._y)
        rows, columns = (self._near(axis.ravel(), at) for axis, at in ((self._y, y0), (self._x, x0)))
        fine_y = (self._y[rows] + self._offsets).reshape(-1, 1)
        fine_x = (self._x[0, columns, None] + self._offsets).reshape(1, -1)
        fine = law(fine_x, fine_y)
        values[rows, columns] = fine.reshape(fine_y.size // _FINE, _FINE, fine_x.size // _FINE, _FINE).mean(axis=(1, 3))
        if self._sigma:
            values = fft.irfft2(fft.rfft2(values) * self._transfer, s=self._whole)
        return values[self._margin :, self._margin :][: self._shape[0], : self._shape[1]]

    @staticmethod
    def _near(axis: np.ndarray, at: float) -> slice:
        middle = int(np.clip(np.round(at - axis[0]), _BOX, axis.size - 1 - _BOX))
        return slice(middle - _BOX, middle + _BOX + 1)


def _fit_profile(galaxy: _Galaxy, sigma: float, psf_shape: PsfShape) -> tuple[dict[str, Any], list[str]]:
    """Fit a Sérsic profile by least squares; the linear parameters, brightness and sky, are solved at each step.

    `sigma` is in pixels, 0 for no PSF. Returns columns of `measure_sersic`, and problems.
    """
    kept = ~galaxy.masked
    data, weight = galaxy.light[kept], 1 / galaxy.noise[kept]
    law = _SersicLaw(galaxy.light.shape, sigma, psf_shape)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        design = np.stack([law(parameters)[kept] * weight, weight], axis=1)
        solved = np.linalg.solve(design.T @ design, design.T @ (data * weight))
        return data * weight - design @ solved

    start, low, high = _first_guess(galaxy)
    found = optimize.least_squares(
        residuals, start, bounds=(low, high), x_scale=[1, 1, 0.3, 0.3, 0.2, 0.2], xtol=1e-4, ftol=1e-5, max_nfev=60
    )
    _, _, log_radius, log_index, g1, g2 = found.x
    distortion = min(np.hypot(g1, g2), 0.99)
    ratio = (1 - distortion) / (1 + distortion)
    index = float(np.exp(log_index))
    problems = []
    if not found.success:
        problems.append("the fit did not converge")
    if np.any(found.active_mask):
        problems.append("a parameter is at the edge of its range")
    try:
        stderr = index * float(np.sqrt(np.linalg.inv(found.jac.T @ found.jac)[3, 3]))
    except np.linalg.LinAlgError:
        stderr = float("nan")
        problems.append("the profile's parameters are degenerate")
    radius = float(np.exp(log_radius) / np.sqrt(ratio))
    if radius < sigma:
        problems.append("smaller than the PSF")
    if radius > _LARGEST_RADIUS * min(galaxy.light.shape):
        problems.append("too large for the image, which has no sky")
    return {
        "sersic_n": index,
        "sersic_n_stderr": stderr,
        "sersic_rhalf": radius,
        "sersic_ellipticity": float(1 - ratio),
    }, problems


def _first_guess(galaxy: _Galaxy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return initial parameters from the moments of the galaxy's segment, and their limits."""
    height, width = galaxy.light.shape
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    light = np.where(galaxy.own, np.clip(galaxy.light, 0, None), 0)
    total = light.sum()
    if not total > 0:
        raise InputError("the central source has no flux above the sky")
    x0, y0 = (light * x).sum() / total, (light * y).sum() / total
    xx, yy, xy = ((light * product).sum() / total for product in ((x - x0) ** 2, (y - y0) ** 2, (x - x0) * (y - y0)))
    both = xx + yy + 2 * np.sqrt(max(xx * yy - xy**2, 1e-6))
    own = light > 0
    distance = np.hypot(x - x0, y - y0)[own]
    order = np.argsort(distance, kind="stable")
    half = max(float(np.interp(0.5 * total, np.cumsum(light[own][order]), distance[order])), 1.0)
    reach = min(height, width) / 8
    low = np.array([x0 - reach, y0 - reach, np.log(_SMALLEST_RADIUS), np.log(_INDICES[0]), -0.9, -0.9])
    high = np.array([x0 + reach, y0 + reach, np.log(2.0 * max(height, width)), np.log(_INDICES[1]), 0.9, 0.9])
    start = np.array([x0, y0, np.log(half), np.log(1.8), (xx - yy) / both, 2 * xy / both])
    return np.clip(start, low + 1e-3, high - 1e-3), low, high
