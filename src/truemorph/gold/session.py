"""What annotators are shown: galaxies of a plan, repeats and twins, in an order of their own for each person."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from PIL import Image
from pydantic import BaseModel

from truemorph.catalogs.paths import root_answers
from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings
from truemorph.gold.answers import FIRST, REPEAT, TWIN, TWINS, person, read_answers, read_twins
from truemorph.gold.choices import levels_of
from truemorph.gold.plan import PlanFile, images_of, read_plan
from truemorph.images.decode import central_crop, decode, pixel_batches, read_image_file
from truemorph.images.degrade import degrade
from truemorph.images.stretch import unstretch
from truemorph.io import read_checked, write_json, written_whole
from truemorph.tables import write_problems, write_table

Source = Literal["better-images", "same-images", "literature"]
SESSION, LEFT_OUT = "session.json", "left_out.csv"
# Pictures between the first and the second time that a galaxy is shown; less in short plans.
_FAR_APART = 50


class SessionFile(BaseModel):
    """What is read from session.json."""

    gold_source: Source | None = None
    images: str | None = None
    better: str | None = None


@dataclass(frozen=True)
class Session:
    """A plan with its pictures."""

    folder: Path
    about: PlanFile
    images: dict[str, Path]  # by galaxy, of those that can be shown
    better: dict[str, Path]  # better images of some of them
    twins: dict[str, Path]  # degraded copies of some of them
    findings: Findings  # about galaxies of the plan that can't be shown
    source: Source  # where gold labels come from
    levels: list[dict[str, Any]] | None  # questions of a tree that are asked one after another; see `levels_of`

    def items(self, annotator: str) -> list[tuple[str, str]]:
        """Galaxy and occasion of all pictures in the order of one person."""
        return items_of(self.images, self.twins, self.about.repeats, self.about.seed, annotator)


def items_of(
    galaxies: Collection[str], twins: Collection[str], repeats: int, seed: int, annotator: str
) -> list[tuple[str, str]]:
    """Order pictures (galaxy, occasion) at random, so that a person who stops early has labelled a random part.

    The order follows from the seed and the names. The two times that a galaxy is shown are far apart.
    """

    def draw(galaxy: str, of: str = "") -> int:
        return int.from_bytes(
            hashlib.sha256(f"{seed}\n{person(annotator)}\n{of}\n{galaxy}".encode()).digest()[:8], "big"
        )

    shuffled = sorted(galaxies, key=draw)
    n = len(shuffled)
    apart = min(_FAR_APART, n // 2)
    places = [(float(k), galaxy, FIRST) for k, galaxy in enumerate(shuffled)]
    again = sorted(range(n - apart), key=lambda k: draw(shuffled[k], REPEAT))[:repeats]
    places += [(k + apart + 0.5, shuffled[k], REPEAT) for k in again]
    for k, galaxy in enumerate(shuffled):
        if galaxy in twins:
            further = apart + draw(galaxy, TWIN) / 2**64 * (n - 2 * apart)
            places.append(((k + further) % n + 0.25, galaxy, TWIN))
    return [(galaxy, occasion) for _, galaxy, occasion in sorted(places)]


def open_session(
    folder: Path,
    images: Path | str | None = None,
    better: Path | str | None = None,
    twins: int = 0,
    source: Source | None = None,
) -> Session:
    """Find and check the pictures of a plan, make the twins, and write `session.json`, which has the defaults."""
    about, plan = read_plan(folder)
    target = about.target
    before = read_session(folder)
    images = images or before.images or about.image_root
    better = better or before.better
    if images is None:
        raise InputError("give the folder of the galaxies' images (`images`)")
    shown, findings = readable_images(folder, plan, Path(images))
    beside = {} if better is None else images_of(plan.with_columns(image=pl.lit(None, pl.String)), Path(better))
    if better is not None and not beside:
        raise InputError(f"{better}: has images of none of the galaxies of the plan; name them after the ids")
    for galaxy in _unreadable(beside):
        del beside[galaxy]
    if source is None and not read_answers(folder).is_empty():  # as before
        source = before.gold_source
    used: Source = source or ("better-images" if 2 * len(beside) > len(shown) else "same-images")
    copies = _twins(folder, twins, plan.filter(pl.col("object_id").is_in(list(shown))), shown, about.seed)
    content = {"gold_source": used, "images": Path(images).resolve(), "better": better and Path(better).resolve()}
    write_json(folder / SESSION, content)
    levels = None
    if target is not None:
        counted = root_answers(target[0])["disk"]
        levels = levels_of(*target, {counted[0]: about.definition} if len(counted) == 1 else {})
        for level in levels:
            level["definition"] = about.question_definition if level["question"] == target[1] else ""
    return Session(folder, about, shown, beside, copies, findings, used, levels)


def read_session(folder: Path) -> SessionFile:
    """Read session.json of a plan folder; empty before the first session."""
    return read_checked(SessionFile, folder / SESSION) if (folder / SESSION).is_file() else SessionFile()


def readable_images(folder: Path, plan: pl.DataFrame, root: Path) -> tuple[dict[str, Path], Findings]:
    """Images of a plan's galaxies that can be decoded, by id; and a finding if others have none, which are listed."""
    images = images_of(plan, root)
    reasons = dict.fromkeys(plan["object_id"].filter(~plan["object_id"].is_in(list(images))), "no image")
    reasons |= _unreadable(images)
    if len(reasons) == plan.height:
        raise InputError(
            f"{root}: has no image of the {plan.height:,} galaxies of the plan that can be read (first: "
            f"{next(iter(reasons.values()))}); give their folder (`images`), named as in the catalogue or after the ids"
        )
    write_problems([*reasons.items()], folder / LEFT_OUT)
    if not reasons:
        return images, ()
    galaxy, why = next(iter(reasons.items()))
    hidden = f"{len(reasons):,} of {plan.height:,} galaxies of the plan cannot be shown (first: {galaxy}, {why})"
    message = f"{hidden}; they are listed in {folder / LEFT_OUT}."
    action = "Add their images (`images`), and run the same command again."
    finding = Finding("galaxies-left-out", "note", message, action)
    return {name: path for name, path in images.items() if name not in reasons}, (finding,)


