"""What fetching an archive came to, and tables written with what their columns mean."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.parts import room_for
from truemorph.catalogs.archives.provenance import file_hash, record
from truemorph.catalogs.objects import CatalogTable, to_arrow
from truemorph.catalogs.schema import nearest
from truemorph.errors import TruemorphError


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


def write_described(path: Path, frames: Iterable[pl.DataFrame], columns: Mapping[str, Column]) -> int:
    """Write frames one after the other to one Parquet file, which appears whole or not at all.

    Parameters
    ----------
    path : Path
    frames : iterable of DataFrame
        All with the columns that `columns` names; one is held in memory at a time. At least one, it may be empty.
    columns : dict of Column
        Units and descriptions travel along, where `read_table` finds them.

    Returns
    -------
    int
        Rows written.
    """
    units = {name: column.unit for name, column in columns.items() if column.unit}
    descriptions = {name: column.about for name, column in columns.items()}
    partial = path.with_name(f".{os.getpid()}.{path.name}")
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
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return rows


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a part or a list, Parquet or CSV by its extension; it appears whole or not at all."""
    packed = io.BytesIO()  # of a full disk, Polars' own writer doesn't say so
    (frame.write_csv if path.suffix == ".csv" else frame.write_parquet)(packed)
    write_whole(path, packed.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises
    ------
    TruemorphError
        If the disk is full.
    """
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with room_for(path.parent, path.name):
            partial.write_bytes(content)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def record_made(folder: Path, name: str, address: Address, query: str, **more: Any) -> None:
    """Note in provenance.json where a file came from that was put together from answers."""
    path = folder / name
    record(
        folder,
        name,
        address=address,
        url=address.url,
        sha256=file_hash(path),
        bytes=path.stat().st_size,
        query=query,
        **more,
    )


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
