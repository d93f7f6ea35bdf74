"""Preparing from several tables: joined columns, what follows from them, exact samples, the datasheet."""

import json

import numpy as np
import polars as pl
import pytest
from astropy.cosmology import WMAP9, Planck18
from astropy.table import QTable

from conftest import run
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.joining import Join
from truemorph.catalogs.mapping import read_mapping
from truemorph.catalogs.mapping_page import mapping_toml
from truemorph.catalogs.prepare import prepare_catalogue, write_preparation
from truemorph.catalogs.sampling import PAPER_SAMPLE
from truemorph.errors import InputError
from truemorph.tables import CatalogTable, write_table

T01 = "t01_smooth_or_features_"


def tables(n, seed=0, smooth=0.55):
    """Votes and photometry of n galaxies, as GZ2 and `fetch sdss` name their columns."""
    rng = np.random.default_rng(seed)
    ids = 587722981741363323 + np.arange(n) * 7
    fraction = np.where(rng.random(n) < smooth, 0.8, 0.2)
    votes = pl.DataFrame(
        {
            "dr7objid": ids,
            f"{T01}a01_smooth_weighted_fraction": fraction,
            f"{T01}a02_features_or_disk_weighted_fraction": 0.98 - fraction,
            f"{T01}a03_star_or_artifact_weighted_fraction": np.full(n, 0.02),
        }
    )
    photometry = pl.DataFrame(
        {
            "objid": ids,
            "petroRad_r": rng.lognormal(1.8, 0.4, n),
            "psfWidth_r": rng.normal(1.3, 0.1, n),
            "psfWidth_r_best": np.full(n, 1.1),
            "petroMag_r": rng.normal(16.5, 0.5, n),
            "extinction_r": np.full(n, 0.1),
            "redshift": rng.uniform(0.02, 0.2, n),
        }
    ).sample(fraction=1, shuffle=True, seed=1)
    return votes, photometry


@pytest.fixture(scope="module")
def full_tables():
    return tables(160_000)


def test_the_papers_sample_from_tables_that_allow_it(full_tables):
    votes, photometry = full_tables
    prepared = prepare_catalogue(votes, preset="paper", joins=[Join(photometry)], seed=3)
    frame = prepared.catalogue.frame
    drawn = frame.filter(pl.col("split") != "unused")
    assert drawn.height == 121_984
    assert tuple((drawn["label"] == k).sum() for k in (0, 1)) == (62_225, 59_759)
    assert dict(drawn["split"].value_counts().rows()) == {"train": 97_600, "validation": 12_192, "test": 12_192}
    assert not any("asked" in note for note in prepared.notes)
    # The weights undo the choice: class fractions of the drawn are those of all.
    weights = drawn["sampling_weight"].to_numpy()
    assert np.average(drawn["label"], weights=weights) == pytest.approx(frame["label"].mean(), abs=1e-9)


def test_the_presets_numbers_are_the_papers():
    mapping = read_mapping("paper")
    assert (mapping.sample.smooth, mapping.sample.disk) == PAPER_SAMPLE.labels
    assert (mapping.split.train, mapping.split.validation, mapping.split.test) == PAPER_SAMPLE.split
    assert mapping.columns == read_mapping("gz2").columns


def test_tables_that_do_not_allow_it_are_told_the_difference():
    votes, photometry = tables(2000)
    notes = prepare_catalogue(votes, preset="paper", joins=[Join(photometry)]).notes
    assert any("asked for 62,225 smooth and 59,759 disk; the table has" in note for note in notes)
    assert any("asked to split 121,984 galaxies" in note for note in notes)


def test_radius_in_kpc_and_absolute_magnitude_are_astropys():
    votes, photometry = tables(300)
    for given, cosmology in ((None, WMAP9), ("Planck18", Planck18)):
        catalogue = prepare_catalogue(votes, joins=[Join(photometry)], cosmology=given).catalogue
        frame = catalogue.frame
        z = frame["redshift"].to_numpy()
        kpc = frame["radius"] * cosmology.kpc_proper_per_arcmin(z).value / 60
        np.testing.assert_allclose(frame["radius_kpc"], kpc, rtol=1e-6)
        m_r = frame["magnitude"] - frame["extinction"] - cosmology.distmod(z).value
        np.testing.assert_allclose(frame["M_r"], m_r, atol=1e-5)
        assert catalogue.units["radius_kpc"] == "kpc"
        assert "no K-correction" in catalogue.descriptions["M_r"]
        assert catalogue.metadata["cosmology"] == cosmology.name


def test_columns_of_the_table_itself_are_not_computed_again():
    votes, photometry = tables(300)
    frame = votes.with_columns(radius_kpc=pl.lit(3.0))
    catalogue = prepare_catalogue(frame, joins=[Join(photometry)]).catalogue
    assert catalogue.frame["radius_kpc"].unique().to_list() == [3.0]


def test_rules_count_in_the_funnel():
    votes, photometry = tables(300)
    prepared = prepare_catalogue(votes, joins=[Join(photometry)], keep=["petroMag_r < 16.5", "radius_kpc > 3"])
    funnel = dict(prepared.funnel)
    assert funnel["petroMag_r < 16.5"] == -int((photometry["petroMag_r"] >= 16.5).sum())
    assert sum(n for _, n in prepared.funnel[:-1]) == funnel["rows out"]
    with pytest.raises(InputError, match=r"petroMag.*nearest: petroMag_r"):
        prepare_catalogue(votes, joins=[Join(photometry)], keep=["petroMag < 16.5"])


