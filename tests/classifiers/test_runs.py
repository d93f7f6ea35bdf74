"""Training runs: one settings file, a complete run folder, and comparison of runs."""

import json
import tomllib

import numpy as np
import polars as pl
import pytest
from astropy.io import fits

import truemorph as tm
from conftest import TINY, run
from truemorph import MatrixTransition, load, train_classifier
from truemorph.config import RunConfig, TrainingConfig, options_in, run_config, run_toml
from truemorph.errors import InputError
from truemorph.images.decode import decode
from truemorph.io import lock

SMALL = {**TINY, "folds": 1}
SET = [part for key, value in SMALL.items() for part in (f"--{key.replace('_', '-')}", str(value))]


def test_every_setting_is_documented():
    for model in (RunConfig, TrainingConfig):
        for name, field in model.model_fields.items():
            assert name == "training" or field.description, name


def test_a_dry_run_prints_the_whole_configuration_and_does_nothing(capsys, catalogue, tmp_path):
    status, out, err = run(capsys, "train", catalogue, "--out", tmp_path / "m", *SET, "--dry-run")
    assert (status, err) == (0, "")
    assert not (tmp_path / "m").exists()
    assert tomllib.loads(out)["train"]["image-size"] == 32
    assert "decoded images" in out  # description of cache
    (tmp_path / "run.toml").write_text(out)
    assert run(capsys, "train", "--config", tmp_path / "run.toml", "--dry-run")[1] == out
    _, out, _ = run(capsys, "train", "--config", tmp_path / "run.toml", "--epochs", "7", "--dry-run", "--json")
    assert json.loads(out)["training"]["epochs"] == 7


def test_settings_are_the_same_after_writing_and_reading(capsys, tmp_path):
    settings = {
        "features": ("a", "b"), "fits_limits": (0, 5), "fits_hdu": "SCI",
        "epochs": 7, "devices": 2, "clip": 1e-5, "loggers": ("wandb", "mlflow"), "calibrate": False,
    }  # fmt: skip
    where = ("z=1", "name='A  \"B\"'")
    chosen = run_config("cat.parquet", settings, where=where, out="model", preset="quick")
    file = tmp_path / "run.toml"
    file.write_text(run_toml(chosen))
    again = json.loads(run(capsys, "train", "--config", file, "--dry-run", "--json")[1])
    assert RunConfig.model_validate(again) == chosen
    assert chosen.training.fits_hdu == "SCI"
    # Another preset keeps the changes of a file, and options have priority over both.
    changed = ("--preset", "paper", "--backbone", "resnet18", "--epochs", "3", "--dry-run", "--json")
    paper = json.loads(run(capsys, "train", "--config", file, *changed)[1])["training"]
    assert [paper[name] for name in ("backbone", "epochs", "standardise", "calibrate")] == ["resnet18", 3, False, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "says"),
    [({"epoch": 3}, "epoch: unknown key; nearest: epochs"), ({"epochs": "many"}, "setting training.epochs")],
)
def test_wrong_settings_raise_errors(settings, says):
    with pytest.raises(InputError, match=says):
        run_config("cat.parquet", settings, out="m")
    with pytest.raises(InputError):
        run_config("cat.parquet", settings)


@pytest.mark.slow
def test_a_run_folder_is_complete(catalogue, tmp_path):
    folder = tmp_path / "model"
    train_classifier(catalogue, out=folder, settings={**SMALL, "seeds": 2})
    assert {one.name for one in folder.iterdir()} == {
        "config.json", "model.safetensors", "README.md", "seen.parquet", "history.csv", "run.toml",
        "environment.json", "held_out.parquet",
    }  # fmt: skip
    model = load(folder)
    assert options_in(folder / "run.toml")["epochs"] == model.config.epochs
    assert model.described["transition"]["assumption"] == "true class fractions do not depend on alpha"
    assert model.described["catalogue"]["alpha"] == "petroRad_r / sigma_PSF, sigma_PSF = psfWidth_r / 2.3548"
    environment = json.loads((folder / "environment.json").read_text())
    assert {"torch", "truemorph", "cpus", "finished", "command"} <= set(environment)
    history = pl.read_csv(folder / "history.csv")
    assert history["member"].to_list() == [0, 0, 1, 1]
    assert {"train_loss", "held_out_loss", "fraction_disk_1", "fraction_disk_5", "cv14_excess"} <= set(history.columns)
    assert model.described["metrics"]["held_out_loss"] == pytest.approx(
        history.group_by("member").agg(pl.col("held_out_loss").min())["held_out_loss"].mean()
    )


@pytest.mark.slow
def test_a_second_process_does_not_train_in_the_same_folder(catalogue, tmp_path):
    with lock(tmp_path / "m" / "unfinished" / ".lock"), pytest.raises(InputError, match=str(tmp_path / "m")):
        train_classifier(catalogue, out=tmp_path / "m", settings=SMALL)


@pytest.mark.slow
def test_fits_images_in_training_and_labelling(simulated, tmp_path):
    folder = tmp_path / "fits"
    folder.mkdir()
    names = sorted(path.stem for path in (simulated / "images").iterdir())
    for number, name in enumerate(names):
        grey = decode((simulated / "images" / f"{name}.jpg").read_bytes()).mean(axis=2).astype(np.float32)
        fits.PrimaryHDU(grey).writeto(folder / f"{name}.fits{'.gz' if number % 2 else ''}")
    pl.read_csv(simulated / "votes.csv").drop("image", strict=False).write_csv(tmp_path / "votes.csv")
    catalogue = tm.prepare_catalogue(tmp_path / "votes.csv", images=folder, out=tmp_path / "cat.parquet").out
    settings = {**SMALL, "fits_stretch": "linear", "fits_limits": (0, 255)}
    trained = train_classifier(catalogue, out=tmp_path / "m", labels="naive", settings=settings)
    assert trained.left_out == 0
    tm.label_galaxies(tmp_path / "m", folder, tmp_path / "labels.parquet")
    labels = pl.read_parquet(tmp_path / "labels.parquet")
    assert labels["object_id"].to_list() == names
    # The same labels as for JPEGs of the same grey images.
    pixels = np.round(fits.getdata(folder / f"{names[0]}.fits")[::-1]).astype(np.uint8)
    same = trained.model.predict(np.stack([pixels] * 3, axis=-1)[None])
    assert same["p_disk"][0] == pytest.approx(labels["p_disk"][0], abs=1e-5)


def test_a_finished_model_is_replaced_only_on_request_and_other_files_are_kept(catalogue, tmp_path):
    out, config = tmp_path / "m", {"preset": "dcv14", "settings": {"features": ["M_r"], "folds": 1}}
    train_classifier(catalogue, out=out, **config)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=str(out)):
        train_classifier(catalogue, out=out, labels="naive", **config)
    assert load(out).transition != MatrixTransition.identity()
    train_classifier(catalogue, out=out, labels="naive", overwrite=True, **config)
    assert load(out).transition == MatrixTransition.identity()
    assert (out / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".m*"))
