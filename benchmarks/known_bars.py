"""Bars of known truth, learned through T(α) of paths: tables of docs/validation.md.

    python benchmarks/known_bars.py efigi [SEED ...] | trees [SEEDS] | real

efigi: EFIGI images degraded to random α, with 40 votes that follow a known T of paths, and their majorities.
Predictions are out of fold, for all galaxies. trees: softmax regressions on features from which p(bar) is known, with
the votes of simulated surveys. real: Galaxy Zoo 2's votes for its images. All but trees need ../shared/data.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy.special import logit, softmax

from truemorph import DebiasedLoss, fit_transition
from truemorph.benchmark.bars import ASKED, SHARP, draw_votes, known_transition, make_bar_world
from truemorph.benchmark.methods import benchmark_config, network, of_votes, path_votes
from truemorph.benchmark.worlds import Sizes, World
from truemorph.bias.binning import Bins
from truemorph.bias.likelihood import label_evidence
from truemorph.bias.metrics.scores import balanced_accuracy, calibration_error
from truemorph.catalogs.paths import votes_of_survey
from truemorph.catalogs.physical import FWHM_PER_SIGMA
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.images.store import ImageFiles
from truemorph.questions import Votes
from truemorph.simulate import simulate_survey
from truemorph.simulate.population import ALPHA, ALPHA_SPREAD

SHARED = Path(__file__).parents[2] / "shared" / "data"
PIXELS, EPOCHS, FOLDS = 48, 15, 2
OF_MAJORITIES = 20_000  # simulated galaxies to which T of majority paths is fitted
NO_BAR, BAR = (ASKED.classes.index(one) for one in ("no bar", "bar"))


def out_of_fold(world, labels=None, **observed):
    """p of all classes by networks that did not see a galaxy's label, (N, K); NaN for galaxies of no fold."""
    model, images = network(world, labels, folds=FOLDS, **observed), world.images
    seen = model.seen.filter(pl.col("fold") >= 0)
    rows, fold = seen["object_id"].to_numpy(), seen["fold"].to_numpy()
    p = np.full((len(images), len(ASKED.classes)), np.nan)
    for member in range(FOLDS):
        p[rows[fold == member]] = model.member_probabilities(images[rows[fold == member]], member)
    return p


def fractions(p, alpha, bins):
    """Bar fraction in bins of α."""
    bar, other = (Bins.cut(alpha, bins).averages(p[:, k])[0] for k in (BAR, NO_BAR))
    return bar / (bar + other)


def scores(p, truth, alpha):
    """Rms and mean error of the bar fraction over quartiles of α; of bar given applies: accuracy, calibration."""
    some = np.isfinite(p).all(axis=1)
    off = fractions(p[some], alpha[some], 4) - fractions(np.eye(len(ASKED.classes))[truth], alpha, 4)
    inside = some & (truth >= NO_BAR)
    given, bar = (p[:, BAR] / (p[:, BAR] + p[:, NO_BAR]))[inside], (truth[inside] == BAR).astype(int)
    accuracy = balanced_accuracy(bar, (given > 0.5).astype(int))
    return np.sqrt(np.mean(off**2)), off.mean(), accuracy, calibration_error(bar, given)


