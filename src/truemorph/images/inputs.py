"""Convert images (files, PIL images, arrays, tensors) to pixels for a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from PIL import Image

from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.images.decode import ahead, cropped_and_resized, load_image, rgb
from truemorph.io import shown_path

_BATCH = 256


def pixel_batches(images: Any, config: TrainingConfig) -> Iterator[tuple[slice, list[np.ndarray | str]]]:
    """Decode images of any kind in threads, one batch in advance.

    Yields the slice of the images, and a uint8 array (size, size, 3) per readable image, else the problem as a string.
    Images are a sequence of paths, bytes, PIL images or arrays (H, W, 3); or an array or tensor (N, H, W, 3), or a
    tensor (N, 3, H, W). Values are uint8, or floats between 0 and 1. Images are cropped and resized as files are,
    except an array or tensor of images that already have the network's size.
    """
    every = listed(images)
    if hasattr(every, "shape"):
        every = _pixels(every, "(N, height, width, 3)")
        if every.shape[1:3] == (config.image_size, config.image_size):
            config = config.model_copy(update={"crop": 1.0})
    slices = (slice(start, min(start + _BATCH, len(every))) for start in range(0, len(every), _BATCH))
    return ahead(lambda one: pixels_or_reason(one, config), ((rows, every[rows]) for rows in slices))


def pixels_or_reason(image: Any, config: TrainingConfig) -> np.ndarray | str:
    """Return the pixels of an image of any kind, uint8 (size, size, 3); if it can't be read, the reason."""
    try:
        if isinstance(image, str | os.PathLike | bytes):
            return load_image(image, config)
        known = rgb(image) if isinstance(image, Image.Image) else image
        pixels = _pixels(known, "(height, width, 3)")
        return cropped_and_resized(pixels, config.image_size, config.crop, "image")
    except (ValueError, OSError, SyntaxError) as problem:  # Pillow reads the file of an image late
        return str(problem)


def listed(images: Any) -> Any:
    """Return one image, or several, as a list; arrays and tensors of pixels unchanged."""
    if isinstance(images, str | os.PathLike | bytes | Image.Image):
        return [images]
    if hasattr(images, "shape") and getattr(images, "ndim", 1) > 1:
        return images
    try:
        return list(images)  # of a column too, of polars, pandas or numpy
    except TypeError as problem:
        raise InputError(f"images are paths, contents, pictures or arrays; got {type(images).__name__}") from problem


def image_names(images: Any) -> list[Any]:
    """Return paths of images if known, else their numbers."""
    images = listed(images)
    if hasattr(images, "shape"):
        return list(range(len(images)))
    return [
        shown_path(Path(one)) if isinstance(one, str | os.PathLike) else number for number, one in enumerate(images)
    ]


def _pixels(image: Any, shape: str) -> np.ndarray:
    """Return an array or a tensor of this shape as uint8, colours last."""
    if is_torch_array(image):
        image = image.detach().cpu().numpy()
        if image.ndim >= 3 and image.shape[-3] == 3 and image.shape[-1] != 3:
            image = np.moveaxis(image, -3, -1)
    pixels = np.asarray(image)
    if pixels.ndim != shape.count(",") + 1 or pixels.shape[-1] != 3:
        raise InputError(f"pixels must have shape {shape}; got {pixels.shape}")
    if np.issubdtype(pixels.dtype, np.floating) and (not pixels.size or 0 <= pixels.min() <= pixels.max() <= 1):
        pixels = np.round(255 * pixels).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(f"pixels must be uint8, or floats between 0 and 1; got {pixels.dtype}")
    return np.ascontiguousarray(pixels)
