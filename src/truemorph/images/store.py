"""Many images at once: decoded in threads, bad ones listed, pixels kept in memory or in files on disk."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import AcquireReturnProxy, FileLock

from truemorph.errors import InputError, TruemorphError
from truemorph.images.decode import AS_THEY_ARE, CENTRAL_CROP, FitsReading, load_image, read_image_file
from truemorph.io import lock, read_json, write_json, written_whole
from truemorph.progress import progress

MAXIMUM_BAD_SHARE = 0.05
# Raised whenever the same file would become other pixels: older caches are then left alone.
CACHE_VERSION = 1
_BATCH, _KEPT_AT_ONCE = 256, 4096

PathLike = str | os.PathLike[str]
Result = TypeVar("Result")


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


def _attempt(path: PathLike, size: int, crop: float, fits: FitsReading) -> np.ndarray | str:
    try:
        return load_image(path, size, crop, fits)
    except InputError as problem:
        return str(problem)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(2, os.cpu_count() or 2))


def _in_batches(
    work: Callable[[PathLike], Result], paths: Sequence[PathLike], batch: int
) -> Iterator[tuple[slice, list[Result]]]:
    """Do something to each file in threads, batch by batch, the next batch while the caller works on this one."""
    with _threads() as pool:
        # map() submits everything it is given: hand it one batch ahead, not the whole list.
        ahead = None
        for start in range(0, len(paths), batch):
            now = ahead or pool.map(work, paths[start : start + batch])
            following = paths[start + batch : start + 2 * batch]
            ahead = pool.map(work, following) if following else None
            yield slice(start, min(start + batch, len(paths))), list(now)


def decode_batches(
    paths: Sequence[PathLike],
    size: int,
    crop: float = CENTRAL_CROP,
    batch: int = _BATCH,
    fits: FitsReading = AS_THEY_ARE,
) -> Iterator[tuple[slice, list[np.ndarray | str]]]:
    """Decode images batch by batch, the next batch while the caller works on this one.

    Yields
    ------
    rows : slice
        Which paths these are.
    images : list
        A uint8 array (size, size, 3) for each good image, the reason as a string for each bad one.
    """
    yield from _in_batches(lambda path: _attempt(path, size, crop, fits), paths, batch)


class ImageFiles:
    """Pixels decoded from files whenever rows are asked for: `files[rows]` as of an array, memory flat in N.

    Parameters
    ----------
    paths : sequence of path, length N
    size, crop, fits
        As for `load_image`.
    """

    def __init__(
        self, paths: Sequence[PathLike], size: int, crop: float = CENTRAL_CROP, fits: FitsReading = AS_THEY_ARE
    ) -> None:
        self.paths, self.size, self.crop, self.fits = paths, size, crop, fits
        self.shape = (len(paths), size, size, 3)
        self._pool = _threads()

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of some rows, uint8 (M, size, size, 3)."""
        asked = [self.paths[row] for row in rows]
        found = self._pool.map(lambda path: _attempt(path, self.size, self.crop, self.fits), asked)
        out = np.empty((len(asked), *self.shape[1:]), np.uint8)
        for place, image in enumerate(found):
            if isinstance(image, str):
                raise TruemorphError(f"an image that was good can't be read any more: {image}")
            out[place] = image
        return out

    def check(self) -> tuple[np.ndarray, list[tuple[str, str]]]:
        """Decode every file once.

        Returns
        -------
        good : array of bool, shape (N,)
        problems : list of (str, str)
            Path and reason of every bad one.

        Raises
        ------
        InputError
            If more than 5 % are bad.
        """
        good, problems = np.ones(len(self.paths), bool), []
        with progress(len(self.paths), "images", "img") as told:
            for rows, images in decode_batches(self.paths, self.size, self.crop, fits=self.fits):
                for row, image in zip(range(rows.start, rows.stop), images, strict=True):
                    if isinstance(image, str):
                        good[row] = False
                        problems.append((str(self.paths[row]), image))
                told.update(len(images))
        check_share(len(problems), len(self.paths), problems)
        return good, problems


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
    paths: Sequence[PathLike],
    size: int,
    crop: float = CENTRAL_CROP,
    cache: PathLike | None = None,
    fits: FitsReading = AS_THEY_ARE,
) -> ImageStore:
    """Decode images to one uint8 array.

    Parameters
    ----------
    paths : sequence of path, length N
    size : int
        Side of the output in pixels.
    crop : float
        Fraction of the side to keep.
    cache : path, optional
        A folder to keep the pixels in, memory-mapped, so that memory stays flat in N and the next run needn't decode.
        They lie under a hash of the files' contents and of how they were read. A build that was cut off goes on where
        it was; of two processes that want the same pixels one builds and the other waits.
    fits : FitsReading
        How FITS images are read.

    Returns
    -------
    ImageStore

    Raises
    ------
    InputError
        If more than 5 % of the images are bad, or there are none.
    TruemorphError
        If the cache can't be written.
    """
    if not len(paths):
        raise InputError("no images to load")
    shape = (len(paths), size, size, 3)
    if cache is not None:
        store = _cached(paths, shape, crop, Path(cache), fits)
    else:
        pixels, good = np.zeros(shape, np.uint8), np.zeros(len(paths), bool)
        bad = _fill(pixels, good, paths, crop, fits)
        store = ImageStore(pixels, good, [(str(paths[row]), reason) for row, reason in bad.items()])
    check_share(len(store.problems), len(paths), store.problems)
    return store


