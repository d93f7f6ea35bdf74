"""Figures of the page, each with its caption and the data behind it."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from truemorph.bias.binning import Bins
from truemorph.bias.curves.transitions import DISK
from truemorph.bias.metrics.scores import calibration_error
from truemorph.bias.plots import plot_fractions
from truemorph.catalogs.columns import NAMED, percent_of_light
from truemorph.catalogs.paths import path_labels
from truemorph.plotting import BLACK, CYCLE, GREEN, ORANGE, RED, SKY, plain_text
from truemorph.report.evidence import OBSERVED, Evidence, numbers_of_bins
from truemorph.report.lights import FEWEST_OF_A_CLASS
from truemorph.report.measures import halves_by
from truemorph.report.page import Illustration

# How matplotlib draws a label set: its `color`, `marker` and `ls`.
Style = dict[str, Any]
_COLOURS = (RED, GREEN, "#CC79A7", SKY, ORANGE, "#F0E442")
_MARKERS = "DPX*<>"
_LINES = {"probabilities": "-", "labels": "-", "posterior": ":", "column": "-."}
_CELLS = 10


def styles_of(evidence: Evidence) -> dict[str, Style]:
    """How each label set, and each model, is drawn: observed labels grey, gold labels black, a colour a model."""
    styles: dict[str, Style] = {evidence.observed.name: {"color": "#8a8a8a", "marker": "s", "ls": "--"}}
    for truth, marker, line in zip(evidence.truths.values(), cycle("ov^s"), cycle(("-", "--", ":", "-."))):
        styles[truth.name] = {"color": BLACK, "marker": marker, "ls": line}
    names = [*evidence.names, *(labels.model for labels in evidence.others), ""]  # the last is the estimate's
    looks = dict(zip(names, zip(cycle(_COLOURS), cycle(_MARKERS)), strict=False))
    for labels in evidence.whole:
        if labels.kind in _LINES:
            colour, marker = looks[labels.model]
            styles[labels.name] = {"color": colour, "marker": marker, "ls": _LINES[labels.kind]}
    return styles | {model.name: styles[model.probabilities.name] for model in evidence.models}


def capital(text: str) -> str:
    """Return a text with a capital as its first letter."""
    return text[:1].upper() + text[1:]


def in_words(columns: Sequence[str]) -> str:
    """What columns are, in words; a column of the user's own by its name."""
    return ", ".join(NAMED[column].description if column in NAMED else column for column in columns)


def axis_label(evidence: Evidence, column: str) -> str:
    """What a column is, in words, with its unit."""
    if column == "alpha":
        metadata = evidence.catalogue.metadata
        defined = str(metadata.get("alpha", ""))  # as `prepare` says it
        radius = percent_of_light(defined) or ("petro" if "petro" in defined.lower() else "")
        width = r"\sigma_\mathrm{PSF}" if metadata.get("alpha_psf") != "fwhm" else r"\mathrm{FWHM}"
        return rf"resolution $\alpha = R_\mathrm{{{radius}}} / {width}$"
    unit = evidence.catalogue.units.get(column)
    return plain_text(in_words([column])) + (f" [{unit}]" if unit else "")