def _unreadable(files: dict[str, Path]) -> dict[str, str]:
    """Reasons, by galaxy, why pictures can't be decoded."""
    galaxies = list(files)
    return {
        galaxies[k]: picture
        for first, decoded in pixel_batches(list(files.values()), TrainingConfig(image_size=32, crop=1.0))
        for k, picture in enumerate(decoded, first)
        if isinstance(picture, str)
    }


def _twins(folder: Path, n: int, plan: pl.DataFrame, images: dict[str, Path], seed: int) -> dict[str, Path]:
    """Degraded copies by galaxy: n of the highest third of α, degraded to the lowest third; made only once."""
    made = folder / TWINS
    if not made.is_file() and n:
        alpha = plan["alpha"].to_numpy()
        low, high = np.quantile(alpha, [1 / 3, 2 / 3])
        sharp = plan.filter(pl.col("alpha") > high).select("object_id", "alpha")
        if n > sharp.height:
            raise InputError(
                f"{folder}: twins are made of the {sharp.height} best resolved galaxies, not of {n} (`twins`)"
            )
        rng = np.random.default_rng([seed, 9])
        chosen = sharp[np.sort(rng.permutation(sharp.height)[:n])]
        lower = rng.choice(alpha[(alpha <= low) & (alpha > 0)], n)
        names = [f"twins/{number}.png" for number in range(n)]
        for number, (galaxy, before) in enumerate(chosen.iter_rows()):
            picture = central_crop(decode(read_image_file(images[galaxy]), galaxy), 1.0)
            radius = petrosian_radius(picture)
            twin = degrade(picture[None], np.array([before]), lower[[number]], radius, seed=seed + number)[0]
            with written_whole(folder / names[number]) as partial:
                Image.fromarray(twin).save(partial, format="PNG")
        table = chosen.with_columns(twin_alpha=pl.Series(lower), image=pl.Series(names))
        write_table(table, made)
    table = read_twins(folder)
    if n not in (0, table.height):
        raise InputError(f"{folder}: has {table.height} twins already, not {n}; leave their number out (`twins`)")
    return {
        galaxy: folder / name for galaxy, name in table.select("object_id", "image").iter_rows() if galaxy in images
    }


def petrosian_radius(picture: np.ndarray) -> float:
    """Petrosian radius (η = 0.2) of the galaxy in the middle of a picture, uint8 (S, S, 3), in pixels."""
    light = unstretch(picture).mean(axis=0)
    side = light.shape[0]
    y, x = np.indices(light.shape) - (side - 1) / 2
    ring = np.hypot(x, y).round().astype(int).ravel()
    light -= np.median(light[np.abs(y) > 0.4 * side])  # the sky
    total, count = np.bincount(ring, light.ravel()), np.maximum(np.bincount(ring), 1)
    ratio = (total / count) / np.maximum(np.cumsum(total) / np.cumsum(count), 1e-9)
    below = np.flatnonzero(ratio[2 : side // 2] < 0.2)
    return float(below[0] + 2 if below.size else side // 2)
