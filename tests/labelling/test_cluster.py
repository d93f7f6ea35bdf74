"""A local Ray cluster gives the same labels as one process, even if an actor dies."""

import os
import signal

import pytest

from truemorph.classifiers.checkpoint import load
from truemorph.commands.label import label_galaxies
from truemorph.errors import InputError
from truemorph.labelling import label
from truemorph.tables import read_table

from labelling.conftest import tars  # isort: skip

ray = pytest.importorskip("ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray[.]")  # from Ray's own settings
def test_a_cluster_survives_the_death_of_an_actor_and_raises_its_errors(
    image_model, pictures, tmp_path, monkeypatch, request
):
    monkeypatch.setattr(label, "_ENOUGH", 1)
    request.addfinalizer(ray.shutdown)
    tars({**pictures, **dict.fromkeys(list(pictures)[:20], b"broken")}, tmp_path / "tars", 4)
    model, options = load(image_model), {"precision": "fp32", "max_bad": 0.5}
    label_galaxies(model, tmp_path / "tars", tmp_path / "whole.parquet", **options)
    died = tmp_path / "died"

    class Dying(label.PartLabeller):
        def __call__(self, batch):
            done = super().__call__(batch)
            if not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return done

    # Actors run in another folder.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="more than 5%"):
        label_galaxies(model, "tars", "other.parquet", precision="fp32", engine="ray")
    monkeypatch.setattr(label, "PartLabeller", Dying)
    report = label_galaxies(model, "tars", "cluster.parquet", engine="ray", **options)
    assert died.exists()
    assert (report.complete, report.rows_in, report.labelled) == (True, 240, 160)
    assert read_table("cluster.parquet").frame.equals(read_table("whole.parquet").frame)
