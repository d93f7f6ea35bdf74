"""Methods of the leaderboard: each takes a world's training galaxies, labels and columns, and predicts classes.

On the board of networks a method predicts from pixels; on the board of tables it has labels, votes and columns alone,
and relabels the galaxies themselves. None but `truth` sees a true class, apart from 300 gold labels where a title names
them; none sees the test galaxies' labels.
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
from truemorph.bias.diagnostics import compare_families
from truemorph.bias.estimation import fit_transition
from truemorph.bias.leaves import RankedTable
from truemorph.bias.likelihood import n_observables, posterior
from truemorph.bias.result import TransitionFit
from truemorph.bias.transitions import UNKNOWN, ConstantTransition, MatrixTransition, Transition
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.config import TrainingConfig, training_config
from truemorph.images.degrade import degrade
from truemorph.simulate.annotate import VOLUNTEERS, vote_fraction_evidence

NETWORKS, TABLES = "networks", "tables"  # the two boards
CURVES = ("rayleigh", "weibull", "fisk")  # families that methods choose from
_PER_BIN = 64  # galaxies in each of the paper's bins
_TWIN_LEVELS = 6
_FOLDS = 3
_BATCH = 512


def benchmark_config(pixels: int, epochs: int) -> TrainingConfig:
    """How every network of the leaderboard is trained: preset "quick", one network, no crop."""
    return training_config("quick", folds=1, crop=1.0, image_size=pixels, epochs=epochs)


@dataclass
class Outcome:
    """What a method learned.

    Attributes
    ----------
    labels : array, shape (N,), or None
        Labels of all galaxies, where it has no more.
    p_disk : array, shape (N,), or None
        p(disk) of all galaxies, where it relabels them.
    predict : callable or None
        Pixels (M, S, S, 3) to p(disk), shape (M,), where it reads pictures.
    transition : Transition or None
        T(α) that it used.
    said : dict
        What to keep beside the scores.
    """

    labels: np.ndarray | None = None
    p_disk: np.ndarray | None = None
    predict: Callable[[np.ndarray], np.ndarray] | None = None
    transition: Transition | None = None
    said: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """A world, how networks are trained on it, and what several methods use.

    Attributes
    ----------
    world : World
    training : TrainingConfig or None
        None where there are no pictures.
    borrowed : float
        CPU seconds of what the current method uses and an earlier one made.
    """

    world: World
    training: TrainingConfig | None = None
    borrowed: float = 0.0
    _made: dict[str, tuple[Any, float]] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Make what several methods use; its time counts for each of them."""
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
            T of the loss, in α or in α and the world's features; without it the labels are treated as correct.
        folds : int
        kept : array of bool, shape (N,), optional
            Training galaxies to leave in.
        extra : (array of uint8, array of int), optional
            More pictures, and the rows whose labels and α they have.
        evidence : array, shape (N, 2), optional
            log p(votes | y) of each galaxy, in place of its label.
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
        """The classifier trained on the observed labels."""
        return self.once("naive", lambda: self.network(self.world.labels))


def probabilities(model: Any, images: np.ndarray) -> np.ndarray:
    """p(disk) of many pictures, in batches."""
    starts = range(0, len(images), _BATCH)
    return np.concatenate([model.probabilities(images[s : s + _BATCH])[:, 1] for s in starts])


def _predicting(model: Any, transition: Transition | None = None, **said: Any) -> Outcome:
    return Outcome(predict=lambda images: probabilities(model, images), transition=transition, said=said)


def _relabelled(p_disk: np.ndarray, transition: Transition | None = None) -> Outcome:
    return Outcome(p_disk=p_disk, transition=transition)


def as_labelled(bench: Bench) -> Outcome:
    """The observed labels."""
    return Outcome(labels=bench.world.labels)


# Estimates of T(α) from labels and columns of the training galaxies

Estimate = Callable[[World], TransitionFit]


def _best_of_families(world: World, observed: np.ndarray, **options: Any) -> TransitionFit:
    """The family of lowest AIC."""
    rows = world.learning
    found = compare_families(observed[rows], world.alpha[rows], CURVES, **options)
    return found.fits[found.best]


def labels_alone(world: World) -> TransitionFit:
    """θ by likelihood."""
    return fit_transition(world.labels[world.learning], world.alpha[world.learning])


