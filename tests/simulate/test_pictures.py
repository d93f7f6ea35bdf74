"""Rendered images: flux, PSF, noise and seeds."""

import numpy as np
import polars as pl
import pytest
import simplejpeg

from truemorph import degrade
from truemorph.errors import InputError
from truemorph.images.degrade import moffat_transfer
from truemorph.images.stretch import unstretch
from truemorph.simulate.pictures import CENTRAL_R90, FIELD_R90, components, render, write_jpegs
from truemorph.simulate.population import at_resolution, simulate_galaxies


def pictures(galaxies, size=64, seed=2, **options):
    return np.stack([image for _, image in render(galaxies, size, seed, **options)])


@pytest.fixture(scope="module")
def galaxies():
    return simulate_galaxies(24, seed=6)


def test_the_same_seed_gives_the_same_bytes(galaxies):
    alone = pictures(galaxies)
    np.testing.assert_array_equal(alone[7:11], pictures(galaxies[7:11]))  # independent of other galaxies
    assert (pictures(galaxies[:4], seed=3) != alone[:4]).any(axis=(1, 2, 3)).all()


def test_another_exposure_only_changes_the_noise(galaxies):
    first, second = pictures(galaxies[:6]), pictures(galaxies[:6], exposure=1)
    assert (first != second).any(axis=(1, 2, 3)).all()
    # Averaged over 8 × 8 pixels, the noise is small and the galaxies are the same, except at edges.
    coarse = [p.reshape(6, 8, 8, 8, 8, 3).mean(axis=(2, 4)) for p in (first.astype(float), second.astype(float))]
    assert np.quantile(np.abs(coarse[0] - coarse[1]), 0.99) < 8
    assert np.corrcoef(coarse[0].ravel(), coarse[1].ravel())[0, 1] > 0.995


@pytest.mark.slow
def test_the_components_of_a_galaxy_sum_to_its_flux():
    for row in simulate_galaxies(40, seed=8).iter_rows(named=True):
        galaxy = {name: value for name, value in row.items() if not isinstance(value, str)}
        side, n = 14 * galaxy["r90"], 500
        axis = ((np.arange(n) - (n - 1) / 2) * side / n).astype(np.float32)
        parts = components(galaxy, axis, side / n, np.random.default_rng(0))
        assert all(np.all(part >= 0) for part in parts)
        total = sum(part.sum() for part in parts) * (side / n) ** 2
        # Dust absorbs some flux; Sérsic wings outside of the frame are missing.
        assert 0.8 - 0.4 * galaxy["dust"] * (galaxy["axis_ratio"] < 0.35) < total < 1.03


def test_moffat_transfer_is_the_fourier_transform_of_a_moffat():
    n, pixel, fwhm = 512, 0.1, 1.3
    radius = fwhm / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    offset = np.fft.fftfreq(n, 1 / n) * pixel
    squared = offset[:, None] ** 2 + offset[None, :] ** 2
    kernel = (1 + squared / radius**2) ** -3.5
    transfer = np.abs(np.fft.fft2(kernel / kernel.sum()))
    frequency = np.fft.fftfreq(n, pixel)
    nu2 = frequency[:, None] ** 2 + frequency[None, :] ** 2
    low = nu2 < 4
    np.testing.assert_allclose(moffat_transfer(nu2[low], fwhm), transfer[low], atol=2e-3)


def test_noise_is_that_of_interpolated_frames():
    far = simulate_galaxies(60, seed=3).filter(pl.col("r90") < 9)[:12].with_columns(magnitude=pl.lit(30.0))
    ratios = []
    for size in (64, 256):
        for row, image in render(far, size, seed=1, field=FIELD_R90):
            light = unstretch(image)
            pixel = FIELD_R90 * far["r90"][row] / size
            # White noise of unit variance after linear interpolation has 2/3 of the variance per axis, if image pixels
            # are much smaller; if they are larger, it is averaged over the image pixel.
            fine = 2 / 3 if pixel < 0.2 else (0.396 / pixel if pixel > 0.6 else None)
            if fine is None:
                continue
            upper = np.percentile(light[1], 84.13) - np.median(light[1])  # images are black below zero
            ratios.append(np.log(upper / (0.011 * fine)))
    # The depth of fields scatters by 0.12; rounding to grey levels of a quarter of the noise adds little.
    assert len(ratios) >= 8
    assert abs(np.mean(ratios)) < 4.5 * 0.12 / np.sqrt(len(ratios)) + 0.05


