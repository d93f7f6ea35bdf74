"""Record provenance in `provenance.json`, with licences and citations; write tables with units."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from truemorph._version import __version__
from truemorph.archives.addresses import Address
from truemorph.findings import Finding
from truemorph.io import file_hash, read_json, write_json
from truemorph.results import Result, quantity_table
from truemorph.tables import CatalogTable, write_table

PROVENANCE = "provenance.json"
# Column name: unit ("" if none) and description.
Columns = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, repr=False)
class Fetched(Result):
    """Content of a folder after a fetch.

    Attributes
    ----------
    archive : str
        "gz2", "sdss", "simard" or "hst".
    folder : Path
    counts : dict of str to int
        Numbers of rows, objects and images.
    sources : tuple of Address
        Addresses that were used, with licences and citations.
    findings : tuple of Finding
    """

    archive: str
    folder: Path
    counts: dict[str, int]
    sources: tuple[Address, ...]
    findings: tuple[Finding, ...] = ()

    def credits(self) -> list[str]:
        """Return licences and citations, one line per distinct pair."""
        lines: dict[str, list[str]] = {}
        for one in self.sources:
            lines.setdefault(f"licence: {one.licence}; cite: {one.citation}", []).append(one.name)
        return [f"{', '.join(names)}: {line}" for line, names in lines.items()]

    def summary(self) -> str:
        """Return counts, licences and citations as text."""
        lines = [f"{what:32s} {count:>15,d}" for what, count in self.counts.items()]
        return "\n".join([*lines, *self.credits(), f"wrote   {self.folder}"])

    def to_table(self) -> Any:
        """Return a table with one row per address, with licence and citation."""
        return quantity_table(
            {
                name: ([getattr(one, name) for one in self.sources], "", about)
                for name, about in {
                    "name": "archive and entry",
                    "public_url": "address",
                    "licence": "terms of use",
                    "citation": "citation",
                }.items()
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "archive": self.archive,
            "folder": str(self.folder),
            "counts": self.counts,
            "findings": [one.to_dict() for one in self.findings],
            "sources": [
                {"name": one.name, "url": one.public_url, "licence": one.licence, "citation": one.citation}
                for one in self.sources
            ],
        }


def read_provenance(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a folder's `provenance.json` by file name; empty if there is none.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    path = folder / PROVENANCE
    return read_json(path) if path.is_file() else {}


def record(path: Path, address: Address, query: str | None = None, **more: Any) -> None:
    """Write a file's entry in the `provenance.json` beside it.

    Parameters
    ----------
    path : Path
    address : Address
    query : str, optional
        SQL, ADQL or parameters of the query.
    **more
        Other entries.
    """
    entry = {
        "address": address.name,
        "url": address.public_url,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sha256": file_hash(path),
        "bytes": path.stat().st_size,
        "query": query,
        "licence": address.licence,
        "citation": address.citation,
        "truemorph": __version__,
        **more,
    }
    write_json(path.parent / PROVENANCE, dict(sorted((read_provenance(path.parent) | {path.name: entry}).items())))


def is_recorded(path: Path, url: str | None = None) -> bool:
    """Whether a file exists, is unchanged since it was recorded and, if `url` is given, came from there."""
    entry = read_provenance(path.parent).get(path.name, {})
    return url in (None, entry.get("url")) and path.is_file() and entry.get("sha256") == file_hash(path)


def origin(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the provenance of a file.

    Returns
    -------
    dict
        Current `sha256` and `bytes` and, if `provenance.json` beside the file has an entry, url, date, query, licence
        and citation. `changed` is true if the file is no longer the recorded one.
    """
    path = Path(path)
    entry = read_provenance(path.parent).get(path.name, {})
    found = {"sha256": file_hash(path), "bytes": path.stat().st_size}
    changed = {"changed": True} if entry.get("sha256", found["sha256"]) != found["sha256"] else {}
    return entry | found | changed


def write_recorded(
    path: Path, frame: pl.DataFrame, address: Address, query: str, columns: Columns | None = None, **more: Any
) -> None:
    """Write a table, with units and descriptions if the format has them, and record it; `more` as in `record`."""
    units = {name: unit for name, (unit, _) in (columns or {}).items() if unit}
    descriptions = {name: about for name, (_, about) in (columns or {}).items()}
    write_table(CatalogTable(frame, units=units, descriptions=descriptions), path)
    record(path, address, query, rows=frame.height, **more)
