"""Checks of prepared catalogues, selection of rows, and rules for gold labels."""

from functools import partial

import numpy as np
import polars as pl
import pytest

from catalogs.made_up import full, refused
from conftest import codes
from truemorph import measure_bias, write_table
from truemorph.catalogs.catalogue import read_catalogue, rows_where
from truemorph.catalogs.question_gold import gold_classes
from truemorph.errors import InputError
from truemorph.tables import CatalogTable

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
        ("source=S82coadd, SAB(rs)bc", [0, 1]),
        ("mag = 17.0,18", [1, 3]),
        ("mag < 17.5 AND NOT flag", [1]),
        ("id=587722981748572353", [0]),
        ("flag", [0, 3]),
        ('"b/a" > 0.5', [1, 2]),
    ],
)
def test_a_condition_selects_rows_where_it_is_true(condition, rows):
    assert np.flatnonzero(rows_where(FRAME, [condition], "table")[0]).tolist() == rows


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((rows_where, [one]) for one in ("mag", "mag=bright", "flag=maybe", "sorce=DR7", "mag=", "14 < mag < 15")),
        *(
            (partial(gold_classes, second="disk"), one)
            for one in ("source", "mag", "source >= 1", "typ>=-3", "t_type + 1")
        ),
    ],
)
def test_conditions_and_rules_that_give_no_classes_raise_errors(read, text):
    with refused():
        read(FRAME, text, source="table")


@pytest.mark.parametrize(
    ("rule", "classes", "definition"),
    [
        ("class", [0, 1, -1, -1], "class is 1"),
        ("t_type>=-3", [0, 1, -1, -1], "t_type >= -3"),
        ('"b/a" <0.65 and id > 1', [1, 1, 0, -1], '"b/a" < 0.65 AND id > 1'),
    ],
)
def test_gold_labels_from_a_column_or_a_rule(rule, classes, definition):
    assert gold_classes(FRAME, rule, "disk", "table").numbers.tolist() == classes
    assert gold_classes(FRAME, rule, "disk", "table").definition == f"disk: {definition}"


def test_sentinels_in_rules_are_missing_with_a_finding():
    table = pl.DataFrame({"t_type": [-5, -99, 4]})
    read = gold_classes(table, "t_type >= -3", "disk", "experts")
    assert read.numbers.tolist() == [0, -1, 1]
    assert codes(read) == ["values-treated-as-missing"]


# --- reading a catalogue ----------------------------------------------------------------------------------------------

GOOD = {
    "object_id": [11, 12, 13, 14],
    "label": [0, 1, 0, 1],
    "alpha": [1.5, 20.0, 3.0, 0.0],
    "split": ["train", "validation", "test", "unused"],
    "sampling_weight": [1.0, 0.0, 1.0, 1.0],
    "radius": [3.0, 4.0, None, 5.0],
    "gold": [0, 1, None, 1],
}


@pytest.fixture
def written(tmp_path):
    def write(metadata=None, **changes):
        frame = pl.DataFrame({name: pl.Series(name, one, strict=False) for name, one in {**GOOD, **changes}.items()})
        table = CatalogTable(frame, metadata={"kind": "catalogue", **(metadata or {})})
        return write_table(table, tmp_path / "c.parquet")

    return write


@pytest.mark.parametrize(
    ("changes", "mentioned"),
    [
        ({"alpha": [1.0, float("nan"), -1.0, 2.0]}, ("alpha", "2 of 4 rows", "row 2")),
        ({"split": ["train", "Test", None, "test"]}, ("split", "2 of 4 rows", "row 2")),
        ({"object_id": [11, 12, 12, 14]}, ("object_id", "rows 2, 3")),
        ({"radius": ["a", "b", "c", "d"]}, ("radius", "String")),
        ({"image": [1, 2, 3, 4]}, ("image", "Int64")),
    ],
)
def test_an_invalid_column_gives_one_line_with_count_and_first_row(written, changes, mentioned):
    path = written(**changes)
    with refused(str(path), *mentioned):
        read_catalogue(path)


@pytest.mark.parametrize("rule", ["label", "disk_fraction > 0.7", "disk_votes > smooth_votes"])
def test_gold_labels_from_the_volunteers_votes_are_refused(rule):
    votes = FRAME.with_columns(label=1, disk_fraction=0.8, disk_votes=8, smooth_votes=2)
    with refused("table", rule.split()[0]):
        gold_classes(votes, rule, "disk", "table")


def test_labels_may_be_missing_only_if_labelled_is_false(written):
    path = written(label=[0.0, None, 1.0, None])
    assert read_catalogue(path, labelled=False).frame["label"].to_list() == [0, None, 1, None]
    with pytest.raises(InputError, match="2 of 4 rows"):
        read_catalogue(path)


def test_other_tables_are_not_catalogues(written):
    for table, mentioned in ((written({"kind": "labels"}), "labels"), (full(), "truemorph prepare")):
        with pytest.raises(InputError, match=mentioned):
            read_catalogue(table)


@pytest.mark.parametrize("ids", [{}, {"objid": [17, 3, 8, 5] * 5}, {"objid": range(20)}])
def test_a_table_with_label_and_alpha_is_a_catalogue(tmp_path, ids):
    bare = pl.DataFrame({"label": [0, 1] * 10, "alpha": np.arange(20.0)} | ids)
    write_table(CatalogTable(bare), tmp_path / "mine.csv")
    if ids and bare["objid"].n_unique() < 20:
        with refused("objid"):
            read_catalogue(tmp_path / "mine.csv")
        return
    for source in (bare, bare.to_pandas(), tmp_path / "mine.csv"):
        found = read_catalogue(source)
        assert codes(found) == ["catalogue-completed"]
        assert found.frame["object_id"].to_list() == list(range(20) if ids else range(1, 21))
        assert dict(found.frame["split"].value_counts().rows()) == {"train": 16, "validation": 2, "test": 2}
    assert "catalogue-completed" in codes(measure_bias(bare, bootstrap=0, bins=2))
