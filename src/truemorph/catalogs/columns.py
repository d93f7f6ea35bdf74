"""From a survey's columns to truemorph's, as a mapping says: numbers in truemorph's units, ids, votes, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.catalogs.expressions import Expression, compute
from truemorph.catalogs.mapping import PRESETS, Column, Mapping, choose_mapping, resolve
from truemorph.catalogs.objects import CatalogTable
from truemorph.catalogs.roles import FRACTIONS, LATER, ROLES, VOTES
from truemorph.catalogs.schema import IMAGE_ENDINGS, nearest
from truemorph.catalogs.units import conversion
from truemorph.errors import InputError

# Without these there is no label and no α: what is wrong with them stops the work. The others are left out, and said.
_VITAL = ("object_id", "radius", "psf_fwhm", *FRACTIONS, *VOTES, "vote_count")


@dataclass(frozen=True)
class Mapped:
    """A survey's table under truemorph's names.

    Attributes
    ----------
    frame : polars.DataFrame
        One column a name found, in truemorph's units; rows as in the table. Numbers that are missing are null.
    units, descriptions : dict
    sources : dict
        Name → the column or expression it comes from, or a number for all.
    replaced : set of str
        Columns of the table that need not be carried: they would say the same twice.
    notes : list of str
    """

    frame: pl.DataFrame
    units: dict[str, str]
    descriptions: dict[str, str]
    sources: dict[str, str | float]
    replaced: set[str]
    notes: list[str]

    def numbers(self, name: str) -> np.ndarray:
        """Values of a name, shape (N,), NaN where missing or not found."""
        if name not in self.frame.columns:
            return np.full(self.frame.height, np.nan)
        return self.frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def apply_mapping(
    table: CatalogTable,
    mapping: Mapping,
    chosen: dict[str, str] | None = None,
    *,
    source: str = "table",
    psf_fwhm: float | None = None,
    needed: Sequence[str] = (),
) -> Mapped:
    """Find, convert and check the columns that a mapping speaks of.

    Parameters
    ----------
    table : CatalogTable
    mapping : Mapping
    chosen : dict, optional
        truemorph's name → column that the user chose; wins over the mapping's.
    source : str
        What to call the table in messages.
    psf_fwhm : float, optional
        One width for all galaxies, arcsec; wins over every column.
    needed : sequence of str
        Names that must be found, besides those that the mapping does not call optional. Counts of votes, with their
        total, stand for fractions.

    Raises
    ------
    InputError
        If a column is absent that has to be there (the nearest names are given), is not of numbers, or in a unit that
        can't be converted; or votes contradict themselves.

    Examples
    --------
    >>> from truemorph.catalogs.mapping import read_mapping
    >>> mapping = read_mapping({"columns": {"object_id": "id", "radius": {"column": "r", "unit": "arcmin"}}})
    >>> table = CatalogTable(pl.DataFrame({"id": [7], "r": [0.1]}))
    >>> apply_mapping(table, mapping, source="t.csv", psf_fwhm=1.3).numbers("radius")
    array([6.])
    """
    mapping = choose_mapping(table.frame.columns, None, mapping, chosen, psf_fwhm, source)
    found = resolve(mapping, table.frame.columns)
    width = mapping.psf_fwhm
    given = {"psf_fwhm"} if width is not None else set()
    if {"smooth_votes", "disk_votes"} <= set(found) or {"smooth_votes", "vote_count"} <= set(found):
        given.add("smooth_fraction")
    _check_found(table, mapping, found, source, needed, given)

    notes: list[str] = []
    columns: dict[str, pl.Series] = {}
    units, descriptions = {}, {}
    for role in ROLES:
        if role not in found:
            continue
        try:
            columns[role], units[role] = _value(table, role, found[role], mapping.columns[role], source, notes)
        except InputError as problem:
            if role in _VITAL:
                raise
            notes.append(f"{problem}: not taken as {role}")
            continue
        said = mapping.columns[role].description or table.descriptions.get(
            found[role].columns[0] if found[role].lone else ""
        )
        descriptions[role] = said or ROLES[role].about
    sources: dict[str, str | float] = {role: found[role].text for role in columns}
    if "psf_fwhm" not in columns and width is not None:
        columns["psf_fwhm"] = pl.Series([float(width)]).new_from_index(0, table.frame.height)
        units["psf_fwhm"], sources["psf_fwhm"] = "arcsec", float(width)
        descriptions["psf_fwhm"] = ROLES["psf_fwhm"].about + ", one number for all"
    _count_votes(columns, sources, descriptions, source, notes)
    # Truemorph's own first columns stand for their sources; other columns go on under their own names too.
    instead = ("object_id", "image", "radius", "psf_fwhm", *FRACTIONS)
    replaced = {found[role].columns[0] for role in columns if role in found and found[role].lone and role in instead}
    replaced |= {role for role in columns if sources.get(role) == role}
    units = {role: unit for role, unit in units.items() if unit}
    frame = pl.DataFrame([columns[role].alias(role) for role in ROLES if role in columns])
    return Mapped(frame, units, descriptions, sources, replaced, notes)


def _check_found(
    table: CatalogTable,
    mapping: Mapping,
    found: dict[str, Expression],
    source: str,
    needed: Sequence[str],
    given: set[str],
) -> None:
    """Refuse a table that lacks what the mapping, or a catalogue, can't do without."""
    kind = "preset" if mapping.name in PRESETS else "mapping"
    wanted = {role for role, one in mapping.columns.items() if not one.optional}
    # The mapping's own first: a misspelt column explains what is then lacking.
    for role in sorted({*wanted, *needed}, key=lambda role: (role not in wanted, list(ROLES).index(role))):
        if role in found or role in given:
            continue
        option = ROLES[role].option
        advice = [mapping.lacking.get(role, "")]
        advice += [f"name yours with {option} or in a mapping" if option else "another --preset may fit, or a mapping"]
        sought = list(mapping.columns[role].candidates(role)) if role in mapping.columns else []
        if sought:
            absent = [name for one in sought for name in one.columns if name not in table.frame.columns]
            what = f"no column {' or '.join(one.text for one in sought[:3])} ({role}) for {kind} {mapping.name}"
            near = nearest(absent[0], table.frame.columns)
        else:
            what = f"{kind} {mapping.name} says nothing of {role}, {ROLES[role].about}"
            near = nearest(role, table.frame.columns)
            if role == "smooth_fraction":
                advice = ["give its column, or smooth_votes with disk_votes or vote_count"]
        raise InputError(f"{source}: {what}; {'; '.join(filter(None, advice))} ({near})")


