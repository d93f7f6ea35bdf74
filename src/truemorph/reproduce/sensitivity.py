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
from truemorph.report.label_sets import LabelSet
from truemorph.report.page import number, with_error
from truemorph.report.table1 import Tree, numbers_of
from truemorph.reproduce.catalogue import DEBIASED, EVERYTHING
from truemorph.reproduce.models import NETWORKS
from truemorph.reproduce.paper import GZ2B, GZ2D, SAMPLE
from truemorph.reproduce.stages import Stage, Work
from truemorph.reproduce.table1 import Measured, measured, one_class, order
from truemorph.tables import numeric_columns, read_table

# Trees of CV18 and bins of CV14 to try, if they leave enough galaxies per bin.
_TREES = ((1, 4), (1, 8), (2, 4), (2, 8), (3, 5), (3, 8), (4, 4), (4, 8), (5, 8), (6, 4), (6, 7), (6, 8), (7, 8),
          (9, 8))  # fmt: skip
_BINS = (4, 8, 12, 20, 40)
_FEWEST_A_BIN = 4
_RESAMPLES, _DRAWS = 20, 20

# What is chosen here, the effect of other choices, and the numbers behind it; None if it can't be measured.
Reason = tuple[str, str, dict[str, Any]] | None


def _value(found: Measured, **changes: Any) -> float | None:
    """Measure the bias of GZ2B with another tree."""
    return replace(found.tree, **changes).value(found.sets[GZ2B])


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


def _intrinsic(work: Work, found: Measured) -> Reason:
    if not found.intrinsic:
        here = f"not available: {', '.join(work.inputs.intrinsic) or 'none given'}"
        return here, "CV14 instead of CV18: not comparable with the paper's values", {}
    values = numeric_columns(found.frame, found.intrinsic, "the sample")
    trees = {"none (CV14)": replace(found.tree, intrinsic=None, depth=0, bins=20)}
    for size in range(1, len(found.intrinsic)):
        for chosen in combinations(range(len(found.intrinsic)), size):
            names = ", ".join(found.intrinsic[k] for k in chosen)
            trees[names] = replace(found.tree, intrinsic=values[:, list(chosen)])
    trees[", ".join(reversed(found.intrinsic))] = replace(found.tree, intrinsic=values[:, ::-1])
    swept, effect = _swept(found, trees)
    return ", ".join(found.intrinsic), f"other columns, or in another order: {effect}", {"settings": swept}


def _bins(work: Work, found: Measured) -> Reason:
    tree, n = found.tree, found.frame.height
    here = f"{tree.bins} bins"
    trees = {f"{bins} bins": replace(tree, bins=bins) for bins in _BINS if n / bins >= _FEWEST_A_BIN}
    if found.intrinsic:
        here = f"{2**tree.depth} leaves, {here}"
        trees = {
            f"{2**depth} leaves, {bins} bins": replace(tree, depth=depth, bins=bins)
            for depth, bins in _TREES
            if n / (2**depth * bins) >= _FEWEST_A_BIN
        }
    swept, effect = _swept(found, trees)
    return here, effect, {"settings": swept}


def _on_frame(found: Measured, frame: pl.DataFrame) -> tuple[Tree, LabelSet]:
    """Return the tree of Table 1 (depth and bins) for other galaxies, and their labels."""
    columns = numeric_columns(frame, found.intrinsic, "the sample") if found.intrinsic else None
    labels = LabelSet("observed", "observed", frame["label"].to_numpy().astype(float))
    return replace(found.tree, alpha=frame["alpha"].to_numpy(), intrinsic=columns), labels


def _evaluated_on(work: Work, found: Measured) -> Reason:
    """Measure GZ2B and GZ2D in the whole sample and in parts; one tree, because the value grows with its bins."""
    frames = {GZ2B: work.catalogue().frame}
    if work.inputs.hart is not None:
        frames[GZ2D] = work.catalogue(DEBIASED).frame
    rows, effects = [], []
    for name, frame in frames.items():
        parts = {"all": frame, **{part: frame.filter(pl.col("split") == part) for part in (TEST, TRAIN)}}
        values = []
        for part, chosen in parts.items():
            tree, labels = _on_frame(found, chosen)
            bias = numbers_of(tree.bias(labels))
            rows.append({"name": name, "galaxies_of": part, "galaxies": chosen.height, **bias})
            values.append(f"{part} {with_error(bias['bootstrap_mean'], bias['bootstrap_std'])}")
        effects.append(f"{name.upper()}: {', '.join(values)}")
    return "test galaxies", f"all with the same leaves and bins: {'; '.join(effects)}", {"rows": rows}


def _drawn(work: Work, found: Measured) -> Reason:
    table = read_table(work.file("catalogue", EVERYTHING)).frame
    n = found.frame.height
    tree, every = _on_frame(found, table)
    rng = np.random.default_rng([work.options.seed, 14])
    values = [tree.value(every, rng.choice(table.height, n, replace=False)) for _ in range(_DRAWS)]
    known = [value for value in values if value is not None]
    if not known:
        return None
    drawn, spread = work.result("catalogue"), with_error(float(np.mean(known)), float(np.std(known)))
    here = f"{drawn['galaxies']:,} of {drawn['of']:,}, at random by id, {drawn['labels']['smooth']:,} smooth"
    return here, f"{len(known)} other draws of {n:,} galaxies: {tree.measure} of GZ2B {spread}", {"values": known}


