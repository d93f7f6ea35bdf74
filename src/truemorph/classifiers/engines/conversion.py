"""Convert networks to OpenVINO, in float32; needs torch. What is changed here needs another `CONVERSION`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import openvino
import torch
from torch import nn
from torch.nn import functional

from truemorph.classifiers.engines.openvino import AT_ONCE
from truemorph.classifiers.network import PixelConv, class_probabilities
from truemorph.images.transforms import normalise


class WholeNumbers(nn.Module):
    """Normalisation and first convolution as one layer, on pixels minus an integer: exact in bf16.

    The convolution's zero padding corresponds to pixels at the mean, which like std is in units of the full range.
    """

    def __init__(self, convolution: PixelConv, mean: torch.Tensor, std: torch.Tensor, size: int) -> None:
        super().__init__()
        zero = torch.round(255 * mean)
        beyond = (zero - 255 * mean).view(1, 3, 1, 1)
        self.inner = copy.deepcopy(convolution)
        self.inner.weight.data /= (255 * std).view(1, 3, 1, 1)
        bias = (self.inner.weight.data * beyond).sum((1, 2, 3))
        if convolution.bias is not None:
            bias += convolution.bias.data
        self.inner.bias, self.inner.padding = nn.Parameter(bias), (0, 0)
        down, across = (int(side) for side in convolution.padding)
        self._around = (across, across, down, down)
        self.zero: torch.Tensor
        self.frame: torch.Tensor
        self.register_buffer("zero", zero.view(1, 3, 1, 1))
        self.register_buffer("frame", -beyond * functional.pad(torch.zeros(1, 3, size, size), self._around, value=1))

    @staticmethod
    def takes(convolution: nn.Module) -> bool:
        """Whether this convolution can be replaced."""
        return (
            isinstance(convolution, PixelConv)
            and convolution.groups == 1
            and convolution.padding_mode == "zeros"
            and not isinstance(convolution.padding, str)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the convolution of the normalised pixels, from raw pixels (N, 3, S, S)."""
        return self.inner(functional.pad(pixels - self.zero, self._around) + self.frame)


class Served(nn.Module):
    """Normalisation, network, temperature and softmax of a member of a `Classifier` as one module."""

    def __init__(self, network: nn.Module, model: Any, member: int) -> None:
        super().__init__()
        self.network, self.temperature = network, float(model.temperatures[member])
        self.heads = model.heads
        self.mean: torch.Tensor
        self.std: torch.Tensor
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(model.described["normalisation"][name]))
        layers = [name for name, module in network.named_modules() if WholeNumbers.takes(module)]
        self.normalised = not layers
        if layers:
            above, _, name = layers[0].rpartition(".")
            first: Any = network.get_submodule(layers[0])
            whole = WholeNumbers(first, self.mean, self.std, model.config.image_size)
            setattr(network.get_submodule(above), name, whole)
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return p(y | x), shape (N, K), for uint8 pixels (N, S, S, 3)."""
        images = normalise(pixels, self.mean, self.std) if self.normalised else pixels.permute(0, 3, 1, 2).float()
        return class_probabilities(self.network(images).float(), self.temperature, self.heads)


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
