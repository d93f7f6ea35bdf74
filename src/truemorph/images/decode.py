"""Decode image files, or convert PIL images, arrays and tensors; crop the centre and resize, for a network.

Galaxy Zoo 2 images are 424×424 pixels, scaled by the galaxy's radius; the paper uses the central 207×207 pixels
(arXiv:2308.11007, section 2.5, after Dieleman, Willett & Dambre 2015). Other sizes are cropped in the same
proportion. FITS images of one or three bands are converted to colour images, by default with the asinh stretch of
Lupton et al. (2004, PASP 116, 133).
"""

import gzip
import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import simplejpeg
from array_api_compat import is_torch_array
from PIL import Image, UnidentifiedImageError

from truemorph.config import TrainingConfig
from truemorph.errors import InputError, reason
from truemorph.io import PathLike, shown_path

# A JPEG of a few kB can declare 65,500 × 65,500 pixels, which would need 13 GB of memory.
MAXIMUM_PIXELS = 100_000_000
_SMALLEST = 8
_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20
_BATCH = 256  # images
# Pillow knows others, of which one (EPS) runs Ghostscript.
_FORMATS = ("PNG", "TIFF", "PPM", "GIF", "BMP", "WEBP")
# The asinh stretch is nearly linear below a tenth of white, as in astropy's AsinhStretch.
_SOFTENING = 0.1

# Default settings: size, crop, and conversion of FITS images (`fits_hdu`, `fits_stretch` and `fits_limits`).
DEFAULTS = TrainingConfig()

Key = TypeVar("Key")
Item = TypeVar("Item")
Found = TypeVar("Found")


def image_unit(units: Any, hdu: int | str | None) -> Any:
    """Return an HDU of a FITS file, by default the first with an image; astropy reads headers and data lazily."""
    if hdu is None:
        hdu = next((n for n, unit in enumerate(units) if unit.is_image and unit.shape and 0 not in unit.shape), 0)
    return units[hdu]


def fits_values(data: bytes, hdu: int | str | None) -> np.ndarray:
    """Return pixel values of a FITS image, gzipped or not, (H, W) or (3, H, W), with rows from the bottom."""
    from astropy.io import fits

    # Surveys have millions of headers that astropy repairs. The filter stays, because restoring filters in one thread
    # would change those of others.
    warnings.filterwarnings("ignore", module=r"astropy\.io\.fits")
    # Decompress while reading, so that the size in the header is checked before memory is used.
    stream: Any = gzip.GzipFile(fileobj=io.BytesIO(data)) if data.startswith(_GZIP) else io.BytesIO(data)
    with fits.open(stream, memmap=False) as units:
        chosen = image_unit(units, hdu)
        shape = tuple(chosen.shape) if chosen.is_image else ()
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 3):
            content = f"shape {shape}" if shape else "no image"
            raise ValueError(
                f"a FITS image must be (height, width), or (3, height, width) in red, green, blue; found {content}"
            )
        _check_pixels(*shape[-2:])
        values = np.asarray(chosen.data, np.float32)
        while stream.read(_PIECE):  # to check the checksum at the end of a gzipped file
            pass
    return values


def _check_pixels(height: int, width: int) -> None:
    """Raise an error for a size that needs too much memory, before decoding."""
    if height * width > MAXIMUM_PIXELS:
        raise ValueError(f"the image has {width:,} × {height:,} pixels, more than {MAXIMUM_PIXELS // 10**6} megapixels")


def fits_picture(values: np.ndarray, config: TrainingConfig) -> np.ndarray:
    """Convert FITS values, float32 (H, W) or (3, H, W) in red, green, blue, to a colour image, uint8 (H, W, 3).

    The stretch "asinh" preserves colours (Lupton et al. 2004); the others stretch each band separately. Black and white
    are by default the 0.5 and 99.8 percentiles of each image, which suits cutouts without a common scale.
    """
    from astropy.visualization import LinearStretch, LogStretch, SqrtStretch

    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no finite pixel")
    low, high = config.fits_limits or np.percentile(values[finite], (0.5, 99.8))
    if not low < high:
        high = low + 1.0  # a constant image is black
    bands = np.flip(np.where(finite, values, np.float32(low)), axis=-2)  # rows from the top
    scaled = np.maximum((bands if bands.ndim == 3 else bands[None]) - np.float32(low), 0) / np.float32(high - low)
    if config.fits_stretch == "asinh":
        mean = np.maximum(scaled.mean(axis=0), 1e-6)
        scaled *= np.arcsinh(mean / _SOFTENING) / np.float32(np.arcsinh(1 / _SOFTENING)) / mean
        # Scale all bands down if one is saturated, to preserve the hue.
        scaled /= np.maximum(scaled.max(axis=0), 1)
    else:
        curve = {"linear": LinearStretch, "sqrt": SqrtStretch, "log": LogStretch}[config.fits_stretch]()
        scaled = curve(np.clip(scaled, 0, 1))
    picture = np.round(255 * scaled).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def decode(data: bytes, source: str = "image", fits: TrainingConfig = DEFAULTS) -> np.ndarray:
    """Decode the content of a JPEG, PNG or FITS file to uint8 RGB, shape (height, width, 3), or raise an InputError."""
    if not data:
        raise InputError(f"{source}: the file is empty")
    try:
        if simplejpeg.is_jpeg(data):
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
            _check_pixels(height, width)
            if colours not in ("CMYK", "YCCK"):
                return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        if data.startswith((b"SIMPLE  =", _GZIP)):
            return fits_picture(fits_values(data, fits.fits_hdu), fits)
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:  # which reads the header only
            return rgb(image)
    except UnidentifiedImageError:
        raise InputError(f"{source}: not a readable image (unknown format); replace or remove it") from None
    except Exception as problem:  # decoders raise many types for broken bytes
        raise InputError(f"{source}: not a readable image ({reason(problem)}); replace or remove it") from problem


