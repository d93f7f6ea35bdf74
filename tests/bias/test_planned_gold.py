"""Gold labels of galaxies that were selected with known probabilities, and of galaxies whose class is in doubt."""

from dataclasses import replace

import numpy as np
import pytest

import truemorph as tm
from conftest import binned, codes, labels_through
from truemorph import RayleighTransition, debiased_fractions, fit_transition
from truemorph.bias.curves.misses import MissesTransition
from truemorph.bias.estimate import make_estimate
from truemorph.bias.sample import Sample
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.errors import InputError
from truemorph.gold.plan import PlanOptions, make_plan

THETA = 11.25


def planned(seed, n=4000, budget=300):
    """A catalogue whose disk fraction falls with α, and the gold labels of a plan: (labels, α, truth, gold, p)."""
    frame = tm.simulate_catalogue(n, seed=seed, drift=-0.4)
    plan = make_plan(read_catalogue(frame.drop("truth")), PlanOptions(budget=budget, seed=seed)).frame
    labels, alpha, truth = (frame[name].to_numpy() for name in ("label", "alpha", "truth"))
    return labels, alpha, truth, np.where(plan["position"].is_not_null(), truth, -1), plan["probability"].to_numpy()


def by_column(seed, n=4000):
    """Gold labels selected by a column that is related to the class: (labels, α, truth, gold, probability)."""
    labels, alpha, truth = labels_through(RayleighTransition(THETA), n, seed)
    rng = np.random.default_rng([seed, 7])
    seen = truth + rng.normal(0, 1, n)
    probability = 0.01 + 0.25 / (1 + np.exp(-2.0 * (seen - 1.5)))
    return labels, alpha, truth, np.where(rng.random(n) < probability, truth, -1), probability