def of_majorities(transition):
    """T of paths whose labels are the majority of 40 volunteers who follow T, from many galaxies of known class."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, len(ASKED.classes), OF_MAJORITIES)
    alpha = rng.lognormal(transition.center[0], transition.scale[0], OF_MAJORITIES)
    votes = draw_votes(transition, classes, alpha, 0)
    labels = Votes.of_labels(votes.asked, votes.paths)
    return fit_transition(labels, alpha, gold=classes).transition


def efigi(seeds):
    rows, curve = {}, of_majorities(known_transition())
    for seed in seeds:
        world = make_bar_world("real bars", seed, Sizes(pixels=PIXELS), SHARED)
        world = replace(world, split=np.where(world.split == VALIDATION, VALIDATION, TRAIN))
        world = replace(world, config=benchmark_config(PIXELS, EPOCHS))
        votes = world.votes.counts["bar"]
        cut = np.where((votes.sum(axis=1) >= 10) | (world.split == VALIDATION), world.split, "unused")
        of_labels = label_evidence(curve, world.labels, world.alpha)
        observed = {
            "true classes": {"labels": world.truth},
            "40 votes, through T": {"evidence": of_votes(world, world.transition)},
            "majority paths, through T": {"evidence": of_labels - of_labels.max(axis=1, keepdims=True)},
            "majority paths, naive": {"labels": world.labels},
            "majority of at least 10 votes": {"labels": NO_BAR + (votes[:, 1] > votes[:, 0]), "split": cut},
            "raw counts of votes": {"votes": path_votes(world.votes)},
        }
        for name, learned in observed.items():
            found = scores(out_of_fold(world, **learned), world.truth, world.alpha)
            rows.setdefault(name, []).append(found)
            print(f"seed {seed}: {name:36}", " ".join(f"{value:+.3f}" for value in found), file=sys.stderr)
    accurate = "balanced accuracy of bars, where the question applies"
    print(f"| trained on | rms error of the bar fraction | mean error | {accurate} | calibration error |")
    print("|---|---|---|---|---|")
    for name, values in rows.items():
        (rms, off, accuracy, calibration), spread = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
        cells = f"{rms:.3f} ± {spread[0]:.3f} | {off:+.3f} | {accuracy:.3f} ± {spread[2]:.3f} | {calibration:.3f}"
        print(f"| {name} | {cells} |")


# Simulated trees

GALAXIES, GOLD, NOISE = 20_000, 600, 0.7
TREES = ("plain", "gate by bar", "drift up", "drift down")
DRIFTS = {"drift up": 0.5, "drift down": -0.5}


def regressed(design, size, loss):
    """Minimise a loss of linear functions of the design, shape (N, P) → (N, size); return their values."""
    weights = torch.zeros((design.shape[1], size), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe")

    def step():
        optimiser.zero_grad()
        value = loss(design @ weights)
        value.backward()
        return value

    optimiser.step(step)
    return (design @ weights).detach().numpy()


def dirichlet_multinomial(counts, concentration):
    """Log-likelihood of numbers of votes for the answers to one question, shape (N, A) → (N,)."""
    n, whole = counts.sum(dim=1), concentration.sum(dim=1)
    each = torch.lgamma(counts + concentration) - torch.lgamma(concentration)
    return torch.lgamma(whole) - torch.lgamma(n + whole) + each.sum(dim=1)


def of_zoobot(design, votes):
    """p(bar | asked) of Zoobot's likelihood: Dirichlet-multinomials at each question, with concentrations 1 to 101."""
    counts = torch.tensor(votes.columns, dtype=torch.float64)
    parts = votes.asked.parts

    def loss(values):
        concentration = 1 + 100 * torch.sigmoid(values)
        return -sum(dirichlet_multinomial(counts[:, part], concentration[:, part]) for part in parts).mean()

    concentration = 1 + 100 / (1 + np.exp(-regressed(design, counts.shape[1], loss)))
    disk, face, bar = (concentration[:, part] / concentration[:, part].sum(axis=1, keepdims=True) for part in parts)
    p = np.zeros((len(bar), len(ASKED.classes)))
    p[:, [NO_BAR, BAR]] = bar * (disk[:, 1] * face[:, 1])[:, None]
    return p


def trees(seeds):
    shown = {}
    for world in TREES:
        rows = {}
        for seed in range(seeds):
            galaxies, table = simulate_survey(GALAXIES, seed, world=world, confounded=False)
            votes, _ = votes_of_survey(table, ASKED.tree, "bar", "table")
            votes = replace(votes, asked=ASKED)
            truth = np.array([ASKED.classes.index(one) for one in table["truth_bar"]])
            alpha = galaxies["alpha"].to_numpy()
            u = np.log(alpha / ALPHA) / ALPHA_SPREAD
            # Features that tell as much as an image might: p(class | features) follows from Bayes' theorem.
            hot = np.eye(len(ASKED.classes))
            rng = np.random.default_rng([seed, 16])
            features = hot[truth] + NOISE * rng.normal(size=(GALAXIES, len(hot)))
            prior = np.tile(np.bincount(truth) / GALAXIES, (GALAXIES, 1))
            if world in DRIFTS:
                barred = 1 / (1 + np.exp(-(logit(0.35) + DRIFTS[world] * u)))
                prior[:, [NO_BAR, BAR]] = prior[:, NO_BAR:].sum(axis=1, keepdims=True) * np.column_stack(
                    [1 - barred, barred]
                )
            p = softmax(np.log(prior) + features / NOISE**2, axis=1)
            true = p[:, BAR] / p[:, NO_BAR:].sum(axis=1)
            design = torch.tensor(np.column_stack([np.ones(GALAXIES), u, u**2, features]))
            gold = np.where(np.arange(GALAXIES) < GOLD, truth, -1)
            curve = fit_transition(votes, alpha, gold=gold).transition
            paths, classes = torch.tensor(path_votes(votes)), torch.tensor(truth)
            counted, resolution = torch.tensor(votes.columns, dtype=torch.float64), torch.tensor(alpha)
            through = DebiasedLoss(curve)
            logits = {
                "true classes": lambda one, y=classes: torch.nn.functional.cross_entropy(one, y),
                f"40 votes, through T from {GOLD} gold labels": lambda one, t=through, k=counted, a=resolution: t(
                    one, k, a
                ),
                "raw counts, on paths": lambda one, k=paths: -(k * torch.log_softmax(one, dim=1)).sum(dim=1).mean(),
            }
            found = {name: softmax(regressed(design, len(hot), one), axis=1) for name, one in logits.items()}
            found["raw counts, as Zoobot"] = of_zoobot(design, votes)
            inside = truth >= NO_BAR
            for name, q in found.items():
                given = q[:, BAR] / q[:, NO_BAR:].sum(axis=1)
                off = q[:, BAR].sum() / q[:, NO_BAR:].sum() - np.mean(truth[inside] == BAR)
                rows.setdefault(name, []).append([np.abs(given - true)[inside].mean(), off])
        for name, values in rows.items():
            error, off = np.mean(values, axis=0)
            shown.setdefault(name, []).append(f"{error:.3f} / {off:+.3f}")
    print(f"| trained on | {' | '.join(TREES)} |\n|---" + "|---" * len(TREES) + "|")
    for name, cells in shown.items():
        print(f"| {name} | {' | '.join(cells)} |")


