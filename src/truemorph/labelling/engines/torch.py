"""PyTorch engine: on a GPU if available, in bf16 if the hardware supports it."""

from __future__ import annotations

import numpy as np
import torch

from truemorph.classifiers.checkpoint import Classifier
from truemorph.classifiers.network import PixelConv, multiplies_bf16, torch_device
from truemorph.images.transforms import normalise
from truemorph.labelling.engines import Precision

# Batches that fit a CPU's cache: 8 images of 207 pixels (ResNet50: 78 images/s; in batches of 32: 52).
_PIXELS_AT_ONCE = 8 * 207**2
_MOST_AT_ONCE = {"cpu": 64, "cuda": 256}


class TorchEngine:
    """Run a model's networks with PyTorch.

    Parameters
    ----------
    model : Classifier
    precision : {"auto", "fp32", "bf16"}
    """

    def __init__(self, model: Classifier, precision: Precision = "auto") -> None:
        self._device = torch_device(model.device)
        chosen = ("bf16" if multiplies_bf16() else "fp32") if precision == "auto" else precision
        self._type = torch.bfloat16 if chosen == "bf16" else torch.float32
        most, fitting = _MOST_AT_ONCE.get(self._device.type, 256), _PIXELS_AT_ONCE // model.config.image_size**2
        self._at_once = most if self._device.type == "cuda" else max(8, min(most, fitting))
        self._networks = [self._placed(network) for network in model.networks()]
        self._temperatures = model.temperatures
        self._mean, self._std = (
            torch.tensor(model.described["normalisation"][key], device=self._device) for key in ("mean", "std")
        )
        self.description = f"torch {self._device.type} {chosen}"

    def _placed(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move to the device; convert bf16 weights once, because autocast would do so for each batch."""
        if self._type == torch.bfloat16:
            for layer in network.modules():
                if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) and not isinstance(layer, PixelConv):
                    layer.to(torch.bfloat16)
        return network.to(self._device)

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, shape (N, K)."""
        pixels = torch.from_numpy(np.require(inputs, requirements=["C", "W"]))
        found = []
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._type == torch.bfloat16),
        ):
            for part in pixels.split(self._at_once):
                logits = self._networks[member](normalise(part.to(self._device), self._mean, self._std))
                found.append(torch.softmax(logits.double() / self._temperatures[member], dim=1).cpu())
        return torch.cat(found).numpy()
