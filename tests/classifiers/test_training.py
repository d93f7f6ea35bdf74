"""Training: folds, early stopping, unusable data, and the model folder."""

import json
import resource
import shutil
from contextlib import suppress
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import codes, stripes, tiny
from truemorph import Finding, MatrixTransition, RayleighTransition, load, read_table, write_table
from truemorph.classifiers.checkpoint import save_classifier
from truemorph.classifiers.members import TrainingRows, train_members
from truemorph.classifiers.train import train_on_catalogue
from truemorph.config import RunConfig, training_config
from truemorph.errors import CheckpointError, InputError, TruemorphError

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def run(catalogue, out, config, **options):
    return train_on_catalogue(RunConfig(catalogue=str(catalogue), out=str(out), training=config, **options))


@pytest.fixture(scope="module")
def model_folder(catalogue, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "folds"
    run(catalogue, out, tiny(folds=3))
    return out


def test_early_stopping_keeps_the_best_epoch():
    rows, _ = stripes(300)
    trained = train_members(rows, RayleighTransition(11.25), tiny(image_size=32, epochs=15, patience=2))
    losses = [epoch["held_out_loss"] for epoch in trained.history]
    assert trained.described["metrics"]["held_out_loss"] == pytest.approx(min(losses))
    assert len(losses) < 15 or losses.index(min(losses)) >= 12


def test_each_training_galaxy_is_left_out_of_one_fold(model_folder, catalogue):
    model, frame = load(model_folder), pl.read_parquet(catalogue)
    outside = model.seen.filter(pl.col("role") == "out_of_fold")
    assert set(outside["object_id"]) == set(frame.filter(pl.col("split") == "train")["object_id"])
    assert set(outside["fold"]) == {0, 1, 2}
    stopping = model.seen.filter(pl.col("role") == "early_stopping")
    assert set(stopping["object_id"]) == set(frame.filter(pl.col("split") == "validation")["object_id"])
    assert not set(model.seen["object_id"]) & set(frame.filter(pl.col("split") == "test")["object_id"])


def test_saved_and_loaded_models_agree_and_a_new_model_replaces_an_old_one(model_folder, tmp_path):
    model = load(model_folder)
    again = load(save_classifier(model, tmp_path / "copy"))
    np.testing.assert_array_equal(model.probabilities(PIXELS), again.probabilities(PIXELS))
    assert again.model_hash == model.model_hash
    again.described["metrics"] = {"second": 2}
    assert load(save_classifier(again, tmp_path / "copy")).described["metrics"] == {"second": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_predict_accepts_paths_and_reports_unreadable_ones(model_folder, simulated, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    good = sorted((simulated / "images").iterdir())[:3]
    table = load(model_folder).predict([*good, tmp_path / "bad.jpg"])
    assert table["problem"].is_null().to_list() == [True, True, True, False]
    assert table["p_disk"].is_null().to_list() == [False, False, False, True]
    np.testing.assert_allclose((table["p_smooth"] + table["p_disk"])[:3], 1)
    assert load(model_folder).predict([None])["problem"].is_not_null().all()
    for wrong in (None, 7, np.array(0.5)):
        with pytest.raises(InputError):
            load(model_folder).predict(wrong)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "seen.parquet", "held_out.parquet"])
def test_a_flipped_bit_in_a_model_is_refused(model_folder, tmp_path, name):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    content = (copy / name).read_bytes()
    rng = np.random.default_rng(1)
    # In the keys and values of config.json, not in its white space.
    places = np.flatnonzero(~np.isin(np.frombuffer(content, np.uint8), list(b" \n")))
    checksums = places[places > content.find(b'"sha256"')] if name == "config.json" else []
    for place in [*rng.choice(places, 40), *checksums]:
        flipped = bytes([content[place] ^ (1 << rng.integers(5))])
        changed = content[:place] + flipped + content[place + 1 :]
        with suppress(ValueError):  # another last digit may be the same number
            if json.loads(changed) == json.loads(content):
                continue
        (copy / name).write_bytes(changed)
        with pytest.raises((CheckpointError, InputError)):
            load(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("members", 10**9),
        ("training", 1),
        ("temperatures", [1.0] * 9),
        ("transition", {"family": "rayleigh", "parameters": {"theta": 9}, "findings": ["x"]}),
        ("metrics", {"held_out_loss": "small"}),
        ("classes", ["smooth", "disk\x00"]),
        ("classes", ["disk", "disk"]),
        ("classes", ["smooth", "label"]),  # a column of the labels, p_label, that posteriors have too
    ],
)
def test_an_altered_config_gives_one_line(model_folder, tmp_path, key, value):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    described = json.loads((copy / "config.json").read_text())
    del described["sha256"]  # as in version 0.1
    (copy / "config.json").write_text(json.dumps({**described, key: value}))
    with pytest.raises(CheckpointError, match=rf"^[^\n]*{key}[^\n]*$"):
        load(copy)


