"""Sérsic fits to images with known profiles."""

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from scipy import signal, special

from truemorph.errors import InputError
from truemorph.images.sersic import measure_sersic
from truemorph.images.stretch import stretch
from truemorph.simulate import simulate_galaxies, write_jpegs
from truemorph.simulate.pictures import FIELD_R90

pytest.importorskip("photutils", reason='measuring Sérsic profiles needs pip install "truemorph[morphology]"')

MARGIN, FINE = 16, 5


def light(index, radius=6.0, ratio=0.7, angle=0.5, side=64, sigma=1.5, total=30_000.0, noise=1.0, seed=0):
    """A Sérsic profile from scipy's special functions, on a fine grid beyond the image, convolved with a Moffat."""
    axis = (np.arange((side + 2 * MARGIN) * FINE) + 0.5) / FINE - side / 2 - MARGIN
    x, y = axis[None, :], axis[:, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    b = special.gammaincinv(2 * index, 0.5)
    values = np.exp(-b * (np.hypot(along, across / ratio) / radius) ** (1 / index))
    area = 2 * np.pi * index * special.gamma(2 * index) * b ** (-2 * index) * radius**2 * ratio
    steps = np.arange(-axis.size // 2 + 1, axis.size // 2) / FINE
    core = 2.3548 * sigma / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    psf = (1 + (steps[None, :] ** 2 + steps[:, None] ** 2) / core**2) ** -3.5
    blurred = signal.fftconvolve(values, psf / psf.sum(), mode="same")
    image = blurred.reshape(side + 2 * MARGIN, FINE, -1, FINE).mean(axis=(1, 3))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return total / area * image + np.random.default_rng(seed).normal(0, noise, (side, side))


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
def test_known_profiles_are_recovered_within_their_errors(index):
    found = measure_sersic([light(index, seed=seed) + 20 for seed in range(8)], 1.5, jobs=1)
    assert found["flag"].to_list() == [0] * 8
    n, stderr = found["sersic_n"].to_numpy(), found["sersic_n_stderr"].to_numpy()
    assert np.all(np.abs(n - index) < 4 * stderr)
    # Sub-pixels of 1/5 in the image and 1/7 in the fit leave 1 % in the cusp of n = 4.
    assert n.mean() == pytest.approx(index, abs=4 * stderr.mean() / np.sqrt(8) + 0.01 * index)
    assert stderr.max() < 0.05 * index
    np.testing.assert_allclose(found["sersic_rhalf"], 6.0, rtol=0.06)
    np.testing.assert_allclose(found["sersic_ellipticity"], 0.3, atol=0.02)


def test_neighbours_and_unknown_pixels_are_masked():
    x = np.arange(64) - 48.0
    neighbour = 150 * np.exp(-0.5 * (x[None, :] ** 2 + (x[:, None] - 2) ** 2) / 2**2)
    holes = light(2.5)
    holes[30:34, 36:40] = np.nan
    plain, beside, with_holes = measure_sersic([light(2.5), light(2.5) + neighbour, holes], 1.5, jobs=1)["sersic_n"]
    assert [beside, with_holes] == pytest.approx([plain, plain], rel=0.05)


def test_images_that_cannot_be_measured_are_listed_and_doubtful_fits_flagged(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    sky = np.random.default_rng(0).normal(0, 1, (64, 64))
    burnt = light(1.0)
    burnt[28:36, 28:36] = np.nan
    cases = [
        (0, light(1.0), ""),
        (1, light(1.0, radius=30.0, ratio=1.0, total=600_000.0), "has no sky"),
        (1, light(1.0, radius=0.3, total=3_000.0), "smaller than the PSF"),
        (1, burnt, "not finite"),
        (2, np.full((64, 64), np.nan), "not finite"),
        (2, np.zeros((64, 64)), "no source"),
        (2, np.roll(light(1.0, noise=0), 24, axis=1) + sky, "at the centre"),
        (2, np.zeros((64, 64), np.uint8), "uint8"),
        (2, tmp_path / "broken.jpg", "not a readable image"),
        (2, tmp_path / "none.jpg", "No such file"),
        (2, np.ones((8, 8)), "8 pixels"),
    ]
    found = measure_sersic([image for _, image, _ in cases], 1.5, jobs=1)
    for (flag, _, words), row in zip(cases, found.iter_rows(named=True), strict=True):
        assert row["flag"] == flag
        assert words in (row["problem"] or "")
        assert (row["sersic_n"] is None) == (flag == 2)
    assert "0 or more; got -1.0" in measure_sersic([burnt], -1.0, jobs=1)["problem"].item()
    with pytest.raises(InputError, match=r"shape \(2,\) for 1 images"):
        measure_sersic([burnt], [1.0, 2.0])
    with pytest.raises(InputError, match=r"got shape \(64, 64\)"):
        measure_sersic(burnt)


def test_colour_images_fits_and_arrays_give_the_same_galaxy(tmp_path):
    image = light(2.0, total=30.0, noise=0.003)
    fits.writeto(tmp_path / "one.fits", image)
    picture = stretch(np.repeat(image[None].astype(np.float32), 3, axis=0))
    linear, from_file = measure_sersic([image, tmp_path / "one.fits"], 1.5, jobs=1)["sersic_n"]
    assert from_file == linear
    undone = measure_sersic(picture[None], 1.5, jobs=1)
    assert undone["sersic_n"].item() == pytest.approx(linear, abs=4 * undone["sersic_n_stderr"].item())


def test_large_images_are_binned():
    large = light(2.0, radius=18.0, sigma=4.5, side=192, total=270_000.0)
    found = measure_sersic([large], 4.5, jobs=1)
    assert found["sersic_n"].item() == pytest.approx(2, abs=4 * found["sersic_n_stderr"].item())
    assert found["sersic_rhalf"].item() == pytest.approx(18, rel=0.03)


def test_indices_of_simulated_galaxies_are_recovered_from_jpegs(tmp_path):
    galaxies = simulate_galaxies(1500, seed=5)
    elliptical = galaxies.filter(pl.col("bulge_fraction") == 1).head(6)
    plain = (pl.col("bulge_fraction") < 0.03) & (pl.col("bar_fraction") == 0) & (pl.col("ring_strength") == 0)
    chosen = pl.concat([elliptical, galaxies.filter(plain).head(6)])
    paths = write_jpegs(chosen, tmp_path, 160, seed=1, field=FIELD_R90, quality=90)
    sigma = chosen["psf_fwhm"] / 2.3548 / (FIELD_R90 * chosen["r90"] / 160)
    found = measure_sersic(paths, sigma, jobs=1)
    assert found["object_id"].to_list() == [str(path) for path in paths]
    ratio = found["sersic_n"].to_numpy() / np.append(elliptical["sersic_index"], np.ones(6))
    # With arms, neighbours, colours and JPEG: 0.9 ± 0.07 of n for ellipticals and 1.0 ± 0.07 for disks.
    assert np.abs(np.median(ratio) - 1) < 0.15
    assert found["sersic_n"][:6].median() > 2 * found["sersic_n"][6:].median()


@pytest.mark.slow
def test_the_number_of_processes_has_no_effect():
    images = [light(1.0, seed=seed) for seed in range(5)]  # two tasks
    assert measure_sersic(images, 1.5, jobs=2).equals(measure_sersic(images, 1.5, jobs=1))
