"""What the methods of `fit_transition` are given, and what they return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import xlogy

from truemorph.bias.likelihood import label_log_likelihood
from truemorph.bias.transitions import Space, Transition
from truemorph.findings import Finding

if TYPE_CHECKING:
    from truemorph.bias.fitting.votes import VoteModel

# Half of the 95 % point of chi-squared with one degree of freedom.
SIGNIFICANT_GAIN = 1.92


@dataclass(frozen=True)
class Data:
    """Checked input: labels and α with what else is known of each galaxy.

    Attributes
    ----------
    labels : array of int, shape (N,)
    alpha : array, shape (N,) or (N, J)
    n_classes : int
    weights : array, shape (N,)
        Sampling weights of mean 1; ones where none were given.
    gold : array of int, shape (N,), or None
        -1 where unknown.
    votes : array of int, shape (N, 2), or None
    """

    labels: np.ndarray
    alpha: np.ndarray
    n_classes: int
    weights: np.ndarray
    gold: np.ndarray | None
    votes: np.ndarray | None

    @property
    def observed(self) -> np.ndarray:
        """Labels as 0 and 1, or fractions of votes, shape (N, K)."""
        if self.votes is None:
            return np.eye(self.n_classes)[self.labels]
        return self.votes / self.votes.sum(axis=1, keepdims=True)

    @property
    def weighted(self) -> bool:
        """Whether the weights differ."""
        return bool(np.ptp(self.weights) > 0)


@dataclass(frozen=True)
class Estimate:
    """What a method found: T's point and covariance, fractions with their error, and the rest of a result.

    Attributes
    ----------
    transition : Transition
    point : array, shape (P,)
    covariance : array, shape (P, P)
        NaN in the rows of parameters at a bound.
    fractions : array, shape (K,)
    fraction_stderr : float
        Of the disk fraction.
    log_likelihood : float
    n_parameters : int
    influence : callable or None
        How far each galaxy pulls the point, shape (P, N).
    findings : tuple of Finding
    fraction_at_bound : bool
    fraction_samples : array, shape (S,), or None
        Draws of the disk fraction, from gold labels.
    probabilities : array, shape (N, K), or None
        p(y | z) where it was fitted.
    votes : VoteModel or None
    rebuild : callable or None
        Point to transition, where the space of T does not give it.
    more_values, more_stderr : dict of str to float
        Parameters that are not T's.
    """

    transition: Transition
    point: np.ndarray
    covariance: np.ndarray
    fractions: np.ndarray
    fraction_stderr: float
    log_likelihood: float
    n_parameters: int
    influence: Callable[[], np.ndarray] | None = None
    findings: tuple[Finding, ...] = ()
    fraction_at_bound: bool = False
    fraction_samples: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    votes: VoteModel | None = None
    rebuild: Callable[[np.ndarray], Transition] | None = None
    more_values: dict[str, float] = field(default_factory=dict)
    more_stderr: dict[str, float] = field(default_factory=dict)


def estimate_findings(
    space: Space, estimate: Estimate, stderr: dict[str, float], data: Data, method: str
) -> list[Finding]:
    """Where the data may not determine the estimate."""
    findings = []
    point = estimate.point[: space.size]
    values = dict(zip(space.names, space.values(point).tolist(), strict=True))
    at_bound = (point - space.lower < 1e-3) | (space.upper - point < 1e-3)
    for name, value in values.items():
        if name == "false_disk" or not space.separate:
            continue
        if at_bound[space.names.index(name)]:
            findings.append(
                Finding(
                    "parameter-at-bound",
                    "caution",
                    f"{name} = {value:.3g} lies at the edge of its search range: the labels do not determine it.",
                    "Give gold labels (`gold`), or choose a family with fewer parameters (`family`).",
                )
            )
        elif space.positive and not stderr[name] < 0.5 * value:
            error = f"{stderr[name]:.2g}" if np.isfinite(stderr[name]) else "unknown"
            findings.append(
                Finding(
                    "parameter-uncertain",
                    "caution",
                    f"{name} = {value:.3g} is uncertain (error {error}): the likelihood is nearly flat.",
                    "Use more galaxies, or give gold labels (`gold`).",
                )
            )
    if estimate.fraction_at_bound:
        findings.append(
            Finding(
                "fraction-at-bound",
                "caution",
                "A class fraction is 0 or 1: labels alone cannot separate bias from a missing class here. The errors "
                "of the other parameters are at this fixed fraction.",
                "Give gold labels (`gold`).",
            )
        )
    if space.family == "monotone" and method not in ("gold", "conditional"):
        findings.append(
            Finding(
                "best-resolved-unbiased-assumed",
                "caution",
                "The monotone family assumes that the best resolved galaxies are labelled without bias, which labels "
                "alone cannot show.",
                "Give gold labels (`gold`), or compare with a family that has a formula (`family`).",
            )
        )
    alpha = data.alpha if data.alpha.ndim == 1 else data.alpha[:, 0]
    if np.ptp(alpha) < 1e-9 * np.abs(alpha).max():
        findings.append(
            Finding(
                "alpha-constant",
                "problem",
                "All galaxies have the same α, so these labels say nothing about T(α).",
                "Use galaxies of different resolution.",
            )
        )
    return findings


def drift_findings(estimate: Estimate, data: Data, name: str) -> list[Finding]:
    """Whether the labels drift with α at all, and labels that no T(α) explains."""
    findings = []
    alpha, labels = data.alpha, data.labels
    impossible = int(np.sum((alpha == 0) & (labels == 1)))
    if impossible:
        findings.append(
            Finding(
                "disks-at-alpha-zero",
                "caution",
                f"{impossible:,} galaxies at α = 0 are labelled disk, although no disk can be seen there.",
                "Check their radii.",
            )
        )
    resolved = alpha > 0
    weights = data.weights
    with np.errstate(divide="ignore"):
        rows = np.broadcast_to(np.log(estimate.fractions), (labels.size, data.n_classes))
    by_galaxy = weights * label_log_likelihood(rows, labels, alpha, estimate.transition)
    shares = np.bincount(labels[resolved], weights=weights[resolved], minlength=data.n_classes)
    gain = float(by_galaxy[resolved].sum() - np.sum(xlogy(shares, shares / shares.sum())))
    gain *= weights.sum() ** 2 / (weights.size * np.sum(weights**2))  # weighted rows weigh as fewer
    if gain < SIGNIFICANT_GAIN:
        findings.append(
            Finding(
                "no-drift",
                "caution",
                f"The labels do not drift significantly with α: the log-likelihood is {gain:.1f} above that of "
                f"constant fractions, so {name} is an upper limit at most.",
                "Do not correct these labels unless gold labels (`gold`) show a bias.",
            )
        )
    return findings
