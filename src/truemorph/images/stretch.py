"""Asinh stretch of three bands to colour images (Lupton et al. 2004, PASP 116, 133), and its inverse.

Red, green and blue are i, r and g, stretched together by an asinh of their mean, so that the hue does not change with
brightness. The constants are chosen so that brightness, background noise and stars are similar to those of real Galaxy
Zoo 2 JPEGs (docs/simulator.md).
"""

import numpy as np

# From nanomaggies per frame pixel (0.396 arcsec) in i, r, g to a common scale.
_GAINS = (0.97, 1.23, 1.93)
_SOFTENING, _WHITE, _PEDESTAL = 0.10, 55.0, 0.0043


def stretch(light: np.ndarray) -> np.ndarray:
    """Convert i, r, g in nanomaggies per frame pixel, shape (3, S, S), to a colour image, uint8 (S, S, 3)."""
    scaled = light * np.array(_GAINS, light.dtype)[:, None, None] + _PEDESTAL
    mean = np.maximum(scaled.mean(axis=0), 1e-4)
    scaled *= _WHITE * np.arcsinh(mean / _SOFTENING) / mean
    # Scale all bands down if one is saturated, to preserve the hue (Lupton et al. 2004).
    scaled *= np.minimum(1, 255 / np.maximum(scaled.max(axis=0), 1))
    return np.ascontiguousarray(np.round(np.clip(scaled, 0, 255)).astype(np.uint8).transpose(1, 2, 0))


def unstretch(pixels: np.ndarray) -> np.ndarray:
    """Convert a colour image, uint8 (S, S, 3), to flux (3, S, S), except what rounding and saturation removed.

    For an asinh stretch other than `stretch`, the scale is only approximately linear.
    """
    shown = pixels.transpose(2, 0, 1).astype(np.float32)
    mean = np.maximum(shown.mean(axis=0), 1e-3)
    shown *= _SOFTENING * np.sinh(mean / _WHITE) / mean
    return (shown - _PEDESTAL) / np.array(_GAINS, np.float32)[:, None, None]
