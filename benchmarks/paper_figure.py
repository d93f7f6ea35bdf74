"""Figure of paper.md: fractions of disks and of bars against resolution, on real galaxies with experts' classes.

    python benchmarks/paper_figure.py

Needs ../shared/data. One random draw of gold labels for each panel; tables of docs/statistics.md and docs/comparison.md
have the errors of many.
"""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from question_fractions import DATA, real
from real_galaxies import by_bin

import truemorph as tm
from truemorph.plotting import ALPHA, BLACK, BLUE, GREEN, RED, legend

OUT = Path(__file__).resolve().parent.parent / "docs" / "real_galaxies.png"
BINS = 8
DISK_GOLD, BAR_GOLD = 500, 300


def drawn(truth, number):
    """Gold labels of so many random galaxies; -1 elsewhere."""
    gold = np.full(truth.size, -1)
    chosen = np.random.default_rng(0).choice(truth.size, number, replace=False)
    gold[chosen] = truth[chosen]
    return gold


def panel(ax, alpha, lines, corrected, title):
    middle = [np.median(part) for part in np.array_split(np.sort(alpha), BINS)]
    fraction, low, high, name = corrected
    ax.fill_between(middle, low, high, color=BLUE, alpha=0.2, linewidth=0)
    for label, (values, style) in lines.items():
        ax.plot(middle, values, label=label, **style)
    ax.plot(middle, fraction, "o-", color=BLUE, label=name)
    ax.set(xscale="log", xlabel=ALPHA, ylim=(0, None), title=title)
    ax.set_xticks([15, 20, 30, 40, 60], ["15", "20", "30", "40", "60"], minor=False)
    ax.minorticks_off()
    legend(ax)


def disks(ax):
    table = pl.read_csv(DATA / "expert_vs_crowd.csv")
    labels, alpha = table["gz1_spiral"].to_numpy(), table["petroR90_g"].to_numpy() / (1.32 / 2.3548)
    truth = (table["t_type"].to_numpy() >= -3).astype(int)
    found = tm.debiased_fractions(labels, alpha, gold=drawn(truth, DISK_GOLD), bins=BINS)
    lines = {
        "volunteers": (by_bin(labels, alpha, BINS), {"color": RED, "marker": "s"}),
        "experts": (by_bin(truth, alpha, BINS), {"color": BLACK, "linestyle": "--"}),
    }
    corrected = found.fractions[:, 1], found.low[:, 1], found.high[:, 1], f"corrected, {DISK_GOLD} gold labels"
    panel(ax, alpha, lines, corrected, f"disks, {labels.size:,} galaxies of Galaxy Zoo 1")
    ax.set_ylabel("fraction")


def bars(ax):
    case, _ = real()[f"gz2_tree × bar_nair, {BAR_GOLD} gold"]
    found = tm.debiased_fractions(
        case.labels, case.alpha, gold=drawn(case.truth, BAR_GOLD), paths=case.paths, votes=case.votes,
        quantities=case.quantities, bins=BINS,
    )  # fmt: skip
    one = next(iter(found.ratios.values()))
    lines = {
        "volunteers' majority": (case.fractions(case.labels), {"color": RED, "marker": "s"}),
        "debiased votes (Willett et al.), cut": (
            case.others["Willett's debiased votes, cut"],
            {"color": GREEN, "marker": "^"},
        ),
        "experts": (case.fractions(case.truth), {"color": BLACK, "linestyle": "--"}),
    }
    corrected = one.fraction, one.low, one.high, f"corrected, {BAR_GOLD} gold labels"
    panel(ax, case.alpha, lines, corrected, f"bars, {case.alpha.size} galaxies of Galaxy Zoo 2")


def main():
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for draw, ax in zip((disks, bars), figure.subplots(1, 2), strict=True):
        draw(ax)
    figure.savefig(OUT, dpi=150)


if __name__ == "__main__":
    main()
