"""Annotators: labels that flip with α as a transition says, and the vote fractions that go with them."""

from __future__ import annotations

import numpy as np

from truemorph.bias.transitions import Array, Transition


def observed_labels(truth: Array, alpha: Array, transition: Transition, seed: int = 0) -> np.ndarray:
    """Draw ỹ ~ p(ỹ | y, α).

    Parameters
    ----------
    truth : array of int, shape (N,)
    alpha : array, shape (N,)
    transition : Transition
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
    truth, alpha = np.asarray(truth), np.asarray(alpha, dtype=np.float64)
    rows = transition.matrix(alpha)[np.arange(truth.size), truth]
    draws = np.random.default_rng([seed, 2]).random(truth.size)
    return (draws[:, None] > np.cumsum(rows, axis=1)[:, :-1]).sum(axis=1)


def vote_fractions(labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth and disk vote fractions whose majority is the label; they sum to 1, rounded to 3 digits."""
    margin = np.random.default_rng([seed, 3]).beta(2.0, 1.5, labels.size)
    winner = np.round(0.501 + 0.499 * margin, 3)
    disk = np.where(labels == 1, winner, np.round(1 - winner, 3))
    return np.round(1 - disk, 3), disk
