"""The checked arrays of the galaxies from which an estimate is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from truemorph.arrays import check_rows, float_array
from truemorph.bias.curves.paths import check_counts
from truemorph.bias.curves.transitions import ANSWER_UNKNOWN, UNKNOWN, Array, as_resolution
from truemorph.bias.likelihood import check_classes, check_columns, check_labels, check_weights, classes_in
from truemorph.errors import InputError
from truemorph.questions import Asked, Votes, class_names
from truemorph.workers import one_thread

# Fewest gold labels of a fit.
FEWEST = 20
# R² of log α on intrinsic columns above which they are refused.
REFUSED = 0.999
# Columns encode classes if each of at most so many values is of one class, or if a small tree is wrong for less than
# this part of the galaxies. Classes of fewer galaxies than the last number are not tested.
_ENCODED_VALUES, _ENCODED_WRONG, _ENCODED_FEWEST = 10, 0.005, 5
# The tree must be wrong for less than 2 % of all galaxies, with a confidence of 99 %.
_ENCODED_CHANCE, _ENCODED_LEVEL = 0.02, 0.01
# Number of galaxies on which columns are tested.
_TESTED = 20_000
# Fewer galaxies cannot tell how well columns predict α.
_FEWEST_EXPLAINED = 30


@dataclass(frozen=True)
class Sample:
    """Arrays of N galaxies, checked once; `take` indexes them by rows."""

    labels: np.ndarray  # (N,): observed labels
    alpha: np.ndarray  # (N,): resolution
    classes: tuple[str, ...]  # (K,): names
    weights: np.ndarray  # (N,): sampling weights of mean 1; ones where none were given
    gold: np.ndarray  # (N,): -1 where unknown
    observables: np.ndarray  # (N, J): what T depends on beside α
    observable_names: tuple[str, ...]  # (J,)
    intrinsic: np.ndarray  # (N, P): columns that vary
    probability: np.ndarray | None = None  # (N,): of selection for a gold label; None for random selection
    # (N,): nonzero where people could not tell the class, or did not agree; above 1 where a question may not apply.
    uncertain: np.ndarray | None = None
    asked: Asked | None = None  # of labels that are paths through a tree
    paths: np.ndarray | None = None  # (N,): majority path to the answers of a question
    log_odds: np.ndarray | None = None  # (N, P): of the votes at each gate and for the question
    fields: np.ndarray | None = None  # (N,): field on the sky of each gold label, -1 without; None if they are spread
    counts: np.ndarray | None = None  # (N, A): votes for the answers at its gates; None for labels alone

    @classmethod
    def of(
        cls,
        labels: Array,
        alpha: Array,
        *,
        classes: Sequence[str] | None = None,
        observables: Array | Mapping[str, Array] | None = None,
        intrinsic: Array | None = None,
        gold: Array | None = None,
        gold_probability: Array | None = None,
        gold_uncertain: Array | None = None,
        gold_field: Array | None = None,
        weights: Array | None = None,
        of_question: bool = False,
    ) -> Sample:
        """Check shapes and values; without names of `classes`, labels and gold labels determine K.

        Labels may be `Votes` of a question. Without gold labels, intrinsic columns must not encode the labels. Of a
        question, class 0 is that to which it does not apply, and gold labels may be `ANSWER_UNKNOWN`.
        """
        resolution, of_tree = as_resolution(float_array(alpha, "alpha")), dict[str, Any]()
        n = resolution.size
        if isinstance(labels, Votes):
            counts, asked = labels.columns, labels.asked
            check_counts(counts)
            of_labels = counts[:, asked.parts[0]].sum(axis=1).max(initial=0) <= 1  # as one vote each
            of_tree = {"asked": asked, "paths": labels.paths, "counts": None if of_labels else counts}
            classes, labels = asked.classes, labels.labels
        if classes is None:
            classes = class_names(classes_in(labels, *([] if gold is None else [gold])))
        n_classes = len(classes)
        observed = check_labels(labels, n_classes)
        if observed.size != n:
            raise InputError(f"labels and alpha must have one value per galaxy; got {observed.size} and {n}")
        numbers = np.full(n, UNKNOWN)
        if gold is not None:
            numbers = check_gold(gold, n, n_classes, ANSWER_UNKNOWN if of_question else UNKNOWN)
        others, named = np.empty((n, 0)), tuple[str, ...]()
        if observables is not None:
            by_name = isinstance(observables, Mapping)
            stacked = np.column_stack(list(observables.values())) if by_name else observables
            others = check_columns(stacked, "observables", n)
            named = tuple(observables) if by_name else tuple(f"observable {j}" for j in range(1, others.shape[1] + 1))
        columns = np.empty((n, 0)) if intrinsic is None else check_intrinsic(intrinsic, n)
        if gold is None:  # with gold labels, votes and predictions help to predict the true class
            check_not_encoded(columns, observed, "intrinsic", "the observed label")
        return cls(
            observed,
            resolution,
            tuple(classes),
            np.broadcast_to(1.0, n) if weights is None else check_weights(weights, n),
            numbers,
            others,
            named,
            columns,
            probability=None
            if gold is None or gold_probability is None
            else check_probability(gold_probability, numbers),
            uncertain=None if gold_uncertain is None else check_columns(gold_uncertain, "gold_uncertain", n)[:, 0],
            fields=None if gold_field is None or gold is None else numbered_fields(gold_field, numbers != UNKNOWN),
            **of_tree,
        )

    def take(self, rows: np.ndarray) -> Sample:
        """Return the sample of some rows, which may repeat; an error if too few have gold labels."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen = {name: values[rows] for name, values in arrays.items() if isinstance(values, np.ndarray)}
        chosen["weights"] = chosen["weights"] / chosen["weights"].mean()
        chosen["intrinsic"] = np.asfortranarray(chosen["intrinsic"])
        if self.has_gold:
            _check_enough(chosen["gold"])
        return replace(self, **chosen)

    def without_observables(self) -> Sample:
        """Return the sample for a T of α alone."""
        return replace(self, observables=self.observables[:, :0], observable_names=())

    @property
    def n_classes(self) -> int:
        """Number of classes, K."""
        return len(self.classes)

    @cached_property
    def argument(self) -> np.ndarray:
        """Argument of T: α, shape (N,), or α and the observables, shape (N, 1 + J)."""
        return np.column_stack([self.alpha, self.observables]) if self.observable_names else self.alpha

    @cached_property
    def log_alpha(self) -> np.ndarray:
        """Logarithm of α, shape (N,); of unresolved galaxies that of the smallest α above 0."""
        return np.log(np.maximum(self.alpha, self.alpha[self.alpha > 0].min()))

    @property
    def observed(self) -> np.ndarray:
        """Labels as 0 and 1, shape (N, K)."""
        return np.eye(self.n_classes)[self.labels]

    @property
    def known(self) -> np.ndarray:
        """Whether a galaxy has a gold label, shape (N,)."""
        return self.gold != UNKNOWN

    @property
    def has_gold(self) -> bool:
        """Whether there are gold labels."""
        return bool(self.known.any())

    @property
    def gold_weights(self) -> np.ndarray:
        """Weights of the galaxies with gold labels, shape (N,): sampling weights over probabilities of selection."""
        if self.probability is None:
            return self.weights
        out = self.weights / np.where(self.known, self.probability, 1.0)
        return out * self.weights[self.known].sum() / out[self.known].sum()  # with the same sum over the known rows

    @cached_property
    def explained(self) -> float:
        """R² of log α on the intrinsic columns; an error if they determine α, as size and redshift at constant PSF."""
        if not self.intrinsic.size:
            return 0.0
        r_squared = explained_variance(self.log_alpha, self.intrinsic)
        if r_squared > REFUSED:
            reason = f"the intrinsic columns determine alpha (R² = {r_squared:.4f} of log alpha)"
            raise InputError(f"{reason}; use columns that do not set alpha, such as the axis ratio, or gold labels")
        return r_squared


