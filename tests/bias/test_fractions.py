"""Corrected class fractions: unbiased if T is correct, or with gold labels for any T, with correct errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import codes, confounded_labels, labels_through, some_known
from truemorph.bias.checks import calibration
from truemorph.bias.estimation import fit_transition
from truemorph.bias.fractions import debiased_fractions
from truemorph.bias.transitions import FiskTransition, LogisticTransition, MatrixTransition, RayleighTransition
from truemorph.errors import InputError

TRUE = RayleighTransition(11.25)


def binned(values, column, bins=8):
    return np.array([values[part].mean() for part in np.array_split(np.argsort(column, kind="stable"), bins)])


def changing_fractions(n, seed, transition=TRUE):
    """A disk fraction that increases with α, and labels biased by T: (labels, alpha, truth)."""
    rng = np.random.default_rng(seed)
    alpha = rng.lognormal(np.log(16.8), 0.45, n)
    truth = (rng.random(n) < 0.35 + 0.4 / (1 + np.exp(-3 * np.log(alpha / 16.8)))).astype(int)
    return (rng.random(n) < transition.matrix(alpha)[np.arange(n), truth, 1]).astype(int), alpha, truth


def test_the_identity_gives_the_observed_fractions():
    labels, alpha, _ = labels_through(TRUE, 1_000, 0)
    found = debiased_fractions(labels, alpha, MatrixTransition.identity(), bins=5)
    np.testing.assert_allclose(found.fractions, found.labelled, atol=1e-6)
    np.testing.assert_allclose(found.stderr[:, 1], np.sqrt(found.labelled.prod(axis=1) / found.counts), rtol=0.02)
    assert found.counts.sum() == 1_000


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


def test_errors_of_the_inversion_equal_its_scatter():
    """With a fitted T, whose covariance is included, and class fractions that depend on α."""
    pulls = []
    for seed in range(60):
        labels, alpha, truth = changing_fractions(4_000, seed)
        fit = fit_transition(labels, alpha, gold=some_known(truth, 0.15, seed))
        found = debiased_fractions(labels, alpha, fit, bins=4, systematic=False)
        pulls.append((found.fractions[:, 1] - binned(0.35 + 0.4 / (1 + np.exp(-3 * np.log(alpha / 16.8))), alpha, 4))
                     / found.stderr[:, 1])  # fmt: skip
    # 60 × 4 pulls, correlated between bins by theta: the mean has an error of 0.1, the scatter 0.08.
    assert abs(np.mean(pulls)) < 0.35
    assert 0.8 < np.std(pulls) < 1.2


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


@pytest.mark.parametrize("options", [{}, {"family": "weibull"}])
def test_sampling_weights_of_the_fit_are_used_in_all_results(options):
    labels, alpha, truth = labels_through(TRUE, 40_000, 9)
    rng = np.random.default_rng(9)
    kept = rng.random(labels.size) < np.where(labels == 1, 0.25, 1.0)
    weights = np.where(labels == 1, 4.0, 1.0)[kept]
    fit = fit_transition(labels[kept], alpha[kept], weights=weights, **options)
    found = debiased_fractions(labels[kept], alpha[kept], fit, bins=5)
    assert np.all(np.abs(found.fractions[:, 1] - 0.7) < 4 * found.stderr[:, 1])
    assert calibration(fit).p_value > 1e-3
    gold = some_known(truth[kept], 0.05, 9)
    trusted = debiased_fractions(labels[kept], alpha[kept], gold=gold, weights=weights, bins=5)
    assert np.all(np.abs(trusted.fractions[:, 1] - 0.7) < 4 * trusted.stderr[:, 1])


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


def resampled_errors(labels, alpha, fit, resamples, seed=0, own_rows=True):
    """Scatter of disk fractions in 4 bins over resampled galaxies, with T fitted to each resample."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        rows = rng.integers(0, labels.size, labels.size)
        again = fit.again(rows if own_rows else rng.integers(0, fit.n_objects, fit.n_objects))
        found.append(debiased_fractions(labels[rows], alpha[rows], again, bins=4, systematic=False).fractions[:, 1])
    return np.std(found, axis=0, ddof=1)


