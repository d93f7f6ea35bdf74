"""The first convolution computes in float32."""

import pytest
import torch
from torch import nn

from truemorph.classifiers.network import GalaxyNetwork, PixelConv
from truemorph.config import training_config


@pytest.mark.parametrize("backbone", ["test_resnet", "convnext_atto", "vit_tiny_patch16_224"])
def test_the_first_convolution_is_found_and_computes_in_float32(backbone):
    network = GalaxyNetwork(training_config("quick", backbone=backbone, image_size=64)).eval()
    (found,) = [module for module in network.modules() if isinstance(module, PixelConv)]
    assert found is next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found_in_bf16 = found(images)
    with torch.no_grad():
        assert torch.equal(found_in_bf16, found(images))
