"""Cut-outs of tiles are those of astropy's Cutout2D; missing data are listed, and resampling conserves flux."""

import numpy as np
import polars as pl
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D, NoOverlapError
from astropy.wcs import WCS

from conftest import codes
from truemorph.errors import InputError
from truemorph.images import tiles as module
from truemorph.images.tiles import cutout_sizes, for_model, open_tiles

SIDE, SCALE = 300, 0.25
STEP = 65 / 3600  # degrees between the centres of tiles of 75 arcsec


def sky(ra=150.0, dec=30.0, scale=SCALE, angle=0.0, side=SIDE):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [ra, dec], [side / 2 + 0.3, side / 2]
    c, s = np.cos(angle), np.sin(angle)
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600
    return wcs


def write_tile(path, wcs, values, kind="plain", **header):
    head = wcs.to_header()
    head.update(header)
    if kind == "rice":
        unit = fits.CompImageHDU(values, head, compression_type="RICE_1", quantize_level=16)
        fits.HDUList([fits.PrimaryHDU(), unit]).writeto(path)
    else:
        fits.PrimaryHDU(values, head).writeto(path)


def survey(folder, kind="plain", bands="irg", count=2):
    """Overlapping tiles of noise, COUNT × COUNT, north of each other and to the west."""
    rng = np.random.default_rng(3)
    end = {"plain": "fits", "gzip": "fits.gz", "rice": "fits.fz"}[kind]
    for k in range(count**2):
        wcs = sky(150 - STEP * (k % count) / np.cos(np.radians(30)), 30 + STEP * (k // count))
        for band in bands:
            values = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
            write_tile(folder / f"EUC-{band}_TILE{k}-{rng.integers(10**6)}.{end}", wcs, values, kind)
    return str(folder / f"*-{{band}}_TILE*.{end}")


def positions(n, seed=0, count=2):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-SIDE / 2 - 10, SIDE * (count - 0.5), (2, n)) * SCALE / 3600
    return 150 - x / np.cos(np.radians(30)), 30 + y


def all_cuts(tiles, ra, dec, size):
    tile, out = tiles.assign(ra, dec), [module.OUTSIDE] * len(ra)
    for number in np.unique(tile[tile >= 0]):
        rows = np.flatnonzero(tile == number)
        for row, cut in zip(rows, tiles.cuts(number, ra[rows], dec[rows], size[rows]), strict=True):
            out[row] = cut()
    return tile, out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "gzip", "rice"])
def test_pixels_equal_cutout2d_and_what_is_missing_is_listed(kind, tmp_path):
    tiles = open_tiles(survey(tmp_path, kind), ["i", "r", "g"])
    n_sources = 500 if kind == "plain" else 100
    ra, dec = positions(n_sources)
    size = np.random.default_rng(5).uniform(3, 12, n_sources)
    tile, cuts = all_cuts(tiles, ra, dec, size)
    planes = [[layer.read() for layer in layers] for layers in tiles.layers]
    reasons = []
    where = SkyCoord(ra, dec, unit="deg")
    for k in range(n_sources):
        if tile[k] < 0:
            reasons.append(module.OUTSIDE)
            continue
        n = round(size[k] / SCALE)
        expected = []
        for layer, plane in zip(tiles.layers[tile[k]], planes[tile[k]], strict=True):
            try:
                expected.append(Cutout2D(plane, where[k], n, layer.wcs, "partial", fill_value=np.nan).data)
            except NoOverlapError:
                expected.append(np.full((n, n), np.nan))
        missing = np.isnan(expected).mean(axis=(1, 2)).max()
        if isinstance(cuts[k], str):
            assert missing > 0.1
            reasons.append(cuts[k])
        else:
            assert missing <= 0.1
            np.testing.assert_array_equal(cuts[k], np.array(expected, np.float32))
    assert min(reasons.count(one) for one in (module.OUTSIDE, module.INCOMPLETE)) > n_sources / 50
    assert len(reasons) < n_sources / 2


