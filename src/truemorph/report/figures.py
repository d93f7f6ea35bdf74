"""Figures of the page, each with its caption, its text for those who can't see it, and the data behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from truemorph.bias.scores import calibration_error
from truemorph.bias.study import TransitionStudy
from truemorph.catalogs.columns import NAMED
from truemorph.plotting import BLUE, plain_text
from truemorph.report.evidence import Evidence
from truemorph.report.page import Illustration
from truemorph.report.table1 import drift_by, fractions_by, reliability

# Inches: what fits half of a page of 1,300 pixels, and a phone.
_PANEL = (4.6, 3.5)


class Style(TypedDict):
    """How matplotlib draws a label set."""

    color: str
    marker: str
    ls: str


# Colours that stay apart in print and for most colour-blind readers (Okabe & Ito), with markers beside.
STYLE: dict[str, Style] = {
    "truth": {"color": "#000000", "marker": "o", "ls": "-"},
    "observed": {"color": "#8a8a8a", "marker": "s", "ls": "--"},
    "naive": {"color": "#D55E00", "marker": "^", "ls": "-"},
    "debiased": {"color": BLUE, "marker": "D", "ls": "-"},
}
_COLOURS = (BLUE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
_MARKERS = "DPX*<>"
_LINES = {"probabilities": "-", "labels": "-", "posterior": ":", "column": "-."}


def styles_of(found: Evidence) -> dict[str, Style]:
    """How each label set, and each model, is drawn: volunteers grey, gold in the colour of text, a colour a model.

    Of naive models the first is orange.
    """
    naive = next((model.name for model in found.models if model.naive), None)
    styles: dict[str, Style] = {}
    others: list[str] = []
    golds = list(found.truths.values())
    for one in found.sets:
        owner = one.model or one.name
        if one.kind == "observed":
            styles[one.name] = STYLE["observed"]
        elif one.kind == "truth":
            number = [gold.name for gold in golds].index(one.name) % 4
            styles[one.name] = {**STYLE["truth"], "marker": "ov^s"[number], "ls": ("-", "--", ":", "-.")[number]}
        elif owner == naive:
            styles[one.name] = styles[owner] = {**STYLE["naive"], "ls": _LINES[one.kind]}
        else:
            others += [owner] if owner not in others else []
            number = others.index(owner) % len(_COLOURS)
            styles[one.name] = {"color": _COLOURS[number], "marker": _MARKERS[number], "ls": _LINES[one.kind]}
    return styles | {model.name: styles[model.probabilities.name] for model in found.models}


def in_words(columns: Sequence[str]) -> str:
    """What columns are, in words; a column of the user's own by its name."""
    return ", ".join(NAMED[one].description if one in NAMED else one for one in columns)


def axis_label(found: Evidence, column: str) -> str:
    """What a column is, in words, with its unit."""
    if column == "alpha":
        width = r"\sigma_\mathrm{PSF}" if found.catalogue.metadata.get("alpha_psf") != "fwhm" else r"\mathrm{FWHM}"
        return rf"resolution $\alpha = R_\mathrm{{petro}} / {width}$"
    unit = found.catalogue.units.get(column)
    return plain_text(in_words([column])) + (f" [{unit}]" if unit else "")


def _numbers(values: Iterable[float | None]) -> str:
    return ", ".join("unknown" if value is None or np.isnan(value) else f"{value:.2f}" for value in values)


