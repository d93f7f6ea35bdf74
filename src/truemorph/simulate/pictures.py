"""Render images of simulated galaxies as in Galaxy Zoo: cutout scaled by radius, PSF, colour, noise, 8 bits.

Galaxy Zoo 2 shows 424×424 pixels, scaled by R90 and resampled from SDSS frames of 0.396 arcsec (Willett et al. 2013);
the PSF's size in pixels, the correlation of the noise and the density of stars follow from the galaxy's radius. All
blurring is a product of transfer functions: atmosphere and telescope (Moffat), and the interpolation of the frame's
pixels, which also correlates the noise. The constants are chosen so that brightness, background noise and stars are
similar to those of real Galaxy Zoo 2 JPEGs (docs/simulator.md).

A galaxy consists of bulge and bar, disk, and young stars. Spiral structure is a sum of logarithmic spirals, φ = ln r /
tan(pitch): one mode for a grand-design spiral, many with random number, pitch and phase for a flocculent disk. The
density of young stars is the exponential of that sum. Per square arcminute there are 2 stars brighter than r = 21, with
a slope of 0.2 dex per magnitude, and 0.6 galaxies, with 0.45 dex, as at high galactic latitude.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import simplejpeg
from scipy import fft

from truemorph.catalogs.physical import FIELD_R90, GZ2_SIZE
from truemorph.errors import InputError
from truemorph.images.decode import ahead
from truemorph.images.degrade import moffat_transfer
from truemorph.images.stretch import stretch
from truemorph.io import write_file
from truemorph.simulate.population import bulge_axis_ratio, sersic_area, sersic_b

Galaxy = Mapping[str, Any]
# The central pixels of a profile (width in pixels) are averaged over sub-pixels (points per axis).
_CENTRE, _POINTS = 12, 6
_FLOCCULENT_MODES = 5
_SMALLEST_AXIS = 0.6  # pixels; thinner disks would be undersampled
CENTRAL_R90 = FIELD_R90 * 207 / GZ2_SIZE  # width of the paper's central crop
FRAME_PIXEL = 0.396  # arcsec
# Sky noise of a frame pixel in i, r, g (nanomaggies), half of SDSS's, as real JPEGs show less, probably because
# compression and cuts at zero remove a part; PSF width in i, r, g relative to r.
_SKY_NOISE = (0.016, 0.011, 0.0075)
_BAND_WIDTHS = (0.95, 1.0, 1.08)
_MISALIGNED = 0.12  # rms offset of i and g from r, frame pixels
_MARGIN = 1.12  # width of the rendered grid relative to the cutout, because light crosses the edges
_SAMPLING = 2.2  # minimum pixels of that grid per PSF FWHM
_STARS, _STAR_SLOPE = 2.0, 0.20
_GALAXIES, _GALAXY_SLOPE = 0.6, 0.45
_REFERENCE, _FAINTEST, _BRIGHTEST = 21.0, 22.3, 13.0
_SPIKED = 14.0  # stars brighter than this show diffraction spikes
_COMPANIONS = 0.10  # fraction of galaxies with one
_PART = 16  # images drawn at a time
_STAMP = 24  # half side of a background galaxy's stamp, pixels


def sersic_light(axis: np.ndarray, index: float, radius: float, ratio: float, angle: float) -> np.ndarray:
    """Compute a Sérsic profile of unit total flux, per unit area, shape (S, S).

    `axis` has the positions of pixel centres along x and y; `radius` is R_e along the major axis.
    """
    b = float(sersic_b(index))
    central = 1 / (float(sersic_area(index)) * radius**2 * ratio)
    power = 0.5 / index

    def profile(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = x / radius, y / radius
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        squared = along**2 + (across / ratio) ** 2
        return np.exp(-b * np.exp(power * np.log(squared + 1e-8))) * central

    values = profile(axis, axis[:, None])
    middle = slice(axis.size // 2 - _CENTRE // 2, axis.size // 2 + _CENTRE // 2)
    offsets = (np.arange(_POINTS, dtype=axis.dtype) + 0.5) / _POINTS - 0.5
    fine = (axis[middle, None] + offsets * (axis[1] - axis[0])).ravel()
    several = profile(fine, fine[:, None]).reshape(_CENTRE, _POINTS, _CENTRE, _POINTS)
    values[middle, middle] = several.mean(axis=(1, 3))
    return values


def _spiral(plane: np.ndarray, galaxy: Galaxy, rng: np.random.Generator) -> np.ndarray:
    """Density contrast of the arms (mean about 0, variance about 1); `plane` is x + iy in disk scale lengths."""
    radius = np.abs(plane) + 1e-3
    log_radius = np.log(radius)
    around = (plane / radius).astype(np.complex64)
    order = galaxy["arm_order"]
    powers = {1: around}
    for k in range(2, 10):
        powers[k] = powers[k - 1] * around

    def mode(number: int, pitch: float, phase: float) -> np.ndarray:
        winding = np.float32(number / np.tan(pitch)) * log_radius + np.float32(phase)
        return powers[number].real * np.cos(winding) + powers[number].imag * np.sin(winding)

    number = int(galaxy["arm_number"])
    phases = rng.uniform(0, 2 * np.pi, _FLOCCULENT_MODES + 2)
    # The second harmonic sharpens grand-design arms.
    contrast = mode(number, galaxy["pitch"], phases[0]) * (1.2 * order + 0.15)
    if 2 * number <= 9:
        contrast += mode(2 * number, galaxy["pitch"], 2 * phases[0]) * (0.45 * order)
    for phase, spread in zip(phases[2:], rng.normal(1, 0.25, _FLOCCULENT_MODES), strict=True):
        number = int(rng.integers(2, 10))
        pitch = float(np.clip(galaxy["pitch"] * spread * 1.3, 0.1, 0.9))
        patches = mode(number, pitch, phase)
        contrast += patches * np.float32(1.1 * (1 - order) / np.sqrt(_FLOCCULENT_MODES / 2) + 0.1)
    return contrast


def components(
    galaxy: Galaxy, axis: np.ndarray, pixel: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the light of bulge and bar, old disk and young stars per square arcsec, for a total flux of 1.

    `axis` has the positions of pixel centres, `pixel` arcsec apart; `rng` draws the phases of the arms.
    """
    unit = galaxy["unit_length"]
    angle = galaxy["position_angle"]
    ratio = galaxy["axis_ratio"]
    fraction = galaxy["bulge_fraction"]
    roundness = float(bulge_axis_ratio(fraction, ratio))
    bulge = sersic_light(axis, galaxy["sersic_index"], galaxy["bulge_radius"] * unit, roundness, angle)
    bulge *= fraction
    ratio = max(ratio, _SMALLEST_AXIS * pixel / unit)
    cos, sin = np.float32(np.cos(angle) / unit), np.float32(np.sin(angle) / unit)
    x, y = axis, axis[:, None]
    plane = (x * cos + y * sin) + 1j * ((y * cos - x * sin) / ratio)
    radius = np.abs(plane)
    # Per projected square arcsec; an exponential disk of unit flux has 1 / 2π at its centre.
    exponential = np.exp(-radius) * (1 / (2 * np.pi * unit**2 * ratio))
    bar_fraction = galaxy["bar_fraction"] * (1 - fraction)
    disk_fraction = 1 - fraction - bar_fraction
    if bar_fraction > 0:
        turned = plane * np.exp(np.complex64(-1j * galaxy["bar_angle"]))
        length = galaxy["bar_length"]
        # A bar of generalised ellipses with constant brightness (Athanassoula et al. 1990), axis ratio 1:4.
        boxy = (np.abs(turned.real) / length) ** 3 + (np.abs(turned.imag) / (length / 4)) ** 3
        bar = np.exp(-boxy)
        bulge += bar * (bar_fraction / (bar.sum() * pixel**2))
    ring_light = exponential
    if galaxy["ring_strength"] > 0:
        ring = np.exp(-0.5 * ((radius - galaxy["ring_radius"]) / 0.22) ** 2)
        ring_light = exponential * (1 + 2 * galaxy["ring_strength"] * ring)
    young_fraction = galaxy["young_fraction"] * disk_fraction
    if young_fraction > 0:
        contrast = _spiral(plane, galaxy, rng)
        beyond_bulge = 1 - np.exp(-((radius / 0.6) ** 2))
        strength = galaxy["arm_strength"] * beyond_bulge
        young = ring_light * np.exp(strength * contrast - 0.5 * strength**2)
        disk = exponential * (1 + 0.25 * np.clip(strength * contrast, -1, 1.5))
        young *= young_fraction / (young.sum() * pixel**2)
        disk_fraction -= young_fraction
    else:
        young = np.zeros_like(exponential)
        disk = ring_light
    disk *= disk_fraction / (disk.sum() * pixel**2)
    if ratio < 0.35:
        # A dust lane slightly beside the midplane of nearly edge-on disks.
        height = plane.imag * ratio
        width = 0.09
        lane = np.exp(-0.5 * ((height - 0.35 * width) / width) ** 2) * (radius < 3)
        kept = 1 - 0.55 * galaxy["dust"] * (1 - ratio / 0.35) * lane
        bulge, disk, young = bulge * kept, disk * kept, young * kept
    return bulge, disk, young


