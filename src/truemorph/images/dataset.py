"""Batches for training: uint8 pixels and columns by row number, moved to the device whole."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

Batch = dict[str, torch.Tensor]


class GalaxyBatches(Dataset[Batch]):
    """Images with label, α and weight; indexed by a list of rows, it returns a whole batch.

    Parameters
    ----------
    pixels : array of uint8, shape (M, S, S, 3)
    rows : array of int, shape (N,)
        Row of `pixels` of each galaxy.
    labels, alpha, weights : arrays, shape (N,)
    evidence : array, shape (N, K), optional
        log p(observed | y), where more than a label was observed.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        rows: np.ndarray,
        labels: np.ndarray,
        alpha: np.ndarray,
        weights: np.ndarray,
        evidence: np.ndarray | None = None,
    ) -> None:
        self.pixels = pixels
        self.rows = rows
        self.labels = torch.as_tensor(labels, dtype=torch.int64)
        self.alpha = torch.as_tensor(alpha, dtype=torch.float32)
        self.weights = torch.as_tensor(weights, dtype=torch.float32)
        self.evidence = None if evidence is None else torch.as_tensor(evidence, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: list[int]) -> Batch:
        columns = {} if self.evidence is None else {"evidence": self.evidence[batch]}
        return {
            **columns,
            "pixels": torch.from_numpy(np.ascontiguousarray(self.pixels[self.rows[batch]])),
            "labels": self.labels[batch],
            "alpha": self.alpha[batch],
            "weights": self.weights[batch],
        }


def batches(data: GalaxyBatches, batch_size: int, seed: int | None = None) -> DataLoader[Batch]:
    """Iterate over whole batches: shuffled if a seed is given (the odd rest is then left out), else in order."""
    order: RandomSampler | SequentialSampler = SequentialSampler(data)
    if seed is not None:
        order = RandomSampler(data, generator=torch.Generator().manual_seed(seed))
    drop_last = seed is not None and len(data) >= batch_size
    return DataLoader(data, sampler=BatchSampler(order, batch_size, drop_last), batch_size=None)
