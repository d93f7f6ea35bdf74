"""Table 1 of the paper, and what else is measured of label sets: tables behind figures, gains over observed labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.binning import Bins, choose_bins
from truemorph.bias.metrics.label_bias import BiasResult, Reference, cv18
from truemorph.bias.metrics.scores import balanced_accuracy, fraction_error
from truemorph.bias.population import PopulationFractions
from truemorph.catalogs.label_sets import FIFTHS, LabelSet, fractions_by
from truemorph.errors import InputError
from truemorph.questions import fraction_names, slug
from truemorph.tables import numeric_columns

_RESAMPLES = 200


def halves_by(values: np.ndarray, alpha: np.ndarray, sets: Sequence[LabelSet]) -> pl.DataFrame:
    """Fraction of the second class in both halves of each fifth of a column: less (`bin` 1) and better resolved (2).

    `value` is the mean of the column in that fifth; the other columns are those of `fractions_by`, for α.
    """
    finite = np.flatnonzero(np.isfinite(values))
    fifths = Bins.cut(values[finite], FIFTHS)
    halves = []
    for fifth, value in enumerate(fifths.middles):
        rows = finite[fifths.index == fifth]
        if rows.size > 1:
            halves.append(
                fractions_by(alpha[rows], [label_set.of(rows) for label_set in sets], 2).with_columns(value=value)
            )
    return pl.concat(halves)


@dataclass(frozen=True)
class BiasTree:
    """How finely bias is measured: 2^depth leaves of the intrinsic tree, bins of α in each, resamples for errors."""

    alpha: np.ndarray  # (N,), or (N, J) of several observables
    intrinsic: np.ndarray | None  # (N, P); without: CV14, one leaf
    depth: int
    bins: int
    bootstrap: int = 100
    seed: int = 0
    reference: Reference | Sequence[Reference] = "last"  # the best bin of α, or of each observable

    @classmethod
    def fitting(
        cls,
        alpha: np.ndarray,
        intrinsic: np.ndarray | None,
        bootstrap: int,
        seed: int,
        depth: int | None = None,
        bins: int | None = None,
    ) -> BiasTree:
        """With the depth and bins that are given, or at least 25 galaxies a bin, where that is possible."""
        usable = alpha.size if intrinsic is None else int(np.isfinite(intrinsic).all(axis=1).sum())
        chosen = choose_bins(usable, intrinsic is not None)
        depth = chosen[0] if depth is None or intrinsic is None else depth
        return cls(alpha, intrinsic, depth, chosen[1] if bins is None else bins, bootstrap, seed)

    @property
    def measure(self) -> str:
        """CV18, or CV14 without intrinsic columns."""
        return "CV14" if self.intrinsic is None else "CV18"

    def bias(self, one: LabelSet, rows: np.ndarray | None = None, **options: Any) -> BiasResult | None:
        """Of a label set where it is known, or of some rows, with repeats; None if these are too few for the tree."""
        chosen = np.flatnonzero(one.known) if rows is None else rows[one.known[rows]]
        labels = one.labels if one.is_hard else one.probabilities
        try:
            return self.metric(labels[chosen], chosen, **options)
        except InputError:
            return None

    def metric(self, labels: np.ndarray, rows: Any = slice(None), **options: Any) -> BiasResult:
        """CV18 (CV14) of the labels of some rows, with options of `cv18`; InputError if they are too few."""
        columns = None if self.intrinsic is None else self.intrinsic[rows]
        settings: dict[str, Any] = {"bootstrap": self.bootstrap, "seed": self.seed, "reference": self.reference}
        settings |= options
        return cv18(labels, self.alpha[rows], columns, self.depth, self.bins, **settings)


def numbers_of(bias: BiasResult | None) -> dict[str, float | None]:
    """Columns of Table 1 that a metric gives; None where it could not be measured."""
    names = ("value", "bootstrap_mean", "bootstrap_std", "floor", "floor_std", "excess", "objects_per_bin")
    return {name: None if bias is None else getattr(bias, name) for name in names}


def agreement(labels: LabelSet, reference: LabelSet) -> dict[str, Any]:
    """How labels agree with those of a reference, on the galaxies where both are known.

    `accuracy`; of each class (`precision_disk`) the fraction of galaxies with this label on which the reference agrees,
    and `precision`, their mean; None where there are no such galaxies. Of each class (`to_disk`) the number of galaxies
    with this label, but not by the reference.
    """
    both = labels.known & reference.known
    own, other = labels.labels[both], reference.labels[both]
    names = [slug(one) for one in labels.classes]
    shares = [float((other[own == k] == k).mean()) if np.any(own == k) else None for k in range(len(names))]
    defined = [share for share in shares if share is not None]
    return {
        "accuracy": float((own == other).mean()) if own.size else None,
        "precision": float(np.mean(defined)) if defined else None,
        **{f"precision_{name}": share for name, share in zip(names, shares, strict=True)},
        **{f"to_{name}": int(((own == k) & (other != k)).sum()) for k, name in enumerate(names)},
    }


def moved_names(classes: Sequence[str]) -> list[str]:
    """Return the columns of Table 1 with the numbers of labels that changed, to the second class first."""
    return [f"to_{slug(one)}" for one in reversed(classes)]


def table_one(
    sets: Sequence[LabelSet],
    alpha: np.ndarray,
    bias: Mapping[str, BiasResult | None],
    truths: Mapping[str, LabelSet],
    references: Mapping[str, LabelSet] | None = None,
) -> pl.DataFrame:
    """Table 1 of the paper for these label sets, and what the truth says where it is known; one row a set.

    `labels`, `kind`, `galaxies`, the fraction of the second class (`disk_fraction`); numbers of `bias`, None where a
    set has too few galaxies; of each class (`to_disk`) labels that differ from the observed ones; `accuracy` and
    `precision` (of probabilities: of the more probable class) against the set in `references`, by default the observed
    labels; and for each definition of the truth `balanced_accuracy: …` and `fraction_rms: …` (over fifths of α).
    """
    observed = next(label_set for label_set in sets if label_set.kind == "observed")
    if references is None:
        references = {label_set.name: observed for label_set in sets if label_set.kind not in ("observed", "truth")}
    rows = []
    for label_set in sets:
        moved = {} if label_set.kind in ("observed", "truth") else agreement(label_set, observed)
        agreed = agreement(label_set, references[label_set.name]) if label_set.name in references else {}
        row: dict[str, Any] = {
            "labels": label_set.name,
            "kind": label_set.kind,
            "galaxies": int(label_set.known.sum()),
            next(iter(fraction_names(label_set.classes))): label_set.fraction if label_set.known.any() else None,
            **numbers_of(bias[label_set.name]),
            **{name: agreed.get(name) for name in ("accuracy", "precision")},
            **{name: moved.get(name) for name in moved_names(label_set.classes)},
        }
        for definition, truth in truths.items():
            both = label_set.known & truth.known
            accuracy = rms = None
            if label_set.kind != "truth" and both.any():
                right = truth.labels[both]
                accuracy = balanced_accuracy(right, label_set.labels[both])
                rms = fraction_error(right, label_set.p[both], alpha[both])
            # NaN: a class is missing.
            row[f"balanced_accuracy: {definition}"] = None if accuracy is None or np.isnan(accuracy) else accuracy
            row[f"fraction_rms: {definition}"] = rms
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def chance_calibration_error(
    probability: np.ndarray, variance: np.ndarray | None = None, bins: int = 15
) -> tuple[float, float]:
    """Mean and scatter of `calibration_error` if the probabilities are right, which so few galaxies have by chance.

    `variance` is that of each outcome, by default of a single label.
    """
    order = np.argsort(probability, kind="stable")
    each = (probability * (1 - probability) if variance is None else variance)[order]
    # The absolute value of a normal deviate has mean sqrt(2/π) and variance 1 - 2/π.
    variances = np.array([np.sum(part) for part in np.array_split(each, min(bins, each.size))]) / each.size**2
    return float(np.sqrt(2 / np.pi) * np.sqrt(variances).sum()), float(np.sqrt((1 - 2 / np.pi) * variances.sum()))


def accuracy_gain(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy of labels minus that of others of the same galaxies, and its error; NaN without both classes.

    The error is that of paired differences (McNemar), a success and a failure added.
    """
    gains, variances = [], []
    for k in (0, 1):
        rows = truth == k
        n = int(rows.sum())
        if n == 0:
            return float("nan"), float("nan")
        difference = (ours[rows] == k).astype(np.float64) - (theirs[rows] == k)
        gains.append(difference.mean())
        variances.append((np.sum((difference - difference.mean()) ** 2) + 1) / n**2)
    return float(np.mean(gains)), float(np.sqrt(np.sum(variances)) / 2)


