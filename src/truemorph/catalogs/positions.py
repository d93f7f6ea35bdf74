"""Positions on the sky: columns of tables that have them, degrees, and unit vectors."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.spatial import KDTree

from truemorph.arrays import float_array
from truemorph.catalogs.columns import which_rows
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.tables import usual_column

# Names of right ascension and declination in SDSS and most tables, VizieR, SExtractor, TOPCAT, Euclid and Rubin.
RA = ("ra", "raj2000", "ra_icrs", "_ra", "_raj2000", "alpha_j2000", "ra_deg", "right_ascension", "coord_ra")
DEC = ("dec", "dej2000", "de_icrs", "_de", "_dej2000", "delta_j2000", "dec_deg", "declination", "coord_dec")


# Rows within so many arcsec are the same galaxy; pairs of galaxies are fewer than this part of all.
_SAME, _FEW = 1.0, 0.005


def position_columns(columns: Sequence[str], source: str) -> tuple[str, str]:
    """Return the columns of right ascension and declination, degrees, by their usual names."""
    ra, dec = (usual_column(columns, usual) for usual in (RA, DEC))
    if ra is None or dec is None:
        raise InputError(f"{source}: no columns of positions in degrees; call them ra and dec")
    return ra, dec


def positions_of(frame: pl.DataFrame, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return right ascension and declination of a table's rows, degrees, by their usual names; NaN if missing."""
    names = position_columns(frame.columns, source)
    ra, dec = (frame[name].cast(pl.Float64, strict=False).to_numpy() for name in names)
    return checked_positions(ra, dec, source)


def checked_positions(ra: Any, dec: Any, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return right ascension and declination in degrees, shapes (N,); NaN if missing."""
    positions = []
    for name, values, low, high in (("ra", ra, -180, 360), ("dec", dec, -90, 90)):
        degrees = np.atleast_1d(float_array(values, f"{source}: {name}", "deg"))
        bad = (degrees < low) | (degrees > high)
        if bad.any():
            wrong = which_rows(bad, degrees)
            raise InputError(f"{source}: {name} should be from {low} to {high} degrees, or empty; wrong in {wrong}")
        positions.append(degrees)
    return positions[0], positions[1]


def repeated_positions(frame: pl.DataFrame, source: str) -> Iterator[Finding]:
    """Warn if many rows of a table are within 1 arcsec of another: the same galaxies under other ids."""
    try:
        points = unit_vectors(*positions_of(frame, source))
    except InputError:  # no positions, or not in degrees
        return
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 2:
        return
    nearest = KDTree(points).query(points, 2, distance_upper_bound=np.radians(_SAME / 3600))[0][:, 1]
    twice = int(np.count_nonzero(np.isfinite(nearest)))
    if twice <= _FEW * len(points):
        return
    message = (
        f"{twice:,} of {len(points):,} galaxies are within {_SAME:g} arcsec of another, probably the same under two "
        "ids. Errors are those of independent galaxies, and too small."
    )
    yield Finding("galaxies-repeated", "caution", message, "Keep one row of each galaxy.")


def unit_vectors(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return positions in degrees as unit vectors, shape (N, 3); NaN if a coordinate is missing."""
    a, d = np.radians(longitude), np.radians(latitude)
    vectors = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
    vectors[np.isnan(vectors).any(axis=1)] = np.nan
    return vectors
