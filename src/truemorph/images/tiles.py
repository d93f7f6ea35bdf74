"""Cut sources out of survey tiles: FITS images with a celestial WCS, one for each band, that are read whole once."""

import glob
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from truemorph.catalogs.positions import positions_of, unit_vectors
from truemorph.errors import InputError, reason
from truemorph.findings import Finding, Findings
from truemorph.images.decode import MAXIMUM_PIXELS, image_unit
from truemorph.progress import progress, tell
from truemorph.tables import name_of, read_table, write_problems

OUTSIDE, NO_SIZE = "outside all tiles, or no position", "no size, or too large a size"
NO_CENTRE, INCOMPLETE = "no data at the centre", "no data in more than 10 % of the pixels"
ZEROS = "a band has only zeros"
# What is wrong with a source; reading the tile again would not help.
UNUSABLE = (OUTSIDE, NO_SIZE, NO_CENTRE, INCOMPLETE, ZEROS)
_MISSING = 0.1  # largest fraction of pixels without data
_SHIFT = 0.1  # pixels at the edge of a cut-out, above which it is resampled
_EQUINOX = 2000.0
_SCALES = 0.01  # largest relative difference of pixel scales that counts as none
_ZERO_POINTS = ("MAGZERO", "MAGZPT", "ZEROPNT", "ZEROPOINT", "PHOTZP", "ZP")
_UNITS = {"nanomaggy": 22.5, "nanomaggies": 22.5, "nmgy": 22.5, "njy": 31.4, "ujy": 23.9, "jy": 8.9}  # AB

# Pixel values of a cut-out, float32 (3, H, W) or (H, W), or why there are none.
Cut = Callable[[], np.ndarray | str]


@dataclass(frozen=True)
class Layer:
    """An image of one band: where it is in a file and on the sky.

    `shape` is (height, width), `centre` a unit vector, `reach` the chord to the farthest corner, `scale` in arcsec per
    pixel, `zero_point` in AB magnitudes, if known; `by_area` if values are surface brightness and not flux per pixel.
    """

    file: Path
    hdu: int | str | None
    wcs: Any
    shape: tuple[int, int]
    centre: np.ndarray
    reach: float
    scale: float
    zero_point: float | None
    by_area: bool

    def pixels(self, ra: Any, dec: Any) -> np.ndarray:
        """Return the pixels x and y, counted from 0, of positions in degrees, shape (2, N)."""
        return np.array(self.wcs.all_world2pix(ra, dec, 0, quiet=True))

    def read(self) -> np.ndarray:
        """Read all pixels; an InputError if the file is damaged."""
        from astropy.io import fits

        try:
            with fits.open(self.file, memmap=False) as units:
                values = image_unit(units, self.hdu).data
                return values if values.dtype.kind == "f" else values.astype(np.float32)
        except Exception as problem:  # readers raise many types for broken bytes
            raise InputError(f"{self.file}: not a readable tile ({reason(problem)}); replace it") from problem


