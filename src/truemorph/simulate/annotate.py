"""Simulate annotators: labels and votes drawn from a transition T(α), and votes from the images alone.

Votes from images follow no family of transitions, and depend on the true class and α only through the image.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_ndtr, logit, ndtri

from truemorph.bias.transitions import DISK, Array, Transition
from truemorph.errors import InputError
from truemorph.images.shapes import measure_shapes

VOLUNTEERS = 40
# Vote fractions: a logistic function of a latent variable, whose mean and spread are given if T allows no disk labels.
_STEEPNESS, _NEVER, _NEVER_SPREAD = 1.2, 1.6, 0.7
# Votes from images: the probability of a disk vote increases with the contrast of structure and elongation.
_CONTRAST, _CONTRAST_STEP = 0.078, 0.015
_ROUND_ENOUGH, _ELONGATION_STEP = 0.48, 0.06


def observed_labels(truth: Array, alpha: Array, transition: Transition, seed: int = 0) -> np.ndarray:
    """Draw ỹ ~ p(ỹ | y, α).

    Parameters
    ----------
    truth : array of int, shape (N,)
    alpha : array, shape (N,)
    transition : Transition
        T(α) of any family and number of classes.
    seed : int

    Returns
    -------
    array of int, shape (N,)

    Examples
    --------
    >>> from truemorph.bias.transitions import RayleighTransition
    >>> observed_labels([1, 1, 0], [0.0, 1e3, 5.0], RayleighTransition(10.0))
    array([0, 1, 0])
    """
    rows = _rows(truth, alpha, transition)
    draws = np.random.default_rng([seed, 2]).random(len(rows))
    return (draws[:, None] > np.cumsum(rows, axis=1)[:, :-1]).sum(axis=1)


def _rows(truth: Array, alpha: Array, transition: Transition) -> np.ndarray:
    """Return p(ỹ | y, α) for each galaxy's class, shape (N, K)."""
    truth = np.asarray(truth)
    if truth.size and not (truth.min() >= 0 and truth.max() < transition.n_classes):
        raise InputError(f"true classes must be 0 to {transition.n_classes - 1}; got {truth.min()} to {truth.max()}")
    return transition.matrix(np.asarray(alpha, dtype=np.float64))[np.arange(truth.size), truth]


def vote_fractions(truth: Array, alpha: Array, transition: Transition, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw smooth and disk vote fractions whose majority is exactly ỹ ~ p(ỹ | y, α), for two classes.

    A galaxy's latent position within its class is Gaussian, so that disks just below the majority have more disk votes
    than disks far below it: fractions have more information than their majority, as in real data.

    Returns
    -------
    smooth, disk : arrays, shape (N,)
        Fractions that sum to 1, rounded to 3 digits; ties are resolved in favour of the label.

    Raises
    ------
    InputError
        If T has more than two classes.
    """
    if transition.n_classes != 2:
        raise InputError(f"vote fractions need two classes, but T has {transition.n_classes}")
    far = _far(_rows(truth, alpha, transition)[:, DISK])
    rng = np.random.default_rng([seed, 4])
    position = rng.normal(size=far.size)
    never = -np.abs(rng.normal(_NEVER, _NEVER_SPREAD, far.size))
    latent = np.where(np.isfinite(far), position + far, never)
    disk = np.round(expit(_STEEPNESS * latent), 3)
    disk = np.where(disk == 0.5, np.where(latent > 0, 0.501, 0.499), disk)
    return np.round(1 - disk, 3), disk


def _far(to_disk: np.ndarray) -> np.ndarray:
    """Mean latent position of a class; -inf if it is never labelled disk (eq. 6), where T gives no position."""
    return np.where(to_disk > 0, ndtri(np.clip(to_disk, 1e-12, 1 - 1e-12)), -np.inf)


def vote_fraction_evidence(disk: Array, alpha: Array, transition: Transition) -> np.ndarray:
    """Compute log p(fraction | y, α) of disk vote fractions from `vote_fractions`: the full information of the votes.

    Parameters
    ----------
    disk : array, shape (N,)
        Disk vote fractions with three digits.
    alpha : array, shape (N,)
    transition : Transition
        The T(α) from which they were drawn.

    Returns
    -------
    array, shape (N, 2)
        Log-probability of the rounded fraction for each true class; -inf if it is impossible for a class.

    Examples
    --------
    >>> from truemorph.bias.transitions import RayleighTransition
    >>> vote_fraction_evidence(np.array([0.9, 0.2]), np.array([30.0, 30.0]), RayleighTransition(11.25)).round(1)
    array([[ -inf,  -5.6],
           [ -6. , -10.9]])
    """
    disk = np.asarray(disk, dtype=np.float64)
    # Interval that is rounded to a fraction; a value that would be rounded to a tie stays on its side.
    lowest, highest = disk - 0.0005, disk + 0.0005
    lowest = np.where(np.isclose(disk, 0.501), 0.5, lowest)
    highest = np.where(np.isclose(disk, 0.499), 0.5, highest)
    low, high = (logit(np.clip(edge, 0, 1)) / _STEEPNESS for edge in (lowest, highest))
    matrix = transition.matrix(np.asarray(alpha, dtype=np.float64))
    columns = []
    for y in range(2):
        far = _far(matrix[:, y, DISK])
        middle = np.where(np.isfinite(far), far, 0.0)
        never = np.logaddexp(
            _log_between((-high - _NEVER) / _NEVER_SPREAD, (-low - _NEVER) / _NEVER_SPREAD),
            _log_between((low - _NEVER) / _NEVER_SPREAD, (high - _NEVER) / _NEVER_SPREAD),
        )
        never = np.where(high <= 0, never, -np.inf)
        columns.append(np.where(np.isfinite(far), _log_between(low - middle, high - middle), never))
    return np.column_stack(columns)


def _log_between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Log of the probability that a standard Gaussian is between two values, accurate in the tails."""
    mirrored = low > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    upper = log_ndtr(high)
    with np.errstate(divide="ignore"):
        return upper + np.log(-np.expm1(log_ndtr(low) - upper))


def image_votes(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Simulate the votes of 40 annotators from images.

    Each votes "disk" with a probability that increases with the contrast of structure (residuals from elliptical
    isophotes, minus the expectation for noise, relative to the galaxy's brightness) and with elongation.

    Parameters
    ----------
    images : array of uint8, shape (N, S, S, 3)
        Images with the galaxy at the centre.
    seed : int

    Returns
    -------
    array of int, shape (N, 2)
        Numbers of votes for smooth and disk.
    """
    shapes = measure_shapes(images)
    rng = np.random.default_rng([seed, 5])
    structure = (shapes["contrast"].to_numpy() - _CONTRAST) / _CONTRAST_STEP
    elongation = (_ROUND_ENOUGH - shapes["axis_ratio"].to_numpy()) / _ELONGATION_STEP
    disk = rng.binomial(VOLUNTEERS, expit(np.logaddexp(structure, elongation)))
    return np.column_stack([VOLUNTEERS - disk, disk])
