"""Pictures of a report: galaxies that changed, better images, what models look at, measured profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.bias.transitions import DISK
from truemorph.catalogs.catalogue import image_folder
from truemorph.errors import InputError
from truemorph.explain.catalogue import check_by_random_weights, with_geometry
from truemorph.images.decode import fits_reading
from truemorph.progress import progress
from truemorph.report import gallery
from truemorph.report.gathering import Gathered
from truemorph.report.illustrate import styles_for
from truemorph.report.options import ReportOptions
from truemorph.report.page import Check, Galaxy, Illustration, Pair

if TYPE_CHECKING:
    from truemorph.explain.study import Compared, Explanation

SERSIC = "sersic_n"
_PAIRS = 12
_RESAMPLES = 300
# Galaxies without which a distribution says nothing.
_FEWEST = 10


# Galaxies that changed


@dataclass(frozen=True)
class Chosen:
    """Galaxies for the gallery.

    Attributes
    ----------
    galaxies : list of gallery.Shown
    changed : int
        How many changed in all.
    bad : list of str
        Better images that can't be read.
    """

    galaxies: list[gallery.Shown]
    changed: int
    bad: list[str]


def shown_galaxies(found: Gathered, options: ReportOptions) -> Chosen:
    """Galaxies that changed, with their pictures and maps where there are some."""
    everything = found.everything
    changed = int((everything[gallery.CHANGE] != "").sum())
    if found.evidence.principal is None or options.galaxies == 0:
        return Chosen([], changed, [])
    chosen = gallery.choose(everything, options.galaxies)
    pictures = _pictures(found) if "image" in chosen.columns and chosen["image"].count() else None
    better = {} if options.better is None else gallery.better_pictures(options.better, chosen["object_id"])
    shown: list[gallery.Shown] = []
    bad = []
    for row in chosen.iter_rows(named=True):
        seen, cropped = _pictures_of(row, pictures)
        beside = None
        if row["object_id"] in better and options.better is not None:
            try:
                beside = gallery.Pictures(options.better).whole(better[row["object_id"]])
            except InputError as problem:
                bad.append(str(problem))
        shown.append(gallery.Shown(row, seen, cropped, beside, {}))
    if options.maps and pictures is not None:
        _add_heat(shown, found)
    return Chosen(shown, changed, bad)


def _pictures(found: Gathered) -> gallery.Pictures:
    """As the last model that sees pictures takes them."""
    root = image_folder(found.catalogue)
    if not found.with_images:
        return gallery.Pictures(root)
    config = found.with_images[-1].model.config
    return gallery.Pictures(root, config.crop, config.image_size, fits_reading(config))


def _pictures_of(row: Mapping[str, Any], pictures: gallery.Pictures | None) -> tuple[Any, Any]:
    if pictures is None or row.get("image") is None:
        return None, None
    try:
        return pictures.whole(row["image"]), pictures.cropped(row["image"])
    except InputError:  # a bad image has no label, and does not change
        return None, None


def _add_heat(shown: Sequence[gallery.Shown], found: Gathered) -> None:
    """What speaks for a disk in each of them, by every model that sees pictures of this size."""
    from truemorph.explain.gradcam import GradCam, upsampled

    with_picture = [one for one in shown if one.cropped is not None]
    if not with_picture:
        return
    pixels = np.stack([one.cropped for one in with_picture if one.cropped is not None])
    ids = [one.row["object_id"] for one in with_picture]
    last = found.with_images[-1].model.config
    for subject in found.with_images:
        config = subject.model.config
        if (config.image_size, config.crop) != (last.image_size, last.crop):
            continue
        folds = dict(zip(subject.model.seen["object_id"].cast(pl.String), subject.model.seen["fold"], strict=True))
        cam = GradCam(subject.model)
        maps = cam.maps(pixels, DISK, np.array([folds.get(one, -1) for one in ids]))
        for one, heat in zip(with_picture, upsampled(maps, last.image_size, cam.grid), strict=True):
            one.heat[subject.name] = heat


def changed_galaxies(found: Gathered) -> pl.DataFrame:
    """All galaxies whose label changes, surest first: what people said, and p(disk) before and after their label."""
    everything = found.everything
    columns = [pl.col("object_id"), pl.col("label").alias("crowd_label"), pl.col("alpha")]
    columns += [pl.col(name) for name in ("disk_fraction", "ra", "dec") if name in everything.columns]
    if gallery.PICTURE in everything.columns:
        columns.append(pl.col(gallery.PICTURE).alias("p_disk"))
    columns += [pl.col(gallery.AFTER).alias("p_disk_after"), pl.col(gallery.CHANGE).alias("change")]
    return gallery.choose(everything, everything.height).select(columns)


def described_columns(found: Gathered) -> dict[str, str]:
    """Columns that a galaxy's details give, and what they are called."""
    out = {
        "alpha": "α",
        "smooth_fraction": "votes for smooth",
        "disk_fraction": "votes for disk",
        gallery.CHANGE: "change",
    }
    for number, one in enumerate(found.subjects):
        out[f"{gallery.OURS}p{number}"] = f"{one.name}: p(disk) of the picture"
        out[f"{gallery.OURS}spread{number}"] = f"{one.name}: its spread over members"
        out[f"{gallery.OURS}posterior{number}"] = f"{one.name}: posterior p(disk)"
        out[f"{gallery.OURS}quality{number}"] = f"{one.name}: probability that people were right"
    out |= {gallery.OURS + one.name: one.name for one in found.evidence.truths.values()}
    out |= {name: name for name in (*found.evidence.intrinsic, "radius", "psf_fwhm", "ra", "dec", "split")}
    return {name: said for name, said in out.items() if name in found.everything.columns}


