"""Gold labels selected by α, copies of the labels, ranges of α without gold labels, and columns that encode classes."""

import numpy as np
import pytest

import truemorph as tm
from conftest import codes, labels_through, some_known
from truemorph import debiased_fractions, fit_transition
from truemorph.bias.checks.selection import selection_findings
from truemorph.bias.estimate import make_estimate
from truemorph.bias.sample import Sample
from truemorph.errors import InputError
from truemorph.questions import NOT_APPLICABLE

FLIPS = {"rayleigh": tm.RayleighTransition(11.25), "fisk": tm.FiskTransition(14.0, 2.2)}
BELOW, ABOVE, LIKELIER_BELOW = (0.0, -np.inf), (-np.inf, 0.0), (np.log(4), 0.0)


def selected(family, keys, seed, n=4000, n_gold=300):
    """Labels, α, truth, and gold labels selected by whether α is below or above its median (log-odds `keys`)."""
    labels, alpha, truth = labels_through(FLIPS[family], n, seed, 0.7, median=16.4)
    rng = np.random.default_rng([seed, 4])
    key = np.where(alpha < np.median(alpha), *keys) + rng.gumbel(size=n)
    gold = np.full(n, -1)
    chosen = np.argsort(-key)[:n_gold]
    gold[chosen] = truth[chosen]
    return labels, alpha, truth, gold


