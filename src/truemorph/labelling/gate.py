"""What a faster engine must prove before its labels are taken: that it says what float32 says.

Measured on images that were not used to calibrate it: agreement of labels, class fractions in quintiles of α, and
calibration. An engine that fails is refused, with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from truemorph.bias.scores import calibration_error
from truemorph.bias.transitions import DISK
from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError
from truemorph.labelling.decoding import decoded
from truemorph.labelling.engines import Engine
from truemorph.labelling.sources import Source
from truemorph.progress import progress

CALIBRATION_IMAGES, GATE_IMAGES = 512, 10_000
LEAST_AGREEMENT, MOST_FRACTION_CHANGE, MOST_CALIBRATION_CHANGE = 0.995, 0.005, 0.005
_EVERY = 20  # one image of so many calibrates, until there are enough; the others are the gate's
_PARTS, _BATCH = 5, 256


@dataclass(frozen=True)
class Gate:
    """How far a faster engine is from float32.

    Attributes
    ----------
    images : int
    agreement : float
        Share of images with the same label.
    fraction_changes : list of float
        Change of the disk fraction in each quintile of α: of labels or of mean probabilities, whichever is the larger.
    calibration_change : float
        Change of the expected calibration error: against true classes where they are known, else against float32's
        own probabilities.
    against : str
        "truth" or "float32".
    """

    images: int
    agreement: float
    fraction_changes: list[float]
    calibration_change: float
    against: str

    @property
    def passed(self) -> bool:
        """Whether the faster engine may be used."""
        return (
            self.images >= GATE_IMAGES
            and self.agreement >= LEAST_AGREEMENT
            and max(map(abs, self.fraction_changes)) <= MOST_FRACTION_CHANGE
            and abs(self.calibration_change) <= MOST_CALIBRATION_CHANGE
        )

    def __str__(self) -> str:
        changes = ", ".join(f"{change:+.4f}" for change in self.fraction_changes)
        return (
            f"{self.images:,d} images, label agreement {self.agreement:.4f} (at least {LEAST_AGREEMENT}), disk "
            f"fractions {changes} (at most ±{MOST_FRACTION_CHANGE}), calibration error {self.calibration_change:+.4f} "
            f"(at most ±{MOST_CALIBRATION_CHANGE}, against {self.against})"
        )


def compare(exact: np.ndarray, fast: np.ndarray, alpha: np.ndarray, truth: np.ndarray | None = None) -> Gate:
    """Compare probabilities of a faster engine with those of float32.

    Parameters
    ----------
    exact, fast : array, shape (N, K)
    alpha : array, shape (N,)
    truth : array, shape (N,), optional
        True classes, -1 where unknown.

    Examples
    --------
    >>> exact = np.tile([[0.3, 0.7], [0.6, 0.4]], (5_000, 1))
    >>> alpha = np.linspace(5, 30, 10_000)
    >>> compare(exact, exact, alpha).passed, compare(exact, exact[:, ::-1], alpha).agreement
    (True, 0.0)
    """
    labels = exact.argmax(axis=1), fast.argmax(axis=1)
    order = np.array_split(np.argsort(alpha, kind="stable"), _PARTS)
    changes = []
    for part in order:
        hard = float(np.mean(labels[1][part] == DISK) - np.mean(labels[0][part] == DISK))
        soft = float(fast[part, DISK].mean() - exact[part, DISK].mean())
        changes.append(max(hard, soft, key=abs))
    known = None if truth is None else truth >= 0
    if truth is not None and known is not None and known.any():
        true = (truth[known] == DISK).astype(float)
        before, after = (calibration_error(true, p[known, DISK]) for p in (exact, fast))
        change = after - before
    else:
        truth = None
        change = calibration_error(exact[:, DISK], fast[:, DISK])
    against = "float32" if truth is None else "truth"
    return Gate(len(exact), float(np.mean(labels[0] == labels[1])), changes, change, against)


def _pixels(
    model: Classifier, source: Source, wanted: Callable[[int], bool], most: int
) -> Iterator[tuple[np.ndarray, Any]]:
    """Good images among those that are wanted (by their number), with their rows."""
    number = given = 0
    for part in source.parts:

        def chosen(batches: Iterator[Any]) -> Iterator[Any]:
            nonlocal number
            for rows in batches:
                keep = [row for row in range(len(rows.images)) if wanted(number + row)]
                number += len(rows.images)
                if keep:
                    yield type(rows)(rows.frame[keep], [rows.images[row] for row in keep])

        for rows, images in decoded(model.config, chosen(part.batches(_BATCH))):
            good = [row for row, image in enumerate(images) if not isinstance(image, str)][: most - given]
            if good:
                given += len(good)
                yield np.stack([images[row] for row in good]), rows.frame[good]
            if given >= most:
                return


def check_proof(source: Source) -> None:
    """Refuse images that can't prove anything, before anything is computed.

    Raises
    ------
    InputError
        If their α is not known.
    """
    if not source.prepared:
        raise InputError(
            f"{source.path}: int8 must keep class fractions at every alpha, and alpha is not known here; give a "
            "prepared catalogue with `gate` (of simulated galaxies, say)"
        )


def calibration_images(model: Classifier, source: Source) -> np.ndarray:
    """Images to take ranges from, shape (512, S, S, 3); fewer where there are fewer."""
    found = [pixels for pixels, _ in _pixels(model, source, lambda number: number % _EVERY == 0, CALIBRATION_IMAGES)]
    if not found:
        raise InputError(f"{source.path}: no image to calibrate int8 with")
    return np.concatenate(found)


def measure(model: Classifier, source: Source, exact: Engine, fast: Engine) -> Gate:
    """Run both engines, all members, on 10,000 images that calibrate nothing.

    Raises
    ------
    InputError
        If there are fewer.
    """
    kept: dict[str, list[np.ndarray]] = {"exact": [], "fast": [], "alpha": [], "gold": []}
    with progress(GATE_IMAGES, "int8 against fp32", "img") as told:
        for pixels, frame in _pixels(model, source, lambda number: number % _EVERY != 0, GATE_IMAGES):
            for name, engine in (("exact", exact), ("fast", fast)):
                members = [engine.member(pixels, member) for member in range(len(model.members))]
                kept[name].append(np.mean(members, axis=0))
            kept["alpha"].append(frame["alpha"].to_numpy())
            if "gold" in frame.columns:
                kept["gold"].append(frame["gold"].fill_null(-1).to_numpy())
            told.update(len(pixels))
    n = sum(map(len, kept["exact"]))
    if n < GATE_IMAGES:
        raise InputError(
            f"{source.path}: int8 must pass on {GATE_IMAGES:,d} images that did not calibrate it, and only {n:,d} are "
            "there; give more with `gate` (simulated ones will do)"
        )
    truth = np.concatenate(kept["gold"]) if kept["gold"] else None
    exact_p, fast_p, alpha = (np.concatenate(kept[name]) for name in ("exact", "fast", "alpha"))
    return compare(exact_p, fast_p, alpha, truth)
