"""DebiasedLoss in other training loops: plain PyTorch, timm's training script, Lightning, Zoobot.

Two thirds of the disks are labelled smooth; each loop must recover the true classes, which cross-entropy does not.
"""

import lightning
import numpy as np
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import truemorph as tm
from conftest import stripes

N, SIZE, BATCH, EPOCHS = 960, 32, 48, 5
TRANSITION = tm.RayleighTransition(theta=11.25)


@pytest.fixture(scope="module")
def data():
    """Images (N, 3, 32, 32), labels, α, and the truth."""
    rows, truth = stripes(N, seed=2)
    images = torch.from_numpy(rows.inputs).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)
    images = torch.nn.functional.interpolate(images, size=(SIZE, SIZE))
    labels, alpha = rows.frame["label"].to_numpy(writable=True), rows.frame["alpha"].to_numpy(writable=True)
    assert labels[truth == 1].mean() < 0.4  # most disks are labelled smooth
    return images, torch.from_numpy(labels), torch.from_numpy(alpha).float(), torch.from_numpy(truth)


def small_network(seed=0):
    torch.manual_seed(seed)
    return timm.create_model("test_vit2", num_classes=2, img_size=SIZE)


def found_disks(network, images, truth):
    """Fraction of true disks labelled disk, and of smooth galaxies labelled smooth."""
    network.eval()
    with torch.inference_mode():
        called = network(images).argmax(dim=1)
    return float((called[truth == 1] == 1).float().mean()), float((called[truth == 0] == 0).float().mean())


def assert_debiased(network, data):
    disks, smooth = found_disks(network, data[0], data[3])
    assert disks > 0.97
    assert smooth > 0.97


def plain_loop(network, data, loss):
    images, labels, alpha, _ = data
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    loader = DataLoader(TensorDataset(images, labels, alpha), BATCH, shuffle=True)
    for _ in range(EPOCHS):
        network.train()
        for batch, ỹ, α in loader:
            optimizer.zero_grad()
            loss(network(batch), ỹ, α).backward()
            optimizer.step()
    return network


def test_a_plain_loop_recovers_the_disks(data):
    assert_debiased(plain_loop(small_network(), data, tm.DebiasedLoss(TRANSITION)), data)


def test_cross_entropy_learns_the_bias(data):
    disks, _ = found_disks(plain_loop(small_network(), data, lambda z, y, _: cross_entropy(z, y)), data[0], data[3])
    assert disks < 0.5


@pytest.mark.slow
def test_timms_training_script_recovers_the_disks(data):
    """The parts of timm's train.py: its optimiser, schedule, gradient scaling by autocast, averaged model."""
    images, labels, alpha, _ = data
    network = small_network()
    averaged = ModelEmaV3(network, decay=0.9)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=2e-3, weight_decay=0.02)
    loader = DataLoader(TensorDataset(images, labels, alpha), BATCH, shuffle=True, drop_last=True)
    schedule, epochs = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=EPOCHS, warmup_epochs=1, updates_per_epoch=len(loader)
    )
    loss_function, meter, updates = tm.DebiasedLoss(TRANSITION), AverageMeter(), 0
    for epoch in range(epochs):
        network.train()
        for batch, target, α in loader:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = network(batch)
                loss = loss_function(output, target, α)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
            averaged.update(network, step=updates)
            meter.update(loss.item(), batch.size(0))
            schedule.step_update(num_updates=updates, metric=meter.avg)
        schedule.step(epoch + 1)
    assert_debiased(averaged.module, data)


class LightningGalaxies(lightning.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network, self.loss = network, tm.DebiasedLoss(TRANSITION)

    def training_step(self, batch, _):
        images, labels, alpha = batch
        return self.loss(self.network(images), labels, alpha)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 2e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_lightning_module_recovers_the_disks(data, tmp_path):
    images, labels, alpha, _ = data
    module = LightningGalaxies(small_network())
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(images, labels, alpha), BATCH, shuffle=True))
    assert_debiased(module.network, data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_zoobots_classifier_recovers_the_disks(data, tmp_path):
    finetune = pytest.importorskip("zoobot.pytorch.training.finetune", reason="zoobot is not installed")
    images, labels, alpha, truth = data

    class DebiasedZoobot(finetune.FinetuneableZoobotClassifier):
        """Zoobot's classifier with another loss; α comes in the batch."""

        def __init__(self, **options):
            super().__init__(**options)
            self.debiased = tm.DebiasedLoss(TRANSITION, "none")

        def run_step_through_model(self, batch):
            y, logits, _ = super().run_step_through_model(batch)
            return y, logits, self.debiased(logits, y, batch["alpha"])

    torch.manual_seed(0)
    encoder = timm.create_model("test_vit2", num_classes=0, img_size=SIZE)
    model = DebiasedZoobot(
        encoder=encoder, num_classes=2, label_col="label", learning_rate=2e-3, layer_decay=1.0, head_dropout_prob=0.0,
        prog_bar=False,
    )  # fmt: skip
    rows = [{"image": i, "label": y, "alpha": a} for i, y, a in zip(images, labels, alpha, strict=True)]
    loader = DataLoader(rows, BATCH, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, loader)
    model.eval()
    with torch.inference_mode():
        called = model.predict_step({"image": images}, 0).argmax(dim=1)
    assert np.mean((called == truth).numpy()) > 0.97
