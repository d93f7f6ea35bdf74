"""Estimating T(α): one function, five methods, one result.

`binned` is the paper's (Medina-Rosales et al., arXiv:2308.11007, section 2.3.3); `likelihood` the same assumption
without bins; `conditional` lets class fractions depend on intrinsic properties; `gold` uses trusted labels; and
counts of votes are taken as they are. Every result names the assumption it rests on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.special import log_softmax, xlogy

from truemorph.arrays import float_array
from truemorph.bias import conditional
from truemorph.bias import gold as trusted_labels
from truemorph.bias import votes as vote_counts
from truemorph.bias.binning import bin_index
from truemorph.bias.evidence import UNKNOWN, Evidence
from truemorph.bias.families import FAMILIES
from truemorph.bias.likelihood import check_labels, label_log_likelihood, observed_log_probabilities
from truemorph.bias.maximum import differences, invert
from truemorph.bias.spaces import Space, space_of
from truemorph.bias.transitions import CLASS_NAMES, DISK, SMOOTH, Array, Transition, as_resolution
from truemorph.errors import InputError

METHODS = ("likelihood", "binned", "conditional", "gold", "votes")
ASSUMPTIONS = {
    "likelihood": "true class fractions do not depend on alpha",
    "binned": "true class fractions do not depend on alpha",
    "conditional": "true class fractions do not depend on alpha at fixed intrinsic properties",
    "gold": "trusted labels are right, and known for a random part of the rows",
    "votes": "true class fractions do not depend on alpha; votes are beta-binomial around the mean of a class",
}

# Half of the 95 % point of chi-squared with one degree of freedom.
SIGNIFICANT_GAIN = 1.92


@dataclass(frozen=True)
class FitInputs:
    """What a fit was made from, so that it can be made again: on a resample, or with another family."""

    labels: np.ndarray
    alpha: np.ndarray
    options: dict[str, Any]
    per_row: dict[str, np.ndarray]

    def again(self, rows: np.ndarray | None = None, **changes: Any) -> TransitionFit:
        """Fit once more, to some rows or with other options."""
        chosen = slice(None) if rows is None else rows
        arrays = {name: values[chosen] for name, values in self.per_row.items()}
        return fit_transition(self.labels[chosen], self.alpha[chosen], **{**self.options, **arrays, **changes})


@dataclass(frozen=True)
class TransitionFit:
    """An estimate of T(α) with its errors.

    Attributes
    ----------
    transition : Transition
        T(α) at the best parameters; of the majority label where vote counts were fitted.
    class_fractions : array, shape (K,)
        True class fractions, in the order smooth, disk; averaged over galaxies where they depend on z.
    stderr : dict of str to float
        Standard error of each parameter, and of the disk fraction ("disk_fraction"); NaN where the data do
        not set one (see `warnings`). From the observed information; from the sandwich where rows have weights;
        from bootstrap if that was asked for (the monotone form has no other).
    log_likelihood : float
        Log-likelihood of the labels at the estimate, weighted if weights were given, whatever the method.
        With trusted labels: of those and, with their weight, of the others.
    aic : float
        Akaike's criterion, 2 × parameters - 2 log-likelihood.
    warnings : tuple of str
        Reasons not to trust the estimate as it stands.
    method, family, assumption : str
        How it was made, and what it rests on.
    n_objects : int
        Galaxies used.
    values : dict of str to float
        The parameters, by the names of `stderr`.
    n_parameters : int
        Free parameters, class fractions included.
    covariance : array, shape (P, P)
        Of the unconstrained parameters `point` of `space`.
    gold_weight : float or None
        With trusted labels: the weight of the rows without one (chosen by cross-validation unless given).
    flip_log_likelihood : float
        With trusted labels: Σ log p(ỹ | y, α) of the trusted rows; NaN without.
    probabilities : array, shape (N, K), or None
        p(y | z) where intrinsic properties were given.
    votes : VoteModel or None
        Where vote counts were fitted: the transition of a single vote, and the over-dispersion.
    """

    transition: Transition
    class_fractions: np.ndarray
    stderr: dict[str, float]
    log_likelihood: float
    aic: float
    warnings: tuple[str, ...]
    method: str
    family: str
    assumption: str
    n_objects: int
    values: dict[str, float]
    n_parameters: int
    space: Space | None
    point: np.ndarray
    covariance: np.ndarray
    inputs: FitInputs = field(repr=False)
    gold_weight: float | None = None
    flip_log_likelihood: float = float("nan")
    probabilities: np.ndarray | None = field(default=None, repr=False)
    votes: vote_counts.VoteModel | None = None

    @property
    def labels(self) -> np.ndarray:
        """Observed labels, shape (N,); the majority where votes were fitted."""
        labels = self.inputs.labels
        return labels if labels.ndim == 1 else (labels[:, DISK] > labels[:, SMOOTH]).astype(np.int64)

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,), or observables, shape (N, J)."""
        return self.inputs.alpha

    def bootstrap(self, resamples: int = 100, seed: int = 0) -> list[TransitionFit]:
        """Fit to resampled galaxies; resamples in which the fit can't be made are left out."""
        rng = np.random.default_rng(seed)
        n = self.n_objects
        fits = []
        for _ in range(resamples):
            try:
                fits.append(self.inputs.again(rng.integers(0, n, n), bootstrap=0, gold_weight=self.gold_weight))
            except InputError:
                continue
        return fits

    def plot(self, ax: Any = None, bins: int = 12) -> Any:
        """Draw binned labels with the fitted curves; with trusted labels, their flips.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw; a new figure if not given.
        bins : int, default 12
            Equal-count bins for the points.

        Returns
        -------
        matplotlib axes
        """
        from truemorph.bias.plots import plot_fit

        return plot_fit(self, ax, bins)