def _value(
    table: CatalogTable, role: str, what: Expression, rule: Column, source: str, notes: list[str]
) -> tuple[pl.Series, str]:
    """Values of one name and their unit."""
    kind = ROLES[role].kind
    if what.lone:
        series = table.frame[what.columns[0]]
    else:
        # An id made of integers must not become "1.0_2.0".
        series = compute(what, table.frame, f"{source}: {role}", exact=kind in ("id", "file")).alias(what.text)
    if rule.missing:
        series = _without(series, rule.missing)
    if kind == "id":
        return series, ""
    if kind == "file":
        if series.dtype.is_nested() or series.dtype == pl.Binary:
            raise InputError(f"{source}: column {what.text} ({series.dtype}) holds no names of files")
        return series.cast(pl.String), ""
    numbers = _numbers(series, what.text, source)
    if kind == "count":
        return _counts(numbers, what.text, source), ""
    if not what.lone:
        numbers = pl.select(pl.when(numbers.is_finite()).then(numbers)).to_series()
    stated = table.units.get(what.columns[0]) if what.lone else None
    factor, unit = _unit(stated, role, what.text, rule, source, notes)
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
    return numbers.fill_nan(None)


def _counts(numbers: pl.Series, name: str, source: str) -> pl.Series:
    bad = (numbers < 0).fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(
            f"{source}: column {name} should hold numbers of votes, but row {row + 1} is {numbers[row]:g}; "
            "say in a mapping which values mean missing"
        )
    whole = (numbers.is_null() | (numbers == numbers.round())).all()
    return numbers.cast(pl.Int64) if whole else numbers  # weighted votes are no whole numbers


def _without(series: pl.Series, missing: Sequence[float | int | str]) -> pl.Series:
    """Values that mean missing become null; -99.99 is also its single-precision neighbour."""
    if series.dtype.is_numeric():
        numbers = [one for one in missing if not isinstance(one, str)]
        if series.dtype.is_integer():
            numbers = [int(one) for one in numbers if one == int(one)]
        gone = series.is_in(pl.Series(numbers, dtype=series.dtype, strict=False).to_list())
    else:
        gone = series.cast(pl.String).is_in([str(one) for one in missing])
    return pl.select(pl.when(gone.fill_null(False).not_()).then(series)).to_series().alias(series.name)


