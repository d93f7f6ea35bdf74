"""The test galaxies with everybody's labels, and Table 1 of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.errors import InputError
from truemorph.report.label_sets import LabelSet
from truemorph.report.table1 import Tree, agreement, numbers_of
from truemorph.reproduce.catalogue import DEBIASED
from truemorph.reproduce.models import LABELS, intrinsic_columns
from truemorph.reproduce.paper import DCV14, DDB, GZ2B, GZ2D, RESNET_GZ2B, RESNET_GZ2D, TABLE_1
from truemorph.reproduce.stages import TEST_ROWS, Work
from truemorph.tables import numeric_columns, read_table

MODELS = (RESNET_GZ2B, RESNET_GZ2D, DCV14, DDB)
SOURCES = ("catalogue", GZ2D, *MODELS)
# A label set of fewer of the test galaxies doesn't decide on which galaxies the others are measured.
_ENOUGH = 0.5
_FEWEST = 10
_ONE_CLASS = 0.03


@dataclass(frozen=True)
class Measured:
    """Galaxies that are measured on.

    Attributes
    ----------
    frame : polars.DataFrame
        Test galaxies of which all label sets say something.
    sets : dict of LabelSet
        By row of Table 1, hard labels.
    probabilities : dict of LabelSet
        p(disk) of the models.
    tree : Tree
        How bias is measured.
    intrinsic : tuple of str
        Columns of the tree; empty for CV14.
    left_out : dict of int
        By row: test galaxies that it doesn't label.
    """

    frame: pl.DataFrame
    sets: Mapping[str, LabelSet]
    probabilities: Mapping[str, LabelSet]
    tree: Tree
    intrinsic: tuple[str, ...]
    left_out: Mapping[str, int]

    @property
    def crowd(self) -> LabelSet:
        """GZ2B."""
        return self.sets[GZ2B]

    def own_labels(self, name: str) -> LabelSet | None:
        """The labels that a model was trained on."""
        return self.sets.get(GZ2D) if name == RESNET_GZ2D else self.crowd


def titles(work: Work) -> dict[str, str]:
    """What the rows of Table 1 are called here: networks by the names of their backbones."""
    return {name: row.labels.format(network=_network(work, name)) for name, row in TABLE_1.items()}


def short_titles(work: Work) -> dict[str, str]:
    """The same for figures."""
    return {name: row.short.format(network=_network(work, name)) for name, row in TABLE_1.items()}


def _network(work: Work, name: str) -> str:
    backbone = work.result(name)["backbone"] if name in MODELS and work.have(name) else "resnet50"
    return "ResNet50" if backbone == "resnet50" else str(backbone)


def all_labels(work: Work) -> tuple[pl.DataFrame, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Test galaxies, hard labels by row of Table 1, and p(disk) of models; NaN where unknown."""
    frame = work.catalogue("catalogue", TEST_ROWS).frame
    ids = frame.select(pl.col("object_id").cast(pl.String))

    def beside(other: pl.DataFrame, column: str) -> np.ndarray:
        right = other.select(pl.col("object_id").cast(pl.String), pl.col(column).cast(pl.Float64).alias("_value"))
        return ids.join(right, on="object_id", how="left", maintain_order="left")["_value"].fill_null(np.nan).to_numpy()

    hard = {GZ2B: frame["label"].to_numpy().astype(np.float64)}
    if work.have(GZ2D):
        hard[GZ2D] = beside(work.catalogue(GZ2D, DEBIASED).frame, "label")
    soft = {}
    for name in MODELS:
        if work.have(name):
            labels = read_table(work.outcomes[name].file(LABELS)).frame
            hard[name], soft[name] = beside(labels, "label"), beside(labels, "p_disk")
    return frame, hard, soft


def measured(work: Work) -> Measured:
    """The test galaxies on which every label set is measured alike.

    Raises
    ------
    InputError
        If there are too few.
    """
    found: Measured = work.once("measured " + str(sorted(work.keys(SOURCES).items())), lambda: _measured(work))
    return found


def _measured(work: Work) -> Measured:
    frame, hard, soft = all_labels(work)
    names = titles(work)
    left_out = {name: int(np.isnan(values).sum()) for name, values in hard.items()}
    intrinsic = intrinsic_columns(work, frame)
    rows = np.ones(frame.height, bool)
    for values in hard.values():
        known = np.isfinite(values)
        if known.mean() > _ENOUGH:
            rows &= known
    if rows.sum() < _FEWEST:
        raise InputError(
            f"{rows.sum()} test galaxies have all labels; at least {_FEWEST} are needed: use a larger `scale`"
        )
    chosen = frame.filter(pl.Series(rows))
    tree = tree_of(work, chosen, intrinsic)
    return Measured(
        chosen,
        {name: LabelSet(names[name], _kind(name), values[rows]) for name, values in hard.items()},
        {name: LabelSet(f"{names[name]}: p(disk)", "probabilities", values[rows]) for name, values in soft.items()},
        tree,
        intrinsic,
        left_out,
    )


def tree_of(work: Work, frame: pl.DataFrame, intrinsic: tuple[str, ...]) -> Tree:
    """How bias is measured on galaxies: as was asked for, or with at least 25 of them a bin."""
    options = work.options
    columns = numeric_columns(frame, intrinsic, "the sample") if intrinsic else None
    alpha = frame["alpha"].to_numpy()
    return Tree.fitting(alpha, columns, options.bootstrap, options.seed, options.depth, options.bins)


