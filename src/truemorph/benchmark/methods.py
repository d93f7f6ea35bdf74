"""Methods of the leaderboard.

With images, a method trains a network and predicts the classes of test galaxies, whose labels it does not see. Without
images, it relabels the galaxies from labels, votes and columns. Only `truth` knows all true classes; methods with gold
labels know 300.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from truemorph.benchmark.bars import BAR
from truemorph.benchmark.worlds import GZ2, HART, SIMULATED, WITH_PICTURES, World, catalogue_features
from truemorph.bias.binning import RankedTable
from truemorph.bias.checks.diagnostics import compare_families
from truemorph.bias.curves.families import KNOWN_CURVES
from truemorph.bias.curves.formulas import ConstantTransition, MatrixTransition
from truemorph.bias.curves.transitions import UNKNOWN, Transition
from truemorph.bias.fitting import fit_transition
from truemorph.bias.fractions import debiased_fractions
from truemorph.bias.likelihood import label_columns, label_evidence, posterior
from truemorph.bias.result import TransitionFit
from truemorph.catalogs.sampling import TEST, TRAIN, UNUSED, VALIDATION
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.config import TrainingConfig, training_config
from truemorph.images.degrade import degrade
from truemorph.questions import Votes, log_odds
from truemorph.simulate.annotate import VOLUNTEERS

NETWORKS, TABLES = "networks", "tables"  # with images and without
_FEWEST_VOTES = 10  # for the question, in samples that are cut (Willett et al. 2013)
_HELD_OUT = 5  # one of so many gold labels decides when training stops, if there are no other labels
_TWIN_LEVELS = 6
_FOLDS = 3


def benchmark_config(pixels: int, epochs: int) -> TrainingConfig:
    """Return the settings of every network: preset "quick", one network, no crop."""
    return training_config("quick", folds=1, crop=1.0, image_size=pixels, epochs=epochs)


# Result of a method: a function of images, shape (M, S, S, 3), that returns p(class 1), shape (M,), or of a question p
# of all classes, shape (M, K); or these p of all galaxies; or None, if it leaves the observed labels as they are.
Outcome = Callable[[np.ndarray], np.ndarray] | np.ndarray | None


def network(
    world: World,
    labels: np.ndarray,
    transition: Transition | None = None,
    *,
    folds: int = 1,
    evidence: np.ndarray | None = None,
    votes: np.ndarray | None = None,
    split: np.ndarray | None = None,
    tuned: bool = False,
) -> Any:
    """Train a classifier on the world's training galaxies.

    T may be in α or in α and features; without it, labels are treated as correct. `evidence`, log p(observed | y),
    or fractions of `votes` for each class replace the labels, shape (N, K). With fewer training galaxies than the
    world has (`split`) there are more epochs, so that the number of steps is about the same. With `tuned`, the
    network is tuned on the 300 gold labels.
    """
    from truemorph.classifiers.members import train_members
    from truemorph.classifiers.rows import Gold, TrainingRows

    learned = world if split is None else replace(world, split=split)
    assert world.config is not None
    rows = learned.learning
    fewer = learned.rows(TRAIN).size / world.rows(TRAIN).size
    changes = {"folds": folds, "seed": world.seed, "epochs": round(world.config.epochs / fewer), **world.training}
    config = world.config.model_copy(update=changes)
    curve = transition or MatrixTransition.identity(len(world.names))
    observed: dict[str, Any]
    if votes is not None:
        observed = {"votes": votes[rows]}
    else:
        if evidence is None:
            argument = np.column_stack([world.alpha, world.features]) if curve.n_observables else world.alpha
            evidence = label_columns(curve, labels, argument)
        observed = {"evidence": evidence[rows], "questions": (world.asked,)}
    if tuned:
        gold = learned.gold[rows]
        observed["gold"] = Gold((gold != UNKNOWN).astype(float), certain(gold, len(world.names)))
    columns = {"object_id": rows, "label": labels[rows], "alpha": world.alpha[rows], "split": learned.split[rows]}
    training = TrainingRows(pl.DataFrame(columns), world.images[rows], label=world.names, **observed)
    return train_members(training, curve, config, f"{world.name} {world.seed}")


def trained(world: World, labels: np.ndarray, transition: Transition | None = None, **options: Any) -> Outcome:
    """Train a classifier, with the options of `network`, and predict with it."""
    model = network(world, labels, transition, **options)
    if world.asked is not None:
        return model.probabilities
    return lambda images: model.predict_proba(images)[:, 1]


def through(world: World, transition: Transition | None, *, tuned: bool = False) -> Outcome:
    """Train through a T(α) of the labels, or of the votes of a question."""
    assert transition is not None
    if world.asked is None:
        return trained(world, world.labels, transition, tuned=tuned)
    return trained(world, world.labels, evidence=of_votes(world, transition), tuned=tuned)


def certain(classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the evidence of classes that are known, shape (N, K); 0 of those that are not."""
    return np.where(np.eye(n_classes, dtype=bool)[classes] | (classes == UNKNOWN)[:, None], 0.0, -np.inf)


