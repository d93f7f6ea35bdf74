"""Structure of galaxies by Simard et al. (2011, ApJS 196, 11): VizieR J/ApJS/196/11, by TAP, in slices.

Tables and columns as in the catalogue's ReadMe at CDS: table 3 pure Sérsic models, table 1 bulge (n = 4) and disk,
table 2 bulge of free n and disk; 1,123,718 rows each, in the order of recno; objID is text of 18 digits; -99.99 is
missing. Lengths are kpc, angles times Scale; where Scale is missing the circular radii came out negative, and mean
nothing. VizieR's TAP wants names with commas, brackets and slashes in quotes ("Rchl,r"; its page "About TAPVizieR"),
and keeps names of tables with their quotes; other interfaces write Rchl_r: so the service is asked for its names first
(TAP_SCHEMA.columns), and they are compared by their letters and digits.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.fetched import Fetched, read_part, require_columns, write_described, write_part
from truemorph.catalogs.archives.provenance import is_whole, read_provenance
from truemorph.catalogs.archives.simard_tables import TABLES, cleaned, described
from truemorph.catalogs.archives.tap import Tap, TooMuchError, ask, search, tap_service
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError
from truemorph.progress import progress

CATALOGUE = "J/ApJS/196/11"
SLICE = 50_000  # rows a query: a few megabytes, half a minute or so
_SMALLEST = 50


@dataclass(frozen=True)
class _Table:
    """One of the tables, as the service has it."""

    number: int
    service: Tap
    names: dict[str, str]  # VizieR's documented name: the service's

    @property
    def source(self) -> str:
        return f"{CATALOGUE}/table{self.number}"

    @property
    def schema(self) -> dict[str, type[pl.DataType]]:
        """Types of the columns of a slice, under VizieR's documented names."""
        whole = {"objID", "Sp"}
        return {name: pl.Int64 if name in whole else pl.Float64 for name in self.names}

    def adql(self, low: int, high: int) -> str:
        columns = ", ".join(f'"{name}" AS c{number}' for number, name in enumerate(self.names.values()))
        return f'SELECT {columns} FROM "{self.source}" WHERE recno BETWEEN {low} AND {high}'


def check_simard(out: Path, *, tables: Sequence[int] = (3,), slice_rows: int = SLICE) -> None:
    """Refuse what `fetch_simard` would refuse, before anything is fetched.

    Raises
    ------
    InputError
    """
    unknown = [number for number in tables if number not in TABLES]
    if unknown or not tables:
        raise InputError(f"the tables are 1, 2 and 3; got {', '.join(map(str, unknown)) or 'none'}")
    if slice_rows < _SMALLEST:
        raise InputError(f"a slice has at least {_SMALLEST} rows; got {slice_rows}")


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
    check_simard(out, tables=tables, slice_rows=slice_rows)
    address = known["simard.tap"]
    counts, notes, service = {}, [], None
    for number in dict.fromkeys(tables):
        path = out / f"table{number}.parquet"
        rows = _whole(path, number, None if web.offline else address.url)
        if rows is None:
            service = service or tap_service(web, address, f"{path} ({CATALOGUE}/table{number})")
            (out / "parts").mkdir(parents=True, exist_ok=True)
            rows = _fetch_table(address, _table(service, number), path, slice_rows)
        else:
            notes.append(f"{path.name} was here already")
        if not web.offline:
            for file in (out / "parts").glob(f"table{number}-*.parquet"):
                file.unlink()
        counts[path.name] = rows
    return Fetched("simard", out, counts, (address,), tuple(notes))


def _whole(path: Path, number: int, url: str | None) -> int | None:
    """Rows of a table that an earlier run finished and nobody changed; None where there is no such.

    It must have the columns that are wanted now, made of the same ones of VizieR's, and be from that address (or any).
    """
    entry = read_provenance(path.parent).get(path.name, {})
    if url not in (None, entry.get("url")) or not is_whole(path):
        return None
    asked = [_letters(name) for name in re.findall(r'"([^"]+)" AS c\d+', str(entry.get("query")))]
    if asked != [_letters(name) for name in TABLES[number]] or f"table{number}" not in str(entry.get("query")):
        return None
    scanned = pl.scan_parquet(path)
    if scanned.collect_schema().names() != list(described(number)):
        return None
    return int(scanned.select(pl.len()).collect().item())


