"""Figures 3 to 7: distributions of the Sérsic index, pairs with HST, Grad-CAM maps and profiles."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.transitions import DISK, SMOOTH
from truemorph.catalogs.catalogue import image_folder
from truemorph.errors import InputError, TruemorphError
from truemorph.io import write_json
from truemorph.report import gallery
from truemorph.report.distributions import Distributions, compare_distributions
from truemorph.report.style import STYLE, Style
from truemorph.reproduce.fetching import fetch_hst
from truemorph.reproduce.kept import read_explanations, write_explanations
from truemorph.reproduce.measured import MODELS, all_labels, measured, short_titles
from truemorph.reproduce.models import MODEL, NETWORKS
from truemorph.reproduce.options import CONFIG
from truemorph.reproduce.paper import DCV14, DDB, GZ2B, GZ2D, RESNET_GZ2B, RESNET_GZ2D
from truemorph.reproduce.stages import TEST_ROWS, Lacks, Stage, Work
from truemorph.tables import CatalogTable, numeric_columns, read_table, write_table

CHANGED, MAPS = "changed.csv", "explanations.npz"
# In `Work.memo`: why HST's images were not fetched.
HST_PROBLEM = "hst problem"
_RESAMPLES = 300
_FEWEST = 10
_MOST_PAIRS = 24


def styles(work: Work) -> dict[str, Style]:
    """How each row of Table 1 is drawn, by its short name."""
    names = short_titles(work)
    return {
        names[GZ2B]: STYLE["crowd"],
        names[GZ2D]: {"color": "#E69F00", "marker": "v", "ls": "-."},
        names[RESNET_GZ2B]: STYLE["naive"],
        names[RESNET_GZ2D]: {"color": "#CC79A7", "marker": "P", "ls": "--"},
        names[DCV14]: {"color": "#009E73", "marker": "X", "ls": ":"},
        names[DDB]: STYLE["debiased"],
    }


# Figure 3


def _sersic_from(work: Work) -> dict[str, Any] | Lacks:
    frame = work.catalogue("catalogue", TEST_ROWS).frame
    name = work.inputs.sersic_index
    if name not in frame.columns or frame[name].cast(pl.Float64, strict=False).count() < _FEWEST:
        how = f"truemorph fetch simard --out {work.data / 'simard'}, or `sersic_table`, and sersic_index in {CONFIG}"
        return Lacks(f"Sérsic indices (column {name}; Simard et al. 2011)", how)
    if not any(work.have(one) for one in (GZ2D, *MODELS)):
        return Lacks("labels beside the crowd's", "GZ2D or one of the models must be there")
    return {
        "column": name,
        "from": work.keys(("catalogue", GZ2D, *MODELS)),
        "resamples": _resamples(work),
        "seed": work.options.seed,
    }


def _resamples(work: Work) -> int:
    return min(_RESAMPLES, 10 * work.options.bootstrap)


def sersic_curves(work: Work) -> Distributions:
    """Sérsic indices of the galaxies of Table 1, by label set (Figure 3)."""
    found = measured(work)
    values = numeric_columns(found.frame, [work.inputs.sersic_index], "the sample")[:, 0]
    names = short_titles(work)
    sets = {names[name]: one.disk for name, one in found.sets.items() if name != GZ2B}
    curves: Distributions = work.once(
        "sersic",
        lambda: compare_distributions(
            values, found.crowd.disk, sets, column="sersic_n", crowd_name=names[GZ2B],
            bootstrap=_resamples(work), seed=work.options.seed,
        ),
    )  # fmt: skip
    return curves


def _make_sersic(work: Work, folder: Path) -> dict[str, Any]:
    curves = sersic_curves(work)
    table = curves.table()
    write_table(CatalogTable(table), folder / "figure3.ecsv")
    smooth = table.filter((pl.col("panel") == "smooth") & (pl.col("labels") == curves.crowd_name))
    return {
        "galaxies": curves.n_galaxies,
        "without_index": curves.n_dropped,
        "disk_like_among_smooth": 1 - smooth["share_above"][0] if smooth.height else None,
        "table": table.to_dicts(),
    }


# Figure 4


def _changed_from(work: Work) -> dict[str, Any]:
    return {"from": work.keys(("catalogue", DDB))}


def _list_changed(work: Work, folder: Path) -> dict[str, Any]:
    """Test galaxies that people called smooth and DDB calls disk, surest first, with their places."""
    frame, hard, soft = all_labels(work)
    moved = (hard[GZ2B] == SMOOTH) & (hard[DDB] == DISK)
    own = [name for name in ("object_id", "ra", "dec", "alpha", "image", "disk_fraction") if name in frame.columns]
    chosen = frame.select(own).with_columns(p_disk=pl.Series(soft[DDB])).filter(pl.Series(moved))
    chosen = chosen.sort("p_disk", "object_id", descending=[True, False])
    write_table(CatalogTable(chosen), folder / CHANGED)
    return {
        "changed": chosen.height,
        "of_smooth": int((hard[GZ2B] == SMOOTH).sum()),
        "places": "ra" in own and "dec" in own,
    }


def _better_folder(work: Work) -> Path | None:
    """Folder of HST images; fetched for the galaxies that changed if that was asked for.

    Raises
    ------
    TruemorphError
        If they can't be fetched, and none is there.
    """
    folder, found, ours = work.inputs.better, work.result("changed"), (work.data / "hst").resolve()
    fetch = work.options.fetch and not work.options.dry_run and folder in (None, str(ours))
    if fetch and found["places"] and found["changed"]:
        listed = work.outcomes["changed"].file(CHANGED)
        try:
            work.once("hst", lambda: fetch_hst(ours, listed, work.options))
        except TruemorphError as problem:
            if not ours.is_dir() or not _better(work, ours):
                raise
            said = f"HST's images could not all be fetched ({problem}): those that are there are shown"
            print(f"reproduce: {said}", file=sys.stderr)
            work.memo |= {"hst": None, HST_PROBLEM: said}
        return ours
    return None if folder is None else Path(folder)


def _better(work: Work, folder: Path) -> dict[str, str]:
    """Files of the galaxies that changed."""
    ids = pl.read_csv(work.outcomes["changed"].file(CHANGED), schema_overrides={"object_id": pl.String})["object_id"]
    return gallery.better_pictures(folder, ids)


def _pairs_from(work: Work) -> dict[str, Any] | Lacks:
    folder = _better_folder(work)
    if folder is None or not folder.is_dir():
        listed = work.outcomes["changed"].file(CHANGED)
        places = work.result("changed")["places"]
        how = f"truemorph fetch hst --positions {listed} --out {work.data / 'hst'}, or `better`"
        return Lacks("HST images" + ("" if places else " (and columns ra, dec)"), how)
    files = _better(work, folder)
    return {"from": work.keys(("catalogue", DDB, "changed")), "better": work.hashes.of_many(folder, files.values()),
            "folder": str(folder)}  # fmt: skip


def _make_pairs(work: Work, folder: Path) -> dict[str, Any]:
    """Pairs of pictures as a table: what is drawn."""
    table = pl.read_csv(work.outcomes["changed"].file(CHANGED), schema_overrides={"object_id": pl.String})
    better = _better_folder(work)
    assert better is not None
    files = _better(work, better)
    chosen = table.filter(pl.col("object_id").is_in(list(files))).with_columns(
        better=pl.col("object_id").replace_strict(files, default=None, return_dtype=pl.String)
    )
    write_table(CatalogTable(chosen, {}, {"folder": str(better)}), folder / "figure4.ecsv")
    return {"changed": table.height, "with_better": chosen.height, "folder": str(better)}


def pairs(work: Work) -> list[dict[str, Any]]:
    """Pictures of the galaxies that changed and have a better one: `object_id`, `title`, `seen`, `better`."""
    if not work.have("figure4") or not work.result("figure4")["with_better"]:
        return []
    table = read_table(work.outcomes["figure4"].file("figure4.ecsv")).frame
    catalogue = work.catalogue()
    as_seen = gallery.Pictures(image_folder(catalogue))
    better = gallery.Pictures(Path(work.result("figure4")["folder"]))
    out: list[dict[str, Any]] = []
    for row in table.iter_rows(named=True):
        if len(out) == _MOST_PAIRS:
            break
        try:
            pictures = as_seen.whole(row["image"]), better.whole(row["better"])
        except InputError:  # a bad picture makes no pair
            continue
        title = f"α {row['alpha']:.1f}, p {row['p_disk']:.2f}"
        out.append({"object_id": str(row["object_id"]), "title": title, "seen": pictures[0], "better": pictures[1]})
    return out


# Figures 5 to 7


def _maps_from(work: Work) -> dict[str, Any] | Lacks:
    there = [name for name in NETWORKS if work.have(name)]
    if not there:
        missing = work.outcomes[DDB]
        return Lacks("a network to look into", missing.text or f"stage {DDB}")
    test = work.catalogue("catalogue", TEST_ROWS).frame
    return {
        "models": {name: work.result(name)["model_hash"] for name in there},
        "galaxies": work.rows_digest(test, ("object_id", "image")),
        "images": work.images_digest(),
        "draws": work.options.draws,
        "seed": work.options.seed,
    }


def _make_maps(work: Work, folder: Path) -> dict[str, Any]:
    """Mean Grad-CAM maps and profiles of all test galaxies, by predicted class; and the check by random weights."""
    from truemorph.classifiers.checkpoint import load
    from truemorph.explain.catalogue import check_by_random_weights
    from truemorph.explain.study import compare, explain, galaxies_of
    from truemorph.progress import progress

    test, names = work.catalogue("catalogue", TEST_ROWS), short_titles(work)
    frame = test.frame.filter(pl.col("image").is_not_null())
    models = {names[name]: load(work.outcomes[name].file(MODEL)) for name in NETWORKS if work.have(name)}
    source = galaxies_of(frame, image_folder(test))
    with progress(frame.height * len(models), "explaining", "galaxies") as told:
        explanations = explain(models, source, progress=told)
    checks: dict[str, Any] = {}
    problem = ""
    if work.options.draws:
        try:
            checks = check_by_random_weights(models, explanations, source, work.options.draws, work.options.seed)
        except InputError as why:  # maps of one galaxy, say
            problem = str(why)
    write_explanations(explanations, folder / MAPS)
    differences = [
        {"first": one.first, "second": one.second, "class": one.name, "middles": one.middles,
         "difference": one.difference, "low_95": one.limits[0.95][0], "high_95": one.limits[0.95][1],
         "galaxies": one.galaxies}
        for one in compare(explanations, _RESAMPLES, work.options.seed)
    ]  # fmt: skip
    write_json(folder / "differences.json", {"differences": differences})
    return {
        "models": {name: _looks(one) for name, one in explanations.items()},
        "random_weights": {name: {"passes": one.passes, "statement": one.statement} for name, one in checks.items()},
        "not_checked": problem,
    }


def _looks(one: Any) -> dict[str, Any]:
    """Where a model looks, in numbers: mean intensity in the inner and the outer third of the radius."""
    out: dict[str, Any] = {"layer": one.layer, "cells": one.cells, "problems": len(one.problems)}
    for some in one.classes:
        profile = some.rings["pixel"] if some.galaxies else None
        thirds = None if profile is None else np.array_split(profile.mean, 3)
        out[some.name] = {
            "galaxies": some.galaxies,
            "inner": None if thirds is None else float(np.nanmean(thirds[0])),
            "outer": None if thirds is None else float(np.nanmean(thirds[2])),
        }
    return out


def maps(work: Work) -> Mapping[str, Any]:
    """Explanations of the networks; empty without any."""
    if not work.have("maps"):
        return {}
    found: Mapping[str, Any] = work.once("maps", lambda: read_explanations(work.outcomes["maps"].file(MAPS)))
    return found


STAGES = (
    Stage("figure3", "Figure 3: Sérsic indices", _sersic_from, _make_sersic, ("catalogue",), (GZ2D, *MODELS)),
    Stage(
        "changed", "test galaxies that changed from smooth to disk", _changed_from, _list_changed, ("catalogue", DDB)
    ),
    Stage("figure4", "Figure 4: pairs with HST", _pairs_from, _make_pairs, ("catalogue", DDB, "changed")),
    Stage("maps", "Figures 5 to 7: Grad-CAM", _maps_from, _make_maps, ("catalogue",), NETWORKS),
)
