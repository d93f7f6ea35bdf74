"""Fit T(α) to gold labels, whose weights are calibrated with the help of all galaxies."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import hstack

from truemorph.bias.binning import Bins
from truemorph.bias.curves.transitions import Space
from truemorph.bias.likelihood import label_columns
from truemorph.bias.regression.gold import GoldRegression, fractions_of_all, sample_terms
from truemorph.bias.regression.maximum import Maximum, differences, maximise
from truemorph.bias.result import Settings, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.workers import one_thread

# Knots of the function of α that the control variate is centred on.
_KNOTS = 17
# Least part of a label's scatter that is left after it has entered the fit.
_LEAST_LEFT = 0.1


def _gold_terms(space: Space, sample: Sample) -> Callable[[np.ndarray], np.ndarray]:
    """Return log p(ỹ | y, α) of galaxies with a gold label, shape (n,), as a function of T's parameters."""
    rows = np.flatnonzero(sample.known)
    classes, labels, alpha = sample.gold[rows], sample.labels[rows], sample.argument[rows]

    def terms(point: np.ndarray) -> np.ndarray:
        columns = label_columns(space.build(point), labels, alpha)
        return columns[np.arange(rows.size), classes]

    return terms


def gold_maximum(space: Space, sample: Sample, calibration: np.ndarray | float = 1.0) -> Maximum:
    """Maximise the likelihood of the observed labels given gold labels, Σ w log p(ỹ | y, α)."""
    terms, w = _gold_terms(space, sample), sample.gold_weights[sample.known] * calibration

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        return float(w @ terms(point)), differences(terms, point) @ w

    return maximise(objective, space.starts, (space.lower, space.upper), w.size)


def _projected(alpha: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the part of values that is a function of α (and of each other observable), both of shape (P, N).

    The function is linear between knots with equal numbers of galaxies, fitted by least squares.
    """
    from scipy.interpolate import BSpline  # takes a fifth of a second

    triangles = []
    for column in alpha.reshape(len(alpha), -1).T:
        knots = np.unique([*np.quantile(column, np.linspace(0, 1, _KNOTS)), column.max() + 1])
        triangles.append(BSpline.design_matrix(column, np.pad(knots, 1, mode="edge"), 1))
    design = hstack(triangles)
    products, moments = (design.T @ design).toarray(), design.T @ values.T
    return (design @ (np.linalg.pinv(products, hermitian=True) @ moments)).T


@dataclass(frozen=True)
class _Uncalibrated:
    """T at the maximum of the gold labels' likelihood, and what all galaxies say of it; P parameters."""

    space: Space
    sample: Sample
    maximum: Maximum

    def influences(self, at: Maximum) -> np.ndarray:
        """Return the influence of each gold label on the parameters, shape (P, n)."""
        slopes = differences(_gold_terms(self.space, self.sample), at.point)
        return np.nan_to_num(at.covariance()) @ (slopes * self.sample.gold_weights[self.sample.known])

    @cached_property
    def ratio(self) -> np.ndarray:
        """How much more a gold label weighs than its galaxy, shape (N,); 0 without one."""
        return np.where(self.sample.known, self.sample.gold_weights / self.sample.weights, 0.0)

    @cached_property
    def beyond(self) -> np.ndarray:
        """How much more often galaxies have a gold label than others of their α do, shape (N,).

        (1 - H) g, where H projects on functions of α. Only this may enter: the gold labels' own distribution of α
        carries no information on T.
        """
        return self.ratio - _projected(self.sample.argument, self.ratio[None])[0]

    @property
    def chance(self) -> np.ndarray:
        """Probability that a galaxy with a gold label was selected, shape (n,)."""
        probability = self.ratio - self.beyond if self.sample.probability is None else self.sample.probability
        return np.clip(probability[self.sample.known], 0.0, 1.0)

    def control(self) -> np.ndarray:
        """Return the expected influence of every galaxy given its label, minus that given α alone, shape (P, N)."""
        sample = self.sample
        # Without bin effects, which would follow the gold labels and hide some of their scatter.
        together = Bins.cut(sample.alpha, 1, sample.weights)
        fit = GoldRegression.fit(sample_terms(sample), sample.gold, together, sample.n_classes)
        plain = fit.predicted(np.arange(sample.gold.size))

        def expected(at: np.ndarray) -> np.ndarray:
            return np.einsum("nk,nk->n", plain, label_columns(self.space.build(at), sample.labels, sample.argument))

        inverse = np.nan_to_num(self.maximum.covariance())
        influences = inverse @ (differences(expected, self.maximum.point) * sample.weights)
        return influences - _projected(sample.argument, influences)

    def calibrated(self) -> tuple[Maximum, np.ndarray, np.ndarray, np.ndarray]:
        """Return the maximum with calibrated weights; influences, and what α explains of them, (P, n); its slope."""
        own, size = self.influences(self.maximum), self.space.size
        if not 6 * size < own.shape[1] < self.sample.labels.size:  # fewer do not determine weights; all need none
            return self.maximum, own, np.zeros_like(own), np.zeros((size, size))
        chance, moved = self.chance, (self.ratio * self.control())[:, self.sample.known]
        products = np.linalg.pinv((moved * (1 - chance)) @ moved.T)
        # Over all galaxies, Σ (1 - H) x = 0; the weights make it so over the gold labels.
        weights = np.maximum(1 - (1 - chance) * (moved.sum(axis=1) @ products @ moved), 0.0)
        best = gold_maximum(self.space, self.sample, weights)
        own = self.influences(best) * weights
        return best, own, moved, (own * (1 - chance)) @ moved.T @ products


@one_thread()
def by_gold(space: Space, sample: Sample, settings: Settings) -> TransitionFit:
    """Fit T to gold labels, weighted so that their labels, given α, are distributed as those of all galaxies.

    The weights follow the influence on T that the regression expects of a galaxy with such a label (calibration:
    Deville & Särndal 1992, JASA 87, 376), which reduces the variance.
    """
    fit = _Uncalibrated(space, sample, gold_maximum(space, sample))
    fractions, samples = fractions_of_all(sample, settings.seed)
    best, own, moved, slope = fit.calibrated()
    # A label that determines the parameters hides its own scatter (HC3: MacKinnon & White 1985, J. Econom. 29, 305).
    leverage = np.einsum("pn,pq,qn->n", own, np.linalg.pinv(own @ own.T), own)
    scale = np.maximum(1 - leverage, _LEAST_LEFT)
    left, whole = (own - slope @ moved) / scale, own / scale
    covariance = (left * (1 - fit.chance)) @ left.T + (whole * fit.chance) @ whole.T
    covariance[~best.free], covariance[:, ~best.free] = np.nan, np.nan

    def influence() -> np.ndarray:
        pulls = -slope @ (fit.control() * fit.beyond)
        pulls[:, sample.known] += own
        return pulls

    return TransitionFit.of(
        space,
        sample,
        settings,
        best.point,
        covariance,
        fractions,
        samples.std(axis=0),
        log_likelihood=fit.maximum.value,
        n_parameters=space.size,
        influence=influence,
        fraction_samples=samples,
    )
