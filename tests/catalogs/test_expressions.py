"""Expressions over columns: right where values are missing, and never more than arithmetic on one row."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truemorph.catalogs.expressions import FUNCTIONS, compute, read_expression
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
    }
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a / b", [0.25, None, 300 / 7]),  # integers divide as numbers do; over 0 there is nothing
        ("a / (b - 4) * 2", [None, -1.0, 200.0]),
        ("a / -b", [-0.25, None, -300 / 7]),
        ("coalesce(a / b, 3)", [0.25, 3.0, 300 / 7]),
        ('"smooth-or-f" + "Class1.1"', [1.25, 2.5, 3.75]),
        ("x > 1", [True, None, None]),  # NaN is missing, not larger than every number
        ("CASE WHEN b > 0 THEN a ELSE 0 END", [1.0, 0.0, 300.0]),
        ("a BETWEEN 1 AND 2 AND s IS NOT NULL", [True, True, False]),
        ("s = 'u' OR t", [True, False, None]),
        ("id = 587722981748572353", [True, False, False]),
        ("1.3", [1.3, 1.3, 1.3]),
        ("log10(a * 10) - 1", [0.0, np.log10(2), np.log10(300)]),
    ],
)
def test_expressions(text, values):
    got = compute(read_expression(text, "test"), TABLE, "test").to_list()
    assert [v if v is None or isinstance(v, bool) else pytest.approx(v) for v in values] == got


@pytest.mark.parametrize(
    "text",
    [
        "(SELECT 1)",
        "EXISTS (SELECT 1 FROM read_csv('secret.csv'))",
        "a IN (SELECT a FROM read_parquet('secret.parquet'))",
        "read_csv('secret.csv')",
        "COLUMNS('a')",
        '"^a.*$"',
        "SUM(a)",
        "ROW_NUMBER() OVER (ORDER BY a)",
        "a; b",
        "a b",
        "a AS b",
        "a -- b",
        "a /* b */",
        "a--b",
        "smooth-or-f",
        "Class1.1",
        "`a`",
        "a + s",
        "",
        "(a",
    ],
)
def test_what_is_more_than_an_expression_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(InputError) as caught:
        compute(read_expression(text, "test"), TABLE, "test")
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="ab xs\"'()+-*/%<>=,.;0123456789_|SELECTFROM\n", max_size=40))
def test_no_text_does_more_than_compute_on_rows(text):
    try:
        got = compute(read_expression(text, "test"), TABLE, "test")
    except InputError as refused:
        assert "\n" not in str(refused)  # noqa: PT017
    else:
        assert len(got) == TABLE.height


def test_every_function_sees_one_row_at_a_time():
    values = {"s": "'u'", "n": "2"}
    takes = {
        **dict.fromkeys(("atan2", "mod", "pow", "power", "nullif", "ifnull", "least", "greatest", "coalesce"), "nn"),
        **dict.fromkeys(("lower", "upper", "length"), "s"),
        **dict.fromkeys(("concat", "starts_with", "ends_with", "strpos", "regexp_like"), "ss"),
        "if": "bnn",
        "pi": "",
        "replace": "sss",
        "substr": "sn",
    }
    table = pl.DataFrame({"s": ["u", "w"], "n": [0.5, 0.25], "b": [True, False]})
    for name in set(FUNCTIONS) - {"cast", "try_cast"}:
        kinds = takes.get(name, "n")
        inside = ", ".join([kinds[0], *(values[kind] for kind in kinds[1:])] if kinds else [])
        expression = read_expression(f"{name}({inside})", "test")
        both = compute(expression, table, "test").to_list()
        alone = [compute(expression, table[row : row + 1], "test")[0] for row in (0, 1)]
        assert both == alone, name
