"""Prepared catalogues: reading them back, choosing rows, finding their images and their trusted classes."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.catalogs.ids import object_ids
from truemorph.catalogs.names import FRACTIONS, NAMED
from truemorph.catalogs.sampling import SPLITS
from truemorph.errors import InputError, nearest
from truemorph.tables import CatalogTable, read_table

_NUMBERS = {"gold", "sampling_weight", "draw_weight"} | {
    name for name, one in NAMED.items() if one.kind in ("number", "count")
}

_RULE = re.compile(r"^\s*(?P<column>[^<>=!]+?)\s*(?P<sign>>=|<=|==|>|<)\s*(?P<number>[-+0-9.eE]+)\s*$")
_SIGNS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}


def read_catalogue(path: str | os.PathLike[str], *, labelled: bool = True) -> CatalogTable:
    """Read a prepared catalogue and check every column that truemorph uses.

    Catalogues of version 0.1 are read too: their column `truth` becomes `gold`.

    Parameters
    ----------
    path : path
    labelled : bool
        Whether every galaxy must have a label; without, labels may be null.

    Returns
    -------
    CatalogTable

    Raises
    ------
    InputError
        If the table is not one that `truemorph prepare` wrote; or if ids are missing or repeated, labels are not 0 or
        1, α is not finite, or a column is of the wrong type: one line for each, with the column, the number of rows and
        the first of them.
    """
    table = read_table(path)
    frame = table.frame
    if table.metadata.get("kind", "catalogue") != "catalogue" or "crowd_label" in frame.columns:
        raise InputError(f"{path}: holds a model's labels, not a catalogue; give it as --labels beside its catalogue")
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
    """What keeps a catalogue from being used, a line for each kind of violation."""
    lines: list[str] = []

    def report(name: str, bad: np.ndarray, what: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            first = f"first: row {row + 1}, {frame[name][row]!r}"
            lines.append(f"{source}: column {name}: {bad.sum():,d} values are not {what} ({first})")

    def check(name: str, allowed: Callable[[np.ndarray], np.ndarray], what: str, *, null: bool) -> None:
        series = frame[name]
        if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
            lines.append(f"{source}: column {name} holds {series.dtype}, not {what}")
            return
        values = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
        report(name, ~allowed(values) & ~(np.isnan(values) & null), what)

    try:
        object_ids(frame["object_id"], source)
    except InputError as problem:
        lines.append(str(problem))
    check("label", lambda label: np.isin(label, (0, 1)), "0 (smooth) or 1 (disk)", null=not labelled)
    check("alpha", lambda alpha: np.isfinite(alpha) & (alpha >= 0), "finite and at least 0", null=False)
    known = frame["split"].to_list()
    report("split", np.array([one not in SPLITS for one in known]), f"one of {', '.join(SPLITS)}")
    for name in [one for one in frame.columns if one in _NUMBERS]:
        if name == "gold":
            check(name, lambda gold: np.isin(gold, (0, 1)), "0 (smooth) or 1 (disk)", null=True)
        elif name in ("sampling_weight", "draw_weight"):
            check(name, lambda weight: np.isfinite(weight) & (weight >= 0), "finite and at least 0", null=False)
        elif name in FRACTIONS:
            check(name, lambda part: ~((part < -1e-6) | (part > 1 + 1e-6)), "between 0 and 1", null=True)
        else:
            check(name, lambda values: np.ones(values.size, dtype=bool), "numbers", null=True)
    if "image" in frame.columns and frame["image"].dtype not in (pl.String, pl.Null):
        lines.append(f"{source}: column image holds {frame['image'].dtype}, not file names")
    return lines


def parse_condition(condition: str) -> tuple[str, list[str]]:
    """Split "column=value" or "column=value1,value2".

    Examples
    --------
    >>> parse_condition("source=S82coadd")
    ('source', ['S82coadd'])
    """
    column, equals, values = condition.partition("=")
    if not equals or not column or not values:
        raise InputError(f"--where takes column=value or column=value1,value2; got {condition!r}")
    return column.strip(), [value.strip() for value in values.split(",")]


def _equal_to_any(series: pl.Series, values: list[str], source: str) -> pl.Series:
    """Compare as the column's own kind: numbers as numbers, yes and no as such, the rest as text."""
    if series.dtype == pl.Boolean:
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        for value in values:
            if value.lower() not in known:
                raise InputError(f"{source} is true or false, not {value!r}, as --where asks")
        return series.is_in([known[value.lower()] for value in values]).fill_null(False)
    if series.dtype.is_float():
        try:
            return series.is_in([float(value) for value in values]).fill_null(False)
        except ValueError:
            return pl.Series([False] * len(series))
    return series.cast(pl.String).is_in(values).fill_null(False)


