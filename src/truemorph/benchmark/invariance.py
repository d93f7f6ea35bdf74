"""Dependence of a classifier on resolution, from degraded copies of the same images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from truemorph.errors import InputError
from truemorph.findings import Findings
from truemorph.images.degrade import degrade
from truemorph.questions import SMOOTH_OR_DISK
from truemorph.results import Result, quantity_table


class ResolutionDrift(Result):
    """Change of the probability of a class of the same galaxies at lower resolution.

    Attributes
    ----------
    factors : array, shape (F,)
        Factors by which α was lowered.
    shift : array, shape (F,)
        Mean change of p.
    stderr : array, shape (F,)
        Its standard error over galaxies.
    spread : array, shape (F,)
        Root mean square change of a galaxy's p.
    drift : float
        Rms of the mean changes.
    findings : tuple of Finding
    name : str
        Name of the class.

    Examples
    --------
    >>> one = np.ones(1)
    >>> found = ResolutionDrift(factors=2 * one, shift=-0.05 * one, stderr=0.01 * one, spread=0.1 * one, drift=0.05)
    >>> found.to_table()["shift"].tolist()  # p(disk) falls by 0.05 at half the resolution
    [-0.05]
    """

    factors: np.ndarray
    shift: np.ndarray
    stderr: np.ndarray
    spread: np.ndarray
    drift: float
    findings: Findings = ()
    name: str = SMOOTH_OR_DISK[1]

    def summary(self) -> str:
        """Return the mean change of p for each factor as text."""
        lines = [
            f"α lowered by {factor:g}: p({self.name}) changes by {shift:+.3f} ± {error:.3f} "
            f"(rms per galaxy {spread:.3f})"
            for factor, shift, error, spread in zip(self.factors, self.shift, self.stderr, self.spread, strict=True)
        ]
        return "\n".join([*lines, f"rms of the mean changes {self.drift:.3f}"])

    def to_table(self) -> Any:
        """Return a table with one row per factor."""
        about = {
            "factors": "factor by which α was lowered",
            "shift": f"mean change of p({self.name})",
            "stderr": "its standard error",
            "spread": f"root mean square change of a galaxy's p({self.name})",
        }
        return quantity_table({name: (getattr(self, name), text) for name, text in about.items()}, drift=self.drift)

    def draw(self, ax: Any) -> None:
        """Draw the mean change of p against the factor."""
        ax.errorbar(self.factors, self.shift, self.stderr, fmt="o-")
        ax.axhline(0, color="0.5", lw=1)
        ax.set(xlabel=r"factor by which $\alpha$ was lowered", ylabel=f"mean change of p({self.name})")


def resolution_drift(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    alpha: np.ndarray,
    radius: np.ndarray | float,
    factors: Sequence[float] = (1.5, 2.5),
    seed: int = 0,
    name: str = SMOOTH_OR_DISK[1],
) -> ResolutionDrift:
    """Measure how the probability of a class, by any classifier, changes when images are degraded.

    A classifier that has learned the labels' bias misses this class in degraded images. An unbiased one moves towards
    its prior where degraded images contain less information, so a small shift does not prove bias. Compare two
    classifiers on the same images.

    Parameters
    ----------
    predict : callable
        Function of images, uint8 of shape (N, S, S, 3), that returns the probability, shape (N,).
    images : array of uint8, shape (N, S, S, 3)
    alpha : array, shape (N,)
        Resolution.
    radius : array, shape (N,), or float
        Petrosian radius, in pixels.
    factors : sequence of float
        Factors by which α is lowered, each above 1.
    seed : int
        Seed of the noise of degraded images.
    name : str
        Name of the class, such as disk or bar.

    Returns
    -------
    ResolutionDrift

    Raises
    ------
    InputError
        If a factor is not above 1.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 40, (5, 32, 32, 3), dtype=np.uint8)
    >>> resolution_drift(lambda batch: np.full(len(batch), 0.7), images, np.full(5, 20.0), 8.0).drift
    0.0
    """
    if not len(factors) or not all(factor > 1 for factor in factors):
        raise InputError(f"`factors` must be above 1; got {list(factors)}")
    before = np.asarray(predict(images), float)
    changes = np.stack(
        [
            np.asarray(predict(degrade(images, alpha, np.asarray(alpha) / factor, radius, seed + number))) - before
            for number, factor in enumerate(factors)
        ]
    )
    shift = changes.mean(axis=1)
    return ResolutionDrift(
        factors=np.asarray(factors, float),
        shift=shift,
        stderr=changes.std(axis=1, ddof=1) / np.sqrt(changes.shape[1]),
        spread=np.sqrt(np.mean(changes**2, axis=1)),
        drift=float(np.sqrt(np.mean(shift**2))),
        name=name,
    )
