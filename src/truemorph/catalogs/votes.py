"""From vote fractions to labels (Medina-Rosales et al., arXiv:2308.11007, sections 2.2 and 2.5).

Section 2.2 of the paper swaps the rule; here a majority of "smooth" votes means smooth.
"""

from __future__ import annotations

import numpy as np

from truemorph.errors import InputError

NO_VOTES, TIED, ARTEFACT = "no vote fractions", "smooth and disk tied", "majority star or artefact"
NEITHER = "neither smooth nor disk has votes"


def labels_from_votes(
    smooth: np.ndarray, disk: np.ndarray | None = None, artefact: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Label galaxies by the largest weighted vote fraction of the first question.

    Parameters
    ----------
    smooth, disk, artefact : array, shape (N,)
        Vote fractions between 0 and 1, NaN where unknown. Where `disk` is unknown, the label is smooth above 0.5;
        where `artefact` is unknown, nothing is dropped as an artefact.

    Returns
    -------
    labels : array of int, shape (N,)
        0 = smooth, 1 = disk, -1 = no label.
    reasons : array of str, shape (N,)
        Why a galaxy has no label ("" where it has one).

    Raises
    ------
    InputError
        If a fraction lies outside [0, 1], naming the first such row (counted from 0).

    Examples
    --------
    >>> labels, reasons = labels_from_votes(
    ...     np.array([0.6, 0.3, 0.1, 0.7]), np.array([0.4, 0.6, 0.2, np.nan]), np.array([0.0, 0.1, 0.7, np.nan])
    ... )
    >>> labels
    array([ 0,  1, -1,  0])
    """
    smooth = np.asarray(smooth, dtype=np.float64)
    unknown = np.full(smooth.shape, np.nan)
    disk = unknown if disk is None else np.asarray(disk, dtype=np.float64)
    artefact = unknown if artefact is None else np.asarray(artefact, dtype=np.float64)
    for name, values in (("smooth", smooth), ("disk", disk), ("artefact", artefact)):
        bad = np.flatnonzero((values < -1e-6) | (values > 1 + 1e-6))
        if bad.size:
            raise InputError(
                f"{name} vote fractions must lie between 0 and 1; {bad.size} do not "
                f"(first: row {bad[0]}, {values[bad[0]]}); are they counts or percentages?"
            )
    rival = np.where(np.isnan(disk), 0.5, disk)
    labels = (rival > smooth).astype(np.int64)
    reasons = np.full(smooth.shape, "", dtype="<U40")
    reasons[rival == smooth] = TIED
    reasons[(rival == 0) & (smooth == 0)] = NEITHER
    with np.errstate(invalid="ignore"):
        reasons[artefact > np.maximum(smooth, np.nan_to_num(disk))] = ARTEFACT
    reasons[np.isnan(smooth)] = NO_VOTES
    labels[reasons != ""] = -1
    return labels, reasons
