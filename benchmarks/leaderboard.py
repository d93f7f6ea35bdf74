"""Leaderboards: run `truemorph benchmark`, keep its scores and figure in docs/, and print the table of the page.

    python benchmarks/leaderboard.py networks|catalogues|bar DATA [METHOD ...]

With methods, only these run again; the scores of others stay as they are in docs/. If interrupted, run it again at the
same commit to resume: results of each training are in leaderboard/.
"""

import sys
from pathlib import Path

import polars as pl

import truemorph as tm
from truemorph.benchmark.leaderboard import BOARDS
from truemorph.benchmark.page import METRICS, leaderboard_figure, scores_frame, summary_table
from truemorph.io import save_figure

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = {
    "networks": {"jobs": 2},
    "tables": {"catalogue_only": True},
    "bar": {"question": "bar", "train": 4000, "test": 1500, "seeds": 3, "jobs": 2},
}


def kept(path, methods):
    """Scores in docs/ of all methods but these."""
    rows = pl.read_csv(path).filter(pl.col("method").is_in(methods).not_()).to_dicts()
    for row in rows:
        row["means"] = {metric: row.get(metric) for metric in METRICS}
        row["stds"] = {metric: row.get(f"{metric}_std") for metric in METRICS}
    return rows


def main(name, data, *methods):
    key = "tables" if name == "catalogues" else name
    board, path = BOARDS[key], ROOT / "docs" / f"leaderboard_{name}.csv"
    ran = tm.run_benchmark(data=Path(data), out=ROOT / "leaderboard" / name, methods=methods, **OPTIONS[key])
    rows = ran.content["rows"] + (kept(path, methods) if methods else [])
    worlds = list(board.worlds)
    rows.sort(key=lambda row: (worlds.index(row["world"]), -row["means"]["balanced_accuracy"]))
    titles = {name: method.title for name, method in board.methods.items()}
    path.write_text(scores_frame(rows, titles).write_csv(), encoding="utf-8")
    save_figure(leaderboard_figure(rows, titles, board.of), path.with_suffix(".png"), dpi=160)
    print(summary_table(rows, titles, board.of).markdown())


if __name__ == "__main__":
    main(*sys.argv[1:])
