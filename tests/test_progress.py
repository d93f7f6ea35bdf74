"""Progress is shown as lines in a log, and as a bar on a terminal."""

import io
import logging
import sys
from datetime import datetime

import pytest

from conftest import run
from truemorph import simulate_catalogue
from truemorph.progress import progress


@pytest.mark.parametrize(
    ("total", "initial", "shown"),
    [(1000, 400, ["label: 700 of 1,000", "label: 1,000 of 1,000"]), (None, 0, ["label: 300", "label: 600"])],
)
def test_a_log_has_complete_lines(capsys, total, initial, shown):
    with progress(total, "label", "gal", initial=initial, between=1e-9) as told:
        for _ in range(2):
            told.update(300)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" INFO ")[1].split(" gal")[0] for line in lines] == shown
    assert all(datetime.fromisoformat(line[:19]) for line in lines)
    assert all("gal/s" in line and "\r" not in line and line.endswith("left") == (total is not None) for line in lines)


@pytest.mark.parametrize(("seconds", "lines"), [(0, 0), (1e9, 1)])
def test_tasks_that_end_before_the_first_line_have_one_unless_they_are_fast(capsys, seconds, lines):
    with progress(10, "label", "gal", between=3600) as told:
        told.update(10)
        told.start_t -= seconds
    said = capsys.readouterr().err
    assert (said.count("\n"), said.count("label: 10 of 10 gal")) == (lines, lines)


def test_lines_of_a_log_have_levels_and_go_where_logging_sends_them(capsys, monkeypatch, tmp_path):
    table = tmp_path / "t.csv"
    simulate_catalogue(400, seed=1).write_csv(table)
    levels = [
        line.split()[2]
        for line in "".join(run(capsys, "transition", path)[2] for path in (table, "absent.csv")).splitlines()
    ]
    assert levels[-1] == "ERROR"
    assert "WARNING" in levels
    own = logging.StreamHandler(taken := io.StringIO())
    monkeypatch.setattr(logging.getLogger("truemorph"), "handlers", [own])
    assert run(capsys, "transition", "absent.csv")[2] == ""
    assert "absent.csv" in taken.getvalue()


def test_a_terminal_shows_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(10, "label", "gal", between=1e-9, of=iter(range(10)))) == list(range(10))
    assert "\rlabel: " in capsys.readouterr().err
