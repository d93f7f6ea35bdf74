"""Ids from tables of any size: one column is read, digit by digit."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from truemorph.catalogs.schema import nearest
from truemorph.catalogs.tables import read_table
from truemorph.errors import InputError

# Names that columns of SDSS DR7 ids go by, the surest first.
_NAMES = ("dr7objid", "objid", "object_id")


def read_ids(path: Path, column: str | None = None) -> pl.Series:
    """Read a column of 64-bit ids.

    Parameters
    ----------
    path : Path
        Any table that `read_table` takes; of a CSV file, packed or not, only this column is held in memory.
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
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.name.lower().endswith((".csv", ".csv.gz")):
        try:
            names = pl.read_csv(path, n_rows=0, infer_schema=False).columns
            name = _column(path, names, column)
            values = pl.read_csv(path, columns=[name], schema_overrides={name: pl.String})[name]
        except pl.exceptions.PolarsError as problem:
            raise InputError(f"{path}: can't be read as csv: {str(problem).splitlines()[0]}") from problem
    else:
        frame = read_table(path).frame
        name = _column(path, frame.columns, column)
        values = frame[name]
    if values.dtype.is_float():
        raise InputError(
            f"{path}: column {name} holds ids as floats, which may have lost digits; write them as integers"
        )
    if values.dtype == pl.String:
        values = values.str.strip_chars().replace({"": None})
    try:
        return values.drop_nulls().cast(pl.Int64, strict=True).alias("objid")
    except pl.exceptions.PolarsError as problem:
        raise InputError(
            f"{path}: column {name} holds something else than whole numbers; name the column of ids with --id-column"
        ) from problem


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
