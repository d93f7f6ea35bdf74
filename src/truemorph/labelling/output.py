"""Write labels: parts, each written atomically, and one table or HATS catalogue of all parts.

A folder of results holds `run.json` (which identifies the labelling) and a Parquet file per part, whose metadata has
its row counts and the rows that could not be labelled. For one table, the folder is `labels.parquet.parts`
until all parts are done. A part in progress is locked, so that several processes can share the work.

When a survey grows, images belong to other parts than before; files of earlier parts are then set aside, and their
labels are taken from there.
"""

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import AcquireReturnProxy, FileLock

from truemorph.errors import InputError, TruemorphError, reason
from truemorph.findings import Finding
from truemorph.io import (
    changed_values,
    content_hash,
    file_hash,
    lock,
    partial_path,
    plain,
    read_json,
    write_json,
    written_whole,
)
from truemorph.labelling.hats import write_hats
from truemorph.labelling.labeller import UNLIKE
from truemorph.labelling.parts import NO_INPUT, Part
from truemorph.tables import CatalogTable, table_extension, to_arrow, write_problems, write_table

# Row counts: `rows_in` = `labelled` + `listed` (as problems). Of the listed rows, `unreadable` have an image that can't
# be read. Of the labelled galaxies, `matched` have an observed label, of which `no_posterior` lack a posterior. Others,
# such as `unlike_training noise high`, count galaxies that are unlike those of training.
Counts = Counter[str]
# A batch of a part: its number of rows, the labels, and (id, reason) of each row that could not be labelled.
Batch = tuple[int, pl.DataFrame, Sequence[tuple[Any, str]]]

_RECORD, _ROWS = b"truemorph_part", b"truemorph_rows"
_EARLIER, _ROW = ".earlier", "row"


def is_table(out: Path) -> bool:
    """Whether labels are written to one table, otherwise to a folder; an unknown extension raises an error."""
    if not out.name or (not out.suffix and out.exists() and not out.is_dir()):
        raise InputError(f"{out}: give the name of a table or of a folder")
    if not out.suffix or out.is_dir():
        return False
    table_extension(out)
    return True


def parts_folder(out: Path) -> Path:
    """Return the folder that holds the parts of a table until all are done."""
    return out.with_name(f"{out.name}.parts")


def _counted(batch: Batch) -> Counts:
    rows_in, labels, problems = batch
    counts = Counter(rows_in=rows_in, labelled=labels.height, listed=len(problems))
    counts["unreadable"] = sum(why not in NO_INPUT for _, why in problems)
    kinds = {"matched": "observed_label", "posterior": "posterior_label", "regression": "regression"}
    for kind, name in kinds.items():  # of the first question, or class
        column = next((column for column in labels.columns if column == name or column.startswith(f"{name}_")), None)
        if column is not None:
            counts[kind] = labels[column].count()
    if UNLIKE in labels.columns:
        counts |= Counter(f"{UNLIKE} {text}" for text in labels[UNLIKE].drop_nulls())
    if "posterior" in counts:
        counts["no_posterior"] = counts["matched"] - counts.pop("posterior")
    return counts


def _stored_in(path: Path, key: bytes) -> Any:
    """Return what a part's file has in its metadata: the record of the part, or the marks of its rows."""
    return json.loads(pq.read_metadata(path).metadata[key])


