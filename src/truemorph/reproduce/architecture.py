"""Figure 2: the network, drawn from the trained model itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from truemorph.classifiers.checkpoint import load
from truemorph.plotting import BLUE, GREEN, GREY, ORANGE
from truemorph.report.figures import new_panel
from truemorph.report.page import Illustration
from truemorph.reproduce.models import MODEL, NETWORKS
from truemorph.reproduce.paper import DDB, TABLE_1
from truemorph.reproduce.stages import Work


@dataclass
class Layer:
    """Layers of a network whose outputs have the same shape, and their number of weights."""

    steps: list[str]
    shape: tuple[int, ...]  # of the output, without the batch
    weights: int = 0


def _described(layer: nn.Module) -> str:
    """Say what a layer does; empty if it does nothing."""
    match layer:
        case nn.Identity() | nn.Dropout(p=0):
            return ""
        case nn.Conv2d(kernel_size=(height, width), stride=(step, _)):
            return f"{height}×{width} conv." + (f" stride {step}" if step != 1 else "")
        case nn.MaxPool2d():
            return f"{layer.kernel_size}×{layer.kernel_size} maximum stride {layer.stride}"
        case nn.Linear():
            return "dense"
        case nn.BatchNorm2d():
            return "batch norm"
        case nn.Sequential() if len({type(part) for part in layer}) == 1:
            return f"{len(layer)} × {type(layer[0]).__name__}"
    kind = type(layer).__name__
    return "average pool" if "Pool" in kind else kind


def layers_of(network: Any, size: int) -> list[Layer]:
    """Pass an empty image of `size` pixels through a `GalaxyNetwork`; return its layers in order."""
    layers = [Layer(["image"], (3, size, size))]

    def passed(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        what, shape = _described(layer), tuple(output.shape[1:])
        if shape == layers[-1].shape and not isinstance(layer, nn.Sequential):
            layers[-1].steps += [what] if what else []
        else:
            layers.append(Layer([what], shape))
        layers[-1].weights += sum(parameter.numel() for parameter in layer.parameters())

    hooks = [
        layer.register_forward_hook(passed) for part in (network.backbone, network.head) for layer in part.children()
    ]
    with torch.inference_mode():
        network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return layers


def network_figure(work: Work) -> list[Illustration]:
    """Draw Figure 2 of DDB's network, or of another if there is none."""
    name = next(filter(work.have, (DDB, *NETWORKS)), None)
    if name is None:
        return []
    model = load(work.file(name, MODEL))
    layers = layers_of(model.networks()[0], model.config.image_size)
    layers.append(Layer(["softmax"], (len(model.classes),)))
    outputs = ["×".join(map(str, layer.shape)) for layer in layers]
    axes = new_panel(4.6, 0.45 * len(layers))
    for k, (layer, output) in enumerate(zip(layers, outputs, strict=True)):
        area = layer.shape[1:]
        width = 0.12 + (np.log2(area[0]) / 8 if area else 0)
        colour = GREY if k in (0, len(layers) - 1) else BLUE if area else ORANGE if len(layers) - k > 3 else GREEN
        axes.barh(k, width, 0.6, -width / 2, color=colour, alpha=0.55, lw=0)
        axes.text(-0.62, k, output, ha="right", va="center", fontsize=8)
        axes.text(0.62, k, ", ".join(layer.steps), ha="left", va="center", fontsize=8)
        if k:
            axes.annotate("", (0, k - 0.31), (0, k - 0.69), arrowprops={"arrowstyle": "->", "color": GREY, "lw": 0.8})
    axes.set(xlim=(-1.3, 2.2), ylim=(len(layers) - 0.5, -0.5))
    axes.set_axis_off()
    weights = [layer.weights for layer in layers]
    loss = "the likelihood of eq. 4 through T(α)" if name == DDB else "cross-entropy"
    text = (
        f"As in the paper: the network of {TABLE_1[name].labels}, as it was trained ({model.config.backbone}, "
        f"{sum(weights):,} weights): shapes of outputs (channels × pixels) and layers, and p({model.classes[0]}) and "
        f"p({model.classes[1]}) at the end. Its loss is {loss}."
    )
    steps = [" + ".join(layer.steps) for layer in layers]
    data = pl.DataFrame({"layers": steps, "output": outputs, "weights": weights})
    return [Illustration("figure2", axes.figure, text, data, number="2")]
