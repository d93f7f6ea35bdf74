"""Figures 3 to 7: distributions of the Sérsic index, pairs with HST, Grad-CAM maps and profiles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.transitions import CLASS_NAMES, DISK, SMOOTH
from truemorph.catalogs.catalogue import image_folder
from truemorph.catalogs.physical import FIELD_R90
from truemorph.classifiers.checkpoint import load
from truemorph.errors import InputError
from truemorph.explain.catalogue import check_by_random_weights
from truemorph.explain.profiles import MeanMap, Profiles
from truemorph.explain.study import PIXELS, Explained, Explanation, explain, galaxies_of
from truemorph.io import written_whole
from truemorph.progress import progress
from truemorph.report import gallery
from truemorph.report.distributions import Distributions, compare_distributions
from truemorph.report.figures import STYLE, Style
from truemorph.reproduce.catalogue import fetch_archive
from truemorph.reproduce.models import MODEL, NETWORKS
from truemorph.reproduce.options import CONFIG
from truemorph.reproduce.paper import DCV14, DDB, FIGURE_3, GZ2B, GZ2D, RESNET_GZ2B, RESNET_GZ2D
from truemorph.reproduce.stages import FAILED, TEST_ROWS, Lacks, Stage, Work, images_digest, once
from truemorph.reproduce.table1 import MODELS, all_labels, measured, titles
from truemorph.tables import CatalogTable, numeric_columns, read_table, write_table

CHANGED, VERDICTS, KINDS = "changed.csv", "verdicts.csv", ("arms", "lenticular", "unclear")
_MAPS = "explanations.npz"
_RESAMPLES = 300
_FEWEST = 10


def styles(work: Work) -> dict[str, Style]:
    """Return the style of each row of Table 1, by short name."""
    names = titles(work, short=True)
    return {
        names[GZ2B]: STYLE["observed"],
        names[GZ2D]: {"color": "#E69F00", "marker": "v", "ls": "-."},
        names[RESNET_GZ2B]: STYLE["naive"],
        names[RESNET_GZ2D]: {"color": "#CC79A7", "marker": "P", "ls": "--"},
        names[DCV14]: {"color": "#009E73", "marker": "X", "ls": ":"},
        names[DDB]: STYLE["debiased"],
    }


# Figure 3


def _sersic_from(work: Work) -> dict[str, Any]:
    frame = work.catalogue("catalogue", TEST_ROWS).frame
    name = work.inputs.sersic_index
    if name not in frame.columns or frame[name].cast(pl.Float64, strict=False).count() < _FEWEST:
        what = f"Sérsic indices (column {name}; Simard et al. 2011)"
        raise work.lacks(what, "simard", f"`sersic_table`, and sersic_index in {CONFIG}")
    asked = {key: getattr(work.options, key) for key in ("every_curve", "bootstrap", "seed")}
    return {"column": name, **asked, "from": work.keys(("catalogue", GZ2D, *MODELS))}


@once
def sersic_curves(work: Work) -> Distributions:
    """Return the distributions of the Sérsic index by label set (Figure 3)."""
    found, names, options = measured(work), titles(work, short=True), work.options
    values = numeric_columns(found.frame, [work.inputs.sersic_index], "the sample")[:, 0]
    drawn = found.sets if options.every_curve else FIGURE_3
    sets = {names[name]: one.disk for name, one in found.sets.items() if name != GZ2B and name in drawn}
    return compare_distributions(
        values, found.observed.disk, sets, column="sersic_n", observed_name=names[GZ2B],
        bootstrap=min(_RESAMPLES, 10 * options.bootstrap), seed=options.seed,
    )  # fmt: skip


def _make_sersic(work: Work, folder: Path) -> dict[str, Any]:
    curves = sersic_curves(work)
    table = curves.table
    smooth = table.filter((pl.col("panel") == "smooth") & (pl.col("labels") == curves.observed_name))
    return {
        "galaxies": curves.n_galaxies,
        "without_index": curves.n_dropped,
        "disk_like_among_smooth": 1 - smooth["share_above"][0] if smooth.height else None,
        "table": table.to_dicts(),
    }


# Figure 4


def _list_changed(work: Work, folder: Path) -> dict[str, Any]:
    """List test galaxies labelled smooth by volunteers and disk by DDB, highest p(disk) first, with positions."""
    frame, hard, soft = all_labels(work)
    moved = (hard[GZ2B] == SMOOTH) & (hard[DDB] == DISK)
    own = [name for name in ("object_id", "ra", "dec", "alpha", "image", "disk_fraction") if name in frame.columns]
    # HST images show the field of the volunteers' image.
    width = FIELD_R90 * pl.col("petroR90_r") if "petroR90_r" in frame.columns else pl.lit(None, pl.Float64)
    chosen = frame.select(*own, fov=width).with_columns(p_disk=pl.Series(soft[DDB])).filter(pl.Series(moved))
    chosen = chosen.sort("p_disk", "object_id", descending=[True, False])
    write_table(CatalogTable(chosen), folder / CHANGED)
    return {
        "changed": chosen.height,
        "of_smooth": int((hard[GZ2B] == SMOOTH).sum()),
        "places": "ra" in own and "dec" in own,
    }


def _better(work: Work) -> tuple[Path, pl.DataFrame]:
    """Return the folder of HST images, and the changed galaxies that have one (file in the column `better`)."""
    folder = Path(work.inputs.better or work.data / "hst").resolve()
    table = pl.read_csv(work.file("changed", CHANGED), schema_overrides={"object_id": pl.String, "fov": pl.Float64})
    files = gallery.better_pictures(folder, table["object_id"]) if folder.is_dir() else {}
    better = pl.col("object_id").replace_strict(files, default=None, return_dtype=pl.String)
    return folder, table.with_columns(better=better).filter(pl.col("better").is_not_null())


def _pairs_from(work: Work) -> dict[str, Any]:
    found, listed, ours = work.result("changed"), work.file("changed", CHANGED), work.data / "hst"
    fetch = work.options.fetch and not work.options.dry_run and work.inputs.better in (None, str(ours.resolve()))
    if fetch and found["places"] and found["changed"]:
        outcome = fetch_archive("hst", work.data, positions=listed)
        if outcome.status == FAILED:  # show existing images
            work.outcomes[outcome.name] = outcome
    folder, table = _better(work)
    if not folder.is_dir():
        places = "" if found["places"] else " (and columns ra, dec)"
        raise Lacks(f"HST images{places}: truemorph fetch hst --positions {listed} --out {ours}, or `better`")
    read = verdicts(work.out / VERDICTS)
    return {
        "from": work.keys(("catalogue", DDB, "changed")),
        "better": work.files_digest(folder, table["better"]),
        "folder": str(folder),
        "verdicts": {name: read[name] for name in table["object_id"] if read.get(name)},
    }


def _make_pairs(work: Work, folder: Path) -> dict[str, Any]:
    """Count the pairs and the reader's verdicts; add rows without a verdict to the file for them."""
    better, table = _better(work)
    path = work.out / VERDICTS
    read = verdicts(path)
    every = read | {name: read.get(name, "") for name in table["object_id"]}
    with written_whole(path) as partial:
        pl.DataFrame({"object_id": every.keys(), "verdict": every.values()}).write_csv(partial)
    given = [every[name] for name in table["object_id"]]
    return {
        "changed": work.result("changed")["changed"],
        "with_better": table.height,
        "folder": str(better),
        "verdicts": {one: given.count(one) for one in KINDS},
    }


