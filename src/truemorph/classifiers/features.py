"""Catalogue features of the logistic classifier (DCV14)."""

from __future__ import annotations

import numpy as np
import polars as pl

from truemorph.tables import numeric_columns


def logistic_inputs(frame: pl.DataFrame, features: tuple[str, ...], source: str) -> np.ndarray:
    """Features, shape (N, P), NaN where missing.

    Without features p(y | x) is one number, the class fraction: the regression gets a constant column, and all
    that tells galaxies apart is their crowd label and α, through the posterior.
    """
    return numeric_columns(frame, features, source) if features else np.zeros((frame.height, 1))
