"""Tables in and out: every format, units, missing values, long ids, and broken files."""

import gzip
from datetime import date

import numpy as np
import polars as pl
import pytest
from astropy.table import MaskedColumn, Table

from truemorph.errors import InputError
from truemorph.tables import CatalogTable, read_table, write_table

LONG_ID = 1237648720693755918


def small_table():
    frame = pl.DataFrame(
        {"objid": [LONG_ID, LONG_ID + 1], "radius": [6.5, None], "name": ["a", "b"], "flag": [True, False]},
    )
    return CatalogTable(frame, {"radius": "arcsec"}, {"alpha": "R / sigma_PSF, with a long sentence " * 8, "n": 3})


@pytest.mark.parametrize("extension", ["csv", "csv.gz", "tsv", "parquet", "fits", "ecsv", "vot", "xml"])
def test_a_table_comes_back_as_it_was_written(tmp_path, extension):
    table = small_table()
    back = read_table(write_table(table, tmp_path / f"t.{extension}"))
    assert back.frame.equals(table.frame)
    if extension not in ("csv", "csv.gz", "tsv"):
        assert back.units == table.units
        assert back.metadata == table.metadata
    assert [p.name for p in tmp_path.iterdir()] == [f"t.{extension}"]  # nothing half-written beside it


@pytest.mark.parametrize(("extension", "format_name"), [("fits", "fits"), ("ecsv", "ascii.ecsv"), ("vot", "votable")])
def test_tables_written_by_astropy(tmp_path, extension, format_name):
    path = tmp_path / f"t.{extension}"
    table = Table({"objid": np.array([LONG_ID, 2]), "r": np.array([1.5, 2.5], ">f4")})
    table["votes"] = MaskedColumn([0.5, 0.0], mask=[False, True])
    table["r"].unit = "arcmin"
    table.write(path, format=format_name)
    back = read_table(path)
    assert back.frame["objid"].to_list() == [LONG_ID, 2]
    assert back.frame["votes"].to_list() == [0.5, None]
    assert back.units == {"r": "arcmin"}


def test_csv_spellings_of_missing_are_missing(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,z\n1,0.1\n2,nan\n3,\n4,NA\n")
    assert read_table(path).frame["z"].to_list() == [0.1, None, None, None]


def test_broken_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "t.dat").write_text("x")
    with pytest.raises(InputError, match="unknown kind of table"):
        read_table(tmp_path / "t.dat")
    for name in ("t.parquet", "t.fits", "t.vot"):
        (tmp_path / name).write_bytes(b"not a table at all")
        with pytest.raises(InputError, match=f"{name}: can't be read"):
            read_table(tmp_path / name)
    (tmp_path / "e.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="no rows"):
        read_table(tmp_path / "e.csv")
    Table({"spectrum": np.zeros((3, 5))}).write(tmp_path / "s.fits")
    with pytest.raises(InputError, match="column spectrum holds an array"):
        read_table(tmp_path / "s.fits")


@pytest.mark.parametrize("extension", ["fits", "ecsv", "vot"])
def test_nulls_and_awkward_metadata_survive(tmp_path, extension):
    frame = pl.DataFrame({"name": ["a", None, "c"], "flag": [True, None, False], "n": [1, None, 3]})
    table = CatalogTable(frame, {}, {"path": "/long/" + "é" * 90 + "/two  spaces", "x": ["y" * 120]})
    back = read_table(write_table(table, tmp_path / f"t.{extension}"))
    assert back.metadata == table.metadata
    assert back.frame["name"].to_list() == ["a", None, "c"]
    assert [None if v is None else bool(v) for v in back.frame["flag"]] == [True, None, False]
    assert back.frame["n"].to_list() == [1, None, 3]


def test_ids_with_leading_zeros_stay_text_and_hashes_stay_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("# made by hand\nid,n\n00012,1\n#7,2\n00013,3\n")
    assert read_table(path).frame["id"].to_list() == ["00012", "#7", "00013"]
    path.write_text("id,n\n00012,1\n00013,3\n")
    frame = read_table(path).frame
    assert frame["id"].to_list() == ["00012", "00013"]
    assert frame["n"].to_list() == [1, 3]


def test_what_a_format_cannot_hold_is_named(tmp_path):
    with pytest.raises(InputError, match="column when"):
        write_table(CatalogTable(pl.DataFrame({"when": [date(2020, 1, 1)]})), tmp_path / "t.fits")
    with pytest.raises(InputError, match=r"t\.fits"):
        write_table(CatalogTable(pl.DataFrame({"name": ["\u03b8"]})), tmp_path / "t.fits")
    assert list(tmp_path.iterdir()) == []


def test_csv_columns_that_change_far_down_are_read_as_what_they_are(tmp_path):
    # Kinds are guessed from the first rows, which may be all empty, whole numbers or true.
    n = 10_500
    late = {
        "empty": ["", "3"],
        "whole": ["1", "1.5"],
        "name": ["1", "J01"],
        "flag": ["true", "maybe"],
        "pad": ["7", "07"],
    }
    lines = [",".join(late), *[",".join(first for first, _ in late.values())] * n]
    for changed in range(len(late)):
        lines.append(",".join(values[number == changed] for number, values in enumerate(late.values())))
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(b"# one\n# two\n" + path.read_bytes()))
    for one in (path, packed):
        frame = read_table(one).frame
        assert frame.height == n + len(late)
        assert frame["empty"].drop_nulls().to_list() == [3]
        assert frame["whole"].max() == 1.5
        assert (frame["name"] == "J01").sum() == (frame["flag"] == "maybe").sum() == (frame["pad"] == "07").sum() == 1
    only_empty = tmp_path / "empty.csv"
    only_empty.write_text("id,late\n" + "1,\n" * n + "2,5\n")
    frame = read_table(only_empty).frame
    assert frame["late"].dtype == pl.Int64
    assert frame["late"].drop_nulls().to_list() == [5]
