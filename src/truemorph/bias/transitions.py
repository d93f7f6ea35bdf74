"""The bias curve T(α) = p(ỹ | y, α): families, their parameter spaces, and their format in files.

The families of the package are listed in `FAMILIES`: first those with a formula, then tables over α and
logistic regression in any observables. Estimators use unconstrained parameters: positive parameters by their logarithm,
probabilities by their logit, so that any point is a valid T(α).

Equation numbers are those of Medina-Rosales, Cabrera-Vives & Miller, "Mitigating Bias in Deep Learning:
Training Unbiased Models on Biased Data for the Morphological Classification of Galaxies", MNRAS,
arXiv:2308.11007. Classes are 0 = smooth and 1 = disk. Formulas are in log space, for numpy
and torch alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from reprlib import Repr
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from array_api_compat import device as get_device
from scipy.special import expit, gammaln

from truemorph.arrays import float_array
from truemorph.errors import InputError, reason
from truemorph.io import plain
from truemorph.questions import SMOOTH_OR_DISK, Nodes

SMOOTH, DISK = 0, 1
# Value for "no gold label".
UNKNOWN = -1
# A gold label where it is only known that the question applies.
ANSWER_UNKNOWN = -2

_SHORT = Repr()

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
    if not (alpha >= 0).all():
        bad = np.flatnonzero(~(alpha >= 0))
        first = f"row {bad[0]}, {alpha[bad[0]]}"
        raise InputError(f"alpha has {bad.size} negative or missing values (first: {first}); {action}")
    return alpha


def _tuples(values: Any) -> Any:
    """Return nested lists as nested tuples, which can be hashed."""
    return tuple(map(_tuples, values)) if isinstance(values, list) else values


def chosen(matrix: Array, labels: Array) -> list[Array]:
    """Return matrix[n, y, labels[n]] for each y; with masks, because the array API has no portable gather."""
    xp = array_namespace(matrix)
    columns = [matrix[:, y, 0] for y in range(matrix.shape[1])]
    for seen in range(1, matrix.shape[-1]):
        is_seen = labels == seen
        columns = [xp.where(is_seen, matrix[:, y, seen], one) for y, one in enumerate(columns)]
    return columns


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
        return {one.name: plain(getattr(self, one.name)) for one in fields(self)}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        shown = (f"{name}={_SHORT.repr(value)}" for name, value in self.parameters().items())
        return f"{type(self).__name__}({', '.join(shown)})"


# Bounds of logits: ±9 (probabilities of 1e-4).
LOGIT_BOUND = 9.0
FALSE_DISK_START, FALSE_DISK_BOUNDS = -3.0, (-LOGIT_BOUND, 2.0)


@dataclass(frozen=True)
class Search:
    """What a family's parameter space depends on: the data, and what is assumed or fixed."""

    alpha: np.ndarray  # (N,), or (N, J) with the resolution first
    # (K, K): allowed pairs of true class and label. By default, smooth galaxies are never labelled disk (eq. 6).
    seen: np.ndarray = field(default_factory=lambda: np.array([[True, False], [True, True]]))
    anchored: bool = False  # assume no bias for the best resolved galaxies; labels alone do not determine it
    false_disk: float | None = 0.0  # p(ỹ = disk | y = smooth) of two classes; None to fit it
    knots: int | Sequence[float] = 8  # of families without a formula: their number, or their α
    classes: Sequence[str] = SMOOTH_OR_DISK  # (K,): names
    nodes: Nodes | None = None  # of labels that are paths through a tree
    counts: bool = False  # whether there are numbers of votes at these nodes
    observables: Sequence[str] = ()  # (J - 1,): names of the columns of `alpha` after the resolution

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `alpha`."""
        return ("alpha", *self.observables)

    @property
    def flips(self) -> np.ndarray:
        """Allowed wrong labels, as rows of true class and label."""
        return np.argwhere(self.seen & ~np.eye(len(self.seen), dtype=bool))


@dataclass(frozen=True)
class Space:
    """Parameter space of T; a point, shape (P,), has unconstrained parameters."""

    family: str
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
        family, n_classes = transition.family, transition.n_classes
        return cls(family, n_classes, (), lambda _: transition, lambda _: none, none, none, np.empty((1, 0)))

    @property
    def size(self) -> int:
        """Number of free parameters of T."""
        return self.lower.size


# Bounds of scales, relative to the observed α.
_SCALE_BELOW, _SCALE_ABOVE = 0.1, 5.0
_SCALE_STARTS = (1.0, 0.5, 2.0)
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

    family: ClassVar[str]
    n_classes: ClassVar[int] = 2
    free: ClassVar[dict[str, str]]
    varies: ClassVar[bool] = True
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
            if kind != "probability" and not (np.isfinite(value) and value > 0):
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
            values = self.log_flip_probability(alpha.detach().cpu().numpy())
            log_flip = xp.asarray(values, dtype=alpha.dtype, device=get_device(alpha))
        with np.errstate(divide="ignore"):
            rates = np.log1p(-self.false_disk), np.log(self.false_disk)  # eq. 6
        return [[xp.full_like(log_flip, float(rate)) for rate in rates], [log_flip, _log(-xp.expm1(log_flip))]]

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return the space of `free` and, if fitted, `false_disk`; raise an error if T is not a probability."""
        kinds, bounds_of = dict(cls.free), {"shape": _SHAPE_BOUNDS, "probability": (-LOGIT_BOUND, LOGIT_BOUND)}
        if search.false_disk is None:
            kinds["false_disk"], bounds_of["false"] = "false", FALSE_DISK_BOUNDS
        positive = search.alpha[search.alpha > 0]
        middle = np.log(np.median(positive))
        bounds_of["scale"] = (np.log(positive.min() * _SCALE_BELOW), np.log(positive.max() * _SCALE_ABOVE))

        exponential = np.array([kind in ("scale", "shape") for kind in kinds.values()], dtype=bool)

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
        space = Space(cls.family, 2, list(kinds), build, values, lower, upper, np.clip(starts, lower, upper))
        flips = build(space.starts[0]).flip_probability(search.alpha)
        wrong = np.flatnonzero(~((flips >= 0) & (flips <= 1)))
        if wrong.size:
            first = f"{flips[wrong[0]]:.3g} at alpha = {search.alpha[wrong[0]]:.3g}"
            raise InputError(f"the flip probability of {cls.family} is {first}; the method must give its logarithm")
        return space


