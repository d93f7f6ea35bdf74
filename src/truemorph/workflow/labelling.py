"""What `label` labels with: a trained model, or T(α) alone."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from truemorph.bias.transitions import CLASS_NAMES
from truemorph.config import training_config
from truemorph.errors import InputError
from truemorph.workflow.fitting import read_fit

if TYPE_CHECKING:
    from truemorph.classifiers.checkpoint import Classifier


def labelling_model(path: str | os.PathLike[str]) -> Classifier:
    """The model in a folder; or, of a fit of T(α), the one that knows nothing of a galaxy but how common classes are.

    Raises
    ------
    InputError
        If it is neither.
    CheckpointError
        If a model can't be read.
    """
    from truemorph.classifiers.checkpoint import Classifier, describe, load

    if Path(path).suffix != ".json":
        return load(path)
    path = Path(path)
    fit = read_fit(path)
    fractions = fit.get("class_fractions")
    if not fractions:
        raise InputError(f"{path}: holds no class fractions, which are all that is known without a model")
    known = np.array([fractions[name] for name in CLASS_NAMES], np.float64)
    source = {
        "source": path.name,
        "rows": fit.get("galaxies"),
        "alpha": fit.get("alpha"),
        "alpha_psf": fit.get("alpha_psf"),
    }
    config = training_config("dcv14", features=(), folds=1)
    described = describe(config, fit, catalogue=source, members=1, metrics={}, normalisation={})
    with np.errstate(divide="ignore"):
        member = {"coef": np.zeros((known.size, 1)), "intercept": np.log(known)}
    seen = pl.DataFrame(schema={"object_id": pl.String, "role": pl.String, "fold": pl.Int64})
    digest = hashlib.sha256(json.dumps(fit, sort_keys=True).encode()).hexdigest()[:16]
    return Classifier(described, [member], seen, digest)
