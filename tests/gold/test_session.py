"""Sessions: order of the galaxies, repeats, twins, and galaxies without an image."""

import shutil

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import codes
from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.gold.answers import record_answer
from truemorph.gold.plan import read_plan
from truemorph.gold.session import items_of, open_session, petrosian_radius
from truemorph.images.decode import load_image
from truemorph.simulate import CENTRAL_R90, render, simulate_galaxies


@pytest.mark.slow
@given(n=st.integers(1, 130), repeats=st.integers(0, 12), twins=st.integers(0, 12), name=st.text(min_size=1))
def test_everything_is_shown_and_the_second_time_comes_late(n, repeats, twins, name):
    galaxies = [str(k) for k in range(n)]
    items = items_of(galaxies, galaxies[:twins], repeats, 5, name)
    place = {item: k for k, item in enumerate(items)}
    assert len(place) == len(items)
    assert {galaxy for galaxy, occasion in items if occasion == "first"} == set(galaxies)
    assert {galaxy for galaxy, occasion in items if occasion == "twin"} == set(galaxies[:twins])
    again = [galaxy for galaxy, occasion in items if occasion == "repeat"]
    assert len(again) == min(repeats, n - min(50, n // 2))
    for galaxy in again:
        assert place[galaxy, "repeat"] - place[galaxy, "first"] >= min(50, n // 2)
    for galaxy in galaxies[:twins]:
        assert abs(place[galaxy, "twin"] - place[galaxy, "first"]) >= min(50, n // 2)


def test_the_part_that_is_labelled_first_is_random():
    """Probabilities of selection stay equal within strata when a person stops early."""
    galaxies, people = [str(k) for k in range(40)], 400
    early = np.zeros(40)
    for number in range(people):
        items = items_of(galaxies, galaxies[:10], 5, 3, f"person {number}")
        firsts = [galaxy for galaxy, occasion in items if occasion == "first"]
        early[[int(first) for first in firsts[:10]]] += 1
    expected, variance = people / 4, people * 0.25 * 0.75
    assert np.sum((early - expected) ** 2 / variance) < 75  # χ² of 39 degrees of freedom, 4 σ above its mean
    assert abs(early[:10].sum() - 10 * expected) < 4 * np.sqrt(10 * variance)


def test_an_order_belongs_to_a_person_and_stays_when_galaxies_are_added():
    galaxies = [str(k) for k in range(30)]
    order = items_of(galaxies, [], 0, 3, "Ann")
    assert order not in (items_of(galaxies, [], 0, 3, "Bob"), items_of(galaxies, [], 0, 4, "Ann"))
    longer = items_of([*galaxies[::-1], "new"], [], 0, 3, "Ann")
    assert [item for item in longer if item[0] != "new"] == order


def test_twins_are_degraded_copies_and_are_made_once(plan):
    session = open_session(plan, twins=8)
    table = pl.read_parquet(plan / "twins.parquet")
    alpha = read_plan(plan)[1]["alpha"]
    assert table.height == 8
    assert table["alpha"].min() > alpha.quantile(2 / 3, "lower")
    assert table["twin_alpha"].max() <= alpha.quantile(1 / 3, "higher")
    sharper, config = 0, TrainingConfig(image_size=32, crop=1.0)
    for galaxy, path in session.twins.items():
        before, after = (load_image(one, config).astype(float) for one in (session.images[galaxy], path))
        sharper += before.max() > after.max()
    assert sharper >= 7  # a wider PSF takes light from the centre
    times = [path.stat().st_mtime_ns for path in session.twins.values()]
    assert [path.stat().st_mtime_ns for path in open_session(plan).twins.values()] == times
    with pytest.raises(InputError, match="8 twins already"):
        open_session(plan, twins=9)


def test_the_petrosian_radius_of_a_picture():
    galaxies = simulate_galaxies(80, 3, confounded=False)
    truth = (galaxies["radius"] / galaxies["r90"]).to_numpy() * 64 / CENTRAL_R90
    pictures = np.stack([picture for _, picture in render(galaxies, 64, 3, field=CENTRAL_R90)])
    ratio = np.array([petrosian_radius(picture) for picture in pictures]) / truth
    assert 0 < np.median(ratio) - 1 < 0.2  # the PSF and rings of a pixel make radii larger
    assert np.std(np.log(ratio)) < 0.25
    assert petrosian_radius(np.zeros((40, 40, 3), np.uint8)) > 0


def test_galaxies_without_a_readable_image_are_listed(plan, better, ids, tmp_path):
    """Images may be named after the id."""
    images = shutil.copytree(better, tmp_path / "images")
    (images / f"{ids[0]}.jpg").write_bytes(b"\xff\xd8broken")
    session = open_session(plan, images)
    listed = pl.read_csv(plan / "left_out.csv", schema_overrides={"object_id": pl.String})
    assert set(listed["object_id"]) == {ids[0], *ids[30:]}
    assert codes(session) == ["galaxies-left-out"]
    assert {galaxy for galaxy, _ in session.items("Ann")} == set(session.images) == set(ids[1:30])


def test_a_session_is_resumed_as_it_was(plan, simulated, better, ids):
    assert open_session(plan).source == "same-images"
    assert open_session(plan, source="literature").source == "literature"
    assert open_session(plan, simulated / "images", simulated / "images").source == "better-images"
    before = open_session(plan, simulated / "images", better, twins=5)
    assert set(before.better) == set(ids[:30])
    after = open_session(plan)
    assert (after.better, after.twins, after.source) == (before.better, before.twins, "same-images")  # most have none
    assert after.items("Ann") == before.items("Ann")
    open_session(plan, source="literature")
    record_answer(plan, "Ann", ids[0], "first", "disk")
    assert open_session(plan).source == "literature"  # kept once there are answers
