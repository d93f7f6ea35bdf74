"""How answers of several people become one gold label, and how well people agree."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import brentq

from truemorph.bias.curves.formulas import RayleighTransition
from truemorph.gold.answers import FIRST, REPEAT, TWIN
from truemorph.gold.choices import ARTEFACT, UNCLEAR
from truemorph.questions import SMOOTH_OR_DISK

# Printed wherever gold labels are combined.
RULE = (
    "The gold label is the class that most people chose; there is none if as many chose another class, or if nobody "
    "could tell. A galaxy is uncertain if somebody could not tell, or if people did not agree."
)
_RESAMPLES = 500
_FEWEST_TWINS = 10
# Probability that θ is above its upper limit, and the smallest and largest θ.
_TAIL, _THETA = 0.025, (0.05, 1000)


def combined(answers: pl.DataFrame, classes: Sequence[str] = SMOOTH_OR_DISK) -> pl.DataFrame:
    """Combine answers (`annotator`, `galaxy`, `answer`, `time`; one row a person and galaxy) by `RULE`.

    An answer is a class, unclear or artefact. Returns `object_id`, `gold` (number of the class, or null),
    `gold_uncertain` (0, 1), `gold_people`, `gold_time` (of the last answer).
    """
    each = [(pl.col("answer") == name).sum() for name in classes]
    unclear, artefact = ((pl.col("answer") == answer).sum() for answer in (UNCLEAR, ARTEFACT))
    total, most = pl.sum_horizontal(each), pl.max_horizontal(each)
    whole = artefact <= total + unclear
    differ = (total > most) | ((artefact > 0) & (total > 0))
    alone = pl.sum_horizontal(count == most for count in each) == 1
    gold = pl.coalesce(pl.when(whole & alone & (count == most)).then(k) for k, count in enumerate(each))
    return (
        answers.group_by(object_id="galaxy")
        .agg(
            gold=gold.cast(pl.Int64),
            gold_uncertain=(whole & ((unclear > 0) | differ)).cast(pl.Int64),
            gold_people=pl.col("annotator").unique().sort().str.join(", "),
            gold_time=pl.col("time").max(),
        )
        .sort("object_id")
    )


def agreement(answers: pl.DataFrame) -> dict[str, Any]:
    """Measure how well people agree, from answers as `read_answers` returns them.

    `pairs` of people: the fraction of galaxies on which they agree, and Cohen's kappa; `fleiss`: Fleiss' kappa of the
    galaxies that all labelled, None for fewer than three people; `self_consistency`: repeats answered alike;
    `disagreements`: galaxies.
    """
    first = answers.filter(occasion=FIRST)
    people = sorted(first["annotator"].unique())
    numbered = first.rename({"galaxy": ""}).with_columns(pl.col("answer").rank("dense"))
    codes = numbered.pivot("annotator", index="", values="answer").drop("")  # nobody is called ""
    rng = np.random.default_rng(0)
    pairs = []
    for two in combinations(people, 2):
        both = codes.select(two).drop_nulls().to_numpy()
        if len(both):
            alike = float(np.mean(both[:, 0] == both[:, 1]))
            pairs.append({"people": list(two), "agree": alike, **_with_error(cohen_kappa, both, rng)})
    every = codes.drop_nulls().to_numpy()
    fleiss = _with_error(fleiss_kappa, every, rng) if len(people) > 2 and len(every) else None
    consistency = (
        _beside_first(answers, REPEAT)
        .group_by("annotator")
        .agg(repeats=pl.len(), alike=(pl.col("answer") == pl.col("again")).mean())
    )
    differing = first.filter(pl.col("answer").n_unique().over("galaxy") > 1)["galaxy"].unique()
    return {
        "pairs": pairs,
        "fleiss": fleiss,
        "self_consistency": consistency.sort("annotator").to_dicts(),
        "disagreements": sorted(differing),
    }


def misses_on_copies(
    answers: pl.DataFrame, given: Mapping[str, str], classes: Sequence[str], featureless: str | None
) -> dict[str, dict[str, Any]]:
    """Measure how people miss each class on degraded copies; not the class of `featureless` galaxies.

    `given` has the class of each answer. A galaxy that a person gives a class, and on its copy another one, or can't
    tell there, was missed. One that several people saw counts once. Returns by class the number of `galaxies`, the
    fraction `missed` (None without any), and from 10 galaxies on `theta` of eq. 5, most likely; `upper`, the upper end
    of its 95 % range; and `called`: the share of each other class among the misses, and one miss spread over all of
    them.
    """
    given = {answer: name for answer, name in given.items() if answer != ARTEFACT}
    classified = pl.col("answer", "again").replace_strict(given, default=None)
    twins = _beside_first(answers, TWIN).with_columns(classified).drop_nulls(["answer", "again"])
    grid, found = np.geomspace(*_THETA, 2000), {}
    for name in classes:
        own = twins.filter(answer=name).with_columns(weight=1 / pl.len().over("galaxy"))
        if name == featureless or twins.is_empty():
            continue
        if own.is_empty():
            found[name] = {"galaxies": 0, "missed": None}
            continue
        weight, alpha = own["weight"].to_numpy(), own["twin_alpha"].to_numpy()
        missed = (own["again"] != name).to_numpy()
        of_class: dict[str, Any] = {
            "galaxies": own["galaxy"].n_unique(),
            "missed": float(np.average(missed, weights=weight)),
        }
        found[name] = of_class
        if of_class["galaxies"] < _FEWEST_TWINS:
            continue
        flip = np.clip(np.exp(-(alpha**2) / (2 * grid[:, None] ** 2)), 1e-300, 1 - 1e-12)  # eq. 5
        theta = float(grid[(np.where(missed, np.log(flip), np.log1p(-flip)) * weight).sum(axis=1).argmax()])
        misses = int(np.ceil(weight @ missed - 1e-9))
        upper = max(theta, _upper_theta(own.unique("galaxy")["twin_alpha"].sort().to_numpy(), misses))
        counts = {other: weight[own["again"] == other].sum() for other in classes if other != name}
        total = sum(counts.values()) + 1
        called = {other: float((count + 1 / len(counts)) / total) for other, count in counts.items()}
        of_class |= {"theta": theta, "upper": upper, "called": called}
    return found


def _upper_theta(alpha: np.ndarray, misses: int) -> float:
    """Return the θ at which so few misses of galaxies at α, shape (N,), have a probability of 2.5 %."""

    def excess(log_theta: float) -> float:
        chances = np.eye(1, misses + 1)[0]  # of 0, 1, … misses among the galaxies so far; more are too many
        for flip in RayleighTransition(np.exp(log_theta)).flip_probability(alpha):
            chances = chances * (1 - flip) + np.append(0, chances[:-1]) * flip
        return float(chances.sum()) - _TAIL

    smallest, largest = np.log(_THETA)
    return float(np.exp(largest if excess(largest) > 0 else brentq(excess, smallest, largest)))


def _beside_first(answers: pl.DataFrame, occasion: str) -> pl.DataFrame:
    """Each person's answer on the first occasion (`answer`) and on another one (`again`)."""
    again = answers.filter(occasion=occasion).select("annotator", "galaxy", "twin_alpha", again="answer")
    first = answers.filter(occasion=FIRST).select("annotator", "galaxy", "answer")
    return first.join(again, on=["annotator", "galaxy"])


