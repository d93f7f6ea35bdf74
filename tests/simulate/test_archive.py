"""The simulated archive has the formats of the real ones, physics that hangs together, and a truth beside."""

import io
import json
import zipfile

import numpy as np
import polars as pl
import pytest
from astropy.cosmology import WMAP9
from PIL import Image

from catalogs.archives.observatory import small_archive
from truemorph.errors import InputError
from truemorph.simulate.archive import write_archive

T01 = "t01_smooth_or_features_"
ANSWERS = ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")


@pytest.fixture(scope="module")
def archive():
    return small_archive()


@pytest.fixture(scope="module")
def truth(archive):
    return pl.read_parquet(archive / "truth.parquet")


def table(archive, name):
    return pl.read_parquet(archive / f"{name}.parquet")


def test_vote_tables_have_the_published_columns(archive):
    first = [
        f"{T01}a01_smooth_{kind}" for kind in ("count", "weight", "fraction", "weighted_fraction", "debiased", "flag")
    ]
    hart = pl.read_csv(archive / "files/gz2_hart16.csv.gz")
    who = ["dr7objid", "ra", "dec", "rastring", "decstring", "sample"]
    assert hart.columns[:9] == [*who, "gz2_class", "total_classifications", "total_votes"]
    assert hart.columns[9:15] == first
    willett = pl.read_csv(archive / "files/zoo2MainSpecz.csv.gz")
    assert willett.columns[:9] == ["specobjid", "dr8objid", *who, "gz2class"]
    assert willett.columns[11:17] == first
    assert 0 < willett.height - hart.height < 0.1 * willett.height


def test_fractions_are_counts_over_their_total(archive):
    votes = pl.read_csv(archive / "files/zoo2MainSpecz.csv.gz")
    counts = votes.select(f"{T01}{answer}_count" for answer in ANSWERS).to_numpy()
    fractions = votes.select(f"{T01}{answer}_fraction" for answer in ANSWERS).to_numpy()
    assert (counts.sum(axis=1) == votes["total_classifications"].to_numpy()).all()
    assert np.abs(fractions - counts / counts.sum(axis=1, keepdims=True)).max() <= 0.0005 + 1e-9
    for kind in ("weighted_fraction", "debiased"):
        total = votes.select(f"{T01}{answer}_{kind}" for answer in ANSWERS).to_numpy().sum(axis=1)
        assert np.abs(total - 1).max() <= 0.0016


def test_debiased_votes_undo_some_of_the_drift():
    """Resolution hides disks: Hart's fractions have more of them, and still too few."""
    from truemorph.bias.transitions import RayleighTransition
    from truemorph.simulate.galaxies import simulate_galaxies
    from truemorph.simulate.zoo import zoo_tables

    n = 4000
    population = simulate_galaxies(n, 5, confounded=False).with_columns(ra=pl.lit(150.0), dec=pl.lit(2.0))
    zoo = zoo_tables(population, RayleighTransition(11.25), 5)
    true = population["truth"].mean()
    raw = zoo.willett[f"{T01}a02_features_or_disk_weighted_fraction"].mean()
    willett = zoo.willett[f"{T01}a02_features_or_disk_debiased"].mean()
    hart = zoo.hart[f"{T01}a02_features_or_disk_debiased"].mean()
    assert raw + 0.01 < willett < hart - 0.01 < true - 0.05
    # ỹ of a disk is smooth with exp(-α²/2θ²): four standard errors of a mean of so many.
    disks = population["truth"] == 1
    expected = 1 - np.exp(-(population.filter(disks)["alpha"].to_numpy() ** 2) / (2 * 11.25**2))
    error = np.sqrt((expected * (1 - expected)).sum()) / disks.sum()
    assert abs(zoo.labels.filter(disks).mean() - expected.mean()) < 4 * error


def test_photometry_is_that_of_the_simulated_galaxies(archive, truth):
    photometry = table(archive, "skyserver/PhotoObjAll")
    spectra = table(archive, "skyserver/SpecObjAll").filter(pl.col("sciencePrimary") == 1)
    fields = table(archive, "skyserver/Field")
    joined = (
        truth.filter("in_sdss", "has_redshift", "measured")
        .join(photometry, left_on="objid", right_on="objID", suffix="_p")
        .join(spectra, left_on="objid", right_on="bestObjID")
        .join(fields, on="fieldID", suffix="_f")
    )
    assert joined.height == truth.filter("in_sdss", "has_redshift", "measured").height > 100
    z = joined["z"].to_numpy()
    kpc = joined["petroRad_r"].to_numpy() * WMAP9.kpc_proper_per_arcmin(z).value / 60
    np.testing.assert_allclose(kpc, joined["radius_kpc"], rtol=1e-9)
    absolute = joined["petroMag_r"] - joined["extinction_r"] - WMAP9.distmod(z).value - joined["k_correction"]
    np.testing.assert_allclose(absolute, joined["M_r"], atol=1e-9)
    alpha = joined["petroRad_r"] / (joined["psfWidth_r"] / 2.3548)
    np.testing.assert_allclose(alpha, joined["alpha"], rtol=1e-4)


