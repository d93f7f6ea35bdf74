"""Which labels cleanlab drops before a network of the leaderboard is trained (plain world, seed 0).

python benchmarks/dropped_by_cleanlab.py
"""

from dataclasses import replace

import numpy as np

from truemorph.benchmark.leaderboard import EPOCHS
from truemorph.benchmark.methods import benchmark_config, undoubted
from truemorph.benchmark.worlds import Sizes, make_world
from truemorph.catalogs.sampling import TRAIN


def main():
    world = replace(make_world("plain", 0, Sizes()), config=benchmark_config(Sizes().pixels, EPOCHS))
    kept = undoubted(world)
    rows = world.rows(TRAIN)
    dropped, labels, truth, alpha = ~kept[rows], world.labels[rows], world.truth[rows], world.alpha[rows]
    low = alpha < np.median(alpha)
    print("| labels | number | of which wrong | dropped | of the wrong | of the right |\n|---|---|---|---|---|---|")
    for name, number in (("smooth", 0), ("disk", 1)):
        for where, there in (("below", low), ("above", ~low)):
            here = (labels == number) & there
            wrong, right = here & (truth != labels), here & (truth == labels)
            shares = [dropped[some].mean() if some.any() else np.nan for some in (here, wrong, right)]
            cells = ["–" if np.isnan(one) else f"{100 * one:.0f} %" for one in (wrong.sum() / here.sum(), *shares)]
            print(f"| {name}, {where} the median α | {here.sum():,} | {' | '.join(cells)} |")
    every = labels != truth
    cells = [
        f"{100 * one:.0f} %" for one in (every.mean(), dropped.mean(), dropped[every].mean(), dropped[~every].mean())
    ]
    print(f"| all | {rows.size:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
