"""The contestants: each takes a world's training galaxies, labels and columns, and says what it predicts from pixels.

None but `truth` (and `gold`, for 300 galaxies) sees a true class; none sees the test galaxies' labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from truemorph.benchmark.baselines import constant_transition, matched_fractions, pruned_rows, regressed_evidence
from truemorph.benchmark.workbench import BATCH, Workbench, probabilities
from truemorph.benchmark.worlds import CURVES, World, catalogue_features, gold_classes
from truemorph.bias.diagnostics import compare_families
from truemorph.bias.estimation import fit_transition
from truemorph.bias.transitions import Transition
from truemorph.catalogs.sampling import TEST, TRAIN, VALIDATION
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.config import TrainingConfig, training_config
from truemorph.images.degrade import degrade
from truemorph.simulate.annotate import VOLUNTEERS, vote_fraction_evidence

_PER_BIN = 64  # galaxies in each of the paper's bins
_TWIN_LEVELS = 6

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass
class Outcome:
    """What a method learned.

    Attributes
    ----------
    predict : callable or None
        Pixels (M, S, S, 3) to p(disk), shape (M,); None where a method only has labels.
    labels : array, shape (N,), or None
        Labels of all galaxies, where it has no more.
    transition : Transition or None
        T(α) it trained through.
    said : dict
        What to keep beside the scores.
    """

    predict: Predict | None = None
    labels: np.ndarray | None = None
    transition: Transition | None = None
    said: dict[str, Any] = field(default_factory=dict)


def _trained(bench: Workbench, labels: np.ndarray, transition: Transition | None = None, **options: Any) -> Outcome:
    model = bench.network(labels, transition, **options)
    return Outcome(lambda images: probabilities(model, images), None, transition)


def _learning(world: World) -> np.ndarray:
    """Rows that a method may learn from."""
    return world.rows(TRAIN, VALIDATION)


def as_labelled(bench: Workbench) -> Outcome:
    """The labels as they were given."""
    return Outcome(labels=bench.world.labels)


def naive(bench: Workbench) -> Outcome:
    """Trained on labels taken at their word."""
    return _trained(bench, bench.world.labels)


def constant(bench: Workbench) -> Outcome:
    """Forward correction with one flip rate for all α."""
    world, rows = bench.world, _learning(bench.world)
    return _trained(bench, world.labels, constant_transition(world.labels[rows], world.alpha[rows]))


def undoubted(bench: Workbench) -> np.ndarray:
    """Galaxies whose label cleanlab doesn't doubt, from naive networks of three folds, shape (N,)."""
    world = bench.world
    folded = bench.network(world.labels, folds=3)
    began = time.process_time()
    seen = folded.seen.filter(pl.col("fold") >= 0)
    rows, fold = seen["object_id"].to_numpy(), seen["fold"].to_numpy()
    p = np.empty((rows.size, 2))
    for member in range(3):
        asked = np.flatnonzero(fold == member)
        for part in np.array_split(asked, max(1, asked.size // BATCH)):
            p[part] = folded.member_probabilities(np.asarray(world.images[rows[part]]), member)
    kept = np.ones(world.alpha.size, bool)
    kept[rows] = pruned_rows(world.labels[rows], p)
    bench.clock(began)
    return kept


def pruned(bench: Workbench) -> Outcome:
    """Labels that cleanlab doubts are dropped, then naive training."""
    kept = undoubted(bench)
    outcome = _trained(bench, bench.world.labels, kept=kept)
    outcome.said = {"dropped": int((~kept).sum())}
    return outcome


def matched(bench: Workbench) -> Outcome:
    """Vote fractions matched to the best resolved, then naive training on their majorities."""
    world, rows = bench.world, _learning(bench.world)
    labels = world.labels.copy()
    labels[rows] = matched_fractions(world.vote_fraction[rows], world.alpha[rows], world.intrinsic[rows]) > 0.5
    return _trained(bench, labels)


def dcv14(bench: Workbench) -> Outcome:
    """Logistic regression on shapes measured on the pictures, θ by EM."""
    world, rows = bench.world, _learning(bench.world)
    began = time.process_time()
    model = DebiasedLogisticRegression().fit(world.features[rows], world.labels[rows], alpha=world.alpha[rows])
    bench.clock(began)
    return Outcome(
        lambda images: model.predict_proba(catalogue_features(np.asarray(images)))[:, 1], None, model.transition_
    )


def papers_theta(bench: Workbench) -> Outcome:
    """DDB: θ by the paper's bins of 64 galaxies, from labels alone."""
    world, rows = bench.world, _learning(bench.world)
    began = time.process_time()
    fit = fit_transition(world.labels[rows], world.alpha[rows], method="binned", bins=rows.size // _PER_BIN)
    bench.clock(began)
    return _trained(bench, world.labels, fit.transition)


def conditional(bench: Workbench) -> Outcome:
    """DDB: T(α) from labels and intrinsic properties, family by AIC."""
    world, rows = bench.world, _learning(bench.world)
    began = time.process_time()
    found = compare_families(world.labels[rows], world.alpha[rows], CURVES, intrinsic=world.intrinsic[rows])
    bench.clock(began)
    outcome = _trained(bench, world.labels, found.fits[found.best].transition)
    outcome.said = {"family": found.best, "findings": [one.to_dict() for one in found.fits[found.best].findings]}
    return outcome


def gold_labels(world: World) -> np.ndarray:
    """True classes of 300 random training galaxies (half of them where there are few), -1 elsewhere, shape (N,)."""
    return gold_classes(world.truth, world.rows(TRAIN), world.seed)


def with_gold(bench: Workbench) -> Outcome:
    """DDB: T(α) from 300 gold labels beside the others, family by AIC."""
    world, rows = bench.world, _learning(bench.world)
    began = time.process_time()
    found = compare_families(
        world.labels[rows], world.alpha[rows], CURVES, gold=gold_labels(world)[rows], seed=world.seed
    )
    bench.clock(began)
    outcome = _trained(bench, world.labels, found.fits[found.best].transition)
    outcome.said = {"family": found.best}
    return outcome


def right(bench: Workbench) -> Outcome:
    """DDB: the T(α) that labels really followed."""
    return _trained(bench, bench.world.labels, bench.world.transition)


def right_votes(bench: Workbench) -> Outcome:
    """DDB: what votes mean is known, not only how their majorities flip."""
    world = bench.world
    assert world.transition is not None
    began = time.process_time()
    evidence = vote_fraction_evidence(world.vote_fraction, world.alpha, world.transition)
    bench.clock(began)
    return _trained(bench, world.labels, None, evidence=evidence - evidence.max(axis=1, keepdims=True))


def right_copies(bench: Workbench) -> Outcome:
    """DDB: the right T(α), and of each picture a copy degraded further with the same label.

    A label flips as α of the picture that was labelled says, so a copy keeps label and α: what is learned of a disk at
    its own resolution is learned at lower ones too.
    """
    world, rows = bench.world, bench.world.rows(TRAIN)
    began = time.process_time()
    copies = _degraded_further(world, rows, np.random.default_rng([world.seed, 14]))
    bench.clock(began)
    return _trained(bench, world.labels, world.transition, extra=(copies, rows))


def _degraded_further(world: World, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures of some galaxies at α divided by 1 to 2.5."""
    lower = world.alpha[rows] / rng.uniform(1, 2.5, rows.size)
    return degrade(np.asarray(world.images[rows]), world.alpha[rows], lower, world.radius[rows], world.seed)


def _counts(world: World) -> np.ndarray:
    """Votes for smooth and disk, as of 40 volunteers, shape (N, 2)."""
    disk = np.rint(VOLUNTEERS * world.vote_fraction).astype(np.int64)
    return np.column_stack([VOLUNTEERS - disk, disk])


def with_votes(bench: Workbench) -> Outcome:
    """DDB on vote counts: beta-binomial in a class, fitted to all votes alone, family by AIC."""
    world, rows = bench.world, _learning(bench.world)
    began = time.process_time()
    counts = _counts(world)
    found = compare_families(counts[rows], world.alpha[rows], CURVES, method="votes", seed=world.seed)
    model = found.fits[found.best].votes
    assert model is not None
    evidence = model.log_probabilities(counts, world.alpha)
    bench.clock(began)
    outcome = _trained(bench, world.labels, None, evidence=evidence)
    outcome.said = {"family": found.best, "overdispersion": model.overdispersion.tolist()}
    return outcome


def with_gold_and_votes(bench: Workbench) -> Outcome:
    """DDB on votes, what they mean regressed on 300 gold labels; gold galaxies count as known."""
    world = bench.world
    began = time.process_time()
    gold = gold_labels(world)
    evidence = regressed_evidence(world.vote_fraction, world.alpha, world.intrinsic, gold)
    known = np.flatnonzero(gold >= 0)
    evidence[known] = -np.inf
    evidence[known, gold[known]] = 0.0
    bench.clock(began)
    return _trained(bench, world.labels, None, evidence=evidence)


def twin_transition(bench: Workbench) -> Transition:
    """T(α) from degraded twins of well-resolved galaxies, labelled by an emulator of the crowd (science: section 8).

    The naive network stands for the crowd; galaxies in the upper quarter of α keep their label as trusted; their
    pictures, degraded to six lower α, are labelled by the network.
    """
    world = bench.world
    emulator = bench.network(world.labels)
    began = time.process_time()
    rows = world.rows(TRAIN)
    lowest, best = np.quantile(world.alpha[rows], [0.02, 0.75])
    sharp = rows[world.alpha[rows] >= best]
    rng = np.random.default_rng([world.seed, 10])
    observed, alphas, trusted = [], [], []
    for level in np.geomspace(lowest, best, _TWIN_LEVELS):
        seed = int(rng.integers(2**31))
        pictures = degrade(
            np.asarray(world.images[sharp]), world.alpha[sharp], np.full(sharp.size, level), world.radius[sharp], seed
        )
        p = probabilities(emulator, pictures)
        observed.append((rng.random(sharp.size) < p).astype(np.int64))
        alphas.append(np.full(sharp.size, level))
        trusted.append(world.labels[sharp])
    # Twins trust their galaxy's label, which at α of the upper quarter flips seldom.
    found = compare_families(
        np.concatenate(observed), np.concatenate(alphas), CURVES, gold=np.concatenate(trusted),
        false_disk=0.0 if not np.any((np.concatenate(trusted) == 0) & (np.concatenate(observed) == 1)) else "fit",
    )  # fmt: skip
    bench.clock(began)
    return found.fits[found.best].transition


def twins(bench: Workbench) -> Outcome:
    """DDB: T(α) from degraded twins, half of the pictures degraded further, labels and α as they were."""
    world = bench.world
    transition = twin_transition(bench)
    began = time.process_time()
    rows = world.rows(TRAIN)
    rng = np.random.default_rng([world.seed, 11])
    half = np.sort(rng.choice(rows, rows.size // 2, replace=False))
    copies = _degraded_further(world, half, rng)
    bench.clock(began)
    left = np.ones(world.alpha.size, bool)
    left[half] = False
    return _trained(bench, world.labels, transition, kept=left, extra=(copies, half))


def truth(bench: Workbench) -> Outcome:
    """Trained on the true classes: what there is to be had."""
    return _trained(bench, bench.world.truth)


@dataclass(frozen=True)
class Method:
    """A contestant: its name in tables, what it does, and which version of that (raised to void older results)."""

    title: str
    run: Callable[[Workbench], Outcome]
    version: int = 1
    knows_transition: bool = False  # it needs a world whose T(α) somebody knows


METHODS: dict[str, Method] = {
    "labels": Method("labels as given", as_labelled),
    "naive": Method("naive training", naive),
    "constant": Method("constant flip rate", constant),
    "cleanlab": Method("cleanlab, then naive", pruned),
    "matching": Method("vote-fraction matching, then naive", matched),
    "dcv14": Method("DCV14 on measured shapes", dcv14),
    "ddb-paper": Method("DDB, paper's θ", papers_theta),
    "ddb-conditional": Method("DDB, conditional T(α)", conditional),
    "ddb-gold": Method("DDB, T(α) from 300 gold labels", with_gold),
    "ddb-votes": Method("DDB on vote counts", with_votes),
    "ddb-gold-votes": Method("DDB on votes and 300 gold labels", with_gold_and_votes),
    "ddb-twins": Method("DDB, T(α) and training from twins", twins),
    "ddb-right": Method("DDB, right T(α)", right, knows_transition=True),
    "ddb-right-copies": Method("DDB, right T(α), degraded copies beside", right_copies, knows_transition=True),
    "ddb-right-votes": Method("DDB, right model of votes", right_votes, knows_transition=True),
    "truth": Method("trained on the truth", truth),
}
QUICK = ("labels", "naive", "constant", "ddb-paper", "ddb-right", "truth")


def benchmark_config(pixels: int, epochs: int) -> TrainingConfig:
    """How every network of the leaderboard is trained: preset "quick", one network, no crop."""
    return training_config("quick", folds=1, crop=1.0, image_size=pixels, epochs=epochs)


def test_rows(world: World) -> np.ndarray:
    """Rows that nothing was learned from."""
    return world.rows(TEST)
