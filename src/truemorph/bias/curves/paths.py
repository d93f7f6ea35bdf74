"""Bias curve of the paths through a decision tree: logistic regressions on α and other observables at each gate."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from scipy.special import expit, gammaln

from truemorph.arrays import check_rows, float_array
from truemorph.bias.curves.logistic import standardisation
from truemorph.bias.curves.transitions import (
    LOGIT_BOUND,
    Array,
    Search,
    Space,
    Transition,
    like,
    log_softmax,
    standard_terms,
    tuples,
)
from truemorph.errors import InputError
from truemorph.questions import Asked

# T of paths is constant in α beyond so many standard deviations of ln α.
_FARTHEST = 5.0


@dataclass(frozen=True, repr=False)
class TreeTransition(Transition):
    """T(α) of the paths through a decision tree: what volunteers answer to each question, given the true path.

    At a question q, a galaxy of class y gets an answer with probability μ_q(y, α), a multinomial logistic regression in
    ln α, and in other observables. μ_q is also defined where the question does not apply. Numbers of votes k_q of n_q
    are Dirichlet-multinomial around it, with an intra-galaxy correlation ρ_q(y):
    log p(votes | y, α) = Σ_q log DM(k_q | n_q, μ_q(y, α), ρ_q(y)). A question without votes gives a factor of 1.
    For labels, p(ỹ | y, α) is the product of the probabilities of the answers on the path of ỹ.

    Parameters
    ----------
    asked : Asked or dict
        The questions, and the classes of the paths through them.
    coefficients : sequence, one for each of the Q questions, of shape (K, A, J + 2)
        Intercept and slopes of the scores of A answers given each class, for a label: a path of one answer a question.
    votes : sequence, as `coefficients`, optional
        The same for a single vote, which is less often right than the majority.
    overdispersion : sequence of shape (Q, K), optional
        ρ_q(y), above 0 and below 1; given together with `votes`.
    center, scale : sequence of float, length J + 1
        Standardisation of ln α and of the other observables.

    Raises
    ------
    InputError
        If shapes disagree.

    Examples
    --------
    A tree of one question: half of the disks are called disks at α = 10, with ρ = 0.2.

    >>> flat = {"name": "one", "questions": [{"name": "smooth", "answers": {"smooth": ["a"], "disk": ["b"]}}]}
    >>> given = [[[[0, 0], [-3, 0]], [[0, 0], [0, 1.5]]]]
    >>> t = TreeTransition(
    ...     {"tree": flat, "question": "smooth"}, given, given, [[0.2, 0.2]],
    ...     center=(2.302585,), scale=(0.5,),
    ... )
    >>> np.round(t.matrix(np.array([10.0, 20.0]))[:, 1], 3)
    array([[0.5  , 0.5  ],
           [0.111, 0.889]])
    >>> np.round(np.exp(t.log_votes(np.array([[3, 1], [0, 0]]), np.array([10.0, 10.0]))), 3)
    array([[0.096, 0.229],
           [1.   , 1.   ]])
    """

    asked: Asked
    coefficients: tuple[Any, ...]
    votes: tuple[Any, ...] | None = None
    overdispersion: tuple[tuple[float, ...], ...] | None = None
    center: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)

    family = "tree"

    def __post_init__(self) -> None:
        if not isinstance(self.asked, Asked):
            object.__setattr__(self, "asked", Asked.from_dict(self.asked))
        terms = len(self.center) + 1
        if (self.votes is None) != (self.overdispersion is None) or len(self.scale) != terms - 1:
            raise InputError("give votes and overdispersion together, and a scale for each center")
        for name in ("coefficients", "votes"):
            if getattr(self, name) is None:
                continue
            tables = [float_array(table, name) for table in getattr(self, name)]
            shapes = [(self.n_classes, len(question.answers), terms) for question in self.asked.questions]
            if [table.shape for table in tables] != shapes:
                raise InputError(f"{name} must have the shapes {shapes}; got {[table.shape for table in tables]}")
            object.__setattr__(self, name, tuple(tuples(table.tolist()) for table in tables))
        if self.overdispersion is not None:
            rho = self._array("overdispersion")
            if rho.shape != (len(self.asked.questions), self.n_classes) or not np.all((rho > 0) & (rho < 1)):
                raise InputError(f"overdispersion must be between 0 and 1 for each question and class; got {rho}")
        for name in ("center", "scale"):
            self._array(name)

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.asked.classes)

    @property
    def n_observables(self) -> int:
        """Number of observables in addition to α."""
        return len(self.center) - 1

    def design(self, alpha: Array) -> Array:
        """Return one and the standardised ln α and observables, shape (N, J + 2)."""
        terms = standard_terms(alpha, self.center, self.scale)
        xp = array_namespace(terms[0])
        terms[1] = xp.clip(terms[1], -_FARTHEST, _FARTHEST)
        return xp.stack(terms, axis=-1)

    def log_answers(self, alpha: Array, votes: bool = False) -> list[Array]:
        """Return log μ_q(y, α) of each question for a label, or for a single vote, shape (N, K, A) each."""
        design = self.design(alpha)
        xp = array_namespace(design)
        tables = self.votes if votes and self.votes is not None else self.coefficients
        return [log_softmax(xp.tensordot(design, like(design, table), axes=([1], [2]))) for table in tables]

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, α), shape (N, K, K), indexed [galaxy, true y, observed ỹ]."""
        every = self.log_answers(alpha)
        xp = array_namespace(every[0])
        log_paths = xp.tensordot(xp.concat(every, axis=-1), like(every[0], self.asked.along.T), axes=1)
        of_paths = like(log_paths, np.eye(self.n_classes)[list(self.asked.of_paths)])
        return xp.log(xp.tensordot(xp.exp(log_paths), of_paths, axes=1))

    def log_votes(self, votes: Array, alpha: Array) -> Array:
        """Return log p(votes | y, α), shape (N, K), for votes for all answers to the questions, shape (N, A)."""
        if self.overdispersion is None:
            raise InputError("this T(alpha) is of labels; for numbers of votes, fit it to numbers of votes")
        n_answers = self.asked.parts[-1].stop
        if votes.ndim != 2 or votes.shape[1] != n_answers:
            raise InputError(f"votes must have shape (N, {n_answers}); got {tuple(votes.shape)}")
        if not is_torch_array(votes):
            check_counts(votes)
        means = self.log_answers(alpha, votes=True)
        xp = array_namespace(means[0])
        votes = xp.astype(votes, means[0].dtype)
        log_p = xp.zeros_like(means[0][..., 0])
        for part, log_mean, rho in zip(self.asked.parts, means, self.overdispersion, strict=True):
            concentration = like(log_mean, (1 - np.array(rho)) / rho)
            log_p = log_p + dirichlet_multinomial(votes[:, None, part], xp.exp(log_mean), concentration)
        return log_p

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return the space of scores relative to each question's first answer, and of logits of ρ.

        A point has the parameters of votes, if there are any, and then those of labels; in each, question by question,
        of each class its scores and, of votes, the logit of ρ.
        """
        if search.asked is None:
            raise InputError('family "tree" needs votes or labels of a question (Votes)')
        asked, (center, scale) = search.asked, standardisation(search)
        kinds = [("", True), (" of labels", False)] if search.counts else [("", False)]
        terms = ["", *(f" slope of {name}" for name in ("ln alpha", *search.observables))]
        names = list[str]()
        for (end, of_votes), question, true in product(kinds, asked.questions, asked.classes):
            answers = list(question.answers)[1:]
            names += [f"{question.name}: {answer}|{true}{term}{end}" for answer in answers for term in terms]
            names += [f"{question.name}: overdispersion|{true}"] * of_votes
        correlations = np.array([": overdispersion|" in name for name in names])
        n, n_classes = len(asked.questions), len(asked.classes)
        shapes = [(n_classes, len(question.answers) - 1, len(terms)) for question in asked.questions * len(kinds)]
        ends = np.cumsum(np.prod(shapes, axis=1))[:-1]

        def build(point: np.ndarray) -> TreeTransition:
            scores = zip(np.split(point[~correlations], ends), shapes, strict=True)
            tables = [np.pad(part.reshape(shape), ((0, 0), (1, 0), (0, 0))).tolist() for part, shape in scores]
            rho = expit(point[correlations]).reshape(-1, n_classes).tolist()
            return cls(asked, tuple(tables[-n:]), tuple(tables[:-n]) or None, rho or None, tuple(center), tuple(scale))

        bound = np.full(len(names), 3 * LOGIT_BOUND)
        bound[correlations] = LOGIT_BOUND
        start = np.where(correlations, -1.5, 0.0)[None]
        return Space(
            n_classes, names, build,
            lambda point: np.where(correlations, expit(point), point), -bound, bound, start,
        )  # fmt: skip


def check_counts(votes: np.ndarray) -> None:
    """Check numbers of votes, shape (N, A)."""
    check_rows(((votes >= 0) & np.isfinite(votes)).all(axis=1), "numbers of votes must be 0 or more")


def dirichlet_multinomial(counts: Array, means: Array, concentration: Array) -> Array:
    """Return log DM(k | n, μ, ρ), shape (N, K): counts (N, 1, A), means (N, K, A), c = (1 - ρ) / ρ of each class (K,).

    DM = n! Γ(c) / Γ(n + c) Π_a Γ(k_a + c μ_a) / (k_a! Γ(c μ_a)).
    """
    xp = array_namespace(means)
    log_gamma = gammaln if isinstance(means, np.ndarray) else xp.lgamma
    at = xp.clip(means, min=1e-9) * concentration[:, None]
    n, whole = xp.sum(counts, axis=-1), xp.sum(at, axis=-1)
    arranged = log_gamma(n + 1) - xp.sum(log_gamma(counts + 1), axis=-1)
    each = xp.sum(log_gamma(counts + at) - log_gamma(at), axis=-1)
    return arranged + log_gamma(whole) - log_gamma(n + whole) + each
