"""The result of fitting T(α), and its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import xlogy

from truemorph.bias.likelihood import observed_log_probabilities
from truemorph.bias.maximum import differences
from truemorph.bias.plots import plot_fit
from truemorph.bias.transitions import DISK, UNKNOWN, Space, Transition, class_name, transition_to_dict
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
class Data:
    """Checked data of a fit."""

    labels: np.ndarray  # (N,): observed labels; the majority where there are votes
    alpha: np.ndarray  # (N,), or (N, 1 + J) with the other observables behind the resolution
    n_classes: int
    weights: np.ndarray  # (N,): sampling weights of mean 1; ones where none were given
    gold: np.ndarray | None = None  # (N,): -1 where unknown
    probability: np.ndarray | None = None  # (N,): of selection for a gold label; None for random selection
    votes: np.ndarray | None = None  # (N, 2)
    intrinsic: np.ndarray | None = None  # (N, P): columns that vary
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of `fit_transition`

    @property
    def resolution(self) -> np.ndarray:
        """α alone, shape (N,)."""
        return self.alpha if self.alpha.ndim == 1 else self.alpha[:, 0]

    @property
    def observed(self) -> np.ndarray:
        """Labels as 0 and 1, or fractions of votes, shape (N, K)."""
        if self.votes is None:
            return np.eye(self.n_classes)[self.labels]
        return self.votes / self.votes.sum(axis=1, keepdims=True)

    @property
    def known(self) -> np.ndarray:
        """Whether a galaxy has a gold label, shape (N,)."""
        return np.zeros(self.labels.size, dtype=bool) if self.gold is None else self.gold != UNKNOWN

    @property
    def gold_weights(self) -> np.ndarray:
        """Weights of the galaxies with gold labels, shape (N,): sampling weights over probabilities of selection."""
        if self.probability is None:
            return self.weights
        out = self.weights / np.where(self.known, self.probability, 1.0)
        return out * self.weights[self.known].sum() / out[self.known].sum()  # with the same sum over the known rows


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
    data : Data
        Data of the fit.
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
    data: Data
    drift: DriftRange | None = None
    fraction_samples: np.ndarray | None = None
    fraction_range: tuple[float, float] | None = None
    probabilities: np.ndarray | None = None
    votes: VoteModel | None = None
    resampled: np.ndarray | None = None
    influence: Callable[[], np.ndarray] | None = None

    @classmethod
    def of(
        cls,
        space: Space,
        data: Data,
        point: np.ndarray,
        covariance: np.ndarray,
        fractions: np.ndarray,
        fraction_stderr: float,
        *,
        fraction_at_bound: bool = False,
        votes: VoteModel | None = None,
        findings: tuple[Finding, ...] = (),
        **found: Any,
    ) -> TransitionFit:
        """Return the result of a method: its parameters with their errors, and findings."""
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
        fit = cls(
            transition=space.build(at) if votes is None else votes.label_transition(data.alpha),
            class_fractions=fractions,
            stderr=stderr | {"disk_fraction": fraction_stderr},
            findings=(),
            values=values,
            space=space,
            point=point,
            covariance=covariance,
            data=data,
            votes=votes,
            **found,
        )
        drift = _drift_findings(fit) if data.method in ("likelihood", "binned") and data.alpha.ndim == 1 else []
        return replace(fit, findings=(*findings, *_estimate_findings(fit, fraction_at_bound), *drift))

    @property
    def labels(self) -> np.ndarray:
        """Observed labels, shape (N,); the majority where votes were fitted."""
        return self.data.labels

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,); with observables α and these, shape (N, 1 + J)."""
        return self.data.alpha

    @property
    def method(self) -> str:
        """Method of the fit."""
        return self.data.method

    @property
    def family(self) -> str:
        """Family of T(α), or of T(α) of a single vote."""
        return self.space.family

    @property
    def assumption(self) -> str:
        """Assumption of the method."""
        if self.data.probability is not None:
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
            rows = np.broadcast_to(np.log(fractions), (self.labels.size, self.data.n_classes))
        return np.exp(observed_log_probabilities(rows, self.alpha, self.transition))

    def transition_at(self, point: np.ndarray) -> Transition:
        """T(α) at another point of the unconstrained parameters, shape (P,)."""
        if self.votes is None:
            return self.space.build(point)
        return self.votes.at(self.space, point, self.votes.numbers).label_transition(self.alpha)

    def made_from(self, data: Data) -> bool:
        """Whether these are the labels and α of the fit."""
        return np.array_equal(self.labels, data.labels) and np.array_equal(self.alpha, data.alpha)

    @property
    def labelled_fraction(self) -> float:
        """Disk fraction of the observed labels."""
        return float(np.average(self.labels == DISK, weights=self.data.weights))

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
                "class_fractions": {class_name(k, self.data.n_classes): f for k, f in enumerate(self.class_fractions)},
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


