"""Galaxies to look at one by one: pictures, better pictures beside them, and all that is known of each."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from truemorph.bias.curves.transitions import DISK
from truemorph.catalogs.catalogue import find_images, image_folder
from truemorph.catalogs.columns import FRACTIONS
from truemorph.classifiers.classifier import Classifier
from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.images.decode import DEFAULTS, cropped_and_resized, decode, read_image_file
from truemorph.questions import columns_of
from truemorph.report.changes import AFTER, CHANGE, OURS, PICTURE, changed_to
from truemorph.report.evidence import Evidence
from truemorph.report.figures import overview, pairs_figure
from truemorph.report.options import ReportOptions
from truemorph.report.page import Galaxy, Gallery, Illustration, Pair, Section
from truemorph.tables import CatalogTable

# What all pictures of a page may take; the page's limit is 15 MB.
_BUDGET = 9_000_000
_SIDES = (256, 207, 160, 128, 112, 96, 64)
_THUMBNAIL = 112
_PAIRS, _EXAMPLES = 12, 4
_SURE = (pl.col(AFTER) - 0.5).abs()  # of the probability of the second of two classes
_CHOICES = {"change": "change", "split": "split", "truth": "gold label"}
SEEN, BETTER, MAP = "as it was labelled", "better image", "what raises the score"


def _decoded(path: Path, fits: TrainingConfig = DEFAULTS) -> np.ndarray:
    return decode(read_image_file(path), str(path), fits)


def _whole(pixels: np.ndarray, name: str, crop: float = 1.0) -> np.ndarray:
    return cropped_and_resized(pixels, min(_SIDES[0], *pixels.shape[:2]), crop, name)


def whole_picture(path: Path, crop: float = 1.0) -> np.ndarray:
    """An image file, or its central part, uint8 (S, S, 3), at most 256 pixels on a side."""
    return _whole(_decoded(path), path.name, crop)


def jpeg_source(pixels: np.ndarray, limit: int | None = None, side: int = _SIDES[0]) -> str:
    """A uint8 RGB picture, (S, S, 3), as a data URL of at most `limit` characters; it is made smaller for that."""
    for most in (one for one in _SIDES if one <= side):
        small = min(most, len(pixels))
        picture = Image.fromarray(pixels).resize((small, small), Image.Resampling.LANCZOS)
        data = simplejpeg.encode_jpeg(np.asarray(picture), quality=85, colorspace="RGB")
        text = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
        if limit is None or len(text) <= limit:
            break
    return text


def annotated(pixels: np.ndarray, text: str, width: float | None) -> np.ndarray:
    """Draw a text on a uint8 RGB picture, and a bar of 5 arcsec if its width in arcsec is known."""
    picture = Image.fromarray(pixels)
    draw, side = ImageDraw.Draw(picture), picture.width
    font = ImageFont.load_default(max(9, side // 20))
    draw.text((side * 0.03, side * 0.02), text, fill="white", font=font)
    if width:
        end, low = side * 0.97, picture.height * 0.95
        draw.line((end - side * 5 / width, low, end, low), fill="white", width=max(1, side // 100))
        draw.text((end, low - side * 0.01), "5 arcsec", fill="white", font=font, anchor="rb")
    return np.asarray(picture)


def overlaid(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A uint8 picture, (S, S, 3), in grey, brightened in the colours of "inferno" where a map of 0 to 1 is high."""
    from matplotlib import colormaps

    bounded = np.clip(heat, 0, 1)
    grey = pixels.mean(axis=2, keepdims=True) / 255
    strength = 0.65 * bounded[..., None]
    colour = colormaps["inferno"](bounded)[..., :3]
    return np.round(255 * np.clip((1 - strength) * grey + strength * colour, 0, 1)).astype(np.uint8)


def choose(frame: pl.DataFrame, most: int, sure: pl.Expr = _SURE) -> pl.DataFrame:
    """Galaxies with a `CHANGE`, surest first by `AFTER`; if there are more than `most`, evenly from all of them."""
    changed = frame.filter(pl.col(CHANGE) != "").sort(
        sure, pl.col("object_id").cast(pl.String), descending=[True, False]
    )
    if changed.height <= most:
        return changed
    return changed[np.unique(np.round(np.linspace(0, changed.height - 1, most)).astype(np.int64))]


