"""Bars: worlds whose volunteers follow a decision tree, and scores of answers to a question of it.

Classes are the paths to the answers: smooth, edge-on, no bar and bar. Networks learn all of them; p(bar | the question
applies) is scored where it truly applies, the bar fraction is a ratio of sums over all galaxies.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.arrays import rms
from truemorph.benchmark.worlds import EFIGI_ALPHA, EFIGI_SPREAD, FILES, Sizes, World, degraded_efigi, drawn, split_of
from truemorph.bias.binning import Bins
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import UNKNOWN
from truemorph.bias.metrics.scores import score
from truemorph.catalogs.paths import votes_of_survey
from truemorph.questions import Asked, Votes, read_tree
from truemorph.simulate.annotate import VOLUNTEERS
from truemorph.simulate.survey import INTRINSIC, TREE, simulate_survey
from truemorph.tables import left_join

BAR = "bar"
BAR_CLASSES = ("no bar", "bar")
BAR_WORLDS = ("plain", "gate by bar", "real bars")
# Artifacts, of which the worlds have none, count as smooth.
ASKED = Asked.named(read_tree(TREE), BAR, ("smooth", "edge-on", *BAR_CLASSES, "smooth"))
# Rotations and shifts that interpolate blur small training images. Others look sharper, so that too many have bars:
# +0.03 of the bar fraction, even of networks trained on true classes (docs/validation.md).
SHARP = {"rotation": "quarter", "shift": 0.0}

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
    scores = tuple([[[0, 0], *answers] for answers in every] for every in _SCORES)
    rho = ((_OVERDISPERSION,) * len(ASKED.classes),) * len(ASKED.questions)
    return TreeTransition(ASKED, scores, scores, rho, (np.log(EFIGI_ALPHA),), (EFIGI_SPREAD,))


def draw_votes(transition: TreeTransition, classes: np.ndarray, alpha: np.ndarray, seed: int) -> Votes:
    """Draw the answers of 40 volunteers, who are each asked what follows from their answers before."""
    assert transition.overdispersion is not None
    rng = np.random.default_rng([seed, 14])
    asked_of = transition.asked
    n = classes.size
    reached: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}
    every = zip(asked_of.questions, transition.log_answers(alpha, votes=True), transition.overdispersion, strict=True)
    for question, log_mean, rho in every:
        before = [reached[answer] for answer in question.asked_after]
        volunteers = np.sum(before, axis=0) if before else np.full(n, VOLUNTEERS)
        concentration = (1 / np.array(rho) - 1)[classes]
        # Gamma variates need positive parameters.
        p = rng.standard_gamma(np.exp(log_mean)[np.arange(n), classes] * concentration[:, None] + 1e-9) + 1e-12
        counts[question.name] = rng.multinomial(volunteers, p / p.sum(axis=1, keepdims=True))
        reached |= zip(question.answers, counts[question.name].T, strict=True)
    return Votes(asked_of, counts)


def make_bar_world(name: str, seed: int, sizes: Sizes | None, data: Path | None = None) -> World:
    """Make a world of `BAR_WORLDS`, always with images; otherwise as `make_world`."""
    assert sizes is not None
    if name in FILES:
        assert data is not None
        return _efigi_bars(name, seed, sizes, data)
    n = sizes.train + sizes.validation + sizes.test
    galaxies, table = simulate_survey(n, seed, world=name, confounded=False)
    votes, _ = votes_of_survey(table, ASKED.tree, BAR, name)
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
        training=SHARP,
    )


def _efigi_bars(name: str, seed: int, sizes: Sizes, data: Path) -> World:
    """EFIGI images of known bars, degraded to random α, with votes that follow a known T of paths."""
    files = pl.read_csv(data / FILES["real"], infer_schema_length=None).select("pgc_name", "image")
    table = left_join(files, pl.read_parquet(data / FILES[name]), "pgc_name")
    disk, tilt, bar = pl.col("t") >= -3, pl.col("inclination"), pl.col("bar_length")
    class_number = pl.when(pl.col("t") <= -4).then(0).when(disk & (tilt >= 0.75)).then(1)
    class_number = class_number.when(disk & tilt.is_between(0, 0.5) & (bar >= 0)).then(2 + (bar > 0).cast(pl.Int64))
    classes = table.select(class_number.otherwise(UNKNOWN)).to_series().to_numpy()
    world, _ = degraded_efigi(name, "experts' bar_length > 0", table["image"], classes, seed, sizes, data)
    transition = known_transition()
    votes = draw_votes(transition, world.truth, world.alpha, seed)
    return replace(world, votes=votes, transition=transition, classes=BAR_CLASSES, training=SHARP)


def answer_scores(world: World, p: np.ndarray | None, labels: np.ndarray) -> dict[str, float]:
    """Score p of all classes, shape (M, K), or labels, on test galaxies.

    p(bar | the question applies) is scored where it truly applies; fraction errors are those of the ratio of sums over
    all galaxies in fifths of α.
    """
    rows = world.scored
    truth, alpha = world.truth[rows], world.alpha[rows]
    no, yes = map(ASKED.classes.index, BAR_CLASSES)
    inside = np.isin(truth, (no, yes))

    def barred(values: np.ndarray) -> np.ndarray:
        """Return p(bar | the question applies) from p of all classes, shape (M, K)."""
        return values[:, yes] / np.maximum(values[:, yes] + values[:, no], 1e-12)

    p_bar, own, bar = None, labels[inside] == yes, (truth[inside] == yes).astype(int)
    if p is not None:
        p_bar = barred(p[inside])
        own = p_bar > 0.5
    scores = score(bar, alpha[inside], own.astype(int), p_bar, world.intrinsic[rows][inside], world.seed)
    bins, one_hot = Bins.cut(alpha, 5), np.eye(len(ASKED.classes))
    for name, values in (("hard", one_hot[labels]), ("soft", p)):
        if values is not None:
            off = barred(bins.means(values)) - barred(bins.means(one_hot[truth]))
            scores[f"fraction_rms_{name}"] = rms(off)
    return scores
