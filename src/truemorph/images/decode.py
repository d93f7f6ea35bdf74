"""From an image file to the pixels a network sees: decode, crop the centre, resize.

Galaxy Zoo 2 images are 424×424 pixels, scaled by the galaxy's radius; the paper keeps the central 207×207
(arXiv:2308.11007, section 2.5, after Dieleman, Willett & Dambre 2015). Other sizes are cropped in the same
proportion.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from truemorph.errors import InputError

CENTRAL_CROP = 207 / 424
_SMALLEST = 8


def decode(data: bytes, source: str = "image") -> np.ndarray:
    """Decode a JPEG or PNG to uint8 RGB.

    Parameters
    ----------
    data : bytes
        The file's content.
    source : str
        Its name, for messages.

    Returns
    -------
    array of uint8, shape (height, width, 3)

    Raises
    ------
    InputError
        If the file is empty, truncated, or not an image.
    """
    if not data:
        raise InputError(f"{source}: the file is empty")
    try:
        if simplejpeg.is_jpeg(data):
            return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I;16"):  # convert() would clip to white
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise InputError(f"{source}: not a readable image (of no known kind); replace or remove it") from None
    except Exception as problem:  # decoders raise many types for broken bytes
        reason = str(problem).strip().splitlines() or [type(problem).__name__]
        raise InputError(f"{source}: not a readable image ({reason[0]}); replace or remove it") from problem


def central_crop(image: np.ndarray, fraction: float = CENTRAL_CROP) -> np.ndarray:
    """Keep the central square whose side is `fraction` of the shorter side.

    Examples
    --------
    >>> central_crop(np.zeros((424, 424, 3), np.uint8)).shape
    (207, 207, 3)
    """
    if not 0 < fraction <= 1:
        raise InputError(f"crop is the fraction of the image's side to keep, 0 < crop <= 1; got {fraction}")
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * fraction))
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize a square uint8 RGB image to size × size (bilinear, antialiased)."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def load_image(path: str | os.PathLike[str], size: int, crop: float = CENTRAL_CROP) -> np.ndarray:
    """Read, crop and resize one image, shape (size, size, 3), uint8.

    Raises
    ------
    InputError
        If the file is absent, not a readable image, or smaller than 8 pixels after the crop.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror or problem}") from problem
    cropped = central_crop(decode(data, str(path)), crop)
    if cropped.shape[0] < _SMALLEST:
        raise InputError(f"{path}: only {cropped.shape[0]} pixels on a side after the crop; replace or remove it")
    return resize(cropped, size)
