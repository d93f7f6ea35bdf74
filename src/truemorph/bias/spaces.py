"""The spaces in which estimators move: unconstrained numbers behind the parameters of each family.

Positive parameters move by their logarithm, probabilities by their logit, so that any point is a valid T(α).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import expit

from truemorph.bias.families import FAMILIES
from truemorph.bias.flexible import LogisticTransition, MonotoneTransition
from truemorph.bias.transitions import CLASS_NAMES, SMOOTH, MatrixTransition, Transition
from truemorph.errors import InputError

# Bounds of the search: scales within these factors of the α seen, logits within ±9 (probabilities of 1e-4).
_SCALE_BELOW, _SCALE_ABOVE, LOGIT_BOUND, _EARLY_LOGIT_BOUND = 0.1, 5.0, 9.0, 4.0
_SHAPE_BOUNDS, _SHAPE_STARTS = (np.log(0.2), np.log(20.0)), (0.7, 0.3, 1.1)
_SCALE_STARTS = (1.0, 0.5, 2.0)
_FALSE_DISK_START = -3.0

Build = Callable[[np.ndarray], Transition]
Values = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Space:
    """Where T's parameters are looked for.

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
    """

    family: str
    n_classes: int
    names: tuple[str, ...]
    build: Build
    values: Values
    lower: np.ndarray
    upper: np.ndarray
    starts: np.ndarray

    @property
    def size(self) -> int:
        """Number of free parameters of T."""
        return self.lower.size

    @property
    def early_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds while class probabilities are still rough: a logit far out has no slope left to come back by."""
        lower = np.where(self.lower == -LOGIT_BOUND, -_EARLY_LOGIT_BOUND, self.lower)
        return lower, np.where(self.upper == LOGIT_BOUND, _EARLY_LOGIT_BOUND, self.upper)


def _bounded(
    family: str,
    n_classes: int,
    names: Sequence[str],
    build: Build,
    values: Values,
    bounds: Sequence[tuple[float, float]],
    starts: Sequence[Sequence[float]],
) -> Space:
    lower, upper = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
    at = np.clip(np.array(starts, dtype=np.float64).reshape(len(starts), -1), lower, upper)
    return Space(family, n_classes, tuple(names), build, values, lower, upper, at)


def shape_space(family: str, alpha: np.ndarray, false_disk: float | None) -> Space:
    """Space of a two-class family with a formula in α; `false_disk=None` fits it too."""
    cls = FAMILIES[family]
    kinds = list(cls.free.values()) + (["false"] if false_disk is None else [])
    names = list(cls.free) + (["false_disk"] if false_disk is None else [])
    positive = alpha[alpha > 0]
    middle = np.log(np.median(positive))
    scale_bounds = (np.log(positive.min() * _SCALE_BELOW), np.log(positive.max() * _SCALE_ABOVE))
    bounds_of = {
        "scale": scale_bounds,
        "shape": _SHAPE_BOUNDS,
        "probability": (-LOGIT_BOUND, LOGIT_BOUND),
        "false": (-LOGIT_BOUND, 2.0),
    }

    def values(point: np.ndarray) -> np.ndarray:
        positives = np.exp(np.clip(point, -700, 700))
        return np.array(
            [p if kind in ("scale", "shape") else expit(x) for kind, p, x in zip(kinds, positives, point, strict=True)]
        )

    def build(point: np.ndarray) -> Transition:
        made = dict(zip(names, values(point).tolist(), strict=True))
        return cls(**({} if false_disk is None else {"false_disk": false_disk}), **made)

    def start(scale: float, shape: float) -> list[float]:
        begin = {"scale": middle + np.log(scale), "shape": shape, "probability": 0.0, "false": _FALSE_DISK_START}
        return [begin[kind] for kind in kinds]

    shapes = _SHAPE_STARTS if "shape" in kinds else _SHAPE_STARTS[:1]
    starts = [start(scale, shape) for shape, scale in product(shapes, _SCALE_STARTS)]
    return _bounded(family, 2, names, build, values, [bounds_of[kind] for kind in kinds], starts)


def monotone_space(alpha: np.ndarray, knots: int | Sequence[float], anchored: bool, false_disk: float | None) -> Space:
    """Flips that fall from knot to knot; `anchored` sets the last one to 0.

    Knots are given, or a number of them lies at equal-count steps of α. The first flip moves by its logit, every
    other as a share of the one before.
    """
    if isinstance(knots, int | np.integer):
        if knots < 2:
            raise InputError(f"a monotone flip probability needs at least 2 knots; got {knots}")
        steps = np.linspace(0, 1, knots)
        steps[0], steps[-1] = 0.25 / knots, 1 - 0.25 / knots
        at = np.unique(np.quantile(alpha, steps))
    else:
        at = np.unique(np.asarray(knots, dtype=np.float64))
    if at.size < 2:
        raise InputError("a monotone flip probability needs galaxies at different alpha")
    n_free = at.size - int(anchored)

    def values(point: np.ndarray) -> np.ndarray:
        flips = np.cumprod(expit(point[:n_free]))
        tail = [0.0] if anchored else []
        return np.concatenate([flips, tail, expit(point[n_free:])])

    def build(point: np.ndarray) -> Transition:
        found = values(point)
        false = float(found[at.size]) if false_disk is None else false_disk
        return MonotoneTransition(tuple(at.tolist()), tuple(found[: at.size].tolist()), false)

    names = [f"flip({value:.4g})" for value in at] + (["false_disk"] if false_disk is None else [])
    n_false = int(false_disk is None)
    bounds = [(-LOGIT_BOUND, LOGIT_BOUND)] * n_free + [(-LOGIT_BOUND, 2.0)] * n_false
    starts = [[1.5] + [1.0] * (n_free - 1) + [_FALSE_DISK_START] * n_false]
    return _bounded("monotone", 2, names, build, values, bounds, starts)


