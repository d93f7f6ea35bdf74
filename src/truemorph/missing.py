"""Values that stand for "missing" in published tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

# Published tables use these values for "not measured", usually without documenting them.
SENTINELS = (-99.0, -99.9, -99.99, -999.0, -999.9, -999.99, -9999.0, -9999.9, -9999.99, -99999.0)


def without(series: pl.Series, missing: Sequence[float | int | str]) -> pl.Series:
    """Replace values that mean missing by null.

    A number also stands for its single-precision neighbour (-99.99), and for the same number written as text ("-99").

    Examples
    --------
    >>> without(pl.Series([1.5, -99.0]), SENTINELS).to_list()
    [1.5, None]
    """
    name, series = series.name, series.alias("")
    numbers = [number for number in map(_number, missing) if number is not None]
    if series.dtype.is_numeric():
        if series.dtype.is_integer():
            numbers = [int(one) for one in numbers if one == int(one)]
        gone = series.is_in(pl.Series(numbers, dtype=series.dtype, strict=False).to_list())
    elif series.dtype == pl.String:
        gone = series.is_in([str(one) for one in missing])
        gone |= series.str.strip_chars().cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)
    else:
        return series.alias(name)
    return pl.select(pl.when(gone.fill_null(False).not_()).then(series)).to_series().alias(name)


def without_sentinels(series: pl.Series, where: str) -> tuple[pl.Series, list[str]]:
    """Replace -99, -999, -9999 and their like by null, and say how many there were.

    Parameters
    ----------
    series : polars.Series
    where : str
        Table and column, to begin the note with.

    Returns
    -------
    series : polars.Series
    notes : list of str
        One line if any value was replaced.

    Examples
    --------
    >>> without_sentinels(pl.Series("z", [0.1, -9999.0, -9999.0]), "t.csv: column z")[1]
    ['t.csv: column z: -9999 treated as missing in 2 of 3 rows']
    """
    unnamed = series.alias("")  # polars takes some names for patterns
    kept = without(unnamed, SENTINELS)
    gone = kept.is_null() & unnamed.is_not_null()
    if not gone.any():
        return series, []
    values = unnamed.filter(gone).unique().sort().to_list()
    shown = ", ".join(f"{float(one):.6g}" for one in values[:3])
    return kept.alias(series.name), [f"{where}: {shown} treated as missing in {gone.sum():,d} of {len(series):,d} rows"]


def _number(one: float | int | str) -> float | int | None:
    try:
        number = float(one) if isinstance(one, str) else one
    except ValueError:
        return None
    return number if math.isfinite(number) else None
