"""Galaxy Zoo 2's vote tables of simulated galaxies: the first question, with the column names of the published ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from astropy.coordinates import SkyCoord
from scipy.special import expit, logit

from truemorph.bias.transitions import Transition
from truemorph.simulate.annotate import vote_fractions
from truemorph.simulate.galaxies import ELLIPTICAL

_ANSWERS = ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")
_FEWEST, _MOST = 34, 56  # classifications of a galaxy
_ARTEFACTS = 0.015  # galaxies that most people call a star or an artefact
_CLEAN = 0.8
# How much of the drift with resolution a debiasing takes away.
_WILLETT, _HART = 0.25, 0.5
_HART_LACKS = 0.015


@dataclass(frozen=True)
class ZooTables:
    """Votes as published, and the labels behind them.

    Attributes
    ----------
    willett, hart : DataFrame
        zoo2MainSpecz (Willett et al. 2013) and gz2_hart16 (Hart et al. 2016), which lacks a few galaxies.
    labels : Series, length N
        ỹ as T(α) drew it (0 smooth, 1 disk), before votes were counted: their majority agrees for most galaxies.
    """

    willett: pl.DataFrame
    hart: pl.DataFrame
    labels: pl.Series


def zoo_tables(population: pl.DataFrame, transition: Transition, seed: int) -> ZooTables:
    """Let volunteers vote.

    Parameters
    ----------
    population : polars.DataFrame
        From `simulate_galaxies`, with DR7's `object_id`, `ra` and `dec`.
    transition : Transition
        How labels flip with α.
    seed : int
    """
    rng = np.random.default_rng([seed, 12])
    n = population.height
    alpha = population["alpha"].to_numpy()
    smooth, disk = vote_fractions(population["truth"].to_numpy(), alpha, transition, seed)
    artefact = np.where(rng.random(n) < _ARTEFACTS, rng.uniform(0.5, 0.9, n), rng.beta(0.6, 30, n))
    shares = np.column_stack([smooth * (1 - artefact), disk * (1 - artefact), artefact])
    total = rng.integers(_FEWEST, _MOST + 1, n)
    counts = rng.multinomial(total, shares / shares.sum(axis=1, keepdims=True))
    # People who often disagree with the rest count less.
    weights = np.round(counts * rng.uniform(0.93, 1.0, counts.shape), 3)
    weighted = weights / weights.sum(axis=1, keepdims=True)
    who = _who(population, rng)
    kind = _classes(population, weighted)
    tallies = {"total_classifications": total, "total_votes": total * 4 + rng.integers(0, 90, n)}

    def votes(share: float) -> dict[str, np.ndarray]:
        debiased = _debiased(weighted, total, alpha, share)
        columns: dict[str, np.ndarray] = {}
        for k, answer in enumerate(_ANSWERS):
            name = f"t01_smooth_or_features_{answer}"
            columns |= {
                f"{name}_count": counts[:, k],
                f"{name}_weight": weights[:, k],
                f"{name}_fraction": np.round(counts[:, k] / total, 3),
                f"{name}_weighted_fraction": np.round(weighted[:, k], 3),
                f"{name}_debiased": np.round(debiased[:, k], 3),
                f"{name}_flag": (debiased[:, k] >= _CLEAN).astype(int),
            }
        return columns

    spectra = {
        # Ids of DR8: 19 digits, sky version 2.
        "specobjid": 299489677444933632 + 1125899906842624 * rng.permutation(n),
        "dr8objid": population["object_id"].to_numpy() + 650000000000000000,
    }
    willett = pl.DataFrame({**spectra, **who, "gz2class": kind, **tallies, **votes(_WILLETT)})
    hart = pl.DataFrame({**who, "gz2_class": kind, **tallies, **votes(_HART)})
    return ZooTables(willett, hart.filter(pl.Series(rng.random(n) >= _HART_LACKS)), pl.Series((disk > 0.5).astype(int)))


def _who(population: pl.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    ra, dec = population["ra"].to_numpy(), population["dec"].to_numpy()
    place = SkyCoord(ra, dec, unit="deg")
    return {
        "dr7objid": population["object_id"],
        "ra": np.round(ra, 5),
        "dec": np.round(dec, 5),
        "rastring": place.ra.to_string("hour", sep=":", precision=2, pad=True),
        "decstring": place.dec.to_string("deg", sep=":", precision=1, pad=True, alwayssign=True),
        "sample": np.where(rng.random(population.height) < 0.1, "extra", "original"),
    }


def _debiased(weighted: np.ndarray, total: np.ndarray, alpha: np.ndarray, share: float) -> np.ndarray:
    """Take a share of the drift with resolution away: what a correction from the labels alone can do.

    As Hart et al. (2016) match distributions of fractions to those of well-resolved galaxies, here their median is
    moved, on the scale of the logarithm of the odds, towards that of the highest bin of α.
    """
    among = np.clip(weighted[:, 1] / np.maximum(weighted[:, :2].sum(axis=1), 1e-9), 0.5 / total, 1 - 0.5 / total)
    odds = logit(among)
    order = np.argsort(alpha, kind="stable")
    bins = np.array_split(order, max(2, min(12, alpha.size // 30)))
    middles = np.array([np.median(alpha[one]) for one in bins])
    medians = np.array([np.median(odds[one]) for one in bins])
    moved = expit(odds + share * (medians[-1] - np.interp(alpha, middles, medians)))
    rest = 1 - weighted[:, 2]
    return np.column_stack([(1 - moved) * rest, moved * rest, weighted[:, 2]])


def _classes(population: pl.DataFrame, weighted: np.ndarray) -> np.ndarray:
    """Galaxy Zoo 2's class strings, such as Er, Sc and SBb, from the majority and the galaxy itself."""
    ratio, bulge = population["axis_ratio"].to_numpy(), population["bulge_fraction"].to_numpy()
    roundness = np.select([ratio > 0.8, ratio > 0.5], ["r", "i"], "c")
    spheroid = population["type"].to_numpy() == ELLIPTICAL
    stage = np.select([(bulge > 0.5) | spheroid, bulge > 0.3, bulge > 0.1], ["a", "b", "c"], "d")
    barred = np.where(population["bar_fraction"].to_numpy() > 0, "SB", "S")
    disk = np.where(ratio < 0.3, "Ser", np.char.add(barred, stage))
    return np.select(
        [weighted[:, 2] > 0.5, weighted[:, 0] > weighted[:, 1]], ["A", np.char.add("E", roundness)], default=disk
    )
