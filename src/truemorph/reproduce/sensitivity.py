"""Sensitivity: what the paper leaves open, what was done here, and how much that changes its numbers."""

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
from truemorph.io import plain, write_json
from truemorph.report.measures import Tree, numbers_of
from truemorph.report.page import with_error
from truemorph.reproduce.catalogue import EVERYTHING
from truemorph.reproduce.models import NETWORKS
from truemorph.reproduce.paper import GZ2B, GZ2D, SAMPLE
from truemorph.reproduce.stages import Stage, Work
from truemorph.reproduce.table1 import MODELS, Measured, measured, on_frame, one_class, order, settings
from truemorph.tables import numeric_columns, read_table

# Trees of CV18, and bins of CV14: those with so many galaxies a bin are tried.
_TREES = ((1, 4), (1, 8), (2, 4), (2, 8), (3, 5), (3, 8), (4, 4), (4, 8), (5, 8), (6, 4), (6, 8), (7, 8), (9, 8))
_BINS = (4, 8, 12, 20, 40)
_FEWEST_A_BIN = 4
_RESAMPLES, _DRAWS = 20, 20


def _reason(what: str, paper: str, here: str, effect: str, **numbers: Any) -> dict[str, Any]:
    return {"what": what, "paper": paper, "here": here, "effect": effect, "numbers": numbers}


def _span(values: Sequence[float | None], form: str = ".3f") -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = (f"{value:{form}}" for value in (min(known), max(known)))
    return low if low == high else f"{low} to {high}"


def _swept(found: Measured, trees: Sequence[tuple[str, Tree]]) -> list[dict[str, Any]]:
    """Bootstrap means of every label set by other trees."""
    out = []
    for name, tree in trees:
        rows: list[dict[str, Any]] = []
        for key, one in found.sets.items():
            bias = numbers_of(replace(tree, bootstrap=min(_RESAMPLES, found.tree.bootstrap)).bias(one))
            kept = {name: bias[name] for name in ("value", "bootstrap_mean", "floor")}
            rows.append({"name": key, "one_class": one_class(one), "partial": not one.known.all(), **kept})
        if any(row["value"] is not None for row in rows):
            out.append({"setting": name, "rows": rows, "order": order(rows)})
    return out


def _gz2b(swept: Sequence[dict[str, Any]]) -> list[float | None]:
    return [row["bootstrap_mean"] for one in swept for row in one["rows"] if row["name"] == GZ2B]


def _ordered(swept: Sequence[dict[str, Any]]) -> str:
    alike = _span([one["order"]["as_in_the_paper"] for one in swept], "d")
    return f"{alike} of {max(one['order']['pairs'] for one in swept)} pairs of rows in the paper's order"


def _bins(work: Work, found: Measured) -> dict[str, Any]:
    n = found.frame.height
    if found.intrinsic:
        every = [(f"{2**depth} leaves, {bins} bins", replace(found.tree, depth=depth, bins=bins), 2**depth * bins)
                 for depth, bins in _TREES]  # fmt: skip
        here = f"{2**found.tree.depth} leaves, {found.tree.bins} bins"
    else:
        every = [(f"{bins} bins", replace(found.tree, bins=bins), bins) for bins in _BINS]
        here = f"{found.tree.bins} bins"
    swept = _swept(found, [(name, tree) for name, tree, cells in every if n / cells >= _FEWEST_A_BIN])
    effect = f"{found.tree.measure} of GZ2B {_span(_gz2b(swept))}; {_ordered(swept)}" if swept else "too few galaxies"
    return _reason("leaves and bins", "not given", here, effect, settings=swept)


def _intrinsic(work: Work, found: Measured) -> dict[str, Any] | None:
    if not found.intrinsic:
        why = "not in this sample" if work.inputs.intrinsic else "none asked for"
        return _reason(
            f"columns {', '.join(work.inputs.intrinsic)}", "CV18; columns not given", f"{why}: CV14 in place of CV18",
            "not comparable with the paper's numbers",
        )  # fmt: skip
    values = numeric_columns(found.frame, found.intrinsic, "the sample")
    trees = [("none (CV14)", replace(found.tree, intrinsic=None, depth=0, bins=20))]
    for size in range(1, len(found.intrinsic)):
        for chosen in combinations(range(len(found.intrinsic)), size):
            names = ", ".join(found.intrinsic[k] for k in chosen)
            trees.append((names, replace(found.tree, intrinsic=values[:, list(chosen)])))
    trees.append((", ".join(reversed(found.intrinsic)), replace(found.tree, intrinsic=values[:, ::-1])))
    swept = _swept(found, trees)
    effect = f"by other columns, or in another order: GZ2B {_span(_gz2b(swept))}; {_ordered(swept)}"
    return _reason("intrinsic columns", "not given", ", ".join(found.intrinsic), effect, settings=swept)


