"""T(α) of gold labels: how experts themselves miss classes, measured with degraded copies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from truemorph.bias.curves.transitions import Array, Transition, as_resolution, like, log_of, tuples

# Largest probability of a miss, so that T can be inverted.
_MOST = 1 - 1e-9


@dataclass(frozen=True, repr=False)
class MissesTransition(Transition):
    """Each class is missed with the probability of eq. 5, exp(-α² / 2θ²), with a θ of its own.

    Parameters
    ----------
    theta : tuple of float, shape (K,)
        θ of each class; 0 where it is never missed.
    called : tuple of tuple of float, shape (K, K)
        What missed galaxies are called: the share of each other class, indexed [true class, class of the label].

    Examples
    --------
    >>> bars = MissesTransition((0.0, 0.0, 6.0), ((0.0, 0.5, 0.5), (1.0, 0.0, 0.0), (0.25, 0.75, 0.0)))
    >>> bars.matrix([6.0])[0, 2].round(3)  # a galaxy with a bar: not asked, no bar, bar
    array([0.152, 0.455, 0.393])
    """

    theta: tuple[float, ...]
    called: tuple[tuple[float, ...], ...]

    family = "misses"

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.theta)

    def log_matrix(self, alpha: Array) -> Array:
        """Return log p(gold label | y, α), shape (N, K, K)."""
        alpha = as_resolution(alpha)
        xp = array_namespace(alpha)
        every = np.maximum(self.theta, 1e-6), self.called, np.eye(self.n_classes)
        theta, called, eye = (like(alpha, values) for values in every)
        missed = _MOST * xp.exp(-0.5 * (alpha[:, None] / theta) ** 2)[:, :, None]
        return log_of((1 - missed) * eye + missed * called)


def misses_of_experts(
    experts: Mapping[str, Mapping[str, Any]], names: Sequence[str], numbers: Sequence[int], at_limit: str | None = None
) -> MissesTransition:
    """Return T(α) of gold labels from what degraded copies showed of each class (`gold.agreement.misses_on_copies`).

    Each of the `names` has one of the `numbers`, the classes of T: several may have the same, and a name occur several
    times. θ is the most likely one, or the upper limit of the name `at_limit`; of several names, that of the name which
    is missed most, but for those that it is called of the same class. What was not measured is never missed.
    """
    every = list(dict.fromkeys(names))
    is_of = np.zeros((1 + max(numbers), len(every)))
    is_of[list(numbers), list(map(every.index, names))] = 1
    theta = np.array([experts.get(name, {}).get("upper" if name == at_limit else "theta", 0.0) for name in every])
    called = np.array([[experts.get(name, {}).get("called", {}).get(other, 0.0) for other in every] for name in every])
    most = (is_of * theta).argmax(axis=1)
    shares, same = called[most] @ (is_of / is_of.sum(axis=0)).T, is_of @ is_of.T > 0
    shares = np.where(same, 0, shares) + np.diag(np.where(same, shares, 0).sum(axis=1))
    total = shares.sum(axis=1, keepdims=True)
    theta = np.where(total[:, 0] > 0, (is_of * theta).max(axis=1), 0.0)
    shares /= np.where(total > 0, total, 1)
    return MissesTransition(tuple(theta.tolist()), tuples(shares.tolist()))
