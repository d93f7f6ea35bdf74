"""The command line: one thin command per verb, results on stdout, progress on stderr."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence

from cyclopts import CycloptsError

from truemorph.cli import catalogues, evidence, fetching, models, reproducing
from truemorph.cli.shell import app, one_line_warning, say
from truemorph.errors import TruemorphError, extras_named

__all__ = ["app", "catalogues", "evidence", "fetching", "main", "models", "reproducing"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: exit 2 for bad input, 1 for a failure, 130 for Ctrl-C."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.showwarning = one_line_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # Greek letters on a terminal that has none
    try:
        with extras_named():
            app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as problem:
        say(f"truemorph: {' '.join(str(problem).split())} (see truemorph --help)")
        sys.exit(2)
    except TruemorphError as problem:
        for line in str(problem).splitlines():
            say(f"truemorph: {' '.join(line.split())}")
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        say("truemorph: interrupted")
        sys.exit(130)
    except UnicodeEncodeError as problem:  # Parquet, FITS and polars take no other names
        from truemorph.io import shown_path

        say(f"truemorph: {shown_path(problem.object)}: a file or folder name that is not UTF-8; rename it")
        sys.exit(2)
    except OSError as problem:
        say(f"truemorph: {problem.filename or ''}: {problem.strerror or problem}")
        sys.exit(1)
