"""Figures of explanations: mean maps (paper, Figs 5-6), profiles (Fig. 7), differences, random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from truemorph.explain.profiles import PIXELS, RADII
from truemorph.plotting import BLUE, CYCLE, GREY, RED, plain_text

if TYPE_CHECKING:
    from truemorph.explain.sanity_check import Randomisation
    from truemorph.explain.study import Compared, Explanation

# Colours, and line styles that differ without colours.
_COLOURS = (RED, BLUE, *CYCLE[2:-1])
_LINES = ("-", "--", "-.", ":")
_AXES = {PIXELS: "distance from the centre (pixels)", RADII: r"distance from the centre ($R_\mathrm{petro}$)"}


def _names(explanations: Iterable[Explanation]) -> list[str]:
    return list(dict.fromkeys(one.name for model in explanations for one in model.classes))


def mean_map_figure(explanations: Mapping[str, Explanation], turned: bool = False) -> Figure:
    """Draw mean maps (`turned`: those aligned along the major axis), classes × models, with a common colour scale."""
    every = list(explanations.values())
    names = _names(every)
    figure = Figure(figsize=(2.7 * len(every) + 1.1, 2.75 * len(names) + 0.3), layout="constrained")
    axes = figure.subplots(len(names), len(every), squeeze=False)
    images = []
    for column, model in enumerate(every):
        for ax, name in zip(axes[:, column], names, strict=True):
            one = next((one for one in model.classes if one.name == name and one.galaxies), None)
            ax.set_title(f"{plain_text(model.model)}: {name} ({one.galaxies if one else 0:,})", fontsize=9)
            if one is None:
                ax.set_axis_off()
                ax.text(0.5, 0.5, "none", ha="center", va="center", transform=ax.transAxes, color=GREY)
                continue
            found = one.aligned if turned and one.aligned else one.mean
            half = len(found.mean) / 2
            images.append(ax.imshow(found.mean, cmap="cividis", extent=(-half, half, half, -half)))
            ax.tick_params(labelsize=7)
        across = "along the major axis" if turned else "from the centre"
        axes[-1, column].set_xlabel(f"{across} (pixels)\n{model.layer}, {model.cells}×{model.cells} cells", fontsize=8)
    scale = Normalize(min(one.norm.vmin for one in images), max(one.norm.vmax for one in images))
    for image in images:
        image.set_norm(scale)
    bar = figure.colorbar(images[0], ax=axes, shrink=0.8)
    bar.set_label("mean Grad-CAM intensity", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def profile_figure(
    explanations: Mapping[str, Explanation], unit: str = PIXELS, colours: Mapping[str, str] | None = None
) -> Figure:
    """Draw mean intensity against distance from the centre, one panel per class, with standard errors.

    `colours` are those of models.
    """
    names = _names(explanations.values())
    figure = Figure(figsize=(3.8 * len(names), 3.3), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for number, model in enumerate(explanations.values()):
        colour = (colours or {}).get(model.model, _COLOURS[number % len(_COLOURS)])
        line = _LINES[number % len(_LINES)]
        for one in model.classes:
            if one.galaxies:
                ax, found = axes[names.index(one.name)], one.rings[unit]
                label = f"{plain_text(model.model)} ({one.galaxies:,})"
                ax.plot(found.middles, found.mean, line, color=colour, label=label)
                error = np.nan_to_num(found.stderr)
                ax.fill_between(found.middles, found.mean - error, found.mean + error, color=colour, alpha=0.25, lw=0)
    for ax, name in zip(axes, names, strict=True):
        ax.set(xlabel=_AXES[unit], title=f"predicted {name}", xlim=(0, None))
        if ax.lines:
            ax.legend(frameon=False, fontsize=8)
    axes[0].set(ylabel="mean Grad-CAM intensity", ylim=(0, None))
    return figure


def difference_figure(compared: Sequence[Compared], unit: str = PIXELS) -> Figure:
    """Draw differences of profiles with 68 and 95 % bootstrap limits, by pair of models and class."""
    some = [one for one in compared if one.unit == unit]
    pairs = list(dict.fromkeys((one.first, one.second) for one in some))
    names = list(dict.fromkeys(one.name for one in some))
    rows, columns = max(len(pairs), 1), max(len(names), 1)
    figure = Figure(figsize=(3.8 * columns, 2.9 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, sharex=True, squeeze=False)
    for one in some:
        row, column = pairs.index((one.first, one.second)), names.index(one.name)
        ax = axes[row, column]
        for fraction, alpha in ((0.95, 0.18), (0.68, 0.35)):
            ax.fill_between(one.middles, *one.limits[fraction], color=BLUE, alpha=alpha, lw=0, label=f"{fraction:.0%}")
        ax.plot(one.middles, one.difference, color=BLUE)
        ax.axhline(0, color=GREY, lw=1, ls="--")
        first, second, both = one.galaxies
        ax.set_title(f"{one.name}: {first:,} and {second:,} galaxies, {both:,} in both", fontsize=9)
        ax.legend(frameon=False, fontsize=8, title="bootstrap", title_fontsize=8)
        axes[row, 0].set(ylabel=f"{plain_text(one.first)} − {plain_text(one.second)}")
    for ax in axes[-1]:
        ax.set(xlabel=_AXES[unit], xlim=(0, None))
    return figure


def randomisation_figure(checks: Mapping[str, Randomisation]) -> Figure:
    """Draw the rank correlation with the trained network's maps as weights are randomised from the top."""
    figure = Figure(figsize=(4.4 * len(checks), 3.4), layout="constrained")
    axes: Any = figure.subplots(1, len(checks), sharey=True, squeeze=False)[0]
    for ax, (name, check) in zip(axes, checks.items(), strict=True):
        places = np.arange(len(check.steps))
        means, errors = zip(*check.means.values(), strict=True)
        ax.errorbar(places, means, errors, fmt="o-", ms=4, color=BLUE, label="random weights")
        ax.axhline(check.same.mean(), color="black", lw=1, ls="-.", label="same galaxy, rotated")
        ax.axhline(check.other.mean(), color=RED, lw=1, ls="--", label="another galaxy")
        ax.axhline(0, color=GREY, lw=0.6)
        ax.set_xticks(places, list(check.steps), rotation=45, ha="right", fontsize=8)
        verdict = "depend on the weights" if check.passes else "not shown to depend on the weights"
        ax.set_title(f"{plain_text(name)}: maps {verdict}", fontsize=9)
        ax.set(xlabel="randomised down to", ylim=(-1, 1))
        ax.legend(frameon=False, fontsize=8)
    axes[0].set(ylabel="rank correlation with trained maps")
    return figure
