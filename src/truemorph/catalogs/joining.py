"""Columns of other tables beside a table's own: photometry, profiles, images; by object id or by place on the sky."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.catalogs.choosing import resolve
from truemorph.catalogs.crossmatch import Match, describe, match_ids, match_sky
from truemorph.catalogs.expressions import column_expression
from truemorph.catalogs.mapping import PRESETS, Column, Mapping, read_mapping
from truemorph.catalogs.values import role_values
from truemorph.errors import InputError, nearest
from truemorph.tables import CatalogTable, kind_of, read_table

# Right ascension and declination as tables call them: SDSS and most, VizieR's, SExtractor's, topcat's.
_POSITIONS = (
    ("ra", "dec"),
    ("raj2000", "dej2000"),
    ("ra_icrs", "de_icrs"),
    ("_ra", "_de"),
    ("_raj2000", "_dej2000"),
    ("alpha_j2000", "delta_j2000"),
    ("ra_deg", "dec_deg"),
    ("right_ascension", "declination"),
)


@dataclass(frozen=True)
class Join:
    """A table whose columns are wanted beside another's.

    Attributes
    ----------
    source : path, or a table in memory
    by : {"id", "sky"}
        Rows belong together by object id, or by place on the sky.
    columns : tuple of str
        The table's column of ids, or its two columns of right ascension and declination; found by name if not given.
    within : float
        Largest separation on the sky, arcsec.
    """

    source: Any
    by: Literal["id", "sky"] = "id"
    columns: tuple[str, ...] = ()
    within: float = 2.0

    def __post_init__(self) -> None:
        if self.by not in ("id", "sky"):
            raise InputError(f'a table is joined by "id" or on the "sky"; got by={self.by!r}')
        if isinstance(self.columns, str):
            object.__setattr__(self, "columns", (self.columns,))

    @property
    def name(self) -> str:
        """What to call the table."""
        return Path(self.source).name if isinstance(self.source, str | os.PathLike) else kind_of(self.source)


@dataclass(frozen=True)
class Joined:
    """A table with others beside it.

    Attributes
    ----------
    table : CatalogTable
        Rows as in the first table; where another has no row for a galaxy, its columns are null.
    matches : list of (str, str, dict)
        Left table, right table, and the statistics of their match.
    notes : list of str
    files : dict of str to Path
        Column that came from another file → that file.
    tables : dict of str to str
        Column that came from another table → what that is called.
    """

    table: CatalogTable
    matches: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)


def read_join(text: str, by: Literal["id", "sky"] = "id", within: float = 2.0) -> Join:
    """Read "FILE" or "FILE=COLUMN" (on the sky "FILE=RA,DEC").

    Examples
    --------
    >>> read_join("simard/table3.parquet=objID").columns
    ('objID',)
    >>> read_join("positions.fits=RAJ2000,DEJ2000", "sky", 1.5).within
    1.5
    """
    file, equals, names = text.rpartition("=")
    if not equals or Path(text).is_file():
        return Join(text, by, (), within)
    columns = tuple(name.strip() for name in names.split(","))
    wanted = 1 if by == "id" else 2
    if len(columns) != wanted or not all(columns) or not file:
        how = "FILE=COLUMN, its column of ids" if by == "id" else "FILE=RA,DEC, its columns of positions in degrees"
        raise InputError(f"to add a table's columns give FILE, or {how}; got {text!r}")
    return Join(file, by, columns, within)


def join_tables(
    table: CatalogTable,
    joins: Iterable[Join],
    mapping: Mapping | None = None,
    chosen: dict[str, str] | None = None,
    *,
    source: str = "table",
) -> Joined:
    """Add the columns of other tables, one table after the other.

    Parameters
    ----------
    table : CatalogTable, N rows
    joins : iterable of Join
    mapping : Mapping, optional
        Says which column of `table` holds ids, and which positions; found by name if not given.
    chosen : dict, optional
        truemorph's name → column that the user chose; wins over the mapping's.
    source : str
        What to call the table in messages.

    Returns
    -------
    Joined
        Columns that the table has already keep its values; another table's of the same name get the name of that
        table behind it. A column without a single value gives way.

    Raises
    ------
    InputError
        If a table has no ids or positions, has an id twice, or none of its rows belongs to any of `table`.

    Examples
    --------
    >>> votes = CatalogTable(pl.DataFrame({"dr7objid": [1, 2]}))
    >>> joined = join_tables(votes, [Join(pl.DataFrame({"objid": [2], "petroRad_r": [5.0]}))])
    >>> joined.table.frame["petroRad_r"].to_list()
    [None, 5.0]
    """
    result = Joined(table)
    for join in joins:
        right = read_table(join.source)
        name = join.name
        left = _Left(result, mapping, chosen or {}, source)
        match, same = _match(left, right, join, result.notes)
        statistics = {**match.statistics}
        result.matches.append((Path(source).name, name, statistics))
        result.notes.append(describe(match, Path(source).name, name))
        if statistics["matched"] == 0:
            raise InputError(f"nothing of {name} belongs to {source}: {describe(match, Path(source).name, name)}")
        result = _beside(result, right, match, join, same)
    return result


@dataclass(frozen=True)
class _Left:
    """The table so far, and how it is read."""

    joined: Joined
    mapping: Mapping | None
    chosen: dict[str, str]
    source: str

    def values(self, role: str) -> pl.Series | None:
        """Values of one of truemorph's columns, as in the catalogue; None where nothing says which they are."""
        table, existing = self.joined.table, self.joined.table.frame.columns
        rule = self.mapping.columns.get(role) if self.mapping is not None else None
        if role in self.chosen:
            if self.chosen[role] not in existing:
                what = {"object_id": "ids"}.get(role, "positions")
                near = nearest(self.chosen[role], existing)
                raise InputError(f"{self.source}: no column {self.chosen[role]!r} of {what}; {near}")
            found = column_expression(self.chosen[role])
            rule = Column(column=(self.chosen[role],), missing=() if rule is None else rule.missing)
        elif rule is None or self.mapping is None:
            return None
        else:
            own = [name for name in existing if name not in self.joined.tables]
            known = resolve(self.mapping, existing, own)
            if role not in known:
                return None
            found = known[role]
        return role_values(table, role, found, rule, self.source, [])[0].alias(found.said)


