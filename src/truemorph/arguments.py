"""Types of arguments shared by several commands, for Python and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from truemorph.bias.transitions import FlipTransition
    from truemorph.classifiers.checkpoint import Classifier

    # A path, or a table in memory (polars, pandas, pyarrow, astropy); on the command line, a path.
    Table = Any
    # The name of a family of T(α), or a class; on the command line, a name.
    Family = str | type[FlipTransition]
    # Of truemorph transition: a path, a fit, or a dict.
    BiasCurve = Any
    Model = Classifier | str | Path
else:
    Table, Family, BiasCurve, Model = Path, str, Path, Path


def _by_commas(_: Any, tokens: Sequence[Any]) -> tuple[str, ...]:
    return tuple(name.strip() for token in tokens for name in token.value.split(",") if name.strip())


def _pair(_: Any, tokens: Sequence[Any]) -> tuple[int, int]:
    """Read k/n."""
    text = tokens[0].value
    k, _, n = text.partition("/")
    if not (k.isdigit() and n.isdigit()):
        raise ValueError(f"must be k/n, such as 3/64; got {text!r}")
    return int(k), int(n)


# "a,b" on the command line.
Names = Annotated[Sequence[str], Parameter(converter=_by_commas, n_tokens=1, show_default=False)]
# Repeated on the command line.
Rules = Annotated[Sequence[str], Parameter(consume_multiple=False, show_default=False)]
Paths = Annotated[Sequence[Path], Parameter(consume_multiple=False, show_default=False)]
Shard = Annotated[tuple[int, int], Parameter(converter=_pair, n_tokens=1, show_default=False)]
Seed = Annotated[int, Parameter(validator=Number(gte=0, lt=2**31), allow_leading_hyphen=True)]
Count = Annotated[int, Parameter(validator=Number(gte=0), allow_leading_hyphen=True)]
AtLeastOne = Annotated[int, Parameter(validator=Number(gte=1), allow_leading_hyphen=True)]
NotNegative = Annotated[float, Parameter(validator=Number(gte=0), allow_leading_hyphen=True)]
