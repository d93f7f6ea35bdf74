"""Quantise networks to int8 for CPUs, and check them against float32 before use.

They are compared on images that were not used for calibration, question by question: agreement of labels, class
fractions in quintiles of α, and calibration error. A network that fails is rejected with these numbers; one that passes
is kept beside the model's networks in float32.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from filelock import FileLock
from scipy.special import log_softmax, softmax

from truemorph.classifiers.engines import AT_ONCE, GATE_IMAGES, Engine, Proof
from truemorph.classifiers.engines.openvino import (
    OpenVinoEngine,
    check_runs,
    networks_of,
    save_networks,
    with_checksums,
)
from truemorph.errors import InputError
from truemorph.io import read_json, write_json
from truemorph.progress import progress, tell
from truemorph.questions import Head

LEAST_AGREEMENT, MOST_FRACTION_CHANGE, MOST_CALIBRATION_CHANGE = 0.995, 0.005, 0.005
_PARTS = 5
_LEAST = 1e-30
_GATE = "gate.json"

# Networks of a model's members, and the alignment of their probabilities.
Members = tuple[list[Any], list["Alignment"]]


@dataclass(frozen=True)
class Gate:
    """Differences between a faster engine and float32, and whether they are small enough.

    Of the question that differs most: `agreement` of labels; `fraction_changes`, of the fraction of a class in
    quintiles of α, from labels or mean probabilities; `calibration_change`, the calibration error against float32.
    """

    images: int
    agreement: float
    fraction_changes: list[float]
    calibration_change: float

    @property
    def passed(self) -> bool:
        """Whether the differences are within the limits."""
        return (
            self.images >= GATE_IMAGES
            and self.agreement >= LEAST_AGREEMENT
            and max(map(abs, self.fraction_changes)) <= MOST_FRACTION_CHANGE
            and self.calibration_change <= MOST_CALIBRATION_CHANGE
        )

    def summary(self) -> str:
        """Return the differences as text."""
        changes = ", ".join(f"{change:+.4f}" for change in self.fraction_changes)
        return (
            f"{self.images:,d} images, label agreement {self.agreement:.4f} (at least {LEAST_AGREEMENT}), class "
            f"fractions {changes} (at most ±{MOST_FRACTION_CHANGE}), calibration error {self.calibration_change:.4f} "
            f"(at most {MOST_CALIBRATION_CHANGE})"
        )


def compare(exact: np.ndarray, fast: np.ndarray, alpha: np.ndarray, heads: Sequence[Head]) -> Gate:
    """Compare the probabilities (N, K) of a faster engine with those in float32."""
    from truemorph.bias.metrics.scores import calibration_error

    quintiles = np.array_split(np.argsort(alpha, kind="stable"), _PARTS)
    agreements, changes, errors = list[float](), list[list[float]](), list[float]()
    for before, after, numbers in ((exact[:, head.part], fast[:, head.part], head.numbers) for head in heads):
        labels, now = before.argmax(axis=1), after.argmax(axis=1)
        agreements.append(float(np.mean(labels == now)))
        for k in numbers:
            moved = np.stack([1.0 * (now == k) - (labels == k), after[:, k] - before[:, k]])
            changes.append([max(moved[:, part].mean(axis=1).tolist(), key=abs) for part in quintiles])
            errors.append(calibration_error(before[:, k], after[:, k]))
    largest = [max(of_classes, key=abs) for of_classes in zip(*changes, strict=True)]
    return Gate(len(exact), min(agreements), largest, max(errors))


def measure(model: Any, proof: Proof, fast: Engine) -> Gate:
    """Compare an engine with torch on 10,000 images that were not used for calibration."""
    alpha, exact_p, fast_p = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    with progress(GATE_IMAGES, "int8 against fp32", "img") as bar:
        for pixels, frame in proof.images(False):
            exact_p.append(model.probabilities(pixels))
            fast_p.append(model.probabilities(pixels, fast.member))
            alpha.append(frame["alpha"].to_numpy())
            bar.update(len(pixels))
    return compare(np.concatenate(exact_p), np.concatenate(fast_p), np.concatenate(alpha), model.heads)


def _log_odds(p: np.ndarray) -> np.ndarray:
    """Log-odds of each class relative to the first, shape (N, K)."""
    log_p = np.log(np.maximum(p, _LEAST))
    return log_p - log_p[:, :1]


@dataclass(frozen=True)
class Alignment:
    """Change the log-odds of each question's classes to scale · log-odds + shift."""

    heads: Sequence[Head]
    numbers: list[list[float]]  # of each question: the scale, and the shift of each class but the first

    @classmethod
    def fit(cls, fast: np.ndarray, exact: np.ndarray, heads: Sequence[Head]) -> Alignment:
        """Fit `fast` to `exact`, both (N, K), by minimum cross-entropy, which makes their mean probabilities equal."""
        from scipy.optimize import minimize  # takes a second

        numbers = []
        for head in heads:
            log_odds, wanted = _log_odds(fast[:, head.part]), exact[:, head.part]

            def loss(x: np.ndarray, z: np.ndarray = log_odds, wanted: np.ndarray = wanted) -> tuple[float, np.ndarray]:
                log_p = log_softmax(x[0] * z + [0, *x[1:]], axis=1)
                residual = np.exp(log_p) - wanted
                slopes = [np.sum(residual * z), *residual[:, 1:].sum(axis=0)]
                return -np.sum(wanted * log_p) / len(z), np.array(slopes) / len(z)

            found = minimize(loss, [1.0] + [0.0] * (wanted.shape[1] - 1), jac=True, method="BFGS", tol=1e-9)
            numbers.append(found.x.tolist())
        return cls(heads, numbers)

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """Return the aligned probabilities, shape (N, K)."""
        aligned = np.empty_like(p)
        for head, (scale, *shifts) in zip(self.heads, self.numbers, strict=True):
            aligned[:, head.part] = softmax(scale * _log_odds(p[:, head.part]) + [0, *shifts], axis=1)
        return aligned


