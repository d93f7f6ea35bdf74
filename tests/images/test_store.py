"""Many images: in memory, from a cache (built once, named by a hash, safe when interrupted), or decoded on demand."""

import itertools
import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest
import simplejpeg

from truemorph.config import TrainingConfig
from truemorph.errors import InputError, TruemorphError
from truemorph.images import decode as decode_module
from truemorph.images import store as store_module
from truemorph.images.decode import load_image
from truemorph.images.store import ImageFiles

SMALL = TrainingConfig(image_size=32, crop=1.0)


def jpegs(folder, n, bad=()):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.jpg" for i in range(n)]
    for i, path in enumerate(paths):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        path.write_bytes(b"broken" if i in bad else simplejpeg.encode_jpeg(pixels))
    return paths


def places(cache):
    return sorted(one.name for one in cache.iterdir() if one.is_dir())


def test_few_unreadable_images_are_skipped_and_listed_and_files_on_demand_give_the_same_pixels(tmp_path):
    paths = jpegs(tmp_path / "images", 60, bad=(4,))
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would not end
    paths.append(tmp_path / "pipe.jpg")
    files, rows = ImageFiles(paths, SMALL), np.array([3, 1, 1, 40])
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        pixels, bad = files.load(cache)
        assert list(bad) == [4, 60]
        assert "not a regular file" in bad[60]
        np.testing.assert_array_equal(pixels[3], load_image(paths[3], SMALL))
        np.testing.assert_array_equal(files[rows], pixels[rows])
    assert files.load(memory=100)[1] == bad
    with pytest.raises(TruemorphError, match=r"4\.jpg"):
        files[np.array([4])]


def test_too_few_readable_images_raise_an_error(tmp_path):
    with pytest.raises(InputError, match="3 of 50 images can't be read, more than 5%"):
        ImageFiles(jpegs(tmp_path, 50, bad=(1, 2, 3)), SMALL).load()


def test_a_cache_is_built_once_for_the_same_files_and_settings(tmp_path, monkeypatch):
    paths, cache = jpegs(tmp_path / "images", 5), tmp_path / "cache"
    fresh, _ = ImageFiles(paths, SMALL).load()
    for other in ({"crop": 0.5}, {"image_size": 40}, {"fits_stretch": "linear"}):
        ImageFiles(paths, SMALL.model_copy(update=other)).load(cache)
    ImageFiles(paths[::-1], SMALL).load(cache)
    np.testing.assert_array_equal(ImageFiles(paths, SMALL).load(cache)[0], fresh)
    assert len(places(cache)) == 5
    with monkeypatch.context() as patch:
        patch.setattr(decode_module, "load_image", lambda *_: pytest.fail("decoded again"))
        np.testing.assert_array_equal(ImageFiles(paths, SMALL).load(cache)[0], fresh)
    paths[2].write_bytes(simplejpeg.encode_jpeg(np.zeros((24, 24, 3), np.uint8)))
    assert ImageFiles(paths, SMALL).load(cache)[0][2].max() == 0


def build_and_stop(paths, cache, stopped):
    """Build a cache up to the 30th image, and wait to be killed."""
    read, numbers = decode_module.load_image, itertools.count()

    def reading(*arguments):
        if next(numbers) == 30:
            stopped.set()
        if stopped.is_set():
            threading.Event().wait()
        return read(*arguments)

    decode_module.load_image = reading
    ImageFiles(paths, SMALL).load(cache)


def test_an_interrupted_build_is_not_used_and_two_processes_share_the_next(tmp_path):
    paths, cache = jpegs(tmp_path / "images", 60), tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    stopped = context.Event()
    interrupted = context.Process(target=build_and_stop, args=(paths, cache, stopped))
    interrupted.start()
    stopped.wait()
    os.kill(interrupted.pid, signal.SIGKILL)
    interrupted.join()
    builders = [context.Process(target=ImageFiles(paths, SMALL).load, args=(cache,)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for one in builders:
        one.join()
        assert one.exitcode == 0
    assert len(places(cache)) == 1
    np.testing.assert_array_equal(ImageFiles(paths, SMALL).load(cache)[0], ImageFiles(paths, SMALL).load()[0])


def test_a_full_disk_raises_an_error_before_decoding(tmp_path, monkeypatch):
    paths = jpegs(tmp_path / "images", 3)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "posix_fallocate", full)
    with pytest.raises(TruemorphError, match="No space left on device"):
        ImageFiles(paths, SMALL).load(tmp_path / "cache")
