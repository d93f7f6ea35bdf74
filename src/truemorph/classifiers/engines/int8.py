"""Quantise networks to int8 for CPUs, and check them against float32 before use.

They are compared on images that were not used for calibration: agreement of labels, class fractions in quintiles of α,
and calibration error. A network that fails is rejected with these numbers; one that passes is kept beside the model's
networks in float32.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import polars as pl
from filelock import FileLock
from scipy.special import softmax

from truemorph.bias.curves.transitions import DISK
from truemorph.classifiers.engines import Engine, Proof
from truemorph.classifiers.engines.openvino import AT_ONCE, OpenVinoEngine, check_runs
from truemorph.classifiers.engines.representation import network_files, networks_of, save_networks
from truemorph.errors import InputError
from truemorph.io import checksums, plain, read_json, write_json
from truemorph.progress import progress, tell

CALIBRATION_IMAGES, GATE_IMAGES = 512, 10_000
LEAST_AGREEMENT, MOST_FRACTION_CHANGE, MOST_CALIBRATION_CHANGE = 0.995, 0.005, 0.005
_EVERY = 20  # one image in so many is used to calibrate, until there are enough; the others are used to compare
_PARTS = 5
_LEAST = 1e-30
_GATE = "gate.json"

# Networks of a model's members, and the alignment of their probabilities.
Members = tuple[list[Any], list["Alignment"]]


@dataclass(frozen=True)
class Gate:
    """Differences between a faster engine and float32, and whether they are small enough.

    `fraction_changes` are those of the fraction of class 1 in quintiles of α, from labels or mean probabilities (the
    larger); `calibration_change` that of the calibration error against gold labels ("truth") if there are any, or
    "float32".
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

    def summary(self, counted: str) -> str:
        """Return the differences as text; `counted` is the name of the second class."""
        changes = ", ".join(f"{change:+.4f}" for change in self.fraction_changes)
        return (
            f"{self.images:,d} images, label agreement {self.agreement:.4f} (at least {LEAST_AGREEMENT}), "
            f"{counted} fractions {changes} (at most ±{MOST_FRACTION_CHANGE}), calibration error "
            f"{self.calibration_change:+.4f} (at most ±{MOST_CALIBRATION_CHANGE}, against {self.against})"
        )


def compare(exact: np.ndarray, fast: np.ndarray, alpha: np.ndarray, truth: np.ndarray) -> Gate:
    """Compare the probabilities (N, 2) of a faster engine with those in float32; true classes are -1 if unknown."""
    from truemorph.bias.metrics.scores import calibration_error

    before, after = exact.argmax(axis=1), fast.argmax(axis=1)
    changes = []
    for part in np.array_split(np.argsort(alpha, kind="stable"), _PARTS):
        hard = float(np.mean(after[part] == DISK) - np.mean(before[part] == DISK))
        soft = float(fast[part, DISK].mean() - exact[part, DISK].mean())
        changes.append(max(hard, soft, key=abs))
    gold = truth >= 0
    if gold.any():
        against = "truth"
        exact_error, fast_error = (calibration_error(truth[gold] == DISK, p[gold, DISK]) for p in (exact, fast))
        change = fast_error - exact_error
    else:
        change, against = calibration_error(exact[:, DISK], fast[:, DISK]), "float32"
    return Gate(len(exact), float(np.mean(before == after)), changes, change, against)


def calibration_images(proof: Proof) -> np.ndarray:
    """Read images for calibration, shape (512, S, S, 3), or fewer if there are fewer."""
    batches = [pixels for pixels, _ in proof.images(_EVERY, True, CALIBRATION_IMAGES)]
    if not batches:
        raise InputError(f"{proof.name}: no readable image to calibrate int8; give more images")
    return np.concatenate(batches)