# Better images (Figure 4)


def _in_pairs(shown: Sequence[gallery.Shown]) -> list[gallery.Shown]:
    """Those that changed from smooth to disk, with a better image first."""
    to_disk = [one for one in shown if one.row[gallery.CHANGE] == gallery.TO_DISK and one.seen is not None]
    return sorted(to_disk, key=lambda one: (one.better is None, -one.row[gallery.AFTER]))[:_PAIRS]


def pairs(shown: Chosen, found: Gathered) -> list[Pair]:
    """Picture, better picture and map of the surest changes; empty without any better picture."""
    if not any(one.better is not None for one in shown.galaxies):
        return []
    principal = found.evidence.principal
    out = []
    for one in _in_pairs(shown.galaxies):
        pictures = [("as people saw it", "" if one.seen is None else gallery.jpeg_source(one.seen))]
        pictures.append(("no better image", "") if one.better is None else ("better", gallery.jpeg_source(one.better)))
        heat = one.heat.get(principal.name) if principal is not None else None
        if heat is not None and one.cropped is not None:
            pictures.append(("what speaks for a disk", gallery.jpeg_source(gallery.overlaid(one.cropped, heat))))
        votes = one.row.get("disk_fraction")
        out.append(
            Pair(
                f"{one.row['object_id']}: α {one.row['alpha']:.1f}, "
                + ("" if votes is None else f"votes for disk {votes:.2f}, ")
                + f"p(disk) {one.row[gallery.AFTER]:.2f}",
                pictures,
            )
        )
    return out


def pairs_note(shown: Chosen, options: ReportOptions) -> str:
    """What is said above the pairs; empty without pictures."""
    if not any(one.seen is not None for one in shown.galaxies):
        return ""
    if options.better is None:
        return (
            "No better images were given (`better` FOLDER, files named after the galaxies): Hubble's or a deeper "
            "survey's pictures of the same galaxies would show whether those that changed are disks."
        )
    n = sum(one.better is not None for one in shown.galaxies)
    bad = f" {len(shown.bad)} can't be read (first: {shown.bad[0]})." if shown.bad else ""
    return (
        f"{n} of the {len(shown.galaxies)} galaxies in the gallery have a better image in {options.better.name}.{bad} "
        "First what people saw, then the better image, then what the model takes for a disk; surest first."
    )


def pairs_illustration(shown: Chosen) -> list[Illustration]:
    """Figure 4, for the files."""
    from truemorph.report.figures import pairs_figure

    if not any(one.better is not None for one in shown.galaxies):
        return []
    chosen = _in_pairs(shown.galaxies)
    rows = [
        {"seen": one.seen, "better": one.better, "title": f"α {one.row['alpha']:.1f}, p {one.row[gallery.AFTER]:.2f}"}
        for one in chosen
    ]
    data = pl.DataFrame(
        [
            {"object_id": str(one.row["object_id"]), "alpha": one.row["alpha"], "p_disk": one.row[gallery.AFTER],
             "better_image": one.better is not None}
            for one in chosen
        ]
    )  # fmt: skip
    text = "Galaxies that changed from smooth to disk: above what people saw, below a better image."
    return [Illustration("pairs", pairs_figure(rows), text, text, data)]


# What models look at (Figures 5 to 7)


@dataclass(frozen=True)
class Looks:
    """What models look at, for the page."""

    illustrations: list[Illustration] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)


