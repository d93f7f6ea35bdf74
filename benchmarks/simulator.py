"""Simulated and real Galaxy Zoo 2 images: the numbers of docs/simulator.md, a contact sheet, and speed.

    python benchmarks/simulator.py compare [SHEET.png] | speed

Real images: the 246 random ones of ../shared/data/gz2_challenge_images, if they exist. The sheet shows real and
simulated galaxies in alternate rows; it contains real images, so do not publish it.
"""

import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from truemorph.images.shapes import measure_shapes
from truemorph.images.stretch import unstretch
from truemorph.simulate import CENTRAL_R90, FIELD_R90, render, simulate_galaxies

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


def profile(image):
    """Median red, green, blue in rings; median and half spread of the sky."""
    side = image.shape[0]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius = np.hypot(x, y) / (side / FIELD_R90)
    rings = [np.median(image[(radius >= r) & (radius < r + 0.08)], axis=0) for r in RADII]
    sky = np.percentile(image[radius > 2.6], [16, 50, 84], axis=0)
    return np.array([*rings, sky[1], (sky[2] - sky[0]) / 2])


def growth(image):
    """R_petro, R50 and R90 in units of R90, after undoing the stretch."""
    light = unstretch(image).mean(axis=0)
    side = light.shape[0]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius = np.hypot(x, y) / (side / FIELD_R90)
    sky = np.median(light[(radius > 2.8) & (radius < 3.8)])
    edges = np.arange(0, 2.6, 0.05)
    rings = [light[(radius >= a) & (radius < a + 0.05)] for a in edges]
    # Stars in a ring are clipped.
    mean = np.array([np.minimum(ring, np.percentile(ring, 97)).mean() for ring in rings]) - sky
    middle = edges + 0.025
    inside = np.cumsum(mean * 2 * np.pi * middle * 0.05)
    petrosian = middle[np.argmax(mean / (inside / (np.pi * (middle + 0.025) ** 2)) < 0.2)]
    total = np.interp(2 * petrosian, middle, inside)
    return petrosian, np.interp(0.5 * total, inside, middle), np.interp(0.9 * total, inside, middle)


def compare(sets):
    counted = (f"{name} ({len(images)})" for name, images in sets.items())
    print("| brightness (0-255), median over galaxies | " + " | ".join(counted) + " |")
    print("|---" * (len(sets) + 1) + "|")
    profiles = {name: np.median([profile(image) for image in images], axis=0) for name, images in sets.items()}
    labels = [f"at {r} R90" for r in RADII] + ["sky", "sky noise"]
    for k, label in enumerate(labels):
        cells = [
            ", ".join(f"{value:.0f}" if k < 8 else f"{value:.1f}" for value in one[k]) for one in profiles.values()
        ]
        print(f"| {label} (red, green, blue) | " + " | ".join(cells) + " |")
    radii = {name: np.array([growth(image) for image in images]) for name, images in sets.items()}
    for k, label in enumerate(("R_petro", "R50", "R90")):
        cells = [", ".join(f"{v:.2f}" for v in np.percentile(one[:, k], [10, 50, 90])) for one in radii.values()]
        print(f"| {label} measured on the image / R90 (10, 50, 90 %) | " + " | ".join(cells) + " |")
    cells = [
        ", ".join(f"{v:.2f}" for v in np.percentile(one[:, 2] / one[:, 1], [10, 50, 90])) for one in radii.values()
    ]
    print("| R90 / R50 | " + " | ".join(cells) + " |")
    shapes = {name: measure_shapes(np.stack([_central(image) for image in images])) for name, images in sets.items()}
    shown = {"axis_ratio": "axis ratio", "colour": "red / blue light (log10)", "contrast": "contrast of structure"}
    for column, name in shown.items():
        cells = [", ".join(f"{v:.2f}" for v in np.percentile(shape[column], [10, 50, 90])) for shape in shapes.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _central(image):
    side = image.shape[0]
    keep = round(side * 207 / 424)
    start = (side - keep) // 2
    crop = Image.fromarray(image[start : start + keep, start : start + keep])
    return np.asarray(crop.resize((64, 64), Image.Resampling.BILINEAR))


def sheet(sets, path, across=8, down=3, side=160):
    out = Image.new("RGB", (across * side, 2 * down * side))
    for offset, images in enumerate(sets.values()):
        for i, image in enumerate(images[: across * down]):
            place = ((i % across) * side, (2 * (i // across) + offset) * side)
            out.paste(Image.fromarray(image).resize((side, side)), place)
    out.save(path)


def speed():
    galaxies = simulate_galaxies(400, seed=7)
    print("| | images a second |\n|---|---|")
    for size, field, what in (
        (128, FIELD_R90, "whole cutout"),
        (64, CENTRAL_R90, "central crop"),
        (424, FIELD_R90, "whole"),
    ):
        some = galaxies[: 400 if size < 400 else 80]
        began = time.perf_counter()
        for _ in render(some, size, 1, field=field):
            pass
        print(f"| {size} pixels, {what} | {some.height / (time.perf_counter() - began):.0f} |")


def comparison(path=None):
    simulated = [image for _, image in render(simulate_galaxies(246, seed=5), 424, 1, field=FIELD_R90)]
    pictures = {"simulated": simulated}
    if DATA.is_dir():
        table = pl.read_csv(DATA / "gz2_challenge_images.csv").filter(pl.col("selection") == "unselected")
        real = [np.asarray(Image.open(DATA / name).convert("RGB")) for name in table["image"]]
        pictures = {"real": real, **pictures}
    compare(pictures)
    if path is not None:
        sheet(pictures, path)


if __name__ == "__main__":
    {"compare": comparison, "speed": speed}[sys.argv[1]](*sys.argv[2:])
