"""Class fractions of a sample from p(y | x) of a classifier that was trained on another sample."""

from __future__ import annotations

import numpy as np

_STEPS, _CLOSE = 10_000, 1e-8


def reestimated_fractions(
    p: np.ndarray, trained: np.ndarray, uncertain: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return class fractions π, (K,), that differ from those of training, and their covariance, from p(y | x), (N, K).

    π maximises Π_i Σ_k p(k | x_i) π_k / trained_k (Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21).
    p(y | x) must be calibrated, and p(x | y) the same as in training. `uncertain` is the covariance of `trained`. The
    covariance follows from the observed information; it is NaN if p does not depend on x.
    """
    k, ratio, fractions, step = trained.size, p / trained, trained, 1.0
    for _ in range(_STEPS):
        part = ratio / (ratio @ fractions)[:, None]
        if step < _CLOSE:
            break
        before, fractions = fractions, fractions * part.mean(axis=0)  # eqs. 2.4 and 2.5, an EM algorithm
        step = np.abs(fractions - before).max()
    free = np.linalg.svd(np.ones((1, k)))[2][1:].T  # directions in which fractions still sum to 1, (K, K - 1)
    information = part.T @ part
    within = free.T @ information @ free
    if np.linalg.matrix_rank(within, tol=1e-9 * len(p)) < k - 1:
        return fractions, np.full((k, k), np.nan)
    covariance = free @ np.linalg.inv(within) @ free.T
    moved = covariance @ (information * (fractions / trained) - np.diag(part.sum(axis=0) / trained))  # by `trained`
    return fractions, covariance + moved @ (uncertain * np.ones((k, k))) @ moved.T
