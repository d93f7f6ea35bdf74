"""Every stage from an empty folder to the page, with a simulated archive on a local server."""

import json

import numpy as np
import polars as pl
import pytest

from archives.server import Observatory
from archives.simulated import write_archive
from conftest import run
from reproduce.test_whole import NAMES, command, result_of, stage_of
from truemorph.tables import read_table

ARCHIVES = ["fetch-gz2", "fetch-sdss", "fetch-simard"]


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """Local server of the simulated archive."""
    folder = tmp_path_factory.mktemp("archive")
    with Observatory(write_archive(folder, 420, seed=8, size=64, hst=0.4)) as served:
        yield served


@pytest.fixture
def local_archive(sky, tmp_path, monkeypatch):
    """Fetch from the local server, without proxies."""
    from truemorph.archives.fetch import fetch

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    served = sky.write_addresses(tmp_path / "addresses.toml")
    monkeypatch.setattr(
        "truemorph.archives.fetch.fetch",
        lambda name, out, **chosen: fetch(name, out, addresses_from=served, per_second=1000, **chosen),
    )


@pytest.mark.slow
def test_fetch_and_reproduce_from_an_empty_folder(capsys, sky, local_archive, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    more = ("--training.crop", 207 / 424, "--json")
    arguments = command(data, out, "--fetch", *more)
    status, said, err = run(capsys, *arguments)
    assert status == 0, err
    stages = {one["name"]: one for one in json.loads(said)["stages"]}
    assert list(stages) == [*ARCHIVES, *NAMES]
    assert {one["status"] for one in stages.values()} == {"done"}, stages
    assert (out / "reproduction.html").stat().st_size > 1e5

    # Results agree with the truth of the simulated archive.
    sample = read_table(stage_of(out, "catalogue") / "gz2b.parquet").frame
    both = sample.join(sky.truth.select("objid", alpha_true="alpha"), left_on="object_id", right_on="objid")
    assert both.height == sample.height
    assert np.allclose(both["alpha"], both["alpha_true"], rtol=2e-3)
    theta = result_of(out)["theta"]
    assert abs(theta["theta"] - 11.25) < 4 * theta["stderr"]
    seen = read_table(out / "figures" / "figure4.ecsv").frame
    truth = sky.truth.filter(pl.col("hst") == "image")["objid"].cast(pl.String)
    assert seen.height > 0
    assert seen["object_id"].cast(pl.String).is_in(truth.implode()).all()

    asked = len(sky.requests)
    status, said, _ = run(capsys, *arguments)
    assert {one["status"] for one in json.loads(said)["stages"]} == {"cached"}
    assert len(sky.requests) == asked
