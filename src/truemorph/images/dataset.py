"""Training batches: rows in an order given by seed and epoch; a thread reads pixels in advance.

A step's batch is divided among processes, but order and augmentation are drawn for the whole batch. A run on eight
devices therefore uses the same galaxies in the same orientations as a run on one.
"""

from collections.abc import Iterator

import numpy as np
import torch

from truemorph.config import TrainingConfig
from truemorph.images.decode import ahead
from truemorph.images.store import Pixels
from truemorph.images.transforms import random_maps

Batch = dict[str, torch.Tensor]
_AHEAD = 3


class GalaxyBatches:
    """Iterate over the batches of one epoch; Lightning uses it as a data loader.

    `rows` are the rows of the N galaxies in `pixels`, and `columns` other tensors with N rows. `batch_size` is the
    number per step, over all processes and the `parts` into which a step is divided to save memory; `process` is the
    index of this process and their number. With a `seed`, each epoch has a new order and leaves out the last incomplete
    batch. A batch is a dict of `columns`, `pixels`, `maps` (random affine maps, with an `augmentation`) and
    `step_weights`, which sum to 1 over the step, so that losses of parts and processes add up to the weighted mean.
    """

    def __init__(
        self,
        pixels: Pixels,
        rows: np.ndarray,
        columns: dict[str, torch.Tensor],
        batch_size: int,
        *,
        seed: int | None = None,
        augmentation: TrainingConfig | None = None,
        parts: int = 1,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        self.pixels, self.rows, self.columns = pixels, rows, columns
        self.batch_size, self.seed, self.augmentation = batch_size, seed, augmentation
        self.parts, self.process = parts, process
        self.sampler, self.batch_sampler = self, None  # Lightning calls set_epoch of these
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        n, size = len(self.rows), self.batch_size
        return self.parts * (n // size if self.seed is not None and n >= size else -(-n // size))

    def _batch(self, order: np.ndarray, number: int) -> Batch:
        step, part = divmod(number, self.parts)
        whole = order[step * self.batch_size : (step + 1) * self.batch_size]
        rank, processes = self.process
        mine = np.array_split(np.arange(whole.size), self.parts * processes)[part * processes + rank]
        chosen = whole[mine]
        batch = {name: values[chosen] for name, values in self.columns.items()}
        batch["pixels"] = torch.from_numpy(np.ascontiguousarray(self.pixels[self.rows[chosen]]))
        batch["step_weights"] = batch["weights"] / self.columns["weights"][whole].sum()
        if self.augmentation is not None:
            drawn = torch.Generator().manual_seed(mixed_seed(self.seed or 0, self._epoch, step))
            batch["maps"] = random_maps(self.augmentation, whole.size, drawn)[mine]
        return {name: value.pin_memory() for name, value in batch.items()} if torch.cuda.is_available() else batch

    def __iter__(self) -> Iterator[Batch]:
        order = np.arange(len(self.rows))
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self._epoch]).permutation(order)
        numbers = ((number, [number]) for number in range(len(self)))
        for _, (batch,) in ahead(lambda index: self._batch(order, index), numbers, _AHEAD):
            yield batch


def mixed_seed(*numbers: int) -> int:
    """Combine several numbers into one seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
