"""Galaxies to look at one by one: pictures, better pictures beside them, and all that is known of each."""

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from truemorph.catalogs.catalogue import TEXT_ID, find_images, image_folder
from truemorph.catalogs.columns import FRACTIONS
from truemorph.catalogs.paths import vote_column
from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.images.decode import DEFAULTS, cropped_and_resized, decode, read_image_file
from truemorph.labelling.labeller import Labeller
from truemorph.questions import columns_of
from truemorph.report.evidence import Evidence
from truemorph.report.figures import overview, pairs_figure
from truemorph.report.page import Galaxy, Gallery, Illustration, Pair, Section, Table

# Columns that a report adds to a catalogue's own, under names that no catalogue has: the probability of the most
# probable class, p(answer) from the picture alone, and the change of the label in words, empty where there is none.
OURS = "truemorph:"
AFTER, PICTURE, CHANGE = (OURS + name for name in ("after", "picture", "change"))
_BEFORE, _NOW, _CHANCES = (OURS + name for name in ("observed", "most probable", "p"))
_SAID = OURS + "by "  # and what it is, of columns that the gallery lists: by models and gold labels
# What all pictures of a page may take; the page's limit is 15 MB.
_BUDGET = 9_000_000
_SIDES = (256, 207, 160, 128, 112, 96, 64)
_THUMBNAIL = 112
_PAIRS, _EXAMPLES = 12, 4
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
    for most in (size for size in _SIDES if size <= side):
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


def choose(frame: pl.DataFrame, most: int) -> pl.DataFrame:
    """Galaxies with a `CHANGE`, surest first by `AFTER`; if there are more than `most`, evenly from all of them."""
    changed = frame.filter(pl.col(CHANGE) != "").sort(AFTER, TEXT_ID, descending=[True, False])
    return changed[np.linspace(0, changed.height - 1, min(most, changed.height)).round().astype(int)]


def better_pictures(folder: Path, ids: pl.Series) -> dict[str, str]:
    """File name by id, of galaxies that have `<id>.<ending>` in a folder of better images."""
    files = find_images(ids, None, folder)
    return {name: file for name, file in zip(ids, files, strict=True) if file is not None}


@dataclass(frozen=True)
class Shown:
    """A galaxy whose label changes, with its pictures in memory."""

    row: dict[str, Any]  # its columns
    pictures: dict[str, np.ndarray]  # uint8, by what they are: `SEEN`, `BETTER`, and `MAP` with a model
    cropped: np.ndarray | None  # as networks see it, uint8


def _with_pictures(chosen: pl.DataFrame, evidence: Evidence) -> tuple[list[Shown], list[str]]:
    """Galaxies with their pictures, and maps by the principal model; and better images that can't be read."""
    options = evidence.options
    model = evidence.principal
    imaged = "image" in chosen.columns and chosen["image"].count() > 0
    root = image_folder(evidence.catalogue) if imaged else Path()
    network = model.classifier if model is not None and model.classifier.uses_images else None
    config = DEFAULTS.model_copy(update={"image_size": 128, "crop": 1.0}) if network is None else network.config
    better = {} if options.better is None else better_pictures(options.better, chosen["object_id"])
    shown = []
    bad = []
    for row in chosen.iter_rows(named=True):
        pictures = {}
        cropped = None
        name = row.get("image")
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
    seen = [(picture, picture.cropped) for picture in shown if picture.cropped is not None]
    if options.maps and model is not None and network is not None and seen:
        from truemorph.explain.gradcam import GradCam, upsampled

        cam = GradCam(network)
        _, fold = Labeller(network, cam).part_in_training(pl.Series([picture.row["object_id"] for picture, _ in seen]))
        inputs = np.stack([cropped for _, cropped in seen])
        maps = upsampled(cam.maps(inputs, model.head.start + model.explained, fold), config.image_size, cam.grid)
        for (picture, cropped), heat in zip(seen, maps, strict=True):
            picture.pictures[MAP] = overlaid(cropped, heat)
    return shown, bad


