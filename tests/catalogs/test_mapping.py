"""Any survey in a page of TOML: what a mapping says is what the catalogue holds, and every mistake gets a line."""

import json
import tomllib

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from conftest import run
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.columns import apply_mapping
from truemorph.catalogs.mapping import Mapping, read_mapping
from truemorph.catalogs.mapping_page import mapping_toml, narrowed
from truemorph.catalogs.prepare import prepare_catalogue, write_preparation
from truemorph.catalogs.roles import ROLES
from truemorph.errors import InputError
from truemorph.tables import CatalogTable, read_table

MINE = """
about = "a survey of my own"
votes = "raw votes of my survey"
psf_fwhm = 0.8
[columns]
object_id = "id"
smooth_votes = { expression = "round_votes + cigar_votes" }
disk_votes = "disk_votes"
radius = { column = "r_petro", unit = "0.27 arcsec", missing = [-99.0], description = "measured by hand" }
redshift = { column = ["z_spec", "z"], missing = [-1], optional = true }
extinction = { column = "A_r", optional = true }
[[cuts]]
name = "well resolved"
keep = "radius > 3 AND NOT star"
[[cuts]]
name = "a cut that drops none"
keep = "alpha > 0"
"""


def survey(n=120, **changes):
    rng = np.random.default_rng(1)
    columns = {
        "id": [f"g{number}" for number in range(n)],
        "round_votes": rng.integers(0, 12, n).astype(np.int8),
        "cigar_votes": rng.integers(0, 120, n).astype(np.uint8),
        "disk_votes": rng.integers(0, 130, n).astype(np.uint8),
        "r_petro": np.where(np.arange(n) % 10 == 3, -99.0, rng.uniform(8, 60, n)),
        "star": np.arange(n) % 20 == 7,
        "z": np.where(np.arange(n) % 6 == 0, -1.0, rng.uniform(0.1, 0.9, n)),
    }
    return pl.DataFrame({**columns, **changes})


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def test_a_survey_described_in_toml(tmp_path, mine):
    table = survey()
    prepared = prepare_catalogue(table, mapping=mine)
    frame, before = prepared.catalogue.frame, table.filter(pl.Series(prepared_rows(prepared, table)))
    smooth = before["round_votes"].cast(int) + before["cigar_votes"].cast(int)  # beyond what a byte holds
    disk = before["disk_votes"].cast(int)
    np.testing.assert_array_equal(frame["smooth_votes"], smooth)
    np.testing.assert_array_equal(frame["vote_count"], smooth + disk)
    np.testing.assert_allclose(frame["smooth_fraction"], smooth / (smooth + disk))
    np.testing.assert_array_equal(frame["label"], (disk > smooth).cast(int))
    np.testing.assert_allclose(frame["radius"], before["r_petro"] * 0.27)
    assert (frame["psf_fwhm"] == 0.8).all()
    assert frame["redshift"].null_count() == (before["z"] == -1).sum() > 0
    assert frame["z"].equals(before["z"])  # the table's own column goes on as it is
    assert {"round_votes", "star"} <= set(frame.columns)
    metadata = prepared.catalogue.metadata
    assert metadata["votes"] == "raw votes of my survey"
    assert metadata["columns"]["smooth_votes"] == "round_votes + cigar_votes"
    assert metadata["alpha"] == "r_petro / sigma_PSF, sigma_PSF = 0.8 arcsec / 2.3548"
    assert prepared.catalogue.descriptions["radius"] == "measured by hand"


def prepared_rows(prepared, table):
    kept = np.ones(table.height, dtype=bool)
    kept[prepared.dropped["row"].to_numpy() - 1] = False
    return kept


def test_cuts_are_rows_of_the_funnel_and_what_is_unknown_is_not_kept(mine):
    table = survey()
    prepared = prepare_catalogue(table, mapping=mine)
    lost = (table["r_petro"] == -99) | (table["r_petro"] * 0.27 <= 3) | table["star"]
    steps = dict(prepared.funnel)
    assert steps["well resolved"] == -lost.sum()
    assert steps["a cut that drops none"] == 0
    assert sum(count for _, count in prepared.funnel[:-1]) == steps["rows out"]
    assert any(
        f"{(table['r_petro'] == -99).sum()} of the rows it drops lack a value" in note for note in prepared.notes
    )
    assert set(prepared.dropped["reason"]) >= {"well resolved"}


