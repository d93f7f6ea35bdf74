"""Prepared catalogues: read them, check ids, find images, select rows, and read gold labels."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.columns import FRACTIONS, NAMED, OBSERVED_LABEL, which_rows
from truemorph.catalogs.expressions import Expression, column_expression, compute, read_expression
from truemorph.catalogs.sampling import SPLITS
from truemorph.errors import InputError
from truemorph.findings import FindingWarning
from truemorph.missing import cleaned
from truemorph.tables import CatalogTable, kind_of, read_table

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".fits", ".fit", ".fits.gz")
_NUMBERS = {"gold", "sampling_weight", "draw_weight"} | {
    name for name, one in NAMED.items() if one.kind in ("number", "count")
}
_SQL = re.compile(r"['\"<>=]|\b(and|or)\b", re.IGNORECASE)
_RULE = re.compile(r"""\s*([^<>=!()'"]+?)\s*(>=|<=|==|=|<|>)\s*([-+0-9.eE]+)\s*""")
_YES_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_catalogue(source: Any, *, labelled: bool = True) -> CatalogTable:
    """Read a prepared catalogue and check every column that truemorph uses.

    Catalogues of version 0.1 are read too: their column `truth` becomes `gold`.

    Parameters
    ----------
    source : path, table or Preparation
        A file written by `truemorph prepare`, or a table in memory (see `read_table`).
    labelled : bool
        Whether every galaxy must have a label; if false, labels may be null.

    Returns
    -------
    CatalogTable

    Raises
    ------
    InputError
        If the table was not written by `truemorph prepare`, ids are missing or repeated, labels are not 0 or 1, α is
        not finite, or a column has the wrong type. The message has a line per problem, with the column, the number of
        rows and the first of them.
    """
    table = read_table(getattr(source, "catalogue", source))
    frame, path = table.frame, str(table.path or kind_of(source))
    if table.metadata.get("kind", "catalogue") != "catalogue" or set(OBSERVED_LABEL) & set(frame.columns):
        raise InputError(
            f"{path}: holds a model's labels, not a catalogue; give the catalogue, and this table as `labels`"
        )
    missing = [name for name in ("object_id", "label", "alpha", "split") if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: not a prepared catalogue (no column {missing[0]}); run `truemorph prepare` first")
    metadata = dict(table.metadata)
    if "truth_definition" in metadata and "truth" in frame.columns and "gold" not in frame.columns:
        frame = frame.rename({"truth": "gold"})
        metadata["gold_definition"] = metadata.pop("truth_definition")
    problems = _problems(frame, str(path), labelled)
    if problems:
        raise InputError("\n".join(problems) + "; prepare the catalogue again, or correct those rows")
    whole = [pl.col(name).cast(pl.Int64, strict=False) for name in ("label", "gold") if name in frame.columns]
    return replace(table, frame=frame.with_columns(whole), metadata=metadata)


def _problems(frame: pl.DataFrame, source: str, labelled: bool) -> list[str]:
    """Return why a catalogue can't be used, one line per kind of problem."""
    lines: list[str] = []

    def report(name: str, bad: np.ndarray, what: str) -> None:
        if bad.any():
            lines.append(f"{source}: column {name}: not {what} in {which_rows(bad, frame[name])}")

    def check(name: str, what: str, allowed: Callable[[np.ndarray], np.ndarray], *, null: bool = False) -> None:
        series = frame[name]
        if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
            lines.append(f"{source}: column {name} holds {series.dtype}, not {what}")
            return
        values = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
        report(name, ~allowed(values) & ~(np.isnan(values) & null), what)

    def at_least_0(values: np.ndarray) -> np.ndarray:
        return np.isfinite(values) & (values >= 0)

    try:
        object_ids(frame["object_id"], source)
    except InputError as problem:
        lines.append(str(problem))
    check("label", "0 (smooth) or 1 (disk)", lambda label: np.isin(label, (0, 1)), null=not labelled)
    check("alpha", "finite and at least 0", at_least_0)
    report(
        "split",
        ~frame["split"].cast(pl.String).is_in(SPLITS).fill_null(False).to_numpy(),
        f"one of {', '.join(SPLITS)}",
    )
    for name in [one for one in frame.columns if one in _NUMBERS]:
        if name == "gold":
            check(name, "0 (smooth) or 1 (disk)", lambda gold: np.isin(gold, (0, 1)), null=True)
        elif name in ("sampling_weight", "draw_weight"):
            check(name, "finite and at least 0", at_least_0)
        elif name in FRACTIONS:
            check(name, "between 0 and 1", lambda part: (part >= -1e-6) & (part <= 1 + 1e-6), null=True)
        else:
            check(name, "numbers", lambda values: np.ones(values.size, dtype=bool))
    if "image" in frame.columns and frame["image"].dtype not in (pl.String, pl.Null):
        lines.append(f"{source}: column image holds {frame['image'].dtype}, not file names")
    return lines


# --- ids --------------------------------------------------------------------------------------------------------------


def object_ids(series: pl.Series, table_name: str, rows: np.ndarray | None = None) -> pl.Series:
    """Check that ids are complete and unique, and return them as int64 or text.

    Parameters
    ----------
    series : polars.Series, shape (N,)
    table_name : str
        Name of the table in messages.
    rows : array of int, shape (N,), optional
        Row numbers in the table (from 0), if the ids are a selection of its rows.

    Raises
    ------
    InputError
        If ids are missing or repeated, or are floats that may have lost digits.

    Examples
    --------
    >>> object_ids(pl.Series("objid", [587722981748572353, 587722981748572354]), "votes.csv").dtype
    Int64
    """
    ids = as_ids(series, table_name)
    number = np.arange(1, len(ids) + 1) if rows is None else rows + 1
    absent = ids.is_null()
    if absent.any():
        raise InputError(
            f"{table_name}: column {ids.name}: missing id in {absent.sum():,d} of {len(ids):,d} rows (first: row "
            f"{number[int(absent.arg_true()[0])]}); give every galaxy an id"
        )
    repeated = ids.is_duplicated()
    if repeated.any():
        first = ids.filter(repeated)[0]
        twins = number[(ids == first).to_numpy()][:4]
        raise InputError(
            f"{table_name}: {repeated.sum()} rows share an id in column {ids.name} (first: {first} in rows "
            f"{', '.join(map(str, twins))}); keep one row per galaxy"
        )
    return ids.alias("object_id")


def as_ids(series: pl.Series, table_name: str) -> pl.Series:
    """Return ids as int64 if all fit, else as text; null if missing or blank.

    Raises
    ------
    InputError
        If ids are neither integers nor text, or are floats that may have lost digits.
    """
    dtype = series.dtype
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        text = series.cast(pl.String)
        return text.set(text.str.strip_chars() == "", None)
    if dtype.is_float():
        # Above 2^53 (2^24 in single precision) a float can't represent every integer.
        exact = 2**24 if dtype == pl.Float32 else 2**53
        bad = (((series.abs() >= exact) | (series != series.round())) & series.is_not_nan()).fill_null(False)
        if bad.any():
            raise InputError(
                f"{table_name}: column {series.name} holds ids as floats, which may have lost digits in "
                f"{which_rows(bad, series)}; write ids as integers or text (pandas: dtype='int64' or str)"
            )
    elif not (dtype.is_integer() or dtype == pl.Null):
        raise InputError(f"{table_name}: column {series.name} ({dtype}) can't be an id; use integers or text")
    whole = series.cast(pl.Int64, strict=False)
    missing = series.null_count() + (int(series.is_nan().sum()) if dtype.is_float() else 0)
    return whole if whole.null_count() == missing else series.cast(pl.String)


# --- images -----------------------------------------------------------------------------------------------------------


def image_folder(catalogue: CatalogTable) -> Path:
    """Return the folder that contains a catalogue's images.

    Raises
    ------
    InputError
        If the folder does not exist.
    """
    root = Path(catalogue.metadata.get("image_root", "."))
    if not root.is_dir():
        raise InputError(
            f"{catalogue.path}: its image folder {root} does not exist; prepare the catalogue again with `images`"
        )
    return root


def find_images(ids: pl.Series, names: pl.Series | None, root: Path) -> list[str | None]:
    """Find the image files of galaxies in a folder.

    Parameters
    ----------
    ids : polars.Series, shape (N,)
    names : polars.Series, shape (N,), optional
        File names from a table; by default an image is `<id>.jpg` or has another of `IMAGE_ENDINGS`.
    root : Path

    Returns
    -------
    list of str or None, length N
        Paths relative to the root; None if there is no file.
    """
    listed: dict[str, set[str]] = {}

    def exists(name: str) -> bool:
        # Listing a folder once is faster than checking each file.
        folder, file = os.path.split(name)
        if folder not in listed:
            try:
                with os.scandir(root / folder) as entries:
                    listed[folder] = {entry.name for entry in entries if entry.is_file()}
            except (OSError, ValueError):  # a name with a null character
                listed[folder] = set()
        return file in listed[folder]

    if names is not None:
        # The path as given, or its last part only: paths may include the image folder itself.
        some = ([name, name.rsplit("/", 1)[-1]] if name else [] for name in names.to_list())
    else:
        endings = [ending for lower in IMAGE_ENDINGS for ending in (lower, lower.upper())]
        some = ([f"{one}{ending}" for ending in endings] for one in ids.to_list())
    return [next((name for name in one if exists(name)), None) for one in some]


# --- conditions and gold classes --------------------------------------------------------------------------------------


def rows_where(frame: pl.DataFrame, conditions: Iterable[str], source: str) -> np.ndarray:
    """Return which rows meet every condition.

    Parameters
    ----------
    frame : polars.DataFrame
    conditions : iterable of str
        SQL expressions such as "petroMag_r < 17 AND redshift > 0.02", or "column=value" and "column=value1,value2", in
        which text needs no quotes. A row is not selected if a condition is null.
    source : str
        File name, for messages.

    Returns
    -------
    array of bool, shape (N,)

    Raises
    ------
    InputError
        If a column is missing, or a condition can't be parsed or is not true or false.

    Examples
    --------
    >>> frame = pl.DataFrame({"source": ["S82coadd", "DR7", "DR7"], "z": [0.1, 0.02, None]})
    >>> rows_where(frame, ["source=DR7,DR8", "z < 0.05"], "votes.csv")
    array([False,  True, False])
    """
    selected = np.ones(frame.height, dtype=bool)
    for text in conditions:
        column, equals, values = (part.strip() for part in text.partition("="))
        if equals and values and column in frame.columns and values not in frame.columns and not _SQL.search(values):
            listed = [value.strip() for value in values.split(",")]
            chosen = _equal_to_any(frame[column].alias(""), listed, f"{source}: column {column}")
        else:
            chosen = condition(text, frame, f"{source}: `where`")
        selected &= chosen.fill_null(False).to_numpy()
    return selected


def condition(text: str, frame: pl.DataFrame, about: str) -> pl.Series:
    """Evaluate an expression that is true or false; null if a value is missing.

    Raises
    ------
    InputError
        If it can't be parsed or computed, or is not a condition; messages begin with `about`.
    """
    result = _computed(read_expression(text, about), frame, about)
    if result.dtype not in (pl.Boolean, pl.Null):
        raise InputError(f"{about}: {text!r} is {result.dtype}, not true or false; write a comparison")
    return result.cast(pl.Boolean)


def _computed(expression: Expression, frame: pl.DataFrame, about: str) -> pl.Series:
    """Evaluate an expression; values such as -99, -999 and -9999 count as missing, with a warning."""
    known, findings = cleaned(frame, [name for name in expression.columns if name in frame.columns], about)
    for one in findings:
        warnings.warn(FindingWarning(one), stacklevel=5)
    return compute(expression, known, about)


def _equal_to_any(series: pl.Series, values: list[str], where: str) -> pl.Series:
    """Compare with the type of the column: as numbers, as true and false, or as text."""
    if series.dtype == pl.Boolean:
        unknown = [value for value in values if value.lower() not in _YES_NO]
        if unknown:
            raise InputError(f"{where} is true or false; `where` compares it with {unknown[0]!r}")
        return series.is_in([_YES_NO[value.lower()] for value in values])
    if not series.dtype.is_numeric():
        return series.cast(pl.String).is_in(values)
    try:
        if series.dtype.is_integer() and all(value.lstrip("+-").isdigit() for value in values):
            return series.cast(pl.Int128).is_in(pl.Series(map(int, values), dtype=pl.Int128).implode())
        return series.cast(pl.Float64).is_in([float(value) for value in values])
    except (ValueError, OverflowError) as problem:
        raise InputError(f"{where} holds numbers; `where` compares it with {', '.join(values)!r}") from problem


def gold_classes(frame: pl.DataFrame, rule: str, source: str) -> tuple[np.ndarray, str]:
    """Return gold labels of galaxies and their definition of "disk".

    Parameters
    ----------
    frame : polars.DataFrame
    rule : str
        A column of 0 (smooth), 1 (disk), and null or -1 (unknown); or an SQL expression such as "t_type>=-3", which is
        true for disks, false for smooth galaxies, and null if unknown.
    source : str
        File name, for messages.

    Returns
    -------
    classes : array of int, shape (N,)
        -1 if unknown.
    definition : str

    Raises
    ------
    InputError
        If a column is missing or not numeric, or a value is not a class.

    Examples
    --------
    >>> gold_classes(pl.DataFrame({"t_type": [-5, -2, 4, None]}), "t_type>=-3", "experts.csv")
    (array([ 0,  1,  1, -1]), 'disk: t_type >= -3')
    """
    about = f"{source}: gold classes"
    name = rule.strip()
    expression = column_expression(name) if name in frame.columns else read_expression(rule, about)
    series = _computed(expression, frame, about)
    if series.dtype not in (pl.Boolean, pl.Null) and not series.dtype.is_numeric():
        raise InputError(f"{about}: {expression.short} should be numbers or true and false, not {series.dtype}")
    values = series.cast(pl.Float64).fill_null(-1).to_numpy()
    bad = ~np.isin(values, (-1, 0, 1))
    if bad.any():
        raise InputError(
            f"{about}: {expression.short} should be 0 (smooth), 1 (disk) or empty; wrong in "
            f'{which_rows(bad, values)}; give a rule such as "{expression.short}>=1"'
        )
    if expression.lone:
        definition = f"{expression.text} is 1"
    else:
        simple = _RULE.fullmatch(expression.text)
        definition = " ".join(simple.groups()) if simple else expression.text
    return values.astype(np.int64), f"disk: {definition}"
