"""Coverage and width of error bars in simulated catalogues: tables of docs/statistics.md and docs/depth.md.

    python benchmarks/error_bars.py TABLE [--draws N]

Each cell is a mean over simulated catalogues (`truemorph.simulate.simulate_catalogue`; of bars and arms,
`simulate_survey`). The truth of a bin is the fraction of its own galaxies.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import plain_regression
import polars as pl

import truemorph as tm
from truemorph.bias.binning import Bins
from truemorph.bias.checks.calibration import calibration
from truemorph.bias.checks.diagnostics import ignored_findings
from truemorph.errors import InputError
from truemorph.questions import class_names, read_tree
from truemorph.simulate import observed_labels, simulate_galaxies, simulate_survey
from truemorph.simulate.catalogues import simulate_catalogue
from truemorph.simulate.survey import WORLDS

FLIPS = {
    "rayleigh": tm.RayleighTransition(11.25),
    "weibull": tm.WeibullTransition(20.0, 1.3),
    "fisk": tm.FiskTransition(14.0, 2.2),
}
BINS, GOLD = 8, (100, 150, 300, 500)


# Log-odds of being selected for a gold label, by whether α is above its median.
SELECTED = {
    "below the median of α": (0, -np.inf),
    "above the median of α": (-np.inf, 0),
    "4 times likelier below": (np.log(4), 0),
}


def columns(selected=None, tied=False, **world):
    """Table, labels, α, gold labels and truth; gold labels selected by α, or five values of α in the order of class."""
    table = simulate_catalogue(**world)
    gold, truth = table["gold"].fill_null(-1).to_numpy(), table["truth"].to_numpy()
    labels, alpha = table["label"].to_numpy(), table["alpha"].to_numpy()
    rng = np.random.default_rng([world["seed"], 3])
    if selected is not None:
        keys = np.where(alpha > np.median(alpha), *SELECTED[selected][::-1]) + rng.gumbel(size=alpha.size)
        gold = np.where(np.isin(np.arange(alpha.size), np.argsort(-keys)[: world["gold"]]), truth, -1)
    if tied:
        values = np.array([6.0, 9.0, 13.0, 18.0, 25.0])
        nearest = np.abs(np.log(alpha[:, None] / values)).argmin(axis=1)
        alpha, order = values[nearest], np.argsort(truth, kind="stable")
        labels = observed_labels(truth, alpha, FLIPS["rayleigh"], world["seed"])
        table, labels, alpha, gold, truth = table[order], *(one[order] for one in (labels, alpha, gold, truth))
    return table, labels, alpha, gold, truth


def bin_means(values, alpha, weights=None):
    index = Bins.cut(alpha, BINS).index
    parts = [np.flatnonzero(index == b) for b in range(index.max() + 1)]
    return np.array([np.average(values[p], weights=None if weights is None else weights[p]) for p in parts]), parts


def curve_from_gold(family, **world):
    """The first parameter of T from gold labels: error, stated error, covered."""
    flips = FLIPS[family]
    _, labels, alpha, gold, _ = columns(transition=flips, **world)
    fit = tm.fit_transition(labels, alpha, family, gold=gold)
    name = next(iter(fit.values))
    error, stated = fit.values[name] - getattr(flips, name), fit.stderr[name]
    return {"error": [error], "covered": [abs(error) < 1.96 * stated], "width": [2 * 1.96 * stated]}


def fractions_from_gold(family="rayleigh", weighted=False, covariate=False, **world):
    """Disk fractions of octiles from gold labels: errors, covered by 1.96 errors and by the range, widths."""
    table, labels, alpha, gold, truth = columns(transition=FLIPS[family], **world)
    weights = table["sampling_weight"].to_numpy() if weighted else None
    more = {"covariates": table["covariate"].to_numpy()} if covariate else {}
    found = tm.debiased_fractions(labels, alpha, gold=gold, bins=BINS, weights=weights, **more)
    true, parts = bin_means(truth, alpha, weights)
    error, stated = found.fractions[:, 1] - true, found.stderr[:, 1]
    low, high = found.low[:, 1], found.high[:, 1]
    others = np.array([powered(labels, truth, gold, part, weights) for part in parts])
    terms = plain_regression.design(labels, alpha, [column[:, None] for column in more.values()])
    cut = Bins.cut(alpha, BINS, np.ones(alpha.size) if weights is None else weights)
    plain = plain_regression.scores(terms, gold, cut, true, seed=world.get("seed", 0))
    return {
        "error": error, "covered": np.abs(error) < 1.96 * stated, "width": 2 * 1.96 * stated,
        "in_range": (low <= true + 1e-9) & (true <= high + 1e-9), "range": high - low,
        "ppi_error": others[:, 0] - true, "ppi_covered": np.abs(others[:, 0] - true) < 1.96 * others[:, 1],
        "ppi_width": 2 * 1.96 * others[:, 1], "gold_error": others[:, 2] - true,
        "plain_error": plain[0], "plain_in_range": plain[1], "plain_width": plain[2],
    }  # fmt: skip


def powered(labels, truth, gold, part, weights):
    """Estimate by PPI++ (Angelopoulos, Duchi & Zrnic 2023): mean of gold labels, corrected by observed labels."""
    inside = part[gold[part] >= 0]
    w = np.ones(labels.size) if weights is None else weights
    y, seen = truth[inside].astype(float), labels[inside].astype(float)
    n = max(w[inside].sum() ** 2 / np.sum(w[inside] ** 2), 2)
    mean_y, mean_seen = np.average(y, weights=w[inside]), np.average(seen, weights=w[inside])
    spread = np.average((seen - mean_seen) ** 2, weights=w[inside])
    slope = np.average((y - mean_y) * (seen - mean_seen), weights=w[inside]) / spread if spread > 0 else 0.0
    residual = y - mean_y - slope * (seen - mean_seen)
    everyone = np.average(labels[part], weights=w[part])
    variance = np.average(residual**2, weights=w[inside]) / n + slope**2 * everyone * (1 - everyone) / part.size
    return mean_y + slope * (everyone - mean_seen), np.sqrt(variance), mean_y


def of_fraction(fit, truth):
    """Error of a fit's disk fraction, and whether 1.96 errors and the range cover the true one."""
    low, high = fit.fraction_range["disk"]
    error, stated = fit.class_fractions[1] - truth.mean(), fit.stderr["disk_fraction"]
    return {
        "error": [error], "covered": [abs(error) < 1.96 * stated], "width": [2 * 1.96 * stated],
        "in_range": [low <= truth.mean() <= high], "range": [high - low],
    }  # fmt: skip