def test_options_win_over_the_mapping(mine):
    table = survey(other=np.full(120, 5.0), width=np.full(120, 1.5), name=np.arange(120))
    got = prepare_catalogue(table, mapping=mine, columns={"radius": "other", "object_id": "name"}, psf_fwhm="width")
    assert (got.catalogue.frame["radius"] == 5.0).all()  # in arcsec: the mapping's unit was that of its own column
    assert (got.catalogue.frame["psf_fwhm"] == 1.5).all()
    assert got.catalogue.frame["object_id"].dtype == pl.Int64
    number = prepare_catalogue(table, mapping=mine, psf_fwhm=2)
    assert (number.catalogue.frame["psf_fwhm"] == 2.0).all()
    assert number.catalogue.metadata["mapping"]["psf_fwhm"] == 2.0


def test_the_tables_own_unit_wins_and_a_conflict_is_noted(tmp_path, mine):
    frame = survey()
    table = Table({name: frame[name].to_numpy() for name in frame.columns})
    table["r_petro"] = table["r_petro"] / 60
    table["r_petro"].unit = "arcmin"
    prepared = prepare_catalogue(table, mapping=tomllib.loads(MINE.replace("-99.0", "-1.65")))
    np.testing.assert_allclose(prepared.catalogue.frame["radius"].max(), frame["r_petro"].max())
    assert any("states arcmin, the mapping says 0.27 arcsec" in note for note in prepared.notes)


def test_what_can_not_be_converted_is_left_out_of_what_is_optional(mine):
    units = {"z": "km / s", "A_r": "AB mag"}
    table = CatalogTable(survey(A_r=np.full(120, 0.1)), units)
    prepared = prepare_catalogue(table, mapping=mine)
    assert "redshift" not in prepared.catalogue.frame.columns
    assert prepared.catalogue.units["extinction"] == "mag"
    assert any("z is in 'km / s', which is not a pure number" in note and "redshift" in note for note in prepared.notes)
    with pytest.raises(InputError, match="r_petro is in 'kpc', which is not an angle"):
        prepare_catalogue(CatalogTable(survey(), {"r_petro": "kpc"}), mapping=mine)


def test_percent_and_half_light_radii_in_either_unit():
    mapping = {"columns": {"smooth_fraction": {"column": "p", "unit": "percent"}, "r_half": "re"}}
    frame = pl.DataFrame({"p": [25.0, 50.0], "re": [0.5, 1.0]})
    for unit, factor, kept in (("arcmin", 60, "arcsec"), ("pc", 1e-3, "kpc")):
        got = apply_mapping(CatalogTable(frame, {"re": unit}), read_mapping(mapping))
        np.testing.assert_allclose(got.numbers("smooth_fraction"), [0.25, 0.5])
        np.testing.assert_allclose(got.numbers("r_half"), np.array([0.5, 1.0]) * factor)
        assert got.units["r_half"] == kept


def test_missing_values_in_single_precision_integers_and_text():
    mapping = read_mapping(
        {
            "columns": {
                "ra": {"column": "f", "missing": [-99.99]},
                "dec": {"column": "n", "missing": [-99.99, -9]},
                "redshift": {"column": "t", "missing": ["unknown"]},
            }
        }
    )
    frame = pl.DataFrame({"f": pl.Series([-99.99, 1.0], dtype=pl.Float32), "n": [-99, -9], "t": ["unknown", "0.5"]})
    got = apply_mapping(CatalogTable(frame), mapping).frame
    assert got["ra"].to_list() == [None, 1.0]
    assert got["dec"].to_list() == [-99.0, None]
    assert got["redshift"].to_list() == [None, 0.5]


def test_rows_without_fractions_take_them_from_their_votes():
    mapping = {"columns": {"smooth_fraction": "f", "smooth_votes": "s", "disk_votes": "d", "vote_count": "n"}}
    frame = pl.DataFrame({"f": [0.9, None, None], "s": [1, 3, 0], "d": [1, 1, 0], "n": [4, 4, 0]})
    got = apply_mapping(CatalogTable(frame), read_mapping(mapping))
    np.testing.assert_allclose(got.numbers("smooth_fraction"), [0.9, 0.75, np.nan])
    np.testing.assert_allclose(got.numbers("disk_fraction"), [np.nan, 0.25, np.nan])  # never of two kinds in a row
    assert got.frame["vote_count"].dtype == pl.Int64
    assert "1 rows have votes but no fractions" in got.notes[0]
    with pytest.raises(InputError, match="row 2 has more votes in s than in n"):
        apply_mapping(CatalogTable(frame.with_columns(s=pl.Series([1, 5, 0]))), read_mapping(mapping))
    with pytest.raises(InputError, match=r"row 1 is -1; say in a mapping which values mean missing"):
        apply_mapping(CatalogTable(frame.with_columns(s=pl.Series([-1, 5, 0]))), read_mapping(mapping))


