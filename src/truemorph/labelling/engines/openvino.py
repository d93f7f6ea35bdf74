"""OpenVINO on CPUs, in float32 or bf16; int8 is in `int8.py`."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino
import torch
from torch import nn
from torch.nn import functional

from truemorph.classifiers.checkpoint import Classifier
from truemorph.classifiers.network import PixelConv, probabilities_of
from truemorph.images.transforms import normalise

# Images per request; several requests run at once.
AT_ONCE = 8


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
    """Normalisation, network, temperature and softmax of a member as one module."""

    def __init__(self, model: Classifier, member: int) -> None:
        super().__init__()
        self.network = model.networks()[member]
        self.temperature, self.heads = float(model.temperatures[member]), model.heads
        self.mean: torch.Tensor
        self.std: torch.Tensor
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(model.described["normalisation"][name]))
        layers = [name for name, module in self.network.named_modules() if WholeNumbers.takes(module)]
        self.normalised = not layers
        if layers:
            above, _, name = layers[0].rpartition(".")
            whole = WholeNumbers(self.network.get_submodule(layers[0]), self.mean, self.std, model.config.image_size)
            setattr(self.network.get_submodule(above), name, whole)
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return p(y | x), shape (N, K), for uint8 pixels (N, S, S, 3)."""
        images = normalise(pixels, self.mean, self.std) if self.normalised else pixels.permute(0, 3, 1, 2).float()
        return probabilities_of(self.network(images).float() / self.temperature, self.heads)


def converted(model: Classifier, member: int) -> Any:
    """Convert a member to OpenVINO in float32; fixed batches of uint8 (B, S, S, 3) in, p(y | x) out."""
    size = model.config.image_size
    example = torch.zeros(AT_ONCE, size, size, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # internal deprecations of the exporters
        exported = torch.export.export(Served(model, member), (example,))
        return openvino.convert_model(exported, share_weights=False)


class OpenVinoEngine:
    """Run OpenVINO networks, one per member; `alignments` correct each member's probabilities, if any."""

    def __init__(
        self,
        networks: Sequence[Any],
        model: Classifier,
        precision: str,
        alignments: Sequence[Callable[[np.ndarray], np.ndarray]] = (),
    ) -> None:
        core = openvino.Core()
        hints: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        }
        if os.environ.get("OMP_NUM_THREADS", "").isdigit():  # set by Ray; torch respects it, OpenVINO does not
            hints["INFERENCE_NUM_THREADS"] = int(os.environ["OMP_NUM_THREADS"])
        compiled = [core.compile_model(network, "CPU", hints) for network in networks]
        self._queues = [openvino.AsyncInferQueue(one) for one in compiled]
        self._n_classes, self._alignments = len(model.classes), alignments
        self.description = f"openvino cpu {precision}"

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, shape (N, K)."""
        out, queue = np.empty((len(inputs), self._n_classes)), self._queues[member]

        def keep(request: Any, where: slice) -> None:
            out[where] = request.get_output_tensor(0).data[: where.stop - where.start]

        queue.set_callback(keep)
        for start in range(0, len(inputs), AT_ONCE):
            pixels = np.zeros((AT_ONCE, *inputs.shape[1:]), np.uint8)
            where = slice(start, min(start + AT_ONCE, len(inputs)))
            pixels[: where.stop - start] = inputs[where]
            queue.start_async({0: pixels}, where)
        queue.wait_all()
        return self._alignments[member](out) if self._alignments else out
