"""Any astronomical table in, any out: CSV, Parquet, FITS, ECSV, VOTable, and tables in memory.

Astropy reads and writes its formats at the edge; inside, a table is a polars frame with units and descriptions.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PanicException, PolarsError

from truemorph.errors import InputError

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
_SAMPLE = 10_000  # rows that say what a CSV column holds
_AT_A_TIME = 24

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


def table_extension(path: Path) -> str:
    """Extension that names the format of a table.

    Raises
    ------
    InputError
        If no format goes by it.
    """
    name = path.name.lower()
    for extension in sorted(_EXTENSIONS, key=len, reverse=True):
        if name.endswith(extension):
            return extension
    raise InputError(f"{path}: unknown kind of table; use one of {' '.join(_EXTENSIONS)}")


def _read_csv(path: Path, separator: str) -> pl.DataFrame:
    content: Any = path
    if path.name.lower().endswith(".gz"):
        with gzip.open(path, "rb") as packed:
            content = packed.read()  # it is read twice, unpacked once
    comments = 0  # only above the header: further down a # may begin an id
    if isinstance(content, bytes):
        while content.startswith(b"#", _line_start(content, comments)):
            comments += 1
    else:
        with open(path, "rb") as lines:
            while lines.readline().startswith(b"#"):
                comments += 1
    options: dict[str, Any] = {"separator": separator, "null_values": _MISSING, "skip_rows": comments}
    try:
        frame = pl.read_csv(content, infer_schema_length=_SAMPLE, **options)
        # What is empty as far as the sample goes would be read as text.
        empty = frame.head(_SAMPLE).null_count().row(0)
        unknown = [
            name for name, count in zip(frame.columns, empty, strict=True) if count == min(_SAMPLE, frame.height)
        ]
        if unknown and frame.height > _SAMPLE:
            frame = frame.with_columns(pl.read_csv(content, infer_schema_length=None, columns=unknown, **options))
    except pl.exceptions.PolarsError:  # other values further down
        frame = pl.read_csv(content, infer_schema_length=None, **options)
    # "00012" is a name, not a number. A few columns at a time: as text they take much memory.
    integers = [name for name, dtype in frame.schema.items() if dtype.is_integer()]
    for first in range(0, len(integers), _AT_A_TIME):
        some = integers[first : first + _AT_A_TIME]
        text = pl.read_csv(content, infer_schema_length=0, columns=some, **options)
        padded = [name for name in some if text[name].str.contains(r"^[+-]?0\d").any()]
        frame = frame.with_columns(text[name] for name in padded)
    return _without_blank_end(frame)


def _without_blank_end(frame: pl.DataFrame) -> pl.DataFrame:
    """Leave out blank lines at the end of a file; further up they are rows."""
    rows = frame.height
    while rows and all(value is None for value in frame.row(rows - 1)):
        rows -= 1
    return frame.head(rows) if rows < frame.height else frame


def _line_start(content: bytes, number: int) -> int:
    at = 0
    for _ in range(number):
        at = content.find(b"\n", at) + 1
    return at


def read_table(source: Any) -> CatalogTable:
    r"""Read a table; the extension says which kind.

    Parameters
    ----------
    source : path, or a table in memory
        `.csv`, `.csv.gz`, `.tsv`, `.parquet`, `.fits`, `.fit`, `.fits.gz`, `.ecsv`, `.vot`, `.vot.gz`, `.votable` or
        `.xml`; or a polars, pandas, pyarrow or astropy table (see `truemorph.tables.from_object`).

    Returns
    -------
    CatalogTable
        Missing values are null. Integers are read as integers: a 19-digit id keeps every digit.

    Raises
    ------
    InputError
        If the file is absent, empty, of an unknown kind, or can't be read; or the object is no table.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "votes.csv"
    >>> _ = path.write_text("objid,smooth\n587722981748572353,0.9\n")
    >>> read_table(path).frame["objid"][0]
    587722981748572353
    """
    if not isinstance(source, str | os.PathLike):
        result = from_object(source)
        if result.frame.height == 0:
            raise InputError(f"{kind_of(source)}: the table has no rows")
        return result
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    extension = table_extension(path)
    try:
        if extension == ".parquet":
            result = from_arrow(pq.ParquetFile(path).read(), path)
        elif extension in _ASTROPY_FORMATS:
            result = _read_astropy(path, _ASTROPY_FORMATS[extension])
        else:
            separator = "\t" if extension == ".tsv" else ","
            # In one piece: otherwise whoever writes it later copies all of it.
            result = CatalogTable(plain_frame(_read_csv(path, separator)).rechunk(), path=path)
    except InputError:
        raise
    except Exception as problem:  # the readers raise dozens of types for a broken file
        reason = str(problem).strip().splitlines() or [type(problem).__name__]
        raise InputError(f"{path}: can't be read as {extension[1:]}: {reason[0]}") from problem
    if result.frame.height == 0:
        raise InputError(f"{path}: the table has no rows")
    return result


def _read_astropy(path: Path, format_name: str) -> CatalogTable:
    from astropy.table import Table
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        # Archives' files break their format's rules in dozens of harmless ways; units nobody knows are kept as text.
        warnings.simplefilter("ignore", AstropyWarning)
        return from_astropy(Table.read(path, format=format_name), str(path), path)


def write_table(table: CatalogTable, path: str | os.PathLike[str]) -> Path:
    """Write a table in the format its extension names; the file appears whole or not at all.

    Parameters
    ----------
    table : CatalogTable
    path : path
        Extension as for `read_table`. Metadata, units and descriptions travel in Parquet, ECSV, FITS and VOTable, not
        in CSV.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        If the extension is unknown, or the format can't hold the table.
    """
    path = Path(path)
    extension = table_extension(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        if extension == ".parquet":
            pq.write_table(to_arrow(table), partial)
        elif extension in _ASTROPY_FORMATS:
            _write_astropy(table, partial, _ASTROPY_FORMATS[extension])
        elif extension == ".csv.gz":
            partial.write_bytes(gzip.compress(table.frame.write_csv().encode()))
        else:
            table.frame.write_csv(partial, separator="\t" if extension == ".tsv" else ",")
        os.replace(partial, path)
    except (UnicodeError, TypeError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise InputError(f"{path}: {problem}") from problem
        raise InputError(f"{path}: this table can't be written as {extension[1:]}: {problem}") from problem
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write_astropy(table: CatalogTable, path: Path, format_name: str) -> None:
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        to_astropy(table, format_name).write(path, format=format_name, overwrite=True)