def quantised(network: Any, pixels: np.ndarray) -> Any:
    """Quantise a network to an int8 OpenVINO model, calibrated on uint8 images (N, S, S, 3).

    The first layer is not quantised: bf16 represents pixels exactly. The mean rounding error is corrected in one
    layer after the other: independent corrections changed three times as many labels.
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


def int8_engine(model: Any, folder: Path, proof: Proof | None) -> OpenVinoEngine:
    """Make an OpenVINO engine in int8: kept with the networks in `folder` if it passed before, else tested."""
    place = folder / "int8"
    members = passed_int8(model, folder)
    if members is None:
        with FileLock(place.with_name(".int8.lock")):  # only one of several processes makes them
            members = passed_int8(model, folder) or _made(model, proof, place)
    networks, alignments = members
    check_runs(place / "member-0.xml", "int8")
    return OpenVinoEngine(networks, "int8", alignments)


def passed_int8(model: Any, folder: Path) -> Members | None:
    """Read networks that passed with this version of OpenVINO and these limits; None if there are none."""
    place = folder / "int8"
    try:
        stored, core = read_json(place / _GATE), openvino.Core()
        made = with_checksums(stored | {"openvino": version("openvino")}, place, _GATE, model)
        if stored != made or not Gate(**{field.name: stored[field.name] for field in fields(Gate)}).passed:
            return None
        alignments = [Alignment(model.heads, numbers) for numbers in stored["aligned"]]
        return [core.read_model(place / f"member-{member}.xml") for member in range(len(model.members))], alignments
    except (OSError, ValueError, LookupError, TypeError, RuntimeError):  # damaged: make them again
        return None


def _made(model: Any, proof: Proof | None, place: Path) -> Members:
    """Make networks, test them, and keep them in a folder."""
    if proof is None:
        raise InputError(f"{place}: has no int8 networks that were tested for this model; give images with `gate`")
    pixels = np.concatenate([pixels for pixels, _ in proof.images(True)])
    networks = [quantised(openvino.Core().read_model(file), pixels) for file in networks_of(model)[1]]
    rough, exact = OpenVinoEngine(networks, "int8"), model.member_probabilities
    alignments = [
        Alignment.fit(rough.member(pixels, member), exact(pixels, member), model.heads)
        for member in range(len(networks))
    ]
    gate = measure(model, proof, OpenVinoEngine(networks, "int8", alignments))
    measured = gate.summary()
    tell(f"int8 {'passed' if gate.passed else 'failed'}: {measured}")
    if not gate.passed:
        raise InputError(f"int8 is not accurate enough for this model: {measured}; use bf16")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    save_networks(networks, place)
    about = {"openvino": version("openvino"), "source": proof.name, **asdict(gate)}
    about["aligned"] = [alignment.numbers for alignment in alignments]
    # Last, because without this file the folder is not used.
    write_json(place / _GATE, with_checksums(about, place, _GATE, model))
    return networks, alignments