def test_errors_of_a_fit_from_other_rows_agree_with_bootstrap():
    labels, alpha, truth = changing_fractions(2_000, 10)
    fit = fit_transition(labels, alpha, gold=some_known(truth, 0.3, 10))
    more, at, _ = changing_fractions(4_000, 11)
    stated = debiased_fractions(more, at, fit, bins=4, systematic=False).stderr[:, 1]
    # Twenty resamples: the scatter has an error of 16 %; three of those.
    np.testing.assert_allclose(resampled_errors(more, at, fit, 20, own_rows=False), stated, rtol=0.5)


@pytest.mark.slow
def test_a_fit_without_errors_gives_a_finding_and_bootstrap_gives_errors():
    labels, alpha, truth = changing_fractions(2_000, 12)
    fit = fit_transition(labels, alpha, "monotone", gold=some_known(truth, 0.1, 12), knots=6)
    assert np.isnan(fit.covariance).any()  # a knot at its bound has no error from the curvature
    plain = debiased_fractions(labels, alpha, fit, bins=4, systematic=False)
    assert "fit-without-errors" in codes(plain)
    mended = debiased_fractions(labels, alpha, fit.with_bootstrap_errors(20), bins=4, systematic=False)
    assert "fit-without-errors" not in codes(mended)
    assert mended.stderr.mean() > 0.8 * plain.stderr.mean()


@pytest.mark.slow
def test_a_knot_at_its_bound_does_not_inflate_the_errors():
    """Its logit has a large scatter over resamples, but its probability does not: errors follow the probability."""
    labels, alpha, truth = changing_fractions(3_000, 13, FiskTransition(6.0, 3.0))  # almost no flips at high α
    gold = some_known(truth, 0.1, 13)
    fit = fit_transition(labels, alpha, "monotone", gold=gold, knots=6).with_bootstrap_errors(40)
    assert np.sqrt(np.diag(fit.covariance)).max() > 1.0
    stated = debiased_fractions(labels, alpha, fit, bins=4, systematic=False).stderr[:, 1]
    again = resampled_errors(labels, alpha, fit, 60, seed=1)
    # The scatter of 40 values has an error of 11 %, of 60 values 9 %: three times both; `again` refits T.
    np.testing.assert_allclose(stated, again, rtol=0.45)


def test_delta_method_agrees_with_bootstrap():
    labels, alpha, truth = changing_fractions(8_000, 1)
    fit = fit_transition(labels, alpha, gold=some_known(truth, 0.2, 1))
    stated = debiased_fractions(labels, alpha, fit, bins=4, systematic=False).stderr[:, 1]
    # The scatter of 60 values has an error of 9 %; three of those.
    np.testing.assert_allclose(resampled_errors(labels, alpha, fit, 60), stated, rtol=0.3)


def test_gold_labels_give_correct_fractions_if_t_and_regression_are_wrong():
    """A bump in the class fraction that neither a quadratic in log α nor any T can describe."""
    rng = np.random.default_rng(2)
    n = 60_000
    alpha = rng.lognormal(np.log(16.8), 0.45, n)
    u = np.log(alpha / 16.8) / 0.45
    truth = (rng.random(n) < 0.5 + 0.3 * np.sin(4 * u)).astype(int)
    labels = (rng.random(n) < TRUE.matrix(alpha)[np.arange(n), truth, 1]).astype(int)
    true = binned(truth, alpha)
    wrong = FiskTransition(40.0, 1.0)
    found = debiased_fractions(labels, alpha, wrong, gold=some_known(truth, 0.3, 3))
    error = found.fractions[:, 1] - true
    assert np.all(np.abs(error) < 4 * found.stderr[:, 1])
    assert np.sqrt(np.mean(error**2)) < 0.02  # 2,250 gold labels per bin: 0.01
    assert np.sqrt(np.mean((debiased_fractions(labels, alpha, wrong).fractions[:, 1] - true) ** 2)) > 0.2


def test_errors_with_gold_labels_equal_their_scatter():
    pulls = []
    for seed in range(60):
        labels, alpha, truth = changing_fractions(6_000, seed, FiskTransition(13.0, 2.2))
        found = debiased_fractions(labels, alpha, gold=some_known(truth, 0.08, seed), bins=6, systematic=False)
        pulls.append((found.fractions[:, 1] - binned(truth, alpha, 6)) / found.stderr[:, 1])
    assert abs(np.mean(pulls)) < 0.3
    assert 0.75 < np.std(pulls) < 1.2


