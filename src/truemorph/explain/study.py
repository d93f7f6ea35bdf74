"""What models look at, over a catalogue: mean maps and profiles of the galaxies that each puts into a class.

Galaxies stream through; what stays in memory is one map a class, and a profile a galaxy.
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
from truemorph.explain.gradcam import GradCam, upsampled
from truemorph.explain.profiles import (
    MapSum,
    MeanMap,
    Profile,
    ProfileDifference,
    aligned,
    mean_profile,
    profile_difference,
    radial_profiles,
)
from truemorph.images.shapes import measure_shapes
from truemorph.labelling.labeller import Labeller
from truemorph.labelling.sources import Rows, TablePart, decoded
from truemorph.progress import Progress, Silence

PIXELS, RADII = "pixel", "R_petro"
# Radii out to which profiles and aligned maps go, where radii are known.
REACH = 2.0
_BATCH = 256


@dataclass(frozen=True)
class Galaxies:
    """Some galaxies, ready for a network.

    Attributes
    ----------
    ids : polars.Series
    pixels : array of uint8, shape (N, S, S, 3)
    angle : array, shape (N,), optional
        Of the major axis, radians, from columns towards rows; NaN where unknown.
    radius : array, shape (N,), optional
        Petrosian radius in these pixels; NaN where unknown.
    problems : sequence of (id, reason)
        Galaxies that should be among them and have no good image.
    """

    ids: pl.Series
    pixels: np.ndarray
    angle: np.ndarray | None = None
    radius: np.ndarray | None = None
    problems: Sequence[tuple[Any, str]] = ()


# Galaxies as a model takes them, some at a time.
Source = Callable[[TrainingConfig], Iterable[Galaxies]]


def galaxies_of(frame: pl.DataFrame, root: Path, angle: str | None = None, radius: str | None = None) -> Source:
    """The galaxies of a catalogue.

    Parameters
    ----------
    frame : polars.DataFrame
        `object_id`, `image`.
    root : Path
        Folder of the images.
    angle : str, optional
        Column of position angles, degrees from north through east, of pictures with north up and east left.
    radius : str, optional
        Column of radii in units of the side of an image file, before the crop.
    """

    def galaxies(config: TrainingConfig) -> Iterator[Galaxies]:
        part = TablePart("galaxies", frame, root, "image")
        for rows, images in decoded(config, part.batches(_BATCH)):
            good = [row for row, image in enumerate(images) if not isinstance(image, str)]
            yield _galaxies(rows, images, good, config, angle, radius)

    return galaxies


def _galaxies(
    rows: Rows,
    images: list[np.ndarray | str],
    good: list[int],
    config: TrainingConfig,
    angle: str | None,
    radius: str | None,
) -> Galaxies:
    size, chosen = config.image_size, rows.frame[good]
    pixels = np.stack([images[row] for row in good]) if good else np.empty((0, size, size, 3), np.uint8)
    bad = set(range(len(images))) - set(good)

    def column(name: str) -> np.ndarray:
        return chosen[name].cast(pl.Float64).fill_null(np.nan).to_numpy()

    return Galaxies(
        chosen["object_id"],
        np.asarray(pixels),
        # North is up, against rows; east is left, against columns.
        None if angle is None else np.pi / 2 - np.radians(column(angle)),
        None if radius is None else column(radius) * size / config.crop,
        [(rows.frame["object_id"][row], str(images[row])) for row in sorted(bad)],
    )


@dataclass(frozen=True)
class Rings:
    """Profiles of galaxies, one a row.

    Attributes
    ----------
    edges : array, shape (B + 1,)
    unit : str
        "pixel" (of the network's picture) or "R_petro".
    profiles : array, shape (N, B)
        As `radial_profiles` gives them.
    """

    edges: np.ndarray
    unit: str
    profiles: np.ndarray

    def mean(self) -> Profile:
        """Mean over the galaxies."""
        return mean_profile(self.profiles, self.edges, self.unit)


@dataclass(frozen=True)
class Explained:
    """Galaxies that a model puts into one class, and what speaks for that class in them.

    Attributes
    ----------
    name : str
        Of the class.
    ids : polars.Series
        Of the galaxies, in the order of the profiles.
    relations : sequence of str
        Their part in training, as labels have it.
    blank : array of bool, shape (N,)
        Where nothing speaks for the class; the map is zero.
    mean : MeanMap
        In pixels of the network's picture.
    aligned : MeanMap, optional
        Major axes along x, scaled by radius where it is known.
    rings : dict of str to Rings
        By unit.
    """

    name: str
    ids: pl.Series
    relations: Sequence[str]
    blank: np.ndarray
    mean: MeanMap
    aligned: MeanMap | None
    rings: dict[str, Rings]

    @property
    def galaxies(self) -> int:
        """How many."""
        return len(self.ids)


@dataclass(frozen=True)
class Explanation:
    """What one model looks at.

    Attributes
    ----------
    model, model_hash, backbone : str
    layer : str
        Whose maps these are.
    cells : int
        Of a map, a side: what is finer in a mean map is interpolated.
    image_size : int
    classes : tuple of Explained
    problems : list of (id, reason)
        Galaxies left out.
    angles : str
        Where position angles are from; empty if maps aren't aligned.
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
        """How many."""
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
    """Explain what models see in galaxies, each galaxy for the class that the model puts it into.

    Galaxies that helped to train a model are explained by the members that never saw their labels, as in labelling.

    Parameters
    ----------
    models : mapping of str to Classifier
    source : callable
        Gives galaxies as a model takes them (`galaxies_of`), each time the same.
    layer : str, optional
        As for `GradCam`; of every model.
    rings : int
        Of the profiles, from the centre to the edge of the picture, or to 2 R_petro.
    align : bool
        Mean maps of turned and scaled galaxies too; position angles are measured on the pictures if not given.
    progress : Progress, optional
        Counts galaxies, of each model.

    Returns
    -------
    dict of str to Explanation

    Raises
    ------
    InputError
        If a model can't be explained, or no galaxy has a good image.
    """
    if rings < 1:
        raise InputError(f"rings is how many rings a profile has, 1 or more; got {rings}")
    # Before an hour is spent on the first.
    cams = {name: GradCam(model, layer) for name, model in models.items()}
    return {name: _explain(name, cam, source, rings, align, progress or Silence()) for name, cam in cams.items()}


class _Class:
    """Collects what is seen in galaxies of one class."""

    def __init__(self, name: str, size: int, edges: dict[str, np.ndarray]) -> None:
        self._name, self._edges = name, edges
        self._mean, self._aligned = MapSum(size), MapSum(size)
        self._ids: list[pl.Series] = []
        self._relations: list[str] = []
        self._blank: list[np.ndarray] = []
        self._profiles: dict[str, list[np.ndarray]] = {unit: [] for unit in edges}
        self._any_radius = self._any_angle = False

    def add(
        self,
        ids: pl.Series,
        relations: list[str],
        maps: np.ndarray,
        angle: np.ndarray | None,
        radius: np.ndarray | None,
    ) -> None:
        """Add galaxies; maps in pixels, shape (N, S, S)."""
        self._ids.append(ids)
        self._relations += relations
        self._blank.append(maps.max(axis=(1, 2), initial=0) == 0)
        self._mean.add(maps)
        known = None if radius is None else np.where(radius > 0, radius, np.nan)
        if angle is not None:
            self._any_angle = True
            self._aligned.add(aligned(maps, angle, known, extent=REACH))
        # float32 halves what stays in memory; maps have no more digits.
        self._profiles[PIXELS].append(radial_profiles(maps, self._edges[PIXELS]).astype(np.float32))
        if known is not None:
            self._any_radius = True
            self._profiles[RADII].append(radial_profiles(maps, self._edges[RADII], known).astype(np.float32))

    def explained(self) -> Explained:
        """All of it."""
        found = {PIXELS: self._profiles[PIXELS]} | ({RADII: self._profiles[RADII]} if self._any_radius else {})
        return Explained(
            self._name,
            pl.concat(self._ids) if self._ids else pl.Series("object_id", [], dtype=pl.String),
            self._relations,
            np.concatenate(self._blank) if self._blank else np.empty(0, bool),
            self._mean.mean(),
            self._aligned.mean() if self._any_angle else None,
            {
                unit: Rings(
                    self._edges[unit],
                    unit,
                    np.concatenate(some) if some else np.empty((0, self._edges[unit].size - 1), np.float32),
                )
                for unit, some in found.items()
            },
        )


def _explain(name: str, cam: GradCam, source: Source, rings: int, align: bool, progress: Progress) -> Explanation:
    model = cam.model
    size = model.config.image_size
    edges = {PIXELS: np.linspace(0, size / 2, rings + 1), RADII: np.linspace(0, REACH, rings + 1)}
    labeller = Labeller(model, cam)
    classes = [_Class(one, size, edges) for one in model.classes]
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
        angle = None
        if align:
            angles = "measured on the pictures" if some.angle is None else "given"
            angle = measure_shapes(some.pixels)["angle"].to_numpy() if some.angle is None else some.angle
        maps = upsampled(cam.maps(some.pixels, predicted, fold), size, cam.grid)
        for k, one in enumerate(classes):
            rows = np.flatnonzero(predicted == k)
            if rows.size:
                chosen = (None if values is None else values[rows] for values in (angle, some.radius))
                one.add(some.ids[rows], labels["relation"].gather(rows).to_list(), maps[rows], *chosen)
        progress.update(len(some.ids))
    found = tuple(one.explained() for one in classes)
    if not any(one.galaxies for one in found):
        first = f" (first: {problems[0][0]}, {problems[0][1]})" if problems else ""
        raise InputError(f"no galaxy with a good image to explain{first}")
    return Explanation(
        name, model.model_hash, model.config.backbone, cam.layer, cam.grid.cells, size, found, problems, angles
    )


@dataclass(frozen=True)
class Compared:
    """Profiles of one class by two models.

    Attributes
    ----------
    first, second : str
        Models.
    name : str
        Of the class.
    difference : ProfileDifference
        First less second.
    """

    first: str
    second: str
    name: str
    difference: ProfileDifference


def compare(explanations: Mapping[str, Explanation], bootstrap: int = 1000, seed: int = 0) -> list[Compared]:
    """Differences between the profiles of every two models, class by class and unit by unit.

    Galaxies are matched by id. Pairs without galaxies of the class, or with rings of other sizes (pixels of pictures of
    other sizes), are left out.
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
                found = profile_difference(mine.profiles, theirs.profiles, mine.edges, unit, ids, bootstrap, seed)
                out.append(Compared(first.model, second.model, one.name, found))
    return out
