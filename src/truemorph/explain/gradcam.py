"""Grad-CAM: which parts of an image contribute to the predicted class (paper, section 3.4).

Selvaraju et al. 2017 (ICCV, arXiv:1610.02391): the channels of a layer, weighted by the mean gradient of the logit of
the class, are added, and negative sums are set to zero.

A stride of 2 with kernel 3 and padding 1, as in ResNets, keeps pixels 0, 2, 4, ...: cell i of a 4×4 map of 64 pixels is
centred on pixel 16 i, not on 16 i + 7.5. `Grid` has the positions, computed as in Araujo, Norris & Sim 2019 (Distill,
"Computing receptive fields of convolutional neural networks").
"""

from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from truemorph.classifiers.classifier import Classifier
from truemorph.classifiers.engines.torch import TorchEngine
from truemorph.errors import InputError

# As in the paper. Regions marked by maps of 4 cells or fewer matter half as much (docs/explain.md).
_CELLS = 7
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
    hooks += [module.register_forward_hook(note) for module in backbone.modules() if isinstance(module, _RESAMPLING)]
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
        onward = [step for step in steps if step.before == side > step.after >= cells]
        if not onward:
            return Grid(cells, (size / cells - 1) / 2, size / cells)
        side = max(stage.after for stage in onward)
        # Branches may place their cells differently: the shortcut of a ResNet-D averages two pixels, where its
        # convolution is centred on the first.
        beside = [stage for stage in onward if stage.after == side]
        first += step * sum(stage.first for stage in beside) / len(beside)
        step *= beside[0].stride
    return Grid(cells, first, float(step))


