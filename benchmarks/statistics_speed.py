"""Speed and memory of statistics and decoding, relative to a plain implementation.

Run by `make bench`. Each pair is timed in turn, A B A B …, and the median ratio is printed. First calls count. Memory
is the peak of a separate process.
"""

import io
import itertools
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import simplejpeg
from PIL import Image

from truemorph.bias.fitting import fit_transition
from truemorph.bias.metrics import cv18
from truemorph.images.decode import decode

ROWS, DEPTH, BINS, RESAMPLES = 240_000, 9, 8, 100


def ratio(ours, theirs, rounds):
    """Median over rounds of (seconds theirs / seconds ours), and the median seconds of each."""
    pairs = []
    for _ in range(rounds):
        began = time.perf_counter()
        ours()
        middle = time.perf_counter()
        theirs()
        pairs.append((middle - began, time.perf_counter() - middle))
    return (statistics.median(b / a for a, b in pairs), *(statistics.median(p[k] for p in pairs) for k in (0, 1)))


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


def statistics_of_a_large_catalogue():
    """Do the work whose memory is measured."""
    labels, alpha, intrinsic = catalogue()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, work in (
        ("CV18, 100 bootstraps", lambda: cv18(labels, alpha, intrinsic, DEPTH, BINS, bootstrap=RESAMPLES)),
        ("θ, likelihood", lambda: fit_transition(labels, alpha)),
        ("θ, conditional on 3 columns", lambda: fit_transition(labels, alpha, intrinsic=intrinsic)),
    ):
        began = time.perf_counter()
        work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{name}, {ROWS:,} rows: {time.perf_counter() - began:.2f} s first call, "
            f"peak memory {peak / 2**20:.2f} GiB ({(peak - before) / 2**20:.2f} above start)"
        )


def main():
    sample = catalogue()
    rng = np.random.default_rng(0)
    data = simplejpeg.encode_jpeg(rng.integers(0, 256, (424, 424, 3), dtype=np.uint8), quality=90)
    value = cv18(*sample, DEPTH, BINS, bootstrap=0, permutations=0).value
    assert abs(value - loop_over_leaves(*sample)) < 1e-9

    for name, ours, theirs, rounds in (
        (
            f"CV18, {RESAMPLES} bootstraps, {ROWS:,} rows, depth {DEPTH}, {BINS} bins: against a loop over leaves",
            lambda: cv18(*sample, DEPTH, BINS, bootstrap=RESAMPLES, permutations=0),
            lambda: bootstrapped_loop(*sample),
            3,
        ),
        (
            "JPEG decoding 424×424 × 100: against Pillow",
            lambda: [decode(data) for _ in range(100)],
            lambda: [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _ in range(100)],
            5,
        ),
    ):
        times, seconds, other = ratio(ours, theirs, rounds)
        print(f"{name}: {times:.2f}× ({seconds:.2f} s, {other:.2f} s)", flush=True)
    subprocess.run([sys.executable, __file__, "memory"], check=True)


if __name__ == "__main__":
    statistics_of_a_large_catalogue() if sys.argv[1:] == ["memory"] else main()
