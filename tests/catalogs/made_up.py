"""Made-up tables as Galaxy Zoo 2 and SDSS name their columns."""

import numpy as np
import polars as pl

T01 = "t01_smooth_or_features_"
IDS = 587722981748572353


def votes(n=60, **changes):
    rng = np.random.default_rng(0)
    smooth = np.round(rng.uniform(0.05, 0.95, n), 3)
    columns = {
        "dr7objid": IDS + np.arange(n),
        f"{T01}a01_smooth_weighted_fraction": smooth,
        f"{T01}a02_features_or_disk_weighted_fraction": np.round(0.99 - smooth, 3),
        f"{T01}a03_star_or_artifact_weighted_fraction": np.full(n, 0.01),
        "ra": rng.uniform(100, 200, n),
        "dec": rng.uniform(0, 50, n),
    }
    return pl.DataFrame({**columns, **changes})


def photometry(n=60, **changes):
    rng = np.random.default_rng(1)
    columns = {
        "objid": IDS + np.arange(n),
        "petroRad_r": rng.uniform(3, 20, n),
        "psfWidth_r": rng.uniform(1, 1.6, n),
        "petroMag_r": rng.normal(16.5, 0.5, n),
        "extinction_r": np.full(n, 0.1),
        "redshift": rng.uniform(0.02, 0.2, n),
    }
    return pl.DataFrame({**columns, **changes})


def full(n=60, **changes):
    """Votes and photometry in one table."""
    table = votes(n).hstack(photometry(n).drop("objid"))
    return table.with_columns(
        **{name: pl.lit(pl.Series(v)) if np.ndim(v) else pl.lit(v) for name, v in changes.items()}
    )


def own_names(n=60, **changes):
    """A table in truemorph's names, at the places of `votes`."""
    rng = np.random.default_rng(3)
    smooth = np.where(np.arange(n) % 2, 0.9, 0.1)
    columns = {
        "object_id": [f"hst{k}" for k in range(n)],
        "smooth_fraction": smooth,
        "disk_fraction": 1 - smooth,
        "radius": rng.uniform(3, 20, n),
        "psf_fwhm": rng.uniform(1, 2, n),
        "ra": votes(n)["ra"],
        "dec": votes(n)["dec"],
    }
    return pl.DataFrame({**columns, **changes})
