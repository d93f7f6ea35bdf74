"""Simulated galaxies in a folder as `truemorph fetch` writes it."""

import gzip

import numpy as np
import polars as pl
import pytest

from truemorph.bias.transitions import RayleighTransition
from truemorph.simulate.annotate import vote_fractions
from truemorph.simulate.pictures import CENTRAL_R90, write_jpegs
from truemorph.simulate.population import at_resolution, simulate_galaxies

THETA, GALAXIES = 11.25, 400
T01 = "t01_smooth_or_features_"
HST = 60


def votes(population, smooth, disk, debiased_smooth):
    """Votes with the column names of Willett et al. (2013) and Hart et al. (2016)."""
    n = population.height
    return pl.DataFrame(
        {
            "dr7objid": population["object_id"],
            "ra": np.linspace(120, 240, n),
            "dec": np.linspace(-5, 60, n),
            f"{T01}a01_smooth_weighted_fraction": smooth,
            f"{T01}a02_features_or_disk_weighted_fraction": disk,
            f"{T01}a03_star_or_artifact_weighted_fraction": np.zeros(n),
            f"{T01}a01_smooth_debiased": debiased_smooth,
            f"{T01}a02_features_or_disk_debiased": 1 - debiased_smooth,
            f"{T01}a03_star_or_artifact_debiased": np.zeros(n),
            "t02_edgeon_a04_yes_count": np.zeros(n),
        }
    )


def write_csv_gz(table, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(table.write_csv().encode()))


def write_fetched(folder, galaxies=GALAXIES, seed=4, size=32):
    """Write all inputs of the experiment; return the simulated population."""
    population = simulate_galaxies(galaxies, seed, confounded=False)
    truth, alpha = population["truth"].to_numpy(), population["alpha"].to_numpy()
    smooth, disk = vote_fractions(truth, alpha, RayleighTransition(THETA), seed)
    # Debiased votes: partly corrected.
    debiased, _ = vote_fractions(truth, alpha, RayleighTransition(0.6 * THETA), seed)
    (folder / "gz2").mkdir(parents=True)
    (folder / "sdss").mkdir()
    (folder / "simard").mkdir()
    write_csv_gz(votes(population, smooth, disk, smooth), folder / "gz2" / "zoo2MainSpecz.csv.gz")
    write_csv_gz(votes(population, smooth, disk, debiased)[5:], folder / "gz2" / "gz2_hart16.csv.gz")
    assets = np.arange(galaxies) + 7
    paths = write_jpegs(population, folder / "gz2" / "images", size, seed, field=CENTRAL_R90, quality=95)
    for path, asset in zip(paths, assets, strict=True):
        path.rename(path.with_name(f"{asset}.jpg"))
    names = [f"images/{asset}.jpg" for asset in assets]
    pl.DataFrame({"objid": population["object_id"], "image": names}).write_parquet(folder / "gz2" / "images.parquet")
    pl.DataFrame(
        {
            "objid": population["object_id"],
            "petroRad_r": population["radius"],
            "psfWidth_r": population["psf_fwhm"],
            "psfWidth_r_best": population["psf_fwhm"] * 0.9,
            "redshift": population["redshift"],
            "petroMag_r": population["magnitude"],
            "extinction_r": np.full(galaxies, 0.1),
        }
    ).write_parquet(folder / "sdss" / "photometry.parquet")
    rng = np.random.default_rng(seed)
    pl.DataFrame(
        {
            "objID": population["object_id"],
            "sersic_n": np.where(truth == 1, rng.lognormal(0.3, 0.3, galaxies), rng.lognormal(1.3, 0.3, galaxies)),
            "ellipticity": 1 - population["axis_ratio"],
            "r_half": population["r50"],
        }
    ).write_parquet(folder / "simard" / "table3.parquet")
    some = population[:: max(1, galaxies // HST)]
    write_jpegs(
        at_resolution(some, np.full(some.height, 80.0)), folder / "hst", 48, seed, field=CENTRAL_R90, quality=90
    )
    return population


@pytest.fixture(scope="session")
def fetched(tmp_path_factory):
    """Folder of simulated data."""
    folder = tmp_path_factory.mktemp("fetched")
    write_fetched(folder)
    return folder
