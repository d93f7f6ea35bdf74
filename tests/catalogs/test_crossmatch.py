"""Matches by id and on the sky are correct and one to one; columns of other tables are added by them."""

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.made_up import GZ2, IDS, full, refused
from conftest import codes
from truemorph import prepare_catalogue as prepare
from truemorph import write_table
from truemorph.catalogs.crossmatch import Join, describe, join_tables, match_ids, match_sky
from truemorph.catalogs.mapping import read_mapping
from truemorph.errors import InputError
from truemorph.tables import CatalogTable

ids = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40, unique=True)


@given(ids, ids, st.booleans(), st.booleans())
def test_ids_match_as_in_a_dictionary(left, right, left_as_text, right_as_text):
    right = list(dict.fromkeys([*right, *left[::2]]))
    row = {one: n for n, one in enumerate(right)}
    series = [
        pl.Series("objid", list(map(str, some)) if as_text else some, dtype=pl.String if as_text else pl.Int64)
        for some, as_text in ((left, left_as_text), (right, right_as_text))
    ]
    match = match_ids(*series)
    assert match.index.tolist() == [row.get(one, -1) for one in left]
    assert match.statistics["matched"] == len(set(left) & set(right))
    assert match.statistics["matched"] + match.statistics["right_unused"] == len(right)


def test_ids_are_compared_exactly():
    # As floats, IDS and IDS + 1 would be equal.
    assert match_ids(pl.Series([IDS, IDS + 1]), pl.Series([IDS + 1, IDS + 2])).index.tolist() == [-1, 0]
    unsigned = pl.Series([12, 2**63 + 2], dtype=pl.UInt64)
    assert match_ids(pl.Series(["012", str(2**63 + 2)]), unsigned).index.tolist() == [-1, 1]
    match = match_ids(pl.Series([7, 7]), pl.Series([7, None, None]))
    assert (match.index.tolist(), match.statistics["right_missing"]) == ([0, 0], 2)


@pytest.mark.parametrize(
    ("match", "arguments", "facts"),
    [
        (match_ids, (pl.Series("id", [1.0, float(IDS)]), pl.Series([1])), r"a\.csv: .*id.*row 2"),
        (match_ids, (pl.Series([7]), pl.Series("id", [8, 7, 5, 7, None, None])), r"b\.csv: 2 rows.*id.*7 in rows 2, 4"),
        (match_sky, ([10, 400], [0, 0], [1], [1]), r"a\.csv: ra .* 1 of 2 rows .*row 2, 400"),
        (match_sky, ([10], [0], [1], [1], 3601), "radius"),
    ],
)
def test_ids_and_positions_that_cannot_be_matched_raise_errors(match, arguments, facts):
    with pytest.raises(InputError, match=facts):
        match(*arguments, sources=("a.csv", "b.csv"))


def scattered(seed, n, spread):
    """Positions in small groups at RA = 0, the poles and elsewhere; spread in arcsec."""
    rng = np.random.default_rng(seed)
    centres = SkyCoord([0, 180, 0, 40, 123.4, 359.9999], [0, -89.9999, 90, -90, 60, 89], unit="deg")
    direction, distance = rng.uniform(0, 360, n) * u.deg, spread * np.sqrt(rng.random(n)) * u.arcsec
    return centres[rng.integers(0, 6, n)].directional_offset_by(direction, distance)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60), st.floats(0.1, 30), st.booleans())
def test_sky_matches_are_mutual_nearest_neighbours_as_in_astropy(seed, n, m, radius, halves):
    left, right = scattered(seed, n, 20), scattered(seed + 1, m, 20)
    ra = left.ra.wrap_at(180 * u.deg).deg if halves else left.ra
    match = match_sky(ra, left.dec.to(u.rad), right.ra.deg, right.dec.deg, radius)
    there, apart, _ = left.match_to_catalog_sky(right)
    back, _, _ = right.match_to_catalog_sky(left)
    mutual = (back[there] == np.arange(n)) & (apart.arcsec <= radius)
    np.testing.assert_array_equal(match.index, np.where(mutual, there, -1))
    np.testing.assert_allclose(match.separation, np.where(mutual, apart.arcsec, np.nan), rtol=1e-6, atol=1e-7)
    near = (left[:, None].separation(right).arcsec <= radius).sum(axis=1)
    assert match.statistics["ambiguous"] == (near > 1).sum()


