"""Progress is shown as lines in a log, and as a bar on a terminal."""

import sys

import pytest

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
    assert [line.split(" gal")[0] for line in lines] == shown
    assert all("gal/s" in line and "\r" not in line and line.endswith("left") == (total is not None) for line in lines)


def test_fast_tasks_print_nothing_to_a_log(capsys):
    with progress(10, "label", "gal", between=3600) as told:
        told.update(10)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(10, "label", "gal", between=1e-9, of=iter(range(10)))) == list(range(10))
    assert "\rlabel: " in capsys.readouterr().err
