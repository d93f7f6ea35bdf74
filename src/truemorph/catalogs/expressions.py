"""SQL expressions over the columns of a table, for example ``a_count / (a_count + b_count)``.

A mapping may come from somebody else, so an expression can only compute on one row at a time. sqlglot parses it, every
node of the tree must be in `_NODES`, and numpy and polars compute it here: polars' own SQL counts NaN as larger than
any number, lets integers overflow, and reads names such as ``^a.*$`` as patterns. To add a function, add it to
`FUNCTIONS`.
"""

from __future__ import annotations

import functools
import inspect
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
from polars.exceptions import PolarsError
from sqlglot import Parser, exp, tokenize
from sqlglot.errors import SqlglotError
from sqlglot.tokens import TokenType

from truemorph.errors import InputError, nearest

LONGEST, MOST_WORDS, DEEPEST = 4000, 300, 20
_SIGNS = {"(", ")", ",", "+", "-", "*", "/", "%", "||", "<", "<=", ">", ">=", "=", "==", "<>", "!="}
_KEYWORDS = {"and", "or", "not", "in", "between", "like", "ilike", "case", "when", "then", "else", "cast", "try_cast"}
_SPACE = re.compile(r"""("[^"]*"|'[^']*')|\s+""")
_HELP = "write names with more than letters, digits and _ in double quotes, and text in single quotes"
_NUMBERS: dict[str, Any] = {"DOUBLE": pl.Float64, "FLOAT": pl.Float64, "INT": pl.Int64, "BIGINT": pl.Int64}
_TYPES = {**_NUMBERS, "TEXT": pl.String, "VARCHAR": pl.String, "BOOLEAN": pl.Boolean}


