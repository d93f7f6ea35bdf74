"""Balanced samples and train/validation/test splits that depend on the object id alone.

Each galaxy gets a pseudo-random number from its id and the seed, and the galaxies are cut by its rank, so that shares
are exact. Row order and other columns do not enter: a catalogue that is shuffled or joined again splits the same way.
Adding or removing galaxies moves the cuts, and with them the few galaxies nearest to a cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from truemorph.errors import InputError

TRAIN, VALIDATION, TEST, UNUSED = "train", "validation", "test", "unused"
SHARES = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class SampleSizes:
    """How many galaxies of each label (smooth, disk), and how many to train on, to validate on and to test on."""

    labels: tuple[int, int]
    split: tuple[int, int, int]


PAPER_SAMPLE = SampleSizes(labels=(62_225, 59_759), split=(97_600, 12_192, 12_192))
"""The 121,984 galaxies of Medina-Rosales et al. (arXiv:2308.11007), section 2.5."""


def id_ranks(object_ids: Sequence[object], seed: int, purpose: str) -> np.ndarray:
    """Random 64-bit numbers fixed by (seed, purpose, id), shape (N,)."""
    key = f"{seed}/{purpose}".encode()
    digests = (hashlib.blake2b(str(one).encode(), key=key, digest_size=8).digest() for one in object_ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def balanced_sample(labels: np.ndarray, object_ids: Sequence[object], seed: int = 0) -> np.ndarray:
    """Choose as many galaxies of each class as the rarer class has.

    Parameters
    ----------
    labels : array of int, shape (N,)
    object_ids : sequence, length N
    seed : int

    Returns
    -------
    array of bool, shape (N,)
        True for chosen galaxies. Choosing by the observed label changes p(ỹ | α): weight each galaxy by the
        inverse of its class's chosen share (`sampling_weights`) to estimate θ or train without bias.

    Raises
    ------
    InputError
        If a class is empty.
    """
    counts = np.bincount(labels, minlength=2)
    if counts.min() == 0:
        raise InputError(f"a balanced sample needs both classes; counts are smooth {counts[0]}, disk {counts[1]}")
    return _first_by_rank(labels, object_ids, [int(counts.min())] * counts.size, seed)


def draw_sample(
    labels: np.ndarray, object_ids: Sequence[object], counts: tuple[int, int] = PAPER_SAMPLE.labels, seed: int = 0
) -> tuple[np.ndarray, str | None]:
    """Draw a stated number of galaxies of each label, or as many in that proportion as there are.

    Galaxies are ranked as for `balanced_sample`: with one seed a smaller sample is part of a larger one.

    Parameters
    ----------
    labels : array of int, shape (N,)
        0 = smooth, 1 = disk.
    object_ids : sequence, length N
    counts : tuple of 2 int
        How many smooth and disk galaxies; default: the paper's 62,225 and 59,759.
    seed : int

    Returns
    -------
    chosen : array of bool, shape (N,)
        True for drawn galaxies. `sampling_weights` undoes the selection.
    note : str or None
        Where the table has too few: what was asked, what it has, what was drawn.

    Raises
    ------
    InputError
        If a count is not a positive integer, a label not 0 or 1, or the table has none of a label.

    Examples
    --------
    >>> chosen, note = draw_sample(np.repeat([0, 1], [5, 40]), range(45), counts=(20, 10))
    >>> print(note)
    asked for 20 smooth and 10 disk; the table has 5 smooth and 40 disk: drew 5 and 3 (15 and 7 fewer)
    """
    if len(counts) != 2 or not all(isinstance(count, (int, np.integer)) and count > 0 for count in counts):
        raise InputError(f"a sample takes how many smooth and how many disk galaxies, both above 0; got {counts}")
    labels = np.asarray(labels)
    strange = np.flatnonzero((labels != 0) & (labels != 1))
    if strange.size:
        raise InputError(
            f"labels are 0 (smooth) or 1 (disk); {strange.size} are not (first: row {strange[0]}, "
            f"{labels[strange[0]]}); drop those rows"
        )
    asked, have = [int(count) for count in counts], [int((labels == label).sum()) for label in (0, 1)]
    scarce = int(have[1] * asked[0] < have[0] * asked[1])
    drawn = asked
    if have[scarce] < asked[scarce]:
        # Whole numbers: shares near one half round the same on every machine.
        drawn = [(2 * count * have[scarce] + asked[scarce]) // (2 * asked[scarce]) for count in asked]
    table = f"the table has {have[0]:,d} smooth and {have[1]:,d} disk"
    wanted = f"asked for {asked[0]:,d} smooth and {asked[1]:,d} disk"
    if min(drawn) == 0:
        raise InputError(f"{wanted}; {table}: nothing can be drawn in that proportion; ask for other numbers")
    chosen = _first_by_rank(labels, object_ids, drawn, seed)
    if drawn == asked:
        return chosen, None
    return chosen, (
        f"{wanted}; {table}: drew {drawn[0]:,d} and {drawn[1]:,d} "
        f"({asked[0] - drawn[0]:,d} and {asked[1] - drawn[1]:,d} fewer)"
    )


def _first_by_rank(labels: np.ndarray, object_ids: Sequence[object], counts: Sequence[int], seed: int) -> np.ndarray:
    """Of each label as many galaxies as its count says, in the order of their ranks."""
    ranks = id_ranks(object_ids, seed, "balance")
    chosen = np.zeros(labels.size, dtype=bool)
    for label, count in enumerate(counts):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argsort(ranks[members], kind="stable")[:count]]] = True
    return chosen


def sampling_weights(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Inverse of the share of each galaxy's class that was chosen, mean 1 over the chosen, shape (N,)."""
    share = np.bincount(labels[chosen]) / np.bincount(labels)
    weights = 1.0 / share[labels]
    return weights / weights[chosen].mean()


