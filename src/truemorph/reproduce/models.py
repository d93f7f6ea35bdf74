"""θ, and the four classifiers: ResNet50 on GZ2B, ResNet50 on GZ2D, DCV14 and DDB; each labels the test galaxies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.classifiers.fits import fit_catalogue, write_fit
from truemorph.classifiers.train import train_on_catalogue
from truemorph.config import RunConfig, run_config
from truemorph.errors import InputError
from truemorph.io import plain
from truemorph.reproduce.catalogue import DEBIASED
from truemorph.reproduce.options import Inputs, ReproduceOptions
from truemorph.reproduce.paper import DCV14, DDB, GZ2D, RESNET_GZ2B, RESNET_GZ2D
from truemorph.reproduce.stages import CATALOGUE, TEST_ROWS, Lacks, Stage, Work
from truemorph.tables import numeric_columns

FIT, LABELS, MODEL = "theta.json", "labels.parquet", "model"
NETWORKS = (RESNET_GZ2B, RESNET_GZ2D, DDB)
# Settings that say where and how fast, not what comes out.
_NOT_THE_RESULT = {"device", "devices", "nodes", "loggers", "compile"}
# Settings that are this experiment's own, whoever asks for others.
_OWN = ("catalogue", "out", "preset", "naive", "transition", "intrinsic", "cache")
_LEARNED_FROM = ("object_id", "label", "alpha", "split", "sampling_weight", "image")
_TRAINING_ROWS = (f"split={TRAIN}",)
# Numbers of bins of θ beside the paper's: galaxies in each.
_PER_BIN = (16, 32, 128, 256, 1024)
_FEWEST = 20


# θ_DDB (section 2.3.3)


def _theta_from(work: Work) -> dict[str, Any]:
    columns = ("object_id", "label", "alpha", "split")
    return {"rows": work.rows_digest(work.catalogue().frame, columns), "alpha": work.catalogue().metadata["alpha"]}


def _fit_theta(work: Work, folder: Path) -> dict[str, Any]:
    """The paper's estimator on the training set; and others, to see how much depends on it."""
    catalogue = work.catalogue()
    training = int((catalogue.frame["split"] == TRAIN).sum())
    bins = work.options.size.theta_bins(training)
    fit, described = fit_catalogue(catalogue, method="binned", bins=bins, where=_TRAINING_ROWS)
    write_fit(described, fit.plot().figure, folder / FIT)
    others = []
    tries: list[tuple[str, dict[str, Any]]] = [
        ("likelihood, no bins", {"method": "likelihood", "where": _TRAINING_ROWS})
    ]
    tries += [
        (f"{training // n:,} bins of {n:,}", {"method": "binned", "bins": training // n, "where": _TRAINING_ROWS})
        for n in _PER_BIN
        if training // n > 4
    ]
    tries += [("the whole sample, likelihood", {"method": "likelihood"})]
    for name, settings in tries:
        try:
            _, other = fit_catalogue(catalogue, **settings)
        except InputError as problem:
            others.append({"how": name, "theta": None, "stderr": None, "problem": str(problem)})
            continue
        others.append({"how": name, "theta": other["parameters"]["theta"], "stderr": other["stderr"].get("theta")})
    return {
        "theta": described["parameters"]["theta"],
        "stderr": described["stderr"].get("theta"),
        "class_fractions": described["class_fractions"],
        "bins": bins,
        "galaxies": described["galaxies"],
        "alpha": described["alpha"],
        "alpha_psf": described["alpha_psf"],
        "findings": described["findings"],
        "others": others,
    }


# Classifiers


def network_config(inputs: Inputs, options: ReproduceOptions, catalogue: Any = "-", **own: Any) -> RunConfig:
    """Settle how networks are trained: preset, `training` of the inputs, and what is `own` to one of them.

    Raises
    ------
    InputError
        If a setting is unknown, another's, or asks for what the paper did not do or several devices.
    """
    if others := [name for name in inputs.training if name in _OWN]:
        how = {name: f"; give `{name}`" for name in ("preset", "cache", "intrinsic")}
        raise InputError(f"{others[0]!r} is no setting of the networks that reproduce takes{how.get(others[0], '')}")
    settings = {"folds": 1, "devices": 1, "seed": options.seed, **inputs.training}
    preset = options.preset or options.size.preset
    run = run_config(catalogue, preset=preset, **{"out": "-", **own}, **settings)
    if run.training.classifier != "network":
        raise InputError("the networks need a preset of networks: quick or paper")
    if run.training.devices != 1 or run.training.nodes != 1:
        raise InputError("reproduce trains on one device; leave devices and nodes at 1")
    if run.votes != "labels":
        raise InputError("reproduce trains on labels, as the paper does; leave votes at labels")
    return run


def network_run(work: Work, name: str, folder: Path) -> RunConfig:
    """How one of the networks is trained.

    Raises
    ------
    InputError
        As of `network_config`.
    """
    stage, file = ("gz2d", DEBIASED) if name == RESNET_GZ2D else ("catalogue", CATALOGUE)
    debiased = name == DDB
    return network_config(
        work.inputs,
        work.options,
        work.outcomes[stage].file(file),
        out=str(folder / MODEL),
        transition=str(work.outcomes["theta"].file(FIT)) if debiased else None,
        naive=None if debiased else True,
        intrinsic=intrinsic_columns(work, work.catalogue().frame) or None,
        cache=None if work.options.cache is None else str(work.options.cache),
    )


def intrinsic_columns(work: Work, frame: pl.DataFrame) -> tuple[str, ...]:
    """Columns of CV18's tree, if most galaxies have values in all of them; empty otherwise."""
    names = work.inputs.intrinsic
    if not names or not all(name in frame.columns and frame[name].dtype.is_numeric() for name in names):
        return ()
    values = numeric_columns(frame, names, "the sample")
    return names if np.isfinite(values).all(axis=1).mean() > 0.5 else ()


def _network_from(name: str) -> Callable[[Work], dict[str, Any] | Lacks]:
    def follows_from(work: Work) -> dict[str, Any] | Lacks:
        from truemorph.classifiers.network import settled_precision

        if not work.catalogue().frame["image"].count():
            how = f"truemorph fetch gz2 --out {work.data / 'gz2'}, or `images`"
            return Lacks("images of the galaxies", how)
        run = network_run(work, name, work.out)
        frame = (work.catalogue("gz2d", DEBIASED) if name == RESNET_GZ2D else work.catalogue()).frame
        return {
            "rows": work.rows_digest(frame, _LEARNED_FROM),
            "labelled": work.rows_digest(work.catalogue("catalogue", TEST_ROWS).frame, ("object_id", "image")),
            "images": work.images_digest(),
            "training": run.training.model_dump(mode="json", exclude=_NOT_THE_RESULT),
            "precision": settled_precision(run.training.precision),
            "theta": work.result("theta")["theta"] if name == DDB else None,
        }

    return follows_from


def _train(work: Work, folder: Path, run: RunConfig) -> dict[str, Any]:
    """Train, unless that was done before the stage was cut off, and label the test galaxies."""
    from truemorph.classifiers.checkpoint import load
    from truemorph.labelling.label import label_table

    if not (folder / MODEL / "config.json").is_file():
        train_on_catalogue(run)
    model = load(folder / MODEL)
    test = work.outcomes["catalogue"].file(TEST_ROWS)
    labelled = label_table(model, test, folder / LABELS, max_bad=1.0)
    described = model.described
    return {
        "model_hash": model.model_hash,
        "backbone": model.config.backbone if model.uses_images else "logistic regression",
        "training": run.training.model_dump(mode="json"),
        "metrics": described["metrics"],
        "transition": {key: described["transition"].get(key) for key in ("family", "parameters", "stderr")},
        "rows": {role: int((model.seen["role"] == role).sum()) for role in model.seen["role"].unique().sort()},
        "labelled": labelled.labelled,
        "not_labelled": len(labelled.problems),
        **_epochs(folder / MODEL / "history.csv"),
    }


def _epochs(history: Path) -> dict[str, Any]:
    if not history.is_file():
        return {}
    story = pl.read_csv(history)
    best = int(story["held_out_loss"].arg_min() or 0) + 1
    return {"epochs": story.height, "best_epoch": best, "train_seconds": story["seconds"][-1]}


def _make_network(name: str, work: Work, folder: Path) -> dict[str, Any]:
    return _train(work, folder, network_run(work, name, folder))


def _dcv14_from(work: Work) -> dict[str, Any] | Lacks:
    frame, features = work.catalogue().frame, work.inputs.features
    have = [name for name in features if name in frame.columns and frame[name].dtype.is_numeric()]
    known = np.zeros(frame.height, bool)
    if len(have) == len(features):
        known = np.isfinite(numeric_columns(frame, features, "the sample")).all(axis=1)
    trained = known & frame["split"].is_in([TRAIN, VALIDATION]).to_numpy()
    if trained.sum() < _FEWEST:
        how = f"truemorph fetch simard --out {work.data / 'simard'}, or `sersic_table`"
        return Lacks(f"columns {', '.join(features)} (Simard et al. 2011)", how)
    return {
        "rows": work.rows_digest(frame, ("object_id", "label", "alpha", "split", "sampling_weight", *features)),
        "features": list(features),
        "seed": work.options.seed,
    }


def _make_dcv14(work: Work, folder: Path) -> dict[str, Any]:
    run = run_config(
        work.outcomes["catalogue"].file(CATALOGUE), preset="dcv14", out=str(folder / MODEL), folds=1,
        features=work.inputs.features, seed=work.options.seed,
    )  # fmt: skip
    result = _train(work, folder, run)
    theta = plain(result["transition"])
    return {**result, "theta": theta["parameters"]["theta"], "stderr": (theta["stderr"] or {}).get("theta")}


STAGES = (
    Stage("theta", "θ of DDB from the training labels (section 2.3.3)", _theta_from, _fit_theta, ("catalogue",)),
    Stage(
        RESNET_GZ2B, "the network on GZ2B, labels at their word", _network_from(RESNET_GZ2B),
        partial(_make_network, RESNET_GZ2B), ("catalogue",),
    ),
    Stage(
        RESNET_GZ2D, "the network on GZ2D, labels at their word", _network_from(RESNET_GZ2D),
        partial(_make_network, RESNET_GZ2D), ("catalogue", GZ2D),
    ),
    Stage(DCV14, "DCV14 on GZ2B: logistic regression and θ by EM", _dcv14_from, _make_dcv14, ("catalogue",)),
    Stage(
        DDB, "DDB on GZ2B: the network through T(α)", _network_from(DDB), partial(_make_network, DDB),
        ("catalogue", "theta"),
    ),
)  # fmt: skip
