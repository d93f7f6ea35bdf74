"""Speed of statistics and decoding, relative to a plain implementation: python benchmarks/statistics_speed.py

Each pair is timed in turn, A B A B …; shown are medians of CPU seconds, and of their ratios. First calls count.
"""

import io
import itertools
import time

import numpy as np
import simplejpeg
from PIL import Image

from truemorph.bias.metrics.label_bias import cv18
from truemorph.images.decode import decode

ROWS, DEPTH, BINS, RESAMPLES = 240_000, 9, 8, 100


def compared(ours, theirs, rounds):
    """Medians over rounds: CPU seconds of ours, of theirs, and their ratio."""
    pairs = []
    for _ in range(rounds):
        began = time.process_time()
        ours()
        middle = time.process_time()
        theirs()
        pairs.append((middle - began, time.process_time() - middle))
    return *np.median(pairs, axis=0), np.median([b / a for a, b in pairs])


def catalogue(n=ROWS, seed=0):
    """Labels flipped by eq. 5 with θ = 11.25, α and three intrinsic columns that classes depend on."""
    rng = np.random.default_rng(seed)
    intrinsic, alpha = rng.normal(size=(n, 3)), rng.lognormal(2.8, 0.45, n)
    disk = rng.random(n) < 1 / (1 + np.exp(-intrinsic @ [1.0, -0.5, 0.2]))
    seen = disk & (rng.random(n) > np.exp(-(alpha**2) / (2 * 11.25**2)))
    return seen.astype(int), alpha, intrinsic


def loop_over_leaves(labels, alpha, intrinsic):
    """CV18 by its definition, with loops over tree, leaves and bins."""
    leaves = [np.arange(labels.size)]
    for level in range(DEPTH):
        column, split = intrinsic[:, level % intrinsic.shape[1]], []
        for rows in leaves:
            left = column[rows] < np.median(column[rows])
            split += [rows[left], rows[~left]]
        leaves = split
    squares = []
    for rows in leaves:
        ordered = rows[np.argsort(alpha[rows], kind="stable")]
        edges = np.round(np.linspace(0, ordered.size, BINS + 1)).astype(int)
        f = np.array([labels[ordered[a:b]].mean() for a, b in itertools.pairwise(edges)])
        squares.append(2 * np.sum((f - f[-1]) ** 2) / BINS)
    return np.sqrt(np.mean(squares) / 2)


def bootstrapped_loop(labels, alpha, intrinsic):
    rng = np.random.default_rng(0)
    value = loop_over_leaves(labels, alpha, intrinsic)
    for _ in range(RESAMPLES):
        rows = rng.integers(0, labels.size, labels.size)
        loop_over_leaves(labels[rows], alpha[rows], intrinsic[rows])
    return value


def main():
    sample = catalogue()
    pixels = np.random.default_rng(0).integers(0, 256, (424, 424, 3), dtype=np.uint8)
    data = simplejpeg.encode_jpeg(pixels, quality=90)
    value = cv18(*sample, depth=DEPTH, bins=BINS, bootstrap=0, permutations=0).value
    assert abs(value - loop_over_leaves(*sample)) < 1e-9
    cases = {
        f"CV18 with {RESAMPLES} bootstraps, {ROWS:,} galaxies, depth {DEPTH}, {BINS} bins; a loop over leaves": (
            lambda: cv18(*sample, depth=DEPTH, bins=BINS, bootstrap=RESAMPLES, permutations=0),
            lambda: bootstrapped_loop(*sample),
            3,
        ),
        "decoding 100 JPEGs of 424 pixels; Pillow": (
            lambda: [decode(data) for _ in range(100)],
            lambda: [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _ in range(100)],
            5,
        ),
    }
    print("| work; compared with | truemorph, CPU s | the other, CPU s | ratio |\n|---|---|---|---|")
    for name, case in cases.items():
        print("| {} | {:.2f} | {:.2f} | {:.1f} |".format(name, *compared(*case)), flush=True)


if __name__ == "__main__":
    main()
