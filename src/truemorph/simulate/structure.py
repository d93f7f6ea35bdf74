"""Tables of structure of simulated galaxies, as VizieR has those of Simard et al. (2011, ApJS 196, 11): J/ApJS/196/11.

Table 3 holds pure Sérsic models, tables 1 and 2 bulge and disk. Lengths are kpc: an angle times `Scale`. Where no
redshift is known Scale is -99.99, and the circular radii are that times an angle: negative, as in the real table.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from astropy import units as u
from astropy.cosmology import FlatLambdaCDM

from truemorph.simulate.galaxies import ELLIPTICAL, simulate_galaxies

MISSING = -99.99
_OTHERS = 0.3  # galaxies that Galaxy Zoo 2 didn't show, relative to its own
_COSMOLOGY = FlatLambdaCDM(H0=70, Om0=0.3)  # theirs, section 2
_NOT_CONVERGED = 0.01


def simard_tables(
    population: pl.DataFrame, rng: np.random.Generator, *, fitted: np.ndarray, with_redshift: np.ndarray
) -> dict[str, pl.DataFrame]:
    """Tables 1, 2 and 3, their columns named as VizieR names them, `recno` first.

    Parameters
    ----------
    population : polars.DataFrame
        From `simulate_galaxies`, with DR7's `object_id`.
    rng : numpy.random.Generator
    fitted, with_redshift : arrays of bool, shape (N,)
        Galaxies that are in the tables, and that have a redshift.
    """
    others = simulate_galaxies(max(1, round(_OTHERS * population.height)), int(rng.integers(2**31)))
    # Objects of a run that Galaxy Zoo 2's galaxies have no field in.
    others = others.with_columns(object_id=587745000000000000 + pl.int_range(others.height) * 65553)
    names = [name for name in others.columns if name in population.columns]
    own = population.filter(pl.Series(fitted)).with_columns(known=pl.Series(with_redshift[fitted]))
    table = pl.concat([own.select(*names, "known"), others.select(names).with_columns(known=pl.lit(True))])
    table = table.sort("object_id")
    n = table.height
    redshift = np.where(table["known"].to_numpy(), table["redshift"].to_numpy(), np.nan)
    scale = (u.arcmin / u.kpc) * _COSMOLOGY.kpc_proper_per_arcmin(np.where(redshift > 0, redshift, 0.1)) / 60
    kpc = np.where(redshift > 0, np.asarray(scale, dtype=np.float64), MISSING)
    common = {
        "recno": np.arange(1, n + 1),
        "objID": table["object_id"].cast(pl.String),
        "z": np.round(np.where(redshift > 0, redshift, MISSING), 6),
        "Sp": np.where(redshift > 0, 2, -2),
        "Scale": np.round(kpc, 3),
    }
    smooth = table["type"].to_numpy() == ELLIPTICAL
    bulge, inner = table["bulge_fraction"].to_numpy(), table["sersic_index"].to_numpy()
    ratio = np.clip(table["axis_ratio"].to_numpy() * np.exp(0.03 * rng.normal(size=n)), 0.05, 1)
    # What one Sérsic profile makes of a bulge and an exponential disk: between their indices, nearer the disk's.
    index = np.where(smooth, inner, 1 + (inner - 1) * np.clip(bulge, 0, 1) ** 1.3)
    index = np.clip(index * np.exp(0.12 * rng.normal(size=n)), 0.5, 8)
    circular = table["r50"].to_numpy() * np.exp(0.05 * rng.normal(size=n))  # arcsec
    failed = np.zeros(n, dtype=bool)
    failed[rng.permutation(n)[: max(1, round(_NOT_CONVERGED * n))]] = True
    radii = {
        "Rhlg": np.where(kpc > 0, 1.05 * circular * kpc / np.sqrt(ratio), MISSING),
        "Rhlr": np.where(kpc > 0, circular * kpc / np.sqrt(ratio), MISSING),
        "Rchl,g": 1.05 * circular * kpc,
        "Rchl,r": circular * kpc,
    }

    def known(values: np.ndarray, missing: np.ndarray = failed) -> np.ndarray:
        return np.round(np.where(missing, MISSING, values), 2)

    sizes = {name: np.round(values, 2) for name, values in radii.items()}
    magnitude = table["magnitude"].to_numpy()
    sersic = {
        **common,
        "rg2d": known(magnitude),
        **sizes,
        "e": known(1 - ratio),
        "e_e": known(np.full(n, 0.01)),
        "phi": known(np.rad2deg(table["position_angle"].to_numpy())),
        "ng": known(index),
        "e_ng": known(0.03 * index),
    }
    no_scale = failed | (kpc <= 0)

    def two_components(free: bool) -> pl.DataFrame:
        fraction = np.clip(bulge + 0.03 * rng.normal(size=n), 0, 1)
        return pl.DataFrame(
            {
                **common,
                "(B/T)g": known(0.9 * fraction),
                "e_(B/T)g": known(np.full(n, 0.02)),
                "(B/T)r": known(fraction),
                "e_(B/T)r": known(np.full(n, 0.02)),
                **sizes,
                "Re": known(circular * kpc * table["bulge_radius"].to_numpy() / 1.7, no_scale),
                "e": known(np.clip((1 - ratio) / 2, 0, 1)),
                "Rd": known(circular * kpc / 1.68, no_scale),
                "i": known(np.rad2deg(np.arccos(ratio))),
                "nb": known(inner if free else np.full(n, 4.0)),
                "e_nb": known(0.2 * inner if free else np.zeros(n)),
                "PpS": known(rng.random(n) ** np.where(smooth, 0.5, 3.0)),
            }
        )

    return {"table1": two_components(False), "table2": two_components(True), "table3": pl.DataFrame(sersic)}
