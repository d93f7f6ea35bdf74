"""Coverage and width of error bars in simulated catalogues: the numbers of docs/statistics.md.

    python benchmarks/error_bars.py [DRAWS] [CASE ...]

Each line is a mean over simulated catalogues (`truemorph.simulate.simulate_catalogue`; of bars and arms,
`simulate_survey`). The truth of a bin is the fraction of its own galaxies. Run by `make coverage`; two processes, about
fifteen minutes for 100 draws.
"""

import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import polars as pl

import truemorph as tm
from truemorph.bias.binning import Bins
from truemorph.bias.calibration import calibration
from truemorph.bias.diagnostics import ignored_findings
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
BINS = 8


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
    return {
        "error": error, "covered": np.abs(error) < 1.96 * stated, "width": 2 * 1.96 * stated,
        "in range": (low <= true + 1e-9) & (true <= high + 1e-9), "range": high - low,
        "PPI++ error": others[:, 0] - true, "PPI++ covered": np.abs(others[:, 0] - true) < 1.96 * others[:, 1],
        "PPI++ width": 2 * 1.96 * others[:, 1], "gold mean error": others[:, 2] - true,
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
        "in range": [low <= truth.mean() <= high], "range": [high - low],
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


def from_votes(shared, gold=0, n=3000, seed=0):
    """Disk fraction from 40 votes a galaxy; `shared`: all volunteers miss the same disks."""
    _, _, alpha, known, truth = columns(n=n, gold=gold, seed=seed)
    rng = np.random.default_rng([seed, 6])
    flips = FLIPS["rayleigh"].flip_probability(alpha)
    missed = rng.random(n) < flips
    of_disks = np.where(missed, 0.1, 0.85) if shared else 1 - flips
    mean, rho = np.clip(np.where(truth == 1, of_disks, 0.1), 1e-3, 1 - 1e-3), 0.12
    disk = rng.binomial(40, rng.beta(mean * (1 - rho) / rho, (1 - mean) * (1 - rho) / rho))
    votes = np.column_stack([40 - disk, disk])
    fit = tm.fit_transition(votes, alpha, method="votes", gold=known if gold else None)
    return of_fraction(fit, truth) | {"found": [calibration(fit).p_value < 0.01]}


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
        "in range": (found.low <= true + 1e-9) & (true <= found.high + 1e-9), "range": found.high - found.low,
        "gold mean error": of_gold - true,
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
        "in range": (low <= true + 1e-9) & (true <= high + 1e-9), "range": high - low,
        "gold mean error": np.array([truth[p[gold[p] >= 0]].mean() for p in parts]) - true,
    }  # fmt: skip


def through_alpha_alone(least=0.0, **world):
    """Disk fractions in octiles of μ through T(α) of labels or of gold labels, and whether what it ignores is found.

    Only of catalogues in which the rms error exceeds `least`.
    """
    labels, alpha, mu, gold, truth = faint(**world)
    given = {"gold": gold} if world.get("gold") else {}
    fit = tm.fit_transition(labels, alpha, "fisk", delta=None, **given)
    found = tm.debiased_fractions(labels, alpha, fit.transition, by=mu, bins=BINS)
    error = found.fractions[:, 1] - bin_means(truth, mu)[0]
    if np.sqrt(np.mean(error**2)) <= least:
        return f"the error is at most {least}"
    return {"error": error, "found": [len(ignored_findings(fit, {"surface_brightness": mu}))]}


CASES = {}
for family in FLIPS:
    for selected in SELECTED:
        CASES[f"selected, {family}, 300 gold of 5,000 {selected}"] = (
            curve_from_gold, {"family": family, "selected": selected, "n": 5000, "gold": 300}
        )  # fmt: skip
    for drift in (-0.5, 0.0, 0.3, 0.5):
        CASES[f"{family}, drift {drift:+.1f}, 300 gold of 5,000"] = (
            curve_from_gold, {"family": family, "drift": drift, "n": 5000, "gold": 300}
        )  # fmt: skip
    for trend in ("step", "wave"):
        CASES[f"{family}, {trend}, 300 gold of 60,000"] = (
            curve_from_gold, {"family": family, "trend": trend, "n": 60_000, "gold": 300}
        )  # fmt: skip
