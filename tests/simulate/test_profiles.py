"""Radii of profiles: textbook values, and pixels counted by hand."""

import numpy as np
import pytest

from truemorph.simulate.light import sersic_light
from truemorph.simulate.profiles import aperture_radii, light_inside, sersic_area


def one(**changes):
    values = {
        "bulge_fraction": 1.0,
        "bulge_radius": 1.0,
        "bulge_index": 4.0,
        "bulge_axis_ratio": 1.0,
        "disk_scale": 1.0,
        "axis_ratio": 1.0,
    }
    return aperture_radii(*(np.array([value]) for value in (values | changes).values()))


# Graham et al. 2005 (AJ 130, 1535), table 1: R_petro / R_e for η = 0.2, and R90 / R50 of the Petrosian flux.
@pytest.mark.parametrize(("n", "petrosian", "concentration"), [(1, 2.16, 2.29), (2, 2.20, 2.92), (4, 1.82, 3.42)])
def test_radii_of_a_round_sersic_profile(n, petrosian, concentration):
    r50, r90, r_petro = one(bulge_index=float(n))
    assert r_petro[0] == pytest.approx(petrosian, abs=0.015)
    assert (r90 / r50)[0] == pytest.approx(concentration, abs=0.04)


@pytest.mark.parametrize(
    ("share", "ratio", "bulge_ratio"), [(0.0, 0.15, 1.0), (0.0, 0.6, 1.0), (0.4, 0.3, 0.7), (1.0, 1.0, 0.5)]
)
def test_radii_equal_those_counted_on_pixels(share, ratio, bulge_ratio):
    r50, r90, r_petro = one(bulge_fraction=share, bulge_radius=0.6, bulge_index=2.5, bulge_axis_ratio=bulge_ratio,
                            axis_ratio=ratio)  # fmt: skip
    axis = (np.arange(1600) - 799.5) * 0.01
    light = share * sersic_light(axis, 2.5, 0.6, bulge_ratio, 0.3)
    light += (1 - share) * sersic_light(axis, 1.0, 1.678347, ratio, 0.3)
    radius = np.hypot(axis[:, None], axis[None, :]).ravel()
    order = np.argsort(radius)
    growth = np.cumsum(light.ravel()[order]) * 0.01**2
    ring = np.searchsorted(radius[order], [r_petro[0] * 0.98, r_petro[0] * 1.02])
    local = np.diff(growth[ring])[0] / (np.pi * r_petro[0] ** 2 * (1.02**2 - 0.98**2))
    inside = np.interp(r_petro[0], radius[order], growth) / (np.pi * r_petro[0] ** 2)
    assert local / inside == pytest.approx(0.2, abs=0.012)
    total = np.interp(2 * r_petro[0], radius[order], growth)
    for part, r in ((0.5, r50[0]), (0.9, r90[0])):
        assert np.interp(part * total, growth, radius[order]) == pytest.approx(r, rel=0.03)


@pytest.mark.parametrize("n", [0.7, 1.0, 4.0])
def test_half_of_the_light_lies_inside_the_effective_radius(n):
    assert light_inside(np.array([n]), np.array([0.0]))[0] == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize(("n", "ratio"), [(1.0, 0.4), (2.5, 1.0), (4.0, 0.7)])
def test_sersic_light_adds_up(n, ratio):
    axis = (np.arange(2000) - 999.5) * 0.02
    assert sersic_light(axis, n, 1.0, ratio, 0.7).sum() * 0.02**2 == pytest.approx(1.0, abs=0.02)
    assert sersic_area(1.0) == pytest.approx(2 * np.pi / 1.678347**2, rel=1e-5)