@dataclass(frozen=True)
class _Estimate:
    """What a method found: T's point and covariance, fractions with their error, and the rest of a result."""

    transition: Transition
    point: np.ndarray
    covariance: np.ndarray
    fractions: np.ndarray
    fraction_stderr: float
    log_likelihood: float
    n_parameters: int
    notes: tuple[str, ...] = ()
    fraction_at_bound: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    more_values: dict[str, float] = field(default_factory=dict)
    more_stderr: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Data:
    """Checked input."""

    labels: np.ndarray
    alpha: np.ndarray
    n_classes: int
    weights: np.ndarray | None
    trusted: np.ndarray | None
    votes: np.ndarray | None

    @property
    def evidence(self) -> Evidence:
        return Evidence.of(self.labels, self.alpha, self.n_classes, self.trusted, self.weights)


def _by_likelihood(space: Space, data: _Data) -> _Estimate:
    """Maximise Σ w log p(ỹ | α) (eq. 15)."""
    evidence = data.evidence
    coarse = evidence.rough(64)
    begin = trusted_labels.maximise_joint(
        space, coarse, trusted_labels.joint_starts(space, coarse), curvature=False
    ).point
    fine = evidence.grouped()
    best = trusted_labels.polish_joint(space, evidence, trusted_labels.maximise_joint(space, fine, begin[None]))
    weighted = data.weights is not None
    products = trusted_labels.score_products(space, fine, best.point) if weighted else None
    return _with_fractions(space, data, best.point, best.covariance(products), best.free)


def _with_fractions(
    space: Space, data: _Data, point: np.ndarray, covariance: np.ndarray, free: np.ndarray
) -> _Estimate:
    """Turn a joint point of T and class fractions into an estimate."""
    n = space.size
    log_fractions = log_softmax(np.concatenate([[0.0], point[n:]]))
    transition = space.build(point[:n])
    fractions = np.exp(log_fractions)

    def disk_fraction(at: np.ndarray) -> np.ndarray:
        return np.exp(log_softmax(np.concatenate([[0.0], at])))[DISK : DISK + 1]

    slopes = differences(disk_fraction, point[n:])[:, 0]
    variance = slopes @ covariance[n:, n:] @ slopes
    return _Estimate(
        transition,
        point[:n],
        covariance[:n, :n],
        fractions,
        float(np.sqrt(variance)) if variance > 0 else float("nan"),
        data.evidence.log_likelihood(transition, log_fractions),
        point.size,
        fraction_at_bound=not free[n:].all(),
    )


