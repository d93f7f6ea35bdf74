"""A folder while it is fetched into: one process at a time, and nothing left of dead ones."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from truemorph.errors import InputError

_LOCK = ".fetch.lock"
_UNFINISHED = re.compile(r"\..+\.(\d+)\.part")


def unfinished(path: Path) -> Path:
    """What a file is called while this process writes it.

    Examples
    --------
    >>> unfinished(Path("table.csv")).name == f".table.csv.{os.getpid()}.part"
    True
    """
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def working_folder(folder: Path, *, offline: bool = False, inside: tuple[str, ...] = ()) -> Iterator[None]:
    """Hold a folder: made where missing, and gone again where nothing came into it.

    Parameters
    ----------
    folder : Path
    offline : bool
        Nothing is fetched then: the folder is neither made nor held, so that one that is read-only will do.
    inside : tuple of str
        Folders in it that are written to as well.

    Raises
    ------
    InputError
        If the folder can't be used.
    """
    made: list[Path] = []
    try:
        if offline:
            yield
            return
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with _held(folder):
            for name in ("", *inside):
                _sweep(folder / name)
            yield
    except OSError as problem:
        raise InputError(
            f"{problem.filename or folder}: can't be written ({problem.strerror or problem}); choose another folder "
            "(--out)"
        ) from problem
    finally:
        _forget(made)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder}: another process is fetching into it; waiting for that", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sweep(folder: Path) -> None:
    """Remove what processes that are no more left half written."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        left = [(entry.path, match) for entry in entries if (match := _UNFINISHED.fullmatch(entry.name))]
    for path, match in left:
        if not _alive(int(match[1])):
            Path(path).unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def _forget(made: list[Path]) -> None:
    """Remove folders that were made for nothing."""
    for folder in made:
        if not folder.is_dir() or any(one.name != _LOCK for one in folder.iterdir()):
            return
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()
