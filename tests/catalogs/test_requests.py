"""What may be asked of `truemorph prepare`, and the one line that says why something can't be done."""

import json
import os
import tomllib

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.cosmology import FlatLambdaCDM, Planck18
from astropy.table import Column, Table

from catalogs.made_up import IDS, T01, full, photometry, votes
from conftest import run
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.joining import Join
from truemorph.catalogs.mapping import Mapping, read_mapping
from truemorph.catalogs.prepare import prepare_catalogue, write_preparation
from truemorph.errors import InputError
from truemorph.tables import CatalogTable, read_table, write_table

GZ2 = {"extends": "gz2", "name": "mine"}


def splits(**asked):
    got = prepare_catalogue(full(), **asked).catalogue.frame["split"].value_counts().rows()
    return dict(got)


# --- what is refused, in one line ---


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"keep": [""]}, "rule 1 of --keep is empty"),
        ({"keep": "14 < petroMag_r < 15"}, "rule 1 of --keep: .*BETWEEN"),
        ({"split": (0.8, float("nan"), 0.1)}, "three shares .* sum to 1"),
        ({"split": (0.5, 0.5)}, "three shares"),
        ({"sample": (5.5, 5)}, "whole numbers above 0"),
        ({"sample": "10,10"}, 'a sample is "all", or how many'),
        ({"psf_fwhm": [1.3] * 60}, "one positive number of arcsec"),
        ({"psf_fwhm": float("nan")}, "one positive number of arcsec"),
        ({"psf": "sigmas"}, 'psf is "sigma" or "fwhm"'),
        ({"seed": "x"}, "the seed is a whole number"),
        ({"mapping": [1]}, "a preset's name, a TOML file or a dict; got list"),
        ({"mapping": Mapping(columns={"radios": {"column": "r"}})}, "unknown name 'radios'; nearest: radius"),
        ({"cosmology": "nonsense"}, "unknown cosmology 'nonsense'"),
        ({"mapping": {**GZ2, "cosmology": "WMAP8"}}, "unknown cosmology 'WMAP8'; nearest: WMAP9"),
        ({"mapping": {**GZ2, "sample": "10,10"}}, r'sample: give "all", "balanced", or .*smooth = 10'),
        ({"mapping": {**GZ2, "split": {"train": 0.8, "validation": 0.1, "test": 0.2}}}, "shares that sum to 1"),
        ({"mapping": {**GZ2, "cuts": [{"name": "no positive radius", "keep": "ra > 1"}]}}, "truemorph's own rule"),
        ({"where": "flag=maybe"}, "column flag is true or false, not 'maybe'"),
        ({"preset": "gz3"}, r"unknown preset 'gz3'; nearest: [^;]*; a mapping"),
    ],
)
def test_mistakes(asked, says):
    with pytest.raises(InputError, match=says) as caught:
        prepare_catalogue(full(flag=[True, False] * 30), **asked)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 320


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "two columns are called 'a'"),
        (Table({"a": Column([{"b": 1}], dtype=object)}), r"column a \(object\) is not of plain values"),
        (Table({"a": np.ones(1, dtype="m8[s]")}), r"column a \(timedelta64\[s\]\) is not of plain values"),
        (Table({"a": [1j]}), "column a .*complex128"),
        (Table({"a": [1]})[0], "astropy Row: not a table"),
        (pa.table({"a": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), "can't be taken as a table"),
    ],
)
def test_tables_that_can_not_be_taken(table, says):
    with pytest.raises(InputError, match=says) as caught:
        read_table(table)
    assert "\n" not in str(caught.value)


def test_counts_too_large_to_be_votes_are_refused_and_infinite_ones_missing():
    name = f"{T01}a01_smooth_count"
    with pytest.raises(InputError, match=r"row 1 is 3e\+20"):
        prepare_catalogue(full(**{name: 3e20}))
    assert prepare_catalogue(full(**{name: float("inf")})).catalogue.frame["smooth_votes"].null_count() == 60


def test_other_forms_of_the_same():
    table = votes()
    wanted = prepare_catalogue(table, joins=[Join(photometry())], seed=3).catalogue.frame
    assert prepare_catalogue(table, joins=Join(photometry()), seed=np.int64(3)).catalogue.frame.equals(wanted)
    assert prepare_catalogue(table, joins=photometry(), seed=3).catalogue.frame.equals(wanted)
    assert not prepare_catalogue(table, joins=photometry(), seed=4).catalogue.frame["split"].equals(wanted["split"])
    assert (prepare_catalogue(full(), psf_fwhm=0.02 * u.arcmin).catalogue.frame["psf_fwhm"] == 1.2).all()
    metadata = prepare_catalogue(full(), seed=np.int64(3)).catalogue.metadata
    assert json.loads(json.dumps(metadata))["seed"] == 3


