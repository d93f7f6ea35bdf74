"""Adding columns of other tables by id or position, without changing the first table."""

import numpy as np
import polars as pl
import pytest

from catalogs.made_up import DISK, GZ2, IDS, SMOOTH, full, noted, photometry, refused, votes
from truemorph.catalogs.crossmatch import Join, join_tables, read_join
from truemorph.catalogs.prepare import prepare
from truemorph.tables import CatalogTable, write_table

LEFT = pl.DataFrame({"dr7objid": [IDS, IDS + 1, IDS + 2], "ra": [10.0, 20.0, 30.0], "dec": [0.0, 1.0, 2.0]})


def join(*joins):
    return join_tables(CatalogTable(LEFT), joins, None, "votes.csv")


def test_joined_rows_follow_the_first_table(tmp_path):
    photometry = pl.DataFrame({"objID": [str(IDS + 2), str(IDS + 1)], "r": [7.0, 6.0], "ra": [1.0, 1.0]})
    path = write_table(
        CatalogTable(photometry, {"r": "arcsec"}, descriptions={"r": "radius"}), tmp_path / "sdss.parquet"
    )
    joined = join(Join(path), Join(pl.DataFrame({"id": [IDS], "b": [4]}), columns=("id",)))
    assert joined.table.frame["r"].to_list() == [None, 6.0, 7.0]
    assert joined.table.frame["b"].to_list() == [4, None, None]
    assert (joined.table.units["r"], joined.table.descriptions["r"]) == ("arcsec", "radius")
    assert joined.table.frame["ra"].to_list() == [10.0, 20.0, 30.0]  # the first table keeps its names and values
    assert joined.table.frame["ra_sdss"].to_list() == [None, 1.0, 1.0]
    statistics = joined.matches[0]
    assert statistics["tables"] == ["votes.csv", "sdss.parquet"]
    assert (statistics["matched"], statistics["unmatched"], statistics["right_unused"]) == (2, 1, 0)
    assert joined.added["r"] == ("sdss.parquet", path)


def test_tables_are_joined_on_the_sky_with_units_and_separations():
    arcsec = 1 / 3600
    right = {"RAJ2000": [20.0, 30.0 + 5 * arcsec, 10.0], "DEJ2000": [1.0 + arcsec, 2.0, 0.0]}
    table = pl.DataFrame({name: np.radians(values) for name, values in right.items()} | {"z": [0.2, 0.3, 0.1]})
    joined = join(Join(CatalogTable(table, dict.fromkeys(right, "rad")), "sky", within=2.0))
    assert joined.table.frame["z"].to_list() == [0.1, 0.2, None]
    np.testing.assert_allclose(joined.table.frame["joined_separation"][:2], [0, 1], atol=1e-6)
    assert joined.table.frame["joined_separation"][2] is None
    assert joined.table.units["joined_separation"] == "arcsec"
    assert joined.matches[0]["by"] == "sky"


@pytest.mark.parametrize(
    ("columns", "how", "mentioned"),
    [
        ({"objid": [1], "x": [0]}, {}, ("polars DataFrame", "votes.csv")),
        ({"objid": [IDS, IDS]}, {}, (str(IDS),)),
        ({"galaxy": [IDS]}, {}, ("galaxy", "`join`=FILE=COLUMN")),
        ({"objid": [IDS]}, {"columns": ("objd",)}, ("objd", "nearest: objid")),
        ({"x": [1.0], "y": [1.0]}, {"by": "sky"}, ("`match`=FILE=RA,DEC",)),
        ({"ra": ["10:00:00"], "dec": ["1:00"]}, {"by": "sky"}, ("column ra", "row 1", "10:00:00")),
        ({"ra": [10.0], "dec": [-1.0]}, {"by": "sky", "columns": ("ra", "decl")}, ("decl", "nearest: dec")),
    ],
)
def test_tables_that_cannot_be_joined_raise_errors(columns, how, mentioned):
    with refused(*mentioned):
        join(Join(pl.DataFrame(columns), **how))


def test_a_join_is_given_as_file_and_columns(tmp_path):
    (tmp_path / "a=b.csv").write_text("objid\n1\n")
    assert read_join(str(tmp_path / "a=b.csv")) == Join(str(tmp_path / "a=b.csv"))
    assert read_join("x.fits=id") == Join("x.fits", columns=("id",))
    assert read_join("x.fits=a,b", "sky", 1.5) == Join("x.fits", "sky", ("a", "b"), 1.5)


def test_the_survey_and_its_columns_are_taken_from_the_first_table():
    fractions = {"smooth_fraction": SMOOTH, "disk_fraction": DISK}
    table = votes().select("ra", "dec", object_id=pl.lit("hst") + pl.col("dr7objid").cast(str), **fractions)
    table = table.with_columns(radius=5.0 + pl.col("ra") / 100, psf_fwhm=pl.lit(1.2))
    got = prepare(table, joins=[Join(full()[:40], "sky")]).catalogue
    assert got.metadata["preset"] == "truemorph"
    assert got.frame["object_id"].to_list() == table["object_id"].to_list()
    assert got.frame["radius"].to_list() == table["radius"].to_list()
    assert "redshift" in got.metadata["tables"]


def test_votes_of_a_joined_table_are_used_with_a_finding():
    prepared = prepare(photometry(), joins=[Join(votes())])
    assert prepared.catalogue.metadata["preset"] == "gz2"
    assert noted(prepared.findings, "smooth_fraction", "from polars DataFrame")
    assert not noted(prepare(votes(), joins=[Join(photometry())]).findings, "smooth_fraction")


def test_an_empty_column_is_replaced_by_that_of_the_joined_table():
    table = full().with_columns(redshift=pl.lit(None, pl.Float64))
    got = prepare(table, joins=[Join(photometry())])
    assert got.catalogue.frame["redshift"].to_list() == photometry()["redshift"].to_list()


@pytest.mark.parametrize(
    ("change", "how", "matched"),
    [
        (pl.col("ra") / 15, {"column": "ra", "unit": "hourangle"}, 60),
        (pl.col("ra") / 15, {"expression": "ra * 15"}, 60),
        (pl.when(pl.col("dr7objid") == IDS).then(-9999.0).otherwise("ra"), {"column": "ra"}, 59),
    ],
    ids=["unit", "expression", "sentinel"],
)
def test_position_columns_follow_the_mapping(change, how, matched):
    table = full()
    right = pl.DataFrame({"RAJ2000": table["ra"], "DEJ2000": table["dec"], "x": np.arange(60)})
    mapping = {**GZ2, "columns": {"ra": how}}
    got = prepare(table.with_columns(ra=change), mapping=mapping, joins=[Join(right, "sky")]).catalogue
    assert len(got.frame["x"].drop_nulls()) == matched
    assert got.frame.filter(pl.col("x") != pl.col("object_id") - IDS).is_empty()


def test_positions_and_ids_named_by_the_user_replace_those_of_the_mapping():
    names = pl.Series([f"g{k}" for k in range(60)])
    table = full().rename({"ra": "alpha_deg", "dec": "delta_deg"}).with_columns(other=names)
    sky = pl.DataFrame({"ra": table["alpha_deg"], "dec": table["delta_deg"], "x": np.arange(60)})
    by_id = pl.DataFrame({"gid": names, "y": np.arange(60)})
    chosen = {"ra": "alpha_deg", "dec": "delta_deg", "object_id": "other"}
    got = prepare(table, columns=chosen, joins=[Join(sky, "sky"), Join(by_id, columns=("gid",))]).catalogue
    assert got.frame["x"].to_list() == got.frame["y"].to_list() == list(range(60))
