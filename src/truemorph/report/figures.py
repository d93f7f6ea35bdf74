"""Figures of the page: each function takes the table behind it and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from truemorph.bias.fractions import PopulationFractions
from truemorph.bias.leafmap import LeafMap
from truemorph.bias.plots import plot_families, plot_fit
from truemorph.bias.transitions import CLASS_NAMES, DISK
from truemorph.report.style import ALPHA, STYLE, Style, plain_text


def fractions_figure(
    tables: Mapping[str, pl.DataFrame],
    styles: Mapping[str, Style],
    population: PopulationFractions | None = None,
) -> Figure:
    """Disk fraction of several label sets against α and intrinsic columns, one panel a column.

    Parameters
    ----------
    tables : dict of polars.DataFrame
        By axis label, from `fractions_by`.
    styles : dict of Style
        By label set.
    population : PopulationFractions, optional
        Crowd labels inverted through T(α), in bins of α; drawn with its systematic band in the first panel.
    """
    columns = min(len(tables), 2)
    lines = -(-len(tables) // columns)
    width = max(5.2 * columns, 8.4)
    figure = Figure(figsize=(width, 3.5 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, (label, table) in zip(panels, tables.items(), strict=False):
        for name in table["labels"].unique(maintain_order=True):
            part, style = table.filter(pl.col("labels") == name), styles[name]
            axes.errorbar(
                part["mean"], part["disk_fraction"], part["stderr"], label=plain_text(name), ms=4.5, lw=1.3, **style
            )
        axes.set(xlabel=label, ylim=(0, 1))
    if population is not None:
        x, low, high = population.middles, population.low[:, DISK], population.high[:, DISK]
        panels[0].fill_between(x, low, high, color="#E69F00", alpha=0.25, lw=0, label="crowd labels inverted through T")
    for axes in panels[: len(tables) : columns]:
        axes.set_ylabel("disk fraction")
    for axes in panels[len(tables) :]:
        axes.set_axis_off()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, ncols=min(3, len(names)), loc="outside upper center", fontsize=9)
    return figure


def flips_figure(
    study: Any, others: Mapping[str, Any], flipped: Mapping[str, pl.DataFrame], styles: Mapping[str, Style]
) -> Figure:
    """What the labels say about flips, and how probable flips then are.

    Parameters
    ----------
    study : TransitionStudy
    others : dict of Transition
        T(α) that models were trained through, by model.
    flipped : dict of polars.DataFrame
        By definition of a disk: share of true disks labelled smooth in bins of α (`mean`, `share`, `stderr`).
    styles : dict of Style
    """
    figure = Figure(figsize=(10.4, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    if study.families is None:
        plot_fit(study.fit, left, 12)
    else:
        plot_families(study.families, left)
    left.set_title("fit to the labels", fontsize=10)
    alpha = study.fit.alpha if study.fit.alpha.ndim == 1 else study.fit.alpha[:, 0]
    grid = np.linspace(0, float(np.quantile(alpha, 0.99)), 200)
    for name, transition in others.items():
        right.plot(grid, transition.flip_probability(grid), lw=1.6, color=styles[name]["color"], label=plain_text(name))
    for number, (definition, table) in enumerate(flipped.items()):
        marker, face = ("ov^s"[number % 4], "none" if number else None)
        right.errorbar(
            table["mean"], table["share"], table["stderr"], fmt=marker, ms=4.5, color=STYLE["truth"]["color"],
            mfc=face, label=f"true disks labelled smooth ({plain_text(definition)})",
        )  # fmt: skip
    right.set(xlabel=ALPHA, ylabel="p(labelled smooth | disk)", ylim=(-0.02, 1.02), xlim=(0, grid[-1]))
    right.set_title("flip probability that models were trained through", fontsize=10)
    if others or flipped:
        right.legend(frameon=False, fontsize=8)
    return figure


def leaves_figure(leaves: Mapping[str, LeafMap], columns: Sequence[str]) -> Figure:
    """Drift above the floor in each intrinsic leaf, one panel a label set, at the leaf's medians of two columns."""
    across = min(len(leaves), 3)
    lines = -(-len(leaves) // across)
    figure = Figure(figsize=(3.6 * across + 1, 3.2 * lines), layout="constrained")
    panels = figure.subplots(lines, across, squeeze=False, sharex=True, sharey=True).ravel()
    top = max(0.05, max(float(one.excess.max()) for one in leaves.values()))
    drawn: Any = None
    for axes, (name, one) in zip(panels, leaves.items(), strict=False):
        x = one.medians[:, 0]
        y = one.medians[:, 1] if one.medians.shape[1] > 1 else np.zeros(len(x))
        drawn = axes.scatter(x, y, c=one.excess, s=70, cmap="cividis", vmin=0, vmax=top, edgecolors="0.5", lw=0.4)
        total = float(np.sqrt(max(0.0, np.mean(one.values**2 - one.floors**2))))
        axes.set_title(f"{plain_text(name)}: {total:.3f}", fontsize=10)
        axes.set_xlabel(plain_text(columns[0]))
    for axes in panels[len(leaves) :]:
        axes.set_axis_off()
    for axes in panels[: len(leaves) : across]:
        axes.set_ylabel(plain_text(columns[1]) if len(columns) > 1 else "")
    figure.colorbar(drawn, ax=list(panels[: len(leaves)]), label="drift with α above the floor")
    return figure


def reliability_figure(tables: Mapping[str, Mapping[str, pl.DataFrame]], styles: Mapping[str, Style]) -> Figure:
    """Observed frequency against probability: a panel for each thing that was compared with.

    Parameters
    ----------
    tables : dict of dict of polars.DataFrame
        By what was compared with, then by label set; from `reliability`.
    styles : dict of Style
    """
    figure = Figure(figsize=(4.4 * len(tables), 4.2), layout="constrained")
    for axes, (what, by_set) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        axes.plot([0, 1], [0, 1], ls="--", lw=1, color="0.5")
        for name, table in by_set.items():
            style = styles[name]
            axes.errorbar(
                table["probability"], table["observed"], table["stderr"], label=plain_text(name), ms=4.5, lw=1, **style
            )
        axes.set(xlabel="probability", ylabel="observed share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_title(plain_text(what), fontsize=10)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def confusion_figure(table: pl.DataFrame) -> Figure:
    """Confusion matrices in bins of α: a line for each label set, shares of each reference class."""
    names = table["labels"].unique(maintain_order=True).to_list()
    bins = table["bin"].n_unique()
    reference = plain_text(table["reference"][0])
    figure = Figure(figsize=(2.0 * bins + 1.4, 1.9 * len(names) + 0.4), layout="constrained")
    panels = figure.subplots(len(names), bins, squeeze=False)
    for row, (line, name) in enumerate(zip(panels, names, strict=True)):
        for number, axes in enumerate(line, 1):
            part = table.filter((pl.col("labels") == name) & (pl.col("bin") == number)).sort("of", "as")
            share, count = part["share"].to_numpy().reshape(2, 2), part["galaxies"].to_numpy().reshape(2, 2)
            axes.imshow(np.nan_to_num(share), cmap="cividis", vmin=0, vmax=1)
            for of in range(2):
                for said in range(2):
                    colour = "#000001" if share[of, said] > 0.5 else "white"  # also on a dark page
                    text = f"{share[of, said]:.2f}\n{count[of, said]:,}" if count[of].sum() else "none"
                    axes.text(said, of, text, ha="center", va="center", fontsize=8, color=colour)
            axes.set_xticks([0, 1], CLASS_NAMES if row == len(names) - 1 else [], fontsize=8)
            axes.set_yticks([0, 1], CLASS_NAMES if number == 1 else [], fontsize=8)
            if row == 0:
                axes.set_title(f"α {part['low'][0]:.1f} to {part['high'][0]:.1f}", fontsize=9)
        line[0].set_ylabel(plain_text(name), fontsize=8)
    figure.supylabel(f"class by {reference}", fontsize=9)
    return figure


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
        upper, lower = panels[2 * line, column], panels[2 * line + 1, column]
        upper.imshow(row["seen"])
        upper.set_title(plain_text(row["title"]), fontsize=8)
        if row["better"] is None:
            lower.text(0.5, 0.5, "no better\nimage", ha="center", va="center", fontsize=8, transform=lower.transAxes)
        else:
            lower.imshow(row["better"])
    return figure


def leaderboard_figure(
    rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], metrics: Mapping[str, str], reference: str
) -> Figure:
    """Scores of every method in every world, a dot with the spread over seeds.

    Parameters
    ----------
    rows : sequence of mapping
        `world`, `method`, `means` and `stds` by metric.
    titles : mapping
        Names of methods to show, in the order from top to bottom.
    metrics : mapping
        Metrics to draw and their axis labels, one line of panels each.
    reference : str
        Method whose mean is drawn as a line through each panel.
    """
    worlds = list(dict.fromkeys(row["world"] for row in rows))
    shown = [method for method in titles if any(row["method"] == method for row in rows)]
    figure = Figure(figsize=(2.2 + 2.1 * len(worlds), len(metrics) * (0.9 + 0.24 * len(shown))), layout="constrained")
    panels = figure.subplots(len(metrics), len(worlds), sharey=True, sharex="row", squeeze=False)
    for line, (metric, label) in zip(panels, metrics.items(), strict=True):
        for axes, world in zip(line, worlds, strict=True):
            for row in rows:
                mean = row["means"].get(metric)
                if row["world"] != world or row["method"] not in shown or mean is None:
                    continue
                ours = row["method"].startswith(("ddb", "dcv14", "conditional", "gold", "likelihood"))
                style = STYLE["truth" if row["method"] == reference else "debiased" if ours else "naive"]
                place = len(shown) - 1 - shown.index(row["method"])
                axes.errorbar(
                    mean,
                    place,
                    xerr=row["stds"].get(metric),
                    fmt=style["marker"],
                    ms=5,
                    color=style["color"],
                    capsize=2,
                )
                if row["method"] == reference:
                    axes.axvline(mean, color="0.6", lw=0.8, ls=":")
            axes.set_title(world, fontsize=10)
            axes.set_xlabel(label)
            axes.grid(axis="y", color="0.9")
            axes.set_yticks(range(len(shown)), [titles[one] for one in reversed(shown)])
    return figure


def training_figure(histories: Mapping[str, pl.DataFrame], colours: Mapping[str, str]) -> Figure:
    """How runs learned: held-out loss, disk probabilities at both ends of α, and bias, by epoch.

    Parameters
    ----------
    histories : dict of polars.DataFrame
        By run: `epoch`, `member`, and what was logged.
    colours : dict of str
        By run.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, history in histories.items():
        colour = colours[name]
        mean = history.group_by("epoch").mean().sort("epoch")
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
    right.set(xlabel="epoch", ylabel="drift with α above noise")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    return figure
