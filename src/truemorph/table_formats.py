"""Formats of tables: CSV; FITS, ECSV and VOTable, which astropy reads and writes; and the VOTable in Parquet files.

Where a format has room for metadata, truemorph's are a JSON text (a mapping in ECSV).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl

from truemorph.errors import InputError

_MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "N/A", "--"]
# Bytes at the end of a CSV file in which its last line begins.
_LONGEST_LINE = 2**16

METADATA, _FITS_KEY = "truemorph", "TRUEMRPH"  # keys of our metadata
_FITS_NAME = 68  # longest name of a column in FITS


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON; characters that FITS or VOTable files do not keep are escaped."""
    return re.sub("['&<>]", lambda match: f"\\u{ord(match[0]):04x}", json.dumps(metadata))


def read_metadata(held: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Parse metadata of a file: JSON, or a mapping (ECSV)."""
    content = held.get(METADATA) or held.get(_FITS_KEY) or {}
    try:
        return {**(content if isinstance(content, Mapping) else json.loads(content))}
    except (ValueError, TypeError, RecursionError) as problem:
        raise InputError(f"{source}: its truemorph metadata are damaged; make the table again") from problem


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb")


def read_csv(path: Path, separator: str) -> pl.DataFrame:
    """Read a CSV file, gzipped or not, with names in its first line."""
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
        column.name
        for column in frame
        if column.dtype.is_integer() or (column.dtype.is_float() and (column == column.floor()).all())
    )
    digits, coded = (pl.all().str.contains(pattern) for pattern in (r"^[+-]?\d+([eE]\d+)?$", r"^[+-]?0\d|[eE]"))
    coded_names = text.select(digits.all() & coded.any()).collect(engine="streaming")
    frame = frame.with_columns(text.select(column.name for column in coded_names if column.any()).collect())
    return frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines


def write_csv(frames: Iterable[pl.DataFrame], path: Path, separator: str, zipped: bool) -> None:
    """Write pieces of one table to a CSV file, gzipped or not."""
    # Spreadsheets would run text that begins with = or @ as a formula.
    cell = pl.col(pl.String)
    safe = pl.when(cell.str.contains("^[=@]")).then("'" + cell).otherwise(cell).name.keep()
    with open(path, "wb") as raw:
        zipping: Any = gzip.GzipFile("", "wb", 6, raw, mtime=0) if zipped else nullcontext(raw)
        with zipping as file:
            for number, frame in enumerate(frames):
                frame.with_columns(safe).write_csv(file, separator=separator, include_header=number == 0)


def quiet() -> warnings.catch_warnings[None]:
    """Ignore warnings about harmless violations of formats in archives' files; unknown units are kept as text."""
    from astropy.utils.exceptions import AstropyWarning

    return warnings.catch_warnings(action="ignore", category=AstropyWarning)


def _read_fits(path: Path) -> Any:
    from astropy.io import fits
    from astropy.table import MaskedColumn, Table

    with fits.open(path, memmap=False) as units:
        unit = next((unit for unit in units if isinstance(unit, fits.BinTableHDU | fits.TableHDU)), None)
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
        1 + next(k for k, line in enumerate(lines) if not line.lstrip().startswith("#"))
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
    table.meta |= {
        parameter.name: parameter.value for parameter in file.get_first_table().params
    }  # astropy's tables do not have them
    return table


# Types of integers that FITS takes for logicals, or VOTable does not have; and which have the same values.
_WIDER_IN_FITS: dict[str, type] = {"int8": np.int16}
_WIDER_IN_VOTABLE: dict[str, type] = {"int8": np.int16, "uint16": np.int32, "uint32": np.int64}


def _widened(table: Any, wider: Mapping[str, type]) -> Any:
    """Return an astropy Table with wider types of integers."""
    for name in table.colnames:
        if kind := wider.get(table[name].dtype.name):
            table[name] = table[name].astype(kind)
    return table


def _unused(values: np.ndarray) -> int | None:
    """Return an integer that is none of the values, from the end of their type's range on; None if there is none."""
    info = np.iinfo(values.dtype)
    largest = min(info.max, 2**63 - 1)  # astropy reads no larger ones
    integers = range(info.min, largest + 1) if info.min < 0 else range(largest, -1, -1)
    held = set(np.unique(values).tolist()) if (values == integers[0]).any() else set()
    return next((integer for integer in integers if integer not in held), None)


def _write_fits(table: Any, path: Path) -> None:
    out = _widened(table, _WIDER_IN_FITS)
    if long := next((name for name in out.colnames if len(name) > _FITS_NAME), None):
        raise InputError(f"column {long}: FITS has names of up to {_FITS_NAME} characters; rename it")
    out.meta = {_FITS_KEY: metadata_text(out.meta)} if out.meta else {}
    for number, name in enumerate(out.colnames, 1):
        if hasattr(out[name], "mask") and out[name].dtype.kind in "biu":
            if out[name].dtype == bool:  # in FITS, booleans have no missing value
                out[name] = out[name].astype(np.int16)
            # Of itself, astropy writes 999999, or its last bits, for missing values.
            if (unused := _unused(np.asarray(out[name].compressed()))) is None:
                out[name], unused = out[name].astype(np.int32), np.iinfo(np.int32).min
            out[name].fill_value = unused
        if out[name].description:
            out[name].description = out[name].description.encode("ascii", "replace").decode()
            out.meta[f"TCOMM{number}"] = out[name].description  # for programs other than astropy
    out.write(path, format="fits", overwrite=True)


def _write_votable(table: Any, path: Path) -> None:
    from astropy.io import votable

    out = _widened(table, _WIDER_IN_VOTABLE)
    text, about = metadata_text(out.meta), out.meta.get("about")
    out.meta = {"description": str(about)} if about else {}
    file = votable.from_table(out)
    ours = votable.tree.Param(file, name=METADATA, datatype="unicodeChar", arraysize="*", value=text)
    file.get_first_table().params.append(ours)
    file.to_xml(str(path))


def _write_ecsv(out: Any, path: Path) -> None:
    from astropy.io import ascii

    out.meta = {METADATA: out.meta}
    writer = ascii.get_writer(writer_cls=ascii.Ecsv)
    writer.data.splitter.quoting = csv.QUOTE_NONNUMERIC  # all: other programs skip lines that begin with #
    path.write_text("\n".join([*writer.write(out), ""]), encoding="utf-8")


# Readers and writers of astropy's formats, of astropy Tables; the metadata are those of the Table.
ASTROPY: dict[str, tuple[Any, Any]] = {
    **dict.fromkeys((".fits", ".fit", ".fits.gz"), (_read_fits, _write_fits)),
    ".ecsv": (_read_ecsv, _write_ecsv),
    **dict.fromkeys((".vot", ".vot.gz", ".votable", ".xml"), (_read_votable, _write_votable)),
}


# Types of columns in VOTable.
_VOTABLE_TYPES = {
    pl.String: "unicodeChar", pl.Float64: "double", pl.Float32: "float", pl.Int64: "long", pl.Int32: "int",
    pl.Int16: "short", pl.UInt8: "unsignedByte", pl.Boolean: "bit",
}  # fmt: skip
# Units that are written as in astropy.
_SAME_UNITS = {"arcsec", "arcmin", "deg", "rad", "mag", "pc", "kpc", "Mpc", "s", "d", "yr", "solMass", "Jy"}


def voparquet(
    schema: pl.Schema, units: Mapping[str, str], descriptions: Mapping[str, str], metadata: Mapping[str, Any]
) -> dict[str, str]:
    """Return VOParquet metadata (a VOTable without data); none if columns are not supported.

    The text is written here, because astropy takes a second to import.
    """
    kinds = {name: _VOTABLE_TYPES.get(dtype.base_type()) for name, dtype in schema.items()}
    if None in kinds.values():
        return {}
    root = ElementTree.Element("VOTABLE", version="1.4", xmlns="http://www.ivoa.net/xml/VOTable/v1.3")
    fields = ElementTree.SubElement(ElementTree.SubElement(root, "RESOURCE", type="results"), "TABLE")
    if about := metadata.get("about"):
        ElementTree.SubElement(fields, "DESCRIPTION").text = str(about)
    for name, kind in kinds.items():
        arraysize = {"arraysize": "*"} if kind == "unicodeChar" else {}
        unit = {"unit": _votable_unit(units[name])} if units.get(name) else {}
        field = ElementTree.SubElement(fields, "FIELD", {"name": name, "datatype": str(kind), **arraysize, **unit})
        if descriptions.get(name):
            ElementTree.SubElement(field, "DESCRIPTION").text = descriptions[name]
    own = {"name": METADATA, "datatype": "unicodeChar", "arraysize": "*", "value": metadata_text(metadata)}
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
