"""Bias curves in α that other observables shift, such as surface brightness, and curves that errors of α blur."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from truemorph.bias.curves.logistic import standardisation
from truemorph.bias.curves.transitions import Array, FlipTransition, Search, Space, Transition, columns_of, floored_log
from truemorph.errors import InputError

# Bound of the change of ln α' per standard deviation of an observable.
_SHIFT_BOUND = 3.0


@dataclass(frozen=True, repr=False)
class ShiftedTransition(Transition):
    """A bias curve at an effective resolution, which other observables change: T(α, s) = T(α').

    α' = α exp(Σ_j b_j (s_j - c_j)). So a disk that is fainter by a magnitude may look like one of lower resolution.
    With the log-logistic (Fisk) curve, log-odds are linear in ln α and s.

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

    >>> from truemorph import RayleighTransition
    >>> t = ShiftedTransition(RayleighTransition(11.25), slopes=[-0.3466], center=[22.0])
    >>> np.round(t.flip_probability([[10.0, 22.0], [20.0, 24.0]]), 3)
    array([0.674, 0.674])
    """

    curve: Transition
    slopes: tuple[float, ...]
    center: tuple[float, ...]

    def __post_init__(self) -> None:
        if self._array("slopes").shape != self._array("center").shape or self.curve.n_observables:
            raise InputError("give a curve in alpha alone, and a slope and a center of each observable")
        object.__setattr__(self, "family", self.curve.family)

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
        resolution, *others = columns_of(alpha, self.n_observables)
        terms, xp = zip(self.slopes, others, self.center, strict=True), array_namespace(resolution)
        shift = sum(slope * (other - middle) for slope, other, middle in terms)
        return resolution * xp.exp(xp.clip(shift, -50.0, 50.0))

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
        center, scale = (of_all[1:] for of_all in standardisation(search))
        of_curve = curve.space(replace(search, alpha=search.alpha[:, 0], observables=()))
        end, bound = of_curve.size, np.full(center.size, _SHIFT_BOUND)

        def build(point: np.ndarray) -> Transition:
            return cls(of_curve.build(point[:end]), tuple(point[end:] / scale), tuple(center))

        return Space(
            of_curve.n_classes,
            [*of_curve.names, *(f"slope of {name}" for name in search.observables)],
            build,
            lambda point: np.concatenate([of_curve.values(point[:end]), point[end:] / scale]),
            np.concatenate([of_curve.lower, -bound]),
            np.concatenate([of_curve.upper, bound]),
            np.pad(of_curve.starts, ((0, 0), (0, center.size))),
        )


# Nodes of Gauss-Hermite quadrature.
_NODES = 7
# Errors are at most this part of the scatter of ln α.
_MOST_ERROR = 0.9


@dataclass(frozen=True, repr=False)
class BlurredTransition(Transition):
    """A bias curve of the true α as a function of the measured one, whose logarithm has a normal error.

    ln α of galaxies is taken to be normal, so that given the measured value it is normal, too (regression dilution:
    Fuller 1987, Measurement Error Models).
    """

    curve: Transition
    error: float  # standard deviation of ln α_measured - ln α
    mean: float  # of ln α_measured
    scatter: float  # standard deviation of ln α_measured, larger than the error

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return self.curve.n_classes

    @property
    def n_observables(self) -> int:
        """Number of observables in addition to α."""
        return self.curve.n_observables

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(ỹ | y, α) for the measured α, shape (N, K, K)."""
        resolution, *others = columns_of(alpha, self.n_observables)
        kept = 1 - (self.error / self.scatter) ** 2
        middle = self.mean + kept * (floored_log(resolution) - self.mean)
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        total = np.zeros((resolution.size, self.n_classes, self.n_classes))
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            true = np.exp(middle + np.sqrt(kept) * self.error * node)
            total += weight * self.curve.matrix(np.column_stack([true, *others]) if others else true)
        return floored_log(total)

    @classmethod
    def space(cls, of_curve: Space, error: float, log_alpha: np.ndarray) -> Space:
        """Return the space of a curve that errors of α blur; `log_alpha`, shape (N,), is measured."""
        mean, scatter = float(log_alpha.mean()), float(log_alpha.std())
        error = min(error, _MOST_ERROR * scatter)
        return replace(of_curve, build=lambda point: cls(of_curve.build(point), error, mean, scatter))


def curve_space(family: type[FlipTransition], search: Search) -> Space:
    """Return the space of a family with a curve in α: of `ShiftedTransition` where there are other observables."""
    return family.space(search) if search.alpha.ndim == 1 else ShiftedTransition.space(family, search)
