"""Compare families of T(α), and check whether class fractions depend on α."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import chdtrc, ndtri

from truemorph.bias.binning import default_bins
from truemorph.bias.checks.selection import LEVEL
from truemorph.bias.curves.families import COMPARED, family_of
from truemorph.bias.curves.formulas import RayleighTransition
from truemorph.bias.curves.transitions import DISK, UNKNOWN, Array, FlipTransition, Search
from truemorph.bias.fitting import check_variation, settings_for, solve
from truemorph.bias.fractions import fractions_in_bins
from truemorph.bias.mixture import fit_mixture, mixture_of, standardised
from truemorph.bias.plots import plot_fit
from truemorph.bias.population import PopulationFractions
from truemorph.bias.regression.gold import quadratic
from truemorph.bias.regression.maximum import effective_weights, fit_softmax, log_probabilities
from truemorph.bias.result import ASSUMPTIONS, REJECTED, FittedCurve, Settings, TransitionFit
from truemorph.bias.sample import Sample, check_whole
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings, findings_in
from truemorph.io import plain
from truemorph.questions import SMOOTH_OR_DISK, Quantity, fraction_names
from truemorph.results import Result, quantity_table, text_facts, text_table

_NOTICEABLE = 0.02
_FEWEST_IN_GROUP = 200
# Of more galaxies, about so many are used to test what T leaves out.
_TESTED = 20_000
# Arguments of `fit_transition` that describe the galaxies.
_OF_SAMPLE = ("observables", "intrinsic", "gold", "gold_probability", "weights", "classes")
_BY_COLUMNS = "class fractions depend on α beyond what the intrinsic columns explain"
# A summary gives the parameters of families that have no more.
_SHOWN = 2


class FamilyComparison(Result):
    """Families fitted to the same data.

    Attributes
    ----------
    fits : dict of str to TransitionFit, or to FittedCurve if they were read from a file
    rayleigh_p_value : float
        Likelihood-ratio test of Rayleigh inside Weibull (shape 2): probability of so large a gain by chance; NaN if one
        of them was not fitted.
    failed : dict of str to str
        Families that could not be fitted, and why.
    findings : tuple of Finding
    """

    fits: Mapping[str, Any]
    rayleigh_p_value: float
    failed: dict[str, str]
    findings: Findings = ()

    @property
    def best(self) -> str:
        """The family of lowest AIC."""
        return min(self.fits, key=lambda name: self.fits[name].aic)

    @property
    def in_order(self) -> list[str]:
        """Names of the families, best first."""
        return sorted(self.fits, key=self.delta_aic)

    def delta_aic(self, family: str) -> float:
        """Return the AIC of a family above that of the best one."""
        return self.fits[family].aic - self.fits[self.best].aic

    def rejected(self, family: str) -> Finding | None:
        """Return a finding if another family describes the labels much better (AIC lower by 10 or more)."""
        above = self.delta_aic(family)
        if above < REJECTED:
            return None
        action = f'Choose this family (`family`="{self.best}")'
        which = "gold labels"
        if self.fits[self.best].method != "gold":
            which = "labels"
            action += ", or give gold labels (`gold`), which tell whether class fractions change instead"
        message = f"The {which} prefer the {self.best} family to {family} (AIC lower by {above:.0f})."
        return Finding("family-rejected", "caution", message, f"{action}.")

    def summary(self) -> str:
        """Return a table of the families, best first, as text."""
        lines = []
        for family in self.in_order:
            fit = self.fits[family]
            values = [f"{name} {value:.3f} ± {fit.stderr[name]:.3f}" for name, value in fit.values.items()]
            shown = ", ".join(values) if len(values) <= _SHOWN else f"{len(values)} parameters"
            numbers = (f"{fit.log_likelihood:.1f}", f"{self.delta_aic(family):.1f}")
            fractions = (f"{fit.class_fractions[k]:.3f}" for k in self._fractions.values())
            lines.append([family, *numbers, *fractions, shown])
        names = [name.replace("_", " ") for name in self._fractions]
        header = ["family", "log-likelihood", "AIC above best", *names, "parameters"]
        failed = [f"{name}: not fitted: {why}" for name, why in self.failed.items()]
        return "\n".join([*text_table(header, lines, left=(0, len(header) - 1)), *failed])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        p_value = self.rayleigh_p_value
        return plain({"families": self.rows(), "families_failed": self.failed, "rayleigh_p_value": p_value})

    def to_table(self) -> Any:
        """Return a table with one row per family, best first."""
        columns = {
            "log_likelihood": "log-likelihood of the labels",
            "delta_aic": "AIC above that of the best family",
            **{name: f"corrected {name.replace('_', ' ')}" for name in self._fractions},
        }
        rows = self.rows()
        family = ([row["name"] for row in rows], "family of T(α)")
        others = {name: ([row[name] for row in rows], about) for name, about in columns.items()}
        return quantity_table({"family": family, **others})

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> FamilyComparison:
        """Rebuild it from the JSON of an estimate."""
        fits = {row["name"]: FittedCurve.from_dict(row) for row in described["families"]}
        p_value = described["rayleigh_p_value"]
        return cls(fits, np.nan if p_value is None else p_value, described["families_failed"])

    @property
    def _fractions(self) -> dict[str, int]:
        """Names of fractions that rest on the family; those of gold labels do not."""
        best = self.fits[self.best]
        return {} if best.method == "gold" else fraction_names(best.classes)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per family, best first: what its fit says, and its AIC above the best."""
        return [
            {
                "name": name,
                **self.fits[name].to_dict(),
                "delta_aic": self.delta_aic(name),
                **{fraction: float(self.fits[name].class_fractions[k]) for fraction, k in self._fractions.items()},
            }
            for name in self.in_order
        ]

    def draw(self, ax: Any) -> None:
        """Draw the best family, and the others as a band, over the data."""
        best = self.fits[self.best]
        if isinstance(best, FittedCurve):
            raise InputError("these fits were read from a file, without their galaxies; their figure lies beside it")
        plot_fit(best, ax, self.fits)


