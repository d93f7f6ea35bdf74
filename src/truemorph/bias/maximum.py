"""Climbing to the maximum of a likelihood in few parameters, and its curvature there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_STEP = 1e-4
_EDGE = 1e-3
_LONGEST = 1.5
FLOOR = -1e4
# Three steps in a row that gain less than this in log-likelihood are the end: a parameter drifts on level ground.
_NOTHING = 1e-6


@dataclass(frozen=True)
class Maximum:
    """Where a log-likelihood is largest.

    Attributes
    ----------
    point : array, shape (P,)
    value : float
        The log-likelihood there.
    information : array, shape (P, P)
        Minus its second derivatives; zero in the rows of parameters at a bound.
    free : array of bool, shape (P,)
        Parameters that are not at a bound.
    """

    point: np.ndarray
    value: float
    information: np.ndarray
    free: np.ndarray

    def covariance(self, scores: np.ndarray | None = None) -> np.ndarray:
        """Inverse information, or the sandwich if the outer product of scores, shape (P, P), is given.

        NaN in the rows of parameters at a bound, and everywhere if the data do not set the others.
        """
        at = np.ix_(self.free, self.free)
        inverse = invert(self.information[at])
        if scores is not None:
            inverse = inverse @ scores[at] @ inverse
        full = np.full_like(self.information, np.nan)
        full[at] = inverse
        return full


def differences(function: Callable[[np.ndarray], np.ndarray], point: np.ndarray) -> np.ndarray:
    """Central differences of a vector-valued function, shape (P, …)."""
    shifts = np.eye(point.size) * _STEP
    return np.stack([(function(point + s) - function(point - s)) / (2 * _STEP) for s in shifts])


def invert(matrix: np.ndarray) -> np.ndarray:
    """Inverse of an information matrix; NaN where the data do not determine the parameters."""
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)
    return inverse if np.all(np.diag(inverse) > 0) else np.full_like(matrix, np.nan)


def climb(
    terms: Callable[[np.ndarray], np.ndarray],
    weights: np.ndarray,
    starts: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    curvature: bool = True,
    steps: int = 200,
) -> Maximum:
    """Maximise Σ_m w_m ℓ_m inside bounds from several starts.

    The climb is scoring with the outer product of the rows' slopes (Berndt, Hall, Hall & Hausman 1974), damped
    where it does not go up; then, if curvature is wanted, Newton steps with second differences taken there.

    Parameters
    ----------
    terms : callable
        Log-probability of every row at a point: shape (P,) to shape (M,).
    weights : array, shape (M,)
    starts : array, shape (S, P)
        The two that begin highest are climbed from.
    lower, upper : array, shape (P,)
    curvature : bool, default True
        Whether to finish with Newton steps and report second derivatives.
    steps : int, default 200
        Most scoring steps.
    """

    def total(point: np.ndarray) -> float:
        # What T calls impossible (a gold label that contradicts it) is very unlikely, not an error.
        return float(np.sum(weights * np.maximum(terms(point), FLOOR)))

    begin = sorted(starts, key=total)[-2:] if len(starts) > 1 else starts
    ends = [_scoring(terms, weights, total, one, lower, upper, steps) for one in begin]
    point, value = max(ends, key=lambda end: end[1])
    free = (point - lower > _EDGE) & (upper - point > _EDGE)
    information = np.zeros((point.size, point.size))
    if not curvature:
        return Maximum(point, value, information, free)

    def gradient(at: np.ndarray) -> np.ndarray:
        return differences(lambda where: np.array(total(where)), at)

    second = -differences(gradient, point)
    at = np.ix_(free, free)
    information[at] = 0.5 * (second + second.T)[at]
    return polish(Maximum(point, value, information, free), terms, weights, lower, upper)


def _scoring(
    terms: Callable[[np.ndarray], np.ndarray],
    weights: np.ndarray,
    total: Callable[[np.ndarray], float],
    start: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    steps: int,
) -> tuple[np.ndarray, float]:
    point, value, damping, idle = start.copy(), total(start), 1e-3, 0

    def floored(at: np.ndarray) -> np.ndarray:
        return np.maximum(terms(at), FLOOR)

    for _ in range(steps):
        scores = differences(floored, point)  # (P, M)
        slopes = scores @ weights
        # A parameter pressed against its bound stays there.
        moves = ~(((point <= lower) & (slopes < 0)) | ((point >= upper) & (slopes > 0)))
        products = (scores[moves] * weights) @ scores[moves].T
        scale = np.diag(products) + 1e-9 * weights.sum()
        while damping < 1e8:
            step = np.linalg.solve(products + np.diag(damping * scale), slopes[moves])
            step *= min(1.0, _LONGEST / max(np.abs(step).max(initial=0.0), 1e-12))
            trial = point.copy()
            trial[moves] = np.clip(point[moves] + step, lower[moves], upper[moves])
            reached = total(trial)
            if reached >= value:
                break
            damping = max(damping, 1e-6) * 8
        else:
            break
        # Rows that T nearly forbids make the outer product, and so the step, far too cautious: go on while it pays.
        longer = 2.0
        while longer < 1e3:
            further = point.copy()
            further[moves] = np.clip(point[moves] + longer * step, lower[moves], upper[moves])
            there = total(further)
            if not there > reached:
                break
            trial, reached, longer = further, there, 2 * longer
        gained, moved = reached - value, np.abs(trial - point).max(initial=0.0)
        point, value, damping = trial, reached, max(damping / 8, 1e-9)
        idle = idle + 1 if gained < _NOTHING else 0
        if idle == 3 or (gained < 1e-8 * (1 + abs(value)) ** 0.5 and moved < 1e-3):
            break
    return point, value


def polish(
    found: Maximum, terms: Callable[[np.ndarray], np.ndarray], weights: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> Maximum:
    """Newton steps on all rows from a maximum that was found on grouped ones, with the curvature found there."""

    def total(point: np.ndarray) -> float:
        return float(np.sum(weights * np.maximum(terms(point), FLOOR)))

    point, value, at = found.point, total(found.point), found.free
    inverse = invert(found.information[np.ix_(at, at)])
    if np.isnan(inverse).any():
        return Maximum(point, value, found.information, found.free)
    errors = np.sqrt(np.diag(inverse))
    for _ in range(3):
        slopes = differences(lambda where: np.array(total(where)), point)
        step = inverse @ slopes[at]
        if np.all(np.abs(step) < 1e-3 * errors):
            break
        trial = point.copy()
        trial[at] = np.clip(point[at] + step, lower[at], upper[at])
        reached = total(trial)
        if reached < value:
            break
        point, value = trial, reached
        if np.all(np.abs(step) < 0.1 * errors):
            break  # what a further step would change is of second order in this one
    return Maximum(point, value, found.information, found.free)
