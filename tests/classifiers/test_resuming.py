"""Interrupted runs resume and end with the same weights, and the last good state is kept."""

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file

from conftest import TINY, stripes, tiny
from truemorph import Classifier, RayleighTransition, load, read_table, train_classifier, write_table
from truemorph.classifiers.callbacks import AtomicCheckpoints, Unfinished
from truemorph.classifiers.checkpoint import save_classifier
from truemorph.classifiers.classifier import describe
from truemorph.classifiers.members import train_members
from truemorph.classifiers.module import DebiasedModule
from truemorph.config import training_config
from truemorph.errors import CheckpointError, InputError
from truemorph.tables import CatalogTable

from classifiers.test_network import Executed  # isort: skip

SETTINGS = {"image_size": 32, "epochs": 2, "dropout": 0.3, "rotation": "any", "shift": 0.05, "accumulate": 2}


@pytest.fixture
def cut(monkeypatch, tmp_path):
    """Train in `tmp_path / "cut"`, and stop after so many steps (of forward passes)."""

    def until(steps, **changes):
        left = iter(range(steps))

        def on_train_batch_end(self, *_):
            if next(left, None) is None:
                pytest.fail("cut")

        with monkeypatch.context() as patch:
            patch.setattr(DebiasedModule, "on_train_batch_end", on_train_batch_end)
            with pytest.raises(pytest.fail.Exception):
                train(tmp_path / "cut", **changes)

    return until


def train(folder, **changes):
    config = tiny(**{**SETTINGS, **changes})
    return train_members(stripes(300)[0], RayleighTransition(11.25), config, unfinished=Unfinished(folder))


def assert_same(first, second):
    for member, other in zip(first.members, second.members, strict=True):
        for name, value in member.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)
    for one, other in zip(first.history, second.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert first.temperatures == second.temperatures


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 12, 19])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, cut, whole, steps):
    """Two epochs of twelve half steps: it is cut in the first epoch, at the start of the second, and within it."""
    cut(steps)
    assert_same(train(tmp_path / "cut"), whole)


@pytest.mark.slow
def test_a_run_that_stopped_early_is_not_trained_further(tmp_path, monkeypatch):
    changes = {"epochs": 12, "patience": 1, "learning_rate": 3e-2}
    whole = train(tmp_path / "whole", **changes)
    assert len(whole.history) < 12
    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "finish", lambda *_: pytest.fail("cut"))
        with pytest.raises(pytest.fail.Exception):
            train(tmp_path / "cut", **changes)
    assert_same(train(tmp_path / "cut", **changes), whole)


@pytest.mark.slow
def test_several_interruptions_with_several_members(tmp_path, cut):
    for steps in (8, 10, 8):  # of twelve for each member
        cut(steps, folds=2)
    assert_same(train(tmp_path / "cut", folds=2), train(tmp_path / "whole", folds=2))
    # All members are finished: nothing is trained again.
    assert {one.name for one in (tmp_path / "cut").iterdir()} == {"member-0.ckpt", "member-1.ckpt"}
    damage(tmp_path / "cut" / "member-0.ckpt")
    with pytest.raises(CheckpointError, match=r"member-0\.ckpt"):
        train(tmp_path / "cut", folds=2)


def damage(path):
    """Flip a bit of a weight."""
    content, middle = path.read_bytes(), path.stat().st_size // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :])


@pytest.mark.slow
def test_if_a_state_is_damaged_the_previous_one_is_used(tmp_path, cut, capsys):
    cut(30, epochs=3)
    damage(Unfinished(tmp_path / "cut").state(0))
    assert_same(train(tmp_path / "cut", epochs=3), train(tmp_path / "whole", epochs=3))
    assert "using the previous state" in capsys.readouterr().err


