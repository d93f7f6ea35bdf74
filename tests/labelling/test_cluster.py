"""A local Ray cluster gives the same labels as one process, even if an actor dies."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import polars as pl
import pytest

from conftest import codes
from truemorph import label_galaxies, read_table
from truemorph.errors import InputError, TruemorphError
from truemorph.labelling import cluster

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

    class Dying(cluster.PartLabeller):
        def label(self, number):
            done = super().label(number)
            if not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return done

    monkeypatch.setattr(cluster, "PartLabeller", Dying)
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
        label_galaxies(model, "tars", "other.parquet", precision="fp32", engine="ray", max_bad=0.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray[.]")
def test_a_busy_cluster_labels_with_the_engine_of_its_machines(model, pictures, tmp_path, monkeypatch, request):
    class OnTorch(cluster.PartLabeller):
        def __init__(self, folder, device, options):
            super().__init__(folder, device, replace(options, engine="torch", precision="fp32"))

    monkeypatch.setattr(cluster, "PartLabeller", OnTorch)  # on machines without OpenVINO
    request.addfinalizer(ray.shutdown)
    ray.init(num_cpus=3, log_to_driver=False, include_dashboard=False)

    @ray.remote(num_cpus=2)
    class Busy:
        def started(self):
            return True

    busy = Busy.remote()
    ray.get(busy.started.remote())  # one of two workers never starts
    source = tars(dict(list(pictures.items())[:5]), tmp_path / "tars", 4)
    for out, parts in ((tmp_path / "labels", 4), (tmp_path / "labels", 0), (tmp_path / "labels.parquet", 4)):
        done = [one.stat().st_mtime_ns for one in sorted(out.glob("*.parquet"))]
        report = label_galaxies(model, source, out, engine="ray")
        assert (report.labelled, report.complete) == (20, True)
        assert "part-damaged" not in codes(report)
        assert parts == 4 or [one.stat().st_mtime_ns for one in sorted(out.glob("*.parquet"))] == done
    assert read_table(tmp_path / "labels.parquet").metadata["engine"] == "torch cpu fp32"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001", "auto", "nowhere.invalid:6379", "x"])
def test_addresses_without_a_cluster_are_an_error_at_once(model, pictures, tmp_path, monkeypatch, address):
    if address == "auto":  # there may be one on this machine
        monkeypatch.setattr("ray.init", fails)
    source = tars(dict(list(pictures.items())[:1]), tmp_path / "tars", 1)
    for engine in ("ray", "auto"):  # of which only Ray takes an address
        with pytest.raises(InputError):
            label_galaxies(model, source, tmp_path / "labels.parquet", engine=engine, address=address)
    assert [one.name for one in tmp_path.iterdir()] == ["tars"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
def test_another_program_at_the_address_is_an_error_at_once(model, pictures, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(cluster, "CONNECTING", 0.5)
    monkeypatch.setattr("ray.init", fails)
    source = tars(dict(list(pictures.items())[:1]), tmp_path / "tars", 1)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        accepted = pool.submit(server.accept)
        pool.submit(lambda: accepted.result()[0].sendall(answer) if answer is not None else None)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match="no Ray cluster"):
            label_galaxies(model, source, tmp_path / "out", engine="ray", address=address)
        accepted.result()[0].close()


def fails(**_):
    raise ConnectionError("no cluster")