def _evaluated_on(work: Work, found: Measured) -> dict[str, Any] | None:
    known = work.result("bias")["rows"] if work.have("bias") else []
    rows = [one for one in known if one["galaxies_of"] in ("all", TRAIN, TEST) and one["bootstrap_mean"] is not None]
    said = {name: [one for one in rows if one["name"] == name] for name in dict.fromkeys(one["name"] for one in rows)}
    if not said:
        return None
    effect = "; ".join(
        f"{name.upper()}: "
        + ", ".join(f"{one['galaxies_of']} {with_error(one['bootstrap_mean'], one['bootstrap_std'])}" for one in own)
        for name, own in said.items()
    )
    return _reason(
        "galaxies that bias is measured on", "not given (± 0.01 suggests the test set)", "test galaxies",
        f"with the same leaves and bins: {effect}", rows=rows,
    )  # fmt: skip


def _drawn(work: Work, found: Measured) -> dict[str, Any] | None:
    table = read_table(work.outcomes["catalogue"].file(EVERYTHING)).frame
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
    effect = f"{len(known)} other draws of {n:,} galaxies: {found.tree.measure} of GZ2B {spread}"
    drawn = work.result("catalogue")
    return _reason(
        "random draw of the sample", f"{sum(SAMPLE):,} at random, {SAMPLE[0]:,} smooth",
        f"{drawn['galaxies']:,} of {drawn['of']:,} by id, {drawn['labels']['smooth']:,} smooth", effect, values=known,
    )  # fmt: skip


def _floor(work: Work, found: Measured) -> dict[str, Any] | None:
    bias = found.tree.bias(found.observed)
    if bias is None:
        return None
    return _reason(
        "sampling noise", "not subtracted; bootstrap means, it seems", "given beside",
        f"GZ2B as it is {bias.value:.3f}, by bootstrap {bias.bootstrap_mean:.3f}; labels that don't drift would have "
        f"{bias.floor:.3f} ({bias.objects_per_bin:.0f} galaxies a bin)",
        value=bias.value, bootstrap_mean=bias.bootstrap_mean, floor=bias.floor,
    )  # fmt: skip


def _k_correction(work: Work, found: Measured) -> dict[str, Any] | None:
    if "M_r" not in found.intrinsic or "redshift" not in found.frame.columns:
        return None
    values = numeric_columns(found.frame, found.intrinsic, "the sample").copy()
    # In r about z mag for early types, less for late ones (Chilingarian, Melchior & Zolotukhin 2010, MNRAS 405, 1409).
    values[:, found.intrinsic.index("M_r")] -= numeric_columns(found.frame, ["redshift"], "the sample")[:, 0]
    before, after = (tree.value(found.observed) for tree in (found.tree, replace(found.tree, intrinsic=values)))
    if before is None or after is None:
        return None
    return _reason(
        "K-correction of M_r", "not given", "none", f"one of z mag: GZ2B {before:.3f} → {after:.3f}", before=before,
        after=after,
    )  # fmt: skip


def _psf(work: Work, found: Measured) -> dict[str, Any] | None:
    best = "psfWidth_r_best"
    frame = work.catalogue().frame
    if best not in frame.columns:
        return None
    training = frame.filter((pl.col("split") == TRAIN) & (pl.col(best) > 0))
    width = found.frame[best].cast(pl.Float64).fill_null(np.nan).to_numpy()
    known = np.isfinite(width) & (width > 0)
    alpha = np.where(known, found.tree.alpha * found.frame["psf_fwhm"].to_numpy() / np.where(known, width, 1), np.nan)
    before, after = found.tree.value(found.observed), replace(found.tree, alpha=alpha).value(found.observed)
    if before is None or after is None:
        return None
    scaled = (training["alpha"] * training["psf_fwhm"] / training[best]).to_numpy()
    thetas = [
        fit_transition(training["label"].to_numpy(), one).values["theta"]
        for one in (training["alpha"].to_numpy(), scaled)
    ]
    return _reason(
        "field whose PSF counts", "not given", "that of the row itself, whose image people saw",
        f"the best of all fields (as in CV18's code): GZ2B {before:.3f} → {after:.3f}, θ by likelihood "
        f"{thetas[0]:.2f} → {thetas[1]:.2f}", bias=[before, after], theta=thetas,
    )  # fmt: skip


def _theta(work: Work, found: Measured) -> dict[str, Any] | None:
    if not work.have("theta"):
        return None
    fit = work.result("theta")
    others = [one for one in fit["others"] if one["theta"] is not None]
    effect = "; ".join(f"{one['how']} {with_error(one['theta'], one['stderr'], '.2f')}" for one in others)
    return _reason(
        "estimator of θ", "1525 bins of 64, midpoints",
        f"{fit['bins']:,} bins of {fit['galaxies'] // fit['bins']}: {with_error(fit['theta'], fit['stderr'], '.2f')}",
        effect, others=fit["others"],
    )  # fmt: skip


