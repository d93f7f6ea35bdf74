"""The data that a classifier is trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.bias.curves.transitions import Transition
from truemorph.bias.likelihood import label_columns
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
    evidence: np.ndarray | None = None  # log p(observed | y), (N, K); None: that of `label` through T(α)
    votes: np.ndarray | None = None  # fractions of votes for each class, (N, K), instead of evidence
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

    def through(self, transition: Transition) -> np.ndarray:
        """Return the evidence, or that of the labels through T(α) if there is no other."""
        if self.evidence is not None:
            return self.evidence
        return label_columns(transition, self.column("label"), self.column("alpha"))

    def with_gold(self) -> TrainingRows:
        """Return the same galaxies with the evidence of gold labels too, and weights 1 / probability of selection."""
        assert self.gold is not None
        weights = self.weights / np.where(self.gold.known, self.gold.probability, 1)
        frame = self.frame.with_columns(sampling_weight=weights)
        return replace(self, frame=frame, evidence=self.gold.evidence, votes=None, gold=None)

    def observed(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return what a network learns from for some rows: evidence or votes, and weights."""
        import torch

        arrays = {"evidence": self.evidence, "votes": self.votes, "weights": self.weights}
        return {
            name: torch.tensor(values[rows], dtype=torch.float32)
            for name, values in arrays.items()
            if values is not None
        }
