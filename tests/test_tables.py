"""Tables in files and in memory: values, units, missing values and long ids are kept; broken tables raise errors."""

import gzip
import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from io import BytesIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io import fits, votable
from astropy.table import MaskedColumn, QTable, Table
from astropy.time import Time
from astropy.utils.masked import Masked
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import json_values
from truemorph import read_table, write_table
from truemorph.errors import InputError
from truemorph.tables import CatalogTable, numeric_columns, to_arrow

LONG_ID = 1237648720693755918
TEXT = ["csv", "csv.gz", "tsv"]
ASTROPY = ["fits", "fits.gz", "ecsv", "vot", "vot.gz", "xml"]


TABLE = CatalogTable(
    pl.DataFrame(
        {
            "objid": [LONG_ID, LONG_ID + 1, LONG_ID + 2],
            "radius": [6.5, None, 2.25],
            "name": ["a", None, "c"],
            "n": [None, 999_999, 3],  # astropy's value for a missing integer
            "flag": [True, False, True],
            "maybe": [True, None, False],
            "max. flux": [0.5, None, 2.5],
        }
    ),
    {"radius": "arcsec", "n": "smoots"},
    {"path": "/long/" + "é" * 90 + "/two  spaces", "x": ["y" * 120, 3, None]},
    descriptions={"radius": "a radius, " * 20 + "and more", "n": "number"},
)


@pytest.mark.parametrize("extension", [*TEXT, "parquet", *ASTROPY])
def test_a_table_is_the_same_after_writing_and_reading(tmp_path, extension):
    back = read_table(write_table(TABLE, tmp_path / f"t.{extension}"))
    if extension.startswith("fits"):  # booleans with missing values are integers
        back = replace(back, frame=back.frame.with_columns(pl.col("maybe").cast(pl.Boolean)))
    assert back.frame.equals(TABLE.frame)
    if extension not in TEXT:
        assert (back.units, back.descriptions, back.metadata) == (TABLE.units, TABLE.descriptions, TABLE.metadata)
    assert [file.name for file in tmp_path.iterdir()] == [f"t.{extension}"]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_types_of_csv_columns(tmp_path, name):
    """Ids with leading zeros stay text; the last row may decide; hashes below the header are rows."""
    early, late = {"id": "7", "whole": "1", "name": "1", "flag": "true", "empty": ""}, ["#07", "1.5", "J01", "no", "3"]
    rows = [",".join(early), *[",".join(early.values())] * 12_000, ",".join(late), "007,nan,NA,,", ""]
    content = "# one\n# two\n" + "\n".join(rows)
    (tmp_path / name).write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    frame = read_table(tmp_path / name).frame
    assert frame.rows()[0] == ("7", 1.0, "1", "true", None)
    assert frame.rows()[12_000:] == [("#07", 1.5, "J01", "no", 3), ("007", None, None, None, None)]
    for ids in (["2", "00012"], ["12e4", "120000"], ["007", "1E3"]):
        (tmp_path / "ids.csv").write_text("\n".join(["id", *ids, ""]))
        assert read_table(tmp_path / "ids.csv").frame["id"].to_list() == ids
    (tmp_path / "flux.csv").write_text("flux,size\n12e4,1e3\n1.5e5,2e-1\n")
    assert read_table(tmp_path / "flux.csv").frame.rows() == [(12e4, 1e3), (1.5e5, 0.2)]


def test_undefined_values_of_fits_and_votable_are_missing(tmp_path):
    """Byte 0 in a column of logicals, and empty cells of integers, also before VOTable 1.3."""
    defined = np.arange(300) % 3
    columns = [fits.Column("id", "K", array=defined), fits.Column("disk", "L", array=defined)]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "t.fits")
    content = bytearray((tmp_path / "t.fits").read_bytes())
    start = 2880 * 2  # of the data, of 9 bytes a row
    content[start + 8 : start + 9 * 300 : 9] = bytes(b"TF\0"[one] for one in defined)
    (tmp_path / "t.fits").write_bytes(content)
    assert read_table(tmp_path / "t.fits").frame["disk"].to_list() == [True, False, None] * 100
    for version in ("1.1", "1.2", "1.4"):
        cells = "".join(f"<TR><TD>{one}</TD></TR>" for one in (7, "", -8))
        rows = f'<FIELD name="n" datatype="short"/><DATA><TABLEDATA>{cells}</TABLEDATA></DATA>'
        text = f'<?xml version="1.0"?><VOTABLE version="{version}"><RESOURCE><TABLE>{rows}</TABLE></RESOURCE></VOTABLE>'
        (tmp_path / "t.vot").write_text(text)
        assert read_table(tmp_path / "t.vot").frame["n"].to_list() == [7, None, -8]
    for beyond, kind in (("70000", "short"), (f"{2**63}", "long"), ("-1", "unsignedByte")):
        (tmp_path / "t.vot").write_text(text.replace("-8", beyond).replace("short", kind))
        with pytest.raises(InputError, match=beyond):
            read_table(tmp_path / "t.vot")


