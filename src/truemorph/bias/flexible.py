"""Transition families without a fixed shape: tables over α, and logistic ones in any observables.

Like those in `truemorph.bias.transitions`, each formula is written once, for numpy and torch alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from array_api_compat import device as get_device
from scipy.special import expit

from truemorph.arrays import float_array
from truemorph.bias.spaces import FALSE_DISK_BOUNDS, FALSE_DISK_START, LOGIT_BOUND, Search, Space
from truemorph.bias.transitions import DISK, SMOOTH, Array, FlipTransition, as_resolution, class_name, short_repr
from truemorph.errors import InputError


def _interpolate(alpha: Array, knots: Sequence[float], values: Any) -> Array:
    """Piecewise-linear functions of α, constant outside the knots; differentiable in torch.

    values : shape (M,) or (M, C), probabilities at the M knots. Returns shape (N,) or (N, C).
    """
    xp = array_namespace(alpha)
    at, value = (xp.asarray(one, dtype=alpha.dtype, device=get_device(alpha)) for one in (knots, values))
    left = xp.clip(xp.searchsorted(at, alpha, side="right") - 1, 0, at.shape[0] - 2)
    low, high = xp.take(at, left), xp.take(at, left + 1)
    # Clipped before it is divided by a width that may be tiny; knots that are one number in float32 make a step.
    inside, width = xp.clip(alpha, low, high) - low, high - low
    share = xp.where(width > 0, inside / xp.where(width > 0, width, 1.0), 1.0)
    share = share[:, None] if value.ndim == 2 else share
    # A weighted mean, not a slope: exact at the knots, so that a 0 or a 1 stays one.
    return share * xp.take(value, left + 1, axis=0) + (1 - share) * xp.take(value, left, axis=0)


def _check_knots(knots: Any, values: np.ndarray) -> np.ndarray:
    knots = float_array(knots, "knots")
    if knots.ndim != 1 or knots.size < 2 or not np.all(np.diff(knots) > 0) or not np.all(np.isfinite(knots)):
        raise InputError("knots must be at least two finite, increasing values of alpha")
    if knots[0] < 0:
        raise InputError(f"knots are values of alpha, 0 or more; got {knots[0]}")
    if values.shape[0] != knots.size:
        raise InputError(f"one entry a knot: got {values.shape[0]} for {knots.size} knots")
    return knots


@dataclass(frozen=True, repr=False)
class MonotoneTransition(FlipTransition):
    """Flip probability of disks that falls with α, in straight pieces between knots; no shape assumed.

    Parameters
    ----------
    knots : sequence of float, length M
        Increasing values of α; below the first and above the last the flip probability is constant.
    flip : sequence of float, length M
        p(ỹ = smooth | y = disk) at the knots, never rising.
    false_disk : float, default 0
        p(ỹ = disk | y = smooth).

    Raises
    ------
    InputError
        If knots don't increase, flips leave [0, 1] or rise, or α is NaN or negative (numpy input).

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
            raise InputError(f"flip holds probabilities, 0 to 1; got {flip.min():.3g} to {flip.max():.3g}")
        if np.any(np.diff(flip) > 1e-12):
            raise InputError("flip probabilities must not rise with alpha; for other shapes use TabulatedTransition")
        object.__setattr__(self, "knots", tuple(knots.tolist()))
        object.__setattr__(self, "flip", tuple(flip.tolist()))

    def __repr__(self) -> str:
        return short_repr(self)

    def log_flip_probability(self, alpha: Array) -> Array:
        """log p(ỹ = smooth | y = disk, α), shape (N,)."""
        flip = _interpolate(alpha, self.knots, self.flip)
        xp = array_namespace(flip)
        return xp.log(xp.clip(flip, min=float(xp.finfo(flip.dtype).smallest_normal)))

    def log_seen_probability(self, alpha: Array) -> Array:
        """log p(ỹ = disk | y = disk, α), shape (N,): from 1 - flip at the knots, as a flip near 1 rounds it away."""
        seen = _interpolate(as_resolution(alpha), self.knots, tuple(1 - one for one in self.flip))
        xp = array_namespace(seen)
        return xp.log(xp.clip(seen, min=float(xp.finfo(seen.dtype).smallest_normal)))

    def parameters(self) -> dict[str, Any]:
        """Parameters by name, as JSON can hold them."""
        return {"knots": list(self.knots), "flip": list(self.flip), "false_disk": self.false_disk}

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return how flips at the knots are searched; anchored, the last one is 0.

        Knots are given, or a number of them lies at equal-count steps of α. The first flip moves by its logit, every
        other as a share of the one before.

        Raises
        ------
        InputError
            If there are fewer than two knots, more than two classes, or several observables.
        """
        search.check_two_classes(cls.family)
        knots, false_disk = search.knots, search.false_disk
        if isinstance(knots, int | np.integer):
            if knots < 2:
                raise InputError(f"a monotone flip probability needs at least 2 knots; got {knots}")
            steps = np.linspace(0, 1, knots)
            steps[0], steps[-1] = 0.25 / knots, 1 - 0.25 / knots
            at = np.unique(np.quantile(search.alpha, steps))
        else:
            at = np.unique(np.asarray(knots, dtype=np.float64))
        if at.size < 2:
            raise InputError("a monotone flip probability needs galaxies at different alpha")
        n_free = at.size - int(search.anchored)

        def values(point: np.ndarray) -> np.ndarray:
            flips = np.cumprod(expit(point[:n_free]))
            tail = [0.0] if search.anchored else []
            return np.concatenate([flips, tail, expit(point[n_free:])])

        def build(point: np.ndarray) -> MonotoneTransition:
            found = values(point)
            false = float(found[at.size]) if false_disk is None else false_disk
            return cls(tuple(at.tolist()), tuple(found[: at.size].tolist()), false)

        names = [f"flip({value:.4g})" for value in at] + (["false_disk"] if false_disk is None else [])
        n_false = int(false_disk is None)
        bounds = [(-LOGIT_BOUND, LOGIT_BOUND)] * n_free + [FALSE_DISK_BOUNDS] * n_false
        starts = [[1.5] + [1.0] * (n_free - 1) + [FALSE_DISK_START] * n_false]
        return Space.bounded(cls.family, 2, names, build, values, bounds, starts, separate=False)


@dataclass(frozen=True, repr=False)
class TabulatedTransition:
    """A K×K matrix at each of M values of α, linear between them and constant outside.

    Parameters
    ----------
    knots : sequence of float, length M
        Increasing values of α.
    values : array_like, shape (M, K, K)
        p(ỹ | y) at each, indexed [knot, true y, observed ỹ]; rows sum to 1.

    Raises
    ------
    InputError
        If knots don't increase, shapes disagree, or a row does not hold probabilities that sum to 1.

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
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 3 or values.shape[1] != values.shape[2] or values.shape[1] < 2:
            raise InputError(f"values must have shape (M, K, K) with K >= 2; got {values.shape}")
        knots = _check_knots(self.knots, values)
        in_range = bool(np.all((values >= 0) & (values <= 1)))
        if not in_range or not np.allclose(values.sum(axis=2), 1.0, atol=1e-6):
            raise InputError("each row of a transition matrix holds probabilities that sum to 1")
        object.__setattr__(self, "knots", tuple(knots.tolist()))
        object.__setattr__(self, "values", tuple(tuple(map(tuple, one)) for one in values.tolist()))

    def __repr__(self) -> str:
        return short_repr(self)

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.values[0])

    def matrix(self, alpha: Array) -> Array:
        """p(ỹ | y, α), shape (N, K, K); rows sum to 1."""
        alpha = as_resolution(alpha)
        k = self.n_classes
        flat = _interpolate(alpha, self.knots, np.asarray(self.values).reshape(-1, k * k).tolist())
        return array_namespace(flat).reshape(flat, (-1, k, k))

    def log_matrix(self, alpha: Array) -> Array:
        """log p(ỹ | y, α), shape (N, K, K)."""
        matrix = self.matrix(alpha)
        with np.errstate(divide="ignore"):
            return array_namespace(matrix).log(matrix)

    def flip_probability(self, alpha: Array) -> Array:
        """p(ỹ = smooth | y = disk, α), shape (N,)."""
        return self.matrix(alpha)[:, DISK, SMOOTH]

    def parameters(self) -> dict[str, Any]:
        """Parameters by name, as JSON can hold them."""
        return {"knots": list(self.knots), "values": np.asarray(self.values).tolist()}


