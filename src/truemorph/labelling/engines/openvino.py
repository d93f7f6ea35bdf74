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
from filelock import FileLock

from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError, reason
from truemorph.labelling.engines import Precision
from truemorph.labelling.gate import Gate, calibration_images, check_proof, measure
from truemorph.labelling.sources import Source

# Pictures that one request holds; several requests run at once.
_AT_ONCE = 8


def _openvino() -> Any:
    try:
        import openvino
    except ModuleNotFoundError:
        raise InputError("engine openvino is not installed: pip install 'truemorph[fast]'") from None
    return openvino


def converted(model: Classifier, member: int) -> Any:
    """A member as an OpenVINO model in float32, for batches of fixed size: uint8 (B, S, S, 3) in, p(y | x) out."""
    import torch

    from truemorph.labelling.engines.served import Served

    openvino, size = _openvino(), model.config.image_size
    example = torch.zeros(_AT_ONCE, size, size, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters tell each other of their deprecations
        exported = torch.export.export(Served(model, member), (example,))
        return openvino.convert_model(exported, share_weights=False)


def quantised(network: Any, pixels: np.ndarray) -> Any:
    """An OpenVINO model in int8, its ranges taken from uint8 pictures (N, S, S, 3).

    But for its first layer: galaxies are faint on black, and in eight bits of all that a picture may hold their
    outskirts are lost (a ResNet50's labels agreed for 0.990 of galaxies with it kept, for 0.978 without).
    """
    try:
        import nncf
    except ModuleNotFoundError:
        raise InputError("int8 needs nncf: pip install 'truemorph[fast]'") from None
    batches = [pixels[start : start + _AT_ONCE] for start in range(0, len(pixels) - _AT_ONCE + 1, _AT_ONCE)]
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    first = next(layer for layer in network.get_ordered_ops() if layer.get_type_name() in kinds)
    nncf.set_log_level(40)
    with contextlib.redirect_stdout(sys.stderr):  # where progress belongs
        return nncf.quantize(
            network,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=[first.get_friendly_name()]),
        )


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
    """

    def __init__(self, networks: Iterable[Any], n_classes: int, precision: str, threads: int | None = None) -> None:
        openvino = _openvino()
        core = openvino.Core()
        hints: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        }
        if threads:
            hints["INFERENCE_NUM_THREADS"] = threads
        compiled = [core.compile_model(network, "CPU", hints) for network in networks]
        self._queues = [openvino.AsyncInferQueue(one) for one in compiled]
        self._n_classes = n_classes
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
        return out


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
        return OpenVinoEngine(_int8_networks(model, gate), len(model.classes), precision, threads)
    if precision == "auto":
        from truemorph.classifiers.hardware import multiplies_bf16

        precision = "bf16" if multiplies_bf16() else "fp32"
    networks = [converted(model, member) for member in range(len(model.members))]
    return OpenVinoEngine(networks, len(model.classes), precision, threads)


def _int8_networks(model: Classifier, source: Source | None) -> list[Any]:
    """The members in int8, read from the model's folder or made, measured and kept there."""
    place = None if model.folder is None else model.folder / "openvino-int8"
    there = _kept(model, place)
    if there or place is None or not os.access(place.parent, os.W_OK):
        return there or _made(model, source, None)
    with FileLock(place.with_name(".openvino-int8.lock")):  # of several processes one makes them
        return _kept(model, place) or _made(model, source, place)


def _kept(model: Classifier, place: Path | None) -> list[Any]:
    """Networks of this model that passed, with this OpenVINO; empty where there are none."""
    if place is None or not (place / "gate.json").is_file():
        return []
    told = json.loads((place / "gate.json").read_text(encoding="utf-8"))
    numbers = Gate(**{one.name: told[one.name] for one in fields(Gate)})
    if told["model_hash"] != model.model_hash or told["openvino"] != version("openvino") or not numbers.passed:
        return []
    core = _openvino().Core()
    return [core.read_model(place / f"member-{member}.xml") for member in range(len(model.members))]


def _made(model: Classifier, source: Source | None, place: Path | None) -> list[Any]:
    """Networks that passed now."""
    from truemorph.labelling.engines.torch import TorchEngine

    if source is None:
        raise InputError("int8 has not passed its gate for this model yet: give images with --gate")
    check_proof(source)
    pixels = calibration_images(model, source)
    networks = [quantised(converted(model, member), pixels) for member in range(len(model.members))]
    fast = OpenVinoEngine(networks, len(model.classes), "int8")
    found = measure(model, source, TorchEngine(model, "fp32"), fast)
    print(f"int8 {'passed' if found.passed else 'failed'}: {found}", file=sys.stderr)
    if not found.passed:
        raise InputError(f"int8 is refused for this model: {found}; use bf16")
    if place is not None:
        about = {"model_hash": model.model_hash, "openvino": version("openvino"), "source": str(source.path)}
        _keep(networks, place, {**about, **asdict(found)})
    return networks


def _keep(networks: Sequence[Any], place: Path, numbers: dict[str, Any]) -> None:
    """Write networks and the numbers of their gate; the folder appears whole."""
    openvino = _openvino()
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
