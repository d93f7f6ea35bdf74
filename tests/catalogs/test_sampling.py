"""Samples and splits depend only on ids and seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truemorph.catalogs.sampling import assign_folds, draw_sample, split_galaxies
from truemorph.errors import InputError

id_lists = st.lists(st.integers(0, 2**62), min_size=3, max_size=200, unique=True)


def test_samples_and_splits_are_those_of_version_0_1():
    ids = [587722981748572353 + n for n in range(40)]
    split, _ = split_galaxies(ids, (0.5, 0.25, 0.25), 3)
    assert "".join(one[0] for one in split) == "tttttvvttvttvttvttttttvttttvtvtvtttttttv"
    chosen, _ = draw_sample(np.arange(24) % 3 // 2, ids[:24], "balanced", 3)
    assert np.flatnonzero(chosen).tolist() == [0, 1, 2, 5, 7, 8, 9, 10, 11, 14, 16, 17, 19, 20, 21, 23]
    assert assign_folds(ids[:10], 5, 3).tolist() == [2, 1, 2, 4, 3, 0, 3, 0, 4, 1]  # of equal size


@given(id_lists, st.integers(0, 99), st.randoms())
def test_row_order_does_not_matter(ids, seed, random):
    labels = {one: one % 2 for one in ids} | dict(zip(ids, (0, 1), strict=False))
    shuffled = ids.copy()
    random.shuffle(shuffled)

    def answers(order):
        split, _ = split_galaxies(order, seed=seed)
        chosen, _ = draw_sample(np.array([labels[one] for one in order]), order, "balanced", seed)
        return {one: (part, taken) for one, part, taken in zip(order, split, chosen, strict=True)}

    assert answers(shuffled) == answers(ids)


@given(st.integers(0, 60), st.tuples(*[st.integers(0, 40)] * 3).filter(lambda counts: sum(counts) > 1))
def test_sizes_of_a_split_are_exact_or_in_proportion(n, counts):
    split, note = split_galaxies(range(n), counts)
    sizes = [(split == name).sum() for name in ("train", "validation", "test")]
    assert sum(sizes) == n
    assert np.abs(np.array(sizes) - n * np.array(counts) / sum(counts)).max() <= (n != sum(counts))
    assert (note is None) == (n == sum(counts))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_smaller_sample_keeps_the_ratio_of_labels(smooth, disk, ask_smooth, ask_disk):
    labels = np.repeat([0, 1], [smooth, disk])
    share = min(1, smooth / ask_smooth, disk / ask_disk)
    try:
        chosen, note = draw_sample(labels, range(labels.size), (ask_smooth, ask_disk))
    except InputError:
        assert min(ask_smooth * share, ask_disk * share) < 0.5 + 1e-9
        return
    drawn = np.bincount(labels[chosen], minlength=2)
    assert abs(drawn - share * np.array([ask_smooth, ask_disk])).max() <= 0.5 + 1e-9
    assert (note is None) == (share == 1)
    assert share == 1 or drawn[0] == smooth or drawn[1] == disk  # as large as it can be


@pytest.mark.parametrize("parts", [(0.8, 0.1, 0.2), (0.8, np.nan, 0.1), (np.inf, 1, 1), (3, -1, 1), (0, 0, 0), (1,)])
def test_impossible_splits_raise_errors(parts):
    with pytest.raises(InputError):
        split_galaxies(range(10), parts)