def _by_bins(space: Space, data: _Data, bins: int) -> _Estimate:
    """The paper's estimator: least squares on class fractions at the midpoints of equal-count bins (eq. 16)."""
    labels, alpha, weights = data.labels, data.alpha, data.weights
    if alpha.ndim == 2:
        raise InputError("binned takes one resolution, alpha of shape (N,)")
    n_free = space.size + data.n_classes - 1
    notes: list[str] = []
    if bins < n_free + 1:
        raise InputError(f"binned needs more bins than parameters ({n_free}); got {bins}")
    if bins > labels.size:
        notes.append(f"{bins} bins asked for {labels.size} galaxies: used one galaxy a bin")
        bins = labels.size
    order = np.argsort(alpha, kind="stable")
    index = bin_index(order.size, bins)
    sorted_alpha = alpha[order]
    ends = np.flatnonzero(np.diff(index, append=bins))
    begins = np.concatenate([[0], ends[:-1] + 1])
    midpoints = 0.5 * (sorted_alpha[begins] + sorted_alpha[ends])
    members = np.eye(data.n_classes)[labels[order]]
    if weights is not None:
        members = members * weights[order, None]
    observed = np.stack([np.bincount(index, weights=column) for column in members.T], axis=1)
    observed = observed / observed.sum(axis=1, keepdims=True)

    def residuals(point: np.ndarray) -> np.ndarray:
        transition = space.build(point[: space.size])
        log_fractions = log_softmax(np.concatenate([[0.0], point[space.size :]]))
        rows = np.broadcast_to(log_fractions, (midpoints.size, data.n_classes))
        return (np.exp(observed_log_probabilities(rows, midpoints, transition)) - observed).ravel()

    lower, upper = trusted_labels.joint_bounds(space, data.n_classes)
    least_biased = np.clip(observed[-1], 0.01, 0.99)
    start = np.concatenate([space.starts[0], np.log(least_biased[1:] / least_biased[0])])
    start = np.clip(start, lower + 1e-6, upper - 1e-6)
    point = least_squares(residuals, start, bounds=(lower, upper), x_scale="jac").x
    free = (point - lower > 1e-3) & (upper - point > 1e-3)
    slopes = differences(residuals, point)[free].reshape(free.sum(), bins, -1)
    errors = residuals(point).reshape(bins, -1)
    # Bins are independent, the classes within one are not: sum over classes before the outer product.
    scores = np.einsum("pbk,bk->pb", slopes, errors)
    bread = invert(np.einsum("pbk,qbk->pq", slopes, slopes))
    covariance = np.full((point.size, point.size), np.nan)
    covariance[np.ix_(free, free)] = bread @ (scores @ scores.T) @ bread
    estimate = _with_fractions(space, data, point, covariance, free)
    return _replaced(estimate, notes=tuple(notes))


def _replaced(estimate: _Estimate, **changes: Any) -> _Estimate:
    return _Estimate(**{**estimate.__dict__, **changes})


def _by_gold(space: Space, data: _Data, weight: float | None, seed: int) -> _Estimate:
    """Flips of trusted rows, joined by the others with a weight."""
    assert data.trusted is not None
    found = trusted_labels.fit_with_gold(space, data.evidence, weight, seed)
    best = found.maximum
    estimate = _with_fractions(space, data, best.point, found.covariance, best.free)
    notes = []
    if found.weight == 0:
        # Without the others the class fractions of the fit are those of the trusted rows.
        notes.append("the other rows were left out: held-out trusted labels are predicted better without them")
    if weight is not None:
        notes = []
    return _replaced(
        estimate,
        log_likelihood=best.value,
        notes=tuple(notes),
        extra={
            "gold_weight": found.weight,
            "flip_log_likelihood": _flip_log_likelihood(estimate.transition, data),
        },
    )


