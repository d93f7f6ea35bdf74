"""Conversion of a table's columns to truemorph's names and units, with codes for missing values removed."""

import numpy as np
import polars as pl
import pytest

from catalogs.made_up import GZ2, full, noted, refused
from conftest import codes
from truemorph import prepare_catalogue as prepare
from truemorph.catalogs.mapped import apply_mapping
from truemorph.catalogs.mapping import read_mapping
from truemorph.tables import CatalogTable


def mapped(columns, units=None, **table):
    return apply_mapping(
        CatalogTable(pl.DataFrame(table), units or {}), read_mapping({"columns": columns}), "table", list(table)
    )


def prepared(units, **columns):
    return prepare(CatalogTable(full(), units), preset={**GZ2, "columns": columns})


@pytest.mark.parametrize(
    ("name", "unit", "factor"),
    [
        *(("radius", "ARCMIN", 60), ("radius", "asec", 1), ("radius", "Deg", 3600)),
        *(("r_half", "pc", 1e-3), ("smooth_fraction", "%", 0.01), ("magnitude", "AB mag", 1)),
    ],
)
def test_units_are_converted(name, unit, factor):
    got = mapped({name: "c"}, {"c": unit}, c=[2.0])
    np.testing.assert_allclose(got.numbers(name), 2 * factor)


def test_the_tables_unit_takes_precedence_with_a_finding():
    got = mapped({"radius": {"column": "r", "unit": "0.27 arcsec"}}, {"r": "arcmin"}, r=[0.1])
    np.testing.assert_allclose(got.numbers("radius"), 6.0)
    assert noted(got.findings, "r", "arcmin", "0.27 arcsec")
    assert mapped({"radius": {"column": "r", "unit": "arcmin"}}, {"r": "arcmin"}, r=[0.1]).findings == []


@pytest.mark.parametrize("unit", ["pix", "dex(arcsec)", "kpc"])
def test_a_radius_in_a_unit_that_is_not_an_angle_raises_an_error(unit):
    with refused("petroRad_r", unit, "0.4 * petroRad_r"):
        prepared({"petroRad_r": unit})
    got = prepared({"petroRad_r": unit}, radius={"expression": "0.4 * petroRad_r"}).catalogue.frame
    np.testing.assert_allclose(got["radius"], 0.4 * full()["petroRad_r"])
    optional = prepared({"petroMag_r": unit})
    assert "magnitude" not in optional.catalogue.metadata["columns"]
    assert noted(optional.findings, "petroMag_r", unit)


def test_an_expression_over_columns_with_units_needs_its_own_unit():
    with refused("petroRad_r", "arcmin"):
        prepared({"petroRad_r": "arcmin"}, radius={"expression": "petroRad_r * 1.0"})
    got = prepared({"petroRad_r": "arcmin"}, radius={"expression": "petroRad_r / 60", "unit": "arcmin"})
    np.testing.assert_allclose(got.catalogue.frame["radius"], full()["petroRad_r"])


COUNTS = {"smooth_votes": "s", "disk_votes": "d"}


def test_given_and_computed_fractions_are_not_mixed():
    columns = {**COUNTS, "smooth_fraction": "f", "disk_fraction": "g", "vote_count": "n"}
    counts = {"s": [1, 3, 0], "d": [1, 1, 0], "n": [4, 4, 0], "g": [0.1, 0.2, 0.3]}
    got = mapped(columns, f=[0.9, None, None], **counts)
    np.testing.assert_array_equal(got.numbers("smooth_fraction"), [0.9, np.nan, np.nan])
    np.testing.assert_array_equal(got.numbers("disk_fraction"), [0.1, 0.2, 0.3])
    got = mapped(columns, f=[None, None, None], **counts)
    np.testing.assert_array_equal(got.numbers("smooth_fraction"), [0.25, 0.75, np.nan])
    without_total = mapped({**COUNTS, "artefact_votes": "a"}, s=[3, 3, 0], d=[1, 1, 0], a=[None, 4, 0])
    assert without_total.frame["vote_count"].to_list() == [4, 8, 0]
    np.testing.assert_array_equal(got.numbers("disk_fraction"), [0.25, 0.25, np.nan])


def test_a_label_column_of_empty_text_gives_no_label():
    got = mapped({"label": "l"}, l=pl.Series([None, None], dtype=pl.String))
    assert np.isnan(got.numbers("label")).all()


def test_impossible_counts_are_missing():
    got = mapped({**COUNTS, "vote_count": "n"}, s=[-1.0, 3.0, 3e20, 2.0, 2.0], d=[1] * 5, n=[4] * 5)
    assert got.frame["smooth_votes"].to_list() == [None, 3, None, 2, 2]
    assert noted(got.findings, "s", "2 of 5 rows", "row 1")


def test_columns_named_like_truemorphs_own_are_renamed():
    table = full(p_disk=0.9, label=["x"] * 60, label_input=["y"] * 60, alpha=2.0)
    got = prepare(CatalogTable(table, {"alpha": "m"}, descriptions={"alpha": "a length"}), preset="gz2").catalogue
    assert {"p_disk_input", "label_input", "label_input_"} <= set(got.frame.columns)
    assert got.frame["label"].dtype == pl.Int64
    assert (got.units["alpha_input"], got.descriptions["alpha_input"]) == ("m", "a length")
    assert "alpha" not in got.units


def test_sentinels_are_removed_before_an_expression_is_computed():
    table = full(ba=[-99.0] * 5 + [0.4] * 55, q=[-1.0] * 3 + [0.4] * 57, t=[-99] * 10 + [5, -5] * 25)
    columns = {"ellipticity": {"expression": "1 - ba"}, "sersic_n": {"column": "q", "missing": [-1]}}
    got = prepare(table, preset={**GZ2, "columns": columns}, keep=["q > 0 OR ba < 0"])
    assert got.catalogue.frame["ellipticity"].null_count() == 2
    assert dict(got.funnel)["q > 0 OR ba < 0"] == -3  # missing values are missing in rules, too
    assert noted(got.findings, "ba", "-99", "5 of 60 rows")
    assert dict(prepare(table, columns={"label": "t > 0"}).funnel)["no label"] == -10


@pytest.mark.parametrize("z", [["far"] * 60, [-5.0] * 60])
def test_a_named_column_that_cannot_be_used_raises_an_error(z):
    """Of a preset, whose columns are optional, it is a finding."""
    table = full(z=z)
    with refused("z"):
        prepare(table, columns={"redshift": "z"})
    found = prepare(full(redshift=z))
    assert "redshift" not in found.catalogue.metadata["columns"]
    assert "column-not-used" in codes(found)


def test_labels_and_votes_are_not_both_named():
    table = full(mine=[0, 1] * 30)
    with refused("mine"):
        prepare(table, preset={**GZ2, "columns": {"label": "mine"}})
    assert prepare(table, columns={"label": "mine"}).catalogue.frame["label"].to_list() == [0, 1] * 30