def _with_error(
    kappa: Callable[[np.ndarray], float], answers: np.ndarray, rng: np.random.Generator
) -> dict[str, float]:
    """A coefficient, and its scatter over resamples of galaxies."""
    n = len(answers)
    draws = [kappa(answers[rng.integers(0, n, n)]) for _ in range(_RESAMPLES)]
    return {"galaxies": n, "kappa": kappa(answers), "kappa_stderr": float(np.std(draws))}


def cohen_kappa(both: np.ndarray) -> float:
    """Return Cohen's kappa (1960, Educational and Psychological Measurement 20, 37) of answers, shape (galaxies, 2)."""
    alike = float(np.mean(both[:, 0] == both[:, 1]))
    chance = float(np.sum(np.prod([(both == answer).mean(axis=0) for answer in np.unique(both)], axis=1)))
    return 1.0 if chance == 1 else (alike - chance) / (1 - chance)


def fleiss_kappa(every: np.ndarray) -> float:
    """Return Fleiss' kappa (1971, Psychological Bulletin 76, 378) of answers, shape (galaxies, people)."""
    people = every.shape[1]
    counts = np.stack([(every == answer).sum(axis=1) for answer in np.unique(every)], axis=1)
    alike = ((counts**2).sum(axis=1) - people) / (people * (people - 1))
    chance = float(np.sum((counts.sum(axis=0) / counts.sum()) ** 2))
    return 1.0 if chance == 1 else float((alike.mean() - chance) / (1 - chance))
