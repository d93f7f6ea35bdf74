"""Figures: each function takes plain arrays and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from truemorph.bias.transitions import RayleighTransition, Transition

# Colours that stay apart in print and for most colour-blind readers (Okabe & Ito), with markers beside.
STYLE = {
    "truth": ("#000000", "o", "-"),
    "crowd": ("#999999", "s", "--"),
    "naive": ("#D55E00", "^", "-"),
    "debiased": ("#0072B2", "D", "-"),
}


def fraction_figure(alpha: Sequence[float], fractions: Mapping[str, Sequence[float]], counts: int) -> Figure:
    """Disk fraction against α for several label sets, in equal-count bins.

    Parameters
    ----------
    alpha : sequence, length B
        Mean α of each bin.
    fractions : dict
        Disk fractions by label set ("truth", "crowd", "naive", "debiased").
    counts : int
        Galaxies a bin, for the binomial error of the truth.
    """
    figure = Figure(figsize=(5.6, 3.7), layout="constrained")
    axes = figure.add_subplot()
    for name, values in fractions.items():
        colour, marker, line = STYLE[name]
        axes.plot(alpha, values, line, marker=marker, ms=5, color=colour, label=name)
    if "truth" in fractions:
        f = np.asarray(fractions["truth"])
        error = np.sqrt(f * (1 - f) / counts)
        axes.fill_between(alpha, f - error, f + error, color="0.5", alpha=0.25, lw=0)
    axes.set(
        xlabel=r"resolution $\alpha = R_\mathrm{petro}/\sigma_\mathrm{PSF}$",
        ylabel="disk fraction",
        ylim=(0, 1),
    )
    axes.legend(frameon=False, ncols=2)
    return figure


def flip_figure(
    fitted: Transition,
    theta: float,
    stderr: float,
    true: Transition,
    alpha: np.ndarray,
    flipped: np.ndarray,
    bins: int = 12,
) -> Figure:
    """Flip probability of disks: the true curve, the one learned from labels, and what happened.

    Parameters
    ----------
    fitted, true : Transition
    theta, stderr : float
        Estimate and error, for the band.
    alpha : array, shape (N,)
        α of true disks.
    flipped : array of bool, shape (N,)
        Whether each was labelled smooth.
    bins : int
        Equal-count bins for the points.
    """
    figure = Figure(figsize=(5.6, 3.7), layout="constrained")
    axes = figure.add_subplot()
    parts = np.array_split(np.argsort(alpha, kind="stable"), bins)
    middle = [alpha[part].mean() for part in parts]
    share = np.array([flipped[part].mean() for part in parts])
    error = [np.sqrt(f * (1 - f) / len(part)) for f, part in zip(share, parts, strict=True)]
    grid = np.linspace(0, float(np.quantile(alpha, 0.99)), 200)
    axes.errorbar(middle, share, error, fmt="s", ms=4, color="0.4", label="true disks labelled smooth")
    axes.plot(grid, true.flip_probability(grid), color="k", lw=1, ls="--", label="true flip probability")
    axes.plot(grid, fitted.flip_probability(grid), color=STYLE["debiased"][0], label="learned from labels alone")
    low, high = (RayleighTransition(theta + s * stderr).flip_probability(grid) for s in (-1, 1))
    axes.fill_between(grid, low, high, color=STYLE["debiased"][0], alpha=0.25, lw=0)
    axes.set(xlabel=r"resolution $\alpha$", ylabel="p(labelled smooth | disk)", ylim=(0, 1.02), xlim=(0, grid[-1]))
    axes.legend(frameon=False)
    return figure


def accuracy_figure(alpha: Sequence[float], accuracy: Mapping[str, Sequence[float]]) -> Figure:
    """Balanced accuracy against the truth, in bins of α."""
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, values in accuracy.items():
        colour, marker, line = STYLE[name]
        axes.plot(alpha, values, line, marker=marker, ms=5, color=colour, label=name)
    axes.axhline(0.5, color="0.6", lw=1, ls=":")
    axes.set(xlabel=r"resolution $\alpha$", ylabel="balanced accuracy", ylim=(0.45, 1.02))
    axes.legend(frameon=False)
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
                colour, marker, _ = STYLE["truth" if row["method"] == reference else "debiased" if ours else "naive"]
                place = len(shown) - 1 - shown.index(row["method"])
                axes.errorbar(mean, place, xerr=row["stds"].get(metric), fmt=marker, ms=5, color=colour, capsize=2)
                if row["method"] == reference:
                    axes.axvline(mean, color="0.6", lw=0.8, ls=":")
            axes.set_title(world, fontsize=10)
            axes.set_xlabel(label)
            axes.grid(axis="y", color="0.9")
            axes.set_yticks(range(len(shown)), [titles[one] for one in reversed(shown)])
    return figure


def training_figure(histories: Mapping[str, pl.DataFrame]) -> Figure:
    """How runs learned: held-out loss, disk probabilities at both ends of α, and bias, by epoch.

    Parameters
    ----------
    histories : dict of polars.DataFrame
        By run: `epoch`, `member`, and what was logged.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for number, (name, history) in enumerate(histories.items()):
        colour = f"C{number}"
        mean = history.group_by("epoch").mean().sort("epoch")
        epoch = mean["epoch"] + 1
        left.plot(epoch, mean["held_out_loss"], color=colour, marker=".", label=name)
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