def on_frame(tree: Tree, frame: pl.DataFrame, intrinsic: tuple[str, ...], name: str) -> tuple[Tree, LabelSet]:
    """A tree of the same depth and bins on other galaxies, and these galaxies' own labels."""
    columns = numeric_columns(frame, intrinsic, "the sample") if intrinsic else None
    own = LabelSet(name, "crowd", frame["label"].to_numpy().astype(float))
    return replace(tree, alpha=frame["alpha"].to_numpy(), intrinsic=columns), own


def _kind(name: str) -> Any:
    return {GZ2B: "crowd", GZ2D: "column"}.get(name, "labels")


def table_rows(found: Measured, seed: int) -> list[dict[str, Any]]:
    """Table 1 of these labels.

    Parameters
    ----------
    found : Measured
    seed : int

    Returns
    -------
    list of dict
        `name`, `letter`, `labels`, `galaxies`, `left_out`, `partial` (known of some of the galaxies alone),
        `disk_fraction`, `one_class` (97 % or more of one); `value`, `bootstrap_mean`, `bootstrap_std`, `floor`,
        `floor_std`, `excess` of CV18 (or CV14), `objects_per_bin`; `from_gz2b` and `from_gz2b_std`: difference of the
        value from GZ2B's on the same galaxies, and its error from paired resamples; of models `accuracy`, `precision`
        (mean of both classes), `precision_smooth`, `precision_disk` against the labels that they were trained on;
        `to_disk`, `to_smooth`: labels that differ from GZ2B's; `soft_value`, `soft_excess` of p(disk). None where it
        can't be had.
    """
    differences = paired_differences(found, seed)
    rows = []
    for name, one in found.sets.items():
        soft, own = found.probabilities.get(name), found.own_labels(name) if name in MODELS else None
        softly = None if soft is None else replace(found.tree, bootstrap=0).bias(soft)
        against_own, moved = {} if own is None else agreement(one, own), agreement(one, found.crowd)
        row: dict[str, Any] = {
            "name": name,
            "letter": TABLE_1[name].letter,
            "labels": one.name,
            "galaxies": int(one.known.sum()),
            "left_out": found.left_out[name],
            "partial": not one.known.all(),
            "disk_fraction": float(one.disk[one.known].mean()),
            "one_class": one_class(one),
            **numbers_of(found.tree.bias(one), "objects_per_bin"),
        }
        row |= {"soft_value": softly and softly.value, "soft_excess": softly and softly.excess}
        row["from_gz2b"], row["from_gz2b_std"] = differences.get(name, (None, None))
        row |= {key: moved[key] for key in ("to_disk", "to_smooth")}
        row |= {key: against_own.get(key) for key in ("accuracy", "precision", "precision_smooth", "precision_disk")}
        rows.append(row)
    return rows


def one_class(one: LabelSet) -> bool:
    """Whether nearly all labels are of one class: they can't drift, so bias says nothing of them."""
    return not _ONE_CLASS < float(one.disk[one.known].mean()) < 1 - _ONE_CLASS


def paired_differences(found: Measured, seed: int) -> dict[str, tuple[float, float]]:
    """CV18 of each label set less that of GZ2B, and its standard deviation over resamples that both share."""
    tree, n = found.tree, found.frame.height
    others = {name: one for name, one in found.sets.items() if name != GZ2B}

    def differences(rows: np.ndarray | None = None) -> dict[str, float]:
        whole, out = tree.value(found.crowd, rows), {}
        for name, one in others.items():
            # Of a set that doesn't know all galaxies, GZ2B's on those that it knows.
            beside = replace(found.crowd, disk=np.where(one.known, found.crowd.disk, np.nan))
            crowd = whole if one.known.all() else tree.value(beside, rows)
            value = tree.value(one, rows)
            if crowd is not None and value is not None:
                out[name] = value - crowd
        return out

    rng = np.random.default_rng([seed, 18])
    resampled = [differences(rng.integers(0, n, n)) for _ in range(tree.bootstrap)]
    spread = {name: [one[name] for one in resampled if name in one] for name in others}
    return {
        name: (value, float(np.std(spread[name])) if spread[name] else float("nan"))
        for name, value in differences().items()
    }


def order(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many pairs of rows stand in the paper's order, by bootstrap means.

    Pairs that the paper tells apart: they differ by more than their errors there. Without rows nearly all of one class,
    and without those of fewer galaxies than the others.
    """
    known = {
        row["name"]: float(row["bootstrap_mean"])
        for row in rows
        if row["bootstrap_mean"] is not None
        and np.isfinite(row["bootstrap_mean"])
        and not row.get("one_class")
        and not row.get("partial")
    }

    def told_apart(a: str, b: str) -> bool:
        one, other = TABLE_1[a], TABLE_1[b]
        return abs(one.cv18 - other.cv18) > float(np.hypot(one.stderr, other.stderr))

    pairs = [(a, b) for i, a in enumerate(known) for b in list(known)[i + 1 :] if told_apart(a, b)]
    alike = [(a, b) for a, b in pairs if (known[a] > known[b]) == (TABLE_1[a].cv18 > TABLE_1[b].cv18)]
    return {
        "pairs": len(pairs),
        "as_in_the_paper": len(alike),
        "here": sorted(known, key=lambda name: -known[name]),
        "paper": sorted(known, key=lambda name: -TABLE_1[name].cv18),
    }
