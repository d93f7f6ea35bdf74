"""Answers are on the disk when they are recorded, whatever happens to the process and whoever else writes."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import polars as pl
import pytest

from truemorph.errors import InputError
from truemorph.gold.answers import (
    ANSWERS,
    CHOICES,
    TWINS,
    answers_of,
    count_answers,
    create_answers,
    read_answers,
    record_answer,
    record_note,
    undo_answer,
)

WRITER = """
import sys
from pathlib import Path
from truemorph.gold.answers import CHOICES, create_answers, record_answer

folder, annotator, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
create_answers(folder)
for k in range(n):
    record_answer(folder, annotator, f"g{k}", "first", CHOICES[k % 4], seconds=1.5)
    print(k, flush=True)
"""


def writer(folder, annotator, n):
    command = [sys.executable, "-c", WRITER, str(folder), annotator, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def standing(folder):
    return read_answers(folder).filter(~pl.col("undone"))


def test_a_plan_without_answers_has_an_empty_table(tmp_path):
    assert read_answers(tmp_path).is_empty()
    create_answers(tmp_path)
    assert read_answers(tmp_path).columns == [
        "annotator", "galaxy", "occasion", "answer", "better", "note", "time", "seconds", "undone", "twin_alpha",
    ]  # fmt: skip


def test_a_later_answer_replaces_an_earlier_one_which_is_kept(tmp_path):
    create_answers(tmp_path)
    record_answer(tmp_path, "Ann", "1237", "first", "smooth", "ring?", 2.5)
    record_answer(tmp_path, "Ann", "1237", "repeat", "disk")
    record_answer(tmp_path, "Ann", "1237", "first", "unclear")
    record_answer(tmp_path, "Bob", "1237", "first", "artefact")
    assert answers_of(tmp_path, "Ann") == {("1237", "first"): ("unclear", ""), ("1237", "repeat"): ("disk", "")}
    every = read_answers(tmp_path)
    assert every["answer"].to_list() == ["smooth", "disk", "unclear", "artefact"]
    assert every["undone"].to_list() == [True, False, False, False]
    assert every.row(0, named=True)["note"] == "ring?"
    assert every["seconds"][0] == 2.5
    assert every["time"].dtype == pl.Datetime("us", "UTC")
    assert every["time"].is_sorted()
    assert count_answers(tmp_path, "Ann") == (2, 1)


def test_undo_takes_back_the_last_answer_of_this_person(tmp_path):
    create_answers(tmp_path)
    record_answer(tmp_path, "Ann", "a", "first", "smooth")
    record_answer(tmp_path, "Ann", "b", "first", "disk")
    record_answer(tmp_path, "Bob", "c", "first", "disk")
    assert undo_answer(tmp_path, "Ann") == ("b", "first")
    assert undo_answer(tmp_path, "Ann") == ("a", "first")
    assert undo_answer(tmp_path, "Ann") is None
    assert standing(tmp_path)["annotator"].to_list() == ["Bob"]


def test_a_note_changes_nothing_else(tmp_path):
    create_answers(tmp_path)
    record_answer(tmp_path, "Ann", "a", "first", "smooth", "", 3.0)
    before = read_answers(tmp_path)
    record_note(tmp_path, "Ann", "a", "first", "merger")
    assert read_answers(tmp_path).equals(before.with_columns(note=pl.lit("merger")))


def test_answers_about_twins_have_their_resolution(tmp_path):
    create_answers(tmp_path)
    pl.DataFrame({"object_id": ["a"], "twin_alpha": [4.5]}).write_parquet(tmp_path / TWINS)
    for occasion in ("first", "twin"):
        record_answer(tmp_path, "Ann", "a", occasion, "disk")
    assert read_answers(tmp_path)["twin_alpha"].to_list() == [None, 4.5]


def test_two_processes_write_at_once(tmp_path):
    both = [writer(tmp_path, name, 40) for name in ("Ann", "Bob")]
    assert [one.communicate()[0].count("\n") for one in both] == [40, 40]
    assert standing(tmp_path).group_by("annotator").len().sort("annotator").rows() == [("Ann", 40), ("Bob", 40)]


def test_two_windows_of_one_person_leave_one_answer_a_galaxy(tmp_path):
    both = [writer(tmp_path, "Ann", 40) for _ in range(2)]
    assert [one.communicate()[0].count("\n") for one in both] == [40, 40]
    assert standing(tmp_path).height == standing(tmp_path)["galaxy"].n_unique() == 40
    assert read_answers(tmp_path).height == 80


def test_another_file_of_this_name_is_left_alone(tmp_path):
    (tmp_path / ANSWERS).write_text("notes of last year" * 100)
    with pytest.raises(InputError, match=ANSWERS):
        create_answers(tmp_path)
    assert (tmp_path / ANSWERS).read_text().startswith("notes")


@pytest.mark.slow
def test_no_answer_is_lost_when_the_process_is_killed(tmp_path):
    for number in range(5):
        with writer(tmp_path, f"person {number}", 10**6) as process:
            for _ in range(15 + 7 * number):
                said = process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
        last = int((rest or [said])[-1])
        found = answers_of(tmp_path, f"person {number}")
        assert {(f"g{k}", "first") for k in range(last + 1)} <= set(found)
        assert len(found) <= last + 2  # one may be on the disk before it could be told
        assert all(found[f"g{k}", "first"][0] == CHOICES[k % 4] for k in range(last + 1))
    with closing(sqlite3.connect(tmp_path / ANSWERS)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
