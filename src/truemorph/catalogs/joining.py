"""Columns of other tables beside a table's own, such as photometry and images: by object id or by position."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.catalogs.crossmatch import Match, describe, match_ids, match_sky
from truemorph.catalogs.expressions import column_expression
from truemorph.catalogs.mapped import column_values
from truemorph.catalogs.mapping import PRESETS, Column, Mapping, read_mapping, resolve
from truemorph.errors import InputError, nearest
from truemorph.tables import CatalogTable, kind_of, read_table

# Names of right ascension and declination in SDSS and most tables, VizieR, SExtractor and TOPCAT.
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
    """A table whose columns are to be added to another's.

    Attributes
    ----------
    source : path, or a table in memory
    by : {"id", "sky"}
        Match rows by object id, or by position.
    columns : tuple of str
        The table's id column, or its columns of right ascension and declination; found by name if not given.
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
        """What to call the table in messages."""
        return Path(self.source).name if isinstance(self.source, str | os.PathLike) else kind_of(self.source)


@dataclass(frozen=True)
class Joined:
    """A table with the columns of others.

    Attributes
    ----------
    table : CatalogTable
        Rows as in the first table; where another has no row for a galaxy, its columns are null.
    matches : list of (str, str, dict)
        Left table, right table, and the statistics of their match.
    notes : list of str
    added : dict of str to (str, Path or None)
        Column from another table → that table's name and file.
    """

    table: CatalogTable
    matches: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    added: dict[str, tuple[str, Path | None]] = field(default_factory=dict)

    @property
    def own(self) -> list[str]:
        """Columns of the first table."""
        return [name for name in self.table.frame.columns if name not in self.added]


def read_join(text: str, by: Literal["id", "sky"] = "id", within: float = 2.0) -> Join:
    """Read "FILE" or "FILE=COLUMN"; on the sky, "FILE" or "FILE=RA,DEC".

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
        how = "FILE=COLUMN with its id column" if by == "id" else "FILE=RA,DEC with its position columns in degrees"
        raise InputError(f"to add a table's columns give FILE, or {how}; got {text!r}")
    return Join(file, by, columns, within)


def join_tables(
    table: CatalogTable, joins: Iterable[Join], mapping: Mapping | None = None, *, table_name: str = "table"
) -> Joined:
    """Add the columns of other tables, one table after the other.

    Parameters
    ----------
    table : CatalogTable, N rows
    joins : iterable of Join
    mapping : Mapping, optional
        Says which columns of `table` hold ids and positions; found by name if not given.
    table_name : str
        What to call `table` in messages.

    Returns
    -------
    Joined
        Where two tables have a column of the same name, the first keeps it, and the other's gets its table's name as
        a suffix. A column that is entirely null is replaced.

    Raises
    ------
    InputError
        If a table has no ids or positions, repeats an id, or none of its rows matches.

    Examples
    --------
    >>> votes = CatalogTable(pl.DataFrame({"dr7objid": [1, 2]}))
    >>> joined = join_tables(votes, [Join(pl.DataFrame({"objid": [2], "petroRad_r": [5.0]}))])
    >>> joined.table.frame["petroRad_r"].to_list()
    [None, 5.0]
    """
    result = Joined(table)
    left_name = Path(table_name).name
    for join in joins:
        right = read_table(join.source)
        match, redundant, notes = _match(result, right, join, mapping, table_name)
        line = describe(match, left_name, join.name)
        if match.statistics["matched"] == 0:
            raise InputError(f"no row of {join.name} matches {table_name}: {line}")
        added = _with_columns(result, right.frame.drop(redundant), right, match, join)
        result = replace(
            added,
            matches=[*result.matches, (left_name, join.name, {**match.statistics})],
            notes=[*result.notes, line, *notes, *added.notes],
        )
    return result


def _match(
    left: Joined, right: CatalogTable, join: Join, mapping: Mapping | None, table_name: str
) -> tuple[Match, list[str], list[str]]:
    """Match two tables; also return columns of the right one that need not be added (its ids), and notes."""
    right_name = str(join.source) if isinstance(join.source, str | os.PathLike) else join.name
    names = (table_name, right_name)
    if join.by == "id":
        known = _mapped_values(left, mapping, "object_id", table_name)
        left_ids = _ids(left.table, None, table_name, "--id COLUMN") if known is None else known
        right_ids = _ids(right, join.columns[0] if join.columns else None, right_name, "--join FILE=COLUMN")
        return match_ids(left_ids, right_ids, sources=names), [right_ids.name], []
    ra, dec = (_mapped_values(left, mapping, name, table_name) for name in ("ra", "dec"))
    if ra is None or dec is None:
        left_places, _ = _positions(left.table, (), table_name, "name them in a mapping")
    else:
        left_places = (_degrees(ra, "ra", table_name), _degrees(dec, "dec", table_name))
    right_places, notes = _positions(right, join.columns, right_name, "give --match FILE=RA,DEC")
    return match_sky(*left_places, *right_places, join.within, sources=names), [], notes


def _mapped_values(left: Joined, mapping: Mapping | None, name: str, table_name: str) -> pl.Series | None:
    """Ids or positions of the first table as its mapping says; None where it doesn't."""
    found = {} if mapping is None else resolve(mapping, left.table.frame.columns, left.own)
    if mapping is None or name not in found:
        return None
    values, _, _ = column_values(left.table, name, found[name], mapping.columns[name], table_name)
    return values.alias(found[name].said)