def _unit(work: Work, found: Measured) -> dict[str, Any] | None:
    if not work.have("theta"):
        return None
    fit = work.result("theta")
    sigma = fit["alpha_psf"] == "sigma"
    other = fit["theta"] / FWHM_PER_SIGMA if sigma else fit["theta"] * FWHM_PER_SIGMA
    return _reason(
        "unit of α", '"over the angular size of the PSF"', fit["alpha"],
        f"bias doesn't depend on it; θ for the PSF's {'FWHM' if sigma else 'σ'} would be {other:.2f}", other=other,
    )  # fmt: skip


def _weights(work: Work, found: Measured) -> dict[str, Any] | None:
    frame = work.catalogue().frame.filter(pl.col("split") == TRAIN)
    weights = frame["draw_weight"].to_numpy()
    if np.ptp(weights) < 1e-9:
        return None
    columns = frame["label"].to_numpy(), frame["alpha"].to_numpy()
    before, after = (fit_transition(*columns, weights=one).values["theta"] for one in (None, weights))
    return _reason(
        "drawing by label", "balanced sample, no weights", "the same",
        f"weights that undo it: θ by likelihood {before:.2f} → {after:.2f}", theta=[before, after],
    )  # fmt: skip


def _labels(work: Work, found: Measured) -> dict[str, Any] | None:
    soft = {}
    for name, one in found.probabilities.items():
        bias = replace(found.tree, bootstrap=0).bias(one)
        hard = found.tree.value(found.sets[name])
        if bias is not None and hard is not None:
            soft[found.sets[name].name] = (hard, bias.value)
    if not soft:
        return None
    effect = "; ".join(f"{name}: {hard:.3f} → {value:.3f}" for name, (hard, value) in soft.items())
    return _reason("labels or probabilities", "labels, it seems", "labels", f"probabilities: {effect}", values=soft)


def _training(work: Work, found: Measured) -> dict[str, Any] | None:
    trained = [name for name in NETWORKS if work.have(name)]
    if not trained:
        return None
    one = work.result(trained[-1])
    said = one["training"]
    here = (
        f"{said['backbone']} at {said['image_size']} pixels, AdamW, rate {said['learning_rate']:g}, batches of "
        f"{said['batch_size']}, {', '.join(str(work.result(name)['epochs']) for name in trained)} epochs, "
        f"{'published' if said['pretrained'] else 'random'} first weights"
    )
    return _reason(
        "training", "ResNet50, dense layer of 1024, 207 pixels; optimiser, rate, batches, epochs, augmentation, first "
        "weights not given", here, "not measured: `set` seed=1 trains the same again, `set` KEY=VALUE otherwise",
    )  # fmt: skip


def _size(work: Work, found: Measured) -> dict[str, Any] | None:
    drawn = work.result("catalogue")
    if drawn["as_drawn_in_the_paper"]:
        return None
    return _reason(
        "size", f"{sum(SAMPLE):,} galaxies", f"{drawn['galaxies']:,} galaxies (scale {work.options.fraction:g})",
        "not a reproduction: smaller samples have larger floors and errors, and networks learn less",
    )  # fmt: skip


def _alpha(work: Work, found: Measured) -> dict[str, Any] | None:
    about = ("alpha-is-size", "alpha-unusual", "psf-unusual", "radius-not-petrosian")
    notes = [one["message"] for one in work.result("catalogue")["findings"] if one["code"] in about]
    if not notes:
        return None
    return _reason("α", "Petrosian radius over the PSF", work.catalogue().metadata["alpha"], "; ".join(notes))


_EVERY: tuple[Callable[[Work, Measured], dict[str, Any] | None], ...] = (
    _size, _intrinsic, _bins, _evaluated_on, _drawn, _floor, _k_correction, _labels, _training, _theta, _weights, _unit,
    _psf, _alpha,
)  # fmt: skip


def _follows_from(work: Work) -> dict[str, Any]:
    return settings(work, ("catalogue", GZ2D, "theta", "bias", *MODELS))


def _make(work: Work, folder: Path) -> dict[str, Any]:
    found = measured(work)
    reasons = []
    for one in _EVERY:
        try:
            reason = one(work, found)
        except InputError as problem:  # too few galaxies for this one
            reason = _reason(one.__name__.strip("_").replace("_", " "), "–", "–", f"could not be measured: {problem}")
        if reason is not None:
            reasons.append(reason)
    result: dict[str, Any] = plain({"reasons": reasons})
    write_json(folder / "reasons.json", result)
    return result


STAGES = (
    Stage("reasons", "why numbers may differ from the paper's", _follows_from, _make, ("catalogue",),
          (GZ2D, "theta", "bias", *MODELS)),
)  # fmt: skip
