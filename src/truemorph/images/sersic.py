"""Sérsic profiles measured on images: index, half-light radius and ellipticity of the galaxy in the middle.

The default fit is of a Sérsic law integrated over pixels and convolved with the PSF, with a free sky, weighted by the
noise; statmorph (Rodriguez-Gomez et al. 2019, MNRAS 483, 4140) is the other (docs/report.md says how they compare).
Neighbours are found with photutils and masked.

Pictures are not light: a stretch that lifts faint parts flattens a profile. By default that of
`truemorph.images.stretch` is undone. Of simulated JPEGs this gives n back (0.9 of it for ellipticals, 1.0 for disks; as
shown, 0.36 and 0.64). Real Galaxy Zoo 2 JPEGs, whose stretch can't be undone exactly, give about half of what
galaxies of their classes have: enough to rank them, but a boundary at n = 3 is for indices of linear images, as Simard
et al.'s (2011, ApJS 196, 11).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import fft, ndimage, optimize
from scipy.special import gammaincinv

from truemorph.arrays import float_array
from truemorph.errors import InputError, TruemorphError, reason, require_extra
from truemorph.images.decode import AS_THEY_ARE, FitsReading, decode, fits_values, is_fits, read_image_file
from truemorph.images.inputs import listed
from truemorph.images.psf import moffat_transfer
from truemorph.images.stretch import unstretch
from truemorph.io import shown_path
from truemorph.progress import progress
from truemorph.workers import worker_pool

Method = Literal["profile", "statmorph"]
PsfShape = Literal["moffat", "gaussian"]
GOOD, SUSPECT, FAILED = 0, 1, 2

_GREEN = 1  # the r band of SDSS's colour pictures
_SMALLEST_SIDE = 16
_MOST_PIXELS = 128  # on a side: larger images are binned before the fit
_NARROWEST = 1.0  # σ of the PSF after binning, pixels
_WHITE = 254  # from here on brightness is lost
_LEVEL = 1.0  # grey levels by which a picture's brightness is uncertain: rounding and JPEG
_PER_TASK = 4

# Of the galaxy and its neighbours.
_DETECTED = 2.0  # noise of the smoothed image
_CONTRAST = 0.02  # of a neighbour to be separated from its parent
_SMALLEST_SOURCE = 9  # pixels
_GROWN = 2  # pixels around a neighbour that are masked with it
_LEAST_SKY = 0.05  # of the pixels
_REACH = 0.15  # of the side: how far from the middle a galaxy's peak may be
_MOST_EDGE = 0.05  # of the border's pixels
_MOST_LOST = 0.2  # of the pixels in the middle of the galaxy
_MODEL_ERROR = 0.05  # of the light: no galaxy is exactly a Sérsic law, no PSF exactly a Moffat profile

# Of the fit.
_FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in σ
_PSF_REACH = 6  # σ
_INDICES = (0.2, 8.0)
_SMALLEST_RADIUS = 0.2  # pixels
_LARGEST_RADIUS = 0.25  # of the side
_FINE, _BOX = 7, 5  # points a pixel each way, within so many pixels of the centre


@dataclass(frozen=True)
class _Settings:
    method: Method
    psf_shape: PsfShape
    undo_stretch: bool
    fits: FitsReading


def measure_sersic(
    images: Any,
    psf_sigma: float | Sequence[float] | np.ndarray | None = None,
    *,
    object_id: Sequence[Any] | np.ndarray | pl.Series | None = None,
    method: Method = "profile",
    psf_shape: PsfShape = "moffat",
    undo_stretch: bool = True,
    fits: FitsReading = AS_THEY_ARE,
    jobs: int | None = None,
) -> pl.DataFrame:
    """Fit a Sérsic law to the galaxy in the middle of each image.

    Parameters
    ----------
    images : array, or sequence of paths, bytes or arrays
        Pictures, uint8 (H, W, 3), or light on a linear scale, float (H, W); arrays of N of them; or files: JPEG and
        PNG are pictures, FITS images are light (of three bands the middle one, r). The images should show some sky.
        Non-finite pixels are masked.
    psf_sigma : float or array, shape (N,), optional
        σ of the PSF, FWHM / 2.355, in pixels. Without it the profile is fitted as seen: indices come out too small.
    object_id : sequence, optional
        Without it, paths where files are given, else row numbers, in a column `row`.
    method : {"profile", "statmorph"}
    psf_shape : {"moffat", "gaussian"}
        A Moffat profile of β = 3.5, as of SDSS, or a Gaussian, with the FWHM that `psf_sigma` says.
    undo_stretch : bool
        Whether pictures are brought back to light by `truemorph.images.stretch.unstretch`; how far that helps is said
        at the head of this module. The r band (green) is measured.
    fits : FitsReading
        Which HDU to read; its stretch doesn't matter here.
    jobs : int, optional
        Processes; one a core by default. A script that uses more than one needs `if __name__ == "__main__":`.

    Returns
    -------
    polars.DataFrame
        One row an image: `object_id` or `row`; `sersic_n`; `sersic_n_stderr`, of noise that is independent between
        pixels and of 5 % of the light, by which no galaxy is a Sérsic law (null for statmorph, which has none);
        `sersic_rhalf` (pixels, along the major axis); `sersic_ellipticity` (1 - b/a); `light` ("linear", "unstretched"
        or "as shown"); `flag` (0 good, 1 suspect, 2 failed, with null measurements) and `problem`, why it isn't 0.

    Raises
    ------
    InputError
        If photutils (or statmorph, where asked for) is not installed, or the arguments don't fit each other. What is
        wrong with one image is listed under `problem`.

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
    if method not in ("profile", "statmorph"):
        raise InputError(f'method is "profile" or "statmorph"; got {method!r}')
    if psf_shape not in ("moffat", "gaussian"):
        raise InputError(f'psf_shape is "moffat" or "gaussian"; got {psf_shape!r}')
    images = listed(images)
    shape = tuple(getattr(images, "shape", ()))
    if shape and (len(shape) not in (3, 4) or (len(shape) == 3 and shape[2] == 3)):
        raise InputError(f"images are (N, H, W, 3) pictures or (N, H, W) light; got shape {shape}")
    count = len(images)
    sigma = np.zeros(count) if psf_sigma is None else float_array(psf_sigma, "psf_sigma")
    if sigma.ndim == 0:
        sigma = np.full(count, sigma)
    if sigma.shape != (count,):
        raise InputError(f"psf_sigma is one number, or one an image; got shape {sigma.shape} for {count} images")
    if object_id is not None and len(object_id) != count:
        raise InputError(f"object_id has {len(object_id)} rows for {count} images")
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise InputError(f"jobs is a number of processes, 1 or more; got {jobs}")

    work = partial(_measured, settings=_Settings(method, psf_shape, undo_stretch, fits))
    parts = [slice(start, min(start + _PER_TASK, count)) for start in range(0, count, _PER_TASK)]
    tasks = ([images[row] for row in range(part.start, part.stop)] for part in parts)
    widths = (sigma[part] for part in parts)
    rows: list[dict[str, Any]] = []
    with progress(count, "Sérsic profiles", "galaxies") as told:
        if min(jobs, len(parts)) <= 1:
            for task, width in zip(tasks, widths, strict=True):
                rows += work(task, width)
                told.update(len(task))
        else:
            try:
                with worker_pool(min(jobs, len(parts))) as pool:
                    for found in pool.map(work, tasks, widths):
                        rows += found
                        told.update(len(found))
            except BrokenProcessPool as problem:
                raise TruemorphError(
                    "a process that measured profiles ended: take fewer jobs if memory ran out; "
                    'a script needs `if __name__ == "__main__":`'
                ) from problem
    return pl.concat([_names(images, object_id).to_frame(), pl.DataFrame(rows, schema=_SCHEMA)], how="horizontal")


