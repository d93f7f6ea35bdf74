"""Matches by id and on the sky: the right rows, one to one, and an honest account."""

import json

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from truemorph.catalogs.crossmatch import _moved, describe, match_ids, match_sky
from truemorph.errors import InputError

ID = 587722981748572353
ids = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40, unique=True)


@given(ids, ids, st.booleans(), st.booleans())
def test_ids_match_as_in_a_dictionary(left, right, left_as_text, right_as_text):
    right = [*right, *left[::2]]
    right = list(dict.fromkeys(right))
    row = {one: n for n, one in enumerate(right)}
    series = [
        pl.Series("objid", list(map(str, some)) if as_text else some, dtype=pl.String if as_text else pl.Int64)
        for some, as_text in ((left, left_as_text), (right, right_as_text))
    ]
    match = match_ids(*series)
    assert match.index.tolist() == [row.get(one, -1) for one in left]
    assert match.statistics["matched"] + match.statistics["unmatched"] == len(left)
    assert match.statistics["matched"] + match.statistics["right_unused"] == len(right)


def test_neighbouring_19_digit_ids_are_different_galaxies():
    match = match_ids(pl.Series([ID, ID + 1]), pl.Series([ID + 1, ID + 2]))
    assert match.index.tolist() == [-1, 0]
    beyond = pl.Series([2**63 + 1, 2**63 + 2], dtype=pl.UInt64)
    assert match_ids(pl.Series([str(2**63 + 2)]), beyond).index.tolist() == [1]


def test_text_is_compared_as_it_stands():
    assert match_ids(pl.Series(["012", "12"]), pl.Series([12])).index.tolist() == [-1, 0]
    kinds = pl.Series(["b", "a"], dtype=pl.Categorical)
    assert match_ids(pl.Series(["a"]), kinds).index.tolist() == [1]


def test_missing_ids_match_nothing_and_are_counted():
    match = match_ids(pl.Series([1, None, 2]), pl.Series([None, 2, None]))
    assert match.index.tolist() == [-1, -1, 1]
    assert (match.statistics["left_missing"], match.statistics["right_missing"]) == (1, 2)
    assert match_ids(pl.Series([1.0, float("nan")]), pl.Series([1])).index.tolist() == [0, -1]
    assert match_ids(pl.Series([None, None]), pl.Series([1])).index.tolist() == [-1, -1]


def test_floats_that_may_have_lost_digits_are_refused():
    with pytest.raises(InputError, match=r"votes.csv: column objid holds ids as floats, and row 2 .* lost digits"):
        match_ids(pl.Series("objid", [1.0, float(ID)]), pl.Series([1]), sources=("votes.csv", "b.csv"))
    with pytest.raises(InputError, match="row 1"):
        match_ids(pl.Series([1]), pl.Series("objid", [2.0**24], dtype=pl.Float32))
    with pytest.raises(InputError, match="can't be an id"):
        match_ids(pl.Series([True]), pl.Series([1]))


def test_repeats_on_the_right_are_named_or_resolved():
    left, right = pl.Series([7, 8]), pl.Series("objid", [8, 7, 5, 7, 7, None, None])
    with pytest.raises(InputError, match=r"b.csv: 3 rows share an id in column objid \(first: 7 in rows 2, 4, 5\)"):
        match_ids(left, right, sources=("a.csv", "b.csv"))
    first = match_ids(left, right, first="keep")
    assert first.index.tolist() == [1, 0]
    assert first.statistics["repeated"] == 2
    assert "2 rows of b.csv passed over, their id has another row" in describe(first, "a.csv", "b.csv")
    best = match_ids(left, right, best=[1, np.nan, 9, 3, 3, 99, 99])
    assert best.index.tolist() == [3, 0]
    with pytest.raises(InputError, match="one a row"):
        match_ids(left, right, best=[1, 2])


