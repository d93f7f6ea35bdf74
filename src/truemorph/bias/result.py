"""The result of fitting T(α)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from truemorph.bias.likelihood import observed_log_probabilities
from truemorph.bias.maximum import differences
from truemorph.bias.plots import plot_fit
from truemorph.bias.sample import Sample
from truemorph.bias.transitions import DISK, Space, Transition, class_name, transition_to_dict
from truemorph.findings import Finding
from truemorph.io import plain
from truemorph.results import Result, quantity_table, text_facts

if TYPE_CHECKING:
    from truemorph.bias.mixture import DriftRange
    from truemorph.bias.votes import VoteModel

ASSUMPTIONS = {
    "likelihood": "true class fractions do not depend on alpha",
    "binned": "true class fractions do not depend on alpha",
    "conditional": "class fractions at fixed intrinsic columns are constant",
    "gold": "gold labels are right, and of random galaxies",
    "votes": (
        "true class fractions do not depend on alpha; votes are beta-binomial around the mean of a class, so "
        "volunteers do not all miss the same disks"
    ),
}
NORMAL_95 = 1.96
# Half of the 95 % point of chi-squared with one degree of freedom.
SIGNIFICANT_GAIN = 1.92


@dataclass(frozen=True)
class Settings:
    """How T(α) is fitted to a sample."""

    method: str
    family: Any  # class of the family; None for that of lowest AIC among those with a formula
    bins: int = 1525  # of "binned"
    false_disk: float | str | None = None  # fixed p(ỹ = disk | y = smooth), "fit", or None for the default
    delta: float | None = None  # trends of class fractions that the range spans without gold labels
    knots: Any = 8  # of "monotone"
    seed: int = 0


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
        from the bootstrap if requested.
    log_likelihood : float
        Of the labels at the estimate, weighted if weights were given, whatever the method. With gold labels: of their
        observed labels given the true classes, Σ log p(ỹ | y, α), at its maximum.
    findings : tuple of Finding
    values : dict of str to float
        The parameters, by the names of `stderr`.
    n_parameters : int
        Free parameters; of labels alone, class fractions included.
    space : Space
        How the parameters were searched.
    point : array, shape (P,)
        The unconstrained parameters; where votes were fitted, those of the vote model too.
    covariance : array, shape (P, P)
        Of `point`; NaN in the rows of parameters at a bound.
    sample : Sample
        Sample of the fit.
    resampled : array, shape (R, P), or None
        The points of R resamples, where errors come from bootstrap.
    drift : DriftRange or None
        From labels alone: the disk fraction if class fractions do depend on α.
    fraction_samples : array, shape (S,), or None
        With gold labels: draws of the disk fraction.
    fraction_range : (float, float) or None
        With gold labels that leave doubt: the range of the disk fraction, instead of that of the draws.
    probabilities : array, shape (N, K), or None
        p(y | z) where intrinsic properties were given.
    votes : VoteModel or None
        Where vote counts were fitted: the transition of a single vote, and the over-dispersion.
    at_bound : bool
        Whether a class fraction is 0 or 1.
    failed_resamples : int
        Number of bootstrap resamples that could not be fitted.
    influence : callable or None
        Influence of each galaxy on the point, shape (P, N), for errors of estimates from the same labels.

    Examples
    --------
    >>> from truemorph import simulate_catalogue
    >>> table = simulate_catalogue(4000, gold=400)
    >>> labels, alpha, gold = (table[name].fill_null(-1).to_numpy() for name in ("label", "alpha", "gold"))
    >>> from truemorph import fit_transition
    >>> fit = fit_transition(labels, alpha, "rayleigh", gold=gold)
    >>> list(fit.values), bool(abs(fit.values["theta"] - 11.25) < 4 * fit.stderr["theta"])
    (['theta'], True)
    """

    transition: Transition
    class_fractions: np.ndarray
    stderr: dict[str, float]
    log_likelihood: float
    findings: tuple[Finding, ...]
    values: dict[str, float]
    n_parameters: int
    space: Space
    point: np.ndarray
    covariance: np.ndarray
    sample: Sample
    settings: Settings
    drift: DriftRange | None = None
    fraction_samples: np.ndarray | None = None
    fraction_range: tuple[float, float] | None = None
    probabilities: np.ndarray | None = None
    votes: VoteModel | None = None
    resampled: np.ndarray | None = None
    influence: Callable[[], np.ndarray] | None = None
    at_bound: bool = False
    failed_resamples: int = 0

    @classmethod
    def of(
        cls,
        space: Space,
        sample: Sample,
        settings: Settings,
        point: np.ndarray,
        covariance: np.ndarray,
        fractions: np.ndarray,
        fraction_stderr: float,
        *,
        votes: VoteModel | None = None,
        **found: Any,
    ) -> TransitionFit:
        """Return the result of a method: its parameters with their errors."""
        at, known = point[: space.size], covariance[: space.size, : space.size]
        of_t = space.values(at)
        slopes = differences(space.values, at)  # (P, V)
        stuck = np.isnan(np.diag(known))
        # A value that moves with a parameter at its bound has no error from the curvature.
        variance = np.einsum("pv,pq,qv->v", slopes, np.where(np.isnan(known), 0.0, known), slopes)
        lost = (np.abs(slopes[stuck]) > 1e-6).any(axis=0) if stuck.any() else np.zeros(of_t.size, dtype=bool)
        errors = np.where(lost | (variance < 0), np.nan, np.sqrt(np.maximum(variance, 0)))
        values = dict(zip(space.names, of_t.tolist(), strict=True))
        stderr = dict(zip(space.names, errors.tolist(), strict=True))
        return cls(
            transition=space.build(at) if votes is None else votes.label_transition(sample.argument),
            class_fractions=fractions,
            stderr=stderr | {"disk_fraction": fraction_stderr},
            findings=(),
            values=values,
            space=space,
            point=point,
            covariance=covariance,
            sample=sample,
            settings=settings,
            votes=votes,
            **found,
        )

    @property
    def labels(self) -> np.ndarray:
        """Observed labels, shape (N,); the majority where votes were fitted."""
        return self.sample.labels

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,)."""
        return self.sample.alpha

    @property
    def method(self) -> str:
        """Method of the fit."""
        return self.settings.method

    @property
    def family(self) -> str:
        """Family of T(α), or of T(α) of a single vote."""
        return self.space.family

    @property
    def assumption(self) -> str:
        """Assumption of the method."""
        if self.sample.probability is not None:
            return "gold labels are right, and their probabilities of selection known"
        return ASSUMPTIONS[self.method]

    @property
    def aic(self) -> float:
        """Akaike's criterion, 2 × parameters - 2 log-likelihood."""
        return 2 * self.n_parameters - 2 * self.log_likelihood

    @property
    def label_probabilities(self) -> np.ndarray:
        """p(ỹ | α) of every label of each galaxy, shape (N, K); given intrinsic properties, p(ỹ | z, α)."""
        fractions = self.class_fractions if self.probabilities is None else self.probabilities
        with np.errstate(divide="ignore"):
            rows = np.broadcast_to(np.log(fractions), (self.labels.size, self.sample.n_classes))
        return np.exp(observed_log_probabilities(rows, self.sample.argument, self.transition))

    def transition_at(self, point: np.ndarray) -> Transition:
        """T(α) at another point of the unconstrained parameters, shape (P,)."""
        if self.votes is None:
            return self.space.build(point)
        return self.votes.at(self.space, point, self.votes.numbers).label_transition(self.sample.argument)

    def made_from(self, sample: Sample) -> bool:
        """Whether these are the labels and α of the fit."""
        same = self.sample is sample or np.array_equal(self.labels, sample.labels)
        return same and np.array_equal(self.sample.argument, sample.argument)

    @property
    def labelled_fraction(self) -> float:
        """Disk fraction of the observed labels."""
        return float(np.average(self.labels == DISK, weights=self.sample.weights))

    @property
    def disk_fraction_range(self) -> tuple[float, float]:
        """Lowest and highest disk fraction.

        The 95 % interval; from labels alone it spans trends of class fractions with α, too (see `drift`).
        """
        if self.fraction_range is not None:
            low, high = self.fraction_range
        elif self.fraction_samples is not None:
            low, high = np.quantile(self.fraction_samples, [0.025, 0.975])
        else:
            value, error = float(self.class_fractions[DISK]), float(np.nan_to_num(self.stderr["disk_fraction"]))
            low, high = value - NORMAL_95 * error, value + NORMAL_95 * error
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
        points = rng.multivariate_normal(self.point, np.nan_to_num(self.covariance), n)
        if self.votes is None:
            points = np.clip(points, self.space.lower, self.space.upper)
        return [self.transition_at(point) for point in points]

    def facts(self) -> list[tuple[str, str]]:
        """Return the disk fraction with its range, the parameters, and what they rest on."""
        low, high = self.disk_fraction_range
        values = [f"{name} = {value:.3f} ± {self.stderr[name]:.3f}" for name, value in self.values.items()]
        disk = f"{self.class_fractions[DISK]:.3f} ± {self.stderr['disk_fraction']:.3f} (range {low:.3f} to {high:.3f})"
        assumption = self.assumption.replace("alpha", "α")
        found = [
            ("disk fraction", f"{disk}; {self.labelled_fraction:.3f} by the labels of {self.labels.size:,} galaxies"),
            ("bias curve", f"{self.family}: {', '.join(values)}"),
            ("method", f"{self.method}; assumes that {assumption}"),
        ]
        if self.drift is not None:
            found.append(("range spans", self.drift.statement))
        return found

    def summary(self) -> str:
        """Return the disk fraction with its range and error, and the parameters, as text."""
        return "\n".join(text_facts(self.facts()))

    def to_dict(self) -> dict[str, Any]:
        """Return family, parameters, errors and findings as plain values; `load` and `DebiasedLoss` accept them."""
        return plain(
            {
                **transition_to_dict(self.transition),
                "values": self.values,
                "stderr": self.stderr,
                "class_fractions": {
                    class_name(k, self.sample.n_classes): f for k, f in enumerate(self.class_fractions)
                },
                "disk_fraction_range": self.disk_fraction_range,
                "labelled_fraction": self.labelled_fraction,
                "drift": None if self.drift is None else self.drift.to_dict(),
                "method": self.method,
                "assumption": self.assumption,
                "galaxies": self.labels.size,
                "log_likelihood": self.log_likelihood,
                "aic": self.aic,
                "findings": [one.to_dict() for one in self.findings],
            }
        )

    def to_table(self) -> Any:
        """Return a table with one row per parameter; the disk fraction is the last."""
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

    def plot(self, ax: Any = None) -> Any:
        """Draw the bias curve with the binned labels (with gold labels, of gold disks); return matplotlib axes."""
        return plot_fit(self, ax)
