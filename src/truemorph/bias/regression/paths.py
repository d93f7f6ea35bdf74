"""Fit T(α) of the paths through a decision tree (`TreeTransition`) to gold labels.

At each question, a score of class y is m + d_y: m, which all classes share, and d_y have normal priors of mean 0. So a
class with few gold labels or votes gets what the other classes have. The variances of d maximise the evidence (EM:
Dempster, Laird & Rubin 1977, JRSS B 39, 1), with one pseudo-observation more. The errors are those of the posterior
(Laplace), or, with weights, the sandwich.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy.linalg import block_diag
from scipy.special import digamma, softmax

from truemorph.bias.curves.paths import TreeTransition, dirichlet_multinomial
from truemorph.bias.curves.transitions import LOGIT_BOUND, Space
from truemorph.bias.regression.gold import fractions_of_all
from truemorph.bias.regression.maximum import class_precision, climb, differences, effective_weights, follow
from truemorph.bias.result import Settings, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.workers import one_thread

# Of intercepts, slopes, and logits of ρ: standard deviations of m, and of d in the pseudo-observation.
_SHARED, _AROUND = (3.0, 1.0, 1.5), (1.5, 0.5, 0.5)
_CORRELATION = -1.5  # logit of ρ, prior mean: ρ = 0.18
_STEPS, _SETTLED = 30, 0.01  # of EM; change of ln(standard deviation) at which it ends


@dataclass(frozen=True)
class _Node:
    """One question, galaxies of known classes that were asked it, and the likelihood of their answers.

    A point has of each class the scores of all answers but the first, and of votes the logit of ρ.
    """

    counts: np.ndarray  # (n, A): votes; a label is one vote
    classes: np.ndarray  # (n,)
    design: np.ndarray  # (n, J + 2)
    weights: np.ndarray  # (n,)
    n_classes: int
    of_votes: bool

    @cached_property
    def of_class(self) -> np.ndarray:
        """Weight of each galaxy in its class, shape (K, n)."""
        return np.eye(self.n_classes)[:, self.classes] * self.weights

    @property
    def start(self) -> np.ndarray:
        """Prior means of the parameters of a class."""
        scores = np.zeros((self.counts.shape[1] - 1) * self.design.shape[1])
        return np.append(scores, [_CORRELATION] * self.of_votes)

    def terms(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each galaxy's log-likelihood, (n,), and its slopes in the parameters of its class, (n, P / K)."""
        counts, total, scores = self.counts, self.counts.sum(axis=1), np.zeros(self.counts.shape)
        own = point.reshape(self.n_classes, -1)[self.classes]
        tables = own[:, : own.shape[1] - self.of_votes].reshape(total.size, counts.shape[1] - 1, self.design.shape[1])
        scores[:, 1:] = np.einsum("nt,nat->na", self.design, tables)
        mean = np.maximum(softmax(scores, axis=1), 1e-9)
        whole = np.exp(-own[:, -1]) if self.of_votes else np.ones(total.size)  # (1 - ρ) / ρ
        at = mean * whole[:, None]
        value = dirichlet_multinomial(counts[None], mean[None], whole)[0]
        pull = digamma(counts + at) - digamma(at)
        average = np.sum(pull * mean, axis=1)
        of_scores = (at * (pull - average[:, None]))[:, 1:, None] * self.design[:, None]
        of_whole = -whole * (digamma(whole) - digamma(total + whole) + average)
        of_scores = of_scores.reshape(total.size, (counts.shape[1] - 1) * self.design.shape[1])
        return value, np.column_stack([of_scores, *[of_whole] * self.of_votes])

    def likelihood(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the weighted log-likelihood and its slopes, (P,)."""
        value, slopes = self.terms(point)
        return float(self.weights @ value), (self.of_class @ slopes).ravel()

    def curvature(self, point: np.ndarray) -> np.ndarray:
        """Return minus the second derivatives, (P, P), from those of all classes at once, which share no galaxy."""
        width = point.size // self.n_classes
        moved = differences(lambda shift: self.likelihood(point + np.tile(shift, self.n_classes))[1], np.zeros(width))
        return -block_diag(*moved.reshape(width, -1, width).swapaxes(0, 1))

    def form(self, kind: int, of_classes: np.ndarray) -> np.ndarray:
        """Return a quadratic form of the parameters of a kind, (P, P), from that of the classes, (K, K).

        Of the answers it is the same, whichever is the first.
        """
        of_kind = np.diag(np.minimum(np.arange(self.design.shape[1]), 1) == kind)  # an intercept, 0, and slopes, 1
        of_scores = np.kron(class_precision(self.counts.shape[1] - 1), of_kind)
        return np.kron(of_classes, block_diag(of_scores, *[kind == 2] * self.of_votes))


@one_thread()
def _fitted(node: _Node) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit one question to galaxies of known classes.

    Maximises Σ w log DM(k | n, μ(y, α), ρ(y)) (see `TreeTransition`) plus the log-density of the prior. Returns the
    point, (P,), its covariance, and the log-likelihood.
    """
    weights, n_classes = node.weights, node.n_classes
    middle, centred = np.tile(node.start, n_classes), np.eye(n_classes) - 1 / n_classes
    bound, scale = np.where(middle == _CORRELATION, 1.0, 3.0) * LOGIT_BOUND, max(weights.size, 1)
    bounds, spread, point, curvature = (middle - bound, middle + bound), np.array(_AROUND), middle, None
    for _ in range(_STEPS):
        # Of m + d_y, of each kind of parameters.
        covariances = [np.eye(n_classes) * spread[kind] ** 2 + shared**2 for kind, shared in enumerate(_SHARED)]
        precision = np.sum([node.form(kind, np.linalg.inv(prior)) for kind, prior in enumerate(covariances)], axis=0)

        def objective(at: np.ndarray, precision: np.ndarray = precision) -> tuple[float, np.ndarray]:
            value, slopes = node.likelihood(at)
            away = precision @ (at - middle)
            return float(value - 0.5 * (at - middle) @ away), slopes - away

        if curvature is None:
            point, _ = climb(objective, point[None], bounds, scale)
        else:  # the maximum has moved with the prior
            point = follow(objective, point, curvature + precision, bounds, scale)
        curvature = node.curvature(point)
        covariance, before = np.linalg.inv(curvature + precision), spread.copy()
        for kind in range(2 + node.of_votes):  # expected squares of d, and their degrees of freedom (the E step)
            metric, away = node.form(kind, centred), point - middle
            squares = away @ metric @ away + np.sum(metric * covariance)
            spread[kind] = np.sqrt((_AROUND[kind] ** 2 + squares) / (1 + np.linalg.matrix_rank(metric)))
        if np.all(np.abs(np.log(spread / before)) < _SETTLED):
            break
    if weights.size and np.ptp(weights) > 0:  # the sandwich
        slopes = node.terms(point)[1] * weights[:, None]
        products = block_diag(*(slopes[node.classes == k].T @ slopes[node.classes == k] for k in range(n_classes)))
        covariance = covariance @ (products + precision) @ covariance
    return point, covariance, node.likelihood(point)[0]


def by_tree(space: Space, sample: Sample, settings: Settings) -> TransitionFit:
    """Fit T of paths to the votes, and to the majority paths, of the galaxies with gold labels.

    Class fractions are those of the regression on gold labels (`truemorph.bias.regression.gold`).
    """
    gold = sample.take(sample.known)
    assert gold.asked is not None
    assert gold.paths is not None
    start = space.build(space.starts[0])
    assert isinstance(start, TreeTransition)
    design, single = start.design(gold.argument), gold.asked.along[gold.paths].astype(float)
    observations, fits = ([] if gold.counts is None else [(gold.counts, True)]) + [(single, False)], []
    for (counts, of_votes), part in product(observations, gold.asked.parts):
        asked = counts[:, part].sum(axis=1) > 0
        weights = effective_weights(gold.gold_weights[asked])
        fits.append(
            _fitted(_Node(counts[asked, part], gold.gold[asked], design[asked], weights, gold.n_classes, of_votes))
        )
    points, covariances, log_likelihoods = zip(*fits, strict=True)
    counted = len(gold.asked.parts)  # of the votes where there are some: labels are made of them
    fractions, samples = fractions_of_all(sample, settings.seed)
    return TransitionFit.of(
        space,
        sample,
        settings,
        np.concatenate(points),
        block_diag(*covariances),
        fractions,
        samples.std(axis=0),
        log_likelihood=sum(log_likelihoods[:counted]),
        n_parameters=sum(map(len, points[:counted])),
        fraction_samples=samples,
    )
