"""Sources of galaxies to label: folders, lists, tables, tar files, Parquet tables, and positions in survey tiles."""

import codecs
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PolarsError

from truemorph.catalogs.catalogue import ID_COLUMNS, IMAGE_ENDINGS, image_folder, object_ids, read_catalogue
from truemorph.catalogs.columns import OBSERVED_LABEL
from truemorph.catalogs.positions import position_columns, positions_of
from truemorph.classifiers.engines import GATE_IMAGES, Proof
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, nearest, reason
from truemorph.images.tiles import cutout_sizes, cutout_width
from truemorph.io import shown_path
from truemorph.labelling.hats import PARTITION, check_partitions, properties_of
from truemorph.labelling.parts import (
    IMAGE_COLUMN,
    Part,
    Rows,
    decoded,
    file_part,
    parquet_batches,
    table_part,
    tar_batches,
    tile_parts,
    without_ending,
)
from truemorph.tables import CatalogTable, arrow_texts, check_names, first_column, name_of, read_table

PART_ROWS = 16_384
# To test int8: one image in so many is used to calibrate, until there are enough; the others are used to compare.
_EVERY, _CALIBRATION_IMAGES = 20, 512
PATH_COLUMNS = ("image", "file_loc", "image_path", "path", "file", "filename")
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_NO_ROWS = CatalogTable(pl.DataFrame(schema={"object_id": pl.String}))


@dataclass(frozen=True)
class Source:
    """Everything to be labelled, below the folder `root`; `prepared` if it is a catalogue with labels and α.

    `table` has the rows that are in memory, and types, units and descriptions of the columns to copy.
    """

    parts: Sequence[Part]
    root: Path
    path: Path
    table: CatalogTable = _NO_ROWS
    prepared: bool = False
    keep: Sequence[str] = ()  # columns to copy to the labels


@dataclass(frozen=True)
class SourceOptions:
    """Columns and images of a source; for columns that are not given, usual names are tried."""

    id_column: str | None = None
    image_column: str | None = None
    images: Path | None = None  # folder of relative paths in a list or table, by default its own
    keep: Sequence[str] = ()  # columns of a table to copy to the labels
    tiles: Any = None  # `Tiles` from which images are cut out
    size: str = ""  # of cut-outs (`cutout_sizes`)
    hats: bool = False  # whether columns of positions are copied too, which HATS needs

    def copied(self, names: Sequence[str], path: Path) -> Sequence[str]:
        """Return the columns to copy, with those of positions for HATS."""
        if not self.hats:
            return self.keep
        return list(dict.fromkeys([*self.keep, *position_columns(names, str(path))]))


