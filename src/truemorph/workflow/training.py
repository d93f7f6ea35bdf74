"""What `train` does: a catalogue in, a checkpoint out."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.families import transition_from_dict, transition_to_dict
from truemorph.bias.transitions import Transition
from truemorph.catalogs.catalogue import image_folder, read_catalogue
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.catalogs.tables import CatalogTable, write_table
from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.workflow.files import plain
from truemorph.workflow.fitting import fit_catalogue

# Above this size pixels go to a file on disk instead of memory.
_PIXELS_IN_MEMORY = 2**30


def _catalogue_hash(frame: pl.DataFrame) -> str:
    content = frame.select("object_id", "label", "alpha", "split").write_csv()
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def train_on_catalogue(
    catalogue_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: TrainingConfig,
    *,
    transition: dict[str, Any] | None = None,
    naive: bool = False,
    where: Iterable[str] = (),
) -> dict[str, Any]:
    """Train a classifier on a prepared catalogue and write its checkpoint.

    Parameters
    ----------
    catalogue_path, out : path
    config : TrainingConfig
    transition : dict, optional
        A fit from `read_fit`. Without one, θ is fitted here: to all rows of the catalogue by likelihood for a
        network, by EM together with the regression for a logistic classifier.
    naive : bool
        Take labels at their word.
    where : iterable of str
        "column=value" conditions on the galaxies that θ is fitted to, where it is fitted here.

    Returns
    -------
    dict
        Rows used and left out, T(α), metrics, seconds.

    Raises
    ------
    InputError
        If settings contradict each other, or the catalogue can't be trained on.
    """
    # torch takes seconds to import: only where a classifier is trained.
    from truemorph.bias.transitions import MatrixTransition
    from truemorph.classifiers.checkpoint import Classifier, check_model_folder, describe, save_classifier
    from truemorph.classifiers.training import TrainingRows, train_members

    if naive and transition is not None:
        raise InputError("--naive and --transition exclude each other")
    began = time.perf_counter()
    check_model_folder(out)  # before hours of training, not after
    catalogue = read_catalogue(catalogue_path)
    network = config.classifier == "network"
    described = dict(transition or {})
    if naive:
        identity = transition_to_dict(MatrixTransition.identity())
        described = {**identity, "assumption": "labels taken at their word (naive training)"}
    elif not described and network:
        _, described = fit_catalogue(catalogue, where=where)
    if transition is not None and transition.get("alpha_psf") not in (
        None,
        catalogue.metadata.get("alpha_psf"),
    ):
        raise InputError(
            f"theta was fitted with alpha in units of PSF {transition['alpha_psf']}, this catalogue has PSF "
            f"{catalogue.metadata.get('alpha_psf')}; fit it again or prepare with the same --psf"
        )
    used: Transition | None = transition_from_dict(described) if described else None
    if used is not None and len(getattr(used, "center", ())) > 1:
        raise InputError("training takes a T(alpha) of one observable; this one has several")

    in_training = catalogue.frame.filter(pl.col("split").is_in([TRAIN, VALIDATION]))
    with tempfile.TemporaryDirectory(prefix="truemorph-") as scratch:
        if network:
            frame, inputs, problems = _pixels(in_training, catalogue, config, Path(scratch))
        else:
            frame, inputs, problems = _features(in_training, catalogue, config)
        loaded = time.perf_counter()
        trained = train_members(TrainingRows(frame, inputs), used, config, "naive" if naive else "debiased")
        del inputs
    if used is None:
        described = {
            **transition_to_dict(trained.transition),
            "stderr": {k.removesuffix("_stderr"): v for k, v in trained.metrics.items() if k.endswith("_stderr")},
            "method": "EM with logistic regression (DCV14)",
            "assumption": "p(y | features) is logistic, flips depend on the true class and alpha alone",
            "alpha": catalogue.metadata.get("alpha"),
            "alpha_psf": catalogue.metadata.get("alpha_psf"),
        }
    source = {
        "source": Path(catalogue_path).name,
        "rows": trained.seen.height,
        "sha256": _catalogue_hash(catalogue.frame),
        **{key: catalogue.metadata.get(key) for key in ("alpha", "alpha_psf", "votes", "label_rule")},
    }
    content = plain(
        describe(
            config,
            described,
            catalogue=source,
            members=len(trained.members),
            metrics=trained.metrics,
            normalisation={"mean": trained.mean, "std": trained.std},
        )
    )
    folder = save_classifier(Classifier(content, trained.members, trained.seen), out)
    if trained.history:
        pl.DataFrame(trained.history).write_csv(folder / "history.csv")
    if problems:
        listed = pl.DataFrame(problems, schema=["object_id", "reason"], orient="row")
        write_table(CatalogTable(listed), folder / "left_out.csv")
    return {
        "out": str(folder),
        "rows": trained.seen.height,
        "left_out": len(problems),
        "transition": described,
        "metrics": trained.metrics,
        "seconds": {"load": loaded - began, "train": time.perf_counter() - loaded},
    }


def _pixels(
    frame: pl.DataFrame, catalogue: CatalogTable, config: TrainingConfig, scratch: Path
) -> tuple[pl.DataFrame, np.ndarray, list[tuple[str, str]]]:
    from truemorph.images.store import load_images

    root = image_folder(catalogue)
    absent = frame.filter(pl.col("image").is_null())
    problems = [(str(one), "no image") for one in absent["object_id"]]
    frame = frame.filter(pl.col("image").is_not_null())
    if frame.height == 0:
        raise InputError(
            f"{catalogue.path}: no training galaxy has an image; prepare with --images, or use --preset dcv14"
        )
    size = config.image_size
    file = scratch / "pixels.npy" if frame.height * size * size * 3 > _PIXELS_IN_MEMORY else None
    store = load_images([root / name for name in frame["image"]], size, config.crop, file)
    bad = frame.filter(~pl.Series(store.good))["object_id"].to_list()
    problems += [(str(one), why) for one, (_, why) in zip(bad, store.problems, strict=True)]
    # Bad images keep their (zero) row of pixels and leave the split: nothing is copied.
    good = pl.Series(store.good)
    return (
        frame.with_columns(split=pl.when(good).then("split").otherwise(pl.lit("left_out"))),
        store.pixels,
        problems,
    )


def _features(
    frame: pl.DataFrame, catalogue: CatalogTable, config: TrainingConfig
) -> tuple[pl.DataFrame, np.ndarray, list[tuple[str, str]]]:
    from truemorph.classifiers.features import logistic_inputs

    features = logistic_inputs(frame, config.features, str(catalogue.path))
    finite = np.isfinite(features).all(axis=1)
    problems = [(str(one), "a feature is missing") for one in frame.filter(~pl.Series(finite))["object_id"]]
    return frame.filter(pl.Series(finite)), features[finite], problems