def _ids(table: CatalogTable, chosen: str | None, table_name: str, option: str) -> pl.Series:
    existing = table.frame.columns
    if chosen is not None:
        if chosen not in existing:
            raise InputError(f"{table_name}: no id column {chosen!r}; {nearest(chosen, existing)}")
        return table.frame[chosen]
    known = [name for preset in PRESETS for name in read_mapping(preset).columns["object_id"].column]
    by_case = {name.lower(): name for name in reversed(existing)}
    for name in known:
        if name in existing or name.lower() in by_case:
            return table.frame[name if name in existing else by_case[name.lower()]]
    raise InputError(
        f"{table_name}: no id column ({', '.join(dict.fromkeys(known))}); name it with {option} "
        f"({nearest(known[0], existing)})"
    )


def _positions(
    table: CatalogTable, chosen: Sequence[str], table_name: str, how: str
) -> tuple[tuple[np.ndarray, np.ndarray], list[str]]:
    """Right ascension and declination in degrees, NaN where missing, and notes."""
    existing = table.frame.columns
    absent = [name for name in chosen if name not in existing]
    if absent:
        raise InputError(f"{table_name}: no position column {absent[0]!r}; {nearest(absent[0], existing)}")
    names = list(chosen)
    if len(names) != 2:
        by_case = {name.lower(): name for name in existing}
        found = next((pair for pair in _POSITIONS if set(pair) <= set(by_case)), None)
        if found is None:
            raise InputError(f"{table_name}: no position columns (ra, dec); {how} ({nearest('ra', existing)})")
        names = [by_case[one] for one in found]
    places, notes = [], []
    for name, column in zip(("ra", "dec"), names, strict=True):
        values, _, more = column_values(table, name, column_expression(column), Column(column=(column,)), table_name)
        places.append(_degrees(values.alias(column), name, table_name))
        notes += more
    return (places[0], places[1]), notes


def _degrees(values: pl.Series, name: str, table_name: str) -> np.ndarray:
    low, high = (-180, 360) if name == "ra" else (-90, 90)
    bad = ((values < low) | (values > high)).fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(
            f"{table_name}: column {values.name} ({name}) should be between {low} and {high} degrees; {bad.sum():,d} "
            f"rows are not (first: row {row + 1}, {values[row]:g}); correct them, or leave them empty if "
            "unknown"
        )
    return values.fill_null(np.nan).to_numpy()


def _with_columns(left: Joined, frame: pl.DataFrame, right: CatalogTable, match: Match, join: Join) -> Joined:
    """Put the right table's columns beside the left one's, in the order of its rows; notes are only the new ones."""
    table, notes = left.table, []
    stem = join.name.partition(".")[0] if right.path is not None else "joined"
    empty = [
        column
        for column in frame.columns
        if column in table.frame.columns and _is_empty(table.frame[column]) and not _is_empty(frame[column])
    ]
    if empty:
        notes.append(f"{join.name}: used for columns that have no value elsewhere: {', '.join(empty[:6])}")
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
        notes.append(f"{join.name}: names that exist already get a suffix ({renamed[clashing[0]]}): {shown}")
    rows = pl.Series(match.index)
    gathered = frame.rename(renamed).select(pl.all().gather(pl.select(pl.when(rows >= 0).then(rows)).to_series()))
    units = {renamed[column]: unit for column, unit in right.units.items() if column in renamed}
    about = {renamed[column]: text for column, text in right.descriptions.items() if column in renamed}
    if match.separation is not None:
        column = f"{stem}_separation"
        while column in taken:
            column += "_"
        gathered = gathered.with_columns(pl.Series(column, match.separation).fill_nan(None))
        units[column], about[column] = "arcsec", f"separation on the sky from the row of {join.name}"
    units = {column: unit for column, unit in table.units.items() if column not in empty} | units
    about = {column: text for column, text in table.descriptions.items() if column not in empty} | about
    table = replace(table, frame=pl.concat([table.frame, gathered], how="horizontal"), units=units, descriptions=about)
    added = left.added | dict.fromkeys(gathered.columns, (join.name, right.path))
    return Joined(table, left.matches, notes, added)


def _is_empty(series: pl.Series) -> bool:
    return series.null_count() == len(series)
