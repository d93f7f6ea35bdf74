"""truemorph fetch: tables and images of public archives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from truemorph.archives.fetch import ARCHIVES, Archive, fetch, options_of
from truemorph.archives.provenance import PROVENANCE, Fetched
from truemorph.arguments import Names, Table, validated
from truemorph.config import without_none
from truemorph.errors import InputError
from truemorph.findings import unique
from truemorph.io import plain
from truemorph.results import PlainResult, text_facts, text_table

# Tables that prepare joins to votes.
_JOINED = {"sdss": "photometry.parquet", "simard": "table3.parquet"}


@validated
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
) -> PlainResult:
    """Download tables and images from public archives, with checksums and provenance.

    If interrupted, run the same command again to resume.

    Example: truemorph fetch gz2 sdss simard --out data

    Parameters
    ----------
    archives : str
        Archives to download; one or more.
    out : path, optional
        Folder; default data/ARCHIVE. For several archives, the folder in which each gets its own.
    no_images : bool
        gz2: fetch the tables only, without 3.4 GB of images.
    ids : path, table or sequence, optional
        sdss: table with DR7 object ids; default: those of the folder gz2 beside `out`.
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

    Returns
    -------
    PlainResult
        Content and sources of the folder; of several archives, under "archives".

    Raises
    ------
    InputError
        If there is no such archive, or an option can't be used.
    TruemorphError
        If something can't be fetched or written.

    Examples
    --------
    >>> fetch_archive("gz2", fov=60)
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: `fov` is an option of fetch hst, not of fetch gz2
    """
    if not archives:
        raise InputError(f"name what to fetch: {', '.join(ARCHIVES)}")
    options = without_none(
        {
            "no_images": no_images or None,
            "ids": ids,
            "id": id,
            "positions": positions,
            "hips": tuple(hips) or None,
            "fov": fov,
            "pixels": pixels,
        }
    )
    for name in options:
        if not any(name in options_of(archive) for archive in archives):
            of = next(archive for archive in ARCHIVES if name in options_of(archive))
            raise InputError(f"`{name}` is an option of fetch {of}, not of fetch {' '.join(archives)}")
    results = []
    for archive in dict.fromkeys(archives):
        folder = out if out is None or len(archives) == 1 else out / archive
        own = {name: value for name, value in options.items() if name in options_of(archive)}
        results.append(fetch(archive, folder, addresses_from=addresses, per_second=rate, **own))
    values = plain(results)
    return PlainResult(
        _summary(results),
        values[0] if len(values) == 1 else {"archives": values},
        unique(*(result.findings for result in results)),
    )


def _summary(archives: Sequence[Fetched]) -> str:
    """Counts, licences and what to do next, as text."""
    rows = [[archive.archive, what, f"{count:,}"] for archive in archives for what, count in archive.counts.items()]
    credit = []
    for archive in archives:
        licences = "; ".join(dict.fromkeys(source.licence for source in archive.sources))
        works = [work for source in archive.sources for work in source.citation.split("; ")]
        # Without bibcodes and DOIs.
        cited = "; ".join(dict.fromkeys(re.sub(r" \(.*?\)", "", work) for work in works))
        where = archive.folder / PROVENANCE
        credit.append((archive.archive, f"licence: {licences}. Cite: {cited} (in full: {where})"))
    folders = {archive.archive: archive.folder for archive in archives}
    if list(folders) == ["hst"]:
        following = f"report MODEL --better {folders['hst']}"
    else:
        joins = [f" --join {folders[name] / file}" for name, file in _JOINED.items() if name in folders]
        votes = folders["gz2"] / "zoo2MainSpecz.csv.gz" if "gz2" in folders else "VOTES"
        following = f"prepare {votes}{''.join(joins)} --out cat.parquet"
    table = text_table(["archive", "content", "number"], rows, left=(0, 1))
    return "\n".join([*table, *text_facts(credit), f"Next: truemorph {following}"])
