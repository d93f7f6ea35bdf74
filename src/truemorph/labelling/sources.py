"""What is to be labelled: folders, lists, tables with paths, tar files, Parquet tables of images, cut into parts.

A part is what is labelled and written as a whole: a partition, a tar file, or some thousand rows.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from truemorph.catalogs.catalogue import IMAGE_ENDINGS, image_folder, object_ids, read_catalogue
from truemorph.errors import InputError, nearest
from truemorph.io import content_hash, shown_path
from truemorph.labelling.parts import ParquetPart, Part, TablePart, TarPart, stem, without
from truemorph.tables import arrow_texts, frame_hash, read_table

PART_ROWS = 16_384
# As tables of galaxies call them, in order of preference.
ID_COLUMNS = ("object_id", "id_str", "dr7objid", "dr8objid", "objid", "GalaxyID", "iauname", "source_id", "id")
PATH_COLUMNS = ("image", "file_loc", "image_path", "path", "file", "filename")
_IMAGE = "image file"
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Source:
    """Everything that is to be labelled.

    Attributes
    ----------
    parts : sequence of Part
    fingerprint : str
        Changes when the rows do.
    metadata : dict
        Of a prepared catalogue.
    path : Path
    prepared : bool
        Whether it is a prepared catalogue, with crowd labels and α.
    units, descriptions : dict of str to str
        Of the columns of a table; of its ids under `object_id`.
    """

    parts: Sequence[Part]
    fingerprint: str
    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    prepared: bool = False
    units: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int | None:
        """How many rows there are in all, where that is known."""
        rows = [part.rows for part in self.parts]
        return None if None in rows else sum(filter(None, rows))


def _file_mark(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns


def _cut(frame: pl.DataFrame, root: Path | None, column: str | None) -> list[Part]:
    return [
        TablePart(f"part-{number:05d}", part, root, column) for number, part in enumerate(frame.iter_slices(PART_ROWS))
    ]


def open_source(
    path: str | os.PathLike[str],
    *,
    id_column: str | None = None,
    image_column: str | None = None,
    images: str | os.PathLike[str] | None = None,
    keep: Sequence[str] = (),
    but: Collection[Path] = (),
) -> Source:
    """Find out what is to be labelled.

    Parameters
    ----------
    path : path
        A folder of images (and of folders of them); a `.txt` list of files; a prepared catalogue; any other table with
        a column of paths; tar files (WebDataset), one or a folder of them; Parquet with the content of image files, one
        file or a folder of partitions (HATS).
    id_column, image_column : str, optional
        Of tables; found by the names that are usual where not given.
    images : path, optional
        Folder that paths of a list or table are relative to; default the folder of the list or table.
    keep : sequence of str
        Columns of a table to keep beside the labels.
    but : collection of path
        What lies in a folder and is none of it: results.

    Returns
    -------
    Source

    Raises
    ------
    InputError
        If there is nothing there to label, or a column is missing.
    """
    path = Path(path)
    if path.is_dir():
        found = _folder(path, id_column, image_column, tuple(keep), {one.resolve() for one in but})
        if keep and not isinstance(found.parts[0], ParquetPart):
            raise InputError(f"{path}: images in a folder come without columns to keep; give a table of them")
        return found
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    listed = path.suffix.lower() == ".txt"
    if keep and (listed or path.name.lower().endswith(_TAR_ENDINGS)):
        raise InputError(f"{path}: images come without columns to keep here; give a table of them")
    if path.name.lower().endswith(_TAR_ENDINGS):
        return _tars(path, [path])
    if listed:
        names = [line for line in os.fsdecode(path.read_bytes()).splitlines() if line.strip()]
        if not names:
            raise InputError(f"{path}: the list is empty")
        return _files(path, Path(images or path.parent), names)
    if path.suffix.lower() == ".parquet" and _image_column(path, image_column) is not None:
        return _partitions(path, [path], id_column, image_column, tuple(keep))
    return _table(path, id_column, image_column, None if images is None else Path(images), tuple(keep))


def _folder(
    path: Path, id_column: str | None, image_column: str | None, keep: tuple[str, ...], but: set[Path]
) -> Source:
    kinds: dict[str, list[str]] = {"images": [], "tar files": [], "Parquet files": []}
    for place, folders, names in os.walk(path):
        here = Path(place).resolve()
        folders[:] = sorted(name for name in folders if name[0] != "." and here / name not in but)
        for name in sorted(names):
            if here / name in but:
                continue
            lower, whole = name.lower(), os.path.relpath(os.path.join(place, name), path)
            if name.startswith((".", "_")):  # _metadata and the like
                continue
            if lower.endswith(IMAGE_ENDINGS):
                kinds["images"].append(whole)
            elif lower.endswith(_TAR_ENDINGS):
                kinds["tar files"].append(whole)
            elif lower.endswith(".parquet"):
                kinds["Parquet files"].append(whole)
    pixels = [name for name in kinds["Parquet files"] if "Norder=" in name and "Npix=" in name]
    if pixels:  # HATS: other tables and maps there are about the partitions
        kinds = {"Parquet files": pixels}
    found = [kind for kind, names in kinds.items() if names]
    if not found:
        raise InputError(f"{path}: no images ({', '.join(IMAGE_ENDINGS)}), tar or Parquet files in this folder")
    if len(found) > 1:
        raise InputError(f"{path}: holds {' and '.join(found)}; give a folder of one kind, or a list of files")
    if found == ["images"]:
        return _files(path, path, kinds["images"])
    files = [path / name for name in kinds[found[0]]]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: not a regular file; remove it")
    return _tars(path, files) if found == ["tar files"] else _partitions(path, files, id_column, image_column, keep)


def _files(path: Path, root: Path, names: list[str]) -> Source:
    """Image files: called by their names, or by their paths where two share a name.

    Names need not be UTF-8: in ids, bytes that are not become escapes; paths are kept as bytes.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    stems = [stem(name) if name.lower().endswith(IMAGE_ENDINGS) else name for name in map(os.path.basename, names)]
    ids = stems if len(set(stems)) == len(stems) else names
    frame = pl.DataFrame(
        {"object_id": [shown_path(one) for one in ids], "image": [os.fsencode(name) for name in names]}
    )
    repeated = frame.filter(pl.col("object_id").is_duplicated())
    if repeated.height:
        raise InputError(f"{path}: {repeated['object_id'][0]} is listed twice; list each image once")
    mark = content_hash([names, str(root.resolve())])
    return Source(_cut(frame, root, "image"), mark, path, {"source": str(path)})


