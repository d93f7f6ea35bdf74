"""Class fractions of populations, with the labels' bias taken out and two kinds of error.

Without trusted labels each bin's fractions are found by inverting T: they maximise Σ log Σ_y f_y p(ỹ | y, α) in
the bin. With trusted labels p(y | ỹ, α, z) is regressed on them, averaged over all galaxies of a bin, and
corrected by the trusted rows' own residuals there (prediction-powered inference, Angelopoulos et al. 2023,
Science 382, 669; shrunk as in small-area estimation, Fay & Herriot 1979, JASA 74, 269): right even where the
regression is not, and not noisier than it where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from truemorph.arrays import float_array
from truemorph.bias.binning import bin_index
from truemorph.bias.estimation import TransitionFit, fit_transition
from truemorph.bias.evidence import UNKNOWN
from truemorph.bias.gold import TrustedRegression, check_gold
from truemorph.bias.likelihood import check_labels
from truemorph.bias.maximum import differences
from truemorph.bias.transitions import DISK, Array, Transition, as_resolution
from truemorph.errors import InputError

FOLDS = 5
_BAND_FAMILIES = ("rayleigh", "weibull", "fisk")
_NORMAL_95 = 1.96
_EM_STEPS = 2000


@dataclass(frozen=True)
class PopulationFractions:
    """Class fractions in bins, debiased.

    Attributes
    ----------
    fractions, stderr : array, shape (B, K)
        True class fractions of each bin, and their statistical error (labels, T's covariance, regression).
    low, high : array, shape (B, K)
        95 % statistical range of the lowest and the highest of all `alternatives`: statistical and systematic.
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
    warnings : tuple of str
    by : str
        Name of the binning column.
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
    warnings: tuple[str, ...]
    by: str = "alpha"
    middles: np.ndarray = field(default_factory=lambda: np.empty(0))

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

        return plot_fractions(self, ax, truth, label_class)


@dataclass(frozen=True)
class _Bins:
    index: np.ndarray  # (N,)
    edges: np.ndarray
    middles: np.ndarray
    count: int

    @classmethod
    def cut(cls, column: np.ndarray, bins: int) -> _Bins:
        order = np.argsort(column, kind="stable")
        index = np.empty(column.size, dtype=np.int64)
        index[order] = bin_index(column.size, bins)
        begins = np.searchsorted(index[order], np.arange(1, bins))
        inner = 0.5 * (column[order][begins - 1] + column[order][begins])
        edges = np.concatenate([[column.min()], inner, [column.max()]])
        middles = np.bincount(index, weights=column) / np.bincount(index)
        return cls(index, edges, middles, bins)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Mean of (N, K) values in each bin, shape (B, K)."""
        counts = np.bincount(self.index, minlength=self.count)
        return (
            np.stack([np.bincount(self.index, weights=v, minlength=self.count) for v in values.T], 1) / counts[:, None]
        )

    def shares(self) -> np.ndarray:
        """Weight of each galaxy in each bin's mean, shape (B, N)."""
        inside = self.index[None, :] == np.arange(self.count)[:, None]
        return inside / inside.sum(axis=1, keepdims=True)


def _invert(given: np.ndarray, bins: _Bins, start: np.ndarray) -> np.ndarray:
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


def _invert_two(given: np.ndarray, bins: _Bins, start: np.ndarray) -> np.ndarray:
    """Two classes: the slope of a concave likelihood, bisected in [0, 1]."""
    contrast = given[:, 1] - given[:, 0]
    low, high = np.zeros(bins.count), np.ones(bins.count)
    for _ in range(45):
        middle = 0.5 * (low + high)
        mixture = np.maximum(given[:, 0] + middle[bins.index] * contrast, 1e-300)
        slope = np.bincount(bins.index, weights=contrast / mixture, minlength=bins.count)
        low, high = np.where(slope > 0, middle, low), np.where(slope > 0, high, middle)
    disk = 0.5 * (low + high)
    return np.stack([1 - disk, disk], axis=1)


def _label_columns(transition: Transition, labels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """p(ỹ_n | y, α_n) for every y, shape (N, K)."""
    return np.asarray(transition.matrix(alpha))[np.arange(labels.size), :, labels]


def _inverted(
    transition: Transition, labels: np.ndarray, alpha: np.ndarray, bins: _Bins, fit: TransitionFit | None
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions by inversion, and their errors from the labels and from T's covariance, shape (B, K) each."""
    n_classes = transition.n_classes
    labelled = bins.means(np.eye(n_classes)[labels])
    fractions = _invert(_label_columns(transition, labels, alpha), bins, labelled)
    counts = np.bincount(bins.index, minlength=bins.count)
    # Binomial error of the labels, carried through the mean T of the bin (delta method).
    matrices = np.asarray(transition.matrix(alpha))
    mean = np.stack([bins.means(matrices[:, y]) for y in range(n_classes)], axis=1)  # (B, y, ỹ)
    shares = np.clip(np.einsum("by,bys->bs", fractions, mean), 1.0 / (counts[:, None] + 2), None)
    variance = np.empty_like(fractions)
    for b in range(bins.count):
        multinomial = (np.diag(shares[b]) - np.outer(shares[b], shares[b])) / counts[b]
        inverse = np.linalg.pinv(mean[b].T)
        variance[b] = np.diag(inverse @ multinomial @ inverse.T)
    if fit is not None and fit.space is not None and fit.space.size:
        space = fit.space
        known = ~np.isnan(np.diag(fit.covariance))

        def moved(at: np.ndarray) -> np.ndarray:
            made = fit.transition if fit.votes is not None else space.build(at)
            return _invert(_label_columns(made, labels, alpha), bins, fractions)

        if known.any():
            slopes = differences(moved, fit.point)[known]
            covariance = fit.covariance[np.ix_(known, known)]
            variance += np.einsum("pbk,pq,qbk->bk", slopes, covariance, slopes)
    return fractions, np.sqrt(variance)


@dataclass(frozen=True)
class _Assisted:
    fractions: np.ndarray
    stderr: np.ndarray
    shrinkage: float


def _model_assisted(
    labels: np.ndarray,
    alpha: np.ndarray,
    trusted: np.ndarray,
    columns: np.ndarray | None,
    bins: _Bins,
    seed: int,
) -> _Assisted:
    """Regression on trusted rows averaged over bins, corrected by their residuals as far as these are significant.

    Residuals are those of galaxies held out of the regression (five folds). Their scatter over bins beyond what
    chance gives, τ² (DerSimonian & Laird 1986), says how wrong the regression is: bin b's residual enters with
    weight τ² / (τ² + s_b²), which goes to 1 as trusted rows grow in number.
    """
    n_classes = int(max(labels.max(), trusted.max())) + 1
    model = TrustedRegression.fit(labels, alpha, trusted, columns)
    design = model.design(labels, alpha, columns)
    predicted = model.probabilities(design)
    fractions = bins.means(predicted)
    slopes = model.mean_slopes(design, bins.shares())  # (B, K, Q)
    variance = np.einsum("bkq,qr,bkr->bk", slopes, model.covariance(), slopes)
    counts = np.bincount(bins.index, minlength=bins.count)
    spread = bins.means(predicted**2) - fractions**2
    variance += np.maximum(spread, 0) / counts[:, None]

    known = np.flatnonzero(trusted != UNKNOWN)
    fold = np.random.default_rng(seed).permutation(known.size) % FOLDS
    residual = np.zeros((known.size, n_classes))
    noise = np.zeros((known.size, n_classes))
    truth = np.eye(n_classes)[trusted[known]]
    for k in range(FOLDS):
        kept = np.full(labels.size, UNKNOWN)
        kept[known[fold != k]] = trusted[known[fold != k]]
        other = TrustedRegression.fit(labels, alpha, kept, columns)
        p = other.probabilities(design[known[fold == k]])
        residual[fold == k] = truth[fold == k, : other.n_classes] - p
        noise[fold == k] = p * (1 - p)
    at = bins.index[known]
    gold_counts = np.bincount(at, minlength=bins.count)
    usable = gold_counts > 1
    correction = np.zeros_like(fractions)
    weight = np.zeros_like(fractions)
    extra = np.zeros_like(fractions)
    for c in range(n_classes):
        sums = np.bincount(at, weights=residual[:, c], minlength=bins.count)
        mean = np.divide(sums, gold_counts, out=np.zeros(bins.count), where=usable)
        square = np.bincount(at, weights=noise[:, c], minlength=bins.count)
        s2 = np.divide(square, gold_counts**2, out=np.full(bins.count, np.inf), where=usable)
        s2 = np.maximum(s2, 1e-9)
        tau2 = _excess_variance(mean[usable], s2[usable])
        weight[:, c] = np.where(usable, tau2 / (tau2 + s2), 0.0)
        correction[:, c] = weight[:, c] * mean
        extra[:, c] = np.where(usable, weight[:, c] ** 2 * s2, tau2) + np.where(
            usable, (1 - weight[:, c]) ** 2 * tau2, 0
        )
    corrected = np.clip(fractions + correction, 0.0, 1.0)
    corrected /= corrected.sum(axis=1, keepdims=True)
    # As the residual takes over, the regression's own error cancels out of the sum.
    variance = (1 - weight) ** 2 * variance + extra
    return _Assisted(corrected, np.sqrt(variance), float(weight.mean()))


def _other_fits(
    fit: TransitionFit, labels: np.ndarray, alpha: np.ndarray, bins: _Bins
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inversions of the other families, fitted by the same method to the data of the fit."""
    out = {}
    for family in _BAND_FAMILIES:
        if family == fit.family or fit.transition.n_classes != 2 or fit.alpha.ndim != 1:
            continue
        try:
            one = fit.inputs.again(family=family)
        except InputError:
            continue
        out[f"{family}, {fit.method}"] = _inverted(one.transition, labels, alpha, bins, one)
    return out


def _covariates(covariates: Array, n: int) -> np.ndarray:
    columns = float_array(covariates, "covariates")
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.shape[0] != n:
        raise InputError(f"covariates must have shape ({n}, P), one row a galaxy; got {columns.shape}")
    bad = np.flatnonzero(~np.isfinite(columns).all(axis=1))
    if bad.size:
        raise InputError(f"covariates has {bad.size} rows with a missing value (first: row {bad[0]})")
    return columns


def _excess_variance(values: np.ndarray, variances: np.ndarray) -> float:
    """Scatter of values about zero beyond their errors, τ² (method of moments)."""
    weights = 1 / variances
    excess = np.sum(weights * values**2) - values.size
    denominator = weights.sum() - np.sum(weights**2) / weights.sum() if values.size > 1 else weights.sum()
    return float(max(0.0, excess / denominator)) if denominator > 0 else 0.0


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
    name: str = "alpha",
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
        Equal-count bins.
    gold : array of int, shape (N,), optional
        True classes of a random part of the rows, -1 elsewhere. The fractions then follow the definition of these
        labels, and hold whether or not T is right.
    covariates : array, shape (N, P), optional
        Further columns for p(y | ỹ, α, z) of trusted rows; anything that helps to tell the true class.
    systematic : bool, default True
        Whether to fit the alternatives that the band runs over.
    name : str, default "alpha"
        Of the binning column, for pictures.
    seed : int
        Of the folds.

    Returns
    -------
    PopulationFractions
        Without trusted labels and without intrinsic properties in the fit nothing tells flips from a real change
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
        raise InputError("debiased_fractions needs a transition, trusted labels (gold=), or both")
    fit = transition if isinstance(transition, TransitionFit) else None
    used: Transition | None = fit.transition if fit is not None else transition  # type: ignore[assignment]
    observables = float_array(alpha, "alpha")
    first = observables if observables.ndim == 1 else observables[:, 0]
    as_resolution(first)
    n_classes = used.n_classes if used is not None else max(2, int(np.max(np.asarray(gold))) + 1)
    checked = check_labels(labels, n_classes)
    column = first if by is None else float_array(by, name)
    if not checked.size == first.size == column.size:
        raise InputError(
            f"labels, alpha and by must have one value a galaxy; got {checked.size}, {first.size} and {column.size}"
        )
    if not np.all(np.isfinite(column)):
        raise InputError(f"{name} has {int(np.sum(~np.isfinite(column)))} missing values; leave those rows out")
    if not 1 <= bins <= checked.size:
        raise InputError(f"bins must be between 1 and the number of galaxies ({checked.size}); got {bins}")
    if by is not None and name == "alpha":
        name = "by"
    cut = _Bins.cut(column, bins)
    labelled = cut.means(np.eye(n_classes)[checked])
    alternatives: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    notes: list[str] = []
    if gold is not None:
        trusted = check_gold(gold, checked.size, n_classes)
        columns = None if covariates is None else _covariates(covariates, checked.size)
        found = _model_assisted(checked, observables, trusted, columns, cut, seed)
        fractions, stderr = found.fractions, found.stderr
        method, assumption = "gold", "trusted labels are right, and known for a random part of the rows"
        if found.shrinkage > 0.5:
            notes.append("the regression on trusted labels does not describe them well: their own fractions weigh most")
        if used is not None:
            alternatives["the given T inverted"] = _inverted(used, checked, observables, cut, fit)
        if systematic and observables.ndim == 1 and n_classes == 2:
            for family in _BAND_FAMILIES:
                try:
                    one = fit_transition(checked, observables, family, gold=trusted, gold_weight=0.0, seed=seed)
                except InputError:
                    continue
                alternatives[f"{family}, gold"] = _inverted(one.transition, checked, observables, cut, one)
    else:
        assert used is not None
        fractions, stderr = _inverted(used, checked, observables, cut, fit)
        method, assumption = "inversion of T", "T(alpha) is right"
        if fit is not None:
            assumption = fit.assumption
            if systematic:
                alternatives = _other_fits(fit, checked, observables, cut)
                if fit.method in ("likelihood", "binned", "votes"):
                    errors = np.sqrt(labelled * (1 - labelled) / np.bincount(cut.index)[:, None])
                    alternatives["labels as given"] = (labelled, errors)
                    notes.append(
                        "labels alone can't tell flips from a real change of class fractions with alpha, nor which "
                        "definition of a disk is meant: the band reaches to the labels as given"
                    )
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
        warnings=tuple(notes),
        by=name,
        middles=cut.middles,
    )
