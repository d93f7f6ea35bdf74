"""Networks: architectures, initial weights, trained layers, kinds of observations, ensembles and calibration."""

import json
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.resnet import Bottleneck

from conftest import stripes, tiny
from truemorph import DebiasedLoss, MatrixTransition, RayleighTransition, load
from truemorph.classifiers.checkpoint import save_classifier
from truemorph.classifiers.members import TrainingRows, train_members
from truemorph.classifiers.module import DebiasedModule, across_devices, fit_temperature
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.config import PRESETS
from truemorph.errors import CheckpointError, InputError
from truemorph.images.transforms import random_maps

THETA = RayleighTransition(11.25)


def test_the_papers_network_is_resnet50_dense_1024_relu_and_classes():
    network = GalaxyNetwork(PRESETS["paper"]).eval()
    assert [type(layer).__name__ for layer in network.head] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert (network.head[0].in_features, network.head[0].out_features) == (2048, 1024)
    assert network.head[2].p == 0.0
    for block in (network.backbone.layer2[0], network.backbone.layer3[0]):
        assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))  # ResNet50 v1
    # Initial weights and batch norms of keras.applications.ResNet50, except the last batch norm of each block.
    last = [block.bn3 for block in network.modules() if isinstance(block, Bottleneck)]
    assert len(last) == 16
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert (layer.weight == (not any(layer is one for one in last))).all()
            assert (1 - layer.momentum, layer.eps) == (0.99, 1.001e-5)
        elif isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            out, inputs, *window = layer.weight.shape
            limit = (6 / (np.prod(window) * (inputs + out))) ** 0.5
            assert 0.9 * limit < layer.weight.abs().max() <= limit
            assert layer.bias is None or (layer.bias == 0).all()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 207, 207)).shape == (2, 2)


def test_preset_paper_is_the_recipe_of_the_papers_lineage():
    config, rows = PRESETS["paper"].model_copy(update={"backbone": "test_resnet"}), stripes(10)[0]
    assert (config.image_size, config.crop) == (207, pytest.approx(207 / 424))
    assert config.precision == "32-true"
    network = GalaxyNetwork(config)
    module = DebiasedModule(network, config, rows, np.arange(5), np.arange(5), 0)
    assert module.judged is network  # no averaging
    optimizer = module.configure_optimizers()  # no schedule
    assert optimizer.defaults["lr"] == 1e-4
    assert optimizer.defaults["weight_decay"] == 0  # AdamW without weight decay is Adam
    pixels = torch.full((1, 2, 2, 3), 51, dtype=torch.uint8)
    assert torch.allclose(network.normalised(pixels), torch.tensor(0.2))
    maps = random_maps(config, 3, torch.Generator())
    assert torch.equal(maps, torch.eye(2, 3).expand(3, 2, 3))


@pytest.mark.parametrize(
    ("backbone", "pretrained", "says"),
    [
        ("inception_v3", False, "inception_v3 can't take 64-pixel images"),
        ("resnet5000", False, "timm has no backbone"),
        ("resnet50_v1", True, "there are no published weights"),
    ],
)
def test_backbones_that_cannot_be_made_raise_errors(backbone, pretrained, says):
    with pytest.raises(InputError, match=says):
        GalaxyNetwork(tiny(backbone=backbone, image_size=64), pretrained=pretrained)


