"""Figures of the page, each with its caption and the data behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from truemorph.bias.curves.transitions import DISK
from truemorph.bias.estimate import Estimate
from truemorph.bias.metrics.scores import calibration_error
from truemorph.catalogs.columns import NAMED
from truemorph.catalogs.label_sets import LabelSet, fractions_by
from truemorph.plotting import BLACK, BLUE, GREEN, ORANGE, RED, SKY, plain_text
from truemorph.report.evidence import Evidence, argument
from truemorph.report.lights import FEWEST_OF_A_CLASS
from truemorph.report.measures import halves_by
from truemorph.report.page import Illustration
from truemorph.tables import numeric_columns

# How matplotlib draws a label set: its `color`, `marker` and `ls`.
Style = dict[str, Any]
STYLE: dict[str, Style] = {
    "truth": {"color": BLACK, "marker": "o", "ls": "-"},
    "observed": {"color": "#8a8a8a", "marker": "s", "ls": "--"},
}
_COLOURS = (BLUE, GREEN, "#CC79A7", SKY, ORANGE, "#F0E442")
_MARKERS = "DPX*<>"
_LINES = {"probabilities": "-", "labels": "-", "posterior": ":", "column": "-."}
CALIBRATION_BINS = 10


def styles_of(evidence: Evidence) -> dict[str, Style]:
    """How each label set, and each model, is drawn: observed labels grey, gold in the colour of text, a colour a model.

    Of naive models the first is orange.
    """
    naive = next((model.name for model in evidence.models if model.naive), None)
    styles: dict[str, Style] = {evidence.observed.name: STYLE["observed"]}
    for truth, marker, line in zip(
        evidence.truths.values(), cycle("ov^s"), cycle(("-", "--", ":", "-.")), strict=False
    ):
        styles[truth.name] = {**STYLE["truth"], "marker": marker, "ls": line}
    others = [column.name for column in evidence.columns] + [
        model.name for model in evidence.models if model.name != naive
    ]
    looks = {name: (colour, marker) for name, colour, marker in zip(others, cycle(_COLOURS), cycle(_MARKERS))}
    for label_set in evidence.sets:
        if label_set.kind in _LINES:
            colour, marker = looks.get(label_set.model or label_set.name, (RED, "^"))
            styles[label_set.name] = {"color": colour, "marker": marker, "ls": _LINES[label_set.kind]}
    return styles | {model.name: styles[model.probabilities.name] for model in evidence.models}


def capital(text: str) -> str:
    """Return a text with a capital as its first letter."""
    return text[:1].upper() + text[1:]


def in_words(columns: Sequence[str]) -> str:
    """What columns are, in words; a column of the user's own by its name."""
    return ", ".join(NAMED[column].description if column in NAMED else column for column in columns)


def by_name(by: str) -> str:
    """What the columns are called in whose bins fractions are, such as "α and redshift"."""
    return " and ".join("α" if one == "alpha" else one for one in by.split(","))


def axis_label(evidence: Evidence, column: str) -> str:
    """What a column is, in words, with its unit."""
    if column == "alpha":
        width = r"\sigma_\mathrm{PSF}" if evidence.catalogue.metadata.get("alpha_psf") != "fwhm" else r"\mathrm{FWHM}"
        return rf"resolution $\alpha = R_\mathrm{{petro}} / {width}$"
    unit = evidence.catalogue.units.get(column)
    return plain_text(in_words([column])) + (f" [{unit}]" if unit else "")


