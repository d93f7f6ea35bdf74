"""PyTorch, on a GPU if available, in float32 or bf16."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from truemorph.classifiers.network import GalaxyNetwork, PixelConv, class_probabilities, torch_device

# Batches that fit a CPU's cache: 8 images of 207 pixels (ResNet50: 78 images/s; in batches of 32: 52).
_PIXELS_AT_ONCE, _MOST_AT_ONCE = 8 * 207**2, 64
_AT_ONCE_ON_GPU = 256


class TorchEngine:
    """Run a model's networks with PyTorch, on a GPU if available, in precision fp32 or bf16."""

    at_once = 1  # a call uses all cores

    def __init__(self, model: Any, precision: str) -> None:
        self._device = torch_device(model.device)
        self._is_bf16 = precision == "bf16"
        fitting = max(8, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // model.config.image_size**2))
        self._at_once = _AT_ONCE_ON_GPU if self._device.type == "cuda" else fitting
        self.networks = list(map(self._placed, model.networks()))
        self._temperatures, self._heads = model.temperatures, model.heads
        self.description = f"torch {self._device.type} {precision}"

    def _placed(self, network: GalaxyNetwork) -> GalaxyNetwork:
        """Move to the device; convert bf16 weights once, because autocast would do so for each batch."""
        if self._is_bf16:
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear) and not isinstance(layer, PixelConv):
                    layer.to(torch.bfloat16)
        return network.to(self._device)

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, shape (N, K)."""
        probabilities = []
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_bf16):
            for batch in self.batches(inputs):
                logits = self.networks[member](batch)
                probabilities.append(
                    class_probabilities(logits.double(), self._temperatures[member], self._heads).cpu()
                )
        return torch.cat(probabilities).numpy()

    def batches(self, pixels: np.ndarray) -> Iterator[torch.Tensor]:
        """Yield images as networks take them, on their device."""
        for part in torch.from_numpy(np.require(pixels, requirements=["C", "W"])).split(self._at_once):
            yield self.networks[0].normalised(part.to(self._device))