def _flip_log_likelihood(transition: Transition, data: _Data) -> float:
    assert data.trusted is not None
    known = data.trusted != UNKNOWN
    weights = np.ones(known.sum()) if data.weights is None else data.weights[known]
    part = Evidence.of(data.labels[known], data.alpha[known], data.n_classes, data.trusted[known], weights)
    return part.log_likelihood(transition, np.zeros(data.n_classes))


def _by_bayes(data: _Data, columns: np.ndarray | None) -> _Estimate:
    """A tabulated T(α) from p(y | ỹ, α, z) regressed on trusted rows."""
    assert data.trusted is not None
    if data.alpha.ndim == 2:
        raise InputError("tabulated takes one resolution, alpha of shape (N,)")
    regression = trusted_labels.TrustedRegression.fit(data.labels, data.alpha, data.trusted, columns, data.weights)
    transition = trusted_labels.transition_by_bayes(regression, data.labels, data.alpha, columns)
    design = regression.design(data.labels, data.alpha, columns)
    weights = np.ones(data.labels.size) if data.weights is None else data.weights
    share = (weights / weights.sum())[None, :]
    fractions = (share @ regression.probabilities(design))[0]
    slope = regression.mean_slopes(design, share)[0, DISK]
    flips = _flip_log_likelihood(transition, data)
    return _Estimate(
        transition,
        np.empty(0),
        np.empty((0, 0)),
        fractions,
        float(np.sqrt(slope @ regression.covariance() @ slope)),
        flips,
        regression.regression.coefficients.size,
        extra={"flip_log_likelihood": flips, "gold_weight": 0.0},
    )


def _by_condition(space: Space, data: _Data, columns: np.ndarray, class_model: str, seed: int) -> _Estimate:
    """EM with p(y | z)."""
    if class_model == "logistic":
        found = conditional.fit_logistic(space, data.evidence, conditional.standardised(columns), seed)
    elif class_model == "trees":
        found = conditional.fit_trees(space, data.evidence, columns, seed)
    else:
        raise InputError(f'class_model is "logistic" or "trees"; got {class_model!r}')
    n = space.size
    probabilities = np.exp(found.log_probabilities)
    weights = np.ones(data.labels.size) if data.weights is None else data.weights
    fractions = np.average(probabilities, axis=0, weights=weights)
    # The disk fraction is a mean of p(y | z): its error by the delta method, and the scatter of a mean.
    p = probabilities[:, DISK]
    inner = conditional.class_variances(probabilities)[:, DISK - 1]  # (N, K - 1)
    slope = np.einsum("nk,nq->kq", inner * (weights / weights.sum())[:, None], found.design).ravel()
    variance = np.var(p) / p.size + slope @ found.covariance[n:, n:] @ slope
    return _Estimate(
        space.build(found.point[:n]),
        found.point[:n],
        found.covariance[:n, :n],
        fractions,
        float(np.sqrt(variance)),
        found.log_likelihood,
        found.point.size,
        extra={"probabilities": probabilities},
    )


def _by_votes(space: Space, data: _Data, seed: int) -> _Estimate:
    """Beta-binomial mixture of counts."""
    assert data.votes is not None
    found = vote_counts.fit_votes(space, data.votes, data.alpha, data.trusted, seed)
    best, n = found.maximum, space.size
    covariance = best.covariance()
    model = found.model()
    fractions = model.class_fractions
    variance = covariance[n, n]
    names = ("overdispersion_smooth", "overdispersion_disk")
    rho = model.overdispersion
    rho_stderr = rho * (1 - rho) * np.sqrt(np.diag(covariance)[n + 1 :])
    return _Estimate(
        model.label_transition(data.alpha),
        best.point[:n],
        covariance[:n, :n],
        fractions,
        float(fractions[0] * fractions[1] * np.sqrt(variance)) if variance > 0 else float("nan"),
        best.value,
        best.point.size,
        fraction_at_bound=not best.free[n],
        extra={"votes": model},
        more_values=dict(zip(names, rho.tolist(), strict=True)),
        more_stderr=dict(zip(names, rho_stderr.tolist(), strict=True)),
    )