def _unit(stated: str | None, role: str, name: str, rule: Column, source: str, notes: list[str]) -> tuple[float, str]:
    """Factor to truemorph's unit, and that unit."""
    wanted = ROLES[role].units
    what = {"arcsec": "an angle", "": "a pure number"}.get(wanted[0], f"in {wanted[0]}")
    given = rule.unit if stated is None else stated
    if given is None:
        return 1.0, wanted[0] if len(wanted) == 1 else ""
    try:
        found = conversion(given, wanted)
    except InputError:
        if stated is None or rule.unit is None:
            raise InputError(
                f"{source}: column {name} is in {given!r}, which is not {what} that astropy knows; "
                f"give its unit in a mapping, or a column in {wanted[0]}"
            ) from None
        notes.append(
            f"{source}: column {name} states the unit {stated!r}, which astropy doesn't know: {rule.unit} taken"
        )
        found = conversion(rule.unit, wanted)
    if found is None:
        raise InputError(
            f"{source}: column {name} is in {given!r}, which is not {what}; give a column in {wanted[0] or 'none'}"
        )
    if stated is not None and rule.unit is not None and conversion(rule.unit, wanted) != found:
        notes.append(f"{source}: column {name} states {stated}, the mapping says {rule.unit}: {stated} taken")
    return found


def _count_votes(
    columns: dict[str, pl.Series],
    sources: dict[str, str | float],
    descriptions: dict[str, str],
    source: str,
    notes: list[str],
) -> None:
    """Fill the number of votes and the fractions from counts, where the table has them and not those."""
    counted = [role for role in VOTES if role in columns]
    if not counted:
        return
    if "vote_count" not in columns:
        if len(counted) < 2:
            return
        columns["vote_count"] = sum((columns[role] for role in counted[1:]), columns[counted[0]])
        sources["vote_count"] = " + ".join(counted)
        descriptions["vote_count"] = ROLES["vote_count"].about
    total = columns["vote_count"].cast(pl.Float64)
    shares = {
        fraction: pl.select(pl.when(total > 0).then(columns[role].cast(pl.Float64) / total)).to_series()
        for fraction, role in zip(FRACTIONS, VOTES, strict=True)
        if role in columns
    }
    for fraction, share in shares.items():
        above = (share > 1 + 1e-6).fill_null(False)
        if above.any():
            row = int(above.arg_true()[0])
            raise InputError(
                f"{source}: row {row + 1} has more votes in {sources[fraction.replace('fraction', 'votes')]} than in "
                f"{sources['vote_count']}; name the votes of the first question alone"
            )
    without = columns["smooth_fraction"].is_null() if "smooth_fraction" in columns else None
    for fraction, share in shares.items():
        if fraction not in columns:
            columns[fraction] = share
            sources[fraction] = f"{fraction.replace('fraction', 'votes')} / vote_count"
            descriptions[fraction] = ROLES[fraction].about
        elif without is not None and without.any():
            columns[fraction] = pl.select(pl.when(without).then(share).otherwise(columns[fraction])).to_series()
    if without is not None:
        filled = int((without & columns["smooth_fraction"].is_not_null()).sum())
        if filled:
            notes.append(f"{source}: {filled} rows have votes but no fractions: shares of their votes taken")


def image_paths(
    ids: pl.Series, names: pl.Series | None, images: Path | None, beside: Path
) -> tuple[Path, list[str | None]]:
    """Image root, and each galaxy's path below it (None where there is no file).

    Raises
    ------
    InputError
        If the folder is not there.
    """
    if names is None and images is None:
        return beside, [None] * ids.len()
    root = (images or beside).resolve()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    listed: dict[str, set[str]] = {}

    def there(name: str) -> bool:
        # A folder is listed once, in place of asking for each file.
        folder, file = os.path.split(name)
        if folder not in listed:
            try:
                with os.scandir(root / folder) as entries:
                    listed[folder] = {entry.name for entry in entries if entry.is_file()}
            except OSError:
                listed[folder] = set()
        return file in listed[folder]

    if names is not None:
        # As written, or by its last part: the folder may be the one that the column names.
        some = ([name, name.rsplit("/", 1)[-1]] if name else [] for name in names.to_list())
    else:
        ends = [end for lower in IMAGE_ENDINGS for end in (lower, lower.upper())]
        some = ([f"{one}{end}" for end in ends] for one in ids.to_list())
    return root, [next((name for name in one if there(name)), None) for one in some]


def carried_columns(frame: pl.DataFrame, own: Sequence[str]) -> dict[str, str]:
    """New names for the table's columns that are called like one of truemorph's own."""
    taken = {*own, *LATER}
    renamed: dict[str, str] = {}
    for name in frame.columns:
        if name in taken:
            free = f"{name}_input"
            while free in frame.columns or free in renamed.values():
                free += "_"
            renamed[name] = free
    return renamed
