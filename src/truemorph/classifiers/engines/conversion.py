"""Convert networks to OpenVINO, in float32; needs torch. What is changed here needs another `CONVERSION`."""

import warnings
from collections.abc import Iterator
from typing import Any

import openvino
import torch
from torch import nn

from truemorph.classifiers.engines import AT_ONCE
from truemorph.classifiers.network import GalaxyNetwork, class_probabilities


class Served(nn.Module):
    """Normalisation, network, temperature and softmax of a member of a `Classifier` as one module."""

    def __init__(self, network: GalaxyNetwork, model: Any, member: int) -> None:
        super().__init__()
        self.network, self.temperature, self.heads = network, float(model.temperatures[member]), model.heads
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return p(y | x), shape (N, K), for uint8 pixels (N, S, S, 3)."""
        logits = self.network(self.network.normalised(pixels)).float()
        return class_probabilities(logits, self.temperature, self.heads)


def converted(model: Any) -> Iterator[Any]:
    """Convert the members of a `Classifier`; fixed batches of uint8 (B, S, S, 3) in, p(y | x) out."""
    size = model.config.image_size
    example = torch.zeros(AT_ONCE, size, size, 3, dtype=torch.uint8)
    for member, network in enumerate(model.networks()):
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # internal deprecations of the exporters
            exported = torch.export.export(Served(network, model, member), (example,))
            made = openvino.convert_model(exported, share_weights=False)
        made.reshape(list(example.shape))
        yield made