@dataclass(frozen=True)
class RayleighTransition(FlipTransition):
    """Rayleigh family: disks are labelled smooth with probability exp(-α² / (2θ²)) (eq. 5).

    Smooth galaxies are never labelled disk (eq. 6), unless `false_disk` is set.

    Parameters
    ----------
    theta : float
        θ > 0, in units of α (α = R_petro / σ_PSF unless a catalogue states otherwise).
    false_disk : float, default 0
        p(ỹ = disk | y = smooth), constant in α.

    Examples
    --------
    >>> import numpy as np
    >>> t = RayleighTransition(theta=11.25)
    >>> np.round(t.flip_probability(np.array([0.0, 11.25, 22.5])), 4)
    array([1.    , 0.6065, 0.1353])
    >>> t.matrix(np.array([11.25])).shape
    (1, 2, 2)
    """

    theta: float
    false_disk: float = 0.0

    family: ClassVar[str] = "rayleigh"
    free: ClassVar[dict[str, str]] = {"theta": "scale"}
    takes_tensors: ClassVar[bool] = True

    def log_flip_probability(self, alpha: Array) -> Array:
        """Return log p(ỹ = smooth | y = disk, α), shape (N,)."""
        scaled = alpha / self.theta  # before squaring, because α² can overflow
        return -0.5 * scaled * scaled  # eq. 5


@dataclass(frozen=True)
class WeibullTransition(FlipTransition):
    """Weibull family: disks are labelled smooth with probability exp(-(α / scale)^shape).

    Parameters
    ----------
    scale : float
        Positive, in units of α: where the flip probability is 1/e. Rayleigh has scale √2 θ.
    shape : float
        Positive; a smaller value gives a higher flip probability at high resolution. Rayleigh has shape 2.
    false_disk : float, default 0
        p(ỹ = disk | y = smooth).

    Examples
    --------
    >>> t = WeibullTransition(scale=11.25 * 2**0.5, shape=2.0)
    >>> bool(np.allclose(t.flip_probability([4.0, 9.0]), RayleighTransition(11.25).flip_probability([4.0, 9.0])))
    True
    """

    scale: float
    shape: float
    false_disk: float = 0.0

    family: ClassVar[str] = "weibull"
    free: ClassVar[dict[str, str]] = {"scale": "scale", "shape": "shape"}
    takes_tensors: ClassVar[bool] = True

    def log_flip_probability(self, alpha: Array) -> Array:
        """Return log p(ỹ = smooth | y = disk, α), shape (N,)."""
        return -_power(alpha, self.scale, self.shape)


@dataclass(frozen=True)
class FiskTransition(FlipTransition):
    """Fisk (log-logistic) family: disks are labelled smooth with probability 1 / (1 + (α / scale)^shape).

    Its tail is a power law, so some disks are labelled smooth at any resolution. It is a logistic regression on log α.

    Parameters
    ----------
    scale : float
        Positive, in units of α: where half of the disks are labelled smooth.
    shape : float
        Positive; steepness.
    false_disk : float, default 0
        p(ỹ = disk | y = smooth).

    Examples
    --------
    >>> FiskTransition(scale=22.2, shape=2.17).flip_probability([22.2])
    array([0.5])
    """

    scale: float
    shape: float
    false_disk: float = 0.0

    family: ClassVar[str] = "fisk"
    free: ClassVar[dict[str, str]] = {"scale": "scale", "shape": "shape"}
    takes_tensors: ClassVar[bool] = True

    def log_flip_probability(self, alpha: Array) -> Array:
        """Return log p(ỹ = smooth | y = disk, α), shape (N,)."""
        power = _power(alpha, self.scale, self.shape)
        return -array_namespace(power).log1p(power)


@dataclass(frozen=True)
class ConstantTransition(FlipTransition):
    """Disks are labelled smooth with the same probability at every α.

    Parameters
    ----------
    flip : float
        p(ỹ = smooth | y = disk), 0 to 1.
    false_disk : float, default 0
        p(ỹ = disk | y = smooth).

    Examples
    --------
    >>> ConstantTransition(0.25).flip_probability([3.0, 30.0])
    array([0.25, 0.25])
    """

    flip: float
    false_disk: float = 0.0

    family: ClassVar[str] = "constant"
    free: ClassVar[dict[str, str]] = {"flip": "probability"}
    takes_tensors: ClassVar[bool] = True
    varies: ClassVar[bool] = False

    def log_flip_probability(self, alpha: Array) -> Array:
        """Return log p(ỹ = smooth | y = disk), shape (N,)."""
        with np.errstate(divide="ignore"):
            return array_namespace(alpha).full_like(alpha, float(np.log(self.flip)))


def _power(alpha: Array, scale: float, shape: float) -> Array:
    """Return (α / scale)^shape, limited to avoid overflow; 0 at α = 0."""
    xp = array_namespace(alpha)
    largest = float(np.log(float(xp.finfo(alpha.dtype).max))) - 1.0
    exponent = shape * (_log(alpha) - float(np.log(scale)))
    return xp.exp(xp.where(exponent > largest, largest, exponent))


