"""Accuracy that `truemorph train` reaches: the numbers of docs/training.md.

    python benchmarks/what_training_reaches.py curve [SIZE ...] | paper
    python benchmarks/what_training_reaches.py precision DATA | presets DATA | challenge DATA

curve: preset "quick" on simulated galaxies with flipped labels, with the true T(α), naive, and on true classes, for
several sizes of the training set; balanced accuracy / AUC / log-loss vs truth. paper: preset "paper" after few and
more steps on 8,000 simulated galaxies, beside "quick", with the true T(α). precision: bf16 and float32 on degraded
EFIGI galaxies. presets: "paper", "standard" and "quick" on the same, at 48 pixels and 10 epochs, a seed per core.
challenge: five folds on Galaxy Zoo challenge images, bias before and after.
"""

import os
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

import truemorph as tm
from truemorph.benchmark.worlds import Sizes, make_world
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.bias.metrics.scores import score
from truemorph.catalogs.sampling import TRAIN
from truemorph.classifiers.members import TrainingRows, train_members
from truemorph.config import training_config
from truemorph.workers import worker_pool

TRAINED = {"truth": "trained on true classes", "right T(α)": "true T(α)", "naive": "naive"}
PRESETS = ("paper", "standard", "quick")
SHOWN = ("balanced_accuracy", "auc", "log_loss")


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
    rows = TrainingRows(frame, world.images)
    found = train_members(rows, transition, config, what)
    return found, time.perf_counter() - began


def scored(world, model):
    """Scores on test galaxies."""
    rows = world.scored
    p = np.concatenate([model.probabilities(part)[:, 1] for part in np.array_split(world.images[rows], 8)])
    labels = (p > 0.5).astype(np.int64)
    return score(world.truth[rows], world.alpha[rows], labels, p, world.intrinsic[rows])