def test_ids_of_another_release_are_pointed_out():
    match = match_ids(pl.Series([ID]), pl.Series(["1237648720693755918"]))
    assert f"first ids {ID} and 1237648720693755918: are both of the same data release?" in describe(match)
    assert "first ids" not in describe(match_ids(pl.Series([ID]), pl.Series([ID])))


def scattered(seed, n, spread):
    """Places in small groups about the seam, the poles and elsewhere; spread in arcsec."""
    rng = np.random.default_rng(seed)
    centres = SkyCoord([0, 180, 0, 40, 123.4, 359.9999], [0, -89.9999, 90, -90, 60, 89], unit="deg")[
        rng.integers(0, 6, n)
    ]
    turned, away = rng.uniform(0, 360, n) * u.deg, spread * np.sqrt(rng.random(n)) * u.arcsec
    return centres.directional_offset_by(turned, away)


def mutual_neighbours(left, right, radius):
    """Astropy's nearest neighbours, both ways."""
    there, apart, _ = left.match_to_catalog_sky(right)
    back, _, _ = right.match_to_catalog_sky(left)
    both = (back[there] == np.arange(len(left))) & (apart.arcsec <= radius)
    return np.where(both, there, -1), np.where(both, apart.arcsec, np.nan)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60), st.floats(0.1, 30), st.booleans())
def test_sky_matches_are_those_of_astropy(seed, n, m, radius, halves):
    left, right = scattered(seed, n, 20), scattered(seed + 1, m, 20)
    ra = left.ra.wrap_at(180 * u.deg).deg if halves else left.ra.deg
    match = match_sky(ra, left.dec.deg, right.ra.deg, right.dec.deg, radius)
    index, separation = mutual_neighbours(left, right, radius)
    np.testing.assert_array_equal(match.index, index)
    np.testing.assert_allclose(match.separation, separation, rtol=1e-6, atol=1e-7)
    near = [(left[row].separation(right).arcsec <= radius).sum() for row in range(n)]
    assert match.statistics["ambiguous"] == sum(count > 1 for count in near)
    assert match.statistics["taken"] == sum(count > 0 for count in near) - (index >= 0).sum()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.randoms())
def test_sky_matches_do_not_depend_on_row_order(seed, random):
    left, right = scattered(seed, 40, 5), scattered(seed + 1, 40, 5)
    rows, columns = random.sample(range(40), 40), random.sample(range(40), 40)
    straight = match_sky(left.ra, left.dec, right.ra, right.dec, 3).index
    mixed = match_sky(left.ra[rows], left.dec[rows], right.ra[columns], right.dec[columns], 3).index
    np.testing.assert_array_equal(np.where(mixed >= 0, np.array(columns)[mixed], -1), straight[rows])


def test_one_right_row_serves_one_left_row():
    match = match_sky([10, 10, 10], [0, 0.0001, 0.0002], [10], [0.00018], 2)
    assert match.index.tolist() == [-1, -1, 0]
    assert match.statistics["taken"] == 2
    twins = match_sky([10, 10], [0, 0], [10, 10], [0.0001, 0.0001], 2)
    assert twins.index.tolist() == [0, -1]  # of equals the first row, always
    assert (twins.statistics["ambiguous"], twins.statistics["right_unused"]) == (2, 1)


def test_chance_matches_are_what_the_density_gives():
    rng = np.random.default_rng(5)
    n, m, radius = 20_000, 60_000, 20.0
    ra, dec = rng.uniform(100, 130, n + m), np.degrees(np.arcsin(rng.uniform(0, 0.5, n + m)))
    statistics = match_sky(ra[:n], dec[:n], ra[n:], dec[n:], radius).statistics
    area = np.radians(30) * 0.5
    expected = n * m / area * np.pi * np.radians(radius / 3600) ** 2
    # Two rows that share a candidate match once: a few in 100 at this density. Poisson of four shifts.
    assert statistics["by_chance"] == pytest.approx(expected, abs=4 * np.sqrt(expected / 4) + 0.03 * expected)
    assert statistics["chance_shift"] == 100


