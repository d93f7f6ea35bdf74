"""A few numbers for what an image looks like, to compare the galaxies of two surveys; this is no photometry.

Brightness and colours are those of the light above the sky. Sharpness and structure compare the differences of pixels
of the galaxy over one, three and eight pixels: a PSF lowers the sharpness, noise raises it.
"""

import numpy as np

APPEARANCE = ("brightness", "red / green", "green / blue", "sky", "size", "noise", "sharpness", "structure")
_ROWS = 24  # of an image, at least: a part of the pixels is enough, and takes less time
_SKY, _GALAXY = 1.0, 0.5  # the corners, and the central part, in units of half the width
_FAINTEST, _STAR = 0.1, 16  # grey levels: what is added to each measure, and the largest difference in the sky


def appearance(pixels: np.ndarray) -> np.ndarray:
    """Measure images as a network takes them, uint8 (N, S, S, 3); return logarithms of `APPEARANCE`, (N, 8)."""
    side = pixels.shape[1]
    step = max(1, side // _ROWS)
    lines = slice(step // 2, None, step)
    away = np.abs(np.arange(side) - (side - 1) / 2) * 2 / side
    radius = np.hypot(away[lines, None], away)
    rows = pixels[:, lines, :, 1].astype(np.int16)

    def differences(distance: int, where: np.ndarray) -> np.ndarray:
        both = where[:, distance:] & where[:, :-distance]
        return np.abs(rows[:, :, distance:][:, both] - rows[:, :, :-distance][:, both])

    noise = np.minimum(differences(1, radius > _SKY), _STAR).mean(axis=1) + _FAINTEST
    distances = (min(lag, max(1, side // 4)) for lag in (1, 3, 8))  # within the galaxy of small images
    fine, middle, coarse = (differences(distance, radius < _GALAXY).mean(axis=1) + _FAINTEST for distance in distances)
    radius, colours = radius[:, lines], np.moveaxis(pixels[:, lines, lines], 3, 0)
    sky = np.array([np.median(colour[:, radius > _SKY], axis=1) for colour in colours])
    red, green, blue = np.maximum(colours.mean(axis=(2, 3)) - sky, 0) + _FAINTEST
    light = np.maximum(colours[1] - (sky[1] + 2 * noise)[:, None, None], 0)
    total = light.sum(axis=(1, 2)) + _FAINTEST
    size = (light * radius).sum(axis=(1, 2)) / total + 1 / side
    measures = total / radius.size, red / green, green / blue, sky[1] + 1, size, noise, fine / middle, middle / coarse
    return np.log(np.column_stack(measures))
