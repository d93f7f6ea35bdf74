"""Fractions of bars and arms of real galaxies, from votes along a tree and gold labels: a table of docs/statistics.md.

    python benchmarks/question_fractions.py [DRAWS | small [DRAWS]]

Random gold labels among experts' (needs the shared data). Rms error over bins of α of equal count, of 95 % ranges the
part that contains the truth (mean, and of the worst bin). Simulated surveys: benchmarks/error_bars.py.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import plain_regression
import polars as pl

from truemorph import debiased_fractions
from truemorph.bias.binning import Bins
from truemorph.catalogs.paths import votes_of_survey
from truemorph.questions import Asked, read_tree

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@dataclass
class Case:
    """Galaxies with classes by the labels, and true classes: 0 where the question does not apply."""

    labels: np.ndarray
    alpha: np.ndarray
    truth: np.ndarray
    quantities: tuple
    paths: np.ndarray | None = None
    votes: np.ndarray | None = None
    bins: int = 8
    others: dict | None = None  # rival fractions in the bins

    def cut(self):
        return Bins.cut(self.alpha, self.bins)

    def fractions(self, classes):
        counts = np.stack([self.cut().sums(classes == k) for k in range(int(self.truth.max()) + 1)], axis=1)
        return self.quantities[0].of(counts / counts.sum(axis=1, keepdims=True))


def draw(case, n_gold, seed):
    """Errors of the corrected fractions and of gold labels alone, and whether ranges contain the truth, shape (B,)."""
    rng = np.random.default_rng(seed)
    gold = np.full(case.truth.size, -1)
    chosen = rng.choice(gold.size, n_gold, replace=False)
    gold[chosen] = case.truth[chosen]
    found = debiased_fractions(
        case.labels, case.alpha, gold=gold, paths=case.paths, votes=case.votes, quantities=case.quantities,
        bins=case.bins, seed=seed,
    )  # fmt: skip
    one, true = next(iter(found.ratios.values())), case.fractions(case.truth)
    if one.fraction.size < case.bins:
        return None  # bins were merged
    alone = case.fractions(gold)
    alone = np.where(np.isfinite(alone), alone, np.mean(gold[gold > 0] == gold.max()))
    inside = (one.low - 1e-9 <= true) & (true <= one.high + 1e-9)
    of_labels = case.labels if case.paths is None else case.paths
    terms = plain_regression.design(of_labels, case.alpha, () if case.votes is None else (case.votes,))
    plain = plain_regression.scores(
        terms, gold, case.cut(), true, n_classes=int(case.truth.max()) + 1, quantity=case.quantities[0], seed=seed
    )
    return one.fraction - true, alone - true, inside, one.high - one.low, *plain[:2]


def votes_case(tree, question, frame, truth, alpha, **options):
    """A case whose labels are majority paths and whose `votes` are log-odds of the votes."""
    votes, _ = votes_of_survey(frame, tree, question, "table")
    quantities = votes.asked.quantities
    labels = np.array(votes.asked.answers_of_paths)[votes.paths]
    return Case(labels, alpha, truth, quantities, votes.paths, votes.log_odds, **options)


def real():
    """The cases of the shared tables: galaxies with experts' bars and types."""
    tree = read_tree("gz2")
    frame = pl.read_parquet(DATA / "gz2_tree.parquet").drop_nulls(["bar_nair", "petroR90", "t_type"])
    t_type, axis_ratio, barred = (frame[name].to_numpy() for name in ("t_type", "axis_ratio", "bar_nair"))
    root = [
        f"t01_smooth_or_features_{one}_count" for one in ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")
    ]
    frame = frame.with_columns(votes=pl.sum_horizontal(root))
    alpha, applies = frame["petroR90"].to_numpy() / (1.1 / 2.3548), (t_type >= -3) & (axis_ratio > 0.5)
    bars = votes_case(tree, "bar", frame, np.where(applies, 1 + (barred > 0), 0), alpha)
    bin_of, bar, n = (
        bars.cut(),
        *(frame[f"t03_bar_{name}_count"].to_numpy().astype(float) for name in ("a06_bar", "a07_no_bar")),
    )
    n = bar + n
    debiased = {name: frame[f"t0{name}_debiased"].to_numpy() for name in (
        "1_smooth_or_features_a02_features_or_disk", "2_edgeon_a05_no", "3_bar_a06_bar")}  # fmt: skip
    cut = (n >= 10) & (np.stack(list(debiased.values())[:2]) > 0.5).all(axis=0)

    def mean(values, rows):
        return bin_of.sums(np.where(rows, values, 0.0)) / bin_of.sums(rows)

    share = np.divide(bar, n, out=np.zeros(n.size), where=n > 0)
    bars.others = {
        "majority of at least 10 votes": mean(share > 0.5, n >= 10),
        "vote fractions (soft)": bin_of.sums(bar / frame["votes"].to_numpy())
        / bin_of.sums(n / frame["votes"].to_numpy()),
        "Willett's debiased votes, cut": mean(debiased["3_bar_a06_bar"] > 0.5, cut),
    }
    arms = votes_case(tree, "spiral", frame, np.where(applies, 1 + (t_type >= 1), 0), alpha, bins=4)
    experts = pl.read_parquet(DATA / "expert_bars.parquet")
    experts = experts.filter((pl.col("petroR90_g") > 0) & (pl.col("axis_ratio") > 0) & (pl.col("bar_manga") >= 0))
    t_type, axis_ratio, deep, shallow, size = (
        experts[name].to_numpy() for name in ("t_type", "axis_ratio", "bar_manga", "bar_nair", "petroR90_g")
    )
    faces = (t_type >= -3) & (axis_ratio > 0.5)
    quantities = Asked(tree, "bar").quantities
    cases = {f"gz2_tree × bar_nair, {n} gold": (bars, n) for n in (150, 300, 500)}
    cases["spiral arms (T ≥ 1), quartiles, 300 gold"] = (arms, 300)
    path = np.where(t_type < -3, 0, np.where(axis_ratio <= 0.5, 1, 2 + (shallow > 0)))
    for least in (0.5, 0.75):
        truth = np.where(faces, 1 + (deep >= least), 0)
        label = np.where(faces, 1 + (shallow > 0), 0)
        given = Case(label[faces], size[faces], truth[faces], quantities)
        given.others = {"labels of SDSS's experts": given.fractions(label[faces])}
        cases[f"expert_bars ≥ {least}, applies is known, 300 gold"] = (given, 300)
        cases[f"expert_bars ≥ {least}, applies is estimated, 300 gold"] = (
            Case(label, size, truth, quantities, path), 300
        )  # fmt: skip
        blind = Case(1 + (shallow > 0), size, truth, quantities)
        cases[f"expert_bars ≥ {least}, applies is estimated without types, 300 gold"] = (blind, 300)
    return cases


