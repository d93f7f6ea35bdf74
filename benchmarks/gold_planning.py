"""Planned vs random choice of the galaxies that get a gold label: the tables of docs/statistics.md.

    python benchmarks/gold_planning.py experts DATA [DRAWS]
    python benchmarks/gold_planning.py coverage [DRAWS]

"experts": experts are simulated with T types of real galaxies (expert_vs_crowd.csv in DATA); the observed labels are
Galaxy Zoo 1 flags. "coverage": simulated catalogues. Random choice gets as many labels as the plan, which rounds up in
each stratum. One process; about two minutes for 20 draws of the first, six for 100 of the second. Cells have rms error
(largest error of the 8 bins); coverage, width of the range; of simulated catalogues rms error; coverage (of the worst
bin); width; mean bias; and of θ bias, rms error, mean stated error, coverage.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from scipy.optimize import brentq

import truemorph as tm
from truemorph.bias.binning import Bins
from truemorph.bias.regression.gold import GoldRegression, regression_terms
from truemorph.gold.plan import PlanOptions, make_plan
from truemorph.simulate.catalogues import simulate_catalogue
from truemorph.tables import CatalogTable

BINS, NUMBERS, MORE = 8, (100, 200, 300, 500, 1000), (1500, 2000)
THETA = 11.25
PLANNED, IGNORED, RANDOM = "planned", "planned, probabilities ignored", "random"
IDEAL = "planned from all types"  # the best that prediction of the classes from label and α can do
INVERSE = "inverse-probability weights"


def planned(labels, alpha, budget, seed, types=None):
    """Which galaxies the plan selects, and the probability of selection of all, shape (N,) each."""
    frame = pl.DataFrame({"object_id": np.arange(labels.size), "label": labels, "alpha": alpha})
    if types is not None:
        frame = frame.with_columns(gold=types)
    plan = make_plan(CatalogTable(frame), PlanOptions(budget=budget, bins=BINS, seed=seed))
    return plan.frame["position"].is_not_null().to_numpy(), plan.frame["probability"].to_numpy()


def at_random(size, n, seed):
    known = np.zeros(size, dtype=bool)
    known[np.random.default_rng(seed).choice(size, n, replace=False)] = True
    return known


def compared(fractions, low, high, truth):
    """Error, whether the range covers the truth, and width of the range of each bin."""
    return {"error": fractions - truth, "covered": (low <= truth) & (truth <= high), "width": high - low}


def by_truemorph(labels, alpha, gold, truth, probability=None):
    found = tm.debiased_fractions(labels, alpha, gold=gold, gold_probability=probability, bins=BINS)
    return compared(found.fractions[:, 1], found.low[:, 1], found.high[:, 1], truth)


def by_regression(labels, alpha, gold, truth, weights):
    """The same regression, with weights of the gold labels."""
    cut = Bins.cut(alpha, BINS)
    regression = GoldRegression.fit(regression_terms(labels, alpha), gold, replace(cut, weights=weights))
    fractions, samples = replace(regression, bins=cut).fractions(gold, 0)
    low, high = np.quantile(samples[:, :, 1], [0.025, 0.975], axis=0)
    return compared(fractions[:, 1], low, high, truth)


def rms(error):
    return np.sqrt(np.mean(error**2))


def largest(error):
    """Largest error of the bins, mean over draws."""
    return np.abs(error).max(axis=1).mean()


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*cells):
    row(*cells)
    print("|" + "---|" * len(cells))


def stacked(results):
    return {key: np.array([result[key] for result in results]) for key in results[0]}


def experts(data, draws=20):
    frame = pl.read_csv(Path(data) / "expert_vs_crowd.csv")
    labels, t_type = frame["gz1_spiral"].to_numpy(), frame["t_type"].to_numpy()
    alpha = frame["petroR90_g"].to_numpy() / (1.32 / 2.3548)
    index = Bins.cut(alpha, BINS).index
    truths = {"T ≥ -3": (t_type >= -3).astype(int), "T ≥ 1": (t_type >= 1).astype(int)}
    found = {(name, n): [] for name in truths for n in (*NUMBERS, *MORE)}
    counts = dict(zip(MORE, MORE, strict=True))
    for n in (*NUMBERS, *MORE):
        for seed in range(int(draws)):
            if n in NUMBERS:
                chosen, probability = planned(labels, alpha, n, seed)
                counts[n] = int(chosen.sum())
            known = at_random(labels.size, counts[n], 10_000 + seed)
            for name, truth in truths.items():
                true = np.bincount(index, truth) / np.bincount(index)
                result = {RANDOM: by_truemorph(labels, alpha, np.where(known, truth, -1), true)}
                if n in NUMBERS:
                    gold = np.where(chosen, truth, -1)
                    result[PLANNED] = by_truemorph(labels, alpha, gold, true, probability)
                    result[IGNORED] = by_truemorph(labels, alpha, gold, true)
                    best, p = planned(labels, alpha, n, seed, truth)
                    result[IDEAL] = by_truemorph(labels, alpha, np.where(best, truth, -1), true, p)
                found[name, n].append(result)
    print("## gold_planned")
    methods = (PLANNED, IGNORED, RANDOM)
    header("disk", "gold labels", *methods)
    for name in truths:
        for n in NUMBERS:
            results = [stacked([result[method] for result in found[name, n]]) for method in methods]
            cells = (
                f"{rms(result['error']):.3f} ({largest(result['error']):.3f}); {result['covered'].mean():.2f}, "
                f"{result['width'].mean():.3f}"
                for result in results
            )
            row(name, f"{counts[n]:,}", *cells)
    print("\n## gold_saved")
    header(
        "disk", "gold labels", "equal rms error", "equal largest error", "equal rms error, probabilities ignored",
        "equal rms error, all types",
    )  # fmt: skip
    for name in truths:
        errors = {
            (method, n): np.array([result[method]["error"] for result in results])
            for (of, n), results in found.items()
            for method in results[0]
            if of == name
        }
        for n in NUMBERS:
            row(name, f"{counts[n]:,}", *(saved(errors, counts, n, *what) for what in (
                (PLANNED, rms), (PLANNED, largest), (IGNORED, rms), (IDEAL, rms)
            )))  # fmt: skip


def saved(errors, counts, n, method, measure):
    """Labels saved in %, with the random errors interpolated in the logarithms; interval from a bootstrap of draws."""
    rng = np.random.default_rng(0)
    numbers = np.log([counts[key] for key in sorted(counts)])

    def once(resample):
        def log_error(method, number):
            error = errors[method, number]
            return np.log(measure(error[rng.integers(0, len(error), len(error))] if resample else error))

        wanted = log_error(method, n)
        curve = np.minimum.accumulate([log_error(RANDOM, key) for key in sorted(counts)])
        if curve[-1] <= wanted <= curve[0]:
            equal = np.interp(-wanted, -curve, numbers)
        else:  # a power law through both ends
            equal = numbers[0] + (wanted - curve[0]) * np.ptp(numbers) / (curve[-1] - curve[0])
        return 100 * (1 - counts[n] / np.exp(equal))

    low, high = np.quantile([once(True) for _ in range(400)], [0.16, 0.84])
    return f"{once(False):.0f} ({low:.0f} to {high:.0f})"


def selection_probability(strength, column, n):
    """Probability of being among the n largest of strength × column + Gumbel noise (`gold_choice`), shape (N,).

    It treats the n-th largest value as fixed, which is right to 1 % for 30 of 600 galaxies, and better for more.
    """
    score = strength * (column - column.mean()) / column.std()

    def probability(limit):
        return -np.expm1(-np.exp(score - limit))

    return probability(brentq(lambda limit: probability(limit).sum() - n, -50, 50))


def coverage(draws=100):
    worlds = {f"drift {drift:+.1f}": {"drift": drift} for drift in (-0.5, 0.0, 0.5)}
    worlds["wave"] = {"trend": "wave"}
    for strength in (0.7, -0.7):
        worlds[f"selected by a column, {strength:+.1f}"] = {"gold_choice": strength}
    fractions, curves = {}, {}
    for name, world in worlds.items():
        for seed in range(1000, 1000 + int(draws)):
            one_world(name, world, seed, fractions, curves)
    print("## gold_worlds")
    header("world", PLANNED, IGNORED, RANDOM)
    for name in worlds:
        row(name, *("{}; {} ({}); {}; {}".format(*of_bins(fractions[name, one])) for one in (PLANNED, IGNORED, RANDOM)))
    print("\n## gold_theta")
    header("world", PLANNED, IGNORED, RANDOM)
    for name in worlds:
        row(name, *(of_theta(curves[name, one]) for one in (PLANNED, IGNORED, RANDOM)))
    print("\n## gold_weights")
    header("world", "log-probability as covariate", INVERSE)
    for name in worlds:
        row(name, *("{}; {} ({}); {}; {}".format(*of_bins(fractions[name, one])) for one in (PLANNED, INVERSE)))


def of_bins(results):
    """Rms error, coverage, that of the worst bin, width and mean bias."""
    one = stacked(results)
    covered = one["covered"].mean(axis=0)
    return (f"{rms(one['error']):.3f}", f"{covered.mean():.3f}", f"{covered.min():.2f}", f"{one['width'].mean():.3f}",
            f"{one['error'].mean():+.3f}")  # fmt: skip


def of_theta(results):
    error, stated = np.array(results).T
    return f"{error.mean():+.2f}, {rms(error):.2f}, {stated.mean():.2f}, {np.mean(np.abs(error) < 1.96 * stated):.2f}"


def one_world(name, world, seed, fractions, curves):
    """Add the errors of one simulated catalogue."""
    selected = "gold_choice" in world
    table = simulate_catalogue(6000, seed, transition=tm.RayleighTransition(THETA), gold=300, **world)
    labels, alpha, truth = (table[column].to_numpy() for column in ("label", "alpha", "truth"))
    cut = Bins.cut(alpha, BINS)
    true = np.bincount(cut.index, truth) / np.bincount(cut.index)
    if selected:
        chosen = table["gold"].is_not_null().to_numpy()
        probability = selection_probability(world["gold_choice"], table["covariate"].to_numpy(), 300)
    else:
        chosen, probability = planned(labels, alpha, 300, 10_000 + seed)
    gold = np.where(chosen, truth, -1)
    results = {
        PLANNED: by_truemorph(labels, alpha, gold, true, probability),
        IGNORED: by_truemorph(labels, alpha, gold, true),
        INVERSE: by_regression(labels, alpha, gold, true, 1 / probability),
    }
    choices = {PLANNED: (gold, probability), IGNORED: (gold, None)}
    known = np.where(at_random(labels.size, int(chosen.sum()), 20_000 + seed), truth, -1)
    results[RANDOM] = by_truemorph(labels, alpha, known, true)
    choices[RANDOM] = known, None
    for method, result in results.items():
        fractions.setdefault((name, method), []).append(result)
    for method, (some, p) in choices.items():
        fit = tm.fit_transition(labels, alpha, "rayleigh", gold=some, gold_probability=p)
        curves.setdefault((name, method), []).append((fit.values["theta"] - THETA, fit.stderr["theta"]))


if __name__ == "__main__":
    {"experts": experts, "coverage": coverage}[sys.argv[1]](*sys.argv[2:])
