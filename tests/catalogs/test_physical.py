"""Physical sizes and absolute magnitudes against integrals and formulas; resolution α and its units."""

import numpy as np
import pytest
from astropy import cosmology
from astropy import units as u
from astropy.table import MaskedColumn

from catalogs.made_up import refused
from truemorph import resolution
from truemorph.catalogs.physical import absolute_magnitude, physical_radius_kpc, transverse_distance_mpc


def test_sizes_and_magnitudes_equal_golden_numbers():
    # Simpson's rule over 1/H(z) with the parameters of Hinshaw et al. 2013, photons and neutrinos included.
    np.testing.assert_allclose(
        transverse_distance_mpc(np.array([0.02, 0.1, 1.0, 3.0])), [86.1216, 422.9824, 3363.0706, 6503.9018], rtol=1e-6
    )
    # 5 arcsec at z = 0.1, and m = 17 with A = 0.1.
    assert physical_radius_kpc(5.0, 0.1) == pytest.approx(9.321256, rel=1e-6)
    assert absolute_magnitude(17.0, 0.1, extinction=0.1) == pytest.approx(-21.438575, abs=1e-6)


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-3), (1e-3, 0.3), (1e-3, 1100)])
def test_interpolation_is_accurate_to_one_part_in_ten_million(low, high):
    z = 10 ** np.random.default_rng(1).uniform(np.log10(low), np.log10(high), 50)
    exact = cosmology.Planck18.comoving_transverse_distance(z).to_value("Mpc")
    np.testing.assert_allclose(transverse_distance_mpc(z, "Planck18"), exact, rtol=1e-7)


def test_missing_and_impossible_values_give_nan():
    z = [0.1, np.nan, 0.0, -0.01, -1.0, np.inf, 0.1]
    radius = physical_radius_kpc([5, 5, 5, 5, 5, 5, np.nan], z)
    magnitude = absolute_magnitude([17, 17, 17, 17, 17, 17, np.nan], z, extinction=np.full(7, 0.1))
    assert np.isfinite(radius).tolist() == np.isfinite(magnitude).tolist() == [True, *[False] * 6]
    assert np.isnan(physical_radius_kpc(5.0, np.ma.masked_array([0.1, 0.2], [False, True]))).tolist() == [False, True]


def test_alpha_is_radius_over_sigma_or_fwhm():
    np.testing.assert_allclose(resolution([6.0], 1.2), 6.0 / (1.2 / 2.354820045), rtol=1e-9)
    np.testing.assert_allclose(resolution([6.0], 1.2, psf="fwhm"), 5.0)
    np.testing.assert_allclose(resolution([0.1] * u.arcmin, [1.2] * u.arcsec), resolution([6.0], 1.2))
    np.testing.assert_allclose(physical_radius_kpc([0.1] * u.arcmin, [0.1]), physical_radius_kpc([6.0], [0.1]))


@pytest.mark.parametrize(
    ("radius", "width", "mentioned"),
    [
        ([5.0, -9999.0], 1.2, ("radius", "row 1", "-9999")),
        (MaskedColumn([5.0, 6.0], mask=[True, False]), 1.2, ("radius", "row 0")),
        ([5.0, 6.0, 7.0], [1.2, 1.3], ("psf_fwhm",)),
    ],
)
def test_impossible_sizes_raise_errors(radius, width, mentioned):
    with refused(*mentioned):
        resolution(radius, width)
