"""What expressions compute: on whole columns, one row at a time, with whatever is not a finite number missing."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

TYPES = ("double", "float", "real", "int", "integer", "bigint", "text", "varchar", "string", "boolean")
_WHOLE = (pl.Int64, pl.Int128)


class WrongKindError(ValueError):
    """Values of another kind than an operation takes."""


@dataclass(frozen=True)
class Node:
    """A part of an expression: what it does, with which word, on which parts."""

    kind: str
    value: Any = None
    parts: tuple[Node, ...] = ()


def evaluate(tree: Node, frame: pl.DataFrame) -> pl.Series:
    """Compute a tree on a table, shape (N,): doubles, int64 (uint64 or text beyond), text, or true and false."""
    result = _full(_value(tree, frame), frame.height)
    if result.dtype != pl.Int128:
        return result
    if _within(result, -(2**63), 2**63):
        return result.cast(pl.Int64)
    return result.cast(pl.UInt64 if _within(result, 0, 2**64) else pl.String)


def _within(whole: pl.Series, low: int, high: int) -> bool:
    """Whether all numbers, if there are any, are at least low and less than high."""
    smallest, largest = whole.min(), whole.max()
    return smallest is None or (int(str(smallest)) >= low and int(str(largest)) < high)


def _value(tree: Node, frame: pl.DataFrame) -> pl.Series:
    match tree.kind:
        case "column":
            return _plain(frame[tree.value].alias(""))  # polars takes some names for patterns
        case "number":
            return _plain(pl.Series([tree.value], dtype=pl.Int128 if isinstance(tree.value, int) else pl.Float64))
        case "text" | "constant":
            return pl.Series([tree.value])
    parts = [_value(part, frame) for part in tree.parts]
    match tree.kind:
        case "and":
            return _truth(parts[0], "AND") & _truth(parts[1], "AND")
        case "or":
            return _truth(parts[0], "OR") | _truth(parts[1], "OR")
        case "not":
            return ~_truth(parts[0], "NOT")
        case "compare":
            return _compare(tree.value, *parts)
        case "between":
            return _compare(">=", parts[0], parts[1]) & _compare("<=", parts[0], parts[2])
        case "in":
            found = (_compare("=", parts[0], one) for one in parts[1:])
            return functools.reduce(lambda a, b: a | b, found, pl.Series([False]))
        case "is":
            held = parts[0].is_null()
            return (
                held if tree.value == "null" else _truth(parts[0], "IS").eq_missing(pl.Series([tree.value == "true"]))
            )
        case "like" | "ilike":
            return _like(parts[0], tree.parts[1], tree.kind == "ilike")
        case "arithmetic":
            return _arithmetic(tree.value, *parts)
        case "case":
            return _case(parts, frame.height)
        case "cast" | "try_cast":
            return _cast(parts[0], tree.value, strict=tree.kind == "cast")
    *_, compute = FUNCTIONS[tree.value]
    return compute(tree.value, parts, tree.parts, frame.height)


def _full(series: pl.Series, height: int) -> pl.Series:
    return series if len(series) == height else series.new_from_index(0, height)


def _plain(series: pl.Series) -> pl.Series:
    """A column as it is computed with: few kinds, and nothing that is not a finite number."""
    kind = series.dtype
    if kind.is_integer():
        wide = series.cast(pl.Int128)
        return series.cast(pl.Int64) if _within(wide, -(2**63), 2**63) else wide
    if kind.is_float() or kind.is_decimal():
        return _finite(series.cast(pl.Float64))
    return series.cast(pl.String) if kind in (pl.Categorical, pl.Enum) else series


def _finite(numbers: pl.Series) -> pl.Series:
    known = numbers.is_finite()
    if known.all():
        return numbers
    return _where(known, numbers)


def _where(condition: pl.Series, values: pl.Series, others: pl.Series | None = None) -> pl.Series:
    """Values where a condition holds; elsewhere, and where it is unknown, the others, or nothing."""
    return pl.select(pl.when(condition).then(values).otherwise(others)).to_series()


def _kind(series: pl.Series) -> str:
    kind = series.dtype
    if kind.is_numeric():
        return "numbers"
    if kind.is_temporal():
        return "times"
    return {pl.String: "text", pl.Boolean: "true and false", pl.Null: "nothing"}.get(kind.base_type(), str(kind))


def _numbers(series: pl.Series, what: str) -> pl.Series:
    if series.dtype == pl.Null:
        return series.cast(pl.Float64)
    if not series.dtype.is_numeric():
        raise WrongKindError(f"{what} takes numbers, not {_kind(series)}{_hint(series)}")
    return series


def _doubles(series: pl.Series, what: str) -> np.ndarray:
    return _numbers(series, what).cast(pl.Float64).fill_null(np.nan).to_numpy()


def _from(values: np.ndarray) -> pl.Series:
    return _where(pl.Series(np.isfinite(values)), pl.Series(values))


def _hint(series: pl.Series) -> str:
    return "; write CAST(name AS double)" if series.dtype == pl.String else ""


def _truth(series: pl.Series, what: str) -> pl.Series:
    if series.dtype == pl.Null:
        return series.cast(pl.Boolean)
    if series.dtype != pl.Boolean:
        raise WrongKindError(
            f"{what} takes what is true or false, not {_kind(series)}; write a comparison, such as x = 1"
        )
    return series


def _text(series: pl.Series, what: str) -> pl.Series:
    if series.dtype == pl.Null:
        return series.cast(pl.String)
    if series.dtype != pl.String:
        raise WrongKindError(f"{what} takes text, not {_kind(series)}")
    return series


def _compare(sign: str, left: pl.Series, right: pl.Series) -> pl.Series:
    kinds = _kind(left), _kind(right)
    if "nothing" in kinds:
        return pl.Series([None], dtype=pl.Boolean).new_from_index(0, max(len(left), len(right)))
    if kinds == ("true and false", "numbers"):
        left = left.cast(pl.Int64)
    elif kinds == ("numbers", "true and false"):
        right = right.cast(pl.Int64)
    elif kinds == ("times", "text"):
        right = right.str.to_datetime().cast(left.dtype)
    elif kinds == ("text", "times"):
        left = left.str.to_datetime().cast(right.dtype)
    elif kinds[0] != kinds[1] or kinds[0] not in ("numbers", "text", "times", "true and false"):
        raise WrongKindError(f"{sign} compares {kinds[0]} with {kinds[1]}")
    if left.dtype in _WHOLE and right.dtype in _WHOLE and left.dtype != right.dtype:
        left, right = left.cast(pl.Int128), right.cast(pl.Int128)
    match sign:
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right
        case "=" | "==":
            return left == right
    return left != right


def _arithmetic(sign: str, left: pl.Series, right: pl.Series) -> pl.Series:
    left, right = _numbers(left, sign), _numbers(right, sign)
    if sign != "/" and left.dtype in _WHOLE and right.dtype in _WHOLE:
        return _exact(sign, left.cast(pl.Int128), right.cast(pl.Int128))
    a, b = _doubles(left, sign), _doubles(right, sign)
    with np.errstate(all="ignore"):
        match sign:
            case "+":
                return _from(a + b)
            case "-":
                return _from(a - b)
            case "*":
                return _from(a * b)
            case "/":
                return _from(a / np.where(b == 0, np.nan, b))
        return _from(np.mod(a, np.where(b == 0, np.nan, b)))


def _exact(sign: str, left: pl.Series, right: pl.Series) -> pl.Series:
    """Integers to the last digit; missing where 64 bits don't hold the result."""
    if sign == "%":
        some = _where(right != 0, right)
        return _plain(left % some)
    result = left + right if sign == "+" else left - right if sign == "-" else left * right
    if sign == "*":
        near = (left.cast(pl.Float64) * right.cast(pl.Float64)).abs() < 2.0**64
        result = _where(near, result)
    held = (result >= -(2**63)) & (result < 2**64)
    return _plain(_where(held, result))


