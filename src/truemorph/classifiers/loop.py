"""One sitting of training: what Lightning is told, what is said of each epoch, and when it stops."""

from __future__ import annotations

import copy
import logging
import signal
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from timm.layers import convert_sync_batchnorm
from tqdm import tqdm

from truemorph.bias.transitions import Transition
from truemorph.classifiers.hardware import settled_precision
from truemorph.classifiers.heldout import Measured, fit_temperature
from truemorph.classifiers.module import DebiasedModule
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.classifiers.resuming import AtomicCheckpoints, KeepState, Unfinished, is_first_process
from truemorph.classifiers.rows import TrainingRows
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, TruemorphError, reason

_STATE_MINUTES = 10.0


class Story(lightning.Callback):
    """Remembers the weights of the best held-out likelihood, stops when it gets no better, tells of each epoch."""

    def __init__(self, name: str, patience: int, earlier: list[dict[str, float]], file: Path | None) -> None:
        self.name, self.patience, self.earlier, self.file = name, patience, earlier, file
        self.best, self.waited = float("inf"), 0
        self.weights: dict[str, torch.Tensor] = {}
        self.logits = torch.empty(0)
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0  # of earlier sittings
        self._began = time.perf_counter()
        self._bar: Any = None

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on must know."""
        return {
            "best": self.best, "waited": self.waited, "weights": self.weights, "logits": self.logits,
            "history": self.history, "seconds": self.seconds + time.perf_counter() - self._began,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        for name, value in state_dict.items():
            setattr(self, name, value)
        self._began = time.perf_counter()

    @property
    def done(self) -> bool:
        """Whether the likelihood has not become better for long enough."""
        return self.waited >= self.patience

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the progress bar."""
        if self._bar is None:  # an epoch begins, or goes on
            title = f"{self.name} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            quiet = None if trainer.is_global_zero else True
            self._bar = tqdm(total=trainer.num_training_batches, desc=title, unit="step", leave=False, disable=quiet)
        self._bar.update(batch_idx + 1 - self._bar.n)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Keep the weights if they are the best so far, and tell."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        said = pl_module.said
        held_out = said["held_out_loss"]
        better = held_out < self.best
        if better:
            self.best, self.waited = held_out, 0
            self.weights = copy.deepcopy(pl_module.averaged.module.state_dict())
            self.logits = pl_module.held_out_logits.clone()
        else:
            self.waited += 1
        trainer.should_stop = trainer.should_stop or self.done
        seconds = self.seconds + time.perf_counter() - self._began
        self.history.append({"epoch": trainer.current_epoch, **said, "seconds": seconds})
        if not trainer.is_global_zero:
            return
        if self.file is not None:
            pl.DataFrame(self.earlier + self.history, infer_schema_length=None).write_csv(self.file)
        fractions = [value for name, value in said.items() if name.startswith("fraction_")][:5]
        bias = next((f"  {name.split('_')[0].upper()} {x:.3f}" for name, x in said.items() if "_excess" in name), "")
        print(
            f"{self.name} epoch {trainer.current_epoch + 1:3d}/{trainer.max_epochs}  loss {said['train_loss']:.4f}  "
            f"held out {held_out:.4f}{' *' if better else '  '}  fractions {' '.join(f'{x:.2f}' for x in fractions)}"
            f"{bias}  {seconds:.0f} s",
            file=sys.stderr,
        )


TERMINATED = 128 + signal.SIGTERM
# Processes that Lightning started beside this one, for all members of a model together.
_LAUNCHED: list[Any] = []


class Endings(lightning.Callback):
    """Ends training at once on SIGTERM, with exit status 143: what was kept is whole, and the run goes on from it.

    Lightning's own handler broadcasts to the other processes, wherever in their own exchange they are, and all wait
    for one another for ever.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Take the signal over, and remember whom Lightning started."""
        _LAUNCHED.extend(getattr(trainer.strategy.launcher, "procs", []))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._terminated)

    @staticmethod
    def _terminated(number: int, frame: Any) -> None:
        raise SystemExit(TERMINATED)

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """End the other processes too, which would wait for this one."""
        for process in _LAUNCHED:
            process.kill()


def loggers_for(config: TrainingConfig, folder: Path, name: str) -> list[Any]:
    """Loggers that were asked for.

    Raises
    ------
    InputError
        If one is not installed.
    """
    from lightning.pytorch import loggers

    made: list[Any] = []
    for one in config.loggers:
        try:
            if one == "tensorboard":
                made.append(loggers.TensorBoardLogger(folder, name=name))
            elif one == "wandb":
                made.append(loggers.WandbLogger(project="truemorph", name=name, save_dir=folder))
            else:
                made.append(loggers.MLFlowLogger("truemorph", run_name=name, save_dir=str(folder / "mlruns")))
        except ModuleNotFoundError as problem:
            raise InputError(f"logger {one} is not installed: pip install {problem.name or one}") from problem
    return made


