"""Find layers of a timm backbone whose output is a map of the image, in any tensor layout, and where its cells are.

A stride of 2 with kernel 3 and padding 1, as in ResNets, keeps pixels 0, 2, 4, ...: cell i of a 4×4 map of 64 pixels is
centred on pixel 16 i, not on 16 i + 7.5. `Grid` has the positions, computed as in Araujo, Norris & Sim 2019 (Distill,
"Computing receptive fields of convolutional neural networks").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

_RESAMPLING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Grid:
    """Positions of a map's cells on the image, along each axis, in pixels; the centre of the first pixel is 0."""

    cells: int
    first: float  # centre of the first cell
    step: float  # distance to the next


@dataclass(frozen=True)
class Layer:
    """A layer of the backbone whose output is a map."""

    name: str
    grid: Grid
    form: Literal["channels first", "channels last", "tokens"]
    before: int = 0  # tokens before those of the image

    def to_map(self, output: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, or its gradient, as (B, C, H, W)."""
        if self.form == "channels last":
            return output.permute(0, 3, 1, 2)
        if self.form == "tokens":
            return output[:, self.before :].transpose(1, 2).unflatten(2, (self.grid.cells, self.grid.cells))
        return output


class _Resampled(NamedTuple):
    """A convolution or pooling: widths before and after, stride, and centre of its first window."""

    before: int
    after: int
    stride: int
    first: float


def _resampled(module: Any, before: int, after: int) -> _Resampled:
    kernel, stride, padding, dilation = (
        value[-1] if isinstance(value, tuple) else value
        for value in (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
    )
    reach = (kernel - 1) * dilation
    if not isinstance(padding, int) or after > (before + 2 * padding - reach - 1) // stride + 1:
        padding = ((after - 1) * stride + reach + 1 - before) // 2  # padding depends on the image
    return _Resampled(before, after, stride, reach / 2 - padding)


def layers_of(network: Any, size: int) -> list[Layer]:
    """Return the layers of a GalaxyNetwork whose outputs are maps of an image of this width, the deepest last.

    These are the stages named by timm (`feature_info`) that have more than one cell and influence the result. (The
    patches of the last block have no influence in a transformer that uses its class token only.)
    """
    backbone = network.backbone
    info = getattr(backbone, "feature_info", [])
    channels = {stage["module"]: stage["num_chs"] for stage in getattr(info, "info", info)}
    outputs: dict[str, tuple[torch.Tensor, list[_Resampled]]] = {}
    resampled: list[_Resampled] = []

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(output, torch.Tensor):
            return None
        outputs[name] = (output, list(resampled))
        return output.clone()  # later layers may work in place

    def note(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        resampled.append(_resampled(module, inputs[0].shape[-1], output.shape[-1]))

    stages = [(name, module) for name, module in backbone.named_modules() if name in channels]
    hooks = [module.register_forward_hook(partial(keep, name)) for name, module in stages]
    hooks += [one.register_forward_hook(note) for one in backbone.modules() if isinstance(one, _RESAMPLING)]
    generator, device = torch.Generator().manual_seed(0), next(backbone.parameters()).device
    picture = torch.randn(1, 3, size, size, generator=generator).to(device)
    try:
        with torch.enable_grad():
            features = backbone(picture.requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    # Not the logits, because the ReLU of the dense layer may be zero for random input.
    direction = torch.randn(features.shape, generator=generator).to(device)
    every = [output for output, _ in outputs.values()]
    gradients = torch.autograd.grad(features, every, direction, allow_unused=True) if every else ()
    layers = []
    for (name, (output, steps)), gradient in zip(outputs.items(), gradients, strict=True):
        layer = _layer(name, output, channels[name], backbone, size, steps)
        if layer is not None and gradient is not None and bool(layer.to_map(gradient).any()):
            layers.append(layer)
    return layers


def _layer(
    name: str, output: torch.Tensor, channels: int, backbone: Any, size: int, steps: list[_Resampled]
) -> Layer | None:
    """Return how a layer stores its map; None if it has none."""
    if output.ndim == 3:
        prefix = getattr(backbone, "num_prefix_tokens", 0) or 0
        # Some backbones add their class token later than stated.
        for before in (prefix, 0):
            cells = isqrt(max(output.shape[1] - before, 0))
            if cells > 1 and cells**2 == output.shape[1] - before:
                return Layer(name, _grid(size, cells, steps), "tokens", before)
        return None
    if output.ndim != 4:
        return None
    ambiguous = output.shape[1] == output.shape[3]
    last = getattr(backbone, "output_fmt", "NCHW") == "NHWC" if ambiguous else output.shape[3] == channels
    height, width = output.shape[1:3] if last else output.shape[2:]
    if height != width or height < 2:
        return None
    return Layer(name, _grid(size, height, steps), "channels last" if last else "channels first")


def _grid(size: int, cells: int, steps: list[_Resampled]) -> Grid:
    """Compute positions of cells from the convolutions, or else spread them evenly."""
    first, step, side = 0.0, 1, size
    while side > cells:
        onward = [one for one in steps if one.before == side > one.after >= cells]
        if not onward:
            return Grid(cells, (size / cells - 1) / 2, size / cells)
        side = max(one.after for one in onward)
        # Branches may place their cells differently: the shortcut of a ResNet-D averages two pixels, where its
        # convolution is centred on the first.
        beside = [one for one in onward if one.after == side]
        first += step * sum(one.first for one in beside) / len(beside)
        step *= beside[0].stride
    return Grid(cells, first, float(step))
