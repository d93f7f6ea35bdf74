"""From votes to a catalogue: every row is accounted for, and every mistake gets a line."""

import numpy as np
import polars as pl
import pytest
from astropy.table import Table

from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.prepare import prepare_catalogue, write_preparation
from truemorph.errors import InputError

T01 = "t01_smooth_or_features_"


def votes(n=60, **changes):
    rng = np.random.default_rng(0)
    smooth = np.round(rng.uniform(0.05, 0.95, n), 3)
    columns = {
        "dr7objid": 587722981748572353 + np.arange(n),
        f"{T01}a01_smooth_weighted_fraction": smooth,
        f"{T01}a02_features_or_disk_weighted_fraction": np.round(0.99 - smooth, 3),
        f"{T01}a03_star_or_artifact_weighted_fraction": np.full(n, 0.01),
        "petroRad_r": rng.uniform(3, 20, n),
        "psfWidth_r": rng.uniform(1, 1.6, n),
        "redshift": rng.uniform(0.02, 0.1, n),
    }
    return pl.DataFrame({**columns, **changes})


def written(tmp_path, frame, name="votes.csv"):
    path = tmp_path / name
    frame.write_csv(path)
    return path


def with_value(column, row, value, n=60):
    values = votes(n)[column].to_list()
    values[row] = value
    return {column: values}


def test_labels_alpha_split_and_what_is_carried(tmp_path):
    frame = votes()
    got = prepare_catalogue(written(tmp_path, frame), seed=4).catalogue
    np.testing.assert_array_equal(got.frame["label"], (frame[f"{T01}a01_smooth_weighted_fraction"] < 0.495).cast(int))
    np.testing.assert_allclose(got.frame["alpha"], frame["petroRad_r"] / (frame["psfWidth_r"] / 2.354820045))
    assert dict(got.frame["split"].value_counts().rows()) == {"train": 48, "validation": 6, "test": 6}
    assert got.frame["redshift"].equals(frame["redshift"])
    assert got.metadata["alpha"] == "petroRad_r / sigma_PSF, sigma_PSF = psfWidth_r / 2.3548"


def test_same_seed_same_catalogue_whatever_the_row_order(tmp_path):
    frame = votes()
    first = prepare_catalogue(written(tmp_path, frame), balance=True, seed=1).catalogue.frame
    shuffled = written(tmp_path, frame.sample(fraction=1, shuffle=True, seed=5), "shuffled.csv")
    second = prepare_catalogue(shuffled, balance=True, seed=1).catalogue.frame
    assert first.sort("object_id").equals(second.sort("object_id"))


def test_every_dropped_row_is_counted_and_listed(tmp_path):
    artefact = np.full(60, 0.01)
    artefact[[2, 3]] = 0.97
    radius = votes()["petroRad_r"].to_list()
    radius[5], radius[6] = -9999.0, None
    psf = votes()["psfWidth_r"].to_list()
    psf[7] = 0.0
    frame = votes(petroRad_r=radius, psfWidth_r=psf, **{f"{T01}a03_star_or_artifact_weighted_fraction": artefact})
    prepared = prepare_catalogue(written(tmp_path, frame))
    assert dict(prepared.funnel) == {
        "rows in": 60,
        "majority star or artefact": -2,
        "no positive radius": -2,
        "no positive PSF width": -1,
        "rows out": 55,
    }
    assert sum(count for _, count in prepared.funnel[:-1]) == prepared.funnel[-1][1]
    assert prepared.dropped["row"].to_list() == [3, 4, 6, 7, 8]
    assert any("petroRad_r" in note and "row 6" in note and "-9999" in note for note in prepared.notes)
    out = write_preparation(prepared, tmp_path / "out" / "catalogue.parquet")
    assert read_catalogue(out).frame.height == 55
    assert (tmp_path / "out" / "catalogue.dropped.csv").read_text().count("\n") == 6


def test_balanced_sample_keeps_the_others_as_unused(tmp_path):
    got = prepare_catalogue(written(tmp_path, votes()), balance=True).catalogue.frame
    assert got.height == 60
    used = got.filter(pl.col("split") != "unused")
    assert used.filter(pl.col("label") == 0).height == used.filter(pl.col("label") == 1).height


