"""Errors, with one-line messages that say what to do.

The command line prints only the message and exits with `exit_code`.
"""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


class TruemorphError(Exception):
    """A failure that is not caused by the input (exit status 1)."""

    exit_code = 1


class InputError(TruemorphError, ValueError):
    """A file, column, row or setting that can't be used (exit status 2)."""

    exit_code = 2


class CheckpointError(TruemorphError):
    """A model folder that can't be read or written (exit status 1)."""


# Packages that truemorph imports from each extra in pyproject.toml.
_EXTRAS = {
    "networks": ("torch", "lightning", "timm", "torchmetrics", "huggingface_hub"),
    "archives": ("requests", "urllib3", "pyvo"),
    "label": ("openvino",),
    "fast": ("nncf",),
    "gold": ("starlette", "uvicorn"),
    "benchmark": ("cleanlab",),
}


def _not_installed(package: str, extra: str) -> InputError:
    return InputError(f"{package} is not installed: pip install '.[{extra}]' in the clone, or 'truemorph[{extra}]'")


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed; the InputError has the command that installs them."""
    for package in _EXTRAS[extra]:
        if find_spec(package) is None:
            raise _not_installed(package, extra)


@contextmanager
def extras_named() -> Iterator[None]:
    """Convert a failed import of an optional package to an InputError that names its extra."""
    try:
        yield
    except ImportError as problem:
        missing = next((cause.name for cause in _causes(problem) if isinstance(cause, ModuleNotFoundError)), None)
        package = (missing or "").partition(".")[0]
        for extra, packages in _EXTRAS.items():
            if package in packages:
                raise _not_installed(package, extra) from problem
        raise


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__ or problem.__context__


def reason(problem: BaseException) -> str:
    """Return a one-line reason; for errors of a writer, the system's message (such as a full disk)."""
    for cause in _causes(problem):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    lines = str(problem).strip().splitlines()
    return lines[0][:300] if lines else type(problem).__name__


def nearest(name: str, existing: Sequence[str], what: str = "columns") -> str:
    """List the most similar names, for an error message."""
    by_case = {column.lower(): column for column in existing}
    close = difflib.get_close_matches(name.lower(), list(by_case), n=3, cutoff=0.5)
    if close:
        return f"nearest: {', '.join(by_case[column] for column in close)}"
    more = [f"and {len(existing) - 12} more"] if len(existing) > 12 else []
    return f"{what} are: {', '.join([*existing[:12], *more])}"


def check_used(by: str, is_given: bool, **options: Any) -> None:
    """Refuse options that change nothing, because another one `by` which they are used is not given."""
    unused = [f"`{name}`" for name, value in options.items() if value or value == 0]
    if unused and not is_given:
        raise InputError(f"{' and '.join(unused)} would change nothing without `{by}`; give that, too, or leave it out")