def table(first, heads, rows):
    """Print a table; rows: cells by their name."""
    print(f"| {first} | {' | '.join(heads)} |\n|---" + "|---" * len(heads) + "|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def cell(values):
    return " / ".join(f"{value:.3f}" for value in values)


def main_scores(world, model):
    found = scored(world, model)
    return [found[name] for name in SHOWN]


def curve(sizes):
    world, rows = make_world("plain", 0, Sizes()), {}
    train = np.random.default_rng(0).permutation(world.rows(TRAIN))
    for size in sizes or (500, 1000, 2000, 4000, 8000):
        # About as many steps for each size: the smaller sets are seen more often.
        config = training_config("quick", crop=1.0, folds=1, epochs=max(12, 12 * 4000 // size), patience=100)
        models = (trained_on(world, what, config, train[:size])[0] for what in TRAINED)
        rows[f"{size:,}"] = [cell(main_scores(world, model)) for model in models]
    table("training galaxies", TRAINED.values(), rows)


def paper():
    """Preset "paper" needs many steps: 64 pixels, one network, one seed, on one core."""
    world, rows = make_world("plain", 0, Sizes()), {}
    batches = -(-len(world.rows(TRAIN)) // training_config("paper").batch_size)
    for preset, epochs in (("paper", 2), ("paper", 8), ("quick", 12)):
        config = training_config(preset, crop=1.0, folds=1, image_size=64, epochs=epochs)
        model, seconds = trained_on(world, "right T(α)", config)
        steps = f", {batches * epochs:,} steps" if preset == "paper" else ""
        rows[f"`{preset}`, {epochs} epochs{steps}"] = [
            *(f"{one:.3f}" for one in main_scores(world, model)),
            f"{seconds:.0f} s",
        ]
    table("", ["balanced accuracy", "AUC", "log-loss", "one core"], rows)


def precision(data):
    """bf16 against float32: EFIGI, true T(α), one network each."""
    world, rows = make_world("real", 0, Sizes(), data), {}
    for name, kind in {"float32": "32-true", "bf16": "bf16-mixed"}.items():
        found = []
        for seed in range(3):
            config = training_config("quick", crop=1.0, folds=1, precision=kind, seed=seed)
            found.append(scored(world, trained_on(world, "right T(α)", config)[0]))
        cells = [[one[score] for one in found] for score in (*SHOWN, "fraction_rms_soft")]
        rows[name] = [f"{np.mean(some):.3f} ± {np.std(some, ddof=1):.3f}" for some in cells]
    table("", ["balanced accuracy", "AUC", "log-loss", "rms error of the disk fraction"], rows)


def presets_of(seed, data):
    """Scores and seconds of each preset at a size that two CPU cores can train: 48 pixels, one network, 10 epochs."""
    world, found = make_world("real", seed, Sizes(twins=1, pixels=48), data), {}
    for preset in PRESETS:
        config = training_config(preset, crop=1.0, folds=1, image_size=48, epochs=10, seed=seed)
        model, seconds = trained_on(world, "right T(α)", config)
        found[preset] = [*main_scores(world, model), seconds]
    return found


def presets(data):
    """Compare presets on EFIGI, three seeds, true T(α)."""
    seeds = range(3)
    with worker_pool(os.cpu_count()) as pool:
        found = list(pool.map(presets_of, seeds, [data] * len(seeds)))
    rows = {}
    for preset in PRESETS:
        values = np.array([one[preset] for one in found])
        *scores, seconds = zip(values.mean(axis=0), values.std(axis=0, ddof=1), strict=True)
        rows[f"`{preset}`"] = [*(f"{mean:.3f} ± {std:.3f}" for mean, std in scores), f"{seconds[0]:.0f} s"]
    away = np.array([np.subtract(one["standard"], one["paper"])[:3] for one in found])
    errors = zip(away.mean(axis=0), away.std(axis=0, ddof=1) / np.sqrt(len(away)), strict=True)
    differences = [f"{mean:.3f} ± {error:.3f}" for mean, error in errors]
    rows["`standard` minus `paper`, same seed (± standard error)"] = [*differences, ""]
    table("", ["balanced accuracy", "AUC", "log-loss", "one core"], rows)


def challenge(data):
    """Train five folds on Galaxy Zoo challenge images; bias of labels before and after."""
    votes = pl.read_csv(data / "gz2_challenge_images.csv")
    votes = votes.with_columns(image=pl.col("image").str.split("/").list.last())
    with TemporaryDirectory() as name:
        folder = Path(name)
        catalogue, model, labels = (folder / one for one in ("cat.parquet", "model", "labels.parquet"))
        tm.prepare_catalogue(
            votes, preset="gz-challenge", radius="petroR90_est", psf_fwhm=1.32, images=data / "gz2_challenge_images",
            split=(0.9, 0.1, 0), out=catalogue,
        )  # fmt: skip
        whole = ("selection=unselected",)
        fit = tm.estimate_transition(catalogue, where=whole)
        tm.train_classifier(catalogue, transition=fit, out=model, settings={"folds": 5})
        tm.label_galaxies(model, catalogue, out=labels)
        every, some = (tm.measure_bias(catalogue, labels=labels, where=where) for where in ((), whole))
    print(f"{every.galaxies:,} galaxies, of which {some.galaxies} were not selected by their votes.\n")
    rows = {}
    for name, result in some.results.items():
        fractions = ", ".join(f"{value:.2f}" for value in some.fractions_by_alpha[name])
        rows[name] = [f"{every.results[name].excess:.3f}", f"{result.excess:.3f}", fractions]
    heads = ["CV14 above floor, all", "CV14 above floor, not selected", "disk fractions, not selected"]
    table("", heads, rows)


def main(what, *where):
    warnings.filterwarnings("ignore", category=FutureWarning)
    if what == "curve":
        curve([int(size) for size in where])
    elif what == "paper":
        paper()
    else:
        {"precision": precision, "presets": presets, "challenge": challenge}[what](Path(where[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
