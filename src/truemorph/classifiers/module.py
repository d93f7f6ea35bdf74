"""Train one network with Lightning, and measure it on held-out galaxies after each epoch.

The measures need no true class: the likelihood uses T(α), and bias is a drift of predictions with α.
"""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

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
from torchmetrics import CatMetric, MeanMetric

from truemorph.bias.binning import Bins, choose_bins
from truemorph.bias.likelihood import log_marginal
from truemorph.bias.metrics.label_bias import cv14
from truemorph.classifiers.callbacks import TERMINATED, AtomicCheckpoints, Endings, Story, Unfinished, announce
from truemorph.classifiers.network import GalaxyNetwork, class_probabilities, settled_precision
from truemorph.classifiers.rows import TrainingRows
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, TruemorphError, reason
from truemorph.images.dataset import Batch, GalaxyBatches, mixed_seed
from truemorph.images.transforms import warp
from truemorph.questions import columns_of

_AVERAGE_DECAY = 0.99  # of the running average of the weights, per step
_PARTS = 5  # of α, for class fractions
_TEMPERATURES = (0.2, 5.0)


def learning_rate(step: int, steps: int, warm_up: float) -> float:
    """Fraction of the peak learning rate: linear warm-up, then half a cosine to zero."""
    warm = max(1, round(warm_up * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def measures(
    logits: torch.Tensor, losses: torch.Tensor, rows: TrainingRows, validation: np.ndarray
) -> dict[str, float]:
    """Likelihood, class fractions and bias of predictions for held-out galaxies; `losses` are weighted.

    `held_out_loss` (minus the mean log-likelihood), `fraction_CLASS_<q>` of each answer, or of each class but the first
    (its fraction in quintile q of α, 1 being the least resolved, among galaxies to which the question applies), and
    `cv14_excess` of the probabilities; of several questions with their names.
    """
    alpha, weights = rows.column("alpha")[validation], rows.weights[validation]
    scores = {"held_out_loss": float(losses.sum() / weights.sum())}
    probabilities = class_probabilities(logits.double(), 1.0, rows.heads).numpy()
    if not np.isfinite(probabilities).all():
        return scores
    bins_of_alpha = Bins.cut(alpha, _PARTS, weights)
    for head in rows.heads:
        p = probabilities[:, head.part]
        applies = 1.0 if head.question is None else bins_of_alpha.averages(p[:, head.numbers].sum(axis=1))[0]
        for name, k in zip(columns_of("fraction", head.answers), head.numbers, strict=True):
            fractions = bins_of_alpha.averages(p[:, k])[0] / applies
            scores |= {f"{name}_{number}": float(fraction) for number, fraction in enumerate(fractions, 1)}
        excess = head.name("cv14_excess") if len(rows.heads) > 1 else "cv14_excess"
        with suppress(InputError):  # too few galaxies for bins
            _, bins = choose_bins(len(probabilities), with_intrinsic=False)
            scores[excess] = cv14(p, alpha, bins, bootstrap=0).excess
    return scores


def fit_temperature(
    loss: Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor],
    logits: torch.Tensor,
    observed: dict[str, torch.Tensor],
) -> float:
    """Temperature of the logits (0.2 to 5) that maximises the held-out likelihood (Guo et al. 2017).

    Above 1 if the network was overconfident. This calibrates the probabilities of the true class, because the
    likelihood uses T(α). `observed` has `weights`, and the evidence or votes that `loss` takes.
    """
    logits, weights = logits.double(), observed["weights"]

    def cost(log_temperature: float) -> float:
        losses = loss(logits * np.exp(-log_temperature), observed)
        return float((losses * weights).sum() / weights.sum())

    minimum = minimize_scalar(cost, bounds=tuple(np.log(_TEMPERATURES)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(minimum.x)) if np.isfinite(minimum.fun) else 1.0


def evidence_loss(logits: torch.Tensor, evidence: torch.Tensor, parts: Sequence[slice]) -> torch.Tensor:
    """Return -log Σ_y p(observed | y) p(y | x) of each galaxy, summed over questions, each with a part of the columns.

    `evidence` is log p(observed | y), like the logits of shape (N, K).
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    every = [log_marginal(torch.log_softmax(logits[:, part], 1), evidence[:, part])[0] for part in parts]
    return -sum(every[1:], every[0])


class DebiasedModule(lightning.LightningModule):
    """Train a network on the observations of each galaxy.

    `train` and `validation` are indices of `rows`; without validation, nothing is measured. Order, augmentation and
    dropout depend only on the seed and the step, so that a resumed run gives the same result as an uninterrupted one.
    """

    def __init__(
        self,
        network: GalaxyNetwork,
        config: TrainingConfig,
        rows: TrainingRows,
        train: np.ndarray,
        validation: np.ndarray,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        # With averaging, held-out likelihood, early stopping and the final model all use the running average of the
        # weights, because the last step's weights and batch statistics jump from epoch to epoch.
        self.averaged = AveragedModel(network, use_buffers=True).requires_grad_(False) if config.averaging else None
        self.config, self.seed = config, seed
        self._rows, self._train, self._validation = rows, train, validation
        self._observed, self.held_out = rows.observed(train), rows.observed(validation)
        self._gathered = CatMetric(nan_strategy="disable")  # place, loss and logits of each galaxy, from all processes
        self._train_loss = MeanMetric(nan_strategy="disable")  # over parts of steps, and processes
        # In a tuple, so that its weights are not counted twice.
        self._forward = (torch.compile(network) if config.compile else network,)

    @property
    def judged(self) -> torch.nn.Module:
        """The network that is measured and kept: the running average, or the last step's without averaging."""
        return self.network if self.averaged is None else self.averaged.module

    def train_dataloader(self) -> GalaxyBatches:
        """Training batches, shuffled and augmented."""
        config = self.config
        return GalaxyBatches(
            self._rows.inputs,
            self._train,
            self._observed,
            config.batch_size,
            seed=self.seed,
            augmentation=config,
            parts=config.accumulate,
            process=(self.trainer.global_rank, self.trainer.world_size),
        )

    def val_dataloader(self) -> GalaxyBatches:
        """Validation batches, in order and not augmented."""
        columns = {**self.held_out, "place": torch.arange(self._validation.size)}
        process = (self.trainer.global_rank, self.trainer.world_size)
        return GalaxyBatches(self._rows.inputs, self._validation, columns, 4 * self.config.batch_size, process=process)

    def loss(self, logits: torch.Tensor, observed: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return minus the log-likelihood of each galaxy's votes or evidence; of several questions, the sum."""
        if "votes" in observed:
            return -(observed["votes"] * torch.log_softmax(logits.float(), 1)).sum(1)
        return evidence_loss(logits, observed["evidence"], [head.part for head in self._rows.heads])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout with the step number."""
        number = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        torch.manual_seed(mixed_seed(self.seed, number, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return this process's part of the mean loss."""
        logits = self._forward[0](warp(self.network.normalised(batch["pixels"]), batch["maps"]))
        mine = (self.loss(logits, batch) * batch["step_weights"]).sum()
        # Lightning takes the mean over processes and divides by the parts of a step.
        loss = mine * (self.trainer.world_size * self.config.accumulate)
        self._train_loss.update(loss.detach())
        return loss

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
        logits = self.judged(self.network.normalised(batch["pixels"])).float()
        losses = self.loss(logits, batch) * batch["weights"]
        self._gathered.update(torch.column_stack([batch["place"], losses, logits]))

    def on_validation_epoch_end(self) -> None:
        """Measure the held-out likelihood and the bias of predictions."""
        rows = self._gathered.compute().cpu()
        self._gathered.reset()
        rows = rows[torch.argsort(rows[:, 0])]
        self.held_out_logits = rows[:, 2:].contiguous()
        held_out = measures(self.held_out_logits, rows[:, 1].contiguous(), self._rows, self._validation)
        self.measured = {"train_loss": float(self._train_loss.compute()), **held_out}
        self._train_loss.reset()
        self.log_dict(self.measured)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store how to make the network again."""
        checkpoint |= {"built": self.network.built, "normalisation": self.network.normalisation}

    def configure_optimizers(self) -> Any:
        """AdamW with a constant learning rate, or with warm-up and cosine decay."""
        config, network = self.config, self.network
        if config.finetune == "layers":
            groups = param_groups_layer_decay(network.backbone, config.weight_decay, layer_decay=config.layer_decay)
            for group in groups:
                group["lr"] = config.learning_rate * group.pop("lr_scale")
            parameters: Any = [*groups, {"params": list(network.head.parameters())}]
        else:
            parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        # Fused saves a tenth of a ResNet50's step at 64 pixels, but Lightning can't clip its gradients.
        optimizer = torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=config.clip is None
        )
        if config.schedule == "constant":
            return optimizer
        # Lightning's own estimate would set up the loaders before the saved state is read.
        steps = config.epochs * len(self.train_dataloader()) // config.accumulate
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps, config.warm_up))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loggers_for(config: TrainingConfig, folder: Path, name: str) -> list[Any]:
    """Make the loggers of the configuration."""
    made_by_name: dict[str, Callable[[], Any]] = {
        "tensorboard": lambda: loggers.TensorBoardLogger(folder, name=name),
        "wandb": lambda: loggers.WandbLogger(project="truemorph", name=name, save_dir=folder),
        "mlflow": lambda: loggers.MLFlowLogger("truemorph", run_name=name, save_dir=str(folder / "mlruns")),
    }
    try:
        return [made_by_name[logger]() for logger in config.loggers]
    except ModuleNotFoundError as problem:
        raise InputError(f"a logger is not installed: pip install {problem.name}") from problem


def several_devices(config: TrainingConfig) -> bool:
    """Whether training uses several devices or machines."""
    gpus = 0 if config.device == "cpu" else torch.cuda.device_count()
    return config.nodes > 1 or (gpus if config.devices == "auto" else config.devices) > 1


def across_devices(network: GalaxyNetwork, config: TrainingConfig) -> Any:
    """Synchronise batch norms between devices, if there are several GPUs."""
    # torch's conversion would drop the activations that many backbones have in their norms; timm's does not.
    return convert_sync_batchnorm(network) if torch.cuda.is_available() and several_devices(config) else network


def fit_module(
    module: DebiasedModule, callbacks: list[Any], folder: Path, name: str, checkpoint: Path | None = None
) -> None:
    """Train a module, from a checkpoint if there is one, with one process per device."""
    trainer = _trainer(module.config, [*callbacks, Endings()], folder, name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
        try:
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as ending:
            if ending.code != TERMINATED and trainer.interrupted:  # Lightning turns Ctrl-C into exit status 1
                raise KeyboardInterrupt from None
            raise


def _trainer(config: TrainingConfig, callbacks: list[Any], folder: Path, name: str) -> lightning.Trainer:
    """Make Lightning's trainer."""
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
            devices=config.devices,
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
    config: TrainingConfig,
    member: int,
    name: str,
    unfinished: Unfinished,
) -> dict[str, Any]:
    """Train or resume one network: `weights`, `history`, `best`, `temperature`, `normalisation`, `built`."""
    seed = config.seed + member
    path, state = unfinished.readable_state(member)
    if "finished" in state:
        return state["finished"]
    lightning.seed_everything(seed, verbose=False)
    story = Story(name, config.patience, unfinished.state(member))
    if path is not None:
        story.load_state_dict(state["callbacks"][story.state_key])
        announce(f"{name}: resuming after epoch {len(story.history)}")
    # When resuming, no published weights are downloaded; the hub may be unreachable.
    network = across_devices(GalaxyNetwork(config, len(rows.classes), config.pretrained, state), config)
    module = DebiasedModule(network, config, rows, train, validation, seed)
    if not story.done:
        fit_module(module, [story], unfinished.folder, name, path)
    if not story.weights:
        unfinished.drop()
        raise TruemorphError(
            f"training diverged: no epoch had a finite held-out loss; lower learning_rate (now {config.learning_rate})"
        )
    result = {
        "weights": {key: value.cpu() for key, value in story.weights.items()},
        "history": story.history,
        "best": story.best,
        "temperature": fit_temperature(module.loss, story.logits, module.held_out) if config.calibrate else 1.0,
        "normalisation": network.normalisation,
        "built": network.built,
    }
    unfinished.finish(member, result)
    return result