def of_votes(world: World, transition: Transition) -> np.ndarray:
    """Return log p(votes | class, α), shape (N, K), relative to the likeliest class."""
    evidence = label_evidence(transition, world.votes.columns, world.alpha)
    return evidence - evidence.max(axis=1, keepdims=True)


def learning_votes(world: World) -> Votes:
    """Return the votes for galaxies of training and validation."""
    return world.votes.asked.votes(world.votes.columns[world.learning])


# Estimates of T(α) from labels and columns of the training galaxies

Estimate = Callable[[World], TransitionFit]


def _best_of_families(world: World, **options: Any) -> TransitionFit:
    """Fit all families and return the one of lowest AIC."""
    rows = world.learning
    compared = compare_families(world.labels[rows], world.alpha[rows], KNOWN_CURVES, **options)
    return compared.fits[compared.best]


def labels_alone(world: World, method: str = "likelihood") -> TransitionFit:
    """Estimate θ by likelihood, or as the paper, in bins of 64 galaxies ("binned")."""
    return fit_transition(world.labels[world.learning], world.alpha[world.learning], method=method)


def conditional(world: World) -> TransitionFit:
    """Estimate T(α) together with p(y | intrinsic columns); family by AIC."""
    return _best_of_families(world, intrinsic=world.intrinsic[world.learning])


def with_gold(world: World) -> TransitionFit:
    """Estimate T(α) from 300 gold labels; family by AIC, of a question that of paths."""
    if world.asked is not None:
        rows = world.learning
        return fit_transition(learning_votes(world), world.alpha[rows], gold=world.gold[rows])
    return _best_of_families(world, gold=world.gold[world.learning], seed=world.seed)


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
    """Match vote fractions, shape (N,), to those of the best-resolved galaxies with similar intrinsic columns.

    Follows the idea of Bamford et al. 2009, Willett et al. 2013 and Hart et al. 2016. Galaxies are binned by the first
    three intrinsic columns (leaves of a k-d tree as in CV18: four for one column, eight for more) and, in each leaf, by
    α in bins of equal counts. Fractions of each bin keep their order (equal ones are ordered at random) and take the
    distribution of the best-resolved bin of the leaf. The assumption is that all bins of a leaf would have the same
    distribution at equal resolution.
    """
    n, depth = fraction.size, min(3, intrinsic.shape[1] + 1)
    among_equals = np.random.default_rng([seed, 8]).random(n)
    table = RankedTable(alpha[:, None], intrinsic[:, :depth])
    leaf = np.empty(n, int)
    leaf[table.rows] = table.cut(depth, bins).leaf
    out = fraction.astype(float)
    for number in np.unique(leaf):
        members = np.flatnonzero(leaf == number)
        *parts, sharp = np.array_split(members[np.argsort(alpha[members], kind="stable")], bins)
        best = np.sort(fraction[sharp])
        for part in parts:
            order = np.lexsort((among_equals[part], fraction[part]))
            position = (np.arange(part.size) + 0.5) / part.size
            out[part[order]] = best[(position * best.size).astype(int)]
    return out


def matched_votes(votes: Votes, alpha: np.ndarray, intrinsic: np.ndarray, seed: int) -> Votes:
    """Match the fractions of votes at each question to those of the best-resolved galaxies that were asked."""
    counts = {}
    for question in votes.asked.questions:
        numbers = votes.counts[question.name]
        total = numbers.sum(axis=1)
        out = np.zeros(numbers.shape)
        yes = list(question.answers).index(question.shown[0])
        rows = np.flatnonzero(total)
        fraction = numbers[rows, yes] / total[rows]
        matched = matched_fractions(fraction, alpha[rows], intrinsic[rows], seed=seed)
        out[rows, yes] = total[rows] * matched
        out[rows, 1 - yes] = total[rows] * (1 - matched)
        counts[question.name] = out
    return replace(votes, counts=counts)


