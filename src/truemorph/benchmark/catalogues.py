"""The leaderboard without images: what can be done with labels, votes and columns alone, in seconds.

Simulated worlds as in `worlds` (same populations and labels; only the annotator who looks needs pictures, drawn small),
and real ones: Galaxy Zoo labels of galaxies with experts' types, scored under both definitions of a disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import expit

from truemorph.benchmark.baselines import matched_fractions, regressed_on_votes
from truemorph.benchmark.worlds import CURVES, FLIPS, HEAVY_FLIPS, INTRINSIC, gold_classes
from truemorph.bias.diagnostics import compare_families
from truemorph.bias.estimation import fit_transition
from truemorph.bias.gold import UNKNOWN
from truemorph.bias.likelihood import posterior
from truemorph.bias.scores import score
from truemorph.bias.transitions import Transition
from truemorph.catalogs.physical import FWHM_PER_SIGMA
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.errors import InputError
from truemorph.simulate.annotate import image_votes, vote_fractions
from truemorph.simulate.pictures import render
from truemorph.simulate.population import simulate_galaxies
from truemorph.workers import worker_pool

DEFINITIONS = {"T >= -3": -3, "T >= 1": 1}
_GALAXIES, _LOOKED_AT, _LOOK_SIZE = 4_000, 2_000, 48
_FOLDS = 3
_ASSUMED_SEEING = 1.32


@dataclass(frozen=True, eq=False)
class CatalogueWorld:
    """A table: labels, α, what is known of each galaxy, and the truth.

    Attributes
    ----------
    name, definition : str
    seed : int
    alpha, truth, labels, vote_fraction : arrays, shape (N,)
    intrinsic, features : arrays, shape (N, P) and (N, F), or None
    published : dict
        Other people's debiased vote fractions for these galaxies.
    """

    name: str
    definition: str
    seed: int
    alpha: np.ndarray
    truth: np.ndarray
    labels: np.ndarray
    vote_fraction: np.ndarray
    intrinsic: np.ndarray | None
    features: np.ndarray | None
    published: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def gold(self) -> np.ndarray:
        """True classes of 300 galaxies, -1 elsewhere, shape (N,)."""
        return gold_classes(self.truth, np.arange(self.truth.size), self.seed)


def _measured_features(galaxies: pl.DataFrame, seed: int) -> np.ndarray:
    """What a catalogue of fits holds: Sérsic-like index, axis ratio, R50, colour; their errors grow with 1/α."""
    rng = np.random.default_rng([seed, 12])
    alpha, n = galaxies["alpha"].to_numpy(), galaxies.height
    error = 0.10 + 1.5 / alpha
    bulge = galaxies["bulge_fraction"].to_numpy()
    index = np.log(bulge * galaxies["sersic_index"].to_numpy() + (1 - bulge)) + error * rng.normal(size=n)
    ratio = np.clip(galaxies["axis_ratio"].to_numpy() + 0.4 * error * rng.normal(size=n), 0.05, 1)
    half = np.log(galaxies["r50"].to_numpy() / galaxies["radius"].to_numpy()) + 0.3 * error * rng.normal(size=n)
    colour = bulge * galaxies["g_r_bulge"].to_numpy() + (1 - bulge) * galaxies["g_r_disk"].to_numpy()
    return np.column_stack([index, ratio, half, colour + 0.04 * rng.normal(size=n)])


def _simulated(name: str, seed: int) -> CatalogueWorld:
    looked_at = name == "image annotator"
    n = _LOOKED_AT if looked_at else _GALAXIES
    galaxies = simulate_galaxies(n, seed, confounded=name == "confounded")
    alpha, truth = galaxies["alpha"].to_numpy(), galaxies["truth"].to_numpy()
    if looked_at:
        votes = image_votes(np.stack([image for _, image in render(galaxies, _LOOK_SIZE, seed)]), seed)
        fraction = votes[:, 1] / votes.sum(axis=1)
    else:
        fraction = vote_fractions(truth, alpha, HEAVY_FLIPS if name == "heavy-tailed" else FLIPS, seed)[1]
    return CatalogueWorld(
        name, "disk = spirals and lenticulars", seed, alpha, truth, (fraction > 0.5).astype(np.int64), fraction,
        galaxies.select(INTRINSIC).to_numpy(), _measured_features(galaxies, seed),
    )  # fmt: skip


def _table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    frame = pl.read_csv(path, infer_schema_length=None)
    absent = [name for name in columns if name not in frame.columns]
    if absent:
        raise InputError(f"{path}: no column {absent[0]!r}; it needs {', '.join(columns)}")
    return frame


def _experts(definition: str, seed: int, data: Path) -> CatalogueWorld:
    """GZ1's spiral flags beside experts' types; the axis ratio is property and feature."""
    frame = _table(data / "expert_vs_crowd.csv", ("gz1_spiral", "axis_ratio", "petroR90_g", "t_type"))
    labels = frame["gz1_spiral"].to_numpy().astype(np.int64)
    ratio = frame["axis_ratio"].to_numpy()[:, None]
    return CatalogueWorld(
        f"GZ1 flags, {definition}", f"disk = experts' {definition}", seed,
        frame["petroR90_g"].to_numpy() * FWHM_PER_SIGMA / _ASSUMED_SEEING,
        (frame["t_type"].to_numpy() >= DEFINITIONS[definition]).astype(np.int64), labels, labels.astype(np.float64),
        ratio, ratio,
    )  # fmt: skip


def _votes(definition: str, seed: int, data: Path) -> CatalogueWorld:
    """GZ2 votes of galaxies with experts' types, and Hart et al.'s debiased ones."""
    smooth_column = "t01_smooth_or_features_a01_smooth_weighted_fraction"
    hart_column = "t01_smooth_or_features_a01_smooth_debiased"
    needed = ("t_type", "petroR90", "psf_fwhm", "axis_ratio", smooth_column, hart_column)
    frame = _table(data / "gz2_votes.csv", needed).filter(
        pl.col("t_type").is_not_null() & pl.col("petroR90").is_not_null() & pl.col("psf_fwhm").is_not_null()
        & pl.col("axis_ratio").is_not_null()
    )  # fmt: skip
    smooth = frame[smooth_column].to_numpy()
    hart = frame[hart_column].to_numpy()
    return CatalogueWorld(
        f"GZ2 votes, {definition}", f"disk = experts' {definition}", seed, (frame["petroR90"] /
        frame["psf_fwhm"]).to_numpy() * FWHM_PER_SIGMA, (frame["t_type"].cast(pl.Float64) >=
        DEFINITIONS[definition]).to_numpy().astype(np.int64), (smooth < 0.5).astype(np.int64), 1 - smooth,
        frame["axis_ratio"].to_numpy()[:, None], frame["axis_ratio"].to_numpy()[:, None], {"Hart et al. 2016": 1 -
        hart},
    )  # fmt: skip


SIMULATED = ("plain", "confounded", "heavy-tailed", "image annotator")
REAL: dict[str, Callable[[int, Path], CatalogueWorld]] = {
    f"{what}, {definition}": partial(make, definition)
    for what, make in (("GZ1 flags", _experts), ("GZ2 votes", _votes))
    for definition in DEFINITIONS
}


@dataclass(frozen=True)
class Relabelled:
    """Labels and probabilities of all galaxies of a table."""

    labels: np.ndarray
    p_disk: np.ndarray | None = None
    transition: Transition | None = None
    seconds: float | None = None  # what it cost, where another method had it done already


def _from_probabilities(p_disk: np.ndarray, transition: Transition | None = None) -> Relabelled:
    return Relabelled((p_disk > 0.5).astype(np.int64), p_disk, transition)


def _after_label(p_disk: np.ndarray, labels: np.ndarray, alpha: np.ndarray, transition: Transition) -> np.ndarray:
    # A label that T calls impossible in a class that p(y) is sure of: leave room.
    p = np.clip(p_disk, 1e-6, 1 - 1e-6)
    return posterior(np.column_stack([1 - p, p]), labels, alpha, transition)[:, 1]


def _posterior(world: CatalogueWorld, p_disk: np.ndarray | float, transition: Transition) -> Relabelled:
    p = np.broadcast_to(np.asarray(p_disk, dtype=np.float64), world.truth.shape)
    return _from_probabilities(_after_label(p, world.labels, world.alpha, transition), transition)


def _published(fraction: np.ndarray, world: CatalogueWorld) -> Relabelled:
    """Somebody's debiased vote fractions, taken for p(disk)."""
    assert fraction.shape == world.truth.shape
    return _from_probabilities(fraction)


