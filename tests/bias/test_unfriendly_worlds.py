"""Errors and findings in realistic catalogues: trends, few gold labels, weights, pooled surveys."""

import numpy as np
import pytest

import truemorph as tm
from conftest import binned, codes
from truemorph import simulate_catalogue
from truemorph.bias.checks.selection import balance_findings
from truemorph.bias.sample import Sample

FLIPS = {"rayleigh": tm.RayleighTransition(11.25), "fisk": tm.FiskTransition(14.0, 2.2)}
TREND_UP, TREND_DOWN = {"drift": 0.5}, {"drift": -0.5}


def arrays(**world):
    table = simulate_catalogue(**world)
    gold = table["gold"].fill_null(-1).to_numpy()
    return table, table["label"].to_numpy(), table["alpha"].to_numpy(), gold, table["truth"].to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    "world", [TREND_UP, TREND_DOWN, {"trend": "wave"}, {"trend": "step"}, {"disk_fraction": 0.98}], ids=str
)
def test_ranges_from_gold_labels_cover_the_truth_of_each_bin(world):
    inside = []
    for seed in range(25):
        _, labels, alpha, gold, truth = arrays(n=3000, seed=seed, gold=300, **world)
        found = tm.debiased_fractions(labels, alpha, gold=gold)
        true = binned(truth, alpha)
        inside.append((found.low[:, 1] <= true + 1e-9) & (true <= found.high[:, 1] + 1e-9))
    # 200 bins, correlated within a catalogue: 0.95 ± 0.02.
    assert np.mean(inside) > 0.89


@pytest.mark.slow
def test_errors_include_sampling_weights():
    pulls = []
    for seed in range(30):
        table, labels, alpha, gold, truth = arrays(n=3000, seed=seed, gold=300, weight_scatter=1.0, drift=0.3)
        weights = table["sampling_weight"].to_numpy()
        found = tm.debiased_fractions(labels, alpha, gold=gold, weights=weights)
        pulls.append((found.fractions[:, 1] - binned(truth, alpha, weights=weights)) / found.stderr[:, 1])
    # 240 pulls: their scatter has an error of 0.06; large errors of few galaxies may exceed the scatter.
    assert 0.6 < np.std(pulls) < 1.18
    assert np.mean(np.abs(pulls) < 1.96) > 0.9


@pytest.mark.slow
def test_galaxies_of_hardly_any_weight_do_not_make_errors_smaller():
    rng, n, kept = np.random.default_rng(0), 4000, slice(1000)
    column, alpha = rng.normal(size=n), rng.lognormal(2.7, 0.4, n)
    disk = rng.random(n) < 1 / (1 + np.exp(-2.5 * column))
    labels = (disk & (rng.random(n) > FLIPS["rayleigh"].flip_probability(alpha))).astype(int)
    weights = np.where(np.arange(n) < kept.stop, 1.0, 1e-9)
    every = tm.fit_transition(labels, alpha, intrinsic=column, weights=weights)
    alone = tm.fit_transition(labels[kept], alpha[kept], intrinsic=column[kept])
    assert every.values["theta"] == pytest.approx(alone.values["theta"], rel=1e-3)
    # Without weights, errors are those of the likelihood; with them, of the scatter of its derivatives.
    for name in ("theta", "disk_fraction"):
        assert every.stderr[name] == pytest.approx(alone.stderr[name], rel=0.06)


def test_the_total_fraction_equals_the_sum_of_the_bins():
    table, labels, alpha, gold, _ = arrays(n=4000, seed=2, gold=300, drift=-0.5)
    found = tm.debiased_fractions(labels, alpha, gold=gold, bins=5)
    value, error = found.total
    assert value == pytest.approx(np.average(found.fractions[:, 1], weights=found.counts))
    assert error < found.stderr[:, 1].min()
    study = tm.estimate_transition(table, gold="gold", compare=False, fraction_bins=5)
    assert study.fit.class_fractions[1] == pytest.approx(study.fractions.total[0])
    assert study.fit.stderr["disk_fraction"] == pytest.approx(study.fractions.total[1], rel=1e-2)