class Results:
    """Results of one labelling, shared by all its processes.

    `out` is a table, a folder, or, with `hats` (its columns of positions), a HATS catalogue. `identity` determines the
    labels together with the inputs, which are those of `parts`. `labels` is an empty table; `problems` the file of rows
    that could not be labelled, up to now.
    """

    def __init__(
        self,
        out: Path,
        identity: dict[str, Any],
        parts: Sequence[Part],
        labels: CatalogTable,
        hats: tuple[str, str] | None,
    ) -> None:
        self.out, self._labels, self._identity = out, labels, plain(identity)
        self.parts = {part.name: part for part in parts}
        self.hats, self.is_table = hats, hats is not None or is_table(out)
        self.folder = parts_folder(out) if self.is_table else out
        self._run, self._locks = self.folder / "run.json", self.folder / ".locks"
        self._summary, self.problems = self.folder / "summary.json", self.folder / "problems.csv"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock, so that no other process begins or ends."""
        place = self.out.with_name(f".{self.out.name}.lock")
        place.touch()  # FileLock would wait for ever where no file can be made
        with FileLock(place):
            try:
                yield
            finally:
                place.unlink(missing_ok=True)  # while locked; a waiting process makes a new one

    def begin(self, own: Collection[str]) -> list[Finding]:
        """Make the folder, or check that it belongs to this labelling; return findings about damaged parts.

        Of the parts `own`, those of other inputs than now, and those with unreadable images, are set aside to be
        labelled again; others are left to the processes to which they belong.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.alone():
            self._identify()
            return self._set_aside(own)

    def _identify(self) -> None:
        if not self._run.is_file():
            content = [path for path in self.folder.glob("*") if not path.name.startswith(".")]
            if content and not self.is_table:
                raise InputError(f"{self.folder}: exists but holds no labels; choose another `out`")
            write_json(self._run, self._identity)
        if changed := changed_values(read_json(self._run), self._identity):
            other = f"holds labels of another run ({changed})"
            same = "set `engine` and `precision` everywhere, " if "engine was" in changed else ""
            raise InputError(f"{self.folder}: {other}; {same}delete this folder, or choose another `out`")

    def _set_aside(self, own: Collection[str]) -> list[Finding]:
        findings = []
        gone = (path.stem for path in self.folder.glob("part-?????.parquet") if path.stem not in self.parts)
        for part in (*own, *gone):
            path = self._path(part)
            if not path.is_file():
                continue
            if problem := self._damage(part):
                self._summary.unlink(missing_ok=True)
                path.unlink()
                message = f"Part {part} of an earlier run was damaged ({problem}) and was labelled again."
                findings.append(Finding("part-damaged", "caution", message, "Check the disk of this folder."))
                continue
            marks = _stored_in(path, _ROWS)  # None if its rows were not in memory
            if marks is None and (part not in self.parts or self._renewed(part)):  # its file was moved away, or copied
                continue
            if not self.is_done(part) or (marks is not None and self.counts(part)["unreadable"]):
                self._summary.unlink(missing_ok=True)
                if marks:
                    path.rename(path.with_name(f"{_EARLIER}.{file_hash(path)[:8]}.{path.name}"))
                else:
                    path.unlink()
        return findings

    def _renewed(self, part: str) -> bool:
        """Write a part whose input has the same content, but another mark, with the new mark; return whether it has."""
        record, now = _stored_in(self._path(part), _RECORD), self.parts[part]
        del record["seal"]
        if record["input"] == now.mark or record["content"] != now.content():
            return False
        with self._writer(part) as writer:
            writer.write_table(self._stored(part).cast(self._schema))
            self._seal(writer, part, record | {"input": now.mark}, None)
        return True

    def _damage(self, part: str) -> str:
        """Return what is wrong with a part's file; empty if its checksums and row counts agree."""
        try:
            with pq.ParquetFile(self._path(part), page_checksum_verification=True) as file:
                rows, stored = sum(batch.num_rows for batch in file.iter_batches()), file.metadata.metadata
            record, marks = (json.loads(stored[key]) for key in (_RECORD, _ROWS))
            if rows != record["counts"].get("labelled", 0):
                return "rows are missing"
            if record.pop("seal") != content_hash([self._identity, part, record, marks]):
                return "it is another part, or was changed"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as problem:
            return "its record is missing" if isinstance(problem, KeyError) else reason(problem)
        return ""

    @property
    def _schema(self) -> pa.Schema:
        return to_arrow(self._labels).schema

    def _path(self, part: str) -> Path:
        return self.folder / f"{part}.parquet"

    def _record(self, part: str) -> dict[str, Any]:
        """Return counts and problems of a part; nothing if it is not finished, can't be read, or is gone."""
        try:
            record = _stored_in(self._path(part), _RECORD)
        except (OSError, pa.ArrowException):
            return {}
        return record if part in self.parts and record["input"] == self.parts[part].mark else {}

    def is_done(self, part: str) -> bool:
        """Whether a part is finished."""
        return bool(self._record(part))

    @property
    def is_there(self) -> bool:
        """Whether the folder exists; it is removed when the table is made."""
        return self._run.is_file()

    def counts(self, part: str) -> Counts:
        """Return the row counts of a part."""
        return Counter(self._record(part).get("counts", {}))

    def so_far(self, parts: Collection[str] | None = None) -> tuple[Counts, list[tuple[str, str]], int]:
        """Return row counts of finished parts, rows that could not be labelled, and how many parts are left.

        Of all parts, these rows, an id and a reason each, are written to `problems`.
        """
        counts, listed, left = Counter[str](), list[tuple[str, str]](), 0
        for part in self.parts if parts is None else parts:
            record = self._record(part)
            left += not record
            counts.update(record.get("counts", {}))
            listed += map(tuple, record.get("problems", ()))
        if parts is None:
            write_problems(listed, self.problems)
        return counts, listed, left

    @cached_property
    def _earlier(self) -> pl.DataFrame:
        """Labels that were set aside, with the mark of each row."""
        frames = [self._labels.frame.with_columns(pl.lit(None, pl.String).alias(_ROW))]
        for path in sorted(self.folder.glob(f"{_EARLIER}.*.parquet")):
            frames.append(pl.read_parquet(path).with_columns(pl.Series(_ROW, _stored_in(path, _ROWS), pl.String)))
        return pl.concat(frames, how="vertical_relaxed").unique(_ROW)

    def earlier(self, marks: Collection[str]) -> pl.DataFrame:
        """Return the labels of rows with these marks, as far as they were set aside."""
        return self._earlier.filter(pl.col(_ROW).is_in(list(marks))).drop(_ROW)

    def claim(self, part: str) -> AcquireReturnProxy | None:
        """Lock a part for a `with` block; return None if another process has locked it or made the table."""
        if not self.is_there:
            return None
        held = lock(self._locks / f"{part}.lock")
        if held is None or self.is_there:
            return held
        # Another process made the table in the meantime; clean up.
        held.lock.release()
        shutil.rmtree(self._locks, ignore_errors=True)
        with suppress(OSError):  # not empty
            self.folder.rmdir()
        return None

    def write(self, part: str, batches: Iterable[Batch], marks: dict[str, str] | None) -> None:
        """Write a part batch by batch; its file appears when all are written and no row is lost.

        `marks` are those of its rows by id, empty if labels need not be used again; None if rows are not in memory.
        """
        counts, listed, rows = Counter[str](), list[tuple[str, str]](), list[str]()
        schema, own = self._schema, self.parts[part]
        self._summary.unlink(missing_ok=True)
        with self._writer(part) as writer:
            for batch in batches:
                counts += _counted(batch)
                _, labels, problems = batch
                listed += [(str(galaxy), why) for galaxy, why in problems]
                table = labels.cast(self._labels.frame.schema)
                writer.write_table(table.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))
                rows += [marks[galaxy] for galaxy in table["object_id"].cast(pl.String)] if marks else []
            if counts["rows_in"] != counts["labelled"] + counts["listed"]:
                raise AssertionError(f"{part}: rows are lost: {counts}")
            record = {"counts": counts, "problems": listed, "input": own.mark, "content": own.content()}
            self._seal(writer, part, record, None if marks is None else rows)

    @contextmanager
    def _writer(self, part: str) -> Iterator[pq.ParquetWriter]:
        with (
            written_whole(self._path(part), durable=True) as partial,
            pq.ParquetWriter(partial, self._schema, write_page_checksum=True) as writer,
        ):
            yield writer

    def _seal(self, writer: pq.ParquetWriter, part: str, record: dict[str, Any], marks: list[str] | None) -> None:
        """Add to a part what it holds, and marks of its rows, if they were in memory, with a checksum of both."""
        seal = content_hash([self._identity, part, record, marks])
        writer.add_key_value_metadata({_RECORD: json.dumps(record | {"seal": seal}), _ROWS: json.dumps(marks)})

    def _stored(self, part: str, columns: list[str] | None = None) -> pa.Table:
        """Read the labels of a part, which may have been damaged since its process checked it."""
        path = self._path(part)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:  # read_table() would import pandas
                return file.read(columns)
        except (OSError, pa.ArrowException) as problem:
            raise TruemorphError(f"{path}: damaged ({reason(problem)}); delete it, and label again") from problem

    def sampled(self, columns: list[str], step: int) -> pl.DataFrame:
        """Return ids as text and columns of all parts, for one in `step` ids, chosen by their hash."""
        frames = (pl.DataFrame(self._stored(part, ["object_id", *columns])) for part in self.parts)
        chosen = pl.col("object_id").hash() % step == 0
        return pl.concat(frame.cast({"object_id": pl.String}).filter(chosen) for frame in frames)

    def concluded(self) -> dict[str, Any] | None:
        """Return the metadata that `conclude` wrote beside the parts in a folder; None if they don't hold any more."""
        if self.is_table or not self._summary.is_file() or not all(self._path(part).is_file() for part in self.parts):
            return None
        summary = read_json(self._summary)
        return summary if summary.pop("sha256", None) == self._checksum(summary) else None

    def _checksum(self, summary: dict[str, Any]) -> str:
        return content_hash([summary, {name: part.mark for name, part in self.parts.items()}])

    def conclude(self, listed: list[tuple[str, str]], metadata: dict[str, Any]) -> dict[str, Any]:
        """Write the table of problems; combine all parts in order if the output is one table.

        `metadata` are those that are known at the end; beside parts in a folder, they are written to `summary.json`.
        Return them as plain values.
        """
        metadata = plain(metadata)
        self._labels = replace(self._labels, metadata=self._labels.metadata | metadata)
        if self.is_table:
            self.problems = self.out.with_name(f"{self.out.stem}.problems.csv")
        write_problems(listed, self.problems)
        if not self.is_table:
            write_json(self._summary, metadata | {"sha256": self._checksum(metadata)})
            shutil.rmtree(self._locks, ignore_errors=True)
            for path in self.folder.rglob(".*.parquet"):  # set aside, or left by killed processes
                path.unlink(missing_ok=True)
            return metadata
        if self.hats is not None:
            write_hats(list(map(self._path, self.parts)), self.out, self._schema, self.hats)
        elif self.out.suffix.lower() == ".parquet":
            with written_whole(self.out) as partial, pq.ParquetWriter(partial, self._schema) as writer:
                for part in self.parts:
                    writer.write_table(self._stored(part).cast(self._schema))
        else:
            write_table(self._labels, self.out, (pl.DataFrame(self._stored(part)) for part in self.parts))
        gone = partial_path(self.folder)
        self.folder.rename(gone)
        shutil.rmtree(gone)
        return metadata
