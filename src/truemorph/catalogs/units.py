"""Units of columns: the table's own, the mapping's, and truemorph's."""

from __future__ import annotations

import math
from typing import Any

from truemorph.errors import InputError

# What people and archives write that astropy doesn't read.
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
    """Read a unit; one that is unknown as it is written is also tried in small letters ("ARCSEC").

    Raises
    ------
    InputError
        If astropy doesn't know it; the message says what astropy would suggest.

    Examples
    --------
    >>> read_unit("0.05 arcsec"), read_unit("AB mag"), read_unit("DEG")
    (Unit("0.05 arcsec"), Unit("mag"), Unit("deg"))
    """
    from astropy import units as u

    small = text.strip().lower()
    first: Exception | None = None
    for one in (_SPELLINGS.get(small, text), small):
        try:
            return u.Unit(one)
        except (ValueError, TypeError, OverflowError) as problem:
            first = first or problem
    _, _, hint = str(first).partition("Did you mean ")
    near = f"; nearest: {hint.split('?')[0]}" if hint else ""
    raise InputError(f"no unit {text!r}{near}") from first


def conversion(unit: str, wanted: tuple[str, ...]) -> tuple[float, str] | None:
    """Factor to the first of some units that a unit can be converted to, and which one; None if to none.

    Logarithms (dex, dB, magnitudes of something else than AB fluxes) have no factor, and nor has a unit of zero or
    negative size.

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
        except (TypeError, ValueError, OverflowError):  # astropy has several kinds of all
            continue
        return (factor, one) if 0 < factor < math.inf else None
    return None


def same_unit(one: str, other: str) -> bool:
    """Whether two spellings mean one unit; what can't be read is only like itself.

    Examples
    --------
    >>> same_unit("arcsec", "arcseconds"), same_unit("arcsec", "arcmin"), same_unit("odd", "odd")
    (True, False, True)
    """
    if one == other:
        return True
    try:
        return bool(read_unit(one) == read_unit(other))
    except InputError:
        return False
