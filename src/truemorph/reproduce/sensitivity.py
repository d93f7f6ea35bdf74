"""Sensitivity of the results to choices that the paper does not specify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.estimation import fit_transition
from truemorph.catalogs.physical import FWHM_PER_SIGMA
from truemorph.catalogs.sampling import TEST, TRAIN
from truemorph.errors import InputError
from truemorph.report.page import with_error
from truemorph.report.table1 import Tree, numbers_of
from truemorph.reproduce.catalogue import EVERYTHING
from truemorph.reproduce.models import NETWORKS, as_in_the_paper
from truemorph.reproduce.paper import GZ2B, GZ2D, SAMPLE
from truemorph.reproduce.stages import Stage, Work
from truemorph.reproduce.table1 import MODELS, Measured, measured, on_frame, one_class, order, settings
from truemorph.tables import numeric_columns, read_table

# Trees of CV18 and bins of CV14 to try, if they leave enough galaxies per bin.
_TREES = (
    (1, 4),
    (1, 8),
    (2, 4),
    (2, 8),
    (3, 5),
    (3, 8),
    (4, 4),
    (4, 8),
    (5, 8),
    (6, 4),
    (6, 7),
    (6, 8),
    (7, 8),
    (9, 8),
)
_BINS = (4, 8, 12, 20, 40)
_FEWEST_A_BIN = 4
_RESAMPLES, _DRAWS = 20, 20

_LINEAGE = "published code of the same lineage"

# The choice made here, the effect of other choices, and their values.
Effect = tuple[str, str, dict[str, Any]]


def _swept(found: Measured, trees: dict[str, Tree]) -> tuple[list[dict[str, Any]], str]:
    """Measure every label set with other trees; return the rows, and the range of GZ2B and the order as text."""
    swept: list[dict[str, Any]] = []
    for setting, tree in trees.items():
        rows: list[dict[str, Any]] = []
        for key, one in found.sets.items():
            bias = numbers_of(replace(tree, bootstrap=min(_RESAMPLES, found.tree.bootstrap)).bias(one))
            kept = {name: bias[name] for name in ("value", "bootstrap_mean", "floor")}
            rows.append({"name": key, "one_class": one_class(one), "partial": not one.known.all(), **kept})
        if any(row["value"] is not None for row in rows):
            swept.append({"setting": setting, "rows": rows, "order": order(rows, found.tree.measure)})
    if not swept:
        return swept, "too few galaxies"
    means = [row["bootstrap_mean"] for one in swept for row in one["rows"] if row["name"] == GZ2B]
    pairs = max(one["order"]["pairs"] for one in swept)
    effect = f"GZ2B {_span(means)}"
    if pairs:
        same = _span([one["order"]["as_in_the_paper"] for one in swept], "d")
        effect += f"; {same} of {pairs} pairs of rows in the paper's order"
    return swept, effect


def _span(values: Sequence[float | None], form: str = ".3f") -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = (f"{value:{form}}" for value in (min(known), max(known)))
    return low if low == high else f"{low} to {high}"


def _size(work: Work, found: Measured) -> Effect | None:
    drawn = work.result("catalogue")
    if as_in_the_paper(work):
        return None
    effect = "not a reproduction: smaller samples have larger floors and errors, and networks learn less"
    return f"{drawn['galaxies']:,} galaxies (scale {work.options.fraction:g})", effect, {}


def _intrinsic(work: Work, found: Measured) -> Effect | None:
    if not found.intrinsic:
        effect = "CV14 instead of CV18: not comparable with the paper's values"
        return f"not available: {', '.join(work.inputs.intrinsic) or 'none given'}", effect, {}
    values = numeric_columns(found.frame, found.intrinsic, "the sample")
    trees = {"none (CV14)": replace(found.tree, intrinsic=None, depth=0, bins=20)}
    for size in range(1, len(found.intrinsic)):
        for chosen in combinations(range(len(found.intrinsic)), size):
            names = ", ".join(found.intrinsic[k] for k in chosen)
            trees[names] = replace(found.tree, intrinsic=values[:, list(chosen)])
    trees[", ".join(reversed(found.intrinsic))] = replace(found.tree, intrinsic=values[:, ::-1])
    swept, effect = _swept(found, trees)
    return ", ".join(found.intrinsic), f"other columns, or in another order: {effect}", {"settings": swept}


def _bins(work: Work, found: Measured) -> Effect | None:
    tree, n = found.tree, found.frame.height
    if found.intrinsic:
        here = f"{2**tree.depth} leaves, {tree.bins} bins"
        trees = {
            f"{2**depth} leaves, {bins} bins": replace(tree, depth=depth, bins=bins)
            for depth, bins in _TREES
            if n / (2**depth * bins) >= _FEWEST_A_BIN
        }
    else:
        here = f"{tree.bins} bins"
        trees = {f"{bins} bins": replace(tree, bins=bins) for bins in _BINS if n / bins >= _FEWEST_A_BIN}
    swept, effect = _swept(found, trees)
    return here, effect, {"settings": swept}


def _evaluated_on(work: Work, found: Measured) -> Effect | None:
    known = work.result("bias")["rows"] if work.have("bias") else []
    rows = [one for one in known if one["galaxies_of"] in ("all", TRAIN, TEST) and one["bootstrap_mean"] is not None]
    values: dict[str, list[str]] = {}
    for row in rows:
        bias = with_error(row["bootstrap_mean"], row["bootstrap_std"])
        values.setdefault(row["name"].upper(), []).append(f"{row['galaxies_of']} {bias}")
    if not values:
        return None
    effect = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in values.items())
    return "test galaxies", f"all with the same leaves and bins: {effect}", {"rows": rows}


def _drawn(work: Work, found: Measured) -> Effect | None:
    table = read_table(work.file("catalogue", EVERYTHING)).frame
    n = found.frame.height
    if table.height < 2 * n:
        return None
    tree, every = on_frame(found.tree, table, found.intrinsic, "all")
    rng = np.random.default_rng([work.options.seed, 14])
    values = [tree.value(every, rng.choice(table.height, n, replace=False)) for _ in range(_DRAWS)]
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    spread = with_error(float(np.mean(known)), float(np.std(known)))
    drawn = work.result("catalogue")
    here = f"{drawn['galaxies']:,} of {drawn['of']:,}, at random by id, {drawn['labels']['smooth']:,} smooth"
    return here, f"{len(known)} other draws of {n:,} galaxies: {tree.measure} of GZ2B {spread}", {"values": known}


def _floor(work: Work, found: Measured) -> Effect | None:
    bias = found.tree.bias(found.observed)
    if bias is None:
        return None
    effect = (
        f"GZ2B: single value {bias.value:.3f}, bootstrap mean {bias.bootstrap_mean:.3f}, floor {bias.floor:.3f} "
        f"({bias.objects_per_bin:.0f} galaxies per bin)"
    )
    return (
        "floor given in Table 1",
        effect,
        {name: getattr(bias, name) for name in ("value", "bootstrap_mean", "floor")},
    )


def _k_correction(work: Work, found: Measured) -> Effect | None:
    if "M_r" not in found.intrinsic or "redshift" not in found.frame.columns:
        return None
    values = numeric_columns(found.frame, found.intrinsic, "the sample").copy()
    # About z mag in r for early types, less for late types (Chilingarian, Melchior & Zolotukhin 2010, MNRAS 405, 1409).
    values[:, found.intrinsic.index("M_r")] -= numeric_columns(found.frame, ["redshift"], "the sample")[:, 0]
    before, after = (tree.value(found.observed) for tree in (found.tree, replace(found.tree, intrinsic=values)))
    if before is None or after is None:
        return None
    return "none", f"correction of z mag: GZ2B {before:.3f} → {after:.3f}", {"before": before, "after": after}


def _labels(work: Work, found: Measured) -> Effect | None:
    values = {}
    for name, one in found.probabilities.items():
        soft, hard = replace(found.tree, bootstrap=0).bias(one), found.tree.value(found.sets[name])
        if soft is not None and hard is not None:
            values[found.sets[name].name] = (hard, soft.value)
    if not values:
        return None
    effect = "; ".join(f"{name}: {hard:.3f} → {soft:.3f}" for name, (hard, soft) in values.items())
    return "labels", f"labels → probabilities: {effect}", {"values": values}


def _training(work: Work, found: Measured) -> Effect | None:
    trained = [name for name in NETWORKS if work.have(name)]
    if not trained:
        return None
    used = work.result(trained[-1])["training"]
    here = (
        f"{used['backbone']} at {used['image_size']} pixels, {'AdamW' if used['weight_decay'] else 'Adam'}, learning "
        f"rate {used['learning_rate']:g} ({used['schedule']}), batches of {used['batch_size']}, "
        f"{', '.join(str(work.result(name)['epochs']) for name in trained)} epochs, "
        f"{'published' if used['pretrained'] else 'random'} initial weights (all settings: see below)"
    )
    return here, "not measured; train again with another seed or another preset", {}


def _theta(work: Work, found: Measured) -> Effect | None:
    if not work.have("theta"):
        return None
    fit = work.result("theta")
    theta = with_error(fit["theta"], fit["stderr"], ".2f")
    others = [one for one in fit["others"] if one["theta"] is not None]
    effect = "; ".join(f"{one['how']} {with_error(one['theta'], one['stderr'], '.2f')}" for one in others)
    return (
        f"{fit['bins']:,} bins of {fit['galaxies'] // fit['bins']} galaxies: {theta}",
        effect,
        {"others": fit["others"]},
    )


def _weights(work: Work, found: Measured) -> Effect | None:
    frame = work.catalogue().frame.filter(pl.col("split") == TRAIN)
    weights = frame["draw_weight"].to_numpy()
    if np.ptp(weights) < 1e-9:
        return None
    columns = frame["label"].to_numpy(), frame["alpha"].to_numpy()
    before, after = (fit_transition(*columns, weights=one).values["theta"] for one in (None, weights))
    effect = f"with weights that undo the selection: θ by likelihood {before:.2f} → {after:.2f}"
    return "as in the paper", effect, {"theta": [before, after]}


def _unit(work: Work, found: Measured) -> Effect | None:
    if not work.have("theta"):
        return None
    fit = work.result("theta")
    sigma = fit["alpha_psf"] == "sigma"
    other = fit["theta"] / FWHM_PER_SIGMA if sigma else fit["theta"] * FWHM_PER_SIGMA
    effect = f"none on CV18; with the {'FWHM' if sigma else 'σ'} of the PSF, θ would be {other:.2f}"
    return fit["alpha"], effect, {"other": other}


def _psf(work: Work, found: Measured) -> Effect | None:
    best, frame = "psfWidth_r_best", work.catalogue().frame
    if best not in frame.columns:
        return None
    training = frame.filter((pl.col("split") == TRAIN) & (pl.col(best) > 0))
    width = found.frame[best].cast(pl.Float64).fill_null(np.nan).to_numpy()
    width = np.where(width > 0, width, np.nan)
    alpha = found.tree.alpha * found.frame["psf_fwhm"].to_numpy() / width
    before, after = found.tree.value(found.observed), replace(found.tree, alpha=alpha).value(found.observed)
    if before is None or after is None:
        return None
    scaled = training["alpha"] * training["psf_fwhm"] / training[best]
    labels, both = training["label"].to_numpy(), (training["alpha"].to_numpy(), scaled.to_numpy())
    thetas = [fit_transition(labels, one).values["theta"] for one in both]
    effect = (
        f"with the best PSF of all fields (as in the code of CV18): GZ2B {before:.3f} → {after:.3f}, θ by likelihood "
        f"{thetas[0]:.2f} → {thetas[1]:.2f}"
    )
    return "field of the image that the volunteers saw", effect, {"bias": [before, after], "theta": thetas}


# Each choice: what the paper says, and the function that measures its effect.
_EVERY: dict[str, tuple[str, Callable[[Work, Measured], Effect | None]]] = {
    "sample size": (f"{sum(SAMPLE):,} galaxies", _size),
    "intrinsic columns": (f"not given; {_LINEAGE}: radius in kpc, M_r, redshift, in this order", _intrinsic),
    "leaves and bins": (f"not given; {_LINEAGE}: 8 leaves, 8 bins; CV14 10 bins", _bins),
    "galaxies on which bias is measured": (
        f"not given; {_LINEAGE} has at least 190 galaxies a bin, which is the test set",
        _evaluated_on,
    ),
    "random draw of the sample": (f"{sum(SAMPLE):,} at random, {SAMPLE[0]:,} smooth", _drawn),
    "sampling noise": ("not subtracted; probably bootstrap means", _floor),
    "K-correction of M_r": ("not given", _k_correction),
    "labels or probabilities": ("probably labels", _labels),
    "training": (
        f"ResNet50, dense layer of 1024, 207 pixels; the rest not given; {_LINEAGE}: stride in the 1×1 convolution, "
        "random start, pixels / 255, Adam 1e-4, constant, batches of 32, no augmentation, best epoch by held-out loss",
        _training,
    ),
    "estimator of θ": (f"1525 bins of 64 galaxies, midpoints; {_LINEAGE}: least squares (SLSQP)", _theta),
    "selection by label": ("balanced sample, no weights", _weights),
    "unit of α": (f'"over the angular size of the PSF"; {_LINEAGE}: σ, 2√(2 ln 2) R / psfWidth_r', _unit),
    "field of the PSF width": ("not given", _psf),
}


def _follows_from(work: Work) -> dict[str, Any]:
    return settings(work, ("catalogue", GZ2D, "theta", "bias", *MODELS))


def _make(work: Work, folder: Path) -> dict[str, Any]:
    found = measured(work)
    reasons = []
    for what, (paper, measure) in _EVERY.items():
        try:
            measured_here = measure(work, found)
        except InputError as problem:  # too few galaxies
            measured_here = "–", f"could not be measured: {problem}", {}
        if measured_here is not None:
            here, effect, numbers = measured_here
            reasons.append({"what": what, "paper": paper, "here": here, "effect": effect, "numbers": numbers})
    return {"reasons": reasons}


STAGES = (
    Stage("reasons", "why values may differ from the paper's", _follows_from, _make, ("catalogue",),
          (GZ2D, "theta", "bias", *MODELS)),
)  # fmt: skip
