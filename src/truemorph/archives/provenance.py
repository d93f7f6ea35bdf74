"""Record provenance in `provenance.json`, with licences and citations; write tables with units."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
from pydantic import RootModel

from truemorph._version import __version__
from truemorph.archives.addresses import Address
from truemorph.findings import Findings
from truemorph.io import file_hash, read_checked, write_json
from truemorph.tables import CatalogTable, write_table

PROVENANCE = "provenance.json"
# Column name: unit ("" if none) and description.
Columns = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Fetched:
    """Content of a folder after a fetch: numbers of rows, objects and images, and the addresses that were used."""

    archive: str
    folder: Path
    counts: dict[str, int]
    sources: tuple[Address, ...]
    findings: Findings = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "archive": self.archive,
            "folder": self.folder,
            "counts": self.counts,
            "findings": self.findings,
            "sources": [
                {"name": source.name, "url": source.public_url, "licence": source.licence, "citation": source.citation}
                for source in self.sources
            ],
        }


def read_provenance(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a folder's `provenance.json` by file name; empty if there is none."""
    path = folder / PROVENANCE
    return read_checked(RootModel[dict[str, dict[str, Any]]], path).root if path.is_file() else {}


def entry_of(path: Path) -> dict[str, Any]:
    """Return a file's entry in the `provenance.json` beside it; empty if there is none."""
    return read_provenance(path.parent).get(path.name, {})


def record(path: Path, address: Address, query: str | None = None) -> None:
    """Write a file's entry in the `provenance.json` beside it: origin, checksum and query (SQL, ADQL)."""
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
    }
    write_json(path.parent / PROVENANCE, dict(sorted((read_provenance(path.parent) | {path.name: entry}).items())))


def is_recorded(path: Path, url: str | None = None) -> bool:
    """Whether a file exists, is unchanged since it was recorded and, if `url` is given, came from there."""
    entry = entry_of(path)
    return url in (None, entry.get("url")) and path.is_file() and entry.get("sha256") == file_hash(path)


def is_local(folder: Path) -> bool:
    """Whether a file of a folder came from a server on this computer, which serves no real archive."""
    hosts = {urlsplit(entry.get("url", "")).hostname for entry in read_provenance(folder).values()}
    return not hosts.isdisjoint(("localhost", "127.0.0.1", "::1"))


def origin(path: Path) -> dict[str, Any]:
    """Return a file's `sha256` and `bytes`, and its entry in `provenance.json`; `changed` if it is another file now."""
    entry = entry_of(path)
    file = {"sha256": file_hash(path), "bytes": path.stat().st_size}
    changed = {"changed": True} if entry.get("sha256", file["sha256"]) != file["sha256"] else {}
    return entry | file | changed


def write_recorded(path: Path, frame: pl.DataFrame, address: Address, query: str, columns: Columns) -> None:
    """Write a table, with units and descriptions if the format has them, and record it."""
    units = {name: unit for name, (unit, _) in columns.items() if unit}
    descriptions = {name: about for name, (_, about) in columns.items()}
    write_table(CatalogTable(frame, units=units, descriptions=descriptions), path)
    record(path, address, query)