@pytest.mark.parametrize("draws", [8, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("family", "keys"), [("rayleigh", BELOW), ("rayleigh", LIKELIER_BELOW), ("fisk", ABOVE)], ids=str
)
def test_the_bias_curve_does_not_depend_on_the_distribution_of_alpha_among_gold_labels(family, keys, draws):
    pulls = []
    for seed in range(draws):
        labels, alpha, _, gold = selected(family, keys, seed)
        fit = fit_transition(labels, alpha, family, gold=gold)
        name = next(iter(fit.values))
        pulls.append((fit.values[name] - getattr(FLIPS[family], name)) / fit.stderr[name])
    # The mean of the pulls has an error of 1 / √draws, their rms 1 / √(2 draws).
    assert abs(np.mean(pulls)) < 4 / np.sqrt(draws)
    assert np.sqrt(np.mean(np.square(pulls))) < 1 + 4 / np.sqrt(2 * draws)
    if draws == 40:
        assert np.mean(np.abs(pulls) < 1.96) > 0.85  # 0.95 ± 0.034


@pytest.mark.slow
def test_a_range_of_alpha_without_gold_labels_is_a_finding():
    labels, alpha, truth, _ = selected("rayleigh", BELOW, 1)
    middle = np.argsort(np.argsort(alpha)) // 400 == 5  # a tenth of the galaxies
    assert "gold-gap" in codes(debiased_fractions(labels, alpha, gold=np.where(middle, -1, some_known(truth, 0.1, 1))))
    alarms = sum(
        "gold-gap" in codes(debiased_fractions(labels, alpha, gold=some_known(truth, 0.03, k))) for k in range(40)
    )
    assert alarms <= 3  # 40 at 1 %: four or more have a probability of 0.001


def test_gold_labels_that_equal_all_labels_are_a_finding_and_have_an_error():
    labels, alpha, truth = labels_through(FLIPS["rayleigh"], 3000, 2, median=16.4)
    for part in (0.1, 1.1):
        gold = some_known(labels, part, 2)
        found = debiased_fractions(labels, alpha, gold=gold)
        assert codes(found) == ["gold-equals-labels"]
        n = (gold >= 0).sum() / 8
        assert np.all(found.stderr[:, 1] > 0.5 * np.sqrt(found.fractions[:, 1] * (1 - found.fractions[:, 1]) / n))
        assert np.all(found.low[:, 1] < found.high[:, 1])
    one_differs = np.where(np.arange(3000) == np.flatnonzero(labels != truth)[0], truth, labels)
    assert codes(debiased_fractions(labels, alpha, gold=one_differs)) == []
    for family in ("matrix", "logistic"):  # without a curve in α, there is nothing to fit
        with pytest.raises(InputError):
            fit_transition(labels, alpha, family, gold=labels)


@pytest.mark.slow
@pytest.mark.parametrize("n_gold", [60, 500])
def test_columns_that_encode_classes_are_refused(n_gold):
    labels, alpha, truth = labels_through(FLIPS["rayleigh"], 4000, 3, median=16.4)
    rng = np.random.default_rng(3)
    gold = some_known(truth, n_gold / 4000, 3)
    good = truth + rng.normal(0, 0.6, 4000)  # as well as any property of galaxies predicts their class
    for columns in (gold, np.column_stack([good, 5 - 2 * gold])):
        with pytest.raises(InputError, match="encodes"):
            debiased_fractions(labels, alpha, gold=gold, covariates=columns)
    assert debiased_fractions(labels, alpha, gold=gold, covariates=good).total[0] == pytest.approx(
        truth.mean(), abs=0.1
    )
    votes = 0.5 * labels + 0.5 * rng.random(4000)
    with pytest.raises(InputError, match="observed label"):
        Sample.of(labels, alpha, intrinsic=votes)
    noisy = votes + rng.normal(0, 0.3, 4000)
    with_votes = make_estimate(Sample.of(labels, alpha, intrinsic=noisy, gold=gold), compare=False)
    assert with_votes.fractions.total[0] == pytest.approx(truth.mean(), abs=0.1)


def test_the_check_of_drift_agrees_with_the_table_of_fractions():
    """With gold labels that are likelier at low α, the thirds are of all galaxies, not of those with a gold label."""
    labels, alpha, truth, gold = selected("rayleigh", LIKELIER_BELOW, 5)
    study = make_estimate(Sample.of(labels, alpha, gold=gold), compare=False, fraction_bins=6)
    thirds = study.fractions.fractions[:, 1].reshape(3, 2).mean(axis=1)  # bins have equal numbers of galaxies
    assert study.check.drift == pytest.approx(thirds[2] - thirds[0], abs=1e-3)
    order = np.sort(alpha)[[1333, 2666]]
    true = truth[alpha >= order[1]].mean() - truth[alpha <= order[0]].mean()
    assert abs(study.check.drift - true) < 4 * study.check.drift_stderr


def test_a_chance_drift_of_galaxies_that_all_have_gold_labels_is_no_finding():
    alarms = 0
    for seed in range(20):
        labels, alpha, truth = labels_through(FLIPS["rayleigh"], 2000, seed, 0.7, median=16.4)
        alarms += tm.confounding_check(labels, alpha, gold=truth).confounded
    assert alarms <= 2  # 20 at 1 to 2 %: three or more have a probability of 0.007


def test_weights_that_nearly_agree_change_nearly_nothing():
    labels, alpha, truth = labels_through(FLIPS["rayleigh"], 4000, 7, median=16.4)
    gold, rng = some_known(truth, 0.08, 7), np.random.default_rng(7)
    plain = debiased_fractions(labels, alpha, gold=gold)
    for spread in (1e-9, 1e-4):
        found = debiased_fractions(labels, alpha, gold=gold, weights=1 + spread * rng.normal(size=4000))
        np.testing.assert_allclose(found.fractions, plain.fractions, atol=1e-5 + 3 * spread)
        np.testing.assert_allclose(found.stderr, plain.stderr, rtol=1e-3 + 100 * spread)


def test_gold_labels_that_are_not_random_name_the_largest_difference_of_labels():
    labels = np.repeat([0, 1, 2], [600, 300, 100])  # does not apply, no bar, bar
    gold = np.full(1000, -1)
    for k, (first, number) in enumerate([(0, 20), (600, 60), (900, 20)]):
        gold[first : first + number] = k
    sample = Sample.of(labels, np.ones(1000), classes=(NOT_APPLICABLE, "no bar", "bar"), gold=gold)
    [found] = [
        selection_finding
        for selection_finding in selection_findings(sample)
        if selection_finding.code == "gold-not-random"
    ]
    assert "20.0%" in found.message
    assert "60.0%" in found.message
