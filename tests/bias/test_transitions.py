"""T(α): probabilities, limits, and the same numbers from numpy and torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from truemorph.bias.families import transition_from_dict, transition_to_dict
from truemorph.bias.transitions import MatrixTransition, RayleighTransition
from truemorph.errors import InputError

alphas = st.lists(st.floats(0, 1e6), min_size=1, max_size=20).map(np.array)
thetas = st.floats(0.01, 1e4)
false_disks = st.floats(0, 0.9)


@given(alphas, thetas, false_disks)
def test_rows_are_probabilities(alpha, theta, false_disk):
    matrix = RayleighTransition(theta, false_disk).matrix(alpha)
    assert matrix.shape == (alpha.size, 2, 2)
    assert np.all((matrix >= 0) & (matrix <= 1))
    np.testing.assert_allclose(matrix.sum(axis=2), 1, atol=1e-12)


@given(alphas, thetas)
def test_flips_fall_with_resolution_and_are_eq_5(alpha, theta):
    flips = RayleighTransition(theta).flip_probability(np.sort(alpha))
    assert np.all(np.diff(flips) <= 0)
    np.testing.assert_allclose(flips, np.exp(-(np.sort(alpha) ** 2) / (2 * theta**2)), rtol=1e-9, atol=1e-300)


@given(alphas, thetas, false_disks)
def test_torch_and_numpy_agree(alpha, theta, false_disk):
    t = RayleighTransition(theta, false_disk)
    from_torch = t.log_matrix(torch.from_numpy(alpha))
    assert isinstance(from_torch, torch.Tensor)
    np.testing.assert_allclose(from_torch.numpy(), t.log_matrix(alpha), rtol=1e-12)


def test_limits():
    t = RayleighTransition(10.0)
    np.testing.assert_array_equal(t.matrix(np.array([np.inf]))[0], np.eye(2))
    at_zero = t.matrix(np.array([0.0]))[0]
    np.testing.assert_allclose(at_zero, [[1, 0], [1, 0]], atol=1e-300)
    # eq. 6: structural zeros stay exact, the vanishing probability of seeing a disk stays finite in log space.
    log_zero = t.log_matrix(np.array([0.0]))[0]
    assert log_zero[0, 1] == -np.inf
    assert np.isfinite(log_zero[1, 1])


def test_dtype_is_kept_and_integers_are_taken():
    assert RayleighTransition(5.0).flip_probability(np.array([1, 2])).dtype == np.float64
    assert RayleighTransition(5.0).flip_probability(np.array([1, 2], dtype=np.float32)).dtype == np.float32
    assert RayleighTransition(5.0).flip_probability(torch.tensor([1.0])).dtype == torch.float32


def test_matrix_transition_repeats_its_matrix_for_k_classes():
    values = [[0.8, 0.1, 0.1], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]]
    t = MatrixTransition(values)
    assert t.n_classes == 3
    np.testing.assert_allclose(t.matrix(np.array([1.0, 50.0])), [values, values])


@pytest.mark.parametrize("t", [RayleighTransition(11.25, 0.02), MatrixTransition(((0.9, 0.1), (0.3, 0.7)))])
def test_description_rebuilds_the_transition(t):
    assert transition_from_dict(transition_to_dict(t)) == t


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RayleighTransition(0.0), "theta must be a positive"),
        (lambda: RayleighTransition(float("nan")), "theta must be a positive"),
        (lambda: RayleighTransition(5.0, false_disk=1.0), "false_disk"),
        (lambda: MatrixTransition(((0.5, 0.6), (0.5, 0.5))), "sum to 1"),
        (lambda: MatrixTransition(((1.0,),)), "square"),
        (lambda: RayleighTransition(5.0).matrix(np.array([1.0, -2.0])), "row 1"),
        (lambda: RayleighTransition(5.0).matrix(np.array([np.nan])), "row 0"),
        (lambda: RayleighTransition(5.0).matrix(np.ones((2, 2))), "shape"),
        (lambda: transition_from_dict({"family": "gauss"}), "unknown transition family"),
        (lambda: transition_from_dict({"family": "rayleigh", "parameters": {"phi": 1}}), "can't be rebuilt"),
    ],
)
def test_bad_input_is_named(make, says):
    with pytest.raises(InputError, match=says):
        make()
