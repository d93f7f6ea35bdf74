"""Read and write astronomical tables: CSV, Parquet, FITS, ECSV and VOTable files, and tables in memory.

Inside truemorph, a table is a polars frame with units and descriptions; astropy reads and writes its formats.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PanicException, PolarsError

from truemorph.errors import InputError, nearest, reason
from truemorph.findings import Finding
from truemorph.io import written_whole

_MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "N/A", "--"]
# Published tables use these values for "not measured", usually without documenting them.
SENTINELS = (-99.0, -99.9, -99.99, -999.0, -999.9, -999.99, -9999.0, -9999.9, -9999.99, -99999.0)
# Bytes at the end of a CSV file in which its last line begins.
_LONGEST_LINE = 2**16

# What `prepare` makes these columns from, beside radius and PSF.
_MADE_FROM = {"redshift": "a redshift", "radius_kpc": "a redshift", "surface_brightness": "a magnitude"}
_MADE_FROM |= dict.fromkeys(("M_r", "rest_surface_brightness"), "a magnitude and a redshift")

_OURS, _FITS_KEY = "truemorph", "TRUEMRPH"  # keys of our metadata
_FITS_NAME = 68  # longest name of a column in FITS
_CODED = "truemorph metadata, JSON in base64: "  # in files of version 0.1


@dataclass(frozen=True)
class CatalogTable:
    """A table with units (astropy's notation), descriptions, truemorph's metadata, and the file it was read from."""

    frame: pl.DataFrame
    units: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    descriptions: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


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
    if isinstance(source, str | os.PathLike):
        name, result = str(source), _from_file(Path(source))
    else:
        name, result = kind_of(source), _from_object(source)
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
    try:
        cast = (pl.col(name) if kind is None else pl.col(name).cast(kind) for name, kind in columns.items())
        # polars itself panics at some damaged Parquet files
        frame = _from_file(path).frame.drop(cs.temporal()).select(cast)
        if any(kind not in (None, frame.schema[name]) for name, kind in columns.items()):  # casts of nested types
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


def write_table(table: CatalogTable, path: str | os.PathLike[str]) -> Path:
    """Write a table atomically, in the format given by the extension.

    Parameters
    ----------
    table : CatalogTable
    path : path
        Extension as in `read_table`. Metadata, units and descriptions are kept in Parquet, ECSV, FITS and VOTable, but
        not in CSV. There, an apostrophe marks text that begins with = or @, which spreadsheets would run. Metadata are
        a JSON text: `truemorph` in Parquet, a PARAM of that name in VOTable, TRUEMRPH in FITS; in ECSV they are a
        mapping, `truemorph`. Descriptions of FITS columns are in TCOMM.

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
    path, table = Path(path), table if isinstance(table, CatalogTable) else read_table(table)
    extension = table_extension(path)
    with written_whole(path) as partial:
        try:
            if extension == ".parquet":
                pq.write_table(to_arrow(table), partial)
            elif extension in _ASTROPY:
                with _quiet():
                    _ASTROPY[extension][1](table, partial)
            else:
                # Spreadsheets would run text that begins with = or @ as a formula.
                cell = pl.col(pl.String)
                safe = pl.when(cell.str.contains("^[=@]")).then("'" + cell).otherwise(cell).name.keep()
                text = table.frame.with_columns(safe).write_csv(separator="\t" if extension == ".tsv" else ",").encode()
                partial.write_bytes(gzip.compress(text, compresslevel=6, mtime=0) if extension == ".csv.gz" else text)
        except InputError as problem:
            raise InputError(f"{path}: {problem}") from problem
        except (PolarsError, pa.ArrowException, UnicodeError, TypeError, ValueError, RecursionError) as problem:
            raise InputError(f"{path}: this table can't be written as {extension[1:]}: {reason(problem)}") from problem
    return path


def table_extension(path: Path) -> str:
    """Return the extension that determines a table's format, such as ".csv.gz"; in lower case."""
    name = path.name.lower()
    for extension in sorted(_EXTENSIONS, key=len, reverse=True):
        if name.endswith(extension):
            return extension
    raise InputError(f"{path}: unknown kind of table; use one of {' '.join(_EXTENSIONS)}")


def numeric_columns(frame: pl.DataFrame, names: Sequence[str], source: str) -> np.ndarray:
    """Return named numeric columns as float64, shape (N, P); NaN if missing.

    -99, -999, -9999 and similar values count as missing (see `missing_in`). `source` names the table in messages.
    """
    for name in names:
        if name not in frame.schema:
            how = f"; to add it, prepare the catalogue with {_MADE_FROM[name]}" if name in _MADE_FROM else ""
            raise InputError(f"{source}: no column {name!r}; {nearest(name, frame.columns)}{how}")
        if not frame.schema[name].is_numeric():
            raise InputError(f"{source}: column {name!r} holds {frame.schema[name]}, not numbers; choose another")
    known, _ = cleaned(frame, names, source)
    columns = [known[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((frame.height, 0))


def missing_in(frame: pl.DataFrame, names: Iterable[str], source: str) -> list[Finding]:
    """Say where numbers such as -999 count as missing in columns that are used; a command lists these findings."""
    return cleaned(frame, [name for name in dict.fromkeys(names) if name in frame.columns], source)[1]


def without(series: pl.Series, missing: Sequence[float | int | str]) -> pl.Series:
    """Replace values that mean missing by null; numbers also match in single precision (-99.99), and as text."""
    texts = pl.Series([str(one) for one in missing], dtype=pl.String)
    numbers = texts.cast(pl.Float64, strict=False).drop_nulls().to_list()
    if series.dtype.is_numeric():
        if series.dtype.is_integer():
            numbers = [int(one) for one in numbers if float(one).is_integer()]
        gone = series.is_in(pl.Series(numbers, dtype=series.dtype, strict=False).to_list())
    elif series.dtype == pl.String:
        gone = series.is_in(texts.to_list())
        gone |= series.str.strip_chars().cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)
    else:
        return series
    return pl.select(pl.when(gone.fill_null(False).not_()).then(series)).to_series()


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
        known = without(frame[name], missing)
        kept = without(known, sentinels)
        gone = kept.is_null() & known.is_not_null()
        if gone.any():
            values = known.filter(gone).unique().sort().to_list()
            shown = ", ".join(f"{float(one):.6g}" for one in values[:3])
            rows = f"{gone.sum():,d} of {len(gone):,d} rows"
            found = f"{source}: column {name}: {shown} was treated as missing in {rows}."
            findings.append(Finding("values-treated-as-missing", "note", found))
        frame = frame.with_columns(kept.alias(name))
    return frame, findings


def to_arrow(table: CatalogTable) -> pa.Table:
    """Convert to Arrow: fields have b"unit" and b"description", the schema has the metadata.

    Other programs read units and descriptions from other places in a Parquet file, so the schema has them twice more:
    as VOParquet (IVOA note of 2025-01-16) for TOPCAT, except for tables with lists, dates or structs; and for astropy.
    """
    arrow = table.frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    known = {"unit": table.units, "description": table.descriptions}
    texts = {name: {key: held[name] for key, held in known.items() if held.get(name)} for name in arrow.column_names}
    fields = [one.with_metadata(texts[one.name]) if texts[one.name] else one for one in arrow.schema]
    yaml = json.dumps({"datatype": [{"name": name, **text} for name, text in texts.items()]})  # JSON is also YAML
    metadata = {_OURS: _text(table.metadata), "table_meta_yaml": yaml, **_voparquet(table)}
    return pa.Table.from_arrays(arrow.columns, schema=pa.schema(fields, metadata=metadata))


def arrow_texts(schema: pa.Schema) -> tuple[dict[str, str], dict[str, str]]:
    """Return units and descriptions of an Arrow schema, by column; those of tables that astropy wrote too."""
    units, descriptions = (
        {one.name: one.metadata[key].decode("utf-8", "replace") for one in schema if (one.metadata or {}).get(key)}
        for key in (b"unit", b"description")
    )
    header = (schema.metadata or {}).get(b"table_meta_yaml")
    if header and not units and not descriptions:
        from astropy.table.meta import get_header_from_yaml

        try:
            columns = get_header_from_yaml(header.decode().splitlines())["datatype"]
            units = {one["name"]: str(one["unit"]) for one in columns if one.get("unit")}
            descriptions = {one["name"]: str(one["description"]) for one in columns if one.get("description")}
        except Exception as problem:  # its parser raises many types
            raise InputError(f"the units of the table (table_meta_yaml) can't be read: {reason(problem)}") from problem
    return units, descriptions


def kind_of(source: Any) -> str:
    """Return the type of a table in memory, for messages, such as "polars DataFrame"."""
    return f"{type(source).__module__.partition('.')[0]} {type(source).__name__}"


def _from_file(path: Path) -> CatalogTable:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    extension = table_extension(path)
    try:
        if extension == ".parquet":
            return _from_arrow(pq.ParquetFile(path).read(), str(path), path)
        if extension in _ASTROPY:
            with _quiet():
                table = _ASTROPY[extension][0](path)
            return _from_astropy(table, str(path), path)
        frame = _read_csv(path, "\t" if extension == ".tsv" else ",")
        # In one chunk, because otherwise each writer copies it.
        return CatalogTable(_plain_frame(frame).rechunk(), path=path)
    except InputError:
        raise
    except EOFError as problem:
        raise InputError(f"{path}: the file seems truncated; fetch or copy it again") from problem
    except Exception as problem:  # readers raise many types for broken files
        raise InputError(f"{path}: can't be read as {extension[1:]}: {reason(problem)}") from problem


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
        raise InputError(f"{what}: can't be used as a table: {reason(problem)}") from problem
    raise InputError(
        f"{what}: not a table; give a path, or a polars, pandas, pyarrow or astropy table (one HDU or array at a time)"
    )


def _plain_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Convert categories to text, decimals to floats, and integers to 64 bits if they fit."""
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


def _text(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON; characters that FITS or VOTable files do not keep are escaped."""
    return re.sub("['&<>]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(metadata))


def _metadata(held: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Parse metadata of a file: JSON, a mapping (ECSV), or JSON in base64 (version 0.1)."""
    try:
        for key in (_OURS, _FITS_KEY, "description"):  # the last one was used by version 0.1 in VOTable files
            content = held.get(key, "")
            if not isinstance(content, Mapping):
                text = content.decode() if isinstance(content, bytes) else str(content)
                coded = " ".join(text.split())  # VOTable files wrap lines
                if coded.startswith(_CODED):
                    text = base64.b64decode(coded.removeprefix(_CODED)).decode()
                elif key == "description" or not text:
                    continue
                content = json.loads(text)
            return {**content}
    except (ValueError, TypeError, RecursionError) as problem:
        raise InputError(f"{source}: its truemorph metadata are damaged; make the table again") from problem
    return {}


def _from_arrow(table: pa.Table, source: str, path: Path | None = None) -> CatalogTable:
    held = {key.decode("utf-8", "replace"): value for key, value in (table.schema.metadata or {}).items()}
    metadata = _metadata(held, source)
    units, descriptions = arrow_texts(table.schema)
    try:
        # Metadata of other programs, such as pandas, are not needed.
        frame = pl.DataFrame(pl.from_arrow(table.replace_schema_metadata()))
    except (PolarsError, PanicException) as problem:
        raise InputError(f"{source}: can't be used as a table: {reason(problem)}") from problem
    return CatalogTable(_plain_frame(frame), units, metadata, path, descriptions)


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb")


def _read_csv(path: Path, separator: str) -> pl.DataFrame:
    with _opened(path) as file:
        comments = 0  # only above the header, because # may be part of an id below
        while (header := file.readline()).startswith(b"#"):
            comments += 1
        names = next(csv.reader([header.decode("utf-8-sig", "replace")], delimiter=separator), [])
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_LINE))
        last = file.read().rpartition(b"\n")[2].decode("latin-1")
    if last and len(next(csv.reader([last], delimiter=separator))) < len(names):
        raise InputError(
            f"{path}: the file seems truncated: its last line has no end, and fewer fields than the header; "
            "fetch or copy it again"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path}: two columns are named {twice[0]!r}; rename one")
    options: dict[str, Any] = {"separator": separator, "null_values": _MISSING, "skip_lines": comments}
    frame = pl.read_csv(path, infer_schema_length=None, **options)
    # "00012" and "12e4" are text, not numbers. Whole numbers are compared as text by streaming, to save memory.
    text = pl.scan_csv(path, infer_schema=False, **options).select(
        one.name for one in frame if one.dtype.is_integer() or (one.dtype.is_float() and (one == one.floor()).all())
    )
    digits, coded = (pl.all().str.contains(one) for one in (r"^[+-]?\d+([eE]\d+)?$", r"^[+-]?0\d|[eE]"))
    coded_names = text.select(digits.all() & coded.any()).collect(engine="streaming")
    frame = frame.with_columns(text.select(one.name for one in coded_names if one.any()).collect())
    return frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines


def _quiet() -> warnings.catch_warnings[None]:
    """Ignore warnings about harmless violations of formats in archives' files; unknown units are kept as text."""
    from astropy.utils.exceptions import AstropyWarning

    return warnings.catch_warnings(action="ignore", category=AstropyWarning)


def _read_fits(path: Path) -> Any:
    from astropy.io import fits
    from astropy.table import MaskedColumn, Table

    with fits.open(path, memmap=False) as units:
        unit = next((one for one in units if isinstance(one, fits.BinTableHDU | fits.TableHDU)), None)
        if unit is None:
            raise InputError(f"{path}: has no table")
        table, stored = Table.read(unit, format="fits"), np.asarray(unit.data)
    for name in table.colnames:
        if table[name].dtype == bool and table[name].ndim == 1:  # astropy reads undefined logicals as false
            table[name] = MaskedColumn(table[name], mask=~np.isin(stored[name], (ord("T"), ord("F"))))
    return table


def _read_ecsv(path: Path) -> Any:
    from astropy.io import ascii

    reader = ascii.get_reader(reader_cls=ascii.Ecsv, fill_values=[("", "0")])  # as astropy does
    reader.data.comment = None  # only above the header, because # may be part of an id below
    reader.data.start_line = lambda lines: (
        1 + next(k for k, one in enumerate(lines) if not one.lstrip().startswith("#"))
    )
    return reader.read(str(path))


def _read_votable(path: Path) -> Any:
    from astropy.io import votable
    from astropy.table import Table

    with _opened(path) as opened:
        content = opened.read()
    # To astropy, an empty cell of integers is zero before version 1.3.
    content = re.sub(rb"""(<VOTABLE\b[^>]*?\bversion=)["']1\.[012]["']""", rb'\1"1.3"', content, count=1)
    warnings.simplefilter("error", votable.exceptions.W51)  # astropy would change these integers
    try:
        file = votable.parse(io.BytesIO(content), verify="warn")
    except votable.exceptions.W51 as problem:
        why = str(problem).rpartition("W51: ")[2]
        raise InputError(f"{path}: {why}; give its FIELD a larger datatype, or correct it") from problem
    table = Table.read(file, format="votable", use_names_over_ids=True)
    table.meta |= {one.name: one.value for one in file.get_first_table().params}  # astropy's tables do not have them
    return table


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
    frame = pl.DataFrame(pl.from_arrow(pa.table(columns)))
    # In FITS and VOTable, missing text is empty text.
    frame = frame.with_columns(pl.col(pl.String).replace({"": None}))
    return CatalogTable(_plain_frame(frame), units, _metadata(table.meta, source), path, descriptions)


def _arrow_array(column: Any) -> pa.Array:
    """Convert an astropy column or quantity to Arrow; masked values become null."""
    values = np.asarray(getattr(column, "unmasked", column))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    elif values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return pa.array(values, mask=np.asarray(column.mask) if hasattr(column, "mask") else None, from_pandas=False)


def to_astropy(table: CatalogTable) -> Any:
    """Return an astropy QTable with units and descriptions; missing values are masked."""
    from astropy.table import QTable

    return QTable(_astropy_table(table))


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
        known = {"unit": table.units.get(name), "description": table.descriptions.get(name)}
        out[name] = MaskedColumn(data, mask=missing, **known) if missing.any() else Column(data, **known)
    return out


def _write_fits(table: CatalogTable, path: Path) -> None:
    out = _astropy_table(table)
    if long := next((name for name in out.colnames if len(name) > _FITS_NAME), None):
        raise InputError(f"column {long}: FITS has names of up to {_FITS_NAME} characters; rename it")
    out.meta = {_FITS_KEY: _text(table.metadata)} if table.metadata else {}
    for number, name in enumerate(out.colnames, 1):
        if hasattr(out[name], "mask") and out[name].dtype.kind in "bi":
            kind = np.int16 if out[name].dtype == bool else out[name].dtype  # FITS booleans have no missing value
            out[name] = out[name].astype(kind)
            out[name].fill_value = np.iinfo(kind).min  # astropy's default 999999 may be a value
        if out[name].description:
            out[name].description = out[name].description.encode("ascii", "replace").decode()
            out.meta[f"TCOMM{number}"] = out[name].description  # for programs other than astropy
    out.write(path, format="fits", overwrite=True)


def _votable(table: CatalogTable) -> Any:
    """Return an astropy VOTableFile; a PARAM has our metadata."""
    from astropy.io import votable

    out = _astropy_table(table)
    out.meta = {"description": str(table.metadata["about"])} if table.metadata.get("about") else {}
    file = votable.from_table(out)
    text = _text(table.metadata)
    about = votable.tree.Param(file, name=_OURS, datatype="unicodeChar", arraysize="*", value=text)
    file.get_first_table().params.append(about)
    return file


def _write_ecsv(table: CatalogTable, path: Path) -> None:
    from astropy.io import ascii

    out = _astropy_table(table)
    out.meta = {_OURS: out.meta}
    writer = ascii.get_writer(writer_cls=ascii.Ecsv)
    writer.data.splitter.quoting = csv.QUOTE_NONNUMERIC  # all: other programs skip lines that begin with #
    path.write_text("\n".join([*writer.write(out), ""]), encoding="utf-8")


# Readers and writers of astropy's formats.
_ASTROPY: dict[str, tuple[Any, Any]] = {
    **dict.fromkeys((".fits", ".fit", ".fits.gz"), (_read_fits, _write_fits)),
    ".ecsv": (_read_ecsv, _write_ecsv),
    **dict.fromkeys(
        (".vot", ".vot.gz", ".votable", ".xml"), (_read_votable, lambda table, path: _votable(table).to_xml(str(path)))
    ),
}
_EXTENSIONS = (".csv", ".csv.gz", ".tsv", ".parquet", *_ASTROPY)


# Types of columns in VOTable.
_VOTABLE_TYPES = {
    pl.String: "unicodeChar", pl.Float64: "double", pl.Float32: "float", pl.Int64: "long", pl.Int32: "int",
    pl.Int16: "short", pl.UInt8: "unsignedByte", pl.Boolean: "bit",
}  # fmt: skip
# Units that are written as in astropy.
_SAME_UNITS = {"arcsec", "arcmin", "deg", "rad", "mag", "pc", "kpc", "Mpc", "s", "d", "yr", "solMass", "Jy"}


def _voparquet(table: CatalogTable) -> dict[str, str]:
    """Return VOParquet metadata (a VOTable without data); none if columns are not supported.

    The text is written here, because astropy takes a second to import.
    """
    kinds = {one.name: _VOTABLE_TYPES.get(one.dtype.base_type()) for one in _plain_frame(table.frame.clear())}
    if None in kinds.values():
        return {}
    root = ElementTree.Element("VOTABLE", version="1.4", xmlns="http://www.ivoa.net/xml/VOTable/v1.3")
    fields = ElementTree.SubElement(ElementTree.SubElement(root, "RESOURCE", type="results"), "TABLE")
    if about := table.metadata.get("about"):
        ElementTree.SubElement(fields, "DESCRIPTION").text = str(about)
    for name, kind in kinds.items():
        arraysize = {"arraysize": "*"} if kind == "unicodeChar" else {}
        unit = {"unit": _votable_unit(table.units[name])} if table.units.get(name) else {}
        field = ElementTree.SubElement(fields, "FIELD", {"name": name, "datatype": str(kind), **arraysize, **unit})
        if table.descriptions.get(name):
            ElementTree.SubElement(field, "DESCRIPTION").text = table.descriptions[name]
    own = {"name": _OURS, "datatype": "unicodeChar", "arraysize": "*", "value": _text(table.metadata)}
    ElementTree.SubElement(fields, "PARAM", own)
    text = ElementTree.tostring(root, encoding="unicode")
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return {"IVOA.VOTable-Parquet.version": "1.0", "IVOA.VOTable-Parquet.content": head + text}


def _votable_unit(unit: str) -> str:
    """Return a unit in the notation of VOTable; one that it does not have, such as mag(AB), is kept."""
    if unit in _SAME_UNITS:
        return unit
    from astropy.units import Unit

    try:
        return Unit(unit).to_string("vounit")
    except ValueError:
        return unit
