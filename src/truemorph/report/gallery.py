"""Galaxies to look at one by one: pictures, better pictures beside them, and all that is known of each."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from truemorph.bias.transitions import CLASS_NAMES, DISK
from truemorph.catalogs.catalogue import IMAGE_ENDINGS, image_folder
from truemorph.errors import InputError
from truemorph.images.decode import (
    AS_THEY_ARE,
    FitsReading,
    cropped_and_resized,
    decode,
    fits_reading,
    read_image_file,
)
from truemorph.report.evidence import Evidence
from truemorph.report.figures import overview, pairs_figure
from truemorph.report.label_sets import AFTER, CHANGE, OURS, PICTURE, TO_DISK, TRUE
from truemorph.report.page import Galaxy, Gallery, Illustration, Pair, Section, Table, number

if TYPE_CHECKING:
    from truemorph.report.writing import ReportOptions

# What all pictures of a page may take; the page's limit is 15 MB.
_BUDGET = 9_000_000
_SIDES = (256, 207, 160, 128, 96, 64)
_THUMBNAIL = 112
_PAIRS, _EXAMPLES, _LISTED = 12, 4, 40
_RANGES = {"posterior": "p(disk) after", "p": "p(disk) of the picture", "alpha": "α", "votes": "votes for disk"}


@dataclass(frozen=True)
class Pictures:
    """Where pictures of galaxies are, and how a network sees them.

    Attributes
    ----------
    root : Path
    crop : float
        Central part of the side that the network sees.
    size : int
        Pixels on a side that it sees.
    fits : FitsReading
    """

    root: Path
    crop: float = 1.0
    size: int = 128
    fits: FitsReading = AS_THEY_ARE

    def whole(self, name: str, largest: int = _SIDES[0]) -> np.ndarray:
        """The picture as it lies there, as volunteers saw it; uint8 (S, S, 3), at most `largest` pixels."""
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


def annotated(pixels: np.ndarray, text: str, width: float | None, bar: float = 5.0) -> np.ndarray:
    """Draw a text on a uint8 RGB picture, and a bar of `bar` arcsec if its width in arcsec is known."""
    picture = Image.fromarray(pixels)
    draw, side = ImageDraw.Draw(picture), picture.width
    font = ImageFont.load_default(max(9, side // 20))
    draw.text((side * 0.03, side * 0.02), text, fill="white", font=font)
    if width:
        end, low = side * 0.97, picture.height * 0.95
        draw.line((end - side * bar / width, low, end, low), fill="white", width=max(1, side // 100))
        draw.text((end, low - side * 0.01), f"{bar:g} arcsec", fill="white", font=font, anchor="rb")
    return np.asarray(picture)


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
    """File name by id, of galaxies that have `<id>.<ending>` in a folder of better images."""
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
        As volunteers and as networks saw it.
    better : array of uint8 or None
    heat : dict of array
        Grad-CAM maps of class disk by model.
    """

    row: dict[str, Any]
    seen: np.ndarray | None
    cropped: np.ndarray | None
    better: np.ndarray | None
    heat: dict[str, np.ndarray]


def shown_galaxies(found: Evidence, options: ReportOptions) -> tuple[list[Shown], list[str]]:
    """Galaxies that changed, with their pictures and maps; and what is wrong with better images that can't be read."""
    if found.principal is None or options.galaxies == 0:
        return [], []
    chosen = choose(found.everything, options.galaxies)
    pictures = None
    if "image" in chosen.columns and chosen["image"].count():
        pictures = Pictures(image_folder(found.catalogue))
        if found.with_images:  # as the last of these takes them
            config = list(found.with_images.values())[-1].config
            pictures = Pictures(pictures.root, config.crop, config.image_size, fits_reading(config))
    better = {} if options.better is None else better_pictures(options.better, chosen["object_id"])
    shown, bad = [], []
    for row in chosen.iter_rows(named=True):
        seen = cropped = beside = None
        if pictures is not None and row["image"] is not None:
            with suppress(InputError):  # a bad image has no label, and does not change
                seen, cropped = pictures.whole(row["image"]), pictures.cropped(row["image"])
        if row["object_id"] in better and options.better is not None:
            try:
                beside = Pictures(options.better).whole(better[row["object_id"]])
            except InputError as problem:
                bad.append(str(problem))
        shown.append(Shown(row, seen, cropped, beside, {}))
    with_picture = [one for one in shown if one.cropped is not None]
    if options.maps and found.with_images and with_picture:
        heat = _heat(with_picture, found)
        for number, one in enumerate(with_picture):
            one.heat.update({name: maps[number] for name, maps in heat.items()})
    return shown, bad


