"""The paper's estimator of T(α): least squares on class fractions in bins (Medina-Rosales et al., arXiv:2308.11007)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares
from scipy.special import softmax

from truemorph.bias.binning import bin_index
from truemorph.bias.maximum import differences, invert
from truemorph.bias.mixture import fractions_estimate, mixture_of
from truemorph.bias.result import Data, TransitionFit
from truemorph.bias.transitions import Space
from truemorph.errors import InputError
from truemorph.findings import Finding


def by_bins(space: Space, data: Data, bins: int) -> TransitionFit:
    """Fit class fractions at the midpoints of equal-count bins by least squares (eq. 16)."""
    labels, alpha = data.labels, data.alpha
    if alpha.ndim == 2:
        raise InputError("the binned method needs one resolution, alpha of shape (N,)")
    n_free = space.size + data.n_classes - 1
    findings: tuple[Finding, ...] = ()
    if bins < n_free + 1:
        raise InputError(f"the binned method needs more bins than parameters ({n_free}); got {bins}")
    if bins > labels.size:
        findings = (
            Finding(
                "one-galaxy-per-bin",
                "note",
                f"There are {labels.size:,} galaxies for {bins:,} bins, so each bin has only one galaxy.",
            ),
        )
        bins = labels.size
    order = np.argsort(alpha, kind="stable")
    index = bin_index(order.size, bins)
    sorted_alpha = alpha[order]
    ends = np.flatnonzero(np.diff(index, append=bins))
    begins = np.concatenate([[0], ends[:-1] + 1])
    midpoints = 0.5 * (sorted_alpha[begins] + sorted_alpha[ends])
    members = np.eye(data.n_classes)[labels[order]] * data.weights[order, None]
    observed = np.stack([np.bincount(index, weights=column) for column in members.T], axis=1)
    observed = observed / observed.sum(axis=1, keepdims=True)

    def residuals(point: np.ndarray) -> np.ndarray:
        transition = space.build(point[: space.size])
        fractions = softmax(np.concatenate([[0.0], point[space.size :]]))
        return (np.einsum("k,bks->bs", fractions, transition.matrix(midpoints)) - observed).ravel()

    lower, upper = mixture_of(space, data).bounds()
    least_biased = np.clip(observed[-1], 0.01, 0.99)
    start = np.concatenate([space.starts[0], np.log(least_biased[1:] / least_biased[0])])
    start = np.clip(start, lower + 1e-6, upper - 1e-6)
    point = least_squares(residuals, start, bounds=(lower, upper), x_scale="jac").x
    free = (point - lower > 1e-3) & (upper - point > 1e-3)
    slopes = differences(residuals, point)[free].reshape(free.sum(), bins, -1)
    errors = residuals(point).reshape(bins, -1)
    # Bins are independent but classes within a bin are not, so sum over classes before the outer product.
    scores = np.einsum("pbk,bk->pb", slopes, errors)
    bread = invert(np.einsum("pbk,qbk->pq", slopes, slopes))
    covariance = np.full((point.size, point.size), np.nan)
    covariance[np.ix_(free, free)] = bread @ (scores @ scores.T) @ bread
    return fractions_estimate(space, data, point, covariance, free, findings=findings)
