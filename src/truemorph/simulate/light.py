"""The light of one galaxy on a grid of pixels, before atmosphere and telescope: bulge and bar, disk, young stars.

Spiral structure is a sum of logarithmic spirals: one mode for a grand design, many of random number, pitch and
phase for a flocculent disk, and young stars follow the exponential of that sum, as star formation follows density.
Its winding is that of log-spirals, φ = ln r / tan(pitch).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from truemorph.simulate.galaxies import bulge_axis_ratio
from truemorph.simulate.profiles import sersic_area, sersic_b

Galaxy = Mapping[str, float]
# The steep centre of a profile: this many pixels on a side are averaged over this many points each way.
_CENTRE, _POINTS = 12, 6
_FLOCCULENT_MODES = 5
_SMALLEST_AXIS = 0.6  # pixels: thinner disks would alias


def _squared_radius(x: np.ndarray, y: np.ndarray, angle: float, ratio: float) -> np.ndarray:
    """Squared elliptical radius along the major axis."""
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return along**2 + (across / ratio) ** 2


def _sampled(axis: np.ndarray, profile: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """A profile at pixel centres, averaged within the pixels around the galaxy's centre."""
    values = profile(axis[None, :], axis[:, None])
    middle = slice(axis.size // 2 - _CENTRE // 2, axis.size // 2 + _CENTRE // 2)
    offsets = (np.arange(_POINTS, dtype=axis.dtype) + 0.5) / _POINTS - 0.5
    fine = (axis[middle, None] + offsets * (axis[1] - axis[0])).ravel()
    values[middle, middle] = (
        profile(fine[None, :], fine[:, None]).reshape(_CENTRE, _POINTS, _CENTRE, _POINTS).mean(axis=(1, 3))
    )
    return values


def sersic_light(axis: np.ndarray, index: float, radius: float, ratio: float, angle: float) -> np.ndarray:
    """A Sérsic profile of unit total light, per unit area.

    Parameters
    ----------
    axis : array, shape (S,)
        Positions of pixel centres from the galaxy's centre, the same along x and y.
    index, radius, ratio, angle : float
        n, R_e along the major axis, axis ratio, position angle (rad).

    Returns
    -------
    array, shape (S, S)
    """
    b = float(sersic_b(index))
    central = 1 / (float(sersic_area(index)) * radius**2 * ratio)
    power = np.float32(0.5 / index)

    def profile(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        squared = _squared_radius(x / radius, y / radius, angle, ratio)
        return np.exp(-b * np.exp(power * np.log(squared + np.float32(1e-8)))) * np.float32(central)

    return _sampled(axis, profile)


def _spiral(plane: np.ndarray, galaxy: Galaxy, rng: np.random.Generator) -> np.ndarray:
    """Density contrast of the arms, mean about 0, variance about 1; `plane` is x + iy in the disk, scale lengths."""
    radius = np.abs(plane) + np.float32(1e-3)
    log_radius = np.log(radius)
    around = (plane / radius).astype(np.complex64)
    order = galaxy["arm_order"]
    powers = {1: around}
    for k in range(2, 10):
        powers[k] = powers[k - 1] * around

    def mode(number: int, pitch: float, phase: float) -> np.ndarray:
        winding = np.float32(number / np.tan(pitch)) * log_radius + np.float32(phase)
        return powers[number].real * np.cos(winding) + powers[number].imag * np.sin(winding)

    number = int(galaxy["arm_number"])
    phases = rng.uniform(0, 2 * np.pi, _FLOCCULENT_MODES + 2)
    # The second harmonic sharpens grand-design arms.
    contrast = mode(number, galaxy["pitch"], phases[0]) * np.float32(1.2 * order + 0.15)
    if 2 * number <= 9:
        contrast += mode(2 * number, galaxy["pitch"], 2 * phases[0]) * np.float32(0.45 * order)
    for phase, spread in zip(phases[2:], rng.normal(1, 0.25, _FLOCCULENT_MODES), strict=True):
        number = int(rng.integers(2, 10))
        pitch = float(np.clip(galaxy["pitch"] * spread * 1.3, 0.1, 0.9))
        patches = mode(number, pitch, phase)
        contrast += patches * np.float32(1.1 * (1 - order) / np.sqrt(_FLOCCULENT_MODES / 2) + 0.1)
    return contrast


def components(
    galaxy: Galaxy, axis: np.ndarray, pixel: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Light of bulge with bar, of the old disk and of young stars, per square arcsec, for a total light of 1.

    Parameters
    ----------
    galaxy : mapping
        One row of `simulate_galaxies`.
    axis : array of float32, shape (S,)
        Positions of pixel centres in arcsec, the same along x and y.
    pixel : float
        Their distance.
    rng : numpy.random.Generator
        Draws the phases of the arms.

    Returns
    -------
    bulge, disk, young : arrays, shape (S, S)
    """
    unit, angle, ratio = galaxy["unit_length"], galaxy["position_angle"], galaxy["axis_ratio"]
    share = galaxy["bulge_fraction"]
    roundness = float(bulge_axis_ratio(share, ratio))
    bulge = sersic_light(axis, galaxy["sersic_index"], galaxy["bulge_radius"] * unit, roundness, angle)
    bulge *= np.float32(share)
    if share >= 1:
        none = np.zeros_like(bulge)
        return bulge, none, none
    ratio = max(ratio, _SMALLEST_AXIS * pixel / unit)
    cos, sin = np.float32(np.cos(angle) / unit), np.float32(np.sin(angle) / unit)
    x, y = axis[None, :], axis[:, None]
    plane = (x * cos + y * sin) + 1j * ((y * cos - x * sin) / np.float32(ratio))
    radius = np.abs(plane)
    # Per square arcsec as projected; exponential disk of unit light has 1 / 2π in its centre.
    exponential = np.exp(-radius) * np.float32(1 / (2 * np.pi * unit**2 * ratio))
    bar_share = galaxy["bar_fraction"] * (1 - share)
    disk_share = 1 - share - bar_share
    if bar_share > 0:
        turned = plane * np.exp(np.complex64(-1j * galaxy["bar_angle"]))
        length = np.float32(galaxy["bar_length"])
        # A box of generalised ellipses, flat inside (Athanassoula et al. 1990), four times longer than wide.
        boxy = (np.abs(turned.real) / length) ** 3 + (np.abs(turned.imag) / (length / 4)) ** 3
        bar = np.exp(-boxy)
        bulge += bar * np.float32(bar_share / (bar.sum() * pixel**2))
    if galaxy["ring_strength"] > 0:
        ring = np.exp(-0.5 * ((radius - np.float32(galaxy["ring_radius"])) / np.float32(0.22)) ** 2)
        ring_light = exponential * (1 + np.float32(2 * galaxy["ring_strength"]) * ring)
    else:
        ring_light = exponential
    young_share = galaxy["young_fraction"] * disk_share
    if young_share > 0:
        contrast = _spiral(plane, galaxy, rng)
        beyond_bulge = 1 - np.exp(-((radius / np.float32(0.6)) ** 2))
        strength = np.float32(galaxy["arm_strength"]) * beyond_bulge
        young = ring_light * np.exp(strength * contrast - 0.5 * strength**2)
        disk = exponential * (1 + np.float32(0.25) * np.clip(strength * contrast, -1, 1.5))
        young *= np.float32(young_share / (young.sum() * pixel**2))
        disk_share -= young_share
    else:
        young = np.zeros_like(exponential)
        disk = ring_light
    disk *= np.float32(disk_share / (disk.sum() * pixel**2))
    if galaxy["dust"] > 0 and ratio < 0.35:
        # A lane along the midplane, a little to one side, of what is nearly edge-on.
        height = plane.imag * np.float32(ratio)
        width = np.float32(0.09)
        lane = np.exp(-0.5 * ((height - np.float32(0.35) * width) / width) ** 2) * (radius < 3)
        kept = 1 - np.float32(0.55 * galaxy["dust"] * (1 - ratio / 0.35)) * lane
        bulge, disk, young = bulge * kept, disk * kept, young * kept
    return bulge, disk, young
