"""One self-contained HTML page: text, numbers and pictures in a single file, nothing fetched.

The page forbids itself requests (a content security policy), and runs no script but its own.
"""

import base64
import hashlib
import io
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from truemorph._version import __version__, installed_versions
from truemorph.citation import BIBTEX
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings
from truemorph.io import save_as_pdf_and_png, write_file
from truemorph.questions import SMOOTH_OR_DISK
from truemorph.tables import CatalogTable, write_table

_SEVERITIES = ("problem", "caution", "note")
_VERDICTS = {
    "problem": "Do not rely on this result yet.",
    "caution": "Usable with caution.",
    "good": "Good: no check found a problem.",
}
# Signs beside the words, so that colour is not needed.
_SIGNS = {"good": "✓", "caution": "!", "problem": "✕", "not checked": "–"}
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
# Inches: two figures up to this width stand side by side.
_NARROW = 6.0
# Columns of a table that fit beside each other on a narrow screen.
_FITS = 4
# CSS pixels an inch that a figure is shown at most.
_ENLARGED = 130
# Black and dark greys: what is drawn in the colour of text.
_DARK = re.compile(r"#([0-4][0-9a-f])\1\1\b")
_COMMENT = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_ID = re.compile(r'(\bid="|href="#|url\(#)')


@dataclass(frozen=True)
class Illustration:
    """A figure for the page; several are panels, side by side where there is room."""

    name: str  # of letters, digits, _ and -: it goes into markup, and is the name of its files
    figure: Figure | Sequence[Figure]
    caption: str  # what it shows, also for those who can't see it
    data: pl.DataFrame | None = None  # what is drawn
    number: str = ""  # of a figure elsewhere that it repeats; by default, its place on the page

    @property
    def panels(self) -> dict[str, Figure]:
        """Figures by the name of their files."""
        if isinstance(self.figure, Figure):
            return {self.name: self.figure}
        return {f"{self.name}_{number}": figure for number, figure in enumerate(self.figure, 1)}

    @property
    def broad(self) -> bool:
        """Whether it takes the whole width of the page."""
        return not isinstance(self.figure, Figure) or float(self.figure.get_figwidth()) > _NARROW


@dataclass(frozen=True)
class Table:
    """A table under its own heading; `groups` are headings over several columns, and how many."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    groups: Sequence[tuple[str, int]] = ()

    @property
    def labels(self) -> list[str]:
        """Headings of the cells where a table of many columns is shown as a list of rows, on narrow screens."""
        groups = [text for text, span in self.groups for _ in range(span)] or [""] * len(self.head)
        named = [", ".join(filter(None, pair)) for pair in zip(groups, self.head, strict=True)]
        return named if len(named) > _FITS else []

    def markdown(self) -> str:
        """Head and rows as Markdown."""
        lines = [f"| {' | '.join(self.head)} |", "|---" * len(self.head) + "|"]
        # A pipe inside of a cell would begin another.
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        return "\n".join(lines)


@dataclass(frozen=True)
class Pair:
    """Pictures of one galaxy, side by side."""

    caption: str
    pictures: Sequence[tuple[str, str]]  # what it is, and data URL; without one, the text says what is missing


@dataclass(frozen=True)
class Galaxy:
    """A galaxy in the gallery."""

    name: str
    thumbnail: str  # data URL
    caption: Sequence[str]  # lines under it
    keys: dict[str, Any]  # what the gallery is sorted and filtered by: numbers, words or None
    pictures: Sequence[tuple[str, str]] = ()  # as of a pair
    details: Sequence[tuple[str, str]] = ()  # names and values
    link: str = ""  # where to find more about it; opened by a click alone


@dataclass(frozen=True)
class Gallery:
    """Galaxies to look at one by one, sorted and filtered by keys, which are given with what they are called."""

    note: str
    galaxies: Sequence[Galaxy]
    ranges: dict[str, str]  # keys that are numbers
    choices: dict[str, str]  # keys that are words

    def values(self, key: str) -> list[str]:
        """Words that a key takes."""
        return sorted({str(galaxy.keys[key]) for galaxy in self.galaxies if galaxy.keys.get(key) is not None})


@dataclass(frozen=True)
class Light:
    """Checks of one kind: what was found, and what passed."""

    name: str
    findings: Sequence[Finding] = ()  # problems first
    passed: Sequence[tuple[str, str]] = ()  # names and measured values of checks that found nothing

    @property
    def status(self) -> str:
        """The worst of its findings: "problem", "caution" or "good"; "not checked" without any check."""
        worst = self.findings[0].severity if self.findings else "note"
        return worst if worst != "note" else "good" if self.passed else "not checked"

    @property
    def text(self) -> str:
        """The main finding in a sentence, or what passed."""
        main = [finding for finding in self.findings if finding.severity != "note"]
        if main:
            more = len(main) - 1
            return first_sentence(main[0].message) + (f" And {more} more." if more else "")
        if not self.passed:
            return "Nothing to check here."
        notes = f" {n} note{'s' * (n > 1)}." if (n := len(self.findings)) else ""
        return f"Passed: {'; '.join(name for name, _ in self.passed)}.{notes}"


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading; what is empty is left out."""

    title: str
    note: str = ""
    figures: Sequence[Illustration] = ()
    tables: Sequence[Table] = ()
    pairs: Sequence[Pair] = ()
    gallery: Gallery | None = None
    items: Sequence[str] = ()
    include: str = ""  # template of fixed text: equations.html or citation.html


