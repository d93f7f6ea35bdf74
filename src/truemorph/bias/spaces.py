"""The spaces in which estimators move: unconstrained numbers behind the parameters of a family.

Positive parameters move by their logarithm, probabilities by their logit, so that any point is a valid T(α). The
method `space` of a family says how it is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from truemorph.errors import InputError

if TYPE_CHECKING:
    from truemorph.bias.transitions import Transition

# Logits are searched within ±9 (probabilities of 1e-4).
LOGIT_BOUND, _EARLY_LOGIT_BOUND = 9.0, 4.0
FALSE_DISK_START, FALSE_DISK_BOUNDS = -3.0, (-LOGIT_BOUND, 2.0)


@dataclass(frozen=True)
class Search:
    """What the space of a family may depend on.

    Attributes
    ----------
    alpha : array, shape (N,) or (N, J)
        Resolution, or several observables, the resolution first.
    seen : array of bool, shape (K, K)
        Flips that can happen; the diagonal is True.
    anchored : bool
        Whether the best resolved galaxies are to be labelled without bias, because the labels alone do not show it.
    false_disk : float or None
        p(ỹ = disk | y = smooth) of two classes; None to fit it.
    knots : int or sequence of float
        Of a form without a formula: how many, or at which α.
    log : sequence of bool, length J, optional
        Which observables enter by their logarithm; by default the first.
    """

    alpha: np.ndarray
    seen: np.ndarray
    anchored: bool = False
    false_disk: float | None = 0.0
    knots: int | Sequence[float] = 8
    log: Sequence[bool] | None = None

    @classmethod
    def two_classes(cls, alpha: np.ndarray) -> Search:
        """Return the search for flips of two classes, of which smooth galaxies are never called disks (eq. 6)."""
        return cls(alpha, np.array([[True, False], [True, True]]))

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.seen)

    def check_one_resolution(self, family: str) -> None:
        """Refuse several observables.

        Raises
        ------
        InputError
        """
        if self.alpha.ndim == 2:
            raise InputError(f'several observables need family="logistic"; {family} takes alpha of shape (N,)')

    def check_two_classes(self, family: str) -> None:
        """Refuse several observables, and other numbers of classes than two.

        Raises
        ------
        InputError
        """
        self.check_one_resolution(family)
        if self.n_classes != 2:
            raise InputError(f'{family} is a family of two classes; for {self.n_classes} use "matrix" or "logistic"')


@dataclass(frozen=True)
class Space:
    """Where T's parameters are searched.

    Attributes
    ----------
    family : str
    names : tuple of str, length V
        What `values` gives, in order.
    build : callable
        Point, shape (P,), to transition.
    values : callable
        Point to the named parameters, shape (V,).
    lower, upper : array, shape (P,)
    starts : array, shape (S, P)
        Where to begin, the likeliest first.
    separate : bool
        Whether each value follows from one coordinate of the point alone.
    positive : bool
        Whether the values are positive numbers or probabilities.
    """

    family: str
    n_classes: int
    names: tuple[str, ...]
    build: Callable[[np.ndarray], Transition]
    values: Callable[[np.ndarray], np.ndarray]
    lower: np.ndarray
    upper: np.ndarray
    starts: np.ndarray
    separate: bool = True
    positive: bool = True

    @classmethod
    def bounded(
        cls,
        family: str,
        n_classes: int,
        names: Sequence[str],
        build: Callable[[np.ndarray], Transition],
        values: Callable[[np.ndarray], np.ndarray],
        bounds: Sequence[tuple[float, float]],
        starts: Sequence[Sequence[float]],
        *,
        separate: bool = True,
        positive: bool = True,
    ) -> Space:
        """Return a space with bounds (lower, upper) of each coordinate; starts are moved inside them."""
        lower, upper = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
        at = np.clip(np.array(starts, dtype=np.float64).reshape(len(starts), -1), lower, upper)
        return cls(family, n_classes, tuple(names), build, values, lower, upper, at, separate, positive)

    @classmethod
    def fixed(cls, transition: Transition) -> Space:
        """Return the space of no parameters: T is known."""
        nothing = np.empty(0)
        return cls(
            transition.family,
            transition.n_classes,
            (),
            lambda _: transition,
            lambda _: nothing,
            nothing,
            nothing,
            np.empty((1, 0)),
        )

    @property
    def size(self) -> int:
        """Number of free parameters of T."""
        return self.lower.size

    @property
    def early_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds while class probabilities are still rough: a logit far out has no slope left to come back by."""
        lower = np.where(self.lower == -LOGIT_BOUND, -_EARLY_LOGIT_BOUND, self.lower)
        return lower, np.where(self.upper == LOGIT_BOUND, _EARLY_LOGIT_BOUND, self.upper)


def fraction_start(labels: np.ndarray, n_classes: int, weights: np.ndarray | None) -> np.ndarray:
    """Logits of the labelled class fractions relative to class 0, shape (K - 1,): where fractions begin."""
    counts = np.bincount(labels, weights=weights, minlength=n_classes)
    shares = np.clip(counts / counts.sum(), 0.02, 0.98)
    return np.clip(np.log(shares[1:] / shares[0]), -3, 3)
