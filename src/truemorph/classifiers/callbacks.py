"""Lightning callbacks: progress, early stopping, and checkpoints from which an interrupted run resumes.

An unfinished run is a folder `unfinished/` inside the run's folder: `run.json` identifies the run, `member-K.ckpt` is
the state of its K-th network, then its result, and `member-K.previous.ckpt` the state before it. They are read by
torch's restricted unpickler (weights_only), which runs no code.
"""

import copy
import json
import os
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from truemorph.errors import CheckpointError, InputError, reason
from truemorph.io import changed_values, lock, plain, read_json, write_json, written_whole
from truemorph.progress import progress, tell

TERMINATED = 128 + signal.SIGTERM
# Processes started by Lightning, for all members of a model.
_LAUNCHED: list[Any] = []


def is_first_process() -> bool:
    """Whether this is the process that writes files (rank 0)."""
    return getattr(rank_zero_only, "rank", 0) == 0


announce = rank_zero_only(tell)  # in one of several processes


class Story(lightning.Callback):
    """Keep the weights of the best held-out likelihood, stop if it no longer improves, print and save each epoch."""

    def __init__(self, name: str, patience: int, path: Path) -> None:
        self.name, self.patience, self.path = name, patience, path
        self.best, self.waited = float("inf"), 0
        self.weights: dict[str, torch.Tensor] = {}
        self.logits = torch.empty(0)
        self.history: list[dict[str, float]] = []
        self._began = time.perf_counter()
        self._bar: Any = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state that is needed to resume."""
        return {name: getattr(self, name) for name in ("best", "waited", "weights", "logits", "history")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        vars(self).update(state_dict)
        self._began = time.perf_counter() - self.history[-1]["seconds"]

    @property
    def done(self) -> bool:
        """Whether the likelihood has not improved for `patience` epochs."""
        return self.waited >= self.patience

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the progress bar."""
        if self._bar is None:  # an epoch starts
            title = f"{self.name} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._bar = progress(int(trainer.num_training_batches), title, "steps")
        self._bar.update(1)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Keep the weights if they are the best so far, and print a line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        scores = pl_module.measured
        held_out = scores["held_out_loss"]
        better = held_out < self.best
        if better:
            self.best, self.waited = held_out, 0
            self.weights = copy.deepcopy(pl_module.judged.state_dict())
            self.logits = pl_module.held_out_logits.clone()
        else:
            self.waited += 1
        trainer.should_stop = trainer.should_stop or self.done
        seconds = time.perf_counter() - self._began
        self.history.append({"epoch": trainer.current_epoch, **scores, "seconds": seconds})
        fractions = [value for name, value in scores.items() if name.startswith("fraction_")][:5]
        bias = next(
            (f"  {name[:4].upper()} above floor {x:.3f}" for name, x in scores.items() if "_excess" in name), ""
        )
        announce(
            f"{self.name} epoch {trainer.current_epoch + 1:3d}/{trainer.max_epochs}  loss {scores['train_loss']:.4f}  "
            f"held out {held_out:.4f}{' *' if better else '  '}  fractions {' '.join(f'{x:.2f}' for x in fractions)}"
            f"{bias}  {seconds:.0f} s"
        )

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Save the state of training, after the held-out galaxies were measured."""
        trainer.save_checkpoint(self.path)


class Endings(lightning.Callback):
    """End training at once on SIGTERM, with exit status 143; the run can be resumed from its last state.

    Lightning's own handler broadcasts to the other processes while they exchange gradients, which is a deadlock.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Install the handler, and remember the processes that Lightning started."""
        _LAUNCHED.extend(getattr(trainer.strategy.launcher, "procs", []))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._terminated)

    @staticmethod
    def _terminated(number: int, frame: Any) -> None:
        announce("terminated; run the same command again to resume")
        raise SystemExit(TERMINATED)

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Kill the other processes, which would otherwise wait for this one."""
        for process in _LAUNCHED:
            process.kill()


class AtomicCheckpoints(TorchCheckpointIO):
    """Write checkpoints atomically and keep the one before as "previous"."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; if the disk is full, the last good state is kept."""
        path = Path(path)
        try:
            with written_whole(path, durable=True) as partial:
                with open(partial, "wb") as file:  # its error messages are clearer than those of torch's writer
                    torch.save(checkpoint, file)
                if path.is_file():
                    os.replace(path, _previous(path))
        except (OSError, RuntimeError) as problem:  # torch's writer may turn an OSError into a RuntimeError
            raise CheckpointError(
                f"{path}: can't write the state of training ({reason(problem)}); free disk space and run the same "
                "command again to resume from the last good state"
            ) from problem


def _previous(path: Path) -> Path:
    return path.with_name(path.name.replace(".ckpt", ".previous.ckpt"))


@dataclass(frozen=True)
class Unfinished:
    """The folder of an unfinished run."""

    folder: Path

    @contextmanager
    def alone(self, identity: dict[str, Any]) -> Iterator[None]:
        """Make the folder and hold it alone; if there are states, check that they belong to this run (`identity`)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        held = lock(self.folder / ".lock") if is_first_process() else nullcontext()
        if held is None:
            raise InputError(f"{self.folder.parent}: another process trains here; wait, or choose another `out`")
        with held:
            file = self.folder / "run.json"
            # With six digits, because fitted numbers may differ in their last digits between machines.
            now = json.loads(json.dumps(plain(identity)), parse_float=lambda text: float(f"{float(text):.6g}"))
            if not any(self.folder.glob("*.ckpt")):
                write_json(file, now)
            elif changed := changed_values(read_json(file), now):
                raise InputError(
                    f"{self.folder}: unfinished run with other settings ({changed}); use the same settings, delete "
                    "this folder, or choose another `out`"
                )
            yield

    @rank_zero_only
    def drop(self) -> None:
        """Delete the folder, and the run's folder if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # not empty
            self.folder.parent.rmdir()

    def state(self, member: int) -> Path:
        """Path of the state of a member."""
        return self.folder / f"member-{member}.ckpt"

    def readable_state(self, member: int) -> tuple[Path | None, dict[str, Any]]:
        """Find the newest readable state: path and content; None and nothing if there is no state yet."""
        path = self.state(member)
        problems = []
        for file in (path, _previous(path)):
            if not file.is_file():
                continue
            try:
                with zipfile.ZipFile(file) as archive:  # torch itself does not verify the checksums in its files
                    if damaged := archive.testzip():
                        raise CheckpointError(f"{damaged} is damaged")
                return file, torch.load(file, map_location="cpu", weights_only=True)
            except Exception as problem:  # torch raises many types for broken files
                problems.append(f"{file.name}: {reason(problem)}")
                tell(f"{file}: can't be read; using the previous state")
        if problems:
            raise CheckpointError(
                f"{self.folder}: no state of training can be read ({problems[0]}); delete {path.name} and its "
                '"previous" to train this member again'
            )
        return None, {}

    @rank_zero_only
    def finish(self, member: int, result: dict[str, Any]) -> None:
        """Replace the states of a member by the result of its training: tensors and plain values."""
        path = self.state(member)
        AtomicCheckpoints().save_checkpoint({"finished": result}, path)
        _previous(path).unlink(missing_ok=True)
