"""Sources of images to label, split into parts: folders, lists, tables, tar files, Parquet tables, and survey tiles."""

from __future__ import annotations

import codecs
import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PolarsError

from truemorph.catalogs.catalogue import ID_COLUMNS, IMAGE_ENDINGS, image_folder, object_ids, read_catalogue
from truemorph.catalogs.columns import OBSERVED_LABEL
from truemorph.catalogs.positions import position_columns, positions_of
from truemorph.classifiers.engines import Proof
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, nearest, reason
from truemorph.findings import Finding
from truemorph.images.decode import MAXIMUM_PIXELS, ahead, fits_picture, pixels_or_reason
from truemorph.images.tiles import OUTSIDE, UNUSABLE, Cut, Tiles, cutout_sizes, size_columns
from truemorph.io import content_hash, shown_path
from truemorph.tables import CatalogTable, arrow_texts, check_names, frame_hash, kind_of, read_table

NO_IMAGE, NO_FEATURE, TOO_LARGE = "no image", "a feature is missing", "the file is too large for an image"
# Reasons that reading the input again would not change.
NO_INPUT = (NO_IMAGE, NO_FEATURE, *UNUSABLE)
PART_ROWS = 16_384
PATH_COLUMNS = ("image", "file_loc", "image_path", "path", "file", "filename")
IMAGE_COLUMN = "image file"
HEALPIX = "_healpix_29"  # the spatial index of HATS
_BLOCK = 1 << 20
# Of an image in a tar file, and of a batch of them, because a small compressed file may hold any number of bytes.
MOST_BYTES = 4 * MAXIMUM_PIXELS
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")

# A path, the content of a file, a function that cuts it out of a tile, why it was not read, or no image.
Image = Path | bytes | Cut | str | None


@dataclass(frozen=True)
class Rows:
    """A batch of rows of a source: `object_id` and other columns, and an image per row (None if there is none)."""

    frame: pl.DataFrame
    images: list[Image]


def decoded(
    config: TrainingConfig, batches: Iterator[Rows]
) -> Iterator[tuple[pl.DataFrame, np.ndarray, list[str | None]]]:
    """Decode images in threads, a batch ahead; yield rows, pixels (M, S, S, 3) of readable images, and problems."""

    def pixels(image: Image) -> np.ndarray | str:
        found = NO_IMAGE if image is None else image() if callable(image) else image
        if isinstance(found, str):
            return found
        return pixels_or_reason(fits_picture(found, config) if isinstance(found, np.ndarray) else found, config)

    for rows, images in ahead(pixels, ((rows, rows.images) for rows in batches)):
        good = [image for image in images if not isinstance(image, str)]
        stacked = np.array(good, np.uint8).reshape(-1, config.image_size, config.image_size, 3)
        yield rows.frame, stacked, [image if isinstance(image, str) else None for image in images]


def proof_of(source: Source, config: TrainingConfig) -> Proof:
    """Return the readable images of a prepared catalogue, to test int8."""

    def images(every: int, calibrate: bool, most: int) -> Iterator[tuple[np.ndarray, pl.DataFrame]]:
        if not source.prepared:
            raise InputError(
                f"{source.path}: int8 must keep class fractions at every alpha, but alpha is not known here; give a "
                "prepared catalogue with `gate` (for example of simulated galaxies)"
            )
        wanted = slice(1) if calibrate else slice(1, None)
        batches = (rows for part in source.parts for rows in part.batches(every))
        for frame, pixels, problems in decoded(
            config, (Rows(one.frame[wanted], one.images[wanted]) for one in batches)
        ):
            readable = frame.filter(pl.Series(problems, dtype=pl.String).is_null())[:most]
            most -= readable.height
            if readable.height:
                yield pixels[: readable.height], readable
            if most == 0:
                return

    return Proof(str(source.path), images)


@dataclass(frozen=True)
class Part:
    """Galaxies that are labelled and written as a whole, read in batches; `name` is the path below a results folder.

    `rows` is None if unknown before reading; `frame` has all rows, if they are in memory. `mark` changes when the
    inputs change, except images under the same name.
    """

    name: str
    rows: int | None
    batches: Callable[[int], Iterator[Rows]]
    mark: str
    frame: pl.DataFrame | None = None