def better_pictures(folder: Path, ids: Iterable[Any]) -> dict[str, str]:
    """File name by id, of galaxies that have `<id>.<ending>` in a folder of better images."""
    names = [str(name) for name in ids]
    files = find_images(pl.Series(names, dtype=pl.String), None, folder)
    return {name: file for name, file in zip(names, files, strict=True) if file is not None}


def changed_galaxies(evidence: Evidence) -> pl.DataFrame:
    """All galaxies whose label changes, surest first: their label, and the probability before and after it."""
    every, p = evidence.everything, columns_of("p", evidence.classes)[1]
    wanted = {"object_id": "object_id", "label": "observed_label", "alpha": "alpha", FRACTIONS[1]: FRACTIONS[1],
              "ra": "ra", "dec": "dec", PICTURE: p, AFTER: f"{p}_after", CHANGE: "change"}  # fmt: skip
    chosen = choose(every, every.height)
    return chosen.select(pl.col(name).alias(to) for name, to in wanted.items() if name in every.columns)


@dataclass(frozen=True)
class Shown:
    """A galaxy whose label changes, with its pictures in memory."""

    row: dict[str, Any]  # its columns
    pictures: dict[str, np.ndarray]  # uint8, by what they are: `SEEN`, `BETTER`, and `MAP` with a model
    cropped: np.ndarray | None  # as networks see it, uint8


def with_pictures(
    chosen: pl.DataFrame, catalogue: CatalogTable, options: ReportOptions, model: Classifier | None, explained: int
) -> tuple[list[Shown], list[str]]:
    """Galaxies with their pictures, and maps of a class that is `explained`; and better images that can't be read."""
    imaged = "image" in chosen.columns and chosen["image"].count() > 0
    root = image_folder(catalogue) if imaged else Path()
    images = model if model is not None and model.uses_images else None
    config = images.config if images is not None else DEFAULTS.model_copy(update={"image_size": 128, "crop": 1.0})
    better = {} if options.better is None else better_pictures(options.better, chosen["object_id"])
    shown, bad = [], []
    for row in chosen.iter_rows(named=True):
        pictures, cropped, name = {}, None, row.get("image")
        if name is not None:
            with suppress(InputError):  # a bad image has no label, and does not change
                pixels = _decoded(root / name, config)
                pictures[SEEN] = _whole(pixels, name)
                cropped = cropped_and_resized(pixels, config.image_size, config.crop, name)
        if options.better is not None and row["object_id"] in better:
            try:
                pictures[BETTER] = whole_picture(options.better / better[row["object_id"]])
            except InputError as problem:
                bad.append(str(problem))
        shown.append(Shown(row, pictures, cropped))
    if options.maps and images is not None:
        _add_maps({one.row["object_id"]: one for one in shown if one.cropped is not None}, images, explained)
    return shown, bad


def _add_maps(shown: Mapping[str, Shown], model: Classifier, explained: int) -> None:
    """Add what speaks for a class in each picture; galaxies by id."""
    from truemorph.explain.gradcam import GradCam, upsampled

    pixels = [one.cropped for one in shown.values() if one.cropped is not None]
    if pixels:
        folds = dict(zip(model.seen["object_id"].cast(pl.String), model.seen["fold"], strict=True))
        cam = GradCam(model)
        maps = cam.maps(np.stack(pixels), explained, np.array([folds.get(one, -1) for one in shown]))
        drawn = upsampled(maps, model.config.image_size, cam.grid)
        for one, cropped, heat in zip(shown.values(), pixels, drawn, strict=True):
            one.pictures[MAP] = overlaid(cropped, heat)


