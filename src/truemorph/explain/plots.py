"""Figures of explanations: mean maps (paper, Figs 5-6), profiles (Fig. 7), differences, random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from truemorph.explain.profiles import PIXELS, RADII, REACH
from truemorph.plotting import BLUE, GREY, RED, plain_text

if TYPE_CHECKING:
    from truemorph.explain.sanity_check import Randomisation
    from truemorph.explain.study import Compared, Explanation

# Colours of Okabe & Ito, and line styles that differ without colours.
COLOURS = (RED, BLUE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
_LINES = ("-", "--", "-.", ":")
_AXES = {PIXELS: "distance from the centre (pixels)", RADII: r"distance from the centre ($R_\mathrm{petro}$)"}


def mean_map_figure(explanations: Mapping[str, Explanation], turned: bool = False) -> Figure:
    """Draw mean maps, one row per class and one column per model, with a common colour scale.

    Parameters
    ----------
    explanations : mapping of str to Explanation
    turned : bool
        Whether to draw the maps aligned along the major axis.
    """
    every = list(explanations.values())
    names = list(dict.fromkeys(one.name for model in every for one in model.classes))
    figure = Figure(figsize=(2.7 * len(every) + 1.1, 2.75 * len(names) + 0.3), layout="constrained")
    axes = figure.subplots(len(names), len(every), squeeze=False)
    shown = {
        (model.model, one.name): one.aligned if turned else one.mean
        for model in every
        for one in model.classes
        if one.galaxies and (one.aligned if turned else one.mean) is not None
    }
    values = [found.mean[np.isfinite(found.mean)] for found in shown.values() if found is not None]
    values = [one for one in values if one.size]
    low, high = (min(one.min() for one in values), max(one.max() for one in values)) if values else (0.0, 1.0)
    image = None
    for row, name in enumerate(names):
        for column, model in enumerate(every):
            ax, found = axes[row, column], shown.get((model.model, name))
            known = next((one for one in model.classes if one.name == name), None)
            ax.set_title(f"{plain_text(model.model)}: {name} ({known.galaxies if known else 0:,})", fontsize=9)
            if found is None:
                ax.set_axis_off()
                ax.text(0.5, 0.5, "none", ha="center", va="center", transform=ax.transAxes, color=GREY)
                continue
            in_radii = turned and known is not None and RADII in known.rings
            half = REACH if in_radii else len(found.mean) / 2
            image = ax.imshow(found.mean, cmap="cividis", vmin=low, vmax=high, extent=(-half, half, half, -half))
            ax.tick_params(labelsize=7)
            if row == len(names) - 1:
                across = "along the major axis" if turned else "from the centre"
                unit = r"$R_\mathrm{petro}$" if in_radii else "pixels"
                ax.set_xlabel(f"{across} ({unit})\n{model.layer}, {model.cells}×{model.cells} cells", fontsize=8)
    if image is not None:
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.set_label("mean Grad-CAM intensity", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def profile_figure(
    explanations: Mapping[str, Explanation], unit: str = PIXELS, colours: Mapping[str, str] | None = None
) -> Figure:
    """Draw mean intensity against distance from the centre, one panel per class, with standard errors.

    Parameters
    ----------
    explanations : mapping of str to Explanation
    unit : {"pixel", "R_petro"}
    colours : mapping of str, optional
        Colours by model.
    """
    every = [one for one in explanations.values() if any(unit in found.rings for found in one.classes)]
    names = list(dict.fromkeys(one.name for model in every for one in model.classes))
    figure = Figure(figsize=(3.8 * max(len(names), 1), 3.3), layout="constrained")
    axes = figure.subplots(1, max(len(names), 1), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, names, strict=False):
        for number, model in enumerate(every):
            known = next((one for one in model.classes if one.name == name), None)
            if known is None or not known.galaxies or unit not in known.rings:
                continue
            found = known.rings[unit]
            colour = (colours or {}).get(model.model, COLOURS[number % len(COLOURS)])
            line = _LINES[number % len(_LINES)]
            ax.plot(
                found.middles, found.mean, line, color=colour, label=f"{plain_text(model.model)} ({known.galaxies:,})"
            )
            error = np.nan_to_num(found.stderr)
            ax.fill_between(found.middles, found.mean - error, found.mean + error, color=colour, alpha=0.25, lw=0)
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
    for ax in axes.flat[len(pairs) * len(names) :]:
        ax.set_axis_off()
    for one in some:
        ax = axes[pairs.index((one.first, one.second)), names.index(one.name)]
        for fraction, alpha in ((0.95, 0.18), (0.68, 0.35)):
            ax.fill_between(one.middles, *one.limits[fraction], color=BLUE, alpha=alpha, lw=0, label=f"{fraction:.0%}")
        ax.plot(one.middles, one.difference, color=BLUE)
        ax.axhline(0, color=GREY, lw=1, ls="--")
        first, second, both = one.galaxies
        ax.set_title(f"{one.name}: {first:,} and {second:,} galaxies, {both:,} in both", fontsize=9)
        ax.set(
            ylabel=f"{plain_text(one.first)} − {plain_text(one.second)}"
            if ax is axes[pairs.index((one.first, one.second)), 0]
            else ""
        )
        ax.legend(frameon=False, fontsize=8, title="bootstrap", title_fontsize=8)
    for ax in axes[-1]:
        ax.set(xlabel=_AXES[unit], xlim=(0, None))
    return figure


def randomisation_figure(checks: Mapping[str, Randomisation]) -> Figure:
    """Draw the rank correlation with the trained network's maps as weights are randomised from the top."""
    figure = Figure(figsize=(4.4 * max(len(checks), 1), 3.4), layout="constrained")
    axes: Any = figure.subplots(1, max(len(checks), 1), sharey=True, squeeze=False)[0]
    for ax, (name, check) in zip(axes, checks.items(), strict=False):
        places = np.arange(len(check.steps))
        means, errors = zip(*check.means.values(), strict=True)
        ax.errorbar(places, means, errors, fmt="o-", ms=4, color=BLUE, label="random weights")
        ax.axhline(check.same.mean(), color="black", lw=1, ls="-.", label="same galaxy, rotated")
        ax.axhline(check.other.mean(), color=RED, lw=1, ls="--", label="another galaxy")
        ax.axhline(0, color=GREY, lw=0.6)
        ax.set_xticks(places, list(check.steps), rotation=45, ha="right", fontsize=8)
        verdict = "depend on the weights" if check.passes else "not shown to depend on the weights"
        ax.set_title(f"{name}: maps {verdict}", fontsize=9)
        ax.set(xlabel="randomised down to", ylim=(-1, 1))
        ax.legend(frameon=False, fontsize=8)
    axes[0].set(ylabel="rank correlation with trained maps")
    return figure
