"""Eqs 3-4 and the posterior, against explicit formulas and simulated truth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import truemorph as tm
from truemorph import MatrixTransition, RayleighTransition, posterior
from truemorph.bias.likelihood import observed_log_probabilities
from truemorph.errors import InputError

probabilities = st.floats(0.001, 0.999)
resolutions = st.floats(0.5, 60)


def test_k_classes_equal_a_matrix_product():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=50)
    t = rng.dirichlet(np.ones(4), size=4)
    got = np.exp(observed_log_probabilities(np.log(p), np.ones(50), MatrixTransition(t)))
    np.testing.assert_allclose(got, p @ t, rtol=1e-10)


@pytest.mark.parametrize("of_labels", [torch.from_numpy, np.asarray])
def test_torch_gives_the_same_numbers_as_numpy(of_labels):
    """Also if only the probabilities are a tensor."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet([1, 1], size=30)
    labels, alpha = rng.integers(0, 2, 30), rng.lognormal(2, 0.5, 30)
    t = RayleighTransition(9.0, false_disk=0.03)
    from_torch = posterior(torch.from_numpy(p), of_labels(labels), of_labels(alpha), t)
    np.testing.assert_allclose(from_torch.numpy(), posterior(p, labels, alpha, t), rtol=1e-12)


@given(probabilities, resolutions)
def test_the_posterior_equals_bayes_theorem(p_disk, alpha):
    flip = np.exp(-(alpha**2) / (2 * 11.25**2))
    after = posterior([[1 - p_disk, p_disk]] * 2, [0, 1], np.array([alpha, alpha]), RayleighTransition(11.25))
    assert after[0, 1] == pytest.approx(p_disk * flip / (1 - p_disk + p_disk * flip), rel=1e-6, abs=1e-12)
    assert after[1, 1] == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p", "labels", "transition", "says"),
    [
        ([[0.5, 0.5]] * 2, [0, 2], RayleighTransition(5.0), "row 1"),
        ([[-3.0, 4.0]], [0], RayleighTransition(5.0), "are they logits"),
        ([[0.3, 0.3, 0.4]], [1], MatrixTransition(((1, 0, 0), (0.5, 0, 0.5), (0, 0, 1))), "row 0 is impossible"),
    ],
)
def test_invalid_input_raises_errors(p, labels, transition, says):
    with pytest.raises(InputError, match=says):
        posterior(p, labels, np.ones(len(p)), transition)


@pytest.mark.slow
def test_every_form_of_a_fit_gives_the_same_posterior(tmp_path):
    galaxies = tm.simulate_catalogue(500)
    study = tm.estimate_transition(galaxies, compare=False, out=tmp_path / "fit.json")
    labels, alpha = galaxies["label"].to_numpy(), galaxies["alpha"].to_numpy()
    p = np.full((500, 2), 0.5)
    forms = [study, study.fit, study.to_dict(), tmp_path / "fit.json", str(tmp_path / "fit.json")]
    for one in (*forms, tm.load_transition(tmp_path / "fit.json")):
        np.testing.assert_array_equal(
            posterior(p, labels, alpha, one), posterior(p, labels, alpha, study.fit.transition)
        )
        assert tm.DebiasedLoss(one).transition == study.fit.transition
        assert tm.debiased_fractions(labels, alpha, one, systematic=False).fractions.shape[1] == 2
    assert tm.load_transition("rayleigh:11.25") == RayleighTransition(11.25)
    for nothing in ("absent.json", {"family": "rayleigh"}, None, 3.0, galaxies):
        with pytest.raises(InputError):
            tm.load_transition(nothing)


def test_a_missing_alpha_is_an_error_that_names_it():
    p, labels, t = np.full((2, 2), 0.5), np.array([0, 1]), RayleighTransition(10.0)
    for call in (
        lambda: posterior(p, labels, None, t),
        lambda: tm.DebiasedLoss(t)(torch.zeros(2, 2), labels, None),
        lambda: tm.fit_transition(labels, None),
        lambda: tm.cv14(labels, None),
        lambda: t.flip_probability(None),
    ):
        with pytest.raises(InputError, match="alpha"):
            call()