@dataclass(frozen=True)
class Page:
    """What a page says, in the order in which it says it; what is empty is left out."""

    title: str
    answer: str  # what follows the headline
    headline: str = ""  # the result in one sentence
    remark: str = ""  # small print
    verdict: dict[str, str] | None = None  # see `verdict`
    first: Illustration | None = None  # beside the headline
    table: Table | None = None  # below both
    examples: Sequence[Pair] = ()  # below both
    lights: Sequence[Light] = ()
    sections: Sequence[Section] = ()
    appendix: Sequence[Section] = ()  # folded
    wide: bool = False
    classes: tuple[str, str] = SMOOTH_OR_DISK  # what galaxies are before and after the correction: examples, equations
    used: Sequence[str] = ("rayleigh", "model", "CV18")  # what equations are shown of

    @property
    def figures(self) -> list[Illustration]:
        """All figures in the order of their numbers."""
        first = [] if self.first is None else [self.first]
        return first + [figure for section in (*self.sections, *self.appendix) for figure in section.figures]

    def caption(self, one: Illustration) -> str:
        """Number of a figure, and its caption."""
        return f"Figure {one.number or self.figures.index(one) + 1}. {one.caption}"

    @property
    def gallery(self) -> Gallery | None:
        """The gallery that one of the sections has."""
        return next((section.gallery for section in self.sections if section.gallery is not None), None)


def first_sentence(text: str) -> str:
    """The first sentence of a text."""
    return _SENTENCE.split(text, maxsplit=1)[0]


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Findings, problems first."""
    return sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity))


def findings_of(lights: Sequence[Light]) -> Findings:
    """Findings of all lights, problems first."""
    return tuple(in_order([finding for light in lights for finding in light.findings]))


def verdict(findings: Sequence[Finding], reason: str = "", action: str = "") -> dict[str, str]:
    """All findings in one: `status` ("problem", "caution" or "good") and its `text`, the main `reason`, what is `next`.

    `reason` and `action` are those of a good result.
    """
    status, worst = "good", next(iter(in_order(findings)), None)
    if worst is not None and worst.severity != "note":
        status, reason, action = worst.severity, first_sentence(worst.message), worst.action
    return {"status": status, "text": _VERDICTS[status], "reason": reason, "next": action}


def inline_svg(figure: Figure, name: str, caption: str) -> Markup:
    """A figure as SVG inside the page, in the page's own text colour, on no background; `caption` is an id there."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = _COMMENT.sub("", text[text.index("<svg") :])
    text = _DARK.sub("currentColor", text)
    text = _ID.sub(lambda match: f"{match[1]}{name}-", text)
    widest = round(figure.get_figwidth() * _ENLARGED)
    own = f'<svg role="img" aria-labelledby="{caption}" fill="currentColor" style="max-width: {widest}px"'
    return Markup(text.replace("<svg", own, 1))


def write_illustrations(illustrations: Sequence[Illustration], folder: Path) -> None:
    """Write each figure as PDF and PNG, and what is drawn as ECSV."""
    for illustration in illustrations:
        for name, figure in illustration.panels.items():
            save_as_pdf_and_png(figure, folder, name)
        if illustration.data is not None:
            write_table(
                CatalogTable(illustration.data, metadata={"figure": illustration.name}),
                folder / f"{illustration.name}.ecsv",
            )


def _code(text: str) -> Markup:
    """Show names of arguments, which stand in backticks, as code, and keep numbers with their percent signs."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(Markup.escape(text)).replace(" %", "\u00a0%")))


def folder_beside(page: Path) -> Path:
    """Return the folder of a page's files; InputError if the page has not the name of an HTML file."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{page}: a report is an .html file")
    return page.with_name(f"{page.stem}_files")


def write_page(page: Page, path: Path) -> Path:
    """Write the page, whole or not at all; all of the user's text is escaped."""
    environment = Environment(
        loader=PackageLoader("truemorph.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"code": _code, "svg": inline_svg}
    room = files("truemorph.report") / "templates"
    style, script = ((room / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = environment.get_template("report.html").render(
        page=page,
        signs=_SIGNS,
        style=Markup(style),
        script=Markup(script),
        digest=digest,
        bibtex=BIBTEX,
        version=__version__,
        libraries={"Python": platform.python_version(), **installed_versions("numpy", "torch", "timm")},
    )
    return write_file(path, text)
