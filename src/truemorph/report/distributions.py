"""How a column, above all the Sérsic index, is distributed among galaxies labelled smooth, disk, and relabelled.

Figure 3 of Medina-Rosales et al. (arXiv:2308.11007): relative cumulative curves of each label set. A label set is
better the fewer of its smooth galaxies have the light profile of a disk, a Sérsic index below about 3. What the figure
leaves out and this module adds: distances between the curves, with errors, and the floor that chance alone would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from truemorph.errors import InputError
from truemorph.report.cumulative import Cumulative, Distance, distance, share_above
from truemorph.report.style import STYLE, Style, plain_text

SERSIC_BOUNDARY = 3.0
PANELS = {
    "smooth": "smooth",
    "to_disk": "switched smooth → disk",
    "to_smooth": "switched disk → smooth",
    "disk": "disk",
}
# Panels of the figure, by what they show first.
_SHOWN = {"smooth": ("smooth",), "to_disk": ("to_disk", "to_smooth"), "disk": ("disk",)}
# Okabe & Ito's colours that STYLE leaves.
_MORE_STYLES: tuple[Style, ...] = (
    {"color": "#009E73", "marker": "P", "ls": "-."},
    {"color": "#CC79A7", "marker": "X", "ls": ":"},
    {"color": "#E69F00", "marker": "*", "ls": "-"},
    {"color": "#56B4E9", "marker": "<", "ls": "--"},
)


def memberships(crowd: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Weight of each galaxy in the samples of Figure 3.

    Probabilities of two label sets are multiplied, as if each were drawn on its own.

    Parameters
    ----------
    crowd, labels : array, shape (N,)
        p(disk) of the original labels and of another set; NaN where unknown.

    Returns
    -------
    dict of array, shape (N,)
        "smooth", "to_disk" (smooth for the crowd), "to_smooth", "disk".
    """
    smooth, disk = np.nan_to_num(1.0 - labels), np.nan_to_num(1.0 * labels)
    return {
        "smooth": smooth,
        "to_disk": np.nan_to_num(1.0 - crowd) * disk,
        "to_smooth": np.nan_to_num(1.0 * crowd) * smooth,
        "disk": disk,
    }


@dataclass(frozen=True)
class Sample:
    """One curve of the figure.

    Attributes
    ----------
    panel : str
        "smooth", "to_disk", "to_smooth" or "disk".
    labels : str
        Name of the label set.
    curve : Cumulative
    above : (float, float), optional
        Fraction above the boundary, where there is one, and its error.
    distance : Distance, optional
        From the crowd's curve in the same panel: of relabelled galaxies, from its original disks (its original smooth
        ones for disk → smooth). None for the crowd.
    """

    panel: str
    labels: str
    curve: Cumulative
    above: tuple[float, float] | None
    distance: Distance | None


@dataclass(frozen=True)
class Distributions:
    """A column in the samples of Figure 3.

    Attributes
    ----------
    column : str
    boundary : float, optional
    crowd_name : str
        Name of the original labels.
    samples : tuple of Sample
    n_galaxies, n_dropped : int
        Galaxies, and those of them whose value is not finite.
    """

    column: str
    boundary: float | None
    crowd_name: str
    samples: tuple[Sample, ...]
    n_galaxies: int
    n_dropped: int

    def of(self, panel: str) -> Iterator[Sample]:
        """Samples of one panel, the crowd's first."""
        return (sample for sample in self.samples if sample.panel == panel)

    def curves(self, points: int = 400) -> pl.DataFrame:
        """Data behind the figure: `panel`, `labels`, `value`, `share`, at most so many points a curve."""
        parts = []
        for sample in self.samples:
            values, shares = sample.curve.thinned(points)
            parts.append(
                pl.DataFrame({"value": values, "share": shares}).select(
                    pl.lit(sample.panel).alias("panel"), pl.lit(sample.labels).alias("labels"), "value", "share"
                )
            )
        return pl.concat(parts)

    def table(self) -> pl.DataFrame:
        """One row a curve: numbers of galaxies, share above the boundary, and distances from the crowd's curve."""
        rows = []
        for sample in self.samples:
            far, above = sample.distance, sample.above
            rows.append(
                {
                    "panel": sample.panel,
                    "labels": sample.labels,
                    "n": sample.curve.n,
                    "total": sample.curve.total,
                    "effective_n": sample.curve.effective_n,
                    "n_dropped": sample.curve.n_dropped,
                    "share_above": above[0] if above else None,
                    "share_above_stderr": above[1] if above else None,
                    **{name: getattr(far, name) if far else None for name in _DISTANCES},
                }
            )
        return pl.DataFrame(rows, schema=_TABLE)


