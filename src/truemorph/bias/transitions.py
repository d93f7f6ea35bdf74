"""How labels flip with resolution: the transition families T(α) with a formula.

Forms without one are in `truemorph.bias.flexible`. A class with a `family` in either module is a family of the package.

Equation numbers are those of Medina-Rosales, Cabrera-Vives & Miller, "Mitigating Bias in Deep Learning:
Training Unbiased Models on Biased Data for the Morphological Classification of Galaxies", MNRAS,
arXiv:2308.11007. Classes are 0 = smooth and 1 = disk. Every formula is written once, in log space, for numpy
and torch alike.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from reprlib import Repr
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from array_api_compat import device as get_device
from scipy.special import expit

from truemorph.arrays import float_array
from truemorph.bias.spaces import FALSE_DISK_BOUNDS, FALSE_DISK_START, LOGIT_BOUND, Search, Space
from truemorph.errors import InputError

SMOOTH, DISK = 0, 1
CLASS_NAMES = ("smooth", "disk")

_SHORT = Repr()

# An array of numpy, torch, or another library that follows the array API.
Array = Any


def as_resolution(alpha: Array) -> Array:
    """Return α as a floating array; reject NaN and negative values.

    Torch tensors are passed on unchecked: a check would wait for the device at every training step, and the
    rooms that make tensors have checked α when it was still a column of a table.
    """
    if is_torch_array(alpha):
        return alpha if alpha.is_floating_point() else alpha.double()
    if not (type(alpha) is np.ndarray and np.issubdtype(alpha.dtype, np.floating)):
        alpha = float_array(alpha, "alpha")
    if alpha.ndim != 1:
        raise InputError(f"alpha must have one value a galaxy, shape (N,); got shape {alpha.shape}")
    bad = np.flatnonzero(np.isnan(alpha) | (alpha < 0))
    if bad.size:
        raise InputError(
            f"alpha has {bad.size} negative or missing values (first: row {bad[0]}, {alpha[bad[0]]}); "
            "drop those rows or mend the radius and PSF columns"
        )
    return alpha


@runtime_checkable
class Transition(Protocol):
    """What every family offers: p(ỹ | y, α), its logarithm, and its parameters."""

    family: ClassVar[str]

    @property
    def n_classes(self) -> int:
        """Number of classes K."""

    def log_matrix(self, alpha: Array) -> Array:
        """log p(ỹ | y, α), shape (N, K, K), indexed [galaxy, true y, observed ỹ]."""

    def matrix(self, alpha: Array) -> Array:
        """p(ỹ | y, α), shape (N, K, K), indexed [galaxy, true y, observed ỹ]."""

    def flip_probability(self, alpha: Array) -> Array:
        """p(ỹ = smooth | y = disk, α), shape (N,)."""

    def parameters(self) -> dict[str, Any]:
        """Parameters by name, as JSON can hold them."""


# Scales are searched within these factors of the α seen.
_SCALE_BELOW, _SCALE_ABOVE = 0.1, 5.0
_SCALE_STARTS = (1.0, 0.5, 2.0)
_SHAPE_BOUNDS, _SHAPE_STARTS = (np.log(0.2), np.log(20.0)), (0.7, 0.3, 1.1)


class FlipTransition:
    """Base of the two-class families, which differ in log p(ỹ = smooth | y = disk, α); yours can be one of them.

    A subclass is a frozen dataclass with a method `log_flip_probability`, two class attributes, and a field for each
    parameter and for `false_disk`. It can be given wherever the name of a family can.

    Attributes
    ----------
    family : str
        Name of the family.
    free : dict of str to {"scale", "shape", "probability"}
        Parameters that `fit_transition` estimates: positive and in the unit of α, positive, or between 0 and 1.
    varies : bool, default True
        Whether the flip probability depends on α. If not, it can be estimated from gold labels only.
    takes_tensors : bool, default False
        Whether `log_flip_probability` takes torch tensors too. If not, it is given numpy arrays only.

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
        for name in (*self.free, "false_disk"):
            try:
                object.__setattr__(self, name, float(getattr(self, name)))
            except (TypeError, ValueError):
                raise InputError(f"{name} must be a number; got {getattr(self, name)!r}") from None
        for name, kind in self.free.items():
            value = getattr(self, name)
            if kind == "probability":
                if not 0 <= value <= 1:
                    raise InputError(f"{name} is a probability, 0 <= {name} <= 1; got {value}")
            elif not (np.isfinite(value) and value > 0):
                unit = " in the unit of alpha" if kind == "scale" else ""
                raise InputError(f"{name} must be a positive number{unit}; got {value}")
        if not 0 <= self.false_disk < 1:
            raise InputError(f"false_disk is a probability, 0 <= false_disk < 1; got {self.false_disk}")

    def log_flip_probability(self, alpha: Array) -> Array:
        """Return log p(ỹ = smooth | y = disk, α), shape (N,).

        Parameters
        ----------
        alpha : array or tensor, shape (N,)
            Resolution: floating, not negative, not missing.
        """
        raise NotImplementedError

    def _log_flip(self, alpha: Array) -> Array:
        """log p(ỹ = smooth | y = disk, α) of checked α, of the same kind of array as α."""
        alpha = as_resolution(alpha)
        if self.takes_tensors or not is_torch_array(alpha):
            return self.log_flip_probability(alpha)
        found = self.log_flip_probability(alpha.detach().cpu().numpy())
        return array_namespace(alpha).asarray(found, dtype=alpha.dtype, device=get_device(alpha))

    def log_seen_probability(self, alpha: Array) -> Array:
        """log p(ỹ = disk | y = disk, α), shape (N,): log(1 - flip), not below log of the smallest normal number."""
        log_flip = self._log_flip(alpha)
        xp = array_namespace(log_flip)
        return xp.log(-xp.expm1(xp.clip(log_flip, max=-float(xp.finfo(log_flip.dtype).smallest_normal))))

    def flip_probability(self, alpha: Array) -> Array:
        """p(ỹ = smooth | y = disk, α), shape (N,); numpy or torch in, the same out."""
        log_flip = self._log_flip(alpha)
        return array_namespace(log_flip).exp(log_flip)

    def log_matrix(self, alpha: Array) -> Array:
        """log p(ỹ | y, α), shape (N, 2, 2), indexed [galaxy, true y, observed ỹ].

        The log-probability that a disk is seen, log(1 - flip), is kept above the logarithm of the smallest
        normal number: a disk label at α = 0 then costs about 87 (float32) or 708 (float64) and has the same
        finite gradient as in the limit α → 0. Structural zeros (eq. 6) stay -inf.
        """
        log_flip = self._log_flip(alpha)
        xp = array_namespace(log_flip)
        smooth_as_smooth = xp.full_like(log_flip, float(np.log1p(-self.false_disk)))
        with np.errstate(divide="ignore"):
            smooth_as_disk = xp.full_like(log_flip, float(np.log(self.false_disk)))  # eq. 6
        rows = [
            xp.stack([smooth_as_smooth, smooth_as_disk], axis=-1),
            xp.stack([log_flip, self.log_seen_probability(alpha)], axis=-1),
        ]
        return xp.stack(rows, axis=-2)

    def matrix(self, alpha: Array) -> Array:
        """p(ỹ | y, α), shape (N, 2, 2), indexed [galaxy, true y, observed ỹ]; rows sum to 1."""
        log_matrix = self.log_matrix(alpha)
        return array_namespace(log_matrix).exp(log_matrix)

    def parameters(self) -> dict[str, Any]:
        """Parameters by name, as JSON can hold them."""
        return {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return how `free`, and `false_disk` where it is fitted, are searched.

        Raises
        ------
        InputError
            If there are more classes than two or several observables, or the formula gives no probabilities.
        """
        search.check_two_classes(cls.family)
        kinds, bounds_of = dict(cls.free), {"shape": _SHAPE_BOUNDS, "probability": (-LOGIT_BOUND, LOGIT_BOUND)}
        if search.false_disk is None:
            kinds["false_disk"], bounds_of["false"] = "false", FALSE_DISK_BOUNDS
        positive = search.alpha[search.alpha > 0]
        middle = np.log(np.median(positive))
        bounds_of["scale"] = (np.log(positive.min() * _SCALE_BELOW), np.log(positive.max() * _SCALE_ABOVE))

        def values(point: np.ndarray) -> np.ndarray:
            positives = np.exp(np.clip(point, -700, 700))
            each = zip(kinds.values(), positives, point, strict=True)
            return np.array([p if kind in ("scale", "shape") else expit(x) for kind, p, x in each])

        def build(point: np.ndarray) -> Transition:
            made = dict(zip(kinds, values(point).tolist(), strict=True))
            return cls(**{"false_disk": search.false_disk, **made})

        def start(scale: float, shape: float) -> list[float]:
            begin = {"scale": middle + np.log(scale), "shape": shape, "probability": 0.0, "false": FALSE_DISK_START}
            return [begin[kind] for kind in kinds.values()]

        shapes = _SHAPE_STARTS if "shape" in kinds.values() else _SHAPE_STARTS[:1]
        starts = [start(scale, shape) for shape, scale in product(shapes, _SCALE_STARTS)]
        bounds = [bounds_of[kind] for kind in kinds.values()]
        space = Space.bounded(cls.family, 2, list(kinds), build, values, bounds, starts)
        flips = build(space.starts[0]).flip_probability(search.alpha)
        wrong = np.flatnonzero(~((flips >= 0) & (flips <= 1)))
        if wrong.size:
            raise InputError(
                f"the flip probability of {cls.family} is {flips[wrong[0]]:.3g} at alpha = "
                f"{search.alpha[wrong[0]]:.3g}; `log_flip_probability` must give logarithms of probabilities"
            )
        return space


@dataclass(frozen=True)
class RayleighTransition(FlipTransition):
    """Disks are called smooth with probability exp(-α² / (2θ²)) (eq. 5).

    Smooth galaxies are never called disks (eq. 6) unless `false_disk` says so.

    Parameters
    ----------
    theta : float
        θ > 0, in the unit of α (α = R_petro / σ_PSF unless a catalogue says otherwise).
    false_disk : float, default 0
        p(ỹ = disk | y = smooth), the same at every α; 0 ≤ false_disk < 1.

    Raises
    ------
    InputError
        If a parameter is outside its range, or α is NaN or negative (numpy input).

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
        """log p(ỹ = smooth | y = disk, α), shape (N,)."""
        scaled = alpha / self.theta  # before squaring: α² alone can overflow
        return -0.5 * scaled * scaled  # eq. 5


@dataclass(frozen=True)
class WeibullTransition(FlipTransition):
    """Disks are called smooth with probability exp(-(α / scale)^shape); shape 2 is Rayleigh, scale = √2 θ.

    Parameters
    ----------
    scale : float
        Positive, in the unit of α: where the flip probability is 1/e.
    shape : float
        Positive; the smaller, the longer flips go on at high resolution.
    false_disk : float, default 0
        p(ỹ = disk | y = smooth).

    Raises
    ------
    InputError
        If a parameter is outside its range, or α is NaN or negative (numpy input).

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
        """log p(ỹ = smooth | y = disk, α), shape (N,)."""
        return -_power(alpha, self.scale, self.shape)


@dataclass(frozen=True)
class FiskTransition(FlipTransition):
    """Disks are called smooth with probability 1 / (1 + (α / scale)^shape) (log-logistic).

    Its tail is a power law: some flips are left at any resolution. It is a logistic regression on log α.

    Parameters
    ----------
    scale : float
        Positive, in the unit of α: where half of the disks are called smooth.
    shape : float
        Positive; the steepness.
    false_disk : float, default 0
        p(ỹ = disk | y = smooth).

    Raises
    ------
    InputError
        If a parameter is outside its range, or α is NaN or negative (numpy input).

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
        """log p(ỹ = smooth | y = disk, α), shape (N,)."""
        power = _power(alpha, self.scale, self.shape)
        return -array_namespace(power).log1p(power)


@dataclass(frozen=True)
class ConstantTransition(FlipTransition):
    """Disks are called smooth with the same probability at every α.

    Parameters
    ----------
    flip : float
        p(ỹ = smooth | y = disk), 0 to 1.
    false_disk : float, default 0
        p(ỹ = disk | y = smooth).

    Raises
    ------
    InputError
        If a parameter is outside its range, or α is NaN or negative (numpy input).

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
        """log p(ỹ = smooth | y = disk), shape (N,)."""
        with np.errstate(divide="ignore"):
            return array_namespace(alpha).full_like(alpha, float(np.log(self.flip)))


def _power(alpha: Array, scale: float, shape: float) -> Array:
    """(α / scale)^shape, capped short of overflow; 0 at α = 0."""
    xp = array_namespace(alpha)
    info = xp.finfo(alpha.dtype)
    logarithm = xp.log(xp.clip(alpha, min=float(info.smallest_normal))) - float(np.log(scale))
    return xp.exp(xp.clip(shape * logarithm, max=float(np.log(float(info.max))) - 1.0))


def short_repr(transition: Any) -> str:
    """Class and parameters; of long tables the first entries."""
    shown = (f"{name}={_SHORT.repr(value)}" for name, value in transition.parameters().items())
    return f"{type(transition).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class MatrixTransition:
    """One K×K matrix for every galaxy, whatever its α; the identity means "labels as given".

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
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 2 or values.shape[0] != values.shape[1] or values.shape[0] < 2:
            raise InputError(f"a transition matrix is square, K×K with K >= 2; got shape {values.shape}")
        in_range = bool(np.all((values >= 0) & (values <= 1)))
        if not in_range or not np.allclose(values.sum(axis=1), 1.0, atol=1e-6):
            raise InputError("each row of a transition matrix holds probabilities that sum to 1")
        object.__setattr__(self, "values", tuple(map(tuple, values.tolist())))

    def __repr__(self) -> str:
        return short_repr(self)

    @classmethod
    def identity(cls, n_classes: int = 2) -> MatrixTransition:
        """Labels taken at their word: T = 1, the naive training of Table 1, rows c and d."""
        return cls(tuple(map(tuple, np.eye(n_classes).tolist())))

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.values)

    def log_matrix(self, alpha: Array) -> Array:
        """log p(ỹ | y), repeated for each galaxy, shape (N, K, K)."""
        alpha = as_resolution(alpha)
        xp = array_namespace(alpha)
        with np.errstate(divide="ignore"):
            log_values = np.log(np.asarray(self.values))
        log_values = xp.asarray(log_values, dtype=alpha.dtype, device=alpha.device)
        return xp.broadcast_to(log_values[None, :, :], (alpha.shape[0], self.n_classes, self.n_classes))

    def matrix(self, alpha: Array) -> Array:
        """p(ỹ | y), repeated for each galaxy, shape (N, K, K)."""
        log_matrix = self.log_matrix(alpha)
        return array_namespace(log_matrix).exp(log_matrix)

    def flip_probability(self, alpha: Array) -> Array:
        """p(ỹ = smooth | y = disk), shape (N,)."""
        return self.matrix(alpha)[:, DISK, SMOOTH]

    def parameters(self) -> dict[str, list[list[float]]]:
        """Parameters by name."""
        return {"values": [list(row) for row in self.values]}

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return how the flips that can happen are searched: by their log-odds relative to the right label."""
        search.check_one_resolution(cls.family)
        n_classes = search.n_classes
        pairs = np.argwhere(search.seen & ~np.eye(n_classes, dtype=bool))

        def full(point: np.ndarray) -> np.ndarray:
            scores = np.where(np.eye(n_classes, dtype=bool), 0.0, -np.inf)
            scores[tuple(pairs.T)] = point
            odds = np.exp(scores)
            return odds / odds.sum(axis=1, keepdims=True)

        return Space.bounded(
            cls.family,
            n_classes,
            [f"p({class_name(s, n_classes)}|{class_name(y, n_classes)})" for y, s in pairs],
            lambda point: cls(tuple(map(tuple, full(point).tolist()))),
            lambda point: full(point)[tuple(pairs.T)],
            [(-LOGIT_BOUND, LOGIT_BOUND)] * len(pairs),
            [[-2.0] * len(pairs)],
            separate=False,
        )


def class_name(k: int, n_classes: int) -> str:
    """Return the name of a class, its number where there are more than two."""
    return CLASS_NAMES[k] if n_classes == 2 else str(k)
