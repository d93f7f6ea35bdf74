"""Units of columns: reading them as surveys write them, and converting to truemorph's."""

from __future__ import annotations

import math
from typing import Any

from truemorph.errors import InputError

# Spellings in archives and published tables that astropy doesn't read.
_SPELLINGS = {
    "degrees": "deg",
    "deg (j2000)": "deg",
    "j2000 degrees": "deg",
    "arcsecs": "arcsec",
    "arcseconds": "arcsec",
    "asec": "arcsec",
    '"': "arcsec",
    "arcmins": "arcmin",
    "arcminutes": "arcmin",
    "amin": "arcmin",
    "'": "arcmin",
    "ab mag": "mag",
    "abmag": "mag",
    "mag(ab)": "mag",
    "mags": "mag",
    "magnitude": "mag",
    "pixel": "pix",
    "pixels": "pix",
    "fraction": "",
    "redshift": "",
    "-": "",
}


def read_unit(text: str) -> Any:
    """Read a unit as astropy spells it, in any case ("ARCSEC"), or in a spelling common in published tables.

    Raises
    ------
    InputError
        If the unit is unknown; the message has astropy's suggestion.

    Examples
    --------
    >>> read_unit("0.05 arcsec"), read_unit("AB mag"), read_unit("DEG")
    (Unit("0.05 arcsec"), Unit("mag"), Unit("deg"))
    """
    from astropy import units as u

    lower = text.strip().lower()
    first: Exception | None = None
    for one in (_SPELLINGS.get(lower, text), lower):
        try:
            return u.Unit(one)
        except (ValueError, TypeError, OverflowError) as problem:
            first = first or problem
    _, _, hint = str(first).partition("Did you mean ")
    near = f"; nearest: {hint.split('?')[0]}" if hint else ""
    raise InputError(f"unknown unit {text!r}{near}") from first


def conversion(unit: str, wanted: tuple[str, ...]) -> tuple[float, str] | None:
    """Return the factor to the first of the wanted units that a unit converts to, and that unit; None if to none.

    Logarithmic units (dex, dB, magnitudes of anything but AB fluxes) have no factor.

    Raises
    ------
    InputError
        If astropy doesn't know the unit.

    Examples
    --------
    >>> conversion("arcmin", ("kpc", "arcsec")), conversion("kpc", ("arcsec",)), conversion("%", ("",))
    ((60.0, 'arcsec'), None, (0.01, ''))
    >>> conversion("dex(arcsec)", ("arcsec",)), conversion("dex", ("mag",)), conversion("mag(AB)", ("mag",))
    (None, None, (1.0, 'mag'))
    """
    if unit in wanted:
        return 1.0, unit
    from astropy import units as u

    own = read_unit(unit)
    if isinstance(own, u.function.FunctionUnitBase) or {u.dex, u.dB} & {own, *own.bases}:
        return None
    for one in wanted:
        try:
            factor = float(own.to(u.Unit(one)))
        except (TypeError, ValueError, OverflowError):  # astropy raises all three
            continue
        return (factor, one) if 0 < factor < math.inf else None
    return None
