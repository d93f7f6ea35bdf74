"""How labels flip with resolution: the transition families T(α).

Equation numbers are those of Medina-Rosales, Cabrera-Vives & Miller, "Mitigating Bias in Deep Learning:
Training Unbiased Models on Biased Data for the Morphological Classification of Galaxies", MNRAS,
arXiv:2308.11007. Classes are 0 = smooth and 1 = disk. Every formula is written once, in log space, for numpy
and torch alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from truemorph.arrays import float_array
from truemorph.errors import InputError

SMOOTH, DISK = 0, 1
CLASS_NAMES = ("smooth", "disk")

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


@dataclass(frozen=True)
class RayleighTransition:
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
    n_classes: ClassVar[int] = 2
    # Positive parameters that an estimator may vary, with a starting value as a multiple of the median α.
    scale_free: ClassVar[dict[str, float]] = {"theta": 0.7}

    def __post_init__(self) -> None:
        if not (np.isfinite(self.theta) and self.theta > 0):
            raise InputError(f"theta must be a positive number in the unit of alpha; got {self.theta}")
        if not 0 <= self.false_disk < 1:
            raise InputError(f"false_disk is a probability, 0 <= false_disk < 1; got {self.false_disk}")

    def log_flip_probability(self, alpha: Array) -> Array:
        """log p(ỹ = smooth | y = disk, α), shape (N,)."""
        alpha = as_resolution(alpha)
        scaled = alpha / self.theta  # before squaring: α² alone can overflow
        return -0.5 * scaled * scaled  # eq. 5

    def flip_probability(self, alpha: Array) -> Array:
        """p(ỹ = smooth | y = disk, α), shape (N,); numpy or torch in, the same out."""
        log_flip = self.log_flip_probability(alpha)
        return array_namespace(log_flip).exp(log_flip)

    def log_matrix(self, alpha: Array) -> Array:
        """log p(ỹ | y, α), shape (N, 2, 2), indexed [galaxy, true y, observed ỹ].

        The log-probability that a disk is seen, log(1 - flip), is kept above the logarithm of the smallest
        normal number: a disk label at α = 0 then costs about 87 (float32) or 708 (float64) and has the same
        finite gradient as in the limit α → 0. Structural zeros (eq. 6) stay -inf.
        """
        log_flip = self.log_flip_probability(alpha)
        xp = array_namespace(log_flip)
        tiny = float(xp.finfo(log_flip.dtype).smallest_normal)
        log_seen = xp.log(-xp.expm1(xp.clip(log_flip, max=-tiny)))
        smooth_as_smooth = xp.full_like(log_flip, float(np.log1p(-self.false_disk)))
        with np.errstate(divide="ignore"):
            smooth_as_disk = xp.full_like(log_flip, float(np.log(self.false_disk)))  # eq. 6
        rows = [
            xp.stack([smooth_as_smooth, smooth_as_disk], axis=-1),
            xp.stack([log_flip, log_seen], axis=-1),
        ]
        return xp.stack(rows, axis=-2)

    def matrix(self, alpha: Array) -> Array:
        """p(ỹ | y, α), shape (N, 2, 2), indexed [galaxy, true y, observed ỹ]; rows sum to 1."""
        log_matrix = self.log_matrix(alpha)
        return array_namespace(log_matrix).exp(log_matrix)

    def parameters(self) -> dict[str, float]:
        """Parameters by name."""
        return asdict(self)


@dataclass(frozen=True)
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

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 2 or values.shape[0] != values.shape[1] or values.shape[0] < 2:
            raise InputError(f"a transition matrix is square, K×K with K >= 2; got shape {values.shape}")
        in_range = bool(np.all((values >= 0) & (values <= 1)))
        if not in_range or not np.allclose(values.sum(axis=1), 1.0, atol=1e-6):
            raise InputError("each row of a transition matrix holds probabilities that sum to 1")
        object.__setattr__(self, "values", tuple(map(tuple, values.tolist())))

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


FAMILIES: dict[str, Any] = {cls.family: cls for cls in (RayleighTransition, MatrixTransition)}


def transition_from_dict(described: dict[str, Any]) -> Transition:
    """Rebuild a transition from `{"family": ..., "parameters": {...}}`.

    Raises
    ------
    InputError
        If the family is unknown or its parameters don't fit.
    """
    family = described.get("family")
    if family not in FAMILIES:
        raise InputError(f"unknown transition family {family!r}; known: {', '.join(FAMILIES)}")
    try:
        return FAMILIES[family](**described["parameters"])
    except (KeyError, TypeError) as problem:
        raise InputError(f"the {family} transition can't be rebuilt from {described}: {problem}") from problem


def transition_to_dict(transition: Transition) -> dict[str, Any]:
    """Describe a transition as JSON can hold it: `{"family": ..., "parameters": {...}}`."""
    return {"family": transition.family, "parameters": transition.parameters()}