# --- missing values ---


@pytest.mark.parametrize(
    ("dtype", "missing"),
    [
        (pl.Int64, [float("nan"), -99]),
        (pl.Int64, [float("inf"), -99.0]),
        (pl.Int64, -99),
        (pl.Float32, ["-99"]),
        (pl.String, [-99.0]),
        (pl.String, ["-99"]),
    ],
)
def test_missing_is_found_however_it_is_written(dtype, missing):
    table = full().with_columns(redshift=pl.when(pl.int_range(60) < 7).then(-99).otherwise(1).cast(dtype))
    mapping = read_mapping({**GZ2, "columns": {"redshift": {"column": "redshift", "missing": missing}}})
    got = prepare_catalogue(table, mapping=mapping).catalogue
    assert got.frame["redshift"].null_count() == 7
    json.dumps(got.metadata, allow_nan=False)


def test_large_integers_keep_every_digit(tmp_path):
    path = tmp_path / "t.csv"
    full(big=[str(2**63 + k) for k in range(60)], huge=[str(2**70 + k) for k in range(60)]).write_csv(path)
    frame = read_table(path).frame
    assert frame["big"].to_list() == [2**63 + k for k in range(60)]
    assert frame["big"].dtype == pl.UInt64
    assert frame["huge"][0] == str(2**70)
    got = read_catalogue(write_preparation(prepare_catalogue(path), tmp_path / "c.fits"))
    assert got.frame["big"][59] == 2**63 + 59


# --- ids ---


def test_ids_of_rows_that_were_not_asked_for_may_be_anything():
    twice = pl.concat([full(k=np.full(60, 1)), full(k=np.full(60, 2))])
    prepared = prepare_catalogue(twice, where=["k=1"])
    assert prepared.catalogue.frame.height == 60
    assert prepared.dropped.height == 60
    absent = full(k=np.arange(60)).with_columns(
        dr7objid=pl.when(pl.col("k") == 3).then(None).otherwise(pl.col("dr7objid"))
    )
    assert prepare_catalogue(absent, keep="k != 3").catalogue.frame.height == 59
    with pytest.raises(InputError, match=r"2 rows share an id .* in rows 1, 61"):
        prepare_catalogue(twice, keep=f"dr7objid = {IDS}")


def test_an_empty_text_is_no_id_and_blank_lines_at_the_end_are_no_rows(tmp_path):
    with pytest.raises(InputError, match=r"1 missing ids \(first: row 2\)"):
        prepare_catalogue(full(dr7objid=["a", " ", *(f"g{k}" for k in range(58))]))
    path = tmp_path / "t.csv"
    path.write_text(full().write_csv() + "\n\n")
    assert dict(prepare_catalogue(path).funnel)["rows in"] == 60


# --- files ---


def test_nothing_that_was_read_is_overwritten(tmp_path):
    table = tmp_path / "w.dropped.csv"
    full().write_csv(table)
    (tmp_path / "base.toml").write_text('extends = "gz2"\n')
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\n')
    before = table.read_bytes()
    prepared = prepare_catalogue(table, mapping=tmp_path / "mine.toml")
    assert {path.name for path in prepared.inputs} == {"w.dropped.csv", "mine.toml", "base.toml"}
    with pytest.raises(InputError, match=r"w\.dropped\.csv: would overwrite a file that"):
        write_preparation(prepared, tmp_path / "w.parquet")
    assert table.read_bytes() == before
    assert not (tmp_path / "w.parquet").exists()
    assert write_preparation(prepared, tmp_path / "other.parquet").is_file()
    os.symlink(table, tmp_path / "link.csv")
    with pytest.raises(InputError, match="would overwrite"):
        write_preparation(prepare_catalogue(tmp_path / "link.csv"), tmp_path / "w.parquet")


def test_provenance_that_can_not_be_read_is_a_note(tmp_path):
    full().write_csv(tmp_path / "t.csv")
    (tmp_path / "provenance.json").write_text("not json")
    prepared = prepare_catalogue(tmp_path / "t.csv")
    assert any("where t.csv came from is unknown: provenance.json" in note for note in prepared.notes)
    assert len(next(iter(prepared.origins.values()))["sha256"]) == 64


# --- dry run ---


