"""Leaderboards: run `truemorph benchmark`, keep its scores and figure in docs/, and print the table of the page.

    python benchmarks/leaderboard.py networks|catalogues|bar DATA

If interrupted, run it again at the same commit to resume: results of each training are in leaderboard/.
"""

import shutil
import sys
from pathlib import Path

import truemorph as tm

ROOT = Path(__file__).resolve().parent.parent
BOARDS = {
    "networks": {"jobs": 2},
    "catalogues": {"catalogue_only": True},
    "bar": {"question": "bar", "train": 4000, "test": 1500, "seeds": 3, "jobs": 2},
}


def main(board, data):
    out = ROOT / "leaderboard" / board
    tm.run_benchmark(data=Path(data), out=out, **BOARDS[board])
    for ending in ("csv", "png"):
        shutil.copyfile(out / f"leaderboard.{ending}", ROOT / "docs" / f"leaderboard_{board}.{ending}")
    lines = (out / "leaderboard.md").read_text(encoding="utf-8").splitlines()
    print("\n".join(line for line in lines if line.startswith("|")))


if __name__ == "__main__":
    main(*sys.argv[1:])
