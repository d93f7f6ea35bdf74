"""Diagnostics give findings when they should, and only then."""

import numpy as np
import pytest

from conftest import codes, confounded_labels, flipped_labels, labels_through, some_known
from truemorph import (
    ConstantTransition,
    FiskTransition,
    RayleighTransition,
    WeibullTransition,
    calibration,
    compare_families,
    confounding_check,
    fit_transition,
)
from truemorph.bias.checks.selection import selection_findings
from truemorph.bias.sample import Sample
from truemorph.errors import InputError
from truemorph.questions import class_names


@pytest.mark.parametrize(
    ("true", "name"),
    [
        (RayleighTransition(11.25), "rayleigh"),
        (WeibullTransition(15.0, 1.2), "weibull"),
        (FiskTransition(11, 2.2), "fisk"),
    ],
)
def test_the_true_family_is_preferred(true, name):
    labels, alpha, _ = labels_through(true, 40_000, 0)
    found = compare_families(labels, alpha, ("rayleigh", "weibull", "fisk"))
    # Rayleigh is a special case of Weibull, which may gain up to 2 in log-likelihood by chance, minus 1 in AIC.
    preferred = {row["family"] for row in found.rows() if row["delta_aic"] < 4}
    assert name in preferred
    assert (found.rayleigh_p_value < 1e-4) == (name != "rayleigh")


@pytest.mark.slow
@pytest.mark.parametrize("scatter", [0.0, 1.2])
def test_likelihood_ratio_of_rayleigh_in_weibull_is_chi_squared(scatter):
    """Also with sampling weights, which reduce the effective number of rows."""
    p_values = []
    for seed in range(60):
        labels, alpha, _ = labels_through(RayleighTransition(11.25), 4_000, seed)
        weights = np.random.default_rng(seed).lognormal(0, scatter, 4_000)
        p_values.append(compare_families(labels, alpha, ("rayleigh", "weibull"), weights=weights).rayleigh_p_value)
    # Uniform on [0, 1]: for 60 values, the mean has an error of 0.037, the fraction below one half 0.065.
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.13)
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.22)


def test_families_are_compared_on_gold_labels():
    labels, alpha, truth = labels_through(FiskTransition(12, 2.0), 20_000, 1)
    gold = some_known(truth, 0.4, 1)
    found = compare_families(labels, alpha, ("rayleigh", "fisk"), gold=gold)
    disks = gold == 1
    p = found.fits["fisk"].transition.flip_probability(alpha[disks])
    by_hand = np.sum(np.where(labels[disks] == 0, np.log(p), np.log1p(-p)))
    # The fit also uses the labels of other rows, so it differs from the maximum on gold rows only.
    assert by_hand <= found.fits["fisk"].log_likelihood < by_hand + 2
    assert found.best == "fisk"
    assert found.plot().lines


def test_families_that_cannot_be_fitted_are_listed():
    labels, alpha, _ = labels_through(RayleighTransition(11.25), 1_000, 2)
    found = compare_families(labels, alpha, ("rayleigh", "matrix"))
    assert "gold labels" in found.failed["matrix"]
    with pytest.raises(InputError, match="matrix"):
        compare_families(labels, alpha, ("matrix",))


@pytest.mark.slow
def test_calibration_of_a_correct_and_a_wrong_family():
    labels, alpha, truth = labels_through(FiskTransition(12, 1.6), 40_000, 3)
    gold = some_known(truth, 0.3, 3)
    right = calibration(fit_transition(labels, alpha, "fisk", gold=gold))
    wrong = calibration(fit_transition(labels, alpha, "rayleigh", gold=gold))
    assert set(right.what) == {"disk labelled smooth"}
    assert right.p_value > 1e-3
    assert wrong.p_value < 1e-6
    from_labels = calibration(fit_transition(labels, alpha))
    assert from_labels.observed.shape == (12,)
    assert from_labels.degrees <= 12


@pytest.mark.parametrize("rising", [False, True])
def test_false_disks_that_rise_with_alpha_are_seen_in_the_calibration(rising):
    labels, alpha, truth = labels_through(FiskTransition(12, 2.0, false_disk=0.0 if rising else 0.15), 12_000, 5)
    if rising:
        rng, u = np.random.default_rng(5), np.log(alpha / np.median(alpha)) / np.log(alpha).std()
        labels = np.where((truth == 0) & (rng.random(12_000) < 0.3 / (1 + np.exp(-2 * u))), 1, labels)
    found = calibration(fit_transition(labels, alpha, "fisk", gold=some_known(truth, 0.3, 5)))
    assert set(found.what) == {"disk labelled smooth", "smooth labelled disk"}
    assert (found.p_value < 0.01) == rising