class _Parser(Parser):
    """sqlglot's parser without its functions: a call stays a name with all its arguments."""

    FUNCTIONS: ClassVar = {}
    NO_PAREN_FUNCTIONS: ClassVar = {}
    FUNCTION_PARSERS: ClassVar = {name: Parser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST")}
    NO_PAREN_FUNCTION_PARSERS: ClassVar = {"CASE": Parser.NO_PAREN_FUNCTION_PARSERS["CASE"]}


@dataclass(frozen=True)
class Expression:
    """A parsed expression.

    Attributes
    ----------
    text : str
        The expression on one line; of a column, its name.
    columns : tuple of str
        Names of the columns it needs, in order of first use.
    lone : bool
        Whether it is the name of a column and nothing else.
    tree : sqlglot.exp.Expr
    """

    text: str
    columns: tuple[str, ...]
    lone: bool
    tree: exp.Expr

    @property
    def said(self) -> str:
        """The text, shortened for messages."""
        return _shorten(self.text)


def column_expression(name: str) -> Expression:
    """The expression that is one column.

    Examples
    --------
    >>> column_expression("b/a").columns
    ('b/a',)
    """
    return Expression(name, (name,), True, exp.column(name, quoted=True))


def read_expression(text: str, where: str) -> Expression:
    """Parse an expression.

    Parameters
    ----------
    text : str
        SQL: columns (in double quotes if the name has more than letters, digits and _), numbers, text in single
        quotes, ``+ - * / % ||``, comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, IS NULL, CASE, CAST, and `FUNCTIONS`.
        At most 4,000 characters, 300 words and 20 levels of brackets.
    where : str
        What the expression is for; messages begin with it.

    Raises
    ------
    InputError
        If it cannot be parsed or contains anything else.

    Examples
    --------
    >>> read_expression('a_count / ("a_count" + b)', "[columns.smooth_fraction]").columns
    ('a_count', 'b')
    """
    try:
        tree = _parse(text)
        nodes = list(tree.walk(bfs=False))
        for node in nodes:
            _check_node(node)
    except RecursionError as problem:
        raise InputError(f"{where}: {_shorten(text)!r} is nested too deeply; write it shorter") from problem
    except (SqlglotError, ValueError, LookupError) as problem:  # sqlglot lets LookupErrors of its own through
        raise InputError(f"{where}: can't read {_shorten(text)!r}: {_reason(problem)}") from problem
    names = tuple(dict.fromkeys(node.name for node in nodes if isinstance(node, exp.Column)))
    lone = isinstance(tree, exp.Column)
    one_line = _SPACE.sub(lambda found: found[1] or " ", text).strip()
    return Expression(tree.name if lone else one_line, names, lone, tree)


def compute(expression: Expression, frame: pl.DataFrame, where: str) -> pl.Series:
    """Evaluate an expression on a table.

    NaN and infinity, in a column or in an intermediate result, become null, so no comparison holds for them. Integers
    are exact; results that don't fit 64 bits become null.

    Returns
    -------
    polars.Series, shape (N,)
        Float64, Int64 (UInt64 where needed), String or Boolean; a column of another type keeps its type.

    Raises
    ------
    InputError
        If a column is absent (the nearest names are given), or of the wrong type.

    Examples
    --------
    >>> table = pl.DataFrame({"a": [1, 2], "b": [3, 0]})
    >>> compute(read_expression("a / b", "ratio"), table, "ratio").to_list()
    [0.3333333333333333, None]
    """
    for name in expression.columns:
        if name not in frame.columns:
            raise InputError(f"{where}: no column {name!r} for {expression.said!r}; {nearest(name, frame.columns)}")
    try:
        result = _value(expression.tree, frame)
    except RecursionError as problem:
        raise InputError(f"{where}: {expression.said!r} is nested too deeply; write it shorter") from problem
    except (PolarsError, ValueError) as problem:
        raise InputError(f"{where}: can't compute {expression.said!r}: {_reason(problem)}") from problem
    if result.dtype == pl.Int128:
        narrow = (result.cast(dtype, strict=False) for dtype in (pl.Int64, pl.UInt64))
        result = min(narrow, key=pl.Series.null_count)
    return result if len(result) == frame.height else result.new_from_index(0, frame.height)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def _reason(problem: Exception) -> str:
    if isinstance(problem, SqlglotError | LookupError):
        near = [found["highlight"] for found in getattr(problem, "errors", []) if found.get("highlight")]
        return f"syntax error{f' near {_shorten(near[0])!r}' if near else ''}; {_HELP}"
    return str(problem).strip().partition("\n")[0][:200]


# --- what is allowed --------------------------------------------------------------------------------------------------


def _parse(text: str) -> exp.Expr:
    """Check the words, then parse: sqlglot drops comments, and needs minutes for some nested brackets."""
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} characters; {LONGEST:,} are allowed")
    tokens = tokenize(text)
    if len(tokens) > MOST_WORDS:
        raise ValueError(f"it has {len(tokens):,} words; {MOST_WORDS} are allowed")
    depth, before, written, known = 0, "(", "", _SIGNS | _KEYWORDS | set(FUNCTIONS)
    for token in tokens:
        word = token.text.lower()
        if token.comments:
            raise ValueError("SQL takes what follows -- or /* for a comment; write a - (-b)")
        if token.token_type in (TokenType.STRING, TokenType.IDENTIFIER, TokenType.NUMBER):
            word = token.token_type.name
        elif word not in _SIGNS and not word.isidentifier():
            raise ValueError(f"{_shorten(token.text)!r} is not allowed; {_HELP}")
        if word == "(" and before not in known:
            raise ValueError(f"no function {written!r}; {nearest(before, list(FUNCTIONS), what='functions')}")
        if word == before == "STRING":
            raise ValueError("two texts follow each other without a comma")
        depth += (word == "(") - (word == ")")
        if depth > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels of brackets")
        before, written = word, token.text
    tree = _Parser().parse_into(exp.Condition, tokens, text)[0] if tokens else None
    if tree is None:
        raise ValueError("it is empty")
    return tree


def _check_node(node: exp.Expr) -> None:
    given = {name for name, value in node.args.items() if value not in (None, False, [])}
    misplaced = not isinstance(node.parent, _INSIDE.get(type(node), object))
    if misplaced or type(node) not in _NODES or not given <= {"this", "expression", *_NODES[type(node)].split()}:
        raise ValueError(f"{_shorten(node.sql())!r} is not allowed")
    parts = list(node.iter_expressions())
    if isinstance(node, exp.Predicate) and any(isinstance(part, _CONDITIONS) for part in parts):
        raise ValueError("it compares a comparison; write x BETWEEN 14 AND 15, or 14 < x AND x < 15")
    if isinstance(node, exp.Like | exp.ILike) and not node.expression.is_string:
        raise ValueError("LIKE takes a pattern in single quotes")
    if isinstance(node, exp.DataType) and node.this.name not in _TYPES:
        raise ValueError(f"CAST takes DOUBLE, BIGINT, TEXT or BOOLEAN, not {node.sql()}")
    if node.is_number and not np.isfinite(float(node.name)):
        raise ValueError(f"{node.name} is too large")
    if isinstance(node, exp.Anonymous) or type(node) in _OPERATORS:
        try:
            inspect.signature(_function(node)).bind(*parts)
        except TypeError as problem:
            raise ValueError(f"{_shorten(node.sql())!r}: {problem}") from problem


