"""A datasheet for a catalogue: a page of Markdown that describes it (Gebru et al. 2021, doi:10.1145/3458723).

The sentences are in `datasheet.md.j2`; this module computes what they are filled with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
import polars as pl

from truemorph.catalogs.crossmatch import describe
from truemorph.io import plain

# Shown elsewhere on the page, or true only on the machine where the catalogue was made.
_NOT_SETTINGS = {"kind", "truemorph_version", "votes", "label_rule", "alpha", "gold_definition", "image_root"}
_LISTED_VALUES, _LONGEST_VALUE = 6, 24


def datasheet(
    frame: pl.DataFrame,
    *,
    name: str = "catalogue",
    units: Mapping[str, str] | None = None,
    descriptions: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    funnel: Iterable[tuple[str, int]] = (),
    notes: Iterable[str] = (),
    matches: Iterable[tuple[str, str, Mapping[str, Any]]] = (),
    provenance: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Write the datasheet of a catalogue.

    Parameters
    ----------
    frame : polars.DataFrame, N rows
        The catalogue.
    name : str
        Its name in the title.
    units, descriptions : mapping of str to str, optional
        By column. An empty unit means a dimensionless number; the unit of a column without an entry is unknown.
    metadata : mapping, optional
        The catalogue's metadata. `votes`, `label_rule`, `alpha`, `gold_definition`, `truemorph_version` and `drawn`
        appear in sentences, all others in a table of settings.
    funnel : iterable of (str, int)
        ("rows in", n), then each rule with the number of rows it removed (negative), then ("rows out", n).
    notes : iterable of str
        Warnings.
    matches : iterable of (str, str, mapping)
        Left table, right table and `Match.statistics` of each cross-match.
    provenance : mapping of str to mapping, optional
        For each source file: `url`, `date`, `bytes`, `sha256`, `query`, `licence`, `citation` and any other entry.

    Returns
    -------
    str
        Markdown.

    Examples
    --------
    >>> page = datasheet(pl.DataFrame({"label": [0, 1, 1]}), name="tiny", descriptions={"label": "0 smooth, 1 disk"})
    >>> print([line for line in page.splitlines() if line.startswith("| `label`")][0])
    | `label` | unknown | int64 | 0 | 0: 1 (33.3 %), 1: 2 (66.7 %) | 0 smooth, 1 disk |
    """
    metadata, provenance = metadata or {}, provenance or {}
    units, descriptions = units or {}, descriptions or {}
    known = {column: frame.height - frame[column].null_count() for column in frame.columns}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("truemorph.catalogs", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(text=_text, code=_code)
    return environment.get_template("datasheet.md.j2").render(
        name=name,
        metadata=metadata,
        rows=frame.height,
        gold=known.get("gold"),
        images=known.get("image"),
        splits=_splits(frame) if {"label", "split"} <= set(frame.columns) else [],
        columns=[_column(frame[one], units.get(one), descriptions.get(one)) for one in frame.columns],
        provenance=provenance,
        funnel=_funnel(funnel),
        matches=[describe(numbers, left, right) for left, right, numbers in matches],
        settings={key: value for key, value in metadata.items() if key not in _NOT_SETTINGS},
        selected=_selected_by_label(frame, metadata),
        notes=list(notes),
    )


def _column(series: pl.Series, unit: str | None, description: str | None) -> tuple[str, ...]:
    """The cells of a column's row: name, unit, type, missing, values, description."""
    missing = series.null_count() + (int(series.is_nan().sum()) if series.dtype.is_float() else 0)
    if not unit:  # only numbers have one; of ids nobody expects it
        number = series.dtype.is_numeric() and not _is_id(series)
        unit = "" if not number else "unknown" if unit is None else "none"
    return (
        _code(series.name),
        _text(unit) if unit else "",
        "text" if series.dtype == pl.String else str(series.dtype).lower().partition("(")[0],
        _part(missing, series.len()) if missing else "0",
        _text(_values(series)) if missing < series.len() else "",
        _text(description),
    )


def _is_id(series: pl.Series) -> bool:
    """Whether integers are all different, which makes their median meaningless."""
    return series.dtype.is_integer() and series.len() > _LISTED_VALUES and series.drop_nulls().is_unique().all()


def _values(series: pl.Series) -> str:
    """Counts of a few values, range and median of numbers, or the number of distinct values."""
    known = series.drop_nulls().alias("value")
    kind = known.dtype
    if kind.is_nested() or kind in (pl.Binary, pl.Object):
        return "not shown"
    if kind.is_float():
        known = known.drop_nans()
    else:
        counts = known.value_counts(name="rows").sort("value")
        if counts.height <= _LISTED_VALUES and max(len(str(value)) for value in counts["value"]) <= _LONGEST_VALUE:
            return ", ".join(f"{value}: {_part(n, series.len())}" for value, n in counts.rows())
    low: Any = known.min()
    middle: Any = known.median()
    high: Any = known.max()
    if kind.is_float():
        return f"{low:.4g} to {high:.4g}, median {middle:.4g}"
    if _is_id(known):
        return f"all different, {low} to {high}"
    if kind.is_integer():
        return f"{low} to {high}, median {middle:.4g}"
    return f"{low} to {high}" if kind.is_temporal() else f"{counts.height:,d} distinct"


def _splits(frame: pl.DataFrame) -> list[tuple[str, ...]]:
    """Galaxies of each label in each split, and in all."""
    order = ["train", "validation", "test"]
    order += sorted(set(frame["split"].drop_nulls()) - set(order))
    parts = [(split, frame.filter(pl.col("split") == split)["label"]) for split in order]
    return [
        (_text(split), f"{labels.len():,d}", *(_part(int((labels == label).sum()), labels.len()) for label in (0, 1)))
        for split, labels in [*parts, ("all", frame["label"])]
    ]


def _funnel(funnel: Iterable[tuple[str, int]]) -> list[tuple[str, str, str]]:
    rows, left = [], 0
    for rule, n in funnel:
        left = left + n if n < 0 else n
        rows.append((rule, f"{-n:,d}" if n < 0 else "", f"{left:,d}"))
    return rows


def _selected_by_label(frame: pl.DataFrame, metadata: Mapping[str, Any]) -> bool | None:
    """Whether galaxies were selected by their labels; None if nothing is recorded."""
    if "sampling_weight" in frame.columns:
        return bool(metadata.get("drawn")) or frame["sampling_weight"].n_unique() > 1
    return True if metadata.get("drawn") else None


def _part(n: int, total: int) -> str:
    return f"{n:,d} ({100 * n / max(total, 1):.1f} %)"


def _text(value: Any) -> str:
    """One line of text that Markdown shows unchanged, also in a table."""
    if value is None or value == "" or isinstance(value, jinja2.Undefined):
        return "unknown"
    line = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False, default=str)
    return re.sub(r"([\\`*|<\[])", r"\\\1", " ".join(line.split()))


def _code(name: str) -> str:
    """A name in the type of code, also in a table."""
    line = " ".join(name.split()).replace("|", r"\|")
    return _text(name) if "`" in line else f"`{line}`"