def _alike(values: Sequence[pl.Series], height: int, what: str) -> list[pl.Series]:
    """Several values as one kind, in full length."""
    kinds = {_kind(one) for one in values} - {"nothing"}
    if len(kinds) > 1:
        raise WrongKindError(f"{what} mixes {' and '.join(sorted(kinds))}")
    dtypes = {one.dtype for one in values if one.dtype != pl.Null}
    if kinds == {"numbers"} and len(dtypes) > 1:
        dtypes = {pl.Float64()} if pl.Float64 in dtypes else {pl.Int128()}
    dtype = next(iter(dtypes), pl.Null())
    return [_full(one.cast(dtype), height) for one in values]


def _case(parts: Sequence[pl.Series], height: int) -> pl.Series:
    conditions = [_full(_truth(one, "WHEN"), height) for one in parts[:-1:2]]
    *values, result = _alike([*parts[1:-1:2], parts[-1]], height, "CASE")
    for condition, value in zip(reversed(conditions), reversed(values), strict=True):
        result = _where(condition, value, result)
    return result


def _cast(series: pl.Series, kind: str, *, strict: bool) -> pl.Series:
    if kind in ("text", "varchar", "string"):
        return series.cast(pl.String)
    if kind == "boolean":
        return series.cast(pl.Boolean, strict=strict) if series.dtype.is_numeric() else _truth(series, "CAST")
    whole = kind in ("int", "integer", "bigint")
    if whole and series.dtype == pl.String:
        return _plain(series.str.strip_chars().cast(pl.Int64, strict=strict))
    if whole and series.dtype in _WHOLE:
        return series
    numbers = _finite(series.cast(pl.Float64, strict=strict))
    return numbers.cast(pl.Int64, strict=strict) if whole else numbers


def _like(series: pl.Series, pattern: Node, fold: bool) -> pl.Series:
    wanted = _quoted(pattern, "LIKE")
    body = "".join({"%": ".*", "_": "."}.get(one, re.escape(one)) for one in wanted)
    return _text(series, "LIKE").str.contains(f"(?s{'i' if fold else ''})^{body}$")


