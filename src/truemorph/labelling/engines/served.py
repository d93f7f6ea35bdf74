"""A network as engines outside of PyTorch take it: uint8 pixels in, probabilities out."""

from __future__ import annotations

import torch
from torch import nn

from truemorph.classifiers.checkpoint import Classifier
from truemorph.images.transforms import normalise


class Served(nn.Module):
    """Normalisation, a member, its temperature and the softmax in one module.

    Parameters
    ----------
    model : Classifier
    member : int
    """

    def __init__(self, model: Classifier, member: int) -> None:
        super().__init__()
        self.network = model.networks()[member]
        self.temperature = float(model.temperatures[member])
        self.mean: torch.Tensor
        self.std: torch.Tensor
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(model.described["normalisation"][name]))
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """p(y | x), shape (N, K), of uint8 pixels (N, S, S, 3)."""
        return torch.softmax(self.network(normalise(pixels, self.mean, self.std)).float() / self.temperature, dim=1)


class Ensemble(nn.Module):
    """All members in one module: their mean probability."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.members = nn.ModuleList([Served(model, member) for member in range(len(model.members))])
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """p(y | x), shape (N, K), of uint8 pixels (N, S, S, 3)."""
        return torch.stack([member(pixels) for member in self.members]).mean(dim=0)
