"""T(α) and true classes with the help of gold labels: no assumption about class fractions.

Trusted ("gold") labels are experts' types, a better image's, or the same galaxy's at better resolution, known
for a random part of the rows. Two ways: flips of the gold rows themselves, joined by the other rows with a
weight that cross-validation on the gold rows chooses; and p(y | ỹ, α, z) regressed on them, which Bayes'
theorem turns into a T(α) without a shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from truemorph.bias.evidence import UNKNOWN, Evidence, stacked
from truemorph.bias.flexible import TabulatedTransition
from truemorph.bias.maximum import FLOOR, Maximum, climb, differences, invert, polish
from truemorph.bias.regression import Regression, class_variances, fit_softmax
from truemorph.bias.spaces import Space, fraction_start
from truemorph.errors import InputError

# Weights tried for the rows without a gold label, relative to those with one.
WEIGHTS = (0.0, 0.1, 0.3, 1.0)
FOLDS = 5
FEWEST = 20
_FRACTION_BOUND = 9.0
_COARSE = 64


def check_gold(gold: object, n: int, n_classes: int) -> np.ndarray:
    """Return gold labels as an (N,) int array with -1 where unknown.

    Raises
    ------
    InputError
        If the length is wrong, a value is no class, too few are known, or a class is never seen.
    """
    values = np.ma.filled(gold, UNKNOWN) if isinstance(gold, np.ma.MaskedArray) else np.asarray(gold)
    if values.shape != (n,):
        raise InputError(f"gold must have one value a galaxy, -1 where unknown; got shape {values.shape} for {n}")
    if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
        raise InputError(f"gold must be integers 0 to {n_classes - 1}, -1 where unknown; got {values.dtype}")
    filled = np.where(np.isfinite(values), values, UNKNOWN)
    trusted = filled.astype(np.int64)
    bad = np.flatnonzero((trusted != filled) | (trusted < UNKNOWN) | (trusted >= n_classes))
    if bad.size:
        raise InputError(
            f"gold must be integers 0 to {n_classes - 1}, -1 where unknown; {bad.size} are not "
            f"(first: row {bad[0]}, {values[bad[0]]!r})"
        )
    counts = np.bincount(trusted[trusted != UNKNOWN], minlength=n_classes)
    if counts.sum() < FEWEST:
        raise InputError(f"only {counts.sum()} gold labels; a fit needs at least {FEWEST}")
    if np.any(counts == 0):
        raise InputError(f"no gold label of class {int(np.argmin(counts))}: T(alpha) needs some of every class")
    return trusted


def classes_in(*several: object) -> int:
    """Number of classes that arrays of labels name (NaN and masked entries are none), two at least."""
    found = [2]
    for one in several:
        values = np.ma.filled(one, UNKNOWN) if isinstance(one, np.ma.MaskedArray) else np.asarray(one)
        if values.size and np.issubdtype(values.dtype, np.number) and np.isfinite(values).any():
            found.append(int(values[np.isfinite(values)].max()) + 1)
    return max(found)


@dataclass(frozen=True)
class GoldMaximum:
    """Joint fit of T and class fractions; `weight` is that of the rows without a gold label."""

    maximum: Maximum
    covariance: np.ndarray
    weighed: Evidence
    weight: float
    scores_by_weight: dict[float, float]


def joint_bounds(space: Space, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of [T's point, logits of class fractions]."""
    edge = np.full(n_classes - 1, _FRACTION_BOUND)
    return np.concatenate([space.lower, -edge]), np.concatenate([space.upper, edge])


def joint_function(space: Space, evidence: Evidence):  # type: ignore[no-untyped-def]
    """Return the row terms of the joint log-likelihood as a function of [T's point, logits of fractions]."""

    def terms(point: np.ndarray) -> np.ndarray:
        log_fractions = log_softmax(np.concatenate([[0.0], point[space.size :]]))
        return evidence.log_terms(space.build(point[: space.size]), log_fractions)

    return terms


def maximise_joint(space: Space, evidence: Evidence, starts: np.ndarray, curvature: bool = True) -> Maximum:
    """Maximise Σ w log p over T's parameters and the class fractions (see `Evidence.log_terms`)."""
    used = evidence.rows(evidence.weights > 0)
    return climb(
        joint_function(space, used), used.weights, starts, *joint_bounds(space, used.n_classes), curvature=curvature
    )


