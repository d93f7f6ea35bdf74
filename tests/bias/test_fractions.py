"""Corrected class fractions: unbiased if T is correct, or with gold labels for any T, with correct errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import codes, labels_through, some_known
from truemorph import (
    FiskTransition,
    LogisticTransition,
    MatrixTransition,
    RayleighTransition,
    calibration,
    debiased_fractions,
    fit_transition,
)
from truemorph.bias.binning import Bins
from truemorph.bias.fitting import with_bootstrap_errors
from truemorph.bias.regression.gold import GoldRegression, regression_terms
from truemorph.simulate import observed_labels

TRUE = RayleighTransition(11.25)


@given(st.integers(0, 10_000), st.floats(4, 20), st.floats(0, 0.3), st.integers(1, 12))
@settings(max_examples=30)
def test_fractions_are_between_0_and_1(seed, theta, false_disk, bins):
    t = RayleighTransition(theta, false_disk)
    labels, alpha, _ = labels_through(t, 400, seed)
    found = debiased_fractions(labels, alpha, t, bins=bins)
    assert found.fractions.shape == found.stderr.shape == (bins, 2)
    assert found.edges.shape == (bins + 1,)
    np.testing.assert_allclose(found.fractions.sum(axis=1), 1)
    assert np.all((found.low <= found.fractions + 1e-9) & (found.fractions <= found.high + 1e-9))
    assert np.all((found.low >= 0) & (found.high <= 1))
    assert np.all(np.diff(found.edges) > 0)


@pytest.mark.slow
def test_errors_include_that_t_was_fitted_to_the_same_labels():
    """From labels alone, the labels in a bin also affect T: influences are added before squaring."""
    pulls = []
    for seed in range(100):
        labels, alpha, _ = labels_through(RayleighTransition(10.0), 6_000, seed, median=13.5, width=0.5)
        fit = fit_transition(labels, alpha, delta=None)
        found = debiased_fractions(labels, alpha, fit, bins=4, systematic=False)
        pulls.append((found.fractions[:, 1] - 0.7) / found.stderr[:, 1])
    # The scatter of 100 pulls has an error of 0.07; three and a half of those, in every bin.
    assert np.all(np.abs(np.std(pulls, axis=0) - 1) < 0.25), np.std(pulls, axis=0)


def test_sampling_weights_of_the_fit_are_used_in_all_results():
    labels, alpha, truth = labels_through(TRUE, 40_000, 9)
    rng = np.random.default_rng(9)
    kept = rng.random(labels.size) < np.where(labels == 1, 0.25, 1.0)
    weights = np.where(labels == 1, 4.0, 1.0)[kept]
    fit = fit_transition(labels[kept], alpha[kept], weights=weights)
    found = debiased_fractions(labels[kept], alpha[kept], fit, bins=5)
    assert np.all(np.abs(found.fractions[:, 1] - 0.7) < 4 * found.stderr[:, 1])
    assert calibration(fit).p_value > 1e-3
    gold = some_known(truth[kept], 0.05, 9)
    trusted = debiased_fractions(labels[kept], alpha[kept], gold=gold, weights=weights, bins=5)
    assert np.all(np.abs(trusted.fractions[:, 1] - 0.7) < 4 * trusted.stderr[:, 1])


@pytest.mark.slow
def test_few_gold_labels_in_bins_of_a_column_that_determines_the_class():
    """The binning column is used in the regression, so ranges cover the truth with only a few gold labels per bin."""
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        alpha, b = rng.lognormal(2.6, 0.5, 3_000), rng.random(3_000)
        truth = (rng.random(3_000) < 0.4 + 0.5 * b).astype(int)
        labels = np.where(rng.random(3_000) < TRUE.flip_probability(alpha), 0, truth)
        gold = some_known(truth, 0.03, seed)
        found = debiased_fractions(labels, alpha, by=b, bins=5, gold=gold, systematic=False)
        covered.append(np.abs(found.fractions[:, 1] - (0.4 + 0.5 * np.arange(0.1, 1, 0.2))) < 1.96 * found.stderr[:, 1])
    # 60 × 5 ranges of 95 %, correlated within a catalogue: 0.95 ± 0.02.
    assert np.mean(covered) > 0.88


@pytest.mark.slow
def test_a_knot_at_its_bound_does_not_inflate_the_errors():
    """Its logit has a large scatter over resamples, but its probability does not: errors follow the probability."""
    labels, alpha, truth = labels_through(FiskTransition(6.0, 3.0), 3_000, 13)  # almost no flips at high α
    plain = fit_transition(labels, alpha, "monotone", gold=some_known(truth, 0.1, 13), knots=6)
    assert "fit-without-errors" in codes(debiased_fractions(labels, alpha, plain, bins=4, systematic=False))
    fit = with_bootstrap_errors(plain, 20)
    assert np.sqrt(np.diag(fit.covariance)).max() > 1.0
    found = debiased_fractions(labels, alpha, fit, bins=4, systematic=False)
    assert np.all(np.abs(found.fractions[:, 1] - 0.7) < 4 * found.stderr[:, 1])
    assert found.stderr[-1, 1] < 0.05  # 750 galaxies: 0.02


def test_fractions_of_three_classes():
    t = MatrixTransition(((1.0, 0.0, 0.0), (0.3, 0.6, 0.1), (0.2, 0.0, 0.8)))
    rng = np.random.default_rng(5)
    truth = rng.choice(3, 40_000, p=[0.3, 0.3, 0.4])
    alpha = rng.lognormal(2, 0.5, truth.size)
    found = debiased_fractions(observed_labels(truth, alpha, t), alpha, t, bins=3)
    assert np.all(np.abs(found.fractions - [0.3, 0.3, 0.4]) < 4 * found.stderr)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.permutations(range(3)), st.permutations(range(4)))
@settings(max_examples=15)
def test_fractions_from_gold_labels_do_not_depend_on_the_order_of_classes_or_labels(seed, order, order_of_labels):
    rng = np.random.default_rng(seed)
    alpha, truth = rng.lognormal(2.5, 0.5, 600), rng.choice(3, 600, p=[0.5, 0.4, 0.1])
    labels = np.where(rng.random(600) < 0.3, rng.integers(0, 4, 600), truth)
    gold = np.where(rng.random(600) < 0.2, truth, -1)
    bins = Bins.cut(alpha, 4)

    def fractions(gold, labels):
        return GoldRegression.fit(regression_terms(labels, alpha, 4), gold, bins, 3).fractions(gold, 0)

    expected, drawn = fractions(gold, labels)
    renumbered = np.where(gold == -1, -1, np.array(order)[gold])
    again, drawn_again = fractions(renumbered, np.array(order_of_labels)[labels])
    np.testing.assert_allclose(again[:, order], expected, atol=1e-6)
    # Errors from 1,000 draws, in pairs of opposite sign, scatter by 2 to 5 %.
    np.testing.assert_allclose(drawn_again.std(axis=0)[:, order], drawn.std(axis=0), rtol=0.25, atol=1e-3)


@pytest.mark.slow
def test_range_from_labels_alone_spans_trends_and_families():
    labels, alpha, _ = labels_through(FiskTransition(12.0, 2.0), 20_000, 6)
    fit = fit_transition(labels, alpha)
    found = debiased_fractions(labels, alpha, fit)
    assert {name.split(",")[0] for name in found.alternatives} >= {"rayleigh", "weibull", "fisk"}
    assert len(found.alternatives) > 12
    assert "flat-fractions-assumed" in codes(found)
    # The family is wrong: the truth is outside of its errors, but in the range.
    assert np.max(np.abs(found.fractions[:, 1] - 0.7) / found.stderr[:, 1]) > 4
    assert np.all((found.low[:, 1] < 0.7) & (found.high[:, 1] > 0.7))
    assert fit_transition(labels, alpha, delta=0.1).fraction_range["disk"][0] > fit.fraction_range["disk"][0]


def test_fractions_with_several_observables():
    t = LogisticTransition([[[0, 0, 0], [float("nan")] * 3], [[0.0, -1.5, 0.7], [0, 0, 0]]], (2.5, 22.0), (0.5, 1.0))
    rng = np.random.default_rng(7)
    n = 20_000
    observables = np.column_stack([rng.lognormal(2.5, 0.5, n), rng.normal(22, 1, n)])
    truth = (rng.random(n) < 0.6).astype(int)
    labels = observed_labels(truth, observables, t)
    alpha, brightness = observables.T
    found = debiased_fractions(labels, alpha, t, observables=brightness, by=brightness, bins=4, name="brightness")
    assert found.by == "brightness"
    assert np.all(np.abs(found.fractions[:, 1] - 0.6) < 4 * found.stderr[:, 1])


def test_a_curve_by_which_most_disks_are_mislabelled_at_every_alpha_is_unlike_unbiased_labels():
    for seed in (7, 19, 22, 23):
        rng = np.random.default_rng(seed)
        alpha, labels = rng.lognormal(2.8, 0.8, 2000), (rng.random(2000) < 0.6).astype(int)
        found = debiased_fractions(labels, alpha, RayleighTransition(1e4), bins=1)
        assert "transition-unlike-labels" in codes(found)
