"""Likelihood of biased labels (eqs 3-4), and posterior of the true class.

Pure functions of arrays, for numpy and torch. The torch loss module is `truemorph.DebiasedLoss`; DCV14 and the
estimators of θ use the same functions. Equations: Medina-Rosales et al., arXiv:2308.11007.
"""

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from truemorph.arrays import check_rows, float_array
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import UNKNOWN, Array, Transition, chosen
from truemorph.bias.files import load_transition
from truemorph.errors import InputError

# Log-probability of labels that are impossible under T, in fits.
_IMPOSSIBLE = -1e4
# Number of galaxies that are treated at once, to save memory.
ROWS = 100_000


def check_classes(values: np.ndarray, n_classes: int, name: str, least: int = 0) -> np.ndarray:
    """Return classes as int64 from `least` (-1 if they may be unknown) to K-1; an error names the first wrong row."""
    allowed = f"integers 0 to {n_classes - 1}{', -1 if unknown' if least < 0 else ''}"
    if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
        raise InputError(f"{name} must be {allowed}; got {values.dtype}")
    as_int = values
    if values.dtype != np.int64:
        as_int = np.nan_to_num(values, nan=-2, posinf=-2, neginf=-2).astype(int)
    check_rows((as_int == values) & (as_int >= least) & (as_int < n_classes), f"{name} must be {allowed}", values)
    return as_int


def check_labels(labels: Array, n_classes: int) -> np.ndarray:
    """Return labels as an (N,) int64 array with values 0 … K-1; masked ones are missing."""
    masked = isinstance(labels, np.ma.MaskedArray)
    labels = np.ma.filled(labels.astype(float), np.nan) if masked else np.asarray(labels)
    if labels.ndim != 1:
        raise InputError(f"labels must be integers of shape (N,); got shape {labels.shape}")
    return check_classes(labels, n_classes, "labels")


def classes_in(*several: Any) -> int:
    """Return the number of classes in arrays of labels (ignoring NaN and masked entries), at least two."""
    kinds = {0, 1}
    for array in several:
        values = np.asarray(np.ma.filled(array, UNKNOWN))
        if np.issubdtype(values.dtype, np.number):
            kinds |= set(np.unique(values[np.isfinite(values) & (values >= 0)]).tolist())
    n_classes = int(max(kinds)) + 1
    if n_classes > len(kinds):
        raise InputError(f"labels go up to {n_classes - 1}, but some between are absent; number classes 0, 1, 2, …")
    return n_classes


def check_columns(values: Array, name: str, n: int) -> np.ndarray:
    """Return columns of shape (n,) or (n, P) as a finite (n, P) float array."""
    columns = float_array(values, name)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.shape[0] != n or columns.shape[1] == 0:
        raise InputError(f"{name} must have shape ({n}, P), one row per galaxy; got {columns.shape}")
    check_rows(np.isfinite(columns).all(axis=1), f"{name} must be finite (remove galaxies where it is not)")
    return columns


def argument_of(transition: Transition, alpha: Array, observables: Array | None) -> Array:
    """Return the argument of T: α, or α and the observables as one array, shape (N, 1 + J)."""
    if observables is None:
        return alpha
    count = transition.n_observables
    if is_torch_array(alpha):  # tensors are not checked for NaN
        xp = array_namespace(alpha)
        columns = observables[:, None] if observables.ndim == 1 else observables
        if columns.shape[0] != alpha.shape[0]:
            raise InputError(f"observables must have one row per galaxy; got {columns.shape[0]} for {alpha.shape[0]}")
        joined = xp.concat([alpha[:, None], xp.astype(columns, alpha.dtype)], axis=1)
    else:
        joined = np.column_stack([alpha, check_columns(observables, "observables", alpha.size)])
    if joined.shape[1] != 1 + count:
        raise InputError(f"this T(alpha) needs {count} observables in addition to alpha; got {joined.shape[1] - 1}")
    return joined


def observables_of(described: Mapping[str, Any], transition: Transition) -> tuple[str, ...]:
    """Return the names of the columns on which T depends in addition to α, from its description."""
    names, count = tuple(described.get("observables", ())), transition.n_observables
    if len(names) != count:
        raise InputError(
            f"T(α) depends on {count} column{'s' * (count != 1)} in addition to α, but {len(names)} are named; fit "
            'it with `truemorph transition`, or add their names to its description ("observables")'
        )
    return names