def table_part(name: str, frame: pl.DataFrame, root: Path | None, column: str | None) -> Part:
    """Make a part of rows in memory; paths in `column` are text, or bytes if they may not be UTF-8."""

    def batches(size: int) -> Iterator[Rows]:
        for some in frame.iter_slices(size):
            images: list[Image] = [None] * some.height
            if root is not None and column is not None:
                images = [None if path is None else root / os.fsdecode(path) for path in some[column]]
            yield Rows(some, images)

    mark = frame_hash(frame.with_columns(cs.binary().bin.encode("hex")))
    return Part(name, frame.height, batches, mark, frame)


def tile_parts(frame: pl.DataFrame, tiles: Tiles, ra: np.ndarray, dec: np.ndarray, size: np.ndarray) -> list[Part]:
    """Make a part of the sources in each tile, and one of those outside all tiles; `size` is in arcsec."""
    tile, names = tiles.assign(ra, dec), tiles.names()
    marks = [content_hash([tiles.to_dict(), *map(_mark, files)])[:16] for files in tiles.files()]
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
                keys.append(shown_path(_without(name, IMAGE_ENDINGS)))
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
        raise InputError(f"{path}: not a readable tar file ({reason(problem)}); replace it") from problem
    if keys:
        yield Rows(pl.DataFrame({"object_id": keys}), images)


