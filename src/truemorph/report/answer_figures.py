"""Figures of a question, each with its caption and the data behind it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from truemorph.bias.binning import Bins
from truemorph.bias.likelihood import observables_of
from truemorph.bias.plots import plot_fractions
from truemorph.bias.population import PopulationFractions
from truemorph.catalogs.label_sets import FIFTHS
from truemorph.catalogs.paths import path_labels
from truemorph.plotting import ALPHA, CYCLE, GREEN, RED, plain_text
from truemorph.questions import slug
from truemorph.report.answer_checks import gold_answers
from truemorph.report.answers import Answers, Network
from truemorph.report.evidence import GOLD_LABELS, TRUTH, argument
from truemorph.report.figures import (
    CALIBRATION_BINS,
    STYLE,
    Style,
    by_name,
    calibration_panel,
    capital,
    legend_above,
    new_panel,
)
from truemorph.report.lights import FEWEST_OF_A_CLASS
from truemorph.report.page import Illustration
from truemorph.tables import numeric_columns

# Colours of networks, which are not those of the estimate; the naive ones' first.
_COLOURS = (RED, GREEN, "#CC79A7", "#F0E442")
_MARKERS = "^vXP"


def styles_of_networks(networks: Sequence[Network]) -> dict[str, Style]:
    """How each network, and each of its label sets, is drawn."""
    styles: dict[str, Style] = {}
    models = sorted(networks, key=lambda one: not one.naive)
    start = int(not any(model.naive for model in models))
    for k, model in enumerate(models, start):
        look: Style = {"color": _COLOURS[k % len(_COLOURS)], "marker": _MARKERS[k % len(_MARKERS)], "ls": "-"}
        styles |= {model.name: look, model.probabilities.name: look}
        if model.posterior is not None:
            styles[model.posterior.name] = look | {"ls": ":"}
    return styles


def fractions_figure(one: PopulationFractions, answers: Answers | None) -> Illustration:
    """Fractions in the bins of the estimate; of networks and the truth those of the first answer."""
    axes, by = plot_fractions(one, new_panel(5.2, 3.9), {}), by_name(one.by)
    data = pl.DataFrame({"galaxies": one.counts, "gold_labels": one.gold_counts})
    for name, each in one.quoted.items():
        parts = {"observed": each.labelled, "corrected": each.fraction, "stderr": each.stderr}
        parts |= {"low": each.low, "high": each.high}
        data = data.with_columns(**{f"{name}, {what}": pl.Series(values) for what, values in parts.items()})
    names = ", ".join(one.ratios)
    caption = (
        f"{capital(names)} of {one.counts.sum():,} galaxies in bins of {by}, where the question applies: by the "
        "observed labels (majority paths), and corrected with gold labels. Bars are standard errors, areas 95 % ranges."
    )
    if answers is not None:
        styles, quantity, drawn = styles_of_networks(answers.models), answers.quantity, []
        for model in answers.models:
            drawn.append((f"{model.name} (network)", model.probabilities, styles[model.name]))
        if answers.truth is not None and answers.truth.name == TRUTH:
            drawn.append((TRUTH, answers.truth, STYLE["truth"]))
        for label, labels, style in drawn:
            value, error = (array[:-1] for array in answers.fractions_of(labels, quantity))
            data = data.with_columns(pl.Series(f"{label}", value), pl.Series(f"{label}, stderr", error))
            if one.edges.ndim == 1:
                axes.errorbar(one.middles, value, error, ms=4, lw=1.2, label=plain_text(label), **style)
        if drawn:
            axes.get_legend().remove()
            legend_above(axes)
            p = f"Σ p({answers.answer}) / Σ p({answers.question} applies)"
            caption += f" {capital(' and '.join(label for label, *_ in drawn))}: {p}, of {answers.which}."
    return Illustration(f"fractions_{slug(str(one.about['question']))}", axes.figure, caption, data)


def curve_by_class(answers: Answers) -> Illustration:
    """T(α) by true class: how often the majority path is right, and how often it reaches the question."""
    transition, alpha, panels = answers.transition, answers.alpha, (new_panel(), new_panel())
    asked = transition.asked
    grid = np.linspace(max(alpha.min(), 0.1), float(np.quantile(alpha, 0.99)), 120)
    names = observables_of(answers.estimate.about, transition)
    at = argument(grid, numeric_columns(answers.frame, names, answers.source), along=True)
    matrix, data = np.asarray(transition.matrix(at)), []
    labels = path_labels(answers.frame, asked, answers.source)
    reached = np.isin(np.arange(len(asked.classes)), asked.applies)
    for k, (name, colour) in enumerate(zip(asked.classes, cycle(CYCLE))):
        rows = answers.known == k
        shown = {"right": (np.arange(len(asked.classes)) == k), "reached": reached}
        for (what, counted), axes in zip(shown.items(), panels, strict=True):
            curve = matrix[:, k] @ counted
            axes.plot(grid, curve, color=colour, label=plain_text(name))
            about = {"class": name, "what": what}
            data.append(pl.DataFrame(about | {"by": "T(α)", "alpha": grid, "share": curve}))
            if rows.sum() >= FEWEST_OF_A_CLASS:
                cut = Bins.cut(alpha[rows], min(FIFTHS, int(rows.sum()) // FEWEST_OF_A_CLASS))
                share, error, _ = cut.averages(counted[labels[rows]].astype(float))
                axes.errorbar(cut.middles, share, error, fmt="o", ms=4, color=colour)
                points = {"by": "gold labels", "alpha": cut.middles, "share": share, "stderr": error}
                data.append(pl.DataFrame(about | points))
    said = ("majority path is right", f"majority path reaches {answers.question}")
    for axes, what in zip(panels, said, strict=True):
        axes.set(xlabel=ALPHA, ylabel=f"probability that the\n{what}", ylim=(-0.02, 1.02), xlim=(0, grid[-1]))
        legend_above(axes)
    return Illustration(
        f"curve_{slug(answers.question)}",
        [axes.figure for axes in panels],
        "T(α) by true class: how often the majority of the votes finds the whole path of a galaxy (left), and how "
        f"often it leads to the question {answers.question} (right). Lines: the estimate. Points: galaxies by the "
        f"{GOLD_LABELS if answers.truth is None else answers.truth.name}, with binomial errors."
        + (" Other columns that it depends on are at their means." if names else ""),
        pl.concat(data, how="diagonal"),
    )


def calibration_panels(answers: Answers) -> Illustration | None:
    """Of p(answer | the question applies): against gold labels, and through T(α) against the votes."""
    styles = styles_of_networks(answers.models)
    panels, errors, data = list[Figure](), list[str](), list[pl.DataFrame]()
    given = f"p({answers.answer} | {answers.question} applies)"
    found = []
    if answers.truth is not None:
        rows, right = gold_answers(answers)
        sets = [one for model in answers.models for one in (model.probabilities, model.posterior) if one is not None]
        soft = {}
        for label_set in sets:
            above, below = answers.answered(label_set)[rows].T
            soft[label_set.name] = np.divide(above, below, out=np.full(rows.size, np.nan), where=below > 0)
        found.append((given, f"{answers.quantity.name}: {answers.truth.name}", right.astype(float), soft))
    predicted = {model.name: answers.predicted_votes(model) for model in answers.models if not model.naive}
    if any(np.isfinite(one).any() for one in predicted.values()):
        voted = f"fraction of votes for {answers.answer}"
        found.append((f"{voted} predicted through T", f"{voted}, observed", answers.votes, predicted))
    for xlabel, ylabel, outcome, probabilities in found:
        enough = {
            name: p for name, p in probabilities.items()
            if np.sum(np.isfinite(p) & np.isfinite(outcome)) >= CALIBRATION_BINS
        }  # fmt: skip
        axes, some, tables = calibration_panel(outcome, enough, styles, ylabel)
        axes.set(xlabel=plain_text(xlabel), ylabel=plain_text(ylabel))
        panels.append(axes.figure)
        errors += some
        data += [table.select("labels", "against", "mean", "fraction", "stderr", "galaxies") for table in tables]
    if not data:
        return None
    return Illustration(
        f"calibration_{slug(answers.question)}",
        panels,
        f"Calibration of {given}. Mean distance of probability and fraction: {'; '.join(errors)}. Gold labels: "
        "galaxies to which the question applies by these. Votes: galaxies of which somebody was asked, with their "
        "votes at the questions before.",
        pl.concat(data),
    )
