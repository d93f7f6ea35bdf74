"""Units: the table's own, whatever their spelling; what is not sure is refused or left out, never assumed."""

import numpy as np
import pytest

from catalogs.made_up import full
from truemorph.catalogs.prepare import prepare_catalogue
from truemorph.errors import InputError
from truemorph.tables import CatalogTable


def prepared(units, mapping=None, **changes):
    return prepare_catalogue(CatalogTable(full(**changes), units), mapping=mapping and {"extends": "gz2", **mapping})


@pytest.mark.parametrize(
    ("unit", "factor"), [("ARCMIN", 60), ("Arcmin", 60), ("'", 60), ('"', 1), ("ARCSEC", 1), ("asec", 1), ("Deg", 3600)]
)
def test_spellings_of_angles(unit, factor):
    np.testing.assert_allclose(prepared({"petroRad_r": unit}).catalogue.frame["radius"], full()["petroRad_r"] * factor)


@pytest.mark.parametrize("unit", ["seconds of arc", "arcsec/pix", "pix", "h", "dex(arcsec)", "dex", "mag"])
def test_a_radius_in_a_unit_that_is_no_angle_is_refused_whatever_the_mapping_says(unit):
    with pytest.raises(InputError, match=r"column petroRad_r is in .* not an angle.*give a column in arcsec, or say"):
        prepared({"petroRad_r": unit})
    # What the message advises works.
    advised = {"columns": {"radius": {"expression": "1 * petroRad_r", "unit": "arcsec"}}}
    assert (
        prepared({"petroRad_r": unit}, advised).catalogue.frame["radius"].equals(full()["petroRad_r"].alias("radius"))
    )


@pytest.mark.parametrize("unit", ["glorps", "dex", "mag(ct/s)", "km"])
def test_other_columns_in_such_units_are_left_out_and_said(unit):
    got = prepared({"petroMag_r": unit})
    assert "magnitude" not in got.catalogue.frame.columns
    assert any(f"petroMag_r is in {unit!r}" in note and "not taken as magnitude" in note for note in got.notes)


def test_an_expression_over_columns_in_other_units_says_its_own():
    by_hand = {"columns": {"radius": {"expression": "petroRad_r * 1.0"}}}
    with pytest.raises(InputError, match=r"petroRad_r \* 1.0 is made from petroRad_r, in arcmin; .* unit = .arcsec."):
        prepared({"petroRad_r": "arcmin"}, by_hand)
    by_hand["columns"]["radius"]["unit"] = "arcmin"
    got = prepared({"petroRad_r": "arcmin"}, by_hand).catalogue.frame
    np.testing.assert_allclose(got["radius"], full()["petroRad_r"] * 60)
    ratio = {"columns": {"ellipticity": {"expression": "1 - petroRad_r / psfWidth_r", "optional": True}}}
    assert "ellipticity" in prepared({"petroRad_r": "arcsec", "psfWidth_r": "arcsec"}, ratio).catalogue.frame.columns


def test_a_carried_columns_unit_and_description_are_kept():
    units = {"extra": "km / s", "alpha": "m"}
    table = CatalogTable(full(extra=1.0, alpha=2.0), units, descriptions={"extra": "a speed"})
    got = prepare_catalogue(table).catalogue
    assert (got.units["extra"], got.descriptions["extra"]) == ("km / s", "a speed")
    assert got.units["alpha_input"] == "m"
    assert "alpha" not in got.units
