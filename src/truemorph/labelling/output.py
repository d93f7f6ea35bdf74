"""Where labels go: parts that appear whole or not at all, and one table of them all.

A folder of results holds `run.json` (which labelling it is), a Parquet file for each part, and `problems/` with what
could not be labelled. For `--out labels.parquet` it is `labels.parquet.parts` until all parts are there, and then one
table. A part that is being worked on is locked, so that several processes share the work; the system takes locks back
from a process that was killed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from truemorph.catalogs.tables import CatalogTable, table_extension, write_table
from truemorph.errors import InputError, TruemorphError, reason

_ACCOUNT = b"truemorph_account"
_PROBLEMS = {"object_id": pl.String, "reason": pl.String}


@dataclass(frozen=True)
class Account:
    """Rows in = rows labelled + rows listed.

    Attributes
    ----------
    rows_in, labelled, listed : int
    unreadable : int
        Of those listed, images that are there and can't be read.
    in_sample : int
        Of those labelled, galaxies that trained the model's only member.
    """

    rows_in: int = 0
    labelled: int = 0
    listed: int = 0
    unreadable: int = 0
    in_sample: int = 0

    def __add__(self, other: Account) -> Account:
        return Account(*(one + another for one, another in zip(self._numbers(), other._numbers(), strict=True)))

    def _numbers(self) -> tuple[int, ...]:
        return self.rows_in, self.labelled, self.listed, self.unreadable, self.in_sample


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say which file can't be written, and that the rest is kept."""
    try:
        yield
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as problem:
        raise TruemorphError(
            f"{path}: can't be written ({reason(problem)}); make room and run the same command again: it goes on from "
            "what is done"
        ) from problem


class PartWriter:
    """Streams batches of a part into its file, which appears when all are there.

    Parameters
    ----------
    path, problems : Path
        Where labels and, if there are any, problems are written.
    schema : dict
        Names and polars types of the columns.
    metadata : dict
    """

    def __init__(self, path: Path, problems: Path, schema: dict[str, Any], metadata: dict[str, Any]) -> None:
        self._path, self._problems, self._schema = path, problems, schema
        self._metadata = metadata
        self._partial = path.with_name(f".{path.name}.{os.getpid()}")
        self._listed: list[tuple[str, str]] = []
        self.account = Account()
        empty = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest())
        note = json.dumps({**metadata, "units": {}}).encode()
        self._arrow = empty.schema.with_metadata({b"truemorph": note})
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._partial, self._arrow)

    def write(self, batch: pl.DataFrame, problems: Sequence[tuple[Any, str]], account: Account) -> None:
        """Add a batch: its labels, its problems, and how many there were of what."""
        self.account += account
        self._listed += [(str(one), why) for one, why in problems]
        table = batch.select(pl.col(name).cast(kind) for name, kind in self._schema.items())
        arrow = table.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(self._arrow)
        with _writing(self._path):
            self._writer.write_table(arrow)

    def finish(self) -> None:
        """Put the part in its place; its problems are there before it is.

        Raises
        ------
        AssertionError
            If a row was lost.
        """
        one = self.account
        if one.rows_in != one.labelled + one.listed or one.listed != len(self._listed):
            raise AssertionError(f"{self._path}: {one.rows_in} rows in, {one.labelled} labelled, {one.listed} listed")
        with _writing(self._path):
            self._writer.add_key_value_metadata({_ACCOUNT: json.dumps(one._numbers())})
            self._writer.close()
            if self._listed:
                listed = pl.DataFrame(self._listed, schema=_PROBLEMS, orient="row")
                write_table(CatalogTable(listed), self._problems)
            else:
                self._problems.unlink(missing_ok=True)
            with open(self._partial, "rb") as file:
                os.fsync(file.fileno())
            os.replace(self._partial, self._path)

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer.is_open:
            with suppress(OSError):  # it has been told
                self._writer.close()
        self._partial.unlink(missing_ok=True)


