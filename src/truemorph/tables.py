"""Read and write astronomical tables: CSV, Parquet, FITS, ECSV and VOTable files, and tables in memory.

Inside truemorph a table is a polars frame with units and descriptions; astropy reads and writes its formats.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PanicException, PolarsError

from truemorph.errors import FindingWarning, InputError, nearest
from truemorph.io import written_whole
from truemorph.missing import cleaned

_ASTROPY_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".fits.gz": "fits",
    ".ecsv": "ascii.ecsv",
    ".vot": "votable",
    ".vot.gz": "votable",
    ".votable": "votable",
    ".xml": "votable",
}
_EXTENSIONS = (".csv", ".csv.gz", ".tsv", ".parquet", *_ASTROPY_FORMATS)
_MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "N/A", "--"]
_SAMPLE = 10_000  # rows from which the type of a CSV column is guessed

_UNIT, _DESCRIPTION, _METADATA = b"unit", b"description", b"truemorph"
_FITS_KEY = "TRUEMRPH"  # eight characters at most
_CODED = "truemorph metadata, JSON in base64: "


@dataclass(frozen=True)
class CatalogTable:
    """A table with units, descriptions and metadata.

    Attributes
    ----------
    frame : polars.DataFrame
    units : dict
        Column → unit as astropy writes it; only columns whose unit is known.
    metadata : dict
        truemorph's own, as JSON can hold it.
    path : Path, optional
        The file it was read from.
    descriptions : dict
        Column → description; only columns that have one.
    """

    frame: pl.DataFrame
    units: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    descriptions: dict[str, str] = field(default_factory=dict)


def read_table(source: Any) -> CatalogTable:
    r"""Read a table from a file or from memory.

    Parameters
    ----------
    source : path, or a table in memory
        The extension of a file names its format: `.csv`, `.csv.gz`, `.tsv`, `.parquet`, `.fits`, `.fit`, `.fits.gz`,
        `.ecsv`, `.vot`, `.vot.gz`, `.votable` or `.xml`. In memory: a polars DataFrame or LazyFrame, a pandas
        DataFrame, a pyarrow Table, an astropy Table or QTable, a `CatalogTable`, or any object with
        `__arrow_c_stream__`. A named index of a pandas DataFrame becomes a column; another index is dropped.

    Returns
    -------
    CatalogTable
        Missing values (null, masked, pandas' NaN, empty text) are null. Integers keep every digit, also 19-digit ids.
        Categories become text; decimals become integers or floats. Units and descriptions are those of FITS, ECSV,
        VOTable and astropy columns, or b"unit" and b"description" in the metadata of an Arrow or Parquet field.

    Raises
    ------
    InputError
        If the file is absent, cut off, damaged, without rows or of an unknown format, if the object is not a table, or
        if a column cannot be represented (an array in each row of a FITS table, times, coordinates).

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "votes.csv"
    >>> _ = path.write_text("objid,smooth\n587722981748572353,0.9\n")
    >>> read_table(path).frame["objid"][0]
    587722981748572353
    """
    if isinstance(source, str | os.PathLike):
        name, result = str(source), _from_file(Path(source))
    else:
        name, result = kind_of(source), _from_object(source)
    if result.frame.height == 0:
        raise InputError(f"{name}: the table has no rows")
    return result


def frame_hash(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of the rows of a table and the names of its columns, in hexadecimal."""
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()


def write_table(table: CatalogTable, path: str | os.PathLike[str]) -> Path:
    """Write a table in the format that the extension names; the file appears complete or not at all.

    Parameters
    ----------
    table : CatalogTable
    path : path
        Extension as for `read_table`. Metadata, units and descriptions are kept in Parquet, ECSV, FITS and VOTable, not
        in CSV.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        If the extension is unknown, or the format cannot hold the table.

    Examples
    --------
    >>> import tempfile
    >>> path = write_table(CatalogTable(pl.DataFrame({"r": [3.5]}), {"r": "arcsec"}), tempfile.mkdtemp() + "/r.parquet")
    >>> read_table(path).units
    {'r': 'arcsec'}
    """
    path = Path(path)
    extension = table_extension(path)
    try:
        with written_whole(path) as partial:
            if extension == ".parquet":
                pq.write_table(to_arrow(table), partial)
            elif extension in _ASTROPY_FORMATS:
                _write_astropy(table, partial, _ASTROPY_FORMATS[extension])
            elif extension == ".csv.gz":
                partial.write_bytes(gzip.compress(table.frame.write_csv().encode(), compresslevel=6, mtime=0))
            else:
                table.frame.write_csv(partial, separator="\t" if extension == ".tsv" else ",")
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem
    except (PolarsError, pa.ArrowException, UnicodeError, TypeError, ValueError, RecursionError) as problem:
        raise InputError(f"{path}: this table can't be written as {extension[1:]}: {_first_line(problem)}") from problem
    return path


def table_extension(path: Path) -> str:
    """Return the extension that names the format of a table.

    Raises
    ------
    InputError
        If it names no format.

    Examples
    --------
    >>> table_extension(Path("votes.CSV.gz"))
    '.csv.gz'
    """
    name = path.name.lower()
    for extension in sorted(_EXTENSIONS, key=len, reverse=True):
        if name.endswith(extension):
            return extension
    raise InputError(f"{path}: unknown kind of table; use one of {' '.join(_EXTENSIONS)}")


def numeric_columns(frame: pl.DataFrame, names: Sequence[str], source: str) -> np.ndarray:
    """Select numeric columns by name.

    Parameters
    ----------
    frame : polars.DataFrame, N rows
    names : sequence of str, length P
    source : str
        What to call the table in messages.

    Returns
    -------
    array of float64, shape (N, P)
        NaN where a value is missing. Values of -99, -999, -9999 and their like are missing too, with a warning.

    Raises
    ------
    InputError
        If a column is absent (the nearest names are given) or does not hold numbers.

    Examples
    --------
    >>> numeric_columns(pl.DataFrame({"z": [0.1, None], "n": [4, 1]}), ["n", "z"], "a.csv")
    array([[4. , 0.1],
           [1. , nan]])
    """
    for name in names:
        if name not in frame.schema:
            raise InputError(f"{source}: no column {name!r}; {nearest(name, frame.columns)}")
        if not frame.schema[name].is_numeric():
            raise InputError(f"{source}: column {name!r} holds {frame.schema[name]}, not numbers; choose another")
    known, findings = cleaned(frame, names, source)
    for one in findings:
        warnings.warn(FindingWarning(one), stacklevel=2)
    columns = [known[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((frame.height, 0))


def to_arrow(table: CatalogTable) -> pa.Table:
    """Convert to Arrow: fields hold b"unit" and b"description", the schema holds the metadata.

    Examples
    --------
    >>> to_arrow(CatalogTable(pl.DataFrame({"r": [3.5]}), {"r": "arcsec"})).schema.field("r").metadata
    {b'unit': b'arcsec'}
    """
    arrow = table.frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    fields = []
    for one in arrow.schema:
        held = {_UNIT: table.units.get(one.name), _DESCRIPTION: table.descriptions.get(one.name)}
        known = {key: value for key, value in held.items() if value}
        fields.append(one.with_metadata(known) if known else one)
    metadata = {**(arrow.schema.metadata or {}), _METADATA: json.dumps(table.metadata).encode()}
    return pa.Table.from_arrays(arrow.columns, schema=pa.schema(fields, metadata=metadata))


def kind_of(source: Any) -> str:
    """Name the type of a table in memory, for messages.

    Examples
    --------
    >>> kind_of(pl.DataFrame())
    'polars DataFrame'
    """
    return f"{type(source).__module__.partition('.')[0]} {type(source).__name__}"


def _from_file(path: Path) -> CatalogTable:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    extension = table_extension(path)
    try:
        if extension == ".parquet":
            return _from_arrow(pq.ParquetFile(path).read(), str(path), path)
        content: Path | bytes = path
        if extension.endswith(".gz"):
            with gzip.open(path, "rb") as packed:
                content = packed.read()
        if extension in _ASTROPY_FORMATS:
            return _read_astropy(content, _ASTROPY_FORMATS[extension], path)
        frame = _read_csv(content, "\t" if extension == ".tsv" else ",", path)
        # In one piece: otherwise each writer copies all of it.
        return CatalogTable(_plain_frame(frame).rechunk(), path=path)
    except InputError:
        raise
    except EOFError as problem:
        raise InputError(f"{path}: the file looks cut off; fetch or copy it again") from problem
    except Exception as problem:  # the readers raise dozens of types for a broken file
        raise InputError(f"{path}: can't be read as {extension[1:]}: {_first_line(problem)}") from problem


def _from_object(source: Any) -> CatalogTable:
    what = kind_of(source)
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
        raise InputError(f"{what}: can't be used as a table: {_first_line(problem)}") from problem
    raise InputError(
        f"{what}: not a table; give a path, or a polars, pandas, pyarrow or astropy table (one HDU or array at a time)"
    )


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]


def _plain_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Convert categories to text and decimals to floats; integers of other widths to 64 bits where they fit."""
    changed = []
    for name, kind in frame.schema.items():
        if kind in (pl.Categorical, pl.Enum):
            changed.append(frame[name].cast(pl.String))
        elif kind in (pl.Int128, pl.UInt128) or (isinstance(kind, pl.Decimal) and kind.scale == 0):
            changed.append(_narrow(frame[name]))
        elif kind.is_decimal():
            changed.append(frame[name].cast(pl.Float64))
    return frame.with_columns(changed) if changed else frame


def _narrow(series: pl.Series) -> pl.Series:
    for kind in (pl.Int64, pl.UInt64):
        held = series.cast(kind, strict=False)
        if held.null_count() == series.null_count():
            return held
    return series.cast(pl.String)


def _metadata(held: str | bytes, source: str) -> dict[str, Any]:
    """Decode truemorph's metadata: JSON, which FITS, ECSV and VOTable files hold in base64."""
    try:
        metadata = json.loads(base64.b64decode(held) if isinstance(held, str) else held)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise InputError(f"{source}: its truemorph metadata is damaged; make the table again")
    return metadata


def _from_arrow(table: pa.Table, source: str, path: Path | None = None) -> CatalogTable:
    held = (table.schema.metadata or {}).get(_METADATA)
    metadata = _metadata(held, source) if held else {}
    units, descriptions = (
        {
            one.name: one.metadata[key].decode("utf-8", "replace")
            for one in table.schema
            if one.metadata and one.metadata.get(key)
        }
        for key in (_UNIT, _DESCRIPTION)
    )
    try:
        # Metadata of other writers, such as pandas' own JSON, is not needed.
        frame = pl.DataFrame(pl.from_arrow(table.replace_schema_metadata()))
    except (PolarsError, PanicException) as problem:
        raise InputError(f"{source}: can't be used as a table: {_first_line(problem)}") from problem
    return CatalogTable(_plain_frame(frame), units, metadata, path, descriptions)


def _read_csv(content: Path | bytes, separator: str, path: Path) -> pl.DataFrame:
    with io.BytesIO(content) if isinstance(content, bytes) else open(content, "rb") as file:
        comments = 0  # only above the header: further down a # may begin an id
        while (header := file.readline()).startswith(b"#"):
            comments += 1
        if _looks_cut_off(file, file.tell() - len(header), separator):
            raise InputError(
                f"{path}: the file looks cut off: its last row has fewer fields than its header and no end of line; "
                "fetch or copy it again"
            )
    names = next(csv.reader([header.decode("utf-8-sig", "replace")], delimiter=separator), [])
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path}: two columns are called {twice[0]!r}; rename one")
    options: dict[str, Any] = {"separator": separator, "null_values": _MISSING, "skip_lines": comments}
    try:
        frame = pl.read_csv(content, infer_schema_length=_SAMPLE, **options)
        # Columns without a value in the sample were read as text.
        head = frame.head(_SAMPLE)
        unknown = [series.name for series in head if series.null_count() == head.height]
        if unknown and frame.height > _SAMPLE:
            frame = frame.with_columns(pl.read_csv(content, infer_schema_length=None, columns=unknown, **options))
    except PolarsError:  # values of another type below the sample
        frame = pl.read_csv(content, infer_schema_length=None, **options)
    # "00012" is a name, not a number. The text of all integers would take much memory, so it is streamed.
    text = pl.scan_csv(content, infer_schema=False, **options).select(
        name for name, kind in frame.schema.items() if kind.is_integer()
    )
    padded = text.select(pl.all().str.contains(r"^[+-]?0\d").any()).collect(engine="streaming")
    frame = frame.with_columns(text.select(one.name for one in padded if one.any()).collect())
    # Blank lines at the end are dropped; further up they are rows, or row numbers in messages would be wrong.
    rows = frame.height
    while rows and all(value is None for value in frame.row(rows - 1)):
        rows -= 1
    return frame.head(rows)


def _looks_cut_off(file: BinaryIO, header: int, separator: str) -> bool:
    """Whether the last row has fewer fields than the header (which starts at that byte), and no end of line."""
    if file.seek(0, os.SEEK_END) == header:
        return False
    file.seek(-1, os.SEEK_END)
    if file.read() in (b"\n", b"\r"):
        return False
    file.seek(header)
    rows = csv.reader((line.decode("latin-1") for line in file), delimiter=separator)
    widths = [len(row) for row in rows]
    return widths[-1] < widths[0]


def _read_astropy(content: Path | bytes, format_name: str, path: Path) -> CatalogTable:
    from astropy.table import Table
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        # Archives' files break the rules of their formats in harmless ways; unknown units are kept as text.
        warnings.simplefilter("ignore", AstropyWarning)
        table = Table.read(io.BytesIO(content) if isinstance(content, bytes) else content, format=format_name)
    return _from_astropy(table, str(path), path)


def _from_astropy(table: Any, source: str, path: Path | None = None) -> CatalogTable:
    columns, units, descriptions = {}, {}, {}
    for name in table.colnames:
        column = table[name]
        try:
            columns[name] = _arrow_array(column)
        except (pa.ArrowException, TypeError, ValueError) as problem:
            raise InputError(
                f"{source}: column {name} ({type(column).__name__}) does not hold one number or text in each row; "
                f"split it or leave it out ({_first_line(problem)})"
            ) from problem
        if column.unit is not None and str(column.unit):
            units[name] = str(column.unit)
        if column.info.description:
            descriptions[name] = " ".join(str(column.info.description).split())  # VOTable files wrap it
    frame = pl.DataFrame(pl.from_arrow(pa.table(columns)))
    # In FITS and VOTable only empty text can stand for missing text.
    frame = frame.with_columns(pl.col(pl.String).replace({"": None}))
    held = table.meta.get(_FITS_KEY) or table.meta.get("description")
    ours = isinstance(held, str) and held.startswith(_CODED)
    metadata = _metadata(held.removeprefix(_CODED), source) if ours else {}
    return CatalogTable(_plain_frame(frame), units, metadata, path, descriptions)


def _arrow_array(column: Any) -> pa.Array:
    """Values of an astropy column or quantity, null where masked."""
    values = np.asarray(getattr(column, "unmasked", column))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    elif values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return pa.array(values, mask=np.asarray(column.mask) if hasattr(column, "mask") else None, from_pandas=False)


def _write_astropy(table: CatalogTable, path: Path, format_name: str) -> None:
    from astropy.table import Column, MaskedColumn, Table
    from astropy.utils.exceptions import AstropyWarning

    def described(name: str) -> str | None:
        about = table.descriptions.get(name)
        return about.encode("ascii", "replace").decode() if about and format_name == "fits" else about

    out = Table()
    for series in _plain_frame(table.frame):
        name, missing = series.name, series.is_null().to_numpy()
        if series.dtype == pl.String:
            data = np.array(series.fill_null("").to_list(), dtype=str)
        elif series.dtype == pl.Boolean:
            data = series.fill_null(False).to_numpy()
            if missing.any() and format_name == "fits":
                data = data.astype(np.int16)  # FITS booleans have no missing value
        elif series.dtype.is_numeric():
            data = series.fill_null(0).to_numpy()
        else:
            raise InputError(f"column {name} ({series.dtype}) can't be written as {format_name}; cast or drop it")
        known = {"unit": table.units.get(name), "description": described(name)}
        out[name] = MaskedColumn(data, mask=missing, **known) if missing.any() else Column(data, **known)
    # VOTable files keep only a description of the table, FITS and ECSV files keep any keyword.
    held = _CODED + base64.b64encode(json.dumps(table.metadata).encode()).decode()
    out.meta["description" if format_name == "votable" else _FITS_KEY] = held
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # units that astropy doesn't know are written as text
        out.write(path, format=format_name, overwrite=True)


def to_astropy(table: CatalogTable) -> Any:
    """Return an astropy QTable with units and descriptions; missing values are masked.

    Examples
    --------
    >>> to_astropy(CatalogTable(pl.DataFrame({"r": [3.5]}), {"r": "arcsec"}))["r"][0]
    <Quantity 3.5 arcsec>
    """
    from astropy.table import MaskedColumn, QTable

    out = QTable(meta=dict(table.metadata))
    for series in _plain_frame(table.frame):
        missing = series.is_null().to_numpy()
        filled = series.fill_null("" if series.dtype == pl.String else 0)
        out[series.name] = MaskedColumn(
            filled.to_list() if series.dtype == pl.String else filled.to_numpy(), mask=missing
        )
        if not missing.any():
            out[series.name] = out[series.name].filled()
        unit = table.units.get(series.name)
        if unit:
            out[series.name].unit = unit
        out[series.name].info.description = table.descriptions.get(series.name)
    return QTable(out)
