"""A local Ray cluster gives the same labels as one process, even if an actor dies."""

import os
import signal

import polars as pl
import pytest

from truemorph.commands.label import label_galaxies
from truemorph.errors import TruemorphError
from truemorph.labelling import label
from truemorph.tables import read_table

from images.test_tiles import positions, survey  # isort: skip
from labelling.conftest import tars  # isort: skip

ray = pytest.importorskip("ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray[.]")  # from Ray's own settings
def test_a_cluster_survives_the_death_of_an_actor_and_raises_its_errors(
    model, pictures, tmp_path, monkeypatch, request
):
    request.addfinalizer(ray.shutdown)
    source, died = tars(pictures, tmp_path / "tars", 4), tmp_path / "died"
    label_galaxies(model, source, tmp_path / "whole.parquet", precision="fp32")

    class Dying(label.PartLabeller):
        def label(self, number):
            done = super().label(number)
            if not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return done

    monkeypatch.setattr(label, "PartLabeller", Dying)
    monkeypatch.chdir(tmp_path)  # actors run in another folder
    assert label_galaxies(model, "tars", "cluster.parquet", precision="fp32", engine="ray").complete
    assert died.exists()
    assert read_table("cluster.parquet").frame.equals(read_table("whole.parquet").frame)
    (tmp_path / "tiles").mkdir()
    tiles = survey(tmp_path / "tiles").removeprefix(f"{tmp_path}/")
    ra, dec = positions(40)
    pl.DataFrame({"id": range(40), "ra": ra, "dec": dec}).write_csv("sky.csv")
    options = {"tiles": tiles, "bands": "i,r,g", "size": "8arcsec", "precision": "fp32"}
    one, many = (
        label_galaxies(model, "sky.csv", f"{engine}.parquet", engine=engine, **options)
        for engine in ("openvino", "ray")
    )
    assert read_table(one.out).frame.equals(read_table(many.out).frame)
    (source / "003.tar").write_bytes(bytes(range(200)) * 10)
    with pytest.raises(TruemorphError, match=r"003\.tar"):
        label_galaxies(model, "tars", "other.parquet", precision="fp32", engine="ray")