def _heat(shown: Sequence[Shown], found: Evidence) -> dict[str, np.ndarray]:
    """What speaks for a disk in each of them, by every model that sees pictures of this size."""
    from truemorph.explain.gradcam import GradCam, upsampled

    pixels = np.stack([one.cropped for one in shown if one.cropped is not None])
    ids = [one.row["object_id"] for one in shown]
    last = list(found.with_images.values())[-1].config
    out = {}
    for name, model in found.with_images.items():
        if (model.config.image_size, model.config.crop) == (last.image_size, last.crop):
            folds = dict(zip(model.seen["object_id"].cast(pl.String), model.seen["fold"], strict=True))
            cam = GradCam(model)
            maps = cam.maps(pixels, DISK, np.array([folds.get(one, -1) for one in ids]))
            out[name] = upsampled(maps, last.image_size, cam.grid)
    return out


def changed_galaxies(found: Evidence) -> pl.DataFrame:
    """All galaxies whose label changes, surest first: their label, and p(disk) before and after it."""
    every = found.everything
    wanted = {"object_id": "object_id", "label": "observed_label", "alpha": "alpha", "disk_fraction": "disk_fraction",
              "ra": "ra", "dec": "dec", PICTURE: "p_disk", AFTER: "p_disk_after", CHANGE: "change"}  # fmt: skip
    chosen = choose(every, every.height)
    return chosen.select(pl.col(name).alias(to) for name, to in wanted.items() if name in every.columns)


def gallery_of(shown: Sequence[Shown], found: Evidence) -> Gallery | None:
    """A gallery of galaxies that changed; None without any picture."""
    n_pictures = max((2 + (one.better is not None) + len(one.heat) for one in shown), default=1)
    limit = int(_BUDGET / max(1, len(shown)) / n_pictures)
    names = _described(found)
    entries = [_galaxy(one, names, limit) for one in shown]
    if not any(one.thumbnail for one in entries):
        return None
    n, changed = len(entries), int((found.everything[CHANGE] != "").sum())
    how = (
        "All galaxies whose label changes"
        if n == changed
        else f"{n:,} of them, evenly from the surest to the least sure"
    )
    choices = {"change": "change", "split": "split"}
    if any("truth" in one.keys for one in entries):
        choices["truth"] = "gold label"
    return Gallery(
        note=f"{how}. Choose one for larger pictures and its values; the arrow keys go to the next. changed.ecsv "
        "among the page's files lists all.",
        galaxies=entries,
        ranges=_RANGES,
        choices=choices,
    )


def _described(found: Evidence) -> dict[str, str]:
    """Columns that a galaxy's details give, and what they are called."""
    out = {"alpha": "α", "smooth_fraction": "votes for smooth", "disk_fraction": "votes for disk", CHANGE: "change"}
    for k, one in enumerate(found.models):
        out[f"{OURS}p{k}"] = f"{one.name}: p(disk) of the picture"
        out[f"{OURS}spread{k}"] = f"{one.name}: its spread over members"
        out[f"{OURS}posterior{k}"] = f"{one.name}: posterior p(disk)"
        out[f"{OURS}quality{k}"] = f"{one.name}: probability that the volunteers' label is right"
    out |= {OURS + one.name: one.name for one in found.truths.values()}
    out |= {name: name for name in (*found.intrinsic, "radius", "psf_fwhm", "ra", "dec", "split")}
    return {name: said for name, said in out.items() if name in found.everything.columns}


def _galaxy(one: Shown, names: Mapping[str, str], limit: int) -> Galaxy:
    row = one.row
    pictures = [("as volunteers saw it", one.seen), ("better image", one.better)]
    if one.cropped is not None:
        pictures += [
            (f"what raises the score of a disk, {name}", overlaid(one.cropped, heat)) for name, heat in one.heat.items()
        ]
    keys = {"posterior": row.get(AFTER), "p": row.get(PICTURE), "alpha": row["alpha"]}
    keys |= {"votes": row.get("disk_fraction"), "split": row.get("split"), "change": row[CHANGE]}
    caption = [f"α {row['alpha']:.1f}, p(disk) {row[AFTER]:.2f}", row[CHANGE]]
    if row.get(TRUE) is not None:
        keys["truth"] = CLASS_NAMES[int(row[TRUE])]
        caption.append(f"gold: {keys['truth']}")
    details = [(name, _formatted(row[column], column)) for column, name in names.items() if column in row]
    small = one.cropped if one.cropped is not None else one.seen
    return Galaxy(
        name=str(row["object_id"]),
        thumbnail="" if small is None else jpeg_source(_resized(small, min(_THUMBNAIL, small.shape[0])), limit),
        alternative=f"galaxy {row['object_id']}, {row[CHANGE]}, α {row['alpha']:.1f}",
        caption=caption,
        keys={name: round(value, 4) if isinstance(value, float) else value for name, value in keys.items()},
        pictures=[(what, jpeg_source(pixels, limit)) for what, pixels in pictures if pixels is not None],
        details=details + ([] if one.better is not None else [("better image", "none")]),
        link=_sky(row),
    )