@pytest.fixture
def encoder(tmp_path):
    """Two timm models, saved in all ways in which one has weights on disk; that in a folder has its own mean colour."""
    torch.manual_seed(3)
    state, other = (
        timm.create_model("test_resnet").state_dict(),
        timm.create_model("test_vit", img_size=32).state_dict(),
    )
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"encoder.{name}": value for name, value in state.items()}}, tmp_path / "w.ckpt")
    torch.save(state, tmp_path / "w.pt")
    (tmp_path / "vit").mkdir()
    about = {"architecture": "test_vit", "model_args": {"img_size": 32}, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (tmp_path / "vit" / "config.json").write_text(json.dumps(about))
    save_file(other, tmp_path / "vit" / "model.safetensors")
    return tmp_path, state, other


@pytest.mark.parametrize("name", ["w.safetensors", "w.ckpt", "w.pt", "vit"])
def test_a_backbone_starts_from_weights_on_disk(encoder, capsys, name):
    folder, *states = encoder
    of_folder = name == "vit"
    state = states[of_folder]
    backbone = f"{folder}/vit" if of_folder else f"test_resnet:{folder}/{name}"
    network = GalaxyNetwork(tiny(backbone=backbone, image_size=32), pretrained=True)
    own = network.backbone.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own)
    assert f"all {len(own)} tensors" in capsys.readouterr().err
    assert torch.equal(network.mean, torch.tensor([0.1, 0.2, 0.3])) == of_folder
    about = {"built": network.built, "normalisation": network.normalisation}
    again = GalaxyNetwork(tiny(image_size=32), described=about)
    assert torch.equal(again.mean, network.mean)
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("name", "pretrained", "says"),
    [
        ("test_resnet:{}/w.pt", False, "pretrained"),
        ("{}/w.pt", True, "which architecture"),
        ("test_resnet:{}/absent.pt", True, "no such file"),
        ("test_vit:{}/w.pt", True, "absent"),
        ("test_resnet:{}/code.pt", True, "can't be read"),
        ("test_resnet:{}/small.safetensors", True, "another shape"),
        ("{}/empty", True, "config.json"),
        ("resnet5000:{}/w.pt", True, "resnet5000"),
    ],
)
def test_weights_on_disk_that_do_not_fit_are_refused_and_nothing_in_them_is_executed(encoder, name, pretrained, says):
    folder, state, _ = encoder
    (folder / "empty").mkdir()
    save_file({key: value.flatten()[:1].clone() for key, value in state.items()}, folder / "small.safetensors")
    torch.save({"state_dict": Executed(folder / "executed")}, folder / "code.pt")
    with pytest.raises(InputError, match=says):
        GalaxyNetwork(tiny(backbone=name.format(folder), image_size=32), pretrained=pretrained)
    assert not (folder / "executed").exists()


class Executed:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_description_of_a_model_cannot_make_timm_read_files():
    reads = {"checkpoint_path": "w.pth", "pretrained_cfg": {"file": "w"}, "pretrained_cfg_overlay": {}, "pretrained": 1}
    described = [("test_vit", {name: value}) for name, value in reads.items()]
    for architecture, arguments in (*described, ("hf_hub:someone/model", {}), ("local-dir:models", {})):
        with pytest.raises(InputError, match=architecture):
            GalaxyNetwork(tiny(), described={"built": {"architecture": architecture, "arguments": arguments}})


def test_a_model_from_a_hub_is_loaded_offline(monkeypatch, tmp_path):
    """The hub has one encoder: a transformer for 48 pixels."""
    reachable, size, made = [True], 48, timm.create_model

    def config_of(model_id, *_, **__):
        if not reachable[0]:
            raise OSError("no network")
        assert model_id == "someone/my-own"
        return {}, "test_vit", {"img_size": size}

    def create(name, pretrained=False, **options):
        if name != "hf_hub:someone/my-own":
            return made(name, pretrained=False, **options)
        _, architecture, arguments = config_of("someone/my-own")
        return made(architecture, pretrained=False, **{**arguments, **options})

    monkeypatch.setattr("truemorph.classifiers.network.timm.create_model", create)
    monkeypatch.setattr("truemorph.classifiers.network.timm.models.load_model_config_from_hf", config_of)
    pixels = np.random.default_rng(0).integers(0, 256, (100, size, size, 3), dtype=np.uint8)
    rows = TrainingRows(stripes(100)[0].frame, pixels)
    config = tiny(image_size=size, backbone="hf_hub:someone/my-own", pretrained=True)
    trained = train_members(rows, THETA, config)
    assert trained.described["built"] == {"architecture": "test_vit", "arguments": {"img_size": size}}
    reachable[0] = False
    with pytest.raises(InputError, match="hf_hub:someone/my-own"):
        GalaxyNetwork(config, pretrained=True)
    model = load(save_classifier(trained, tmp_path / "model"))
    np.testing.assert_allclose(model.probabilities(pixels[:5]), trained.probabilities(pixels[:5]))
    other = {"architecture": "test_vit", "arguments": {"img_size": 32}}
    with pytest.raises(CheckpointError, match=str(tmp_path)):  # its weights do not fit
        load(
            save_classifier(replace(model, described=model.described | {"built": other}), tmp_path / "other")
        ).networks()


def test_synchronised_batch_norms_keep_their_activations(monkeypatch):
    torch.manual_seed(0)
    config = tiny(backbone="test_efficientnet")
    net = GalaxyNetwork(config).eval()
    images = torch.randn(2, 3, 32, 32)
    alone = net(images)
    assert across_devices(net, config) is net
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    spread = across_devices(net, config)
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in spread.modules())
    torch.testing.assert_close(spread(images), alone)