@dataclass(frozen=True)
class Tiles:
    """Tiles of a survey, each with a layer per band, and how cut-outs are made: bands, scale and zero point."""

    layers: tuple[tuple[Layer, ...], ...]
    bands: tuple[str, ...]
    scale: float
    zero_point: float | None
    findings: Findings = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what a model must know about its images."""
        return {"bands": list(self.bands), "scale": self.scale, "zero_point": self.zero_point}

    def names(self) -> list[str]:
        """Return a unique name for each tile, that of its first file."""
        names = [layer[0].file.name.partition(".fit")[0] for layer in self.layers]
        count = Counter(names)
        return [f"{name}-{k}" if count[name] > 1 else name for k, name in enumerate(names)]

    def assign(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Return for each position, degrees, the tile in which it is farthest from an edge; -1 if in none."""
        tile, depth = np.full(len(ra), -1), np.zeros(len(ra))
        finite = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
        places = cKDTree(unit_vectors(ra[finite], dec[finite]), balanced_tree=False)
        for k, (first, *_) in enumerate(self.layers):
            rows = finite[places.query_ball_point(first.centre, first.reach)]
            x, y = first.pixels(ra[rows], dec[rows])
            height, width = first.shape
            edge = np.min([x + 0.5, width - 0.5 - x, y + 0.5, height - 0.5 - y], axis=0) * first.scale
            deeper = edge > depth[rows]
            tile[rows[deeper]], depth[rows[deeper]] = k, edge[deeper]
        return tile

    def cuts(self, number: int, ra: np.ndarray, dec: np.ndarray, size: np.ndarray) -> list[Cut]:
        """Read a tile; return for each source a function that makes its cut-out. `size` is the width in arcsec.

        Pixels are those of astropy's Cutout2D, unless scale or rotation differ from those of the first band or from
        `scale`: such bands are resampled, by a map that is linear across the cut-out, and flux is conserved.
        """
        layers = self.layers[number]
        planes = [layer.read() for layer in layers]
        side = np.round(size / self.scale)
        good = (side > 0) & (side**2 <= MAXIMUM_PIXELS)
        side = np.where(good, side, 1).astype(int)
        first = layers[0]
        ratio = self.scale / first.scale
        ratio = 1.0 if abs(ratio - 1) < _SCALES else ratio
        x, y = first.pixels(ra, dec)
        # Pixel steps of the cut-out, in pixels of each band: over half its width.
        half = np.maximum(side / 2, 1)
        ends = [first.wcs.all_pix2world(x + dx, y + dy, 0) for dx, dy in ((half * ratio, 0), (0, half * ratio))]
        # Per band: matrix (N, 2, 2) in rows and columns, place of the source (N, 2), and factor of its values.
        maps = []
        for layer in layers:
            place = layer.pixels(ra, dec)
            columns = [(layer.pixels(*end) - place)[::-1] / half for end in ends]
            matrix = np.stack(columns[::-1], axis=1).T.swapaxes(1, 2)
            brighter = 1.0
            if layer.zero_point is not None and self.zero_point is not None:
                brighter = 10 ** (0.4 * (self.zero_point - layer.zero_point))
            maps.append((matrix, place[::-1].T, brighter))

        def cut(row: int) -> np.ndarray | str:
            if not good[row]:
                return NO_SIZE
            n = int(side[row])
            own = maps[0][1][row]
            # The grid is that of the first band's pixels, unless it is resampled.
            offset = np.ceil(own - n / 2) - own if ratio == 1 else np.full(2, -(n - 1) / 2)
            values = np.empty((len(layers), n, n), np.float32)
            for out, plane, layer, (matrix, place, brighter) in zip(values, planes, layers, maps, strict=True):
                if np.abs(matrix[row] - np.eye(2)).max() * n / 2 < _SHIFT:
                    out[:] = _window(plane, place[row], (n, n))
                else:
                    out[:] = _resampled(plane, matrix[row], place[row], offset, n)
                    brighter *= 1 if layer.by_area else abs(np.linalg.det(matrix[row]))
                if brighter != 1:
                    out *= np.float32(brighter)
            finite = np.isfinite(values)
            if not finite[:, n // 2, n // 2].all():
                return NO_CENTRE
            if 1 - finite.mean(axis=(1, 2)).min() > _MISSING:
                return INCOMPLETE
            if not values.any(axis=(1, 2)).all():
                return ZEROS
            return values[0] if len(layers) == 1 else values

        return [partial(cut, row) for row in range(len(side))]


def cutout_width(size: str) -> Any:
    """Return the width of cut-outs in arcsec as an expression."""
    from astropy import units as u

    from truemorph.catalogs.expressions import read_expression  # takes as long to import as to label some images

    try:
        size = repr(float(u.Quantity(size).to_value("arcsec")))
    except u.UnitConversionError as problem:
        raise InputError(f"`size` must be an angle, such as 40arcsec, or an expression; got {size!r}") from problem
    except (TypeError, ValueError):  # an expression
        pass
    return read_expression(size, "`size`")


def cutout_sizes(size: str, frame: pl.DataFrame, source: str) -> np.ndarray:
    """Return widths in arcsec, (N,), from an angle such as 40arcsec, or an expression such as 6 * radius (arcsec)."""
    from truemorph.catalogs.expressions import compute

    return compute(cutout_width(size), frame, source).cast(pl.Float64, strict=False).to_numpy()


def write_cutouts(
    tiles: Tiles, size: str, folder: Path, frame: pl.DataFrame
) -> tuple[Path, list[str | None], list[Finding]]:
    """Write cut-outs of a table's galaxies as FITS files; return folder, names and findings.

    Those that can't be used have no name, and are listed in `problems.csv`.
    """
    from astropy.io import fits

    ra, dec = positions_of(frame, "table")
    width, tile = cutout_sizes(size, frame, "table"), tiles.assign(ra, dec)
    ids = frame["object_id"].cast(pl.String).to_list()
    names: list[str | None] = [None] * frame.height
    problems = [(ids[row], OUTSIDE) for row in np.flatnonzero(tile < 0)]
    folder.mkdir(parents=True, exist_ok=True)
    used = np.unique(tile[tile >= 0])
    for number in progress(len(used), "cut-outs", "tile", of=used):
        rows = np.flatnonzero(tile == number)
        cuts = (cut() for cut in tiles.cuts(number, ra[rows], dec[rows], width[rows]))  # keeps no tile afterwards
        for row, values in zip(rows, cuts, strict=True):
            if isinstance(values, str):
                problems.append((ids[row], values))
                continue
            name = names[row] = f"{quote(ids[row], safe='')}.fits"
            fits.PrimaryHDU(values).writeto(folder / name, overwrite=True)
    if len(problems) == frame.height:
        raise InputError(f"no galaxy can be cut out of the tiles ({problems[0][1]}); check positions, tiles and `size`")
    if not problems:
        return folder, names, []
    listed = folder / "problems.csv"
    write_problems(problems, listed)
    lacking = f"{len(problems):,} of {frame.height:,} galaxies can't be cut out of the tiles; {listed} has the reasons."
    return folder, names, [Finding("images-missing", "caution", lacking, "Add tiles, or select galaxies inside them.")]


def _window(plane: np.ndarray, place: np.ndarray, shape: Any) -> Any:
    """Copy pixels of an image around a place (row, column); NaN outside of it."""
    from astropy.nddata import NoOverlapError, extract_array

    try:
        return extract_array(plane, shape, place)
    except NoOverlapError:
        return np.nan


def _resampled(plane: np.ndarray, matrix: np.ndarray, place: np.ndarray, offset: np.ndarray, n: int) -> np.ndarray:
    """Return (n, n) pixels at `place` + `matrix` · (pixel + `offset`), interpolated and averaged over each pixel."""
    from scipy.ndimage import affine_transform  # takes time, and is rarely needed

    fine = max(1, int(np.ceil(np.abs(matrix).sum(axis=1).max() - 0.01)))  # points per pixel and axis
    step = matrix / fine
    start = place + matrix @ (offset - (1 - 1 / fine) / 2)
    corners = start + np.array([(0, 0), (0, 1), (1, 0), (1, 1)]) * (n * fine - 1) @ step.T
    low, high = np.floor(corners.min(axis=0)).astype(int) - 1, np.ceil(corners.max(axis=0)).astype(int) + 2
    shape = tuple(high - low)
    window = np.broadcast_to(_window(plane, (low + high) / 2, shape), shape)
    finer = affine_transform(window, step, start - low, (n * fine, n * fine), order=1, cval=np.nan)
    return finer.reshape(n, fine, n, fine).mean(axis=(1, 3))


def open_tiles(tiles: Any, bands: Sequence[str], zero_point: float | None = None) -> Tiles:
    """Read the headers of tiles: a pattern such as `DIR/*-{band}_TILE*.fits`, or a table (file, band, hdu).

    There are one or three bands, in the order of red, green and blue. A tile consists of an image of the first band and
    those of other bands that are nearest on the sky; one without all bands is not used, with a finding. Without
    `zero_point`, those of the headers are used, if there are any.
    """
    if len(bands) not in (1, 3) or len({*bands}) < len(bands):
        raise InputError(f"name one or three different `bands`, red first; got {', '.join(bands) or 'none'}")
    warnings.filterwarnings("ignore", module=r"astropy\.(io\.fits|wcs)")  # as in decode.fits_values
    name = name_of(tiles)
    of_bands, damaged = list[list[Layer]](), list[InputError]()
    files = _files(tiles, bands, name)
    for of_band in files:
        of_bands.append([])
        for file, hdu in of_band:
            try:
                of_bands[-1].append(_layer(file, hdu, zero_point))
            except InputError as problem:
                damaged.append(problem)
    if [] in of_bands:
        raise damaged[0]
    first, *others = of_bands
    layers = [[file] for file in first]
    for more in others:
        tree = cKDTree([other.centre for other in more])
        for tile, separation, k in zip(layers, *tree.query([file.centre for file in first]), strict=True):
            if separation < tile[0].reach / 2:
                tile.append(more[k])
    whole = tuple(tuple(tile) for tile in layers if len(tile) == len(bands))
    if not whole:
        raise InputError(f"{name}: no tile has all of the bands {', '.join(bands)}; name others (`bands`)")
    tell(f"{len(whole):,} tiles from {sum(map(len, files)):,} files that match {name}")
    stated = {band.zero_point is not None: band.file for tile in whole for band in tile}
    if len(stated) > 1:
        raise InputError(f"{stated[False]}: states no zero point, others do; give that of all tiles (`zero_point`)")
    findings: Findings = ()
    if damaged:
        message = f"{len(damaged):,} files of tiles are not used: {damaged[0]}"
        findings += (
            Finding("tiles-unreadable", "caution", message, "Galaxies there are listed as outside all tiles."),
        )
    if lacking := len(layers) - len(whole):
        message = f"{lacking:,} of {len(layers):,} tiles lack a band and are not used."
        findings += (Finding("tiles-incomplete", "caution", message, "Add the images of all bands (`tiles`)."),)
    return Tiles(whole, tuple(bands), whole[0][0].scale, whole[0][0].zero_point, findings)


def _files(tiles: Any, bands: Sequence[str], name: str) -> list[list[tuple[Path, Any]]]:
    """Return files and HDUs (None: the first with an image) of each band."""
    rows: list[tuple[str, str, Any]]
    if "{band}" in name or glob.has_magic(name):
        if len(bands) > 1 and "{band}" not in name:
            raise InputError(f"{name}: write {{band}} in place of the band, or give a table (file, band, hdu)")
        folder, rows = Path(), []
        for band in bands:
            files = glob.glob(name.replace("{band}", glob.escape(band)), recursive=True)
            rows += [(file, band, None) for file in sorted(files)]
    else:
        table = read_table(tiles)
        folder, columns = Path() if table.path is None else table.path.parent, table.frame.to_dict()
        if not {"file", "band"} <= columns.keys():
            raise InputError(f"{name}: a table of tiles has columns file and band, and hdu if not the first image")
        hdus = columns.get("hdu", [None] * table.frame.height)
        rows = list(zip(columns["file"], columns["band"], hdus, strict=True))
    of_bands = [
        [(folder / file, int(hdu) if str(hdu).isdigit() else hdu) for file, own, hdu in rows if own == band]
        for band in bands
    ]
    if [] in of_bands:
        raise InputError(f"{name}: no tile of band {bands[of_bands.index([])]}; correct it, or name other `bands`")
    return of_bands


def _layer(file: Path, hdu: int | str | None, zero_point: float | None) -> Layer:
    """Read the header of an image."""
    from astropy.coordinates import FK5, ICRS
    from astropy.io import fits
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_area, wcs_to_celestial_frame

    try:
        with fits.open(file, memmap=False) as units:
            unit = image_unit(units, hdu)
            header, shape = unit.header, tuple(unit.shape) if unit.is_image else ()
        wcs = WCS(header, naxis=2)
        if len(shape) != 2 or (wcs.wcs.lng, wcs.wcs.lat, wcs.wcs.lngtyp) != (0, 1, "RA"):
            raise ValueError(f"needs an image (height, width) with a WCS of RA and Dec; found shape {shape}")
        frame = wcs_to_celestial_frame(wcs)
        if not isinstance(frame, ICRS) and not (isinstance(frame, FK5) and frame.equinox.jyear == _EQUINOX):
            raise ValueError(f"its positions must be in ICRS or FK5 (J2000), not {frame.name.upper()}")
    except Exception as problem:
        raise InputError(f"{file}: not a readable tile ({reason(problem)}); replace or remove it") from problem
    height, width = shape
    # The centre, and the corners, up to half a pixel beyond.
    x = np.array([(width - 1) / 2, -0.5, -0.5, width, width])
    y = np.array([(height - 1) / 2, -0.5, height, -0.5, height])
    vectors = unit_vectors(*wcs.all_pix2world(x, y, 0))
    reach = float(np.linalg.norm(vectors[1:] - vectors[0], axis=1).max())
    unit_name = str(header.get("BUNIT", "")).strip().lower()
    zero_points = [header[key] for key in _ZERO_POINTS if type(header.get(key)) in (int, float) and header[key] > 0]
    zero_point = zero_point if zero_point is not None else next(iter(zero_points), _UNITS.get(unit_name))
    scale = 3600 * float(np.sqrt(proj_plane_pixel_area(wcs)))
    by_area = any(unit in unit_name for unit in ("sr", "arcsec"))
    return Layer(file, hdu, wcs, (height, width), vectors[0], reach, scale, zero_point, by_area)


def differences(cutouts: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """Say how bands and pixel scale of cut-outs (`Tiles.to_dict`) differ from those that a model was trained on."""
    other = []
    if cutouts["bands"] != model["bands"]:
        other.append(f"bands {', '.join(cutouts['bands'])} instead of {', '.join(model['bands'])}")
    if abs(cutouts["scale"] / model["scale"] - 1) > _SCALES:
        other.append(f"{cutouts['scale']:.4g} arcsec per pixel instead of {model['scale']:.4g}")
    return other


def for_model(tiles: Tiles, model: dict[str, Any], convert: bool) -> Tiles:
    """Return tiles whose cut-outs are as those that a model was trained on (`Tiles.to_dict`, or none), with findings.

    Values are converted to the model's zero point. Other bands or pixel scales are an InputError, unless `convert`.
    """
    if not model:
        message = "The model was not trained on tiles, so their bands, pixel scale and stretch can't be compared."
        action = "Check them on images with gold labels, or train on cut-outs of these tiles (`truemorph prepare`)."
        return replace(tiles, findings=(*tiles.findings, Finding("tiles-not-compared", "caution", message, action)))
    other, findings = differences(tiles.to_dict(), model), tiles.findings
    if model["zero_point"] is not None and tiles.zero_point is None:
        raise InputError(
            f"the tiles state no zero point, but those that the model was trained on do ({model['zero_point']:g} mag); "
            "give it (`zero_point`)"
        )
    if model["zero_point"] is None and tiles.zero_point is not None:
        message = "The images that the model was trained on stated no zero point, so their flux can't be compared."
        action = "Check labels against gold labels, or train on cut-outs with a zero point (`zero_point`)."
        findings += (Finding("tiles-not-compared", "caution", message, action),)
    if other and not convert:
        raise InputError(
            f"the tiles have {' and '.join(other)}; train on such tiles, or have them converted (`convert`)"
        )
    zero_point = tiles.zero_point if model["zero_point"] is None else model["zero_point"]
    if other:
        message = f"The tiles have {' and '.join(other)}, and were converted to what the model was trained on."
        action = "Compare labels with gold labels before you use them: depth, noise and PSF still differ."
        findings += (Finding("tiles-converted", "caution", message, action),)
    return replace(tiles, scale=model["scale"] if other else tiles.scale, zero_point=zero_point, findings=findings)