def _estimate_findings(fit: TransitionFit, fraction_at_bound: bool) -> list[Finding]:
    """Return findings where the data may not determine the estimate."""
    space, data, findings = fit.space, fit.data, []
    for name in getattr(fit.transition if fit.votes is None else fit.votes.transition, "free", ()):
        value, error = fit.values[name], fit.stderr[name]
        if not error < 0.5 * value:
            stated = f"{error:.2g}" if np.isfinite(error) else "unknown"
            message = f"{name} = {value:.3g} is uncertain (error {stated}): the likelihood is nearly flat."
            action = "Use more galaxies, gold labels (`gold`), or a family with fewer parameters (`family`)."
            findings.append(Finding("parameter-uncertain", "caution", message, action))
    if space.family == "monotone" and data.method not in ("gold", "conditional"):
        message = (
            "The monotone family assumes that the best resolved galaxies are labelled without bias, which labels "
            "alone cannot show."
        )
        action = "Give gold labels (`gold`), or compare with a family that has a formula (`family`)."
        findings.append(Finding("best-resolved-unbiased-assumed", "caution", message, action))
    if fraction_at_bound:
        message = (
            "A class fraction is 0 or 1: labels alone cannot separate bias from a missing class here. The errors of "
            "the other parameters are at this fixed fraction."
        )
        findings.append(Finding("fraction-at-bound", "caution", message, "Give gold labels (`gold`)."))
    return findings


def _drift_findings(fit: TransitionFit) -> list[Finding]:
    """Return findings if the labels do not drift with α, or no T(α) explains some of them."""
    findings, labels, weights = [], fit.labels, fit.data.weights
    resolved = fit.alpha > 0
    impossible = int(np.sum(~resolved & (labels == DISK)))
    if impossible:
        message = f"{impossible:,} galaxies at α = 0 are labelled disk, although no disk can be seen there."
        findings.append(Finding("disks-at-alpha-zero", "caution", message, "Check their radii."))
    with np.errstate(divide="ignore"):
        seen = np.log(fit.label_probabilities[np.arange(labels.size), labels])
    totals = np.bincount(labels[resolved], weights=weights[resolved], minlength=fit.data.n_classes)
    gain = float((weights * seen)[resolved].sum() - np.sum(xlogy(totals, totals / totals.sum())))
    gain *= weights.sum() ** 2 / (weights.size * np.sum(weights**2))  # weighted rows weigh as fewer
    falls = gain < SIGNIFICANT_GAIN and np.ptp(fit.alpha[resolved]) > 0
    if falls and np.corrcoef(labels[resolved] == DISK, np.log(fit.alpha[resolved]))[0, 1] * labels.size**0.5 < -3:
        message = "The disk fraction of the labels falls with α, the opposite of resolution bias."
        action = "Check that smooth and disk are not exchanged (`smooth`, `disk`); otherwise give gold labels (`gold`)."
        findings.append(Finding("drift-reversed", "problem", message, action))
    elif gain < SIGNIFICANT_GAIN:
        message = (
            f"The labels do not drift significantly with α: the log-likelihood is {gain:.1f} above that of constant "
            f"fractions, so {next(iter(fit.space.names), fit.family)} is an upper limit at most."
        )
        action = "Do not correct these labels unless gold labels (`gold`) show a bias."
        findings.append(Finding("no-drift", "caution", message, action))
    return findings
