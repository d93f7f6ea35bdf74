"""The bias curve T(α) = p(ỹ | y, α): what all families have in common, and their parameter spaces.

Families are in `formulas`, `shifted`, `logistic` and `paths`, and listed in `families`. Estimators use unconstrained
parameters: positive ones by their logarithm, probabilities by their logit, so that any point is a valid T(α).

Equation numbers are those of Medina-Rosales, Cabrera-Vives & Miller, "Mitigating Bias in Deep Learning: Training
Unbiased Models on Biased Data for the Morphological Classification of Galaxies", MNRAS, arXiv:2308.11007. Classes are
0 = smooth and 1 = disk. Formulas are in log space, for numpy and torch alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from reprlib import repr as shortened
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array
from scipy.special import expit

from truemorph.arrays import check_rows, float_array
from truemorph.errors import InputError
from truemorph.io import plain
from truemorph.questions import SMOOTH_OR_DISK, Asked

SMOOTH, DISK = 0, 1

# Value for "no gold label".
UNKNOWN = -1

# A gold label where it is only known that the question applies.
ANSWER_UNKNOWN = -2

# An array of numpy, torch, or another library with the array API.
Array = Any


def as_resolution(alpha: Array) -> Array:
    """Return α as a floating array; NaN and negative values are errors (not in torch: it would synchronise)."""
    action = "drop those rows or correct the radius and PSF columns"
    if is_torch_array(alpha):
        if alpha.device.type == "cpu" and not bool((alpha >= 0).all()):
            raise InputError(f"alpha has negative or missing values; {action}")
        return alpha if alpha.is_floating_point() else alpha.double()
    if not (type(alpha) is np.ndarray and np.issubdtype(alpha.dtype, np.floating)):
        alpha = float_array(alpha, "alpha")
    if alpha.ndim != 1:
        raise InputError(f"alpha must have one value per galaxy, shape (N,); got shape {alpha.shape}")
    check_rows(alpha >= 0, f"alpha must be 0 or more, and not missing ({action})", alpha)
    return alpha


def like(array: Array, values: Any) -> Array:
    """Return values as an array of the library, type and device of another one."""
    return array_namespace(array).asarray(values, dtype=array.dtype, device=device(array))


def tuples(values: Any) -> Any:
    """Return nested lists as nested tuples, which can be hashed."""
    return tuple(map(tuples, values)) if isinstance(values, list) else values


def chosen(matrix: Array, labels: Array) -> list[Array]:
    """Return matrix[n, y, labels[n]] for each y; with masks, because the array API has no portable gather."""
    xp = array_namespace(matrix)
    columns = [matrix[:, y, 0] for y in range(matrix.shape[1])]
    for seen in range(1, matrix.shape[-1]):
        is_seen = labels == seen
        columns = [xp.where(is_seen, matrix[:, y, seen], column) for y, column in enumerate(columns)]
    return columns


def floored_log(values: Array) -> Array:
    """Return the logarithm of values, but at least that of the smallest normal number."""
    xp = array_namespace(values)
    smallest = float(xp.finfo(values.dtype).smallest_normal)
    return xp.log(xp.where(values < smallest, smallest, values))


def columns_of(alpha: Array, n_observables: int) -> list[Array]:
    """Return α and other observables as columns of one floating type, (N,) each, from (N,) or (N, 1 + J)."""
    alpha = alpha if is_torch_array(alpha) else float_array(alpha, "alpha")
    columns = alpha[:, None] if alpha.ndim == 1 else alpha
    if columns.ndim != 2 or columns.shape[1] != 1 + n_observables:
        raise InputError(f"needs α and {n_observables} observables; got shape {tuple(alpha.shape)}")
    resolution = as_resolution(columns[:, 0])
    xp = array_namespace(resolution)
    return [resolution, *(xp.astype(columns[:, j], resolution.dtype) for j in range(1, 1 + n_observables))]


def standard_terms(alpha: Array, center: Sequence[float], scale: Sequence[float]) -> list[Array]:
    """Return one, and standardised ln α and other observables, shape (N,) each."""
    resolution, *others = columns_of(alpha, len(center) - 1)
    terms = zip([floored_log(resolution), *others], center, scale, strict=True)
    return [array_namespace(resolution).ones_like(resolution), *((term - middle) / s for term, middle, s in terms)]


def log_of(probabilities: Array) -> Array:
    """Return the logarithm of probabilities, without a warning of -inf where they are 0."""
    with np.errstate(divide="ignore"):
        return array_namespace(probabilities).log(probabilities)


def log_softmax(scores: Array) -> Array:
    """Return log p of the last axis from scores."""
    xp = array_namespace(scores)
    scores = scores - xp.max(scores, axis=-1, keepdims=True)
    return scores - xp.log(xp.sum(xp.exp(scores), axis=-1, keepdims=True))


class Transition(ABC):
    """Base class of all families: p(ỹ | y, α) and its parameters."""

    family: ClassVar[str]
    varies: ClassVar[bool] = True  # with α

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """Number of classes K."""

    @property
    def n_observables(self) -> int:
        """Number of observables on which T depends in addition to α."""
        return 0

    @abstractmethod
    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, α), shape (N, K, K), indexed [galaxy, true y, observed ỹ].

        `alpha` has shape (N,), or (N, 1 + J) if T depends on J observables in addition to α, which is then the first
        column (see `argument_of`).
        """

    def matrix(self, alpha: Array) -> Array:
        """Return p(ỹ | y, α), shape (N, K, K), indexed [galaxy, true y, observed ỹ]; rows sum to 1."""
        log_matrix = self.log_matrix(alpha)
        return array_namespace(log_matrix).exp(log_matrix)

    def log_columns(self, labels: Array, alpha: Array) -> list[Array]:
        """Return log p(ỹ | y, α) of each galaxy's label ỹ, shape (N,), for every true class y."""
        return chosen(self.log_matrix(alpha), labels)

    def flip_probability(self, alpha: Array) -> Array:
        """Return p(ỹ = smooth | y = disk, α), shape (N,)."""
        return self.matrix(alpha)[:, DISK, SMOOTH]

    def parameters(self) -> dict[str, Any]:
        """Return the parameters by name, for JSON."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    def _array(self, name: str, missing: bool = False) -> np.ndarray:
        """Return a parameter as an array, and keep it as nested tuples, which can be hashed."""
        array = float_array(getattr(self, name), name)
        if not missing and not np.isfinite(array).all():
            raise InputError(f"{name} must be finite; got {array}")
        object.__setattr__(self, name, tuples(array.tolist()))
        return array

    def __repr__(self) -> str:
        shown = (f"{name}={shortened(value)}" for name, value in self.parameters().items())
        return f"{type(self).__name__}({', '.join(shown)})"


# Bounds of logits: ±9 (probabilities of 1e-4).
LOGIT_BOUND = 9.0

FALSE_DISK_START, FALSE_DISK_BOUNDS = -3.0, (-LOGIT_BOUND, 2.0)


@dataclass(frozen=True)
class Search:
    """What a family's parameter space depends on: the data, and what is assumed or fixed."""

    alpha: np.ndarray  # (N,), or (N, 1 + J) with the resolution first
    # (K, K): allowed pairs of true class and label. By default, smooth galaxies are never labelled disk (eq. 6).
    seen: np.ndarray = field(default_factory=lambda: np.array([[True, False], [True, True]]))
    anchored: bool = False  # assume no bias for the best resolved galaxies; labels alone do not determine it
    false_disk: float | None = 0.0  # p(ỹ = disk | y = smooth) of two classes; None to fit it
    knots: int | Sequence[float] = 8  # of families without a formula: their number, or their α
    classes: Sequence[str] = SMOOTH_OR_DISK  # (K,): names
    asked: Asked | None = None  # of labels that are paths through a tree
    counts: bool = False  # whether there are numbers of votes at its gates
    observables: Sequence[str] = ()  # (J,): names of the columns of `alpha` after the resolution

    @property
    def flips(self) -> np.ndarray:
        """Allowed wrong labels, as rows of true class and label."""
        return np.argwhere(self.seen & ~np.eye(len(self.seen), dtype=bool))


