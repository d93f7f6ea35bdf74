"""What `transition` does: fit T(α) to a catalogue, compare families, check it, and show what it changes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.diagnostics import (
    COMPARED,
    calibration,
    compare_families,
    confounding_check,
)
from truemorph.bias.estimation import fit_transition
from truemorph.bias.families import transition_from_dict, transition_to_dict
from truemorph.bias.populations import PopulationFractions, debiased_fractions
from truemorph.bias.profiles import profile, sensitivity
from truemorph.bias.result import TransitionFit
from truemorph.bias.study import TransitionStudy
from truemorph.bias.transitions import CLASS_NAMES, DISK
from truemorph.catalogs.catalogue import gold_classes, rows_where
from truemorph.errors import InputError
from truemorph.io import plain, read_json, write_json
from truemorph.tables import CatalogTable, numeric_columns

RESAMPLES = 30
AS_LABELLED = "disk: what the labels call so"


@dataclass(frozen=True)
class _Rows:
    """Columns of the chosen rows, ready to fit."""

    labels: np.ndarray
    alpha: np.ndarray
    weights: np.ndarray | None
    intrinsic: np.ndarray | None
    gold: np.ndarray | None
    known: np.ndarray | None
    by: np.ndarray | None
    definition: str
    known_definition: str | None
    notes: list[str]

    @property
    def options(self) -> dict[str, Any]:
        given = {"weights": self.weights, "intrinsic": self.intrinsic, "gold": self.gold}
        return {name: values for name, values in given.items() if values is not None}


def _fit_weights(frame: pl.DataFrame) -> np.ndarray | None:
    """Sampling weights, if these rows are a sample that was balanced by label."""
    if "sampling_weight" not in frame.columns or (frame["split"] == "unused").any():
        return None
    weights = frame["sampling_weight"].to_numpy()
    return None if np.ptp(weights) == 0 else weights


def _rows(
    catalogue: CatalogTable,
    where: Iterable[str],
    intrinsic: Sequence[str] = (),
    gold: str | None = None,
    by: str | None = None,
) -> _Rows:
    source = str(catalogue.path)
    where = list(where)
    frame = catalogue.frame.filter(pl.Series(rows_where(catalogue.frame, where, source)))
    if frame.height == 0:
        raise InputError(f"{source}: no galaxy meets {' and '.join(where)}")
    notes = []
    wanted = [*intrinsic, *([by] if by else [])]
    if wanted:
        finite = np.isfinite(numeric_columns(frame, wanted, source)).all(axis=1)
        if not finite.any():
            raise InputError(f"{source}: no galaxy has a value in all of {', '.join(wanted)}")
        if not finite.all():
            notes.append(f"{int((~finite).sum())} galaxies left out: {' or '.join(wanted)} is missing")
            frame = frame.filter(pl.Series(finite))
    trusted, definition = None, AS_LABELLED
    if gold is not None:
        trusted, definition = gold_classes(frame, gold, source)
        kept = catalogue.metadata.get("gold_definition")
        if gold == "gold" and kept:
            definition = str(kept)
    known = None
    if "gold" in frame.columns:
        known = frame["gold"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return _Rows(
        labels=frame["label"].to_numpy(),
        alpha=frame["alpha"].to_numpy(),
        weights=_fit_weights(frame),
        intrinsic=numeric_columns(frame, intrinsic, source) if intrinsic else None,
        gold=trusted,
        known=known,
        by=numeric_columns(frame, [by], source)[:, 0] if by else None,
        definition=definition,
        known_definition=None if known is None else str(catalogue.metadata.get("gold_definition", "not stated")),
        notes=notes,
    )


def _described(fit: TransitionFit, catalogue: CatalogTable, where: Iterable[str], definition: str) -> dict[str, Any]:
    return {
        **transition_to_dict(fit.transition),
        "values": fit.values,
        "stderr": fit.stderr,
        "class_fractions": dict(zip(CLASS_NAMES, fit.class_fractions.tolist(), strict=True)),
        "method": fit.method,
        "assumption": fit.assumption,
        "definition": definition,
        "alpha": catalogue.metadata.get("alpha"),
        "alpha_psf": catalogue.metadata.get("alpha_psf"),
        "galaxies": fit.n_objects,
        "where": list(where),
        "log_likelihood": fit.log_likelihood,
        "aic": fit.aic,
        "warnings": list(fit.warnings),
    }


def fit_catalogue(
    catalogue: CatalogTable,
    *,
    family: str = "rayleigh",
    method: str | None = None,
    bins: int = 1525,
    where: Iterable[str] = (),
) -> tuple[TransitionFit, dict[str, Any]]:
    """Fit T(α) to a catalogue's labels; returns the fit and its description for JSON.

    Raises
    ------
    InputError
        If no galaxy is selected, or the fit can't be made.
    """
    where = list(where)
    rows = _rows(catalogue, where)
    fit = fit_transition(rows.labels, rows.alpha, family, method, bins, weights=rows.weights)
    return fit, plain(_described(fit, catalogue, where, rows.definition))


def study_transition(
    catalogue: CatalogTable,
    *,
    family: str = "rayleigh",
    method: str | None = None,
    intrinsic: Sequence[str] = (),
    gold: str | None = None,
    false_disk: float | str | None = None,
    class_model: str = "logistic",
    bins: int = 1525,
    by: str | None = None,
    fraction_bins: int = 8,
    compare: bool = True,
    where: Iterable[str] = (),
    bootstrap: int = 0,
    seed: int = 0,
) -> TransitionStudy:
    """Fit T(α), compare families, check confounding and calibration, and debias class fractions.

    Parameters
    ----------
    catalogue : CatalogTable
    family : str
        A family of `fit_transition`, or "best": the one of lowest AIC among those compared.
    method, false_disk, class_model, bins
        As for `fit_transition`.
    intrinsic : sequence of str
        Columns that classes may depend on; rows without a value are left out and counted.
    gold : str, optional
        Gold labels: a column, or a rule such as "t_type>=-3" (see `gold_classes`).
    by : str, optional
        Column whose bins the debiased fractions are given in; α without.
    fraction_bins : int
        Most bins of the debiased fractions; fewer where there are under 50 galaxies a bin.
    compare : bool
        Whether to fit the other families too.
    where : iterable of str
        "column=value" conditions.
    bootstrap : int
        Refits on resampled galaxies, to check the errors.
    seed : int

    Raises
    ------
    InputError
        If no galaxy is selected, a column is absent, or the fit can't be made.
    """
    where = list(where)
    if fraction_bins < 1:
        raise InputError(f"the debiased fractions need at least one bin; got {fraction_bins}")
    rows = _rows(catalogue, where, intrinsic, gold, by)
    given = rows.options
    if gold is not None and method in (None, "gold") and family != "tabulated":
        given.pop("intrinsic", None)  # they go into the check, and into the regression on gold labels
    options = {
        **given, "method": method, "false_disk": false_disk, "class_model": class_model, "bins": bins,
        "seed": seed,
    }  # fmt: skip
    families = None
    if compare or family == "best":
        asked = () if family in ("best", *COMPARED) else (family,)
        families = compare_families(rows.labels, rows.alpha, (*asked, *COMPARED), **options)
        chosen = families.best if family == "best" else family
        if chosen in families.failed:
            raise InputError(families.failed[chosen])
        fit = families.fits[chosen]
    else:
        fit = fit_transition(rows.labels, rows.alpha, family, **options)
    if fit.family in ("monotone", "tabulated"):  # the curvature gives no error where neighbouring knots are level
        fit = fit.with_bootstrap_errors(bootstrap or RESAMPLES, seed)
    check = confounding_check(rows.labels, rows.alpha, rows.intrinsic, rows.gold, weights=rows.weights, seed=seed)
    limits, curve = None, None
    if fit.space is not None and len(fit.space.names) == fit.space.size and fit.votes is None:
        if fit.family not in ("monotone", "matrix"):
            limits = profile(fit)
        curve = sensitivity(fit)
    n_bins = max(1, min(fraction_bins, rows.labels.size // 50))
    fractions = debiased_fractions(
        rows.labels,
        rows.alpha,
        fit,
        rows.by,
        n_bins,
        rows.gold,
        name=by or "alpha",
        seed=seed,
        weights=rows.weights,
        covariates=rows.intrinsic if rows.gold is not None else None,
    )
    gold_fractions = None if rows.known is None else _gold_fractions(rows.known, fractions, rows.by, rows.alpha)
    described = _described(fit, catalogue, where, rows.definition)
    described["warnings"] = list(dict.fromkeys([*rows.notes, *described["warnings"], *fractions.warnings]))
    if check.confounded or not check.checked:
        described["warnings"].append(check.statement)
    described["confounding"] = asdict(check)
    if families is not None:
        if families.left_out:
            described["warnings"].append(f"{families.left_out} rows at alpha = 0 are not compared on")
        families.fits[fit.family] = fit  # with its bootstrap errors, where it has some
        described["families"] = families.table()
        described["families_failed"] = families.failed
        described["rayleigh_p_value"] = families.rayleigh_p_value
    checked = calibration(fit)
    described["calibration"] = asdict(checked)
    if limits is not None:
        described["profile"] = asdict(limits)
    if curve is not None:
        described["sensitivity"] = asdict(curve)
    described["fractions"] = {
        "by": fractions.by,
        "edges": fractions.edges,
        "middles": fractions.middles,
        "galaxies": fractions.counts,
        "labelled": fractions.labelled[:, DISK],
        "disk": fractions.fractions[:, DISK],
        "stderr": fractions.stderr[:, DISK],
        "low": fractions.low[:, DISK],
        "high": fractions.high[:, DISK],
        "method": fractions.method,
        "assumption": fractions.assumption,
        "alternatives": {name: value[:, DISK] for name, (value, _) in fractions.alternatives.items()},
        "gold": gold_fractions,
        "gold_definition": rows.known_definition,
    }
    if bootstrap:
        again = fit.bootstrap(bootstrap, seed)
        described["bootstrap_std"] = {
            name: float(np.std([one.values[name] for one in again], ddof=1)) if len(again) > 1 else float("nan")
            for name in fit.values
        }
        if len(again) < bootstrap:
            described["warnings"].append(f"{bootstrap - len(again)} of {bootstrap} resamples could not be fitted")
    return TransitionStudy(fit, families, check, checked, limits, curve, fractions, gold_fractions, plain(described))


def _gold_fractions(
    gold: np.ndarray, fractions: PopulationFractions, by: np.ndarray | None, alpha: np.ndarray
) -> np.ndarray:
    """Disk fraction of the galaxies with gold labels, in the bins of the corrected fractions."""
    column = alpha if by is None else by
    index = np.clip(np.searchsorted(fractions.edges[1:-1], column, side="right"), 0, fractions.counts.size - 1)
    known = np.isfinite(gold)
    counts = np.bincount(index[known], minlength=fractions.counts.size)
    sums = np.bincount(index[known], weights=gold[known], minlength=fractions.counts.size)
    return np.divide(sums, counts, out=np.full(counts.size, np.nan), where=counts > 0)


def write_fit(fit: TransitionFit, described: dict[str, Any], out: Path) -> Path:
    """Write a fit as JSON, and its picture as PNG beside it."""
    check_fit_path(out)
    write_json(out, described)
    axes = fit.plot()
    axes.figure.savefig(out.with_suffix(".png"), dpi=150)
    return out


def write_study(study: TransitionStudy, out: Path) -> Path:
    """Write a study as JSON, and its pictures as one PNG beside it."""
    from matplotlib.figure import Figure

    check_fit_path(out)
    write_json(out, study.described)
    panels: list[tuple[str, Any]] = [
        ("flips with resolution", study.fit.plot if study.families is None else study.families.plot),
        ("class fractions before and after", partial(study.fractions.plot, truth=study.gold_fractions)),
        ("calibration", study.calibration.plot),
    ]
    if study.families is not None:
        panels.append(("families", study.families.plot_aic))
    if study.profile is not None:
        panels.append(("profile likelihood", study.profile.plot))
    if study.sensitivity is not None:
        panels.append(("what a wrong T would do", study.sensitivity.plot))
    figure = Figure(figsize=(14, 7.6), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for ax, (title, draw) in zip(axes, panels, strict=False):
        draw(ax)
        ax.set_title(title, fontsize=10)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.savefig(out.with_suffix(".png"), dpi=150)
    return out


def check_fit_path(out: Path) -> None:
    """Refuse a name that a fit can't be written under."""
    if out.suffix != ".json":
        raise InputError(f"{out}: a fit is written as .json (and a picture .png beside it)")


def read_fit(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a fit written by `truemorph transition`, or a hand-written `{"family": ..., "parameters": ...}`.

    Raises
    ------
    InputError
        If it is absent, not JSON, or not a transition.
    """
    described: dict[str, Any] = read_json(path)
    try:
        transition_from_dict(described)
    except (ValueError, AttributeError) as problem:
        raise InputError(f"{path}: not a transition written by `truemorph transition` ({problem})") from problem
    return described
