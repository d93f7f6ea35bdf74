"""Splits and balanced samples depend on ids and seed, on nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truemorph.catalogs.sampling import (
    PAPER_SAMPLE,
    assign_folds,
    balanced_sample,
    draw_and_split,
    draw_sample,
    sampling_weights,
    split_by_id,
    split_counts,
)
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


def test_answers_of_earlier_versions_stay():
    # Catalogues prepared again must split as they did: numbers from version 0.1.0.
    ids = [587722981748572353 + n for n in range(40)]
    split = split_by_id(ids, (0.5, 0.25, 0.25), 3)
    assert "".join(one[0] for one in split) == "tttttvvttvttvttvttttttvttttvtvtvtttttttv"
    chosen = balanced_sample(np.arange(24) % 3 // 2, ids[:24], 3)
    assert np.flatnonzero(chosen).tolist() == [0, 1, 2, 5, 7, 8, 9, 10, 11, 14, 16, 17, 19, 20, 21, 23]
    assert assign_folds(ids[:10], 5, 3).tolist() == [2, 1, 2, 4, 3, 0, 3, 0, 4, 1]


@pytest.fixture(scope="module")
def full_table():
    """Labels and ids of 240,000 galaxies, more than the paper's sample of either label."""
    rng = np.random.default_rng(1)
    labels = (rng.random(240_000) < 0.45).astype(int)
    return labels, (587722981748572353 + rng.permutation(10**6)[:240_000]).tolist()


def test_the_papers_sample_from_a_full_table(full_table):
    labels, ids = full_table
    assert PAPER_SAMPLE.labels == (62_225, 59_759)
    assert sum(PAPER_SAMPLE.labels) == sum(PAPER_SAMPLE.split) == 121_984
    chosen, note = draw_sample(labels, ids)
    assert note is None
    assert np.bincount(labels[chosen]).tolist() == [62_225, 59_759]
    split, note = split_counts(np.array(ids)[chosen].tolist())
    assert note is None
    assert [(split == name).sum() for name in ("train", "validation", "test")] == [97_600, 12_192, 12_192]
    # The selection is undone: weighted, the drawn galaxies have the table's class fractions.
    weights = sampling_weights(labels, chosen)[chosen]
    assert weights.mean() == pytest.approx(1)
    assert np.average(labels[chosen], weights=weights) == pytest.approx(labels.mean(), abs=1e-12)
    # A random part of each label: the split doesn't know the label. Hypergeometric, four standard deviations.
    disks = labels[chosen][split == "test"].sum()
    assert disks == pytest.approx(12_192 * 59_759 / 121_984, abs=4 * np.sqrt(12_192 * 0.25 * 0.9))


def test_the_sample_depends_on_ids_and_seed_alone(full_table):
    labels, ids = (np.array(one)[:3_000] for one in full_table)
    order = np.random.default_rng(2).permutation(3_000)
    for seed in (0, 1):
        chosen, _ = draw_sample(labels, ids.tolist(), (500, 400), seed)
        mixed, _ = draw_sample(labels[order], ids[order].tolist(), (500, 400), seed)
        assert set(ids[chosen]) == set(ids[order][mixed])
        split, _ = split_counts(ids.tolist(), (2_000, 600, 400), seed)
        again, _ = split_counts(ids[order].tolist(), (2_000, 600, 400), seed)
        assert dict(zip(ids, split, strict=True)) == dict(zip(ids[order], again, strict=True))
    assert set(ids[chosen]) != set(ids[draw_sample(labels, ids.tolist(), (500, 400), 0)[0]])


@given(id_lists, st.integers(0, 99), st.data())
def test_equal_counts_are_the_balanced_sample(ids, seed, data):
    labels = np.array([0, 1, *data.draw(st.lists(st.integers(0, 1), min_size=len(ids) - 2, max_size=len(ids) - 2))])
    rarer = int(np.bincount(labels).min())
    chosen, note = draw_sample(labels, ids, (rarer, rarer), seed)
    assert note is None
    np.testing.assert_array_equal(chosen, balanced_sample(labels, ids, seed))
    # A smaller sample is part of a larger one.
    fewer, _ = draw_sample(labels, ids, (1, 1), seed)
    assert fewer.sum() == 2
    assert chosen[fewer].all()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 10**6), st.integers(1, 10**6))
def test_scarce_labels_keep_the_proportion(smooth, disk, ask_smooth, ask_disk):
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
    # As large as it can be: of the scarce label none is left.
    assert share == 1 or drawn[0] == smooth or drawn[1] == disk


def test_shortage_is_told_exactly():
    labels = np.repeat([0, 1], [50_000, 100_000])
    chosen, note = draw_sample(labels, range(labels.size))
    assert np.bincount(labels[chosen]).tolist() == [50_000, 48_018]  # 50,000 × 59,759 / 62,225 = 48,018.48
    assert note == (
        "asked for 62,225 smooth and 59,759 disk; the table has 50,000 smooth and 100,000 disk: "
        "drew 50,000 and 48,018 (12,225 and 11,741 fewer)"
    )
    split, note = split_counts(range(98_018))
    assert [(split == name).sum() for name in ("train", "validation", "test")] == [78_424, 9_797, 9_797]
    assert note == (
        "asked to split 121,984 galaxies into 97,600 to train on, 12,192 to validate on, 12,192 to test on; "
        "there are 98,018: split into 78,424, 9,797, 9,797"
    )


@given(st.integers(0, 60), st.tuples(*[st.integers(0, 40)] * 3).filter(any))
def test_split_sizes_are_exact_or_in_proportion(n, counts):
    split, note = split_counts(range(n), counts)
    sizes = np.array([(split == name).sum() for name in ("train", "validation", "test")])
    assert sizes.sum() == n
    assert abs(sizes - n * np.array(counts) / sum(counts)).max() <= 1
    assert (note is None) == (n == sum(counts))
    if note is None:
        assert tuple(sizes) == counts


def test_samples_name_their_mistakes():
    with pytest.raises(InputError, match="both above 0"):
        draw_sample(np.array([0, 1]), [1, 2], (0, 1))
    with pytest.raises(InputError, match="both above 0"):
        draw_sample(np.array([0, 1]), [1, 2], (0.5, 0.5))
    with pytest.raises(InputError, match=r"1 are not \(first: row 1, -1\)"):
        draw_sample(np.array([0, -1]), [1, 2], (1, 1))
    with pytest.raises(InputError, match="the table has 2 smooth and 0 disk: nothing can be drawn"):
        draw_sample(np.array([0, 0]), [1, 2], (1, 1))
    with pytest.raises(InputError, match="none below 0"):
        split_counts(range(3), (3, -1, 1))
    with pytest.raises(InputError, match="none below 0"):
        split_counts(range(3), (0, 0, 0))


@pytest.mark.parametrize(
    "split", [(0.8, float("nan"), 0.1), (float("nan"),) * 3, (float("inf"), 1, 1), (10, -2, 0), (1,)]
)
def test_a_split_of_what_is_no_number_is_refused(split):
    with pytest.raises(InputError, match=r"three shares|sum to 1"):
        draw_and_split(np.array([0, 1] * 5), range(10), None, split)
    with pytest.raises(InputError, match="sum to 1"):
        split_by_id(range(10), split)
