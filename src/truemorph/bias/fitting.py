"""Estimate T(α): one function with four methods.

`binned` is the paper's method (Medina-Rosales et al., arXiv:2308.11007, section 2.3.3). `likelihood` makes the same
assumption without bins. `conditional` lets class fractions depend on intrinsic properties. `gold` uses gold labels.
Every result states its assumption.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from truemorph.bias.checks.diagnosis import diagnose
from truemorph.bias.curves.families import KNOWN_CURVES, family_of
from truemorph.bias.curves.logistic import LogisticTransition
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.shifted import curve_space
from truemorph.bias.curves.transitions import DISK, SMOOTH, Array, FlipTransition, Search, Space
from truemorph.bias.methods import NEEDS
from truemorph.bias.mixture import by_bins, by_likelihood, drift_range
from truemorph.bias.regression.curve import by_gold, gold_maximum
from truemorph.bias.regression.paths import by_tree
from truemorph.bias.result import DELTA, Settings, TransitionFit
from truemorph.bias.sample import Sample, check_whole
from truemorph.errors import InputError
from truemorph.questions import SMOOTH_OR_DISK, fraction_names

METHODS = {"likelihood": by_likelihood, "binned": by_bins, "conditional": by_likelihood, "gold": by_gold}


def check_variation(sample: Sample, cls: Any) -> None:
    """Check that labels and α vary."""
    alpha = sample.alpha
    if not np.all(np.isfinite(alpha)) or not np.any(alpha > 0):
        raise InputError("alpha must be finite, and positive for some galaxies, to estimate T(alpha)")
    if cls.varies and np.ptp(alpha) < 1e-9 * alpha.max():
        raise InputError("alpha is the same for all galaxies, so these labels say nothing about T(alpha)")
    present = np.unique(sample.labels)
    if present.size < 2:
        only = sample.classes[present[0]]
        raise InputError(f"only {only} labels among {sample.labels.size} galaxies; T(alpha) needs both classes")


def _flips_seen(sample: Sample) -> np.ndarray:
    """Return which wrong labels are allowed, shape (K, K): those in gold rows, else only the first class (eq. 6)."""
    possible = np.eye(sample.n_classes, dtype=bool)
    if sample.has_gold:
        possible[sample.gold[sample.known], sample.labels[sample.known]] = True
    else:
        possible[:, SMOOTH] = True
    return possible


def _false_disk(settings: Settings, sample: Sample) -> Any:
    """Return the fixed rate of false disks, or None to fit it."""
    if settings.false_disk is not None:
        return None if settings.false_disk == "fit" else settings.false_disk
    return None if _flips_seen(sample)[SMOOTH, DISK] else 0.0


def fit_transition(
    labels: Array,
    alpha: Array,
    family: str | type[FlipTransition] | None = None,
    method: str | None = None,
    bins: int | None = None,
    intrinsic: Array | None = None,
    gold: Array | None = None,
    weights: Array | None = None,
    *,
    gold_probability: Array | None = None,
    observables: Array | Mapping[str, Array] | None = None,
    false_disk: float | str | None = None,
    delta: float | None = DELTA,
    classes: Sequence[str] | None = None,
    knots: int | Sequence[float] = 8,
    alpha_error: float = 0.0,
    bootstrap: int = 0,
    seed: int = 0,
) -> TransitionFit:
    """Estimate T(α) from biased labels.

    Parameters
    ----------
    labels : array of int, shape (N,); or Votes
        Observed labels, 0 = smooth, 1 = disk (0 … K-1 with K classes); or votes for the answers on the way to those of
        a question (`Votes`), or labels of it (`Votes.of_labels`).
    alpha : array, shape (N,)
        Resolution; θ is in the same unit. T is a function of this α: measurement errors of α make it flatter.
    family : str or subclass of FlipTransition, optional
        "rayleigh" (eq. 5), "weibull", "fisk" (log-logistic), "constant", "monotone" (decreasing with α, no formula),
        "matrix" (K×K, constant in α), "logistic" (K classes), "tree" (paths through a decision tree); or a class of
        your own. With observables, curves in α are at an effective resolution (`ShiftedTransition`). Default: with gold
        labels, the best of "rayleigh", "weibull" and "fisk" (by AIC), otherwise "rayleigh"; with observables,
        "logistic"; of `Votes`, "tree".
    method : {None, "likelihood", "binned", "conditional", "gold"}
        Default: "gold" if `gold` is given, "conditional" if `intrinsic` is, else "likelihood".
        "likelihood": unbinned maximum likelihood, assuming that class fractions do not depend on α. "binned":
        the paper's least squares over equal-count bins (eq. 16), for reproduction; with few bins it is biased, because
        the midpoint of the wide last bin is not where its galaxies are. "conditional": class fractions may depend on
        α through `intrinsic`. "gold": no assumption on class fractions.
    bins : int, optional
        Number of bins of "binned", at most one per galaxy; default: 64 galaxies in each, as in the paper (1525 bins of
        97,600 galaxies), but at least twelve bins.
    intrinsic : array, shape (N, P), optional
        Properties on which classes depend and that do not depend on resolution.
    gold : array of int, shape (N,), optional
        Gold labels: classes from experts or better images, -1 if unknown. They should be a random part of the rows. Of
        `Votes`, numbers of `votes.asked.classes`.
    gold_probability : array, shape (N,), optional
        Probability with which each galaxy was to be selected for a gold label, where the choice was planned
        (`plan_gold`). Gold labels then need not be of random galaxies.
    weights : array, shape (N,), optional
        Sampling weights, if galaxies were selected by their label (balanced samples). Errors then use the sandwich
        estimator.
    observables : array, shape (N, J), or dict of str to array, shape (N,), optional
        Other quantities on which the flip probability depends, such as surface brightness or bulge fraction; with names
        for the slopes.
    false_disk : float, "fit" or None
        p(ỹ = disk | y = smooth), constant in α (eq. 6 has 0). Default: 0, but fitted if gold labels show such galaxies.
    delta : float or None, default 0.5
        Without gold labels, `fraction_range` spans trends in which logit p(disk | α) changes by ± delta per
        standard deviation of ln α, or of its part that intrinsic columns leave. Use 1 if your definition of a disk is
        narrower than that of the labels (for example without lenticulars) or unknown. None omits these trends, which
        saves 0.2 s (with intrinsic columns 3 s).
    classes : sequence of str, optional
        Names of the K classes. Default: smooth and disk, or the numbers of those that occur.
    alpha_error : float, default 0
        Relative error of α (standard deviation). From labels alone, the range then also spans curves that this error
        has blurred. Class fractions from gold labels do not need it.
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
    check_whole(1, bins=1 if bins is None else bins)
    check_whole(0, bootstrap=bootstrap, seed=seed)
    if classes is None and (family is None or issubclass(family_of(family), FlipTransition)) and observables is None:
        classes = SMOOTH_OR_DISK  # so that a label 2 is an error
    sample = Sample.of(
        labels,
        alpha,
        classes=classes,
        observables=observables,
        intrinsic=intrinsic,
        gold=gold,
        gold_probability=gold_probability,
        weights=weights,
    )
    settings = Settings(method or "", family, bins, false_disk, delta, knots, seed, alpha_error)
    fit = solve(sample, settings_for(sample, settings))
    if bootstrap:
        fit = with_bootstrap_errors(fit, bootstrap, seed)
    return replace(fit, findings=diagnose(fit)[0])


