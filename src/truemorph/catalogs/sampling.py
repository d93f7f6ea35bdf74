"""Draw samples and train/validation/test splits that depend only on object ids and the seed.

Galaxies are divided by the rank of a pseudo-random number of id and seed, so that sizes are exact, and adding or
removing galaxies changes only the few galaxies next to a boundary.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from truemorph.errors import InputError
from truemorph.findings import Finding

TRAIN, VALIDATION, TEST, UNUSED = "train", "validation", "test", "unused"
SPLITS = (TRAIN, VALIDATION, TEST, UNUSED)
FRACTIONS_OF_SPLIT = (0.8, 0.1, 0.1)
# The 121,984 galaxies of Medina-Rosales et al. (arXiv:2308.11007), section 2.5: smooth, disk; train, validation, test.
PAPER_SAMPLE, PAPER_SPLIT = (62_225, 59_759), (97_600, 12_192, 12_192)


def id_ranks(object_ids: Sequence[object], seed: int, purpose: str) -> np.ndarray:
    """Return random 64-bit numbers that depend only on (seed, purpose, id), shape (N,)."""
    key = f"{seed}/{purpose}".encode()
    digests = (hashlib.blake2b(str(name).encode(), key=key, digest_size=8).digest() for name in object_ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def candidates(frame: pl.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Return which galaxies have a value in each of these columns, bool of shape (N,), and how many lack each.

    Columns that the table lacks, or that are empty, do not count.
    """
    complete, lacking = np.ones(frame.height, bool), []
    for name in (name for name in names if name in frame.columns and frame[name].count()):
        without = complete & frame[name].is_null().to_numpy()
        complete &= ~without
        lacking.append((name, int(without.sum())))
    return complete, lacking


def draw_sample(
    labels: np.ndarray,
    object_ids: Sequence[object],
    counts: Sequence[int] | Literal["balanced"] = PAPER_SAMPLE,
    seed: int = 0,
) -> tuple[np.ndarray, Finding | None]:
    """Draw numbers of galaxies of each label, or as many as possible in the same ratio (with a finding).

    "balanced" draws as many of each as the rarer label has. With the same seed, a smaller sample is part of a larger
    one. Drawing by the observed label changes p(ỹ | α); `sampling_weights` corrects for it.
    """
    have = np.bincount(labels[labels >= 0], minlength=2).tolist()
    sizes = len(have) * [min(have)] if counts == "balanced" else [int(count) for count in counts]
    if len(sizes) != len(have):
        raise InputError(f"a sample of {len(have)} classes needs so many numbers; got {len(sizes)} (`sample`)")
    scarce = min(range(len(have)), key=lambda k: have[k] / max(sizes[k], 1))
    drawn = sizes
    if have[scarce] < sizes[scarce]:
        # In integers, so that rounding is the same on every machine.
        drawn = [(2 * count * have[scarce] + sizes[scarce]) // (2 * sizes[scarce]) for count in sizes]
    request, there, smaller = (" and ".join(f"{n:,d}" for n in numbers) for numbers in (sizes, have, drawn))
    shortage = f"{request} were requested, and the table has {there}"
    if min(drawn) == 0:
        raise InputError(f"no sample can be drawn: {shortage}; choose other numbers (`sample`)")
    ranks = id_ranks(object_ids, seed, "balance")
    chosen = np.zeros(labels.size, bool)
    for label, count in enumerate(drawn):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argsort(ranks[members], kind="stable")[:count]]] = True
    if drawn == sizes:
        return chosen, None
    message = f"The sample has {smaller} galaxies of the classes: {shortage}."
    action = "Use a larger table, or choose smaller numbers (`sample`)."
    return chosen, Finding("sample-smaller", "caution", message, action)


def sampling_weights(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return weights, shape (N,): the inverse drawn fraction of each label, with mean 1 over the sample."""
    fraction = np.bincount(labels[chosen]) / np.bincount(labels)
    weights = 1.0 / fraction[labels]
    return weights / weights[chosen].mean()


def split_galaxies(
    object_ids: Sequence[object], parts: Sequence[float] = FRACTIONS_OF_SPLIT, seed: int = 0
) -> tuple[np.ndarray, Finding | None]:
    """Split galaxies into train, validation and test.

    `parts` are fractions that sum to 1, or numbers of galaxies: proportions if they do not sum to N, with a finding.
    """
    n, finding = len(object_ids), None
    usable = len(parts) == 3 and all(part >= 0 for part in parts)
    if usable and abs(sum(parts) - 1) <= 1e-9:
        n_validation, n_test = (round(n * part) for part in parts[1:])
    elif usable and sum(parts) > 1 and all(float(part).is_integer() for part in parts):
        counts = [int(part) for part in parts]
        total = sum(counts)
        # If n = total, these are exactly the requested numbers.
        n_validation, n_test = ((2 * n * count + total) // (2 * total) for count in counts[1:])
        n_test = min(n_test, n - n_validation)
        if n != total:
            scaled = (
                f"{n:,d} galaxies were split into {n - n_validation - n_test:,d} (train), {n_validation:,d} "
                f"(validation), {n_test:,d} (test); {counts[0]:,d}, {counts[1]:,d} and {counts[2]:,d} were requested."
            )
            finding = Finding("split-scaled", "note", scaled)
    else:
        what = "three fractions (train, validation, test) that sum to 1, or three numbers of galaxies"
        raise InputError(f"a split needs {what}; got {tuple(parts)}")
    order = np.argsort(id_ranks(object_ids, seed, "split"), kind="stable")
    split = np.full(n, TRAIN, dtype="<U10")
    split[order[:n_validation]] = VALIDATION
    split[order[n_validation : n_validation + n_test]] = TEST
    return split, finding


def assign_folds(object_ids: Sequence[object], folds: int, seed: int) -> np.ndarray:
    """Assign galaxies to folds of equal size (± 1) by id; values 0 to folds - 1, shape (N,)."""
    order = np.argsort(id_ranks(object_ids, seed, "folds"), kind="stable")
    return np.argsort(order) % folds  # the rank of each galaxy
