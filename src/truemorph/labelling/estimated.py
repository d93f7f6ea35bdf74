"""Labels by an estimate alone, without a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.curves.families import transition_from_dict
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import Transition
from truemorph.bias.files import read_arrays, read_fit, transition_described
from truemorph.errors import InputError
from truemorph.findings import Finding, findings_in
from truemorph.io import content_hash
from truemorph.questions import SMOOTH_OR_DISK, Head, columns_of, heads_of
from truemorph.tables import left_join

GALAXIES = ("object_id", "alpha", "probabilities")
_ALPHA, _SAME_ALPHA = "alpha of the estimate", 1e-6


@dataclass(frozen=True)
class Estimated:
    """An estimate that labels galaxies as a `Classifier` does: class fractions stand for p(y | x).

    Posteriors follow from them, labels or votes, and T(α). Of its own galaxies, an estimate with gold labels also knows
    p(y | label, votes, α, …) by regression.
    """

    described: dict[str, Any]  # in the format of a fit file
    source: str  # for messages
    galaxies: Mapping[str, np.ndarray | None] | None = None  # `Estimate.galaxies`

    uses_images = False
    features = ()
    folder = None
    held_out = None
    seen = pl.DataFrame(schema={"object_id": pl.String, "role": pl.String, "fold": pl.Int64})

    @classmethod
    def of(cls, estimate: Any) -> Estimated:
        """Return that of a file (.json), or of what `estimate_transition` returns."""
        if isinstance(estimate, str | Path):
            described = read_fit(estimate)
            made = cls(described, str(estimate), read_arrays(described, estimate))
        else:
            made = cls(transition_described(estimate), "the estimate", estimate.galaxies)
        _ = made.fractions  # an error if it has none
        return made

    @cached_property
    def transition(self) -> Transition:
        """T(α)."""
        return transition_from_dict(self.described)

    @property
    def curves(self) -> list[dict[str, Any]]:
        """T(α) in the format of a fit file."""
        return [self.described]

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The classes of its question."""
        if isinstance(self.transition, TreeTransition):
            return heads_of([self.transition.asked])
        return heads_of([None], self.described.get("classes") or SMOOTH_OR_DISK)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.heads[0].columns

    @cached_property
    def fractions(self) -> np.ndarray:
        """Class fractions, shape (K,)."""
        fractions = self.described.get("class_fractions")
        if not isinstance(fractions, dict) or not fractions.keys() >= set(self.heads[0].classes):
            raise InputError(f"{self.source}: has no class fractions, so it can't label galaxies; use a trained model")
        return np.array([fractions[name] for name in self.heads[0].classes], np.float64)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Limitations of the estimate."""
        return findings_in(self.described)

    @property
    def model_hash(self) -> str:
        """Hash of its content."""
        return content_hash(self.described)[:16]

    @property
    def trained_on(self) -> dict[str, Any]:
        """What its catalogue was."""
        about = {key: self.described.get(key) for key in ("alpha", "alpha_psf")}
        return {"source": Path(self.source).name, "rows": self.described.get("galaxies"), **about}

    def member_probabilities(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return the class fractions of each galaxy, (N, K)."""
        return np.tile(self.fractions, (len(inputs), 1))

    def out_of_fold(self, inputs: np.ndarray, fold: np.ndarray, member: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the class fractions of each galaxy, and no spread."""
        return member(inputs, 0), np.full(len(inputs), np.nan)

    @cached_property
    def by_regression(self) -> pl.DataFrame | None:
        """Probabilities of its galaxies by the regression on gold labels: `object_id`, `alpha`, `regression_CLASS`."""
        if self.galaxies is None or any(self.galaxies.get(name) is None for name in GALAXIES):
            return None
        ids, alpha, p = (np.asarray(self.galaxies[name]) for name in GALAXIES)
        names = columns_of("regression", self.described["fractions"]["classes"])
        columns = {name: pl.Series(values, dtype=pl.Float64) for name, values in zip(names, p.T, strict=True)}
        return pl.DataFrame({"object_id": pl.Series(ids).cast(pl.String), _ALPHA: pl.Series(alpha), **columns})


def regressed(regression: pl.DataFrame, ids: pl.Series, alpha: pl.Series) -> pl.DataFrame:
    """Return `regression_CLASS` of galaxies (`by_regression`); null for those that are not the estimate's own.

    These are recognised by id and α.
    """
    galaxies = pl.DataFrame({"object_id": ids.cast(pl.String), "alpha": alpha.cast(pl.Float64)})
    joined = left_join(galaxies, regression)
    same = (pl.col("alpha") - pl.col(_ALPHA)).abs() <= _SAME_ALPHA * pl.col(_ALPHA)
    return joined.select(pl.when(same).then(pl.col(name)).alias(name) for name in regression.columns[2:])
