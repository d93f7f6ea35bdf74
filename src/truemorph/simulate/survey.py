"""Simulate a survey whose volunteers follow a decision tree: true classes and votes for edge-on disks, bars and arms.

A volunteer who is asked a question gives the true answer as far as the image shows it. Disks are called "features or
disk" with probability 0.9 (1 - exp(-α² / 2θ²)) (eq. 5), where θ is smaller with arms, and smallest with a bar, as in
Galaxy Zoo 2 (Willett et al. 2013) for the bars of Nair & Abraham 2010. Bars are seen if they are long relative to the
PSF (Erwin 2018, MNRAS 474, 5372), arms if they are strong and the galaxy is resolved. Probabilities scatter between
galaxies. Volunteers are asked only what follows from their answers before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import expit, logit

from truemorph.arguments import AtLeastOne, Seed, validated
from truemorph.errors import InputError, nearest
from truemorph.questions import Question, Tree, read_tree, slug
from truemorph.simulate.annotate import VOLUNTEERS
from truemorph.simulate.population import ALPHA, ALPHA_SPREAD, BAR_LIGHT, ELLIPTICAL, LARGEST_EDGE_ON, simulate_galaxies

INTRINSIC = ("radius_kpc", "M_r", "redshift")
TREE, QUESTIONS = "gz2", ("edge-on", "bar", "spiral")
_SEEN = 0.9  # of votes, for what is well resolved
_SCATTER = 5.0  # sum of the parameters of the beta distribution of probabilities
_SMOOTH_AS_DISK, _FALSE_EDGE_ON, _FALSE_ARMS = 0.15, 0.05, 0.05
_EDGE_STEP = 0.05  # width of the change from edge-on to not edge-on, in axis ratio
_BAR_WIDTHS = 1.2  # half length of a bar / FWHM of the PSF, as θ in eq. 5
_ARM_ALPHA = 6.0  # α times the strength of the arms, as θ in eq. 5


@dataclass(frozen=True)
class World:
    """Which galaxies have bars, and how volunteers answer."""

    # p(bar | u) of disks that are not edge-on, where u is the standardised ln α; None: depends on the type only.
    bars: Callable[[np.ndarray], np.ndarray] | None = None
    theta: tuple[float, float, float] = (5.0, 7.0, 12.0)  # of disks with a bar, with arms only, and with neither
    false_votes: float = 0.1  # votes for a bar where there is none, of those asked
    false_bars: float = 0.0  # fraction of galaxies without a bar that volunteers take for barred


def _drifting(slope: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda u: expit(logit(0.35) + slope * u)


WORLDS = {
    "plain": World(),
    "drift up": World(bars=_drifting(0.5)),
    "drift down": World(bars=_drifting(-0.5)),
    "wave": World(bars=lambda u: 0.35 + 0.2 * np.sin(3 * u)),
    "gate by bar": World(theta=(5.0, 16.0, 16.0)),
    "2 % bars": World(bars=lambda u: np.full(u.size, 0.02)),
    "no false bars": World(false_votes=0.0),
    "5 % false bars": World(false_bars=0.05),
}


@validated
def simulate_survey(
    n: AtLeastOne, seed: Seed = 0, *, world: str = "plain", confounded: bool = True
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Simulate galaxies, and a table of volunteers' votes along the decision tree of Galaxy Zoo 2.

    Parameters
    ----------
    n : int
        Number of galaxies.
    seed : int
        Random seed.
    world : str
        "plain", or another that differs from it in one thing. The bar fraction is that of the types of galaxies in
        "plain", 0.02 in "2 % bars", 0.35 + 0.2 sin 3u in "wave", where u = ln(α / 15) / 0.42, and has the logit of 0.35
        ± 0.5 u in "drift up" and "drift down". Volunteers: in "gate by bar", they call disks without a bar "features or
        disk" much more rarely; in "no false bars", they never vote for a bar where there is none; in "5 % false bars",
        they take 5 % of the galaxies without a bar for barred.
    confounded : bool
        As in `simulate_galaxies`.

    Returns
    -------
    galaxies : polars.DataFrame
        Galaxies for `render`, as from `simulate_galaxies`.
    votes : polars.DataFrame
        The same galaxies with Galaxy Zoo 2's names of columns, for `prepare_catalogue`: `dr7objid`; numbers of votes of
        40 volunteers for the questions "smooth", "edge-on", "bar" and "spiral", 0 where nobody was asked
        (`t03_bar_a06_bar_count`, …), and fractions for the first; `petroRad_r` and `psfWidth_r` (arcsec); `radius_kpc`,
        `M_r` (mag), `redshift` and `axis_ratio`; and the truth: `truth` (0 smooth, 1 disk), and names of classes in
        `truth_edge_on`, `truth_bar` and `truth_spiral`.

    Raises
    ------
    InputError
        If there is no such world.

    Examples
    --------
    >>> galaxies, votes = simulate_survey(1000, seed=1, world="drift up")
    >>> votes["truth_bar"].unique(maintain_order=True).sort().to_list()
    ['bar', 'edge-on', 'no bar', 'smooth']
    >>> bool((galaxies["bar_fraction"] > 0).sum() == (votes["truth_bar"] == "bar").sum())
    True
    """
    if world not in WORLDS:
        raise InputError(f"unknown world {world!r}; {nearest(world, list(WORLDS), what='worlds')}")
    of = WORLDS[world]
    rng = np.random.default_rng([seed, 6])
    tree = read_tree(TREE)
    galaxies = simulate_galaxies(n, seed, confounded=confounded)
    if of.bars is not None:
        u = np.log(galaxies["alpha"].to_numpy() / ALPHA) / ALPHA_SPREAD
        true = _features(galaxies)
        barred = (rng.random(n) < of.bars(u)) & true["smooth"] & ~true["edge-on"]
        galaxies = galaxies.with_columns(bar_fraction=np.where(barred, rng.uniform(*BAR_LIGHT, n), 0.0))
    true = _features(galaxies)
    truth = {f"truth_{slug(question)}": _classes(tree, question, true) for question in QUESTIONS}
    votes = _walk(tree, _probabilities(galaxies, true, of, rng), rng)
    return galaxies, survey_table(galaxies, votes).with_columns(galaxies["axis_ratio"], **truth)