def _gallery(shown: Sequence[Shown], evidence: Evidence) -> Gallery:
    limit, names, counted = largest_picture(shown), _described(evidence), evidence.classes[1]
    ranges = {"posterior": f"p({counted}) after", "p": f"p({counted}) of the picture", "alpha": "α"}
    ranges["votes"] = f"votes for {counted}"
    note = (
        "From the surest to the least sure. Choose a galaxy for larger pictures and its values; the arrow keys go to "
        "the next. changed.ecsv among the page's files lists all that change."
    )
    return Gallery(note, [_galaxy(one, evidence, names, limit) for one in shown], ranges, _CHOICES)


def largest_picture(shown: Sequence[Shown]) -> int:
    """How many characters each picture may take."""
    # A thumbnail besides.
    most = max(1 + len(one.pictures) for one in shown)
    return int(_BUDGET / len(shown) / most)


def _described(evidence: Evidence) -> dict[str, str]:
    """Columns that a galaxy's details give, and what they are called."""
    columns = evidence.everything.columns
    votes = dict(zip(FRACTIONS, (f"votes for {one}" for one in evidence.classes), strict=False))
    out = {"alpha": "α", **votes, CHANGE: "change"}
    ours = [name for name in columns if name.startswith(OURS) and name not in (AFTER, PICTURE)]
    out |= {name: name.removeprefix(OURS) for name in ours}
    out |= {name: name for name in (*evidence.options.intrinsic, "radius", "psf_fwhm", "ra", "dec", "split")}
    return {name: said for name, said in out.items() if name in columns}


def _gold(row: Mapping[str, Any], evidence: Evidence) -> str | None:
    """The class by the first definition, in words."""
    return None if evidence.truth is None else row[OURS + evidence.truth.name]


def _galaxy(galaxy: Shown, evidence: Evidence, names: Mapping[str, str], limit: int) -> Galaxy:
    row, gold = galaxy.row, _gold(galaxy.row, evidence)
    keys = {"posterior": row.get(AFTER), "p": row.get(PICTURE), "alpha": row["alpha"]}
    keys |= {"votes": row.get(FRACTIONS[1]), "split": row.get("split"), "change": row[CHANGE], "truth": gold}
    caption = [f"α {row['alpha']:.1f}, p({evidence.classes[1]}) {row[AFTER]:.2f}", row[CHANGE]]
    if gold is not None:
        caption.append(f"gold: {gold}")
    details = [(name, formatted(row[column])) for column, name in names.items()]
    return in_gallery(galaxy, caption, keys, details, limit)


def in_gallery(
    galaxy: Shown, caption: Sequence[str], keys: Mapping[str, Any], details: Sequence[tuple[str, str]], limit: int
) -> Galaxy:
    """A galaxy with its pictures, each of at most `limit` characters."""
    return Galaxy(
        name=str(galaxy.row["object_id"]),
        thumbnail="" if galaxy.cropped is None else jpeg_source(galaxy.cropped, limit, _THUMBNAIL),
        caption=caption,
        keys={name: round(value, 4) if isinstance(value, float) else value for name, value in keys.items()},
        pictures=[(what, jpeg_source(pixels, limit)) for what, pixels in galaxy.pictures.items()],
        details=[*details, *([] if BETTER in galaxy.pictures else [(BETTER, "none")])],
        link=_sky(galaxy.row),
    )


