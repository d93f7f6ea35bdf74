"""Answers are on the disk when they are recorded, whoever else writes."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import polars as pl
import pytest

from truemorph.errors import InputError
from truemorph.gold.answers import ANSWERS, TWINS, answers_of, read_answers, record_answer, undo_answer
from truemorph.gold.session import items_of
from truemorph.questions import SMOOTH_OR_DISK

WRITER = """
import sys
from pathlib import Path
from truemorph.gold.answers import record_answer
from truemorph.gold.choices import choices_of_label
from truemorph.questions import SMOOTH_OR_DISK

folder, annotator, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for k in range(n):
    record_answer(folder, annotator, f"g{k}", "first", choices_of_label(SMOOTH_OR_DISK)[k % 4], seconds=1.5)
    print(k, flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    """A plan's folder, as far as answers need it."""
    about = {"version": 1, "seed": 0, "repeats": 0, "predicted": [0.1], "catalogue": "cat.parquet", "image_root": None}
    about |= {"sha256": "", "table_sha256": "", "classes": SMOOTH_OR_DISK, "definition": ""}
    (tmp_path / "plan.json").write_text(json.dumps(about))
    return tmp_path


def writer(folder, annotator, n):
    command = [sys.executable, "-c", WRITER, str(folder), annotator, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_answers_are_replaced_and_undone_and_all_are_kept(folder):
    pl.DataFrame({"object_id": ["a"], "image": ["a.png"], "twin_alpha": [4.5]}).write_parquet(folder / TWINS)
    record_answer(folder, "Ann", "a", "first", "smooth", "ring?", 2.5)
    record_answer(folder, "Ann", "a", "twin", "disk")
    record_answer(folder, "Ann", "a", "first", "unclear")
    record_answer(folder, "Bob", "a", "first", "artefact")
    assert answers_of(folder, "Ann") == ({("a", "first"): ("unclear", ""), ("a", "twin"): ("disk", "")}, 1)
    standing = read_answers(folder)
    assert standing["answer"].to_list() == ["disk", "unclear", "artefact"]
    assert standing["twin_alpha"].to_list() == [4.5, None, None]
    assert standing["time"].dtype == pl.Datetime("us", "UTC")
    assert standing["time"].is_sorted()
    assert [undo_answer(folder, "Ann") for _ in range(3)] == [("a", "first"), ("a", "twin"), None]
    assert read_answers(folder)["annotator"].to_list() == ["Bob"]
    with closing(sqlite3.connect(folder / ANSWERS)) as connection:
        undone = connection.execute("SELECT answer, note, seconds FROM answers WHERE undone").fetchall()
    assert undone == [("smooth", "ring?", 2.5), ("disk", "", 0.0), ("unclear", "", 0.0)]


def test_a_file_of_version_0_1_takes_answers(folder):
    """Its table allows the four answers of that version alone."""
    with closing(sqlite3.connect(folder / ANSWERS)) as connection, connection:
        connection.execute(
            "CREATE TABLE answers (id INTEGER PRIMARY KEY, annotator TEXT NOT NULL, galaxy TEXT NOT NULL, "
            "occasion TEXT NOT NULL, answer TEXT NOT NULL "
            "CHECK (answer IN ('smooth', 'disk', 'unclear', 'artefact')), better INTEGER NOT NULL, note TEXT NOT NULL, "
            "time TEXT NOT NULL, seconds REAL NOT NULL, undone INTEGER NOT NULL DEFAULT 0)"
        )
    for answer in ("smooth", "artefact"):
        record_answer(folder, "Ann", answer, "first", answer)
    assert read_answers(folder)["answer"].to_list() == ["smooth", "artefact"]


def test_names_of_people_are_compared_without_case_spaces_and_unicode_form(folder):
    """Also those of files that have two spellings of one name."""
    for name, answer in (("Jos\u00e9", "smooth"), ("Ann", "smooth"), (" JOSE\u0301 ", "disk"), ("STRASSE", "disk")):
        record_answer(folder, name, "a", "first", answer)
    assert answers_of(folder, "jos\u00e9")[0] == {("a", "first"): ("disk", "")}
    with closing(sqlite3.connect(folder / ANSWERS)) as connection, connection:
        connection.execute("UPDATE answers SET undone = 0")
    said = read_answers(folder).select("annotator", "answer").rows()
    assert said == [("Ann", "smooth"), ("Jos\u00e9", "disk"), ("STRASSE", "disk")]
    assert undo_answer(folder, "stra\u00dfe") == ("a", "first")
    assert items_of(["a", "b", "c"], [], 1, 0, "Ann") == items_of(["a", "b", "c"], [], 1, 0, "ANN ")


@pytest.mark.slow
def test_several_processes_write_at_once(folder):
    """Two people, one of them in two windows, which leave one answer a galaxy."""
    every = [writer(folder, name, 20) for name in ("Ann", "Bob", "Ann")]
    assert [one.communicate()[0].count("\n") for one in every] == [20] * 3
    assert read_answers(folder).group_by("annotator").len().sort("annotator").rows() == [("Ann", 20), ("Bob", 20)]


def test_another_file_of_this_name_is_left_alone(folder):
    (folder / ANSWERS).write_text("notes of last year" * 100)
    with pytest.raises(InputError, match=ANSWERS):
        record_answer(folder, "Ann", "a", "first", "disk")
    assert (folder / ANSWERS).read_text().startswith("notes")
