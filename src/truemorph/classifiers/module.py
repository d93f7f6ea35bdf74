"""A network, its likelihood and its schedule, as Lightning wants them; Lightning does the rest."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from timm.optim import param_groups_layer_decay
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from truemorph.classifiers.heldout import HeldOut, Measured
from truemorph.classifiers.loss import EvidenceLoss
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.config import TrainingConfig
from truemorph.images.dataset import Batch, GalaxyBatches, Pixels, mixed_seed
from truemorph.images.transforms import Augmentation, normalise, warp

_AVERAGE_DECAY = 0.99


def learning_rate(step: int, steps: int, warm_up: float) -> float:
    """Share of the peak learning rate: a straight rise, then half a cosine down to zero.

    Examples
    --------
    >>> [round(learning_rate(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warm = max(1, round(warm_up * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class DebiasedModule(lightning.LightningModule):
    """Trains a network on what was observed of each galaxy.

    Parameters
    ----------
    network : GalaxyNetwork
    config : TrainingConfig
    pixels : Pixels
    training, validation : (array of int, dict of tensor)
        Rows of `pixels`, and columns `evidence` (see `EvidenceLoss`), `weights` and, for soft labels, `shares`.
    measured : Measured
        What to say of the validation galaxies after each epoch.
    seed : int
        Of order, augmentation and dropout. All follow from it and the number of the step alone, so that a run that was
        cut off and goes on is the same as one that was not.
    """

    def __init__(
        self,
        network: GalaxyNetwork,
        config: TrainingConfig,
        pixels: Pixels,
        training: tuple[Any, dict[str, torch.Tensor]],
        validation: tuple[Any, dict[str, torch.Tensor]],
        measured: Measured,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        # Held-out likelihood, early stopping and the final model all use the running average of the weights:
        # the last step's weights, and its batch statistics, jump from epoch to epoch.
        self.averaged = AveragedModel(network, use_buffers=True).requires_grad_(False)
        self.config, self.seed, self.start = config, seed, network.start
        self._pixels, self._training, self._validation = pixels, training, validation
        self._measured, self._held_out = measured, HeldOut()
        self._losses, self._parts = torch.zeros(()), 0  # sum over parts of steps, and how many
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(network.mean))
        self.register_buffer("std", torch.tensor(network.std))
        # In a tuple, so that its weights are not counted twice.
        self._forward = (torch.compile(network) if config.compile else network,)

    def _batches(self, part: tuple[Any, dict[str, torch.Tensor]], **options: Any) -> GalaxyBatches:
        share = (self.trainer.global_rank, self.trainer.world_size)
        return GalaxyBatches(self._pixels, part[0], part[1], share=share, **options)

    def train_dataloader(self) -> GalaxyBatches:
        """Shuffled and augmented."""
        one = self.config
        return self._batches(
            self._training,
            batch_size=one.batch_size,
            parts=one.accumulate,
            seed=self.seed,
            augmentation=Augmentation(one.flip, one.rotation, one.shift, one.zoom),
        )

    def val_dataloader(self) -> GalaxyBatches:
        """In order, as they are."""
        return self._batches(self._validation, batch_size=4 * self.config.batch_size)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of the averaged network."""
        return self.averaged(normalise(pixels, self.mean, self.std))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Random numbers of dropout follow from the step."""
        number = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        torch.manual_seed(mixed_seed(self.seed, number, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Mean loss of the step, the part of this process."""
        logits = self._forward[0](warp(normalise(batch["pixels"], self.mean, self.std), batch["maps"]))
        losses = EvidenceLoss("none")(logits, batch["evidence"], None, batch.get("shares"))
        mine = (losses * batch["step_weights"]).sum()
        self._losses = self._losses.to(mine.device) + mine.detach()
        self._parts += 1
        # Lightning takes the mean over processes and divides by the parts of a step.
        return mine * (self.trainer.world_size * self.config.accumulate)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Step, then average the weights over about 100 steps, over fewer at the beginning."""
        super().optimizer_step(*arguments, **options)
        keep = min(_AVERAGE_DECAY, (1 + self.global_step) / (10 + self.global_step))
        self.averaged.multi_avg_fn = get_ema_multi_avg_fn(keep)
        self.averaged.update_parameters(self.network)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep logits and losses of these galaxies."""
        logits = self(batch["pixels"]).float()
        losses = EvidenceLoss("none")(logits, batch["evidence"], None, batch.get("shares"))
        self._held_out.update(batch["place"], logits, losses * batch["weights"])

    def on_validation_epoch_end(self) -> None:
        """Say how likely the held-out labels are, and how biased the predictions."""
        self.held_out_logits, losses = self._held_out.compute()
        self._held_out.reset()
        said = self._measured(self.held_out_logits, losses)
        if self._parts:
            said = {"train_loss": self._epoch_loss() * self.config.accumulate / self._parts, **said}
            self._losses, self._parts = torch.zeros(()), 0
        self.said = said
        self.log_dict(said, sync_dist=False, rank_zero_only=False)

    def _epoch_loss(self) -> float:
        """Sum of this epoch's losses so far, over all processes."""
        every: Any = self.all_gather(self._losses) if self.trainer.world_size > 1 else self._losses
        return float(every.sum())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what this epoch has added up."""
        checkpoint["epoch_so_far"] = [self._epoch_loss(), self._parts]
        checkpoint["start"], checkpoint["built"] = self.start, self.network.built

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up; the first process has the sum of all."""
        total, self._parts = checkpoint["epoch_so_far"]
        self.start = checkpoint["start"]
        self._losses = torch.tensor(total if self.global_rank == 0 else 0.0)

    def configure_optimizers(self) -> Any:
        """AdamW; a rise and a cosine."""
        one, network = self.config, self.network
        if one.finetune == "layers":
            groups = param_groups_layer_decay(network.backbone, one.weight_decay, layer_decay=one.layer_decay)
            for group in groups:
                group["lr"] = one.learning_rate * group.pop("lr_scale")
            parameters: Any = [*groups, {"params": list(network.head.parameters())}]
        else:
            parameters = [one for one in network.parameters() if one.requires_grad]
        # Fused: a tenth of a ResNet50's step at 64 pixels. Lightning can't clip gradients for such an optimiser.
        optimizer = torch.optim.AdamW(
            parameters, lr=one.learning_rate, weight_decay=one.weight_decay, fused=one.clip is None
        )
        # Lightning's own estimate would set up the loaders before the state of an earlier run is read.
        steps = one.epochs * len(self.train_dataloader()) // one.accumulate
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps, one.warm_up))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
