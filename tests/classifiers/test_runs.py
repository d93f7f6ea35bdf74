"""A training run as a user meets it: one file of settings, a folder that tells everything, runs side by side."""

import json
import tomllib

import numpy as np
import polars as pl
import pytest

from conftest import run
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.tables import CatalogTable, write_table
from truemorph.classifiers.checkpoint import load
from truemorph.cli import main
from truemorph.config import RunConfig, TrainingConfig, run_config, run_toml
from truemorph.errors import InputError

SMALL = {
    "image_size": 32, "crop": 1, "epochs": 2, "folds": 1, "batch_size": 32, "hidden": 32, "precision": '"32-true"',
}  # fmt: skip
SET = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def two_runs(catalogue, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for name, more in (("naive", ["--naive"]), ("debiased", ["--intrinsic", "M_r,radius_kpc", "--set", "seeds=2"])):
        main(["train", str(catalogue), "--out", str(folder / name), *SET, *more])
    return folder


def test_every_setting_is_documented():
    for model in (RunConfig, TrainingConfig):
        for name, field in model.model_fields.items():
            assert name == "training" or field.description, name


def test_a_dry_run_prints_the_whole_configuration_and_does_nothing(capsys, catalogue, tmp_path):
    status, out, err = run(capsys, "train", catalogue, "--out", tmp_path / "m", *SET, "--dry-run")
    assert (status, err) == (0, "")
    assert not (tmp_path / "m").exists()
    settings = tomllib.loads(out)
    assert settings["training"]["image_size"] == 32
    assert "decoded images" in out  # what cache is
    (tmp_path / "run.toml").write_text(out)
    assert run(capsys, "train", tmp_path / "run.toml", "--dry-run")[1] == out
    _, out, _ = run(capsys, "train", tmp_path / "run.toml", "--set", "epochs=7", "--dry-run", "--json")
    assert json.loads(out)["training"]["epochs"] == 7


def test_settings_survive_their_file(tmp_path):
    chosen = run_config(
        "cat.parquet", ["features=['a', 'b']", "fits_limits=[0, 5]", "where=['z=1']", "fits_hdu=SCI"], out="model"
    )
    (tmp_path / "run.toml").write_text(run_toml(chosen))
    assert run_config(tmp_path / "run.toml") == chosen
    assert chosen.training.fits_hdu == "SCI"


@pytest.mark.parametrize(
    ("assignments", "says"),
    [
        (["epoch=3"], "no setting 'epoch'; did you mean epochs"),
        (["epochs"], "KEY=VALUE"),
        (["epochs=many"], "setting training.epochs"),
        (["preset=fast"], "unknown preset"),
    ],
)
def test_wrong_assignments_are_named(assignments, says):
    with pytest.raises(InputError, match=says):
        run_config("cat.parquet", assignments, out="m")
    with pytest.raises(InputError, match="--out"):
        run_config("cat.parquet")


def test_a_run_folder_tells_everything(two_runs, catalogue):
    folder = two_runs / "debiased"
    assert {one.name for one in folder.iterdir()} == {
        "config.json", "model.safetensors", "README.md", "seen.parquet", "split.parquet", "history.csv", "run.toml",
        "metrics.json", "environment.json",
    }  # fmt: skip
    again = run_config(folder / "run.toml")
    assert again.training == load(folder).config
    split = pl.read_parquet(folder / "split.parquet")
    assert split.equals(read_catalogue(catalogue).frame.select("object_id", "split"))
    environment = json.loads((folder / "environment.json").read_text())
    assert {"torch", "truemorph", "cpus", "finished", "command"} <= set(environment)
    history = pl.read_csv(folder / "history.csv")
    assert history["member"].to_list() == [0, 0, 1, 1]
    assert {"train_loss", "held_out_loss", "fraction_disk_1", "fraction_disk_5", "cv18_excess"} <= set(history.columns)
    assert "cv14_excess" in pl.read_csv(two_runs / "naive" / "history.csv").columns
    assert json.loads((folder / "metrics.json").read_text())["held_out_loss"] == pytest.approx(
        history.group_by("member").agg(pl.col("held_out_loss").min())["held_out_loss"].mean()
    )


def test_runs_side_by_side(capsys, two_runs, tmp_path):
    page = tmp_path / "runs.html"
    status, out, _ = run(capsys, "report", two_runs / "naive", two_runs / "debiased", "--out", page, "--json")
    assert status == 0
    content = json.loads(out)["runs"]
    assert content["naive"]["settings"] == {"intrinsic": [], "naive": True, "seeds": 1}
    assert content["debiased"]["settings"]["seeds"] == 2
    history = pl.read_csv(two_runs / "naive" / "history.csv")
    best = history.row(int(history["held_out_loss"].arg_min()), named=True)
    assert content["naive"]["measures"]["fraction_disk_1"] == pytest.approx(best["fraction_disk_1"])
    html = page.read_text()
    assert "<script" not in html
    assert "Settings that differ" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    for wrong, says in (([tmp_path], "not a finished run"), ([], "give one run folder")):
        status, _, err = run(capsys, "report", *wrong)
        assert (status, err.count("\n")) == (2, 1)
        assert says in err


def test_votes_instead_of_labels(capsys, catalogue, tmp_path):
    table = read_catalogue(catalogue)
    counted = CatalogTable(table.frame.with_columns(number=pl.lit(40)), table.units, table.metadata)
    write_table(counted, tmp_path / "cat.parquet")
    models = {}
    for votes, more in (("soft", []), ("counts", ["--set", "vote_count=number"])):
        options = ["train", tmp_path / "cat.parquet", "--out", tmp_path / votes, *SET, "--set", f"votes={votes}", *more]
        status, _, err = run(capsys, *options)
        assert status == 0, err
        models[votes] = load(tmp_path / votes)
    assert models["soft"].described["transition"]["family"] == "rayleigh"
    assert "beta-binomial" in models["counts"].described["transition"]["assumption"]
    status, _, err = run(capsys, "train", catalogue, "--out", tmp_path / "m", *SET, "--set", "votes=counts")
    assert status == 2
    assert "vote_count" in err


def test_pixels_kept_for_the_next_run(capsys, catalogue, tmp_path, monkeypatch):
    options = ["train", catalogue, *SET, "--cache", tmp_path / "pixels"]
    assert run(capsys, *options, "--out", tmp_path / "first")[0] == 0
    monkeypatch.setattr("truemorph.images.store.load_image", lambda *_: pytest.fail("decoded again"))
    assert run(capsys, *options, "--out", tmp_path / "second")[0] == 0
    first, second = (load(tmp_path / name) for name in ("first", "second"))
    for name, value in first.members[0].items():
        np.testing.assert_array_equal(value, second.members[0][name])


def test_pixels_decoded_when_wanted_teach_the_same(capsys, catalogue, tmp_path, monkeypatch):
    assert run(capsys, "train", catalogue, *SET, "--out", tmp_path / "memory")[0] == 0
    monkeypatch.setattr("truemorph.workflow.training._PIXELS_IN_MEMORY", 0)
    assert run(capsys, "train", catalogue, *SET, "--out", tmp_path / "files")[0] == 0
    first, second = (load(tmp_path / name) for name in ("memory", "files"))
    for name, value in first.members[0].items():
        np.testing.assert_array_equal(value, second.members[0][name])
