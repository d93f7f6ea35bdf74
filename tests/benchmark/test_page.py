"""Tables, CSV and figure of the leaderboard."""

import polars as pl
import pytest

from conftest import ROOT
from truemorph.benchmark.bars import BAR
from truemorph.benchmark.leaderboard import BOARDS
from truemorph.benchmark.methods import NETWORKS, TABLES
from truemorph.benchmark.page import METRICS, leaderboard_figure, scores_frame, summary_table

DOCS = ROOT / "docs"


@pytest.mark.parametrize(
    ("file", "board"),
    [("leaderboard_networks.csv", NETWORKS), ("leaderboard_catalogues.csv", TABLES), ("leaderboard_bar.csv", BAR)],
)
def test_the_docs_tables_and_the_figure_have_the_scores_of_the_csv_files(file, board):
    frame = pl.read_csv(DOCS / file)
    there = [metric for metric in METRICS if metric in frame.columns]
    rows = [
        {key: line[key] for key in ("world", "definition", "method", "seeds")}
        | {"means": {one: line[one] for one in there}, "stds": {one: line[f"{one}_std"] for one in there}}
        for line in frame.iter_rows(named=True)
    ]
    titles = {name: method.title for name, method in BOARDS[board].methods.items() if name in frame["method"]}
    table = (DOCS / "numbers" / file).with_suffix(".md").read_text(encoding="utf-8")
    assert summary_table(rows, titles, BOARDS[board].of).markdown() in table
    assert scores_frame(rows, titles).equals(frame)
    figure = leaderboard_figure(rows, titles, BOARDS[board].of)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert sum(len(one.get_xdata()) for line in axes.containers for one in line[:1]) == frame.height
