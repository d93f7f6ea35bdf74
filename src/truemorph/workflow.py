"""What each verb does: files in, files out, and a result as plain data for `--json`, the demo and the report."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.binning import choose_bins
from truemorph.bias.estimation import TransitionFit, fit_transition
from truemorph.bias.families import transition_from_dict, transition_to_dict
from truemorph.bias.metrics import BiasResult, cv14, cv18
from truemorph.bias.transitions import CLASS_NAMES, Transition
from truemorph.catalogs.prepare import Preparation, image_folder, read_catalogue, rows_where
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.catalogs.schema import numeric_columns
from truemorph.catalogs.tables import CatalogTable, read_table, write_table
from truemorph.config import TrainingConfig
from truemorph.errors import InputError

# Above this size pixels go to a file on disk instead of memory.
_PIXELS_IN_MEMORY = 2**30


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write JSON that appears whole or not at all; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    partial.write_text(json.dumps(plain(content), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path


def plain(value: Any) -> Any:
    """Turn numpy numbers and arrays, tuples and NaN into what JSON holds."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def preparation_result(prepared: Preparation, out: Path) -> dict[str, Any]:
    """Summarise `truemorph prepare`."""
    frame = prepared.catalogue.frame
    labels = frame["label"].to_numpy()
    return {
        "out": str(out),
        "funnel": dict(prepared.funnel),
        "labels": {name: int((labels == k).sum()) for k, name in enumerate(CLASS_NAMES)},
        "splits": dict(sorted(frame["split"].value_counts().rows())),
        "with_image": int(frame["image"].is_not_null().sum()),
        "alpha": prepared.catalogue.metadata["alpha"],
        "notes": prepared.notes,
    }