def test_ids_put_together_from_numbers_keep_every_digit():
    mapping = read_mapping({"columns": {"object_id": {"expression": "concat(brickid, '_', objid)"}}})
    frame = pl.DataFrame({"brickid": [123456], "objid": [587722981748572353]})
    assert apply_mapping(CatalogTable(frame), mapping).frame["object_id"][0] == "123456_587722981748572353"


def test_every_column_of_truemorphs_is_described_in_the_file(tmp_path, mine):
    out = write_preparation(prepare_catalogue(survey(), mapping=mine), tmp_path / "c.parquet")
    fields = {field.name: field.metadata or {} for field in pq.read_schema(out)}
    carried = {"round_votes", "cigar_votes", "star", "z"}
    for name in set(fields) - set(survey().columns) | {"disk_votes"}:
        assert fields[name][b"description"].isascii(), name
    assert fields["radius"][b"unit"] == b"arcsec"
    assert not any(fields[name] for name in carried)
    back = read_catalogue(out)
    assert back.units["radius"] == "arcsec"
    assert back.descriptions["label"].startswith("majority of the votes")
    assert back.metadata["mapping"]["cuts"][0]["name"] == "well resolved"


def test_training_by_counts_gets_the_counts_back(mine):
    frame = prepare_catalogue(survey(), mapping=mine).catalogue.frame
    for kind in ("smooth", "disk"):
        again = np.rint(frame[f"{kind}_fraction"].to_numpy() * frame["vote_count"].to_numpy())
        np.testing.assert_array_equal(again, frame[f"{kind}_votes"])


MISTAKES = [
    (
        "r_petro",
        "r_petrol",
        r"no column r_petrol \(radius\) for mapping mine; name yours with --radius .*nearest: r_petro",
    ),
    ("smooth_votes", "smoth_votes", "unknown name 'smoth_votes'; nearest: smooth_votes"),
    ("unit =", "units =", "unknown key 'units' in columns.radius; nearest: unit"),
    ("psf_fwhm", "psf_fhwm", "unknown key 'psf_fhwm'; nearest: psf_fwhm"),
    ("keep =", "kep =", "unknown key 'kep' in cuts.0; nearest: keep"),
    ("0.27 arcsec", "0.27 arcsek", "no unit '0.27 arcsek'; nearest: arcsec"),
    ("0.27 arcsec", "kpc", "radius can't be in 'kpc'; it is converted to arcsec"),
    ("radius > 3", "radius >", "cut 'well resolved': .*'radius > AND NOT star'"),
    ("radius > 3", "radus > 3", "cut 'well resolved': no column 'radus' .*nearest: radius"),
    ("radius > 3 AND NOT star", "radius", "gives Float64, not true or false"),
    ("round_votes +", "round_vote +", r"no column round_vote \+ cigar_votes .*nearest: round_votes"),
    ("round_votes + cigar_votes", "SUM(round_votes)", "no function 'SUM'"),
    ('"disk_votes"', "3", "columns.disk_votes: give the name of a column"),
    ('"disk_votes"', '{ unit = "" }', "columns.disk_votes: give either column"),
    ("psf_fwhm = 0.8", "psf_fwhm = -1", "psf_fwhm: input should be greater than 0"),
    ('"id"', '"ids"', r"no column ids \(object_id\) .*nearest: id"),
    ("a cut that drops none", "well resolved", "two rules are called 'well resolved'"),
    ('about = "', "about = [", "not valid TOML"),
    ("psf_fwhm = 0.8", "", r"says nothing of psf_fwhm.*--psf-fwhm"),
]