FEW = 275  # galaxies of a small catalogue
AGAIN = 8  # times as many draws of gold labels for the catalogue in which the fewest ranges hold
HEAD = "rms | gold labels alone: rms | coverage (worst bin) | width | largest bias | plain regression: rms; coverage |"
HEAD += "\n|---" + "|---" * 6 + "|"


def line(name, results):
    every = list(results)
    kept = [one for one in every if one is not None]
    if len(kept) < len(every):
        name += f" ({len(every) - len(kept)} draws left out: bins were merged)"
    errors, alone, inside, width, plain, covered = (np.array(values) for values in zip(*kept, strict=True))
    rms, of_gold, of_plain = (np.sqrt(np.nanmean(values**2)) for values in (errors, alone, plain))
    return (
        f"| {name} | {rms:.3f} | {of_gold:.3f} | {inside.mean():.3f} ({inside.mean(axis=0).min():.3f}) | "
        f"{width.mean():.2f} | {np.abs(errors.mean(axis=0)).max():.3f} | "
        f"{of_plain:.3f}; {covered.mean():.3f} ({covered.mean(axis=0).min():.3f}) |"
    )


def of_few(case, bins, seeds, population):
    """Whether ranges of the bar fraction contain the truth: mean over bins and of the lowest; error of the lowest."""
    rows = np.random.default_rng([population, 1]).choice(case.truth.size, FEW, replace=False)
    labels, alpha, truth, paths, votes = (
        values[rows] for values in (case.labels, case.alpha, case.truth, case.paths, case.votes)
    )
    results = []
    for seed in seeds:
        gold = np.full(FEW, -1)
        chosen = np.random.default_rng([population, seed, 2]).choice(FEW, 150, replace=False)
        gold[chosen] = truth[chosen]
        found = debiased_fractions(
            labels, alpha, gold=gold, paths=paths, votes=votes, quantities=case.quantities, bins=bins, seed=seed
        )
        cut, one = Bins.at(alpha, found.edges), next(iter(found.ratios.values()))
        counts = np.stack([cut.sums(truth == k) for k in range(3)], axis=1)
        true = case.quantities[0].of(counts / counts.sum(axis=1, keepdims=True))
        inside = (one.low - 1e-9 <= true) & (true <= one.high + 1e-9)
        results.append((inside.mean(), inside[0], one.fraction[0] - true[0], true.size))
    return np.mean(results, axis=0)


def small(draws):
    """Many small catalogues, each with 150 gold labels: a table of docs/statistics.md."""
    case, _ = real()["gz2_tree × bar_nair, 150 gold"]
    print(
        f"| {FEW} galaxies, bars | bins | coverage | least of 30 catalogues | its gold labels drawn again | "
        "lowest bin | least | drawn again | bias there |"
    )
    print("|---" * 9 + "|")
    again = [range(draws * part, draws * (part + 1)) for part in range(1, 1 + AGAIN)]  # the least of many is too low
    with ProcessPoolExecutor() as pool:
        for name, bins in {"eight bins asked for": 8, "default": None}.items():
            found = np.array(list(pool.map(partial(of_few, case, bins, range(draws)), range(30))))
            means, least = found.mean(axis=0), found.argmin(axis=0)[:2]
            redrawn = [
                np.mean(list(pool.map(partial(of_few, case, bins), again, [population] * AGAIN)), axis=0)[k]
                for k, population in enumerate(least)
            ]
            print(
                f"| {name} | {means[3]:.1f} | {means[0]:.3f} | {found[least[0], 0]:.3f} | {redrawn[0]:.3f} | "
                f"{means[1]:.3f} | {found[least[1], 1]:.2f} | {redrawn[1]:.3f} | {means[2]:+.3f} |"
            )


def main():
    if sys.argv[1:2] == ["small"]:
        return small(int(sys.argv[2]) if len(sys.argv) > 2 else 60)
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"| galaxies, gold labels | {HEAD}")
    with ProcessPoolExecutor() as pool:
        for name, (case, n_gold) in real().items():
            print(line(name, pool.map(partial(draw, case, n_gold), range(draws), chunksize=10)), flush=True)
            for other, values in (case.others or {}).items():
                if n_gold == 300:
                    rms = np.sqrt(np.nanmean((values - case.fractions(case.truth)) ** 2))
                    print(f"| … {other} | {rms:.3f} | | | | | |", flush=True)


if __name__ == "__main__":
    main()
