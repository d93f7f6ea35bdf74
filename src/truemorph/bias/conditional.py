"""T(α) with class fractions that may depend on α through intrinsic properties z.

Assumption: at fixed z class fractions don't depend on α. p(ỹ | z, α) = Σ_y p(ỹ | y, α) p(y | z), with p(y | z)
a logistic regression or gradient-boosted trees, fitted together with T by expectation-maximisation
(Medina-Rosales et al., arXiv:2308.11007, section 2.3.1, after Cabrera, Miller & Schneider 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from truemorph.arrays import float_array
from truemorph.bias.evidence import Evidence
from truemorph.bias.likelihood import label_log_likelihood, log_sum_exp
from truemorph.bias.maximum import Maximum, climb, differences
from truemorph.bias.regression import class_variances, fit_softmax, information_matrix, log_probabilities
from truemorph.bias.spaces import Space, fraction_start
from truemorph.errors import InputError
from truemorph.findings import Finding

FOLDS = 5
EXPLAINED, REFUSED = 0.95, 0.999
_ROUGH = 20_000
_TREE_STEPS, _FEW = 12, 8
EM_STEPS, EM_GAIN, RIDGE = 15, 1e-7, 1e-3


def check_intrinsic(intrinsic: object, n: int) -> tuple[np.ndarray, list[Finding]]:
    """Return intrinsic columns as a finite (N, P) array without constant ones, and findings on what was left out.

    Raises
    ------
    InputError
        If the shape is wrong, a value is missing, or no column varies.
    """
    columns = float_array(intrinsic, "intrinsic")
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.shape[0] != n or columns.shape[1] == 0:
        raise InputError(f"intrinsic must have shape ({n}, P), one row a galaxy; got {columns.shape}")
    bad = np.flatnonzero(~np.isfinite(columns).all(axis=1))
    if bad.size:
        raise InputError(
            f"intrinsic has {bad.size} rows with a missing value (first: row {bad[0]}); leave those rows out"
        )
    varies = np.ptp(columns, axis=0) > 1e-12 * np.abs(columns).max(axis=0)
    if not varies.any():
        raise InputError("every intrinsic column is constant: nothing to condition on; leave intrinsic out")
    findings = [
        Finding("column-constant", "note", f"Intrinsic column {j} is constant and was left out.")
        for j in np.flatnonzero(~varies)
    ]
    return columns[:, varies], findings


def explained_variance(alpha: np.ndarray, intrinsic: np.ndarray, seed: int = 0) -> float:
    """Share of the variance of log α that intrinsic columns predict in galaxies held out (R²).

    The larger of a cubic polynomial's, in the columns and their logarithms where positive, and gradient-boosted
    trees'. At constant PSF luminosity, size and redshift leave nothing of α free.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.preprocessing import PolynomialFeatures
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    rows = rng.permutation(alpha.size)[:_ROUGH]
    target = np.log(np.maximum(alpha[rows], alpha[alpha > 0].min()))
    columns = intrinsic[rows]
    logs = [np.log(column) for column in columns.T if column.min() > 0]
    wide = np.column_stack([columns, *logs])
    wide = (wide - wide.mean(axis=0)) / np.where(wide.std(axis=0) > 0, wide.std(axis=0), 1.0)
    held = np.arange(rows.size) % 3 == 0
    if held.sum() < 10 or np.ptp(target) == 0:
        return 0.0
    cubic = PolynomialFeatures(3 if wide.shape[1] <= 6 else 2).fit_transform(wide)
    answers = []
    if cubic.shape[1] * 3 < rows.size:
        answers.append(cubic[held] @ np.linalg.lstsq(cubic[~held], target[~held], rcond=None)[0])
    if rows.size >= 200:
        # One thread: so few rows don't need more, and threads that wait for a busy core can take minutes.
        with threadpool_limits(1, "openmp"):
            trees = HistGradientBoostingRegressor(random_state=seed).fit(columns[~held], target[~held])
            answers.append(trees.predict(columns[held]))
    spread = np.sum((target[held] - target[~held].mean()) ** 2)
    return max([0.0, *(float(1 - np.sum((target[held] - guess) ** 2) / spread) for guess in answers)])


