"""Sizes and absolute magnitudes against integrals, closed forms and astropy's own inverses."""

import numpy as np
import pytest
from astropy import cosmology
from astropy import units as u
from hypothesis import given
from hypothesis import strategies as st

from truemorph.catalogs.physical import (
    absolute_magnitude,
    named_cosmology,
    physical_radius_kpc,
    transverse_distance_mpc,
)
from truemorph.errors import InputError

C_KM_S = 299_792.458


def wmap9_distance(redshift):
    """Comoving distance (Mpc) by Simpson's rule, from the parameters of Hinshaw et al. 2013 and their radiation."""
    h0, matter, t_cmb, n_eff = 69.32, 0.2865, 2.725, 3.04
    stefan_boltzmann, newton, light, mpc_in_m = 5.670374419e-8, 6.67430e-11, 2.99792458e8, 3.0856775814913673e22
    critical = 3 * (h0 * 1e3 / mpc_in_m) ** 2 / (8 * np.pi * newton)
    photons = 4 * stefan_boltzmann * t_cmb**4 / light**3 / critical
    radiation = photons * (1 + 7 / 8 * (4 / 11) ** (4 / 3) * n_eff)
    z = np.linspace(0, redshift, 2001)
    slowness = 1 / np.sqrt(matter * (1 + z) ** 3 + radiation * (1 + z) ** 4 + 1 - matter - radiation)
    weights = np.where(np.arange(2001) % 2 == 1, 4.0, 2.0)
    weights[[0, -1]] = 1
    return C_KM_S / h0 * (weights @ slowness) * (z[1] - z[0]) / 3


@pytest.mark.parametrize("redshift", [0.001, 0.02, 0.1, 0.25, 1.0, 3.0])
def test_wmap9_is_the_integral(redshift):
    assert transverse_distance_mpc(redshift) == pytest.approx(wmap9_distance(redshift), rel=1e-6)


def test_golden_numbers():
    distance = wmap9_distance(0.1)
    # 5 arcsec at z = 0.1, and m = 17 with A = 0.1 and K = 0.12.
    radius = 5 / 206_264.806247 * distance / 1.1 * 1e3
    assert physical_radius_kpc(5.0, 0.1) == pytest.approx(radius, rel=1e-6)
    assert radius == pytest.approx(9.321, abs=0.001)
    magnitude = 17 - 0.1 - 5 * np.log10(distance * 1.1 * 1e6 / 10) - 0.12
    assert absolute_magnitude(17.0, 0.1, extinction=0.1, k_correction=0.12) == pytest.approx(magnitude, abs=1e-6)


def test_closed_forms():
    z = np.array([0.01, 0.1, 0.5, 2.0, 8.0])
    flat = cosmology.FlatLambdaCDM(H0=70, Om0=1, Tcmb0=0)
    np.testing.assert_allclose(transverse_distance_mpc(z, flat), 2 * C_KM_S / 70 * (1 - 1 / np.sqrt(1 + z)), rtol=1e-7)
    # Mattig 1958: no cosmological constant, space curved.
    open_space = cosmology.LambdaCDM(H0=70, Om0=0.3, Ode0=0, Tcmb0=0)
    mattig = 2 * C_KM_S / 70 / 0.09 * (0.3 * z + (0.3 - 2) * (np.sqrt(1 + 0.3 * z) - 1)) / (1 + z)
    np.testing.assert_allclose(transverse_distance_mpc(z, open_space), mattig, rtol=1e-7)


@pytest.mark.parametrize("name", ["WMAP9", "Planck18"])
@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-3), (1e-3, 0.3), (1e-3, 10), (1e-3, 1100)])
def test_interpolation_is_right_to_one_part_in_ten_million(name, low, high):
    z = 10 ** np.random.default_rng(1).uniform(np.log10(low), np.log10(high), 200)
    exact = getattr(cosmology, name).comoving_transverse_distance(z).to_value("Mpc")
    np.testing.assert_allclose(transverse_distance_mpc(z, name), exact, rtol=1e-7)


@given(st.floats(0.1, 100), st.floats(0.001, 2), st.sampled_from(["WMAP9", "Planck15", "WMAP5"]))
def test_inverses(radius, redshift, name):
    model = getattr(cosmology, name)
    back = physical_radius_kpc(radius, redshift, name) * model.arcsec_per_kpc_proper(redshift).value
    assert back == pytest.approx(radius, rel=1e-6)
    apparent = absolute_magnitude(radius, redshift, cosmology=name) + model.distmod(redshift).value
    assert apparent == pytest.approx(radius, abs=1e-6)


def test_missing_and_impossible_values_give_nan():
    z = [0.1, np.nan, 0.0, -0.01, -1.0, np.inf, 0.1]
    radius = physical_radius_kpc([5, 5, 5, 5, 5, 5, np.nan], z)
    assert np.isfinite(radius).tolist() == [True, *[False] * 6]
    magnitude = absolute_magnitude([17, 17, 17, 17, 17, 17, np.nan], z, extinction=np.full(7, 0.1))
    assert np.isfinite(magnitude).tolist() == [True, *[False] * 6]
    assert np.isnan(absolute_magnitude(17.0, 0.1, extinction=np.nan))
    assert np.isnan(physical_radius_kpc([5.0], [np.nan])).all()


def test_units_are_converted():
    assert physical_radius_kpc([0.1] * u.arcmin, [0.1]) == pytest.approx(physical_radius_kpc([6.0], [0.1]))
    masked = np.ma.masked_array([0.1, 0.2], [False, True])
    assert np.isnan(physical_radius_kpc(5.0, masked)).tolist() == [False, True]


def test_cosmologies_are_known_by_name():
    assert named_cosmology("Planck18") is cosmology.Planck18
    with pytest.raises(InputError, match="unknown cosmology 'wmap-9'; nearest: WMAP9, "):
        physical_radius_kpc([5.0], [0.1], "wmap-9")
    with pytest.raises(InputError, match="names are: WMAP1, WMAP3"):
        absolute_magnitude([17.0], [0.1], cosmology="")
