"""Galaxies whose label a correction changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Columns that a report adds to a catalogue's own, under names that no catalogue has.
OURS = "truemorph:"
AFTER, PICTURE, CHANGE = (OURS + name for name in ("after", "picture", "change"))


def changed_to(classes: Sequence[str], before: int, after: int) -> str:
    """Return the description of a change of label, such as "smooth to disk"."""
    return f"{classes[before]} to {classes[after]}"


def changes(label: np.ndarray, p: np.ndarray, classes: Sequence[str]) -> list[str]:
    """How labels 0 and 1 change with the probability of the second class, shape (N,): as `changed_to`, or empty."""
    after = np.where(np.isfinite(p), np.nan_to_num(p) > 0.5, label).astype(np.int64)
    return ["" if old == new else changed_to(classes, old, new) for old, new in zip(label, after, strict=True)]
