"""Class fractions in bins from labels alone, by inverting T(α).

In each bin, the fractions f maximise Σ w log Σ_y f_y p(ỹ | y, α).
"""

from contextlib import suppress

import numpy as np

from truemorph.arrays import ratio
from truemorph.bias.binning import Bins
from truemorph.bias.curves.families import COMPARED
from truemorph.bias.curves.transitions import DISK, SMOOTH, Transition
from truemorph.bias.fitting import refitted
from truemorph.bias.likelihood import label_columns
from truemorph.bias.regression.maximum import differences
from truemorph.bias.result import REJECTED, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.errors import InputError

_EM_STEPS = 2000


def _invert(likelihood: np.ndarray, bins: Bins, start: np.ndarray) -> np.ndarray:
    """Return maximum-likelihood fractions of each bin, shape (B, K), given p(ỹ_n | y, α_n), shape (N, K)."""
    fractions = np.clip(start, 1e-6, None)
    fractions /= fractions.sum(axis=1, keepdims=True)
    if likelihood.shape[1] == 2:
        return _invert_two(likelihood, bins, fractions[:, DISK])
    for _ in range(_EM_STEPS):
        joint = fractions[bins.index] * likelihood
        total = joint.sum(axis=1, keepdims=True)
        after = bins.means(np.nan_to_num(ratio(joint, total)))
        after /= after.sum(axis=1, keepdims=True)
        if np.abs(after - fractions).max() < 1e-9:
            return after
        fractions = after
    return fractions


def _invert_two(likelihood: np.ndarray, bins: Bins, start: np.ndarray) -> np.ndarray:
    """Maximise each bin's concave likelihood for two classes, by Newton's method inside brackets."""
    contrast = likelihood[:, DISK] - likelihood[:, SMOOTH]
    low, high, second = np.zeros(bins.count), np.ones(bins.count), np.clip(start, 0.01, 0.99)
    for _ in range(60):
        score = contrast / np.maximum(likelihood[:, SMOOTH] + second[bins.index] * contrast, 1e-300)
        slope, curvature = bins.sums(score), bins.sums(score**2)
        low, high = np.where(slope > 0, second, low), np.where(slope > 0, high, second)
        after = second + np.nan_to_num(ratio(slope, curvature))
        inside = (low < after) & (after < high)
        after = np.where(inside, after, 0.5 * (low + high))
        if np.abs(after - second).max() < 1e-10:
            break
        second = after
    return np.stack([1 - second, second], axis=1)


def _likelihood(transition: Transition, sample: Sample) -> np.ndarray:
    """Return p(ỹ_n | y, α_n) for every y, shape (N, K)."""
    argument = sample.argument if transition.n_observables else sample.alpha
    return np.exp(label_columns(transition, sample.labels, argument))


def inverted(
    sample: Sample, bins: Bins, transition: Transition, fit: TransitionFit | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Invert T: return fractions and errors, shape (B, K) each, and the covariance of those of the second class.

    Each galaxy's influence on its bin's fractions is inverse information times score. If T was fitted to the same
    labels, its influence through T is added before squaring.
    """

    def summed(values: np.ndarray) -> np.ndarray:
        """Return sums over galaxies in each bin without weights, shape (B,)."""
        return np.bincount(bins.index, values, bins.count)

    likelihood = _likelihood(transition, sample)
    fractions = _invert(likelihood, bins, bins.means(sample.observed))
    mixture = np.maximum(np.sum(fractions[bins.index] * likelihood, axis=1), 1e-9)
    scores = (likelihood[:, 1:] - likelihood[:, :1]) / mixture[:, None]  # d log p(ỹ) / d f_k, k >= 1
    own = np.zeros_like(likelihood)
    for b in range(bins.count):
        inside = bins.index == b
        weighted = scores[inside] * bins.weights[inside, None]
        own[inside, 1:] = weighted @ np.linalg.pinv(weighted.T @ scores[inside])
    own[:, 0] = -own[:, 1:].sum(axis=1)
    covariance = np.array([np.diag(summed(influence**2)) for influence in own.T])
    if fit is not None:
        free = ~np.isnan(np.diag(fit.covariance))

        def moved(at: np.ndarray) -> np.ndarray:
            return _invert(_likelihood(fit.space.build(at), sample), bins, fractions)

        if fit.resampled is not None:
            # Not by derivatives: a logit near its bound has a huge variance but no effect.
            scatter = np.array([moved(at) for at in fit.resampled])
            scatter -= scatter.mean(axis=0)
            covariance += np.einsum("rbk,rck->kbc", scatter, scatter) / (len(scatter) - 1)
        elif free.any():
            slopes = differences(moved, fit.point)[free]
            covariance += np.einsum("pbk,pq,qck->kbc", slopes, fit.covariance[np.ix_(free, free)], slopes)
            if fit.influence is not None and fit.made_from(sample):
                pull = fit.influence()[free]
                for k in range(sample.n_classes):
                    both = slopes[:, :, k].T @ np.stack([summed(own[:, k] * residual) for residual in pull])
                    covariance[k] += both + both.T
    variance = np.maximum(np.einsum("kbb->bk", covariance), 0.0)
    return fractions, np.sqrt(variance), covariance[DISK]


def alternatives(sample: Sample, bins: Bins, fit: TransitionFit) -> dict[str, np.ndarray]:
    """Return the alternatives of the range: trends of class fractions with α, or other families."""
    if fit.drift is not None:
        labelled = bins.means(sample.observed)
        return {
            name: _invert(_likelihood(transition, sample), bins, labelled)
            for name, (transition, _, _) in fit.drift.alternatives.items()
        }
    if fit.method != "gold" or fit.transition.n_classes != 2:
        return {}
    others = []
    for family in COMPARED:
        if family != fit.family:
            with suppress(InputError):
                others.append(refitted(fit, family=family, false_disk=None))
    least = min([fit.aic, *(other.aic for other in others)])
    return {
        f"{other.family}, gold": inverted(sample, bins, other.transition, other)[0]
        for other in others
        if other.aic < least + REJECTED  # not if gold labels reject it
    }
