"""The same simulated galaxy at another resolution: seen through worse air, or moved away."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
from astropy import units as u
from astropy.cosmology import WMAP9

from truemorph.catalogs.resolution import FWHM_PER_SIGMA
from truemorph.errors import InputError

_FARTHEST = 1.0


def at_resolution(
    galaxies: pl.DataFrame, alpha: np.ndarray, how: Literal["seeing", "distance"] = "seeing"
) -> pl.DataFrame:
    """Give galaxies another α; drawn with the seed of the originals they keep their arms and their surroundings.

    Parameters
    ----------
    galaxies : polars.DataFrame
        From `simulate_galaxies`.
    alpha : array, shape (N,)
        Wanted resolution, positive; any above or below the galaxies' own.
    how : {"seeing", "distance"}
        Change the PSF; or the distance, with size, brightness and redshift, so that noise grows with it. (Stars and
        background galaxies then don't stay: another piece of sky is shown.)

    Returns
    -------
    polars.DataFrame
        Same rows and columns.

    Raises
    ------
    InputError
        If shapes disagree, or a resolution is not positive or would need a redshift above 1.

    Examples
    --------
    >>> from truemorph.simulate.galaxies import simulate_galaxies
    >>> galaxies = simulate_galaxies(3, seed=1)
    >>> at_resolution(galaxies, np.array([5.0, 6.0, 7.0]))["alpha"].to_list()
    [5.0, 6.0, 7.0]
    """
    alpha = np.asarray(alpha, dtype=np.float64)
    if alpha.shape != (galaxies.height,) or not np.all(np.isfinite(alpha) & (alpha > 0)):
        raise InputError(f"alpha must be {galaxies.height} positive numbers, one a galaxy")
    if how == "seeing":
        return galaxies.with_columns(
            psf_fwhm=pl.Series(galaxies["radius"].to_numpy() / alpha * FWHM_PER_SIGMA), alpha=pl.Series(alpha)
        )
    if how != "distance":
        raise InputError(f'how is "seeing" or "distance"; got {how!r}')
    grid = np.linspace(1e-4, _FARTHEST, 4000)
    scale = WMAP9.kpc_proper_per_arcmin(grid).to_value(u.kpc / u.arcsec)
    shrink = alpha / galaxies["alpha"].to_numpy()
    wanted = galaxies["radius_kpc"].to_numpy() / (galaxies["radius"].to_numpy() * shrink)
    far = np.flatnonzero(wanted > scale[-1])
    if far.size:
        raise InputError(f"galaxy {far[0]} would need a redshift above {_FARTHEST} for alpha {alpha[far[0]]:.3g}")
    redshift = np.interp(wanted, scale, grid)
    lengths = {name: pl.col(name) * pl.Series(shrink) for name in ("radius", "r50", "r90", "unit_length")}
    return galaxies.with_columns(
        **lengths,
        alpha=pl.Series(alpha),
        redshift=pl.Series(redshift),
        magnitude=pl.Series(galaxies["M_r"].to_numpy() + WMAP9.distmod(redshift).value + redshift),
    )
