"""Convert lists, masked arrays, table columns and quantities to plain arrays."""

from typing import Any

import numpy as np

from truemorph.errors import InputError


def float_array(values: Any, name: str, unit: str | None = None) -> np.ndarray:
    """Return a plain float64 array, without a copy if it is one; masked values become NaN.

    Quantities and columns with a unit are converted to `unit` (None: dimensionless). Values without a unit are assumed
    to have it. `name` is used in messages.
    """
    if values is None:
        raise InputError(f"{name} is missing (None): give one number per galaxy")
    own_unit = getattr(values, "unit", None)
    if getattr(getattr(values, "dtype", None), "kind", "") in ("m", "M"):
        raise InputError(f"{name} must be numbers, one per galaxy; got dates or times")
    try:
        plain = np.asarray(getattr(values, "value", values), float)
        if isinstance(values, np.ma.MaskedArray):
            plain = np.where(np.ma.getmaskarray(values), np.nan, plain)
    except (TypeError, ValueError, RuntimeError, OverflowError) as problem:  # RuntimeError: a tensor with a gradient
        raise InputError(f"{name} must be numbers: {problem}") from problem
    if own_unit is None or str(own_unit) == "":
        return plain
    from astropy import units as u

    try:
        return plain * u.Unit(own_unit).to(u.Unit(unit or ""))
    except u.UnitConversionError as problem:
        raise InputError(f"{name} is in {own_unit}, expected {unit or 'a number without unit'}") from problem


def rms(values: np.ndarray) -> float:
    """Return the root mean square of the finite values; NaN if there are none."""
    finite = np.isfinite(values)
    return float(np.sqrt(np.mean(values[finite] ** 2))) if finite.any() else np.nan


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, NaN where below is not positive; both are broadcast."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def check_rows(good: np.ndarray, says: str, values: Any = None) -> None:
    """Raise an InputError that `says` what rows must be, how many are not, and which first, unless all are good."""
    if not good.all():
        first = int(np.argmin(good))
        value = "" if values is None else f", {values[first]}"
        raise InputError(f"{says}; {np.sum(~good)} are not (first: row {first}{value})")