def measure(model: Any, proof: Proof, fast: Engine) -> Gate:
    """Compare an engine with torch on 10,000 images that were not used for calibration; an error if there are fewer."""
    frames, exact_p, fast_p = [], list[np.ndarray](), list[np.ndarray]()
    with progress(GATE_IMAGES, "int8 against fp32", "img") as bar:
        for pixels, frame in proof.images(_EVERY, False, GATE_IMAGES):
            exact_p.append(model.probabilities(pixels))
            fast_p.append(np.mean([fast.member(pixels, member) for member in range(len(model.members))], axis=0))
            frames.append(frame)
            bar.update(len(pixels))
    n = sum(map(len, frames))
    if n < GATE_IMAGES:
        raise InputError(
            f"{proof.name}: int8 is tested on {GATE_IMAGES:,d} images that were not used for calibration, but only "
            f"{n:,d} are available; give more with `gate` (simulated images are fine)"
        )
    rows = pl.concat(frames)
    truth = rows["gold"].fill_null(-1).to_numpy() if "gold" in rows.columns else np.full(n, -1)
    return compare(np.concatenate(exact_p), np.concatenate(fast_p), rows["alpha"].to_numpy(), truth)


def _logit(p: np.ndarray) -> np.ndarray:
    """Log-odds of the second class, shape (N,)."""
    first, second = np.log(np.maximum(p, _LEAST)).T
    return second - first


@dataclass(frozen=True)
class Alignment:
    """Change the log-odds of the second class to scale · log-odds + shift."""

    scale: float
    shift: float

    @classmethod
    def fit(cls, fast: np.ndarray, exact: np.ndarray) -> Alignment:
        """Fit `fast` to `exact`, both (N, 2), by minimum cross-entropy, which makes their mean probabilities equal."""
        from truemorph.bias.regression.maximum import fit_softmax

        design = np.column_stack([np.ones(len(fast)), _logit(fast)])
        coefficients, _ = fit_softmax(design, exact, np.zeros(2), np.ones(len(fast)))
        shift, scale = map(float, coefficients[0])
        return cls(scale, shift)

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """Return the aligned probabilities, shape (N, 2)."""
        aligned = self.scale * _logit(p) + self.shift
        return softmax(np.column_stack([np.zeros(len(p)), aligned]), axis=1)


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


def int8_members(model: Any, pixels: np.ndarray) -> Members:
    """Quantise the members of a `Classifier`, and align them with those in float32, on these uint8 images."""
    _, files = networks_of(model)
    networks = [quantised(openvino.Core().read_model(file), pixels) for file in files]
    rough = OpenVinoEngine(networks, "int8")
    exact, members = model.member_probabilities, range(len(files))
    return networks, [Alignment.fit(rough.member(pixels, member), exact(pixels, member)) for member in members]


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
        sums = checksums(place, _GATE, stored, network_files(len(model.members)))
        made = {"model_hash": model.model_hash, "openvino": version("openvino"), "sha256": sums}
        if stored != stored | made or not Gate(**{field.name: stored[field.name] for field in fields(Gate)}).passed:
            return None
        alignments = [Alignment(**alignment) for alignment in stored["alignments"]]
        return [core.read_model(place / f"member-{member}.xml") for member in range(len(model.members))], alignments
    except (OSError, ValueError, LookupError, TypeError, RuntimeError):  # damaged: make them again
        return None


def _made(model: Any, proof: Proof | None, place: Path) -> Members:
    """Make networks, test them, and keep them in a folder."""
    if len(model.classes) != 2:
        raise InputError(f"int8 is for models of two classes; this one has {len(model.classes)}; use bf16")
    if proof is None:
        raise InputError(f"{place}: has no int8 networks that were tested for this model; give images with `gate`")
    networks, alignments = int8_members(model, calibration_images(proof))
    gate = measure(model, proof, OpenVinoEngine(networks, "int8", alignments))
    measured = gate.summary(model.classes[1])
    tell(f"int8 {'passed' if gate.passed else 'failed'}: {measured}")
    if not gate.passed:
        raise InputError(f"int8 is not accurate enough for this model: {measured}; use bf16")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    save_networks(networks, place)
    about = {"model_hash": model.model_hash, "openvino": version("openvino"), "source": proof.name}
    about = plain({**about, **asdict(gate), "alignments": [asdict(alignment) for alignment in alignments]})
    # Last, because without this file the folder is not used.
    write_json(place / _GATE, {**about, "sha256": checksums(place, _GATE, about, network_files(len(networks)))})
    return networks, alignments
