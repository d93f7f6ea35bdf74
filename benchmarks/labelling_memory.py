"""Memory of labelling: 1,000 and 100,000 images, a catalogue without images, and many labellings in one process.

    python benchmarks/labelling_memory.py [MANY [MINUTES]]

A tiny network on 64-pixel JPEGs, from tar files and from a folder, each labelling a process of its own. Printed: peak
resident memory (MB), seconds; also of posteriors of a catalogue of 10^6 rows; with MINUTES, from one process that
labels 1,000 images again and again for so many minutes, its resident memory and number of open files over time.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

FEW = 1_000


def small_model(folder):
    """Preset "quick", one member, random weights."""
    import polars as pl
    import torch

    from truemorph.classifiers.checkpoint import save_classifier
    from truemorph.classifiers.classifier import Classifier, describe
    from truemorph.classifiers.network import GalaxyNetwork
    from truemorph.config import training_config

    torch.manual_seed(0)
    config = training_config("quick", folds=1, crop=1.0)
    network = GalaxyNetwork(config)
    described = describe(
        config, {"family": "rayleigh", "parameters": {"theta": 11.25}}, catalogue={"source": "none", "rows": 0},
        members=1, metrics={}, normalisation=network.normalisation,
    )  # fmt: skip
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    seen = pl.DataFrame(schema={"object_id": pl.String, "role": pl.String, "fold": pl.Int64})
    return save_classifier(Classifier(described, [weights], seen), folder / "model")


def write_images(folder, n, kind):
    """n JPEGs, in tar files of 10,000 or as files."""
    from PIL import Image

    rng, some = np.random.default_rng(0), []
    for _ in range(50):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=80)
        some.append(buffer.getvalue())
    folder.mkdir()
    if kind == "folder":
        for number in range(n):
            (folder / f"{number:07d}.jpg").write_bytes(some[number % 50])
        return folder
    for first in range(0, n, 10_000):
        with tarfile.open(folder / f"{first:07d}.tar", "w") as tar:
            for number in range(first, min(first + 10_000, n)):
                member = tarfile.TarInfo(f"{number:07d}.jpg")
                member.size = len(some[number % 50])
                tar.addfile(member, io.BytesIO(some[number % 50]))
    return folder


def labelled(*arguments):
    """Peak memory in MB and seconds of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "truemorph.cli", "label", *map(str, arguments)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"label {' '.join(map(str, arguments))} failed")
    return usage.ru_maxrss / 1024, time.perf_counter() - began


def catalogue(folder, n):
    """A prepared catalogue without images, and a fit."""
    import polars as pl

    from truemorph.tables import CatalogTable, write_table

    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "object_id": np.arange(n), "label": rng.integers(0, 2, n), "alpha": rng.lognormal(2.5, 0.4, n),
            "split": np.full(n, "test"),
        }
    )  # fmt: skip
    fit = {
        "family": "rayleigh", "parameters": {"theta": 11.25}, "class_fractions": {"smooth": 0.3, "disk": 0.7},
        "galaxies": n, "alpha_psf": "sigma",
    }  # fmt: skip
    (folder / "fit.json").write_text(json.dumps(fit))
    return write_table(CatalogTable(frame, metadata={"alpha_psf": "sigma"}), folder / "cat.parquet")


def again_and_again(model, source, minutes):
    """Label in this process until the time is over; print resident memory and open files ten times."""
    import truemorph as tm

    began, shown, rounds = time.monotonic(), 0, 0
    while shown <= 10:
        out = source.with_suffix(".parquet")
        out.unlink(missing_ok=True)  # otherwise, nothing is left to be labelled
        tm.label_galaxies(model, source, out=out)
        rounds += 1
        if time.monotonic() - began >= 60 * minutes * shown / 10:
            megabytes = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
            files = len(os.listdir("/proc/self/fd"))
            seconds = time.monotonic() - began
            print(
                f"after {rounds:,} labellings, {seconds:.0f} s: {megabytes:.0f} MB, {files} open files", file=sys.stderr
            )
            shown += 1


def main(many=100_000, minutes=0):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = small_model(folder)
        labelled(model, write_images(folder / "first", 1, "folder"), "--out", folder / "first.parquet")  # converts it
        print("| | peak memory, MB | seconds |\n|---|---|---|")
        for kind in ("tar", "folder"):
            for n in (FEW, many):
                source = write_images(folder / f"{kind}-{n}", n, kind)
                peak, seconds = labelled(model, source, "--out", folder / f"{kind}-{n}.parquet")
                print(f"| {kind}, {n:,} images | {peak:.0f} | {seconds:.1f} |", flush=True)
        if minutes:
            again_and_again(model, folder / f"tar-{FEW}", minutes)
        path = catalogue(folder, 1_000_000)
        peak, seconds = labelled(folder / "fit.json", path, "--out", folder / "posteriors.parquet")
        print(f"| posteriors of 1,000,000 rows without images | {peak:.0f} | {seconds:.1f} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
