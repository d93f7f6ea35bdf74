"""Votes to labels, and α."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn
from hypothesis import given
from hypothesis import strategies as st

from truemorph.catalogs.resolution import resolution
from truemorph.catalogs.votes import ARTEFACT, NO_VOTES, TIED, labels_from_votes
from truemorph.errors import InputError


def label(smooth, disk=np.nan, artefact=np.nan):
    labels, reasons = labels_from_votes(np.array([smooth]), np.array([disk]), np.array([artefact]))
    return int(labels[0]), str(reasons[0])


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ((0.6, 0.4, 0.0), (0, "")),
        ((0.45, 0.55, 0.0), (1, "")),
        ((0.4, 0.35, 0.25), (0, "")),  # a majority among the three, not above one half
        ((0.1, 0.2, 0.7), (-1, ARTEFACT)),
        ((0.4, 0.4, 0.2), (-1, TIED)),
        ((0.51,), (0, "")),
        ((0.49,), (1, "")),
        ((0.5,), (-1, TIED)),
        ((np.nan, 0.4, 0.1), (-1, NO_VOTES)),
        ((0.2, np.nan, 0.6), (-1, ARTEFACT)),
    ],
)
def test_the_largest_fraction_is_the_label(votes, expected):
    assert label(*votes) == expected


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_label_always_has_the_most_votes(smooth, disk, artefact):
    got, reason = label(smooth, disk, artefact)
    assert (got == -1) == (reason != "")
    if got >= 0:
        assert (smooth, disk)[got] == max(smooth, disk, artefact)


def test_counts_instead_of_fractions_are_noticed():
    with pytest.raises(InputError, match=r"row 1, 34\.0.*counts"):
        labels_from_votes(np.array([0.2, 34.0]))


def test_alpha_and_its_units():
    np.testing.assert_allclose(resolution([6.0], 1.2), 6.0 / (1.2 / 2.354820045), rtol=1e-9)
    np.testing.assert_allclose(resolution([6.0], 1.2, psf="fwhm"), 5.0)
    np.testing.assert_allclose(resolution([6.0, 3.0], [1.2, 0.6]), resolution([6.0, 6.0], 1.2))


@pytest.mark.parametrize(
    ("radius", "width", "says"),
    [
        ([5.0, -9999.0], 1.2, r"radius must be a positive.*row 1, -9999"),
        ([5.0, np.nan], 1.2, "row 1, nan"),
        ([5.0, 0.0], 1.2, "row 1"),
        ([5.0, 5.0], [1.2, 0.0], "psf_fwhm must be"),
    ],
)
def test_impossible_sizes_are_named(radius, width, says):
    with pytest.raises(InputError, match=says):
        resolution(radius, width)


def test_units_and_masks_are_heeded():
    np.testing.assert_allclose(resolution([0.1] * u.arcmin, [1.2] * u.arcsec), resolution([6.0], 1.2))
    with pytest.raises(InputError, match="radius is in kpc"):
        resolution([5.0] * u.kpc, 1.2)
    with pytest.raises(InputError, match="row 0, nan"):
        resolution(MaskedColumn([5.0, 6.0], mask=[True, False]), 1.2)
    with pytest.raises(InputError, match="one number or one a galaxy"):
        resolution([5.0, 6.0, 7.0], [1.2, 1.3])
