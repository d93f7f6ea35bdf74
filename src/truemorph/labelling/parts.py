"""Parts of what is labelled: rows of a table, a tar file, a Parquet file of images. Each gives its rows batch by batch.

Nothing is held of a part but the batch at hand, so memory does not grow with the number of images in it.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from truemorph.catalogs.catalogue import IMAGE_ENDINGS
from truemorph.errors import InputError, reason
from truemorph.io import shown_path

_BUFFER = 1 << 20

Image = Path | bytes | None


@dataclass(frozen=True)
class Rows:
    """Some rows of a source.

    Attributes
    ----------
    frame : polars.DataFrame
        `object_id`, and what else the source knows of each galaxy.
    images : list
        A path, the content of a file, or None where there is no image; one a row.
    """

    frame: pl.DataFrame
    images: list[Image]


class Part(Protocol):
    """What is labelled and written as a whole."""

    @property
    def name(self) -> str:
        """Its path below a folder of results, without an ending."""
        ...

    @property
    def rows(self) -> int | None:
        """How many rows it has, where that is known before they are read."""
        ...

    def batches(self, size: int) -> Iterator[Rows]:
        """Its rows, in order, so many at a time."""
        ...


@dataclass(frozen=True)
class TablePart:
    """Some rows of a table that is in memory; paths in `column` are text or, where they need not be UTF-8, bytes."""

    name: str
    frame: pl.DataFrame
    root: Path | None
    column: str | None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.frame.height

    def batches(self, size: int) -> Iterator[Rows]:
        """Its rows, in order, so many at a time."""
        for frame in self.frame.iter_slices(size):
            if self.root is None or self.column is None:
                images: list[Image] = [None] * frame.height
            else:
                images = [None if name is None else self.root / os.fsdecode(name) for name in frame[self.column]]
            yield Rows(frame, images)


class _StrictMember(tarfile.TarInfo):
    """A member whose damaged header is an error; tarfile would take it for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictMember:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end, as it should be
            raise
        except tarfile.HeaderError as problem:
            raise tarfile.ReadError(f"damaged or cut off: {problem}") from problem


@dataclass(frozen=True)
class TarPart:
    """A tar file, compressed or not, read from its beginning to its end."""

    name: str
    path: Path
    rows: None = None

    def batches(self, size: int) -> Iterator[Rows]:
        """Its images, in order, so many at a time.

        Raises
        ------
        InputError
            If the file is damaged or cut off.
        """
        keys: list[str] = []
        images: list[Image] = []
        try:
            with tarfile.open(self.path, "r|*", tarinfo=_StrictMember) as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # it would remember them all
                    hidden = os.path.basename(member.name).startswith(".")  # such as macOS makes beside each file
                    if hidden or member.isdir() or not member.name.lower().endswith(IMAGE_ENDINGS):
                        continue
                    opened = tar.extractfile(member) if member.isfile() else None  # no links
                    keys.append(shown_path(stem(member.name)))
                    images.append(None if opened is None else opened.read())
                    if len(keys) == size:
                        yield Rows(pl.DataFrame({"object_id": keys}), images)
                        keys, images = [], []
        except (tarfile.TarError, OSError, EOFError) as problem:
            raise InputError(
                f"{self.path}: not a readable tar file ({reason(problem)}); mend or remove it"
            ) from problem
        if keys:
            yield Rows(pl.DataFrame({"object_id": keys}), images)


@dataclass(frozen=True)
class ParquetPart:
    """A Parquet file with the content of an image file in each row."""

    name: str
    path: Path
    rows: int
    id_column: str
    image_column: str
    keep: tuple[str, ...]

    def batches(self, size: int) -> Iterator[Rows]:
        """Its rows, in order, so many at a time.

        Raises
        ------
        InputError
            If an id is missing.
        """
        columns = list(dict.fromkeys([self.id_column, self.image_column, *self.keep]))
        # Without its own buffers pyarrow would hold the whole file.
        with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER) as file:
            for batch in file.iter_batches(size, columns=columns):
                values = batch.column(self.image_column)
                if pa.types.is_struct(values.type):
                    values = values.field("bytes")
                known = pa.Table.from_batches([batch.select(without(columns, self.image_column))])
                frame = pl.DataFrame(known).rename({self.id_column: "object_id"})
                check_ids(frame["object_id"], self.path, self.id_column)
                yield Rows(frame, values.to_pylist())


def without(names: Iterable[str], name: str) -> list[str]:
    """All names but one."""
    return [one for one in names if one != name]


def check_ids(ids: pl.Series, path: Path, column: str) -> None:
    """Refuse ids that are missing or that may have lost digits."""
    if ids.null_count():
        raise InputError(f"{path}: column {column} has missing ids; give every row one")
    if not (ids.dtype.is_integer() or ids.dtype == pl.String):
        raise InputError(f"{path}: column {column} ({ids.dtype}) can't be an id; use integers or text")


def stem(name: str) -> str:
    """A file's name without the ending of an image."""
    lower = name.lower()
    return name[: -len(next(end for end in IMAGE_ENDINGS if lower.endswith(end)))]
