"""Units of columns: the table's own, the mapping's, and truemorph's."""

from __future__ import annotations

from typing import Any

from truemorph.errors import InputError

# What people and archives write that astropy doesn't read.
_SPELLINGS = {
    "degrees": "deg",
    "j2000 degrees": "deg",
    "arcsecs": "arcsec",
    "arcseconds": "arcsec",
    "arcmins": "arcmin",
    "arcminutes": "arcmin",
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
    """Read a unit.

    Raises
    ------
    InputError
        If astropy doesn't know it; the message says what astropy would suggest.

    Examples
    --------
    >>> read_unit("0.05 arcsec"), read_unit("AB mag")
    (Unit("0.05 arcsec"), Unit("mag"))
    """
    from astropy import units as u

    try:
        return u.Unit(_SPELLINGS.get(text.strip().lower(), text))
    except (ValueError, TypeError) as problem:
        _, _, hint = str(problem).partition("Did you mean ")
        near = f"; nearest: {hint.split('?')[0]}" if hint else ""
        raise InputError(f"no unit {text!r}{near}") from problem


def conversion(unit: str, wanted: tuple[str, ...]) -> tuple[float, str] | None:
    """Factor to the first of some units that a unit can be converted to, and which one; None if to none.

    Raises
    ------
    InputError
        If astropy doesn't know the unit.

    Examples
    --------
    >>> conversion("arcmin", ("kpc", "arcsec")), conversion("kpc", ("arcsec",)), conversion("%", ("",))
    ((60.0, 'arcsec'), None, (0.01, ''))
    """
    if unit in wanted:
        return 1.0, unit
    from astropy import units as u

    own = read_unit(unit)
    for one in wanted:
        try:
            return float(own.to(u.Unit(one))), one
        except (TypeError, ValueError):  # astropy has several kinds of both
            continue
    return None
