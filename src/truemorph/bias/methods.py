"""The methods behind `fit_transition`: each takes checked data and a space, and gives an `Estimate`.

Equation numbers: Medina-Rosales et al., arXiv:2308.11007.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.special import log_softmax, xlogy

from truemorph.bias import conditional
from truemorph.bias import gold as gold_labels
from truemorph.bias import votes as vote_counts
from truemorph.bias.binning import bin_index
from truemorph.bias.evidence import UNKNOWN, Evidence
from truemorph.bias.likelihood import label_log_likelihood, observed_log_probabilities
from truemorph.bias.maximum import differences, invert
from truemorph.bias.spaces import Space
from truemorph.bias.transitions import DISK, SMOOTH, Transition
from truemorph.errors import InputError
from truemorph.findings import Finding

# Half of the 95 % point of chi-squared with one degree of freedom.
SIGNIFICANT_GAIN = 1.92


@dataclass(frozen=True)
class Estimate:
    """What a method found: T's point and covariance, fractions with their error, and the rest of a result."""

    transition: Transition
    point: np.ndarray
    covariance: np.ndarray
    fractions: np.ndarray
    fraction_stderr: float
    log_likelihood: float
    n_parameters: int
    findings: tuple[Finding, ...] = ()
    fraction_at_bound: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    more_values: dict[str, float] = field(default_factory=dict)
    more_stderr: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """Checked input: labels and α with what else is known of each galaxy."""

    labels: np.ndarray
    alpha: np.ndarray
    n_classes: int
    weights: np.ndarray | None
    trusted: np.ndarray | None
    votes: np.ndarray | None

    @property
    def observed(self) -> np.ndarray:
        """Labels as 0 and 1, or fractions of votes, shape (N, K)."""
        if self.votes is None:
            return np.eye(self.n_classes)[self.labels]
        return self.votes / self.votes.sum(axis=1, keepdims=True)

    @property
    def evidence(self) -> Evidence:
        """Every galaxy a row."""
        return Evidence.of(self.labels, self.alpha, self.n_classes, self.trusted, self.weights)


def by_likelihood(space: Space, data: Data) -> Estimate:
    """Maximise Σ w log p(ỹ | α) (eq. 15)."""
    evidence = data.evidence
    coarse = evidence.rough(64)
    begin = gold_labels.maximise_joint(space, coarse, gold_labels.joint_starts(space, coarse), curvature=False).point
    fine = evidence.grouped()
    best = gold_labels.polish_joint(space, evidence, gold_labels.maximise_joint(space, fine, begin[None]))
    weighted = data.weights is not None
    products = gold_labels.score_products(space, fine, best.point) if weighted else None
    estimate = _with_fractions(space, data, best.point, best.covariance(products), best.free)
    return replace(estimate, extra={"influence": partial(gold_labels.influence, space, evidence, best)})


def _with_fractions(space: Space, data: Data, point: np.ndarray, covariance: np.ndarray, free: np.ndarray) -> Estimate:
    """Turn a joint point of T and class fractions into an estimate."""
    n = space.size
    log_fractions = log_softmax(np.concatenate([[0.0], point[n:]]))
    transition = space.build(point[:n])
    fractions = np.exp(log_fractions)

    def disk_fraction(at: np.ndarray) -> np.ndarray:
        return np.exp(log_softmax(np.concatenate([[0.0], at])))[DISK : DISK + 1]

    slopes = differences(disk_fraction, point[n:])[:, 0]
    variance = slopes @ covariance[n:, n:] @ slopes
    return Estimate(
        transition,
        point[:n],
        covariance[:n, :n],
        fractions,
        float(np.sqrt(variance)) if variance > 0 else float("nan"),
        data.evidence.log_likelihood(transition, log_fractions),
        point.size,
        fraction_at_bound=not free[n:].all(),
    )


def by_bins(space: Space, data: Data, bins: int) -> Estimate:
    """The paper's estimator: least squares on class fractions at the midpoints of equal-count bins (eq. 16)."""
    labels, alpha, weights = data.labels, data.alpha, data.weights
    if alpha.ndim == 2:
        raise InputError("binned takes one resolution, alpha of shape (N,)")
    n_free = space.size + data.n_classes - 1
    findings: tuple[Finding, ...] = ()
    if bins < n_free + 1:
        raise InputError(f"binned needs more bins than parameters ({n_free}); got {bins}")
    if bins > labels.size:
        findings = (
            Finding(
                "one-galaxy-per-bin",
                "note",
                f"There are {labels.size:,} galaxies for {bins:,} bins, so each bin has one galaxy.",
            ),
        )
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

    lower, upper = gold_labels.joint_bounds(space, data.n_classes)
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
    return replace(estimate, findings=findings)


