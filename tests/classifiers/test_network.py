"""Networks: initial weights, trained layers, and all kinds of training data."""

import lightning
import numpy as np
import polars as pl
import pytest
import timm
import torch

from conftest import stripes, tiny
from truemorph.bias.transitions import LogisticTransition, MatrixTransition, RayleighTransition
from truemorph.classifiers import network
from truemorph.classifiers.callbacks import KeepState, Unfinished
from truemorph.classifiers.checkpoint import Classifier, load, save_classifier
from truemorph.classifiers.members import TrainingRows, train_members
from truemorph.classifiers.module import across_devices, fit_temperature, loggers_for
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.errors import InputError, TruemorphError

THETA = RayleighTransition(11.25)


def learning(**changes):
    return tiny(image_size=16, epochs=12, learning_rate=2e-3, **changes)


@pytest.fixture
def no_network(monkeypatch):
    """Make downloads of weights fail, as on a machine without internet."""

    def create(name, pretrained=False, **options):
        if pretrained or name.startswith("hf_hub:"):
            raise OSError("no network")
        return made(name, pretrained=False, **options)

    made = timm.create_model
    monkeypatch.setattr("truemorph.classifiers.network.timm.create_model", create)
    monkeypatch.setattr("truemorph.classifiers.network.timm.models.load_model_config_from_hf", create)


@pytest.mark.parametrize("backbone", ["test_resnet", "hf_hub:mwalmsley/zoobot-encoder-convnext_nano"])
def test_without_internet_training_starts_from_random_weights(no_network, backbone):
    network = GalaxyNetwork(tiny(backbone=backbone, pretrained=True), pretrained=True)
    assert network.start == "random"
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def on_a_hub(monkeypatch, reachable):
    """A hub with one encoder: a transformer for 48 pixels, with an uninformative name."""

    def config_of(model_id, *_, **__):
        if not reachable[0]:
            raise OSError("no network")
        assert model_id == "someone/my-own"
        return {}, "test_vit", {"img_size": 48}

    def create(name, pretrained=False, **options):
        if name != "hf_hub:someone/my-own":
            return made(name, pretrained=False, **options)
        _, architecture, arguments = config_of("someone/my-own")
        return made(architecture, pretrained=False, **{**arguments, **options})

    made = timm.create_model
    monkeypatch.setattr("truemorph.classifiers.network.timm.create_model", create)
    monkeypatch.setattr("truemorph.classifiers.network.timm.models.load_model_config_from_hf", config_of)


def test_a_model_from_a_hub_is_loaded_and_resumed_offline(monkeypatch, tmp_path):
    reachable, size = [True], 48
    on_a_hub(monkeypatch, reachable)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (90, size, size, 3), dtype=np.uint8)
    split = np.where(np.arange(90) < 70, "train", "validation")
    frame = pl.DataFrame({"object_id": np.arange(90), "label": np.arange(90) % 2, "alpha": np.ones(90), "split": split})
    rows = TrainingRows(frame, pixels)
    config = tiny(image_size=size, backbone="hf_hub:someone/my-own", pretrained=True)
    whole = train_members(rows, THETA, config)
    assert whole.described["start"] == "hf_hub:someone/my-own"
    assert whole.described["built"] == {"architecture": "test_vit", "arguments": {"img_size": size}}

    class CutError(Exception):
        pass

    def cut(self, trainer):
        keep(self, trainer)
        raise CutError

    keep, unfinished = KeepState._save, Unfinished(tmp_path / "run")
    unfinished.begin({})
    monkeypatch.setattr(KeepState, "_save", cut)
    with pytest.raises(CutError):
        train_members(rows, THETA, config, unfinished=unfinished)
    monkeypatch.setattr(KeepState, "_save", keep)
    reachable[0] = False
    trained = train_members(rows, THETA, config, unfinished=unfinished)
    for key in ("start", "normalisation"):
        assert trained.described[key] == whole.described[key]
    model = load(save_classifier(trained, tmp_path / "model"))
    np.testing.assert_allclose(model.probabilities(pixels[:5]), whole.probabilities(pixels[:5]))


def test_members_of_an_ensemble_start_from_the_same_weights(monkeypatch, tmp_path):
    reachable, rows = [True], stripes(300)[0]
    on_a_hub(monkeypatch, reachable)
    config = tiny(image_size=16, backbone="test_vit", seeds=2, epochs=1, pretrained=True)
    finish = Unfinished.finish

    def and_then_no_network(self, *arguments):
        finish(self, *arguments)
        monkeypatch.setattr("truemorph.classifiers.network._backbone_for", unreachable)

    def unreachable(name, pretrained, size):
        if pretrained:
            raise OSError("no network")
        return backbone_for(name, pretrained, size)

    backbone_for = network._backbone_for
    monkeypatch.setattr(Unfinished, "finish", and_then_no_network)
    with pytest.raises(TruemorphError, match="started from test_vit weights, this one would start from random ones"):
        train_members(rows, THETA, config, unfinished=Unfinished(tmp_path))


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
    assert any(isinstance(one, torch.nn.SyncBatchNorm) for one in spread.modules())
    torch.testing.assert_close(spread(images), alone)


