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
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from truemorph.benchmark.baselines import constant_transition, matched_fractions, pruned_rows
from truemorph.benchmark.cache import Cache, digest
from truemorph.benchmark.worlds import CURVES, GOLD, World, catalogue_features
from truemorph.bias.diagnostics import compare_families
from truemorph.bias.estimation import fit_transition
from truemorph.bias.families import transition_to_dict
from truemorph.bias.transitions import MatrixTransition, Transition
from truemorph.catalogs.sampling import TEST, TRAIN, VALIDATION
from truemorph.classifiers.checkpoint import Classifier, describe, load, save_classifier
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.classifiers.training import TrainingRows, train_members
from truemorph.config import TrainingConfig, training_config
from truemorph.images.degrade import degrade
from truemorph.simulate.annotate import VOLUNTEERS

_PER_BIN = 64  # galaxies in each of the paper's bins
_TWIN_LEVELS = 6
_BATCH = 512

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


@dataclass
class Workbench:
    """A world, how networks are trained on it, where they are kept, and the CPU seconds that learning took."""

    world: World
    config: TrainingConfig
    cache: Cache
    seconds: float = 0.0

    def clock(self, began: float) -> None:
        """Add the CPU time since."""
        self.seconds += time.process_time() - began

    def network(
        self,
        labels: np.ndarray,
        transition: Transition | None = None,
        *,
        folds: int = 1,
        kept: np.ndarray | None = None,
        extra: tuple[np.ndarray, np.ndarray] | None = None,
        evidence: np.ndarray | None = None,
    ) -> Classifier:
        """Train on the world's training galaxies, or take the network from an earlier run.

        Parameters
        ----------
        labels : array, shape (N,)
        transition : Transition, optional
            T(α) of the loss; labels are taken at their word without.
        folds : int
        kept : array of bool, shape (N,), optional
            Training galaxies to leave in.
        extra : (array of uint8, array of int), optional
            More pictures, and the rows whose labels and α they share.
        evidence : array, shape (N, 2), optional
            log p(votes | y) of each galaxy, in place of its label.
        """
        world = self.world
        through = transition or MatrixTransition.identity()
        config = self.config.model_copy(update={"folds": folds, "seed": world.seed})
        identity = {
            "world": world.config,
            "labels": digest({"labels": labels.tolist()}),
            "transition": transition_to_dict(through),
            "kept": None if kept is None else digest({"kept": kept.tolist()}),
            "extra": None if extra is None else digest({"rows": extra[1].tolist(), "sum": int(extra[0].sum())}),
            "training": config.model_dump(mode="json"),
        }
        if evidence is not None:
            identity["evidence"] = digest({"evidence": np.round(evidence, 6).tolist()})
        folder = self.cache.path("network", identity)
        spent = folder / "history.csv"  # one of a checkpoint's own files: holds the seconds
        if folder.is_dir() and spent.is_file():
            self.seconds += float(pl.read_csv(spent)["seconds"][0])
            return load(folder)
        began = time.process_time()
        rows = world.rows(TRAIN, VALIDATION)
        if kept is not None:
            rows = rows[kept[rows] | (world.split[rows] == VALIDATION)]
        pixels = np.asarray(world.images[rows])
        ids = rows
        split = world.split[rows]
        if extra is not None:
            pixels = np.concatenate([pixels, extra[0]])
            ids, split = np.concatenate([rows, extra[1]]), np.concatenate([split, np.full(len(extra[1]), TRAIN)])
        frame = pl.DataFrame({"object_id": ids, "label": labels[ids], "alpha": world.alpha[ids], "split": split})
        observed = None if evidence is None else evidence[ids]
        trained = train_members(TrainingRows(frame, pixels, observed), through, config, f"{world.name} {world.seed}")
        source = {
            "alpha": "R_petro / sigma_PSF",
            "source": world.name,
            "rows": len(ids),
            "sha256": digest(identity),
            "votes": world.definition,
        }
        rests_on = "benchmark" if evidence is None else "benchmark; learned from votes, this T was not used"
        described = describe(
            config,
            {**transition_to_dict(through), "assumption": rests_on},
            catalogue=source,
            members=len(trained.members),
            metrics=trained.metrics,
            normalisation={"mean": list(trained.mean), "std": list(trained.std)},
        )
        model = Classifier(described, trained.members, trained.seen.unique("object_id", maintain_order=True))
        save_classifier(model, folder)
        took = time.process_time() - began
        pl.DataFrame({"seconds": [took]}).write_csv(spent)
        self.seconds += took
        return model