def path_votes(votes: Votes) -> np.ndarray:
    """Return the fractions of volunteers whose answers end in each class, shape (N, K)."""
    asked = votes.asked
    last = [np.flatnonzero(along)[-1] for along in asked.along]  # the answer with which each path ends
    counts = votes.columns[:, last] @ np.eye(len(asked.classes))[list(asked.of_paths)]
    return counts / counts.sum(axis=1, keepdims=True)


def votes_regressed(world: World) -> Outcome:
    """Regress 300 gold labels on votes, α and intrinsic columns, without T(α)."""
    gold = world.gold
    fraction = world.vote_fraction
    log_alpha = np.log(world.alpha)
    columns = [fraction, fraction**2, fraction * log_alpha, log_alpha, log_alpha**2]
    design = np.column_stack([*columns, *world.intrinsic.T])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    has_gold = gold != UNKNOWN
    return model.fit(design[has_gold], gold[has_gold]).predict_proba(design)[:, 1]


# Networks


def naive(world: World) -> Outcome:
    """Treat the labels as correct."""
    return trained(world, world.labels)


def right(world: World) -> Outcome:
    """Train through the true T(α)."""
    return through(world, world.transition)


def constant(world: World) -> Outcome:
    """Train through one flip rate for all α: forward correction (Patrini et al. 2017, CVPR).

    Labels alone cannot determine a constant flip rate, so it is the mean over galaxies of the fitted Rayleigh T(α).
    """
    fit = labels_alone(world)
    flips = fit.transition.flip_probability(world.alpha[world.learning])
    return trained(world, world.labels, ConstantTransition(flip=float(np.mean(flips))))


def undoubted(world: World) -> np.ndarray:
    """Find galaxies without a label issue by cleanlab, from naive networks of three folds, shape (N,).

    Confident learning: Northcutt et al. 2021, JAIR.
    """
    from cleanlab.filter import find_label_issues

    folded = network(world, world.labels, folds=_FOLDS)
    seen = folded.seen.filter(pl.col("fold") >= 0)
    rows = seen["object_id"].to_numpy()
    p, _ = folded.out_of_fold(world.images[rows], seen["fold"].to_numpy(), folded.member_probabilities)
    kept = np.ones(world.alpha.size, bool)
    kept[rows] = ~find_label_issues(world.labels[rows], p, n_jobs=1)
    return kept


def pruned(world: World) -> Outcome:
    """Drop label issues found by cleanlab, then train on the other labels."""
    dropped = (world.split == TRAIN) & ~undoubted(world)
    left = replace(world, split=np.where(dropped, UNUSED, world.split))
    return trained(left, world.labels)


def matched(world: World) -> Outcome:
    """Match vote fractions, at each question, then train on their majorities."""
    rows = world.learning
    labels = world.labels.copy()
    alpha = world.alpha[rows]
    intrinsic = world.intrinsic[rows]
    if world.asked is None:
        labels[rows] = matched_fractions(world.vote_fraction[rows], alpha, intrinsic) > 0.5
    else:
        labels[rows] = matched_votes(learning_votes(world), alpha, intrinsic, world.seed).labels
    return trained(world, labels)


def raw_counts(world: World) -> Outcome:
    """Train on numbers of votes, whose log-likelihood is Σ k log p of the paths on which volunteers ended.

    Zoobot (Walmsley et al. 2022, MNRAS 509, 3966) fits raw counts too, by a Dirichlet-multinomial at each question; its
    errors are compared in benchmarks/known_bars.py.
    """
    return trained(world, world.labels, votes=path_votes(world.votes))


def majority_with_cuts(world: World) -> Outcome:
    """Train on the majority of galaxies with at least 10 votes for the question; only such galaxies are counted."""
    question = world.votes.asked.asked
    counts = world.votes.counts[question.name]
    has_votes = counts.sum(axis=1) >= _FEWEST_VOTES
    of_answers = np.array([world.names.index(answer) for answer in question.answers])
    split = np.where(has_votes | (world.split == TEST), world.split, UNUSED)
    model = network(world, of_answers[counts.argmax(axis=1)], split=split)
    # A weight that hardly counts in the fraction keeps p(bar | the question applies) of the others.
    return model.probabilities(world.images) * np.where(has_votes, 1.0, 1e-9)[:, None]


def gold_alone(world: World) -> Outcome:
    """Train on 300 gold labels, of which a fifth decides when to stop."""
    gold = world.gold
    rows = np.flatnonzero(gold != UNKNOWN)
    split = np.where(world.split == TEST, world.split, UNUSED)
    split[rows] = TRAIN
    split[rows[::_HELD_OUT]] = VALIDATION
    return trained(world, np.maximum(gold, 0), split=split)


