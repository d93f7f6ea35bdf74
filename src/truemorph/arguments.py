"""Arguments of commands: types that several of them share, and the check of all, in Python as on the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeAlias, TypeVar

from cyclopts import Parameter
from pydantic import BeforeValidator, Field, SkipValidation, ValidationError, validate_call

from truemorph.config import by_commas
from truemorph.errors import InputError, TruemorphError
from truemorph.io import shortest

Given = ParamSpec("Given")
Result = TypeVar("Result")


def validated(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Check the arguments of each call against their types; the InputError names the first that does not fit.

    An OSError, such as that of a full disk, becomes a TruemorphError.
    """
    checking = validate_call(config={"arbitrary_types_allowed": True, "revalidate_instances": "always"})(function)
    names = list(inspect.signature(function).parameters)

    @wraps(function)
    def checked(*arguments: Given.args, **options: Given.kwargs) -> Result:
        try:
            return checking(*arguments, **options)
        except ValidationError as problem:
            if problem.title != function.__name__:
                raise
            first = problem.errors()[0]
            where = first["loc"][0]
            name = names[where] if isinstance(where, int) else where
            raise InputError(f"`{name}`: {first['msg'].lower()}; got {shortest(first['input'])}") from None
        except OSError as problem:
            why = f"{problem.filename or 'a file'}: {problem.strerror or problem}"
            raise TruemorphError(f"{why}; correct this, and run the same command again") from problem

    return checked


# Repeated on the command line.
_REPEATED = Parameter(consume_multiple=False, show_default=False)
Rules = Annotated[Sequence[str], _REPEATED]
Paths = Annotated[Sequence[Path], _REPEATED]
if TYPE_CHECKING:
    # A path, or a table in memory (polars, pandas, pyarrow, astropy); on the command line, a path.
    Table = Any
    # One of them, or a sequence; on the command line, repeated.
    Tables = Any
    # The name of a family of T(α), or a class; on the command line, a name.
    Family: TypeAlias = str | type[Any]
    # Of truemorph transition: a path, a fit, or a dict.
    BiasCurve = Any
    # A path or a Classifier; also an Estimate.
    Model: TypeAlias = Any
    # What a report shows, or an estimate: a path, or an object in memory.
    Shown: TypeAlias = Any
else:
    Table = BiasCurve = Model = Shown = Annotated[Path, SkipValidation]
    Tables = Annotated[Paths, SkipValidation]
    Family = Annotated[str, SkipValidation]


def listed(given: Any) -> list[Any]:
    """Return `Tables` as a list."""
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def _pair(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"\d+/\d+", value):
        raise ValueError("must be k/n, such as 3/64")
    return value.split("/")


def _edges(value: Any) -> Any:
    parts = by_commas(value)
    return parts[0] if isinstance(parts, list) and len(parts) == 1 else parts


AS_GIVEN = Parameter(
    converter=lambda _, tokens: ",".join(token.value for token in tokens), n_tokens=1, show_default=False
)
# Also as text, "a,b" and "3/64", as on the command line.
Names = Annotated[Sequence[str], BeforeValidator(by_commas), AS_GIVEN]
Shard = Annotated[tuple[int, int], BeforeValidator(_pair), AS_GIVEN]
_NUMBER = Parameter(allow_leading_hyphen=True)
Count = Annotated[int, Field(ge=0, lt=2**31), _NUMBER]
Seed = Count
AtLeastOne = Annotated[int, Field(ge=1, lt=2**31), _NUMBER]
Fraction = Annotated[float, Field(ge=0, le=1), _NUMBER]
NotNegative = Annotated[float, Field(ge=0), _NUMBER]
# A number of bins, or edges.
Edges = Annotated[AtLeastOne | Sequence[float], BeforeValidator(_edges), AS_GIVEN, _NUMBER]
