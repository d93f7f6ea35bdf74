"""Preparation of a catalogue: ids, samples, physical columns, gold labels, images and output files."""

import json
import os

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.cosmology import WMAP9, Planck18

from catalogs.made_up import ARTEFACT, DISK, GZ2, IDS, SMOOTH, full, noted, photometry, refused, votes
from conftest import codes
from truemorph import estimate_transition, write_table
from truemorph import prepare_catalogue as prepare
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.crossmatch import Join
from truemorph.catalogs.prepare import write_preparation
from truemorph.tables import CatalogTable

COUNTED = {"smooth_fraction": False, "smooth_votes": "s", "disk_votes": "d", "vote_count": "total"}
COUNTED = {**GZ2, "columns": COUNTED}


def test_a_resolution_that_is_the_same_for_all_galaxies_is_refused():
    with refused("alpha", "30"):
        prepare(full(), alpha="30")


def test_galaxies_without_votes_that_keep_their_label_are_not_said_to_be_dropped():
    row = pl.int_range(pl.len())
    disk = pl.when(row < 4).then(None).when(row == 4).then(0.0).otherwise(DISK)
    none = {name: pl.when(row < 5).then(0.0).otherwise(name) for name in (SMOOTH, ARTEFACT)}
    made = prepare(full().with_columns(**none, **{DISK: disk}))
    assert made.catalogue.frame.height == 59
    assert noted([finding for finding in made.findings if finding.code == "galaxies-not-asked"], "1 of 60")


def prepared_frame(table=None, **asked):
    return prepare(full() if table is None else table, **asked).catalogue.frame


def splits(**asked):
    return dict(prepared_frame(**asked)["split"].value_counts().rows())


def test_a_prepared_catalogue_has_labels_alpha_split_and_other_columns(tmp_path):
    table = full(extra=np.arange(60))
    table.write_csv(tmp_path / "t.csv")
    got = prepare(tmp_path / "t.csv", seed=np.int64(4)).catalogue
    assert got.frame["object_id"].to_list() == table["dr7objid"].to_list()
    np.testing.assert_array_equal(got.frame["label"], (table[SMOOTH] < 0.495).cast(int))
    np.testing.assert_allclose(got.frame["alpha"], table["petroRad_r"] / (table["psfWidth_r"] / 2.354820045))
    assert dict(got.frame["split"].value_counts().rows()) == {"train": 48, "validation": 6, "test": 6}
    assert got.frame["extra"].to_list() == list(range(60))
    assert json.loads(json.dumps(got.metadata, allow_nan=False))["seed"] == 4
    fwhm = prepare(table, psf="fwhm").catalogue
    np.testing.assert_allclose(fwhm.frame["alpha"], table["petroRad_r"] / table["psfWidth_r"])
    assert fwhm.metadata["alpha"] == "petroRad_r / FWHM_PSF, FWHM_PSF = psfWidth_r"


@pytest.mark.slow
def test_cautions_of_the_preparation_are_found_wherever_the_catalogue_is_used(tmp_path):
    """Notes are not."""
    prepared = prepare(full(400), smooth=SMOOTH, disk=DISK, psf_fwhm=1.3)
    assert {"alpha-is-size", "definition-missing"} <= set(codes(prepared))
    write_preparation(prepared, tmp_path / "cat.parquet")
    assert "alpha-is-size" in codes(estimate_transition(tmp_path / "cat.parquet", compare=False))
    assert "definition-missing" not in codes(read_catalogue(tmp_path / "cat.parquet"))


@pytest.mark.parametrize(
    ("asked", "mentioned"),
    [
        ({"keep": ["petroMag < 17"]}, ("petroMag", "nearest: petroMag_r")),
        ({"psf_fwhm": [1.3] * 60}, ("psf_fwhm",)),
        ({"table": full(**{SMOOTH: 0.98})}, ("disk",)),
        ({"table": full(petroRad_r=["big", *["5"] * 59])}, ("petroRad_r", "row 1", "big")),
        ({"table": full(kind="spiral"), "columns": {"label": "kind"}}, ("kind", "row 1", "spiral", "`label`")),
        ({"table": full(s=[1, 5] * 30, d=1, total=4), "preset": COUNTED}, ("smooth_votes / vote_count", "row 2")),
        ({"table": CatalogTable(full(), metadata={"kind": "catalogue"})}, ("prepared",)),
        ({"table": full(dr7objid=[IDS] * 2 + [*range(58)])}, ("dr7objid", str(IDS), "rows 1, 2")),
        ({"table": full(dr7objid=["a", " ", *map(str, range(58))])}, ("dr7objid", "row 2")),
    ],
)
def test_impossible_requests_raise_errors(asked, mentioned):
    with refused(*mentioned):
        prepare(**{"table": full(), **asked})