def test_archives_disagree_on_what_they_have(archive, truth):
    photometry = set(table(archive, "skyserver/PhotoObjAll")["objID"])
    spectra = set(table(archive, "skyserver/SpecObjAll")["bestObjID"])
    structure = set(table(archive, "vizier/table3")["objID"].cast(pl.Int64))
    for row in truth.iter_rows(named=True):
        assert (row["objid"] in photometry) == row["in_sdss"]
        assert (row["objid"] in spectra) == row["has_redshift"]
        assert (row["objid"] in structure) == row["in_simard"]
    for name in ("in_sdss", "has_redshift", "in_simard", "measured"):
        assert 0.5 < truth[name].mean() < 1
    assert len(structure - set(truth["objid"])) > 10
    ids = truth["objid"]
    assert ids.is_between(1 << 59, (2 << 59) - 1).all()


def test_detections_in_other_fields_are_near_and_secondary(archive, truth):
    """And other objects are not near, or not secondary; some have fields, with better seeing, of their own."""
    photometry = table(archive, "skyserver/PhotoObjAll")
    pairs = table(archive, "skyserver/Neighbors").join(truth.select(objID="objid"), on="objID", how="semi")
    again = pairs.filter((pl.col("neighborMode") == 2) & (pl.col("neighborType") == 3))
    other = pairs.filter(pl.col("neighborType") == 6)
    assert again["distance"].max() < 0.02
    near = other.filter(pl.col("distance") < 0.05)
    assert (near["neighborMode"] == 1).all()
    fields = table(archive, "skyserver/Field").select("fieldID", "psfWidth_r")
    sharp = photometry.join(fields, on="fieldID").filter(pl.col("psfWidth_r") < truth["psf_best"].min())
    galaxies = photometry.filter(pl.col("type") == 3)["fieldID"]
    assert not sharp["fieldID"].is_in(galaxies.implode()).any()
    for mode, some in ((1, near), (2, other.filter(pl.col("distance") > 0.09, pl.col("neighborMode") == 2))):
        assert some["NeighborObjID"].is_in(sharp["objID"].implode()).sum() > 3, mode
    assert photometry["objID"].is_unique().all()
    count = again.group_by("objID").len()
    seen = truth.filter("in_sdss").join(count, left_on="objid", right_on="objID", how="left")
    assert (seen["n_fields"] == 1 + seen["len"].fill_null(0)).all()


def test_structure_has_vizier_names_and_its_negative_radii(archive):
    structure = table(archive, "vizier/table3")
    assert {"recno", "objID", "z", "Sp", "Scale", "Rhlg", "Rhlr", "Rchl,g", "Rchl,r", "e", "ng", "e_ng"} <= set(
        structure.columns
    )
    assert structure["objID"].dtype == pl.String
    nowhere = structure.filter(pl.col("Scale") == -99.99)
    assert nowhere.height > 0
    assert (nowhere["Rchl,r"] < 0).all()
    assert (nowhere["Rhlr"] == -99.99).all()
    fixed, free = table(archive, "vizier/table1"), table(archive, "vizier/table2")
    assert set(fixed.filter(pl.col("nb") != -99.99)["nb"]) == {4.0}
    assert free["nb"].n_unique() > 10


def test_zip_holds_the_images_that_the_mapping_names(archive, truth):
    mapping = pl.read_csv(archive / "files/gz2_filename_mapping.csv")
    assert mapping.columns == ["objid", "sample", "asset_id"]
    coadd = pl.col("sample") == "stripe82_coadd_1"
    assert set(mapping.filter(~coadd)["objid"]) == set(truth["objid"])
    # Their ids are not DR7's: its begin with 0001 in binary.
    assert mapping.filter(coadd).height > 2
    assert (mapping.filter(coadd)["objid"] >= 2 << 59).all()
    assert mapping["asset_id"].is_unique().all()
    with zipfile.ZipFile(archive / "files/images_gz2.zip") as packed:
        names = packed.namelist()
        for name in names[1:5]:
            with Image.open(io.BytesIO(packed.read(name))) as image:
                assert image.size == (48, 48)
    assert any(name.startswith("__MACOSX/") for name in names)
    numbers = {int(name[7:-4]) for name in names if name.startswith("images/") and name != "images/"}
    assert not numbers & set(mapping.filter(pl.col("sample") != "original")["asset_id"])
    assert 0 < len(set(mapping.filter(pl.col("sample") == "original")["asset_id"]) - numbers) < 10
    assert len(numbers - set(mapping["asset_id"])) == 1
    record = json.loads((archive / "files/zenodo_record.json").read_text())
    assert record["files"][0]["size"] == (archive / "files/images_gz2.zip").stat().st_size


def test_same_seed_same_archive(tmp_path):
    for name in ("a", "b"):
        write_archive(tmp_path / name, 60, seed=9, size=16, hst=0.02)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) > 12
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_refuses_too_few_galaxies(tmp_path):
    with pytest.raises(InputError, match="at least 60"):
        write_archive(tmp_path, 5)
    with pytest.raises(InputError, match="share"):
        write_archive(tmp_path, 60, hst=2)