def new_panel(width: float = 4.6, height: float = 3.5) -> Any:
    """Axes of a new figure; the default fits half of a page of 1,300 pixels, and a phone."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def _draw_fractions(axes: Any, evidence: Evidence) -> dict[str, np.ndarray]:
    """Draw fractions by the estimate, models, other groups and gold labels; return those of models and groups."""
    styles = styles_of(evidence)
    table = evidence.correction
    own = evidence.fractions
    plot_fractions(own, axes, {})
    axes.get_legend().remove()
    if own.by in evidence.catalogue.frame.columns and not own.groups:
        axes.set_xlabel(axis_label(evidence, own.by))
    between = {"ls": "none"} if own.groups else {}  # no lines between groups
    drawn = {name: evidence.in_bins(labels) for name, labels in evidence.beside.items()}
    for name, (value, error) in drawn.items() if own.edges.ndim == 1 else ():
        yerr = error[:-1] if evidence.beside[name].kind == "truth" else None
        axes.errorbar(table["mean"], value[:-1], yerr, ms=5, lw=1.5, label=plain_text(name), **styles[name] | between)
    return {name: value[:-1] for name, (value, _) in drawn.items()}


def legend_above(axes: Any) -> None:
    """Add a legend above the axes."""
    axes.figure.legend(frameon=False, ncols=2, loc="outside upper center", fontsize=9)


def fractions(evidence: Evidence) -> Illustration:
    """All fractions against α, or the column of the estimate; by models and other groups only the first one."""
    axes = new_panel(5.2, 3.9)
    own = evidence.fractions
    drawn = _draw_fractions(axes, evidence)
    legend_above(axes)
    data = evidence.correction.with_columns(pl.Series(what, values) for what, values in drawn.items())
    for other, quoted in list(own.quoted.items())[1:]:
        columns = numbers_of_bins(quoted)
        data = data.with_columns(pl.Series(f"{other}, {what}", values) for what, values in columns.items())
    galaxies = f"{own.counts.sum():,} galaxies in bins of {own.by_name}"
    where = ", where the question applies" if evidence.is_gated else ""
    how = "with gold labels" if evidence.from_gold else "from the observed labels through T(α)"
    trends = "" if evidence.estimate.curve.drift is None else ", for trends of the true fraction with α up to δ"
    caption = f"{capital(', '.join(own.ratios))} of {galaxies}{where}: by the observed labels, and corrected {how}. "
    caption += f"Bars are standard errors, areas ranges{trends}."
    if evidence.models:
        whose = ", ".join(repr(model.name) for model in evidence.models)
        caption += f" Of {evidence.which}: mean p of {whose}, whose error is not known."
    return Illustration(evidence.file_name("fractions"), axes.figure, caption, data)


def bias_curve(evidence: Evidence) -> Illustration:
    """T(α) by true class: of the estimate, other families and models as lines, with gold labels as points.

    Of two classes how often the second is labelled as the first; of paths through a tree how often the majority is
    right, and how often it reaches the question.
    """
    asked = evidence.asked
    estimate = evidence.estimate
    data = list[pl.DataFrame]()
    fit, alpha, labels = estimate.curve, evidence.everything["alpha"].to_numpy(), evidence.observed.labels
    if asked is None:
        first, second = evidence.classes
        classes = {DISK: second}
        panels = {f"{second}\nis labelled {first}": np.array([[0, 0], [1, 0]])}
    else:
        labels = path_labels(evidence.everything, asked, evidence.source)
        classes = dict(enumerate(asked.classes))
        panels = {"the majority\nis right": np.eye(len(classes), dtype=int)}
        if evidence.is_gated:
            panels[f"the majority path\nreaches {evidence.question}"] = np.tile(
                np.isin(list(classes), asked.applies), (len(classes), 1)
            )
    grid = np.linspace(0.1, np.quantile(alpha, 0.99), 200)
    at = evidence.argument(estimate.transition, estimate.about, grid)
    curves = [(f"{fit.family}, estimated", estimate.transition.matrix(at), "")]
    for model in evidence.models:
        if not model.naive and model.head.classes == fit.classes:
            matrix = model.transition.matrix(evidence.argument(model.transition, model.curve, grid))
            curves.append((f"{model.name}, trained through", matrix, ""))
    for name, other in ({} if estimate.families is None else estimate.families.fits).items():
        if name != fit.family:
            curves.append((f"{name}, fitted", other.transition.matrix(at), "0.6"))
    figures = []
    for what, outcomes in panels.items():
        axes = new_panel()
        others = [by for by, *_ in curves[1:]]
        for (k, name), colour in zip(classes.items(), cycle(CYCLE)):
            about = {"class": name, "what": what.replace("\n", " ")}
            for (by, matrix, own_colour), line, text in zip(curves, cycle(("-", "--", ":", "-.")), [name, *others]):
                share = matrix[:, k] @ outcomes[k]
                axes.plot(grid, share, line, color=own_colour or colour, label=plain_text(text))
                data.append(pl.DataFrame(about | {"by": by, "alpha": grid, "share": share}))
            others = [""] * len(others)  # a line style is explained once
            for (definition, gold), marker in zip(evidence.known.items(), cycle("ovs^")):
                if (rows := gold == k).sum() >= FEWEST_OF_A_CLASS:
                    cut = Bins.cut(alpha[rows], min(12, rows.sum() // FEWEST_OF_A_CLASS))
                    share, error, _ = cut.averages(outcomes[k, labels[rows]])
                    axes.errorbar(cut.middles, share, error, fmt=marker, ms=4, color=colour)
                    data.append(
                        pl.DataFrame(about | {"by": definition, "alpha": cut.middles, "share": share, "stderr": error})
                    )
        axes.set(
            xlabel=axis_label(evidence, "alpha"),
            ylabel=f"probability that {what}",
            xlim=(0, grid[-1]),
            ylim=(-0.02, 1.02),
        )
        legend_above(axes)
        figures.append(axes.figure)
    return Illustration(
        evidence.file_name("bias_curve"),
        figures,
        f"The bias curve T(α) by true class (solid): {fit.statement}, by the {fit.method} method."
        + (f" Points: galaxies by the {evidence.gold_name}, with binomial errors." if evidence.known else "")
        + (" Other columns that it depends on are at their means." if at.ndim > 1 else ""),
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
        table = halves_by(np.asarray(evidence.frame[column], float), evidence.alpha, list(sets.values()))
        axes = new_panel()
        for name, label_set in sets.items():
            looks: Any = {2: {"ls": "-", "label": name}, 1: {"ls": ":", "mfc": "none"}}
            for half, look in looks.items():
                part = table.filter(labels=label_set.name, bin=half)
                style = {**styles[label_set.name], **look, "ms": 5, "lw": 1.3}
                axes.errorbar(part["value"], part["fraction"], part["stderr"], **style)
        axes.set(xlabel=axis_label(evidence, column), ylabel=evidence.quantity.name, ylim=(0, 1.02))
        legend_above(axes)
        panels.append(axes.figure)
        data.append(table.select(pl.lit(column).alias("column"), pl.all()))
    return Illustration(
        evidence.file_name("similar_galaxies"),
        panels,
        f"{capital(evidence.quantity.name)} of {evidence.which} in fifths of {in_words(evidence.options.intrinsic)}: "
        "of the better resolved half of each fifth (filled, solid) and of the other (open, dotted). Where they agree, "
        "the fraction of similar galaxies does not depend on their resolution. One property is held fixed at a time, "
        "so those of the truth need not agree exactly. Errors: binomial.",
        pl.concat(data),
    )


def calibration(evidence: Evidence) -> list[Illustration]:
    """Observed frequency against probability: a panel for each thing that was compared with."""
    given = "" if evidence.question is None else f" | {evidence.question} applies"
    styles = styles_of(evidence)
    name = f"p({evidence.answer}{given})"
    soft = {
        labels.name: evidence.given(labels)
        for model in evidence.models
        for labels in (model.probabilities, model.posterior)
        if labels is not None
    }
    against = [
        (name, f"{evidence.quantity.name}: {truth.name}", truth.name, evidence.given(truth), soft)
        for truth in evidence.truths.values()
    ]
    voted = f"label {evidence.answer}" if evidence.asked is None else f"fraction of votes for {evidence.answer}"
    seen = {model.name: evidence.predicted(model) for model in evidence.models}
    against.append((f"{voted}, predicted through T", f"{voted}, observed", OBSERVED, evidence.voted(), seen))
    panels, errors, data = list[Figure](), list[str](), list[pl.DataFrame]()
    for xlabel, ylabel, what, outcome, probabilities in against:
        axes = new_panel(4.2, 4.2)
        axes.plot([0, 1], [0, 1], ls="--", lw=1, color="0.5")
        for labels, p in probabilities.items():
            usable = np.isfinite(outcome) & np.isfinite(p)
            if usable.sum() < _CELLS:
                continue
            cut = Bins.cut(p[usable], _CELLS)
            share, error, galaxies = cut.averages(outcome[usable])
            axes.errorbar(cut.middles, share, error, label=plain_text(labels), ms=4.5, lw=1, **styles[labels])
            errors.append(f"{labels} {calibration_error(outcome, p):.3f} ({what})")
            columns = {"mean": cut.middles, "galaxies": galaxies, "fraction": share, "stderr": error}
            data.append(pl.DataFrame({"labels": labels, "against": what} | columns))
        limits = (-0.02, 1.02)
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=plain_text(xlabel), ylabel=plain_text(ylabel))
        if axes.containers:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
            panels.append(axes.figure)
    caption = (
        f"Of galaxies with {name} = 0.7, are 70 % {evidence.answer}? Calibration error (mean distance of probability "
        f"and fraction): {'; '.join(errors)}. For the comparison with the observed labels, p is passed through "
        "T(α), so it needs no gold labels."
    )
    return [Illustration(evidence.file_name("calibration"), panels, caption, pl.concat(data))] if data else []


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
