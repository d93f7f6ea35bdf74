"""How a column, above all the Sérsic index, is distributed among galaxies labelled smooth, disk, and relabelled.

Figure 3 of Medina-Rosales et al. (arXiv:2308.11007): relative cumulative curves of each label set. A label set is
better the fewer of its smooth galaxies have the light profile of a disk, a Sérsic index below about 3. What the figure
leaves out and this module adds: distances between the curves, with errors, and the floor that chance alone would give.

Two samples of the same galaxies mostly share members, and what they share doesn't vary between them. Comparisons
therefore resample galaxies, each with its weight in either sample; the spread of the resampled difference around the
measured one is what chance does where there is none (Præstgaard 1995, Scand. J. Stat. 22, 305).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from truemorph.bias.binning import proportion_error
from truemorph.catalogs.catalogue import image_folder
from truemorph.catalogs.physical import FWHM_PER_SIGMA
from truemorph.errors import InputError
from truemorph.explain.catalogue import RADIUS, with_geometry
from truemorph.findings import Finding
from truemorph.plotting import plain_text
from truemorph.report.evidence import Evidence
from truemorph.report.figures import Style, axis_label, in_words, styles_of
from truemorph.report.page import Illustration
from truemorph.tables import numeric_columns

if TYPE_CHECKING:
    from truemorph.report.writing import ReportOptions

SERSIC_BOUNDARY = 3.0
_SERSIC = "sersic_n"
_RESAMPLES = 300
# Galaxies that a distribution needs.
_FEWEST = 10
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")
PANELS = {
    "smooth": "smooth",
    "to_disk": "switched smooth → disk",
    "to_smooth": "switched disk → smooth",
    "disk": "disk",
}
# Panels of the figure, by what they show first.
_SHOWN = {"smooth": ("smooth",), "to_disk": ("to_disk", "to_smooth"), "disk": ("disk",)}


def cumulative(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct finite values of a sample, ascending, and the weighted fraction at or below each.

    Examples
    --------
    >>> cumulative(np.array([1.0, 4.0, 1.0, np.nan]), np.ones(4))[1].round(3)
    array([0.667, 1.   ])
    """
    kept = (weights > 0) & np.isfinite(values)
    distinct, which = np.unique(values[kept], return_inverse=True)
    share = np.cumsum(np.bincount(which, weights[kept]))
    return distinct, share / share[-1]


@dataclass(frozen=True)
class Distance:
    """Distances between the cumulative curves of two samples, with their errors and what chance alone gives.

    Attributes
    ----------
    ks, ks_stderr : float
        Kolmogorov-Smirnov: the largest difference between the curves; bootstrap standard error.
    ks_floor : float
        Its mean where there is no difference; not 0.
    p_value : float
        Chance of so large a `ks` where there is no difference, by the bootstrap: at least 1 / (resamples + 1).
    area, area_stderr, area_floor : float
        The same for the area between the curves (Wasserstein's distance), in the unit of the values.
    """

    ks: float
    ks_stderr: float
    ks_floor: float
    p_value: float
    area: float
    area_stderr: float
    area_floor: float


