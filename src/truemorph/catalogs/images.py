"""Finding a catalogue's images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.errors import InputError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".fits", ".fit", ".fits.gz")


def find_images(
    ids: pl.Series, names: pl.Series | None, kept: np.ndarray, folder: str | os.PathLike[str] | None, beside: Path
) -> tuple[Path, list[str | None], list[str]]:
    """Find the images of a table's rows.

    Parameters
    ----------
    ids : polars.Series, shape (N,)
    names : polars.Series, shape (N,), optional
        File names that the table gives; without them an image is `<id>.jpg` or another of `IMAGE_ENDINGS`.
    kept : array of bool, shape (N,)
        Rows that need an image.
    folder : path, optional
        The folder of images.
    beside : Path
        The folder where they are if none is given: that of the table that names them.

    Returns
    -------
    root : Path
    paths : list of str or None, length N
        Relative to the root; None where there is no file.
    notes : list of str

    Raises
    ------
    InputError
        If the folder doesn't exist, or holds none of the images of the rows that are kept.
    """
    if names is None and folder is None:
        return beside, [None] * len(ids), []
    root = (beside if folder is None else Path(folder)).resolve()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    paths = _paths(ids, names, root)
    absent = sum(one is None for one, keep in zip(paths, kept, strict=True) if keep)
    if not absent:
        return root, paths, []
    if absent < kept.sum():
        note = f"{absent:,d} of {kept.sum():,d} galaxies have no image in {root.name} and can't train networks"
        return root, paths, [note]
    if folder is None and names is not None and names.filter(pl.Series(kept)).null_count() == absent:
        return root, paths, []  # the column is there, but names nothing
    first = int(kept.argmax())
    wanted = f"{ids[first]}.jpg" if names is None else names[first]
    raise InputError(
        f"{root}: none of the {kept.sum():,d} images is there (first: {wanted}); give their folder with --images"
    )


def _paths(ids: pl.Series, names: pl.Series | None, root: Path) -> list[str | None]:
    listed: dict[str, set[str]] = {}

    def exists(name: str) -> bool:
        # Listing a folder once is quicker than asking for each file.
        folder, file = os.path.split(name)
        if folder not in listed:
            try:
                with os.scandir(root / folder) as entries:
                    listed[folder] = {entry.name for entry in entries if entry.is_file()}
            except (OSError, ValueError):  # a name with a null character is no file
                listed[folder] = set()
        return file in listed[folder]

    if names is not None:
        # As written, or its last part: the folder may be the one that the column names.
        some = ([name, name.rsplit("/", 1)[-1]] if name else [] for name in names.to_list())
    else:
        endings = [ending for lower in IMAGE_ENDINGS for ending in (lower, lower.upper())]
        some = ([f"{one}{ending}" for ending in endings] for one in ids.to_list())
    return [next((name for name in one if exists(name)), None) for one in some]
