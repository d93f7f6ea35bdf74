"""What `prepare` and `bias` report: where rows went, and how labels drift with resolution."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.binning import choose_bins
from truemorph.bias.metrics import BiasResult, cv14, cv18
from truemorph.bias.transitions import CLASS_NAMES
from truemorph.catalogs.catalogue import read_catalogue, rows_where
from truemorph.catalogs.prepare import Preparation
from truemorph.errors import InputError
from truemorph.tables import CatalogTable, numeric_columns, read_table


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
        "matches": prepared.catalogue.metadata["matches"],
        "datasheet": f"{out.stem}.datasheet.md",
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
    if "gold" in frame.columns:
        sets["gold labels"] = frame["gold"].to_numpy()
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