def _magnitudes(rng: np.random.Generator, area: float, density: float, slope: float) -> np.ndarray:
    """Draw magnitudes of a Poisson number of objects in an area (square arcmin)."""
    brightest, faintest = (10 ** (slope * (m - _REFERENCE)) for m in (_BRIGHTEST, _FAINTEST))
    number = rng.poisson(area * density * (faintest - brightest))
    return _REFERENCE + np.log10(rng.uniform(brightest, faintest, number)) / slope


def _fluxes(magnitude: np.ndarray | float, g_r: np.ndarray | float, r_i: np.ndarray | float) -> np.ndarray:
    """Return fluxes in i, r, g (red, green, blue of an image) in nanomaggies, shape (3, ...), from r magnitudes."""
    relative_to_r = np.stack(np.broadcast_arrays(r_i, 0, -g_r))
    return 10 ** (0.4 * (22.5 - magnitude + relative_to_r))


def _add_points(light: np.ndarray, places: np.ndarray, fluxes: np.ndarray) -> None:
    """Add each point's flux, shape (3, M), to the four pixels nearest to its place (x, y), shape (2, M)."""
    corner = np.floor(places).astype(int)
    inside = ((corner >= 0) & (corner < light.shape[1] - 1)).all(axis=0)
    (left, top), fluxes = corner[:, inside], fluxes[:, inside]
    to_right, below = (places - corner)[:, inside]
    for dy, vertical in ((0, 1 - below), (1, below)):
        for dx, horizontal in ((0, 1 - to_right), (1, to_right)):
            flux = (fluxes * (vertical * horizontal)).astype(light.dtype)
            np.add.at(light, (slice(None), top + dy, left + dx), flux)  # type: ignore[arg-type]


