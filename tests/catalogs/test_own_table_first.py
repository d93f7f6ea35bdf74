"""A joined table adds to the first one: it does not decide what that is, and is not taken for it."""

import numpy as np
import polars as pl
import pytest

from catalogs.made_up import IDS, full, own_names, photometry, votes
from truemorph.catalogs.columns import apply_mapping
from truemorph.catalogs.joining import Join
from truemorph.catalogs.mapping import read_mapping
from truemorph.catalogs.prepare import prepare_catalogue
from truemorph.errors import InputError
from truemorph.tables import CatalogTable

GZ2 = {"extends": "gz2", "name": "mine"}


@pytest.mark.parametrize("rows", [40, 60])
def test_the_survey_and_its_columns_are_the_first_tables(rows):
    table = own_names()
    got = prepare_catalogue(table, joins=[Join(full()[:rows], "sky")]).catalogue
    assert got.metadata["preset"] == "truemorph"
    assert got.frame["object_id"].to_list() == table["object_id"].to_list()
    assert got.frame["radius"].to_list() == table["radius"].to_list()
    assert got.metadata["tables"]["redshift"] == "polars DataFrame"
    assert "radius" not in got.metadata["tables"]


def test_of_two_candidates_the_first_tables_own_wins():
    left = votes(psf_fwhm=np.full(60, 1.11), petroR_r=np.full(60, 7.77)).rename({"dr7objid": "objid"})
    right = photometry().rename({"objid": "dr7objid"}).with_columns(ra=left["ra"], dec=left["dec"])
    got = prepare_catalogue(left, joins=[Join(right, "sky")]).catalogue
    assert got.metadata["columns"]["object_id"] == "objid"
    assert (got.frame["psf_fwhm"] == 1.11).all()
    assert (got.frame["radius"] == 7.77).all()


def test_where_the_first_table_fits_no_preset_both_together_may_and_votes_from_elsewhere_are_said():
    table = photometry()
    prepared = prepare_catalogue(table, joins=[Join(votes())])
    assert prepared.catalogue.metadata["preset"] == "gz2"
    assert any("smooth_fraction" in note and "are from polars DataFrame" in note for note in prepared.notes)
    assert not any("are from" in note for note in prepare_catalogue(votes(), joins=[Join(photometry())]).notes)


# --- places on the sky are read as the mapping says ------------------------------------------------------------


def sky():
    table = full()
    return table, pl.DataFrame({"RAJ2000": table["ra"], "DEJ2000": table["dec"], "x": np.arange(60)})


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (pl.col("ra") / 15, {"column": "ra", "unit": "hourangle"}),
        (pl.col("ra") / 15, {"expression": "ra * 15"}),
        (pl.when(pl.col("dr7objid") == IDS).then(-9999.0).otherwise(pl.col("ra")), {"column": "ra", "missing": -9999}),
    ],
    ids=["unit", "expression", "missing"],
)
def test_positions_of_the_first_table_follow_the_mapping(change, how):
    table, right = sky()
    mapping = {**GZ2, "columns": {"ra": how}}
    got = prepare_catalogue(table.with_columns(ra=change), mapping=mapping, joins=[Join(right, "sky")]).catalogue
    matched = got.frame["x"].drop_nulls()
    assert len(matched) == (59 if "missing" in how else 60)
    assert got.frame.filter(pl.col("x") != pl.col("object_id") - IDS).height == 0


def test_chosen_positions_and_ids_win_over_the_mapping():
    table, right = sky()
    moved = table.rename({"ra": "alpha_deg", "dec": "delta_deg"}).with_columns(
        other=pl.Series([f"g{k}" for k in range(60)])
    )
    chosen = {"ra": "alpha_deg", "dec": "delta_deg", "object_id": "other"}
    byid = pl.DataFrame({"gid": [f"g{k}" for k in range(60)], "y": np.arange(60)})
    got = prepare_catalogue(moved, preset="gz2", columns=chosen, joins=[Join(right, "sky"), Join(byid, columns="gid")])
    assert got.catalogue.frame["x"].equals(got.catalogue.frame["y"].alias("x"))
    mapping = {**GZ2, "columns": {"object_id": {"expression": "concat('g', k)"}}}
    numbered = table.with_columns(k=pl.int_range(60))
    assert prepare_catalogue(numbered, mapping=mapping, joins=[Join(byid, columns="gid")]).catalogue.frame["y"][7] == 7


