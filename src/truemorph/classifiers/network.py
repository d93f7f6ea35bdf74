"""DDB's network: a timm backbone, one dense layer with ReLU, the class layer (paper, section 2.3.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import Any, Literal

import timm
import torch
from timm.models import load_state_dict, register_model
from timm.models.resnet import Bottleneck
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from truemorph.config import TrainingConfig
from truemorph.errors import InputError, nearest, reason
from truemorph.images.transforms import normalise
from truemorph.io import read_json
from truemorph.progress import tell
from truemorph.questions import Head

_HUB = "hf_hub:"
_OF_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_PREFIXES = ("", "encoder.", "backbone.", "model.", "module.")  # of a backbone's weights in those of a larger network


@register_model
def resnet50_v1(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """ResNet50 as in Keras: blocks downsample in their first 1×1 convolution (He et al. 2016), not as in v1.5.

    So are initial weights and batch norms (`as_in_keras`), except that the last batch norm of each block starts with a
    factor of 0 (Goyal et al. 2017, section 5.1). With 1, as in Keras, Adam's first step moves logits by about 5, and
    training through T(α) hardly leaves p(disk) = 1: smooth labels are then explained by flips, and gradients vanish.
    Keras' convolutions have biases, which batch norms cancel.
    """
    if pretrained:
        raise ValueError("there are no published weights of resnet50_v1; resnet50 has them")
    chosen = {name: value for name, value in arguments.items() if not name.startswith(("pretrained", "cache"))}
    network: Any = timm.create_model("resnet50", pretrained=False, **chosen)
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return as_in_keras(network)


def as_in_keras(network: nn.Module) -> nn.Module:
    """Start with Keras' weights (Glorot & Bengio 2010), and set batch norms as Keras' ResNet50 does."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.momentum, layer.eps = 0.01, 1.001e-5  # Keras calls this a momentum of 0.99
    return network


@contextmanager
def no_larger_than(numbers: int) -> Iterator[None]:
    """Refuse to make networks of many more weights than this, as a stranger's description might, to use up memory."""
    thread, made = get_ident(), 0

    def count(_: nn.Module, __: str, weights: nn.Parameter) -> None:
        nonlocal made
        made += weights.numel() if get_ident() == thread else 0
        if made > 2 * numbers:  # some backbones replace layers
            raise InputError("it is described as larger than its weights")

    counting = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        counting.remove()


def _rebuilt(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """Make the backbone of an earlier network, whose description may be a stranger's: timm reads no file for it."""
    unsafe = [name for name in arguments if name.startswith(("pretrained", "checkpoint", "cache", "model_name"))]
    unsafe += re.findall(r"(?<![\d.])\d{5,}", json.dumps(arguments))  # sizes
    if unsafe or not timm.is_model(architecture):
        what = f"argument {unsafe[0]!r} is not allowed" if unsafe else "this timm has no such backbone; upgrade timm"
        raise InputError(f"backbone {architecture!r} can't be rebuilt: {what}")
    return timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)


@dataclass(frozen=True)
class _Weights:
    """Weights on disk, and the backbone that they are of."""

    file: Path
    architecture: str
    arguments: dict[str, Any]
    standard: dict[str, Any]  # mean and std of its images


def _own_weights(name: str) -> _Weights | None:
    """Return the weights of a folder like those of a hub, or of ARCHITECTURE:FILE; None if they are not on disk."""
    folder = Path(name)
    if folder.is_dir():
        described = read_json(folder / "config.json")
        files = [folder / f"{start}{end}" for start in ("model", "pytorch_model") for end in _OF_WEIGHTS]
        file = next(filter(Path.is_file, files), None)
        if "architecture" not in described or file is None:
            raise InputError(f"{folder}: must have config.json, with an architecture of timm, and model.safetensors")
        config = described.get("pretrained_cfg") or {}
        standard = {key: config[key] for key in ("mean", "std") if key in config}
        return _Weights(file, str(described["architecture"]), dict(described.get("model_args") or {}), standard)
    architecture, _, path = name.partition(":")
    file = Path(path or architecture)
    if file.suffix not in _OF_WEIGHTS:
        return None
    if not path:
        raise InputError(f"{name}: say which architecture of timm these are weights of, such as resnet50:{name}")
    if not file.is_file():
        raise InputError(f"{file}: no such file of weights")
    return _Weights(file, architecture, {}, {})