def _quoted(part: Node, what: str) -> str:
    if part.kind != "text":
        raise WrongKindError(f"{what} takes a pattern in single quotes")
    return str(part.value)


# --- functions: (fewest values, most values, how) ---------------------------------------------------------------------

_How = Callable[[str, list[pl.Series], tuple[Node, ...], int], pl.Series]
_SMOOTH: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("sqrt", "cbrt", "exp", "log2", "log10", "sin", "cos", "tan")},
    **{"ln": np.log, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2},
    **{"radians": np.radians, "degrees": np.degrees, "pow": np.power, "power": np.power},
}


def _smooth(name: str, values: list[pl.Series], _: tuple[Node, ...], __: int) -> pl.Series:
    with np.errstate(all="ignore"):
        return _from(np.atleast_1d(_SMOOTH[name](*(_doubles(one, name) for one in values))))


def _step(name: str, values: list[pl.Series], parts: tuple[Node, ...], _: int) -> pl.Series:
    numbers = _numbers(values[0], name)
    if name == "round" and len(parts) == 2:
        digits = parts[1].value
        if parts[1].kind != "number" or digits not in range(16):
            raise WrongKindError("round takes a number of digits from 0 to 15")
        return numbers if numbers.dtype in _WHOLE else _finite(numbers.round(digits))
    if name in ("abs", "sign"):
        wide = numbers.cast(pl.Int128) if numbers.dtype in _WHOLE else numbers
        return _plain(wide.abs() if name == "abs" else wide.sign())
    if numbers.dtype in _WHOLE:
        return numbers
    return {"round": numbers.round, "floor": numbers.floor, "ceil": numbers.ceil}[name]()


def _choice(name: str, values: list[pl.Series], _: tuple[Node, ...], height: int) -> pl.Series:
    if name == "if":
        return _case(values, height)
    if name == "nullif":
        same = _full(_compare("=", *values), height).fill_null(False)
        return _where(~same, _full(values[0], height))
    alike = _alike(values, height, name)
    if name in ("least", "greatest"):
        if _kind(alike[0]) not in ("numbers", "nothing"):
            raise WrongKindError(f"{name} takes numbers, not {_kind(alike[0])}")
        return pl.select(pl.min_horizontal(*alike) if name == "least" else pl.max_horizontal(*alike)).to_series()
    return functools.reduce(lambda a, b: _where(a.is_not_null(), a, b), alike)


def _words(name: str, values: list[pl.Series], parts: tuple[Node, ...], height: int) -> pl.Series:
    if name == "concat":
        return pl.select(pl.concat_str(*(_full(one.cast(pl.String), height) for one in values))).to_series()
    text = _text(values[0], name)
    match name:
        case "lower":
            return text.str.to_lowercase()
        case "upper":
            return text.str.to_uppercase()
        case "length":
            return text.str.len_chars().cast(pl.Int64)
        case "substr":
            start, count = (*(_whole_literal(one) for one in parts[1:]), None)[:2]
            return text.str.slice(int(start or 1) - 1, count)
    pattern = _quoted(parts[1], name)
    match name:
        case "replace":
            if not pattern:
                raise WrongKindError("replace takes a text to look for that is not empty")
            return text.str.replace_all(pattern, _quoted(parts[2], name), literal=True)
        case "starts_with":
            return text.str.starts_with(pattern)
        case "ends_with":
            return text.str.ends_with(pattern)
        case "strpos":
            places = [None if one is None else one.find(pattern) + 1 for one in text.to_list()]
            return pl.Series(places, dtype=pl.Int64)
    return text.str.contains(pattern)


def _whole_literal(part: Node) -> int:
    if part.kind != "number" or not isinstance(part.value, int) or not 0 <= part.value < 2**31:
        raise WrongKindError("substr takes whole numbers, the first character is 1")
    return part.value


FUNCTIONS: dict[str, tuple[int, int, _How]] = {
    **dict.fromkeys(set(_SMOOTH) - {"atan2", "pow", "power"}, (1, 1, _smooth)),
    **dict.fromkeys(("atan2", "pow", "power"), (2, 2, _smooth)),
    **dict.fromkeys(("abs", "sign", "floor", "ceil"), (1, 1, _step)),
    "round": (1, 2, _step),
    "mod": (2, 2, lambda _, values, *__: _arithmetic("%", *values)),
    "pi": (0, 0, lambda *_: pl.Series([np.pi])),
    **dict.fromkeys(("coalesce", "least", "greatest"), (1, 99, _choice)),
    **dict.fromkeys(("ifnull", "nullif"), (2, 2, _choice)),
    "if": (3, 3, _choice),
    **dict.fromkeys(("lower", "upper", "length"), (1, 1, _words)),
    "concat": (1, 99, _words),
    "replace": (3, 3, _words),
    "substr": (2, 3, _words),
    **dict.fromkeys(("starts_with", "ends_with", "strpos", "regexp_like"), (2, 2, _words)),
}
