"""Annotators: labels and votes that flip with α as a transition says, and one who only looks at the picture.

The second kind is in no family of transitions: it votes "disk" where structure stands out of a smooth galaxy of the
same isophotes, after PSF and noise, or where a galaxy is too elongated for an elliptical. It does not know the
class, nor α.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_ndtr, logit, ndtri

from truemorph.bias.transitions import DISK, Array, Transition
from truemorph.errors import InputError
from truemorph.images.shapes import measure_shapes

VOLUNTEERS = 40
# Vote fractions: a logistic curve of a latent position; that of galaxies which never win a disk's majority.
_STEEPNESS, _NEVER, _NEVER_SPREAD = 1.2, 1.6, 0.7
# The picture's annotator: votes for a disk rise with the contrast of structure and with elongation.
_CONTRAST, _CONTRAST_STEP = 0.078, 0.015
_ROUND_ENOUGH, _ELONGATION_STEP = 0.48, 0.06


def observed_labels(truth: Array, alpha: Array, transition: Transition, seed: int = 0) -> np.ndarray:
    """Draw ỹ ~ p(ỹ | y, α).

    Parameters
    ----------
    truth : array of int, shape (N,)
    alpha : array, shape (N,)
    transition : Transition
        Any family, any number of classes.
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
    """p(ỹ | y, α) of each galaxy's own class, shape (N, K)."""
    truth = np.asarray(truth)
    if truth.size and not (truth.min() >= 0 and truth.max() < transition.n_classes):
        raise InputError(f"true classes are 0 to {transition.n_classes - 1}; got {truth.min()} to {truth.max()}")
    return transition.matrix(np.asarray(alpha, dtype=np.float64))[np.arange(truth.size), truth]


def vote_fractions(truth: Array, alpha: Array, transition: Transition, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth and disk vote fractions whose majority is ỹ ~ p(ỹ | y, α) exactly; two classes.

    A galaxy's position among those of its class is Gaussian, so that disks which just miss the majority have more disk
    votes than galaxies that have none: fractions tell more than their majority, as real ones do.

    Returns
    -------
    smooth, disk : arrays, shape (N,)
        They sum to 1 and are rounded to 3 digits; ties are broken towards the label.

    Raises
    ------
    InputError
        If T has more than two classes.
    """
    _two_classes(transition)
    far = _far(_rows(truth, alpha, transition)[:, DISK])
    rng = np.random.default_rng([seed, 4])
    position = rng.normal(size=far.size)
    never = -np.abs(rng.normal(_NEVER, _NEVER_SPREAD, far.size))
    latent = np.where(np.isfinite(far), position + far, never)
    disk = np.round(expit(_STEEPNESS * latent), 3)
    disk = np.where(disk == 0.5, np.where(latent > 0, 0.501, 0.499), disk)
    return np.round(1 - disk, 3), disk


def _two_classes(transition: Transition) -> None:
    if transition.n_classes != 2:
        raise InputError(f"vote fractions are of two classes, T has {transition.n_classes}")


def _far(to_disk: np.ndarray) -> np.ndarray:
    """Middle of a class's latent positions; -inf for never a disk (eq. 6): how far below is not said by T."""
    return np.where(to_disk > 0, ndtri(np.clip(to_disk, 1e-12, 1 - 1e-12)), -np.inf)


def vote_fraction_evidence(disk: Array, alpha: Array, transition: Transition) -> np.ndarray:
    """log p(fraction | y, α) of disk vote fractions from `vote_fractions`: all that votes can tell.

    Parameters
    ----------
    disk : array, shape (N,)
        Disk vote fractions, three digits.
    alpha : array, shape (N,)
    transition : Transition
        The T(α) that they were drawn with.

    Returns
    -------
    array, shape (N, 2)
        Log-probability of the rounded fraction for each true class; -inf where a class can't have it.

    Raises
    ------
    InputError
        If T has more than two classes.

    Examples
    --------
    >>> from truemorph.bias.transitions import RayleighTransition
    >>> vote_fraction_evidence(np.array([0.9, 0.2]), np.array([30.0, 30.0]), RayleighTransition(11.25)).round(1)
    array([[ -inf,  -5.6],
           [ -6. , -10.9]])
    """
    _two_classes(transition)
    disk = np.asarray(disk, dtype=np.float64)
    # What rounds to a fraction; what would round to a tie goes to its own side.
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
    """log of the probability that a standard Gaussian falls between, in the tail where it is small."""
    mirrored = low > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    upper = log_ndtr(high)
    with np.errstate(divide="ignore"):
        return upper + np.log(-np.expm1(log_ndtr(low) - upper))


def image_votes(images: np.ndarray, seed: int = 0, *, volunteers: int = VOLUNTEERS) -> np.ndarray:
    """Votes of annotators who look at the pictures.

    Each votes "disk" with a probability that rises with the contrast of structure (departures from elliptical
    isophotes, less what noise alone would give, relative to the galaxy's own brightness) and with elongation.

    Parameters
    ----------
    images : array of uint8, shape (N, S, S, 3)
        As shown, the galaxy in the middle.
    seed : int
    volunteers : int

    Returns
    -------
    array of int, shape (N, 2)
        Votes for smooth and disk.
    """
    shapes = measure_shapes(images)
    rng = np.random.default_rng([seed, 5])
    structure = (shapes["contrast"].to_numpy() - _CONTRAST) / _CONTRAST_STEP
    elongation = (_ROUND_ENOUGH - shapes["axis_ratio"].to_numpy()) / _ELONGATION_STEP
    disk = rng.binomial(volunteers, expit(np.logaddexp(structure, elongation)))
    return np.column_stack([volunteers - disk, disk])
