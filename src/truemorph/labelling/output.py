"""Write labels: parts, each written atomically, and one table of all parts.

A folder of results holds `run.json` (which identifies the labelling), a Parquet file per part, and `problems/` with the
rows that could not be labelled. For one table `labels.parquet`, the folder is `labels.parquet.<digest>.parts` until
all parts are done (the digest identifies the labelling). A part in progress is locked, so that several processes can
share the work; the system releases the locks of a killed process.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import AcquireReturnProxy, FileLock

from truemorph.errors import InputError, TruemorphError, reason
from truemorph.io import content_hash, lock, plain, read_json, write_json, written_whole
from truemorph.labelling.labeller import IN_SAMPLE
from truemorph.labelling.sources import NO_FEATURE, NO_IMAGE
from truemorph.tables import CatalogTable, table_extension, to_arrow, write_table

_ACCOUNT = b"truemorph_account"
_PROBLEMS = {"object_id": pl.String, "reason": pl.String}


def is_table(out: str | os.PathLike[str]) -> bool:
    """Whether labels are written to one table (otherwise to a folder of tables).

    Raises
    ------
    InputError
        If the extension is not that of a table format.
    """
    out = Path(out)
    if not out.suffix or out.is_dir():
        return False
    table_extension(out)
    return True


@dataclass(frozen=True)
class Account:
    """Row counts: rows in = rows labelled + rows listed.

    Attributes
    ----------
    rows_in, labelled, listed : int
    unreadable : int
        Number of listed rows with an image that can't be read.
    in_sample : int
        Number of labelled galaxies that were used to train the model's only member.
    matched : int
        Number of labelled galaxies with an observed label.
    incomplete : int
        Number of labelled galaxies without a value of a column on which T depends.
    """

    rows_in: int = 0
    labelled: int = 0
    listed: int = 0
    unreadable: int = 0
    in_sample: int = 0
    matched: int = 0
    incomplete: int = 0

    def __add__(self, other: Account) -> Account:
        return Account(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))

    def too_bad(self, most: float) -> bool:
        """Whether the fraction of unreadable images is larger than `most`."""
        return self.unreadable > most * (self.labelled + self.unreadable)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Convert write errors to one that names the file and explains how to resume."""
    try:
        yield
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as problem:
        raise TruemorphError(
            f"{path}: can't be written ({reason(problem)}); free disk space and run the same command again to resume"
        ) from problem


class PartWriter:
    """Write a part batch by batch; its file appears when all are written.

    Parameters
    ----------
    path, problems : Path
        Files for labels and, if there are any, for problems.
    labels : CatalogTable
        Columns, units, descriptions and metadata of the labels, without rows.
    """

    def __init__(self, path: Path, problems: Path, labels: CatalogTable) -> None:
        self._path, self._problems, self._schema = path, problems, labels.frame.schema
        self._partial = path.with_name(f".{path.name}.{os.getpid()}")
        self._listed: list[tuple[str, str]] = []
        self.account = Account()
        self._arrow = to_arrow(labels).schema
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._partial, self._arrow, write_page_checksum=True)

    def write(self, rows_in: int, labels: pl.DataFrame, problems: Sequence[tuple[Any, str]]) -> None:
        """Add a batch: its number of rows, labels, and the problems of the other rows."""
        in_sample = labels["relation"] == IN_SAMPLE
        incomplete = 0
        if "posterior_label" in labels.columns:
            without = labels["observed_label"].is_not_null() & labels["posterior_label"].is_null()
            incomplete = int((without & ~in_sample).sum())
        self.account += Account(
            rows_in,
            labels.height,
            len(problems),
            sum(why not in (NO_IMAGE, NO_FEATURE) for _, why in problems),
            int(in_sample.sum()),
            labels["observed_label"].count() if "observed_label" in labels.columns else 0,
            incomplete,
        )
        self._listed += [(str(one), why) for one, why in problems]
        table = labels.select(pl.col(name).cast(kind) for name, kind in self._schema.items())
        arrow = table.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(self._arrow)
        with _writing(self._path):
            self._writer.write_table(arrow)

    def finish(self) -> None:
        """Move the file of problems, then the part, to their final places.

        Raises
        ------
        AssertionError
            If a row was lost.
        """
        one = self.account
        if one.rows_in != one.labelled + one.listed:
            raise AssertionError(f"{self._path}: {one.rows_in} rows in, {one.labelled} labelled, {one.listed} listed")
        with _writing(self._path):
            self._writer.add_key_value_metadata({_ACCOUNT: json.dumps(astuple(one))})
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
            with suppress(OSError):  # it was raised before
                self._writer.close()
        self._partial.unlink(missing_ok=True)


