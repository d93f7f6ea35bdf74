"""Fractions of a question's answers from gold labels: ratios of sums of classes, with errors that hold."""

import numpy as np
import pytest

from conftest import codes, some_known
from truemorph import Asked, debiased_fractions, read_tree
from truemorph.bias.binning import Bins
from truemorph.errors import InputError
from truemorph.questions import Quantity

BAR = Asked(read_tree("gz2"), "bar").quantities


def barred(n=2_000, seed=0, p_bar=0.35, p_disk=0.6):
    """Labels, α and true classes: 0 does not apply, 1 no bar, 2 bar; volunteers miss disks, and bars even more."""
    rng = np.random.default_rng(seed)
    alpha = rng.lognormal(2.8, 0.45, n)
    truth = np.where(rng.random(n) < p_disk, 1 + (rng.random(n) < p_bar), 0)
    seen = np.exp(-(alpha**2) / (2 * np.where(truth == 2, 7.0, 11.0) ** 2)) < rng.random(n)
    bar = (truth == 2) & (np.exp(-(alpha**2) / (2 * 15.0**2)) < rng.random(n))
    return np.where((truth > 0) & seen, 1 + bar, 0), alpha, truth


def ratio(truth, rows=slice(None)):
    return np.sum(truth[rows] == 2) / np.sum(truth[rows] > 0)


def test_of_two_classes_the_quantity_is_the_disk_fraction():
    labels, alpha, truth = barred()
    labels, truth = (labels > 0).astype(int), (truth > 0).astype(int)
    gold = some_known(truth, 0.1, 0)
    plain = debiased_fractions(labels, alpha, gold=gold, bins=4)
    quoted = debiased_fractions(labels, alpha, gold=gold, bins=4, quantities=[Quantity("disk fraction", (0.0, 1.0))])
    np.testing.assert_array_equal(quoted["disk fraction"].fraction, plain.fractions[:, 1])
    np.testing.assert_array_equal(quoted["disk fraction"].low, plain.low[:, 1])


def test_with_all_gold_labels_the_fraction_is_exact_and_its_error_zero():
    labels, alpha, truth = barred()
    found = debiased_fractions(labels, alpha, gold=truth, quantities=BAR)
    bins = Bins.cut(alpha, 8)
    true = bins.sums(truth == 2) / bins.sums(truth > 0)
    np.testing.assert_allclose(found["bar fraction"].fraction, true)
    np.testing.assert_allclose(found["bar fraction"].stderr, 0, atol=1e-12)
    assert found["bar fraction"].total[1] == pytest.approx(ratio(truth))
    assert found.applies.total[1] == pytest.approx(np.mean(truth > 0))


def test_errors_of_the_population_are_those_of_a_sample():
    """Of galaxies whose classes are all known, only the sampling error is left: that of a binomial proportion."""
    labels, alpha, truth = barred()
    found = debiased_fractions(labels, alpha, gold=truth, bins=1, quantities=BAR)
    expected = np.sqrt(ratio(truth) * (1 - ratio(truth)) / np.sum(truth > 0))
    bars = found["bar fraction"]
    assert bars.population_stderr[0] == pytest.approx(expected, rel=0.01)
    assert bars.population_high[0] - bars.population_low[0] == pytest.approx(2 * 1.96 * expected, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("p_bar", "gold", "least"), [(0.35, 0.08, 0.93), (0.35, 0.2, 0.93), (0.02, 0.1, 0.93)])
def test_ranges_contain_the_truth(p_bar, gold, least):
    inside, errors, of_gold = [], [], []
    for seed in range(60):
        labels, alpha, truth = barred(3_000, seed, p_bar)
        known = some_known(truth, gold, seed)
        found = debiased_fractions(labels, alpha, gold=known, bins=5, quantities=BAR)
        bins = Bins.at(alpha, found.edges)
        true = bins.sums(truth == 2) / bins.sums(truth > 0)
        one = found["bar fraction"]
        inside += ((one.low <= true) & (true <= one.high)).tolist()
        errors += (one.fraction - true).tolist()
        of_gold += (bins.sums(known == 2) / bins.sums(known > 0) - true).tolist()
    # 300 ranges of 95 %: ± 0.013, and as the bins of a catalogue share errors, ± 0.02.
    assert least - 0.02 < np.mean(inside)
    assert np.sqrt(np.mean(np.square(errors))) < 0.9 * np.sqrt(np.nanmean(np.square(of_gold)))


def test_a_rare_answer_without_a_gold_label_is_not_certain_to_be_absent():
    labels, alpha, truth = barred(3_000, 1, p_bar=0.01)
    gold = some_known(truth, 0.05, 1)
    gold[gold == 2] = -1
    found = debiased_fractions(labels, alpha, gold=gold, bins=2, quantities=BAR)
    assert np.all(found["bar fraction"].high > 0.01)
    assert np.all(found["bar fraction"].stderr > 0.001)


