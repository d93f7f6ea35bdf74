"""Any astronomical table in, any out: CSV, Parquet, FITS, ECSV, VOTable, and tables in memory.

Astropy reads and writes its formats at the edge; inside, a table is a polars frame with units and descriptions.
"""

from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from truemorph.catalogs.objects import CatalogTable as CatalogTable
from truemorph.catalogs.objects import from_arrow, from_astropy, from_object, kind_of, plain_frame, to_arrow, to_astropy
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
        `.xml`; or a polars, pandas, pyarrow or astropy table (see `truemorph.catalogs.objects.from_object`).

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
