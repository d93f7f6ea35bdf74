"""Galaxies to look at one by one: pictures, better pictures beside them, and what everybody says of each."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import simplejpeg
from PIL import Image

from truemorph.bias.transitions import CLASS_NAMES, DISK, SMOOTH
from truemorph.catalogs.catalogue import IMAGE_ENDINGS
from truemorph.errors import InputError
from truemorph.images.decode import AS_THEY_ARE, FitsReading, cropped_and_resized, decode, read_image_file
from truemorph.report.page import Galaxy, Gallery

# What all pictures of a page may take; the page's limit is 15 MB.
_BUDGET = 9_000_000
_SIDES = (256, 207, 160, 128, 96, 64)
_THUMBNAIL = 112
TO_DISK, TO_SMOOTH = "smooth to disk", "disk to smooth"
# Columns that a report adds to a catalogue's own, under names that no catalogue has.
OURS = "truemorph:"
AFTER, PICTURE, CHANGE, TRUE = (OURS + name for name in ("after", "picture", "change", "true"))
_RANGES = {"posterior": "p(disk) after", "p": "p(disk) of the picture", "alpha": "α", "votes": "votes for disk"}


@dataclass(frozen=True)
class Pictures:
    """Where pictures of galaxies are, and how a network sees them.

    Attributes
    ----------
    root : Path
    crop : float
        Central share of the side that the network sees.
    size : int
        Pixels on a side that it sees.
    fits : FitsReading
    """

    root: Path
    crop: float = 1.0
    size: int = 128
    fits: FitsReading = AS_THEY_ARE

    def whole(self, name: str, largest: int = _SIDES[0]) -> np.ndarray:
        """The picture as it lies there, as annotators saw it; uint8 (S, S, 3), at most `largest` pixels."""
        pixels = self._decoded(self.root / name)
        return cropped_and_resized(pixels, min(largest, *pixels.shape[:2]), 1.0, name)

    def cropped(self, name: str) -> np.ndarray:
        """What the network sees, uint8 (size, size, 3)."""
        return cropped_and_resized(self._decoded(self.root / name), self.size, self.crop, name)

    def _decoded(self, path: Path) -> np.ndarray:
        return decode(read_image_file(path), str(path), self.fits)


def jpeg_source(pixels: np.ndarray, limit: int | None = None, quality: int = 85) -> str:
    """A uint8 RGB picture as a data URL, made smaller until it takes at most `limit` characters."""
    for side in (min(pixels.shape[:2]), *_SIDES):
        if side > min(pixels.shape[:2]):
            continue
        smaller = pixels if side == min(pixels.shape[:2]) else _resized(pixels, side)
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(smaller), quality=quality, colorspace="RGB")
        text = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
        if limit is None or len(text) <= limit:
            break
    return text


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    return np.asarray(
        Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    )


def overlaid(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map over a picture.

    Parameters
    ----------
    pixels : array of uint8, shape (S, S, 3)
    heat : array, shape (S, S)
        0 to 1.

    Returns
    -------
    array of uint8, shape (S, S, 3)
        The picture in grey, brightened in the colours of "inferno" where the map is high.
    """
    from matplotlib import colormaps

    bounded = np.clip(heat, 0, 1)
    grey = pixels.mean(axis=2, keepdims=True) / 255
    strength = 0.65 * bounded[..., None]
    colour = colormaps["inferno"](bounded)[..., :3]
    return np.round(255 * np.clip((1 - strength) * grey + strength * colour, 0, 1)).astype(np.uint8)


def changes(label: np.ndarray, disk: np.ndarray) -> np.ndarray:
    """How labels change with p(disk), shape (N,) of str: "smooth to disk", "disk to smooth", or empty."""
    after = np.where(np.isfinite(disk), np.nan_to_num(disk) > 0.5, label)
    return np.select(
        [(label == SMOOTH) & (after == DISK), (label == DISK) & (after == SMOOTH)], [TO_DISK, TO_SMOOTH], ""
    )


def choose(frame: pl.DataFrame, most: int) -> pl.DataFrame:
    """Galaxies that changed, surest first; if there are more than `most`, evenly from all of them.

    Parameters
    ----------
    frame : polars.DataFrame
        With `CHANGE` and `AFTER` (p(disk)).
    most : int
    """
    changed = frame.filter(pl.col(CHANGE) != "").sort(
        (pl.col(AFTER) - 0.5).abs(), pl.col("object_id").cast(pl.String), descending=[True, False]
    )
    if changed.height <= most:
        return changed
    return changed[np.unique(np.round(np.linspace(0, changed.height - 1, most)).astype(np.int64))]


