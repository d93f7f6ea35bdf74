"""A network's predictions beside gold labels: fractions, and classes of single galaxies; tables of docs/statistics.md.

    python benchmarks/predictions.py [DRAWS]

Simulated: 4,000 galaxies, 300 random gold labels, observed labels by the majority of 40 votes that follow θ = 11.25,
and a network with AUC 0.85 (normal logits; they are calibrated but where a world says otherwise). Planned gold labels
are three times as likely for galaxies that are labelled smooth; where people disagree, a tenth of the gold labels,
all of disks, is uncertain.
"""

import sys
from dataclasses import dataclass

import numpy as np
import plain_regression
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from truemorph import RayleighTransition, debiased_fractions, fit_transition, posterior
from truemorph.bias.binning import Bins
from truemorph.questions import log_odds
from truemorph.simulate.annotate import VOLUNTEERS, vote_fractions

N, GOLD, BINS, DISKS = 4_000, 300, 8, 0.65
APART = 1.466  # standard deviations between the classes' logits: AUC 0.85
WORLDS = {
    "T right": {},
    "flips depend on the picture": {"shared": 0.8},
    "network overconfident": {"sharpness": 2.5},
    "narrower definition of gold labels": {"narrower": 0.25},
    "planned gold labels": {"planned": True},
    "people disagree": {"disagreed": 0.1},
}


@dataclass(frozen=True)
class Galaxies:
    """Labels, votes, a network's logits, and the classes that gold labels name."""

    alpha: np.ndarray
    labels: np.ndarray
    votes: np.ndarray
    logits: np.ndarray
    truth: np.ndarray
    gold: np.ndarray
    probability: np.ndarray | None  # of selection for a gold label
    uncertain: np.ndarray  # where people disagree


def galaxies(seed, shared=0.0, sharpness=1.0, narrower=0.0, planned=False, disagreed=0.0):
    """A world: `shared` correlates what volunteers and the network see; `narrower` disks are smooth by gold labels."""
    rng = np.random.default_rng([seed, 50])
    alpha, disk = rng.lognormal(2.6, 0.45, N), (rng.random(N) < DISKS).astype(int)
    seen, noise = rng.normal(size=(2, N))  # how clearly a galaxy shows what it is, and what only the network sees
    fraction = vote_fractions(disk, alpha * np.exp(0.6 * shared * seen), RayleighTransition(11.25), seed)[1]
    counts = np.round(VOLUNTEERS * np.column_stack([1 - fraction, fraction]))
    x = APART * disk + shared * seen + np.sqrt(1 - shared**2) * noise
    logits = sharpness * (APART * x - APART**2 / 2 + logit(DISKS))
    truth = disk * (rng.random(N) >= narrower)
    gold, uncertain = np.full(N, -1), np.zeros(N, dtype=bool)
    labels = (counts[:, 1] > counts[:, 0]).astype(int)
    share = np.where(labels == 0, 3.0, 1.0) if planned else np.ones(N)
    probability = GOLD * share / share.sum()
    chosen = np.flatnonzero(rng.random(N) < probability) if planned else rng.choice(N, GOLD, replace=False)
    gold[chosen] = truth[chosen]
    uncertain[chosen[truth[chosen] == 1][: int(disagreed * GOLD)]] = True
    gold[uncertain] = -1
    votes = log_odds(counts)
    return Galaxies(alpha, labels, votes, logits, truth, gold, probability if planned else None, uncertain)


def regressed(world, *columns):
    """truemorph's regression of gold labels."""
    votes = np.column_stack(columns) if columns else None
    return debiased_fractions(
        world.labels, world.alpha, gold=world.gold, bins=BINS, votes=votes,
        gold_probability=world.probability, gold_uncertain=world.uncertain,
    )  # fmt: skip


def plain(world, *columns):
    """Logistic regression of gold labels by scikit-learn on the same columns, without bin effects."""
    terms = plain_regression.design(world.labels, world.alpha, columns)
    return plain_regression.probabilities(terms, world.gold, np.flatnonzero(world.gold >= 0), 2)


def columns_of(world):
    """Columns beside label and α, by name."""
    return {
        "": (),
        "predictions": (world.logits,),
        "votes": (world.votes,),
        "votes and predictions": (world.votes, world.logits),
    }


def fractions(draws):
    """Rms error over bins of α and coverage of the range."""
    every = {f"{name or 'nothing else'}": (name, {}) for name in columns_of(galaxies(0))}
    every |= {f"votes and predictions; {world}": ("votes and predictions", WORLDS[world]) for world in list(WORLDS)[1:]}
    print("## predictions_fractions")
    print("| 300 gold labels, label, α and | rms; coverage (worst bin) | plain regression |\n|---|---|---|")
    for title, (name, options) in every.items():
        ours, theirs = [], []
        for seed in range(draws):
            world = galaxies(seed, **options)
            cut, columns = Bins.cut(world.alpha, BINS), columns_of(world)[name]
            true = cut.averages(world.truth.astype(float))[0]
            one = regressed(world, *columns)
            inside = (one.low[:, 1] - 1e-9 <= true) & (true <= one.high[:, 1] + 1e-9)
            ours.append((one.fractions[:, 1] - true, inside))
            terms = plain_regression.design(world.labels, world.alpha, columns)
            theirs.append(plain_regression.scores(terms, world.gold, cut, true, seed=seed)[:2])
        cells = []
        for results in (ours, theirs):
            off, inside = (np.array(values) for values in zip(*results, strict=True))
            rms = np.sqrt(np.mean(off**2))
            cells.append(f"{rms:.4f}; {inside.mean():.3f} ({inside.mean(axis=0).min():.2f})")
        print(f"| {title} | {' | '.join(cells)} |")


def single_galaxies(draws):
    """Log-loss of each galaxy's class, against what gold labels would say, for galaxies without one."""
    names = (
        "p of the network", "posterior through T: fractions, label", "posterior through T: network, label",
        *(f"regression: label, α{' and ' if name else ''}{name}" for name in columns_of(galaxies(0))),
        "plain regression: votes and predictions",
    )  # fmt: skip
    print("\n## predictions_galaxies")
    print(f"| log-loss | {' | '.join(WORLDS)} |\n|---{'|---' * len(WORLDS)}|")
    losses = {name: [] for name in names}
    for options in WORLDS.values():
        found = {name: [] for name in names}
        for seed in range(draws):
            world = galaxies(seed, **options)
            fit = fit_transition(world.labels, world.alpha, gold=world.gold, gold_probability=world.probability)
            network = expit(np.column_stack([-world.logits, world.logits]))
            same = np.tile(fit.class_fractions, (N, 1))
            regressions = [regressed(world, *columns).probabilities for columns in columns_of(world).values()]
            every = [
                network, posterior(same, world.labels, world.alpha, fit),
                posterior(network, world.labels, world.alpha, fit), *regressions,
                plain(world, world.votes, world.logits),
            ]  # fmt: skip
            rest = world.gold < 0
            for name, p in zip(names, every, strict=True):
                found[name].append(log_loss(world.truth[rest], np.clip(p[rest, 1], 1e-6, 1 - 1e-6)))
        for name, values in found.items():
            losses[name].append(np.mean(values))
    for name, values in losses.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")


if __name__ == "__main__":
    DRAWS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    fractions(DRAWS)
    single_galaxies(max(DRAWS // 5, 1))
