"""The same simulated galaxy at another resolution: seen through worse air, or moved away."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from truemorph.catalogs.physical import FWHM_PER_SIGMA
from truemorph.errors import InputError


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
        Change the PSF; or the distance, with size and brightness, so that noise grows with it. Surface brightness,
        colour and the column `redshift` stay: no cosmological dimming or reddening is added. (Stars and background
        galaxies don't stay: a larger piece of sky is shown.)

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
    shrink = alpha / galaxies["alpha"].to_numpy()
    lengths = {name: pl.col(name) * pl.Series(shrink) for name in ("radius", "r50", "r90", "unit_length")}
    return galaxies.with_columns(
        **lengths, alpha=pl.Series(alpha), magnitude=galaxies["magnitude"] - pl.Series(5 * np.log10(shrink))
    )