def test_ids_are_exact(tmp_path):
    assert prepared_frame(full().cast({"dr7objid": pl.Int128}))["object_id"].dtype == pl.Int64
    text = [str(2**64 - 1 - k) for k in range(60)]
    full(dr7objid=text, big=[2**63 + k for k in range(60)]).write_csv(tmp_path / "t.csv")
    got = read_catalogue(write_preparation(prepare(tmp_path / "t.csv"), tmp_path / "c.parquet").out).frame
    assert [str(one) for one in got["object_id"]] == text
    assert got["big"][59] == 2**63 + 59


def test_the_papers_sample_is_drawn_if_the_table_is_large_enough():
    n = 160_000
    smooth = np.where(np.random.default_rng(0).random(n) < 0.55, 0.8, 0.2)
    shuffled = votes(n, **{SMOOTH: smooth, DISK: 0.98 - smooth}).sample(fraction=1, shuffle=True)
    prepared = prepare(photometry(n), preset="paper", join=[Join(shuffled)], seed=3)
    frame = prepared.catalogue.frame
    drawn = frame.filter(pl.col("split") != "unused")
    assert [(drawn["label"] == k).sum() for k in (0, 1)] == [62_225, 59_759]
    assert dict(drawn["split"].value_counts().rows()) == {"train": 97_600, "validation": 12_192, "test": 12_192}
    assert {"sample-smaller", "split-scaled"}.isdisjoint(codes(prepared))
    # With weights, the class fractions of the sample are those of all galaxies.
    weighted = np.average(drawn["label"], weights=drawn["sampling_weight"])
    assert weighted == pytest.approx(frame["label"].mean(), abs=1e-9)


def test_sample_and_split_from_the_mapping_and_from_options():
    some = {**GZ2, "split": {"train": 0.5, "validation": 0.25, "test": 0.25}, "sample": {"smooth": 10, "disk": 6}}
    assert splits(preset=some) == {"unused": 44, "train": 8, "validation": 4, "test": 4}
    asked = {"sample": (12, 8), "split": (14, 2, 4)}
    assert splits(preset=some, **asked) == {"unused": 40, "train": 14, "validation": 2, "test": 4}
    for sample, drawn in (("balanced", 2 * 28), ("all", 60)):
        assert splits(preset=some, sample=sample).get("unused", 0) == 60 - drawn


def test_a_sample_is_drawn_among_galaxies_with_the_columns_that_the_mapping_names():
    shifts = [None] * 20 + [0.1] * 40
    got = prepare(full(z=shifts), columns={"redshift": "z"}, preset={**GZ2, "drawn_with": ["redshift"]}, sample=(6, 4))
    drawn = got.catalogue.frame.filter(pl.col("split") != "unused")
    assert (drawn.height, drawn["redshift"].null_count()) == (10, 0)
    assert noted([one for one in got.findings if one.code == "sample-of-complete"], "40 of 60", "20 lack redshift")


@pytest.mark.parametrize(
    ("asked", "model"),
    [({}, WMAP9), ({"preset": {**GZ2, "cosmology": "Planck18"}}, Planck18), ({"cosmology": "Planck18"}, Planck18)],
)
def test_radius_in_kpc_and_absolute_magnitude_agree_with_astropy(asked, model):
    got = prepare(full(), **asked).catalogue
    z = got.frame["redshift"].to_numpy()
    kpc = got.frame["radius"] * model.kpc_proper_per_arcmin(z).value / 60
    np.testing.assert_allclose(got.frame["radius_kpc"], kpc, rtol=1e-6)
    magnitude = got.frame["magnitude"] - got.frame["extinction"] - model.distmod(z).value
    np.testing.assert_allclose(got.frame["M_r"], magnitude, atol=1e-5)
    assert (got.units["radius_kpc"], got.units["M_r"]) == ("kpc", "mag")
    assert got.metadata["cosmology"] == model.name


@pytest.mark.parametrize("width", [1.2, "1.2", 0.02 * u.arcmin])
def test_one_psf_width_replaces_that_of_the_table(width):
    np.testing.assert_allclose(prepared_frame(full(psf_fwhm=99.0), psf_fwhm=width)["psf_fwhm"], 1.2)