# --- evaluation: integers are Int64 or Int128, other numbers Float64; literals are series of length 1 -----------------


def _function(node: exp.Expr) -> Callable[..., pl.Series]:
    return FUNCTIONS[node.name.lower()] if isinstance(node, exp.Anonymous) else _OPERATORS[type(node)]


def _value(node: exp.Expr, frame: pl.DataFrame) -> pl.Series:
    match node:
        case exp.Column():
            return _plain(frame[node.name].alias(""))  # polars takes some names for patterns
        case exp.Literal():
            return _literal(node)
        case exp.Boolean() | exp.Null():
            return pl.Series([node.to_py()])
        case exp.Cast():
            return _cast(_value(node.this, frame), _TYPES[node.to.this.name], not isinstance(node, exp.TryCast))
        case exp.Case():
            subject = node.this and _value(node.this, frame)
            pairs = [(_value(branch.this, frame), _value(branch.args["true"], frame)) for branch in node.args["ifs"]]
            return _case(subject, pairs, _value(node.args.get("default") or exp.Null(), frame))
    result = _function(node)(*(_value(part, frame) for part in node.iter_expressions()))
    return ~result if node.args.get("negate") else result


def _plain(series: pl.Series) -> pl.Series:
    """Normalise dtypes; NaN and infinity become null."""
    if series.dtype.is_integer():
        return series.cast(pl.Int128 if series.dtype == pl.UInt64 else pl.Int64)
    if series.dtype.is_float() or series.dtype.is_decimal():
        series = series.cast(pl.Float64)
        finite = series.is_finite()
        return series if finite.all() else _where(finite, series)
    return series.cast(pl.String) if series.dtype in (pl.Categorical, pl.Enum) else series


def _literal(node: exp.Literal) -> pl.Series:
    if node.is_string or not (node.name.isdigit() and int(node.name) < 2**64):
        return pl.Series([node.name if node.is_string else float(node.name)])
    return _plain(pl.Series([int(node.name)], dtype=pl.Int64 if int(node.name) < 2**63 else pl.UInt64))


def _where(condition: pl.Series, values: pl.Series, others: pl.Series | None = None) -> pl.Series:
    """Values where a condition holds, others (or null) where it does not or is null."""
    return pl.select(pl.when(condition).then(values).otherwise(others)).to_series()


def _kind(series: pl.Series) -> str:
    if series.dtype.is_numeric():
        return "numbers"
    names: dict[Any, str] = {pl.String: "text", pl.Boolean: "true or false", pl.Null: "null"}
    return names.get(series.dtype, str(series.dtype))


def _of(dtype: Any, series: pl.Series) -> pl.Series:
    """Check that values are numbers (Float64), text or true and false; an untyped null becomes of that type."""
    wanted = pl.Series([], dtype=dtype)
    if series.dtype == pl.Null:
        return series.cast(dtype)
    if _kind(series) != _kind(wanted):
        hint = {pl.Boolean: "; write a comparison", pl.Float64: "; write CAST(name AS DOUBLE) for text"}.get(dtype, "")
        raise ValueError(f"needs {_kind(wanted)}, not {_kind(series)}{hint}")
    return series


def _alike(values: Sequence[pl.Series]) -> list[pl.Series]:
    """Several values as one dtype."""
    kinds = {_kind(one) for one in values} - {"null"}
    if len(kinds) > 1:
        raise ValueError(f"mixes {' and '.join(sorted(kinds))}")
    dtypes: set[Any] = {one.dtype for one in values} - {pl.Null()}
    if len(dtypes) > 1:
        dtypes = {pl.Float64} if pl.Float64 in dtypes else {pl.Int128}
    return [one.cast(next(iter(dtypes), pl.Null)) for one in values]


