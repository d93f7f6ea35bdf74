"""Training that was cut off goes on: what is kept while a model is trained, and how it is read back.

An unfinished run is a folder `unfinished/` inside of the run's: `run.json` says which run it is, `member-K.ckpt` where
its K-th network stands (Lightning's checkpoint; `member-K.previous.ckpt` the one before), `member-K.safetensors` are
networks that are done. Every file appears whole or not at all. Checkpoints are read by torch's restricted unpickler
(weights_only), which runs no code.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from truemorph.errors import CheckpointError, InputError, reason
from truemorph.io import plain, read_json, write_json, written_whole

_LOOK_EVERY = 50  # steps between looks at the clock


def is_first_process() -> bool:
    """Whether this is the process that writes, of those that train together."""
    return getattr(rank_zero_only, "rank", None) in (None, 0)


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the last one and then puts it in its place; the last one stays as "previous"."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write; a full disk leaves the last good one as it was.

        Raises
        ------
        CheckpointError
            If it can't be written.
        """
        path = Path(path)
        try:
            with written_whole(path, durable=True) as partial:
                with open(partial, "wb") as file:  # whose errors say more than those of torch's own writer
                    torch.save(checkpoint, file)
                if path.is_file():
                    os.replace(path, _previous(path))
        except (OSError, RuntimeError) as problem:  # torch's writer makes the second of the first
            raise CheckpointError(
                f"{path}: the state of training can't be written ({reason(problem)}); make room and run the same "
                "command again: it goes on from the last good one"
            ) from problem

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint on the CPU, tensors and plain values only."""
        return torch.load(path, map_location="cpu", weights_only=True)


def _alike(one: Any, other: Any) -> bool:
    """Whether two settings are the same; numbers that were fitted may differ in the last digits between machines."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)


def _previous(path: Path) -> Path:
    return path.with_name(path.name.replace(".ckpt", ".previous.ckpt"))


class KeepState(lightning.Callback):
    """Writes the state of training after every epoch, and within epochs that are long.

    Parameters
    ----------
    path : Path
    minutes : float
        Longest time between states.
    """

    def __init__(self, path: Path, minutes: float) -> None:
        self.path, self.minutes = path, minutes
        self._last = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """After each epoch."""
        self._save(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Now and then."""
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        last = batch_idx + 1 >= int(trainer.num_training_batches)
        if not whole or last or trainer.global_step % _LOOK_EVERY:
            return
        due = time.monotonic() - self._last > 60 * self.minutes
        if trainer.strategy.broadcast(due):
            self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._last = time.monotonic()


@dataclass
class Unfinished:
    """The folder of a run that is not done.

    Parameters
    ----------
    folder : Path
    """

    folder: Path

    def begin(self, identity: dict[str, Any]) -> None:
        """Make the folder, or go on with what is there.

        Parameters
        ----------
        identity : dict
            What the result follows from.

        Raises
        ------
        InputError
            If another run was begun there.
        CheckpointError
            If the folder can't be written.
        """
        file = self.folder / "run.json"
        now = plain(identity)
        try:
            if file.is_file():
                then = read_json(file)
                changed = [key for key in sorted({*then, *now}) if not _alike(then.get(key), now.get(key))]
                if changed:
                    told = ", ".join(f"{key} was {then.get(key)!r}, is {now.get(key)!r}" for key in changed[:3])
                    raise InputError(
                        f"{self.folder}: an unfinished run with other settings ({told}); run it with its own, delete "
                        "that folder, or choose another `out`"
                    )
                return
            write_json(file, now)
        except (OSError, ValueError) as problem:
            if isinstance(problem, InputError):
                raise
            raise CheckpointError(
                f"{self.folder}: can't keep the state of training there ({reason(problem)})"
            ) from problem

    def drop(self) -> None:
        """Leave nothing of it: there is nothing to go on from."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def state(self, member: int) -> Path:
        """Where the state of a member lies, or will."""
        return self.folder / f"member-{member}.ckpt"

    def readable_state(self, member: int) -> tuple[Path, dict[str, Any]] | None:
        """Read the newest state of a member that can be read, and where it lies; None where training is to begin.

        Raises
        ------
        CheckpointError
            If there are states and none can be read.
        """
        path = self.state(member)
        problems = []
        for one in (path, _previous(path)):
            if not one.is_file():
                continue
            try:
                return one, AtomicCheckpoints().load_checkpoint(one)
            except Exception as problem:  # torch raises many types for broken files
                problems.append(f"{one.name}: {reason(problem)}")
                print(f"{one}: can't be read; taking the state before it", file=sys.stderr)
        if problems:
            raise CheckpointError(
                f"{self.folder}: no state of training can be read ({problems[0]}); delete {path.name} and its "
                '"previous" to train this member anew'
            )
        return None

    def finished(self, member: int) -> dict[str, Any] | None:
        """Weights and story of a member that is done."""
        path = self.folder / f"member-{member}.safetensors"
        if not path.is_file():
            return None
        try:
            story = read_json(path.with_suffix(".json"))
            return {"weights": load_file(path), **story}
        except Exception as problem:
            raise CheckpointError(
                f"{path}: can't be read ({problem}); delete it to train this member anew"
            ) from problem

    def finish(self, member: int, weights: dict[str, Any], story: dict[str, Any]) -> None:
        """Keep a member that is done, and drop its states."""
        path = self.folder / f"member-{member}.safetensors"
        try:
            # Both must be on the disk before the states are gone; the weights come last and say that all is there.
            told = path.with_suffix(".json")
            with written_whole(path, durable=True) as partial, written_whole(told, durable=True) as partly_told:
                partly_told.write_text(json.dumps(story), encoding="utf-8")
                save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, partial)
            for one in (self.state(member), _previous(self.state(member))):
                one.unlink(missing_ok=True)
        except (OSError, SafetensorError) as problem:
            raise CheckpointError(
                f"{path}: can't be written ({reason(problem)}); make room and run the same command again"
            ) from problem
