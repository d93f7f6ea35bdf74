"""Prepared catalogues: reading them back, selecting rows, finding their images and their gold classes."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.catalogs.expressions import Expression, column_expression, compute, read_expression
from truemorph.catalogs.ids import object_ids
from truemorph.catalogs.names import FRACTIONS, NAMED
from truemorph.catalogs.sampling import SPLITS
from truemorph.errors import InputError, TruemorphWarning
from truemorph.missing import without_sentinels
from truemorph.tables import CatalogTable, read_table

_NUMBERS = {"gold", "sampling_weight", "draw_weight"} | {
    name for name, one in NAMED.items() if one.kind in ("number", "count")
}
_SQL = re.compile(r"['\"<>=]|\b(and|or)\b", re.IGNORECASE)
_RULE = re.compile(r"""\s*([^<>=!()'"]+?)\s*(>=|<=|==|=|<|>)\s*([-+0-9.eE]+)\s*""")
_YES_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


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
            lines.append(f"{source}: column {name}: not {what} in {bad.sum():,d} of {bad.size:,d} rows ({first})")

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
    """Rows that meet every condition.

    Parameters
    ----------
    frame : polars.DataFrame
    conditions : iterable of str
        SQL expressions such as "petroMag_r < 17 AND redshift > 0.02", or "column=value" and "column=value1,value2",
        where text needs no quotes. A row for which a condition is null is not selected.
    source : str
        File name, for messages.

    Returns
    -------
    array of bool, shape (N,)

    Raises
    ------
    InputError
        If a column is absent, or a condition can't be read or is not true or false.

    Examples
    --------
    >>> frame = pl.DataFrame({"source": ["S82coadd", "DR7", "DR7"], "z": [0.1, 0.02, None]})
    >>> rows_where(frame, ["source=DR7,DR8", "z < 0.05"], "votes.csv")
    array([False,  True, False])
    """
    selected = np.ones(frame.height, dtype=bool)
    for condition in conditions:
        column, equals, values = (part.strip() for part in condition.partition("="))
        if equals and values and column in frame.columns and values not in frame.columns and not _SQL.search(values):
            listed = [value.strip() for value in values.split(",")]
            chosen = _equal_to_any(frame[column].alias(""), listed, f"{source}: column {column}")
        else:
            about = f"{source}: --where"
            chosen = _computed(read_expression(condition, about), frame, about)
            if chosen.dtype not in (pl.Boolean, pl.Null):
                raise InputError(f"{about}: {condition!r} is {chosen.dtype}, not true or false; write a comparison")
        selected &= chosen.cast(pl.Boolean).fill_null(False).to_numpy()
    return selected


def _computed(expression: Expression, frame: pl.DataFrame, about: str) -> pl.Series:
    """Evaluate an expression; -99, -999, -9999 and their like are missing, with a warning."""
    known = [
        without_sentinels(frame[name], f"{about}: column {name}")
        for name in expression.columns
        if name in frame.columns
    ]
    for note in (note for _, notes in known for note in notes):
        warnings.warn(note, TruemorphWarning, stacklevel=4)
    return compute(expression, frame.with_columns(series for series, _ in known), about)


def _equal_to_any(series: pl.Series, values: list[str], where: str) -> pl.Series:
    """Compare as the column's own type: numbers as numbers, yes and no as such, the rest as text."""
    if series.dtype == pl.Boolean:
        unknown = [value for value in values if value.lower() not in _YES_NO]
        if unknown:
            raise InputError(f"{where} is true or false, not {unknown[0]!r}, as --where asks")
        return series.is_in([_YES_NO[value.lower()] for value in values])
    if not series.dtype.is_numeric():
        return series.cast(pl.String).is_in(values)
    try:
        if series.dtype.is_integer() and all(value.lstrip("+-").isdigit() for value in values):
            return series.cast(pl.Int128).is_in(pl.Series(map(int, values), dtype=pl.Int128).implode())
        return series.cast(pl.Float64).is_in([float(value) for value in values])
    except (ValueError, OverflowError) as problem:
        raise InputError(f"{where} holds numbers, not {', '.join(values)!r}, as --where asks") from problem


def gold_classes(frame: pl.DataFrame, rule: str, source: str) -> tuple[np.ndarray, str]:
    """Gold classes of galaxies, and what "disk" means in them.

    Parameters
    ----------
    frame : polars.DataFrame
    rule : str
        A column of 0 (smooth), 1 (disk), null or -1 (unknown); or an SQL expression such as "t_type>=-3": disk where
        it is true, smooth where it is false, unknown where it is null.
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
        If a column is absent or not of numbers, or a value is not a class.

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
        raise InputError(f"{about}: {expression.said} should be numbers or true and false, not {series.dtype}")
    values = series.cast(pl.Float64).fill_null(-1).to_numpy()
    bad = ~np.isin(values, (-1, 0, 1))
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{about}: {expression.said} should be 0 (smooth), 1 (disk) or nothing, but row {row + 1} is "
            f'{values[row]:g}; give a rule such as "{expression.said}>=1"'
        )
    if expression.lone:
        definition = f"{expression.text} is 1"
    else:
        simple = _RULE.fullmatch(expression.text)
        definition = " ".join(simple.groups()) if simple else expression.text
    return values.astype(np.int64), f"disk: {definition}"