def from_labels(family, bins=1, **world):
    """Disk fraction from labels alone: error, covered by 1.96 errors and by the range."""
    _, labels, alpha, _, truth = columns(transition=FLIPS[family], **world)
    return of_fraction(tm.fit_transition(labels, alpha), truth)


def from_columns(intrinsic, seed):
    """Disk fraction from labels, in a population like a survey's: alone, or given intrinsic columns."""
    galaxies = simulate_galaxies(8000, seed)
    labels, truth = observed_labels(galaxies["truth"], galaxies["alpha"], FLIPS["rayleigh"], seed), galaxies["truth"]
    columns = galaxies.select(intrinsic).to_numpy() if intrinsic else None
    fit = tm.fit_transition(labels, galaxies["alpha"].to_numpy(), intrinsic=columns)
    return of_fraction(fit, truth)


def fit_is_rejected(family, rising=0.0, n_classes=2, drifting=False, **world):
    """Whether the calibration rejects a fit to gold labels at 1 %.

    `rising`: highest rate of false disks, which rises with α. With three classes a constant matrix is fitted; flips of
    the second class are constant, or `drifting` with α.
    """
    _, labels, alpha, gold, truth = columns(transition=FLIPS.get(family), **world)
    rng = np.random.default_rng([world["seed"], 5])
    u = (np.log(alpha) - 2.8) / 0.45
    if rising:
        false = (truth == 0) & (rng.random(truth.size) < rising / (1 + np.exp(-2 * u)))
        labels = np.where(false, 1, labels)
    if n_classes == 3:
        truth = rng.choice(3, truth.size, p=[0.3, 0.4, 0.3])
        flips = 1 / (1 + np.exp(2 * u)) if drifting else 0.4
        labels = np.where((truth == 1) & (rng.random(truth.size) < flips), 0, truth)
        labels = np.where((truth == 2) & (rng.random(truth.size) < 0.2), 1, labels)
        gold = np.where(gold >= 0, truth, -1)
    fit = tm.fit_transition(labels, alpha, family, gold=gold, classes=class_names(n_classes))
    return {"found": [calibration(fit).p_value < 0.01]}


