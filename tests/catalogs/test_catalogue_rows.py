"""Rows selected by conditions, and gold classes by rules."""

import numpy as np
import polars as pl
import pytest

from truemorph.catalogs.catalogue import gold_classes, rows_where
from truemorph.errors import InputError

FRAME = pl.DataFrame(
    {
        "source": ["S82coadd", "SAB(rs)bc", None, "DR7"],
        "mag": [16.5, 17.0, float("nan"), 18.0],
        "id": [587722981748572353, 587722981748572352, 3, None],
        "flag": [True, False, None, True],
        "b/a": [0.1, 0.6, 0.7, None],
        "t_type": [-5.0, -3.0, None, float("nan")],
        "class": [0, 1, -1, None],
    }
)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("source=S82coadd", [0]),
        ("source=S82coadd, SAB(rs)bc", [0, 1]),
        ("source = 'S82coadd' OR mag >= 18", [0, 3]),
        ("source='DR7'", [3]),
        ("source=DR8", []),
        ("mag=17", [1]),
        ("mag = 17.0,18", [1, 3]),
        ("mag == 17", [1]),
        ("mag < 17.5 AND NOT flag", [1]),
        ("id=587722981748572353", [0]),
        ("id=3.0", [2]),
        ("flag=yes", [0, 3]),
        ("flag=0", [1]),
        ("flag", [0, 3]),
        ("b/a=0.6", [1]),
        ('"b/a" > 0.5', [1, 2]),
        ("NULL", []),
    ],
)
def test_a_condition_selects_rows_where_it_is_true(condition, rows):
    assert np.flatnonzero(rows_where(FRAME, [condition], "table")).tolist() == rows


def test_rows_meet_every_condition():
    assert rows_where(FRAME, ["flag=1", "mag > 17"], "table").tolist() == [False, False, False, True]
    assert rows_where(FRAME[:0], ["flag=1", "mag > 17"], "table").tolist() == []


@pytest.mark.parametrize(
    "condition", ["mag", "source", "mag=bright", "flag=maybe", "sorce=DR7", "mag=", "14 < mag < 15"]
)
def test_a_condition_that_is_not_true_or_false_is_refused(condition):
    with pytest.raises(InputError) as caught:
        rows_where(FRAME, [condition], "table")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "classes", "definition"),
    [
        ("class", [0, 1, -1, -1], "disk: class is 1"),
        ("flag", [1, 0, -1, 1], "disk: flag is 1"),
        ("t_type>=-3", [0, 1, -1, -1], "disk: t_type >= -3"),
        ("t_type BETWEEN -3\n AND 10", [0, 1, -1, -1], "disk: t_type BETWEEN -3 AND 10"),
        ('"b/a" < 0.65 AND id IS NOT NULL', [1, 1, 0, 0], 'disk: "b/a" < 0.65 AND id IS NOT NULL'),
    ],
)
def test_gold_classes_by_a_column_or_a_rule(rule, classes, definition):
    assert gold_classes(FRAME, rule, "table")[0].tolist() == classes
    assert gold_classes(FRAME, rule, "table")[1] == definition


@pytest.mark.parametrize("rule", ["source", "mag", "source >= 1", "typ>=-3", "t_type + 1"])
def test_a_rule_that_gives_no_classes_is_refused(rule):
    with pytest.raises(InputError) as caught:
        gold_classes(FRAME, rule, "table")
    assert "\n" not in str(caught.value)
