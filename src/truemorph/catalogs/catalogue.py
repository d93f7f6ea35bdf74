"""Prepared catalogues: read them, check ids, find images, select rows, and read gold labels."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.columns import FRACTIONS, NAMED, OBSERVED_LABEL, names_votes, which_rows
from truemorph.catalogs.sampling import SPLITS, split_galaxies
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings, findings_in
from truemorph.io import check_format
from truemorph.questions import SMOOTH_OR_DISK
from truemorph.tables import CatalogTable, cleaned, first_column, frame_hash, name_of, read_table

# Usual names of id columns, in order of preference.
ID_COLUMNS = ("object_id", "id_str", "dr7objid", "dr8objid", "objid", "GalaxyID", "iauname", "source_id", "id")
# As text, because another table may have the same ids as integers.
TEXT_ID = pl.col("object_id").cast(pl.String)
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".fits", ".fit", ".fits.gz")
_WEIGHTS = ("sampling_weight", "draw_weight")
# Allowed values of a catalogue's columns.
_LABELS = ("label", "gold")
_LIMITS = {
    **dict.fromkeys(("alpha", *_WEIGHTS), (0, np.finfo(float).max, "finite and at least 0")),
    **dict.fromkeys(FRACTIONS, (-1e-6, 1 + 1e-6, "between 0 and 1")),
}
_NUMBERS = {*_LABELS, *_LIMITS, *(name for name, column in NAMED.items() if column.kind in ("number", "count"))}
_SQL = re.compile(r"['\"<>=]|\b(and|or)\b", re.IGNORECASE)


def read_catalogue(source: Any, *, labelled: bool = True) -> CatalogTable:
    """Read a prepared catalogue, and check every column that is used; an error has a line per problem.

    Any table with `label` and `alpha` will do: ids and splits are made where there are none, with a finding. If not
    `labelled`, labels may be null.
    """
    table = read_table(getattr(source, "catalogue", source))
    frame, path = table.frame, str(table.path or name_of(source))
    check_format(table.metadata, path)
    if table.metadata.get("kind", "catalogue") != "catalogue" or OBSERVED_LABEL in frame.columns:
        raise InputError(f"{path}: holds a model's labels; give the catalogue, and this table as `labels`")
    for name in ("label", "alpha"):
        if name not in frame.columns:
            raise InputError(f"{path}: not a prepared catalogue (no column {name}); make one with truemorph prepare")
    frame, completed = _completed(frame, path)
    findings = (*findings_in(table.metadata), *completed)
    if problems := [*_problems(frame, path, labelled, len(label_classes(table)))]:
        raise InputError("\n".join(problems) + "; prepare the catalogue again, or correct those rows")
    whole = [pl.col(name).cast(pl.Int64, strict=False) for name in _LABELS if name in frame.columns]
    return replace(table, frame=frame.with_columns(whole), findings=findings)


def _completed(frame: pl.DataFrame, source: str) -> tuple[pl.DataFrame, Findings]:
    """Add ids and splits if a table has none."""
    made = []
    if "object_id" not in frame.columns:
        own = first_column(ID_COLUMNS, frame.columns)
        ids = pl.int_range(1, frame.height + 1, eager=True) if own is None else object_ids(frame[own], source)
        frame = frame.with_columns(ids.alias("object_id"))
        made.append(f"ids are {'row numbers' if own is None else f'those of column {own}'}")
    if "split" not in frame.columns:
        split, _ = split_galaxies(object_ids(frame["object_id"], source).to_list())
        frame = frame.with_columns(split=pl.Series(split))
        made.append("galaxies were divided into train, validation and test (80, 10 and 10 %) by their ids")
    message = f"{source}: not a prepared catalogue, so {' and '.join(made)}."
    action = "Prepare the table (truemorph prepare) to choose them, and to state how labels and α are defined."
    return frame, (Finding("catalogue-completed", "note", message, action),) if made else ()


def _problems(frame: pl.DataFrame, source: str, labelled: bool, n_classes: int) -> Iterator[str]:
    """Return why a catalogue can't be used, one line per kind of problem."""
    of_labels = (0, n_classes - 1, " or ".join(map(str, range(n_classes))))
    try:
        object_ids(frame["object_id"], source)
    except InputError as problem:
        yield str(problem)
    split = frame["split"]
    if split.dtype != pl.String:
        yield f"{source}: column split holds {split.dtype}, not one of {', '.join(SPLITS)}"
    elif (bad := ~split.is_in(SPLITS).fill_null(False)).any():
        yield f"{source}: column split: not one of {', '.join(SPLITS)} in {which_rows(bad, split)}"
    complete = {"alpha", *_WEIGHTS, *(["label"] if labelled else [])}
    for name in (column for column in frame.columns if column in _NUMBERS):
        low, high, what = of_labels if name in _LABELS else _LIMITS.get(name, (-np.inf, np.inf, "numbers"))
        if not is_numeric(frame[name]):
            yield f"{source}: column {name} holds {frame[name].dtype}, not {what}"
            continue
        values = np.asarray(frame[name], float)
        good = (values >= low) & (values <= high) | (np.isnan(values) & (name not in complete))
        if name in _LABELS:
            good &= np.isnan(values) | (values == np.round(values))
        if not good.all():
            yield f"{source}: column {name}: not {what} in {which_rows(~good, frame[name])}"
    if "image" in frame.columns and frame["image"].dtype not in (pl.String, pl.Null):
        yield f"{source}: column image holds {frame['image'].dtype}, not file names"