@dataclass(frozen=True, repr=False)
class LogisticTransition:
    """Flips of K classes by multinomial logistic regression on one or several observables.

    log p(ỹ | y, o) = s_yỹ - log Σ_k exp s_yk, with s_yy = 0 and s_yỹ = c_yỹ0 + Σ_j c_yỹj x_j for the flips that
    are allowed. x_j = (log o_j - center_j) / scale_j, or (o_j - center_j) / scale_j where `log` is false. One
    observable, log, two classes: the log-logistic (Fisk) family.

    Parameters
    ----------
    coefficients : array_like, shape (K, K, J + 1)
        Intercept and slopes of each flip, indexed [true y, observed ỹ]; NaN for flips that never happen (eq. 6),
        ignored on the diagonal.
    center, scale : sequence of float, length J
        Standardisation of the observables.
    log : sequence of bool, length J
        Whether the logarithm of the observable enters (resolution: yes; magnitudes, surface brightness: no).

    Raises
    ------
    InputError
        If shapes disagree or a scale is not positive.

    Examples
    --------
    Half of the disks are called smooth at α = 10, the fewer the better resolved and the brighter (μ in mag).

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
    varies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        # JSON holds no NaN: flips that never happen are null there.
        table = np.array(self.coefficients, dtype=np.float64)
        if table.ndim != 3 or table.shape[0] != table.shape[1] or table.shape[0] < 2:
            raise InputError(f"coefficients must have shape (K, K, J + 1) with K >= 2; got {table.shape}")
        n_observables = table.shape[2] - 1
        for name in ("center", "scale", "log"):
            if len(getattr(self, name)) != n_observables:
                raise InputError(f"{name} needs one entry for each of the {n_observables} observables")
        if not all(np.isfinite(s) and s > 0 for s in self.scale):
            raise InputError(f"scale must be positive; got {self.scale}")
        object.__setattr__(self, "coefficients", tuple(tuple(map(tuple, one)) for one in table.tolist()))
        object.__setattr__(self, "center", tuple(map(float, self.center)))
        object.__setattr__(self, "scale", tuple(map(float, self.scale)))
        object.__setattr__(self, "log", tuple(map(bool, self.log)))

    def __repr__(self) -> str:
        return short_repr(self)

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.coefficients)

    @property
    def allowed(self) -> np.ndarray:
        """Which flips can happen, shape (K, K); the diagonal is True."""
        return ~np.isnan(np.asarray(self.coefficients)[:, :, 0]) | np.eye(self.n_classes, dtype=bool)

    def log_matrix(self, alpha: Array) -> Array:
        """log p(ỹ | y, o), shape (N, K, K); `alpha` are the observables, shape (N,) or (N, J)."""
        observables = self._observables(alpha)
        xp = array_namespace(observables)
        columns = []
        for j, (center, scale, log) in enumerate(zip(self.center, self.scale, self.log, strict=True)):
            column = observables[:, j]
            if log:
                column = xp.log(xp.clip(column, min=float(xp.finfo(column.dtype).smallest_normal)))
            columns.append((column - center) / scale)
        rows = []
        zero = xp.zeros_like(observables[:, 0])
        for y, row in enumerate(self.coefficients):
            scores = []
            for seen, (first, *slopes) in enumerate(row):
                if seen == y:
                    score = zero
                elif np.isnan(first):
                    score = xp.full_like(zero, -float("inf"))
                else:
                    score = zero + first
                    for slope, column in zip(slopes, columns, strict=True):
                        score = score + slope * column
                scores.append(score)
            stacked = xp.stack(scores, axis=-1)
            largest = xp.max(stacked, axis=-1, keepdims=True)
            rows.append(stacked - largest - xp.log(xp.sum(xp.exp(stacked - largest), axis=-1, keepdims=True)))
        return xp.stack(rows, axis=-2)

    def _observables(self, alpha: Array) -> Array:
        observables: Array
        if is_torch_array(alpha):
            observables = alpha if alpha.is_floating_point() else alpha.double()
        else:
            observables = float_array(alpha, "alpha")
            bad = np.flatnonzero(np.isnan(observables).reshape(len(observables), -1).any(axis=1))
            if bad.size:
                raise InputError(f"{bad.size} rows of the observables are missing (first: row {bad[0]}); drop them")
        if observables.ndim == 1:
            observables = observables[:, None]
        if observables.ndim != 2 or (self.center and observables.shape[1] != len(self.center)):
            raise InputError(f"needs {len(self.center)} observables, shape (N, J); got {tuple(observables.shape)}")
        return observables

    def matrix(self, alpha: Array) -> Array:
        """p(ỹ | y, o), shape (N, K, K); rows sum to 1."""
        log_matrix = self.log_matrix(alpha)
        return array_namespace(log_matrix).exp(log_matrix)

    def flip_probability(self, alpha: Array) -> Array:
        """p(ỹ = smooth | y = disk, o), shape (N,)."""
        return self.matrix(alpha)[:, DISK, SMOOTH]

    def parameters(self) -> dict[str, Any]:
        """Parameters by name, as JSON can hold them."""
        table = [[[None if np.isnan(c) else c for c in one] for one in row] for row in self.coefficients]
        return {
            "coefficients": table,
            "center": list(self.center),
            "scale": list(self.scale),
            "log": list(self.log),
        }

    @classmethod
    def space(cls, search: Search) -> Space:
        """Return how the coefficients of the flips that can happen are searched.

        Raises
        ------
        InputError
            If an observable is the same for every galaxy.
        """
        observables = search.alpha[:, None] if search.alpha.ndim == 1 else search.alpha
        n_observables, n_classes = observables.shape[1], search.n_classes
        log = [j == 0 for j in range(n_observables)] if search.log is None else list(search.log)
        # Rows that have no logarithm (unresolved galaxies) say nothing about where the others lie.
        usable = ~np.any(np.asarray(log) & (observables <= 0), axis=1)
        columns = observables[usable].copy()
        columns[:, log] = np.log(columns[:, log])
        center, scale = columns.mean(axis=0), columns.std(axis=0)
        if not np.all(scale > 0):
            raise InputError(f"observable {int(np.argmin(scale))} is the same for every galaxy: flips can't follow it")
        pairs = np.argwhere(search.seen & ~np.eye(n_classes, dtype=bool)).tolist()
        terms = ["intercept", *(f"slope {j}" for j in range(n_observables))]
        named = [f"{class_name(s, n_classes)}|{class_name(y, n_classes)} {term}" for y, s in pairs for term in terms]

        def build(point: np.ndarray) -> LogisticTransition:
            table = np.full((n_classes, n_classes, n_observables + 1), np.nan)
            for (y, s), row in zip(pairs, point.reshape(len(pairs), -1), strict=True):
                table[y, s] = row
            table[range(n_classes), range(n_classes)] = 0.0
            return cls(table.tolist(), tuple(center), tuple(scale), tuple(log))

        first = [-1.0 if s == SMOOTH else FALSE_DISK_START for _, s in pairs]
        starts = [[v for f in first for v in [f, *[slope] * n_observables]] for slope in (-0.7, 0.0)]
        bounds = [(-3 * LOGIT_BOUND, 3 * LOGIT_BOUND)] * len(named)
        return Space.bounded(cls.family, n_classes, named, build, np.array, bounds, starts, positive=False)