def test_where_selects_rows(tmp_path):
    frame = votes(survey=["a", "b", "c"] * 20)
    prepared = prepare_catalogue(written(tmp_path, frame), where=["survey=a,b"])
    assert dict(prepared.funnel)["not selected by --where"] == -20
    with pytest.raises(InputError, match="nearest: survey"):
        prepare_catalogue(written(tmp_path, frame), where=["surveys=a"])


def test_units_of_radius_are_converted(tmp_path):
    frame = votes()
    table = Table({name: frame[name].to_numpy() for name in frame.columns})
    table["petroRad_r"] = table["petroRad_r"] / 60
    table["petroRad_r"].unit = "arcmin"
    table.write(tmp_path / "votes.ecsv")
    got = prepare_catalogue(tmp_path / "votes.ecsv").catalogue.frame
    np.testing.assert_allclose(got["radius"], frame["petroRad_r"])
    table["petroRad_r"].unit = "kpc"
    table.write(tmp_path / "kpc.ecsv")
    with pytest.raises(InputError, match="petroRad_r is in 'kpc', which is not an angle"):
        prepare_catalogue(tmp_path / "kpc.ecsv")


def test_challenge_names_and_one_psf_for_all(tmp_path):
    frame = pl.DataFrame(
        {"GalaxyID": [1, 2, 3], "Class1.1": [0.9, 0.2, 0.1], "Class1.2": [0.1, 0.7, 0.2],
         "Class1.3": [0.0, 0.1, 0.7], "size": [5.0, 6.0, 7.0]}
    )  # fmt: skip
    prepared = prepare_catalogue(written(tmp_path, frame), columns={"radius": "size"}, psf_fwhm=1.3)
    assert prepared.catalogue.metadata["preset"] == "gz-challenge"
    assert prepared.catalogue.frame["label"].to_list() == [0, 1]
    assert any("one PSF width" in note for note in prepared.notes)


