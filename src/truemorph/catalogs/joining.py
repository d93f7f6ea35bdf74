"""Columns of other tables beside a table's own, such as photometry and images: by object id or by position."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.catalogs.columns import NAMED, free_name
from truemorph.catalogs.crossmatch import Match, describe, match_ids, match_sky
from truemorph.catalogs.expressions import column_expression
from truemorph.catalogs.mapped import column_values
from truemorph.catalogs.mapping import PRESETS, Column, Mapping, read_mapping, resolve
from truemorph.errors import InputError, nearest
from truemorph.tables import CatalogTable, kind_of, read_table

# Names of right ascension and declination in SDSS and most tables, VizieR, SExtractor and TOPCAT.
_RA = ("ra", "raj2000", "ra_icrs", "_ra", "_raj2000", "alpha_j2000", "ra_deg", "right_ascension")
_DEC = ("dec", "dej2000", "de_icrs", "_de", "_dej2000", "delta_j2000", "dec_deg", "declination")


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
        if len(self.columns) not in (0, 1 if self.by == "id" else 2) or not all(self.columns):
            how = "FILE=COLUMN, its column of ids" if self.by == "id" else "FILE=RA,DEC, its columns of positions"
            raise InputError(f"to add a table's columns give FILE, or {how}; got {','.join(self.columns)!r}")

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
    name : str
        What to call the first table in messages.
    files : tuple of Path
        Files that were read, the first table's first.
    matches : list of (str, str, dict)
        Left table, right table, and the statistics of their match.
    notes : list of str
    added : dict of str to (str, Path or None)
        Column from another table → that table's name and file.
    """

    table: CatalogTable
    name: str = "table"
    files: tuple[Path, ...] = ()
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
    file, _, names = text.rpartition("=")
    if not file or Path(text).is_file():
        return Join(text, by, (), within)
    return Join(file, by, tuple(name.strip() for name in names.split(",")), within)


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
    result = Joined(table, table_name, () if table.path is None else (table.path,))
    left_name = Path(table_name).name
    for join in joins:
        right = read_table(join.source)
        names = (table_name, join.name if right.path is None else str(right.path))
        keys = ("object_id",) if join.by == "id" else ("ra", "dec")
        left_keys, _ = _keys(result.table, keys, (), names[0], mapping, result.own)
        right_keys, notes = _keys(right, keys, join.columns, names[1])
        if join.by == "id":
            match = match_ids(*left_keys, *right_keys, sources=names)
            right = replace(right, frame=right.frame.drop(right_keys[0].name))
        else:
            ra, dec, ra2, dec2 = (one.fill_null(np.nan).to_numpy() for one in (*left_keys, *right_keys))
            match = match_sky(ra, dec, ra2, dec2, join.within, sources=names)
        line = describe(match, left_name, join.name)
        if match.statistics["matched"] == 0:
            raise InputError(f"no row of {join.name} matches {table_name}: {line}")
        beside, clashes = _side_by_side(result, right, match, join)
        result = replace(
            beside,
            files=(*result.files, *(() if right.path is None else (right.path,))),
            matches=[*result.matches, (left_name, join.name, {**match.statistics})],
            notes=[*result.notes, line, *notes, *clashes],
        )
    return result


def _keys(
    table: CatalogTable,
    names: Sequence[str],
    chosen: Sequence[str],
    table_name: str,
    mapping: Mapping | None = None,
    own: Sequence[str] = (),
) -> tuple[list[pl.Series], list[str]]:
    """Ids or positions of a table, in columns that were chosen, or as its mapping says, or found by name; and notes."""
    existing = table.frame.columns
    found = {} if mapping is None or chosen else resolve(mapping, existing, own)
    by_case = {name.lower(): name for name in reversed(existing)}
    keys, notes = [], []
    for number, name in enumerate(names):
        if mapping is not None and found.keys() >= set(names):
            what, rule = found[name], mapping.columns[name]
        else:
            known = [by_case[one] for one in _usual_names(name) if one in by_case]
            column = chosen[number] if chosen else known[0] if known else name
            if column not in existing:
                how = "--id or --join FILE=COLUMN" if name == "object_id" else "a mapping or --match FILE=RA,DEC"
                near = nearest(column, existing)
                raise InputError(
                    f"{table_name}: no column {column!r} ({NAMED[name].description}); name it in {how}; {near}"
                )
            what, rule = column_expression(column), Column(column=(column,))
        values, _, more = column_values(table, name, what, rule, table_name)
        keys.append(values.alias(what.said))
        notes += more
    return keys, notes


def _usual_names(name: str) -> Sequence[str]:
    if name == "object_id":
        return [one.lower() for preset in PRESETS for one in read_mapping(preset).columns["object_id"].column]
    return _RA if name == "ra" else _DEC


def _side_by_side(left: Joined, right: CatalogTable, match: Match, join: Join) -> tuple[Joined, list[str]]:
    """Put the right table's columns beside the left one's, in the order of its rows; return notes too."""
    notes = []
    stem = join.name.partition(".")[0] if right.path is not None else "joined"
    own, frame = left.table.frame, right.frame
    empty = [
        name for name in frame.columns if name in own.columns and _is_empty(own[name]) and not _is_empty(frame[name])
    ]
    if empty:
        notes.append(f"{join.name}: used for columns that have no value elsewhere: {', '.join(empty[:6])}")
        own = own.drop(empty)
    taken = {*own.columns, *frame.columns}
    clashing = [name for name in frame.columns if name in own.columns]
    renamed = {name: name for name in frame.columns}
    for name in clashing:
        renamed[name] = free_name(f"{name}_{stem}", taken)
        taken.add(renamed[name])
    if clashing:
        shown = ", ".join(clashing[:6]) + (f" and {len(clashing) - 6} more" if len(clashing) > 6 else "")
        notes.append(f"{join.name}: names that exist already get a suffix ({renamed[clashing[0]]}): {shown}")
    rows = pl.Series(match.index)
    gathered = frame.rename(renamed).select(pl.all().gather(pl.select(pl.when(rows >= 0).then(rows)).to_series()))
    units, about = (
        {name: text for name, text in mine.items() if name not in empty}
        | {renamed[name]: one for name, one in theirs.items() if name in renamed}
        for mine, theirs in ((left.table.units, right.units), (left.table.descriptions, right.descriptions))
    )
    if match.separation is not None:
        column = free_name(f"{stem}_separation", taken)
        gathered = gathered.with_columns(pl.Series(column, match.separation).fill_nan(None))
        units[column], about[column] = "arcsec", f"separation on the sky from the row of {join.name}"
    both = pl.concat([own, gathered], how="horizontal")
    table = replace(left.table, frame=both, units=units, descriptions=about)
    added = left.added | dict.fromkeys(gathered.columns, (join.name, right.path))
    return replace(left, table=table, added=added), notes


def _is_empty(series: pl.Series) -> bool:
    return series.null_count() == len(series)