def _formatted(value: Any) -> str:
    """A value as text, numbers with four digits."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _sky(row: Mapping[str, Any]) -> str:
    ra, dec = row.get("ra"), row.get("dec")
    if ra is None or dec is None or not np.isfinite(ra + dec):
        return ""
    return f"https://www.legacysurvey.org/viewer?ra={ra:.5f}&dec={dec:.5f}&zoom=15"


@dataclass(frozen=True)
class Changed:
    """The galaxies whose label a report changes."""

    evidence: Evidence
    frame: pl.DataFrame  # all galaxies, with what changes
    shown: Sequence[Shown]  # some of those that change, with pictures where there are any
    bad: Sequence[str]  # why better images can't be read

    @property
    def imaged(self) -> list[Shown]:
        """Those that are shown with a picture."""
        return [picture for picture in self.shown if picture.cropped is not None]

    @property
    def best(self) -> list[Shown]:
        """The twelve surest with a picture that change to the answer, or else of all; first those with a better one."""
        best = [picture for picture in self.imaged if picture.row[_NOW] == self.evidence.answer] or self.imaged
        return sorted(best, key=lambda picture: (BETTER not in picture.pictures, -picture.row[AFTER]))[:_PAIRS]

    @property
    def examples(self) -> list[Pair]:
        """A few of them for the first screen."""
        return [_pair(picture, self.evidence, (SEEN, BETTER)) for picture in self.best[:_EXAMPLES]]

    def listed(self) -> pl.DataFrame:
        """All galaxies that change, surest first: labels before and after, and probabilities."""
        evidence = self.evidence
        chosen = choose(self.frame, self.frame.height)
        chances, names = (columns_of(what, evidence.after.classes) for what in (_CHANCES, "posterior"))
        columns = {
            "object_id": "object_id",
            _BEFORE: "observed_label",
            _NOW: "most_probable",
            **{name: name for name in ("alpha", FRACTIONS[1], "ra", "dec")},
            PICTURE: columns_of("p", [evidence.answer])[0],
            **dict(zip(chances, names, strict=True)),
        }
        return chosen.select(pl.col(name).alias(to) for name, to in columns.items() if name in chosen.columns)

    def section(self) -> Section:
        """How many galaxies change from which class to which, and the surest of them."""
        evidence = self.evidence
        after = evidence.after
        rows = []
        for k, name in enumerate(after.classes):
            counts = np.bincount(after.labels[(evidence.before == k) & after.known], minlength=len(after.classes))
            rows.append([name, *(f"{count:,}" for count in counts), f"{counts.sum() - counts[k]:,}"])
        model = evidence.principal if after.model else None
        prior = "the class fractions of the estimate" if model is None else f"p(class) of {model.name}"
        note = f"From {prior} and the observed labels, through T(α). {self.file} among the page's files lists all."
        table = Table("Labels before and after", ["observed", *after.classes, "changed"], rows, note)
        title = f"{evidence.changed.sum():,} of {after.known.sum():,} galaxies change their label"
        title += "" if evidence.question is None else f": {evidence.question}"
        best = self.best
        n = sum(BETTER in picture.pictures for picture in self.shown)
        if not best:
            return Section(title, "This catalogue has no images." if self.shown else "", tables=[table])
        said = f"The surest changes to {evidence.answer}. Left: the image that was labelled. "
        said += "Middle: a better image. " if n else ""
        if any(MAP in picture.pictures for picture in best):
            said += f"Right: what raises the score of {evidence.answer} (Grad-CAM). "
        if evidence.options.better is None:
            said += "Give better images (`better`: a folder of files named after the ids) to see what these are."
        else:
            said += f"{n} of the {len(self.shown)} galaxies shown have a better image."
        said += f" {len(self.bad)} can't be read (first: {self.bad[0]})." if self.bad else ""
        pairs = [_pair(picture, evidence, (SEEN, BETTER, MAP), tell_missing=n > 0) for picture in best]
        return Section(title, said, tables=[table], pairs=pairs)

    @property
    def file(self) -> str:
        """Name of the list of all that change."""
        return f"{self.evidence.file_name('changed')}.ecsv"

    def drawn(self) -> list[Illustration]:
        """Figures for the folder of pairs with a better image: the paper's Figure 4, and one beside Figure 1."""
        pairs = []
        data = []
        p = columns_of("p", [self.evidence.answer])[0]
        for picture in self.best:
            if BETTER in picture.pictures:
                alpha, after = picture.row["alpha"], picture.row[AFTER]
                title = f"α {alpha:.1f}, p {after:.2f}"
                pairs.append({"seen": picture.pictures[SEEN], "better": picture.pictures[BETTER], "title": title})
                data.append({"object_id": picture.row["object_id"], "alpha": alpha, p: after})
        if not pairs:
            return []
        text = f"Galaxies that changed to {self.evidence.answer}: above as they were labelled, below a better image."
        drawn = Illustration("pairs", pairs_figure(pairs), text, pl.DataFrame(data))
        return [drawn, overview(self.evidence, pairs[:_EXAMPLES])]


