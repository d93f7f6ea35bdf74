"""Worlds: galaxies whose true class is known, and labels that were given to them.

| world | class and α | who labels | outside the paper's model |
|---|---|---|---|
| plain | independent | flips of eq. 5, θ = 11.25 | nothing |
| confounded | hang together as in SDSS | the same | class fractions depend on α |
| heavy-tailed | independent | log-logistic flips | the family of flips |
| image annotator | independent | looks at the picture | flips depend on the image, and some disks show nothing |
| real | independent | flips of eq. 5 on EFIGI galaxies with expert types | real pictures; α by degrading them |

Disk means spirals and lenticulars (T ≥ -3) in the simulated worlds, spirals (T ≥ 1) in the real one, where only 289
of 4,458 galaxies are ellipticals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.benchmark.cache import Cache
from truemorph.bias.gold import UNKNOWN
from truemorph.bias.transitions import FiskTransition, RayleighTransition, Transition
from truemorph.catalogs.sampling import TEST, TRAIN, VALIDATION
from truemorph.errors import InputError
from truemorph.images.degrade import degrade
from truemorph.images.shapes import measure_shapes
from truemorph.images.store import load_images
from truemorph.simulate.annotate import image_votes, vote_fractions
from truemorph.simulate.pictures import CENTRAL_R90, render
from truemorph.simulate.population import at_resolution, simulate_galaxies

TRUE_THETA = 11.25
FLIPS = RayleighTransition(TRUE_THETA)
HEAVY_FLIPS = FiskTransition(scale=11.0, shape=1.8)
GOLD = 300  # gold labels that some methods are given
CURVES = ("rayleigh", "weibull", "fisk")  # families that methods choose from
INTRINSIC = ("radius_kpc", "M_r", "redshift")
FEATURES = ("axis_ratio", "concentration", "size", "colour")
TWIN_FACTORS = (1.5, 2.5)
TWINS: Literal["distance"] = "distance"
# EFIGI stamps fill the frame with the galaxy: growth curves of 400 put R_petro at 0.44 of the side.
_EFIGI_RADIUS = 0.44
_EFIGI_ALPHA, _EFIGI_SPREAD = 11.0, 0.5
_EFIGI_SHARES = (0.5, 0.07)


@dataclass(frozen=True)
class Sizes:
    """How many galaxies a simulated world has, and how large their pictures are."""

    train: int = 8000
    validation: int = 800
    test: int = 3000
    twins: int = 800
    pixels: int = 64

    @property
    def all(self) -> int:
        """Galaxies of a world."""
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class World:
    """Galaxies, their labels, and their truth.

    Attributes
    ----------
    name, definition : str
        Which world, and what a disk is in it.
    seed : int
    config : dict
        Everything that the data follow from.
    images : array of uint8, shape (N, S, S, 3)
    alpha, truth, labels : arrays, shape (N,)
    vote_fraction : array, shape (N,)
        Share of votes for disk.
    intrinsic : array, shape (N, P)
    features : array, shape (N, F)
        What a catalogue would hold for logistic regression: shapes measured on the pictures.
    split : array of str, shape (N,)
    radius : array, shape (N,)
        R_petro in pixels.
    transition : Transition or None
        The true T(α), where labels follow one.
    twins : tuple of array
        The first test galaxies again, farther away: at α / 1.5 and α / 2.5.
    """

    name: str
    definition: str
    seed: int
    config: dict[str, Any]
    images: np.ndarray
    alpha: np.ndarray
    truth: np.ndarray
    labels: np.ndarray
    vote_fraction: np.ndarray
    intrinsic: np.ndarray
    features: np.ndarray
    split: np.ndarray
    radius: np.ndarray
    transition: Transition | None
    twins: tuple[np.ndarray, ...]

    def rows(self, *parts: str) -> np.ndarray:
        """Rows of these splits."""
        return np.flatnonzero(np.isin(self.split, parts))


def _split(train: int, validation: int, n: int) -> np.ndarray:
    return np.array([TRAIN] * train + [VALIDATION] * validation + [TEST] * (n - train - validation))


def catalogue_features(images: np.ndarray) -> np.ndarray:
    """Axis ratio, concentration, size and colour measured on pictures, shape (N, 4)."""
    return measure_shapes(images).select(FEATURES).to_numpy()


def gold_classes(truth: np.ndarray, among: np.ndarray, seed: int) -> np.ndarray:
    """True classes of 300 random rows of these (half of them where there are few), -1 elsewhere, shape (N,)."""
    known = np.random.default_rng([seed, 9]).choice(among, min(GOLD, among.size // 2), replace=False)
    gold = np.full(truth.size, UNKNOWN)
    gold[known] = truth[known]
    return gold


def _simulated(
    name: str, seed: int, sizes: Sizes, cache: Cache, *, confounded: bool = False, flips: Transition | None = FLIPS
) -> World:
    population = {"confounded": confounded, "seed": seed, "galaxies": sizes.all, "pixels": sizes.pixels}
    galaxies = simulate_galaxies(sizes.all, seed, confounded=confounded)

    def draw(frame: pl.DataFrame, exposure: int) -> Callable[[], np.ndarray]:
        return lambda: np.stack([image for _, image in render(frame, sizes.pixels, seed, exposure=exposure)])

    images = cache.array("images", population, draw(galaxies, 0))
    alpha, truth = galaxies["alpha"].to_numpy(), galaxies["truth"].to_numpy()
    first = galaxies[sizes.train + sizes.validation :][: sizes.twins]
    twins = tuple(
        cache.array(
            "twins",
            {
                **population,
                "factor": factor,
                "how": TWINS,
                "first": first.height,
                "from": sizes.train + sizes.validation,
            },
            draw(at_resolution(first, first["alpha"].to_numpy() / factor, TWINS), 1 + number),
        )
        for number, factor in enumerate(TWIN_FACTORS)
    )
    if flips is None:
        votes = cache.array("votes", population, lambda: image_votes(np.asarray(images), seed))
        fraction = votes[:, 1] / votes.sum(axis=1)
        # Ties fall to smooth: no majority saw a feature.
        labels = (fraction > 0.5).astype(np.int64)
    else:
        fraction = vote_fractions(truth, alpha, flips, seed)[1]
        labels = (fraction > 0.5).astype(np.int64)
    config = {"world": name, **population, "train": sizes.train, "validation": sizes.validation, "twins": sizes.twins}
    return World(
        name=name,
        definition="disk = spirals and lenticulars",
        seed=seed,
        config=config | {"flips": repr(flips)},
        images=images,
        alpha=alpha,
        truth=truth,
        labels=labels,
        vote_fraction=fraction,
        intrinsic=galaxies.select(INTRINSIC).to_numpy(),
        features=cache.array("features", population, lambda: catalogue_features(np.asarray(images))),
        split=_split(sizes.train, sizes.validation, sizes.all),
        radius=(galaxies["radius"] / galaxies["r90"]).to_numpy() * sizes.pixels / CENTRAL_R90,
        transition=flips,
        twins=twins,
    )


def _real(seed: int, sizes: Sizes, cache: Cache, data: Path | None) -> World:
    if data is None or not (data / "efigi_images.csv").is_file():
        raise InputError(
            "the real world needs EFIGI images with expert types: a folder with efigi_images.csv (columns t_type,"
            " image) "
            "and its images, given by `data`"
        )
    table = pl.read_csv(data / "efigi_images.csv")
    stored = load_images([data / name for name in table["image"]], sizes.pixels, 1.0)
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(np.flatnonzero(stored.good))
    sharp = stored.pixels[order]
    truth = (table["t_type"].to_numpy()[order] >= 1).astype(np.int64)
    n = order.size
    alpha = rng.lognormal(np.log(_EFIGI_ALPHA), _EFIGI_SPREAD, n)
    radius = _EFIGI_RADIUS * sizes.pixels
    config = {"world": "real", "seed": seed, "pixels": sizes.pixels, "galaxies": n, "flips": repr(FLIPS)}
    config["table"] = hashlib.sha256(sharp.tobytes() + truth.tobytes()).hexdigest()[:16]
    config["alpha"] = [_EFIGI_ALPHA, _EFIGI_SPREAD, _EFIGI_RADIUS]
    infinite = np.full(n, np.inf)
    images = cache.array("images", config, lambda: degrade(sharp, infinite, alpha, radius, seed))
    train, validation = (int(share * n) for share in _EFIGI_SHARES)
    first = slice(train + validation, train + validation + sizes.twins)
    config |= {"train": train, "validation": validation, "twins": sizes.twins}

    def twin(number: int, factor: float) -> np.ndarray:
        lower = alpha[first] / factor
        make = partial(degrade, sharp[first], infinite[first], lower, radius, seed + 1000 * (number + 1))
        return cache.array("twins", {**config, "factor": factor}, make)

    twins = tuple(twin(number, factor) for number, factor in enumerate(TWIN_FACTORS))
    fraction = vote_fractions(truth, alpha, FLIPS, seed)[1]
    return World(
        name="real",
        definition="disk = spirals (T >= 1), experts' types",
        seed=seed,
        config=config,
        images=images,
        alpha=alpha,
        truth=truth,
        labels=(fraction > 0.5).astype(np.int64),
        vote_fraction=fraction,
        # What deeper images would tell: colour and axis ratio before degrading.
        intrinsic=cache.array("sharp", config, lambda: catalogue_features(sharp)[:, [0, 3]]),
        features=cache.array("features", config, lambda: catalogue_features(np.asarray(images))),
        split=_split(train, validation, n),
        radius=np.full(n, radius),
        transition=FLIPS,
        twins=twins,
    )


WORLDS = ("plain", "confounded", "heavy-tailed", "image annotator", "real")


def make_world(name: str, seed: int, sizes: Sizes, cache: Cache, data: Path | None = None) -> World:
    """Make a world, or take what is kept of it.

    Parameters
    ----------
    name : str
        One of `WORLDS`.
    seed : int
        Of galaxies, pictures, labels and split.
    sizes : Sizes
        Of simulated worlds; the real one has the galaxies that there are.
    cache : Cache
    data : Path, optional
        Folder of EFIGI's images and types, for the real world.

    Raises
    ------
    InputError
        If there is no such world, or no data for it.
    """
    if name == "plain":
        return _simulated(name, seed, sizes, cache)
    if name == "confounded":
        return _simulated(name, seed, sizes, cache, confounded=True)
    if name == "heavy-tailed":
        return _simulated(name, seed, sizes, cache, flips=HEAVY_FLIPS)
    if name == "image annotator":
        return _simulated(name, seed, sizes, cache, flips=None)
    if name == "real":
        return _real(seed, sizes, cache, data)
    raise InputError(f"no world {name!r}; there are {', '.join(WORLDS)}")


def smaller(sizes: Sizes, **changes: int) -> Sizes:
    """The same with some numbers changed, all checked."""
    changed = replace(sizes, **changes)
    if min(asdict(changed).values()) < 1:
        raise InputError(f"sizes of a world are positive; got {asdict(changed)}")
    return changed
