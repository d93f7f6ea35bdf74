"""Objects and where they are, and what their files are called."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import polars as pl

from truemorph.catalogs.units import conversion
from truemorph.errors import InputError, nearest
from truemorph.tables import read_table

_ID_NAMES = ("object_id", "objid", "dr7objid")
_LONGEST = 100  # characters of an id in a file's name
_HASHED = re.compile(r".*-[0-9a-f]{10}")


def read_positions(source: Any) -> pl.DataFrame:
    """Read object_id (text), ra and dec (degrees) of a table.

    Parameters
    ----------
    source : path or table
        As for `read_table`: object_id (or objid, dr7objid), ra and dec in the unit that the table states, or degrees.

    Raises
    ------
    InputError
        If a column is lacking, an id isn't one or is there twice, or a position isn't one.
    """
    table = read_table(source)
    frame, what = table.frame, str(table.path or "positions")
    by_case = {name.lower(): name for name in frame.columns}
    name = next((by_case[one] for one in _ID_NAMES if one in by_case), None)
    if name is None:
        raise InputError(f"{what}: no column object_id; {nearest('object_id', frame.columns)}")
    degrees = {}
    for one in ("ra", "dec"):
        if one not in by_case:
            raise InputError(f"{what}: no column {one} (degrees); {nearest(one, frame.columns)}")
        own = by_case[one]
        if not frame[own].dtype.is_numeric():
            raise InputError(f"{what}: column {own} holds no numbers; give degrees")
        unit = table.units.get(own) or "deg"
        converted = conversion(unit, ("deg",))
        if converted is None:
            raise InputError(f"{what}: column {own} is in {unit}, which is no angle; give degrees")
        degrees[one] = pl.col(own).cast(pl.Float64) * converted[0]
    if frame[name].dtype.is_float():
        raise InputError(
            f"{what}: column {name} holds ids as floats, which may have lost digits; write them as integers"
        )
    chosen = frame.select(object_id=pl.col(name).cast(pl.String), **degrees)
    bad = chosen.filter(
        ~(pl.col("ra").is_between(0, 360) & pl.col("dec").is_between(-90, 90)).fill_null(False)
        | (pl.col("object_id").fill_null("").str.strip_chars() == "")
    )
    if bad.height:
        raise InputError(f"{what}: {bad.row(0)} is no object at a position in degrees ({bad.height} such rows)")
    again = chosen.filter(pl.col("object_id").is_duplicated())
    if again.height:
        raise InputError(f"{what}: object {again['object_id'][0]} is there more than once; give one row an object")
    return chosen


def file_stems(ids: Iterable[str]) -> dict[str, str]:
    """What the files of objects are called: the id; with ten digits of its SHA-256 where that can't be, or not alone.

    Parameters
    ----------
    ids : iterable of str
        All that may have a file in the folder.

    Examples
    --------
    >>> file_stems(["587722981748572353", "NGC 1/2", "M31", "m31"])  # doctest: +NORMALIZE_WHITESPACE
    {'587722981748572353': '587722981748572353', 'NGC 1/2': 'NGC_1_2-c2d3a36fe5', 'M31': 'M31-10319d3389',
     'm31': 'm31-6a7ae7d444'}
    """
    listed = list(dict.fromkeys(ids))
    # File systems that don't tell capitals from small letters, and unpackers of other systems, meet these names too.
    often = Counter(one.casefold() for one in listed)
    stems = {}
    for one in listed:
        clean = re.sub(r"^[^A-Za-z0-9_+]|[^A-Za-z0-9._+-]", "_", one)[:_LONGEST]
        # One that looks like it has such digits might be another's.
        if clean != one or often[one.casefold()] > 1 or _HASHED.fullmatch(one):
            clean += "-" + hashlib.sha256(one.encode()).hexdigest()[:10]
        stems[one] = clean
    return stems