def _log(values: Array) -> Array:
    """Return the logarithm of values, but at least that of the smallest normal number."""
    xp = array_namespace(values)
    smallest = float(xp.finfo(values.dtype).smallest_normal)
    return xp.log(xp.where(values < smallest, smallest, values))


@dataclass(frozen=True, repr=False)
class MatrixTransition(Transition):
    """One K×K matrix for all galaxies; the identity treats labels as correct.

    Parameters
    ----------
    values : array_like, shape (K, K)
        p(ỹ | y), indexed [true y, observed ỹ]; rows sum to 1.

    Raises
    ------
    InputError
        If the matrix is not square, has entries outside [0, 1], or a row does not sum to 1.

    Examples
    --------
    >>> MatrixTransition.identity(2).matrix([3.0, 8.0])[0]
    array([[1., 0.],
           [0., 1.]])
    """

    values: tuple[tuple[float, ...], ...]

    family: ClassVar[str] = "matrix"
    varies: ClassVar[bool] = False

    def __post_init__(self) -> None:
        values = float_array(self.values, "values")
        if values.ndim != 2 or values.shape[0] != values.shape[1] or values.shape[0] < 2:
            raise InputError(f"a transition matrix must be square, K×K with K >= 2; got shape {values.shape}")
        _check_rows(values)
        object.__setattr__(self, "values", _tuples(values.tolist()))

    @classmethod
    def identity(cls, n_classes: int = 2) -> MatrixTransition:
        """Return T = 1, which treats labels as correct (naive training, Table 1, rows c and d)."""
        return cls(_tuples(np.eye(n_classes).tolist()))

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.values)

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y), repeated for each galaxy, shape (N, K, K)."""
        alpha = as_resolution(alpha)
        xp = array_namespace(alpha)
        with np.errstate(divide="ignore"):
            log_values = np.log(np.asarray(self.values))
        log_values = xp.asarray(log_values, dtype=alpha.dtype, device=alpha.device)
        return xp.broadcast_to(log_values[None, :, :], (alpha.shape[0], self.n_classes, self.n_classes))

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return the space of the off-diagonal entries: log-odds relative to the correct label."""
        n_classes, pairs = len(search.seen), search.flips

        def full(point: np.ndarray) -> np.ndarray:
            scores = np.where(np.eye(n_classes, dtype=bool), 0.0, -np.inf)
            scores[tuple(pairs.T)] = point
            odds = np.exp(scores)
            return odds / odds.sum(axis=1, keepdims=True)

        bound = np.full(len(pairs), LOGIT_BOUND)
        return Space(
            cls.family,
            n_classes,
            [f"p({search.classes[s]}|{search.classes[y]})" for y, s in pairs],
            lambda point: cls(_tuples(full(point).tolist())),
            lambda point: full(point)[tuple(pairs.T)],
            -bound,
            bound,
            np.full((1, len(pairs)), -2.0),
        )


def _check_rows(values: np.ndarray) -> None:
    in_range = bool(np.all((values >= 0) & (values <= 1)))
    if not in_range or not np.allclose(values.sum(axis=-1), 1.0, atol=1e-6):
        raise InputError("each row of a transition matrix must be probabilities that sum to 1")


def _interpolate(alpha: Array, knots: Sequence[float], values: Any) -> Array:
    """Interpolate probabilities, shape (M,) or (M, C), linearly between knots of α; constant outside."""
    if isinstance(alpha, np.ndarray) and np.ndim(values) == 1:
        return np.interp(alpha, knots, values).astype(alpha.dtype)
    xp = array_namespace(alpha)
    at, value = (xp.asarray(one, dtype=alpha.dtype, device=get_device(alpha)) for one in (knots, values))
    left = xp.clip(xp.searchsorted(at, alpha, side="right") - 1, 0, at.shape[0] - 2)
    low, high = xp.take(at, left), xp.take(at, left + 1)
    # Clip before dividing by a width that may be tiny; knots that are equal in float32 make a step.
    inside, width = xp.clip(alpha, low, high) - low, high - low
    share = xp.where(width > 0, inside / xp.where(width > 0, width, 1.0), 1.0)
    share = share[:, None] if value.ndim == 2 else share
    # A weighted mean is exact at the knots, so that 0 and 1 are preserved.
    return share * xp.take(value, left + 1, axis=0) + (1 - share) * xp.take(value, left, axis=0)


def _check_knots(knots: Any, values: np.ndarray) -> np.ndarray:
    knots = float_array(knots, "knots")
    if knots.ndim != 1 or knots.size < 2 or not (np.all(np.diff(knots) > 0) and knots[0] >= 0 and knots[-1] < np.inf):
        raise InputError("knots must be at least two finite, increasing values of alpha, 0 or more")
    if values.shape[:1] != knots.shape:
        raise InputError(f"one entry per knot is needed: got shape {values.shape} for {knots.size} knots")
    return knots


