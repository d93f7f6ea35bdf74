"""From a survey's columns to truemorph's, as a mapping says: numbers in truemorph's units, ids, votes, files."""

from __future__ import annotations

from collections.abc import Mapping as Known
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from truemorph.catalogs.choosing import candidates, choose_mapping, resolve
from truemorph.catalogs.counting import count_votes
from truemorph.catalogs.expressions import Expression
from truemorph.catalogs.mapping import PRESETS, Column, Mapping
from truemorph.catalogs.roles import FRACTIONS, LATER, MADE, ROLES, VOTES, part_of_light
from truemorph.catalogs.values import role_values, without
from truemorph.errors import InputError, nearest
from truemorph.tables import CatalogTable

# Without these there is no label and no α: what is wrong with them stops the work. The others are left out, and said.
_VITAL = ("object_id", "radius", "psf_fwhm", *FRACTIONS, *VOTES, "vote_count")
# From a table that was joined they may be of another survey than the galaxies.
_TELLING = ("object_id", *FRACTIONS, *VOTES, "vote_count")


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
    tables : dict
        Name → the joined table it comes from, where it is not the first.
    needs : dict
        Name → the table's columns that it comes from.
    cleaned : dict
        Column of the table → its values, without those that the mapping says mean missing.
    """

    frame: pl.DataFrame
    units: dict[str, str]
    descriptions: dict[str, str]
    sources: dict[str, str | float]
    replaced: set[str]
    notes: list[str]
    tables: dict[str, str] = field(default_factory=dict)
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cleaned: dict[str, pl.Series] = field(default_factory=dict)

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
    joined: Known[str, str] | None = None,
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
    joined : mapping of str to str, optional
        Column that was added → the table it is from. Columns that were not added are looked at first.

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
    joined, existing, asked = joined or {}, table.frame.columns, chosen or {}
    own = [name for name in existing if name not in joined]
    mapping = choose_mapping(existing, None, mapping, chosen, psf_fwhm, source, own)
    found = resolve(mapping, existing, own)
    notes: list[str] = []
    columns: dict[str, pl.Series] = {}
    cleaned: dict[str, pl.Series] = {}
    units, descriptions = {}, {}
    if "image" in found:
        _first_with_values(table, mapping, found, existing, own, source)
    given = {"psf_fwhm"} if mapping.psf_fwhm is not None else set()
    if {"smooth_votes", "disk_votes"} <= set(found) or {"smooth_votes", "vote_count"} <= set(found):
        given.add("smooth_fraction")
    _check_found(table, mapping, found, source, needed, given)
    for role in ROLES:
        if role not in found:
            continue
        rule, what = mapping.columns[role], found[role]
        if what.lone and rule.missing:
            name = what.columns[0]
            cleaned[name] = without(cleaned.get(name, table.frame[name]), rule.missing)
        try:
            columns[role], units[role] = role_values(table, role, what, rule, source, notes)
        except InputError as problem:
            if role in _VITAL:
                raise
            notes.append(f"{problem}: not taken as {role}")
            continue
        descriptions[role] = _description(table, role, what, rule, role in asked)
    sources: dict[str, str | float] = {role: found[role].text for role in columns}
    tables = {
        role: ", ".join(dict.fromkeys(joined[one] for one in found[role].columns if one in joined)) for role in columns
    }
    tables = {role: names for role, names in tables.items() if names}
    telling = [role for role in _TELLING if role in tables]
    if telling:
        notes.append(f"{', '.join(telling)} are from {tables[telling[0]]}, not from {source}")
    if "psf_fwhm" not in columns and mapping.psf_fwhm is not None:
        width = float(mapping.psf_fwhm)
        columns["psf_fwhm"] = pl.Series([width]).new_from_index(0, table.frame.height)
        units["psf_fwhm"], sources["psf_fwhm"] = "arcsec", width
        descriptions["psf_fwhm"] = ROLES["psf_fwhm"].about + ", one number for all"
    count_votes(columns, sources, descriptions, source, notes)
    # Truemorph's own first columns stand for their sources; other columns go on under their own names too.
    instead = ("object_id", "image", "radius", "psf_fwhm", *FRACTIONS)
    replaced = {found[role].columns[0] for role in columns if role in found and found[role].lone and role in instead}
    replaced |= {role for role in columns if sources.get(role) == role}
    units = {role: unit for role, unit in units.items() if unit}
    frame = pl.DataFrame([columns[role].alias(role) for role in ROLES if role in columns])
    needs = {role: found[role].columns for role in columns if role in found}
    return Mapped(frame, units, descriptions, sources, replaced, notes, tables, needs, cleaned)


def _first_with_values(
    table: CatalogTable,
    mapping: Mapping,
    found: dict[str, Expression],
    existing: Sequence[str],
    own: Sequence[str],
    source: str,
) -> None:
    """Take the first names of images that are any; columns without a single one are none."""
    rule = mapping.columns["image"]
    for one in candidates(mapping, "image", existing, own):
        values, _ = role_values(table, "image", one, rule, source, [])
        if values.null_count() < len(values):
            found["image"] = one
            return
    if rule.optional:
        del found["image"]


def _description(table: CatalogTable, role: str, what: Expression, rule: Column, asked: bool) -> str:
    said = rule.description or (table.descriptions.get(what.columns[0]) if what.lone else None)
    if said or role != "radius":
        return said or ROLES[role].about
    part = part_of_light(what.text)
    if part:
        return f"radius of {part} % of the Petrosian light ({what.text})"
    return f"{what.text}, taken for the Petrosian radius" if asked else ROLES[role].about


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
            what = f"no column {' or '.join(one.said for one in sought[:3])} ({role}) for {kind} {mapping.name}"
            near = nearest(absent[0], table.frame.columns)
        else:
            what = f"{kind} {mapping.name} says nothing of {role}, {ROLES[role].about}"
            near = nearest(role, table.frame.columns)
            if role == "smooth_fraction":
                advice = ["give its column, or smooth_votes with disk_votes or vote_count"]
        raise InputError(f"{source}: {what}; {'; '.join(filter(None, advice))} ({near})")


def carried_columns(frame: pl.DataFrame, own: Sequence[str]) -> dict[str, str]:
    """New names for the table's columns that are called like one of truemorph's own."""
    taken = {*own, *MADE, *LATER}
    renamed: dict[str, str] = {}
    for name in frame.columns:
        if name in taken:
            free = f"{name}_input"
            while free in frame.columns or free in renamed.values():
                free += "_"
            renamed[name] = free
    return renamed
