"""Show progress, speed and remaining time: a bar on a terminal, occasional lines in a log."""

from __future__ import annotations

import sys
import time
import unicodedata
from contextvars import ContextVar
from typing import Any, Protocol

from tqdm import tqdm

# Seconds between lines in a log.
_BETWEEN_LINES = 60.0
# Whether to print nothing.
QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)


class Progress(Protocol):
    """A progress display, used as a context manager."""

    def update(self, n: int, /) -> Any:
        """Advance by n."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *problem: object) -> Any: ...


class Silence:
    """A progress display that shows nothing."""

    def update(self, n: int, /) -> None:
        """Do nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *problem: object) -> None:
        pass


class _Lines(Silence):
    """A progress display that prints occasional lines."""

    def __init__(self, total: int | None, what: str, unit: str, initial: int, between: float) -> None:
        self._total, self._what, self._unit, self._between = total, what, unit, between
        self._initial = self._done = initial
        self._began = self._told = time.perf_counter()

    def update(self, n: int, /) -> None:
        """Count, and print a line if the last one is old enough."""
        self._done += n
        now = time.perf_counter()
        if now - self._told < self._between:
            return
        self._told = now
        rate = (self._done - self._initial) / (now - self._began)
        line = f"{self._what}: {self._done:,d}"
        if self._total is not None:
            line += f" of {self._total:,d}"
        line += f" {self._unit}, {rate:,.1f} {self._unit}/s"
        if self._total is not None and rate > 0:
            line += f", {tqdm.format_interval((self._total - self._done) / rate)} left"
        print(line, file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """Print one line on standard error, unless quiet."""
    if not QUIET.get():
        print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    r"""Escape control characters, which could change a terminal; line breaks and tabs stay.

    Examples
    --------
    >>> print(printable("galaxy \x1b[31m"))
    galaxy \x1b[31m
    """
    return "".join(
        one.encode("unicode_escape").decode()
        if unicodedata.category(one) in ("Cc", "Cf") and one not in "\n\t"
        else one
        for one in text
    )


def progress(total: int | None, what: str, unit: str, initial: int = 0, between: float = _BETWEEN_LINES) -> Progress:
    """Show progress on standard error.

    Parameters
    ----------
    total : int, optional
        Total number; None if unknown.
    what, unit : str
        Task and unit, for display.
    initial : int
        Number done before.
    between : float
        Seconds between lines, if standard error is not a terminal.

    Returns
    -------
    Progress
        A context manager with `update(n)`.
    """
    if QUIET.get():
        return Silence()
    if sys.stderr.isatty():
        return tqdm(total=total, desc=what, unit=unit, initial=initial, unit_scale=True, leave=False)
    return _Lines(total, what, unit, initial, between)
