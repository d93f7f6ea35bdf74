"""A population of galaxies: luminosity, size, distance, type, structure, colours, and how well each is resolved.

The mixture follows what is known of the local universe, roughly and with round numbers: a Schechter luminosity
function (Blanton et al. 2003, ApJ 592, 819), ellipticals that grow commoner with luminosity, sizes at fixed
luminosity after Shen et al. 2003 (MNRAS 343, 978), Galaxy Zoo 2's limits r < 17 and R90 > 3 arcsec (Willett et al.
2013), and SDSS's seeing, one value a field. Disks are fainter and larger than ellipticals, so class, intrinsic
properties and α hang together as they do in SDSS. `confounded=False` keeps the galaxies and draws α on its own:
their distances follow.

Disk means here what the paper means by it (arXiv:2308.11007): spirals and lenticulars.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from astropy import units as u
from astropy.cosmology import WMAP9

from truemorph.catalogs.physical import FWHM_PER_SIGMA, resolution
from truemorph.errors import InputError
from truemorph.simulate.profiles import aperture_radii

ELLIPTICAL, LENTICULAR, SPIRAL = "elliptical", "lenticular", "spiral"
FAINTEST, SMALLEST_R90 = 17.0, 3.0  # Galaxy Zoo 2's limits: r magnitude, arcsec
_KNEE, _FAINT_SLOPE = -21.2, -1.05  # Schechter, r band, h = 0.7
_BRIGHTEST, _DIMMEST = -24.0, -17.5
_NEAREST, _FARTHEST = 0.005, 0.25
_SEEING, _SEEING_SPREAD = 1.3, 0.12  # arcsec; of its logarithm
_PER_FIELD = 6
_R90_ERROR = 0.06
# What α of the confounded population looks like, for populations without confounding.
_ALPHA, _ALPHA_SPREAD = 15.0, 0.42
_LARGEST_SCALE = 6.5  # kpc per arcsec, z of about 0.6


def _sizes(rng: np.random.Generator, magnitude: np.ndarray, smooth: np.ndarray) -> np.ndarray:
    """R50 in kpc (Shen et al. 2003, eqs 14-16 and their r-band constants)."""
    early = -0.4 * 0.60 * magnitude - 4.63
    late = -0.4 * 0.21 * magnitude + (0.53 - 0.21) * np.log10(1 + 10 ** (-0.4 * (magnitude + 20.52))) - 1.31
    # The steep relation of early types doesn't reach down to dwarfs.
    early = np.where(magnitude > -19.5, -0.4 * 0.60 * -19.5 - 4.63, early)
    spread = 0.25 + (0.48 - 0.25) / (1 + 10 ** (-0.8 * (magnitude + 20.52)))
    # Galaxy Zoo 2's galaxies are a little smaller in the sky than these relations with r < 17 alone make them.
    return 0.9 * 10 ** np.where(smooth, early, late) * np.exp(spread * rng.normal(size=magnitude.size))


def _luminosities(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """M_r and redshift of a flux-limited sample, uniform in comoving volume."""
    redshift = np.linspace(_NEAREST, _FARTHEST, 400)
    modulus = WMAP9.distmod(redshift).value + redshift  # K correction of about z magnitudes
    volume = WMAP9.comoving_volume(redshift).value
    volume -= volume[0]
    magnitude = np.linspace(_BRIGHTEST, _DIMMEST, 400)
    reach = np.interp(np.interp(FAINTEST - magnitude, modulus, redshift), redshift, volume)
    brightness = 10 ** (-0.4 * (magnitude - _KNEE))
    weight = np.cumsum(brightness ** (_FAINT_SLOPE + 1) * np.exp(-brightness) * reach)
    drawn = np.interp(rng.random(n) * weight[-1], weight, magnitude)
    far = np.interp(drawn, magnitude, reach)
    return drawn, np.interp(rng.random(n) * far, volume, redshift)


def _types(rng: np.random.Generator, magnitude: np.ndarray) -> np.ndarray:
    """Hubble types; ellipticals are commoner among the luminous, lenticulars in between."""
    elliptical = 0.06 + 0.62 / (1 + np.exp(1.9 * (magnitude + 22.0)))
    lenticular = 0.22 - 0.10 * elliptical
    draw = rng.random(magnitude.size)
    return np.where(draw < elliptical, ELLIPTICAL, np.where(draw < elliptical + lenticular, LENTICULAR, SPIRAL))


def _structure(rng: np.random.Generator, kind: np.ndarray, magnitude: np.ndarray) -> dict[str, np.ndarray]:
    """Shapes, with lengths in disk scale lengths (an elliptical's in R_e), and colours at redshift zero."""
    n = kind.size

    def by_type(elliptical: np.ndarray, lenticular: np.ndarray, spiral: np.ndarray) -> np.ndarray:
        return np.where(kind == ELLIPTICAL, elliptical, np.where(kind == LENTICULAR, lenticular, spiral))

    zero, one = np.zeros(n), np.ones(n)
    luminous = np.clip((-20.0 - magnitude) / 2.5, -1, 1)
    thickness = rng.uniform(0.10, 0.24, n)
    cos2 = rng.random(n) ** 2  # discs are seen from anywhere
    disk_ratio = np.sqrt(cos2 + thickness**2 * (1 - cos2))
    # How far along the spiral sequence: 0 early, 1 late. Luminous spirals have larger bulges.
    stage = np.clip(rng.beta(1.6, 1.6, n) - 0.15 * luminous, 0.02, 0.98)
    # A third of the ellipticals hold a faint disk, seen in no picture; for a few that is not so faint.
    spheroid = np.where(rng.random(n) < 0.35, 1 - np.minimum(rng.exponential(0.15, n), 0.4), 1.0)
    bulge = by_type(
        spheroid, rng.uniform(0.35, 0.7, n), np.clip(0.6 * (1 - stage) ** 2 + rng.normal(0, 0.04, n), 0, 0.7)
    )
    barred = (rng.random(n) < by_type(zero, 0.3 * one, 0.45 * one)) & (disk_ratio > 0.3)
    ringed = rng.random(n) < by_type(zero, 0.08 * one, 0.15 * one)
    red_disk = rng.random(n) < 0.15 + 0.40 * (1 - stage)
    blue_elliptical = rng.random(n) < 0.08
    young = by_type(zero, zero, np.where(red_disk, 0.3, 1.0) * rng.uniform(0.2, 0.75, n) * (0.2 + 0.8 * stage))
    redness = 0.04 * luminous + rng.normal(0, 0.025, n)
    old = by_type(np.where(blue_elliptical, 0.62, 0.755), 0.75 * one, 0.74 - 0.05 * stage) + redness
    disk_colour = by_type(old, 0.74 + redness, np.where(red_disk, 0.72, 0.70 - 0.18 * stage) + redness)
    young_colour = np.where(red_disk, 0.60, 0.36 - 0.14 * stage) + rng.normal(0, 0.05, n)
    return {
        "axis_ratio": by_type(rng.uniform(0.5, 1.0, n), disk_ratio, disk_ratio),
        "position_angle": rng.uniform(0, np.pi, n),
        "bulge_fraction": bulge,
        # The R_e of an elliptical without a disk is the unit of length.
        "bulge_radius": by_type(
            np.where(spheroid < 1, rng.uniform(0.6, 1.2, n), 1.0),
            rng.uniform(0.5, 1.2, n),
            rng.uniform(0.2, 0.5, n) + 0.4 * (1 - stage),
        ),
        "sersic_index": by_type(
            np.clip(rng.normal(3.4 + 0.8 * luminous, 1.0, n), 2, 6),
            rng.uniform(1.8, 4.2, n),
            np.clip(1.0 + 2.6 * (1 - stage) + rng.normal(0, 0.6, n), 0.7, 4.5),
        ),
        "bar_fraction": np.where(barred, rng.uniform(0.05, 0.18, n), 0.0),
        "bar_length": rng.uniform(0.7, 1.5, n),
        "bar_angle": rng.uniform(0, np.pi, n),
        "ring_strength": np.where(ringed, rng.uniform(0.5, 1.5, n), 0.0),
        "ring_radius": rng.uniform(1.3, 2.6, n),
        "young_fraction": young,
        "arm_strength": by_type(zero, zero, np.where(red_disk, 0.5, 1.0) * rng.uniform(0.2, 1.2, n)),
        "arm_order": rng.random(n),  # 0 flocculent, 1 grand design
        "arm_number": rng.choice([2, 2, 2, 3, 4], n),
        "pitch": np.deg2rad(np.clip(10 + 14 * stage + rng.normal(0, 4, n), 7, 35)),
        "dust": by_type(zero, 0.4 * rng.random(n), rng.uniform(0.2, 1.0, n) * (1 - 0.6 * stage)),
        "g_r_bulge": old,
        "g_r_disk": disk_colour,
        "g_r_young": young_colour,
    }


def simulate_galaxies(n: int, seed: int = 0, *, confounded: bool = True) -> pl.DataFrame:
    """Draw a population.

    Parameters
    ----------
    n : int
        Number of galaxies.
    seed : int
    confounded : bool
        True (default): flux- and size-limited as Galaxy Zoo 2, so that true class fractions depend on α. False: the
        same kinds of galaxies, α drawn independently of everything else and distances to match, so that they don't
        (no magnitude limit then).

    Returns
    -------
    polars.DataFrame
        `object_id` (int64), `truth` (0 smooth: ellipticals; 1 disk: lenticulars and spirals), `type`; intrinsic
        `M_r` (mag), `radius_kpc` (Petrosian) and `redshift`; observed `magnitude` (r), `radius` (Petrosian), `r50`,
        `r90` and `psf_fwhm` (arcsec), `field`, `alpha`; the structure that `observe.render` draws: `unit_length`
        (arcsec: scale length of the disk, R_e of an elliptical), `bulge_radius`, `bar_length`, `ring_radius` (in
        unit lengths), `sersic_index` and `bulge_fraction` of the bulge, `axis_ratio`, `position_angle`,
        `bar_angle`, `pitch` (rad), `bar_fraction`, `ring_strength`, `young_fraction` (of the disk's light),
        `arm_strength`, `arm_order` (0 flocculent to 1 grand design), `arm_number`, `dust`; and rest-frame colours
        `g_r_bulge`, `g_r_disk`, `g_r_young` (mag).

    Raises
    ------
    InputError
        If n is below 1.

    Examples
    --------
    >>> galaxies = simulate_galaxies(500, seed=1)
    >>> galaxies["magnitude"].max() < 17 and galaxies["r90"].min() > 3
    True
    """
    if n < 1:
        raise InputError(f"a population has at least one galaxy; got {n}")
    rng = np.random.default_rng(seed)
    pieces: list[dict[str, np.ndarray]] = []
    found = 0
    while found < n:
        piece = _draw(rng, max(256, int(1.3 * (n - found))), confounded)
        piece["field"] += sum(int(one["field"].max()) + 1 for one in pieces)
        pieces.append(piece)
        found += piece["M_r"].size
    columns = {name: np.concatenate([piece[name] for piece in pieces])[:n] for name in pieces[0]}
    return pl.DataFrame(
        {
            "object_id": 587700000000000000 + np.arange(n, dtype=np.int64) * 1009 + 17,
            "truth": (columns["type"] != ELLIPTICAL).astype(np.int64),
            **columns,
        }
    )


def _draw(rng: np.random.Generator, n: int, confounded: bool) -> dict[str, np.ndarray]:
    magnitude, redshift = _luminosities(rng, n)
    kind = _types(rng, magnitude)
    r50_kpc = _sizes(rng, magnitude, kind == ELLIPTICAL)
    structure = _structure(rng, kind, magnitude)
    per_unit = aperture_radii(
        structure["bulge_fraction"],
        structure["bulge_radius"],
        structure["sersic_index"],
        bulge_axis_ratio(structure["bulge_fraction"], structure["axis_ratio"]),
        np.ones(n),
        structure["axis_ratio"],
    )
    unit_kpc = r50_kpc / per_unit[0]
    radius_kpc = unit_kpc * per_unit[2]
    # One seeing a field; of a field's galaxies not all are kept below.
    field = np.arange(n) // _PER_FIELD
    psf_fwhm = np.clip(_SEEING * np.exp(_SEEING_SPREAD * rng.normal(size=field[-1] + 1)), 0.9, 2.2)[field]
    if confounded:
        kpc_per_arcsec = WMAP9.kpc_proper_per_arcmin(redshift).to_value(u.kpc / u.arcsec)
    else:
        alpha = _ALPHA * np.exp(_ALPHA_SPREAD * rng.normal(size=n))
        kpc_per_arcsec = radius_kpc / (alpha * psf_fwhm / FWHM_PER_SIGMA)
        grid = np.linspace(1e-4, 1.0, 2000)
        redshift = np.interp(kpc_per_arcsec, WMAP9.kpc_proper_per_arcmin(grid).to_value(u.kpc / u.arcsec), grid)
    # Measured on a noisy image: cutouts are not scaled by the truth.
    r90 = unit_kpc * per_unit[1] / kpc_per_arcsec * np.exp(_R90_ERROR * rng.normal(size=n))
    radius = radius_kpc / kpc_per_arcsec
    columns = {
        "type": kind,
        "M_r": magnitude,
        "radius_kpc": radius_kpc,
        "redshift": redshift,
        "magnitude": magnitude + WMAP9.distmod(redshift).value + redshift,
        "radius": radius,
        "r50": r50_kpc / kpc_per_arcsec,
        "r90": r90,
        "psf_fwhm": psf_fwhm,
        "field": field,
        "alpha": resolution(radius, psf_fwhm),
        "unit_length": unit_kpc / kpc_per_arcsec,
        **structure,
    }
    kept = r90 > SMALLEST_R90 if confounded else kpc_per_arcsec < _LARGEST_SCALE
    return {name: values[kept] for name, values in columns.items()}


def bulge_axis_ratio(bulge_fraction: np.ndarray | float, axis_ratio: np.ndarray | float) -> np.ndarray:
    """A bulge is rounder than the disk it sits in; a galaxy without a disk keeps its axis ratio."""
    return np.where(bulge_fraction < 1, np.sqrt(0.4 + 0.6 * np.square(axis_ratio)), axis_ratio)