def test_galaxies_that_the_photometry_lacks_are_counted_and_listed():
    votes, photometry = tables(300)
    some = photometry.filter(pl.col("objid") > votes["dr7objid"][49])
    prepared = prepare_catalogue(votes, joins=[Join(some)])
    assert dict(prepared.funnel)["no positive radius"] == -50
    assert prepared.dropped["object_id"].to_list() == votes["dr7objid"][:50].to_list()
    assert any("250 of 300 rows matched" in note for note in prepared.notes)


def test_images_named_in_a_joined_table_lie_beside_it(tmp_path):
    votes, photometry = tables(60)
    folder = tmp_path / "gz2"
    (folder / "images").mkdir(parents=True)
    for number in range(60):
        (folder / "images" / f"{number}.jpg").write_bytes(b"\xff\xd8")
    listed = pl.DataFrame({"objid": votes["dr7objid"], "image": [f"images/{k}.jpg" for k in range(60)]})
    path = write_table(CatalogTable(listed), folder / "images.parquet")
    catalogue = prepare_catalogue(votes, joins=[Join(photometry), path]).catalogue
    assert catalogue.metadata["image_root"] == str(folder.resolve())
    assert catalogue.frame["image"].to_list() == listed["image"].to_list()


def test_exact_numbers_and_shares(tmp_path):
    votes, photometry = tables(400)
    frame = prepare_catalogue(votes, joins=[Join(photometry)], sample=(60, 40), split=(70, 10, 20)).catalogue.frame
    assert dict(frame["split"].value_counts().rows()) == {"unused": 300, "train": 70, "validation": 10, "test": 20}
    with pytest.raises(InputError, match="exclude each other"):
        prepare_catalogue(votes, joins=[Join(photometry)], sample=(60, 40), balance=True)


def test_a_mapping_may_extend_a_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "gz2"\ncosmology = "Planck18"\n[columns]\nradius = "petroR90_r"\n'
        '[[cuts]]\nname = "bright"\nkeep = "petroMag_r < 17"\n[sample]\nsmooth = 5\ndisk = 4\n'
    )
    mapping = read_mapping(str(path))
    assert mapping.columns["radius"].column == ("petroR90_r",)
    assert mapping.columns["smooth_fraction"] == read_mapping("gz2").columns["smooth_fraction"]
    assert (mapping.name, mapping.cosmology, mapping.sample.disk) == ("mine", "Planck18", 4)
    again = tmp_path / "again.toml"
    again.write_text(mapping_toml(mapping))
    assert read_mapping(str(again)) == mapping
    path.write_text('extends = "gz3"\n')
    with pytest.raises(InputError, match=r"gz3.*nearest: gz2"):
        read_mapping(str(path))


def test_command_writes_catalogue_list_and_datasheet(capsys, tmp_path):
    votes, photometry = tables(300)
    rng = np.random.default_rng(0)
    places = pl.DataFrame({"ra": rng.uniform(0, 360, 300), "dec": rng.uniform(-80, 80, 300)})
    sky = QTable(
        {"RAJ2000": places["ra"].to_numpy(), "DEJ2000": places["dec"].to_numpy() + 1 / 3600, "n": np.ones(300)}
    )
    sky.write(tmp_path / "profiles.fits")
    write_table(CatalogTable(pl.concat([votes, places], how="horizontal")), tmp_path / "votes.csv.gz")
    write_table(CatalogTable(photometry, {"petroRad_r": "arcsec"}), tmp_path / "photometry.parquet")
    out = tmp_path / "cat.parquet"
    status, printed, _ = run(
        capsys, "prepare", tmp_path / "votes.csv.gz", "--join", f"{tmp_path / 'photometry.parquet'}=objid",
        "--match", tmp_path / "profiles.fits", "--within", 1.5, "--sample", "50,40", "--split", "60,10,20",
        "--keep", "redshift > 0.05", "--out", out, "--json",
    )  # fmt: skip
    assert status == 0
    result = json.loads(printed)
    assert result["splits"]["train"] == 60
    assert [one["by"] for one in result["matches"]] == ["id", "sky"]
    assert result["matches"][1]["matched"] == 300
    catalogue = read_catalogue(out)
    assert catalogue.metadata["matches"] == result["matches"]
    page = (tmp_path / "cat.datasheet.md").read_text()
    for said in ("redshift > 0.05", "photometry.parquet", "within 1.5 arcsec", "| `radius_kpc` | kpc |", "SHA-256"):
        assert said in page
    assert (tmp_path / "cat.dropped.csv").is_file()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--sample", "50"], "--sample takes how many smooth and how many disk"),
        (["--sample", "5.5,4"], "whole numbers"),
        (["--split", "a,b,c"], "--split takes three shares"),
        (["--split", "0.5,0.2,0.2"], "sum to 1"),
        (["--cosmology", "WMAP8"], "WMAP9"),
        (["--join", "absent.parquet"], "absent.parquet: no such file"),
        (["--match", "x.fits=ra"], "FILE=RA,DEC"),
    ],
)
def test_mistakes_on_the_command_line(capsys, tmp_path, options, says):
    votes, photometry = tables(60)
    path = write_table(CatalogTable(votes.join(photometry, left_on="dr7objid", right_on="objid")), tmp_path / "v.csv")
    status, _, said = run(capsys, "prepare", path, *options, "--out", tmp_path / "c.parquet")
    assert status == 2
    assert says in said
    assert said.count("\n") == 1


def test_out_never_overwrites_a_table_it_is_made_from(tmp_path):
    votes, photometry = tables(60)
    path = write_table(CatalogTable(photometry), tmp_path / "photometry.parquet")
    prepared = prepare_catalogue(votes, joins=[path])
    with pytest.raises(InputError, match="would overwrite"):
        write_preparation(prepared, path)