for gold in (100, 150, 300, 500):
    for name, world in {
        "no drift": {}, "drift -0.5": {"drift": -0.5}, "drift +0.5": {"drift": 0.5}, "step": {"trend": "step"},
        "wave": {"trend": "wave"},
    }.items():  # fmt: skip
        CASES[f"fractions, {name}, {gold} gold of 6,000"] = (fractions_from_gold, {"n": 6000, "gold": gold, **world})
CASES |= {
    "fractions, weights of σ = 1, 300 gold of 5,000": (
        fractions_from_gold, {"n": 5000, "gold": 300, "weight_scatter": 1.0, "weighted": True, "drift": 0.3}
    ),
    "fractions, weights of σ = 1, wave, 500 gold of 5,000": (
        fractions_from_gold, {"n": 5000, "gold": 500, "weight_scatter": 1.0, "weighted": True, "trend": "wave"}
    ),
    "fractions, disk fraction 0.02, 300 gold of 5,000": (
        fractions_from_gold, {"n": 5000, "gold": 300, "disk_fraction": 0.02}
    ),
    "fractions, disk fraction 0.98, 300 gold of 5,000": (
        fractions_from_gold, {"n": 5000, "gold": 300, "disk_fraction": 0.98}
    ),
    "fractions, 300 rows, 100 gold": (fractions_from_gold, {"n": 300, "gold": 100, "drift": 0.3}),
    "fractions, gold labels selected by a column related to class": (
        fractions_from_gold, {"n": 6000, "gold": 500, "gold_choice": 0.7}
    ),
    "fractions, the same, with this column as covariate": (
        fractions_from_gold, {"n": 6000, "gold": 500, "gold_choice": 0.7, "covariate": True}
    ),
    "fractions, two surveys, 300 gold of 6,000": (
        fractions_from_gold, {"n": 6000, "gold": 300, "second_survey": tm.RayleighTransition(20.0), "drift": 0.3}
    ),
    "fractions, α with 25 % error, 300 gold of 6,000": (
        fractions_from_gold, {"n": 6000, "gold": 300, "alpha_error": 0.25, "drift": 0.3}
    ),
}  # fmt: skip
CASES |= {
    "tied, five values of α, rows in the order of class, 300 gold of 6,000": (
        fractions_from_gold, {"n": 6000, "gold": 300, "tied": True, "drift": 0.3}
    ),
    "rejected, weibull flips fitted with weibull, 300 gold of 6,000": (
        fit_is_rejected, {"family": "weibull", "n": 6000, "gold": 300}
    ),
    "rejected, fisk flips fitted with fisk, 300 gold of 6,000": (
        fit_is_rejected, {"family": "fisk", "n": 6000, "gold": 300}
    ),
    "rejected, rising false disks (0 to 0.3), fisk, 500 gold of 6,000": (
        fit_is_rejected, {"family": "fisk", "rising": 0.3, "n": 6000, "gold": 500}
    ),
    "rejected, rising false disks (0 to 0.3), fisk, 2,000 gold of 6,000": (
        fit_is_rejected, {"family": "fisk", "rising": 0.3, "n": 6000, "gold": 2000}
    ),
    "rejected, three classes, constant flips fitted with a matrix, 500 gold of 6,000": (
        fit_is_rejected, {"family": "matrix", "n_classes": 3, "n": 6000, "gold": 500}
    ),
    "rejected, three classes, flips that fall with α fitted with a matrix, 500 gold of 6,000": (
        fit_is_rejected, {"family": "matrix", "n_classes": 3, "drifting": True, "n": 6000, "gold": 500}
    ),
    "votes, independent, 300 gold of 3,000": (from_votes, {"shared": False, "gold": 300}),
    "votes, shared misses, 300 gold of 3,000": (from_votes, {"shared": True, "gold": 300}),
    "votes, shared misses, no gold": (from_votes, {"shared": True}),
}  # fmt: skip
for gold in (100, 500, 1000, 3000, 4000):
    CASES[f"more gold: {gold:,} of 4,000"] = (fractions_from_gold, {"n": 4000, "gold": gold, "drift": 0.3})
