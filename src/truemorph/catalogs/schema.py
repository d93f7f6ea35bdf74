"""Names of columns and ids of galaxies: found, checked, and explained where they are not as they should be."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import polars as pl

from truemorph.errors import InputError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".fits", ".fit", ".fits.gz")


def nearest(name: str, existing: Sequence[str], n: int = 3, what: str = "columns") -> str:
    """Phrase the names closest to one, for an error message.

    Examples
    --------
    >>> nearest("petrorad", ["objid", "petroRad_r"])
    'nearest: petroRad_r'
    """
    by_case = {column.lower(): column for column in existing}
    close = difflib.get_close_matches(name.lower(), list(by_case), n=n, cutoff=0.5)
    shown = [by_case[c] for c in close] or list(existing)[:12]
    return f"nearest: {', '.join(shown)}" if close else f"{what} are: {', '.join(shown)}"


def numeric_columns(frame: pl.DataFrame, names: Sequence[str], source: str) -> np.ndarray:
    """Take numeric columns by name, shape (N, P), NaN where missing.

    Raises
    ------
    InputError
        If a column is absent (the nearest names are given) or does not hold numbers.
    """
    for name in names:
        if name not in frame.columns:
            raise InputError(f"{source}: no column {name!r}; {nearest(name, frame.columns)}")
        if not frame[name].dtype.is_numeric():
            raise InputError(f"{source}: column {name!r} holds {frame[name].dtype}, not numbers; choose another")
    return frame.select(pl.col(list(names)).cast(pl.Float64).fill_null(float("nan"))).to_numpy()


def object_ids(series: pl.Series, source: str) -> pl.Series:
    """Return ids as int64 or strings, never as floats that may have lost digits.

    Raises
    ------
    InputError
        If ids are missing, repeated, or floats that can't hold every digit.
    """
    name = series.name
    if series.null_count():
        row = int(series.is_null().arg_true()[0]) + 1
        raise InputError(
            f"{source}: column {name} has {series.null_count()} missing ids (first: row {row}); give every galaxy an id"
        )
    if series.dtype.is_float():
        values = series.to_numpy()
        if (values != values).any():
            row = int((values != values).argmax()) + 1
            raise InputError(f"{source}: column {name} has missing ids (first: row {row}); give every galaxy an id")
        # Above 2^53 (2^24 in single precision) a float can't tell neighbouring integers apart.
        exact = 2**24 if series.dtype == pl.Float32 else 2**53
        bad = (abs(values) >= exact) | (values != values.round())
        if bad.any():
            row = int(bad.argmax()) + 1
            raise InputError(
                f"{source}: column {name} holds ids as floats, and row {row} ({values[row - 1]!r}) may have "
                "lost digits; write ids as integers or text (pandas: read them with dtype='int64' or str)"
            )
        series = series.cast(pl.Int64)
    elif series.dtype.is_integer():
        largest, smallest = series.max(), series.min()
        fits = isinstance(largest, int) and isinstance(smallest, int) and smallest >= -(2**63) and largest < 2**63
        series = series.cast(pl.Int64) if fits else series.cast(pl.String)
    elif series.dtype != pl.String:
        raise InputError(f"{source}: column {name} ({series.dtype}) can't be an id; use integers or text")
    repeated = series.is_duplicated()
    if repeated.any():
        rows = repeated.arg_true().to_list()
        first = series[rows[0]]
        twins = [row + 1 for row in rows if series[row] == first]
        raise InputError(
            f"{source}: {len(rows)} rows share an id in column {name} (first: {first} in rows "
            f"{', '.join(map(str, twins[:4]))}); keep one row a galaxy"
        )
    return series.alias("object_id")
