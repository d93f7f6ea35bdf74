"""Simard et al. (2011, ApJS 196, 11): pure Sérsic models, from VizieR J/ApJS/196/11 by TAP, in slices.

Table 3 is as in the catalogue's ReadMe at CDS: 1,123,718 rows in the order of recno; objID is text of 18 digits; -99.99
is missing. Lengths are in kpc: an angle times Scale. If Scale is missing, the published circular radii are negative and
not meaningful. VizieR's TAP requires quotes for names with commas, brackets and slashes ("Rchl,r"; its page "About
TAPVizieR").
"""

import io
import shutil
import warnings
from pathlib import Path

import polars as pl
from astropy.io.votable import parse
from pyvo.dal import DALQueryError
from pyvo.dal.tap import TAPQuery, TAPResults

from truemorph.archives.addresses import Address
from truemorph.archives.http import BrokenAnswerError, Session, TooMuchError, checked_body, first_words
from truemorph.archives.provenance import Columns, Fetched, is_recorded, write_recorded
from truemorph.archives.queries import TIMED_OUT, in_batches
from truemorph.errors import TruemorphError
from truemorph.tables import read_table

PER_SECOND = 1.0
SOURCE = "J/ApJS/196/11/table3"
SLICE = 50_000  # rows per query: a few megabytes, about half a minute
_MISSING = -99.99

# VizieR's name: truemorph's name, unit, description.
_COLUMNS = {
    "objID": ("objID", "", "SDSS DR7 objID"),
    "z": ("z", "", "redshift used: spectroscopic, or else photometric"),
    "Scale": ("Scale", "kpc / arcsec", "physical scale at z (H0 = 70, flat, matter 0.3)"),
    "Rchl,r": ("r_half", "kpc", "circular half-light radius, r (Rchl,r)"),
    "e": ("ellipticity", "", "ellipticity, 1 - b/a (e)"),
    "e_e": ("ellipticity_error", "", "error of the ellipticity (e_e)"),
    "ng": ("sersic_n", "", "Sersic index (ng), fitted between 0.5 and 8"),
    "e_ng": ("sersic_n_error", "", "error of the Sersic index (e_ng)"),
}
COLUMNS: Columns = {name: (unit, about) for name, unit, about in _COLUMNS.values()} | {
    "r_half_arcsec": ("arcsec", "circular half-light radius, r (Rchl,r / Scale)")
}


def fetch(session: Session, known: dict[str, Address], out: Path) -> Fetched:
    """Fetch table3.parquet (`COLUMNS`; null if missing, and for lengths that are not positive).

    parts/ has the slices, from which a later run resumes; they are removed when the table is complete.
    """
    address = known["simard.tap"]
    path = out / "table3.parquet"
    if not is_recorded(path, address.public_url) or list(pl.read_parquet_schema(path)) != list(COLUMNS):
        table, adql = _fetch_table(session, address.url, out / "parts")
        write_recorded(path, _cleaned(table), address, adql, COLUMNS)
        shutil.rmtree(out / "parts", ignore_errors=True)
    rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    return Fetched("simard", out, {path.name: rows}, (address,))


def _fetch_table(session: Session, url: str, parts: Path) -> tuple[pl.DataFrame, str]:
    """Return the table as published, and its ADQL query."""
    bounds = f'SELECT COUNT(*) AS n_rows, MIN(recno) AS first_row, MAX(recno) AS last_row FROM "{SOURCE}"'
    total, low, high = _ask(session, url, bounds).row(0)
    if not total:
        raise TruemorphError(f"{SOURCE}: the service has no rows for it; replace the address (`addresses`)")
    columns = ", ".join(f'"{name}" AS c{k}' for k, name in enumerate(_COLUMNS))
    adql = f'SELECT recno, {columns} FROM "{SOURCE}" WHERE recno BETWEEN {{}} AND {{}}'
    schema = {"recno": pl.Int64, **{name: pl.Int64 if name == "objID" else pl.Float64 for name in _COLUMNS}}

    def ask(rows: pl.Series) -> pl.DataFrame:
        # One more than the maximum, so that a complete response is not mistaken for a truncated one.
        answer = _ask(session, url, adql.format(rows[0], rows[-1]), most=rows[-1] - rows[0] + 2)
        if answer.is_empty():
            return pl.DataFrame(schema=schema)
        answer.columns = list(schema)
        values = answer.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None), pl.col(pl.String).str.strip_chars())
        return values.cast(dict(schema), strict=False)  # type: ignore[arg-type]

    origin = f"{url} {adql} {total} {low} {high}"  # if the table changes, earlier responses are not used
    rows = pl.int_range(low, high + 1, eager=True).alias("recno")
    table = in_batches(parts, "table3", origin, schema, rows, ask, SLICE)
    table = table.drop_nulls("objID").sort("recno").drop("recno")
    if table.height != total or not table["objID"].is_unique().all():
        shutil.rmtree(parts, ignore_errors=True)
        unique = table["objID"].n_unique()
        received = f"{table.height:,d} rows received, {unique:,d} of them unique, instead of {total:,d}"
        raise TruemorphError(f"{SOURCE}: {received}; it may have changed in the meantime; retry")
    return table, adql.format(low, high)


def _ask(session: Session, url: str, adql: str, most: int | None = None) -> pl.DataFrame:
    query = TAPQuery(url, adql, maxrec=most, session=session)

    def once() -> pl.DataFrame:
        content = checked_body(query.submit().content)
        try:
            with warnings.catch_warnings(action="ignore"):
                result = TAPResults(parse(io.BytesIO(content)), url=url, session=session)
        except DALQueryError as problem:
            kind = TooMuchError if TIMED_OUT.search(str(problem)) else TruemorphError
            raise kind(f'VizieR rejected the query: "{first_words(str(problem).encode())}"') from problem
        except Exception as problem:  # the parser raises many types
            raise BrokenAnswerError(f'not a complete VOTable ("{first_words(content)}")') from problem
        if result.query_status == "OVERFLOW":
            raise TooMuchError("VizieR truncated the response at its row limit; run the same command again later")
        table = result.to_table()
        return read_table(table).frame if len(table) else pl.DataFrame()

    return session.whole(once, url)


def _cleaned(frame: pl.DataFrame) -> pl.DataFrame:
    """Rename columns; replace missing and meaningless values by null."""
    frame = frame.rename({name: ours for name, (ours, _, _) in _COLUMNS.items()})
    numbers = pl.col(pl.Float64)
    frame = frame.with_columns(pl.when((numbers - _MISSING).abs() > 1e-3).then(numbers))
    lengths = pl.col([name for name, unit, _ in _COLUMNS.values() if unit.startswith("kpc")])
    frame = frame.with_columns(pl.when(lengths > 0).then(lengths))
    return frame.with_columns(r_half_arcsec=pl.col("r_half") / pl.col("Scale"))
