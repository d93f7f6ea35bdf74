"""Training through T(α): one Lightning loop for networks, one call for DCV14, folds for both.

A model is one or more members. With one fold the member sees every training galaxy. With F folds member f
sees all but fold f, so that each training galaxy has a member that never saw its label: relabelling is then
out of fold (science: p(y | x) of a network that memorised ỹ would make the posterior count ỹ twice).
"""

from __future__ import annotations

import copy
import logging
import math
import sys
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from truemorph.bias.transitions import CLASS_NAMES, Transition
from truemorph.catalogs.sampling import TRAIN, VALIDATION, assign_folds
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.classifiers.loss import DebiasedLoss, EvidenceLoss
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, TruemorphError
from truemorph.images.dataset import Batch, GalaxyBatches, batches
from truemorph.images.transforms import flip_and_turn, normalise

# Share of steps over which the learning rate rises from near zero.
_WARM_UP = 0.1
_AVERAGE_DECAY = 0.99


@dataclass(frozen=True)
class TrainingRows:
    """The columns a classifier learns from, one row a galaxy, inputs beside.

    Attributes
    ----------
    frame : polars.DataFrame
        `object_id`, `label`, `alpha`, `split` and, where a sample was balanced, `sampling_weight`.
    inputs : array
        Pixels (N, S, S, 3) of uint8 for networks, features (N, P) for logistic regression.
    evidence : array, shape (N, K), optional
        log p(observed | y), where more than a label was observed of each galaxy (votes, say); networks then learn from
        it, and labels only say which galaxies there are of each class.
    """

    frame: pl.DataFrame
    inputs: np.ndarray
    evidence: np.ndarray | None = None

    def column(self, name: str) -> np.ndarray:
        """One column as a numpy array."""
        return self.frame[name].to_numpy()

    @property
    def weights(self) -> np.ndarray:
        """Sampling weights, 1 where there are none."""
        if "sampling_weight" in self.frame.columns:
            return self.column("sampling_weight")
        return np.ones(self.frame.height)


@dataclass
class TrainedMembers:
    """What training returns: member weights, which galaxies each has seen, and its story."""

    members: list[dict[str, np.ndarray]]
    seen: pl.DataFrame  # object_id, role, fold (-1: none)
    transition: Transition
    history: list[dict[str, float]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def _learning_rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a straight rise, then half a cosine down to zero."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class _LightningClassifier(lightning.LightningModule):
    """Holds a network, the debiasing loss and the schedule; Lightning does the rest."""

    def __init__(self, network: GalaxyNetwork, loss: DebiasedLoss, config: TrainingConfig, steps: int) -> None:
        super().__init__()
        self.network = network
        # Held-out likelihood, early stopping and the final model all use the running average of the weights:
        # the last step's weights, and its batch statistics, jump from epoch to epoch.
        self.averaged = AveragedModel(network, use_buffers=True)
        self.loss = loss
        self.config = config
        self.steps = steps
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(network.mean))
        self.register_buffer("std", torch.tensor(network.std))
        self._held_out: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._epoch_losses: list[torch.Tensor] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.averaged(normalise(pixels, self.mean, self.std))

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        images = flip_and_turn(normalise(batch["pixels"], self.mean, self.std))
        logits = self.network(images)
        if "evidence" in batch:
            loss = EvidenceLoss()(logits, batch["evidence"], batch["weights"])
        else:
            loss = self.loss(logits, batch["labels"], batch["alpha"], batch["weights"])
        self._epoch_losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        # Over about 100 steps, over fewer at the beginning.
        keep = min(_AVERAGE_DECAY, (1 + self.global_step) / (10 + self.global_step))
        self.averaged.multi_avg_fn = get_ema_multi_avg_fn(keep)
        self.averaged.update_parameters(self.network)

    def validation_step(self, batch: Batch, _: int) -> None:
        logits = self(batch["pixels"])
        if "evidence" in batch:
            losses = EvidenceLoss("none")(logits, batch["evidence"])
        else:
            losses = DebiasedLoss(self.loss.transition, "none")(logits, batch["labels"], batch["alpha"])
        self._held_out.append((losses * batch["weights"], batch["weights"]))

    def on_validation_epoch_end(self) -> None:
        losses, weights = (torch.cat(parts) for parts in zip(*self._held_out, strict=True))
        self.log("held_out_loss", losses.sum() / weights.sum())
        self._held_out.clear()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _KeepBest(lightning.Callback):
    """Remembers the weights of the best held-out likelihood and tells the story of each epoch on stderr."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.best = float("inf")
        self.weights: dict[str, torch.Tensor] = {}
        self.history: list[dict[str, float]] = []
        self._began = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        held_out = float(trainer.callback_metrics["held_out_loss"])
        training = float(torch.stack(pl_module._epoch_losses).mean())
        pl_module._epoch_losses.clear()
        better = held_out < self.best
        if better:
            self.best = held_out
            self.weights = copy.deepcopy(pl_module.averaged.module.state_dict())
        seconds = time.perf_counter() - self._began
        self.history.append(
            {
                "epoch": trainer.current_epoch,
                "train_loss": training,
                "held_out_loss": held_out,
                "seconds": seconds,
            }
        )
        print(
            f"{self.name} epoch {trainer.current_epoch + 1:3d}/{trainer.max_epochs}  loss {training:.4f}  "
            f"held out {held_out:.4f}{' *' if better else '  '}  {seconds:.0f} s",
            file=sys.stderr,
        )


def _precision(config: TrainingConfig) -> Any:
    """Mixed bf16 where the hardware multiplies it natively, float32 elsewhere, unless the user chose."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    capable = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16-mixed" if capable.get("avx512_bf16") or capable.get("amx_bf16") else "32-true"