def split_by_id(
    object_ids: Sequence[object], fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> np.ndarray:
    """Split galaxies into train, validation and test.

    Parameters
    ----------
    object_ids : sequence, length N
    fractions : tuple of 3 floats
        Shares of train, validation and test; they sum to 1.
    seed : int

    Returns
    -------
    array of str, shape (N,)
        "train", "validation" or "test". Validation and test have round(N × fraction) galaxies, train the
        rest.

    Raises
    ------
    InputError
        If the fractions are negative or don't sum to 1.

    Examples
    --------
    >>> split_by_id(range(10))
    array(['test', 'train', 'train', 'train', 'train', 'validation', 'train',
           'train', 'train', 'train'], dtype='<U10')
    """
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-9):
        raise InputError(f"split fractions are train, validation, test and sum to 1; got {fractions}")
    n_validation, n_test = (round(len(object_ids) * fraction) for fraction in fractions[1:])
    return _cut(object_ids, n_validation, n_test, seed)


def split_counts(
    object_ids: Sequence[object], counts: tuple[int, int, int] = PAPER_SAMPLE.split, seed: int = 0
) -> tuple[np.ndarray, str | None]:
    """Split galaxies into train, validation and test of stated sizes.

    Parameters
    ----------
    object_ids : sequence, length N
    counts : tuple of 3 int
        Sizes of train, validation and test; default: the paper's 97,600, 12,192 and 12,192.
    seed : int

    Returns
    -------
    split : array of str, shape (N,)
        "train", "validation" or "test", in the order of `split_by_id`. Where the sizes don't sum to N, validation and
        test have their shares of N, rounded, and train the rest.
    note : str or None
        Where the sizes don't sum to N: what was asked, and what was given.

    Raises
    ------
    InputError
        If a size is negative or not an integer, or none is positive.

    Examples
    --------
    >>> split, note = split_counts(range(100), (8, 1, 1))
    >>> print(note)
    asked to split 10 galaxies into 8 to train on, 1 to validate on, 1 to test on; there are 100: split into 80, 10, 10
    """
    if len(counts) != 3 or not all(isinstance(n, (int, np.integer)) and n >= 0 for n in counts) or sum(counts) == 0:
        raise InputError(f"a split takes the sizes of train, validation and test, none below 0; got {counts}")
    n, asked = len(object_ids), int(sum(counts))
    # With n = asked these are exactly the sizes asked for.
    n_validation, n_test = ((2 * n * int(count) + asked) // (2 * asked) for count in counts[1:])
    n_test = min(n_test, n - n_validation)
    split = _cut(object_ids, n_validation, n_test, seed)
    if n == asked:
        return split, None
    return split, (
        f"asked to split {asked:,d} galaxies into {counts[0]:,d} to train on, {counts[1]:,d} to validate on, "
        f"{counts[2]:,d} to test on; there are {n:,d}: split into {n - n_validation - n_test:,d}, {n_validation:,d}, "
        f"{n_test:,d}"
    )


def _cut(object_ids: Sequence[object], n_validation: int, n_test: int, seed: int) -> np.ndarray:
    """In the order of ranks: the first for validation, the next for testing, the rest to train on."""
    order = np.argsort(id_ranks(object_ids, seed, "split"), kind="stable")
    split = np.full(len(object_ids), TRAIN, dtype="<U10")
    split[order[:n_validation]] = VALIDATION
    split[order[n_validation : n_validation + n_test]] = TEST
    return split


@dataclass(frozen=True)
class Drawn:
    """A sample, and its parts.

    Attributes
    ----------
    split : array of str, shape (N,)
        "train", "validation", "test", or "unused" for galaxies that were not drawn.
    weights : array, shape (N,)
        `sampling_weights`; 1 where all were taken.
    notes : list of str
        What could not be done as asked.
    """

    split: np.ndarray
    weights: np.ndarray
    notes: list[str]


def draw_and_split(
    labels: np.ndarray,
    object_ids: Sequence[object],
    sample: tuple[int, int] | Literal["balanced"] | None = None,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Drawn:
    """Draw a sample by label, and split it.

    Parameters
    ----------
    labels : array of int, shape (N,)
        0 = smooth, 1 = disk; both occur.
    object_ids : sequence, length N
    sample : tuple of 2 int, "balanced" or None
        How many smooth and disk galaxies; as many of each as the rarer has; or all.
    split : sequence of 3 numbers
        Shares of train, validation and test that sum to 1; or how many of each.
    seed : int

    Raises
    ------
    InputError
        If the split is neither, or nothing can be drawn.

    Examples
    --------
    >>> drawn = draw_and_split(np.array([0, 0, 0, 1, 1]), range(5), (2, 2), (2, 1, 1))
    >>> sorted(drawn.split.tolist())
    ['test', 'train', 'train', 'unused', 'validation']
    """
    notes: list[str] = []
    chosen, weights = np.ones(labels.size, dtype=bool), np.ones(labels.size)
    if sample is not None:
        if sample == "balanced":
            chosen = balanced_sample(labels, object_ids, seed)
        else:
            chosen, note = draw_sample(labels, object_ids, sample, seed)
            notes += [note] if note else []
        weights = sampling_weights(labels, chosen)
    if len(split) != 3 or not all(np.isfinite(part) and part >= 0 for part in split):
        raise InputError(f"a split takes three shares, or three numbers of galaxies, none below 0; got {tuple(split)}")
    ids = [one for one, taken in zip(object_ids, chosen, strict=True) if taken]
    parts = np.full(labels.size, UNUSED, dtype="<U10")
    if sum(split) > 1 + 1e-9 and all(float(part).is_integer() for part in split):
        train, validation, test = (int(part) for part in split)
        parts[chosen], note = split_counts(ids, (train, validation, test), seed)
        notes += [note] if note else []
    else:
        parts[chosen] = split_by_id(ids, tuple(split), seed)  # type: ignore[arg-type]
    return Drawn(parts, weights, notes)


def assign_folds(object_ids: Sequence[object], folds: int, seed: int = 0) -> np.ndarray:
    """Deal galaxies into folds of equal size (± 1) by id, shape (N,), values 0 … folds - 1."""
    order = np.argsort(id_ranks(object_ids, seed, "folds"), kind="stable")
    fold = np.empty(len(object_ids), dtype=np.int64)
    fold[order] = np.arange(len(object_ids)) % folds
    return fold
