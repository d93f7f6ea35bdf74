"""SDSS DR7: photometry, redshift and seeing of given objects, by SQL at SkyServer.

x_sql.asp has parameters `cmd` and `format=csv` (SDSS's sqlcl.py, astroquery.sdss). Tables and columns are those of
SDSS's schema files: SpecObj is SpecObjAll where sciencePrimary = 1; Neighbors has all pairs of detections within half
an arcminute, and neighborMode 2 is a detection in another field. SkyServer (functions.inc, stringOf) writes `real`
columns with three decimals, `float` columns with six, and missing numbers as 0, which is why CAST and COALESCE are
used. All responses have status 200 (functions.inc, writeCSV): a table; "No objects have been found"; "ERROR", an empty
line, and the message of SQL Server; or "ERROR: Maximum 60 queries allowed per minute".

The SQL is valid for both SQL Server and SQLite, so that tests can run it.
"""

import csv
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import requests

from truemorph.archives.addresses import Address
from truemorph.archives.gz2 import VOTE_TABLES
from truemorph.archives.http import BrokenAnswerError, Session, TooMuchError, checked_body, first_words
from truemorph.archives.provenance import Fetched, entry_of, is_recorded, write_recorded
from truemorph.archives.queries import TIMED_OUT, find_column, in_batches
from truemorph.errors import InputError, TruemorphError, reason
from truemorph.findings import Finding
from truemorph.tables import left_join, read_table

PER_SECOND = 0.9  # SkyServer allows 60 queries per minute
# With 150 ids of 18 digits the URL stays well below the server's limit of about 8 kB (400 ids are too many).
BATCH = 150
# Arcminutes: detections of one object in other fields are within this distance, other objects are not.
SAME_OBJECT = 0.05
_UNMEASURED = -9999.0  # in all columns of PhotoObjAll; its error is then -1000
_SKY_VERSION = 1 << 59  # objID // this is 1 in DR7, 2 since DR8, 15 in the Stripe 82 coadd
_ID_NAMES = ("dr7objid", "objid", "object_id")
_TOO_MANY = re.compile(r"maximum \d+ queries allowed per minute", re.IGNORECASE)
_MEASURED = (
    *("petroRad_r", "petroRadErr_r", "petroR50_r", "petroR90_r"),
    *(f"petroMag_{band}" for band in "ugriz"),
    "extinction_r",
)
COLUMNS = {
    "objid": ("", "SDSS DR7 objID"),
    "ra": ("deg", "right ascension, J2000"),
    "dec": ("deg", "declination, J2000"),
    "run": ("", "imaging run of the object's own field"),
    "rerun": ("", "reprocessing number of the run"),
    "camcol": ("", "camera column"),
    "field": ("", "field number"),
    "petroRad_r": ("arcsec", "Petrosian radius, r band"),
    "petroRadErr_r": ("arcsec", "error of the Petrosian radius"),
    "petroR50_r": ("arcsec", "radius of half the Petrosian flux, r band"),
    "petroR90_r": ("arcsec", "radius of 90 % of the Petrosian flux, r band"),
    **{f"petroMag_{band}": ("mag", f"Petrosian magnitude, {band}, extinction not removed") for band in "ugriz"},
    "extinction_r": ("mag", "Galactic extinction, r band"),
    "redshift": ("", "redshift of the object's best spectrum (SpecObj.z)"),
    "zConf": ("", "confidence of the redshift"),
    "psfWidth_r": ("arcsec", "PSF FWHM, r band, in the object's own field (the image shown to the volunteers)"),
    "psfWidth_r_best": ("arcsec", "smallest PSF FWHM, r band, of the fields in which the object was detected"),
}


class Query(NamedTuple):
    """SQL with a placeholder `{ids}`, and the polars types of the result's columns."""

    name: str
    sql: str
    columns: dict[str, type[pl.DataType]]


