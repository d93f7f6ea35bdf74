"""Decoding of images: the paper's crop, JPEG, PNG and FITS, and broken files."""

import gzip
import io
import os
import struct

import numpy as np
import pytest
import simplejpeg
import torch
from astropy.io import fits
from PIL import Image

from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.images.decode import central_crop, decode, load_image
from truemorph.images.transforms import normalise


def picture(size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def jpeg(pixels, **options):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=95, **options)


def png(pixels, mode=None):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize(("side", "kept"), [(424, 207), (212, 104), (848, 414), (100, 49)])
def test_the_crop_is_central_and_has_the_papers_ratio(side, kept):
    image = np.zeros((side, side + 20, 3), np.uint8)
    image[side // 2 - 1 : side // 2 + 1, side // 2 + 9 : side // 2 + 11] = 255
    cropped = central_crop(image, TrainingConfig().crop)
    assert cropped.shape == (kept, kept, 3)
    rows, columns = np.nonzero(cropped[..., 0])
    assert abs(rows.mean() - (kept - 1) / 2) <= 0.5
    assert abs(columns.mean() - (kept - 1) / 2) <= 0.5


def test_jpeg_is_decoded_as_pillow_does():
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    data = jpeg(np.stack([ramp, ramp // 2, 200 - ramp], axis=2))
    reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data).astype(int) - reference).max() <= 2
    small, paper = (load_image(jpeg(picture(424)), TrainingConfig(image_size=size)) for size in (64, 207))
    assert small.mean() == pytest.approx(paper.mean(), abs=0.5)  # resizing keeps the brightness


def test_grey_and_opaque_images_become_rgb():
    assert decode(jpeg(picture()[..., :1], colorspace="GRAY")).shape == (64, 64, 3)
    np.testing.assert_array_equal(decode(png(picture(), "RGBA")), picture())


def test_broken_and_tiny_images_raise_errors_with_their_names(tmp_path):
    good = jpeg(picture())
    for data, says in ((b"", "empty"), (b"hello", "unknown format"), (good[: len(good) // 2], "not a readable image")):
        with pytest.raises(InputError, match=f"galaxy.jpg: .*{says}"):
            decode(data, "galaxy.jpg")
    (tmp_path / "speck.jpg").write_bytes(jpeg(picture(4)))
    with pytest.raises(InputError, match=r"speck.jpg: only 4 pixels wide"):
        load_image(tmp_path / "speck.jpg", TrainingConfig(crop=1.0))


def test_no_program_is_run_for_an_image(tmp_path, monkeypatch):
    """Pillow gives EPS files, whatever their names, to Ghostscript."""
    program, traces = tmp_path / "gs", tmp_path / "traces"
    program.write_text(f"#!/bin/sh\ntouch {traces}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(InputError, match="unknown format"):
        decode(content, "galaxy.jpg")
    assert not traces.exists()


def test_normalise_equals_its_formula():
    pixels = torch.from_numpy(picture()[None])
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    got = normalise(pixels, mean, std)
    expected = (pixels.permute(0, 3, 1, 2).double() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=1e-6)


def huge_jpeg(height, width):
    """A small JPEG file that declares a larger size."""
    data = bytearray(jpeg(picture()))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def huge_fits(height, width):
    header = fits.Header([("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", width), ("NAXIS2", height)])
    return gzip.compress(header.tostring().encode())


@pytest.mark.parametrize("huge", [huge_jpeg, huge_fits])
def test_images_of_more_than_100_megapixels_raise_errors_before_using_memory(huge, tmp_path):
    path = tmp_path / "galaxy"
    path.write_bytes(huge(65_400, 65_500))
    with pytest.raises(InputError, match=r"galaxy: not a readable image \(.*pixels"):
        load_image(path, TrainingConfig())
    with pytest.raises(InputError, match="pixels"):
        decode(huge(10_001, 10_000), "galaxy", TrainingConfig(fits_hdu=0))


def fits_bytes(*units):
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(buffer)
    return buffer.getvalue()


def blob(noise=1.0, seed=0):
    y, x = np.mgrid[:32, :32] - 16
    return 100 * np.exp(-np.hypot(x, y - 5) / 3) + np.random.default_rng(seed).normal(0, noise, (32, 32))


def test_a_gzipped_fits_file_is_checked_completely():
    packed = bytearray(gzip.compress(fits_bytes(fits.ImageHDU(blob()))))
    assert decode(bytes(packed)).shape == (32, 32, 3)
    packed[-8] ^= 1  # its checksum
    with pytest.raises(InputError):
        decode(bytes(packed))


@pytest.mark.parametrize("stretch", ["asinh", "linear", "sqrt", "log"])
def test_fits_images_become_grey_images_with_north_up(stretch):
    data = blob()
    picture = decode(fits_bytes(fits.ImageHDU(data.astype(np.float32))), fits=TrainingConfig(fits_stretch=stretch))
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[..., 0], picture[..., 2])
    # FITS rows start at the bottom: the blob at FITS row 21 is in row 10 from the top.
    assert np.nonzero(picture[..., 0] == 255)[0].mean() == pytest.approx(10, abs=1)
    # A stretch preserves the order of brightness.
    order = np.argsort(np.flip(data, axis=0).ravel())
    assert np.all(np.diff(picture[..., 0].ravel()[order].astype(int)) >= 0)


def test_fixed_limits_are_black_and_white_and_asinh_equals_its_formula():
    data = np.linspace(-5, 60, 32 * 32).reshape(32, 32)
    picture = decode(fits_bytes(fits.ImageHDU(data)), fits=TrainingConfig(fits_limits=(0.0, 50.0)))
    expected = 255 * np.clip(np.arcsinh(np.clip(data / 50, 0, None) / 0.1) / np.arcsinh(10), 0, 1)
    np.testing.assert_allclose(np.flip(picture[..., 0], axis=0), expected, atol=1.01)


def test_three_bands_keep_their_hue():
    data = blob(0)
    cube = fits_bytes(fits.ImageHDU(np.stack([2 * data, data, data / 2]), name="RGB"))
    picture = decode(cube, fits=TrainingConfig(fits_hdu="RGB", fits_limits=(0.0, 400.0))).astype(float)
    bright = picture[..., 2] > 20
    np.testing.assert_allclose(picture[bright, 0] / picture[bright, 1], 2, atol=0.06)


@pytest.mark.parametrize(
    ("units", "hdu", "says"),
    [
        ([], None, "found no image"),
        ([fits.ImageHDU(blob())], "SCI", "'SCI'"),
        ([fits.ImageHDU(np.zeros((5, 8, 8)))], None, r"found shape \(5, 8, 8\)"),
        ([fits.ImageHDU(np.full((8, 8), np.nan))], None, "no finite pixel"),
        ([fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])], 1, "found no image"),
    ],
)
def test_fits_files_without_an_image_raise_errors(units, hdu, says):
    with pytest.raises(InputError, match=says):
        decode(fits_bytes(*units), "a.fits", TrainingConfig(fits_hdu=hdu))


def test_unknown_pixels_and_constant_fits_images_are_black():
    image = np.where(blob() > 90, np.nan, blob())
    np.testing.assert_array_equal(np.flipud(decode(fits_bytes(fits.ImageHDU(image))))[np.isnan(image)], 0)
    assert decode(fits_bytes(fits.ImageHDU(np.ones((16, 16))))).max() == 0
