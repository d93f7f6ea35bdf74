"""Label sets, such as the observed labels of galaxies, a model's, posteriors and gold labels; and their averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.bias.binning import Bins
from truemorph.bias.transitions import DISK, UNKNOWN
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import check_format
from truemorph.tables import CatalogTable, kind_of, read_table

Kind = Literal["observed", "column", "labels", "probabilities", "posterior", "truth"]
# Bins of α, or of another column, in tables and figures.
FIFTHS = 5


@dataclass(frozen=True)
class LabelSet:
    """Class probabilities, or labels, of N galaxies.

    Kinds are "column" (labels that a catalogue brings), "labels" (argmax of a model's probabilities), "posterior"
    (after the observed label), and as named.
    """

    name: str
    kind: Kind
    probabilities: np.ndarray  # (N, K); of labels 0 and 1; NaN where unknown
    model: str = ""  # whose they are

    @classmethod
    def of_disks(cls, name: str, kind: Kind, disk: np.ndarray, model: str = "") -> LabelSet:
        """Those of p(disk), or of labels 0 and 1, of shape (N,), NaN where unknown."""
        return cls(name, kind, np.column_stack([1 - disk, disk]), model)

    @property
    def disk(self) -> np.ndarray:
        """p(disk), shape (N,)."""
        return self.probabilities[:, DISK]

    @property
    def known(self) -> np.ndarray:
        """Where there is a value, shape (N,) of bool."""
        return np.isfinite(self.probabilities).all(axis=1)

    @property
    def is_hard(self) -> bool:
        """Whether these are labels, not probabilities."""
        return bool(np.isin(self.probabilities[self.known], (0.0, 1.0)).all())

    @property
    def labels(self) -> np.ndarray:
        """Most probable classes, shape (N,) of int; -1 where unknown."""
        return np.where(self.known, np.nan_to_num(self.probabilities).argmax(axis=1), UNKNOWN)

    @property
    def values(self) -> np.ndarray:
        """Labels as numbers, shape (N,), or probabilities, shape (N, K); NaN where unknown."""
        return self.disk if self.is_hard and self.probabilities.shape[1] == 2 else self.probabilities

    @property
    def fraction(self) -> float:
        """Disk fraction of the galaxies with a value; NaN if there are none."""
        return float(self.disk[self.known].mean()) if self.known.any() else float("nan")

    def of(self, rows: np.ndarray) -> LabelSet:
        """Those of some galaxies."""
        return LabelSet(self.name, self.kind, self.probabilities[rows], self.model)


def fractions_by(values: np.ndarray, sets: Sequence[LabelSet], bins: int | np.ndarray = FIFTHS) -> pl.DataFrame:
    """Disk fraction of each label set in bins of a column: of equal counts, or with known edges, shape (B + 1,).

    `labels`, `bin`, `low` and `high` edge, `mean` (of the column), `galaxies`, `disk_fraction`, `stderr`. Galaxies
    without a finite value of the column are left out.
    """
    finite = np.isfinite(values)
    column = values[finite]
    equal = not isinstance(bins, np.ndarray)
    cut = Bins.cut(column, int(bins)) if equal else Bins.at(column, np.asarray(bins))
    tables = []
    for one in sets:
        mean, error, counts = cut.averages(one.disk[finite])
        columns = {
            "bin": np.arange(1, cut.count + 1),
            "low": cut.edges[:-1],
            "high": cut.edges[1:],
            "mean": cut.middles,
            "galaxies": counts,
            "disk_fraction": mean,
            "stderr": error,
        }
        tables.append(pl.DataFrame({"labels": [one.name] * cut.count, **columns}))
    return pl.concat(tables)


def label_sets(frame: pl.DataFrame) -> list[LabelSet]:
    """Return the label sets of a joined table: the observed labels, and a model's hard, soft and posterior ones."""

    def values(*names: str) -> np.ndarray:
        return frame.select(pl.col(names).cast(pl.Float64).fill_null(float("nan"))).to_numpy()

    sets = [LabelSet.of_disks("observed labels", "observed", values("label")[:, 0])]
    if "model_label" in frame.columns:
        sets.append(LabelSet.of_disks("model labels", "labels", values("model_label")[:, 0]))
        sets.append(LabelSet("model probabilities", "probabilities", values("p_smooth", "p_disk")))
    if "posterior_disk" in frame.columns:  # none of galaxies that the model memorised
        names = "posterior_smooth", "posterior_disk"
        sets.append(LabelSet("posterior probabilities", "posterior", values(*names)))
    if "gold" in frame.columns and frame["gold"].count():
        sets.append(LabelSet.of_disks("gold labels", "truth", values("gold")[:, 0]))
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
