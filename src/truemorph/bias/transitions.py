"""How labels flip with resolution: the transition families T(α) with a formula.

Forms without one are in `truemorph.bias.flexible`, the list of all families in `truemorph.bias.families`.

Equation numbers are those of Medina-Rosales, Cabrera-Vives & Miller, "Mitigating Bias in Deep Learning:
Training Unbiased Models on Biased Data for the Morphological Classification of Galaxies", MNRAS,
arXiv:2308.11007. Classes are 0 = smooth and 1 = disk. Every formula is written once, in log space, for numpy
and torch alike.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
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


class FlipTransition:
    """What the two-class families share: they differ only in log p(ỹ = smooth | y = disk, α).

    A family gives `log_flip_probability`, its parameters as dataclass fields, `false_disk` among them, and what
    an estimator may vary in `free`: "scale" (positive, in the unit of α), "shape" (positive) or "probability".
    """

    family: ClassVar[str]
    n_classes: ClassVar[int] = 2
    free: ClassVar[dict[str, str]]
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
        """log p(ỹ = smooth | y = disk, α), shape (N,)."""
        raise NotImplementedError

    def log_seen_probability(self, alpha: Array) -> Array:
        """log p(ỹ = disk | y = disk, α), shape (N,): log(1 - flip), not below log of the smallest normal number."""
        log_flip = self.log_flip_probability(alpha)
        xp = array_namespace(log_flip)
        return xp.log(-xp.expm1(xp.clip(log_flip, max=-float(xp.finfo(log_flip.dtype).smallest_normal))))

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

    def log_flip_probability(self, alpha: Array) -> Array:
        """log p(ỹ = smooth | y = disk, α), shape (N,)."""
        scaled = as_resolution(alpha) / self.theta  # before squaring: α² alone can overflow
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

    def log_flip_probability(self, alpha: Array) -> Array:
        """log p(ỹ = smooth | y = disk, α), shape (N,)."""
        return -_power(as_resolution(alpha), self.scale, self.shape)


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

    def log_flip_probability(self, alpha: Array) -> Array:
        """log p(ỹ = smooth | y = disk, α), shape (N,)."""
        power = _power(as_resolution(alpha), self.scale, self.shape)
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

    def log_flip_probability(self, alpha: Array) -> Array:
        """log p(ỹ = smooth | y = disk), shape (N,)."""
        alpha = as_resolution(alpha)
        with np.errstate(divide="ignore"):
            return array_namespace(alpha).full_like(alpha, float(np.log(self.flip)))


def _power(alpha: Array, scale: float, shape: float) -> Array:
    """(α / scale)^shape, capped short of overflow; 0 at α = 0."""
    xp = array_namespace(alpha)
    info = xp.finfo(alpha.dtype)
    logarithm = xp.log(xp.clip(alpha, min=float(info.smallest_normal))) - float(np.log(scale))
    return xp.exp(xp.clip(shape * logarithm, max=float(np.log(float(info.max))) - 1.0))


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
