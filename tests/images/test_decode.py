"""Images: the paper's crop, other kinds of file, broken files, and how many may be broken."""

import io

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from truemorph.errors import InputError
from truemorph.images.decode import central_crop, decode, load_image
from truemorph.images.store import decode_batches, load_images
from truemorph.images.transforms import normalise


def picture(size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def jpeg(pixels, **options):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=95, **options)


@pytest.mark.parametrize(("side", "kept"), [(424, 207), (212, 104), (848, 414), (100, 49)])
def test_the_crop_is_the_papers_in_proportion_and_central(side, kept):
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


def test_broken_images_are_named():
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


def test_few_bad_images_are_skipped_counted_and_listed(tmp_path):
    paths = folder_of_images(tmp_path, 50, bad=(4, 17))
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        store = load_images(paths, 16, 1.0, cache)
        assert np.flatnonzero(~store.good).tolist() == [4, 17]
        assert [path for path, _ in store.problems] == [str(paths[4]), str(paths[17])]
        np.testing.assert_array_equal(store.pixels[3], load_image(paths[3], 16, 1.0))


def test_more_than_five_percent_bad_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"3 of 50 images are bad, more than 5%"):
        load_images(folder_of_images(tmp_path, 50, bad=(1, 2, 3)), 16)
    with pytest.raises(InputError, match="no images"):
        load_images([], 16)


def test_batches_come_in_order(tmp_path):
    paths = folder_of_images(tmp_path, 10)
    seen = [(rows.start, rows.stop, len(images)) for rows, images in decode_batches(paths, 16, 1.0, batch=4)]
    assert seen == [(0, 4, 4), (4, 8, 4), (8, 10, 2)]


def test_normalise_is_the_formula():
    pixels = torch.from_numpy(picture()[None])
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    got = normalise(pixels, mean, std)
    expected = (pixels.permute(0, 3, 1, 2).double() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=1e-6)


def test_sixteen_bits_are_scaled_and_specks_refused(tmp_path):
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)).save(tmp_path / "grey.png")
    pixels = load_image(tmp_path / "grey.png", 64, 1.0)
    assert pixels.min() == 0
    assert pixels.max() == 255
    (tmp_path / "speck.jpg").write_bytes(jpeg(picture(4)))
    with pytest.raises(InputError, match="only 4 pixels on a side"):
        load_image(tmp_path / "speck.jpg", 64, 1.0)
    with pytest.raises(InputError, match="of no known kind"):
        decode(b"hello", "x")