def test_dry_run_says_all_that_was_asked_and_reads_back_the_same(capsys, tmp_path):
    votes(kind=["A  B", "A B"] * 30).write_csv(tmp_path / "v.csv")
    photometry().write_parquet(tmp_path / "p.parquet")
    (tmp_path / "m.toml").write_text(
        'extends = "paper"\n[columns]\n'
        "ellipticity = { expression = \"CASE WHEN kind = 'A  B' THEN 0.1 ELSE 0.2 END\" }\n"
    )
    asked = ["prepare", tmp_path / "v.csv", "--mapping", tmp_path / "m.toml", "--join", tmp_path / "p.parquet",
             "--keep", "redshift > 0.05", "--cosmology", "Planck18", "--sample", "10,9"]  # fmt: skip
    status, page, _ = run(capsys, *asked, "--dry-run")
    assert status == 0
    (tmp_path / "again.toml").write_text(page)
    status, _, said = run(capsys, *asked, "--out", tmp_path / "one.parquet")
    assert "asked to split" not in said
    again = [*asked[:2], "--mapping", tmp_path / "again.toml", *asked[4:6], "--out", tmp_path / "two.parquet"]
    status, _, said = run(capsys, *again)
    assert status == 0
    assert "asked to split" not in said
    one, two = (read_catalogue(tmp_path / name) for name in ("one.parquet", "two.parquet"))
    assert one.frame.equals(two.frame)
    assert one.frame["ellipticity"].to_list()[:2] == two.frame["ellipticity"].to_list()[:2]
    assert set(one.frame["ellipticity"]) == {0.1, 0.2}
    assert one.metadata["cosmology"] == two.metadata["cosmology"] == "Planck18"
    status, page, _ = run(capsys, "prepare", "--preset", "paper", "--balance", "--dry-run")
    assert tomllib.loads(page)["sample"] == "balanced"


def test_comments_of_a_dry_run_stay_comments(capsys, tmp_path):
    full().write_csv(tmp_path / "t.csv")
    (tmp_path / "m.toml").write_text('extends = "gz2"\n[columns]\nsersic_n = ["a\\npsf_fwhm = 99 \\u0007"]\n')
    _, page, _ = run(capsys, "prepare", tmp_path / "t.csv", "--mapping", tmp_path / "m.toml", "--dry-run")
    assert "psf_fwhm" not in tomllib.loads(page)
    assert "# sersic_n" in page


# --- mappings ---


def test_a_mapping_may_extend_a_file_and_take_back_what_that_says(tmp_path):
    (tmp_path / "survey").mkdir()
    (tmp_path / "base.toml").write_text(
        'extends = "gz2"\n[lacking]\nradius = "measure it"\n[[cuts]]\nname = "near"\nkeep = "redshift < 0.1"\n'
    )
    mine = tmp_path / "survey" / "mine.toml"
    mine.write_text(
        'extends = "../base.toml"\n[columns]\nredshift = false\nimage = ""\n[[cuts]]\nname = "b"\nkeep = "ra > 1"\n'
    )
    got = read_mapping(mine)
    assert {"redshift", "image"}.isdisjoint(got.columns)
    assert got.columns["radius"] == read_mapping("gz2").columns["radius"]
    assert [cut.name for cut in got.cuts] == ["near", "b"]
    assert got.lacking["radius"] == "measure it"
    assert got.lacking["psf_fwhm"] == read_mapping("gz2").lacking["psf_fwhm"]
    assert read_mapping({"extends": "gz2"}).name == "gz2, changed"
    (tmp_path / "base.toml").write_text('extends = "survey/mine.toml"\n')
    with pytest.raises(InputError, match="go round in a circle"):
        read_mapping(mine)


def test_a_byte_order_mark_is_no_part_of_a_mapping(tmp_path):
    (tmp_path / "m.toml").write_bytes(b'\xef\xbb\xbfname = "a"\n[columns]\n')
    assert read_mapping(tmp_path / "m.toml").name == "a"


def test_sample_and_split_of_the_mapping_and_of_the_options():
    shares = {**GZ2, "split": {"train": 0.5, "validation": 0.25, "test": 0.25}}
    assert splits(mapping=shares) == {"train": 30, "validation": 15, "test": 15}
    assert splits(mapping=shares, split=(40, 10, 10)) == {"train": 40, "validation": 10, "test": 10}
    some = {**GZ2, "sample": {"smooth": 10, "disk": 6}}
    assert splits(mapping=some)["unused"] == 44
    assert splits(mapping=some, sample=(3, 2))["unused"] == 55
    assert "unused" not in splits(mapping=some, sample="all")
    assert "unused" not in splits(mapping={**some, "sample": "all"})
    assert splits(mapping={**some, "sample": "balanced"})["unused"] == 60 - 2 * 28
    for asked in ({"sample": (5, 5)}, {"balance": True}, {"sample": "all"}):
        assert not any("asked to split" in note for note in prepare_catalogue(full(), preset="paper", **asked).notes)
    every = prepare_catalogue(full(), mapping={"extends": "paper", "sample": "all"})
    assert not any("asked" in note for note in every.notes)


