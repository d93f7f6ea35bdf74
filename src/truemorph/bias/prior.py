"""Class fractions of a sample from p(y | x) of a classifier that was trained on another sample."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

_STEPS, _CLOSE = 10_000, 1e-8
# Range of the logarithm of the factor by which logits are too small, and the step of its derivatives.
_LARGEST, _STEP = 2.0, 1e-3
_NEWTON_STEPS, _LARGEST_STEP = 50, 0.5
# Log-odds of the most probable class above which galaxies are equally certain.
_CERTAIN = 10.0


@dataclass(frozen=True)
class HeldOut:
    """Held-out training galaxies: p(y | x) and log p(observed | y, α), shape (M, K) each, and weights, (M,)."""

    p: np.ndarray
    evidence: np.ndarray
    weights: np.ndarray

    def sharpness(self) -> tuple[float, float]:
        """Return the logarithm of the factor by which logits should be multiplied, and its standard error.

        The factor maximises Σ w log Σ_y p(observed | y, α) p(y | x), so classes are known through T(α) only. The error
        is the sandwich's (White 1982); it is infinite if the labels do not depend on p.
        """
        likelihood = np.exp(self.evidence - self.evidence.max(axis=1, keepdims=True))

        def terms(at: float) -> np.ndarray:
            return np.log(np.maximum(np.sum(likelihood * sharpened(self.p, at), axis=1), 1e-300))

        at, step = 0.0, 1.0
        for _ in range(_NEWTON_STEPS):
            below, middle, above = (terms(at + move) for move in (-_STEP, 0.0, _STEP))
            scores = self.weights * (above - below) / (2 * _STEP)
            information = -float(self.weights @ (above - 2 * middle + below)) / _STEP**2
            if abs(step) < _CLOSE:
                break
            slope = float(scores.sum())
            step = slope / information if information > 0 else np.sign(slope) * _LARGEST_STEP
            step = float(np.clip(step, -_LARGEST_STEP, _LARGEST_STEP))
            at = float(np.clip(at + step, -_LARGEST, _LARGEST))
        return at, float(np.sqrt(np.sum(scores**2)) / information) if information > 0 else np.inf

    def fractions(self, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of p(y | x), (K,), and its covariance."""
        part, p = (self.weights / self.weights.sum())[:, None], sharpened(self.p, sharpness)
        mean = np.sum(part * p, axis=0)
        scatter = part * (p - mean)
        return mean, scatter.T @ scatter


def sharpened(p: np.ndarray, sharpness: float) -> np.ndarray:
    """Return class probabilities, (N, K), whose logits are multiplied by a factor, given by its logarithm."""
    return softmax(np.log(np.maximum(p, 1e-300)) * np.exp(sharpness), axis=1)


def reestimated_fractions(p: np.ndarray, held_out: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """Return class fractions π, (K,), that differ from those of training, and their covariance, from p(y | x), (N, K).

    p(x | y) must be the same as in training. Logits are multiplied by the factor that calibrates held-out galaxies,
    whose error is included. The covariance is NaN if p does not depend on x.
    """
    factor, error = held_out.sharpness()

    def at(sharpness: float) -> tuple[np.ndarray, np.ndarray]:
        return _of_another_sample(sharpened(p, sharpness), *held_out.fractions(sharpness))

    fractions, covariance = at(factor)
    slope = (at(factor + _STEP)[0] - at(factor - _STEP)[0]) / (2 * _STEP)
    return fractions, covariance + (np.multiply.outer(slope, slope) * error**2 if np.isfinite(error) else np.nan)


def _of_another_sample(p: np.ndarray, trained: np.ndarray, uncertain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class fractions π, (K,), and their covariance, from calibrated p(y | x), (N, K).

    π maximises Π_i Σ_k p(k | x_i) π_k / trained_k (Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21).
    `uncertain` is the covariance of `trained`. The covariance follows from the observed information.
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
    return fractions, covariance + moved @ uncertain @ moved.T


def certainty(p: np.ndarray, fractions: np.ndarray, held_out: HeldOut) -> tuple[float, float]:
    """Return the ratio of the mean certainty of galaxies to that expected from held-out ones, and its error.

    Certainty is the log-odds of the most probable class against the next. If only class fractions differ, p of held-out
    galaxies, weighted with π_y / trained_y, are distributed as those of the others.
    """

    def certain(probabilities: np.ndarray) -> np.ndarray:
        second, first = np.log(np.maximum(np.sort(probabilities, axis=1)[:, -2:], 1e-12)).T
        return np.minimum(first - second, _CERTAIN)

    factor, _ = held_out.sharpness()
    trained, _ = held_out.fractions(factor)
    weights = held_out.weights * (sharpened(held_out.p, factor) @ (fractions / trained))
    weights = weights / weights.sum()
    own, others = certain(p), certain(held_out.p)
    expected = max(float(weights @ others), 1e-12)
    variance = own.var() / own.size + np.sum((weights * (others - expected)) ** 2)
    return float(own.mean() / expected), float(np.sqrt(variance) / expected)
