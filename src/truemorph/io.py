"""Atomic writing, locks, hashes, and reading of small text files with one-line errors."""

import glob
import hashlib
import io
import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from platformdirs import user_cache_path
from pydantic import BaseModel, ValidationError

from truemorph.errors import InputError, nearest

# Format of catalogues, fits, models and labels.
FORMAT_VERSION = 1
shortest = Repr().repr  # long values are abbreviated
Model = TypeVar("Model", bound=BaseModel)
PathLike = str | os.PathLike[str]


def check_not_read(out: Path, sources: Iterable[Any], inside: bool = False) -> None:
    """Raise an InputError if one of the sources, or with `inside` a folder that holds one, would be replaced."""
    place = out.resolve()
    for source in sources:
        if isinstance(source, str | os.PathLike):
            read = Path(source).resolve()
            if read == place or (inside and place in read.parents):
                raise InputError(f"{out}: would overwrite the input {source}; choose another `out`")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


def partial_path(path: Path) -> Path:
    """Return the hidden name under which this process writes a file or folder; remove what killed processes left."""
    for left in path.parent.glob(f".*.{glob.escape(path.name)}"):
        process = left.name[1 : -len(path.name) - 1]
        if process.isdigit() and os.name == "posix" and not _is_running(int(process)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.with_name(f".{os.getpid()}.{path.name}")


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, for the block to fill and to rename; the rest of it is removed."""
    partial = partial_path(path)
    shutil.rmtree(partial, ignore_errors=True)  # of an earlier process with this number
    try:
        partial.mkdir(parents=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def written_whole(path: PathLike, durable: bool = False, of_many: bool = False) -> Iterator[Path]:
    """Write a file atomically; its folder is created if missing.

    The block writes the yielded temporary file in the same folder, with the same extension. It replaces `path` when
    the block ends, if `durable` once it is on the disk, and is removed if the block raises. What killed processes left
    is removed before, except in folders of many files, where each search would take longer than writing.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is a folder or a device; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}") if durable or of_many else partial_path(path)
    try:
        yield partial
        if durable:
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as problem:
        if problem.filename not in (None, str(partial)):
            raise
        raise OSError(problem.errno, problem.strerror or str(problem), str(path)) from problem  # a full disk
    finally:
        with suppress(OSError):
            partial.unlink()


def write_file(path: Path, content: str | bytes) -> Path:
    """Write a file atomically, text as UTF-8."""
    with written_whole(path, of_many=True) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def save_figure(figure: Any, path: Path, dpi: int = 150) -> None:
    """Write a matplotlib figure, whole or not at all."""
    content = io.BytesIO()  # because matplotlib itself fails in other ways where the disk is full
    figure.savefig(content, format=path.suffix[1:], dpi=dpi)
    write_file(path, content.getvalue())


def save_as_pdf_and_png(figure: Any, folder: Path, name: str) -> None:
    """Write a matplotlib figure in both formats; its layout, which is the same in both, is computed once."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    for kind in ("pdf", "png"):
        save_figure(figure, folder / f"{name}.{kind}")


def cache_folder() -> Path:
    """Return truemorph's folder in the user's cache directory; it may not exist, and may be deleted at any time."""
    return user_cache_path("truemorph", appauthor=False)


def lock(path: PathLike) -> AcquireReturnProxy | None:
    """Acquire a lock file without waiting, for a `with` block; return None if another process holds it."""
    try:
        return FileLock(path).acquire(timeout=0)
    except Timeout:
        return None


def content_hash(content: Any) -> str:
    """Return the SHA-256 of plain values, in hexadecimal, independent of the order of keys."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True, default=str).encode()).hexdigest()


def file_hash(path: PathLike, algorithm: str = "sha256") -> str:
    """Return the hexadecimal checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def checksums(folder: Path, name: str, content: Mapping[str, Any], others: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the JSON content of one file of a folder, without its key `sha256`, and of other files."""
    own = content_hash({key: value for key, value in content.items() if key != "sha256"})
    return {name: own, **{other: file_hash(folder / other) for other in others}}


def shown_path(path: PathLike) -> str:
    """Return a path as UTF-8 text; invalid bytes are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_toml(path: PathLike) -> dict[str, Any]:
    """Read a TOML file; an InputError if it can't be read, is not TOML, or is nested too deeply."""
    return _parsed(path, tomllib.loads, "TOML")


def read_json(path: PathLike) -> dict[str, Any]:
    """Read a JSON object; an InputError has one line."""
    content = _parsed(path, json.loads, "JSON")
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a JSON object, in braces; got {shortest(content)}")
    return content


def read_checked(model: type[Model], path: PathLike) -> Model:
    """Read a JSON object as a pydantic model; an InputError has one line."""
    return checked(model, read_json(path), f"{path}:")


def checked(model: type[Model], content: Mapping[str, Any], source: str) -> Model:
    """Check plain values against a pydantic model; the InputError names the first one that is unknown or wrong."""
    try:
        return model.model_validate(content)
    except ValidationError as problem:
        # A misspelt key also causes a missing key; the former is more useful.
        first = min(problem.errors(), key=lambda one: one["type"] != "extra_forbidden")
        names = [shortest(str(part))[1:-1] for part in first["loc"]]
        what = first["msg"].removeprefix("Value error, ")
        what = what[0].lower() + what[1:]
        if first["type"] == "extra_forbidden":
            schema = model.model_json_schema()
            keys = [key for one in (schema, *schema.get("$defs", {}).values()) for key in one.get("properties", ())]
            what = f"unknown key; {nearest(names[-1], keys, what='keys')}"
        elif not isinstance(first["input"], dict):
            what += f"; got {shortest(first['input'])}"
        raise InputError(f"{source} {'.'.join(names)}: {what}" if names else f"{source} {what}") from problem


def changed_values(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which values differ, for an error; empty if none."""
    changed = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
    return ", ".join(f"{key} was {shortest(then.get(key))}, is {shortest(now.get(key))}" for key in changed[:3])


def check_format(described: Mapping[str, Any], source: object) -> None:
    """Refuse catalogues and labels of version 0.1, which have no number, and files of a later version: a higher one."""
    version = described.get("format_version", 0)
    if described.get("kind") in ("catalogue", "labels") and "truemorph_version" in described and not version:
        raise InputError(f"{source}: written by truemorph 0.1, whose tables are no longer read; make it again")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"{source}: format {version} is newer than this truemorph supports ({FORMAT_VERSION}); upgrade truemorph"
        )


def _parsed(path: PathLike, parse: Callable[[str], Any], language: str) -> Any:
    if not os.path.isfile(path) and os.path.exists(path):  # a pipe or a device may have no end
        raise InputError(f"{path}: is a folder or a device; give the name of a file")
    try:
        return parse(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror or problem}") from problem
    except RecursionError as problem:
        raise InputError(f"{path}: its values are nested too deeply") from problem
    except ValueError as problem:  # also for text that is not UTF-8
        raise InputError(f"{path}: not valid {language}: {problem}") from problem


def write_json(path: Path, content: Any) -> Path:
    """Write JSON atomically; NaN and infinity become null."""
    return write_file(path, json.dumps(plain(content), indent=2) + "\n")


def plain(value: Any) -> Any:
    """Convert results, paths, numpy numbers and arrays, tuples and NaN to JSON values."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