@dataclass(frozen=True, repr=False)
class MonotoneTransition(FlipTransition):
    """Flip probability of disks that decreases with α, linear between knots, without a formula.

    Parameters
    ----------
    knots : sequence of float, length M
        Increasing values of α; below the first and above the last the flip probability is constant.
    flip : sequence of float, length M
        p(ỹ = smooth | y = disk) at the knots, not increasing.
    false_disk : float, default 0
        p(ỹ = disk | y = smooth).

    Raises
    ------
    InputError
        If knots do not increase, flip probabilities are outside [0, 1] or increase, or α is NaN or negative (numpy
        input).

    Examples
    --------
    >>> MonotoneTransition((5.0, 10.0, 20.0), (0.9, 0.5, 0.1)).flip_probability([2.0, 7.5, 15.0, 90.0])
    array([0.9, 0.7, 0.3, 0.1])
    """

    knots: tuple[float, ...]
    flip: tuple[float, ...]
    false_disk: float = 0.0

    family: ClassVar[str] = "monotone"
    free: ClassVar[dict[str, str]] = {}
    takes_tensors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        flip = float_array(self.flip, "flip")
        knots = _check_knots(self.knots, flip)
        if not np.all((flip >= 0) & (flip <= 1)):
            raise InputError(f"flip must be probabilities, 0 to 1; got {flip.min():.3g} to {flip.max():.3g}")
        if np.any(np.diff(flip) > 1e-12):
            raise InputError("flip probabilities must not increase with alpha; else use TabulatedTransition")
        object.__setattr__(self, "knots", _tuples(knots.tolist()))
        object.__setattr__(self, "flip", _tuples(flip.tolist()))

    def log_flip_probability(self, alpha: Array) -> Array:
        """Return log p(ỹ = smooth | y = disk, α), shape (N,)."""
        return _log(_interpolate(alpha, self.knots, self.flip))

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return the space of flip probabilities at the knots; if anchored, the last one is 0.

        The parameters are the logits of the first flip probability, and of the ratio of each to the one before.
        """
        knots, false_disk = search.knots, search.false_disk
        if isinstance(knots, int | np.integer):
            margin = 0.25 / max(knots, 1)
            knots = np.quantile(search.alpha, np.clip(np.linspace(0, 1, max(knots, 1)), margin, 1 - margin)).tolist()
        at = np.unique(np.asarray(knots, dtype=np.float64))
        if at.size < 2:
            raise InputError("a monotone T(alpha) needs at least 2 knots at different alpha")
        n_free = at.size - int(search.anchored)

        def values(point: np.ndarray) -> np.ndarray:
            flips = np.cumprod(expit(point[:n_free]))
            tail = [0.0] if search.anchored else []
            return np.concatenate([flips, tail, expit(point[n_free:])])

        def build(point: np.ndarray) -> MonotoneTransition:
            parameters = values(point)
            false = float(parameters[at.size]) if false_disk is None else false_disk
            return cls(_tuples(at.tolist()), _tuples(parameters[: at.size].tolist()), false)

        names = [f"flip({value:.4g})" for value in at] + (["false_disk"] if false_disk is None else [])
        n_false = len(names) - at.size
        lower, upper = np.array([(-LOGIT_BOUND, LOGIT_BOUND)] * n_free + [FALSE_DISK_BOUNDS] * n_false).T
        starts = [[1.5] + [1.0] * (n_free - 1) + [FALSE_DISK_START] * n_false]
        return Space(cls.family, 2, names, build, values, lower, upper, np.array(starts))


@dataclass(frozen=True, repr=False)
class TabulatedTransition(Transition):
    """A K×K matrix at each of M values of α, linear between them and constant outside.

    Parameters
    ----------
    knots : sequence of float, length M
        Increasing values of α.
    values : array_like, shape (M, K, K)
        p(ỹ | y) at each knot, indexed [knot, true y, observed ỹ]; rows sum to 1.

    Raises
    ------
    InputError
        If knots do not increase, shapes disagree, or a row is not probabilities that sum to 1.

    Examples
    --------
    >>> t = TabulatedTransition((0.0, 10.0), [[[1, 0], [1, 0]], [[0.9, 0.1], [0.2, 0.8]]])
    >>> t.matrix([5.0])[0]
    array([[0.95, 0.05],
           [0.6 , 0.4 ]])
    """

    knots: tuple[float, ...]
    values: tuple[tuple[tuple[float, ...], ...], ...]

    family: ClassVar[str] = "tabulated"

    def __post_init__(self) -> None:
        values = float_array(self.values, "values")
        if values.ndim != 3 or values.shape[1] != values.shape[2] or values.shape[1] < 2:
            raise InputError(f"values must have shape (M, K, K) with K >= 2; got {values.shape}")
        knots = _check_knots(self.knots, values)
        _check_rows(values)
        object.__setattr__(self, "knots", _tuples(knots.tolist()))
        object.__setattr__(self, "values", _tuples(values.tolist()))

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.values[0])

    def matrix(self, alpha: Array) -> Array:
        """Return p(ỹ | y, α), shape (N, K, K); rows sum to 1."""
        alpha = as_resolution(alpha)
        k = self.n_classes
        flat = _interpolate(alpha, self.knots, np.asarray(self.values).reshape(-1, k * k).tolist())
        return array_namespace(flat).reshape(flat, (-1, k, k))

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, α), shape (N, K, K)."""
        matrix = self.matrix(alpha)
        with np.errstate(divide="ignore"):
            return array_namespace(matrix).log(matrix)