def open_source(source: Any, options: SourceOptions | None = None, but: Collection[Path] = ()) -> Source:
    """Open a source of galaxies to label: one of those of docs/labelling.md, or a table in memory.

    `but` are result files, which are ignored.
    """
    options = options or SourceOptions()
    tiles, has_columns = options.tiles, options.keep or options.tiles or options.hats
    if not isinstance(source, str | os.PathLike):
        return _table(source, Path(name_of(source)), options)
    path = Path(source)
    root = _primary(path) if path.is_dir() else path.parent
    if path.is_dir():
        kind, files = _content(root, {path.resolve() for path in but})
    elif path.is_file():
        kind, files = _kind(path.name), [path.name]
        parquet = kind == "Parquet files"
        if kind == "images" or (
            parquet and (tiles is not None or not _image_column(_schema(path), options.image_column))
        ):
            kind = ""  # a table; no single image has this extension
    else:
        raise InputError(f"{path}: no such file or folder")
    is_list = path.suffix.lower() == ".txt"
    if has_columns and (is_list or kind in ("images", "tar files")):
        raise InputError(f"{path}: this source has no columns to copy, or positions; give a table")
    if tiles is not None and kind:
        table = _gathered(root, files, options)
        return _table(table, path, replace(options, image_column=None, images=None))
    if kind == "tar files":
        bases = [without_ending(name, _TAR_ENDINGS) for name in files]
        times = Counter(bases)  # a.tar and a.tar.gz are two parts
        named = {root / name: name if times[base] > 1 else base for name, base in zip(files, bases, strict=True)}
        parts = [file_part(part, file, None, partial(tar_batches, file)) for file, part in named.items()]
        return Source(parts, root, path)
    if kind == "Parquet files":
        return _partitions(path, root, files, options)
    if kind == "images":
        return _files(path, path, files)
    if is_list:
        text = os.fsdecode(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        names = [line for line in text.splitlines() if line.strip()]
        if not names:
            raise InputError(f"{path}: the list is empty")
        return _files(path, options.images or root, names)
    return _table(path, path, options)


def _primary(path: Path) -> Path:
    """Return the primary table of a collection of LSDB, whose other tables, such as margins, repeat its rows."""
    collection = path / "collection.properties"
    if not collection.is_file():
        return path
    primary = path / properties_of(collection).get("hats_primary_table_url", "?")
    if not primary.is_dir():
        raise InputError(f"{collection}: names no primary table that is there; give the folder of the catalogue itself")
    return primary


def _gathered(root: Path, files: list[str], options: SourceOptions) -> CatalogTable:
    """Read ids, positions and other columns of Parquet files, such as partitions of HATS."""
    first = root / files[0]
    schema = _schema(first)
    names, (units, descriptions) = schema.names, arrow_texts(schema)
    ids = options.id_column or first_column(ID_COLUMNS, names) or "id"
    columns = [*options.keep, *cutout_width(options.size).columns, *position_columns(names, str(first)), ids]
    _check_columns(columns, names, first)
    own = [name for name in names if name in columns]
    try:
        frame = pl.scan_parquet([root / name for name in files], hive_partitioning=False).select(own).collect()
    except (OSError, PolarsError) as problem:
        raise InputError(f"{first.parent}: can't be read as Parquet ({reason(problem)}); replace it") from problem
    check_partitions(root, files, frame.height)
    return CatalogTable(frame, units, descriptions=descriptions)


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
    pixels = list(filter(PARTITION.match, kinds.get("Parquet files", ())))
    if pixels:  # HATS: other files there describe the partitions
        kinds = {"Parquet files": pixels}
    if not kinds:
        raise InputError(f"{path}: no images ({', '.join(IMAGE_ENDINGS)}), tar or Parquet files in this folder")
    if len(kinds) > 1:
        held = " and ".join(sorted(kinds, key=str.lower))
        raise InputError(f"{path}: holds {held}; give a folder with one kind of files, or a list of files")
    return next(iter(kinds.items()))


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
    if len(repeated := ids.filter(ids.is_duplicated())):
        raise InputError(f"{path}: {repeated[0]} is listed twice; list each image once")
    frame = pl.DataFrame({"object_id": ids, "image": [os.fsencode(name) for name in names]})
    return Source(_cut(frame, root, "image"), root, path, CatalogTable(frame))


def _table(content: Any, path: Path, options: SourceOptions) -> Source:
    """Make a source of a catalogue, or of another table with paths or positions; `path` is its name in messages."""
    table, tiles = read_table(content), options.tiles
    names = table.frame.columns
    keep = options.copied(names, path)
    _check_columns([*keep, options.id_column, options.image_column], names, path)
    labelled = {"label", "alpha"} <= set(names) or OBSERVED_LABEL in names
    of_prepare = "split" in names or first_column(PATH_COLUMNS, names) in (None, "image")  # others are tables of images
    prepared = labelled and of_prepare and options.id_column is None and options.image_column is None
    if prepared:
        table = read_catalogue(table, labelled=False)
        root = image_folder(table) if options.images is None else options.images
        frame, column = table.frame, "image" if "image" in names else None
    else:
        paths = None if tiles is not None else options.image_column or first_column(PATH_COLUMNS, names)
        if paths is None and tiles is None:
            raise InputError(
                f"{path}: neither a prepared catalogue nor a table with a usual column of image files "
                f"({', '.join(PATH_COLUMNS)}); name yours with `image_column`"
            )
        if paths is not None and (kind := table.frame.schema[paths]) not in (pl.String, pl.Null):
            raise InputError(f"{path}: column {paths} holds {kind}, not paths; name that of images (`image_column`)")
        ids = options.id_column or first_column(ID_COLUMNS, names) or paths or ""
        _check_columns([ids], names, path)
        files = [] if paths is None else [pl.col(paths).alias(IMAGE_COLUMN)]
        frame = table.frame.select(object_ids(table.frame[ids], str(path)), *files, *keep)
        root, column = options.images or path.parent, IMAGE_COLUMN
        table = replace(table, descriptions=_with_ids(table.descriptions, ids), metadata={})
    if tiles is not None:
        root, own = path.parent, table.frame
        parts = tile_parts(frame, tiles, *positions_of(own, str(path)), cutout_sizes(options.size, own, str(path)))
    else:
        parts = _cut(frame, root, column)
    return Source(parts, root, path, replace(table, frame=frame, path=table.path or path), prepared, keep)


def _with_ids(descriptions: dict[str, str], ids: str) -> dict[str, str]:
    """Return descriptions with that of the id column under `object_id`."""
    return descriptions | ({"object_id": descriptions[ids]} if ids in descriptions else {})


def _check_columns(columns: Sequence[str | None], names: Sequence[str], path: Path) -> None:
    for name in columns:
        if name is not None and name not in names:
            raise InputError(f"{path}: no column {name!r}; {nearest(name, names)}")


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as problem:
        raise InputError(f"{path}: can't be read as Parquet: {problem}") from problem


def _image_column(schema: pa.Schema, chosen: str | None) -> str | None:
    """Find the column of image contents: bytes, or a struct with `bytes` (Hugging Face datasets)."""
    kinds = pa.binary(), pa.large_binary(), pa.binary_view()
    of_bytes = [
        name
        for name, kind in zip(schema.names, schema.types, strict=True)
        if kind in kinds or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
    ]
    if chosen is not None:
        return chosen if chosen in of_bytes else None
    return first_column(PATH_COLUMNS, of_bytes)


def _partitions(path: Path, root: Path, files: list[str], options: SourceOptions) -> Source:
    """Make a source of Parquet files with the content of images; units and descriptions are those of the first.

    Ids are text if the files have them in several types: as integers, 007 and 7 would be one galaxy.
    """
    readers, types = [], []
    keep = options.copied(_schema(root / files[0]).names, path)
    for name in files:
        file = root / name
        schema = _schema(file)
        images, names = _image_column(schema, options.image_column), schema.names
        if images is None:
            raise InputError(f"{file}: no column with the content of image files; name it with `image_column`")
        _check_columns([options.id_column, *keep], [name for name in names if name != images], file)
        ids = options.id_column or first_column(ID_COLUMNS, names)
        if ids is None:
            raise InputError(f"{file}: no id column ({', '.join(ID_COLUMNS)}); name yours with `id`")
        rows = pq.read_metadata(file).num_rows
        if rows:
            check_names([ids, *keep], str(file))
            readers.append((name, rows, ids, images))
            types.append(pl.DataFrame(schema.empty_table().select([ids, *keep])).dtypes)
            if types[-1][1:] != types[0][1:]:
                raise InputError(f"{file}: {', '.join(keep)} have other types than in {readers[0][0]}; write one type")
    if not readers:
        raise InputError(f"{path}: the tables have no rows")
    check_partitions(root, files, sum(rows for _, rows, _, _ in readers))
    id_type = types[0][0] if len({kind for kind, *_ in types}) == 1 else pl.String
    parts = []
    for name, rows, ids, images in readers:
        file = root / name
        read = partial(parquet_batches, file, ids, images, keep, id_type)
        parts.append(file_part(name.removesuffix(".parquet"), file, rows, read, ids, images, str(id_type)))
    kinds = dict(zip(("object_id", *keep), (id_type, *types[0][1:]), strict=True))
    first, _, ids, _ = readers[0]
    units, descriptions = arrow_texts(_schema(root / first))
    table = CatalogTable(pl.DataFrame(schema=kinds), units, descriptions=_with_ids(descriptions, ids))
    return Source(parts, root, path, table, keep=keep)


def proof_of(source: Source, config: TrainingConfig) -> Proof:
    """Return the readable images of a prepared catalogue, to test int8."""

    def images(calibrate: bool) -> Iterator[tuple[np.ndarray, pl.DataFrame]]:
        if not source.prepared:
            raise InputError(
                f"{source.path}: int8 must keep class fractions at every alpha, but alpha is not known here; give a "
                "prepared catalogue with `gate` (for example of simulated galaxies)"
            )
        galaxies, left = (slice(1), _CALIBRATION_IMAGES) if calibrate else (slice(1, None), GATE_IMAGES)
        batches = (rows for part in source.parts for rows in part.batches(_EVERY))
        chosen = (Rows(batch.frame[galaxies], batch.images[galaxies]) for batch in batches)
        for rows, pixels, _ in decoded(config, chosen):
            readable = rows[:left]
            left -= readable.height
            if readable.height:
                yield pixels[: readable.height], readable
            if left == 0:
                return
        raise InputError(
            f"{source.path}: int8 is tested on {GATE_IMAGES:,d} readable images, beside {_CALIBRATION_IMAGES} that "
            "calibrate it, and there are fewer; give more with `gate` (simulated images are fine)"
        )

    return Proof(str(source.path), images)


def base_names(ids: pl.Series) -> pl.Series:
    """Return ids as text, without folders and the extension of an image."""
    endings = "|".join(map(re.escape, IMAGE_ENDINGS))
    return ids.cast(pl.String).str.replace("^.*/", "").str.replace(f"(?i)({endings})$", "")
