"""The first convolution is exact in bf16, and equals the convolution of normalised pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from truemorph.classifiers.engines.conversion import WholeNumbers
from truemorph.classifiers.network import GalaxyNetwork, PixelConv
from truemorph.config import training_config
from truemorph.images.transforms import normalise

COLOUR = st.tuples(*[st.floats(0, 1)] * 3)


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1), COLOUR, st.tuples(*[st.floats(0.05, 0.5)] * 3), st.integers(1, 5), st.integers(0, 3),
    st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_integers_give_the_same_result_as_normalised_pixels(seed, mean, std, kernel, padding, stride, bias):
    torch.manual_seed(seed)
    mean, std = torch.tensor(mean), torch.tensor(std)
    plain = PixelConv(3, 4, kernel, stride, padding, bias=bias)
    whole = WholeNumbers(plain, mean, std, 12)
    pixels = torch.randint(0, 256, (2, 12, 12, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = plain(normalise(pixels, mean, std))
        found = whole(pixels.permute(0, 3, 1, 2).float())
    # Float32 sums of 75 products, with pixels up to 1 / 0.05 = 20.
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_integers_are_exact_in_bf16():
    every = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    whole = WholeNumbers(PixelConv(3, 4, 3), torch.tensor([0.05, 0.4, 0.97]), torch.tensor([0.1, 0.2, 0.3]), 16)
    taken = every - whole.zero
    assert torch.equal(taken.to(torch.bfloat16).float(), taken)


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