@pytest.fixture
def full_disk():
    """Writing more than 500,000 bytes to a file fails, as on a full disk."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_damages_neither_states_nor_models(full_disk, tmp_path):
    small, large = np.ones(10, np.float32), np.ones(300_000, np.float32)
    seen = pl.DataFrame({"object_id": np.arange(9)})
    described = describe(
        training_config("dcv14"), {}, catalogue={"source": "", "rows": 0}, members=1, metrics={}, normalisation={}
    )

    def state(values):
        AtomicCheckpoints().save_checkpoint({"w": torch.from_numpy(values)}, tmp_path / "member-0.ckpt")

    def model(values):
        save_classifier(Classifier(described, [{"w": values}], seen), tmp_path / "model")

    state(small)
    model(small)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for write in (state, model):
        with pytest.raises(CheckpointError, match="space"):
            write(large)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_no_code_is_run_from_a_state(tmp_path):
    torch.save({"step": Executed(tmp_path / "executed")}, tmp_path / "member-0.ckpt")
    with pytest.raises(CheckpointError):
        Unfinished(tmp_path).readable_state(0)
    assert not (tmp_path / "executed").exists()


def test_a_run_with_other_settings_does_not_resume(tmp_path):
    def begin(epochs, theta):
        transition = {"family": "rayleigh", "parameters": [theta]}
        with Unfinished(tmp_path).alone({"epochs": epochs, "transition": transition}):
            pass

    begin(3, 11.25)  # refused before there was a state to resume from
    begin(2, 11.25)
    Unfinished(tmp_path).state(0).touch()
    begin(2, 11.250000001)  # a fit on another machine
    for changed, says in (((3, 11.25), "epochs was 2, is 3"), ((2, 11.26), "transition was")):
        with pytest.raises(InputError, match=says):
            begin(*changed)


FAST = {**TINY, "folds": 1, "epochs": 6}


def started(catalogue, out, settings, **environment):
    """Start a command of its own, with as many threads as here."""
    given = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "truemorph.cli", "train", str(catalogue), "--out", str(out), *given],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_terminated_command_resumes(catalogue, tmp_path, capsys):
    """Ctrl-C is tested with the other commands, SIGTERM here."""
    process, said = started(catalogue, tmp_path / "cut", FAST), ""
    while said.count("held out") < 2 and process.poll() is None:
        said += process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    said += process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert {one.name for one in (tmp_path / "cut").iterdir()} == {"unfinished"}
    whole, cut = (train_classifier(catalogue, out=tmp_path / name, settings=FAST).model for name in ("whole", "cut"))
    assert "resuming after epoch" in capsys.readouterr().err
    assert_same(cut, whole)
    assert not (tmp_path / "cut" / "unfinished").exists()


@pytest.mark.slow
def test_training_that_is_killed_while_it_saves_resumes_by_the_same_command(catalogue, tmp_path, monkeypatch):
    """Files of the model replace the state of training one by one."""
    settings, out, rename = FAST | {"epochs": 1}, tmp_path / "cut", Path.rename
    for name in ("config.json", "unfinished"):

        def cut(path, target, name=name):
            if path.name == name and out in (path.parent, Path(target).parent):
                pytest.fail("cut")
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", cut)
            with pytest.raises(pytest.fail.Exception):
                train_classifier(catalogue, out=out, settings=settings)
        assert (out / "unfinished").exists()
        assert (out / "config.json").exists() == (name == "unfinished")
    train_classifier(catalogue, out=out, settings=settings)
    assert not (out / "unfinished").exists()
    load(out)
    with pytest.raises(InputError, match="overwrite"):
        train_classifier(catalogue, out=out, settings=settings)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


@pytest.mark.slow
def test_two_processes_or_nodes_give_the_same_result_as_one(catalogue, tmp_path):
    table = read_table(catalogue)
    few = write_table(CatalogTable(table.frame[:150], table.units, table.metadata), tmp_path / "few.parquet")
    # Layer norms, because batch norms depend on the galaxies of one process.
    settings = {
        **FAST, "backbone": "test_vit", "epochs": 2, "dropout": 0.0, "shift": 0.05, "rotation": "any", "folds": 2,
        "accumulate": 2, "batch_size": 16,
    }  # fmt: skip
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    # Two nodes with one device each, started as by `srun`.
    slurm = {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2", "SLURM_NODELIST": "localhost", "SLURM_LOCALID": "0", "MASTER_PORT": port,
    }  # fmt: skip
    processes = [
        started(few, tmp_path / "nodes", settings | {"nodes": 2}, **slurm, SLURM_PROCID=rank, SLURM_NODEID=rank)
        for rank in "01"
    ]
    processes.append(started(few, tmp_path / "two", settings | {"devices": 2}))
    train_classifier(few, out=tmp_path / "one", settings=settings)
    said = [process.communicate()[0] for process in processes]
    assert "Next:" in said[0]
    assert said[1] == ""
    names = ("one", "two", "nodes")
    histories = [pl.read_csv(tmp_path / name / "history.csv").drop("seconds").to_numpy() for name in names]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in names]
    for history, several in zip(histories[1:], weights[1:], strict=True):
        np.testing.assert_allclose(history, histories[0], atol=1e-5)
        for name, value in weights[0].items():
            np.testing.assert_allclose(several[name], value, atol=1e-3, err_msg=name)