class Results:
    """Results of one labelling, shared by all its processes.

    Parameters
    ----------
    out : path
        A table (the extension gives its format), or a folder for the parts.
    identity : dict
        Everything that determines the labels.
    """

    def __init__(self, out: str | os.PathLike[str], identity: dict[str, Any]) -> None:
        self.out, self.is_table = Path(out), is_table(out)
        self._identity = plain(identity)
        digest = content_hash(identity)[:8]
        self.folder = self.out.with_name(f"{self.out.name}.{digest}.parts") if self.is_table else self.out
        self._run, self._locks = self.folder / "run.json", self.folder / ".locks"

    @property
    def problems(self) -> Path:
        """Table, or folder of tables, of the rows that could not be labelled."""
        return self.out.with_name(f"{self.out.stem}.problems.csv") if self.is_table else self.folder / "problems"

    @property
    def others(self) -> list[Path]:
        """Return unfinished labellings of the same table with other settings."""
        found = self.out.parent.glob(f"{glob.escape(self.out.name)}.*.parts") if self.is_table else []
        return sorted(one for one in found if one != self.folder)

    def begin(self) -> None:
        """Make the folder, or check that it belongs to this labelling.

        Raises
        ------
        InputError
            If the folder holds something else.
        TruemorphError
            If the folder can't be written.
        """
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with self.alone():
                if not self._run.is_file():
                    content = [one for one in self.folder.glob("*") if not one.name.startswith(".")]
                    if content and not self.is_table:
                        raise InputError(f"{self.folder}: exists but holds no labels; choose another `out`")
                    self._locks.mkdir(parents=True, exist_ok=True)
                    write_json(self._run, self._identity)
                then, now = read_json(self._run), self._identity
        except OSError as problem:
            raise TruemorphError(f"{self.folder}: can't be written ({reason(problem)})") from problem
        changed = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
        if changed:
            raise InputError(
                f"{self.folder}: holds labels of another run ({changed[0]} was {then.get(changed[0])!r}, is "
                f"{now.get(changed[0])!r}); delete this folder, or choose another `out`"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock, so that no other process begins or ends."""
        place = self.out.with_name(f".{self.out.name}.lock")
        with FileLock(place):
            try:
                yield
            finally:
                place.unlink(missing_ok=True)  # while locked; a waiting process makes a new one

    def path(self, part: str) -> Path:
        """Return the path of a part."""
        return self.folder / f"{part}.parquet"

    def is_done(self, part: str) -> bool:
        """Whether a part is finished."""
        return self.path(part).is_file()

    @property
    def is_there(self) -> bool:
        """Whether the folder exists; it is removed when the table is made."""
        return self._run.is_file()

    def claim(self, part: str) -> AcquireReturnProxy | None:
        """Lock a part for a `with` block; return None if another process has locked it."""
        if not self.is_there:
            return None
        place = self._locks / f"{part}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        held = lock(place)
        if held is None or self.is_there:
            return held
        # Another process made the table in the meantime; clean up.
        held.lock.release()
        shutil.rmtree(self._locks, ignore_errors=True)
        with suppress(OSError):  # not empty
            self.folder.rmdir()
        return None

    def writer(self, part: str, labels: CatalogTable) -> PartWriter:
        """Return a writer for a part."""
        return PartWriter(self.path(part), self._listed_in(part), labels)

    def _listed_in(self, part: str) -> Path:
        return self.folder / "problems" / f"{part}.csv"

    def account(self, part: str) -> Account:
        """Return the row counts of a part."""
        return Account(*json.loads(pq.read_metadata(self.path(part)).metadata[_ACCOUNT]))

    def listed(self, part: str) -> list[tuple[str, str]]:
        """Return the rows of a part that could not be labelled, with reasons."""
        path = self._listed_in(part)
        return pl.read_csv(path, schema=_PROBLEMS).rows() if path.is_file() else []

    def damage(self, part: str) -> str:
        """Return what is wrong with a finished part; empty if its checksums and row counts agree."""
        try:
            with pq.ParquetFile(self.path(part), page_checksum_verification=True) as file:
                rows = sum(batch.num_rows for batch in file.iter_batches())
            account = self.account(part)
            if (rows, len(self.listed(part))) != (account.labelled, account.listed):
                return "rows are missing"
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, pl.exceptions.PolarsError) as problem:
            return reason(problem)
        return ""

    def drop(self, part: str) -> None:
        """Delete a part, so that it is labelled again."""
        self.path(part).unlink(missing_ok=True)
        self._listed_in(part).unlink(missing_ok=True)

    def conclude(self, parts: Sequence[str], labels: CatalogTable) -> None:
        """If the output is one table, combine all parts in order, and all problems.

        Parameters
        ----------
        parts : sequence of str
        labels : CatalogTable
            As in `PartWriter`.

        Raises
        ------
        TruemorphError
            If the table can't be written; the parts are kept.
        """
        if not self.is_table:
            shutil.rmtree(self._locks, ignore_errors=True)
            for one in self.folder.rglob(".*.parquet.*"):  # left by killed processes
                one.unlink(missing_ok=True)
            return
        with _writing(self.out):
            listed = pl.DataFrame([row for part in parts for row in self.listed(part)], schema=_PROBLEMS, orient="row")
            write_table(CatalogTable(listed), self.problems)
            if self.out.suffix.lower() == ".parquet":
                schema = to_arrow(labels).schema
                with written_whole(self.out) as partial, pq.ParquetWriter(partial, schema) as writer:
                    for part in parts:
                        writer.write_table(pq.read_table(self.path(part), partitioning=None).cast(schema))
            else:
                frame = pl.concat([pl.read_parquet(self.path(part)) for part in parts])
                write_table(replace(labels, frame=frame), self.out)
            gone = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
            self.folder.rename(gone)
            shutil.rmtree(gone)
