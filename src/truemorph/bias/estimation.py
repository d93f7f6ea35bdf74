"""Estimate T(α): one function with five methods.

`binned` is the paper's method (Medina-Rosales et al., arXiv:2308.11007, section 2.3.3). `likelihood` makes the same
assumption without bins. `conditional` lets class fractions depend on intrinsic properties. `gold` uses gold labels.
`votes` models vote counts. Every result states its assumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import SkipValidation

from truemorph.arguments import AtLeastOne, Count, Family, Seed, validated
from truemorph.arrays import float_array
from truemorph.bias.calibration import calibration
from truemorph.bias.checks import check_not_encoded, selection_findings
from truemorph.bias.gold import by_gold, check_gold, check_probability, gold_maximum
from truemorph.bias.likelihood import check_labels, check_weights, classes_in, with_observables
from truemorph.bias.mixture import DELTA, by_bins, by_likelihood, check_intrinsic, drift_range, explained_findings
from truemorph.bias.result import Data, TransitionFit
from truemorph.bias.transitions import (
    DISK,
    SMOOTH,
    WITH_FORMULA,
    Array,
    FlipTransition,
    LogisticTransition,
    Search,
    Space,
    as_resolution,
    class_name,
    family_of,
)
from truemorph.bias.votes import by_votes, check_votes
from truemorph.errors import InputError
from truemorph.findings import Finding, unique

METHODS = {
    "likelihood": by_likelihood,
    "binned": by_bins,
    "conditional": by_likelihood,
    "gold": by_gold,
    "votes": by_votes,
}


def checked_data(
    labels: Any,
    alpha: Any,
    n_classes: int | None,
    observables: Any = None,
    gold: Any = None,
    gold_probability: Any = None,
    weights: Any = None,
) -> Data:
    """Check shapes and values of all per-galaxy arguments; without `n_classes`, labels and gold labels determine K."""
    first = as_resolution(float_array(alpha, "alpha"))
    resolution = first if observables is None else with_observables(first, observables)
    n_classes = n_classes or classes_in(labels, *([] if gold is None else [gold]))
    observed = check_labels(labels, n_classes)
    if observed.size != first.size:
        raise InputError(f"labels and alpha must have one value per galaxy; got {observed.size} and {first.size}")
    known = None if gold is None else check_gold(gold, observed.size, n_classes)
    weights = np.broadcast_to(1.0, first.size) if weights is None else check_weights(weights, first.size)
    probability = None if known is None or gold_probability is None else check_probability(gold_probability, known)
    return Data(observed, resolution, n_classes, weights, known, probability)


def check_variation(data: Data, cls: Any) -> None:
    """Check that labels and α vary."""
    alpha = data.resolution
    if not np.all(np.isfinite(alpha)) or not np.any(alpha > 0):
        raise InputError("alpha must be finite, and positive for some galaxies, to estimate T(alpha)")
    if cls.varies and np.ptp(alpha) < 1e-9 * alpha.max():
        raise InputError("alpha is the same for all galaxies, so these labels say nothing about T(alpha)")
    present = np.unique(data.labels)
    if present.size < 2:
        only = class_name(int(present[0]), data.n_classes) if present.size else "no"
        raise InputError(f"only {only} labels among {data.labels.size} galaxies; T(alpha) needs both classes")


def _flips_seen(data: Data) -> np.ndarray:
    """Return which wrong labels are allowed, shape (K, K): those in gold rows, else only "smooth" (eq. 6)."""
    possible = np.eye(data.n_classes, dtype=bool)
    if data.gold is None:
        possible[:, SMOOTH] = True
    else:
        possible[data.gold[data.known], data.labels[data.known]] = True
    return possible


def _false_disk(asked: Any, data: Data) -> Any:
    """Return the fixed rate of false disks, or None to fit it."""
    if asked is not None:
        return None if asked == "fit" else asked
    seen = data.gold is not None and np.any((data.gold == SMOOTH) & (data.labels == DISK))
    return None if seen or data.method == "votes" else 0.0  # single votes for a disk occur for any galaxy


@validated
def fit_transition(
    labels: Array,
    alpha: Array,
    family: Family | None = None,
    method: str | None = None,
    bins: AtLeastOne = 1525,
    intrinsic: Array | None = None,
    gold: Array | None = None,
    weights: Array | None = None,
    *,
    gold_probability: Array | None = None,
    observables: Array | None = None,
    false_disk: float | str | None = None,
    delta: float | None = DELTA,
    n_classes: int | None = None,
    knots: Annotated[int | Sequence[float], SkipValidation] = 8,  # or an array
    bootstrap: Count = 0,
    seed: Seed = 0,
) -> TransitionFit:
    """Estimate T(α) from biased labels.

    Parameters
    ----------
    labels : array of int, shape (N,), or (N, 2)
        Observed labels, 0 = smooth, 1 = disk (0 … K-1 with K classes); or counts of smooth and disk votes.
    alpha : array, shape (N,)
        Resolution; θ is in the same unit. T is a function of this α: measurement errors of α make it flatter.
    family : str or subclass of FlipTransition, optional
        "rayleigh" (eq. 5), "weibull", "fisk" (log-logistic), "constant", "monotone" (decreasing with α, no formula),
        "matrix" (K×K, constant in α), "logistic" (K classes, several observables); or a class of your own. Default:
        with gold labels, the best of "rayleigh", "weibull" and "fisk" (by AIC), otherwise "rayleigh"; with observables,
        "logistic".
    method : {None, "likelihood", "binned", "conditional", "gold", "votes"}
        Default: "gold" if `gold` is given, "conditional" if `intrinsic` is, "votes" for counts, else "likelihood".
        "likelihood": unbinned maximum likelihood, assuming that class fractions do not depend on α. "binned":
        the paper's least squares over equal-count bins (eq. 16), for reproduction; with few bins it is biased, because
        the midpoint of the wide last bin is not where its galaxies are. "conditional": class fractions may depend on
        α through `intrinsic`. "gold": no assumption on class fractions. "votes": beta-binomial counts.
    bins : int, default 1525
        Number of bins of "binned", at most one per galaxy; the default is the paper's (64 of 97,600 galaxies each).
    intrinsic : array, shape (N, P), optional
        Properties on which classes depend and that do not depend on resolution.
    gold : array of int, shape (N,), optional
        Gold labels: classes from experts or better images, -1 if unknown. They should be a random part of the rows.
    gold_probability : array, shape (N,), optional
        Probability with which each galaxy was to be selected for a gold label, where the choice was planned
        (`plan_gold`). Gold labels then need not be of random galaxies.
    weights : array, shape (N,), optional
        Sampling weights, if galaxies were selected by their label (balanced samples). Errors then use the sandwich
        estimator.
    observables : array, shape (N, J), optional
        Other quantities on which the flip probability depends, such as surface brightness or bulge fraction.
    false_disk : float, "fit" or None
        p(ỹ = disk | y = smooth), constant in α (eq. 6 has 0). Default: 0, but fitted for votes, and if gold labels show
        such galaxies.
    delta : float or None, default 0.5
        Without gold labels, `disk_fraction_range` spans trends in which logit p(disk | α) changes by ± delta per
        standard deviation of ln α, or of its part that intrinsic columns leave. Use 1 if your definition of a disk is
        narrower than that of the labels (for example without lenticulars) or unknown. None omits these trends, which
        saves 0.2 s (with intrinsic columns 3 s).
    n_classes : int, optional
        K, if not all classes occur in the labels.
    knots : int or sequence of float, default 8
        Number of knots of "monotone", or their α.
    bootstrap : int, default 0
        Number of resamples for `stderr`; 0 uses the curvature of the likelihood. "monotone" needs resamples if
        neighbouring knots have equal values.
    seed : int, default 0
        Seed of bootstrap and draws.

    Returns
    -------
    TransitionFit

    Raises
    ------
    InputError
        If shapes disagree, α is NaN or negative, a label is not a class, there is only one class, the intrinsic
        columns determine α, or family and method are incompatible.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> alpha = rng.lognormal(2.3, 0.45, 20000)
    >>> disk = rng.random(20000) < 0.75
    >>> flipped = rng.random(20000) < np.exp(-(alpha**2) / (2 * 11.25**2))
    >>> fit = fit_transition((disk & ~flipped).astype(int), alpha)
    >>> bool(abs(fit.transition.theta - 11.25) < 4 * fit.stderr["theta"])
    True
    """
    if method is None:
        given = {"votes": np.ndim(labels) == 2, "gold": gold is not None, "conditional": intrinsic is not None}
        method = next((name for name, holds in given.items() if holds), "likelihood")
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    choose = family is None and method == "gold" and observables is None
    cls = family_of(family or ("rayleigh" if observables is None else "logistic"))
    for name, values, users in (("gold", gold, ("gold", "votes")), ("intrinsic", intrinsic, ("conditional",))):
        if values is None and method == users[0]:
            raise InputError(f'method "{method}" needs {name} labels or columns: pass {name}=')
        if values is not None and method not in users:
            raise InputError(f'method "{method}" does not use {name}=: remove it, or use method="{users[0]}"')
    if false_disk is not None and not issubclass(cls, FlipTransition):
        raise InputError(f"{cls.family} fits all flip probabilities: remove false_disk")
    options = {"family": cls, "bins": bins, "false_disk": false_disk, "delta": delta, "knots": knots, "seed": seed}
    if n_classes is None and issubclass(cls, FlipTransition):
        n_classes = 2  # so that a label 2 is an error
    votes = None
    if method == "votes" or np.ndim(labels) == 2:
        votes = check_votes(labels)
        labels = (votes[:, DISK] > votes[:, SMOOTH]).astype(np.int64)
        if observables is not None:
            raise InputError("vote counts can't be combined with observables; fit the majority labels instead")
    data = checked_data(labels, alpha, n_classes, observables, gold, gold_probability, weights)
    data = replace(data, votes=votes, method=method, options=options)
    check_variation(data, cls)
    findings: list[Finding] = []
    if method == "conditional":
        columns = check_intrinsic(intrinsic, data.labels.size)
        check_not_encoded(columns, data.labels, "intrinsic", "the observed label")
        findings += explained_findings(data.resolution, columns, seed)
        data = replace(data, intrinsic=columns)
    if observables is not None and method == "likelihood":
        message = (
            "From labels alone, a bias curve of several observables cannot be separated from class fractions that "
            "depend on them."
        )
        action = "Give gold labels (`gold`), or intrinsic columns (`intrinsic`) on which classes depend."
        findings.append(Finding("observables-not-identified", "caution", message, action))
    if data.gold is not None:
        findings += selection_findings(data)
    rate = _false_disk(false_disk, data)
    search = Search(data.alpha, _flips_seen(data), method in ("likelihood", "binned"), rate, knots)
    if choose and data.n_classes == 2:
        spaces = [family_of(name).space(search) for name in WITH_FORMULA]
        cls = family_of(min(spaces, key=lambda one: 2 * one.size - 2 * gold_maximum(one, data).value).family)
        data = replace(data, options={**options, "family": cls})
    fit = METHODS[method](_space(cls, search, method), data)
    if bootstrap:
        fit = with_bootstrap_errors(fit, bootstrap, seed)
    if method != "gold":
        if delta is not None:
            fit = replace(fit, drift=drift_range(data, cls, rate, delta))
        findings.insert(0, _flat_fractions_assumed(fit))  # first, because it limits everything
    return replace(fit, findings=unique(findings, fit.findings, calibration(fit).findings))


def _space(cls: Any, search: Search, method: str) -> Space:
    """Return the parameter space of a family, if it can be fitted to such data."""
    n_classes = len(search.seen)
    if not hasattr(cls, "space"):
        raise InputError(f"{cls.family} can't be fitted; choose another family")
    if not cls.varies and method not in ("gold", "votes"):
        reason = "a flip probability that is constant in alpha can't be separated from class fractions"
        raise InputError(f"{cls.family}: {reason}; give gold labels (gold=)")
    if search.alpha.ndim == 2 and cls is not LogisticTransition:
        raise InputError(f'several observables need family="logistic"; {cls.family} needs alpha of shape (N,)')
    if n_classes != 2 and issubclass(cls, FlipTransition):
        raise InputError(f'{cls.family} is for two classes; for {n_classes} use "matrix" or "logistic"')
    space: Space = cls.space(search)
    return space


def _flat_fractions_assumed(fit: TransitionFit) -> Finding:
    """Return the assumption of an estimate without gold labels, and the range of the disk fraction without it."""
    (low, high), fixed = fit.disk_fraction_range, " at fixed intrinsic columns" if fit.method == "conditional" else ""
    trend = "" if fit.drift is None else f" if their logit changes by up to {fit.drift.delta:g} per σ of ln α"
    message = (
        "Labels alone cannot separate bias from a real change of class fractions with resolution. This estimate "
        f"assumes that the true fractions do not depend on α{fixed}; the disk fraction may lie anywhere from "
        f"{low:.2f} to {high:.2f}{trend}."
    )
    return Finding("flat-fractions-assumed", "caution", message, "Give gold labels (`gold`), which settle it.")


def refitted(fit: TransitionFit, rows: np.ndarray | None = None, **changes: Any) -> TransitionFit:
    """Fit to other rows of the same data, with the same knots and free parameters, or with other options."""
    data, chosen = fit.data, slice(None) if rows is None else rows
    per_row = {
        "labels": data.labels if data.votes is None else data.votes,
        "alpha": data.resolution,
        "gold": data.gold,
        "weights": data.weights,
        "intrinsic": data.intrinsic,
        "gold_probability": data.probability,
        "observables": None if data.alpha.ndim == 1 else data.alpha[:, 1:],
    }
    arrays = {name: values[chosen] for name, values in per_row.items() if values is not None}
    options = {**data.options, "method": data.method, "n_classes": data.n_classes, "delta": None}
    if "false_disk" in fit.values:  # also where these rows show none
        options["false_disk"] = "fit"
    if fit.family == "monotone" and fit.votes is None:
        options["knots"] = fit.transition.parameters()["knots"]
    return fit_transition(**{**options, **arrays, **changes})


def with_bootstrap_errors(fit: TransitionFit, resamples: int = 100, seed: int = 0) -> TransitionFit:
    """Return the same fit with errors from the scatter of resamples; an error if fewer than two can be fitted."""
    rng, n = np.random.default_rng(seed), fit.labels.size
    again: list[TransitionFit] = []
    for _ in range(resamples):
        with suppress(InputError):
            again.append(refitted(fit, rng.integers(0, n, n)))
    if len(again) < 2:
        raise InputError(f"only {len(again)} of {resamples} resamples could be fitted; the sample is too small")
    values = {name: [one.values.get(name, np.nan) for one in again] for name in fit.values}
    values["disk_fraction"] = [one.class_fractions[DISK] for one in again]
    stderr = {name: float(np.std(found, ddof=1)) for name, found in values.items()}
    findings = fit.findings
    if len(again) < resamples:
        failed = f"{resamples - len(again)} of {resamples} bootstrap resamples"
        message = f"The fit failed on {failed}, which were left out."
        findings += (Finding("resamples-failed", "note", message, "Use more galaxies if many failed."),)
    points = np.array([one.point for one in again if one.point.shape == fit.point.shape])
    changes: dict[str, Any] = {"stderr": {**fit.stderr, **stderr}, "findings": findings}
    if len(points) > 1:
        changes |= {"covariance": np.cov(points.T).reshape(fit.point.size, -1), "resampled": points}
    return replace(fit, **changes)