@pytest.mark.parametrize("how", ["seeing", "distance"])
def test_galaxies_at_another_resolution_have_that_resolution(galaxies, how):
    lower = galaxies["alpha"].to_numpy() / 1.7
    twins = at_resolution(galaxies, lower, how)
    np.testing.assert_allclose(twins["radius"] / twins["psf_fwhm"] * 2.3548200450309493, lower, rtol=1e-6)
    assert twins["radius_kpc"].equals(galaxies["radius_kpc"])
    if how == "distance":
        # Inverse square law at constant surface brightness.
        area = (twins["r90"] / galaxies["r90"]).to_numpy() ** 2
        np.testing.assert_allclose(10 ** (-0.4 * (twins["magnitude"] - galaxies["magnitude"]).to_numpy()), area)
        np.testing.assert_allclose(twins["r90"] / twins["radius"], galaxies["r90"] / galaxies["radius"])


def test_invalid_sizes_and_resolutions_raise_errors(galaxies):
    with pytest.raises(InputError, match="at least 16"):
        next(render(galaxies, size=8))
    with pytest.raises(InputError, match="24 positive numbers"):
        at_resolution(galaxies, np.array([1.0]))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["seeing", "distance"])
def test_degrading_an_image_equals_rendering_the_galaxy_again(how):
    """Two ways to a lower α: blurring the light before the camera, and degrading the final image."""
    sharp = simulate_galaxies(2500, seed=12).filter((pl.col("alpha") > 30) & (pl.col("r90") < 30))[:40]
    lower = np.full(sharp.height, 9.0)
    images = pictures(sharp, 96)
    # Saturated light can't be recovered.
    kept = images[:, 24:72, 24:72].max(axis=(1, 2, 3)) < 255
    assert kept.sum() >= 10
    sharp, images, lower = sharp.filter(pl.Series(kept)), images[kept], lower[kept]
    radius = (sharp["radius"] / sharp["r90"]).to_numpy() * 96 / CENTRAL_R90
    degraded = degrade(images, sharp["alpha"].to_numpy(), lower, radius, how=how).astype(float)
    drawn = pictures(at_resolution(sharp, lower, how), 96, exposure=1).astype(float)

    def coarse(images):  # 4 × 4 pixels, so that noise averages out
        return images[:, 32:64, 32:64].reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4))

    def away(one, other):
        return np.abs(coarse(one) - coarse(other)).mean(axis=(1, 2, 3))

    to_drawn, to_sharp = away(degraded, drawn), away(images.astype(float), drawn)
    # A more distant galaxy has other stars around it.
    assert np.median(to_drawn) < (0.35 if how == "seeing" else 0.65) * np.median(to_sharp)
    # The peak, which blurring changes most, agrees within 5 % in stretched brightness.
    peaks = [p[:, 46:50, 46:50].mean(axis=(1, 2, 3)) for p in (degraded, drawn)]
    np.testing.assert_allclose(np.median(peaks[0] / peaks[1]), 1, atol=0.05)


def test_files_have_the_images(tmp_path):
    galaxies = simulate_galaxies(3, seed=2)
    paths = write_jpegs(galaxies, tmp_path / "images", seed=5)
    assert [path.stem for path in paths] == [str(one) for one in galaxies["object_id"]]
    for path, (_, image) in zip(paths, render(galaxies, 424, 5, field=FIELD_R90), strict=True):
        height, width, _, sampling = simplejpeg.decode_jpeg_header(path.read_bytes())
        assert (height, width, sampling) == (424, 424, "420")  # as in Galaxy Zoo 2
        back = simplejpeg.decode_jpeg(path.read_bytes(), colorspace="RGB").astype(float)
        assert np.abs(back - image).mean() < 4
