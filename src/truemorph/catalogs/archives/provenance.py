"""Where the files of a folder came from: `provenance.json`, one entry a file.

Several processes may write to it at once: each adds its entries under a lock, and the file is replaced whole.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from truemorph._version import __version__
from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.checksums import file_hash
from truemorph.catalogs.archives.folder import unfinished
from truemorph.catalogs.archives.parts import room_for
from truemorph.errors import InputError

PROVENANCE = "provenance.json"


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(folder: Path, file: str | os.PathLike[str]) -> str:
    path = Path(file)
    if path.is_absolute():
        path = path.relative_to(folder.absolute())
    elif folder in path.parents:
        path = path.relative_to(folder)
    return path.as_posix()


def record(
    folder: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    address: Address,
    url: str,
    sha256: str,
    bytes: int,
    query: str | None = None,
    fetched: bool = True,
    **more: Any,
) -> None:
    """Add or replace the entry of one file.

    Parameters
    ----------
    folder : path
    file : path
        In the folder; relative to it, or as it is opened.
    address : Address
        Whose licence and citation the file comes under.
    url : str
        What was asked.
    sha256 : str
    bytes : int
    query : str, optional
        SQL, ADQL or parameters that made the file.
    fetched : bool
        False where it wasn't fetched now: an entry of the same content keeps its date and address.
    **more
        Kept as given; `date` replaces the time of this call.

    Raises
    ------
    InputError
        If the folder's `provenance.json` can't be read.
    TruemorphError
        If the disk is full.
    """
    folder, key = Path(folder), _key(Path(folder), file)
    entry = {
        "address": address.name,
        "url": url,
        "date": now(),
        "sha256": sha256,
        "bytes": bytes,
        "query": query,
        "licence": address.licence,
        "citation": address.citation,
        "truemorph": __version__,
        **more,
    }
    had = read_provenance(folder).get(key, {})
    if not fetched and had.get("sha256") == sha256:
        entry = had | {name: value for name, value in more.items() if name != "date"}
    if entry == had:
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = unfinished(folder / PROVENANCE)
    with FileLock(folder / f".{PROVENANCE}.lock"), room_for(folder, PROVENANCE):
        entries = read_provenance(folder) | {key: entry}
        try:
            partial.write_text(json.dumps(dict(sorted(entries.items())), indent=2, ensure_ascii=False) + "\n", "utf-8")
            os.replace(partial, folder / PROVENANCE)
        finally:
            partial.unlink(missing_ok=True)


def read_provenance(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Entries of `provenance.json` by file; empty where there is none.

    Raises
    ------
    InputError
        If it isn't one.
    """
    path = Path(folder) / PROVENANCE
    try:
        entries = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as problem:
        raise InputError(f"{path}: can't be read as provenance ({problem}); move it away and fetch again") from problem
    if not isinstance(entries, dict) or not all(isinstance(one, dict) for one in entries.values()):
        raise InputError(f"{path}: is no provenance file; move it away and fetch again")
    return entries


def is_whole(path: Path) -> bool:
    """Whether a file is there as it was recorded."""
    entry = read_provenance(path.parent).get(path.name)
    return path.is_file() and entry is not None and entry.get("sha256") == file_hash(path)


def origin(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What is recorded of one file, with its digest and size as they are now.

    Returns
    -------
    dict
        `sha256` and `bytes`; and what `provenance.json` beside it says of it: url, date, query, licence, citation.
        `changed` is true if the file is no longer the one that was recorded.
    """
    path = Path(path)
    entry = read_provenance(path.parent).get(path.name, {})
    now_there = {"sha256": file_hash(path), "bytes": path.stat().st_size}
    changed = {"changed": True} if entry.get("sha256") not in (None, now_there["sha256"]) else {}
    return entry | now_there | changed


def verify(folder: str | os.PathLike[str]) -> list[str]:
    """Files of a folder that are missing or changed, each with what is wrong: "table.csv: missing".

    Raises
    ------
    InputError
        If `provenance.json` can't be read.
    """
    wrong = []
    for name, entry in read_provenance(folder).items():
        path = Path(folder) / name
        if not path.is_file():
            wrong.append(f"{name}: missing")
        elif path.stat().st_size != entry.get("bytes") or file_hash(path) != entry.get("sha256"):
            wrong.append(f"{name}: changed since {entry.get('date', 'it was fetched')}")
    return wrong