def test_ids_of_ecsv_files_may_begin_with_hashes(tmp_path):
    """Other programs find them, too, if truemorph wrote the file."""
    ids = ["#1", "#2 b", "c", "#4"]
    Table({"id": ids, "n": range(4)}).write(tmp_path / "t.ecsv")
    assert read_table(tmp_path / "t.ecsv").frame.rows() == list(zip(ids, range(4), strict=True))
    write_table(read_table(tmp_path / "t.ecsv"), tmp_path / "again.ecsv")
    assert Table.read(tmp_path / "again.ecsv")["id"].tolist() == ids


@pytest.mark.parametrize("name", ["a\0b", "^p.*$", "*"])
def test_names_of_columns_that_polars_does_not_take_literally_are_refused(name):
    with pytest.raises(InputError, match="rename"):
        read_table(pl.DataFrame({"a": [1], name: [2]}))


@pytest.mark.parametrize("extension", ["csv.gz", "parquet", "fits", "vot"])
def test_truncated_files_raise_errors(tmp_path, extension):
    path = write_table(CatalogTable(pl.DataFrame({"a": np.arange(3000), "b": np.arange(3000) / 7})), tmp_path / "t.csv")
    path = write_table(read_table(path), tmp_path / f"t.{extension}")
    path.write_bytes(path.read_bytes()[:-9000] if extension == "fits" else path.read_bytes()[:-9])
    with pytest.raises(InputError, match=path.name):
        read_table(path)


def test_files_that_are_not_tables_raise_errors(tmp_path):
    contents = {"header.csv": "a,b\n", "empty.csv": "", "cut.csv": "a,b,c\n1,2,3\n4,5", "twice.csv": "a,b,b\n1,0,1\n"}
    for name in ("absent.csv", "t.dat", "t.parquet", "t.fits", "t.vot", *contents):
        if name != "absent.csv":
            (tmp_path / name).write_text(contents.get(name, "not a table at all"))
        with pytest.raises(InputError, match=name):
            read_table(tmp_path / name)
    (tmp_path / "cut.csv").write_text("a,b,c\n1,2,3\n4,5,6")  # only the line's end is missing
    assert read_table(tmp_path / "cut.csv").frame.height == 2
    Table({"spectrum": np.zeros((3, 5))}).write(tmp_path / "s.fits")
    with pytest.raises(InputError, match="column spectrum"):
        read_table(tmp_path / "s.fits")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ({"a": [1]}, "builtins dict"),
        (pl.DataFrame({"a": []}), "polars DataFrame"),
        (pa.table([[1], [2]], names=["a", "a"]), "pyarrow Table: .*a"),
        (Table({"a": np.zeros((2, 3))}), "astropy Table: column a"),
        (Table({"t": Time([2000.0, 2001.0], format="jyear")}), "astropy Table: column t"),
        (Table({"m": np.array([1, "x"], dtype=object)}), "astropy Table: column m"),
    ],
)
def test_objects_that_are_not_tables_raise_errors(source, names):
    with pytest.raises(InputError, match=names):
        read_table(source)


def test_every_kind_of_table_in_memory_gives_the_same_frame(tmp_path):
    pd = pytest.importorskip("pandas")
    columns = {"objid": LONG_ID + np.arange(5), "r": np.arange(5) / 7, "name": list("abcde")}
    frame = pl.DataFrame(columns)
    kinds = [frame, frame.lazy(), to_arrow(CatalogTable(frame)), CatalogTable(frame), Table(columns), QTable(columns)]
    kinds += [pd.DataFrame(columns), pd.DataFrame(columns).set_index("objid"), pd.DataFrame(columns).iloc[:]]
    for kind in kinds:
        assert read_table(kind).frame.equals(frame), type(kind)
        assert read_table(write_table(kind, tmp_path / "t.parquet")).frame.equals(frame), type(kind)


