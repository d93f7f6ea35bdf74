"""truemorph fetch: tables and images of public archives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from truemorph.archives.fetch import ARCHIVES, fetch, options_of
from truemorph.archives.provenance import PROVENANCE, Fetched
from truemorph.arguments import Names, Table
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.results import Result, quantity_table, text_facts, text_table

Archive = Literal["gz2", "sdss", "simard", "hst"]
# Tables that prepare joins to votes.
_JOINED = {"sdss": "photometry.parquet", "simard": "table3.parquet"}


@dataclass(frozen=True, repr=False)
class FetchResult(Result):
    """Content of the folders after a fetch, by archive."""

    archives: tuple[Fetched, ...]
    findings: tuple[Finding, ...]

    def summary(self) -> str:
        """Return counts, licences and what to do next as text."""
        rows = [[one.archive, what, f"{count:,}"] for one in self.archives for what, count in one.counts.items()]
        credit = [
            (
                one.archive,
                f"licence: {'; '.join(dict.fromkeys(source.licence for source in one.sources))}. Cite: {_cited(one)}",
            )
            for one in self.archives
        ]
        return "\n".join(
            [*text_table(["archive", "content", "number"], rows, left=(0, 1)), *text_facts(credit), self._next()]
        )

    def _next(self) -> str:
        folders = {one.archive: one.folder for one in self.archives}
        if list(folders) == ["hst"]:
            return f"Next: truemorph report MODEL --better {folders['hst']}"
        joins = [f" --join {folders[name] / file}" for name, file in _JOINED.items() if name in folders]
        votes = folders["gz2"] / "zoo2MainSpecz.csv.gz" if "gz2" in folders else "VOTES"
        return f"Next: truemorph prepare {votes}{''.join(joins)} --out cat.parquet"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON: of one archive, or of several under "archives"."""
        found = [one.to_dict() for one in self.archives]
        return found[0] if len(found) == 1 else {"archives": found}

    def to_table(self) -> Any:
        """Return a table with one row per address, with licence and citation."""
        sources = [source for one in self.archives for source in one.sources]
        columns = {
            "name": "archive and entry",
            "public_url": "address",
            "licence": "terms of use",
            "citation": "citation",
        }
        return quantity_table(
            {name: ([getattr(one, name) for one in sources], "", about) for name, about in columns.items()}
        )


def _cited(one: Fetched) -> str:
    """Return the citations of an archive, each once, without bibcodes and DOIs, and where these are."""
    works = [work for source in one.sources for work in source.citation.split("; ")]
    short = dict.fromkeys(re.sub(r" \(.*?\)", "", work) for work in works)
    return f"{'; '.join(short)} (in full: {one.folder / PROVENANCE})"


def fetch_archive(
    *archives: Archive,
    out: Path | None = None,
    no_images: bool = False,
    ids: Table | None = None,
    id: str | None = None,
    positions: Table | None = None,
    hips: Names = (),
    fov: float | None = None,
    pixels: int | None = None,
    addresses: Path | None = None,
    rate: float | None = None,
    offline: bool = False,
) -> FetchResult:
    """Download tables and images from public archives, with checksums and provenance.

    If interrupted, run the same command again to resume.

    Example: truemorph fetch gz2 sdss simard --out data

    Parameters
    ----------
    archives : {"gz2", "sdss", "simard", "hst"}
        Archives to download; one or more.
    out : path, optional
        Folder; default data/ARCHIVE. For several archives, the folder in which each gets its own.
    no_images : bool
        gz2: fetch the tables only, without 3.4 GB of images.
    ids : path, table or sequence, optional
        sdss: table with DR7 object ids; default the tables of fetch gz2 in the folder beside.
    id : str, optional
        sdss: column of ids; default dr7objid or objid.
    positions : path or table, optional
        hst: table of object_id, ra, dec (degrees).
    hips : sequence of str
        hst: mosaics, best first, such as CDS/P/HST/color.
    fov : float, optional
        hst: side of an image, arcsec; default 30.
    pixels : int, optional
        hst: pixels on a side; default 424.
    addresses : path, optional
        TOML file of addresses that replace the built-in ones.
    rate : float, optional
        Largest number of requests per second; default: the limit of the archive.
    offline : bool
        Use local files only, and report what is missing.

    Returns
    -------
    FetchResult

    Raises
    ------
    InputError
        If there is no such archive, or an option can't be used.
    TruemorphError
        If something can't be fetched or written.

    Examples
    --------
    >>> fetch_archive("sdss7")
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: no archive 'sdss7'; nearest: sdss
    """
    if not archives:
        raise InputError(f"name what to fetch: {', '.join(ARCHIVES)}")
    given: dict[str, Any] = {
        "images": False if no_images else None,
        "ids": ids,
        "id": id,
        "positions": positions,
        "hips": tuple(hips) or None,
        "fov": fov,
        "pixels": pixels,
    }
    options = {name: value for name, value in given.items() if value is not None}
    _check_options(archives, options)
    results = []
    for archive in dict.fromkeys(archives):
        folder = out if out is None or len(archives) == 1 else Path(out) / archive
        own = {name: value for name, value in options.items() if name in options_of(archive)}
        results.append(fetch(archive, folder, addresses_from=addresses, per_second=rate, offline=offline, **own))
    return FetchResult(tuple(results), unique(*(one.findings for one in results)))


def _check_options(archives: Sequence[str], options: dict[str, Any]) -> None:
    """Raise an error for options of other archives."""
    for name in options:
        if not any(name in options_of(archive) for archive in archives):
            of = next(archive for archive in ARCHIVES if name in options_of(archive))
            shown = "no_images" if name == "images" else name
            raise InputError(f"`{shown}` is an option of fetch {of}, not of fetch {' '.join(archives)}")