def compare_families(
    labels: Array, alpha: Array, families: Sequence[str | type[FlipTransition]] = COMPARED, **options: Any
) -> FamilyComparison:
    """Fit several families to the same data and compare them by AIC.

    Parameters
    ----------
    labels, alpha
        As for `fit_transition`.
    families : sequence of str or subclasses of FlipTransition
    **options
        Further arguments of `fit_transition`, except `bootstrap`.

    Returns
    -------
    FamilyComparison

    Raises
    ------
    InputError
        If no family can be fitted.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> alpha = rng.lognormal(2.8, 0.45, 30000)
    >>> flips = 1 / (1 + (alpha / 12) ** 2.2)
    >>> labels = ((rng.random(30000) < 0.7) & (rng.random(30000) > flips)).astype(int)
    >>> compare_families(labels, alpha, ("rayleigh", "fisk")).best
    'fisk'
    """
    sample_options = {name: options.pop(name) for name in _OF_SAMPLE if name in options}
    kinds = [family_of(family) for family in families]
    if all(issubclass(kind, FlipTransition) for kind in kinds):
        sample_options.setdefault("classes", SMOOTH_OR_DISK)
    return compared(Sample.of(labels, alpha, **sample_options), kinds, Settings(**options))


def compared(sample: Sample, families: Sequence[Any], settings: Settings) -> FamilyComparison:
    """Fit several families to a sample (see `compare_families`)."""
    fits, failed = {}, {}
    for cls in dict.fromkeys(families):
        try:
            fits[cls.family] = solve(sample, settings_for(sample, replace(settings, family=cls, delta=None)))
        except InputError as problem:
            failed[cls.family] = str(problem)
    if not fits:
        raise InputError(f"no family could be fitted: {'; '.join(dict.fromkeys(failed.values()))}")
    p_value = np.nan
    if {"rayleigh", "weibull"} <= fits.keys():
        wide = fits["weibull"]
        gain = max(wide.log_likelihood - fits["rayleigh"].log_likelihood, 0.0)
        p_value = float(chdtrc(1, 2 * gain / np.mean(wide.sample.weights**2)))  # weighted rows count as fewer
    return FamilyComparison(fits, p_value, failed)