def test_alpha_itself_instead_of_radius_and_psf(tmp_path):
    table = full().with_columns(res=pl.Series([None, *np.linspace(0, 58, 59)])).drop("petroRad_r", "psfWidth_r")
    made = write_preparation(prepare(table, columns={"alpha": "res"}, psf="fwhm"), tmp_path / "cat.parquet")
    assert made.dropped["reason"].to_list() == ["no resolution α"]
    read = read_catalogue(tmp_path / "cat.parquet")
    assert read.frame["alpha"].to_list() == np.linspace(0, 58, 59).tolist()
    assert read.metadata["alpha_psf"] == "fwhm"
    # A column that happens to be named alpha does not replace the one from radius and PSF.
    assert "alpha-unusual" in codes(prepare(table, columns={"alpha": "res / 1000"}))
    own = full().with_columns(alpha=pl.lit(3.0))
    assert prepared_frame(own)["alpha"].to_list() == prepared_frame()["alpha"].to_list()


def test_gold_labels_from_a_rule_or_a_column():
    classes = np.array([-1, 0, 1] * 20)
    asked = prepare(full(), join=[pl.DataFrame({"objid": IDS + np.arange(60), "gold": classes})], gold="gold")
    assert noted([one for one in asked.findings if one.code == "gold-labels"], "40 of 60")
    got = asked.catalogue
    assert got.frame["gold"].to_list() == [None, 0, 1] * 20
    assert got.metadata["gold_definition"] == "disk: gold is 1"
    names = pl.Series(["", "smooth", "disk"] * 20)
    named = prepare(full(expert=names), gold="expert").catalogue
    assert named.frame["gold"].to_list() == [None, 0, 1] * 20
    assert named.metadata["gold_definition"] == "disk: expert is disk"
    unasked = prepare(full(gold=classes))
    assert unasked.catalogue.frame["gold_input"].to_list() == classes.tolist()
    assert "gold-column-kept" in codes(unasked)


@pytest.fixture
def images(tmp_path):
    for name in [f"{IDS + k}.jpg" for k in range(59)] + [f"{IDS + 59}.JPG", "a/b.png", "c.png"]:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"")
    return tmp_path / "images"


def test_images_are_found_by_id_or_by_column(tmp_path, images):
    got = prepare(full(), images=images).catalogue
    assert got.frame["image"].to_list() == [f"{IDS + k}.jpg" for k in range(59)] + [f"{IDS + 59}.JPG"]
    assert got.metadata["image_root"] == str(images)
    whole = str(images / "c.png")
    named = full(image=["./a/b.png", whole, f"images/./{IDS}.jpg", "a/c.jpg", None, None] * 10)
    found = ["a/b.png", whole, f"{IDS}.jpg", None, None]
    assert prepared_frame(named, images=images)["image"][:5].to_list() == found
    for folder, mentioned in ((tmp_path, f"{IDS}.jpg"), (tmp_path / "absent", "absent")):
        with refused(str(tmp_path), mentioned):
            prepare(full(), images=folder)


def test_an_image_belongs_to_one_galaxy_if_only_the_end_of_its_path_is_known(tmp_path):
    names = [f"survey/{k}/cutout.jpg" for k in range(60)]
    (tmp_path / "7").mkdir()
    for name in ("cutout.jpg", "7/cutout.jpg"):
        (tmp_path / name).write_bytes(b"")
    found = prepared_frame(full(image=names), images=tmp_path)["image"]
    assert found.to_list() == [None] * 7 + ["7/cutout.jpg"] + [None] * 52
    (tmp_path / "7" / "cutout.jpg").unlink()
    with refused(str(tmp_path), "cutout.jpg"):
        prepare(full(image=names), images=tmp_path)
    names = names[:2] + [f"survey/{k}.jpg" for k in range(2, 60)]  # the second galaxy is left out
    (tmp_path / "2.jpg").write_bytes(b"")
    found = prepared_frame(full(image=names), images=tmp_path, where=[f"object_id <> {IDS + 1}"])["image"]
    assert found[:3].to_list() == [None, "2.jpg", None]


def test_images_named_in_a_joined_table_are_relative_to_it(images):
    listed = pl.DataFrame({"objid": IDS + np.arange(59), "image": [f"{IDS + k}.jpg" for k in range(59)]})
    got = prepare(full(), join=[write_table(CatalogTable(listed), images / "list.parquet")])
    assert got.catalogue.metadata["image_root"] == str(images.resolve())
    assert noted(got.findings, "1 of 60")


def test_input_files_are_not_overwritten(tmp_path):
    full().write_csv(tmp_path / "w.dropped.csv")
    os.symlink(tmp_path / "w.dropped.csv", tmp_path / "link.csv")
    prepared = prepare(tmp_path / "link.csv")
    for out, mentioned in (("w.parquet", "w.dropped.csv"), ("c.csv", "c.csv")):
        with refused(mentioned):
            write_preparation(prepared, tmp_path / out)
    assert not (tmp_path / "w.parquet").exists()


