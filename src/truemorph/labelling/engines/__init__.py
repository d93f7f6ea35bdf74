"""Engines compute p(y | x), with one interface."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError, require_extra

if TYPE_CHECKING:
    from truemorph.labelling.sources import Source

# If they find this package, OpenVINO and NNCF write into the home directory and send usage data.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

Precision = Literal["auto", "fp32", "bf16", "int8"]


class Engine(Protocol):
    """Compute the probabilities of a model's members; `description` is for the metadata of labels."""

    description: str

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, (N, K), for pixels (N, S, S, 3) or features (N, P)."""
        ...


class FeatureEngine:
    """Logistic regression on catalogue features."""

    def __init__(self, model: Classifier) -> None:
        self.member, self.description = model.member_probabilities, "numpy"


def engine_for(
    model: Classifier, name: str = "torch", precision: Precision = "auto", gate: Source | None = None
) -> Engine:
    """Make an engine for a model: torch or openvino, of which only openvino has int8.

    "auto" is bf16 if the hardware supports it, else fp32. int8 is first compared with float32 on the images of `gate`.
    """
    if not model.uses_images:
        return FeatureEngine(model)
    require_extra("networks")
    if name not in ("torch", "openvino"):
        raise InputError(f"no engine {name!r}; available: torch, openvino")
    from truemorph.classifiers.network import TorchEngine, multiplies_bf16

    if precision == "auto":
        precision = "bf16" if multiplies_bf16() else "fp32"
    if name == "torch":
        if precision == "int8":
            raise InputError("int8 needs `engine` openvino")
        return TorchEngine(model, precision)
    require_extra("fast")
    if precision == "int8":
        from truemorph.labelling.engines.int8 import int8_engine

        return int8_engine(model, gate)
    from truemorph.labelling.engines.openvino import OpenVinoEngine, converted

    return OpenVinoEngine([converted(model, member) for member in range(len(model.members))], model, precision)
