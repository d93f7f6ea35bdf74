"""SQL expressions over the columns of a table, for example ``a_count / (a_count + b_count)``.

A mapping may come from somebody else, so an expression can only compute on one row at a time. sqlglot parses it,
and numpy and polars evaluate the nodes that are known here. The SQL of polars is not used: it treats
NaN as larger than any number, lets integers overflow, and reads names such as ``^a.*$`` as patterns. To add a
function, add it to `FUNCTIONS`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, ClassVar

import numpy as np
import polars as pl
from polars.exceptions import PolarsError
from sqlglot import Parser, exp, tokenize
from sqlglot.errors import SqlglotError
from sqlglot.tokens import TokenType

from truemorph.errors import InputError, nearest, reason

MOST_WORDS, DEEPEST = 300, 20
_SIGNS = {"(", ")", ",", "+", "-", "*", "/", "<", "<=", ">", ">=", "=", "==", "<>", "!="}
_KEYWORDS = {"and", "or", "not", "in", "between", "like", "case", "when", "then", "else"}
_SPACE = re.compile(r"""("[^"]*"|'[^']*')|\s+""")
_HELP = "write names with more than letters, digits and _ in double quotes, and text in single quotes"
# Arguments of sqlglot's nodes that are evaluated. Others, such as a query after IN, raise an error.
_ARGUMENTS = {"this", "expression", "expressions", "low", "high", "ifs", "true", "default", "negate", "typed", "safe"}
_ARGUMENTS |= {"is_string", "quoted"}


class _Parser(Parser):
    """sqlglot's parser without known functions: a call is kept as a name with its arguments."""

    FUNCTIONS: ClassVar = {}
    NO_PAREN_FUNCTIONS: ClassVar = {}
    FUNCTION_PARSERS: ClassVar = {}
    NO_PAREN_FUNCTION_PARSERS: ClassVar = {"CASE": Parser.NO_PAREN_FUNCTION_PARSERS["CASE"]}


