"""What networks look at: mean Grad-CAM maps and their profiles (Figures 5 to 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from truemorph.catalogs.catalogue import image_folder
from truemorph.errors import InputError
from truemorph.explain.catalogue import check_by_random_weights, findings_of
from truemorph.findings import Finding
from truemorph.progress import progress
from truemorph.report.checks import Check
from truemorph.report.evidence import Evidence
from truemorph.report.figures import styles_of
from truemorph.report.page import Illustration

if TYPE_CHECKING:
    from truemorph.explain.study import Explanation
    from truemorph.report.writing import ReportOptions


def looks(found: Evidence, options: ReportOptions) -> tuple[list[Illustration], list[Check], dict[str, Any]]:
    """Mean maps and profiles of at most `options.maps` of the galaxies that are measured; checks; content."""
    frame, models = found.frame, found.with_images
    if not options.maps or not models or "image" not in frame.columns or not frame["image"].count():
        return [], [], {}
    from truemorph.explain.plots import mean_map_figure, profile_figure
    from truemorph.explain.study import PIXELS, explain, galaxies_of

    frame = frame.filter(pl.col("image").is_not_null())
    if frame.height > options.maps:
        frame = frame.sample(options.maps, seed=options.seed)
    source = galaxies_of(frame, image_folder(found.catalogue))
    with progress(frame.height * len(models), "explaining", "galaxies") as told:
        explanations = explain(models, source, progress=told)
    made: list[Check] = []
    checked = {}
    if options.draws:
        try:
            checked = check_by_random_weights(models, explanations, source, options.draws, options.seed)
        except InputError as problem:
            text = f"Grad-CAM maps could not be compared with those of random weights: {problem}."
            made.append(Finding("maps-not-checked", "caution", text, "Do not interpret these maps."))
    made += findings_of(explanations, checked)
    # Maps are an illustration here: labels and fractions do not depend on them.
    made = [replace(one, severity="note") if isinstance(one, Finding) else one for one in made]
    made += [(f"Maps of {name} against random weights", one.statement) for name, one in checked.items() if one.passes]
    what = "; ".join(f"{name}: layer {one.layer}, {one.cells}×{one.cells} cells" for name, one in explanations.items())
    kinds = list(dict.fromkeys(some.name for one in explanations.values() for some in one.classes if some.galaxies))
    colours = {name: style["color"] for name, style in styles_of(found).items()}
    every = [
        Illustration(
            "maps",
            mean_map_figure(explanations),
            f"Mean Grad-CAM maps of {frame.height:,} galaxies by model and predicted class.",
            f"Where each model looks (paper, Figures 5 and 6): mean Grad-CAM map of the galaxies that it calls smooth "
            f"or disk, {frame.height:,} in all. {what}; what is finer is interpolated.",
        ),
        Illustration(
            "profiles",
            [profile_figure(_one_class(explanations, kind), PIXELS, colours) for kind in kinds],
            f"Mean Grad-CAM intensity against distance from the centre ({PIXELS}), by model and predicted class.",
            "The same against distance from the centre (Figure 7); bands: standard errors over galaxies.",
            profile_data(explanations, PIXELS),
        ),
    ]
    content = {
        name: {"layer": one.layer, "cells": one.cells, "galaxies": one.galaxies} for name, one in explanations.items()
    }
    return every, made, content


def _one_class(explanations: Mapping[str, Explanation], kind: str) -> dict[str, Explanation]:
    return {
        name: replace(one, classes=tuple(some for some in one.classes if some.name == kind))
        for name, one in explanations.items()
    }


def profile_data(explanations: Mapping[str, Explanation], unit: str) -> pl.DataFrame:
    """Mean profiles of models and predicted classes: `model`, `predicted`, `unit`, `distance`, `mean`, and so on."""
    rows = []
    for name, one in explanations.items():
        for some in one.classes:
            if some.galaxies and unit in some.rings:
                profile = some.rings[unit]
                about = {"model": name, "predicted": some.name, "unit": unit, "distance": profile.middles}
                average = profile.average
                measured = {"mean": average.mean, "stderr": average.stderr, "galaxies": average.count}
                rows.append(pl.DataFrame(about | measured))
    return pl.concat(rows)
