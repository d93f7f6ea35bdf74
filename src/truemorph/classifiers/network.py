"""DDB's network: a timm backbone, one dense layer with ReLU, the class layer (paper, section 2.3.2)."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from truemorph.config import TrainingConfig
from truemorph.errors import InputError, TruemorphError


def _backbone_for(name: str, pretrained: bool, size: int) -> nn.Module:
    """A timm backbone that takes images of this size: as it is, or built for the size (transformers)."""
    backbone: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
    reason = _refusal(backbone, size)
    if reason:
        try:
            backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=size)
        except TypeError:  # not a backbone that is built for a size
            raise InputError(f"backbone {name} can't take {size}-pixel images ({reason})") from None
        reason = _refusal(backbone, size)
    if reason:
        raise InputError(f"backbone {name} can't take {size}-pixel images ({reason}); use another or --image-size")
    return backbone


def _refusal(backbone: nn.Module, size: int) -> str:
    """Why a backbone does not take images of this size; empty if it does."""
    try:
        with torch.inference_mode():
            backbone.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError) as problem:
        return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
    finally:
        backbone.train()
    return ""


class GalaxyNetwork(nn.Module):
    """Backbone → Dense(hidden) + ReLU → K logits.

    Parameters
    ----------
    config : TrainingConfig
        Backbone, hidden width, dropout.
    n_classes : int

    Raises
    ------
    InputError
        If timm does not know the backbone.
    TruemorphError
        If published weights were asked for and can't be fetched.
    """

    def __init__(self, config: TrainingConfig, n_classes: int = 2, pretrained: bool = False) -> None:
        super().__init__()
        if not config.backbone.startswith("hf_hub:") and not timm.is_model(config.backbone):
            near = ", ".join(timm.list_models(f"*{config.backbone.split('_')[0]}*")[:4]) or "see timm.list_models()"
            raise InputError(f"timm has no backbone {config.backbone!r}; near it: {near}")
        try:
            self.backbone: Any = _backbone_for(config.backbone, pretrained, config.image_size)
        except InputError:
            raise
        except Exception as problem:  # hub clients raise many types
            if not pretrained:
                raise
            raise TruemorphError(
                f"weights of {config.backbone} can't be fetched ({type(problem).__name__}); "
                "connect to the network once, or train from a random start with pretrained = false"
            ) from problem
        settings: Any = self.backbone.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(settings.get("mean", (0.5, 0.5, 0.5)))
        self.std: tuple[float, ...] = tuple(settings.get("std", (0.5, 0.5, 0.5)))
        features: Any = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features
        self.head = nn.Sequential(
            nn.Linear(features, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, n_classes),
        )
        # Convolutions on CPU and GPU run faster with channels last; torch's stubs don't know the argument.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, shape (B, K), of normalised images (B, 3, S, S)."""
        return self.head(self.backbone(images))
