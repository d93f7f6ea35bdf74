"""Fits of a Sérsic law to a galaxy: by least squares with a law integrated over pixels, and by statmorph."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from scipy import fft, optimize
from scipy.special import gammaincinv

from truemorph.errors import InputError
from truemorph.images.psf import moffat_transfer
from truemorph.images.sources import Source

PsfShape = Literal["moffat", "gaussian"]

_FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in σ
_PSF_REACH = 6  # σ
_INDICES = (0.2, 8.0)
_SMALLEST_RADIUS = 0.2  # pixels
_LARGEST_RADIUS = 0.25  # of the side
_FINE, _BOX = 7, 5  # points a pixel each way, within so many pixels of the centre


def _transfer(shape: tuple[int, int], sigma: float, psf_shape: PsfShape) -> np.ndarray:
    """Transfer function of the PSF on the frequencies of `rfft2`."""
    squared = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None, :] ** 2
    if psf_shape == "moffat":
        return moffat_transfer(squared, _FWHM * sigma)
    return np.exp(-2 * np.pi**2 * sigma**2 * squared)


class SersicLaw:
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


def fit_profile(source: Source, sigma: float, psf_shape: PsfShape) -> tuple[dict[str, float], tuple[str, ...]]:
    """Fit a Sérsic law by least squares; brightness and sky, in which it is linear, are solved for at every step.

    Parameters
    ----------
    source : Source
    sigma : float
        σ of the PSF, FWHM / 2.355, in pixels; 0 for none.
    psf_shape : {"moffat", "gaussian"}

    Returns
    -------
    found : dict
        `sersic_n`, `sersic_n_stderr`, `sersic_rhalf` (pixels, along the major axis), `sersic_ellipticity`.
    doubts : tuple of str
        Why they may be wrong.

    Raises
    ------
    InputError
        If the source has no light.
    """
    kept = ~source.masked
    data, weight = source.light[kept], 1 / source.noise[kept]
    law = SersicLaw(source.light.shape, sigma, psf_shape)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        design = np.stack([law(parameters)[kept] * weight, weight], axis=1)
        solved = np.linalg.solve(design.T @ design, design.T @ (data * weight))
        return data * weight - design @ solved

    start, low, high = _first_guess(source)
    found = optimize.least_squares(
        residuals, start, bounds=(low, high), x_scale=[1, 1, 0.3, 0.3, 0.2, 0.2], xtol=1e-4, ftol=1e-5, max_nfev=60
    )
    _, _, log_radius, log_index, g1, g2 = found.x
    distortion = min(np.hypot(g1, g2), 0.99)
    ratio = (1 - distortion) / (1 + distortion)
    index = float(np.exp(log_index))
    doubts = []
    if not found.success:
        doubts.append("the fit did not converge")
    if np.any(found.active_mask):
        doubts.append("a parameter is at the edge of its range")
    try:
        stderr = index * float(np.sqrt(np.linalg.inv(found.jac.T @ found.jac)[3, 3]))
    except np.linalg.LinAlgError:
        stderr = float("nan")
        doubts.append("the image doesn't tell the profile's parameters apart")
    radius = float(np.exp(log_radius) / np.sqrt(ratio))
    if radius < sigma:
        doubts.append("smaller than the PSF")
    if radius > _LARGEST_RADIUS * min(source.light.shape):
        doubts.append("so large that the image shows no sky")
    return {
        "sersic_n": index,
        "sersic_n_stderr": stderr,
        "sersic_rhalf": radius,
        "sersic_ellipticity": float(1 - ratio),
    }, tuple(doubts)


def _first_guess(source: Source) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters from the moments of the galaxy's segment, and how far they may go."""
    height, width = source.light.shape
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    light = np.where(source.segments == source.label, np.clip(source.light, 0, None), 0)
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


def fit_statmorph(source: Source, sigma: float, psf_shape: PsfShape) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fit a Sérsic law with statmorph (Rodriguez-Gomez et al. 2019, MNRAS 483, 4140); as `fit_profile`, without error.

    Raises
    ------
    InputError
        If statmorph finds no fit.
    """
    from astropy.utils.exceptions import AstropyUserWarning
    from statmorph import SourceMorphology

    side = 2 * int(np.ceil(_PSF_REACH * sigma)) + 1
    psf = fft.fftshift(fft.irfft2(_transfer((side, side), sigma, psf_shape), s=(side, side))) if sigma else None
    with warnings.catch_warnings():
        # Its flags say the same.
        warnings.filterwarnings("ignore", category=AstropyUserWarning, module=r"statmorph|astropy\.modeling")
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"statmorph|astropy\.modeling|photutils")
        measured = SourceMorphology(
            source.light, source.segments, source.label, mask=source.masked, weightmap=source.noise, psf=psf
        )
    if measured.flag_sersic >= 2:
        raise InputError(f"statmorph found no fit (flag_sersic {measured.flag_sersic})")
    doubts = ("statmorph calls the fit suspect",) if measured.flag_sersic else ()
    return {
        "sersic_n": float(measured.sersic_n),
        "sersic_n_stderr": None,
        "sersic_rhalf": float(measured.sersic_rhalf),
        "sersic_ellipticity": float(measured.sersic_ellip),
    }, doubts
