"""The result of fitting T(α), and what it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from truemorph.bias.drift import DriftRange
from truemorph.bias.fitting.votes import VoteModel
from truemorph.bias.transitions import CLASS_NAMES, DISK, SMOOTH, Space, Transition, transition_to_dict
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import plain
from truemorph.results import Result, quantity_table

# Methods that rest on labels alone.
FROM_LABELS = ("likelihood", "binned", "votes")
_NORMAL_95 = 1.96


def failed_resamples(failed: int, resamples: int) -> Finding:
    """Say that the fit failed on some bootstrap resamples."""
    return Finding(
        "resamples-failed",
        "note",
        f"The fit failed on {failed} of {resamples} bootstrap resamples, which were left out.",
        "Use more galaxies if many failed.",
    )


def flat_fractions_assumed(low: float, high: float, drift: DriftRange | None) -> Finding:
    """Say what an estimate from labels alone rests on, and how far the disk fraction may be from it."""
    trend = "" if drift is None else f" if their logit changes by up to {drift.delta:g} per standard deviation of ln α"
    return Finding(
        "flat-fractions-assumed",
        "caution",
        "Labels alone cannot separate bias from a real change of class fractions with resolution. This estimate "
        "assumes that the true fractions do not depend on α; the disk fraction may lie anywhere from "
        f"{low:.2f} to {high:.2f}{trend}.",
        "Give gold labels (`gold`), which settle it, or intrinsic columns (`intrinsic`).",
    )


@dataclass(frozen=True)
class FitInputs:
    """What a fit was made from, so that it can be made again: on a resample, or with another family."""

    labels: np.ndarray
    alpha: np.ndarray
    options: dict[str, Any]
    per_row: dict[str, np.ndarray]
    refit: Callable[..., TransitionFit]

    def again(self, rows: np.ndarray | None = None, **changes: Any) -> TransitionFit:
        """Fit once more, to some rows or with other options."""
        chosen = slice(None) if rows is None else rows
        arrays = {name: values[chosen] for name, values in self.per_row.items()}
        return self.refit(self.labels[chosen], self.alpha[chosen], **{**self.options, **arrays, **changes})


@dataclass(frozen=True, repr=False)
class TransitionFit(Result):
    """An estimate of T(α) with its errors.

    Attributes
    ----------
    transition : Transition
        T(α) at the best parameters; of the majority label where vote counts were fitted.
    class_fractions : array, shape (K,)
        True class fractions, in the order smooth, disk; averaged over galaxies where they depend on z.
    stderr : dict of str to float
        Standard error of each parameter, and of the disk fraction ("disk_fraction"); NaN where the data do
        not set one (see `findings`). From the observed information; from the sandwich where rows have weights;
        from bootstrap if that was asked for.
    log_likelihood : float
        Of the labels at the estimate, weighted if weights were given, whatever the method. With gold labels: of their
        observed labels given the true classes, Σ log p(ỹ | y, α), at its maximum.
    aic : float
        Akaike's criterion, 2 × parameters - 2 log-likelihood.
    findings : tuple of Finding
    method, family, assumption : str
        How it was made, and what it rests on.
    n_objects : int
        Galaxies used.
    values : dict of str to float
        The parameters, by the names of `stderr`.
    n_parameters : int
        Free parameters; of labels alone, class fractions included.
    covariance : array, shape (P, P)
        Of the unconstrained parameters `point`; NaN in the rows of those at a bound.
    resampled : array, shape (R, P), or None
        The points of R resamples, where errors come from bootstrap.
    drift : DriftRange or None
        From labels alone: the disk fraction if class fractions do depend on α.
    fraction_samples : array, shape (S,), or None
        With gold labels: draws of the disk fraction.
    probabilities : array, shape (N, K), or None
        p(y | z) where intrinsic properties were given.
    votes : VoteModel or None
        Where vote counts were fitted: the transition of a single vote, and the over-dispersion.
    rebuild, influence : callable or None
        The transition at another point; and how far each galaxy pulls the point, shape (P, N), for errors of what is
        computed from the same labels.
    """

    transition: Transition
    class_fractions: np.ndarray
    stderr: dict[str, float]
    log_likelihood: float
    aic: float
    findings: tuple[Finding, ...]
    method: str
    family: str
    assumption: str
    n_objects: int
    values: dict[str, float]
    n_parameters: int
    space: Space | None
    point: np.ndarray
    covariance: np.ndarray
    inputs: FitInputs = field(repr=False)
    drift: DriftRange | None = None
    fraction_samples: np.ndarray | None = field(default=None, repr=False)
    probabilities: np.ndarray | None = field(default=None, repr=False)
    votes: VoteModel | None = None
    resampled: np.ndarray | None = field(default=None, repr=False)
    rebuild: Callable[[np.ndarray], Transition] | None = field(default=None, repr=False)
    influence: Callable[[], np.ndarray] | None = field(default=None, repr=False)

    @property
    def labels(self) -> np.ndarray:
        """Observed labels, shape (N,); the majority where votes were fitted."""
        labels = self.inputs.labels
        return labels if labels.ndim == 1 else (labels[:, DISK] > labels[:, SMOOTH]).astype(np.int64)

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,); with observables α and these, shape (N, 1 + J)."""
        more = self.inputs.per_row.get("observables")
        return self.inputs.alpha if more is None else np.column_stack([self.inputs.alpha, more])

    def transition_at(self, point: np.ndarray) -> Transition:
        """T(α) at another point of the unconstrained parameters, shape (P,)."""
        if self.rebuild is not None:
            return self.rebuild(point)
        assert self.space is not None
        return self.space.build(point)

    def made_from(self, labels: np.ndarray, alpha: np.ndarray) -> bool:
        """Whether these are the very labels and α of the fit."""
        same = self.labels.shape == labels.shape and self.alpha.shape == alpha.shape
        return same and np.array_equal(self.labels, labels) and np.array_equal(self.alpha, alpha)

    def bootstrap(self, resamples: int = 100, seed: int = 0) -> list[TransitionFit]:
        """Fit to resampled galaxies; resamples in which the fit can't be made are left out."""
        rng = np.random.default_rng(seed)
        n = self.n_objects
        fits = []
        for _ in range(resamples):
            try:
                fits.append(self.again(rng.integers(0, n, n)))
            except InputError:
                continue
        return fits

    def again(self, rows: np.ndarray) -> TransitionFit:
        """Fit to other rows of the same data, with the same knots and free parameters.

        Raises
        ------
        InputError
            If these rows can't be fitted.
        """
        same: dict[str, Any] = {"bootstrap": 0}
        if "false_disk" in self.values:  # also where these rows show none
            same["false_disk"] = "fit"
        if self.family == "monotone":
            same["knots"] = self.inputs.options["knots"] if self.votes else self.transition.parameters()["knots"]
        return self.inputs.again(rows, **same)

    def with_bootstrap_errors(self, resamples: int = 100, seed: int = 0) -> TransitionFit:
        """Return the same fit with standard errors from the scatter of resamples.

        Raises
        ------
        InputError
            If fewer than two resamples can be fitted.
        """
        again = self.bootstrap(resamples, seed)
        if len(again) < 2:
            raise InputError(f"only {len(again)} of {resamples} resamples could be fitted; the sample is too small")
        values = {name: [one.values.get(name, np.nan) for one in again] for name in self.values}
        values["disk_fraction"] = [one.class_fractions[DISK] for one in again]
        stderr = {name: float(np.std(found, ddof=1)) for name, found in values.items()}
        findings = self.findings
        if len(again) < resamples:
            findings += (failed_resamples(resamples - len(again), resamples),)
        points = np.array([one.point for one in again if one.point.shape == self.point.shape])
        if len(points) < 2:
            return replace(self, stderr={**self.stderr, **stderr}, findings=findings)
        return replace(
            self,
            stderr={**self.stderr, **stderr},
            covariance=np.cov(points.T).reshape(self.point.size, -1),
            resampled=points,
            influence=None,
            findings=findings,
        )

    @property
    def labelled_fraction(self) -> float:
        """Disk fraction of the labels as given."""
        return float(np.average(self.labels == DISK, weights=self.inputs.per_row.get("weights")))

    @property
    def disk_fraction_range(self) -> tuple[float, float]:
        """Lowest and highest disk fraction.

        The 95 % interval; from labels alone it spans trends of class fractions with α, too (see `drift`).
        """
        if self.fraction_samples is not None:
            low, high = np.quantile(self.fraction_samples, [0.025, 0.975])
        else:
            value, error = float(self.class_fractions[DISK]), float(np.nan_to_num(self.stderr["disk_fraction"]))
            low, high = value - _NORMAL_95 * error, value + _NORMAL_95 * error
        if self.drift is not None:
            low, high = min(low, self.drift.limits[0]), max(high, self.drift.limits[1])
        return max(0.0, float(low)), min(1.0, float(high))

    def draws(self, n: int, seed: int = 0) -> list[Transition]:
        """Draw bias curves T(α) from the errors of the parameters, to propagate them.

        Parameters
        ----------
        n : int
        seed : int

        Returns
        -------
        list of Transition
            Parameters at a bound stay there.
        """
        rng = np.random.default_rng(seed)
        if self.resampled is not None:
            return [self.transition_at(self.resampled[row]) for row in rng.integers(0, len(self.resampled), n)]
        moves = rng.multivariate_normal(np.zeros(self.point.size), np.nan_to_num(self.covariance), n)
        points = self.point + moves
        if self.space is not None and self.space.size == self.point.size:
            points = np.clip(points, self.space.lower, self.space.upper)
        return [self.transition_at(point) for point in points]

    def summary(self) -> str:
        """Return the disk fraction with its range and error, and the parameters, as text."""
        low, high = self.disk_fraction_range
        lines = [
            f"disk fraction {self.class_fractions[DISK]:.3f} (range {low:.3f} to {high:.3f}; statistical error "
            f"{self.stderr['disk_fraction']:.3f}); labelled {self.labelled_fraction:.3f}"
        ]
        lines += [f"{name} = {value:.3f} ± {self.stderr[name]:.3f}" for name, value in self.values.items()]
        if self.drift is not None:
            lines.append(self.drift.statement)
        lines += [
            f"{self.family} family, method {self.method}, {self.n_objects:,} galaxies; log-likelihood "
            f"{self.log_likelihood:.1f}",
            f"assumes that {self.assumption}",
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return family, parameters, errors and findings as plain values; `load` and `DebiasedLoss` accept them."""
        return plain(
            {
                **transition_to_dict(self.transition),
                "values": self.values,
                "stderr": self.stderr,
                "class_fractions": dict(zip(CLASS_NAMES, self.class_fractions.tolist(), strict=True)),
                "disk_fraction_range": self.disk_fraction_range,
                "labelled_fraction": self.labelled_fraction,
                "drift": None if self.drift is None else self.drift.to_dict(),
                "method": self.method,
                "assumption": self.assumption,
                "galaxies": self.n_objects,
                "log_likelihood": self.log_likelihood,
                "aic": self.aic,
                "findings": [one.to_dict() for one in self.findings],
            }
        )

    def to_table(self) -> Any:
        """Return a table of one row a parameter; the disk fraction is the last."""
        values = {**self.values, "disk_fraction": float(self.class_fractions[DISK])}
        return quantity_table(
            {
                "parameter": (list(values), "", "parameter of T(α), or disk fraction"),
                "value": (list(values.values()), "", "estimate"),
                "stderr": ([self.stderr.get(name, np.nan) for name in values], "", "standard error"),
            },
            family=self.family,
            method=self.method,
        )

    def plot(self, ax: Any = None, bins: int = 12) -> Any:
        """Draw binned labels with the fitted curves; with gold labels, their flips.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw; a new figure if not given.
        bins : int, default 12
            Equal-count bins for the points.

        Returns
        -------
        matplotlib axes
        """
        from truemorph.bias.plots import plot_fit

        return plot_fit(self, ax, bins)