@dataclass(frozen=True, repr=False)
class LogisticTransition(Transition):
    """Flip probabilities of K classes by multinomial logistic regression on one or several observables.

    log p(ỹ | y, o) = s_yỹ - log Σ_k exp s_yk, with s_yy = 0 and s_yỹ = c_yỹ0 + Σ_j c_yỹj x_j for allowed labels.
    x_j = (log o_j - center_j) / scale_j, or (o_j - center_j) / scale_j if `log` is false. With one observable, log, and
    two classes, this is the log-logistic (Fisk) family.

    Parameters
    ----------
    coefficients : array_like, shape (K, K, J + 1)
        Intercept and slopes, indexed [true y, observed ỹ]; NaN for labels that never occur (eq. 6), ignored on the
        diagonal.
    center, scale : sequence of float, length J
        Standardisation of the observables.
    log : sequence of bool, length J
        Whether to use the logarithm of the observable (for resolution, but not for magnitudes or surface brightness).

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
    ...     center=(2.302585, 22.0), scale=(1.0, 1.0), log=(True, False),
    ... )
    >>> np.round(t.flip_probability([[10.0, 22.0], [20.0, 22.0], [20.0, 24.0]]), 3)
    array([0.5  , 0.2  , 0.503])
    """

    coefficients: tuple[tuple[tuple[float, ...], ...], ...]
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    log: tuple[bool, ...] = ()

    family: ClassVar[str] = "logistic"

    def __post_init__(self) -> None:
        # Labels that never occur are null in JSON, which has no NaN.
        table = float_array(self.coefficients, "coefficients").copy()
        if table.ndim != 3 or table.shape[0] != table.shape[1] or table.shape[0] < 2:
            raise InputError(f"coefficients must have shape (K, K, J + 1) with K >= 2; got {table.shape}")
        n_observables = table.shape[2] - 1
        for name in ("center", "scale", "log"):
            if len(getattr(self, name)) != n_observables:
                raise InputError(f"{name} needs one entry for each of the {n_observables} observables")
        if not all(np.isfinite(s) and s > 0 for s in self.scale):
            raise InputError(f"scale must be positive; got {self.scale}")
        object.__setattr__(self, "coefficients", _tuples(table.tolist()))
        for name, kind in (("center", float), ("scale", float), ("log", bool)):
            object.__setattr__(self, name, tuple(map(kind, getattr(self, name))))

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.coefficients)

    @property
    def n_observables(self) -> int:
        """Number of observables in addition to the first, α."""
        return max(len(self.center) - 1, 0)

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, o), shape (N, K, K); `alpha` has the observables, shape (N,) or (N, J)."""
        observables = self._observables(alpha)
        xp = array_namespace(observables)
        columns = [xp.ones_like(observables[:, 0])]
        for j, (center, scale, log) in enumerate(zip(self.center, self.scale, self.log, strict=True)):
            column = _log(observables[:, j]) if log else observables[:, j]
            columns.append((column - center) / scale)
        table = np.array(self.coefficients)
        table[range(self.n_classes), range(self.n_classes)] = 0.0
        never = np.where(np.isnan(table).any(axis=2), -np.inf, 0.0)
        like = {"dtype": observables.dtype, "device": get_device(observables)}
        scores = xp.tensordot(xp.stack(columns, axis=-1), xp.asarray(np.nan_to_num(table), **like), axes=([1], [2]))
        scores = scores + xp.asarray(never, **like)
        scores = scores - xp.max(scores, axis=-1, keepdims=True)
        return scores - xp.log(xp.sum(xp.exp(scores), axis=-1, keepdims=True))

    def _observables(self, alpha: Array) -> Array:
        observables: Array
        if is_torch_array(alpha):
            observables = alpha if alpha.is_floating_point() else alpha.double()
        else:
            observables = float_array(alpha, "alpha")
            bad = np.flatnonzero(np.isnan(observables).reshape(len(observables), -1).any(axis=1))
            if bad.size:
                raise InputError(f"{bad.size} rows have missing observables (first: row {bad[0]}); drop them")
        if observables.ndim == 1:
            observables = observables[:, None]
        if observables.ndim != 2 or (self.center and observables.shape[1] != len(self.center)):
            raise InputError(f"needs {len(self.center)} observables, shape (N, J); got {tuple(observables.shape)}")
        return observables

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return the space of the coefficients of allowed wrong labels; the resolution is used as a logarithm."""
        observables = search.alpha.reshape(len(search.alpha), -1)
        n_observables, n_classes = observables.shape[1], len(search.seen)
        # Rows without a logarithm (unresolved galaxies) are not used to standardise.
        columns = observables[observables[:, 0] > 0]
        columns[:, 0] = np.log(columns[:, 0])
        center, scale = columns.mean(axis=0), columns.std(axis=0)
        if not np.all(scale > 0):
            raise InputError(f"{search.columns[int(np.argmin(scale))]} is the same for all galaxies; remove it")
        log = tuple(j == 0 for j in range(n_observables))
        terms = ["intercept", *(f"slope of {name}" for name in ("ln alpha", *search.observables))]
        pairs = search.flips.tolist()
        named = [f"{search.classes[s]}|{search.classes[y]} {term}" for y, s in pairs for term in terms]

        def build(point: np.ndarray) -> LogisticTransition:
            table = np.full((n_classes, n_classes, n_observables + 1), np.nan)
            table[range(n_classes), range(n_classes)] = 0.0
            table[tuple(search.flips.T)] = point.reshape(len(pairs), -1)
            return cls(_tuples(table.tolist()), tuple(center), tuple(scale), log)

        first = [-1.0 if s == SMOOTH else FALSE_DISK_START for _, s in pairs]
        starts = [[v for f in first for v in [f, *[slope] * n_observables]] for slope in (-0.7, 0.0)]
        bound = np.full(len(named), 3 * LOGIT_BOUND)
        return Space(cls.family, n_classes, named, build, np.array, -bound, bound, np.array(starts))


# Bound of ln α' / α per standard deviation of an observable.
_SHIFT_BOUND = 3.0


