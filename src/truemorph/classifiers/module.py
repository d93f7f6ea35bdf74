"""Train one network with Lightning, and measure it on held-out galaxies after each epoch.

The measures need no true class: the likelihood uses T(α), and bias is a drift of predictions with α.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import loggers
from scipy.optimize import minimize_scalar
from timm.layers import convert_sync_batchnorm
from timm.optim import param_groups_layer_decay
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import CatMetric

from truemorph.bias.binning import choose_bins
from truemorph.bias.metrics import cv14, cv18
from truemorph.bias.transitions import Transition
from truemorph.classifiers.callbacks import (
    TERMINATED,
    AtomicCheckpoints,
    Endings,
    KeepState,
    Story,
    Unfinished,
    is_first_process,
)
from truemorph.classifiers.loss import evidence_losses
from truemorph.classifiers.network import GalaxyNetwork, settled_precision
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, TruemorphError, reason
from truemorph.images.dataset import Batch, GalaxyBatches, Pixels, mixed_seed
from truemorph.images.transforms import Augmentation, normalise, warp

if TYPE_CHECKING:
    from truemorph.classifiers.members import TrainingRows

_AVERAGE_DECAY = 0.99
_PARTS = 5
_TEMPERATURES = (0.2, 5.0)

Observed = tuple[np.ndarray, dict[str, torch.Tensor]]


def learning_rate(step: int, steps: int, warm_up: float) -> float:
    """Fraction of the peak learning rate: linear warm-up, then half a cosine to zero.

    Examples
    --------
    >>> [round(learning_rate(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warm = max(1, round(warm_up * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def measures(
    logits: torch.Tensor,
    losses: torch.Tensor,
    alpha: np.ndarray,
    weights: np.ndarray,
    classes: Sequence[str],
    intrinsic: np.ndarray | None = None,
) -> dict[str, float]:
    """Likelihood, class fractions and bias of predictions for held-out galaxies.

    Parameters
    ----------
    logits : tensor, shape (N, K)
    losses : tensor, shape (N,)
        Weighted losses.
    alpha : array, shape (N,)
    weights : array, shape (N,)
    classes : sequence of str, length K
    intrinsic : array, shape (N, P), optional
        Intrinsic properties for CV18; without them CV14 is measured.

    Returns
    -------
    dict
        `held_out_loss` (minus the mean log-likelihood), `fraction_<class>_<q>` (mean probability in quintile q of
        α, 1 being the least resolved), `cv18_excess` or `cv14_excess` of the probabilities.
    """
    found = {"held_out_loss": float(losses.sum() / weights.sum())}
    probabilities = torch.softmax(logits.double(), dim=1).numpy()
    if not np.isfinite(probabilities).all():
        return found
    order = np.argsort(alpha, kind="stable")
    quintiles = [part for part in np.array_split(order, _PARTS) if part.size]
    for k, name in enumerate(classes[1:], 1):
        for number, part in enumerate(quintiles, 1):
            mean = np.average(probabilities[part, k], weights=weights[part])
            found[f"fraction_{name}_{number}"] = float(mean)
    options: Any = {"bootstrap": 0, "floor": "analytic"}
    try:
        depth, bins = choose_bins(len(probabilities), intrinsic is not None)
        if intrinsic is None:
            found["cv14_excess"] = cv14(probabilities, alpha, bins, **options).excess
        else:
            found["cv18_excess"] = cv18(probabilities, alpha, intrinsic, depth, bins, **options).excess
    except InputError:  # too few galaxies for bins
        pass
    return found


def fit_temperature(
    logits: torch.Tensor, evidence: torch.Tensor, weights: torch.Tensor, votes: torch.Tensor | None = None
) -> float:
    """Temperature of the logits that maximises the held-out likelihood (Guo et al. 2017).

    This calibrates the probabilities of the true class, because the likelihood uses T(α).

    Parameters
    ----------
    logits : tensor, shape (N, K)
    evidence, votes
        As in `evidence_losses`.
    weights : tensor, shape (N,)

    Returns
    -------
    float
        Between 0.2 and 5; above 1 if the network was overconfident.

    Examples
    --------
    >>> logits = torch.tensor([[4.0, 0.0]] * 4)
    >>> known = torch.log(torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]]))
    >>> round(fit_temperature(logits, known, torch.ones(4)), 2)  # correct in three of four cases: 4 / log 3
    3.64
    """
    logits = logits.double()

    def cost(log_temperature: float) -> float:
        losses = evidence_losses(logits * np.exp(-log_temperature), evidence, votes)
        return float((losses * weights).sum() / weights.sum())

    found = minimize_scalar(cost, bounds=tuple(np.log(_TEMPERATURES)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x)) if np.isfinite(found.fun) else 1.0


class DebiasedModule(lightning.LightningModule):
    """Train a network on the observations of each galaxy.

    Parameters
    ----------
    network : GalaxyNetwork
    config : TrainingConfig
    pixels : Pixels
    training, validation : (array of int, dict of tensor)
        Rows of `pixels`, and columns `evidence` and `votes` (see `evidence_losses`) and `weights`.
    measure : callable
        Measures of the validation galaxies after each epoch, from logits and weighted losses.
    seed : int
        Seed of order, augmentation and dropout. They depend only on the seed and the step, so that a resumed run
        gives the same result as an uninterrupted one.
    """

    def __init__(
        self,
        network: GalaxyNetwork,
        config: TrainingConfig,
        pixels: Pixels,
        training: Observed,
        validation: Observed,
        measure: Callable[[torch.Tensor, torch.Tensor], dict[str, float]],
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        # With averaging, held-out likelihood, early stopping and the final model all use the running average of the
        # weights, because the last step's weights and batch statistics jump from epoch to epoch.
        self.averaged = AveragedModel(network, use_buffers=True).requires_grad_(False) if config.averaging else None
        self.config, self.seed, self.start = config, seed, network.start
        self._pixels, self._training, self._validation, self._measure = pixels, training, validation, measure
        self._held_out = CatMetric(nan_strategy="disable")  # place, loss and logits of each galaxy, from all processes
        self._losses, self._parts = torch.zeros(()), 0  # sum over parts of steps, and their number
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(network.mean))
        self.register_buffer("std", torch.tensor(network.std))
        # In a tuple, so that its weights are not counted twice.
        self._forward = (torch.compile(network) if config.compile else network,)

    @property
    def judged(self) -> torch.nn.Module:
        """The network that is measured and kept: the running average, or the last step's without averaging."""
        return self.network if self.averaged is None else self.averaged.module

    def _batches(self, part: Observed, **options: Any) -> GalaxyBatches:
        process = (self.trainer.global_rank, self.trainer.world_size)
        return GalaxyBatches(self._pixels, part[0], part[1], process=process, **options)

    def train_dataloader(self) -> GalaxyBatches:
        """Training batches, shuffled and augmented."""
        one = self.config
        return self._batches(
            self._training,
            batch_size=one.batch_size,
            parts=one.accumulate,
            seed=self.seed,
            augmentation=Augmentation(one.flip, one.rotation, one.shift, one.zoom),
        )

    def val_dataloader(self) -> GalaxyBatches:
        """Validation batches, in order and not augmented."""
        return self._batches(self._validation, batch_size=4 * self.config.batch_size)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout with the step number."""
        number = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        torch.manual_seed(mixed_seed(self.seed, number, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return this process's part of the mean loss."""
        logits = self._forward[0](warp(normalise(batch["pixels"], self.mean, self.std), batch["maps"]))
        mine = (evidence_losses(logits, batch["evidence"], batch.get("votes")) * batch["step_weights"]).sum()
        self._losses = self._losses.to(mine.device) + mine.detach()
        self._parts += 1
        # Lightning takes the mean over processes and divides by the parts of a step.
        return mine * (self.trainer.world_size * self.config.accumulate)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Step, then average the weights over about 100 steps (fewer at the beginning)."""
        super().optimizer_step(*arguments, **options)
        if self.averaged is None:
            return
        keep = min(_AVERAGE_DECAY, (1 + self.global_step) / (10 + self.global_step))
        self.averaged.multi_avg_fn = get_ema_multi_avg_fn(keep)
        self.averaged.update_parameters(self.network)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Store logits of the judged network and losses of these galaxies."""
        logits = self.judged(normalise(batch["pixels"], self.mean, self.std)).float()
        losses = evidence_losses(logits, batch["evidence"], batch.get("votes")) * batch["weights"]
        self._held_out.update(torch.column_stack([batch["place"], losses, logits]))

    def on_validation_epoch_end(self) -> None:
        """Measure the held-out likelihood and the bias of predictions."""
        rows = self._held_out.compute().cpu()
        self._held_out.reset()
        rows = rows[torch.argsort(rows[:, 0])]
        self.held_out_logits = rows[:, 2:].contiguous()
        self.measured = self._measure(self.held_out_logits, rows[:, 1].contiguous())
        if self._parts:
            train_loss = self._epoch_loss() * self.config.accumulate / self._parts
            self.measured = {"train_loss": train_loss, **self.measured}
            self._losses, self._parts = torch.zeros(()), 0
        self.log_dict(self.measured, sync_dist=False, rank_zero_only=False)

    def _epoch_loss(self) -> float:
        """Sum of this epoch's losses so far, over all processes."""
        every: Any = self.all_gather(self._losses) if self.trainer.world_size > 1 else self._losses
        return float(every.sum())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the sums of this epoch and how the network was built."""
        checkpoint["epoch_so_far"] = [self._epoch_loss(), self._parts]
        checkpoint["start"], checkpoint["built"] = self.start, self.network.built

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums; the first process has the total."""
        total, self._parts = checkpoint["epoch_so_far"]
        self.start = checkpoint["start"]
        self._losses = torch.tensor(total if self.global_rank == 0 else 0.0)

    def configure_optimizers(self) -> Any:
        """AdamW with a constant learning rate, or with warm-up and cosine decay."""
        one, network = self.config, self.network
        if one.finetune == "layers":
            groups = param_groups_layer_decay(network.backbone, one.weight_decay, layer_decay=one.layer_decay)
            for group in groups:
                group["lr"] = one.learning_rate * group.pop("lr_scale")
            parameters: Any = [*groups, {"params": list(network.head.parameters())}]
        else:
            parameters = [one for one in network.parameters() if one.requires_grad]
        # Fused saves a tenth of a ResNet50's step at 64 pixels, but Lightning can't clip its gradients.
        optimizer = torch.optim.AdamW(
            parameters, lr=one.learning_rate, weight_decay=one.weight_decay, fused=one.clip is None
        )
        if one.schedule == "constant":
            return optimizer
        # Lightning's own estimate would set up the loaders before the saved state is read.
        steps = one.epochs * len(self.train_dataloader()) // one.accumulate
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps, one.warm_up))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loggers_for(config: TrainingConfig, folder: Path, name: str) -> list[Any]:
    """Make the loggers of the configuration.

    Raises
    ------
    InputError
        If one is not installed.
    """
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
    """Number of devices to use on this machine; -1 for all."""
    if config.devices != "auto":
        return config.devices
    return -1 if torch.cuda.is_available() and config.device != "cpu" else 1


def several_devices(config: TrainingConfig) -> bool:
    """Whether training uses several devices or machines."""
    devices = _devices(config)
    return config.nodes > 1 or (torch.cuda.device_count() if devices == -1 else devices) > 1


def across_devices(network: GalaxyNetwork, config: TrainingConfig) -> GalaxyNetwork:
    """Synchronise batch norms between devices, if there are several GPUs."""
    if not (torch.cuda.is_available() and several_devices(config)):
        return network
    # torch's conversion would drop the activations that many backbones have in their norms; timm's does not.
    converted: Any = convert_sync_batchnorm(network)
    return converted


def _trainer(config: TrainingConfig, callbacks: list[Any], folder: Path, name: str) -> lightning.Trainer:
    """Make Lightning's trainer, with one process per device."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    plugins: list[Any] = [AtomicCheckpoints()]
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Lightning's requeueing would load the state of one member into another.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    try:
        return lightning.Trainer(
            max_epochs=config.epochs,
            accelerator=config.device,
            devices=_devices(config),
            num_nodes=config.nodes,
            strategy="ddp" if several_devices(config) else "auto",
            use_distributed_sampler=False,
            precision=settled_precision(config.precision),
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.clip,
            callbacks=callbacks,
            plugins=plugins,
            default_root_dir=folder,
            logger=loggers_for(config, folder / "logs", name),
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
    """Train or resume one network: `weights`, `history`, `best`, `temperature`, `mean`, `std`, `start`, `built`.

    `earlier` is the history of earlier members; `start` is where their initial weights came from.
    """
    seed = config.seed + member
    state = unfinished.readable_state(member)
    lightning.seed_everything(seed, verbose=False)
    # When resuming, no published weights are downloaded; the hub may be unreachable.
    built = None if state is None else state[1]["built"]
    network = GalaxyNetwork(config, len(rows.classes), config.pretrained and state is None, built)
    if state is None and start not in (None, network.start):
        raise TruemorphError(
            f"{name}: earlier members started from {start} weights, this one would start from {network.start} ones; "
            "connect to the internet and run the same command again to resume"
        )
    if start is None and config.pretrained and network.start == "random" and is_first_process():
        print(f"{name}: published weights can't be downloaded; starting from random weights", file=sys.stderr)
    held_out = rows.observed(transition, validation)
    measure = partial(
        measures,
        alpha=rows.column("alpha")[validation],
        weights=rows.weights[validation],
        classes=rows.classes,
        intrinsic=None if rows.intrinsic is None else rows.intrinsic[validation],
    )
    module = DebiasedModule(
        across_devices(network, config),
        config,
        rows.inputs,
        (train, rows.observed(transition, train)),
        (validation, held_out),
        measure,
        seed,
    )
    story = Story(name, config.patience, earlier, unfinished.folder / "history.csv")
    if state is not None:
        story.load_state_dict(state[1]["callbacks"][story.state_key])
        if is_first_process():
            print(f"{name}: resuming after epoch {len(story.history)}", file=sys.stderr)
    if not story.done:
        callbacks = [story, KeepState(unfinished.state(member)), Endings()]
        trainer = _trainer(config, callbacks, unfinished.folder, name)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
            try:
                trainer.fit(module, ckpt_path=None if state is None else str(state[0]), weights_only=True)
            except SystemExit as ending:
                if ending.code == TERMINATED:
                    if is_first_process():
                        print(f"{name}: terminated; run the same command again to resume", file=sys.stderr)
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
        temperature = fit_temperature(story.logits, held_out["evidence"], held_out["weights"], held_out.get("votes"))
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
