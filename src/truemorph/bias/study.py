"""An estimate of T(α) with its checks and the corrected class fractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import chi2

from truemorph.bias.binning import Bins, proportion_error
from truemorph.bias.calibration import Calibration, calibration
from truemorph.bias.checks import LEVEL, balance_findings, check_not_encoded, vote_findings
from truemorph.bias.diagnostics import (
    ConfoundingCheck,
    FamilyComparison,
    compare_families,
    confounding_check,
    group_findings,
)
from truemorph.bias.estimation import fit_transition, with_bootstrap_errors
from truemorph.bias.fractions import PopulationFractions, debiased_fractions
from truemorph.bias.likelihood import check_columns
from truemorph.bias.plots import plot_fit, plot_fractions
from truemorph.bias.result import TransitionFit
from truemorph.bias.transitions import COMPARED, DISK, UNKNOWN, Array, FlipTransition, RayleighTransition, family_of
from truemorph.findings import Finding, unique
from truemorph.io import plain
from truemorph.progress import progress
from truemorph.results import Result, text_facts

_RESAMPLES = 30
_FEWEST_PER_BIN = 50


@dataclass(frozen=True, repr=False)
class TransitionStudy(Result):
    """A fit of T(α), its checks, and the corrected class fractions.

    Attributes
    ----------
    fit : TransitionFit
    families : FamilyComparison or None
    check : ConfoundingCheck
    calibration : Calibration
    fractions : PopulationFractions
        Class fractions in bins of α, or of another column.
    gold_fractions, gold_stderr : array, shape (B,), or None
        Disk fraction of the galaxies with gold labels in the same bins, and its binomial error.
    bootstrap_std : dict of str to float
        Scatter of each parameter over bootstrap resamples, if requested.
    about : dict
        Definitions of α, of the labels and of gold labels; stored in files.
    findings : tuple of Finding
    """

    fit: TransitionFit
    families: FamilyComparison | None
    check: ConfoundingCheck
    calibration: Calibration
    fractions: PopulationFractions
    gold_fractions: np.ndarray | None
    findings: tuple[Finding, ...]
    gold_stderr: np.ndarray | None = None
    bootstrap_std: dict[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def disk_fraction_range(self) -> tuple[float, float]:
        """Lowest and highest disk fraction."""
        return self.fit.disk_fraction_range

    def summary(self) -> str:
        """Return disk fraction, parameters, families and fractions by bin as text."""
        facts = self.fit.facts()
        if self.bootstrap_std:
            scatter = ", ".join(f"{name} ± {value:.3f}" for name, value in self.bootstrap_std.items())
            facts.append(("bootstrap", scatter))
        if self.check.confounded or self.check.unexplained:
            facts.append(("check", self.check.statement))
        if self.about.get("alpha"):
            facts.append(("α", self.about["alpha"]))
        if self.about.get("definition"):
            facts.append((self.about["classes"][DISK], self.about["definition"].removeprefix("disk: ")))
        families = [] if self.families is None else ["", self.families.summary()]
        return "\n".join([*text_facts(facts), *families, "", *self.fractions.lines(self.gold_fractions)])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values: what `estimate_transition` writes, and training and labelling read."""
        found = self.fit.to_dict() | dict(self.about)
        found["findings"] = [one.to_dict() for one in self.findings]
        found["confounding"] = self.check.to_dict()
        if self.families is not None:
            compared = self.families.to_dict()
            found["families"], found["families_failed"] = compared["families"], compared["failed"]
            found["rayleigh_p_value"] = compared["rayleigh_p_value"]
        found["calibration"] = self.calibration.to_dict()
        found["fractions"] = self.fractions.to_dict() | {
            "gold": self.gold_fractions,
            "gold_definition": found.pop("gold_definition", None),
        }
        if self.bootstrap_std:
            found["bootstrap_std"] = self.bootstrap_std
        return plain(found)

    def to_table(self) -> Any:
        """Return the table of `fractions`, with the disk fraction of the galaxies with gold labels."""
        table = self.fractions.to_table()
        if self.gold_fractions is not None:
            table["gold"] = self.gold_fractions
            table["gold"].info.description = "disk fraction of the galaxies with gold labels"
        return table

    def plot(self, ax: Any = None) -> Any:
        """Draw the observed and corrected disk fractions; returns matplotlib axes."""
        gold = {} if self.gold_fractions is None else {"gold labels": self.gold_fractions}
        return plot_fractions(self.fractions, ax, gold, self.gold_stderr)

    def figure(self) -> Any:
        """Return a matplotlib figure of the bias curve, class fractions and calibration."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 3.6), layout="constrained")
        curve, fraction, calibrated = figure.subplots(1, 3)
        plot_fit(self.fit, curve, None if self.families is None else self.families.fits).set_title("Bias curve")
        self.plot(fraction).set_title("Disk fraction")
        self.calibration.plot(calibrated).set_title("Calibration of the fit")
        return figure


def study_transition(
    labels: Array,
    alpha: Array,
    family: str | type[FlipTransition] | None = None,
    *,
    observables: Array | None = None,
    intrinsic: Array | None = None,
    gold: Array | None = None,
    gold_probability: Array | None = None,
    gold_uncertain: Array | None = None,
    weights: Array | None = None,
    known: Array | None = None,
    by: Array | None = None,
    by_name: str = "alpha",
    fraction_bins: int = 8,
    compare: bool = True,
    bootstrap: int = 0,
    seed: int = 0,
    columns: Mapping[str, np.ndarray] | None = None,
    votes: Array | None = None,
    groups: tuple[str, np.ndarray] | None = None,
    about: Mapping[str, Any] | None = None,
    findings: tuple[Finding, ...] = (),
    **options: Any,
) -> TransitionStudy:
    """Fit T(α), compare families, check calibration and confounding, and correct class fractions.

    Arguments are as for `fit_transition` and `debiased_fractions`, and: `family` may be "best", that of lowest AIC;
    `known` are gold labels to show beside the result, NaN where unknown; which galaxies have a gold label should not
    depend on `columns` and on `votes`, the fraction of votes for disk; `groups` are name and values of the column that
    names the survey of each galaxy; `findings` on the selection of these rows come first; `about` is stored in the
    result, and its `gold_experts` has the `upper` limit of θ of the experts' own bias curve, as `import_gold` measures
    it with twins.
    """
    labels, alpha = np.asarray(labels), np.asarray(alpha)
    by_gold = gold is not None and options.get("method") in (None, "gold")
    shared: dict[str, Any] = {"weights": weights, "gold": gold, "observables": observables, "seed": seed}
    # With gold labels, intrinsic columns go into the check and the regression on gold labels.
    options |= shared | ({"gold_probability": gold_probability} if by_gold else {"intrinsic": intrinsic})
    families = None
    with progress(3, "estimating T(α)", "steps") as told:
        if (compare and observables is None) or family == "best":
            own = [] if family in (None, "best") else [family_of(family)]
            asked = [one for one in own if one.family not in COMPARED]
            families = compare_families(labels, alpha, (*asked, *COMPARED), **options)
            family = families.best if family == "best" else family
        if family == "monotone":  # the curvature gives no error where neighbouring knots are level
            options["bootstrap"] = bootstrap or _RESAMPLES
        fit = fit_transition(labels, alpha, family, **options)
        again = with_bootstrap_errors(fit, bootstrap, seed) if bootstrap and family != "monotone" else fit
        scatter = {name: again.stderr[name] for name in fit.values} if bootstrap else {}
        if by_gold and intrinsic is not None:
            columns_given = check_columns(intrinsic, "intrinsic", labels.shape[0])
            check_not_encoded(columns_given, fit.labels, "intrinsic", "the observed label")
        told.update(1)
        experts = (about or {}).get("gold_experts")
        bins = max(1, min(fraction_bins, labels.size // _FEWEST_PER_BIN))
        of_fractions: dict[str, Any] = shared | {
            "gold_probability": gold_probability,
            "gold_uncertain": gold_uncertain,
            "gold_transition": None if experts is None else RayleighTransition(experts["upper"]),
            "covariates": intrinsic if gold is not None else None,
        }
        fractions = debiased_fractions(labels, alpha, fit, by, bins, **of_fractions, name=by_name)
        told.update(1)
        by_alpha = None
        if gold is not None:
            by_alpha = fractions if by is None else debiased_fractions(labels, alpha, fit, None, bins, **of_fractions)
        check = confounding_check(labels, alpha, intrinsic, gold, fit.data.gold_weights, seed, fractions=by_alpha)
        told.update(1)
    if fractions.samples is not None:  # the fraction of all galaxies is that of their bins
        weight = fractions.bin_weights / fractions.bin_weights.sum()
        total = np.einsum("b,sbk->sk", weight, fractions.samples)
        stderr = {**fit.stderr, "disk_fraction": float(total[:, DISK].std())}
        fit = replace(
            fit,
            class_fractions=weight @ fractions.fractions,
            stderr=stderr,
            fraction_samples=total[:, DISK],
            fraction_range=fractions.range_of_total,
        )
    classes = fit.data.gold
    if known is None and classes is not None:
        known = np.where(classes == UNKNOWN, np.nan, classes == DISK)
    gold_fractions = gold_stderr = None
    if known is not None:
        column = alpha if by is None else np.asarray(by)
        gold_fractions, gold_stderr = _gold_fractions(np.asarray(known), fractions, column, gold_probability)
    contradicted = _contradiction(fractions, gold_fractions, gold_stderr)
    rejected = None if families is None or fit.family not in families.fits else families.rejected(fit.family)
    pooled = group_findings(fit.data, *groups) if groups is not None else ()
    unbalanced: list[Finding] = []
    if columns and classes is not None and gold_probability is None:
        unbalanced = balance_findings(columns, fit.data)
    if votes is not None and classes is not None and gold_probability is None:
        unbalanced += vote_findings(np.asarray(votes), fit.data)
    # A drift of class fractions biases estimates from labels; conditional ones, if the columns don't explain it.
    unexplained = check.unexplained if fit.method == "conditional" else check.confounded
    matters = unexplained and fit.method != "gold"
    drift = check.findings if matters else ()
    found = unique(contradicted, findings, again.findings, pooled, unbalanced, fractions.findings, drift)
    if rejected is not None:
        found = (*(one for one in found if one.code != rejected.code), rejected)
    return TransitionStudy(
        fit, families, check, calibration(fit), fractions, gold_fractions, found, gold_stderr, scatter, about or {}
    )


def _contradiction(
    fractions: PopulationFractions, gold: np.ndarray | None, stderr: np.ndarray | None
) -> tuple[Finding, ...]:
    """Return a problem if the gold labels of the bins are outside the ranges by more than their errors."""
    if gold is None or stderr is None:
        return ()
    outside = np.maximum(fractions.low[:, DISK] - gold, gold - fractions.high[:, DISK])
    pulls = np.maximum(outside, 0.0) / stderr
    known = np.isfinite(pulls)
    p_value = float(chi2.sf(np.sum(pulls[known] ** 2), max(1, int(known.sum()))))
    if p_value >= LEVEL:
        return ()
    worst = int(np.nanargmax(pulls))
    message = (
        f"The corrected disk fractions contradict the gold labels in the same bins (p = {p_value:.1g}): at "
        f"{'α' if fractions.by == 'alpha' else fractions.by} = {fractions.middles[worst]:.3g} the range is "
        f"{fractions.low[worst, DISK]:.2f} to {fractions.high[worst, DISK]:.2f}, but {gold[worst]:.2f} ± "
        f"{stderr[worst]:.2f} of the galaxies with a gold label are disks."
    )
    action = "Estimate with the gold labels (`gold`)."
    if fractions.method == "gold":
        action = "Leave out columns that are measured only for galaxies with a gold label (`intrinsic`)."
    return (Finding("gold-contradicted", "problem", message, action),)


def _gold_fractions(
    gold: np.ndarray, fractions: PopulationFractions, column: np.ndarray, probability: Array | None
) -> tuple[np.ndarray, np.ndarray]:
    """Disk fraction by gold labels, weighted by inverse probability, in the bins of corrected ones, and its error."""
    bins = fractions.counts.size
    index = np.clip(np.searchsorted(fractions.edges[1:-1], column, side="right"), 0, bins - 1)
    known = np.isfinite(gold) if probability is None else np.isfinite(gold) & (np.asarray(probability) > 0)
    w = np.ones(known.sum()) if probability is None else 1 / np.asarray(probability, dtype=float)[known]
    cut = Bins(index[known], fractions.edges, fractions.middles, bins, w)
    with np.errstate(invalid="ignore"):  # bins without gold labels
        found = cut.means(gold[known][:, None])[:, 0]
        return found, proportion_error(found, cut.effective_counts())
