"""The figure of the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

# Okabe & Ito's colours, each with its own marker: one pair a world.
_STYLES = (
    ("#0072B2", "o"),
    ("#E69F00", "s"),
    ("#009E73", "D"),
    ("#D55E00", "^"),
    ("#000000", "v"),
    ("#CC79A7", "P"),
    ("#56B4E9", "X"),
    ("#8a8a8a", "*"),
)
_WIDTH = 5.4  # inches; text stays legible when the figure is 400 pixels wide
_LINE = 0.36  # inches a method


def leaderboard_figure(
    rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], panels: Mapping[str, tuple[str, ...]]
) -> Figure:
    """Draw the scores of every method: a line a method, a marker a world, one panel below the other.

    Parameters
    ----------
    rows : sequence of mapping
        `world`, `method`, `means` and `stds` by metric.
    titles : mapping
        Methods and their titles, from top to bottom.
    panels : mapping
        Axis label of each panel, and its metric, followed by those for methods that lack it.
    """
    worlds = list(dict.fromkeys(row["world"] for row in rows))
    shown = [method for method in titles if any(row["method"] == method for row in rows)]
    figure = Figure(figsize=(_WIDTH, len(panels) * (0.6 + _LINE * len(shown)) + 0.6), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for panel, (label, metrics) in zip(axes, panels.items(), strict=True):
        for place in range(1, len(shown), 2):
            panel.axhspan(place - 0.5, place + 0.5, color="0.95", lw=0)
        for number, (world, (color, marker)) in enumerate(zip(worlds, _STYLES, strict=False)):
            found = {row["method"]: row for row in rows if row["world"] == world}
            offset = 0.7 * ((number + 0.5) / len(worlds) - 0.5)
            points = []
            for place, method in enumerate(shown):
                row = found.get(method, {"means": {}, "stds": {}})
                known = [one for one in metrics if row["means"].get(one) is not None]
                if known:
                    points.append((row["means"][known[0]], place + offset, row["stds"].get(known[0]) or 0.0))
            if points:
                x, y, error = zip(*points, strict=True)
                panel.errorbar(x, y, xerr=error, fmt=marker, color=color, ms=4.5, lw=1, label=world)
        panel.set(ylim=(len(shown) - 0.5, -0.5), xlabel=label)
        panel.set_yticks(range(len(shown)), [fill(titles[one], 24) for one in shown])
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", color="0.85", lw=0.6)
        panel.set_axisbelow(True)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(3, len(names)), frameon=False)
    return figure
