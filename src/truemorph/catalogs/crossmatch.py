"""Match the rows of two tables, by id or by position on the sky, and add the columns of one to the other."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from truemorph.catalogs.catalogue import as_ids, object_ids
from truemorph.catalogs.columns import NAMED, free_name
from truemorph.catalogs.expressions import column_expression
from truemorph.catalogs.mapped import column_values
from truemorph.catalogs.mapping import Column, Mapping, read_mapping, resolve
from truemorph.catalogs.positions import DEC, RA, checked_positions, unit_vectors
from truemorph.config import by_commas
from truemorph.errors import InputError, nearest
from truemorph.findings import Finding
from truemorph.tables import CatalogTable, left_join, name_of, read_table, usual_column

_USUAL_POSITIONS = {"ra": RA, "dec": DEC}
_ARCSEC = np.radians(1 / 3600)
# Chance matches are counted at positions shifted by this many radii, in four directions.
_SHIFT = 5
_PERCENTILES = {"median_separation": 50, "p95_separation": 95, "largest_separation": 100}
LARGEST_RADIUS = 3600.0  # arcsec; above one degree, the unit must be wrong


@dataclass(frozen=True)
class Match:
    """Matching rows of two tables.

    `index`, shape (N,), is the row of the right table (from 0) for each row of the left one, -1 if there is none;
    `separation` is in arcsec, NaN without a match, None for a match by id. `statistics` has numbers of rows and, on the
    sky, `ambiguous` (rows with several candidates) and `by_chance` (matches expected for unrelated positions).
    """

    index: np.ndarray
    separation: np.ndarray | None
    statistics: dict[str, Any]


def match_ids(left: pl.Series, right: pl.Series, *, sources: tuple[str, str] = ("left table", "right table")) -> Match:
    """Match rows by id, exactly; rows without an id have no match, and repeated ids that match are an error.

    If only one of the series is text, both are compared as text: 12 equals "12" but not "012".
    """
    ids, other = as_ids(left, sources[0]), as_ids(right, sources[1])
    if ids.dtype != other.dtype:
        ids, other = ids.cast(pl.String), other.cast(pl.String)
    rows = pl.DataFrame({"id": other}).with_row_index("row").filter(pl.col("id").is_in(ids.implode()))
    object_ids(rows["id"].alias(right.name), sources[1], rows["row"].to_numpy())
    joined = left_join(pl.DataFrame({"id": ids}), rows, "id")
    index = joined["row"].cast(pl.Int64).fill_null(-1).to_numpy()
    return Match(index, None, {"by": "id", **_counts(index, len(other), ids.null_count(), other.null_count())})


def match_sky(
    ra: Any,
    dec: Any,
    ra2: Any,
    dec2: Any,
    radius_arcsec: float = 2.0,
    *,
    mutual: bool = True,
    sources: tuple[str, str] = ("left table", "right table"),
) -> Match:
    """Match rows that are mutual nearest neighbours on the sky within a radius, one to one.

    If not `mutual`, each row with the nearest row of the other table, such as the PSF of a tile, which may have several
    matches. Positions are degrees or quantities of angle, shapes (N,) and (M,), in the same frame and epoch; rows
    without a position (NaN, masked) have no match. `by_chance` is the mean number of mutual matches after the left
    table is shifted by 5 radii to the north, east, south and west, as if no row had a counterpart: if most rows have
    one, fewer are false.
    """
    if not 0 < radius_arcsec <= LARGEST_RADIUS:
        raise InputError(f"a match needs a radius above 0 and up to {LARGEST_RADIUS:g} arcsec; got {radius_arcsec}")
    longitude, latitude = checked_positions(ra, dec, sources[0])
    places, others = unit_vectors(longitude, latitude), unit_vectors(*checked_positions(ra2, dec2, sources[1]))
    placed, placed2 = (np.flatnonzero(np.isfinite(vectors[:, 0])) for vectors in (places, others))
    # Distances are chords of the unit sphere, 2 sin(angle / 2), which are exact for small angles, unlike cosines.
    chord = 2 * np.sin(radius_arcsec * _ARCSEC / 2)
    tree = cKDTree(others[placed2], balanced_tree=False)  # fast for many galaxies at one position, too
    rows, columns, chords = _nearest(places[placed], tree, chord, mutual)
    index, separation = np.full(len(places), -1, dtype=int), np.full(len(places), np.nan)
    index[placed[rows]] = placed2[columns]
    separation[placed[rows]] = 2 * np.arcsin(chords / 2) / _ARCSEC
    matched = separation[index >= 0]
    statistics = {
        "by": "sky" if mutual else "nearest",
        "radius": float(radius_arcsec),
        **_counts(index, len(others), len(places) - placed.size, len(others) - placed2.size),
        **{name: float(np.percentile(matched, part)) if matched.size else None for name, part in _PERCENTILES.items()},
    }
    if mutual:
        candidates = tree.query_ball_point(places[placed], chord, return_length=True)
        # Steps in right ascension are wider by 1 / cos δ.
        longitude, latitude, shift = longitude[placed], latitude[placed], _SHIFT * radius_arcsec / 3600
        along = shift / np.cos(np.radians(latitude))
        moved = [(longitude, latitude + step) for step in (shift, -shift)]
        moved += [(longitude + step, latitude) for step in (along, -along)]
        by_chance = [_nearest(unit_vectors(*position), tree, chord, mutual)[0].size for position in moved]
        statistics |= {"ambiguous": int((candidates > 1).sum()), "by_chance": float(np.mean(by_chance))}
    return Match(index, separation, statistics)


def describe(statistics: dict[str, Any], left_name: str, right_name: str) -> str:
    """Describe the statistics of a match in one line."""
    by = statistics["by"]
    how, noun = {
        "id": ("by id", "id"),
        "sky": (f"on the sky within {statistics.get('radius', 0):g} arcsec", "position"),
        "nearest": ("by the nearest position", "position"),
    }[by]
    line = f"{left_name} with {right_name} {how}: {statistics['matched']:,d} of {statistics['left']:,d} rows matched"
    if by == "sky" and statistics["matched"]:
        line += (
            f" (median separation {statistics['median_separation']:.2f} arcsec, 95 % below "
            f"{statistics['p95_separation']:.2f} arcsec); {statistics['by_chance']:,.1f} matches expected by chance; "
            f"{statistics['ambiguous']:,d} rows with several candidates"
        )
    if by == "nearest" and statistics["matched"]:
        line += f" (up to {statistics['largest_separation']:.4g} arcsec away)"
    line += f"; {statistics['right_unused']:,d} rows of {right_name} unused"
    for side, name in (("left", left_name), ("right", right_name)):
        if statistics[f"{side}_missing"]:
            line += f"; {statistics[f'{side}_missing']:,d} rows of {name} without {noun}"
    return line


def _counts(index: np.ndarray, right: int, left_missing: int, right_missing: int) -> dict[str, int]:
    return {
        "left": index.size,
        "right": right,
        "matched": int((index >= 0).sum()),
        "right_unused": right - np.unique(index[index >= 0]).size,
        "left_missing": left_missing,
        "right_missing": right_missing,
    }


def _nearest(
    vectors: np.ndarray, tree: cKDTree, chord: float, mutual: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of `vectors`, rows of the tree and chords of (mutual) nearest neighbours within a chord."""
    chords, nearest_in_tree = tree.query(vectors, distance_upper_bound=chord)
    rows = np.flatnonzero(nearest_in_tree < tree.n)
    if mutual:
        back = cKDTree(vectors, balanced_tree=False).query(tree.data[nearest_in_tree[rows]])[1]
        rows = rows[back == rows]
    return rows, nearest_in_tree[rows], chords[rows]