def _match(left: _Left, right: CatalogTable, join: Join, notes: list[str]) -> tuple[Match, set[str]]:
    """The match, and columns of the right table that say nothing new: its ids."""
    sources = (left.source, str(join.source) if isinstance(join.source, str | os.PathLike) else join.name)
    if join.by == "id":
        known = left.values("object_id")
        left_ids = _ids(left.joined.table, None, sources[0], "--id COLUMN") if known is None else known
        right_ids = _ids(right, join.columns[0] if join.columns else None, sources[1], "--join FILE=COLUMN")
        return match_ids(left_ids, right_ids, sources=sources), {right_ids.name}
    ra, dec = left.values("ra"), left.values("dec")
    if ra is None or dec is None:
        left_places = _places(left.joined.table, (), sources[0], "name them in a mapping", [])
    else:
        left_places = (_degrees(ra, "ra", sources[0]), _degrees(dec, "dec", sources[0]))
    right_places = _places(right, join.columns, sources[1], "give --match FILE=RA,DEC", notes)
    return match_sky(*left_places, *right_places, join.within, sources=sources), set()


def _ids(table: CatalogTable, chosen: str | None, source: str, option: str) -> pl.Series:
    existing = table.frame.columns
    if chosen is not None:
        if chosen not in existing:
            raise InputError(f"{source}: no column {chosen!r} of ids; {nearest(chosen, existing)}")
        return table.frame[chosen]
    known = [name for preset in PRESETS for name in read_mapping(preset).columns["object_id"].column]
    by_case = {name.lower(): name for name in reversed(existing)}
    for name in known:
        if name in existing or name.lower() in by_case:
            return table.frame[name if name in existing else by_case[name.lower()]]
    raise InputError(
        f"{source}: no column of ids ({', '.join(dict.fromkeys(known))}); name it with {option} "
        f"({nearest(known[0], existing)})"
    )


