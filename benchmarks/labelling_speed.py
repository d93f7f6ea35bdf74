"""Speed of labelling files, with start-up, compared with Zoobot's predict and with an earlier version.

    python benchmarks/labelling_speed.py [--rounds N] [--files N ...] [--model MODEL] [--before SRC] [--zoobot PYTHON]

ResNet50 on 424-pixel JPEGs drawn here, at the paper's 207 pixels. Each round runs all engines in turn, each as a
command, from its start to the table. SRC is the folder `src` of a checkout of an earlier version, which is run with the
packages of this one; PYTHON that of an environment with Zoobot. Both are left out if not given. Without MODEL, random
weights are used, also in int8: their accuracy says nothing, so that the comparison with float32 is skipped. int8 is
left out for a MODEL that has not passed it. Networks are converted before, which is timed once. Printed are medians
over rounds: CPU time (user and system, of all processes) of the smallest number of files, images a second on the clock
and relative to Zoobot of the others, and what a million images would cost in core hours, from the largest.
"""

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

THREADS = os.cpu_count() or 1
SIZE = 207
ZOOBOT = "Zoobot 2.9's predict"


def model_folder(folder):
    """A ResNet50 of random weights, as preset "standard" trains them."""
    import polars as pl
    import torch

    from truemorph.classifiers.checkpoint import save_classifier
    from truemorph.classifiers.classifier import Classifier, describe
    from truemorph.classifiers.network import GalaxyNetwork
    from truemorph.config import training_config

    torch.manual_seed(0)
    config = training_config("standard")
    network = GalaxyNetwork(config)
    fit = {"family": "rayleigh", "parameters": {"theta": 11.25}}
    described = describe(
        config, fit, catalogue={"source": "none", "rows": 0}, members=1, metrics={},
        normalisation=network.normalisation, built=network.built,
    )  # fmt: skip
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    seen = pl.DataFrame(schema={"object_id": pl.String, "role": pl.String, "fold": pl.Int64})
    return save_classifier(Classifier(described, [weights], seen), folder / "model")


def quantise(folder, images):
    """Keep int8 networks of random weights as if they had passed, in a cache of this benchmark alone."""
    from truemorph.classifiers.checkpoint import load
    from truemorph.classifiers.engines import int8
    from truemorph.images.decode import pixel_batches

    model = load(folder)
    decoded = pixel_batches(sorted(images.glob("*.jpg")), model.config)
    pixels = np.concatenate([np.stack(batch) for _, batch in decoded])
    int8.measure = lambda *_: int8.Gate(int8.GATE_IMAGES, 1.0, [0.0], 0.0)
    proof = int8.Proof("random weights", lambda *_: iter([(pixels, None)]))
    with contextlib.redirect_stdout(sys.stderr):  # its progress
        int8.int8_engine(model, int8.networks_of(model)[0], proof)


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
        pd.DataFrame({"id_str": [path.stem for path in paths], "file_loc": [str(path) for path in paths]}),
        model,
        str(out),
        ["smooth", "disk"],
        get_galaxy_transform(view),
        datamodule_kwargs={"num_workers": THREADS},
        trainer_kwargs={"enable_progress_bar": False, "logger": False},
    )


def timed(command, **environment):
    """Wall and CPU seconds of a command; None if it fails, which is reported."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        print(f"{command}: left out ({(done.stderr.strip().splitlines() or ['failed'])[-1]})", file=sys.stderr)
        return None
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def compare(folder, files, rounds, model, before, python):
    """Time all engines on as many files."""
    from training_speed import pictures

    images = folder / f"images-{files}"
    images.mkdir()
    pictures(images, files)
    label = [sys.executable, "-m", "truemorph.cli", "label", str(model), str(images)]
    old = {"PYTHONPATH": before} if before else {}
    contestants = {
        "int8, after its test": ([*label, "--precision", "int8"], {}),
        "**bf16 (default)**": ([*label, "--precision", "bf16"], {}),
        "`--precision fp32`": ([*label, "--precision", "fp32"], {}),
        "`--engine torch` (bf16)": ([*label, "--engine", "torch", "--precision", "bf16"], {}),
        "`--engine torch --precision fp32`": ([*label, "--engine", "torch", "--precision", "fp32"], {}),
        **({"before": (label, old), "before, `--engine openvino`": ([*label, "--engine", "openvino"], old)}
           if before else {}),
        **({ZOOBOT: ([python, __file__, "--one", str(images)], {})} if python else {}),
    }  # fmt: skip
    seconds = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(seconds):
            command, environment = contestants[name]
            out = folder / f"{files}-{list(contestants).index(name)}-{number}.{'csv' if name == ZOOBOT else 'parquet'}"
            took = timed([*command, str(out)] if name == ZOOBOT else [*command, "--out", str(out)], **environment)
            if took is None:
                del seconds[name]
            else:
                seconds[name].append(took)
    return {name: [statistics.median(one) for one in zip(*times, strict=True)] for name, times in seconds.items()}


def show(found):
    """Print a table of wall and CPU seconds by number of files and engine."""
    fewest, most = min(found), max(found)
    heads, rows = [f"{fewest:,} files, CPU s"], {name: [f"{cpu:.1f}"] for name, (_, cpu) in found[fewest].items()}
    for files in sorted(found)[1:]:
        heads += [f"{files:,} files, images/s", *(["relative to Zoobot"] if ZOOBOT in found[files] else [])]
        for name, (wall, _) in found[files].items():
            rows[name].append(f"{files / wall:.0f}")
            if ZOOBOT in found[files]:
                rows[name].append(f"{found[files][ZOOBOT][0] / wall:.1f}")
    for name, (_, cpu) in found[most].items():
        rows[name].append(f"{cpu / most * 1e6 / 3600:.1f}")
    print("| | " + " | ".join([*heads, "core hours for 10⁶ images"]) + " |\n|---" + "|---" * (len(heads) + 1) + "|")
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, nargs="+", default=[32, 512])
    parser.add_argument("--model")
    parser.add_argument("--before")
    parser.add_argument("--zoobot")
    given = parser.parse_args()
    from training_speed import pictures

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.model is None:
            os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        model = given.model or model_folder(folder)
        (folder / "first").mkdir()
        pictures(folder / "first", 1)
        first = [sys.executable, "-m", "truemorph.cli", "label", str(model), str(folder / "first"), "--out"]
        wall, cpu = timed([*first, str(folder / "first.parquet")])
        print(f"Conversion of the network and the first file: {wall:.1f} s, {cpu:.1f} s of CPU.\n")
        if given.model is None:
            (folder / "calibration").mkdir()
            pictures(folder / "calibration", 512)
            quantise(model, folder / "calibration")
        show({
            files: compare(folder, files, given.rounds, model, given.before, given.zoobot) for files in given.files
        })  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        zoobot(*sys.argv[2:])
    else:
        main()
