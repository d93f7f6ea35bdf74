"""How every network of the leaderboard is trained, and where it is kept."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from truemorph.benchmark.cache import Cache, digest
from truemorph.benchmark.worlds import World
from truemorph.bias.transitions import MatrixTransition, Transition, transition_to_dict
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.classifiers.checkpoint import Classifier, load, save_classifier
from truemorph.classifiers.members import TrainingRows, train_members
from truemorph.config import TrainingConfig
from truemorph.io import content_hash

BATCH = 512


@dataclass
class Workbench:
    """A world, how networks are trained on it, where they are kept, and the CPU seconds that learning took."""

    world: World
    config: TrainingConfig
    cache: Cache
    seconds: float = 0.0

    def clock(self, began: float) -> None:
        """Add the CPU time since."""
        self.seconds += time.process_time() - began

    def network(
        self,
        labels: np.ndarray,
        transition: Transition | None = None,
        *,
        folds: int = 1,
        kept: np.ndarray | None = None,
        extra: tuple[np.ndarray, np.ndarray] | None = None,
        evidence: np.ndarray | None = None,
    ) -> Classifier:
        """Train on the world's training galaxies, or take the network from an earlier run.

        Parameters
        ----------
        labels : array, shape (N,)
        transition : Transition, optional
            T(α) of the loss; labels are taken at their word without.
        folds : int
        kept : array of bool, shape (N,), optional
            Training galaxies to leave in.
        extra : (array of uint8, array of int), optional
            More pictures, and the rows whose labels and α they share.
        evidence : array, shape (N, 2), optional
            log p(votes | y) of each galaxy, in place of its label.
        """
        world = self.world
        through = transition or MatrixTransition.identity()
        config = self.config.model_copy(update={"folds": folds, "seed": world.seed})
        identity = {
            "world": world.config,
            "labels": digest({"labels": labels.tolist()}),
            "transition": transition_to_dict(through),
            "kept": None if kept is None else digest({"kept": kept.tolist()}),
            "extra": None
            if extra is None
            else digest({"rows": extra[1].tolist(), "pixels": hashlib.sha256(extra[0].tobytes()).hexdigest()}),
            "training": config.model_dump(mode="json"),
        }
        if evidence is not None:
            identity["evidence"] = digest({"evidence": np.round(evidence, 6).tolist()})
        folder = self.cache.path("network", identity)
        spent = folder / "history.csv"  # one of a checkpoint's own files: holds the seconds
        if folder.is_dir() and spent.is_file():
            self.seconds += float(pl.read_csv(spent)["seconds"][0])
            return load(folder)
        began = time.process_time()
        rows = world.rows(TRAIN, VALIDATION)
        if kept is not None:
            rows = rows[kept[rows] | (world.split[rows] == VALIDATION)]
        pixels = np.asarray(world.images[rows])
        ids = rows
        split = world.split[rows]
        if extra is not None:
            pixels = np.concatenate([pixels, extra[0]])
            ids, split = np.concatenate([rows, extra[1]]), np.concatenate([split, np.full(len(extra[1]), TRAIN)])
        frame = pl.DataFrame({"object_id": ids, "label": labels[ids], "alpha": world.alpha[ids], "split": split})
        observed = None if evidence is None else evidence[ids]
        model = train_members(TrainingRows(frame, pixels, observed), through, config, f"{world.name} {world.seed}")
        model.described["catalogue"] |= {
            "alpha": "R_petro / sigma_PSF",
            "source": world.name,
            "rows": len(ids),
            "sha256": content_hash(identity),
            "votes": world.definition,
        }
        rests_on = "benchmark" if evidence is None else "benchmark; learned from votes, this T was not used"
        model.described["transition"] = {**transition_to_dict(through), "assumption": rests_on}
        # Copies of a galaxy are one galaxy.
        model = replace(model, seen=model.seen.unique("object_id", maintain_order=True))
        save_classifier(model, folder)
        took = time.process_time() - began
        pl.DataFrame({"seconds": [took]}).write_csv(spent)
        self.seconds += took
        return model


def probabilities(model: Classifier, images: np.ndarray) -> np.ndarray:
    """p(disk) of many pictures, in batches."""
    starts = range(0, len(images), BATCH)
    return np.concatenate([model.probabilities(np.asarray(images[s : s + BATCH]))[:, 1] for s in starts])