@pytest.mark.slow
def test_draws_have_the_errors_and_correlations_of_the_result():
    _, labels, alpha, gold, _ = arrays(n=6000, seed=3, gold=400)
    for found in (
        tm.debiased_fractions(labels, alpha, gold=gold),
        tm.debiased_fractions(labels, alpha, tm.fit_transition(labels, alpha), systematic=False),
    ):
        drawn = found.draws(4000, seed=1)
        assert drawn.shape == (4000, 8, 2)
        np.testing.assert_allclose(drawn.sum(axis=2), 1)
        np.testing.assert_allclose(drawn[:, :, 1].std(axis=0), found.stderr[:, 1], rtol=0.15)
        scale = np.sqrt(np.outer(*[np.diag(found.covariance)] * 2))
        drawn_correlation = np.corrcoef(drawn[:, :, 1], rowvar=False)
        np.testing.assert_allclose(drawn_correlation, found.covariance / scale, atol=0.12)
    fit = tm.fit_transition(labels, alpha, "rayleigh", gold=gold)
    assert np.std([draw.theta for draw in fit.draws(500)]) == pytest.approx(fit.stderr["theta"], rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["rayleigh", "weibull", "fisk"])
@pytest.mark.parametrize("world", [TREND_UP, TREND_DOWN, {"trend": "step"}], ids=str)
def test_the_bias_curve_from_gold_labels_needs_no_assumption_on_class_fractions(family, world):
    flips = {**FLIPS, "weibull": tm.WeibullTransition(20.0, 1.3)}[family]
    pulls, errors = [], []
    for seed in range(60):
        _, labels, alpha, gold, _ = arrays(n=5000, seed=seed, gold=300, transition=flips, **world)
        fit = tm.fit_transition(labels, alpha, family, gold=gold)
        pulls.append([(fit.values[name] - getattr(flips, name)) / fit.stderr[name] for name in fit.values])
        errors.append(fit.stderr.get("theta", 0.0))
    # 60 pulls: their mean has an error of 0.13, their scatter 0.09.
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 0.4)
    assert np.all(np.abs(np.std(pulls, axis=0) - 1) < 0.28)
    assert np.mean(errors) < 0.42


@pytest.mark.slow
@pytest.mark.parametrize("family", FLIPS)
@pytest.mark.parametrize("drift", [-0.5, 0.0, 0.5])
def test_the_range_from_labels_alone_is_two_sided(family, drift):
    inside = []
    for seed in range(6):
        _, labels, alpha, _, truth = arrays(n=6000, seed=seed, transition=FLIPS[family], drift=drift)
        fit = tm.fit_transition(labels, alpha)
        low, high = fit.fraction_range["disk"]
        inside.append(low <= truth.mean() <= high)
        assert 0 < fit.drift.delta_unbiased < 3
        assert fit.drift.delta == 0.5
    assert sum(inside) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("drift", [0.3, -0.3, 0.0])
def test_noise_as_an_observable_never_narrows_the_range_from_labels_alone(drift):
    _, labels, alpha, _, truth = arrays(n=4000, seed=8, transition=FLIPS["rayleigh"], drift=drift)
    noise = np.random.default_rng(8).normal(size=4000)
    alone, given = (tm.fit_transition(labels, alpha, observables=one) for one in (None, noise))
    (low, high), (lowest, highest) = alone.fraction_range["disk"], given.fraction_range["disk"]
    assert lowest < low + 0.005  # of differences in rounding, and of the fit without trend
    assert highest > high - 0.005
    assert lowest <= truth.mean() <= highest
    bins = tm.debiased_fractions(labels, alpha, alone, bins=4)
    wide = tm.debiased_fractions(labels, alpha, given, bins=4, observables=noise)
    # The statistical part of a bin's range is that of the fit, here of another family.
    assert np.all(wide.low < bins.low + bins.stderr)
    assert np.all(wide.high > bins.high - bins.stderr)


@pytest.mark.slow
def test_random_gold_labels_give_no_finding():
    alarms = 0
    for seed in range(150):
        table, labels, alpha, gold, _ = arrays(n=2000, seed=seed, gold=200)
        columns = {name: table[name].to_numpy() for name in ("covariate", "bulge_fraction", "x2")}
        alarms += len(balance_findings(columns, Sample.of(labels, alpha, gold=gold)))
    assert alarms <= 6  # 150 at 1 %: seven or more have a probability of 0.0005


@pytest.mark.slow
def test_pooled_surveys_of_the_same_curve_give_no_finding():
    table = simulate_catalogue(n=6000, seed=7, second_survey=FLIPS["rayleigh"]).drop("truth", "sampling_weight")
    assert "surveys-differ" not in codes(tm.estimate_transition(table, compare=False))
