"""Sources of images to label: folders, lists, tables with paths, tar files and Parquet tables, split into parts.

A part (a partition, a tar file, or some thousand rows) is labelled and written as a whole. It is read in batches, so
that memory does not grow with the number of its images.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from truemorph.catalogs.catalogue import IMAGE_ENDINGS, image_folder, object_ids, read_catalogue
from truemorph.catalogs.columns import OBSERVED_LABEL
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, nearest, reason
from truemorph.images.decode import ahead
from truemorph.images.inputs import pixels_or_reason
from truemorph.io import content_hash, shown_path
from truemorph.tables import arrow_texts, frame_hash, read_table

NO_IMAGE, NO_FEATURE = "no image", "a feature is missing"
PART_ROWS = 16_384
# Usual names of id columns, in order of preference.
ID_COLUMNS = ("object_id", "id_str", "dr7objid", "dr8objid", "objid", "GalaxyID", "iauname", "source_id", "id")
PATH_COLUMNS = ("image", "file_loc", "image_path", "path", "file", "filename")
_IMAGE = "image file"
_BLOCK = 1 << 20
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_BUFFER = 1 << 20

# A path, the content of a file, or no image.
Image = Path | bytes | None


@dataclass(frozen=True)
class Rows:
    """A batch of rows of a source: `object_id` and other columns, and an image per row (None if there is none)."""

    frame: pl.DataFrame
    images: list[Image]


def decoded(config: TrainingConfig, batches: Iterator[Rows]) -> Iterator[tuple[Rows, list[np.ndarray | str]]]:
    """Decode images for a model, in threads, while the caller works on the previous batch.

    Yields the rows, and a uint8 array (S, S, 3) per readable image, else the problem as a string.
    """

    def one(image: Image) -> np.ndarray | str:
        return NO_IMAGE if image is None else pixels_or_reason(image, config.image_size, config.crop, config)

    return ahead(one, ((rows, rows.images) for rows in batches))


@dataclass(frozen=True)
class TablePart:
    """Rows of a table in memory; paths in `column` are text, or bytes if they may not be UTF-8."""

    name: str
    frame: pl.DataFrame
    root: Path | None
    column: str | None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.frame.height

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield the rows in order, `size` at a time."""
        for frame in self.frame.iter_slices(size):
            images: list[Image] = [None] * frame.height
            if self.root is not None and self.column is not None:
                images = [None if name is None else self.root / os.fsdecode(name) for name in frame[self.column]]
            yield Rows(frame, images)


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


