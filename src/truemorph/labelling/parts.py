"""Parts of a source of galaxies: rows and their images in batches, from tables, survey tiles, tar and Parquet files."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq

from truemorph.catalogs.catalogue import IMAGE_ENDINGS
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, reason
from truemorph.images.decode import MAXIMUM_PIXELS, ahead, fits_picture, pixels_or_reason
from truemorph.images.tiles import OUTSIDE, UNUSABLE, Cut, Tiles
from truemorph.io import content_hash, file_hash, shown_path
from truemorph.labelling.hats import NO_POSITION
from truemorph.tables import frame_hash

NO_IMAGE, NO_FEATURE, TOO_LARGE = "no image", "a feature is missing", "the file is too large for an image"
# Reasons that reading the input again would not change.
NO_INPUT = (NO_IMAGE, NO_FEATURE, NO_POSITION, *UNUSABLE)
IMAGE_COLUMN = "image file"
_BLOCK = 1 << 20
# Of an image in a tar file, and of a batch of them, because a small compressed file may hold any number of bytes.
MOST_BYTES = 4 * MAXIMUM_PIXELS


class DamagedFile(InputError):
    """A tar or Parquet file that can't be read to its end."""


# A path, the content of a file, a function that cuts it out of a tile, why it was not read, or no image.
Image = Path | bytes | Cut | str | None


@dataclass(frozen=True)
class Rows:
    """A batch of rows of a source: `object_id` and other columns, and an image per row (None if there is none)."""

    frame: pl.DataFrame
    images: list[Image]


class Galaxies(NamedTuple):
    """A batch of galaxies for a model."""

    rows: pl.DataFrame  # of the N galaxies with an input: `object_id` and other columns
    inputs: np.ndarray  # pixels, uint8 (N, S, S, 3); or features (N, P)
    problems: Sequence[tuple[Any, str]] = ()  # ids of the others, such as those without a readable image, and reasons


def decoded(config: TrainingConfig, batches: Iterator[Rows]) -> Iterator[Galaxies]:
    """Decode images in threads, a batch ahead."""

    def pixels(image: Image) -> np.ndarray | str:
        picture = NO_IMAGE if image is None else image() if callable(image) else image
        if isinstance(picture, str):
            return picture
        return pixels_or_reason(fits_picture(picture, config) if isinstance(picture, np.ndarray) else picture, config)

    for rows, images in ahead(pixels, ((rows, rows.images) for rows in batches)):
        is_good = np.array([not isinstance(image, str) for image in images], bool)
        good = [image for image in images if not isinstance(image, str)]
        stacked = np.array(good, np.uint8).reshape(-1, config.image_size, config.image_size, 3)
        ids = zip(rows.frame["object_id"], images, strict=True)
        problems = [(galaxy, why) for galaxy, why in ids if isinstance(why, str)]
        yield Galaxies(rows.frame.filter(is_good), stacked, problems)


@dataclass(frozen=True)
class Part:
    """Galaxies that are labelled and written as a whole, read in batches; `name` is the path below a results folder.

    `rows` is None if unknown before reading; `frame` has all rows, if they are in memory. `mark` changes when the
    inputs change, except images under the same name; if it changed, an equal `content`, which is read from all of a
    file, shows that the inputs are the same. Rows in memory have none.
    """

    name: str
    rows: int | None
    batches: Callable[[int], Iterator[Rows]]
    mark: str
    frame: pl.DataFrame | None = None
    content: Callable[[], str | None] = lambda: None


def table_part(name: str, frame: pl.DataFrame, root: Path, column: str | None) -> Part:
    """Make a part of rows in memory; paths in `column` are text, or bytes if they may not be UTF-8."""

    def batches(size: int) -> Iterator[Rows]:
        for rows in frame.iter_slices(size):
            images: list[Image] = [None] * rows.height
            if column is not None:
                images = [None if path is None else root / os.fsdecode(path) for path in rows[column]]
            yield Rows(rows, images)

    mark = frame_hash(frame.with_columns(cs.binary().bin.encode("hex")))
    return Part(name, frame.height, batches, mark, frame)


