"""Resolution α = R_petro / σ_PSF, with the unit an explicit, recorded choice."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from truemorph.arrays import float_array
from truemorph.errors import InputError

PsfUnit = Literal["sigma", "fwhm"]

# FWHM of a Gaussian over its σ.
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


def describe_alpha(radius: str, psf_fwhm: str | float, psf: PsfUnit) -> str:
    """Phrase what α is, to travel with every θ, model and report.

    Examples
    --------
    >>> describe_alpha("petroRad_r", "psfWidth_r", "sigma")
    'petroRad_r / sigma_PSF, sigma_PSF = psfWidth_r / 2.3548'
    """
    width = f"{psf_fwhm} arcsec" if isinstance(psf_fwhm, float) else psf_fwhm
    if psf == "sigma":
        return f"{radius} / sigma_PSF, sigma_PSF = {width} / 2.3548"
    return f"{radius} / FWHM_PSF, FWHM_PSF = {width}"


def resolution(radius: Any, psf_fwhm: Any, psf: PsfUnit = "sigma") -> np.ndarray:
    """Compute α from radii and PSF widths.

    Parameters
    ----------
    radius : array, shape (N,)
        Petrosian radius in arcsec, or a quantity of angle; masked values count as missing.
    psf_fwhm : array, shape (N,), or float
        Full width at half maximum of the PSF in arcsec (SDSS `psfWidth_r` is one).
    psf : {"sigma", "fwhm"}
        Whether α is in units of the PSF's σ = FWHM / 2.3548 (the default, as in the co-authors' bias code) or
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
        raise InputError(f"psf_fwhm is one number or one a galaxy; got {width.size} for {radius.size} radii")
    width = np.broadcast_to(width, radius.shape)
    for name, values in (("radius", radius), ("psf_fwhm", width)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if bad.size:
            raise InputError(
                f"{name} must be a positive number of arcsec; {bad.size} are not "
                f"(first: row {bad[0]}, {values[bad[0]]}); drop or mend those rows"
            )
    if psf not in ("sigma", "fwhm"):
        raise InputError(f'psf is "sigma" or "fwhm"; got {psf!r}')
    return radius / (width / FWHM_PER_SIGMA if psf == "sigma" else width)
