"""Images cut out of mosaics: which, how, and whether there is anything in them."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np

from truemorph.catalogs.archives.failures import UnansweredError
from truemorph.errors import InputError

HIPS = tuple(f"CDS/P/HST/{name}" for name in ("color", "I", "SDSSz", "SDSSr", "R", "wideV", "V", "B"))
FOV, PIXELS = 30.0, 424
# Grey levels between the darkest and the brightest pixel, and a share of pixels: less is an empty image.
_FLAT, _FILLED = 8, 0.5
_PILLOW = {"jpg": "JPEG", "png": "PNG"}


@dataclass(frozen=True)
class Cutout:
    """How images are cut out.

    Attributes
    ----------
    fov : float
        Side, arcsec.
    pixels : int
        On a side.
    format : {"jpg", "png", "fits"}
    hips : tuple of str
        Mosaics, the preferred first; those in colour have no FITS.
    """

    fov: float = FOV
    pixels: int = PIXELS
    format: str = "jpg"
    hips: tuple[str, ...] = HIPS

    def __post_init__(self) -> None:
        """Refuse what can't be cut out."""
        if not 1 <= self.fov <= 3600 or not 16 <= self.pixels <= 4096:
            raise InputError(f"a cut-out is 1 to 3600 arcsec and 16 to 4096 pixels; got {self.fov} and {self.pixels}")
        if self.format not in ("jpg", "png", "fits"):
            raise InputError(f"images are jpg, png or fits; got {self.format!r}")
        if not self.mosaics:
            raise InputError("name at least one mosaic, such as CDS/P/HST/I (those in colour have no FITS)")

    @property
    def mosaics(self) -> tuple[str, ...]:
        """Mosaics that have the format."""
        return tuple(one for one in self.hips if self.format != "fits" or not one.endswith("color"))


def is_blank(body: bytes, cutout: Cutout) -> bool:
    """Whether the middle of an image shows nothing.

    Raises
    ------
    UnansweredError
        If it can't be read, or isn't what was asked for.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about a file is said by what it holds
            pixels = _fits(body) if cutout.format == "fits" else _picture(body, cutout)
    except UnansweredError:
        raise
    except Exception as problem:  # readers raise dozens of types for damaged files
        raise UnansweredError(f"the image can't be read: {problem}") from problem
    if pixels.shape[:2] != (cutout.pixels, cutout.pixels):
        _refuse(pixels.shape[1], pixels.shape[0], cutout)
    rows, columns = (slice(side // 4, side - side // 4) for side in pixels.shape[:2])
    middle = pixels[rows, columns]
    if cutout.format == "fits":
        filled = np.isfinite(middle) & (middle != 0)
        return bool(filled.mean() < _FILLED or np.ptp(middle[filled]) == 0)
    return bool(np.ptp(middle) <= _FLAT)


def _refuse(width: int, height: int, cutout: Cutout) -> None:
    raise UnansweredError(f"the image has {width} x {height} pixels in place of {cutout.pixels} x {cutout.pixels}")


def _fits(body: bytes) -> np.ndarray:
    from astropy.io import fits

    with fits.open(io.BytesIO(body)) as hdus:
        return np.atleast_3d(np.asarray(hdus[0].data, dtype=np.float64).T)


def _picture(body: bytes, cutout: Cutout) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(body)) as image:
        if image.format != _PILLOW[cutout.format]:
            raise UnansweredError(f"the image is {image.format} in place of {_PILLOW[cutout.format]}")
        if image.size != (cutout.pixels, cutout.pixels):  # before a bomb is unpacked
            _refuse(*image.size, cutout)
        return np.atleast_3d(np.asarray(image.convert("RGB"), dtype=np.float64))