@dataclass(frozen=True)
class Join:
    """A table whose columns are added to another table, and how its rows are matched.

    `columns` are the id column, or right ascension and declination, by default found by name; `within` is in arcsec.
    """

    source: Any
    by: Literal["id", "sky", "nearest"] = "id"
    columns: tuple[str, ...] = ()
    within: float = 2.0

    def __post_init__(self) -> None:
        if len(self.columns) not in (0, 1 if self.by == "id" else 2) or not all(self.columns):
            how = "FILE=COLUMN with its id column" if self.by == "id" else "FILE=RA,DEC with its columns of positions"
            raise InputError(f"to add a table's columns give FILE, or {how}; got {','.join(self.columns)!r}")

    @property
    def name(self) -> str:
        """Name of the table in messages."""
        return Path(name_of(self.source)).name


@dataclass(frozen=True)
class Joined:
    """A table with added columns of other tables, null for galaxies without a match.

    `files` begins with that of the first table; `added` gives the file of each added column's table. Tables in memory
    have none.
    """

    table: CatalogTable
    name: str
    files: tuple[Path | None, ...]
    matches: list[dict[str, Any]]
    findings: list[Finding]
    added: dict[str, Path | None]

    @property
    def own(self) -> list[str]:
        """Columns of the first table."""
        return [name for name in self.table.frame.columns if name not in self.added]


def read_join(given: Any, by: Literal["id", "sky", "nearest"] = "id", within: float = 2.0) -> Join:
    """Read "FILE" or "FILE=COLUMN"; on the sky, "FILE" or "FILE=RA,DEC". Tables in memory are accepted too."""
    if isinstance(given, Join):
        return given
    file, _, names = given.rpartition("=") if isinstance(given, str) else ("", "", "")
    if not file or Path(given).is_file():
        return Join(given, by, (), within)
    return Join(file, by, tuple(by_commas(names)), within)