def standardised(columns: np.ndarray) -> np.ndarray:
    """Design matrix: a column of ones, then the columns with mean 0 and spread 1."""
    return np.column_stack([np.ones(columns.shape[0]), (columns - columns.mean(axis=0)) / columns.std(axis=0)])


@dataclass(frozen=True)
class ConditionalMaximum:
    """Joint fit of T and p(y | z).

    Attributes
    ----------
    point : array, shape (P + (K - 1) Q,)
        T's point, then the coefficients of the regression.
    covariance : array
        Of the same; NaN in the rows of parameters at a bound.
    log_probabilities : array, shape (N, K)
        log p(y | z) of every galaxy.
    log_likelihood : float
    design : array, shape (N, Q)
        Of the regression.
    free : array of bool, shape (P,)
        T's parameters that are not at a bound.
    influence : callable
        How far each galaxy pulls T's point, shape (P, N).
    steps : int
        Of EM.
    """

    point: np.ndarray
    covariance: np.ndarray
    log_probabilities: np.ndarray
    log_likelihood: float
    design: np.ndarray
    free: np.ndarray
    influence: Callable[[], np.ndarray]
    steps: int = 0


class _Conditional:
    """The log-likelihood of labels given z and α, with its slopes."""

    def __init__(self, space: Space, evidence: Evidence, design: np.ndarray, ridge: float = RIDGE) -> None:
        self.space, self.evidence, self.design = space, evidence, design
        self.n_free = evidence.n_classes - 1
        self.ridge = np.concatenate([[0.0], np.full(design.shape[1] - 1, ridge)])

    def split(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return point[: self.space.size], point[self.space.size :].reshape(self.n_free, -1)

    def label_columns(self, at: np.ndarray) -> np.ndarray:
        """log p(ỹ_n | y, α_n) for every y, shape (N, K)."""
        labels = self.evidence.labels
        return self.space.build(at).log_matrix(self.evidence.alpha)[np.arange(labels.size), :, labels]

    def terms(self, point: np.ndarray) -> np.ndarray:
        at, coefficients = self.split(point)
        joint = log_probabilities(self.design, coefficients) + self.label_columns(at)
        return log_sum_exp(list(joint.T))

    def value(self, point: np.ndarray) -> float:
        penalty = 0.5 * float(np.sum(self.ridge * self.split(point)[1] ** 2))
        return float(np.sum(self.evidence.weights * self.terms(point))) - penalty

    def after(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p(y | z) and the posterior p(y | ỹ, α, z), shape (N, K) each."""
        at, coefficients = self.split(point)
        log_p = log_probabilities(self.design, coefficients)
        joint = log_p + self.label_columns(at)
        return np.exp(log_p), np.exp(joint - log_sum_exp(list(joint.T))[:, None])

    def slopes_of_regression(self, point: np.ndarray) -> np.ndarray:
        """Slope in the coefficients, flattened: d log p(ỹ | z, α) / d score_k = posterior_k - p_k."""
        p, posterior = self.after(point)
        residual = self.evidence.weights[:, None] * (posterior - p)[:, 1:]
        return (residual.T @ self.design - self.ridge * self.split(point)[1]).ravel()

    def gradient(self, point: np.ndarray) -> np.ndarray:
        n = self.space.size
        rest = point[n:]
        if not n:
            return self.slopes_of_regression(point)
        of_t = differences(lambda at: np.array(self.value(np.concatenate([at, rest]))), point[:n])
        return np.concatenate([of_t, self.slopes_of_regression(point)])

    def information(self, point: np.ndarray) -> np.ndarray:
        """Minus the second derivatives: analytic in the coefficients, differences in T's few parameters."""
        n, rest = self.space.size, point[self.space.size :]
        p, posterior = self.after(point)
        variances = (class_variances(p) - class_variances(posterior)) * self.evidence.weights[:, None, None]
        out = np.empty((point.size, point.size))
        out[n:, n:] = information_matrix(self.design, variances) + np.diag(np.tile(self.ridge, self.n_free))
        if n:
            rows = -differences(lambda at: self.gradient(np.concatenate([at, rest])), point[:n])
            out[:n] = rows
            out[n:, :n] = rows[:, n:].T
            out[:n, :n] = 0.5 * (rows[:, :n] + rows[:, :n].T)
        return out

    def expectation_maximisation(self, point: np.ndarray, steps: int, gain: float) -> tuple[np.ndarray, int]:
        """EM from a point: posterior (E), then regression and T on it (M), until the mean grows by less than `gain`.

        Returns the point and the number of steps.
        """
        previous = self.value(point)
        done = 0
        while done < steps:
            done += 1
            at, coefficients = self.split(point)
            expected = self.after(point)[1]
            coefficients = fit_softmax(
                self.design, expected, self.ridge, self.evidence.weights, coefficients, steps=2
            ).coefficients
            at = _flips_given_classes(self.space, self.evidence, expected, at)
            point = np.concatenate([at, coefficients.ravel()])
            now = self.value(point)
            if now - previous < gain * self.evidence.weights.sum():
                break
            previous = now
        return point, done


def _flips_given_classes(space: Space, evidence: Evidence, expected: np.ndarray, at: np.ndarray) -> np.ndarray:
    """T's parameters that maximise Σ_n Σ_y r_ny log p(ỹ_n | y, α_n): the M step's second half."""
    if not space.size:
        return at
    n = evidence.labels.size
    weights = (evidence.weights[:, None] * expected).T.ravel()
    classes = np.repeat(np.arange(evidence.n_classes), n)
    everyone = Evidence.of(
        np.tile(evidence.labels, evidence.n_classes),
        np.tile(evidence.alpha, evidence.n_classes)
        if evidence.alpha.ndim == 1
        else np.tile(evidence.alpha, (evidence.n_classes, 1)),
        evidence.n_classes,
        classes,
        weights,
    )
    weighed = everyone.rows(weights > 1e-9).grouped(512)
    uniform = np.zeros(evidence.n_classes)

    def terms(point: np.ndarray) -> np.ndarray:
        return weighed.log_terms(space.build(point), uniform)

    # Going up is enough for EM to go up; the next step goes on.
    lower, upper = space.early_bounds
    begin = np.clip(at, lower, upper)
    return climb(terms, weighed.weights, begin[None], lower, upper, curvature=False, steps=1).point


def fit_logistic(
    space: Space,
    evidence: Evidence,
    design: np.ndarray,
    seed: int = 0,
    *,
    ridge: float = RIDGE,
    steps: int = EM_STEPS,
    gain: float = EM_GAIN,
) -> ConditionalMaximum:
    """Fit T and a logistic p(y | z) together: EM on a part of the galaxies, then Newton's method on all.

    Parameters
    ----------
    space : Space
        Of size 0 for a fixed T.
    evidence : Evidence
        Every galaxy a row.
    design : array, shape (N, Q)
        Ones, then the (standardised) columns of z.
    seed : int
        Of the part that EM begins with.
    ridge : float
        Penalty on all coefficients but the intercepts.
    steps, gain : int, float
        Most EM steps, and the gain in mean log-likelihood at which they end.
    """
    rough = np.random.default_rng(seed).permutation(evidence.labels.size)[:_ROUGH]
    small = _Conditional(space, evidence.rows(rough), design[rough], ridge)
    flat = np.zeros((small.n_free, design.shape[1]))
    flat[:, 0] = fraction_start(evidence.labels, evidence.n_classes, evidence.weights)
    tried = [np.concatenate([start, flat.ravel()]) for start in space.starts]
    best_two = sorted(tried, key=small.value)[-2:]
    first = [small.expectation_maximisation(point, min(steps, _FEW), gain) for point in best_two]
    begun, done = max(first, key=lambda end: small.value(end[0]))
    begun, more = small.expectation_maximisation(begun, steps - done, gain)
    return _newton(_Conditional(space, evidence, design, ridge), begun, done + more)


def climb_from(space: Space, evidence: Evidence, design: np.ndarray, point: np.ndarray) -> ConditionalMaximum:
    """Newton's method from a point; parameters whose bounds coincide stay where they are."""
    return _newton(_Conditional(space, evidence, design), point)


def _newton(problem: _Conditional, point: np.ndarray, done: int = 0, steps: int = 30) -> ConditionalMaximum:
    """Climb to the top; curvature that is not yet that of a maximum is damped.

    Far below the top of a T of many parameters the outer product of the slopes does instead of second derivatives.
    """
    space, n = problem.space, problem.space.size
    value, gained = problem.value(point), np.inf
    for _ in range(steps):
        rough = n > 3 and gained > 1
        slopes, information = (
            problem.gradient(point),
            _products(problem, point) if rough else problem.information(point),
        )
        free = _inside(space, point)
        at = np.ix_(free, free)
        eigenvalues, vectors = np.linalg.eigh(information[at])
        damped = np.maximum(np.abs(eigenvalues), 1e-3 * max(1.0, np.abs(eigenvalues).max() * 1e-6))
        step = np.zeros(point.size)
        step[free] = vectors @ ((vectors.T @ slopes[free]) / damped)
        step *= min(1.0, 2.0 / max(np.abs(step[:n]).max(initial=0.0), 1e-12))
        factor = 1.0
        while factor > 1e-4:
            trial = point + factor * step
            trial[:n] = np.clip(trial[:n], space.lower, space.upper)
            reached = problem.value(trial)
            if reached >= value:
                break
            factor /= 2
        if factor <= 1e-4 and not rough:
            break
        gained, point, value = (reached - value, trial, reached) if factor > 1e-4 else (0.0, point, value)
        if not rough and gained < 1e-7 * (1 + abs(value)) / 10 and np.abs(step).max() < 1e-3:
            break
    free = _inside(space, point)
    best = Maximum(point, value, np.where(free[:, None] & free, problem.information(point), 0.0), free)
    weights = problem.evidence.weights
    products = _products(problem, point) if np.ptp(weights) > 0 else None

    def influence() -> np.ndarray:
        return (np.nan_to_num(best.covariance()) @ (_scores(problem, point) * weights))[:n]

    log_p = log_probabilities(problem.design, problem.split(point)[1])
    likelihood = float(np.sum(problem.evidence.weights * problem.terms(point)))
    return ConditionalMaximum(
        point, best.covariance(products), log_p, likelihood, problem.design, free[:n], influence, done
    )


def _inside(space: Space, point: np.ndarray) -> np.ndarray:
    n = space.size
    inside = np.ones(point.size, dtype=bool)
    inside[:n] = (point[:n] - space.lower > 1e-3) & (space.upper - point[:n] > 1e-3)
    return inside


def _products(problem: _Conditional, point: np.ndarray) -> np.ndarray:
    """Outer product of the galaxies' weighted slopes, shape (P + (K - 1) Q,) twice."""
    scores = _scores(problem, point) * problem.evidence.weights
    return scores @ scores.T


def _scores(problem: _Conditional, point: np.ndarray) -> np.ndarray:
    """Slope of each galaxy's log-probability in all parameters, shape (P + (K - 1) Q, N)."""
    n, rest = problem.space.size, point[problem.space.size :]
    of_t = np.empty((0, problem.evidence.labels.size))
    if n:
        of_t = differences(lambda at: problem.terms(np.concatenate([at, rest])), point[:n])
    p, posterior = problem.after(point)
    of_z = np.einsum("nk,nq->kqn", (posterior - p)[:, 1:], problem.design).reshape(-1, problem.design.shape[0])
    return np.concatenate([of_t, of_z])


def fit_trees(space: Space, evidence: Evidence, columns: np.ndarray, seed: int = 0) -> ConditionalMaximum:
    """Fit T with p(y | z) from gradient-boosted trees, cross-fitted: no galaxy's class is predicted from its own label.

    EM with trees for p(y | z); then T is fitted once more together with a logistic regression on the logit of that
    prediction and on z itself: its errors know that p(y | z) was fitted too.
    """
    n_classes = evidence.n_classes
    fold = np.random.default_rng(seed).permutation(evidence.labels.size) % FOLDS
    logistic = fit_logistic(space, evidence, standardised(columns), seed)
    at, log_p = logistic.point[: space.size], logistic.log_probabilities
    previous = -np.inf
    for _ in range(_TREE_STEPS):
        log_t = space.build(at).log_matrix(evidence.alpha)[np.arange(fold.size), :, evidence.labels]
        joint = log_p + log_t
        now = float(np.sum(evidence.weights * log_sum_exp(list(joint.T))))
        if now - previous < 1e-4 * abs(now) / 10 and previous > -np.inf:
            break
        previous = now
        expected = np.exp(joint - log_sum_exp(list(joint.T))[:, None])
        log_p = np.log(np.clip(_cross_fitted_trees(columns, expected, evidence.weights, fold, seed), 1e-4, 1.0))
        log_p = log_softmax(log_p, axis=1)
        at = _flips_with_prior(space, evidence, log_p, at)
    design = tree_design(log_p, columns)
    start = np.zeros((n_classes - 1, design.shape[1]))
    start[:, 1:n_classes] = np.eye(n_classes - 1)
    return _newton(_Conditional(space, evidence, design), np.concatenate([at, start.ravel()]))


def tree_design(log_p: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Ones, the logits of a prediction, the standardised columns."""
    ones_and_columns = standardised(columns)
    return np.column_stack([ones_and_columns[:, 0], log_p[:, 1:] - log_p[:, :1], ones_and_columns[:, 1:]])


def _flips_with_prior(space: Space, evidence: Evidence, log_p: np.ndarray, at: np.ndarray) -> np.ndarray:
    """T's parameters that maximise the labels' likelihood with every galaxy's p(y | z) held fixed."""

    def terms(point: np.ndarray) -> np.ndarray:
        return label_log_likelihood(log_p, evidence.labels, evidence.alpha, space.build(point))

    return climb(terms, evidence.weights, at[None], space.lower, space.upper, curvature=False).point


def _cross_fitted_trees(
    columns: np.ndarray, expected: np.ndarray, weights: np.ndarray, fold: np.ndarray, seed: int
) -> np.ndarray:
    """p(y | z) of each galaxy from trees grown on the other folds, soft classes as weighted rows; shape (N, K)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    n_classes = expected.shape[1]
    out = np.empty_like(expected)
    for k in range(FOLDS):
        grow = np.flatnonzero(fold != k)
        rows = np.tile(grow, n_classes)
        classes = np.repeat(np.arange(n_classes), grow.size)
        soft = (weights[grow][:, None] * expected[grow]).T.ravel()
        used = soft > 1e-6
        trees = HistGradientBoostingClassifier(
            max_iter=60,
            learning_rate=0.1,
            max_leaf_nodes=15,
            min_samples_leaf=200,
            early_stopping=False,
            random_state=seed,
        )
        trees.fit(columns[rows[used]], classes[used], sample_weight=soft[used])
        out[fold == k] = trees.predict_proba(columns[fold == k])
    return out