def new_panel(width: float = 4.6, height: float = 3.5) -> Any:
    """Axes of a new figure; the default fits half of a page of 1,300 pixels, and a phone."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def _draw_fractions(axes: Any, evidence: Evidence) -> None:
    """Fraction against α, or the column of the estimate: observed, corrected with its range, and gold labels."""
    table, styles = evidence.correction, styles_of(evidence)
    x = table["mean"]
    model = evidence.corrector
    between = {"ls": "none"} if evidence.groups else {}  # no lines between groups
    if table["corrected"].is_not_null().all():
        area, width = (axes.vlines, 8) if evidence.groups else (axes.fill_between, 0)
        area(x, table["lowest"], table["highest"], color=BLUE, alpha=0.18, lw=width, label="range")
        look = {"color": BLUE, "marker": "D", "ms": 5, "lw": 2, **between}
        axes.errorbar(x, table["corrected"], table["stderr"], label="corrected", **look)
    others = {column.name: column for column in evidence.columns}
    if model is not None:
        look = styles[model.name] | {"ls": ":", "marker": "o", "mfc": "white"} | between
        axes.plot(x, table["model"], ms=6, lw=1.5, label=f"{plain_text(model.name)}, mean p", **look)
    for other in evidence.models:
        if other is not model:
            others[other.name + (" (no correction)" if other.naive else "")] = other.probabilities
    for name, one in others.items():
        fraction = evidence.fractions_of([one])["fraction"]
        axes.plot(x, fraction, ms=4, lw=1, label=plain_text(name), **styles[one.name] | between)
    observed = STYLE["observed"] | between
    axes.errorbar(x, table["labelled"], table["labelled_stderr"], ms=5, lw=1.5, label="observed", **observed)
    if table["gold"].is_not_null().all() and not evidence.from_gold:
        truth = STYLE["truth"] | between
        axes.errorbar(x, table["gold"], table["gold_stderr"], ms=5, lw=1.2, label=evidence.gold_name, **truth)
    axes.set(xlabel=axis_label(evidence, evidence.by), ylabel=evidence.quantity, ylim=(0, 1.02))
    if evidence.groups:
        axes.set_xticks(x, map(plain_text, evidence.groups))


def legend_above(axes: Any) -> None:
    """Add a legend above the axes."""
    axes.figure.legend(frameon=False, ncols=2, loc="outside upper center", fontsize=9)


def fractions(evidence: Evidence) -> Illustration:
    """Figure 1: the fraction against α, or against the column of the estimate."""
    table, model, estimate = evidence.correction, evidence.corrector, evidence.estimate
    axes = new_panel(5.2, 3.9)
    _draw_fractions(axes, evidence)
    legend_above(axes)
    whose = evidence.which if model is not None or estimate is None else f"{estimate.curve.galaxies:,} galaxies"
    by = "α" if evidence.by == "alpha" else in_words([evidence.by])
    caption = f"{capital(evidence.quantity)} of {whose} in bins of {by}. "
    if estimate is not None:
        how = "from gold labels" if evidence.from_gold else "from the observed labels through T(α)"
        trends = "" if estimate.curve.drift is None else ", for trends of the true fraction with α up to δ"
        caption += f"Corrected: the estimate {how}, of its {estimate.curve.galaxies:,} galaxies, with its statistical "
        caption += f"error and its range{trends}."
    if model is not None:
        what = "the posterior" if model.posterior else f"p({evidence.classes[1]})"
        caption += f" {model.name!r}: mean of {what} by this model, whose error is not known."
    others = [one.name for one in evidence.models if one is not model]
    if others:
        caption += f" Mean p({evidence.classes[1]}) is shown for {', '.join(map(repr, others))}."
    return Illustration("fractions", axes.figure, caption, table)


def bias_curve(evidence: Evidence, estimate: Estimate) -> Illustration:
    """T(α): the fitted family bold, the others as a band, gold labels as points, and the curves of models."""
    fit, styles, (first, second) = estimate.curve, styles_of(evidence), evidence.classes
    grid = np.linspace(0, float(np.quantile(evidence.alpha, 0.99)), 200)
    fits = {fit.family: fit} if estimate.families is None else {fit.family: fit, **estimate.families.fits}
    names = list(estimate.about.get("observables", ()))
    at = argument(grid, numeric_columns(evidence.frame, names, str(evidence.path)), along=True)
    curves = {name: np.asarray(fit.transition.flip_probability(at), np.float64) for name, fit in fits.items()}
    data = []
    axes = new_panel(6, 3.9)
    if len(curves) > 1:
        every = np.array(list(curves.values()))
        band = every.min(axis=0), every.max(axis=0)
        axes.fill_between(grid, *band, color="0.5", alpha=0.3, lw=0, label="other families")
    axes.plot(grid, curves[fit.family], color=BLACK, lw=2.2, label=f"{fit.family}, estimated")
    drawn = {f"fitted, {name}": curve for name, curve in curves.items()}
    for model in evidence.models:
        if not model.naive:
            name = f"{model.name}, trained through"
            curve = np.asarray(
                model.transition.flip_probability(argument(grid, model.observables, along=True)), np.float64
            )
            drawn[name] = curve
            axes.plot(grid, curve, lw=1.5, ls="--", color=styles[model.name]["color"], label=plain_text(name))
    for definition, truth in evidence.truths.items():
        rows = truth.labels == DISK
        if rows.sum() >= FEWEST_OF_A_CLASS:
            missed = LabelSet.of_two(evidence.observed.name, "observed", 1 - evidence.observed.p[rows], (second, first))
            table = fractions_by(evidence.alpha[rows], [missed], min(12, int(rows.sum()) // FEWEST_OF_A_CLASS))
            x, y, error = (table[name] for name in ("mean", "fraction", "stderr"))
            label = f"{plain_text(truth.name)}: {second} labelled {first}"
            axes.errorbar(x, y, error, fmt=styles[truth.name]["marker"], ms=5, color=RED, label=label)
            about = {"what": f"gold {second} labelled {first}, {definition}", "alpha": x, "share": y, "stderr": error}
            data.append(pl.DataFrame(about))
    points = bool(data)
    data += [pl.DataFrame({"what": name, "alpha": grid, "share": curve}) for name, curve in drawn.items()]
    axes.set(xlabel=axis_label(evidence, "alpha"), ylabel=f"probability that {second}\nis labelled {first}")
    axes.set(ylim=(-0.02, 1.02), xlim=(0, grid[-1]))
    axes.legend(frameon=False, fontsize=8)
    parameters = ", ".join(
        f"{name} {value:.2f} ± {fit.stderr[name]:.2f}" for name, value in fit.values.items() if name in fit.stderr
    )
    fitted = f"{fit.family} family, {parameters or 'no parameters'}"
    return Illustration(
        "bias_curve",
        axes.figure,
        f"The bias curve T(α): how often {second} galaxies are labelled {first} ({fitted}; by the {fit.method} method)."
        + (" Grey: the other families." if len(curves) > 1 else "")
        + (" Other columns that it depends on are at their means." if names else "")
        + (" Points: galaxies with gold labels." if points else ""),
        pl.concat(data, how="diagonal"),
    )


def at_fixed_alpha(evidence: Evidence, estimate: Estimate) -> Illustration:
    """Observed labels, and T, against each observable beside α: in thirds of α, two panels an observable."""
    names, (first, second) = estimate.about["observables"], evidence.classes
    columns = numeric_columns(evidence.frame, names, str(evidence.path))
    thirds = np.array_split(np.argsort(evidence.alpha, kind="stable"), 3)
    panels, data = [], []
    for k, name in enumerate(names):
        labels, curves = new_panel(), new_panel()
        for rows, color, marker in zip(thirds, (RED, ORANGE, BLUE), "os^", strict=True):
            usable = rows[np.isfinite(columns[rows]).all(axis=1)]
            alpha, values = float(np.median(evidence.alpha[usable])), columns[usable, k]
            table = fractions_by(values, [evidence.observed.of(usable)], max(1, min(6, usable.size // 50)))
            x, y, error = (table[column] for column in ("mean", "fraction", "stderr"))
            labels.errorbar(x, y, error, color=color, marker=marker, ms=5, lw=1.3, label=f"α ≈ {alpha:.3g}")
            low, high = np.quantile(values, [0.01, 0.99])
            grid = np.linspace(low, high, 50)
            at = np.tile([alpha, *columns[usable].mean(axis=0)], (grid.size, 1))
            at[:, 1 + k] = grid
            flips = np.asarray(estimate.curve.transition.flip_probability(at), np.float64)
            curves.plot(grid, flips, color=color, lw=1.8, label=f"α = {alpha:.3g}")
            about = {"column": name, "alpha": alpha}
            observed = {"value": x, "what": "observed labels", "fraction": y, "stderr": error}
            bias = {"value": grid, "what": f"{second} labelled {first}", "fraction": flips}
            data += [pl.DataFrame(one | about) for one in (observed, bias)]
        labels.set(xlabel=axis_label(evidence, name), ylabel=f"{evidence.quantity}, observed", ylim=(0, 1.02))
        curves.set(xlabel=axis_label(evidence, name), ylim=(-0.02, 1.02))
        curves.set(ylabel=f"probability that {second}\nis labelled {first}")
        for axes in (labels, curves):
            legend_above(axes)
            panels.append(axes.figure)
    return Illustration(
        "observables",
        panels,
        f"Drift with {in_words(names)} at fixed resolution, in thirds of α: {evidence.quantity} by the observed "
        f"labels, with binomial errors, and how often {second} galaxies are labelled {first} by the estimate.",
        pl.concat(data, how="diagonal"),
    )


def among_similar(evidence: Evidence) -> Illustration:
    """Fraction of poorly and of well resolved galaxies against each intrinsic column, one panel a column."""
    styles = styles_of(evidence)
    sets = {"observed": evidence.observed}
    if evidence.corrector is not None:
        sets["corrected"] = evidence.corrector.best
    if evidence.truth is not None:
        sets[evidence.gold_name] = evidence.truth
    panels, data = [], []
    for column in evidence.options.intrinsic:
        table = halves_by(evidence.frame[column].cast(pl.Float64).to_numpy(), evidence.alpha, list(sets.values()))
        axes = new_panel()
        for name, label_set in sets.items():
            style = styles[label_set.name]
            poorly, well = (table.filter(labels=label_set.name, bin=half) for half in (1, 2))
            both: Any = (well, {"ls": "-", "label": name}), (poorly, {"ls": ":", "mfc": "none"})
            for part, look in both:
                x, y, error = part["value"], part["fraction"], part["stderr"]
                axes.errorbar(x, y, error, **{**style, **look, "ms": 5, "lw": 1.3})
        axes.set(xlabel=axis_label(evidence, column), ylabel=evidence.quantity, ylim=(0, 1.02))
        legend_above(axes)
        panels.append(axes.figure)
        data.append(table.select(pl.lit(column).alias("column"), pl.all()))
    return Illustration(
        "similar_galaxies",
        panels,
        f"{capital(evidence.quantity)} of {evidence.which} in fifths of {in_words(evidence.options.intrinsic)}: of the "
        "better resolved half of each fifth (filled, solid) and of the other half (open, dotted). Where they agree, "
        "the fraction of similar galaxies does not depend on their resolution. One property is held fixed at a time, "
        "so those of the truth need not agree exactly. Errors: binomial.",
        pl.concat(data),
    )


def calibration_panel(
    outcome: np.ndarray, probabilities: Mapping[str, np.ndarray], styles: Mapping[str, Style], against: str
) -> tuple[Any, list[str], list[pl.DataFrame]]:
    """Draw how often an outcome, 0 or 1 or a fraction, occurs against its probability, all (N,), NaN where unknown.

    `against` names the outcome. Returns axes, the calibration error of each probability as text, and what is drawn.
    """
    axes, errors, data = new_panel(4.2, 4.2), [], []
    axes.plot([0, 1], [0, 1], ls="--", lw=1, color="0.5")
    for name, p in probabilities.items():
        usable = np.isfinite(outcome) & np.isfinite(p)
        found = LabelSet.of_two(name, "labels", outcome[usable], ("", ""))
        table = fractions_by(p[usable], [found], CALIBRATION_BINS)
        x, y, error = (table[column] for column in ("mean", "fraction", "stderr"))
        axes.errorbar(x, y, error, label=plain_text(name), ms=4.5, lw=1, **styles[name])
        errors.append(f"{name} {calibration_error(outcome, p):.3f} ({against})")
        data.append(table.with_columns(pl.lit(against).alias("against")))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if data:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    return axes, errors, data


def reliability_panels(evidence: Evidence) -> Illustration:
    """Observed frequency against probability: a panel for each thing that was compared with."""
    styles, counted = styles_of(evidence), evidence.classes[1]
    soft = [one for model in evidence.models for one in (model.probabilities, model.posterior) if one is not None]
    against = [(truth, {one.name: one.p for one in soft}) for truth in evidence.truths.values()]
    of_labels = {model.name: model.observed_probability(evidence.alpha) for model in evidence.models}
    against.append((evidence.observed, of_labels))
    panels, errors, data = list[Figure](), list[str](), list[pl.DataFrame]()
    for outcome, probabilities in against:
        axes, some, tables = calibration_panel(outcome.p, probabilities, styles, outcome.name)
        predicted = f"predicted probability of the label {counted}" if outcome is evidence.observed else f"p({counted})"
        axes.set(xlabel=predicted, ylabel=f"{evidence.quantity}: {plain_text(outcome.name)}")
        panels.append(axes.figure)
        errors += some
        data += tables
    return Illustration(
        "calibration",
        panels,
        f"Of galaxies with p({counted}) = 0.7, are 70 % {counted}? Calibration error (mean distance of probability and "
        f"fraction): {'; '.join(errors)}. For the comparison with the observed labels, p is passed through "
        "T(α), so it needs no gold labels.",
        pl.concat(data),
    )


def pairs_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Galaxies that changed label: what annotators saw above, a better image below (Figure 4).

    Each row has `seen` and `better`, uint8 (S, S, 3), and `title`.
    """
    across = min(len(rows), 6)
    lines = -(-len(rows) // across)
    figure = Figure(figsize=(1.75 * across, 4.0 * lines), layout="constrained")
    panels = figure.subplots(2 * lines, across, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for k, row in enumerate(rows):
        line, column = divmod(k, across)
        _draw_pair(panels[2 * line, column], panels[2 * line + 1, column], row)
    return figure


def _draw_pair(upper: Any, lower: Any, row: Mapping[str, Any]) -> None:
    """What annotators saw of one galaxy, and below it a better image."""
    upper.imshow(row["seen"])
    upper.set_title(plain_text(row["title"]), fontsize=8)
    lower.imshow(row["better"])


def overview(evidence: Evidence, examples: Sequence[Mapping[str, Any]]) -> Illustration:
    """Figure 1 beside up to four galaxies that change (as for `pairs_figure`), for slides and first pages."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    beside: Any = figure.subfigures(1, 2, width_ratios=(5.4, 5.6))
    left, right = beside
    axes = left.subplots()
    _draw_fractions(axes, evidence)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    panels = right.subplots(2, len(examples), squeeze=False)
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for column, row in enumerate(examples):
        _draw_pair(panels[0, column], panels[1, column], row)
    panels[0, 0].set_ylabel(f"as it was labelled:\nlabelled {evidence.classes[0]}", fontsize=9)
    panels[1, 0].set_ylabel(f"a better image:\n{evidence.classes[1]}", fontsize=9)
    text = f"{capital(evidence.quantity)} against resolution, beside galaxies as labelled and in better images."
    return Illustration("overview", figure, text)
