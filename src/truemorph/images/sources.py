"""The galaxy in the middle of an image of light: its sky, its noise, and its neighbours, which are masked."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from truemorph.errors import InputError

_DETECTED = 2.0  # noise of the smoothed image
_CONTRAST = 0.02  # of a neighbour to be taken off its parent
_SMALLEST_SOURCE = 9  # pixels
_GROWN = 2  # pixels around a neighbour that are masked with it
_LEAST_SKY = 0.05  # of the pixels
_REACH = 0.15  # of the side: how far from the middle a galaxy's peak may be
_MOST_EDGE = 0.05  # of the border's pixels
_MOST_LOST = 0.2  # of the pixels in the middle of the galaxy
_MODEL_ERROR = 0.05  # of the light: no galaxy is a Sérsic law, nor a PSF what it is said to be


@dataclass(frozen=True)
class Source:
    """A galaxy to fit.

    Attributes
    ----------
    light : array, shape (H, W)
        Sky subtracted.
    noise : array, shape (H, W)
        Standard deviation: of the sky, of what the image adds to it, and of the light itself.
    masked : array of bool, shape (H, W)
        Pixels that say nothing of this galaxy.
    segments : array of int, shape (H, W)
        Sources, 0 where there is none.
    label : int
        The galaxy's.
    doubts : tuple of str
        Why a fit may be wrong.
    """

    light: np.ndarray
    noise: np.ndarray
    masked: np.ndarray
    segments: np.ndarray
    label: int
    doubts: tuple[str, ...]


def separate(values: np.ndarray, noise: np.ndarray) -> Source:
    """Subtract the sky, and find the galaxy in the middle and what lies around it.

    Parameters
    ----------
    values : array of float, shape (H, W)
        Light; non-finite pixels are masked.
    noise : array of float, shape (H, W)
        Standard deviation beside the sky's, infinite where nothing was measured.

    Raises
    ------
    InputError
        If there is no source in the middle.
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
    doubts = []
    if beyond.mean() < _LEAST_SKY:
        doubts.append("hardly any sky in the image")
    border = np.concatenate([own[[0, -1]].ravel(), own[:, [0, -1]].ravel()])
    if border.mean() > _MOST_EDGE:
        doubts.append("the galaxy reaches the edge of the image")
    # A third of the radius out to which the galaxy was detected.
    if bad[distance < max(1.5, np.sqrt(own.sum() / np.pi) / 3)].mean() > _MOST_LOST:
        doubts.append("the middle of the galaxy is white, or not finite")
    light = values - level
    total = np.sqrt(
        spread**2 + np.where(np.isinf(noise), 0, noise) ** 2 + (_MODEL_ERROR * np.clip(smooth - level, 0, None)) ** 2
    )
    return Source(light, total, bad | around, labels, label, tuple(doubts))


def _clipped(values: np.ndarray) -> tuple[float, float]:
    """Median, and standard deviation by the median absolute deviation, of what lies within 3 σ of it."""
    for _ in range(3):
        middle = np.median(values)
        spread = 1.4826 * np.median(np.abs(values - middle))
        if spread == 0:
            break
        values = values[np.abs(values - middle) < 3 * spread]
    return float(middle), float(max(spread, 1e-12))