def rgb(image: Image.Image) -> np.ndarray:
    """Convert a PIL image to uint8 RGB, shape (height, width, 3); what is transparent becomes black.

    Values of 16 bits are divided by 256. A ValueError for modes without a fixed white, or for print (CMYK).
    """
    _check_pixels(image.height, image.width)
    # Some versions of Pillow open these files of 16 bits as 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    elif image.mode not in ("RGB", "L", "1", "P"):
        raise ValueError(f"pixels of mode {image.mode}; save it in RGB or grey, with 8 or 16 bits, or as FITS")
    return np.asarray(image.convert("RGB"))


def central_crop(image: np.ndarray, fraction: float) -> np.ndarray:
    """Keep the central square whose side is `fraction` of the shorter side."""
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


def read_image_file(path: PathLike) -> bytes:
    """Read the content of an image file; it must be a regular file, because reading a named pipe would never end."""
    if not os.path.isfile(path) and os.path.exists(path):
        raise InputError(f"{shown_path(path)}: not a regular file; leave it out")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as problem:  # a name may contain a zero byte
        raise InputError(f"{shown_path(path)}: {reason(problem)}") from problem


def load_image(image: PathLike | bytes, config: TrainingConfig) -> np.ndarray:
    """Read, crop and resize one image (a file or its content), uint8 (size, size, 3)."""
    if isinstance(image, bytes):
        data, name = image, "image"
    else:
        data, name = read_image_file(image), shown_path(image)
    return cropped_and_resized(decode(data, name, config), config.image_size, config.crop, name)


def ahead(
    work: Callable[[Item], Found],
    batches: Iterable[tuple[Key, Sequence[Item]]],
    count: int = 1,
    threads: int | None = None,
) -> Iterator[tuple[Key, list[Found]]]:
    """Apply `work` to the items of batches (key, items) in threads, `count` batches ahead; yield (key, results).

    By default there is a thread per core.
    """
    waiting: deque[tuple[Key, Iterator[Found]]] = deque()
    with ThreadPoolExecutor(threads or max(2, os.cpu_count() or 2)) as pool:
        for key, items in batches:
            waiting.append((key, pool.map(work, items)))  # map() submits all items at once
            if len(waiting) > count:
                done, results = waiting.popleft()
                yield done, list(results)
        for key, results in waiting:
            yield key, list(results)


def pixel_batches(images: Any, config: TrainingConfig) -> Iterator[tuple[int, list[np.ndarray | str]]]:
    """Decode images as `listed` returns them in threads, one batch in advance.

    Yields the number of the first image of a batch, and of each image a uint8 array (size, size, 3), or the problem as
    a string. Values of arrays and tensors are uint8, or floats between 0 and 1. Images are cropped and resized as files
    are, except an array or tensor of images that already have the network's size.
    """
    if hasattr(images, "shape"):
        images = _pixels(images, "(N, height, width, 3)")
        if images.shape[1:3] == (config.image_size, config.image_size):
            config = config.model_copy(update={"crop": 1.0})
    batches = ((first, images[first : first + _BATCH]) for first in range(0, len(images), _BATCH))
    return ahead(lambda image: pixels_or_reason(image, config), batches)


def pixels_or_reason(image: Any, config: TrainingConfig) -> np.ndarray | str:
    """Return the pixels of an image of any kind, uint8 (size, size, 3); if it can't be read, the reason."""
    try:
        if isinstance(image, str | os.PathLike | bytes):
            return load_image(image, config)
        values = rgb(image) if isinstance(image, Image.Image) else image
        pixels = _pixels(values, "(height, width, 3)")
        return cropped_and_resized(pixels, config.image_size, config.crop, "image")
    except (ValueError, OSError, SyntaxError) as problem:  # Pillow reads the file of an image late
        return str(problem)


def listed(images: Any) -> Any:
    """Return one image, or several, as a list; arrays and tensors of pixels unchanged."""
    if isinstance(images, str | os.PathLike | bytes | Image.Image):
        return [images]
    if getattr(images, "ndim", 1) > 1:
        return images
    try:
        return list(images)  # of a column too, of polars, pandas or numpy
    except TypeError as problem:
        raise InputError(f"images are paths, contents, pictures or arrays; got {type(images).__name__}") from problem


def image_names(images: Any) -> list[Any]:
    """Return paths of images if known, else their numbers."""
    return [
        shown_path(Path(image)) if isinstance(image, str | os.PathLike) else number
        for number, image in enumerate(images)
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
