"""The result of fitting T(α), and what it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from truemorph.bias.spaces import Space
from truemorph.bias.transitions import DISK, SMOOTH, Transition
from truemorph.bias.votes import VoteModel
from truemorph.errors import InputError


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


@dataclass(frozen=True)
class TransitionFit:
    """An estimate of T(α) with its errors.

    Attributes
    ----------
    transition : Transition
        T(α) at the best parameters; of the majority label where vote counts were fitted.
    class_fractions : array, shape (K,)
        True class fractions, in the order smooth, disk; averaged over galaxies where they depend on z.
    stderr : dict of str to float
        Standard error of each parameter, and of the disk fraction ("disk_fraction"); NaN where the data do
        not set one (see `warnings`). From the observed information; from the sandwich where rows have weights;
        from bootstrap if that was asked for.
    log_likelihood : float
        Log-likelihood of the labels at the estimate, weighted if weights were given, whatever the method.
        With gold labels: of those and, with their weight, of the others.
    aic : float
        Akaike's criterion, 2 × parameters - 2 log-likelihood.
    warnings : tuple of str
        Reasons not to trust the estimate as it stands.
    method, family, assumption : str
        How it was made, and what it rests on.
    n_objects : int
        Galaxies used.
    values : dict of str to float
        The parameters, by the names of `stderr`.
    n_parameters : int
        Free parameters, class fractions included.
    covariance : array, shape (P, P)
        Of the unconstrained parameters `point`; NaN in the rows of those at a bound.
    resampled : array, shape (R, P), or None
        The points of R resamples, where errors come from bootstrap.
    gold_weight : float or None
        With gold labels: the weight of the rows without one (chosen by cross-validation unless given).
    flip_log_likelihood : float
        With gold labels: Σ log p(ỹ | y, α) of the gold rows; NaN without.
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
    warnings: tuple[str, ...]
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
    gold_weight: float | None = None
    flip_log_likelihood: float = float("nan")
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
        """Resolution, shape (N,), or observables, shape (N, J)."""
        return self.inputs.alpha

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
        """Fit to other rows of the same data: same knots, weight of ungold rows and free parameters.

        Raises
        ------
        InputError
            If these rows can't be fitted.
        """
        same: dict[str, Any] = {"bootstrap": 0, "gold_weight": self.gold_weight}
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
        notes = self.warnings
        if len(again) < resamples:
            notes += (f"{resamples - len(again)} of {resamples} resamples could not be fitted",)
        points = np.array([one.point for one in again if one.point.shape == self.point.shape])
        if len(points) < 2:
            return replace(self, stderr={**self.stderr, **stderr}, warnings=notes)
        return replace(
            self,
            stderr={**self.stderr, **stderr},
            covariance=np.cov(points.T).reshape(self.point.size, -1),
            resampled=points,
            influence=None,
            warnings=notes,
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