def better_pictures(folder: Path, ids: Iterable[Any]) -> dict[str, str]:
    """File name by id, of galaxies that have `<id>.<ending>` in a folder of better images.

    Raises
    ------
    InputError
        If the folder is not there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of better images (files named <object id>.jpg, .png or .fits)")
    by_name: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        for ending in IMAGE_ENDINGS:
            if path.name.lower().endswith(ending):
                by_name.setdefault(path.name[: -len(ending)], path.name)
    return {str(one): by_name[str(one)] for one in ids if str(one) in by_name}


@dataclass(frozen=True)
class Shown:
    """A galaxy with its pictures in memory.

    Attributes
    ----------
    row : dict
        Its columns.
    seen, cropped : array of uint8 or None
    better : array of uint8 or None
    heat : dict of array
        Maps by model.
    """

    row: dict[str, Any]
    seen: np.ndarray | None
    cropped: np.ndarray | None
    better: np.ndarray | None
    heat: dict[str, np.ndarray]


def galaxies(shown: Sequence[Shown], described: Mapping[str, str]) -> list[Galaxy]:
    """Gallery entries.

    Parameters
    ----------
    shown : sequence of Shown
    described : dict of str
        Columns that the details give, and what they are called.
    """
    n_pictures = max((2 + (one.better is not None) + len(one.heat) for one in shown), default=1)
    limit = int(_BUDGET / max(1, len(shown)) / n_pictures)
    return [_galaxy(one, described, limit) for one in shown]


def _galaxy(one: Shown, described: Mapping[str, str], limit: int) -> Galaxy:
    row = one.row
    pictures = []
    if one.seen is not None:
        pictures.append(("as people saw it", jpeg_source(one.seen, limit)))
    if one.better is not None:
        pictures.append(("better image", jpeg_source(one.better, limit)))
    if one.cropped is not None:
        pictures += [
            (f"what speaks for a disk, {name}", jpeg_source(overlaid(one.cropped, heat), limit))
            for name, heat in one.heat.items()
        ]
    keys = {"posterior": row.get(AFTER), "p": row.get(PICTURE), "alpha": row["alpha"]}
    keys |= {"votes": row.get("disk_fraction"), "split": row.get("split"), "change": row[CHANGE]}
    if row.get(TRUE) is not None:
        keys["truth"] = CLASS_NAMES[int(row[TRUE])]
    missing = [] if one.better is not None else [("better image", "none")]
    caption = [f"α {row['alpha']:.1f}, p(disk) {row[AFTER]:.2f}", row[CHANGE]]
    if "truth" in keys:
        caption.append(f"truth: {keys['truth']}")
    small = one.cropped if one.cropped is not None else one.seen
    return Galaxy(
        name=str(row["object_id"]),
        thumbnail="" if small is None else jpeg_source(_resized(small, min(_THUMBNAIL, small.shape[0])), limit),
        alternative=f"galaxy {row['object_id']}, {row[CHANGE]}, α {row['alpha']:.1f}",
        caption=caption,
        keys={name: round(value, 4) if isinstance(value, float) else value for name, value in keys.items()},
        pictures=pictures,
        details=[(name, _said(row[column], column)) for column, name in described.items() if column in row] + missing,
        link=_sky(row),
    )


def _said(value: Any, column: str) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "unknown"
    if isinstance(value, float) and column.endswith("_fraction"):
        return f"{value:.3f}"
    if isinstance(value, float) and column.startswith(OURS):  # probabilities
        return f"{value:.3f}" if 0.0005 < value < 0.9995 else f"{value:.1e}" if value < 0.5 else f"1 − {1 - value:.1e}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _sky(row: Mapping[str, Any]) -> str:
    ra, dec = row.get("ra"), row.get("dec")
    if not isinstance(ra, float) or not isinstance(dec, float) or not np.isfinite(ra + dec):
        return ""
    return f"https://www.legacysurvey.org/viewer?ra={ra:.5f}&dec={dec:.5f}&zoom=15"


def gallery_of(entries: Sequence[Galaxy], changed: int, total: int) -> Gallery:
    """A gallery of galaxies that changed.

    Parameters
    ----------
    entries : sequence of Galaxy
    changed, total : int
        How many changed, shown or not, of how many in the catalogue.
    """
    n = len(entries)
    how = "all of them" if n == changed else f"{n:,} of them, evenly from the surest to the least sure"
    choices = {"change": "change", "split": "split"}
    if any("truth" in one.keys for one in entries):
        choices["truth"] = "truth"
    return Gallery(
        title=f"{changed:,} of all {total:,} galaxies of the catalogue change their label",
        note=f"Shown: {how}. Sort and filter; choose one for larger pictures and everything that is known of it. In "
        "its details the arrow keys go on to the next. All that change are listed in changed.ecsv among the "
        "page's files.",
        galaxies=entries,
        ranges=_RANGES,
        choices=choices,
    )