def measured_shapes(world: World) -> Outcome:
    """Fit DCV14 to shapes measured on the images."""
    rows = world.learning
    model = DebiasedLogisticRegression().fit(world.features[rows], world.labels[rows], alpha=world.alpha[rows])
    return lambda images: model.predict_proba(catalogue_features(images))[:, 1]


def ddb(estimate: Estimate, *, tuned: bool = False) -> Callable[[World], Outcome]:
    """Return a method that trains through an estimate of T(α), and tunes the network on gold labels."""
    return lambda world: through(world, estimate(world).transition, tuned=tuned)


def twin_transition(world: World) -> Transition:
    """Estimate T(α) from degraded twins of well-resolved galaxies.

    Labels of galaxies in the upper quarter of α, which seldom flip, serve as gold labels. Their images, degraded to six
    values of α, are labelled by the naive network in place of volunteers.
    """
    emulator = network(world, world.labels)
    rows = world.rows(TRAIN)
    lowest, best = np.quantile(world.alpha[rows], [0.02, 0.75])
    sharp = rows[world.alpha[rows] >= best]
    rng = np.random.default_rng([world.seed, 10])
    levels = np.geomspace(lowest, best, _TWIN_LEVELS)
    labels = []
    for level in levels:
        seed = int(rng.integers(2**31))
        pictures = degrade(world.images[sharp], world.alpha[sharp], level, world.radius[sharp], seed)
        labels.append((rng.random(sharp.size) < emulator.predict_proba(pictures)[:, 1]).astype(int))
    observed, gold = np.concatenate(labels), np.tile(world.labels[sharp], _TWIN_LEVELS)
    false_disk = "fit" if np.any((gold == 0) & (observed == 1)) else 0.0
    compared = compare_families(observed, np.repeat(levels, sharp.size), KNOWN_CURVES, gold=gold, false_disk=false_disk)
    return compared.fits[compared.best].transition


