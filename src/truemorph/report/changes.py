"""Galaxies whose label a correction changes."""

from __future__ import annotations

import numpy as np

from truemorph.bias.transitions import DISK, SMOOTH

TO_DISK, TO_SMOOTH = "smooth to disk", "disk to smooth"
# Columns that a report adds to a catalogue's own, under names that no catalogue has.
OURS = "truemorph:"
AFTER, PICTURE, CHANGE = (OURS + name for name in ("after", "picture", "change"))


def changes(label: np.ndarray, disk: np.ndarray) -> np.ndarray:
    """How labels change with p(disk), shape (N,) of str: "smooth to disk", "disk to smooth", or empty."""
    after = np.where(np.isfinite(disk), np.nan_to_num(disk) > 0.5, label)
    return np.select(
        [(label == SMOOTH) & (after == DISK), (label == DISK) & (after == SMOOTH)], [TO_DISK, TO_SMOOTH], ""
    )
