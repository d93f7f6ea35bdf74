"""Expressions over columns: correct with missing values, and limited to arithmetic on one row."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truemorph.catalogs.expressions import compute, read_expression
from truemorph.errors import InputError

TABLE = pl.DataFrame(
    {
        "a": [1, 2, 300],
        "b": [4, 0, 7],
        "x": [1.5, float("nan"), None],
        "s": ["u", "v", None],
        "smooth-or-f": [1, 2, 3],
        "Class1.1": [0.25, 0.5, 0.75],
        "t": [True, False, None],
        "id": [587722981748572353, 1, 2],
        "inf": [float("inf"), 1.0, float("-inf")],
    }
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a / b", [0.25, None, 300 / 7]),  # integers divide as floats; division by 0 gives null
        ('"smooth-or-f" + "Class1.1"', [1.25, 2.5, 3.75]),
        ("x > 1", [True, None, None]),  # NaN is missing, not larger than all numbers
        ("a BETWEEN 1 AND 2 AND s IS NOT NULL", [True, True, False]),
        ("CASE a WHEN 1 THEN 'x  y' WHEN 2 THEN s END", ["x  y", "v", None]),
        ("CASE WHEN b > 0 THEN a ELSE 0 END", [1.0, 0.0, 300.0]),
        ("t = 1", [True, False, None]),
        ("greatest(log10(b), 0.5)", [np.log10(4), 0.5, np.log10(7)]),
        ("a IN (2, 300) AND s NOT LIKE 'w%'", [False, True, None]),
        ("a NOT BETWEEN 2 AND 3", [True, False, True]),
    ],
)
def test_expressions_are_evaluated(text, values):
    got = compute(read_expression(text, "test"), TABLE, "test").to_list()
    assert [v if v is None or isinstance(v, bool) else pytest.approx(v) for v in values] == got


@pytest.mark.parametrize(
    "text",
    [
        "a IN (SELECT a FROM read_parquet('secret.parquet'))",
        "t.a",
        "a IN t",
        '"^a.*$"',
        "a -- b",
        "1 < a < 3",
        "+".join(["a"] * 151),
        "(" * 41 + "a" + ")" * 41,
        "row(" * 30 + "a" + ")" * 30,  # needs minutes in sqlglot
        "1e400",
        "CAST(a AS bigint)",
        "log10(a, b)",
        "s LIKE s",
        "a AND t",
        "CASE WHEN t THEN 1 ELSE 'x' END",
    ],
)
def test_other_sql_and_mixed_types_raise_short_one_line_errors(text):
    with pytest.raises(InputError) as caught:
        compute(read_expression(text, "test"), TABLE, "test")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="ab xs\"'()+-*/%<>=,.;0123456789_|SELECTFROM\n", max_size=40))
def test_any_text_only_computes_on_rows(text):
    try:
        got = compute(read_expression(text, "test"), TABLE, "test")
    except InputError as refused:
        assert "\n" not in str(refused)  # noqa: PT017
    else:
        assert len(got) == TABLE.height


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("small * 100", [20000, 100, 0]),
        ("id + 1", [587722981748572354, 1, 3]),
        ("id * id", [None, 0, 4]),  # does not fit in 64 bits
        ("abs(lowest)", [2**63, 1, 2]),
        ("id = near", [False, True, True]),  # int64 and uint64 that differ by one
        ("concat(id, '_', a)", ["587722981748572353_1", "0_2", "2_300"]),
    ],
)
def test_integers_neither_overflow_nor_lose_digits(text, values):
    table = TABLE.with_columns(
        id=pl.Series([587722981748572353, 0, 2]),
        near=pl.Series([587722981748572352, 0, 2], dtype=pl.UInt64),
        small=pl.Series([200, 1, 0], dtype=pl.UInt8),
        lowest=pl.Series([-(2**63), -1, -2]),
    )
    assert compute(read_expression(text, "test"), table, "test").to_list() == values


def test_names_of_columns_that_are_polars_patterns_are_plain_names():
    table = pl.DataFrame({"^a.*$": [1.0, -9.0], "a": [3.0, 4.0], "*": [5.0, 6.0]})
    assert compute(read_expression('"^a.*$" + "*" * 2 > 4', "test"), table, "test").to_list() == [True, False]