def image_folder(catalogue: CatalogTable) -> Path:
    """The folder below which a catalogue's images lie.

    Raises
    ------
    InputError
        If it is not there.
    """
    root = Path(catalogue.metadata.get("image_root", "."))
    if not root.is_dir():
        raise InputError(
            f"{catalogue.path}: its images were below {root}, which is gone; prepare it again with --images"
        )
    return root


def rows_where(frame: pl.DataFrame, conditions: Iterable[str], source: str) -> np.ndarray:
    """Rows that meet every "column=value" condition, shape (N,) of bool.

    Raises
    ------
    InputError
        If a column is absent or a condition can't be read.
    """
    selected = np.ones(frame.height, dtype=bool)
    for condition in conditions:
        column, values = parse_condition(condition)
        if column not in frame.columns:
            raise InputError(f"{source}: no column {column!r} for --where; {nearest(column, frame.columns)}")
        selected &= _equal_to_any(frame[column].alias(""), values, f"{source}: column {column}").to_numpy()
    return selected


def trusted_classes(frame: pl.DataFrame, rule: str, source: str) -> tuple[np.ndarray, str]:
    """Classes that are known to be right, and what "disk" means in them.

    Parameters
    ----------
    frame : polars.DataFrame
    rule : str
        A column of 0 (smooth), 1 (disk), empty or -1 where unknown; or a rule such as "t_type>=-3": disk where it
        holds, smooth where it does not, unknown where the column is empty.
    source : str
        File name, for messages.

    Returns
    -------
    classes : array of int, shape (N,)
        -1 where unknown.
    definition : str

    Raises
    ------
    InputError
        If the column is absent or not of numbers, or a plain column holds something else than classes.

    Examples
    --------
    >>> trusted_classes(pl.DataFrame({"t_type": [-5, -2, 4, None]}), "t_type>=-3", "experts.csv")
    (array([ 0,  1,  1, -1]), 'disk: t_type >= -3')
    """
    found = _RULE.match(rule)
    column = found["column"].strip() if found else rule.strip()
    if column not in frame.columns:
        raise InputError(f"{source}: no column {column!r} for trusted classes; {nearest(column, frame.columns)}")
    series = frame[column]
    if series.dtype == pl.Boolean:
        series = series.cast(pl.Int64)
    if not series.dtype.is_numeric():
        raise InputError(f"{source}: column {column} should hold numbers to serve as trusted classes, not text")
    values = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
    known = np.isfinite(values)
    if found:
        number = float(found["number"])
        holds = _SIGNS[found["sign"]](values, number)
        return np.where(known, holds.astype(np.int64), -1), f"disk: {column} {found['sign']} {number:g}"
    bad = known & ~np.isin(values, (-1, 0, 1))
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{source}: column {column} should hold 0 (smooth), 1 (disk) or nothing, but row {row + 1} is "
            f'{values[row]:g}; give a rule such as "{column}>=1"'
        )
    return np.where(known, np.nan_to_num(values, nan=-1), -1).astype(np.int64), f"disk: {column} is 1"
