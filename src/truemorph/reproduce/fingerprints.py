"""Hashes of files by content, remembered by size and time of change, so that nothing is read twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from truemorph.errors import InputError
from truemorph.io import file_hash, read_json, write_json

_LENGTH = 16


def names_digest(root: Path, folders: Iterable[str], endings: tuple[str, ...]) -> str:
    """Hash of the names of the files that end so, in some folders below a root ("": the root itself); not below these.

    Parameters
    ----------
    root : Path
    folders : iterable of str
    endings : tuple of str
        In small letters.
    """
    names = []
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(root / folder) as entries:
            names += [f"{folder}/{one.name}" for one in entries if one.name.lower().endswith(endings)]
    return hashlib.sha256("\n".join(sorted(names)).encode("utf-8", "surrogateescape")).hexdigest()[:_LENGTH]


class Fingerprints:
    """Hashes of files.

    Parameters
    ----------
    memory : Path
        JSON file in which they are remembered.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        try:
            self._known: dict[str, str] = read_json(memory)
        except InputError:  # absent, or cut off by hand: it is only a memory
            self._known = {}

    def of(self, path: Path) -> str:
        """Hash of a file's content."""
        return self.of_many(path.parent, [path.name])

    def of_many(self, root: Path, names: Iterable[str | None]) -> str:
        """Hash of the names and contents of files below a folder; of those that are there."""
        chosen = sorted({name for name in names if name and (root / name).is_file()})
        listing = hashlib.sha256(str(root.resolve()).encode())
        for name in chosen:
            about = (root / name).stat()
            listing.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
        key = listing.hexdigest()
        if key not in self._known:
            content = hashlib.sha256()
            for name in chosen:
                content.update(f"{name}\0{file_hash(root / name)}\n".encode())
            self._known[key] = content.hexdigest()[:_LENGTH]
            write_json(self._memory, self._known)
        return self._known[key]
