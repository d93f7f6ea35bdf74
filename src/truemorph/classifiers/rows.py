"""What a classifier learns from: rows of a catalogue, their inputs, and what was observed of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.bias.transitions import CLASS_NAMES, Transition
from truemorph.config import TrainingConfig
from truemorph.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainingRows:
    """The columns a classifier learns from, one row a galaxy, inputs beside.

    Attributes
    ----------
    frame : polars.DataFrame
        `object_id`, `label`, `alpha`, `split`; where a sample was balanced, `sampling_weight`; where galaxies have
        transitions of their own, `transition` (its name).
    inputs : array or Pixels
        Pixels (N, S, S, 3) of uint8 for networks, features (N, P) for logistic regression.
    evidence : array, shape (N, K), optional
        log p(observed | y), where more than a label was observed of each galaxy (votes, say); networks then learn from
        it, and labels only say which galaxies there are of each class.
    soft_labels : array, shape (N, K), optional
        Shares of votes for each class, or votes: a network then learns from them in place of labels, each vote flipped
        by T(α) as a label is.
    resolution : array, shape (N, J), optional
        What T depends on, where it is more than `alpha`.
    intrinsic : array, shape (N, P), optional
        Intrinsic properties, by which CV18 of held-out galaxies is measured.
    classes : tuple of str
        Names of the K classes.
    """

    frame: pl.DataFrame
    inputs: Any
    evidence: np.ndarray | None = None
    soft_labels: np.ndarray | None = None
    resolution: np.ndarray | None = None
    intrinsic: np.ndarray | None = None
    classes: tuple[str, ...] = CLASS_NAMES

    def column(self, name: str) -> np.ndarray:
        """One column as a numpy array."""
        return self.frame[name].to_numpy()

    @property
    def weights(self) -> np.ndarray:
        """Sampling weights, 1 where there are none."""
        if "sampling_weight" in self.frame.columns:
            return self.column("sampling_weight")
        return np.ones(self.frame.height)

    def observed(self, transition: Transition | Mapping[str, Transition], rows: np.ndarray) -> dict[str, torch.Tensor]:
        """What the loss takes of some rows: `evidence` and `weights`, `shares` for soft labels, and their `place`."""
        import torch

        found: dict[str, np.ndarray] = {"weights": self.weights[rows]}
        if self.evidence is not None:
            found["evidence"] = self.evidence[rows]
        else:
            flips = self._log_matrices(transition, rows)
            if self.soft_labels is None:
                labels = self.column("label")[rows]
                found["evidence"] = flips[np.arange(rows.size), :, labels]
            else:
                found["evidence"], found["shares"] = flips, self.soft_labels[rows]
        columns = {name: torch.tensor(values, dtype=torch.float32) for name, values in found.items()}
        return {**columns, "place": torch.arange(rows.size)}

    def _log_matrices(self, transition: Transition | Mapping[str, Transition], rows: np.ndarray) -> np.ndarray:
        """log p(ỹ | y, α) of some rows, (M, K, K)."""
        alpha = (self.column("alpha") if self.resolution is None else self.resolution)[rows]
        if not isinstance(transition, Mapping):
            return np.asarray(transition.log_matrix(alpha))
        names = self.column("transition")[rows]
        n_classes = next(iter(transition.values())).n_classes
        out = np.empty((rows.size, n_classes, n_classes))
        for name in np.unique(names):
            here = names == name
            out[here] = transition[name].log_matrix(alpha[here])
        return out


def check_observed(
    rows: TrainingRows, transition: Transition | Mapping[str, Transition] | None, config: TrainingConfig
) -> None:
    """Refuse observations of the wrong shape, and transitions that don't belong to the rows.

    Raises
    ------
    InputError
        Naming the first that is wrong.
    """
    n, n_classes = rows.frame.height, len(rows.classes)
    given = list(transition.values()) if isinstance(transition, Mapping) else [transition]
    for one in given:
        if one is not None and one.n_classes != n_classes:
            raise InputError(f"T(alpha) has {one.n_classes} classes, the catalogue {n_classes}")
    if isinstance(transition, Mapping):
        if "transition" not in rows.frame.columns:
            raise InputError("several T(alpha) need a column transition that names the one of each galaxy")
        unknown = set(rows.frame["transition"].unique()) - set(transition)
        if unknown:
            raise InputError(f"no T(alpha) named {min(map(str, unknown))!r}; there are {', '.join(transition)}")
    for name, values in (("evidence", rows.evidence), ("soft_labels", rows.soft_labels)):
        if values is None:
            continue
        if config.classifier == "logistic":
            raise InputError(f"logistic regression learns from labels: leave {name} out")
        if values.shape != (n, n_classes):
            raise InputError(f"{name} must have shape ({n}, {n_classes}); got {values.shape}")
        best = values.max(axis=1)
        wrong = ~np.isfinite(best) | np.isnan(values).any(axis=1)
        if name == "soft_labels":
            wrong |= (values < 0).any(axis=1) | (best <= 0)
        if wrong.any():
            what = "finite for one class at least" if name == "evidence" else "shares or numbers of votes, not all 0"
            raise InputError(f"{name} must be {what}; row {wrong.argmax()} is {values[wrong.argmax()]}")