def looks(found: Gathered, options: ReportOptions) -> Looks:
    """Mean maps and profiles of the galaxies that are measured, or of so many of them."""
    frame = found.evidence.frame
    if not options.maps or not found.with_images or "image" not in frame.columns or not frame["image"].count():
        return Looks()
    from truemorph.explain.plots import difference_figure, mean_map_figure, profile_figure
    from truemorph.explain.study import PIXELS, RADII, compare, explain, galaxies_of

    frame = frame.filter(pl.col("image").is_not_null())
    if frame.height > options.maps:
        frame = frame.sample(options.maps, seed=options.seed)
    radius = "radius" if options.field else None
    frame, radii = with_geometry(frame, str(found.path), None, radius, options.field)
    source = galaxies_of(frame, image_folder(found.catalogue))
    models = {one.name: one.model for one in found.with_images}
    with progress(frame.height * len(models), "explaining", "galaxies") as told:
        explanations = explain(models, source, align=options.align, progress=told)
    compared = compare(explanations, _RESAMPLES, options.seed)
    checks = []
    if options.draws:
        try:
            checked = check_by_random_weights(models, explanations, source, options.draws, options.seed)
            checks = [
                Check("good" if one.passes else "care", f"{name}: {one.statement}") for name, one in checked.items()
            ]
        except InputError as problem:
            checks = [Check("care", f"Maps could not be checked against random weights: {problem}.")]
    what = "; ".join(f"{name}: layer {one.layer}, {one.cells}×{one.cells} cells" for name, one in explanations.items())
    every = [
        Illustration(
            "maps",
            mean_map_figure(explanations),
            f"Mean Grad-CAM maps of {frame.height:,} galaxies by model and predicted class.",
            f"Where each model looks (paper, Figures 5 and 6): mean Grad-CAM map of the galaxies that it calls smooth "
            f"or disk, {frame.height:,} in all. {what}; what is finer is interpolated.",
            _map_data(explanations),
        ),
    ]
    colours = {name: style["color"] for name, style in styles_for(found.evidence).items()}
    for unit in (PIXELS, *([RADII] if radii else [])):
        every.append(
            Illustration(
                "profiles" if unit == PIXELS else "profiles_in_radii",
                profile_figure(explanations, unit, colours),
                f"Mean Grad-CAM intensity against distance from the centre ({unit}), by model and predicted class.",
                "The same against distance from the centre (Figure 7); bands: standard errors over galaxies.",
                profile_data(explanations, unit),
            )
        )
    if options.align:
        text = "The same with every galaxy turned to one position angle, measured on its picture"
        text += ", and scaled by its radius." if radii else "."
        every.append(
            Illustration(
                "aligned_maps", mean_map_figure(explanations, turned=True), text, text, _map_data(explanations, True)
            )
        )
    if compared:
        every.append(
            Illustration(
                "differences",
                difference_figure(compared),
                "Differences of these profiles between models, with bootstrap bands.",
                "Differences of these profiles between models, galaxy by galaxy where both call it alike; bands: "
                f"68 and 95 % of {_RESAMPLES} bootstrap resamples.",
                _difference_data(compared),
            )
        )
    content = {
        name: {"layer": one.layer, "cells": one.cells, "galaxies": one.galaxies} for name, one in explanations.items()
    }
    return Looks(every, checks, content)


def _map_data(explanations: Mapping[str, Explanation], turned: bool = False) -> pl.DataFrame:
    rows = []
    for name, one in explanations.items():
        for some in one.classes:
            found = some.aligned if turned else some.mean
            if some.galaxies and found is not None:
                at: np.ndarray = np.indices(found.mean.shape).reshape(2, -1)
                pixels = {"y": at[0], "x": at[1], "mean": found.mean.ravel(), "stderr": found.stderr.ravel()}
                rows.append(
                    pl.DataFrame(pixels).select(
                        pl.lit(name).alias("model"), pl.lit(some.name).alias("predicted"), pl.all()
                    )
                )
    return pl.concat(rows)


def _difference_data(compared: Sequence[Compared]) -> pl.DataFrame:
    rows = []
    for one in compared:
        limits = {f"{end}_{fraction:.0%}": values for fraction, both in one.limits.items()
                  for end, values in zip(("low", "high"), both, strict=True)}  # fmt: skip
        rows.append(
            pl.DataFrame({"distance": one.middles, "difference": one.difference, **limits}).select(
                pl.lit(f"{one.first} - {one.second}").alias("models"), pl.lit(one.name).alias("predicted"),
                pl.lit(one.unit).alias("unit"), pl.all(),
            )
        )  # fmt: skip
    return pl.concat(rows)


def profile_data(explanations: Mapping[str, Explanation], unit: str) -> pl.DataFrame:
    """Mean profiles of models and predicted classes: `model`, `predicted`, `unit`, `distance`, `mean`, and so on."""
    rows = []
    for name, one in explanations.items():
        for some in one.classes:
            if some.galaxies and unit in some.rings:
                profile = some.rings[unit]
                columns = {"distance": profile.middles, "mean": profile.mean, "stderr": profile.stderr}
                about = {"model": name, "predicted": some.name, "unit": unit}
                rows.append(
                    pl.DataFrame(columns | {"galaxies": profile.counts}).select(
                        *(pl.lit(value).alias(column) for column, value in about.items()), pl.all()
                    )
                )
    return pl.concat(rows)


def entries(shown: Chosen, found: Gathered) -> list[Galaxy]:
    """Gallery entries."""
    return gallery.galaxies(shown.galaxies, described_columns(found)) if shown.galaxies else []
