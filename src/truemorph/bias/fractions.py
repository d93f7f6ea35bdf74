"""Class fractions of populations, corrected for labelling bias.

The estimand is the class fraction of these galaxies, a finite population: with gold labels (`bias.regression.gold`),
the error goes to zero as they approach all galaxies. Without them T is inverted (`bias.inversion`), and the error
includes the sampling of galaxies.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from truemorph.arrays import float_array
from truemorph.bias.binning import Bins, Groups, default_bins, proportion_error
from truemorph.bias.checks.selection import equal_labels, selection_findings
from truemorph.bias.curves.formulas import RayleighTransition
from truemorph.bias.curves.transitions import DISK, UNKNOWN, Array, Transition
from truemorph.bias.files import load_transition
from truemorph.bias.fitting import solve
from truemorph.bias.inversion import alternatives, inverted
from truemorph.bias.likelihood import check_columns
from truemorph.bias.population import PopulationFractions
from truemorph.bias.regression.gold import GoldRegression, propensity_columns, quadratic, regression_terms
from truemorph.bias.regression.nested import NestedRegression
from truemorph.bias.result import NORMAL_95, FittedCurve, Settings, TransitionFit
from truemorph.bias.sample import Sample, check_not_encoded
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.questions import Quantity, class_names

# Fewest galaxies of an answer in a bin, by the estimate.
_FEWEST_OF_AN_ANSWER = 5
# If gold labels are right more often than this in all bins, what people miss is not worth a finding.
_LEAST_RIGHT = 0.995
# Equal-count slices of α in which T(α) of gold labels is nearly constant.
_SLICES = 16
# Two T(α) are inconsistent if the α at which half of the galaxies are missed differs by this factor.
_UNLIKE = 1.6


def unlike_labels(transition: Transition, sample: Sample) -> Iterator[Finding]:
    """Warn if a given T is inconsistent with one fitted to these labels (another unit or survey)."""
    if transition.n_classes != 2 or sample.observable_names or not transition.varies or transition.n_observables:
        return
    alpha = sample.alpha
    try:
        alone = Sample.of(sample.labels, alpha, classes=sample.classes)
        own = solve(alone, Settings("likelihood", RayleighTransition, delta=None)).transition
    except InputError:
        return
    grid = np.geomspace(max(alpha[alpha > 0].min() / 10, 1e-6), 10 * alpha.max(), 2000)

    def half(curve: Transition) -> float:
        """Return the α at which half of the disks are mislabelled; infinity if it is more at every α."""
        fewer = curve.flip_probability(grid) < 0.5
        return float(np.append(grid, np.inf)[np.argmax(np.append(fewer, True))])

    half_given, half_own = half(transition), half(own)
    if 1 / _UNLIKE < half_given / half_own < _UNLIKE:
        return
    of = f"galaxies of class {sample.classes[DISK]}"
    by_given = f"half of the {of} are mislabelled at α = {half_given:.3g}"
    if np.isinf(half_given):
        by_given = f"most {of} are mislabelled at every α"
    message = (
        f"By the given T(α), {by_given}; by one fitted to these labels, half of them at α = {half_own:.3g}. σ and "
        "FWHM of the PSF differ by 2.35."
    )
    action = "Check that α has the same unit as in the fit of T(α), or fit T(α) to these labels."
    yield Finding("transition-unlike-labels", "caution", message, action)


def _fit_findings(fit: TransitionFit) -> Iterator[Finding]:
    """Return what limits fractions from this fit, in addition to its own findings."""
    if np.isnan(np.diag(fit.covariance)).any():
        message = f"Some parameters of the {fit.family} fit have no error, so those of the fractions are too small."
        yield Finding("fit-without-errors", "caution", message, "Use bootstrap errors (`bootstrap`).")
    if fit.method == "conditional":
        message = (
            f"Labels and intrinsic columns do not determine the definition of {fit.sample.classes[DISK]}. Under a "
            "narrower one, the true fraction may be outside the range, towards the labels."
        )
        action = "Give gold labels (`gold`), whose definition the fractions then follow."
        yield Finding("definition-unknown", "caution", message, action)


def _through(
    sample: Sample, bins: Bins, transition: Transition, fit: TransitionFit | None, systematic: bool
) -> dict[str, Any]:
    """Return the fractions through T, with the range over alternatives if T was fitted."""
    fractions, stderr, covariance = inverted(sample, bins, transition, fit)
    if fit is None:
        others, assumption = {}, "T(alpha) is correct"
        findings = unlike_labels(transition, sample)
    else:
        others = alternatives(sample, bins, fit) if systematic else {}
        assumption, findings = fit.assumption, _fit_findings(fit)
    everything, error = np.array([fractions, *others.values()]), NORMAL_95 * stderr
    low, high = np.clip([everything.min(axis=0) - error, everything.max(axis=0) + error], 0, 1)
    return {
        "fractions": fractions,
        "stderr": stderr,
        "covariance": covariance,
        "low": low,
        "high": high,
        # The error includes the sampling of galaxies; it is not less by much for these galaxies alone.
        "population": np.stack([stderr, low, high]),
        "method": "inversion of T",
        "assumption": assumption,
        "alternatives": others,
        "findings": [*findings],
    }


@dataclass(frozen=True)
class _Regression:
    """Regression of gold labels in bins, from which fractions follow.

    `terms`, shape (N, R), are those of labels, α and what else predicts the true class. Gold labels may have T(α) of
    their own, of which several are possible.
    """

    sample: Sample
    bins: Bins
    terms: np.ndarray
    seed: int
    quantities: Sequence[Quantity]
    gold_transitions: Sequence[Transition]

    @cached_property
    def own(self) -> GoldRegression | NestedRegression:
        """The regression of the sample's gold labels."""
        return self.fit(self.sample.gold)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """p(gold label) of each galaxy, shape (N, K)."""
        return self.own.probabilities(self.sample.gold)

    @cached_property
    def missed(self) -> list[np.ndarray]:
        """Mean p(gold label | y) of the galaxies of each class y in each bin, (B, K, K), by each T(α) of gold labels.

        Classes are those that gold labels and T(α) give in narrow slices of α, because they, too, depend on α.
        """
        if not self.gold_transitions:
            return []
        k, slices = self.sample.n_classes, Bins.cut(self.sample.alpha, _SLICES).index
        occupied, index = np.unique(self.bins.index * _SLICES + slices, return_inverse=True)
        cells = replace(self.bins, index=index, edges=np.arange(occupied.size + 1))
        labelled, inside, means = cells.means(self.probabilities), np.eye(self.bins.count)[:, occupied // _SLICES], []
        for transition in self.gold_transitions:
            matrix = cells.means(transition.matrix(self.sample.alpha).reshape(-1, k * k)).reshape(-1, k, k)
            galaxies = (_without_misses(labelled, matrix) + 1e-9) * cells.totals[:, None]
            means.append(np.einsum("bc,cy,cyj->byj", inside, galaxies, matrix) / (inside @ galaxies)[:, :, None])
        return means

    def with_all(self, values: np.ndarray) -> np.ndarray:
        """Add all bins together as a last row, and quantities after the classes, (…, B, K) → (…, B + 1, K + Q)."""
        weight = self.bins.totals / self.bins.totals.sum()
        both = np.concatenate([values, np.einsum("b,...bk->...k", weight, values)[..., None, :]], axis=-2)
        return np.concatenate([both, *(quantity.of(both)[..., None] for quantity in self.quantities)], axis=-1)

    def fit(self, gold: np.ndarray) -> GoldRegression | NestedRegression:
        """Fit it to gold labels, shape (N,)."""
        nested = any(quantity.denominator is not None for quantity in self.quantities)
        regression = NestedRegression if nested else GoldRegression
        return regression.fit(self.terms, gold, self.bins, self.sample.n_classes, fields=self.sample.fields)

    def fractions(self, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return fractions, draws, and standard error, lowest and highest value, shape (3, B + 1, K + Q)."""
        sample, bins = self.sample, self.bins
        regression = self.own if gold is sample.gold else self.fit(gold)
        fractions, samples = regression.fractions(gold, self.seed)
        if equal_labels(sample):  # these gold labels say nothing on how far the classes are from the labels
            counts = np.bincount(bins.index, gold != UNKNOWN)[:, None]
            scatter = np.random.default_rng(self.seed).normal(size=samples.shape)
            samples = np.clip(samples + scatter * proportion_error(fractions, counts), 1e-9, None)
            samples /= samples.sum(axis=2, keepdims=True)
        middle, draws = self.with_all(fractions), self.with_all(samples)
        low, high = _range(middle, draws)
        for missed in self.missed:
            implied = [self.with_all(_without_misses(values, missed)) for values in (fractions, samples)]
            lowest, highest = _range(*implied)
            low, high = np.fmin(low, lowest), np.fmax(high, highest)
        return fractions, samples, np.array([np.nanstd(draws, axis=0), low, high])

    def widen_by_uncertain(self, low: np.ndarray, high: np.ndarray) -> list[Finding]:
        """Extend ranges, in place, to the results with all uncertain gold labels in any one class."""
        uncertain = self.sample.uncertain
        if uncertain is None or not uncertain.any():
            return []
        for k in range(self.sample.n_classes):
            # A galaxy to which a question applies has one of the answers.
            rows = uncertain > (1 if self.quantities and k == 0 else 0)
            if rows.any():
                _, least, most = self.fractions(np.where(rows, k, self.sample.gold))[2]
                low[:], high[:] = np.minimum(low, least), np.maximum(high, most)
        message = (
            f"People could not tell the class of {np.count_nonzero(uncertain):,} galaxies, or did not agree on it. "
            "All ranges contain the results with all of them in any one class."
        )
        return [Finding("gold-uncertain", "caution", message, "Find better images of them.")]

    def misses(self) -> list[Finding]:
        """Return a finding if gold labels miss classes by T(α) of their own."""
        right = np.array([np.einsum("bkk->bk", missed).min(axis=0) for missed in self.missed])
        if right.min(initial=1.0) > _LEAST_RIGHT:
            return []
        part = 1 - right.min(axis=0)
        message = (
            "Degraded copies of well-resolved galaxies show that the gold labels themselves miss up to "
            f"{part.max():.0%} of class {self.sample.classes[part.argmax()]} in a bin. The range reaches that far, if "
            "poorly resolved galaxies are like those that were copied."
        )
        return [Finding("gold-misses", "caution", message, "Label better images of the same galaxies.")]


def _range(middle: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the 95 % range of draws, (D, …), with what they scatter about, (…), inside: shape (2, …)."""
    low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
    return np.array([np.fmin(low, middle), np.fmax(high, middle)])


def _without_misses(fractions: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Return true class fractions, (…, B, K), of which gold labels, with p(gold | y) of (B, K, K), give these."""
    true = np.clip(np.einsum("...bk,bkj->...bj", fractions, np.linalg.pinv(missed)), 0, None)
    return true / true.sum(axis=-1, keepdims=True)


def _from_gold(regression: _Regression) -> dict[str, Any]:
    """Return the fractions from gold labels."""
    sample, bins, quantities = regression.sample, regression.bins, regression.quantities
    fractions, samples, errors = regression.fractions(sample.gold)
    _, low, high = errors  # views
    missed = regression.misses()
    findings = regression.widen_by_uncertain(low, high) + missed
    selection = "known for a random part of the rows"
    if sample.probability is not None:
        selection = "their probabilities of selection are known"
    counts = np.append(bins.effective_counts(), bins.totals.sum() ** 2 / bins.sums(bins.weights).sum())
    classes = [Quantity(name, tuple(row)) for name, row in zip(sample.classes, np.eye(sample.n_classes), strict=True)]
    of_population = _of_population(errors, regression.with_all(fractions), counts, [*classes, *quantities])
    of_classes, of_quantities = np.split(np.array([errors, of_population]), [sample.n_classes], axis=3)
    (stderr, lowest, highest), population = of_classes[:, :, :-1]
    return {
        "fractions": fractions,
        "stderr": stderr,
        "covariance": np.cov(samples[:, :, DISK], rowvar=False).reshape(bins.count, -1),
        "low": lowest,
        "high": highest,
        "population": population,
        "of_total": of_classes[:, :, -1],
        "of_quantities": of_quantities if quantities else None,
        "quantities": tuple(quantities),
        "gold_counts": np.bincount(bins.index, sample.gold > (0 if quantities else UNKNOWN), bins.count).astype(int),
        "samples": samples,
        "probabilities": regression.probabilities,
        "alternatives": {},
        "method": "gold",
        "assumption": f"gold labels {'miss what copies show' if missed else 'are correct'}, and {selection}",
        "findings": findings,
    }


def _of_population(
    errors: np.ndarray, values: np.ndarray, counts: np.ndarray, quantities: Sequence[Quantity]
) -> np.ndarray:
    """Return the errors of these galaxies, (3, B + 1, C), with the scatter of a random sample of so many galaxies.

    The first of the `values`, (B + 1, C), are class fractions. Half a galaxy of each class is added to them (Jeffreys'
    prior), so that a class without galaxies may be rare in the population.
    """
    n_classes, n = len(quantities[0].numerator), counts[:, None]
    smoothed = (n * values[:, :n_classes] + 0.5) / (n + 0.5 * n_classes)
    scatter = np.stack([quantity.scatter(smoothed) for quantity in quantities], axis=1) / np.sqrt(n)
    stderr, low, high = errors
    largest = [max(quantity.numerator) for quantity in quantities]
    return np.array(
        [
            np.hypot(stderr, scatter),
            np.maximum(values - np.hypot(values - low, NORMAL_95 * scatter), 0),
            np.minimum(values + np.hypot(high - values, NORMAL_95 * scatter), largest),
        ]
    )


def check_paths(paths: Array, n: int) -> np.ndarray:
    """Return labels of paths as an (n,) int array; not all numbers need to occur."""
    values = np.asarray(paths)
    if values.shape != (n,) or not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
        raise InputError(f"paths must be integers from 0, one per galaxy ({n}); got {values.dtype}, {values.shape}")
    return values.astype(int)


def _too_few(results: Mapping[str, Any], bins: Bins) -> np.ndarray:
    """Return the bins in which a question may apply to no galaxy (95 %), or with few of one of two answers.

    Of more answers, rare ones would leave no bins.
    """
    lowest, counts = np.full(bins.count, np.inf), bins.effective_counts()
    ratios = [quantity for quantity in results["quantities"] if quantity.denominator is not None]
    for quantity in ratios:
        numerator, denominator = np.array(quantity.numerator), np.array(quantity.denominator)
        lowest = np.minimum(lowest, np.quantile(results["samples"] @ denominator, 0.025, axis=0) * counts)
        for answer in (numerator, denominator - numerator) if len(ratios) == 1 else ():
            lowest = np.minimum(lowest, results["fractions"] @ answer * counts / _FEWEST_OF_AN_ANSWER)
    return np.flatnonzero(lowest < 1)


def debiased_fractions(
    labels: Array,
    alpha: Array,
    transition: Any = None,
    by: Array | None = None,
    bins: int | Array | None = None,
    gold: Array | None = None,
    *,
    gold_probability: Array | None = None,
    gold_uncertain: Array | None = None,
    gold_field: Array | None = None,
    gold_transition: Transition | None = None,
    covariates: Array | None = None,
    votes: Array | None = None,
    observables: Array | Mapping[str, Array] | None = None,
    systematic: bool = True,
    weights: Array | None = None,
    name: str = "alpha",
    seed: int = 0,
    paths: Array | None = None,
    quantities: Sequence[Quantity] = (),
) -> PopulationFractions:
    """Estimate true class fractions in bins of α or of any column, with errors.

    Parameters
    ----------
    labels : array of int, shape (N,)
        Observed labels.
    alpha : array, shape (N,)
        Resolution.
    transition : TransitionFit, Estimate, Transition, path or dict, optional
        T(α), as in `load_transition`. The covariance of a fit is included in the errors, and the range spans trends of
        class fractions with α (see `fit_transition`); others are treated as exact. Not used with `gold`.
    by : array, shape (N,) or (N, 2), optional
        Column to bin, or two; default α.
    bins : int or array, optional
        Largest number of equal-count bins (without weights); default 8, or fewer, so that each has 50 galaxies.
        Galaxies of equal α share a bin. Or edges, between which all values must be.
    gold : array of int, shape (N,), optional
        Gold labels of a random part of the rows, -1 elsewhere. The fractions then follow their definition of a disk,
        and are valid whether or not T is correct. Of a question, class 0 is that to which it does not apply, and -2
        where it is only known that the question applies.
    gold_probability : array, shape (N,), optional
        Probability with which each galaxy was to be selected for a gold label, where the choice was planned
        (`plan_gold`). Gold labels then need not be of random galaxies.
    gold_uncertain : array of bool, shape (N,), optional
        Galaxies whose class people could not tell, or on which they did not agree. The range contains the results with
        all of them smooth, and with all of them disk.
    gold_field : array of int or str, shape (N,), optional
        Field on the sky of each gold label, where these are from few fields: errors then include the scatter between
        fields.
    gold_transition : Transition, optional
        T(α) of the gold labels themselves, where experts saw the volunteers' images: measured with degraded copies
        (`collect_gold`, twins). The range then contains the fractions that it implies.
    covariates : array, shape (N, P), optional
        Other columns for the regression p(y | ỹ, α, z) on gold labels, which help to predict the true class.
    votes : array, shape (N, P), optional
        Log-odds of votes, which help too (`Votes.log_odds`). Unlike covariates they may predict the class perfectly.
    observables : array, shape (N, J), or dict of str to array, shape (N,), optional
        Columns on which T depends in addition to α.
    systematic : bool, default True
        Whether to compute the alternatives for the range.
    weights : array, shape (N,), optional
        Sampling weights; default those of the fit, if it has the same rows.
    name : str, default "alpha"
        Name of the binning column, for figures.
    seed : int
        Seed of the draws with gold labels.
    paths : array of int, shape (N,), optional
        Labels that tell apart more classes than gold labels, to predict the true class; default the labels.
    quantities : sequence of Quantity, optional
        Ratios of sums of classes, such as the bar fraction of the galaxies to which this question applies. They need
        gold labels. Bins in which a denominator may be empty are merged.

    Returns
    -------
    PopulationFractions

    Raises
    ------
    InputError
        If shapes disagree, labels are not classes, a bin would be empty, or neither transition nor gold is given.

    Examples
    --------
    >>> from truemorph import RayleighTransition, fit_transition
    >>> rng = np.random.default_rng(0)
    >>> alpha = rng.lognormal(2.5, 0.45, 20000)
    >>> disk = rng.random(20000) < 0.7
    >>> labels = (disk & (rng.random(20000) > RayleighTransition(10.0).flip_probability(alpha))).astype(int)
    >>> found = debiased_fractions(labels, alpha, fit_transition(labels, alpha), bins=5, systematic=False)
    >>> bool(np.all(np.abs(found.fractions[:, 1] - 0.7) < 4 * found.stderr[:, 1]))
    True
    """
    if transition is None and gold is None:
        raise InputError("debiased_fractions needs a transition, gold labels (gold=), or both")
    if gold is None and (covariates is not None or quantities or paths is not None):
        raise InputError("covariates, paths and quantities need gold labels: pass gold= too, or remove them")
    if any(len(quantity.numerator) != len(quantities[0].numerator) for quantity in quantities):
        raise InputError("quantities must be ratios of the same classes")
    transition = getattr(transition, "fit", transition)
    fit = transition if isinstance(transition, TransitionFit) else None
    classes = None if transition is None else class_names(load_transition(transition).n_classes)
    if quantities:
        classes = class_names(len(quantities[0].numerator))
    elif isinstance(transition, TransitionFit | FittedCurve):
        classes = transition.classes
    sample = Sample.of(
        labels,
        alpha,
        classes=classes,
        of_question=any(quantity.denominator is not None for quantity in quantities),
        observables=observables,
        gold=gold,
        gold_probability=gold_probability,
        gold_uncertain=gold_uncertain,
        gold_field=gold_field,
        weights=weights,
    )
    if gold_transition is not None and gold_transition.n_classes != sample.n_classes:
        raise InputError(f"gold_transition has {gold_transition.n_classes} classes, the sample {sample.n_classes}")
    if weights is None and fit is not None and fit.made_from(sample):
        sample = replace(sample, weights=fit.sample.weights)
    n = sample.labels.size
    sample = replace(
        sample,
        intrinsic=sample.intrinsic if covariates is None else check_columns(covariates, "covariates", n),
        log_odds=None if votes is None else check_columns(votes, "votes", n),
        paths=None if paths is None else check_paths(paths, n),
    )
    return fractions_in_bins(
        sample,
        transition,
        by=None if by is None else np.squeeze(float_array(by, name)),
        name="by" if name == "alpha" else name,
        bins=default_bins(n) if bins is None else bins,
        gold_transitions=() if gold_transition is None else (gold_transition,),
        systematic=systematic,
        seed=seed,
        quantities=quantities,
    )


def fractions_in_bins(
    sample: Sample,
    transition: Any,
    *,
    by: np.ndarray | None = None,
    name: str = "by",
    bins: int | np.ndarray,
    gold_transitions: Sequence[Transition] = (),
    systematic: bool = True,
    seed: int,
    quantities: Sequence[Quantity] = (),
) -> PopulationFractions:
    """Estimate class fractions of a sample, as `debiased_fractions`; `name` is that of the columns `by`.

    With gold labels, its intrinsic columns and log-odds help to predict the true class.
    """
    n, fit = sample.labels.size, transition if isinstance(transition, TransitionFit) else None
    column = sample.alpha if by is None else np.atleast_1d(by)
    if len(column) != n or column.shape[1:] not in ((), (2,)):
        raise InputError(f"by must have one value per galaxy, or two; got shape {column.shape} for {n} galaxies")
    if not np.all(np.isfinite(column)):
        raise InputError(f"by has {int(np.sum(~np.isfinite(column)))} missing values; remove those rows")
    if np.ndim(bins) == 1:
        cut = Bins.between(column, np.asarray(bins), sample.weights)
    elif not 1 <= bins <= n or bins != int(bins):
        raise InputError(f"bins must be between 1 and the number of galaxies ({n}); got {bins}")
    else:
        cut = Bins.cut(column, int(bins), sample.weights)
    if transition is not None and not sample.has_gold:
        before = () if fit is None else fit.findings
        results = _through(sample, cut, load_transition(transition), fit, systematic)
    else:
        regression = _Regression(sample, cut, _terms(sample, by), seed, quantities, gold_transitions)
        results, n_bins = _from_gold(regression), cut.count
        before = unique(selection_findings(sample), results["findings"])
        while cut.count > 1 and (few := _too_few(results, cut)).size:
            cut = cut.merged(int(few[0]))
            results = _from_gold(replace(regression, bins=cut))
        if cut.count < n_bins:
            message = (
                f"{n_bins} bins were merged into {cut.count}: in the others, few galaxies have one of the answers, or "
                "the question may apply to none."
            )
            action = "Use fewer bins (`bins`), or gold labels of galaxies to which the question applies."
            results["findings"] = [Finding("bins-merged", "note", message, action)]
    return PopulationFractions(
        **results | {"findings": unique(before, results["findings"])},
        labelled=cut.means(sample.observed),
        edges=cut.edges,
        counts=np.bincount(cut.index),
        by="alpha" if by is None else name,
        members=column.of_bins(cut.edges) if isinstance(column, Groups) else (),
        middles=cut.middles,
        bin_weights=cut.totals,
        classes=sample.classes,
    )


def _terms(sample: Sample, by: np.ndarray | None) -> np.ndarray:
    """Return the terms of the regression on gold labels: of labels or paths, α, and other columns, shape (N, R)."""
    columns, labels, n_labels = [sample.intrinsic], sample.labels, sample.n_classes
    check_not_encoded(sample.intrinsic, sample.gold, "covariates", "the gold label")
    if sample.log_odds is not None:
        columns.append(sample.log_odds)
    if sample.probability is not None:
        columns.append(propensity_columns(sample.probability))
    if by is not None:  # it may have more information on the class than label and α
        columns += [quadratic(column) for column in np.atleast_1d(by).reshape(labels.size, -1).T]
    if sample.paths is not None:
        labels, n_labels = sample.paths, int(sample.paths.max()) + 1
    return regression_terms(labels, sample.argument, n_labels, columns)