def test_catalogue_datasheet_and_dropped_rows_are_written(tmp_path):
    for folder, table in (("a", full(petroRad_r=[0.0, *[5.0] * 59])), ("b", photometry())):
        (tmp_path / folder).mkdir()
        table.write_csv(tmp_path / folder / "t.csv")
    asked = {"where": ["redshift > 0"], "keep": ["redshift > 0.05"], "sample": (6, 4), "split": (5, 3, 2)}
    prepared = prepare(tmp_path / "a" / "t.csv", join=[tmp_path / "b" / "t.csv"], **asked)
    out = write_preparation(prepared, tmp_path / "out" / "c.parquet").out
    assert read_catalogue(out).metadata["where"] == ["redshift > 0"]
    page = (tmp_path / "out" / "c.datasheet.md").read_text()
    for said in ("redshift > 0.05", "`sample` | \\[6, 4]", "`a/t.csv`", "`b/t.csv`", "| `M_r` | mag |"):
        assert said in page
    assert str(tmp_path) not in page  # paths are not valid on another machine
    assert (tmp_path / "out" / "c.dropped.csv").read_text().count("\n") == prepared.dropped.height + 1


NAMES = {"object_id": "name", "smooth": "s", "disk": "d", "radius": "size"}


def own(smooth, disk):
    """A table with column names of no preset."""
    table = full().rename({"dr7objid": "name", "petroRad_r": "size", "psfWidth_r": "width"})
    return table.drop(pl.selectors.starts_with("t01")).with_columns(s=pl.Series(smooth), d=pl.Series(disk))


def test_fractions_numbers_and_percentages_are_distinguished():
    fractions = np.linspace(0.1, 0.9, 60)
    for smooth, disk in ((fractions * 100, 100 - fractions * 100), (np.round(fractions, 1) * 40, 1 - fractions)):
        with refused("s, d", "s / 100"):
            prepare(own(smooth, disk), columns=NAMES, psf_fwhm="width")
    votes = prepare(own([30, 5] * 30, [10, 33] * 30), columns=NAMES, psf_fwhm="width")
    assert votes.catalogue.frame["vote_count"].to_list() == [40, 38] * 30
    assert noted(votes.findings, "s, d", "numbers")
    assert votes.catalogue.metadata["preset"] == "truemorph"


@pytest.mark.parametrize("inside", [0.5, 1.0])
def test_surface_brightness_as_observed_and_in_the_rest_frame(tmp_path, inside):
    """Of half of the light within R50, or of all within the Petrosian radius."""
    half = {"petroR50_r": np.linspace(1, 4, 60), "petroMagErr_r": 0.01, "depth": 22.5}
    got = write_preparation(prepare(full(**half) if inside == 0.5 else full()), tmp_path / "cat.fits").out
    got = read_catalogue(got)
    frame = got.frame
    area = np.pi * frame["r50" if inside == 0.5 else "radius"].to_numpy() ** 2
    np.testing.assert_allclose(frame["surface_brightness"], frame["magnitude"] - 2.5 * np.log10(inside / area))
    dimming = frame["surface_brightness"] - frame["rest_surface_brightness"] - frame["extinction"]
    np.testing.assert_allclose(dimming, 10 * np.log10(1 + frame["redshift"].to_numpy()))
    assert {"rest_surface_brightness", "redshift", "M_r", "radius_kpc"} < set(frame.columns)
    assert {"snr", "depth"} < set(frame.columns) or inside == 1.0
    assert (
        u.Unit(got.units["surface_brightness"]) == u.Unit(got.units["rest_surface_brightness"]) == u.mag / u.arcsec**2
    )


def test_surface_brightness_of_the_table_is_kept_and_that_of_r90_knows_its_light():
    own = prepare(full(mu=np.linspace(19, 23, 60)), columns={"surface_brightness": "mu"}).catalogue
    assert own.frame["surface_brightness"].to_list() == own.frame["mu"].to_list()
    outer = prepare(full(petroR90_r=5.0), columns={"radius": "petroR90_r"}).catalogue.frame
    light = outer["magnitude"].to_numpy() + 2.5 * np.log10(np.pi * 25 / 0.9)
    np.testing.assert_allclose(outer["surface_brightness"], light)
    near = prepare(full().drop("redshift")).catalogue
    assert "rest_surface_brightness" not in near.frame.columns
    assert "cosmology" not in near.metadata
