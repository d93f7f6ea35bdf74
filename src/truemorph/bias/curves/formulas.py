"""Bias curves in α: with a formula, as tables over α, and constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace
from scipy.special import expit

from truemorph.bias.curves.transitions import (
    FALSE_DISK_BOUNDS,
    FALSE_DISK_START,
    LOGIT_BOUND,
    Array,
    FlipTransition,
    Search,
    Space,
    Transition,
    as_resolution,
    floored_log,
    like,
    log_of,
    tuples,
)
from truemorph.errors import InputError


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

    family = "rayleigh"
    free: ClassVar = {"theta": "scale"}
    takes_tensors = True

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

    family = "weibull"
    free: ClassVar = {"scale": "scale", "shape": "shape"}
    takes_tensors = True

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

    family = "fisk"
    free: ClassVar = {"scale": "scale", "shape": "shape"}
    takes_tensors = True

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

    family = "constant"
    free: ClassVar = {"flip": "probability"}
    takes_tensors = True
    varies = False

    def log_flip_probability(self, alpha: Array) -> Array:
        """Return log p(ỹ = smooth | y = disk), shape (N,)."""
        return log_of(array_namespace(alpha).full_like(alpha, self.flip))


def _power(alpha: Array, scale: float, shape: float) -> Array:
    """Return (α / scale)^shape, limited to avoid overflow; 0 at α = 0."""
    xp = array_namespace(alpha)
    largest = float(np.log(float(xp.finfo(alpha.dtype).max))) - 1.0
    exponent = shape * (floored_log(alpha) - float(np.log(scale)))
    return xp.exp(xp.where(exponent > largest, largest, exponent))


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

    family = "matrix"
    varies = False

    def __post_init__(self) -> None:
        values = self._array("values")
        if values.ndim != 2 or values.shape[0] != values.shape[1] or values.shape[0] < 2:
            raise InputError(f"a transition matrix must be square, K×K with K >= 2; got shape {values.shape}")
        _check_rows(values)

    @classmethod
    def identity(cls, n_classes: int = 2) -> MatrixTransition:
        """Return the identity, which treats labels as correct: naive training (rows c and d of the paper's Table 1)."""
        return cls(tuples(np.eye(n_classes).tolist()))

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.values)

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y), repeated for each galaxy, shape (N, K, K)."""
        alpha = as_resolution(alpha)
        log_values = like(alpha, log_of(np.array(self.values)))
        return array_namespace(alpha).broadcast_to(log_values, (alpha.shape[0], *log_values.shape))

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
            n_classes,
            [f"p({search.classes[s]}|{search.classes[y]})" for y, s in pairs],
            lambda point: cls(full(point).tolist()),
            lambda point: full(point)[tuple(pairs.T)],
            -bound,
            bound,
            np.full((1, len(pairs)), -2.0),
        )


def _check_rows(values: np.ndarray) -> None:
    if not np.all((values >= 0) & (values <= 1)) or not np.allclose(values.sum(axis=-1), 1.0, atol=1e-6):
        raise InputError("each row of a transition matrix must be probabilities that sum to 1")


def _interpolate(alpha: Array, knots: Sequence[float], values: Any) -> Array:
    """Interpolate probabilities, shape (M,) or (M, C), linearly between knots of α; constant outside."""
    if isinstance(alpha, np.ndarray) and np.ndim(values) == 1:
        return np.interp(alpha, knots, values).astype(alpha.dtype)
    xp = array_namespace(alpha)
    at, value = like(alpha, knots), like(alpha, values)
    left = xp.clip(xp.searchsorted(at, alpha, side="right") - 1, 0, at.shape[0] - 2)
    low, high = xp.take(at, left), xp.take(at, left + 1)
    # Clip before dividing by a width that may be tiny; knots that are equal in float32 make a step.
    inside, width = xp.clip(alpha, low, high) - low, high - low
    share = xp.where(width > 0, inside / xp.where(width > 0, width, 1.0), 1.0)
    share = share[:, None] if value.ndim == 2 else share
    # A weighted mean is exact at the knots, so that 0 and 1 are preserved.
    return share * xp.take(value, left + 1, axis=0) + (1 - share) * xp.take(value, left, axis=0)


def _check_knots(knots: np.ndarray, values: np.ndarray) -> None:
    if knots.ndim != 1 or knots.size < 2 or knots[0] < 0 or np.any(np.diff(knots) <= 0):
        raise InputError("knots must be at least two increasing values of alpha, 0 or more")
    if values.shape[:1] != knots.shape:
        raise InputError(f"one entry per knot is needed: got shape {values.shape} for {knots.size} knots")


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

    family = "monotone"
    free: ClassVar = {}
    takes_tensors = True

    def __post_init__(self) -> None:
        super().__post_init__()
        flip = self._array("flip")
        _check_knots(self._array("knots"), flip)
        if not np.all((flip >= 0) & (flip <= 1)):
            raise InputError(f"flip must be probabilities, 0 to 1; got {flip.min():.3g} to {flip.max():.3g}")
        if np.any(np.diff(flip) > 1e-12):
            raise InputError("flip probabilities must not increase with alpha; else use TabulatedTransition")

    def log_flip_probability(self, alpha: Array) -> Array:
        """Return log p(ỹ = smooth | y = disk, α), shape (N,)."""
        return floored_log(_interpolate(alpha, self.knots, self.flip))

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return the space of flip probabilities at the knots; if anchored, the last one is 0.

        The parameters are the logits of the first flip probability, and of the ratio of each to the one before.
        """
        knots, n_false = search.knots, int(search.false_disk is None)
        if isinstance(knots, int | np.integer):
            margin = 0.25 / max(knots, 1)
            knots = np.quantile(search.alpha, np.clip(np.linspace(0, 1, max(knots, 1)), margin, 1 - margin)).tolist()
        at = np.unique(np.asarray(knots, float))
        if at.size < 2:
            raise InputError("a monotone T(alpha) needs at least 2 knots at different alpha")
        n_free = at.size - int(search.anchored)

        def values(point: np.ndarray) -> np.ndarray:
            flips = np.cumprod(expit(point[:n_free]))
            tail = [0.0] if search.anchored else []
            return np.concatenate([flips, tail, expit(point[n_free:])])

        def build(point: np.ndarray) -> MonotoneTransition:
            flip, fitted = np.split(values(point), [at.size])
            false_disk = float(fitted[0]) if search.false_disk is None else search.false_disk
            return cls(at.tolist(), flip.tolist(), false_disk)

        names = [f"flip({value:.4g})" for value in at] + ["false_disk"] * n_false
        lower, upper = np.array([(-LOGIT_BOUND, LOGIT_BOUND)] * n_free + [FALSE_DISK_BOUNDS] * n_false).T
        starts = [[1.5] + [1.0] * (n_free - 1) + [FALSE_DISK_START] * n_false]
        return Space(2, names, build, values, lower, upper, np.array(starts))


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

    family = "tabulated"

    def __post_init__(self) -> None:
        values = self._array("values")
        if values.ndim != 3 or values.shape[1] != values.shape[2] or values.shape[1] < 2:
            raise InputError(f"values must have shape (M, K, K) with K >= 2; got {values.shape}")
        _check_knots(self._array("knots"), values)
        _check_rows(values)

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.values[0])

    def matrix(self, alpha: Array) -> Array:
        """Return p(ỹ | y, α), shape (N, K, K); rows sum to 1."""
        alpha = as_resolution(alpha)
        k = self.n_classes
        flat = _interpolate(alpha, self.knots, np.reshape(self.values, (-1, k * k)))
        return array_namespace(flat).reshape(flat, (-1, k, k))

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, α), shape (N, K, K)."""
        return log_of(self.matrix(alpha))
