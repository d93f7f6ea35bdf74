"""User-defined families are fitted, used and saved like those of the package."""

import json
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
import torch

import truemorph as tm
from conftest import labels_through, some_known
from truemorph.bias.curves.families import COMPARED, transition_from_dict
from truemorph.bias.files import read_fit
from truemorph.errors import InputError


@dataclass(frozen=True)
class Exponential(tm.FlipTransition):
    """Flip probability decreases exponentially to a constant; written with numpy, as in a notebook."""

    scale: float
    floor: float
    false_disk: float = 0.0

    family = "exponential"
    free = {"scale": "scale", "floor": "probability"}  # noqa: RUF012

    def log_flip_probability(self, alpha):
        return np.log(self.floor + (1 - self.floor) * np.exp(-alpha / self.scale))


@dataclass(frozen=True)
class Steep(tm.FlipTransition):
    scale: float
    false_disk: float = 0.0

    family = "steep"
    free = {"scale": "scale"}  # noqa: RUF012

    def log_flip_probability(self, alpha):
        return -((alpha / self.scale) ** 3)


TRUTH = Exponential(9.0, 0.1)
ALPHA = np.array([0.0, 0.3, 4.0, 11.0, 40.0, 900.0])


@pytest.fixture(scope="module")
def flipped():
    return labels_through(TRUTH, 20_000, seed=1)


@pytest.fixture(scope="module")
def gold_fit(flipped):
    labels, alpha, truth = flipped
    return tm.fit_transition(labels, alpha, Exponential, gold=some_known(truth, 0.1, seed=1))


@pytest.mark.slow
def test_an_own_family_is_compared_with_those_of_the_package(flipped):
    labels, alpha, truth = flipped
    found = tm.compare_families(labels, alpha, ("rayleigh", Exponential), gold=some_known(truth, 0.1, seed=1))
    assert list(found.fits) == ["rayleigh", "exponential"]
    assert found.best == "exponential"
    columns = {"object_id": np.arange(2000), "label": labels[:2000], "alpha": alpha[:2000], "split": "train"}
    study = tm.estimate_transition(pl.DataFrame(columns), family=Exponential)
    assert study.fit.family == "exponential"
    assert set(study.families.fits) == {"exponential", *COMPARED}


@pytest.mark.slow
def test_fractions_posteriors_and_quality_use_the_own_family(flipped, gold_fit):
    labels, alpha, truth = flipped
    for name in ("scale", "floor"):
        assert abs(gold_fit.values[name] - getattr(TRUTH, name)) < 4 * gold_fit.stderr[name]
    found = tm.debiased_fractions(labels, alpha, gold_fit, bins=1)
    assert abs(found.fractions[0, 1] - truth.mean()) < 4 * found.stderr[0, 1]
    p = np.full((4, 2), 0.5)
    flips = TRUTH.flip_probability(ALPHA[1:5])
    smooth = np.zeros(4, dtype=int)
    np.testing.assert_allclose(tm.posterior(p, smooth, ALPHA[1:5], TRUTH)[:, 1], flips / (1 + flips))
    np.testing.assert_allclose(tm.label_quality(p, smooth, ALPHA[1:5], TRUTH), 1 / (1 + flips))


def test_the_loss_accepts_an_own_family():
    logits = torch.zeros(5, 2, requires_grad=True)
    alpha = torch.from_numpy(ALPHA[1:]).float()
    losses = tm.DebiasedLoss(TRUTH, "none")(logits, torch.zeros(5, dtype=torch.int64), alpha)
    expected = -np.log(0.5 + 0.5 * TRUTH.flip_probability(ALPHA[1:]))
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-5)
    losses.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_files_keep_a_table_of_the_curve(gold_fit, tmp_path):
    (tmp_path / "fit.json").write_text(json.dumps(gold_fit.to_dict()))
    described = read_fit(tmp_path / "fit.json")
    assert described["family"] == "exponential"
    assert described["parameters"] == gold_fit.transition.parameters()
    again = transition_from_dict(described)
    np.testing.assert_allclose(again.flip_probability(ALPHA), gold_fit.transition.flip_probability(ALPHA), atol=3e-4)


def test_a_model_trained_with_an_own_family_labels_galaxies(catalogue, tmp_path):
    options = {"preset": "dcv14", "settings": {"features": ["M_r"], "folds": 2}}
    model = tm.train_classifier(catalogue, transition=Steep(12.0), out=tmp_path / "model", **options).model
    curves = [one.flip_probability(ALPHA) for one in (model.transition, Steep(12.0))]
    np.testing.assert_allclose(*curves, atol=1e-3)
    found = tm.label_galaxies(model, catalogue, tmp_path / "labels.parquet", transition=Steep(12.0))
    assert found.labelled == 400


@pytest.mark.parametrize(
    "family",
    [
        int,
        type("Taken", (Steep,), {"family": "rayleigh"}),
        type("UnknownKind", (Exponential,), {"family": "x", "free": {"scale": "length"}}),
        type("NoProbability", (Exponential,), {"family": "x", "log_flip_probability": lambda self, alpha: alpha}),
    ],
    ids=lambda family: getattr(family, "__name__", family),
)
def test_invalid_families_raise_errors(family, flipped):
    labels, alpha, _ = flipped
    with pytest.raises(InputError):
        tm.fit_transition(labels, alpha, family)
