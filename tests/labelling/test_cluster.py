"""A local Ray cluster gives the same labels as one process, even if an actor is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from truemorph.classifiers.checkpoint import load
from truemorph.commands.label import label_galaxies
from truemorph.errors import InputError
from truemorph.labelling import label
from truemorph.tables import read_table

from labelling.conftest import write_tar  # isort: skip

ray = pytest.importorskip("ray")


def actors():
    """Processes of the labelling actors."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "ray::" in line and "PartLabeller" in line]


@pytest.mark.slow
def test_a_cluster_labels_the_same_with_an_actor_killed(image_model, pictures, tmp_path):
    source = tmp_path / "tars"
    source.mkdir()
    for copy in range(24):
        write_tar(source / f"{copy:03d}.tar", {f"{copy:03d}-{name}": data for name, data in pictures.items()})
    label_galaxies(load(image_model), source, tmp_path / "whole.parquet", precision="fp32")
    out = tmp_path / "cluster.parquet"
    # Paths are relative to the current folder; actors run in another one.
    command = [
        sys.executable, "-m", "truemorph.cli", "label", str(image_model), source.name, "--out", out.name,
        "--precision", "fp32", "--engine", "ray",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not len(list(tmp_path.glob("cluster.parquet.*.parts/*.parquet"))) > 2:
        time.sleep(0.02)
    killed = actors()
    for one in killed:
        os.kill(one, signal.SIGKILL)
    said, err = process.communicate()
    assert process.returncode == 0, err
    assert killed
    assert "wrote" in said
    assert read_table(out).frame.equals(read_table(tmp_path / "whole.parquet").frame)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray[.]")  # from Ray's own settings
def test_a_cluster_stops_at_too_many_unreadable_images_and_resumes(
    image_model, pictures, tmp_path, monkeypatch, request
):
    monkeypatch.setattr(label, "_ENOUGH", 1)
    request.addfinalizer(ray.shutdown)
    source = tmp_path / "tars"
    source.mkdir()
    broken = dict.fromkeys(list(pictures)[:20], b"broken")
    for copy in range(3):
        content = {**pictures, **broken}
        write_tar(source / f"{copy}.tar", {f"{copy}-{name}": data for name, data in content.items()})
    model, options = load(image_model), {"precision": "fp32", "engine": "ray"}
    with pytest.raises(InputError, match="more than 5%"):
        label_galaxies(model, source, tmp_path / "labels", **options)
    report = label_galaxies(model, source, tmp_path / "labels", max_bad=0.5, **options)
    assert (report.complete, report.rows_in, report.labelled) == (True, 180, 120)
