"""Grad-CAM: which parts of an image contribute to the predicted class (paper, section 3.4).

Selvaraju et al. 2017 (ICCV, arXiv:1610.02391): the channels of a layer, weighted by the mean gradient of the logit of
the class, are added, and negative sums are set to zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from truemorph.classifiers.checkpoint import Classifier
from truemorph.classifiers.network import TorchEngine
from truemorph.errors import InputError
from truemorph.explain.feature_maps import Grid, Layer, layers_of
from truemorph.labelling.labeller import members_used

# As in the paper. Regions marked by maps of 4 cells or fewer matter half as much (docs/explain.md).
_CELLS = 7


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
    >>> from truemorph.classifiers.checkpoint import Classifier, describe
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
        self.layers = {one.name: one.grid.cells for one in there}
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
        explained = np.broadcast_to(np.asarray(classes), (len(pixels),))
        n_classes = len(self.model.classes)
        if explained.dtype.kind not in "iu" or np.any((explained < 0) | (explained >= n_classes)):
            raise InputError(f"classes must be numbers 0 to {n_classes - 1} ({', '.join(self.model.classes)})")
        fold = np.full(len(pixels), -1) if members is None else np.asarray(members)
        total = np.zeros((len(pixels), self.grid.cells, self.grid.cells))
        used = members_used(self.model, fold)
        for member, rows in enumerate(used):
            if rows.any():
                total[rows] += self._of_member(pixels[rows], explained[rows], member)
        return (total / np.maximum(used.sum(axis=0), 1)[:, None, None]).astype(np.float32)

    def _of_member(self, pixels: np.ndarray, classes: np.ndarray, member: int) -> np.ndarray:
        network: Any = self.networks[member]
        found = []
        activation = torch.empty(0)

        def keep(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            nonlocal activation
            activation = output.detach().requires_grad_()  # gradients stop at this layer
            return activation.clone()  # later layers may work in place

        targets = torch.from_numpy(classes.astype(np.int64)).to(self._device).split(self._at_once)
        with network.backbone.get_submodule(self.layer).register_forward_hook(keep), torch.enable_grad():
            for batch, target in zip(self.batches(pixels), targets, strict=True):
                scores = network(batch).gather(1, target[:, None])
                gradient = torch.autograd.grad(scores.sum(), activation)[0]
                weights = self._layer.to_map(gradient).mean(dim=(2, 3), keepdim=True)
                maps = (weights * self._layer.to_map(activation.detach())).sum(dim=1).relu()
                highest = maps.amax(dim=(1, 2), keepdim=True)
                found.append(torch.where(highest > 0, maps / highest, 0.0).cpu())
        return torch.cat(found).numpy()


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
        return next((one for one in reversed(there) if one.grid.cells >= _CELLS), there[0])
    found = {one.name: one for one in there}
    if name not in found:
        listed = ", ".join(f"{one.name} ({one.grid.cells}×{one.grid.cells})" for one in there)
        raise InputError(f"no layer {name!r} with a map in backbone {backbone}; available: {listed}")
    return found[name]
