"""Interrupted runs resume and end with the same weights, and the last good state is kept."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file

from conftest import stripes, tiny
from truemorph.bias.transitions import RayleighTransition
from truemorph.classifiers import callbacks
from truemorph.classifiers.callbacks import AtomicCheckpoints, KeepState, Unfinished
from truemorph.classifiers.members import train_members
from truemorph.errors import CheckpointError, InputError

SETTINGS = {
    "image_size": 16,
    "epochs": 2,
    "dropout": 0.3,
    "rotation": "any",
    "shift": 0.05,
    "accumulate": 2,
}


class CutError(Exception):
    """Simulates a kill."""


def train(folder, cut_at=None, monkeypatch=None, rows=None, **changes):
    """Train; with `cut_at`, stop after that many states were written (one per step)."""
    saved = [0]
    write = KeepState._save

    def save(self, trainer):
        write(self, trainer)
        saved[0] += 1
        if saved[0] == cut_at:
            raise CutError

    if cut_at:
        monkeypatch.setattr(KeepState, "_save", save)
    unfinished = Unfinished(folder)
    unfinished.begin({"run": 1})
    try:
        return train_members(
            rows or stripes(300)[0], RayleighTransition(11.25), tiny(**SETTINGS, **changes), unfinished=unfinished
        )
    finally:
        if cut_at:
            monkeypatch.setattr(KeepState, "_save", write)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(callbacks, "_LOOK_EVERY", 1)
    monkeypatch.setattr(callbacks, "_STATE_MINUTES", 0.0)


def assert_same(first, second):
    for one, other in zip(first.members, second.members, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)
    drop = {"seconds"}
    for one, other in zip(first.history, second.history, strict=True):
        assert {k: v for k, v in one.items() if k not in drop} == {k: v for k, v in other.items() if k not in drop}
    assert first.temperatures == second.temperatures


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("cut_at", [1, 6, 12])
def test_a_run_interrupted_after_any_state_ends_with_the_same_weights(tmp_path, monkeypatch, every_step, whole, cut_at):
    # Two epochs of six steps, with a state per step: within an epoch, between epochs, and after the last.
    with pytest.raises(CutError):
        train(tmp_path / "cut", cut_at, monkeypatch)
    assert_same(train(tmp_path / "cut"), whole)


def test_several_interruptions_with_several_members(tmp_path, monkeypatch, every_step):
    whole = train(tmp_path / "whole", folds=2)
    for cut_at in (2, 1, 3, 2, 1):
        with pytest.raises(CutError):
            train(tmp_path / "cut", cut_at, monkeypatch, folds=2)
    assert_same(train(tmp_path / "cut", folds=2), whole)


def test_a_run_that_stopped_early_is_not_trained_further(tmp_path, monkeypatch, every_step):
    monkeypatch.setitem(SETTINGS, "epochs", 12)
    whole = train(tmp_path / "whole", patience=1, learning_rate=3e-2)
    assert len(whole.history) < 12
    states = 6 * len(whole.history)
    with pytest.raises(CutError):
        train(tmp_path / "cut", states, monkeypatch, patience=1, learning_rate=3e-2)
    assert_same(train(tmp_path / "cut", patience=1, learning_rate=3e-2), whole)


@pytest.mark.parametrize("damage", ["cut off", "a flipped bit"])
def test_if_a_state_is_damaged_the_previous_one_is_used(damage, tmp_path, monkeypatch, every_step, whole, capsys):
    with pytest.raises(CutError):
        train(tmp_path / "cut", 4, monkeypatch)
    state = Unfinished(tmp_path / "cut").state(0)
    content = state.read_bytes()
    if damage == "cut off":
        content = content[:1000]
    else:  # of a weight
        middle = len(content) // 2
        content = content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :]
    state.write_bytes(content)
    assert_same(train(tmp_path / "cut"), whole)
    assert "using the previous state" in capsys.readouterr().err


def test_a_finished_member_with_a_flipped_bit_is_refused(tmp_path, monkeypatch, every_step):
    with pytest.raises(CutError):
        train(tmp_path / "cut", 8, monkeypatch, folds=2)
    weights = tmp_path / "cut" / "member-0.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-7] + bytes([content[-7] ^ 1]) + content[-6:])
    with pytest.raises(CheckpointError, match=r"member-0\.safetensors"):
        train(tmp_path / "cut", folds=2)


def test_unreadable_states_raise_an_error(tmp_path, monkeypatch, every_step):
    with pytest.raises(CutError):
        train(tmp_path / "cut", 2, monkeypatch)
    for one in (tmp_path / "cut").glob("*.ckpt"):
        one.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"no state of training can be read .* to train this member again"):
        train(tmp_path / "cut")


def test_a_full_disk_does_not_damage_the_last_state(tmp_path, monkeypatch):
    path = tmp_path / "member-0.ckpt"
    AtomicCheckpoints().save_checkpoint({"step": torch.tensor(1)}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(callbacks.torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        AtomicCheckpoints().save_checkpoint({"step": torch.tensor(2)}, path)
    assert AtomicCheckpoints().load_checkpoint(path) == {"step": torch.tensor(1)}
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


FULL = """
import resource, signal, sys
import numpy as np, polars as pl, torch
from pathlib import Path
from truemorph.classifiers.checkpoint import Classifier, describe, save_classifier
from truemorph.classifiers.callbacks import AtomicCheckpoints, Unfinished
from truemorph.config import training_config
from truemorph.errors import CheckpointError

folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails as on a full disk
weights = {"w": np.ones(300_000, np.float32)}
seen = pl.DataFrame({"object_id": np.random.default_rng(0).integers(0, 2**60, 200_000)})
described = describe(
    training_config("dcv14"), {}, catalogue={"source": "", "rows": 0}, members=1, metrics={}, normalisation={}
)
small = {"w": weights["w"][:10]}
for name, write in (
    ("state", lambda: AtomicCheckpoints().save_checkpoint({"w": torch.ones(300_000)}, folder / "member-0.ckpt")),
    ("member", lambda: Unfinished(folder).finish(0, {"weights": weights, "best": 1.0})),
    ("model", lambda: save_classifier(Classifier(described, [weights], seen), folder / "model")),
    ("seen", lambda: save_classifier(Classifier(described, [small], seen), folder / "model")),
):
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
    try:
        write()
        print(name, "was written")
    except CheckpointError as problem:
        print(name, problem)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
print(*sorted(one.name for one in folder.iterdir()))
"""


@pytest.mark.slow
def test_writers_report_a_full_disk_and_leave_no_partial_files(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *said, left = done.stdout.splitlines()
    assert [one.split()[0] for one in said] == ["state", "member", "model", "seen"]
    for one in said:
        assert "free disk space and run the same command again" in one
    assert "File too large" in said[0]
    assert left == ""


def test_no_code_is_run_from_a_state(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, ("touch " + str(tmp_path / "owned"),))

    torch.save({"step": Evil()}, tmp_path / "member-0.ckpt")
    with pytest.raises(CheckpointError):
        Unfinished(tmp_path).readable_state(0)
    assert not (tmp_path / "owned").exists()


def test_a_run_with_other_settings_does_not_resume(tmp_path):
    Unfinished(tmp_path / "run").begin({"epochs": 2, "seed": 0})
    Unfinished(tmp_path / "run").begin({"epochs": 2, "seed": 0})
    with pytest.raises(InputError, match="epochs was 2, is 3"):
        Unfinished(tmp_path / "run").begin({"epochs": 3, "seed": 0})


def test_small_differences_of_a_fit_between_machines_are_accepted(tmp_path):
    def theta(value):
        return {"transition": {"family": "rayleigh", "parameters": {"theta": value, "table": [[value, 0.0]]}}}

    Unfinished(tmp_path).begin(theta(11.25))
    Unfinished(tmp_path).begin(theta(11.250000001))
    with pytest.raises(InputError, match="transition was"):
        Unfinished(tmp_path).begin(theta(11.26))


def command(catalogue, out, *more):
    settings = ("image_size=32", "crop=1", "epochs=14", "folds=1", "batch_size=32", "hidden=32", "precision=32-true")
    chosen = dict(one.split("=") for one in (*settings, *more))
    given = [part for name, value in chosen.items() for part in (f"--{name.replace('_', '-')}", value)]
    return [sys.executable, "-m", "truemorph.cli", "train", str(catalogue), "--out", str(out), *given]


def killed_later(arguments, how, epochs):
    """Start a command and kill it after it reports this many epochs."""
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    said = ""
    while said.count(" epoch ") < epochs and process.poll() is None:
        said += process.stderr.readline()
    process.send_signal(how)
    said += process.communicate()[1]
    return process.returncode, said


@pytest.mark.slow
def test_killed_commands_resume(catalogue, tmp_path):
    subprocess.run(command(catalogue, tmp_path / "whole"), check=True, capture_output=True)
    out = tmp_path / "cut"
    # Ctrl-C is tested with the other commands, SIGTERM here.
    for number, epochs in enumerate((2,)):
        ended, said = killed_later(command(catalogue, out), signal.SIGKILL, epochs)
        assert ended == -signal.SIGKILL, said
        assert ("resuming after epoch" in said) == (number > 0)
        assert {one.name for one in out.iterdir()} == {"unfinished"}
    done = subprocess.run(command(catalogue, out), check=True, capture_output=True, text=True)
    assert "resuming after epoch" in done.stderr
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    for name, value in whole.items():
        np.testing.assert_array_equal(value, cut[name])
    assert not (out / "unfinished").exists()
    assert json.loads((out / "environment.json").read_text())["command"][1] == "train"


@pytest.mark.slow
def test_two_processes_or_nodes_give_the_same_result_as_one(catalogue, tmp_path):
    # Layer norms, because batch norms depend on the galaxies of one process.
    settings = ("backbone=test_vit", "dropout=0", "epochs=6", "shift=0.05", "rotation=any", "folds=2", "accumulate=2")
    for name, devices in (("one", 1), ("two", 2)):
        run = command(catalogue, tmp_path / name, *settings, f"devices={devices}")
        subprocess.run(run, check=True, capture_output=True)
    # Two nodes with one device each, started as by `srun`.
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    slurm = {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2", "SLURM_NODELIST": "localhost", "SLURM_LOCALID": "0", "MASTER_PORT": port,
    }  # fmt: skip
    nodes = [
        subprocess.Popen(
            command(catalogue, tmp_path / "nodes", *settings, "devices=1", "nodes=2"),
            env={**os.environ, **slurm, "SLURM_PROCID": rank, "SLURM_NODEID": rank}, stdout=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    said = [node.communicate()[0] for node in nodes]
    assert "Next:" in said[0]
    assert said[1] == ""
    names = ("one", "two", "nodes")
    histories = [pl.read_csv(tmp_path / name / "history.csv").drop("seconds").to_numpy() for name in names]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in names]
    for history, several in zip(histories[1:], weights[1:], strict=True):
        np.testing.assert_allclose(history, histories[0], atol=1e-5)
        for name, value in weights[0].items():
            np.testing.assert_allclose(several[name], value, atol=1e-3, err_msg=name)
