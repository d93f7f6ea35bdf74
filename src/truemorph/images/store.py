"""Many images at once: decoded in threads, bad ones listed, pixels kept in memory or on disk."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import AcquireReturnProxy, FileLock

from truemorph.errors import InputError, TruemorphError
from truemorph.images.decode import AS_THEY_ARE, CENTRAL_CROP, FitsReading, ahead, load_or_reason, read_image_file
from truemorph.io import lock, read_json, write_json, written_whole
from truemorph.progress import progress

MAXIMUM_BAD_SHARE = 0.05
# Raised whenever the same file would become other pixels: older caches are then left alone.
CACHE_VERSION = 1
_BATCH, _KEPT_AT_ONCE = 256, 4096

PathLike = str | os.PathLike[str]


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


def decode_batches(
    paths: Sequence[PathLike], size: int, crop: float = CENTRAL_CROP, fits: FitsReading = AS_THEY_ARE
) -> Iterator[tuple[slice, list[np.ndarray | str]]]:
    """Decode images batch by batch, the next batch while the caller works on this one.

    Yields
    ------
    rows : slice
        Which paths these are.
    images : list
        A uint8 array (size, size, 3) for each good image, the reason as a string for each bad one.
    """
    return ahead(lambda path: load_or_reason(path, size, crop, fits), _batches(paths))


def _batches(paths: Sequence[PathLike]) -> Iterator[tuple[slice, Sequence[PathLike]]]:
    for start in range(0, len(paths), _BATCH):
        rows = slice(start, min(start + _BATCH, len(paths)))
        yield rows, paths[rows]


class ImageFiles:
    """Pixels decoded from files on demand: `files[rows]` as of an array, memory flat in N.

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
        self._pool = ThreadPoolExecutor(max(2, os.cpu_count() or 2))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of some rows, uint8 (M, size, size, 3)."""
        asked = [self.paths[row] for row in rows]
        found = list(self._pool.map(lambda path: load_or_reason(path, self.size, self.crop, self.fits), asked))
        bad = next((one for one in found if isinstance(one, str)), None)
        if bad is not None:
            raise TruemorphError(f"an image that was good can't be read any more: {bad}")
        return np.array(found, np.uint8).reshape(-1, *self.shape[1:])

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
        problems: list[str | None] = []
        with progress(len(self.paths), "images", "img") as told:
            for _, images in decode_batches(self.paths, self.size, self.crop, self.fits):
                problems += [one if isinstance(one, str) else None for one in images]
                told.update(len(images))
        bad = [(str(path), why) for path, why in zip(self.paths, problems, strict=True) if why is not None]
        _check_bad(bad, len(self.paths))
        return np.array([why is None for why in problems], bool), bad


def _check_bad(problems: list[tuple[str, str]], n_all: int) -> None:
    """Refuse a set of images of which more than 5 % are bad, naming the first."""
    if len(problems) > MAXIMUM_BAD_SHARE * n_all:
        raise InputError(
            f"{len(problems)} of {n_all} images are bad, more than {MAXIMUM_BAD_SHARE:.0%} "
            f"(first: {problems[0][1]}); replace them; a few bad ones are skipped"
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
        They are found by a hash of the files' contents and of how they were read. An interrupted build is resumed; of
        two processes that want the same pixels one builds and the other waits.
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
    _check_bad(store.problems, len(paths))
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
        for rows, images in decode_batches([paths[row] for row in left.tolist()], pixels.shape[1], crop, fits):
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
    for _, digests in ahead(content, _batches(paths)):
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