def answers_from_gold(question, answer, world, n=4000, gold=300, seed=0):
    """Fractions of an answer in octiles, from votes along a tree and random gold labels, as the commands find them."""
    _, votes = simulate_survey(n, seed, world=world)
    known = np.random.default_rng([seed, 3]).permutation(n) < gold
    votes = votes.with_columns(experts=pl.when(pl.Series(known)).then(f"truth_{question}"))
    prepared = tm.prepare_catalogue(votes, question=question).catalogue
    found = tm.estimate_transition(prepared, question=question, gold="experts")[f"{answer} fraction"]
    if found.fraction.size < BINS:
        return "bins were merged"
    frame = prepared.frame
    truth, known = frame[f"truth_{question}"].to_numpy(), frame["experts"].is_not_null().to_numpy()
    applies = np.isin(truth, list(read_tree("gz2").question(question).answers))
    cut = Bins.cut(frame["alpha"].to_numpy(), BINS)
    yes = truth == answer
    true, of_gold = (cut.sums(yes & some) / np.maximum(cut.sums(applies & some), 1) for some in (applies, known))
    # A bin without gold labels gets the mean of all.
    of_gold = np.where(cut.sums(applies & known) > 0, of_gold, yes[known].sum() / (applies & known).sum())
    error = found.fraction - true
    return {
        "error": error, "covered": np.abs(error) < 1.96 * found.stderr, "width": 2 * 1.96 * found.stderr,
        "in_range": (found.low <= true + 1e-9) & (true <= found.high + 1e-9), "range": found.high - found.low,
        "gold_error": of_gold - true,
    }  # fmt: skip


def faint(n=6000, gold=0, slope=-0.35, drift=0.0, rising=0.0, seed=0):
    """Labels that depend on α and brightness μ, columns, gold labels and truth.

    ln α' = ln α + slope · (μ - 22); log-odds of disks change by `drift` per σ of ln α and by `rising` per magnitude.
    """
    rng = np.random.default_rng(seed)
    u, mu = rng.normal(size=n), rng.normal(22, 1, n)
    alpha = np.exp(2.8 + 0.45 * u)
    truth = (rng.random(n) < 1 / (1 + 3 / 7 * np.exp(-drift * u - rising * (mu - 22)))).astype(int)
    flips = tm.ShiftedTransition(FLIPS["fisk"], (slope,), (22.0,)).flip_probability(np.column_stack([alpha, mu]))
    labels = np.where(rng.random(n) < flips, 0, truth)
    return labels, alpha, mu, np.where(rng.permutation(n) < gold, truth, -1), truth


def curve_with_depth(name, **world):
    """A parameter of T(α, μ) from gold labels: error, stated error, covered."""
    labels, alpha, mu, gold, _ = faint(**world)
    fit = tm.fit_transition(labels, alpha, "fisk", observables={"mu": mu}, gold=gold)
    error, stated = fit.values[name] - {"scale": 14.0, "slope of mu": -0.35}[name], fit.stderr[name]
    return {"error": [error], "covered": [abs(error) < 1.96 * stated], "width": [2 * 1.96 * stated]}


