"""Structure of galaxies by Simard et al. (2011, ApJS 196, 11): VizieR J/ApJS/196/11, by TAP, in slices.

Tables and columns as in the catalogue's ReadMe at CDS: table 3 pure Sérsic models, table 1 bulge (n = 4) and disk,
table 2 bulge of free n and disk; 1,123,718 rows each, in the order of recno; objID is text of 18 digits; -99.99 is
missing. Lengths are kpc, angles times Scale; where Scale is missing the circular radii came out negative, and mean
nothing. VizieR's TAP wants names with commas and brackets ("Rchl,r") in quotes (its page "About TAPVizieR"), other
interfaces write Rchl_r: so the service is asked for its names first (TAP_SCHEMA.columns), and they are compared by
their letters and digits.
"""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.fetched import (
    Column,
    Fetched,
    record_made,
    require_columns,
    write_described,
    write_frame,
)
from truemorph.catalogs.archives.provenance import file_hash, read_provenance
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError
from truemorph.progress import progress

CATALOGUE = "J/ApJS/196/11"
SLICE = 50_000  # rows a query: a few megabytes, half a minute or so
_SMALLEST = 50
_MISSING = -99.99

# VizieR's name: truemorph's name, unit, what it is.
_COMMON = {
    "objID": ("objID", "", "SDSS DR7 objID"),
    "z": ("z", "", "redshift that was used: spectroscopic, or photometric where Sp is -1"),
    "Sp": ("Sp", "", "SDSS SpecClass; -1 photometric redshift, -2 none"),
    "Scale": ("Scale", "kpc / arcsec", "physical scale at z (H0 = 70, flat, matter 0.3)"),
    "Rhlg": ("Rhlg", "kpc", "half-light radius, g, along the semi-major axis"),
    "Rhlr": ("Rhlr", "kpc", "half-light radius, r, along the semi-major axis"),
    "Rchl,g": ("Rchl_g", "kpc", "circular half-light radius, g"),
}
_TABLES = {
    3: _COMMON
    | {
        "rg2d": ("rg2d", "mag", "r magnitude of the model"),
        "Rchl,r": ("r_half", "kpc", "circular half-light radius, r (Rchl,r)"),
        "e": ("ellipticity", "", "ellipticity, 1 - b/a (e)"),
        "e_e": ("ellipticity_error", "", "error of the ellipticity (e_e)"),
        "ng": ("sersic_n", "", "Sersic index (ng), fitted between 0.5 and 8"),
        "e_ng": ("sersic_n_error", "", "error of the Sersic index (e_ng)"),
    },
    **dict.fromkeys(
        (1, 2),
        _COMMON
        | {
            "Rchl,r": ("Rchl_r", "kpc", "circular half-light radius, r"),
            "(B/T)g": ("bulge_fraction_g", "", "bulge fraction, g ((B/T)g)"),
            "(B/T)r": ("bulge_fraction_r", "", "bulge fraction, r ((B/T)r)"),
            "e_(B/T)r": ("bulge_fraction_r_error", "", "error of the bulge fraction, r"),
            "Re": ("Re", "kpc", "effective radius of the bulge along the semi-major axis"),
            "e": ("bulge_ellipticity", "", "ellipticity of the bulge (e)"),
            "Rd": ("Rd", "kpc", "scale length of the disk"),
            "i": ("inclination", "deg", "inclination of the disk, 0 is face-on (i)"),
            "nb": ("bulge_sersic_n", "", "Sersic index of the bulge (nb)"),
            "PpS": ("PpS", "", "probability that bulge and disk are no better than one Sersic profile"),
        },
    ),
}
_LENGTHS = {"Rhlg", "Rhlr", "Rchl_g", "Rchl_r", "r_half", "Re", "Rd", "Scale"}
_ARCSEC = Column("arcsec", "circular half-light radius, r (Rchl,r / Scale)")


@dataclass(frozen=True)
class _Table:
    """One of the tables, as the service has it."""

    number: int
    service: Any
    names: dict[str, str]  # VizieR's documented name: the service's

    @property
    def source(self) -> str:
        return f"{CATALOGUE}/table{self.number}"

    def adql(self, low: int, high: int) -> str:
        columns = ", ".join(f'"{name}" AS c{number}' for number, name in enumerate(self.names.values()))
        return f'SELECT {columns} FROM "{self.source}" WHERE recno BETWEEN {low} AND {high}'


class _TooMuchError(Exception):
    """The service gave up or gave less: a smaller slice may do."""