def _warnings(space: Space, estimate: _Estimate, stderr: dict[str, float], data: _Data, method: str) -> list[str]:
    notes = []
    values = dict(zip(space.names, space.values(estimate.point).tolist(), strict=True))
    at_bound = (estimate.point - space.lower < 1e-3) | (space.upper - estimate.point < 1e-3)
    for name, value in values.items():
        if name == "false_disk" or space.family in ("monotone", "matrix", "logistic"):
            continue
        if at_bound[space.names.index(name)]:
            notes.append(f"{name} = {value:.3g} sits at the edge of its search range: the labels do not determine it")
        elif not stderr[name] < 0.5 * value:
            notes.append(f"{name} is known to no better than half its value: the likelihood is nearly flat")
    if estimate.fraction_at_bound:
        notes.append(
            "a class fraction is at 0 or 1: labels alone can't tell flips from a missing class here; "
            "errors of the other parameters hold it fixed"
        )
    if space.family == "monotone" and method not in ("gold", "conditional"):
        notes.append("assumes that the best resolved galaxies are labelled without flips: labels alone can't tell")
    alpha = data.alpha if data.alpha.ndim == 1 else data.alpha[:, 0]
    if np.ptp(alpha) < 1e-9 * np.abs(alpha).max():
        notes.append("every galaxy has the same alpha: T(alpha) can't be learned from these labels")
    return notes


def _drift_notes(estimate: _Estimate, data: _Data, name: str) -> list[str]:
    """Whether the labels need a T at all, and labels that no T explains."""
    notes = []
    alpha, labels = data.alpha, data.labels
    impossible = int(np.sum((alpha == 0) & (labels == 1)))
    if impossible:
        notes.append(f"{impossible} disk labels at alpha = 0, where no disk can be seen: check their radii")
    resolved = alpha > 0
    weights = np.ones(labels.size) if data.weights is None else data.weights
    with np.errstate(divide="ignore"):
        rows = np.broadcast_to(np.log(estimate.fractions), (labels.size, data.n_classes))
    by_galaxy = weights * label_log_likelihood(rows, labels, alpha, estimate.transition)
    shares = np.bincount(labels[resolved], weights=weights[resolved], minlength=data.n_classes)
    gain = float(by_galaxy[resolved].sum() - np.sum(xlogy(shares, shares / shares.sum())))
    if gain < SIGNIFICANT_GAIN:
        notes.append(
            f"the labels show no significant drift with alpha (log-likelihood {gain:.1f} above constant fractions): "
            f"{name} is an upper limit at most"
        )
    return notes


def _checked(labels: Any, alpha: Any, gold: Any, weights: Any, n_classes: int | None, method: str) -> _Data:
    """Check shapes and values of everything that has one entry a galaxy."""
    observed = np.asarray(labels)
    counts = None
    if method == "votes" or (observed.ndim == 2 and np.issubdtype(observed.dtype, np.integer)):
        counts = vote_counts.check_votes(observed)
        observed = (counts[:, DISK] > counts[:, SMOOTH]).astype(np.int64)
    resolution = float_array(alpha, "alpha")
    if resolution.ndim == 2 and resolution.shape[1] == 1:
        resolution = resolution[:, 0]
    first = resolution if resolution.ndim == 1 else resolution[:, 0]
    as_resolution(first)
    if not np.all(np.isfinite(resolution)) or not np.any(first > 0):
        raise InputError("alpha must be finite, and positive for some galaxies, to estimate T(alpha)")
    if n_classes is None:
        largest = [int(np.max(one, initial=0)) for one in (observed, gold) if one is not None and _whole(one)]
        n_classes = max([2, *(one + 1 for one in largest)]) if gold is not None else 2
    observed = check_labels(observed, n_classes)
    if observed.size != first.size:
        raise InputError(f"labels and alpha must have one value a galaxy; got {observed.size} and {first.size}")
    trusted = None if gold is None else trusted_labels.check_gold(gold, observed.size, n_classes)
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != first.shape or not np.all((weights > 0) & np.isfinite(weights)):
            raise InputError("weights must be positive and finite, one a galaxy")
        weights = weights / weights.mean()  # log-likelihoods then keep the scale of N galaxies
    present = np.unique(observed)
    if present.size < 2:
        only = CLASS_NAMES[int(present[0])] if present.size and n_classes == 2 else str(*present)
        raise InputError(f"only {only or 'no'} labels among {observed.size} galaxies: T(alpha) needs both classes")
    return _Data(observed, resolution, n_classes, weights, trusted, counts)


