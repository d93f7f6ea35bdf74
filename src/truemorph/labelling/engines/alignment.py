"""Bringing probabilities of a coarser arithmetic back to where float32's are, on average."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

_LEAST = 1e-30


def _logits(p: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(p, np.float64), _LEAST))


@dataclass(frozen=True)
class Alignment:
    """softmax(scale · log p + shifts): a change of temperature, and a shift of each class.

    Attributes
    ----------
    scale : float
    shifts : tuple of float, length K
        The first is zero.
    """

    scale: float
    shifts: tuple[float, ...]

    @classmethod
    def fit(cls, fast: np.ndarray, exact: np.ndarray) -> Alignment:
        """The one by which `fast` predicts `exact` best (least cross entropy); mean probabilities are then equal.

        Parameters
        ----------
        fast, exact : array, shape (N, K)
            Probabilities of the same images.

        Examples
        --------
        >>> exact = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
        >>> fast = softmax(np.log(exact) / 2 + [0.0, 0.3], axis=1)
        >>> found = Alignment.fit(fast, exact)
        >>> round(found.scale, 3), round(found.shifts[1], 3)
        (2.0, -0.6)
        """
        x, exact = _logits(fast), np.asarray(exact, np.float64)
        n = len(x)

        def cost(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            z = parameters[0] * x + np.append(0.0, parameters[1:])
            beyond = softmax(z, axis=1) - exact
            slope = np.append(np.sum(beyond * x), beyond.sum(axis=0)[1:])
            return -float(np.sum(exact * log_softmax(z, axis=1))) / n, slope / n

        start = np.append(1.0, np.zeros(x.shape[1] - 1))
        found = minimize(cost, start, jac=True, method="BFGS", options={"gtol": 1e-8})
        return cls(float(found.x[0]), (0.0, *map(float, found.x[1:])))

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """Aligned probabilities, shape (N, K)."""
        return softmax(self.scale * _logits(p) + np.array(self.shifts), axis=1)
