"""The field of Galaxy Zoo 2's images, measured from the width of stars in real images."""

import numpy as np
import polars as pl
import pytest
import simplejpeg
from PIL import Image
from scipy import ndimage

from truemorph.catalogs.physical import FIELD_R90
from truemorph.images.stretch import unstretch
from truemorph.simulate.pictures import GZ2_SIZE, render
from truemorph.simulate.population import simulate_galaxies

SIZE, HALF, FINE = 224, 6, 4  # pixels of the shared images; half of a star's stamp; points per pixel


def star_width(image):
    """FWHM (pixels) of isolated round stars away from the galaxy, median; NaN if there is none."""
    shown, light, widths = image.mean(axis=2), unstretch(image)[1], []
    peaks = (ndimage.maximum_filter(shown, 7) == shown) & (shown > 50) & (image.max(axis=2) < 215)
    for y, x in np.argwhere(peaks[HALF:-HALF, HALF:-HALF]) + HALF:
        stamp = np.s_[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1]
        around = np.ones((2 * HALF + 1,) * 2, bool)
        around[1:-1, 1:-1] = False
        if np.hypot(y - SIZE / 2, x - SIZE / 2) < 0.2 * SIZE or shown[stamp][around].max() > 0.25 * shown[y, x]:
            continue
        star = ndimage.zoom(light[stamp] - np.median(light[stamp][around]), FINE, order=3)
        above = np.argwhere(star > star.max() / 2)  # an ellipse
        spread = np.linalg.eigvalsh(np.cov(above.T))
        if spread[0] > 0.6 * spread[1]:
            widths.append(2 * np.sqrt(len(above) / np.pi) / FINE)
    return np.median(widths) if widths else np.nan


def apparent_field(images, table):
    """Logarithm of the width of images in R90, if stars are as wide as the PSF: median and error."""
    widths = np.array([star_width(image) for image in images])
    fields = np.log(SIZE * (table["psf_fwhm"] / table["petroR90"]).to_numpy() / widths)
    fields = fields[np.isfinite(fields)]
    return np.median(fields), 1.25 * fields.std() / np.sqrt(fields.size)


def through(image, size, quality):
    small = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    data = simplejpeg.encode_jpeg(small, quality=quality, colorspace="RGB", colorsubsampling="420")
    return simplejpeg.decode_jpeg(data)


@pytest.mark.slow
def test_stars_have_the_width_that_the_field_gives_them(shared_data):
    """Galaxies of known R90 and PSF; stars are wider than the PSF, so simulated images go through the same steps."""
    known = pl.col("petroR90").is_not_null() & (pl.col("psf_fwhm") != 1.32)  # 1.32 is assumed
    table = pl.read_csv(shared_data / "gz2_images.csv").filter(known)
    real = apparent_field([np.asarray(Image.open(shared_data / name).convert("RGB")) for name in table["image"]], table)
    drawn = simulate_galaxies(400, seed=11)[:45].with_columns(petroR90="r90")
    images = (image for _, image in render(drawn, GZ2_SIZE, 3, field=FIELD_R90))
    expected = apparent_field([through(through(image, GZ2_SIZE, 75), SIZE, 90) for image in images], drawn)
    error = np.hypot(real[1], expected[1])
    assert error < 0.04  # a field of 6.3 R90 differs by 0.3
    assert abs(real[0] - expected[0]) < 3 * error
