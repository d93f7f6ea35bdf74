"""T(α): probabilities, limits, and equal numbers from numpy and torch."""

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from truemorph import (
    ConstantTransition,
    FiskTransition,
    LogisticTransition,
    MatrixTransition,
    MonotoneTransition,
    RayleighTransition,
    TabulatedTransition,
    WeibullTransition,
)
from truemorph.bias.curves.families import FAMILIES, KNOWN_CURVES, transition_from_dict, transition_to_dict
from truemorph.bias.curves.misses import misses_of_experts
from truemorph.bias.curves.shifted import ShiftedTransition
from truemorph.errors import InputError

NAN = float("nan")
alphas = st.lists(st.floats(0, 1e6), min_size=1, max_size=20).map(np.array)
thetas = st.floats(0.01, 1e4)
false_disks = st.floats(0, 0.9)
shapes = st.floats(0.3, 8)
KINDS = {"scale": thetas, "shape": shapes, "probability": st.floats(0, 1)}
knots = st.lists(st.floats(0, 200), min_size=2, max_size=9, unique=True).map(sorted)


@st.composite
def monotone(draw):
    at = draw(knots)
    flips = sorted(draw(st.lists(st.floats(0, 1), min_size=len(at), max_size=len(at))), reverse=True)
    return MonotoneTransition(tuple(at), tuple(flips), draw(false_disks))


@st.composite
def logistic(draw):
    values = st.floats(-5, 5)
    n = draw(st.integers(2, 4))
    table = [[[draw(values), draw(values)] if draw(st.booleans()) else [NAN, NAN] for _ in range(n)] for _ in range(n)]
    for k in range(n):
        table[k][k] = [0.0, 0.0]
    return LogisticTransition(table, (2.0,), (0.5,))


@st.composite
def tabulated(draw):
    at = draw(knots)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    values = rng.random((len(at), 3, 3)) + 1e-3
    return TabulatedTransition(tuple(at), values / values.sum(axis=2, keepdims=True))


transitions = st.one_of(
    *(
        st.builds(one, **{name: KINDS[kind] for name, kind in one.free.items()}, false_disk=false_disks)
        for one in (*map(FAMILIES.get, KNOWN_CURVES), ConstantTransition)
    ),
    monotone(),
    logistic(),
    tabulated(),
    st.just(MatrixTransition(((0.8, 0.1, 0.1), (0.0, 1.0, 0.0), (0.2, 0.2, 0.6)))),
)


@given(alphas, transitions)
def test_rows_are_probabilities_that_sum_to_1(alpha, t):
    matrix = t.matrix(alpha)
    assert matrix.shape == (alpha.size, t.n_classes, t.n_classes)
    assert np.all((matrix >= 0) & (matrix <= 1 + 1e-12))
    np.testing.assert_allclose(matrix.sum(axis=2), 1, atol=1e-12)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(np.exp(t.log_matrix(alpha)), matrix, atol=1e-12)
    np.testing.assert_allclose(t.flip_probability(alpha), matrix[:, 1, 0], atol=1e-12)


@given(alphas, transitions)
@example(np.array([0.0]), MonotoneTransition((0.0, 1.0, 2.0, 3.0), (1 - 2**-53, 0.5, 0.22045548602843873, 0.0)))
@example(np.array([1.0]), MonotoneTransition((0.0, 2.2e-311), (0.5, 0.25)))
def test_numpy_and_torch_give_the_same(alpha, t):
    from_torch = t.log_matrix(torch.from_numpy(alpha))
    assert isinstance(from_torch, torch.Tensor)
    np.testing.assert_allclose(from_torch.numpy(), t.log_matrix(alpha), rtol=1e-9, atol=1e-12)


@given(transitions)
def test_transitions_are_restored_from_json(t):
    again = transition_from_dict(json.loads(json.dumps(transition_to_dict(t))))
    alpha = np.array([0.5, 7.0, 40.0, 300.0])
    np.testing.assert_array_equal(again.matrix(alpha), t.matrix(alpha))
    assert FAMILIES[t.family] is type(t)


@given(alphas, thetas, false_disks)
def test_rayleigh_is_eq_5_and_weibull_with_shape_2(alpha, theta, false_disk):
    flips = np.exp(-(alpha**2) / (2 * theta**2))
    np.testing.assert_allclose(RayleighTransition(theta).flip_probability(alpha), flips, rtol=1e-9, atol=1e-300)
    wide = WeibullTransition(theta * np.sqrt(2), 2.0, false_disk)
    np.testing.assert_allclose(
        wide.matrix(alpha), RayleighTransition(theta, false_disk).matrix(alpha), rtol=1e-6, atol=1e-9
    )


