"""An estimate of T(α) with its checks and the corrected class fractions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import chdtrc

from truemorph.bias.binning import Bins, default_bins
from truemorph.bias.checks.calibration import Calibration, calibration
from truemorph.bias.checks.diagnosis import diagnose
from truemorph.bias.checks.diagnostics import (
    ConfoundingCheck,
    FamilyComparison,
    compared,
    confounding,
    group_findings,
    ignored_findings,
)
from truemorph.bias.checks.selection import LEVEL, balance_findings, depends_on_votes
from truemorph.bias.curves.families import COMPARED, family_of
from truemorph.bias.curves.logistic import LogisticTransition
from truemorph.bias.curves.misses import misses_of_experts
from truemorph.bias.curves.transitions import DISK, SMOOTH, UNKNOWN, Transition
from truemorph.bias.files import read_arrays, read_fit, write_fit
from truemorph.bias.fitting import settings_for, solve, with_bootstrap_errors
from truemorph.bias.fractions import fractions_in_bins
from truemorph.bias.plots import plot_fit, plot_fractions
from truemorph.bias.population import PopulationFractions, QuotedFraction
from truemorph.bias.result import FittedCurve, Settings, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.errors import InputError, reason
from truemorph.findings import Finding, Findings, findings_in, unique
from truemorph.io import PathLike, plain
from truemorph.progress import progress
from truemorph.questions import Asked, fraction_names
from truemorph.results import Result, text_facts

# What else an estimate says: definitions of α and of labels, and the rows that it rests on.
ABOUT = (
    *("classes", "definition", "alpha", "alpha_psf", "where", "observables", "intrinsic", "gold_experts"),
    *("rows_sha256", "question", "tree", "gold_rule", "other_labels", "weights"),
)
_RESAMPLES = 30
# Gold labels that are only shown settle that class fractions do not depend on α if so many are of each class, and if
# the change of the fraction and twice its error are together smaller than this.
_FEWEST_OF_A_CLASS, _LARGEST_CHANGE = 20, 0.1


class Estimate(Result):
    """T(α), its checks, and the corrected class fractions: what `estimate_transition` returns and writes.

    Attributes
    ----------
    fit : TransitionFit or FittedCurve
        The latter if the estimate was read from a file.
    families : FamilyComparison or None
    check : ConfoundingCheck or None
        Whether class fractions depend on α; None in files of version 0.2, for a question.
    calibration : Calibration
    fractions : PopulationFractions
        Class fractions in bins of α, or of another column; of a question with its quantities.
    gold_fractions, gold_stderr : array, shape (B,), or None
        Disk fraction of the galaxies with gold labels in the same bins, and its binomial error.
    bootstrap_std : dict of str to float
        Scatter of each parameter over bootstrap resamples, if requested.
    about : dict
        Definitions of α, of the labels and of gold labels; stored in files.
    galaxies : dict of str to array, or None
        With gold labels: `object_id`, `alpha`, shape (N,), and `probabilities`, shape (N, K), of classes by the
        regression (see `PopulationFractions`). Files have them too, for `label_galaxies`.
    findings : tuple of Finding

    Examples
    --------
    >>> import tempfile
    >>> from truemorph import estimate_transition, simulate_catalogue
    >>> estimate = estimate_transition(simulate_catalogue(2000), compare=False)
    >>> path = f"{tempfile.mkdtemp()}/fit.json"
    >>> estimate.write(path)
    >>> Estimate.read(path).fraction_range["disk"] == estimate.fraction_range["disk"]
    True
    """

    fit: TransitionFit | FittedCurve
    families: FamilyComparison | None
    check: ConfoundingCheck | None
    calibration: Calibration
    fractions: PopulationFractions
    gold_fractions: np.ndarray | None
    findings: Findings
    gold_stderr: np.ndarray | None = None
    bootstrap_std: dict[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    galaxies: Mapping[str, np.ndarray] | None = None

    @property
    def transition(self) -> Transition:
        """T(α) of the fit."""
        return self.fit.transition

    @property
    def fraction_range(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest fraction of each class, by its name."""
        return self.fit.fraction_range

    def __getitem__(self, name: str) -> QuotedFraction:
        """Return a fraction that is quoted, such as "bar fraction"."""
        return self.fractions[name]

    def summary(self) -> str:
        """Return class fractions, parameters, families and fractions by bin; of a question fractions and T(α)."""
        if self.fractions.quantities:
            said = [("T(α)", self.curve.statement), ("calibration", f"p = {self.calibration.p_value:.2g}")]
            return "\n".join([self.fractions.summary(), *text_facts([*said, *self._checked()])])
        facts = self.curve.facts()
        if self.bootstrap_std:
            facts.append(
                ("bootstrap", ", ".join(f"{name} ± {value:.3f}" for name, value in self.bootstrap_std.items()))
            )
        facts += self._checked()
        if self.about.get("alpha"):
            facts.append(("α", self.about["alpha"]))
        if self.about.get("definition"):
            counted = self.curve.classes[DISK]
            facts.append((counted, self.about["definition"].removeprefix(f"{counted}: ")))
        families = [] if self.families is None else ["", self.families.summary()]
        return "\n".join([*text_facts(facts), *families, "", *self.fractions.lines(self.gold_fractions)])

    def _checked(self) -> list[tuple[str, str]]:
        return [] if self.check is None or not self.check.findings else [("check", self.check.statement)]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values: what `estimate_transition` writes, and training and labelling read."""
        described = self.fit.to_dict() | dict(self.about)
        described |= {
            "findings": self.findings,
            "confounding": self.check,
            **({} if self.families is None else self.families.to_dict()),
            "calibration": self.calibration,
            "fractions": self.fractions.to_dict()
            | {
                "gold": self.gold_fractions,
                "gold_stderr": self.gold_stderr,
                "gold_definition": described.pop("gold_definition", None),
            },
        }
        if self.bootstrap_std:
            described["bootstrap_std"] = self.bootstrap_std
        return plain(described)

    @classmethod
    def from_dict(cls, described: Mapping[str, Any], samples: np.ndarray | None = None) -> Estimate:
        """Rebuild an estimate from what `to_dict` returns; `samples` are draws of its fractions, stored apart."""
        fractions = described["fractions"]
        about = {name: described[name] for name in ABOUT if name in described}
        if fractions["gold_definition"] is not None:
            about["gold_definition"] = fractions["gold_definition"]
        gold, stderr = (fractions[name] and np.array(fractions[name], float) for name in ("gold", "gold_stderr"))
        return cls(
            FittedCurve.from_dict(described),
            FamilyComparison.from_dict(described) if "families" in described else None,
            None if described["confounding"] is None else ConfoundingCheck.from_dict(described["confounding"]),
            Calibration.from_dict(described["calibration"]),
            PopulationFractions.from_dict(fractions, samples),
            gold,
            findings_in(described),
            stderr,
            described.get("bootstrap_std", {}),
            about,
        )

    @classmethod
    def read(cls, path: PathLike) -> Estimate:
        """Read an estimate that `write` wrote, with its draws; a fit of T(α) alone is an InputError."""
        described = read_fit(path)
        arrays = read_arrays(described, path)
        samples = arrays.pop("fractions", None)
        try:
            return replace(cls.from_dict(described, samples), galaxies=arrays or None)
        except (LookupError, TypeError, ValueError, AttributeError) as problem:
            raise InputError(
                f"{path}: holds T(α), but not a whole estimate of this version ({reason(problem)}); make it again with "
                "`truemorph transition`"
            ) from problem

    def write(self, out: PathLike) -> None:
        """Write the estimate as JSON, with draws of its fractions (.npz) and its figure (.png) beside it.

        Of a name that ends in .csv, .ecsv or .fits, also the table of the fractions; in .tex, what is printed of it.
        """
        arrays = {} if self.fractions.samples is None else {"fractions": self.fractions.samples}
        table = [*self.fractions.printed(self.gold_fractions)] if str(out).endswith(".tex") else self.to_table()
        write_fit(self.to_dict(), self.figure(), out, arrays | dict(self.galaxies or {}), table)

    @property
    def curve(self) -> FittedCurve:
        """What the fit says, without its galaxies."""
        return self.fit if isinstance(self.fit, FittedCurve) else self.fit.curve

    def to_table(self) -> Any:
        """Return the table of `fractions`, with the fraction of the galaxies with gold labels."""
        table = self.fractions.to_table()
        if self.gold_fractions is not None:
            table["gold"] = self.gold_fractions
            table["gold"].info.description = f"{self.curve.classes[DISK]} fraction of the galaxies with gold labels"
        return table

    def draw(self, ax: Any) -> None:
        """Draw the observed and corrected fractions."""
        gold = {} if self.gold_fractions is None else {"gold labels": self.gold_fractions}
        plot_fractions(self.fractions, ax, gold, self.gold_stderr)

    def figure(self) -> Any:
        """Return a matplotlib figure of the bias curve, class fractions and calibration."""
        from matplotlib.figure import Figure

        if isinstance(self.fit, FittedCurve):
            raise InputError("this estimate was read from a file, without its galaxies; its figure lies beside it")
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        curve, fraction, calibrated = figure.subplots(1, 3)
        plot_fit(self.fit, curve, None if self.families is None else self.families.fits)
        curve.set_title("Bias curve")
        self.plot(fraction).set_title(next(iter(self.fractions.ratios)).capitalize())
        self.calibration.plot(calibrated).set_title("Calibration of the fit")
        return figure


@dataclass(frozen=True)
class Context:
    """What a catalogue knows of the galaxies of a sample, beside what the estimate uses; arrays have shape (N,)."""

    shown: np.ndarray | None = None  # gold labels to show beside the result, NaN where unknown
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # which gold labels should not depend on
    votes: np.ndarray | None = None  # fraction of votes for the second class
    seen: Mapping[str, np.ndarray] = field(default_factory=dict)  # of the images, such as depth; T leaves them out
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)  # names of each galaxy's survey, or other group
    # Definitions of α and of the labels; `gold_experts`: how the experts miss each class, as `import_gold` measures it.
    about: Mapping[str, Any] = field(default_factory=dict)
    findings: Findings = ()  # on the selection of these galaxies
    by: np.ndarray | None = None  # columns to bin by, (N,) or (N, 2), or `Groups`; default α
    by_name: str = "alpha"
    alpha_error: float = 0.0  # relative error of α
    ids: np.ndarray | None = None  # of the galaxies
    # Of a question that is asked after others; the sample has the answers whose fractions are counted.
    asked: Asked | None = None
    of_paths: Sample | None = None  # with votes and gold labels of the paths that gold labels tell apart, for T(α)


def make_estimate(
    sample: Sample,
    settings: Settings | None = None,
    *,
    context: Context | None = None,
    fraction_bins: int | Sequence[float] | None = None,
    compare: bool = True,
    bootstrap: int = 0,
) -> Estimate:
    """Fit T(α), compare families, check calibration and confounding, and correct class fractions.

    The family may be "best", that of lowest AIC. The error of α is that of the context. `fraction_bins` is the largest
    number of bins, of each of two columns, or their edges.
    """
    context, has_gold = context or Context(), sample.has_gold
    settings = replace(settings or Settings(), alpha_error=context.alpha_error)
    seed = settings.seed
    most, of_alpha, fewer = _bins_of(fraction_bins, sample.labels.size, 1 if context.by is None else context.by.ndim)
    with progress(3, "estimating T(α)", "steps") as steps:
        # With gold labels, intrinsic columns go into the check and the regression on gold labels.
        of_t = replace(sample, intrinsic=sample.intrinsic[:, :0]) if has_gold else sample
        fit, families, scatter = _fitted(context.of_paths or of_t, settings, compare, bootstrap)
        check = None if has_gold else _check_with_shown(sample, context.shown, seed)
        fit, calibrated = _with_findings(fit, families, check, sample, context)
        steps.update(1)
        fractions = _in_bins(sample, fit, context, most, seed)
        steps.update(1)
        if check is None:
            by_alpha = fractions
            if has_gold and context.by is not None:
                by_alpha = _in_bins(sample, fit, replace(context, by=None), of_alpha, seed)
            check = confounding(sample, by_alpha, seed)
        steps.update(1)
    gold_fractions, gold_stderr = _gold_fractions(sample, fractions, context)
    # A drift of class fractions biases estimates from labels; conditional ones, if the columns don't explain it.
    biased = check.unexplained if fit.method == "conditional" else check.confounded
    return Estimate(
        _with_total(fit, fractions, context.asked),
        families,
        check,
        calibrated,
        fractions,
        gold_fractions,
        unique(
            () if has_gold else _contradiction(fractions, gold_fractions, gold_stderr),
            context.findings,
            fit.findings,
            ignored_findings(fit, context.seen),
            *(group_findings(sample, *named_groups) for named_groups in context.groups.items()),
            _unbalanced(sample, context),
            fewer,
            fractions.findings,
            check.findings if biased and fit.method != "gold" else (),
        ),
        gold_stderr,
        scatter,
        context.about,
        _galaxies(sample, fractions, context),
    )


def _bins_of(bins: int | Sequence[float] | None, n: int, columns: int) -> tuple[int | np.ndarray, int, list[Finding]]:
    """Return the number of bins of so many galaxies, or their edges; the number of bins in α; and what was not done."""
    if bins is None:
        return default_bins(n), default_bins(n), []
    if not isinstance(bins, int):
        return np.asarray(bins, float), default_bins(n, len(bins) - 1), []
    n_bins = bins**columns
    most = default_bins(n, n_bins)
    message = f"{n_bins:,} bins of 50 galaxies or more were asked for; {n:,} galaxies are enough for {most:,}."
    fewer = Finding("bins-fewer", "note", message, "Give edges (`fraction_bins`), or use more galaxies.")
    return most, default_bins(n, bins), [fewer] if most < n_bins else []


def _galaxies(sample: Sample, fractions: PopulationFractions, context: Context) -> dict[str, np.ndarray] | None:
    """Return ids, α and class probabilities of each galaxy, with gold labels."""
    if fractions.probabilities is None or context.ids is None:
        return None
    p = fractions.probabilities.astype(np.float32)
    return {"object_id": context.ids, "alpha": sample.alpha, "probabilities": p}


def _with_findings(
    fit: TransitionFit,
    families: FamilyComparison | None,
    check: ConfoundingCheck | None,
    sample: Sample,
    context: Context,
) -> tuple[TransitionFit, Calibration]:
    """Return a fit with findings on what limits it, and its calibration."""
    if context.asked is not None:  # fractions of answers do not rest on T(α)
        calibrated = calibration(fit)
        findings = tuple(replace(finding, severity="note") for finding in calibrated.findings)
    else:
        rejected = None if families is None or fit.family not in families.fits else families.rejected(fit.family)
        tested = ""
        if check and not check.findings and abs(check.drift) + 2 * check.drift_stderr < _LARGEST_CHANGE:
            tested = check.statement
        findings, calibrated = diagnose(fit, rejected, tested, sample)
    return replace(fit, findings=findings), calibrated


def _in_bins(
    sample: Sample, fit: TransitionFit, context: Context, bins: int | np.ndarray, seed: int
) -> PopulationFractions:
    """Return class fractions in at most so many bins of the columns that the context names, by default of α.

    Or between edges.
    """
    asked, experts = context.asked, context.about.get("gold_experts", {})
    names = sample.classes if asked is None else asked.answers_by_gold
    numbers = range(sample.n_classes) if asked is None else asked.answers_of_paths
    return fractions_in_bins(
        sample,
        fit,
        by=context.by,
        name=context.by_name,
        bins=bins,
        gold_transitions=[
            misses_of_experts(experts, names, numbers, name) for name, missed in experts.items() if "upper" in missed
        ],
        seed=seed,
        quantities=() if asked is None else asked.quantities,
    )


def _fitted(
    sample: Sample, settings: Settings, compare: bool, bootstrap: int
) -> tuple[TransitionFit, FamilyComparison | None, dict[str, float]]:
    """Fit T(α), and the other families; also return the scatter of each parameter over bootstrap resamples, if any."""
    families, family = None, settings.family
    if (compare and sample.n_classes == 2 and sample.asked is None) or family == "best":
        own = [] if family in (None, "best") else [family_of(family)]
        if sample.observable_names:
            own.append(LogisticTransition)
        families = compared(sample, [*own, *map(family_of, COMPARED)], settings)
        family = families.best if family == "best" else family
    fit = solve(sample, settings_for(sample, replace(settings, family=family)))
    if fit.family != "monotone" and not bootstrap:
        return fit, families, {}
    again = with_bootstrap_errors(fit, bootstrap or _RESAMPLES, settings.seed)
    scatter = {name: again.stderr[name] for name in fit.values} if bootstrap else {}
    if fit.family == "monotone":  # the curvature gives no error where neighbouring knots are level
        return again, families, scatter
    return replace(fit, failed_resamples=again.failed_resamples), families, scatter


def _with_total(fit: TransitionFit, fractions: PopulationFractions, asked: Asked | None) -> TransitionFit:
    """Return a fit whose class fractions, with gold labels, are those of all bins together.

    T may tell apart more classes than the fractions of a question's answers: these then sum to the fractions.
    """
    if fractions.samples is None:
        return fit
    share = fractions.bin_weights / fractions.bin_weights.sum()
    middle, samples = share @ fractions.fractions, np.einsum("b,sbk->sk", share, fractions.samples)
    assert fractions.of_total is not None
    of_total = fractions.of_total
    if asked is not None:
        assert fit.fraction_samples is not None
        of, drawn = np.array(asked.answers_of_classes), _spread(samples)

        def divided(total: np.ndarray, parts: np.ndarray) -> np.ndarray:
            shares = total[..., of] * parts / np.maximum(parts @ (of[:, None] == of), 1e-12)
            return shares / shares.sum(axis=-1, keepdims=True)

        middle, samples = divided(middle, fit.class_fractions), divided(samples, fit.fraction_samples)
        # As much larger as those of the answers are than their draws say, for what people miss or cannot tell.
        of_total = np.minimum(_spread(samples) * of_total[..., of] / np.maximum(drawn[:, of], 1e-12), 1.0)
    stderr = {name: float(of_total[0, 0, k]) for name, k in fraction_names(fit.sample.classes).items()}
    return replace(fit, class_fractions=middle, stderr=fit.stderr | stderr, fraction_samples=samples, of_total=of_total)


def _spread(draws: np.ndarray) -> np.ndarray:
    """Return standard deviation and 95 % range of draws of fractions, (S, K), shape (3, K)."""
    return np.array([draws.std(axis=0), *np.quantile(draws, [0.025, 0.975], axis=0)])


def _unbalanced(sample: Sample, context: Context) -> list[Finding]:
    """Return findings where gold labels depend on properties of the galaxies or on votes."""
    if not sample.has_gold or sample.probability is not None:
        return []
    findings = balance_findings(context.columns, sample)
    return findings if context.votes is None else findings + depends_on_votes(context.votes, sample)


def _check_with_shown(sample: Sample, shown: np.ndarray | None, seed: int) -> ConfoundingCheck | None:
    """Check with gold labels that the estimate does not use whether class fractions depend on α; None if too few."""
    if shown is None:
        return None
    gold = np.nan_to_num(shown, nan=UNKNOWN).astype(int)
    if min(np.count_nonzero(gold == k) for k in (SMOOTH, DISK)) < _FEWEST_OF_A_CLASS:
        return None
    return confounding(replace(sample.without_observables(), gold=gold), None, seed)


def _contradiction(
    fractions: PopulationFractions, gold: np.ndarray | None, stderr: np.ndarray | None
) -> Iterator[Finding]:
    """Return a problem if the gold labels of the bins are outside the ranges by more than their errors."""
    if gold is None or stderr is None:
        return
    outside = np.maximum(fractions.low[:, DISK] - gold, gold - fractions.high[:, DISK])
    pulls = np.maximum(outside, 0.0) / stderr
    finite = np.isfinite(pulls)
    p_value = float(chdtrc(max(1, int(finite.sum())), np.sum(pulls[finite] ** 2)))
    if p_value >= LEVEL:
        return
    worst, counted = int(np.nanargmax(pulls)), fractions.classes[DISK]
    message = (
        f"The corrected {counted} fractions contradict the gold labels in the same bins (p = {p_value:.1g}): at "
        f"{'α' if fractions.by == 'alpha' else fractions.by} = {fractions.bin_name(worst)} the range is "
        f"{fractions.low[worst, DISK]:.2f} to {fractions.high[worst, DISK]:.2f}, but {gold[worst]:.2f} ± "
        f"{stderr[worst]:.2f} of the galaxies with a gold label are {counted}."
    )
    action = "Estimate with the gold labels (`gold`)."
    yield Finding("gold-contradicted", "problem", message, action)


def _gold_fractions(
    sample: Sample, fractions: PopulationFractions, context: Context
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Fraction by gold labels, weighted by inverse probability, in the bins of corrected ones, and its error.

    Of two classes, and of gold labels that are only shown, too; otherwise None.
    """
    gold, probability = context.shown, sample.probability
    if gold is None and sample.has_gold and sample.n_classes == 2 and context.asked is None:
        gold = np.where(sample.known, sample.gold == DISK, np.nan)
    if gold is None:
        return None, None
    weights = None if probability is None else 1 / np.where(probability > 0, probability, 1.0)
    column = sample.alpha if context.by is None else context.by
    return Bins.at(column, fractions.edges, weights).averages(gold)[:2]