def distance(
    values: np.ndarray, in_a: np.ndarray, in_b: np.ndarray, *, bootstrap: int = 1000, seed: int = 0
) -> Distance:
    """Distances between two samples of the same galaxies, which may share members.

    Parameters
    ----------
    values : array, shape (N,)
        Those that are not finite are left out.
    in_a, in_b : array, shape (N,)
        Weight of each galaxy in either sample: 0 or 1, or a probability.
    bootstrap : int
        Resamples of galaxies for errors, floors and p-value; 0 for none (they are NaN then).
    seed : int

    Raises
    ------
    InputError
        If a sample is empty.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> first = np.arange(1000) < 500
    >>> found = distance(rng.normal(np.where(first, 0, 0.5)), first * 1.0, ~first * 1.0, bootstrap=200)
    >>> found.ks > 3 * found.ks_floor, found.p_value < 0.01
    (True, True)
    """
    kept = ((in_a > 0) | (in_b > 0)) & np.isfinite(values)
    if not (in_a[kept].any() and in_b[kept].any()):
        raise InputError("a sample has no galaxy with a finite value")
    order = np.argsort(values[kept], kind="stable")
    pooled, a, b = values[kept][order], in_a[kept][order], in_b[kept][order]
    gaps = np.diff(pooled, append=pooled[-1])
    last = np.flatnonzero(np.append(gaps[:-1] > 0, True))  # of equal values: there the curves have a value

    def difference(counts: np.ndarray | float = 1.0) -> np.ndarray:
        first, second = np.cumsum(a * counts), np.cumsum(b * counts)
        return first / first[-1] - second / second[-1]

    def distances(found: np.ndarray) -> tuple[float, float]:
        apart = np.abs(found)
        return float(apart[last].max()), float(apart @ gaps)

    measured, rng, n = difference(), np.random.default_rng(seed), pooled.size
    resampled, chance = [], []
    for _ in range(bootstrap):
        # Only how often each galaxy was drawn matters, so nothing is sorted again.
        counts = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        if counts @ a > 0 and counts @ b > 0:  # else, of a handful of galaxies, none was drawn
            drawn = difference(counts)
            resampled.append(distances(drawn))
            chance.append(distances(drawn - measured))
    ks, area = distances(measured)
    if not chance:
        nan = float("nan")
        return Distance(ks, nan, nan, nan, area, nan, nan)
    (ks_stderr, area_stderr), (ks_floor, area_floor) = np.std(resampled, axis=0), np.mean(chance, axis=0)
    p_value = (1 + np.count_nonzero(np.array(chance)[:, 0] >= ks)) / (len(chance) + 1)
    return Distance(ks, float(ks_stderr), float(ks_floor), float(p_value), area, float(area_stderr), float(area_floor))


def share_above(values: np.ndarray, boundary: float, weights: np.ndarray) -> tuple[float, float]:
    """Weighted fraction of the finite values above a boundary, and its `proportion_error`.

    Examples
    --------
    >>> share_above(np.array([1.0, 2.0, 4.0, 5.0]), 3.0, np.ones(4))[0]
    0.5
    """
    kept = np.isfinite(values) & (weights > 0)
    share = float(np.average(values[kept] > boundary, weights=weights[kept]))
    return share, float(proportion_error(share, _effective(weights[kept])))


def _effective(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / np.square(weights).sum())


