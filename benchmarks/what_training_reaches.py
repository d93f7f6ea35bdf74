"""Accuracy that `truemorph train` reaches: the numbers of docs/training.md.

    python benchmarks/what_training_reaches.py quick | curve [SIZE ...]
    python benchmarks/what_training_reaches.py real DATA | precision DATA | presets DATA | challenge DATA OUT

quick: preset "quick" on simulated galaxies, with the true T(α), naive, and on true classes. curve: the same for several
sizes of the training set, one network each. real: degraded EFIGI galaxies with flipped labels. precision: bf16 and
float32 on the same galaxies. presets: "paper", "standard" and "quick" at 48 pixels and 10 epochs, three seeds,
simulated and EFIGI. challenge: five folds on Galaxy Zoo challenge images, bias before and after.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.benchmark.worlds import Sizes, make_world
from truemorph.bias.curves import MatrixTransition
from truemorph.bias.scores import score
from truemorph.catalogs.sampling import TRAIN
from truemorph.classifiers.members import TrainingRows, train_members
from truemorph.config import training_config

SHOWN = ("balanced_accuracy", "auc", "log_loss", "fraction_rms_soft", "cv18_excess")


def labels_of(world, what):
    """Labels and the T(α) to train through."""
    if what == "truth":
        return world.truth, MatrixTransition.identity()
    return world.labels, world.transition if what == "right T(α)" else MatrixTransition.identity()


def trained_on(world, what, config, kept=None):
    """Train a classifier; return it with the seconds it took."""
    labels, transition = labels_of(world, what)
    split = world.split.copy()
    if kept is not None:
        split[np.setdiff1d(world.rows(TRAIN), kept)] = "left_out"
    frame = pl.DataFrame({"object_id": np.arange(labels.size), "label": labels, "alpha": world.alpha, "split": split})
    began = time.perf_counter()
    rows = TrainingRows(frame, world.images, intrinsic=world.intrinsic)
    found = train_members(rows, transition, config, what)
    return found, time.perf_counter() - began


def scored(world, model):
    """Scores on test galaxies."""
    rows = world.scored
    p = np.concatenate([model.probabilities(part)[:, 1] for part in np.array_split(world.images[rows], 8)])
    labels = (p > 0.5).astype(np.int64)
    return score(world.truth[rows], world.alpha[rows], labels, p, world.intrinsic[rows])


def line(title, found, seconds):
    numbers = "  ".join(f"{found[name]:.3f}" for name in SHOWN)
    print(f"{title:28} {numbers}  {seconds:6.0f}", flush=True)


def heading(text):
    print(f"\n{text}\n{'':28} {'  '.join(SHOWN)}  seconds", flush=True)


def preset_quick(world, title):
    heading(title)
    for what in ("truth", "right T(α)", "naive"):
        model, seconds = trained_on(world, what, training_config("quick", crop=1.0))
        line(what, scored(world, model), seconds)


def curve(sizes):
    world = make_world("plain", 0, Sizes())
    train = np.random.default_rng(0).permutation(world.rows(TRAIN))
    for size in sizes or (500, 1000, 2000, 4000, 8000):
        heading(f"{size} training galaxies")
        # About as many steps for each size: the smaller sets are seen more often.
        config = training_config("quick", crop=1.0, folds=1, epochs=max(12, 12 * 4000 // size), patience=100)
        for what in ("truth", "right T(α)", "naive"):
            model, seconds = trained_on(world, what, config, train[:size])
            line(what, scored(world, model), seconds)


def precision(world):
    heading("bf16 against float32, EFIGI, right T(α), three seeds")
    for seed in range(3):
        for kind in ("32-true", "bf16-mixed"):
            config = training_config("quick", crop=1.0, folds=1, precision=kind, seed=seed)
            model, seconds = trained_on(world, "right T(α)", config)
            line(f"{kind}, seed {seed}", scored(world, model), seconds)


def presets(data):
    """Compare presets at a size that two CPU cores can train: 48 pixels, one network, 10 epochs."""
    for title, name, sizes in (
        ("simulated, 1,200 + 200 galaxies", "plain", Sizes(1200, 200, 3000, twins=1, pixels=48)),
        ("EFIGI degraded, 1,552 + 217 galaxies", "real", Sizes(twins=1, pixels=48)),
    ):
        heading(title)
        for seed in range(3):
            world = make_world(name, seed, sizes, data)
            for preset in ("paper", "standard", "quick"):
                config = training_config(preset, crop=1.0, folds=1, image_size=48, epochs=10, seed=seed)
                model, seconds = trained_on(world, "right T(α)", config)
                line(f"{preset}, seed {seed}", scored(world, model), seconds)


def challenge(data, out):
    """Train five folds on Galaxy Zoo challenge images, by the commands that a user would run."""
    from truemorph.cli import main as truemorph

    out = Path(out)
    table = pl.read_csv(data / "gz2_challenge_images.csv")
    table = table.with_columns(image=pl.col("image").str.split("/").list.last(), psf_fwhm=pl.lit(1.32))
    out.mkdir(parents=True, exist_ok=True)
    table.write_csv(out / "votes.csv")
    catalogue, fit, model, labels = (str(out / one) for one in ("cat.parquet", "fit.json", "model", "labels.parquet"))
    for command in (
        ("prepare", str(out / "votes.csv"), "--preset", "gz-challenge", "--radius", "petroR90_est",
         "--psf-fwhm", "1.32", "--images", str(data / "gz2_challenge_images"), "--split", "0.9,0.1,0",
         "--out", catalogue),
        ("transition", catalogue, "--where", "selection=unselected", "--out", fit),
        ("train", catalogue, "--transition", fit, "--folds", "5", "--out", model),
        ("label", model, catalogue, "--out", labels),
        ("bias", catalogue, "--labels", labels),
        ("bias", catalogue, "--labels", labels, "--where", "selection=unselected"),
    ):  # fmt: skip
        print("truemorph", *command, flush=True)
        truemorph(command)


def main(what, *where):
    warnings.filterwarnings("ignore", category=FutureWarning)
    if what == "quick":
        preset_quick(make_world("plain", 0, Sizes()), "preset quick, 8,000 + 800 simulated galaxies")
    elif what == "curve":
        curve([int(size) for size in where])
    elif what in ("real", "precision"):
        world = make_world("real", 0, Sizes(), Path(where[0]))
        if what == "precision":
            precision(world)
        else:
            preset_quick(world, f"preset quick, {world.rows(TRAIN).size} EFIGI galaxies, degraded")
    elif what == "presets":
        presets(Path(where[0]))
    else:
        challenge(Path(where[0]), where[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
