"""Write a datasheet for a catalogue in Markdown (Gebru et al. 2021, doi:10.1145/3458723), by `datasheet.md.j2`."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from truemorph.catalogs.catalogue import label_classes
from truemorph.catalogs.columns import ADDED, NAMED
from truemorph.catalogs.crossmatch import describe
from truemorph.catalogs.sampling import SPLITS
from truemorph.findings import Finding
from truemorph.io import plain
from truemorph.tables import CatalogTable

# Shown elsewhere on the page, too long, or valid only on the machine where the catalogue was made.
_NOT_SETTINGS = {"kind", "truemorph_version", "votes", "label_rule", "alpha", "gold_definition", "image_root"}
_NOT_SETTINGS |= {"matches", "mapping", "classes", "definition"}
_ASKED = ("cuts", "sample", "split")  # settings in the mapping


def datasheet(
    catalogue: CatalogTable,
    name: str,
    origins: Mapping[str, Any],
    funnel: Sequence[tuple[str, int]],
    findings: Sequence[Finding],
) -> str:
    """Write the datasheet of a catalogue, which has this file name, in Markdown.

    Metadata are shown in sentences or in a table of settings; `origins` has the provenance of each source file.
    """
    frame, metadata = catalogue.frame, catalogue.metadata
    settings = {key: value for key, value in metadata.items() if key not in _NOT_SETTINGS}
    settings |= {key: value for key, value in metadata.get("mapping", {}).items() if key in _ASKED}
    loader = jinja2.PackageLoader("truemorph.catalogs", "")
    environment = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters.update(text=_text, code=_code)
    return environment.get_template("datasheet.md.j2").render(
        name=name,
        metadata=metadata,
        rows=frame.height,
        known=frame.count().row(0, named=True),
        splits=_splits(frame, len(label_classes(catalogue))),
        classes=label_classes(catalogue),
        columns=[_column(series, catalogue) for series in frame],
        provenance={"/".join(Path(file).parts[-2:]): entry for file, entry in origins.items()},
        funnel=funnel,
        matches=[describe(match, *match["tables"]) for match in metadata.get("matches", ())],
        settings=settings,
        drawn=metadata.get("drawn"),
        findings=findings,
    )


def _column(series: pl.Series, catalogue: CatalogTable) -> tuple[str, ...]:
    """Return the table cells of a column: name, unit, type, missing values, description."""
    missing = series.null_count() + (int(series.is_nan().sum()) if series.dtype.is_float() else 0)
    unit = catalogue.units.get(series.name, "")
    if not unit and series.dtype.is_numeric():
        unit = "none" if series.name in {*ADDED, *NAMED} else "unknown"
    return (
        _code(series.name),
        _text(unit) if unit else "",
        "text" if series.dtype == pl.String else str(series.dtype).lower().partition("(")[0],
        _part(missing, series.len()) if missing else "0",
        _text(catalogue.descriptions.get(series.name)),
    )


def _splits(frame: pl.DataFrame, n_classes: int) -> list[tuple[str, ...]]:
    """Count galaxies by label in each split and in total."""
    parts = [(split, frame.filter(split=split)["label"]) for split in SPLITS]
    return [
        (split, f"{labels.len():,d}", *(_part(int((labels == k).sum()), labels.len()) for k in range(n_classes)))
        for split, labels in [*parts, ("all", frame["label"])]
        if labels.len()
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
