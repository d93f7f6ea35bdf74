"""The maximum of a log-likelihood in few parameters, and its curvature there; scipy's L-BFGS-B finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

_STEP = 1e-4
_EDGE = 1e-3

# Value and slopes at a point of shape (P,).
Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Maximum:
    """Where a log-likelihood is largest.

    Attributes
    ----------
    point : array, shape (P,)
    value : float
        The log-likelihood there.
    information : array, shape (P, P)
        Minus its second derivatives.
    free : array of bool, shape (P,)
        Parameters that are not at a bound.
    steps : int
        Iterations.
    """

    point: np.ndarray
    value: float
    information: np.ndarray
    free: np.ndarray
    steps: int

    def covariance(self, products: np.ndarray | None = None) -> np.ndarray:
        """Inverse information, or the sandwich if the outer product of scores, shape (P, P), is given.

        NaN in the rows of parameters at a bound, and everywhere if the data do not determine the others.
        """
        at = np.ix_(self.free, self.free)
        inverse = invert(self.information[at])
        if products is not None:
            inverse = inverse @ products[at] @ inverse
        full = np.full_like(self.information, np.nan)
        full[at] = inverse
        return full


def differences(function: Callable[[np.ndarray], np.ndarray], point: np.ndarray) -> np.ndarray:
    """Central differences of a function of a point, shape (P, …)."""
    shifts = np.eye(point.size) * _STEP
    return np.stack([(function(point + s) - function(point - s)) / (2 * _STEP) for s in shifts])


def with_differences(value: Callable[[np.ndarray], float]) -> Objective:
    """Return a function that gives slopes beside its value."""
    return lambda point: (value(point), differences(lambda at: np.array(value(at)), point))


def invert(matrix: np.ndarray) -> np.ndarray:
    """Inverse of an information matrix; NaN where the data do not determine the parameters."""
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)
    return inverse if np.all(np.diag(inverse) > 0) else np.full_like(matrix, np.nan)


def climb(
    objective: Objective, starts: np.ndarray, lower: np.ndarray, upper: np.ndarray, scale: float, steps: int = 500
) -> tuple[np.ndarray, int]:
    """Climb from the two likeliest of the starts, shape (S, P); return the higher end, and the number of steps.

    `scale` is the number of galaxies: what counts as level is relative to it.
    """

    def negative(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, slopes = objective(point)
        return -value / scale, -slopes / scale

    if len(starts) > 2:
        starts = np.array(sorted(starts, key=lambda start: negative(start)[0])[:2])
    options = {"maxiter": steps, "ftol": 1e-13, "gtol": 1e-7}
    bounds = np.column_stack([lower, upper])
    ends = [minimize(negative, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options) for start in starts]
    best = min(ends, key=lambda end: end.fun)
    return best.x, sum(end.nit for end in ends)


def maximise(
    objective: Objective,
    starts: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    scale: float,
    information: Callable[[np.ndarray], np.ndarray] | None = None,
    steps: int = 500,
) -> Maximum:
    """Climb from several starts, measure the curvature, and finish with Newton's steps.

    Parameters
    ----------
    objective : callable
        Log-likelihood and its slopes.
    starts : array, shape (S, P)
    lower, upper : array, shape (P,)
        Bounds.
    scale : float
        Number of galaxies.
    information : callable, optional
        Minus the second derivatives at a point; by default differences of the slopes.
    steps : int
        Most iterations of the climb.
    """
    point, taken = climb(objective, starts, lower, upper, scale, steps)
    curvature = -differences(lambda at: objective(at)[1], point) if information is None else information(point)
    return polish(objective, point, 0.5 * (curvature + curvature.T), lower, upper, taken)


def polish(
    objective: Objective, point: np.ndarray, information: np.ndarray, lower: np.ndarray, upper: np.ndarray, taken: int
) -> Maximum:
    """Go the last steps to the maximum by Newton's method, with the curvature measured nearby."""
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
