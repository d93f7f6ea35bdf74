"""Write labels: parts, each written atomically, and one table or HATS catalogue of all parts.

A folder of results holds `run.json` (which identifies the labelling) and a Parquet file per part, whose metadata has
its row counts and the rows that could not be labelled. For one table, the folder is `labels.parquet.<digest>.parts`
until all parts are done. A part in progress is locked, so that several processes can share the work.

When a survey grows, images belong to other parts than before; files of earlier parts are then set aside, and their
labels are taken from there.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import AcquireReturnProxy, FileLock

from truemorph.errors import InputError, reason
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
from truemorph.labelling.parts import NO_INPUT
from truemorph.tables import CatalogTable, table_extension, to_arrow, write_table

# Row counts: `rows_in` = `labelled` + `listed` (as problems). Of the listed rows, `unreadable` have an image that can't
# be read. `repeated` have the id of an earlier row of their part. Of the labelled galaxies, `matched` have an observed
# label, of which `no_posterior` lack a posterior. Others, such as `unlike_training noise high`, count galaxies that are
# unlike those of training.
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


def _counted(batch: Batch) -> Counts:
    rows_in, labels, problems = batch
    counts = Counter(rows_in=rows_in, labelled=labels.height, listed=len(problems))
    counts["unreadable"] = sum(why not in NO_INPUT for _, why in problems)
    for kind, name in (("matched", "observed_label"), ("posterior", "posterior_label")):  # of the first question
        column = next((one for one in labels.columns if one == name or one.startswith(f"{name}_")), None)
        if column is not None:
            counts[kind] = labels[column].count()
    if UNLIKE in labels.columns:
        counts |= Counter(f"{UNLIKE} {one}" for one in labels[UNLIKE].drop_nulls())
    if "posterior" in counts:
        counts["no_posterior"] = counts["matched"] - counts.pop("posterior")
    return counts


class Results:
    """Results of one labelling, shared by all its processes.

    `out` is a table, a folder, or, with `hats` (its columns of positions), a HATS catalogue. `identity` determines the
    labels together with the inputs, of which `parts` has a mark for each part. `labels` is an empty table; `problems`
    the file of rows that could not be labelled, up to now.
    """

    def __init__(
        self,
        out: Path,
        identity: dict[str, Any],
        parts: dict[str, str],
        labels: CatalogTable,
        hats: tuple[str, str] | None = None,
    ) -> None:
        self.out, self.parts, self._labels, self._identity = out, parts, labels, plain(identity)
        self.hats, self.is_table = hats, hats is not None or is_table(out)
        digest = content_hash(identity)[:8]
        self.folder = out.with_name(f"{out.name}.{digest}.parts") if self.is_table else out
        self._run, self._locks = self.folder / "run.json", self.folder / ".locks"
        self.problems = self.folder / "problems.csv"

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

        Parts of other inputs than now, and those of `own` with unreadable images, are set aside to be labelled again.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.alone():
            self._identify()
            findings = self._set_aside(own)
            self.write_problems()
        return findings

    def _identify(self) -> None:
        if not self._run.is_file():
            content = [one for one in self.folder.glob("*") if not one.name.startswith(".")]
            if content and not self.is_table:
                raise InputError(f"{self.folder}: exists but holds no labels; choose another `out`")
            self._locks.mkdir(parents=True, exist_ok=True)
            write_json(self._run, self._identity)
        if changed := changed_values(read_json(self._run), self._identity):
            other = f"holds labels of another run ({changed})"
            raise InputError(f"{self.folder}: {other}; delete this folder, or choose another `out`")

    def _set_aside(self, own: Collection[str]) -> list[Finding]:
        findings = []
        gone = (path.stem for path in self.folder.glob("part-?????.parquet") if path.stem not in self.parts)
        for part in (*self.parts, *gone):
            path = self._path(part)
            if not path.is_file():
                continue
            if problem := self._damage(part):
                path.unlink()
                message = f"Part {part} of an earlier run was damaged ({problem}) and was labelled again."
                findings.append(Finding("part-damaged", "caution", message, "Check the disk of this folder."))
                continue
            marks = self._marks(path)
            if marks is None and part not in self.parts:  # labels of a file that was moved away
                continue
            if not self.is_done(part) or (marks is not None and part in own and self.counts(part)["unreadable"]):
                if marks:
                    path.rename(path.with_name(f"{_EARLIER}.{file_hash(path)[:8]}.{path.name}"))
                else:
                    path.unlink()
        return findings

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

    def _path(self, part: str) -> Path:
        return self.folder / f"{part}.parquet"

    def _record(self, part: str) -> dict[str, Any]:
        """Return counts and problems of a part; nothing if it is not finished, or the folder is gone."""
        try:
            record = json.loads(pq.read_metadata(self._path(part)).metadata[_RECORD])
        except FileNotFoundError:
            return {}
        return record if record["input"] == self.parts.get(part) else {}

    def _marks(self, path: Path) -> list[str] | None:
        """Return the marks of the rows in a part's file; None if its rows were not in memory."""
        return json.loads(pq.read_metadata(path).metadata[_ROWS])

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

    def total(self) -> Counts:
        """Return the row counts of all finished parts."""
        return sum(map(self.counts, self.parts), Counter())

    def listed(self) -> list[tuple[str, str]]:
        """Return the id of each row of the finished parts that could not be labelled, with the reason."""
        return [(one, why) for part in self.parts for one, why in self._record(part).get("problems", ())]

    def write_problems(self) -> None:
        """Write the table of rows that could not be labelled."""
        problems = pl.DataFrame(self.listed(), {"object_id": pl.String, "reason": pl.String}, orient="row")
        write_table(CatalogTable(problems), self.problems)

    @cached_property
    def _earlier(self) -> pl.DataFrame:
        """Labels that were set aside, with the mark of each row."""
        frames = [self._labels.frame.with_columns(pl.lit(None, pl.String).alias(_ROW))]
        for path in sorted(self.folder.glob(f"{_EARLIER}.*.parquet")):
            frames.append(pl.read_parquet(path).with_columns(pl.Series(_ROW, self._marks(path), pl.String)))
        return pl.concat(frames, how="vertical_relaxed").unique(_ROW)

    def earlier(self, marks: Collection[str]) -> pl.DataFrame:
        """Return the labels of rows with these marks, as far as they were set aside."""
        return self._earlier.filter(pl.col(_ROW).is_in(list(marks))).drop(_ROW)

    def claim(self, part: str) -> AcquireReturnProxy | None:
        """Lock a part for a `with` block; return None if another process has locked it or made the table."""
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

    def write(self, part: str, batches: Iterable[Batch], marks: dict[str, str] | None) -> None:
        """Write a part batch by batch; its file appears when all are written and no row is lost.

        `marks` are those of its rows by id, empty if labels need not be used again; None if rows are not in memory.
        """
        path, counts, listed = self._path(part), Counter[str](), list[tuple[str, str]]()
        ids, rows = set[str](), list[str]()
        schema = to_arrow(self._labels).schema
        with (
            written_whole(path, durable=True) as partial,
            pq.ParquetWriter(partial, schema, write_page_checksum=True) as writer,
        ):
            for batch in batches:
                counts += _counted(batch)
                _, labels, problems = batch
                listed += [(str(one), why) for one, why in problems]
                table = labels.select(pl.col(name).cast(kind) for name, kind in self._labels.frame.schema.items())
                writer.write_table(table.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))
                labelled_ids = table["object_id"].cast(pl.String).to_list()
                ids.update(labelled_ids, (str(one) for one, _ in problems))
                rows += [marks[one] for one in labelled_ids] if marks else []
            rows_in, labelled, problem_rows = (counts[name] for name in ("rows_in", "labelled", "listed"))
            counts["repeated"] = rows_in - len(ids)
            if rows_in != labelled + problem_rows:
                raise AssertionError(f"{path}: {rows_in} rows in, {labelled} labelled, {problem_rows} listed")
            record: dict[str, Any] = {"counts": counts, "problems": listed, "input": self.parts[part]}
            stored_marks = None if marks is None else rows
            record["seal"] = content_hash([self._identity, part, record, stored_marks])
            writer.add_key_value_metadata({_RECORD: json.dumps(record), _ROWS: json.dumps(stored_marks)})

    def sampled(self, columns: list[str], most: int) -> np.ndarray:
        """Return columns of numbers of all finished parts, (N, C), at most of so many rows, at equal distances."""
        step, first, found = -(-self.total()["labelled"] // most) or 1, 0, []
        for part in self.parts:
            values = pl.read_parquet(self._path(part), columns=columns).to_numpy()
            found.append(values[-first % step :: step])
            first += len(values)
        return np.concatenate(found)

    def conclude(self, **metadata: Any) -> None:
        """Write the table of problems; combine all parts in order if the output is one table.

        `metadata` are those that are known at the end; beside parts in a folder, they are written to `summary.json`.
        """
        self._labels = replace(self._labels, metadata=self._labels.metadata | plain(metadata))
        if self.is_table:
            self.problems = self.out.with_name(f"{self.out.stem}.problems.csv")
        self.write_problems()
        if not self.is_table:
            write_json(self.folder / "summary.json", metadata)
            shutil.rmtree(self._locks, ignore_errors=True)
            for one in self.folder.rglob(".*.parquet"):  # set aside, or left by killed processes
                one.unlink(missing_ok=True)
            return
        if self.hats is not None:
            write_hats(list(map(self._path, self.parts)), self.out, to_arrow(self._labels).schema, self.hats)
        elif self.out.suffix.lower() == ".parquet":
            schema = to_arrow(self._labels).schema
            with written_whole(self.out) as partial, pq.ParquetWriter(partial, schema) as writer:
                for part in self.parts:
                    with pq.ParquetFile(self._path(part)) as file:  # read_table() would import pandas
                        writer.write_table(file.read().cast(schema))
        else:
            frame = pl.concat([pl.read_parquet(self._path(part)) for part in self.parts])
            write_table(replace(self._labels, frame=frame), self.out)
        gone = partial_path(self.folder)
        self.folder.rename(gone)
        shutil.rmtree(gone)
