"""SDSS DR7 photometry, redshift and seeing of given objects, by SQL at SkyServer.

Facts and where they are from. x_sql.asp takes `cmd` and `format=csv` (SDSS's own sqlcl.py, astroquery.sdss). Tables
and columns: SDSS's schema files; SpecObj is SpecObjAll where sciencePrimary = 1; Neighbors has all pairs of detections
within half an arcminute, and neighborMode 2 is a detection in another field. SkyServer's code (functions.inc, stringOf)
writes `real` columns with three decimals, `float` columns with six, and a missing number as 0: hence CAST (a redshift
of 0.073 is too coarse) and COALESCE. The SQL is what SQL Server and SQLite both understand, so that tests can run it:
no TOP, no ISNULL, no dbo functions, no hints.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.fetched import Column, Fetched, write_described, write_list
from truemorph.catalogs.archives.gz2 import VOTE_TABLES
from truemorph.catalogs.archives.ids import ids_from, read_ids
from truemorph.catalogs.archives.provenance import is_whole, read_provenance
from truemorph.catalogs.archives.skyserver import Query, answers
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError

# 150 ids of eighteen digits keep the URL well below the 8 kB or so at which the server gives up (400 are too many).
BATCH, _MOST = 150, 300
# Arcminutes: a galaxy's detections in other fields lie this near, other objects' don't.
SAME_OBJECT = 0.05
_UNMEASURED = -9999.0  # in every column of PhotoObjAll; errors are -1000 then
_SKY_VERSION = 59  # objID begins with it: 1 in DR7, 2 from DR8 on, 15 in Stripe 82's coadd
_COADD = 15
_MEASURED = (
    *("petroRad_r", "petroRadErr_r", "petroR50_r", "petroR90_r"),
    *(f"petroMag_{band}" for band in "ugriz"),
    "extinction_r",
)
COLUMNS = {
    "objid": Column("", "SDSS DR7 objID"),
    "ra": Column("deg", "right ascension, J2000"),
    "dec": Column("deg", "declination, J2000"),
    "run": Column("", "imaging run of the object's own field"),
    "rerun": Column("", "processing of the run"),
    "camcol": Column("", "camera column"),
    "field": Column("", "field number"),
    "petroRad_r": Column("arcsec", "Petrosian radius, r band"),
    "petroRadErr_r": Column("arcsec", "error of the Petrosian radius"),
    "petroR50_r": Column("arcsec", "radius of half the Petrosian flux, r band"),
    "petroR90_r": Column("arcsec", "radius of 90 % of the Petrosian flux, r band"),
    **{f"petroMag_{band}": Column("mag", f"Petrosian magnitude, {band}, extinction not removed") for band in "ugriz"},
    "extinction_r": Column("mag", "Galactic extinction, r band"),
    "redshift": Column("", "redshift of the object's best spectrum (SpecObj.z)"),
    "zConf": Column("", "confidence of the redshift"),
    "psfWidth_r": Column("arcsec", "PSF FWHM, r band, of the object's own field: of the image that people saw"),
    "psfWidth_r_best": Column("arcsec", "smallest PSF FWHM, r band, of the fields in which the object was detected"),
    "n_fields": Column("", "fields in which the object was detected"),
    "field_best": Column("", "fieldID of the field with the smallest PSF"),
}
_PHOTOMETRY = Query(
    "photometry",
    "SELECT p.objID AS objid, p.ra AS ra, p.dec AS dec, p.run AS run, p.rerun AS rerun, p.camcol AS camcol, "
    "p.field AS field, p.fieldID AS fieldid, "
    + "".join(f"CAST(p.{name} AS float) AS {name}, " for name in _MEASURED)
    + "CAST(f.psfWidth_r AS float) AS psfWidth_r, COALESCE(CAST(s.z AS float), -9999) AS redshift, "
    "COALESCE(CAST(s.zConf AS float), -9999) AS zConf FROM PhotoObjAll AS p "
    "JOIN Field AS f ON f.fieldID = p.fieldID LEFT JOIN SpecObj AS s ON s.bestObjID = p.objID WHERE p.objID IN ({ids}) "
    "ORDER BY objid",
    {
        **dict.fromkeys(("objid", "run", "rerun", "camcol", "field", "fieldid"), pl.Int64),
        **dict.fromkeys(("ra", "dec", *_MEASURED, "psfWidth_r", "redshift", "zConf"), pl.Float64),
    },
)
_DETECTIONS = Query(
    "detections",
    # A row for an object without other detections too: of one that is absent the answer was cut.
    "SELECT p.objID AS objid, COALESCE(q.fieldID, 0) AS fieldid, "
    "COALESCE(CAST(f.psfWidth_r AS float), -9999) AS psfWidth_r FROM PhotoObjAll AS p "
    f"LEFT JOIN Neighbors AS n ON n.objID = p.objID AND n.neighborMode = 2 AND n.distance < {SAME_OBJECT} "
    "LEFT JOIN PhotoObjAll AS q ON q.objID = n.NeighborObjID LEFT JOIN Field AS f ON f.fieldID = q.fieldID "
    "WHERE p.objID IN ({ids}) ORDER BY objid",
    {"objid": pl.Int64, "fieldid": pl.Int64, "psfWidth_r": pl.Float64},
)


Ids = str | os.PathLike[str] | Iterable[Any]


def check_sdss(
    out: Path,
    *,
    ids: Ids | None = None,
    id_column: str | None = None,
    batch: int = BATCH,
    best_field: bool = True,
) -> None:
    """Refuse what `fetch_sdss` would refuse, as far as it can be told before anything is fetched.

    Raises
    ------
    InputError
    """
    if not 1 <= batch <= _MOST:
        raise InputError(f"a batch has 1 to {_MOST} ids, or the query is too long for an address; got {batch}")
    if ids is not None and (isinstance(ids, str | os.PathLike) or not isinstance(ids, Iterator)):
        _dr7_ids(_given(ids, id_column, out))


def fetch_sdss(
    web: Web,
    known: dict[str, Address],
    out: Path,
    *,
    ids: Ids | None = None,
    id_column: str | None = None,
    batch: int = BATCH,
    best_field: bool = True,
) -> Fetched:
    """Fetch photometry, redshift and seeing of objects by their DR7 ids.

    Parameters
    ----------
    web : Web
    known : dict of Address
    out : Path
        Gets photometry.parquet (`COLUMNS`; a row an object, null where nothing was measured), missing.csv with the ids
        that DR7 doesn't know, and parts/, the answers, from which a later run goes on.
    ids : path or sequence of int or str, optional
        A table with a column of ids, or ids; default: the vote tables of `fetch gz2` in the folder gz2 beside `out`.
    id_column : str, optional
        Default: dr7objid, objid or object_id, whichever the table has.
    batch : int
        Most ids a query.
    best_field : bool
        False doesn't ask for detections in other fields, which is half of the queries: psfWidth_r_best, n_fields and
        field_best are those of the object's own field then.

    Returns
    -------
    Fetched

    Raises
    ------
    InputError
        If there are no ids, or they are not DR7's.
    TruemorphError
        If SkyServer refuses a query, doesn't answer, or answers without a column that was asked for.
    """
    check_sdss(out, batch=batch)
    wanted = _dr7_ids(_given(ids, id_column, out))
    address = known["sdss.sql"]
    queries = [_PHOTOMETRY, _DETECTIONS] if best_field else [_PHOTOMETRY]
    sql = "; ".join(query.sql for query in queries)
    table = _finished(out, wanted, sql, None if web.offline else address.url)
    if table is None:
        table = _made(web, address, out, wanted, queries, batch, sql)
    missing = wanted.len() - table.height
    counts = {
        "ids": wanted.len(),
        "objects": table.height,
        "with redshift": table["redshift"].count(),
        "with Petrosian radius": table["petroRad_r"].count(),
        "in several fields": int((table["n_fields"] > 1).sum()),
    }
    notes = [f"{missing:,d} ids are not in DR7: {out / 'missing.csv'}"] if missing else []
    return Fetched("sdss", out, counts, (address,), tuple(notes))


def _finished(out: Path, wanted: pl.Series, sql: str, url: str | None) -> pl.DataFrame | None:
    """The table of an earlier run, if it is whole, of these very ids, and of this query and server (or any)."""
    path, absent = out / "photometry.parquet", out / "missing.csv"
    entry = read_provenance(out).get(path.name, {})
    if entry.get("query") != sql or url not in (None, entry.get("url")) or not (is_whole(path) and is_whole(absent)):
        return None
    table = pl.read_parquet(path)
    unknown = pl.read_csv(absent, schema={"objid": pl.Int64})
    had = pl.concat([table["objid"], unknown["objid"]]).sort()
    return table if had.equals(wanted) else None


def _made(
    web: Web, address: Address, out: Path, wanted: pl.Series, queries: Sequence[Query], batch: int, sql: str
) -> pl.DataFrame:
    """Ask for what is missing, and put the table together."""
    parts = out / "parts"
    if not web.offline:
        parts.mkdir(parents=True, exist_ok=True)
    known_to_dr7 = pl.col("fieldid").is_not_null()
    photometry = answers(web, address.url, parts, queries[0], wanted, batch).filter(known_to_dr7)
    if photometry.height == 0:
        raise InputError(
            f"DR7 knows none of the {wanted.len():,d} ids (first: {wanted[0]}); give DR7 objids with --ids"
        )
    seen = wanted.filter(wanted.is_in(photometry["objid"].implode()))
    others = [
        answers(web, address.url, parts, query, seen, batch).filter(pl.col("fieldid") > 0) for query in queries[1:]
    ]
    table = _table(photometry, others)
    missing = wanted.filter(~wanted.is_in(seen.implode()))
    write_list(out / "missing.csv", missing.to_frame(), address, sql, fetched=False, ids=wanted.len())
    write_described(out / "photometry.parquet", [table], COLUMNS, address, sql, fetched=False, ids=wanted.len())
    return table


def _given(given: Ids | None, column: str | None, out: Path) -> pl.Series:
    if isinstance(given, str | os.PathLike):
        return read_ids(given, column)
    if given is not None:
        return ids_from(given)
    folder = out.parent / "gz2"
    tables = [folder / name for name in VOTE_TABLES if (folder / name).is_file()]
    if not tables:
        raise InputError(f"no ids: {folder} has no vote tables; run truemorph fetch gz2 first, or give --ids TABLE")
    return pl.concat([read_ids(path, column or "dr7objid") for path in tables])


def _dr7_ids(ids: pl.Series) -> pl.Series:
    """Each id once, in order, which keeps those of a field together.

    Raises
    ------
    InputError
        If there is none, or one is not of DR7.
    """
    ids = ids.unique().sort().alias("objid")
    wrong = ids.filter((ids < 1 << _SKY_VERSION) | (ids >= 2 << _SKY_VERSION))
    if wrong.len():
        if wrong[-1] >> _SKY_VERSION == _COADD:
            why = "Stripe 82's coadd, which DR7's tables don't have; leave those rows out"
        elif wrong[-1] >= 2 << _SKY_VERSION:
            why = "DR8 or later; take the column dr7objid"
        else:
            why = "no SDSS object; DR7's have 18 digits, 587..."
        raise InputError(f"{wrong[-1]} is an id of {why} (--id-column)")
    if ids.len() == 0:
        raise InputError("the table has no ids; give DR7 objids with --ids")
    return ids


def _table(photometry: pl.DataFrame, others: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One row an object, what was never measured null, with the best of its fields."""
    measured = pl.when(pl.col(pl.Float64) > _UNMEASURED).then(pl.col(pl.Float64))
    width = pl.when(pl.col("psfWidth_r") > 0).then("psfWidth_r")
    table = (
        photometry.sort("objid", "zConf", descending=[False, True])
        .unique("objid", keep="first", maintain_order=True)
        .with_columns(measured)
        .with_columns(
            width.name.keep(),
            petroRadErr_r=pl.when(pl.col("petroRadErr_r") >= 0).then("petroRadErr_r"),
            petroRad_r=pl.when(pl.col("petroRad_r") > 0).then("petroRad_r"),
        )
    )
    fields = [table.select("objid", "fieldid", "psfWidth_r")]
    fields += [other.select("objid", "fieldid", width.name.keep()) for other in others]
    best = (
        pl.concat(fields)
        .unique(["objid", "fieldid"])
        .sort("objid", "psfWidth_r", "fieldid", nulls_last=True)
        .group_by("objid", maintain_order=True)
        .agg(
            psfWidth_r_best=pl.col("psfWidth_r").first(),
            n_fields=pl.len().cast(pl.Int64),
            field_best=pl.col("fieldid").first(),
        )
    )
    return table.join(best, on="objid", how="left", maintain_order="left").select(*COLUMNS)