def verdicts(path: Path) -> dict[str, str]:
    """Read a reader's verdicts on HST images, by object id; empty text where there is none yet.

    Raises
    ------
    InputError
        If a verdict is not one of `KINDS`.
    """
    if not path.is_file():
        return {}
    frame = read_table(path).frame.select(pl.col("object_id", "verdict").cast(pl.String)).fill_null("")
    found = {name: verdict.strip().lower() for name, verdict in frame.iter_rows()}
    wrong = [(name, verdict) for name, verdict in found.items() if verdict not in ("", *KINDS)]
    if wrong:
        raise InputError(f"{path}: verdict of {wrong[0][0]} is {wrong[0][1]!r}; write {', '.join(KINDS)}, or nothing")
    return found


def pairs(work: Work) -> Iterator[dict[str, Any]]:
    """Yield images of changed galaxies with an HST image: `object_id`, `title`, `seen`, `better`.

    Ids and, where the width of the field is known, a bar of 5 arcsec are drawn on the images.
    """
    folder, table = _better(work)
    root = image_folder(work.catalogue())
    for row in table.iter_rows(named=True):
        try:
            pictures = gallery.whole_picture(root / row["image"]), gallery.whole_picture(folder / row["better"])
        except InputError:  # skip unreadable images
            continue
        name, title = row["object_id"], f"α = {row['alpha']:.1f}, p(disk) = {row['p_disk']:.2f}"
        seen, sharp = (gallery.annotated(one, name, row["fov"]) for one in pictures)
        yield {"object_id": name, "title": title, "seen": seen, "better": sharp}


# Figures 5 to 7


