"""Engines compute p(y | x), with one interface."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl

from truemorph.errors import InputError, require_extra
from truemorph.progress import tell

# If they find this package, OpenVINO and NNCF write into the home directory and send usage data.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

EngineName = Literal["auto", "torch", "openvino"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
AT_ONCE = 8  # images per request of OpenVINO, which networks are converted for; several requests run at once
GATE_IMAGES = 10_000  # on which int8 is compared with float32


@dataclass(frozen=True)
class Proof:
    """Images of galaxies with α, on which int8 is calibrated and compared with float32; `name` is for messages.

    `images(calibrate)` yields pixels (N, S, S, 3) and rows with `alpha`: of some galaxies to calibrate, or of
    `GATE_IMAGES` others; an InputError if there are fewer.
    """

    name: str
    images: Callable[[bool], Iterator[tuple[np.ndarray, pl.DataFrame]]]


class Engine(Protocol):
    """Compute the probabilities of a model's members.

    `description` (engine, device and precision) is for the metadata of labels; `at_once` is how many threads may call
    `member` at the same time.
    """

    description: str
    at_once: int

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, (N, K), for pixels (N, S, S, 3) or features (N, P)."""
        ...


def engine_for(
    model: Any, name: EngineName = "auto", precision: Precision = "auto", gate: Proof | None = None
) -> Engine:
    """Make an engine for a `Classifier`: torch or openvino, of which only openvino has int8.

    Engine "auto" is torch on a GPU, otherwise OpenVINO where it runs this model, otherwise torch. Precision "auto" is
    int8 if it has passed for this model (OpenVINO), otherwise bf16 if the hardware multiplies it, otherwise fp32. int8
    is first compared with float32 on the images of `gate`.
    """
    if not model.uses_images:
        of_features: Any = SimpleNamespace(description="numpy", at_once=1, member=model.member_probabilities)
        return of_features
    # Converted networks are kept by the checksum of a saved model.
    on_torch = model.folder is None or _uses_gpu(model.device)
    if name == "torch" or (name == "auto" and precision != "int8" and on_torch):
        return _torch_engine(model, precision)
    try:
        return _openvino_engine(model, precision, gate)
    except InputError as problem:  # OpenVINO can't run this model on this machine
        without_torch = find_spec("openvino") and not find_spec("torch")
        if name == "openvino" or precision == "int8" or without_torch:
            raise
        tell(f"labelling with torch, which is slower than OpenVINO: {problem}")
    return _torch_engine(model, precision)


def _uses_gpu(device: str) -> bool:
    """Whether torch would use a GPU; it is asked only where there is a driver, because its import takes seconds."""
    if device != "auto":
        return device != "cpu"
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        import torch
    except (OSError, ImportError):
        return False
    return torch.cuda.is_available()


def _torch_engine(model: Any, precision: Precision) -> Engine:
    require_extra("networks")
    from truemorph.classifiers.engines.torch import TorchEngine
    from truemorph.classifiers.network import multiplies_bf16

    if precision == "int8":
        raise InputError("int8 needs `engine` openvino")
    if precision == "auto":
        precision = "bf16" if multiplies_bf16() else "fp32"
    return TorchEngine(model, precision)


def _openvino_engine(model: Any, precision: Precision, gate: Proof | None) -> Engine:
    require_extra("label")
    from truemorph.classifiers.engines.int8 import int8_engine, passed_int8
    from truemorph.classifiers.engines.openvino import OpenVinoEngine, check_runs, multiplies_bf16, networks_of

    folder, networks = networks_of(model)
    if precision == "int8" or (precision == "auto" and passed_int8(model, folder)):
        return int8_engine(model, folder, gate)
    if precision == "auto":
        precision = "bf16" if multiplies_bf16() else "fp32"
    check_runs(networks[0], precision)
    return OpenVinoEngine(networks, precision)
