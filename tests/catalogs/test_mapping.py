"""Mappings: reading, extending and writing them."""

import tomllib

import numpy as np
import polars as pl
import pytest

from catalogs.made_up import refused
from truemorph import prepare_catalogue as prepare
from truemorph.catalogs.mapping import mapping_toml, read_mapping

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
"""


def survey(n=120):
    rng = np.random.default_rng(1)
    columns = {
        "id": [f"g{number}" for number in range(n)],
        "round_votes": rng.integers(0, 12, n),
        "cigar_votes": rng.integers(0, 120, n).astype(np.uint8),
        "disk_votes": rng.integers(0, 130, n),
        "r_petro": np.where(np.arange(n) % 10 == 3, -1.0, rng.uniform(8, 60, n)),
        "star": np.arange(n) % 20 == 7,
        "z": np.where(np.arange(n) % 6 == 0, -1.0, rng.uniform(0.1, 0.9, n)),
    }
    return pl.DataFrame(columns)


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def test_a_survey_described_in_toml(mine):
    table = survey()
    prepared = prepare(table, preset=mine)
    frame = prepared.catalogue.frame
    before = table.filter(~(pl.int_range(table.height) + 1).is_in(prepared.dropped["row"].to_list()))
    smooth, disk = before["round_votes"] + before["cigar_votes"].cast(int), before["disk_votes"]
    np.testing.assert_array_equal(frame["smooth_votes"], smooth)  # larger than a byte
    np.testing.assert_array_equal(frame["smooth_fraction"], smooth / (smooth + disk))
    np.testing.assert_allclose(frame["radius"], before["r_petro"] * 0.27)
    assert (frame["psf_fwhm"] == 0.8).all()
    assert frame["redshift"].null_count() == (before["z"] == -1).sum() > 0
    metadata = prepared.catalogue.metadata
    assert metadata["columns"]["smooth_votes"] == "round_votes + cigar_votes"
    assert metadata["alpha"] == "r_petro / sigma_PSF, sigma_PSF = 0.8 arcsec / 2.3548"
    assert prepared.catalogue.descriptions["radius"] == "measured by hand"


MISTAKES = [
    ("r_petro", "r_petrol", ("r_petrol", "mapping mine", "`radius`", "nearest: r_petro")),
    ("unit =", "units =", ("columns.radius.units", "nearest: unit")),
    ("0.27 arcsec", "kpc", ("r_petro", "kpc", "arcsec")),
    ("radius > 3", "radus > 3", ("well resolved", "radus", "nearest: radius")),
    ('"disk_votes"', '{ unit = "" }', ("columns.disk_votes", "column", "expression")),
    ("missing = [-1.0]", "missing = [nan]", ("columns.radius.missing", "nan")),
    ("psf_fwhm = 0.8", "", ("psf_fwhm", "`psf_fwhm`")),
]


@pytest.mark.parametrize(("old", "new", "mentioned"), MISTAKES, ids=[new[:20] or "nothing" for _, new, _ in MISTAKES])
def test_each_mistake_gives_an_error_that_names_it(mine, old, new, mentioned):
    mine.write_text(MINE.replace(old, new, 1))
    with refused(*mentioned):
        prepare(survey(), preset=mine)


def test_a_mapping_extends_a_preset_and_can_remove_columns(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'extends = "gz2"\ncosmology = "Planck18"\n[lacking]\nradius = "measure it"\n[sample]\nsmooth = 5\ndisk = 4\n'
        '[columns]\nredshift = false\nradius = "petroR90_r"\n[[cuts]]\nname = "b"\nkeep = "ra > 1"\n'
    )
    got, gz2 = read_mapping(tmp_path / "mine.toml"), read_mapping("gz2")
    assert got.columns.keys() == gz2.columns.keys() - {"redshift"}
    assert got.columns["radius"].column == ("petroR90_r",)
    assert got.columns["smooth_fraction"] == gz2.columns["smooth_fraction"]
    assert got.lacking == {**gz2.lacking, "radius": "measure it"}
    assert (got.name, got.cosmology, got.sample, got.cuts[0].name) == ("mine", "Planck18", (5, 4), "b")
    for source, mentioned in (("gz_hubble", "nearest: gz-hubble"), ({"extends": "gz3"}, "gz2")):
        with refused(mentioned):
            read_mapping(source)


def test_a_mapping_written_as_toml_reads_the_same():
    odd = "a \"b\" \\ 'c' \u03b8"
    columns = {
        "object_id": {"column": [odd, "id"], "missing": [-99, 1.5, odd]},
        "radius": {"expression": ['"a""b" + 1', "r"], "unit": "0.27 arcsec", "description": odd},
        "image": {"column": "f", "optional": True},
    }
    content = {"name": odd, "columns": columns, "cuts": [{"name": odd, "keep": "a > 1"}], "lacking": {"ra": odd}}
    mapping = read_mapping({**content, "psf_range": [1, 2.5], "sample": "3,4", "split": "0.5,0.25,0.25"})
    assert read_mapping(tomllib.loads(mapping_toml(mapping))) == mapping
