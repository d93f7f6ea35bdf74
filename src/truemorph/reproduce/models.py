"""θ, and the classifiers ResNet50 on GZ2B, ResNet50 on GZ2D, DCV14 and DDB, which label the test galaxies."""

import shlex
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.bias.files import write_fit
from truemorph.bias.result import Settings
from truemorph.catalogs.sampling import TRAIN, UNUSED
from truemorph.classifiers.learned import fit_catalogue
from truemorph.classifiers.train import NOT_THE_RESULT, train_on_catalogue
from truemorph.config import NAIVE, RunConfig, TrainingConfig, run_config, run_toml, training_config
from truemorph.errors import InputError, TruemorphError
from truemorph.findings import Finding
from truemorph.io import write_file
from truemorph.reproduce.catalogue import BEST_ALPHA, DEBIASED
from truemorph.reproduce.paper import DCV14, DDB, PAPER, RESNET_GZ2B, RESNET_GZ2D
from truemorph.reproduce.stages import CATALOGUE, TEST_ROWS, Stage, Values, Work, images_digest, rows_digest
from truemorph.tables import CatalogTable, numeric_columns

FIT, LABELS, MODEL = "theta.json", "labels.parquet", "model"
# Networks, and the files of labels that they learn.
_LEARNED = {RESNET_GZ2B: CATALOGUE, RESNET_GZ2D: DEBIASED, DDB: CATALOGUE}
NETWORKS = tuple(_LEARNED)
_LEARNED_FROM = ("object_id", "label", "alpha", "split", "sampling_weight", "image")
_TRAINING_ROWS = (f"split={TRAIN}",)
# Other numbers of galaxies per bin for θ.
_PER_BIN = (16, 32, 128, 256, 1024)
_FEWEST = 20
_UNWEIGHTED, _WEIGHTED = "likelihood, no bins", "likelihood, weights that undo the selection by label"
_APART = 1000  # between the seeds of trainings