def test_misses_of_experts_are_eq_5_and_are_spread_over_the_classes_of_an_answer():
    """Classes of T may share an answer (smooth and edge-on: does not apply), or have two answers that were merged."""
    disk = {"disk": {"theta": 5.0, "upper": 8.0, "called": {"smooth": 1.0}}}
    alpha = np.array([0.5, 4.0, 9.0, 30.0])
    for limit, theta in ((None, 5.0), ("disk", 8.0)):
        found = misses_of_experts(disk, ["smooth", "disk"], [0, 1], limit)
        np.testing.assert_allclose(found.matrix(alpha), RayleighTransition(theta).matrix(alpha), rtol=1e-6)
    bars = {"no": {"theta": 3.0, "called": {"n/a": 1.0}}, "bar": {"theta": 6.0, "called": {"n/a": 0.4, "no": 0.6}}}
    apart = misses_of_experts(bars, ["n/a", "n/a", "no", "bar"], range(4))
    assert apart.theta == (0, 0, 3, 6)
    np.testing.assert_allclose(apart.called[2:], [[0.5, 0.5, 0, 0], [0.2, 0.2, 0.6, 0]])
    merged = misses_of_experts(bars, ["n/a", "n/a", "no", "bar"], [0, 0, 1, 1])
    assert merged.theta == (0, 6)
    assert merged.called == ((0, 0), (0.4, 0.6))  # a bar that is called "no" is still of the merged answer


@given(alphas.filter(lambda a: a.min() > 1e-6), thetas, shapes)
def test_fisk_is_logistic_in_log_alpha(alpha, scale, shape):
    t = LogisticTransition([[[0, 0], [NAN, NAN]], [[shape * np.log(scale), -shape], [0, 0]]], (0.0,), (1.0,))
    np.testing.assert_allclose(
        t.matrix(alpha)[:, 1], FiskTransition(scale, shape).matrix(alpha)[:, 1], rtol=1e-7, atol=1e-9
    )


def test_limits_at_zero_and_infinite_resolution():
    t = RayleighTransition(10.0)
    np.testing.assert_array_equal(t.matrix(np.array([np.inf]))[0], np.eye(2))
    at_zero = t.matrix(np.array([0.0]))[0]
    np.testing.assert_allclose(at_zero, [[1, 0], [1, 0]], atol=1e-300)
    # eq. 6: structural zeros are exact; the vanishing probability of a disk label is finite in log space.
    log_zero = t.log_matrix(np.array([0.0]))[0]
    assert log_zero[0, 1] == -np.inf
    assert np.isfinite(log_zero[1, 1])


def test_dtypes_are_kept_and_integers_are_accepted():
    assert RayleighTransition(5.0).flip_probability(np.array([1, 2])).dtype == np.float64
    assert RayleighTransition(5.0).flip_probability(np.array([1, 2], dtype=np.float32)).dtype == np.float32
    assert RayleighTransition(5.0).flip_probability(torch.tensor([1.0])).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RayleighTransition(0.0), "theta must be a positive"),
        (lambda: RayleighTransition(5.0, false_disk=1.1), "false_disk"),
        (lambda: ConstantTransition(1.5), "flip must be a probability"),
        (lambda: MonotoneTransition((1, 2), (0.2, 0.4)), "must not increase"),
        (lambda: MonotoneTransition((1, 2, 3), (0.4, 0.2)), "one entry per knot"),
        (lambda: TabulatedTransition((1.0, 2.0), [[[1, 0], [0, 2]]] * 2), "sum to 1"),
        (lambda: LogisticTransition([[[0, 0]] * 2] * 2, (0.0,), (0.0,)), "scale must be positive"),
        (lambda: LogisticTransition([[[0, 0]] * 2] * 2, (0.0,), (1.0,)).matrix([[1.0, 2.0]]), "0 observables"),
        (lambda: MatrixTransition(((0.5, 0.6), (0.5, 0.5))), "sum to 1"),
        (lambda: RayleighTransition(5.0).matrix(np.array([1.0, -2.0])), "row 1"),
        (lambda: transition_from_dict({"family": "gauss"}), "unknown transition family"),
        (lambda: ShiftedTransition(RayleighTransition(5.0), (None,), (22.0,)), "slopes"),
    ],
)
def test_invalid_input_raises_errors(make, says):
    with pytest.raises(InputError, match=says):
        make()
