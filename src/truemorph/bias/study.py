"""An estimate of T(α) with its checks and the corrected class fractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import chi2

from truemorph.bias.binning import Bins, proportion_error
from truemorph.bias.calibration import Calibration
from truemorph.bias.checks import LEVEL, balance_findings, selection_findings, vote_findings
from truemorph.bias.diagnosis import diagnose
from truemorph.bias.diagnostics import ConfoundingCheck, FamilyComparison, compared, confounding, group_findings
from truemorph.bias.estimation import settings_for, solve, with_bootstrap_errors
from truemorph.bias.fractions import PopulationFractions, fractions_in_bins
from truemorph.bias.plots import plot_fit, plot_fractions
from truemorph.bias.result import TransitionFit
from truemorph.bias.sample import Sample
from truemorph.bias.transitions import COMPARED, DISK, FlipTransition, RayleighTransition, family_of
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


@dataclass(frozen=True)
class Context:
    """What a catalogue knows of the galaxies of a sample, beside what the estimate uses; arrays have shape (N,)."""

    shown: np.ndarray | None = None  # gold labels to show beside the result, NaN where unknown
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # which gold labels should not depend on
    disk_votes: np.ndarray | None = None  # fraction of votes for disk
    survey: tuple[str, np.ndarray] | None = None  # name and values of the column with each galaxy's survey
    # Definitions of α and of the labels; `gold_experts` has the `upper` limit of θ of the experts' own bias curve, as
    # `import_gold` measures it with twins.
    about: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()  # on the selection of these galaxies


def study_transition(
    sample: Sample,
    family: str | type[FlipTransition] | None = None,
    *,
    context: Context | None = None,
    by: np.ndarray | None = None,
    by_name: str = "alpha",
    fraction_bins: int = 8,
    compare: bool = True,
    bootstrap: int = 0,
    seed: int = 0,
    **options: Any,
) -> TransitionStudy:
    """Fit T(α), compare families, check calibration and confounding, and correct class fractions.

    `family` may be "best", that of lowest AIC. Further options are those of `settings_for`.
    """
    context, has_gold = context or Context(), sample.gold is not None
    options["seed"] = seed
    # With gold labels, intrinsic columns go into the check and the regression on gold labels.
    fitted = replace(sample, intrinsic=None) if has_gold and options.get("method") in (None, "gold") else sample
    families = None
    with progress(3, "estimating T(α)", "steps") as steps:
        if (compare and sample.observables is None) or family == "best":
            own = [] if family in (None, "best") else [family_of(family)]
            kinds = [*(one for one in own if one.family not in COMPARED), *map(family_of, COMPARED)]
            families = compared(fitted, kinds, **options)
            family = families.best if family == "best" else family
        fit = solve(fitted, settings_for(fitted, family, **options))
        if fit.family == "monotone":  # the curvature gives no error where neighbouring knots are level
            fit = again = with_bootstrap_errors(fit, bootstrap or _RESAMPLES, seed)
        else:
            again = with_bootstrap_errors(fit, bootstrap, seed) if bootstrap else fit
        diagnosis = diagnose(replace(fit, failed_resamples=again.failed_resamples))
        fit = replace(fit, findings=diagnosis.findings)
        scatter = {name: again.stderr[name] for name in fit.values} if bootstrap else {}
        steps.update(1)
        experts = context.about.get("gold_experts")
        of_bins: dict[str, Any] = {
            "bins": max(1, min(fraction_bins, sample.labels.size // _FEWEST_PER_BIN)),
            "covariates": sample.intrinsic if has_gold else None,
            "gold_transition": None if experts is None else RayleighTransition(experts["upper"]),
            "seed": seed,
        }
        fractions = fractions_in_bins(sample, fit, by=by, name=by_name, **of_bins)
        selected = selection_findings(sample) if has_gold else fit.findings
        fractions = replace(fractions, findings=unique(selected, fractions.findings))
        steps.update(1)
        by_alpha = None
        if has_gold:
            by_alpha = fractions if by is None else fractions_in_bins(sample, fit, **of_bins)
        check = confounding(sample, by_alpha, seed)
        steps.update(1)
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
    shown = context.shown
    if shown is None and has_gold:
        shown = np.where(sample.known, sample.gold == DISK, np.nan)
    gold_fractions = gold_stderr = None
    if shown is not None:
        column = sample.alpha if by is None else by
        gold_fractions, gold_stderr = _gold_fractions(shown, fractions, column, sample.probability)
    contradicted = _contradiction(fractions, gold_fractions, gold_stderr)
    rejected = None if families is None or fit.family not in families.fits else families.rejected(fit.family)
    pooled = () if context.survey is None else group_findings(sample, *context.survey)
    unbalanced: list[Finding] = []
    if has_gold and sample.probability is None:
        unbalanced = balance_findings(context.columns, sample)
        if context.disk_votes is not None:
            unbalanced += vote_findings(context.disk_votes, sample)
    # A drift of class fractions biases estimates from labels; conditional ones, if the columns don't explain it.
    unexplained = check.unexplained if fit.method == "conditional" else check.confounded
    matters = unexplained and fit.method != "gold"
    drift = check.findings if matters else ()
    found = unique(contradicted, context.findings, fit.findings, pooled, unbalanced, fractions.findings, drift)
    if rejected is not None:
        found = (*(one for one in found if one.code != rejected.code), rejected)
    return TransitionStudy(
        fit,
        families,
        check,
        diagnosis.calibration,
        fractions,
        gold_fractions,
        found,
        gold_stderr,
        scatter,
        context.about,
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
    gold: np.ndarray, fractions: PopulationFractions, column: np.ndarray, probability: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Disk fraction by gold labels, weighted by inverse probability, in the bins of corrected ones, and its error."""
    bins = fractions.counts.size
    index = np.clip(np.searchsorted(fractions.edges[1:-1], column, side="right"), 0, bins - 1)
    known = np.isfinite(gold) if probability is None else np.isfinite(gold) & (probability > 0)
    w = np.ones(known.sum()) if probability is None else 1 / probability[known]
    cut = Bins(index[known], fractions.edges, fractions.middles, bins, w)
    with np.errstate(invalid="ignore"):  # bins without gold labels
        found = cut.means(gold[known][:, None])[:, 0]
        return found, proportion_error(found, cut.effective_counts())
