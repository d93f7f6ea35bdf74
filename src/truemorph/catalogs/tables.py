"""Any astronomical table in, any out: CSV, Parquet, FITS, ECSV, VOTable.

Astropy reads and writes its formats at the edge; inside, a table is a polars frame with a dict of units.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from truemorph.errors import InputError

_ASTROPY_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".fits.gz": "fits",
    ".ecsv": "ascii.ecsv",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
}
_EXTENSIONS = (".csv", ".csv.gz", ".tsv", ".parquet", *_ASTROPY_FORMATS)
_MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "N/A", "--"]
_METADATA_KEY = b"truemorph"
_FITS_KEY = "TRUEMRPH"  # eight characters at most
_CODED = "truemorph metadata, JSON in base64: "


@dataclass(frozen=True)
class CatalogTable:
    """A table with what travels along: units of columns, and truemorph's own metadata."""

    frame: pl.DataFrame
    units: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None


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


def _from_astropy(path: Path, format_name: str) -> CatalogTable:
    from astropy.table import Table

    table = Table.read(path, format=format_name)
    columns, units = {}, {}
    for name in table.colnames:
        column = table[name]
        if getattr(column, "ndim", 1) > 1:
            raise InputError(
                f"{path}: column {name} holds an array of shape {column.shape[1:]} in each row; "
                "write it as one column a value, or leave it out"
            )
        if not hasattr(column, "dtype"):
            raise InputError(f"{path}: column {name} ({type(column).__name__}) is not of plain values; leave it out")
        if column.dtype.kind == "S":
            column = column.astype(str)
        missing = np.ma.getmaskarray(np.ma.asarray(column)) if hasattr(column, "mask") else None
        values = np.asarray(column)
        values = values.astype(values.dtype.newbyteorder("="))
        series = pl.Series(name, values.tolist() if values.dtype.kind in "UO" else values)
        if missing is not None and missing.any():
            series = series.to_frame().select(
                pl.when(pl.Series(missing)).then(None).otherwise(pl.col(name)).alias(name)
            )[name]
        # FITS and VOTable have no null text but the empty one.
        columns[name] = series.replace({"": None}) if series.dtype == pl.String else series
        if column.unit is not None:
            units[name] = str(column.unit)
    note = table.meta.get(_FITS_KEY) or table.meta.get("description") or ""
    metadata = {}
    if note.startswith(_CODED):
        # Descriptions come back wrapped anywhere: white space is not part of base64.
        metadata = json.loads(base64.b64decode(re.sub(r"\s+", "", note.removeprefix(_CODED))))
    return CatalogTable(pl.DataFrame(columns), units, metadata, path)


def _read_csv(path: Path, separator: str) -> pl.DataFrame:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rb") as lines:
        comments = 0  # only above the header: further down a # may begin an id
        while lines.readline().startswith(b"#"):
            comments += 1
    options: dict[str, Any] = {"separator": separator, "null_values": _MISSING, "skip_rows": comments}
    frame = pl.read_csv(path, infer_schema_length=None, **options)
    # "00012" is a name, not a number.
    integers = [name for name, dtype in frame.schema.items() if dtype.is_integer()]
    if integers:
        text = pl.read_csv(path, infer_schema_length=0, columns=integers, **options)
        padded = [name for name in integers if text[name].str.contains(r"^[+-]?0\d").any()]
        frame = frame.with_columns(text[name] for name in padded)
    return frame


def read_table(path: str | os.PathLike[str]) -> CatalogTable:
    r"""Read a table; the extension says which kind.

    Parameters
    ----------
    path : path
        `.csv`, `.csv.gz`, `.tsv`, `.parquet`, `.fits`, `.fit`, `.ecsv`, `.vot`, `.votable` or `.xml`.

    Returns
    -------
    CatalogTable
        Missing values are null. Integers are read as integers: a 19-digit id keeps every digit.

    Raises
    ------
    InputError
        If the file is absent, empty, of an unknown kind, or can't be read.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "votes.csv"
    >>> _ = path.write_text("objid,smooth\n587722981748572353,0.9\n")
    >>> read_table(path).frame["objid"][0]
    587722981748572353
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    extension = table_extension(path)
    try:
        if extension == ".parquet":
            table = pq.ParquetFile(path)
            note = (table.schema_arrow.metadata or {}).get(_METADATA_KEY)
            described = json.loads(note) if note else {}
            frame = pl.from_arrow(table.read())
            assert isinstance(frame, pl.DataFrame)
            result = CatalogTable(frame, described.pop("units", {}), described, path)
        elif extension in _ASTROPY_FORMATS:
            result = _from_astropy(path, _ASTROPY_FORMATS[extension])
        else:
            separator = "\t" if extension == ".tsv" else ","
            result = CatalogTable(_read_csv(path, separator), path=path)
    except InputError:
        raise
    except Exception as problem:  # the readers raise dozens of types for a broken file
        reason = str(problem).strip().splitlines() or [type(problem).__name__]
        raise InputError(f"{path}: can't be read as {extension[1:]}: {reason[0]}") from problem
    if result.frame.height == 0:
        raise InputError(f"{path}: the table has no rows")
    return result


def write_table(table: CatalogTable, path: str | os.PathLike[str]) -> Path:
    """Write a table in the format its extension names; the file appears whole or not at all.

    Parameters
    ----------
    table : CatalogTable
    path : path
        Extension as for `read_table`. Metadata travels in Parquet, ECSV, FITS and VOTable, not in CSV.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        If the extension is unknown.
    """
    path = Path(path)
    extension = table_extension(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        if extension == ".parquet":
            arrow = table.frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            note = json.dumps({**table.metadata, "units": table.units}).encode()
            pq.write_table(
                arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), _METADATA_KEY: note}), partial
            )
        elif extension in _ASTROPY_FORMATS:
            format_name = _ASTROPY_FORMATS[extension]
            _to_astropy(table, format_name).write(partial, format=format_name, overwrite=True)
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


def _to_astropy(table: CatalogTable, format_name: str) -> Any:
    from astropy.table import MaskedColumn, Table

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
            out[name].unit = table.units[name]
    # A VOTable keeps nothing but its description, FITS and ECSV keep keywords.
    note = _CODED + base64.b64encode(json.dumps(table.metadata).encode()).decode()
    out.meta["description" if format_name == "votable" else _FITS_KEY] = note
    return out
