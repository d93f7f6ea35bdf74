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
from truemorph.explain.catalogue import ANGLE, RADIUS
from truemorph.explain.gradcam import GradCam, upsampled
from truemorph.explain.profiles import (
    PIXELS,
    RADII,
    REACH,
    MapSum,
    MeanMap,
    Profiles,
    aligned,
    profile_difference,
    radial_profiles,
)
from truemorph.images.shapes import measure_shapes
from truemorph.labelling.labeller import Labeller
from truemorph.labelling.sources import TablePart, decoded
from truemorph.progress import Progress, Silence

_BATCH = 256


@dataclass(frozen=True)
class Galaxies:
    """A batch of galaxies for a network.

    Attributes
    ----------
    ids : polars.Series
    pixels : array of uint8, shape (N, S, S, 3)
    angle : array, shape (N,), optional
        Angle of the major axis in radians, from columns towards rows; NaN if unknown.
    radius : array, shape (N,), optional
        Petrosian radius in these pixels; NaN if unknown.
    problems : sequence of (id, reason)
        Galaxies without a readable image.
    """

    ids: pl.Series
    pixels: np.ndarray
    angle: np.ndarray | None = None
    radius: np.ndarray | None = None
    problems: Sequence[tuple[Any, str]] = ()


# Yields batches of galaxies for a model.
Source = Callable[[TrainingConfig], Iterable[Galaxies]]


def galaxies_of(frame: pl.DataFrame, root: Path) -> Source:
    """Make a source of the galaxies of a catalogue.

    Parameters
    ----------
    frame : polars.DataFrame
        `object_id`, `image`; if known (`with_geometry`), position angles in degrees from north through east, for images
        with north up and east left, and radii in units of the width of an image file before cropping.
    root : Path
        Folder of the images.
    """

    def galaxies(config: TrainingConfig) -> Iterator[Galaxies]:
        part = TablePart("galaxies", frame, root, "image")
        size = config.image_size
        for rows, images in decoded(config, part.batches(_BATCH)):
            ids = rows.frame["object_id"]
            good = [row for row, image in enumerate(images) if not isinstance(image, str)]
            chosen = rows.frame[good]

            angle, radius = (
                chosen[name].cast(pl.Float64).fill_null(np.nan).to_numpy() if name in chosen.columns else None
                for name in (ANGLE, RADIUS)
            )
            yield Galaxies(
                ids[good],
                np.array([images[row] for row in good], np.uint8).reshape(-1, size, size, 3),
                # North is towards lower rows, east towards lower columns.
                None if angle is None else np.pi / 2 - np.radians(angle),
                None if radius is None else radius * size / config.crop,
                [(ids[row], image) for row, image in enumerate(images) if isinstance(image, str)],
            )

    return galaxies


@dataclass(frozen=True)
class Explained:
    """Galaxies that a model assigns to one class, and maps of the evidence for it.

    Attributes
    ----------
    name : str
        Name of the class.
    ids : polars.Series
        Ids of the galaxies, in the order of the profiles.
    relations : sequence of str
        Role of each galaxy in training, as in tables of labels.
    blank : array of bool, shape (N,)
        Whether a map is zero everywhere, because there is no evidence for the class.
    mean : MeanMap
        Mean map in pixels of the network's image.
    aligned : MeanMap, optional
        Mean map with major axes along x, scaled by radius if it is known.
    rings : dict of str to Profiles
        Profiles by unit.
    """

    name: str
    ids: pl.Series
    relations: Sequence[str]
    blank: np.ndarray
    mean: MeanMap
    aligned: MeanMap | None
    rings: dict[str, Profiles]

    @property
    def galaxies(self) -> int:
        """Number of galaxies."""
        return len(self.ids)