@pytest.mark.parametrize(("width", "low", "high"), [(30, 0, 30), (360, 80, 90)])
def test_the_number_of_chance_matches_follows_from_the_density(width, low, high):
    rng = np.random.default_rng(5)
    n, m, radius = 20_000, 60_000, 20.0
    low, high = np.sin(np.radians([low, high]))
    ra, dec = rng.uniform(0, width, n + m), np.degrees(np.arcsin(rng.uniform(low, high, n + m)))
    statistics = match_sky(ra[:n], dec[:n], ra[n:], dec[n:], radius).statistics
    expected = n * m / (np.radians(width) * (high - low)) * np.pi * np.radians(radius / 3600) ** 2
    # Two rows with the same candidate match once (a few per cent at this density). Poisson noise of four shifts.
    assert statistics["by_chance"] == pytest.approx(expected, abs=4 * np.sqrt(expected / 4) + 0.03 * expected)


def test_true_counterparts_do_not_count_as_chance():
    rng = np.random.default_rng(6)
    n = 5_000
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    statistics = match_sky(ra, dec, ra, np.clip(dec + rng.normal(0, 0.3, n) / 3600, -90, 90), 2).statistics
    assert statistics["matched"] == n
    assert statistics["by_chance"] < 1
    # |offset| of a Gaussian with σ = 0.3 arcsec: median 0.6745 σ, 95 % below 1.96 σ.
    assert statistics["median_separation"] == pytest.approx(0.6745 * 0.3, rel=0.05)
    assert statistics["p95_separation"] == pytest.approx(1.96 * 0.3, rel=0.05)


def test_rows_without_a_position_and_second_candidates_have_no_match():
    match = match_sky([10, np.nan, 30], [0, 0, None], [10, 30, np.nan], [0, 0, 0], 2)
    assert match.index.tolist() == [0, -1, -1]
    assert np.isnan(match.separation[1:]).all()
    assert (match.statistics["left_missing"], match.statistics["right_missing"]) == (2, 1)
    twins = match_sky([10, 10], [0, 0], [10, 10], [0.0001, 0.0001], 2).statistics
    assert (twins["matched"], twins["ambiguous"], twins["right_unused"]) == (1, 2, 1)
    nothing = match_sky([np.nan], [0], [], [], 2)
    assert "0 of 1 rows" in describe(nothing.statistics, "a", "b")


# --- columns of other tables ------------------------------------------------------------------------------------------

LEFT = pl.DataFrame({"dr7objid": [IDS, IDS + 1, IDS + 2], "ra": [10.0, 20.0, 30.0], "dec": [0.0, 1.0, 2.0]})


def join(*joins):
    return join_tables(CatalogTable(LEFT), joins, read_mapping("gz2"), "votes.csv")


def test_joined_rows_follow_the_first_table(tmp_path):
    photometry = pl.DataFrame({"objID": [str(IDS + 2), str(IDS + 1)], "r": [7.0, 6.0], "ra": [1.0, 1.0]})
    path = write_table(
        CatalogTable(photometry, {"r": "arcsec"}, descriptions={"r": "radius"}), tmp_path / "sdss.parquet"
    )
    joined = join(Join(path), Join(pl.DataFrame({"id": [IDS], "b": [4]}), columns=("id",)))
    assert joined.table.frame["r"].to_list() == [None, 6.0, 7.0]
    assert joined.table.frame["b"].to_list() == [4, None, None]
    assert (joined.table.units["r"], joined.table.descriptions["r"]) == ("arcsec", "radius")
    assert joined.table.frame["ra"].to_list() == [10.0, 20.0, 30.0]  # the first table keeps its names and values
    assert joined.table.frame["ra_sdss"].to_list() == [None, 1.0, 1.0]
    assert (joined.matches[0]["tables"], joined.matches[0]["matched"]) == (["votes.csv", "sdss.parquet"], 2)
    assert [one.code for one in joined.findings].count("tables-matched") == 2
    assert joined.added["r"] == path