def test_images_are_found_by_id_or_column(tmp_path, simulated):
    got = prepare_catalogue(simulated / "votes.csv", images=simulated / "images").catalogue
    assert got.frame["image"].is_not_null().all()
    assert got.frame["image"][0] == f"{got.frame['object_id'][0]}.jpg"
    with pytest.raises(InputError, match=r"none of the .* images is there"):
        prepare_catalogue(simulated / "votes.csv", images=tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        prepare_catalogue(simulated / "votes.csv", images=tmp_path / "absent")


MISTAKES = [
    (votes().drop("petroRad_r").with_columns(petroR90=pl.lit(5.0)), r"petroRad_r.*--radius.*petroR90"),
    (votes().drop("psfWidth_r"), r"psfWidth_r or psf_fwhm.*--psf-fwhm"),
    (votes().rename({"dr7objid": "galaxy"}), "no known kind of catalogue"),
    (votes(dr7objid=votes()["dr7objid"].cast(float)), r"column dr7objid holds ids as floats, and row 1 .*lost digits"),
    (votes(**with_value("dr7objid", 7, 587722981748572353)), r"share an id.*587722981748572353 in rows 1, 8"),
    (votes(**with_value("dr7objid", 7, None)), r"1 missing ids \(first: row 8\)"),
    (votes(**{f"{T01}a01_smooth_weighted_fraction": np.full(60, 0.98)}), "no galaxy is labelled disk"),
    (votes(**{f"{T01}a01_smooth_weighted_fraction": np.full(60, 25.0)}), "between 0 and 1"),
    (votes(petroRad_r=np.full(60, np.nan)), "no rows left.*no positive radius: 60"),
    (votes(petroRad_r=["big"] + ["5.0"] * 59), r"column petroRad_r should hold numbers, but row 1 is 'big'"),
]


@pytest.mark.parametrize(("frame", "says"), MISTAKES, ids=[says[:24] for _, says in MISTAKES])
def test_each_mistake_gets_one_clear_line(tmp_path, frame, says):
    path = written(tmp_path, frame)
    with pytest.raises(InputError, match=says) as caught:
        prepare_catalogue(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_chosen_column_that_is_absent_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match=r"no column 'petroRad' .*nearest: petroRad_r"):
        prepare_catalogue(written(tmp_path, votes()), columns={"radius": "petroRad"})


def test_ids_beyond_int64_stay_whole_as_text(tmp_path):
    path = written(tmp_path, votes(dr7objid=[str(2**64 - 1 - k) for k in range(60)]))
    assert prepare_catalogue(path).catalogue.frame["object_id"][0] == str(2**64 - 1)


def test_a_raw_table_is_not_a_catalogue(tmp_path):
    with pytest.raises(InputError, match="not a prepared catalogue"):
        read_catalogue(written(tmp_path, votes()))


@pytest.mark.parametrize("width", [2, 2.0, np.float32(2)])
def test_one_psf_is_used_whatever_its_type_and_the_tables_columns(tmp_path, width):
    frame = votes().with_columns(psf_fwhm=pl.lit(99.0))
    got = prepare_catalogue(written(tmp_path, frame), psf_fwhm=width).catalogue.frame
    np.testing.assert_allclose(got["psf_fwhm"], 2.0)
    assert (got["psf_fwhm_input"] == 99.0).all()


def test_columns_called_like_truemorphs_own_are_renamed(tmp_path):
    frame = votes(p_disk=np.full(60, 0.9), label=["x"] * 60, label_input=["y"] * 60)
    got = prepare_catalogue(written(tmp_path, frame)).catalogue.frame
    assert (got["p_disk_input"] == 0.9).all()
    assert got["label"].dtype == pl.Int64
    assert {"label_input", "label_input_"} <= set(got.columns)


def test_where_compares_as_the_column_does(tmp_path):
    frame = votes(good=[True, False] * 30, field=[1.0, 2.0, 3.0] * 20)
    path = written(tmp_path, frame)
    assert prepare_catalogue(path, where=["good=True"]).catalogue.frame.height == 30
    assert prepare_catalogue(path, where=["field=1,3"]).catalogue.frame.height == 40


def test_votes_of_rows_that_are_not_selected_may_be_anything(tmp_path):
    frame = votes(
        **with_value(f"{T01}a01_smooth_weighted_fraction", 9, -999.0), keep=["yes"] * 9 + ["no"] + ["yes"] * 50
    )
    assert prepare_catalogue(written(tmp_path, frame), where=["keep=yes"]).catalogue.frame.height == 59
    with pytest.raises(InputError, match="first: row 10, -999"):
        prepare_catalogue(written(tmp_path, frame))


def test_input_is_never_overwritten_and_csv_is_no_catalogue(tmp_path):
    path = tmp_path / "votes.parquet"
    votes().write_parquet(path)
    prepared = prepare_catalogue(path)
    with pytest.raises(InputError, match="would overwrite"):
        write_preparation(prepared, path)
    with pytest.raises(InputError, match=r"use \.parquet"):
        write_preparation(prepared, tmp_path / "catalogue.csv")


def test_images_named_with_their_folder_or_in_capitals(tmp_path, simulated):
    images = tmp_path / "images"
    images.mkdir()
    table = pl.read_csv(simulated / "votes.csv")
    for one in table["dr7objid"]:
        (images / f"{one}.JPG").write_bytes(b"")
    assert prepare_catalogue(simulated / "votes.csv", images=images).catalogue.frame["image"].is_not_null().all()
    table = table.with_columns(image=pl.format("images/{}.JPG", "dr7objid"))
    got = prepare_catalogue(written(tmp_path, table), images=images).catalogue.frame
    assert got["image"].is_not_null().all()


def test_single_precision_ids_are_refused(tmp_path):
    path = tmp_path / "votes.parquet"
    votes(dr7objid=np.arange(20_000_001, 20_000_061)).with_columns(pl.col("dr7objid").cast(pl.Float32)).write_parquet(
        path
    )
    with pytest.raises(InputError, match="lost digits"):
        prepare_catalogue(path)


def test_labels_are_not_a_catalogue(tmp_path):
    path = tmp_path / "labels.csv"
    pl.DataFrame({"object_id": [1], "label": [0], "alpha": [3.0], "split": ["test"], "crowd_label": [1]}).write_csv(
        path
    )
    with pytest.raises(InputError, match="holds a model's labels"):
        read_catalogue(path)


def test_images_in_folders_of_their_own_and_by_their_whole_path(tmp_path):
    for name in ("J01/a.png", "J02/b.png", "c.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"")
    whole = str(tmp_path / "images" / "J02" / "b.png")
    frame = votes(image=["J01/a.png", whole, "elsewhere/c.png", "J01/b.png", "J03/a.png", None] * 10)
    got = prepare_catalogue(written(tmp_path, frame), images=tmp_path / "images").catalogue.frame
    assert got["image"][:6].to_list() == ["J01/a.png", whole, "c.png", None, None, None]