def test_binning_in_another_column_and_covariates():
    labels, alpha, truth, columns = confounded_labels(30_000, 4)
    magnitude = columns[:, 0]
    gold = some_known(truth, 0.05, 4)
    plain = debiased_fractions(labels, alpha, by=magnitude, gold=gold, name="M_r", systematic=False)
    helped = debiased_fractions(labels, alpha, by=magnitude, gold=gold, covariates=columns, name="M_r",
                                systematic=False)  # fmt: skip
    true = binned(truth, magnitude)
    assert plain.by == "M_r"
    for found in (plain, helped):
        assert np.all(np.abs(found.fractions[:, 1] - true) < 4.5 * found.stderr[:, 1])
        # 190 gold labels per bin: errors of 0.03; the rms of eight has an error of a quarter.
        assert np.sqrt(np.mean((found.fractions[:, 1] - true) ** 2)) < 0.05
    # Bin effects have as much information on the class as the binning column.
    assert helped.stderr.mean() == pytest.approx(plain.stderr.mean(), rel=0.1)


def test_fractions_of_three_classes():
    t = MatrixTransition(((1.0, 0.0, 0.0), (0.3, 0.6, 0.1), (0.2, 0.0, 0.8)))
    rng = np.random.default_rng(5)
    truth = rng.choice(3, 40_000, p=[0.3, 0.3, 0.4])
    labels = (rng.random(truth.size)[:, None] > np.cumsum(np.asarray(t.values)[truth], axis=1)).sum(axis=1)
    alpha = rng.lognormal(2, 0.5, truth.size)
    found = debiased_fractions(labels, alpha, t, bins=3)
    assert np.all(np.abs(found.fractions - [0.3, 0.3, 0.4]) < 4 * found.stderr)
    with_gold = debiased_fractions(labels, alpha, gold=some_known(truth, 0.05, 5), bins=3)
    assert np.all(np.abs(with_gold.fractions - [0.3, 0.3, 0.4]) < 4.5 * with_gold.stderr)


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
    assert fit_transition(labels, alpha, delta=0.1).disk_fraction_range[0] > fit.disk_fraction_range[0]


def test_fractions_with_several_observables():
    t = LogisticTransition(
        [[[0, 0, 0], [float("nan")] * 3], [[0.0, -1.5, 0.7], [0, 0, 0]]], (2.5, 22.0), (0.5, 1.0), (True, False)
    )
    rng = np.random.default_rng(7)
    n = 20_000
    observables = np.column_stack([rng.lognormal(2.5, 0.5, n), rng.normal(22, 1, n)])
    truth = (rng.random(n) < 0.6).astype(int)
    labels = (rng.random(n) < t.matrix(observables)[np.arange(n), truth, 1]).astype(int)
    found = debiased_fractions(
        labels,
        observables[:, 0],
        t,
        observables=observables[:, 1:],
        by=observables[:, 1],
        bins=4,
        name="surface brightness",
    )
    assert np.all(np.abs(found.fractions[:, 1] - 0.6) < 4 * found.stderr[:, 1])


def test_the_plot_has_labels_estimate_range_and_truth():
    labels, alpha, truth = changing_fractions(2_000, 8)
    axes = debiased_fractions(labels, alpha, fit_transition(labels, alpha)).plot(truth=binned(truth, alpha))
    assert {one.get_text() for one in axes.get_legend().get_texts()} == {
        "range with systematics", "corrected", "observed labels", "truth",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"transition": None}, "needs a transition, gold labels"),
        ({"alpha": np.ones(9)}, "one value per galaxy"),
        ({"by": np.r_[np.nan, np.arange(99.0)]}, "1 missing values"),
        ({"bins": 101}, "number of galaxies"),
        ({"labels": np.full(100, 2)}, "labels must be integers 0 to 1"),
        ({"gold": np.zeros(100)}, "no gold label of class 1"),
        ({"gold": np.arange(100) % 2, "covariates": np.ones(7)}, "covariates must have shape"),
        ({"covariates": np.ones((100, 1))}, "pass gold= too"),
        ({"bins": 4.5}, "number of galaxies"),
        ({"transition": "rayleigh"}, "T.alpha. or a fit of one"),
        ({"weights": np.zeros(100)}, "weights must be positive"),
    ],
)
def test_invalid_input_raises_errors(change, says):
    good = {"labels": np.arange(100) % 2, "alpha": np.linspace(1, 20, 100), "transition": TRUE}
    with pytest.raises(InputError, match=says):
        debiased_fractions(**{**good, **change})