@pytest.mark.slow
def test_with_fine_tuning_only_the_head_changes_or_early_layers_change_less():
    def moved(name, **settings):
        """Mean change of weights whose name begins so."""
        config = tiny(image_size=32, backbone="test_vit2", **settings)
        trained = train_members(stripes(300)[0], THETA, config).members[0]
        lightning.seed_everything(config.seed, verbose=False)
        start = GalaxyNetwork(config).state_dict()
        return np.mean(
            [np.abs(trained[key] - one.numpy()).mean() for key, one in start.items() if key.startswith(name)]
        )

    assert moved("backbone.", finetune="head") == 0
    assert moved("head.", finetune="head") > 0
    # The ratio of learning rates is 0.1 to the power of the number of layers above.
    first = "backbone.blocks.0.attn.qkv.weight"
    assert moved(first, finetune="layers", layer_decay=0.1) < 0.1 * moved(first)


def test_a_network_learns_with_the_debiasing_loss_from_labels_and_evidence():
    rows, every = stripes(240)[0], np.arange(240)
    labels, alpha = rows.column("label"), rows.column("alpha")
    transition = RayleighTransition(11.25, false_disk=0.02)
    evidence = replace(rows, evidence=rows.through(transition))
    logits = torch.randn(240, 2, generator=torch.Generator().manual_seed(0))
    expected = DebiasedLoss(transition, "none")(logits, torch.tensor(labels), torch.tensor(alpha))
    config = tiny(image_size=32)
    module = DebiasedModule(GalaxyNetwork(config), config, evidence, every, every, 0)
    torch.testing.assert_close(module.loss(logits, evidence.observed(every)), expected)


@pytest.mark.slow
def test_with_a_transition_a_network_predicts_the_truth_and_without_it_the_labels():
    (rows, truth), config = stripes(900), tiny(image_size=32, epochs=8, learning_rate=3e-3)
    debiased, naive = (
        train_members(rows, transition, config).probabilities(rows.inputs)[:, 1]
        for transition in (THETA, MatrixTransition.identity())
    )
    assert ((debiased > 0.5) == truth).mean() > 0.97
    labelled = rows.column("label")
    # For images of disks, the naive network predicts disks as often as the observed labels.
    assert naive[truth == 1].mean() == pytest.approx(labelled[truth == 1].mean(), abs=0.08)
    assert debiased.mean() == pytest.approx(truth.mean(), abs=0.03)


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_networks():
    rows, _ = stripes(300)
    model = train_members(rows, THETA, tiny(image_size=32, folds=2, seeds=2))
    assert len(model.members) == 4
    each = [model.member_probabilities(rows.inputs[:5], member) for member in range(4)]
    np.testing.assert_allclose(model.probabilities(rows.inputs[:5]), np.mean(each, axis=0))
    assert not np.allclose(each[0], each[1])
    # Probabilities use the temperature of each member.
    hot = {**model.described, "temperatures": [2 * temperature for temperature in model.temperatures]}
    flatter = replace(model, described=hot).member_probabilities(rows.inputs[:5], 0)
    np.testing.assert_allclose(
        2 * np.log(flatter[:, 1] / flatter[:, 0]), np.log(each[0][:, 1] / each[0][:, 0]), rtol=1e-4
    )


def test_the_temperature_calibrates_probabilities_of_the_true_class():
    # Logits are twice the correct values, and labels are biased by T(α).
    rng = np.random.default_rng(0)
    n = 20_000
    right = rng.normal(0, 1.5, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-right))
    alpha = rng.lognormal(2.2, 0.4, n)
    labels = (truth & (rng.random(n) >= THETA.flip_probability(alpha))).astype(int)
    logits = torch.from_numpy(np.column_stack([np.zeros(n), 2 * right]))
    observed = {"labels": torch.from_numpy(labels), "alpha": torch.from_numpy(alpha), "weights": torch.ones(n)}

    def through(transition):
        loss = DebiasedLoss(transition, "none")
        return fit_temperature(lambda at, seen: loss(at, seen["labels"], seen["alpha"]), logits, observed)

    found = through(THETA)
    # For known classes, the error of log T is 1 / sqrt(n · mean(p(1-p) r²)) from the curvature of the likelihood;
    # the bias removes about half of the information.
    p = 1 / (1 + np.exp(-right))
    error = 2 / np.sqrt(0.4 * n * np.mean(p * (1 - p) * right**2))
    assert found == pytest.approx(2, abs=4 * error)
    assert abs(through(MatrixTransition.identity()) - 2) > 4 * error
