"""Pictures of a report: galaxies that changed, better images, what models look at, measured profiles."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.bias.transitions import DISK
from truemorph.catalogs.catalogue import image_folder
from truemorph.catalogs.resolution import FWHM_PER_SIGMA
from truemorph.catalogs.schema import numeric_columns
from truemorph.errors import InputError
from truemorph.images.decode import fits_reading
from truemorph.progress import progress
from truemorph.report import gallery
from truemorph.report.distributions import compare_distributions, cumulative_figure
from truemorph.report.evidence import Evidence
from truemorph.report.illustrate import styles_for
from truemorph.report.page import Check, Galaxy, Illustration
from truemorph.workflow.explaining import RADIUS, check_by_random_weights, with_geometry
from truemorph.workflow.reporting.gathering import Gathered, Subject
from truemorph.workflow.reporting.options import ReportOptions

if TYPE_CHECKING:
    from truemorph.explain.study import Explanation

SERSIC = "sersic_n"
_PAIRS = 12
_RESAMPLES = 300
# Galaxies without which a distribution says nothing.
_FEWEST = 10


# Galaxies that changed


def shown_galaxies(found: Gathered, options: ReportOptions) -> tuple[list[gallery.Shown], int]:
    """Galaxies for the gallery, with their pictures and maps where there are some; and how many changed in all."""
    everything = found.everything
    changed = int((everything["change"] != "").sum())
    if found.evidence.principal is None or options.galaxies == 0:
        return [], changed
    chosen = gallery.choose(everything, options.galaxies)
    pictures = _pictures(found) if "image" in chosen.columns and chosen["image"].count() else None
    better = {} if options.better is None else gallery.better_pictures(options.better, chosen["object_id"])
    shown = []
    for row in chosen.iter_rows(named=True):
        seen, cropped = _pictures_of(row, pictures)
        beside = None
        if row["object_id"] in better and options.better is not None:
            beside = gallery.Pictures(options.better).whole(better[row["object_id"]])
        shown.append(gallery.Shown(row, seen, cropped, beside, {}))
    if options.maps and pictures is not None:
        _add_heat(shown, found)
    return shown, changed


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


def described_columns(found: Gathered) -> dict[str, str]:
    """Columns that a galaxy's details give, and what they are called."""
    out = {"alpha": "α", "smooth_fraction": "votes for smooth", "disk_fraction": "votes for disk", "change": "change"}
    for number, one in enumerate(found.subjects):
        out[f"_p{number}"] = f"{one.name}: p(disk) of the picture"
        out[f"_posterior{number}"] = f"{one.name}: posterior p(disk)"
        out[f"_quality{number}"] = f"{one.name}: probability that people were right"
    out |= {f"_{one.name}": one.name for one in found.evidence.truths.values()}
    out |= {name: name for name in (*found.evidence.intrinsic, "radius", "psf_fwhm", "ra", "dec", "split")}
    return {name: said for name, said in out.items() if name in found.everything.columns}


# Better images (Figure 4)


def _in_pairs(shown: Sequence[gallery.Shown]) -> list[gallery.Shown]:
    """Those that changed from smooth to disk, with a better image first."""
    to_disk = [one for one in shown if one.row["change"] == gallery.TO_DISK and one.seen is not None]
    return sorted(to_disk, key=lambda one: (one.better is None, -one.row["after"]))[:_PAIRS]


def pairs(shown: Sequence[gallery.Shown]) -> list[tuple[str, str, str]]:
    """Caption, picture and better picture of the surest changes; empty without any better picture."""
    if not any(one.better is not None for one in shown):
        return []
    return [
        (
            f"{one.row['object_id']}: α {one.row['alpha']:.1f}, p(disk) {one.row['after']:.2f}",
            gallery.jpeg_source(one.seen) if one.seen is not None else "",
            gallery.jpeg_source(one.better) if one.better is not None else "",
        )
        for one in _in_pairs(shown)
    ]


def pairs_note(shown: Sequence[gallery.Shown], options: ReportOptions) -> str:
    """What is said above the pairs; empty without pictures."""
    if not any(one.seen is not None for one in shown):
        return ""
    if options.better is None:
        return (
            "No better images were given (--better FOLDER, files named after the galaxies): Hubble's or a deeper "
            "survey's pictures of the same galaxies would show whether those that changed are disks."
        )
    n = sum(one.better is not None for one in shown)
    return (
        f"{n} of the {len(shown)} galaxies in the gallery have a better image in {options.better.name}. Left what "
        "people saw, right the better image, surest first."
    )