def as_labelled(world: CatalogueWorld) -> Relabelled:
    """The labels as given."""
    return Relabelled(world.labels)


def matching(world: CatalogueWorld) -> Relabelled:
    """Vote fractions matched to the best resolved of like intrinsic properties; the fraction is taken for p(disk)."""
    columns = world.intrinsic
    depth = 0 if columns is None else min(3, columns.shape[1] if columns.shape[1] > 1 else 2)
    return _from_probabilities(
        matched_fractions(world.vote_fraction, world.alpha, columns, depth=depth, seed=world.seed)
    )


def labels_only(world: CatalogueWorld) -> Relabelled:
    """θ by likelihood from labels alone, then the posterior."""
    fit = fit_transition(world.labels, world.alpha)
    return _posterior(world, fit.class_fractions[1], fit.transition)


def conditional(world: CatalogueWorld) -> Relabelled:
    """T(α) and p(y | z) from labels and intrinsic properties, family by AIC, then the posterior."""
    if world.intrinsic is None:
        raise InputError(f"{world.name} has no intrinsic columns")
    found = compare_families(world.labels, world.alpha, CURVES, intrinsic=world.intrinsic)
    fit = found.fits[found.best]
    assert fit.probabilities is not None
    return _posterior(world, fit.probabilities[:, 1], fit.transition)


