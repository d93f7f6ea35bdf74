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
from truemorph.citation import bibtex
from truemorph.findings import Finding
from truemorph.io import written_whole
from truemorph.tables import CatalogTable, write_table

_SEVERITIES = ("problem", "caution", "note")
_VERDICTS = {
    "problem": "Do not rely on this result yet.",
    "caution": "Usable with caution.",
    "good": "Good: no check found a problem.",
}
# Signs beside the words, so that colour is not needed.
_SIGNS = {"good": "✓", "caution": "!", "problem": "✕", "not checked": "–", "note": "i"}
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
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
    figure : matplotlib Figure, or sequence of Figure
        Several are panels: side by side where there is room, otherwise one below the other.
    alternative : str
        What it shows, for those who can't see it.
    caption : str
    data : polars.DataFrame, optional
        What is drawn.
    """

    name: str
    figure: Figure | Sequence[Figure]
    alternative: str
    caption: str
    data: pl.DataFrame | None = None

    @property
    def panels(self) -> dict[str, Figure]:
        """Figures by the name of their files."""
        if isinstance(self.figure, Figure):
            return {self.name: self.figure}
        return {f"{self.name}_{number}": one for number, one in enumerate(self.figure, 1)}

    @property
    def broad(self) -> bool:
        """Whether it takes the whole width of the page."""
        return not isinstance(self.figure, Figure) or float(self.figure.get_figwidth()) > _NARROW

    @property
    def download(self) -> str:
        """Its data as a data URL (CSV); empty without data."""
        if self.data is None:
            return ""
        return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(self.data.write_csv().encode()).decode()}"


@dataclass(frozen=True)
class Table:
    """A table under its own heading.

    Attributes
    ----------
    title : str
    head : sequence of str
    rows : sequence of sequence of str
    note : str
    groups : sequence of (str, int)
        Headings over several columns, and how many; empty for none.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    groups: Sequence[tuple[str, int]] = ()

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
    note : str
    galaxies : sequence of Galaxy
    ranges, choices : dict of str
        Keys that numbers or words are filtered by, and what they are called.
    """

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
class Light:
    """Checks of one kind: what was found, and what passed.

    Attributes
    ----------
    name : str
    findings : sequence of Finding
        Problems first.
    passed : sequence of (str, str)
        Names and measured values of checks that found nothing.
    """

    name: str
    findings: Sequence[Finding] = ()
    passed: Sequence[tuple[str, str]] = ()

    @property
    def status(self) -> str:
        """The worst of its findings: "problem", "caution" or "good"; "not checked" without any check."""
        worst = next((one.severity for one in in_order(self.findings)), "note")
        return worst if worst != "note" else "good" if self.passed else "not checked"

    @property
    def text(self) -> str:
        """The main finding in a sentence, or what passed."""
        main = [one for one in in_order(self.findings) if one.severity != "note"]
        if main:
            more = len(main) - 1
            return first_sentence(main[0].message) + (f" And {more} more." if more else "")
        if not self.passed:
            return "Nothing to check here."
        notes = f" {len(self.findings)} note{'s' if len(self.findings) > 1 else ''}." if self.findings else ""
        count = "1 check" if len(self.passed) == 1 else f"{len(self.passed)} checks"
        return f"{count} passed: {'; '.join(name for name, _ in self.passed)}.{notes}"


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading; what is empty is left out.

    Attributes
    ----------
    title, note : str
    figures : sequence of Illustration
    tables : sequence of Table
    pairs : sequence of Pair
    gallery : Gallery, optional
    items : sequence of str
    include : str
        A template of fixed text: equations.html or citation.html.
    """

    title: str
    note: str = ""
    figures: Sequence[Illustration] = ()
    tables: Sequence[Table] = ()
    pairs: Sequence[Pair] = ()
    gallery: Gallery | None = None
    items: Sequence[str] = ()
    include: str = ""