def test_a_hub_name_without_an_architecture_raises_an_error(no_network):
    with pytest.raises(InputError, match="doesn't end with an architecture"):
        GalaxyNetwork(tiny(backbone="hf_hub:someone/my-own", pretrained=True), pretrained=True)


def test_only_the_head_is_trained_with_that_setting():
    rows, _ = stripes(300)
    config = tiny(image_size=16, finetune="head")
    torch.manual_seed(0)
    trained = train_members(rows, THETA, config)
    lightning.seed_everything(config.seed, verbose=False)
    start = GalaxyNetwork(config).state_dict()
    for name, value in trained.members[0].items():
        same = np.array_equal(value, start[name].numpy())
        assert same == name.startswith("backbone."), name


def test_deeper_layers_change_less_with_layer_decay():
    rows, _ = stripes(300)

    def moved(**changes):
        config = tiny(image_size=16, backbone="test_vit2", **changes)
        trained = train_members(rows, THETA, config)
        lightning.seed_everything(config.seed, verbose=False)
        start = GalaxyNetwork(config).state_dict()
        first = "backbone.blocks.0.attn.qkv.weight"
        return float(np.abs(trained.members[0][first] - start[first].numpy()).mean())

    # The ratio of learning rates is 0.1 to the power of the number of layers above.
    assert moved(finetune="layers", layer_decay=0.1) < 0.1 * moved()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["soft_labels", "votes"])
def test_soft_labels_and_votes_recover_the_truth(what):
    rows, truth = stripes(1_200)
    alpha = rows.column("alpha")
    shown = np.where(truth == 1, 1 - THETA.flip_probability(alpha), 0.0)
    votes = np.random.default_rng(1).binomial(20, shown)
    soft = np.column_stack([20 - votes, votes])
    soft = soft / 20 if what == "soft_labels" else soft
    given = TrainingRows(rows.frame, rows.inputs, soft_labels=soft)
    model = train_members(given, THETA, learning())
    p = model.probabilities(rows.inputs)[:, 1]
    assert ((p > 0.5) == truth).mean() > 0.97
    assert p.mean() == pytest.approx(truth.mean(), abs=0.03)


def test_a_soft_label_of_one_class_is_equivalent_to_a_label():
    rows, _ = stripes(240)
    config = tiny(image_size=16)
    soft = TrainingRows(rows.frame, rows.inputs, soft_labels=np.eye(2)[rows.column("label")])
    hard, same = (train_members(one, THETA, config).members[0] for one in (rows, soft))
    for name, value in hard.items():
        np.testing.assert_allclose(same[name], value, atol=2e-4)


@pytest.mark.slow
def test_each_transition_applies_to_its_own_galaxies():
    rows, truth = stripes(1_200)
    alpha = rows.column("alpha")
    # Two surveys: in one, flips are random; in the other, they follow T(α).
    survey = np.where(np.arange(1_200) % 2, "deep", "shallow")
    rng = np.random.default_rng(3)
    flip = np.where(survey == "deep", 0.02, THETA.flip_probability(alpha))
    labels = np.where((truth == 1) & (rng.random(1_200) < flip), 0, truth)
    frame = rows.frame.with_columns(label=pl.Series(labels), transition=pl.Series(survey))
    each = {"deep": MatrixTransition([[1, 0], [0.02, 0.98]]), "shallow": THETA}
    model = train_members(TrainingRows(frame, rows.inputs), each, learning())
    p = model.probabilities(rows.inputs)[:, 1]
    assert ((p > 0.5) == truth).mean() > 0.97
    with pytest.raises(InputError, match="no T\\(alpha\\) named 'shallow'"):
        train_members(TrainingRows(frame, rows.inputs), {"deep": THETA}, learning())
    with pytest.raises(InputError, match="transition"):
        train_members(rows, each, learning())


@pytest.mark.slow
def test_flips_that_depend_on_several_observables():
    rows, truth = stripes(1_200)
    rng = np.random.default_rng(4)
    observables = np.column_stack([rows.column("alpha"), rng.normal(22, 1, 1_200)])
    nan = float("nan")
    flips = LogisticTransition(
        [[[0, 0, 0], [nan, nan, nan]], [[0.0, -2.0, 1.5], [0, 0, 0]]],
        center=(2.302585, 22.0), scale=(1.0, 1.0), log=(True, False),
    )  # fmt: skip
    labels = np.where((truth == 1) & (rng.random(1_200) < flips.flip_probability(observables)), 0, truth)
    frame = rows.frame.with_columns(label=pl.Series(labels))
    model = train_members(TrainingRows(frame, rows.inputs, resolution=observables), flips, learning())
    p = model.probabilities(rows.inputs)[:, 1]
    assert ((p > 0.5) == truth).mean() > 0.97
    assert "fraction_disk_5" in model.history[0]
    with pytest.raises(InputError, match="needs 2 observables"):
        train_members(TrainingRows(frame, rows.inputs), flips, learning())


