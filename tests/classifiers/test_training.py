"""Training of networks, folds, and the checkpoint folder."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from conftest import stripes, tiny
from truemorph.bias.transitions import MatrixTransition, RayleighTransition, transition_to_dict
from truemorph.catalogs.prepare import prepare, write_preparation
from truemorph.classifiers.checkpoint import load, save_classifier
from truemorph.classifiers.members import TrainingRows, train_members
from truemorph.classifiers.train import train_on_catalogue
from truemorph.config import PRESETS, RunConfig, training_config
from truemorph.errors import CheckpointError, InputError, TruemorphError


def run(catalogue, out, config, **options):
    return train_on_catalogue(RunConfig(catalogue=str(catalogue), out=str(out), training=config, **options))


@pytest.fixture(scope="module")
def model_folder(catalogue, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "folds"
    run(catalogue, out, tiny(folds=3))
    return out


def test_evidence_instead_of_labels_gives_the_same_network():
    rows, _ = stripes(240)
    transition = RayleighTransition(11.25, false_disk=0.02)
    flips = transition.matrix(rows.column("alpha"))[np.arange(240), :, rows.column("label")]
    config = tiny(image_size=16, epochs=2)
    by_label = train_members(rows, transition, config)
    by_evidence = train_members(TrainingRows(rows.frame, rows.inputs, np.log(flips)), transition, config)
    for name, value in by_label.members[0].items():
        np.testing.assert_allclose(by_evidence.members[0][name], value, atol=2e-4)
    with pytest.raises(InputError, match="evidence must have shape"):
        train_members(TrainingRows(rows.frame, rows.inputs, np.log(flips)[:, :1]), transition, config)
    impossible = np.log(flips)
    impossible[7] = -np.inf
    with pytest.raises(InputError, match="row 7"):
        train_members(TrainingRows(rows.frame, rows.inputs, impossible), transition, config)


def disk_fraction_predicted(rows, transition):
    config = tiny(image_size=16, epochs=12, learning_rate=2e-3)
    return train_members(rows, transition, config).probabilities(rows.inputs)[:, 1]


@pytest.mark.slow
def test_with_a_transition_a_network_predicts_the_truth_and_without_it_the_labels():
    rows, truth = stripes(1_200)
    debiased = disk_fraction_predicted(rows, RayleighTransition(11.25))
    naive = disk_fraction_predicted(rows, MatrixTransition.identity())
    assert ((debiased > 0.5) == truth).mean() > 0.97
    labelled = rows.column("label")
    # For images of disks, the naive network predicts disks as often as the observed labels.
    assert naive[truth == 1].mean() == pytest.approx(labelled[truth == 1].mean(), abs=0.08)
    assert debiased.mean() == pytest.approx(truth.mean(), abs=0.03)


def test_the_same_seed_gives_the_same_weights():
    rows, _ = stripes(300)
    config = tiny(image_size=16)
    first, second = (train_members(rows, RayleighTransition(11.25), config) for _ in range(2))
    for name, value in first.members[0].items():
        np.testing.assert_array_equal(value, second.members[0][name])


def test_early_stopping_keeps_the_best_epoch():
    rows, _ = stripes(300)
    trained = train_members(rows, RayleighTransition(11.25), tiny(image_size=16, epochs=15, patience=2))
    losses = [epoch["held_out_loss"] for epoch in trained.history]
    assert trained.described["metrics"]["held_out_loss"] == pytest.approx(min(losses))
    assert len(losses) < 15 or losses.index(min(losses)) >= 12


def test_each_training_galaxy_is_left_out_of_one_fold(model_folder, catalogue):
    model = load(model_folder)
    frame = pl.read_parquet(catalogue)
    train = frame.filter(pl.col("split") == "train")["object_id"]
    outside = model.seen.filter(pl.col("role") == "out_of_fold")
    assert set(outside["object_id"]) == set(train)
    assert set(outside["fold"]) == {0, 1, 2}
    stopping = model.seen.filter(pl.col("role") == "early_stopping")
    assert set(stopping["object_id"]) == set(frame.filter(pl.col("split") == "validation")["object_id"])
    assert not set(model.seen["object_id"]) & set(frame.filter(pl.col("split") == "test")["object_id"])


def test_the_checkpoint_folder_describes_the_model(model_folder):
    assert {p.name for p in model_folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
        "seen.parquet",
        "history.csv",
        "run.toml",
        "metrics.json",
        "environment.json",
        "split.parquet",
    }
    described = json.loads((model_folder / "config.json").read_text())
    assert described["classes"] == ["smooth", "disk"]
    assert described["image_size"] == 32
    assert described["transition"]["family"] == "rayleigh"
    assert described["transition"]["assumption"] == "true class fractions do not depend on alpha"
    assert described["catalogue"]["alpha"] == "petroRad_r / sigma_PSF, sigma_PSF = psfWidth_r / 2.3548"
    assert len(described["catalogue"]["sha256"]) == 64


def test_saved_and_loaded_models_agree(model_folder, tmp_path):
    model = load(model_folder)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    again = load(save_classifier(model, tmp_path / "copy"))
    np.testing.assert_array_equal(model.probabilities(pixels), again.probabilities(pixels))
    assert again.model_hash == model.model_hash
    table = again.predict(pixels)
    np.testing.assert_allclose(table["p_smooth"] + table["p_disk"], 1)


def test_a_model_of_an_older_version_loads(model_folder, tmp_path):
    model = load(model_folder)
    old = save_classifier(model, tmp_path / "old")
    described = json.loads((old / "config.json").read_text())
    kept = (
        "classifier",
        "folds",
        "seed",
        "backbone",
        "pretrained",
        "hidden",
        "dropout",
        "image_size",
        "crop",
        "epochs",
    )
    described["training"] = {key: described["training"][key] for key in kept}
    del described["temperatures"], described["start"], described["sha256"]
    (old / "config.json").write_text(json.dumps(described))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    again = load(old)
    assert again.temperatures == [1.0] * 3
    members = [(model.member_probabilities(pixels, m), again.member_probabilities(pixels, m)) for m in range(3)]
    for (now, then), t in zip(members, model.temperatures, strict=True):
        np.testing.assert_allclose(np.log(now[:, 1] / now[:, 0]) * t, np.log(then[:, 1] / then[:, 0]), rtol=1e-3)


def test_predict_accepts_paths_and_reports_unreadable_ones(model_folder, simulated, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    good = sorted((simulated / "images").iterdir())[:3]
    table = load(model_folder).predict([*good, tmp_path / "bad.jpg"])
    assert table["problem"].is_null().to_list() == [True, True, True, False]
    assert table["p_disk"].is_null().to_list() == [False, False, False, True]
    with pytest.raises(InputError, match="uint8"):
        load(model_folder).predict(np.zeros((2, 8, 8, 3), np.int64))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "seen.parquet"])
def test_a_flipped_bit_in_a_model_is_refused(model_folder, tmp_path, name):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    content = (copy / name).read_bytes()
    rng = np.random.default_rng(1)
    for place in rng.integers(0, len(content), 40):
        bit = 1 << int(rng.integers(8))
        flipped = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        (copy / name).write_bytes(flipped)
        if name == "config.json" and _same_json(flipped, content):  # such as white space
            continue
        with pytest.raises((CheckpointError, InputError)):
            load(copy)


def _same_json(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("key", "value"),
    [("members", 10**9), ("members", 2.5), ("classes", []), ("temperatures", [0.0]), ("training", {"epochs": -1}),
     ("normalisation", {"middle": [0]}), ("transition", {"family": "rayleigh"}), ("format_version", None)],
)  # fmt: skip
def test_an_altered_config_gives_one_line_that_names_the_key(model_folder, tmp_path, key, value):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    described = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**described, key: value}))
    with pytest.raises((CheckpointError, InputError)) as caught:
        load(copy)
    assert key in str(caught.value) or "theta" in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_damaged_and_other_folders_raise_errors(model_folder, tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        load(tmp_path)
    copy = save_classifier(load(model_folder), tmp_path / "model")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="damaged"):
        load(copy)
    described = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**described, "format_version": 99}))
    with pytest.raises(CheckpointError, match="newer"):
        load(copy)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="not a truemorph model"):
        save_classifier(load(model_folder), precious)
    assert (precious / "thesis.tex").read_text() == "years"


def test_a_new_model_replaces_an_old_one(model_folder, tmp_path):
    model = load(model_folder)
    save_classifier(model, tmp_path / "model")
    model.described["metrics"] = {"second": 2}
    assert load(save_classifier(model, tmp_path / "model")).described["metrics"] == {"second": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_unreadable_images_are_left_out_of_training_and_listed(simulated, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in (simulated / "images").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    broken = sorted(images.iterdir())[10]
    broken.write_bytes(broken.read_bytes()[:200])
    prepared = prepare(simulated / "votes.csv", images=images, split=(0.9, 0.1, 0.0))
    out = write_preparation(prepared, tmp_path / "catalogue.parquet").out
    result = run(out, tmp_path / "model", tiny(epochs=1), naive=True)
    assert result.left_out == 1
    assert result.rows == prepared.catalogue.frame.height - 1
    assert broken.stem in (tmp_path / "model" / "left_out.csv").read_text()
    assert int(broken.stem) not in load(tmp_path / "model").seen["object_id"]


def test_settings_are_checked():
    for preset in ("paper", "standard"):
        assert training_config(preset).image_size == 207
        assert training_config(preset).hidden == 1024
        assert training_config(preset).crop == pytest.approx(207 / 424)
    assert training_config("standard").backbone == "resnet50"
    with pytest.raises(InputError, match="unknown preset"):
        training_config("huge")
    with pytest.raises(InputError, match="setting epochs"):
        training_config("quick", epochs=0)


def test_settings_from_a_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('backbone = "resnet18"\nepochs = 7\n')
    settings = training_config("quick", path, epochs=3)
    assert (settings.backbone, settings.epochs) == ("resnet18", 3)
    path.write_text("epoch = 7\n")
    with pytest.raises(InputError, match="setting epoch"):
        training_config("quick", path)
    path.write_text("epochs = = 7\n")
    with pytest.raises(InputError, match="not valid TOML"):
        training_config("quick", path)


@pytest.mark.parametrize(
    ("frame_change", "config_change", "says"),
    [
        ({"split": pl.lit("test")}, {}, "has no train galaxies"),
        ({"label": pl.lit(0)}, {}, "no training galaxy is labelled disk"),
        ({}, {"backbone": "resnet5000"}, "timm has no backbone"),
        ({}, {"folds": 20}, "training galaxies for 20 folds"),
    ],
)
def test_unusable_training_data_raise_errors(frame_change, config_change, says):
    rows, _ = stripes(40)
    rows = TrainingRows(rows.frame.with_columns(**frame_change), rows.inputs)
    config = tiny(image_size=16, batch_size=8, **config_change)
    with pytest.raises(InputError, match=says):
        train_members(rows, RayleighTransition(11.25), config)


def test_theta_in_another_unit_raises_an_error(catalogue, tmp_path):
    fit = {**transition_to_dict(RayleighTransition(5.0)), "alpha_psf": "fwhm"}
    (tmp_path / "fit.json").write_text(json.dumps(fit))
    with pytest.raises(InputError, match="units of the PSF's fwhm"):
        run(catalogue, tmp_path / "m", tiny(), transition=str(tmp_path / "fit.json"))


def test_the_papers_network_is_resnet50_dense_1024_relu_and_classes():
    import torch

    from truemorph.classifiers.network import GalaxyNetwork

    network = GalaxyNetwork(PRESETS["paper"]).eval()
    assert [type(layer).__name__ for layer in network.head] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert (network.head[0].in_features, network.head[0].out_features) == (2048, 1024)
    assert network.head[2].p == 0.0
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 207, 207)).shape == (2, 2)


def test_preset_paper_is_the_recipe_of_the_papers_lineage():
    import torch

    from truemorph.classifiers.module import DebiasedModule
    from truemorph.classifiers.network import GalaxyNetwork
    from truemorph.images.transforms import Augmentation, normalise

    config = PRESETS["paper"]
    network = GalaxyNetwork(config)
    strides = [
        (block.conv1.stride, block.conv2.stride) for block in (network.backbone.layer2[0], network.backbone.layer3[0])
    ]
    assert strides == [((2, 2), (1, 1))] * 2  # ResNet50 v1
    module = DebiasedModule(network, config, None, None, None, None, 0)
    assert module.judged is network  # no averaging
    optimizer = module.configure_optimizers()  # no schedule
    assert optimizer.defaults["lr"] == 1e-4
    assert optimizer.defaults["weight_decay"] == 0  # AdamW without weight decay is Adam
    pixels = torch.full((1, 2, 2, 3), 51, dtype=torch.uint8)
    assert torch.allclose(normalise(pixels, module.mean, module.std), torch.tensor(0.2))
    maps = Augmentation(config.flip, config.rotation, config.shift, config.zoom).draw(3, torch.Generator())
    assert torch.equal(maps, torch.eye(2, 3).expand(3, 2, 3))


def test_adamw_without_weight_decay_is_adam():
    import torch

    start = torch.linspace(-1, 1, 5)
    ends = []
    for kind in (torch.optim.AdamW, torch.optim.Adam):
        one = start.clone().requires_grad_()
        optimizer = kind([one], lr=0.1, weight_decay=0.0)
        for _ in range(5):
            optimizer.zero_grad()
            (one**4).sum().backward()
            optimizer.step()
        ends.append(one.detach())
    assert torch.equal(*ends)


def test_diverged_training_raises_an_error(catalogue, tmp_path):
    with pytest.raises(TruemorphError, match="diverged"):
        run(catalogue, tmp_path / "model", tiny(learning_rate=1e30, epochs=1))
    assert not (tmp_path / "model").exists()


def test_an_existing_output_raises_an_error_before_training(catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr("truemorph.classifiers.members.train_members", lambda *_: pytest.fail("trained first"))
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.json").write_text("{}")
    (project / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    for out in (project, tmp_path / "file"):
        with pytest.raises(InputError, match=r"choose another folder|is a file"):
            run(catalogue, out, tiny())
    assert (project / "thesis.tex").read_text() == "years"


def test_logistic_regression_trains_on_validation_galaxies_too(catalogue, tmp_path):
    config = training_config("dcv14", features=("M_r",), folds=2)
    result = run(catalogue, tmp_path / "model", config)
    frame = pl.read_parquet(catalogue)
    assert result.rows == frame.filter(pl.col("split") != "test").height
    assert set(load(tmp_path / "model").seen["role"]) == {"out_of_fold"}


@pytest.mark.parametrize("backbone", ["resnet10t.c3_in1k", "test_vit"])
def test_backbones_with_tags_and_fixed_sizes(backbone):
    import torch

    from truemorph.classifiers.network import GalaxyNetwork

    network = GalaxyNetwork(tiny(backbone=backbone, image_size=64)).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 2)


def test_a_backbone_that_does_not_support_the_size_raises_an_error():
    from truemorph.classifiers.network import GalaxyNetwork

    with pytest.raises(InputError, match="inception_v3 can't take 64-pixel images"):
        GalaxyNetwork(tiny(backbone="inception_v3", image_size=64))