def pairs_illustration(shown: Sequence[gallery.Shown]) -> list[Illustration]:
    """Figure 4, for the files."""
    from truemorph.report.figures import pairs_figure

    if not any(one.better is not None for one in shown):
        return []
    chosen = _in_pairs(shown)
    rows = [
        {"seen": one.seen, "better": one.better, "title": f"α {one.row['alpha']:.1f}, p {one.row['after']:.2f}"}
        for one in chosen
    ]
    data = pl.DataFrame(
        [
            {"object_id": str(one.row["object_id"]), "alpha": one.row["alpha"], "p_disk": one.row["after"],
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
    from truemorph.explain.study import compare, explain, galaxies_of

    frame = frame.filter(pl.col("image").is_not_null())
    if frame.height > options.maps:
        frame = frame.sample(options.maps, seed=options.seed)
    radius = "radius" if options.field else None
    frame, radii = with_geometry(frame, str(found.path), None, radius, options.field)
    source = galaxies_of(frame, image_folder(found.catalogue), None, RADIUS if radii else None)
    models = {one.name: one.model for one in found.with_images}
    with progress(frame.height * len(models), "explaining", "galaxies") as told:
        explanations = explain(models, source, progress=told)
    compared = compare(explanations, _RESAMPLES, options.seed)
    checked = (
        check_by_random_weights(models, explanations, source, options.draws, options.seed) if options.draws else {}
    )
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
        Illustration(
            "profiles",
            profile_figure(explanations),
            "Mean Grad-CAM intensity against distance from the centre, by model and predicted class.",
            "The same against distance from the centre (Figure 7); bands: standard errors over galaxies.",
            _profile_data(explanations),
        ),
    ]
    if compared:
        every.append(
            Illustration(
                "differences",
                difference_figure(compared),
                "Differences of these profiles between models, with bootstrap bands.",
                "Differences of these profiles between models, galaxy by galaxy where both call it alike; bands: "
                f"68 and 95 % of {_RESAMPLES} bootstrap resamples.",
            )
        )
    checks = [Check("good" if one.passes else "care", f"{name}: {one.statement}") for name, one in checked.items()]
    content = {
        name: {"layer": one.layer, "cells": one.cells, "galaxies": one.galaxies} for name, one in explanations.items()
    }
    return Looks(every, checks, content)


def _map_data(explanations: Mapping[str, Explanation]) -> pl.DataFrame:
    rows = []
    for name, one in explanations.items():
        for some in one.classes:
            if some.galaxies:
                y, x = np.indices(some.mean.mean.shape)
                rows.append(
                    pl.DataFrame(
                        {
                            "y": y.ravel(),
                            "x": x.ravel(),
                            "mean": some.mean.mean.ravel(),
                            "stderr": some.mean.stderr.ravel(),
                        }
                    ).select(pl.lit(name).alias("model"), pl.lit(some.name).alias("predicted"), pl.all())
                )
    return pl.concat(rows)


def _profile_data(explanations: Mapping[str, Explanation]) -> pl.DataFrame:
    rows = []
    for name, one in explanations.items():
        for some in one.classes:
            for unit, rings in some.rings.items():
                if some.galaxies:
                    profile = rings.mean()
                    rows.append(
                        pl.DataFrame(
                            {
                                "distance": profile.middles,
                                "mean": profile.mean,
                                "stderr": profile.stderr,
                                "galaxies": profile.counts,
                            }
                        ).select(
                            pl.lit(name).alias("model"),
                            pl.lit(some.name).alias("predicted"),
                            pl.lit(unit).alias("unit"),
                            pl.all(),
                        )
                    )
    return pl.concat(rows)


# Distributions (Figure 3)


def distributions(found: Gathered, options: ReportOptions) -> tuple[list[Illustration], list[Check]]:
    """Columns among smooth, disk and relabelled galaxies: those asked for, the Sérsic index where there is one."""
    frame, checks = found.evidence.frame, []
    columns = list(options.compare)
    if not columns and SERSIC in frame.columns and not options.sersic:
        columns = [SERSIC]
    every = [
        _distribution(found.evidence, numeric_columns(frame, [name], str(found.path))[:, 0], name, name, options)
        for name in columns
    ]
    if options.sersic:
        values, check = _measured_sersic(found, options)
        if np.isfinite(values).sum() >= _FEWEST:
            every.append(_distribution(found.evidence, values, SERSIC, "sersic_measured", options))
        checks.append(check)
    return every, checks


def _distribution(
    evidence: Evidence, values: np.ndarray, column: str, name: str, options: ReportOptions
) -> Illustration:
    sets = {one.name: one.disk for one in evidence.sets if one.kind not in ("crowd", "probabilities")}
    boundary = options.boundary if name == SERSIC else None  # not of indices from pictures, which are too small
    said_column = "Sérsic index" if column == SERSIC else column
    compared = compare_distributions(
        values, evidence.crowd.disk, sets or {"labels": evidence.crowd.disk}, column=column, boundary=boundary,
        bootstrap=_RESAMPLES, seed=options.seed,
    )  # fmt: skip
    said = []
    for row in compared.table().iter_rows(named=True):
        if row["panel"] in ("smooth", "to_disk") and row["ks"] is not None:
            where = "smooth" if row["panel"] == "smooth" else "smooth to disk, beside the crowd's disks"
            said.append(
                f"{row['labels']} ({where}) {row['ks']:.2f} ± {row['ks_stderr']:.2f} (chance {row['ks_floor']:.2f})"
            )
    dropped = f" {compared.n_dropped:,} galaxies without a value are left out." if compared.n_dropped else ""
    more = f" Dotted: {boundary:g}, above which galaxies are mostly smooth." if boundary is not None else ""
    return Illustration(
        f"distribution_{name}",
        cumulative_figure(compared, styles_for(evidence)),
        f"Relative cumulative curves of {said_column} for smooth, relabelled and disk galaxies by label set.",
        f"{said_column} among galaxies labelled smooth, changed, and labelled disk (paper, Figure 3). Largest distance "
        f"from the crowd's curve (Kolmogorov-Smirnov): {'; '.join(said) or 'none'}.{more}{dropped}",
        compared.table(),
    )


def _measured_sersic(found: Gathered, options: ReportOptions) -> tuple[np.ndarray, Check]:
    """Sérsic indices of some galaxies, measured on their pictures; NaN for the others."""
    from truemorph.images.sersic import GOOD, measure_sersic

    frame = found.evidence.frame.with_row_index("_row")
    if "image" not in frame.columns or not frame["image"].count():
        raise InputError(f"{found.path}: has no images to measure Sérsic indices on; prepare it with --images")
    some = frame.filter(pl.col("image").is_not_null())
    if some.height > options.sersic:
        some = some.sample(options.sersic, seed=options.seed)
    root = image_folder(found.catalogue)
    paths = [root / one for one in some["image"]]
    sigma = None
    if options.field is not None:
        sized, _ = with_geometry(some, str(found.path), None, "psf_fwhm", options.field)
        sigma = _sigma_in_pixels(paths, sized[RADIUS].to_numpy())
    measured = measure_sersic(paths, sigma)
    good = (measured["flag"] == GOOD).to_numpy()
    values = np.full(frame.height, np.nan)
    values[some["_row"].to_numpy()[good]] = measured["sersic_n"].to_numpy()[good]
    text = (
        f"Sérsic indices were measured here on the pictures of {some.height:,} galaxies, {int(good.sum()):,} of them "
        + "well"
        + ("" if sigma is not None else ", without the PSF (--field gives its width in pixels)")
        + ". Real pictures' stretch can't be undone exactly: on Galaxy Zoo JPEGs n comes out at about half of what "
        "such galaxies have. Compare curves with each other, not with n = 3."
    )
    return values, Check("care", text)


def _sigma_in_pixels(paths: Sequence[Any], share: np.ndarray) -> np.ndarray:
    """σ of the PSF in pixels of each file, from its FWHM in sides of the file; 0 where unknown."""
    from truemorph.images.decode import decode

    out = np.zeros(len(paths))
    for number, (path, width) in enumerate(zip(paths, share, strict=True)):
        if np.isfinite(width):
            try:
                out[number] = width * min(decode(path.read_bytes(), str(path)).shape[:2]) / FWHM_PER_SIGMA
            except (InputError, OSError) as problem:
                warnings.warn(str(problem), stacklevel=2)
    return out


def entries(shown: Sequence[gallery.Shown], found: Gathered) -> list[Galaxy]:
    """Gallery entries."""
    return gallery.galaxies(shown, described_columns(found)) if shown else []


def names(subjects: Sequence[Subject]) -> str:
    """Of the models, for a title."""
    return ", ".join(one.name for one in subjects)