def test_missing_values_of_pandas_are_null():
    pd = pytest.importorskip("pandas")
    columns = {"id": pd.array([LONG_ID, None], dtype="Int64"), "z": [0.5, np.nan], "kind": pd.Categorical(["a", "b"])}
    columns |= {"flag": pd.array([True, None], dtype="boolean"), "text": ["x", None]}
    frame = read_table(pd.DataFrame(columns)).frame
    assert frame.rows() == [(LONG_ID, 0.5, "a", True, "x"), (None, None, "b", None, None)]


def test_units_masks_and_descriptions_of_astropy_are_read():
    table = QTable({"r": [1.0, 2.0] * u.arcmin, "m": Masked([16.0, 17.0] * u.mag, mask=[False, True])})
    table["n"] = MaskedColumn([1, 2], mask=[True, False])
    table["big"] = np.array([1.5, 2.5], ">f4")
    table["bytes"] = np.array([b"a", b""])
    table["r"].info.description = "a radius"
    got = read_table(table)
    assert (got.units, got.descriptions) == ({"r": "arcmin", "m": "mag"}, {"r": "a radius"})
    assert got.frame.rows() == [(1.0, 16.0, None, 1.5, "a"), (2.0, None, 2, 2.5, None)]


def test_units_and_descriptions_of_parquet_files_that_astropy_wrote_are_read(tmp_path):
    table = Table({"r": [1.0, 2.0], "name": ["a", "b"]}, units={"r": "0.396 arcsec"}, descriptions={"name": "a name"})
    table.write(tmp_path / "t.parquet")
    got = read_table(tmp_path / "t.parquet")
    assert (got.units, got.descriptions) == ({"r": "0.396 arcsec"}, {"name": "a name"})


def test_a_name_that_fits_cannot_hold_is_one_error(tmp_path):
    with pytest.raises(InputError, match="68"):
        write_table(CatalogTable(pl.DataFrame({"p" * 69: [1]})), tmp_path / "t.fits")
    write_table(CatalogTable(pl.DataFrame({"p" * 68: [1]})), tmp_path / "t.fits")
    assert read_table(tmp_path / "t.fits").frame.columns == ["p" * 68]


def test_other_programs_find_units_descriptions_and_metadata(tmp_path):
    table = CatalogTable(
        pl.DataFrame({"objid": [LONG_ID, 2], "radius": [6.5, 2.25], "name": ["a", "bc"]}),
        {"radius": "arcsec"},
        {"about": "radii of two galaxies", "model": {"theta": 9.5, "folds": [1, 2]}, "n": None},
        descriptions={"objid": "SDSS id", "radius": "Petrosian radius, r band; " * 4 + "end", "name": "the name"},
    )
    paths = {one: write_table(table, tmp_path / f"t.{one}") for one in ("fits", "vot", "ecsv", "parquet")}
    held = pq.read_schema(paths["parquet"])
    assert held.field("radius").metadata[b"unit"] == b"arcsec"
    vo = BytesIO(held.metadata[b"IVOA.VOTable-Parquet.content"])  # as in TOPCAT
    seen = [*(Table.read(paths[one]) for one in ("fits", "vot", "ecsv")), votable.parse_single_table(vo).to_table()]
    for one in seen:
        assert [str(one[name].unit or "") for name in one.colnames] == ["", "arcsec", ""]
        assert {name: " ".join(one[name].description.split()) for name in one.colnames} == table.descriptions
    header = fits.getheader(paths["fits"], 1)
    assert [header["TUNIT2"], header["TCOMM1"], header["TCOMM2"]] == ["arcsec", "SDSS id", table.descriptions["radius"]]
    file = votable.parse_single_table(paths["vot"])
    assert file.description == "radii of two galaxies"
    texts = [header["TRUEMRPH"], file.params[0].value, held.metadata[b"truemorph"]]
    assert [json.loads(text) for text in texts] == [table.metadata] * 3
    assert seen[2].meta["truemorph"] == table.metadata


