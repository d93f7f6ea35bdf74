"""Simulate a population of galaxies: luminosity, size, distance, type, structure, colours and resolution.

The mixture approximates the local universe with round numbers: a Schechter luminosity function (Blanton et al. 2003,
ApJ 592, 819), a fraction of ellipticals that increases with luminosity, sizes at fixed luminosity after Shen et al.
2003 (MNRAS 343, 978), Galaxy Zoo 2's limits r < 17 and R90 > 3 arcsec (Willett et al. 2013), and SDSS's seeing, with
one value per field. Disks are fainter and larger than ellipticals, so class, intrinsic properties and α are correlated
as in SDSS. With `confounded=False`, galaxies are the same but α is drawn independently, and distances are computed from
it.

"Disk" is defined as in the paper (arXiv:2308.11007): spirals and lenticulars.

Sérsic (1963) profiles follow Graham & Driver (2005, PASA 22, 118). The Petrosian radius is where the local surface
brightness is 0.2 of the mean inside, and R50 and R90 enclose 50 and 90 % of the flux within two Petrosian radii
(Strauss et al. 2002, AJ 124, 1810).
"""

from functools import cache
from typing import Literal

import numpy as np
import polars as pl
from astropy import units as u
from astropy.cosmology import WMAP9
from scipy.ndimage import map_coordinates
from scipy.special import gamma, gammainc, gammaincinv

from truemorph.catalogs.physical import FWHM_PER_SIGMA, resolution
from truemorph.errors import InputError

Value = np.ndarray | float
ELLIPTICAL, LENTICULAR, SPIRAL = "elliptical", "lenticular", "spiral"
FAINTEST, SMALLEST_R90 = 17.0, 3.0  # Galaxy Zoo 2's limits: r magnitude, arcsec
LARGEST_EDGE_ON = 0.3  # axis ratio of a disk; more inclined ones have no visible bar
BAR_LIGHT = (0.05, 0.18)  # of a barred disk, without its bulge
_KNEE, _FAINT_SLOPE = -21.2, -1.05  # Schechter, r band, h = 0.7
_BRIGHTEST, _DIMMEST = -24.0, -17.5
_NEAREST, _FARTHEST = 0.005, 0.25
_SEEING, _SEEING_SPREAD = 1.3, 0.12  # arcsec; scatter of its logarithm
_PER_FIELD = 6
_R90_ERROR = 0.06
# Distribution of α in the confounded population, used for populations without confounding.
ALPHA, ALPHA_SPREAD = 15.0, 0.42
_LARGEST_SCALE = 6.5  # kpc per arcsec, at z of about 0.6
_PETROSIAN_RATIO = 0.2
_INDICES = np.linspace(0.5, 6.5, 61)
# Grid of ln(r / R_e) of the tables.
_LOG_RADII = np.linspace(np.log(1e-4), np.log(1e3), 400)
_ANGLES = 8


def _sizes(rng: np.random.Generator, magnitude: np.ndarray, smooth: np.ndarray) -> np.ndarray:
    """Draw R50 in kpc (Shen et al. 2003, eqs 14-16 with their r-band constants)."""
    # The steep relation of early types does not apply to dwarfs.
    early = -0.4 * 0.60 * np.minimum(magnitude, -19.5) - 4.63
    late = -0.4 * 0.21 * magnitude + (0.53 - 0.21) * np.log10(1 + 10 ** (-0.4 * (magnitude + 20.52))) - 1.31
    spread = 0.25 + (0.48 - 0.25) / (1 + 10 ** (-0.8 * (magnitude + 20.52)))
    # Angular sizes in Galaxy Zoo 2 are slightly smaller than from these relations with r < 17.
    return 0.9 * 10 ** np.where(smooth, early, late) * np.exp(spread * rng.normal(size=magnitude.size))