@dataclass(frozen=True, repr=False)
class ShiftedTransition(Transition):
    """A bias curve at an effective resolution, which other observables change: T(α, s) = T(α').

    α' = α exp(Σ_j b_j (s_j - c_j)). So a disk that is fainter by a magnitude may look like one of lower resolution.
    With the log-logistic (Fisk) curve, log-odds are linear in ln α and s; without slopes, T depends on α alone.

    Parameters
    ----------
    curve : Transition
        Bias curve in α', such as one of two classes with a formula, also your own.
    slopes : sequence of float, length J
        b, per unit of each observable.
    center : sequence of float, length J
        c: where α' = α.

    Raises
    ------
    InputError
        If slopes and center have different lengths, or the curve is one of several observables.

    Examples
    --------
    A galaxy that is fainter by 2 mag/arcsec² is labelled like one of half the resolution.

    >>> t = ShiftedTransition(RayleighTransition(11.25), slopes=[-0.3466], center=[22.0])
    >>> np.round(t.flip_probability([[10.0, 22.0], [20.0, 24.0]]), 3)
    array([0.674, 0.674])
    """

    curve: Transition
    slopes: tuple[float, ...]
    center: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.slopes) != len(self.center) or self.curve.n_observables:
            raise InputError("give a curve in alpha alone, and a slope and a center of each observable")
        object.__setattr__(self, "family", self.curve.family)
        for name in ("slopes", "center"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return self.curve.n_classes

    @property
    def n_observables(self) -> int:
        """Number of observables in addition to α."""
        return len(self.center)

    @property
    def free(self) -> dict[str, str]:
        """Parameters of the curve, as in `FlipTransition`."""
        return getattr(self.curve, "free", {})

    def effective(self, alpha: Array) -> Array:
        """Return the effective resolution α', shape (N,), of α and observables, shape (N, 1 + J)."""
        alpha = alpha if is_torch_array(alpha) else float_array(alpha, "alpha")
        if alpha.ndim != 2 or alpha.shape[1] != 1 + len(self.center):
            raise InputError(f"needs α and {len(self.center)} observables; got shape {tuple(alpha.shape)}")
        resolution = as_resolution(alpha[:, 0])
        terms = zip(self.slopes, self.center, strict=True)
        shift = sum(slope * (alpha[:, j] - center) for j, (slope, center) in enumerate(terms, 1))
        return resolution * array_namespace(resolution).exp(array_namespace(resolution).clip(shift, -50.0, 50.0))

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, α, s), shape (N, K, K), for α and observables, shape (N, 1 + J)."""
        return self.curve.log_matrix(self.effective(alpha))

    def log_columns(self, labels: Array, alpha: Array) -> list[Array]:
        """Return log p(ỹ | y, α, s) of each galaxy's label ỹ, shape (N,), for every true class y."""
        return self.curve.log_columns(labels, self.effective(alpha))

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the curve, slopes and center, for JSON."""
        return {**self.curve.parameters(), "slopes": list(self.slopes), "center": list(self.center)}

    @classmethod
    def space(cls, curve: type[FlipTransition], search: Search) -> Space:
        """Return the space of a family's curve, and of slopes per standard deviation of each observable."""
        others = search.alpha[:, 1:]
        center, scale = others.mean(axis=0), others.std(axis=0)
        if not np.all(scale > 0):
            raise InputError(f"{search.observables[int(np.argmin(scale))]} is the same for all galaxies; remove it")
        of_curve = curve.space(replace(search, alpha=search.alpha[:, 0], observables=()))
        end, bound = of_curve.size, np.full(center.size, _SHIFT_BOUND)

        def build(point: np.ndarray) -> Transition:
            return cls(of_curve.build(point[:end]), tuple(point[end:] / scale), tuple(center))

        return Space(
            of_curve.family,
            of_curve.n_classes,
            [*of_curve.names, *(f"slope of {name}" for name in search.observables)],
            build,
            lambda point: np.concatenate([of_curve.values(point[:end]), point[end:] / scale]),
            np.concatenate([of_curve.lower, -bound]),
            np.concatenate([of_curve.upper, bound]),
            np.pad(of_curve.starts, ((0, 0), (0, center.size))),
        )


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
    nodes : Nodes or dict
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
    ...     {"tree": flat, "question": "smooth", "of_paths": ["smooth", "disk"]}, given, given, [[0.2, 0.2]],
    ...     center=(2.302585,), scale=(0.5,),
    ... )
    >>> np.round(t.matrix(np.array([10.0, 20.0]))[:, 1], 3)
    array([[0.5  , 0.5  ],
           [0.111, 0.889]])
    >>> np.round(np.exp(t.log_votes(np.array([[3, 1], [0, 0]]), np.array([10.0, 10.0]))), 3)
    array([[0.096, 0.229],
           [1.   , 1.   ]])
    """

    nodes: Nodes
    coefficients: tuple[Any, ...]
    votes: tuple[Any, ...] | None = None
    overdispersion: tuple[tuple[float, ...], ...] | None = None
    center: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)

    family: ClassVar[str] = "tree"

    def __post_init__(self) -> None:
        if not isinstance(self.nodes, Nodes):
            object.__setattr__(self, "nodes", Nodes.from_dict(self.nodes))
        terms = len(self.center) + 1
        if (self.votes is None) != (self.overdispersion is None) or len(self.scale) != terms - 1:
            raise InputError("give votes and overdispersion together, and a scale for each center")
        for name in ("coefficients", "votes"):
            if getattr(self, name) is None:
                continue
            tables = [float_array(one, name) for one in getattr(self, name)]
            shapes = [(self.n_classes, len(one.answers), terms) for one in self.nodes.questions]
            if [one.shape for one in tables] != shapes:
                raise InputError(f"{name} must have the shapes {shapes}; got {[one.shape for one in tables]}")
            object.__setattr__(self, name, tuple(_tuples(one.tolist()) for one in tables))
        if self.overdispersion is not None:
            rho = float_array(self.overdispersion, "overdispersion")
            if rho.shape != (len(self.nodes.questions), self.n_classes) or not np.all((rho > 0) & (rho < 1)):
                raise InputError(f"overdispersion must be between 0 and 1 for each question and class; got {rho}")
            object.__setattr__(self, "overdispersion", _tuples(rho.tolist()))
        for name in ("center", "scale"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.nodes.classes)

    @property
    def n_observables(self) -> int:
        """Number of observables in addition to α."""
        return len(self.center) - 1

    @property
    def n_votes(self) -> int:
        """Number of columns of votes: the answers to all questions."""
        return self.nodes.parts[-1].stop

    def design(self, alpha: Array) -> Array:
        """Return one and the standardised ln α and observables, shape (N, J + 2)."""
        alpha = alpha if is_torch_array(alpha) else float_array(alpha, "alpha")
        columns = alpha[:, None] if alpha.ndim == 1 else alpha
        if columns.shape[1] != len(self.center):
            raise InputError(f"needs α and {len(self.center) - 1} observables; got {columns.shape[1] - 1}")
        resolution = as_resolution(columns[:, 0])
        xp = array_namespace(resolution)
        terms = [_log(resolution), *(xp.astype(columns[:, j], resolution.dtype) for j in range(1, columns.shape[1]))]
        standard = [(one - center) / s for one, center, s in zip(terms, self.center, self.scale, strict=True)]
        standard[0] = xp.clip(standard[0], -_FARTHEST, _FARTHEST)
        return xp.stack([xp.ones_like(resolution), *standard], axis=-1)

    def log_answers(self, alpha: Array, votes: bool = False) -> list[Array]:
        """Return log μ_q(y, α) of each question for a label, or for a single vote, shape (N, K, A) each."""
        design = self.design(alpha)
        xp, of = array_namespace(design), {"dtype": design.dtype, "device": get_device(design)}
        tables = self.votes if votes and self.votes is not None else self.coefficients
        found = []
        for table in tables:
            scores = xp.tensordot(design, xp.asarray(np.array(table), **of), axes=([1], [2]))
            scores = scores - xp.max(scores, axis=-1, keepdims=True)
            found.append(scores - xp.log(xp.sum(xp.exp(scores), axis=-1, keepdims=True)))
        return found

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, α), shape (N, K, K), indexed [galaxy, true y, observed ỹ]."""
        every = self.log_answers(alpha)
        xp = array_namespace(every[0])
        flat = xp.concat(every, axis=-1)
        paths = [sum(flat[..., int(k)] for k in np.flatnonzero(on)) for on in self.nodes.along]
        of = self.nodes.of_paths
        labels = [
            xp.log(sum(xp.exp(path) for path, one in zip(paths, of, strict=True) if one == name))
            for name in self.nodes.classes
        ]
        return xp.stack(labels, axis=-1)

    def log_votes(self, votes: Array, alpha: Array) -> Array:
        """Return log p(votes | y, α), shape (N, K), for votes for all answers, shape (N, `n_votes`)."""
        if self.overdispersion is None:
            raise InputError("this T(alpha) is of labels; for numbers of votes, fit it to numbers of votes")
        if votes.ndim != 2 or votes.shape[1] != self.n_votes:
            raise InputError(f"votes must have shape (N, {self.n_votes}); got {tuple(votes.shape)}")
        if not is_torch_array(votes):
            check_counts(votes)
        means = self.log_answers(alpha, votes=True)
        xp = array_namespace(means[0])
        votes = xp.astype(votes, means[0].dtype)
        found = xp.zeros_like(means[0][..., 0])
        for part, log_mean, rho in zip(self.nodes.parts, means, self.overdispersion, strict=True):
            concentration = xp.asarray((1 - np.array(rho)) / rho, dtype=log_mean.dtype, device=get_device(log_mean))
            found = found + dirichlet_multinomial(votes[:, None, part], xp.exp(log_mean), concentration)
        return found

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return the space of scores relative to each question's first answer, and of logits of ρ.

        A point has the parameters of votes, if there are any, and then those of labels; in each, question by question.
        """
        if search.nodes is None:
            raise InputError('family "tree" needs votes or labels of a question (Votes)')
        nodes, columns = search.nodes, search.alpha.reshape(len(search.alpha), -1).astype(float)
        columns = columns[columns[:, 0] > 0]
        columns[:, 0] = np.log(columns[:, 0])
        center, scale = columns.mean(axis=0), columns.std(axis=0)
        if not np.all(scale > 0):
            raise InputError(f"{search.columns[int(np.argmin(scale))]} is the same for all galaxies; remove it")
        kinds = ["vote", "label"] if search.counts else ["label"]
        terms = ["", *(f" slope of {name}" for name in ("ln alpha", *search.observables))]
        names = list[str]()
        for kind in kinds:
            for one in nodes.questions:
                names += [
                    f"{one.name}: {answer}|{true}{term}{' of labels' if kind == 'label' and search.counts else ''}"
                    for true in nodes.classes
                    for answer in list(one.answers)[1:]
                    for term in terms
                ]
                names += [f"{one.name}: overdispersion|{true}" for true in nodes.classes if kind == "vote"]
        correlations = np.array([": overdispersion|" in name for name in names])

        def build(point: np.ndarray) -> TreeTransition:
            rest, tables, rho = point, dict[str, list[Any]](), []
            for kind in kinds:
                for one in nodes.questions:
                    shape = (len(nodes.classes), len(one.answers) - 1, len(terms))
                    table, rest = np.split(rest, [int(np.prod(shape))])
                    tables.setdefault(kind, []).append(np.pad(table.reshape(shape), ((0, 0), (1, 0), (0, 0))).tolist())
                    if kind == "vote":
                        of_node, rest = np.split(rest, [shape[0]])
                        rho.append(expit(of_node).tolist())
            votes, correlation = (tuple(tables["vote"]), tuple(rho)) if search.counts else (None, None)
            return cls(nodes, tuple(tables["label"]), votes, correlation, tuple(center), tuple(scale))

        bound = np.full(len(names), 3 * LOGIT_BOUND)
        bound[correlations] = LOGIT_BOUND
        start = np.where(correlations, -1.5, 0.0)[None]
        return Space(
            cls.family, len(nodes.classes), names, build,
            lambda point: np.where(correlations, expit(point), point), -bound, bound, start,
        )  # fmt: skip


def check_counts(votes: np.ndarray) -> None:
    """Check numbers of votes, shape (N, A)."""
    bad = np.flatnonzero(~((votes >= 0) & np.isfinite(votes)).all(axis=1))
    if bad.size:
        raise InputError(f"numbers of votes must be 0 or more; {bad.size} rows are not (first: row {bad[0]})")


def dirichlet_multinomial(counts: Array, means: Array, concentration: Array) -> Array:
    """Return log DM(k | n, μ, ρ), shape (N, K): counts (N, 1, A), means (N, K, A), (1 - ρ) / ρ of each class (K,)."""
    xp = array_namespace(means)
    log_gamma = gammaln if isinstance(means, np.ndarray) else xp.lgamma
    at = xp.clip(means, min=1e-9) * concentration[:, None]
    n, whole = xp.sum(counts, axis=-1), xp.sum(at, axis=-1)
    arranged = log_gamma(n + 1) - xp.sum(log_gamma(counts + 1), axis=-1)
    each = xp.sum(log_gamma(counts + at) - log_gamma(at), axis=-1)
    return arranged + log_gamma(whole) - log_gamma(n + whole) + each


FAMILIES: dict[str, Any] = {
    one.family: one
    for one in (
        RayleighTransition,
        WeibullTransition,
        FiskTransition,
        ConstantTransition,
        MatrixTransition,
        MonotoneTransition,
        TabulatedTransition,
        LogisticTransition,
        TreeTransition,
    )
}
_CURVES = {name: one for name, one in FAMILIES.items() if issubclass(one, FlipTransition) and one.varies}
# Families that can be compared by their likelihood on labels alone, all with a formula in α.
COMPARED = tuple(_CURVES)
WITH_FORMULA = tuple(name for name, one in _CURVES.items() if one.free)

_KINDS = ("scale", "shape", "probability")
_KNOTS = 400


def curve_space(family: type[FlipTransition], search: Search) -> Space:
    """Return the space of a family with a curve in α: of `ShiftedTransition` where there are other observables."""
    return family.space(search) if search.alpha.ndim == 1 else ShiftedTransition.space(family, search)


def family_of(family: str | type[FlipTransition]) -> Any:
    """Return the class of a family from its name, or check that a class, which may be your own, is one."""
    if isinstance(family, str):
        if family not in FAMILIES:
            raise InputError(f"unknown family {family!r}; families to fit: {', '.join(FAMILIES)}, or a class")
        return FAMILIES[family]
    if family in FAMILIES.values():
        return family
    if not (isinstance(family, type) and issubclass(family, FlipTransition)):
        raise InputError(f"family must be {', '.join(FAMILIES)}, or a subclass of FlipTransition; got {family!r}")
    about, name, free = family.__name__, getattr(family, "family", None), getattr(family, "free", None)
    if not isinstance(name, str) or name in FAMILIES:
        raise InputError(f"{about}: `family` must be a unique name; got {name!r}")
    if not isinstance(free, dict) or not set(free.values()) <= set(_KINDS):
        raise InputError(f"{about}: `free` must name the kind of each parameter, one of {', '.join(_KINDS)}")
    return family


def transition_to_dict(transition: Transition) -> dict[str, Any]:
    """Describe a transition for JSON: `{"family": ..., "parameters": {...}}`; your own family also has a `table`.

    Parameters of a curve that observables shift include `slopes` and `center`.
    """
    if isinstance(transition, ShiftedTransition):
        return {**transition_to_dict(transition.curve), "parameters": transition.parameters()}
    described = {"family": transition.family, "parameters": transition.parameters()}
    if type(transition) in FAMILIES.values():
        return described
    # T(α) at values of α that are dense near its scales.
    free = getattr(transition, "free", {})
    scales = [getattr(transition, name) for name, kind in free.items() if kind == "scale"] or [10.0]
    knots = np.concatenate([[0.0], np.geomspace(0.01 * min(scales), 100 * max(scales), _KNOTS - 1)])
    return {**described, "table": TabulatedTransition(knots.tolist(), transition.matrix(knots)).parameters()}


def transition_from_dict(described: dict[str, Any]) -> Transition:
    """Rebuild a transition from `{"family": ..., "parameters": {...}}`, or from its table."""
    family, key = (described.get("family"), "parameters") if "table" not in described else ("tabulated", "table")
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError(f"unknown transition family {family!r}; known: {', '.join(FAMILIES)}")
    try:
        parameters = dict(described[key])
        shifts = {name: one for name, one in described["parameters"].items() if name in ("slopes", "center")}
        if "slopes" not in shifts:
            return FAMILIES[family](**parameters)
        curve = FAMILIES[family](**{name: one for name, one in parameters.items() if name not in shifts})
        return ShiftedTransition(curve, **shifts)
    except (KeyError, TypeError) as problem:
        raise InputError(
            f"the {family} transition can't be rebuilt from {described.get(key)}: {reason(problem)}"
        ) from problem
