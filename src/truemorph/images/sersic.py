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
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.arrays import float_array
from truemorph.errors import InputError, TruemorphError, reason, require_extra
from truemorph.images.decode import AS_THEY_ARE, FitsReading, decode, fits_values, is_fits, read_image_file
from truemorph.images.inputs import listed
from truemorph.images.sersicfit import PsfShape, fit_profile, fit_statmorph
from truemorph.images.sources import separate
from truemorph.images.stretch import unstretch
from truemorph.io import shown_path
from truemorph.progress import progress
from truemorph.workers import worker_pool

Method = Literal["profile", "statmorph"]
GOOD, SUSPECT, FAILED = 0, 1, 2

_GREEN = 1  # the r band of SDSS's colour pictures
_SMALLEST = 16
_MOST_PIXELS = 128  # on a side: larger images are binned before the fit
_NARROWEST = 1.0  # σ of the PSF after binning, pixels
_WHITE = 254  # from here on brightness is lost
_LEVEL = 1.0  # grey levels by which a picture's brightness is uncertain: rounding and JPEG
_PER_TASK = 4


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
    if side < _SMALLEST:
        raise InputError(f"only {side} pixels on a side, {_SMALLEST} are needed")
    factor = 1
    if max(values.shape) > _MOST_PIXELS:
        factor = int(np.ceil(max(values.shape) / _MOST_PIXELS))
        # Not so far that the PSF is lost between pixels.
        factor = max(1, min(factor, int(sigma / _NARROWEST))) if sigma else factor
    values, noise = _binned(values, noise, factor)
    source = separate(values, noise)
    fit = fit_profile if settings.method == "profile" else fit_statmorph
    found, doubts = fit(source, sigma / factor, settings.psf_shape)
    found["sersic_rhalf"] *= factor
    doubts = (*source.doubts, *doubts)
    return {**found, "flag": SUSPECT if doubts else GOOD, "problem": "; ".join(doubts) or None}


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
