"""CV18 by leaf."""

import numpy as np
import pytest

from conftest import confounded_labels
from truemorph.bias.metrics import cv18, cv18_by_leaf
from truemorph.errors import InputError

LABELS, ALPHA, TRUTH, COLUMNS = confounded_labels(20_000, seed=4)


@pytest.mark.parametrize("soft", [False, True])
def test_the_leaves_combine_to_cv18(soft):
    labels = np.column_stack([1 - 0.8 * LABELS, 0.8 * LABELS]) if soft else LABELS
    whole = cv18(labels, ALPHA, COLUMNS, 4, 6, bootstrap=0, floor="analytic")
    found = cv18_by_leaf(labels, ALPHA, COLUMNS, 4, 6)
    assert np.sqrt(np.mean(found.values**2)) == pytest.approx(whole.value)
    assert np.sqrt(np.mean(found.floors**2)) == pytest.approx(whole.floor)
    assert found.counts.sum() == LABELS.size
    assert found.medians.shape == (16, 3)


def test_leaves_have_the_position_of_their_galaxies():
    found = cv18_by_leaf(LABELS, ALPHA, COLUMNS, 1, 5)
    middle = np.median(COLUMNS[:, 0])
    low, high = COLUMNS[COLUMNS[:, 0] < middle, 0], COLUMNS[COLUMNS[:, 0] >= middle, 0]
    assert found.medians[:, 0] == pytest.approx([np.median(low), np.median(high)])


def test_only_rows_without_missing_values_are_used():
    gappy = COLUMNS.copy()
    gappy[::2, 1] = np.nan
    found = cv18_by_leaf(LABELS, ALPHA, gappy, 3, 5)
    alone = cv18_by_leaf(LABELS[1::2], ALPHA[1::2], COLUMNS[1::2], 3, 5)
    np.testing.assert_allclose(found.values, alone.values)


def test_one_observable_and_at_least_two_bins_are_needed():
    with pytest.raises(InputError, match="one observable"):
        cv18_by_leaf(LABELS, np.column_stack([ALPHA, ALPHA]), COLUMNS, 2, 5)
    with pytest.raises(InputError, match="2 bins"):
        cv18_by_leaf(LABELS, ALPHA, COLUMNS, 2, 1)
