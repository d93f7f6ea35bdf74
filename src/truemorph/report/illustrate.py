"""From evidence to figures with captions, and words for those who can't see them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from truemorph.bias.plots import binned_share
from truemorph.bias.scores import calibration_error
from truemorph.bias.study import TransitionStudy
from truemorph.bias.transitions import DISK, SMOOTH, Transition
from truemorph.report import figures
from truemorph.report.evidence import Evidence
from truemorph.report.measures import LabelSet, confusion_by, fractions_by, reliability
from truemorph.report.page import Illustration
from truemorph.report.style import ALPHA, Style, plain_text, styles_of

_POINTS = 12


def styles_for(found: Evidence) -> dict[str, Style]:
    """How each label set, and each model, is drawn."""
    naive = [model.name for model in found.models if model.naive]
    styles = styles_of(found.sets, naive)
    return styles | {model.name: styles[model.probabilities.name] for model in found.models}


def illustrations(found: Evidence) -> list[Illustration]:
    """The bias pictures of a report."""
    styles = styles_for(found)
    every = [_fractions(found, styles)]
    if found.study is not None:
        every.append(_flips(found, styles))
    if found.leaves:
        every.append(_leaves(found))
    if found.models:
        every += [_reliability(found, styles), _confusion(found)]
    return every


def _numbers(values: pl.Series) -> str:
    return ", ".join("unknown" if value is None or np.isnan(value) else f"{value:.2f}" for value in values)


def _fractions(found: Evidence, styles: Mapping[str, Style]) -> Illustration:
    tables = {ALPHA: found.by_alpha}
    for name in found.intrinsic:
        tables[plain_text(name)] = fractions_by(found.frame[name].cast(pl.Float64).to_numpy(), found.curves)
    names = ["alpha", *found.intrinsic]
    data = pl.concat(
        [
            table.select(pl.lit(name).alias("column"), pl.all())
            for name, table in zip(names, tables.values(), strict=True)
        ]
    )
    fractions = None if found.study is None or found.study.fractions.by != "alpha" else found.study.fractions
    if fractions is not None:
        inverted = pl.DataFrame(
            {
                "column": "alpha",
                "labels": "crowd labels inverted through T",
                "bin": np.arange(fractions.counts.size) + 1,
                "low": fractions.edges[:-1],
                "high": fractions.edges[1:],
                "mean": fractions.middles,
                "galaxies": fractions.counts,
                "disk_fraction": fractions.fractions[:, DISK],
                "stderr": fractions.stderr[:, DISK],
                "lowest": fractions.low[:, DISK],
                "highest": fractions.high[:, DISK],
            }
        )
        data = pl.concat([data, inverted], how="diagonal_relaxed")
    by_alpha = {one.name: found.by_alpha.filter(pl.col("labels") == one.name)["disk_fraction"] for one in found.curves}
    band = (
        ""
        if fractions is None
        else " Band: people's labels inverted through the fitted T(α), over families, estimators and θ ± σ."
    )
    return Illustration(
        "fractions",
        figures.fractions_figure(tables, styles, fractions),
        "Disk fraction in five bins of resolution. " + "; ".join(f"{n}: {_numbers(v)}" for n, v in by_alpha.items()),
        f"Disk fraction of {found.which} in five equal-count bins of resolution"
        + (f", and of {', '.join(found.intrinsic)}" if found.intrinsic else "")
        + f". Errors: binomial.{band}",
        data,
    )


def _flips(found: Evidence, styles: Mapping[str, Style]) -> Illustration:
    study = found.study
    assert study is not None
    through = {model.name: model.transition for model in found.models if not model.naive}
    values, errors = study.fit.values, study.fit.stderr
    parameters = ", ".join(
        f"{name} {value:.2f} ± {errors[name]:.2f}" for name, value in values.items() if name in errors
    )
    what = f"{study.fit.family}: {parameters or 'no parameters'}"
    seen = " Points on the right: what happened to galaxies whose true class is known." if found.flipped else ""
    return Illustration(
        "flips",
        figures.flips_figure(study, through, found.flipped, styles),
        f"How often a disk is labelled smooth, against resolution. {what}.",
        f"Left: labels and the flip probabilities fitted to them ({what}; method {study.fit.method}). "
        f"Right: T(α) that models were trained through.{seen}",
        _flip_data(found, study, through),
    )


def _flip_data(found: Evidence, study: TransitionStudy, through: Mapping[str, Transition]) -> pl.DataFrame:
    """`what`, `alpha`, `value`, `stderr` (of counted shares)."""
    fit = study.fit
    alpha = fit.alpha if fit.alpha.ndim == 1 else fit.alpha[:, 0]
    weights = fit.inputs.per_row.get("weights", np.ones(alpha.size))
    middle, share, error = binned_share(alpha, fit.labels == SMOOTH, _POINTS, weights)
    counted: dict[str, tuple[np.ndarray, ...]] = {"labelled smooth": (middle, share, error)}
    counted |= {
        f"true disks labelled smooth, {definition}": tuple(
            table[name].to_numpy() for name in ("mean", "share", "stderr")
        )
        for definition, table in found.flipped.items()
    }
    fits = {fit.family: fit} if study.families is None else study.families.fits
    curves = {f"p(smooth | disk) fitted, {name}": one.transition for name, one in fits.items()}
    curves |= {f"p(smooth | disk) of {name}": one for name, one in through.items()}
    grid = np.linspace(0, float(np.quantile(alpha, 0.99)), 101)
    parts = [pl.DataFrame({"alpha": x, "value": y, "stderr": e}).select(pl.lit(what).alias("what"), pl.all())
             for what, (x, y, e) in counted.items()]  # fmt: skip
    for what, one in curves.items():
        if len(getattr(one, "center", ())) <= 1:  # of one observable
            values = np.asarray(one.flip_probability(grid), np.float64)
            parts.append(pl.DataFrame({"what": what, "alpha": grid, "value": values, "stderr": None}))
    return pl.concat(parts, how="vertical_relaxed")


def _leaves(found: Evidence) -> Illustration:
    rows = [
        {"labels": name, "leaf": leaf + 1, "galaxies": int(one.counts[leaf]), "value": float(one.values[leaf]),
         "floor": float(one.floors[leaf]), "excess": float(one.excess[leaf]),
         **dict(zip(found.intrinsic, map(float, one.medians[leaf]), strict=True))}
        for name, one in found.leaves.items() for leaf in range(one.counts.size)
    ]  # fmt: skip
    data = pl.DataFrame(rows)
    worst = data.sort("excess", descending=True).group_by("labels", maintain_order=True).first()
    return Illustration(
        "leaves",
        figures.leaves_figure(found.leaves, found.intrinsic),
        "Drift with resolution in each leaf of the intrinsic tree. Largest: "
        + "; ".join(f"{row['labels']} {row['excess']:.2f}" for row in worst.iter_rows(named=True)),
        f"Where bias lies: CV18 above its floor in each of {2**found.tree.depth} leaves of like "
        f"{', '.join(found.intrinsic)}, at the leaf's medians of the first two. Above each panel: all leaves together "
        "(analytic floor).",
        data,
    )


def _reliability(found: Evidence, styles: Mapping[str, Style]) -> Illustration:
    tables: dict[str, dict[str, pl.DataFrame]] = {}
    errors: dict[str, float] = {}
    for definition, truth in found.truths.items():
        panel = {}
        for model in found.models:
            for one in (model.probabilities, model.posterior):
                if one is not None and (one.known & truth.known).any():
                    panel[one.name] = reliability(one.disk, truth.disk)
                    errors[f"{one.name}, {definition}"] = calibration_error(truth.disk, one.disk)
        if panel:
            tables[f"truth: {definition}"] = panel
    through = {}
    for model in found.models:
        p = found.seen_by_crowd(model)
        through[model.name] = reliability(p, found.crowd.disk)
        errors[f"{model.name}, crowd"] = calibration_error(found.crowd.disk, p)
    tables["people's labels, through T(α)"] = through
    data = pl.concat(
        [
            table.select(pl.lit(what).alias("against"), pl.lit(name).alias("labels"), pl.all())
            for what, panel in tables.items()
            for name, table in panel.items()
        ]
    )
    said = "; ".join(f"{name} {value:.3f}" for name, value in errors.items())
    return Illustration(
        "calibration",
        figures.reliability_figure(tables, styles),
        f"Observed share against probability; mean distances: {said}.",
        "Does a galaxy of p(disk) 0.7 turn out a disk seven times of ten? Mean distance of probability and share: "
        f"{said}. The comparison with people's labels takes p through T(α) first, and needs no truth.",
        data,
    )


def _confusion(found: Evidence) -> Illustration:
    reference = next(iter(found.truths.values()), found.crowd)
    sets: list[LabelSet] = [model.labels for model in found.models]
    if found.truths:
        sets = [found.crowd, *found.columns, *sets]
    data = confusion_by(found.alpha, reference, sets)
    shares = data.filter((pl.col("of") == 1) & (pl.col("as") == 1) & (pl.col("bin") == 1))
    return Illustration(
        "confusion",
        figures.confusion_figure(data),
        f"Confusion matrices against {reference.name} in four bins of α. Of disks in the least resolved, found: "
        + "; ".join(f"{row['labels']} {row['share']:.2f}" for row in shares.iter_rows(named=True)),
        f"Lines: class by {reference.name}; columns: label given. Share of the line, and galaxies, in four equal-count "
        "bins of α.",
        data,
    )