def join_tables(table: CatalogTable, joins: Iterable[Join], mapping: Mapping, table_name: str) -> Joined:
    """Add the columns of other tables, one after the other.

    `mapping` names the columns of `table` with ids and positions, which are otherwise found by name. Of two columns
    with one name, the second gets its table's name as a suffix; a column that is entirely null is replaced.
    """
    result = Joined(table, table_name, (table.path,), [], [], {})
    for join in joins:
        right = read_table(join.source)
        names = (table_name, join.name)
        keys = ("object_id",) if join.by == "id" else ("ra", "dec")
        left_keys, _ = _keys(result.table, keys, (), names[0], mapping, result.own)
        right_keys, findings = _keys(right, keys, join.columns, names[1])
        if join.by == "id":
            match = match_ids(*left_keys, *right_keys, sources=names)
            right = replace(right, frame=right.frame.drop(right_keys[0].name))
        else:
            ra, dec, ra2, dec2 = (key.to_numpy() for key in (*left_keys, *right_keys))
            match = match_sky(ra, dec, ra2, dec2, join.within, mutual=join.by == "sky", sources=names)
        line = describe(match.statistics, *names)
        if match.statistics["matched"] == 0:
            if join.by == "id":
                first = " and ".join(str(keys[0].drop_nulls().first()) for keys in (left_keys, right_keys))
                line += f"; the first ids are {first}: are both tables from the same data release?"
            raise InputError(f"no row of {join.name} matches {table_name}: {line}")
        if join.by == "nearest":
            findings += _at_one_place(ra2, dec2, join.name)
        beside, renamed = _side_by_side(result, right, match, join)
        key_names = {key.name for key in right_keys}
        if columns := ", ".join(f"{name} is {new}" for name, new in renamed.items() if name not in key_names):
            clash = f"Columns of {join.name} that {table_name} has too have other names: {columns}."
            findings.append(Finding("columns-renamed", "note", clash, "Name the one that is meant."))
        result = replace(
            beside,
            files=(*result.files, right.path),
            matches=[*result.matches, {"tables": [*names], **match.statistics}],
            findings=[*result.findings, Finding("tables-matched", "note", f"{line}."), *findings],
        )
    return result


def _at_one_place(ra: np.ndarray, dec: np.ndarray, name: str) -> Iterator[Finding]:
    """Say how many rows of a table have the position of an earlier row, so that either may be the nearest."""
    places = pl.DataFrame({"ra": ra, "dec": dec}).drop_nans()
    repeated = places.height - places.n_unique()
    if not repeated:
        return
    ambiguous = f"{repeated:,d} rows of {name} are at the position of another row; one of them was taken."
    action = "Keep one row of each position, such as that of one band."
    yield Finding("positions-repeated", "caution", ambiguous, action)


def _keys(
    table: CatalogTable,
    names: Sequence[str],
    chosen: Sequence[str],
    table_name: str,
    mapping: Mapping | None = None,
    own: Sequence[str] = (),
) -> tuple[list[pl.Series], list[Finding]]:
    """Return ids or positions from the chosen columns, the mapping's, or usual names; and findings."""
    existing = table.frame.columns
    resolved = {} if mapping is None else resolve(mapping, existing, own)
    keys, findings = [], []
    for number, name in enumerate(names):
        if mapping is not None and resolved.keys() >= set(names):
            what, rule = resolved[name], mapping.columns[name]
        else:
            usual = _USUAL_POSITIONS.get(name) or read_mapping("truemorph").columns[name].column
            column = chosen[number] if chosen else usual_column(existing, usual) or name
            if column not in existing:
                how = "`id` or `join`=FILE=COLUMN" if name == "object_id" else "a mapping or `match`=FILE=RA,DEC"
                about = f"no column {column!r} ({NAMED[name].description}); name it in {how}"
                raise InputError(f"{table_name}: {about}; {nearest(column, existing)}")
            what, rule = column_expression(column), Column(column=(column,))
        values, more = column_values(table, name, what, rule, table_name)
        keys.append(values.alias(what.text))
        findings += more
    return keys, findings


def _side_by_side(left: Joined, right: CatalogTable, match: Match, join: Join) -> tuple[Joined, dict[str, str]]:
    """Add the right table's columns to the left one, in its row order; return new names of those that clash, too."""
    frame, stem = right.frame, join.name.partition(".")[0] if right.path is not None else "joined"
    own = left.table.frame
    own = own.select(column for column in own if column.name not in frame.columns or column.null_count() < len(column))
    taken = {*own.columns, *frame.columns}
    clashing = {name: free_name(f"{name}_{stem}", taken) for name in frame.columns if name in own.columns}
    rows = pl.Series(match.index)
    gathered = frame.rename(clashing).select(pl.all().gather(rows.set(rows < 0, None)))
    units, about = (
        {name: text for name, text in mine.items() if name in own.columns}
        | {clashing.get(name, name): text for name, text in theirs.items() if name in frame.columns}
        for mine, theirs in ((left.table.units, right.units), (left.table.descriptions, right.descriptions))
    )
    if match.separation is not None:
        column = free_name(f"{stem}_separation", {*taken, *clashing.values()})
        gathered = gathered.with_columns(pl.Series(column, match.separation).fill_nan(None))
        units[column], about[column] = "arcsec", f"separation on the sky from the row of {join.name}"
    both = pl.concat([own, gathered], how="horizontal")
    table = replace(left.table, frame=both, units=units, descriptions=about)
    added = left.added | dict.fromkeys(gathered.columns, right.path)
    return replace(left, table=table, added=added), clashing
