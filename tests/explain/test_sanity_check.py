"""The check with random weights measures what it should, and can fail."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from explain.conftest import model_of, pictures
from truemorph import GradCam
from truemorph.errors import InputError
from truemorph.explain.sanity_check import Randomisation, randomise, rank_correlations


def ignores_weights(self, pixels, classes, members=None):
    """A map of the image only: mean brightness of the cells."""
    cells, side = self.grid.cells, pixels.shape[1] // self.grid.cells
    return pixels.astype(np.float32).mean(axis=3).reshape(-1, cells, side, cells, side).mean(axis=(2, 4))


def test_rank_correlations_equal_spearmans_with_ties():
    rng = np.random.default_rng(0)
    first, second = np.clip(rng.normal(size=(2, 6, 5, 5)), 0, None)  # half of the cells are tied at 0
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlations(first, second), expected)
    assert rank_correlations(first, np.zeros_like(first)).tolist() == [0] * 6


def test_maps_that_ignore_the_weights_fail(monkeypatch):
    monkeypatch.setattr(GradCam, "maps", ignores_weights)
    found = randomise(model_of(), pictures(16), draws=3)
    assert found.mean[0] == pytest.approx(1)
    assert not found.passes


def test_maps_of_grad_cam_depend_on_the_weights():
    model, pixels = model_of("test_efficientnet"), pictures(16)
    found = randomise(model, pixels, draws=4)
    assert found.mean[0] < found.threshold
    assert found.passes
    again = randomise(model, pixels, draws=2, seed=1)
    np.testing.assert_array_equal(found.random[1:3], again.random)
    with pytest.raises(InputError, match="two galaxies of one predicted class"):
        randomise(model, pixels[:1])


def test_passing_requires_draws_that_agree():
    """For 5 draws with scatter s, the error of the mean is s / √5, times Student's 2.78 for 97.5 %."""

    def found(mean, scatter):
        draws = mean + scatter * np.array([-1, -0.5, 0, 0.5, 1])[:, None] / np.sqrt(0.625)
        return Randomisation("layer2", np.broadcast_to(draws, (5, 40)), np.full(40, 0.2), np.full(40, 0.6))

    assert found(0.3, 0.1).threshold == pytest.approx(0.4)
    assert not found(0.3, 0.1).passes  # 2.78 × 0.045 > 0.1
    assert found(0.3, 0.07).passes
    assert not found(0.5, 0.01).passes