def test_true_counterparts_do_not_count_as_chance():
    rng = np.random.default_rng(6)
    n = 5_000
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    match = match_sky(ra, dec, ra, np.clip(dec + rng.normal(0, 0.3, n) / 3600, -90, 90), 2)
    assert match.statistics["matched"] == n
    assert match.statistics["by_chance"] < 1
    # |offset| of a normal with σ = 0.3 arcsec: median 0.6745 σ, 95 % below 1.96 σ.
    assert match.statistics["median_separation"] == pytest.approx(0.6745 * 0.3, rel=0.05)
    assert match.statistics["p95_separation"] == pytest.approx(1.96 * 0.3, rel=0.05)


@given(st.floats(0, 360), st.floats(-90, 90), st.floats(0, 2 * np.pi))
def test_moved_places_are_where_they_should_be(ra, dec, direction):
    start = SkyCoord(ra, dec, unit="deg")
    vector = np.array([[*start.cartesian.xyz.value]])
    end = SkyCoord(*_moved(vector, np.radians(10 / 3600), direction)[0], representation_type="cartesian")
    assert start.separation(end).arcsec == pytest.approx(10, rel=1e-6)
    if abs(dec) < 89:
        expected = start.directional_offset_by(direction * u.rad, 10 * u.arcsec)
        assert end.separation(expected).arcsec == pytest.approx(0, abs=1e-6)


def test_rows_without_a_position_match_nothing():
    match = match_sky([10, np.nan, 30], [0, 0, None], [10, 30, np.nan], [0, 0, 0], 2)
    assert match.index.tolist() == [0, -1, -1]
    assert np.isnan(match.separation[1:]).all()
    assert (match.statistics["left_missing"], match.statistics["right_missing"]) == (2, 1)
    nothing = match_sky([np.nan], [0], [], [], 2)
    assert nothing.index.tolist() == [-1]
    assert "0 of 1 rows matched, 1 not (1 without position)" in describe(nothing)


def test_units_of_positions_are_converted():
    left = SkyCoord([10, 200], [5, -5], unit="deg")
    match = match_sky(left.ra.to(u.hourangle), left.dec.to(u.rad), left.ra, left.dec)
    assert match.index.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ([10, 400], [0, 0], [1], [1]),
            r"a.csv: ra is in degrees, from -180 to 360; 1 rows are not \(first: row 2, 400\)",
        ),
        (([10], [-9999], [1], [1]), "a.csv: dec is in degrees, from -90 to 90; .* leave them empty if unknown"),
        (([10], [0], [1, 2], [1]), "b.csv: ra has 2 values, dec 1"),
        (([10], [0], [1], ["north"]), "b.csv: dec must be numbers"),
        (([10], [0], [1], [1], 0), "in arcsec, above 0 and at most 3600; got 0"),
        (([10], [0], [1], [1], float("nan")), "in arcsec"),
    ],
)
def test_positions_that_are_none_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        match_sky(*arguments, sources=("a.csv", "b.csv"))


def test_places_that_stand_for_unknown_are_not_multiplied():
    n = 6_000
    with pytest.raises(InputError, match=r"36,000,000 pairs lie within 2 arcsec; take a smaller radius"):
        match_sky(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), 2)


def test_statistics_go_into_json_and_one_line():
    match = match_sky([10, 20], [0, 0], [10.0001, 40], [0, 0], 2)
    assert json.loads(json.dumps(match.statistics)) == match.statistics
    line = describe(match, "votes.csv", "simard.parquet")
    assert line == describe(match.statistics, "votes.csv", "simard.parquet")
    assert line.startswith(
        "votes.csv with simard.parquet on the sky within 2 arcsec: 1 of 2 rows matched "
        "(median 0.36, 95 % below 0.36 arcsec), 1 not; 0 with several candidates; "
    )
    assert "\n" not in line