@pytest.mark.parametrize("draws", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_the_bias_curve_from_planned_gold_labels_has_the_stated_error(draws):
    pulls = []
    for seed in range(draws):
        labels, alpha, _, gold, probability = planned(seed)
        fit = fit_transition(labels, alpha, "rayleigh", gold=gold, gold_probability=probability)
        pulls.append((fit.values["theta"] - THETA) / fit.stderr["theta"])
    assert abs(np.mean(pulls)) < 4 / np.sqrt(draws)
    if draws == 50:  # the standard deviation has an error of 0.1
        assert abs(np.std(pulls) - 1) < 0.4


def test_fractions_with_galaxies_selected_by_a_column_related_to_class():
    pulls = []
    for seed in range(6):
        labels, alpha, truth, gold, probability = by_column(seed)
        for p in (probability, None):
            one = debiased_fractions(labels, alpha, gold=gold, bins=4, gold_probability=p)
            pulls.append((one.fractions[:, 1] - binned(truth, alpha, 4)) / one.stderr[:, 1])
    used, ignored = np.array(pulls[::2]), np.array(pulls[1::2])
    # Pulls are correlated within a catalogue: the mean of 24 has an error below 0.35.
    assert abs(used.mean()) < 1
    assert np.sqrt(np.mean(used**2)) < 1.5
    assert ignored.mean() > 2


def test_probabilities_that_are_known_are_a_note_and_weights_of_the_gold_labels():
    labels, alpha, _, gold, probability = by_column(1)
    study = make_estimate(Sample.of(labels, alpha, gold=gold, gold_probability=probability), compare=False)
    assert "selection-known" in codes(study)
    # The disk fraction of the gold labels beside it is weighted.
    error = np.sqrt(study.gold_stderr**2 + study.fractions.stderr[:, 1] ** 2)
    assert np.all(np.abs(study.gold_fractions - study.fractions.fractions[:, 1]) < 4 * error)
    with_gap = np.where((gold == -1) & (np.arange(labels.size) % 9 == 0), 0.0, probability)
    found = debiased_fractions(labels, alpha, gold=gold, gold_probability=with_gap)
    assert codes(found) == ["selection-known", "gold-cannot-reach"]
    assert f"{np.sum(with_gap == 0):,} of 4,000" in found.findings[1].message


def test_galaxies_in_doubt_widen_the_ranges_of_bins_and_of_the_total_to_both_bounds():
    labels, alpha, truth = labels_through(RayleighTransition(THETA), 3000, 2)
    rng = np.random.default_rng(2)
    chosen = rng.random(3000) < 400 / 3000
    # The class of a third of the poorly resolved ones can't be told.
    doubt = chosen & (alpha < np.quantile(alpha, 0.4)) & (rng.random(3000) < 1 / 3)
    gold = np.where(chosen & ~doubt, truth, -1)
    plain = debiased_fractions(labels, alpha, gold=gold, bins=5)
    found = debiased_fractions(labels, alpha, gold=gold, gold_uncertain=doubt, bins=5)
    assert codes(plain) == []
    assert codes(found) == ["gold-uncertain"]
    assert f"{doubt.sum()} galaxies" in found.findings[0].message
    sample = Sample.of(labels, alpha, gold=gold, gold_uncertain=doubt.astype(float))
    low, high = make_estimate(sample, compare=False, fraction_bins=5).fraction_range["disk"]
    for one in (0, 1):
        bound = debiased_fractions(labels, alpha, gold=np.where(doubt, one, gold), bins=5)
        assert np.all((found.low <= bound.low) & (bound.high <= found.high))
        assert low <= bound.of_total[0, 1, 1] <= bound.total[0] <= bound.of_total[0, 2, 1] <= high
    assert np.all((found.low[:, 1] < binned(truth, alpha, 5)) & (binned(truth, alpha, 5) < found.high[:, 1]))
    np.testing.assert_array_equal(found.fractions, plain.fractions)


@pytest.mark.parametrize("draws", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_ranges_of_a_question_contain_the_bars_that_experts_miss(draws):
    """Experts call bars "no bar", and galaxies without one smooth; without their own T(α), ranges are too low."""
    names, n = ("other", "other", "no bar", "bar", "other"), 6000
    given = {"bins": 4, "quantities": tm.Asked.named(tm.read_tree("gz2"), "bar", names).quantities}
    own = MissesTransition((0.0, 5.0, 7.0), ((0.0, 0.5, 0.5), (1.0, 0.0, 0.0), (0.2, 0.8, 0.0)))
    inside = {None: [], own: []}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        alpha, truth = rng.lognormal(2.5, 0.45, n), rng.choice(3, n, p=[0.4, 0.35, 0.25])

        def seen(theta, alpha=alpha, truth=truth, rng=rng):
            p = replace(own, theta=theta).matrix(alpha)[np.arange(n), truth]
            return (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)

        labels, known = seen((0.0, 9.0, 11.0)), rng.random(n) < 0.2
        given["gold"] = np.where(known, seen(own.theta), -1)
        bars = binned(truth == 2, alpha, 4) / binned(truth > 0, alpha, 4)
        for transition, held in inside.items():
            found = debiased_fractions(labels, alpha, **given, gold_transition=transition)
            assert codes(found) == (["gold-misses"] if transition else [])
            quoted = found.ratios["bar fraction"]
            held.append((quoted.low < bars) & (bars < quoted.high))
    assert np.mean(inside[None]) < 0.6
    assert np.mean(inside[own]) > 0.9


@pytest.mark.parametrize("slope", [-2.0, 1.0])
def test_bins_of_another_column_imply_the_same_misses_of_experts(slope):
    """Within them, α and the disk fraction vary together, so that the disks are missed more or less often than all."""
    curve, highest, n = RayleighTransition(9.0), [], 4000
    for seed in range(4):
        rng = np.random.default_rng(seed)
        u, other = rng.normal(size=(2, n))
        alpha, is_disk = np.exp(2.8 + 0.45 * u), rng.random(n) < 1 / (1 + np.exp(-slope * u))
        labels, seen = (
            (is_disk & (rng.random(n) > t.flip_probability(alpha))).astype(int)
            for t in (RayleighTransition(THETA), curve)
        )
        given = {"gold": np.where(rng.random(n) < 0.15, seen, -1), "gold_transition": curve, "bins": 8}
        found = [debiased_fractions(labels, alpha, by=by, **given) for by in (None, other)]
        highest.append([one.of_total[0, 2, 1] for one in found])
        assert codes(found[0]) == ["gold-misses"]
    assert codes(debiased_fractions(labels, alpha, **given | {"gold_transition": RayleighTransition(0.1)})) == []
    by_alpha, by_other = np.mean(highest, axis=0)
    assert by_other == pytest.approx(by_alpha, abs=0.025)


@pytest.mark.parametrize("value", [-0.1, 0.0, 1.5, np.nan, np.inf])
def test_values_that_are_no_probabilities_are_refused(value):
    labels, alpha, _, gold, probability = by_column(0, 600)
    row = np.flatnonzero(gold != -1)[3]
    bad = np.where(np.arange(600) == row, value, probability)
    for estimate in (fit_transition, debiased_fractions):
        with pytest.raises(InputError, match=f"row {row}"):
            estimate(labels, alpha, gold=gold, gold_probability=bad)
        with pytest.raises(InputError, match="gold_probability"):
            estimate(labels, alpha, gold=gold, gold_probability=probability[:-1])