@pytest.mark.parametrize("falling", [False, True])
def test_a_matrix_of_three_classes_is_tested_in_bins_of_alpha(falling):
    rng = np.random.default_rng(6)
    alpha, truth = rng.lognormal(2.8, 0.45, 5_000), rng.choice(3, 5_000, p=[0.3, 0.4, 0.3])
    missed = np.exp(-((alpha / 16) ** 2)) if falling else 0.4
    labels = np.where((truth == 1) & (rng.random(5_000) < missed), 0, truth)
    labels = np.where((truth == 2) & (rng.random(5_000) < 0.2), 1, labels)
    fit = fit_transition(labels, alpha, "matrix", gold=some_known(truth, 0.1, 6))
    found = calibration(fit)
    assert set(found.what) == {"1 labelled 0", "2 labelled 1"}
    assert (found.p_value < 0.01) == falling == ("family-rejected" in codes(fit))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "given"), [("weibull", "gold"), ("matrix", "gold"), ("fisk", "weights"), ("fisk", "labels")]
)
def test_a_right_fit_is_rejected_as_often_as_its_level_says(family, given):
    right = {"weibull": WeibullTransition(20.0, 1.3), "matrix": ConstantTransition(0.3, 0.05)}
    true, p_values = right.get(family, FiskTransition(14.0, 2.2)), []
    for seed in range(40):
        labels, alpha, truth = labels_through(true, 4_000, seed, 0.7, median=16.4)
        gold = None if given == "labels" else some_known(truth, 0.12, seed)
        weights = np.random.default_rng(seed).lognormal(0, 0.8, 4_000) if given == "weights" else None
        fit = fit_transition(labels, alpha, family, gold=gold, weights=weights, delta=None)
        p_values.append(calibration(fit).p_value)
    # 40 tests at 5 % and 1 %: 2 and 0.4 expected; more than 7 and 3 have probabilities of 0.001.
    assert np.sum(np.array(p_values) < 0.05) <= 7
    assert np.sum(np.array(p_values) < 0.01) <= 3


def test_confounding_gives_a_finding():
    labels, alpha, truth, columns = confounded_labels(10_000, 4)
    check = confounding_check(labels, alpha, columns)
    assert check.checked
    assert check.confounded
    assert not check.unexplained
    assert codes(check) == ["fractions-drift"]
    third = np.quantile(alpha, [1 / 3, 2 / 3])
    drift = truth[alpha >= third[1]].mean() - truth[alpha <= third[0]].mean()
    assert abs(check.drift - drift) < 4 * check.drift_stderr
    assert not confounding_check(labels, alpha).checked
    gold = some_known(truth, 0.1, 4)
    with_gold = confounding_check(labels, alpha, gold=gold)
    assert with_gold.confounded
    assert with_gold.unexplained
    assert not confounding_check(labels, alpha, columns, gold=gold).unexplained
    assert confounding_check(labels, alpha, columns[:, 2:], gold=gold).unexplained  # redshift alone


@pytest.mark.slow
def test_without_confounding_there_is_no_finding():
    alarms = 0
    for seed in range(12):
        labels, alpha, truth = flipped_labels(5_000, seed, median=12)
        noise = np.random.default_rng(seed).normal(size=(5_000, 2))
        check = confounding_check(labels, alpha, noise)
        alarms += check.confounded or check.unexplained
        check = confounding_check(labels, alpha, gold=some_known(truth, 0.1, seed))
        alarms += check.confounded or check.unexplained
    # 24 checks of two tests at 1 %: 0.5 false alarms expected; four or more have a probability of 0.2 %.
    assert alarms < 4


@pytest.mark.parametrize(("n_classes", "weighted"), [(2, False), (3, True)])
def test_gold_labels_selected_by_alpha_alone_give_no_finding(n_classes, weighted, monkeypatch):
    monkeypatch.setattr("truemorph.bias.checks.selection._NOTICEABLE", 0.0)
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        alpha = rng.lognormal(2.7, 0.45, 3_000)
        labels = (rng.random(3_000) < 1 / (1 + np.exp(-(alpha - 15) / 5))).astype(int)
        if n_classes == 3:
            labels += rng.random(3_000) < 0.3
        gold = np.where(rng.random(3_000) < alpha / 200, 0, -1)
        weights = rng.gamma(2.0, 1.0, 3_000) if weighted else np.ones(3_000)
        found = selection_findings(Sample.of(labels, alpha, classes=class_names(n_classes), weights=weights, gold=gold))
        alarms += "gold-not-random" in [one.code for one in found]
    # 100 tests at 1 %: 1 false alarm expected; six or more have a probability of 0.05 %.
    assert alarms < 6
