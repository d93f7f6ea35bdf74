"""Measure shapes on colour images: axis ratio, concentration, colour, and contrast of structure.

Quick measures on the stretched brightness, for annotators of simulated galaxies and for classifiers that need features
if no catalogue has them. They depend on the PSF and the stretch, so they are not photometry.
"""

import numpy as np
import polars as pl

_ANNULI = 24
_BORDER = 0.12  # width of the border where the sky is measured, fraction of the image
_REACH = 0.40  # maximum distance of the galaxy from the centre, fraction of the image
_DETECTED = 3.0  # in units of the sky noise
_CLIP = 3.0
_OUTERMOST = 3.2  # radius of the annuli, in standard deviations along the major axis
_BATCH = 256


def measure_shapes(images: np.ndarray) -> pl.DataFrame:
    """Measure the central galaxy of each image, uint8 (N, S, S, 3).

    Columns: `axis_ratio` (second moments of the detected pixels), `size` (half-light radius over image width),
    `concentration` (radius of 90 % over that of 50 % of the flux as stretched), `colour` (log10 of red over blue flux),
    `contrast` (rms residual from elliptical isophotes over mean brightness, noise subtracted).
    """
    return pl.concat(_measure(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH))


def _measure(images: np.ndarray) -> pl.DataFrame:
    n, side = images.shape[:2]
    colour = images.astype(np.float32)
    border = max(2, round(_BORDER * side))
    edge = np.ones((side, side), bool)
    edge[border:-border, border:-border] = False
    sky = np.median(colour[:, edge], axis=1)
    colour -= sky[:, None, None, :]
    grey = colour.mean(axis=3)
    # Half of the sky pixels are within 0.67 σ of the median, which is robust to stars.
    noise = np.maximum(np.median(np.abs(grey[:, edge]), axis=1) / 0.6745, 0.5)
    # Use the fainter of each pixel and its opposite: galaxies are symmetric under 180° rotation, stars are not.
    grey = np.minimum(grey, grey[:, ::-1, ::-1]) + 0.564 * noise[:, None, None]  # mean of the minimum of two, in σ
    noise = noise * np.sqrt(1 - 1 / np.pi)  # and its standard deviation
    pixel_noise = noise[:, None, None]
    axis = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / side
    x, y = axis, axis[:, None]
    near = x**2 + y**2 < _REACH**2

    # Second moments of detected pixels within three times the previous ellipse, iterated.
    ratio, angle, scale = np.ones(n, np.float32), np.zeros(n, np.float32), np.full(n, _REACH / 3, np.float32)
    for _ in range(3):
        within = _elliptical(x, y, ratio, angle) < 3 * scale[:, None, None]
        weight = grey * ((grey > _DETECTED * pixel_noise) & near & within)
        total = np.maximum(weight.sum(axis=(1, 2)), 1e-6)
        xx, yy, xy = ((weight * product).sum(axis=(1, 2)) / total for product in (x * x, y * y, x * y))
        spread = np.sqrt((xx - yy) ** 2 / 4 + xy**2)
        long, short = (xx + yy) / 2 + spread, np.maximum((xx + yy) / 2 - spread, 1e-6)
        ratio = np.clip(np.sqrt(short / np.maximum(long, 1e-6)), 0.05, 1)
        angle = 0.5 * np.arctan2(2 * xy, xx - yy)
        scale = np.maximum(np.sqrt(long), 1.5 / side)

    radius = _elliptical(x, y, ratio, angle) / scale[:, None, None]  # in units of the major axis' standard deviation
    bins = np.minimum((radius * (_ANNULI / _OUTERMOST)).astype(int), _ANNULI)  # the rest in one more
    where = (np.arange(n)[:, None, None] * (_ANNULI + 1) + bins).ravel()

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(where, values.ravel(), n * (_ANNULI + 1))

    def mean(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Mean of each pixel's annulus."""
        return (summed(values * kept) / np.maximum(summed(kept), 1))[where].reshape(values.shape)

    residual = grey - mean(grey, np.ones_like(grey))
    # Clip residuals of stars but not structure, by the spread of each annulus.
    spread = np.sqrt(mean(residual**2, np.ones_like(grey)))
    kept = np.abs(residual) < _CLIP * np.maximum(spread, pixel_noise)
    model = mean(grey, kept)
    residual = grey - model
    # Structure is measured outside the nucleus and above the noise.
    disk = kept & (radius > 0.5) & (radius < 2.4) & (model > 2 * pixel_noise)
    count = np.maximum(disk.sum(axis=(1, 2)), 1)
    variance = (disk * residual**2).sum(axis=(1, 2)) / count - noise**2
    brightness = (disk * model).sum(axis=(1, 2)) / count
    contrast = np.sqrt(np.maximum(variance, 0)) / np.maximum(brightness, noise)

    flux = np.clip(np.minimum(grey, 2 * model + 3 * pixel_noise), 0, None)
    growth = np.cumsum(summed(flux * (near & (radius < _OUTERMOST))).reshape(n, -1)[:, :_ANNULI], axis=1)
    fraction = growth / np.maximum(growth[:, -1:], 1e-6)
    edges = (np.arange(_ANNULI) + 1) * (_OUTERMOST / _ANNULI)
    half, most = (np.array([np.interp(level, row, edges) for row in fraction]) for level in (0.5, 0.9))
    light = ((weight > 0)[..., None] * colour).sum(axis=(1, 2))
    columns = {
        "axis_ratio": ratio,
        "size": half * scale,
        "concentration": most / np.maximum(half, 1e-3),
        "colour": np.log10(np.maximum(light[:, 0], 1) / np.maximum(light[:, 2], 1)),
        "contrast": contrast,
    }
    return pl.DataFrame(columns).cast(pl.Float64)


def _elliptical(x: np.ndarray, y: np.ndarray, ratio: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Elliptical radius along the major axis, shape (N, S, S)."""
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    along, across = x * cos + y * sin, y * cos - x * sin
    return np.sqrt(along**2 + (across / ratio[:, None, None]) ** 2)
