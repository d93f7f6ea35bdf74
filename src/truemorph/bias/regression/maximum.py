"""Find the maximum of a log-likelihood, and its curvature for the errors.

For a few parameters of any likelihood: scipy's L-BFGS-B, then Newton's method. For multinomial logistic regression on
soft labels: Newton's method (scikit-learn's needs hard labels and gives no information matrix; EM and gold labels need
both).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from truemorph.bias.likelihood import log_sum_exp
from truemorph.workers import one_thread

_STEP = 1e-4  # of central differences
_EDGE = 1e-3  # distance to a bound within which a parameter is at it
_NEWTON_STEPS = 50

# Value and gradient at a point of shape (P,).
Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]
# Lowest and highest point, shape (P,) each.
Bounds = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Maximum:
    """Maximum of a log-likelihood of P parameters."""

    point: np.ndarray  # (P,)
    value: float
    information: np.ndarray  # (P, P): minus the second derivatives
    free: np.ndarray  # (P,): whether a parameter is not at a bound
    steps: int  # number of iterations

    def covariance(self, products: np.ndarray | None = None) -> np.ndarray:
        """Return the inverse information, or the sandwich with products of scores; NaN at a bound."""
        at = np.ix_(self.free, self.free)
        inverse = invert(self.information[at])
        if products is not None:
            inverse = inverse @ products[at] @ inverse
        full = np.full_like(self.information, np.nan)
        full[at] = inverse
        return full


def differences(function: Callable[[np.ndarray], np.ndarray], point: np.ndarray) -> np.ndarray:
    """Return the derivatives of a function at a point, shape (P, …), by central differences."""
    shifts = np.eye(point.size) * _STEP
    return np.array([(function(point + s) - function(point - s)) / (2 * _STEP) for s in shifts])


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of an information matrix; NaN if the data do not determine the parameters."""
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)
    return inverse if np.all(np.diag(inverse) > 0) else np.full_like(matrix, np.nan)


