"""Methods that the leaderboard implements for comparison follow their sources."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truemorph.benchmark.methods import matched_fractions
from truemorph.bias.transitions import RayleighTransition
from truemorph.simulate.annotate import vote_fractions


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


def test_matching_corrects_fractions_but_not_single_galaxies():
    rng = np.random.default_rng(3)
    n = 16_000
    alpha, size = rng.lognormal(2.8, 0.5, n), rng.normal(size=n)
    truth = (rng.random(n) < np.where(size > 0, 0.8, 0.5)).astype(int)
    _, votes = vote_fractions(truth, alpha, RayleighTransition(8.0), seed=1)
    labels = matched_fractions(votes, alpha, size[:, None], bins=6) > 0.5
    poor = alpha < np.quantile(alpha, 0.2)
    for leaf, expected in ((size > 0, 0.8), (size <= 0, 0.5)):
        # A few labels flip in the best-resolved bin too (its lower edge is at α = 27).
        assert labels[poor & leaf].mean() == pytest.approx(expected, abs=0.06)
    right = (labels == truth)[poor & (size <= 0)].mean()
    assert right < 0.95
