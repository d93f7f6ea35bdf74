"""A population of galaxies: intrinsic properties, class, structure, and how well each is resolved.

This is the simple world of the demo: whether a galaxy is a disk depends on its luminosity only, and size,
distance and PSF are independent of luminosity, so that class does not depend on α, as the paper assumes. α has median
16.5, close to the 16.8 of real Galaxy Zoo 2. It is
easier than the sky: few overlapping types, no neighbours, no magnitude limit.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
from astropy import units as u
from astropy.cosmology import WMAP9
from scipy.special import gammaincinv

from truemorph.catalogs.resolution import resolution

# A galaxy's petrosian ratio η at the Petrosian radius (SDSS's definition).
_PETROSIAN_RATIO = 0.2


@cache
def _petrosian_grid() -> tuple[np.ndarray, np.ndarray]:
    """R_petro / R_e of Sérsic profiles on a grid of n."""
    indices = np.linspace(0.5, 6.5, 61)
    radius = np.geomspace(1e-4, 10, 6000)
    ratios = []
    for n in indices:
        profile = np.exp(-gammaincinv(2 * n, 0.5) * radius ** (1 / n))
        inside = np.concatenate(
            [[0], np.cumsum(np.diff(radius) * 0.5 * ((profile * radius)[1:] + (profile * radius)[:-1]))]
        )
        ratio = profile / np.maximum(2 * inside / radius**2, 1e-300)
        ratios.append(np.interp(-_PETROSIAN_RATIO, -ratio[1:], radius[1:]))
    return indices, np.array(ratios)


def petrosian_over_effective(sersic_index: np.ndarray) -> np.ndarray:
    """R_petro / R_e of an ideal Sérsic profile, where the local surface brightness is 0.2 of the mean inside.

    Parameters
    ----------
    sersic_index : array
        n between 0.5 and 6.5.

    Returns
    -------
    array

    Examples
    --------
    >>> petrosian_over_effective(np.array([1.0, 4.0])).round(2)
    array([2.16, 1.82])
    """
    return np.interp(sersic_index, *_petrosian_grid())


def simulate_galaxies(n: int, seed: int = 0) -> pl.DataFrame:
    """Draw a population.

    Parameters
    ----------
    n : int
        Number of galaxies.
    seed : int

    Returns
    -------
    polars.DataFrame
        `object_id` (int64), `truth` (0 smooth, 1 disk), intrinsic `M_r` (mag), `radius_kpc` (Petrosian) and
        `redshift`; observed `radius` (Petrosian, arcsec), `psf_fwhm` (arcsec), `alpha`, and the structure that
        `observe.render` draws: `sersic_index`, `axis_ratio`, `position_angle` (rad), `bulge_fraction`,
        `bulge_size` (how many times smaller than the disk),
        `arm_strength`, `arm_number`, `pitch` (rad), `arm_phase` (rad), `colour` (g - i, mag) and
        `signal_to_noise`.

    Examples
    --------
    >>> simulate_galaxies(100, seed=1)["alpha"].median() > 5
    True
    """
    rng = np.random.default_rng(seed)
    magnitude = rng.normal(-21, 1, n)
    radius_kpc = rng.lognormal(np.log(9.0), 0.3, n)
    redshift = rng.uniform(0.02, 0.085, n)
    psf_fwhm = np.clip(rng.normal(1.3, 0.15, n), 0.9, 1.9)
    kpc_per_arcsec = WMAP9.kpc_proper_per_arcmin(redshift).to_value(u.kpc / u.arcsec)
    radius = radius_kpc / kpc_per_arcsec
    disk = rng.random(n) < 1 / (1 + np.exp(-(0.8 * (magnitude + 21) + 0.6)))
    lenticular = disk & (rng.random(n) < 0.15)

    def by_class(for_disk: np.ndarray, for_smooth: np.ndarray) -> np.ndarray:
        return np.where(disk, for_disk, for_smooth)

    bulge = np.where(lenticular, rng.uniform(0.3, 0.75, n), rng.beta(1.5, 3.5, n) * 0.8)
    arms = np.where(lenticular, 0.0, rng.uniform(0.08, 0.7, n))
    inclination_q = np.sqrt(0.15**2 + (1 - 0.15**2) * rng.random(n) ** 2)
    return pl.DataFrame(
        {
            "object_id": 587700000000000000 + np.arange(n, dtype=np.int64) * 1009 + 17,
            "truth": disk.astype(np.int64),
            "M_r": magnitude,
            "radius_kpc": radius_kpc,
            "redshift": redshift,
            "radius": radius,
            "psf_fwhm": psf_fwhm,
            "alpha": resolution(radius, psf_fwhm),
            "sersic_index": by_class(rng.uniform(1.5, 4.5, n), rng.uniform(1.3, 4.8, n)),
            "axis_ratio": by_class(inclination_q, rng.uniform(0.4, 1.0, n)),
            "position_angle": rng.uniform(0, np.pi, n),
            "bulge_size": rng.uniform(1.4, 4.0, n),
            "bulge_fraction": by_class(bulge, np.ones(n)),
            "arm_strength": by_class(arms, np.zeros(n)),
            "arm_number": rng.choice([2, 2, 3, 4], n),
            "pitch": np.deg2rad(rng.uniform(10, 30, n)),
            "arm_phase": rng.uniform(0, 2 * np.pi, n),
            "colour": by_class(rng.normal(0.85, 0.2, n), rng.normal(1.0, 0.15, n)),
            "signal_to_noise": rng.lognormal(np.log(15), 0.4, n),
        }
    )
