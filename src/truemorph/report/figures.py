"""Figures of the page, each with its caption and the data behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from truemorph.bias.binning import Bins
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import DISK
from truemorph.bias.estimate import Estimate
from truemorph.bias.likelihood import observables_of
from truemorph.bias.metrics.scores import calibration_error
from truemorph.bias.plots import plot_fractions
from truemorph.catalogs.columns import NAMED
from truemorph.catalogs.label_sets import FIFTHS, LabelSet, fractions_by
from truemorph.catalogs.paths import path_labels
from truemorph.plotting import ALPHA, BLACK, BLUE, CYCLE, GREEN, ORANGE, RED, SKY, plain_text
from truemorph.questions import slug
from truemorph.report.evidence import OBSERVED, TRUTH, Evidence, argument
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
_CELLS = 10


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
    others = [column.name for column in evidence.others] + [name for name in evidence.names if name != naive]
    looks = {name: (colour, marker) for name, colour, marker in zip(others, cycle(_COLOURS), cycle(_MARKERS))}
    for label_set in evidence.whole:
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
    return " and ".join("α" if column == "alpha" else column for column in by.split(","))


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


def _draw_fractions(axes: Any, evidence: Evidence) -> dict[str, np.ndarray]:
    """Draw fractions by the estimate, models, other groups and gold labels; return those of models and groups."""
    styles, table, own, drawn = styles_of(evidence), evidence.correction, evidence.fractions, dict[str, np.ndarray]()
    if own is None:
        axes.errorbar(table["mean"], table["labelled"], table["labelled_stderr"], ms=5, lw=1.5, label="observed labels",
                      **STYLE["observed"])  # fmt: skip
        axes.set(xlabel=axis_label(evidence, "alpha"), ylabel=evidence.quantity.name, ylim=(0, 1.02))
    else:
        plot_fractions(own, axes, {})
        axes.get_legend().remove()
        if own.by in evidence.catalogue.frame.columns and not own.groups:
            axes.set_xlabel(axis_label(evidence, own.by))
    between = {"ls": "none"} if own is not None and own.groups else {}  # no lines between groups
    for other in evidence.models:
        best = other.best if other is evidence.corrector else other.probabilities
        name = other.name + (" (no correction)" if other.naive else ", mean p")
        drawn[name] = evidence.in_bins(best)[0][:-1]
        look = styles[other.name] | ({"ls": ":", "mfc": "white"} if other is evidence.corrector else {}) | between
        if own is None or own.edges.ndim == 1:
            axes.plot(table["mean"], drawn[name], ms=6, lw=1.5, label=plain_text(name), **look)
    for labels in evidence.others:
        drawn[labels.name] = evidence.in_bins(labels)[0][:-1]
        if own is None or own.edges.ndim == 1:
            axes.plot(table["mean"], drawn[labels.name], ms=4, lw=1, label=plain_text(labels.name),
                      **styles[labels.name] | between)  # fmt: skip
    if table["gold"].is_not_null().all() and (evidence.gold_name == TRUTH or not evidence.from_gold):
        look = STYLE["truth"] | between
        gold = table["gold"], table["gold_stderr"]
        axes.errorbar(table["mean"], *gold, ms=5, lw=1.2, label=evidence.gold_name, **look)
    return drawn


def legend_above(axes: Any) -> None:
    """Add a legend above the axes."""
    axes.figure.legend(frameon=False, ncols=2, loc="outside upper center", fontsize=9)


def fractions(evidence: Evidence) -> Illustration:
    """All fractions against α, or the column of the estimate; by models and other groups only the first one."""
    axes, own, name = new_panel(5.2, 3.9), evidence.fractions, evidence.quantity.name
    drawn = _draw_fractions(axes, evidence)
    legend_above(axes)
    data = evidence.correction.with_columns(pl.Series(what, values) for what, values in drawn.items())
    by = by_name(evidence.by)
    if own is None:
        caption = f"{capital(name)} of {evidence.which} in fifths of α, by the observed labels."
    else:
        assert evidence.estimate is not None
        for other, quoted in list(own.quoted.items())[1:]:
            columns = {"labelled": quoted.labelled, "corrected": quoted.fraction, "stderr": quoted.stderr}
            columns |= {"lowest": quoted.low, "highest": quoted.high}
            data = data.with_columns(pl.Series(f"{other}, {what}", values) for what, values in columns.items())
        curve = evidence.estimate.curve
        names, galaxies = ", ".join(own.ratios), f"{own.counts.sum():,} galaxies"
        where = ", where the question applies" if evidence.is_gated else ""
        how = "with gold labels" if evidence.from_gold else "from the observed labels through T(α)"
        trends = "" if curve.drift is None else ", for trends of the true fraction with α up to δ"
        caption = f"{capital(names)} of {galaxies} in bins of {by}{where}: by the observed labels, and corrected {how}."
        caption += f" Bars are standard errors, areas ranges{trends}."
    if evidence.models:
        whose = ", ".join(repr(model.name) for model in evidence.models)
        caption += f" Of {evidence.which}: mean p of {whose}, whose error is not known."
    return Illustration(_named("fractions", evidence), axes.figure, caption, data)


def _named(name: str, evidence: Evidence) -> str:
    """The name of a figure of a question."""
    return name if evidence.question is None else f"{name}_{slug(evidence.question)}"


def bias_curve(evidence: Evidence, estimate: Estimate) -> Illustration:
    """T(α) of labels, or of the paths through a tree."""
    return _curve_of_labels(evidence, estimate) if evidence.asked is None else _curve_of_paths(evidence, estimate)


def _curve_of_labels(evidence: Evidence, estimate: Estimate) -> Illustration:
    """T(α): the fitted family bold, the others as a band, gold labels as points, and the curves of models."""
    fit, styles, (first, second) = estimate.curve, styles_of(evidence), evidence.classes[:2]
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
            others = model.observables[evidence.rows]
            curve = np.asarray(model.transition.flip_probability(argument(grid, others, along=True)), np.float64)
            drawn[name] = curve
            axes.plot(grid, curve, lw=1.5, ls="--", color=styles[model.name]["color"], label=plain_text(name))
    observed = evidence.view(evidence.observed)
    for definition, truth in evidence.truths.items():
        rows = evidence.view(truth).labels == DISK
        if rows.sum() >= FEWEST_OF_A_CLASS:
            missed = LabelSet.of_two(observed.name, "observed", 1 - observed.p[rows], (second, first))
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
        _named("bias_curve", evidence),
        axes.figure,
        f"The bias curve T(α): how often {second} galaxies are labelled {first} ({fitted}; by the {fit.method} method)."
        + (" Grey: the other families." if len(curves) > 1 else "")
        + (" Other columns that it depends on are at their means." if names else "")
        + (" Points: galaxies with gold labels." if points else ""),
        pl.concat(data, how="diagonal"),
    )


def _curve_of_paths(evidence: Evidence, estimate: Estimate) -> Illustration:
    """How often the majority path is right by true class, and how often it reaches the question."""
    transition, asked = estimate.transition, evidence.asked
    assert isinstance(transition, TreeTransition)
    assert asked is not None
    alpha, source, data = evidence.everything["alpha"].to_numpy(), str(evidence.path), list[pl.DataFrame]()
    grid = np.linspace(max(alpha.min(), 0.1), float(np.quantile(alpha, 0.99)), 120)
    names = observables_of(estimate.about, transition)
    at = argument(grid, numeric_columns(evidence.everything, names, source), along=True)
    said = ["majority path is right", f"majority path reaches {evidence.question}"]
    told = (
        "T(α) by true class: how often the majority of the votes finds the whole path of a galaxy (left), and how "
        f"often it leads to the question {evidence.question} (right)."
    )
    if not evidence.is_gated:
        said, told = ["majority is right"], "T(α) by true class: how often the majority of the votes finds it."
    matrix, panels = np.asarray(transition.matrix(at)), [new_panel() for _ in said]
    labels, classes = path_labels(evidence.everything, asked, source), np.arange(len(asked.classes))
    reached = np.isin(classes, asked.applies)
    for k, (name, colour) in enumerate(zip(asked.classes, cycle(CYCLE))):
        rows = evidence.known == k
        for what, counted, axes in zip(("right", "reached"), (classes == k, reached), panels, strict=False):
            curve, about = matrix[:, k] @ counted, {"class": name, "what": what}
            axes.plot(grid, curve, color=colour, label=plain_text(name))
            data.append(pl.DataFrame(about | {"by": "T(α)", "alpha": grid, "share": curve}))
            if rows.sum() >= FEWEST_OF_A_CLASS:
                cut = Bins.cut(alpha[rows], min(FIFTHS, int(rows.sum()) // FEWEST_OF_A_CLASS))
                share, error, _ = cut.averages(counted[labels[rows]].astype(float))
                axes.errorbar(cut.middles, share, error, fmt="o", ms=4, color=colour)
                points = {"by": "gold labels", "alpha": cut.middles, "share": share, "stderr": error}
                data.append(pl.DataFrame(about | points))
    for axes, what in zip(panels, said, strict=True):
        axes.set(xlabel=ALPHA, ylabel=f"probability that the\n{what}", ylim=(-0.02, 1.02), xlim=(0, grid[-1]))
        legend_above(axes)
    return Illustration(
        _named("bias_curve", evidence),
        [axes.figure for axes in panels],
        f"{told} Lines: the estimate. Points: galaxies by the {evidence.gold_name}, with binomial errors."
        + (" Other columns that it depends on are at their means." if names else ""),
        pl.concat(data, how="diagonal"),
    )


def at_fixed_alpha(evidence: Evidence, estimate: Estimate) -> Illustration:
    """Observed labels, and T, against each observable beside α: in thirds of α, two panels an observable."""
    names, (first, second), seen = estimate.about["observables"], evidence.classes[:2], evidence.view(evidence.observed)
    columns = numeric_columns(evidence.frame, names, str(evidence.path))
    thirds = np.array_split(np.argsort(evidence.alpha, kind="stable"), 3)
    panels, data = [], []
    for k, name in enumerate(names):
        labels, curves = new_panel(), new_panel()
        for rows, color, marker in zip(thirds, (RED, ORANGE, BLUE), "os^", strict=True):
            usable = rows[np.isfinite(columns[rows]).all(axis=1)]
            alpha, values = float(np.median(evidence.alpha[usable])), columns[usable, k]
            table = fractions_by(values, [seen.of(usable)], max(1, min(6, usable.size // 50)))
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
            data += [pl.DataFrame(columns | about) for columns in (observed, bias)]
        labels.set(xlabel=axis_label(evidence, name), ylabel=f"{evidence.quantity.name}, observed", ylim=(0, 1.02))
        curves.set(xlabel=axis_label(evidence, name), ylim=(-0.02, 1.02))
        curves.set(ylabel=f"probability that {second}\nis labelled {first}")
        for axes in (labels, curves):
            legend_above(axes)
            panels.append(axes.figure)
    return Illustration(
        "observables",
        panels,
        f"Drift with {in_words(names)} at fixed resolution, in thirds of α: {evidence.quantity.name} by the observed "
        f"labels, with binomial errors, and how often {second} galaxies are labelled {first} by the estimate.",
        pl.concat(data, how="diagonal"),
    )


def among_similar(evidence: Evidence) -> Illustration:
    """Fraction of poorly and of well resolved galaxies against each intrinsic column, one panel a column."""
    styles = styles_of(evidence)
    sets = {"observed": evidence.view(evidence.observed)}
    if evidence.corrector is not None:
        sets["corrected"] = evidence.view(evidence.corrector.best)
    if evidence.truth is not None:
        sets[evidence.gold_name] = evidence.view(evidence.truth)
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
        axes.set(xlabel=axis_label(evidence, column), ylabel=evidence.quantity.name, ylim=(0, 1.02))
        legend_above(axes)
        panels.append(axes.figure)
        data.append(table.select(pl.lit(column).alias("column"), pl.all()))
    return Illustration(
        _named("similar_galaxies", evidence),
        panels,
        f"{capital(evidence.quantity.name)} of {evidence.which} in fifths of {in_words(evidence.options.intrinsic)}: "
        "of the better resolved half of each fifth (filled, solid) and of the other (open, dotted). Where they agree, "
        "the fraction of similar galaxies does not depend on their resolution. One property is held fixed at a time, "
        "so those of the truth need not agree exactly. Errors: binomial.",
        pl.concat(data),
    )


def _calibration_panel(
    outcome: np.ndarray, probabilities: Mapping[str, np.ndarray], styles: Mapping[str, Style], against: str
) -> tuple[Any, list[str], list[pl.DataFrame]]:
    """Draw how often an outcome, 0 or 1 or a fraction, occurs against its probability, all (N,), NaN where unknown.

    `against` names the outcome. Returns axes, the calibration error of each probability as text, and what is drawn.
    """
    axes, errors, data = new_panel(4.2, 4.2), [], []
    axes.plot([0, 1], [0, 1], ls="--", lw=1, color="0.5")
    for name, p in probabilities.items():
        usable = np.isfinite(outcome) & np.isfinite(p)
        labelled = LabelSet.of_two(name, "labels", outcome[usable], ("", ""))
        table = fractions_by(p[usable], [labelled], _CELLS)
        x, y, error = (table[column] for column in ("mean", "fraction", "stderr"))
        axes.errorbar(x, y, error, label=plain_text(name), ms=4.5, lw=1, **styles[name])
        errors.append(f"{name} {calibration_error(outcome, p):.3f} ({against})")
        data.append(table.with_columns(pl.lit(against).alias("against")))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if data:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    return axes, errors, data


def calibration(evidence: Evidence) -> Illustration | None:
    """Observed frequency against probability: a panel for each thing that was compared with."""
    styles, name = styles_of(evidence), f"p({evidence.answer})"
    name = name if evidence.question is None else f"p({evidence.answer} | {evidence.question} applies)"
    soft = [
        labels for model in evidence.models for labels in (model.probabilities, model.posterior) if labels is not None
    ]
    against = []
    for truth in evidence.truths.values():
        title = f"{evidence.quantity.name}: {truth.name}"
        given = {labels.name: evidence.given(labels) for labels in soft}
        against.append((name, title, truth.name, evidence.given(truth), given))
    seen = {model.name: evidence.predicted(model) for model in evidence.models}
    seen = {name: p for name, p in seen.items() if np.isfinite(p).any()}
    if seen:
        voted = f"label {evidence.answer}" if evidence.asked is None else f"fraction of votes for {evidence.answer}"
        against.append((f"{voted}, predicted through T", f"{voted}, observed", OBSERVED, evidence.voted(), seen))
    panels, errors, data = list[Figure](), list[str](), list[pl.DataFrame]()
    for xlabel, ylabel, what, outcome, probabilities in against:
        known = {
            name: p for name, p in probabilities.items() if np.sum(np.isfinite(p) & np.isfinite(outcome)) >= _CELLS
        }
        axes, some, tables = _calibration_panel(outcome, known, styles, what)
        axes.set(xlabel=plain_text(xlabel), ylabel=plain_text(ylabel))
        panels.append(axes.figure)
        errors += some
        data += tables
    if not data:
        return None
    return Illustration(
        _named("calibration", evidence),
        panels,
        f"Of galaxies with {name} = 0.7, are 70 % {evidence.answer}? Calibration error (mean distance of probability "
        f"and fraction): {'; '.join(errors)}. For the comparison with the observed labels, p is passed through "
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
    panels[0, 0].set_ylabel(f"as it was labelled:\nlabelled {evidence.other}", fontsize=9)
    panels[1, 0].set_ylabel(f"a better image:\n{evidence.answer}", fontsize=9)
    text = f"{capital(evidence.quantity.name)} against resolution, beside galaxies as labelled and in better images."
    return Illustration("overview", figure, text)
