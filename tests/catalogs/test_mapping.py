"""Mappings: reading, extending and writing them."""

import json
import tomllib

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogs.made_up import refused
from truemorph.catalogs.columns import NAMED
from truemorph.catalogs.mapping import Mapping, mapping_toml, read_mapping
from truemorph.catalogs.prepare import prepare

MINE = """
about = "a survey of my own"
votes = "raw votes of my survey"
psf_fwhm = 0.8
[columns]
object_id = "id"
smooth_votes = { expression = "round_votes + cigar_votes" }
disk_votes = "disk_votes"
radius = { column = "r_petro", unit = "0.27 arcsec", missing = [-1.0], description = "measured by hand" }
redshift = { column = ["z_spec", "z"], missing = [-1], optional = true }
[[cuts]]
name = "well resolved"
keep = "radius > 3 AND NOT star"
[[cuts]]
name = "drops none"
keep = "alpha > 0"
"""


def survey(n=120, **changes):
    rng = np.random.default_rng(1)
    columns = {
        "id": [f"g{number}" for number in range(n)],
        "round_votes": rng.integers(0, 12, n).astype(np.int8),
        "cigar_votes": rng.integers(0, 120, n).astype(np.uint8),
        "disk_votes": rng.integers(0, 130, n).astype(np.uint8),
        "r_petro": np.where(np.arange(n) % 10 == 3, -1.0, rng.uniform(8, 60, n)),
        "star": np.arange(n) % 20 == 7,
        "z": np.where(np.arange(n) % 6 == 0, -1.0, rng.uniform(0.1, 0.9, n)),
    }
    return pl.DataFrame({**columns, **changes})


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def test_a_survey_described_in_toml(mine):
    table = survey()
    prepared = prepare(table, mapping=mine)
    frame = prepared.catalogue.frame
    before = table.filter(~(pl.int_range(table.height) + 1).is_in(prepared.dropped["row"].to_list()))
    smooth, disk = before["round_votes"].cast(int) + before["cigar_votes"].cast(int), before["disk_votes"].cast(int)
    np.testing.assert_array_equal(frame["smooth_votes"], smooth)  # larger than a byte
    np.testing.assert_array_equal(frame["vote_count"], smooth + disk)
    np.testing.assert_array_equal(frame["smooth_fraction"], smooth / (smooth + disk))
    np.testing.assert_array_equal(frame["label"], (disk > smooth).cast(int))
    np.testing.assert_allclose(frame["radius"], before["r_petro"] * 0.27)
    assert (frame["psf_fwhm"] == 0.8).all()
    assert frame["redshift"].null_count() == (before["z"] == -1).sum() > 0
    assert frame["z"].equals(before["z"])  # the table's own column is unchanged
    metadata = prepared.catalogue.metadata
    assert metadata["votes"] == "raw votes of my survey"
    assert metadata["columns"]["smooth_votes"] == "round_votes + cigar_votes"
    assert metadata["alpha"] == "r_petro / sigma_PSF, sigma_PSF = 0.8 arcsec / 2.3548"
    assert metadata["mapping"]["cuts"][0]["name"] == "well resolved"
    assert prepared.catalogue.descriptions["radius"] == "measured by hand"


def test_options_take_precedence_over_the_mapping(mine):
    table = survey(other=np.full(120, 5.0), width=np.full(120, 1.5), number=np.arange(120))
    chosen = {"radius": "other", "object_id": "number"}
    got = prepare(table, mapping=mine, columns=chosen, psf_fwhm="width").catalogue.frame
    assert (got["radius"] == 5.0).all()  # in arcsec: the unit in the mapping is that of the other column
    assert (got["psf_fwhm"] == 1.5).all()
    assert got["object_id"].dtype == pl.Int64


MISTAKES = [
    ("r_petro", "r_petrol", ("r_petrol", "mapping mine", "`radius`", "nearest: r_petro")),
    ("smooth_votes", "smoth_votes", ("smoth_votes", "nearest: smooth_votes")),
    ("unit =", "units =", ("columns.radius.units", "nearest: unit")),
    ("0.27 arcsec", "kpc", ("radius", "kpc", "arcsec")),
    ("radius > 3", "radus > 3", ("well resolved", "radus", "nearest: radius")),
    ("round_votes +", "round_vote +", ("round_vote", "nearest: round_votes")),
    ('"disk_votes"', '{ unit = "" }', ("columns.disk_votes", "column", "expression")),
    ("psf_fwhm = 0.8", "psf_fwhm = -1", ("psf_fwhm", "-1")),
    ("drops none", "well resolved", ("well resolved",)),
    ("psf_fwhm = 0.8", "", ("psf_fwhm", "`psf_fwhm`")),
]


