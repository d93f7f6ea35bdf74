"""Table 1 of the paper, and what else is measured of label sets: tables behind figures, gains over observed labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from truemorph.arrays import ratio, rms
from truemorph.bias.binning import Bins, choose_bins
from truemorph.bias.metrics.label_bias import BiasResult, Reference, cv18
from truemorph.bias.metrics.scores import balanced_accuracy
from truemorph.bias.population import PopulationFractions
from truemorph.catalogs.label_sets import FIFTHS, LabelSet, fractions_by
from truemorph.errors import InputError
from truemorph.questions import slug
from truemorph.tables import numeric_columns


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
    intrinsic: np.ndarray  # (N, P); without columns: CV14, one leaf
    depth: int
    bins: int
    bootstrap: int = 100
    seed: int = 0
    reference: Reference | Sequence[Reference] = "last"  # the best bin of α, or of each observable

    @classmethod
    def fitting(
        cls,
        labels: LabelSet,
        alpha: np.ndarray,
        intrinsic: np.ndarray,
        bootstrap: int,
        seed: int,
        depth: int | None = None,
        bins: int | None = None,
    ) -> BiasTree:
        """With the depth and bins that are given, or at least 25 labelled galaxies a bin, where that is possible."""
        chosen = choose_bins(np.isfinite(intrinsic[labels.known]).all(axis=1).sum(), intrinsic.size > 0)
        depth = chosen[0] if depth is None or not intrinsic.size else depth
        return cls(alpha, intrinsic, depth, chosen[1] if bins is None else bins, bootstrap, seed)

    @property
    def measure(self) -> str:
        """CV18, or CV14 without intrinsic columns."""
        return "CV18" if self.intrinsic.size else "CV14"

    def bias(self, label_set: LabelSet, rows: np.ndarray | None = None, **options: Any) -> BiasResult | None:
        """Of a label set where it is known, or of some rows, with repeats; None if these are too few for the tree."""
        chosen = np.flatnonzero(label_set.known) if rows is None else rows[label_set.known[rows]]
        try:
            return self.metric(label_set.probabilities[chosen], chosen, **options)
        except InputError:
            return None

    def metric(self, labels: np.ndarray, rows: Any = slice(None), **options: Any) -> BiasResult:
        """CV18 (CV14) of the labels of some rows, with options of `cv18`; InputError if they are too few."""
        columns = self.intrinsic[rows] if self.intrinsic.size else None
        settings = {"bootstrap": self.bootstrap, "seed": self.seed, "reference": self.reference} | options
        return cv18(labels, self.alpha[rows], columns, self.depth, self.bins, **settings)


def numbers_of(bias: BiasResult | None) -> dict[str, float | None]:
    """Columns of Table 1 that a metric gives; None where it could not be measured."""
    names = ("value", "bootstrap_mean", "bootstrap_std", "floor", "floor_std", "excess", "objects_per_bin")
    return {name: None if bias is None else getattr(bias, name) for name in names}


def agreement(labels: LabelSet, reference: LabelSet) -> dict[str, Any]:
    """How labels agree with those of a reference, on the galaxies where both are known.

    `accuracy`; of each class (`precision_disk`) the fraction of galaxies with this label on which the reference agrees,
    and `precision`, their mean; NaN where there are no such galaxies. Of each class (`to_disk`) the number of galaxies
    with this label, but not by the reference.
    """
    both = labels.known & reference.known
    own, other = labels.labels[both], reference.labels[both]
    names = [slug(name) for name in labels.classes]
    called, right = (np.bincount(of, minlength=len(names)) for of in (own, own[own == other]))
    shares = ratio(right, called)
    return {
        "accuracy": float(ratio(right.sum(), called.sum())),
        "precision": np.nanmean(shares) if own.size else np.nan,
        **{f"precision_{name}": share for name, share in zip(names, shares, strict=True)},
        **{f"to_{name}": int(n) for name, n in zip(names, called - right, strict=True)},
    }


def moved_names(classes: Sequence[str]) -> list[str]:
    """Return the columns of Table 1 with the numbers of labels that changed, to the second class first."""
    return [f"to_{slug(name)}" for name in reversed(classes)]


def table_one(
    sets: Sequence[LabelSet],
    alpha: np.ndarray,
    bias: Mapping[str, BiasResult | None],
    truths: Mapping[str, LabelSet],
    parts: Mapping[str, np.ndarray],
    references: Mapping[str, LabelSet] | None = None,
) -> pl.DataFrame:
    """Table 1 of the paper for these label sets, and what the truth says where it is known; one row a set.

    `labels`, `kind`, `galaxies`, the fraction of the second class (`disk_fraction`); numbers of `bias`, None where a
    set has too few galaxies; of each class (`to_disk`) labels that differ from the observed ones; `accuracy` and
    `precision` (of probabilities: of the more probable class) against the set in `references`, by default the observed
    labels; and for each definition of the truth `balanced_accuracy: …` and `fraction_rms: …` (over fifths of α).
    `parts` are numerator and denominator of the fraction by set, (N, 2), if not all galaxies are in the denominator.
    """
    observed = next(label_set for label_set in sets if label_set.kind == "observed")
    rows = []
    for label_set in sets:
        moved = {} if label_set.kind in ("observed", "truth") else agreement(label_set, observed)
        agreed = moved
        if references is not None:
            agreed = agreement(label_set, references[label_set.name]) if label_set.name in references else {}
        row: dict[str, Any] = {
            "labels": label_set.name,
            "kind": label_set.kind,
            "galaxies": int(label_set.known.sum()),
            f"{slug(label_set.classes[1])}_fraction": label_set.fraction,
            **numbers_of(bias[label_set.name]),
            **{name: agreed.get(name) for name in ("accuracy", "precision")},
            **{name: moved.get(name) for name in moved_names(label_set.classes)},
        }
        for definition, truth in truths.items():
            own, right = parts[label_set.name], parts[truth.name]
            both = np.isfinite(own).all(axis=1) & np.isfinite(right[:, 1])
            applies = both & (right[:, 1] > 0)
            accuracy = off = np.nan
            if label_set.kind != "truth" and applies.any():
                accuracy = balanced_accuracy(has_answer(right[applies]), has_answer(own[applies]))
                off = rms(_off(right[both], own[both], Bins.cut(alpha[both], FIFTHS)))
            row |= {f"balanced_accuracy: {definition}": accuracy, f"fraction_rms: {definition}": off}
        rows.append(row)
    # NaN: galaxies, a class, or an answer in all bins, are missing.
    return pl.DataFrame(rows, infer_schema_length=None).fill_nan(None)


def chance_calibration_error(probability: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Mean and scatter of `calibration_error` if the probabilities are right, which so few galaxies have by chance.

    `variance` is that of each outcome.
    """
    each = variance[np.argsort(probability, kind="stable")]
    # The absolute value of a normal deviate has mean sqrt(2/π) and variance 1 - 2/π.
    variances = np.array([part.sum() for part in np.array_split(each, min(15, each.size))]) / each.size**2
    return float(np.sqrt(2 / np.pi) * np.sqrt(variances).sum()), float(np.sqrt((1 - 2 / np.pi) * variances.sum()))


