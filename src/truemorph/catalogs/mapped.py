"""A survey's columns under truemorph's names and in its units, as a mapping says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from truemorph.catalogs.expressions import Expression, compute
from truemorph.catalogs.mapping import PRESETS, Column, Mapping, resolve
from truemorph.catalogs.names import FRACTIONS, NAMED, VOTES, percent_of_light
from truemorph.catalogs.units import conversion
from truemorph.errors import InputError, nearest
from truemorph.missing import without, without_sentinels
from truemorph.tables import CatalogTable

# Without these there is no label or no α: what is wrong with them is an error. Other columns are left out, with a note.
_REQUIRED = ("object_id", "smooth_fraction", "radius", "psf_fwhm")
_VITAL = {*_REQUIRED, "label", *FRACTIONS, *VOTES, "vote_count"}
# In truemorph's own unit, or under another name, these need not be carried a second time.
_STAND_FOR_SOURCE = {"object_id", "image", "radius", "psf_fwhm", *FRACTIONS}
_MOST_VOTES = 2**53
_SIGMA = re.compile(r"sigma|(?:^|_)sig_?psf|psf_?sig(?:$|_)", re.IGNORECASE)
_PSF = re.compile(r"psf|seeing|fwhm", re.IGNORECASE)


@dataclass(frozen=True)
class Mapped:
    """A survey's table under truemorph's names.

    Attributes
    ----------
    frame : polars.DataFrame
        One column for each name that was found, in truemorph's units; rows as in the table. Missing numbers are null.
    units, descriptions : dict of str to str
    sources : dict
        Name → the column or expression it comes from, or one number for all rows.
    found : dict of str to Expression
        The same as expressions, without single numbers.
    cleaned : dict of str to polars.Series
        The table's own columns, without the values that the mapping says mean missing.
    replaced : set of str
        The table's columns that need not be carried: truemorph's say the same.
    notes : list of str
    """

    frame: pl.DataFrame
    units: dict[str, str]
    descriptions: dict[str, str]
    sources: dict[str, str | float]
    found: dict[str, Expression]
    cleaned: dict[str, pl.Series] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def numbers(self, name: str) -> np.ndarray:
        """Return the values of a column, shape (N,), NaN where missing or not found."""
        if name not in self.frame.columns:
            return np.full(self.frame.height, np.nan)
        return self.frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def apply_mapping(
    table: CatalogTable, mapping: Mapping, *, table_name: str = "table", own: Sequence[str] | None = None
) -> Mapped:
    """Find, convert and check the columns that a mapping names.

    Parameters
    ----------
    table : CatalogTable
    mapping : Mapping
    table_name : str
        For messages.
    own : sequence of str, optional
        Columns that are not from a joined table; they are preferred.

    Raises
    ------
    InputError
        If a required column is absent (the nearest names are given), is not numeric, or has a unit that can't be
        converted; or if votes contradict each other.

    Examples
    --------
    >>> from truemorph.catalogs.mapping import read_mapping
    >>> mapping = read_mapping({"columns": {"object_id": "id", "radius": {"column": "r", "unit": "arcmin"}}})
    >>> table = CatalogTable(pl.DataFrame({"id": [7], "r": [0.1]}))
    >>> apply_mapping(table, mapping).numbers("radius")
    array([6.])
    """
    found = resolve(mapping, table.frame.columns, own)
    if {"smooth_fraction", "smooth_votes"} & set(found):
        found.pop("label", None)  # labels are made from votes where there are any
    columns: dict[str, pl.Series] = {}
    cleaned: dict[str, pl.Series] = {}
    units: dict[str, str] = {}
    notes: list[str] = []
    for name in [one for one in NAMED if one in found]:
        rule, what = mapping.columns[name], found[name]
        if what.lone and rule.missing:
            column = what.columns[0]
            cleaned[column] = without(cleaned.get(column, table.frame[column]), rule.missing)
        try:
            columns[name], units[name], more = column_values(table, name, what, rule, table_name)
        except InputError as problem:
            if name in _VITAL:
                raise
            more = [f"{problem}: not used as {name}"]
        notes += more
    found = {name: found[name] for name in columns}
    sources: dict[str, str | float] = {name: found[name].text for name in columns}
    descriptions = {name: _description(table, name, found[name], mapping.columns[name]) for name in columns}
    if "psf_fwhm" not in columns and mapping.psf_fwhm is not None:
        columns["psf_fwhm"] = pl.Series([float(mapping.psf_fwhm)]).new_from_index(0, table.frame.height)
        units["psf_fwhm"], sources["psf_fwhm"] = "arcsec", float(mapping.psf_fwhm)
        descriptions["psf_fwhm"] = NAMED["psf_fwhm"].description + ", one number for all galaxies"
    counted, counted_from, more = count_votes(columns, sources, table_name)
    columns, sources = counted, sources | counted_from
    descriptions |= {name: NAMED[name].description for name in counted_from}
    return Mapped(
        frame=pl.DataFrame([columns[name].alias(name) for name in NAMED if name in columns]),
        units={name: unit for name, unit in units.items() if unit},
        descriptions=descriptions,
        sources={name: sources[name] for name in columns},
        found=found,
        cleaned=cleaned,
        replaced={what.columns[0] for name, what in found.items() if what.lone and name in _STAND_FOR_SOURCE}
        | {name for name in columns if sources[name] == name},
        notes=notes + more,
    )


def check_required(mapped: Mapped, table: CatalogTable, mapping: Mapping, table_name: str) -> None:
    """Refuse a table that lacks what a catalogue needs, or what its mapping doesn't call optional.

    Raises
    ------
    InputError
        With the columns that were looked for, the nearest that the table has, and what to do.
    """
    names, have = list(NAMED), set(mapped.frame.columns)
    if "label" in have:
        have |= {"smooth_fraction"}
    promised = {name for name, one in mapping.columns.items() if not one.optional}
    # The mapping's own first: a misspelt column explains what else is lacking.
    for name in sorted({*promised, *_REQUIRED} - have, key=lambda name: (name not in promised, names.index(name))):
        existing, option = table.frame.columns, NAMED[name].option
        sought = list(mapping.columns[name].candidates(name)) if name in mapping.columns else []
        kind = f"{'preset' if mapping.name in PRESETS else 'mapping'} {mapping.name}"
        if sought:
            what = f"no column {' or '.join(one.said for one in sought[:3])} ({name}) for {kind}"
            near = nearest(next(one for one in sought[0].columns if one not in existing), existing)
        else:
            what, near = f"{kind} has no {name} ({NAMED[name].description})", nearest(name, existing)
        advice = [mapping.lacking.get(name, ""), f"name yours with {option}" if option else "name yours in a mapping"]
        raise InputError(f"{table_name}: {what}; {'; '.join(filter(None, advice))} ({near})")


def _description(table: CatalogTable, name: str, what: Expression, rule: Column) -> str:
    stated = rule.description or (table.descriptions.get(what.columns[0]) if what.lone else None)
    percent = percent_of_light(what.text)
    if stated is None and name == "radius" and percent:
        return f"radius of {percent} % of the Petrosian light ({what.text})"
    return stated or NAMED[name].description


# --- values -----------------------------------------------------------------------------------------------------------


def column_values(
    table: CatalogTable, name: str, what: Expression, rule: Column, table_name: str
) -> tuple[pl.Series, str, list[str]]:
    """Compute one of truemorph's columns.

    Parameters
    ----------
    table : CatalogTable
    name : str
        One of `NAMED`.
    what : Expression
    rule : Column
        What the mapping says about unit and missing values.
    table_name : str
        For messages.

    Returns
    -------
    values : polars.Series, shape (N,)
    unit : str
        "" if dimensionless or unknown.
    notes : list of str

    Raises
    ------
    InputError
        If the values are of the wrong type, or in a unit that can't be converted.
    """
    kind = NAMED[name].kind
    where = f"{table_name}: column {what.said}"
    frame, notes = _cleaned(table.frame, name, what, rule, table_name)
    series = frame[what.columns[0]] if what.lone else compute(what, frame, f"{table_name}: {name}")
    series = series.alias("")  # polars takes some column names for patterns
    if kind == "id":
        return series, "", notes
    if kind == "file":
        if series.dtype.is_nested() or series.dtype == pl.Binary:
            raise InputError(f"{where} ({series.dtype}) holds no file names")
        return series.cast(pl.String), "", notes
    if kind == "label":
        labels, more = _labels(series, where)
        return labels, "", notes + more
    if name == "psf_fwhm" and what.lone and _SIGMA.search(what.text):
        raise InputError(
            f"{where} is named like a sigma, but psf_fwhm is a full width at half maximum; "
            f'give --psf-fwhm "2.3548 * {what.said}", or "1 * {what.said}" if it is one'
        )
    if name == "radius" and what.lone and _PSF.search(what.text):
        raise InputError(
            f"{where} is named like a PSF width, but was given as the galaxies' radius; give "
            f'their Petrosian radius with --radius, or "1 * {what.said}" if it is one'
        )
    numbers = _numbers(series, where)
    if kind == "count":
        return _counts(numbers, where), "", notes
    factor, unit, more = _unit(table, name, what, rule, table_name)
    numbers, large = _without_impossible(numbers * factor if factor != 1 else numbers, name, where)
    return numbers, unit, notes + more + large


def _cleaned(
    frame: pl.DataFrame, name: str, what: Expression, rule: Column, table_name: str
) -> tuple[pl.DataFrame, list[str]]:
    """Replace what means missing in the columns that one of truemorph's comes from."""
    notes: list[str] = []
    for column in what.columns:
        series = without(frame[column], rule.missing)
        # Ids and file names are not measured; right ascensions from -180 to 180 may be -99.
        signed = name == "ra" and series.dtype.is_numeric() and series.alias("").is_between(-180, 180).all()
        if NAMED[name].kind not in ("id", "file") and not signed:
            series, more = without_sentinels(series, f"{table_name}: column {column}")
            notes += more
        frame = frame.with_columns(series)
    return frame, notes