def _parquet_batches(
    path: Path, ids: str, image_column: str, keep: tuple[str, ...], id_type: Any, size: int
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
    except (OSError, pa.ArrowException) as problem:
        raise InputError(f"{path}: not a readable Parquet file ({reason(problem)}); replace it") from problem


def _without(name: str, endings: Sequence[str]) -> str:
    """Remove the first of these endings that a name has."""
    ending = next((one for one in endings if name.lower().endswith(one)), "")
    return name[: len(name) - len(ending)]


def base_names(ids: pl.Series) -> pl.Series:
    """Return ids as text, without folders and the extension of an image."""
    endings = "|".join(map(re.escape, IMAGE_ENDINGS))
    return ids.cast(pl.String).str.replace("^.*/", "").str.replace(f"(?i)({endings})$", "")


@dataclass(frozen=True)
class Source:
    """Everything to be labelled, below the folder `root`; `prepared` if it is a catalogue with labels and α.

    Units and descriptions are those of a table's columns; those of its ids are under `object_id`.
    """

    parts: Sequence[Part]
    root: Path
    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    prepared: bool = False
    units: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    keep: tuple[str, ...] = ()  # columns to copy to the labels


def open_source(
    source: Any,
    *,
    id_column: str | None = None,
    image_column: str | None = None,
    images: str | os.PathLike[str] | None = None,
    keep: Sequence[str] = (),
    but: Collection[Path] = (),
    tiles: Tiles | None = None,
    size: str = "",
    positions: bool = False,
) -> Source:
    """Open a source of galaxies to label: one of those of docs/labelling.md, or a table in memory.

    For columns that are not given, usual names are tried. `images` is the folder of relative paths in a list or table,
    by default its own; `keep` are columns of a table to copy to the labels, and `positions` those of positions; `but`
    are result files, which are ignored. Images are cut out of `tiles`, if there are any, with `size` (`cutout_sizes`).
    """
    keep, folder = tuple(keep), None if images is None else Path(images)
    if not isinstance(source, str | os.PathLike):
        return _table(source, Path(kind_of(source)), id_column, image_column, folder, keep, tiles, size, positions)
    path = Path(source)
    root = _primary(path) if path.is_dir() else path.parent
    if path.is_dir():
        kind, files = _content(root, {one.resolve() for one in but})
    elif path.is_file():
        kind, files = _kind(path.name), [path.name]
        parquet = kind == "Parquet files"
        if kind == "images" or (parquet and (tiles is not None or not _image_column(_schema(path), image_column))):
            kind = ""  # a table; no single image has this extension
    else:
        raise InputError(f"{path}: no such file or folder")
    if (keep or tiles or positions) and (kind in ("images", "tar files") or path.suffix.lower() == ".txt"):
        raise InputError(f"{path}: this source has no columns to copy, or positions; give a table")
    if tiles is not None and kind:
        table = _gathered([root / name for name in files], id_column, [*keep, *size_columns(size)])
        return _table(table, path, id_column, None, None, keep, tiles, size, positions)
    if kind == "tar files":
        tars = [
            Part(_without(name, _TAR_ENDINGS), None, partial(tar_batches, root / name), _mark(root / name))
            for name in files
        ]
        return Source(tars, root, path)
    if kind == "Parquet files":
        return _partitions(path, root, files, id_column, image_column, keep, positions)
    if kind == "images":
        return _files(path, path, files)
    if path.suffix.lower() == ".txt":
        text = os.fsdecode(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        names = [line for line in text.splitlines() if line.strip()]
        if not names:
            raise InputError(f"{path}: the list is empty")
        return _files(path, Path(images or root), names)
    return _table(path, path, id_column, image_column, folder, keep, tiles, size, positions)


def _primary(path: Path) -> Path:
    """Return the primary table of a collection of LSDB, whose other tables, such as margins, repeat its rows."""
    collection = path / "collection.properties"
    if not collection.is_file():
        return path
    lines = (line.partition("=") for line in collection.read_text().splitlines())
    primary = path / next((value.strip() for key, _, value in lines if key.strip() == "hats_primary_table_url"), "?")
    if not primary.is_dir():
        raise InputError(f"{collection}: names no primary table that is there; give the folder of the catalogue itself")
    return primary


def _gathered(files: list[Path], id_column: str | None, columns: Sequence[str]) -> CatalogTable:
    """Read ids, positions and other columns of Parquet files, such as partitions of HATS."""
    schema = _schema(files[0])
    names, (units, descriptions) = schema.names, arrow_texts(schema)
    ids = id_column or _usual(ID_COLUMNS, names) or "id"
    wanted = [*columns, *position_columns(names, str(files[0])), ids]
    _check_columns(wanted, names, files[0])
    own = [name for name in names if name in {*wanted, HEALPIX}]
    try:
        frame = pl.scan_parquet(files, hive_partitioning=False).select(own).collect()
    except (OSError, PolarsError) as problem:
        raise InputError(f"{files[0].parent}: can't be read as Parquet ({reason(problem)}); replace it") from problem
    return CatalogTable(frame, units, descriptions=descriptions)


def _with_positions(keep: tuple[str, ...], names: Sequence[str], path: Path) -> tuple[str, ...]:
    """Return columns to copy with those of positions, which HATS needs."""
    own = [*position_columns(names, str(path)), *([HEALPIX] if HEALPIX in names else [])]
    return tuple(dict.fromkeys([*keep, *own]))


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


def _mark(file: Path, *columns: str | None) -> str:
    """Return a hash of a file's size and time, and of the columns to read, to detect changes."""
    status = file.stat()
    return content_hash([status.st_size, status.st_mtime_ns, columns])


def _cut(frame: pl.DataFrame, root: Path, column: str | None) -> list[Part]:
    return [table_part(f"part-{k:05d}", part, root, column) for k, part in enumerate(frame.iter_slices(PART_ROWS))]


def _files(path: Path, root: Path, names: list[str]) -> Source:
    """Make a source of image files; ids are their base names, or the paths of those that share one.

    Names need not be UTF-8: invalid bytes are escaped in ids; paths are kept as bytes.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    shown = pl.Series([shown_path(os.path.normpath(name)) for name in names])
    ids = base_names(shown)
    ids = ids.zip_with(~ids.is_duplicated(), shown)
    frame = pl.DataFrame({"object_id": ids, "image": [os.fsencode(name) for name in names]})
    repeated = frame["object_id"].filter(frame["object_id"].is_duplicated())
    if len(repeated):
        raise InputError(f"{path}: {repeated[0]} is listed twice; list each image once")
    return Source(_cut(frame, root, "image"), root, path)


def _table(
    given: Any,
    path: Path,
    id_column: str | None,
    image_column: str | None,
    images: Path | None,
    keep: tuple[str, ...],
    tiles: Tiles | None,
    size: str,
    positions: bool,
) -> Source:
    """Make a source of a catalogue, or of another table with paths or positions; `path` is its name in messages."""
    table = read_table(given)
    names = table.frame.columns
    keep = _with_positions(keep, names, path) if positions else keep
    _check_columns([*keep, id_column, image_column], names, path)
    prepared = {"label", "alpha"} <= set(names) or not set(OBSERVED_LABEL).isdisjoint(names)
    if "split" not in names and _usual(PATH_COLUMNS, names) not in (None, "image"):
        prepared = False  # a table of images, not made by `prepare`
    prepared = prepared and id_column is None and image_column is None
    if prepared:
        table = read_catalogue(table, labelled=False)
        root = image_folder(table) if images is None else images
        frame, column = table.frame, "image" if "image" in names else None
    elif tiles is not None:
        ids = id_column or _usual(ID_COLUMNS, names) or ""
        _check_columns([ids], names, path)
        frame = table.frame.select(object_ids(table.frame[ids], str(path)), *keep)
        table = replace(table, descriptions=_with_ids(table.descriptions, ids), metadata={})
    else:
        paths = image_column or _usual(PATH_COLUMNS, names)
        if paths is None:
            raise InputError(
                f"{path}: neither a prepared catalogue nor a table with a usual column of image files "
                f"({', '.join(PATH_COLUMNS)}); name yours with `image_column`"
            )
        ids = id_column or _usual(ID_COLUMNS, names) or paths
        if (kind := table.frame.schema[paths]) not in (pl.String, pl.Null):
            raise InputError(f"{path}: column {paths} holds {kind}, not paths; name that of images (`image_column`)")
        frame = table.frame.select(object_ids(table.frame[ids], str(path)), pl.col(paths).alias(IMAGE_COLUMN), *keep)
        root, column = images or path.parent, IMAGE_COLUMN
        table = replace(table, descriptions=_with_ids(table.descriptions, ids), metadata={})
    if tiles is not None:
        root, own = path.parent, table.frame
        parts = tile_parts(frame, tiles, *positions_of(own, str(path)), cutout_sizes(size, own, str(path)))
    else:
        parts = _cut(frame, root, column)
    about = table.metadata, prepared, table.units, table.descriptions, table.findings
    return Source(parts, root, path, *about, keep)


def _with_ids(descriptions: dict[str, str], ids: str) -> dict[str, str]:
    """Return descriptions with that of the id column under `object_id`."""
    return descriptions | ({"object_id": descriptions[ids]} if ids in descriptions else {})


def _check_columns(wanted: Sequence[str | None], names: Sequence[str], path: Path) -> None:
    for name in wanted:
        if name is not None and name not in names:
            raise InputError(f"{path}: no column {name!r}; {nearest(name, names)}")


def _usual(usual: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in usual if name in names), None)


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as problem:
        raise InputError(f"{path}: can't be read as Parquet: {problem}") from problem


def _image_column(schema: pa.Schema, chosen: str | None) -> str | None:
    """Find the column of image contents: bytes, or a struct with `bytes` (Hugging Face datasets)."""

    def holds_bytes(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(k).name == "bytes" for k in range(kind.num_fields))
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)

    of_bytes = [one.name for one in schema if holds_bytes(one.type)]
    if chosen is not None:
        return chosen if chosen in of_bytes else None
    return _usual(PATH_COLUMNS, of_bytes)


def _partitions(
    path: Path,
    root: Path,
    files: list[str],
    id_column: str | None,
    image_column: str | None,
    keep: tuple[str, ...],
    positions: bool,
) -> Source:
    """Make a source of Parquet files with the content of images; units and descriptions are those of the first.

    Ids are text if the files have them in several types: as integers, 007 and 7 would be one galaxy.
    """
    readers: list[tuple[str, int, Callable[..., Iterator[Rows]], str]] = []
    types: list[list[Any]] = []
    described: tuple[dict[str, str], dict[str, str]] | None = None
    keep = _with_positions(keep, _schema(root / files[0]).names, path) if positions else keep
    for name in files:
        file = root / name
        schema = _schema(file)
        images, names = _image_column(schema, image_column), schema.names
        if images is None:
            raise InputError(f"{file}: no column with the content of image files; name it with `image_column`")
        _check_columns([id_column, *keep], [one for one in names if one != images], file)
        ids = id_column or _usual(ID_COLUMNS, names)
        if ids is None:
            raise InputError(f"{file}: no id column ({', '.join(ID_COLUMNS)}); name yours with `id`")
        rows = pq.read_metadata(file).num_rows
        if rows:
            check_names([ids, *keep], str(file))
            types.append(pl.DataFrame(schema.empty_table().select([ids, *keep])).dtypes)
            if types[-1][1:] != types[0][1:]:
                raise InputError(f"{file}: {', '.join(keep)} have other types than in {readers[0][0]}; write one type")
            read = partial(_parquet_batches, file, ids, images, keep)
            readers.append((name.removesuffix(".parquet"), rows, read, _mark(file, ids, images)))
            units, descriptions = arrow_texts(schema)
            described = described or (units, _with_ids(descriptions, ids))
    if described is None:
        raise InputError(f"{path}: the tables have no rows")
    id_type = types[0][0] if len({kind for kind, *_ in types}) == 1 else pl.String
    kind = str(id_type)
    parts = [Part(name, rows, partial(read, id_type), content_hash([mark, kind])) for name, rows, read, mark in readers]
    return Source(parts, root, path, {}, False, *described, keep=keep)