def is_numeric(series: pl.Series) -> bool:
    """Whether a column has numbers, or only missing values."""
    # An empty column of a CSV file is one of text.
    return series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null) or series.null_count() == len(series)


def object_ids(series: pl.Series, table_name: str, rows: np.ndarray | None = None) -> pl.Series:
    """Check that ids are complete and unique; return int64 or text. `rows` are their row numbers, from 0."""
    ids = as_ids(series, table_name)
    number = np.arange(1, len(ids) + 1) if rows is None else rows + 1
    if absent := ids.null_count():
        first = number[ids.is_null().arg_true()[0]]
        raise InputError(f"{table_name}: column {ids.name}: {absent:,d} rows have no id (first: row {first})")
    repeated = ids.is_duplicated()
    if repeated.any():
        first = ids.filter(repeated)[0]
        twins = f"first: {first} in rows {', '.join(map(str, number[(ids == first).to_numpy()][:4]))}"
        raise InputError(f"{table_name}: {repeated.sum()} rows share an id in column {ids.name} ({twins}); keep one")
    return ids.alias("object_id")


def as_ids(series: pl.Series, table_name: str) -> pl.Series:
    """Return ids as int64 if all fit, else as text; null if missing. Floats that may have lost digits are errors."""
    dtype = series.dtype
    if dtype == pl.String:
        if (bad := series.str.contains("\0", literal=True).fill_null(False)).any():
            where = which_rows(bad, series)
            raise InputError(f"{table_name}: column {series.name}: ids with a null character in {where}; remove it")
        return series.set(series.str.strip_chars() == "", None)
    if dtype.is_float():
        # Above 2^53 (2^24 in single precision) a float can't represent every integer.
        exact, series = 2**24 if dtype == pl.Float32 else 2**53, series.fill_nan(None)
        bad = ((series.abs() >= exact) | (series != series.round())).fill_null(False)
        if bad.any():
            raise InputError(
                f"{table_name}: column {series.name} holds ids as floats, which may have lost digits in "
                f"{which_rows(bad, series)}; write ids as integers or text (pandas: dtype='int64' or str)"
            )
    elif not (dtype.is_integer() or dtype == pl.Null):
        raise InputError(f"{table_name}: column {series.name} ({dtype}) can't be an id; use integers or text")
    whole = series.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == series.null_count() else series.cast(pl.String)


def checksum(frame: pl.DataFrame) -> str:
    """Return a checksum of ids, labels and α, on which estimates and plans rest; the order of rows is free."""
    return frame_hash(frame.select(TEXT_ID, "label", "alpha").sort("object_id"))


def image_folder(catalogue: CatalogTable) -> Path:
    """Return the folder that contains a catalogue's images."""
    root = Path(catalogue.metadata.get("image_root", "." if catalogue.path is None else catalogue.path.parent))
    if not root.is_dir():
        raise InputError(f"{catalogue.path}: no image folder {root}; prepare the catalogue again with `images`")
    return root


