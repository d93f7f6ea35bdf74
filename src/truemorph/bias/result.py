"""The result of fitting T(α)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from truemorph.bias.curves.families import transition_from_dict, transition_to_dict
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import DISK, Space, Transition, log_of
from truemorph.bias.likelihood import observed_log_probabilities
from truemorph.bias.plots import plot_fit
from truemorph.bias.regression.maximum import differences
from truemorph.bias.sample import Sample
from truemorph.findings import Findings, findings_in
from truemorph.io import plain
from truemorph.questions import fraction_names
from truemorph.results import Result, quantity_table, text_facts

ASSUMPTIONS = {
    "likelihood": "true class fractions do not depend on alpha",
    "binned": "true class fractions do not depend on alpha",
    "conditional": "class fractions at fixed intrinsic columns are constant",
    "gold": "gold labels are right, and of random galaxies",
}
NORMAL_95 = 1.96
# Half of the 95 % point of chi-squared with one degree of freedom.
SIGNIFICANT_GAIN = 1.92
# A family is rejected if its AIC exceeds the best by this.
REJECTED = 10.0


# Trends of class fractions that ranges span, unless told otherwise.
DELTA = 0.5


@dataclass(frozen=True)
class Settings:
    """How T(α) is fitted to a sample."""

    method: str = ""  # empty: by what the sample has (`settings_for`)
    family: Any = None  # class of the family, or its name; None for that of lowest AIC among candidates with a formula
    bins: int | None = None  # of "binned"; None for `bins_of_64`
    false_disk: float | str | None = None  # fixed p(ỹ = disk | y = smooth), "fit", or None for the default
    delta: float | None = DELTA  # trends of class fractions that the range spans without gold labels
    knots: Any = 8  # of "monotone"
    seed: int = 0
    alpha_error: float = 0.0  # relative error of α, for the range


# T(α), fraction and its standard error.
Alternative = tuple[Transition, float, float]


@dataclass(frozen=True)
class DriftRange:
    """Range of the second class's fraction without gold labels, under trends of class fractions with α.

    Labels alone cannot separate bias from a real trend. The trend is therefore assumed: the logit of the fraction may
    change by ± δ per standard deviation of ln α, linearly or quadratically; given intrinsic columns, per standard
    deviation of the part of ln α that is not linear in them. T(α) is fitted under such trends, in several
    families, also with some false labels of the second class, and with errors of α, if they are known. The range spans
    all of these that the labels do not reject under the same trend (by an AIC higher by 10), and the observed labels if
    a trend alone can explain them. The likelihood does not choose among trends, because it prefers those whose shape
    resembles that of T(α).
    """

    delta: float  # δ: change of the logit of the fraction per standard deviation of ln α
    delta_unbiased: float  # the δ that explains the labels without bias, from the observed fraction
    alternatives: dict[str, Alternative]  # by family and trend
    alpha_error: float = 0.0  # relative error of α

    @property
    def statement(self) -> str:
        """Description of the range."""
        trends = f"trends up to δ = {self.delta:g} (logit per σ of ln α)"
        errors = f"α to {self.alpha_error:.0%}" if self.alpha_error else "α exact"
        return f"{trends}, {errors}; no bias needed above δ = {self.delta_unbiased:.2f}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        values = {name: getattr(self, name) for name in ("delta", "delta_unbiased", "alpha_error", "statement")}
        return values | {"fractions": {name: value for name, (_, value, _) in self.alternatives.items()}}


class FittedCurve(Result):
    """What a fit of T(α) says: what is printed of it, and stored in files.

    Attributes
    ----------
    transition, family, method, assumption, values, stderr, log_likelihood, aic, findings
        As in `TransitionFit`.
    classes : tuple of str
        Names of the classes.
    class_fractions, labelled : array, shape (K,)
        True class fractions, and those of the observed labels.
    ranges : array, shape (K, 2)
        Lowest and highest class fractions.
    population : array, shape (3, K)
        Standard error, lowest and highest class fraction of the population of which the galaxies are a random sample.
    galaxies : int
        Number of galaxies.
    drift : dict or None
        From labels alone: the trends of class fractions with α that the range spans.
    """

    transition: Transition
    family: str
    method: str
    assumption: str
    values: dict[str, float]
    stderr: dict[str, float]
    classes: tuple[str, ...]
    class_fractions: np.ndarray
    labelled: np.ndarray
    ranges: np.ndarray
    population: np.ndarray
    galaxies: int
    log_likelihood: float
    aic: float
    drift: Mapping[str, Any] | None
    findings: Findings

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> FittedCurve:
        """Rebuild it from what `to_dict` returns."""
        classes = tuple(described["class_fractions"])
        if "labelled_fraction" in described:  # of two classes, in files of version 0.2
            second = described["labelled_fraction"]
            low, high = described[f"{next(iter(fraction_names(classes)))}_range"]
            ranges, labelled = [[1 - high, 1 - low], [low, high]], [1 - second, second]
        else:
            ranges, labelled = described["class_fraction_ranges"], described["labelled_fractions"]
        # Files of version 0.2 have no errors of a population.
        population = described.get("population", np.full((3, len(classes)), np.nan))
        same = ("method", "assumption", "values", "galaxies", "log_likelihood", "aic", "drift")
        return cls(
            transition=transition_from_dict(dict(described)),
            family=described["family"],
            stderr={name: np.nan if error is None else error for name, error in described["stderr"].items()},
            classes=classes,
            class_fractions=np.array(list(described["class_fractions"].values())),
            labelled=np.array(labelled),
            ranges=np.array(ranges),
            population=np.array(population, float),
            findings=findings_in(described),
            **{name: described[name] for name in same},
        )

    @property
    def fraction_range(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest fraction of each class, by its name."""
        return {name: (float(low), float(high)) for name, (low, high) in zip(self.classes, self.ranges, strict=True)}

    @property
    def statement(self) -> str:
        """The family and its parameters; of paths through a tree, how often labels of each class are right."""
        transition = self.transition
        if not isinstance(transition, TreeTransition):
            values = [f"{name} = {value:.3f} ± {self.stderr[name]:.3f}" for name, value in self.values.items()]
            return f"{self.family}: {', '.join(values)}"
        middle, scale = transition.center[0], transition.scale[0]
        alpha = np.exp([middle - scale, middle + scale])
        right = np.einsum("nkk->kn", transition.matrix([[a, *transition.center[1:]] for a in alpha]))
        of_classes = (f"{name} {a:.2f}, {b:.2f}" for name, (a, b) in zip(transition.asked.classes, right, strict=True))
        return f"labels that are right at α = {alpha[0]:.3g} and {alpha[1]:.3g}: {'; '.join(of_classes)}"

    def facts(self) -> list[tuple[str, str]]:
        """Return the class fractions with their ranges, the parameters, and what they rest on."""
        facts = []
        for name, k in fraction_names(self.classes).items():
            value = f"{self.class_fractions[k]:.3f}"
            if self.method == "gold" or value not in ("0.000", "1.000"):  # at its bound, a ± says nothing
                value += f" ± {self.stderr[name]:.3f}"
            spans = "{:.3f} to {:.3f}".format(*self.ranges[k])
            if self.method == "gold":
                of_all = "± {:.3f}, {:.3f} to {:.3f}".format(*self.population[:, k])
                value += f", range {spans}, of these galaxies ({of_all} of a population)"
            else:  # the ± rests on an assumption that labels alone cannot test
                value = f"{spans}; {value} if {self.assumption.replace('alpha', 'α')}"
            labelled = f"{self.labelled[k]:.3f} by the labels of {self.galaxies:,} galaxies"
            facts.append((name.replace("_", " "), f"{value}; {labelled}"))
        facts += [
            ("bias curve", self.statement),
            ("method", f"{self.method}; assumes that {self.assumption.replace('alpha', 'α')}"),
        ]
        return facts + ([] if self.drift is None else [("range spans", self.drift["statement"])])

    def summary(self) -> str:
        """Return the class fractions with their ranges and errors, and the parameters, as text."""
        return "\n".join(text_facts(self.facts()))

    def to_dict(self) -> dict[str, Any]:
        """Return family, parameters, errors and findings as plain values."""
        names = ("method", "assumption", "galaxies", "log_likelihood", "aic")
        return plain(
            {
                **transition_to_dict(self.transition),
                "values": self.values,
                "stderr": self.stderr,
                "class_fractions": dict(zip(self.classes, self.class_fractions, strict=True)),
                "class_fraction_ranges": self.ranges,
                "labelled_fractions": self.labelled,
                "drift": self.drift,
                "population": self.population,
                **{name: getattr(self, name) for name in names},
                "findings": self.findings,
            }
        )

    def to_table(self) -> Any:
        """Return a table with one row per parameter; class fractions are the last."""
        values = self.values | {name: self.class_fractions[k] for name, k in fraction_names(self.classes).items()}
        return quantity_table(
            {
                "parameter": (list(values), "parameter of T(α), or class fraction"),
                "value": (list(values.values()), "estimate"),
                "stderr": ([self.stderr.get(name, np.nan) for name in values], "standard error"),
            },
            family=self.family,
            method=self.method,
        )