def fetch_simard(
    web: Web, known: dict[str, Address], out: Path, *, tables: Sequence[int] = (3,), slice_rows: int = SLICE
) -> Fetched:
    """Fetch tables of Simard et al. (2011).

    Parameters
    ----------
    web : Web
    known : dict of Address
    out : Path
        Gets table3.parquet (objID int64, sersic_n, ellipticity, r_half in kpc, r_half_arcsec, ...; null where missing,
        and radii that are not positive too), table1 and table2 likewise; and parts/, the slices, which are removed when
        a table is whole.
    tables : sequence of int
        Of 1, 2 and 3.
    slice_rows : int
        Most rows a query.

    Returns
    -------
    Fetched

    Raises
    ------
    InputError
        If there is no such table, or pyvo isn't installed.
    TruemorphError
        If the service doesn't answer, lacks a column, or gives fewer rows than it says it has.
    """
    unknown = [number for number in tables if number not in _TABLES]
    if unknown or not tables:
        raise InputError(f"the tables are 1, 2 and 3; got {', '.join(map(str, unknown)) or 'none'}")
    if slice_rows < _SMALLEST:
        raise InputError(f"a slice has at least {_SMALLEST} rows; got {slice_rows}")
    address = known["simard.tap"]
    (out / "parts").mkdir(parents=True, exist_ok=True)
    counts, notes, service = {}, [], None
    for number in dict.fromkeys(tables):
        path = out / f"table{number}.parquet"
        rows = _whole(path, address)
        if rows is None:
            service = service or _service(web, address)
            rows = _fetch_table(address, _table(service, number), path, slice_rows)
        else:
            notes.append(f"{path.name} was here already")
        counts[path.name] = rows
    return Fetched("simard", out, counts, (address,), tuple(notes))


def _service(web: Web, address: Address) -> Any:
    if web.offline:
        raise TruemorphError(f"{address.about}: not here, and this is offline; run the same with a network")
    try:
        from pyvo.dal import TAPService
    except ImportError as problem:
        raise InputError("fetching this needs pyvo: pip install 'truemorph[archives]'") from problem
    return TAPService(address.url, session=web.session)


def _whole(path: Path, address: Address) -> int | None:
    """Rows of a table that an earlier run finished and nobody changed; None where there is no such."""
    entry = read_provenance(path.parent).get(path.name)
    if not path.is_file() or entry is None or entry.get("url") != address.url or entry.get("sha256") != file_hash(path):
        return None
    return int(entry["rows"])


def _search(service: Any, adql: str, most: int | None = None) -> Any:
    """Ask, and give an astropy table.

    Raises
    ------
    _TooMuchError
        If the service ran out of time or into its limit.
    TruemorphError
        If it refuses, or answers with something else.
    """
    from pyvo.dal import DALFormatError, DALQueryError, DALServiceError
    from pyvo.dal.exceptions import DALOverflowWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            # One more, so that an answer of all rows isn't taken for one cut at its limit.
            result = service.search(adql, maxrec=most and most + 1)
        except DALFormatError as problem:
            raise TruemorphError(
                f"{service.baseurl}: answered with something else than a VOTable ({_line(problem)}); try again later, "
                "and if that stays so replace the address (--addresses)"
            ) from problem
        except (DALQueryError, DALServiceError) as problem:
            if re.search(r"time[- ]?out|timed out|time limit|aborted", str(problem), re.IGNORECASE):
                raise _TooMuchError(_line(problem)) from problem
            raise TruemorphError(f'{service.baseurl}: refuses the query: "{_line(problem)}"') from problem
    if any(issubclass(one.category, DALOverflowWarning) for one in caught) and most is not None:
        raise _TooMuchError("the answer was cut at the service's limit")
    return result.to_table()


def _ask(service: Any, adql: str) -> Any:
    """Ask for little."""
    try:
        return _search(service, adql)
    except _TooMuchError as problem:
        raise TruemorphError(f"{service.baseurl}: {problem}; run the same again later") from problem


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]


def _table(service: Any, number: int) -> _Table:
    """Find the table's columns under the names that this service has for them."""
    source = f"{CATALOGUE}/table{number}"
    answer = _ask(service, f"SELECT column_name FROM TAP_SCHEMA.columns WHERE table_name = '{source}'")
    names = [str(name).strip().strip('"') for (name,) in answer]
    if not names:
        raise TruemorphError(
            f"{service.baseurl}: has no table {source}; replace the address of VizieR's TAP (--addresses)"
        )
    exact = set(names)
    letters: dict[str, list[str]] = {}
    for name in names:
        letters.setdefault(_letters(name), []).append(name)
    found = {}
    for wanted in (*_TABLES[number], "recno"):
        alike = letters.get(_letters(wanted), [])
        if wanted in exact or len(alike) == 1:
            found[wanted] = wanted if wanted in exact else alike[0]
    require_columns(
        (*_TABLES[number], "recno"), [*found, *(name for name in names if name not in found.values())], source
    )
    del found["recno"]
    return _Table(number, service, found)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _fetch_table(address: Address, table: _Table, path: Path, slice_rows: int) -> int:
    bounds = _ask(
        table.service,
        f'SELECT COUNT(*) AS n_rows, MIN(recno) AS first_row, MAX(recno) AS last_row FROM "{table.source}"',
    )
    total, low, high = (int(value) for value in bounds[0])
    key = hashlib.sha256(f"{address.url} {table.adql(0, 0)}".encode()).hexdigest()[:10]
    parts = path.parent / "parts"
    done = _kept(parts, f"table{table.number}-{key}")
    with progress(total, f"Simard table {table.number}", "rows", initial=sum(done.values())) as bar:
        while gap := _gap(list(done), low, high, slice_rows):
            for begin, end, frame in _halved(table, *gap):
                write_frame(_part(parts, f"table{table.number}-{key}", begin, end), frame)
                done[begin, end] = frame.height
                bar.update(frame.height)
                # What was too much once will be again.
                slice_rows = slice_rows if (begin, end) == gap else min(slice_rows, end - begin + 1)
    files = {bounds: _part(parts, f"table{table.number}-{key}", *bounds) for bounds in sorted(done)}
    if sum(done.values()) != total:
        short = [(begin, end) for (begin, end), rows in done.items() if rows < end - begin + 1]
        for bounds in short:
            files[bounds].unlink()
        raise TruemorphError(
            f"{table.source}: {sum(done.values()):,d} rows came of the {total:,d} that VizieR says it has; "
            f"{len(short)} slices with gaps were removed: run the same again"
        )
    frames = (_clean(pl.read_parquet(file), table.number) for file in files.values())
    write_described(path, frames, _columns(table.number))
    record_made(path.parent, path.name, address, table.adql(low, high), rows=total)
    for file in files.values():
        file.unlink()
    return total


