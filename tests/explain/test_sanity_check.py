"""The check with random weights measures what it should, and can fail."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from explain.conftest import model_of, pictures
from truemorph.errors import InputError
from truemorph.explain.feature_maps import stage_names
from truemorph.explain.gradcam import GradCam
from truemorph.explain.sanity_check import (
    Randomisation,
    _from_the_top,
    _partners,
    randomise,
    rank_correlations,
)


def ignores_weights(self, pixels, classes, members=None):
    """A map of the image only: mean brightness of the cells."""
    side = pixels.shape[1] // self.grid.cells
    return (
        pixels.astype(np.float32).mean(axis=3).reshape(len(pixels), -1, side, self.grid.cells, side).mean(axis=(2, 4))
    )


def test_rank_correlations_equal_spearmans_with_ties():
    rng = np.random.default_rng(0)
    first, second = np.clip(rng.normal(size=(2, 6, 5, 5)), 0, None)  # half of the cells are tied at 0
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlations(first, second), expected)
    np.testing.assert_allclose(rank_correlations(first, first**3), 1)
    assert rank_correlations(first, np.zeros_like(first)).tolist() == [0] * 6


def test_maps_that_ignore_the_weights_fail(monkeypatch):
    model, pixels = model_of(), pictures(16)
    monkeypatch.setattr(GradCam, "maps", ignores_weights)
    found = randomise(model, pixels, draws=3)
    assert all(mean == pytest.approx(1) for mean, _ in found.means.values())
    assert not found.passes
    assert found.statement.startswith("It is not shown that maps of layer2 depend on the weights: ")


def test_maps_of_grad_cam_depend_on_the_weights():
    model, pixels = model_of("test_efficientnet"), pictures(16)
    found = randomise(model, pixels, draws=4)
    assert found.means["stem"][0] < found.threshold
    assert found.passes
    assert found.statement.startswith("Maps of blocks.2 depend on the weights: with all weights random (4 draws)")
    again, other = (randomise(model, pixels, draws=2, seed=seed) for seed in (0, 7))
    np.testing.assert_array_equal(found.steps["stem"][:2], again.steps["stem"])
    assert not np.array_equal(other.steps["stem"], again.steps["stem"])
    # The model itself is unchanged.
    np.testing.assert_array_equal(
        GradCam(model).maps(pixels, 1), GradCam(model_of("test_efficientnet")).maps(pixels, 1)
    )


def test_passing_requires_draws_that_agree():
    """For 5 draws with scatter s, the error of the mean is s / √5, times Student's 2.78 for 97.5 %."""

    def found(mean, scatter):
        draws = mean + scatter * np.array([-1, -0.5, 0, 0.5, 1])[:, None] / np.sqrt(0.625)
        steps = {"stem": np.broadcast_to(draws, (5, 40))}
        return Randomisation("layer2", steps, np.full(40, 0.2), np.full(40, 0.6), 0.0)

    assert found(0.3, 0.1).threshold == pytest.approx(0.4)
    assert found(0.3, 0.1).above == pytest.approx((-0.1, 0.1 / np.sqrt(5)))
    assert not found(0.3, 0.1).passes  # 2.78 × 0.045 > 0.1
    assert found(0.3, 0.07).passes
    assert not found(0.5, 0.01).passes


@pytest.mark.parametrize(("backbone", "stem"), [("test_resnet", "conv1"), ("test_vit4", "patch_embed")])
def test_weights_are_randomised_from_the_class_layer_to_the_stem(backbone, stem):
    network = model_of(backbone).networks()[0]
    weights = network.state_dict()
    groups = _from_the_top(weights, stage_names(network.backbone))
    names = [name for name, _ in groups]
    assert names[0] == "head.3"
    assert names[-1] == "stem"
    assert 5 <= len(names) <= 8
    assert sorted(key for _, keys in groups for key in keys) == sorted(weights)
    place = {key: number for number, (_, keys) in enumerate(groups) for key in keys}
    order = [place[key] for key in weights]
    assert order == sorted(order, reverse=True)
    assert any(key.startswith(f"backbone.{stem}") for key in groups[-1][1])


def test_at_each_step_the_lower_layers_keep_their_trained_weights(monkeypatch):
    model, loaded = model_of(), []
    groups = dict(_from_the_top(model.networks()[0].state_dict(), ["layer1", "layer2", "layer3", "layer4"]))
    load = torch.nn.Module.load_state_dict

    def watch(self, weights, *rest, **options):
        loaded.append(dict(weights))
        return load(self, weights, *rest, **options)

    cam = GradCam(model)
    monkeypatch.setattr("truemorph.explain.sanity_check.GradCam", lambda *_: cam)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", watch)
    randomise(model, pictures(6), draws=2, seed=10)  # seed 1 would give the model's own weights
    assert len(loaded) == 2 * len(groups)
    for draw in (loaded[: len(groups)], loaded[len(groups) :]):
        for step, weights in enumerate(draw):
            for number, keys in enumerate(groups.values()):
                # Weights that are initialised with ones or zeros may equal the trained ones.
                some = [key for key in keys if key.endswith("weight") and weights[key].ndim > 1]
                for key in some:
                    same = np.array_equal(weights[key].numpy(), model.members[0][key])
                    assert same == (number > step), (key, step)


def test_the_other_galaxy_is_a_different_one_of_the_same_class():
    classes = np.array([0, 1, 1, 0, 1, 2, 0])
    partner = _partners(classes, seed=0)
    assert partner[5] == -1
    rows = np.flatnonzero(partner >= 0)
    assert rows.size == 6
    assert (classes[partner[rows]] == classes[rows]).all()
    assert (partner[rows] != rows).all()


def test_too_few_draws_or_galaxies_raise_errors():
    with pytest.raises(InputError, match="two draws or more; got 1"):
        randomise(model_of(), pictures(4), draws=1)
    with pytest.raises(InputError, match="two galaxies of one predicted class"):
        randomise(model_of(), pictures(1))
