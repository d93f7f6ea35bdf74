"""Planned gold labels: predicted and stated errors, by the least variance that a plan assumes, and labels in hand.

    python benchmarks/plan_errors.py [DRAWS]

Simulated catalogues of 6,000 galaxies, 200 labels, octiles of α. Errors are standard errors of the disk fraction: the
largest that the plan predicts, and the largest that the estimate states (means over catalogues); width is that of the
95 % range, rms the error against the truth. A plan assumes at least some variance of the class in a stratum: 0.0196,
that of a fraction of 2 %, was the value of version 0.2. The second table has the labels that a plan for an error of
0.04 asks for where 0, 400 or 800 random gold labels are in hand.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import polars as pl

import truemorph as tm
from truemorph.bias.binning import Bins
from truemorph.gold import strata
from truemorph.gold.plan import PlanOptions, make_plan
from truemorph.simulate.catalogues import simulate_catalogue
from truemorph.tables import CatalogTable

BINS, BUDGET, LEAST = 8, 200, (0.0196, 0.10)
WORLDS = {"no drift": {}, "drift -0.5": {"drift": -0.5}, "wave": {"trend": "wave"}}


def one(world, least, seed):
    """Predicted largest error, stated errors, widths, errors and coverage of the octiles; at random if `least` is 0."""
    table = simulate_catalogue(6000, seed, gold=0, **world)
    labels, alpha, truth = (table[name].to_numpy() for name in ("label", "alpha", "truth"))
    strata._LEAST_VARIANCE = least or LEAST[0]
    plan = make_plan(CatalogTable(table.drop("gold")), PlanOptions(budget=BUDGET, bins=BINS, seed=seed))
    chosen, probability = plan.frame["position"].is_not_null().to_numpy(), plan.frame["probability"].to_numpy()
    if not least:
        chosen, probability = np.random.default_rng(seed).permutation(6000) < chosen.sum(), None
    gold = np.where(chosen, truth, -1)
    found = tm.debiased_fractions(labels, alpha, gold=gold, gold_probability=probability, bins=BINS)
    cut = Bins.cut(alpha, BINS)
    true, low, high = cut.sums(truth) / cut.totals, found.low[:, 1], found.high[:, 1]
    stated = found.stderr[:, 1]
    return (
        plan.predicted.max(),
        stated.max(),
        (high - low).mean(),
        found.fractions[:, 1] - true,
        (low <= true) & (true <= high),
    )


def labels_asked(seed):
    """Labels that a plan asks for where 0, 400 or 800 are in hand."""
    strata._LEAST_VARIANCE = LEAST[-1]
    table = simulate_catalogue(6000, seed, gold=800)
    order = np.cumsum(table["gold"].is_not_null().to_numpy())
    asked = []
    for number in (0, 400, 800):
        some = table.with_columns(gold=pl.when(pl.Series(order <= number)).then("gold"))
        asked.append(make_plan(CatalogTable(some), PlanOptions(error=0.04, bins=BINS)).selected.height)
    return asked


def main(draws=100):
    with ProcessPoolExecutor() as pool:
        print("## plan_errors")
        heads = [*(f"least variance {least:g}" for least in LEAST), "random choice"]
        print(f"| world | {' | '.join(heads)} |\n|---{'|---' * len(heads)}|", flush=True)
        for name, world in WORLDS.items():
            cells = []
            for least in (*LEAST, 0):
                results = list(pool.map(partial(one, world, least), range(int(draws))))
                predicted, stated, width, errors, covered = map(np.array, zip(*results, strict=True))
                rms = np.sqrt(np.mean(errors**2))
                first = f"{predicted.mean():.3f}, " if least else ""
                cells.append(
                    f"{first}{stated.mean():.3f}; {width.mean():.3f}; {rms:.3f}; {covered.mean():.3f} "
                    f"({covered.mean(axis=0).min():.2f})"
                )
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        print("\n## plan_in_hand\n| in hand | labels asked for |\n|---|---|")
        asked = np.array(list(pool.map(labels_asked, range(min(int(draws), 20)))))
        for number, some in zip((0, 400, 800), asked.T, strict=True):
            print(f"| {number} | {some.min()} to {some.max()} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
