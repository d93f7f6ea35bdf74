"""SDSS DR7's tables of a simulated sky: PhotoObjAll, SpecObjAll, Field and Neighbors.

Fields overlap: an object that lies in several has a row in PhotoObjAll for each, measured with that field's seeing.
One is primary (mode 1), the others are secondary (mode 2), and Neighbors holds the pairs, as it holds all pairs of
detections within half an arcminute.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from truemorph.simulate.galaxies import ELLIPTICAL

UNMEASURED = -9999.0
_RERUN = 40
_OVERLAPPED = (0.55, 0.33, 0.12)  # how often none, one or two other fields overlap one
_STARS = 0.25  # galaxies with a star within half an arcminute
_SECOND_SPECTRA = 0.04
# Shares of galaxies with a star of a field that they themselves aren't in: seen again (mode 2) some way off, or a near
# one on the other side of a field's edge (mode 1).
_AGAIN_BESIDE, _ACROSS_EDGE = 0.12, 0.08
_SHARP = 0.85  # arcsec: the seeing of those fields, better than any galaxy's
_OFFSET, _REMEASURED = 0.12, 0.04  # arcsec between detections of an object; spread of a radius measured again
_FIELD_SIDES = 0.20, 0.14  # degrees
_BAND_PSF = {"u": 1.16, "g": 1.08, "r": 1.0, "i": 0.95, "z": 0.96}


@dataclass(frozen=True)
class SdssTables:
    """The tables by the names DR7 gives them, and what they say of each galaxy.

    Attributes
    ----------
    tables : dict of DataFrame
    object_ids, ra, dec : Series, length N
        DR7's objID of the primary detection, degrees.
    best_psf, n_fields : Series, length N
        Smallest PSF FWHM (arcsec) among the fields in which a galaxy was detected, and their number.
    """

    tables: dict[str, pl.DataFrame]
    object_ids: pl.Series
    ra: pl.Series
    dec: pl.Series
    best_psf: pl.Series
    n_fields: pl.Series


def object_id(run: pl.Series, camcol: pl.Series, field: pl.Series, obj: pl.Series | int) -> pl.Series:
    """DR7's objID: sky version, rerun, run, camcol, field and object packed into 64 bits; with obj 0 the fieldID.

    Examples
    --------
    >>> one = pl.Series([1])
    >>> object_id(one * 752, one, one * 373, 41)[0]
    587722981748572201
    """
    # Layout: the SDSS documentation of fObjidFromSDSS.
    return (1 << 59) + (_RERUN << 48) + run * (1 << 32) + camcol * (1 << 29) + field * (1 << 16) + obj


def sdss_tables(
    population: pl.DataFrame,
    rng: np.random.Generator,
    *,
    known: np.ndarray,
    with_redshift: np.ndarray,
    measured: np.ndarray,
) -> SdssTables:
    """Put galaxies on the sky and tabulate them.

    Parameters
    ----------
    population : polars.DataFrame
        From `simulate_galaxies`.
    rng : numpy.random.Generator
    known, with_redshift, measured : arrays of bool, shape (N,)
        Galaxies that PhotoObjAll has at all, that have a spectrum, and whose Petrosian radius was measured.
    """
    population = population.with_row_index("group")
    fields = _fields(rng, population)
    galaxies = _galaxies(rng, population, fields.filter("primary"), measured)
    objects = pl.concat([galaxies, _stars(rng, galaxies)])
    found = _detections(rng, objects, fields)
    of_galaxies = found.filter(pl.col("type") == 3)
    own = of_galaxies.filter(pl.col("mode") == 1).sort("group")
    fields_seen = of_galaxies.group_by("group").agg(best=pl.col("psf").min(), count=pl.len()).sort("group")
    strays, their_fields = _strays(rng.spawn(1)[0], own)
    there = pl.col("group").is_in(np.flatnonzero(known))
    photometry = pl.concat([found, strays.select(found.columns)]).filter(there)
    return SdssTables(
        {
            "PhotoObjAll": photometry.drop("group", "over", "psf").sort("objID"),
            "SpecObjAll": _spectra(rng, population, own["objID"], with_redshift & known),
            "Field": _field_table(pl.concat([fields.select(their_fields.columns), their_fields])),
            "Neighbors": _neighbours(photometry),
        },
        own["objID"].alias("object_id"),
        own["ra"],
        own["dec"],
        fields_seen["best"],
        fields_seen["count"].cast(pl.Int64),
    )


def _fields(rng: np.random.Generator, population: pl.DataFrame) -> pl.DataFrame:
    """Fields of the galaxies, and fields of other runs that lie over them (`over` says which)."""
    first = population.group_by("field").agg(psf=pl.col("psf_fwhm").first()).sort("field")
    n = first.height
    base = pl.DataFrame(
        {
            "over": first["field"],
            "psf": first["psf"],
            "ra": rng.uniform(120, 240, n),
            "dec": np.rad2deg(np.arcsin(rng.uniform(0.0, np.sin(np.deg2rad(60)), n))),
            "primary": np.ones(n, dtype=bool),
        }
    )
    pieces = [base]
    number = rng.choice(len(_OVERLAPPED), n, p=_OVERLAPPED)
    for least in range(1, len(_OVERLAPPED)):
        over = base.filter(pl.Series(number >= least))
        seeing = np.clip(1.3 * np.exp(0.14 * rng.normal(size=over.height)), 0.9, 2.4)
        pieces.append(over.with_columns(psf=pl.Series(seeing), primary=pl.lit(False)))
    fields = pl.concat(pieces)
    place = rng.permutation(700)[: fields.height] if fields.height <= 700 else rng.permutation(fields.height)
    # Runs below 8,400, fields above 11, as real ones; no two alike.
    run, camcol, field = 94 + place // 6 * 7 % 8000, 1 + place % 6, 11 + place // 6 // 1100
    fields = fields.with_columns(
        run=pl.Series(run, dtype=pl.Int64),
        camcol=pl.Series(camcol, dtype=pl.Int64),
        field=pl.Series(field, dtype=pl.Int64),
    )
    return fields.with_columns(fieldID=object_id(fields["run"], fields["camcol"], fields["field"], 0))


def _galaxies(
    rng: np.random.Generator, population: pl.DataFrame, fields: pl.DataFrame, measured: np.ndarray
) -> pl.DataFrame:
    """Galaxies as one detection of each measures them."""
    n = population.height
    centre = population.select(over="field").join(fields.select("over", "ra", "dec"), on="over", maintain_order="left")
    dec = centre["dec"].to_numpy() + _FIELD_SIDES[1] * (rng.random(n) - 0.5)
    ra = centre["ra"].to_numpy() + _FIELD_SIDES[0] * (rng.random(n) - 0.5) / np.cos(np.deg2rad(dec))
    extinction = np.minimum(rng.exponential(0.08, n), 0.6)
    colour = population.select(
        pl.when(pl.col("type") == ELLIPTICAL).then("g_r_bulge").otherwise("g_r_disk") + pl.col("redshift")
    )
    g_r = colour.to_series().to_numpy()
    r = population["magnitude"].to_numpy() + extinction
    columns = {
        "petroRad_r": population["radius"].to_numpy(),
        "petroRadErr_r": 0.02 * population["radius"].to_numpy() * rng.lognormal(0, 0.4, n),
        "petroR50_r": population["r50"].to_numpy(),
        "petroR90_r": population["r90"].to_numpy(),
        "petroMag_u": r + 2.2 * g_r + 0.3 + 0.9 * extinction,
        "petroMag_g": r + g_r + 0.35 * extinction,
        "petroMag_r": r,
        "petroMag_i": r - 0.5 * g_r - 0.2 * extinction,
        "petroMag_z": r - 0.8 * g_r - 0.4 * extinction,
    }
    return pl.DataFrame(
        {
            "group": population["group"],
            "over": population["field"],
            "type": np.full(n, 3),
            "ra": ra % 360,
            "dec": dec,
            # A Petrosian radius that can't be measured is -9999, its error -1000 (DR7's algorithms page).
            **{name: np.where(measured, values, UNMEASURED) for name, values in columns.items()},
            "extinction_r": extinction,
        }
    )


def _stars(rng: np.random.Generator, galaxies: pl.DataFrame) -> pl.DataFrame:
    """A star beside some galaxies, 6 to 28 arcsec away."""
    beside = galaxies.filter(pl.Series(rng.random(galaxies.height) < _STARS))
    n = beside.height
    angle, distance = rng.uniform(0, 2 * np.pi, n), rng.uniform(6, 28, n) / 3600
    return beside.with_columns(
        type=pl.lit(6, dtype=pl.Int64),
        ra=(pl.col("ra") + pl.Series(distance * np.cos(angle)) / pl.col("dec").radians().cos()) % 360,
        dec=pl.col("dec") + pl.Series(distance * np.sin(angle)),
        petroRad_r=pl.Series(rng.uniform(1.2, 2.2, n)),
        petroMag_r=pl.Series(rng.uniform(16, 21, n)),
    )


def _detections(rng: np.random.Generator, objects: pl.DataFrame, fields: pl.DataFrame) -> pl.DataFrame:
    """Every object in every field that it lies in, with an objID."""
    placed = fields.select("over", "psf", "primary", "run", "camcol", "field", "fieldID")
    found = objects.join(placed, on="over", how="left", maintain_order="left_right")
    number = found.select(pl.int_range(pl.len()).shuffle(seed=7).over("fieldID"))[:, 0] + 10
    again = ~found["primary"]
    shift = pl.Series(rng.normal(0, _OFFSET / 3600, found.height)) * again
    scale = pl.Series(np.exp(rng.normal(0, _REMEASURED, found.height)))
    radius = pl.col("petroRad_r")
    return found.with_columns(
        objID=object_id(found["run"], found["camcol"], found["field"], number.cast(pl.Int64)),
        obj=number.cast(pl.Int64),
        rerun=pl.lit(_RERUN, dtype=pl.Int64),
        mode=pl.when("primary").then(1).otherwise(2).cast(pl.Int64),
        ra=(pl.col("ra") + shift / pl.col("dec").radians().cos()).round(8),
        dec=(pl.col("dec") + shift).round(8),
        petroRad_r=pl.when(again & (radius > 0)).then(radius * scale).otherwise(radius),
    ).drop("primary")


def _strays(rng: np.random.Generator, own: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Detections of stars beside galaxies, in fields of their own, and those fields.

    None of them is a detection of the galaxy: they lie too far off, or are primary.
    """
    n = own.height
    kind = rng.choice(3, n, p=[1 - _AGAIN_BESIDE - _ACROSS_EDGE, _AGAIN_BESIDE, _ACROSS_EDGE])
    angle = rng.uniform(0, 2 * np.pi, n)
    distance = np.where(kind == 1, rng.uniform(6, 28, n), rng.uniform(1.2, 2.6, n)) / 3600
    moved = own.with_columns(
        field=pl.col("field") + 400,  # of the same run, some way down the strip
        type=pl.lit(6, dtype=pl.Int64),
        mode=pl.Series(np.where(kind == 1, 2, 1), dtype=pl.Int64),
        ra=(pl.col("ra") + pl.Series(distance * np.cos(angle)) / pl.col("dec").radians().cos()).round(8) % 360,
        dec=(pl.col("dec") + pl.Series(distance * np.sin(angle))).round(8),
        petroRad_r=pl.Series(rng.uniform(1.2, 2.2, n)),
        petroMag_r=pl.Series(rng.uniform(16, 21, n)),
        psf=pl.lit(_SHARP),
    ).filter(pl.Series(kind > 0))
    moved = moved.with_columns(
        fieldID=object_id(moved["run"], moved["camcol"], moved["field"], 0),
        objID=object_id(moved["run"], moved["camcol"], moved["field"], moved["obj"]),
    )
    fields = moved.unique("fieldID", maintain_order=True).select(
        "fieldID", "run", "camcol", "field", "ra", "dec", "psf"
    )
    return moved, fields


