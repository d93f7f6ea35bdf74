"""OpenVINO on CPUs: bf16, and int8 for models that passed the gate (`gate.py`)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from filelock import FileLock

from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError, reason
from truemorph.io import read_json
from truemorph.labelling.engines import Engine, Precision
from truemorph.labelling.engines.alignment import Alignment
from truemorph.labelling.gate import Gate, calibration_images, check_proof, measure
from truemorph.labelling.sources import Source

# Pictures that one request holds; several requests run at once.
_AT_ONCE = 8


def converted(model: Classifier, member: int) -> Any:
    """A member as an OpenVINO model in float32, for batches of fixed size: uint8 (B, S, S, 3) in, p(y | x) out."""
    import torch

    from truemorph.labelling.engines.served import Served

    size = model.config.image_size
    example = torch.zeros(_AT_ONCE, size, size, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters tell each other of their deprecations
        exported = torch.export.export(Served(model, member), (example,))
        return openvino.convert_model(exported, share_weights=False)


def quantised(network: Any, pixels: np.ndarray) -> Any:
    """An OpenVINO model in int8, its ranges taken from uint8 pictures (N, S, S, 3).

    But for what comes up to the first layer: it takes whole numbers from 0 to 255, and bf16 keeps them all. The bias
    that rounding gives each layer is corrected with the layers before it in int8, a minute for a ResNet50: corrected
    one by one, three times as many labels change (docs/labelling.md).
    """
    import nncf  # takes seconds

    batches = [pixels[start : start + _AT_ONCE] for start in range(0, len(pixels) - _AT_ONCE + 1, _AT_ONCE)]
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    layers = [layer for layer in network.get_ordered_ops() if layer.get_type_name() not in ("Constant", "Parameter")]
    first = next(number for number, layer in enumerate(layers) if layer.get_type_name() in kinds)
    names = [layer.get_friendly_name() for layer in layers[: first + 1]]
    nncf.set_log_level(40)
    with contextlib.redirect_stdout(sys.stderr):  # where progress belongs
        return nncf.quantize(
            network,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(names=names),
        )


def int8_members(model: Classifier, pixels: np.ndarray, exact: Engine) -> tuple[list[Any], list[Alignment]]:
    """A model's members in int8, and what aligns each with an exact engine; both from these uint8 pictures."""
    members = range(len(model.members))
    networks = [quantised(converted(model, member), pixels) for member in members]
    rough = OpenVinoEngine(networks, len(model.classes), "int8")
    return networks, [Alignment.fit(rough.member(pixels, member), exact.member(pixels, member)) for member in members]


class OpenVinoEngine:
    """Runs a model's members.

    Parameters
    ----------
    networks : iterable of OpenVINO model
        One a member, from `converted` or `quantised`.
    n_classes : int
    precision : {"fp32", "bf16", "int8"}
    threads : int, optional
        Cores to use; default all.
    alignments : sequence of Alignment
        One a member; none where probabilities are taken as they are.
    """

    def __init__(
        self,
        networks: Iterable[Any],
        n_classes: int,
        precision: str,
        threads: int | None = None,
        alignments: Sequence[Alignment] = (),
    ) -> None:
        core = openvino.Core()
        hints: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        }
        if threads:
            hints["INFERENCE_NUM_THREADS"] = threads
        compiled = [core.compile_model(network, "CPU", hints) for network in networks]
        self._queues = [openvino.AsyncInferQueue(one) for one in compiled]
        self._n_classes, self._alignments = n_classes, alignments
        self.description = f"openvino cpu {precision}"

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """p(y | x) of one member, shape (N, K)."""
        out, queue = np.empty((len(inputs), self._n_classes)), self._queues[member]

        def keep(request: Any, where: slice) -> None:
            out[where] = request.get_output_tensor(0).data[: where.stop - where.start]

        queue.set_callback(keep)
        for start in range(0, len(inputs), _AT_ONCE):
            where = slice(start, min(start + _AT_ONCE, len(inputs)))
            pixels = np.ascontiguousarray(inputs[where])
            if len(pixels) < _AT_ONCE:
                pixels = np.concatenate([pixels, np.zeros((_AT_ONCE - len(pixels), *pixels.shape[1:]), pixels.dtype)])
            queue.start_async({0: pixels}, where)
        queue.wait_all()
        return self._alignments[member](out) if self._alignments else out


