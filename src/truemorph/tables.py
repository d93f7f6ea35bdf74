"""Read and write astronomical tables: CSV, Parquet, FITS, ECSV and VOTable files, and tables in memory.

Inside truemorph, a table is a polars frame with units and descriptions; `truemorph.table_formats` has the formats.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PanicException, PolarsError

from truemorph.errors import InputError, nearest, reason
from truemorph.findings import Finding, Findings
from truemorph.io import PathLike, written_whole
from truemorph.table_formats import (
    ASTROPY,
    METADATA,
    metadata_text,
    quiet,
    read_csv,
    read_metadata,
    voparquet,
    write_csv,
)

# Published tables use these values for "not measured", usually without documenting them.
SENTINELS = (-99.0, -99.9, -99.99, -999.0, -999.9, -999.99, -9999.0, -9999.9, -9999.99, -99999.0)

_EXTENSIONS = (".csv", ".csv.gz", ".tsv", ".parquet", *ASTROPY)


@dataclass(frozen=True)
class CatalogTable:
    """A table with units (astropy's notation), descriptions, truemorph's metadata, and the file it was read from."""

    frame: pl.DataFrame
    units: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    descriptions: dict[str, str] = field(default_factory=dict)
    findings: Findings = ()

    @property
    def source(self) -> str:
        """What messages call it: its file, or "catalogue"."""
        return str(self.path or "catalogue")


def read_table(source: Any) -> CatalogTable:
    r"""Read a table from a file or from memory.

    Parameters
    ----------
    source : path, or a table in memory
        The extension of a file gives its format: `.csv`, `.csv.gz`, `.tsv`, `.parquet`, `.fits`, `.fit`, `.fits.gz`,
        `.ecsv`, `.vot`, `.vot.gz`, `.votable` or `.xml`. In memory: a polars DataFrame or LazyFrame, a pandas
        DataFrame, a pyarrow Table, an astropy Table or QTable, a `CatalogTable`, or any object with
        `__arrow_c_stream__`. A named index of a pandas DataFrame becomes a column; another index is dropped.

    Returns
    -------
    CatalogTable
        Missing values (null, masked, undefined, pandas' NaN, empty text) are null. Integers are exact, including
        19-digit ids; in text files, 007 and 12e4 are text. Categories become text; decimals become integers or floats.
        Units and descriptions are read from FITS, ECSV, VOTable and astropy columns, or b"unit" and b"description" in
        the metadata of an Arrow or Parquet field.

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged, without rows or of an unknown format, if the object is not a table,
        or if a column cannot be represented (an array in each row of a FITS table, times, coordinates) or named.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "votes.csv"
    >>> _ = path.write_text("objid,smooth\n587722981748572353,0.9\n")
    >>> read_table(path).frame["objid"][0]
    587722981748572353
    """
    name = name_of(source)
    result = _from_file(Path(source)) if isinstance(source, str | os.PathLike) else _from_object(source)
    if result.frame.height == 0:
        raise InputError(f"{name}: the table has no rows")
    check_names(result.frame.columns, name)
    return result


def check_names(columns: Iterable[str], source: str) -> None:
    """Refuse names of columns that polars takes for patterns, and names with a null character, at which it fails."""
    for name in columns:
        if "\0" in name or name == "*" or (name.startswith("^") and name.endswith("$")):
            why = "a name can't be *, contain a null character, or begin with ^ and end with $"
            raise InputError(f"{source}: column {name!r}: {why}; rename it")


def read_columns(path: Path, columns: Mapping[str, Any], *, nulls: bool = False) -> pl.DataFrame:
    """Read columns of a table that truemorph wrote, as these types (None: any); an InputError if one does not fit."""
    kinds = pl.Schema({name: kind for name, kind in columns.items() if kind is not None})
    try:
        # polars itself panics at some damaged Parquet files
        frame = _from_file(path).frame.drop(cs.temporal()).select(*columns).cast(kinds)
        if any(kind != frame.schema[name] for name, kind in kinds.items()):  # casts of nested types
            raise pl.exceptions.SchemaError("values are nested")
        if not nulls and any(frame.null_count().row(0)):
            raise pl.exceptions.SchemaError("values are missing")
    except PolarsError as problem:
        why = f"a column is missing or has the wrong type ({reason(problem)})"
        raise InputError(f"{path}: {why}; restore a copy") from problem
    return frame


def frame_hash(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of the plain columns of a table and their names, in hexadecimal."""
    return hashlib.sha256(frame.select(~(cs.nested() | cs.binary())).write_csv().encode()).hexdigest()


def write_table(table: Any, path: PathLike, pieces: Iterable[pl.DataFrame] | None = None) -> Path:
    """Write a table atomically, in the format given by the extension.

    Parameters
    ----------
    table : CatalogTable, or another table in memory
    path : path
        Extension as in `read_table`. Metadata, units and descriptions are kept in Parquet, ECSV, FITS and VOTable, but
        not in CSV. There, an apostrophe marks text that begins with = or @, which spreadsheets would run. Metadata are
        a JSON text: `truemorph` in Parquet, a PARAM of that name in VOTable, TRUEMRPH in FITS; in ECSV they are a
        mapping, `truemorph`. Descriptions of FITS columns are in TCOMM.

    pieces : iterable of polars.DataFrame, optional
        Rows, in place of those of `table`; CSV is written piece by piece, to save memory.

    Returns
    -------
    Path
        Output file.

    Raises
    ------
    InputError
        If the extension is unknown, or the format does not support the table.

    Examples
    --------
    >>> import tempfile
    >>> path = write_table(CatalogTable(pl.DataFrame({"r": [3.5]}), {"r": "arcsec"}), tempfile.mkdtemp() + "/r.parquet")
    >>> read_table(path).units
    {'r': 'arcsec'}
    """
    path, table = Path(path), table if isinstance(table, CatalogTable) else _from_object(table)
    extension = table_extension(path)
    if pieces is not None and extension in (".parquet", *ASTROPY):
        table = replace(table, frame=pl.concat(pieces))
    with written_whole(path) as partial:
        try:
            if extension == ".parquet":
                pq.write_table(to_arrow(table), partial)
            elif extension in ASTROPY:
                with quiet():
                    ASTROPY[extension][1](_astropy_table(table), partial)
            else:
                frames = [table.frame] if pieces is None else pieces
                write_csv(frames, partial, "\t" if extension == ".tsv" else ",", zipped=extension == ".csv.gz")
        except InputError as problem:
            raise InputError(f"{path}: {problem}") from problem
        except (PolarsError, pa.ArrowException, UnicodeError, TypeError, ValueError, RecursionError) as problem:
            raise InputError(f"{path}: this table can't be written as {extension[1:]}: {reason(problem)}") from problem
    return path


def write_problems(problems: Sequence[tuple[str, str]], path: Path) -> None:
    """Write a table of galaxies that were left out: an id and a reason each."""
    columns = {"object_id": pl.String, "reason": pl.String}
    write_table(pl.DataFrame(problems, columns, orient="row"), path)


def table_extension(path: Path) -> str:
    """Return the extension that determines a table's format, such as ".csv.gz"; in lower case."""
    name = path.name.lower()
    for extension in _EXTENSIONS:
        if name.endswith(extension):
            return extension
    raise InputError(
        f"{path}: unknown kind of table; save it as .csv (also from a spreadsheet), or as {' '.join(_EXTENSIONS[1:])}"
    )


def check_holds_metadata(path: Path) -> None:
    """Refuse CSV for a catalogue."""
    if table_extension(path) in (".csv", ".csv.gz", ".tsv"):
        raise InputError(f"{path}: a catalogue needs metadata, which {path.suffix} does not support; use .parquet")


def usual_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column that has the first of several usual names, ignoring case; None if there is none."""
    by_case = {column.lower(): column for column in reversed(columns)}
    return next((by_case[name.lower()] for name in names if name.lower() in by_case), None)


def first_column(usual: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the first of several usual names that a table has; None if there is none."""
    return next((name for name in usual if name in columns), None)


def left_join(frame: pl.DataFrame, other: pl.DataFrame, on: str | Sequence[str] = "object_id") -> pl.DataFrame:
    """Return a table, in its order, with the columns of another one; null where that has no such row."""
    return frame.join(other, on=on, how="left", maintain_order="left")


def frame_of_rows(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return rows as a table, in which columns without any value are of numbers."""
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(pl.Null).cast(pl.Float64))


def numeric_columns(frame: pl.DataFrame, names: Sequence[str], source: str) -> np.ndarray:
    """Return named numeric columns as float64, shape (N, P); NaN if missing.

    -99, -999, -9999 and similar values count as missing (see `missing_in`). `source` names the table in messages.
    """
    for name in names:
        if name not in frame.schema:
            raise InputError(f"{source}: no column {name!r}; {nearest(name, frame.columns)}")
        if not frame.schema[name].is_numeric():
            raise InputError(f"{source}: column {name!r} holds {frame.schema[name]}, not numbers; choose another")
    clean_frame, _ = cleaned(frame, names, source)
    columns = [np.asarray(clean_frame[name], float) for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((frame.height, 0))


def missing_in(frame: pl.DataFrame, names: Iterable[str], source: str) -> list[Finding]:
    """Say where numbers such as -999 count as missing in columns that are used; a command lists these findings."""
    return cleaned(frame, [name for name in dict.fromkeys(names) if name in frame.columns], source)[1]


def without(series: pl.Series, missing: Sequence[float | int | str]) -> pl.Series:
    """Replace values that mean missing by null; numbers also match in single precision (-99.99), and as text."""
    texts = pl.Series([str(mark) for mark in missing], dtype=pl.String)
    numbers = texts.cast(pl.Float64, strict=False).drop_nulls().to_list()
    if series.dtype.is_numeric():
        if series.dtype.is_integer():
            numbers = [int(number) for number in numbers if number.is_integer()]
        gone = series.is_in(pl.Series(numbers, dtype=series.dtype, strict=False).to_list())
    elif series.dtype == pl.String:
        gone = series.is_in(texts.to_list())
        gone |= series.str.strip_chars().cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)
    else:
        return series
    return series.set(gone.fill_null(False), None)


def cleaned(
    frame: pl.DataFrame,
    columns: Iterable[str],
    source: str,
    missing: Sequence[float | int | str] = (),
    sentinels: Sequence[float] = SENTINELS,
) -> tuple[pl.DataFrame, list[Finding]]:
    """Replace values that mean missing by null in these columns; return findings, one per column.

    `missing` are known to mean missing, without a finding; `sentinels`, such as -9999, most likely mean missing.
    """
    findings = []
    for name in columns:
        column = without(frame[name], missing)
        kept = without(column, sentinels)
        gone = kept.is_null() & column.is_not_null()
        if gone.any():
            values = column.filter(gone).unique().sort().to_list()
            shown = ", ".join(f"{float(value):.6g}" for value in values[:3])
            rows = f"{gone.sum():,d} of {len(gone):,d} rows"
            message = f"{source}: column {name}: {shown} was treated as missing in {rows}."
            findings.append(Finding("values-treated-as-missing", "note", message))
        frame = frame.with_columns(kept.alias(name))
    return frame, findings


def to_arrow(table: CatalogTable) -> pa.Table:
    """Convert to Arrow: fields have b"unit" and b"description", the schema has the metadata.

    Other programs read units and descriptions from other places in a Parquet file, so the schema has them twice more:
    as VOParquet (IVOA note of 2025-01-16) for TOPCAT, except for tables with lists, dates or structs; and for astropy.
    """
    arrow = table.frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    kinds = {"unit": table.units, "description": table.descriptions}
    texts = {name: {key: held[name] for key, held in kinds.items() if held.get(name)} for name in arrow.column_names}
    fields = [field.with_metadata(texts[field.name]) for field in arrow.schema]
    yaml = json.dumps({"datatype": [{"name": name, **text} for name, text in texts.items()]})  # JSON is also YAML
    texts_of_vo = voparquet(_plain_frame(table.frame.clear()).schema, table.units, table.descriptions, table.metadata)
    metadata = {METADATA: metadata_text(table.metadata), "table_meta_yaml": yaml, **texts_of_vo}
    return pa.Table.from_arrays(arrow.columns, schema=pa.schema(fields, metadata=metadata))


def arrow_texts(schema: pa.Schema) -> tuple[dict[str, str], dict[str, str]]:
    """Return units and descriptions of an Arrow schema, by column; those of tables that astropy wrote too."""
    units, descriptions = (
        {
            field.name: field.metadata[key].decode("utf-8", "replace")
            for field in schema
            if (field.metadata or {}).get(key)
        }
        for key in (b"unit", b"description")
    )
    header = (schema.metadata or {}).get(b"table_meta_yaml")
    if header and not units and not descriptions:
        from astropy.table.meta import get_header_from_yaml

        try:
            columns = get_header_from_yaml(header.decode().splitlines())["datatype"]
            units, descriptions = (
                {column["name"]: str(column[key]) for column in columns if column.get(key)}
                for key in ("unit", "description")
            )
        except Exception as problem:  # its parser raises many types
            raise InputError(f"the units of the table (table_meta_yaml) can't be read: {reason(problem)}") from problem
    return units, descriptions


def name_of(source: Any) -> str:
    """Return what messages call a table: its file or, in memory, its type, such as "polars DataFrame"."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    return f"{type(source).__module__.partition('.')[0]} {type(source).__name__}"


def _from_file(path: Path) -> CatalogTable:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    extension = table_extension(path)
    try:
        if extension == ".parquet":
            return _from_arrow(pq.ParquetFile(path).read(), str(path), path)
        if extension in ASTROPY:
            with quiet():
                table = ASTROPY[extension][0](path)
            return _from_astropy(table, str(path), path)
        frame = read_csv(path, "\t" if extension == ".tsv" else ",")
        # In one chunk, because otherwise each writer copies it.
        return CatalogTable(_plain_frame(frame).rechunk(), path=path)
    except InputError:
        raise
    except EOFError as problem:
        raise InputError(f"{path}: the file seems truncated; fetch or copy it again") from problem
    except Exception as problem:  # readers raise many types for broken files
        raise InputError(f"{path}: can't be read as {extension[1:]}: {reason(problem)}") from problem


def _from_object(source: Any) -> CatalogTable:
    what = name_of(source)
    if isinstance(source, CatalogTable):
        return replace(source, frame=_plain_frame(source.frame))
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        return CatalogTable(_plain_frame(source))
    if hasattr(source, "colnames") and hasattr(source, "itercols"):
        return _from_astropy(source, what)
    try:
        if what.startswith("pandas") and hasattr(source, "columns"):
            named = [name for name in source.index.names if name is not None]
            source = pa.Table.from_pandas(source.reset_index(named) if named else source, preserve_index=False)
        elif hasattr(source, "__arrow_c_stream__"):
            source = pa.table(source)
        if isinstance(source, pa.Table):
            return _from_arrow(source, what)
    except (pa.ArrowException, ValueError, TypeError) as problem:
        raise InputError(f"{what}: can't be used as a table: {reason(problem)}") from problem
    raise InputError(
        f"{what}: not a table; give a path, or a polars, pandas, pyarrow or astropy table (one HDU or array at a time)"
    )


def _plain_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Convert categories to text, decimals to floats, and integers to 64 bits if they fit."""
    whole = [
        _narrow(frame[name])
        for name, kind in frame.schema.items()
        if kind in (pl.Int128, pl.UInt128) or (isinstance(kind, pl.Decimal) and kind.scale == 0)
    ]
    text = pl.col(pl.Categorical, pl.Enum).cast(pl.String)
    return frame.with_columns(text, *whole).with_columns(cs.decimal().cast(pl.Float64))


def _narrow(series: pl.Series) -> pl.Series:
    for kind in (pl.Int64, pl.UInt64):
        held = series.cast(kind, strict=False)
        if held.null_count() == series.null_count():
            return held
    return series.cast(pl.String)


def _from_arrow(table: pa.Table, source: str, path: Path | None = None) -> CatalogTable:
    held = {key.decode("utf-8", "replace"): value for key, value in (table.schema.metadata or {}).items()}
    metadata = read_metadata(held, source)
    units, descriptions = arrow_texts(table.schema)
    try:
        # Metadata of other programs, such as pandas, are not needed.
        frame = pl.DataFrame(table.replace_schema_metadata())
    except (PolarsError, PanicException) as problem:
        raise InputError(f"{source}: can't be used as a table: {reason(problem)}") from problem
    return CatalogTable(_plain_frame(frame), units, metadata, path, descriptions)


def _from_astropy(table: Any, source: str, path: Path | None = None) -> CatalogTable:
    columns, units, descriptions = {}, {}, {}
    for number, name in enumerate(table.colnames, 1):
        column = table[name]
        try:
            columns[name] = _arrow_array(column)
        except (pa.ArrowException, TypeError, ValueError) as problem:
            raise InputError(
                f"{source}: column {name} ({type(column).__name__}) does not have one number or text per row; "
                f"split or remove it ({reason(problem)})"
            ) from problem
        if column.unit is not None and str(column.unit):
            units[name] = str(column.unit)
        description = column.info.description or table.meta.get(f"TCOMM{number}")  # FITS
        if description:
            descriptions[name] = " ".join(str(description).split())  # VOTable files wrap lines
    frame = pl.DataFrame(pa.table(columns))
    # In FITS and VOTable, missing text is empty text.
    frame = frame.with_columns(pl.col(pl.String).replace({"": None}))
    return CatalogTable(_plain_frame(frame), units, read_metadata(table.meta, source), path, descriptions)


def _arrow_array(column: Any) -> pa.Array:
    """Convert an astropy column or quantity to Arrow; masked values become null."""
    values = np.asarray(getattr(column, "unmasked", column))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    elif values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(float)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return pa.array(values, mask=np.asarray(column.mask) if hasattr(column, "mask") else None, from_pandas=False)


def to_astropy(table: Any) -> Any:
    """Return a table in memory as an astropy QTable with units and descriptions; missing values are masked."""
    from astropy.table import QTable

    return QTable(_astropy_table(_from_object(table)))


def _astropy_table(table: CatalogTable) -> Any:
    """Return an astropy Table, in which integers with a unit remain integers."""
    from astropy.table import Column, MaskedColumn, Table

    out = Table(meta=json.loads(json.dumps(table.metadata)))
    for series in _plain_frame(table.frame):
        name, missing = series.name, series.is_null().to_numpy()
        if series.dtype == pl.String:
            if series.str.contains(r"[\x00-\x08\x0b\x0c\x0e-\x1f]").any():
                raise InputError(
                    f"column {name}: such a table can't hold the control characters in its text; remove them"
                )
            data = np.array(series.fill_null("").to_list(), dtype=str)
        elif series.dtype == pl.Boolean:
            data = series.fill_null(False).to_numpy()
        elif series.dtype.is_numeric():
            data = series.fill_null(0).to_numpy()
        else:
            raise InputError(f"column {name} ({series.dtype}) is not supported in such a table; cast or drop it")
        attributes = {"unit": table.units.get(name), "description": table.descriptions.get(name)}
        out[name] = MaskedColumn(data, mask=missing, **attributes) if missing.any() else Column(data, **attributes)
    return out
