"""Tables in memory: polars, pandas, pyarrow and astropy objects in, one kind of table out; to astropy and back.

Inside, a table is a polars frame with units and descriptions of its columns.
"""

from __future__ import annotations

import base64
import json
import re
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from polars.exceptions import PanicException, PolarsError

from truemorph.errors import InputError

_UNIT, _DESCRIPTION, _NOTE = b"unit", b"description", b"truemorph"
_FITS_KEY = "TRUEMRPH"  # eight characters at most
_CODED = "truemorph metadata, JSON in base64: "


@dataclass(frozen=True)
class CatalogTable:
    """A table with what travels along.

    Attributes
    ----------
    frame : polars.DataFrame
    units : dict
        Column → unit as astropy writes it; absent where none is known.
    metadata : dict
        truemorph's own, plain data.
    path : Path, optional
        The file it was read from.
    descriptions : dict
        Column → what it holds; absent where nothing is known.
    """

    frame: pl.DataFrame
    units: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    descriptions: dict[str, str] = field(default_factory=dict)


def kind_of(source: Any) -> str:
    """What to call a table in memory in messages, such as "pandas DataFrame"."""
    return f"{type(source).__module__.partition('.')[0]} {type(source).__name__}"


def from_object(source: Any) -> CatalogTable:
    """Take a table in memory.

    Parameters
    ----------
    source : polars DataFrame or LazyFrame, pandas DataFrame, pyarrow Table, astropy Table or QTable
        Or a `CatalogTable`, or anything else that hands out Arrow data (`__arrow_c_stream__`). Of pandas, an index with
        a name becomes a column, one without is dropped; NaN is missing. Of astropy, masked values are missing, and
        units and descriptions are kept. Arrow fields may hold b"unit" and b"description" in their metadata.

    Raises
    ------
    InputError
        If it is no table, or a column holds what a table can't.

    Examples
    --------
    >>> from_object(pa.table({"objid": [587722981748572353]})).frame["objid"][0]
    587722981748572353
    """
    what = kind_of(source)
    if isinstance(source, CatalogTable):
        return replace(source, frame=plain_frame(source.frame))
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        return CatalogTable(plain_frame(source))
    if (
        hasattr(source, "colnames")
        and hasattr(source, "columns")
        and hasattr(source, "meta")
        and not what.endswith(" Row")
    ):
        return from_astropy(source, what)
    try:
        if what.startswith("pandas") and hasattr(source, "columns"):
            named = [name for name in source.index.names if name is not None]
            if named:
                source = source.reset_index(named)
            source = pa.Table.from_pandas(source, preserve_index=False).replace_schema_metadata()
        elif not isinstance(source, pa.Table) and hasattr(source, "__arrow_c_stream__"):
            source = pa.table(source)
        if isinstance(source, pa.Table):
            return from_arrow(source)
    except (pa.ArrowException, ValueError, TypeError) as problem:
        raise InputError(f"{what}: can't be taken as a table: {str(problem).splitlines()[0]}") from problem
    raise InputError(
        f"{what}: not a table; give a path, or a polars, pandas, pyarrow or astropy table (one HDU or array at a time)"
    )