@pytest.mark.parametrize(("old", "new", "mentioned"), MISTAKES, ids=[new[:20] or "nothing" for _, new, _ in MISTAKES])
def test_each_mistake_gives_an_error_that_names_it(mine, old, new, mentioned):
    mine.write_text(MINE.replace(old, new, 1))
    with refused(*mentioned):
        prepare(survey(), mapping=mine)


@pytest.mark.parametrize(
    ("asked", "mentioned"),
    [
        ({"preset": "gz_hubble"}, ("gz_hubble", "nearest: gz-hubble")),
        ({"preset": "gz2", "mapping": {"columns": {}}}, ("preset", "mapping")),
        ({"mapping": {"columns": {"radios": {"column": "r"}}}}, ("radios", "nearest: radius")),
        ({"mapping": {"extends": "gz3"}}, ("gz3", "nearest: gz2")),
    ],
)
def test_impossible_presets_and_mappings_raise_errors(asked, mentioned):
    with refused(*mentioned):
        prepare(survey(), **asked)


def test_a_mapping_extends_presets_and_files_and_can_remove_columns(tmp_path):
    (tmp_path / "survey").mkdir()
    (tmp_path / "base.toml").write_text(
        'extends = "gz2"\ncosmology = "Planck18"\n[lacking]\nradius = "measure it"\n'
        '[[cuts]]\nname = "near"\nkeep = "redshift < 0.1"\n[sample]\nsmooth = 5\ndisk = 4\n'
    )
    mine = tmp_path / "survey" / "mine.toml"
    mine.write_text(
        'extends = "../base.toml"\n[columns]\nredshift = false\nradius = "petroR90_r"\n'
        '[[cuts]]\nname = "b"\nkeep = "ra > 1"\n'
    )
    got, gz2 = read_mapping(mine), read_mapping("gz2")
    assert got.columns.keys() == gz2.columns.keys() - {"redshift"}
    assert got.columns["radius"].column == ("petroR90_r",)
    assert got.columns["smooth_fraction"] == gz2.columns["smooth_fraction"]
    assert [cut.name for cut in got.cuts] == ["near", "b"]
    assert got.lacking == {**gz2.lacking, "radius": "measure it"}
    assert (got.name, got.cosmology, got.sample.disk) == ("mine", "Planck18", 4)
    (tmp_path / "base.toml").write_text('extends = "survey/mine.toml"\n')
    with refused("survey/mine.toml"):
        read_mapping(mine)


# --- writing a mapping, and reading it back ---------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def mappings(draw):
    columns = {}
    for name in draw(st.lists(st.sampled_from(list(NAMED)), min_size=1, max_size=6, unique=True)):
        one = {"column": draw(st.lists(words, min_size=1, max_size=3))}
        if draw(st.booleans()):
            one = {"expression": ['"{}" + 1'.format(draw(words).replace('"', '""'))]}
        if NAMED[name].kind == "number" and draw(st.booleans()):
            one["unit"] = NAMED[name].units[0]
        one["missing"] = draw(st.lists(st.one_of(numbers, st.integers(-(2**53), 2**53), words), max_size=2))
        one["optional"] = draw(st.booleans())
        columns[name] = one
    content = {"name": draw(words), "about": draw(words), "columns": columns}
    if draw(st.booleans()):
        content["psf_fwhm"] = draw(st.floats(0.01, 100))
    content["cuts"] = [{"name": f"{draw(words)}{n}", "keep": "a > 1"} for n in range(draw(st.integers(0, 2)))]
    content["lacking"] = draw(st.dictionaries(st.sampled_from(list(NAMED)), words, max_size=2))
    return read_mapping(content)


@given(mappings())
def test_a_mapping_written_as_toml_or_json_reads_the_same(mapping):
    assert read_mapping(tomllib.loads(mapping_toml(mapping))) == mapping
    assert Mapping(**json.loads(mapping.model_dump_json(exclude_defaults=True))) == mapping