def draw_fractions(axes: Any, found: Evidence) -> None:
    """Disk fraction against α: the volunteers', corrected with its range, and by gold labels."""
    table, styles = found.correction, styles_of(found)
    x = table["mean"]
    model = found.corrector
    colour = BLUE if model is None else styles[model.name]["color"]
    if table["corrected"].is_not_null().all():
        axes.fill_between(x, table["lowest"], table["highest"], color=colour, alpha=0.18, lw=0, label="range")
        axes.errorbar(x, table["corrected"], table["stderr"], color=colour, marker="D", ms=5, lw=2, label="corrected")
    naive = [other.name for other in found.models if other.naive]
    for one in [*found.columns, *(other.probabilities for other in found.models if other is not model)]:
        part = found.by_alpha.filter(pl.col("labels") == one.name)
        name = plain_text(
            one.name if not one.model else f"{one.model} (no correction)" if one.model in naive else one.model
        )
        axes.plot(part["mean"], part["disk_fraction"], ms=4, lw=1, label=name, **styles[one.name])
    axes.errorbar(x, table["labelled"], table["labelled_stderr"], ms=5, lw=1.5, label="volunteers", **STYLE["observed"])
    if table["gold"].is_not_null().all() and (model is not None or found.by_gold is None):
        axes.errorbar(x, table["gold"], table["gold_stderr"], ms=5, lw=1.2, label=found.gold_name, **STYLE["truth"])
    axes.set(xlabel=axis_label(found, "alpha"), ylabel="disk fraction", ylim=(0, 1.02))


def _legend_above(figure: Figure, axes: Any, columns: int = 2) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, ncols=min(columns, len(names)), loc="outside upper center", fontsize=9)


def fractions(found: Evidence) -> Illustration:
    """Figure 1: disk fraction against α."""
    table, model = found.correction, found.corrector
    figure = Figure(figsize=(5.2, 3.9), layout="constrained")
    axes = figure.subplots()
    draw_fractions(axes, found)
    _legend_above(figure, axes)
    sets = {"volunteers": "labelled", "corrected": "corrected", found.gold_name: "gold"}
    text = "; ".join(f"{name}: {_numbers(table[column])}" for name, column in sets.items() if table[column].count())
    caption = f"Disk fraction of {found.which} in fifths of α. Errors are statistical."
    if table["corrected"].count():
        by = "volunteers' labels through T(α)" if found.by_gold is None else "gold labels"
        if model is not None:
            by = f"{'posterior' if model.posterior else 'mean p(disk)'} of {model.name}"
        caption += f" Corrected: {by}. Range: {found.range_spans}."
    others = [one.name for one in found.models if one is not model]
    if others:
        caption += f" {', '.join(others)}: mean p(disk)."
    return Illustration("fractions", figure, f"Disk fraction in fifths of resolution. {text}.", caption, table)


def bias_curve(found: Evidence, study: TransitionStudy) -> Illustration:
    """T(α): the fitted family bold, the others as a band, gold disks as points, and the curves of models."""
    fit, styles = study.fit, styles_of(found)
    alpha = fit.alpha if fit.alpha.ndim == 1 else fit.alpha[:, 0]
    grid = np.linspace(0, float(np.quantile(alpha, 0.99)), 200)
    fits = {fit.family: fit} if study.families is None else study.families.fits
    curves = {name: np.asarray(one.transition.flip_probability(grid), np.float64) for name, one in fits.items()}
    figure = Figure(figsize=(6, 3.9), layout="constrained")
    axes = figure.subplots()
    if len(curves) > 1:
        every = np.array(list(curves.values()))
        axes.fill_between(
            grid, every.min(axis=0), every.max(axis=0), color="0.5", alpha=0.3, lw=0, label="other families"
        )
    axes.plot(grid, curves[fit.family], color="#000000", lw=2.2, label=f"{fit.family}, fitted to these labels")
    trained = {
        model.name: np.asarray(model.transition.flip_probability(model.resolution(grid)), np.float64)
        for model in found.models
        if not model.naive
    }
    for name, curve in trained.items():
        axes.plot(
            grid, curve, lw=1.5, ls="--", color=styles[name]["color"], label=f"{plain_text(name)}, trained through"
        )
    for number, (definition, table) in enumerate(found.flipped.items()):
        axes.errorbar(
            table["mean"], table["share"], table["stderr"], fmt="ov^s"[number % 4], ms=5, color="#D55E00",
            mfc="none" if number else None, label=f"{plain_text(found.truths[definition].name)}: disks labelled smooth",
        )  # fmt: skip
    axes.set(xlabel=axis_label(found, "alpha"), ylabel="probability that a disk\nis labelled smooth")
    axes.set(ylim=(-0.02, 1.02), xlim=(0, grid[-1]))
    axes.legend(frameon=False, fontsize=8)
    parameters = ", ".join(
        f"{name} {value:.2f} ± {fit.stderr[name]:.2f}" for name, value in fit.values.items() if name in fit.stderr
    )
    what = f"{fit.family} family, {parameters or 'no parameters'}"
    counted = {
        f"gold disks labelled smooth, {name}": table.select(pl.col("mean").alias("alpha"), "share", "stderr")
        for name, table in found.flipped.items()
    }
    drawn = {f"fitted, {name}": curve for name, curve in curves.items()}
    drawn |= {f"{name}, trained through": curve for name, curve in trained.items()}
    counted |= {name: pl.DataFrame({"alpha": grid, "share": curve}) for name, curve in drawn.items()}
    return Illustration(
        "bias_curve",
        figure,
        f"Probability that volunteers label a disk smooth, against resolution. {what}.",
        f"The bias curve T(α): how often volunteers label a disk smooth ({what}; fitted by the {fit.method} method)."
        + (" Grey: the other families fitted to the same labels." if len(curves) > 1 else "")
        + (" Points: galaxies with gold labels, which the fit does not use." if found.flipped else ""),
        pl.concat([one.select(pl.lit(name).alias("what"), pl.all()) for name, one in counted.items()], how="diagonal"),
    )