def changed_galaxies(evidence: Evidence, galaxies: int) -> Changed:
    """Find the galaxies whose label changes, with pictures of some `galaxies`."""
    after = evidence.after
    classes = np.array(after.classes)
    columns: dict[str, Any] = {
        _BEFORE: classes[evidence.before],
        _NOW: classes[after.labels],
        AFTER: np.nan_to_num(after.probabilities).max(axis=1),
        **dict(zip(columns_of(_CHANCES, after.classes), after.probabilities.T, strict=True)),
    }
    columns |= _said_by_models(evidence)
    for truth in evidence.truths.values():
        names = dict(enumerate(truth.classes))
        columns[_SAID + truth.name] = list(map(names.get, truth.labels))  # None where unknown
    frame = evidence.everything.hstack(pl.DataFrame(columns).fill_nan(None))
    change = pl.when(pl.Series(evidence.changed)).then(pl.format("{} to {}", _BEFORE, _NOW)).otherwise(pl.lit(""))
    frame = frame.with_columns(change.alias(CHANGE))
    return Changed(evidence, frame, *_with_pictures(choose(frame, galaxies), evidence))


def _said_by_models(evidence: Evidence) -> dict[str, np.ndarray]:
    """p(answer | the question applies) of all galaxies by each model, (N,), and by the principal one's picture."""
    fraction_of = evidence.quantity.of
    said = {}
    for model in evidence.models:
        if model is evidence.principal:
            said[PICTURE] = fraction_of(model.probabilities.probabilities)
        for what, labels in (("of the picture", model.probabilities), ("after", model.posterior)):
            if labels is not None:
                said[f"{_SAID}{model.name}: p({evidence.answer}) {what}"] = fraction_of(labels.probabilities)
    return said


def gallery_of(every: Sequence[Changed]) -> Gallery | None:
    """The galaxies that change, with pictures, of all questions."""
    shown = [picture for changed in every for picture in changed.imaged]
    if not shown:
        return None
    several = len(every) > 1
    most = max(1 + len(picture.pictures) for picture in shown)  # with a thumbnail
    limit = _BUDGET // (len(shown) * most)
    counted = "the answer" if several else every[0].evidence.answer
    ranges = {"posterior": "p of the most probable class", "p": f"p({counted}) of the picture", "alpha": "α"}
    ranges |= {} if several else {"votes": f"votes for {counted}"}
    choices = {"question": "question"} if several else {}
    choices |= {"change": "change", "truth": "gold label", "split": "split"}
    galaxies = [_galaxy(picture, changed.evidence, limit) for changed in every for picture in changed.imaged]
    note = (
        "From the surest to the least sure. Choose a galaxy for larger pictures and its values; the arrow keys go to "
        "the next. The page's files list all that change."
    )
    return Gallery(note, galaxies, ranges, choices)


