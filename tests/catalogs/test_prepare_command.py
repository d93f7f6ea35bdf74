"""`truemorph prepare`: results, errors, and the mapping printed by a dry run."""

import json
import tomllib

import polars as pl
import pytest

from catalogs.made_up import DISK, SMOOTH, photometry, votes
from conftest import run
from truemorph.catalogs.catalogue import read_catalogue


@pytest.fixture
def files(tmp_path):
    """Votes, photometry by id and profiles by position."""
    votes(kind=["A  B", "A B"] * 30).write_csv(tmp_path / "votes.csv")
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
    status, printed, said = run(capsys, "prepare", files / "votes.csv", *options, "--out", files / "c.parquet")
    assert (status, printed, said.count("\n")) == (2, "", 1)
    assert mentioned in said


def test_a_dry_run_prints_a_mapping_that_gives_the_same_catalogue(capsys, files):
    (files / "m.toml").write_text(
        'extends = "paper"\n[columns]\nsersic_n = { column = "n\\npsf_fwhm = 9", optional = true }\n'
        "ellipticity = { expression = \"CASE WHEN kind = 'A  B' THEN 0.1 ELSE 0.2 END\" }\n"
    )
    table = ["prepare", files / "votes.csv", "--join", files / "photometry.parquet"]
    asked = [*table, "--preset", files / "m.toml", "--keep", "redshift > 0.05"]
    asked += ["--cosmology", "Planck18", "--sample", "9,8"]
    status, page, _ = run(capsys, *asked, "--dry-run")
    assert status == 0
    assert "psf_fwhm" not in tomllib.loads(page)  # only as a comment
    (files / "again.toml").write_text(page)
    for options, out in ((asked, "one.parquet"), ([*table, "--preset", files / "again.toml"], "two.parquet")):
        status, _, said = run(capsys, *options, "--out", files / out)
        assert status == 0, said
    one, two = (read_catalogue(files / name) for name in ("one.parquet", "two.parquet"))
    assert one.frame.equals(two.frame)
    assert set(one.frame["ellipticity"]) == {0.1, 0.2}
    assert one.metadata["cosmology"] == two.metadata["cosmology"] == "Planck18"
