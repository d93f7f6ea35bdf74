"""One self-contained HTML page: text, numbers and pictures in a single file, nothing fetched.

The page forbids itself requests (a content security policy), and runs no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from truemorph._version import __version__, installed_versions
from truemorph.findings import Finding
from truemorph.io import written_whole
from truemorph.tables import CatalogTable, write_table

_SEVERITIES = ("problem", "caution", "note")
_VERDICTS = {
    "problem": "Do not rely on this result yet: {} below.",
    "caution": "Usable within the limits of {} below.",
    "good": "No check found a problem.",
}
# Inches: two figures up to this width stand side by side.
_NARROW = 6.0
# CSS pixels an inch that a figure is shown at most.
_ENLARGED = 130
# Black and dark greys: what is drawn in the colour of text.
_DARK = re.compile(r"#([0-4][0-9a-f])\1\1\b")
_COMMENT = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_ID = re.compile(r'(\bid="|href="#|url\(#)')
_SIZE = re.compile(r'(<svg\b[^>]*?) width="[^"]*" height="[^"]*"|(<svg\b[^>]*?) height="[^"]*" width="[^"]*"')


@dataclass(frozen=True)
class Illustration:
    """A figure for the page.

    Attributes
    ----------
    name : str
        Of letters, digits, _ and -: it goes into markup, and is the name of its files.
    figure : matplotlib Figure
    alternative : str
        What it shows, for those who can't see it.
    caption : str
    data : polars.DataFrame, optional
        What is drawn.
    """

    name: str
    figure: Figure
    alternative: str
    caption: str
    data: pl.DataFrame | None = None

    @property
    def broad(self) -> bool:
        """Whether it takes the whole width of the page."""
        return float(self.figure.get_figwidth()) > _NARROW

    @property
    def download(self) -> str:
        """Its data as a data URL (CSV); empty without data."""
        if self.data is None:
            return ""
        return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(self.data.write_csv().encode()).decode()}"


@dataclass(frozen=True)
class Table:
    """A table under its own heading."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """Head and rows as Markdown."""
        lines = [f"| {' | '.join(self.head)} |", "|---" * len(self.head) + "|"]
        # A pipe inside of a cell would begin another.
        lines += ["| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in self.rows]
        return "\n".join(lines)


def number(value: float | None, form: str = ".3f", missing: str = "–") -> str:
    """Format a number for a table; `missing` where there is none.

    Examples
    --------
    >>> number(0.12345), number(None), number(1234, ",d")
    ('0.123', '–', '1,234')
    """
    return missing if value is None or not np.isfinite(value) else format(value, form)


def with_error(value: float | None, error: float | None, form: str = ".3f", missing: str = "–") -> str:
    """Format a number and its error, where there is one.

    Examples
    --------
    >>> with_error(0.5, 0.01), with_error(0.5, None), with_error(-0.5, 0.01, "+.3f")
    ('0.500 ± 0.010', '0.500', '-0.500 ± 0.010')
    """
    if number(value, form, "") == "" or error is None:
        return number(value, form, missing)
    return f"{value:{form}} ± {number(error, form.lstrip('+'))}"


def versions() -> dict[str, str]:
    """Return the versions of Python and the main libraries."""
    return {"Python": platform.python_version(), **installed_versions("numpy", "torch", "timm")}


@dataclass(frozen=True)
class Pair:
    """A galaxy as volunteers saw it, and better: a caption; and of each picture what it is, and a data URL.

    Without a URL, the first text says what is missing.
    """

    caption: str
    pictures: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Galaxy:
    """A galaxy in the gallery.

    Attributes
    ----------
    name : str
        Its id.
    thumbnail, alternative : str
        A data URL, and what it shows in words.
    caption : sequence of str
        Lines under it.
    keys : dict of float or str or None
        What the gallery is sorted and filtered by.
    pictures : sequence of (str, str)
        What it is, and data URL.
    details : sequence of (str, str)
        Names and values.
    link : str
        Where to find more about it; opened by a click alone.
    """

    name: str
    thumbnail: str
    alternative: str
    caption: Sequence[str]
    keys: dict[str, Any]
    pictures: Sequence[tuple[str, str]] = ()
    details: Sequence[tuple[str, str]] = ()
    link: str = ""


@dataclass(frozen=True)
class Gallery:
    """Galaxies to look at one by one.

    Attributes
    ----------
    title, note : str
    galaxies : sequence of Galaxy
    ranges, choices : dict of str
        Keys that numbers or words are filtered by, and what they are called.
    """

    title: str
    note: str
    galaxies: Sequence[Galaxy]
    ranges: dict[str, str]
    choices: dict[str, str]

    def values(self, key: str) -> list[str]:
        """Words that a key takes."""
        return sorted({str(one.keys[key]) for one in self.galaxies if one.keys.get(key) is not None})

    @property
    def details(self) -> list[dict[str, Any]]:
        """What the script shows of each galaxy."""
        return [{name: getattr(one, name) for name in ("name", "pictures", "details", "link")} for one in self.galaxies]


@dataclass(frozen=True)
class Page:
    """What a page says, in the order in which it says it; what is empty is left out.

    `findings` are shown as they are ordered (see `in_order`), then `passed`: checks that found nothing, with the number
    that was measured. `verdict` is what `verdict` returns; a page may have none.
    """

    title: str
    answer: str
    findings: Sequence[Finding] = ()
    passed: Sequence[tuple[str, str]] = ()
    verdict: dict[str, str] | None = None
    tables: Sequence[Table] = ()
    illustrations: Sequence[Illustration] = ()
    appendix: Sequence[Table] = ()
    pairs: Sequence[Pair] = ()
    pairs_note: str = ""
    gallery: Gallery | None = None
    methods: Sequence[str] = ()
    equations: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    wide: bool = False


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Findings, problems first."""
    return sorted(findings, key=lambda one: _SEVERITIES.index(one.severity))


