"""Engines compute p(y | x): one interface, one file per engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError, require_extra

if TYPE_CHECKING:
    from truemorph.labelling.sources import Source

Precision = Literal["auto", "fp32", "bf16", "int8"]


class Engine(Protocol):
    """Compute the probabilities of a model's members.

    Attributes
    ----------
    description : str
        Name, device and precision, for the metadata of labels.
    """

    description: str

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, shape (N, K), float64.

        Parameters
        ----------
        inputs : array
            uint8 pixels (N, S, S, 3), cropped and resized, or features (N, P).
        member : int
        """
        ...


class FeatureEngine:
    """Logistic regression on catalogue features."""

    def __init__(self, model: Classifier) -> None:
        self._model = model
        self.description = "numpy"

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, shape (N, K)."""
        return self._model.member_probabilities(inputs, member)


def engine_for(
    model: Classifier,
    name: str = "torch",
    precision: Precision = "auto",
    gate: Source | None = None,
) -> Engine:
    """Make an engine.

    Parameters
    ----------
    model : Classifier
    name : {"torch", "openvino"}
        Engine for networks.
    precision : {"auto", "fp32", "bf16", "int8"}
        "auto" is bf16 if the hardware supports it, else fp32. int8 needs OpenVINO.
    gate : Source, optional
        Images on which int8 is compared with float32, if this was not done before.

    Raises
    ------
    InputError
        If the engine is not installed or unknown, or int8 differs too much from float32.
    """
    if not model.uses_images:
        return FeatureEngine(model)
    require_extra("networks")
    if name == "torch":
        if precision == "int8":
            raise InputError("int8 needs `engine` openvino")
        from truemorph.labelling.engines.torch import TorchEngine

        return TorchEngine(model, precision)
    if name != "openvino":
        raise InputError(f"no engine {name!r}; available: torch, openvino")
    require_extra("fast")
    if precision == "int8":
        from truemorph.labelling.engines.int8 import int8_engine

        return int8_engine(model, gate)
    from truemorph.labelling.engines.openvino import openvino_engine

    return openvino_engine(model, precision)
