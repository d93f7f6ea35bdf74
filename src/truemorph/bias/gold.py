"""Use gold labels to estimate class fractions and T(α), without assumptions on class fractions.

Gold labels are expert classifications, or classes from better images, of a random part of the galaxies. p(y | ỹ, α, z)
is fitted to them by regression. Class fractions use gold labels where known, and predictions for the other galaxies.
T(α) is fitted to the gold labels, weighted with the help of the regression over all galaxies, which reduces its
variance (Robins, Rotnitzky & Zhao 1994, JASA 89, 846; Deville & Särndal 1992, JASA 87, 376).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from truemorph.bias.binning import Bins, Groups
from truemorph.bias.fields import FEWEST_FIELDS
from truemorph.bias.likelihood import ROWS, label_columns
from truemorph.bias.maximum import (
    Maximum,
    class_precision,
    class_variances,
    differences,
    effective_weights,
    fit_softmax,
    information_matrix,
    log_probabilities,
    maximise,
)
from truemorph.bias.result import Settings, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.bias.transitions import ANSWER_UNKNOWN, UNKNOWN, Space
from truemorph.errors import InputError
from truemorph.workers import one_thread

SAMPLES = 1000
# Number of bins of α, and minimum number of galaxies in each.
BINS, PER_BIN = 8, 50
# Standard deviations (logit): of bin effects, which are averaged over; priors of other coefficients.
_EFFECTS, _COEFFICIENT, _INTERCEPT = (0.15, 0.3, 0.6, 1.2, 2.4), 1.0, 1000.0
# Bins over which the correlation of two effects falls by a factor of e.
_CORRELATED_OVER = 2.0
# Knots of the function of α that the control variate is centred on.
_KNOTS, _CHUNK = 17, 10_000
# Least part of a label's scatter that is left after it has entered the fit.
_LEAST_LEFT = 0.1
# Number of galaxies per bin on which draws are evaluated; the others follow their mean.
_DRAWN_ON = 400
_CLIP = 500.0
# Different probabilities of selection up to which each has an indicator.
_MOST_LEVELS = 10


def quadratic(column: np.ndarray) -> np.ndarray:
    """Return a standardised column and its square as covariates, shape (N, 2); of G groups, G indicators."""
    if isinstance(column, Groups):
        numbers = np.asarray(column)
        return (numbers[:, None] == np.unique(numbers)).astype(np.float64)
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
        labels: np.ndarray,
        alpha: np.ndarray,
        gold: np.ndarray,
        bins: Bins,
        columns: Sequence[np.ndarray] = (),
        n_labels: int = 2,
        n_classes: int = 2,
        half_labels: bool = False,
        fields: np.ndarray | None = None,
    ) -> GoldRegression:
        """Fit to galaxies with a gold label; with weights (of the bins), the covariance is that of a weighted sum.

        With `half_labels`, of more than two classes, and if a class has no gold label, half a gold label of each class
        is added (Jeffreys' prior), so that a class without gold labels may be rare, not absent. `fields`, shape (N,),
        are numbers of the fields that the gold labels are from: draws include the scatter between fields.
        """
        terms = _terms(labels, alpha, n_labels, columns)
        places = bins.positions
        apart = np.abs(places[:, None] - places[None]).sum(axis=2)
        effects = np.linalg.cholesky(np.exp(-apart / _CORRELATED_OVER))
        known = np.flatnonzero(gold != UNKNOWN)
        part = np.column_stack([terms[known], effects[bins.index[known]]])
        targets, w, ones = np.eye(n_classes)[gold[known]], effective_weights(bins.weights[known]), np.ones(known.size)
        weighted, squares = np.ptp(w) > 0, w**2
        if half_labels or n_classes > 2 or not targets.any(axis=0).all():
            average = np.zeros((1, part.shape[1]))
            average[0, 0] = 1.0
            part = np.concatenate([part, average])
            targets = np.concatenate([targets, np.full((1, n_classes), 1 / n_classes)])
            w, ones, squares = (np.append(one, n_classes / 2) for one in (w, ones, squares))
        of_fields = np.full(len(part), -1)
        if fields is not None:
            of_fields[: known.size] = fields[known]
        in_fields = np.unique(of_fields[of_fields >= 0]).size >= FEWEST_FIELDS
        fixed = np.concatenate([[_INTERCEPT], np.full(terms.shape[1] - 1, _COEFFICIENT)])
        between = class_precision(n_classes - 1)
        fits: list[tuple[float, np.ndarray, np.ndarray]] = []
        moves = list[np.ndarray]()
        for effect in _EFFECTS:
            precision = np.concatenate([fixed, np.full(bins.count, effect)]) ** -2
            found, information = fit_softmax(part, targets, precision, w, fits[-1][1] if fits else None)
            covariance = np.linalg.inv(information)
            if in_fields:
                moves.append(_moves_by_fields(part, targets, w, found, covariance, of_fields))
            # Without weights, the products are the information.
            variances = class_variances(np.exp(log_probabilities(part, found)))
            products = information_matrix(part, variances * squares[:, None, None])
            products += np.kron(between, np.diag(precision))
            # ln evidence = ln likelihood - cᵀΛc / 2 + ln |Λ| / 2 - ln |H| / 2, for coefficients c of prior precision Λ
            # and the curvature H: of the labels themselves, because with weights there is no likelihood.
            at, curvature = fit_softmax(part, targets, precision, ones, found) if weighted else (found, information)
            value = np.sum(ones[:, None] * targets * log_probabilities(part, at))
            value -= 0.5 * np.sum(precision * (at * (between @ at)))
            value += 0.5 * (n_classes - 1) * np.log(precision).sum() - 0.5 * np.linalg.slogdet(curvature)[1]
            fits.append((value, found, covariance @ products @ covariance))
        log_evidence, coefficients, covariances = map(np.array, zip(*fits, strict=True))
        evidence = np.exp(log_evidence - log_evidence.max())
        by_field = np.array(moves) if moves else None
        return cls(terms, effects, bins, evidence / evidence.sum(), coefficients, covariances, by_field)

    def _design(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return terms and effects of some galaxies; those of all at once would need much memory."""
        return np.column_stack([self.terms[rows], self.effects[self.bins.index[rows]]])

    @property
    def probabilities(self) -> np.ndarray:
        """Return p(y | ỹ, α, z), shape (N, K)."""
        return self.predicted(np.arange(len(self.terms)))

    def predicted(self, rows: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        """Return p(y | ỹ, α, z) of some galaxies, shape (n, K), or for draws of the coefficients, shape (n, S, K)."""
        if draws is not None:
            return _probabilities(self._design(rows), draws)
        out = np.zeros((rows.size, self.coefficients.shape[1] + 1))
        for begin in range(0, rows.size, ROWS):
            part = slice(begin, begin + ROWS)
            design = self._design(rows[part])
            for weight, one in zip(self.evidence, self.coefficients, strict=True):
                out[part] += weight * np.exp(log_probabilities(design, one))
        return out

    def draws(self, rng: np.random.Generator) -> np.ndarray:
        """Return draws of the coefficients, shape (S, K - 1, R + B)."""
        how_many = rng.multinomial(SAMPLES, self.evidence)
        return np.concatenate([one + self._moves(rng, s, how_many[s]) for s, one in enumerate(self.coefficients)])

    def _moves(self, rng: np.random.Generator, s: int, n: int) -> np.ndarray:
        """Return n errors of the coefficients at one standard deviation of the effects, shape (n, K - 1, R + B)."""
        shape, of_fields = self.coefficients[s].shape, self.of_fields
        moves = _moves(rng, self.covariances[s], n, shape)
        if of_fields is None:
            return moves
        number = of_fields.shape[2] // shape[0]
        # Few fields leave their scatter uncertain: Student's t.
        spread = np.sqrt((number - 1) / rng.chisquare(number - 1, n))
        effects = rng.normal(size=(n, of_fields.shape[2])) * spread[:, None]
        return moves + (effects @ of_fields[s].T).reshape(moves.shape)

    @one_thread
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
        found = []
        for s, (coefficients, evidence, n) in enumerate(zip(self.coefficients, self.evidence, how_many, strict=True)):
            moves = self._moves(rng, s, n)
            sums = np.tile(counted, (n, 1, 1))
            for b, others in enumerate(rest):
                if others.size == 0:
                    continue
                design, w = self._design(others), bins.weights[others]
                q = np.exp(log_probabilities(design, coefficients))
                expected[b] += evidence * (w @ q)
                each = _probabilities(design[:_DRAWN_ON], coefficients + moves)[:, :, 1:]
                share = w[:_DRAWN_ON] / w[:_DRAWN_ON].sum()
                mean = w @ q[:, 1:] + w.sum() * np.tensordot(share, each - q[:_DRAWN_ON, None, 1:], axes=1)
                spread = np.einsum("n,nk,nj->kj", w**2, q[:, 1:], -q[:, 1:]) + np.diag(w**2 @ q[:, 1:])
                mean = mean + rng.multivariate_normal(np.zeros(n_classes - 1), spread, n)
                sums[:, b] += _not_negative(np.column_stack([w.sum() - mean.sum(axis=1), mean]), w.sum())
            found.append(sums / bins.totals[:, None])
        drawn = np.concatenate(found)
        return expected / bins.totals[:, None], drawn / drawn.sum(axis=2, keepdims=True)


@dataclass(frozen=True)
class NestedRegression:
    """Whether a question applies, class 0 or another, and its answer where it does: p(applies) p(answer | applies).

    Two regressions, each with bin effects of its own size. Galaxies for which it is only known that the question
    applies (`ANSWER_UNKNOWN`) enter the first.
    """

    applies: GoldRegression | None  # None: it applies to all galaxies
    answers: GoldRegression

    @classmethod
    def fit(
        cls,
        labels: np.ndarray,
        alpha: np.ndarray,
        gold: np.ndarray,
        bins: Bins,
        columns: Sequence[np.ndarray],
        n_labels: int,
        n_classes: int,
        fields: np.ndarray | None = None,
    ) -> NestedRegression:
        """Fit to galaxies with a gold label."""
        whether = np.where(gold == UNKNOWN, UNKNOWN, gold != 0)
        answered = np.where(gold > 0, gold - 1, UNKNOWN)
        applies = None
        if np.any(gold == 0):
            applies = GoldRegression.fit(labels, alpha, whether, bins, columns, n_labels, 2, True, fields)
        answers = GoldRegression.fit(labels, alpha, answered, bins, columns, n_labels, n_classes - 1, True, fields)
        return cls(applies, answers)

    def joint(
        self, rows: np.ndarray, gold: np.ndarray, draws: tuple[np.ndarray | None, np.ndarray] | None = None
    ) -> np.ndarray:
        """Return probabilities of all classes, shape (n, K), or for draws of the coefficients, (n, S, K)."""
        of_applies, of_answers = (None, None) if draws is None else draws
        answers = self.answers.predicted(rows, of_answers)
        applies = np.ones(answers.shape[:-1])
        if self.applies is not None:
            applies = self.applies.predicted(rows, of_applies)[..., 1]
            applies[gold[rows] == ANSWER_UNKNOWN] = 1.0
        return np.concatenate([1 - applies[..., None], applies[..., None] * answers], axis=-1)

    @one_thread
    def fractions(self, gold: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return class fractions in each bin and draws of them, as `GoldRegression.fractions`."""
        rng, bins = np.random.default_rng(seed), self.answers.bins
        n_classes = self.answers.coefficients.shape[1] + 2
        counted = np.stack([bins.sums(gold == k) for k in range(n_classes)], axis=1)
        draws = None if self.applies is None else self.applies.draws(rng), rng.permutation(self.answers.draws(rng))
        expected, drawn = counted.copy(), np.tile(counted, (SAMPLES, 1, 1))
        shuffled = rng.permutation(np.flatnonzero(gold < 0))
        for b in range(bins.count):
            others = shuffled[bins.index[shuffled] == b]
            if others.size == 0:
                continue
            w, q = bins.weights[others], self.joint(others, gold)
            expected[b] += w @ q
            some, share = others[:_DRAWN_ON], w[:_DRAWN_ON] / w[:_DRAWN_ON].sum()
            each = self.joint(some, gold, draws)
            mean = w @ q + w.sum() * np.tensordot(share, each - q[:_DRAWN_ON, None], axes=1)
            free = q[:, 1:]
            spread = np.diag(w**2 @ free) - np.einsum("n,nk,nj->kj", w**2, free, free)
            noise = rng.multivariate_normal(np.zeros(n_classes - 1), spread, SAMPLES)
            mean += np.column_stack([-noise.sum(axis=1), noise])
            drawn[:, b] += _not_negative(mean, w.sum())
        return expected / bins.totals[:, None], drawn / drawn.sum(axis=2, keepdims=True)


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
    inside = (fields[:, None] == numbers).astype(np.float64)
    # Derivatives of each field's sum of scores, ((K - 1) Q, F, K - 1), and of its sum of residuals by its own u.
    slopes = np.einsum("nq,nf,nab->aqfb", design, inside, variances).reshape(-1, numbers.size * k)
    own = np.einsum("nf,nab->fab", inside, variances)
    projection = -slopes.T @ covariance @ slopes
    for f, block in enumerate(own):
        projection[f * k : (f + 1) * k, f * k : (f + 1) * k] += block
    sums = np.einsum("nf,na->fa", inside, residuals).ravel()
    of_classes = np.kron(np.eye(numbers.size), 0.5 * (np.eye(k) + 1))
    expected = np.trace(projection @ of_classes @ projection.T)
    variance = max(0.0, float(sums @ sums - np.trace(projection))) / max(float(expected), 1e-12)
    return np.asarray(np.sqrt(variance) * covariance @ slopes @ np.linalg.cholesky(of_classes))


def _moves(rng: np.random.Generator, covariance: np.ndarray, n: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return n normal errors of coefficients of this shape, in pairs of opposite sign."""
    moves = rng.multivariate_normal(np.zeros(len(covariance)), covariance, (n + 1) // 2, method="cholesky")
    return np.concatenate([moves, -moves])[:n].reshape(n, *shape)


def _probabilities(design: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return class probabilities, shape (n, S, K), for S sets of coefficients, shape (S, K - 1, Q)."""
    scores = np.tensordot(design, coefficients, axes=(1, 2))  # (n, S, K - 1)
    odds = np.exp(np.clip(scores, -_CLIP, _CLIP))
    total = 1 + odds.sum(axis=2, keepdims=True)
    return np.concatenate([1 / total, odds / total], axis=2)


def _not_negative(drawn: np.ndarray, total: float) -> np.ndarray:
    """Return drawn class counts, shape (S, K), with negative ones set to 0 and the others scaled to the same total."""
    bad = np.flatnonzero((drawn < 0).any(axis=1))
    counts = np.maximum(drawn[bad], 0.0)
    counts *= total / counts.sum(axis=1, keepdims=True)
    largest = counts.argmax(axis=1)
    counts[np.arange(bad.size), largest] = 0.0
    counts[np.arange(bad.size), largest] = total - counts.sum(axis=1)
    drawn[bad] = counts
    return drawn


def _terms(labels: np.ndarray, alpha: np.ndarray, n_labels: int, columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return one, and the standardised terms of the regression, shape (N, R)."""
    observables = alpha[:, None] if alpha.ndim == 1 else alpha
    u = observables.copy()
    smallest = u[u[:, 0] > 0, 0].min(initial=1.0)
    u[:, 0] = np.log(np.maximum(u[:, 0], smallest))  # the first observable is the resolution
    u = (u - u.mean(axis=0)) / np.where(u.std(axis=0) > 0, u.std(axis=0), 1.0)
    # Each of more than two labels has a column, so that their order does not matter; with half the variance, so that
    # the difference between two labels has the same prior as where there are no others.
    member = np.eye(n_labels)[labels][:, 1 if n_labels == 2 else 0 :] - 1 / n_labels
    of_label = 1.0 if n_labels == 2 else np.sqrt(0.5)
    parts = [(member, of_label), (u, 1.0), (u**2 - 1, 1.0), *((member * one[:, None], of_label) for one in u.T)]
    parts += [(column, 1.0) for column in columns]
    terms = np.column_stack([np.ones(labels.size), *(part for part, _ in parts)])
    scales = np.concatenate([np.full(part[0].size, scale) for part, scale in parts])
    for column, scale in zip(terms[:, 1:].T, scales, strict=True):  # one by one, to save memory
        column -= column.mean()
        column /= column.std() or 1.0
        column *= scale
    return terms


def _gold_terms(space: Space, sample: Sample) -> Callable[[np.ndarray], np.ndarray]:
    """Return log p(ỹ | y, α) of galaxies with a gold label, shape (n,), as a function of T's parameters."""
    assert sample.gold is not None
    known = np.flatnonzero(sample.known)
    classes, labels, alpha = sample.gold[known], sample.labels[known], sample.argument[known]

    def terms(point: np.ndarray) -> np.ndarray:
        columns = label_columns(space.build(point), labels, alpha)
        return np.asarray(columns[np.arange(known.size), classes])

    return terms


def gold_maximum(space: Space, sample: Sample, calibration: np.ndarray | float = 1.0) -> Maximum:
    """Maximise the likelihood of the observed labels given gold labels, Σ w log p(ỹ | y, α)."""
    terms, w = _gold_terms(space, sample), sample.gold_weights[sample.known] * calibration

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        return float(w @ terms(point)), differences(terms, point) @ w

    return maximise(objective, space.starts, space.lower, space.upper, w.size)


def _projected(alpha: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the part of values that is a function of α (and of each other observable), both of shape (P, N).

    The function is linear between knots with equal numbers of galaxies, fitted by least squares.
    """
    columns = alpha.reshape(len(alpha), -1).T
    knots = [np.unique(np.quantile(column, np.linspace(0, 1, _KNOTS))) for column in columns]

    def design(rows: slice) -> np.ndarray:
        """Return triangles of height 1 around each knot, as many as knots, shape (Q, n)."""
        numbers = [np.arange(at.size) for at in knots]
        parts = zip(columns, knots, numbers, strict=True)
        return np.concatenate(
            [np.maximum(1 - np.abs(np.interp(one[rows], at, k) - k[:, None]), 0.0) for one, at, k in parts]
        )

    chunks = [slice(begin, begin + _CHUNK) for begin in range(0, len(alpha), _CHUNK)]
    products = sum(one @ one.T for one in map(design, chunks))
    moments = sum(design(rows) @ values[:, rows].T for rows in chunks)
    coefficients = np.linalg.pinv(products, hermitian=True) @ moments
    return np.concatenate([coefficients.T @ design(rows) for rows in chunks], axis=1)


@one_thread
def by_gold(space: Space, sample: Sample, settings: Settings) -> TransitionFit:
    """Fit T to gold labels, weighted so that their labels, given α, are distributed as those of all galaxies.

    The weights follow the influence on T that the regression expects of a galaxy with such a label (calibration:
    Deville & Särndal 1992, JASA 87, 376), which reduces the variance.
    """
    gold, known, n = sample.gold, sample.known, sample.labels.size
    assert gold is not None
    counts = np.bincount(gold[known], minlength=sample.n_classes)
    if not counts.all():
        raise InputError(f"no gold label of class {int(np.argmin(counts))}; T(alpha) needs some of every class")
    bins = Bins.cut(sample.alpha, max(1, min(BINS, n // PER_BIN)), sample.weights)
    columns = [] if sample.probability is None else [propensity_columns(sample.probability)]

    def regression(bins: Bins) -> GoldRegression:
        return GoldRegression.fit(
            sample.labels, sample.argument, gold, bins, columns, sample.n_classes, sample.n_classes
        )

    fractions, drawn = regression(bins).fractions(gold, settings.seed)
    share = bins.totals / sample.weights.sum()
    samples = np.einsum("b,sbk->sk", share, drawn)
    first = best = gold_maximum(space, sample)
    inverse = np.nan_to_num(first.covariance())

    def influences(at: Maximum) -> np.ndarray:
        """Return the influence of each gold label on the parameters, shape (P, n)."""
        slopes = differences(_gold_terms(space, sample), at.point)
        return np.nan_to_num(at.covariance()) @ (slopes * sample.gold_weights[known])

    ratio = sample.gold_weights[known] / sample.weights[known]  # how much more a gold label weighs than its galaxy
    drawn_into = np.zeros(n)
    drawn_into[known] = ratio
    # How much more often galaxies have a gold label than others of their α do: (1 - H) g, where H projects on functions
    # of α. Only this may enter: the gold labels' own distribution of α carries no information on T.
    beyond = drawn_into - _projected(sample.argument, drawn_into[None])[0]

    def control() -> np.ndarray:
        """Return the expected influence of every galaxy given its label, minus that given α alone, shape (P, N)."""
        # Without bin effects, which would follow the gold labels and hide some of their scatter.
        plain = regression(Bins.cut(sample.alpha, 1, sample.weights)).probabilities

        def expected(at: np.ndarray) -> np.ndarray:
            return np.einsum("nk,nk->n", plain, label_columns(space.build(at), sample.labels, sample.argument))

        found = inverse @ (differences(expected, first.point) * sample.weights)
        return found - _projected(sample.argument, found)

    own = influences(first)
    n_gold = own.shape[1]
    moved, slope = np.zeros_like(own), np.zeros((space.size, space.size))
    chance = drawn_into[known] - beyond[known] if sample.probability is None else sample.probability[known]
    chance = np.clip(chance, 0.0, 1.0)
    if 6 * space.size < n_gold < n:  # fewer do not determine the weights; all need none
        moved = ratio * control()[:, known]
        products = np.linalg.pinv((moved * (1 - chance)) @ moved.T)
        # Over all galaxies, Σ (1 - H) x = 0; the weights make it so over the gold labels.
        calibration = np.maximum(1 - (1 - chance) * (moved.sum(axis=1) @ products @ moved), 0.0)
        best = gold_maximum(space, sample, calibration)
        own = influences(best) * calibration
        slope = (own * (1 - chance)) @ moved.T @ products
    # A label that determines the parameters hides its own scatter (HC3: MacKinnon & White 1985, J. Econom. 29, 305).
    leverage = np.einsum("pn,pq,qn->n", own, np.linalg.pinv(own @ own.T), own)
    scale = np.maximum(1 - leverage, _LEAST_LEFT)
    left, whole = (own - slope @ moved) / scale, own / scale
    covariance = (left * (1 - chance)) @ left.T + (whole * chance) @ whole.T
    covariance[~best.free], covariance[:, ~best.free] = np.nan, np.nan

    def influence() -> np.ndarray:
        pulls = -slope @ (control() * beyond)
        pulls[:, known] += own
        return pulls

    return TransitionFit.of(
        space,
        sample,
        settings,
        best.point,
        covariance,
        share @ fractions,
        np.array([column.std() for column in samples.T]),
        log_likelihood=first.value,
        n_parameters=space.size,
        influence=influence,
        fraction_samples=samples,
    )
