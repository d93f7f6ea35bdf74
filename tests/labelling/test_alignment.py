"""Alignment inverts a known change of probabilities, and is the identity without a change."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from truemorph.labelling.engines.int8 import Alignment


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.floats(0.3, 3), st.floats(-2, 2))
def test_a_known_change_is_inverted(seed, classes, scale, shift):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (200, classes))
    exact = softmax(z, axis=1)
    moved = np.append(0.0, np.linspace(shift, -shift, classes - 1) if classes > 2 else shift)
    fast = softmax((z - moved) / scale, axis=1)
    found = Alignment.fit(fast, exact)
    np.testing.assert_allclose(found(fast), exact, atol=1e-5)
    np.testing.assert_allclose([found.scale, *found.shifts], [scale, *moved], atol=1e-3)


def test_mean_probabilities_are_equal_even_with_noise():
    rng = np.random.default_rng(0)
    z = np.stack([np.zeros(500), rng.normal(0, 3, 500)], axis=1)
    exact = softmax(z, axis=1)
    fast = softmax(z + rng.normal(0.4, 0.3, z.shape) * [0, 1], axis=1)
    found = Alignment.fit(fast, exact)
    # The gradient of the shift is the difference of means, which is zero at the minimum.
    np.testing.assert_allclose(found(fast).mean(axis=0), exact.mean(axis=0), atol=1e-6)
    assert abs(fast.mean(axis=0) - exact.mean(axis=0)).max() > 0.01


def test_probabilities_of_0_and_1_are_preserved():
    p = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    np.testing.assert_allclose(Alignment(1.0, (0.0, 0.0))(p), p, atol=1e-12)
