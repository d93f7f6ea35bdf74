"""Sérsic indices of galaxies of each label, and of relabelled ones (Figure 3 of arXiv:2308.11007).

A set of smooth and disk labels is better the fewer of its smooth galaxies have the light profile of a disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from truemorph.bias.binning import proportion_error
from truemorph.plotting import plain_text
from truemorph.report.figures import Style, new_panel
from truemorph.tables import left_join

# Sérsic index above which galaxies are mostly smooth.
SERSIC_BOUNDARY = 3.0
_POINTS = 400
# Panels of Figure 3, and what they are called.
PANELS = {"smooth": "smooth", "to_disk": "switched smooth → disk", "disk": "disk"}


def cumulative(values: np.ndarray) -> dict[str, np.ndarray]:
    """Distinct values of a sample, ascending, and the fraction at or below each (`value`, `share`).

    Of more than 400 values, so many evenly spaced ones, the first and the last among them.
    """
    distinct, counts = np.unique(values, return_counts=True)
    share = np.cumsum(counts) / values.size
    chosen = np.unique(np.linspace(0, distinct.size - 1, _POINTS).round().astype(int))
    return {"value": distinct[chosen], "share": share[chosen]}


def share_above(index: np.ndarray) -> tuple[float, float]:
    """Fraction of Sérsic indices above the boundary, and its error."""
    share = float(np.mean(index > SERSIC_BOUNDARY))
    return share, proportion_error(share, index.size)


@dataclass(frozen=True)
class Distributions:
    """Sérsic indices in the samples of Figure 3."""

    observed_name: str  # of the original labels
    # One row a curve: `panel` (of `PANELS`), `labels`, `n` (galaxies with an index), and `share_above` the boundary
    # with its error.
    table: pl.DataFrame
    curves: pl.DataFrame  # `panel`, `labels`, and `value` and `share` of `cumulative`
    n_galaxies: int
    n_dropped: int  # galaxies without an index

    def data(self) -> pl.DataFrame:
        """Data behind the figure: each curve with its row of the table."""
        return left_join(self.curves, self.table, ["panel", "labels"])


def compare_distributions(values: np.ndarray, label_sets: Mapping[str, np.ndarray]) -> Distributions:
    """Sérsic indices among galaxies of each label, and relabelled ones, of several label sets (Figure 3).

    `label_sets` are labels of the same galaxies, 0 or 1; NaN where unknown. The first are the original ones.
    """
    finite = np.isfinite(values)
    observed_name, observed = next(iter(label_sets.items()))
    rows, curves = [], []
    for panel, (name, labels) in product(PANELS, label_sets.items()):
        members = finite & (labels == (0 if panel == "smooth" else 1))
        # Of the original labels none switched; disks are drawn for comparison.
        if panel == "to_disk" and name != observed_name:
            members &= observed == 0
        index = values[members]
        if index.size:
            about = {"panel": panel, "labels": name}
            curves.append(pl.DataFrame(about | cumulative(index)))
            share, error = share_above(index)
            rows.append(about | {"n": index.size, "share_above": share, "share_above_stderr": error})
    table = pl.DataFrame(rows)
    return Distributions(observed_name, table, pl.concat(curves), values.size, int(np.sum(~finite)))


def cumulative_panels(compared: Distributions, styles: Mapping[str, Style]) -> list[Figure]:
    """Figure 3, panels a, b and c: relative cumulative frequency of smooth galaxies, switched ones, and disks.

    One line a label set, with its style.
    """
    # Legends stand below, where no curve is: the figures grow with them.
    entries = max(compared.table["panel"].value_counts()["count"])
    low = compared.curves.filter(pl.col("share") >= 0.002)["value"].min()
    ends = compared.curves.filter(pl.col("share") >= 0.99).group_by("panel", "labels").agg(pl.col("value").min())
    figures = []
    for letter, (panel, title) in zip("abc", PANELS.items(), strict=True):
        axes = new_panel(4.2, 3.9 + 0.3 * entries)
        for row in compared.table.filter(panel=panel).iter_rows(named=True):
            own, style = row["labels"] == compared.observed_name, styles[row["labels"]]
            what = row["labels"] + (": its disk" if own and panel == "to_disk" else "")
            curve = compared.curves.filter(panel=panel, labels=row["labels"])
            axes.step(
                curve["value"], curve["share"], style["ls"], where="post", color=style["color"], lw=1.6,
                label=_legend(row, what),
                zorder=3 if own else 2,  # the original labels' curve, on which others may lie
            )  # fmt: skip
        axes.set_title(f"({letter}) {title}", fontsize=10)
        axes.set(xlabel="Sérsic index $n$", ylabel="relative cumulative frequency", ylim=(0, 1.01))
        axes.set(xlim=(low, ends["value"].max()))
        below = axes.transAxes + ScaledTranslation(0, -0.55, axes.figure.dpi_scale_trans)
        axes.legend(
            loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0, borderpad=0,
            frameon=False, fontsize=8,
        )  # fmt: skip
        axes.axvline(SERSIC_BOUNDARY, color="0.6", lw=0.8, ls=":")
        figures.append(axes.figure)
    return figures


def _legend(row: dict[str, Any], what: str) -> str:
    above = f"{100 * row['share_above']:.1f} ± {100 * row['share_above_stderr']:.1f} % above {SERSIC_BOUNDARY:g}"
    return f"{plain_text(what)}, n = {row['n']:,}, {above}"