def _class_name(k: int, n_classes: int) -> str:
    return CLASS_NAMES[k] if n_classes == 2 else str(k)


def logistic_space(observables: np.ndarray, log: Sequence[bool], allowed: np.ndarray) -> Space:
    """Multinomial logistic flips in observables of shape (N, J)."""
    n_classes, n_observables = allowed.shape[0], observables.shape[1]
    # Rows that have no logarithm (unresolved galaxies) say nothing about where the others lie.
    usable = ~np.any(np.asarray(log) & (observables <= 0), axis=1)
    columns = observables[usable].copy()
    columns[:, list(log)] = np.log(columns[:, list(log)])
    center, scale = columns.mean(axis=0), columns.std(axis=0)
    if not np.all(scale > 0):
        raise InputError(f"observable {int(np.argmin(scale))} is the same for every galaxy: flips can't follow it")
    pairs = [(y, s) for y in range(n_classes) for s in range(n_classes) if y != s and allowed[y, s]]
    terms = ["intercept", *(f"slope {j}" for j in range(n_observables))]
    named = [f"{_class_name(s, n_classes)}|{_class_name(y, n_classes)} {term}" for y, s in pairs for term in terms]

    def build(point: np.ndarray) -> Transition:
        table = np.full((n_classes, n_classes, n_observables + 1), np.nan)
        for (y, s), row in zip(pairs, point.reshape(len(pairs), -1), strict=True):
            table[y, s] = row
        table[range(n_classes), range(n_classes)] = 0.0
        return LogisticTransition(table.tolist(), tuple(center), tuple(scale), tuple(log))

    first = [-1.0 if s == SMOOTH else _FALSE_DISK_START for _, s in pairs]
    starts = [[v for f in first for v in [f, *[slope] * n_observables]] for slope in (-0.7, 0.0)]
    bounds = [(-3 * LOGIT_BOUND, 3 * LOGIT_BOUND)] * len(named)
    return _bounded("logistic", n_classes, named, build, np.array, bounds, starts)


def matrix_space(allowed: np.ndarray) -> Space:
    """A K×K matrix constant in α."""
    n_classes = allowed.shape[0]
    pairs = [(y, s) for y in range(n_classes) for s in range(n_classes) if y != s and allowed[y, s]]

    def full(point: np.ndarray) -> np.ndarray:
        scores = np.where(np.eye(n_classes, dtype=bool), 0.0, -np.inf)
        for (y, s), value in zip(pairs, point, strict=True):
            scores[y, s] = value
        odds = np.exp(scores)
        return odds / odds.sum(axis=1, keepdims=True)

    def build(point: np.ndarray) -> Transition:
        return MatrixTransition(tuple(map(tuple, full(point).tolist())))

    def values(point: np.ndarray) -> np.ndarray:
        table = full(point)
        return np.array([table[pair] for pair in pairs])

    names = [f"p({_class_name(s, n_classes)}|{_class_name(y, n_classes)})" for y, s in pairs]
    return _bounded(
        "matrix", n_classes, names, build, values, [(-LOGIT_BOUND, LOGIT_BOUND)] * len(pairs), [[-2.0] * len(pairs)]
    )


def fixed_space(transition: Transition) -> Space:
    """A space of no parameters: T is known."""
    return Space(
        transition.family,
        transition.n_classes,
        (),
        lambda _: transition,
        lambda _: np.empty(0),
        np.empty(0),
        np.empty(0),
        np.empty((1, 0)),
    )


def fraction_start(labels: np.ndarray, n_classes: int, weights: np.ndarray | None) -> np.ndarray:
    """Logits of the labelled class fractions relative to class 0, shape (K - 1,): where fractions begin."""
    counts = np.bincount(labels, weights=weights, minlength=n_classes)
    shares = np.clip(counts / counts.sum(), 0.02, 0.98)
    return np.clip(np.log(shares[1:] / shares[0]), -3, 3)


def space_of(
    family: str,
    alpha: np.ndarray,
    *,
    n_classes: int,
    seen: np.ndarray,
    anchored: bool,
    false_disk: float | None,
    knots: int | Sequence[float] = 8,
    log: Sequence[bool] | None = None,
) -> Space:
    """Space of any family that can be fitted; `seen`, shape (K, K), says which flips can happen.

    Raises
    ------
    InputError
        If the family is unknown, or does not fit the number of classes or observables.
    """
    if family == "logistic":
        observables = alpha[:, None] if alpha.ndim == 1 else alpha
        flags = [j == 0 for j in range(observables.shape[1])] if log is None else list(log)
        return logistic_space(observables, flags, seen)
    if alpha.ndim == 2:
        raise InputError(f'several observables need family="logistic"; {family} takes alpha of shape (N,)')
    if family == "matrix":
        return matrix_space(seen)
    if n_classes != 2:
        raise InputError(f'{family} is a family of two classes; for {n_classes} use "matrix" or "logistic"')
    if family == "monotone":
        return monotone_space(alpha, knots, anchored, false_disk)
    if hasattr(FAMILIES.get(family), "free"):
        return shape_space(family, alpha, false_disk)
    raise InputError(f"unknown family {family!r}; families to fit: {', '.join(FAMILIES)}")