def _devices(config: TrainingConfig) -> int:
    """How many devices of this machine are used; -1 for all."""
    return (
        config.devices
        if config.devices != "auto"
        else (-1 if torch.cuda.is_available() and config.device != "cpu" else 1)
    )


def _several(config: TrainingConfig) -> bool:
    devices = _devices(config)
    return config.nodes > 1 or (torch.cuda.device_count() > 1 if devices == -1 else devices > 1)


def across_devices(network: GalaxyNetwork, config: TrainingConfig) -> GalaxyNetwork:
    """The network, with batch norms over all devices where there are several that torch has such norms for."""
    if not (torch.cuda.is_available() and _several(config)):
        return network
    # timm's own conversion: torch's drops the activations that many backbones keep in their norms.
    converted: Any = convert_sync_batchnorm(network)
    return converted


def trainer_for(
    config: TrainingConfig, callbacks: list[lightning.Callback], folder: Path, loggers: list[Any]
) -> lightning.Trainer:
    """Lightning's trainer: one process, or one for each device."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    plugins: list[Any] = [AtomicCheckpoints()]
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Lightning's own requeueing would load the state of one member into another.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    try:
        return lightning.Trainer(
            max_epochs=config.epochs,
            accelerator=config.device,
            devices=_devices(config),
            num_nodes=config.nodes,
            strategy="ddp" if _several(config) else "auto",
            use_distributed_sampler=False,
            precision=settled_precision(config.precision),
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.clip,
            callbacks=callbacks,
            plugins=plugins,
            default_root_dir=folder,
            logger=loggers,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except MisconfigurationException as problem:
        raise InputError(
            f"training can't run on device = {config.device}, devices = {config.devices} and nodes = {config.nodes}: "
            f"{reason(problem)}"
        ) from problem


def train_network(
    rows: TrainingRows,
    train: np.ndarray,
    validation: np.ndarray,
    transition: Transition | Mapping[str, Transition],
    config: TrainingConfig,
    member: int,
    name: str,
    unfinished: Unfinished,
    earlier: list[dict[str, float]],
    start: str | None,
) -> dict[str, Any]:
    """One network from its first or last state to its end: `weights`, `history`, `best` and the like.

    `start` is where the weights of the members before it came from.
    """
    seed = config.seed + member
    state = unfinished.readable_state(member)
    lightning.seed_everything(seed, verbose=False)
    # Weights of a state replace published ones, which may be out of reach now.
    built = None if state is None else state[1]["built"]
    network = GalaxyNetwork(config, len(rows.classes), config.pretrained and state is None, built)
    if state is None and start not in (None, network.start):
        raise TruemorphError(
            f"{name}: the networks before it started from {start} weights, this one would from {network.start} ones; "
            "connect to the network and run the same command again: it goes on from here"
        )
    if start is None and config.pretrained and network.start == "random" and is_first_process():
        print(f"{name}: no published weights can be fetched; starting from random ones", file=sys.stderr)
    held_out = rows.observed(transition, validation)
    alpha = rows.column("alpha") if rows.resolution is None else rows.resolution
    intrinsic = None if rows.intrinsic is None else rows.intrinsic[validation]
    measured = Measured(alpha[validation], rows.weights[validation], rows.classes, intrinsic)
    module = DebiasedModule(
        across_devices(network, config),
        config,
        rows.inputs,
        (train, rows.observed(transition, train)),
        (validation, held_out),
        measured,
        seed,
    )
    story = Story(name, config.patience, earlier, unfinished.folder / "history.csv")
    if state is not None:
        story.load_state_dict(state[1]["callbacks"][story.state_key])
        if is_first_process():
            print(f"{name}: going on after epoch {len(story.history)}", file=sys.stderr)
    if not story.done:
        callbacks = [story, KeepState(unfinished.state(member), _STATE_MINUTES), Endings()]
        trainer = trainer_for(
            config, callbacks, unfinished.folder, loggers_for(config, unfinished.folder / "logs", name)
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
            try:
                trainer.fit(module, ckpt_path=None if state is None else str(state[0]), weights_only=True)
            except SystemExit as ending:
                if ending.code == TERMINATED:
                    if is_first_process():
                        print(f"{name}: terminated; the same command goes on from the last state", file=sys.stderr)
                elif trainer.interrupted:  # Lightning turns Ctrl-C into exit status 1
                    raise KeyboardInterrupt from None
                raise
    if not story.weights:
        if is_first_process():
            unfinished.drop()
        raise TruemorphError(
            f"training diverged: no epoch had a finite held-out loss; lower learning_rate (now {config.learning_rate})"
        )
    temperature = 1.0
    if config.calibrate:
        temperature = fit_temperature(story.logits, held_out["evidence"], held_out["weights"], held_out.get("shares"))
    return {
        "weights": {key: value.cpu().numpy() for key, value in story.weights.items()},
        "history": story.history,
        "best": story.best,
        "temperature": temperature,
        "mean": module.mean.tolist(),
        "std": module.std.tolist(),
        "start": module.start,
        "built": network.built,
    }
