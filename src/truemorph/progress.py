"""Show progress, speed and remaining time: a bar on a terminal, occasional lines in a log."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable
from contextvars import ContextVar
from multiprocessing import parent_process
from typing import Any, TypeAlias

from tqdm import tqdm

Progress: TypeAlias = tqdm
SILENT: Progress = tqdm(disable=True)
QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)


class _Lines(tqdm):
    """Lines in a log, which has no bar to move or clear."""

    def display(self, *_: Any, **__: Any) -> None:
        """Print a line, when tqdm would draw the bar again."""
        print(self, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End; what was printed stays."""
        self.disable = True


def tell(text: str) -> None:
    """Print one line on standard error, unless quiet."""
    if not QUIET.get():
        print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Escape control characters, which could change a terminal; line breaks and tabs stay."""
    return "".join(
        one.encode("unicode_escape").decode()
        if unicodedata.category(one) in ("Cc", "Cf") and one not in "\n\t"
        else one
        for one in text
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