def test_a_source_belongs_to_the_tile_in_which_it_is_deepest(tmp_path):
    tiles = open_tiles(survey(tmp_path), ["r"])
    ra, dec = positions(300, seed=1)
    depth = []
    for [layer] in tiles.layers:
        x, y = layer.wcs.world_to_pixel_values(ra, dec)
        depth.append(np.min([x + 0.5, SIDE - 0.5 - x, y + 0.5, SIDE - 0.5 - y], axis=0))
    expected = np.where(np.max(depth, axis=0) > 0, np.argmax(depth, axis=0), -1)
    np.testing.assert_array_equal(tiles.assign(ra, dec), expected)
    assert (np.bincount(expected + 1) > 5).all()
    assert tiles.assign(np.array([np.nan, 330.0]), np.array([0.0, -30.0])).tolist() == [-1, -1]


def test_bands_without_data_and_impossible_sizes_are_noticed(tmp_path):
    values = np.ones((3, SIDE, SIDE), np.float32)
    values[0, 100:110, 100:110] = np.nan
    values[1, :, 150:] = 0
    rows = []
    for number, band in enumerate("irg"):
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(values[number] + 7), fits.ImageHDU(values[number], sky().to_header())]
        fits.HDUList(hdus).writeto(tmp_path / f"{band}.fits")
        rows.append({"file": f"{band}.fits", "band": band, "hdu": 2})
    pl.DataFrame(rows).write_csv(tmp_path / "tiles.csv")
    tiles = open_tiles(tmp_path / "tiles.csv", ["i", "r", "g"])
    wcs = tiles.layers[0][0].wcs
    x, y = [105, 90, 50, 220, 150, 50, 50], [105, 100, 50, 50, 50, 50, 50]
    ra, dec = wcs.pixel_to_world_values(x, y)
    size = np.array([5, 10, 5, 5, 5, np.nan, 1e9])
    _, cuts = all_cuts(tiles, ra, dec, size)
    found = [cut if isinstance(cut, str) else cut.shape for cut in cuts]
    fine = (3, 20, 20)
    assert found == [module.NO_CENTRE, (3, 40, 40), fine, module.ZEROS, fine, module.NO_SIZE, module.NO_SIZE]


def blob(wcs, ra, dec, sigma, scale):
    """Flux per pixel of a Gaussian of flux 1, with a width in arcsec."""
    x, y = wcs.world_to_pixel_values(ra, dec)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    square = ((columns - x) ** 2 + (rows - y) ** 2) * scale**2 / sigma**2
    return (np.exp(-square / 2) / (2 * np.pi * sigma**2) * scale**2).astype(np.float32)


def test_other_scales_and_rotations_are_resampled_and_conserve_flux(tmp_path):
    ra, dec, sigma = 150.0005, 30.0003, 1.5
    for band, scale, angle in (("i", SCALE, 0.3), ("r", 0.4, 1.0), ("g", 0.1, -0.5)):
        wcs = sky(scale=scale, angle=angle)
        light = blob(wcs, ra, dec, sigma, scale) * 10 ** (0.4 * (22.5 - 25))
        write_tile(tmp_path / f"x-{band}.fits", wcs, light, MAGZERO=22.5)
    tiles = open_tiles(str(tmp_path / "x-{band}.fits"), ["i", "r", "g"])
    model = tiles.to_dict() | {"zero_point": 25.0}
    [cut] = for_model(tiles, model, False).cuts(0, np.array([ra]), np.array([dec]), np.array([15.0]))
    expected = blob(sky(angle=0.3), ra, dec, sigma, SCALE)
    x, y = sky(angle=0.3).world_to_pixel_values(ra, dec)
    expected = Cutout2D(expected, (float(x), float(y)), 60).data
    for k, tolerance in ((0, 1e-6), (1, 0.02), (2, 0.01)):
        np.testing.assert_allclose(cut()[k], expected, atol=tolerance * expected.max())
    # Larger pixels than those of the tiles.
    coarse = for_model(tiles, model | {"scale": 0.5}, True)
    assert codes(coarse) == ["tiles-converted"]
    [cut] = coarse.cuts(0, np.array([ra]), np.array([dec]), np.array([15.0]))
    assert cut().shape == (3, 30, 30)
    np.testing.assert_allclose(cut().sum(axis=(1, 2)), 1, atol=0.01)
    np.testing.assert_allclose(cut()[:, 14:16, 14:16].sum(axis=(1, 2)), cut()[0, 14:16, 14:16].sum(), rtol=0.03)
    with pytest.raises(InputError, match=r"arcsec per pixel"):
        for_model(tiles, model | {"scale": 0.5}, False)
    with pytest.raises(InputError, match="bands"):
        for_model(tiles, model | {"bands": ["g", "r", "z"]}, False)
    assert codes(for_model(tiles, None, False)) == ["tiles-not-compared"]


