"""Decode many images in threads, and list the unreadable ones."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.images.decode import load_image, pixel_batches
from truemorph.progress import progress

MAXIMUM_BAD_FRACTION = 0.05

PathLike = str | os.PathLike[str]


class ImageFiles:
    """N image files, decoded on demand with `files[rows]`, so that memory does not grow with N; or all at once."""

    def __init__(self, paths: Sequence[PathLike], config: TrainingConfig) -> None:
        self.paths, self.config = paths, config
        self.shape = (len(paths), config.image_size, config.image_size, 3)
        self._pool = ThreadPoolExecutor(max(2, os.cpu_count() or 2))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return pixels of some rows, uint8 (M, size, size, 3)."""
        paths = [self.paths[row] for row in rows]
        images = self._pool.map(lambda path: load_image(path, self.config), paths)
        return np.array(list(images), np.uint8).reshape(-1, *self.shape[1:])

    def load(self, memory: float = math.inf) -> tuple[Pixels, np.ndarray, list[tuple[str, str]]]:
        """Decode all images once; return their pixels, which are good, and path and problem of unreadable ones.

        Pixels are an array, uint8 (N, size, size, 3), zero if unreadable; or these files, if it is larger than `memory`
        (bytes). More than 5 % unreadable images are an InputError.
        """
        kept = None if math.prod(self.shape) > memory else np.zeros(self.shape, np.uint8)
        bad: dict[int, str] = {}
        with progress(len(self.paths), "images", "img") as bar:
            for rows, images in pixel_batches(self.paths, self.config):
                for row, image in enumerate(images, rows.start):
                    if isinstance(image, str):
                        bad[row] = image
                    elif kept is not None:
                        kept[row] = image
                bar.update(len(images))
        if len(bad) > MAXIMUM_BAD_FRACTION * len(self.paths):
            raise InputError(
                f"{len(bad)} of {len(self.paths)} images can't be read, more than {MAXIMUM_BAD_FRACTION:.0%} "
                f"(first: {next(iter(bad.values()))}); replace them"
            )
        good = np.ones(len(self.paths), bool)
        good[list(bad)] = False
        return self if kept is None else kept, good, [(str(self.paths[row]), why) for row, why in bad.items()]


Pixels = np.ndarray | ImageFiles  # uint8, (N, S, S, 3)
