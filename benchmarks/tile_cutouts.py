"""Cut-outs of survey tiles beside astropy's Cutout2D and cutana: rates, memory, equality; and labels from tiles.

    python benchmarks/tile_cutouts.py [FOLDER]

FOLDER (a temporary one if not given) gets 20 overlapping simulated tiles in three bands (17 plain, two RICE- and one
gzip-compressed) with 10,000 galaxies, 1.5 GB. Each method runs in a process of its own, with one thread. Then a network
is trained on cut-outs of all galaxies (`prepare --tiles`), and labels them from tiles; the process is killed twice and
started again; labels are compared with those of stored cut-outs. cutana is left out if it is not installed.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import polars as pl
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from truemorph.bias.curves.formulas import RayleighTransition
from truemorph.config import TrainingConfig
from truemorph.images.decode import cropped_and_resized, fits_picture
from truemorph.images.tiles import open_tiles
from truemorph.simulate import vote_fractions

SCALE, SIDE, OVERLAP, COLUMNS, TILES = 0.262, 2400, 120, 5, 20
BANDS, N, COMPARED, WIDTH = ("i", "r", "g"), 10_000, 2_000, "40arcsec"
SIZE = "8 * radius"
STEP = (SIDE - OVERLAP) * SCALE / 3600
PATTERN = "survey-{band}-*.fits*"


def sky(k):
    wcs = WCS(naxis=2)
    dec = 30 + STEP * (k // COLUMNS)
    wcs.wcs.ctype, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [SIDE / 2 + 0.5] * 2
    wcs.wcs.crval, wcs.wcs.cdelt = (
        [150 - STEP * (k % COLUMNS) / np.cos(np.radians(30)), dec],
        [-SCALE / 3600, SCALE / 3600],
    )
    return wcs


def simulate(folder):
    """Disks and bulges in noise; a PSF per tile; votes of biased volunteers."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(
        -SIDE / 2, SIDE / 2 + (SIDE - OVERLAP) * np.array([[COLUMNS - 1], [TILES // COLUMNS - 1]]), (2, N)
    )
    ra, dec = 150 - x * SCALE / 3600 / np.cos(np.radians(30)), 30 + y * SCALE / 3600
    truth, radius = (rng.random(N) < 0.6).astype(int), rng.uniform(1.2, 3, N)
    psf = pl.DataFrame(
        {"ra": [sky(k).wcs.crval[0] for k in range(TILES)], "dec": [sky(k).wcs.crval[1] for k in range(TILES)]}
    )
    psf = psf.with_columns(fwhm=rng.uniform(0.8, 1.4, TILES))
    psf.write_csv(folder / "psf.csv")
    flux, axis, angle = rng.lognormal(5, 0.5, N), rng.uniform(0.3, 1, N), rng.uniform(0, np.pi, N)
    for k in range(TILES):
        px, py = sky(k).world_to_pixel_values(ra, dec)
        near = np.flatnonzero((px > -30) & (px < SIDE + 30) & (py > -30) & (py < SIDE + 30))
        for band, colour in zip(BANDS, (1.2, 1.0, 0.7), strict=True):
            image = rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
            for row in near:
                left, low = (max(0, int(p) - 40) for p in (px[row], py[row]))
                rows, columns = np.mgrid[low : min(low + 80, SIDE), left : min(left + 80, SIDE)]
                dx, dy = columns - px[row], rows - py[row]
                along, across = (
                    dx * np.cos(angle[row]) + dy * np.sin(angle[row]),
                    dy * np.cos(angle[row]) - dx * np.sin(angle[row]),
                )
                far = np.hypot(along, across / axis[row]) * SCALE / (radius[row] / 3)
                light = (
                    np.exp(-far) * (1 + 0.5 * truth[row] * np.cos(3 * far)) if truth[row] else np.exp(-2 * np.sqrt(far))
                )
                image[low : low + 80, left : left + 80] += flux[row] / 10 * colour ** (1 + truth[row]) * light
            head = sky(k).to_header()
            head["MAGZERO"] = 25.0
            name = folder / f"survey-{band}-{k:02d}.fits"
            if k in (17, 18):
                unit = fits.CompImageHDU(image, head, compression_type="RICE_1", quantize_level=16)
                fits.HDUList([fits.PrimaryHDU(), unit]).writeto(f"{name}.fz")
            else:
                fits.PrimaryHDU(image, head).writeto(f"{name}.gz" if k == 19 else name)
    table = pl.DataFrame({"id": range(N), "ra": ra, "dec": dec, "radius": radius, "truth": truth})
    nearest = [int(one) for one in open_tiles(str(folder / PATTERN), ["r"]).assign(ra, dec)]
    alpha = radius / psf["fwhm"].to_numpy()[nearest] * 2.3548
    smooth, disk = vote_fractions(truth, alpha, RayleighTransition(3.0), seed=1)
    table.with_columns(smooth=smooth, disk=disk).write_parquet(folder / "votes.parquet")


def chosen(folder):
    """Sources in the first plain tiles, of which none crosses an edge."""
    tiles = open_tiles(str(folder / PATTERN), BANDS)
    frame = pl.read_parquet(folder / "votes.parquet")
    ra, dec = frame["ra"].to_numpy(), frame["dec"].to_numpy()
    tile = tiles.assign(ra, dec)
    rows = []
    for k in range(8):
        own = np.flatnonzero(tile == k)
        x, y = tiles.layers[k][0].pixels(ra[own], dec[own])
        rows.append(own[(np.minimum(x, y) > 90) & (np.maximum(x, y) < SIDE - 90)])
    rows = np.concatenate(rows)[:COMPARED]
    return tiles, ra[rows], dec[rows], tile[rows]


def by_truemorph(folder, out, pixels=False):
    tiles, ra, dec, tile = chosen(folder)
    config, kept, begun = TrainingConfig(image_size=64, crop=1.0), 0, time.process_time()
    for k in np.unique(tile):
        rows = tile == k
        for values in (cut() for cut in tiles.cuts(k, ra[rows], dec[rows], np.full(rows.sum(), 40.0))):
            if pixels:
                cropped_and_resized(fits_picture(values, config), 64, 1.0, "")
            elif kept < len(out):
                out[kept] = values
                kept += 1
    return time.process_time() - begun


def by_pixels(folder, out):
    return by_truemorph(folder, out, pixels=True)


def by_cutout2d(folder, out):
    tiles, ra, dec, tile = chosen(folder)
    places, kept, begun = SkyCoord(ra, dec, unit="deg"), 0, time.process_time()
    for k in np.unique(tile):
        planes = [layer.read() for layer in tiles.layers[k]]
        for row in np.flatnonzero(tile == k):
            both = zip(planes, tiles.layers[k], strict=True)
            made = [Cutout2D(plane, places[row], 153, one.wcs).data for plane, one in both]
            if kept < len(out):
                out[kept] = made
                kept += 1
        del planes, made  # views of them
    return time.process_time() - begun


def by_cutana(folder, out):
    import pandas as pd
    from cutana import create_cutouts_direct, get_default_config

    tiles, ra, dec, tile = chosen(folder)
    files = [str([str(layer.file) for layer in layers]) for layers in tiles.layers]
    table = {"SourceID": [str(k) for k in range(len(ra))], "RA": ra, "Dec": dec, "diameter_pixel": 153}
    config = get_default_config()
    config.target_resolution, config.normalisation_method, config.apply_flux_conversion = 153, "none", False
    config.selected_extensions = [{"name": f"survey-{band}", "ext": "PRIMARY"} for band in BANDS]
    config.channel_weights = {f"survey-{band}": np.eye(3)[k].tolist() for k, band in enumerate(BANDS)}
    begun = time.process_time()
    batches = create_cutouts_direct(pd.DataFrame(table | {"fits_file_paths": [files[k] for k in tile]}), config, 1)
    seconds = time.process_time() - begun
    for batch in batches:
        for values, about in zip(batch["cutouts"], batch["metadata"], strict=True):
            if int(about["source_id"]) < len(out):
                out[int(about["source_id"])] = np.moveaxis(values, -1, 0)
    return seconds


METHODS = {
    "Cutout2D": ("`Cutout2D`, tile read once", by_cutout2d),
    "cut": ("truemorph, cut out", by_truemorph),
    "pixels": ("truemorph, cut out, stretched and resized", by_pixels),
    "cutana": ("cutana, same size, no stretch", by_cutana),
}


def memory(key):
    """Resident memory in MiB: VmRSS now, VmHWM at most."""
    line = next(
        splitline for splitline in Path("/proc/self/status").read_text().splitlines() if splitline.startswith(key)
    )
    return int(line.split()[1]) / 1024


def one_method(folder, name):
    out = np.full((500, 3, 153, 153), np.nan, np.float32)
    before = memory("VmRSS")
    seconds = METHODS[name][1](folder, out)
    np.save(folder / f"{name}.npy", out)
    print(json.dumps({"rate": COMPARED / seconds, "megabytes": memory("VmHWM") - before}))


def compare(folder):
    size = 3 * SIDE**2 * 4 / 2**20
    print(f"{COMPARED:,} cut-outs of 153 × 153 pixels in three bands; a tile of three bands has {size:.0f} MiB.\n")
    print("| | cut-outs per core second | memory above the start | pixels equal to Cutout2D |\n|---|---|---|---|")
    reference = None
    for name, (title, _) in METHODS.items():
        if name == "cutana" and importlib.util.find_spec("cutana") is None:
            print("cutana is not installed: left out", file=sys.stderr)
            continue
        done = subprocess.run([sys.executable, __file__, str(folder), "--method", name], capture_output=True, text=True)
        if done.returncode:
            print(f"{name}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        cuts = np.load(folder / f"{name}.npy")
        reference = cuts if reference is None else reference
        equal, told = sum(map(np.array_equal, cuts, reference)), ""
        if not np.isnan(cuts).all():
            told = f"{equal} of {len(cuts)}"
            inner = reference[:, :, 2:-2, 2:-2]
            moved = [np.roll(cuts, (a - 1, b - 1), (2, 3))[:, :, 2:-2, 2:-2] for a, b in np.ndindex(3, 3)]
            shifted = sum(any(np.array_equal(some[k], inner[k]) for some in moved) for k in range(len(cuts)))
            told += f"; {shifted - equal} others after a shift by one pixel" if shifted > equal else ""
        print(f"| {title} | {found['rate']:,.0f} | {found['megabytes']:.0f} MiB | {told} |", flush=True)


def command(*given, parts=None):
    """Run truemorph; kill it when it has written so many parts, and return False."""
    process = subprocess.Popen([sys.executable, "-m", "truemorph.cli", *map(str, given)], stdout=sys.stderr)
    while process.poll() is None:
        if parts is not None and len(list(given[-1].glob("survey*.parquet"))) >= parts:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
        time.sleep(0.05)
    assert process.returncode == 0
    return True


def label(folder):
    pattern = folder / PATTERN
    columns = ("--id", "id", "--smooth", "smooth", "--disk", "disk", "--radius", "radius", "--psf-fwhm", "fwhm")
    columns += ("--nearest", folder / "psf.csv")
    survey = ("--tiles", pattern, "--bands", "i,r,g", "--size", SIZE)
    command("prepare", folder / "votes.parquet", *columns, *survey, "--out", folder / "all.parquet")
    settings = ("--preset", "quick", "--epochs", "2", "--folds", "1", "--crop", "1.0", "--transition", "rayleigh:3")
    command("train", folder / "all.parquet", *settings, "--out", folder / "model")
    command("label", folder / "model", folder / "all.parquet", "--out", folder / "stored.parquet")
    parts, of_tiles = [], ("label", folder / "model", folder / "all.parquet", "--tiles", pattern, "--out")
    while not command(*of_tiles, folder / "tiled", parts=(4, 12, None)[len(parts)]):
        parts.append(len(list((folder / "tiled").glob("survey*.parquet"))))
    tiled = pl.read_parquet(folder / "tiled" / "*.parquet").sort("object_id")
    stored = pl.read_parquet(folder / "stored.parquet").sort("object_id")
    same = tiled.select("object_id", "label", "relation").equals(stored.select("object_id", "label", "relation"))
    far = (tiled["p_disk"] - stored["p_disk"]).abs().max()
    listed = ("tiled/problems.csv", "all.cutouts/problems.csv")
    problems, others = (pl.read_csv(folder / one).sort("object_id") for one in listed)
    lists = "the same" if problems.equals(others) else "different"
    print(
        f"\nOf {N:,} galaxies {tiled.height:,} were labelled from {TILES} tiles; the process was killed after "
        f"{parts[0]} and {parts[1]} tiles, and started again. Labels are {'' if same else 'not '}those of stored "
        f"cut-outs (`prepare --tiles`), p(disk) differs by {far:.1g} at most, and the lists of the {problems.height} "
        f"others are {lists}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--method")
    given = parser.parse_args()
    if given.folder is None:
        with tempfile.TemporaryDirectory() as name:
            return run(Path(name))
    folder = given.folder.resolve()
    if given.method:
        return one_method(folder, given.method)
    return run(folder)


def run(folder):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "votes.parquet").is_file():
        simulate(folder)
    compare(folder)
    label(folder)


if __name__ == "__main__":
    main()