_SCHEMA = {
    "sersic_n": pl.Float64,
    "sersic_n_stderr": pl.Float64,
    "sersic_rhalf": pl.Float64,
    "sersic_ellipticity": pl.Float64,
    "light": pl.String,
    "flag": pl.Int64,
    "problem": pl.String,
}


def _names(images: Any, object_id: Any) -> pl.Series:
    if object_id is not None:
        return pl.Series("object_id", object_id)
    if len(images) and all(isinstance(one, str | os.PathLike) for one in images):
        return pl.Series("object_id", [shown_path(one) for one in images])
    return pl.Series("row", range(len(images)), dtype=pl.Int64)


def _measured(images: list[Any], sigma: np.ndarray, settings: _Settings) -> list[dict[str, Any]]:
    """Rows of the result for some images."""
    return [_measured_one(image, float(width), settings) for image, width in zip(images, sigma, strict=True)]


def _measured_one(image: Any, sigma: float, settings: _Settings) -> dict[str, Any]:
    light = None
    try:
        if not 0 <= sigma < np.inf:
            raise InputError(f"psf_sigma is a width in pixels, 0 or more; got {sigma}")
        values, noise, light = _read(image, settings)
        return {"light": light, **_fitted(values, noise, sigma, settings)}
    except Exception as problem:  # of one image among thousands; the row says what it was
        return {"light": light, "flag": FAILED, "problem": reason(problem)}


