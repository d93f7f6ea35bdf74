"""One self-contained HTML page: text, numbers and pictures in a single file, nothing fetched."""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from truemorph._version import __version__


@dataclass(frozen=True)
class Picture:
    """An image for the page: where its bytes are, what it shows in words, and a caption."""

    source: str
    alternative: str
    caption: str


@dataclass(frozen=True)
class Thumbnail:
    """A galaxy in the gallery."""

    source: str
    alternative: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A further table under its own heading."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What a report says, in the order in which it says it; without galaxies there is no gallery."""

    title: str
    answer: str
    trust: list[str]
    table_head: list[str]
    table: list[list[str]]
    table_note: str
    pictures: list[Picture]
    gallery_title: str
    gallery: list[Thumbnail]
    methods: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)


def picture(figure: Figure, alternative: str, caption: str) -> Picture:
    """Draw a figure as SVG inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/svg+xml;base64,{encoded}", alternative, caption)


def jpeg_source(pixels: np.ndarray, quality: int = 88) -> str:
    """A uint8 RGB image as a data URL."""
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, colorspace="RGB")
    return f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"


def write_page(page: Page, path: str | os.PathLike[str]) -> Path:
    """Render the page; all text is escaped."""
    environment = Environment(
        loader=PackageLoader("truemorph.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    path = Path(path)
    html = environment.get_template("report.html").render(page=page, version=__version__)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    partial.write_text(html, encoding="utf-8")
    os.replace(partial, path)
    return path
