"""Tables behind the figures, against hand counts and scikit-learn."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from sklearn import metrics

from conftest import confounded_labels
from truemorph import cv14, cv18
from truemorph.bias.metrics.scores import calibration_error
from truemorph.catalogs.label_sets import LabelSet, fractions_by
from truemorph.questions import SMOOTH_OR_DISK
from truemorph.report.figures import axis_label
from truemorph.report.measures import (
    BiasTree,
    chance_calibration_error,
    compared_accuracies,
    fraction_errors,
    halves_by,
    table_one,
)
from truemorph.tables import CatalogTable

LABELS, ALPHA, TRUTH, COLUMNS = confounded_labels(6000, seed=8)


def gain_of(compare, *arrays):
    """By how much the first are better, and its error."""
    ours, theirs, error = compare(*arrays)
    return (theirs - ours if compare is fraction_errors else ours - theirs), error


def two(name, kind, p, model=""):
    return LabelSet.of_two(name, kind, p, SMOOTH_OR_DISK, model)


OBSERVED = two("observed", "observed", LABELS.astype(float))


def test_fractions_in_bins_of_equal_count():
    values = np.array([5.0, 1, 2, np.nan, 4, 3, 6])
    sets = [two("a", "observed", np.array([1.0, 0, 1, 1, np.nan, 0, 1])), two("b", "truth", np.full(7, np.nan))]
    found = fractions_by(values, sets, 3)
    a = found.filter(pl.col("labels") == "a")
    assert a["low"].to_list() == [1, 2.5, 4.5]
    assert a["high"].to_list() == [2.5, 4.5, 6]
    assert a["galaxies"].to_list() == [2, 1, 2]  # one of six has no label
    assert a["fraction"].to_list() == [0.5, 0, 1]
    assert (a["stderr"] > 0).all()  # also where all are alike
    assert found.filter(pl.col("labels") == "b")["fraction"].is_nan().all()


def test_halves_at_fixed_values_of_a_column():
    """Disks at high α only, at low values of the column only; in any order of rows."""
    values, alpha = np.repeat(np.arange(5.0), 100), np.tile(np.arange(100.0), 5)
    disk = ((values == 0) & (alpha >= 50)).astype(float)
    rows = np.random.default_rng(0).permutation(500)
    found = halves_by(values[rows], alpha[rows], [two("a", "observed", disk[rows])])
    assert found["value"].to_list() == np.repeat(np.arange(5), 2).tolist()
    assert found["fraction"].to_list() == [0, 1, *8 * [0]]
    assert found["galaxies"].to_list() == 10 * [50]


def test_bias_is_that_of_the_measures_on_known_galaxies():
    tree = BiasTree.fitting(OBSERVED, ALPHA, COLUMNS, bootstrap=0, seed=0)
    assert tree.measure == "CV18"
    half = np.where(np.arange(LABELS.size) % 2, LABELS, np.nan)
    rows = slice(1, None, 2)
    expected = cv18(LABELS[rows], ALPHA[rows], COLUMNS[rows], tree.depth, tree.bins, bootstrap=0).value
    assert tree.bias(two("half", "column", half)).value == expected
    alone = BiasTree.fitting(OBSERVED, ALPHA, COLUMNS[:, :0], bootstrap=0, seed=0)
    assert alone.measure == "CV14"
    few = BiasTree.fitting(
        two("few", "column", np.where(np.arange(ALPHA.size) < 260, LABELS, np.nan)), ALPHA, COLUMNS[:, :0], 0, 0
    )
    assert few.bins == 10  # not by those without a label
    assert alone.bias(OBSERVED).value == cv14(LABELS, ALPHA, alone.bins, bootstrap=0).value


def test_table_one_against_scikit_learn():
    rng = np.random.default_rng(1)
    p = np.clip(0.25 + 0.5 * TRUTH + rng.normal(0, 0.2, TRUTH.size), 0, 1)
    own = two("model: labels", "labels", (p > 0.5).astype(float), "model")
    soft = two("model: p(disk)", "probabilities", p, "model")
    truth = two("truth", "truth", TRUTH.astype(float))
    few = two("few", "truth", np.where(np.arange(LABELS.size) < 40, TRUTH, np.nan))
    tree = BiasTree.fitting(OBSERVED, ALPHA, COLUMNS, bootstrap=10, seed=0)
    sets = [OBSERVED, own, soft, truth, few]
    parts = {label_set.name: np.column_stack([label_set.p, np.ones(ALPHA.size)]) for label_set in sets}
    table = table_one(sets, ALPHA, {label_set.name: tree.bias(label_set) for label_set in sets}, {"all": truth}, parts)
    rows = {row["labels"]: row for row in table.iter_rows(named=True)}
    labels = own.labels
    assert rows["model: labels"]["accuracy"] == pytest.approx(metrics.accuracy_score(LABELS, labels))
    assert rows["model: labels"]["precision"] == pytest.approx(metrics.precision_score(LABELS, labels, average="macro"))
    assert rows["model: labels"]["to_disk"] == ((LABELS == 0) & (labels == 1)).sum()
    right = metrics.balanced_accuracy_score(TRUTH, labels)
    assert rows["model: labels"]["balanced_accuracy: all"] == pytest.approx(right)
    assert rows["model: p(disk)"]["accuracy"] == rows["model: labels"]["accuracy"]
    parts = np.array_split(np.argsort(ALPHA, kind="stable"), 5)
    off = [p[part].mean() - TRUTH[part].mean() for part in parts]
    assert rows["model: p(disk)"]["fraction_rms: all"] == pytest.approx(np.sqrt(np.mean(np.square(off))))
    assert rows["truth"]["balanced_accuracy: all"] is None
    assert rows["observed"]["excess"] > 3 * rows["truth"]["excess"]
    assert (rows["few"]["galaxies"], rows["few"]["excess"]) == (40, None)  # too few for the tree


def test_what_chance_does_to_calibration():
    rng = np.random.default_rng(3)
    p = rng.beta(0.8, 0.6, 600)
    drawn = [calibration_error((rng.random(p.size) < p).astype(float), p) for _ in range(400)]
    mean, scatter = chance_calibration_error(p, p * (1 - p))
    # Bins of p near 0 aren't normal.
    assert mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 20 + 0.02 * mean)
    assert scatter == pytest.approx(np.std(drawn), rel=0.25)


def test_gains_and_their_errors_against_the_bootstrap():
    """Paired: galaxies that both label alike add no noise."""
    rng = np.random.default_rng(4)
    p = np.clip(0.2 + 0.6 * TRUTH + rng.normal(0, 0.25, TRUTH.size), 0, 1)
    ours = (p > 0.5).astype(int)
    *accuracies, error = compared_accuracies(TRUTH, ours, LABELS)
    assert accuracies == pytest.approx([metrics.balanced_accuracy_score(TRUTH, one) for one in (ours, LABELS)])
    drawn = [
        gain_of(compared_accuracies, *(one[rows] for one in (TRUTH, ours, LABELS)))[0]
        for rows in rng.integers(0, TRUTH.size, (300, TRUTH.size))
    ]
    # 300 resamples know a standard deviation to 4 %.
    assert error == pytest.approx(np.std(drawn), rel=0.2)
    assert np.isnan(compared_accuracies(np.ones(5, int), np.ones(5, int), np.zeros(5, int))[0])  # without a class
    wrong = np.column_stack([np.zeros(9), np.ones(9)])
    assert gain_of(fraction_errors, np.ones((9, 2)), wrong, wrong, np.arange(9.0)) == (0, 0)


def test_a_bin_in_which_a_set_has_no_answer_is_left_out():
    """Nobody was asked among the least resolved fifth: its error is not known, and not 0."""
    rng = np.random.default_rng(5)
    order = np.argsort(np.argsort(ALPHA))
    truth = np.column_stack([rng.random(ALPHA.size) < 0.5, np.ones(ALPHA.size)]).astype(float)
    half = np.column_stack([0.9 * truth[:, 0], truth[:, 1]])
    asked = half * (order >= ALPHA.size / 5)[:, None]
    gain, error = gain_of(fraction_errors, truth, half, asked, ALPHA)
    off = [0.1 * part.mean() for part in np.array_split(truth[np.argsort(ALPHA), 0], 5)]
    expected = np.sqrt(np.mean(np.square(off[1:]))) - np.sqrt(np.mean(np.square(off)))
    assert gain == pytest.approx(expected, abs=1e-3)
    assert np.isfinite(error)


def test_the_error_of_the_gain_of_a_ratio_is_the_scatter_of_resampled_galaxies():
    """Of the galaxies to which a question applies, by the truth and by both sets."""
    rng = np.random.default_rng(8)
    applies, n = 0.3 + 0.5 * (np.median(ALPHA) < ALPHA), ALPHA.size
    true = rng.random(n) < applies
    truth = np.column_stack([true & (TRUTH == 1), true]).astype(float)
    ours, theirs = (np.clip(truth * (1 - 2 * noise) + rng.uniform(0, 2 * noise, (n, 2)), 0, 1) for noise in (0.05, 0.2))
    ours[:, 0], theirs[:, 0] = np.minimum(*ours.T), np.minimum(*theirs.T)
    gain, error = gain_of(fraction_errors, truth, ours, theirs, ALPHA)
    drawn = [
        gain_of(fraction_errors, *(one[rows] for one in (truth, ours, theirs, ALPHA)))[0]
        for rows in (rng.integers(0, n, n) for _ in range(300))
    ]
    assert error == pytest.approx(np.std(drawn), rel=0.2)
    assert gain == pytest.approx(np.mean(drawn), abs=3 * error)


@pytest.mark.parametrize(
    ("alpha", "radius"),
    [("petroRad_r / sigma_PSF", "petro"), ("petroR90_r / sigma_PSF", "90"), ("column size of the table", "")],
)
def test_the_axis_of_alpha_names_the_radius_that_alpha_uses(alpha, radius):
    evidence = SimpleNamespace(catalogue=CatalogTable(pl.DataFrame(), metadata={"alpha": alpha}))
    assert f"R_\\mathrm{{{radius}}}" in axis_label(evidence, "alpha")
