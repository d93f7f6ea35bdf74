"""What is not whole yet on disk, and what makes it whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from truemorph.catalogs.archives.checksums import file_hash, split_checksum
from truemorph.catalogs.archives.content import HEAD, looks_cut
from truemorph.catalogs.archives.folder import unfinished
from truemorph.errors import TruemorphError

_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class WrongError(Exception):
    """What arrived is not what was published."""


@dataclass(frozen=True)
class Source:
    """What a part is a part of."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None

    @property
    def validator(self) -> str | None:
        """What If-Range takes; a weak ETag does not promise the same bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


class Part:
    """`<name>.part` and `<name>.part.json` beside a file that is still to be.

    Attributes
    ----------
    open_ended : bool
        Whether the end of the connection was all that told where the file ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self.about = path.with_name(f"{path.name}.part.json")
        self.open_ended = False

    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def source(self) -> Source | None:
        """What it is a part of; None where nobody knows."""
        try:
            return Source(**json.loads(self.about.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, source: Source) -> None:
        """Start anew; a part never stands beside a description of something else."""
        self.path.unlink(missing_ok=True)
        partial = unfinished(self.about)
        try:
            with room_for(self.path.parent, self.path.name):
                partial.write_text(json.dumps(asdict(source)) + "\n", "utf-8")
            os.replace(partial, self.about)
        finally:
            partial.unlink(missing_ok=True)

    def append(self, file: BinaryIO, piece: bytes) -> None:
        """Add what came; at once, for a process can be killed at any time."""
        file.write(piece)
        file.flush()

    def finish(self, path: Path) -> None:
        """Give it its name, after all of it is on disk."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(self.path, path)
        self.about.unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


def size_text(size: int) -> str:
    """Bytes as people say them.

    Examples
    --------
    >>> size_text(3_400_000_000), size_text(999)
    ('3.4 GB', '999 bytes')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


@contextmanager
def room_for(folder: Path, what: str, needed: int | None = None) -> Iterator[None]:
    """Say in one line that a disk is full: before writing, where it is known how much comes, or while writing.

    Raises
    ------
    TruemorphError
    """
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise TruemorphError(
            f"{what}: {size_text(needed)} to come, and {size_text(free)} are free in {folder}; make room there or "
            "choose another folder (--out)"
        )
    try:
        yield
    except OSError as problem:
        if problem.errno not in _FULL:
            raise
        to_come = f"{size_text(needed)} to come, and " if needed else ""
        raise TruemorphError(
            f"{what}: {to_come}{folder} takes no more ({problem.strerror}); make room there and run the same again, "
            "what has arrived is kept, or choose another folder (--out)"
        ) from problem


def check_whole(path: Path, checksum: str | None, size: int | None, expect: str | None) -> None:
    """Refuse a file that is not what was published, or not whole.

    Raises
    ------
    WrongError
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise WrongError(f"it has {found:,d} bytes in place of {size:,d}")
    if checksum is not None:
        algorithm, wanted = split_checksum(checksum)
        digest = file_hash(path, algorithm)
        if digest != wanted:
            raise WrongError(f"its {algorithm} is {digest} in place of {wanted}")
    elif expect == "zip" and not zipfile.is_zipfile(path):
        raise WrongError("it is a zip file without its end")
    elif expect == "gzip":
        _check_gzip(path)
    else:
        with path.open("rb") as file:
            head = file.read(HEAD)
            file.seek(max(0, found - HEAD))
            if looks_cut(head, file.read(), found, expect):
                raise WrongError("it ends in the middle")


def _check_gzip(path: Path) -> None:
    """Read a gzip file to its end; its CRC is the last thing in it."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        with path.open("rb") as file:
            while piece := file.read(_CHUNK):
                while piece:
                    if unpacker.eof:  # several gzip files in a row are one
                        unpacker = zlib.decompressobj(wbits=31)
                    unpacker.decompress(piece, _CHUNK)
                    piece = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except zlib.error as problem:
        raise WrongError("it is a damaged gzip file") from problem
    if not unpacker.eof:
        raise WrongError("it is a gzip file without its end")