def papers_bins(world: World) -> TransitionFit:
    """θ by the paper's bins of 64 galaxies."""
    rows = world.learning
    return fit_transition(world.labels[rows], world.alpha[rows], method="binned", bins=rows.size // _PER_BIN)


def conditional(world: World) -> TransitionFit:
    """T(α) and p(y | z) from labels and intrinsic properties, family by AIC."""
    return _best_of_families(world, world.labels, intrinsic=world.intrinsic[world.learning])


def with_gold(world: World) -> TransitionFit:
    """T(α) from 300 gold labels beside the others, family by AIC."""
    return _best_of_families(world, world.labels, gold=world.gold[world.learning], seed=world.seed)


def with_observables(world: World) -> TransitionFit:
    """T(α, features) from 300 gold labels: flips may depend on what the galaxy looks like."""
    rows = world.learning
    return fit_transition(
        world.labels[rows], world.alpha[rows], gold=world.gold[rows], observables=world.features[rows]
    )


# Votes


def matched_fractions(
    fraction: np.ndarray, alpha: np.ndarray, intrinsic: np.ndarray, *, bins: int = 5, seed: int = 0
) -> np.ndarray:
    """Vote fractions matched to those of the best-resolved galaxies of like intrinsic properties.

    In the spirit of Bamford et al. 2009, Willett et al. 2013 and Hart et al. 2016: galaxies are binned by intrinsic
    properties (here leaves of a k-d tree, as in CV18, four of one property and eight of more) and, in each, by α;
    fractions of each bin keep their order and take the distribution of the leaf's best-resolved bin. Assumes that vote
    distributions would be equal, were galaxies of a leaf equally well resolved.

    Parameters
    ----------
    fraction : array, shape (N,)
        Fraction of votes for disk, or labels (equal values are put in random order).
    alpha : array, shape (N,)
    intrinsic : array, shape (N, P)
        The first three are used.
    bins : int
        Equal-count bins of α in each leaf.
    seed : int

    Returns
    -------
    array, shape (N,)
    """
    n, depth = fraction.size, min(3, intrinsic.shape[1] + 1)
    order = np.lexsort((np.random.default_rng([seed, 8]).random(n), fraction))
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    table = RankedTable.of(alpha[:, None], intrinsic[:, :depth])
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
    """Logit of p(disk) of every galaxy, by logistic regression of gold labels: no T(α) at all.

    Parameters
    ----------
    world : World
    votes : bool, default True
        p(y | votes, α, z); p(y | α, z) without.

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
    """Trained on the observed labels, which are treated as correct."""
    return _predicting(bench.naive())


def constant_transition(labels: np.ndarray, alpha: np.ndarray) -> ConstantTransition:
    """Forward correction as for label noise that knows no α (Patrini et al. 2017, CVPR): the mean flip rate.

    Labels alone don't tell a constant flip rate from other class fractions. It is given the mean over galaxies of the
    Rayleigh T(α) fitted to them: all that a constant can know.
    """
    fit = fit_transition(labels, alpha)
    return ConstantTransition(flip=float(np.mean(fit.transition.flip_probability(alpha))))


def constant(bench: Bench) -> Outcome:
    """Forward correction with one flip rate for all α."""
    world, rows = bench.world, bench.world.learning
    transition = constant_transition(world.labels[rows], world.alpha[rows])
    return _predicting(bench.network(world.labels, transition), transition)


def undoubted(bench: Bench) -> np.ndarray:
    """Galaxies whose label cleanlab doesn't doubt, from naive networks of three folds, shape (N,).

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
    """Labels that cleanlab doubts are dropped, then naive training."""
    kept = undoubted(bench)
    return _predicting(bench.network(bench.world.labels, kept=kept), dropped=int((~kept).sum()))


def matched(bench: Bench) -> Outcome:
    """Vote fractions matched to the best resolved, then naive training on their majorities."""
    world, rows = bench.world, bench.world.learning
    labels = world.labels.copy()
    labels[rows] = matched_fractions(world.vote_fraction[rows], world.alpha[rows], world.intrinsic[rows]) > 0.5
    return _predicting(bench.network(labels))


def measured_shapes(bench: Bench) -> Outcome:
    """Logistic regression on shapes measured on the pictures, θ by EM."""
    world, rows = bench.world, bench.world.learning
    model = DebiasedLogisticRegression().fit(world.features[rows], world.labels[rows], alpha=world.alpha[rows])
    return Outcome(
        predict=lambda images: model.predict_proba(catalogue_features(images))[:, 1], transition=model.transition_
    )


def ddb(estimate: Estimate) -> Callable[[Bench], Outcome]:
    """DDB: trained through an estimate of T(α)."""

    def run(bench: Bench) -> Outcome:
        fit = estimate(bench.world)
        said = {"family": fit.family, "findings": [one.to_dict() for one in fit.findings]}
        model = bench.network(bench.world.labels, fit.transition)
        return _predicting(model, None if n_observables(fit.transition) else fit.transition, **said)

    return run


def with_votes(bench: Bench) -> Outcome:
    """DDB on vote counts: beta-binomial in a class, fitted to all votes alone, family by AIC."""
    world = bench.world
    disk = np.rint(VOLUNTEERS * world.vote_fraction).astype(np.int64)
    counts = np.column_stack([VOLUNTEERS - disk, disk])
    fit = _best_of_families(world, counts, method="votes", seed=world.seed)
    assert fit.votes is not None
    model = bench.network(world.labels, evidence=fit.votes.log_probabilities(counts, world.alpha))
    return _predicting(model, family=fit.family, overdispersion=fit.votes.overdispersion.tolist())


def with_gold_and_votes(bench: Bench) -> Outcome:
    """DDB on votes, what they mean regressed on 300 gold labels; gold galaxies count as known.

    p(y | votes, α, z) / p(y | α, z) is proportional to p(votes | y, α, z): no shape of T and no distribution of votes
    is assumed.
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
    """DDB: the T(α) that labels really followed."""
    transition = bench.world.transition
    return _predicting(bench.network(bench.world.labels, transition), transition)


def right_votes(bench: Bench) -> Outcome:
    """DDB: the distribution of votes is known, not only how their majorities flip."""
    world = bench.world
    assert world.transition is not None
    evidence = vote_fraction_evidence(world.vote_fraction, world.alpha, world.transition)
    return _predicting(bench.network(world.labels, evidence=evidence - evidence.max(axis=1, keepdims=True)))


def right_copies(bench: Bench) -> Outcome:
    """DDB: the right T(α), and of each picture a copy degraded further with the same label.

    A label flips as α of the picture that was labelled says, so a copy keeps label and α: what is learned of a disk at
    its own resolution is learned at lower ones too.
    """
    world, rows = bench.world, bench.world.rows(TRAIN)
    copies = _degraded_further(world, rows, np.random.default_rng([world.seed, 14]))
    return _predicting(bench.network(world.labels, world.transition, extra=(copies, rows)), world.transition)


def _degraded_further(world: World, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures of some galaxies at α divided by 1 to 2.5."""
    lower = world.alpha[rows] / rng.uniform(1, 2.5, rows.size)
    return degrade(world.images[rows], world.alpha[rows], lower, world.radius[rows], world.seed)


def twin_transition(bench: Bench) -> Transition:
    """T(α) from degraded twins of well-resolved galaxies, labelled by the naive network.

    The network stands for the volunteers. Galaxies in the upper quarter of α keep their label as gold label, since it
    seldom flips there; their pictures, degraded to six lower α, are labelled by the network.
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
    """DDB: T(α) from degraded twins, half of the pictures degraded further, labels and α as they were."""
    world, rows = bench.world, bench.world.rows(TRAIN)
    transition = twin_transition(bench)
    rng = np.random.default_rng([world.seed, 11])
    half = np.sort(rng.choice(rows, rows.size // 2, replace=False))
    copies = _degraded_further(world, half, rng)
    left = np.ones(world.alpha.size, bool)
    left[half] = False
    return _predicting(bench.network(world.labels, transition, kept=left, extra=(copies, half)), transition)


def truth(bench: Bench) -> Outcome:
    """Trained on the true classes: the best that can be reached."""
    return _predicting(bench.network(bench.world.truth))


# Tables


def _after_label(p: np.ndarray, labels: np.ndarray, alpha: np.ndarray, transition: Transition) -> np.ndarray:
    # A label that T calls impossible in a class that p(y) is sure of: leave room.
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return posterior(np.column_stack([1 - p, p]), labels, alpha, transition)[:, 1]


def posterior_of(estimate: Estimate) -> Callable[[Bench], Outcome]:
    """An estimate of T(α) and of class fractions, then the posterior of each galaxy."""

    def run(bench: Bench) -> Outcome:
        world, fit = bench.world, estimate(bench.world)
        p = fit.class_fractions[1] if fit.probabilities is None else fit.probabilities[:, 1]
        several = n_observables(fit.transition)
        resolution = np.column_stack([world.alpha, world.features]) if several else world.alpha
        after = _after_label(np.broadcast_to(p, world.truth.shape), world.labels, resolution, fit.transition)
        return _relabelled(after, None if several else fit.transition)

    return run


def matching(bench: Bench) -> Outcome:
    """Vote fractions matched to the best resolved of like intrinsic properties; the fraction is taken for p(disk)."""
    world = bench.world
    return _relabelled(matched_fractions(world.vote_fraction, world.alpha, world.intrinsic, seed=world.seed))


def _out_of_fold(world: World, columns: np.ndarray, families: Sequence[str]) -> tuple[Outcome, Outcome]:
    """DCV14's p(y | x) of each galaxy from folds without it, and its posterior; of several families the likeliest."""
    family = families[0]
    if len(families) > 1:
        # The families have one or two parameters: AIC.
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
    """DCV14 on catalogue features, out of fold: p(y | x), or the posterior with each galaxy's own label."""

    def run(bench: Bench) -> Outcome:
        world = bench.world
        found = bench.once("dcv14", lambda: _out_of_fold(world, world.features, CURVES[:1]))
        outcome: Outcome = found[posterior]
        return outcome

    return run


def dcv14_all(bench: Bench) -> Outcome:
    """DCV14 on features and intrinsic columns (each column once), family by AIC, the posterior."""
    world = bench.world
    columns = np.unique(np.column_stack([world.features, world.intrinsic]), axis=1)
    return _out_of_fold(world, columns, CURVES)[1]


def votes_regressed(bench: Bench) -> Outcome:
    """p(y | votes, α, z) by logistic regression on 300 gold labels: no T(α) at all."""
    return _relabelled(expit(regressed_on_votes(bench.world)))


def published(bench: Bench) -> Outcome:
    """Hart et al.'s debiased vote fractions, taken for p(disk)."""
    return _relabelled(bench.world.published[HART])


@dataclass(frozen=True)
class Method:
    """A method: its names on the command line and in tables, what it does, its boards, and its worlds (default all)."""

    name: str
    title: str
    run: Callable[[Bench], Outcome]
    boards: tuple[str, ...]
    worlds: Sequence[str] = ()


# Where labels follow a T(α).
_WITH_TRANSITION = [one for one in WITH_PICTURES if SIMULATED.get(one, "real")]
METHODS = (
    Method("labels", "observed labels", as_labelled, (NETWORKS, TABLES)),
    Method("naive", "naive training", naive, (NETWORKS,)),
    Method("constant", "constant flip rate", constant, (NETWORKS,)),
    Method("cleanlab", "cleanlab, then naive", pruned, (NETWORKS,)),
    Method("matching", "vote-fraction matching, then naive", matched, (NETWORKS,)),
    Method("dcv14", "DCV14 on measured shapes", measured_shapes, (NETWORKS,)),
    Method("ddb-paper", "DDB, paper's θ", ddb(papers_bins), (NETWORKS,)),
    Method("ddb-conditional", "DDB, conditional T(α)", ddb(conditional), (NETWORKS,)),
    Method("ddb-gold", "DDB, T(α) from 300 gold labels", ddb(with_gold), (NETWORKS,)),
    Method("ddb-observables", "DDB, T(α, features) from 300 gold labels", ddb(with_observables), (NETWORKS,)),
    Method("ddb-votes", "DDB on vote counts", with_votes, (NETWORKS,)),
    Method("ddb-gold-votes", "DDB on votes and 300 gold labels", with_gold_and_votes, (NETWORKS,)),
    Method("ddb-twins", "DDB, T(α) and training from twins", twins, (NETWORKS,)),
    Method("ddb-right", "DDB, right T(α)", right, (NETWORKS,), _WITH_TRANSITION),
    Method("ddb-right-copies", "DDB, right T(α), degraded copies beside", right_copies, (NETWORKS,), _WITH_TRANSITION),
    Method("ddb-right-votes", "DDB, right model of votes", right_votes, (NETWORKS,), _WITH_TRANSITION),
    Method("truth", "trained on the truth", truth, (NETWORKS,)),
    Method("matching", "vote-fraction matching", matching, (TABLES,)),
    Method("dcv14", "DCV14, p(y | x)", dcv14(posterior=False), (TABLES,)),
    Method("dcv14-posterior", "DCV14, posterior", dcv14(posterior=True), (TABLES,)),
    Method("dcv14-all", "DCV14 on features and z, family by AIC, posterior", dcv14_all, (TABLES,)),
    Method("likelihood", "θ from labels alone, posterior", posterior_of(labels_alone), (TABLES,)),
    Method("conditional", "conditional T(α) and p(y | z), posterior", posterior_of(conditional), (TABLES,)),
    Method("gold", "T(α) from 300 gold labels, posterior", posterior_of(with_gold), (TABLES,)),
    Method(
        "gold-observables", "T(α, features) from 300 gold labels, posterior", posterior_of(with_observables), (TABLES,)
    ),
    Method("gold-votes", "regression of 300 gold labels on votes, α and z", votes_regressed, (TABLES,)),
    Method(HART, HART, published, (TABLES,), GZ2),
)
QUICK = ("labels", "naive", "constant", "ddb-paper", "ddb-right", "truth")


def methods_of(board: str) -> dict[str, Method]:
    """Methods of a board by name, in the order of its figure."""
    return {one.name: one for one in METHODS if board in one.boards}