def settings_for(sample: Sample, wanted: Settings) -> Settings:
    """Choose the method and family by what a sample has, and check that they suit each other and the sample."""
    method, family = wanted.method, wanted.family
    has = {"gold": sample.has_gold, "conditional": sample.intrinsic.size > 0}
    if not method:
        method = next((name for name, holds in has.items() if holds), "likelihood")
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    for user, name in NEEDS.items():
        if not has[user] and method == user:
            raise InputError(f"the method {method} needs `{name}`; give it, or choose another `method`")
        if has[user] and method != user:
            raise InputError(f"the method {method} does not use `{name}`; leave it out, or choose {user} (`method`)")
    if sample.n_classes != 2 and not has["gold"]:
        raise InputError(
            f"labels alone cannot tell the fractions of {sample.n_classes} classes from their bias; give gold labels "
            "(gold=)"
        )
    if method == "conditional":
        _ = sample.explained  # an error if the columns determine α
    cls = None
    if family is not None or method != "gold" or sample.observable_names or sample.n_classes != 2 or sample.asked:
        of_labels = "logistic" if sample.observable_names else "rayleigh"
        cls = family_of(family or (of_labels if sample.asked is None else "tree"))
    if cls is TreeTransition and method != "gold":
        raise InputError("T(alpha) of the paths through a decision tree needs gold labels (gold=)")
    if wanted.false_disk is not None and cls is not None and not issubclass(cls, FlipTransition):
        raise InputError(f"{cls.family} fits all flip probabilities: remove false_disk")
    return replace(wanted, method=method, family=cls)