def _table(service: Tap, number: int) -> _Table:
    """Find the table's columns under the names that this service has for them."""
    source = f"{CATALOGUE}/table{number}"
    answer = ask(
        service,
        f"SELECT column_name FROM TAP_SCHEMA.columns WHERE table_name = '{source}' OR table_name = '\"{source}\"'",
    )
    names = list(dict.fromkeys(str(name).strip().strip('"') for (name,) in answer))
    if not names:
        raise TruemorphError(f"{service.url}: has no table {source}; replace the address of VizieR's TAP (--addresses)")
    exact = set(names)
    letters: dict[str, list[str]] = {}
    for name in names:
        letters.setdefault(_letters(name), []).append(name)
    found = {}
    for wanted in (*TABLES[number], "recno"):
        alike = letters.get(_letters(wanted), [])
        if wanted in exact or len(alike) == 1:
            found[wanted] = wanted if wanted in exact else alike[0]
    require_columns(
        (*TABLES[number], "recno"), [*found, *(name for name in names if name not in found.values())], source
    )
    del found["recno"]
    return _Table(number, service, found)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _fetch_table(address: Address, table: _Table, path: Path, slice_rows: int) -> int:
    bounds = ask(
        table.service,
        f'SELECT COUNT(*) AS n_rows, MIN(recno) AS first_row, MAX(recno) AS last_row FROM "{table.source}"',
    )
    if len(bounds) != 1 or any(value is np.ma.masked for value in bounds[0]) or int(bounds[0][0]) == 0:
        raise TruemorphError(
            f"{table.source}: {table.service.url} says that it has no rows; try again later, and if that stays so "
            "replace the address (--addresses)"
        )
    total, low, high = (int(value) for value in bounds[0])
    # Slices of a table that has changed since are none of this one.
    key = hashlib.sha256(f"{address.url} {table.adql(0, 0)} {total} {low} {high}".encode()).hexdigest()[:10]
    parts, name = path.parent / "parts", f"table{table.number}-{key}"
    done = _kept(parts, name, table.schema)
    with progress(total, f"Simard table {table.number}", "rows", initial=sum(done.values())) as bar:
        while gap := _gap(list(done), low, high, slice_rows):
            for begin, end, frame in _halved(table, *gap):
                write_part(_part(parts, name, begin, end), frame)
                done[begin, end] = frame.height
                bar.update(frame.height)
                # What was too much once will be again.
                slice_rows = slice_rows if (begin, end) == gap else min(slice_rows, end - begin + 1)
    files = {bounds: _part(parts, name, *bounds) for bounds in sorted(done)}
    _check_complete(table, files, done, total)
    frames = (cleaned(pl.read_parquet(file), table.number) for file in files.values())
    write_described(path, frames, described(table.number), address, table.adql(low, high))
    return total


def _check_complete(
    table: _Table, files: dict[tuple[int, int], Path], done: dict[tuple[int, int], int], total: int
) -> None:
    """Refuse slices that don't make up the table; what can't be right is removed, so that the next run asks for it.

    Raises
    ------
    TruemorphError
    """
    if (came := sum(done.values())) != total:
        short = [bounds for bounds, rows in done.items() if rows < bounds[1] - bounds[0] + 1]
        removed = short if came < total and short else list(done)
        for bounds in removed:
            files[bounds].unlink()
        raise TruemorphError(
            f"{table.source}: {came:,d} rows came of the {total:,d} that VizieR says it has; {len(removed)} slices "
            "were removed: run the same again"
        )
    ids = pl.concat([pl.read_parquet(file, columns=["objID"])["objID"] for file in files.values()])
    if ids.n_unique() < ids.len():
        repeated = ids.filter(ids.is_duplicated())[0]
        for file in files.values():
            file.unlink()
        raise TruemorphError(
            f"{table.source}: objID {repeated} came more than once; the table may have changed while it was fetched: "
            "run the same again"
        )


def _part(folder: Path, name: str, begin: int, end: int) -> Path:
    return folder / f"{name}-{begin}-{end}.parquet"


def _kept(folder: Path, name: str, schema: dict[str, type[pl.DataType]]) -> dict[tuple[int, int], int]:
    """Slices of an earlier run and their rows; one that can't be read is asked for again."""
    pattern = re.compile(rf"{name}-(\d+)-(\d+)\.parquet")
    kept = {}
    for path in sorted(folder.iterdir()):
        if (match := pattern.fullmatch(path.name)) and (frame := read_part(path, schema)) is not None:
            kept[int(match[1]), int(match[2])] = frame.height
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
    except TooMuchError as problem:
        if high - low + 1 < _SMALLEST:
            raise TruemorphError(
                f"{table.source}: {problem}, even for {high - low + 1} rows; run the same again later"
            ) from problem
        print(f"{table.source}: {problem}; asking for half of {high - low + 1:,d} rows", file=sys.stderr, flush=True)
        middle = (low + high) // 2
        yield from _halved(table, low, middle)
        yield from _halved(table, middle + 1, high)


def _slice(table: _Table, low: int, high: int) -> pl.DataFrame:
    answer = search(table.service, table.adql(low, high), most=high - low + 1)
    columns = {}
    for wanted, column in zip(table.names, answer.columns.values(), strict=True):
        masked = np.ma.getmaskarray(np.ma.asarray(column))
        if wanted == "objID":
            # Text, so that no client reads 18 digits as a float.
            values = pl.Series([str(value).strip() for value in column], dtype=pl.String).cast(pl.Int64, strict=False)
        else:
            values = pl.Series(np.asarray(np.ma.asarray(column).filled(0), dtype=np.float64)).fill_nan(None)
        columns[wanted] = values.set(pl.Series(masked), None)
    frame = pl.DataFrame(columns, schema=table.schema)
    if frame["objID"].null_count():
        raise TruemorphError(f"{table.source}: rows {low} to {high} have an objID that is no whole number")
    return frame
