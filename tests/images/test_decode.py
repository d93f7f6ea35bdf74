"""Decoding of images: the paper's crop, other formats, and broken files."""

import gzip
import io
import os
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
import torch
from astropy.io import fits
from PIL import Image

from truemorph.errors import InputError
from truemorph.images import store
from truemorph.images.decode import FitsReading, central_crop, decode, load_image
from truemorph.images.sersic import measure_sersic
from truemorph.images.store import decode_batches, load_images
from truemorph.images.transforms import normalise


def picture(size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def jpeg(pixels, **options):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=95, **options)


@pytest.mark.parametrize(("side", "kept"), [(424, 207), (212, 104), (848, 414), (100, 49)])
def test_the_crop_is_central_and_has_the_papers_ratio(side, kept):
    image = np.zeros((side, side, 3), np.uint8)
    image[side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1] = 255
    cropped = central_crop(image)
    assert cropped.shape == (kept, kept, 3)
    rows, columns = np.nonzero(cropped[..., 0])
    assert abs(rows.mean() - (kept - 1) / 2) <= 0.5
    assert abs(columns.mean() - (kept - 1) / 2) <= 0.5


def test_a_rectangle_gives_a_square():
    assert central_crop(np.zeros((100, 200, 3), np.uint8), 0.5).shape == (50, 50, 3)


def test_jpeg_is_decoded_as_pillow_does():
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[..., None] * np.array([1, 1, 1], np.uint8)
    data = jpeg(smooth)
    reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data).astype(int) - reference).max() <= 2


def test_grey_and_png_become_rgb():
    grey = jpeg(picture()[..., :1], colorspace="GRAY")
    assert decode(grey).shape == (64, 64, 3)
    buffer = io.BytesIO()
    Image.fromarray(picture()).convert("RGBA").save(buffer, "png")
    np.testing.assert_array_equal(decode(buffer.getvalue()), picture())


def test_broken_images_raise_errors_with_their_names():
    good = jpeg(picture())
    for data, says in (
        (b"", "empty"),
        (b"hello", "not a readable image"),
        (good[: len(good) // 2], "not a readable image"),
    ):
        with pytest.raises(InputError, match=f"galaxy.jpg: .*{says}"):
            decode(data, "galaxy.jpg")


def test_resize_keeps_brightness(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(picture(424)))
    assert load_image(path, 64).shape == (64, 64, 3)
    assert load_image(path, 64).mean() == pytest.approx(load_image(path, 207).mean(), abs=0.5)


def folder_of_images(tmp_path, n, bad=()):
    paths = []
    for i in range(n):
        path = tmp_path / f"{i}.jpg"
        path.write_bytes(b"broken" if i in bad else jpeg(picture(32, seed=i)))
        paths.append(path)
    return paths


def test_few_unreadable_images_are_skipped_and_listed(tmp_path):
    paths = folder_of_images(tmp_path, 50, bad=(4, 17))
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        store = load_images(paths, 16, 1.0, cache)
        assert np.flatnonzero(~store.good).tolist() == [4, 17]
        assert [path for path, _ in store.problems] == [str(paths[4]), str(paths[17])]
        np.testing.assert_array_equal(store.pixels[3], load_image(paths[3], 16, 1.0))


def test_more_than_five_percent_unreadable_images_raise_an_error(tmp_path):
    with pytest.raises(InputError, match=r"3 of 50 images can't be read, more than 5%"):
        load_images(folder_of_images(tmp_path, 50, bad=(1, 2, 3)), 16)
    with pytest.raises(InputError, match="no images"):
        load_images([], 16)


def test_batches_come_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_BATCH", 4)
    paths = folder_of_images(tmp_path, 10)
    seen = [(rows.start, rows.stop, len(images)) for rows, images in decode_batches(paths, 16, 1.0)]
    assert seen == [(0, 4, 4), (4, 8, 4), (8, 10, 2)]


def test_normalise_equals_its_formula():
    pixels = torch.from_numpy(picture()[None])
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    got = normalise(pixels, mean, std)
    expected = (pixels.permute(0, 3, 1, 2).double() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=1e-6)


def test_sixteen_bit_images_are_scaled_and_tiny_images_raise_errors(tmp_path):
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)).save(tmp_path / "grey.png")
    pixels = load_image(tmp_path / "grey.png", 64, 1.0)
    assert pixels.min() == 0
    assert pixels.max() == 255
    (tmp_path / "speck.jpg").write_bytes(jpeg(picture(4)))
    with pytest.raises(InputError, match="only 4 pixels wide"):
        load_image(tmp_path / "speck.jpg", 64, 1.0)
    with pytest.raises(InputError, match="unknown format"):
        decode(b"hello", "x")


def huge_jpeg(height, width):
    """A small JPEG file that declares a larger size."""
    data = bytearray(jpeg(picture()))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def huge_png(height, width):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def huge_fits(height, width):
    header = fits.Header([("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", width), ("NAXIS2", height)])
    return header.tostring().encode()


def huge_fits_gz(height, width):
    return gzip.compress(huge_fits(height, width))


@pytest.mark.parametrize("huge", [huge_jpeg, huge_png, huge_fits, huge_fits_gz])
def test_images_of_more_than_100_megapixels_raise_errors_before_using_memory(huge, tmp_path):
    path = tmp_path / "galaxy"
    path.write_bytes(huge(65_400, 65_500))
    with pytest.raises(InputError, match=r"galaxy.*65,500 × 65,400 pixels"):
        load_image(path, 64)
    with pytest.raises(InputError, match="megapixels"):
        decode(huge(10_001, 10_000), "galaxy", FitsReading(hdu=0))
    assert "megapixels" in measure_sersic([path], jobs=1)["problem"].item()


def test_a_gzipped_fits_file_is_checked_completely():
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.arange(1024.0).reshape(32, 32)).writeto(buffer)
    packed = bytearray(gzip.compress(buffer.getvalue()))
    assert decode(bytes(packed)).shape == (32, 32, 3)
    packed[-8] ^= 1  # its checksum
    with pytest.raises(InputError, match="not a readable image"):
        decode(bytes(packed))


def test_named_pipes_are_unreadable_images_and_do_not_block(tmp_path):
    paths = folder_of_images(tmp_path, 40)
    os.mkfifo(tmp_path / "pipe.jpg")
    for cache in (None, tmp_path / "cache"):
        store = load_images([*paths, tmp_path / "pipe.jpg"], 16, 1.0, cache)
        assert np.flatnonzero(~store.good).tolist() == [40]
    assert "not a regular file" in store.problems[0][1]
    assert measure_sersic([tmp_path / "pipe.jpg"], jobs=1)["flag"].item() == 2