def _doubles(series: pl.Series) -> np.ndarray:
    return _of(pl.Float64, series).cast(pl.Float64).to_numpy()  # null becomes NaN


def _numeric(function: Callable[..., np.ndarray], *values: pl.Series) -> pl.Series:
    """Compute on doubles in numpy, whose division rounds correctly (polars' differs in the last bit)."""
    with np.errstate(all="ignore"):
        result = function(*map(_doubles, values))
    finite = np.isfinite(result)
    return pl.Series(result) if finite.all() else _where(pl.Series(finite), pl.Series(result))


def _wide(series: pl.Series) -> pl.Series:
    return series.cast(pl.Int128) if series.dtype.is_integer() else _of(pl.Float64, series)


def _arithmetic(function: Callable[..., Any], a: pl.Series, b: pl.Series) -> pl.Series:
    a, b = _wide(a), _wide(b)
    if not a.dtype == b.dtype == pl.Int128:
        return _numeric(function, a, b)
    if function is operator.mod:
        return a % _where(b != 0, b)
    exact = function(a, b)
    if function is operator.mul:  # Int128 would wrap around
        exact = _where((a.cast(pl.Float64) * b.cast(pl.Float64)).abs() < 2.0**100, exact)
    return _where(exact.is_between(-(2**63), 2**64 - 1), exact)


def _compare(function: Callable[..., Any], a: pl.Series, b: pl.Series) -> pl.Series:
    if pl.Null in (a.dtype, b.dtype):
        return pl.Series([None], dtype=pl.Boolean)
    equality = function in (operator.eq, operator.ne)
    if equality and {_kind(a), _kind(b)} == {"numbers", "true or false"}:  # flag = 1
        a, b = (one.cast(pl.Int64) if one.dtype == pl.Boolean else one for one in (a, b))
    elif _kind(a) != _kind(b) or a.dtype.is_nested():
        raise ValueError(f"compares {_kind(a)} with {_kind(b)}")
    if a.dtype != b.dtype and a.dtype.is_integer() and b.dtype.is_integer():
        a, b = _wide(a), _wide(b)
    return function(a, b)


def _in(series: pl.Series, first: pl.Series, *others: pl.Series) -> pl.Series:
    return functools.reduce(operator.or_, (_compare(operator.eq, series, value) for value in (first, *others)))


def _is(series: pl.Series, wanted: pl.Series) -> pl.Series:
    return series.is_null() if wanted.dtype == pl.Null else _of(pl.Boolean, series).eq_missing(wanted)


def _like(flags: str, series: pl.Series, pattern: pl.Series) -> pl.Series:
    body = "".join({"%": ".*", "_": "."}.get(one, re.escape(one)) for one in pattern[0])
    return _of(pl.String, series).str.contains(f"(?{flags})^{body}$")


def _case(subject: pl.Series | None, pairs: Sequence[tuple[pl.Series, pl.Series]], default: pl.Series) -> pl.Series:
    conditions = [_of(pl.Boolean, one) if subject is None else _compare(operator.eq, subject, one) for one, _ in pairs]
    *values, result = _alike([*(value for _, value in pairs), default])
    for condition, value in zip(reversed(conditions), reversed(values), strict=True):
        result = _where(condition, value, result)
    return result


def _cast(series: pl.Series, dtype: Any, strict: bool) -> pl.Series:
    if dtype == pl.Int64 and series.dtype == pl.String:
        series = series.str.strip_chars()
    if dtype == pl.Boolean and series.dtype == pl.String:
        raise ValueError("CAST to BOOLEAN takes numbers; write a comparison for text")
    exact = dtype == pl.Int64 and series.dtype.is_integer()
    return series if exact else _plain(series.cast(dtype, strict=strict))


def _coalesce(first: pl.Series, *others: pl.Series) -> pl.Series:
    return functools.reduce(lambda a, b: _where(a.is_not_null(), a, b), _alike((first, *others)))


def _extreme(function: Callable[..., pl.Expr], *values: pl.Series) -> pl.Series:
    return pl.select(function(*_alike([_of(pl.Float64, one) for one in values]))).to_series()


def _concat(first: pl.Series, *others: pl.Series) -> pl.Series:
    return functools.reduce(operator.add, (one.cast(pl.String) for one in (first, *others)))


