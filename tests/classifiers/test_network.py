"""The network's start, what of it is trained, and everything it can learn from."""

import lightning
import numpy as np
import polars as pl
import pytest
import timm
import torch

from conftest import stripes, tiny
from truemorph.bias.transitions import MatrixTransition, RayleighTransition
from truemorph.classifiers.checkpoint import Classifier, describe, load, save_classifier
from truemorph.classifiers.heldout import fit_temperature
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.classifiers.training import TrainingRows, train_members
from truemorph.errors import InputError, TruemorphWarning

THETA = RayleighTransition(11.25)


def classifier(rows, transition, config):
    trained = train_members(rows, transition, config)
    source = dict.fromkeys(("alpha", "source", "rows", "sha256", "votes"), "a test")
    described = describe(
        config, {"family": "any", "parameters": {}}, catalogue=source, members=len(trained.members), metrics={},
        normalisation={"mean": trained.mean, "std": trained.std}, temperatures=trained.temperatures,
        classes=rows.classes,
    )  # fmt: skip
    return Classifier(described, trained.members, trained.seen), trained


def learning(**changes):
    return tiny(image_size=16, epochs=12, learning_rate=2e-3, **changes)


@pytest.fixture
def no_network(monkeypatch):
    """Weights that can't be fetched, as on a machine without a network."""

    def create(name, pretrained=False, **options):
        if pretrained or name.startswith("hf_hub:"):
            raise OSError("no network")
        return made(name, pretrained=False, **options)

    made = timm.create_model
    monkeypatch.setattr("truemorph.classifiers.network.timm.create_model", create)


@pytest.mark.parametrize("backbone", ["test_resnet", "hf_hub:mwalmsley/zoobot-encoder-convnext_nano"])
def test_without_the_network_published_weights_give_way_to_a_random_start(no_network, backbone):
    with pytest.warns(TruemorphWarning, match="starting from random ones; connect to the network"):
        network = GalaxyNetwork(tiny(backbone=backbone, pretrained=True), pretrained=True)
    assert network.start == "random"
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_a_hub_name_without_an_architecture_in_it_says_so(no_network):
    with (
        pytest.raises(InputError, match="doesn't end with an architecture"),
        pytest.warns(TruemorphWarning),
    ):
        GalaxyNetwork(tiny(backbone="hf_hub:someone/my-own", pretrained=True), pretrained=True)


def test_only_the_head_is_trained_if_that_is_asked_for():
    rows, _ = stripes(300)
    config = tiny(image_size=16, finetune="head")
    torch.manual_seed(0)
    _, trained = classifier(rows, THETA, config)
    lightning.seed_everything(config.seed, verbose=False)
    start = GalaxyNetwork(config).state_dict()
    for name, value in trained.members[0].items():
        same = np.array_equal(value, start[name].numpy())
        assert same == name.startswith("backbone."), name


def test_deeper_layers_move_less_with_layer_decay():
    rows, _ = stripes(300)

    def moved(**changes):
        config = tiny(image_size=16, backbone="test_vit2", **changes)
        _, trained = classifier(rows, THETA, config)
        lightning.seed_everything(config.seed, verbose=False)
        start = GalaxyNetwork(config).state_dict()
        first = "backbone.blocks.0.attn.qkv.weight"
        return float(np.abs(trained.members[0][first] - start[first].numpy()).mean())

    # Fewer steps count: the ratio of the rates is 0.1 to the number of layers above.
    assert moved(finetune="layers", layer_decay=0.1) < 0.1 * moved()


@pytest.mark.parametrize("what", ["soft_labels", "votes"])
def test_soft_labels_and_votes_find_the_truth(what):
    rows, truth = stripes(1_200)
    alpha = rows.column("alpha")
    shown = np.where(truth == 1, 1 - THETA.flip_probability(alpha), 0.0)
    votes = np.random.default_rng(1).binomial(20, shown)
    soft = np.column_stack([20 - votes, votes])
    soft = soft / 20 if what == "soft_labels" else soft
    given = TrainingRows(rows.frame, rows.inputs, soft_labels=soft)
    model, _ = classifier(given, THETA, learning())
    p = model.probabilities(rows.inputs)[:, 1]
    assert ((p > 0.5) == truth).mean() > 0.97
    assert p.mean() == pytest.approx(truth.mean(), abs=0.03)


def test_a_soft_label_of_one_class_is_a_label():
    rows, _ = stripes(240)
    config = tiny(image_size=16)
    soft = TrainingRows(rows.frame, rows.inputs, soft_labels=np.eye(2)[rows.column("label")])
    hard, same = (train_members(one, THETA, config).members[0] for one in (rows, soft))
    for name, value in hard.items():
        np.testing.assert_allclose(same[name], value, atol=2e-4)


