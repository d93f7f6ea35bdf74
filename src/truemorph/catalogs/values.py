"""Values of one of truemorph's columns: checked, without what means missing, in truemorph's unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from truemorph.catalogs.expressions import Expression, compute
from truemorph.catalogs.mapping import Column
from truemorph.catalogs.roles import ROLES
from truemorph.catalogs.units import conversion, same_unit
from truemorph.errors import InputError
from truemorph.tables import CatalogTable

# Without a unit that is sure there is no α.
_SIZES = ("radius", "psf_fwhm")
_MOST_VOTES = 2**53


def role_values(
    table: CatalogTable, role: str, what: Expression, rule: Column, source: str, notes: list[str]
) -> tuple[pl.Series, str]:
    """Values of one of truemorph's columns, shape (N,), and their unit.

    Parameters
    ----------
    table : CatalogTable
    role : str
    what : Expression
    rule : Column
        What the mapping says of unit and missing values.
    source : str
        What to call the table in messages.
    notes : list of str
        What a careful reader should know is added.

    Raises
    ------
    InputError
        If the values are of the wrong kind, or in a unit that can't be converted.
    """
    kind = ROLES[role].kind
    if what.lone:
        series = table.frame[what.columns[0]].alias("")  # polars takes some names for patterns
    else:
        series = compute(what, table.frame, f"{source}: {role}").alias("")
    if rule.missing:
        series = without(series, rule.missing)
    if kind == "id":
        return series, ""
    if kind == "file":
        if series.dtype.is_nested() or series.dtype == pl.Binary:
            raise InputError(f"{source}: column {what.said} ({series.dtype}) holds no names of files")
        return series.cast(pl.String), ""
    numbers = _numbers(series, what.said, source)
    if kind == "count":
        return _counts(numbers, what.said, source), ""
    if what.lone:
        stated = table.units.get(what.columns[0])
        factor, unit = _unit(stated, role, what.said, rule, source, notes)
    else:
        factor, unit = _unit_of_expression(table, role, what, rule, source, notes)
    return numbers * factor if factor != 1 else numbers, unit


def _numbers(series: pl.Series, name: str, source: str) -> pl.Series:
    if series.dtype.is_nested() or series.dtype.is_temporal() or series.dtype == pl.Binary:
        raise InputError(f"{source}: column {name} should hold numbers, not {series.dtype}")
    numbers = series.cast(pl.Float64, strict=False)
    bad = numbers.is_null() & series.is_not_null()
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(
            f"{source}: column {name} should hold numbers, but row {row + 1} is {series[row]!r}; "
            "mend it, or leave it empty if unknown"
        )
    return pl.select(pl.when(numbers.is_finite()).then(numbers)).to_series()


def _counts(numbers: pl.Series, name: str, source: str) -> pl.Series:
    bad = ((numbers < 0) | (numbers > _MOST_VOTES)).fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(
            f"{source}: column {name} should hold numbers of votes, but row {row + 1} is {numbers[row]:g}; "
            "say in a mapping which values mean missing"
        )
    whole = (numbers.is_null() | (numbers == numbers.round())).all()
    return numbers.cast(pl.Int64) if whole else numbers  # weighted votes are no whole numbers


def without(series: pl.Series, missing: Sequence[float | int | str]) -> pl.Series:
    """Values that mean missing become null; -99.99 is also its single-precision neighbour, and "-99" is -99.0."""
    name, series = series.name, series.alias("")
    if series.dtype.is_numeric():
        numbers = [one for one in (_as_number(one) for one in missing) if one is not None]
        if series.dtype.is_integer():
            numbers = [int(one) for one in numbers if one == int(one)]
        gone = series.is_in(pl.Series(numbers, dtype=series.dtype, strict=False).to_list())
    elif series.dtype.is_nested() or series.dtype == pl.Binary:
        return series.alias(name)
    else:
        text = series.cast(pl.String)
        gone = text.is_in([str(one) for one in missing])
        numbers = [float(one) for one in missing if not isinstance(one, str)]
        if numbers and series.dtype == pl.String:
            gone |= text.str.strip_chars().cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)
    return pl.select(pl.when(gone.fill_null(False).not_()).then(series)).to_series().alias(name)


def _as_number(one: float | int | str) -> float | int | None:
    try:
        number = float(one) if isinstance(one, str) else one
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _unit(stated: str | None, role: str, name: str, rule: Column, source: str, notes: list[str]) -> tuple[float, str]:
    """Factor from a column's unit to truemorph's, and that unit."""
    wanted = ROLES[role].units
    given = rule.unit if stated is None else stated
    if given is None:
        return 1.0, wanted[0] if len(wanted) == 1 else ""
    try:
        found = conversion(given, wanted)
    except InputError:
        raise InputError(
            f"{source}: column {name} is in {given!r}, which is not {_phrase(role)} that astropy knows; "
            f"{_advice(name, role)}"
        ) from None
    if found is None:
        raise InputError(
            f"{source}: column {name} is in {given!r}, which is not {_phrase(role)}; {_advice(name, role)}"
        )
    if stated is not None and rule.unit is not None and conversion(rule.unit, wanted) != found:
        notes.append(f"{source}: column {name} states {stated}, the mapping says {rule.unit}: {stated} taken")
    return found


def _phrase(role: str) -> str:
    wanted = ROLES[role].units[0]
    return {"arcsec": "an angle", "deg": "an angle", "": "a pure number"}.get(wanted, f"in {wanted}")


def _advice(name: str, role: str) -> str:
    wanted = ROLES[role].units[0]
    if role not in _SIZES:
        return f"give a column in {wanted or 'none'}"
    shown = name if name.isidentifier() else f'"{name}"'
    return (
        f"give a column in {wanted}, or say in a mapping what is meant: expression = '1 * {shown}', unit = \"{wanted}\""
    )


def _unit_of_expression(
    table: CatalogTable, role: str, what: Expression, rule: Column, source: str, notes: list[str]
) -> tuple[float, str]:
    """Factor from an expression's unit, which the mapping says; columns in truemorph's own unit need no word."""
    wanted = ROLES[role].units
    if rule.unit is not None:
        return _unit(None, role, what.said, rule, source, notes)
    stated = {name: table.units[name] for name in what.columns if table.units.get(name)}
    # A ratio of two lengths is a pure number: only a percentage is suspicious there.
    other = {
        name: unit
        for name, unit in stated.items()
        if (unit.strip() in ("%", "percent") if wanted == ("",) else not any(same_unit(unit, one) for one in wanted))
    }
    if other:
        name, unit = next(iter(other.items()))
        raise InputError(
            f"{source}: {what.said} is made from {name}, in {unit}; say in the mapping in which unit the result is, "
            f'such as unit = "{wanted[0]}"'
        )
    kept = next((one for one in wanted for unit in stated.values() if same_unit(unit, one)), None)
    return 1.0, kept or (wanted[0] if len(wanted) == 1 else "")
