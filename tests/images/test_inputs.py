"""Paths, bytes, PIL images, arrays and tensors of the same image give the same pixels."""

import io

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.images.decode import image_names, listed, pixel_batches


def picture(side=64, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def pixels(images, size=32):
    config = TrainingConfig(image_size=size, crop=0.5)
    return [one for _, found in pixel_batches(listed(images), config) for one in found]


def test_every_kind_gives_the_same_pixels(tmp_path):
    image = picture()
    Image.fromarray(image).save(tmp_path / "a.png")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    whole = np.stack([image, image])
    kinds = {
        "paths": [tmp_path / "a.png", str(tmp_path / "a.png")],
        "a path": tmp_path / "a.png",
        "column of paths": pl.Series([str(tmp_path / "a.png")]),
        "bytes": [buffer.getvalue()],
        "one file's content": buffer.getvalue(),
        "PIL": [Image.fromarray(image)] * 257,  # two batches
        "one PIL image": Image.fromarray(image),
        "array": whole,
        "floats": whole / 255,
        "tensor": torch.tensor(whole),
        "colours first": torch.tensor(whole).permute(0, 3, 1, 2),
        "tensors of floats": [torch.tensor(image).permute(2, 0, 1) / 255],
    }
    expected = image[16:48, 16:48]
    for name, images in kinds.items():
        for pixel in pixels(images):
            np.testing.assert_array_equal(pixel, expected, err_msg=name)
    # An array of images that have the network's size is not cropped.
    np.testing.assert_array_equal(pixels(whole, size=64)[1], image)
    assert image_names([tmp_path / "a.jpg", image]) == [str(tmp_path / "a.jpg"), 1]


RAMP = np.add.outer(np.arange(64), np.arange(64)) / 126  # from 0 to 1
HIDDEN = np.dstack([np.full((64, 64, 3), 200), np.where(np.arange(4096).reshape(64, 64) % 2, 255, 0)]).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "kinds", "expected"),
    [
        (Image.fromarray((65535 * RAMP).astype(np.uint16)), ("PNG", "TIFF", "PPM"), (65535 * RAMP).astype(int) // 256),
        (Image.fromarray(HIDDEN), ("PNG", "TIFF"), np.where(HIDDEN[..., 3], 200, 0)),
        (Image.fromarray(HIDDEN).convert("LA"), ("PNG",), np.where(HIDDEN[..., 3], 200, 0)),
        (Image.fromarray(RAMP.astype(np.float32)), ("TIFF",), None),
        (Image.fromarray((70_000 * RAMP).astype(np.int32)), ("TIFF",), None),
        (Image.new("CMYK", (64, 64)), ("JPEG", "TIFF"), None),
    ],
    ids=["16 bits", "transparent", "transparent grey", "floats", "32 bits", "CMYK"],
)
def test_a_file_gives_the_same_pixels_by_every_route_or_none(image, kinds, expected, tmp_path):
    for kind in kinds:
        image.save(tmp_path / "image", kind)
        with Image.open(tmp_path / "image") as opened:
            found = pixels([tmp_path / "image", (tmp_path / "image").read_bytes(), opened, image])
        for one in found:
            if expected is None:
                assert isinstance(one, str)
            else:
                np.testing.assert_array_equal(one, np.repeat(expected[16:48, 16:48, None], 3, axis=2))


def test_invalid_images_raise_errors(tmp_path):
    colour = np.zeros((40, 40, 3))
    found = pixels([np.zeros((5, 5)), colour - 1, colour.astype(np.int64), tmp_path / "absent.jpg"])
    reasons = ("(height, width, 3)", "between 0 and 1", "got int64", "No such file")
    for one, says in zip(found, reasons, strict=True):
        assert says in one
    with pytest.raises(InputError, match=r"\(N, height, width, 3\); got \(3, 20, 20\)"):
        pixels(np.zeros((3, 20, 20)))