def _maps_from(work: Work) -> dict[str, Any]:
    there = [name for name in NETWORKS if work.have(name)]
    if not there:
        raise Lacks(f"a network for Grad-CAM: {work.outcomes[DDB].text or f'stage {DDB}'}")
    test = work.catalogue("catalogue", TEST_ROWS).frame
    return {
        "models": {name: work.result(name)["model_hash"] for name in there},
        "galaxies": work.rows_digest(test, ("object_id", "image")),
        "images": images_digest(work),
        "draws": work.options.draws,
        "seed": work.options.seed,
    }


def _make_maps(work: Work, folder: Path) -> dict[str, Any]:
    """Make mean Grad-CAM maps and profiles of all test galaxies, and compare them with random weights."""
    test, names = work.catalogue("catalogue", TEST_ROWS), titles(work, short=True)
    frame = test.frame.filter(pl.col("image").is_not_null())
    models = {names[name]: load(work.file(name, MODEL)) for name in NETWORKS if work.have(name)}
    source = galaxies_of(frame, image_folder(test))
    with progress(frame.height * len(models), "Grad-CAM", "galaxies") as reported:
        explanations = explain(models, source, progress=reported)
    checks, problem = {}, ""
    if work.options.draws:
        try:
            checks = check_by_random_weights(models, explanations, source, work.options.draws, work.options.seed)
        except InputError as why:  # for example maps of one galaxy
            problem = str(why)
    write_explanations(explanations, folder)
    return {
        "models": {name: _looks(one) for name, one in explanations.items()},
        "random_weights": {name: {"passes": one.passes, "statement": one.statement} for name, one in checks.items()},
        "not_checked": problem,
    }


def _looks(one: Explanation) -> dict[str, Any]:
    """Return the mean Grad-CAM intensity in the inner and the outer third of the radius, by class."""
    out: dict[str, Any] = {"layer": one.layer, "cells": one.cells, "problems": len(one.problems)}
    for some in one.classes:
        inner = outer = None
        if some.galaxies:
            thirds = np.array_split(some.rings[PIXELS].mean, 3)
            inner, outer = float(np.nanmean(thirds[0])), float(np.nanmean(thirds[2]))
        out[some.name] = {"galaxies": some.galaxies, "inner": inner, "outer": outer}
    return out


def write_explanations(explanations: dict[str, Explanation], folder: Path) -> None:
    """Save maps and profiles, because computing them takes hours at full scale."""
    about = [
        {key: getattr(one, key) for key in ("model", "model_hash", "backbone", "layer", "cells", "image_size")}
        for one in explanations.values()
    ]
    arrays = {"models": np.array(json.dumps(about))}
    for m, one in enumerate(explanations.values()):
        for some in one.classes:
            profiles = some.rings[PIXELS]
            kept = vars(some.mean) | {"edges": profiles.edges, "profiles": profiles.profiles}
            kept["ids"] = np.array(some.ids.cast(pl.String).to_list(), str)
            arrays |= {f"{m} {some.name} {key}": values for key, values in kept.items()}
    with written_whole(folder / _MAPS) as partial:
        np.savez_compressed(partial, allow_pickle=False, **arrays)


def read_explanations(folder: Path) -> dict[str, Explanation]:
    """Read maps and profiles in pixels, without galaxies that were left out."""
    out = {}
    with np.load(folder / _MAPS, allow_pickle=False) as kept:
        for m, about in enumerate(json.loads(str(kept["models"]))):
            classes = []
            for name in CLASS_NAMES:
                mean, stderr, count, edges, profiles, ids = (
                    kept[f"{m} {name} {key}"] for key in ("mean", "stderr", "count", "edges", "profiles", "ids")
                )
                rings = {PIXELS: Profiles(edges, PIXELS, profiles)}
                galaxies = pl.Series("object_id", ids.tolist(), dtype=pl.String)
                blank = np.zeros(len(ids), bool)
                classes.append(Explained(name, galaxies, [], blank, MeanMap(mean, stderr, count), None, rings))
            out[about["model"]] = Explanation(**about, classes=tuple(classes))
    return out


STAGES = (
    Stage("figure3", "Figure 3: Sérsic indices", _sersic_from, _make_sersic, ("catalogue",), (GZ2D, *MODELS)),
    Stage("changed", "test galaxies that changed from smooth to disk",
          lambda work: {"from": work.keys(("catalogue", DDB))}, _list_changed, ("catalogue", DDB)),
    Stage("figure4", "Figure 4: SDSS and HST images", _pairs_from, _make_pairs, ("catalogue", DDB, "changed")),
    Stage("maps", "Figures 5 to 7: Grad-CAM", _maps_from, _make_maps, ("catalogue",), NETWORKS),
)  # fmt: skip
