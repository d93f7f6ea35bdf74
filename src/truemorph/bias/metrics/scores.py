"""Scores of labels and probabilities against known classes."""

import numpy as np

from truemorph.bias.binning import Bins, choose_bins
from truemorph.bias.metrics.label_bias import cv18

_LEAST = 1e-4  # a probability of 0 would give an infinite log loss


def balanced_accuracy(truth: np.ndarray, labels: np.ndarray) -> float:
    """Return the balanced accuracy: mean recall of both classes (NaN if a class is absent)."""
    shares = [float((labels[truth == k] == k).mean()) if np.any(truth == k) else np.nan for k in (0, 1)]
    return float(np.mean(shares))


def calibration_error(truth: np.ndarray, p: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error: mean |probability - frequency| in equal-count bins.

    `truth` may also be probabilities to compare with; rows with NaN are ignored.
    """
    both = np.isfinite(truth) & np.isfinite(p)
    if not both.any():
        return np.nan
    truth, p = truth[both], p[both]
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, truth.size))
    return float(sum(abs(p[part].mean() - truth[part].mean()) * part.size for part in parts) / truth.size)


def fraction_error(truth: np.ndarray, p: np.ndarray, alpha: np.ndarray) -> float:
    """Return the rms error of the class fraction in fifths of α; `p` is labels or probabilities."""
    off = Bins.cut(alpha, 5).averages(p - truth)[0]
    return float(np.sqrt(np.mean(off**2)))


def drift(p: np.ndarray, twins: list[np.ndarray], truth: np.ndarray) -> float:
    """Return the rms, over classes and `twins` (the same galaxies less well resolved), of the mean shift of p."""
    shifts = [np.mean(twin[truth == k] - p[truth == k]) for twin in twins for k in (0, 1) if np.any(truth == k)]
    return float(np.sqrt(np.mean(np.square(shifts))))


def score(
    truth: np.ndarray,
    alpha: np.ndarray,
    labels: np.ndarray,
    p: np.ndarray | None,
    intrinsic: np.ndarray | None,
    seed: int = 0,
) -> dict[str, float]:
    """Compute the scores of one set of labels, of shape (N,), that it allows.

    `accuracy_low`, `_middle` and `_high` are balanced accuracies by terciles of α; `auc` is the area under the ROC
    curve; for the log loss, probabilities are limited to 1e-4 from 0 and 1.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    out = {"balanced_accuracy": balanced_accuracy(truth, labels)}
    for name, part in zip(("low", "middle", "high"), np.array_split(np.argsort(alpha, kind="stable"), 3), strict=True):
        out[f"accuracy_{name}"] = balanced_accuracy(truth[part], labels[part])
    out["fraction_rms_hard"] = fraction_error(truth, labels, alpha)
    if p is not None:
        # With calibrated probabilities, balanced accuracy is highest for a threshold at the class fraction.
        out["balanced_accuracy_at_fraction"] = balanced_accuracy(truth, (p > p.mean()).astype(int))
        out["auc"] = float(roc_auc_score(truth, p))
        out["log_loss"] = float(log_loss(truth, np.clip(p, _LEAST, 1 - _LEAST), labels=[0, 1]))
        out["calibration_error"] = calibration_error(truth, p)
        out["fraction_rms_soft"] = fraction_error(truth, p, alpha)
    if intrinsic is not None and np.unique(labels).size == 2:
        depth, bins = choose_bins(truth.size, True)
        out["cv18_excess"] = cv18(labels, alpha, intrinsic, depth, bins, bootstrap=0, seed=seed).excess
    return out
