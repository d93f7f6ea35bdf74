"""Columns of other tables beside a table's own."""

import numpy as np
import polars as pl
import pytest

from truemorph.catalogs.joining import Join, join_tables, read_join
from truemorph.catalogs.mapping import read_mapping
from truemorph.errors import InputError
from truemorph.tables import CatalogTable, write_table

IDS = [587722981741363323, 587722981741363324, 587722981741363325]


def votes(**columns):
    return CatalogTable(pl.DataFrame({"dr7objid": IDS, "ra": [10.0, 20.0, 30.0], "dec": [0.0, 1.0, 2.0], **columns}))


def test_by_id_rows_follow_the_first_table_and_what_is_missing_is_null(tmp_path):
    photometry = CatalogTable(
        pl.DataFrame({"objid": IDS[::-1][:2], "petroRad_r": [7.0, 6.0]}),
        {"petroRad_r": "arcsec"},
        descriptions={"petroRad_r": "Petrosian radius, r"},
    )
    path = write_table(photometry, tmp_path / "photometry.parquet")
    joined = join_tables(votes(), [Join(path)], source="votes.csv")
    assert joined.table.frame["petroRad_r"].to_list() == [None, 6.0, 7.0]
    assert joined.table.units["petroRad_r"] == "arcsec"
    assert joined.table.descriptions["petroRad_r"] == "Petrosian radius, r"
    left, right, statistics = joined.matches[0]
    assert (left, right) == ("votes.csv", "photometry.parquet")
    assert (statistics["matched"], statistics["unmatched"], statistics["right_unused"]) == (2, 1, 0)
    assert joined.files["petroRad_r"] == path


def test_ids_are_found_whatever_their_case_and_compared_as_text_where_one_is_text():
    simard = pl.DataFrame({"objID": [str(one) for one in IDS], "sersic_n": [1.0, 2.0, 4.0]})
    joined = join_tables(votes(), [Join(simard)])
    assert joined.table.frame["sersic_n"].to_list() == [1.0, 2.0, 4.0]


def test_columns_that_are_there_already_keep_their_values(tmp_path):
    path = write_table(CatalogTable(pl.DataFrame({"objid": IDS, "ra": [1.0, 1.0, 1.0]})), tmp_path / "sdss.parquet")
    joined = join_tables(votes(), [Join(path)])
    assert joined.table.frame["ra"].to_list() == [10.0, 20.0, 30.0]
    assert joined.table.frame["ra_sdss"].to_list() == [1.0, 1.0, 1.0]
    assert any("ra_sdss" in note for note in joined.notes)


def test_on_the_sky_with_units_and_separations():
    arcsec = 1 / 3600
    right = CatalogTable(
        pl.DataFrame(
            {
                "RAJ2000": np.radians([20.0, 30.0 + 5 * arcsec, 10.0]),
                "DEJ2000": np.radians([1.0 + arcsec, 2.0, 0.0]),
                "z": [0.2, 0.3, 0.1],
            }
        ),
        {"RAJ2000": "rad", "DEJ2000": "rad"},
    )
    joined = join_tables(votes(), [Join(right, "sky", within=2.0)], read_mapping("gz2"))
    assert joined.table.frame["z"].to_list() == [0.1, 0.2, None]
    np.testing.assert_allclose(joined.table.frame["joined_separation"][1], 1.0, atol=1e-6)
    assert joined.table.frame["joined_separation"].is_null().to_list() == [False, False, True]
    assert joined.matches[0][2]["by"] == "sky"


def test_several_tables_one_after_the_other():
    first, second = pl.DataFrame({"objid": IDS, "a": [1, 2, 3]}), pl.DataFrame({"id": IDS, "b": [4, 5, 6]})
    joined = join_tables(votes(), [Join(first), Join(second, columns=("id",))])
    assert joined.table.frame.columns == ["dr7objid", "ra", "dec", "a", "b"]
    assert len(joined.matches) == len(joined.notes) == 2


@pytest.mark.parametrize(
    ("join", "says"),
    [
        (Join(pl.DataFrame({"objid": [1], "x": [0]})), "nothing of polars DataFrame belongs.*same data release"),
        (Join(pl.DataFrame({"objid": [IDS[0]] * 2})), "2 rows share an id"),
        (Join(pl.DataFrame({"galaxy": IDS})), "no column of ids.*--join FILE=COLUMN.*galaxy"),
        (Join(pl.DataFrame({"objid": IDS}), columns=("objd",)), "no column 'objd' of ids; nearest: objid"),
        (Join(pl.DataFrame({"x": [1.0], "y": [1.0]}), "sky"), "no columns of positions"),
        (
            Join(pl.DataFrame({"ra": ["10:00:00"], "dec": ["1:00"]}), "sky"),
            "polars DataFrame: column ra should hold numbers, but row 1 is '10:00:00'",
        ),
        (Join(pl.DataFrame({"ra": [10.0], "dec": [-1.0]}), "sky", ("ra", "decl")), "no column 'decl'.*nearest: dec"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(join, says):
    with pytest.raises(InputError, match=says) as caught:
        join_tables(votes(), [join])
    assert "\n" not in str(caught.value)


def test_how_a_join_is_written(tmp_path):
    odd = tmp_path / "a=b.csv"
    odd.write_text("objid\n1\n")
    assert read_join(str(odd)) == Join(str(odd))
    assert read_join("x.fits=id") == Join("x.fits", columns=("id",))
    with pytest.raises(InputError, match="FILE=RA,DEC"):
        read_join("x.fits=ra", "sky")
