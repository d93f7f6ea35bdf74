"""Class fractions of bins from gold labels: a regression, put right by its own residuals.

p(y | ỹ, α, z) is regressed on the gold rows, averaged over all galaxies of a bin, and corrected by the gold
rows' residuals there (prediction-powered inference, Angelopoulos et al. 2023, Science 382, 669; shrunk as in
small-area estimation, Fay & Herriot 1979, JASA 74, 269): right even where the regression is not, and not noisier
than it where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from truemorph.bias.binning import Bins
from truemorph.bias.evidence import UNKNOWN
from truemorph.bias.gold import TrustedRegression

FOLDS = 5


@dataclass(frozen=True)
class Assisted:
    """Fractions and errors of bins, shape (B, K) each, and the mean weight of the gold rows' residuals."""

    fractions: np.ndarray
    stderr: np.ndarray
    shrinkage: float


def model_assisted(
    labels: np.ndarray,
    alpha: np.ndarray,
    trusted: np.ndarray,
    columns: np.ndarray | None,
    bins: Bins,
    n_classes: int,
    seed: int,
) -> Assisted:
    """Regression on gold rows averaged over bins, corrected by their residuals as far as these are significant.

    Residuals are those of galaxies held out of the regression (five folds). Their scatter over bins beyond what
    chance gives, τ² (by moments, as DerSimonian & Laird 1986), says how wrong the regression is: bin b's residual
    enters with weight τ² / (τ² + s_b²), which goes to 1 as gold rows grow in number.
    """
    model = TrustedRegression.fit(labels, alpha, trusted, n_classes, columns, bins.weights)
    design = model.design(labels, alpha, columns)
    predicted = model.probabilities(design)
    fractions = bins.means(predicted)
    slopes = model.mean_slopes(design, bins.shares())  # (B, K, Q)
    variance = np.einsum("bkq,qr,bkr->bk", slopes, model.covariance(), slopes)
    spread = bins.means(predicted**2) - fractions**2
    variance += np.maximum(spread, 0) / bins.effective_counts()[:, None]

    known = np.flatnonzero(trusted != UNKNOWN)
    fold = np.random.default_rng(seed).permutation(known.size) % FOLDS
    residual = np.zeros((known.size, n_classes))
    noise = np.zeros((known.size, n_classes))
    truth = np.eye(n_classes)[trusted[known]]
    for k in range(FOLDS):
        kept = np.full(labels.size, UNKNOWN)
        kept[known[fold != k]] = trusted[known[fold != k]]
        other = TrustedRegression.fit(labels, alpha, kept, n_classes, columns, bins.weights)
        p = other.probabilities(design[known[fold == k]])
        residual[fold == k] = truth[fold == k] - p
        noise[fold == k] = p * (1 - p)
    at, w = bins.index[known], bins.weights[known]
    usable = np.bincount(at, minlength=bins.count) > 1
    total = np.bincount(at, weights=w, minlength=bins.count)
    correction = np.zeros_like(fractions)
    weight = np.zeros_like(fractions)
    extra = np.zeros_like(fractions)
    for c in range(n_classes):
        sums = np.bincount(at, weights=w * residual[:, c], minlength=bins.count)
        mean = np.divide(sums, total, out=np.zeros(bins.count), where=usable)
        square = np.bincount(at, weights=w**2 * noise[:, c], minlength=bins.count)
        s2 = np.divide(square, total**2, out=np.full(bins.count, np.inf), where=usable)
        s2 = np.maximum(s2, 1e-9)
        tau2 = _excess_variance(mean[usable], s2[usable])
        weight[:, c] = np.where(usable, tau2 / (tau2 + s2), 0.0)
        correction[:, c] = weight[:, c] * mean
        extra[:, c] = np.where(usable, weight[:, c] ** 2 * s2, tau2) + np.where(
            usable, (1 - weight[:, c]) ** 2 * tau2, 0
        )
    corrected = np.clip(fractions + correction, 0.0, 1.0)
    corrected /= corrected.sum(axis=1, keepdims=True)
    # As the residual takes over, the regression's own error cancels out of the sum.
    variance = (1 - weight) ** 2 * variance + extra
    return Assisted(corrected, np.sqrt(variance), float(weight.mean()))


def _excess_variance(values: np.ndarray, variances: np.ndarray) -> float:
    """Scatter of values about zero, a known mean, beyond their errors: τ² by the method of moments."""
    weights = 1 / variances
    return float(max(0.0, np.sum(weights * values**2) - values.size) / weights.sum()) if values.size else 0.0