class TransitionFit(Result):
    """An estimate of T(α) with its errors.

    Attributes
    ----------
    transition : Transition
        T(α) at the best parameters.
    class_fractions : array, shape (K,)
        True class fractions, in the order of the classes; averaged over galaxies where they depend on z.
    stderr : dict of str to float
        Standard error of each parameter, and of the class fractions ("disk_fraction"; of K classes "fraction_0" and so
        on); NaN where the data do not set one (see `findings`). From the observed information; from the sandwich
        where rows have weights; from the bootstrap if requested.
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
        The unconstrained parameters.
    covariance : array, shape (P, P)
        Of `point`; NaN in the rows of parameters at a bound.
    sample : Sample
        Sample of the fit.
    settings : Settings
        Method and family, and their options.
    resampled : array, shape (R, P), or None
        The points of R resamples, where errors come from bootstrap.
    drift : DriftRange or None
        From labels alone: the range of the fraction if class fractions do depend on α.
    fraction_samples : array, shape (S, K), or None
        With gold labels: draws of the class fractions.
    of_total : array, shape (2, 3, K), or None
        Of an estimate with gold labels: error, lowest and highest class fraction of all bins together, of these
        galaxies and of their population (see `PopulationFractions`).
    probabilities : array, shape (N, K), or None
        p(y | z) where intrinsic properties were given.
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
    findings: Findings
    values: dict[str, float]
    n_parameters: int
    space: Space
    point: np.ndarray
    covariance: np.ndarray
    sample: Sample
    settings: Settings
    drift: DriftRange | None = None
    fraction_samples: np.ndarray | None = None
    of_total: np.ndarray | None = None
    probabilities: np.ndarray | None = None
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
        fraction_stderr: float | np.ndarray,
        **details: Any,
    ) -> TransitionFit:
        """Return the result of a method: its parameters with their errors."""
        slopes = differences(space.values, point)  # (P, V)
        stuck = np.isnan(np.diag(covariance))
        # A value that moves with a parameter at its bound has no error from the curvature.
        variance = np.einsum("pv,pq,qv->v", slopes, np.nan_to_num(covariance), slopes)
        lost = (np.abs(slopes[stuck]) > 1e-6).any(axis=0)
        errors = np.where(lost | (variance < 0), np.nan, np.sqrt(np.maximum(variance, 0)))
        values = dict(zip(space.names, space.values(point).tolist(), strict=True))
        stderr = dict(zip(space.names, errors.tolist(), strict=True))
        of_fractions = np.broadcast_to(fraction_stderr, fractions.shape)
        stderr |= {name: float(of_fractions[k]) for name, k in fraction_names(sample.classes).items()}
        return cls(
            transition=space.build(point),
            class_fractions=fractions,
            stderr=stderr,
            findings=(),
            values=values,
            space=space,
            point=point,
            covariance=covariance,
            sample=sample,
            settings=settings,
            **details,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.sample.classes

    @property
    def labels(self) -> np.ndarray:
        """Observed labels, shape (N,)."""
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
        """Family of T(α)."""
        return self.transition.family

    @property
    def assumption(self) -> str:
        """Assumption of the method."""
        if self.sample.probability is not None:
            return "gold labels are right, and their probabilities of selection known"
        others = "".join(f" or {name}" for name in self.sample.observable_names)
        return ASSUMPTIONS[self.method].replace("depend on alpha", f"depend on alpha{others}")

    @property
    def aic(self) -> float:
        """Akaike's criterion, 2 × parameters - 2 log-likelihood."""
        return 2 * self.n_parameters - 2 * self.log_likelihood

    @property
    def label_probabilities(self) -> np.ndarray:
        """p(ỹ | α) of every label of each galaxy, shape (N, K); given intrinsic properties, p(ỹ | z, α)."""
        fractions = self.class_fractions if self.probabilities is None else self.probabilities
        rows = np.broadcast_to(log_of(fractions), (self.labels.size, self.sample.n_classes))
        return np.exp(observed_log_probabilities(rows, self.sample.argument, self.transition))

    def made_from(self, sample: Sample) -> bool:
        """Whether these are the labels and α of the fit."""
        return np.array_equal(self.labels, sample.labels) and np.array_equal(self.sample.argument, sample.argument)

    @property
    def curve(self) -> FittedCurve:
        """What this fit says, without the galaxies that it was made from."""
        weights = self.sample.weights
        errors = np.broadcast_to([self.stderr[name] for name in fraction_names(self.classes)], len(self.classes))
        ranges = self._ranges(errors)
        same = ("transition", "family", "method", "assumption", "values", "stderr", "classes", "class_fractions")
        return FittedCurve(
            **{name: getattr(self, name) for name in (*same, "log_likelihood", "aic", "findings")},
            labelled=np.bincount(self.labels, weights, self.class_fractions.size) / weights.sum(),
            ranges=ranges,
            population=np.stack([errors, *ranges.T]) if self.of_total is None else self.of_total[1],
            galaxies=self.labels.size,
            drift=None if self.drift is None else self.drift.to_dict(),
        )

    def _ranges(self, errors: np.ndarray) -> np.ndarray:
        """Return lowest and highest class fractions, shape (K, 2), from their standard errors, (K,), if need be.

        The 95 % intervals; from labels alone they span trends of class fractions with α, too (see `drift`).
        """
        if self.of_total is not None:
            ranges = self.of_total[0, 1:].T
        elif self.fraction_samples is not None:
            ranges = np.quantile(self.fraction_samples, [0.025, 0.975], axis=0).T
        else:
            ranges = self.class_fractions[:, None] + NORMAL_95 * np.multiply.outer(np.nan_to_num(errors), [-1, 1])
        if self.drift is not None:  # of two classes
            others = self.drift.alternatives.values()
            ends = [ranges[DISK], *(value + np.multiply(NORMAL_95 * error, [-1, 1]) for _, value, error in others)]
            low, high = np.min(ends), np.max(ends)
            ranges = np.array([[1 - high, 1 - low], [low, high]])
        return np.clip(ranges, 0.0, 1.0)

    @property
    def fraction_range(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest fraction of each class, by its name."""
        return self.curve.fraction_range

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
        if self.resampled is None:
            points = rng.multivariate_normal(self.point, np.nan_to_num(self.covariance), n)
            points = np.clip(points, self.space.lower, self.space.upper)
        else:
            points = rng.choice(self.resampled, n)
        return [self.space.build(point) for point in points]

    def summary(self) -> str:
        """Return the class fractions with their ranges and errors, and the parameters, as text."""
        return self.curve.summary()

    def to_dict(self) -> dict[str, Any]:
        """Return family, parameters, errors and findings as plain values; `load` and `DebiasedLoss` accept them."""
        return self.curve.to_dict()

    def to_table(self) -> Any:
        """Return a table with one row per parameter; class fractions are the last."""
        return self.curve.to_table()

    def draw(self, ax: Any) -> None:
        """Draw the bias curve with the binned labels (of gold labels of the second class)."""
        plot_fit(self, ax)