def _whole(values: Any) -> bool:
    array = np.asarray(values)
    return array.ndim == 1 and array.size > 0 and np.issubdtype(array.dtype, np.integer) and array.max() < 100


def _flips_seen(data: _Data) -> np.ndarray:
    """Flips that an estimator may find, shape (K, K): those that trusted rows show, else only into smooth (eq. 6)."""
    possible = np.eye(data.n_classes, dtype=bool)
    if data.trusted is None:
        possible[:, SMOOTH] = True
    else:
        known = data.trusted != UNKNOWN
        possible[data.trusted[known], data.labels[known]] = True
    return possible


def _false_disk(asked: float | str | None, data: _Data, method: str) -> float | None:
    """Fixed rate of false disks, or None to fit it."""
    if asked == "fit":
        return None
    if asked is not None:
        rate = float(asked)
        if not 0 <= rate < 1:
            raise InputError(f'false_disk is a probability, 0 <= false_disk < 1, or "fit"; got {asked}')
        return rate
    if method == "votes":
        return None  # some volunteers see features in any galaxy
    if data.trusted is not None and np.any((data.trusted == SMOOTH) & (data.labels == DISK)):
        return None
    return 0.0


def fit_transition(
    labels: Array,
    alpha: Array,
    family: str = "rayleigh",
    method: str | None = None,
    bins: int = 1525,
    intrinsic: Array | None = None,
    gold: Array | None = None,
    weights: Array | None = None,
    *,
    false_disk: float | str | None = None,
    class_model: str = "logistic",
    gold_weight: float | None = None,
    n_classes: int | None = None,
    knots: int = 8,
    log: Sequence[bool] | None = None,
    bootstrap: int = 0,
    seed: int = 0,
) -> TransitionFit:
    """Estimate T(α) from biased labels.

    Parameters
    ----------
    labels : array of int, shape (N,), or (N, 2)
        Observed labels, 0 = smooth, 1 = disk (0 … K-1 with K classes); or counts of smooth and disk votes.
    alpha : array, shape (N,), or (N, J) for family "logistic"
        Resolution; θ comes out in its unit. Or several observables, the resolution first.
    family : str, default "rayleigh"
        "rayleigh" (eq. 5), "weibull", "fisk" (log-logistic), "constant", "monotone" (falls with α, no shape),
        "matrix" (K×K, constant in α), "logistic" (K classes, several observables), or "tabulated" (trusted
        labels only: p(y | ỹ, α, z) regressed on them, turned into T(α) by Bayes' theorem).
    method : {None, "likelihood", "binned", "conditional", "gold", "votes"}
        None: "gold" if `gold` is given, "conditional" if `intrinsic` is, "votes" for counts, else "likelihood".
        "likelihood": unbinned maximum likelihood, assuming that class fractions do not depend on α. "binned":
        the paper's least squares over equal-count bins (eq. 16), for reproduction: few bins bias it, because the
        midpoint of the wide last bin is not where its galaxies are. "conditional": class fractions may depend on
        α through `intrinsic`. "gold": no assumption on class fractions. "votes": beta-binomial counts.
    bins : int, default 1525
        Bins of "binned": the paper's number, 64 galaxies each in its 97,600; at most one a galaxy.
    intrinsic : array, shape (N, P), optional
        Properties that classes depend on and that do not depend on resolution.
    gold : array of int, shape (N,), optional
        True classes where they are known, -1 elsewhere. They should be a random part of the rows.
    weights : array, shape (N,), optional
        Sampling weights, where galaxies were selected by their label (balanced samples). Errors are then of
        the sandwich form.
    false_disk : float, "fit" or None
        p(ỹ = disk | y = smooth), constant in α (eq. 6 has 0). None: 0, but fitted where trusted labels show
        such galaxies, and for votes.
    class_model : {"logistic", "trees"}
        p(y | z) of "conditional": logistic regression, or gradient-boosted trees, cross-fitted.
    gold_weight : float, optional
        Weight of the rows without a trusted label; None chooses 0, 0.1, 0.3 or 1 by cross-validation.
    n_classes : int, optional
        K, where labels alone don't show it.
    knots : int, default 8
        Of the monotone form.
    log : sequence of bool, length J, optional
        Which observables enter "logistic" by their logarithm; by default the first, the resolution.
    bootstrap : int, default 0
        Resamples from which `stderr` is taken instead; "monotone" and "tabulated" take 50 if none are asked for.
    seed : int, default 0
        Of bootstrap, folds and subsets.

    Returns
    -------
    TransitionFit

    Raises
    ------
    InputError
        If shapes disagree, α is NaN or negative, a label is not a class, only one class is present, the intrinsic
        columns determine α, or family and method don't go together.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> alpha = rng.lognormal(2.3, 0.45, 20000)
    >>> disk = rng.random(20000) < 0.75
    >>> flipped = rng.random(20000) < np.exp(-(alpha**2) / (2 * 11.25**2))
    >>> fit = fit_transition((disk & ~flipped).astype(int), alpha)
    >>> bool(abs(fit.transition.theta - 11.25) < 4 * fit.stderr["theta"])
    True
    """
    counted = np.ndim(labels) == 2
    if method is None:
        method = (
            "votes"
            if counted
            else "gold"
            if gold is not None
            else "conditional"
            if intrinsic is not None
            else "likelihood"
        )
    if method not in METHODS:
        raise InputError(f"method is one of {', '.join(METHODS)}; got {method!r}")
    if family not in FAMILIES:
        raise InputError(f"unknown family {family!r}; families to fit: {', '.join(FAMILIES)}")
    if method == "gold" and gold is None:
        raise InputError('method "gold" needs trusted labels: pass gold=, -1 where unknown')
    if method == "conditional" and intrinsic is None:
        raise InputError('method "conditional" needs properties to condition on: pass intrinsic=')
    use_gold = gold if method in ("gold", "votes") else None
    data = _checked(labels, alpha, use_gold, weights, n_classes, method)
    notes: list[str] = []
    columns = None
    if intrinsic is not None and (method == "conditional" or family == "tabulated"):
        columns, notes = conditional.check_intrinsic(intrinsic, data.labels.size)
    options = {
        "family": family, "method": method, "bins": bins, "false_disk": false_disk, "class_model": class_model,
        "gold_weight": gold_weight, "n_classes": data.n_classes, "knots": knots, "log": log, "seed": seed,
    }  # fmt: skip
    per_row = {"intrinsic": columns, "gold": data.trusted, "weights": weights if weights is None else data.weights}
    inputs = FitInputs(
        data.labels if data.votes is None else data.votes,
        data.alpha,
        options,
        {name: values for name, values in per_row.items() if values is not None},
    )

    space = None
    if family == "tabulated":
        if method != "gold":
            raise InputError('family "tabulated" needs trusted labels: pass gold=, -1 where unknown')
        estimate = _by_bayes(data, columns)
    else:
        if family in ("constant", "matrix") and method != "gold":
            raise InputError(
                f"{family}: flips that don't change with alpha look like other class fractions; "
                "they need trusted labels (gold=)"
            )
        space = space_of(
            family,
            data.alpha,
            n_classes=data.n_classes,
            seen=_flips_seen(data),
            anchored=method in ("likelihood", "binned"),
            false_disk=_false_disk(false_disk, data, method),
            knots=knots,
            log=log,
        )
        if method == "likelihood":
            estimate = _by_likelihood(space, data)
        elif method == "binned":
            estimate = _by_bins(space, data, bins)
        elif method == "gold":
            estimate = _by_gold(space, data, gold_weight, seed)
        elif method == "votes":
            estimate = _by_votes(space, data, seed)
        else:
            assert columns is not None
            notes += _explained_notes(data, columns, seed)
            estimate = _by_condition(space, data, columns, class_model, seed)

    return _result(space, estimate, data, inputs, notes, bootstrap, seed)


