"""Time and memory of `truemorph prepare` for tables of realistic size, with three cross-matches.

    python benchmarks/preparing_speed.py [ROWS]

Made-up tables in the archives' formats: zoo2MainSpecz.csv.gz (default 240,000 rows; all 37 answers, six columns each,
as in SDSS's schema of the table), photometry.parquet (as many rows), table3.parquet of Simard et al. 2011 (1,120,000)
and a table of positions (1,120,000). Votes are joined with the photometry and table3 by id, with the positions on the
sky. Targets: 20 s and 2 GiB on two cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, ALL = 240_000, 1_120_000
ANSWERS = {
    "t01_smooth_or_features": "a01_smooth a02_features_or_disk a03_star_or_artifact",
    "t02_edgeon": "a04_yes a05_no",
    "t03_bar": "a06_bar a07_no_bar",
    "t04_spiral": "a08_spiral a09_no_spiral",
    "t05_bulge_prominence": "a10_no_bulge a11_just_noticeable a12_obvious a13_dominant",
    "t06_odd": "a14_yes a15_no",
    "t07_rounded": "a16_completely_round a17_in_between a18_cigar_shaped",
    "t08_odd_feature": "a19_ring a20_lens_or_arc a21_disturbed a22_irregular a23_other a24_merger a38_dust_lane",
    "t09_bulge_shape": "a25_rounded a26_boxy a27_no_bulge",
    "t10_arms_winding": "a28_tight a29_medium a30_loose",
    "t11_arms_number": "a31_1 a32_2 a33_3 a34_4 a36_more_than_4 a37_cant_tell",
}


def sky(rng, n):
    """Places in a patch as large as the Legacy survey's."""
    import numpy as np

    return rng.uniform(110, 260, n), np.degrees(np.arcsin(rng.uniform(0, 0.906, n)))


def votes(rng, columns, voters):
    """Six columns an answer: counts, weights, fractions, weighted and debiased fractions, flags."""
    import numpy as np

    for task, answers in ANSWERS.items():
        names = answers.split()
        shares = rng.dirichlet(np.full(len(names), 0.8), voters.size)
        if task.startswith("t01"):
            shares[:, 2] *= 0.05  # stars and artefacts are rare
            shares /= shares.sum(axis=1, keepdims=True)
        for share, name in zip(shares.T, names, strict=True):
            count = np.rint(share * voters).astype(int)
            fraction = np.round(count / voters, 3)
            stem = f"{task}_{name}_"
            columns[f"{stem}count"], columns[f"{stem}weight"] = count, np.round(count * 0.993, 3)
            columns[f"{stem}fraction"], columns[f"{stem}weighted_fraction"] = fraction, np.round(fraction * 0.998, 3)
            columns[f"{stem}debiased"] = np.round(np.clip(fraction - 0.1, 0, 1), 3)
            columns[f"{stem}flag"] = (fraction > 0.8).astype(int)


def write_tables(folder, rows):
    """The four tables, in an order of rows of their own each."""
    import gzip

    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    ids = 587722981741363200 + rng.permutation(4 * ALL)[:ALL]
    ra, dec = sky(rng, ALL)
    seen = rng.permutation(ALL)[:rows]
    voters = rng.integers(20, 60, rows)
    columns = {
        "specobjid": 299489676975171584 + np.arange(rows), "dr8objid": 1237645879551066112 + np.arange(rows),
        "dr7objid": ids[seen], "ra": ra[seen].round(6), "dec": dec[seen].round(6),
        "rastring": np.full(rows, "12:34:56.78"), "decstring": np.full(rows, "+12:34:56.7"),
        "sample": np.full(rows, "original"), "gz2class": rng.choice(["Ec", "Er", "Ei", "Sb", "Sc2m", "SBb?t"], rows),
        "total_classifications": voters, "total_votes": voters * 6,
    }  # fmt: skip
    votes(rng, columns, voters)
    text = pl.DataFrame(columns).write_csv().encode()
    (folder / "zoo2MainSpecz.csv.gz").write_bytes(gzip.compress(text, compresslevel=1))
    print(f"Votes have {rows:,} rows and {len(columns)} columns, {len(text) / 1e6:.0f} MB of text.\n", flush=True)

    alpha, fwhm = rng.lognormal(2.8, 0.45, rows), rng.normal(1.32, 0.1, rows)
    radius = alpha * fwhm / 2.3548
    bands = {f"petroMag_{band}": rng.normal(16.5, 0.8, rows) for band in "ugriz"}
    photometry = {
        "objid": ids[seen], "ra": ra[seen], "dec": dec[seen], "run": rng.integers(94, 8000, rows),
        "rerun": np.full(rows, 40), "camcol": rng.integers(1, 7, rows), "field": rng.integers(11, 900, rows),
        "petroRad_r": radius, "petroRadErr_r": radius / 20, "petroR50_r": radius / 2.5, "petroR90_r": radius / 1.2,
        **bands, "extinction_r": rng.exponential(0.08, rows), "redshift": rng.gamma(4, 0.02, rows), "psfWidth_r": fwhm,
        "psfWidth_r_best": fwhm - 0.05,
    }  # fmt: skip
    shuffled = pl.DataFrame(photometry).sample(fraction=1, shuffle=True, seed=1)
    no_redshift = rng.random(rows) < 0.02
    shuffled.with_columns(
        redshift=pl.when(pl.Series(no_redshift)).then(None).otherwise(pl.col("redshift"))
    ).write_parquet(folder / "photometry.parquet")

    half = rng.lognormal(1.4, 0.5, ALL)
    structure = {
        "objID": ids, "sersic_n": rng.uniform(0.5, 8, ALL), "ellipticity": rng.uniform(0, 0.9, ALL), "r_half": half,
        "r_half_arcsec": half / 1.8,
    }  # fmt: skip
    pl.DataFrame(structure).sample(fraction=1, shuffle=True, seed=2).write_parquet(folder / "table3.parquet")
    positions = {
        "ra": ra + rng.normal(0, 0.3, ALL) / 3600 / np.cos(np.radians(dec)),
        "dec": dec + rng.normal(0, 0.3, ALL) / 3600,
        "w1_mag": rng.normal(14, 1, ALL),
    }  # fmt: skip
    pl.DataFrame(positions).sample(fraction=1, shuffle=True, seed=3).write_parquet(folder / "positions.parquet")


def own_process(*arguments, shown=True):
    """Peak memory in GiB and seconds of a command.

    What a process starts as counts too, so this one keeps small: it imports nothing of size.
    """
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=None if shown else subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed")
    return usage.ru_maxrss / 2**20, time.perf_counter() - began


def main(rows=ROWS):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own_process(__file__, "--write", folder, rows)
        prepare = [
            *(
                "-m",
                "truemorph.cli",
                "prepare",
                folder / "zoo2MainSpecz.csv.gz",
                "--join",
                folder / "photometry.parquet",
            ),
            *("--join", f"{folder / 'table3.parquet'}=objID", "--match", folder / "positions.parquet", "--within", 2),
            *("--out", folder / "catalogue.parquet"),
        ]
        peak, seconds = own_process(*prepare, shown=False)
        print("| | seconds | peak memory, GiB |\n|---|---|---|")
        print(f"| `truemorph prepare` with three cross-matches | {seconds:.0f} | {peak:.1f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_tables(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
