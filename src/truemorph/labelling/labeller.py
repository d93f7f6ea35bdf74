"""Compute labels from inputs: p(y | x), out of fold, and the posterior given the observed label.

If a galaxy was used in training, p(y | x) comes from a member that did not see its label (out of fold). If there is no
such member (one fold), the posterior is null, because it would count the observed label twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.likelihood import posterior
from truemorph.bias.transitions import Transition
from truemorph.catalogs.columns import ADDED, NAMED
from truemorph.classifiers.checkpoint import Classifier
from truemorph.labelling.engines import Engine
from truemorph.tables import CatalogTable, numeric_columns

NEW, IN_SAMPLE = "new", "in_sample"


@dataclass(frozen=True)
class Observed:
    """Observed labels of a prepared catalogue: row of each id, and columns; `observables` has shape (N, J)."""

    rows: dict[str, int]
    labels: np.ndarray
    alpha: np.ndarray
    split: np.ndarray
    observables: np.ndarray

    @classmethod
    def of(cls, table: CatalogTable, observables: tuple[str, ...] = ()) -> Observed:
        """Read from a prepared catalogue."""
        rows = {one: row for row, one in enumerate(table.frame["object_id"].cast(pl.String))}
        labels, alpha, split = (table.frame[name].to_numpy() for name in ("label", "alpha", "split"))
        return cls(rows, labels, alpha, split, numeric_columns(table.frame, observables, str(table.path)))


def members_used(model: Classifier, fold: np.ndarray) -> np.ndarray:
    """Return which members label which galaxies, shape (M, N) of bool.

    Members of fold f were trained without it; galaxies outside the folds (-1) are labelled by all members.
    """
    of_a_fold = model.config.seeds if model.uses_images else 1
    own = np.arange(len(model.members))[:, None] // of_a_fold
    return (own == fold) | (fold < 0)


@dataclass(frozen=True)
class Labeller:
    """Compute labels from rows of a source.

    Parameters
    ----------
    model : Classifier
    engine : Engine
    transition : Transition, optional
        T(α) for posteriors.
    observables : tuple of str
        Columns on which T depends in addition to α.
    observed : bool
        Whether rows have observed labels and α.
    joined : Observed, optional
        Observed labels, if they come from another catalogue.
    keep : tuple of (str, polars type)
        Columns to copy.
    id_type : polars type
    """

    model: Classifier
    engine: Engine
    transition: Transition | None = None
    observables: tuple[str, ...] = ()
    observed: bool = False
    joined: Observed | None = None
    keep: tuple[tuple[str, Any], ...] = ()
    id_type: Any = pl.String

    @cached_property
    def _seen(self) -> dict[str, tuple[str, int]]:
        """Role and fold of training galaxies; ids are text, because ids of files are."""
        seen = self.model.seen
        return dict(zip(seen["object_id"].cast(pl.String), zip(seen["role"], seen["fold"], strict=True), strict=True))

    def part_in_training(self, ids: pl.Series) -> tuple[list[str], np.ndarray]:
        """Return each galaxy's role and fold in training; "new" and -1 if it was not used."""
        seen = [self._seen.get(one, (NEW, -1)) for one in ids.cast(pl.String)]
        return [role for role, _ in seen], np.array([fold for _, fold in seen], dtype=np.int64)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Columns of the labels."""
        names = self.model.classes
        out: dict[str, Any] = {"object_id": self.id_type, **dict(self.keep)}
        out |= {f"p_{name}": pl.Float64 for name in names}
        out |= {"p_spread": pl.Float64, "label": pl.Int64, "relation": pl.String}
        if self.observed:
            out |= {"observed_label": pl.Int64, "alpha": pl.Float64, "split": pl.String}
            if self.transition is not None:
                out |= {f"posterior_{name}": pl.Float64 for name in names}
                out |= {"posterior_label": pl.Int64, "label_quality": pl.Float64}
        return out | {"model_hash": pl.String}

    @property
    def probabilities(self) -> list[str]:
        """Columns of p(y | x)."""
        return [f"p_{name}" for name in self.model.classes]

    @property
    def descriptions(self) -> dict[str, str]:
        """Descriptions of the columns that are not copied; ASCII only, for FITS."""
        names = self.model.classes
        numbered = ", ".join(f"{k} {name}" for k, name in enumerate(names))
        about = {
            "object_id": NAMED["object_id"].description,
            "p_spread": "standard deviation of p(y | x) over members; missing if only one member labelled the galaxy",
            "label": f"class with the largest p(y | x): {numbered}",
            "relation": "role of the galaxy in training: new, out_of_fold, early_stopping or in_sample",
            "observed_label": f"observed label: {numbered}",
            "alpha": ADDED["alpha"],
            "split": ADDED["split"],
            "posterior_label": f"class with the largest posterior probability: {numbered}",
            "label_quality": "posterior probability that the observed label is correct",
            "model_hash": "hash of the model's files",
        }
        for name in names:
            about[f"p_{name}"] = f"p(y = {name} | x): class probability from the model, mean over members"
            about[f"posterior_{name}"] = f"posterior probability of {name}, given x, the observed label and alpha"
        kept = dict(self.keep)
        return {name: about[name] for name in self.schema if name not in kept}

    def label(self, frame: pl.DataFrame, inputs: np.ndarray) -> pl.DataFrame:
        """Return labels, one row per input row.

        Parameters
        ----------
        frame : polars.DataFrame
        inputs : array
            Pixels or features, one per row.
        """
        roles, fold = self.part_in_training(frame["object_id"])
        probabilities, spread = self._out_of_fold(inputs, fold)
        out: dict[str, Any] = {"object_id": frame["object_id"], **{name: frame[name] for name, _ in self.keep}}
        out |= {f"p_{name}": probabilities[:, k] for k, name in enumerate(self.model.classes)}
        out |= {
            "p_spread": pl.Series(spread).fill_nan(None),
            "label": np.argmax(probabilities, axis=1),
            "relation": roles,
            "model_hash": pl.Series([self.model.model_hash]).new_from_index(0, frame.height),
        }
        if self.observed:
            out |= self._with_observed(frame, probabilities, np.array([role != IN_SAMPLE for role in roles], bool))
        return pl.DataFrame(out).select(list(self.schema))

    def _out_of_fold(self, inputs: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return p(y | x) and its spread over members (NaN if there is only one)."""
        total = np.zeros((len(inputs), len(self.model.classes)))
        squares, counts = np.zeros_like(total), np.zeros(len(inputs))
        for member, used in enumerate(members_used(self.model, fold)):
            if used.any():
                p = self.engine.member(inputs if used.all() else inputs[used], member)
                total[used] += p
                squares[used] += p**2
                counts[used] += 1
        mean = total / counts[:, None]
        variance = np.clip(squares / counts[:, None] - mean**2, 0, None).max(axis=1)
        return mean, np.where(counts > 1, np.sqrt(variance), np.nan)

    def _with_observed(self, frame: pl.DataFrame, probabilities: np.ndarray, fresh: np.ndarray) -> dict[str, Any]:
        """Return observed labels, and posteriors if p(y | x) is out of fold and T's observables are known."""
        known = np.ones(frame.height, bool)
        if self.joined is None:
            labels, alpha, split = (frame[name].to_numpy() for name in ("label", "alpha", "split"))
            values = numeric_columns(frame, self.observables, "the catalogue")
        else:
            rows = np.array([self.joined.rows.get(one, -1) for one in frame["object_id"].cast(pl.String)])
            known = rows >= 0
            labels, alpha, split = self.joined.labels[rows], self.joined.alpha[rows], self.joined.split[rows]
            values = self.joined.observables[rows]
        observed = {"observed_label": labels, "alpha": alpha, "split": split}
        usable = known & fresh & np.isfinite(values).all(axis=1)
        columns: dict[str, Any] = {}
        if self.transition is not None:
            after = np.full(probabilities.shape, np.nan)
            after[usable] = posterior(
                probabilities[usable],
                labels[usable],
                alpha[usable],
                self.transition,
                observables=values[usable] if self.observables else None,
            )
            columns |= {f"posterior_{name}": after[:, k] for k, name in enumerate(self.model.classes)}
            columns["posterior_label"] = np.argmax(after, axis=1)
            columns["label_quality"] = after[np.arange(len(labels)), labels]
        return {
            name: pl.select(pl.when(pl.Series(where)).then(pl.Series(values)).otherwise(None)).to_series()
            for group, where in ((observed, known), (columns, usable))
            for name, values in group.items()
        }
