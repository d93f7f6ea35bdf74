"""Point spread functions, as transfer functions."""

from __future__ import annotations

import numpy as np


def moffat_transfer(squared_frequency: np.ndarray, fwhm: float) -> np.ndarray:
    """Transfer function of a Moffat PSF with β = 3.5, from ν² and the FWHM: (1 + k + k²/3) exp(-k), k = 2π ν r_0."""
    radius = fwhm / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    k = np.float32(2 * np.pi * radius) * np.sqrt(squared_frequency)
    return (1 + k + k * k * np.float32(1 / 3)) * np.exp(-k)