def find_images(ids: pl.Series, names: pl.Series | None, root: Path) -> list[str | None]:
    """Find the image files of galaxies in a folder; paths relative to it, None if there is no file.

    `names` are file names from a table; by default an image is `<id>.jpg` or has another of `IMAGE_ENDINGS`. A name may
    include folders above this one: its first parts are left out as long as no other name has the same end.
    """

    @cache  # listing a folder once is faster than checking each file
    def files(folder: str) -> set[str]:
        try:
            return set(os.listdir(root / folder))
        except (OSError, ValueError):  # a name with a null character
            return set()

    def exists(name: str) -> bool:
        folder, file = os.path.split(name)
        return file in files(folder)

    if names is not None:
        paths = [os.path.normpath(name or "") for name in names.to_list()]
        ends = {name: [name, *(name[slash.end() :] for slash in re.finditer("/", name))] for name in set(paths)}
        often = Counter(end for candidates in ends.values() for end in candidates)
        candidates = ([end for end in ends[name] if end == name or often[end] == 1] for name in paths)
    else:
        endings = [ending for lower in IMAGE_ENDINGS for ending in (lower, lower.upper())]
        candidates = ([f"{name}{ending}" for ending in endings] for name in ids.to_list())
    return [next(filter(exists, alternatives), None) for alternatives in candidates]


def rows_where(frame: pl.DataFrame, conditions: Sequence[str], source: str) -> tuple[np.ndarray, list[Finding]]:
    """Return which rows meet every condition, shape (N,), and findings on missing values; an InputError if none does.

    Conditions are SQL expressions such as "petroMag_r < 17 AND redshift > 0.02", or "column=value1,value2", in which
    text needs no quotes. A row is not selected if a condition is null.
    """
    selected, findings = np.ones(frame.height, bool), list[Finding]()
    for text in conditions:
        column, _, values = (part.strip() for part in text.partition("="))
        if values and column in frame.columns and values not in frame.columns and not _SQL.search(values):
            listed = [value.strip() for value in values.split(",")]
            if frame[column].dtype == pl.String:
                listed = [f"'{value}'" for value in listed]
            name = column.replace('"', '""')
            text = f'"{name}" IN ({", ".join(listed)})'
        meets, more = condition(text, frame, f"{source}: `where`")
        selected &= meets.fill_null(False).to_numpy()
        findings += more
    if not selected.any():
        raise InputError(f"{source}: no galaxy meets {' and '.join(conditions)}")
    return selected, findings


def condition(text: str, frame: pl.DataFrame, about: str) -> tuple[pl.Series, list[Finding]]:
    """Evaluate an expression that is true or false; null if a value is missing. Messages begin with `about`."""
    from truemorph.catalogs.expressions import read_expression  # its parser takes a third of a second

    result, findings = computed(read_expression(text, about), frame, about)
    if result.dtype not in (pl.Boolean, pl.Null):
        raise InputError(f"{about}: {text!r} is {result.dtype}, not true or false; write a comparison")
    return result.cast(pl.Boolean), findings


def computed(expression: Any, frame: pl.DataFrame, about: str) -> tuple[pl.Series, list[Finding]]:
    """Evaluate an expression; values such as -99, -999 and -9999 count as missing, with a finding."""
    from truemorph.catalogs.expressions import compute

    clean_frame, findings = cleaned(frame, [name for name in expression.columns if name in frame.columns], about)
    return compute(expression, clean_frame, about), findings


def label_classes(catalogue: CatalogTable) -> tuple[str, ...]:
    """Return the names of the classes of a catalogue's labels, in the order of their numbers."""
    return tuple(catalogue.metadata.get("classes", SMOOTH_OR_DISK))


def classes_of(catalogue: CatalogTable) -> tuple[str, str]:
    """Return the names of the classes of labels 0 and 1; InputError if there are more."""
    first, second, *others = label_classes(catalogue)
    if others:
        raise InputError(
            f"{catalogue.source}: has labels of {2 + len(others)} classes; name their question (`question`)"
        )
    return first, second


def from_votes(definition: str) -> list[Finding]:
    """Return a problem if gold labels are made of columns of votes, whose names are in their definition."""
    if not names_votes(definition):
        return []
    message = (
        f"The gold labels are made of volunteers' votes ({definition}), and have the bias that they are to measure."
    )
    return [Finding("gold-from-votes", "problem", message, "Give classes from experts or better images (`gold`).")]
