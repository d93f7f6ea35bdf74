"""Balanced samples and train/validation/test splits that depend on the object id alone.

Each galaxy gets a pseudo-random number from its id and the seed, and the galaxies are cut by its rank, so that shares
are exact. Row order and other columns do not enter: a catalogue that is shuffled or joined again splits the same way.
Adding or removing galaxies moves the cuts, and with them the few galaxies nearest to a cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from truemorph.errors import InputError

TRAIN, VALIDATION, TEST = "train", "validation", "test"


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
    ranks = id_ranks(object_ids, seed, "balance")
    chosen = np.zeros(labels.size, dtype=bool)
    for label in range(counts.size):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argsort(ranks[members], kind="stable")[: counts.min()]]] = True
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
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise InputError(f"split fractions are train, validation, test and sum to 1; got {fractions}")
    n = len(object_ids)
    n_validation, n_test = (round(n * fraction) for fraction in fractions[1:])
    order = np.argsort(id_ranks(object_ids, seed, "split"), kind="stable")
    split = np.full(n, TRAIN, dtype="<U10")
    split[order[:n_validation]] = VALIDATION
    split[order[n_validation : n_validation + n_test]] = TEST
    return split


def assign_folds(object_ids: Sequence[object], folds: int, seed: int = 0) -> np.ndarray:
    """Deal galaxies into folds of equal size (± 1) by id, shape (N,), values 0 … folds - 1."""
    order = np.argsort(id_ranks(object_ids, seed, "folds"), kind="stable")
    fold = np.empty(len(object_ids), dtype=np.int64)
    fold[order] = np.arange(len(object_ids)) % folds
    return fold
