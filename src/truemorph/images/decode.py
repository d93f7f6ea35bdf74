"""Decode image files, crop the centre and resize, for a network.

Galaxy Zoo 2 images are 424×424 pixels, scaled by the galaxy's radius; the paper uses the central 207×207 pixels
(arXiv:2308.11007, section 2.5, after Dieleman, Willett & Dambre 2015). Other sizes are cropped in the same
proportion. FITS images of one or three bands are converted to colour images, by default with the asinh stretch of
Lupton et al. (2004, PASP 116, 133).
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.io import shown_path

CENTRAL_CROP = 207 / 424
# A JPEG of a few kB can declare 65,500 × 65,500 pixels, which would need 13 GB of memory.
MAXIMUM_PIXELS = 100_000_000
_SMALLEST = 8
_GZIP = b"\x1f\x8b"
_PNG = b"\x89PNG\r\n\x1a\n"
_PIECE = 1 << 20
_FITS_MODULES = r"astropy\.io\.fits"
# The asinh stretch is nearly linear below a tenth of white, as in astropy's AsinhStretch.
_SOFTENING = 0.1

Key = TypeVar("Key")
Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class FitsReading:
    """Settings to convert FITS images to colour images.

    `hdu` is a number or name, by default that of the first HDU with an image. The stretch "asinh" preserves colours
    (Lupton et al. 2004); the others stretch each band separately. `limits` are the data values of black and white, by
    default the 0.5 and 99.8 percentiles of each image, which suits cutouts without a common scale.
    """

    hdu: int | str | None = None
    stretch: Literal["asinh", "linear", "sqrt", "log"] = "asinh"
    limits: tuple[float, float] | None = None


AS_THEY_ARE = FitsReading()


def fits_reading(config: TrainingConfig) -> FitsReading:
    """Return a classifier's settings for FITS images."""
    return FitsReading(config.fits_hdu, config.fits_stretch, config.fits_limits)


def _quiet_fits() -> None:
    """Ignore warnings of astropy.io.fits about repaired headers, of which surveys have millions.

    This is permanent, because restoring filters in one thread would change those of others.
    """
    ours = ("ignore", None, Warning, re.compile(_FITS_MODULES), 0)
    if ours not in warnings.filters:
        warnings.filterwarnings("ignore", module=_FITS_MODULES)


def is_fits(data: bytes) -> bool:
    """Whether the content is a FITS file, gzipped or not."""
    return data.startswith((b"SIMPLE  =", _GZIP))


def fits_values(data: bytes, hdu: int | str | None = None) -> np.ndarray:
    """Return pixel values of a FITS image, gzipped or not, with rows from the bottom as in FITS.

    Their shape is (H, W), or (3, H, W) with red, green and blue in this order; another raises a ValueError.
    """
    from astropy.io import fits

    _quiet_fits()
    # Decompress while reading, so that the size in the header is checked before memory is used.
    stream: Any = gzip.GzipFile(fileobj=io.BytesIO(data)) if data.startswith(_GZIP) else io.BytesIO(data)
    with fits.open(stream, memmap=False) as units:
        chosen = _chosen_hdu(units, hdu)
        shape = tuple(chosen.shape) if chosen.is_image else ()
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 3):
            found = f"shape {shape}" if shape else "no image"
            raise ValueError(
                f"a FITS image must be (height, width), or (3, height, width) in red, green, blue; found {found}"
            )
        _check_pixels(*shape[-2:])
        values = np.asarray(chosen.data, np.float64)
        while stream.read(_PIECE):  # to check the checksum at the end of a gzipped file
            pass
    return values


def _chosen_hdu(units: Any, hdu: int | str | None) -> Any:
    """Return the requested HDU, or the first with an image; astropy reads headers and data lazily."""
    try:
        if hdu is not None:
            return units[hdu]
        return next(unit for unit in units if unit.is_image and unit.shape and 0 not in unit.shape)
    except (KeyError, IndexError, StopIteration):
        missing = "image in any HDU" if hdu is None else f"HDU {hdu!r}"
        names = ", ".join(unit.name or str(number) for number, unit in enumerate(units))
        raise ValueError(f"no {missing}; there are {names}") from None


def _check_pixels(height: int, width: int) -> None:
    """Raise an error for a size that needs too much memory, before decoding."""
    if height * width > MAXIMUM_PIXELS:
        raise ValueError(f"the image has {width:,} × {height:,} pixels, more than {MAXIMUM_PIXELS // 10**6} megapixels")