def test_the_command_takes_all(capsys, tmp_path):
    full().write_csv(tmp_path / "t.csv")
    asked = ["prepare", tmp_path / "t.csv", "--preset", "paper", "--sample", "all", "--out", tmp_path / "c.parquet"]
    status, printed, _ = run(capsys, *asked, "--json")
    assert status == 0
    assert "unused" not in json.loads(printed)["splits"]


def test_rules_that_are_called_alike_are_two_lines_and_the_same_rule_is_one():
    long = "petroRad_r > 3.00000000000000000000000000000000000000000000000000000"
    funnel = prepare_catalogue(full(), keep=[f"{long}1", f"{long}2 AND redshift > 0.1", "ra > 1", "ra > 1"]).funnel
    names = [name for name, _ in funnel]
    assert len(names) == len(set(names)) == 5
    assert sum(n for _, n in funnel[:-1]) == funnel[-1][1]


# --- cosmologies ---


def test_the_cosmology_of_the_mapping_the_option_and_an_object():
    for asked, model, called in (
        ({"mapping": {**GZ2, "cosmology": "Planck18"}}, Planck18, "Planck18"),
        ({"cosmology": Planck18}, Planck18, "Planck18"),
        (
            {"cosmology": FlatLambdaCDM(100, 0.3)},
            FlatLambdaCDM(100, 0.3),
            "FlatLambdaCDM(name=None, H0=<Quantity 100.",
        ),
    ):
        got = prepare_catalogue(full(), **asked).catalogue
        kpc = got.frame["radius"] * model.kpc_proper_per_arcmin(got.frame["redshift"].to_numpy()).value / 60
        np.testing.assert_allclose(got.frame["radius_kpc"], kpc, rtol=1e-6)
        assert got.metadata["cosmology"].startswith(called)


def test_a_cosmology_that_nothing_is_made_with_is_said():
    own = full(radius_kpc=3.0, M_r=-20.0)
    prepared = prepare_catalogue(own, cosmology="Planck18")
    assert any("Planck18 is not used" in note for note in prepared.notes)
    assert "cosmology" not in prepared.catalogue.metadata
    assert (prepared.catalogue.frame["M_r"] == -20.0).all()  # the table's own
    alone = prepare_catalogue(full(M_r=-20.0)).catalogue
    assert (alone.frame["M_r"] == -20.0).all()
    assert alone.frame["radius_kpc"].null_count() == 0


def test_a_table_in_memory_with_integers_of_128_bits():
    table = CatalogTable(full().with_columns(pl.col("dr7objid").cast(pl.Int128)))
    assert prepare_catalogue(table).catalogue.frame["object_id"].dtype == pl.Int64


def test_the_seed_decides_who_is_drawn_and_is_kept():
    one, two, again = (prepare_catalogue(full(), sample=(9, 9), seed=seed).catalogue for seed in (1, 2, 1))
    drawn = [one.frame["split"] == "unused" for one in (one, two, again)]
    assert drawn[0].equals(drawn[2])
    assert not drawn[0].equals(drawn[1])
    assert (one.metadata["seed"], two.metadata["seed"]) == (1, 2)


def test_alpha_in_units_of_the_fwhm_says_so():
    got = prepare_catalogue(full(), psf="fwhm").catalogue
    np.testing.assert_allclose(got.frame["alpha"], full()["petroRad_r"] / full()["psfWidth_r"])
    assert got.metadata["alpha"] == "petroRad_r / FWHM_PSF, FWHM_PSF = psfWidth_r"
    assert got.metadata["alpha_psf"] == "fwhm"


def test_a_chosen_column_misses_what_the_mappings_did():
    table = full(other=np.where(np.arange(60) < 5, -9999.0, 17.0))
    chosen = prepare_catalogue(table, preset="gz2", columns={"magnitude": "other"}).catalogue.frame["magnitude"]
    assert chosen.null_count() == 5


def test_labels_of_a_model_are_no_catalogue_whatever_they_are_called(tmp_path):
    catalogue = prepare_catalogue(full()).catalogue
    path = tmp_path / "labels.parquet"
    write_table(CatalogTable(catalogue.frame, metadata={**catalogue.metadata, "kind": "labels"}), path)
    with pytest.raises(InputError, match="holds a model's labels"):
        read_catalogue(path)
