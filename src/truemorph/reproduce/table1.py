"""Bias of the labels, and Table 1 of the test galaxies with the paper's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.sampling import TEST
from truemorph.errors import InputError
from truemorph.io import plain, write_json
from truemorph.report.label_sets import LabelSet
from truemorph.report.table1 import Tree, agreement, numbers_of
from truemorph.reproduce.catalogue import DEBIASED
from truemorph.reproduce.models import LABELS, intrinsic_columns
from truemorph.reproduce.paper import BINS_CV14, DCV14, DDB, GZ2B, GZ2D, RESNET_GZ2B, RESNET_GZ2D, TABLE_1, THETA, TREE
from truemorph.reproduce.stages import TEST_ROWS, Stage, Work, once
from truemorph.tables import CatalogTable, numeric_columns, read_table, write_table

MODELS = (RESNET_GZ2B, RESNET_GZ2D, DCV14, DDB)
# Label sets with a smaller fraction of the test galaxies do not restrict the galaxies of Table 1.
_ENOUGH = 0.5
_FEWEST = 10
_ONE_CLASS = 0.03


def titles(work: Work, short: bool = False) -> dict[str, str]:
    """Return the titles of the rows of Table 1, with the backbone of networks; short for figures."""
    out = {}
    for name, row in TABLE_1.items():
        backbone = work.result(name)["backbone"] if name in MODELS and work.have(name) else "resnet50"
        network = "ResNet50" if backbone in ("resnet50", "resnet50_v1") else backbone
        out[name] = (row.short if short else row.labels).format(network=network)
    return out


def frame_of(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Make a table of rows; a column without any value becomes numeric, so that any format can be written."""
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.with_columns(pl.selectors.by_dtype(pl.Null).cast(pl.Float64))


# The test galaxies with all labels


@dataclass(frozen=True)
class Measured:
    """Test galaxies with labels of all label sets.

    Attributes
    ----------
    frame : polars.DataFrame
    sets : dict of LabelSet
        Hard labels, by row of Table 1.
    probabilities : dict of LabelSet
        p(disk) of the models.
    tree : Tree
    intrinsic : tuple of str
        Columns of the tree; empty for CV14.
    left_out : dict of int
        Number of test galaxies without a label, by row of Table 1.
    """

    frame: pl.DataFrame
    sets: Mapping[str, LabelSet]
    probabilities: Mapping[str, LabelSet]
    tree: Tree
    intrinsic: tuple[str, ...]
    left_out: Mapping[str, int]

    @property
    def observed(self) -> LabelSet:
        """The volunteers' labels, GZ2B."""
        return self.sets[GZ2B]


