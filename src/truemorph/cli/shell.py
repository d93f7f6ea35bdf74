"""What all commands share: the application, options, and how results are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from truemorph._version import __version__
from truemorph.io import plain

app = App(
    name="truemorph",
    version=__version__,
    help="Unbiased galaxy morphologies from biased labels. Start with: truemorph demo",
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),
)

Where = Annotated[
    list[str] | None,
    Parameter(name="--where", help='select rows: COLUMN=VALUE, or SQL such as "petroMag_r < 17" (repeatable)'),
]
AsJson = Annotated[bool, Parameter(name="--json", help="print the result as JSON")]
Seed = Annotated[int, Parameter(help="random seed", validator=Number(gte=0, lt=2**31))]
Resamples = Number(gte=0)


def say(text: str) -> None:
    """Tell on stderr."""
    print(text, file=sys.stderr)


def one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one line, in place of Python's own two."""
    say(f"warning: {' '.join(str(message).split())}")


def show(result: dict[str, Any], as_json: bool, lines: Sequence[str]) -> None:
    """Print a result, as JSON or for the eye."""
    print(json.dumps(plain(result), indent=2) if as_json else "\n".join(lines))


def names(value: str | None) -> tuple[str, ...]:
    """Names that are separated by commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else ()