def label_sets(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """The label sets of a joined table: the crowd's, and a model's hard, soft and posterior ones."""
    sets = {"crowd labels": frame["label"].to_numpy()}
    if "model_label" in frame.columns:
        sets["model labels"] = frame["model_label"].to_numpy()
        sets["model probabilities"] = frame.select("p_smooth", "p_disk").to_numpy()
    if "posterior_disk" in frame.columns:
        # Where the model memorised a galaxy there is no posterior: NaN rows are left out and counted.
        sets["posterior probabilities"] = frame.select(
            pl.col("posterior_smooth", "posterior_disk").fill_null(float("nan"))
        ).to_numpy()
    if "truth" in frame.columns and frame["truth"].dtype.is_integer():
        sets["truth"] = frame["truth"].to_numpy()
    return sets


def join_labels(catalogue: CatalogTable, labels_path: str | os.PathLike[str]) -> pl.DataFrame:
    """Catalogue rows with a model's labels beside; rows the model did not label are left out.

    Raises
    ------
    InputError
        If the file holds no labels, or none of this catalogue's galaxies.
    """
    labels = read_table(labels_path).frame
    if "p_disk" not in labels.columns:
        raise InputError(f"{labels_path}: holds no labels (no column p_disk); make them with `truemorph label`")
    wanted = [n for n in ("p_smooth", "p_disk", "posterior_smooth", "posterior_disk", "relation") if n in labels]
    chosen = labels.select(
        pl.col("object_id").cast(pl.String), pl.col("label").alias("model_label"), *map(pl.col, wanted)
    )
    own = catalogue.frame.drop([name for name in chosen.columns if name != "object_id"], strict=False)
    joined = own.with_columns(pl.col("object_id").cast(pl.String)).join(
        chosen, on="object_id", how="inner", maintain_order="left"
    )
    if joined.height == 0:
        raise InputError(f"{labels_path}: labels none of this catalogue's galaxies; are the ids the same?")
    return joined


def measure_bias(
    catalogue_path: str | os.PathLike[str],
    *,
    labels_path: str | os.PathLike[str] | None = None,
    intrinsic: Sequence[str] = (),
    bins: int | None = None,
    depth: int | None = None,
    where: Iterable[str] = (),
    bootstrap: int = 100,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure CV18 (CV14 without intrinsic columns) of a catalogue's labels, and of a model's.

    Every label set is measured on the same galaxies with the same bins.

    Raises
    ------
    InputError
        If a column is absent or there are too few galaxies.
    """
    catalogue = read_catalogue(catalogue_path)
    frame = catalogue.frame if labels_path is None else join_labels(catalogue, labels_path)
    rows_all = frame.height
    frame = frame.filter(pl.Series(rows_where(frame, where, str(catalogue_path))))
    if frame.height == 0:
        raise InputError(f"{catalogue_path}: no galaxy meets {' and '.join(where)}")
    columns = numeric_columns(frame, intrinsic, str(catalogue_path)) if intrinsic else None
    usable = frame.height if columns is None else int(np.isfinite(columns).all(axis=1).sum())
    auto_depth, auto_bins = choose_bins(usable, columns is not None)
    depth = auto_depth if depth is None else depth
    bins = auto_bins if bins is None else bins
    alpha = frame["alpha"].to_numpy()
    results: dict[str, BiasResult] = {}
    for name, labels in label_sets(frame).items():
        if columns is None:
            results[name] = cv14(labels, alpha, bins, bootstrap=bootstrap, seed=seed)
        else:
            results[name] = cv18(labels, alpha, columns, depth, bins, bootstrap=bootstrap, seed=seed)
    return {
        "measure": "CV14" if columns is None else "CV18",
        "alpha": catalogue.metadata.get("alpha"),
        "intrinsic": list(intrinsic),
        "depth": depth,
        "bins": bins,
        "galaxies": frame.height,
        "galaxies_not_selected": rows_all - frame.height,
        "fractions_by_alpha": fractions_by_alpha(frame),
        "results": {name: asdict(result) for name, result in results.items()},
    }


def fractions_by_alpha(frame: pl.DataFrame, quantiles: int = 5) -> dict[str, list[float]]:
    """Disk fraction of every label set in equal-count bins of α, with the mean α of each bin."""
    order = np.argsort(frame["alpha"].to_numpy(), kind="stable")
    parts = np.array_split(order, quantiles)
    out = {"alpha": [float(frame["alpha"].to_numpy()[part].mean()) for part in parts]}
    for name, labels in label_sets(frame).items():
        disk = labels[:, 1] if labels.ndim == 2 else labels
        out[name] = [float(np.nanmean(disk[part])) if np.isfinite(disk[part]).any() else float("nan") for part in parts]
    return out


def _fit_weights(frame: pl.DataFrame) -> np.ndarray | None:
    """Sampling weights, if these rows are a sample that was balanced by label."""
    if "sampling_weight" not in frame.columns or (frame["split"] == "unused").any():
        return None
    weights = frame["sampling_weight"].to_numpy()
    return None if np.ptp(weights) == 0 else weights


def fit_catalogue(
    catalogue: CatalogTable,
    *,
    family: str = "rayleigh",
    method: str | None = None,
    bins: int = 1525,
    where: Iterable[str] = (),
    bootstrap: int = 0,
    seed: int = 0,
) -> tuple[TransitionFit, dict[str, Any]]:
    """Fit T(α) to a catalogue's labels; returns the fit and its description for JSON.

    Raises
    ------
    InputError
        If no galaxy is selected, or the fit can't be made.
    """
    source = str(catalogue.path)
    frame = catalogue.frame.filter(pl.Series(rows_where(catalogue.frame, where, source)))
    if frame.height == 0:
        raise InputError(f"{source}: no galaxy meets {' and '.join(where)}")
    labels, alpha, weights = frame["label"].to_numpy(), frame["alpha"].to_numpy(), _fit_weights(frame)
    fit = fit_transition(labels, alpha, family, method, bins, weights)
    described = {
        **transition_to_dict(fit.transition),
        "stderr": fit.stderr,
        "class_fractions": dict(zip(CLASS_NAMES, fit.class_fractions.tolist(), strict=True)),
        "method": fit.method,
        "assumption": fit.assumption,
        "alpha": catalogue.metadata.get("alpha"),
        "alpha_psf": catalogue.metadata.get("alpha_psf"),
        "galaxies": fit.n_objects,
        "where": list(where),
        "log_likelihood": fit.log_likelihood,
        "aic": fit.aic,
        "warnings": list(fit.warnings),
    }
    if bootstrap:
        rng = np.random.default_rng(seed)
        again = []
        for _ in range(bootstrap):
            rows = rng.integers(0, labels.size, labels.size)
            part = None if weights is None else weights[rows]
            again.append(fit_transition(labels[rows], alpha[rows], family, method, bins, part).transition.parameters())
        described["bootstrap_std"] = {
            name: float(np.std([one[name] for one in again], ddof=1)) for name in fit.stderr if name in again[0]
        }
    return fit, plain(described)


def write_fit(fit: TransitionFit, described: dict[str, Any], out: Path) -> Path:
    """Write the fit as JSON, and its picture as PNG beside it."""
    if out.suffix != ".json":
        raise InputError(f"{out}: a fit is written as .json (and a picture .png beside it)")
    write_json(out, described)
    axes = fit.plot()
    axes.figure.savefig(out.with_suffix(".png"), dpi=150)
    return out


def read_fit(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a fit written by `truemorph transition`, or a hand-written `{"family": ..., "parameters": ...}`.

    Raises
    ------
    InputError
        If it is absent, not JSON, or not a transition.
    """
    try:
        described = json.loads(Path(path).read_text(encoding="utf-8"))
        transition_from_dict(described)
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror or problem}") from problem
    except (ValueError, AttributeError) as problem:
        raise InputError(f"{path}: not a transition written by `truemorph transition` ({problem})") from problem
    return described


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