@one_thread()
def climb(
    objective: Objective, starts: np.ndarray, bounds: Bounds, scale: float, steps: int = 500
) -> tuple[np.ndarray, int]:
    """Maximise from the two best starts, with tolerances in units of `scale`; return point and number of steps."""

    def negative(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, slopes = objective(point)
        return -value / scale, -slopes / scale

    if len(starts) > 2:
        starts = np.array(sorted(starts, key=lambda start: negative(start)[0])[:2])
    options = {"maxiter": steps, "ftol": 1e-13, "gtol": 1e-7}
    different, limits = dict.fromkeys(map(tuple, starts)), np.column_stack(bounds)
    ends = [
        minimize(negative, start, jac=True, method="L-BFGS-B", bounds=limits, options=options) for start in different
    ]
    best = min(ends, key=lambda end: end.fun)
    return best.x, sum(end.nit for end in ends)


@one_thread()
def maximise(
    objective: Objective,
    starts: np.ndarray,
    bounds: Bounds,
    scale: float,
    information: Callable[[np.ndarray], np.ndarray] | None = None,
    steps: int = 500,
) -> Maximum:
    """Maximise from several starts, compute the curvature (`information`), and finish with Newton's method."""
    point, taken = climb(objective, starts, bounds, scale, steps)
    curvature = -differences(lambda at: objective(at)[1], point) if information is None else information(point)
    return polish(objective, point, 0.5 * (curvature + curvature.T), bounds, taken)


@one_thread()
def polish(objective: Objective, point: np.ndarray, information: np.ndarray, bounds: Bounds, taken: int = 0) -> Maximum:
    """Refine the maximum by Newton's method, with the curvature computed nearby."""
    lower, upper = bounds
    free = (point - lower > _EDGE) & (upper - point > _EDGE)
    inverse = invert(information[np.ix_(free, free)])
    value, slopes = objective(point)
    for _ in range(0 if np.isnan(inverse).any() else 8):
        step = np.zeros(point.size)
        step[free] = inverse @ slopes[free]
        if np.all(np.abs(step[free]) < 1e-6 * np.sqrt(np.diag(inverse))):
            break
        trial = np.clip(point + step, lower, upper)
        reached, there = objective(trial)
        if not reached > value:
            break
        point, value, slopes = trial, reached, there
    return Maximum(point, value, information, free, taken)


def follow(
    objective: Objective, point: np.ndarray, information: np.ndarray, bounds: Bounds, scale: float
) -> np.ndarray:
    """Return the maximum near a point, of known curvature there, by Newton's method; where this ends early, climb."""
    near = polish(objective, point, information, bounds)
    covariance, slopes = near.covariance(), objective(near.point)[1]
    left = np.abs(np.nan_to_num(covariance) @ slopes)[near.free]  # of the way to the maximum
    if np.all(left < 1e-4 * np.sqrt(np.diag(covariance)[near.free])):
        return near.point
    return climb(objective, near.point[None], bounds, scale)[0]


def effective_weights(weights: np.ndarray) -> np.ndarray:
    """Return weights, (n,), whose sum is the number of galaxies without weights that say as much, (Σ w)² / Σ w².

    Kish 1965, Survey Sampling.
    """
    return weights * weights.sum() / np.sum(weights**2) if weights.size else weights


def log_probabilities(design: np.ndarray, coefficients: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    """Return log p(y | z), shape (N, K), from a design (N, Q), coefficients (K - 1, Q), and an offset of class 1."""
    scores = [np.zeros(design.shape[0]), *(design @ row for row in coefficients)]
    if offset is not None:
        scores[1] += offset
    total = log_sum_exp(scores)
    return np.stack([score - total for score in scores]).T  # one class after the other in memory


def information_matrix(design: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return Σ_n V_n ⊗ z_n z_nᵀ for variances V of shape (N, K - 1, K - 1), flattened by class."""
    n_free, width = variances.shape[1], design.shape[1]
    out = np.empty((n_free, width, n_free, width))
    for a in range(n_free):
        for b in range(a, n_free):
            block = design.T @ (design * variances[:, a, b, None])
            out[a, :, b], out[b, :, a] = block, block.T
    return out.reshape(n_free * width, n_free * width)


def class_variances(probabilities: np.ndarray) -> np.ndarray:
    """Return the covariance of class membership for classes 1 … K - 1, shape (N, K - 1, K - 1)."""
    p = probabilities[:, 1:]
    return p[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * p[:, None, :]


def class_precision(n_free: int) -> np.ndarray:
    """Return the precision of the coefficients of classes 1 … K - 1 relative to class 0, in units of the ridge.

    If each of the K classes has an independent normal coefficient of variance s² / 2, the differences from class 0 have
    the covariance s² (I + J) / 2, and the inverse 2 (I - J / K) / s², whichever class is class 0.
    """
    return 2 * (np.eye(n_free) - 1 / (n_free + 1))


@one_thread()
def fit_softmax(
    design: np.ndarray, targets: np.ndarray, ridge: np.ndarray, weights: np.ndarray, start: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Maximise Σ_n w_n Σ_k t_nk log p(k | z_n) minus a penalty for large coefficients, by Newton's method.

    The design matrix has shape (N, Q), hard or soft targets (N, K), the ridge (Q,), and the start (K - 1, Q). Return
    coefficients, (K - 1, Q), and penalised information, ((K - 1) Q, (K - 1) Q). For the penalty, see `class_precision`.
    """
    n_free = targets.shape[1] - 1
    between = class_precision(n_free)
    penalty = np.kron(between, np.diag(ridge))
    coefficients = np.zeros((n_free, design.shape[1])) if start is None else start.copy()

    def value(at: np.ndarray) -> float:
        terms = np.sum(targets * log_probabilities(design, at), axis=1)
        return float(np.sum(weights * terms) - 0.5 * np.sum(ridge * (at * (between @ at))))

    now = value(coefficients)
    for _ in range(_NEWTON_STEPS):
        p = np.exp(log_probabilities(design, coefficients))
        slopes = ((weights[:, None] * (targets - p)[:, 1:]).T @ design - ridge * (between @ coefficients)).ravel()
        information = information_matrix(design, class_variances(p) * weights[:, None, None]) + penalty
        step = np.linalg.lstsq(information, slopes, rcond=None)[0].reshape(coefficients.shape)
        factor = 1.0
        while (reached := value(coefficients + factor * step)) < now - 1e-9 and factor > 1e-4:
            factor /= 2
        if reached < now:
            break
        coefficients, gained, now = coefficients + factor * step, reached - now, reached
        if gained < 1e-9 * (1 + abs(now)):
            break
    return coefficients, information
