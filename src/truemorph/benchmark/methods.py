"""Methods of the leaderboard.

With images, a method trains a network and predicts the classes of test galaxies, whose labels it does not see. Without
images, it relabels the galaxies from labels, votes and columns. Only `truth` knows all true classes; methods with gold
labels know 300.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from truemorph.benchmark.worlds import GZ2, HART, SIMULATED, WITH_PICTURES, World, catalogue_features
from truemorph.bias.binning import RankedTable
from truemorph.bias.diagnostics import compare_families
from truemorph.bias.estimation import fit_transition
from truemorph.bias.likelihood import n_observables, posterior
from truemorph.bias.result import TransitionFit
from truemorph.bias.transitions import UNKNOWN, ConstantTransition, MatrixTransition, Transition
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.config import TrainingConfig, training_config
from truemorph.images.degrade import degrade
from truemorph.simulate.annotate import VOLUNTEERS, vote_fraction_evidence

NETWORKS, TABLES = "networks", "tables"  # with images and without
CURVES = ("rayleigh", "weibull", "fisk")  # families to choose from by AIC
_PER_BIN = 64  # galaxies in each of the paper's bins
_TWIN_LEVELS = 6
_FOLDS = 3
_BATCH = 512


def benchmark_config(pixels: int, epochs: int) -> TrainingConfig:
    """Return the settings of every network: preset "quick", one network, no crop."""
    return training_config("quick", folds=1, crop=1.0, image_size=pixels, epochs=epochs)


@dataclass
class Outcome:
    """Result of a method.

    Attributes
    ----------
    labels : array, shape (N,), or None
        Labels of all galaxies, from methods without probabilities.
    p_disk : array, shape (N,), or None
        p(disk) of all galaxies, from methods without images.
    predict : callable or None
        Function of images, shape (M, S, S, 3), that returns p(disk), shape (M,).
    transition : Transition or None
        T(α) that the method used.
    said : dict
        Details to keep with the scores.
    """

    labels: np.ndarray | None = None
    p_disk: np.ndarray | None = None
    predict: Callable[[np.ndarray], np.ndarray] | None = None
    transition: Transition | None = None
    said: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """A world, the settings of its networks, and intermediate results that several methods share.

    Attributes
    ----------
    world : World
    training : TrainingConfig or None
        None without images.
    borrowed : float
        CPU time (s) of shared results that the current method reuses.
    """

    world: World
    training: TrainingConfig | None = None
    borrowed: float = 0.0
    _made: dict[str, tuple[Any, float]] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Make a shared result once; its time counts for each method that uses it."""
        if name in self._made:
            found, seconds = self._made[name]
            self.borrowed += seconds
            return found
        began = time.process_time()
        found = make()
        self._made[name] = found, time.process_time() - began
        return found

    def network(
        self,
        labels: np.ndarray,
        transition: Transition | None = None,
        *,
        folds: int = 1,
        kept: np.ndarray | None = None,
        extra: tuple[np.ndarray, np.ndarray] | None = None,
        evidence: np.ndarray | None = None,
    ) -> Any:
        """Train a classifier on the world's training galaxies.

        Parameters
        ----------
        labels : array, shape (N,)
        transition : Transition, optional
            T of the loss, in α or in α and features; without it, labels are treated as correct.
        folds : int
        kept : array of bool, shape (N,), optional
            Training galaxies to use.
        extra : (array of uint8, array of int), optional
            More images, and the rows whose labels and α apply to them.
        evidence : array, shape (N, 2), optional
            log p(votes | y) of each galaxy, used in place of its label.
        """
        from truemorph.classifiers.members import TrainingRows, train_members

        world = self.world
        assert self.training is not None
        config = self.training.model_copy(update={"folds": folds, "seed": world.seed})
        rows = world.learning
        if kept is not None:
            rows = rows[kept[rows] | (world.split[rows] == VALIDATION)]
        pixels, split = world.images[rows], world.split[rows]
        if extra is not None:
            pixels, rows = np.concatenate([pixels, extra[0]]), np.concatenate([rows, extra[1]])
            split = np.concatenate([split, np.full(len(extra[1]), TRAIN)])
        frame = pl.DataFrame({"object_id": rows, "label": labels[rows], "alpha": world.alpha[rows], "split": split})
        observed = None if evidence is None else evidence[rows]
        through = transition or MatrixTransition.identity()
        resolution = np.column_stack([world.alpha, world.features])[rows] if n_observables(through) else None
        training = TrainingRows(frame, pixels, observed, resolution=resolution)
        return train_members(training, through, config, f"{world.name} {world.seed}")

    def naive(self) -> Any:
        """Return the classifier trained on the observed labels."""
        return self.once("naive", lambda: self.network(self.world.labels))