def test_several_transitions_each_for_its_own_galaxies():
    rows, truth = stripes(1_200)
    alpha = rows.column("alpha")
    # Two surveys, of which one flips at random and the other as T(α) says.
    survey = np.where(np.arange(1_200) % 2, "deep", "shallow")
    rng = np.random.default_rng(3)
    flip = np.where(survey == "deep", 0.02, THETA.flip_probability(alpha))
    labels = np.where((truth == 1) & (rng.random(1_200) < flip), 0, truth)
    frame = rows.frame.with_columns(label=pl.Series(labels), transition=pl.Series(survey))
    each = {"deep": MatrixTransition([[1, 0], [0.02, 0.98]]), "shallow": THETA}
    model, _ = classifier(TrainingRows(frame, rows.inputs), each, learning())
    p = model.probabilities(rows.inputs)[:, 1]
    assert ((p > 0.5) == truth).mean() > 0.97
    with pytest.raises(InputError, match="no T\\(alpha\\) named 'shallow'"):
        train_members(TrainingRows(frame, rows.inputs), {"deep": THETA}, learning())
    with pytest.raises(InputError, match="need a column transition"):
        train_members(rows, each, learning())


def three_kinds(n=900, seed=0):
    """Flat pictures, gradients across, gradients along: three classes that a network tells apart at once."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    ramp = np.linspace(0, 200, 16)
    kinds = np.stack([np.full((16, 16), 100.0), np.tile(ramp, (16, 1)), np.tile(ramp, (16, 1)).T])
    images = kinds[truth] + rng.normal(0, 20, (n, 16, 16))
    pixels = np.repeat(np.clip(images, 0, 255).astype(np.uint8)[..., None], 3, axis=3)
    return pixels, truth


def test_three_classes_and_their_names(tmp_path):
    pixels, truth = three_kinds()
    flips = np.array([[0.9, 0.05, 0.05], [0.4, 0.6, 0.0], [0.3, 0.1, 0.6]])
    rng = np.random.default_rng(5)
    labels = np.array([rng.choice(3, p=flips[y]) for y in truth])
    split = np.where(np.arange(900) < 700, "train", "validation")
    frame = pl.DataFrame({"object_id": np.arange(900), "label": labels, "alpha": np.ones(900), "split": split})
    names = ("smooth", "disk", "ring")
    # Turned by quarters the two gradients are one.
    config = learning(rotation="none", flip=False)
    model, trained = classifier(TrainingRows(frame, pixels, classes=names), MatrixTransition(flips), config)
    assert (model.probabilities(pixels).argmax(axis=1) == truth).mean() > 0.95
    assert {"fraction_disk_1", "fraction_ring_5"} <= set(trained.history[0])
    table = load(save_classifier(model, tmp_path / "model")).predict(pixels[:4])
    assert table.columns == ["image", "p_smooth", "p_disk", "p_ring", "label", "problem"]
    with pytest.raises(InputError, match="2 classes, the catalogue 3"):
        train_members(TrainingRows(frame, pixels, classes=names), THETA, config)


def test_an_ensemble_is_the_mean_of_its_networks():
    rows, _ = stripes(300)
    model, trained = classifier(rows, THETA, tiny(image_size=16, folds=2, seeds=2))
    assert len(trained.members) == 4
    each = [model.member_probabilities(rows.inputs[:5], member) for member in range(4)]
    np.testing.assert_allclose(model.probabilities(rows.inputs[:5]), np.mean(each, axis=0))
    assert not np.allclose(each[0], each[1])


def test_the_temperature_calibrates_the_truth_not_the_labels():
    # Logits twice as large as they should be, and labels flipped through T(α).
    rng = np.random.default_rng(0)
    n = 20_000
    right = rng.normal(0, 1.5, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-right))
    alpha = rng.lognormal(2.2, 0.4, n)
    labels = (truth & (rng.random(n) >= THETA.flip_probability(alpha))).astype(int)
    logits = torch.from_numpy(np.column_stack([np.zeros(n), 2 * right]))
    flips = torch.from_numpy(THETA.log_matrix(alpha))[torch.arange(n), :, torch.from_numpy(labels)]
    found = fit_temperature(logits, flips, torch.ones(n))
    # By the curvature of the likelihood, with the truth known, d log T is 1 / sqrt(n · mean(p(1-p) r²)); flips hide
    # about half of the galaxies.
    p = 1 / (1 + np.exp(-right))
    error = 2 / np.sqrt(0.4 * n * np.mean(p * (1 - p) * right**2))
    assert found == pytest.approx(2, abs=4 * error)
    naive = torch.log(torch.nn.functional.one_hot(torch.from_numpy(labels), 2).double())
    assert abs(fit_temperature(logits, naive, torch.ones(n)) - 2) > 4 * error


def test_probabilities_of_a_model_are_at_its_temperature():
    rows, _ = stripes(300)
    model, trained = classifier(rows, THETA, tiny(image_size=16))
    cool = Classifier({**model.described, "temperatures": [1.0]}, model.members, model.seen)
    p, raw = model.probabilities(rows.inputs[:9]), cool.probabilities(rows.inputs[:9])
    np.testing.assert_allclose(
        np.log(p[:, 1] / p[:, 0]) * trained.temperatures[0], np.log(raw[:, 1] / raw[:, 0]), rtol=1e-4
    )