def _fit_theta(work: Work, folder: Path) -> Values:
    """Fit θ of DDB with the paper's estimator on the training set (section 2.3.3), and with others for comparison."""
    catalogue = work.catalogue()
    training = int((catalogue.frame["split"] == TRAIN).sum())
    fit, described = fit_catalogue(catalogue, Settings("binned", "rayleigh"), _TRAINING_ROWS)
    write_fit(described, fit.plot().figure, folder / FIT)

    likelihood = Settings("likelihood", "rayleigh", delta=None)  # only θ is compared
    others = [
        (_UNWEIGHTED, catalogue, likelihood, _TRAINING_ROWS),
        ("the same, all galaxies", catalogue, likelihood, ()),
    ]
    for n in _PER_BIN:
        if (bins := training // n) > 4:
            binned = replace(likelihood, method="binned", bins=bins)
            others.append((f"{bins:,} bins of {n:,}", catalogue, binned, _TRAINING_ROWS))
    changed = {_WEIGHTED: pl.col("draw_weight").alias("sampling_weight")}
    if "psfWidth_r_best" in catalogue.frame.columns:
        changed["likelihood, best PSF of all fields"] = BEST_ALPHA.alias("alpha")
    for how, column in changed.items():
        frame = catalogue.frame.with_columns(column).drop_nulls("alpha")
        others.append((how, replace(catalogue, frame=frame), likelihood, _TRAINING_ROWS))
    compared = []
    for how, table, settings, where in others:
        with suppress(InputError):
            fitted = fit_catalogue(table, settings, where)[1]
            compared.append({"how": how, **_theta_of(fitted)})
    return {
        **_theta_of(described),
        "bins": fit.settings.bins,
        "galaxies": described["galaxies"],
        "findings": [*described["findings"], *_shifted_by_selection(compared)],
        "others": compared,
    }


def _theta_of(fit: Values) -> Values:
    """Return θ and its error; None for networks that treat labels as correct."""
    return {"theta": fit["parameters"].get("theta"), "stderr": fit.get("stderr", {}).get("theta")}


def _shifted_by_selection(compared: list[Values]) -> list[Finding]:
    """Return a finding if weights that undo the selection by label change θ by more than its error."""
    fits = {fit["how"]: (fit["theta"], fit["stderr"]) for fit in compared}
    if not {_UNWEIGHTED, _WEIGHTED} <= fits.keys():
        return []
    (plain, _), (weighted, error) = fits[_UNWEIGHTED], fits[_WEIGHTED]
    if error is None or abs(weighted - plain) <= error:
        return []
    text = (
        f"The sample is drawn by label, which shifts θ: it is {plain:.2f} without weights, as in the paper, and "
        f"{weighted:.2f} ± {error:.2f} with weights that undo the selection."
    )
    action = "Compare θ without weights only with the paper's; elsewhere use weights (`weights`)."
    return [Finding("theta-shifted-by-selection", "caution", text, action)]


def network_config(work: Work) -> TrainingConfig:
    """Combine preset and `training` of the inputs to the settings of the networks; each training has another seed."""
    own = {"folds": 1, "seed": work.options.seed, **work.inputs.training}
    config = training_config(_preset(work), **own | {"seed": own["seed"] + _APART * (work.training - 1)})
    if (config.classifier, config.nodes) != ("network", 1):
        raise InputError("reproduce trains networks on one machine: choose preset quick, standard or paper, and 1 node")
    return config


def _preset(work: Work) -> str:
    return work.options.preset or (PAPER if work.options.fraction == 1 else "quick")


def training_plan(work: Work) -> str:
    """Say how long the networks train on this machine, from the time of one step of the network."""
    import torch

    from truemorph.classifiers.module import several_devices
    from truemorph.classifiers.network import GalaxyNetwork, settled_precision, torch_device

    config, options = network_config(work), work.options
    device = torch_device("cuda" if config.device == "gpu" else config.device)
    network, size = GalaxyNetwork(config).to(device), config.batch_size
    images = torch.zeros(size, 3, config.image_size, config.image_size, device=device)
    images = images.to(memory_format=torch.channels_last)
    mixed = settled_precision(config.precision) == "bf16-mixed"
    # On a CPU, the time that this process computes: other processes do not count.
    clock, threads = (time.perf_counter, 1) if device.type == "cuda" else (time.process_time, torch.get_num_threads())
    for _ in range(2):  # the first step allocates memory
        began = clock()
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = network(images).float().square().sum()
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = (clock() - began) / threads
    total = sum(options.counts)
    train, validation, test = options.split(total)
    # Validation takes a third of a step.
    galaxies = total * (train + validation / 3) / (train + validation + test)
    devices = torch.cuda.device_count() if device.type == "cuda" and several_devices(config) else 1
    speed, networks = devices * size / seconds, len(NETWORKS) * config.folds * config.seeds * options.trainings
    return (
        f"{networks} networks ({config.backbone}, {config.image_size} pixels) train for up to {config.epochs} epochs; "
        f"at {speed:,.1f} images/s on {devices} {device.type.upper()} this takes up to "
        f"{networks * config.epochs * galaxies / speed / 3600:,.1f} hours"
    )


def intrinsic_columns(work: Work, frame: pl.DataFrame) -> tuple[str, ...]:
    """Return the columns of CV18's tree if most galaxies have values in all of them; empty otherwise."""
    names = work.inputs.intrinsic
    return names if _known(frame, names).mean() > 0.5 else ()


def _known(frame: pl.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Return which galaxies have values in all columns, bool of shape (N,)."""
    if not all(name in frame.columns and frame[name].dtype.is_numeric() for name in names):
        return np.zeros(frame.height, bool)
    return np.isfinite(numeric_columns(frame, names, "the sample")).all(axis=1)


def _make_network(name: str, work: Work, folder: Path) -> Values:
    run = RunConfig(
        catalogue=str(work.file("catalogue", _LEARNED[name])),
        out=str(folder / MODEL),
        preset=_preset(work),
        transition=(str(work.file("theta", FIT)),) if name == DDB else (),
        labels=None if name == DDB else NAIVE,
        cache=work.options.cache,
        training=network_config(work),
    )
    # DDB labels the whole sample, which is a debiased catalogue, the others test galaxies.
    return _train(work, folder, run, labelled=CATALOGUE if name == DDB else TEST_ROWS)


def _network_settings(name: str, work: Work) -> Values:
    if not work.catalogue().frame["image"].count():
        raise work.lacks("images of the galaxies", "gz2", "`table` with images")
    if name == RESNET_GZ2D and work.inputs.hart is None:
        raise work.lacks("votes debiased by Hart et al. (2016)", "gz2", "`hart`")
    return {
        "rows": rows_digest(work.catalogue(_LEARNED[name]).frame, _LEARNED_FROM),
        "labelled": rows_digest(work.catalogue(CATALOGUE if name == DDB else TEST_ROWS).frame, ("object_id", "image")),
        "images": images_digest(work),
        "training": network_config(work).model_dump(mode="json", exclude=NOT_THE_RESULT),
        "theta": work.result("theta")["theta"] if name == DDB else None,
    }


def _dcv14_settings(work: Work) -> Values:
    frame, features = work.catalogue().frame, work.inputs.features
    trained = _known(frame, features) & (frame["split"] == TRAIN).to_numpy()
    if trained.sum() < _FEWEST:
        raise work.lacks(f"columns {', '.join(features)} (Simard et al. 2011)", "simard", "`table` with these columns")
    rows = rows_digest(frame, (*_LEARNED_FROM, *features))
    return {"rows": rows, "features": features, "seed": work.options.seed}


def _make_dcv14(work: Work, folder: Path) -> Values:
    settings = {"folds": 1, "features": work.inputs.features, "seed": work.options.seed}
    run = run_config(work.file("catalogue", CATALOGUE), settings, preset="dcv14", out=str(folder / MODEL))
    # θ of DCV14 comes from training galaxies, as that of DDB.
    split = pl.when(pl.col("split") == TRAIN).then("split").otherwise(pl.lit(UNUSED)).alias("split")
    catalogue = work.catalogue()
    return _train(work, folder, run, replace(catalogue, frame=catalogue.frame.with_columns(split)))


def _train(
    work: Work, folder: Path, run: RunConfig, catalogue: CatalogTable | None = None, labelled: str = TEST_ROWS
) -> Values:
    """Train, unless an interrupted run has finished training, and label the galaxies of a file of the sample."""
    from truemorph.classifiers.checkpoint import load
    from truemorph.classifiers.module import several_devices
    from truemorph.labelling.label import label_table
    from truemorph.labelling.run import LabelOptions

    if not (folder / MODEL / "config.json").is_file():
        if run.training.classifier == "network" and several_devices(run.training):
            _train_apart(run, folder)
        else:
            train_on_catalogue(run, catalogue)
    model = load(folder / MODEL)
    label_table(model, LabelOptions(source=work.file("catalogue", labelled), out=folder / LABELS))
    history = folder / MODEL / "history.csv"
    return {
        "model_hash": model.model_hash,
        **_theta_of(model.described["transition"]),
        "network": f"{model.config.backbone}, {model.config.image_size} pixels" if model.uses_images else None,
        "epochs": pl.read_csv(history).height if history.is_file() else None,
    }


def _train_apart(run: RunConfig, folder: Path) -> None:
    """Train in a process of its own, which Lightning starts once for each device."""
    settings = write_file(folder / "run.toml", run_toml(run))
    command = f"truemorph train --config {shlex.quote(str(settings))}"
    done = subprocess.run([sys.executable, "-m", *shlex.split(command)], stdout=sys.stderr, check=False)
    if done.returncode:
        raise TruemorphError(f"{command} failed with exit status {done.returncode} (see above)")


def _network_stage(name: str, title: str, *needs: str) -> Stage:
    make, settings = partial(_make_network, name), partial(_network_settings, name)
    return Stage(name, title, make, ("catalogue", *needs), settings=settings)


STAGES = (
    Stage("theta", "θ of DDB from the training labels (section 2.3.3)", _fit_theta, ("catalogue",)),
    _network_stage(RESNET_GZ2B, "network trained on GZ2B, labels treated as correct"),
    _network_stage(RESNET_GZ2D, "network trained on GZ2D, labels treated as correct"),
    Stage(DCV14, "DCV14 on GZ2B: logistic regression and θ, fitted together", _make_dcv14, ("catalogue",),
          settings=_dcv14_settings),
    _network_stage(DDB, "DDB on GZ2B: network trained through T(α)", "theta"),
)  # fmt: skip