class Results:
    """The results of one labelling, whoever works on it.

    Parameters
    ----------
    out : path
        A table (its ending names the format), or a folder that keeps the parts.

    Raises
    ------
    InputError
        If the ending is of no kind of table.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(out)
        self.is_table = bool(self.out.suffix) and not self.out.is_dir()
        if self.is_table:
            table_extension(self.out)
        self.folder = self.out.with_name(f"{self.out.name}.parts") if self.is_table else self.out

    @property
    def problems(self) -> Path:
        """Where what can't be labelled is listed: a table, or a folder of tables."""
        return self.out.with_name(f"{self.out.stem}.problems.csv") if self.is_table else self.folder / "problems"

    def begin(self, identity: dict[str, Any]) -> None:
        """Make the folder, or go on with what is there.

        Parameters
        ----------
        identity : dict
            What the labels follow from.

        Raises
        ------
        InputError
            If the folder holds something else.
        TruemorphError
            If it can't be written.
        """
        file, now = self.folder / "run.json", json.loads(json.dumps(identity))
        try:
            if not self.is_table and self.folder.is_dir() and not file.is_file() and any(self.folder.iterdir()):
                raise InputError(f"{self.folder}: exists and holds no labels; choose another --out")
            self._locks.mkdir(parents=True, exist_ok=True)
            with self.alone():
                if not file.is_file() or next(self.folder.rglob("*.parquet"), None) is None:
                    partial = self.folder / f".run.json.{os.getpid()}"
                    partial.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
                    os.replace(partial, file)
            then = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            if isinstance(problem, InputError):
                raise
            raise TruemorphError(f"{self.folder}: can't be written ({reason(problem)})") from problem
        changed = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
        if changed:
            raise InputError(
                f"{self.folder}: holds labels of another run ({changed[0]} was {then.get(changed[0])!r}, is "
                f"{now.get(changed[0])!r}); delete that folder, or choose another --out"
            )

    @property
    def _locks(self) -> Path:
        return self.folder / ".locks"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process begins or ends."""
        place = self.out.with_name(f".{self.out.name}.lock")
        try:
            with FileLock(place):
                yield
        finally:
            place.unlink(missing_ok=True)

    def path(self, part: str) -> Path:
        """Where a part is, or will be."""
        return self.folder / f"{part}.parquet"

    def is_done(self, part: str) -> bool:
        """Whether a part is there."""
        return self.path(part).is_file()

    def claim(self, part: str) -> FileLock | None:
        """Take a part; None where another process has it. Release the lock when it is done."""
        place = self._locks / f"{part}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def writer(self, part: str, schema: dict[str, Any], metadata: dict[str, Any]) -> PartWriter:
        """Writer of a part."""
        return PartWriter(self.path(part), self._listed_in(part), schema, metadata)

    def _listed_in(self, part: str) -> Path:
        return self.folder / "problems" / f"{part}.csv"

    def account(self, part: str) -> Account:
        """What became of a part's rows."""
        return Account(*json.loads(pq.read_metadata(self.path(part)).metadata[_ACCOUNT]))

    def listed(self, part: str) -> list[tuple[str, str]]:
        """What of a part could not be labelled, and why."""
        path = self._listed_in(part)
        return pl.read_csv(path, schema=_PROBLEMS).rows() if path.is_file() else []

    def drop(self, part: str) -> None:
        """Forget a part, so that it is labelled anew."""
        self.path(part).unlink(missing_ok=True)
        self._listed_in(part).unlink(missing_ok=True)

    def conclude(self, parts: Sequence[str], metadata: dict[str, Any]) -> None:
        """Where one table was asked for, make it of all parts, in their order, and one list of all problems.

        Raises
        ------
        TruemorphError
            If they can't be written; the parts stay.
        """
        shutil.rmtree(self._locks, ignore_errors=True)
        if not self.is_table:
            return
        partial = self.out.with_name(f".{os.getpid()}.{self.out.name}")
        try:
            with _writing(self.out):
                self._make_table(parts, metadata, partial)
        finally:
            partial.unlink(missing_ok=True)

    def _make_table(self, parts: Sequence[str], metadata: dict[str, Any], partial: Path) -> None:
        listed = pl.DataFrame([row for part in parts for row in self.listed(part)], schema=_PROBLEMS, orient="row")
        write_table(CatalogTable(listed), self.problems)
        if self.out.suffix.lower() == ".parquet":
            schema = pq.read_schema(self.path(parts[0]))
            schema = schema.with_metadata({key: schema.metadata[key] for key in (b"truemorph",)})
            with pq.ParquetWriter(partial, schema) as writer:
                for part in parts:
                    writer.write_table(pq.read_table(self.path(part), partitioning=None).cast(schema))
            os.replace(partial, self.out)
        else:
            frame = pl.concat([pl.read_parquet(self.path(part)) for part in parts])
            write_table(CatalogTable(frame, metadata=metadata), self.out)
        shutil.rmtree(self.folder)
