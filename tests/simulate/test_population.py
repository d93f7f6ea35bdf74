"""Populations: agreement with SDSS galaxies, confounding, and radii of profiles."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import ks_2samp, spearmanr

from truemorph import RayleighTransition, fit_transition, resolution
from truemorph.simulate.annotate import observed_labels
from truemorph.simulate.pictures import sersic_light
from truemorph.simulate.population import aperture_radii, bulge_axis_ratio, light_inside, sersic_area, simulate_galaxies

N = 8_000


@pytest.fixture(scope="module")
def confounded():
    return simulate_galaxies(N, seed=4)


@pytest.fixture(scope="module")
def plain():
    return simulate_galaxies(N, seed=4, confounded=False)


def same_resolution_of_classes(galaxies):
    """Probability that disks and smooth galaxies are drawn from one distribution of α."""
    return ks_2samp(*(galaxies.filter(pl.col("truth") == k)["alpha"].to_numpy() for k in (1, 0))).pvalue


def fit_of_labels(galaxies):
    """Fit T(α) to labels that are biased by eq. 5."""
    alpha, truth = galaxies["alpha"].to_numpy(), galaxies["truth"].to_numpy()
    return fit_transition(observed_labels(truth, alpha, RayleighTransition(11.25), 1), alpha)


def test_the_same_seed_gives_the_same_galaxies():
    assert simulate_galaxies(300, seed=9).equals(simulate_galaxies(300, seed=9))
    assert not simulate_galaxies(300, seed=9).equals(simulate_galaxies(300, seed=10))


@pytest.mark.slow
@pytest.mark.parametrize("world", ["confounded", "plain"])
def test_columns_are_consistent(world, request):
    galaxies = request.getfixturevalue(world)
    assert galaxies.height == N
    assert galaxies["object_id"].n_unique() == N
    assert galaxies.select((~pl.col(pl.Float64).is_finite()).sum()).sum_horizontal()[0] == 0
    alpha = resolution(galaxies["radius"].to_numpy(), galaxies["psf_fwhm"].to_numpy())
    np.testing.assert_allclose(galaxies["alpha"], alpha)
    assert set(galaxies["type"]) == {"elliptical", "lenticular", "spiral"}
    assert (galaxies["truth"] == (galaxies["type"] != "elliptical")).all()
    # One seeing value per field.
    fields = galaxies.group_by("field").agg(pl.len(), pl.col("psf_fwhm").n_unique().alias("seeings"))
    assert fields["seeings"].max() == 1
    assert 2 <= fields["len"].max() <= 6


def test_the_flux_limited_population_resembles_sdss(confounded):
    assert confounded["magnitude"].max() < 17.0001  # distances are interpolated
    assert confounded["r90"].min() > 3
    # Medians of Galaxy Zoo 2 (Willett et al. 2013): z about 0.07, R90 about 8 arcsec, α about 15.
    assert 0.05 < confounded["redshift"].median() < 0.09
    assert 6 < confounded["r90"].median() < 11
    assert 11 < confounded["alpha"].median() < 18
    # Shen et al. 2003, times 0.9 as in the module: a disk with M_r = -20.52 has a median R50 of 3.2 kpc × 0.9.
    kpc = (confounded["r50"] / confounded["radius"] * confounded["radius_kpc"]).to_numpy()
    near = ((confounded["M_r"] + 20.52).abs() < 0.15).to_numpy() & (confounded["truth"] == 1).to_numpy()
    expected = 0.9 * 10 ** (0.4 * 0.21 * 20.52 + (0.53 - 0.21) * np.log10(2) - 1.31)
    # The limit on R90 removes the smallest; five standard errors of a median with σ(ln R) = 0.37.
    assert np.median(kpc[near]) == pytest.approx(expected, rel=5 * 1.25 * 0.37 / np.sqrt(near.sum()) + 0.03)


@pytest.mark.slow
def test_class_correlates_with_luminosity_and_resolution(confounded):
    luminous, faint = (confounded.filter(which) for which in (pl.col("M_r") < -22, pl.col("M_r") > -20.5))
    assert luminous["truth"].mean() < faint["truth"].mean() - 0.2
    assert same_resolution_of_classes(confounded) < 1e-12
    # The paper's estimator, which assumes constant class fractions, is therefore biased.
    fit = fit_of_labels(confounded)
    assert fit.values["theta"] > 11.25 + 4 * fit.stderr["theta"]


def test_without_confounding_class_is_independent_of_resolution(plain):
    assert same_resolution_of_classes(plain) > 1e-3
    for name in ("M_r", "radius_kpc", "bulge_fraction", "psf_fwhm"):
        assert abs(spearmanr(plain["alpha"], plain[name]).statistic) < 4 / np.sqrt(N)
    fit = fit_of_labels(plain)
    assert abs(fit.values["theta"] - 11.25) < 4 * fit.stderr["theta"]


def radii(*values):
    return [one[0] for one in aperture_radii(*(np.array([value], float) for value in values))]


# Graham et al. 2005 (AJ 130, 1535), table 1: R_petro / R_e for η = 0.2, and R90 / R50 of the Petrosian flux.
@pytest.mark.parametrize(("n", "petrosian", "concentration"), [(1, 2.16, 2.29), (2, 2.20, 2.92), (4, 1.82, 3.42)])
def test_radii_of_a_circular_sersic_profile(n, petrosian, concentration):
    r50, r90, r_petro = radii(1, 1, n, 1)
    assert r_petro == pytest.approx(petrosian, abs=0.015)
    assert r90 / r50 == pytest.approx(concentration, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "ratio"), [(0.0, 0.15), (0.0, 0.6), (0.4, 0.3), (1.0, 0.5)])
def test_radii_equal_those_measured_on_pixels(share, ratio):
    r50, r90, r_petro = radii(share, 0.6, 2.5, ratio)
    axis = (np.arange(1600) - 799.5) * 0.01
    light = share * sersic_light(axis, 2.5, 0.6, bulge_axis_ratio(share, ratio), 0.3)
    light += (1 - share) * sersic_light(axis, 1.0, 1.678347, ratio, 0.3)
    radius = np.hypot(axis[:, None], axis[None, :]).ravel()
    order = np.argsort(radius)
    growth = np.cumsum(light.ravel()[order]) * 0.01**2
    ring = np.searchsorted(radius[order], [r_petro * 0.98, r_petro * 1.02])
    local = np.diff(growth[ring])[0] / (np.pi * r_petro**2 * (1.02**2 - 0.98**2))
    inside = np.interp(r_petro, radius[order], growth) / (np.pi * r_petro**2)
    assert local / inside == pytest.approx(0.2, abs=0.012)
    total = np.interp(2 * r_petro, radius[order], growth)
    for part, r in ((0.5, r50), (0.9, r90)):
        assert np.interp(part * total, growth, radius[order]) == pytest.approx(r, rel=0.03)


@pytest.mark.parametrize(("n", "ratio"), [(1.0, 0.4), (2.5, 1.0), (4.0, 0.7)])
def test_a_sersic_profile_has_unit_flux(n, ratio):
    axis = (np.arange(2000) - 999.5) * 0.02
    assert sersic_light(axis, n, 1.0, ratio, 0.7).sum() * 0.02**2 == pytest.approx(1.0, abs=0.02)
    assert light_inside(np.array([n]), np.array([0.0]))[0] == pytest.approx(0.5, abs=0.005)  # of the flux in R_e
    assert sersic_area(1.0) == pytest.approx(2 * np.pi / 1.678347**2, rel=1e-5)