@pytest.mark.parametrize(("old", "new", "says"), MISTAKES, ids=[new[:20] or "nothing" for _, new, _ in MISTAKES])
def test_each_mistake_gets_one_clear_line(tmp_path, mine, old, new, says):
    mine.write_text(MINE.replace(old, new, 1))
    with pytest.raises(InputError, match=says) as caught:
        prepare_catalogue(survey(), mapping=mine)
    assert "\n" not in str(caught.value)


def test_unknown_presets_and_files(tmp_path):
    with pytest.raises(InputError, match=r"unknown preset 'gz_hubble'.*nearest: gz-hubble"):
        read_mapping("gz_hubble")
    with pytest.raises(InputError, match="No such file"):
        read_mapping(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="exclude each other"):
        prepare_catalogue(survey(), preset="gz2", mapping={"columns": {}})


# --- writing a mapping, and giving it back ----------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def mappings(draw):
    columns = {}
    for role in draw(st.lists(st.sampled_from(list(ROLES)), min_size=1, max_size=6, unique=True)):
        one = {draw(st.sampled_from(["column"])): draw(st.lists(words, min_size=1, max_size=3))}
        if draw(st.booleans()):
            one = {"expression": ['"{}" + 1'.format(draw(words).replace('"', '""'))]}
        if ROLES[role].kind == "number" and draw(st.booleans()):
            one["unit"] = ROLES[role].units[0]
        one["missing"] = draw(st.lists(st.one_of(numbers, st.integers(-(2**53), 2**53), words), max_size=2))
        one["optional"] = draw(st.booleans())
        if draw(st.booleans()):
            one["description"] = draw(words)
        columns[role] = one
    content = {"name": draw(words), "about": draw(words), "columns": columns}
    if draw(st.booleans()):
        content["psf_fwhm"] = draw(st.floats(0.01, 100))
    content["cuts"] = [{"name": f"{draw(words)}{n}", "keep": "a > 1"} for n in range(draw(st.integers(0, 2)))]
    content["lacking"] = draw(st.dictionaries(st.sampled_from(list(ROLES)), words, max_size=2))
    return read_mapping(content)


@given(mappings())
def test_a_mapping_written_as_toml_or_json_reads_the_same(mapping):
    assert read_mapping(tomllib.loads(mapping_toml(mapping))) == mapping
    assert Mapping(**json.loads(mapping.model_dump_json(exclude_defaults=True))) == mapping


@given(mappings(), st.data())
def test_a_mapping_narrowed_to_a_table_reads_the_same_columns(mapping, data):
    known = sorted({name for column in mapping.columns.values() for name in column.column})
    existing = data.draw(st.lists(st.sampled_from(known or ["a"]), unique=True))
    small = narrowed(mapping, existing)
    assert read_mapping(tomllib.loads(mapping_toml(mapping, existing))) == small
    assert narrowed(small, existing) == small


def test_dry_run_prints_a_mapping_that_gives_the_same_catalogue(capsys, tmp_path, mine):
    table = tmp_path / "survey.csv"
    survey().write_csv(table)
    status, out, _ = run(capsys, "prepare", table, "--mapping", mine, "--dry-run")
    assert status == 0
    assert "# extinction: the table has no A_r" in out
    again = tmp_path / "again.toml"
    again.write_text(out)
    first, second = (prepare_catalogue(table, mapping=one).catalogue.frame for one in (mine, again))
    assert first.equals(second)
    status, out, _ = run(capsys, "prepare", table, "--mapping", mine, "--radius", "z", "--dry-run", "--json")
    assert json.loads(out)["columns"]["radius"]["column"] == ["z"]
    status, out, _ = run(capsys, "prepare", "--preset", "gz2", "--dry-run")
    assert read_mapping(tomllib.loads(out)) == read_mapping("gz2")


def test_the_command_takes_a_mapping(capsys, tmp_path, mine):
    table, out = tmp_path / "survey.csv", tmp_path / "c.parquet"
    survey().write_csv(table)
    status, said, err = run(capsys, "prepare", table, "--mapping", mine, "--out", out)
    assert status == 0
    assert "well resolved" in said
    assert "votes:  raw votes of my survey (mine)" in said
    assert "note: cut 'well resolved'" in err
    assert read_table(out).metadata["preset"] == "mine"
    mine.write_text(MINE.replace("r_petro", "r_petrol"))
    status, said, err = run(capsys, "prepare", table, "--mapping", mine, "--out", out)
    assert (status, said, err.count("\n")) == (2, "", 1)