def test_a_chosen_position_misses_what_the_mappings_did():
    table, right = sky()
    some = table.with_columns(other=pl.when(pl.int_range(60) < 4).then(-9999.0).otherwise(pl.col("ra"))).drop("ra")
    mapping = {**GZ2, "columns": {"ra": {"column": ["ra", "other"], "missing": -9999}}}
    got = prepare_catalogue(some, mapping=mapping, columns={"ra": "other"}, joins=[Join(right, "sky")]).catalogue
    assert got.frame["x"].null_count() == 4


def test_a_second_table_is_joined_by_the_first_tables_ids_too():
    table = full().rename({"dr7objid": "objid"})
    first = pl.DataFrame({"ra": table["ra"], "dec": table["dec"], "dr7objid": np.arange(60)})
    second = pl.DataFrame({"dr7objid": table["objid"], "y": np.arange(60)})
    got = prepare_catalogue(table, joins=[Join(first, "sky"), Join(second)]).catalogue.frame
    assert got["y"].to_list() == list(range(60))


def test_wrong_positions_name_table_and_column():
    table, right = sky()
    wrong = right.with_columns(RAJ2000=pl.when(pl.int_range(60) == 2).then(-9999.0).otherwise(pl.col("RAJ2000")))
    with pytest.raises(InputError, match=r"column RAJ2000 \(ra\) goes from -180 to 360 degrees; 1 rows do not .*row 3"):
        prepare_catalogue(table, joins=[Join(wrong, "sky")])
    with pytest.raises(InputError, match="column RAJ2000 is in 'h', which is not an angle"):
        prepare_catalogue(table, joins=[Join(CatalogTable(right, {"RAJ2000": "h"}), "sky")])


def test_a_join_is_by_id_or_on_the_sky():
    with pytest.raises(InputError, match="got by='ids'"):
        Join(photometry(), "ids")


# --- trusted classes -------------------------------------------------------------------------------------------


def test_a_joined_truth_is_carried_and_is_truth_only_by_a_rule():
    expert = pl.DataFrame({"objid": IDS + np.arange(60), "truth": np.arange(60) % 5})
    prepared = prepare_catalogue(full(), joins=[Join(expert)])
    assert "truth" not in prepared.catalogue.frame.columns
    assert "truth_definition" not in prepared.catalogue.metadata
    assert prepared.catalogue.frame["truth_input"].to_list() == (np.arange(60) % 5).tolist()
    assert any("truth_input" in note and "--truth" in note for note in prepared.notes)
    ruled = prepare_catalogue(full(), joins=[Join(expert)], truth="truth>=2").catalogue
    assert ruled.frame["truth"].to_list() == (np.arange(60) % 5 >= 2).astype(int).tolist()


def test_the_tables_own_truth_holds_classes_and_nothing_else():
    got = prepare_catalogue(full(truth=np.array([-1, 0, 1] * 20))).catalogue
    assert got.frame["truth"][:3].to_list() == [None, 0, 1]
    assert got.metadata["truth_definition"].startswith("not stated")
    with pytest.raises(InputError, match=r"row 3 is 2; give a rule such as .* as --truth"):
        prepare_catalogue(full(truth=np.array([0, 1, 2] * 20)))
    text = prepare_catalogue(full(truth=["E", "S"] * 30))
    assert text.catalogue.frame["truth_input"][0] == "E"


# --- images, and columns without a value ------------------------------------------------------------------------


def listed(tmp_path, name="image", ending=".jpg"):
    folder = tmp_path / "zoo"
    folder.mkdir(exist_ok=True)
    for k in range(60):
        (folder / f"{k}.jpg").write_bytes(b"")
    path = folder / "images.parquet"
    pl.DataFrame({"objid": IDS + np.arange(60), name: [f"{k}{ending}" for k in range(60)]}).write_parquet(path)
    return path


def test_an_image_column_without_a_value_is_none(tmp_path):
    empty = full().with_columns(image=pl.lit(None, pl.String))
    assert prepare_catalogue(empty).catalogue.frame["image"].null_count() == 60
    prepared = prepare_catalogue(empty, joins=[listed(tmp_path)])
    assert prepared.catalogue.frame["image"][0] == "0.jpg"
    assert any("columns without a value elsewhere are taken from it: image" in note for note in prepared.notes)