def _read(image: Any, settings: _Settings) -> tuple[np.ndarray, np.ndarray, str]:
    """Light of one image, its noise beside that of the sky (infinite where there is no measurement), and its kind."""
    if isinstance(image, str | os.PathLike):
        data, name = read_image_file(image), shown_path(image)
    else:
        data, name = image, "image"
    if isinstance(data, bytes):
        if is_fits(data):
            bands = fits_values(data, settings.fits.hdu)
            image = bands if bands.ndim == 2 else bands[_GREEN]
        else:
            image = decode(data, name)
    pixels = np.asarray(image)
    if pixels.shape[2:] == (3,) and pixels.dtype == np.uint8:
        white = pixels.max(axis=2) >= _WHITE
        if not settings.undo_stretch:
            shown = pixels[..., _GREEN].astype(np.float64)
            return shown, np.where(white, np.inf, _LEVEL), "as shown"
        light = unstretch(pixels)[_GREEN].astype(np.float64)
        step = _worth_of_a_level()[pixels.mean(axis=2).astype(np.uint8)]
        return light, np.where(white, np.inf, _LEVEL * step), "unstretched"
    if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(
            f"an image is uint8 (H, W, 3), or float (H, W) on a linear scale; got {pixels.dtype} {pixels.shape}"
        )
    return pixels.astype(np.float64), np.where(np.isfinite(pixels), 0.0, np.inf), "linear"


