"""Fit T(α) of the paths through a decision tree (`TreeTransition`) to gold labels.

At each question, a score of class y is m + d_y: m, which all classes share, and d_y have normal priors of mean 0. So a
class with few gold labels or votes gets what the other classes have. The variances of d maximise the evidence (EM:
Dempster, Laird & Rubin 1977, JRSS B 39, 1), with one pseudo-observation more. The errors are those of the posterior
(Laplace), or, with weights, the sandwich.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import block_diag
from scipy.special import digamma, gammaln

from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import LOGIT_BOUND, Space
from truemorph.bias.regression.gold import fractions_of_all, propensity_columns, regression_terms
from truemorph.bias.regression.maximum import class_precision, effective_weights, maximise
from truemorph.bias.result import Settings, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.errors import InputError
from truemorph.workers import one_thread

# Of intercepts, slopes, and logits of ρ: standard deviations of m, and of d in the pseudo-observation.
_SHARED, _AROUND = (3.0, 1.0, 1.5), (1.5, 0.5, 0.5)
_CORRELATION = -1.5  # logit of ρ, prior mean: ρ = 0.18
_STEPS, _SETTLED = 30, 0.01  # of EM; change of ln(standard deviation) at which it ends
_STEP = 1e-4  # of central differences


@dataclass(frozen=True)
class NodeFit:
    """Scores of the A answers to one question, given each of K classes, and logits of ρ, with their covariance."""

    scores: np.ndarray  # (K, A - 1, J + 2): relative to the first answer
    correlations: np.ndarray  # (K,): logits of ρ; (0,) for labels
    covariance: np.ndarray  # (P, P): of the scores, flat, and of the logits of ρ
    log_likelihood: float


def _precision(n_classes: int, shared: float, spread: float) -> np.ndarray:
    """Return the precision of m + d_y, shape (K, K): the inverse of spread² I + shared² J, where J is all ones."""
    inside = np.eye(n_classes) - 1 / (n_classes + (spread / shared) ** 2)
    return np.asarray(inside / spread**2)


@dataclass(frozen=True)
class _Node:
    """One question, galaxies of known classes that were asked it, and the likelihood of their answers.

    A point has the scores of all answers but the first, flat, and of votes the logits of ρ.
    """

    counts: np.ndarray  # (n, A): votes; a label is one vote
    classes: np.ndarray  # (n,)
    design: np.ndarray  # (n, J + 2)
    weights: np.ndarray  # (n,)
    n_classes: int
    of_votes: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the scores, (K, A - 1, J + 2)."""
        return self.n_classes, self.counts.shape[1] - 1, self.design.shape[1]

    @cached_property
    def size(self) -> int:
        """Number of scores."""
        return int(np.prod(self.shape))

    @cached_property
    def n_parameters(self) -> int:
        """Number of scores and logits of ρ."""
        return self.size + self.n_classes * self.of_votes

    @cached_property
    def member(self) -> np.ndarray:
        """Whether a galaxy is of a class, shape (n, K)."""
        return np.eye(self.n_classes)[self.classes]

    @cached_property
    def _of_class(self) -> np.ndarray:
        """The design of each class, shape (n, K (J + 2))."""
        shape = self.weights.size, self.n_classes * self.shape[2]
        return (self.member[:, :, None] * self.design[:, None]).reshape(shape)

    @cached_property
    def _arranged(self) -> np.ndarray:
        return np.asarray(gammaln(self.counts.sum(axis=1) + 1) - gammaln(self.counts + 1).sum(axis=1))

    @cached_property
    def between(self) -> np.ndarray:
        """Prior precision of the scores of answers, shape (A - 1, A - 1), whichever answer is the first."""
        return class_precision(self.shape[1])

    @cached_property
    def kinds(self) -> np.ndarray:
        """Whether a term is an intercept, 0, or a slope, 1, shape (J + 2,)."""
        return np.minimum(np.arange(self.shape[2]), 1)

    def terms(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return each galaxy's log-likelihood, (n,), and its slopes in its scores and ρ, (n, A - 1) and (n, 0 or 1)."""
        counts, total, scores = self.counts, self.counts.sum(axis=1), np.zeros(self.counts.shape)
        tables = point[: self.size].reshape(self.shape).transpose(0, 2, 1)
        scores[:, 1:] = self._of_class @ tables.reshape(-1, self.shape[1])
        mean = np.exp(scores - scores.max(axis=1, keepdims=True))
        mean = np.maximum(mean / mean.sum(axis=1, keepdims=True), 1e-9)
        whole = np.exp(-point[self.size :])[self.classes] if self.of_votes else np.ones(total.size)  # (1 - ρ) / ρ
        at = mean * whole[:, None]
        value = (
            self._arranged + gammaln(whole) - gammaln(total + whole) + (gammaln(counts + at) - gammaln(at)).sum(axis=1)
        )
        pull = digamma(counts + at) - digamma(at)
        average = np.sum(pull * mean, axis=1)
        of_whole = -whole * (digamma(whole) - digamma(total + whole) + average)
        return value, (at * (pull - average[:, None]))[:, 1:], of_whole[:, None][:, : int(self.of_votes)]

    def likelihood(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the weighted log-likelihood and its slopes, (P,)."""
        value, of_scores, of_rho = self.terms(point)
        n_classes, _, n_terms = self.shape
        slopes = (self._of_class * self.weights[:, None]).T @ of_scores
        slopes = slopes.reshape(n_classes, n_terms, -1).transpose(0, 2, 1)
        of_correlations = (self.weights[:, None] * self.member).T @ of_rho
        return float(self.weights @ value), np.concatenate([slopes.ravel(), of_correlations.ravel()])

    def curvature(self, point: np.ndarray) -> np.ndarray:
        """Return minus the second derivatives, (P, P), from those of all classes at once, which share no galaxy."""
        k = np.arange(self.n_classes)
        of_each = np.column_stack([np.arange(self.size).reshape(self.n_classes, -1), *[self.size + k] * self.of_votes])
        out = np.zeros((point.size, point.size))
        for j in range(of_each.shape[1]):
            shift = np.zeros(point.size)
            shift[of_each[:, j]] = _STEP
            change = (self.likelihood(point - shift)[1] - self.likelihood(point + shift)[1]) / (2 * _STEP)
            out[of_each, of_each[:, [j]]] = change[of_each]
        return 0.5 * (out + out.T)

    def prior(self, spread: np.ndarray) -> np.ndarray:
        """Return the precision of all parameters, shape (P, P), for standard deviations of d of each kind."""
        every = [_precision(self.n_classes, *one) for one in zip(_SHARED, spread, strict=True)]
        out = np.zeros((self.n_parameters, self.n_parameters))
        at = np.arange(self.size).reshape(self.shape)
        for t, kind in enumerate(self.kinds):
            rows = at[:, :, t].ravel()
            out[np.ix_(rows, rows)] = np.kron(every[kind], self.between)
        if self.of_votes:
            out[self.size :, self.size :] = every[2]
        return out

    def moments(self, values: np.ndarray, covariance: np.ndarray, kind: int) -> tuple[float, int]:
        """Return the expected sum of squares of d of a kind (the E step), and its degrees of freedom."""
        centred = np.eye(self.n_classes) - 1 / self.n_classes
        if kind == 2:
            rows, metric = np.arange(self.size, values.size), np.asarray(centred)
        else:
            of_kind = self.kinds == kind
            rows = np.arange(self.size).reshape(self.shape)[:, :, of_kind].ravel()
            metric = np.asarray(np.kron(np.kron(centred, self.between), np.eye(int(np.count_nonzero(of_kind)))))
        at = values[rows]
        statistic = at @ metric @ at + np.sum(metric * covariance[np.ix_(rows, rows)])
        return float(statistic), round(float(np.trace(metric @ np.linalg.pinv(metric))))

    def sandwich(self, point: np.ndarray, covariance: np.ndarray, precision: np.ndarray) -> np.ndarray:
        """Return the covariance if galaxies have weights, from the curvature's, (P, P)."""
        _, of_scores, of_rho = self.terms(point)
        slopes = np.einsum("nc,na,nt->ncat", self.member, of_scores, self.design).reshape(self.weights.size, self.size)
        slopes = np.concatenate([slopes, self.member * of_rho], axis=1) if self.of_votes else slopes
        products = (slopes * self.weights[:, None] ** 2).T @ slopes + precision
        return np.asarray(covariance @ products @ covariance)


@one_thread
def fit_node(
    counts: np.ndarray, classes: np.ndarray, design: np.ndarray, n_classes: int, weights: np.ndarray, of_votes: bool
) -> NodeFit:
    """Fit one question to galaxies of known classes: counts (n, A) and design (n, J + 2); labels are one vote each.

    Maximises Σ w log DM(k | n, μ(y, α), ρ(y)) (see `TreeTransition`) plus the log-density of the prior.
    """
    asked = counts.sum(axis=1) > 0
    weights = effective_weights(weights[asked])
    node = _Node(counts[asked], classes[asked], design[asked], weights, n_classes, of_votes)
    middle = np.zeros(node.n_parameters)
    middle[node.size :] = _CORRELATION
    bound = np.full(node.n_parameters, 3 * LOGIT_BOUND)
    bound[node.size :] = LOGIT_BOUND
    spread, point = np.array(_AROUND), middle
    for _ in range(_STEPS):
        precision = node.prior(spread)

        def objective(at: np.ndarray, precision: np.ndarray = precision) -> tuple[float, np.ndarray]:
            value, slopes = node.likelihood(at)
            away = precision @ (at - middle)
            return float(value - 0.5 * (at - middle) @ away), slopes - away

        def information(at: np.ndarray, precision: np.ndarray = precision) -> np.ndarray:
            return np.asarray(node.curvature(at) + precision)

        best = maximise(objective, point[None], middle - bound, middle + bound, max(weights.size, 1), information)
        point, covariance = best.point, np.linalg.inv(best.information)
        before, spread = spread, spread.copy()
        for kind in range(3 if of_votes else 2):
            squares, degrees = node.moments(point - middle, covariance, kind)
            spread[kind] = np.sqrt((_AROUND[kind] ** 2 + squares) / (1 + degrees))
        if np.all(np.abs(np.log(spread / before)) < _SETTLED):
            break
    if weights.size and np.ptp(weights) > 0:
        covariance = node.sandwich(point, covariance, node.prior(before))
    return NodeFit(point[: node.size].reshape(node.shape), point[node.size :], covariance, node.likelihood(point)[0])


def by_tree(space: Space, sample: Sample, settings: Settings) -> TransitionFit:
    """Fit T of paths to the votes, and to the majority paths, of the galaxies with gold labels.

    Class fractions are those of the regression on gold labels (`truemorph.bias.regression.gold`).
    """
    assert sample.gold is not None
    assert sample.asked is not None
    assert sample.paths is not None
    counted = np.bincount(sample.gold[sample.known], minlength=sample.n_classes)
    if not counted.all():
        lacking = sample.asked.classes[int(np.argmin(counted))]
        raise InputError(f"no gold label of {lacking!r}; count its path as another class, or give some")
    start = space.build(space.starts[0])
    assert isinstance(start, TreeTransition)
    rows = np.flatnonzero(sample.known)
    design = start.design(sample.argument[rows])
    single = sample.asked.along[sample.paths[rows]].astype(float)
    given = ([] if sample.counts is None else [(sample.counts[rows], True)]) + [(single, False)]
    fits = [
        fit_node(counts[:, part], sample.gold[rows], design, sample.n_classes, sample.gold_weights[rows], of_votes)
        for counts, of_votes in given
        for part in sample.asked.parts
    ]
    columns = [] if sample.counts is None else [sample.asked.votes(sample.counts).log_odds]
    columns += [] if sample.probability is None else [propensity_columns(sample.probability)]
    terms = regression_terms(sample.labels, sample.argument, sample.n_classes, columns)
    fractions, samples = fractions_of_all(sample, terms, settings.seed)
    return TransitionFit.of(
        space,
        sample,
        settings,
        np.concatenate([part for fit in fits for part in (fit.scores.ravel(), fit.correlations)]),
        block_diag(*(fit.covariance for fit in fits)),
        fractions,
        samples.std(axis=0),
        # Of the votes where there are some: labels are made of them.
        log_likelihood=sum(fit.log_likelihood for fit in fits[: len(sample.asked.parts)]),
        n_parameters=sum(len(fit.covariance) for fit in fits[: len(sample.asked.parts)]),
        fraction_samples=samples,
    )