def _table(
    path: Path, id_column: str | None, image_column: str | None, images: Path | None, keep: tuple[str, ...]
) -> Source:
    table = read_table(path)
    names = table.frame.columns
    prepared = {"object_id", "label", "alpha", "split"} <= set(names) or "crowd_label" in names
    if prepared and id_column is None and image_column is None:
        table = read_catalogue(path, labelled=False)
        root = image_folder(table) if images is None else images
        frame = table.frame
        _check_kept(keep, names, path)
        column = "image" if "image" in frame.columns else None
        mark = content_hash([frame_hash(frame), str(root.resolve())])
        parts = _cut(frame, root, column)
        return Source(parts, mark, path, table.metadata, True, table.units, table.descriptions)
    column = _chosen(image_column, PATH_COLUMNS, names, path, "`image_column`")
    if column is None:
        raise InputError(
            f"{path}: neither a prepared catalogue nor a table with a column of image files "
            f"({', '.join(PATH_COLUMNS)}); name yours with `image_column`"
        )
    ids = _chosen(id_column, ID_COLUMNS, names, path, "`id`") or column
    _check_kept(keep, names, path)
    own = object_ids(table.frame[ids], str(path))
    frame = table.frame.select(own, pl.col(column).cast(pl.String).alias(_IMAGE), *keep)
    root = images or path.parent
    mark = content_hash([frame_hash(frame), str(root.resolve())])
    described = _ids_described(table.descriptions, ids)
    return Source(_cut(frame, root, _IMAGE), mark, path, {"source": str(path)}, False, table.units, described)


def _ids_described(descriptions: Mapping[str, str], ids: str) -> dict[str, str]:
    """Descriptions of a table whose column of ids becomes `object_id`."""
    others = {name: text for name, text in descriptions.items() if name != "object_id"}
    return others | ({"object_id": descriptions[ids]} if ids in descriptions else {})


def _check_kept(keep: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Refuse columns that are not there."""
    for name in keep:
        if name not in names:
            raise InputError(f"{path}: no column {name!r} to keep; {nearest(name, list(names))}")


def _chosen(given: str | None, usual: Sequence[str], names: Sequence[str], path: Path, option: str) -> str | None:
    if given is not None and given not in names:
        raise InputError(f"{path}: no column {given!r} ({option}); {nearest(given, list(names))}")
    return given or next((name for name in usual if name in names), None)


def _tars(path: Path, files: list[Path]) -> Source:
    root = path if path.is_dir() else path.parent
    parts = []
    for file in files:
        name = os.path.relpath(file, root)
        parts.append(TarPart(name[: -len(next(end for end in _TAR_ENDINGS if name.lower().endswith(end)))], file))
    return Source(parts, content_hash([_file_mark(file) for file in files]), path, {"source": str(path)})


def _image_column(path: Path, chosen: str | None) -> str | None:
    """The column that holds image files' contents: bytes, or as Hugging Face's datasets a struct with `bytes`."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as problem:
        raise InputError(f"{path}: can't be read as parquet: {problem}") from problem

    def holds_bytes(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(k).name == "bytes" for k in range(kind.num_fields))
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)

    found = [one.name for one in schema if holds_bytes(one.type)]
    if chosen is not None:
        return chosen if chosen in found else None
    return next((name for name in PATH_COLUMNS if name in found), found[0] if len(found) == 1 else None)


def _partitions(
    path: Path, files: list[Path], id_column: str | None, image_column: str | None, keep: tuple[str, ...]
) -> Source:
    parts: list[Part] = []
    described: tuple[dict[str, str], dict[str, str]] | None = None  # as the first file has them
    root = path if path.is_dir() else path.parent
    for file in files:
        images = _image_column(file, image_column)
        schema = pq.read_schema(file)
        names = schema.names
        if images is None:
            raise InputError(
                f"{file}: no column with the content of image files; name it with `image_column` "
                f"(columns are: {', '.join(names[:12])})"
            )
        ids = _chosen(id_column, ID_COLUMNS, names, file, "`id`")
        if ids is None:
            raise InputError(f"{file}: no column of ids ({', '.join(ID_COLUMNS)}); name yours with `id`")
        _check_kept(keep, without(names, images), file)
        if ids in keep:
            raise InputError(f"{file}: {ids!r} is kept as object_id")
        rows = pq.read_metadata(file).num_rows
        if rows:
            name = os.path.relpath(file, root).removesuffix(".parquet")
            parts.append(ParquetPart(name, file, rows, ids, images, keep))
            units, descriptions = arrow_texts(schema)
            described = described or (units, _ids_described(descriptions, ids))
    if described is None:
        raise InputError(f"{path}: the tables have no rows")
    mark = content_hash([[_file_mark(file) for file in files], id_column, image_column])
    return Source(parts, mark, path, {"source": str(path)}, False, *described)