@dataclass(frozen=True)
class Expression:
    """A parsed expression, and its text on one line (for a column, its name)."""

    text: str
    tree: exp.Expr

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns, in order of first use."""
        return tuple(dict.fromkeys(node.name for node in self.tree.find_all(exp.Column, bfs=False)))

    @property
    def lone(self) -> bool:
        """Whether the expression is just the name of a column."""
        return isinstance(self.tree, exp.Column)


def column_expression(name: str) -> Expression:
    """Return the expression of one column."""
    return Expression(name, exp.column(name, quoted=True))


@lru_cache(1000)
def read_expression(text: str, where: str) -> Expression:
    """Parse an expression of at most 300 words and 20 levels of brackets; messages begin with `where`.

    SQL with columns, numbers, text in single quotes, ``+ - * /``, comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, IS
    NULL, CASE, and `FUNCTIONS`.
    """
    with _explained(f"{where}: can't parse {_shorten(text)!r}"):
        tree = _parse(text)
        for node in tree.walk(bfs=False):
            _check_node(node)
        one_line = _SPACE.sub(lambda match: match[1] or " ", text).strip()
        expression = Expression(tree.name if isinstance(tree, exp.Column) else one_line, tree)
        # Check everything that does not depend on the table, with columns that have no type and no rows.
        _value(tree, pl.DataFrame(schema=dict.fromkeys(expression.columns, pl.Null)))
    return expression


def compute(expression: Expression, frame: pl.DataFrame, where: str) -> pl.Series:
    """Evaluate an expression on a table, shape (N,); NaN, infinity and integers above 64 bits become null."""
    for name in expression.columns:
        if name not in frame.columns:
            of = "" if expression.lone else f" for {expression.text!r}"
            raise InputError(f"{where}: no column {name!r}{of}; {nearest(name, frame.columns)}")
    with _explained(f"{where}: can't compute {expression.text!r}"):
        result = _value(expression.tree, frame)
    if result.dtype == pl.Int128:
        narrow = (result.cast(dtype, strict=False) for dtype in (pl.Int64, pl.UInt64))
        result = min(narrow, key=pl.Series.null_count)
    return result if len(result) == frame.height else result.new_from_index(0, frame.height)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except RecursionError as problem:
        raise InputError(f"{what}: it is nested too deeply; write it shorter") from problem
    except (SqlglotError, LookupError) as problem:  # sqlglot can raise both
        raise InputError(f"{what}: syntax error; {_HELP}") from problem
    except (ValueError, PolarsError) as problem:
        raise InputError(f"{what}: {reason(problem)}") from problem


# --- what is allowed --------------------------------------------------------------------------------------------------


def _parse(text: str) -> exp.Expr:
    """Check the tokens before parsing: sqlglot drops comments, and needs minutes for some nested brackets."""
    tokens = tokenize(text)
    if not 0 < len(tokens) <= MOST_WORDS:
        raise ValueError(f"it has {len(tokens):,} words; 1 to {MOST_WORDS} are allowed")
    depth, before, vocabulary = 0, "(", _SIGNS | _KEYWORDS | set(FUNCTIONS)
    for token in tokens:
        word = token.text.lower()
        if token.comments:
            raise ValueError("-- and /* start a comment in SQL; write a - (-b)")
        if token.token_type in (TokenType.STRING, TokenType.IDENTIFIER, TokenType.NUMBER):
            word = token.token_type.name
        elif word not in _SIGNS and not word.isidentifier():
            raise ValueError(f"{_shorten(token.text)!r} is not allowed; {_HELP}")
        if word == "(" and before not in vocabulary:
            raise ValueError(f"no function {before!r}; {nearest(before, list(FUNCTIONS), what='functions')}")
        depth += (word == "(") - (word == ")")
        if depth > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels of brackets")
        before = word
    tree = _Parser().parse_into(exp.Condition, tokens, text)[0]
    if tree is None:
        raise ValueError("it is not an expression")
    return tree


def _check_node(node: exp.Expr) -> None:
    if not {name for name, value in node.args.items() if value not in (None, False, [])} <= _ARGUMENTS:
        raise ValueError(f"{_shorten(node.sql())!r} is not allowed")
    parts = (part.unnest() for part in node.iter_expressions())
    if isinstance(node, exp.Predicate) and any(isinstance(part, exp.Predicate | exp.Not) for part in parts):
        raise ValueError("comparisons can't be chained; write x BETWEEN 14 AND 15, or 14 < x AND x < 15")
    if isinstance(node, exp.Like) and not node.expression.is_string:
        raise ValueError("LIKE needs a pattern in single quotes")
    if isinstance(node, exp.Is) and not isinstance(node.expression, exp.Null):
        raise ValueError("IS must be followed by NULL or NOT NULL")


# --- evaluation: integers are Int128, other numbers Float64; literals are series of length 1 --------------------------

_NUMBERS, _TEXT, _TRUTH, _ALIKE, _ANY = "numbers", "text", "true or false", "values of one kind", "values"
_DTYPES: dict[str, Any] = {_NUMBERS: pl.Float64, _TEXT: pl.String, _TRUTH: pl.Boolean}


def _value(node: exp.Expr, frame: pl.DataFrame) -> pl.Series:
    function: Callable[..., pl.Series]
    match node:
        case exp.Column():
            return _plain(frame[node.name].alias(""))  # polars interprets some names as patterns
        case exp.Literal():
            return _literal(node)
        case exp.Boolean() | exp.Null():
            return pl.Series([node.to_py()])
        case exp.Paren():
            return _value(node.this, frame)
        case exp.Case():
            return _case(node, frame)
        case exp.Anonymous():
            (kind, function), parts = FUNCTIONS[node.name.lower()], node.expressions
        case _ if type(node) in _OPERATORS:
            (kind, function), parts = _OPERATORS[type(node)], list(node.iter_expressions())
        case _:
            raise ValueError(f"{_shorten(node.sql())!r} is not allowed")
    values = [_value(part, frame) for part in parts]
    try:
        result = function(*_arguments(kind, values))
    except (TypeError, ValueError, PolarsError) as problem:
        raise ValueError(f"{_shorten(node.sql())!r}: {problem}") from problem
    return ~result if node.args.get("negate") else result


def _case(node: exp.Case, frame: pl.DataFrame) -> pl.Series:
    tests = [
        exp.EQ(this=node.this, expression=branch.this) if node.this else branch.this for branch in node.args["ifs"]
    ]
    results = [*(branch.args["true"] for branch in node.args["ifs"]), node.args.get("default") or exp.Null()]
    conditions = _arguments(_TRUTH, [_value(test, frame) for test in tests])
    *values, result = _arguments(_ALIKE, [_value(result, frame) for result in results])
    for condition, value in zip(reversed(conditions), reversed(values), strict=True):
        result = _where(condition, value, result)
    return result


def _arguments(needed_kind: str, values: Sequence[pl.Series]) -> list[pl.Series]:
    """Check the kind of values; untyped nulls get that kind, and booleans among numbers become 1 and 0."""
    if needed_kind == _ANY:
        return list(values)
    kinds = {_kind(series) for series in values if series.dtype != pl.Null}
    if needed_kind == _ALIKE and kinds == {_NUMBERS, _TRUTH}:  # flag = 1
        values = [series.cast(pl.Int128) if series.dtype == pl.Boolean else series for series in values]
        kinds = {_NUMBERS}
    kind = next(iter(kinds), _TRUTH) if needed_kind == _ALIKE else needed_kind
    if not kinds <= {kind}:
        raise ValueError(f"needs {needed_kind}, not {' and '.join(sorted(kinds))}")
    return [series.cast(_DTYPES[kind]) if series.dtype == pl.Null and kind in _DTYPES else series for series in values]


def _kind(series: pl.Series) -> str:
    if series.dtype.is_numeric():
        return _NUMBERS
    return next((kind for kind, dtype in _DTYPES.items() if series.dtype == dtype), str(series.dtype).lower())


def _plain(series: pl.Series) -> pl.Series:
    """Normalise dtypes; NaN and infinity become null."""
    if series.dtype.is_integer():
        return series.cast(pl.Int128)
    if series.dtype.is_float() or series.dtype.is_decimal():
        series = series.cast(pl.Float64)
        finite = series.is_finite()
        return series if finite.all() else _where(finite, series)
    return series


def _literal(node: exp.Literal) -> pl.Series:
    if node.is_string:
        return pl.Series([node.name])
    if node.name.isdigit() and int(node.name) < 2**64:
        return pl.Series([int(node.name)], dtype=pl.Int128)
    if not np.isfinite(float(node.name)):
        raise ValueError(f"{node.name} is too large")
    return pl.Series([float(node.name)])


def _where(condition: pl.Series, values: pl.Series, others: pl.Series | None = None) -> pl.Series:
    """Return values where a condition is true, and others (or null) elsewhere."""
    return pl.select(pl.when(condition).then(values).otherwise(others)).to_series()


def _across(function: Callable[..., pl.Expr], first: pl.Series, *others: pl.Series) -> pl.Series:
    """Return a function of several columns, of which there must be one."""
    return pl.select(function(first, *others)).to_series()


def _numeric(function: Callable[..., np.ndarray], *values: pl.Series) -> pl.Series:
    """Compute in float64 with numpy, whose division rounds correctly (that of polars differs in the last bit)."""
    with np.errstate(all="ignore"):
        result = function(*(series.cast(pl.Float64).to_numpy() for series in values))  # null becomes NaN
    return _plain(pl.Series(result))


def _arithmetic(function: Callable[..., Any], a: pl.Series, b: pl.Series) -> pl.Series:
    if not a.dtype == b.dtype == pl.Int128:
        return _numeric(function, a, b)
    exact = function(a, b)
    if function is operator.mul:  # Int128 would wrap around
        exact = _where((a.cast(pl.Float64) * b.cast(pl.Float64)).abs() < 2.0**100, exact)
    return _where(exact.is_between(-(2**63), 2**64 - 1), exact)


def _like(text: pl.Series, pattern: pl.Series) -> pl.Series:
    body = "".join({"%": ".*", "_": "."}.get(character, re.escape(character)) for character in pattern[0])
    return text.str.contains(f"(?s)^{body}$")


_OPERATORS: dict[type, tuple[str, Callable[..., pl.Series]]] = {
    exp.Add: (_NUMBERS, partial(_arithmetic, operator.add)),
    exp.Sub: (_NUMBERS, partial(_arithmetic, operator.sub)),
    exp.Mul: (_NUMBERS, partial(_arithmetic, operator.mul)),
    exp.Div: (_NUMBERS, partial(_numeric, operator.truediv)),
    exp.Neg: (_NUMBERS, lambda a: _arithmetic(operator.sub, pl.Series([0], dtype=pl.Int128), a)),
    exp.EQ: (_ALIKE, operator.eq),
    exp.NEQ: (_ALIKE, operator.ne),
    exp.LT: (_ALIKE, operator.lt),
    exp.LTE: (_ALIKE, operator.le),
    exp.GT: (_ALIKE, operator.gt),
    exp.GTE: (_ALIKE, operator.ge),
    exp.Between: (_ALIKE, lambda x, low, high: (x >= low) & (x <= high)),
    exp.In: (_ALIKE, lambda x, *values: _across(pl.any_horizontal, *(x == value for value in values))),
    exp.Is: (_ANY, lambda x, _: x.is_null()),
    exp.Like: (_TEXT, _like),
    exp.And: (_TRUTH, operator.and_),
    exp.Or: (_TRUTH, operator.or_),
    exp.Not: (_TRUTH, operator.invert),
}


def _of_number(function: Callable[..., np.ndarray]) -> tuple[str, Callable[..., pl.Series]]:
    return _NUMBERS, lambda x: _numeric(function, x)


# Functions by name, with the kind of their arguments (series of length N or 1). There is no `log`: it is log10 in some
# databases and the natural logarithm in others.
FUNCTIONS: dict[str, tuple[str, Callable[..., pl.Series]]] = {
    "sqrt": _of_number(np.sqrt),
    "exp": _of_number(np.exp),
    "ln": _of_number(np.log),
    "log10": _of_number(np.log10),
    "pow": (_NUMBERS, lambda x, y: _numeric(np.power, x, y)),
    "abs": (_NUMBERS, lambda x: x.abs()),
    "round": _of_number(np.round),
    "floor": _of_number(np.floor),
    "ceil": _of_number(np.ceil),
    "least": (_NUMBERS, partial(_across, pl.min_horizontal)),
    "greatest": (_NUMBERS, partial(_across, pl.max_horizontal)),
    "coalesce": (_ALIKE, partial(_across, pl.coalesce)),
    "nullif": (_ALIKE, lambda x, value: _where((x != value).fill_null(True), x)),
    "lower": (_TEXT, lambda text: text.str.to_lowercase()),
    "concat": (_ANY, partial(_across, pl.concat_str)),
}