def probabilities(model: Any, images: np.ndarray) -> np.ndarray:
    """Predict p(disk) in batches."""
    starts = range(0, len(images), _BATCH)
    return np.concatenate([model.probabilities(images[s : s + _BATCH])[:, 1] for s in starts])


def _predicting(model: Any, transition: Transition | None = None, **said: Any) -> Outcome:
    return Outcome(predict=lambda images: probabilities(model, images), transition=transition, said=said)


def _relabelled(p_disk: np.ndarray, transition: Transition | None = None) -> Outcome:
    return Outcome(p_disk=p_disk, transition=transition)


def as_labelled(bench: Bench) -> Outcome:
    """Return the observed labels."""
    return Outcome(labels=bench.world.labels)


# Estimates of T(α) from labels and columns of the training galaxies

Estimate = Callable[[World], TransitionFit]


def _best_of_families(world: World, observed: np.ndarray, **options: Any) -> TransitionFit:
    """Fit all families and return the one of lowest AIC."""
    rows = world.learning
    found = compare_families(observed[rows], world.alpha[rows], CURVES, **options)
    return found.fits[found.best]


def labels_alone(world: World) -> TransitionFit:
    """Estimate θ by likelihood."""
    return fit_transition(world.labels[world.learning], world.alpha[world.learning])