def at_fixed_columns(found: Evidence) -> Illustration:
    """Drift with α at fixed intrinsic properties, one panel a column."""
    styles = styles_of(found)
    sets = [found.observed, *([found.corrector.best] if found.corrector else []), *list(found.truths.values())[:1]]
    names = {found.observed.name: "volunteers", **{one.name: found.gold_name for one in found.truths.values()}}
    tables = {
        column: drift_by(found.frame[column].cast(pl.Float64).to_numpy(), found.alpha, sets)
        for column in found.intrinsic
    }
    panels = []
    for column, table in tables.items():
        figure = Figure(figsize=_PANEL, layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="0.5", lw=1)
        for one in sets:
            part = table.filter(pl.col("labels") == one.name)
            name = names.get(one.name, "corrected")
            style: Style = {**styles[one.name], "ls": "--" if one.kind == "observed" else "-"}
            axes.errorbar(part["mean"], part["drift"], part["stderr"], ms=5, lw=1.5, label=name, **style)
        axes.set(xlabel=axis_label(found, column), ylabel="change of the disk fraction with α")
        _legend_above(figure, axes)
        panels.append(figure)
    every = np.concatenate([table["drift"].to_numpy() for table in tables.values()])
    for figure in panels:
        figure.axes[0].set_ylim(min(-0.1, np.nanmin(every) - 0.08), max(0.1, np.nanmax(every) + 0.08))
    return Illustration(
        "fixed_properties",
        panels,
        f"Change of the disk fraction with resolution at fixed {in_words(found.intrinsic)}.",
        "Disk fraction of the better resolved half minus that of the other half of similar galaxies, in fifths of "
        f"{in_words(found.intrinsic)}. Zero means that the disk fraction of similar galaxies does not depend on their "
        "resolution. One property is held fixed at a time, so the truth need not be exactly zero.",
        pl.concat([table.select(pl.lit(name).alias("column"), pl.all()) for name, table in tables.items()]),
    )


def by_columns(found: Evidence) -> Illustration:
    """Disk fraction against intrinsic columns, one panel a column."""
    styles = styles_of(found)
    tables = {
        column: fractions_by(found.frame[column].cast(pl.Float64).to_numpy(), found.curves)
        for column in found.intrinsic
    }
    panels = []
    for column, table in tables.items():
        figure = Figure(figsize=_PANEL, layout="constrained")
        axes = figure.subplots()
        for name in table["labels"].unique(maintain_order=True):
            part = table.filter(pl.col("labels") == name)
            axes.errorbar(
                part["mean"],
                part["disk_fraction"],
                part["stderr"],
                ms=4.5,
                lw=1.3,
                label=plain_text(name),
                **styles[name],
            )
        axes.set(xlabel=axis_label(found, column), ylabel="disk fraction", ylim=(0, 1.02))
        _legend_above(figure, axes)
        panels.append(figure)
    return Illustration(
        "by_columns",
        panels,
        f"Disk fraction against {in_words(found.intrinsic)}, by label set.",
        f"Disk fraction of {found.which} in fifths of {in_words(found.intrinsic)}. Errors: binomial.",
        pl.concat([table.select(pl.lit(name).alias("column"), pl.all()) for name, table in tables.items()]),
    )