def plain_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame of kinds that every format holds.

    Ids and classes are compared as text, however that is stored; and integers beyond 64 bits, which CSV files read as,
    are text too.
    """
    coded = [name for name, kind in frame.schema.items() if kind in (pl.Categorical, pl.Enum)]
    frame = frame.with_columns(pl.col(coded).cast(pl.String)) if coded else frame
    wide = [name for name, kind in frame.schema.items() if kind in (pl.Int128, pl.UInt128)]
    return frame.with_columns(_narrow(frame[name]) for name in wide) if wide else frame


def _narrow(series: pl.Series) -> pl.Series:
    for kind in (pl.Int64, pl.UInt64):
        held = series.cast(kind, strict=False)
        if held.null_count() == series.null_count():
            return held
    return series.cast(pl.String)


def from_arrow(table: pa.Table, path: Path | None = None) -> CatalogTable:
    """Take an Arrow table, with the units and descriptions that its fields hold."""
    note = (table.schema.metadata or {}).get(_NOTE)
    try:
        metadata = json.loads(note) if note else {}
    except ValueError:
        metadata = {}
    if not isinstance(metadata, dict):
        metadata = {}
    # Before descriptions, units lay in the note.
    units, descriptions = dict(metadata.pop("units", None) or {}), {}
    for one in table.schema:
        held = one.metadata or {}
        if held.get(_UNIT):
            units[one.name] = held[_UNIT].decode("utf-8", "replace")
        if held.get(_DESCRIPTION):
            descriptions[one.name] = held[_DESCRIPTION].decode("utf-8", "replace")
    twice = [name for name in table.column_names if table.column_names.count(name) > 1]
    if twice:
        raise InputError(f"{path or 'pyarrow Table'}: two columns are called {twice[0]!r}; rename one")
    try:
        frame = pl.from_arrow(table)
    except (PolarsError, PanicException) as problem:
        raise InputError(f"{path or 'pyarrow Table'}: can't be taken as a table: {_one_line(problem)}") from problem
    assert isinstance(frame, pl.DataFrame)
    return CatalogTable(plain_frame(frame), units, metadata, path, descriptions)


def _one_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]


def to_arrow(table: CatalogTable) -> pa.Table:
    """Give an Arrow table whose fields hold b"unit" and b"description", and whose schema holds the metadata."""
    arrow = table.frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    fields = []
    for one in arrow.schema:
        held = {_UNIT: table.units.get(one.name), _DESCRIPTION: table.descriptions.get(one.name)}
        known = {key: value for key, value in held.items() if value}
        fields.append(one.with_metadata(known) if known else one)
    note = {**(arrow.schema.metadata or {}), _NOTE: json.dumps(table.metadata).encode()}
    return pa.Table.from_arrays(arrow.columns, schema=pa.schema(fields, metadata=note))


def from_astropy(table: Any, source: str, path: Path | None = None) -> CatalogTable:
    """Take an astropy Table or QTable.

    Parameters
    ----------
    table : astropy.table.Table
    source : str
        What to call it in messages.
    path : Path, optional

    Raises
    ------
    InputError
        If a column holds arrays, or objects that are no plain values (times, coordinates).
    """
    columns, units, descriptions = {}, {}, {}
    for name in table.colnames:
        column = table[name]
        if getattr(column, "ndim", 1) > 1:
            raise InputError(
                f"{source}: column {name} holds an array of shape {column.shape[1:]} in each row; "
                "write it as one column a value, or leave it out"
            )
        kind = getattr(getattr(column, "dtype", None), "kind", "none")
        if kind not in "biufSUMO" or (kind == "O" and not _is_plain(column)):
            shown = getattr(column, "dtype", type(column).__name__)
            raise InputError(f"{source}: column {name} ({shown}) is not of plain values; leave it out")
        columns[name] = _series(name, column)
        if column.unit is not None and str(column.unit):
            units[name] = str(column.unit)
        if column.info.description:
            # VOTable files wrap it.
            descriptions[name] = " ".join(str(column.info.description).split())
    note = table.meta.get(_FITS_KEY) or table.meta.get("description") or ""
    metadata = {}
    if isinstance(note, str) and note.startswith(_CODED):
        # Descriptions come back wrapped anywhere: white space is not part of base64.
        metadata = json.loads(base64.b64decode(re.sub(r"\s+", "", note.removeprefix(_CODED))))
    return CatalogTable(plain_frame(pl.DataFrame(columns)), units, metadata, path, descriptions)


def _is_plain(column: Any) -> bool:
    """Whether objects are all text, all numbers, or all yes and no, where there are any."""
    kinds = {type(one) for one in np.ma.asarray(column).tolist() if one is not None}
    return kinds <= {str} or kinds <= {bool} or kinds <= {int, float}


def _series(name: str, column: Any) -> pl.Series:
    missing = None
    if hasattr(column, "unmasked"):  # a masked quantity
        missing, column = np.asarray(column.mask), column.unmasked
    elif hasattr(column, "mask"):
        missing = np.ma.getmaskarray(np.ma.asarray(column))
    values = np.asarray(column)
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    values = values.astype(values.dtype.newbyteorder("="))
    series = pl.Series(name, values.tolist() if values.dtype.kind in "UO" else values)
    if missing is not None and missing.any():
        series = pl.select(pl.when(pl.Series(~missing)).then(series).alias(name)).to_series()
    # FITS and VOTable have no null text but the empty one.
    return series.replace({"": None}) if series.dtype == pl.String else series


def to_astropy(table: CatalogTable, format_name: str) -> Any:
    """Give an astropy Table, as a format can hold it.

    Raises
    ------
    InputError
        If a column can't be held.
    """
    from astropy.table import MaskedColumn, Table
    from astropy.units import UnitsWarning

    out = Table()
    for name in table.frame.columns:
        series = table.frame[name]
        missing = series.is_null().to_numpy()
        if series.dtype == pl.String:
            data = np.array(series.fill_null("").to_list(), dtype=str)
        elif series.dtype == pl.Boolean:
            data = series.fill_null(False).to_numpy()
            if missing.any() and format_name == "fits":
                data = data.astype(np.int16)  # FITS logicals have no null
        elif not series.dtype.is_numeric():
            raise InputError(f"column {name} ({series.dtype}) can't be written as {format_name}; cast or drop it")
        else:
            data = series.fill_null(0).to_numpy()
        out[name] = MaskedColumn(data, mask=missing) if missing.any() else data
        if name in table.units:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnitsWarning)  # what astropy doesn't know is kept as text
                out[name].unit = table.units[name]
        if name in table.descriptions:
            about = table.descriptions[name]
            out[name].description = about.encode("ascii", "replace").decode() if format_name == "fits" else about
    # A VOTable keeps nothing but its description, FITS and ECSV keep keywords.
    note = _CODED + base64.b64encode(json.dumps(table.metadata).encode()).decode()
    out.meta["description" if format_name == "votable" else _FITS_KEY] = note
    return out