def fractions_with_depth(by, **world):
    """Disk fractions in octiles of α or of μ, from gold labels."""
    labels, alpha, mu, gold, truth = faint(**world)
    column = alpha if by == "alpha" else mu
    found = tm.debiased_fractions(labels, alpha, gold=gold, observables={"mu": mu}, by=column, bins=BINS)
    true, parts = bin_means(truth, column)
    error, stated, low, high = found.fractions[:, 1] - true, found.stderr[:, 1], found.low[:, 1], found.high[:, 1]
    return {
        "error": error, "covered": np.abs(error) < 1.96 * stated, "width": 2 * 1.96 * stated,
        "in_range": (low <= true + 1e-9) & (true <= high + 1e-9), "range": high - low,
        "gold_error": np.array([truth[p[gold[p] >= 0]].mean() for p in parts]) - true,
    }  # fmt: skip


def through_alpha_alone(**world):
    """Disk fractions in octiles of μ through T(α) of labels or of gold labels, and whether what it ignores is found.

    Where flips depend on μ, the latter only of catalogues in which the largest error exceeds 0.05.
    """
    labels, alpha, mu, gold, truth = faint(**world)
    given = {"gold": gold} if world["gold"] else {}
    fit = tm.fit_transition(labels, alpha, "fisk", delta=None, **given)
    found = tm.debiased_fractions(labels, alpha, fit.transition, by=mu, bins=BINS)
    error = found.fractions[:, 1] - bin_means(truth, mu)[0]
    counts = world["slope"] == 0 or np.abs(error).max() > 0.05
    is_found = len(ignored_findings(fit, {"surface_brightness": mu})) if counts else np.nan
    return {"error": error, "found": [is_found]}


def curves(**world):
    """T of each family from gold labels."""
    return [(curve_from_gold, {"family": family, "gold": 300, **world}) for family in FLIPS]


def with_depth(drift, rising):
    """T(α, μ), and fractions in octiles of α and of μ."""
    world = {"drift": drift, "rising": rising, "gold": 300}
    cases = [(curve_with_depth, {"name": name, **world}) for name in ("scale", "slope of mu")]
    return cases + [(fractions_with_depth, {"by": by, **world}) for by in ("alpha", "mu")]


def gold_fractions(**options):
    return [(fractions_from_gold, options)]