def trusted(world: CatalogueWorld) -> Relabelled:
    """T(α) from 300 gold labels beside the others, family by AIC, then the posterior."""
    found = compare_families(world.labels, world.alpha, CURVES, gold=world.gold, seed=world.seed)
    fit = found.fits[found.best]
    return _posterior(world, fit.class_fractions[1], fit.transition)


def tabulated(world: CatalogueWorld) -> Relabelled:
    """T(α) tabulated from a regression on 300 gold labels, no shape assumed, then the posterior."""
    fit = fit_transition(world.labels, world.alpha, "tabulated", gold=world.gold)
    return _posterior(world, fit.class_fractions[1], fit.transition)


def _columns(world: CatalogueWorld, beside: bool) -> np.ndarray:
    """Features of a table, with its intrinsic columns beside them or not; each column once."""
    assert world.features is not None
    if not beside or world.intrinsic is None:
        return world.features
    return np.unique(np.column_stack([world.features, world.intrinsic]), axis=1)


@lru_cache(maxsize=1)
def _out_of_fold(world: CatalogueWorld, families: tuple[str, ...], beside: bool) -> tuple[Relabelled, Relabelled]:
    """DCV14's p(y | x) of each galaxy from folds without it, and its posterior; of several families the likeliest."""
    began = time.process_time()
    columns = _columns(world, beside)
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
    seconds = time.process_time() - began
    found = (_from_probabilities(values, model.transition_) for values in (p, after))
    alone, with_label = (replace(one, seconds=seconds) for one in found)
    return alone, with_label


def dcv14(world: CatalogueWorld) -> Relabelled:
    """DCV14 on catalogue features, out of fold: p(y | x), as for a galaxy without a label."""
    return _out_of_fold(world, ("rayleigh",), False)[0]