def twins(world: World) -> Outcome:
    """Train through T(α) from degraded twins, with half of the images replaced by copies at α divided by 1 to 2.5.

    A copy keeps the label and α of its original, because that is the image that was labelled.
    """
    rows = world.rows(TRAIN)
    transition = twin_transition(world)
    rng = np.random.default_rng([world.seed, 11])
    half = np.sort(rng.choice(rows, rows.size // 2, replace=False))
    lower = world.alpha[half] / rng.uniform(1, 2.5, half.size)
    images = world.images.copy()
    images[half] = degrade(images[half], world.alpha[half], lower, world.radius[half], world.seed)
    return trained(replace(world, images=images), world.labels, transition)


# Tables


def _after_label(p: np.ndarray, labels: np.ndarray, alpha: np.ndarray, transition: Transition) -> np.ndarray:
    # Keep the posterior finite where a label is impossible in the only class with p > 0.
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return posterior(np.column_stack([1 - p, p]), labels, alpha, transition)[:, 1]


def posterior_of(estimate: Estimate) -> Callable[[World], Outcome]:
    """Return a method that estimates T(α) and class fractions, and returns each galaxy's posterior."""

    def run(world: World) -> Outcome:
        fit = estimate(world)
        p = fit.class_fractions[1] if fit.probabilities is None else fit.probabilities[:, 1]
        return _after_label(np.broadcast_to(p, world.truth.shape), world.labels, fit.sample.argument, fit.transition)

    return run


def matching(world: World) -> Outcome:
    """Match vote fractions, and use them as p(class 1)."""
    return matched_fractions(world.vote_fraction, world.alpha, world.intrinsic, seed=world.seed)


def regressed(world: World) -> Outcome:
    """Regress 300 gold labels on labels, votes, α and intrinsic columns with truemorph, as estimates do."""
    votes = log_odds(VOLUNTEERS * np.column_stack([1 - world.vote_fraction, world.vote_fraction]))
    fractions = debiased_fractions(world.labels, world.alpha, gold=world.gold, covariates=world.intrinsic, votes=votes)
    assert fractions.probabilities is not None
    return fractions.probabilities[:, 1]


def dcv14(world: World, columns: np.ndarray, *, own_label: bool = True, family: str | None = "rayleigh") -> Outcome:
    """Return p(y | x) of DCV14 out of fold, or the posterior with the galaxy's own label; default family by AIC."""

    def fitted(family: str, rows: Any) -> DebiasedLogisticRegression:
        return DebiasedLogisticRegression(family).fit(columns[rows], world.labels[rows], alpha=world.alpha[rows])

    if family is None:
        whole = {family: fitted(family, slice(None)) for family in KNOWN_CURVES}
        # AIC, as families have one or two parameters.
        family = min(whole, key=lambda name: len(whole[name].stderr_) - whole[name].log_likelihood_)
    fold = np.random.default_rng([world.seed, 13]).integers(0, _FOLDS, world.truth.size)
    p = np.empty(world.truth.size)
    for number in range(_FOLDS):
        left = fold == number
        model = fitted(family, ~left)
        p[left] = model.predict_proba(columns[left])[:, 1]
        if own_label:
            p[left] = _after_label(p[left], world.labels[left], world.alpha[left], model.transition_)
    return p


def dcv14_all(world: World) -> Outcome:
    """Return the posterior of DCV14 on features and intrinsic columns (each once); family by AIC."""
    columns = np.unique(np.column_stack([world.features, world.intrinsic]), axis=1)
    return dcv14(world, columns, family=None)


@dataclass(frozen=True)
class Method:
    """A method: title, function, and worlds (default all)."""

    title: str
    run: Callable[[World], Outcome]
    worlds: Sequence[str] = ()


# Worlds whose labels follow a T(α).
_WITH_TRUE_T = [picture for picture in WITH_PICTURES if SIMULATED.get(picture, "real")]
_LABELS = Method("observed labels", lambda world: None)
_TRUTH = Method("trained on true classes", lambda world: trained(world, world.truth))
# Methods of each board by their name on the command line, in the order of the figure.
METHODS = {
    NETWORKS: {
        "labels": _LABELS,
        "naive": Method("naive training", naive),
        "constant": Method("one flip rate for all α", constant),
        "cleanlab": Method("cleanlab, then naive", pruned),
        "matching": Method("vote-fraction matching, then naive", matched),
        "dcv14": Method("DCV14 on measured shapes", measured_shapes),
        "ddb-paper": Method("DDB, paper's θ", ddb(lambda world: labels_alone(world, "binned"))),
        "ddb-conditional": Method("DDB, T(α) given intrinsic columns", ddb(conditional)),
        "ddb-gold": Method("DDB, T(α) from 300 gold labels", ddb(with_gold)),
        "ddb-tuned": Method("the same, tuned on these gold labels", ddb(with_gold, tuned=True)),
        "ddb-observables": Method("DDB, T(α, features) from 300 gold labels", ddb(with_observables)),
        "ddb-twins": Method("DDB, T(α) from degraded twins", twins),
        "ddb-right": Method("DDB, true T(α)", right, _WITH_TRUE_T),
        "truth": _TRUTH,
    },
    TABLES: {
        "labels": _LABELS,
        "matching": Method("vote-fraction matching", matching),
        "dcv14": Method("DCV14, p(y | x)", lambda world: dcv14(world, world.features, own_label=False)),
        "dcv14-posterior": Method("DCV14, posterior", lambda world: dcv14(world, world.features)),
        "dcv14-all": Method("DCV14, all columns, posterior", dcv14_all),
        "likelihood": Method("θ from labels alone, posterior", posterior_of(labels_alone)),
        "conditional": Method("T(α) given intrinsic columns, posterior", posterior_of(conditional)),
        "gold": Method("T(α), 300 gold labels, posterior", posterior_of(with_gold)),
        "gold-observables": Method("T(α, features), gold labels, posterior", posterior_of(with_observables)),
        "gold-votes": Method("300 gold labels regressed on votes", votes_regressed),
        "gold-regression": Method("300 gold labels, regression of an estimate", regressed),
        HART: Method(HART, lambda world: world.hart, GZ2),
    },
    BAR: {
        "labels": replace(_LABELS, title="majority paths"),
        "naive": Method("majority paths, naive training", naive),
        "counts": Method("raw counts of votes", raw_counts),
        "cuts": Method("majority of at least 10 votes", majority_with_cuts),
        "matching": Method("vote-fraction matching at each question", matched),
        "gold": Method("300 gold labels alone", gold_alone),
        "ddb-gold": Method("DDB, T of paths from 300 gold labels", ddb(with_gold)),
        "ddb-tuned": Method("the same, tuned on these gold labels", ddb(with_gold, tuned=True)),
        "ddb-right": Method("DDB, true T of paths", right, ("real bars",)),
        "truth": _TRUTH,
    },
}
QUICK = ("labels", "naive", "constant", "counts", "ddb-paper", "ddb-gold", "ddb-right", "truth")