def test_a_deeply_nested_config_is_refused_and_findings_need_no_action(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    described = json.loads((copy / "config.json").read_text())
    del described["sha256"]
    described["transition"]["findings"] = [{"code": "no-drift", "severity": "note", "message": "None."}]
    (copy / "config.json").write_text(json.dumps(described))
    assert load(copy).findings[0] == Finding("no-drift", "note", "None.")
    described["catalogue"] = "nested"
    text = json.dumps(described).replace('"nested"', '{"rows": ' + "[" * 700 + "]" * 700 + "}")
    (copy / "config.json").write_text(text)
    with pytest.raises(CheckpointError):
        load(copy)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("resnet18", {"layers": [9999] * 4}),
        ("resnet50", {"base_width": 9000}),
        ("vit_tiny_patch16_224", {"img_size": 2_000_000}),
        ("vit_giant_patch14_224", {}),
    ],
)
def test_a_description_of_a_network_larger_than_its_weights_is_refused_at_once(model_folder, architecture, arguments):
    model = load(model_folder)
    model.networks()  # what is imported needs memory too
    model.described["built"] = {"architecture": architecture, "arguments": arguments}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError):
        model.networks()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_other_folders_are_not_models_and_are_not_replaced(model_folder, tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "file").write_text("x")
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("config.json", "thesis.tex"):
        (precious / name).write_text("years")
    for out in (precious, tmp_path / "file"):
        with pytest.raises(InputError, match=out.name):
            save_classifier(load(model_folder), out)
        with pytest.raises(InputError, match=out.name):  # before anything is read
            run(tmp_path / "no catalogue", out, tiny())
    assert {one.read_text() for one in precious.iterdir()} == {"years"}


def test_unusable_training_data_raise_errors():
    rows = stripes(40)[0]
    for columns, folds, says in (
        ({"split": pl.lit("test")}, 1, "has no train galaxies"),
        ({"label": pl.lit(0)}, 1, "no training galaxy is labelled disk"),
        ({}, 20, "training galaxies for 20 folds"),
    ):
        changed = TrainingRows(rows.frame.with_columns(**columns), rows.inputs)
        with pytest.raises(InputError, match=says):
            train_members(changed, RayleighTransition(11.25), tiny(image_size=32, batch_size=8, folds=folds))


@pytest.mark.parametrize(("preset", "settings"), [("dcv14", {"features": ["covariate"]}), ("quick", {})])
def test_a_bias_curve_of_other_classes_is_refused(tmp_path, preset, settings):
    three, galaxies = MatrixTransition.identity(3), tm.simulate_catalogue(300)
    with pytest.raises(InputError, match="3 classes"):
        tm.train_classifier(galaxies, out=tmp_path / "m", transition=three, preset=preset, settings=settings)


def test_diverged_training_raises_an_error(catalogue, tmp_path):
    with pytest.raises(TruemorphError, match="diverged"):
        run(catalogue, tmp_path / "model", tiny(learning_rate=1e30, epochs=1))
    assert not (tmp_path / "model").exists()


def test_logistic_regression_trains_on_validation_galaxies_too(catalogue, tmp_path):
    result = run(catalogue, tmp_path / "model", training_config("dcv14", features=("M_r",), folds=2))
    frame = pl.read_parquet(catalogue)
    assert result.rows == frame.filter(pl.col("split") != "test").height
    assert set(result.model.seen["role"]) == {"out_of_fold"}


def test_a_fit_at_its_bound_is_not_used_for_training_unless_it_is_given(catalogue, tmp_path):
    """Labels of disks only, most of them flipped: all could be disks."""
    table = read_table(catalogue)
    alpha = table.frame["alpha"].to_numpy()
    seen = np.random.default_rng(0).random(alpha.size) > RayleighTransition(30.0).flip_probability(alpha)
    changed = replace(table, frame=table.frame.with_columns(label=pl.Series(seen.astype(int))))
    write_table(changed, tmp_path / "disks.parquet")
    fit = tm.estimate_transition(tmp_path / "disks.parquet", out=tmp_path / "fit.json", compare=False)
    assert "fraction-at-bound" in codes(fit)
    with pytest.raises(InputError, match="transition"):
        run(tmp_path / "disks.parquet", tmp_path / "model", tiny(epochs=1))
    trained = run(tmp_path / "disks.parquet", tmp_path / "model", tiny(epochs=1), transition=str(tmp_path / "fit.json"))
    assert "fraction-at-bound" in codes(trained)