def three_kinds(n=900, seed=0):
    """Constant images, horizontal gradients and vertical gradients: three classes that are easy to separate."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    ramp = np.linspace(0, 200, 16)
    kinds = np.stack([np.full((16, 16), 100.0), np.tile(ramp, (16, 1)), np.tile(ramp, (16, 1)).T])
    images = kinds[truth] + rng.normal(0, 20, (n, 16, 16))
    pixels = np.repeat(np.clip(images, 0, 255).astype(np.uint8)[..., None], 3, axis=3)
    return pixels, truth


@pytest.mark.slow
def test_three_classes_and_their_names(tmp_path):
    pixels, truth = three_kinds()
    flips = np.array([[0.9, 0.05, 0.05], [0.4, 0.6, 0.0], [0.3, 0.1, 0.6]])
    rng = np.random.default_rng(5)
    labels = np.array([rng.choice(3, p=flips[y]) for y in truth])
    split = np.where(np.arange(900) < 700, "train", "validation")
    frame = pl.DataFrame({"object_id": np.arange(900), "label": labels, "alpha": np.ones(900), "split": split})
    names = ("smooth", "disk", "ring")
    # Rotated by 90°, the two gradients are the same.
    config = learning(rotation="none", flip=False)
    model = train_members(TrainingRows(frame, pixels, classes=names), MatrixTransition(flips), config)
    assert (model.probabilities(pixels).argmax(axis=1) == truth).mean() > 0.95
    assert {"fraction_disk_1", "fraction_ring_5"} <= set(model.history[0])
    table = load(save_classifier(model, tmp_path / "model")).predict(pixels[:4])
    assert table.columns == ["image", "p_smooth", "p_disk", "p_ring", "label", "problem"]
    with pytest.raises(InputError, match="2 classes, but the catalogue has 3"):
        train_members(TrainingRows(frame, pixels, classes=names), THETA, config)


def test_an_ensemble_is_the_mean_of_its_networks():
    rows, _ = stripes(300)
    model = train_members(rows, THETA, tiny(image_size=16, folds=2, seeds=2))
    assert len(model.members) == 4
    each = [model.member_probabilities(rows.inputs[:5], member) for member in range(4)]
    np.testing.assert_allclose(model.probabilities(rows.inputs[:5]), np.mean(each, axis=0))
    assert not np.allclose(each[0], each[1])


def test_the_temperature_calibrates_probabilities_of_the_true_class():
    # Logits are twice the correct values, and labels are biased by T(α).
    rng = np.random.default_rng(0)
    n = 20_000
    right = rng.normal(0, 1.5, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-right))
    alpha = rng.lognormal(2.2, 0.4, n)
    labels = (truth & (rng.random(n) >= THETA.flip_probability(alpha))).astype(int)
    logits = torch.from_numpy(np.column_stack([np.zeros(n), 2 * right]))
    flips = torch.from_numpy(THETA.log_matrix(alpha))[torch.arange(n), :, torch.from_numpy(labels)]
    found = fit_temperature(logits, flips, torch.ones(n))
    # For known classes, the error of log T is 1 / sqrt(n · mean(p(1-p) r²)) from the curvature of the likelihood;
    # the bias removes about half of the information.
    p = 1 / (1 + np.exp(-right))
    error = 2 / np.sqrt(0.4 * n * np.mean(p * (1 - p) * right**2))
    assert found == pytest.approx(2, abs=4 * error)
    naive = torch.log(torch.nn.functional.one_hot(torch.from_numpy(labels), 2).double())
    assert abs(fit_temperature(logits, naive, torch.ones(n)) - 2) > 4 * error


def test_probabilities_of_a_model_use_its_temperature():
    rows, _ = stripes(300)
    model = train_members(rows, THETA, tiny(image_size=16))
    cool = Classifier({**model.described, "temperatures": [1.0]}, model.members, model.seen)
    p, raw = model.probabilities(rows.inputs[:9]), cool.probabilities(rows.inputs[:9])
    np.testing.assert_allclose(
        np.log(p[:, 1] / p[:, 0]) * model.temperatures[0], np.log(raw[:, 1] / raw[:, 0]), rtol=1e-4
    )


def test_configured_loggers_are_made(monkeypatch, tmp_path):
    assert loggers_for(tiny(), tmp_path, "train") == []
    made = []
    for name in ("TensorBoardLogger", "WandbLogger", "MLFlowLogger"):
        monkeypatch.setattr(f"lightning.pytorch.loggers.{name}", lambda *_, _name=name, **__: made.append(_name))
    loggers_for(tiny(loggers=["mlflow", "tensorboard"]), tmp_path, "train")
    assert made == ["MLFlowLogger", "TensorBoardLogger"]

    def absent(*_, **__):
        raise ModuleNotFoundError("No module named 'wandb'", name="wandb")

    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", absent)
    with pytest.raises(InputError, match="logger wandb is not installed: pip install wandb"):
        loggers_for(tiny(loggers=["wandb"]), tmp_path, "train")
