"""Errors contain what is known to matter: fields, levels of selection, the population, false labels, errors of α."""

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import binned, codes, labels_through, some_known
from truemorph import simulate_catalogue
from truemorph.bias.checks.diagnostics import ignored_findings
from truemorph.bias.mixture import FALSE_LABELS
from truemorph.bias.regression.fields import fields_on_sky
from truemorph.catalogs.positions import unit_vectors
from truemorph.errors import InputError

from bias.test_own_family import Steep  # isort: skip

RAYLEIGH = tm.RayleighTransition(11.25)
BINS = 8


def in_fields(seed, scatter, number=None, n=6000, gold=300):
    """A catalogue of 100 fields of 1 degree, whose disks differ; gold labels in some of the fields, or in all."""
    rng = np.random.default_rng(seed)
    field, u = rng.integers(0, 100, n), rng.normal(size=n)
    alpha = np.exp(2.8 + 0.45 * u)
    disk = 1 / (1 + 3 / 7 * np.exp(-scatter * rng.normal(size=100)[field]))
    truth = (rng.random(n) < disk).astype(int)
    label = truth * (rng.random(n) > RAYLEIGH.flip_probability(alpha))
    inside = np.isin(field, rng.permutation(100)[: number or 100])
    known = np.isin(np.arange(n), rng.permutation(np.flatnonzero(inside))[:gold])
    ra, dec = 100 + 3 * (field % 10) + rng.random(n), 3 * (field // 10) + rng.random(n)
    columns = {"object_id": np.arange(n), "label": label, "alpha": alpha, "split": ["train"] * n, "ra": ra, "dec": dec}
    frame = pl.DataFrame(columns | {"truth": truth, "field": field})
    return frame.with_columns(gold=pl.when(pl.Series(known)).then("truth"))


def of_octiles(frame, **options):
    """The estimate from gold labels, whether its ranges hold the truth of the octiles, and their mean width."""
    found = tm.estimate_transition(frame, gold="gold", compare=False, **options)
    true = binned(frame["truth"].to_numpy(), frame["alpha"].to_numpy())
    low, high = found.fractions.low[:, 1], found.fractions.high[:, 1]
    return found, np.mean((low <= true) & (true <= high)), np.mean(high - low)


@pytest.mark.slow
def test_gold_labels_of_five_fields_have_wider_ranges_which_hold():
    covered, before = [], []
    for seed in range(4):
        frame = in_fields(seed, 0.8, 5)
        found, holds, width = of_octiles(frame)
        assert "gold-in-fields" in codes(found)
        covered.append(holds)
        _, holds, narrow = of_octiles(frame.drop("ra", "dec"))
        before.append(holds)
        assert width > narrow
    assert np.mean(covered) > 0.9
    assert np.mean(covered) >= np.mean(before)


def test_a_column_of_fields_says_the_same_as_positions():
    frame = in_fields(1, 0.8, 5)
    by_position, _, _ = of_octiles(frame)
    named = frame.drop("ra", "dec").with_columns(gold_field=pl.format("field {}", "field"))
    by_column, _, _ = of_octiles(named)
    assert "gold-in-fields" in codes(by_column)
    # Fields have other numbers, and draws are random.
    np.testing.assert_allclose(by_column.fractions.stderr, by_position.fractions.stderr, rtol=0.15)


def test_two_fields_cannot_tell_how_much_fields_differ():
    found, _, _ = of_octiles(in_fields(3, 0.8, 2, gold=60))
    assert "gold-in-few-fields" in codes(found)


def test_random_gold_labels_are_not_clustered():
    alarms = 0
    for seed in range(40):
        frame = in_fields(seed, 0.8, gold=300)
        points = unit_vectors(frame["ra"].to_numpy(), frame["dec"].to_numpy())
        alarms += fields_on_sky(points, frame["gold"].is_not_null().to_numpy()) is not None
    assert alarms <= 1


def test_fields_are_found_as_they_are():
    frame = in_fields(4, 0.0, 5)
    known = frame["gold"].is_not_null().to_numpy()
    found = fields_on_sky(unit_vectors(frame["ra"].to_numpy(), frame["dec"].to_numpy()), known)
    assert found is not None
    pairs = {(a, b) for a, b in zip(found[known], frame["field"].to_numpy()[known], strict=True)}
    assert len({b for _, b in pairs}) == 5
    assert len({a for a, _ in pairs}) == len(pairs) == 5


def test_known_probabilities_in_few_levels_leave_no_bias():
    """Six samples, of which every second one has few disks; their probability of selection doubles each time."""
    errors, covered = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n = 6000
        sample, u = rng.integers(0, 6, n), rng.normal(size=n)
        alpha, truth = np.exp(2.8 + 0.45 * u), (rng.random(n) < np.where(sample % 2, 0.9, 0.1)).astype(int)
        label = truth * (rng.random(n) > RAYLEIGH.flip_probability(alpha))
        probability = 0.01 * 2.0**sample
        gold = np.where(rng.random(n) < probability, truth, -1)
        found = tm.debiased_fractions(label, alpha, gold=gold, gold_probability=probability, bins=BINS)
        true = binned(truth, alpha)
        errors.append(found.fractions[:, 1] - true)
        covered.append((found.low[:, 1] <= true) & (true <= found.high[:, 1]))
    assert abs(np.mean(errors)) < 4 * np.std(np.mean(errors, axis=1)) / np.sqrt(8) + 0.005
    assert np.mean(covered) > 0.93


def test_the_range_of_a_population_holds_its_value_where_most_galaxies_have_gold_labels():
    of_these, of_all = [], []
    for seed in range(40):
        labels, alpha, truth = labels_through(RAYLEIGH, 400, seed, median=16.4)
        gold = np.where(np.random.default_rng([seed, 2]).permutation(400) < 260, truth, -1)
        found = tm.debiased_fractions(labels, alpha, gold=gold, bins=1)
        (_, low, high), (_, lowest, highest) = found.of_total[:, :, 1]
        of_these.append(low <= truth.mean() <= high)
        of_all.append(lowest <= 0.7 <= highest)
        assert found.of_total[1, 0, 1] > found.of_total[0, 0, 1]
    assert np.mean(of_these) > 0.86  # 0.95 ± 0.034
    assert np.mean(of_all) > 0.86


def test_with_every_galaxy_labelled_only_the_population_has_an_error():
    labels, alpha, truth = labels_through(RAYLEIGH, 1000, 1)
    found = tm.debiased_fractions(labels, alpha, gold=truth, bins=4)
    np.testing.assert_allclose(found.fractions[:, 1], binned(truth, alpha, 4), atol=1e-12)
    np.testing.assert_allclose(found.stderr, 0, atol=1e-9)
    expected = np.sqrt(found.fractions[:, 1] * (1 - found.fractions[:, 1]) / 250)
    np.testing.assert_allclose(found.population[0, :, 1], expected, rtol=0.02)


def test_a_class_without_gold_labels_has_an_upper_limit():
    labels, alpha, _ = labels_through(RAYLEIGH, 3000, 2, disk=0.002)
    gold = np.where(np.arange(3000) % 10 == 0, 0, -1)
    found = tm.debiased_fractions(labels, alpha, gold=gold, bins=2)
    assert (found.fractions[:, 1] < 0.02).all()
    assert (found.high[:, 1] > found.fractions[:, 1]).all()
    assert 0.002 < found.of_total[0, 2, 1] < 0.1


@pytest.mark.slow
def test_a_rare_class_with_false_labels_is_inside_the_range_from_labels_alone():
    inside = []
    for seed in range(2):
        flips = tm.RayleighTransition(11.25, false_disk=0.03)
        table = simulate_catalogue(12_000, seed, transition=flips, disk_fraction=0.08).drop("gold")
        found = tm.estimate_transition(table, compare=False).fractions
        true = binned(table["truth"].to_numpy(), table["alpha"].to_numpy())
        inside.append((found.low[:, 1] <= true) & (true <= found.high[:, 1]))
    assert np.mean(inside) > 0.95


@pytest.mark.slow
def test_false_labels_that_the_labels_exclude_are_left_out():
    """Where nearly no poorly resolved galaxy is labelled a disk, there can be no 3 % of false disks."""
    labels, alpha, _ = labels_through(tm.RayleighTransition(40.0), 10_000, 1, disk=0.3, median=16, width=0.8)
    drift = tm.fit_transition(labels, alpha).drift
    assert labels[alpha < np.quantile(alpha, 0.3)].mean() < 0.5 * FALSE_LABELS
    assert "rayleigh, no trend" in drift.alternatives
    assert not any("false, no trend" in name for name in drift.alternatives)


@pytest.mark.slow
def test_errors_of_alpha_are_spanned_by_the_range():
    error, truth, narrow, wide = 0.25, [], [], []
    for seed in range(2):
        table = simulate_catalogue(12_000, seed, alpha_error=error, disk_fraction=0.5)
        labels, alpha = table["label"].to_numpy(), table["alpha"].to_numpy()
        plain = tm.fit_transition(labels, alpha)
        fit = tm.fit_transition(labels, alpha, alpha_error=error)
        truth.append(table["truth"].mean())
        narrow.append(plain.class_fractions[1])
        wide.append(fit.drift.alternatives["rayleigh, errors of α, no trend"][1])
        assert fit.fraction_range["disk"][0] <= plain.fraction_range["disk"][0]
        assert fit.fraction_range["disk"][1] >= plain.fraction_range["disk"][1]
    assert abs(np.mean(wide) - np.mean(truth)) < 0.5 * abs(np.mean(narrow) - np.mean(truth))


@pytest.mark.slow
def test_an_error_of_alpha_is_a_number_or_a_column_and_gold_labels_do_not_take_it():
    table = simulate_catalogue(1000, 1, gold=300)
    by_number = tm.estimate_transition(table.drop("gold"), alpha_error=0.2, compare=False)
    in_column = table.drop("gold").with_columns(alpha_error=pl.lit(0.2))
    by_column = tm.estimate_transition(in_column, compare=False)
    assert by_number.fraction_range == by_column.fraction_range
    assert by_number.fit.drift.alpha_error == 0.2
    with pytest.raises(InputError):
        tm.estimate_transition(table, gold="gold", alpha_error=0.2)


@pytest.mark.slow
def test_families_that_the_labels_reject_are_not_in_the_range():
    """The labels reject the shape of `Steep`, which is nested in Weibull."""
    table = simulate_catalogue(3000, 3, transition=tm.WeibullTransition(20.0, 1.3))
    labels, alpha, column = (table[name].to_numpy() for name in ("label", "alpha", "bulge_fraction"))
    fit = tm.fit_transition(labels, alpha, Steep, intrinsic=column)
    assert tm.compare_families(labels, alpha, ("weibull", Steep), intrinsic=column).delta_aic("steep") > 10
    without_trend = {name.partition(",")[0] for name in fit.drift.alternatives if "no trend" in name}
    assert {"weibull", "fisk"} <= without_trend <= {"weibull", "fisk", "rayleigh"}


@pytest.mark.slow
@pytest.mark.parametrize("with_gold", [True, False])
def test_a_dependence_on_the_square_of_a_column_is_seen(with_gold):
    rng = np.random.default_rng(2)
    n = 6000
    u, s = rng.normal(size=(2, n))
    alpha, truth = np.exp(2.8 + 0.45 * u), (rng.random(n) < 0.7).astype(int)
    bent = tm.RayleighTransition(11.25).flip_probability(alpha * np.exp(-0.5 * (s**2 - 1)))
    labels = truth * (rng.random(n) > bent)
    gold = {"gold": some_known(truth, 0.1, 2)} if with_gold else {}
    fit = tm.fit_transition(labels, alpha, "rayleigh", delta=None, **gold)
    assert [ignored_finding.code for ignored_finding in ignored_findings(fit, {"snr": s})] == ["observable-ignored"]
    assert ignored_findings(fit, {"snr": rng.normal(size=n)}) == []
