"""Zip and gzip files from elsewhere: nothing is written outside the folder, nothing grows without limit.

What an archive says of itself (names, sizes) is not believed: names are refused before anything is written, bytes are
counted as they come out, and each file is there only when its CRC was right.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from truemorph.catalogs.archives.folder import unfinished
from truemorph.catalogs.archives.parts import room_for, size_text
from truemorph.errors import InputError, TruemorphError
from truemorph.progress import progress

_CHUNK = 1 << 20
_DRIVE = re.compile(r"[A-Za-z]:")
# Below this many bytes a file may be all zeros for all anyone cares.
_RATIO_FROM = 1 << 20


@dataclass(frozen=True)
class Unpacked:
    """What came out of a zip file.

    Attributes
    ----------
    folder : Path
    names : tuple of str
        Files of the archive that are in the folder now, relative to it.
    written : int
        How many of them were written now; the others were there.
    skipped : int
        Entries that were not wanted.
    macos : int
        Entries that only a Mac has a use for ("__MACOSX", "._*").
    bytes : int
        Written now.
    """

    folder: Path
    names: tuple[str, ...]
    written: int
    skipped: int
    macos: int
    bytes: int


def _refuse(path: Path, why: str) -> TruemorphError:
    return TruemorphError(f"{path}: {why}; nothing of it was unpacked. Delete it and fetch it from a source you trust")


def _check_name(path: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename.replace("\\", "/")
    shown = repr(entry.orig_filename)
    if name.startswith("/") or _DRIVE.match(name):
        raise _refuse(path, f"entry {shown} is an absolute path")
    if ".." in name.split("/"):
        raise _refuse(path, f"entry {shown} leads out of the folder")
    if "\0" in name:
        raise _refuse(path, f"entry {shown} has a null character in its name")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refuse(path, f"entry {shown} is a link or a device")
    if entry.flag_bits & 0x1:
        raise _refuse(path, f"entry {shown} is encrypted")


def _for_macs(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "__MACOSX" in parts or (bool(parts) and (parts[-1].startswith("._") or parts[-1] == ".DS_Store"))


def _wanted(
    path: Path, archive: zipfile.ZipFile, keep: Callable[[str], str | None]
) -> tuple[dict[str, zipfile.ZipInfo], int, int]:
    wanted: dict[str, zipfile.ZipInfo] = {}
    skipped = macos = 0
    for entry in archive.infolist():
        _check_name(path, entry)
        if entry.is_dir():
            continue
        if _for_macs(entry.filename):
            macos += 1
            continue
        name = keep(entry.filename)
        if name is None:
            skipped += 1
            continue
        target = PurePosixPath(name)
        if target.is_absolute() or ".." in target.parts or "\\" in name or _DRIVE.match(name) or not target.parts:
            raise InputError(f"{path}: {entry.filename!r} can't be unpacked as {name!r}")
        if str(target) in wanted:
            raise _refuse(path, f"two entries would be {name}")
        wanted[str(target)] = entry
    return wanted, skipped, macos


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        EOFError,
        zlib.error,
        NotImplementedError,
        struct.error,
        UnicodeDecodeError,
    ) as problem:
        why = str(problem) or type(problem).__name__
        raise TruemorphError(
            f"{path}: cut off or damaged ({why}); delete it and run the same again, it is fetched anew"
        ) from problem


def unzip(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    keep: Callable[[str], str | None],
    max_bytes: int = 64 * 10**9,
    max_files: int = 2_000_000,
    max_ratio: float = 200.0,
) -> Unpacked:
    """Unpack what is wanted of a zip file; run again, it writes only what is missing.

    Until it has come to its end once, files that are there are compared by their CRC, and by their size from then on.

    Parameters
    ----------
    path : path
    folder : path
        Made where missing.
    keep : callable
        From an entry's name to the name to write, relative to `folder`; None skips it.
    max_bytes : int
        Most bytes of all entries that are wanted.
    max_files : int
        Most entries.
    max_ratio : float
        Most bytes out of one byte in, in any entry of more than a mebibyte.

    Returns
    -------
    Unpacked

    Raises
    ------
    TruemorphError
        If it is no whole zip file, holds absolute paths, "..", drive letters, links, devices or encrypted entries
        (wanted or not), is larger than allowed, or the disk is full. Files are there whole or not at all.
    InputError
        If it can't be opened, or `keep` gives a name outside the folder.
    """
    path, folder = Path(path), Path(folder)
    try:
        with _readable(path), zipfile.ZipFile(path) as archive:
            count = len(archive.infolist())
            if count > max_files:
                raise _refuse(path, f"{count:,d} entries, of which at most {max_files:,d} are allowed")
            wanted, skipped, macos = _wanted(path, archive, keep)
            claimed = sum(entry.file_size for entry in wanted.values())
            if claimed > max_bytes:
                raise _refuse(path, f"it holds {size_text(claimed)}, of which {size_text(max_bytes)} are allowed")
            # Entries that share their compressed bytes: how the worst bombs are made.
            if sum(entry.compress_size for entry in archive.infolist()) > path.stat().st_size:
                raise _refuse(path, "its entries overlap")
            folder.mkdir(parents=True, exist_ok=True)
            settled = _settled(path, folder)
            missing = {
                name: entry for name, entry in wanted.items() if not _is_there(folder / name, entry, by_size=settled)
            }
            written = 0
            needed = sum(entry.file_size for entry in missing.values())
            with (
                room_for(folder, f"unpacking {path.name}", needed),
                progress(len(wanted), f"unpacking {path.name}", "files", initial=len(wanted) - len(missing)) as bar,
            ):
                for name, entry in missing.items():
                    written += _extract(path, archive, entry, folder / name, max_bytes - written, max_ratio)
                    bar.update(1)
            if not settled:
                with suppress(OSError):  # in a folder that is read-only they are compared by CRC each time
                    _marker(path).write_text(_state(path, folder), "utf-8")
    except OSError as problem:
        raise InputError(f"{problem.filename or path}: {problem.strerror or problem}") from problem
    return Unpacked(folder, tuple(wanted), len(missing), skipped, macos, written)


def _marker(path: Path) -> Path:
    """What says that an archive was unpacked to its end."""
    return path.with_name(f".{path.name}.unpacked")


def _state(path: Path, folder: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {os.path.relpath(folder, path.parent)}\n"


def _settled(path: Path, folder: Path) -> bool:
    """Whether this very archive was unpacked to its end before."""
    try:
        return _marker(path).read_text("utf-8") == _state(path, folder)
    except (OSError, UnicodeDecodeError):
        return False


def _is_there(path: Path, entry: zipfile.ZipInfo, *, by_size: bool) -> bool:
    """Whether an entry is on disk: by its size alone, or by its CRC too (a crash can leave files of zeros)."""
    if not path.is_file() or path.stat().st_size != entry.file_size:
        return False
    if by_size:
        return True
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            crc = zlib.crc32(piece, crc)
    return crc == entry.CRC


def _write(file: BinaryIO, piece: bytes) -> None:
    file.write(piece)


def _extract(
    path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, out: Path, most: int, max_ratio: float
) -> int:
    """Write one entry whole or not at all; returns its bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = unfinished(out)
    limit = min(most, max(_RATIO_FROM, int(max_ratio * entry.compress_size)))
    written = 0
    try:
        with archive.open(entry) as source, partial.open("wb") as file:
            while piece := source.read(_CHUNK):
                written += len(piece)
                if written > limit:
                    raise TruemorphError(
                        f"{path}: entry {entry.filename!r} inflates to more than {size_text(limit)}, it may be a bomb; "
                        "delete the file and fetch it from a source you trust"
                    )
                _write(file, piece)
        if written != entry.file_size:
            raise zipfile.BadZipFile(f"{entry.filename}: {written:,d} bytes in place of {entry.file_size:,d}")
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return written


def gunzip(path: str | os.PathLike[str], out: str | os.PathLike[str], *, max_bytes: int = 64 * 10**9) -> Path:
    """Unpack a gzip file; `out` is there only when it is whole.

    Parameters
    ----------
    path, out : path
    max_bytes : int
        Most bytes to write.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    TruemorphError
        If it is no whole gzip file, is larger than allowed, or the disk is full.
    InputError
        If it can't be opened.
    """
    path, out = Path(path), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = unfinished(out)
    written = 0
    try:
        with (
            room_for(out.parent, f"unpacking {path.name}"),
            _readable(path),
            gzip.open(path, "rb") as source,
            partial.open("wb") as file,
        ):
            while piece := source.read(_CHUNK):
                written += len(piece)
                if written > max_bytes:
                    raise TruemorphError(
                        f"{path}: inflates to more than {size_text(max_bytes)}, it may be a bomb; delete it and "
                        "fetch it from a source you trust"
                    )
                _write(file, piece)
        os.replace(partial, out)
    except OSError as problem:
        raise InputError(f"{problem.filename or path}: {problem.strerror or problem}") from problem
    finally:
        partial.unlink(missing_ok=True)
    return out