def fraction_gain(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray, alpha: np.ndarray) -> tuple[float, float]:
    """How much nearer to the truth fractions are than others (labels or probabilities of the same galaxies).

    Rms error of theirs over fifths of α minus that of ours; its error by propagation of the scatter in each fifth.
    """
    bins = Bins.cut(alpha, FIFTHS)
    off = bins.means(np.column_stack([ours - truth, theirs - truth]))
    rms = np.sqrt(np.mean(off**2, axis=0))
    own, other = (off / (bins.count * np.maximum(rms, 1e-9)))[bins.index].T
    moved = other * (theirs - truth) - own * (ours - truth)
    scatter = moved - bins.means(moved[:, None])[bins.index, 0]
    return float(rms[1] - rms[0]), float(np.sqrt(np.sum(bins.sums(scatter**2) / bins.totals**2)))


def ratio_gain(weights: np.ndarray, truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, ...]:
    """How much nearer to the truth ratios of sums in bins are than others, and rms errors of ours and of theirs.

    Each is a numerator and a denominator of every galaxy, shape (N, 2); `weights` are those of the galaxies in each
    bin, shape (B, N). The difference of the errors is followed by its own error, from resampled galaxies.
    """

    def errors(counts: np.ndarray | float) -> np.ndarray:
        sums = (weights * counts) @ np.concatenate([truth, ours, theirs], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            right, *others = (sums[:, k] / sums[:, k + 1] for k in (0, 2, 4))
        return np.array([np.sqrt(np.nanmean((other - right) ** 2)) for other in others])

    own, other = errors(1.0)
    rng, n = np.random.default_rng(0), len(truth)
    resampled = [errors(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(_RESAMPLES)]
    return float(other - own), float(np.std(np.diff(resampled, axis=1))), float(own), float(other)


def rows_in_bins(one: PopulationFractions, frame: pl.DataFrame, source: str) -> np.ndarray:
    """Return which galaxies are in which bin of an estimate, shape (B, N)."""
    if one.members:
        return np.array([frame[one.by].is_in(names).to_numpy() for names in one.members])
    values = numeric_columns(frame, one.columns, source)
    edges = one.edges if one.edges.ndim == 3 else np.stack([one.edges[:-1], one.edges[1:]], axis=1)[:, None]
    return np.array([((low <= values) & (values <= high)).all(axis=1) for low, high in np.moveaxis(edges, 2, 1)])