def test_tables_are_joined_on_the_sky_with_units_and_separations():
    arcsec = 1 / 3600
    right = {"RAJ2000": [20.0, 30.0 + 5 * arcsec, 10.0], "DEJ2000": [1.0 + arcsec, 2.0, 0.0]}
    table = pl.DataFrame({name: np.radians(values) for name, values in right.items()} | {"z": [0.2, 0.3, 0.1]})
    joined = join(Join(CatalogTable(table, dict.fromkeys(right, "rad")), "sky", within=2.0))
    assert joined.table.frame["z"].to_list() == [0.1, 0.2, None]
    np.testing.assert_allclose(joined.table.frame["joined_separation"][:2], [0, 1], atol=1e-6)
    assert joined.table.frame["joined_separation"][2] is None
    assert joined.table.units["joined_separation"] == "arcsec"


@pytest.mark.parametrize(
    ("columns", "how", "mentioned"),
    [
        ({"objid": [1], "x": [0]}, {}, ("polars DataFrame", "votes.csv", f"ids are {IDS} and 1")),
        ({"objid": [IDS]}, {"columns": ("objd",)}, ("objd", "nearest: objid")),
        ({"ra": [10.0], "dec": [-1.0]}, {"by": "sky", "columns": ("ra", "decl")}, ("decl", "nearest: dec")),
    ],
)
def test_tables_that_cannot_be_joined_raise_errors(columns, how, mentioned):
    with refused(*mentioned):
        join(Join(pl.DataFrame(columns), **how))


def test_ids_and_positions_are_those_that_the_user_or_the_mapping_names():
    names = pl.Series([f"g{k}" for k in range(60)])
    table = full(ra=full()["ra"] / 15).rename({"ra": "alpha_h", "dec": "delta"}).with_columns(other=names)
    sky = pl.DataFrame({"ra": full()["ra"], "dec": table["delta"], "x": np.arange(60)})
    by_id = pl.DataFrame({"gid": names, "y": np.arange(60)})
    mapping = {**GZ2, "columns": {"ra": {"column": "alpha_h", "unit": "hourangle"}}}
    joins = [Join(sky, "sky"), Join(by_id, columns=("gid",))]
    got = prepare(table, preset=mapping, columns={"dec": "delta", "object_id": "other"}, join=joins).catalogue
    assert got.frame["x"].to_list() == got.frame["y"].to_list() == list(range(60))


def with_nearest(psf, psf_fwhm, **columns):
    """Prepare eight galaxies, with columns of the nearest rows of a table of PSF widths."""
    votes = {"id": range(8), "smooth": [0.9, 0.1] * 4, "radius": 4.0, "ra": np.linspace(9, 11, 8), "dec": 0.0}
    names = {"id": "id", "smooth": "smooth", "disk": "1 - smooth", "radius": "radius"}
    return prepare(pl.DataFrame(votes | columns), **names, psf_fwhm=psf_fwhm, nearest=[psf])


def test_each_row_takes_the_nearest_row_within_a_degree():
    ra, dec = [10, 10.4, 359.9, np.nan, 200], [0, 0, 60, 5, 5]
    match = match_sky(ra, dec, [0.1, 10.1, 120, np.nan], [60, 0, 89, 0], 3600, mutual=False)
    assert match.index.tolist() == [1, 1, 0, -1, -1]
    np.testing.assert_allclose(match.separation[:3], [360, 1080, 360], rtol=1e-5)
    assert (match.statistics["matched"], match.statistics["largest_separation"]) == (3, pytest.approx(1080))
    psf = pl.DataFrame({"RA": [9.5, 10.5], "Dec": [0.0, 0.0], "FWHM": [0.8, 1.1]})
    prepared = with_nearest(psf, "FWHM")
    assert prepared.catalogue.frame["psf_fwhm"].to_list() == [0.8] * 4 + [1.1] * 4
    assert "columns-renamed" not in codes(prepared)


def test_columns_of_the_same_name_are_said():
    psf = pl.DataFrame({"ra": [9.5, 10.5], "dec": [0.0, 0.0], "seeing": [0.8, 1.1]})
    prepared = with_nearest(psf, "seeing", seeing=1.3)
    assert prepared.catalogue.frame["psf_fwhm"].to_list() == [1.3] * 8
    named = next(finding.message for finding in prepared.findings if finding.code == "columns-renamed")
    assert "seeing is seeing_joined" in named
    again = with_nearest(psf, "seeing_joined", seeing=1.3)
    assert again.catalogue.frame["psf_fwhm"].to_list() == [0.8] * 4 + [1.1] * 4
