"""Resolution α, physical sizes and absolute magnitudes, from catalogue columns.

α = R_petro / σ_PSF; its unit is an explicit choice and stored with every α.

The default cosmology is WMAP9 (Hinshaw et al. 2013, ApJS 208, 19), as in the bias measurements of Cabrera-Vives, Miller
& Schneider 2018 (AJ 156, 284).
"""

from typing import Any, Literal

import numpy as np

from truemorph.arrays import check_rows, float_array
from truemorph.catalogs.columns import percent_of_light
from truemorph.errors import InputError, nearest
from truemorph.findings import Finding

COSMOLOGY = "WMAP9"
_KPC_PER_MPC, _MPC_PER_10_PC = 1e3, 1e-5
# Step of the grid in ln(1 + z) and minimum number of steps; interpolated distances are accurate to 10^-7.
_STEP, _FEWEST = 0.005, 16

PsfUnit = Literal["sigma", "fwhm"]

# FWHM / σ of a Gaussian.
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
# Width of a Galaxy Zoo 2 cut-out in pixels and in R90: 0.02 R90 a pixel (Willett et al. 2013). The width of stars in
# real images agrees (tests/real/test_field.py).
GZ2_SIZE = 424
FIELD_R90 = 0.02 * GZ2_SIZE
ALPHA_IS_SIZE = Finding(
    "alpha-is-size",
    "caution",
    "All galaxies have the same PSF width, so α only measures apparent size: a real trend of morphology with size will "
    "look like bias.",
    "Prepare the catalogue with the PSF width of each galaxy (`psf_fwhm`), or give gold labels (`gold`).",
)


def partial_radius(radius: str) -> list[Finding]:
    """Warn if a radius encloses a fixed part of the light: its ratio to the Petrosian radius depends on class."""
    if not (percent := percent_of_light(radius)):
        return []
    message = (
        f"α uses {radius}, the radius of {percent} % of the light. Its ratio to the Petrosian radius depends on class: "
        "in simulations with R90, disk fractions from labels alone were too low by 0.16 (in the lowest octile of α by "
        "0.35); from gold labels they were right. θ cannot be compared with the paper's."
    )
    action = "Name a Petrosian radius if there is one (`radius`), or give gold labels (`gold`)."
    return [Finding("radius-not-petrosian", "caution", message, action)]


def resolution(radius: Any, psf_fwhm: Any, psf: PsfUnit = "sigma") -> np.ndarray:
    """Compute α from radii and PSF widths.

    Parameters
    ----------
    radius : array, shape (N,)
        Petrosian radius in arcsec, or an angle quantity; masked values count as missing.
    psf_fwhm : array, shape (N,), or float
        Full width at half maximum of the PSF in arcsec (SDSS `psfWidth_r` is one).
    psf : {"sigma", "fwhm"}
        Whether α is in units of the PSF's σ = FWHM / 2.3548 (the default, as in the authors' bias code) or
        of its FWHM. θ is only meaningful together with this choice.

    Returns
    -------
    array, shape (N,)

    Raises
    ------
    InputError
        If a radius or width is missing, zero or negative, naming the first such row (counted from 0).

    Examples
    --------
    >>> resolution([6.0], 1.2).round(2)
    array([11.77])
    """
    radius = np.atleast_1d(float_array(radius, "radius", "arcsec"))
    width = float_array(psf_fwhm, "psf_fwhm", "arcsec")
    if width.shape not in ((), (1,), radius.shape):
        raise InputError(f"psf_fwhm must be one number or one per galaxy; got {width.size} for {radius.size} radii")
    width = np.broadcast_to(width, radius.shape)
    for name, values in (("radius", radius), ("psf_fwhm", width)):
        good = np.isfinite(values) & (values > 0)
        check_rows(good, f"{name} must be positive (arcsec; drop or correct rows where it is not)", values)
    if psf not in ("sigma", "fwhm"):
        raise InputError(f'psf must be "sigma" or "fwhm"; got {psf!r}')
    return radius / (width / FWHM_PER_SIGMA if psf == "sigma" else width)


def physical_radius_kpc(radius_arcsec: Any, redshift: Any, cosmology: str = COSMOLOGY) -> np.ndarray:
    """Convert angular radii (arcsec, or angle quantities) to kpc: R = θ × D_A(z).

    `cosmology` is the name of one of astropy's. NaN if a value is missing or the redshift is not positive.
    """
    angle = np.radians(float_array(radius_arcsec, "radius", "arcsec") / 3600)
    redshift = float_array(redshift, "redshift")
    return angle * transverse_distance_mpc(redshift, cosmology) / (1 + redshift) * _KPC_PER_MPC


def absolute_magnitude(magnitude: Any, redshift: Any, extinction: Any = 0.0, cosmology: str = COSMOLOGY) -> np.ndarray:
    """Convert apparent to absolute magnitudes: M = m - A - 5 log10(D_L(z) / 10 pc).

    `extinction` is A in the same band, mag. There is no K-correction: M refers to the band blueshifted by 1 + z, so
    only galaxies at similar redshifts can be compared. NaN if a value is missing or the redshift is not positive.
    """
    apparent = float_array(magnitude, "magnitude", "mag")
    dust = float_array(extinction, "extinction", "mag")
    redshift = float_array(redshift, "redshift")
    luminosity_distance = transverse_distance_mpc(redshift, cosmology) * (1 + redshift)
    return apparent - dust - 5 * np.log10(luminosity_distance / _MPC_PER_10_PC)


def surface_brightness(magnitude: np.ndarray, radius: np.ndarray, inside: float) -> np.ndarray:
    """Compute the mean surface brightness within a radius: μ = m + 2.5 log10(π R² / f), in mag/arcsec².

    `magnitude` is that of all light (mag), `radius` is in arcsec, and `inside` is the part f of the light that it
    encloses (0.5 for R50). NaN if a value is missing or a radius is not positive.
    """
    return magnitude + 2.5 * np.log10(np.pi / inside * np.where(radius > 0, radius, np.nan) ** 2)


def transverse_distance_mpc(redshift: np.ndarray, cosmology: str = COSMOLOGY) -> np.ndarray:
    """Compute the transverse comoving distance D_M; D_A = D_M / (1 + z) and D_L = D_M (1 + z).

    NaN if the redshift is missing or not positive. Interpolated by a cubic spline in ln(1 + z), accurate to one part in
    10^7, because astropy's integrals are slow for many galaxies.
    """
    from scipy.interpolate import CubicSpline

    model = named_cosmology(cosmology)
    usable = np.isfinite(redshift) & (redshift > 0)
    distance = np.full(redshift.shape, np.nan)
    if usable.any():
        x = np.log1p(redshift[usable])
        grid = np.linspace(0, x.max(), max(_FEWEST, int(np.ceil(x.max() / _STEP))) + 1)
        exact = model.comoving_transverse_distance(np.expm1(grid)).to_value("Mpc")
        distance[usable] = CubicSpline(grid, exact)(x)
    return distance


def named_cosmology(cosmology: str) -> Any:
    """Return one of astropy's cosmologies by name."""
    # Takes a second to import.
    from astropy import cosmology as known

    if cosmology not in known.available:
        raise InputError(f"unknown cosmology {cosmology!r}; {nearest(cosmology, known.available, what='names')}")
    return getattr(known, cosmology)
