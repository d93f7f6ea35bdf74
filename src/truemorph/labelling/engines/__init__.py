"""What computes p(y | x): one small interface, an engine a file."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from truemorph.classifiers.checkpoint import Classifier

Precision = Literal["auto", "fp32", "bf16"]


class Engine(Protocol):
    """Computes the members' probabilities.

    Attributes
    ----------
    description : str
        What was used, as it goes into the metadata of labels.
    """

    description: str

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """p(y | x) of one member, shape (N, K), float64.

        Parameters
        ----------
        inputs : array
            uint8 pixels (N, S, S, 3), cropped and resized; or features (N, P).
        member : int
        """
        ...


class FeatureEngine:
    """Logistic regression on catalogue features."""

    def __init__(self, model: Classifier) -> None:
        self._model = model
        self.description = "numpy"

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """p(y | x) of one member, shape (N, K)."""
        return self._model.member_probabilities(inputs, member)


def engine_for(model: Classifier, precision: Precision = "auto") -> Engine:
    """The engine that a model needs.

    Parameters
    ----------
    model : Classifier
    precision : {"auto", "fp32", "bf16"}
        Of networks; "auto": bf16 where the hardware multiplies it.
    """
    if not model.uses_images:
        return FeatureEngine(model)
    from truemorph.labelling.engines.torch import TorchEngine

    return TorchEngine(model, precision)
