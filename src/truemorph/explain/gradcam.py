"""Grad-CAM: which parts of an image contribute to the predicted class (paper, section 3.4).

Selvaraju et al. 2017 (ICCV, arXiv:1610.02391): the channels of a layer, weighted by the mean gradient of the logit of
the class, are added, and negative sums are set to zero. Computed with captum's LayerGradCam.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradCam

from truemorph.classifiers.checkpoint import Classifier
from truemorph.classifiers.network import torch_device
from truemorph.errors import InputError
from truemorph.explain.feature_maps import Grid, Layer, Seam, layers_of
from truemorph.images.transforms import normalise
from truemorph.labelling.labeller import members_used

# As in the paper. Regions marked by maps of 4 cells or fewer matter half as much (docs/explain.md).
_CELLS = 7
# Pixels per batch: 64 images of 64 pixels, 8 of 207; more on a GPU.
_PIXELS_AT_ONCE = {"cpu": 64 * 64**2, "cuda": 256 * 207**2}


def layers(model: Classifier) -> dict[str, int]:
    """Return the layers of a model's backbone that have maps, with cells per side; the deepest last.

    Raises
    ------
    InputError
        If the model uses catalogue features.
    """
    _check(model)
    return {one.name: one.grid.cells for one in layers_of(model.networks()[0].requires_grad_(False), _side(model))}


class GradCam:
    """Grad-CAM of a model at one of its layers.

    Parameters
    ----------
    model : Classifier
        A model of images, with any timm backbone that has named stages.
    layer : str, optional
        One of `layers(model)`. Default: the deepest with at least 7×7 cells (see docs/explain.md).

    Attributes
    ----------
    layer : str
    grid : Grid
        Positions of the layer's cells.
    networks : list of torch.nn.Module
        Members of the model.

    Raises
    ------
    InputError
        If the model uses catalogue features, or has no such layer.

    Notes ----- Gradients are computed in float32, from the logits to the layer. The temperature has no effect, because
    it scales all logits of a member and maps are normalised to maximum 1.

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
        _check(model)
        self.model = model
        self._device = torch_device(model.device)
        self.networks = [network.requires_grad_(False) for network in model.networks()]
        self._layer = _chosen(layers_of(self.networks[0], _side(model)), layer, model.config.backbone)
        self.networks = [network.to(self._device) for network in self.networks]
        self._mean, self._std = (
            torch.tensor(model.described["normalisation"][key], device=self._device) for key in ("mean", "std")
        )
        self._at_once = max(1, _PIXELS_AT_ONCE.get(self._device.type, _PIXELS_AT_ONCE["cuda"]) // _side(model) ** 2)
        self.description = f"torch {self._device.type} fp32"

    @property
    def layer(self) -> str:
        """Name of the layer."""
        return self._layer.name

    @property
    def grid(self) -> Grid:
        """Positions of the cells on the image."""
        return self._layer.grid

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, shape (N, K); this makes the object a labelling engine too."""
        found = []
        with torch.inference_mode():
            for part in self._parts(inputs):
                logits = self.networks[member](self._normalised(part))
                found.append(torch.softmax(logits.double() / self.model.temperatures[member], dim=1).cpu())
        return torch.cat(found).numpy()

    def maps(self, pixels: np.ndarray, classes: Any, members: np.ndarray | None = None) -> np.ndarray:
        """Compute maps of the evidence for a class.

        Parameters
        ----------
        pixels : array of uint8, shape (N, S, S, 3)
            Cropped and resized images.
        classes : int, or array of int, shape (N,)
            Class to explain for each galaxy.
        members : array of int, shape (N,), optional
        Fold of each galaxy, -1 if none: only members that did not see its label are used, as in labelling. Default:
        all members.

        Returns
        -------
        array of float32, shape (N, H, W)
            Mean over members of maps with maximum 1; a map is zero if there is no evidence for the class.

        Raises
        ------
        InputError
            If pixels have another shape or type, or a class is not one of the model's.
        """
        side = _side(self.model)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise InputError(
                f"pixels must be uint8 of shape (N, {side}, {side}, 3) for this model; got {pixels.dtype} "
                f"{pixels.shape}"
            )
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
        network, found = self.networks[member], []
        targets = torch.from_numpy(classes.astype(np.int64))
        with Seam(network, self._layer) as seen:
            method = LayerGradCam(network, seen)
            for part, target in zip(self._parts(pixels), targets.split(self._at_once), strict=True):
                maps = method.attribute(self._normalised(part), target.to(self._device), relu_attributions=True)
                highest = maps.amax(dim=(1, 2, 3), keepdim=True)
                found.append(torch.where(highest > 0, maps / highest, 0.0)[:, 0].detach().cpu())
        return torch.cat(found).numpy()

    def _parts(self, pixels: np.ndarray) -> tuple[torch.Tensor, ...]:
        return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).split(self._at_once)

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        return normalise(pixels.to(self._device), self._mean, self._std)


def upsampled(maps: np.ndarray, size: int, grid: Grid | None = None) -> np.ndarray:
    """Interpolate maps to image pixels: bilinear between cell centres, constant beyond the outermost.

    Parameters
    ----------
    maps : array, shape (N, H, H)
    size : int
        Image width S.
    grid : Grid, optional
        Positions of cells; default evenly spaced.

    Returns
    -------
    array, shape (N, S, S)

    Examples
    --------
    >>> upsampled(np.array([[[0.0, 1.0], [0.0, 1.0]]]), 4)[0, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    cells = maps.shape[-1]
    first, step = ((size / cells - 1) / 2, size / cells) if grid is None else (grid.first, grid.step)
    place = np.clip((np.arange(size) - first) / step, 0, cells - 1)
    # Row x of the weights: a triangle function per cell, at pixel x.
    weights = np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, 1).astype(maps.dtype)
    return weights @ maps @ weights.T


def _check(model: Classifier) -> None:
    if not model.uses_images:
        raise InputError("Grad-CAM needs a model of images, and this model uses catalogue features; "
                         "give one that was trained on images")  # fmt: skip


def _side(model: Classifier) -> int:
    return model.config.image_size


def _chosen(there: list[Layer], name: str | None, backbone: str) -> Layer:
    """Return the layer of this name, or the default layer."""
    listed = ", ".join(f"{one.name} ({one.grid.cells}×{one.grid.cells})" for one in there)
    if not there:
        raise InputError(f"backbone {backbone} has no layer with a map, so Grad-CAM can't explain it")
    if name is None:
        return next((one for one in reversed(there) if one.grid.cells >= _CELLS), there[0])
    for one in there:
        if one.name == name:
            return one
    raise InputError(f"no layer {name!r} with a map in backbone {backbone}; available: {listed}")