def _gold(row: Mapping[str, Any], evidence: Evidence) -> str | None:
    """The class by the first definition, in words."""
    return None if evidence.truth is None else row[_SAID + evidence.truth.name]


def _votes(row: Mapping[str, Any], evidence: Evidence) -> dict[str, str]:
    """Votes at each question, or fractions of votes for each class, in words."""
    if evidence.asked is None:
        fractions = ((name, row.get(column)) for name, column in zip(evidence.classes, FRACTIONS, strict=False))
        return {f"votes for {name}": f"{value:.3g}" for name, value in fractions if value is not None}
    said = {}
    for question in evidence.asked.questions:
        counts = {answer: float(row[vote_column(question.name, answer)] or 0) for answer in question.answers}
        text = ", ".join(f"{number:.0f} {answer}" for answer, number in counts.items() if number > 0)
        said[f"votes: {question.name}"] = text or "nobody was asked"
    return said


def _galaxy(galaxy: Shown, evidence: Evidence, limit: int) -> Galaxy:
    row = galaxy.row
    gold = _gold(row, evidence)
    keys = {
        "posterior": row[AFTER],
        "p": row.get(PICTURE),
        "alpha": row["alpha"],
        "votes": row.get(FRACTIONS[1]),
        "split": row.get("split"),
        "change": row[CHANGE],
        "truth": gold,
        "question": evidence.title,
    }
    caption = [f"α {row['alpha']:.1f}, p {row[AFTER]:.2f}", row[CHANGE], *([f"gold: {gold}"] if gold else [])]
    details = [("α", _formatted(row["alpha"])), ("observed label", row[_BEFORE]), ("change", row[CHANGE])]
    details += _votes(row, evidence).items()
    classes = evidence.after.classes
    chances = zip(classes, columns_of(_CHANCES, classes), strict=True)
    details += [(f"p({name}) given the label", _formatted(row[column])) for name, column in chances]
    details += [(name.removeprefix(_SAID), _formatted(row[name])) for name in row if name.startswith(_SAID)]
    more = (*evidence.options.intrinsic, "radius", "psf_fwhm", "ra", "dec", "split")
    details += [(name, _formatted(row[name])) for name in more if name in row]
    details += [] if BETTER in galaxy.pictures else [(BETTER, "none")]
    return Galaxy(
        name=row["object_id"],
        thumbnail="" if galaxy.cropped is None else jpeg_source(galaxy.cropped, limit, _THUMBNAIL),
        caption=caption,
        keys={name: round(value, 4) if isinstance(value, float) else value for name, value in keys.items()},
        pictures=[(what, jpeg_source(pixels, limit)) for what, pixels in galaxy.pictures.items()],
        details=details,
        link=_sky(row),
    )


def _pair(galaxy: Shown, evidence: Evidence, kinds: Sequence[str], tell_missing: bool = False) -> Pair:
    """The wanted pictures of a galaxy, and its labels; if `tell_missing`, also that a better picture is missing."""
    pictures = [(what, jpeg_source(galaxy.pictures[what])) for what in kinds if what in galaxy.pictures]
    if tell_missing and BETTER not in galaxy.pictures:
        pictures.insert(1, ("no better image", ""))
    row = galaxy.row
    texts = [said if evidence.asked else f"{name} {said}" for name, said in _votes(row, evidence).items()]
    votes = "; ".join(said for said in texts if said != "nobody was asked")
    gold = _gold(row, evidence)
    truth = "" if gold is None else f"; {evidence.gold_name.removesuffix('s')}: {gold}"
    said = f"α = {row['alpha']:.1f}. Labelled {row[_BEFORE]}{f' ({votes})' if votes else ''}; corrected: {row[_NOW]}"
    return Pair(f"{said} (p = {row[AFTER]:.2f}){truth}. {row['object_id']}", pictures)
