"""Where a catalogue's images lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.catalogs.columns import Mapped
from truemorph.catalogs.schema import IMAGE_ENDINGS
from truemorph.errors import InputError


def find_images(
    mapped: Mapped,
    ids: pl.Series,
    kept: np.ndarray,
    images: str | os.PathLike[str] | None,
    path: Path | None,
    notes: list[str],
) -> tuple[Path, list[str | None]]:
    """Find the images of a table's rows, and say how many are not there.

    Parameters
    ----------
    mapped : Mapped
    ids : polars.Series, shape (N,)
    kept : array of bool, shape (N,)
    images : path, optional
        Their folder; default: that of `path`, the table that names them.
    notes : list of str

    Returns
    -------
    root : Path
    paths : list of str or None, length N
        Below the root.

    Raises
    ------
    InputError
        If the folder is not there, or none of the images of rows that are kept.
    """
    files = mapped.frame["image"] if "image" in mapped.frame.columns else None
    beside = Path.cwd() if path is None else path.resolve().parent
    root, paths = image_paths(ids, files, None if images is None else Path(images), beside)
    absent = sum(one is None for one, keep in zip(paths, kept, strict=True) if keep)
    if images is None and files is None:
        return root, paths
    if absent == kept.sum():
        first = int(kept.argmax())
        raise InputError(
            f"{root}: none of the {kept.sum()} images is there (first looked for: "
            f"{files[first] if files is not None else f'{ids[first]}.jpg'}); give their folder with --images"
        )
    if absent:
        notes.append(f"{absent} of {kept.sum()} galaxies have no image below {root.name}: kept, but not trained on")
    return root, paths


def image_paths(
    ids: pl.Series, names: pl.Series | None, images: Path | None, beside: Path
) -> tuple[Path, list[str | None]]:
    """Image root, and each galaxy's path below it (None where there is no file).

    Raises
    ------
    InputError
        If the folder is not there.
    """
    if names is None and images is None:
        return beside, [None] * ids.len()
    root = (images or beside).resolve()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    listed: dict[str, set[str]] = {}

    def there(name: str) -> bool:
        # A folder is listed once, in place of asking for each file.
        folder, file = os.path.split(name)
        if folder not in listed:
            try:
                with os.scandir(root / folder) as entries:
                    listed[folder] = {entry.name for entry in entries if entry.is_file()}
            except OSError:
                listed[folder] = set()
        return file in listed[folder]

    if names is not None:
        # As written, or by its last part: the folder may be the one that the column names.
        some = ([name, name.rsplit("/", 1)[-1]] if name else [] for name in names.to_list())
    else:
        ends = [end for lower in IMAGE_ENDINGS for end in (lower, lower.upper())]
        some = ([f"{one}{end}" for end in ends] for one in ids.to_list())
    return root, [next((name for name in one if there(name)), None) for one in some]