def test_galaxies_whose_answer_nobody_could_tell_widen_the_range_of_each_answer():
    labels, alpha, truth = barred()
    gold = some_known(truth, 0.2, 2)
    uncertain = np.zeros(gold.size, dtype=bool)
    uncertain[np.flatnonzero(gold > 0)[:60]] = True
    gold[uncertain] = -1
    plain = debiased_fractions(labels, alpha, gold=gold, bins=1, quantities=BAR)["bar fraction"]
    found = debiased_fractions(labels, alpha, gold=gold, gold_uncertain=uncertain, bins=1, quantities=BAR)
    wide = found["bar fraction"]
    counts = np.bincount(gold[gold >= 0])
    # As if all of them had a bar, or none.
    assert wide.high[0] > plain.high[0] + 0.5 * 60 / (counts[1:].sum() + 60) * (1 - ratio(truth))
    assert wide.low[0] < plain.low[0]
    assert "gold-uncertain" in codes(found)


def test_bins_to_which_a_question_may_not_apply_are_merged():
    labels, alpha, truth = barred(4_000, 3)
    truth = np.where(alpha < np.quantile(alpha, 0.25), 0, truth)
    found = debiased_fractions(labels, alpha, gold=some_known(truth, 0.1, 3), quantities=BAR)
    assert len(found.counts) < 8
    assert found.counts.sum() == 4_000
    assert "bins-merged" in codes(found)
    assert np.isfinite(found["bar fraction"].fraction).all()


def test_a_bin_has_50_galaxies_and_some_of_each_answer():
    labels, alpha, truth = barred(275, 5)
    gold = some_known(truth, 0.6, 5)
    assert debiased_fractions(labels, alpha, gold=gold, bins=8).counts.size == 8
    assert debiased_fractions(labels, alpha, gold=gold).counts.size == 5
    bars = np.flatnonzero(truth == 2)
    truth[bars[np.argsort(alpha[bars])[:20]]] = 1  # none where resolution is poor
    found = debiased_fractions(labels, alpha, gold=np.where(gold >= 0, truth, -1), quantities=BAR)
    assert found.counts.size < 5
    assert "bins-merged" in codes(found)


def test_fractions_in_bins_of_two_columns():
    labels, alpha, truth = barred(8_000, 4)
    z = np.random.default_rng(4).random(8_000)
    truth = np.where((truth == 2) & (z > 0.5), 1, truth)
    columns, gold = np.column_stack([z, alpha]), some_known(truth, 0.2, 4)
    found = debiased_fractions(labels, alpha, gold=gold, by=columns, bins=4, quantities=BAR, name="z,a")
    assert found.edges.shape == (4, 2, 2)
    one = found["bar fraction"]
    for b, ((low, high), (least, most)) in enumerate(found.edges):
        rows = (low <= z) & (z <= high) & (least <= alpha) & (alpha <= most)
        assert rows.sum() == found.counts[b]
        assert abs(one.fraction[b] - ratio(truth, rows)) < 4 * one.stderr[b]
    assert len(found.to_table()) == 4
    assert "bar fraction, fraction" in found.to_table().colnames
    assert len(found.summary().splitlines()) == 1 + 4 + 1 + 1
    np.testing.assert_allclose(found.to_dict()["quantities"]["bar fraction"]["fraction"], one.fraction)


def test_paths_and_votes_are_predictors():
    labels, alpha, truth = barred(2_000, 5)
    gold = some_known(truth, 0.1, 5)
    rng = np.random.default_rng(5)
    votes = rng.normal(2.0 * (truth == 2), 1.0)
    plain = debiased_fractions(labels, alpha, gold=gold, bins=1, quantities=BAR)
    paths = np.where(labels == 0, rng.integers(0, 2, labels.size), labels + 1)
    found = debiased_fractions(labels, alpha, gold=gold, bins=1, quantities=BAR, paths=paths, votes=votes)
    assert found["bar fraction"].stderr[0] < plain["bar fraction"].stderr[0]
    np.testing.assert_array_equal(found.labelled, plain.labelled)


def test_what_needs_gold_labels_is_refused_without_and_unknown_names_too():
    labels, alpha, truth = barred(500)
    for options in ({"quantities": BAR}, {"paths": labels}):
        with pytest.raises(InputError):
            debiased_fractions(labels, alpha, "rayleigh:11", **options)
    for paths in (labels[:9], labels * 1.0, labels - 1):
        with pytest.raises(InputError):
            debiased_fractions(labels, alpha, gold=truth, quantities=BAR, paths=paths)
    with pytest.raises(InputError):
        debiased_fractions(labels, alpha, gold=truth, quantities=[BAR[0], Quantity("x", (1.0, 0.0))])
    with pytest.raises(InputError):
        debiased_fractions(labels, alpha, gold=truth, bins=2, quantities=BAR)["ring fraction"]
