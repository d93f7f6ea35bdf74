"""What annotators are shown: galaxies of a plan, repeats and twins, in an order of their own for each person."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from PIL import Image

from truemorph.catalogs.catalogue import find_images
from truemorph.errors import InputError
from truemorph.gold.answers import FIRST, REPEAT, TWIN, TWINS, create_answers, read_answers
from truemorph.gold.plan import read_plan
from truemorph.images.decode import central_crop, decode, read_image_file
from truemorph.images.degrade import degrade
from truemorph.images.inputs import pixel_batches
from truemorph.images.stretch import unstretch
from truemorph.io import read_json, write_json, written_whole
from truemorph.tables import CatalogTable, write_table

Source = Literal["better-images", "same-images", "literature"]
SESSION, LEFT_OUT = "session.json", "left_out.csv"
# Pictures between the first and the second time that a galaxy is shown; less in short plans.
_FAR_APART = 50


@dataclass(frozen=True)
class Session:
    """A plan with its pictures.

    Attributes
    ----------
    folder : Path
    images, better, twins : dict of str to Path
        Files by galaxy: its picture, a better one, and a degraded copy.
    repeats : int
        Galaxies that are shown twice.
    seed : int
    errors : list of (int, float)
        Predicted error of the disk fraction after so many labels.
    left_out : polars.DataFrame
        `object_id` and `reason` of galaxies of the plan that can't be shown.
    source : str
        Where gold labels come from.
    """

    folder: Path
    images: dict[str, Path]
    better: dict[str, Path]
    twins: dict[str, Path]
    repeats: int
    seed: int
    errors: list[tuple[int, float]]
    left_out: pl.DataFrame
    source: Source

    def items(self, annotator: str) -> list[tuple[str, str]]:
        """Galaxy and occasion of all pictures in the order of one person."""
        return items_of(self.images, self.twins, self.repeats, self.seed, annotator)

    def picture(self, galaxy: str, occasion: str) -> Path:
        """File of an item."""
        return self.twins[galaxy] if occasion == TWIN else self.images[galaxy]


def items_of(
    galaxies: Collection[str], twins: Collection[str], repeats: int, seed: int, annotator: str
) -> list[tuple[str, str]]:
    """Order the pictures for one person: random, so that a person who stops early has labelled a random part.

    The order follows from the seed and the names, so that it stays when galaxies are added. The two times that a galaxy
    is shown are far apart, and so are a twin and its original.

    Returns
    -------
    list of (galaxy, occasion)

    Examples
    --------
    >>> items_of(["a", "b", "c", "d"], ["b"], 1, 0, "Ann")
    [('a', 'first'), ('b', 'first'), ('d', 'first'), ('a', 'repeat'), ('c', 'first'), ('b', 'twin')]
    """

    def draw(galaxy: str, of: str = "") -> int:
        return int.from_bytes(hashlib.sha256(f"{seed}\n{annotator}\n{of}\n{galaxy}".encode()).digest()[:8], "big")

    shuffled = sorted(galaxies, key=draw)
    n = len(shuffled)
    apart = min(_FAR_APART, n // 2)
    places = [(float(k), one, FIRST) for k, one in enumerate(shuffled)]
    again = sorted(range(n - apart), key=lambda k: draw(shuffled[k], REPEAT))[:repeats]
    places += [(k + apart + 0.5, shuffled[k], REPEAT) for k in again]
    for k, one in enumerate(shuffled):
        if one in twins:
            further = apart + draw(one, TWIN) / 2**64 * (n - 2 * apart)
            places.append(((k + further) % n + 0.25, one, TWIN))
    return [(galaxy, occasion) for _, galaxy, occasion in sorted(places)]


def open_session(
    folder: Path,
    images: Path | str | None = None,
    better: Path | str | None = None,
    twins: int = 0,
    source: Source | None = None,
) -> Session:
    """Find and check the pictures of a plan, make the twins, and write `session.json`.

    What is not given is that of the session before, once there are answers.

    Raises
    ------
    InputError
        If the folder is not that of a plan, has no pictures, or was begun with another source or number of twins.
    """
    about, plan = read_plan(folder)
    create_answers(folder)
    begun = not read_answers(folder).is_empty() and (folder / SESSION).is_file()
    before: dict[str, Any] = read_json(folder / SESSION) if begun else {"images": about.get("image_root")}
    used: Source = source or ("better-images" if better else before.get("gold_source", "same-images"))
    images, better = _folder(images or before.get("images")), _folder(better or before.get("better"))
    if begun and used != before["gold_source"]:
        raise InputError(
            f"{folder}: its answers come from {before['gold_source']}, and a plan has one source; leave it out "
            f"(`gold_source`), or make a new plan for {used}"
        )
    if images is None:
        raise InputError("give the folder of the galaxies' images (`images`)")
    ids = plan["object_id"]
    found = _files(ids, plan["image"], images, "images")
    if not found:
        raise InputError(
            f"{images}: has no image of the {plan.height:,} galaxies of the plan; images are named as in the catalogue "
            f"or after the id, such as {ids[0]}.jpg"
        )
    unreadable = _unreadable(found)
    reasons = {one: "no image" for one in ids if one not in found} | unreadable
    shown = {one: path for one, path in found.items() if one not in unreadable}
    if not shown:
        raise InputError(f"{images}: no image can be read (first: {next(iter(unreadable.values()))})")
    beside = {} if better is None else _files(ids, None, better, "better")
    if better is not None and not beside:
        raise InputError(
            f"{better}: has images of none of the galaxies of the plan; name them after the ids, such as {ids[0]}.jpg"
        )
    for one in _unreadable(beside):
        del beside[one]
    copies = _twins(folder, twins, plan.filter(pl.col("object_id").is_in(list(shown))), shown, about["seed"])
    left_out = pl.DataFrame(
        {"object_id": list(reasons), "reason": list(reasons.values())},
        schema={"object_id": pl.String, "reason": pl.String},
    )
    write_table(CatalogTable(left_out), folder / LEFT_OUT)
    session = {
        "gold_source": used,
        "images": str(images.resolve()),
        "better": None if better is None else str(better.resolve()),
        "galaxies": len(shown),
        "with_better_image": len(beside),
        "left_out": left_out.height,
        "twins": len(copies),
    }
    write_json(folder / SESSION, session)
    return Session(
        folder, shown, beside, copies, about["repeats"], about["seed"], predicted_errors(about), left_out, used
    )


def predicted_errors(about: dict[str, Any]) -> list[tuple[int, float]]:
    """Largest error of the disk fraction over the bins of α after so many labels of a plan, as predicted."""
    labels, last = about["labels"], max(about["predicted"])
    rows = [(row["labels"], row["planned"]) for row in about["comparison"] if row["labels"] < labels]
    known = np.array([*rows, (labels, last)], dtype=float)
    counts = np.unique(np.geomspace(min(10, labels), labels, 40).round())
    errors = np.exp(np.interp(np.log(counts), *np.log(known).T))
    few = counts < known[0, 0]
    errors[few] = known[0, 1] * np.sqrt(known[0, 0] / counts[few])
    return [(int(n), float(min(error, 0.5))) for n, error in zip(counts, errors, strict=True)]


def petrosian_radius(picture: np.ndarray) -> float:
    """Petrosian radius (η = 0.2) of the galaxy in the middle of a picture, uint8 (S, S, 3), in pixels."""
    light = unstretch(picture).mean(axis=0)
    side = light.shape[0]
    y, x = np.indices(light.shape) - (side - 1) / 2
    ring = np.hypot(x, y).round().astype(int)
    edge = max(2, side // 10)
    light = light - np.median(np.concatenate([light[:edge].ravel(), light[-edge:].ravel()]))
    total, count = np.bincount(ring.ravel(), light.ravel()), np.maximum(np.bincount(ring.ravel()), 1)
    ratio = (total / count) / np.maximum(np.cumsum(total) / np.cumsum(count), 1e-9)
    below = np.flatnonzero(ratio[2 : side // 2] < 0.2)
    return float(below[0] + 2 if below.size else side // 2)


def _folder(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def _files(ids: pl.Series, names: pl.Series | None, root: Path, argument: str) -> dict[str, Path]:
    """Files of galaxies in a folder: under the names of the catalogue, or else named after the id."""
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder; name the folder of the images (`{argument}`)")
    found = find_images(ids, None, root)
    if names is not None and names.count():
        named = find_images(ids, names, root)
        found = [one or other for one, other in zip(named, found, strict=True)]
    return {galaxy: root / name for galaxy, name in zip(ids, found, strict=True) if name is not None}


def _unreadable(files: dict[str, Path]) -> dict[str, str]:
    """Reasons, by galaxy, why pictures can't be decoded."""
    galaxies = list(files)
    return {
        galaxies[rows.start + k]: one
        for rows, decoded in pixel_batches(list(files.values()), size=8, crop=1.0)
        for k, one in enumerate(decoded)
        if isinstance(one, str)
    }


