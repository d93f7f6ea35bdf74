"""Speed of training from files, compared with (a) a plain PyTorch loop and (b) Zoobot's fine-tuning.

    python benchmarks/training_speed.py [--rounds N] [--zoobot PYTHON]

ResNet50 on 424-pixel JPEGs drawn here, at the paper's 207 pixels and at 64: (a) a plain PyTorch float32 loop with
Pillow and torchvision transforms in worker processes, (b) FinetuneableZoobotClassifier with galaxy-datasets' default
augmentation (PYTHON is that of an environment with Zoobot; left out if not given). Each round runs all of them in turn,
each in a process of its own that trains two epochs; what counts is the second, validation included. Printed: medians
over rounds, and ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TRAIN, VALIDATION, BATCH = 256, 64, 32
# More images for the faster setting, so that both take about as long.
MORE_AT = {207: 1, 64: 4}
THREADS = os.cpu_count() or 1


def pictures(folder, n):
    """JPEGs of simulated galaxies, 424 pixels on a side."""
    from PIL import Image

    from truemorph.simulate import render, simulate_galaxies

    galaxies = simulate_galaxies(min(n, 64), 0)
    drawn = [image for _, image in render(galaxies, 424, 0)]
    for number in range(n):
        Image.fromarray(np.rot90(drawn[number % len(drawn)], number // len(drawn) % 4)).save(
            folder / f"{number}.jpg", quality=90
        )


def ours(folder, size, n):
    """Preset "standard" at this size."""
    import polars as pl
    import torch

    from truemorph.bias.curves.formulas import RayleighTransition
    from truemorph.classifiers.members import TrainingRows, train_members
    from truemorph.config import training_config
    from truemorph.images.dataset import GalaxyBatches
    from truemorph.images.store import ImageFiles

    torch.set_num_threads(THREADS)
    config = training_config("standard", epochs=2, batch_size=BATCH, image_size=size)
    began = time.perf_counter()
    pixels, _ = ImageFiles([folder / f"{i}.jpg" for i in range(n)], config).load(folder / "cache")
    loaded = time.perf_counter() - began
    rng = np.random.default_rng(0)
    split = np.where(np.arange(n) < n * TRAIN // (TRAIN + VALIDATION), "train", "validation")
    frame = pl.DataFrame(
        {"object_id": np.arange(n), "label": rng.integers(0, 2, n), "alpha": rng.lognormal(2.6, 0.4, n), "split": split}
    )
    trained = train_members(TrainingRows(frame, pixels), RayleighTransition(11.25), config)
    seconds = [epoch["seconds"] for epoch in trained.history]
    began = time.perf_counter()
    for _ in GalaxyBatches(pixels, np.arange(n), {"weights": torch.ones(n)}, BATCH, seed=0):
        pass
    return seconds[1] - seconds[0], loaded, time.perf_counter() - began


def plain_loop(folder, size, n):
    """Train in a plain PyTorch loop."""
    import torch
    import torchvision
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(THREADS)
    crop = round(424 * 207 / 424)

    class Galaxies(torch.utils.data.Dataset):
        def __init__(self, numbers, augment):
            self.numbers = numbers
            turns = [transforms.RandomHorizontalFlip(), transforms.RandomRotation(90)] if augment else []
            self.transform = transforms.Compose(
                [
                    transforms.CenterCrop(crop),
                    transforms.Resize(size),
                    *turns,
                    transforms.ToTensor(),
                    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
                ]
            )

        def __len__(self):
            return len(self.numbers)

        def __getitem__(self, index):
            number = self.numbers[index]
            return self.transform(Image.open(folder / f"{number}.jpg").convert("RGB")), number % 2

    first = n * TRAIN // (TRAIN + VALIDATION)
    training = torch.utils.data.DataLoader(
        Galaxies(range(first), True), BATCH, shuffle=True, num_workers=THREADS, drop_last=True, persistent_workers=True
    )
    validation = torch.utils.data.DataLoader(
        Galaxies(range(first, n), False), BATCH, num_workers=THREADS, persistent_workers=True
    )
    network = torchvision.models.resnet50(num_classes=2)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-4)
    loss = torch.nn.CrossEntropyLoss()
    for _ in range(2):
        began = time.perf_counter()
        network.train()
        for images, labels in training:
            optimizer.zero_grad()
            loss(network(images), labels).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for images, labels in validation:
                loss(network(images), labels)
        seconds = time.perf_counter() - began
    return (seconds,)


def zoobot(folder, size, n):
    """Zoobot 2.9 as its documentation shows it: its trainer, its data module, its default augmentation."""
    import logging
    import warnings

    import pandas as pd
    import timm
    import torch

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    from galaxy_datasets.pytorch.galaxy_datamodule import CatalogDataModule
    from galaxy_datasets.transforms import default_view_config, get_galaxy_transform, minimal_view_config
    from lightning.pytorch.callbacks import Callback
    from zoobot.pytorch.training import finetune

    torch.set_num_threads(THREADS)
    first = n * TRAIN // (TRAIN + VALIDATION)
    table = pd.DataFrame(
        {
            "id_str": [str(i) for i in range(n)],
            "file_loc": [str(folder / f"{i}.jpg") for i in range(n)],
            "label": np.arange(n) % 2,
        }
    )
    views = []
    for view in (default_view_config(), minimal_view_config()):
        view.output_size = size
        views.append(get_galaxy_transform(view))
    data = CatalogDataModule(
        ["label"],
        train_catalog=table[:first],
        val_catalog=table[first:].reset_index(drop=True),
        batch_size=BATCH,
        num_workers=THREADS,
        train_transform=views[0],
        test_transform=views[1],
    )

    ends = []

    class Clock(Callback):
        def on_train_epoch_end(self, trainer, module):
            ends.append(time.perf_counter())

    network = timm.create_model("resnet50", num_classes=0)
    model = finetune.FinetuneableZoobotClassifier(encoder=network, num_classes=2, label_col="label", prog_bar=False)
    with tempfile.TemporaryDirectory() as out:
        trainer = finetune.get_trainer(
            out, accelerator="cpu", max_epochs=2, enable_progress_bar=False, num_sanity_val_steps=0
        )
        trainer.callbacks.append(Clock())
        trainer.fit(model, data)
    return (ends[1] - ends[0],)


def memory(folder, size, n):
    """Anonymous memory (MB) after an epoch of augmented batches, pixels from files and from the cache."""
    import torch

    from truemorph.config import TrainingConfig
    from truemorph.images.dataset import GalaxyBatches
    from truemorph.images.store import ImageFiles

    # A few images many times: only the number of requested images matters.
    paths = [folder / f"{i % TRAIN}.jpg" for i in range(n)]
    found = []
    files = ImageFiles(paths, TrainingConfig(image_size=size))
    for pixels in (files, files.load(folder / "cache")[0]):
        columns = {"weights": torch.ones(n)}
        for _ in GalaxyBatches(pixels, np.arange(n), columns, BATCH, seed=0, augmentation=TrainingConfig()):
            pass
        status = Path("/proc/self/status").read_text().splitlines()
        found.append(next(int(line.split()[1]) // 1024 for line in status if line.startswith("RssAnon")))
    return found


CONTESTANTS = {"truemorph": ours, "plain float32 loop": plain_loop, "zoobot": zoobot}


def run(name, folder, size, n, python=sys.executable):
    """Run one program in its own process; None if it cannot run."""
    command = [python, __file__, "--one", name, str(folder), str(size), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: left out ({(done.stderr.strip().splitlines() or ['failed'])[-1]})", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--zoobot")
    given = parser.parse_args()
    pythons = {"zoobot": given.zoobot} if given.zoobot else {}
    contestants = [name for name in CONTESTANTS if name != "zoobot" or given.zoobot]
    rows, sizes, used = {name: [] for name in contestants}, (207, 64), []
    for size in sizes:
        n = (TRAIN + VALIDATION) * MORE_AT[size]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            pictures(folder, n)
            found = {name: [] for name in contestants}
            for asked in (1000, 4000) if size == 207 else ():
                from_files, cached = run("memory", folder, size, asked)
                used.append(f"{from_files} and {cached} MB for {asked:,} images")
            for _ in range(given.rounds):
                for name in list(found):
                    one = run(name, folder, size, n, pythons.get(name, sys.executable))
                    if one is None:
                        del found[name]
                    else:
                        found[name].append(one)
        for name, times in found.items():
            rate = n / statistics.median(time[0] for time in times)
            ratio = statistics.median(
                theirs[0] / mine[0] for theirs, mine in zip(times, found["truemorph"], strict=True)
            )
            rows[name].append(f"{rate:.1f} images/s" if name == "truemorph" else f"{ratio:.1f} times as long")
        epoch, decoding, loading = zip(*found["truemorph"], strict=True)
        share = statistics.median(one / whole for one, whole in zip(loading, epoch, strict=True))
        rows.setdefault("once, decoding into the cache", []).append(f"{decoding[0]:.2f} s")
        rows.setdefault("reading images without training", []).append(f"{share:.1%} of the time")
    print("| | " + " | ".join(f"{size} pixels" for size in sizes) + " |\n|---" + "|---" * len(sizes) + "|")
    for name, cells in rows.items():
        if cells:
            print(f"| {name} | {' | '.join(cells)} |")
    print(f"\nAnonymous memory after an epoch of 207 pixels, from files and from the cache: {'; '.join(used)}.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        what = {**CONTESTANTS, "memory": memory}[sys.argv[2]]
        print(json.dumps(what(Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))))
    else:
        main()
