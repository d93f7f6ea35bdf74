"""Speed and quality of labelling with other engines, precisions, image sizes and networks.

    python benchmarks/faster_labelling.py FOLDER [ROUNDS]

Simulates 7,000 training galaxies and 11,500 others (207 pixels), trains a ResNet50 at 207 pixels (preset "standard",
eight epochs, T(α) fitted to the same galaxies), and smaller ones on the same labels or on the probabilities of the
first (distillation). All results stay in FOLDER; the first run takes hours. Then all networks label the 10,925
galaxies that were not used for calibration of int8. Printed for each: agreement of labels with the ResNet50 in
float32, largest change of the disk fraction in quintiles of α (of labels or of mean probabilities), change of the
calibration error, balanced accuracy vs truth, images/s (median of rounds in turn, without start-up and decoding).
Cascades of two networks are computed from their labels and rates.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.bias.scores import balanced_accuracy
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.classifiers.checkpoint import load
from truemorph.classifiers.engines import engine_for
from truemorph.classifiers.engines import int8 as gate
from truemorph.commands.demo import write_simulated
from truemorph.config import TrainingConfig
from truemorph.images.decode import pixel_batches
from truemorph.tables import CatalogTable, write_table

SIZE, TRAIN, GATE = 207, 7_000, 11_500
TIMED = 512  # images a round
# Name, settings over preset "standard", and whether it learns from the first one's probabilities.
NETWORKS = {
    "resnet50-207": (["batch_size=16", "learning_rate=4e-4"], False),
    "test_resnet-64": (["image_size=64", "backbone=test_resnet", "learning_rate=1e-3"], False),
    "test_resnet-64-distilled": (["image_size=64", "backbone=test_resnet", "learning_rate=1e-3"], True),
    "resnet18-96": (["batch_size=16", "learning_rate=4e-4", "image_size=96", "backbone=resnet18"], False),
}
FIRST = next(iter(NETWORKS))
EPOCHS = 8


def command(*words):
    """Run truemorph."""
    print("truemorph", *words, file=sys.stderr)
    subprocess.run([sys.executable, "-m", "truemorph.cli", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def simulated(folder, galaxies, seed, split):
    """Make a prepared catalogue of simulated galaxies, if it does not exist."""
    if not (folder / "cat.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_simulated(folder, galaxies, seed, SIZE)
        command("prepare", folder / "votes.csv", "--images", folder / "images", "--split", split,
                "--out", folder / "cat.parquet")  # fmt: skip
    return folder / "cat.parquet"


def taught(folder, catalogue):
    """The catalogue with the first network's probabilities in place of votes."""
    path = folder / "taught.parquet"
    if not path.is_file():
        command("label", folder / FIRST, catalogue, "--out", folder / "teacher.parquet")
        said = pl.read_parquet(folder / "teacher.parquet")["p_smooth", "p_disk"]
        table = read_catalogue(catalogue)
        frame = table.frame.with_columns(smooth_fraction=said["p_smooth"], disk_fraction=said["p_disk"])
        frame = frame.with_columns(label=(pl.col("disk_fraction") > 0.5).cast(pl.Int64))
        metadata = {**table.metadata, "image_root": str((folder / "train" / "images").resolve())}
        write_table(CatalogTable(frame, metadata=metadata), path)
    return path


def trained(folder, name, catalogue):
    """Train a network, if it does not exist."""
    if not (folder / name / "config.json").is_file():
        settings, distilled = NETWORKS[name]
        words = ["--preset", "standard", "--epochs", EPOCHS, "--crop", "1.0", "--cache", folder / "cache"]
        words += [
            word for one in settings for word in (f"--{one.partition('=')[0].replace('_', '-')}", one.partition("=")[2])
        ]
        if distilled:
            command("train", taught(folder, catalogue), "--naive", "--votes", "soft", *words, "--out", folder / name)
        else:
            fit = folder / "train" / "t.json"
            if not fit.is_file():
                command("transition", catalogue, "--out", fit)
            command("train", catalogue, "--transition", fit, *words, "--out", folder / name)
    return load(folder / name)


class Proof:
    """Galaxies that are not used for calibration, and their images in any size."""

    def __init__(self, catalogue, folder):
        frame = read_catalogue(catalogue).frame
        self.paths = [folder / "images" / one for one in frame["image"]]
        self.rows = np.flatnonzero(np.arange(len(frame)) % gate._EVERY != 0)
        self.alpha, self.truth = (frame[name].to_numpy()[self.rows] for name in ("alpha", "gold"))

    def pixels(self, size, rows=None):
        """Batches of images."""
        paths = [self.paths[row] for row in (self.rows if rows is None else self.rows[rows])]
        for _, images in pixel_batches(paths, TrainingConfig(image_size=size, crop=1.0)):
            yield np.stack(images)


