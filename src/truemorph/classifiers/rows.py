"""The data that a classifier is trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.questions import SMOOTH_OR_DISK, Asked, Head, heads_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Gold:
    """Gold labels of N galaxies, of all questions."""

    probability: np.ndarray  # (N,): of being selected for one; 0 where there is none
    evidence: np.ndarray  # log p(label and gold label | y), (N, K)

    @property
    def known(self) -> np.ndarray:
        """Which galaxies have one, (N,) of bool."""
        return self.probability > 0


@dataclass(frozen=True)
class TrainingRows:
    """Training data of a classifier, one row per galaxy."""

    frame: pl.DataFrame  # `object_id`, `label`, `alpha`, `split`; and `sampling_weight` if the sample was balanced
    inputs: Any  # pixels (N, S, S, 3) of uint8 for networks; features (N, P) for logistic regression
    # log p(observed | y), (N, K), for observations richer than a label, such as vote counts: networks then learn from
    # it, and labels only define the classes.
    evidence: np.ndarray | None = None
    votes: np.ndarray | None = None  # fractions of votes for each class, (N, K), instead of labels
    resolution: np.ndarray | None = None  # columns on which T depends, if more than `alpha`, which is the first
    intrinsic: np.ndarray | None = None  # properties for CV18 of held-out galaxies, (N, P)
    label: tuple[str, ...] = SMOOTH_OR_DISK  # names of labels 0, 1, …
    questions: tuple[Asked | None, ...] = (None,)  # that are learned, from evidence; None: the label
    gold: Gold | None = None  # gold labels beside what was observed, on which networks are tuned

    @property
    def heads(self) -> tuple[Head, ...]:
        """The classes of each question."""
        return heads_of(self.questions, self.label)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes, side by side."""
        return tuple(name for head in self.heads for name in head.columns)

    def column(self, name: str) -> np.ndarray:
        """Return one column as a numpy array."""
        return self.frame[name].to_numpy()

    @property
    def weights(self) -> np.ndarray:
        """Sampling weights; 1 if there are none."""
        return self.column("sampling_weight") if "sampling_weight" in self.frame.columns else np.ones(len(self.frame))

    def with_gold(self) -> TrainingRows:
        """Return the same galaxies with the evidence of gold labels too, and weights 1 / probability of selection."""
        assert self.gold is not None
        weights = self.weights / np.where(self.gold.known, self.gold.probability, 1)
        frame = self.frame.with_columns(sampling_weight=pl.Series(weights))
        return replace(self, frame=frame, evidence=self.gold.evidence, votes=None, resolution=None, gold=None)

    def observed(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return what `DebiasedLoss` learns from for some rows: labels or votes, α and observables; or evidence."""
        import torch

        if self.evidence is not None:
            return {"evidence": torch.tensor(self.evidence[rows], dtype=torch.float32)}
        resolution = self.column("alpha")[:, None] if self.resolution is None else self.resolution
        columns = torch.tensor(resolution[rows], dtype=torch.float32)
        labels = self.column("label").astype(np.int64) if self.votes is None else self.votes.astype(np.float32)
        tensors = {"labels": torch.tensor(labels[rows]), "alpha": columns[:, 0].contiguous()}
        return tensors if columns.shape[1] == 1 else {**tensors, "observables": columns[:, 1:].contiguous()}
