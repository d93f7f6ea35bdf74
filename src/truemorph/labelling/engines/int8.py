"""Quantise networks to int8 for CPUs, and check them against float32 before use.

They are compared on images that were not used for calibration: agreement of labels, class fractions in quintiles of α,
and calibration error. A network that fails is rejected with these numbers; one that passes is stored with the model.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import polars as pl
from filelock import FileLock
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from truemorph.bias.scores import calibration_error
from truemorph.bias.transitions import DISK
from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError, reason
from truemorph.io import read_json
from truemorph.labelling.engines import Engine
from truemorph.labelling.engines.openvino import AT_ONCE, OpenVinoEngine, converted
from truemorph.labelling.engines.torch import TorchEngine
from truemorph.labelling.sources import Rows, Source, decoded
from truemorph.progress import progress, tell

CALIBRATION_IMAGES, GATE_IMAGES = 512, 10_000
LEAST_AGREEMENT, MOST_FRACTION_CHANGE, MOST_CALIBRATION_CHANGE = 0.995, 0.005, 0.005
_EVERY = 20  # one image in so many is used to calibrate, until there are enough; the others are used to compare
_PARTS, _BATCH = 5, 256
_LEAST = 1e-30

# Networks of a model's members, and the alignment of their probabilities.
Members = tuple[list[Any], list["Alignment"]]


@dataclass(frozen=True)
class Gate:
    """Differences between a faster engine and float32, and whether they are small enough.

    `agreement` is the fraction of images with the same label. `fraction_changes` is the change of the disk fraction in
    each quintile of α, from labels or mean probabilities (the larger change). `calibration_change` is that of the
    expected calibration error against gold labels ("truth") if there are any, else against "float32".
    """

    images: int
    agreement: float
    fraction_changes: list[float]
    calibration_change: float
    against: str

    @property
    def passed(self) -> bool:
        """Whether the differences are within the limits."""
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
    """Compare the probabilities (N, K) of a faster engine with those in float32; true classes are -1 if unknown.

    Examples
    --------
    >>> exact = np.tile([[0.3, 0.7], [0.6, 0.4]], (5_000, 1))
    >>> alpha = np.linspace(5, 30, 10_000)
    >>> compare(exact, exact, alpha).passed, compare(exact, exact[:, ::-1], alpha).agreement
    (True, 0.0)
    """
    before, after = exact.argmax(axis=1), fast.argmax(axis=1)
    changes = []
    for part in np.array_split(np.argsort(alpha, kind="stable"), _PARTS):
        hard = float(np.mean(after[part] == DISK) - np.mean(before[part] == DISK))
        soft = float(fast[part, DISK].mean() - exact[part, DISK].mean())
        changes.append(max(hard, soft, key=abs))
    if truth is not None and (truth >= 0).any():
        known, against = truth >= 0, "truth"
        exact_error, fast_error = (calibration_error(truth[known] == DISK, p[known, DISK]) for p in (exact, fast))
        change = fast_error - exact_error
    else:
        change, against = calibration_error(exact[:, DISK], fast[:, DISK]), "float32"
    return Gate(len(exact), float(np.mean(before == after)), changes, change, against)


def _pixels(
    model: Classifier, source: Source, calibration: bool, most: int
) -> Iterator[tuple[np.ndarray, pl.DataFrame]]:
    """Yield readable images for calibration, or the others, with their rows; `most` images at most."""

    def chosen() -> Iterator[Rows]:
        number = 0
        for part in source.parts:
            for rows in part.batches(_BATCH):
                numbers = np.arange(number, number + len(rows.images))
                number += numbers.size
                wanted = np.flatnonzero((numbers % _EVERY == 0) == calibration)
                yield Rows(rows.frame[wanted], [rows.images[row] for row in wanted])

    for rows, images in decoded(model.config, chosen()):
        good = [row for row, image in enumerate(images) if not isinstance(image, str)][:most]
        most -= len(good)
        if good:
            yield np.stack([images[row] for row in good]), rows.frame[good]
        if most == 0:
            return


def calibration_images(model: Classifier, source: Source) -> np.ndarray:
    """Read images for calibration, shape (512, S, S, 3), or fewer if there are fewer."""
    found = [pixels for pixels, _ in _pixels(model, source, True, CALIBRATION_IMAGES)]
    if not found:
        raise InputError(f"{source.path}: no readable image to calibrate int8; give more images")
    return np.concatenate(found)


def measure(model: Classifier, source: Source, exact: Engine, fast: Engine) -> Gate:
    """Run both engines on 10,000 images that were not used for calibration; an error if there are fewer."""
    kept: dict[str, list[np.ndarray]] = {"exact": [], "fast": [], "alpha": [], "gold": []}
    with progress(GATE_IMAGES, "int8 against fp32", "img") as bar:
        for pixels, frame in _pixels(model, source, False, GATE_IMAGES):
            for name, engine in (("exact", exact), ("fast", fast)):
                members = [engine.member(pixels, member) for member in range(len(model.members))]
                kept[name].append(np.mean(members, axis=0))
            kept["alpha"].append(frame["alpha"].to_numpy())
            if "gold" in frame.columns:
                kept["gold"].append(frame["gold"].fill_null(-1).to_numpy())
            bar.update(len(pixels))
    n = sum(map(len, kept["exact"]))
    if n < GATE_IMAGES:
        raise InputError(
            f"{source.path}: int8 is tested on {GATE_IMAGES:,d} images that were not used for calibration, but only "
            f"{n:,d} are available; give more with `gate` (simulated images are fine)"
        )
    exact_p, fast_p, alpha = (np.concatenate(kept[name]) for name in ("exact", "fast", "alpha"))
    return compare(exact_p, fast_p, alpha, np.concatenate(kept["gold"]) if kept["gold"] else None)


def _logits(p: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(p, np.float64), _LEAST))


@dataclass(frozen=True)
class Alignment:
    """softmax(scale · log p + shifts): a change of temperature and a shift per class, of which the first is zero."""

    scale: float
    shifts: tuple[float, ...]

    @classmethod
    def fit(cls, fast: np.ndarray, exact: np.ndarray) -> Alignment:
        """Fit `fast` to `exact`, both (N, K), by minimum cross-entropy, which makes their mean probabilities equal.

        Examples
        --------
        >>> exact = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
        >>> fast = softmax(np.log(exact) / 2 + [0.0, 0.3], axis=1)
        >>> found = Alignment.fit(fast, exact)
        >>> round(found.scale, 3), round(found.shifts[1], 3)
        (2.0, -0.6)
        """
        x, exact = _logits(fast), np.asarray(exact, np.float64)
        n = len(x)

        def cost(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            z = parameters[0] * x + np.append(0.0, parameters[1:])
            beyond = softmax(z, axis=1) - exact
            slope = np.append(np.sum(beyond * x), beyond.sum(axis=0)[1:])
            return -float(np.sum(exact * log_softmax(z, axis=1))) / n, slope / n

        start = np.append(1.0, np.zeros(x.shape[1] - 1))
        found = minimize(cost, start, jac=True, method="BFGS", options={"gtol": 1e-8})
        return cls(float(found.x[0]), (0.0, *map(float, found.x[1:])))

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """Return the aligned probabilities, shape (N, K)."""
        return softmax(self.scale * _logits(p) + np.array(self.shifts), axis=1)


def quantised(network: Any, pixels: np.ndarray) -> Any:
    """Quantise a network to an int8 OpenVINO model, calibrated on uint8 images (N, S, S, 3).

    The first layer is not quantised: its inputs are integers from 0 to 255, which bf16 represents exactly. The bias
    from rounding is corrected layer by layer with the earlier layers in int8 (a minute for a ResNet50). If layers are
    corrected independently, three times as many labels change (docs/labelling.md).
    """
    import nncf  # takes seconds

    batches = [pixels[start : start + AT_ONCE] for start in range(0, len(pixels) - AT_ONCE + 1, AT_ONCE)]
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    layers = [layer for layer in network.get_ordered_ops() if layer.get_type_name() not in ("Constant", "Parameter")]
    first = next(number for number, layer in enumerate(layers) if layer.get_type_name() in kinds)
    names = [layer.get_friendly_name() for layer in layers[: first + 1]]
    nncf.set_log_level(40)
    with contextlib.redirect_stdout(sys.stderr):  # nncf prints progress to stdout
        return nncf.quantize(
            network,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(names=names),
        )


def int8_members(model: Classifier, pixels: np.ndarray, exact: Engine) -> Members:
    """Quantise a model's members and align them with an exact engine, on these uint8 images."""
    members = range(len(model.members))
    networks = [quantised(converted(model, member), pixels) for member in members]
    rough = OpenVinoEngine(networks, model, "int8")
    return networks, [Alignment.fit(rough.member(pixels, member), exact.member(pixels, member)) for member in members]