def _fits_picture(data: bytes, reading: FitsReading) -> np.ndarray:
    """Convert a FITS image, (H, W) or (3, H, W) in red, green, blue, to a colour image."""
    from astropy.visualization import LinearStretch, LogStretch, SqrtStretch

    values = fits_values(data, reading.hdu)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no finite pixel")
    low, high = reading.limits or np.percentile(values[finite], [0.5, 99.8])
    if not low < high:
        high = low + 1.0  # a constant image is black
    bands = np.flip(np.where(finite, values, low), axis=-2)  # FITS rows start at the bottom
    scaled = np.clip((bands if bands.ndim == 3 else bands[None]) - low, 0, None) / (high - low)
    if reading.stretch == "asinh":
        mean = np.maximum(scaled.mean(axis=0), 1e-6)
        scaled *= np.arcsinh(mean / _SOFTENING) / np.arcsinh(1 / _SOFTENING) / mean
        # Scale all bands down if one is saturated, to preserve the hue.
        scaled /= np.maximum(scaled.max(axis=0), 1)
    else:
        curve = {"linear": LinearStretch, "sqrt": SqrtStretch, "log": LogStretch}[reading.stretch]()
        scaled = curve(np.clip(scaled, 0, 1))
    picture = np.round(255 * scaled).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def decode(data: bytes, source: str = "image", fits: FitsReading = AS_THEY_ARE) -> np.ndarray:
    """Decode the content of a JPEG, PNG or FITS file to uint8 RGB, shape (height, width, 3).

    Raises an InputError if it is empty, truncated, not an image, or has more than `MAXIMUM_PIXELS` pixels.
    """
    if not data:
        raise InputError(f"{source}: the file is empty")
    try:
        if simplejpeg.is_jpeg(data):
            height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=True)
            _check_pixels(height, width)
            return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        if is_fits(data):
            return _fits_picture(data, fits)
        if data.startswith(_PNG) and len(data) >= 24:
            _check_pixels(*reversed(struct.unpack(">II", data[16:24])))
        with Image.open(io.BytesIO(data)) as image:
            _check_pixels(image.height, image.width)
            if image.mode.startswith("I;16"):  # convert() would saturate
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise InputError(f"{source}: not a readable image (unknown format); replace or remove it") from None
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
        raise InputError(f"crop must be a fraction of the image's side, 0 < crop <= 1; got {fraction}")
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * fraction))
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def cropped_and_resized(image: np.ndarray, size: int, crop: float, name: str) -> np.ndarray:
    """Crop and resize (bilinear, antialiased) an image, uint8 (H, W, 3), to the size of a network, (size, size, 3)."""
    cropped = central_crop(image, crop)
    if cropped.shape[0] < _SMALLEST:
        raise InputError(f"{name}: only {cropped.shape[0]} pixels wide after cropping; replace or remove it")
    if cropped.shape[0] == size:
        return cropped
    return np.asarray(Image.fromarray(cropped).resize((size, size), Image.Resampling.BILINEAR))


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Read the content of an image file; it must be a regular file, because reading a named pipe would never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{shown_path(path)}: not a regular file; remove it")
        return Path(path).read_bytes()
    except OSError as problem:
        raise InputError(f"{shown_path(path)}: {problem.strerror or problem}") from problem


def load_image(
    image: str | os.PathLike[str] | bytes,
    size: int,
    crop: float = CENTRAL_CROP,
    fits: FitsReading = AS_THEY_ARE,
) -> np.ndarray:
    """Read, crop and resize one image (a file or its content), shape (size, size, 3), uint8."""
    if isinstance(image, bytes):
        data, name = image, "image"
    else:
        data, name = read_image_file(image), shown_path(image)
    return cropped_and_resized(decode(data, name, fits), size, crop, name)


def load_or_reason(
    image: str | os.PathLike[str] | bytes, size: int, crop: float, fits: FitsReading
) -> np.ndarray | str:
    """Call `load_image`; if the image can't be read, return the reason as a string."""
    try:
        return load_image(image, size, crop, fits)
    except InputError as problem:
        return str(problem)


def ahead(
    work: Callable[[Item], Found], batches: Iterable[tuple[Key, Sequence[Item]]]
) -> Iterator[tuple[Key, list[Found]]]:
    """Apply `work` to the items of batches (key, items) in threads, one batch ahead; yield (key, results)."""
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        waiting = None
        for key, items in batches:
            now, waiting = waiting, (key, pool.map(work, items))  # map() submits all items at once
            if now is not None:
                yield now[0], list(now[1])
        if waiting is not None:
            yield waiting[0], list(waiting[1])
