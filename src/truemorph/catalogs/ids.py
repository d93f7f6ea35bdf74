"""Object ids: 64-bit integers or text, never floats that may have lost digits."""

from __future__ import annotations

import numpy as np
import polars as pl

from truemorph.errors import InputError


def object_ids(series: pl.Series, table_name: str, rows: np.ndarray | None = None) -> pl.Series:
    """Check that ids are complete and unique, and return them as int64 or text.

    Parameters
    ----------
    series : polars.Series, shape (N,)
    table_name : str
        What to call the table in messages.
    rows : array of int, shape (N,), optional
        Row numbers in the table (from 0), where the ids are a selection of it.

    Raises
    ------
    InputError
        If ids are missing or repeated, or are floats that can't hold every digit.

    Examples
    --------
    >>> object_ids(pl.Series("objid", [587722981748572353, 587722981748572354]), "votes.csv").dtype
    Int64
    """
    name, number = series.name, np.arange(1, len(series) + 1) if rows is None else rows + 1
    absent = series.is_null()
    if series.dtype.is_float():
        absent |= series.is_nan().fill_null(False)
    if series.dtype == pl.String:
        absent |= (series.str.strip_chars() == "").fill_null(False)
    if absent.any():
        row = number[int(absent.arg_true()[0])]
        raise InputError(
            f"{table_name}: column {name}: no id in {absent.sum():,d} of {len(series):,d} rows (first: row {row}); "
            "give every galaxy an id"
        )
    if series.dtype.is_float():
        check_digits(series, table_name, rows)
    elif not series.dtype.is_integer() and series.dtype != pl.String:
        raise InputError(f"{table_name}: column {name} ({series.dtype}) can't be an id; use integers or text")
    series = as_ids(series)
    repeated = series.is_duplicated()
    if repeated.any():
        twice = repeated.arg_true().to_list()
        first = series[twice[0]]
        twins = [str(number[row]) for row in twice if series[row] == first]
        raise InputError(
            f"{table_name}: {len(twice)} rows share an id in column {name} (first: {first} in rows "
            f"{', '.join(twins[:4])}); keep one row per galaxy"
        )
    return series


def check_digits(series: pl.Series, table_name: str, rows: np.ndarray | None = None) -> None:
    """Refuse float ids that may have lost digits; missing ids are allowed.

    Raises
    ------
    InputError
    """
    # Above 2^53 (2^24 in single precision) a float can't tell neighbouring integers apart.
    exact = 2**24 if series.dtype == pl.Float32 else 2**53
    bad = ((series.abs() >= exact) | (series != series.round())) & series.is_not_nan()
    if bad.any():
        first = int(bad.arg_true()[0])
        row = first if rows is None else rows[first]
        raise InputError(
            f"{table_name}: column {series.name} holds ids as floats, and row {row + 1} ({series[first]!r}) may have "
            "lost digits; write ids as integers or text (pandas: read them with dtype='int64' or str)"
        )


def as_ids(series: pl.Series) -> pl.Series:
    """Return ids as int64 where all fit, else as text; unchecked."""
    if series.dtype != pl.String:
        whole = series.cast(pl.Int64, strict=False)
        same = whole.null_count() == series.null_count() and (whole == series).fill_null(True).all()
        series = whole if same else series.cast(pl.String, strict=False)
    return series.alias("object_id")
