"""Explanations of galaxies: means by predicted class, members, radii, and differences between models."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from explain.conftest import model_of, pictures
from truemorph import Asked, GradCam, read_tree
from truemorph.errors import InputError
from truemorph.explain.catalogue import with_radii
from truemorph.explain.gradcam import upsampled
from truemorph.explain.profiles import radial_profiles
from truemorph.explain.study import PIXELS, RADII, Galaxies, compare, explain, galaxies_of

N = 24


def source_of(pixels, batch=N):
    """A source of galaxies 0, 1, ... in batches."""
    rows = pl.DataFrame({"object_id": np.arange(len(pixels))})
    return lambda config: [
        Galaxies(rows[start : start + batch], pixels[start : start + batch]) for start in range(0, len(pixels), batch)
    ]


@pytest.fixture(scope="module")
def model():
    # The first member was trained on galaxies of fold 1, the second on those of fold 0.
    seen = [(k, "out_of_fold", k % 2) for k in range(6)] + [(6, "early_stopping", -1)]
    return model_of(members=2, seen=seen)


def test_means_use_galaxies_of_a_predicted_class_and_members_that_did_not_see_them(model):
    pixels = pictures(N)
    found = explain({"a": model}, source_of(pixels, batch=5), rings=8)["a"]
    fold = np.array([0, 1, 0, 1, 0, 1] + [-1] * (N - 6))
    by_member = np.stack([model.member_probabilities(pixels, member) for member in (0, 1)])
    p = np.where((fold < 0)[:, None], by_member.mean(axis=0), by_member[fold.clip(0), np.arange(N)])
    predicted = p.argmax(axis=1)
    assert 0 < predicted.sum() < N
    cam = GradCam(model)
    maps = upsampled(cam.maps(pixels, predicted, fold), 64, cam.grid)
    assert (found.galaxies, found.layer, found.cells, found.image_size) == (N, "layer2", 8, 64)
    for k, one in enumerate(found.classes):
        mine = maps[predicted == k]
        assert one.name == model.classes[k]
        assert one.table["object_id"].to_list() == np.flatnonzero(predicted == k).tolist()
        np.testing.assert_allclose(one.mean.mean, mine.mean(axis=0), atol=1e-4)
        rings = one.rings[PIXELS]
        np.testing.assert_allclose(rings.profiles, radial_profiles(mine, np.linspace(0, 32, 9)), atol=1e-4)
        # Averaging maps and computing profiles commute.
        np.testing.assert_allclose(rings.average.mean, radial_profiles(one.mean.mean[None], rings.edges)[0], atol=1e-5)
    relations = [one for some in found.classes for one in some.table["relation"]]
    assert sorted(relations) == ["early_stopping"] + ["new"] * (N - 7) + ["out_of_fold"] * 6


@pytest.mark.parametrize(("crop", "radius"), [(1.0, 0.25), (0.5, 0.125)])
def test_radii_are_fractions_of_an_image_before_cropping(tmp_path, crop, radius):
    """Here two radii equal half of the cropped width, so that profiles in radii and in pixels are the same."""
    for k, picture in enumerate(pictures(8)):
        Image.fromarray(picture).save(tmp_path / f"{k}.png")
    frame = pl.DataFrame({"object_id": np.arange(9), "image": [f"{k}.png" for k in range(8)] + [None]})
    frame = frame.with_columns(radius=pl.Series([0.0, -1.0, np.nan, np.inf, None] + [radius] * 4))
    frame = with_radii(frame, "", "radius", "1")
    found = explain({"a": model_of(crop=crop)}, galaxies_of(frame, tmp_path))["a"]
    assert found.problems == [(8, "no image")]
    assert found.galaxies == 8
    for one in found.classes:
        known = np.isfinite(one.rings[RADII].profiles[:, 0])
        assert known.tolist() == (one.table["object_id"] >= 5).to_list()
        np.testing.assert_allclose(one.rings[RADII].profiles[known], one.rings[PIXELS].profiles[known], atol=1e-6)


def test_models_are_compared_on_the_same_galaxies(model):
    pixels = pictures(N)
    found = explain({"a": model, "b": model_of("test_convnext"), "again": model}, source_of(pixels))
    compared = compare(found, bootstrap=50)[PIXELS]
    pairs = compared.partition_by("first", "second", "class", as_dict=True)
    assert {names[:2] for names in pairs} == {("a", "b"), ("a", "again"), ("b", "again")}
    for k, name in enumerate(model.classes):
        same = pairs["a", "again", name]
        assert same.select((pl.col("difference", "low_95", "high_95").abs() < 1e-12).all()).row(0) == (True,) * 3
        first, second = (set(found[one].classes[k].table["object_id"]) for one in ("a", "b"))
        if first and second:
            counts = pairs["a", "b", name].select(pl.col("^galaxies_.*$")).row(0)
            assert counts == (len(first), len(second), len(first & second))
    # Pixels of images with different sizes are not compared.
    small = explain({"small": model_of(size=32)}, source_of(pictures(N, 32)))
    assert compare({"a": found["a"], **small}) == {}


def test_one_galaxy_is_explained_and_none_raises_an_error(model):
    found = explain({"a": model}, source_of(pictures(1)))["a"]
    empty, one = sorted(found.classes, key=lambda some: some.galaxies)
    assert one.rings[PIXELS].average.count.tolist() == [1] * 16
    assert np.isnan([one.mean.stderr, empty.mean.mean]).all()

    broken = Galaxies(pl.DataFrame({"object_id": []}), pictures(0), [(5, "the file is empty")])
    with pytest.raises(InputError, match="5, the file is empty"):
        explain({"a": model}, lambda config: [broken])


def test_classes_of_questions_are_explained_by_name():
    model = model_of(questions=[Asked(read_tree("gz2"), one) for one in ("bar", "spiral")])
    pixels, (bar, spiral) = pictures(N), model.heads
    p = model.probabilities(pixels)
    barred = np.flatnonzero(p[:, bar.part].argmax(axis=1) == bar.classes.index("bar"))
    assert 0 < barred.size < N
    (one,) = explain({"a": model}, source_of(pixels, batch=7), classes=["bar"])["a"].classes
    assert (one.name, one.table["object_id"].to_list()) == ("bar", barred.tolist())
    cam = GradCam(model)
    maps = upsampled(cam.maps(pixels[barred], model.classes.index("bar")), 64, cam.grid)
    np.testing.assert_allclose(one.mean.mean, maps.mean(axis=0), atol=1e-4)
    every = explain({"a": model}, source_of(pixels))["a"]
    assert sum(one.galaxies for one in every.classes[bar.part]) == N
    assert sum(one.galaxies for one in every.classes[spiral.part]) == N
    with pytest.raises(InputError):
        explain({"a": model}, source_of(pixels), classes=["ring"])