def compared_accuracies(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Balanced accuracies of labels and of others of the same galaxies, and the error of their difference.

    The error is that of paired differences (McNemar), a success and a failure added; NaN without both classes.
    """
    variances = []
    for k in (0, 1):
        rows = truth == k
        apart = (ours[rows] == k).astype(float) - (theirs[rows] == k)
        variances.append((np.sum((apart - apart.mean()) ** 2) + 1) / apart.size**2 if apart.size else np.nan)
    return balanced_accuracy(truth, ours), balanced_accuracy(truth, theirs), float(np.sqrt(np.sum(variances)) / 2)


def has_answer(parts: np.ndarray) -> np.ndarray:
    """Whether galaxies have the answer, if the question applies, from numerators and denominators, (N, 2): 0 or 1."""
    return (parts[:, 0] > 0.5 * parts[:, 1]).astype(int)


def _ratio(parts: np.ndarray, bins: Bins) -> np.ndarray:
    """Ratio of sums in bins, shape (B,), of numerators and denominators, shape (N, 2)."""
    return ratio(*map(bins.sums, parts.T))


def _off(truth: np.ndarray, parts: np.ndarray, bins: Bins) -> np.ndarray:
    """How far ratios are off in bins, shape (B,); NaN where nothing is in a denominator."""
    return _ratio(parts, bins) - _ratio(truth, bins)


def fraction_errors(
    truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray, alpha: np.ndarray
) -> tuple[float, float, float]:
    """Rms errors over fifths of α of fractions and of others, and the error of their difference.

    Each of numerators and denominators, shape (N, 2). The error is by propagation of the scatter in each fifth.
    """
    bins = Bins.cut(alpha, FIFTHS)
    influences, errors = [], []
    for others in (ours, theirs):
        off = _off(truth, others, bins)
        errors.append(rms(off))
        pulls = [
            (parts[:, 0] - _ratio(parts, bins)[bins.index] * parts[:, 1]) / bins.sums(parts[:, 1])[bins.index]
            for parts in (others, truth)
        ]
        weight = np.nan_to_num(off / (np.isfinite(off).sum() * np.maximum(errors[-1], 1e-9)))
        influences.append(weight[bins.index] * np.nan_to_num(pulls[0] - pulls[1]))
    moved = influences[1] - influences[0]
    return errors[0], errors[1], float(np.sqrt(np.sum(moved**2)))


def bins_of(fractions: PopulationFractions, frame: pl.DataFrame, source: str) -> np.ndarray:
    """Return which galaxies are in which bin of an estimate, or in fifths of α, bool of shape (B, N)."""
    if fractions.members:
        return np.array([frame[fractions.by].is_in(names).to_numpy() for names in fractions.members])
    columns = numeric_columns(frame, fractions.columns, source)
    values = np.squeeze(columns)
    cut = Bins.at(values, fractions.edges)
    return np.isfinite(columns).all(axis=1) & (cut.index == np.arange(cut.count)[:, None])
