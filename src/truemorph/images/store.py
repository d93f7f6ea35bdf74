"""Many images at once: decoded in threads, bad ones listed, pixels kept in memory or in a file on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from truemorph.errors import InputError
from truemorph.images.decode import CENTRAL_CROP, load_image

MAXIMUM_BAD_SHARE = 0.05


@dataclass(frozen=True)
class ImageStore:
    """Decoded images.

    Attributes
    ----------
    pixels : array of uint8, shape (N, size, size, 3)
        In memory or a memory map; rows of bad images are zero.
    good : array of bool, shape (N,)
    problems : list of (str, str)
        Path and reason of every bad image.
    """

    pixels: np.ndarray
    good: np.ndarray
    problems: list[tuple[str, str]]


def _attempt(path: str | os.PathLike[str], size: int, crop: float) -> np.ndarray | str:
    try:
        return load_image(path, size, crop)
    except InputError as problem:
        return str(problem)


def decode_batches(
    paths: Sequence[str | os.PathLike[str]], size: int, crop: float = CENTRAL_CROP, batch: int = 256
) -> Iterator[tuple[slice, list[np.ndarray | str]]]:
    """Decode images batch by batch, the next batch while the caller works on this one.

    Yields
    ------
    rows : slice
        Which paths these are.
    images : list
        A uint8 array (size, size, 3) for each good image, the reason as a string for each bad one.
    """
    starts = range(0, len(paths), batch)
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        # map() submits everything it is given: hand it one batch ahead, not the whole list.
        ahead = None
        for start in starts:
            now = ahead or pool.map(lambda p: _attempt(p, size, crop), paths[start : start + batch])
            following = paths[start + batch : start + 2 * batch]
            ahead = pool.map(lambda p: _attempt(p, size, crop), following) if following else None
            yield slice(start, min(start + batch, len(paths))), list(now)


def check_share(n_bad: int, n_all: int, problems: list[tuple[str, str]]) -> None:
    """Refuse a set of images of which more than 5 % are bad.

    Raises
    ------
    InputError
        Naming the first.
    """
    if n_bad > MAXIMUM_BAD_SHARE * n_all:
        raise InputError(
            f"{n_bad} of {n_all} images are bad, more than {MAXIMUM_BAD_SHARE:.0%} "
            f"(first: {problems[0][1]}); mend the set, a few bad ones are skipped"
        )


def load_images(
    paths: Sequence[str | os.PathLike[str]],
    size: int,
    crop: float = CENTRAL_CROP,
    file: str | os.PathLike[str] | None = None,
) -> ImageStore:
    """Decode images to one uint8 array.

    Parameters
    ----------
    paths : sequence of path, length N
    size : int
        Side of the output in pixels.
    crop : float
        Fraction of the side to keep.
    file : path, optional
        Keep the pixels in this `.npy` file (memory-mapped), so that memory stays flat in N.

    Returns
    -------
    ImageStore

    Raises
    ------
    InputError
        If more than 5 % of the images are bad, or there are none.
    """
    if not len(paths):
        raise InputError("no images to load")
    shape = (len(paths), size, size, 3)
    if file is None:
        pixels = np.zeros(shape, np.uint8)
    else:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    good = np.zeros(len(paths), bool)
    problems: list[tuple[str, str]] = []
    with tqdm(total=len(paths), desc="images", unit="img", leave=False, disable=None) as progress:
        for rows, images in decode_batches(paths, size, crop):
            for row, image in zip(range(rows.start, rows.stop), images, strict=True):
                if isinstance(image, str):
                    problems.append((str(paths[row]), image))
                else:
                    pixels[row], good[row] = image, True
            progress.update(len(images))
    check_share(len(problems), len(paths), problems)
    return ImageStore(pixels, good, problems)
