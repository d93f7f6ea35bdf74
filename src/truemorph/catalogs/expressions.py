r"""Expressions over columns, written in SQL: "a_count" / ("a_count" + "b_count").

Polars computes them. Polars' own parser also knows subqueries that read files, aggregates that mix rows and patterns
that match columns, so that a mapping sent by someone else could do more than compute: here an expression is cut into
words first, and only columns, numbers, text, operators and the functions below, which see one row at a time, go on.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from polars.exceptions import PolarsError

from truemorph.catalogs.schema import nearest
from truemorph.errors import InputError

FUNCTIONS = (
    *("abs", "sign", "round", "floor", "ceil", "sqrt", "cbrt", "exp", "ln", "log2", "log10", "pow", "power", "mod"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "radians", "degrees", "pi"),
    *("coalesce", "nullif", "ifnull", "if", "least", "greatest", "cast", "try_cast"),
    *("lower", "upper", "length", "concat", "replace", "substr", "starts_with", "ends_with", "strpos", "regexp_like"),
)
_VALUES = ("null", "true", "false", "end")
_TYPES = ("double", "float", "real", "int", "integer", "bigint", "text", "varchar", "string", "boolean")
_KEYWORDS = (
    *("and", "or", "not", "in", "is", "between", "like", "ilike", "case", "when", "then", "else", "as"),
    *_VALUES,
    *_TYPES,
)
_PARTS = re.compile(
    r"""\s+
    | (?P<quoted>"(?:[^"]|"")+")
    | (?P<text>'(?:[^'\\]|'')*')
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<word>[A-Za-z_]\w*)
    | (?P<sign><=|>=|<>|!=|==|\|\||[-+*/%<>=(),])
    """,
    re.VERBOSE,
)
_QUOTES = "names with more than letters, digits and _ go in double quotes"
_WHOLE = 2**53  # above it a float no longer holds every integer


@dataclass(frozen=True)
class Expression:
    """An expression that has been read.

    Attributes
    ----------
    text : str
        As it was written.
    sql : str
        As polars takes it: every column in quotes; what is divided by 0 is missing.
    columns : tuple of str
        Names that it needs, in the order of their first use.
    lone : bool
        Whether it is a column's name and nothing else.
    """

    text: str
    sql: str
    columns: tuple[str, ...]
    lone: bool


def read_expression(text: str, where: str) -> Expression:
    """Read an expression, and refuse what is more than one.

    Parameters
    ----------
    text : str
        Names of columns (in double quotes where they hold more than letters, digits and _), numbers, text in single
        quotes, + - * / %, comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, IS NULL, CASE WHEN … THEN … ELSE … END, and
        the functions in `FUNCTIONS`.
    where : str
        What the expression is for, to begin messages with.

    Raises
    ------
    InputError
        If it holds anything else, or doesn't parse.

    Examples
    --------
    >>> read_expression('a_count / ("a_count" + b)', "[columns.smooth_fraction]").columns
    ('a_count', 'b')
    """
    parts = _cut(text, where)
    columns = []
    written: list[str] = []
    ended = False  # whether a value has just ended, which a name may not follow: SQL would take it for a new name
    for number, (kind, part) in enumerate(parts):
        following = parts[number + 1][1] if number + 1 < len(parts) else ""
        called = following == "("
        keyword = kind == "word" and part.lower() in _KEYWORDS
        if (ended and not keyword and (kind != "sign" or part == "(")) or (
            keyword and part.lower() == "as" and following.lower() not in _TYPES
        ):
            raise InputError(f"{where}: can't read {text!r} at {part!r}; {_QUOTES}")
        ended = part == ")" if kind == "sign" else (not keyword or part.lower() in _VALUES)
        if kind == "word" and part.lower() in FUNCTIONS and called:
            written.append(part.upper())
            ended = False
        elif keyword:
            written.append(part.upper())
        elif kind == "word" and called:
            raise InputError(f"{where}: no function {part!r} in {text!r}; {nearest(part, FUNCTIONS, what='functions')}")
        elif kind in ("word", "quoted"):
            name = part[1:-1].replace('""', '"') if kind == "quoted" else part
            columns.append(name)
            written.append('"{}"'.format(name.replace('"', '""')))
        else:
            written.append(part)
    sql = " ".join(_missing_over_zero(written))
    try:
        pl.sql_expr(sql)
    except (PolarsError, ValueError) as problem:
        raise InputError(f"{where}: {text!r} is no expression: {_one_line(problem)}") from problem
    names = tuple(dict.fromkeys(columns))
    return Expression(" ".join(text.split()), sql, names, len(parts) == 1 and bool(names))


def _cut(text: str, where: str) -> list[tuple[str, str]]:
    parts, at = [], 0
    while at < len(text):
        found = _PARTS.match(text, at)
        if found is None:
            rest = text[at : at + 12]
            raise InputError(
                f"{where}: can't read {text!r} from {rest!r} on; expressions are SQL over columns; {_QUOTES}"
            )
        if found.lastgroup is not None:
            parts.append((found.lastgroup, found.group()))
        at = found.end()
    # SQL would take what follows for a comment, and drop it.
    if any(a == b == ("sign", "-") for a, b in itertools.pairwise(parts)):
        raise InputError(f"{where}: two minus signs in a row in {text!r}; write a - (-b)")
    if not parts:
        raise InputError(f"{where}: the expression is empty")
    return parts


def _missing_over_zero(written: Sequence[str]) -> list[str]:
    """Wrap every divisor, so that dividing by zero gives nothing rather than infinity or NaN."""
    out: list[str] = []
    at = 0
    while at < len(written):
        out.append(written[at])
        if written[at] in ("/", "%") and at + 1 < len(written):
            if written[at + 1] in ("+", "-"):
                out.append(written[at + 1])
                at += 1
                if at + 1 == len(written):
                    break
            end = at + 2
            opens = written[at + 1] == "(" or (end < len(written) and written[end] == "(")
            if opens:
                end = at + 2 if written[at + 1] == "(" else at + 3
                depth = 1
                while end < len(written) and depth:
                    depth += {"(": 1, ")": -1}.get(written[end], 0)
                    end += 1
            if opens or written[at + 1].startswith('"'):
                out += ["NULLIF", "(", *_missing_over_zero(written[at + 1 : end]), ",", "0", ")"]
                at = end
                continue
        at += 1
    return out


def compute(expression: Expression, frame: pl.DataFrame, where: str, *, exact: bool = False) -> pl.Series:
    """Compute an expression on a table, shape (N,); missing where it needs what is missing.

    Numbers count as double precision (integers that this can't hold stay integers, and all of them if `exact`), NaN as
    missing.

    Raises
    ------
    InputError
        If a column is absent (the nearest names are given), or holds what can't be computed with.

    Examples
    --------
    >>> table = pl.DataFrame({"a": [1, 2], "b": [3, 0]})
    >>> compute(read_expression("a / b", "ratio"), table, "ratio").to_list()
    [0.3333333333333333, None]
    """
    for name in expression.columns:
        if name not in frame.columns:
            raise InputError(
                f"{where}: no column {name!r} for {expression.text!r}; {nearest(name, frame.columns)} ({_QUOTES})"
            )
    used = frame.select(_plain_numbers(frame[name], exact) for name in expression.columns)
    try:
        if not expression.columns:
            used = frame.select(pl.int_range(pl.len()).alias("row\n"))
        computed = used.with_columns(pl.sql_expr(expression.sql).alias("computed\n"))["computed\n"]
    except (PolarsError, ValueError) as problem:
        raise InputError(f"{where}: can't compute {expression.text!r}: {_one_line(problem)}") from problem
    return computed.cast(pl.Float64) if computed.dtype.is_decimal() else computed


def _plain_numbers(series: pl.Series, exact: bool) -> pl.Series:
    # Small integers would overflow in sums; NaN would count as larger than any number.
    if series.dtype.is_integer():
        if exact:
            return series
        largest, smallest = series.max(), series.min()
        if isinstance(largest, int) and isinstance(smallest, int) and max(abs(largest), abs(smallest)) >= _WHOLE:
            return series
        return series.cast(pl.Float64)
    if series.dtype.is_float():
        return series.cast(pl.Float64).fill_nan(None)
    return series.cast(pl.String) if series.dtype in (pl.Categorical, pl.Enum) else series


def _one_line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[0][:200]