@dataclass(frozen=True)
class Page:
    """What a page says, in the order in which it says it; what is empty is left out.

    Attributes
    ----------
    title : str
    headline : str
        The result in one sentence.
    answer, remark : str
        What follows it, and the small print.
    verdict : dict, optional
        See `verdict`.
    first : Illustration, optional
        Beside the headline.
    examples : sequence of Pair
        Below both.
    lights : sequence of Light
    findings : sequence of Finding
        Where there are no lights.
    sections, appendix : sequence of Section
        Those of the appendix are folded.
    versions : dict of str
    wide : bool
    """

    title: str
    answer: str
    headline: str = ""
    remark: str = ""
    verdict: dict[str, str] | None = None
    first: Illustration | None = None
    examples: Sequence[Pair] = ()
    lights: Sequence[Light] = ()
    findings: Sequence[Finding] = ()
    sections: Sequence[Section] = ()
    appendix: Sequence[Section] = ()
    versions: dict[str, str] = field(default_factory=dict)
    wide: bool = False

    @property
    def figures(self) -> list[Illustration]:
        """All figures in the order of their numbers."""
        first = [] if self.first is None else [self.first]
        return first + [one for section in (*self.sections, *self.appendix) for one in section.figures]

    def caption(self, one: Illustration) -> str:
        """Number of a figure, and its caption."""
        return f"Figure {self.figures.index(one) + 1}. {one.caption}"

    @property
    def gallery(self) -> Gallery | None:
        """The gallery that one of the sections has."""
        return next((one.gallery for one in self.sections if one.gallery is not None), None)


def first_sentence(text: str) -> str:
    """The first sentence of a text.

    Examples
    --------
    >>> first_sentence("The range is 0.3 wide (mean). Quote it.")
    'The range is 0.3 wide (mean).'
    """
    return _SENTENCE.split(text, maxsplit=1)[0]


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Findings, problems first."""
    return sorted(findings, key=lambda one: _SEVERITIES.index(one.severity))


def verdict(findings: Sequence[Finding], reason: str = "", action: str = "") -> dict[str, str]:
    """All findings in one.

    Parameters
    ----------
    findings : sequence of Finding
    reason, action : str
        Why it is good, and what to do then.

    Returns
    -------
    dict
        `status`, "problem", "caution" or "good"; `text`, the same as a sentence; `reason`, the main finding; `next`,
        what to do about it.
    """
    ordered = in_order(findings)
    if not ordered or ordered[0].severity == "note":
        return {"status": "good", "text": _VERDICTS["good"], "reason": reason, "next": action}
    main = ordered[0]
    return {
        "status": main.severity,
        "text": _VERDICTS[main.severity],
        "reason": first_sentence(main.message),
        "next": main.action,
    }


def inline_svg(figure: Figure, name: str, alternative: str) -> Markup:
    """A figure as SVG inside the page, in the page's own text colour, on no background."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = _COMMENT.sub("", text[text.index("<svg") :])
    text = _DARK.sub("currentColor", text)
    text = _ID.sub(lambda found: f"{found[1]}{name}-", text)
    text = _SIZE.sub(lambda found: found[1] or found[2], text, count=1)
    label, widest = Markup.escape(alternative), round(figure.get_figwidth() * _ENLARGED)
    own = f'<svg role="img" aria-label="{label}" fill="currentColor" style="max-width: {widest}px"'
    return Markup(text.replace("<svg", own, 1))


def write_illustrations(illustrations: Sequence[Illustration], folder: Path) -> None:
    """Write each figure as PDF and PNG, and what is drawn as ECSV."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in illustrations:
        for name, figure in one.panels.items():
            # The layout is the same in every format: it is computed once.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for kind in ("pdf", "png"):
                figure.savefig(folder / f"{name}.{kind}", dpi=150)
        if one.data is not None:
            write_table(CatalogTable(one.data, metadata={"figure": one.name}), folder / f"{one.name}.ecsv")


def _code(text: str) -> Markup:
    """Show names of arguments, which stand in backticks, as code, and keep numbers with their percent signs."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(Markup.escape(text)).replace(" %", "\u00a0%")))


def render_page(page: Page) -> str:
    """The page as text; all of the user's text is escaped."""
    environment = Environment(
        loader=PackageLoader("truemorph.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"code": _code, "svg": inline_svg}
    room = files("truemorph.report") / "templates"
    style, script = ((room / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        page=page,
        signs=_SIGNS,
        style=Markup(style),
        script=Markup(script),
        digest=digest,
        bibtex=bibtex(),
        version=__version__,
    )


def write_page(page: Page, path: str | os.PathLike[str]) -> Path:
    """Write the page, whole or not at all."""
    path = Path(path)
    html = render_page(page)
    with written_whole(path) as partial:
        partial.write_text(html, encoding="utf-8")
    return path