@dataclass(frozen=True)
class TarPart:
    """A tar file, compressed or not, read sequentially."""

    name: str
    path: Path
    rows: None = None

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield the images in order, `size` at a time."""
        keys: list[str] = []
        images: list[Image] = []
        try:
            with tarfile.open(self.path, "r|*", tarinfo=_StrictMember) as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # it would remember them all
                    hidden = os.path.basename(member.name).startswith(".")  # macOS adds one for each file
                    if hidden or member.isdir() or not member.name.lower().endswith(IMAGE_ENDINGS):
                        continue
                    opened = tar.extractfile(member) if member.isfile() else None  # no links
                    keys.append(shown_path(_without(member.name, IMAGE_ENDINGS)))
                    images.append(None if opened is None else opened.read())
                    if len(keys) == size:
                        yield Rows(pl.DataFrame({"object_id": keys}), images)
                        keys, images = [], []
                rest: Any = tar.fileobj
                while block := rest.read(_BLOCK):
                    if block.strip(b"\0"):
                        raise tarfile.ReadError("data after the end marker; are these two files joined into one?")
        except (tarfile.TarError, OSError, EOFError) as problem:
            raise InputError(f"{self.path}: not a readable tar file ({reason(problem)}); replace it") from problem
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
        """Yield the rows in order, `size` at a time."""
        columns = list(dict.fromkeys([self.id_column, *self.keep]))
        try:
            # Without these settings pyarrow would hold the whole file in memory.
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER) as file:
                for batch in file.iter_batches(size, columns=list(dict.fromkeys([*columns, self.image_column]))):
                    yield self._rows(batch, columns)
        except (OSError, pa.ArrowException) as problem:
            raise InputError(f"{self.path}: not a readable Parquet file ({reason(problem)}); replace it") from problem

    def _rows(self, batch: pa.RecordBatch, columns: list[str]) -> Rows:
        values = batch.column(self.image_column)
        if pa.types.is_struct(values.type):
            values = values.field("bytes")
        frame = pl.DataFrame(pa.Table.from_batches([batch.select(columns)])).rename({self.id_column: "object_id"})
        ids = frame["object_id"]
        if ids.null_count() or not (ids.dtype.is_integer() or ids.dtype == pl.String):  # floats may have lost digits
            raise InputError(
                f"{self.path}: column {self.id_column} ({ids.dtype}) can't be an id; give every row an integer or text"
            )
        return Rows(frame, values.to_pylist())


def _without(name: str, endings: Sequence[str]) -> str:
    """Remove the first of these endings that a name has."""
    ending = next((one for one in endings if name.lower().endswith(one)), "")
    return name[: len(name) - len(ending)]


# A part is labelled and written as a whole. `name` is its path below a results folder, without extension; `rows` is
# None if the number is not known before reading; `batches(size)` yields `Rows` in order.
Part = TablePart | TarPart | ParquetPart


@dataclass(frozen=True)
class Source:
    """Everything to be labelled.

    `fingerprint` changes when the rows change. `prepared` is whether it is a prepared catalogue, with observed labels,
    α and `metadata`. Units and descriptions are those of a table's columns; those of its ids are under `object_id`.
    """

    parts: Sequence[Part]
    fingerprint: str
    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    prepared: bool = False
    units: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)


def open_source(
    path: str | os.PathLike[str],
    *,
    id_column: str | None = None,
    image_column: str | None = None,
    images: str | os.PathLike[str] | None = None,
    keep: Sequence[str] = (),
    but: Collection[Path] = (),
) -> Source:
    """Open a source of galaxies to label.

    It is a folder of images (with subfolders); a `.txt` list of files; a prepared catalogue; any other table with a
    column of paths; tar files (WebDataset), one or a folder; or Parquet with the content of image files, one file or
    a folder of partitions (HATS). For columns that are not given, usual names are tried. `images` is the folder of
    relative paths in a list or table, by default its own folder; `keep` are columns of a table to copy to the labels;
    `but` are result files in the folder, which are ignored.
    """
    path, keep = Path(path), tuple(keep)
    if path.is_dir():
        kind, files = _content(path, {one.resolve() for one in but})
    elif path.is_file():
        kind, files = _kind(path.name), [path.name]
        if kind == "images" or (kind == "Parquet files" and _image_column(path, image_column) is None):
            kind = ""  # a table; no single image has this extension
    else:
        raise InputError(f"{path}: no such file or folder")
    if keep and (kind in ("images", "tar files") or path.suffix.lower() == ".txt"):
        raise InputError(f"{path}: this source has no columns to copy; give a table of images")
    root = path if path.is_dir() else path.parent
    if kind == "tar files":
        tars: list[Part] = [TarPart(_without(name, _TAR_ENDINGS), root / name) for name in files]
        return Source(tars, content_hash(_marks(root, files)), path, {"source": str(path)})
    if kind == "Parquet files":
        return _partitions(path, root, files, id_column, image_column, keep)
    if kind == "images":
        return _files(path, path, files)
    if path.suffix.lower() == ".txt":
        names = [line for line in os.fsdecode(path.read_bytes()).splitlines() if line.strip()]
        if not names:
            raise InputError(f"{path}: the list is empty")
        return _files(path, Path(images or root), names)
    return _table(path, id_column, image_column, None if images is None else Path(images), keep)


def _kind(name: str) -> str:
    """Return the kind of a file from its extension; empty for others."""
    kinds = ((IMAGE_ENDINGS, "images"), (_TAR_ENDINGS, "tar files"), ((".parquet",), "Parquet files"))
    return next((kind for endings, kind in kinds if name.lower().endswith(endings)), "")


def _content(path: Path, but: set[Path]) -> tuple[str, list[str]]:
    """Return the kind of files in a folder (there must be only one) and their relative paths."""
    kinds: dict[str, list[str]] = {}
    for place, folders, names in os.walk(path):
        here = Path(place).resolve()
        folders[:] = sorted(name for name in folders if name[0] != "." and here / name not in but)
        for name in sorted(names):
            kind = _kind(name)
            if kind and not name.startswith((".", "_")) and here / name not in but:  # such as _metadata
                kinds.setdefault(kind, []).append(os.path.relpath(os.path.join(place, name), path))
    pixels = [name for name in kinds.get("Parquet files", ()) if "Norder=" in name and "Npix=" in name]
    if pixels:  # HATS: other files there describe the partitions
        kinds = {"Parquet files": pixels}
    if not kinds:
        raise InputError(f"{path}: no images ({', '.join(IMAGE_ENDINGS)}), tar or Parquet files in this folder")
    if len(kinds) > 1:
        held = " and ".join(sorted(kinds, key=str.lower))
        raise InputError(f"{path}: holds {held}; give a folder with one kind of files, or a list of files")
    return next(iter(kinds.items()))


def _marks(root: Path, names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of files, to detect changes."""
    found = [(root / name, (root / name).stat()) for name in names]
    return [(file.name, status.st_size, status.st_mtime_ns) for file, status in found]


def _cut(frame: pl.DataFrame, root: Path, column: str | None) -> list[Part]:
    """Cut a table into parts."""
    return [TablePart(f"part-{k:05d}", part, root, column) for k, part in enumerate(frame.iter_slices(PART_ROWS))]