def polish_joint(space: Space, evidence: Evidence, found: Maximum) -> Maximum:
    """Go from the maximum of grouped rows to that of all of them."""
    return polish(found, joint_function(space, evidence), evidence.weights, *joint_bounds(space, evidence.n_classes))


def joint_starts(space: Space, evidence: Evidence) -> np.ndarray:
    """Points to begin from: the space's own starts beside the labelled fractions."""
    logits = fraction_start(evidence.labels, evidence.n_classes, evidence.weights)
    return np.array([np.concatenate([start, logits]) for start in space.starts])


def influence(space: Space, evidence: Evidence, found: Maximum) -> np.ndarray:
    """How far each galaxy pulls T's point, shape (P, N): inverse information times weight times score."""
    scores = np.nan_to_num(differences(joint_function(space, evidence), found.point), posinf=0.0, neginf=0.0)
    pull = np.nan_to_num(found.covariance()) @ (scores * evidence.weights)
    return pull[: space.size]


def score_products(space: Space, evidence: Evidence, point: np.ndarray) -> np.ndarray:
    """Σ w² s sᵀ over galaxies, for the sandwich."""
    scores = differences(joint_function(space, evidence), point)
    finite = np.isfinite(scores).all(axis=0) & (evidence.squares > 0)
    return (scores[:, finite] * evidence.squares[finite]) @ scores[:, finite].T


def fit_with_gold(space: Space, evidence: Evidence, weight: float | None, seed: int) -> GoldMaximum:
    """Fit T to gold rows, and to the others with a weight.

    Parameters
    ----------
    space : Space
    evidence : Evidence
        Every galaxy a row; gold class known for some.
    weight : float or None
        Weight of the rows without a gold label (1: they count as much, which assumes that class fractions
        don't depend on α; 0: they are not used). None: chosen from 0, 0.1, 0.3, 1 by the log-probability of
        held-out gold rows' flips.
    seed : int
        Of the folds.
    """
    known = evidence.trusted != UNKNOWN
    coarse = evidence.rough(_COARSE)
    coarse_known = coarse.trusted != UNKNOWN
    starts = joint_starts(space, coarse)
    first = maximise_joint(space, coarse.rows(coarse_known), starts, curvature=False).point
    tried: dict[float, float] = {}
    if weight is None:
        weight, tried = _cross_validate(space, evidence, coarse.rows(~coarse_known), first, seed)
    weighed = evidence.scaled(np.where(known, 1.0, weight)).rows(known | (weight > 0))
    fine = weighed.grouped()
    begin = maximise_joint(space, coarse.scaled(np.where(coarse_known, 1.0, weight)), first[None], False).point
    best = polish_joint(space, weighed, maximise_joint(space, fine, begin[None]))
    products = score_products(space, fine, best.point)
    return GoldMaximum(best, best.covariance(products), evidence.scaled(np.where(known, 1.0, weight)), weight, tried)


def _cross_validate(
    space: Space, evidence: Evidence, others: Evidence, first: np.ndarray, seed: int
) -> tuple[float, dict[float, float]]:
    """Weight of the other rows under which held-out gold rows' flips are likeliest."""
    trusted = evidence.rows(evidence.trusted != UNKNOWN)
    fold = np.random.default_rng(seed).permutation(trusted.labels.size) % FOLDS
    if others.labels.size == 0:
        return 0.0, {}
    uniform = np.zeros(evidence.n_classes)
    scores = {weight: np.zeros(fold.size) for weight in WEIGHTS}
    for k in range(FOLDS):
        kept, held = trusted.rows(fold != k).grouped(_COARSE), trusted.rows(fold == k)
        point = first
        for weight in WEIGHTS:
            both = stacked([kept, others.scaled(np.full(others.labels.size, weight))])
            point = maximise_joint(space, both, point[None], False).point
            flips = held.log_terms(space.build(point[: space.size]), uniform)
            scores[weight][fold == k] = held.weights * np.maximum(flips, FLOOR)
    best = max(scores.values(), key=np.sum)
    # The largest weight that is not worse by more than the error of the difference: choosing by the noise would
    # make estimates scatter more than their errors say.
    chosen = max(
        weight for weight, one in scores.items() if np.sum(best - one) <= np.std(best - one) * np.sqrt(fold.size)
    )
    return chosen, {weight: float(one.sum()) for weight, one in scores.items()}


