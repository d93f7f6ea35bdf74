"""Equal values of α belong to one bin, and the order of rows does not matter."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import truemorph as tm
from truemorph import debiased_fractions
from truemorph.bias.binning import Bins
from truemorph.bias.metrics.scores import fraction_error


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 12), st.randoms(use_true_random=False))
def test_bins_hold_all_equal_values_in_any_order_of_rows(values, bins, shuffle):
    column = np.array(values, dtype=float)
    cut = Bins.cut(column, bins)
    order = np.array(shuffle.sample(range(column.size), column.size))
    again = Bins.cut(column[order], bins)
    np.testing.assert_array_equal(again.index, cut.index[order])
    np.testing.assert_array_equal(again.edges, cut.edges)
    for one in np.unique(column):
        assert np.unique(cut.index[column == one]).size == 1
    assert np.bincount(cut.index, minlength=cut.count).min() > 0
    assert cut.count <= bins


@given(st.integers(2, 400), st.integers(1, 20))
def test_bins_of_different_values_have_equal_counts(n, bins):
    counts = np.bincount(Bins.cut(np.random.default_rng(n).permutation(n).astype(float), bins).index)
    assert counts.size == min(bins, n)
    assert np.ptp(counts) <= 1


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_results_do_not_depend_on_the_order_of_rows(seed):
    """Five values of α, in the order of class or shuffled; draws agree within their number."""
    rng = np.random.default_rng(seed)
    alpha = np.array([6.0, 9.0, 13.0, 18.0, 25.0])[rng.choice(5, 2000, p=[0.1, 0.5, 0.2, 0.1, 0.1])]
    truth = (rng.random(2000) < 0.7).astype(int)
    flipped = rng.random(2000) < tm.RayleighTransition(11.25).flip_probability(alpha)
    labels, gold = np.where(flipped, 0, truth), np.where(rng.random(2000) < 0.15, truth, -1)
    orders = slice(None), np.argsort(truth, kind="stable")
    found, sorted_by_class = (
        debiased_fractions(labels[order], alpha[order], gold=gold[order], bins=8) for order in orders
    )
    assert found.counts.size <= 5
    np.testing.assert_array_equal(found.counts, sorted_by_class.counts)
    np.testing.assert_allclose(found.fractions, sorted_by_class.fractions, atol=1e-9)
    np.testing.assert_allclose(found.stderr, sorted_by_class.stderr, rtol=0.2)
    first, second = (fraction_error(truth[order], labels[order], alpha[order]) for order in orders)
    assert first == second