PHOTOMETRY = Query(
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
DETECTIONS = Query(
    "detections",
    # Objects without other detections have a row too, so a missing object means a truncated response.
    "SELECT p.objID AS objid, COALESCE(q.fieldID, 0) AS fieldid, "
    "COALESCE(CAST(f.psfWidth_r AS float), -9999) AS psfWidth_r FROM PhotoObjAll AS p "
    f"LEFT JOIN Neighbors AS n ON n.objID = p.objID AND n.neighborMode = 2 AND n.distance < {SAME_OBJECT} "
    "LEFT JOIN PhotoObjAll AS q ON q.objID = n.NeighborObjID LEFT JOIN Field AS f ON f.fieldID = q.fieldID "
    "WHERE p.objID IN ({ids}) ORDER BY objid",
    {"objid": pl.Int64, "fieldid": pl.Int64, "psfWidth_r": pl.Float64},
)


def fetch(session: Session, known: dict[str, Address], out: Path, *, ids: Any = None, id: str | None = None) -> Fetched:
    """Fetch photometry, redshift and seeing of objects by their DR7 ids.

    photometry.parquet has a row per object (`COLUMNS`; null if not measured), missing.csv the ids that are not in DR7,
    and parts/ the responses, from which a later run resumes. `ids` is a sequence or a table with a column `id` (default
    dr7objid, objid or object_id); by default, those of the vote tables in the folder gz2 next to `out`.
    """
    dr7_ids = _dr7_ids(ids, id, out)
    address = known["sdss.sql"]
    sql = f"{PHOTOMETRY.sql}; {DETECTIONS.sql}"
    table = _finished(out, dr7_ids, sql, address.public_url)
    if table is None:
        photometry = _found(session, address.url, out, PHOTOMETRY, dr7_ids)
        objects = photometry["objid"].unique().sort()
        if objects.len() == 0:
            raise InputError(f"none of {dr7_ids.len():,d} ids is in DR7 (first: {dr7_ids[0]}); give DR7 objids (`ids`)")
        table = _table(photometry, _found(session, address.url, out, DETECTIONS, objects))
        missing = dr7_ids.filter(~dr7_ids.is_in(objects.implode()))
        write_recorded(out / "missing.csv", missing.to_frame(), address, sql, {})
        write_recorded(out / "photometry.parquet", table, address, sql, COLUMNS)
    absent = dr7_ids.len() - table.height
    counts = {
        "ids": dr7_ids.len(),
        "objects": table.height,
        "with redshift": table["redshift"].count(),
        "with Petrosian radius": table["petroRad_r"].count(),
    }
    text = f"{absent:,d} ids are not in DR7; they are listed in {out / 'missing.csv'}."
    findings = (Finding("ids-not-in-dr7", "note", text),) if absent else ()
    return Fetched("sdss", out, counts, (address,), findings)


def _dr7_ids(source: Any, column: str | None, out: Path) -> pl.Series:
    """Return unique sorted ids (which groups them by field); raise an error if they are not from DR7."""
    what = "ids"
    try:
        if source is None:
            tables = [path for name in VOTE_TABLES if (path := out.parent / "gz2" / name).is_file()]
            what = f"vote tables in {out.parent / 'gz2'}, made by truemorph fetch gz2"
            # Read only the ids, because these tables have hundreds of columns.
            read = [pl.read_csv(path, columns=["dr7objid"], infer_schema=False)["dr7objid"] for path in tables]
            values = pl.concat([pl.Series("dr7objid", [], pl.String), *read])
        elif isinstance(source, str | os.PathLike) or hasattr(source, "columns"):
            table = read_table(source)
            what = str(table.path or what)
            name = find_column(table.frame, [column] if column else _ID_NAMES, f"{what} (`id`)")
            what = f"{what}: column {name}"
            values = table.frame[name].cast(pl.String)
        else:
            values = pl.Series([str(value) for value in source if value is not None], dtype=pl.String)
        ids = values.str.strip_chars().replace({"": None}).drop_nulls().cast(pl.Int64).unique().sort().alias("objid")
    except pl.exceptions.PolarsError as problem:
        raise InputError(f"{what}: not integers (floats lose digits); name another column (`id`)") from problem
    if ids.len() == 0:
        raise InputError(f"{what}: no ids; give DR7 objids (`ids`)")
    wrong = ids.filter(ids // _SKY_VERSION != 1)
    if wrong.len():
        ranges = "DR7 ids have 18 digits and begin with 587 or 588 (later: 1237; Stripe 82 coadd: 8647)"
        raise InputError(f"{what}: {wrong[-1]} is not from DR7; remove it, or name another column (`id`). {ranges}")
    return ids


def _finished(out: Path, ids: pl.Series, sql: str, url: str) -> pl.DataFrame | None:
    """Return the table of an earlier run, if it has these ids, this query, and this server."""
    path, absent = out / "photometry.parquet", out / "missing.csv"
    same = entry_of(path).get("query") == sql
    if not (same and is_recorded(path, url) and is_recorded(absent, url)):
        return None
    table, missing = pl.read_parquet(path), pl.read_csv(absent, schema={"objid": pl.Int64})
    return table if pl.concat([table["objid"], missing["objid"]]).sort().equals(ids) else None


def _table(photometry: pl.DataFrame, detections: pl.DataFrame) -> pl.DataFrame:
    """Return one row per object, null if not measured, with the smallest PSF of all fields."""
    measured = pl.when(pl.col(pl.Float64) > _UNMEASURED).then(pl.col(pl.Float64))
    positive = pl.col("petroRad_r", "psfWidth_r")
    table = (
        photometry.sort("objid", "zConf", descending=[False, True])
        .unique("objid", keep="first", maintain_order=True)
        .with_columns(measured)
        .with_columns(
            pl.when(positive > 0).then(positive),
            petroRadErr_r=pl.when(pl.col("petroRadErr_r") >= 0).then("petroRadErr_r"),
        )
    )
    seeing = pl.concat([part.select("objid", "psfWidth_r") for part in (table, detections)])
    width = pl.col("psfWidth_r")
    best = seeing.filter(width > 0).group_by("objid").agg(psfWidth_r_best=width.min())
    return left_join(table, best, "objid").select(*COLUMNS)


def _found(session: Session, url: str, out: Path, query: Query, ids: pl.Series) -> pl.DataFrame:
    """Return the rows of the ids that are in DR7."""

    def ask(batch: pl.Series) -> pl.DataFrame:
        sql = query.sql.format(ids=",".join(map(str, batch)))
        return session.whole(lambda: _rows(session.get(url, params={"cmd": sql, "format": "csv"}), query), url)

    rows = in_batches(out / "parts", query.name, f"{url} {query.sql}", query.columns, ids, ask, BATCH)
    return rows.filter(pl.col("fieldid") > 0)


def _rows(response: requests.Response, query: Query) -> pl.DataFrame:
    """Parse a response, with exact ids."""
    text = checked_body(response.content).decode("utf-8-sig", "replace")
    if _TOO_MANY.search(text):
        raise BrokenAnswerError("SkyServer had too many queries this minute", wait=65.0)
    if "ERROR" in text:
        said = first_words(text[text.index("ERROR") :].partition("Your SQL command was")[0].encode())
        kind = TooMuchError if TIMED_OUT.search(said) else TruemorphError
        raise kind(f'SkyServer rejected the query for SDSS {query.name}: "{said}"')
    if text.startswith("No objects have been found"):
        return pl.DataFrame(schema=query.columns)
    # Later releases start with a line "#Table1".
    header, *rows = [line for line in csv.reader(text.splitlines()) if line and not line[0].startswith("#")] or [[]]
    # Without a length or chunks, a lost connection can't be detected, except by the end of the text.
    guarded = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    if any(len(row) != len(header) for row in rows) or not (header and (guarded or text.endswith("\n"))):
        raise BrokenAnswerError("the response is empty or truncated")
    try:
        frame = pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row")
        return frame.select(pl.col(*query.columns).str.strip_chars()).cast(dict(query.columns))  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as problem:
        said = f"SkyServer's response for {query.name} is not a table of numbers ({reason(problem)})"
        raise TruemorphError(f"{said}; report it to truemorph's developers") from problem
