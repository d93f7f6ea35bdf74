"""Mean maps and profiles over a catalogue, in batches, by the class that each model predicts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.classifiers.classifier import Classifier
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, nearest
from truemorph.explain.gradcam import GradCam, upsampled
from truemorph.explain.profiles import (
    PIXELS,
    RADII,
    RADIUS,
    REACH,
    MeanMap,
    Profiles,
    moments,
    profile_difference,
    radial_profiles,
)
from truemorph.explain.sanity_check import Randomisation, randomise
from truemorph.labelling.labeller import Labeller
from truemorph.labelling.parts import Galaxies, decoded, table_part
from truemorph.progress import Progress, progress

_BATCH = 256
# Galaxies for the check with random weights, which computes dozens of maps for each.
_CHECKED = 32


# Yields the galaxies for a model in batches, each time the same: `object_id` and, if known, RADIUS, with pixels.
Source = Callable[[TrainingConfig], Iterable[Galaxies]]


def galaxies_of(frame: pl.DataFrame, root: Path) -> Source:
    """Make a source of a catalogue's galaxies, from `object_id` and `image`, a file below `root`."""
    part = table_part("galaxies", frame, root, "image")
    return lambda config: decoded(config, part.batches(_BATCH))


@dataclass(frozen=True)
class Explained:
    """Galaxies that a model assigns to one class, and maps of the evidence for it."""

    name: str  # of the class
    table: pl.DataFrame  # in the order of the profiles: `object_id`; `relation`, the role in training
    mean: MeanMap  # in pixels of the network's image
    rings: dict[str, Profiles]  # by unit of the radii: "pixel" (of the network's image) or "R_petro"

    @property
    def galaxies(self) -> int:
        """Number of galaxies."""
        return self.table.height


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
    check: Randomisation | None = None  # of the maps, with random weights
    unchecked: str = ""  # why that check could not be made

    @property
    def galaxies(self) -> int:
        """Number of galaxies."""
        return sum(of_class.galaxies for of_class in self.classes)


def explain(
    models: Mapping[str, Classifier],
    source: Source,
    galaxies: int | None = None,
    *,
    layer: str | None = None,
    rings: int = 16,
    classes: Sequence[str] = (),
    draws: int = 0,
    seed: int = 0,
) -> dict[str, Explanation]:
    """Explain models on galaxies, each galaxy for its predicted class, and show progress.

    Galaxies used in training are explained by members that did not see their labels. `rings` is the number from the
    centre to the edge of the image, or to 2 R_petro. Of several questions a galaxy has a predicted class each. Only
    galaxies of these `classes` are explained, if given. Maps are tested against `draws` networks with random weights.
    """
    every = list(dict.fromkeys(name for model in models.values() for name in model.classes))
    for class_name in classes:
        if class_name not in every:
            raise InputError(f"no class {class_name!r}; {nearest(class_name, every, what='classes')}")
    # For all models first, so that errors appear early.
    cams = {name: GradCam(model, layer) for name, model in models.items()}
    total = galaxies and galaxies * len(models)
    with progress(total, "explaining", "galaxies") as bar:
        explanations = {name: _explain(name, cam, source, rings, bar, classes) for name, cam in cams.items()}
    for name, model in models.items() if draws else ():
        explanation = explanations[name]
        pixels = next(batch.inputs for batch in source(model.config) if len(batch.inputs))[:_CHECKED]
        try:
            check = randomise(model, pixels, explanation.layer, draws, seed)
            explanations[name] = replace(explanation, check=check)
        except InputError as problem:
            explanations[name] = replace(explanation, unchecked=str(problem))
    return explanations


