"""Worlds: galaxies of known class with biased labels.

In each, another assumption of the paper fails; docs/leaderboard.md lists them.

Worlds for networks have images. Worlds without images are catalogues of the same simulations (small images are drawn
for the image annotator only), or Galaxy Zoo labels of galaxies with experts' types.

The second class, disks, are spirals and lenticulars (T ≥ -3) in the simulated worlds, and spirals (T ≥ 1) in the real
one, where only 289 of 4,458 galaxies are ellipticals. Real catalogues are scored under both definitions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.curves.formulas import FiskTransition, RayleighTransition
from truemorph.bias.curves.transitions import UNKNOWN, Transition
from truemorph.catalogs.physical import resolution
from truemorph.catalogs.sampling import TEST, TRAIN, VALIDATION
from truemorph.config import TrainingConfig
from truemorph.images.degrade import degrade
from truemorph.images.shapes import measure_shapes
from truemorph.images.store import ImageFiles
from truemorph.questions import SMOOTH_OR_DISK, Asked
from truemorph.simulate.annotate import image_votes, vote_fractions
from truemorph.simulate.pictures import CENTRAL_R90, render
from truemorph.simulate.population import at_resolution, simulate_galaxies
from truemorph.simulate.survey import INTRINSIC

_FLIPS = RayleighTransition(11.25)
# Simulated worlds and the T(α) of their labels; None for the image annotator.
SIMULATED: dict[str, Transition | None] = {
    "plain": _FLIPS,
    "confounded": _FLIPS,
    "heavy-tailed": FiskTransition(scale=11.0, shape=1.8),
    "image annotator": None,
}
_DEFINITIONS = {"T >= -3": -3, "T >= 1": 1}
GZ1, GZ2 = ([f"{what}, {definition}" for definition in _DEFINITIONS] for what in ("GZ1 flags", "GZ2 votes"))
WITH_PICTURES = (*SIMULATED, "real")
WITHOUT_PICTURES = (*SIMULATED, *GZ1, *GZ2)
# Files of real data.
FILES = {
    "real": "efigi_images.csv",
    "real bars": "efigi_attributes.parquet",
    **dict.fromkeys(GZ1, "expert_vs_crowd.csv"),
    **dict.fromkeys(GZ2, "gz2_votes.csv"),
}
HART = "Hart et al. 2016"

CLASSES = SMOOTH_OR_DISK  # of all worlds
GOLD = 300  # gold labels that some methods are given

FEATURES = ("axis_ratio", "concentration", "size", "colour")
TWIN_FACTORS = (1.5, 2.5)
# From growth curves of 400 EFIGI stamps: R_petro is 0.44 of the side.
_EFIGI_RADIUS = 0.44
EFIGI_ALPHA, EFIGI_SPREAD = 11.0, 0.5
_EFIGI_FRACTIONS = (0.5, 0.07)  # for training and validation
# Galaxies of simulated catalogues; the same for the image annotator, and the side of the images.
GALAXIES, LOOKED_AT, _LOOK_SIZE = 4_000, 2_000, 48
_ASSUMED_SEEING = 1.32  # arcsec, of GZ1


@dataclass(frozen=True)
class Sizes:
    """Numbers of galaxies of a simulated world with images, and the side of the images in pixels."""

    train: int = 8000
    validation: int = 800
    test: int = 3000
    twins: int = 800
    pixels: int = 64


@dataclass(frozen=True, eq=False)
class World:
    """Galaxies with labels and true classes."""

    name: str
    definition: str  # of the second class
    seed: int
    alpha: np.ndarray
    truth: np.ndarray
    intrinsic: np.ndarray  # shape (N, P)
    split: np.ndarray
    vote_fraction: Any = None  # of votes for the second class
    features: Any = None  # for logistic regression, shape (N, F); in worlds with images, shapes measured on them
    votes: Any = None  # `Votes` of a question of a decision tree, instead of `vote_fraction`; truth is the path
    transition: Transition | None = None  # the true T(α); None if labels do not follow one
    hart: np.ndarray | None = None  # the same vote fractions, debiased by Hart et al. 2016
    images: Any = None  # uint8, shape (N, S, S, 3)
    radius: Any = None  # Petrosian, in pixels
    twins: tuple[np.ndarray, ...] = ()  # images of the first test galaxies moved away, to α / 1.5 and α / 2.5
    classes: tuple[str, str] = CLASSES
    config: TrainingConfig | None = None  # settings of its networks; None without images
    training: Mapping[str, Any] = field(default_factory=dict)  # changes of them

    @property
    def asked(self) -> Asked | None:
        """The question of the tree; None of two classes."""
        return None if self.votes is None else self.votes.asked

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all classes."""
        return self.classes if self.asked is None else self.asked.classes

    @property
    def labels(self) -> np.ndarray:
        """Majority of the votes; ties count as the first class. Of a question, the majority path."""
        if self.votes is not None:
            return self.votes.labels
        return (self.vote_fraction > 0.5).astype(int)

    def rows(self, *parts: str) -> np.ndarray:
        """Return the rows of these splits."""
        return np.flatnonzero(np.isin(self.split, parts))

    @property
    def learning(self) -> np.ndarray:
        """Rows of training and validation."""
        return self.rows(TRAIN, VALIDATION)

    @property
    def gold(self) -> np.ndarray:
        """True classes of 300 random training galaxies (of half, if there are fewer than 600); -1 elsewhere."""
        among = self.rows(TRAIN)
        rows = np.random.default_rng([self.seed, 9]).choice(among, min(GOLD, among.size // 2), replace=False)
        gold = np.full(self.truth.size, UNKNOWN)
        gold[rows] = self.truth[rows]
        return gold

    @property
    def scored(self) -> np.ndarray:
        """Rows to score: test galaxies, or, without any, galaxies without a gold label."""
        test = self.rows(TEST)
        return test if test.size else np.flatnonzero(self.gold == UNKNOWN)


def make_world(name: str, seed: int, sizes: Sizes | None, data: Path | None = None) -> World:
    """Make a world of `WITH_PICTURES`, or of `WITHOUT_PICTURES` if there are no sizes.

    Galaxies, images, labels, split and gold labels change with the seed. `data` is the folder of real data (`FILES`).
    The real world ignores the numbers of galaxies.
    """
    if name in FILES:
        assert data is not None
        return _galaxy_zoo(name, seed, data) if sizes is None else _efigi(name, seed, sizes, data)
    flips = SIMULATED[name]
    size = sizes or Sizes(LOOKED_AT if flips is None else GALAXIES, 0, 0, 0, _LOOK_SIZE)
    n = size.train + size.validation + size.test
    galaxies = simulate_galaxies(n, seed, confounded=name == "confounded")
    images: Any = None if sizes is None and flips is not None else drawn(galaxies, size.pixels, seed)
    alpha, truth = galaxies["alpha"].to_numpy(), galaxies["truth"].to_numpy()
    if flips is None:
        votes = image_votes(images, seed)
        fraction = votes[:, 1] / votes.sum(axis=1)
    else:
        fraction = vote_fractions(truth, alpha, flips, seed)[1]
    world = World(
        name=name,
        definition="spirals and lenticulars",
        seed=seed,
        alpha=alpha,
        truth=truth,
        vote_fraction=fraction,
        intrinsic=galaxies.select(INTRINSIC).to_numpy(),
        features=_measured_features(galaxies, seed) if sizes is None else catalogue_features(images),
        split=split_of(size.train, size.validation, n),
    )
    if sizes is None:
        return world
    first = galaxies[size.train + size.validation :][: size.twins]
    farther = [at_resolution(first, first["alpha"].to_numpy() / factor, "distance") for factor in TWIN_FACTORS]
    return replace(
        world,
        transition=flips,
        images=images,
        radius=(galaxies["radius"] / galaxies["r90"]).to_numpy() * size.pixels / CENTRAL_R90,
        twins=tuple(drawn(galaxies, size.pixels, seed, exposure) for exposure, galaxies in enumerate(farther, 1)),
    )


def drawn(galaxies: pl.DataFrame, pixels: int, seed: int, exposure: int = 0) -> np.ndarray:
    """Draw images of simulated galaxies, uint8 of shape (N, S, S, 3)."""
    return np.stack([image for _, image in render(galaxies, pixels, seed, exposure=exposure)])


def split_of(train: int, validation: int, n: int) -> np.ndarray:
    """Return the split of galaxies in random order, shape (N,)."""
    return np.array([TRAIN] * train + [VALIDATION] * validation + [TEST] * (n - train - validation))


def catalogue_features(images: np.ndarray) -> np.ndarray:
    """Measure axis ratio, concentration, size and colour on images, shape (N, 4)."""
    return measure_shapes(images).select(FEATURES).to_numpy()


def _measured_features(galaxies: pl.DataFrame, seed: int) -> np.ndarray:
    """Return Sérsic-like index, axis ratio, R50 and colour, with errors that grow with 1/α."""
    rng = np.random.default_rng([seed, 12])
    columns = ("alpha", "bulge_fraction", "sersic_index", "axis_ratio", "r50", "radius", "g_r_bulge", "g_r_disk")
    alpha, bulge, sersic_index, axis_ratio, r50, radius, g_r_bulge, g_r_disk = galaxies.select(columns).to_numpy().T
    n = galaxies.height
    error = 0.10 + 1.5 / alpha
    index = np.log(bulge * sersic_index + (1 - bulge)) + error * rng.normal(size=n)
    ratio = np.clip(axis_ratio + 0.4 * error * rng.normal(size=n), 0.05, 1)
    half = np.log(r50 / radius) + 0.3 * error * rng.normal(size=n)
    colour = bulge * g_r_bulge + (1 - bulge) * g_r_disk
    return np.column_stack([index, ratio, half, colour + 0.04 * rng.normal(size=n)])


def degraded_efigi(
    name: str, definition: str, files: pl.Series, classes: np.ndarray, seed: int, sizes: Sizes, data: Path
) -> tuple[World, np.ndarray]:
    """EFIGI galaxies whose class is known, in random order, degraded to random α; and the images before.

    `classes`, shape (N,), are -1 where unknown. The world has no labels yet.
    """
    config = TrainingConfig(image_size=sizes.pixels, crop=1.0)
    every, bad = ImageFiles([data / name for name in files], config).load()
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(np.setdiff1d(np.flatnonzero(classes != UNKNOWN), list(bad)))
    sharp, n = every[order], order.size
    radius = np.full(n, _EFIGI_RADIUS * sizes.pixels)
    alpha = rng.lognormal(np.log(EFIGI_ALPHA), EFIGI_SPREAD, n)
    train, validation = (int(fraction * n) for fraction in _EFIGI_FRACTIONS)
    world = World(
        name=name,
        definition=definition,
        seed=seed,
        alpha=alpha,
        truth=classes[order].astype(int),
        # As from deeper images: colour and axis ratio before degrading.
        intrinsic=catalogue_features(sharp)[:, [0, 3]],
        split=split_of(train, validation, n),
        images=degrade(sharp, np.inf, alpha, radius, seed),
        radius=radius,
    )
    return world, sharp


def _efigi(name: str, seed: int, sizes: Sizes, data: Path) -> World:
    """EFIGI images, degraded to random α, with flips of eq. 5."""
    table = pl.read_csv(data / FILES[name], infer_schema_length=None)
    classes = (table["t_type"].to_numpy() >= 1).astype(int)
    definition = "spirals (T >= 1), experts' types"
    world, sharp = degraded_efigi(name, definition, table["image"], classes, seed, sizes, data)
    moved = world.rows(TEST)[: sizes.twins]
    return replace(
        world,
        vote_fraction=vote_fractions(world.truth, world.alpha, _FLIPS, seed)[1],
        features=catalogue_features(world.images),
        transition=_FLIPS,
        twins=tuple(
            degrade(sharp[moved], np.inf, world.alpha[moved] / factor, world.radius[moved], seed + 1000 * number)
            for number, factor in enumerate(TWIN_FACTORS, 1)
        ),
    )


def _galaxy_zoo(name: str, seed: int, data: Path) -> World:
    """Galaxies with experts' types and GZ1 flags or GZ2 votes; axis ratio is intrinsic column and feature."""
    definition = name.split(", ")[1]
    debiased = None
    frame = pl.read_csv(data / FILES[name], infer_schema_length=None)
    if name.startswith("GZ1"):
        fraction = np.asarray(frame["gz1_spiral"], float)
        alpha = resolution(frame["petroR90_g"], _ASSUMED_SEEING)
    else:
        votes, hart = (f"t01_smooth_or_features_a01_smooth_{kind}" for kind in ("weighted_fraction", "debiased"))
        frame = frame.drop_nulls(["t_type", "axis_ratio", "petroR90", "psf_fwhm"])
        fraction = 1 - frame[votes].to_numpy()
        alpha = resolution(frame["petroR90"], frame["psf_fwhm"])
        debiased = 1 - frame[hart].to_numpy()
    ratio = frame["axis_ratio"].to_numpy()[:, None]
    return World(
        name=name,
        definition=f"experts' {definition}",
        seed=seed,
        alpha=alpha,
        truth=(frame["t_type"] >= _DEFINITIONS[definition]).to_numpy().astype(int),
        vote_fraction=fraction,
        intrinsic=ratio,
        features=ratio,
        split=split_of(frame.height, 0, frame.height),
        hart=debiased,
    )
