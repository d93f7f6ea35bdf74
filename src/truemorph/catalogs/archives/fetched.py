"""What fetching an archive came to, and tables written with what their columns mean."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.checksums import file_hash
from truemorph.catalogs.archives.folder import unfinished
from truemorph.catalogs.archives.parts import room_for
from truemorph.catalogs.archives.provenance import record
from truemorph.errors import TruemorphError, nearest
from truemorph.tables import CatalogTable, to_arrow


@dataclass(frozen=True)
class Column:
    """What a column of a fetched table holds: unit (empty where it has none) and a line about it."""

    unit: str
    about: str


@dataclass(frozen=True)
class Fetched:
    """What is in a folder now.

    Attributes
    ----------
    archive : str
        "gz2", "sdss", "simard" or "hst".
    folder : Path
    counts : dict
        How much of what there is.
    sources : tuple of Address
        What was used: their licences and how to cite them.
    notes : tuple of str
        What the reader should know.
    """

    archive: str
    folder: Path
    counts: dict[str, int]
    sources: tuple[Address, ...]
    notes: tuple[str, ...] = ()

    def credits(self) -> list[str]:
        """Licences and citations, a line each, without repeating any."""
        lines: dict[str, list[str]] = {}
        for one in self.sources:
            lines.setdefault(f"licence: {one.licence}; cite: {one.citation}", []).append(one.name)
        return [f"{', '.join(names)}: {line}" for line, names in lines.items()]

    def described(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "archive": self.archive,
            "folder": str(self.folder),
            "counts": self.counts,
            "notes": list(self.notes),
            "sources": [
                {"name": one.name, "url": one.url, "licence": one.licence, "citation": one.citation}
                for one in self.sources
            ],
        }


def write_described(
    path: Path,
    frames: Iterable[pl.DataFrame],
    columns: Mapping[str, Column],
    address: Address,
    query: str,
    *,
    fetched: bool = True,
    **more: Any,
) -> int:
    """Write frames one after the other to one Parquet file, which appears whole or not at all, and record it.

    Parameters
    ----------
    path : Path
    frames : iterable of DataFrame
        All with the columns that `columns` names; one is held in memory at a time. At least one, it may be empty.
    columns : dict of Column
        Units and descriptions travel along, where `read_table` finds them.
    address : Address
    query : str
    fetched, **more
        As for `record`; `rows` is added.

    Returns
    -------
    int
        Rows written.
    """
    units = {name: column.unit for name, column in columns.items() if column.unit}
    descriptions = {name: column.about for name, column in columns.items()}
    partial = unfinished(path)
    writer, rows = None, 0
    try:
        with room_for(path.parent, path.name):
            for frame in frames:
                table = to_arrow(CatalogTable(frame.select(*columns), units=units, descriptions=descriptions))
                writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
                writer.write_table(table)
                rows += frame.height
            if writer is not None:
                writer.close()
        _settle(partial, path, address, query, fetched, {**more, "rows": rows})
    finally:
        partial.unlink(missing_ok=True)
    return rows


def write_list(
    path: Path, frame: pl.DataFrame, address: Address, query: str, *, fetched: bool = True, **more: Any
) -> None:
    """Write a list as CSV, which appears whole or not at all, and record it; parameters as for `write_described`."""
    partial = unfinished(path)
    try:
        with room_for(path.parent, path.name):
            partial.write_bytes(frame.write_csv().encode())
        _settle(partial, path, address, query, fetched, more)
    finally:
        partial.unlink(missing_ok=True)


def _settle(partial: Path, path: Path, address: Address, query: str, fetched: bool, more: Mapping[str, Any]) -> None:
    """Record a file and give it its name: in this order, so that `verify` sees where a process was killed between."""
    record(
        path.parent,
        path.name,
        address=address,
        url=address.url,
        sha256=file_hash(partial),
        bytes=partial.stat().st_size,
        query=query,
        fetched=fetched,
        **more,
    )
    os.replace(partial, path)


def write_part(path: Path, frame: pl.DataFrame) -> None:
    """Write an answer, to be read by `read_part`; it appears whole or not at all."""
    packed = io.BytesIO()
    pq.write_table(frame.to_arrow(), packed, compression="zstd", write_page_checksum=True)
    write_whole(path, packed.getvalue())


def read_part(path: Path, schema: Mapping[str, Any]) -> pl.DataFrame | None:
    """Read an answer of an earlier run; None, said and removed, where it is damaged or of other columns."""
    try:
        frame = pl.DataFrame(pl.from_arrow(pq.read_table(path, page_checksum_verification=True)))
        if dict(frame.schema) != dict(schema):
            raise ValueError("other columns than it should have")
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as problem:
        print(f"{path}: can't be read ({str(problem).splitlines()[0]}); asked for again", file=sys.stderr)
        path.unlink()
        return None
    return frame


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises
    ------
    TruemorphError
        If the disk is full.
    """
    partial = unfinished(path)
    try:
        with room_for(path.parent, path.name):
            partial.write_bytes(content)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def require_columns(wanted: Iterable[str], present: Iterable[str], source: str) -> None:
    """Refuse a table that lacks columns, naming the nearest of those it has.

    Raises
    ------
    TruemorphError
    """
    names = list(present)
    missing = [name for name in wanted if name not in names]
    if missing:
        more = f" (nor {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise TruemorphError(
            f"{source}: no column {missing[0]}{more}; {nearest(missing[0], names)}. Its publisher may have changed it: "
            "point at an older copy with --addresses, or report it to truemorph's developers"
        )