def _load_own(backbone: nn.Module, file: Path, size: int) -> None:
    """Load the weights in a file, without running code in it.

    Raises an InputError if a tensor of the backbone is absent, or has another shape.
    """
    try:
        stored = load_state_dict(str(file), weights_only=True)
        stored = {name: value for name, value in stored.items() if isinstance(value, torch.Tensor)}
    except Exception as problem:  # torch and safetensors raise many types
        raise InputError(f"{file}: can't be read as weights ({reason(problem)})") from problem
    needed = backbone.state_dict()
    prefix = max(_PREFIXES, key=lambda candidate: sum(f"{candidate}{name}" in stored for name in needed))
    weights = {name: stored[prefix + name] for name in needed if prefix + name in stored}
    absent = [name for name in needed if name not in weights]
    unlike = [name for name, value in weights.items() if value.shape != needed[name].shape]
    if absent or unlike:
        first = f"no {absent[0]}" if absent else f"{unlike[0]} has shape {tuple(weights[unlike[0]].shape)}"
        raise InputError(
            f"{file}: {len(absent)} of the backbone's {len(needed)} tensors are absent, and {len(unlike)} have another "
            f"shape (first: {first}; images of {size} pixels); name another architecture or `image_size`"
        )
    backbone.load_state_dict(weights)
    tell(f"{file}: all {len(weights)} tensors of the backbone are used, {len(stored) - len(weights)} others are not")


def _backbone_for(name: str, pretrained: bool, size: int) -> tuple[nn.Module, dict[str, Any]]:
    """Make a timm backbone for this image size; also return `architecture` and `arguments` to rebuild it offline."""
    from_hub, own = name.startswith(_HUB), _own_weights(name)
    if own is not None and not pretrained:
        raise InputError(
            f"backbone {name} has weights on disk: start from them (`pretrained`), or name an architecture"
        )
    architecture, arguments = (name, {}) if own is None else (own.architecture, own.arguments)
    if not from_hub and not timm.is_model(architecture):
        raise InputError(
            f"timm has no backbone {architecture!r}; {nearest(architecture, timm.list_models(), what='backbones')}"
        )
    refused = ""
    for sized in (dict[str, Any](), {"img_size": size}):  # some transformers need to know the image size
        try:
            if from_hub:
                _, architecture, arguments = timm.models.load_model_config_from_hf(name.removeprefix(_HUB))
            backbone: Any
            if own is None:
                backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, **sized)
            else:
                backbone = _rebuilt(architecture, {**arguments, **sized})
                backbone.pretrained_cfg = {**backbone.pretrained_cfg, **own.standard}
        except Exception as problem:  # hub clients raise many types
            if sized and isinstance(problem, TypeError):  # the backbone has no such argument
                break
            raise InputError(
                f"backbone {name} can't be made ({reason(problem)}); published weights (`pretrained`) and models of a "
                "hub need a connection to the internet, once"
            ) from problem
        try:
            with torch.inference_mode():
                backbone.eval()(torch.zeros(1, 3, size, size))
        except (AssertionError, RuntimeError) as problem:
            refused = refused or reason(problem)
            continue
        if own is not None:
            _load_own(backbone, own.file, size)
        return backbone.train(), {"architecture": architecture, "arguments": {**arguments, **sized}}
    raise InputError(f"backbone {name} can't take {size}-pixel images ({refused}); change it or `image_size`")


