"""Figures of explanations: mean maps (paper, Figs 5-6), profiles (Fig. 7) and their differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import ascii_lowercase
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from truemorph.explain.profiles import PIXELS, RADII
from truemorph.plotting import BLUE, CYCLE, GREY, RED, legend, plain_text

if TYPE_CHECKING:
    from truemorph.explain.study import Explanation

# Colours, and line styles that differ without colours.
_COLOURS = (RED, BLUE, *CYCLE[2:-1])
_LINES = ("-", "--", "-.", ":")
_AXES = {PIXELS: "distance from the centre (pixels)", RADII: r"distance from the centre ($R_\mathrm{petro}$)"}


def _names(explanations: Iterable[Explanation]) -> list[str]:
    return list(dict.fromkeys(of_class.name for model in explanations for of_class in model.classes))


def mean_map_figure(
    explanations: Mapping[str, Explanation], scale: Normalize | None = None, letters: str = ascii_lowercase
) -> Figure:
    """Draw mean maps, classes × models, with a common colour scale, by default that of the maps."""
    every = list(explanations.values())
    names = _names(every)
    figure = Figure(figsize=(2.7 * len(every) + 1.1, 2.75 * len(names) + 0.3), layout="constrained")
    axes = figure.subplots(len(names), len(every), squeeze=False)
    images = []
    for column, model in enumerate(every):
        for row, (ax, name) in enumerate(zip(axes[:, column], names, strict=True)):
            group = next((of_class for of_class in model.classes if of_class.name == name and of_class.galaxies), None)
            galaxies = group.galaxies if group else 0
            letter = letters[(row * len(every) + column) % len(letters)]
            ax.set_title(f"({letter}) {plain_text(model.model)}: {name} ({galaxies:,})", fontsize=9)
            if group is None:
                ax.set_axis_off()
                ax.text(0.5, 0.5, "none", ha="center", va="center", transform=ax.transAxes, color=GREY)
                continue
            half = len(group.mean.mean) / 2
            images.append(ax.imshow(group.mean.mean, cmap="cividis", extent=(-half, half, half, -half)))
            ax.tick_params(labelsize=7)
        axes[-1, column].set_xlabel(
            f"from the centre (pixels)\n{model.layer}, {model.cells}×{model.cells} cells", fontsize=8
        )
    if not images:
        return figure
    scale = scale or Normalize(min(image.norm.vmin for image in images), max(image.norm.vmax for image in images))
    for image in images:
        image.set_norm(scale)
    bar = figure.colorbar(images[0], ax=axes, shrink=0.8)
    bar.set_label("mean Grad-CAM intensity", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def profile_figure(
    explanations: Mapping[str, Explanation], unit: str, colours: Mapping[str, str] | None = None
) -> Figure:
    """Draw mean intensity against distance from the centre, with standard errors: one panel per class."""
    names = _names(explanations.values())
    figure = Figure(figsize=(3.8 * len(names), 3.3), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for number, model in enumerate(explanations.values()):
        colour = (colours or {}).get(model.model, _COLOURS[number % len(_COLOURS)])
        line = _LINES[number % len(_LINES)]
        for of_class in model.classes:
            if of_class.galaxies:
                ax, rings = axes[names.index(of_class.name)], of_class.rings[unit]
                label = f"{plain_text(model.model)} ({of_class.galaxies:,})"
                mean, error = rings.average.mean, np.nan_to_num(rings.average.stderr)
                ax.plot(rings.middles, mean, line, color=colour, label=label)
                ax.fill_between(rings.middles, mean - error, mean + error, color=colour, alpha=0.25, lw=0)
    for ax, name in zip(axes, names, strict=True):
        ax.set(xlabel=_AXES[unit], title=f"predicted {name}", xlim=(0, None))
        if ax.lines:
            legend(ax)
    axes[0].set(ylabel="mean Grad-CAM intensity", ylim=(0, None))
    return figure


def difference_figure(compared: pl.DataFrame, unit: str) -> Figure:
    """Draw a table of `compare`: differences with 68 and 95 % bootstrap limits, by pair of models and class."""
    pairs = compared.select("first", "second").unique(maintain_order=True).rows()
    names = compared["class"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(3.8 * len(names), 2.9 * len(pairs) + 0.3), layout="constrained")
    axes = figure.subplots(len(pairs), len(names), sharey=True, sharex=True, squeeze=False)
    for (first, second, name), part in compared.group_by("first", "second", "class", maintain_order=True):
        row, column = pairs.index((first, second)), names.index(name)
        ax, middles = axes[row, column], (part["inner"] + part["outer"]) / 2
        for percent, alpha in ((95, 0.18), (68, 0.35)):
            limits = part[f"low_{percent}"], part[f"high_{percent}"]
            ax.fill_between(middles, *limits, color=BLUE, alpha=alpha, lw=0, label=f"{percent}%")
        ax.plot(middles, part["difference"], color=BLUE)
        ax.axhline(0, color=GREY, lw=1, ls="--")
        of_first, of_second, both = part.select("galaxies_first", "galaxies_second", "galaxies_both").row(0)
        ax.set_title(f"{name}: {of_first:,} and {of_second:,} galaxies, {both:,} in both", fontsize=9)
        ax.legend(frameon=False, fontsize=8, title="bootstrap", title_fontsize=8)
        axes[row, 0].set(ylabel=f"{plain_text(str(first))} − {plain_text(str(second))}")
    for ax in axes[-1]:
        ax.set(xlabel=_AXES[unit], xlim=(0, None))
    return figure
