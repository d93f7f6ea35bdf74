"""The figure of the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from truemorph.report.figures import STYLE


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