@dataclass(frozen=True)
class Space:
    """Parameter space of T; a point, shape (P,), has unconstrained parameters."""

    n_classes: int
    names: Sequence[str]  # of `values`
    build: Callable[[np.ndarray], Transition]
    values: Callable[[np.ndarray], np.ndarray]  # the named parameters at a point
    lower: np.ndarray
    upper: np.ndarray
    starts: np.ndarray  # (S, P), best first

    @classmethod
    def fixed(cls, transition: Transition) -> Space:
        """Return a space without parameters, for a known T."""
        none = np.empty(0)
        return cls(transition.n_classes, (), lambda _: transition, lambda _: none, none, none, np.empty((1, 0)))

    @property
    def size(self) -> int:
        """Number of free parameters of T."""
        return self.lower.size


# Bounds of scales, relative to the observed α.
_SCALE_BELOW, _SCALE_ABOVE = 0.1, 5.0

_SCALE_STARTS = (1.0, 0.5, 2.0)  # relative to the median α

# Of ln shape; Rayleigh's is ln 2 = 0.7.
_SHAPE_BOUNDS, _SHAPE_STARTS = (np.log(0.2), np.log(20.0)), (0.7, 0.3, 1.1)


class FlipTransition(Transition):
    """Base class of two-class families, which define log p(ỹ = smooth | y = disk, α); subclass it for your own family.

    A subclass is a frozen dataclass with a method `log_flip_probability`, two class attributes, and a field for each
    parameter and for `false_disk`. It can be used wherever the name of a family can. Files store its curve as a table.

    Attributes
    ----------
    family : str
        Name of the family.
    free : dict of str to {"scale", "shape", "probability"}
        Parameters fitted by `fit_transition`: positive in units of α, positive, or between 0 and 1.
    varies : bool, default True
        Whether the flip probability depends on α. If not, it can only be estimated from gold labels.
    takes_tensors : bool, default False
        Whether `log_flip_probability` accepts torch tensors. If not, it is called with numpy arrays only.

    Raises
    ------
    InputError
        If a parameter is outside its range, or α is NaN or negative (numpy input).

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class ExponentialTransition(FlipTransition):
    ...     scale: float
    ...     false_disk: float = 0.0
    ...     family = "exponential"
    ...     free = {"scale": "scale"}
    ...
    ...     def log_flip_probability(self, alpha):
    ...         return -alpha / self.scale
    >>> from truemorph import fit_transition
    >>> rng = np.random.default_rng(0)
    >>> alpha = rng.lognormal(2.3, 0.45, 20000)
    >>> disk = rng.random(20000) < 0.75
    >>> labels = (disk & (rng.random(20000) > np.exp(-alpha / 6))).astype(int)
    >>> fit = fit_transition(labels, alpha, ExponentialTransition)
    >>> bool(abs(fit.transition.scale - 6) < 4 * fit.stderr["scale"])
    True
    """

    n_classes: ClassVar[int] = 2
    free: ClassVar[dict[str, str]]
    takes_tensors: ClassVar[bool] = False
    false_disk: float

    def __post_init__(self) -> None:
        for name, kind in {**self.free, "false_disk": "probability"}.items():
            try:
                value = float(getattr(self, name))
            except (TypeError, ValueError):
                raise InputError(f"{name} must be a number; got {getattr(self, name)!r}") from None
            if kind == "probability" and not 0 <= value <= 1:
                raise InputError(f"{name} must be a probability, 0 to 1; got {value}")
            if kind != "probability" and not 0 < value < np.inf:
                raise InputError(f"{name} must be a positive number; got {value}")
            object.__setattr__(self, name, value)

    def log_flip_probability(self, alpha: Array) -> Array:
        """Return log p(ỹ = smooth | y = disk, α), shape (N,), for a floating α that is not negative or missing."""
        raise NotImplementedError

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, α), shape (N, 2, 2), indexed [galaxy, true y, observed ỹ].

        The log-probability that a disk is labelled disk, log(1 - flip), is limited to the logarithm of the smallest
        normal number: a disk label at α = 0 then costs about 87 (float32) or 708 (float64) and has the same finite
        gradient as in the limit α → 0. Structural zeros (eq. 6) are -inf.
        """
        of_smooth, of_disk = (array_namespace(row[0]).stack(row, axis=-1) for row in self._rows(alpha))
        return array_namespace(of_disk).stack([of_smooth, of_disk], axis=-2)

    def log_columns(self, labels: Array, alpha: Array) -> list[Array]:
        """Return log p(ỹ | y, α) of each galaxy's label ỹ, shape (N,), for smooth and disk galaxies."""
        is_disk = labels == DISK
        return [array_namespace(disk).where(is_disk, disk, smooth) for smooth, disk in self._rows(alpha)]

    def _rows(self, alpha: Array) -> list[list[Array]]:
        """Return log p(ỹ | y, α) for each y and ỹ, shape (N,) each."""
        alpha = as_resolution(alpha)
        xp = array_namespace(alpha)
        if self.takes_tensors or not is_torch_array(alpha):
            log_flip = self.log_flip_probability(alpha)
        else:
            log_flip = like(alpha, self.log_flip_probability(alpha.detach().cpu().numpy()))
        rates = log_of(np.array([1 - self.false_disk, self.false_disk]))  # eq. 6
        return [[xp.full_like(log_flip, float(rate)) for rate in rates], [log_flip, floored_log(-xp.expm1(log_flip))]]

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return the space of `free` and, if fitted, `false_disk`; raise an error if T is not a probability."""
        kinds, bounds_of = dict(cls.free), {"shape": _SHAPE_BOUNDS, "probability": (-LOGIT_BOUND, LOGIT_BOUND)}
        if search.false_disk is None:
            kinds["false_disk"], bounds_of["false"] = "false", FALSE_DISK_BOUNDS
        positive = search.alpha[search.alpha > 0]
        middle = np.log(np.median(positive))
        bounds_of["scale"] = (np.log(positive.min() * _SCALE_BELOW), np.log(positive.max() * _SCALE_ABOVE))

        exponential = np.array([kind in ("scale", "shape") for kind in kinds.values()], bool)

        def values(point: np.ndarray) -> np.ndarray:
            return np.where(exponential, np.exp(np.clip(point, -700, 700)), expit(point))

        def build(point: np.ndarray) -> Transition:
            made = dict(zip(kinds, values(point).tolist(), strict=True))
            return cls(**{"false_disk": search.false_disk, **made})

        def start(scale: float, shape: float) -> list[float]:
            begin = {"scale": middle + np.log(scale), "shape": shape, "probability": 0.0, "false": FALSE_DISK_START}
            return [begin[kind] for kind in kinds.values()]

        shapes = _SHAPE_STARTS if "shape" in kinds.values() else _SHAPE_STARTS[:1]
        starts = [start(scale, shape) for shape, scale in product(shapes, _SCALE_STARTS)]
        lower, upper = np.array([bounds_of[kind] for kind in kinds.values()]).reshape(-1, 2).T
        space = Space(2, list(kinds), build, values, lower, upper, np.clip(starts, lower, upper))
        flips = build(space.starts[0]).flip_probability(search.alpha)
        wrong = np.flatnonzero(~((flips >= 0) & (flips <= 1)))
        if wrong.size:
            first = f"{flips[wrong[0]]:.3g} at alpha = {search.alpha[wrong[0]]:.3g}"
            raise InputError(f"the flip probability of {cls.family} is {first}; the method must give its logarithm")
        return space
