"""Images of simulated galaxies as a telescope in space takes them, of a few galaxies, with what they cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import simplejpeg

from truemorph.catalogs.resolution import FWHM_PER_SIGMA
from truemorph.simulate.observe import FIELD_R90, render
from truemorph.simulate.twins import at_resolution

PSF = 0.1  # FWHM, arcsec: ACS
# No sharper than this: finer detail takes seconds an image and shows nothing more at this size.
_SHARPEST, PIXELS = 80.0, 256
_BLANK = 0.12  # covered galaxies that the map of coverage promises and no image shows
COLOUR, BANDS = "CDS/P/HST/color", ("CDS/P/HST/I", "CDS/P/HST/V")


def write_hubble(
    folder: Path, population: pl.DataFrame, seen: np.ndarray, rng: np.random.Generator, seed: int
) -> pl.Series:
    """Draw the galaxies that were seen; write `<object_id>.jpg`, and `coverage.parquet`.

    Parameters
    ----------
    folder : Path
    population : polars.DataFrame
        From `simulate_galaxies`, with DR7's `object_id`, `ra` and `dec`.
    seen : array of bool, shape (N,)
    rng : numpy.random.Generator
    seed : int
        Of arms and surroundings: that of the other images, so that a galaxy keeps its own.

    Returns
    -------
    Series, length N
        "image", "blank" (covered, but nothing there) or "outside".
    """
    status = np.where(seen, np.where(rng.random(seen.size) < _BLANK, "blank", "image"), "outside")
    covered = population.filter(pl.Series(seen))
    alpha = np.minimum(covered["radius"].to_numpy() / (PSF / FWHM_PER_SIGMA), _SHARPEST)
    sharp = at_resolution(covered, np.maximum(alpha, covered["alpha"].to_numpy()))
    drawn = sharp.filter(pl.Series(status[seen] == "image"))
    for row, image in render(drawn, PIXELS, seed, field=FIELD_R90):
        data = simplejpeg.encode_jpeg(image, quality=92, colorspace="RGB", colorsubsampling="444")
        (folder / f"{drawn['object_id'][row]}.jpg").write_bytes(data)
    # Few fields were seen in all filters.
    colour = rng.random(covered.height) < 0.8
    coverage = covered.select(
        "object_id",
        "ra",
        "dec",
        side=pl.col("r90") * FIELD_R90,
        hips=pl.Series([",".join((COLOUR, *BANDS) if one else BANDS) for one in colour], dtype=pl.String),
        image=pl.Series(status[seen] == "image"),
    )
    coverage.write_parquet(folder / "coverage.parquet")
    return pl.Series("hst", status)