def leaves(found: Evidence) -> Illustration:
    """Drift above the floor in each intrinsic leaf, one panel a label set, at the leaf's medians of two columns."""
    columns = found.intrinsic
    top = max(0.05, max(float(one.excess.max()) for one in found.leaves.values()))
    panels = []
    for name, one in found.leaves.items():
        figure = Figure(figsize=_PANEL, layout="constrained")
        axes = figure.subplots()
        y = one.medians[:, 1] if len(columns) > 1 else np.zeros(len(one.medians))
        drawn = axes.scatter(
            one.medians[:, 0], y, c=one.excess, s=70, cmap="cividis", vmin=0, vmax=top, edgecolors="0.5", lw=0.4
        )
        axes.set_title(plain_text(name), fontsize=10)
        axes.set(xlabel=axis_label(found, columns[0]), ylabel=axis_label(found, columns[1]) if len(columns) > 1 else "")
        figure.colorbar(drawn, label="drift with α above floor")
        panels.append(figure)
    rows = [
        {"labels": name, "leaf": leaf + 1, "galaxies": int(one.counts[leaf]), "value": float(one.values[leaf]),
         "floor": float(one.floors[leaf]), "excess": float(one.excess[leaf]),
         **dict(zip(columns, map(float, one.medians[leaf]), strict=True))}
        for name, one in found.leaves.items() for leaf in range(one.counts.size)
    ]  # fmt: skip
    worst = "; ".join(f"{name} {one.excess.max():.2f}" for name, one in found.leaves.items())
    return Illustration(
        "leaves",
        panels,
        f"Drift with resolution in each leaf of the intrinsic tree. Largest: {worst}",
        f"CV18 above its floor in each of {2**found.tree.depth} leaves of similar {in_words(columns)}, at the medians "
        "of the first two.",
        pl.DataFrame(rows),
    )


