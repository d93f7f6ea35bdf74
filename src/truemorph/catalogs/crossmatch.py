"""Which row of one table belongs to which of another: by id, or by place on the sky.

Both ways give a `Match`: a row number of the right table for each row of the left one, and statistics that say how well
it went. Tables themselves are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from truemorph.arrays import float_array
from truemorph.catalogs.ids import check_digits
from truemorph.errors import InputError

_ARCSEC = np.radians(1 / 3600)
# Chance matches are counted at so many times the radius from the true places, in so many directions.
_SHIFT, _DIRECTIONS = 5, 4
# A radius above one degree is a slip of units; more pairs than this don't fit comfortably in memory (24 bytes each).
_LARGEST_RADIUS, _MOST_PAIRS = 3600.0, 20_000_000


@dataclass(frozen=True)
class Match:
    """Rows of a right table for rows of a left one.

    Attributes
    ----------
    index : array of int64, shape (N,)
        Row of the right table (from 0), -1 where there is none.
    separation : array, shape (N,), or None
        Arcsec on the sky, NaN where there is no match; None for a match of ids.
    statistics : dict
        Plain numbers, ready for JSON. Always: `by` ("id" or "sky"), `left`, `right` (rows), `matched`, `unmatched`
        (rows of the left table), `right_unused` (rows of the right table), `left_missing`, `right_missing` (rows
        without an id or a position).
        By id also: `repeated` (rows of the right table passed over because another row has their id), and `examples`
        (the first id of each) where nothing matched.
        On the sky also: `radius` (arcsec), `ambiguous` (rows of the left table with several candidates within the
        radius), `taken` (unmatched rows whose nearest candidate is nearer to another row), `median_separation`,
        `p95_separation` (arcsec; None if nothing matched), `by_chance` (matches that unrelated places would give) and
        `chance_shift` (arcsec).
    """

    index: np.ndarray
    separation: np.ndarray | None = None
    statistics: dict[str, Any] = field(default_factory=dict)


def id_values(series: pl.Series, source: str) -> pl.Series:
    """Ids as int64 or text, null where missing.

    Parameters
    ----------
    series : polars.Series, shape (N,)
        Integers, text, categories, or floats that are whole numbers small enough to hold every digit.
    source : str
        File name, for messages.

    Raises
    ------
    InputError
        If ids are floats that may have lost digits, or neither numbers nor text.

    Examples
    --------
    >>> id_values(pl.Series("objid", [587722981748572353, None]), "a.csv").to_list()
    [587722981748572353, None]
    """
    name, dtype = series.name, series.dtype
    if dtype.is_float():
        check_digits(series, source)
        return series.fill_nan(None).cast(pl.Int64)
    if dtype.is_integer():
        largest = series.max()
        fits = largest is None or (isinstance(largest, int) and largest < 2**63)
        return series.cast(pl.Int64 if fits else pl.String)
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return series.cast(pl.String)
    if dtype == pl.Null:
        return series.cast(pl.Int64)
    raise InputError(f"{source}: column {name} ({dtype}) can't be an id; use integers or text")


def match_ids(
    left: pl.Series,
    right: pl.Series,
    *,
    first: Literal["refuse", "keep"] = "refuse",
    best: Any = None,
    sources: tuple[str, str] = ("left table", "right table"),
) -> Match:
    """Match rows by id.

    Parameters
    ----------
    left : polars.Series, shape (N,)
    right : polars.Series, shape (M,)
        Integers or text. If one is text and the other integers, both are compared as text: 12 is "12", not "012". Rows
        without an id match nothing.
    first : {"refuse", "keep"}
        What to do with ids that repeat on the right: refuse them, or keep the first row of each.
    best : array, shape (M,), optional
        Of rows on the right that share an id, keep the one where this is largest (NaN last, the first of equals).
    sources : tuple of 2 str
        File names, for messages.

    Returns
    -------
    Match

    Raises
    ------
    InputError
        If ids repeat on the right and neither `first="keep"` nor `best` says which row to take, or if ids are floats
        that may have lost digits.

    Examples
    --------
    >>> match_ids(pl.Series([30, 10, 99]), pl.Series(["10", "20", "30"])).index
    array([ 2,  0, -1])
    """
    ids, other = id_values(left, sources[0]), id_values(right, sources[1])
    if ids.dtype != other.dtype:
        ids, other = ids.cast(pl.String), other.cast(pl.String)
    rows = pl.DataFrame({"id": other}).with_row_index("row").drop_nulls("id")
    if best is not None:
        worth = float_array(best, "best")
        if worth.shape != (len(other),):
            raise InputError(f"{sources[1]}: best has {worth.size} values for {len(other)} rows; give one a row")
        rows = rows.with_columns(worth=pl.Series(worth)[rows["row"]].fill_nan(None))
        rows = rows.sort("worth", descending=True, nulls_last=True, maintain_order=True)
    elif first != "keep" and (repeated := rows["id"].is_duplicated()).any():
        named = rows.filter(rows["id"] == rows["id"][int(repeated.arg_true()[0])])
        raise InputError(
            f"{sources[1]}: {repeated.sum()} rows share an id in column {right.name} (first: {named['id'][0]} in rows "
            f"{', '.join(str(row + 1) for row in named['row'][:4])}); keep one row an id"
        )
    single = rows.unique("id", keep="first", maintain_order=True)
    joined = pl.DataFrame({"id": ids}).join(single.select("id", "row"), on="id", how="left", maintain_order="left")
    index = joined["row"].cast(pl.Int64).fill_null(-1).to_numpy().copy()
    statistics = {
        "by": "id",
        **_counts(index, len(other)),
        "left_missing": ids.null_count(),
        "right_missing": other.null_count(),
        "repeated": rows.height - single.height,
    }
    if not (index >= 0).any() and rows.height and ids.null_count() < len(ids):
        statistics["examples"] = [str(ids.drop_nulls()[0]), str(other.drop_nulls()[0])]
    return Match(index, None, statistics)


def match_sky(
    ra: Any,
    dec: Any,
    ra2: Any,
    dec2: Any,
    radius_arcsec: float = 2.0,
    *,
    sources: tuple[str, str] = ("left table", "right table"),
) -> Match:
    """Match rows whose places on the sky are each other's nearest, within a radius.

    Parameters
    ----------
    ra, dec : array, shape (N,)
        Degrees, or quantities of angle: right ascension from 0 to 360 (or -180 to 180), declination from -90 to 90.
        Rows without a place (NaN, masked) match nothing.
    ra2, dec2 : array, shape (M,)
        The same of the right table. Both tables in one frame and epoch: nothing is precessed or moved.
    radius_arcsec : float
        Arcsec, at most one degree.
    sources : tuple of 2 str
        File names, for messages.

    Returns
    -------
    Match
        One to one: a row of the right table serves its nearest row of the left table, and only if it is the nearest of
        that row too. Of places equally far apart the first row is taken.

    Raises
    ------
    InputError
        If a position is outside its range, the radius not between 0 and 3600 arcsec, or the pairs within it too many
        to be meant.

    Notes
    -----
    Matches by chance: the left table is moved by 5 radii to the north, east, south and west and matched again; the mean
    number of matches is what unrelated places among the same neighbours would give. Every row counts as unrelated
    there, so of a table whose rows mostly have a true counterpart far fewer matches are false.

    Examples
    --------
    >>> match = match_sky([10.0, 359.9999], [0.0, 20.0], [0.0001, 200.0], [20.0, 5.0], radius_arcsec=2)
    >>> match.index, match.separation.round(3)
    (array([-1,  0]), array([  nan, 0.677]))
    """
    if not (np.isfinite(radius_arcsec) and 0 < radius_arcsec <= _LARGEST_RADIUS):
        raise InputError(
            f"the radius of a match is in arcsec, above 0 and at most {_LARGEST_RADIUS:g}; got {radius_arcsec}"
        )
    places = _unit_vectors(ra, dec, sources[0])
    others = _unit_vectors(ra2, dec2, sources[1])
    known, known2 = (np.flatnonzero(np.isfinite(vectors[:, 0])) for vectors in (places, others))
    chord = 2 * np.sin(radius_arcsec * _ARCSEC / 2)
    tree = _tree(others[known2])
    many = _tree(places[known]).count_neighbors(tree, chord)
    if many > _MOST_PAIRS:
        raise InputError(
            f"{sources[0]} with {sources[1]}: {many:,d} pairs lie within {radius_arcsec:g} arcsec; take a smaller "
            "radius, and leave positions empty where they are unknown (many rows at one place, say 0 and 0, pair up)"
        )
    pairs = _pairs(places[known], tree, chord)

    index, separation = np.full(len(places), -1, dtype=np.int64), np.full(len(places), np.nan)
    rows, columns, chords = _mutual(pairs)
    index[known[rows]] = known2[columns]
    separation[known[rows]] = 2 * np.arcsin(chords / 2) / _ARCSEC

    candidates = np.bincount(pairs["i"], minlength=known.size)
    shift = _SHIFT * radius_arcsec
    directions = np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS
    moved = (_moved(places[known], shift * _ARCSEC, direction) for direction in directions)
    by_chance = [_mutual(_pairs(vectors, tree, chord))[0].size for vectors in moved]
    matched = separation[index >= 0]
    statistics = {
        "by": "sky",
        "radius": float(radius_arcsec),
        **_counts(index, len(others)),
        "left_missing": len(places) - known.size,
        "right_missing": len(others) - known2.size,
        "ambiguous": int((candidates > 1).sum()),
        "taken": int((candidates > 0).sum()) - rows.size,
        "median_separation": float(np.median(matched)) if matched.size else None,
        "p95_separation": float(np.percentile(matched, 95)) if matched.size else None,
        "by_chance": float(np.mean(by_chance)),
        "chance_shift": float(shift),
    }
    return Match(index, separation, statistics)


def describe(match: Match | Mapping[str, Any], left_name: str = "left table", right_name: str = "right table") -> str:
    """One line on how a match went.

    Parameters
    ----------
    match : Match or mapping
        A match, or its statistics.
    left_name, right_name : str
        What the tables are called.

    Examples
    --------
    >>> describe(match_ids(pl.Series([1, 2]), pl.Series([2, 3, 4])), "votes.csv", "photometry.parquet")
    'votes.csv with photometry.parquet by id: 1 of 2 rows matched, 1 not; 2 rows of photometry.parquet unused'
    """
    numbers = match.statistics if isinstance(match, Match) else match
    on_sky = numbers["by"] == "sky"
    how = f"on the sky within {numbers['radius']:g} arcsec" if on_sky else "by id"
    parts = [f"{left_name} with {right_name} {how}: {numbers['matched']:,d} of {numbers['left']:,d} rows matched"]
    if on_sky and numbers["matched"]:
        parts[0] += f" (median {numbers['median_separation']:.2f}, 95 % below {numbers['p95_separation']:.2f} arcsec)"
    parts[0] += f", {numbers['unmatched']:,d} not"
    noun = "position" if on_sky else "id"
    reasons = [f"{numbers['left_missing']:,d} without {noun}"] if numbers["left_missing"] else []
    if numbers.get("taken"):
        reasons.append(f"{numbers['taken']:,d} whose nearest is nearer to another row")
    if reasons:
        parts[0] += f" ({', '.join(reasons)})"
    if on_sky:
        parts.append(f"{numbers['ambiguous']:,d} with several candidates")
        parts.append(f"{numbers['by_chance']:,.1f} expected if places were unrelated")
    if numbers["right_missing"]:
        parts.append(f"{numbers['right_missing']:,d} rows of {right_name} without {noun}")
    if numbers.get("repeated"):
        parts.append(f"{numbers['repeated']:,d} rows of {right_name} passed over, their id has another row")
    parts.append(f"{numbers['right_unused']:,d} rows of {right_name} unused")
    if "examples" in numbers:
        mine, theirs = numbers["examples"]
        parts.append(f"no id in common, first ids {mine} and {theirs}: are both of the same data release?")
    return "; ".join(parts)


def _counts(index: np.ndarray, right: int) -> dict[str, int]:
    matched = index >= 0
    return {
        "left": int(index.size),
        "right": int(right),
        "matched": int(matched.sum()),
        "unmatched": int((~matched).sum()),
        "right_unused": int(right - np.unique(index[matched]).size),
    }


def _unit_vectors(ra: Any, dec: Any, source: str) -> np.ndarray:
    """Places as vectors of length 1, shape (N, 3), NaN where a coordinate is missing."""
    longitude, latitude = (
        np.atleast_1d(float_array(values, f"{source}: {name}", "deg")) for name, values in (("ra", ra), ("dec", dec))
    )
    if longitude.shape != latitude.shape or longitude.ndim != 1:
        raise InputError(f"{source}: ra has {longitude.size} values, dec {latitude.size}; give one of each a row")
    for name, values, low, high in (("ra", longitude, -180, 360), ("dec", latitude, -90, 90)):
        bad = ~np.isnan(values) & ~((values >= low) & (values <= high))
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"{source}: {name} is in degrees, from {low} to {high}; {bad.sum()} rows are not (first: row "
                f"{row + 1}, {values[row]:g}); mend them, or leave them empty if unknown"
            )
    a, d = np.radians(longitude), np.radians(latitude)
    vectors = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
    vectors[np.isnan(vectors).any(axis=1)] = np.nan
    return vectors


def _tree(vectors: np.ndarray) -> cKDTree:
    # Splits at the middle of the box: half the time to build, and many galaxies in one place don't slow it down.
    return cKDTree(vectors, balanced_tree=False, compact_nodes=False)


def _pairs(vectors: np.ndarray, tree: cKDTree, chord: float) -> np.ndarray:
    """All pairs within the chord: fields i (row of `vectors`), j (row of the tree), v (chord)."""
    if not len(vectors) or not tree.n:
        return np.empty(0, dtype=[("i", np.intp), ("j", np.intp), ("v", np.float64)])
    return _tree(vectors).sparse_distance_matrix(tree, chord, output_type="ndarray")


def _mutual(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that are each other's nearest: left rows, right rows, chords."""
    left, right, chord = pairs["i"], pairs["j"], pairs["v"]

    def nearest(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        order = np.lexsort((other, chord, own))
        starts = np.ones(order.size, dtype=bool)
        starts[1:] = own[order[1:]] != own[order[:-1]]
        is_nearest = np.zeros(order.size, dtype=bool)
        is_nearest[order[starts]] = True
        return is_nearest

    both = nearest(left, right) & nearest(right, left)
    return left[both], right[both], chord[both]


def _moved(vectors: np.ndarray, angle: float, direction: float) -> np.ndarray:
    """Places moved by an angle (radians) towards a position angle (radians, from north to east)."""
    x, y, z = vectors.T
    across = np.hypot(x, y)
    # At the poles themselves any direction is as good as another.
    sine, cosine = np.zeros_like(x), np.ones_like(x)
    np.divide(y, across, out=sine, where=across > 0)
    np.divide(x, across, out=cosine, where=across > 0)
    north = np.stack([-z * cosine, -z * sine, across], axis=1)
    east = np.stack([-sine, cosine, np.zeros_like(x)], axis=1)
    return vectors * np.cos(angle) + (north * np.cos(direction) + east * np.sin(direction)) * np.sin(angle)