def _formatted(value: Any, column: str) -> str:
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


def changed_galaxies_section(
    shown: Sequence[Shown], bad: Sequence[str], found: Evidence, options: ReportOptions
) -> tuple[list[Pair], list[Section], list[Illustration]]:
    """Galaxies that change: four for the first screen, the section about them, and figures for the files alone."""
    changed = int((found.everything[CHANGE] != "").sum())
    title = f"{changed:,} of {found.everything.height:,} galaxies change their label"
    if not shown:
        return [], [], []
    gallery = gallery_of(shown, found)
    if gallery is None:
        head = ("id", "change", "α", "votes for disk", "p(disk) after")
        rows = [
            [
                str(one.row["object_id"]),
                one.row[CHANGE],
                number(one.row["alpha"], ".1f"),
                number(one.row.get("disk_fraction"), ".2f"),
                number(one.row[AFTER]),
            ]
            for one in shown[:_LISTED]
        ]
        return [], [Section(title, tables=[Table("The surest", head, rows, "This catalogue has no images.")])], []
    to_disk = [one for one in shown if one.row[CHANGE] == TO_DISK and one.seen is not None]
    chosen = sorted(to_disk, key=lambda one: (one.better is None, -one.row[AFTER]))[:_PAIRS]
    n = sum(one.better is not None for one in shown)
    if options.better is None:
        note = (
            "Give better images of the same galaxies (`better`: a folder of files named after the ids, from Hubble or "
            "a deeper survey) to see beside each whether it is a disk."
        )
    else:
        note = f"{n} of the {len(shown)} galaxies shown have a better image."
        note += f" {len(bad)} can't be read (first: {bad[0]})." if bad else ""
    middle = "Middle: a better image. " if n else ""
    note = (
        f"The surest changes from smooth to disk. Left: the image that volunteers saw. {middle}Right: what raises the "
        f"score of a disk (Grad-CAM). {note}"
    )
    section = Section(title, note, pairs=[_pair(one, found, n > 0) for one in chosen], gallery=gallery)
    examples = [_example(one, found) for one in chosen[:_EXAMPLES]]
    drawn = []
    if n and chosen:
        pictures = [
            {"seen": one.seen, "better": one.better, "title": f"α {one.row['alpha']:.1f}, p {one.row[AFTER]:.2f}"}
            for one in chosen
        ]
        data = pl.DataFrame(
            [
                {"object_id": str(one.row["object_id"]), "alpha": one.row["alpha"], "p_disk": one.row[AFTER],
                 "better_image": one.better is not None}
                for one in chosen
            ]
        )  # fmt: skip
        text = "Galaxies that changed from smooth to disk: above as volunteers saw them, below a better image."
        drawn = [Illustration("pairs", pairs_figure(pictures), text, text, data)]
        if all(row["better"] is not None for row in pictures[:_EXAMPLES]):
            drawn.append(overview(found, pictures[:_EXAMPLES]))
    return examples, [section], drawn


def _example(one: Shown, found: Evidence) -> Pair:
    """A galaxy of the first screen: how it was labelled, and what it is."""
    pictures = [("as volunteers saw it", "" if one.seen is None else jpeg_source(one.seen))]
    if one.better is not None:
        pictures.append(("better image", jpeg_source(one.better)))
    gold = found.gold_name.removesuffix("s")
    truth = "" if one.row.get(TRUE) is None else f"; {gold}: {CLASS_NAMES[int(one.row[TRUE])]}"
    return Pair(
        f"α = {one.row['alpha']:.1f}. Volunteers: smooth; corrected: disk (p = {one.row[AFTER]:.2f}){truth}", pictures
    )


def _pair(one: Shown, found: Evidence, with_better: bool) -> Pair:
    pictures = [("as volunteers saw it", "" if one.seen is None else jpeg_source(one.seen))]
    if with_better:
        pictures.append(("no better image", "") if one.better is None else ("better image", jpeg_source(one.better)))
    heat = None if found.principal is None else one.heat.get(found.principal.name)
    if heat is not None and one.cropped is not None:
        pictures.append(("what raises the score of a disk", jpeg_source(overlaid(one.cropped, heat))))
    votes = one.row.get("disk_fraction")
    caption = f"{one.row['object_id']}: α {one.row['alpha']:.1f}, "
    caption += "" if votes is None else f"votes for disk {votes:.2f}, "
    return Pair(f"{caption}p(disk) {one.row[AFTER]:.2f}", pictures)