def _luminosities(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw M_r and redshift of a flux-limited sample, uniform in comoving volume."""
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


def _structure(rng: np.random.Generator, kind: np.ndarray, magnitude: np.ndarray) -> dict[str, np.ndarray]:
    """Draw shapes, with lengths in disk scale lengths (R_e for ellipticals), and rest-frame colours."""
    n = kind.size

    def by_type(elliptical: Value, lenticular: Value, spiral: Value) -> np.ndarray:
        return np.where(kind == ELLIPTICAL, elliptical, np.where(kind == LENTICULAR, lenticular, spiral))

    luminous = np.clip((-20.0 - magnitude) / 2.5, -1, 1)
    thickness = rng.uniform(0.10, 0.24, n)
    cos2 = rng.random(n) ** 2  # random inclinations
    disk_ratio = np.sqrt(cos2 + thickness**2 * (1 - cos2))
    # Position in the spiral sequence, 0 early to 1 late. Luminous spirals have larger bulges.
    stage = np.clip(rng.beta(1.6, 1.6, n) - 0.15 * luminous, 0.02, 0.98)
    # A third of the ellipticals have a faint disk that is rarely visible.
    spheroid = np.where(rng.random(n) < 0.35, 1 - np.minimum(rng.exponential(0.15, n), 0.4), 1.0)
    bulge = by_type(
        spheroid, rng.uniform(0.35, 0.7, n), np.clip(0.6 * (1 - stage) ** 2 + rng.normal(0, 0.04, n), 0, 0.7)
    )
    barred = (rng.random(n) < by_type(0, 0.3, 0.45)) & (disk_ratio > LARGEST_EDGE_ON)
    ringed = rng.random(n) < by_type(0, 0.08, 0.15)
    red_disk = rng.random(n) < 0.15 + 0.40 * (1 - stage)
    blue_elliptical = rng.random(n) < 0.08
    young = by_type(0, 0, np.where(red_disk, 0.3, 1.0) * rng.uniform(0.2, 0.75, n) * (0.2 + 0.8 * stage))
    redness = 0.04 * luminous + rng.normal(0, 0.025, n)
    old = by_type(np.where(blue_elliptical, 0.62, 0.755), 0.75, 0.74 - 0.05 * stage) + redness
    disk_colour = by_type(old, 0.74 + redness, np.where(red_disk, 0.72, 0.70 - 0.18 * stage) + redness)
    young_colour = np.where(red_disk, 0.60, 0.36 - 0.14 * stage) + rng.normal(0, 0.05, n)
    return {
        "axis_ratio": by_type(rng.uniform(0.5, 1.0, n), disk_ratio, disk_ratio),
        "position_angle": rng.uniform(0, np.pi, n),
        "bulge_fraction": bulge,
        # For an elliptical without a disk, the unit of length is its R_e.
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
        "bar_fraction": np.where(barred, rng.uniform(*BAR_LIGHT, n), 0.0),
        "bar_length": rng.uniform(0.7, 1.5, n),
        "bar_angle": rng.uniform(0, np.pi, n),
        "ring_strength": np.where(ringed, rng.uniform(0.5, 1.5, n), 0.0),
        "ring_radius": rng.uniform(1.3, 2.6, n),
        "young_fraction": young,
        "arm_strength": by_type(0, 0, np.where(red_disk, 0.5, 1.0) * rng.uniform(0.2, 1.2, n)),
        "arm_order": rng.random(n),  # 0 flocculent, 1 grand design
        "arm_number": rng.choice([2, 2, 2, 3, 4], n),
        "pitch": np.deg2rad(np.clip(10 + 14 * stage + rng.normal(0, 4, n), 7, 35)),
        "dust": by_type(0, 0.4 * rng.random(n), rng.uniform(0.2, 1.0, n) * (1 - 0.6 * stage)),
        "g_r_bulge": old,
        "g_r_disk": disk_colour,
        "g_r_young": young_colour,
    }


def simulate_galaxies(n: int, seed: int = 0, *, confounded: bool = True) -> pl.DataFrame:
    """Draw a population of galaxies.

    Parameters
    ----------
    n : int
        Number of galaxies.
    seed : int
    confounded : bool
        True (default): flux- and size-limited as in Galaxy Zoo 2, so that true class fractions depend on α. False: the
        same kinds of galaxies with α independent of everything else and consistent distances, so that they do not (and
        without a magnitude limit).

    Returns
    -------
    polars.DataFrame
        `object_id` (int64), `truth` (0 smooth: ellipticals; 1 disk: lenticulars and spirals), `type`; intrinsic
        `M_r` (mag), `radius_kpc` (Petrosian) and `redshift`; observed `magnitude` (r), `radius` (Petrosian), `r50`,
        `r90` and `psf_fwhm` (arcsec), `field`, `alpha`; the structure for `render`: `unit_length`
        (arcsec: scale length of the disk, R_e of an elliptical), `bulge_radius`, `bar_length`, `ring_radius` (in
        unit lengths), `sersic_index` and `bulge_fraction` of the bulge, `axis_ratio`, `position_angle`,
        `bar_angle`, `pitch` (rad), `bar_fraction`, `ring_strength`, `young_fraction` (of the disk's flux),
        `arm_strength`, `arm_order` (0 flocculent to 1 grand design), `arm_number`, `dust`; and rest-frame colours
        `g_r_bulge`, `g_r_disk`, `g_r_young` (mag).

    Examples
    --------
    >>> galaxies = simulate_galaxies(500, seed=1)
    >>> galaxies["magnitude"].max() < 17 and galaxies["r90"].min() > 3
    True
    """
    rng = np.random.default_rng(seed)
    galaxies = pl.DataFrame()
    while galaxies.height < n:
        piece = pl.DataFrame(_draw(rng, max(256, int(1.3 * (n - galaxies.height))), confounded))
        fields = int(galaxies["field"].to_numpy().max()) + 1 if galaxies.height else 0
        galaxies = galaxies.vstack(piece.with_columns(pl.col("field") + fields))
    ids = 587700000000000000 + np.arange(n) * 1009 + 17
    disk = pl.col("type") != ELLIPTICAL
    return galaxies[:n].select(pl.Series("object_id", ids), disk.cast(pl.Int64).alias("truth"), pl.all())


def _draw(rng: np.random.Generator, n: int, confounded: bool) -> dict[str, np.ndarray]:
    magnitude, redshift = _luminosities(rng, n)
    elliptical = 0.06 + 0.62 / (1 + np.exp(1.9 * (magnitude + 22.0)))
    lenticular = 0.22 - 0.10 * elliptical
    draw = rng.random(n)
    kind = np.where(draw < elliptical, ELLIPTICAL, np.where(draw < elliptical + lenticular, LENTICULAR, SPIRAL))
    r50_kpc = _sizes(rng, magnitude, kind == ELLIPTICAL)
    structure = _structure(rng, kind, magnitude)
    shape = ("bulge_fraction", "bulge_radius", "sersic_index", "axis_ratio")
    r50, r90, r_petro = aperture_radii(*(structure[name] for name in shape))
    unit_kpc = r50_kpc / r50
    radius_kpc = unit_kpc * r_petro
    # One seeing value per field; not all galaxies of a field are kept below.
    field = np.arange(n) // _PER_FIELD
    psf_fwhm = np.clip(_SEEING * np.exp(_SEEING_SPREAD * rng.normal(size=field[-1] + 1)), 0.9, 2.2)[field]
    if confounded:
        kpc_per_arcsec = WMAP9.kpc_proper_per_arcmin(redshift).to_value(u.kpc / u.arcsec)
    else:
        alpha = ALPHA * np.exp(ALPHA_SPREAD * rng.normal(size=n))
        kpc_per_arcsec = radius_kpc / (alpha * psf_fwhm / FWHM_PER_SIGMA)
        grid = np.linspace(1e-4, 1.0, 2000)
        redshift = np.interp(kpc_per_arcsec, WMAP9.kpc_proper_per_arcmin(grid).to_value(u.kpc / u.arcsec), grid)
    # Measured with noise, because real cutouts are not scaled by the true radius.
    r90 = unit_kpc * r90 / kpc_per_arcsec * np.exp(_R90_ERROR * rng.normal(size=n))
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


def bulge_axis_ratio(bulge_fraction: Value, axis_ratio: Value) -> np.ndarray:
    """Return the axis ratio of a bulge, which is rounder than its disk; ellipticals keep their axis ratio."""
    return np.where(bulge_fraction < 1, np.sqrt(0.4 + 0.6 * np.square(axis_ratio)), axis_ratio)


def sersic_b(index: Value) -> np.ndarray:
    """Constant b of a Sérsic profile, such that R_e encloses half of the flux."""
    return gammaincinv(2 * index, 0.5)


def sersic_area(index: Value) -> np.ndarray:
    """Flux of a circular Sérsic profile exp(-b (r/R_e)^(1/n)) of unit central brightness, in units of R_e²."""
    return 2 * np.pi * index * sersic_b(index) ** (-2 * index) * gamma(2 * index)


@cache
def _growth_table() -> np.ndarray:
    """Fraction of the flux inside r, by n and ln(r / R_e)."""
    n = _INDICES[:, None]
    return gammainc(2 * n, sersic_b(n) * np.exp(_LOG_RADII / n))


def light_inside(index: np.ndarray, log_radius: np.ndarray) -> np.ndarray:
    """Fraction of a Sérsic profile's flux inside a circle, from a table; `log_radius` is ln(r / R_e)."""
    at_index = (index - _INDICES[0]) / (_INDICES[1] - _INDICES[0])
    at_radius = (log_radius - _LOG_RADII[0]) / (_LOG_RADII[1] - _LOG_RADII[0])
    return map_coordinates(_growth_table(), np.broadcast_arrays(at_index, at_radius), order=1, mode="nearest")


# Linear interpolation in each row.
_interpolated = np.vectorize(np.interp, signature="(),(n),(n)->()")


def aperture_radii(
    bulge_fraction: np.ndarray, bulge_radius: np.ndarray, sersic_index: np.ndarray, axis_ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute R50, R90 and R_petro of a bulge and an inclined exponential disk in circular apertures, before the PSF.

    Radii are along the major axis, in scale lengths of the disk. The Sérsic index is between 0.5 and 6.5.
    """
    grid = np.linspace(np.log(2e-3), np.log(40.0), 160)
    # The flux of an elliptical isophote is uniform in eccentric angle.
    eccentric_angles = (np.arange(_ANGLES) + 0.5) * (np.pi / 2 / _ANGLES)
    scale = np.where(bulge_fraction < 1, 1.0, bulge_radius)
    disk = np.ones_like(bulge_fraction)
    growth = np.zeros((bulge_fraction.size, grid.size))
    parts = (
        (bulge_fraction, bulge_radius, sersic_index, bulge_axis_ratio(bulge_fraction, axis_ratio)),
        (1 - bulge_fraction, 1.678347 * disk, disk, axis_ratio),  # R_e of an exponential disk
    )
    for fraction, radius, index, ratio in parts:
        for cos2 in np.cos(eccentric_angles) ** 2:
            stretch = np.log(radius / scale) + 0.5 * np.log(cos2 + ratio**2 * (1 - cos2))
            inside = light_inside(index[:, None], grid - stretch[:, None])
            growth += fraction[:, None] * inside / _ANGLES
    # The local over the mean brightness inside is half the slope of ln F against ln r.
    slope = 0.5 * np.gradient(np.log(np.maximum(growth, 1e-12)), grid, axis=1)
    petrosian = _interpolated(-_PETROSIAN_RATIO, np.maximum.accumulate(-slope, axis=1), grid)
    total = _interpolated(petrosian + np.log(2), grid, growth)
    r50, r90 = (np.exp(_interpolated(part * total, growth, grid)) * scale for part in (0.5, 0.9))
    return r50, r90, np.exp(petrosian) * scale


def at_resolution(
    galaxies: pl.DataFrame, alpha: np.ndarray, how: Literal["seeing", "distance"] = "seeing"
) -> pl.DataFrame:
    """Change the resolution of galaxies; with the same seed, `render` draws the same arms and surroundings.

    Parameters
    ----------
    galaxies : polars.DataFrame
        Galaxies from `simulate_galaxies`.
    alpha : array, shape (N,)
        Target resolution, positive; it may be above or below the original.
    how : {"seeing", "distance"}
        Change the PSF; or the distance, with size and brightness, so that the noise increases too. Surface brightness,
        colour and the column `redshift` do not change: cosmological dimming and reddening are not included. (Stars and
        background galaxies change, because the image covers a larger area of sky.)

    Returns
    -------
    polars.DataFrame
        Same rows and columns.

    Raises
    ------
    InputError
        If shapes disagree or a resolution is not positive.

    Examples
    --------
    >>> galaxies = simulate_galaxies(3, seed=1)
    >>> at_resolution(galaxies, np.array([5.0, 6.0, 7.0]))["alpha"].to_list()
    [5.0, 6.0, 7.0]
    """
    alpha = np.asarray(alpha, float)
    if alpha.shape != (galaxies.height,) or not np.all(np.isfinite(alpha) & (alpha > 0)):
        raise InputError(f"alpha must be {galaxies.height} positive numbers, one per galaxy")
    if how == "seeing":
        return galaxies.with_columns(psf_fwhm=galaxies["radius"] / alpha * FWHM_PER_SIGMA, alpha=alpha)
    shrink = alpha / galaxies["alpha"].to_numpy()
    moved = {name: pl.col(name) * shrink for name in ("radius", "r50", "r90", "unit_length")}
    magnitude = galaxies["magnitude"] - 5 * np.log10(shrink)
    return galaxies.with_columns(**moved, alpha=alpha, magnitude=magnitude)