@dataclass(frozen=True)
class Explanation:
    """Explanation of one model.

    Attributes
    ----------
    model, model_hash, backbone : str
    layer : str
        Layer of the maps.
    cells : int
        Cells per side of a map; finer structure in a mean map is interpolated.
    image_size : int
    classes : tuple of Explained
    problems : list of (id, reason)
        Galaxies left out.
    angles : str
        Source of position angles; empty if maps are not aligned.
    """

    model: str
    model_hash: str
    backbone: str
    layer: str
    cells: int
    image_size: int
    classes: tuple[Explained, ...]
    problems: list[tuple[Any, str]] = field(default_factory=list)
    angles: str = ""

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

    Galaxies used in training are explained by members that did not see their labels, as in labelling.

    Parameters
    ----------
    models : mapping of str to Classifier
    source : callable
        Yields galaxies for a model (see `galaxies_of`), each time the same.
    layer : str, optional
        As in `GradCam`; used for every model.
    rings : int
        Number of rings, from the centre to the edge of the image, or to 2 R_petro.
    align : bool
        Whether to make aligned mean maps too; position angles are measured on the images if not given.
    progress : Progress, optional
        Counts the galaxies of each model.

    Returns
    -------
    dict of str to Explanation

    Raises
    ------
    InputError
        If a model can't be explained, or no galaxy has a readable image.
    """
    # For all models first, so that errors appear early.
    cams = {name: GradCam(model, layer) for name, model in models.items()}
    return {name: _explain(name, cam, source, rings, align, progress or Silence()) for name, cam in cams.items()}


def _explain(name: str, cam: GradCam, source: Source, rings: int, align: bool, progress: Progress) -> Explanation:
    model = cam.model
    size = model.config.image_size
    edges = {PIXELS: np.linspace(0, size / 2, rings + 1), RADII: np.linspace(0, REACH, rings + 1)}
    labeller = Labeller(model, cam)
    sums, turned = ([MapSum(size) for _ in model.classes] for _ in range(2))
    parts: list[pl.DataFrame] = []
    problems: list[tuple[Any, str]] = []
    angles = ""
    for some in source(model.config):
        problems += some.problems
        progress.update(len(some.problems))
        if not len(some.ids):
            continue
        labels = labeller.label(some.ids.alias("object_id").to_frame(), some.pixels)
        predicted = labels["label"].to_numpy()
        _, fold = labeller.part_in_training(some.ids)
        maps = upsampled(cam.maps(some.pixels, predicted, fold), size, cam.grid)
        radius = None if some.radius is None else np.where(some.radius > 0, some.radius, np.nan)
        for k, total in enumerate(sums):
            total.add(maps[predicted == k])
        if align:
            angles = "measured on the images" if some.angle is None else "given"
            angle = measure_shapes(some.pixels)["angle"].to_numpy() if some.angle is None else some.angle
            straight = aligned(maps, angle, radius)
            for k, total in enumerate(turned):
                total.add(straight[predicted == k])
        profiles = {PIXELS: radial_profiles(maps, edges[PIXELS])}
        if radius is not None:
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
        units = [unit for unit in edges if unit in own.columns and (own.height or unit == PIXELS)]
        found = {unit: Profiles(edges[unit], unit, own[unit].to_numpy()) for unit in units}
        straightened = turned[k].mean() if align and own.height else None
        relations, blank = own["relation"].to_list(), own["blank"].to_numpy()
        classes.append(Explained(kind, own["object_id"], relations, blank, sums[k].mean(), straightened, found))
    return Explanation(
        name, model.model_hash, model.config.backbone, cam.layer, cam.grid.cells, size, tuple(classes), problems, angles
    )


@dataclass(frozen=True)
class Compared:
    """Difference between the mean profiles of two models for one class.

    Attributes
    ----------
    first, second : str
        Names of the models; the difference is first minus second.
    name : str
        Name of the class.
    unit : str
        Unit of the edges.
    edges : array, shape (B + 1,)
    difference : array, shape (B,)
    limits : dict of float to array, shape (2, B)
        Lower and upper limits for the central 0.68 and 0.95 of bootstrap resamples.
    galaxies : tuple of int
        Numbers of galaxies in the first, the second, and both.
    """

    first: str
    second: str
    name: str
    unit: str
    edges: np.ndarray
    difference: np.ndarray
    limits: dict[float, np.ndarray]
    galaxies: tuple[int, int, int]

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
        for one in first.classes:
            other = next((some for some in second.classes if some.name == one.name), None)
            if other is None or not one.galaxies or not other.galaxies:
                continue
            for unit in [unit for unit in one.rings if unit in other.rings]:
                mine, theirs = one.rings[unit], other.rings[unit]
                if not np.array_equal(mine.edges, theirs.edges):
                    continue
                ids = (one.ids.to_list(), other.ids.to_list())
                found = profile_difference(mine.profiles, theirs.profiles, ids, bootstrap, seed)
                out.append(Compared(first.model, second.model, one.name, unit, mine.edges, *found))
    return out
