"""A local Ray cluster labels what one process would, also when an actor is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from truemorph.classifiers.checkpoint import load
from truemorph.commands.label import label_galaxies
from truemorph.errors import InputError
from truemorph.labelling.cluster import label_on_cluster
from truemorph.labelling.job import Asked, open_job
from truemorph.labelling.output import Account
from truemorph.tables import read_table

from labelling.conftest import write_tar  # isort: skip

ray = pytest.importorskip("ray")


def actors():
    """Processes of actors that label."""
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
    # Paths are relative to where the command is run; actors run elsewhere.
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
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray[.]")  # Ray warns of settings of its own
def test_a_cluster_tells_of_each_part_and_stops_when_told(image_model, pictures, tmp_path, request):
    source = tmp_path / "tars"
    source.mkdir()
    for copy in range(3):
        write_tar(source / f"{copy}.tar", {f"{copy}-{name}": data for name, data in pictures.items()})
    model = load(image_model)
    asked = Asked(source, tmp_path / "labels", precision="fp32")
    job = open_job(model, asked)
    job.results.begin()
    request.addfinalizer(ray.shutdown)
    told = []

    def enough(account):
        told.append(account)
        raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        label_on_cluster(model, asked, job, range(3), None, enough)
    assert len(told) == 1
    there = [part.name for part in job.source.parts if job.results.is_done(part.name)]
    label_on_cluster(model, asked, job, range(3), None, told.append)
    assert len(told) == 1 + 3 - len(there)  # those that were there are not told again
    found = sum((job.results.account(part.name) for part in job.source.parts), Account())
    assert found.rows_in == 3 * len(pictures)
