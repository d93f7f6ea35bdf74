"""What a catalogue and its datasheet say of how it was made is what was done."""

import numpy as np
import polars as pl
import pytest

from catalogs.made_up import T01, full, own_names, photometry, votes
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.joining import Join
from truemorph.catalogs.mapping import read_mapping
from truemorph.catalogs.prepare import prepare_catalogue, write_preparation


def page_of(tmp_path, source, **asked):
    out = write_preparation(prepare_catalogue(source, **asked), tmp_path / "c.parquet")
    return read_catalogue(out), (tmp_path / "c.datasheet.md").read_text()


def test_rules_selection_sample_and_split_are_on_the_page(tmp_path):
    asked = {"where": ["kind=a"], "keep": ["redshift > 0.05"], "sample": (6, 4), "split": (5, 3, 2)}
    got, page = page_of(tmp_path, full(kind=["a", "b"] * 30), **asked)
    assert got.metadata["where"] == ["kind=a"]
    assert got.metadata["rules"] == {"redshift > 0.05": "redshift > 0.05"}
    assert got.metadata["sample"] == {"smooth": 6, "disk": 4}
    assert got.metadata["split"] == {"train": 5, "validation": 3, "test": 2}
    for said in ('kind=a"', '"redshift > 0.05": "redshift > 0.05"', '{"smooth": 6, "disk": 4}', '"train": 5'):
        assert said in page
    assert "selected by their labels" in page


def test_notes_and_units_are_on_the_page(tmp_path):
    prepared = prepare_catalogue(full(petroRad_r=np.where(np.arange(60) < 3, -1.0, 5.0)), psf_fwhm=1.3)
    write_preparation(prepared, tmp_path / "c.parquet")
    page = (tmp_path / "c.datasheet.md").read_text()
    assert "one PSF width for all galaxies" in page
    assert "3 rows dropped, column petroRad_r is missing, zero or negative" in page
    for column, unit in (("radius", "arcsec"), ("radius_kpc", "kpc"), ("M_r", "mag"), ("redshift", "none")):
        assert f"| `{column}` | {unit} |" in page


def test_balanced_means_as_many_of_each():
    said = {}
    for name, asked in {
        "all": {},
        "some": {"sample": (9, 4)},
        "even": {"sample": (4, 4)},
        "most": {"balance": True},
    }.items():
        metadata = prepare_catalogue(full(), **asked).catalogue.metadata
        said[name] = (metadata["drawn"], metadata["balanced"])
    assert said == {"all": (False, False), "some": (True, False), "even": (True, True), "most": (True, True)}


def test_how_labels_were_made():
    def rule(table, **asked):
        return prepare_catalogue(table, **asked).catalogue.metadata["label_rule"]

    assert rule(full()).startswith("the larger of smooth_fraction and disk_fraction; ties left out, and where artefact")
    without = full().drop(
        f"{T01}a02_features_or_disk_weighted_fraction", f"{T01}a03_star_or_artifact_weighted_fraction"
    )
    assert rule(without) == "smooth if smooth_fraction is above 0.5; ties left out"
    some = own_names(disk_fraction=np.where(np.arange(60) < 9, np.nan, own_names()["disk_fraction"]))
    assert "above 0.5 where disk_fraction is missing" in rule(some)


@pytest.mark.parametrize(("column", "part"), [("petroR90_r", "90"), ("petro_th50", "50")])
def test_a_radius_of_part_of_the_light_is_never_called_petrosian_radius(column, part):
    table = full().rename({"petroRad_r": column})
    described = prepare_catalogue(table, columns={"radius": column}).catalogue.descriptions
    assert described["radius"] == f"radius of {part} % of the Petrosian light ({column})"
    assert described["radius_kpc"].startswith(f"physical radius of {part} % of the Petrosian light")
    other = prepare_catalogue(full(size=4.0), columns={"radius": "size"}).catalogue.descriptions["radius"]
    assert other == "size, taken for the Petrosian radius"


def test_a_unit_that_is_not_known_is_called_so(tmp_path):
    _, page = page_of(tmp_path, full(r_half=3.0))
    assert "| `r_half` | unknown |" in page


def test_paths_of_this_machine_are_nobody_elses_business(tmp_path):
    (tmp_path / "in").mkdir()
    bad = votes().with_columns(ra=pl.when(pl.int_range(60) < 2).then(None).otherwise(pl.col("ra")))
    bad.write_csv(tmp_path / "in" / "v.csv")
    photometry()[:50].write_parquet(tmp_path / "in" / "p.parquet")
    prepared = prepare_catalogue(tmp_path / "in" / "v.csv", joins=[tmp_path / "in" / "p.parquet"])
    assert prepared.notes
    write_preparation(prepared, tmp_path / "c.parquet")
    assert not any(str(tmp_path) in note for note in prepared.notes)
    assert str(tmp_path) not in (tmp_path / "c.datasheet.md").read_text()
    assert "### `v.csv`" in (tmp_path / "c.datasheet.md").read_text()


def test_two_files_of_one_name_are_told_apart(tmp_path):
    for folder, table in (("a", votes()), ("b", photometry())):
        (tmp_path / folder).mkdir()
        table.write_csv(tmp_path / folder / "t.csv")
    _, page = page_of(tmp_path, tmp_path / "a" / "t.csv", joins=[tmp_path / "b" / "t.csv"])
    assert "### `a/t.csv`" in page
    assert "### `b/t.csv`" in page


def test_a_catalogue_prepared_again_keeps_what_its_votes_and_alpha_are(tmp_path):
    first = prepare_catalogue(full(t_type=np.arange(60) % 9 - 4), truth="t_type>=0", sample=(9, 9))
    path = write_preparation(first, tmp_path / "one.parquet")
    again = prepare_catalogue(path, cosmology="WMAP9")
    for key in ("votes", "alpha", "about", "truth_definition"):
        assert again.catalogue.metadata[key] == first.catalogue.metadata[key]
    for name in ("radius_kpc", "M_r", "smooth_fraction", "truth"):
        assert again.catalogue.descriptions[name] == first.catalogue.descriptions[name]
    assert any("one.parquet is a prepared catalogue" in note for note in again.notes)
    assert set(again.catalogue.frame["split"]) == {"train", "validation", "test"}


def test_absolute_magnitudes_of_the_nsa_say_their_hubble_constant_and_predicted_votes_that_they_are():
    for name in ("gz-decals", "desi"):
        assert "H0 = 100 km/s/Mpc" in read_mapping(name).columns["M_r"].description
    assert "predicted by a network" in read_mapping("desi").votes


def test_match_notes_name_tables(tmp_path):
    table = full()
    positions = pl.DataFrame({"ra": table["ra"], "dec": table["dec"], "n": np.arange(60)})
    got = prepare_catalogue(table, joins=[Join(positions, "sky")]).catalogue
    assert "separation on the sky from the row of polars DataFrame" in got.descriptions["joined_separation"]