def _numbers(series: pl.Series, where: str) -> pl.Series:
    if series.dtype.is_nested() or series.dtype.is_temporal() or series.dtype == pl.Binary:
        raise InputError(f"{where} should hold numbers, not {series.dtype}")
    numbers = series.cast(pl.Float64, strict=False)
    bad = numbers.is_null() & series.is_not_null()
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(
            f"{where} should hold numbers, but row {row + 1} is {series[row]!r}; "
            "correct it, or leave it empty if unknown"
        )
    return pl.select(pl.when(numbers.is_finite()).then(numbers)).to_series()


def _without_impossible(numbers: pl.Series, name: str, where: str) -> tuple[pl.Series, list[str]]:
    """Replace impossible values by null, with a note; refuse a column that is full of them."""
    low, high = NAMED[name].limits
    bad = ((numbers < low) | (numbers > high)).fill_null(False)
    if not bad.any():
        return numbers, []
    row = int(bad.arg_true()[0])
    first = f"first: row {row + 1}, {numbers[row]:g}"
    if bad.sum() > (len(numbers) - numbers.null_count()) / 2:
        raise InputError(
            f"{where} can't be {name} ({NAMED[name].description}): most values are outside {low:g} to {high:g} "
            f"({first}); name another column"
        )
    note = f"{where}: outside {low:g} to {high:g}, treated as missing in {bad.sum():,d} of {len(bad):,d} rows ({first})"
    return pl.select(pl.when(~bad).then(numbers)).to_series(), [note]


