"""Real galaxies: stages that have data run; the others report what is missing."""

import json

import pytest

from conftest import run
from truemorph import prepare_catalogue


@pytest.mark.slow
def test_images_with_debiased_votes(capsys, shared_data, tmp_path):
    out, table = tmp_path / "out", shared_data / "gz2_images.csv"
    given = {"columns": {"radius": "petroR90_est"}, "psf_fwhm": 1.32}
    catalogue = prepare_catalogue(table, out=tmp_path / "catalogue.parquet", **given).out
    arguments = ["--table", catalogue, "--hart", table, "--bootstrap", "20", "--json"]
    arguments += ["--training.crop", "1", "--training.epochs", "2", "--training.image_size", "32"]
    status, said, err = run(capsys, "reproduce", "--data", tmp_path, "--out", out, *arguments)
    assert status == 0, err
    result = json.loads(said)
    stages = {one["name"]: one for one in result["stages"]}
    lacking = {name for name, stage in stages.items() if stage["status"] == "lacks"}
    assert lacking == {"dcv14", "figure4"}
    assert all(stage["status"] == "done" for name, stage in stages.items() if name not in lacking)
    assert result["table1"]["measure"] == "CV14"
    rows = {row["letter"]: row for row in result["table1"]["rows"]}
    assert list(rows) == list("abcdf")
    # Hart et al.'s debiasing adds disks at low α, which lowers the dependence on α.
    assert rows["b"]["value"] < rows["a"]["value"]
    assert rows["b"]["to_disk"] > 5 * rows["b"]["to_smooth"]
    assert 'data-code="intrinsic-missing"' in (out / "reproduction.html").read_text()
    share = result["catalogue"]["galaxies"] / 121_984  # of the paper's sample, not the scale that was asked for
    assert f"({100 * share:.2g} % of" in result["answer"]