def verdict(findings: Sequence[Finding]) -> dict[str, str]:
    """All findings in one: `status`, "problem", "caution" or "good", and `text`, the same as a sentence."""
    for status in ("problem", "caution"):
        count = sum(one.severity == status for one in findings)
        if count:
            return {
                "status": status,
                "text": _VERDICTS[status].format(f"one {status}" if count == 1 else f"{count} {status}s"),
            }
    return {"status": "good", "text": _VERDICTS["good"]}


def inline_svg(one: Illustration) -> Markup:
    """A figure as SVG inside the page, in the page's own text colour, on no background."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": one.name, "svg.fonttype": "path"}):
        one.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = _COMMENT.sub("", text[text.index("<svg") :])
    text = _DARK.sub("currentColor", text)
    text = _ID.sub(lambda found: f"{found[1]}{one.name}-", text)
    text = _SIZE.sub(lambda found: found[1] or found[2], text, count=1)
    label, widest = Markup.escape(one.alternative), round(one.figure.get_figwidth() * _ENLARGED)
    own = f'<svg role="img" aria-label="{label}" fill="currentColor" style="max-width: {widest}px"'
    return Markup(text.replace("<svg", own, 1))


def write_illustrations(illustrations: Sequence[Illustration], folder: Path) -> None:
    """Write each figure as PDF and PNG, and what is drawn as ECSV."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in illustrations:
        # The layout is the same in every format: it is computed once.
        one.figure.draw_without_rendering()
        one.figure.set_layout_engine("none")
        for kind in ("pdf", "png"):
            one.figure.savefig(folder / f"{one.name}.{kind}", dpi=150)
        if one.data is not None:
            write_table(CatalogTable(one.data, metadata={"figure": one.name}), folder / f"{one.name}.ecsv")


def _code(text: str) -> Markup:
    """Show names of arguments, which stand in backticks, as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(Markup.escape(text))))


def render_page(page: Page, template: str = "report.html", **more: Any) -> str:
    """The page as text; all of the user's text is escaped. Templates that extend report.html take more than a page."""
    environment = Environment(
        loader=PackageLoader("truemorph.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"code": _code, "svg": inline_svg}
    environment.filters |= {"number": number, "with_error": with_error}
    room = files("truemorph.report") / "templates"
    style, script = ((room / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        page=page, style=Markup(style), script=Markup(script), digest=digest, version=__version__, **more
    )


def write_page(page: Page, path: str | os.PathLike[str], template: str = "report.html", **more: Any) -> Path:
    """Write the page, whole or not at all; see `render_page`."""
    path = Path(path)
    html = render_page(page, template, **more)
    with written_whole(path) as partial:
        partial.write_text(html, encoding="utf-8")
    return path