def probabilities(model: Classifier, images: np.ndarray) -> np.ndarray:
    """p(disk) of many pictures, in batches."""
    starts = range(0, len(images), _BATCH)
    return np.concatenate([model.probabilities(np.asarray(images[s : s + _BATCH]))[:, 1] for s in starts])


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


def pruned(bench: Workbench) -> Outcome:
    """Labels that cleanlab doubts are dropped, then naive training."""
    world = bench.world
    folded = bench.network(world.labels, folds=3)
    began = time.process_time()
    seen = folded.seen.filter(pl.col("fold") >= 0)
    rows, fold = seen["object_id"].to_numpy(), seen["fold"].to_numpy()
    p = np.empty((rows.size, 2))
    for member in range(3):
        asked = np.flatnonzero(fold == member)
        for part in np.array_split(asked, max(1, asked.size // _BATCH)):
            p[part] = folded.member_probabilities(np.asarray(world.images[rows[part]]), member)
    kept = np.ones(world.alpha.size, bool)
    kept[rows] = pruned_rows(world.labels[rows], p)
    bench.clock(began)
    outcome = _trained(bench, world.labels, kept=kept)
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
    outcome.said = {"family": found.best, "warnings": list(found.fits[found.best].warnings)}
    return outcome


def gold_labels(world: World) -> np.ndarray:
    """True classes of 300 random training galaxies (half of them where there are few), -1 elsewhere, shape (N,)."""
    train = world.rows(TRAIN)
    known = np.random.default_rng([world.seed, 9]).choice(train, min(GOLD, train.size // 2), replace=False)
    gold = np.full(world.truth.size, -1)
    gold[known] = world.truth[known]
    return gold


def with_gold(bench: Workbench) -> Outcome:
    """DDB: T(α) from 300 trusted labels beside the others, family by AIC."""
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


def regressed_evidence(world: World, gold: np.ndarray) -> np.ndarray:
    """log p(votes | y, α, z) up to a constant, by Bayes' theorem from two regressions on trusted labels.

    p(y | votes, α, z) / p(y | α, z) is proportional to p(votes | y, α, z); no shape of T and no distribution of votes
    is assumed.

    Returns
    -------
    array, shape (N, 2)
    """
    known = gold >= 0
    votes, log_alpha = world.vote_fraction, np.log(world.alpha)
    without = np.column_stack([log_alpha, log_alpha**2, world.intrinsic])
    beside = np.column_stack([votes, votes**2, votes * log_alpha, without])
    odds = []
    for design in (beside, without):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
        odds.append(model.fit(design[known], gold[known]).decision_function(design))
    evidence = np.column_stack([np.zeros(votes.size), odds[0] - odds[1]])
    return evidence - evidence.max(axis=1, keepdims=True)


def with_gold_and_votes(bench: Workbench) -> Outcome:
    """DDB on votes, what they mean regressed on 300 trusted labels; trusted galaxies count as known."""
    world = bench.world
    began = time.process_time()
    gold = gold_labels(world)
    evidence = regressed_evidence(world, gold)
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
        np.concatenate(observed), np.concatenate(alphas), CURVES, gold=np.concatenate(trusted), gold_weight=0.0,
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
    lower = world.alpha[half] / rng.uniform(1, 2.5, half.size)
    copies = degrade(np.asarray(world.images[half]), world.alpha[half], lower, world.radius[half], world.seed)
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


METHODS: dict[str, Method] = {
    "labels": Method("labels as given", as_labelled),
    "naive": Method("naive training", naive),
    "constant": Method("constant flip rate", constant),
    "cleanlab": Method("cleanlab, then naive", pruned),
    "matching": Method("vote-fraction matching, then naive", matched),
    "dcv14": Method("DCV14 on measured shapes", dcv14),
    "ddb-paper": Method("DDB, paper's θ", papers_theta),
    "ddb-conditional": Method("DDB, conditional T(α)", conditional),
    "ddb-gold": Method("DDB, T(α) from 300 trusted labels", with_gold),
    "ddb-votes": Method("DDB on vote counts", with_votes),
    "ddb-gold-votes": Method("DDB on votes and 300 trusted labels", with_gold_and_votes),
    "ddb-twins": Method("DDB, T(α) and training from twins", twins),
    "ddb-right": Method("DDB, right T(α)", right),
    "truth": Method("trained on the truth", truth),
}
QUICK = ("labels", "naive", "constant", "ddb-paper", "ddb-right", "truth")


def benchmark_config(pixels: int, epochs: int) -> TrainingConfig:
    """How every network of the leaderboard is trained: preset "quick", one network, no crop."""
    return training_config("quick", folds=1, crop=1.0, image_size=pixels, epochs=epochs)


def test_rows(world: World) -> np.ndarray:
    """Rows that nothing was learned from."""
    return world.rows(TEST)