def check_gold(gold: Any, n: int, n_classes: int, least: int) -> np.ndarray:
    """Return gold labels as an (N,) int array, -1 if unknown; there must be 20."""
    values = np.asarray(np.ma.filled(gold, UNKNOWN))
    if values.shape != (n,):
        raise InputError(f"gold must have one value per galaxy, -1 if unknown; got shape {values.shape} for {n}")
    if np.issubdtype(values.dtype, np.floating):
        values = np.where(np.isfinite(values), values, UNKNOWN)
    classes = check_classes(values, n_classes, "gold", least)
    _check_enough(classes)
    return classes


def _check_enough(gold: np.ndarray) -> None:
    number = np.count_nonzero(gold >= 0)
    if number < FEWEST:
        raise InputError(f"only {number} gold labels; a fit needs at least {FEWEST}")


def check_probability(probability: object, gold: np.ndarray) -> np.ndarray:
    """Return probabilities of selection, (N,), above 0 where there is a gold label."""
    values = float_array(probability, "gold_probability")
    if values.shape != gold.shape:
        raise InputError(f"gold_probability must have one value a galaxy; got shape {values.shape} for {gold.size}")
    good = (values >= 0) & (values <= 1) & ((gold == UNKNOWN) | (values > 0))
    check_rows(good, "gold_probability must be 0 to 1, and above 0 where there is a gold label", values)
    return values