@cache
def _worth_of_a_level() -> np.ndarray:
    """Light by which neighbouring grey levels differ, shape (256,)."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    return np.gradient(unstretch(ramp)[_GREEN, :, 0].astype(np.float64))


def _fitted(values: np.ndarray, noise: np.ndarray, sigma: float, settings: _Settings) -> dict[str, Any]:
    side = min(values.shape)
    if side < _SMALLEST_SIDE:
        raise InputError(f"only {side} pixels on a side, {_SMALLEST_SIDE} are needed")
    factor = 1
    if max(values.shape) > _MOST_PIXELS:
        factor = int(np.ceil(max(values.shape) / _MOST_PIXELS))
        # Not so far that the PSF is lost between pixels.
        factor = max(1, min(factor, int(sigma / _NARROWEST))) if sigma else factor
    values, noise = _binned(values, noise, factor)
    galaxy = _separated(values, noise)
    fit = _fit_profile if settings.method == "profile" else _fit_statmorph
    found, problems = fit(galaxy, sigma / factor, settings.psf_shape)
    found["sersic_rhalf"] *= factor
    problems = (*galaxy.problems, *problems)
    return {**found, "flag": SUSPECT if problems else GOOD, "problem": "; ".join(problems) or None}


def _binned(values: np.ndarray, noise: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of squares of pixels; one without a measurement makes its square one without."""
    if factor == 1:
        return values, noise
    height, width = (length // factor for length in values.shape)
    # Cut evenly, so that the middle stays the middle.
    top, left = ((length - count * factor) // 2 for length, count in zip(values.shape, (height, width), strict=True))
    cut = np.s_[top : top + height * factor, left : left + width * factor]
    squares = [part[cut].reshape(height, factor, width, factor) for part in (values, noise)]
    return squares[0].mean(axis=(1, 3)), squares[1].mean(axis=(1, 3))


@dataclass(frozen=True)
class _Galaxy:
    """A galaxy to fit: the source in the middle of an image.

    Attributes
    ----------
    light : array, shape (H, W)
        Sky subtracted.
    noise : array, shape (H, W)
        Standard deviation: of the sky, of what the image adds to it, and of the light itself.
    masked : array of bool, shape (H, W)
        Pixels that are not used.
    segments : array of int, shape (H, W)
        Sources, 0 where there is none.
    label : int
        The galaxy's.
    problems : tuple of str
        Why a fit may be wrong.
    """

    light: np.ndarray
    noise: np.ndarray
    masked: np.ndarray
    segments: np.ndarray
    label: int
    problems: tuple[str, ...]


def _separated(values: np.ndarray, noise: np.ndarray) -> _Galaxy:
    """Subtract the sky, find the galaxy in the middle, and mask what lies around it.

    `noise` is that beside the sky's, infinite where nothing was measured.
    """
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
        # photutils 3.0 draws a bar unless told not to, 3.1 says that it doesn't any more.
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
    label = int(labels.flat[np.argmin(np.where(labels > 0, distance, np.inf))])
    own = labels == label
    peak = np.argmax(np.where(own, smooth, -np.inf))
    if distance.flat[peak] > _REACH * min(height, width):
        raise InputError("no source in the middle of the image")
    around = ndimage.binary_dilation((labels > 0) & ~own, iterations=_GROWN) & ~own
    problems = []
    if beyond.mean() < _LEAST_SKY:
        problems.append("hardly any sky in the image")
    border = np.concatenate([own[[0, -1]].ravel(), own[:, [0, -1]].ravel()])
    if border.mean() > _MOST_EDGE:
        problems.append("the galaxy reaches the edge of the image")
    # A third of the radius out to which the galaxy was detected.
    if bad[distance < max(1.5, np.sqrt(own.sum() / np.pi) / 3)].mean() > _MOST_LOST:
        problems.append("the middle of the galaxy is white, or not finite")
    light = values - level
    total = np.sqrt(
        spread**2 + np.where(np.isinf(noise), 0, noise) ** 2 + (_MODEL_ERROR * np.clip(smooth - level, 0, None)) ** 2
    )
    return _Galaxy(light, total, bad | around, labels, label, tuple(problems))


def _clipped(values: np.ndarray) -> tuple[float, float]:
    """Median, and standard deviation by the median absolute deviation, of what lies within 3 σ of it."""
    for _ in range(3):
        middle = np.median(values)
        spread = 1.4826 * np.median(np.abs(values - middle))
        if spread == 0:
            break
        values = values[np.abs(values - middle) < 3 * spread]
    return float(middle), float(max(spread, 1e-12))


def _transfer(shape: tuple[int, int], sigma: float, psf_shape: PsfShape) -> np.ndarray:
    """Transfer function of the PSF on the frequencies of `rfft2`."""
    squared = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None, :] ** 2
    if psf_shape == "moffat":
        return moffat_transfer(squared, _FWHM * sigma)
    return np.exp(-2 * np.pi**2 * sigma**2 * squared)


class _SersicLaw:
    """A Sérsic law on the pixels of an image, integrated over them and convolved with the PSF.

    Its parameters are x, y (pixels from the middle), ln of the circularised half-light radius, ln n, and the two parts
    of the distortion (a - b) / (a + b), which, unlike an axis ratio and an angle, mean something at every value.
    """

    def __init__(self, shape: tuple[int, int], sigma: float, psf_shape: PsfShape) -> None:
        self._margin = int(np.ceil(_PSF_REACH * sigma))
        height, width = (fft.next_fast_len(length + 2 * self._margin, real=True) for length in shape)
        self._shape, self._whole = shape, (height, width)
        self._y = (np.arange(height) - self._margin - (shape[0] - 1) / 2)[:, None]
        self._x = (np.arange(width) - self._margin - (shape[1] - 1) / 2)[None, :]
        self._transfer = _transfer(self._whole, sigma, psf_shape) if sigma else None
        self._offsets = (np.arange(_FINE) + 0.5) / _FINE - 0.5

    def __call__(self, parameters: np.ndarray) -> np.ndarray:
        """Brightness relative to that at the half-light radius, shape of the image."""
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
        if self._transfer is not None:
            values = fft.irfft2(fft.rfft2(values) * self._transfer, s=self._whole)
        return values[self._margin :, self._margin :][: self._shape[0], : self._shape[1]]

    @staticmethod
    def _near(axis: np.ndarray, at: float) -> slice:
        middle = int(np.clip(np.round(at - axis[0]), _BOX, axis.size - 1 - _BOX))
        return slice(middle - _BOX, middle + _BOX + 1)


def _fit_profile(galaxy: _Galaxy, sigma: float, psf_shape: PsfShape) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fit a Sérsic law by least squares; brightness and sky, in which it is linear, are solved for at every step.

    `sigma` is in pixels, 0 for no PSF. Returns the columns of `measure_sersic`, and why they may be wrong.
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
        problems.append("the image doesn't tell the profile's parameters apart")
    radius = float(np.exp(log_radius) / np.sqrt(ratio))
    if radius < sigma:
        problems.append("smaller than the PSF")
    if radius > _LARGEST_RADIUS * min(galaxy.light.shape):
        problems.append("so large that the image shows no sky")
    return {
        "sersic_n": index,
        "sersic_n_stderr": stderr,
        "sersic_rhalf": radius,
        "sersic_ellipticity": float(1 - ratio),
    }, tuple(problems)


def _first_guess(galaxy: _Galaxy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters from the moments of the galaxy's segment, and how far they may go."""
    height, width = galaxy.light.shape
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    light = np.where(galaxy.segments == galaxy.label, np.clip(galaxy.light, 0, None), 0)
    total = light.sum()
    if not total > 0:
        raise InputError("the source in the middle has no light above the sky")
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


def _fit_statmorph(galaxy: _Galaxy, sigma: float, psf_shape: PsfShape) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fit a Sérsic law with statmorph; as `_fit_profile`, without error."""
    from astropy.utils.exceptions import AstropyUserWarning
    from statmorph import SourceMorphology

    side = 2 * int(np.ceil(_PSF_REACH * sigma)) + 1
    psf = fft.fftshift(fft.irfft2(_transfer((side, side), sigma, psf_shape), s=(side, side))) if sigma else None
    with warnings.catch_warnings():
        # Its flags say the same.
        warnings.filterwarnings("ignore", category=AstropyUserWarning, module=r"statmorph|astropy\.modeling")
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"statmorph|astropy\.modeling|photutils")
        measured = SourceMorphology(
            galaxy.light, galaxy.segments, galaxy.label, mask=galaxy.masked, weightmap=galaxy.noise, psf=psf
        )
    if measured.flag_sersic >= 2:
        raise InputError(f"statmorph found no fit (flag_sersic {measured.flag_sersic})")
    problems = ("statmorph calls the fit suspect",) if measured.flag_sersic else ()
    return {
        "sersic_n": float(measured.sersic_n),
        "sersic_n_stderr": None,
        "sersic_rhalf": float(measured.sersic_rhalf),
        "sersic_ellipticity": float(measured.sersic_ellip),
    }, problems