class GradCam(TorchEngine):
    """Grad-CAM of a model at one of its layers; also a labelling engine with the same networks.

    Parameters
    ----------
    model : Classifier
        A model of images, with any timm backbone that has named stages.
    layer : str, optional
        One of `layers`. Default: the deepest with at least 7×7 cells (see docs/explain.md).

    Attributes
    ----------
    layers : dict of str to int
        Layers of the backbone that have maps, with cells per side; the deepest last.
    layer : str
    grid : Grid
        Positions of the layer's cells on the image.
    networks : list of torch.nn.Module
        Members of the model.

    Raises
    ------
    InputError
        If the model uses catalogue features, or has no such layer.

    Notes
    -----
    Gradients are computed in float32, from the logits to the layer. The temperature has no effect, because it scales
    all logits of a member and maps are normalised to maximum 1.

    Examples
    --------
    >>> from truemorph.classifiers.classifier import Classifier, describe
    >>> from truemorph.classifiers.network import GalaxyNetwork
    >>> from truemorph.config import training_config
    >>> config = training_config("quick", image_size=64, folds=1)  # random weights, for brevity
    >>> weights = {name: value.numpy() for name, value in GalaxyNetwork(config).state_dict().items()}
    >>> grey = {"mean": [0.5] * 3, "std": [0.5] * 3}
    >>> about = describe(config, {}, catalogue={}, members=1, metrics={}, normalisation=grey)
    >>> pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    >>> GradCam(Classifier(about, [weights], seen=None)).maps(pixels, np.array([0, 1, 1])).shape
    (3, 8, 8)
    """

    def __init__(self, model: Classifier, layer: str | None = None) -> None:
        if not model.uses_images:
            raise InputError("this model uses catalogue features; Grad-CAM needs one that was trained on images")
        super().__init__(model, "fp32")
        self.model = model
        for network in self.networks:
            network.requires_grad_(False)
        there = layers_of(self.networks[0], model.config.image_size)
        self.layers = {stage.name: stage.grid.cells for stage in there}
        self._layer = _chosen(there, layer, model.config.backbone)
        self.layer: str = self._layer.name
        self.grid: Grid = self._layer.grid

    def maps(self, pixels: np.ndarray, classes: Any, members: np.ndarray | None = None) -> np.ndarray:
        """Compute maps of the evidence for a class.

        Parameters
        ----------
        pixels : array of uint8, shape (N, S, S, 3)
            Cropped and resized images.
        classes : int, or array of int, shape (N,)
            Class to explain for each galaxy.
        members : array of int, shape (N,), optional
            Fold of each galaxy, -1 if none: only members that did not see its label are used, as in labelling.
            Default: all members.

        Returns
        -------
        array of float32, shape (N, H, H)
            Mean over members of maps with maximum 1; a map is zero if there is no evidence for the class.

        Raises
        ------
        InputError
            If pixels have another shape or type, or a class is not one of the model's.
        """
        side = self.model.config.image_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            got = f"{pixels.dtype} {pixels.shape}"
            raise InputError(f"pixels must be uint8 of shape (N, {side}, {side}, 3) for this model; got {got}")
        explained = np.broadcast_to(classes, len(pixels))
        n_classes = len(self.model.classes)
        if explained.dtype.kind not in "iu" or np.any((explained < 0) | (explained >= n_classes)):
            raise InputError(f"classes must be numbers 0 to {n_classes - 1} ({', '.join(self.model.classes)})")
        total = np.zeros((len(pixels), self.grid.cells, self.grid.cells))
        used = self.model.members_used(np.broadcast_to(-1 if members is None else members, len(pixels)))
        for member, rows in enumerate(used):
            if rows.any():
                total[rows] += self._of_member(pixels[rows], explained[rows], member)
        return (total / np.maximum(used.sum(axis=0), 1)[:, None, None]).astype(np.float32)

    def _of_member(self, pixels: np.ndarray, classes: np.ndarray, member: int) -> np.ndarray:
        network: Any = self.networks[member]
        of_batches = []
        activation = torch.empty(0)

        def keep(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            nonlocal activation
            activation = output.detach().requires_grad_()  # gradients stop at this layer
            return activation.clone()  # later layers may work in place

        targets = torch.from_numpy(classes.astype(int)).to(self._device).split(self._at_once)
        with network.backbone.get_submodule(self.layer).register_forward_hook(keep), torch.enable_grad():
            for batch, target in zip(self.batches(pixels), targets, strict=True):
                scores = network(batch).gather(1, target[:, None])
                gradient = torch.autograd.grad(scores.sum(), activation)[0]
                weights = self._layer.to_map(gradient).mean(dim=(2, 3), keepdim=True)
                maps = (weights * self._layer.to_map(activation.detach())).sum(dim=1).relu()
                highest = maps.amax(dim=(1, 2), keepdim=True)
                of_batches.append(torch.where(highest > 0, maps / highest, 0.0).cpu())
        return torch.cat(of_batches).numpy()


def upsampled(maps: np.ndarray, size: int, grid: Grid) -> np.ndarray:
    """Interpolate maps, shape (N, H, H), to (N, S, S) pixels: bilinear between cell centres, constant beyond them."""
    place = np.clip((np.arange(size) - grid.first) / grid.step, 0, grid.cells - 1)
    # Row x of the weights: a triangle function per cell, at pixel x.
    weights = np.clip(1 - np.abs(place[:, None] - np.arange(grid.cells)), 0, 1).astype(maps.dtype)
    return weights @ maps @ weights.T


def _chosen(there: list[Layer], name: str | None, backbone: str) -> Layer:
    """Return the layer of this name, or the default layer."""
    if not there:
        raise InputError(f"backbone {backbone} has no layer with a map, so Grad-CAM can't explain it")
    if name is None:
        return next((stage for stage in reversed(there) if stage.grid.cells >= _CELLS), there[0])
    by_name = {stage.name: stage for stage in there}
    if name not in by_name:
        listed = ", ".join(f"{stage.name} ({stage.grid.cells}×{stage.grid.cells})" for stage in there)
        raise InputError(f"no layer {name!r} with a map in backbone {backbone}; available: {listed}")
    return by_name[name]