_DISTANCES = ("ks", "ks_stderr", "ks_floor", "p_value", "area", "area_stderr", "area_floor")
_TABLE = {
    "panel": pl.String,
    "labels": pl.String,
    "n": pl.Int64,
    "total": pl.Float64,
    "effective_n": pl.Float64,
    "n_dropped": pl.Int64,
    "share_above": pl.Float64,
    "share_above_stderr": pl.Float64,
    **dict.fromkeys(_DISTANCES, pl.Float64),
}


def compare_distributions(
    values: np.ndarray,
    crowd: np.ndarray,
    label_sets: Mapping[str, np.ndarray],
    *,
    column: str = "sersic_n",
    boundary: float | None = SERSIC_BOUNDARY,
    crowd_name: str = "crowd",
    bootstrap: int = 1000,
    seed: int = 0,
) -> Distributions:
    """A column among smooth, disk and relabelled galaxies of several label sets (Figure 3).

    Parameters
    ----------
    values : array, shape (N,)
        The column; galaxies where it is not finite are left out and counted.
    crowd : array, shape (N,)
        The original labels: 0 smooth, 1 disk; or p(disk), by which a galaxy weighs in both; NaN where unknown.
    label_sets : dict of array, shape (N,)
        Other labels of the same galaxies, by name.
    column : str
        Its name, for table and figure.
    boundary : float, optional
        Smooth galaxies mostly lie above it; 3 for the Sérsic index, None for columns without one.
    crowd_name : str
        Name of the original labels.
    bootstrap, seed : int
        As for `distance`.

    Returns
    -------
    Distributions
        Without samples that hold less than one galaxy.

    Raises
    ------
    InputError
        If no galaxy has a label and a value.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 2, 1000)
    >>> sersic = np.where(truth == 1, rng.lognormal(0.2, 0.3, 1000), rng.lognormal(1.3, 0.3, 1000))
    >>> crowd = np.where(rng.random(1000) < 0.3, 0, truth)  # disks labelled smooth
    >>> found = compare_distributions(sersic, crowd, {"debiased": truth}, bootstrap=100)
    >>> found.table().select("panel", "labels", "n").rows()[:2]
    [('smooth', 'crowd', 618), ('smooth', 'debiased', 463)]
    """
    finite = np.isfinite(values)
    smooth, disk = np.nan_to_num(1.0 - crowd), np.nan_to_num(1.0 * crowd)
    # Nothing of the crowd's own switched; its original disks, or smooth galaxies, are drawn for comparison.
    reference = {"smooth": smooth, "to_disk": disk, "to_smooth": smooth, "disk": disk}
    others = {name: memberships(crowd, one) for name, one in label_sets.items()}
    samples = []
    for panel in PANELS:
        present = {name: one[panel] for name, one in others.items() if one[panel][finite].sum() >= 1}
        beside = reference[panel] if reference[panel][finite].sum() >= 1 else None
        if beside is not None and (present or panel in ("smooth", "disk")):
            samples.append(_summed(panel, crowd_name, values, beside, boundary, None))
        for name, weight in present.items():
            far = None if beside is None else distance(values, weight, beside, bootstrap=bootstrap, seed=seed)
            samples.append(_summed(panel, name, values, weight, boundary, far))
    if not samples:
        raise InputError(f"no galaxy has both a label and a finite {column}")
    return Distributions(column, boundary, crowd_name, tuple(samples), values.size, int(values.size - finite.sum()))


