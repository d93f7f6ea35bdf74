"""Errors and ranges in worlds that break usual assumptions: tables of docs/statistics.md.

    python benchmarks/unfriendly_worlds.py TABLE [--draws N]

Simulated catalogues, as in `error_bars.py`: 8 bins of α, and the truth of a bin is the fraction of its own galaxies.
"Before" is what version 0.2 did with the same catalogues.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import polars as pl
from error_bars import BINS, FLIPS, TRENDS, bin_means, row
from scipy.special import expit, logit
from scipy.stats import norm

import truemorph as tm
from truemorph.bias import mixture
from truemorph.bias.binning import Bins
from truemorph.bias.likelihood import label_columns
from truemorph.bias.prior import HeldOut, _of_another_sample, reestimated_fractions
from truemorph.labelling.elsewhere import calibration_findings
from truemorph.simulate import observed_labels, simulate_galaxies
from truemorph.simulate.catalogues import simulate_catalogue

FALSE = 0.03
# Fields per row and column of the sky, and galaxies in all of them together.
SIDE, GALAXIES, GOLD = 10, 6000, 300


@dataclass(frozen=True)
class ExponentialTransition(tm.FlipTransition):
    """A family of one's own: Weibull's with a shape of 1."""

    scale: float
    false_disk: float = 0.0
    family = "exponential"
    free = {"scale": "scale"}  # noqa: RUF012

    def log_flip_probability(self, alpha):
        return -alpha / self.scale


def of_bins(low, high, true, prefix="", fractions=None):
    """Whether ranges hold the true disk fraction, their widths, and errors; of bins, or of one value."""
    low, high, true = map(np.atleast_1d, (low, high, true))
    found = {f"{prefix}in_range": (low <= true + 1e-9) & (true <= high + 1e-9), f"{prefix}range": high - low}
    if fractions is not None:
        error = np.atleast_1d(fractions) - true
        found |= {f"{prefix}error": error, f"{prefix}bias": error}
    return found


def of_fractions(found, true, prefix=""):
    return of_bins(found.low[:, 1], found.high[:, 1], true, prefix, found.fractions[:, 1])


@contextmanager
def before(*, false_labels=True):
    """Ranges from labels alone as they were: of all families, whatever their likelihood, and without false labels."""
    with ExitStack() as changed:
        changed.enter_context(patch.object(mixture, "REJECTED", np.inf))
        if false_labels:
            changed.enter_context(patch.object(mixture, "FALSE_LABELS", 0.0))
        yield


def sky_of_fields(scatter, fields, step, seed, per_side=SIDE, n=GALAXIES, half=False):
    """A catalogue of square fields of 1 degree, every `step` degrees, whose log-odds of disks scatter, and its truth.

    `fields`: how many of them the gold labels come from; 0: they are of random galaxies, of one half of the sky if
    `half`.
    """
    rng = np.random.default_rng(seed)
    field, alpha = rng.integers(per_side**2, size=n), np.exp(2.8 + 0.45 * rng.normal(size=n))
    truth = (rng.random(n) < expit(logit(0.7) + scatter * rng.normal(size=per_side**2)[field])).astype(int)
    labels = observed_labels(truth, alpha, tm.RayleighTransition(11.25, FALSE), seed)
    chosen = np.isin(field, rng.permutation(per_side**2)[:fields]) if fields else field >= half * per_side**2 // 2
    known = np.zeros(n, dtype=bool)
    for one in np.unique(field[chosen]) if fields else [None]:
        inside = np.flatnonzero(field == one if fields else chosen)
        known[rng.permutation(inside)[: GOLD // max(fields, 1)]] = True
    corner = np.stack(np.divmod(field, per_side)) * step + rng.random((2, n))
    table = pl.DataFrame(
        {
            "object_id": np.arange(n), "label": labels, "alpha": alpha, "split": ["train"] * n,
            "ra": 150 + corner[0], "dec": corner[1] - 0.5 * per_side * step,
            "gold": pl.Series(np.where(known, truth, None).tolist(), dtype=pl.Int64),
            "gold_field": [f"field {one}" for one in field],
        }
    )  # fmt: skip
    return table, truth


def gold_in_fields(named=False, **world):
    """Disk fractions of octiles, and findings, from gold labels of a few fields: found by positions, or named."""
    table, truth = sky_of_fields(**world)
    true, _ = bin_means(truth, table["alpha"].to_numpy())
    given = table.drop("ra", "dec") if named else table.drop("gold_field")
    estimate = tm.estimate_transition(given, gold="gold", compare=False)
    without = tm.estimate_transition(table.drop("ra", "dec", "gold_field"), gold="gold", compare=False)
    codes = {finding.code for finding in estimate.findings}
    return {
        **of_fractions(estimate.fractions, true), **of_fractions(without.fractions, true, "before_"),
        **of_bins(*estimate.fraction_range["disk"], truth.mean(), "total_"),
        **of_bins(*without.fraction_range["disk"], truth.mean(), "before_total_"),
        "in_fields": "gold-in-fields" in codes, "in_few": "gold-in-few-fields" in codes,
    }  # fmt: skip


def gold_of_samples(probabilities, fractions, gold, n=GALAXIES, seed=0):
    """Disk fractions of octiles from gold labels of samples, whose probabilities of selection are known.

    Before: probabilities that differ a little within each sample, so that they are not of a few levels.
    """
    rng = np.random.default_rng(seed)
    sample, alpha = rng.integers(len(probabilities), size=n), np.exp(2.8 + 0.45 * rng.normal(size=n))
    truth = (rng.random(n) < np.asarray(fractions)[sample]).astype(int)
    labels = observed_labels(truth, alpha, tm.RayleighTransition(11.25, FALSE), seed)
    chance = np.asarray(probabilities)[sample]
    chance = chance * gold / chance.sum()
    known = np.where(rng.random(n) < chance, truth, -1)
    true, found = bin_means(truth, alpha)[0], {}
    for prefix, p in (("", chance), ("before_", chance * (1 + 1e-6 * rng.normal(size=n)))):
        some = tm.debiased_fractions(labels, alpha, gold=known, gold_probability=p, bins=BINS)
        found |= of_fractions(some, true, prefix)
    return found


def from_labels_in_bins(**world):
    """Disk fraction of octiles and of all galaxies from labels alone, with and without false labels in the ranges."""
    table = simulate_catalogue(n=12_000, **world)
    truth, given = table["truth"].to_numpy(), table.select("object_id", "label", "alpha", "split")
    true, found = bin_means(truth, table["alpha"].to_numpy())[0], {}
    for prefix, change in (("", nullcontext()), ("before_", before())):
        with change:
            estimate = tm.estimate_transition(given, compare=False)
        found |= of_fractions(estimate.fractions, true, prefix)
        found |= of_bins(*estimate.fraction_range["disk"], truth.mean(), f"{prefix}total_")
    return found


def with_errors_of_alpha(error, family, **world):
    """Disk fraction of all galaxies from labels alone, with the error of α given or not; octiles from gold labels."""
    table = simulate_catalogue(transition=FLIPS[family], alpha_error=error, gold=GOLD, **world)
    labels, alpha, truth = (table[name].to_numpy() for name in ("label", "alpha", "truth"))
    found = {}
    for prefix, given in (("", error), ("before_", 0.0)):
        fit = tm.fit_transition(labels, alpha, alpha_error=given)
        found |= of_bins(*fit.fraction_range["disk"], truth.mean(), prefix, fit.class_fractions[1])
    gold = tm.debiased_fractions(labels, alpha, gold=table["gold"].fill_null(-1).to_numpy(), bins=BINS)
    return found | of_fractions(gold, bin_means(truth, alpha)[0], "gold_")


def with_and_without_rejected(truth, *given, **options):
    """Disk fraction of all galaxies from labels alone: ranges without and with the families that labels reject."""
    fits, found, fit_mixture = [], {}, mixture.fit_mixture

    def kept(*arguments):
        fits.append(fit_mixture(*arguments))
        return fits[-1]

    for prefix, change, fitted in (("", nullcontext(), kept), ("before_", before(false_labels=False), fits)):
        with change, patch.object(mixture, "fit_mixture", side_effect=fitted):  # the second time nothing is fitted anew
            fit = tm.fit_transition(*given, **options)
        found |= of_bins(*fit.fraction_range["disk"], truth.mean(), prefix)
    return found


def of_families(family, **world):
    table = simulate_catalogue(transition=FLIPS[family], **world)
    labels, alpha, truth = (table[name].to_numpy() for name in ("label", "alpha", "truth"))
    return with_and_without_rejected(truth, labels, alpha)


def of_own_family(n, intrinsic, seed):
    """The same for a family of one's own that the labels reject, in a population like a survey's."""
    galaxies = simulate_galaxies(n, seed)
    alpha, truth = galaxies["alpha"].to_numpy(), galaxies["truth"].to_numpy()
    labels, columns = observed_labels(truth, alpha, FLIPS["rayleigh"], seed), galaxies.select(intrinsic).to_numpy()
    return with_and_without_rejected(truth, labels, alpha, ExponentialTransition, intrinsic=columns)


def of_a_population(drift=0.3, **world):
    """Disk fractions of octiles from gold labels: of these galaxies, and of the population that they are drawn from."""
    table = simulate_catalogue(drift=drift, **world)
    labels, alpha, truth = (table[name].to_numpy() for name in ("label", "alpha", "truth"))
    found = tm.debiased_fractions(labels, alpha, gold=table["gold"].fill_null(-1).to_numpy(), bins=BINS)
    u = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    of_all = Bins.at(np.exp(2.8 + 0.45 * u), found.edges).averages(expit(logit(0.7) + drift * u))[0]
    of_galaxies = bin_means(truth, alpha)[0]
    _, low, high = found.population[:, :, 1]
    return {
        **of_fractions(found, of_galaxies), **of_bins(low, high, of_all, "population_"),
        **of_fractions(found, of_all, "before_"),
    }  # fmt: skip


def two_samples(factor_held, factor_new, seed, held=3000, new=4000, fractions=(0.7, 0.3)):
    """Held-out galaxies (truth, labels, HeldOut) and new ones (truth, p(y | x)), whose logits are wrong by a factor."""
    rng, both = np.random.default_rng(seed), []
    for n, fraction, factor in zip((held, new), fractions, (factor_held, factor_new), strict=True):
        truth = (rng.random(n) < fraction).astype(int)
        logits = 2 * (rng.normal(size=n) + 2 * truth) - 2 + logit(fractions[0])
        p = expit(logits * factor)
        both.append((truth, np.column_stack([1 - p, p])))
    (truth, p), (true, p_new) = both
    alpha = np.exp(2.8 + 0.45 * rng.normal(size=held))
    labels, curve = observed_labels(truth, alpha, FLIPS["rayleigh"], seed), FLIPS["rayleigh"]
    return truth, labels, HeldOut(p, label_columns(curve, labels, alpha), np.ones(held)), true, p_new


def with_wrong_logits(factor, of_new_only, seed):
    """Re-estimated disk fraction where logits are wrong by a factor; before: without that of held-out galaxies."""
    _, _, held_out, true, p_new = two_samples(1.0 if of_new_only else factor, factor, seed)
    found = {}
    results = {
        "": reestimated_fractions(p_new, held_out),
        "before_": _of_another_sample(p_new, *held_out.fractions(0.0)),
    }
    for prefix, (value, covariance) in results.items():
        error = 1.96 * np.sqrt(covariance[1, 1])
        found |= of_bins(value[1] - error, value[1] + error, true.mean(), prefix, value[1])
    codes = {calibration_finding.code for calibration_finding in calibration_findings(p_new, results[""][0], held_out)}
    return found | {"calibrated": "not-calibrated" in codes, "certain": "certainty-differs" in codes}


def with_estimated_curve(gold, fraction, seed, n=4000):
    """Re-estimated disk fraction of another survey, T(α) from gold labels; before: without the error of T(α)."""
    ours, others = (
        simulate_catalogue(n, gold=gold, seed=seed),
        simulate_catalogue(n, disk_fraction=fraction, seed=seed + 10_000),
    )
    with TemporaryDirectory() as folder:
        curve, model = f"{folder}/curve.json", f"{folder}/model"
        estimate = tm.estimate_transition(ours, gold="gold", out=curve, compare=False)
        settings = {"features": ["covariate"], "folds": 5}
        tm.train_classifier(ours, out=model, transition=curve, preset="dcv14", settings=settings)
        report = tm.label_galaxies(model, others, f"{folder}/labels.parquet")
    disk = next(one for one in report.fractions if one["class"] == "disk")
    value, error, trained = disk["reestimated"], disk["reestimated_stderr"], estimate.fit.class_fractions[1]
    of_curve = estimate.fit.stderr["disk_fraction"] * value * (1 - value) / (trained * (1 - trained))
    found = {}
    for prefix, stderr in (("", error), ("before_", np.sqrt(error**2 - of_curve**2))):
        found |= of_bins(value - 1.96 * stderr, value + 1.96 * stderr, others["truth"].mean(), prefix, value)
    return found


def in_bins(prefix=""):
    return f"{{{prefix}in_range:.3f}} ({{worst_{prefix}in_range:.2f}}); {{{prefix}range:.3f}}"


def of_total(prefix=""):
    return f"{{{prefix}in_range:.2f}}, {{{prefix}range:.3f}}"


def fields_of(name, k, scatter, step=3.0, **options):
    return {name: [(gold_in_fields, {"fields": k, "scatter": scatter, "step": step, **options})]}


DRIFTING = {f"drift {drift:+.1f}": {"drift": drift} for drift in (-0.5, 0.0, 0.5)}
SIX = tuple(0.01 * 2**k for k in range(6))
SIZES = (12_000,)
COVERAGE = "coverage (worst bin); width"
IN_TOTAL = "in range, width"
# Tables: head of the first column; heads of the others, with the format of their cells and which case of a row they
# describe; rows.
TABLES = {
    "gold_fields": (
        "gold labels from, σ of log-odds between fields",
        [(f"rms; {COVERAGE}", "{rms:.3f}; " + in_bins(), 0),
         ("before: the same", "{before_rms:.3f}; " + in_bins("before_"), 0),
         (f"all galaxies: {IN_TOTAL}", of_total("total_"), 0), ("before: the same", of_total("before_total_"), 0),
         ("`gold-in-fields`", "{in_fields:.2f}", 0), ("`gold-in-few-fields`", "{in_few:.2f}", 0)],
        {
            name: case
            for where, step in (("", 3.0), (", side by side", 1.0))
            for k, scatter in ((5, 0.8), (10, 0.5), (5, 0.0), (20, 0.5))
            for name, case in fields_of(f"{k} of 100 fields{where}, {scatter:g}", k, scatter, step).items()
        }
        | fields_of("5 of 100 fields, named, 0.8", 5, 0.8, named=True)
        | fields_of("2 of 16 fields, 0.8", 2, 0.8, per_side=4)
        | fields_of("1 of 16 fields, 0.8", 1, 0.8, per_side=4)
        | fields_of("random galaxies, 0.8", 0, 0.8)
        | fields_of("random galaxies, side by side, 0.8", 0, 0.8, 1.0)
        | fields_of("random galaxies, 0", 0, 0.0)
        | fields_of("random galaxies of one half, side by side, 0.8", 0, 0.8, 1.0, half=True),
    ),
    "gold_levels": (
        "samples",
        [("rms, bias; " + COVERAGE, "{rms:.4f}, {bias:+.3f}; " + in_bins(), 0),
         ("before: the same", "{before_rms:.4f}, {before_bias:+.3f}; " + in_bins("before_"), 0)],
        {
            f"{name} ({labels} gold labels)": [
                (gold_of_samples, {"probabilities": chances, "fractions": fractions, "gold": labels})
            ]
            for name, labels, chances, fractions in (
                ("six, disk fractions 0.1 and 0.9 in turn", 630, SIX, (0.1, 0.9) * 3),
                ("the same", 300, SIX, (0.1, 0.9) * 3),
                ("three, disk fractions 0.5, 0.7 and 0.9", 300, SIX[:3], (0.5, 0.7, 0.9)),
                ("six, disk fraction 0.7 in all", 300, SIX, (0.7,) * 6),
                ("ten, disk fraction 0.7 in all", 100, range(1, 11), (0.7,) * 10),
            )
        },
    ),
    "rare_class": (
        "disk fraction, false disks, drift",
        [(COVERAGE, in_bins(), 0), (f"before: {COVERAGE}", in_bins("before_"), 0),
         ("all galaxies: " + IN_TOTAL, of_total("total_"), 0), ("before: the same", of_total("before_total_"), 0)],
        {
            f"{fraction:g}, {false:g}, {drift:g}": [
                (from_labels_in_bins, {"disk_fraction": fraction, "drift": drift,
                                       "transition": tm.RayleighTransition(11.25, false)})
            ]
            for fraction in (0.08,)
            for drift in (0.0,)
            for false in (FALSE, 0.0)
        },
    ),
    "alpha_errors": (
        "flips, error of α, drift",
        [("labels alone: bias, rms", "{bias:+.3f}, {rms:.3f}", 0), (f"error given: {IN_TOTAL}", of_total(), 0),
         (f"not given (as before): {IN_TOTAL}", of_total("before_"), 0),
         (f"300 gold labels, octiles: rms; {COVERAGE}", "{gold_rms:.3f}; " + in_bins("gold_"), 0)],
        {
            f"{family}, {error:g}, {drift:g}": [
                (with_errors_of_alpha, {"family": family, "error": error, "drift": drift, "n": 12_000})
            ]
            for family in ("rayleigh",)
            for error in (0.1, 0.25)
            for drift in (0.0,)
        },
    ),
    "families_rejected": (
        "flips, world",
        [(f"{n:,} galaxies: {IN_TOTAL}{more}", of_total(prefix), k)
         for k, n in enumerate(SIZES) for prefix, more in (("", ""), ("before_", ", with rejected families"))],
        {
            f"{family}, {name}": [(of_families, {"family": family, "n": n, **world}) for n in SIZES]
            for family in FLIPS
            for name, world in (DRIFTING | TRENDS).items()
        }
        | {
            f"rayleigh, a family of one's own, given {', '.join(names)}": [
                (of_own_family, {"n": n, "intrinsic": list(names)}) for n in SIZES
            ]
            for names in (("radius_kpc", "M_r", "redshift"), ("M_r", "redshift"))
        },
    ),
    "temperature": (
        "factor of the logits",
        [("bias, rms; coverage; width", "{bias:+.3f}, {rms:.3f}; {in_range:.2f}; {range:.3f}", 0),
         ("before: the same", "{before_bias:+.3f}, {before_rms:.3f}; {before_in_range:.2f}; {before_range:.3f}", 0),
         ("`not-calibrated`", "{calibrated:.2f}", 0), ("`certainty-differs`", "{certain:.2f}", 0)],
        {
            f"{factor:g}, {where}": [(with_wrong_logits, {"factor": factor, "of_new_only": only})]
            for where, only in (("held-out and new galaxies", False), ("new galaxies only", True))
            for factor in (0.8, 0.9, 1.0, 1.1, 1.25)
            if factor != 1 or not only
        },
    ),
    "reestimated": (
        "gold labels in training, disk fraction of the other survey (0.7 in training)",
        [("bias, rms; coverage; width", "{bias:+.3f}, {rms:.3f}; {in_range:.2f}; {range:.3f}", 0),
         ("before: the same", "{before_bias:+.3f}, {before_rms:.3f}; {before_in_range:.2f}; {before_range:.3f}", 0)],
        {
            f"{gold}, {fraction:g}": [(with_estimated_curve, {"gold": gold, "fraction": fraction})]
            for gold in (100, 300) for fraction in (0.35, 0.7)
        },
    ),
    "population_errors": (
        "gold labels",
        [(f"these galaxies: {COVERAGE}", in_bins(), 0), (f"the population: {COVERAGE}", in_bins("population_"), 0),
         ("the population, by the range of these galaxies (before)", in_bins("before_"), 0)],
        {
            f"{gold:,} of {n:,}": [(of_a_population, {"gold": gold, "n": n})]
            for gold, n in ((260, 400), (300, 6000), (3000, 4000))
        },
    ),
}  # fmt: skip


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
