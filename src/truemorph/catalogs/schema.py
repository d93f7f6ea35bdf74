"""Numeric columns by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from truemorph.errors import InputError, nearest


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