def _summed(
    panel: str, labels: str, values: np.ndarray, weight: np.ndarray, boundary: float | None, far: Distance | None
) -> Sample:
    above = None if boundary is None else share_above(values, boundary, weight)
    return Sample(panel, labels, Cumulative.of(values, weight), above, far)


def cumulative_figure(found: Distributions, styles: Mapping[str, Style] | None = None) -> Figure:
    """Figure 3: relative cumulative frequency among smooth, switched and disk galaxies, one line a label set.

    Parameters
    ----------
    found : Distributions
    styles : dict of Style, optional
        By label set; those of `truemorph.report.style`, and others, by default.
    """
    label = "Sérsic index $n$" if found.column == "sersic_n" else plain_text(found.column)
    names = dict.fromkeys(sample.labels for sample in found.samples)
    more = cycle(_MORE_STYLES)
    given = {**STYLE, **(styles or {})}
    chosen = {name: given[name] if name in given else next(more) for name in names}
    # Legends stand below, where no curve is: the figure grows with them.
    entries = max(sum(sample.panel in shown for sample in found.samples) for shown in _SHOWN.values())
    figure = Figure(figsize=(11, 3.9 + 0.3 * entries), layout="constrained")
    below = ScaledTranslation(0, -0.55, figure.dpi_scale_trans)
    panels = figure.subplots(1, len(_SHOWN), sharex=True, sharey=True)
    for letter, panel, axes in zip("abc", _SHOWN, panels, strict=True):
        for sample in found.of(panel):
            own = sample.labels == found.crowd_name
            what = f"{sample.labels}: its disks" if own and panel == "to_disk" else sample.labels
            _draw(axes, sample, what, found.boundary, chosen[sample.labels]["ls"], chosen[sample.labels]["color"], 1.6)
        for sample in found.of("to_smooth") if panel == "to_disk" else ():
            if sample.labels != found.crowd_name:
                what = f"{sample.labels}: disk → smooth"
                _draw(axes, sample, what, found.boundary, ":", chosen[sample.labels]["color"], 1.0)
        axes.set_title(f"({letter}) {PANELS[panel]}", fontsize=10)
        axes.set_xlabel(label)
        if axes.lines:
            place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": axes.transAxes + below}
            axes.legend(frameon=False, fontsize=8, borderaxespad=0, borderpad=0, **place)
        else:
            axes.text(0.5, 0.5, "no galaxy", transform=axes.transAxes, ha="center", color="0.4")
        if found.boundary is not None:
            axes.axvline(found.boundary, color="0.6", lw=0.8, ls=":")
    edges = np.array([sample.curve.quantile(np.array([0.002, 0.99])) for sample in found.samples])
    low, high = edges[:, 0].min(), edges[:, 1].max()
    panels[0].set(ylabel="relative cumulative frequency", ylim=(0, 1.01))
    if low < high:
        panels[0].set(xlim=(low, high))
    return figure


def _draw(axes: Any, sample: Sample, what: str, boundary: float | None, line: str, colour: str, width: float) -> None:
    text = f"{plain_text(what)}, n = {sample.curve.total:,.0f}"
    if sample.above is not None:
        text += f", {100 * sample.above[0]:.1f} ± {100 * sample.above[1]:.1f} % above {boundary:g}"
    if sample.distance is not None:
        far = sample.distance
        text += f"\nKS distance {far.ks:.3f} ± {far.ks_stderr:.3f} (by chance {far.ks_floor:.3f})"
    on_top = 3 if sample.distance is None else 2  # the crowd's curve, on which others may lie
    axes.step(*sample.curve.thinned(2000), line, where="post", color=colour, lw=width, label=text, zorder=on_top)