def papers_bins(world: World) -> TransitionFit:
    """Estimate θ as the paper, in bins of 64 galaxies."""
    rows = world.learning
    return fit_transition(world.labels[rows], world.alpha[rows], method="binned", bins=rows.size // _PER_BIN)


def conditional(world: World) -> TransitionFit:
    """Estimate T(α) together with p(y | intrinsic columns); family by AIC."""
    return _best_of_families(world, world.labels, intrinsic=world.intrinsic[world.learning])


def with_gold(world: World) -> TransitionFit:
    """Estimate T(α) from 300 gold labels; family by AIC."""
    return _best_of_families(world, world.labels, gold=world.gold[world.learning], seed=world.seed)


def with_observables(world: World) -> TransitionFit:
    """Estimate T(α, features) from 300 gold labels: flips may depend on features."""
    rows = world.learning
    return fit_transition(
        world.labels[rows], world.alpha[rows], gold=world.gold[rows], observables=world.features[rows]
    )


# Votes


def matched_fractions(
    fraction: np.ndarray, alpha: np.ndarray, intrinsic: np.ndarray, *, bins: int = 5, seed: int = 0
) -> np.ndarray:
    """Match vote fractions to those of the best-resolved galaxies with similar intrinsic columns.

    Follows the idea of Bamford et al. 2009, Willett et al. 2013 and Hart et al. 2016. Galaxies are binned by intrinsic
    columns (leaves of a k-d tree as in CV18: four for one column, eight for more) and, in each leaf, by α. Fractions of
    each bin keep their order and take the distribution of the best-resolved bin of the leaf. The assumption is that all
    bins of a leaf would have the same distribution at equal resolution.

    Parameters
    ----------
    fraction : array, shape (N,)
        Fraction of votes for disk, or labels; equal values are ordered at random.
    alpha : array, shape (N,)
    intrinsic : array, shape (N, P)
        Intrinsic columns; the first three are used.
    bins : int
        Number of equal-count bins of α in each leaf.
    seed : int

    Returns
    -------
    array, shape (N,)
    """
    n, depth = fraction.size, min(3, intrinsic.shape[1] + 1)
    order = np.lexsort((np.random.default_rng([seed, 8]).random(n), fraction))
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    table = RankedTable(alpha[:, None], intrinsic[:, :depth])
    leaf = np.empty(n, dtype=np.int64)
    leaf[table.rows] = table.cut(depth, bins).leaf
    out = fraction.astype(np.float64)
    for one in np.unique(leaf):
        members = np.flatnonzero(leaf == one)
        parts = np.array_split(members[np.argsort(alpha[members], kind="stable")], bins)
        best = np.sort(fraction[parts[-1]])
        for part in parts[:-1]:
            position = (np.argsort(np.argsort(rank[part])) + 0.5) / part.size
            out[part] = best[np.minimum((position * best.size).astype(np.int64), best.size - 1)]
    return out


def regressed_on_votes(world: World, *, votes: bool = True) -> np.ndarray:
    """Return the logit of p(disk) from a logistic regression of gold labels, without T(α).

    Parameters
    ----------
    world : World
    votes : bool, default True
        Regress on votes, α and intrinsic columns; on α and intrinsic columns if False.

    Returns
    -------
    array, shape (N,)
    """
    gold, fraction, log_alpha = world.gold, world.vote_fraction, np.log(world.alpha)
    columns = [fraction, fraction**2, fraction * log_alpha] if votes else []
    design = np.column_stack([*columns, log_alpha, log_alpha**2, *world.intrinsic.T])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    known = gold != UNKNOWN
    return np.asarray(model.fit(design[known], gold[known]).decision_function(design))


# Networks


def naive(bench: Bench) -> Outcome:
    """Train on the observed labels, which are treated as correct."""
    return _predicting(bench.naive())


def constant_transition(labels: np.ndarray, alpha: np.ndarray) -> ConstantTransition:
    """Return a flip rate that does not depend on α, for forward correction (Patrini et al. 2017, CVPR).

    Labels alone cannot determine a constant flip rate, so it is the mean over galaxies of the fitted Rayleigh T(α).
    """
    fit = fit_transition(labels, alpha)
    return ConstantTransition(flip=float(np.mean(fit.transition.flip_probability(alpha))))


def constant(bench: Bench) -> Outcome:
    """Train through one flip rate for all α."""
    world, rows = bench.world, bench.world.learning
    transition = constant_transition(world.labels[rows], world.alpha[rows])
    return _predicting(bench.network(world.labels, transition), transition)


def undoubted(bench: Bench) -> np.ndarray:
    """Find galaxies without a label issue by cleanlab, from naive networks of three folds, shape (N,).

    Confident learning: Northcutt et al. 2021, JAIR.
    """
    from cleanlab.filter import find_label_issues

    world = bench.world
    folded = bench.network(world.labels, folds=_FOLDS)
    seen = folded.seen.filter(pl.col("fold") >= 0)
    rows, fold = seen["object_id"].to_numpy(), seen["fold"].to_numpy()
    p = np.empty((rows.size, 2))
    for member in range(_FOLDS):
        asked = np.flatnonzero(fold == member)
        for part in np.array_split(asked, max(1, asked.size // _BATCH)):
            p[part] = folded.member_probabilities(world.images[rows[part]], member)
    kept = np.ones(world.alpha.size, bool)
    kept[rows] = ~find_label_issues(world.labels[rows], p, n_jobs=1)
    return kept


def pruned(bench: Bench) -> Outcome:
    """Drop label issues found by cleanlab, then train on the other labels."""
    kept = undoubted(bench)
    return _predicting(bench.network(bench.world.labels, kept=kept), dropped=int((~kept).sum()))


def matched(bench: Bench) -> Outcome:
    """Match vote fractions, then train on their majorities."""
    world, rows = bench.world, bench.world.learning
    labels = world.labels.copy()
    labels[rows] = matched_fractions(world.vote_fraction[rows], world.alpha[rows], world.intrinsic[rows]) > 0.5
    return _predicting(bench.network(labels))


def measured_shapes(bench: Bench) -> Outcome:
    """Fit DCV14 to shapes measured on the images."""
    world, rows = bench.world, bench.world.learning
    model = DebiasedLogisticRegression().fit(world.features[rows], world.labels[rows], alpha=world.alpha[rows])
    return Outcome(
        predict=lambda images: model.predict_proba(catalogue_features(images))[:, 1], transition=model.transition_
    )


def ddb(estimate: Estimate) -> Callable[[Bench], Outcome]:
    """Return a method that trains through an estimate of T(α)."""

    def run(bench: Bench) -> Outcome:
        fit = estimate(bench.world)
        said = {"family": fit.family, "findings": [one.to_dict() for one in fit.findings]}
        model = bench.network(bench.world.labels, fit.transition)
        return _predicting(model, None if n_observables(fit.transition) else fit.transition, **said)

    return run


def with_votes(bench: Bench) -> Outcome:
    """Train on vote counts, beta-binomial in each class and fitted to votes alone; family by AIC."""
    world = bench.world
    disk = np.rint(VOLUNTEERS * world.vote_fraction).astype(np.int64)
    counts = np.column_stack([VOLUNTEERS - disk, disk])
    fit = _best_of_families(world, counts, method="votes", seed=world.seed)
    assert fit.votes is not None
    model = bench.network(world.labels, evidence=fit.votes.log_probabilities(counts, world.alpha))
    return _predicting(model, family=fit.family, overdispersion=fit.votes.overdispersion.tolist())


def with_gold_and_votes(bench: Bench) -> Outcome:
    """Train on votes, whose likelihood comes from regressions of 300 gold labels; gold labels are used as known.

    p(y | votes, α, z) / p(y | α, z) is proportional to p(votes | y, α, z), where z are intrinsic columns. No family of
    T and no distribution of votes is assumed.
    """
    world, gold = bench.world, bench.world.gold
    evidence = np.zeros((gold.size, 2))
    evidence[:, 1] = regressed_on_votes(world) - regressed_on_votes(world, votes=False)
    evidence -= evidence.max(axis=1, keepdims=True)
    known = np.flatnonzero(gold != UNKNOWN)
    evidence[known] = -np.inf
    evidence[known, gold[known]] = 0.0
    return _predicting(bench.network(world.labels, evidence=evidence))


def right(bench: Bench) -> Outcome:
    """Train through the true T(α)."""
    transition = bench.world.transition
    return _predicting(bench.network(bench.world.labels, transition), transition)


def right_votes(bench: Bench) -> Outcome:
    """Train through the true distribution of votes."""
    world = bench.world
    assert world.transition is not None
    evidence = vote_fraction_evidence(world.vote_fraction, world.alpha, world.transition)
    return _predicting(bench.network(world.labels, evidence=evidence - evidence.max(axis=1, keepdims=True)))


def right_copies(bench: Bench) -> Outcome:
    """Train through the true T(α), with a degraded copy of each image.

    A copy keeps the label and α of its original, because that is the image that was labelled.
    """
    world, rows = bench.world, bench.world.rows(TRAIN)
    copies = _degraded_further(world, rows, np.random.default_rng([world.seed, 14]))
    return _predicting(bench.network(world.labels, world.transition, extra=(copies, rows)), world.transition)


def _degraded_further(world: World, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrade images to α divided by 1 to 2.5."""
    lower = world.alpha[rows] / rng.uniform(1, 2.5, rows.size)
    return degrade(world.images[rows], world.alpha[rows], lower, world.radius[rows], world.seed)


def twin_transition(bench: Bench) -> Transition:
    """Estimate T(α) from degraded twins of well-resolved galaxies.

    Labels of galaxies in the upper quarter of α, which seldom flip, serve as gold labels. Their images, degraded to six
    values of α, are labelled by the naive network in place of volunteers.
    """
    world = bench.world
    emulator = bench.naive()
    rows = world.rows(TRAIN)
    lowest, best = np.quantile(world.alpha[rows], [0.02, 0.75])
    sharp = rows[world.alpha[rows] >= best]
    rng = np.random.default_rng([world.seed, 10])
    levels = np.geomspace(lowest, best, _TWIN_LEVELS)
    labels = []
    for level in levels:
        seed = int(rng.integers(2**31))
        lower = np.full(sharp.size, level)
        pictures = degrade(world.images[sharp], world.alpha[sharp], lower, world.radius[sharp], seed)
        labels.append((rng.random(sharp.size) < probabilities(emulator, pictures)).astype(np.int64))
    observed, gold = np.concatenate(labels), np.tile(world.labels[sharp], _TWIN_LEVELS)
    false_disk = "fit" if np.any((gold == 0) & (observed == 1)) else 0.0
    found = compare_families(observed, np.repeat(levels, sharp.size), CURVES, gold=gold, false_disk=false_disk)
    return found.fits[found.best].transition


def twins(bench: Bench) -> Outcome:
    """Train through T(α) from degraded twins, with half of the images replaced by degraded copies."""
    world, rows = bench.world, bench.world.rows(TRAIN)
    transition = twin_transition(bench)
    rng = np.random.default_rng([world.seed, 11])
    half = np.sort(rng.choice(rows, rows.size // 2, replace=False))
    copies = _degraded_further(world, half, rng)
    left = np.ones(world.alpha.size, bool)
    left[half] = False
    return _predicting(bench.network(world.labels, transition, kept=left, extra=(copies, half)), transition)


def truth(bench: Bench) -> Outcome:
    """Train on the true classes, as an upper limit."""
    return _predicting(bench.network(bench.world.truth))


# Tables


def _after_label(p: np.ndarray, labels: np.ndarray, alpha: np.ndarray, transition: Transition) -> np.ndarray:
    # Keep the posterior finite where a label is impossible in the only class with p > 0.
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return posterior(np.column_stack([1 - p, p]), labels, alpha, transition)[:, 1]


def posterior_of(estimate: Estimate) -> Callable[[Bench], Outcome]:
    """Return a method that estimates T(α) and class fractions, and returns each galaxy's posterior."""

    def run(bench: Bench) -> Outcome:
        world, fit = bench.world, estimate(bench.world)
        p = fit.class_fractions[1] if fit.probabilities is None else fit.probabilities[:, 1]
        several = n_observables(fit.transition)
        resolution = np.column_stack([world.alpha, world.features]) if several else world.alpha
        after = _after_label(np.broadcast_to(p, world.truth.shape), world.labels, resolution, fit.transition)
        return _relabelled(after, None if several else fit.transition)

    return run


def matching(bench: Bench) -> Outcome:
    """Match vote fractions, and use them as p(disk)."""
    world = bench.world
    return _relabelled(matched_fractions(world.vote_fraction, world.alpha, world.intrinsic, seed=world.seed))


def _out_of_fold(world: World, columns: np.ndarray, families: Sequence[str]) -> tuple[Outcome, Outcome]:
    """Return p(y | x) and posterior of DCV14, out of fold; of several families, the one of lowest AIC."""
    family = families[0]
    if len(families) > 1:
        # AIC, as families have one or two parameters.
        whole = {one: DebiasedLogisticRegression(one).fit(columns, world.labels, alpha=world.alpha) for one in families}
        family = min(whole, key=lambda one: len(whole[one].stderr_) - whole[one].log_likelihood_)
    fold = np.random.default_rng([world.seed, 13]).integers(0, _FOLDS, world.truth.size)
    p, after = np.empty(world.truth.size), np.empty(world.truth.size)
    for one in range(_FOLDS):
        rows, left = fold != one, fold == one
        model = DebiasedLogisticRegression(family).fit(columns[rows], world.labels[rows], alpha=world.alpha[rows])
        p[left] = model.predict_proba(columns[left])[:, 1]
        after[left] = _after_label(p[left], world.labels[left], world.alpha[left], model.transition_)
    return _relabelled(p, model.transition_), _relabelled(after, model.transition_)


def dcv14(*, posterior: bool) -> Callable[[Bench], Outcome]:
    """Return DCV14 on features, out of fold: p(y | x), or the posterior with the galaxy's own label."""

    def run(bench: Bench) -> Outcome:
        world = bench.world
        found = bench.once("dcv14", lambda: _out_of_fold(world, world.features, CURVES[:1]))
        outcome: Outcome = found[posterior]
        return outcome

    return run


def dcv14_all(bench: Bench) -> Outcome:
    """Return the posterior of DCV14 on features and intrinsic columns (each once); family by AIC."""
    world = bench.world
    columns = np.unique(np.column_stack([world.features, world.intrinsic]), axis=1)
    return _out_of_fold(world, columns, CURVES)[1]


def votes_regressed(bench: Bench) -> Outcome:
    """Regress 300 gold labels on votes, α and intrinsic columns, without T(α)."""
    return _relabelled(expit(regressed_on_votes(bench.world)))


def published(bench: Bench) -> Outcome:
    """Use Hart et al.'s debiased vote fractions as p(disk)."""
    return _relabelled(bench.world.published[HART])


@dataclass(frozen=True)
class Method:
    """A method: command-line name, title, function, boards, and worlds (default all)."""

    name: str
    title: str
    run: Callable[[Bench], Outcome]
    boards: tuple[str, ...]
    worlds: Sequence[str] = ()


# Worlds whose labels follow a T(α).
_WITH_TRANSITION = [one for one in WITH_PICTURES if SIMULATED.get(one, "real")]
METHODS = (
    Method("labels", "observed labels", as_labelled, (NETWORKS, TABLES)),
    Method("naive", "naive training", naive, (NETWORKS,)),
    Method("constant", "one flip rate for all α", constant, (NETWORKS,)),
    Method("cleanlab", "cleanlab, then naive", pruned, (NETWORKS,)),
    Method("matching", "vote-fraction matching, then naive", matched, (NETWORKS,)),
    Method("dcv14", "DCV14 on measured shapes", measured_shapes, (NETWORKS,)),
    Method("ddb-paper", "DDB, paper's θ", ddb(papers_bins), (NETWORKS,)),
    Method("ddb-conditional", "DDB, T(α) given intrinsic columns", ddb(conditional), (NETWORKS,)),
    Method("ddb-gold", "DDB, T(α) from 300 gold labels", ddb(with_gold), (NETWORKS,)),
    Method("ddb-observables", "DDB, T(α, features) from 300 gold labels", ddb(with_observables), (NETWORKS,)),
    Method("ddb-votes", "DDB on vote counts", with_votes, (NETWORKS,)),
    Method("ddb-gold-votes", "DDB on votes and 300 gold labels", with_gold_and_votes, (NETWORKS,)),
    Method("ddb-twins", "DDB, T(α) from degraded twins", twins, (NETWORKS,)),
    Method("ddb-right", "DDB, true T(α)", right, (NETWORKS,), _WITH_TRANSITION),
    Method("ddb-right-copies", "DDB, true T(α), degraded copies", right_copies, (NETWORKS,), _WITH_TRANSITION),
    Method("ddb-right-votes", "DDB, true vote model", right_votes, (NETWORKS,), _WITH_TRANSITION),
    Method("truth", "trained on true classes", truth, (NETWORKS,)),
    Method("matching", "vote-fraction matching", matching, (TABLES,)),
    Method("dcv14", "DCV14, p(y | x)", dcv14(posterior=False), (TABLES,)),
    Method("dcv14-posterior", "DCV14, posterior", dcv14(posterior=True), (TABLES,)),
    Method("dcv14-all", "DCV14, all columns, posterior", dcv14_all, (TABLES,)),
    Method("likelihood", "θ from labels alone, posterior", posterior_of(labels_alone), (TABLES,)),
    Method("conditional", "T(α) given intrinsic columns, posterior", posterior_of(conditional), (TABLES,)),
    Method("gold", "T(α), 300 gold labels, posterior", posterior_of(with_gold), (TABLES,)),
    Method("gold-observables", "T(α, features), gold labels, posterior", posterior_of(with_observables), (TABLES,)),
    Method("gold-votes", "300 gold labels regressed on votes", votes_regressed, (TABLES,)),
    Method(HART, HART, published, (TABLES,), GZ2),
)
QUICK = ("labels", "naive", "constant", "ddb-paper", "ddb-right", "truth")


def methods_of(board: str) -> dict[str, Method]:
    """Return the methods of a board by name, in the order of its figure."""
    return {one.name: one for one in METHODS if board in one.boards}