def numbered_fields(fields: Array, has_gold: np.ndarray) -> np.ndarray:
    """Return the field of each gold label as a number, shape (N,), -1 elsewhere; `fields` are numbers or names."""
    names = np.asarray(fields)
    if names.shape != has_gold.shape:
        raise InputError(f"gold_field must have one value per galaxy; got shape {names.shape} for {has_gold.size}")
    return np.where(has_gold, np.unique(names.astype(str), return_inverse=True)[1], -1)


def check_intrinsic(intrinsic: object, n: int) -> np.ndarray:
    """Return intrinsic columns as a finite (N, P) array."""
    columns = check_columns(intrinsic, "intrinsic", n)
    constant = np.flatnonzero(np.ptp(columns, axis=0) <= 1e-12 * np.abs(columns).max(axis=0))
    if constant.size:
        raise InputError(f"intrinsic column {constant[0]} is the same for all galaxies; remove it")
    return np.asfortranarray(columns)  # numpy sums contiguous columns more exactly


def check_not_encoded(columns: np.ndarray, classes: np.ndarray, name: str, what: str) -> None:
    """Refuse columns, shape (N, P), that give away known classes (-1 if unknown): they are no intrinsic properties."""
    tested = np.random.default_rng(0).permutation(np.flatnonzero(classes != UNKNOWN))[:_TESTED]
    seen, rows = classes[tested], columns[tested]
    counts = np.unique(seen, return_counts=True)[1]
    if not columns.size or counts.size < 2 or counts.min() < _ENCODED_FEWEST:
        return
    action = "leave it out; columns must be properties of the galaxies that are measured for all of them"
    for number, column in enumerate(rows.T, 1):
        n_values, n_pairs = np.unique(column).size, np.unique([column, seen], axis=1).shape[1]
        if n_pairs == n_values <= _ENCODED_VALUES:  # each value belongs to one class
            raise InputError(f"{name}: column {number} of {columns.shape[1]} encodes {what}; {action}")
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=4, min_samples_leaf=2, random_state=0)
    wrong = 1 - balanced_accuracy_score(seen, cross_val_predict(tree, rows, seen, cv=3))
    # A tree that is wrong for 2 % of all galaxies is right for all n tested ones with probability 0.98^n.
    if wrong < _ENCODED_WRONG and seen.size > np.log(_ENCODED_LEVEL) / np.log(1 - _ENCODED_CHANCE):
        raise InputError(f"{name}: the columns predict {what} of {1 - wrong:.1%} of the galaxies; {action}")


def check_whole(least: int, **options: Any) -> None:
    """Check that options are whole numbers of at least this value; the InputError names the first that is not."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value < 2**31:
            raise InputError(f"`{name}`: must be a whole number of at least {least}; got {value!r}")


@one_thread()
def explained_variance(log_alpha: np.ndarray, intrinsic: np.ndarray) -> float:
    """Return the fraction of the variance of log α that intrinsic columns predict for held-out galaxies (R²).

    The larger value from a polynomial in the columns and logarithms of positive ones (cubic, or of more than six
    quadratic) and from boosted trees, which are less exact, but robust against outliers.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler
    from threadpoolctl import threadpool_limits

    rows = np.random.default_rng(0).permutation(log_alpha.size)[:_TESTED]
    if rows.size < _FEWEST_EXPLAINED:
        return 0.0
    target, columns = log_alpha[rows], intrinsic[rows]
    wide = np.column_stack([columns, *(np.log(column) for column in columns.T if column.min() > 0)])
    powers = PolynomialFeatures(3 if wide.shape[1] <= 6 else 2)
    polynomial = make_pipeline(StandardScaler(), powers, LinearRegression())
    trees = HistGradientBoostingRegressor(random_state=0)
    held, scores = np.arange(rows.size) % 3 == 0, [0.0]
    # OpenMP comes with scikit-learn. Its threads, too, wait for a busy core, which can take minutes.
    with threadpool_limits(1, "openmp"):
        for model, values in ((polynomial, wide), (trees, columns)):
            fitted = model.fit(values[~held], target[~held])
            scores.append(float(fitted.score(values[held], target[held])))
    return max(scores)
