"""Multinomial logistic regression on soft labels, with the information that its errors come from.

scikit-learn's takes hard labels only and gives no information matrix; the EM of the conditional estimator needs
both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from truemorph.bias.likelihood import log_sum_exp


def log_probabilities(design: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """log p(y | z), shape (N, K), from a design matrix (N, Q) and coefficients (K - 1, Q); class 0 is zero."""
    scores = [np.zeros(design.shape[0]), *(design @ row for row in coefficients)]
    total = log_sum_exp(scores)
    return np.stack([score - total for score in scores], axis=1)


@dataclass(frozen=True)
class Regression:
    """Coefficients, shape (K - 1, Q), and the penalised information, ((K - 1) Q, (K - 1) Q)."""

    coefficients: np.ndarray
    information: np.ndarray

    def log_probabilities(self, design: np.ndarray) -> np.ndarray:
        """log p(y | z), shape (N, K)."""
        return log_probabilities(design, self.coefficients)


def information_matrix(design: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Σ_n V_n ⊗ z_n z_nᵀ for (N, K - 1, K - 1) variances: information of coefficients flattened class by class."""
    n_free, width = variances.shape[1], design.shape[1]
    out = np.empty((n_free, width, n_free, width))
    for a in range(n_free):
        for b in range(a, n_free):
            block = design.T @ (design * variances[:, a, b, None])
            out[a, :, b], out[b, :, a] = block, block.T
    return out.reshape(n_free * width, n_free * width)


def class_variances(probabilities: np.ndarray) -> np.ndarray:
    """Covariance of class membership for classes 1 … K - 1, shape (N, K - 1, K - 1)."""
    p = probabilities[:, 1:]
    return p[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * p[:, None, :]


def fit_softmax(
    design: np.ndarray,
    targets: np.ndarray,
    ridge: np.ndarray,
    weights: np.ndarray | None = None,
    start: np.ndarray | None = None,
    steps: int = 50,
) -> Regression:
    """Maximise Σ_n w_n Σ_k t_nk log p(k | z_n) - ½ Σ ridge × coefficient², by Newton's method.

    Parameters
    ----------
    design : array, shape (N, Q)
        With its column of ones, if an intercept is wanted.
    targets : array, shape (N, K)
        Class memberships, hard or soft; rows sum to 1.
    ridge : array, shape (Q,)
        Penalty of each column, for every class.
    weights : array, shape (N,), optional
    start : array, shape (K - 1, Q), optional
    steps : int, default 50
        Most Newton steps.
    """
    n_free, width = targets.shape[1] - 1, design.shape[1]
    coefficients = np.zeros((n_free, width)) if start is None else start.copy()
    w = np.ones(design.shape[0]) if weights is None else weights

    def value(at: np.ndarray) -> float:
        terms = np.sum(targets * log_probabilities(design, at), axis=1)
        return float(np.sum(w * terms) - 0.5 * np.sum(ridge * at**2))

    now = value(coefficients)
    information = np.zeros((n_free * width, n_free * width))
    for _ in range(steps):
        p = np.exp(log_probabilities(design, coefficients))
        slopes = ((w[:, None] * (targets - p)[:, 1:]).T @ design - ridge * coefficients).ravel()
        information = information_matrix(design, class_variances(p) * w[:, None, None])
        information += np.diag(np.tile(ridge, n_free))
        step = np.linalg.lstsq(information, slopes, rcond=None)[0].reshape(coefficients.shape)
        factor = 1.0
        while (reached := value(coefficients + factor * step)) < now - 1e-9 and factor > 1e-4:
            factor /= 2
        if reached < now:
            break
        coefficients, gained, now = coefficients + factor * step, reached - now, reached
        if gained < 1e-9 * (1 + abs(now)):
            break
    return Regression(coefficients, information)
