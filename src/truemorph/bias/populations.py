"""Class fractions of populations, with the labels' bias taken out and two kinds of error.

Without gold labels each bin's fractions are found by inverting T: they maximise Σ log Σ_y f_y p(ỹ | y, α) in
the bin. With gold labels they come from a regression on these, see `truemorph.bias.assisted`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from truemorph.arrays import float_array
from truemorph.bias.assisted import model_assisted
from truemorph.bias.binning import Bins
from truemorph.bias.estimation import fit_transition
from truemorph.bias.families import COMPARED, WITH_FORMULA
from truemorph.bias.gold import check_gold, classes_in
from truemorph.bias.likelihood import check_labels, check_weights
from truemorph.bias.maximum import differences
from truemorph.bias.result import FROM_LABELS, TransitionFit
from truemorph.bias.selection import selection_findings
from truemorph.bias.transitions import DISK, Array, Transition, as_resolution
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.io import plain
from truemorph.results import Result, quantity_table

_NORMAL_95 = 1.96
_EM_STEPS = 2000
_REJECTED = 10.0


@dataclass(frozen=True, repr=False)
class PopulationFractions(Result):
    """Class fractions in bins, corrected.

    Attributes
    ----------
    fractions, stderr : array, shape (B, K)
        True class fractions of each bin, and their statistical error (labels, T's covariance, regression).
    low, high : array, shape (B, K)
        From the lowest to the highest 95 % range of the estimate and all `alternatives`: statistical and systematic.
    labelled : array, shape (B, K)
        Fractions of the labels as given.
    edges : array, shape (B + 1,)
        Bin edges in the binning column.
    counts : array of int, shape (B,)
        Galaxies in each bin.
    alternatives : dict of str to (fractions, stderr), each (B, K)
        Other families and estimators on the same data; the band runs over them.
    method, assumption : str
        How the fractions were found and what they rest on.
    findings : tuple of Finding
        Those of the fit included.
    by : str
        Name of the binning column.
    middles : array, shape (B,)
        Mean of the binning column in each bin.
    """

    fractions: np.ndarray
    stderr: np.ndarray
    low: np.ndarray
    high: np.ndarray
    labelled: np.ndarray
    edges: np.ndarray
    counts: np.ndarray
    alternatives: dict[str, tuple[np.ndarray, np.ndarray]]
    method: str
    assumption: str
    findings: tuple[Finding, ...]
    by: str = "alpha"
    middles: np.ndarray = field(default_factory=lambda: np.empty(0))

    def summary(self) -> str:
        """Return the disk fraction of each bin with its error and range as text."""
        lines = [
            f"disk fraction by {self.by} ({self.method}; range: 95 %, statistical and systematic)",
            f"{self.by:>10s} {'galaxies':>9s} {'labelled':>9s} {'corrected':>9s} {'error':>7s} {'range':>15s}",
        ]
        lines += [
            f"{middle:10.2f} {count:9,d} {labelled:9.3f} {value:9.3f} {error:7.3f} {low:7.3f}-{high:.3f}"
            for middle, count, labelled, value, error, low, high in zip(
                self.middles,
                self.counts,
                *(one[:, DISK] for one in (self.labelled, self.fractions, self.stderr, self.low, self.high)),
                strict=True,
            )
        ]
        return "\n".join([*lines, f"assumes that {self.assumption}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the disk fractions as plain values, for JSON."""
        return plain(
            {
                "by": self.by,
                "edges": self.edges,
                "middles": self.middles,
                "galaxies": self.counts,
                "labelled": self.labelled[:, DISK],
                "disk": self.fractions[:, DISK],
                "stderr": self.stderr[:, DISK],
                "low": self.low[:, DISK],
                "high": self.high[:, DISK],
                "method": self.method,
                "assumption": self.assumption,
                "alternatives": {name: value[:, DISK] for name, (value, _) in self.alternatives.items()},
                "findings": [one.to_dict() for one in self.findings],
            }
        )

    def to_table(self) -> Any:
        """Return a table of one row a bin: the disk fraction before and after, with its errors."""
        return quantity_table(
            {
                "low_edge": (self.edges[:-1], "", f"lower edge of the bin in {self.by}"),
                "high_edge": (self.edges[1:], "", f"upper edge of the bin in {self.by}"),
                "galaxies": (self.counts, "", "number of galaxies"),
                "labelled": (self.labelled[:, DISK], "", "disk fraction of the labels as given"),
                "disk": (self.fractions[:, DISK], "", "corrected disk fraction"),
                "stderr": (self.stderr[:, DISK], "", "statistical standard error"),
                "low": (self.low[:, DISK], "", "lower end of the range (95 %, statistical and systematic)"),
                "high": (self.high[:, DISK], "", "upper end of the range (95 %, statistical and systematic)"),
            },
            method=self.method,
            assumption=self.assumption,
        )

    def plot(self, ax: Any = None, truth: Array | None = None, label_class: int = DISK) -> Any:
        """Draw the fraction of one class per bin before and after, and the truth where it is known.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw; a new figure if not given.
        truth : array, shape (B,), optional
            True fractions of the class in the same bins.
        label_class : int, default 1 (disk)

        Returns
        -------
        matplotlib axes
        """
        from truemorph.bias.plots import plot_fractions

        return plot_fractions(self, ax, {} if truth is None else {"truth": truth}, label_class)


def _invert(given: np.ndarray, bins: Bins, start: np.ndarray) -> np.ndarray:
    """Fractions that make each bin's labels likeliest, shape (B, K).

    Parameters
    ----------
    given : array, shape (N, K)
        p(ỹ_n | y, α_n) of each galaxy's own label.
    start : array, shape (B, K)
    """
    fractions = np.clip(start, 1e-6, None)
    fractions /= fractions.sum(axis=1, keepdims=True)
    if given.shape[1] == 2:
        return _invert_two(given, bins, fractions[:, DISK])
    for _ in range(_EM_STEPS):
        joint = fractions[bins.index] * given
        total = joint.sum(axis=1, keepdims=True)
        after = bins.means(np.divide(joint, total, out=np.zeros_like(joint), where=total > 0))
        after /= after.sum(axis=1, keepdims=True)
        if np.abs(after - fractions).max() < 1e-9:
            return after
        fractions = after
    return fractions


def _invert_two(given: np.ndarray, bins: Bins, start: np.ndarray) -> np.ndarray:
    """Two classes: the slope of a concave likelihood, bisected in [0, 1]."""
    contrast = given[:, 1] - given[:, 0]
    low, high = np.zeros(bins.count), np.ones(bins.count)
    for _ in range(45):
        middle = 0.5 * (low + high)
        mixture = np.maximum(given[:, 0] + middle[bins.index] * contrast, 1e-300)
        slope = bins.sums(contrast / mixture)
        low, high = np.where(slope > 0, middle, low), np.where(slope > 0, high, middle)
    disk = 0.5 * (low + high)
    return np.stack([1 - disk, disk], axis=1)


def _label_columns(transition: Transition, labels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """p(ỹ_n | y, α_n) for every y, shape (N, K)."""
    return np.asarray(transition.matrix(alpha))[np.arange(labels.size), :, labels]


@dataclass(frozen=True)
class _Sample:
    """Rows to debias: labels, α, their bins, and the fit whose T is used, if there is one."""

    labels: np.ndarray
    alpha: np.ndarray
    bins: Bins
    fit: TransitionFit | None = None

    def rows(self, chosen: np.ndarray) -> _Sample:
        """Some of the rows, drawn with repeats, in the same bins."""
        return _Sample(self.labels[chosen], self.alpha[chosen], self.bins.rows(chosen), self.fit)


def _inverted(
    sample: _Sample, transition: Transition, fit: TransitionFit | None
) -> tuple[np.ndarray, np.ndarray, list[Finding]]:
    """Fractions by inversion and their errors, shape (B, K) each, and findings.

    Each galaxy's influence on its bin's fractions is inverse information times score; where T was fitted to the same
    labels, its influence on T comes on top, so that the two are added before they are squared.
    """
    labels, alpha, bins = sample.labels, sample.alpha, sample.bins
    n_classes = transition.n_classes
    given = _label_columns(transition, labels, alpha)
    fractions = _invert(given, bins, bins.means(np.eye(n_classes)[labels]))
    mixture = np.maximum(np.sum(fractions[bins.index] * given, axis=1), 1e-9)
    scores = (given[:, 1:] - given[:, :1]) / mixture[:, None]  # d log p(ỹ) / d f_k, k >= 1
    own = np.zeros((labels.size, n_classes))
    for b in range(bins.count):
        inside = bins.index == b
        weighted = scores[inside] * bins.weights[inside, None]
        own[inside, 1:] = weighted @ np.linalg.pinv(weighted.T @ scores[inside])
    own[:, 0] = -own[:, 1:].sum(axis=1)
    variance = np.stack([np.bincount(bins.index, weights=one**2, minlength=bins.count) for one in own.T], axis=1)
    findings = []
    if fit is not None and fit.point.size:
        known = ~np.isnan(np.diag(fit.covariance))
        if not known.all():
            findings.append(
                Finding(
                    "fit-without-errors",
                    "caution",
                    f"Some parameters of the {fit.family} fit have no error, so the errors of the fractions do not "
                    "include that of T(α).",
                    "Use bootstrap errors (`bootstrap`).",
                )
            )

        def moved(at: np.ndarray) -> np.ndarray:
            return _invert(_label_columns(fit.transition_at(at), labels, alpha), bins, fractions)

        if fit.resampled is not None:
            # Not by slopes: a logit that runs off to its bound has a huge variance and moves nothing.
            variance += np.var([moved(at) for at in fit.resampled], axis=0, ddof=1)
        elif known.any():
            slopes = differences(moved, fit.point)[known]
            covariance = fit.covariance[np.ix_(known, known)]
            variance += np.einsum("pbk,pq,qbk->bk", slopes, covariance, slopes)
            if fit.influence is not None and fit.made_from(labels, alpha):
                pull = fit.influence()[known]
                for k in range(n_classes):
                    through_t = np.einsum("pn,pn->n", slopes[:, bins.index, k], pull)
                    variance[:, k] += 2 * np.bincount(bins.index, weights=own[:, k] * through_t, minlength=bins.count)
    return fractions, np.sqrt(np.maximum(variance, 0.0)), findings


def _other_fits(sample: _Sample, fit: TransitionFit) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inversions of the other families, fitted by the same method to the data of the fit."""
    out = {}
    # With gold labels there is a form without a shape too; without, it would rest on an assumption of its own.
    families = COMPARED if fit.method == "gold" else WITH_FORMULA
    for family in families:
        if family == fit.family or fit.transition.n_classes != 2 or fit.alpha.ndim != 1:
            continue
        try:
            one = fit.inputs.again(family=family, false_disk=None)
        except InputError:
            continue
        out[f"{family}, {fit.method}"] = _inverted(sample, one.transition, one)[:2]
    return out


def _families_not_rejected(
    labels: np.ndarray, alpha: np.ndarray, trusted: np.ndarray, weights: np.ndarray | None, seed: int
) -> dict[str, TransitionFit]:
    """Families fitted to gold rows alone, less those that the flips rule out (AIC more than 10 above best)."""
    fits = {}
    for family in WITH_FORMULA:
        try:
            fits[family] = fit_transition(
                labels, alpha, family, gold=trusted, weights=weights, gold_weight=0.0, seed=seed
            )
        except InputError:
            continue
    aic = {name: 2 * len(fit.values) - 2 * fit.flip_log_likelihood for name, fit in fits.items()}
    return {name: fit for name, fit in fits.items() if aic[name] <= min(aic.values()) + _REJECTED}


def _covariates(covariates: Array, n: int) -> np.ndarray:
    columns = float_array(covariates, "covariates")
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.shape[0] != n:
        raise InputError(f"covariates must have shape ({n}, P), one row a galaxy; got {columns.shape}")
    bad = np.flatnonzero(~np.isfinite(columns).all(axis=1))
    if bad.size:
        raise InputError(f"covariates has {bad.size} rows with a missing value (first: row {bad[0]})")
    return columns


def _bootstrap_errors(
    sample: _Sample,
    transition: Transition | None,
    trusted: np.ndarray | None,
    columns: np.ndarray | None,
    n_classes: int,
    resamples: int,
    seed: int,
) -> np.ndarray:
    """Scatter of the fractions over resampled galaxies, in the bins of the sample, shape (B, K)."""
    rng = np.random.default_rng(seed)
    fit, n = sample.fit, sample.labels.size
    found = []
    for _ in range(resamples):
        rows = rng.integers(0, n, n)
        try:
            again = sample.rows(rows)
            if trusted is not None:
                known = check_gold(trusted[rows], n, n_classes)
                part = None if columns is None else columns[rows]
                assisted = model_assisted(again.labels, again.alpha, known, part, again.bins, n_classes, seed)
                found.append(assisted.fractions)
                continue
            made = transition
            if fit is not None:
                same = fit.made_from(sample.labels, sample.alpha)
                made = fit.again(rows if same else rng.integers(0, fit.n_objects, fit.n_objects)).transition
            assert made is not None
            found.append(_inverted(again, made, None)[0])
        except InputError:  # a class or a bin is missing from this resample
            continue
    if len(found) < 2:
        raise InputError(f"only {len(found)} of {resamples} resamples could be used; the sample is too small")
    return np.std(found, axis=0, ddof=1)


def debiased_fractions(
    labels: Array,
    alpha: Array,
    transition: Transition | TransitionFit | None = None,
    by: Array | None = None,
    bins: int = 8,
    gold: Array | None = None,
    *,
    covariates: Array | None = None,
    systematic: bool = True,
    weights: Array | None = None,
    name: str = "alpha",
    bootstrap: int = 0,
    seed: int = 0,
) -> PopulationFractions:
    """True class fractions in bins of α or of any column, with statistical and systematic errors.

    Parameters
    ----------
    labels : array of int, shape (N,)
        Observed labels.
    alpha : array, shape (N,) or (N, J)
        Resolution (or the observables of the transition).
    transition : Transition or TransitionFit, optional
        T(α). The covariance of a fit enters the errors, and other families and estimators are fitted to the
        same data for the band; a bare transition is taken as exact. Optional with `gold`, where it is one of the
        alternatives.
    by : array, shape (N,), optional
        Column to bin in; α by default.
    bins : int, default 8
        Equal-count bins (counted without weights).
    gold : array of int, shape (N,), optional
        True classes of a random part of the rows, -1 elsewhere. The fractions then follow the definition of these
        labels, and hold whether or not T is right.
    covariates : array, shape (N, P), optional
        Further columns for p(y | ỹ, α, z) of gold rows; anything that helps to tell the true class.
    systematic : bool, default True
        Whether to fit the alternatives that the band runs over.
    weights : array, shape (N,), optional
        Sampling weights; those of the fit by default, where these are its rows.
    name : str, default "alpha"
        Of the binning column, for pictures.
    bootstrap : int, default 0
        Resamples of the galaxies, with T fitted again in each, from whose scatter `stderr` is taken instead of the
        delta method.
    seed : int
        Of folds and resamples.

    Returns
    -------
    PopulationFractions
        Without gold labels and without intrinsic properties in the fit nothing tells flips from a real change
        with α: the band then reaches down to the labels as given.

    Raises
    ------
    InputError
        If shapes disagree, labels are no classes, a bin would be empty, or neither transition nor gold is given.

    Examples
    --------
    >>> from truemorph.bias.transitions import RayleighTransition
    >>> rng = np.random.default_rng(0)
    >>> alpha = rng.lognormal(2.5, 0.45, 20000)
    >>> disk = rng.random(20000) < 0.7
    >>> labels = (disk & (rng.random(20000) > RayleighTransition(10.0).flip_probability(alpha))).astype(int)
    >>> found = debiased_fractions(labels, alpha, fit_transition(labels, alpha), bins=5, systematic=False)
    >>> bool(np.all(np.abs(found.fractions[:, 1] - 0.7) < 4 * found.stderr[:, 1]))
    True
    """
    if transition is None and gold is None:
        raise InputError("debiased_fractions needs a transition, gold labels (gold=), or both")
    if gold is None and covariates is not None:
        raise InputError("covariates help to regress gold labels: pass gold= too, or leave them out")
    fit = transition if isinstance(transition, TransitionFit) else None
    used: Transition | None = transition.transition if isinstance(transition, TransitionFit) else transition
    if used is not None and not hasattr(used, "log_matrix"):
        raise InputError(f"transition must be a T(alpha) or a fit of one; got {type(used).__name__}")
    observables = float_array(alpha, "alpha")
    if observables.ndim == 2 and observables.shape[1] == 1:
        observables = observables[:, 0]
    first = observables if observables.ndim == 1 else observables[:, 0]
    as_resolution(first)
    n_classes = used.n_classes if used is not None else classes_in(labels, gold)
    checked = check_labels(labels, n_classes)
    column = first if by is None else float_array(by, name).reshape(-1)
    if not checked.size == first.size == column.size:
        raise InputError(
            f"labels, alpha and by must have one value a galaxy; got {checked.size}, {first.size} and {column.size}"
        )
    if not np.all(np.isfinite(column)):
        raise InputError(f"{name} has {int(np.sum(~np.isfinite(column)))} missing values; leave those rows out")
    if not 1 <= bins <= checked.size or bins != int(bins):
        raise InputError(f"bins must be between 1 and the number of galaxies ({checked.size}); got {bins}")
    if by is not None and name == "alpha":
        name = "by"
    same = fit is not None and fit.made_from(checked, observables)
    if weights is None and same and fit is not None:
        weights = fit.inputs.per_row.get("weights")
    w = None if weights is None else check_weights(weights, checked.size)
    cut = Bins.cut(column, int(bins), w)
    sample = _Sample(checked, observables, cut, fit)
    labelled = cut.means(np.eye(n_classes)[checked])
    alternatives: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    findings: list[Finding] = []
    trusted, columns = None, None
    if gold is not None:
        trusted = check_gold(gold, checked.size, n_classes)
        columns = None if covariates is None else _covariates(covariates, checked.size)
        findings = selection_findings(np.eye(n_classes)[checked], observables, trusted, w)
        if by is not None and np.ptp(column) > 0:
            # What the bins are cut in may say more about the class than label and α do.
            standard = (column - column.mean()) / column.std()
            extra = np.column_stack([standard, standard**2 - 1])
            columns = extra if columns is None else np.column_stack([columns, extra])
        found = model_assisted(checked, observables, trusted, columns, cut, n_classes, seed)
        fractions, stderr = found.fractions, found.stderr
        method, assumption = "gold", "gold labels are right, and known for a random part of the rows"
        if found.shrinkage > 0.5:
            findings.append(
                Finding(
                    "gold-regression-poor",
                    "note",
                    "The regression does not describe the gold labels well, so each bin rests mostly on its own gold "
                    "labels.",
                )
            )
        if used is not None:
            alternatives["the given T inverted"] = _inverted(sample, used, fit)[:2]
        if systematic and observables.ndim == 1 and n_classes == 2:
            for family, one in _families_not_rejected(checked, observables, trusted, w, seed).items():
                alternatives[f"{family}, gold"] = _inverted(sample, one.transition, one)[:2]
    else:
        assert used is not None
        fractions, stderr, findings = _inverted(sample, used, fit)
        method, assumption = "inversion of T", "T(alpha) is right"
        if fit is not None:
            assumption = fit.assumption
            if systematic:
                alternatives = _other_fits(sample, fit)
                if fit.method in FROM_LABELS:
                    errors = np.sqrt(labelled * (1 - labelled) / cut.effective_counts()[:, None])
                    alternatives["labels as given"] = (labelled, errors)
        if fit is not None and fit.method == "conditional":
            findings.append(
                Finding(
                    "disk-definition-unknown",
                    "caution",
                    "Labels and intrinsic columns do not tell which definition of a disk is meant. Under a narrower "
                    "one (without lenticulars, say) the true fraction may lie outside the range, towards the labels.",
                    "Give gold labels (`gold`), whose definition the fractions then follow.",
                )
            )
    if bootstrap:
        stderr = _bootstrap_errors(sample, used, trusted, columns, n_classes, bootstrap, seed)
    everything = {method: (fractions, stderr), **alternatives}
    low = np.min([value - _NORMAL_95 * error for value, error in everything.values()], axis=0)
    high = np.max([value + _NORMAL_95 * error for value, error in everything.values()], axis=0)
    return PopulationFractions(
        fractions=fractions,
        stderr=stderr,
        low=np.clip(low, 0, 1),
        high=np.clip(high, 0, 1),
        labelled=labelled,
        edges=cut.edges,
        counts=np.bincount(cut.index, minlength=bins),
        alternatives=alternatives,
        method=method,
        assumption=assumption,
        findings=unique(fit.findings if fit is not None and gold is None else (), findings),
        by=name,
        middles=cut.middles,
    )