def _spectra(
    rng: np.random.Generator, population: pl.DataFrame, object_ids: pl.Series, with_redshift: np.ndarray
) -> pl.DataFrame:
    """One good spectrum of each galaxy that has any, and a worse one of a few."""
    redshift = population["redshift"].to_numpy()
    good = np.flatnonzero(with_redshift)
    second = good[rng.random(good.size) < _SECOND_SPECTRA]
    rows = np.concatenate([good, second])
    worse = np.arange(rows.size) >= good.size
    return pl.DataFrame(
        {
            "specObjID": 75094092974915584 + 4194304 * np.arange(rows.size, dtype=np.int64),
            "bestObjID": object_ids.gather(rows),
            "z": redshift[rows] + np.where(worse, 0.01 * rng.normal(size=rows.size), 0.0),
            "zErr": np.abs(rng.normal(1.5e-4, 3e-5, rows.size)),
            "zConf": np.where(worse, rng.uniform(0.1, 0.6, rows.size), rng.uniform(0.95, 1, rows.size)),
            "specClass": np.full(rows.size, 2),
            "sciencePrimary": np.where(worse, 0, 1),
        }
    )


def _field_table(fields: pl.DataFrame) -> pl.DataFrame:
    widths = {f"psfWidth_{band}": pl.col("psf") * factor for band, factor in _BAND_PSF.items()}
    return fields.select(
        "fieldID", "run", pl.lit(_RERUN).cast(pl.Int64).alias("rerun"), "camcol", "field", "ra", "dec", **widths
    ).sort("fieldID")


def _neighbours(found: pl.DataFrame) -> pl.DataFrame:
    """All pairs of detections within half an arcminute: those of a galaxy, and of the star beside it."""
    one = found.select("group", "objID", "ra", "dec", "type", "mode")
    pairs = one.join(one, on="group", suffix="_2").filter(pl.col("objID") != pl.col("objID_2"))
    across = (pl.col("ra") - pl.col("ra_2")) * pl.col("dec").radians().cos()
    distance = ((across**2 + (pl.col("dec") - pl.col("dec_2")) ** 2).sqrt() * 60).alias("distance")
    table = pairs.select(
        "objID",
        distance,
        "type",
        "mode",
        NeighborObjID=pl.col("objID_2"),
        neighborType=pl.col("type_2"),
        neighborMode=pl.col("mode_2"),
    )
    return table.filter(pl.col("distance") < 0.5).sort("objID", "distance")
