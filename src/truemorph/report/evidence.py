"""Everything that is known of the galaxies of a report, before a word or a figure is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from truemorph.bias.diagnostics import ConfoundingCheck, confounding_check
from truemorph.bias.leafmap import LeafMap
from truemorph.bias.metrics import BiasResult
from truemorph.bias.scores import calibration_error
from truemorph.bias.study import TransitionStudy
from truemorph.bias.transitions import DISK, SMOOTH, Transition
from truemorph.errors import InputError
from truemorph.report.measures import (
    LabelSet,
    Tree,
    chance_calibration_error,
    crowd_probability,
    fractions_by,
    table_one,
)

CROWD = "crowd"
# Galaxies of each class without which nothing is said of whether classes depend on α.
_FEWEST = 20


@dataclass(frozen=True)
class ModelLabels:
    """What one model says.

    Attributes
    ----------
    name : str
    transition : Transition
        T(α) that it was trained through.
    probabilities, labels : LabelSet
    posterior : LabelSet or None
        None for a naive model, whose T takes the crowd at its word.
    naive : bool
    sees_images : bool
    """

    name: str
    transition: Transition
    probabilities: LabelSet
    labels: LabelSet
    posterior: LabelSet | None
    naive: bool
    sees_images: bool

    @classmethod
    def of(
        cls, name: str, transition: Transition, disk: np.ndarray, posterior: np.ndarray | None, sees_images: bool = True
    ) -> ModelLabels:
        """Sets of labels from a model's p(disk) and posteriors, shape (N,)."""
        naive = is_naive(transition)
        after = None if naive or posterior is None or not np.isfinite(posterior).any() else posterior
        hard = np.where(np.isfinite(disk), np.nan_to_num(disk) > 0.5, np.nan)
        return cls(
            name,
            transition,
            LabelSet(f"{name}: p(disk)", "probabilities", disk, name),
            LabelSet(f"{name}: labels", "labels", hard, name),
            None if after is None else LabelSet(f"{name}: posterior", "posterior", after, name),
            naive,
            sees_images,
        )


def is_naive(transition: Transition) -> bool:
    """Whether a T says that no label was ever flipped."""
    matrix = np.asarray(transition.matrix(np.array([1.0, 10.0, 100.0])))
    return bool(np.allclose(matrix, np.eye(matrix.shape[-1])))


@dataclass(frozen=True)
class Evidence:
    """The galaxies that a report measures, and what everybody says of them.

    Attributes
    ----------
    frame : polars.DataFrame
        Catalogue rows.
    models : sequence of ModelLabels
    columns : sequence of LabelSet
        Further labels that the catalogue brings.
    truths : dict of LabelSet
        By definition of a disk.
    intrinsic : sequence of str
        Columns of the intrinsic tree.
    tree : Tree
    study : TransitionStudy or None
        Fit of T(α) to the whole catalogue.
    which : str
        Which galaxies these are, in words: those of which every model says something.
    left_out : dict of int
        By model: galaxies that would be measured on, of which it says nothing.
    """

    frame: pl.DataFrame
    models: Sequence[ModelLabels]
    columns: Sequence[LabelSet]
    truths: Mapping[str, LabelSet]
    intrinsic: Sequence[str]
    tree: Tree
    study: TransitionStudy | None
    which: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,)."""
        return self.tree.alpha

    @cached_property
    def crowd(self) -> LabelSet:
        """What people said."""
        return LabelSet(CROWD, "crowd", self.frame["label"].to_numpy().astype(np.float64))

    @property
    def principal(self) -> ModelLabels | None:
        """The model that a report speaks of first: the last debiased one, if there is one."""
        debiased = [one for one in self.models if not one.naive]
        chosen = debiased or list(self.models)
        return chosen[-1] if chosen else None

    @property
    def sets(self) -> list[LabelSet]:
        """Every label set, in the order of tables."""
        own: list[LabelSet] = []
        for model in self.models:
            own += [model.labels, model.probabilities, *([model.posterior] if model.posterior else [])]
        return [self.crowd, *self.columns, *own, *self.truths.values()]

    @property
    def curves(self) -> list[LabelSet]:
        """Label sets that figures draw: of models, probabilities and posteriors, which are what populations need."""
        return [one for one in self.sets if one.kind != "labels"]

    @cached_property
    def bias(self) -> dict[str, BiasResult | None]:
        """CV18 (CV14) by label set; None where a set has too few galaxies."""
        return {one.name: self.tree.bias(one) for one in self.sets}

    @cached_property
    def table(self) -> pl.DataFrame:
        """Table 1 (see `table_one`)."""
        truths = {name: one.disk for name, one in self.truths.items()}
        return table_one(self.sets, self.alpha, self.bias, truths)

    def row(self, one: LabelSet) -> dict[str, float]:
        """Line of Table 1."""
        return self.table.row(by_predicate=pl.col("labels") == one.name, named=True)

    @cached_property
    def by_alpha(self) -> pl.DataFrame:
        """Disk fractions in fifths of α."""
        return fractions_by(self.alpha, self.curves)

    def ends(self, one: LabelSet) -> tuple[float, float]:
        """Disk fraction of the least and the best resolved fifth."""
        found = self.by_alpha.filter(pl.col("labels") == one.name)["disk_fraction"]
        return float(found[0]), float(found[-1])

    @cached_property
    def leaves(self) -> dict[str, LeafMap]:
        """Drift in each intrinsic leaf; empty without intrinsic columns."""
        if self.tree.intrinsic is None or self.tree.depth == 0:
            return {}
        found = {one.name: self.tree.leaves(one) for one in self.curves}
        return {name: one for name, one in found.items() if one is not None}

    def seen_by_crowd(self, model: ModelLabels) -> np.ndarray:
        """p(crowd says disk | x, α) of a model, shape (N,): what can be compared with labels without any truth."""
        return crowd_probability(model.probabilities.disk, self.alpha, model.transition)

    def crowd_calibration_error(self, model: ModelLabels) -> tuple[float, float, float]:
        """Mean distance of that probability and the crowd's labels; and what chance alone gives, with its scatter."""
        seen = self.seen_by_crowd(model)
        return calibration_error(self.crowd.disk, seen), *chance_calibration_error(seen, self.crowd.disk)

    @cached_property
    def confounding(self) -> dict[str, ConfoundingCheck]:
        """By definition: whether true classes depend on α, where both are known of enough galaxies."""
        out = {}
        for definition, truth in self.truths.items():
            counts = np.bincount(truth.labels[truth.known], minlength=2)
            if counts.min() >= _FEWEST:
                try:
                    out[definition] = confounding_check(self.crowd.labels, self.alpha, gold=truth.labels)
                except InputError:  # one α for all, say
                    continue
        return out

    @cached_property
    def flipped(self) -> dict[str, pl.DataFrame]:
        """By definition: share of true disks that the crowd called smooth, in bins of α."""
        out = {}
        for definition, truth in self.truths.items():
            disks = truth.labels == DISK
            if disks.sum() >= 20:
                smooth = LabelSet("", "crowd", (self.crowd.labels[disks] == SMOOTH).astype(np.float64))
                found = fractions_by(self.alpha[disks], [smooth], min(12, int(disks.sum()) // 20))
                out[definition] = found.select(
                    "low", "high", "mean", "galaxies", pl.col("disk_fraction").alias("share"), "stderr"
                )
        return out