def formatted(value: Any) -> str:
    """A value as text, numbers with four digits."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _sky(row: Mapping[str, Any]) -> str:
    ra, dec = row.get("ra"), row.get("dec")
    if not isinstance(ra, float) or not isinstance(dec, float) or not np.isfinite(ra + dec):
        return ""
    return f"https://www.legacysurvey.org/viewer?ra={ra:.5f}&dec={dec:.5f}&zoom=15"


def changed_galaxies_section(evidence: Evidence) -> tuple[list[Pair], list[Section], list[Illustration]]:
    """Galaxies that change: four for the first screen, the section about them, and figures for the files alone."""
    if evidence.corrected is None:
        return [], [], []
    chosen = choose(evidence.everything, evidence.options.galaxies)
    model = None if evidence.principal is None else evidence.principal.classifier
    shown, bad = with_pictures(chosen, evidence.catalogue, evidence.options, model, DISK)
    if not shown:
        return [], [], []
    changed = int((evidence.everything[CHANGE] != "").sum())
    title = f"{changed:,} of {evidence.everything.height:,} galaxies change their label"
    if all(one.cropped is None for one in shown):
        return [], [Section(title, "This catalogue has no images. changed.ecsv among the page's files lists all.")], []
    change = changed_to(evidence.classes, 0, 1)
    best = surest([one for one in shown if one.row[CHANGE] == change])
    n = sum(BETTER in one.pictures for one in shown)
    note = about_better(shown, bad, evidence.options)
    middle = "Middle: a better image. " if n else ""
    note = (
        f"The surest changes from {change}. Left: the image that was labelled. {middle}Right: what raises the "
        f"score of {evidence.classes[1]} (Grad-CAM). {note}"
    )
    pairs = [pair(one, _caption(one.row, evidence), (SEEN, BETTER, MAP), tell_missing=n > 0) for one in best]
    examples = [pair(one, _caption(one.row, evidence), (SEEN, BETTER)) for one in best[:_EXAMPLES]]
    return examples, [Section(title, note, pairs=pairs, gallery=_gallery(shown, evidence))], _drawn(best, evidence)


def surest(shown: Sequence[Shown]) -> list[Shown]:
    """The twelve surest of galaxies with a picture; first those with a better one."""
    seen = [one for one in shown if SEEN in one.pictures]
    return sorted(seen, key=lambda one: (BETTER not in one.pictures, -one.row[AFTER]))[:_PAIRS]


def about_better(shown: Sequence[Shown], bad: Sequence[str], options: ReportOptions) -> str:
    """How many galaxies have a better image."""
    if options.better is None:
        return "Give better images (`better`: a folder of files named after the ids) to see what these are."
    n = sum(BETTER in one.pictures for one in shown)
    note = f"{n} of the {len(shown)} galaxies shown have a better image."
    return note + (f" {len(bad)} can't be read (first: {bad[0]})." if bad else "")


def pair(galaxy: Shown, caption: str, wanted: Sequence[str], tell_missing: bool = False) -> Pair:
    """The wanted pictures of a galaxy; if `tell_missing`, also that a better picture is missing."""
    pictures = [(what, jpeg_source(galaxy.pictures[what])) for what in wanted if what in galaxy.pictures]
    if tell_missing and BETTER not in galaxy.pictures:
        pictures.insert(1, ("no better image", ""))
    return Pair(caption, pictures)


def _caption(row: Mapping[str, Any], evidence: Evidence) -> str:
    """The labels of a galaxy."""
    first, second = evidence.classes
    votes = "" if row.get(FRACTIONS[1]) is None else f" ({100 * row[FRACTIONS[1]]:.0f} % voted {second})"
    gold = _gold(row, evidence)
    truth = "" if gold is None else f"; {evidence.gold_name.removesuffix('s')}: {gold}"
    said = f"α = {row['alpha']:.1f}. Labelled {first}{votes}; corrected: {second} (p = {row[AFTER]:.2f}){truth}"
    return f"{said}. {row['object_id']}"


def _drawn(chosen: Sequence[Shown], evidence: Evidence) -> list[Illustration]:
    """Figures for the folder of pairs with a better image: the paper's Figure 4, and one beside Figure 1."""
    pairs, data, p = [], [], columns_of("p", evidence.classes)[1]
    for one in chosen:
        if BETTER in one.pictures:
            about = {"object_id": str(one.row["object_id"]), "alpha": one.row["alpha"], p: one.row[AFTER]}
            title = f"α {about['alpha']:.1f}, p {about[p]:.2f}"
            pairs.append({"seen": one.pictures[SEEN], "better": one.pictures[BETTER], "title": title})
            data.append(about)
    if not pairs:
        return []
    change = changed_to(evidence.classes, 0, 1)
    text = f"Galaxies that changed from {change}: above as they were labelled, below a better image."
    return [Illustration("pairs", pairs_figure(pairs), text, pl.DataFrame(data)), overview(evidence, pairs[:_EXAMPLES])]