def int8_engine(model: Classifier, source: Source | None) -> OpenVinoEngine:
    """Make an OpenVINO engine in int8: stored with the model if it passed before, else tested now.

    `source` is a prepared catalogue with images for the comparison.
    """
    place = None if model.folder is None else model.folder / "openvino-int8"
    members = _kept(model, place)
    if members is None and place is not None and os.access(place.parent, os.W_OK):
        with FileLock(place.with_name(".openvino-int8.lock")):  # only one of several processes makes them
            members = _kept(model, place) or _made(model, source, place)
    networks, alignments = members or _made(model, source, None)
    return OpenVinoEngine(networks, model, "int8", alignments)


def _kept(model: Classifier, place: Path | None) -> Members | None:
    """Read networks that passed with this version of OpenVINO; None if there are none."""
    if place is None or not (place / "gate.json").is_file():
        return None
    try:
        stored = read_json(place / "gate.json")
        numbers = Gate(**{one.name: stored[one.name] for one in fields(Gate)})
        same = stored["model_hash"] == model.model_hash and stored["openvino"] == version("openvino")
        if not (same and numbers.passed):
            return None
        alignments = [Alignment(one["scale"], tuple(one["shifts"])) for one in stored["alignments"]]
        core = openvino.Core()
        return [core.read_model(place / f"member-{member}.xml") for member in range(len(model.members))], alignments
    except (InputError, LookupError, TypeError, RuntimeError):  # damaged: make them again
        return None


