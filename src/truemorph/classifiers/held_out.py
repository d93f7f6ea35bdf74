"""Held-out training galaxies, with which galaxies of another survey are compared.

The measure is the Mahalanobis distance of a galaxy's α and of what its image looks like (`APPEARANCE`; without images,
of its features) from the mean of training galaxies. Half of the held-out galaxies give mean and covariance. The others
give the limit, which 1 % of galaxies like them exceed whatever their distribution is (a conformal p-value: Vovk,
Gammerman & Shafer 2005; Bates et al. 2023, Ann. Stat. 51, 149).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from scipy.special import betaln

from truemorph.bias.prior import HeldOut
from truemorph.classifiers.rows import TrainingRows
from truemorph.images.appearance import APPEARANCE, appearance

BEYOND = 0.01  # fraction of galaxies like those of training that are beyond the limit
_MOST = 4_000
_BATCH = 256
_ALPHA, _WEIGHT, _P, _EVIDENCE = "alpha", "sampling weight", "p of {}", "evidence of {}"


def measured(model: Any, inputs: np.ndarray, alpha: Any = None) -> pl.DataFrame:
    """Return what is compared of galaxies: ln α (NaN if unknown), and measures of their images or their features."""
    names = APPEARANCE if model.uses_images else model.features
    values = appearance(inputs) if model.uses_images else inputs[:, : len(names)]
    columns = {} if alpha is None else {_ALPHA: pl.Series(alpha).cast(pl.Float64).clip(1e-3).log().fill_null(np.nan)}
    return pl.DataFrame({**columns, **dict(zip(names, values.T, strict=True))})


def held_out(model: Any, rows: TrainingRows) -> pl.DataFrame | None:
    """Measure at most 4,000 held-out training galaxies, with p by members that did not see them; None without any.

    Of each class, also log p(observed | y, α).
    """
    every = rows.frame.select("object_id").with_row_index("row").join(model.seen, "object_id", maintain_order="left")
    chosen = every.filter(pl.col("role") != "in_sample")
    chosen = chosen.sample(min(_MOST, chosen.height), shuffle=True, seed=model.config.seed)
    measured_parts, evidence = [], rows.through(model.transition)
    for part in chosen.iter_slices(_BATCH):
        row = part["row"].to_numpy()
        inputs = rows.inputs[row]
        p, _ = model.out_of_fold(inputs, part["fold"].to_numpy(), model.member_probabilities)
        columns = dict(zip(map(_P.format, model.classes), p.T, strict=True))
        columns |= zip(map(_EVIDENCE.format, model.classes), evidence[row].T, strict=True)
        frame = measured(model, inputs, rows.column(_ALPHA)[row])
        measured_parts.append(frame.with_columns(**columns, **{_WEIGHT: rows.weights[row]}))
    return pl.concat(measured_parts) if measured_parts else None


def held_out_galaxies(model: Any, classes: Sequence[str]) -> HeldOut | None:
    """Return p and evidence of a model's held-out galaxies; None if an earlier version, without evidence, made it."""
    frame = model.held_out
    if frame is None or _EVIDENCE.format(classes[0]) not in frame.columns:
        return None
    p, evidence = (frame.select(map(column.format, classes)).to_numpy() for column in (_P, _EVIDENCE))
    return HeldOut(p, evidence, frame[_WEIGHT].to_numpy())


def most_predicted(model: Any) -> tuple[str, float]:
    """Return the class that most held-out galaxies are predicted to have, and their fraction."""
    p = model.held_out.select(map(_P.format, model.classes)).to_numpy()
    fractions = np.bincount(p.argmax(axis=1), minlength=len(model.classes)) / len(p)
    return model.classes[int(fractions.argmax())], float(fractions.max())


@dataclass(frozen=True)
class Comparison:
    """Compare galaxies with held-out training galaxies."""

    names: list[str]  # (F,): what is compared
    mean: np.ndarray  # (F,)
    precision: np.ndarray  # (F, F): inverse covariance
    distances: np.ndarray  # (M,): squared distances of the galaxies that give the limit, from the smallest

    @classmethod
    def of(cls, model: Any, with_alpha: bool) -> Comparison | None:
        """Return that of a model; None if it has too few held-out galaxies, or nothing to compare."""
        names = [*([_ALPHA] if with_alpha else []), *(APPEARANCE if model.uses_images else model.features)]
        if model.held_out is None or not names or int(BEYOND * (model.held_out.height // 2 + 1)) == 0:
            return None
        values = model.held_out.select(names).to_numpy()
        covariance = np.atleast_2d(np.cov(values[::2], rowvar=False))
        # So that it has an inverse where a column is constant, or follows from others.
        covariance += np.diag(1e-6 * np.diag(covariance) + 1e-9)
        comparison = cls(names, values[::2].mean(axis=0), np.linalg.inv(covariance), np.empty(0))
        return replace(comparison, distances=np.sort(comparison._parts(values[1::2]).sum(axis=1)))

    @property
    def reach(self) -> int:
        """How many held-out galaxies reach the limit, so that others exceed it with at most this probability."""
        return int(BEYOND * (self.distances.size + 1))

    def _parts(self, values: np.ndarray) -> np.ndarray:
        """Return what each of the values, (N, F), adds to the squared distance; the least for an unknown α."""
        off = values - self.mean
        unknown = np.isnan(off[:, 0])
        off[unknown, 0] = -off[unknown, 1:] @ self.precision[1:, 0] / self.precision[0, 0]
        return off * (off @ self.precision)

    def unlike(self, galaxies: pl.DataFrame) -> pl.Series:
        """Return in what each galaxy differs most, such as "noise high"; null for those within the limit."""
        values = galaxies.select(self.names).to_numpy()
        parts = self._parts(values)
        texts: list[str | None] = [None] * len(values)
        for row in np.flatnonzero(parts.sum(axis=1) > self.distances[-self.reach]):
            most = parts[row].argmax()
            texts[row] = f"{self.names[most]} {'high' if values[row, most] > self.mean[most] else 'low'}"
        return pl.Series(texts, dtype=pl.String)

    def chance(self, beyond: int, galaxies: int) -> float:
        """Return the probability that so many galaxies are beyond the limit if they are like those of training.

        Among as many of the farthest galaxies, few are then training galaxies: a sum of hypergeometric terms.
        """
        first, trained = beyond + self.reach - 1, self.distances.size
        counts = np.arange(max(0, first - galaxies), min(self.reach, first + 1))
        terms = _log_choose(trained, counts) + _log_choose(galaxies, first - counts)
        return float(np.exp(terms - _log_choose(galaxies + trained, first)).sum())


def _log_choose(n: Any, k: Any) -> Any:
    return -np.log1p(n) - betaln(n - k + 1, k + 1)