_OPERATORS: dict[type, Callable[..., pl.Series]] = {
    exp.Add: functools.partial(_arithmetic, operator.add),
    exp.Sub: functools.partial(_arithmetic, operator.sub),
    exp.Mul: functools.partial(_arithmetic, operator.mul),
    exp.Mod: functools.partial(_arithmetic, operator.mod),
    exp.Div: functools.partial(_numeric, operator.truediv),
    exp.Neg: lambda a: _arithmetic(operator.sub, pl.Series([0], dtype=pl.Int128), a),
    exp.Paren: lambda a: a,
    exp.DPipe: _concat,
    exp.EQ: functools.partial(_compare, operator.eq),
    exp.NEQ: functools.partial(_compare, operator.ne),
    exp.LT: functools.partial(_compare, operator.lt),
    exp.LTE: functools.partial(_compare, operator.le),
    exp.GT: functools.partial(_compare, operator.gt),
    exp.GTE: functools.partial(_compare, operator.ge),
    exp.Between: lambda x, low, high: _compare(operator.ge, x, low) & _compare(operator.le, x, high),
    exp.In: _in,
    exp.Is: _is,
    exp.Like: functools.partial(_like, "s"),
    exp.ILike: functools.partial(_like, "si"),
    exp.And: lambda a, b: _of(pl.Boolean, a) & _of(pl.Boolean, b),
    exp.Or: lambda a, b: _of(pl.Boolean, a) | _of(pl.Boolean, b),
    exp.Not: lambda a: ~_of(pl.Boolean, a),
}

_CONDITIONS = (exp.Predicate, exp.Connector, exp.Not)
_INSIDE: dict[type, type] = {exp.Identifier: exp.Column, exp.DataType: exp.Cast, exp.If: exp.Case}

# Allowed nodes, with their arguments beside "this" and "expression". Anything else is refused, so what a newer sqlglot
# may understand is never silently ignored.
_NODES: dict[type, str] = {
    **dict.fromkeys((*_OPERATORS, exp.Column, exp.Boolean, exp.Null, exp.DataType), ""),
    **{exp.Like: "negate", exp.ILike: "negate", exp.In: "expressions", exp.Anonymous: "expressions"},
    **{exp.Between: "low high", exp.Div: "typed safe", exp.DPipe: "safe", exp.Cast: "to", exp.TryCast: "to safe"},
    **{exp.Case: "ifs default", exp.If: "true", exp.Literal: "is_string", exp.Identifier: "quoted"},
}

# Functions by name, on series of any length N or of length 1. There is no `log`: it is log10 in some databases and
# the natural logarithm in others.
_SMOOTH: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("sqrt", "cbrt", "exp", "log2", "log10", "radians", "degrees")},
    **{"ln": np.log, "sin": np.sin, "cos": np.cos, "tan": np.tan},
    **{"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan},
}
FUNCTIONS: dict[str, Callable[..., pl.Series]] = {
    **{name: lambda x, *, function=function: _numeric(function, x) for name, function in _SMOOTH.items()},
    **dict.fromkeys(("pow", "power"), lambda x, y: _numeric(np.power, x, y)),
    "atan2": lambda y, x: _numeric(np.arctan2, y, x),
    "pi": lambda: pl.Series([np.pi]),
    "mod": lambda x, y: _arithmetic(operator.mod, x, y),
    "abs": lambda x: _wide(x).abs(),
    "sign": lambda x: _of(pl.Float64, x).sign(),
    "round": lambda x: _of(pl.Float64, x).round(),
    "floor": lambda x: _of(pl.Float64, x).floor(),
    **dict.fromkeys(("ceil", "ceiling"), lambda x: _of(pl.Float64, x).ceil()),
    "coalesce": _coalesce,
    "ifnull": lambda x, other: _coalesce(x, other),
    "nullif": lambda x, value: _where(~_compare(operator.eq, x, value).fill_null(False), x),
    "least": lambda first, *others: _extreme(pl.min_horizontal, first, *others),
    "greatest": lambda first, *others: _extreme(pl.max_horizontal, first, *others),
    "if": lambda condition, value, other: _case(None, [(condition, value)], other),
    "lower": lambda text: _of(pl.String, text).str.to_lowercase(),
    "upper": lambda text: _of(pl.String, text).str.to_uppercase(),
    "length": lambda text: _of(pl.String, text).str.len_chars().cast(pl.Int64),
    "concat": _concat,
}