DRIFTS = {"no drift": {}, "drift -0.5": {"drift": -0.5}, "drift +0.5": {"drift": 0.5}}
TRENDS = {"step": {"trend": "step"}, "wave": {"trend": "wave"}}
IN_RANGE, IN_BINS = "{in_range:.3f}", "{in_range:.3f} ({worst_in_range:.2f})"
WEIGHTED = {"n": 5000, "weight_scatter": 1.0, "weighted": True}
INTRINSIC = (("radius_kpc", "M_r", "redshift"), ("M_r", "redshift"), ("M_r",), ("axis_ratio",))
# Tables: head of the first column; heads of the others, with the format of their cells and which
# case of a row they describe; rows.
TABLES = {
    "curves": (
        "T from 300 gold labels: rms error, coverage, width",
        [
            (head, "{rms:.2f}, {covered:.3f}, {width:.2f}", k)
            for k, head in enumerate(("Rayleigh, θ = 11.25", "Weibull, scale 20", "Fisk, scale 14"))
        ],
        {f"drift {drift:+.1f}, of 5,000": curves(n=5000, drift=drift) for drift in (-0.5, 0.0, 0.3, 0.5)}
        | {f"{name}, of 60,000": curves(n=60_000, **world) for name, world in TRENDS.items()}
        | {f"of 5,000, {name}": curves(n=5000, selected=name) for name in SELECTED},
    ),
    "fractions": (
        "world, 6,000 galaxies",
        [(f"{gold} gold", f"{{rms:.3f}}; {IN_BINS}; {{range:.3f}}", k) for k, gold in enumerate(GOLD)],
        {
            name: [(fractions_from_gold, {"n": 6000, "gold": gold, **world}) for gold in GOLD]
            for name, world in (DRIFTS | TRENDS).items()
        },
    ),
    "worlds": (
        "world",
        [
            ("corrected: rms; coverage (worst bin); width", f"{{rms:.3f}}; {IN_BINS}; {{range:.3f}}", 0),
            (
                "plain regression: rms; coverage (worst bin); width",
                "{plain_rms:.3f}; {plain_in_range:.3f} ({worst_plain_in_range:.2f}); {plain_width:.3f}", 0,
            ),
            ("PPI++: rms, coverage, width", "{ppi_rms:.3f}, {ppi_covered:.3f}, {ppi_width:.3f}", 0),
            ("gold labels alone: rms", "{gold_rms:.3f}", 0),
        ],
        {f"{name}, 300 gold of 6,000": gold_fractions(n=6000, gold=300, **world)
         for name, world in (DRIFTS | TRENDS).items()}
        | {
            "weights of σ = 1, 300 gold of 5,000": gold_fractions(gold=300, drift=0.3, **WEIGHTED),
            "weights of σ = 1, wave, 500 gold of 5,000": gold_fractions(gold=500, trend="wave", **WEIGHTED),
            "disk fraction 0.02, 300 gold of 5,000": gold_fractions(n=5000, gold=300, disk_fraction=0.02),
            "disk fraction 0.98, 300 gold of 5,000": gold_fractions(n=5000, gold=300, disk_fraction=0.98),
            "300 rows, 100 gold": gold_fractions(n=300, gold=100, drift=0.3),
            "gold labels selected by a column related to class": gold_fractions(n=6000, gold=500, gold_choice=0.7),
            "the same, with this column as covariate": gold_fractions(
                n=6000, gold=500, gold_choice=0.7, covariate=True
            ),
            "two surveys, 300 gold of 6,000": gold_fractions(
                n=6000, gold=300, second_survey=tm.RayleighTransition(20.0), drift=0.3
            ),
            "α with 25 % error, 300 gold of 6,000": gold_fractions(n=6000, gold=300, alpha_error=0.25, drift=0.3),
            "five values of α, rows in the order of class, 300 gold of 6,000": gold_fractions(
                n=6000, gold=300, tied=True, drift=0.3
            ),
        }
        | {
            f"{gold:,} gold of 4,000": gold_fractions(n=4000, gold=gold, drift=0.3)
            for gold in (100, 500, 1000, 3000, 4000)
        },
    ),
    "rejected": (
        "world",
        [("rejected at 1 %", "{found:.2f}", 0)],
        {
            "Weibull flips fitted with Weibull, 300 gold of 6,000": [
                (fit_is_rejected, {"family": "weibull", "n": 6000, "gold": 300})
            ],
            "Fisk flips fitted with Fisk, 300 gold of 6,000": [
                (fit_is_rejected, {"family": "fisk", "n": 6000, "gold": 300})
            ],
        }
        | {
            f"false disks that rise with α from 0 to 0.3, fitted as constant, {gold:,} gold of 6,000": [
                (fit_is_rejected, {"family": "fisk", "rising": 0.3, "n": 6000, "gold": gold})
            ]
            for gold in (500, 2000)
        }
        | {
            f"three classes, {name} fitted with a matrix, 500 gold of 6,000": [
                (fit_is_rejected, {"family": "matrix", "n_classes": 3, "drifting": drifting, "n": 6000, "gold": 500})
            ]
            for name, drifting in (("constant flips", False), ("flips that fall with α", True))
        },
    ),
    "labels_alone": (
        "drift",
        [(f"flips: {name}", f"{IN_RANGE}, {{range:.3f}}", k) for k, name in enumerate(("Rayleigh", "Fisk"))],
        {
            f"{drift:+.2f}": [
                (from_labels, {"family": family, "drift": drift, "n": 12_000}) for family in ("rayleigh", "fisk")
            ]
            for drift in (-0.5, -0.25, 0.0, 0.25, 0.5)
        },
    ),
    "intrinsic_columns": (
        "intrinsic columns",
        [("rms error", "{rms:.3f}", 0), ("in range", IN_RANGE, 0), ("width of range", "{range:.3f}", 0),
         ("within ± 1.96 σ", "{covered:.3f}", 0)],
        {"none (labels alone)": [(from_columns, {"intrinsic": []})]}
        | {", ".join(names): [(from_columns, {"intrinsic": list(names)})] for names in INTRINSIC},
    ),
    "questions": (
        "fraction, world",
        [("rms", "{rms:.3f}", 0), ("gold labels alone: rms", "{gold_rms:.3f}", 0),
         ("coverage (worst bin)", IN_BINS, 0), ("width", "{range:.2f}", 0)],
        {f"bars, {world}": [(answers_from_gold, {"question": "bar", "answer": "bar", "world": world})]
         for world in WORLDS}
        | {"spiral arms, plain": [
            (answers_from_gold, {"question": "spiral", "answer": "spiral arms", "world": "plain"})
        ]},
    ),
    "depth": (
        "log-odds of true disks change by",
        [("scale: coverage", "{covered:.2f}", 0), ("slope: coverage", "{covered:.2f}", 1)]
        + [
            (f"octiles of {by}", f"{{rms:.3f}} ({{gold_rms:.3f}}), {IN_RANGE}, {{worst_in_range:.2f}}", k)
            for by, k in (("α", 2), ("μ", 3))
        ],
        {
            "nothing": with_depth(0.0, 0.0),
            "+0.3 per σ of ln α": with_depth(0.3, 0.0),
            "-0.4 a magnitude": with_depth(0.0, -0.4),
            "both": with_depth(0.3, -0.4),
        },
    ),
    "depth_ignored": (
        "b, change of true disks' log-odds",
        [(head, "{rms:.3f}, {found:.2f}", k) for k, head in enumerate(("labels alone", "300 gold labels"))],
        {
            f"{slope:g}, {'-0.4 a magnitude' if rising else 0}": [
                (through_alpha_alone, {"slope": slope, "rising": rising, "gold": gold}) for gold in (0, 300)
            ]
            for slope, rising in ((0.0, 0.0), (0.0, -0.4), (-0.1, 0.0), (-0.2, 0.0), (-0.35, 0.0))
        },
    ),
}  # fmt: skip