def _quietly_built_trainer(config: TrainingConfig, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    return lightning.Trainer(
        max_epochs=config.epochs,
        accelerator="auto",
        devices=1,
        precision=_precision(config),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _train_network(
    rows: TrainingRows,
    train: np.ndarray,
    validation: np.ndarray,
    transition: Transition,
    config: TrainingConfig,
    seed: int,
    name: str,
) -> tuple[dict[str, np.ndarray], _KeepBest, GalaxyNetwork]:
    lightning.seed_everything(seed, verbose=False)
    network = GalaxyNetwork(config, transition.n_classes, config.pretrained)

    def subset(which: np.ndarray) -> GalaxyBatches:
        return GalaxyBatches(
            rows.inputs,
            which,
            rows.column("label")[which],
            rows.column("alpha")[which],
            rows.weights[which],
            None if rows.evidence is None else rows.evidence[which],
        )

    training = batches(subset(train), config.batch_size, seed)
    module = _LightningClassifier(network, DebiasedLoss(transition), config, config.epochs * len(training))
    keep = _KeepBest(name)
    stop = EarlyStopping("held_out_loss", patience=config.patience, mode="min")
    with warnings.catch_warnings():
        # Batches are slices of an array in memory: worker processes would only copy it.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        trainer = _quietly_built_trainer(config, [keep, stop])
        try:
            trainer.fit(module, training, batches(subset(validation), 4 * config.batch_size))
        except SystemExit:
            # Lightning turns Ctrl-C into exit status 1.
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    if not keep.weights:
        raise TruemorphError(
            f"training diverged: no epoch had a finite held-out loss; lower learning_rate (now {config.learning_rate})"
        )
    return {key: value.cpu().numpy() for key, value in keep.weights.items()}, keep, network


def _fold_masks(folds: np.ndarray, n_folds: int) -> list[np.ndarray]:
    return [np.ones(folds.size, bool)] if n_folds == 1 else [folds != fold for fold in range(n_folds)]


def train_members(
    rows: TrainingRows, transition: Transition | None, config: TrainingConfig, name: str = "train"
) -> TrainedMembers:
    """Train a classifier through T(α).

    Parameters
    ----------
    rows : TrainingRows
        Galaxies with split "train" are trained on, those with "validation" stop a network's training (logistic
        regression trains on them too), others are left alone.
    transition : Transition or None
        T(α), constant in the loss; the identity takes labels at their word (naive training). None is for
        logistic regression only: θ is fitted along by EM, as in DCV14.
    config : TrainingConfig
    name : str
        Prefix of progress lines.

    Returns
    -------
    TrainedMembers

    Raises
    ------
    InputError
        If there are no training or validation galaxies, a class is empty, a network is given no T(α), or evidence has
        the wrong shape.
    """
    split, labels = rows.column("split"), rows.column("label")
    train, validation = np.flatnonzero(split == TRAIN), np.flatnonzero(split == VALIDATION)
    if config.classifier == "logistic":
        # Nothing stops early: validation galaxies are trained on like the others, in folds.
        train, validation = np.sort(np.concatenate([train, validation])), validation[:0]
    parts = [(TRAIN, train)] + ([(VALIDATION, validation)] if config.classifier == "network" else [])
    for part, where in parts:
        if where.size == 0:
            raise InputError(f"no {part} galaxies in this catalogue; prepare it with a {part} share")
    empty = [CLASS_NAMES[k] for k in range(2) if not np.any(labels[train] == k)]
    if empty:
        raise InputError(f"no training galaxy is labelled {empty[0]}: nothing to learn from")
    if train.size < 2 * max(config.folds, config.batch_size if config.classifier == "network" else 1):
        raise InputError(
            f"only {train.size} training galaxies for {config.folds} folds and batches of {config.batch_size}"
        )
    if rows.evidence is not None:
        if rows.evidence.shape != (rows.frame.height, 2):
            raise InputError(f"evidence must have shape ({rows.frame.height}, 2); got {rows.evidence.shape}")
        best = rows.evidence.max(axis=1)
        if not np.isfinite(best).all() or np.isnan(rows.evidence).any():
            wrong = np.flatnonzero(~np.isfinite(best) | np.isnan(rows.evidence).any(axis=1))[0]
            raise InputError(f"evidence must be finite for one class at least; row {wrong} is {rows.evidence[wrong]}")
    if rows.evidence is not None and config.classifier == "logistic":
        raise InputError("logistic regression learns from labels: leave evidence out")
    ids = rows.frame["object_id"]
    folds = assign_folds(ids.gather(train).to_list(), config.folds, config.seed)
    role = np.full(train.size, "out_of_fold" if config.folds > 1 else "in_sample")
    fold_seen = folds if config.folds > 1 else np.full(train.size, -1)
    seen = pl.concat(
        [
            pl.DataFrame({"object_id": ids.gather(train), "role": role, "fold": fold_seen}),
            pl.DataFrame({"object_id": ids.gather(validation)}).with_columns(
                role=pl.lit("early_stopping"), fold=pl.lit(-1, dtype=pl.Int64)
            ),
        ]
    )
    if config.classifier == "logistic":
        return _train_logistic(rows, train, folds, transition, config, seen)

    if transition is None:
        raise InputError("a network needs T(alpha) before it trains: fit one with `truemorph transition`")
    members, history, held_out = [], [], []
    for number, mask in enumerate(_fold_masks(folds, config.folds)):
        label = name if config.folds == 1 else f"{name} {number + 1}/{config.folds}"
        weights, keep, network = _train_network(
            rows, train[mask], validation, transition, config, config.seed + number, label
        )
        members.append(weights)
        history += [{"member": float(number), **epoch} for epoch in keep.history]
        held_out.append(keep.best)
    return TrainedMembers(
        members,
        seen,
        transition,
        history,
        {"held_out_loss": float(np.mean(held_out))},
        network.mean,
        network.std,
    )


def _train_logistic(
    rows: TrainingRows,
    train: np.ndarray,
    folds: np.ndarray,
    transition: Transition | None,
    config: TrainingConfig,
    seen: pl.DataFrame,
) -> TrainedMembers:
    labels, alpha, weights = rows.column("label"), rows.column("alpha"), rows.weights

    def fit(which: np.ndarray) -> DebiasedLogisticRegression:
        model = DebiasedLogisticRegression(transition=transition)
        return model.fit(rows.inputs[which], labels[which], alpha=alpha[which], sample_weight=weights[which])

    whole = fit(train)
    parts = [whole] if config.folds == 1 else [fit(train[mask]) for mask in _fold_masks(folds, config.folds)]
    metrics = {"log_likelihood": whole.log_likelihood_, "em_iterations": whole.n_iter_}
    metrics |= {f"{name}_stderr": error for name, error in whole.stderr_.items()}
    members = [{"coef": part.coef_, "intercept": part.intercept_} for part in parts]
    return TrainedMembers(members, seen, whole.transition_, [], metrics)
