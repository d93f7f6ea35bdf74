"""Speed of labelling files, with start-up, compared with Zoobot's predict.

    python benchmarks/labelling_speed.py [ROUNDS [FILES [MODEL]]]

ResNet50 on 424-pixel JPEGs drawn here, at the paper's 207 pixels. Each round runs all engines in turn, each as a
command, from its start to the table. Zoobot is left out if it is not installed, and int8 if MODEL has not passed its
comparison with float32 (`faster_labelling.py` makes a MODEL that has); without MODEL, random weights are used.
Printed: medians over rounds, ratios, the rate at which the same files are decoded alone, and what a million images
would cost.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from training_speed import pictures

THREADS = os.cpu_count() or 1
SIZE = 207


def model_folder(folder):
    """A ResNet50 of random weights, as preset "standard" trains them."""
    import polars as pl
    import torch

    from truemorph.classifiers.checkpoint import Classifier, describe, save_classifier
    from truemorph.classifiers.network import GalaxyNetwork
    from truemorph.config import training_config

    torch.manual_seed(0)
    config = training_config("standard")
    network = GalaxyNetwork(config)
    fit = {"family": "rayleigh", "parameters": {"theta": 11.25}}
    described = describe(
        config, fit, catalogue={"source": "none", "rows": 0}, members=1, metrics={},
        normalisation={"mean": network.mean, "std": network.std}, built=network.built,
    )  # fmt: skip
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    seen = pl.DataFrame(schema={"object_id": pl.String, "role": pl.String, "fold": pl.Int64})
    return save_classifier(Classifier(described, [weights], seen), folder / "model")


def zoobot(images, out):
    """Zoobot 2.9 as its documentation shows it."""
    import logging
    import warnings

    import pandas as pd
    import timm
    import torch

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    from galaxy_datasets.transforms import get_galaxy_transform, minimal_view_config
    from zoobot.pytorch.predictions import predict_on_catalog
    from zoobot.pytorch.training import finetune

    torch.set_num_threads(THREADS)
    paths = sorted(Path(images).glob("*.jpg"))
    view = minimal_view_config()
    view.output_size = SIZE
    model = finetune.FinetuneableZoobotClassifier(
        encoder=timm.create_model("resnet50", num_classes=0), num_classes=2, label_col="label"
    )
    predict_on_catalog.predict(
        pd.DataFrame({"id_str": [one.stem for one in paths], "file_loc": [str(one) for one in paths]}),
        model,
        str(out),
        ["smooth", "disk"],
        get_galaxy_transform(view),
        datamodule_kwargs={"num_workers": THREADS},
        trainer_kwargs={"enable_progress_bar": False, "logger": False},
    )


def decoding(images):
    """Seconds to decode, crop and resize all files, and nothing else."""
    from truemorph.config import TrainingConfig
    from truemorph.images.decode import pixel_batches

    began = time.perf_counter()
    for _ in pixel_batches(sorted(Path(images).glob("*.jpg")), TrainingConfig(image_size=SIZE)):
        pass
    return time.perf_counter() - began


def main(rounds=3, files=1024, model=None):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = folder / "images"
        images.mkdir()
        pictures(images, files)
        model = model or model_folder(folder)
        label = [sys.executable, "-m", "truemorph.cli", "label", str(model), str(images), "--out"]
        contestants = {
            "truemorph": lambda out: [*label, f"{out}.parquet"],
            "truemorph fp32": lambda out: [*label, f"{out}.parquet", "--precision", "fp32"],
            "openvino": lambda out: [*label, f"{out}.parquet", "--engine", "openvino"],
            "openvino int8": lambda out: [*label, f"{out}.parquet", "--engine", "openvino", "--precision", "int8"],
            "zoobot": lambda out: [sys.executable, __file__, "--one", str(images), f"{out}.csv"],
        }
        seconds = {name: [] for name in contestants}
        for number in range(rounds):
            for name in list(seconds):
                command = contestants[name](folder / f"{name.replace(' ', '_')}-{number}")
                began = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{name}: left out ({(done.stderr.strip().splitlines() or ['failed'])[-1]})", file=sys.stderr)
                    del seconds[name]
                    continue
                seconds[name].append(time.perf_counter() - began)
        print(f"ResNet50, {SIZE} pixels, {files} files, {THREADS} threads, start-up included")
        for name, times in seconds.items():
            ratios = np.array(times) / np.array(seconds["truemorph"])
            middle = statistics.median(times)
            print(
                f"{name:16} {files / middle:7.1f} img/s   {np.median(ratios):5.2f} × our time   "
                f"{middle / files * 1e6 / 3600 * THREADS:6.1f} core hours for a million images"
            )
        print(f"(decoding alone: {files / decoding(images):.0f} img/s)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        zoobot(*sys.argv[2:])
    else:
        main(*map(int, sys.argv[1:3]), *sys.argv[3:])
