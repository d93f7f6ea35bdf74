"""How a column, above all the Sérsic index, is distributed among galaxies of each label, and relabelled ones.

Figure 3 of Medina-Rosales et al. (arXiv:2308.11007), with distances between the curves, their errors, and the floor
that chance alone gives. A set of smooth and disk labels is better the fewer of its smooth galaxies have the light
profile of a disk.

Two samples of the same galaxies mostly share members, and what they share doesn't vary between them. Comparisons
therefore resample galaxies, each with its weight in either sample; the spread of the resampled difference around the
measured one is what chance does where there is none (Præstgaard 1995, Scand. J. Stat. 22, 305).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from truemorph.bias.binning import proportion_error
from truemorph.errors import InputError
from truemorph.plotting import plain_text
from truemorph.questions import SMOOTH_OR_DISK, slug
from truemorph.report.figures import Style, in_words, new_panel

# Sérsic index above which galaxies are mostly smooth.
SERSIC_BOUNDARY = 3.0
_SERSIC = "sersic_n"
_RESAMPLES = 300
_POINTS = 400
_DISTANCE = ("ks", "ks_stderr", "ks_floor")
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def panels_of(classes: Sequence[str]) -> dict[str, str]:
    """Return the panels of Figure 3 and what they are called: first class, changed to the second, second class."""
    first, second = classes
    return {slug(first): first, f"to_{slug(second)}": f"switched {first} → {second}", slug(second): second}


def cumulative(values: np.ndarray, weights: np.ndarray) -> pl.DataFrame:
    """Distinct finite values of a sample, ascending, and the weighted fraction at or below each (`value`, `share`).

    Of more than 400 values, so many evenly spaced ones, the first and the last among them.
    """
    kept = (weights > 0) & np.isfinite(values)
    distinct, which = np.unique(values[kept], return_inverse=True)
    share = np.cumsum(np.bincount(which, weights[kept]))
    chosen = np.unique(np.linspace(0, distinct.size - 1, _POINTS).round().astype(np.int64))
    return pl.DataFrame({"value": distinct[chosen], "share": share[chosen] / share[-1]})


def distance(
    values: np.ndarray, in_a: np.ndarray, in_b: np.ndarray, bootstrap: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Kolmogorov-Smirnov distance of two samples of the same galaxies, which may share members; arrays of shape (N,).

    `in_a` and `in_b` are weights of each galaxy in either sample: 0 or 1, or a probability. Values that are not finite
    are left out. `ks` is the largest difference between the cumulative curves, `ks_stderr` its error by the bootstrap,
    and `ks_floor` its mean where there is no difference, which is not 0; without resamples these are NaN.
    """
    kept = ((in_a > 0) | (in_b > 0)) & np.isfinite(values)
    order = np.argsort(values[kept], kind="stable")
    pooled, a, b = values[kept][order], in_a[kept][order], in_b[kept][order]
    last = np.flatnonzero(np.append(np.diff(pooled) > 0, True))  # of equal values: there the curves have a value

    def difference(counts: np.ndarray | float = 1.0) -> np.ndarray:
        first, second = np.cumsum(a * counts), np.cumsum(b * counts)
        return (first / first[-1] - second / second[-1])[last]

    measured, rng, n = difference(), np.random.default_rng(seed), pooled.size
    resampled, chance = [], []
    for _ in range(bootstrap):
        # Only how often each galaxy was drawn matters, so nothing is sorted again.
        counts = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        if counts @ a > 0 and counts @ b > 0:  # else, of a handful of galaxies, none was drawn
            drawn = difference(counts)
            resampled.append(np.abs(drawn).max())
            chance.append(np.abs(drawn - measured).max())
    numbers = [np.abs(measured).max(), *((np.std(resampled), np.mean(chance)) if chance else (np.nan, np.nan))]
    return dict(zip(_DISTANCE, map(float, numbers), strict=True))


def share_above(values: np.ndarray, boundary: float, weights: np.ndarray) -> tuple[float, float]:
    """Weighted fraction of the finite values above a boundary, and its error, of (Σ w)² / Σ w² galaxies."""
    kept = np.isfinite(values) & (weights > 0)
    used = weights[kept]
    share = float(np.average(values[kept] > boundary, weights=used))
    return share, float(proportion_error(share, used.sum() ** 2 / np.square(used).sum()))


@dataclass(frozen=True)
class Distributions:
    """A column in the samples of Figure 3."""

    column: str
    boundary: float | None
    observed_name: str  # of the original labels
    classes: tuple[str, str]
    # One row a curve: `panel` (of `panels_of`), `labels`, `n` (galaxies of positive weight with a finite value),
    # `total` (sum of weights: the number expected where weights are probabilities), `share_above` the boundary, where
    # there is one, and `share_above_stderr`, and the distance from the curve of the original labels in the same panel;
    # of relabelled galaxies, from that of the original ones of the second class.
    table: pl.DataFrame
    curves: pl.DataFrame  # `panel`, `labels`, and `value` and `share` of `cumulative`
    n_galaxies: int
    n_dropped: int  # galaxies whose value is not finite

    def data(self) -> pl.DataFrame:
        """Data behind the figure: each curve with its row of the table."""
        return self.curves.join(self.table, on=["panel", "labels"], how="left", maintain_order="left")


