"""Decode many images in threads, list the unreadable ones, and keep pixels in memory or on disk."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock

from truemorph.config import TrainingConfig
from truemorph.errors import InputError, TruemorphError, reason
from truemorph.images.decode import load_image, pixel_batches
from truemorph.io import PathLike, content_hash, read_json, write_json
from truemorph.progress import progress

MAXIMUM_BAD_FRACTION = 0.05
# Increase this when the same file gives other pixels, so that older caches are ignored.
CACHE_VERSION = 3


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

    def load(self, cache: PathLike | None = None, memory: float = math.inf) -> tuple[Pixels, dict[int, str]]:
        """Decode all images once; return their pixels, and rows and problems of unreadable ones.

        Pixels are an array, uint8 (N, size, size, 3), zero if unreadable; or these files, if it is larger than `memory`
        (bytes). In a folder `cache`, they are memory-mapped, under a hash of the settings and of the files' names,
        sizes and times. An interrupted build starts again; of two processes, one builds and the other waits. More than
        5 % unreadable images are an InputError.
        """
        pixels: Pixels = self
        if cache is not None:
            pixels, bad = self._cached(Path(cache))
        elif math.prod(self.shape) > memory:
            bad = self._decoded()
        else:
            pixels = np.zeros(self.shape, np.uint8)
            bad = self._decoded(pixels)
        if len(bad) > MAXIMUM_BAD_FRACTION * len(self.paths):
            raise InputError(
                f"{len(bad)} of {len(self.paths)} images can't be read, more than {MAXIMUM_BAD_FRACTION:.0%} "
                f"(first: {next(iter(bad.values()))}); replace them"
            )
        return pixels, bad

    def _decoded(self, into: np.ndarray | None = None) -> dict[int, str]:
        """Decode all images, into an array if there is one; return rows and problems of unreadable ones."""
        bad: dict[int, str] = {}
        with progress(len(self.paths), "images", "img") as bar:
            for first, images in pixel_batches(self.paths, self.config):
                for row, image in enumerate(images, first):
                    if isinstance(image, str):
                        bad[row] = image
                    elif into is not None:
                        into[row] = image
                bar.update(len(images))
        return bad

    def _key(self) -> str:
        """Return a hash of the names, sizes and times of all files, and of the settings."""

        def state(path: Path) -> tuple[str, int, int]:
            there = path.is_file()
            return str(path), path.stat().st_size if there else 0, path.stat().st_mtime_ns if there else 0

        reading = self.config.crop, self.config.fits_hdu, self.config.fits_stretch, self.config.fits_limits
        return content_hash([CACHE_VERSION, self.shape, *reading, *map(state, map(Path, self.paths))])[:20]

    def _cached(self, folder: Path) -> tuple[np.ndarray, dict[int, str]]:
        """Return pixels from a cache (built if incomplete), and rows and problems of unreadable images."""
        place = folder / f"pixels-{self._key()}"
        file, problems = place / "pixels.npy", place / "problems.json"  # the latter is written last
        try:
            place.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{place}.lock"):  # while another process decodes these images, wait
                if not problems.is_file():
                    pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=self.shape)
                    if hasattr(os, "posix_fallocate"):  # a full disk raises an error here and not later
                        with open(file, "r+b") as opened:
                            os.posix_fallocate(opened.fileno(), 0, os.path.getsize(file))
                    bad = self._decoded(pixels)
                    pixels.flush()
                    write_json(problems, bad)
            return np.load(file, mmap_mode="r"), {int(row): why for row, why in read_json(problems).items()}
        except (OSError, ValueError) as problem:
            why = f"the cache can't be used ({reason(problem)})"
            raise TruemorphError(f"{place}: {why}; free disk space, delete it, or train without `cache`") from problem


Pixels = np.ndarray | ImageFiles  # uint8, (N, S, S, 3)
