"""A small network with random weights, and images in all kinds of containers."""

import io
import tarfile
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from conftest import stripes
from truemorph import load
from truemorph.classifiers.checkpoint import save_classifier
from truemorph.classifiers.engines import engine_for
from truemorph.images.decode import load_image
from truemorph.labelling import sources

from explain.conftest import model_of  # isort: skip


@pytest.fixture(scope="module", autouse=True)
def engine_torch():
    """Here engine "auto" is OpenVINO, as for users without a GPU."""


@pytest.fixture(scope="session")
def image_model(tmp_path_factory):
    """Path of a model of two members; galaxies "g03" and "g04" are in its folds."""
    seen = pl.DataFrame({"object_id": ["g03", "g04"], "role": ["out_of_fold"] * 2, "fold": [0, 1]})
    model = replace(model_of(size=32, members=2), seen=seen)
    return save_classifier(model, tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def model(image_model):
    return load(image_model)


@pytest.fixture(scope="session")
def pictures():
    """Contents of JPEG files by id."""
    pixels, content = stripes(60)[0].inputs, {}
    for number, one in enumerate(np.repeat(np.repeat(pixels, 2, axis=1), 2, axis=2)):
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "JPEG", quality=95)
        content[f"g{number:02d}"] = buffer.getvalue()
    return content


@pytest.fixture(scope="session")
def expected(image_model, pictures, tmp_path_factory):
    """p(disk) of each image by the engine alone, in float32, out of fold for training galaxies."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{name}.jpg" for name in pictures]
    for path, content in zip(paths, pictures.values(), strict=True):
        path.write_bytes(content)
    model = load(image_model)
    engine, pixels = engine_for(model, precision="fp32"), np.stack([load_image(path, model.config) for path in paths])
    by_member = [dict(zip(pictures, engine.member(pixels, member)[:, 1], strict=True)) for member in range(2)]
    p = {name: (by_member[0][name] + by_member[1][name]) / 2 for name in pictures}
    return p | {name: by_member[fold][name] for fold, name in enumerate(("g03", "g04"))}


@pytest.fixture
def folder(pictures, tmp_path, monkeypatch):
    """A folder of the images, which is labelled in parts of 16."""
    monkeypatch.setattr(sources, "PART_ROWS", 16)
    return write_folder(tmp_path / "images", pictures)


def write_tar(path, content, mode="w"):
    """A tar file as in WebDataset: images, each with another file."""
    with tarfile.open(path, mode) as tar:
        for name, data in content.items():
            for ending, what in (("jpg", data), ("json", b"{}")):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(what)
                tar.addfile(member, io.BytesIO(what))
    return path


def write_folder(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / f"{name}.jpg").write_bytes(data)
    return folder


def tars(content, folder, copies):
    """A folder of small tar files, each a part."""
    folder.mkdir()
    for copy in range(copies):
        write_tar(folder / f"{copy:03d}.tar", {f"{copy:03d}-{name}": data for name, data in content.items()})
    return folder
