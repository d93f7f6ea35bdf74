"""Ids from tables of any size, and from Python: every digit counts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.errors import InputError, nearest, reason
from truemorph.tables import read_table

# Names that columns of SDSS DR7 ids go by, the surest first.
_NAMES = ("dr7objid", "objid", "object_id")
_NO_ID = ("", "null", "NULL", "NA", "nan", "NaN", "None")
_EXACT = 2.0**53  # from here on floats leave integers out


def read_ids(path: str | os.PathLike[str], column: str | None = None) -> pl.Series:
    """Read a column of 64-bit ids.

    Parameters
    ----------
    path : path
        Any table that `read_table` takes; of a CSV file, packed or not, only this column is held in memory, and lines
        that begin with # are skipped.
    column : str, optional
        Default: dr7objid, objid or object_id, whichever there is, in any case.

    Returns
    -------
    Series of int64
        Named objid; rows without an id are left out.

    Raises
    ------
    InputError
        If the table can't be read, lacks the column, or the column doesn't hold whole numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.name.lower().endswith((".csv", ".csv.gz")):
        try:
            names = pl.read_csv(path, n_rows=0, infer_schema=False, comment_prefix="#").columns
            name = _column(path, names, column)
            overrides = {name: pl.String}
            values = pl.read_csv(path, columns=[name], schema_overrides=overrides, comment_prefix="#")[name]
        except InputError:
            raise
        except Exception as problem:  # broken packing has exceptions of its own
            raise InputError(f"{path}: can't be read as csv: {reason(problem)}") from problem
    else:
        frame = read_table(path).frame
        name = _column(path, frame.columns, column)
        values = frame[name]
    return whole_numbers(values, f"{path}: column {name}", " (another column: --id-column)")


def ids_from(values: Iterable[Any]) -> pl.Series:
    """Take ids as Python has them: a list, a Series of any kind, an array; of numbers, or of their digits as text.

    Returns
    -------
    Series of int64
        Named objid; missing ones are left out.

    Raises
    ------
    InputError
        If they aren't whole numbers, or floats too large to be sure of.

    Examples
    --------
    >>> ids_from(["587722981748572353", None]).to_list()
    [587722981748572353]
    """
    if isinstance(values, pl.Series):
        return whole_numbers(values, "the list")
    listed = list(values.tolist() if hasattr(values, "tolist") else values)
    if any(isinstance(one, float) for one in listed):
        listed = [_exact(one) for one in listed]
    try:
        return whole_numbers(
            pl.Series([None if one is None else str(one) for one in listed], dtype=pl.String), "the list"
        )
    except TypeError as problem:
        raise InputError(f"ids are whole numbers, or their digits as text; got {listed[0]!r}") from problem


def _exact(value: Any) -> Any:
    """A float as the whole number that it is; None where it is missing."""
    if not isinstance(value, float):
        return value
    if value != value:
        return None
    if abs(value) >= _EXACT or value != int(value):
        raise InputError(f"{value!r} is a float, which may have lost digits; give integers, or text")
    return int(value)


def whole_numbers(values: pl.Series, what: str, hint: str = "") -> pl.Series:
    """Integers of a column of numbers or text, without those that are missing.

    Raises
    ------
    InputError
        If one is no 64-bit integer, or a float too large to be sure of.
    """
    if values.dtype.is_float():
        values = values.fill_nan(None).drop_nulls()
        if ((values.abs() >= _EXACT) | (values != values.round())).any():
            raise InputError(f"{what} holds ids as floats, which may have lost digits; write them as integers{hint}")
    if values.dtype == pl.String:
        values = values.str.strip_chars().replace(dict.fromkeys(_NO_ID))
    try:
        return values.drop_nulls().cast(pl.Int64, strict=True).alias("objid")
    except pl.exceptions.PolarsError as problem:
        raise InputError(f"{what} holds something else than whole numbers of 64 bits{hint}") from problem


def _column(path: Path, names: list[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted in names:
            return wanted
        raise InputError(f"{path}: no column {wanted}; {nearest(wanted, names)}")
    for candidate in _NAMES:
        for name in names:
            if name.lower() == candidate:
                return name
    raise InputError(
        f"{path}: no column of ids ({', '.join(_NAMES)}); name it with --id-column; {nearest('objid', names)}"
    )
