"""Labels by an estimate alone, without a trained classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.curves.families import transition_from_dict
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import log_of
from truemorph.bias.files import read_arrays, read_fit, transition_described
from truemorph.classifiers.classifier import Classifier
from truemorph.errors import InputError
from truemorph.io import content_hash
from truemorph.questions import SMOOTH_OR_DISK, columns_of
from truemorph.tables import left_join

_ALPHA, _SAME_ALPHA = "alpha of the estimate", 1e-6


@dataclass(repr=False)
class Estimated(Classifier):
    """An estimate as a classifier without features: class fractions stand for p(y | x).

    Posteriors follow from them, labels or votes, and T(α). Of its own galaxies, an estimate with gold labels also knows
    p(y | label, votes, α, …) by regression.
    """

    by_regression: pl.DataFrame | None = None  # of its galaxies: `object_id`, α, `regression_CLASS`

    @classmethod
    def of(cls, estimate: Any) -> Estimated:
        """Return that of a file (.json), or of what `estimate_transition` returns."""
        if isinstance(estimate, str | Path):
            curve, source = read_fit(estimate), str(estimate)
            galaxies = read_arrays(curve, estimate)
        else:
            curve, source, galaxies = transition_described(estimate), "the estimate", estimate.galaxies or {}
        transition = transition_from_dict(curve)
        asked = transition.asked if isinstance(transition, TreeTransition) else None
        classes = (curve.get("classes") or SMOOTH_OR_DISK) if asked is None else asked.classes
        fractions = curve.get("class_fractions")
        if not isinstance(fractions, dict) or not fractions.keys() >= set(classes):
            raise InputError(f"{source}: has no class fractions, so it can't label galaxies; use a trained model")
        logits = log_of(np.array([fractions[name] for name in classes]))
        about = {key: curve.get(key) for key in ("alpha", "alpha_psf")}
        described = {
            "classes": classes,
            "transition": curve,
            "questions": [asked and asked.to_dict()],
            "catalogue": {"source": Path(source).name, "rows": curve.get("galaxies"), **about},
            "training": {"classifier": "logistic"},
            "members": 1,
            "metrics": {},
        }
        weights = {"coef": np.zeros((len(classes), 1)), "intercept": logits}
        seen = pl.DataFrame(schema={"object_id": pl.String, "role": pl.String, "fold": pl.Int64})
        return cls(described, [weights], seen, content_hash(curve)[:16], by_regression=_regression(curve, galaxies))


def _regression(curve: Mapping[str, Any], galaxies: Mapping[str, np.ndarray]) -> pl.DataFrame | None:
    """Return probabilities of an estimate's galaxies by the regression on gold labels; None if it has none."""
    if "probabilities" not in galaxies:
        return None
    names = columns_of("regression", curve["fractions"]["classes"])
    p = pl.DataFrame(galaxies["probabilities"], names, orient="row").cast(pl.Float64)
    ids = pl.Series(galaxies["object_id"]).cast(pl.String)
    return pl.DataFrame({"object_id": ids, _ALPHA: galaxies["alpha"]}).hstack(p)


def regressed(regression: pl.DataFrame, ids: pl.Series, alpha: pl.Series) -> pl.DataFrame:
    """Return `regression_CLASS` of galaxies (`by_regression`); null for those that are not the estimate's own.

    These are recognised by id and α.
    """
    galaxies = pl.DataFrame({"object_id": ids.cast(pl.String), "alpha": alpha.cast(pl.Float64)})
    same = (pl.col("alpha") - pl.col(_ALPHA)).abs() <= _SAME_ALPHA * pl.col(_ALPHA)
    return left_join(galaxies, regression).select(pl.when(same).then(pl.col(regression.columns[2:])))