def all_labels(work: Work) -> tuple[pl.DataFrame, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return test galaxies, hard labels by row of Table 1, and p(disk) of models; NaN where unknown."""
    frame = work.catalogue("catalogue", TEST_ROWS).frame
    ids = frame.select(pl.col("object_id").cast(pl.String))

    def column_of(other: pl.DataFrame, column: str) -> np.ndarray:
        right = other.select(pl.col("object_id").cast(pl.String), pl.col(column).cast(pl.Float64).alias("_value"))
        return ids.join(right, on="object_id", how="left", maintain_order="left")["_value"].fill_null(np.nan).to_numpy()

    hard = {GZ2B: frame["label"].to_numpy().astype(np.float64)}
    if work.have(GZ2D):
        hard[GZ2D] = column_of(work.catalogue(GZ2D, DEBIASED).frame, "label")
    soft = {}
    for name in MODELS:
        if work.have(name):
            labels = read_table(work.file(name, LABELS)).frame
            hard[name], soft[name] = column_of(labels, "label"), column_of(labels, "p_disk")
    return frame, hard, soft


@once
def measured(work: Work) -> Measured:
    """Return the test galaxies on which all label sets are measured.

    Raises
    ------
    InputError
        If there are too few galaxies.
    """
    frame, hard, soft = all_labels(work)
    names = titles(work)
    intrinsic = intrinsic_columns(work, frame)
    rows = np.ones(frame.height, bool)
    for name, values in hard.items():
        known = np.isfinite(values)
        # DCV14 is compared on the galaxies that have its columns.
        if known.mean() > _ENOUGH and name != DCV14:
            rows &= known
    if rows.sum() < _FEWEST:
        raise InputError(
            f"{rows.sum()} test galaxies have all labels; at least {_FEWEST} are needed: use a larger `scale`"
        )
    chosen = frame.filter(pl.Series(rows))
    return Measured(
        chosen,
        {name: LabelSet(names[name], "labels", values[rows]) for name, values in hard.items()},
        {name: LabelSet(f"{names[name]}: p(disk)", "probabilities", values[rows]) for name, values in soft.items()},
        _tree_of(work, chosen, intrinsic),
        intrinsic,
        {name: int(np.isnan(values).sum()) for name, values in hard.items()},
    )


def _tree_of(work: Work, frame: pl.DataFrame, intrinsic: tuple[str, ...]) -> Tree:
    """Return the tree: by the options; at full scale that of the lineage, below with at least 25 galaxies per bin."""
    options = work.options
    depth, bins = options.depth, options.bins
    if options.fraction == 1:
        depth = TREE[0] if depth is None else depth
        bins = (TREE[1] if intrinsic else BINS_CV14) if bins is None else bins
    columns = numeric_columns(frame, intrinsic, "the sample") if intrinsic else None
    alpha = frame["alpha"].to_numpy()
    return Tree.fitting(alpha, columns, options.bootstrap, options.seed, depth, bins)


def on_frame(tree: Tree, frame: pl.DataFrame, intrinsic: tuple[str, ...], name: str) -> tuple[Tree, LabelSet]:
    """Return a tree of the same depth and bins for other galaxies, and their labels."""
    columns = numeric_columns(frame, intrinsic, "the sample") if intrinsic else None
    own = LabelSet(name, "observed", frame["label"].to_numpy().astype(float))
    return replace(tree, alpha=frame["alpha"].to_numpy(), intrinsic=columns), own


# Bias of GZ2B and GZ2D


def _settings(work: Work, stages: tuple[str, ...]) -> dict[str, Any]:
    options = work.options
    asked = {"depth": options.depth, "bins": options.bins, "bootstrap": options.bootstrap, "seed": options.seed}
    return {**asked, "from": work.keys(stages), "intrinsic": list(work.inputs.intrinsic)}


def _measure_bias(work: Work, folder: Path) -> dict[str, Any]:
    """Measure CV18 of GZ2B and GZ2D in the whole sample and in each part of its split."""
    frames = {GZ2B: work.catalogue().frame}
    if work.have(GZ2D):
        frames[GZ2D] = work.catalogue(GZ2D, DEBIASED).frame
    rows, intrinsic = [], intrinsic_columns(work, frames[GZ2B])
    # The tree of the test galaxies for all, because the value grows with the number of bins.
    common = _tree_of(work, frames[GZ2B].filter(pl.col("split") == TEST), intrinsic)
    for name, frame in frames.items():
        for part in ("all", *frame["split"].unique().sort()):
            chosen = frame if part == "all" else frame.filter(pl.col("split") == part)
            tree, labels = on_frame(common, chosen, intrinsic, titles(work)[name])
            row = {"labels": labels.name, "name": name, "galaxies_of": part, "measure": tree.measure}
            row |= {"depth": tree.depth, "bins": tree.bins, "galaxies": chosen.height}
            rows.append(row | numbers_of(tree.bias(labels)))
    return {"rows": rows}


# Table 1


def table_rows(found: Measured, seed: int) -> list[dict[str, Any]]:
    """Return Table 1 with the paper's values.

    Returns
    -------
    list of dict
        `name`, `letter`, `labels`, `galaxies`, `left_out`, `partial` (known for some galaxies only),
        `disk_fraction`, `one_class` (97 % or more in one class); `value`, `bootstrap_mean`, `bootstrap_std`, `floor`,
        `floor_std`, `excess` of CV18 (or CV14), `objects_per_bin`; `from_gz2b` and `from_gz2b_std`: value minus
        that of GZ2B for the same galaxies, and its error from paired resamples; for models `accuracy`, `precision`
        (macro-averaged), `precision_smooth`, `precision_disk` vs the labels that they were trained on;
        `to_disk`, `to_smooth`: numbers of labels that differ from GZ2B; `soft_value`, `soft_excess` of p(disk);
        `paper`, `paper_std`, `paper_from_gz2b`, `paper_accuracy`, `paper_precision`. None for missing values.
    """
    differences = paired_differences(found, seed)
    rows = []
    for name, one in found.sets.items():
        paper, soft = TABLE_1[name], found.probabilities.get(name)
        softly = None if soft is None else replace(found.tree, bootstrap=0).bias(soft)
        own = found.sets.get(GZ2D) if name == RESNET_GZ2D else found.observed if name in MODELS else None
        against_own, moved = {} if own is None else agreement(one, own), agreement(one, found.observed)
        difference, error = differences.get(name, (None, None))
        row: dict[str, Any] = {
            "name": name,
            "letter": paper.letter,
            "labels": one.name,
            "galaxies": int(one.known.sum()),
            "left_out": found.left_out[name],
            "partial": not one.known.all(),
            "disk_fraction": float(one.disk[one.known].mean()),
            "one_class": one_class(one),
            **numbers_of(found.tree.bias(one), "objects_per_bin"),
            "soft_value": softly and softly.value,
            "soft_excess": softly and softly.excess,
            "from_gz2b": difference,
            "from_gz2b_std": error,
            **{key: moved[key] for key in ("to_disk", "to_smooth")},
            **{key: against_own.get(key) for key in ("accuracy", "precision", "precision_smooth", "precision_disk")},
            "paper": paper.cv18,
            "paper_std": paper.stderr,
            "paper_from_gz2b": paper.cv18 - TABLE_1[GZ2B].cv18,
            "paper_accuracy": paper.accuracy,
            "paper_precision": paper.precision,
        }
        rows.append(row)
    return rows


def one_class(one: LabelSet) -> bool:
    """Return whether 97 % or more of the labels are of one class, so that their bias is not meaningful."""
    return not _ONE_CLASS < float(one.disk[one.known].mean()) < 1 - _ONE_CLASS


def paired_differences(found: Measured, seed: int) -> dict[str, tuple[float, float]]:
    """Return CV18 of each label set minus that of GZ2B, and its standard deviation over paired resamples."""
    tree, n = found.tree, found.frame.height
    others = {name: one for name, one in found.sets.items() if name != GZ2B}

    def differences(rows: np.ndarray | None = None) -> dict[str, float]:
        out = {}
        for name, one in others.items():
            # If a set lacks labels, GZ2B is measured on the galaxies that have one.
            same = replace(found.observed, disk=np.where(one.known, found.observed.disk, np.nan))
            observed, value = tree.value(same, rows), tree.value(one, rows)
            if observed is not None and value is not None:
                out[name] = value - observed
        return out

    rng = np.random.default_rng([seed, 18])
    resampled = [differences(rng.integers(0, n, n)) for _ in range(tree.bootstrap)]
    spread = {name: [one[name] for one in resampled if name in one] for name in others}
    return {
        name: (value, float(np.std(spread[name])) if spread[name] else float("nan"))
        for name, value in differences().items()
    }


def order(rows: list[dict[str, Any]], measure: str) -> dict[str, Any]:
    """Compare the order of the rows by bootstrap mean with that of the paper; no pairs if CV14 replaces CV18.

    Only pairs that differ by more than their errors in the paper count. Rows with nearly one class, or with labels for
    only some galaxies, are left out.
    """
    known = {
        row["name"]: row["bootstrap_mean"]
        for row in rows
        if measure == "CV18" and row["bootstrap_mean"] is not None and not (row["one_class"] or row["partial"])
    }

    def differ(a: str, b: str) -> bool:
        one, other = TABLE_1[a], TABLE_1[b]
        return abs(one.cv18 - other.cv18) > float(np.hypot(one.stderr, other.stderr))

    pairs = [(a, b) for a, b in combinations(known, 2) if differ(a, b)]
    same = [(a, b) for a, b in pairs if (known[a] > known[b]) == (TABLE_1[a].cv18 > TABLE_1[b].cv18)]
    return {
        "pairs": len(pairs),
        "as_in_the_paper": len(same),
        "here": sorted(known, key=lambda name: -known[name]),
        "paper": sorted(known, key=lambda name: -TABLE_1[name].cv18),
    }


def _thetas(work: Work) -> list[dict[str, Any]]:
    """Return θ of DCV14 and DDB, here and in the paper."""
    rows = []
    for name, stage in ((DCV14, DCV14), (DDB, "theta")):
        found = work.result(stage) if work.have(stage) else {}
        how = "fitted by EM with the regression" if name == DCV14 else f"from {found.get('bins', 0):,} bins of α"
        about = {"theta": found.get("theta"), "stderr": found.get("stderr"), "paper": THETA[name]}
        rows.append({"name": name, **about, "how": how})
    return rows


def _make_table(work: Work, folder: Path) -> dict[str, Any]:
    found = measured(work)
    rows = table_rows(found, work.options.seed)
    result: dict[str, Any] = plain(
        {
            "measure": found.tree.measure,
            "intrinsic": list(found.intrinsic),
            "depth": found.tree.depth,
            "bins": found.tree.bins,
            "bootstrap": found.tree.bootstrap,
            "galaxies": found.frame.height,
            "alpha": work.catalogue().metadata["alpha"],
            "rows": rows,
            "order": order(rows, found.tree.measure),
            "theta": _thetas(work),
        }
    )
    write_json(folder / "table1.json", result)
    metadata = {key: value for key, value in result.items() if key != "rows"}
    write_table(CatalogTable(frame_of(result["rows"]), {}, metadata), folder / "table1.ecsv")
    return result


_FROM_BIAS, _FROM_TABLE = (GZ2D,), (GZ2D, "theta", *MODELS)
STAGES = (
    Stage("bias", "bias of GZ2B and GZ2D", partial(_settings, stages=("catalogue", *_FROM_BIAS)), _measure_bias,
          ("catalogue",), _FROM_BIAS),
    Stage("table1", "Table 1, with the paper's values", partial(_settings, stages=("catalogue", *_FROM_TABLE)),
          _make_table, ("catalogue",), _FROM_TABLE),
)  # fmt: skip
