"""Synthetic tables with the column names of Galaxy Zoo 2 and SDSS."""

from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest

from truemorph.errors import InputError

T01 = "t01_smooth_or_features_"
SMOOTH, DISK, ARTEFACT = (
    f"{T01}{answer}_weighted_fraction" for answer in ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")
)
IDS = 587722981748572353
GZ2 = {"extends": "gz2", "name": "mine"}


@contextmanager
def refused(*mentioned):
    """Expect a one-line InputError that mentions these columns, rows or names."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [one for one in mentioned if one not in message] == [], message


def noted(findings, *mentioned):
    """Whether one of the findings mentions all of these numbers and names."""
    return any(all(one in str(finding) for one in mentioned) for finding in findings)


def votes(n=60, **changes):
    rng = np.random.default_rng(0)
    smooth = np.round(rng.uniform(0.05, 0.95, n), 3)
    columns = {
        "dr7objid": IDS + np.arange(n),
        SMOOTH: smooth,
        DISK: np.round(0.99 - smooth, 3),
        ARTEFACT: np.full(n, 0.01),
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
    added = {name: pl.lit(pl.Series(change)) if np.ndim(change) else pl.lit(change) for name, change in changes.items()}
    return votes(n).hstack(photometry(n).drop("objid")).with_columns(**added)