def by_gold(space: Space, data: Data, weight: float | None, seed: int) -> Estimate:
    """Flips of gold rows, joined by the others with a weight."""
    assert data.trusted is not None
    found = gold_labels.fit_with_gold(space, data.evidence, weight, seed)
    best = found.maximum
    estimate = _with_fractions(space, data, best.point, found.covariance, best.free)
    findings: tuple[Finding, ...] = ()
    if found.weight == 0 and weight is None:
        findings = (
            Finding(
                "gold-only",
                "note",
                "Only galaxies with a gold label were used: including the others made cross-validated predictions "
                "worse. The disk fraction of the fit is therefore that of the galaxies with a gold label.",
            ),
        )
    return replace(
        estimate,
        log_likelihood=best.value,
        findings=findings,
        extra={
            "influence": partial(gold_labels.influence, space, found.weighed, best),
            "gold_weight": found.weight,
            "flip_log_likelihood": _flip_log_likelihood(estimate.transition, data),
        },
    )


def _flip_log_likelihood(transition: Transition, data: Data) -> float:
    assert data.trusted is not None
    known = data.trusted != UNKNOWN
    weights = np.ones(known.sum()) if data.weights is None else data.weights[known]
    part = Evidence.of(data.labels[known], data.alpha[known], data.n_classes, data.trusted[known], weights)
    return part.log_likelihood(transition, np.zeros(data.n_classes))


def by_bayes(data: Data, columns: np.ndarray | None) -> Estimate:
    """A tabulated T(α) from p(y | ỹ, α, z) regressed on gold rows."""
    assert data.trusted is not None
    if data.alpha.ndim == 2:
        raise InputError("tabulated takes one resolution, alpha of shape (N,)")
    regression = gold_labels.TrustedRegression.fit(
        data.labels, data.alpha, data.trusted, data.n_classes, columns, data.weights
    )

    def rebuild(point: np.ndarray) -> Transition:
        moved = replace(regression.regression, coefficients=point.reshape(regression.regression.coefficients.shape))
        return gold_labels.transition_by_bayes(replace(regression, regression=moved), data.labels, data.alpha, columns)

    trusted = data.trusted

    def influence() -> np.ndarray:
        known = trusted != UNKNOWN
        residual = (np.eye(data.n_classes)[trusted] - regression.probabilities(design)) * known[:, None]
        scores = np.einsum("nk,nq->kqn", residual[:, 1:] * weights[:, None], design)
        return regression.covariance() @ scores.reshape(-1, known.size)

    point = regression.regression.coefficients.ravel()
    transition = rebuild(point)
    design = regression.design(data.labels, data.alpha, columns)
    weights = np.ones(data.labels.size) if data.weights is None else data.weights
    share = (weights / weights.sum())[None, :]
    fractions = (share @ regression.probabilities(design))[0]
    slope = regression.mean_slopes(design, share)[0, DISK]
    flips = _flip_log_likelihood(transition, data)
    return Estimate(
        transition,
        point,
        regression.covariance(),
        fractions,
        float(np.sqrt(slope @ regression.covariance() @ slope)),
        flips,
        regression.regression.coefficients.size,
        extra={"flip_log_likelihood": flips, "gold_weight": 0.0, "rebuild": rebuild, "influence": influence},
    )


def by_condition(space: Space, data: Data, columns: np.ndarray, class_model: str, seed: int) -> Estimate:
    """EM with p(y | z)."""
    if class_model == "trees":
        found = conditional.fit_trees(space, data.evidence, columns, seed)
    else:
        found = conditional.fit_logistic(space, data.evidence, conditional.standardised(columns), seed)
    n = space.size
    probabilities = np.exp(found.log_probabilities)
    weights = np.ones(data.labels.size) if data.weights is None else data.weights
    fractions = np.average(probabilities, axis=0, weights=weights)
    # The disk fraction is a mean of p(y | z): its error by the delta method, and the scatter of a mean.
    p = probabilities[:, DISK]
    inner = conditional.class_variances(probabilities)[:, DISK - 1]  # (N, K - 1)
    slope = np.einsum("nk,nq->kq", inner * (weights / weights.sum())[:, None], found.design).ravel()
    variance = np.var(p) / p.size + slope @ found.covariance[n:, n:] @ slope
    return Estimate(
        space.build(found.point[:n]),
        found.point[:n],
        found.covariance[:n, :n],
        fractions,
        float(np.sqrt(variance)),
        found.log_likelihood,
        found.point.size,
        extra={"probabilities": probabilities, "influence": found.influence},
    )


