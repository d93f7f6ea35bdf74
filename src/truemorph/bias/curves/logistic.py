"""Bias curve by logistic regression on α and other observables."""

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from truemorph.bias.curves.transitions import (
    FALSE_DISK_START,
    LOGIT_BOUND,
    SMOOTH,
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


def standardisation(search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of ln α and of each other observable, shape (J + 1,), of resolved galaxies."""
    columns = search.alpha.reshape(len(search.alpha), -1)
    columns = columns[columns[:, 0] > 0]  # a copy
    columns[:, 0] = np.log(columns[:, 0])
    center, scale = columns.mean(axis=0), columns.std(axis=0)
    if not np.all(scale > 0):
        names = ("alpha", *search.observables)
        raise InputError(f"{names[int(np.argmin(scale))]} is the same for all galaxies; remove it")
    return center, scale


@dataclass(frozen=True, repr=False)
class LogisticTransition(Transition):
    """Flip probabilities of K classes by multinomial logistic regression on one or several observables.

    log p(ỹ | y, o) = s_yỹ - log Σ_k exp s_yk, with s_yy = 0 and s_yỹ = c_yỹ0 + Σ_j c_yỹj x_j for allowed labels.
    x_1 = (ln α - center_1) / scale_1, and x_j = (o_j - center_j) / scale_j of other observables. Of α alone and two
    classes, this is the log-logistic (Fisk) family.

    Parameters
    ----------
    coefficients : array_like, shape (K, K, J + 1)
        Intercept and slopes, indexed [true y, observed ỹ]; NaN for labels that never occur (eq. 6), ignored on the
        diagonal.
    center, scale : sequence of float, length J
        Standardisation of ln α and of other observables.

    Raises
    ------
    InputError
        If shapes disagree or a scale is not positive.

    Examples
    --------
    Half of the disks are labelled smooth at α = 10, and fewer if better resolved and brighter (μ in mag).

    >>> nan = float("nan")
    >>> t = LogisticTransition(
    ...     [[[0, 0, 0], [nan, nan, nan]], [[0.0, -2.0, 0.7], [0, 0, 0]]],
    ...     center=(2.302585, 22.0), scale=(1.0, 1.0),
    ... )
    >>> np.round(t.flip_probability([[10.0, 22.0], [20.0, 22.0], [20.0, 24.0]]), 3)
    array([0.5  , 0.2  , 0.503])
    """

    coefficients: tuple[tuple[tuple[float, ...], ...], ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]

    family = "logistic"

    def __post_init__(self) -> None:
        # Labels that never occur are null in JSON, which has no NaN.
        table = self._array("coefficients", True)
        if table.ndim != 3 or table.shape[0] != table.shape[1] or table.shape[0] < 2:
            raise InputError(f"coefficients must have shape (K, K, J + 1) with K >= 2; got {table.shape}")
        for name in ("center", "scale"):
            if self._array(name).shape != (table.shape[2] - 1,):
                raise InputError(f"{name} needs one entry for each of the {table.shape[2] - 1} observables")
        if any(s <= 0 for s in self.scale):
            raise InputError(f"scale must be positive; got {self.scale}")

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.coefficients)

    @property
    def n_observables(self) -> int:
        """Number of observables in addition to the first, α."""
        return len(self.center) - 1

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, o), shape (N, K, K); `alpha` has the observables, shape (N,) or (N, J)."""
        columns = standard_terms(alpha, self.center, self.scale)
        xp = array_namespace(columns[0])
        table = np.array(self.coefficients)
        table[range(self.n_classes), range(self.n_classes)] = 0.0
        never = np.where(np.isnan(table).any(axis=2), -np.inf, 0.0)
        scores = xp.tensordot(xp.stack(columns, axis=-1), like(columns[0], np.nan_to_num(table)), axes=([1], [2]))
        return log_softmax(scores + like(columns[0], never))

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return the space of the coefficients of allowed wrong labels; the resolution is used as a logarithm."""
        center, scale = standardisation(search)
        n_observables, n_classes = center.size, len(search.seen)
        terms = ["intercept", *(f"slope of {name}" for name in ("ln alpha", *search.observables))]
        pairs = search.flips.tolist()
        named = [f"{search.classes[s]}|{search.classes[y]} {term}" for y, s in pairs for term in terms]

        def build(point: np.ndarray) -> LogisticTransition:
            table = np.full((n_classes, n_classes, n_observables + 1), np.nan)
            table[range(n_classes), range(n_classes)] = 0.0
            table[tuple(search.flips.T)] = point.reshape(len(pairs), -1)
            return cls(tuples(table.tolist()), tuple(center), tuple(scale))

        first = [-1.0 if s == SMOOTH else FALSE_DISK_START for _, s in pairs]
        starts = [[v for f in first for v in [f, *[slope] * n_observables]] for slope in (-0.7, 0.0)]
        bound = np.full(len(named), 3 * LOGIT_BOUND)
        return Space(n_classes, named, build, np.array, -bound, bound, np.array(starts))