def _part(folder: Path, name: str, begin: int, end: int) -> Path:
    return folder / f"{name}-{begin}-{end}.parquet"


def _kept(folder: Path, name: str) -> dict[tuple[int, int], int]:
    """Slices of an earlier run and their rows; one that can't be read is asked for again."""
    pattern = re.compile(rf"{name}-(\d+)-(\d+)\.parquet")
    kept = {}
    for path in sorted(folder.iterdir()):
        if match := pattern.fullmatch(path.name):
            try:
                kept[int(match[1]), int(match[2])] = pl.scan_parquet(path).select(pl.len()).collect().item()
            except (pl.exceptions.PolarsError, OSError) as problem:
                print(f"{path}: can't be read ({str(problem).splitlines()[0]}); asked for again", file=sys.stderr)
                path.unlink()
    return kept


def _gap(done: list[tuple[int, int]], low: int, high: int, most: int) -> tuple[int, int] | None:
    """Give the first slice, of at most `most` rows, that is not done yet; None where all are.

    Examples
    --------
    >>> _gap([(1, 100), (151, 200)], 1, 420, 150), _gap([(1, 100), (101, 200)], 1, 420, 150), _gap([(1, 9)], 1, 9, 5)
    ((101, 150), (201, 350), None)
    """
    at = low
    for first, last in sorted(done):
        if first > at:
            return at, min(at + most, first) - 1
        at = max(at, last + 1)
    return (at, min(at + most - 1, high)) if at <= high else None


def _halved(table: _Table, low: int, high: int) -> Iterator[tuple[int, int, pl.DataFrame]]:
    """Ask for a slice; where that is too much, for one half and then the other."""
    try:
        yield low, high, _slice(table, low, high)
    except _TooMuchError as problem:
        if high - low + 1 < _SMALLEST:
            raise TruemorphError(
                f"{table.source}: {problem}, even for {high - low + 1} rows; run the same again later"
            ) from problem
        print(f"{table.source}: {problem}; asking for half of {high - low + 1:,d} rows", file=sys.stderr, flush=True)
        middle = (low + high) // 2
        yield from _halved(table, low, middle)
        yield from _halved(table, middle + 1, high)


def _slice(table: _Table, low: int, high: int) -> pl.DataFrame:
    answer = _search(table.service, table.adql(low, high), most=high - low + 1)
    columns = {}
    for wanted, column in zip(table.names, answer.columns.values(), strict=True):
        masked = np.ma.getmaskarray(np.ma.asarray(column))
        if wanted == "objID":
            # Text, so that no client reads 18 digits as a float.
            values = pl.Series([str(value).strip() for value in column], dtype=pl.String).cast(pl.Int64, strict=False)
        else:
            values = pl.Series(np.asarray(np.ma.asarray(column).filled(0), dtype=np.float64)).fill_nan(None)
        columns[wanted] = values.set(pl.Series(masked), None)
    frame = pl.DataFrame(columns).cast({"Sp": pl.Int64})
    if frame["objID"].null_count():
        raise TruemorphError(f"{table.source}: rows {low} to {high} have an objID that is no whole number")
    return frame


def _columns(number: int) -> dict[str, Column]:
    columns = {name: Column(unit, about) for name, unit, about in _TABLES[number].values()}
    return columns | {"r_half_arcsec": _ARCSEC} if number == 3 else columns


def _clean(frame: pl.DataFrame, number: int) -> pl.DataFrame:
    """Rename columns; null for what is missing or means nothing."""
    frame = frame.rename({name: ours for name, (ours, _, _) in _TABLES[number].items()})
    numbers = pl.col(pl.Float64)
    frame = frame.with_columns(pl.when((numbers - _MISSING).abs() > 1e-3).then(numbers))
    lengths = [name for name in frame.columns if name in _LENGTHS]
    frame = frame.with_columns(pl.when(pl.col(name) > 0).then(name).name.keep() for name in lengths)
    if number == 3:
        frame = frame.with_columns(r_half_arcsec=pl.col("r_half") / pl.col("Scale"))
    return frame
