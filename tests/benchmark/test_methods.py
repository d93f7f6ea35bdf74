"""Methods that the leaderboard implements for comparison follow their sources."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from truemorph.benchmark.methods import matched_fractions


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
@settings(max_examples=40)
def test_matched_fractions_keep_their_order_and_get_the_distribution_of_the_best_resolved_bin(seed, bins):
    rng = np.random.default_rng(seed)
    n = 160 * bins
    fraction, alpha, leaf = rng.random(n), rng.random(n), np.arange(n) % 4
    out = matched_fractions(fraction, alpha, (leaf + 0.1 * rng.random(n))[:, None], bins=bins)
    for one in range(4):
        members = np.flatnonzero(leaf == one)
        *parts, sharp = np.array_split(members[np.argsort(alpha[members])], bins)
        np.testing.assert_array_equal(out[sharp], fraction[sharp])
        for part in parts:
            np.testing.assert_allclose(out[part][np.argsort(fraction[part])], np.sort(fraction[sharp]))