def _made(model: Classifier, source: Source | None, place: Path | None) -> Members:
    """Make networks, test them, and store them in a folder."""
    if source is None:
        raise InputError("int8 has not been tested for this model yet; give images with `gate`")
    if not source.prepared:
        raise InputError(
            f"{source.path}: int8 must keep class fractions at every alpha, but alpha is not known here; give a "
            "prepared catalogue with `gate` (for example of simulated galaxies)"
        )
    pixels = calibration_images(model, source)
    exact = TorchEngine(model, "fp32")
    networks, alignments = int8_members(model, pixels, exact)
    found = measure(model, source, exact, OpenVinoEngine(networks, model, "int8", alignments))
    tell(f"int8 {'passed' if found.passed else 'failed'}: {found}")
    if not found.passed:
        raise InputError(f"int8 is not accurate enough for this model: {found}; use bf16")
    if place is not None:
        about = {"model_hash": model.model_hash, "openvino": version("openvino"), "source": str(source.path)}
        _keep(networks, place, {**about, **asdict(found), "alignments": [asdict(one) for one in alignments]})
    return networks, alignments


def _keep(networks: list[Any], place: Path, numbers: dict[str, Any]) -> None:
    """Write networks and the results of their test atomically."""
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        partial.mkdir()
        for member, network in enumerate(networks):
            openvino.save_model(network, partial / f"member-{member}.xml", compress_to_fp16=False)
        (partial / "gate.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    except OSError as problem:
        tell(f"{place}: can't store the int8 model ({reason(problem)}); it will be made again")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
