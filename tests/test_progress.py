"""Progress is shown as lines in a log, and as a bar on a terminal."""

import sys

from truemorph.progress import progress


def test_a_log_has_complete_lines(capsys):
    with progress(1000, "label", "gal", initial=400, between=0) as told:
        for _ in range(2):
            told.update(300)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" gal")[0] for line in lines] == ["label: 700 of 1,000", "label: 1,000 of 1,000"]
    assert all("gal/s" in line and line.endswith("left") and "\r" not in line for line in lines)


def test_fast_tasks_print_nothing_to_a_log(capsys):
    with progress(10, "label", "gal", between=3600) as told:
        told.update(10)
    assert capsys.readouterr().err == ""


def test_an_unknown_total_is_not_shown(capsys):
    with progress(None, "label", "gal", between=0) as told:
        told.update(7)
    assert capsys.readouterr().err.startswith("label: 7 gal, ")


def test_a_terminal_shows_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(10, "label", "gal") as told:
        told.update(5)
    assert "\rlabel: " in capsys.readouterr().err
