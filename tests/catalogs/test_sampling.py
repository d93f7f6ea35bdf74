"""Splits and balanced samples depend on ids and seed, on nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truemorph.catalogs.sampling import assign_folds, balanced_sample, sampling_weights, split_by_id
from truemorph.errors import InputError

id_lists = st.lists(st.integers(0, 2**62), min_size=3, max_size=200, unique=True)


@given(id_lists, st.integers(0, 99), st.randoms())
def test_split_does_not_depend_on_row_order(ids, seed, random):
    before = dict(zip(ids, split_by_id(ids, seed=seed), strict=True))
    shuffled = ids.copy()
    random.shuffle(shuffled)
    assert dict(zip(shuffled, split_by_id(shuffled, seed=seed), strict=True)) == before


@given(id_lists)
def test_shares_are_exact(ids):
    split = split_by_id(ids, (0.8, 0.1, 0.1))
    assert (split == "validation").sum() == (split == "test").sum() == round(0.1 * len(ids))


def test_paper_sizes_and_independence_of_seeds():
    # 121,984 galaxies split 97,600 / 12,192 / 12,192 in the paper.
    split = split_by_id(range(121_984), (97_600 / 121_984, 12_192 / 121_984, 12_192 / 121_984))
    assert [(split == name).sum() for name in ("train", "validation", "test")] == [97_600, 12_192, 12_192]
    other = split_by_id(range(121_984), (0.8, 0.1, 0.1), seed=1)
    both = np.mean((split == "test") & (other == "test"))
    assert both == pytest.approx(0.01, abs=0.0015)


def test_split_names_its_mistakes():
    with pytest.raises(InputError, match="sum to 1"):
        split_by_id(range(10), (0.8, 0.1, 0.2))


@given(id_lists, st.integers(2, 5))
def test_folds_are_even(ids, folds):
    sizes = np.bincount(assign_folds(ids, folds), minlength=folds)
    assert sizes.max() - sizes.min() <= 1


def test_balanced_sample_and_weights():
    rng = np.random.default_rng(0)
    labels = (rng.random(5_000) < 0.3).astype(int)
    chosen = balanced_sample(labels, range(5_000), seed=2)
    assert (labels[chosen] == 0).sum() == (labels[chosen] == 1).sum() == (labels == 1).sum()
    weights = sampling_weights(labels, chosen)[chosen]
    assert weights.mean() == pytest.approx(1)
    assert np.average(labels[chosen], weights=weights) == pytest.approx(labels.mean())
    with pytest.raises(InputError, match="both classes"):
        balanced_sample(np.zeros(10, int), range(10))