@dataclass(frozen=True)
class TrustedRegression:
    """p(y | ỹ, α, z) regressed on gold rows: linear in label, u = log α, u², label × u and the columns of z.

    A weak ridge (unit prior variance on standardised columns; none on intercepts) keeps it finite where a label
    or a class is never contradicted.
    """

    regression: Regression
    center: np.ndarray
    scale: np.ndarray
    n_classes: int

    @classmethod
    def fit(
        cls,
        labels: np.ndarray,
        alpha: np.ndarray,
        trusted: np.ndarray,
        n_classes: int,
        columns: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> TrustedRegression:
        """Fit on the rows whose gold class is known; the standardisation comes from all rows."""
        raw = _features(labels, alpha, n_classes, columns)
        center, scale = raw.mean(axis=0), raw.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        known = trusted != UNKNOWN
        design = np.column_stack([np.ones(known.sum()), (raw[known] - center) / scale])
        ridge = np.concatenate([[1e-6], np.ones(raw.shape[1])])
        targets = np.eye(n_classes)[trusted[known]]
        part = None if weights is None else weights[known]
        return cls(fit_softmax(design, targets, ridge, part), center, scale, n_classes)

    def design(self, labels: np.ndarray, alpha: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        """Design matrix, shape (N, Q)."""
        raw = _features(labels, alpha, self.n_classes, columns)
        return np.column_stack([np.ones(labels.size), (raw - self.center) / self.scale])

    def probabilities(self, design: np.ndarray) -> np.ndarray:
        """p(y | ỹ, α, z), shape (N, K)."""
        return np.exp(self.regression.log_probabilities(design))

    def mean_slopes(self, design: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """d (Σ_n share_bn p_nk) / d coefficients, shape (B, K, (K - 1) Q), for the delta method.

        Parameters
        ----------
        design : array, shape (N, Q)
        shares : array, shape (B, N)
            Weight of each galaxy in each mean.
        """
        p = self.probabilities(design)
        inner = class_variances(p)  # d p_k / d score_j for k, j >= 1
        slopes = np.einsum("bn,nkj,nq->bkjq", shares, inner, design, optimize=True)
        whole = np.concatenate([-slopes.sum(axis=1, keepdims=True), slopes], axis=1)
        return whole.reshape(shares.shape[0], self.n_classes, -1)

    def covariance(self) -> np.ndarray:
        """Covariance of the coefficients."""
        return invert(self.regression.information)


def _features(labels: np.ndarray, alpha: np.ndarray, n_classes: int, columns: np.ndarray | None) -> np.ndarray:
    observables = alpha[:, None] if alpha.ndim == 1 else alpha
    u = observables.copy()
    smallest = u[u[:, 0] > 0, 0].min(initial=1.0)
    u[:, 0] = np.log(np.maximum(u[:, 0], smallest))  # the first observable is the resolution
    u = (u - u.mean(axis=0)) / np.where(u.std(axis=0) > 0, u.std(axis=0), 1.0)
    member = np.eye(n_classes)[labels][:, 1:] - 1 / n_classes
    parts = [member, u, u**2 - 1, *(member * u[:, j : j + 1] for j in range(u.shape[1]))]
    return np.column_stack(parts if columns is None else [*parts, columns])


def transition_by_bayes(
    regression: TrustedRegression, labels: np.ndarray, alpha: np.ndarray, columns: np.ndarray | None, knots: int = 24
) -> TabulatedTransition:
    """T(α) without a shape: p(ỹ | y, α) ∝ p(y | ỹ, α) p(ỹ | α), from a regression on gold labels.

    p(y | ỹ, α) is averaged over the galaxies in a window of α around each knot, and p(ỹ | α) is their share of
    labels.
    """
    p = regression.probabilities(regression.design(labels, alpha, columns))
    n_classes = regression.n_classes
    order = np.argsort(alpha, kind="stable")
    half = max(labels.size // knots, 25)
    at, tables = [], []
    for middle in np.linspace(0, labels.size - 1, knots).astype(int):
        window = order[max(middle - half, 0) : middle + half]
        joint = np.eye(n_classes)[labels[window]].T @ p[window]  # Σ [ỹ, y]
        flips = joint.T + 1e-9
        at.append(float(np.median(alpha[window])))
        tables.append(flips / flips.sum(axis=1, keepdims=True))
    distinct = np.concatenate([[True], np.diff(at) > 1e-9 * max(at)])
    chosen = np.flatnonzero(distinct)
    if chosen.size < 2:
        raise InputError("a tabulated T(alpha) needs galaxies at different alpha")
    return TabulatedTransition(tuple(np.array(at)[chosen].tolist()), np.array(tables)[chosen].tolist())