def _fill(
    pixels: np.ndarray, good: np.ndarray, paths: Sequence[PathLike], crop: float, fits: FitsReading
) -> dict[int, str]:
    """Decode what is not yet good; return what is bad, and why."""
    bad: dict[int, str] = {}
    left = np.flatnonzero(~good)
    done: list[int] = []

    def keep() -> None:
        if isinstance(pixels, np.memmap):
            pixels.flush()  # before it is said to be there
        good[done] = True
        done.clear()

    with progress(left.size, "images", "img") as told:
        for rows, images in decode_batches([paths[row] for row in left.tolist()], pixels.shape[1], crop, fits=fits):
            for row, image in zip(left[rows].tolist(), images, strict=True):
                if isinstance(image, str):
                    bad[row] = image
                else:
                    pixels[row] = image
                    done.append(row)
            if len(done) >= _KEPT_AT_ONCE:
                keep()
            told.update(len(images))
    keep()
    return bad


def _content_key(paths: Sequence[PathLike], shape: tuple[int, ...], crop: float, fits: FitsReading) -> str:
    """Hash of all files' contents, and of how they are read."""

    def content(path: PathLike) -> bytes:
        try:
            return hashlib.sha256(read_image_file(path)).digest()
        except InputError:
            return b"absent"

    whole = hashlib.sha256(repr((CACHE_VERSION, shape, crop, fits)).encode())
    for _, digests in _in_batches(content, paths, _BATCH):
        whole.update(b"".join(digests))
    return whole.hexdigest()[:20]


def _allocated(file: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """Memory map of a file whose place on the disk is reserved: a full disk is an error here, not a crash later."""
    mapped = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with open(file, "r+b") as opened:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(opened.fileno(), 0, os.path.getsize(file))
    return mapped


def _held(place: Path) -> AcquireReturnProxy:
    held = lock(f"{place}.lock")
    if held is None:
        print(f"{place}: another process is decoding these images; waiting for it", file=sys.stderr)
        held = FileLock(f"{place}.lock").acquire()
    return held


def _cached(
    paths: Sequence[PathLike], shape: tuple[int, ...], crop: float, folder: Path, fits: FitsReading
) -> ImageStore:
    place = folder / f"pixels-{_content_key(paths, shape, crop, fits)}"
    whole = place / "problems.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _held(place):
            if not whole.is_file():
                _build(place, paths, shape, crop, fits)
        pixels, good = (np.load(place / f"{name}.npy", mmap_mode="r") for name in ("pixels", "good"))
        bad = read_json(whole)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise TruemorphError(
            f"{place}: the cache can't be used ({reason}); make room, delete it, or train without `cache`"
        ) from problem
    return ImageStore(pixels, np.asarray(good), [(str(paths[int(row)]), reason) for row, reason in bad.items()])


def _build(place: Path, paths: Sequence[PathLike], shape: tuple[int, ...], crop: float, fits: FitsReading) -> None:
    place.mkdir(exist_ok=True)
    files = place / "pixels.npy", place / "good.npy"
    if files[1].is_file():  # made after the pixels: both are whole
        pixels, good = (np.load(file, mmap_mode="r+") for file in files)
    else:
        pixels = _allocated(files[0], shape, np.uint8)
        with written_whole(files[1]) as partial:
            _allocated(partial, shape[:1], np.bool_).flush()
        good = np.load(files[1], mmap_mode="r+")
    bad = _fill(pixels, good, paths, crop, fits)
    good.flush()
    write_json(place / "problems.json", bad)
