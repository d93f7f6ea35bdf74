"""Systematic range of an estimate from labels alone, if class fractions depend on resolution.

Labels alone cannot separate bias from a real trend with resolution. The trend is therefore assumed: logit p(disk | α)
may change by ± δ per standard deviation of ln α, linearly or quadratically. T(α) is fitted under such trends, in every
family with a formula. The range of the disk fraction spans all of them, and also the observed labels if a trend alone
can explain them. The likelihood is not used to narrow the range, because it prefers some trends only because their
shape resembles that of T(α). With many galaxies, δ and the families determine its width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from truemorph.bias.maximum import fit_softmax
from truemorph.bias.mixture import fit_mixture, mixture_of
from truemorph.bias.result import Data
from truemorph.bias.transitions import (
    DISK,
    WITH_FORMULA,
    FlipTransition,
    MatrixTransition,
    Search,
    Space,
    Transition,
    family_of,
)

DELTA = 0.5
# Number of bins of α into which galaxies are grouped.
_GROUPS = 256
_LEVEL, _EDGE = 1.96, 8.9


@dataclass(frozen=True)
class DriftRange:
    """Range of the disk fraction under trends of class fractions with α."""

    delta: float  # δ: change of logit p(disk | α) per standard deviation of ln α
    delta_unbiased: float  # the δ that explains the labels without bias, from the observed disk fraction
    # T(α), disk fraction and its standard error for each family and trend.
    alternatives: dict[str, tuple[Transition, float, float]]

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest disk fraction."""
        low = min(value - _LEVEL * error for _, value, error in self.alternatives.values())
        high = max(value + _LEVEL * error for _, value, error in self.alternatives.values())
        return max(0.0, low), min(1.0, high)

    @property
    def statement(self) -> str:
        """Description of the range."""
        return (
            f"the logit of the disk fraction may change by up to δ = {self.delta:g} per σ of ln α; above "
            f"δ = {self.delta_unbiased:.2f}, no bias is needed to explain the labels"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        fractions = {name: value for name, (_, value, _) in self.alternatives.items()}
        return {"delta": self.delta, "delta_unbiased": self.delta_unbiased, "disk_fractions": fractions}


def drift_range(data: Data, family: Any, false_disk: float | None, delta: float) -> DriftRange | None:
    """Fit T(α) of two classes, of this and other families, under trends with α; None if nothing can be fitted."""
    if data.n_classes != 2 or data.alpha.ndim != 1 or not (issubclass(family, FlipTransition) and family.varies):
        return None
    smallest = data.alpha[data.alpha > 0].min()
    log_alpha = np.log(np.maximum(data.alpha, smallest))
    search = Search(data.alpha, anchored=True, false_disk=false_disk)
    few = mixture_of(Space.fixed(MatrixTransition.identity()), data).grouped(_GROUPS)
    u = np.log(np.maximum(few.alpha, smallest)) - np.average(log_alpha, weights=data.weights)
    u = u / np.sqrt(np.cov(log_alpha, aweights=data.weights))
    bend = (u**2 - 1) / np.sqrt(2)
    trends = {
        "no trend": 0 * u,
        # The fraction decreases with this trend; above some δ, another solution is more likely.
        **{f"more disks at high α, {part:g} δ": part * delta * u for part in (0.5, 0.75, 1.0)},
        "fewer disks at high α": -delta * u,
        "more disks at both ends": delta * bend,
        "fewer disks at both ends": -delta * bend,
    }
    stretch = np.sqrt(np.mean(data.weights**2))  # weights reduce the effective number of rows
    found = {}
    own = [family] if family.free else []
    for family in dict.fromkeys([*own, *map(family_of, WITH_FORMULA)]):
        space = family.space(search)
        start = None
        for name, offset in trends.items():
            fit = fit_mixture(replace(few, space=space, offset=offset), start)
            start = fit.maximum.point if start is None else start
            if abs(fit.coefficients[0, 0]) > _EDGE:
                continue  # one class is empty, so this is not an alternative
            p, share = fit.probabilities()[:, DISK], few.weights / few.weights.sum()
            variance = fit.maximum.covariance()[-1, -1] * np.sum(share * p * (1 - p)) ** 2
            error = stretch * np.sqrt(variance) if variance > 0 else 0.0
            found[f"{family.family}, {name}"] = fit.transition, float(share @ p), float(error)
    design = np.column_stack([np.ones(u.size), u])
    slope = fit_softmax(design, np.eye(2)[few.labels], np.full(2, 1e-6), few.weights)[0][0, 1]
    if slope <= delta:  # a trend alone can explain the labels
        labelled = float(np.average(data.labels == DISK, weights=data.weights))
        error = float(stretch * np.sqrt(labelled * (1 - labelled) / data.labels.size))
        found["labels without bias"] = MatrixTransition.identity(), labelled, error
    return DriftRange(delta, float(max(slope, 0.0)), found) if found else None