def test_bad_tiles_and_sizes_have_one_clear_line(tmp_path):
    pattern = survey(tmp_path)
    for bands, given in ((["i", "z", "g"], pattern), (["i", "r"], pattern), (["i", "r", "g"], f"{tmp_path}/*.fits")):
        with pytest.raises(InputError):
            open_tiles(given, bands)
    next(tmp_path.glob("*-r_TILE0-*")).unlink()
    tiles = open_tiles(pattern, ["i", "r", "g"])
    assert (len(tiles.layers), codes(tiles)) == (3, ["tiles-incomplete"])
    frame = pl.DataFrame({"radius": [2.0, None]})
    np.testing.assert_array_equal(cutout_sizes("6 * radius", frame, "cat"), [12, np.nan])
    np.testing.assert_array_equal(cutout_sizes("0.5 arcmin", frame, "cat"), [30, 30])
    for wrong in ("40", "6 * petro", "3 kg"):
        with pytest.raises(InputError):
            cutout_sizes(wrong, frame, "cat")


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-200])


def in_b1950(path):
    with fits.open(path, mode="update") as units:
        units[0].header["RADESYS"], units[0].header["EQUINOX"] = "FK4", 1950.0


def no_tile(path):
    path.write_bytes(b"no tile")


@pytest.mark.parametrize(("kind", "damage"), [("gzip", cut_off), ("plain", in_b1950), ("plain", no_tile)])
def test_tiles_that_cannot_be_read_are_left_out_and_said(kind, damage, tmp_path, capsys):
    pattern = survey(tmp_path, kind)
    damage(next(tmp_path.glob("*-r_TILE0-*")))
    tiles = open_tiles(pattern, ["i", "r", "g"])
    assert "3 tiles from 12 files" in capsys.readouterr().err
    assert (len(tiles.layers), codes(tiles)) == (3, ["tiles-unreadable", "tiles-incomplete"])
    for one in tmp_path.glob("*-r_TILE*"):
        damage(one)
    with pytest.raises(InputError, match="-r_TILE"):
        open_tiles(pattern, ["i", "r", "g"])


def with_zero_points(folder, values):
    """A tile of three bands with these values of MAGZERO; None: it is not there."""
    for band, value in zip("irg", values, strict=True):
        header = {} if value is None else {"MAGZERO": value}
        write_tile(folder / f"{band}.fits", sky(), np.ones((SIDE, SIDE), np.float32), **header)
    return str(folder / "{band}.fits"), ["i", "r", "g"]


@pytest.mark.parametrize("values", [(25.0, None, 25.0), (25.0, 0, 25.0), (True, 25, 25), (None, None, 22.5)])
def test_zero_points_that_only_some_bands_state_are_refused(values, tmp_path):
    pattern, bands = with_zero_points(tmp_path, values)
    with pytest.raises(InputError, match="zero_point"):
        open_tiles(pattern, bands)
    assert open_tiles(pattern, bands, 22.5).zero_point == 22.5


def test_zero_points_that_only_the_model_or_only_the_tiles_state_are_said(tmp_path):
    (tmp_path / "0").mkdir()
    without = open_tiles(*with_zero_points(tmp_path / "0", (0, None, True)))
    stated = open_tiles(*with_zero_points(tmp_path, (25, 25.0, 22.5)))
    assert (without.zero_point, stated.zero_point) == (None, 25)
    with pytest.raises(InputError, match="zero_point"):
        for_model(without, stated.to_dict(), False)
    assert codes(for_model(stated, without.to_dict(), False)) == ["tiles-not-compared"]
    for one in (stated, without):
        assert not for_model(one, one.to_dict(), False).findings
