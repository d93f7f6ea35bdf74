"""Mean maps and profiles over a catalogue, by the class that each model predicts.

Galaxies are processed in batches; only one map per class and one profile per galaxy stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.classifiers.checkpoint import Classifier
from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.explain.catalogue import RADIUS
from truemorph.explain.gradcam import GradCam, upsampled
from truemorph.explain.profiles import (
    PIXELS,
    RADII,
    REACH,
    MeanMap,
    Profiles,
    aligned,
    moments,
    profile_difference,
    radial_profiles,
)
from truemorph.images.shapes import measure_shapes
from truemorph.labelling.labeller import Labeller
from truemorph.labelling.sources import decoded, table_part
from truemorph.progress import Progress, Silence

_BATCH = 256


@dataclass(frozen=True)
class Galaxies:
    """A batch of galaxies for a network."""

    ids: pl.Series
    pixels: np.ndarray  # uint8, shape (N, S, S, 3)
    radius: np.ndarray | None = None  # Petrosian, in these pixels; NaN if unknown
    problems: Sequence[tuple[Any, str]] = ()  # ids of galaxies without a readable image, and reasons


# Yields the galaxies for a model in batches, each time the same.
Source = Callable[[TrainingConfig], Iterable[Galaxies]]


def galaxies_of(frame: pl.DataFrame, root: Path) -> Source:
    """Make a source of a catalogue's galaxies, from `object_id`, `image` (a file below `root`) and radii, if known.

    `with_geometry` adds the radii, in units of the width of an image file before cropping.
    """

    def galaxies(config: TrainingConfig) -> Iterator[Galaxies]:
        part = table_part("galaxies", frame, root, "image")
        size = config.image_size
        for rows, images in decoded(config, part.batches(_BATCH)):
            ids = rows.frame["object_id"]
            good = [row for row, image in enumerate(images) if not isinstance(image, str)]
            radius = None
            if RADIUS in frame.columns:
                radius = rows.frame[good][RADIUS].cast(pl.Float64).to_numpy() * size / config.crop
            yield Galaxies(
                ids[good],
                np.array([images[row] for row in good], np.uint8).reshape(-1, size, size, 3),
                radius,
                [(ids[row], image) for row, image in enumerate(images) if isinstance(image, str)],
            )

    return galaxies


@dataclass(frozen=True)
class Explained:
    """Galaxies that a model assigns to one class, and maps of the evidence for it."""

    name: str  # of the class
    ids: pl.Series  # in the order of the profiles
    relations: Sequence[str]  # role of each galaxy in training, as in tables of labels
    blank: np.ndarray  # whether a map is zero everywhere, because there is no evidence for the class
    mean: MeanMap  # in pixels of the network's image
    aligned: MeanMap | None  # with major axes along x
    rings: dict[str, Profiles]  # by unit

    @property
    def galaxies(self) -> int:
        """Number of galaxies."""
        return len(self.ids)


@dataclass(frozen=True)
class Explanation:
    """Explanation of one model."""

    model: str
    model_hash: str
    backbone: str
    layer: str  # of the maps
    cells: int  # per side of a map; finer structure in a mean map is interpolated
    image_size: int
    classes: tuple[Explained, ...]
    problems: list[tuple[Any, str]] = field(default_factory=list)  # galaxies left out

    @property
    def galaxies(self) -> int:
        """Number of galaxies."""
        return sum(one.galaxies for one in self.classes)


def explain(
    models: Mapping[str, Classifier],
    source: Source,
    *,
    layer: str | None = None,
    rings: int = 16,
    align: bool = False,
    progress: Progress | None = None,
) -> dict[str, Explanation]:
    """Explain models on galaxies, each galaxy for its predicted class.

    Galaxies used in training are explained by members that did not see their labels, as in labelling. `rings` is their
    number from the centre to the edge of the image, or to 2 R_petro.
    """
    # For all models first, so that errors appear early.
    cams = {name: GradCam(model, layer) for name, model in models.items()}
    return {name: _explain(name, cam, source, rings, align, progress or Silence()) for name, cam in cams.items()}


def _explain(name: str, cam: GradCam, source: Source, rings: int, align: bool, progress: Progress) -> Explanation:
    model = cam.model
    size, n_classes = model.config.image_size, len(model.classes)
    edges = {PIXELS: np.linspace(0, size / 2, rings + 1), RADII: np.linspace(0, REACH, rings + 1)}
    labeller = Labeller(model, cam)
    sums, turned = np.zeros((2, n_classes, 3, size, size))
    parts: list[pl.DataFrame] = []
    problems: list[tuple[Any, str]] = []
    for some in source(model.config):
        problems += some.problems
        progress.update(len(some.problems))
        if not len(some.ids):
            continue
        labels = labeller.label(some.ids.alias("object_id").to_frame(), some.pixels)
        predicted = labels["label"].to_numpy()
        _, fold = labeller.part_in_training(some.ids)
        maps = upsampled(cam.maps(some.pixels, predicted, fold), size, cam.grid)
        sums += [moments(maps[predicted == k]) for k in range(n_classes)]
        if align:
            straight = aligned(maps, measure_shapes(some.pixels)["angle"].to_numpy())
            turned += [moments(straight[predicted == k]) for k in range(n_classes)]
        profiles = {PIXELS: radial_profiles(maps, edges[PIXELS])}
        if some.radius is not None:
            radius = np.where(some.radius > 0, some.radius, np.nan)
            profiles[RADII] = radial_profiles(maps, edges[RADII], radius)
        columns = {"object_id": some.ids, "relation": labels["relation"], "class": predicted}
        columns["blank"] = maps.max(axis=(1, 2)) == 0
        # float32 halves the memory, and is the precision of the maps.
        parts.append(pl.DataFrame(columns | {unit: one.astype(np.float32) for unit, one in profiles.items()}))
        progress.update(len(some.ids))
    if not parts:
        first = f" (first: {problems[0][0]}, {problems[0][1]})" if problems else ""
        raise InputError(f"no galaxy has a readable image{first}")
    galaxies = pl.concat(parts)
    classes = []
    for k, kind in enumerate(model.classes):
        own = galaxies.filter(pl.col("class") == k)
        one = Explained(
            name=kind,
            ids=own["object_id"],
            relations=own["relation"].to_list(),
            blank=own["blank"].to_numpy(),
            mean=MeanMap.of(sums[k]),
            aligned=MeanMap.of(turned[k]) if align else None,
            rings={unit: Profiles(edges[unit], unit, own[unit].to_numpy()) for unit in edges if unit in own.columns},
        )
        classes.append(one)
    backbone = model.config.backbone
    return Explanation(name, model.model_hash, backbone, cam.layer, cam.grid.cells, size, tuple(classes), problems)


@dataclass(frozen=True)
class Compared:
    """Difference between the mean profiles of two models, first minus second, for one class."""

    first: str
    second: str
    name: str  # of the class
    unit: str
    edges: np.ndarray  # shape (B + 1,)
    difference: np.ndarray  # shape (B,)
    limits: dict[float, np.ndarray]  # lower and upper limits, shape (2, B), for the central 0.68 and 0.95 of resamples
    galaxies: tuple[int, int, int]  # in the first, the second, and both

    @property
    def middles(self) -> np.ndarray:
        """Radii at the middle of the rings, shape (B,)."""
        return (self.edges[1:] + self.edges[:-1]) / 2


def compare(explanations: Mapping[str, Explanation], bootstrap: int = 1000, seed: int = 0) -> list[Compared]:
    """Compute differences between profiles of all pairs of models, by class and unit.

    Galaxies are matched by id. Pairs without galaxies of the class, or with different rings (pixels of images of
    different sizes), are left out.
    """
    out = []
    for first, second in combinations(explanations.values(), 2):
        others = {some.name: some for some in second.classes}
        for one in first.classes:
            other = others.get(one.name)
            if other is None or not one.galaxies or not other.galaxies:
                continue
            ids = (one.ids.to_list(), other.ids.to_list())
            for unit, mine in one.rings.items():
                theirs = other.rings[unit]
                if np.array_equal(mine.edges, theirs.edges):
                    found = profile_difference(mine.profiles, theirs.profiles, ids, bootstrap, seed)
                    out.append(Compared(first.model, second.model, one.name, unit, mine.edges, *found))
    return out