def group_findings(sample: Sample, name: str, groups: np.ndarray) -> Iterator[Finding]:
    """Warn if surveys, or other groups, of 200 galaxies or more differ in bias curve or class fractions (Wald, 1 %)."""
    if sample.n_classes != 2:
        return
    points, precisions, shown = [], [], []
    alone = Sample.of(sample.labels, sample.alpha, classes=sample.classes, weights=sample.weights)
    for group in np.unique(groups):
        rows = groups == group
        if rows.sum() < _FEWEST_IN_GROUP:
            continue
        part = alone.take(rows)
        fit = fit_mixture(mixture_of(RayleighTransition.space(Search(part.alpha)), part))
        if np.isnan(fit.covariance).any():
            continue
        points.append(fit.maximum.point)
        precisions.append(np.linalg.inv(fit.covariance))
        shown.append(f"{group}: θ {fit.transition.parameters()['theta']:.1f}, {fit.probabilities()[0, DISK]:.2f}")
    if len(points) < 2:
        return
    both = list(zip(precisions, points, strict=True))
    mean = np.linalg.solve(sum(precisions), sum(precision @ point for precision, point in both))
    apart = sum(float((point - mean) @ precision @ (point - mean)) for precision, point in both)
    p_value = float(chdtrc(2 * (len(points) - 1), apart))
    if p_value >= LEVEL:
        return
    of = sample.classes[DISK]
    message = (
        f"The values of {name} differ in bias curve or {of} fraction (p = {p_value:.1g}; Rayleigh θ and {of} fraction "
        f"by labels alone: {'; '.join(shown[:4])}). One curve for all is wrong for each of them."
    )
    action = f"Estimate T(α) for each alone (`where`, such as {name}=...)."
    yield Finding("surveys-differ", "caution", message, action)


def ignored_findings(fit: TransitionFit, seen: Mapping[str, np.ndarray]) -> list[Finding]:
    """Warn if labels depend on properties of the images that T leaves out, shape (N,) each, NaN if unknown.

    T with and without each and its square is compared by the ratio of likelihoods (1 % for all together). Where gold
    labels are too few to show a difference, all labels are tested, and whether the gold labels' classes explain it.
    """
    findings = []
    for name, values in seen.items():
        finite, has_gold, level = np.isfinite(values), fit.method == "gold", LEVEL / len(seen)
        rows = np.flatnonzero(finite & fit.sample.known if has_gold else finite)
        if finite.sum() < _FEWEST_IN_GROUP or np.ptp(values[finite]) == 0:
            continue
        with suppress(InputError):  # a family that depends on no observables, or not from labels alone
            # Bins have no likelihood.
            settings = replace(fit.settings, method="likelihood") if fit.method == "binned" else fit.settings
            p_value, apart, curved = _left_out(fit.sample, settings, name, values, rows)
            shown = has_gold and p_value < level
            if has_gold and not shown and fit.sample.n_classes == 2 and fit.sample.asked is None:
                labels = replace(fit.sample, gold=np.full(finite.size, UNKNOWN), probability=None)
                alone = Settings("likelihood", fit.settings.family)
                p_value, apart, curved = _left_out(labels, alone, name, values, np.flatnonzero(finite))
                if p_value < level and _classes_depend_on(values[rows], fit.sample.take(rows)) < level:
                    continue
            if p_value >= level or apart < _NOTICEABLE:
                continue
            message = f"Galaxies of the same α have other labels where {name} differs (p = {p_value:.1g}). "
            column = f'`observables`="{name}"'
            if curved < level:
                column = f"`observables`: {name}, and a column of its square"
            if has_gold:
                message += f"T that depends on it, too, differs from this one by {apart:.2f} on average."
                message += "" if shown else " Gold labels do not show that the classes depend on it instead."
                action = f"Estimate T with it ({column})."
            else:
                message += "Either the bias depends on it, and then this estimate is wrong, or only the classes do."
                action = f"Give gold labels (`gold`) and this column ({column}), which tell the two apart."
            findings.append(Finding("observable-ignored", "caution", message, action))
    return findings


