"""Explanations of a catalogue: averages, members and orientation."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from explain.conftest import model_of, pictures
from truemorph.errors import InputError
from truemorph.explain.catalogue import ANGLE, RADIUS
from truemorph.explain.gradcam import GradCam, upsampled
from truemorph.explain.profiles import radial_profiles
from truemorph.explain.study import PIXELS, RADII, Galaxies, compare, explain, galaxies_of
from truemorph.images.shapes import measure_shapes

N = 24


def source_of(pixels, batch=N, **columns):
    def source(config):
        for start in range(0, len(pixels), batch):
            rows = slice(start, start + batch)
            ids = pl.Series("object_id", np.arange(len(pixels))[rows])
            yield Galaxies(ids, pixels[rows], **{name: values[rows] for name, values in columns.items()})

    return source


def ellipses(angles, size=64, long=14.0, short=5.0):
    axis = np.arange(size) - (size - 1) / 2
    along = axis[None, None, :] * np.cos(angles)[:, None, None] + axis[None, :, None] * np.sin(angles)[:, None, None]
    across = axis[None, :, None] * np.cos(angles)[:, None, None] - axis[None, None, :] * np.sin(angles)[:, None, None]
    light = 20 + 200 * np.exp(-((along / long) ** 2) / 2 - (across / short) ** 2 / 2)
    noise = np.random.default_rng(0).normal(0, 2, light.shape)
    return np.repeat(np.clip(light + noise, 0, 255).astype(np.uint8)[..., None], 3, axis=3)


@pytest.fixture(scope="module")
def model():
    # The first member was trained on galaxies of fold 1, the second on those of fold 0.
    seen = [(k, "out_of_fold", k % 2) for k in range(6)] + [(6, "early_stopping", -1)]
    return model_of(members=2, seen=seen)


def test_means_use_galaxies_of_a_predicted_class_and_members_that_did_not_see_them(model):
    pixels = pictures(N)
    found = explain({"a": model}, source_of(pixels), rings=8)["a"]
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
        assert one.ids.to_list() == np.flatnonzero(predicted == k).tolist()
        np.testing.assert_allclose(one.mean.mean, mine.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(one.mean.stderr, mine.std(axis=0, ddof=1) / np.sqrt(len(mine)), atol=1e-5)
        rings = one.rings[PIXELS]
        np.testing.assert_allclose(rings.profiles, radial_profiles(mine, np.linspace(0, 32, 9)), atol=1e-5)
        # Averaging maps and computing profiles commute.
        np.testing.assert_allclose(rings.mean, radial_profiles(one.mean.mean[None], rings.edges)[0], atol=1e-5)
        assert one.aligned is None
    relations = [one for some in found.classes for one in some.relations]
    assert sorted(relations) == ["early_stopping"] + ["new"] * (N - 7) + ["out_of_fold"] * 6


def test_the_batch_size_has_no_effect(model):
    pixels = pictures(N)
    radius = np.linspace(8, 20, N)
    whole, parts = (explain({"a": model}, source_of(pixels, batch, radius=radius), align=True)["a"] for batch in (N, 5))
    for one, other in zip(whole.classes, parts.classes, strict=True):
        assert one.ids.to_list() == other.ids.to_list()
        np.testing.assert_allclose(one.mean.mean, other.mean.mean, atol=1e-4)
        np.testing.assert_allclose(one.aligned.mean, other.aligned.mean, atol=1e-4)
        for unit in (PIXELS, RADII):
            np.testing.assert_allclose(one.rings[unit].profiles, other.rings[unit].profiles, atol=1e-3)


def test_position_angles_are_measured_on_images_if_not_given():
    angles = np.radians([0, 25, 60, 89, 120, 155])
    measured = measure_shapes(ellipses(angles))["angle"].to_numpy()
    # Modulo 180°; moments of some hundred pixels above the noise.
    assert np.abs((measured - angles + np.pi / 2) % np.pi - np.pi / 2).max() < np.radians(2)


def test_a_catalogues_angles_are_from_north_through_east(tmp_path):
    """North is up and east is left: a position angle of 30° is towards the upper left."""
    position_angles = np.array([0.0, 30, 80, 140])
    up, left = np.cos(np.radians(position_angles)), np.sin(np.radians(position_angles))
    for k, one in enumerate(ellipses(np.arctan2(-up, -left))):
        Image.fromarray(one).save(tmp_path / f"{k}.png")
    frame = pl.DataFrame(
        {"object_id": np.arange(5), "image": [f"{k}.png" for k in range(4)] + [None], ANGLE: [*position_angles, 5.0]}
    ).with_columns(pl.lit(0.25).alias(RADIUS))
    config = model_of().config
    (some,) = galaxies_of(frame, tmp_path)(config)
    assert some.problems == [(4, "no image")]
    measured = measure_shapes(some.pixels)["angle"].to_numpy()
    assert np.abs((some.angle - measured + np.pi / 2) % np.pi - np.pi / 2).max() < np.radians(2)
    np.testing.assert_allclose(some.radius, 0.25 * 64)
    # A quarter of the width is half of the half width.
    (cropped,) = galaxies_of(frame, tmp_path)(config.model_copy(update={"crop": 0.5}))
    np.testing.assert_allclose(cropped.radius, 0.5 * 64)


def test_aligned_means_leave_out_galaxies_without_an_angle_or_a_radius(model):
    pixels = pictures(N)
    angle, radius = np.zeros(N), np.full(N, 16.0)  # two radii equal the half width, so nothing changes
    angle[:4], radius[4:8] = np.nan, [0, -1, np.nan, np.nan]
    found = explain({"a": model}, source_of(pixels, angle=angle, radius=radius), align=True)["a"]
    whole = explain({"a": model}, source_of(pixels[8:]))["a"]
    assert found.angles == "given"
    assert sum(one.aligned.count.max() for one in found.classes) == N - 8
    assert sum(int(one.rings[RADII].counts[0]) for one in found.classes) == N - 4
    assert sum(one.galaxies for one in found.classes) == N
    assert whole.galaxies == N - 8


def test_models_are_compared_on_the_same_galaxies(model):
    pixels = pictures(N)
    other = model_of("test_convnext")
    found = explain({"a": model, "b": other, "again": model}, source_of(pixels))
    compared = {(one.first, one.second, one.name): one for one in compare(found, bootstrap=50)}
    for name in model.classes:
        same = compared["a", "again", name]
        np.testing.assert_array_equal(same.difference, 0)
        np.testing.assert_allclose(same.limits[0.95], 0, atol=1e-12)
    assert {(first, second) for first, second, _ in compared} == {("a", "b"), ("a", "again"), ("b", "again")}
    one = next(iter(compared.values()))
    ids = [set(found[name].classes[0].ids) for name in ("a", "b")]
    if compared.get(("a", "b", "smooth")):
        assert compared["a", "b", "smooth"].galaxies == (len(ids[0]), len(ids[1]), len(ids[0] & ids[1]))
    assert one.edges[-1] == 32
    # Pixels of images with different sizes are not compared.
    small = explain({"small": model_of(size=32)}, source_of(pictures(N, 32)))
    assert compare({"a": found["a"], **small}) == []


def test_empty_maps_are_counted():
    def indifferent(network):
        network.head[3].weight.data[:] = 0

    found = explain({"a": model_of(change=indifferent)}, source_of(pictures(3)))["a"]
    smooth, disk = found.classes
    assert (smooth.galaxies + disk.galaxies, int(smooth.blank.sum() + disk.blank.sum())) == (3, 3)
    assert not np.nan_to_num(smooth.mean.mean).any()


def test_one_galaxy_is_explained_and_none_raises_an_error(model):
    found = explain({"a": model}, source_of(pictures(1)))["a"]
    one = next(some for some in found.classes if some.galaxies)
    empty = next(some for some in found.classes if not some.galaxies)
    assert np.isnan(one.mean.stderr).all()
    assert one.rings[PIXELS].counts.tolist() == [1] * 16
    assert np.isnan(empty.mean.mean).all()
    assert empty.rings[PIXELS].profiles.shape == (0, 16)

    def broken(config):
        yield Galaxies(pl.Series("object_id", [], dtype=pl.Int64), pictures(0), problems=[(5, "the file is empty")])

    with pytest.raises(InputError, match=r"no galaxy has a readable image \(first: 5, the file is empty\)"):
        explain({"a": model}, broken)
    features = replace(model, described={**model.described, "training": {"classifier": "logistic"}})
    with pytest.raises(InputError, match="uses catalogue features"):
        explain({"a": model, "b": features}, source_of(pictures(1)))