def by_votes(space: Space, data: Data, seed: int) -> Estimate:
    """Beta-binomial mixture of counts."""
    assert data.votes is not None
    found = vote_counts.fit_votes(space, data.votes, data.alpha, data.trusted, data.weights, seed)
    best, n, covariance = found.maximum, space.size, found.covariance
    model = found.model()
    fractions = model.class_fractions
    variance = covariance[n, n]
    names = ("overdispersion_smooth", "overdispersion_disk")
    rho = model.overdispersion
    rho_stderr = rho * (1 - rho) * np.sqrt(np.diag(covariance)[n + 1 :])
    for_disk = float(model.transition.matrix(np.median(data.alpha, keepdims=True))[0, SMOOTH, DISK])
    findings: tuple[Finding, ...] = ()
    if for_disk >= vote_counts.MAJORITY:
        findings = (
            Finding(
                "classes-not-separated",
                "problem",
                f"The votes do not separate two classes: {for_disk:.0%} of the votes for smooth galaxies would be for "
                "a disk.",
                "Use more galaxies, give gold labels (`gold`), or fit the majority labels instead of the votes.",
            ),
        )
    return Estimate(
        model.label_transition(data.alpha),
        best.point,
        covariance,
        fractions,
        float(fractions[0] * fractions[1] * np.sqrt(variance)) if variance > 0 else float("nan"),
        best.value,
        best.point.size,
        fraction_at_bound=not best.free[n],
        extra={
            "votes": model,
            "rebuild": lambda point: found.model(point).label_transition(data.alpha),
            "influence": found.influence,
        },
        more_values=dict(zip(names, rho.tolist(), strict=True)),
        more_stderr=dict(zip(names, rho_stderr.tolist(), strict=True)),
        findings=findings,
    )


def estimate_findings(
    space: Space, estimate: Estimate, stderr: dict[str, float], data: Data, method: str
) -> list[Finding]:
    """Where the data may not determine the estimate."""
    findings = []
    point = estimate.point[: space.size]
    values = dict(zip(space.names, space.values(point).tolist(), strict=True))
    at_bound = (point - space.lower < 1e-3) | (space.upper - point < 1e-3)
    for name, value in values.items():
        if name == "false_disk" or not space.separate:
            continue
        if at_bound[space.names.index(name)]:
            findings.append(
                Finding(
                    "parameter-at-bound",
                    "caution",
                    f"{name} = {value:.3g} lies at the edge of its search range: the labels do not determine it.",
                    "Give gold labels (`gold`), or choose a family with fewer parameters (`family`).",
                )
            )
        elif space.positive and not stderr[name] < 0.5 * value:
            error = f"{stderr[name]:.2g}" if np.isfinite(stderr[name]) else "unknown"
            findings.append(
                Finding(
                    "parameter-uncertain",
                    "caution",
                    f"{name} = {value:.3g} is uncertain (error {error}): the likelihood is nearly flat.",
                    "Use more galaxies, or give gold labels (`gold`).",
                )
            )
    if estimate.fraction_at_bound:
        findings.append(
            Finding(
                "fraction-at-bound",
                "caution",
                "A class fraction is 0 or 1: labels alone cannot separate bias from a missing class here. The errors "
                "of the other parameters are at this fixed fraction.",
                "Give gold labels (`gold`).",
            )
        )
    if space.family == "monotone" and method not in ("gold", "conditional"):
        findings.append(
            Finding(
                "best-resolved-unbiased-assumed",
                "caution",
                "The monotone family assumes that the best resolved galaxies are labelled without bias, which labels "
                "alone cannot show.",
                "Give gold labels (`gold`), or compare with a family that has a formula (`family`).",
            )
        )
    alpha = data.alpha if data.alpha.ndim == 1 else data.alpha[:, 0]
    if np.ptp(alpha) < 1e-9 * np.abs(alpha).max():
        findings.append(
            Finding(
                "alpha-constant",
                "problem",
                "All galaxies have the same α, so these labels say nothing about T(α).",
                "Use galaxies of different resolution.",
            )
        )
    return findings


def drift_findings(estimate: Estimate, data: Data, name: str) -> list[Finding]:
    """Whether the labels drift with α at all, and labels that no T(α) explains."""
    findings = []
    alpha, labels = data.alpha, data.labels
    impossible = int(np.sum((alpha == 0) & (labels == 1)))
    if impossible:
        findings.append(
            Finding(
                "disks-at-alpha-zero",
                "caution",
                f"{impossible:,} galaxies at α = 0 are labelled disk, although no disk can be seen there.",
                "Check their radii.",
            )
        )
    resolved = alpha > 0
    weights = np.ones(labels.size) if data.weights is None else data.weights
    with np.errstate(divide="ignore"):
        rows = np.broadcast_to(np.log(estimate.fractions), (labels.size, data.n_classes))
    by_galaxy = weights * label_log_likelihood(rows, labels, alpha, estimate.transition)
    shares = np.bincount(labels[resolved], weights=weights[resolved], minlength=data.n_classes)
    gain = float(by_galaxy[resolved].sum() - np.sum(xlogy(shares, shares / shares.sum())))
    gain *= weights.sum() ** 2 / (weights.size * np.sum(weights**2))  # weighted rows weigh as fewer
    if gain < SIGNIFICANT_GAIN:
        findings.append(
            Finding(
                "no-drift",
                "caution",
                f"The labels do not drift significantly with α: the log-likelihood is {gain:.1f} above that of "
                f"constant fractions, so {name} is an upper limit at most.",
                "Do not correct these labels unless gold labels (`gold`) show a bias.",
            )
        )
    return findings