def compare_distributions(
    values: np.ndarray,
    observed: np.ndarray,
    label_sets: Mapping[str, np.ndarray],
    *,
    column: str = _SERSIC,
    classes: tuple[str, str] = SMOOTH_OR_DISK,
    observed_name: str = "observed",
    bootstrap: int = 1000,
    seed: int = 0,
) -> Distributions:
    """A column among galaxies of each label, and relabelled ones, of several label sets (Figure 3).

    `observed` and `label_sets` are the original and other labels of the same galaxies: 0, 1, or the probability of
    the second class, by which a galaxy weighs in both; NaN where unknown. Samples of less than one galaxy are left out.
    """
    finite = np.isfinite(values)
    boundary = SERSIC_BOUNDARY if column == _SERSIC and classes == SMOOTH_OR_DISK else None
    first, changed, second = panels = tuple(panels_of(classes))
    before, own = np.nan_to_num(1.0 - observed), np.nan_to_num(1.0 * observed)
    # Of the original labels none switched; those of the second class are drawn for comparison.
    weights = {observed_name: {first: before, changed: own, second: own}}
    for name, label_set in label_sets.items():
        after = np.nan_to_num(1.0 * label_set)
        # Probabilities of two label sets are multiplied, as if each were drawn on its own.
        weights[name] = {first: np.nan_to_num(1.0 - label_set), changed: before * after, second: after}
    rows, curves = [], []
    for panel in panels:
        present = {name: weight[panel] for name, weight in weights.items() if weight[panel][finite].sum() >= 1}
        if panel == changed and not present.keys() - {observed_name}:
            continue
        beside = present.get(observed_name)
        for name, weight in present.items():
            where = pl.lit(panel).alias("panel"), pl.lit(name).alias("labels")
            curves.append(cumulative(values, weight).select(*where, pl.all()))
            kept = weight[finite & (weight > 0)]
            row = {"panel": panel, "labels": name, "n": kept.size, "total": float(kept.sum())}
            if boundary is not None:
                row["share_above"], row["share_above_stderr"] = share_above(values, boundary, weight)
            if beside is not None and name != observed_name:
                row |= distance(values, weight, beside, bootstrap, seed)
            rows.append(row)
    if not rows:
        raise InputError(f"no galaxy has both a label and a finite {column}")
    kinds = {"panel": pl.String, "labels": pl.String, "n": pl.Int64}
    kinds |= dict.fromkeys(("total", "share_above", "share_above_stderr", *_DISTANCE), pl.Float64)
    table = pl.DataFrame(rows, schema=kinds)
    dropped = int(values.size - finite.sum())
    return Distributions(column, boundary, observed_name, classes, table, pl.concat(curves), values.size, dropped)


def cumulative_panels(compared: Distributions, styles: Mapping[str, Style], label: str = "") -> list[Figure]:
    """Figure 3, panels a, b and c: relative cumulative frequency of the first class, switched galaxies, and the second.

    One line a label set, with its style. The axis has the given label, by default the column in words.
    """
    # Legends stand below, where no curve is: the figures grow with them.
    entries = max(compared.table["panel"].value_counts()["count"])
    low = compared.curves.filter(pl.col("share") >= 0.002)["value"].min()
    ends = compared.curves.filter(pl.col("share") >= 0.99).group_by("panel", "labels").agg(pl.col("value").min())
    high = ends["value"].max()
    figures, panels = [], panels_of(compared.classes)
    _, changed, second = panels
    for letter, panel in zip("abc", panels, strict=True):
        axes = new_panel(4.2, 3.9 + 0.3 * entries)
        below = ScaledTranslation(0, -0.55, axes.figure.dpi_scale_trans)
        for row in compared.table.filter(pl.col("panel") == panel).iter_rows(named=True):
            own = row["labels"] == compared.observed_name
            what = row["labels"] + (f": its {panels[second]}" if own and panel == changed else "")
            style = styles[row["labels"]]
            curve = compared.curves.filter(panel=panel, labels=row["labels"])
            axes.step(
                curve["value"], curve["share"], style["ls"], where="post", color=style["color"], lw=1.6,
                label=_legend(row, what, compared.boundary),
                zorder=3 if own else 2,  # the original labels' curve, on which others may lie
            )  # fmt: skip
        axes.set_title(f"({letter}) {panels[panel]}", fontsize=10)
        axes.set(xlabel=label or plain_text(in_words([compared.column])), ylabel="relative cumulative frequency")
        axes.set_ylim(0, 1.01)
        if axes.lines:
            place: Any = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": axes.transAxes + below}
            axes.legend(frameon=False, fontsize=8, borderaxespad=0, borderpad=0, **place)
        else:
            axes.text(0.5, 0.5, "no galaxy", transform=axes.transAxes, ha="center", color="0.4")
        if compared.boundary is not None:
            axes.axvline(compared.boundary, color="0.6", lw=0.8, ls=":")
        if low != high:
            axes.set_xlim(low, high)
        figures.append(axes.figure)
    return figures


def _legend(row: dict[str, Any], what: str, boundary: float | None) -> str:
    text = f"{plain_text(what)}, n = {row['total']:,.0f}"
    if row["share_above"] is not None:
        text += f", {100 * row['share_above']:.1f} ± {100 * row['share_above_stderr']:.1f} % above {boundary:g}"
    if row["ks"] is not None:
        text += f"\nKS distance {row['ks']:.3f} ± {row['ks_stderr']:.3f} (by chance {row['ks_floor']:.3f})"
    return text