@dataclass(frozen=True)
class Sample:
    """One curve of the figure.

    Attributes
    ----------
    panel : str
        "smooth", "to_disk", "to_smooth" or "disk".
    labels : str
        Name of the label set.
    values, share : array, shape (M,)
        The curve (see `cumulative`).
    n, n_dropped : int
        Galaxies of positive weight with a finite value, and without.
    total : float
        Sum of weights: the number expected where weights are probabilities.
    effective_n : float
        (Σ w)² / Σ w²: as many galaxies of equal weight would have the same error.
    above : (float, float), optional
        Fraction above the boundary, where there is one, and its error.
    distance : Distance, optional
        From the curve of the original labels in the same panel; of relabelled galaxies, from that of the original
        disks (disk → smooth: original smooth galaxies). None for the original labels.
    """

    panel: str
    labels: str
    values: np.ndarray
    share: np.ndarray
    n: int
    n_dropped: int
    total: float
    effective_n: float
    above: tuple[float, float] | None
    distance: Distance | None

    def thinned(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """Values and fractions of at most so many points, evenly spaced in rank; the first and the last among them."""
        chosen = np.unique(np.round(np.linspace(0, self.values.size - 1, points)).astype(np.int64))
        return self.values[chosen], self.share[chosen]


@dataclass(frozen=True)
class Distributions:
    """A column in the samples of Figure 3.

    Attributes
    ----------
    column : str
    boundary : float, optional
    observed_name : str
        Name of the original labels.
    samples : tuple of Sample
    n_galaxies, n_dropped : int
        Galaxies, and those of them whose value is not finite.
    """

    column: str
    boundary: float | None
    observed_name: str
    samples: tuple[Sample, ...]
    n_galaxies: int
    n_dropped: int

    def curves(self, points: int = 400) -> pl.DataFrame:
        """Data behind the figure: `panel`, `labels`, `value`, `share`, at most so many points a curve."""
        parts = []
        for sample in self.samples:
            values, shares = sample.thinned(points)
            about = {"panel": sample.panel, "labels": sample.labels}
            parts.append(pl.DataFrame(about | {"value": values, "share": shares}))
        return pl.concat(parts)

    def table(self) -> pl.DataFrame:
        """One row a curve: numbers of galaxies, fraction above the boundary, and distances from the original's."""
        rows = []
        for sample in self.samples:
            row: dict[str, Any] = {"panel": sample.panel, "labels": sample.labels}
            row |= {name: getattr(sample, name) for name in ("n", "total", "effective_n", "n_dropped")}
            row["share_above"], row["share_above_stderr"] = sample.above or (None, None)
            rows.append(row | {name: getattr(sample.distance, name, None) for name in _DISTANCES})
        numbers = dict.fromkeys(("share_above", "share_above_stderr", *_DISTANCES), pl.Float64)
        return pl.DataFrame(rows, schema_overrides=numbers)


_DISTANCES = tuple(Distance.__dataclass_fields__)


def compare_distributions(
    values: np.ndarray,
    observed: np.ndarray,
    label_sets: Mapping[str, np.ndarray],
    *,
    column: str = "sersic_n",
    boundary: float | None = SERSIC_BOUNDARY,
    observed_name: str = "observed",
    bootstrap: int = 1000,
    seed: int = 0,
) -> Distributions:
    """A column among smooth, disk and relabelled galaxies of several label sets (Figure 3).

    Parameters
    ----------
    values : array, shape (N,)
        The column; galaxies where it is not finite are left out and counted.
    observed : array, shape (N,)
        The original labels: 0 smooth, 1 disk; or p(disk), by which a galaxy weighs in both; NaN where unknown.
    label_sets : dict of array, shape (N,)
        Other labels of the same galaxies, by name.
    column : str
        Its name, for table and figure.
    boundary : float, optional
        Smooth galaxies mostly lie above it; 3 for the Sérsic index, None for columns without one.
    observed_name : str
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
    >>> observed = np.where(rng.random(1000) < 0.3, 0, truth)  # disks labelled smooth
    >>> found = compare_distributions(sersic, observed, {"debiased": truth}, bootstrap=100)
    >>> found.table().select("panel", "labels", "n").rows()[:2]
    [('smooth', 'observed', 618), ('smooth', 'debiased', 463)]
    """
    finite = np.isfinite(values)
    smooth, disk = np.nan_to_num(1.0 - observed), np.nan_to_num(1.0 * observed)
    # Of the original labels none switched; its original disks, or smooth galaxies, are drawn for comparison.
    reference = {"smooth": smooth, "to_disk": disk, "to_smooth": smooth, "disk": disk}
    others = {}
    for name, one in label_sets.items():
        to_smooth, to_disk = np.nan_to_num(1.0 - one), np.nan_to_num(1.0 * one)
        # Probabilities of two label sets are multiplied, as if each were drawn on its own.
        others[name] = dict(zip(PANELS, (to_smooth, smooth * to_disk, disk * to_smooth, to_disk), strict=True))
    samples: list[Sample] = []

    def add(panel: str, labels: str, weight: np.ndarray, far: Distance | None) -> None:
        kept = weight[finite & (weight > 0)]
        above = None if boundary is None else share_above(values, boundary, weight)
        samples.append(
            Sample(
                panel, labels, *cumulative(values, weight), kept.size, int((weight[~finite] > 0).sum()),
                float(kept.sum()), _effective(kept), above, far,
            )
        )  # fmt: skip

    for panel in PANELS:
        present = {name: one[panel] for name, one in others.items() if one[panel][finite].sum() >= 1}
        beside = reference[panel] if reference[panel][finite].sum() >= 1 else None
        if beside is not None and (present or panel in ("smooth", "disk")):
            add(panel, observed_name, beside, None)
        for name, weight in present.items():
            far = None if beside is None else distance(values, weight, beside, bootstrap=bootstrap, seed=seed)
            add(panel, name, weight, far)
    if not samples:
        raise InputError(f"no galaxy has both a label and a finite {column}")
    return Distributions(column, boundary, observed_name, tuple(samples), values.size, int(values.size - finite.sum()))


def cumulative_panels(found: Distributions, styles: Mapping[str, Style], label: str = "") -> list[Figure]:
    """Figure 3: relative cumulative frequency among smooth, switched and disk galaxies, one line a label set.

    Parameters
    ----------
    found : Distributions
    styles : dict of Style
        By label set.
    label : str
        Of the axis, with the unit; default the column in words.

    Returns
    -------
    list of Figure
        Panels a, b and c.
    """
    label = label or plain_text(in_words([found.column]))
    # Legends stand below, where no curve is: the figures grow with them.
    entries = max(sum(sample.panel in shown for sample in found.samples) for shown in _SHOWN.values())
    low, high = (
        np.array(
            [one.values[min(int(np.searchsorted(one.share, share)), one.values.size - 1)] for one in found.samples]
        )
        for share in (0.002, 0.99)
    )
    figures = []
    for letter, (panel, shown) in zip("abc", _SHOWN.items(), strict=True):
        figure = Figure(figsize=(4.2, 3.9 + 0.3 * entries), layout="constrained")
        axes = figure.subplots()
        below = ScaledTranslation(0, -0.55, figure.dpi_scale_trans)
        for sample in sorted((one for one in found.samples if one.panel in shown), key=lambda one: one.panel != panel):
            own, first = sample.labels == found.observed_name, sample.panel == panel
            if own and not first:
                continue
            what = sample.labels + (": its disks" if own and panel == "to_disk" else "")
            what += "" if first else ": disk → smooth"
            style = styles[sample.labels]
            axes.step(
                *sample.thinned(2000), style["ls"] if first else ":", where="post", color=style["color"],
                lw=1.6 if first else 1.0, label=_legend(sample, what, found.boundary),
                zorder=3 if own else 2,  # the original labels' curve, on which others may lie
            )  # fmt: skip
        axes.set_title(f"({letter}) {PANELS[panel]}", fontsize=10)
        axes.set(xlabel=label, ylabel="relative cumulative frequency", ylim=(0, 1.01))
        if axes.lines:
            place: Any = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": axes.transAxes + below}
            axes.legend(frameon=False, fontsize=8, borderaxespad=0, borderpad=0, **place)
        else:
            axes.text(0.5, 0.5, "no galaxy", transform=axes.transAxes, ha="center", color="0.4")
        if found.boundary is not None:
            axes.axvline(found.boundary, color="0.6", lw=0.8, ls=":")
        if low.min() < high.max():
            axes.set_xlim(low.min(), high.max())
        figures.append(figure)
    return figures


def _legend(sample: Sample, what: str, boundary: float | None) -> str:
    text = f"{plain_text(what)}, n = {sample.total:,.0f}"
    if sample.above is not None:
        text += f", {100 * sample.above[0]:.1f} ± {100 * sample.above[1]:.1f} % above {boundary:g}"
    if sample.distance is not None:
        far = sample.distance
        text += f"\nKS distance {far.ks:.3f} ± {far.ks_stderr:.3f} (by chance {far.ks_floor:.3f})"
    return text


def distributions(found: Evidence, options: ReportOptions) -> tuple[list[Illustration], list[Finding]]:
    """Columns among smooth, disk and relabelled galaxies: those asked for, the Sérsic index where there is one."""
    frame, findings, every = found.frame, [], []
    for name in options.distributions or ([_SERSIC] if _SERSIC in frame.columns and not options.sersic else []):
        try:
            values = numeric_columns(frame, [name], str(found.path))[:, 0]
            every.append(_distribution(found, values, name, name, options))
        except InputError as problem:
            if options.distributions:
                raise
            findings.append(
                Finding("column-not-compared", "note", f"Column {name} was not compared between classes: {problem}.")
            )
    if options.sersic:
        values, measured = _measured_sersic(found, options)
        if np.isfinite(values).sum() >= _FEWEST:
            every.append(_distribution(found, values, _SERSIC, "sersic_measured", options))
        findings.append(measured)
    return every, findings


def _distribution(
    evidence: Evidence, values: np.ndarray, column: str, name: str, options: ReportOptions
) -> Illustration:
    sets = {one.name: one.disk for one in evidence.sets if one.kind not in ("observed", "probabilities")}
    boundary = SERSIC_BOUNDARY if name == _SERSIC else None  # not of indices from pictures, which are too small
    what = "Sérsic index" if column == _SERSIC else column
    compared = compare_distributions(
        values, evidence.observed.disk, sets or {"labels": evidence.observed.disk}, column=column, boundary=boundary,
        observed_name=evidence.observed.name, bootstrap=_RESAMPLES, seed=options.seed,
    )  # fmt: skip
    places = {"smooth": "smooth", "to_disk": "smooth to disk, beside the volunteers' disks"}
    apart = "; ".join(
        f"{row['labels']} ({places[row['panel']]}) {row['ks']:.2f} ± {row['ks_stderr']:.2f} (chance "
        f"{row['ks_floor']:.2f})"
        for row in compared.table().filter(pl.col("ks").is_not_null()).iter_rows(named=True)
        if row["panel"] in places
    )
    dropped = f" {compared.n_dropped:,} galaxies without a value are left out." if compared.n_dropped else ""
    more = f" Dotted: {boundary:g}, above which galaxies are mostly smooth." if boundary is not None else ""
    return Illustration(
        f"distribution_{_NO_NAME.sub('_', name)}",
        cumulative_panels(compared, styles_of(evidence), axis_label(evidence, column)),
        f"Relative cumulative curves of {what} for smooth, relabelled and disk galaxies by label set.",
        f"{what} among galaxies labelled smooth, changed, and labelled disk (paper, Figure 3). Largest distance "
        f"from the curve of the volunteers' labels (Kolmogorov-Smirnov): {apart or 'none'}.{more}{dropped}",
        compared.curves().join(compared.table(), on=["panel", "labels"], how="left", maintain_order="left"),
    )


def _measured_sersic(found: Evidence, options: ReportOptions) -> tuple[np.ndarray, Finding]:
    """Sérsic indices of some galaxies, measured on their pictures; NaN for the others."""
    from truemorph.images.sersic import GOOD, measure_sersic

    frame = found.frame.with_row_index("_row")
    if "image" not in frame.columns or not frame["image"].count():
        raise InputError(f"{found.path}: has no images to measure Sérsic indices on; prepare it with `images`")
    some = frame.filter(pl.col("image").is_not_null())
    if some.height > options.sersic:
        some = some.sample(options.sersic, seed=options.seed)
    root = image_folder(found.catalogue)
    paths = [root / one for one in some["image"]]
    sigma = None
    if options.field is not None:
        sized, _ = with_geometry(some, str(found.path), "psf_fwhm", options.field)
        sigma = _sigma_in_pixels(paths, sized[RADIUS].to_numpy())
    measured = measure_sersic(paths, sigma)
    good = (measured["flag"] == GOOD).to_numpy()
    values = np.full(frame.height, np.nan)
    values[some["_row"].to_numpy()[good]] = measured["sersic_n"].to_numpy()[good]
    text = (
        f"Sérsic indices were measured here on the pictures of {some.height:,} galaxies, {int(good.sum()):,} of "
        "them well"
        + ("" if sigma is not None else ", without the PSF (`field` gives its width in pixels)")
        + ". The stretch of survey JPEGs cannot be undone exactly: on Galaxy Zoo's, n comes out at about half of it."
    )
    return values, Finding(
        "sersic-from-images",
        "caution",
        text,
        "Compare the curves with each other, not with n = 3; or use a catalogue of n.",
    )


def _sigma_in_pixels(paths: Sequence[Any], share: np.ndarray) -> np.ndarray:
    """σ of the PSF in pixels of each file, from its FWHM in sides of the file; 0 where unknown."""
    from truemorph.images.decode import decode, read_image_file

    out = np.zeros(len(paths))
    for number, (path, width) in enumerate(zip(paths, share, strict=True)):
        if np.isfinite(width):
            try:
                out[number] = width * min(decode(read_image_file(path), str(path)).shape[:2]) / FWHM_PER_SIGMA
            except InputError as problem:
                warnings.warn(str(problem), stacklevel=2)
    return out
