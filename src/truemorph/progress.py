"""Tell what happens, on standard error: plain lines and a bar on a terminal, lines with time and level in a log.

Lines go through Python's logger "truemorph", whose handler can be replaced.
"""

import logging
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable
from contextvars import ContextVar
from multiprocessing import parent_process
from typing import Any, TypeAlias

from tqdm import tqdm

Progress: TypeAlias = tqdm
QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)


_LOG = logging.getLogger("truemorph")
_LONGEST = 1_000  # characters of a line, because values may be long
_SHORT = 2.0  # seconds after which a task is worth a line


class _StandardError(logging.Handler):
    """Whatever is `sys.stderr` at that time: on a terminal, lines are broken between words."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        if sys.stderr.isatty():
            width = min(shutil.get_terminal_size().columns, 100)
            text = record.getMessage()
            text = textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        else:
            text = self.format(record)
        print(text, file=sys.stderr, flush=True)


_HANDLER = _StandardError()
_HANDLER.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
_LOG.addHandler(_HANDLER)
_LOG.setLevel(logging.INFO)
_LOG.propagate = False


class _Lines(tqdm):
    """Lines in a log, which has no bar to move or clear."""

    disable: bool

    def display(self, *_: Any, **__: Any) -> None:
        """Print a line, when tqdm would draw the bar again."""
        say(str(self))
        self.last = self.n

    def close(self) -> None:
        """End, with a line about all, unless it was short."""
        if not self.disable and self.n != getattr(self, "last", None) and self.format_dict["elapsed"] > _SHORT:
            self.display()
        self.disable = True


def say(text: str, level: int = logging.INFO) -> None:
    """Print one line on standard error, with time and level where that is no terminal."""
    _LOG.log(level, "%s", textwrap.shorten(printable(" ".join(text.split())), _LONGEST, placeholder=" …"))


def tell(text: str) -> None:
    """Print one line about progress, unless quiet."""
    if not QUIET.get():
        say(text)


def printable(text: str) -> str:
    """Escape control characters, which could change a terminal; line breaks and tabs stay."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cf") and character not in "\n\t"
        else character
        for character in text
    )


def progress(
    total: int | None, what: str, unit: str, initial: int = 0, between: float = 60, of: Iterable[Any] | None = None
) -> Progress:
    """Show progress on standard error, as an iterator over `of`, or as a context manager with `update(n)`.

    `total` is None if unknown, `initial` was done before; `between` are seconds between lines of a log.
    """
    hidden = QUIET.get() or parent_process() is not None  # bars of several processes would overwrite each other
    shown = {"iterable": of, "total": total, "desc": what, "initial": initial, "disable": hidden}
    if sys.stderr.isatty():
        soon = min(1, between)  # a bar that ends before does not flash
        return tqdm(**shown, unit=unit, unit_scale=True, leave=False, delay=soon, mininterval=soon / 10)
    done, left = ("{n:,}", "") if total is None else ("{n:,} of {total:,}", ", {remaining} left")
    line = f"{{desc}}: {done} {unit}, {{rate_noinv_fmt}}{left}"
    return _Lines(**shown, unit=f" {unit}", bar_format=line, delay=between, mininterval=between, miniters=1)
