"""A datasheet for a catalogue: one page of Markdown that travels with it.

The headings are those of Gebru et al. 2021, "Datasheets for Datasets" (Communications of the ACM 64, 12, 86;
doi:10.1145/3458723). Everything on the page is read from the catalogue and from what is recorded of its sources; what
is recorded nowhere is called unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.crossmatch import describe

UNKNOWN = "unknown"
# Said in sentences elsewhere on the page, or of this machine alone.
_NOT_SETTINGS = {"kind", "truemorph_version", "votes", "label_rule", "alpha", "truth_definition", "image_root"}
_LISTED_VALUES, _LONGEST_VALUE = 6, 24
_OF_A_SOURCE = {"url": "from", "date": "fetched", "bytes": "bytes", "sha256": "sha256", "licence": "licence"}


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
    """Write a catalogue's datasheet.

    Parameters
    ----------
    frame : polars.DataFrame, N rows
        The catalogue.
    name : str
        What it is called.
    units, descriptions : mapping of str to str, optional
        By column. An empty unit means a number without unit; a column that is not named has an unknown one.
    metadata : mapping, optional
        What the catalogue carries: `alpha`, `votes`, `label_rule`, `truth_definition`, `truemorph_version` and
        `balanced` are put in sentences, other entries are listed.
    funnel : iterable of (str, int)
        ("rows in", n), then each rule with the rows it lost (negative), then ("rows out", n).
    notes : iterable of str
        What a careful reader should know.
    matches : iterable of (str, str, mapping)
        Left table, right table and `Match.statistics` of each cross-match.
    provenance : mapping of str to mapping, optional
        By file of a source: `url`, `date`, `bytes`, `sha256`, `query`, `licence`, `citation`, and anything else that is
        recorded of it. An empty mapping names a source of which nothing is recorded.

    Returns
    -------
    str
        Markdown.

    Examples
    --------
    >>> page = datasheet(pl.DataFrame({"label": [0, 1, 1]}), name="tiny", descriptions={"label": "0 smooth, 1 disk"})
    >>> print(page.splitlines()[0])
    # Datasheet of tiny
    >>> print([line for line in page.splitlines() if line.startswith("| `label`")][0])
    | `label` | unknown | int64 | 0 | 0: 1 (33.3 %), 1: 2 (66.7 %) | 0 smooth, 1 disk |
    """
    metadata, provenance = metadata or {}, provenance or {}
    version = metadata.get("truemorph_version")
    made_by = f"`truemorph prepare`, version {_text(version)}" if version else UNKNOWN
    parts = [
        f"# Datasheet of {_text(name)}",
        "The questions are those of Gebru et al. 2021, *Datasheets for Datasets* (doi:10.1145/3458723). Answers are "
        "taken from the catalogue and from what is recorded of its sources. What is called unknown is recorded "
        "nowhere: fill it in before you pass the catalogue on.",
        "## Motivation",
        _bullets(
            "purpose: to measure how resolution biases morphological labels, and to learn and undo that bias",
            f"made with: {made_by}",
            f"made by, for and funded by: {UNKNOWN}",
        ),
        *_composition(frame, units or {}, descriptions or {}, metadata),
        *_collection(provenance),
        *_preprocessing(funnel, matches, metadata),
        *_uses(frame, metadata),
        "## Warnings",
        _bullets(*map(_text, notes)) or "None was given.",
        *_distribution(provenance),
    ]
    return "\n\n".join(parts) + "\n"


def _composition(
    frame: pl.DataFrame, units: Mapping[str, str], descriptions: Mapping[str, str], metadata: Mapping[str, Any]
) -> list[str]:
    facts = [f"each of the {frame.height:,d} rows is a galaxy (so the questions on people are left out)"]
    for key, what in (("votes", "votes"), ("label_rule", "label"), ("alpha", "alpha")):
        facts.append(f"{what}: {_text(metadata.get(key, UNKNOWN))}")
    if "truth" in frame.columns:
        trusted = frame.height - frame["truth"].null_count()
        meaning = _text(metadata.get("truth_definition", f"definition {UNKNOWN}"))
        facts.append(f"trusted classes: {trusted:,d} rows ({meaning})")
    if "image" in frame.columns:
        facts.append(f"pictures: {frame.height - frame['image'].null_count():,d} rows have one")
    table = [
        (
            _code(column),
            _unit(frame[column], units.get(column)),
            _type(frame[column].dtype),
            _missing(frame[column]),
            _values(frame[column]),
            _text(descriptions.get(column) or UNKNOWN),
        )
        for column in frame.columns
    ]
    parts = ["## Composition", _bullets(*facts)]
    if {"label", "split"} <= set(frame.columns):
        parts += ["### Labels and splits", _splits(frame)]
    return [*parts, "### Columns", _table(("column", "unit", "type", "missing", "values", "description"), table)]


def _splits(frame: pl.DataFrame) -> str:
    """Galaxies of each split and label."""
    counts = frame.group_by("split").agg(
        pl.len().alias("all"), (pl.col("label") == 0).sum().alias("smooth"), (pl.col("label") == 1).sum().alias("disk")
    )
    first = ["train", "validation", "test"]
    counts = counts.sort(pl.col("split").replace_strict(first, range(3), default=3, return_dtype=pl.Int64), "split")
    rows = [*counts.rows(), ("all", frame.height, (frame["label"] == 0).sum(), (frame["label"] == 1).sum())]
    shown = [
        (_text(split), f"{n:,d}", *(f"{one:,d} ({100 * one / max(n, 1):.1f} %)" for one in labels))
        for split, n, *labels in rows
    ]
    return _table(("split", "galaxies", "smooth", "disk"), shown)


def _collection(provenance: Mapping[str, Mapping[str, Any]]) -> list[str]:
    parts = ["## Collection"]
    if not provenance:
        return [*parts, f"Where the tables came from, when, and how: {UNKNOWN}."]
    for file, entry in provenance.items():
        parts.append(f"### {_code(file)}")
        if not entry:
            parts.append("Nothing is recorded of where it came from.")
            continue
        lines = [f"{what}: {_recorded(key, entry.get(key))}" for key, what in _OF_A_SOURCE.items()]
        lines.append(f"cite: {_recorded('citation', entry.get('citation'))}")
        others = [key for key in entry if entry[key] is not None and key not in {*_OF_A_SOURCE, "citation", "query"}]
        lines += [f"{_text(key)}: {_recorded(key, entry[key])}" for key in others]
        parts.append(_bullets(*lines))
        if entry.get("query"):
            parts += ["Query:", _fenced(str(entry["query"]))]
    return parts


def _preprocessing(
    funnel: Iterable[tuple[str, int]],
    matches: Iterable[tuple[str, str, Mapping[str, Any]]],
    metadata: Mapping[str, Any],
) -> list[str]:
    parts = ["## Preprocessing, cleaning and labelling"]
    rows, left = [], 0
    for rule, n in funnel:
        left = left + n if n < 0 else n
        rows.append((_text(rule), f"{-n:,d}" if n < 0 else "", f"{left:,d}"))
    parts.append(_table(("rule", "rows lost", "rows left"), rows) if rows else f"Rows left out, and why: {UNKNOWN}.")
    joined = [_text(describe(numbers, left_name, right_name)) for left_name, right_name, numbers in matches]
    if joined:
        parts += ["Cross-matches:", _bullets(*joined)]
    settings = [(_code(key), _text(_plain(value))) for key, value in metadata.items() if key not in _NOT_SETTINGS]
    if settings:
        parts += ["Settings:", _table(("setting", "value"), settings)]
    return parts


def _uses(frame: pl.DataFrame, metadata: Mapping[str, Any]) -> list[str]:
    facts = [
        "meant for: `truemorph bias`, `transition`, `train` and `label`",
        "labels are what people said, not what galaxies are: their class fractions are expected to change with alpha",
        "theta, and all else made with alpha, is in the unit of alpha above and compares only with what has that unit",
    ]
    weights = frame["sampling_weight"] if "sampling_weight" in frame.columns else None
    if metadata.get("balanced") or metadata.get("drawn") or (weights is not None and weights.n_unique() > 1):
        facts.append(
            "galaxies to train on were chosen by label: class fractions among them mean nothing unless each galaxy "
            "counts by its `sampling_weight`"
        )
    elif weights is None:
        facts.append(f"whether galaxies were chosen by label: {UNKNOWN}")
    return ["## Uses", _bullets(*facts)]


def _distribution(provenance: Mapping[str, Mapping[str, Any]]) -> list[str]:
    licences, citations = (
        list(dict.fromkeys(_plain(entry[key]) for entry in provenance.values() if entry.get(key)))
        for key in ("licence", "citation")
    )
    return [
        "## Distribution and maintenance",
        _bullets(
            f"licence of this catalogue: {UNKNOWN}",
            f"licences of its sources: {_text('; '.join(licences) or UNKNOWN)}",
            f"please cite: {_text('; '.join(citations) or UNKNOWN)}",
            f"who keeps it, and where errors are reported: {UNKNOWN}",
        ),
    ]


def _unit(series: pl.Series, unit: str | None) -> str:
    if unit is not None:
        return _text(unit) or "none"
    return UNKNOWN if series.dtype.is_numeric() and not _is_key(series.drop_nulls()) else ""


def _is_key(known: pl.Series) -> bool:
    """Whole numbers of which no two are the same: ids, which have no unit and no median."""
    if not known.dtype.is_integer() or len(known) <= _LISTED_VALUES:
        return False
    low, high = (int(end) for end in (known.min(), known.max()))  # type: ignore[arg-type]
    return high - low + 1 >= len(known) == known.n_unique()


def _type(dtype: pl.DataType) -> str:
    return "text" if dtype == pl.String else str(dtype).lower().partition("(")[0]


def _missing(series: pl.Series) -> str:
    n = series.null_count() + (int(series.is_nan().sum()) if series.dtype.is_float() else 0)
    return f"{n:,d} ({100 * n / len(series):.1f} %)" if n else "0"


def _values(series: pl.Series) -> str:
    """Range and median of numbers, counts of a few values, the number of distinct values of many."""
    known = series.drop_nulls().alias("value")
    infinite = int(known.is_infinite().sum()) if known.dtype.is_float() else 0
    if known.dtype.is_float():
        known = known.filter(known.is_finite())
    if known.is_empty():
        return f"{infinite:,d} infinite" if infinite else "none known"
    dtype = known.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        return ""
    low: Any = known.min()
    middle: Any = known.median()
    high: Any = known.max()
    if dtype.is_float() or dtype.is_decimal():
        return f"{low:.4g} to {high:.4g}, median {middle:.4g}" + (f", {infinite:,d} infinite" if infinite else "")
    if _is_key(known):
        return f"all different, {low} to {high}"
    distinct = known.n_unique()
    if distinct <= _LISTED_VALUES and max(len(str(value)) for value in known.unique()) <= _LONGEST_VALUE:
        counts = known.value_counts(name="rows").sort("value")
        if not dtype.is_integer():
            counts = counts.sort("rows", descending=True, maintain_order=True)
        return ", ".join(f"{_text(str(value))}: {n:,d} ({100 * n / len(series):.1f} %)" for value, n in counts.rows())
    if dtype.is_integer():
        return f"{low} to {high}, median {middle:.4g}"
    if dtype.is_temporal():
        return _text(f"{low} to {high}")
    return f"{distinct:,d} distinct"


def _recorded(key: str, value: Any) -> str:
    if value is None or value == "":
        return UNKNOWN
    if key == "bytes" and isinstance(value, int):
        return f"{value:,d}"
    if re.fullmatch(r"https?://[^\s<>\\]+", str(value)):
        return f"<{value}>"
    return _text(_plain(value))


def _plain(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _text(value: Any) -> str:
    """Text that Markdown shows as it is, on one line, also in a table."""
    line = re.sub(r"\s+", " ", str(value)).strip()
    line = re.sub(r"([\\`*\[\]<|&~$])", r"\\\1", line)
    # Within a word an underscore is only itself.
    line = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)
    # Nor is a first character the mark of a heading, a list, a quotation or a rule.
    return re.sub(r"^(\d+(?=[.)](?:\s|$))|(?=[>#]|[-+](?![\w.])))", r"\1\\", line)


def _code(value: Any) -> str:
    """A name in the type of code, whatever is in it, also in a table."""
    name = re.sub(r"\s+", " ", str(value)).strip().replace("|", r"\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", name)), default=0))
    room = " " if name.startswith("`") or name.endswith("`") or not name else ""
    return f"{fence}{room}{name or ' '}{room}{fence}"


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n{text.strip()}\n{fence}"


def _bullets(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