def _places(
    table: CatalogTable, chosen: Sequence[str], source: str, how: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination in degrees, NaN where missing."""
    existing = table.frame.columns
    absent = [name for name in chosen if name not in existing]
    if absent:
        raise InputError(f"{source}: no column {absent[0]!r} of positions; {nearest(absent[0], existing)}")
    names = list(chosen)
    if len(names) != 2:
        by_case = {name.lower(): name for name in existing}
        found = next((pair for pair in _POSITIONS if set(pair) <= set(by_case)), None)
        if found is None:
            raise InputError(f"{source}: no columns of positions (ra, dec); {how} ({nearest('ra', existing)})")
        names = [by_case[one] for one in found]
    ra, dec = (
        role_values(table, role, column_expression(name), Column(column=(name,)), source, notes)[0].alias(name)
        for role, name in zip(("ra", "dec"), names, strict=True)
    )
    return _degrees(ra, "ra", source), _degrees(dec, "dec", source)


def _degrees(values: pl.Series, role: str, source: str) -> np.ndarray:
    low, high = (-180, 360) if role == "ra" else (-90, 90)
    bad = ((values < low) | (values > high)).fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(
            f"{source}: column {values.name} ({role}) goes from {low} to {high} degrees; {bad.sum()} rows do not "
            f"(first: row {row + 1}, {values[row]:g}); mend them, leave them empty if unknown, or say in a mapping "
            "which values mean missing"
        )
    return values.fill_null(np.nan).to_numpy()


def _beside(left: Joined, right: CatalogTable, match: Match, join: Join, same: set[str]) -> Joined:
    """The right table's columns beside the left one's, in the order of its rows."""
    frame, name = right.frame.drop(same), join.name
    stem = name.partition(".")[0] if right.path is not None else "joined"
    notes, table = list(left.notes), left.table
    empty = [
        column
        for column in frame.columns
        if column in table.frame.columns and _is_empty(table.frame[column]) and not _is_empty(frame[column])
    ]
    if empty:
        notes.append(f"{name}: columns without a value elsewhere are taken from it: {', '.join(empty[:6])}")
        table = replace(table, frame=table.frame.drop(empty))
    taken = set(table.frame.columns)
    renamed: dict[str, str] = {}
    for column in frame.columns:
        free = column
        if free in taken:
            free = f"{column}_{stem}"
            while free in taken or free in frame.columns:
                free += "_"
        renamed[column] = free
        taken.add(free)
    clashing = [column for column in frame.columns if renamed[column] != column]
    if clashing:
        shown = ", ".join(clashing[:6]) + (f" and {len(clashing) - 6} more" if len(clashing) > 6 else "")
        notes.append(f"{name}: columns that are there already are added as {renamed[clashing[0]]} and so on: {shown}")
    rows = pl.Series(match.index)
    gathered = frame.rename(renamed).select(pl.all().gather(pl.select(pl.when(rows >= 0).then(rows)).to_series()))
    units = {renamed[column]: unit for column, unit in right.units.items() if column in renamed}
    about = {renamed[column]: text for column, text in right.descriptions.items() if column in renamed}
    if match.separation is not None:
        column = f"{stem}_separation"
        while column in taken:
            column += "_"
        gathered = gathered.with_columns(pl.Series(column, match.separation).fill_nan(None))
        units[column], about[column] = "arcsec", f"separation on the sky from the row of {name}"
    files = dict(left.files)
    if right.path is not None:
        files |= {column: Path(right.path) for column in gathered.columns}
    units = {column: unit for column, unit in table.units.items() if column not in empty} | units
    about = {column: text for column, text in table.descriptions.items() if column not in empty} | about
    table = replace(table, frame=pl.concat([table.frame, gathered], how="horizontal"), units=units, descriptions=about)
    return Joined(table, left.matches, notes, files, left.tables | dict.fromkeys(gathered.columns, name))


def _is_empty(series: pl.Series) -> bool:
    return series.null_count() == len(series)
