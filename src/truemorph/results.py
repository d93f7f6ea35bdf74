"""The base class of results, and the numbers, text and tables that they return."""

from __future__ import annotations

import html
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

from truemorph.errors import InputError
from truemorph.findings import Findings
from truemorph.io import plain

if TYPE_CHECKING:
    from astropy.table import QTable

_LONGEST = 1900
# Arguments in messages, such as `gold`.
_ARGUMENT = re.compile(r"`([^`<>]+)`")
_LINE = 100  # characters in a line of a summary


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a text, cut to so many characters."""
    return text if len(text) <= longest else f"{text[:longest]}…"


@dataclass_transform(frozen_default=True)
class Result(ABC):
    """Base of the results of commands and functions: each class of them is made a frozen dataclass.

    Attributes
    ----------
    findings : tuple of Finding
        What the user should know about this result.
    """

    findings: Findings
    _figure_size: ClassVar[tuple[float, float]] = (4.8, 3.6)  # of a plot, inches

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, repr=False)(cls)  # the text of a result is its summary

    @property
    def failure(self) -> str:
        """Why the command line exits with status 1; empty on success."""
        return ""

    @abstractmethod
    def summary(self) -> str:
        """Return the result as text, as the command line prints it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values, for JSON."""
        return plain({field.name: getattr(self, field.name) for field in fields(self)})  # type: ignore[arg-type]

    @abstractmethod
    def to_table(self) -> QTable:
        """Return the result as an astropy table with units and descriptions."""

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the result, as described in `draw`.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw; a new figure if not given.
        **options
            Those of `draw`, if it has any.

        Returns
        -------
        matplotlib axes

        Raises
        ------
        InputError
            If there is nothing to draw.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=self._figure_size, layout="constrained").add_subplot()
        self.draw(ax, **options)
        return ax

    def draw(self, ax: Any) -> None:
        """Draw the result on matplotlib axes."""
        raise InputError(f"a {type(self).__name__} has nothing to draw; use to_table() or summary()")

    def send(self, to: str | None = None) -> PlainResult:
        """Send the table of this result to TOPCAT, Aladin or DS9, as `send_table` does.

        Parameters
        ----------
        to : str, optional
            Name of the program, or a part of it; default every program that loads tables.

        Returns
        -------
        PlainResult
        """
        from truemorph.samp import sent

        return PlainResult(*sent(self.to_table(), type(self).__name__, to))

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        whole = "\n".join([self.summary(), *map(str, self.findings)])
        if len(whole) > _LONGEST and self.findings:
            codes = ", ".join(f"{finding.severity} {finding.code}" for finding in self.findings)
            whole = f"{self.summary()}\nfindings: {codes}"
        return f"{type(self).__name__}\n{shortened(whole)}"

    def _repr_html_(self) -> str:
        """Return the summary and the findings as Jupyter shows them."""
        lines = [f"<pre>{html.escape(shortened(self.summary()))}</pre>"]
        for finding in self.findings:
            text = _ARGUMENT.sub(r"<code>\1</code>", html.escape(f"{finding.message} {finding.action}".strip()))
            lines.append(f"<p><b>{finding.severity}:</b> {text} <code>{finding.code}</code></p>")
        return "".join(lines)


def number(value: float | None, form: str = ".3f") -> str:
    """Format a number; a dash where there is none."""
    return "–" if value is None or not isfinite(value) else format(value, form)


def between(low: float, high: float, form: str = ".3f") -> str:
    """Return a range as text."""
    return f"{number(low, form)} to {number(high, form)}"


def with_error(value: float | None, error: float | None, form: str = ".3f") -> str:
    """Format a number and its error, where there is one.

    >>> with_error(0.5, 0.01), with_error(0.5, None), with_error(-0.5, 0.01, "+.3f")
    ('0.500 ± 0.010', '0.500', '-0.500 ± 0.010')
    """
    text = number(value, form)
    return text if text == "–" or error is None else f"{text} ± {number(error, form.lstrip('+'))}"


def percent(fraction: float, error: float | None = None) -> str:
    """Format a fraction, and its error if there is one, in percent; a dash where there is none.

    >>> percent(0.38), percent(0.38, 0.021)
    ('38 %', '38 ± 2 %')
    """
    if not isfinite(fraction):
        return "–"
    return f"{100 * fraction:.0f} ± {100 * error:.0f} %" if error else f"{100 * fraction:.0f} %"


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    r"""Return the lines of a table; columns `left` are aligned to the left, the others, of numbers, to the right.

    Examples
    --------
    >>> print("\n".join(text_table(["labels", "galaxies"], [["gold", "12"], ["observed", "9,000"]])))
    labels    galaxies
    gold            12
    observed     9,000
    """
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            f"{cell:{'<' if k in left else '>'}{width}}"
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def text_facts(facts: Sequence[tuple[str, str]]) -> list[str]:
    """Return lines of name and text, aligned and broken between words at 100 characters."""
    width = max(len(name) for name, _ in facts)
    return [
        line
        for name, text in facts
        for line in textwrap.wrap(
            text, _LINE, initial_indent=f"{name:{width}}  ", subsequent_indent=" " * (width + 2),
            break_long_words=False, break_on_hyphens=False,
        )
    ]  # fmt: skip


class PlainResult(Result):
    """A text and plain values, such as the settings of a dry run, or what was sent.

    Attributes
    ----------
    text : str
    values : dict
    findings : tuple of Finding
    """

    text: str
    values: dict[str, Any]
    findings: Findings = ()

    def summary(self) -> str:
        """Return the text."""
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return the values as plain ones."""
        return plain(self.values)

    def to_table(self) -> QTable:
        """Return a table with one row per value."""
        values = list(map(str, self.values.values()))
        return quantity_table({"name": (list(self.values), "name"), "value": (values, "value")})


def quantity_table(columns: Mapping[str, tuple[Any, str]], **metadata: Any) -> QTable:
    """Return an astropy table of columns (values, description), with `metadata` as its `meta`."""
    from astropy.table import QTable

    return QTable(
        {name: values for name, (values, _) in columns.items()},
        descriptions={name: about for name, (_, about) in columns.items()},
        meta=metadata,
    )
