"""Grad-CAM maps are correct for every kind of backbone, and at the correct position."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from explain.conftest import model_of, pictures
from truemorph import Classifier, GradCam
from truemorph.errors import InputError
from truemorph.explain.gradcam import Grid, upsampled
from truemorph.images.transforms import normalise

# Backbone, image width, layer, cells, tensor layout, tokens that are not patches.
KINDS = [
    ("test_resnet", 64, "layer2", Grid(8, 1.0, 8.0), "first", 0),
    ("test_convnext", 64, "stages.1", Grid(8, 3.5, 8.0), "first", 0),
    ("test_efficientnet", 64, "blocks.2", Grid(8, 0.0, 8.0), "first", 0),
    ("test_vit", 128, "blocks.4", Grid(8, 7.5, 16.0), "tokens", 1),
    ("test_vit4", 128, "blocks.8", Grid(8, 7.5, 16.0), "tokens", 1),
    ("swin_tiny_patch4_window7_224", 64, "layers.1", Grid(8, 3.5, 8.0), "last", 0),  # merges patches
    ("levit_128s", 224, "stages.0", Grid(14, 0.0, 16.0), "tokens", 0),
]


def normalised(model, pixels):
    mean, std = (torch.tensor(model.described["normalisation"][key]) for key in ("mean", "std"))
    return normalise(torch.from_numpy(pixels), mean, std)


def by_hand(model, pixels, classes, layer, form="first", before=0):
    """Grad-CAM from its definition, with gradients of the whole network from autograd hooks."""
    network, kept = model.networks()[0], {}

    def keep(module, inputs, output):
        output.retain_grad()
        kept["output"] = output

    network.backbone.get_submodule(layer).register_forward_hook(keep)
    logits = network(normalised(model, pixels))
    logits[torch.arange(len(pixels)), torch.as_tensor(classes)].sum().backward()
    activation, gradient = kept["output"].detach(), kept["output"].grad
    if form == "tokens":
        side = round((activation.shape[1] - before) ** 0.5)
        activation, gradient = (
            torch.stack([one[:, before + k] for k in range(side**2)], dim=-1).unflatten(-1, (side, side))
            for one in (activation, gradient)
        )
    if form == "last":
        activation, gradient = (torch.einsum("bhwc->bchw", one) for one in (activation, gradient))
    weight = gradient.mean(dim=(2, 3))
    maps = torch.relu(torch.einsum("bc,bchw->bhw", weight, activation)).numpy()
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


@pytest.mark.parametrize(
    ("backbone", "size", "layer", "grid", "form", "before"),
    [pytest.param(*kind, id=kind[0], marks=() if kind[0].startswith("test_") else pytest.mark.slow) for kind in KINDS],
)
def test_maps_equal_their_definition(backbone, size, layer, grid, form, before):
    model = model_of(backbone, size)
    pixels, classes = pictures(3, size), np.array([1, 0, 1])
    cam = GradCam(model, layer)
    assert (cam.layer, cam.grid) == (layer, grid)
    got = cam.maps(pixels, classes)
    assert got.shape == (3, grid.cells, grid.cells)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_hand(model, pixels, classes, layer, form, before), atol=2e-4)
    assert got.any()
    # The hook is removed afterwards, and networks predict like the model.
    np.testing.assert_allclose(cam.member(pixels, 0), model.member_probabilities(pixels, 0), atol=1e-5)


def test_a_map_does_not_depend_on_the_batch():
    model, pixels = model_of(), pictures(70)  # more than a batch
    classes = np.arange(70) % 2
    cam = GradCam(model)
    whole = cam.maps(pixels, classes)
    parts = [cam.maps(pixels[rows], classes[rows]) for rows in np.array_split(np.arange(70), 3)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)


def test_only_members_that_did_not_see_a_galaxy_are_used():
    model, pixels = model_of(members=3), pictures(3)
    warm = replace(model, described={**model.described, "temperatures": [3.0] * 3})  # has no influence on maps
    first, second, third = (
        GradCam(Classifier(model.described, [weights], model.seen)).maps(pixels, 1) for weights in model.members
    )
    mean = (first + second + third) / 3
    got = GradCam(warm).maps(pixels, 1, [0, 2, -1])
    np.testing.assert_allclose(got, [first[0], third[1], mean[2]], atol=1e-5)
    np.testing.assert_allclose(GradCam(model).maps(pixels, 1), mean, atol=1e-5)


def test_without_evidence_for_a_class_the_map_is_zero():
    def indifferent(network):
        network.head[3].weight.data[1] = 0

    maps = GradCam(model_of(change=indifferent)).maps(pictures(3), np.array([1, 0, 1]))
    assert maps.max(axis=(1, 2)).tolist() == [0, 1, 0]


@pytest.mark.slow
def test_the_deepest_layer_with_seven_cells_is_the_default():
    assert GradCam(model_of("test_resnet", 64)).layer == "layer2"
    # As in the paper; cells are at positions given by the strides, not evenly spaced.
    cam = GradCam(model_of("resnet18", 207))
    assert (cam.layer, cam.grid) == ("layer4", Grid(7, 0.0, 32.0))
    # Patches of the last block, blocks.5, have no influence on the class token.
    assert list(GradCam(model_of("test_vit")).layers) == [f"blocks.{k}" for k in range(5)]


@pytest.mark.parametrize(
    ("backbone", "layer"), [("test_resnet", "layer3"), ("test_efficientnet", "blocks.3"), ("test_byobnet", "stages.2")]
)
def test_a_cell_depends_on_the_pixels_around_its_position(backbone, layer):
    """With uniform kernels, the gradient of a cell is centred on its position in `Grid`."""

    def even(network):
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.data.fill_(1 / module.weight[0].numel())
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.weight.data.fill_(1.0)
                module.bias.data.fill_(1.0)

    model = model_of(backbone, 128, change=even)
    cam, network, kept = GradCam(model, layer), model.networks()[0].requires_grad_(False), []
    network.backbone.get_submodule(layer).register_forward_hook(lambda module, inputs, output: kept.append(output))
    # Several images, because in max pooling only the brightest pixels have a gradient.
    picture = (torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)) + 1).requires_grad_()
    network.backbone(picture)
    kept[0][:, :, 4, 3].sum().backward()
    weight = picture.grad.abs().sum(dim=(0, 1)).numpy()
    place = np.arange(128)
    row, column = (weight.sum(axis=axis) @ place / weight.sum() for axis in (1, 0))
    # Evenly spaced cells would be wrong by 7.5 pixels (shortcuts of test_byobnet have less weight).
    assert row == pytest.approx(cam.grid.first + 4 * cam.grid.step, abs=1)
    assert column == pytest.approx(cam.grid.first + 3 * cam.grid.step, abs=1)


def test_upsampling_is_bilinear_and_keeps_the_positions_of_cells():
    maps = np.random.default_rng(0).random((3, 5, 5)).astype(np.float32)
    expected = interpolate(torch.from_numpy(maps)[None], (33, 33), mode="bilinear", align_corners=False)[0].numpy()
    np.testing.assert_allclose(upsampled(maps, 33, Grid(5, 2.8, 6.6)), expected, atol=1e-6)  # evenly spaced
    got = upsampled(maps, 64, Grid(5, 3.0, 12.0))
    np.testing.assert_allclose(got[:, 3::12, 3::12][:, :5, :5], maps, atol=1e-6)
    np.testing.assert_allclose(got[:, 9, 3], (maps[:, 0, 0] + maps[:, 1, 0]) / 2, atol=1e-6)
    np.testing.assert_array_equal(got[:, :3, :3], np.broadcast_to(maps[:, :1, :1], (3, 3, 3)))


def test_models_that_cannot_be_explained_raise_errors():
    model = model_of()
    with pytest.raises(InputError, match=r"no layer 'layer9'.*act1 \(32×32\), .*layer3 \(4×4\), layer4 \(2×2\)"):
        GradCam(model, "layer9")
    with pytest.raises(InputError, match=r"uint8 of shape \(N, 64, 64, 3\)"):
        GradCam(model).maps(pictures(2, 32), 1)
    with pytest.raises(InputError, match=r"numbers 0 to 1 \(smooth, disk\)"):
        GradCam(model).maps(pictures(2), -1)
    features = replace(model, described={**model.described, "training": {"classifier": "logistic"}})
    with pytest.raises(InputError, match="features"):
        GradCam(features)
