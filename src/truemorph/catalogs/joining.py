"""Columns of other tables beside a table's own: photometry, profiles, images; by object id or by place on the sky."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.catalogs.crossmatch import Match, describe, match_ids, match_sky
from truemorph.catalogs.expressions import compute
from truemorph.catalogs.mapping import PRESETS, Mapping, read_mapping, resolve
from truemorph.catalogs.objects import CatalogTable, kind_of
from truemorph.catalogs.schema import nearest
from truemorph.catalogs.tables import read_table
from truemorph.catalogs.units import conversion
from truemorph.errors import InputError

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
    """

    table: CatalogTable
    matches: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)


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
        table behind it.

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
        match, same = _match(result.table, right, join, mapping, chosen or {}, source)
        statistics = {**match.statistics}
        result.matches.append((Path(source).name, name, statistics))
        result.notes.append(describe(match, Path(source).name, name))
        if statistics["matched"] == 0:
            raise InputError(f"nothing of {name} belongs to {source}: {describe(match, Path(source).name, name)}")
        result = _beside(result, right, match, join, same)
    return result


def _match(
    table: CatalogTable, right: CatalogTable, join: Join, mapping: Mapping | None, chosen: dict[str, str], source: str
) -> tuple[Match, set[str]]:
    """The match, and columns of the right table that say nothing new: its ids."""
    sources = (source, str(join.source) if isinstance(join.source, str | os.PathLike) else join.name)
    if join.by == "id":
        left_ids = _ids(table, mapping, chosen.get("object_id"), sources[0], "--id COLUMN")
        right_ids = _ids(right, None, join.columns[0] if join.columns else None, sources[1], "--join FILE=COLUMN")
        return match_ids(left_ids, right_ids, sources=sources), {right_ids.name}
    asked = tuple(chosen[role] for role in ("ra", "dec") if role in chosen)
    left_places = _places(table, mapping, asked, sources[0], "name them in a mapping")
    right_places = _places(right, None, join.columns, sources[1], "give --match FILE=RA,DEC")
    return match_sky(*left_places, *right_places, join.within, sources=sources), set()


def _ids(table: CatalogTable, mapping: Mapping | None, chosen: str | None, source: str, option: str) -> pl.Series:
    existing = table.frame.columns
    if chosen is not None:
        if chosen not in existing:
            raise InputError(f"{source}: no column {chosen!r} of ids; {nearest(chosen, existing)}")
        return table.frame[chosen]
    if mapping is not None and (own := resolve(mapping, existing).get("object_id")) is not None:
        return table.frame[own.columns[0]] if own.lone else compute(own, table.frame, f"{source}: ids", exact=True)
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
    table: CatalogTable, mapping: Mapping | None, chosen: Sequence[str], source: str, how: str
) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination in degrees, NaN where missing."""
    existing = table.frame.columns
    absent = [name for name in chosen if name not in existing]
    if absent:
        raise InputError(f"{source}: no column {absent[0]!r} of positions; {nearest(absent[0], existing)}")
    names = list(chosen)
    if len(names) != 2 and mapping is not None:
        own = resolve(mapping, existing)
        names = [own[role].columns[0] for role in ("ra", "dec") if role in own and own[role].lone]
    if len(names) != 2:
        by_case = {name.lower(): name for name in existing}
        found = next((pair for pair in _POSITIONS if set(pair) <= set(by_case)), None)
        if found is None:
            raise InputError(f"{source}: no columns of positions (ra, dec); {how} ({nearest('ra', existing)})")
        names = [by_case[one] for one in found]
    return _degrees(table, names[0], source), _degrees(table, names[1], source)


def _degrees(table: CatalogTable, name: str, source: str) -> np.ndarray:
    series = table.frame[name]
    if not series.dtype.is_numeric():
        raise InputError(f"{source}: column {name} should hold degrees, not {series.dtype}; convert it first")
    stated = table.units.get(name)
    converted = (1.0, "deg") if stated is None else conversion(stated, ("deg",))
    if converted is None:
        raise InputError(f"{source}: column {name} is in {stated!r}, which is not an angle; give degrees")
    return series.cast(pl.Float64).fill_null(np.nan).to_numpy() * converted[0]


def _beside(left: Joined, right: CatalogTable, match: Match, join: Join, same: set[str]) -> Joined:
    """The right table's columns beside the left one's, in the order of its rows."""
    frame, name = right.frame.drop(same), join.name
    stem = name.partition(".")[0] if right.path is not None else "joined"
    notes, taken = list(left.notes), set(left.table.frame.columns)
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
    table = replace(
        left.table,
        frame=pl.concat([left.table.frame, gathered], how="horizontal"),
        units=left.table.units | units,
        descriptions=left.table.descriptions | about,
    )
    return Joined(table, left.matches, notes, files)
