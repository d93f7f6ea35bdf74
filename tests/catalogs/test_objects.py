"""Tables in memory: what astropy, pandas, polars and pyarrow hold is what truemorph reads, and back."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, QTable, Table
from astropy.time import Time
from astropy.utils.masked import Masked
from hypothesis import given
from hypothesis import strategies as st

import truemorph as tm
from truemorph.errors import InputError
from truemorph.tables import (
    CatalogTable,
    from_arrow,
    from_astropy,
    from_object,
    read_table,
    to_arrow,
    to_astropy,
    write_table,
)

LONG_ID = 1237648720693755918
T01 = "t01_smooth_or_features_"


def votes(n=30):
    rng = np.random.default_rng(0)
    smooth = np.round(rng.uniform(0.05, 0.95, n), 3)
    return {
        "dr7objid": LONG_ID + np.arange(n),
        f"{T01}a01_smooth_weighted_fraction": smooth,
        f"{T01}a02_features_or_disk_weighted_fraction": np.round(0.99 - smooth, 3),
        f"{T01}a03_star_or_artifact_weighted_fraction": np.full(n, 0.01),
        "petroRad_r": rng.uniform(3, 20, n),
        "psfWidth_r": rng.uniform(1, 1.6, n),
        "name": [f"galaxy {number}" for number in range(n)],
    }


def test_every_kind_of_table_gives_the_same_catalogue(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pl.DataFrame(votes())
    frame.write_parquet(tmp_path / "votes.parquet")
    expected = tm.prepare_catalogue(tmp_path / "votes.parquet").catalogue.frame
    frames = [frame, frame.lazy(), frame.to_arrow(), Table(votes()), QTable(votes()), CatalogTable(frame)]
    frames += [pd.DataFrame(votes()), pd.DataFrame(votes()).set_index("dr7objid")]
    for one in frames:
        got = tm.prepare_catalogue(one).catalogue
        assert got.frame.select(expected.columns).equals(expected), type(one)
        assert got.metadata["source"].endswith(type(one).__name__)


def test_pandas_nullable_and_named_index():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "id": pd.array([LONG_ID, None], dtype="Int64"),
            "z": [0.5, np.nan],
            "flag": pd.array([True, None], dtype="boolean"),
            "kind": pd.Categorical(["a", "b"]),
            "text": ["x", None],
        }
    )
    got = read_table(frame).frame
    assert got["id"].to_list() == [LONG_ID, None]
    assert got["z"].to_list() == [0.5, None]
    assert got["flag"].to_list() == [True, None]
    assert got["kind"].to_list() == ["a", "b"]
    assert got["kind"].dtype == pl.String
    assert got["text"].to_list() == ["x", None]
    assert "index" not in got.columns
    assert read_table(frame.set_index("text")).frame.columns[0] == "text"
    assert read_table(frame[frame["z"] > 0]).frame.columns == got.columns  # the rows' numbers are no column


def test_units_masks_and_descriptions_of_astropy():
    table = QTable({"r": [1.0, 2.0] * u.arcmin, "z": [0.1, 0.2]})
    table["m"] = Masked([16.0, 17.0] * u.mag, mask=[False, True])
    table["n"] = MaskedColumn([1, 2], mask=[True, False])
    table["big"] = np.array([1.5, 2.5], ">f4")
    table["bytes"] = np.array([b"a", b""])
    table["r"].info.description = "a radius"
    table["n"].description = "a number"
    got = read_table(table)
    assert got.units == {"r": "arcmin", "m": "mag"}
    assert got.descriptions == {"r": "a radius", "n": "a number"}
    assert got.frame["m"].to_list() == [16.0, None]
    assert got.frame["n"].to_list() == [None, 2]
    assert got.frame["big"].to_list() == [1.5, 2.5]
    assert got.frame["bytes"].to_list() == ["a", None]
    with pytest.raises(InputError, match=r"astropy Table: column t \(Time\) is not of plain values"):
        read_table(Table({"t": Time([2000.0, 2001.0], format="jyear")}))


def test_units_of_a_qtable_count():
    table = QTable(votes())
    table["petroRad_r"] = (table["petroRad_r"] * u.arcsec).to(u.arcmin)
    got = tm.prepare_catalogue(table).catalogue.frame
    np.testing.assert_allclose(got["radius"], votes()["petroRad_r"])


def test_fields_of_arrow_and_parquet_hold_units_and_descriptions(tmp_path):
    table = CatalogTable(
        pl.DataFrame({"r": [1.0], "n": [2]}), {"r": "arcsec"}, {"k": [1]}, descriptions={"r": "a radius", "n": "ä"}
    )
    path = write_table(table, tmp_path / "t.parquet")
    fields = pq.read_schema(path)
    assert fields.field("r").metadata == {b"unit": b"arcsec", b"description": b"a radius"}
    assert fields.field("n").metadata == {b"description": "ä".encode()}
    for back in (read_table(path), read_table(pq.read_table(path)), from_arrow(to_arrow(table))):
        assert (back.units, back.descriptions, back.metadata) == (table.units, table.descriptions, table.metadata)
        assert back.frame.equals(table.frame)


def test_files_with_units_in_the_note_still_read(tmp_path):
    # As truemorph wrote them before fields held units.
    arrow = (
        pl.DataFrame({"r": [1.0]})
        .to_arrow()
        .replace_schema_metadata({b"truemorph": b'{"alpha": "R / sigma_PSF", "units": {"r": "arcsec"}}'})
    )
    pq.write_table(arrow, tmp_path / "old.parquet")
    back = read_table(tmp_path / "old.parquet")
    assert back.units == {"r": "arcsec"}
    assert back.metadata == {"alpha": "R / sigma_PSF"}


@pytest.mark.parametrize("extension", ["fits", "fits.gz", "ecsv", "vot", "vot.gz", "xml", "parquet"])
def test_descriptions_travel_in_every_format_that_has_them(tmp_path, extension):
    about = {"r": "a radius, " * 20 + "and more", "n": "number"}
    table = CatalogTable(pl.DataFrame({"r": [1.0, None], "n": [1, 2]}), {"r": "arcsec"}, {}, descriptions=about)
    back = read_table(write_table(table, tmp_path / f"t.{extension}"))
    assert back.descriptions == about
    assert back.units == table.units
    assert back.frame.equals(table.frame)


def test_units_that_nobody_knows_are_kept_as_text(tmp_path):
    table = CatalogTable(pl.DataFrame({"r": [1.0]}), {"r": "smoots"}, {}, descriptions={"r": "θ"})
    for extension in ("fits", "ecsv", "parquet"):
        assert read_table(write_table(table, tmp_path / f"t.{extension}")).units == {"r": "smoots"}
    assert read_table(tmp_path / "t.fits").descriptions == {"r": "?"}  # FITS headers hold ASCII alone


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([1, 2], "builtins list: not a table"),
        (np.zeros(3), "numpy ndarray: not a table"),
        ({"a": [1]}, "builtins dict: not a table"),
        (pl.DataFrame({"a": []}), "polars DataFrame: the table has no rows"),
        (pa.table({"a": pa.array([], pa.int64())}), "pyarrow Table: the table has no rows"),
        (Table({"a": np.zeros((2, 3))}), "astropy Table: column a holds an array"),
    ],
)
def test_what_is_no_table_is_named(source, says):
    with pytest.raises(InputError, match=says):
        read_table(source)


def test_pandas_that_is_no_table_is_named():
    pd = pytest.importorskip("pandas")
    for frame in (pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame({"a": [1, "x"]}), pd.Series([1])):
        with pytest.raises(InputError, match=r"^pandas "):
            read_table(frame)


def test_a_table_in_memory_finds_images_below_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "jpegs").mkdir()
    (tmp_path / "jpegs" / "a.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    table = pl.DataFrame(votes()).with_columns(image=pl.lit("jpegs/a.jpg"))
    got = tm.prepare_catalogue(table).catalogue
    assert (got.frame["image"] == "jpegs/a.jpg").all()
    assert got.metadata["image_root"] == str(tmp_path)


# FITS headers hold printable ASCII; leading and trailing blanks are lost, and empty texts are missing ones.
plain = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
cells = {
    pl.Int64: st.one_of(st.none(), st.integers(-(2**62), 2**62)),
    pl.Float64: st.one_of(st.none(), st.floats(allow_nan=False)),
    pl.String: st.one_of(st.none(), plain),
}


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 5))
    kinds = draw(st.lists(st.sampled_from(list(cells)), min_size=1, max_size=4))
    names = [f"c{number}" for number in range(len(kinds))]
    columns = {
        name: pl.Series(draw(st.lists(cells[kind], min_size=rows, max_size=rows)), dtype=kind)
        for name, kind in zip(names, kinds, strict=True)
    }
    units = draw(st.dictionaries(st.sampled_from(names), st.sampled_from(["arcsec", "mag", "kpc"])))
    return CatalogTable(
        pl.DataFrame(columns), units, {}, descriptions=draw(st.dictionaries(st.sampled_from(names), plain))
    )


def same(one, other):
    return one.frame.equals(other.frame) and (one.units, one.descriptions) == (other.units, other.descriptions)


@given(tables())
def test_tables_come_back_from_arrow_and_astropy(table):
    assert same(from_arrow(to_arrow(table)), table)
    assert same(from_astropy(to_astropy(table, "fits"), "table"), table)
    assert same(from_object(table), table)


@given(tables())
def test_pandas_comes_back_with_the_same_values(table):
    pytest.importorskip("pandas")
    pandas = table.frame.to_pandas(use_pyarrow_extension_array=True)
    assert from_object(pandas).frame.equals(table.frame)
