"""The pixel cache (built once, named by a hash, safe when interrupted), and FITS images."""

import io
import itertools
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from astropy.io import fits

from truemorph.errors import InputError, TruemorphError
from truemorph.images import decode as decode_module
from truemorph.images import store as store_module
from truemorph.images.decode import FitsReading, decode, load_image
from truemorph.images.store import ImageFiles, load_images


def jpegs(folder, n, seed=0):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(n):
        path = folder / f"{i}.jpg"
        path.write_bytes(simplejpeg.encode_jpeg(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)))
        paths.append(path)
    return paths


def places(cache):
    return sorted(one.name for one in Path(cache).iterdir() if one.is_dir())


def test_a_cache_has_the_decoded_pixels_and_is_built_once(tmp_path, monkeypatch):
    paths = jpegs(tmp_path / "images", 30)
    fresh = load_images(paths, 16, 1.0)
    cached = load_images(paths, 16, 1.0, tmp_path / "cache")
    np.testing.assert_array_equal(cached.pixels, fresh.pixels)
    monkeypatch.setattr(decode_module, "load_image", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(load_images(paths, 16, 1.0, tmp_path / "cache").pixels, fresh.pixels)
    # Files with the same content in another folder are the same images.
    elsewhere = [path.rename(tmp_path / f"other{path.name}") for path in paths]
    np.testing.assert_array_equal(load_images(elsewhere, 16, 1.0, tmp_path / "cache").pixels, fresh.pixels)


def test_other_contents_sizes_and_settings_have_other_caches(tmp_path):
    paths = jpegs(tmp_path / "images", 5)
    cache = tmp_path / "cache"
    load_images(paths, 16, 1.0, cache)
    load_images(paths, 16, 0.5, cache)
    load_images(paths, 20, 1.0, cache)
    load_images(paths, 16, 1.0, cache, FitsReading(stretch="linear"))
    load_images(paths[::-1], 16, 1.0, cache)
    assert len(places(cache)) == 5
    paths[2].write_bytes(simplejpeg.encode_jpeg(np.zeros((24, 24, 3), np.uint8)))
    changed = load_images(paths, 16, 1.0, cache)
    assert len(places(cache)) == 6
    assert changed.pixels[2].max() == 0


def build_and_stop(paths, cache, stopped):
    """Build a cache up to the 30th image, send a signal, and wait to be killed."""
    read, numbers = decode_module.load_image, itertools.count()

    def reading(*arguments):
        if next(numbers) == 30:
            stopped.set()
        if stopped.is_set():
            threading.Event().wait()
        return read(*arguments)

    decode_module.load_image = reading
    store_module._BATCH = 4
    load_images(paths, 16, 1.0, cache)


def build_together(paths, cache, together):
    together.wait()
    load_images(paths, 16, 1.0, cache)


def test_an_interrupted_build_is_not_used(tmp_path):
    paths = jpegs(tmp_path / "images", 60)
    cache = tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    stopped = context.Event()
    builder = context.Process(target=build_and_stop, args=(paths, cache, stopped))
    builder.start()
    stopped.wait()
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    again = load_images(paths, 16, 1.0, cache)
    np.testing.assert_array_equal(again.pixels, load_images(paths, 16, 1.0).pixels)


def test_two_processes_share_one_build(tmp_path):
    paths = jpegs(tmp_path / "images", 40)
    cache = tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    together = context.Barrier(2)
    builders = [context.Process(target=build_together, args=(paths, cache, together)) for _ in range(2)]
    for one in builders:
        one.start()
    for one in builders:
        one.join()
        assert one.exitcode == 0
    assert len(places(cache)) == 1
    np.testing.assert_array_equal(load_images(paths, 16, 1.0, cache).pixels, load_images(paths, 16, 1.0).pixels)


def test_a_full_disk_raises_an_error_before_decoding(tmp_path, monkeypatch):
    paths = jpegs(tmp_path / "images", 3)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "posix_fallocate", full)
    with pytest.raises(TruemorphError, match="No space left on device"):
        load_images(paths, 16, 1.0, tmp_path / "cache")


def test_files_decoded_on_demand_give_the_same_pixels(tmp_path):
    paths = jpegs(tmp_path / "images", 50)
    files = ImageFiles(paths, 16, 1.0)
    rows = np.array([3, 1, 1, 40])
    np.testing.assert_array_equal(files[rows], load_images(paths, 16, 1.0).pixels[rows])
    paths[7].write_bytes(b"broken")
    good, problems = files.check()
    assert np.flatnonzero(~good).tolist() == [7]
    assert problems[0][0] == str(paths[7])
    with pytest.raises(TruemorphError, match=r"7\.jpg"):
        files[np.array([7])]


def fits_bytes(*units):
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(buffer)
    return buffer.getvalue()


def blob(noise=1.0, seed=0):
    y, x = np.mgrid[:32, :32] - 16
    return 100 * np.exp(-np.hypot(x, y - 5) / 3) + np.random.default_rng(seed).normal(0, noise, (32, 32))


@pytest.mark.parametrize("stretch", ["asinh", "linear", "sqrt", "log"])
def test_fits_images_become_grey_images_with_north_up(stretch):
    data = blob()
    picture = decode(fits_bytes(fits.ImageHDU(data.astype(np.float32))), fits=FitsReading(stretch=stretch))
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
    picture = decode(fits_bytes(fits.ImageHDU(data)), fits=FitsReading(limits=(0.0, 50.0)))
    expected = 255 * np.clip(np.arcsinh(np.clip(data / 50, 0, None) / 0.1) / np.arcsinh(10), 0, 1)
    np.testing.assert_allclose(np.flip(picture[..., 0], axis=0), expected, atol=1.01)


def test_three_bands_keep_their_hue():
    data = blob(0)
    cube = fits_bytes(fits.ImageHDU(np.stack([2 * data, data, data / 2]), name="RGB"))
    picture = decode(cube, fits=FitsReading(hdu="RGB", limits=(0.0, 400.0))).astype(float)
    bright = picture[..., 2] > 20
    np.testing.assert_allclose(picture[bright, 0] / picture[bright, 1], 2, atol=0.06)


@pytest.mark.parametrize(
    ("units", "reading", "says"),
    [
        ([], FitsReading(), "no image in any HDU"),
        ([fits.ImageHDU(blob())], FitsReading(hdu="SCI"), "no HDU 'SCI'; there are PRIMARY, 1"),
        ([fits.ImageHDU(np.zeros((5, 8, 8)))], FitsReading(), r"found shape \(5, 8, 8\)"),
        ([fits.ImageHDU(np.full((8, 8), np.nan))], FitsReading(), "no finite pixel"),
        ([fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])], FitsReading(hdu=1), "found no image"),
    ],
)
def test_fits_files_without_an_image_raise_errors(units, reading, says):
    with pytest.raises(InputError, match=says):
        decode(fits_bytes(*units), "a.fits", reading)


def test_fits_files_are_read_like_others(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(fits_bytes(fits.ImageHDU(np.where(blob() > 90, np.nan, blob()))))
    assert load_image(path, 16, 1.0).shape == (16, 16, 3)
    flat = tmp_path / "flat.fits"
    flat.write_bytes(fits_bytes(fits.ImageHDU(np.ones((16, 16)))))
    assert load_image(flat, 16, 1.0).max() == 0
