"""Bars: worlds whose volunteers follow a decision tree, and methods that answer a question of it.

Classes are the paths to the answers: smooth, edge-on, no bar and bar. Networks learn all of them; p(bar | the question
applies) is scored where it truly applies, the bar fraction is a ratio of sums over all galaxies.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.benchmark.methods import Bench, Method, Outcome, matched_fractions
from truemorph.benchmark.worlds import (
    EFIGI_ALPHA,
    EFIGI_SPREAD,
    FILES,
    Sizes,
    World,
    catalogue_features,
    degraded_efigi,
    drawn,
    split_of,
)
from truemorph.bias.binning import Bins
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import UNKNOWN, Transition
from truemorph.bias.fitting import fit_transition
from truemorph.bias.likelihood import label_evidence
from truemorph.bias.metrics.scores import score
from truemorph.catalogs.sampling import TRAIN, UNUSED, VALIDATION
from truemorph.questions import Asked, Votes, read_tree
from truemorph.simulate.annotate import VOLUNTEERS
from truemorph.simulate.survey import INTRINSIC, TREE, simulate_survey

BAR = "bar"
BAR_CLASSES = ("no bar", "bar")
BAR_WORLDS = ("plain", "gate by bar", "real bars")
# Artifacts, of which the worlds have none, count as smooth.
ASKED = Asked.named(read_tree(TREE), BAR, ("smooth", "edge-on", *BAR_CLASSES, "smooth"))
_FEWEST_VOTES = 10  # for the question, in samples that are cut (Willett et al. 2013)
# Rotations and shifts that interpolate blur small training images. Others look sharper, so that too many have bars:
# +0.03 of the bar fraction, even of networks trained on true classes (docs/validation.md).
_SHARP = {"rotation": "quarter", "shift": 0.0}
_HELD_OUT = 5  # one of so many gold labels decides when training stops, if there are no other labels

# T of paths of degraded EFIGI: scores of the answers relative to the first one, [class, answer, (1, u)], where u is the
# standardised ln α. As fitted to Galaxy Zoo 2's votes for 312 galaxies with bars of MaNGA's experts
# (bar_manga >= 0.5), but better-resolved bars are seen more often.
_RARELY = [-6, 0]
_SCORES = (
    ([[-1.7, 0], _RARELY], [[0.5, 0.3], _RARELY], [[0.1, 0.6], _RARELY], [[1.3, 0.4], _RARELY]),
    ([[2.8, 0]], [[-0.7, 0]], [[2.8, 0]], [[3.5, 0]]),
    ([[-2.6, 0]], [[-0.6, 0]], [[-1.7, 0]], [[-0.2, 0.6]]),
)
_OVERDISPERSION = 0.2


def known_transition() -> TreeTransition:
    """Return T of paths of the volunteers who look at degraded EFIGI images."""
    scores = [[[[0, 0], *answers] for answers in every] for every in _SCORES]
    rho = ((_OVERDISPERSION,) * len(ASKED.classes),) * len(ASKED.questions)
    return TreeTransition(ASKED, tuple(scores), tuple(scores), rho, (np.log(EFIGI_ALPHA),), (EFIGI_SPREAD,))


def draw_votes(transition: TreeTransition, classes: np.ndarray, alpha: np.ndarray, seed: int) -> Votes:
    """Draw the answers of 40 volunteers, who are each asked what follows from their answers before."""
    assert transition.overdispersion is not None
    rng, asked_of, n = np.random.default_rng([seed, 14]), transition.asked, classes.size
    reached: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}
    every = zip(asked_of.questions, transition.log_answers(alpha, votes=True), transition.overdispersion, strict=True)
    for question, log_mean, rho in every:
        before = [reached[answer] for answer in question.asked_after]
        asked = np.sum(before, axis=0) if before else np.full(n, VOLUNTEERS)
        concentration = (1 / np.array(rho) - 1)[classes]
        # Gamma variates need positive parameters.
        p = rng.standard_gamma(np.exp(log_mean)[np.arange(n), classes] * concentration[:, None] + 1e-9) + 1e-12
        counts[question.name] = rng.multinomial(asked, p / p.sum(axis=1, keepdims=True))
        reached |= dict(zip(question.answers, counts[question.name].T, strict=True))
    return Votes(asked_of, counts)


def make_bar_world(name: str, seed: int, sizes: Sizes | None, data: Path | None = None) -> World:
    """Make a world of `BAR_WORLDS`, always with images; otherwise as `make_world`."""
    assert sizes is not None
    if name in FILES:
        assert data is not None
        return _efigi_bars(name, seed, sizes, data)
    n = sizes.train + sizes.validation + sizes.test
    galaxies, table = simulate_survey(n, seed, world=name, confounded=False)
    gates = [question.name for question in ASKED.questions]
    values = {
        column: table[column].cast(pl.Float64).to_numpy() for column in table.columns if column.endswith("_count")
    }
    votes = Votes.from_columns(ASKED.tree, BAR, ASKED.tree.columns(gates, list(values)), values, None)
    return World(
        name=name,
        definition="as simulated",
        seed=seed,
        alpha=galaxies["alpha"].to_numpy(),
        truth=np.array([ASKED.classes.index(name) for name in table["truth_bar"]]),
        votes=replace(votes, asked=ASKED),
        intrinsic=table.select(INTRINSIC).to_numpy(),
        split=split_of(sizes.train, sizes.validation, n),
        images=drawn(galaxies, sizes.pixels, seed),
        classes=BAR_CLASSES,
    )


def _efigi_bars(name: str, seed: int, sizes: Sizes, data: Path) -> World:
    """EFIGI images of known bars, degraded to random α, with votes that follow a known T of paths."""
    files = pl.read_csv(data / FILES["real"], infer_schema_length=None).select("pgc_name", "image")
    table = files.join(pl.read_parquet(data / FILES[name]), on="pgc_name", how="left", maintain_order="left")
    disk, tilt, bar = pl.col("t") >= -3, pl.col("inclination"), pl.col("bar_length")
    known = pl.when(pl.col("t") <= -4).then(0).when(disk & (tilt >= 0.75)).then(1)
    known = known.when(disk & tilt.is_between(0, 0.5) & (bar >= 0)).then(2 + (bar > 0).cast(pl.Int64))
    classes = table.select(known.otherwise(UNKNOWN).fill_null(UNKNOWN)).to_series().to_numpy()
    found = degraded_efigi(table["image"], classes != UNKNOWN, seed, sizes.pixels, data)
    truth, transition = classes[found.order].astype(np.int64), known_transition()
    return World(
        name=name,
        definition="experts' bar_length > 0",
        seed=seed,
        alpha=found.alpha,
        truth=truth,
        votes=draw_votes(transition, truth, found.alpha, seed),
        intrinsic=catalogue_features(found.sharp)[:, [0, 3]],
        split=split_of(found.train, found.validation, truth.size),
        transition=transition,
        images=found.images,
        classes=BAR_CLASSES,
    )


# Methods


def certain(classes: np.ndarray) -> np.ndarray:
    """Return the evidence of classes that are known, shape (N, K)."""
    return np.where(np.eye(len(ASKED.classes), dtype=bool)[classes], 0.0, -np.inf)


def fit_network(
    bench: Bench, evidence: np.ndarray | None = None, votes: np.ndarray | None = None, split: np.ndarray | None = None
) -> Any:
    """Train a network on log p(observed | class), or on fractions of votes for each class, shape (N, K).

    With fewer training galaxies than the world has (`split`) there are more epochs, so that the number of steps is
    about the same.
    """
    from truemorph.classifiers.members import train_members
    from truemorph.classifiers.rows import TrainingRows

    world = bench.world if split is None else replace(bench.world, split=split)
    assert bench.training is not None
    rows, fewer = world.learning, world.rows(TRAIN).size / bench.world.rows(TRAIN).size
    changes = {"seed": world.seed, "epochs": round(bench.training.epochs / fewer), **_SHARP}
    config = bench.training.model_copy(update=changes)
    columns = {"label": world.labels[rows], "alpha": world.alpha[rows], "split": world.split[rows]}
    observed: dict[str, Any] = {"label": ASKED.classes}
    if evidence is not None:
        observed |= {"evidence": evidence[rows], "questions": (ASKED,)}
    elif votes is not None:
        observed["votes"] = votes[rows]
    training = TrainingRows(pl.DataFrame({"object_id": rows, **columns}), world.images[rows], **observed)
    return train_members(training, MatrixTransition.identity(len(ASKED.classes)), config, f"{world.name} {world.seed}")


def trained(bench: Bench, *observed: np.ndarray | None) -> Outcome:
    """Train a network as `fit_network`, and predict p of all classes with it."""
    return Outcome(fit_network(bench, *observed).probabilities)


def _votes(world: World, rows: Any = slice(None)) -> Votes:
    """Return the votes for the galaxies of a world, or for some of them."""
    assert world.votes is not None
    return replace(world.votes, counts={name: count[rows] for name, count in world.votes.counts.items()})


def path_votes(votes: Votes) -> np.ndarray:
    """Return the fractions of volunteers whose answers end in each class, shape (N, K)."""
    asked = votes.asked
    ends = [path.answers[-1] for path in asked.paths]
    each = [votes.counts[name][:, list(asked.tree.question(name).answers).index(answer)] for name, answer in ends]
    counts = np.stack(each, axis=1) @ np.eye(len(asked.classes))[list(asked.of_paths)]
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def raw_counts(bench: Bench) -> Outcome:
    """Train on numbers of votes, whose log-likelihood is Σ k log p of the paths on which volunteers ended.

    Zoobot (Walmsley et al. 2022, MNRAS 509, 3966) fits raw counts too, by a Dirichlet-multinomial at each question; its
    errors are compared in benchmarks/known_bars.py.
    """
    return trained(bench, None, path_votes(_votes(bench.world)))


def majority_with_cuts(bench: Bench) -> Outcome:
    """Train on the majority of galaxies with at least 10 votes for the question; only such galaxies are counted."""
    world, counts = bench.world, _votes(bench.world).counts[BAR]
    asked = counts.sum(axis=1) >= _FEWEST_VOTES
    of_answers = np.array([ASKED.classes.index(answer) for answer in ASKED.tree.question(BAR).answers])
    evidence = certain(of_answers[counts.argmax(axis=1)])
    split = np.where(asked | (world.split != TRAIN) & (world.split != VALIDATION), world.split, UNUSED)
    model = fit_network(bench, evidence, split=split)
    # A weight that hardly counts in the fraction keeps p(bar | the question applies) of the others.
    return Outcome(p=model.probabilities(world.images) * np.where(asked, 1.0, 1e-9)[:, None])


def matched_votes(world: World) -> Votes:
    """Match the fractions of votes at each question to those of the best-resolved galaxies that were asked."""
    votes, counts = _votes(world), {}
    for question in ASKED.questions:
        numbers = votes.counts[question.name]
        total, out = numbers.sum(axis=1), np.zeros(numbers.shape)
        yes = list(question.answers).index(question.shown[0])
        asked = np.flatnonzero(total)
        fraction = numbers[asked, yes] / total[asked]
        matched = matched_fractions(fraction, world.alpha[asked], world.intrinsic[asked], seed=world.seed)
        out[asked, yes] = total[asked] * matched
        out[asked, 1 - yes] = total[asked] * (1 - matched)
        counts[question.name] = out
    return replace(votes, counts=counts)


def matching(bench: Bench) -> Outcome:
    """Match the fractions of votes of the training galaxies, then train on their majority paths."""
    world, rows = bench.world, bench.world.learning
    labels = world.labels.copy()
    learning = replace(world, votes=_votes(world, rows), alpha=world.alpha[rows], intrinsic=world.intrinsic[rows])
    labels[rows] = matched_votes(learning).labels
    return trained(bench, certain(labels))


def gold_alone(bench: Bench) -> Outcome:
    """Train on 300 gold labels, of which a fifth decides when to stop."""
    world, gold = bench.world, bench.world.gold
    known = np.flatnonzero(gold != UNKNOWN)
    split = np.where(np.isin(world.split, [TRAIN, VALIDATION]), UNUSED, world.split)
    split[known] = TRAIN
    split[known[::_HELD_OUT]] = VALIDATION
    return Outcome(fit_network(bench, certain(np.maximum(gold, 0)), split=split).probabilities)


def of_votes(world: World, transition: Transition) -> np.ndarray:
    """Return log p(votes | class, α), shape (N, K), relative to the likeliest class."""
    evidence = label_evidence(transition, _votes(world).columns, world.alpha)
    return np.asarray(evidence - evidence.max(axis=1, keepdims=True))


def through_gold(bench: Bench) -> Outcome:
    """Train on votes through T of paths, fitted to 300 gold labels."""
    world, rows = bench.world, bench.world.learning
    fit = fit_transition(_votes(world, rows), world.alpha[rows], gold=world.gold[rows])
    return trained(bench, of_votes(world, fit.transition))


def through_truth(bench: Bench) -> Outcome:
    """Train on votes through the true T of paths."""
    assert bench.world.transition is not None
    return trained(bench, of_votes(bench.world, bench.world.transition))


BAR_METHODS = (
    Method("labels", "majority paths", lambda one: Outcome(labels=one.world.labels)),
    Method("naive", "majority paths, naive training", lambda one: trained(one, certain(one.world.labels))),
    Method("counts", "raw counts of votes", raw_counts),
    Method("cuts", "majority of at least 10 votes", majority_with_cuts),
    Method("matching", "vote-fraction matching at each question", matching),
    Method("gold", "300 gold labels alone", gold_alone),
    Method("ddb-gold", "DDB, T of paths from 300 gold labels", through_gold),
    Method("ddb-right", "DDB, true T of paths", through_truth, ("real bars",)),
    Method("truth", "trained on true classes", lambda one: trained(one, certain(one.world.truth))),
)
BAR_QUICK = ("labels", "naive", "counts", "ddb-gold", "ddb-right", "truth")


def answer_scores(world: World, p: np.ndarray | None, labels: np.ndarray) -> dict[str, float]:
    """Score p of all classes, shape (M, K), or labels, on test galaxies.

    p(bar | the question applies) is scored where it truly applies; fraction errors are those of the ratio of sums over
    all galaxies in fifths of α.
    """
    rows = world.scored
    truth, alpha = world.truth[rows], world.alpha[rows]
    no, yes = map(ASKED.classes.index, BAR_CLASSES)
    inside, bar = np.isin(truth, (no, yes)), (truth == yes).astype(np.int64)
    given = None if p is None else p[:, yes] / np.maximum(p[:, yes] + p[:, no], 1e-12)
    own = (labels == yes if given is None else given > 0.5).astype(np.int64)
    some = None if given is None else given[inside]
    found = score(bar[inside], alpha[inside], own[inside], some, world.intrinsic[rows][inside], world.seed)
    bins, one_hot = Bins.cut(alpha, 5), np.eye(len(ASKED.classes))

    def fractions(values: np.ndarray) -> np.ndarray:
        barred, other = (bins.averages(values[:, k])[0] for k in (yes, no))
        return barred / np.maximum(barred + other, 1e-12)

    for name, values in (("hard", one_hot[labels]), ("soft", p)):
        if values is not None:
            off = fractions(values) - fractions(one_hot[truth])
            found[f"fraction_rms_{name}"] = float(np.sqrt(np.mean(off**2)))
    return found