def _files(path: Path, root: Path, names: list[str]) -> Source:
    """Make a source of image files; ids are their names, or their paths if names are not unique.

    Names need not be UTF-8: invalid bytes are escaped in ids; paths are kept as bytes.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    stems = [_without(os.path.basename(name), IMAGE_ENDINGS) for name in names]
    ids = [shown_path(one) for one in (stems if len(set(stems)) == len(stems) else names)]
    frame = pl.DataFrame({"object_id": ids, "image": [os.fsencode(name) for name in names]})
    repeated = frame["object_id"].filter(frame["object_id"].is_duplicated())
    if len(repeated):
        raise InputError(f"{path}: {repeated[0]} is listed twice; list each image once")
    mark = content_hash([names, str(root.resolve())])
    return Source(_cut(frame, root, "image"), mark, path, {"source": str(path)})


def _table(
    path: Path, id_column: str | None, image_column: str | None, images: Path | None, keep: tuple[str, ...]
) -> Source:
    """Make a source of a prepared catalogue, or of another table with a column of paths."""
    table = read_table(path)
    names = table.frame.columns
    _check_kept(keep, names, path)
    prepared = {"object_id", "label", "alpha", "split"} <= set(names) or not set(OBSERVED_LABEL).isdisjoint(names)
    prepared = prepared and id_column is None and image_column is None
    if prepared:
        table = read_catalogue(path, labelled=False)
        root = image_folder(table) if images is None else images
        frame, described, metadata = table.frame, table.descriptions, table.metadata
        column = "image" if "image" in frame.columns else None
    else:
        found = _chosen(image_column, PATH_COLUMNS, names, path, "`image_column`")
        if found is None:
            raise InputError(
                f"{path}: neither a prepared catalogue nor a table with a usual column of image files "
                f"({', '.join(PATH_COLUMNS)}); name yours with `image_column`"
            )
        ids = _chosen(id_column, ID_COLUMNS, names, path, "`id`") or found
        own = object_ids(table.frame[ids], str(path))
        frame = table.frame.select(own, pl.col(found).cast(pl.String).alias(_IMAGE), *keep)
        root, column, metadata = images or path.parent, _IMAGE, {"source": str(path)}
        described = _ids_described(table.descriptions, ids)
    mark = content_hash([frame_hash(frame), str(root.resolve())])
    return Source(_cut(frame, root, column), mark, path, metadata, prepared, table.units, described)


def _ids_described(descriptions: Mapping[str, str], ids: str) -> dict[str, str]:
    """Return a table's descriptions with its id column renamed to `object_id`."""
    others = {name: text for name, text in descriptions.items() if name != "object_id"}
    return others | ({"object_id": descriptions[ids]} if ids in descriptions else {})


def _check_kept(keep: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Check that the columns to copy exist."""
    for name in keep:
        if name not in names:
            raise InputError(f"{path}: no column {name!r} to copy; {nearest(name, names)}")


def _chosen(given: str | None, usual: Sequence[str], names: Sequence[str], path: Path, option: str) -> str | None:
    """Return the column that was given, or the first with a usual name."""
    if given is not None and given not in names:
        raise InputError(f"{path}: no column {given!r} ({option}); {nearest(given, names)}")
    return given or next((name for name in usual if name in names), None)


def _image_column(path: Path, chosen: str | None) -> str | None:
    """Find the column of image contents: bytes, or a struct with `bytes` (Hugging Face datasets)."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as problem:
        raise InputError(f"{path}: can't be read as Parquet: {problem}") from problem

    def holds_bytes(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(k).name == "bytes" for k in range(kind.num_fields))
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)

    found = [one.name for one in schema if holds_bytes(one.type)]
    if chosen is not None:
        return chosen if chosen in found else None
    return next((name for name in PATH_COLUMNS if name in found), found[0] if len(found) == 1 else None)


def _partitions(
    path: Path, root: Path, files: list[str], id_column: str | None, image_column: str | None, keep: tuple[str, ...]
) -> Source:
    """Make a source of Parquet files with the content of images; units and descriptions are those of the first."""
    parts: list[Part] = []
    described: tuple[dict[str, str], dict[str, str]] | None = None
    for name in files:
        file = root / name
        images, schema = _image_column(file, image_column), pq.read_schema(file)
        names = schema.names
        if images is None:
            raise InputError(
                f"{file}: no column with the content of image files; name it with `image_column` "
                f"(columns are: {', '.join(names[:12])})"
            )
        ids = _chosen(id_column, ID_COLUMNS, names, file, "`id`")
        if ids is None:
            raise InputError(f"{file}: no id column ({', '.join(ID_COLUMNS)}); name yours with `id`")
        _check_kept(keep, [one for one in names if one != images], file)
        if ids in keep:
            raise InputError(f"{file}: {ids!r} is already copied as object_id; remove it from the columns to copy")
        rows = pq.read_metadata(file).num_rows
        if rows:
            parts.append(ParquetPart(name.removesuffix(".parquet"), file, rows, ids, images, keep))
            units, descriptions = arrow_texts(schema)
            described = described or (units, _ids_described(descriptions, ids))
    if described is None:
        raise InputError(f"{path}: the tables have no rows")
    mark = content_hash([_marks(root, files), id_column, image_column])
    return Source(parts, mark, path, {"source": str(path)}, False, *described)
