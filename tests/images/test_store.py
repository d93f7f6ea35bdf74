"""Many images: in memory, or decoded on demand."""

import os

import numpy as np
import pytest
import simplejpeg

from truemorph.config import TrainingConfig
from truemorph.errors import InputError, TruemorphError
from truemorph.images.decode import load_image
from truemorph.images.sersic import measure_sersic
from truemorph.images.store import ImageFiles

SMALL = TrainingConfig(image_size=16, crop=1.0)


def jpegs(folder, n, bad=()):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.jpg" for i in range(n)]
    for i, path in enumerate(paths):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        path.write_bytes(b"broken" if i in bad else simplejpeg.encode_jpeg(pixels))
    return paths


def test_few_unreadable_images_are_skipped_and_listed_and_files_on_demand_give_the_same_pixels(tmp_path):
    paths = jpegs(tmp_path / "images", 60, bad=(4,))
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would not end
    paths.append(tmp_path / "pipe.jpg")
    files, rows = ImageFiles(paths, SMALL), np.array([3, 1, 1, 40])
    pixels, good, problems = files.load()
    assert np.flatnonzero(~good).tolist() == [4, 60]
    assert [path for path, _ in problems] == [str(paths[4]), str(paths[60])]
    assert "not a regular file" in problems[1][1]
    np.testing.assert_array_equal(pixels[3], load_image(paths[3], SMALL))
    np.testing.assert_array_equal(files[rows], pixels[rows])
    assert files.load(memory=100)[2] == problems
    with pytest.raises(TruemorphError, match=r"4\.jpg"):
        files[np.array([4])]
    assert measure_sersic([tmp_path / "pipe.jpg"], jobs=1)["flag"].item() == 2


def test_too_few_readable_images_raise_an_error(tmp_path):
    with pytest.raises(InputError, match="3 of 50 images can't be read, more than 5%"):
        ImageFiles(jpegs(tmp_path, 50, bad=(1, 2, 3)), SMALL).load()