def _counts(numbers: pl.Series, where: str) -> pl.Series:
    bad = ((numbers < 0) | (numbers > _MOST_VOTES)).fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(
            f"{where} should hold numbers of votes, but row {row + 1} is {numbers[row]:g}; "
            "name the values that mean missing in a mapping"
        )
    whole = (numbers.is_null() | (numbers == numbers.round())).all()
    return numbers.cast(pl.Int64) if whole else numbers  # weighted votes are not whole numbers


def _labels(series: pl.Series, where: str) -> tuple[pl.Series, list[str]]:
    """Labels 0 and 1, null where -1; for a condition also a note on how many rows it makes smooth."""
    numeric = series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)
    labels = series.cast(pl.Float64) if numeric else series.is_not_null().cast(pl.Float64) * 2
    bad = ~(labels.is_in([-1.0, 0.0, 1.0]) | labels.is_nan()).fill_null(True)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(
            f"{where} should hold labels 0 (smooth) and 1 (disk), but row {row + 1} is {series[row]!r}; give an "
            "expression, such as --label \"CASE WHEN class = 'spiral' THEN 1 WHEN class = 'elliptical' THEN 0 END\""
        )
    whole = labels.cast(pl.Int64, strict=False).replace(-1, None)
    if series.dtype != pl.Boolean:
        return whole, []
    return whole, [f"{where}: smooth in all {(whole == 0).sum():,d} rows where it is false; use CASE to leave some out"]


# --- units ------------------------------------------------------------------------------------------------------------


def _unit(
    table: CatalogTable, name: str, what: Expression, rule: Column, table_name: str
) -> tuple[float, str, list[str]]:
    """Return the factor from a column's unit to truemorph's, that unit, and notes."""
    wanted = NAMED[name].units
    own_unit = wanted[0] if len(wanted) == 1 else ""
    if not what.lone:
        if rule.unit is not None:
            return *_converted(rule.unit, name, what, table_name), []
        return 1.0, _unit_of_expression(table, name, what, table_name) or own_unit, []
    stated = table.units.get(what.columns[0])
    given = rule.unit if stated is None else stated
    if given is None:
        return 1.0, own_unit, []
    found = _converted(given, name, what, table_name)
    if stated is not None and rule.unit is not None and conversion(rule.unit, wanted) != found:
        note = f"{table_name}: column {what.said} states {stated}, the mapping says {rule.unit}: {stated} is used"
        return *found, [note]
    return *found, []