# Galaxy Zoo 2


def gz2_votes(name):
    """Votes of Galaxy Zoo 2 for the question, and the table, of a file."""
    table = pl.read_parquet(SHARED / name)
    votes, _ = votes_of_survey(table, ASKED.tree, "bar", name)
    return replace(votes, asked=ASKED), table


def real():
    """T from Stripe 82 with bars of Nair & Abraham 2010; images of other galaxies of Galaxy Zoo 2, chosen by class."""
    votes, table = gz2_votes("gz2_tree.parquet")
    t_type, ratio, bar, radius, fwhm = (
        table[one].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for one in ("t_type", "axis_ratio", "bar_nair", "petroR90", "psf_fwhm")
    )
    alpha = radius * FWHM_PER_SIGMA / fwhm
    disk = t_type >= -3
    face = disk & (ratio > 0.5)
    gold = np.select([t_type <= -4, disk & (ratio < 0.35), face & (bar == 0), face & (bar > 0)], [0, 1, 2, 3], -1)
    rows = np.flatnonzero((gold >= 0) & np.isfinite(alpha))
    own = replace(votes, counts={name: count[rows] for name, count in votes.counts.items()})
    curve = fit_transition(own, alpha[rows], gold=gold[rows]).transition
    print(
        f"T from {rows.size} galaxies: {np.bincount(gold[rows]).tolist()} of {', '.join(ASKED.classes)}",
        file=sys.stderr,
    )

    votes, table = gz2_votes("gz2_images_tree.parquet")
    listed = pl.read_csv(SHARED / "gz2_images.csv", infer_schema_length=None)
    joined = table.join(listed.select("dr7objid", "image", "petroR90_est"), "dr7objid", maintain_order="left")
    assert joined.height == table.height
    alpha = joined["petroR90_est"].to_numpy() * FWHM_PER_SIGMA / 1.32
    config = benchmark_config(PIXELS, 2 * EPOCHS)
    images, bad = ImageFiles([SHARED / one for one in joined["image"]], config).load()
    assert not bad
    votes = Votes(ASKED, {name: np.rint(count) for name, count in votes.counts.items()})
    n = alpha.size
    world = World(
        "gz2_images",
        "",
        0,
        alpha,
        votes.labels,
        np.empty((n, 0)),
        np.full(n, TRAIN),
        votes=votes,
        images=images,
        training=SHARP,
    )
    held_out = np.random.default_rng(0).random(n) < 0.1
    learned = replace(world, split=np.where(held_out, VALIDATION, TRAIN), config=config)
    k = votes.counts["bar"]
    debiased = [
        joined[f"{one}_debiased"].to_numpy()
        for one in ("t01_smooth_or_features_a02_features_or_disk", "t02_edgeon_a05_no", "t03_bar_a06_bar")
    ]
    many = k.sum(axis=1) >= 10
    soft, none = path_votes(votes), np.zeros((n, 2))
    weight, most = debiased[0] * debiased[1], k[:, 1] > k[:, 0]
    found = {
        "votes, fractions on paths": soft,
        "votes, majority of at least 10": np.column_stack([none, many & ~most, many & most]),
        "debiased votes of Hart et al.": np.column_stack([none, weight * (1 - debiased[2]), weight * debiased[2]]),
        "network on raw counts, out of fold": out_of_fold(learned, votes=soft),
        "network through T, out of fold": out_of_fold(learned, evidence=of_votes(world, curve)),
    }
    some = ~held_out
    print("| bar fraction of | all | thirds of α, lowest first |\n|---|---|---|")
    for name, p in found.items():
        p = np.asarray(p, dtype=float)[some]
        thirds = ", ".join(f"{fraction:.2f}" for fraction in fractions(p, alpha[some], 3))
        print(f"| {name} | {p[:, BAR].sum() / p[:, NO_BAR:].sum():.2f} | {thirds} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *given = sys.argv[1:]
    if what == "efigi":
        efigi([int(one) for one in given] or [0, 1, 2])
    elif what == "trees":
        trees(int(given[0]) if given else 3)
    else:
        real()
