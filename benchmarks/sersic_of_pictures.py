"""Sérsic indices measured on colour JPEGs, simulated and real: a table of docs/report.md.

    python benchmarks/sersic_of_pictures.py DATA

Real images: the clearest smooth and disk galaxies (votes above 0.9) of the Galaxy Zoo challenge in DATA, with radii
estimated from the images and a PSF of 1.32 arcsec.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from scipy.stats import ks_2samp

import truemorph as tm
from truemorph.simulate import FIELD_R90, simulate_galaxies, write_jpegs

SIDE, EACH, PSF = 424, 40, 1.32  # pixels, galaxies of a class, FWHM in arcsec


def indices(paths, fwhm, r90):
    """Sérsic indices of those that could be measured, NaN for others."""
    sigma = np.asarray(fwhm / 2.3548 / (FIELD_R90 * r90 / SIDE))
    return tm.measure_sersic(paths, sigma)["sersic_n"].fill_null(np.nan).to_numpy()


def simulated():
    galaxies = simulate_galaxies(9000, seed=5)
    plain = (pl.col("bulge_fraction") < 0.03) & (pl.col("bar_fraction") == 0) & (pl.col("ring_strength") == 0)
    for name, chosen in (("ellipticals", pl.col("bulge_fraction") == 1), ("disks without bars and rings", plain)):
        some = galaxies.filter(chosen).head(EACH)
        with TemporaryDirectory() as folder:
            paths = write_jpegs(some, Path(folder), SIDE, seed=1, field=FIELD_R90, quality=90)
            found = indices(paths, some["psf_fwhm"], some["r90"])
        truth = some["sersic_index"].to_numpy() if name == "ellipticals" else 1.0
        yield f"simulated {name}, n over truth", found / truth


def real(data):
    votes = pl.read_csv(data / "gz2_challenge_images.csv")
    for name, column in (("smooth", "Class1.1"), ("disk", "Class1.2")):
        some = votes.filter((pl.col(column) > 0.9) & pl.col("petroR90_est").is_not_null()).head(EACH)
        paths = [data / one for one in some["image"]]
        yield f"Galaxy Zoo challenge, {name}, n", indices(paths, PSF, some["petroR90_est"])


def main(data):
    found = dict([*simulated(), *real(Path(data))])
    print("| JPEGs of 424 pixels | median | 10 to 90 % | measured |\n|---|---|---|---|")
    for name, values in found.items():
        low, middle, high = np.nanpercentile(values, [10, 50, 90])
        measured = np.isfinite(values).sum()
        print(f"| {name} | {middle:.2f} | {low:.2f} to {high:.2f} | {measured} of {values.size} |")
    smooth, disk = (values[np.isfinite(values)] for name, values in found.items() if name.startswith("Galaxy Zoo"))
    rng, both = np.random.default_rng(0), np.concatenate([smooth, disk])
    mixed = [np.split(rng.permutation(both), [smooth.size]) for _ in range(500)]
    distance, chance = ks_2samp(smooth, disk).statistic, np.mean([ks_2samp(*two).statistic for two in mixed])
    print(f"\nKolmogorov-Smirnov distance of the last two rows: {distance:.2f} (by chance {chance:.2f}).")


if __name__ == "__main__":
    main(*sys.argv[1:])
