"""Corrected disk fractions of real galaxies vs experts' types: the tables of docs/statistics.md.

    python benchmarks/real_galaxies.py gz1|gz2|covariates|ferengi

Needs ../shared/data. Rms error over octiles of α (quartiles for GZ2, with errors by a bootstrap over galaxies), and the
number of them inside the range.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_regression
import polars as pl

from truemorph.bias.binning import Bins
from truemorph.bias.fitting import fit_transition
from truemorph.bias.fractions import debiased_fractions, fractions_in_bins
from truemorph.catalogs.selected import SampleOptions, rows_of
from truemorph.commands.prepare import prepare_catalogue

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
DRAWS, GOLD, COVARIATE_DRAWS, RESAMPLES = 20, 500, 200, 100
DEFINITIONS = {"T ≥ -3": -3, "T ≥ 1": 1}


def by_bin(values, alpha, bins):
    return np.array([values[part].mean() for part in np.array_split(np.argsort(alpha, kind="stable"), bins)])


def judge(found, truth):
    rms = np.sqrt(np.mean((found.fractions[:, 1] - truth) ** 2))
    return rms, int(np.sum((found.low[:, 1] <= truth) & (truth <= found.high[:, 1])))


def cell(rms, covered, of):
    return f"{rms:.3f} ({covered:.1f}/{of})" if isinstance(covered, float) else f"{rms:.3f} ({covered}/{of})"


def experts():
    frame = pl.read_csv(DATA / "expert_vs_crowd.csv")
    labels, t_type = frame["gz1_spiral"].to_numpy(), frame["t_type"].to_numpy()
    alpha = frame["petroR90_g"].to_numpy() / (1.32 / 2.3548)
    axis_ratio, uncertain = frame["axis_ratio"].to_numpy(), frame["gz1_uncertain"].to_numpy()
    truths = {name: (t_type >= least).astype(int) for name, least in DEFINITIONS.items()}
    binned = {name: by_bin(truth, alpha, 8) for name, truth in truths.items()}
    print(f"| {labels.size:,} galaxies | " + " | ".join(truths) + " |\n|---|" + "---|" * len(truths))
    flat = {name: np.sqrt(np.mean((by_bin(labels, alpha, 8) - one) ** 2)) for name, one in binned.items()}
    print("| observed labels | " + " | ".join(f"{value:.3f}" for value in flat.values()) + " |")
    for family in ("rayleigh", "weibull", "fisk", "monotone"):
        for what, options in (("labels alone", {}), ("labels and axis ratio", {"intrinsic": axis_ratio})):
            found = debiased_fractions(labels, alpha, fit_transition(labels, alpha, family, **options))
            print(f"| {family}, {what} | " + " | ".join(cell(*judge(found, one), 8) for one in binned.values()) + " |")
    for family in ("rayleigh", "weibull", "fisk", "monotone"):
        cells = []
        for name, truth in truths.items():
            fit = fit_transition(labels, alpha, family, gold=truth)
            found = debiased_fractions(labels, alpha, fit)
            cells.append(f"{cell(*judge(found, binned[name]), 8)}, {fit.log_likelihood:.1f}")
        print(f"| {family}, all types as gold labels, T(α) inverted; log-likelihood | " + " | ".join(cells) + " |")
    rows = {"500 types, `debiased_fractions(gold=)`": {}, "the same, with uncertain flag and axis ratio": {}}
    for family in ("rayleigh", "weibull", "fisk"):
        rows[f"{family} fitted to 500 types, T(α) inverted"] = {}
    rows["500 types alone"] = {}
    for name, truth in truths.items():
        for seed in range(DRAWS):
            known = np.random.default_rng(seed).choice(labels.size, GOLD, replace=False)
            gold = np.full(labels.size, -1)
            gold[known] = truth[known]
            plain = debiased_fractions(labels, alpha, gold=gold)
            columns = np.column_stack([uncertain, axis_ratio])
            helped = debiased_fractions(labels, alpha, gold=gold, covariates=columns)
            results = [judge(plain, binned[name]), judge(helped, binned[name])]
            for family in ("rayleigh", "weibull", "fisk"):
                fit = fit_transition(labels, alpha, family, gold=gold)
                results.append(judge(debiased_fractions(labels, alpha, fit), binned[name]))
            parts = np.array_split(np.argsort(alpha, kind="stable"), 8)
            alone = np.array([truth[p][np.isin(p, known)].mean() for p in parts])
            results.append((np.sqrt(np.mean((alone - binned[name]) ** 2)), 0))
            for row, result in zip(rows.values(), results, strict=True):
                row.setdefault(name, []).append(result)
    for label, row in rows.items():
        cells = []
        for results in row.values():
            rms, covered = np.mean(results, axis=0)
            cells.append(f"{rms:.3f}" if label == "500 types alone" else cell(rms, float(covered), 8))
        print(f"| {label}, mean of {DRAWS} draws | " + " | ".join(cells) + " |")


def rms_of(labels, hart, alpha, known):
    """Errors of labels, Hart et al.'s, ours from labels alone and with half of the types; and ours inside ranges.

    `known` is 1 for disks and 0 for others by type, -1 without a type.
    """
    typed = known >= 0
    truth, at = known[typed], alpha[typed]
    true = by_bin(truth, at, 4)
    gold = np.where(np.random.default_rng(0).random(truth.size) < 0.5, truth, -1)
    ours = judge(debiased_fractions(labels[typed], at, fit_transition(labels, alpha), bins=4), true)
    with_gold = judge(debiased_fractions(labels[typed], at, bins=4, gold=gold), true)
    others = [np.sqrt(np.mean((by_bin(one[typed], at, 4) - true) ** 2)) for one in (labels, hart)]
    return [*others, ours[0], with_gold[0]], (ours[1], with_gold[1])


def votes():
    table = pl.read_csv(DATA / "gz2_votes.csv", infer_schema_length=None)
    heads = ["source (galaxies)", "with type", "θ from labels", "observed labels", "Hart et al. 2016", "labels alone"]
    print("| " + " | ".join([*heads, "half of the types as gold labels"]) + " |")
    print("|---|---|---|---|---|---|---|")
    for (source,), part in table.group_by("source", maintain_order=True):
        part = part.filter(pl.col("petroR90").is_not_null() & pl.col("psf_fwhm").is_not_null())
        labels = (part["t01_smooth_or_features_a01_smooth_weighted_fraction"].to_numpy() < 0.5).astype(int)
        hart = (part["t01_smooth_or_features_a01_smooth_debiased"].to_numpy() < 0.5).astype(int)
        alpha = (part["petroR90"] / (part["psf_fwhm"] / 2.3548)).to_numpy()
        t_type = part["t_type"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        fit = fit_transition(labels, alpha)
        theta = f"{fit.values['theta']:.2f} ± {fit.stderr['theta']:.2f}"
        typed = np.isfinite(t_type)
        if typed.sum() < 150:
            print(f"| {source} ({labels.size}) | {typed.sum()} | {theta} | too few types | | | |")
            continue
        table = labels, hart, alpha, np.where(typed, t_type >= -3, -1)
        rng, n = np.random.default_rng(1), labels.size
        values, inside = rms_of(*table)
        drawn = (rng.integers(0, n, n) for _ in range(RESAMPLES))
        errors = np.std([rms_of(*(column[rows] for column in table))[0] for rows in drawn], axis=0)
        cells = [f"{value:.3f} ± {error:.3f}" for value, error in zip(values, errors, strict=True)]
        cells[2:] = [f"{one} ({k}/4)" for one, k in zip(cells[2:], inside, strict=True)]
        print(f"| {source} ({labels.size}) | {typed.sum()} | {theta} | {' | '.join(cells)} |", flush=True)


def covariates():
    """Gold labels of random galaxies with types, with and without votes as covariates, as `transition` takes them."""
    prepared = {
        "Stripe 82, each question": ("gz2_tree.parquet", {"psf_fwhm": "psf_fwhm"}, ()),
        "Stripe 82 coadds": ("gz2_votes.csv", {}, ["source=S82coadd"]),
    }
    print(
        "| galaxies | definition | gold labels | labels alone as covariates | and votes | plain regression |\n"
        "|---|---|---|---|---|---|"
    )
    for name, (file, options, where) in prepared.items():
        catalogue = prepare_catalogue(DATA / file, radius="petroR90", **options).catalogue
        for definition, least in DEFINITIONS.items():
            sample, _ = rows_of(catalogue, SampleOptions(gold=f"t_type >= {least}", where=where))
            known = np.flatnonzero(sample.known)
            typed = sample.take(known)
            cut = Bins.cut(typed.alpha, 8, typed.weights)
            true = cut.averages((typed.gold == 1).astype(float))[0]
            for number in (150, 300):
                found, plain = {False: [], True: []}, []
                terms = plain_regression.design(typed.labels, typed.alpha, (typed.log_odds,))
                for seed in range(COVARIATE_DRAWS):
                    gold = np.full(known.size, -1)
                    chosen = np.random.default_rng(seed).choice(known.size, number, replace=False)
                    gold[chosen] = typed.gold[chosen]
                    plain.append(plain_regression.scores(terms, gold, cut, true, seed=seed)[:2])
                    for with_votes, draws in found.items():
                        drawn = replace(typed, gold=gold, log_odds=typed.log_odds if with_votes else None)
                        one = fractions_in_bins(drawn, None, bins=8, seed=seed)
                        inside = (one.low[:, 1] - 1e-9 <= true) & (true <= one.high[:, 1] + 1e-9)
                        draws.append((one.fractions[:, 1] - true, inside))
                cells = []
                for draws in (*found.values(), plain):
                    off, inside = (np.array(values) for values in zip(*draws, strict=True))
                    covered = f"{inside.mean():.3f} ({inside.mean(axis=0).min():.2f})"
                    cells.append(f"{np.sqrt(np.mean(off**2)):.4f}; {covered}")
                print(f"| {name} ({known.size}) | {definition} | {number} | {' | '.join(cells)} |")


def ferengi():
    from astropy.cosmology import WMAP9

    from truemorph.bias.checks.diagnostics import compare_families

    table = pl.read_csv(DATA / "ferengi.csv")
    near = table.filter(pl.col("sim_redshift") < 0.31).select(
        "sdss_id", "sim_evolution", gold=(pl.col("p_features") > 0.5).cast(pl.Int64)
    )
    pairs = table.filter(pl.col("sim_redshift") > 0.31).join(near, on=["sdss_id", "sim_evolution"], how="inner")
    distance = WMAP9.angular_diameter_distance([0.3, *pairs["sim_redshift"].to_list()]).value
    found = compare_families(
        (pairs["p_features"].to_numpy() > 0.5).astype(int),
        distance[0] / distance[1:],
        ("rayleigh", "weibull", "fisk", "monotone"),
        gold=pairs["gold"].to_numpy(),
    )
    print(f"| {pairs.height:,} images, family | log-likelihood | AIC above best | parameters |\n|---|---|---|---|")
    for row in found.rows():
        values = ", ".join(f"{k} {v:.3f} ± {row['stderr'][k]:.3f}" for k, v in list(row["values"].items())[:3])
        print(f"| {row['family']} | {row['log_likelihood']:.1f} | {row['delta_aic']:.1f} | {values} |")


if __name__ == "__main__":
    {"gz1": experts, "gz2": votes, "covariates": covariates, "ferengi": ferengi}[sys.argv[1]]()
