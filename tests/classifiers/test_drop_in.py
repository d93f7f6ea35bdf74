"""DebiasedLoss in other training loops: plain PyTorch, timm's training script, Lightning, Zoobot.

Two thirds of the disks are labelled smooth; each loop must recover the true classes.
"""

import lightning
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader, TensorDataset

import truemorph as tm
from conftest import stripes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
N, SIZE, BATCH, EPOCHS = 960, 32, 48, 5
LOSS = tm.DebiasedLoss(tm.RayleighTransition(theta=11.25))


@pytest.fixture(scope="module")
def data():
    """Images (N, 3, 32, 32), labels, α, and the truth."""
    rows, truth = stripes(N, seed=2)
    images = torch.from_numpy(rows.inputs).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)
    images = torch.nn.functional.interpolate(images, size=(SIZE, SIZE))
    labels, alpha = rows.frame["label"].to_numpy(writable=True), rows.frame["alpha"].to_numpy(writable=True)
    assert labels[truth == 1].mean() < 0.4  # most disks are labelled smooth
    return images, torch.from_numpy(labels), torch.from_numpy(alpha).float(), torch.from_numpy(truth)


def batches(data):
    return DataLoader(TensorDataset(*data[:3]), BATCH, shuffle=True, drop_last=True)


def small_network(classes=2):
    torch.manual_seed(0)
    return timm.create_model("test_vit2", num_classes=classes, img_size=SIZE)


def trainer(folder):
    return lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip


def in_a_plain_loop(network, data, _):
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for images, labels, alpha in batches(data):
            optimizer.zero_grad()
            LOSS(network(images), labels, alpha).backward()
            optimizer.step()
    return network


def in_timms_script(network, data, _):
    """The parts of timm's train.py: its optimiser, schedule, autocast, clipped gradients, averaged model."""
    averaged, updates = ModelEmaV3(network, decay=0.9), 0
    optimizer = create_optimizer_v2(network, opt="adamw", lr=2e-3, weight_decay=0.02)
    schedule, epochs = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=EPOCHS, warmup_epochs=1, updates_per_epoch=len(batches(data))
    )
    for epoch in range(epochs):
        for images, labels, alpha in batches(data):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = LOSS(network(images), labels, alpha)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
            averaged.update(network, step=updates)
            schedule.step_update(num_updates=updates)
        schedule.step(epoch + 1)
    return averaged.module


class LightningGalaxies(lightning.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def training_step(self, batch, _):
        images, labels, alpha = batch
        return LOSS(self.network(images), labels, alpha)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 2e-3)


def in_lightning(network, data, folder):
    trainer(folder).fit(LightningGalaxies(network), batches(data))
    return network


@pytest.mark.parametrize("train", [in_a_plain_loop, in_timms_script, in_lightning])
def test_other_loops_recover_the_disks(data, tmp_path, train):
    network = train(small_network(), data, tmp_path).eval()
    with torch.inference_mode():
        right = network(data[0]).argmax(dim=1) == data[3]
    assert all(float(right[data[3] == k].float().mean()) > 0.97 for k in (0, 1))


def test_zoobots_classifier_recovers_the_disks(data, tmp_path):
    finetune = pytest.importorskip("zoobot.pytorch.training.finetune", reason="zoobot is not installed")

    class DebiasedZoobot(finetune.FinetuneableZoobotClassifier):
        """Zoobot's classifier with another loss; α comes in the batch."""

        def run_step_through_model(self, batch):
            y, logits, _ = super().run_step_through_model(batch)
            return y, logits, tm.DebiasedLoss(LOSS.transition, "none")(logits, y, batch["alpha"])

    model = DebiasedZoobot(
        encoder=small_network(0), num_classes=2, label_col="label", learning_rate=2e-3, layer_decay=1.0,
        head_dropout_prob=0.0, prog_bar=False,
    )  # fmt: skip
    rows = [{"image": i, "label": y, "alpha": a} for i, y, a in zip(*data[:3], strict=True)]
    trainer(tmp_path).fit(model, DataLoader(rows, BATCH, shuffle=True))
    model.eval()
    with torch.inference_mode():
        called = model.predict_step({"image": data[0]}, 0).argmax(dim=1)
    assert float((called == data[3]).float().mean()) > 0.97