def openvino_engine(
    model: Classifier, precision: Precision, gate: Source | None, threads: int | None = None
) -> OpenVinoEngine:
    """OpenVINO in this precision; int8 from the model's folder where it has passed there, else after it passed now.

    Raises
    ------
    InputError
        If int8 fails, or has no images to prove itself on.
    """
    if precision == "int8":
        networks, alignments = _int8_networks(model, gate)
        return OpenVinoEngine(networks, len(model.classes), precision, threads, alignments)
    if precision == "auto":
        from truemorph.classifiers.network import multiplies_bf16

        precision = "bf16" if multiplies_bf16() else "fp32"
    networks = [converted(model, member) for member in range(len(model.members))]
    return OpenVinoEngine(networks, len(model.classes), precision, threads)


def _int8_networks(model: Classifier, source: Source | None) -> tuple[list[Any], list[Alignment]]:
    """The members in int8 and what aligns them, read from the model's folder or made, measured and kept there."""
    place = None if model.folder is None else model.folder / "openvino-int8"
    there = _kept(model, place)
    if there or place is None or not os.access(place.parent, os.W_OK):
        return there or _made(model, source, None)
    with FileLock(place.with_name(".openvino-int8.lock")):  # of several processes one makes them
        return _kept(model, place) or _made(model, source, place)


def _kept(model: Classifier, place: Path | None) -> tuple[list[Any], list[Alignment]] | None:
    """Networks of this model that passed, with this OpenVINO; None where there are none."""
    if place is None or not (place / "gate.json").is_file():
        return None
    told = read_json(place / "gate.json")
    numbers = Gate(**{one.name: told[one.name] for one in fields(Gate)})
    same = told["model_hash"] == model.model_hash and told["openvino"] == version("openvino")
    if not (same and numbers.passed and "alignments" in told):  # nor those of an earlier way
        return None
    core = openvino.Core()
    networks = [core.read_model(place / f"member-{member}.xml") for member in range(len(model.members))]
    return networks, [Alignment(one["scale"], tuple(one["shifts"])) for one in told["alignments"]]


def _made(model: Classifier, source: Source | None, place: Path | None) -> tuple[list[Any], list[Alignment]]:
    """Networks that passed now."""
    from truemorph.labelling.engines.torch import TorchEngine

    if source is None:
        raise InputError("int8 has not passed its gate for this model yet: give images with `gate`")
    check_proof(source)
    pixels = calibration_images(model, source)
    exact = TorchEngine(model, "fp32")
    networks, alignments = int8_members(model, pixels, exact)
    fast = OpenVinoEngine(networks, len(model.classes), "int8", alignments=alignments)
    found = measure(model, source, exact, fast)
    print(f"int8 {'passed' if found.passed else 'failed'}: {found}", file=sys.stderr)
    if not found.passed:
        raise InputError(f"int8 is refused for this model: {found}; use bf16")
    if place is not None:
        about = {"model_hash": model.model_hash, "openvino": version("openvino"), "source": str(source.path)}
        _keep(networks, place, {**about, **asdict(found), "alignments": [asdict(one) for one in alignments]})
    return networks, alignments


def _keep(networks: Sequence[Any], place: Path, numbers: dict[str, Any]) -> None:
    """Write networks and the numbers of their gate; the folder appears whole."""
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        partial.mkdir()
        for member, network in enumerate(networks):
            openvino.save_model(network, partial / f"member-{member}.xml", compress_to_fp16=False)
        (partial / "gate.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    except OSError as problem:
        print(f"{place}: int8 can't be kept there ({reason(problem)}), next time it is made again", file=sys.stderr)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
