"""Write a datasheet for a catalogue in Markdown (Gebru et al. 2021, doi:10.1145/3458723).

The sentences are in `datasheet.md.j2`; this module computes their values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import polars as pl

from truemorph.catalogs.columns import ADDED, NAMED
from truemorph.catalogs.crossmatch import describe
from truemorph.catalogs.sampling import SPLITS, UNUSED
from truemorph.findings import Finding
from truemorph.io import plain
from truemorph.tables import CatalogTable

# Shown elsewhere on the page, too long, or valid only on the machine where the catalogue was made.
_NOT_SETTINGS = {"kind", "truemorph_version", "votes", "label_rule", "alpha", "gold_definition", "image_root"}
_NOT_SETTINGS |= {"matches", "mapping"}
_LISTED_VALUES, _LONGEST_VALUE = 6, 24


def datasheet(
    catalogue: CatalogTable,
    *,
    name: str = "catalogue",
    funnel: Sequence[tuple[str, int]] = (),
    findings: Sequence[Finding] = (),
    provenance: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Write the datasheet of a catalogue.

    Parameters
    ----------
    catalogue : CatalogTable, N rows
        The metadata `votes`, `label_rule`, `alpha`, `gold_definition`, `truemorph_version`, `matches` and `drawn`
        appear in sentences, all others in a table of settings.
    name : str
        Name in the title.
    funnel : sequence of (str, int)
        ("rows in", n), then each rule with the number of rows it removed (negative), then ("rows out", n).
    findings : sequence of Finding
        Findings to list.
    provenance : mapping of str to mapping, optional
        For each source file: `url`, `date`, `bytes`, `sha256`, `query`, `licence`, `citation` and any other entry.

    Returns
    -------
    str
        Markdown.

    Examples
    --------
    >>> table = CatalogTable(pl.DataFrame({"label": [0, 1, 1]}), descriptions={"label": "0 smooth, 1 disk"})
    >>> print([line for line in datasheet(table).splitlines() if line.startswith("| `label`")][0])
    | `label` | none | int64 | 0 | 0: 1 (33.3 %), 1: 2 (66.7 %) | 0 smooth, 1 disk |
    """
    frame, metadata = catalogue.frame, catalogue.metadata
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
        known={column: frame.height - frame[column].null_count() for column in frame.columns},
        splits=_splits(frame) if {"label", "split"} <= set(frame.columns) else [],
        columns=[_column(series, catalogue) for series in frame],
        provenance=provenance or {},
        funnel=funnel,
        matches=[describe(match, *match["tables"]) for match in metadata.get("matches", ())],
        settings={key: value for key, value in metadata.items() if key not in _NOT_SETTINGS},
        weighted="sampling_weight" in frame.columns and frame["sampling_weight"].n_unique() > 1,
        findings=findings,
    )


def _column(series: pl.Series, catalogue: CatalogTable) -> tuple[str, ...]:
    """Return the table cells of a column: name, unit, type, missing, values, description."""
    missing = series.null_count() + (int(series.is_nan().sum()) if series.dtype.is_float() else 0)
    unit = catalogue.units.get(series.name, "")
    if not unit and series.dtype.is_numeric() and not _is_id(series):
        # For a column with several possible units, no unit means unknown.
        own = series.name in ADDED or (series.name in NAMED and len(NAMED[series.name].units) == 1)
        unit = "none" if own else "unknown"
    return (
        _code(series.name),
        _text(unit) if unit else "",
        "text" if series.dtype == pl.String else str(series.dtype).lower().partition("(")[0],
        _part(missing, series.len()) if missing else "0",
        _text(_values(series)) if missing < series.len() else "",
        _text(catalogue.descriptions.get(series.name)),
    )


def _is_id(series: pl.Series) -> bool:
    """Whether integers are all different, so that a median is meaningless."""
    return series.dtype.is_integer() and series.len() > _LISTED_VALUES and series.drop_nulls().is_unique().all()


def _values(series: pl.Series) -> str:
    """Return counts of a few values, range and median of numbers, or the number of distinct values."""
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
    """Count galaxies by label in each split and in total."""
    parts = [(split, frame.filter(pl.col("split") == split)["label"]) for split in SPLITS]
    return [
        (_text(split), f"{labels.len():,d}", *(_part(int((labels == label).sum()), labels.len()) for label in (0, 1)))
        for split, labels in [*parts, ("all", frame["label"])]
        if split != UNUSED or labels.len()
    ]


def _part(n: int, total: int) -> str:
    return f"{n:,d} ({100 * n / max(total, 1):.1f} %)"


def _text(value: Any) -> str:
    """Return one line of text, escaped for Markdown and its tables."""
    if value is None or value == "" or isinstance(value, jinja2.Undefined):
        return "unknown"
    line = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False, default=str)
    return re.sub(r"([\\`*|<\[])", r"\\\1", " ".join(line.split()))


def _code(name: str) -> str:
    """Return a name as inline code, also for tables."""
    line = " ".join(name.split()).replace("|", r"\|")
    return _text(name) if "`" in line else f"`{line}`"