def _converted(unit: str, name: str, what: Expression, table_name: str) -> tuple[float, str]:
    wanted = NAMED[name].units
    try:
        found = conversion(unit, wanted)
    except InputError:
        found = None
    if found is None:
        kind = {"arcsec": "an angle", "deg": "an angle", "": "a pure number"}.get(wanted[0], f"in {wanted[0]}")
        column = what.said if what.said.isidentifier() else f'"{what.said}"'
        raise InputError(
            f"{table_name}: column {what.said} is in {unit!r}, which is not {kind} that astropy knows; give a column "
            f"in {wanted[0] or 'no unit'}, or an expression that is, such as '0.4 * {column}'"
        )
    return found


def _unit_of_expression(table: CatalogTable, name: str, what: Expression, table_name: str) -> str | None:
    """Return truemorph's unit if the columns of an expression state it; refuse other units."""
    wanted = NAMED[name].units
    for column in what.columns:
        stated = table.units.get(column)
        if not stated or (wanted == ("",) and stated.strip() not in ("%", "percent")):
            continue  # a ratio of two lengths is a pure number
        try:
            found = conversion(stated, wanted)
        except InputError:
            found = None
        if found is None:
            continue  # such as a number of pixels times their scale
        if found[0] != 1:
            raise InputError(
                f"{table_name}: {what.said} uses {column}, which is in {stated}; give the unit of the result in a "
                f'mapping, such as unit = "{wanted[0]}"'
            )
        return found[1]
    return None


# --- votes ------------------------------------------------------------------------------------------------------------


def count_votes(
    columns: dict[str, pl.Series], sources: dict[str, str | float], table_name: str
) -> tuple[dict[str, pl.Series], dict[str, str | float], list[str]]:
    """Add the number of votes and the vote fractions that follow from counts.

    All fractions of a row are of one kind: the table's own where it has `smooth_fraction`, else those of its counts.

    Returns
    -------
    columns : dict of str to polars.Series
    sources : dict
        What the added columns were made from.
    notes : list of str

    Raises
    ------
    InputError
        If an answer has more votes than the question.
    """
    columns, made = dict(columns), dict[str, str | float]()
    if not any(name in columns for name in VOTES):
        return columns, made, []
    if "vote_count" not in columns:
        if not {"smooth_votes", "disk_votes"} <= set(columns):
            return columns, made, []
        total = columns["smooth_votes"] + columns["disk_votes"]
        # A missing count of artefacts is no vote for them.
        columns["vote_count"] = total + columns["artefact_votes"].fill_null(0) if "artefact_votes" in columns else total
        made["vote_count"] = " + ".join(str(sources[name]) for name in VOTES if name in columns)
    total = columns["vote_count"].cast(pl.Float64)
    counted = {
        fraction: pl.select(pl.when(total > 0).then(columns[votes].cast(pl.Float64) / total)).to_series()
        for fraction, votes in zip(FRACTIONS, VOTES, strict=True)
        if votes in columns
    }
    for fraction, values in counted.items():
        above = (values > 1 + 1e-6).fill_null(False)
        if above.any():
            row = int(above.arg_true()[0])
            raise InputError(
                f"{table_name}: row {row + 1} has more votes in {sources[fraction.replace('fraction', 'votes')]} than "
                f"in {(sources | made)['vote_count']}; name the votes of the first question only"
            )
    if "smooth_fraction" not in counted:
        return columns, made, []
    nothing = pl.Series([None], dtype=pl.Float64).new_from_index(0, len(total))
    stated = columns.get("smooth_fraction", nothing)
    filled = stated.is_null() & counted["smooth_fraction"].is_not_null()
    if not filled.any():
        return columns, made, []
    notes = []
    if "smooth_fraction" in columns:
        notes.append(
            f"{table_name}: {filled.sum():,d} of {len(filled):,d} rows have votes but no fractions: "
            "fractions of the votes are used"
        )
    elif ignored := [fraction for fraction in FRACTIONS if columns.pop(fraction, None) is not None]:
        notes.append(
            f"{table_name}: no smooth_fraction beside {' and '.join(ignored)}: fractions of the votes are used"
        )
    for fraction in FRACTIONS:
        if fraction in columns or fraction in counted:
            if fraction not in columns:
                made[fraction] = f"{fraction.replace('fraction', 'votes')} / vote_count"
            other = columns.get(fraction, nothing)
            taken = pl.when(filled).then(counted.get(fraction, nothing)).otherwise(other)
            columns[fraction] = pl.select(taken).to_series()
    return columns, made, notes