def survey_table(galaxies: pl.DataFrame, votes: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """Return galaxies as a table with Galaxy Zoo 2's names of columns, with columns of votes and the truth."""
    own = {name: name for name in (*INTRINSIC, "truth")}
    return galaxies.select(dr7objid="object_id", **votes, petroRad_r="radius", psfWidth_r="psf_fwhm", **own)


def _features(galaxies: pl.DataFrame) -> dict[str, np.ndarray]:
    """Whether each galaxy has what a question asks for, as `render` draws it, shape (N,)."""
    has = {
        "smooth": pl.col("type") != ELLIPTICAL,  # a disk
        "edge-on": pl.col("axis_ratio") <= LARGEST_EDGE_ON,
        "bar": pl.col("bar_fraction") > 0,
        "spiral": (pl.col("arm_strength") > 0) & (pl.col("young_fraction") > 0),
    }
    return {column.name: column.to_numpy() for column in galaxies.select(**has)}


def _answers(question: Question) -> tuple[str, str]:
    """Return the answers to a question: "no" and "yes"."""
    (yes,) = question.shown
    return next(answer for answer in question.answers if answer != yes), yes


def _classes(tree: Tree, question: str, true: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the name of each galaxy's true class."""
    no, yes = _answers(tree.question(question))
    return np.select([~true["smooth"], true["edge-on"], true[question]], ["smooth", "edge-on", yes], no)


def _probabilities(
    galaxies: pl.DataFrame, true: Mapping[str, np.ndarray], world: World, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return mean probabilities that a volunteer who is asked a question answers "yes", shape (N,)."""
    columns = ("alpha", "axis_ratio", "bar_length", "unit_length", "bar_angle", "psf_fwhm", "arm_strength")
    alpha, ratio, length, unit, angle, fwhm, strength = galaxies.select(columns).to_numpy().T
    # As projected on the sky; the angle is in the plane of the disk, from the major axis.
    projected = length * unit * np.hypot(np.cos(angle), ratio * np.sin(angle))
    theta = np.select([true["bar"], true["spiral"]], world.theta[:2], world.theta[2])
    # Where a bar was missed or does not exist, some still vote for it.
    false_bar = np.where(~true["bar"] & (rng.random(alpha.size) < world.false_bars), _SEEN, world.false_votes)
    bar = world.false_votes + (_SEEN - world.false_votes) * _resolved(projected / fwhm, _BAR_WIDTHS)
    return {
        "smooth": np.where(true["smooth"], _SEEN * _resolved(alpha, theta), _SMOOTH_AS_DISK),
        "edge-on": _FALSE_EDGE_ON + (_SEEN - _FALSE_EDGE_ON) * expit((LARGEST_EDGE_ON - ratio) / _EDGE_STEP),
        "bar": np.where(true["bar"], bar, false_bar),
        "spiral": _FALSE_ARMS + (_SEEN - _FALSE_ARMS) * true["spiral"] * _resolved(alpha * strength, _ARM_ALPHA),
    }


def _resolved(x: np.ndarray, theta: np.ndarray | float) -> np.ndarray:
    return -np.expm1(-0.5 * (x / theta) ** 2)  # eq. 5


def _walk(tree: Tree, probabilities: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the votes of volunteers who are each asked what follows from their answers before."""
    counts: dict[str, np.ndarray] = {}
    columns: dict[str, np.ndarray] = {}
    for name, mean in probabilities.items():
        question = tree.question(name)
        before = [counts[answer] for answer in question.asked_after]
        volunteers = np.sum(before, axis=0) if before else np.full(mean.size, VOLUNTEERS)
        # Beta needs positive parameters.
        p = rng.beta(_SCATTER * np.maximum(mean, 1e-9), _SCATTER * (1 - mean))
        no, yes = _answers(question)
        counts[yes] = rng.binomial(volunteers, p)
        counts[no] = volunteers - counts[yes]
        for answer, (column, *_) in question.answers.items():
            votes = counts.get(answer, np.zeros_like(volunteers))
            columns[tree.counts[0].format(column=column)] = votes
            if not before:
                columns[tree.fractions[0].format(column=column)] = votes / VOLUNTEERS
    return columns