def tile_parts(frame: pl.DataFrame, tiles: Tiles, ra: np.ndarray, dec: np.ndarray, size: np.ndarray) -> list[Part]:
    """Make a part of the sources in each tile, and one of those outside all tiles; `size` is in arcsec."""
    tile, names = tiles.assign(ra, dec), tiles.names()
    marks = [
        content_hash([tiles.to_dict(), *(mark_of(layer.file) for layer in layers)])[:16] for layers in tiles.layers
    ]
    about = {"tile": pl.Series([*marks, ""])[tile], "ra": ra, "dec": dec, "size": size}  # what an image rests on
    column = pl.DataFrame(about).select(pl.concat_str(pl.all(), separator=" ")).to_series()
    frame = frame.with_columns(column.alias(IMAGE_COLUMN))

    def part(number: int) -> Part:
        rows = np.flatnonzero(tile == number)
        own = frame[rows]

        def batches(size_of_batch: int) -> Iterator[Rows]:
            images: Sequence[Image] = [OUTSIDE] * own.height
            if number >= 0:
                try:
                    images = tiles.cuts(number, ra[rows], dec[rows], size[rows])
                except InputError as problem:
                    images = [str(problem)] * own.height
            for start in range(0, own.height, size_of_batch):
                yield Rows(own.slice(start, size_of_batch), list(images[start : start + size_of_batch]))

        return Part(names[number] if number >= 0 else "outside-tiles", own.height, batches, frame_hash(own), own)

    return [part(int(number)) for number in np.unique(tile)]


class _StrictMember(tarfile.TarInfo):
    """Tar member that raises an error for a damaged header, where tarfile would stop silently."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictMember:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the proper end
            raise
        except tarfile.HeaderError as problem:
            raise tarfile.ReadError(f"damaged or truncated: {problem}") from problem

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > _BLOCK:  # tarfile reads long names and other headers at once
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


def tar_batches(path: Path, size: int) -> Iterator[Rows]:
    """Read the images in a tar file, compressed or not, sequentially; batches of large images have fewer rows."""
    keys: list[str] = []
    images: list[Image] = []
    read = 0
    try:
        opener: Any = gzip.open if path.name.lower().endswith("gz") else open  # checks all of it, unlike tarfile
        with opener(path, "rb") as file, tarfile.open(fileobj=file, mode="r|", tarinfo=_StrictMember) as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would remember them all
                name = os.path.normpath(member.name)
                hidden = os.path.basename(name).startswith(".")  # macOS adds one for each file
                if hidden or member.isdir() or not name.lower().endswith(IMAGE_ENDINGS):
                    continue
                keys.append(shown_path(without_ending(name, IMAGE_ENDINGS)))
                large = member.size > MOST_BYTES
                opened = tar.extractfile(member) if member.isfile() and not large else None  # no links
                images.append(TOO_LARGE if large else None if opened is None else opened.read())
                read += 0 if opened is None else member.size
                if len(keys) == size or read > MOST_BYTES:
                    yield Rows(pl.DataFrame({"object_id": keys}), images)
                    keys, images, read = [], [], 0
            rest: Any = tar.fileobj
            while block := rest.read(_BLOCK):
                if block.strip(b"\0"):
                    raise tarfile.ReadError("data after the end marker; are these two files joined into one?")
    except (tarfile.TarError, OSError, EOFError, ValueError, MemoryError, zlib.error) as problem:
        raise DamagedFile(f"{path}: not a readable tar file ({reason(problem)}); replace it") from problem
    if keys:
        yield Rows(pl.DataFrame({"object_id": keys}), images)


def parquet_batches(
    path: Path, ids: str, image_column: str, keep: Sequence[str], id_type: Any, size: int
) -> Iterator[Rows]:
    """Read a Parquet file with the content of an image file in each row."""
    try:
        # Without these settings pyarrow would hold the whole file in memory.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BLOCK) as file:
            for batch in file.iter_batches(size, columns=list({ids, *keep, image_column})):
                values = batch.column(image_column)
                if pa.types.is_struct(values.type):
                    values = values.field("bytes").cast(pa.large_binary())  # never text, which would be a path here
                frame = pl.DataFrame(pa.Table.from_batches([batch.drop_columns([image_column])]))
                row_ids = frame[ids]
                # Floats may have lost digits.
                if row_ids.null_count() or not (row_ids.dtype.is_integer() or row_ids.dtype == pl.String):
                    raise InputError(
                        f"{path}: column {ids} ({row_ids.dtype}) can't be an id; give every row an integer or text"
                    )
                yield Rows(frame.with_columns(object_id=row_ids.cast(id_type)), values.to_pylist())
    except (OSError, UnicodeDecodeError, pa.ArrowException) as problem:
        raise DamagedFile(f"{path}: not a readable Parquet file ({reason(problem)}); replace it") from problem


def without_ending(name: str, endings: Sequence[str]) -> str:
    """Remove the first of these endings that a name has."""
    ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def mark_of(file: Path, *settings: str | None) -> str:
    """Return a hash of a file's size and time, and of settings of its reader, to detect changes."""
    status = file.stat()
    return content_hash([status.st_size, status.st_mtime_ns, settings])


def file_part(
    name: str, file: Path, rows: int | None, batches: Callable[[int], Iterator[Rows]], *settings: str | None
) -> Part:
    """Make a part of all rows of a file, which are read by `batches`, on which the `settings` have an effect."""

    def content() -> str:
        return content_hash([file_hash(file), settings])

    return Part(name, rows, batches, mark_of(file, *settings), content=content)