def _explain(name: str, cam: GradCam, source: Source, rings: int, bar: Progress, names: Sequence[str]) -> Explanation:
    model = cam.model
    numbers = [k for k, name in enumerate(model.classes) if not names or name in names]
    size, n_classes = model.config.image_size, len(model.classes)
    edges = {PIXELS: np.linspace(0, size / 2, rings + 1), RADII: np.linspace(0, REACH, rings + 1)}
    labeller = Labeller(model, cam)
    sums = np.zeros((n_classes, 3, size, size))
    parts, problems, seen = list[pl.DataFrame](), list[tuple[Any, str]](), 0
    for batch in source(model.config):
        problems += batch.problems
        seen += batch.rows.height
        roles, fold = labeller.part_in_training(batch.rows["object_id"])
        p, _ = model.out_of_fold(batch.inputs, fold, cam.member)
        bar.update(batch.rows.height + len(batch.problems))
        for head in model.heads:
            predicted = head.start + p[:, head.part].argmax(axis=1)
            chosen = np.isin(predicted, numbers)
            if not chosen.any():
                continue
            rows, pixels, predicted = batch.rows.filter(chosen), batch.inputs[chosen], predicted[chosen]
            maps = upsampled(cam.maps(pixels, predicted, fold[chosen]), size, cam.grid)
            sums += [moments(maps[predicted == k]) for k in range(n_classes)]
            profiles = {PIXELS: radial_profiles(maps, edges[PIXELS])}
            if RADIUS in rows.columns:
                radius = rows[RADIUS].to_numpy() * size / model.config.crop
                profiles[RADII] = radial_profiles(maps, edges[RADII], radius)
            relation = pl.Series(roles).filter(chosen)
            columns = {"object_id": rows["object_id"], "relation": relation, "predicted": predicted}
            # float32 halves the memory, and is the precision of the maps.
            parts.append(
                pl.DataFrame(columns | {unit: profile.astype(np.float32) for unit, profile in profiles.items()})
            )
    if not parts:
        first = f" (first: {problems[0][0]}, {problems[0][1]})" if problems else ""
        none = f"{name} predicts none of these galaxies to be {' or '.join(names)}"
        raise InputError(none if seen else f"no galaxy has a readable image{first}")
    galaxies = pl.concat(parts)
    classes = []
    for k in numbers:
        own = galaxies.filter(predicted=k)
        rings_of = {unit: Profiles(edges[unit], own[unit].to_numpy()) for unit in edges if unit in own.columns}
        table = own.select("object_id", "relation")
        classes.append(Explained(model.classes[k], table, MeanMap.of(sums[k]), rings_of))
    about = name, model.model_hash, model.config.backbone, cam.layer, cam.grid.cells, size
    return Explanation(*about, tuple(classes), problems)


def profile_table(explanations: Mapping[str, Explanation], unit: str) -> pl.DataFrame:
    """Return mean profiles of models and predicted classes, with a row per ring (`inner` to `outer`)."""
    tables = []
    for name, explanation in explanations.items():
        for group in explanation.classes:
            rings, average = group.rings[unit], group.rings[unit].average
            about = {"model": name, "class": group.name, "inner": rings.edges[:-1], "outer": rings.edges[1:]}
            measured = {"mean": average.mean, "stderr": average.stderr, "galaxies": average.count}
            tables.append(pl.DataFrame(about | measured))
    return pl.concat(tables)


def compare(explanations: Mapping[str, Explanation], bootstrap: int = 1000, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Compute differences between profiles of all pairs of models, `first` minus `second`, by `class`.

    Returns a table for each unit of the radii. Pairs without galaxies of the class, or with other rings, are left out.
    """
    tables: dict[str, list[pl.DataFrame]] = {}
    for first, second in combinations(explanations.values(), 2):
        for own, other in product(first.classes, second.classes):
            if own.name != other.name or not own.galaxies or not other.galaxies:
                continue
            ids = (own.table["object_id"].to_list(), other.table["object_id"].to_list())
            for unit, mine in own.rings.items():
                theirs = other.rings[unit]
                if np.array_equal(mine.edges, theirs.edges):
                    difference = profile_difference(mine.profiles, theirs.profiles, ids, bootstrap, seed)
                    about = {"first": first.model, "second": second.model, "class": own.name}
                    edges = {"inner": mine.edges[:-1], "outer": mine.edges[1:]}
                    tables.setdefault(unit, []).append(pl.DataFrame({**about, **edges, **difference}))
    return {unit: pl.concat(parts) for unit, parts in tables.items()}