def _explained_notes(data: _Data, columns: np.ndarray, seed: int) -> list[str]:
    first = data.alpha if data.alpha.ndim == 1 else data.alpha[:, 0]
    explained = conditional.explained_variance(first, columns, seed)
    if explained > conditional.REFUSED:
        raise InputError(
            f"the intrinsic columns determine alpha (R² = {explained:.4f} of log alpha): at constant PSF nothing is "
            "left to learn flips from; leave out radius or redshift, or use galaxies with different PSFs"
        )
    if explained > conditional.EXPLAINED:
        return [
            f"the intrinsic columns explain {explained:.1%} of the variance of log alpha (R² > "
            f"{conditional.EXPLAINED}): little is left to tell flips from real differences"
        ]
    return []


def _result(
    space: Space | None,
    estimate: _Estimate,
    data: _Data,
    inputs: FitInputs,
    notes: list[str],
    bootstrap: int,
    seed: int,
) -> TransitionFit:
    method, family = inputs.options["method"], inputs.options["family"]
    values: dict[str, float] = {}
    stderr: dict[str, float] = {}
    if space is not None:
        found = space.values(estimate.point)
        values = dict(zip(space.names, found.tolist(), strict=True))
        slopes = differences(space.values, estimate.point)  # (P, V)
        stuck = np.isnan(np.diag(estimate.covariance))
        # A value that moves with a parameter at its bound has no error from the curvature.
        known = np.where(np.isnan(estimate.covariance), 0.0, estimate.covariance)
        variance = np.einsum("pv,pq,qv->v", slopes, known, slopes)
        lost = (np.abs(slopes[stuck]) > 1e-6).any(axis=0) if stuck.any() else np.zeros(found.size, dtype=bool)
        errors = np.where(lost | (variance < 0), np.nan, np.sqrt(np.maximum(variance, 0)))
        stderr = dict(zip(space.names, errors.tolist(), strict=True))
    values |= estimate.more_values
    stderr |= estimate.more_stderr
    stderr["disk_fraction"] = estimate.fraction_stderr
    notes = notes + list(estimate.notes)
    if space is not None:
        notes += _warnings(space, estimate, stderr, data, method)
        if method in ("likelihood", "binned") and data.alpha.ndim == 1:
            notes += _drift_notes(estimate, data, space.names[0] if space.names else family)
    fit = TransitionFit(
        transition=estimate.transition,
        class_fractions=estimate.fractions,
        stderr=stderr,
        log_likelihood=estimate.log_likelihood,
        aic=2 * estimate.n_parameters - 2 * estimate.log_likelihood,
        warnings=tuple(notes),
        method=method,
        family=family,
        assumption=ASSUMPTIONS[method],
        n_objects=data.labels.size,
        values=values,
        n_parameters=estimate.n_parameters,
        space=space,
        point=estimate.point,
        covariance=estimate.covariance,
        inputs=inputs,
        **estimate.extra,
    )
    if bootstrap:
        return _with_bootstrap_errors(fit, bootstrap, seed)
    return fit


def _with_bootstrap_errors(fit: TransitionFit, resamples: int, seed: int) -> TransitionFit:
    again = fit.bootstrap(resamples, seed)
    if len(again) < 2:
        raise InputError(f"only {len(again)} of {resamples} resamples could be fitted; the sample is too small")
    values = {name: [one.values.get(name, np.nan) for one in again] for name in fit.values}
    values["disk_fraction"] = [one.class_fractions[DISK] for one in again]
    stderr = {name: float(np.std(found, ddof=1)) for name, found in values.items()}
    notes = fit.warnings
    if len(again) < resamples:
        notes += (f"{resamples - len(again)} of {resamples} resamples could not be fitted",)
    return TransitionFit(**{**fit.__dict__, "stderr": {**fit.stderr, **stderr}, "warnings": notes})
