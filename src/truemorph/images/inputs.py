"""Convert images (files, PIL images, arrays, tensors) to pixels for a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from PIL import Image

from truemorph.errors import InputError
from truemorph.images.decode import (
    AS_THEY_ARE,
    CENTRAL_CROP,
    FitsReading,
    ahead,
    cropped_and_resized,
    load_or_reason,
)
from truemorph.io import shown_path

_BATCH = 256


def pixel_batches(
    images: Any, size: int, crop: float = CENTRAL_CROP, fits: FitsReading = AS_THEY_ARE
) -> Iterator[tuple[slice, list[np.ndarray | str]]]:
    """Decode images of any kind in threads, one batch in advance.

    Yields the slice of the images, and a uint8 array (size, size, 3) per readable image, else the problem as a string.
    Images are a sequence of paths, bytes, PIL images or arrays (H, W, 3); or an array or tensor (N, H, W, 3), or a
    tensor (N, 3, H, W). Values are uint8, or floats between 0 and 1. Images are cropped and resized as files are,
    except an array or tensor of images that already have the network's size.
    """
    every, as_they_are = listed(images), False
    if hasattr(every, "shape"):
        every = _array(every)
        if every.ndim != 4 or every.shape[3] != 3:
            raise InputError(f"images must have shape (N, height, width, 3); got {every.shape}")
        every = _bytes(every)
        as_they_are = every.shape[1:3] == (size, size)

    def one(image: Any) -> np.ndarray | str:
        if isinstance(image, str | os.PathLike | bytes):
            return load_or_reason(image, size, crop, fits)
        try:
            pixels = np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else _array(image)
            if pixels.ndim != 3 or pixels.shape[2] != 3:
                return f"an image must have shape (height, width, 3); got {pixels.shape}"
            pixels = _bytes(pixels)
            return pixels if as_they_are else cropped_and_resized(pixels, size, crop, "image")
        except InputError as problem:
            return str(problem)

    slices = (slice(start, min(start + _BATCH, len(every))) for start in range(0, len(every), _BATCH))
    return ahead(one, ((rows, every[rows]) for rows in slices))


def listed(images: Any) -> Any:
    """Return one image, or a column of paths, as a list; arrays and tensors of pixels unchanged."""
    if isinstance(images, str | os.PathLike | bytes | Image.Image):
        return [images]
    column = hasattr(images, "dtype") and getattr(images, "ndim", 1) == 1  # polars, pandas or numpy
    return list(images) if column else images


def image_names(images: Any) -> list[Any]:
    """Return paths of images if known, else their numbers."""
    images = listed(images)
    if hasattr(images, "shape"):
        return list(range(len(images)))
    return [
        shown_path(Path(one)) if isinstance(one, str | os.PathLike) else number for number, one in enumerate(images)
    ]


def _array(image: Any) -> np.ndarray:
    """Return a numpy array with colours last."""
    if is_torch_array(image):
        image = image.detach().cpu().numpy()
        if image.ndim >= 3 and image.shape[-3] == 3 and image.shape[-1] != 3:
            image = np.moveaxis(image, -3, -1)
    return np.asarray(image)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """Convert pixel values to uint8."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if np.issubdtype(pixels.dtype, np.floating) and (not pixels.size or 0 <= pixels.min() <= pixels.max() <= 1):
        return np.ascontiguousarray(np.round(255 * pixels).astype(np.uint8))
    raise InputError(f"images must be uint8, or floats between 0 and 1; got {pixels.dtype}")
