"""Label sets: the observed labels of galaxies, a model's, posteriors and gold labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.bias.binning import equal_count_parts
from truemorph.bias.transitions import DISK, SMOOTH, UNKNOWN
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import check_format
from truemorph.tables import CatalogTable, kind_of, read_table

Kind = Literal["observed", "column", "labels", "probabilities", "posterior", "truth"]
TO_DISK, TO_SMOOTH = "smooth to disk", "disk to smooth"
# Columns that a report adds to a catalogue's own, under names that no catalogue has.
OURS = "truemorph:"
AFTER, PICTURE, CHANGE = (OURS + name for name in ("after", "picture", "change"))


@dataclass(frozen=True)
class LabelSet:
    """Labels, or probabilities, of the same galaxies.

    Kinds are "column" (labels that the catalogue brings), "labels" (argmax of a model's probabilities), "posterior"
    (after the observed label), and as named.
    """

    name: str
    kind: Kind
    disk: np.ndarray  # p(disk), or 0 and 1; NaN where unknown; shape (N,)
    model: str = ""  # whose they are

    @property
    def known(self) -> np.ndarray:
        """Where there is a value, shape (N,) of bool."""
        return np.isfinite(self.disk)

    @property
    def is_hard(self) -> bool:
        """Whether these are labels, not probabilities."""
        return bool(np.isin(self.disk[self.known], (0.0, 1.0)).all())

    @property
    def labels(self) -> np.ndarray:
        """Classes 0 and 1, -1 where unknown; shape (N,)."""
        return np.where(self.known, np.nan_to_num(self.disk) > 0.5, UNKNOWN).astype(np.int64)

    def of(self, rows: np.ndarray) -> LabelSet:
        """Those of some galaxies."""
        return LabelSet(self.name, self.kind, self.disk[rows], self.model)


def changes(label: np.ndarray, disk: np.ndarray) -> np.ndarray:
    """How labels change with p(disk), shape (N,) of str: "smooth to disk", "disk to smooth", or empty."""
    after = np.where(np.isfinite(disk), np.nan_to_num(disk) > 0.5, label)
    return np.select(
        [(label == SMOOTH) & (after == DISK), (label == DISK) & (after == SMOOTH)], [TO_DISK, TO_SMOOTH], ""
    )


def label_sets(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return the label sets of a joined table: the observed labels, and a model's hard, soft and posterior ones."""
    sets = {"observed labels": frame["label"].to_numpy()}
    if "model_label" in frame.columns:
        sets["model labels"] = frame["model_label"].to_numpy()
        sets["model probabilities"] = frame.select("p_smooth", "p_disk").to_numpy()
    if "posterior_disk" in frame.columns:
        # Where the model memorised a galaxy there is no posterior: NaN rows are left out and counted.
        sets["posterior probabilities"] = frame.select(
            pl.col("posterior_smooth", "posterior_disk").fill_null(float("nan"))
        ).to_numpy()
    if "gold" in frame.columns and frame["gold"].count():
        sets["gold labels"] = frame["gold"].to_numpy()
    return sets


def join_labels(catalogue: CatalogTable, labels: Any) -> tuple[pl.DataFrame, list[Finding]]:
    """Return the rows of a catalogue that a model has labelled (`truemorph label`), with its labels.

    And a finding if rows are missing.
    """
    table = read_table(labels)
    frame, source = table.frame, str(table.path or kind_of(labels))
    check_format(table.metadata, source)
    names = ("label", "p_smooth", "p_disk", "posterior_smooth", "posterior_disk")
    known = frame.select(pl.col(name).cast(pl.Float64, strict=False) for name in names if name in frame.columns)
    lacking = [name for name in ("object_id", "label", "p_disk") if name not in frame.columns]
    lacking += [one.name for one in known if one.null_count() > frame[one.name].null_count()]
    if lacking:
        raise InputError(f"{source}: has no numbers in {', '.join(lacking)}; make labels with truemorph label")
    if "p_smooth" not in known.columns:
        known = known.with_columns(p_smooth=1 - pl.col("p_disk"))
    others = frame.select(pl.col("object_id").cast(pl.String), *(one for one in ["relation"] if one in frame.columns))
    chosen = others.hstack(known.rename({"label": "model_label"}))
    repeated = chosen.filter(pl.col("object_id").is_duplicated())
    if repeated.height:
        raise InputError(f"{source}: has several labels of {repeated['object_id'][0]}; keep one row for each galaxy")
    own = catalogue.frame.drop([name for name in chosen.columns if name != "object_id"], strict=False)
    joined = own.with_columns(pl.col("object_id").cast(pl.String)).join(
        chosen, on="object_id", how="inner", maintain_order="left"
    )
    if joined.height == 0:
        raise InputError(f"{source}: has labels of none of this catalogue's galaxies; are the ids the same?")
    every, without = catalogue.frame.height, catalogue.frame.height - joined.height
    text = f"{without:,} of {every:,} galaxies have no label in {source} and were left out."
    return joined, [Finding("rows-left-out", "note", text)] if without else []


def fractions_by_alpha(alpha: np.ndarray, sets: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Return the disk fraction of every label set in fifths of α, with the mean α of each."""
    parts = equal_count_parts(alpha, 5)
    out = {"alpha": [float(alpha[part].mean()) for part in parts]}
    for name, labels in sets.items():
        disk = labels[:, 1] if labels.ndim == 2 else labels
        out[name] = [float(np.nanmean(disk[part])) if np.isfinite(disk[part]).any() else float("nan") for part in parts]
    return out
