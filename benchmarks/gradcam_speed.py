"""Images/s of Grad-CAM and of plain prediction with ResNet50, in turn on the same machine.

    python benchmarks/gradcam_speed.py [ROUNDS [GALAXIES]]

Random weights, two threads. "predict" is one forward pass in float32; "maps" Grad-CAM of known
classes; "explain" what `truemorph explain` does with decoded images: predict, map the predicted class, enlarge,
profiles and means. Printed: medians over rounds, and the median ratio to prediction.
"""

import statistics
import sys
import time

import numpy as np
import polars as pl
import torch

from truemorph.classifiers.classifier import Classifier, describe
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.config import training_config
from truemorph.explain.gradcam import GradCam
from truemorph.explain.study import Galaxies, explain

THREADS = 2
NAMES = {"predict": "predictions", "maps": "maps", "explain": "galaxies, with prediction, profiles and means"}


def resnet50(size):
    torch.manual_seed(0)
    config = training_config("standard", image_size=size)
    network = GalaxyNetwork(config)
    described = describe(
        config, {"family": "rayleigh", "parameters": {"theta": 11.25}}, catalogue={}, members=1, metrics={},
        normalisation=network.normalisation, built=network.built,
    )  # fmt: skip
    seen = pl.DataFrame(schema={"object_id": pl.Int64, "role": pl.String, "fold": pl.Int64})
    return Classifier(described, [{name: value.numpy() for name, value in network.state_dict().items()}], seen)


def main(rounds=3, galaxies=256):
    torch.set_num_threads(THREADS)
    print(f"ResNet50, float32, torch {torch.__version__}; medians of {rounds} rounds.\n")
    print("| pixels | layer (cells) | | a second | × the time of predicting |\n|---|---|---|---|---|")
    for size, n in ((64, galaxies), (207, max(galaxies // 4, 16))):
        model = resnet50(size)
        pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        classes = np.arange(n) % 2
        for layer in (None, "layer3", "layer4"):
            cam = GradCam(model, layer)
            whole = [Galaxies(pl.DataFrame({"object_id": np.arange(n)}), pixels)]
            ways = {
                "predict": lambda cam=cam, pixels=pixels: cam.member(pixels, 0),
                "maps": lambda cam=cam, pixels=pixels, classes=classes: cam.maps(pixels, classes),
            }
            if layer is None:
                ways["explain"] = lambda model=model, whole=whole: explain({"": model}, lambda config: whole)
            seconds = {name: [] for name in ways}
            for number in range(rounds + 1):
                for name, way in ways.items():
                    began = time.perf_counter()
                    way()
                    if number:  # the first is to warm up
                        seconds[name].append(time.perf_counter() - began)
            for name, times in seconds.items():
                ratio = statistics.median(np.array(times) / seconds["predict"])
                where = f"{cam.layer} ({cam.grid.cells}×{cam.grid.cells})"
                print(
                    f"| {size} | {where} | {NAMES[name]} | {n / statistics.median(times):.0f} | {ratio:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