def one(case, seed):
    function, options = case
    try:
        return function(seed=seed, **options)
    except InputError as problem:
        return str(problem)


def numbers(results):
    """Rms of errors, mean of the rest, and of bins the lowest mean."""
    found = {}
    for key in results[0]:
        values = np.array([result[key] for result in results], dtype=float)
        if key.endswith("error"):
            found[key.replace("error", "rms")] = np.sqrt(np.mean(values**2))
        else:
            found[key] = np.nanmean(values)
            found[f"worst_{key}"] = np.nanmean(values, axis=0).min()
    return found


def row(name, columns, cases, draws, pool):
    found, failed = [], []
    for case in cases:
        results = list(pool.map(partial(one, case), range(1000, 1000 + draws)))
        failed += [result for result in results if isinstance(result, str)]
        found.append(numbers([result for result in results if not isinstance(result, str)]))
    if failed:
        name += f" ({len(failed)} left out: {failed[0]})"
    return " | ".join([f"| {name}", *(cell.format(**found[k]) for _, cell, k in columns)]) + " |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--draws", type=int, default=100)
    given = parser.parse_args()
    first, columns, rows = TABLES[given.table]
    print("| " + " | ".join([first, *(head for head, *_ in columns)]) + " |\n|---" + "|---" * len(columns) + "|")
    with ProcessPoolExecutor() as pool:
        for name, cases in rows.items():
            print(row(name, columns, cases, given.draws, pool), flush=True)


if __name__ == "__main__":
    main()