def solve(sample: Sample, settings: Settings) -> TransitionFit:
    """Fit T(α), and its range from labels alone, without findings (see `diagnose`)."""
    families = list(map(family_of, KNOWN_CURVES if settings.family is None else [settings.family]))
    check_variation(sample, families[0])
    if settings.method == "gold":
        counts = np.bincount(sample.gold[sample.known], minlength=sample.n_classes)
        if not counts.all():
            lacking = sample.classes[int(np.argmin(counts))]
            raise InputError(f"no gold label of {lacking!r}; T(α) needs some of each class: add some, or merge classes")
    rate = _false_disk(settings, sample)
    search = Search(
        sample.argument,
        seen=_flips_seen(sample),
        anchored=settings.method in ("likelihood", "binned"),
        false_disk=rate,
        knots=settings.knots,
        classes=sample.classes,
        asked=sample.asked,
        counts=sample.counts is not None,
        observables=sample.observable_names,
    )
    spaces = {cls: _space(cls, search, settings.method) for cls in families}
    cls = families[0]
    if len(families) > 1:  # the lowest AIC
        cls = min(families, key=lambda kind: 2 * spaces[kind].size - 2 * gold_maximum(spaces[kind], sample).value)
    fitted_by = by_tree if cls is TreeTransition else METHODS[settings.method]
    fit = fitted_by(spaces[cls], sample, replace(settings, family=cls))
    if settings.method == "gold" or settings.delta is None:
        return fit
    return replace(fit, drift=drift_range(sample, cls, rate, settings.delta, settings.alpha_error))


def _space(cls: Any, search: Search, method: str) -> Space:
    """Return the parameter space of a family, if it can be fitted to such data."""
    n_classes = len(search.seen)
    if not hasattr(cls, "space"):
        raise InputError(f"{cls.family} can't be fitted; choose another family")
    if not cls.varies and method != "gold":
        reason = "a flip probability that is constant in alpha can't be separated from class fractions"
        raise InputError(f"{cls.family}: {reason}; give gold labels (gold=)")
    is_curve = issubclass(cls, FlipTransition)
    if search.observables and cls not in (LogisticTransition, TreeTransition) and not (is_curve and cls.varies):
        raise InputError(f'{cls.family} depends on no observables; use "logistic", "fisk" or another curve in alpha')
    if n_classes != 2 and is_curve:
        raise InputError(f'{cls.family} is for two classes; for {n_classes} use "matrix" or "logistic"')
    space: Space = curve_space(cls, search) if is_curve else cls.space(search)
    if not space.size:
        reason = "all gold labels equal the observed labels, so there are no wrong labels to describe"
        raise InputError(f"{cls.family}: {reason}; give classes from experts or better images (gold=)")
    return space


def refitted(fit: TransitionFit, rows: np.ndarray | None = None, **changes: Any) -> TransitionFit:
    """Fit to other rows of the same sample, with the same knots and free parameters, or with other settings."""
    same: dict[str, Any] = {"delta": None}
    if "false_disk" in fit.values:  # also where these rows show none
        same["false_disk"] = "fit"
    if fit.family == "monotone":
        same["knots"] = fit.transition.parameters()["knots"]
    sample = fit.sample if rows is None else fit.sample.take(rows)
    return solve(sample, replace(fit.settings, **same | changes))


def with_bootstrap_errors(fit: TransitionFit, resamples: int = 100, seed: int = 0) -> TransitionFit:
    """Return the same fit with errors from the scatter of resamples; an error if fewer than two can be fitted."""
    rng, n = np.random.default_rng(seed), fit.labels.size
    again = []
    for _ in range(resamples):
        with suppress(InputError):
            again.append(refitted(fit, rng.integers(0, n, n)))
    if len(again) < 2:
        raise InputError(f"only {len(again)} of {resamples} resamples could be fitted; the sample is too small")
    values = {name: [resample.values.get(name, np.nan) for resample in again] for name in fit.values}
    for name, k in fraction_names(fit.sample.classes).items():
        values[name] = [resample.class_fractions[k] for resample in again]
    stderr = {name: float(np.std(drawn, ddof=1)) for name, drawn in values.items()}
    points = np.array([resample.point for resample in again if resample.point.shape == fit.point.shape])
    changes: dict[str, Any] = {"stderr": fit.stderr | stderr, "failed_resamples": resamples - len(again)}
    if len(points) > 1:
        changes |= {"covariance": np.cov(points.T).reshape(fit.point.size, -1), "resampled": points}
    return replace(fit, **changes)
