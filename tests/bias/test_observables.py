"""T of α and of a second observable: families with a formula, comparison, range, calibration, and what T leaves out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from truemorph import (
    FiskTransition,
    RayleighTransition,
    ShiftedTransition,
    calibration,
    compare_families,
    estimate_transition,
    fit_transition,
    simulate_catalogue,
)
from truemorph.bias.checks.diagnostics import ignored_findings
from truemorph.bias.curves.families import transition_from_dict, transition_to_dict
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.errors import InputError
from truemorph.gold.plan import PlanOptions, make_plan

TRUE = ShiftedTransition(FiskTransition(14.0, 2.2), slopes=(-0.35,), center=(22.0,))


def world(n=6_000, seed=0, transition=TRUE, drift=0.0, gold=0):
    """Disks (0.7 of all; their log-odds rise with brightness by `drift` a magnitude), labels, α and brightness."""
    rng = np.random.default_rng(seed)
    alpha, mu = np.exp(rng.normal(2.8, 0.45, n)), rng.normal(22, 1, n)
    disk = rng.random(n) < 1 / (1 + np.exp(-np.log(0.7 / 0.3) - drift * (mu - 22)))
    flips = transition.flip_probability(np.column_stack([alpha, mu]))
    labels = (disk & (rng.random(n) > flips)).astype(int)
    known = np.where(np.arange(n) < gold, disk.astype(int), -1)
    return labels, alpha, mu, disk.astype(int), known


def test_a_shifted_curve_is_the_curve_at_the_effective_resolution():
    at = np.column_stack([[10.0, 20.0], [22.0, 24.0]])
    shifted = TRUE.curve.flip_probability(np.array([10.0, 20.0 * np.exp(-0.7)]))
    np.testing.assert_allclose(TRUE.flip_probability(at), shifted, rtol=1e-12)
    np.testing.assert_allclose(TRUE.matrix(torch.tensor(at)).numpy(), TRUE.matrix(at), rtol=1e-12)
    again = transition_from_dict(transition_to_dict(TRUE))
    assert again == TRUE
    assert TRUE.n_observables == 1
    unshifted = ShiftedTransition(RayleighTransition(9.0), (0.0,), (22.0,))
    np.testing.assert_allclose(unshifted.matrix(at), RayleighTransition(9.0).matrix(at[:, 0]), rtol=1e-12)
    with pytest.raises(InputError):
        TRUE.matrix(np.array([10.0, 20.0]))


def test_a_family_of_your_own_is_shifted_and_read_back_from_its_table():
    class Own(FiskTransition):
        family = "own"

    t = ShiftedTransition(Own(14.0, 2.2), (-0.35,), (22.0,))
    at = np.column_stack([np.geomspace(3, 60, 20), np.linspace(20, 24, 20)])
    np.testing.assert_allclose(transition_from_dict(transition_to_dict(t)).matrix(at), TRUE.matrix(at), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("gold", [0, 600])
def test_slopes_are_recovered_by_name(gold):
    labels, alpha, mu, _, known = world(10_000, gold=gold)
    given = {"gold": known} if gold else {"delta": None}
    fit = fit_transition(labels, alpha, "fisk", observables={"mu": mu}, **given)
    for name, truth in (("shape", 2.2), ("slope of mu", -0.35)):
        assert abs(fit.values[name] - truth) < 3 * fit.stderr[name] < 1
    logistic = fit_transition(labels, alpha, "logistic", observables={"mu": mu}, **given)
    assert logistic.log_likelihood == pytest.approx(fit.log_likelihood, abs=0.01)
    assert {"smooth|disk slope of mu", "smooth|disk slope of ln alpha"} <= set(logistic.values)


def test_families_are_compared_with_the_observable():
    labels, alpha, mu, _, _ = world(20_000)
    found = compare_families(labels, alpha, ("rayleigh", "fisk"), observables={"mu": mu})
    assert found.best == "fisk"
    assert "slope of mu" in found.fits["rayleigh"].values
    alone = compare_families(labels, alpha, ("fisk",)).fits["fisk"]
    assert found.fits["fisk"].aic < alone.aic - 100
    with pytest.raises(InputError):
        fit_transition(labels, alpha, "constant", observables={"mu": mu}, gold=labels)


@pytest.mark.slow
def test_the_range_from_labels_spans_trends_with_the_observable():
    labels, alpha, mu, disk, _ = world(drift=-0.4)
    with_mu = fit_transition(labels, alpha, "fisk", observables={"mu": mu})
    low, high = with_mu.fraction_range["disk"]
    assert low < disk.mean() < high
    assert {"fisk, rising with mu", "fisk, falling with mu"} <= set(with_mu.drift.alternatives)


@pytest.mark.slow
def test_calibration_is_tested_in_both_dimensions():
    labels, alpha, mu, _, known = world(20_000, gold=2_000)
    right = calibration(fit_transition(labels, alpha, "fisk", observables={"mu": mu}, gold=known))
    assert right.p_value > 0.01
    assert right.observables["mu"].shape == right.alpha.shape
    assert np.ptp(right.observables["mu"]) > 1
    # Log-odds of the flip that are not linear in μ.
    bent = np.random.default_rng(1).random(labels.size) < 0.5 * (np.abs(mu - 22) > 1.2)
    wrong = fit_transition(np.where(bent, 0, labels), alpha, "fisk", observables={"mu": mu}, gold=known)
    assert calibration(wrong).p_value < 0.01


@pytest.mark.slow
def test_what_t_leaves_out_is_noticed_where_it_matters():
    fired, quiet = 0, 0
    for seed in range(4):
        labels, alpha, mu, _, known = world(seed=seed, gold=300)
        for given in ({}, {"gold": known}, {"method": "binned"}):
            fit = fit_transition(labels, alpha, "fisk", delta=None, **given)
            codes = [
                ignored_finding.code
                for ignored_finding in ignored_findings(fit, {"surface_brightness": mu, "snr": alpha * np.nan})
            ]
            fired += codes == ["observable-ignored"]
        labels, alpha, mu, _, known = world(seed=seed, transition=replace(TRUE, slopes=(0.0,)), gold=300)
        for given in ({}, {"gold": known}):
            fit = fit_transition(labels, alpha, "fisk", delta=None, **given)
            quiet += not ignored_findings(fit, {"surface_brightness": mu})
    assert fired >= 11
    assert quiet >= 7


@pytest.mark.slow
def test_gold_labels_are_planned_in_bins_of_both():
    table, again = (read_catalogue(simulate_catalogue(3_000, gold=gold).drop("truth")) for gold in (0, 100))
    plan = make_plan(table, PlanOptions(budget=300, by="alpha,covariate"))
    assert plan.predicted.shape == (len(plan.edges),)
    assert plan.edges.shape[1:] == (2, 2)
    assert make_plan(again, PlanOptions(budget=300, by="alpha,covariate")).selected.height >= 300
    estimate = estimate_transition(table, family="fisk", observables=["covariate"], compare=False)
    planned = make_plan(table, PlanOptions(budget=300), curve=estimate.curve, observables=["covariate"])
    assert planned.selected.height >= 300
