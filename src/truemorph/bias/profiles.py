"""How far a parameter of T(α) may move: profile likelihood, and what its moves do to class fractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from truemorph.bias import conditional
from truemorph.bias import gold as gold_labels
from truemorph.bias.evidence import UNKNOWN, Evidence
from truemorph.bias.methods import SIGNIFICANT_GAIN
from truemorph.bias.populations import debiased_fractions
from truemorph.bias.result import TransitionFit
from truemorph.bias.spaces import Space
from truemorph.bias.transitions import DISK
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import plain
from truemorph.results import Result, quantity_table


def evidence_of(fit: TransitionFit) -> Evidence:
    """Rows of a fit, with the weights it gave them."""
    if fit.votes is not None:
        raise InputError("a fit to vote counts has no rows of single labels")
    per_row = fit.inputs.per_row
    n_classes = fit.transition.n_classes
    evidence = Evidence.of(fit.labels, fit.alpha, n_classes, per_row.get("gold"), per_row.get("weights"))
    if fit.gold_weight is None:
        return evidence
    known = evidence.trusted != UNKNOWN
    return evidence.scaled(np.where(known, 1.0, fit.gold_weight)).rows(known | (fit.gold_weight > 0))


@dataclass(frozen=True, repr=False)
class Profile(Result):
    """Profile likelihood of one parameter: the others at their best for each of its values.

    Attributes
    ----------
    name : str
    grid, log_likelihood : array, shape (G,)
        Where rows have weights, scaled so that it falls by ½ at one (sandwich) standard error.
    low, high : float
        95 % interval (likelihood within 1.92 of its maximum); 0 or infinity where the data set no limit.
    """

    name: str
    grid: np.ndarray
    log_likelihood: np.ndarray
    low: float
    high: float
    findings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return the 95 % interval as text."""
        return f"{self.name}: 95 % interval {self.low:.3f} to {self.high:.3f}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return plain(asdict(self))

    def to_table(self) -> Any:
        """Return a table of the profile."""
        return quantity_table(
            {
                self.name: (self.grid, "", "parameter of T(α)"),
                "log_likelihood": (self.log_likelihood, "", "largest log-likelihood at this value"),
            },
            low=self.low,
            high=self.high,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the profile; returns matplotlib axes."""
        from truemorph.bias.plots import plot_profile

        return plot_profile(self, ax)


def profile(fit: TransitionFit, name: str | None = None, points: int = 13) -> Profile:
    """Profile likelihood and 95 % interval of a parameter of T: right also where the likelihood is not parabolic.

    Parameters
    ----------
    fit : TransitionFit
        By "likelihood", "binned" (whose profile is the likelihood's), "conditional" or "gold".
    name : str, optional
        Parameter; the first by default.
    points : int, default 13
        Values for the picture.

    Raises
    ------
    InputError
        If the fit has no such parameter, or its family none that moves alone.
    """
    if fit.method == "binned":  # least squares have no likelihood of their own: that of the labels is profiled
        fit = fit.inputs.again(method="likelihood")
    space = fit.space
    if fit.votes is not None:
        raise InputError("a fit to vote counts has no profile here; its standard errors are those of its curvature")
    if space is None or not space.separate:
        raise InputError(f"a {fit.family} fit has no single parameter to profile")
    name = space.names[0] if name is None else name
    if name not in space.names:
        raise InputError(f"{name!r} is not a parameter of this fit; it has {', '.join(space.names)}")
    at = space.names.index(name)
    value_at = _profile_function(fit, space, at)
    best, top = float(fit.point[at]), value_at(float(fit.point[at]))
    lower, upper = float(space.lower[at]), float(space.upper[at])
    error = float(np.sqrt(fit.covariance[at, at]))
    step = error if np.isfinite(error) and error > 0 else 0.1

    # Weighted rows make no likelihood: the sandwich sets its scale (Chandler & Bate 2007, Biometrika 94, 167).
    stretch = 1.0
    if fit.method == "gold" or "weights" in fit.inputs.per_row:
        near = 0.3 * step
        curvature = (2 * top - value_at(best + near) - value_at(best - near)) / near**2
        stretch = max(curvature, 0.0) * step**2 or 1.0

    def drop(where: float) -> float:
        return value_at(where) - top + SIGNIFICANT_GAIN * stretch

    def edge(sign: int) -> float:
        limit = lower if sign < 0 else upper
        reach = 2.0 * step
        while True:
            where = float(np.clip(best + sign * reach, lower, upper))
            if drop(where) < 0:
                return float(brentq(drop, *sorted((best, where)), xtol=1e-3 * step))
            if where == limit:
                return -np.inf if sign < 0 else np.inf
            reach *= 1.7

    low, high = edge(-1), edge(1)
    inside = (max(low, best - 6 * step, lower), min(high, best + 6 * step, upper))
    span = inside[1] - inside[0]
    grid = np.linspace(max(lower, inside[0] - 0.25 * span), min(upper, inside[1] + 0.25 * span), points)
    heights = top + (np.array([value_at(where) for where in grid]) - top) / stretch
    positive = space.positive

    def outward(where: float) -> float:
        if not np.isfinite(where):
            return (0.0 if positive else -np.inf) if where < 0 else np.inf
        point = fit.point.copy()
        point[at] = where
        return float(space.values(point)[at])

    return Profile(name, np.array([outward(w) for w in grid]), heights, outward(low), outward(high))


def _profile_function(fit: TransitionFit, space: Space, at: int) -> Callable[[float], float]:
    """Largest log-likelihood with one coordinate of T held, as a function of its value; remembers where it was."""
    evidence = evidence_of(fit)
    held: dict[str, np.ndarray] = {}

    def fixed(where: float) -> Space:
        lower, upper = space.lower.copy(), space.upper.copy()
        lower[at] = upper[at] = where
        return replace(space, lower=lower, upper=upper)

    if fit.method == "conditional":
        columns = fit.inputs.per_row["intrinsic"]
        design = conditional.standardised(columns)
        if fit.inputs.options["class_model"] == "trees":
            assert fit.probabilities is not None
            design = conditional.tree_design(np.log(fit.probabilities), columns)

        def conditional_value(where: float) -> float:
            begin = held.get("point")
            if begin is None:
                begin = conditional.fit_logistic(space, evidence, design).point
            begin = begin.copy()
            begin[at] = where
            found = conditional.climb_from(fixed(where), evidence, design, begin)
            held["point"] = found.point
            return found.log_likelihood

        return conditional_value
    rows = evidence.grouped()
    logits = np.log(np.clip(fit.class_fractions[1:] / max(fit.class_fractions[0], 1e-4), 1e-4, 1e4))

    def value(where: float) -> float:
        begin = held.get("point", np.concatenate([fit.point, logits])).copy()
        begin[at] = where
        found = gold_labels.maximise_joint(fixed(where), rows, begin[None], curvature=False)
        held["point"] = found.point
        return found.value

    return value


@dataclass(frozen=True, repr=False)
class Sensitivity(Result):
    """The corrected disk fraction of a sample as one parameter of T is moved, the others held.

    Attributes
    ----------
    name : str
    grid, fractions : array, shape (G,)
        Parameter, and corrected disk fraction of all galaxies.
    value, stderr : float
        The fit's own.
    labelled : float
        Disk fraction of the labels as given.
    slope : float
        Change of the fraction per standard error of the parameter.
    """

    name: str
    grid: np.ndarray
    fractions: np.ndarray
    value: float
    stderr: float
    labelled: float
    slope: float
    findings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return the slope as text."""
        return (
            f"the corrected disk fraction changes by {self.slope:+.3f} per standard error of {self.name} "
            f"({self.value:.3f} ± {self.stderr:.3f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return plain(asdict(self))

    def to_table(self) -> Any:
        """Return a table of the curve."""
        return quantity_table(
            {
                self.name: (self.grid, "", "parameter of T(α)"),
                "disk_fraction": (self.fractions, "", "corrected disk fraction of all galaxies"),
            },
            labelled=self.labelled,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve; returns matplotlib axes."""
        from truemorph.bias.plots import plot_sensitivity

        return plot_sensitivity(self, ax)


def sensitivity(fit: TransitionFit, name: str | None = None, points: int = 21, span: float = 3.0) -> Sensitivity:
    """Debiased disk fraction of the whole sample against one parameter of T.

    Parameters
    ----------
    fit : TransitionFit
        Of a family with a formula.
    name : str, optional
        Parameter; the first by default.
    points : int, default 21
    span : float, default 3
        Range in standard errors either side (or in factors of two where there is no error).

    Raises
    ------
    InputError
        If the fit has no such parameter.
    """
    space = fit.space
    if space is None or not space.names or len(space.names) != space.size or fit.votes is not None:
        raise InputError(f"a {fit.family} fit by {fit.method} has no single parameter to vary")
    name = space.names[0] if name is None else name
    if name not in space.names:
        raise InputError(f"{name!r} is not a parameter of this fit; it has {', '.join(space.names)}")
    at = space.names.index(name)
    error = float(np.sqrt(fit.covariance[at, at]))
    width = error if np.isfinite(error) and error > 0 else np.log(2.0) / span
    offsets = np.linspace(-span, span, points) * width
    weights = fit.inputs.per_row.get("weights")

    def fraction(offset: float) -> tuple[float, float]:
        point = fit.point.copy()
        point[at] += offset
        found = debiased_fractions(fit.labels, fit.alpha, space.build(point), bins=1, weights=weights)
        return float(space.values(point)[at]), float(found.fractions[0, DISK])

    pairs = np.array([fraction(float(offset)) for offset in offsets])
    up, down = fraction(width)[1], fraction(-width)[1]
    return Sensitivity(
        name=name,
        grid=pairs[:, 0],
        fractions=pairs[:, 1],
        value=fit.values[name],
        stderr=fit.stderr[name],
        labelled=float(np.average(fit.labels == DISK, weights=weights)),
        slope=0.5 * (up - down),
    )