def _floor(work: Work, found: Measured) -> Reason:
    row = work.result("table1")["rows"][0]
    effect = (
        f"GZ2B: single value {number(row['value'])}, bootstrap mean {number(row['bootstrap_mean'])}, floor "
        f"{number(row['floor'])} ({number(row['objects_per_bin'], '.0f')} galaxies per bin)"
    )
    return "floor given in Table 1", effect, {name: row[name] for name in ("value", "bootstrap_mean", "floor")}


def _k_correction(work: Work, found: Measured) -> Reason:
    if "M_r" not in found.intrinsic or "redshift" not in found.frame.columns:
        return None
    values = numeric_columns(found.frame, found.intrinsic, "the sample").copy()
    # About z mag in r for early types, less for late types (Chilingarian, Melchior & Zolotukhin 2010, MNRAS 405, 1409).
    values[:, found.intrinsic.index("M_r")] -= numeric_columns(found.frame, ["redshift"], "the sample")[:, 0]
    before, after = _value(found), _value(found, intrinsic=values)
    effect = f"correction of z mag: GZ2B {number(before)} → {number(after)}"
    return "none", effect, {"before": before, "after": after}


def _labels(work: Work, found: Measured) -> Reason:
    rows = [row for row in work.result("table1")["rows"] if row["soft_value"] is not None]
    if not rows:
        return None
    values = {row["labels"]: (row["value"], row["soft_value"]) for row in rows}
    effect = "; ".join(f"{name}: {number(hard)} → {number(soft)}" for name, (hard, soft) in values.items())
    return "labels", f"labels → probabilities: {effect}", {"values": values}


def _training(work: Work, found: Measured) -> Reason:
    trained = [work.result(name) for name in NETWORKS if work.have(name)]
    if not trained:
        return None
    used = trained[-1]["training"]
    here = (
        f"{used['backbone']} at {used['image_size']} pixels, {'AdamW' if used['weight_decay'] else 'Adam'}, learning "
        f"rate {used['learning_rate']:g} ({used['schedule']}), batches of {used['batch_size']}, "
        f"{', '.join(str(one['epochs']) for one in trained)} epochs, "
        f"{'published' if used['pretrained'] else 'random'} initial weights (all settings: run.toml of its stage)"
    )
    return here, "not measured; train again with another seed or another preset", {}


def _theta(work: Work, found: Measured) -> Reason:
    if not work.have("theta"):
        return None
    fit = work.result("theta")
    theta = with_error(fit["theta"], fit["stderr"], ".2f")
    others = (f"{one['how']} {with_error(one['theta'], one['stderr'], '.2f')}" for one in fit["others"])
    effect = "; ".join(others)
    here = f"{fit['bins']:,} bins of {fit['galaxies'] // fit['bins']} galaxies: {theta}"
    return here, effect, {"others": fit["others"]}


def _weights(work: Work, found: Measured) -> Reason:
    frame = work.catalogue().frame.filter(pl.col("split") == TRAIN)
    weights = frame["draw_weight"].to_numpy()
    if np.ptp(weights) < 1e-9:
        return None
    columns = frame["label"].to_numpy(), frame["alpha"].to_numpy()
    theta = [fit_transition(*columns, weights=one).values["theta"] for one in (None, weights)]
    effect = f"with weights that undo the selection: θ by likelihood {theta[0]:.2f} → {theta[1]:.2f}"
    return "as in the paper", effect, {"theta": theta}


def _unit(work: Work, found: Measured) -> Reason:
    if not work.have("theta"):
        return None
    fit = work.result("theta")
    sigma = fit["alpha_psf"] == "sigma"
    other = fit["theta"] / FWHM_PER_SIGMA if sigma else fit["theta"] * FWHM_PER_SIGMA
    effect = f"none on CV18; with the {'FWHM' if sigma else 'σ'} of the PSF, θ would be {other:.2f}"
    return fit["alpha"], effect, {"other": other}


def _psf(work: Work, found: Measured) -> Reason:
    frame, width = work.catalogue().frame, pl.col("psfWidth_r_best")
    if "psfWidth_r_best" not in frame.columns or not frame.filter(width > 0).height:
        return None
    scaled = pl.col("alpha") * pl.col("psf_fwhm") / pl.when(width > 0).then(width)
    alpha = found.frame.select(scaled.fill_null(np.nan)).to_series().to_numpy()
    bias = [_value(found), _value(found, alpha=alpha)]
    training = frame.filter((pl.col("split") == TRAIN) & (width > 0)).select("label", "alpha", scaled=scaled)
    theta = [fit_transition(training["label"], training[name]).values["theta"] for name in ("alpha", "scaled")]
    effect = (
        f"with the best PSF of all fields (as in the code of CV18): GZ2B {number(bias[0])} → {number(bias[1])}, θ by "
        f"likelihood {theta[0]:.2f} → {theta[1]:.2f}"
    )
    return "field of the image that the volunteers saw", effect, {"bias": bias, "theta": theta}


_LINEAGE = "published code of the same lineage"
# Each choice, what the paper says about it, and the measurement of its effect.
_CHOICES: dict[str, tuple[str, Callable[[Work, Measured], Reason]]] = {
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


def _make(work: Work, folder: Path) -> dict[str, Any]:
    found, reasons = measured(work), []
    for what, (paper, measure) in _CHOICES.items():
        if (reason := measure(work, found)) is not None:
            here, effect, numbers = reason
            reasons.append({"what": what, "paper": paper, "here": here, "effect": effect, "numbers": numbers})
    return {"reasons": reasons}


STAGES = (
    Stage("reasons", "why values may differ from the paper's", _make, ("catalogue", "table1"),
          ("theta", *NETWORKS)),
)  # fmt: skip