def speeds(engines, proof, rounds):
    """Images a second of each engine, all in turn in each round."""
    some = {
        size: np.concatenate(list(proof.pixels(size, slice(TIMED)))) for size in {size for _, size in engines.values()}
    }
    found = {name: [] for name in engines}
    for _ in range(rounds):
        for name, (engine, size) in engines.items():
            repeat = max(1, (SIZE // size) ** 2)
            engine.member(some[size][:32], 0)
            began = time.perf_counter()
            for _ in range(repeat):
                engine.member(some[size], 0)
            found[name].append(TIMED * repeat / (time.perf_counter() - began))
    return {name: statistics.median(rates) for name, rates in found.items()}


def line(name, exact, fast, proof, rate):
    """A row of the table."""
    found = gate.compare(exact, fast, proof.alpha, proof.truth)
    change = max(found.fraction_changes, key=abs)
    accuracy = balanced_accuracy(proof.truth, fast.argmax(axis=1))
    print(
        f"{name:42} {found.agreement:9.4f} {change:+9.4f} {found.calibration_change:+9.4f} {accuracy:9.4f} {rate:9.0f}"
        f"  {'passes' if found.passed else ''}",
        flush=True,
    )


def cascade(fast, exact, reference, rates):
    """Take `exact` where `fast` is least sure: how often it must be asked for 99.5 % agreement, and the rate.

    The margin is chosen on every other galaxy; agreement and share are those of the others.
    """
    margin = np.abs(fast[:, 1] - 0.5)
    same = (fast.argmax(axis=1) == reference.argmax(axis=1)), (exact.argmax(axis=1) == reference.argmax(axis=1))
    chosen, others = np.arange(len(margin)) % 2 == 0, np.arange(len(margin)) % 2 == 1
    for share in np.arange(0, 1.001, 0.01):
        asked = margin <= np.quantile(margin[chosen], share)
        right = np.where(asked, same[1], same[0])
        if right[chosen].mean() >= gate.LEAST_AGREEMENT:
            break
    share = asked[others].mean()
    return right[others].mean(), share, 1 / (1 / rates[0] + share / rates[1])


def int8(model, folder):
    """The model in int8, whether or not it passes."""
    from truemorph.classifiers.engines.openvino import OpenVinoEngine
    from truemorph.labelling.sources import open_source

    pixels = gate.calibration_images(model, open_source(folder / "gate" / "cat.parquet"))
    networks, alignments = gate.int8_members(model, pixels)
    return OpenVinoEngine(networks, model, "int8", alignments)


def main(folder, rounds=3):
    catalogue = simulated(folder / "train", TRAIN, 1, "0.9,0.1,0")
    proof = Proof(simulated(folder / "gate", GATE, 2, "0,0,1"), folder / "gate")
    models = {name: trained(folder, name, catalogue) for name in NETWORKS}
    engines, said = {}, {}
    every = [("openvino", "fp32"), ("torch", "bf16"), ("openvino", "bf16"), ("openvino", "int8")]
    for name, model in models.items():
        for kind, precision in every if name == FIRST else every[-2:]:
            engine = int8(model, folder) if precision == "int8" else engine_for(model, kind, precision)
            title = f"{name} {kind} {precision}"
            engines[title] = engine, model.config.image_size
            pixels = proof.pixels(model.config.image_size)
            said[title] = np.concatenate([engine.member(batch, 0) for batch in pixels])
    rates = speeds(engines, proof, rounds)
    print(f"{'':42} {'agreement':>9} {'fractions':>9} {'calibr.':>9} {'truth':>9} {'images/s':>9}")
    exact = next(iter(said.values()))
    for title, p in said.items():
        line(title, exact, p, proof, rates[title])
    print("cascades: first network, then the second for the least certain galaxies")
    second = f"{FIRST} openvino int8"
    for title, p in said.items():
        if not title.startswith(FIRST) and title.endswith("int8"):
            right, share, rate = cascade(p, said[second], exact, (rates[title], rates[second]))
            print(
                f"{title:42} {right:9.4f} agreement, second asked for {share:.2f} of the galaxies, {rate:.0f} images/s"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
