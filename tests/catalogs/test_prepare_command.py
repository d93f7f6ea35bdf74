"""`truemorph prepare`: results, errors, and the mapping printed by a dry run."""

import json
import tomllib

import polars as pl
import pytest

from catalogs.made_up import DISK, SMOOTH, photometry, votes
from conftest import done, refused, run
from truemorph.catalogs.catalogue import read_catalogue


@pytest.fixture
def files(tmp_path):
    """Votes, photometry by id and profiles by position."""
    votes().write_csv(tmp_path / "votes.csv")
    photometry().write_parquet(tmp_path / "photometry.parquet")
    sky = votes().select(RAJ2000="ra", DEJ2000=pl.col("dec") + 1 / 3600).with_columns(sersic_n=pl.lit(2.0))
    sky.write_parquet(tmp_path / "profiles.parquet")
    return tmp_path


def test_the_command_writes_a_catalogue_and_its_result_as_json(capsys, files):
    out = files / "cat.parquet"
    status, printed, said = run(
        capsys, "prepare", files / "votes.csv", "--join", f"{files / 'photometry.parquet'}=objid",
        "--match", files / "profiles.parquet", "--within", 1.5, "--smooth", SMOOTH, "--disk", DISK,
        "--sample", "20,15", "--split", "30,2,3", "--keep", "redshift > 0.05", "--gold", "sersic_n>=1",
        "--psf", "fwhm", "--out", out, "--json",
    )  # fmt: skip
    assert status == 0
    result = json.loads(printed)
    catalogue = read_catalogue(out)
    assert result["splits"]["train"] == 30
    assert [(one["by"], one["matched"]) for one in result["matches"]] == [("id", 60), ("sky", 60)]
    assert catalogue.metadata["matches"] == result["matches"]
    assert catalogue.metadata["alpha_psf"] == "fwhm"
    assert catalogue.frame["gold"].to_list() == [1] * catalogue.frame.height
    assert "note: " in said
    assert {path.name for path in files.glob("cat.*")} == {"cat.parquet", "cat.datasheet.md", "cat.dropped.csv"}


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [(["--sample", "50"], "sample"), (["--cosmology", "WMAP8"], "WMAP9"), (["--match", "x.fits=ra"], "FILE=RA,DEC")],
)
def test_a_mistake_gives_one_line_and_status_2(capsys, files, options, mentioned):
    assert mentioned in refused(capsys, "prepare", files / "votes.csv", *options, "--out", files / "c.parquet")


def test_a_dry_run_prints_a_mapping(capsys, files):
    table = [files / "votes.csv", "--join", files / "photometry.parquet"]
    assert (
        tomllib.loads(done(capsys, "prepare", *table, "--cosmology", "Planck18", "--dry-run"))["cosmology"]
        == "Planck18"
    )