def check_weights(weights: Array, n: int) -> np.ndarray:
    """Return sampling weights as an (n,) array with mean 1, so that log-likelihoods scale as for n galaxies."""
    values = float_array(weights, "weights")
    if values.shape != (n,) or not np.all((values > 0) & np.isfinite(values)):
        raise InputError("weights must be positive and finite, one per galaxy")
    scaled = values / values.max()
    if n > 1 and scaled.sum() < 2:
        raise InputError(
            f"weights: one galaxy (row {values.argmax() + 1}) has {1 / scaled.sum():.0%} of the sum; correct it, or "
            "leave this galaxy out (`where`)"
        )
    return scaled / scaled.mean()


def log_sum_exp(terms: list[Array]) -> Array:
    """Log-sum-exp over a list of arrays, which is faster than reducing a short axis."""
    xp = array_namespace(terms[0])
    largest = reduce(xp.maximum, terms)
    # If all terms are -inf, so is the result; -inf minus -inf would be NaN.
    largest = xp.where(xp.isfinite(largest), largest, xp.zeros_like(largest))
    return xp.log(reduce(add, [xp.exp(term - largest) for term in terms])) + largest


def label_columns(transition: Transition, labels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return log p(ỹ_n | y, α_n) of each galaxy's label for every true class y, shape (N, K); numpy only.

    Labels that are impossible under T are very unlikely instead, so that sums remain finite.
    """
    out = np.empty((transition.n_classes, labels.size))
    for begin in range(0, labels.size, ROWS):  # T needs several times the memory of the result
        part = slice(begin, begin + ROWS)
        for y, column in enumerate(transition.log_columns(labels[part], alpha[part])):
            np.maximum(column, _IMPOSSIBLE, out=out[y, part])
    return out.T


def log_marginal(log_prior: Array, evidence: Array) -> tuple[Array, Array]:
    """Compute log Σ_y p(observed | y) p(y | x), the terms of eq. 4, and the terms of the sum, log p(observed, y | x).

    `evidence` is log p(observed | y), -inf where a class is ruled out. For labels it is log p(ỹ | y, α), and all
    likelihoods of labels and posteriors, with numpy and torch, are made here. Shapes (N, K), or (N, K, M) for M
    observations of each galaxy; the sum is over the second axis.
    """
    joint = log_prior + evidence
    return log_sum_exp([joint[:, k, ...] for k in range(joint.shape[1])]), joint


def label_evidence(transition: Transition, labels: Array, alpha: Array) -> Array:
    """Return log p(ỹ_n | y, α_n) of each galaxy's label for every true class y, shape (N, K).

    Labels may be votes for all answers of a tree, shape (N, A), if T is a `TreeTransition`.
    """
    if labels.ndim == 2 and isinstance(transition, TreeTransition):
        return transition.log_votes(labels, alpha)
    columns = transition.log_columns(labels, alpha)
    return array_namespace(columns[0]).stack(columns, axis=1)


def observed_log_probabilities(log_probabilities: Array, alpha: Array, transition: Transition) -> Array:
    """Compute log p(ỹ | x, α) = log Σ_y p(ỹ | y, α) p(y | x) for every label ỹ (eq. 3), shape (N, K)."""
    return log_marginal(log_probabilities[:, :, None], transition.log_matrix(alpha))[0]


def posterior(
    probabilities: Array, labels: Array, alpha: Array, transition: Any, *, observables: Array | None = None
) -> Array:
    """Compute the posterior of the true class, p(y | x, ỹ, α) ∝ p(ỹ | y, α) p(y | x).

    Parameters
    ----------
    probabilities : array, shape (N, K)
        p(y | x) from a model that was *not* trained on these labels. A model that was has memorised ỹ, and the
        posterior would count it twice.
    labels : array of int, shape (N,); or array, shape (N, A)
        Observed labels ỹ; or, if T is of the paths through a decision tree (`TreeTransition`), numbers of votes for the
        answers at its gates (`Votes.columns`).
    alpha : array, shape (N,)
        Resolution.
    transition : Transition, TransitionFit, Estimate, path or dict
        T(α), as in `load_transition`.
    observables : array, shape (N,) or (N, J), optional
        Columns on which T depends in addition to α, in the order of the fit.

    Returns
    -------
    array, shape (N, K)
        Rows sum to 1. The posterior treats image and label as independent (ỹ ⊥ x | y, α). They are not, because
        volunteers and model see the same pixels, so it is slightly overconfident even out of fold.

    Raises
    ------
    InputError
        If shapes disagree, a label is not a class or is impossible under T, or probabilities are outside [0, 1] or
        do not sum to 1 (numpy input), or a value is masked.

    Examples
    --------
    >>> from truemorph.bias.curves.formulas import RayleighTransition
    >>> p = np.array([[0.5, 0.5], [0.5, 0.5]])
    >>> np.round(posterior(p, np.array([0, 1]), np.array([5.0, 5.0]), RayleighTransition(10.0)), 3)
    array([[0.531, 0.469],
           [0.   , 1.   ]])
    """
    transition = load_transition(transition)
    if not is_torch_array(probabilities):
        probabilities = float_array(probabilities, "probabilities")
        if probabilities.ndim != 2 or probabilities.shape[1] != transition.n_classes:
            raise InputError(f"probabilities must have shape (N, {transition.n_classes}); got {probabilities.shape}")
        inside = ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all(axis=1)
        check_rows(inside, "probabilities must be between 0 and 1 (are they logits?)")
        check_rows(np.abs(probabilities.sum(axis=1) - 1) <= 1e-3, "probabilities must sum to 1 in each row")
        of_tree = np.ndim(labels) == 2 and isinstance(transition, TreeTransition)
        labels = float_array(labels, "labels") if of_tree else check_labels(labels, transition.n_classes)
        alpha = float_array(alpha, "alpha")
        if not labels.shape[:1] == alpha.shape[:1] == probabilities.shape[:1]:
            sizes = f"{len(probabilities)} probabilities, {len(labels)} labels, alpha of shape {alpha.shape}"
            raise InputError(f"one row per galaxy: got {sizes}")
    xp = array_namespace(probabilities)
    alpha = argument_of(transition, xp.asarray(alpha), observables)
    tiny = float(xp.finfo(probabilities.dtype).smallest_normal)
    log_prior = xp.log(xp.clip(probabilities, min=tiny))
    evidence = label_evidence(transition, xp.asarray(labels), alpha)
    if not is_torch_array(evidence):
        possible = np.isfinite(evidence).any(axis=1)
        if not possible.all():
            row = int(np.argmin(possible))
            raise InputError(f"label {labels[row]} of row {row} is impossible under this transition")
    total, joint = log_marginal(log_prior, evidence)
    return xp.exp(joint - total[:, None])


def label_quality(
    probabilities: Array, labels: Array, alpha: Array, transition: Any, *, observables: Array | None = None
) -> Array:
    """Compute the probability that an observed label is correct: p(y = ỹ | x, ỹ, α).

    Parameters
    ----------
    probabilities, labels, alpha, transition, observables
        As in `posterior`; p(y | x) must come from a model that was not trained on these labels, or be the class
        fractions.

    Returns
    -------
    array, shape (N,)
        1 if the label is certainly correct; low for "smooth" labels of poorly resolved galaxies.

    Raises
    ------
    InputError
        As in `posterior`.

    Examples
    --------
    >>> from truemorph.bias.curves.formulas import RayleighTransition
    >>> p = np.array([[0.3, 0.7], [0.3, 0.7]])
    >>> np.round(label_quality(p, np.array([0, 1]), np.array([5.0, 5.0]), RayleighTransition(10.0)), 3)
    array([0.327, 1.   ])
    """
    transition = load_transition(transition)
    after = posterior(probabilities, labels, alpha, transition, observables=observables)
    if np.ndim(labels) == 2:  # votes; the label is their majority path
        labels = transition.asked.votes(np.asarray(labels)).labels
    return chosen(after[:, None, :], array_namespace(after).asarray(labels))[0]