def _twins(folder: Path, n: int, plan: pl.DataFrame, images: dict[str, Path], seed: int) -> dict[str, Path]:
    """Degraded copies by galaxy; made once, by the first session that wants some."""
    made = folder / TWINS
    if not made.is_file() and n:
        _make_twins(folder, n, plan, images, seed)
    if not made.is_file():
        return {}
    table = pl.read_parquet(made)
    if n not in (0, table.height):
        raise InputError(f"{folder}: has {table.height} twins already, not {n}; leave their number out (`twins`)")
    return {one: folder / name for one, name in table.select("object_id", "image").iter_rows() if one in images}


def _make_twins(folder: Path, n: int, plan: pl.DataFrame, images: dict[str, Path], seed: int) -> None:
    """Degrade n galaxies of the highest third of α to resolutions of the lowest third."""
    alpha = plan["alpha"].to_numpy()
    low, high = np.quantile(alpha, [1 / 3, 2 / 3])
    sharp = plan.filter(pl.col("alpha") > high)
    if n > sharp.height:
        raise InputError(f"{folder}: twins are made of the {sharp.height} best resolved galaxies, not of {n} (`twins`)")
    rng = np.random.default_rng([seed, 9])
    chosen = sharp[np.sort(rng.permutation(sharp.height)[:n])]
    lower = rng.choice(alpha[(alpha <= low) & (alpha > 0)], n)
    names = [f"twins/{number}.png" for number in range(n)]
    for number, (galaxy, before) in enumerate(chosen.select("object_id", "alpha").iter_rows()):
        picture = central_crop(decode(read_image_file(images[galaxy]), galaxy), 1.0)
        radius = petrosian_radius(picture)
        twin = degrade(picture[None], np.array([before]), lower[[number]], radius, seed=seed + number)[0]
        with written_whole(folder / names[number]) as partial:
            Image.fromarray(twin).save(partial, format="PNG")
    table = chosen.select("object_id", "alpha").with_columns(twin_alpha=pl.Series(lower), image=pl.Series(names))
    write_table(CatalogTable(table), folder / TWINS)
