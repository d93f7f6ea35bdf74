"""Use gold labels to estimate class fractions, without assumptions on them.

Gold labels are expert classifications, or classes from better images, of a random part of the galaxies. p(y | ỹ, α, z)
is fitted to them by regression. Class fractions use gold labels where known, and predictions for the other galaxies
(Robins, Rotnitzky & Zhao 1994, JASA 89, 846).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from truemorph.bias.binning import Bins, Groups, default_bins
from truemorph.bias.curves.transitions import UNKNOWN
from truemorph.bias.regression.fields import FEWEST_FIELDS
from truemorph.bias.regression.maximum import (
    class_precision,
    class_variances,
    effective_weights,
    fit_softmax,
    information_matrix,
    log_probabilities,
)
from truemorph.bias.sample import Sample
from truemorph.workers import one_thread

SAMPLES = 1000
# Standard deviations (logit): of bin effects, which are averaged over; priors of other coefficients.
_EFFECTS, _COEFFICIENT, _INTERCEPT = (0.15, 0.3, 0.6, 1.2, 2.4), 1.0, 1000.0
# Bins over which the correlation of two effects falls by a factor of e.
_CORRELATED_OVER = 2.0
# Number of galaxies per bin on which draws are evaluated; the others follow their mean.
DRAWN_ON = 400
# Number of galaxies that are predicted at once.
_AT_ONCE = 10_000
_CLIP = 500.0
# Different probabilities of selection up to which each has an indicator.
_MOST_LEVELS = 10


def quadratic(column: np.ndarray) -> np.ndarray:
    """Return a standardised column and its square as covariates, shape (N, 2); of G groups, G indicators."""
    if isinstance(column, Groups):
        numbers = np.asarray(column)
        return (numbers[:, None] == np.unique(numbers)).astype(float)
    standard = (column - column.mean()) / (column.std() or 1.0)
    return np.column_stack([standard, standard**2 - 1])


def propensity_columns(probability: np.ndarray) -> np.ndarray:
    """Covariates for the regression on gold labels, shape (N, P): log probability of selection, and its square.

    Of few different probabilities, such as those of fields or samples, an indicator of each. Given them, gold labels
    are a random part of the rows (Rosenbaum & Rubin 1983, Biometrika 70, 41). If the selection is related to class,
    the errors are 15 % smaller than with inverse-probability weights (docs/statistics.md).
    """
    values = np.maximum(probability, probability[probability > 0].min())
    levels, index = np.unique(values, return_inverse=True)
    return np.eye(levels.size)[index] if levels.size <= _MOST_LEVELS else quadratic(np.log(values))


@dataclass(frozen=True)
class GoldRegression:
    """p(y | ỹ, α, z): logistic in label, u = log α, u², label × u and z, with an effect per bin.

    The effects are normal, with correlations between neighbouring bins; their standard deviation is averaged over, with
    the evidence as weight (Laplace approximation). They let the regression follow class fractions that it would
    otherwise miss.
    """

    terms: np.ndarray  # (N, R): one, and the standardised terms without bins
    effects: np.ndarray  # (B, B): effects of the bins, as combinations of independent ones
    bins: Bins
    evidence: np.ndarray  # (S,): weight of each standard deviation of the effects
    coefficients: np.ndarray  # (S, K - 1, R + B)
    covariances: np.ndarray  # (S, (K - 1) (R + B), (K - 1) (R + B))
    # (S, (K - 1) (R + B), F (K - 1)): how much the coefficients change by a standard deviation of each field's effect
    of_fields: np.ndarray | None = None

    @classmethod
    def fit(
        cls,
        terms: np.ndarray,
        gold: np.ndarray,
        bins: Bins,
        n_classes: int = 2,
        half_labels: bool = False,
        fields: np.ndarray | None = None,
    ) -> GoldRegression:
        """Fit to galaxies with a gold label; with weights (of the bins), the covariance is that of a weighted sum.

        `terms` are those of all galaxies (`regression_terms`).

        With `half_labels`, of more than two classes, and if a class has no gold label, half a gold label of each class
        is added (Jeffreys' prior), so that a class without gold labels may be rare, not absent. `fields`, shape (N,),
        are numbers of the fields that the gold labels are from: draws include the scatter between fields.
        """
        places = bins.positions
        apart = np.abs(places[:, None] - places[None]).sum(axis=2)
        effects = np.linalg.cholesky(np.exp(-apart / _CORRELATED_OVER))
        rows = np.flatnonzero(gold != UNKNOWN)
        part = np.column_stack([terms[rows], effects[bins.index[rows]]])
        targets, w, ones = np.eye(n_classes)[gold[rows]], effective_weights(bins.weights[rows]), np.ones(rows.size)
        weighted, squares = np.ptp(w) > 0, w**2
        if half_labels or n_classes > 2 or not targets.any(axis=0).all():
            average = np.zeros((1, part.shape[1]))
            average[0, 0] = 1.0
            part = np.concatenate([part, average])
            targets = np.concatenate([targets, np.full((1, n_classes), 1 / n_classes)])
            w, ones, squares = (np.append(array, n_classes / 2) for array in (w, ones, squares))
        of_fields = np.full(len(part), -1)
        if fields is not None:
            of_fields[: rows.size] = fields[rows]
        in_fields = np.unique(of_fields[of_fields >= 0]).size >= FEWEST_FIELDS
        fixed = np.concatenate([[_INTERCEPT], np.full(terms.shape[1] - 1, _COEFFICIENT)])
        between = class_precision(n_classes - 1)
        fits: list[tuple[float, np.ndarray, np.ndarray]] = []
        moves = []
        for effect in _EFFECTS:
            precision = np.concatenate([fixed, np.full(bins.count, effect)]) ** -2
            solved, information = fit_softmax(part, targets, precision, w, fits[-1][1] if fits else None)
            covariance = np.linalg.inv(information)
            if in_fields:
                moves.append(_moves_by_fields(part, targets, w, solved, covariance, of_fields))
            # Without weights, the products are the information.
            variances = class_variances(np.exp(log_probabilities(part, solved)))
            products = information_matrix(part, variances * squares[:, None, None])
            products += np.kron(between, np.diag(precision))
            # ln evidence = ln likelihood - cᵀΛc / 2 + ln |Λ| / 2 - ln |H| / 2, for coefficients c of prior precision Λ
            # and the curvature H: of the labels themselves, because with weights there is no likelihood.
            at, curvature = fit_softmax(part, targets, precision, ones, solved) if weighted else (solved, information)
            value = np.sum(ones[:, None] * targets * log_probabilities(part, at))
            value -= 0.5 * np.sum(precision * (at * (between @ at)))
            value += 0.5 * (n_classes - 1) * np.log(precision).sum() - 0.5 * np.linalg.slogdet(curvature)[1]
            fits.append((value, solved, covariance @ products @ covariance))
        log_evidence, coefficients, covariances = map(np.array, zip(*fits, strict=True))
        evidence = np.exp(log_evidence - log_evidence.max())
        by_field = np.array(moves) if moves else None
        return cls(terms, effects, bins, evidence / evidence.sum(), coefficients, covariances, by_field)

    def _design(self, rows: np.ndarray) -> np.ndarray:
        """Return terms and effects of some galaxies; those of all at once would need much memory."""
        return np.column_stack([self.terms[rows], self.effects[self.bins.index[rows]]])

    def probabilities(self, gold: np.ndarray) -> np.ndarray:
        """Return p(y | ỹ, α, z) of all galaxies, shape (N, K); those with a gold label are certainly of its class."""
        return as_labelled(self.predicted(np.arange(len(self.terms))), gold)

    def predicted(self, rows: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        """Return p(y | ỹ, α, z) of some galaxies, shape (n, K), or for draws of the coefficients, shape (n, S, K)."""
        if draws is not None:
            others = _probabilities(self._design(rows), draws)
            return np.concatenate([1 - others.sum(axis=2, keepdims=True), others], axis=2)
        out = np.zeros((rows.size, self.coefficients.shape[1] + 1))
        for begin in range(0, rows.size, _AT_ONCE):  # the design of all would need much memory
            part = slice(begin, begin + _AT_ONCE)
            design = self._design(rows[part])
            for weight, coefficient in zip(self.evidence, self.coefficients, strict=True):
                out[part] += weight * np.exp(log_probabilities(design, coefficient))
        return out

    def draws(self, rng: np.random.Generator) -> np.ndarray:
        """Return draws of the coefficients, shape (S, K - 1, R + B)."""
        how_many = rng.multinomial(SAMPLES, self.evidence)
        return np.concatenate(
            [coefficient + self._moves(rng, s, how_many[s]) for s, coefficient in enumerate(self.coefficients)]
        )

    def _moves(self, rng: np.random.Generator, s: int, n: int) -> np.ndarray:
        """Return n errors of the coefficients at one standard deviation of the effects, shape (n, K - 1, R + B)."""
        shape, covariance, of_fields = self.coefficients[s].shape, self.covariances[s], self.of_fields
        half = rng.multivariate_normal(np.zeros(len(covariance)), covariance, (n + 1) // 2, method="cholesky")
        moves = np.concatenate([half, -half])[:n].reshape(n, *shape)  # in pairs of opposite sign
        if of_fields is None:
            return moves
        number = of_fields.shape[2] // shape[0]
        # Few fields leave their scatter uncertain: Student's t.
        spread = np.sqrt((number - 1) / rng.chisquare(number - 1, n))
        effects = rng.normal(size=(n, of_fields.shape[2])) * spread[:, None]
        return moves + (effects @ of_fields[s].T).reshape(moves.shape)

    @one_thread()
    def fractions(self, gold: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return class fractions in each bin, shape (B, K), and draws of them, shape (S, B, K).

        Gold labels are counted as they are. Other galaxies contribute expected class counts or, in a draw, random
        classes from drawn coefficients.
        """
        rng = np.random.default_rng(seed)
        bins, n_classes = self.bins, self.coefficients.shape[1] + 1
        counted = np.stack([bins.sums(gold == k) for k in range(n_classes)], axis=1)
        expected = counted.copy()
        shuffled = rng.permutation(np.flatnonzero(gold == UNKNOWN))
        rest = [shuffled[bins.index[shuffled] == b] for b in range(bins.count)]
        how_many = rng.multinomial(SAMPLES, self.evidence)
        parts = []
        for s, (coefficients, evidence, n) in enumerate(zip(self.coefficients, self.evidence, how_many, strict=True)):
            moves = self._moves(rng, s, n)
            sums = np.tile(counted, (n, 1, 1))
            for b, others in enumerate(rest):
                if others.size == 0:
                    continue
                design, w = self._design(others), bins.weights[others]
                q = np.exp(log_probabilities(design, coefficients))
                expected[b] += evidence * (w @ q)
                sums[:, b] += drawn_counts(rng, w, q, _probabilities(design[:DRAWN_ON], coefficients + moves))
            parts.append(sums)
        drawn = np.concatenate(parts)
        return expected / bins.totals[:, None], drawn / drawn.sum(axis=2, keepdims=True)


def as_labelled(p: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return probabilities, shape (N, K), after those of galaxies with a gold label are set to 0 and 1, in place."""
    has_gold = gold >= 0
    p[has_gold] = np.eye(p.shape[1])[gold[has_gold]]
    return p


def _moves_by_fields(
    design: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    coefficients: np.ndarray,
    covariance: np.ndarray,
    fields: np.ndarray,
) -> np.ndarray:
    """Return how much coefficients change by a standard deviation of each field's effect, ((K - 1) Q, F (K - 1)).

    A field changes the log-odds of its galaxies by u, of covariance τ² (I + J) / 2. Sums of residuals over its gold
    labels are then A u plus noise, with the projection A of the regression that absorbed a part of it. τ² follows
    from the sum of their squares (the method of moments; it is 0 if they are no larger than noise).
    """
    p = np.exp(log_probabilities(design, coefficients))
    variances = class_variances(p) * weights[:, None, None]
    residuals = (weights[:, None] * (targets - p))[:, 1:]
    numbers, k = np.unique(fields[fields >= 0]), coefficients.shape[0]
    inside = (fields[:, None] == numbers).astype(float)
    # Derivatives of each field's sum of scores, ((K - 1) Q, F, K - 1), and of its sum of residuals by its own u.
    slopes = np.einsum("nq,nf,nab->aqfb", design, inside, variances).reshape(-1, numbers.size * k)
    own = np.einsum("nf,nab->fab", inside, variances)
    projection = block_diag(*own) - slopes.T @ covariance @ slopes
    sums = np.einsum("nf,na->fa", inside, residuals).ravel()
    of_classes = np.kron(np.eye(numbers.size), 0.5 * (np.eye(k) + 1))
    expected = np.trace(projection @ of_classes @ projection.T)
    variance = max(0.0, float(sums @ sums - np.trace(projection))) / max(float(expected), 1e-12)
    return np.sqrt(variance) * covariance @ slopes @ np.linalg.cholesky(of_classes)


def _probabilities(design: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return probabilities of classes 1 to K - 1, shape (n, S, K - 1), for S sets of coefficients, shape (S, K - 1, Q).

    In place, because new memory takes several times as long as the exponentials.
    """
    p = np.tensordot(design, coefficients, axes=(1, 2))
    np.exp(np.clip(p, -_CLIP, _CLIP, out=p), out=p)
    p /= 1 + p.sum(axis=2, keepdims=True)
    return p


def drawn_counts(rng: np.random.Generator, w: np.ndarray, q: np.ndarray, each: np.ndarray) -> np.ndarray:
    """Return draws of weighted class counts of N galaxies, shape (S, K), from class probabilities q, (N, K).

    `each` are probabilities of classes 1 to K - 1 for n of them and drawn coefficients, (n, S, K - 1). Negative
    counts are set to 0, and the others scaled to the same total.
    """
    share, total, free = w[: len(each)] / w[: len(each)].sum(), w.sum(), q[:, 1:]
    mean = w @ free + total * (np.tensordot(share, each, axes=1) - share @ free[: len(each)])
    spread = np.diag(w**2 @ free) - np.einsum("n,nk,nj->kj", w**2, free, free)
    mean += rng.multivariate_normal(np.zeros(len(spread)), spread, len(mean))
    drawn = np.column_stack([total - mean.sum(axis=1), mean])
    bad = np.flatnonzero((drawn < 0).any(axis=1))
    counts = np.maximum(drawn[bad], 0.0)
    counts *= total / counts.sum(axis=1, keepdims=True)
    largest = np.arange(bad.size), counts.argmax(axis=1)
    counts[largest] = 0.0
    counts[largest] = total - counts.sum(axis=1)
    drawn[bad] = counts
    return drawn


def sample_terms(sample: Sample) -> np.ndarray:
    """Return the terms of the regression of a sample's gold labels, shape (N, R)."""
    columns = []
    if sample.counts is not None and sample.asked is not None:
        columns.append(sample.asked.votes(sample.counts).log_odds)
    if sample.probability is not None:
        columns.append(propensity_columns(sample.probability))
    return regression_terms(sample.labels, sample.argument, sample.n_classes, columns)


def fractions_of_all(sample: Sample, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return class fractions of all galaxies, shape (K,), by regression in bins of α, and draws of them, (S, K)."""
    bins = Bins.cut(sample.alpha, default_bins(sample.labels.size), sample.weights)
    fractions, drawn = GoldRegression.fit(sample_terms(sample), sample.gold, bins, sample.n_classes).fractions(
        sample.gold, seed
    )
    share = bins.totals / sample.weights.sum()
    return share @ fractions, np.einsum("b,sbk->sk", share, drawn)


def regression_terms(
    labels: np.ndarray, alpha: np.ndarray, n_labels: int = 2, columns: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Return one, and the standardised terms of the regression, shape (N, R)."""
    u = alpha.reshape(len(alpha), -1).copy()
    smallest = u[u[:, 0] > 0, 0].min(initial=1.0)
    u[:, 0] = np.log(np.maximum(u[:, 0], smallest))  # the first observable is the resolution
    u = (u - u.mean(axis=0)) / np.where(u.std(axis=0) > 0, u.std(axis=0), 1.0)
    # Each of more than two labels has a column, so that their order does not matter; with half the variance, so that
    # the difference between two labels has the same prior as where there are no others.
    member = np.eye(n_labels)[labels][:, 1 if n_labels == 2 else 0 :] - 1 / n_labels
    of_label = 1.0 if n_labels == 2 else np.sqrt(0.5)
    parts = [(member, of_label), (u, 1.0), (u**2 - 1, 1.0), *((member * column[:, None], of_label) for column in u.T)]
    parts += [(column, 1.0) for column in columns]
    terms = np.column_stack([np.ones(labels.size), *(part for part, _ in parts)])
    scales = np.concatenate([np.full(part[0].size, scale) for part, scale in parts])
    for column, scale in zip(terms[:, 1:].T, scales, strict=True):  # one by one, to save memory
        column -= column.mean()
        column /= column.std() or 1.0
        column *= scale
    return terms
