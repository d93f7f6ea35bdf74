"""Fit T(α) and class probabilities together: p(ỹ | z, α) = Σ_y p(ỹ | y, α) p(y | z).

p(y | z) is a logistic regression on intrinsic properties z (Medina-Rosales et al., arXiv:2308.11007, section 2.3.1,
after Cabrera, Miller & Schneider 2014). With a design matrix of ones, class fractions are the same for all (eq. 15).
The paper's own estimator, least squares on class fractions in bins, makes the same assumption.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from scipy.optimize import brentq, least_squares
from scipy.special import expit, logit

from truemorph.bias.binning import Bins, limits_of_bins
from truemorph.bias.curves.families import KNOWN_CURVES, family_of
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.bias.curves.shifted import BlurredTransition, curve_space
from truemorph.bias.curves.transitions import DISK, LOGIT_BOUND, FlipTransition, Search, Space, Transition
from truemorph.bias.likelihood import label_columns, log_marginal
from truemorph.bias.regression.maximum import (
    Bounds,
    Maximum,
    class_variances,
    climb,
    differences,
    fit_softmax,
    information_matrix,
    log_probabilities,
    maximise,
    polish,
)
from truemorph.bias.result import (
    NORMAL_95,
    REJECTED,
    SIGNIFICANT_GAIN,
    Alternative,
    DriftRange,
    Settings,
    TransitionFit,
)
from truemorph.bias.sample import Sample
from truemorph.errors import InputError
from truemorph.workers import one_thread

# Parameters are first fitted to this many galaxies, then to all.
_ROUGH = 20_000
_RIDGE = 1e-3
_FEWEST_BINS = 12
# Trends are fitted to this many bins of α, or, given intrinsic columns, to this many galaxies.
_GROUPS, _PART = 256, 10_000
# Fraction of the first class with a false label that the range allows, where none is assumed.
FALSE_LABELS = 0.03
# Trends under which such labels, and errors of α, are tried.
_FEW_TRENDS = ("no trend", "rising with α, 1 δ", "falling with α")
# Intercept of log-odds above which a class is nearly empty.
_EDGE = 8.9
# Of more galaxies, neighbours are merged where the likelihood is maximised many times.
_GROUPED = 1_024


@dataclass(frozen=True)
class Mixture:
    """Likelihood of labels as a mixture of classes; a point is [T's point, coefficients of p(y | z) by class]."""

    space: Space  # parameter space of T; of size 0 if T is known
    labels: np.ndarray  # (N,)
    alpha: np.ndarray  # (N,), or (N, 1 + J) with observables
    weights: np.ndarray  # (N,)
    design: np.ndarray  # (N, Q): ones, then standardised columns
    ridge: float = 0.0  # penalty on all coefficients except the intercepts
    offset: np.ndarray | None = None  # (N,): assumed trend, added to the logit of the second class
    evidence: np.ndarray | None = None  # (N, K): log p(observed | y), if it is known, instead of labels and T

    @property
    def _penalty(self) -> np.ndarray:
        return self.ridge * (np.arange(self.design.shape[1]) > 0)

    @cached_property
    def same_for_all(self) -> bool:
        """Whether all galaxies have the same class fractions."""
        return self.design.shape[1] == 1 and self.offset is None

    @property
    def can_be_grouped(self) -> bool:
        """Whether galaxies differ only in label and α, because T and class fractions depend on nothing else."""
        return self.same_for_all and self.alpha.ndim == 1 and self.evidence is None

    def grouped(self, most: int = 512) -> Mixture:
        """Merge neighbours in α with the same label into `most` rows per label, if class fractions are constant.

        α becomes their mean, which changes the log-likelihood only in second order of their spread.
        """
        merged = []
        for label in np.unique(self.labels):
            members = self.labels == label
            cut = Bins.cut(self.alpha[members], most, self.weights[members])
            merged.append((np.full(cut.count, label), cut.middles, cut.totals))
        labels, alpha, weights = (np.concatenate(parts) for parts in zip(*merged, strict=True))
        return replace(self, labels=labels, alpha=alpha, weights=weights, design=np.ones((labels.size, 1)))

    def part(self, step: int) -> Mixture:
        """Keep every `step`-th galaxy."""
        columns: dict[str, Any] = {name: c[::step] for name, c in vars(self).items() if isinstance(c, np.ndarray)}
        return replace(self, **columns)

    def split(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return T's point, and coefficients of shape (K - 1, Q)."""
        return point[: self.space.size], point[self.space.size :].reshape(self.space.n_classes - 1, -1)

    def log_prior(self, coefficients: np.ndarray) -> np.ndarray:
        """Return log p(y | z), shape (N, K), or (1, K) if it is the same for all."""
        design = self.design[:1] if self.same_for_all else self.design
        return log_probabilities(design, coefficients, self.offset)

    def log_labels(self, at: np.ndarray) -> np.ndarray:
        """Return log p(ỹ_n | y, α_n) for every y, shape (N, K)."""
        return label_columns(self.space.build(at), self.labels, self.alpha) if self.evidence is None else self.evidence

    def after(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return log p(ỹ | z, α), shape (N,), and p(y | z) and the posterior p(y | ỹ, α, z), shape (N, K) each."""
        at, coefficients = self.split(point)
        log_p = self.log_prior(coefficients)
        total, joint = log_marginal(log_p, self.log_labels(at))
        return total, np.exp(log_p), np.exp(joint - total[:, None])

    def scores(self, point: np.ndarray) -> np.ndarray:
        """Return the gradient of each galaxy's log-probability, shape (P + (K - 1) Q, N).

        Fisher's identity: it is the posterior mean of the gradient of log p(ỹ, y | z, α), which for coefficients of
        p(y | z) is (p(y | ỹ, α, z) - p(y | z)) z.
        """
        _, p, posterior = self.after(point)
        at, _ = self.split(point)
        of_z = np.einsum("nk,nq->kqn", (posterior - p)[:, 1:], self.design).reshape(-1, len(self.design))
        return np.concatenate([self._slopes_of_t(at, posterior), of_z])

    def _slopes_of_t(self, at: np.ndarray, posterior: np.ndarray) -> np.ndarray:
        """Return the posterior mean of d log p(ỹ | y, α) / d T's parameters, shape (P, N)."""
        slopes = differences(lambda point: np.einsum("nk,nk->n", posterior, self.log_labels(point)), at)
        return slopes.reshape(at.size, len(posterior))

    def objective(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the penalised log-likelihood and its gradient."""
        total, p, posterior = self.after(point)
        at, coefficients = self.split(point)
        value = float(self.weights @ total - 0.5 * np.sum(self._penalty * coefficients**2))
        residual = self.weights[:, None] * (posterior - p)[:, 1:]
        of_z = residual.T @ self.design - self._penalty * coefficients
        return value, np.concatenate([self._slopes_of_t(at, posterior) @ self.weights, of_z.ravel()])

    def information(self, point: np.ndarray) -> np.ndarray:
        """Return minus the second derivatives: analytic in coefficients, by differences in T's parameters.

        The former are Σ w (V(p(y | z)) - V(p(y | ỹ, α, z))) ⊗ z zᵀ, with the covariance V of class membership: the
        information of known classes, minus what labels leave unknown (Louis 1982, JRSS B 44, 226).
        """
        n, rest = self.space.size, point[self.space.size :]
        _, p, posterior = self.after(point)
        variances = (class_variances(p) - class_variances(posterior)) * self.weights[:, None, None]
        out = np.empty((point.size, point.size))
        out[n:, n:] = information_matrix(self.design, variances)
        out[n:, n:] += np.diag(np.tile(self._penalty, self.space.n_classes - 1))
        if n:
            rows = -differences(lambda at: self.objective(np.concatenate([at, rest]))[1], point[:n])
            out[:n], out[n:, :n] = rows, rows[:, n:].T
        return out

    def bounds(self) -> Bounds:
        """Return bounds: of T's point, and of the logits of class fractions if there are no other coefficients."""
        size = (self.space.n_classes - 1) * self.design.shape[1]
        edge = np.full(size, LOGIT_BOUND if self.same_for_all else np.inf)
        return np.concatenate([self.space.lower, -edge]), np.concatenate([self.space.upper, edge])

    def starts(self) -> np.ndarray:
        """Return starting points: those of the space, combined with the observed fractions."""
        counts = np.bincount(self.labels, weights=self.weights, minlength=self.space.n_classes)
        fractions = np.clip(counts / counts.sum(), 0.02, 0.98)
        flat = np.zeros((self.space.n_classes - 1, self.design.shape[1]))
        flat[:, 0] = np.clip(np.log(fractions[1:] / fractions[0]), -3, 3)
        return np.array([np.concatenate([start, flat.ravel()]) for start in self.space.starts])


@dataclass(frozen=True)
class MixtureFit:
    """T and p(y | z) at maximum likelihood."""

    mixture: Mixture
    maximum: Maximum

    @property
    def transition(self) -> Transition:
        """Fitted T(α)."""
        return self.mixture.space.build(self.point_of_t)

    @property
    def point_of_t(self) -> np.ndarray:
        """Point of T, shape (P,)."""
        return self.mixture.split(self.maximum.point)[0]

    @property
    def coefficients(self) -> np.ndarray:
        """Coefficients of p(y | z), shape (K - 1, Q)."""
        return self.mixture.split(self.maximum.point)[1]

    @cached_property
    def covariance(self) -> np.ndarray:
        """Covariance of the point: inverse information, or with different weights the sandwich (White 1982).

        White (Econometrica 50, 1): information⁻¹ (Σ scores scoresᵀ) information⁻¹.
        """
        if np.ptp(self.mixture.weights) == 0:
            return self.maximum.covariance()
        scores = self.mixture.scores(self.maximum.point) * self.mixture.weights
        return self.maximum.covariance(scores @ scores.T)

    @property
    def log_likelihood(self) -> float:
        """Weighted log-likelihood of the labels, without the penalty."""
        return float(self.mixture.weights @ self.mixture.after(self.maximum.point)[0])

    def probabilities(self) -> np.ndarray:
        """p(y | z) of every galaxy, shape (N, K)."""
        p = np.exp(self.mixture.log_prior(self.coefficients))
        return np.broadcast_to(p, (self.mixture.labels.size, p.shape[1]))

    def contrast(self, weights: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
        """Return Σ w p(second class | z), and by the delta method its variance due to the covariance of the point."""
        probabilities, n = self.probabilities(), self.mixture.space.size
        variances = class_variances(probabilities)[:, DISK - 1]  # (N, K - 1)
        slope = np.einsum("nk,nq->kq", variances * weights[:, None], self.mixture.design).ravel()
        return float(weights @ probabilities[:, DISK]), float(slope @ covariance[n:, n:] @ slope)

    def fraction_error(self, variance: float, data_weights: np.ndarray) -> float:
        """Return the standard error of the fraction, from the curvature or, at 0 or 1, from the likelihood.

        There 1.96 errors are the distance to the fraction at which the log-likelihood, maximised over everything
        else, is lower by 1.92. Weights of the data reduce the effective number of rows.
        """
        if variance > 0 and abs(self.coefficients[0, 0]) < _EDGE:
            return float(np.sqrt(variance))
        mixture = self.mixture
        if mixture.labels.size > _GROUPED:
            mixture = mixture.grouped() if mixture.can_be_grouped else mixture.part(-(-mixture.labels.size // _GROUPED))
        # Weights of mean 1 reduce n to n / mean(w²) (Kish 1965); merged rows have other sums of weights.
        stretch = np.mean(data_weights**2) * mixture.weights.sum() / self.mixture.weights.sum()
        weights, at = mixture.weights / mixture.weights.sum(), mixture.space.size  # `at`: the intercept
        limits = mixture.bounds()

        @cache
        def profile(intercept: float) -> tuple[float, float]:
            """Return a significant loss of log-likelihood (1.92: Wilks 1938) minus the loss, and the fraction."""
            lower, upper = np.array(limits)
            lower[at] = upper[at] = intercept
            starts = np.clip([self.maximum.point, reached[-1]], lower, upper)
            point = climb(mixture.objective, starts, (lower, upper), mixture.labels.size)[0]
            reached.append(point)
            p = np.exp(mixture.log_prior(mixture.split(point)[1]))[:, DISK]
            fraction = float(weights @ np.broadcast_to(p, weights.shape))
            return (mixture.objective(point)[0] - largest) / stretch + SIGNIFICANT_GAIN, fraction

        largest, bound = mixture.objective(self.maximum.point)[0], float(self.maximum.point[at])
        reached = [self.maximum.point]
        inside = -3.0 * np.sign(bound)
        if profile(inside)[0] < 0:
            inside = brentq(lambda trial: profile(trial)[0], inside, bound, xtol=0.05)
        return abs(profile(inside)[1] - profile(bound)[1]) / NORMAL_95

    def influence(self) -> np.ndarray:
        """Return the influence of each galaxy on T's point, information⁻¹ score (Hampel 1974), shape (P, N)."""
        scores = self.mixture.scores(self.maximum.point) * self.mixture.weights
        return (np.nan_to_num(self.maximum.covariance()) @ scores)[: self.mixture.space.size]


def fit_mixture(mixture: Mixture, start: np.ndarray | None = None, steps: int = 500) -> MixtureFit:
    """Maximise the likelihood, first on a part of the galaxies or on groups, then on all."""
    bounds = mixture.bounds()
    starts = mixture.starts() if start is None else start[None]
    n = mixture.labels.size
    if mixture.can_be_grouped:
        few = mixture.grouped()
        of_groups = maximise(few.objective, starts, bounds, n, few.information, steps)
        best = polish(mixture.objective, of_groups.point, of_groups.information, bounds, of_groups.steps)
        return MixtureFit(mixture, best)
    if n > 2 * _ROUGH:
        part = mixture.part(n // _ROUGH)
        starts = climb(part.objective, starts, bounds, part.labels.size, steps)[0][None]
    return MixtureFit(mixture, maximise(mixture.objective, starts, bounds, n, mixture.information, steps))


def standardised(columns: np.ndarray) -> np.ndarray:
    """Return the design matrix: ones, then the columns, if any, with mean 0 and standard deviation 1."""
    if not columns.size:
        return np.broadcast_to(1.0, (len(columns), 1))
    return np.column_stack([np.ones(columns.shape[0]), (columns - columns.mean(axis=0)) / columns.std(axis=0)])


def mixture_of(space: Space, sample: Sample, design: np.ndarray | None = None) -> Mixture:
    """Make a mixture; without intrinsic columns or another design, class fractions are the same for all galaxies."""
    design = standardised(sample.intrinsic) if design is None else design
    return Mixture(space, sample.labels, sample.argument, sample.weights, design, _RIDGE)


def by_likelihood(space: Space, sample: Sample, settings: Settings) -> TransitionFit:
    """Maximise Σ w log p(ỹ | α) (eq. 15), or, given intrinsic columns, fit T together with a logistic p(y | z)."""
    fitted = fit_mixture(mixture_of(space, sample))
    return _estimate_of(fitted, sample, settings, fitted.covariance, influence=fitted.influence)


def _estimate_of(
    fitted: MixtureFit, sample: Sample, settings: Settings, covariance: np.ndarray, **more: Any
) -> TransitionFit:
    """Make a result from T and p(y | z) at a point, and the covariance of this point."""
    n, best = fitted.mixture.space.size, fitted.maximum
    probabilities, share = fitted.probabilities(), sample.weights / sample.weights.sum()
    # The fraction is the weighted mean of p(y | z); its error is from the delta method plus the scatter of this mean.
    fraction, variance = fitted.contrast(share, covariance)
    variance += np.sum((share * (probabilities[:, DISK] - fraction)) ** 2)
    return TransitionFit.of(
        fitted.mixture.space,
        sample,
        settings,
        fitted.point_of_t,
        covariance[:n, :n],
        share @ probabilities,
        fitted.fraction_error(variance, sample.weights),
        log_likelihood=fitted.log_likelihood,
        n_parameters=best.point.size,
        probabilities=None if fitted.mixture.same_for_all else probabilities,
        at_bound=not best.free[n:].all(),
        **more,
    )


def bins_of_64(n: int) -> int:
    """Return the number of bins of α that leaves 64 of `n` galaxies in each, as in the paper; at least twelve bins."""
    return min(max(_FEWEST_BINS, n // 64), n)


def by_bins(space: Space, sample: Sample, settings: Settings) -> TransitionFit:
    """Fit class fractions at the midpoints of equal-count bins by least squares (eq. 16)."""
    if sample.observable_names:
        raise InputError("the binned method needs one resolution, alpha of shape (N,)")
    alpha, number = np.sort(sample.alpha), settings.bins or bins_of_64(sample.labels.size)
    bins = Bins.cut(sample.alpha, number, sample.weights)
    if bins.count < space.size + 2:
        raise InputError(f"the binned method needs more bins than parameters ({space.size + 1}); got {bins.count}")
    observed = bins.means(sample.observed)[:, DISK]
    limits = limits_of_bins(alpha, number)
    midpoints = 0.5 * (alpha[limits[:-1]] + alpha[limits[1:] - 1])

    def residuals(point: np.ndarray) -> np.ndarray:
        """Return Σ_y p(disk | y, α) p(y) minus the observed fraction of disks (eq. 16), by bin."""
        seen, fraction = space.build(point[:-1]).matrix(midpoints)[:, :, DISK], expit(point[-1])
        return seen @ [1 - fraction, fraction] - observed

    mixture = mixture_of(space, sample)
    lower, upper = mixture.bounds()
    start = np.append(space.starts[0], logit(np.clip(observed[-1], 0.01, 0.99)))
    start = np.clip(start, lower + 1e-6, upper - 1e-6)
    point = least_squares(residuals, start, bounds=(lower, upper), x_scale="jac").x
    free = (point - lower > 1e-3) & (upper - point > 1e-3)
    slopes = differences(residuals, point)
    scores = slopes * residuals(point)
    best = Maximum(point, 0.0, slopes @ slopes.T, free, 0)
    used = replace(settings, bins=number)
    return _estimate_of(MixtureFit(mixture, best), sample, used, best.covariance(scores @ scores.T))


@one_thread()
def drift_range(sample: Sample, family: Any, false_disk: float | None, delta: float, alpha_error: float) -> DriftRange:
    """Fit T(α) of two classes, of this and other families, under trends with α.

    With observables, also T of α alone, and trends with each of them: so they never narrow the range.
    """
    alternatives = dict[str, Alternative]()
    if sample.observable_names:
        without = drift_range(sample.without_observables(), family, false_disk, delta, alpha_error)
        alternatives = {f"{name}, α alone": alternative for name, alternative in without.alternatives.items()}
    few, steps = _trending(sample)
    trends = _trends(steps, sample.observable_names, delta)
    stretch = np.sqrt(np.mean(sample.weights**2))  # weights reduce the effective number of rows
    spaces, starts = _spaces_in_range(sample, family, false_disk, alpha_error), dict[str, np.ndarray]()
    for trend, offset in trends.items():
        fits, aic = dict[str, Alternative](), dict[str, float]()
        for (family_name, how), space in spaces.items():
            if how and trend not in _FEW_TRENDS:
                continue
            fit = fit_mixture(replace(few, space=space, offset=offset), starts.get(family_name))
            starts.setdefault(family_name, fit.maximum.point)
            value, variance = fit.contrast(few.weights / few.weights.sum(), fit.maximum.covariance())
            name = f"{family_name}{how}, {trend}"
            fits[name] = fit.transition, value, fit.fraction_error(stretch**2 * variance, sample.weights)
            aic[name] = 2 * space.size - 2 * fit.log_likelihood / stretch**2
        # Under a trend, the labels may reject a family.
        alternatives |= {name: fits[name] for name in fits if aic[name] < min(aic.values()) + REJECTED}
    design = np.column_stack([few.design, *steps])
    # Without bias the labels are the classes, and their trends are the slopes of a logistic regression.
    slopes = fit_softmax(design, np.eye(2)[few.labels], np.full(design.shape[1], 1e-6), few.weights)[0][0]
    slope, *others = slopes[-len(steps) :]
    if slope <= delta and np.abs(others).max(initial=0.0) <= delta:  # a trend alone can explain the labels
        alternatives |= _without_bias(sample, false_disk)
    return DriftRange(delta, float(max(slope, 0.0)), alternatives, alpha_error)


def _trending(sample: Sample) -> tuple[Mixture, list[np.ndarray]]:
    """Return a mixture of few rows, and the columns in which fractions may have a trend, shape (n,) each.

    The first is u, the standardised log α; given intrinsic columns, of its residual from them.
    """
    every = mixture_of(Space.fixed(MatrixTransition.identity()), sample)
    if every.can_be_grouped:
        few, smallest = every.grouped(_GROUPS), sample.alpha[sample.alpha > 0].min()
        u = np.log(np.maximum(few.alpha, smallest)) - np.average(sample.log_alpha, weights=sample.weights)
        return few, [u / np.sqrt(np.cov(sample.log_alpha, aweights=sample.weights))]
    step = -(-sample.labels.size // _PART)
    few, u = every.part(step), sample.log_alpha[::step]
    u = u - few.design @ np.linalg.lstsq(few.design, u, rcond=None)[0]
    others = standardised(sample.observables[::step]).T[1:]
    return few, [u / np.sqrt(np.average(u**2, weights=few.weights)), *others]


def _trends(steps: list[np.ndarray], names: tuple[str, ...], delta: float) -> dict[str, np.ndarray]:
    """Return what trends add to the logit of the second class, shape (n,), by name."""
    u, *others = steps
    bend = (u**2 - 1) / np.sqrt(2)  # Hermite polynomial: for normal u of variance 1 and uncorrelated with u
    trends = {
        "no trend": 0 * u,
        # The fraction decreases with this trend; above some δ, another solution is more likely.
        **{f"rising with α, {part:g} δ": part * delta * u for part in (0.5, 0.75, 1.0)},
        "falling with α": -delta * u,
        "higher at both ends": delta * bend,
        "lower at both ends": -delta * bend,
    }
    for name, step in zip(names, others, strict=True):
        trends |= {f"rising with {name}": delta * step, f"falling with {name}": -delta * step}
    return trends


def _spaces_in_range(
    sample: Sample, family: Any, false_disk: float | None, alpha_error: float
) -> dict[tuple[str, str], Space]:
    """Return the spaces of families that the range spans, also with false labels and errors of α."""
    search = Search(
        sample.argument, anchored=not sample.intrinsic.size, false_disk=false_disk, observables=sample.observable_names
    )
    own = [family] if issubclass(family, FlipTransition) and family.free else []
    families = list(dict.fromkeys([*own, *map(family_of, KNOWN_CURVES)]))
    spaces = {(family.family, ""): curve_space(family, search) for family in families}
    blurred = {
        (name, ", errors of α"): BlurredTransition.space(space, alpha_error, sample.log_alpha)
        for (name, _), space in spaces.items()
        if alpha_error
    }
    if false_disk == 0:
        of_false = replace(search, false_disk=FALSE_LABELS)
        spaces |= {(family.family, f", {FALSE_LABELS:.0%} false"): curve_space(family, of_false) for family in families}
    return spaces | blurred


def _without_bias(sample: Sample, false_disk: float | None) -> dict[str, Alternative]:
    """Return the fractions of the observed labels as alternatives, also with false labels if none are fitted."""
    labelled = float(np.average(sample.labels == DISK, weights=sample.weights))
    variance = labelled * (1 - labelled) * np.mean(sample.weights**2) / sample.labels.size
    error = float(np.sqrt(variance))
    accepted: dict[str, Alternative] = {"labels without bias": (MatrixTransition.identity(), labelled, error)}
    if false_disk == 0:
        only_false = MatrixTransition(((1 - FALSE_LABELS, FALSE_LABELS), (0.0, 1.0)))
        value = max(labelled - FALSE_LABELS, 0.0) / (1 - FALSE_LABELS)
        accepted[f"labels without bias, {FALSE_LABELS:.0%} false"] = only_false, value, error
    return accepted