def reliability_panels(found: Evidence) -> Illustration:
    """Observed frequency against probability: a panel for each thing that was compared with."""
    styles = styles_of(found)
    tables: dict[str, dict[str, pl.DataFrame]] = {}
    errors: list[str] = []
    for truth in found.truths.values():
        sets = [one for model in found.models for one in (model.probabilities, model.posterior) if one is not None]
        panel = {one.name: reliability(one.disk, truth.disk) for one in sets if (one.known & truth.known).any()}
        if panel:
            tables[truth.name] = panel
        errors += [
            f"{one.name} {calibration_error(truth.disk, one.disk):.3f} ({truth.name})"
            for one in sets
            if one.name in panel
        ]
    seen = {model.name: found.predicted_labels(model) for model in found.models}
    tables["volunteers' labels"] = {name: reliability(p, found.observed.disk) for name, p in seen.items()}
    errors += [
        f"{name} {calibration_error(found.observed.disk, p):.3f} (volunteers' labels)" for name, p in seen.items()
    ]
    panels = []
    for what, panel in tables.items():
        figure = Figure(figsize=(4.2, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ls="--", lw=1, color="0.5")
        for name, table in panel.items():
            axes.errorbar(
                table["probability"], table["observed"], table["stderr"], label=plain_text(name), ms=4.5, lw=1,
                **styles[name],
            )  # fmt: skip
        predicted = "predicted probability of a disk label" if what == "volunteers' labels" else "p(disk)"
        axes.set(xlabel=predicted, ylabel=f"fraction of disks: {plain_text(what)}", aspect="equal")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        panels.append(figure)
    data = [
        table.select(pl.lit(what).alias("against"), pl.lit(name).alias("labels"), pl.all())
        for what, panel in tables.items()
        for name, table in panel.items()
    ]
    text = "; ".join(errors)
    return Illustration(
        "calibration",
        panels,
        f"Observed fraction against probability. Calibration errors: {text}.",
        "Of galaxies with p(disk) = 0.7, are 70 % disks? Calibration error (mean distance of probability and "
        f"fraction): {text}. For the comparison with the volunteers' labels p(disk) is passed through T(α), so it "
        "needs no gold labels.",
        pl.concat(data),
    )


def training(found: Evidence) -> Illustration | None:
    """How each run learned: held-out loss, disk probabilities at both ends of α, and bias, by epoch."""
    runs = {model.name: model.run for model in found.models if model.run is not None}
    if not runs:
        return None
    styles = styles_of(found)
    panels = [Figure(figsize=_PANEL, layout="constrained") for _ in range(3)]
    left, middle, right = (one.subplots() for one in panels)
    for name, run in runs.items():
        colour = styles[name]["color"]
        mean = run.history.group_by("epoch").mean().sort("epoch")
        epoch = mean["epoch"] + 1
        left.plot(epoch, mean["held_out_loss"], color=colour, marker=".", label=plain_text(name))
        for column, line in (("fraction_disk_1", "--"), ("fraction_disk_5", "-")):
            if column in mean.columns:
                middle.plot(epoch, mean[column], line, color=colour, marker=".")
        for column in mean.columns:
            if column.endswith("_excess"):
                right.plot(epoch, mean[column], color=colour, marker=".", label=column[:4].upper())
    left.set(xlabel="epoch", ylabel="held-out loss")
    middle.set(xlabel="epoch", ylabel="mean p(disk)", ylim=(0, 1))
    right.set(xlabel="epoch", ylabel="drift with α above floor")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    data = [run.history.select(pl.lit(name).alias("run"), pl.all()) for name, run in runs.items()]
    return Illustration(
        "training",
        panels,
        "Held-out loss, mean disk probability of the least and best resolved fifth, and bias, by epoch.",
        "By epoch, mean over members that were still training: held-out loss; mean p(disk) of the least (dashed) "
        "and the best resolved fifth (solid) of held-out galaxies; drift with α above the floor.",
        pl.concat(data, how="diagonal_relaxed"),
    )


def pairs_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Galaxies that changed label: what annotators saw above, a better image below (Figure 4).

    Parameters
    ----------
    rows : sequence of mapping
        `seen` and `better` (uint8 arrays (H, W, 3); `better` may be None), `title`.
    """
    across = min(len(rows), 6)
    lines = -(-len(rows) // across)
    figure = Figure(figsize=(1.75 * across, 4.0 * lines), layout="constrained")
    panels = figure.subplots(2 * lines, across, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for number, row in enumerate(rows):
        line, column = divmod(number, across)
        draw_pair(panels[2 * line, column], panels[2 * line + 1, column], row)
    return figure


def draw_pair(upper: Any, lower: Any, row: Mapping[str, Any]) -> None:
    """What annotators saw of one galaxy, and below it a better image."""
    upper.imshow(row["seen"])
    upper.set_title(plain_text(row["title"]), fontsize=8)
    if row["better"] is None:
        lower.text(0.5, 0.5, "no better\nimage", ha="center", va="center", fontsize=8, transform=lower.transAxes)
    else:
        lower.imshow(row["better"])


def overview(found: Evidence, examples: Sequence[Mapping[str, Any]]) -> Illustration:
    """Figure 1 beside galaxies that change, for slides and first pages.

    Parameters
    ----------
    found : Evidence
    examples : sequence of mapping
        Up to four, as for `pairs_figure`.
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    beside: Any = figure.subfigures(1, 2, width_ratios=(5.4, 5.6))
    left, right = beside
    axes = left.subplots()
    draw_fractions(axes, found)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    panels = right.subplots(2, len(examples), squeeze=False)
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for column, row in enumerate(examples):
        draw_pair(panels[0, column], panels[1, column], row)
    panels[0, 0].set_ylabel("as volunteers saw it:\nlabelled smooth", fontsize=9)
    panels[1, 0].set_ylabel("a better image:\na disk", fontsize=9)
    text = "Disk fraction against resolution, beside galaxies as volunteers saw them and in better images."
    return Illustration("overview", figure, text, text)
