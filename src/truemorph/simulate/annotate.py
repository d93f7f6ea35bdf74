"""Simulate annotators: labels and votes drawn from a transition T(α), and votes from the images alone."""

import numpy as np
from scipy.special import expit, ndtri

from truemorph.bias.curves.transitions import DISK, Array, Transition
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
    >>> from truemorph.bias.curves.formulas import RayleighTransition
    >>> observed_labels([1, 1, 0], [0.0, 1e3, 5.0], RayleighTransition(10.0))
    array([0, 1, 0])
    """
    rows = label_probabilities(truth, alpha, transition)
    draws = np.random.default_rng([seed, 2]).random(len(rows))
    return (draws[:, None] > np.cumsum(rows, axis=1)[:, :-1]).sum(axis=1)


def label_probabilities(truth: Array, alpha: Array, transition: Transition) -> np.ndarray:
    """Return p(ỹ | y, α) for each galaxy's class, shape (N, K); α, or all observables of T, shape (N, J)."""
    truth = np.asarray(truth)
    if truth.size and not (truth.min() >= 0 and truth.max() < transition.n_classes):
        raise InputError(f"true classes must be 0 to {transition.n_classes - 1}; got {truth.min()} to {truth.max()}")
    return transition.matrix(np.asarray(alpha, float))[np.arange(truth.size), truth]


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
    to_disk = label_probabilities(truth, alpha, transition)[:, DISK]
    # Mean latent position; T gives none to a class that is never labelled disk (eq. 6).
    far = ndtri(np.clip(to_disk, 1e-12, 1 - 1e-12))
    rng = np.random.default_rng([seed, 4])
    position = rng.normal(size=far.size)
    never = -np.abs(rng.normal(_NEVER, _NEVER_SPREAD, far.size))
    latent = np.where(to_disk > 0, position + far, never)
    disk = np.round(expit(_STEEPNESS * latent), 3)
    disk = np.where(disk == 0.5, np.where(latent > 0, 0.501, 0.499), disk)
    return np.round(1 - disk, 3), disk


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
