"""Probabilities of each engine and precision, compared with plain torch in float32: a table of docs/labelling.md.

    python benchmarks/labelling_precision.py DATA

Preset "quick" on simulated galaxies, and ResNet50 of preset "standard" (3 epochs, one network) on the images of Galaxy
Zoo 2 in DATA. They are also its training images, which does not matter for differences between engines.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from what_training_reaches import trained_on

from truemorph.benchmark.worlds import Sizes, make_world
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.classifiers.checkpoint import load, save_classifier
from truemorph.classifiers.engines import engine_for
from truemorph.classifiers.members import TrainingRows, train_members
from truemorph.config import training_config
from truemorph.images.decode import pixel_batches

ENGINES = (("torch", "fp32"), ("openvino", "fp32"), ("torch", "bf16"), ("openvino", "bf16"))
BATCH = 256


def simulated():
    """Train on simulated galaxies; return the model and its test galaxies."""
    world = make_world("plain", 0, Sizes())
    model, _ = trained_on(world, "right T(α)", training_config("quick", crop=1.0, folds=1))
    return model, world.images[world.scored]


def real(data):
    """Train on Galaxy Zoo 2; return the model and the same galaxies."""
    config = training_config("standard", folds=1, epochs=3)
    votes = pl.read_csv(data / "gz2_images.csv")
    parts = pixel_batches([data / name for name in votes["image"]], config)
    images = np.concatenate([np.stack(batch) for _, batch in parts])
    disk, smooth = (votes[f"t01_smooth_or_features_a0{one}_fraction"] for one in ("2_features_or_disk", "1_smooth"))
    split = np.where(np.arange(len(images)) % 5, TRAIN, VALIDATION)
    frame = pl.DataFrame({
        "object_id": np.arange(len(images)), "label": (disk > smooth).cast(pl.Int64), "alpha": 5.0, "split": split,
    })  # fmt: skip
    return train_members(TrainingRows(frame, images), MatrixTransition.identity(), config, "votes"), images


def probabilities(of, images):
    """p(second class) in batches, shape (N,)."""
    return np.concatenate([of(images[first : first + BATCH], 0)[:, 1] for first in range(0, len(images), BATCH)])


def compared(model, images):
    """Cells of the table, by engine and precision."""
    with TemporaryDirectory() as folder:
        model = load(save_classifier(model, Path(folder) / "model"))
        reference = probabilities(model.member_probabilities, images)
        found = {}
        for name, precision in ENGINES:
            p = probabilities(engine_for(model, name, precision).member, images)
            differ = np.mean((p > 0.5) != (reference > 0.5))
            found[name, precision] = [
                f"{np.abs(p - reference).max():.0e}", f"{np.mean(p - reference):+.0e}", f"{100 * differ:.2f} %",
            ]  # fmt: skip
    return found


def main(data):
    sets = {"`quick`, {:,} simulated galaxies": simulated(), "ResNet50, {:,} images of Galaxy Zoo 2": real(Path(data))}
    tables = [compared(*label_set) for label_set in sets.values()]
    heads = [
        f"{name.format(len(images))}: largest difference | mean | labels that differ"
        for name, (_, images) in sets.items()
    ]
    print("| | " + " | ".join(heads) + " |\n|---" + "|---" * 3 * len(heads) + "|")
    for name, precision in ENGINES:
        cells = [cell for table in tables for cell in table[name, precision]]
        print(f"| {name}, {precision} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