for family in ("rayleigh", "fisk"):
    for drift in (-0.5, -0.25, 0.0, 0.25, 0.5):
        CASES[f"labels alone, {family}, drift {drift:+.2f}"] = (
            from_labels, {"family": family, "drift": drift, "n": 12_000}
        )  # fmt: skip
for intrinsic in ([], ["radius_kpc", "M_r", "redshift"], ["M_r", "redshift"], ["M_r"], ["axis_ratio"]):
    CASES[f"columns {', '.join(intrinsic) or 'none'}"] = (from_columns, {"intrinsic": intrinsic})
for world in WORLDS:
    CASES[f"bars, {world}, 300 gold of 4,000"] = (
        answers_from_gold, {"question": "bar", "answer": "bar", "world": world}
    )  # fmt: skip
CASES["arms, plain, 300 gold of 4,000"] = (
    answers_from_gold, {"question": "spiral", "answer": "spiral arms", "world": "plain"}
)  # fmt: skip

for drift, rising in ((0.0, 0.0), (0.3, 0.0), (0.0, -0.4), (0.3, -0.4)):
    world = {"drift": drift, "rising": rising, "gold": 300}
    name = f"drift {drift:+.1f}, {rising:+.1f} a magnitude, 300 gold of 6,000"
    CASES |= {f"depth, {one}, {name}": (curve_with_depth, {"name": one, **world}) for one in ("scale", "slope of mu")}
    CASES |= {f"depth, by {by}, {name}": (fractions_with_depth, {"by": by, **world}) for by in ("alpha", "mu")}
for slope in (0.0, -0.1, -0.2, -0.35):
    for gold in (0, 300):
        for rising in (0.0, -0.4) if slope == 0 and gold else (0.0,):
            CASES[f"depth ignored, slope {slope:+.2f}, {rising:+.1f} a magnitude, {gold} gold of 6,000"] = (
                through_alpha_alone,
                {"slope": slope, "gold": gold, "rising": rising, "least": 0.05 if slope else 0.0},
            )


def one(job):
    name, seed = job
    function, options = CASES[name]
    try:
        return function(seed=seed, **options)
    except InputError as problem:
        return str(problem)


def line(name, results):
    """One row of the table."""
    failed = [found for found in results if isinstance(found, str)]
    kept = [found for found in results if not isinstance(found, str)]
    values = {key: np.array([found[key] for found in kept], dtype=float) for key in (kept[0] if kept else ())}

    def rms(key):
        return f"{np.sqrt(np.mean(values[key] ** 2)):.4f}" if key in values else ""

    def mean(key):
        return f"{np.mean(values[key]):.3f}" if key in values else ""

    def worst(key):
        return f"{values[key].mean(axis=0).min():.2f}" if key in values and values[key].shape[1] > 1 else ""

    rival = ", ".join(one for one in (rms("PPI++ error"), mean("PPI++ covered"), mean("PPI++ width")) if one)
    cells = [
        name + (f" ({len(failed)} failed: {failed[0]})" if failed else ""),
        rms("error"), mean("covered"), worst("covered"), mean("width"),
        mean("in range"), worst("in range"), mean("range"), rival, rms("gold mean error"), mean("found"),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main():
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    chosen = [name for name in CASES if not sys.argv[2:] or any(part in name for part in sys.argv[2:])]
    heads = ["case", "rms", "covered", "worst bin", "width", "in range", "worst bin", "width of range"]
    heads += ["PPI++: rms, covered, width", "gold mean: rms", "fit rejected"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    with ProcessPoolExecutor(2) as pool:
        for name in chosen:
            print(line(name, list(pool.map(one, [(name, 1000 + seed) for seed in range(draws)]))), flush=True)


if __name__ == "__main__":
    main()
