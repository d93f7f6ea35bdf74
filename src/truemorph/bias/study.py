"""A fit of T(α) together with everything that says how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from truemorph.bias.diagnostics import Calibration, ConfoundingCheck, FamilyComparison
from truemorph.bias.populations import PopulationFractions
from truemorph.bias.profiles import Profile, Sensitivity
from truemorph.bias.result import TransitionFit


@dataclass(frozen=True)
class TransitionStudy:
    """A fit with everything that says how far to trust it.

    Attributes
    ----------
    fit : TransitionFit
    families : FamilyComparison or None
    check : ConfoundingCheck
    calibration : Calibration
    profile : Profile or None
    sensitivity : Sensitivity or None
    fractions : PopulationFractions
        Class fractions in bins of α, or of another column.
    gold_fractions : array, shape (B,), or None
        Disk fraction of the galaxies with gold labels in the same bins.
    described : dict
        All of it for JSON; what `train` reads.
    """

    fit: TransitionFit
    families: FamilyComparison | None
    check: ConfoundingCheck
    calibration: Calibration
    profile: Profile | None
    sensitivity: Sensitivity | None
    fractions: PopulationFractions
    gold_fractions: np.ndarray | None
    described: dict[str, Any]
