"""Tables, CSV and figure of the leaderboard."""

import polars as pl
import pytest

from conftest import ROOT
from truemorph.benchmark.figure import leaderboard_figure
from truemorph.benchmark.methods import NETWORKS, TABLES, methods_of
from truemorph.benchmark.page import METRICS, cell, markdown, scores_frame, summary_table

DOCS = ROOT / "docs"
BOARDS = {"leaderboard_networks.csv": NETWORKS, "leaderboard_catalogues.csv": TABLES}


def row(method, world="plain", **means):
    return {"world": world, "definition": "d", "method": method, "seeds": 2, "means": means,
            "stds": dict.fromkeys(means, 0.01)}  # fmt: skip


def rows_of(frame):
    """Rows of the leaderboard from its CSV file."""
    there = [one for one in METRICS if one in frame.columns]
    return [
        {key: line[key] for key in ("world", "definition", "method", "seeds")}
        | {"means": {one: line[one] for one in there}, "stds": {one: line[f"{one}_std"] for one in there}}
        for line in frame.iter_rows(named=True)
    ]


def test_every_line_of_the_markdown_tables_has_the_same_number_of_cells():
    rows = [row("a", balanced_accuracy=0.9, log_loss=None, fraction_rms_hard=0.2, fraction_rms_soft=0.1),
            row("b", balanced_accuracy=0.8, fraction_rms_hard=0.3, fraction_rms_soft=None),
            row("a", "real", balanced_accuracy=0.7, fraction_rms_soft=0.05)]  # fmt: skip
    content = {"trust": ["Scored."], "truemorph_version": "0", "date": "today", "command": "c", "rows": rows}
    text = markdown(content, {"a": "p(y | x)", "b": "other"})
    table = [line for line in text.split("## Metrics")[0].splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "| p(y \\| x) | 0.900 / 0.100 | 0.700 / 0.050 |" in table
    assert "| other | 0.800 / 0.300 | – |" in table


def test_a_mean_without_standard_deviation_is_printed_alone():
    one = row("a", balanced_accuracy=0.9)
    one["stds"]["balanced_accuracy"] = None
    assert cell(one, "balanced_accuracy") == "0.900"
    assert cell(one, "log_loss") == "–"


@pytest.mark.parametrize(("file", "board"), BOARDS.items())
def test_the_docs_tables_are_those_of_their_csv_files(file, board):
    frame = pl.read_csv(DOCS / file)
    rows, titles = rows_of(frame), {name: one.title for name, one in methods_of(board).items()}
    assert summary_table(rows, titles).markdown() in (DOCS / "leaderboard.md").read_text(encoding="utf-8")
    assert scores_frame(rows, titles).equals(frame)


@pytest.mark.parametrize("file", BOARDS)
def test_the_figure_shows_every_method_in_both_panels(file):
    frame = pl.read_csv(DOCS / file)
    titles = dict(frame.select("method", "title").unique().iter_rows())
    panels = {"accuracy": ("balanced_accuracy",), "error": ("fraction_rms_soft", "fraction_rms_hard")}
    figure = leaderboard_figure(rows_of(frame), titles, panels)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        drawn = sum(len(one.get_xdata()) for line in axes.containers for one in line[:1])
        assert drawn == frame.height