def test_images_by_an_expression_over_a_joined_column_lie_beside_that_table(tmp_path):
    mapping = {**GZ2, "columns": {"image": {"expression": "concat(stem, '.jpg')"}}}
    got = prepare_catalogue(full(), mapping=mapping, joins=listed(tmp_path, "stem", "")).catalogue
    assert got.metadata["image_root"] == str((tmp_path / "zoo").resolve())
    assert got.frame["image"].null_count() == 0


# --- votes ---


def test_an_artefact_count_that_is_missing_takes_no_total_with_it():
    table = pl.DataFrame({"smooth_votes": [3, 3], "disk_votes": [1, 1], "artefact_votes": [None, 4]})
    got = apply_mapping(CatalogTable(table), read_mapping({"columns": {name: name for name in table.columns}}))
    assert got.frame["vote_count"].to_list() == [4, 8]
    assert got.frame["smooth_fraction"].to_list() == [0.75, 0.375]


def test_fractions_of_a_row_are_of_one_kind():
    names = ("disk_fraction", "smooth_votes", "disk_votes")
    table = pl.DataFrame({"disk_fraction": [0.9, 0.9, 0.9], "smooth_votes": [3, 1, 0], "disk_votes": [1, 3, 0]})
    got = apply_mapping(CatalogTable(table), read_mapping({"columns": {name: name for name in names}}))
    assert got.frame["disk_fraction"].to_list() == [0.25, 0.75, None]
    assert got.sources["disk_fraction"] == "disk_votes / vote_count"
    assert any("all are shares of the votes" in note for note in got.notes)


def test_fractions_that_sum_to_more_than_one_are_noted():
    table = own_names(disk_fraction=np.where(np.arange(60) == 7, 0.95, np.where(np.arange(60) % 2, 0.1, 0.9)))
    notes = prepare_catalogue(table).notes
    assert any("fractions of 1 rows sum to more than 1 (first: row 8, 1.85)" in note for note in notes)
    assert not any("sum to more" in note for note in prepare_catalogue(own_names()).notes)


Q = "smooth-or-featured"


def test_a_galaxys_answers_are_all_of_one_campaign():
    n = 40
    columns = {"id_str": [f"{k}_1" for k in range(n)], "petro_theta": np.full(n, 5.0), "psfsize_r": np.full(n, 1.1)}
    for campaign, smooth, disk in (("dr8", 15, 5), ("dr5", 5, 30), ("dr12", 0, 0)):
        total = smooth + disk
        columns |= {f"{Q}-{campaign}_smooth": [smooth] * n, f"{Q}-{campaign}_featured-or-disk": [disk] * n}
        columns |= {f"{Q}-{campaign}_artifact": [0] * n, f"{Q}-{campaign}_total-votes": [total] * n}
    columns[f"{Q}-dr8_smooth"] = [None, *columns[f"{Q}-dr8_smooth"][1:]]
    columns[f"{Q}-dr8_total-votes"] = [*columns[f"{Q}-dr8_total-votes"][:-1], 0]  # the last is of dr5
    got = apply_mapping(CatalogTable(pl.DataFrame(columns)), read_mapping("desi"), source="desi")
    assert np.isnan(got.numbers("smooth_fraction")[0])  # not dr5's
    assert got.numbers("disk_fraction")[[0, 1, -1]].tolist() == [0.25, 0.25, 30 / 35]
    assert got.numbers("smooth_votes")[1] == 15


def test_missing_values_are_missing_under_the_tables_own_name_too():
    table = full(petroMag_r=np.where(np.arange(60) < 9, -9999.0, 16.0))
    prepared = prepare_catalogue(table, keep=["petroMag_r < 17.77"])
    assert dict(prepared.funnel)["petroMag_r < 17.77"] == -9
    assert dict(prepare_catalogue(table, keep=["petroMag_r < 17.77 OR magnitude IS NULL"]).funnel)["rows out"] == 60
    both = full(redshift=np.full(60, 9.0), z=np.linspace(0.01, 0.1, 60))
    named = prepare_catalogue(both, mapping={**GZ2, "columns": {"redshift": "z"}}, keep=["redshift < 1"])
    assert dict(named.funnel)["rows out"] == 60  # truemorph's redshift, not the table's column of that name
