"""Real galaxies: stages that have data run; the others report what is missing."""

import json

import pytest

from conftest import run
from truemorph.tables import read_table

# Small networks, for speed.
FEW = ["--bootstrap", "20", "--training.epochs", "2", "--training.image_size", "32"]


@pytest.mark.slow
def test_images_with_debiased_votes(capsys, shared_data, tmp_path):
    out = tmp_path / "out"
    arguments = ["--table", "gz2_images.csv", "--hart", "gz2_images.csv", "--radius", "petroR90_est"]
    arguments += ["--psf-fwhm", "1.32", "--training.crop", "1", "--json", *FEW]
    status, said, err = run(capsys, "reproduce", "--data", shared_data, "--out", out, *arguments)
    assert status == 0, err
    result = json.loads(said)
    stages = {one["name"]: one for one in result["stages"]}
    lacking = {name for name, one in stages.items() if one["status"] == "lacks"}
    assert lacking == {"dcv14", "figure4"}
    assert all(one["status"] == "done" for name, one in stages.items() if name not in lacking)
    assert result["table1"]["measure"] == "CV14"
    assert [row["letter"] for row in result["table1"]["rows"]] == list("abcdf")
    # Hart et al.'s debiasing adds disks at low α, which lowers the dependence on α.
    rows = {row["name"]: row for row in result["table1"]["rows"]}
    assert rows["gz2d"]["value"] < rows["gz2b"]["value"]
    assert rows["gz2d"]["to_disk"] > 5 * rows["gz2d"]["to_smooth"]
    text = (out / "reproduction.html").read_text()
    assert 'data-code="intrinsic-missing"' in text
    assert "cannot be compared with these" in text
    observed = read_table(out / stages["catalogue"]["folder"] / "gz2b.parquet").frame
    assert observed.height == result["catalogue"]["galaxies"] > 600


@pytest.mark.parametrize("source", ["nuy2e_hart16", "S82coadd"])
def test_votes_without_images(capsys, shared_data, tmp_path, source):
    arguments = ["--table", "gz2_votes.csv", "--hart", "gz2_votes.csv", "--radius", "petroR90", "--json", *FEW]
    arguments += ["--where", f"source={source}"]
    status, said, err = run(capsys, "reproduce", "--data", shared_data, "--out", tmp_path / "out", *arguments)
    assert status == 0, err
    result = json.loads(said)
    stages = {one["name"]: one["status"] for one in result["stages"]}
    made = {"catalogue", "theta", "table1", "reasons", "page"}
    assert {name for name, one in stages.items() if one == "done"} == made
    assert {one for name, one in stages.items() if name not in made} == {"lacks"}
    theta = result["theta"]
    assert 5 < theta["theta"] < 20
    assert theta["stderr"] < 2
