"""Sensitivity of the results to choices that the paper does not specify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.sampling import TEST, TRAIN
from truemorph.report.label_sets import LabelSet
from truemorph.report.page import with_error
from truemorph.report.table1 import Tree, numbers_of
from truemorph.reproduce.catalogue import BEST_ALPHA, DEBIASED
from truemorph.reproduce.paper import GZ2B, GZ2D
from truemorph.reproduce.stages import CATALOGUE, Stage, Work
from truemorph.reproduce.table1 import Measured, measured, one_class, order
from truemorph.tables import numeric_columns

# Trees of CV18 and bins of CV14 to try, if they leave enough galaxies per bin.
_TREES = ((1, 4), (1, 8), (2, 4), (2, 8), (3, 5), (3, 8), (4, 4), (4, 8), (5, 8), (6, 4), (6, 7), (6, 8), (7, 8),
          (9, 8))  # fmt: skip
_BINS = (4, 8, 12, 20, 40)
_FEWEST_A_BIN = 4
_RESAMPLES = 20

# What is chosen here, the effect of other choices, and the numbers behind it; None if it can't be measured.
Reason = tuple[str, str, dict[str, Any]] | None


def _swept(found: Measured, trees: dict[str, Tree]) -> tuple[str, dict[str, Any]]:
    """Measure every label set with other trees; return the range of GZ2B and the order as text, and all rows."""
    swept: list[dict[str, Any]] = []
    for setting, tree in trees.items():
        rows: list[dict[str, Any]] = []
        for key, one in found.sets.items():
            bias = numbers_of(replace(tree, bootstrap=min(_RESAMPLES, found.tree.bootstrap)).bias(one))
            kept = {name: bias[name] for name in ("value", "bootstrap_mean", "floor")}
            rows.append({"name": key, "one_class": one_class(one), "partial": not one.known.all(), **kept})
        if any(row["value"] is not None for row in rows):
            swept.append({"setting": setting, "rows": rows, "order": order(rows, found.tree.measure)})
    means = [row["bootstrap_mean"] for one in swept for row in one["rows"] if row["name"] == GZ2B]
    known = [mean for mean in means if mean is not None]
    effect = f"GZ2B {_range(known, '.3f')}" if known else "too few galaxies"
    if pairs := max((one["order"]["pairs"] for one in swept), default=0):
        same = _range([one["order"]["as_in_the_paper"] for one in swept], "d")
        effect += f"; {same} of {pairs} pairs of rows in the paper's order"
    return effect, {"settings": swept}


def _range(values: list[float], form: str) -> str:
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _intrinsic(work: Work, found: Measured) -> Reason:
    names = found.intrinsic
    if not names:
        here = f"not available: {', '.join(work.inputs.intrinsic) or 'none given'}"
        return here, "CV14 instead of CV18: not comparable with the paper's values", {}
    values = numeric_columns(found.frame, names, "the sample")
    others = {", ".join(reversed(names)): values[:, ::-1]}
    for chosen in (one for size in range(1, len(names)) for one in combinations(range(len(names)), size)):
        others[", ".join(names[k] for k in chosen)] = values[:, list(chosen)]
    if "M_r" in names and "redshift" in found.frame.columns:
        # About z mag in r for early types, less for late types (Chilingarian et al. 2010, MNRAS 405, 1409).
        correction = np.where(np.array(names) == "M_r", found.frame.select(pl.col("redshift").cast(float)), 0)
        others["M_r with a K-correction of z mag"] = values - correction
    trees = {name: replace(found.tree, intrinsic=columns) for name, columns in others.items()}
    trees["none (CV14)"] = replace(found.tree, intrinsic=None, depth=0, bins=20)
    effect, numbers = _swept(found, trees)
    return ", ".join(names), f"other columns, another order, or M_r with a K-correction: {effect}", numbers


def _bins(work: Work, found: Measured) -> Reason:
    tree, tried = found.tree, _TREES if found.intrinsic else [(0, bins) for bins in _BINS]
    trees = {
        f"{2**depth} × {bins}": replace(tree, depth=depth, bins=bins)
        for depth, bins in tried
        if found.frame.height / (2**depth * bins) >= _FEWEST_A_BIN
    }
    return f"{2**tree.depth} × {tree.bins}", *_swept(found, trees)


def _evaluated_on(work: Work, found: Measured) -> Reason:
    """Measure GZ2B and GZ2D in the whole sample and in parts; one tree, because the value grows with its bins."""
    files = {GZ2B: CATALOGUE} if work.inputs.hart is None else {GZ2B: CATALOGUE, GZ2D: DEBIASED}
    rows, effects = [], []
    for name, part in product(files, ("all", TEST, TRAIN)):
        frame = work.catalogue(files[name]).frame.filter(pl.lit(part == "all") | (pl.col("split") == part))
        columns = numeric_columns(frame, found.intrinsic, "the sample") if found.intrinsic else None
        tree = replace(found.tree, alpha=frame["alpha"].to_numpy(), intrinsic=columns)
        bias = numbers_of(tree.bias(LabelSet(name, "labels", frame["label"].to_numpy().astype(float))))
        rows.append({"name": name, "galaxies_of": part, "galaxies": frame.height, **bias})
        effects.append(f"{name.upper()}, {part} {with_error(bias['bootstrap_mean'], bias['bootstrap_std'])}")
    return "test galaxies", f"all with the same leaves and bins: {'; '.join(effects)}", {"rows": rows}


def _theta(work: Work, found: Measured) -> Reason:
    fit = work.result("theta")
    theta = with_error(fit["theta"], fit["stderr"], ".2f")
    effect = "; ".join(f"{one['how']} {with_error(one['theta'], one['stderr'], '.2f')}" for one in fit["others"])
    here = f"{fit['bins']:,} bins of {fit['galaxies'] // fit['bins']} galaxies: {theta}"
    return here, effect, {"others": fit["others"]}


def _psf(work: Work, found: Measured) -> Reason:
    if "psfWidth_r_best" not in found.frame.columns:
        return None
    alpha = found.frame.select(BEST_ALPHA.fill_null(np.nan)).to_series().to_numpy()
    effect, numbers = _swept(found, {"best PSF": replace(found.tree, alpha=alpha)})
    here = "field of the image that the volunteers saw"
    return here, f"with the best PSF of all fields, as in the code of CV18: {effect}", numbers


_LINEAGE = "published code of the same lineage"
# Each choice, what the paper says about it, and the measurement of its effect.
_CHOICES: dict[str, tuple[str, Callable[[Work, Measured], Reason]]] = {
    "intrinsic columns": (f"not given; {_LINEAGE}: radius in kpc, M_r, redshift, in this order", _intrinsic),
    "leaves and bins": (f"not given; {_LINEAGE}: 8 leaves, 8 bins; CV14 10 bins", _bins),
    "galaxies on which bias is measured": (
        f"not given; {_LINEAGE} has at least 190 galaxies a bin, which is the test set",
        _evaluated_on,
    ),
    "estimator of θ": (
        f"1525 bins of 64 galaxies, midpoints, no weights; {_LINEAGE}: least squares (SLSQP), α in σ of the PSF",
        _theta,
    ),
    "field of the PSF width": ("not given", _psf),
}


def _make(work: Work, folder: Path) -> dict[str, Any]:
    found, reasons = measured(work), []
    for what, (paper, measure) in _CHOICES.items():
        if (reason := measure(work, found)) is not None:
            here, effect, numbers = reason
            reasons.append({"what": what, "paper": paper, "here": here, "effect": effect, "numbers": numbers})
    return {"reasons": reasons}


STAGES = (
    Stage("reasons", "why values may differ from the paper's", _make, ("catalogue", "theta", "table1")),
)  # fmt: skip
