"""Training runs: one settings file, a complete run folder, and comparison of runs."""

import json
import shutil
import tomllib

import numpy as np
import polars as pl
import pytest
from astropy.io import fits

import truemorph as tm
from conftest import codes, run
from truemorph.bias.estimation import fit_transition
from truemorph.bias.transitions import MatrixTransition
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.classifiers import train as training
from truemorph.classifiers.checkpoint import load
from truemorph.classifiers.members import TrainingRows
from truemorph.commands.train import train_classifier
from truemorph.config import RunConfig, TrainingConfig, run_config, run_toml
from truemorph.errors import InputError
from truemorph.images.decode import decode
from truemorph.tables import CatalogTable, write_table

SMALL = {
    "image_size": 32, "crop": 1, "epochs": 2, "folds": 1, "batch_size": 32, "hidden": 32, "precision": "32-true",
}  # fmt: skip
SET = [part for key, value in SMALL.items() for part in (f"--{key.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def two_runs(catalogue, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    train_classifier(catalogue, out=folder / "naive", naive=True, settings=SMALL)
    intrinsic = ("M_r", "radius_kpc")
    train_classifier(catalogue, out=folder / "debiased", intrinsic=intrinsic, settings={**SMALL, "seeds": 2})
    return folder


def test_every_setting_is_documented():
    for model in (RunConfig, TrainingConfig):
        for name, field in model.model_fields.items():
            assert name == "training" or field.description, name


def test_a_dry_run_prints_the_whole_configuration_and_does_nothing(capsys, catalogue, tmp_path):
    status, out, err = run(capsys, "train", catalogue, "--out", tmp_path / "m", *SET, "--dry-run")
    assert (status, err) == (0, "")
    assert not (tmp_path / "m").exists()
    assert tomllib.loads(out)["training"]["image_size"] == 32
    assert "decoded images" in out  # description of cache
    (tmp_path / "run.toml").write_text(out)
    assert run(capsys, "train", tmp_path / "run.toml", "--dry-run")[1] == out
    _, out, _ = run(capsys, "train", tmp_path / "run.toml", "--epochs", "7", "--dry-run", "--json")
    assert json.loads(out)["training"]["epochs"] == 7


def test_settings_are_the_same_after_writing_and_reading(tmp_path):
    settings = {"features": ("a", "b"), "fits_limits": (0, 5), "where": ("z=1",), "fits_hdu": "SCI"}
    chosen = run_config("cat.parquet", **settings, out="model")
    (tmp_path / "run.toml").write_text(run_toml(chosen))
    assert run_config(tmp_path / "run.toml") == chosen
    assert chosen.training.fits_hdu == "SCI"


def test_another_preset_keeps_the_changes_of_a_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(run_toml(run_config("cat.parquet", epochs=7, out="m")))
    paper = run_config(file, preset="paper")
    assert (paper.preset, paper.training.backbone, paper.training.epochs) == ("paper", "resnet50_v1", 7)
    file.write_text('backbone = "resnet18"\nepochs = 7\n')
    own = run_config("cat.parquet", file, out="m", epochs=3)
    assert (own.training.backbone, own.training.epochs) == ("resnet18", 3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epoch": 3}, "no setting 'epoch'; nearest: epochs"),
        ({"epochs": "many"}, "setting training.epochs"),
        ({"preset": "fast"}, "unknown preset"),
        ({"out": None}, "no `out` is given"),
    ],
)
def test_wrong_settings_raise_errors(settings, says):
    with pytest.raises(InputError, match=says):
        run_config("cat.parquet", **{"out": "m", **settings})


def test_a_run_folder_is_complete(two_runs, catalogue):
    folder = two_runs / "debiased"
    assert {one.name for one in folder.iterdir()} == {
        "config.json", "model.safetensors", "README.md", "seen.parquet", "split.parquet", "history.csv", "run.toml",
        "metrics.json", "environment.json",
    }  # fmt: skip
    model = load(folder)
    assert run_config(folder / "run.toml").training == model.config
    assert model.described["transition"]["assumption"] == "true class fractions do not depend on alpha"
    assert model.described["catalogue"]["alpha"] == "petroRad_r / sigma_PSF, sigma_PSF = psfWidth_r / 2.3548"
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


@pytest.mark.slow
def test_runs_are_compared_in_one_report(capsys, two_runs, tmp_path):
    page = tmp_path / "runs.html"
    asked = ("--maps", "0", "--bootstrap", "0", "--json")
    status, out, _ = run(capsys, "report", two_runs / "naive", two_runs / "debiased", "--out", page, *asked)
    assert status == 0
    assert {row["labels"].partition(":")[0] for row in json.loads(out)["table"]} >= {"naive", "debiased"}
    differing = page.read_text().partition("Settings that differ")[2]
    for cells in (("naive", "True", "False"), ("seeds", "1", "2")):
        assert '<th scope="row">{}</th><td>{}</td><td>{}</td>'.format(*cells) in differing


@pytest.fixture(scope="module")
def counted(catalogue, tmp_path_factory):
    """The catalogue with numbers of votes; one image can't be read."""
    table, folder = read_catalogue(catalogue), tmp_path_factory.mktemp("counted")
    images = folder / "images"
    shutil.copytree(table.metadata["image_root"], images)
    broken = table.frame.filter(pl.col("split") == "train")[5]
    (images / broken["image"][0]).write_bytes(b"broken")
    frame = table.frame.with_columns(number=pl.lit(40))
    metadata = {**table.metadata, "image_root": str(images)}
    return write_table(CatalogTable(frame, table.units, metadata), folder / "cat.parquet"), broken["object_id"][0]


@pytest.mark.slow
@pytest.mark.parametrize("votes", ["soft", "counts"])
def test_training_on_votes(counted, tmp_path, monkeypatch, votes):
    path, broken = counted
    learned, columns = [], ("smooth_fraction", "disk_fraction")

    def kept(*values, **named):
        learned.append(TrainingRows(*values, **named))
        return learned[0]

    monkeypatch.setattr("truemorph.classifiers.members.TrainingRows", kept)
    settings = {**SMALL, "epochs": 1}
    trained = train_classifier(path, out=tmp_path / "m", votes=votes, vote_count="number", settings=settings)
    assert "galaxies-left-out" in codes(trained)
    assert pl.read_csv(tmp_path / "m" / "left_out.csv")["object_id"].to_list() == [broken]
    assert broken not in trained.model.seen["object_id"].to_list()
    whole, (rows,) = read_catalogue(path).frame, learned
    counts = np.rint(40 * whole.select(columns).to_numpy()).astype(int)
    fit = fit_transition(counts, whole["alpha"].to_numpy(), method="votes")
    # Each galaxy has its own votes, also after the one with a broken image.
    own = rows.frame.select("object_id").join(whole, on="object_id", maintain_order="left")
    fractions, alpha = own.select(columns).to_numpy(), own["alpha"].to_numpy()
    if votes == "soft":
        np.testing.assert_allclose(rows.votes, fractions)
        # T(α) of one vote is less steep than that of a majority.
        np.testing.assert_allclose(rows.evidence, fit.votes.transition.log_matrix(alpha))
    else:
        evidence = fit.votes.log_probabilities(np.rint(40 * fractions).astype(int), alpha)
        np.testing.assert_allclose(np.diff(rows.evidence, axis=1), np.diff(evidence, axis=1), rtol=1e-6)
    # Labels of a catalogue are majorities, so posteriors use their T(α).
    assert trained.model.transition == fit.transition


@pytest.mark.parametrize(
    "more", [{"votes": "counts"}, {"votes": "soft"}, {"votes": "soft", "vote_count": 40, "transition": "fit.json"}]
)
def test_training_on_votes_needs_their_number_and_no_transition_of_labels(catalogue, tmp_path, more):
    with pytest.raises(InputError, match="of single votes: give vote_count"):
        training.train_on_catalogue(run_config(catalogue, out=str(tmp_path / "m"), **more))


def test_soft_labels_may_be_treated_as_correct(catalogue, tmp_path):
    trained = train_classifier(catalogue, out=tmp_path, votes="soft", naive=True, settings={**SMALL, "epochs": 1})
    assert trained.model.transition == MatrixTransition.identity()


@pytest.mark.slow
def test_pixels_decoded_on_demand_give_the_same_result(catalogue, tmp_path, monkeypatch):
    first = train_classifier(catalogue, out=tmp_path / "memory", settings=SMALL).model.members[0]
    monkeypatch.setattr("truemorph.classifiers.train._PIXELS_IN_MEMORY", 0)
    second = train_classifier(catalogue, out=tmp_path / "files", settings=SMALL).model.members[0]
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


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
    trained = train_classifier(catalogue, out=tmp_path / "m", naive=True, settings=settings)
    assert trained.left_out == 0
    tm.label_galaxies(tmp_path / "m", folder, tmp_path / "labels.parquet", precision="fp32")
    labels = pl.read_parquet(tmp_path / "labels.parquet")
    assert labels["object_id"].to_list() == names
    # The same labels as for JPEGs of the same grey images.
    pixels = np.round(fits.getdata(folder / f"{names[0]}.fits")[::-1]).astype(np.uint8)
    assert trained.model.predict(np.stack([pixels] * 3, axis=-1)[None])["p_disk"][0] == pytest.approx(
        labels["p_disk"][0], abs=1e-5
    )


def test_a_finished_model_is_replaced_only_on_request_and_other_files_are_kept(catalogue, tmp_path):
    out, config = tmp_path / "m", {"preset": "dcv14", "settings": {"features": ["M_r"], "folds": 1}}
    train_classifier(catalogue, out=out, **config)
    (out / "notes.txt").write_text("mine")
    (out / "plots").mkdir()
    (out / "plots" / "a.png").write_text("mine")
    with pytest.raises(InputError, match="holds a finished model"):
        train_classifier(catalogue, out=out, naive=True, **config)
    assert load(out).transition != MatrixTransition.identity()
    train_classifier(catalogue, out=out, naive=True, overwrite=True, **config)
    assert load(out).transition == MatrixTransition.identity()
    assert (out / "notes.txt").read_text() == (out / "plots" / "a.png").read_text() == "mine"
    assert not list(tmp_path.glob(".m*"))