@settings(max_examples=10)
@given(st.dictionaries(st.from_regex("[a-z_]{1,20}", fullmatch=True), json_values(st.none()), max_size=3))
def test_any_metadata_are_preserved(tmp_path_factory, metadata):
    table = CatalogTable(pl.DataFrame({"a": [1]}), metadata=metadata)
    for extension in ("fits", "vot", "parquet"):
        assert read_table(write_table(table, tmp_path_factory.mktemp("any") / f"t.{extension}")).metadata == metadata


def test_damaged_metadata_raise_an_error():
    deep = b'{"a":' * 100_000
    for held in (deep, b"[1]", b"{"):
        with pytest.raises(InputError, match="metadata"):
            read_table(pa.table({"a": [1]}).replace_schema_metadata({b"truemorph": held}))
    others = pa.table({"a": [1]}).replace_schema_metadata({b"pandas": deep})
    assert read_table(others).frame["a"].to_list() == [1]


def test_unusual_types_are_preserved_if_the_format_supports_them(tmp_path):
    columns = {"list": [[1.0, 2.0]], "struct": [{"a": 1}], "day": [date(2020, 1, 1)]}
    columns["id"] = pl.Series([Decimal(LONG_ID)], dtype=pl.Decimal(20, 0))
    columns["price"] = pl.Series([Decimal("1.25")], dtype=pl.Decimal(10, 2))
    got = read_table(pl.DataFrame(columns))
    assert got.frame.row(0) == ([1.0, 2.0], {"a": 1}, date(2020, 1, 1), LONG_ID, 1.25)
    assert read_table(write_table(got, tmp_path / "again.parquet")).frame.equals(got.frame)
    for name, out in (("list", "t.fits"), ("day", "t.fits"), ("struct", "t.csv")):
        with pytest.raises(InputError, match=out):
            write_table(CatalogTable(got.frame.select(name)), tmp_path / out)
    # FITS supports ASCII only.
    for text, out in (("\u03b8", "t.fits"), ("a\0", "t.fits"), ("a\0", "t.ecsv"), ("a\x01", "t.vot")):
        with pytest.raises(InputError, match=out):
            write_table(CatalogTable(pl.DataFrame({"name": [text]})), tmp_path / out)
    assert [file.name for file in tmp_path.iterdir()] == ["again.parquet"]


@pytest.mark.parametrize("extension", [".fits", ".vot", ".ecsv", ".parquet"])
def test_integers_of_few_bits_and_without_a_sign_keep_their_values(tmp_path, extension):
    """FITS and VOTable have none of eight bits with a sign, and VOTable no larger ones without a sign."""
    kinds = {"gold": pl.Int8, "k": pl.Int8, "n": pl.UInt16, "m": pl.UInt32}
    values = {"gold": [0, 1, None, -128], "k": [1, 2, 3, -1], "n": [0, None, 1, 2**16 - 1], "m": [0, 1, 2, 2**32 - 1]}
    frame = pl.DataFrame(values, schema=kinds)
    path = write_table(CatalogTable(frame, {"k": "mag"}, descriptions={"gold": "a class"}), tmp_path / f"t{extension}")
    found = read_table(path)
    assert found.frame.rows() == frame.rows()
    assert (found.units["k"], found.descriptions["gold"]) == ("mag", "a class")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        *((pl.UInt8, [63, 255, 0]), (pl.UInt8, range(256)), (pl.UInt16, [16_959, 2**16 - 1])),
        *((pl.UInt32, [999_999, 2**32 - 1]), (pl.UInt64, [999_999, 2**64 - 1, 2**63 - 1])),
        *((pl.Int16, [-(2**15), 7]), (pl.Int16, range(-(2**15), 2**15)), (pl.Int64, [-(2**63), 999_999])),
    ],
)
def test_every_integer_beside_a_missing_value_is_kept_in_fits(tmp_path, kind, values):
    frame = pl.DataFrame({"n": pl.Series([*values, None], dtype=kind)})
    assert read_table(write_table(CatalogTable(frame), tmp_path / "t.fits")).frame.rows() == frame.rows()


def test_numeric_columns_are_selected_by_name():
    frame = pl.DataFrame({"a": [1, None], "b": [0.5, 2.5], "day": [date(2020, 1, 1)] * 2})
    np.testing.assert_array_equal(numeric_columns(frame, ["b", "a"], "t.csv"), [[0.5, 1], [2.5, np.nan]])
    for name in ("day", "absent"):
        with pytest.raises(InputError, match=name):
            numeric_columns(frame, [name], "t.csv")
