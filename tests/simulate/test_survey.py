"""Surveys along a decision tree: the truth is that of the images, and volunteers follow the tree."""

import numpy as np
import polars as pl
import pytest

from truemorph.errors import InputError
from truemorph.simulate.pictures import components, render
from truemorph.simulate.population import simulate_galaxies
from truemorph.simulate.survey import WORLDS, simulate_survey

N = 6_000
DISK, EDGE_ON, NOT_EDGE_ON, BAR, NO_BAR, ARMS, NO_ARMS = (
    f"t0{name}_count"
    for name in (
        "1_smooth_or_features_a02_features_or_disk", "2_edgeon_a04_yes", "2_edgeon_a05_no", "3_bar_a06_bar",
        "3_bar_a07_no_bar", "4_spiral_a08_spiral", "4_spiral_a09_no_spiral",
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def plain():
    return simulate_survey(N, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("world", ["plain", "wave"])
def test_images_have_bars_and_arms_where_the_truth_says_so(world):
    galaxies, votes = simulate_survey(60, seed=8, world=world)

    def changes(**removed):
        pairs = zip(render(galaxies, 32), render(galaxies.with_columns(**removed), 32), strict=True)
        return np.array([(one != other).any() for (_, one), (_, other) in pairs])

    np.testing.assert_array_equal(changes(bar_fraction=pl.lit(0.0)), votes["truth_bar"] == "bar")
    face_on = (votes["truth_edge_on"] == "not edge-on").to_numpy()
    np.testing.assert_array_equal(
        changes(arm_strength=pl.lit(0.0))[face_on], (votes["truth_spiral"] == "spiral arms").to_numpy()[face_on]
    )
    assert set(votes["truth_bar"]) == {"smooth", "edge-on", "no bar", "bar"}


def test_classes_of_questions_agree(plain):
    galaxies, votes = plain
    np.testing.assert_array_equal(votes["truth_bar"] == "smooth", votes["truth"] == 0)
    np.testing.assert_array_equal(votes["truth_edge_on"] == "not edge-on", votes["truth_bar"].is_in(["bar", "no bar"]))
    np.testing.assert_array_equal(votes["truth_bar"] == "edge-on", votes["truth_spiral"] == "edge-on")
    assert galaxies.equals(simulate_galaxies(N, seed=3))
    assert votes["dr7objid"].equals(galaxies["object_id"].alias("dr7objid"))


def test_volunteers_are_asked_what_follows_from_their_answers(plain):
    votes = plain[1]
    root = votes.select(pl.col("^t01.*_count$"))
    assert (root.sum_horizontal() == 40).all()
    fractions = votes.select(pl.col("^t01.*_weighted_fraction$")).to_numpy()
    np.testing.assert_array_equal(fractions, root.to_numpy() / 40)
    for some, before in (((EDGE_ON, NOT_EDGE_ON), DISK), ((BAR, NO_BAR), NOT_EDGE_ON), ((ARMS, NO_ARMS), NOT_EDGE_ON)):
        np.testing.assert_array_equal(votes[some[0]] + votes[some[1]], votes[before])
    assert (votes[NOT_EDGE_ON] == 0).any()


def half_length(galaxies):
    """Projected half length of bars, arcsec."""
    ratio, angle = galaxies["axis_ratio"].to_numpy(), galaxies["bar_angle"].to_numpy()
    length = (galaxies["bar_length"] * galaxies["unit_length"]).to_numpy()
    return length * np.sqrt(np.cos(angle) ** 2 + (ratio * np.sin(angle)) ** 2)


def test_what_volunteers_miss_depends_on_the_length_of_the_bar_in_the_image(plain):
    galaxies, votes = (one.filter((plain[1]["truth_bar"] == "bar") & (plain[1][NOT_EDGE_ON] > 4)) for one in plain)
    # The light of a bar exp(-|x/a|³ - |4y/a|³) has a variance of a² Γ(1) / Γ(1/3) along its axis.
    for row, length in zip(galaxies[:20].iter_rows(named=True), half_length(galaxies), strict=False):
        pixel = row["unit_length"] / 60
        axis = ((np.arange(400) - 199.5) * pixel).astype(np.float32)
        parts = [
            components({**row, "dust": 0.0, "bar_fraction": light}, axis, pixel, np.random.default_rng(0))[0]
            for light in (row["bar_fraction"], 0.0)
        ]
        bar = parts[0].astype(float) - parts[1]
        ratio, angle = row["axis_ratio"], row["bar_angle"]
        across = row["unit_length"] * row["bar_length"] / 4 * np.hypot(np.sin(angle), ratio * np.cos(angle))
        spread = (bar * (axis[:, None] ** 2 + axis[None, :] ** 2)).sum() / bar.sum()
        assert spread == pytest.approx((length**2 + across**2) / 2.6789385, rel=0.02)
    x = half_length(galaxies) / galaxies["psf_fwhm"].to_numpy()
    seen = votes[BAR].to_numpy() / votes[NOT_EDGE_ON].to_numpy()
    expected = 0.1 + 0.8 * (1 - np.exp(-(x**2) / (2 * 1.2**2)))
    for part in np.array_split(np.argsort(x), 6):
        spread = np.sqrt(np.mean(expected[part] * (1 - expected[part])) / part.size)
        assert abs(seen[part].mean() - expected[part].mean()) < 4.5 * spread
    # Also at the same α.
    for part in np.array_split(np.argsort(galaxies["alpha"].to_numpy())[: -len(x) // 3], 3):
        short, long = np.array_split(part[np.argsort(x[part])], 2)
        assert seen[long].mean() > seen[short].mean() + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("world", list(WORLDS)[1:])
def test_a_world_is_what_its_name_says(world, plain):
    galaxies, votes = simulate_survey(N, seed=3, world=world)
    assert galaxies.drop("bar_fraction").equals(plain[0].drop("bar_fraction"))
    truth, u = votes["truth_bar"].to_numpy(), np.log(galaxies["alpha"].to_numpy() / 15) / 0.42
    faces = np.isin(truth, ["bar", "no bar"])
    fractions = {"wave": 0.35 + 0.2 * np.sin(3 * u), "2 % bars": np.full(N, 0.02)}
    for name, slope in (("drift up", 0.5), ("drift down", -0.5)):
        fractions[name] = 0.35 / (0.35 + 0.65 * np.exp(-slope * u))
    if world in fractions:
        for part in np.array_split(np.flatnonzero(faces)[np.argsort(u[faces])], 8):
            p = fractions[world][part]
            assert abs((truth[part] == "bar").sum() - p.sum()) < 4.5 * np.sqrt(np.sum(p * (1 - p)))
    else:
        np.testing.assert_array_equal(truth, plain[1]["truth_bar"])
    asked = (votes[NOT_EDGE_ON] > 9).to_numpy()
    false = (votes[BAR] > votes[NO_BAR]).to_numpy()[(truth == "no bar") & asked].mean()
    featured = [(votes[DISK] > 20).to_numpy()[truth == one].mean() for one in ("bar", "no bar")]
    assert featured[0] - featured[1] > (0.4 if world == "gate by bar" else 0.1)
    if world == "no false bars":
        assert votes[BAR].to_numpy()[truth != "bar"].sum() == 0
    elif world == "5 % false bars":
        assert 0.03 < false < 0.1
    else:
        assert 0 < false < 0.035


def test_an_unknown_world_is_refused():
    with pytest.raises(InputError, match="wave"):
        simulate_survey(10, world="waves")
