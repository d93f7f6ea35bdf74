"""Grad-CAM: where on its picture a galaxy's class was read (paper, section 3.4).

Selvaraju et al. 2017 (ICCV, arXiv:1610.02391): the channels of a layer, weighted by the mean gradient of the class'
logit over each, added, negative sums cut off. Computed by captum's LayerGradCam.
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
from truemorph.labelling.labeller import members_asked

# As the paper's maps have. What maps of 4 cells or fewer mark matters half as much to a network (docs/explain.md).
_CELLS = 7
# What a batch may hold: 64 pictures of 64 pixels, 8 of 207; more on a GPU.
_PIXELS_AT_ONCE = {"cpu": 64 * 64**2, "cuda": 256 * 207**2}


def layers(model: Classifier) -> dict[str, int]:
    """Layers of a model's backbone that have maps, and how many cells a side these have; the deepest last.

    Raises
    ------
    InputError
        If the model reads catalogue features.
    """
    _check(model)
    return {one.name: one.grid.cells for one in layers_of(model.networks()[0].requires_grad_(False), _side(model))}


class GradCam:
    """Grad-CAM of a model at one of its layers.

    Parameters
    ----------
    model : Classifier
        From pixels; any timm backbone with named stages.
    layer : str, optional
        One of `layers(model)`. Default the deepest of at least 7×7 cells (docs/explain.md says why).

    Attributes
    ----------
    layer : str
    grid : Grid
        Its cells.
    networks : list of torch.nn.Module
        The members.

    Raises
    ------
    InputError
        If the model reads catalogue features, or has no such layer.

    Notes
    -----
    Gradients are taken in float32, from the logits down to the layer and no further. A temperature scales all logits of
    a member alike, which a map of maximum 1 doesn't show.
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
        """Where its cells lie on the picture."""
        return self._layer.grid

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """p(y | x) of one member, shape (N, K): what is explained, and an engine for labelling."""
        found = []
        with torch.inference_mode():
            for part in self._parts(inputs):
                logits = self.networks[member](self._normalised(part))
                found.append(torch.softmax(logits.double() / self.model.temperatures[member], dim=1).cpu())
        return torch.cat(found).numpy()

    def maps(self, pixels: np.ndarray, classes: Any, members: np.ndarray | None = None) -> np.ndarray:
        """What speaks for a class, cell by cell.

        Parameters
        ----------
        pixels : array of uint8, shape (N, S, S, 3)
            Cropped and resized as the network takes them.
        classes : int, or array of int, shape (N,)
            The class of each galaxy that is explained.
        members : array of int, shape (N,), optional
            The fold that each galaxy was in, -1 where in none: then only members that never saw its label are asked, as
            in labelling. Default: all members.

        Returns
        -------
        array of float32, shape (N, H, W)
            Mean over members of maps that each have maximum 1; zero in all cells where nothing speaks for the class.

        Raises
        ------
        InputError
            If pixels have another shape or type, or a class is none of the model's.
        """
        side = _side(self.model)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise InputError(
                f"pixels should be uint8 of shape (N, {side}, {side}, 3) for this model; got {pixels.dtype} "
                f"{pixels.shape}"
            )
        wanted = np.broadcast_to(np.asarray(classes), (len(pixels),))
        n_classes = len(self.model.classes)
        if wanted.dtype.kind not in "iu" or np.any((wanted < 0) | (wanted >= n_classes)):
            raise InputError(f"classes are numbers 0 to {n_classes - 1} ({', '.join(self.model.classes)})")
        fold = np.full(len(pixels), -1) if members is None else np.asarray(members)
        total = np.zeros((len(pixels), self.grid.cells, self.grid.cells))
        asked = members_asked(self.model, fold)
        for member, rows in enumerate(asked):
            if rows.any():
                total[rows] += self._of_member(pixels[rows], wanted[rows], member)
        return (total / np.maximum(asked.sum(axis=0), 1)[:, None, None]).astype(np.float32)

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
    """Maps in the pixels of the picture: bilinear between the cells' centres, constant beyond the outermost.

    Parameters
    ----------
    maps : array, shape (N, H, H)
    size : int
        Side of the picture, S.
    grid : Grid, optional
        Where cells lie; default evenly over the side.

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
    # Row x of the weights: a hat of each cell, at pixel x.
    weights = np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, 1).astype(maps.dtype)
    return weights @ maps @ weights.T


def _check(model: Classifier) -> None:
    if not model.uses_images:
        raise InputError("Grad-CAM shows where on a picture a class is read, and this model reads catalogue features; "
                         "give one that was trained on images")  # fmt: skip


def _side(model: Classifier) -> int:
    return model.config.image_size


def _chosen(there: list[Layer], name: str | None, backbone: str) -> Layer:
    """The layer of this name, or the deepest that shows anything."""
    listed = ", ".join(f"{one.name} ({one.grid.cells}×{one.grid.cells})" for one in there)
    if not there:
        raise InputError(f"backbone {backbone} names no layer that has a map; Grad-CAM can't explain it")
    if name is None:
        return next((one for one in reversed(there) if one.grid.cells >= _CELLS), there[0])
    for one in there:
        if one.name == name:
            return one
    raise InputError(f"no layer {name!r} with a map in backbone {backbone}; there are: {listed}")