class PixelConv(nn.Conv2d):
    """A convolution of pixels that stays in float32 under autocast.

    Most pixels are dark sky, which bf16 rounds in the same direction: this moves mean p (docs/labelling.md).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Apply the convolution in float32."""
        if not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class GalaxyNetwork(nn.Module):
    """Backbone → Dense(hidden) + ReLU → K logits; `pretrained` starts from published weights.

    What describes an earlier network makes the same one offline: `built` (`architecture` in timm, and `arguments`), and
    `normalisation` of its images.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, config: TrainingConfig, n_classes: int = 2, pretrained: bool = False, described: Mapping[str, Any] = {}
    ) -> None:
        super().__init__()
        self.backbone: Any
        if built := described.get("built"):
            self.built = built
            self.backbone = _rebuilt(built["architecture"], built["arguments"])
        else:
            self.backbone, self.built = _backbone_for(config.backbone, pretrained, config.image_size)
        first = next((module for module in self.backbone.modules() if isinstance(module, nn.Conv2d)), None)
        if type(first) is nn.Conv2d and first.in_channels == 3:
            first.__class__ = PixelConv  # whose weights keep their name
        self.head_alone, self.keeps_norms = config.finetune == "head", False
        if self.head_alone:
            self.backbone.requires_grad_(False)
        usual = self.backbone.pretrained_cfg if config.standardise else {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        settings = described.get("normalisation") or usual
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(settings.get(name, (0.5,) * 3)), persistent=False)
        features: Any = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features
        self.head = nn.Sequential(
            nn.Linear(features, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, n_classes),
        )
        if self.built["architecture"] == resnet50_v1.__name__:
            as_in_keras(self.head)
        # Convolutions on CPU and GPU run faster with channels last; torch's stubs lack the argument.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train()

    def train(self, mode: bool = True) -> GalaxyNetwork:
        """Switch to training mode; a frozen backbone keeps its batch statistics, and `keeps_norms` keeps all."""
        super().train(mode)
        if self.head_alone:
            self.backbone.eval()
        for module in self.modules() if self.keeps_norms else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    @property
    def normalisation(self) -> dict[str, list[float]]:
        """Mean and standard deviation of pixels, from 0 to 1, in each band."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels, uint8 (B, S, S, 3), as the network takes them."""
        return normalise(pixels, self.mean, self.std)

    def rescale(self, factor: torch.Tensor | float, offset: torch.Tensor | float = 0.0) -> None:
        """Multiply the logits by a factor, and add an offset, (K,) or for all."""
        last: Any = self.head[-1]
        by, more = (torch.as_tensor(value).to(last.bias).expand(last.out_features) for value in (factor, offset))
        with torch.no_grad():
            last.weight.mul_(by[:, None])
            last.bias.mul_(by).add_(more)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, shape (B, K), of normalised images (B, 3, S, S)."""
        return self.head(self.backbone(images))


def torch_device(name: str) -> torch.device:
    """Return a torch device; "auto" is a GPU if available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise InputError(f"device {name!r} (`device`) is not available: {reason(problem)}") from problem
    return torch.device(name)


def multiplies_bf16() -> bool:
    """Whether the hardware multiplies bf16 natively."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capable = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))


def settled_precision(precision: str) -> Literal["32-true", "bf16-mixed"]:
    """Resolve "auto": mixed bf16 where the hardware multiplies it natively, float32 elsewhere."""
    mixed = multiplies_bf16() if precision == "auto" else precision == "bf16-mixed"
    return "bf16-mixed" if mixed else "32-true"


def class_probabilities(logits: torch.Tensor, temperature: float, heads: Sequence[Head]) -> torch.Tensor:
    """Return p(y | x), shape (N, K), from a network's logits: the classes of each question sum to 1."""
    return torch.cat([torch.softmax(logits[:, head.part] / temperature, dim=1) for head in heads], dim=1)