def _left_out(
    sample: Sample, settings: Settings, name: str, values: np.ndarray, rows: np.ndarray
) -> tuple[float, float, float]:
    """Return the p-value of T's dependence on a column and its square, what they change, and the p-value of the square.

    What they change is the mean of the largest difference that they make to T.
    """
    rows = rows[:: max(1, rows.size // _TESTED)]
    alone = sample.take(rows)
    names, powers, fits = (*alone.observable_names, name, f"{name} squared"), quadratic(values[rows]), []
    for k in range(3):
        columns = np.column_stack([alone.observables, powers[:, :k]])
        wide = replace(alone, observables=columns, observable_names=names[: columns.shape[1]])
        fits.append(solve(wide, replace(settings, delta=None)))

    def by_chance(narrow: TransitionFit) -> float:
        gain = (fits[-1].log_likelihood - narrow.log_likelihood) / np.mean(alone.gold_weights**2)
        return float(chdtrc(fits[-1].n_parameters - narrow.n_parameters, 2 * max(gain, 0.0)))

    change = np.subtract(*(fit.transition.matrix(fit.sample.argument) for fit in (fits[0], fits[-1])))
    return by_chance(fits[0]), float(np.abs(change).max(axis=(1, 2)).mean()), by_chance(fits[1])


def _classes_depend_on(values: np.ndarray, sample: Sample) -> float:
    """Return the p-value of the classes' dependence on a column and its square at fixed α, of n gold labels."""
    u = sample.log_alpha
    base = standardised(np.column_stack([u, u**2]))
    wide = np.column_stack([base, quadratic(values)])
    gain = _gain(wide, base, np.eye(sample.n_classes)[sample.gold], sample.gold_weights)
    return float(chdtrc(2 * (sample.n_classes - 1), 2 * gain))


def _gain(wide: np.ndarray, base: np.ndarray, truth: np.ndarray, w: np.ndarray) -> float:
    """Return the gain in log-likelihood of true classes (n, K) by the further columns of a logistic regression."""
    w = effective_weights(w)

    def log_likelihood(design: np.ndarray) -> float:
        coefficients = fit_softmax(design, truth, np.full(design.shape[1], 1e-6), w)[0]
        return float(np.sum(w[:, None] * truth * log_probabilities(design, coefficients)))

    return max(0.0, log_likelihood(wide) - log_likelihood(base))


class ConfoundingCheck(Result):
    """Whether true class fractions depend on α.

    Attributes
    ----------
    checked : bool
        False if there are neither intrinsic columns nor gold labels.
    statement : str
        The result in a sentence.
    confounded : bool
        Class fractions depend on α: estimates that assume they don't (`likelihood`, `binned`) are biased.
    unexplained : bool
        They depend on α beyond what the intrinsic columns explain: `conditional` is biased too.
    drift, drift_stderr : float
        Disk fraction of the best resolved third minus that of the worst resolved third, from gold labels or as
        predicted from the intrinsic columns.
    unexplained_p_value : float
        Probability of so much dependence on α beyond the columns (or, without columns, at all) by chance.
    findings : tuple of Finding
    """

    checked: bool
    statement: str
    confounded: bool = False
    unexplained: bool = False
    drift: float = np.nan
    drift_stderr: float = np.nan
    unexplained_p_value: float = np.nan
    findings: Findings = ()

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> ConfoundingCheck:
        """Rebuild it from what `to_dict` returns."""
        values: dict[str, Any] = {name: np.nan if value is None else value for name, value in described.items()}
        return cls(**values | {"findings": findings_in(described)})

    def summary(self) -> str:
        """Return the result as text."""
        return "\n".join(text_facts([("check", self.statement)]))

    def to_table(self) -> Any:
        """Return a table with one row."""
        return quantity_table(
            {
                "drift": ([self.drift], "fraction of the best minus that of the worst resolved third"),
                "drift_stderr": ([self.drift_stderr], "standard error"),
                "unexplained_p_value": ([self.unexplained_p_value], "probability of the dependence on α by chance"),
            }
        )


def confounding_check(
    labels: Array,
    alpha: Array,
    intrinsic: Array | None = None,
    gold: Array | None = None,
    weights: Array | None = None,
    seed: int = 0,
    *,
    fractions: PopulationFractions | None = None,
) -> ConfoundingCheck:
    """Check whether class fractions depend on α, and whether intrinsic columns explain this.

    With gold labels, the class fractions of the worst and the best resolved third of all galaxies are those of
    `debiased_fractions`, and logistic regressions of the true class on the intrinsic columns (if given) are compared
    with and without log α and its square. Without gold labels, T (of the Rayleigh family) and p(y | z) are fitted
    together; the predicted fractions are compared between these thirds, and log α is tested as a further column of
    p(y | z). This last test depends on the family.

    Parameters
    ----------
    labels, alpha, intrinsic, gold
        As for `fit_transition`; α of shape (N,).
    weights : array, shape (N,), optional
        Sampling weights.
    seed : int
    fractions : PopulationFractions, optional
        Class fractions in bins of α from the same gold labels; `weights` are then those of the gold labels.

    Returns
    -------
    ConfoundingCheck
        With `checked=False` if neither columns nor gold labels are given.

    Raises
    ------
    InputError
        As `fit_transition`.

    Examples
    --------
    >>> from truemorph import simulate_catalogue
    >>> table = simulate_catalogue(4000, gold=400)
    >>> labels, alpha, gold = (table[name].fill_null(-1).to_numpy() for name in ("label", "alpha", "gold"))
    >>> found = confounding_check(labels, alpha, gold=gold)
    >>> found.checked
    True
    """
    check_whole(0, seed=seed)
    classes = SMOOTH_OR_DISK if gold is None else None
    sample = Sample.of(labels, alpha, classes=classes, intrinsic=intrinsic, gold=gold, weights=weights)
    return confounding(sample, fractions, seed)


def confounding(sample: Sample, fractions: PopulationFractions | None, seed: int) -> ConfoundingCheck:
    """Check a sample as `confounding_check`, with class fractions in bins of α if it has gold labels."""
    if not sample.intrinsic.size and not sample.has_gold:
        without = "not checked, without intrinsic columns or gold labels"
        return ConfoundingCheck(False, f"{without}: the estimate assumes that {ASSUMPTIONS['likelihood']}")
    check_variation(sample, RayleighTransition)
    u, w = (sample.log_alpha - sample.log_alpha.mean()) / sample.log_alpha.std(), sample.weights
    if sample.has_gold:
        if fractions is None:
            fractions = fractions_in_bins(sample, None, bins=default_bins(u.size), seed=seed)
        return _check_with_gold(sample, u, fractions)
    alone = sample.without_observables()
    space, design = RayleighTransition.space(Search(alone.alpha)), np.column_stack([standardised(sample.intrinsic), u])
    _ = sample.explained  # an error if they determine α
    wide, narrow = (fit_mixture(mixture_of(space, alone, columns)) for columns in (design, design[:, :-1]))
    gain = max(0.0, wide.log_likelihood - narrow.log_likelihood)
    p_value = float(chdtrc(1, 2 * gain * u.size / np.sum(w**2)))  # weighted rows weigh as fewer
    low, high = u <= np.quantile(u, 1 / 3), u >= np.quantile(u, 2 / 3)
    drift, variance = narrow.contrast(w * (high / np.sum(w * high) - low / np.sum(w * low)), narrow.covariance)
    p = narrow.probabilities()[:, DISK]
    error = float(np.sqrt(variance + p[low].var() / low.sum() + p[high].var() / high.sum()))
    return _verdict(
        drift, error, p_value, f"the intrinsic columns predict a {sample.classes[DISK]} fraction", _BY_COLUMNS
    )


def _check_with_gold(sample: Sample, u: np.ndarray, fractions: PopulationFractions) -> ConfoundingCheck:
    """Check the first fraction that is quoted, among the galaxies to which its question applies."""
    assert fractions.samples is not None
    of = f"{sample.classes[DISK]} fraction" if sample.n_classes == 2 else f"fraction of class {sample.classes[DISK]}"
    alone = Quantity(of, tuple(np.eye(sample.n_classes)[DISK]))
    drifting = fractions.quantities[0] if fractions.quantities else alone
    counted = drifting.counted > 0
    rows = sample.known & counted[sample.gold]
    if fractions.counts.size == 1 or not rows.any():
        return ConfoundingCheck(False, "not checked: there are too few galaxies for bins of α")
    truth, at, w = np.eye(sample.n_classes)[sample.gold[rows]][:, counted], u[rows], sample.gold_weights[rows]
    base = standardised(sample.intrinsic)[rows]
    gain = _gain(np.column_stack([base, at, at**2 - 1]), base, truth, w)
    p_value = float(chdtrc(2 * (truth.shape[1] - 1), 2 * gain))
    # Of all galaxies, as in the table of fractions, not of those with a gold label.
    edges = np.concatenate([[0.0], np.cumsum(fractions.bin_weights) / fractions.bin_weights.sum()])
    worst, best = (np.diff(np.clip(edges, *third)) for third in ((0, 1 / 3), (2 / 3, 1)))
    contrast = 3 * (best - worst)
    drift = float(contrast @ drifting.of(fractions.fractions))
    # And the scatter of the classes themselves: fractions are those of these galaxies, the question is about any.
    scatter = np.sum(contrast**2 * drifting.scatter(fractions.fractions) ** 2 / fractions.counts)
    covariance = np.cov(drifting.of(fractions.samples), rowvar=False)
    error = float(np.sqrt(contrast @ covariance @ contrast + scatter))
    explained = _BY_COLUMNS if sample.intrinsic.size else "a quadratic curve in ln α fits better than a constant"
    return _verdict(drift, error, p_value, f"gold labels show a {drifting.name}", explained)


def _verdict(drift: float, error: float, p_value: float, who: str, explained: str) -> ConfoundingCheck:
    """Return the result of both tests, of the change `drift` and of the dependence on α, `explained` in words."""
    confounded = bool(abs(drift) > max(-ndtri(LEVEL / 2) * error, _NOTICEABLE))
    unexplained = p_value < LEVEL
    change = f"{'rises' if drift > 0 else 'falls'} by {abs(drift):.3f} ± {error:.3f}"
    statement = f"{who} that {change} from the worst to the best resolved third"
    if unexplained:
        statement += f"; {explained} (p = {p_value:.1g})"
    if not confounded and not unexplained:
        return ConfoundingCheck(True, f"{statement}; no dependence on α is found", False, False, drift, error, p_value)
    message = f"{statement[0].upper()}{statement[1:]}. Estimates that assume constant class fractions are biased."
    columns = "" if unexplained else ", or given the intrinsic columns (`intrinsic`)"
    finding = Finding("fractions-drift", "caution", message, f"Estimate T(α) from gold labels (`gold`){columns}.")
    return ConfoundingCheck(True, statement, True, unexplained, drift, error, p_value, (finding,))