def dcv14_posterior(world: CatalogueWorld) -> Relabelled:
    """The same with each galaxy's own label: the posterior."""
    return _out_of_fold(world, ("rayleigh",), False)[1]


def dcv14_all(world: CatalogueWorld) -> Relabelled:
    """DCV14 on features and intrinsic columns, family by AIC, the posterior."""
    return _out_of_fold(world, CURVES, True)[1]


def votes_regressed(world: CatalogueWorld) -> Relabelled:
    """p(y | votes, α, z) by logistic regression on 300 gold labels: no T(α) at all."""
    return _from_probabilities(expit(regressed_on_votes(world.vote_fraction, world.alpha, world.intrinsic, world.gold)))


METHODS: dict[str, tuple[str, Callable[[CatalogueWorld], Relabelled]]] = {
    "labels": ("labels as given", as_labelled),
    "matching": ("vote-fraction matching", matching),
    "dcv14": ("DCV14, p(y | x)", dcv14),
    "dcv14-posterior": ("DCV14, posterior", dcv14_posterior),
    "dcv14-all": ("DCV14 on features and z, family by AIC, posterior", dcv14_all),
    "likelihood": ("θ from labels alone, posterior", labels_only),
    "conditional": ("conditional T(α) and p(y | z), posterior", conditional),
    "gold": ("T(α) from 300 gold labels, posterior", trusted),
    "gold-tabulated": ("T(α) tabulated from 300 gold labels, posterior", tabulated),
    "gold-votes": ("regression of 300 gold labels on votes, α and z", votes_regressed),
}


def _relabel(task: tuple[str, int, Path | None]) -> list[dict[str, Any]]:
    """Every method on one table."""
    name, seed, data = task
    world = _simulated(name, seed) if name in SIMULATED or data is None else REAL[name](seed, data)
    contestants: dict[str, Callable[[CatalogueWorld], Relabelled]] = {k: run for k, (_, run) in METHODS.items()}
    for source, fraction in world.published.items():
        contestants[source] = partial(_published, fraction)
    # Gold labels are scored for nobody: three methods have seen them.
    scored = world.gold == UNKNOWN
    rows = []
    for method, run in contestants.items():
        began = time.process_time()
        found = run(world)
        seconds = time.process_time() - began
        p_disk = None if found.p_disk is None else found.p_disk[scored]
        intrinsic = None if world.intrinsic is None else world.intrinsic[scored]
        scores = score(world.truth[scored], world.alpha[scored], found.labels[scored], p_disk, intrinsic, seed)
        scores["seconds"] = seconds if found.seconds is None else found.seconds
        rows.append(
            {
                "world": world.name,
                "definition": world.definition,
                "seed": seed,
                "method": method,
                "scores": {key: None if np.isnan(value) else value for key, value in scores.items()},
                "said": {"transition": repr(found.transition)},
            }
        )
    return rows


def run_catalogues(seeds: tuple[int, ...], data: Path | None, jobs: int = 1) -> list[dict[str, Any]]:
    """Score every method on every table.

    Parameters
    ----------
    seeds : tuple of int
    data : Path, optional
        Folder with `expert_vs_crowd.csv` and `gz2_votes.csv`; without it the real tables are left out.
    jobs : int
        Processes.

    Returns
    -------
    list of dict
        As from `run_plan`.

    Raises
    ------
    InputError
        If the folder lacks a table.
    """
    if data is not None:
        for table in ("expert_vs_crowd.csv", "gz2_votes.csv"):
            if not (data / table).is_file():
                raise InputError(f"{data / table}: no such file; leave `data` out for simulated tables alone")
    names = [*SIMULATED, *(REAL if data is not None else ())]
    tasks = [(name, seed, data) for seed in seeds for name in names]
    if jobs == 1:
        return [row for task in tasks for row in _relabel(task)]
    with worker_pool(jobs) as pool:
        return [row for rows in pool.map(_relabel, tasks) for row in rows]