def _add_galaxy(
    light: np.ndarray, pixel: float, place: np.ndarray, fluxes: np.ndarray, shape: tuple[float, float, float, float]
) -> None:
    """Add a Sérsic galaxy at a pixel (x, y); `shape` is its index, R_e (arcsec), axis ratio and position angle."""
    size = light.shape[1]
    _, radius, *_ = shape
    half = int(min(_STAMP * max(1.0, radius / pixel / 4), size // 2 - 1))
    left, top = (round(at) - half for at in place)
    rows, columns = (slice(*np.clip((first, first + 2 * half), 0, size)) for first in (top, left))
    axis = (np.arange(-half, half, dtype=np.float32) + 0.5) * pixel
    stamp = sersic_light(axis, *shape)
    stamp = stamp[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    light[:, rows, columns] += fluxes[:, None, None].astype(np.float32) * stamp


def _add_surroundings(light: np.ndarray, pixel: float, side: float, galaxy: Galaxy, rng: np.random.Generator) -> None:
    """Add stars and galaxies at random positions in a square of sky, `side` arcsec wide."""
    size = light.shape[1]
    area = (side / 60) ** 2
    middle = (size - 1) / 2

    def place(number: int) -> np.ndarray:
        return middle + rng.uniform(-0.5, 0.5, (2, number)) * (side / pixel)

    stars = _magnitudes(rng, area, _STARS, _STAR_SLOPE)
    where = place(stars.size)
    # Faint stars are mostly M dwarfs of the disk, bright ones F to K stars.
    red = rng.random(stars.size) < np.clip(0.10 + 0.07 * (stars - 14), 0.05, 0.6)
    g_r = np.where(red, rng.normal(1.35, 0.12, stars.size), rng.normal(0.5, 0.15, stars.size))
    r_i = np.where(red, rng.uniform(0.4, 1.2, stars.size), 0.4 * g_r)
    fluxes = _fluxes(stars, g_r, r_i) / pixel**2
    _add_points(light, where, fluxes)
    for x, y, flux in zip(*where[:, stars < _SPIKED], fluxes[:, stars < _SPIKED].T, strict=True):
        reach = np.arange(1, size // 3)
        arm = 0.02 * flux[:, None] / (1 + reach) ** 1.5
        turn = rng.uniform(0, np.pi / 2)
        for quarter in range(4):
            angle = turn + quarter * np.pi / 2
            _add_points(light, np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)]), arm)
    for other in _magnitudes(rng, area, _GALAXIES, _GALAXY_SLOPE):
        colour = rng.normal(0.8, 0.25)
        radius = float(np.clip(1.3 * 10 ** (-0.12 * (other - 20)) * rng.lognormal(0, 0.3), 0.3, 4))
        shape = (float(rng.choice([1.0, 2.5])), radius, rng.uniform(0.3, 1.0), rng.uniform(0, np.pi))
        _add_galaxy(light, pixel, place(1)[:, 0], _fluxes(other, colour, 0.45 * colour), shape)
    if rng.random() < _COMPANIONS:
        # The companion is similar to the central galaxy.
        distance, towards = rng.uniform(1.5, 6) * galaxy["r50"] / pixel, rng.uniform(0, 2 * np.pi)
        fainter = rng.exponential(1.2) + 0.3
        radius = galaxy["r50"] * 10 ** (-0.12 * fainter) * rng.lognormal(0, 0.25)
        shape = (float(rng.choice([1.0, 3.0])), radius, rng.uniform(0.25, 1.0), rng.uniform(0, np.pi))
        beside = middle + distance * np.array([np.cos(towards), np.sin(towards)])
        colour = galaxy["g_r_disk"] if galaxy["bulge_fraction"] < 0.5 else galaxy["g_r_bulge"]
        fluxes = _fluxes(galaxy["magnitude"] + fainter, colour + rng.normal(0, 0.12), 0.35)
        _add_galaxy(light, pixel, beside, fluxes, shape)


def _expose(galaxy: Galaxy, size: int, field: float, seed: int, exposure: int) -> np.ndarray:
    """Render one image in i, r, g, shape (3, size, size), in nanomaggies per frame pixel, with noise."""
    arms, around = (np.random.default_rng([seed, part, galaxy["object_id"]]) for part in (1, 2))
    noise = np.random.default_rng([seed, 3, galaxy["object_id"], exposure])
    pixel = field * galaxy["r90"] / size
    finer = int(np.clip(np.ceil(_SAMPLING * pixel / galaxy["psf_fwhm"]), 1, 6))
    fine = pixel / finer
    grid = fft.next_fast_len(int(_MARGIN * size * finer), real=True)
    grid += (grid - size * finer) % 2  # the galaxy is at the centre of both
    axis = (np.arange(grid, dtype=np.float32) - (grid - 1) / 2) * fine
    parts = components(galaxy, axis, fine, arms)
    # Redder with redshift, especially old stars (approximate K corrections of Chilingarian et al. 2010).
    z = galaxy["redshift"]
    rest = np.array([galaxy["g_r_bulge"], galaxy["g_r_disk"], galaxy["g_r_young"]])
    g_r = rest + (2.6 * np.clip(rest, 0, 0.8) - 0.1) * z
    # Of bulge, disk and young stars, shape (3 bands, 3).
    fluxes = _fluxes(galaxy["magnitude"], g_r, 0.08 + 0.42 * rest + 0.5 * z).astype(np.float32)
    light = np.einsum("bp,pxy->bxy", fluxes, parts)
    _add_surroundings(light, fine, _MARGIN * field * galaxy["r90"], galaxy, around)

    along = fft.rfftfreq(grid, fine).astype(np.float32)
    across = fft.fftfreq(grid, fine).astype(np.float32)
    squared = across[:, None] ** 2 + along**2
    interpolation = np.sinc(across * FRAME_PIXEL)[:, None] ** 2 * np.sinc(along * FRAME_PIXEL) ** 2
    shifts = noise.normal(0, _MISALIGNED * FRAME_PIXEL, (3, 2)) * [[1], [0], [1]]
    spectrum = fft.rfft2(light, axes=(1, 2))
    for band, width, (dx, dy) in zip(spectrum, _BAND_WIDTHS, shifts, strict=True):
        band *= moffat_transfer(squared, width * galaxy["psf_fwhm"]) * interpolation
        if dx or dy:
            band *= np.exp(-2j * np.pi * across * dy).astype(np.complex64)[:, None]
            band *= np.exp(-2j * np.pi * along * dx).astype(np.complex64)
    blurred = fft.irfft2(spectrum, s=(grid, grid), axes=(1, 2))
    edge = (grid - size * finer) // 2
    inner = blurred[:, edge:-edge, edge:-edge]
    image = inner.reshape(3, size, finer, size, finer).mean(axis=(2, 4)) * FRAME_PIXEL**2
    return image + _noise(size, pixel, noise)


def _noise(size: int, pixel: float, rng: np.random.Generator) -> np.ndarray:
    """Draw sky noise of frames (0.396 arcsec per pixel), interpolated to another scale, shape (3, size, size)."""
    along, across = fft.rfftfreq(size, pixel).astype(np.float32), fft.fftfreq(size, pixel).astype(np.float32)

    def passed(frequency: np.ndarray) -> np.ndarray:
        through = np.sinc(frequency * FRAME_PIXEL) ** 2
        return through * np.sinc(frequency * pixel) if pixel > FRAME_PIXEL else through

    white = rng.standard_normal((3, size, size), dtype=np.float32)
    spectrum = fft.rfft2(white, axes=(1, 2)) * (passed(across)[:, None] * passed(along))
    grain = fft.irfft2(spectrum, s=(size, size), axes=(1, 2)) * (FRAME_PIXEL / pixel)
    depth = rng.lognormal(0, 0.12)  # depth of this field
    return grain * (depth * np.array(_SKY_NOISE, np.float32))[:, None, None]


def render(
    galaxies: pl.DataFrame, size: int = 64, seed: int = 0, *, field: float = CENTRAL_R90, exposure: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Render images of galaxies.

    Parameters
    ----------
    galaxies : polars.DataFrame
        Galaxies from `simulate_galaxies`.
    size : int
        Image width in pixels.
    seed : int
        Seed of arms, surroundings and noise. They depend only on the seed and the galaxy's `object_id`, not on other
        galaxies.
    field : float
        Width of the image in R90; default that of the paper's central crop; `FIELD_R90` for the whole Galaxy Zoo 2
        cutout.
    exposure : int
        Number of the exposure; another number changes noise and the alignment of bands, but not the sky.

    Yields
    ------
    row : int
        Row of the galaxy.
    image : array of uint8, shape (size, size, 3)

    Raises
    ------
    InputError
        If the size is below 16 pixels or the field is not positive.

    Examples
    --------
    >>> from truemorph.simulate.population import simulate_galaxies
    >>> row, image = next(render(simulate_galaxies(2), size=32))
    >>> image.shape
    (32, 32, 3)
    """
    if size < 16 or not field > 0:
        raise InputError(f"images need a width of at least 16 pixels and a positive field; got {size} and {field}")

    def draw(row: int) -> np.ndarray:
        return stretch(_expose(galaxies.row(row, named=True), size, field, seed, exposure))

    parts = (range(start, min(start + _PART, galaxies.height)) for start in range(0, galaxies.height, _PART))
    for rows, images in ahead(draw, ((part, part) for part in parts)):
        yield from zip(rows, images, strict=True)


def write_jpegs(
    galaxies: pl.DataFrame,
    folder: Path,
    size: int = GZ2_SIZE,
    seed: int = 0,
    *,
    field: float = FIELD_R90,
    quality: int = 75,
) -> list[Path]:
    """Write `<object_id>.jpg` for each galaxy, by default as in Galaxy Zoo 2: 424 pixels, quality 75, 4:2:0.

    Parameters
    ----------
    galaxies : polars.DataFrame
        Galaxies from `simulate_galaxies`.
    folder : Path
        Output folder; created if needed.
    size, seed, field
        As in `render`.
    quality : int
        JPEG quality, 1 to 100; above 90, colours have full resolution.

    Returns
    -------
    list of Path
        Files in the order of the rows.
    """
    paths = []
    sampling = "444" if quality > 90 else "420"
    for row, image in render(galaxies, size, seed, field=field):
        data = simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling=sampling)
        paths.append(write_file(folder / f"{galaxies['object_id'][row]}.jpg", data))
    return paths
