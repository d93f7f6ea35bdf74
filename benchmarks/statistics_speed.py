"""Speed and memory of statistics and decoding, relative to a plain implementation.

Each pair is timed in turn, A B A B …, and the median ratios of wall and CPU time are printed, for
CV18 also beside a process that keeps one core busy. First calls count. Memory is the peak of a separate process.
"""

import contextlib
import io
import itertools
import resource
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


def clocks():
    """Seconds on the wall, and of CPU of all threads."""
    return np.array([time.perf_counter(), time.process_time()])


def ratio(ours, theirs, rounds):
    """Medians over rounds: wall and CPU time of theirs divided by those of ours, the seconds of ours, and of theirs."""
    pairs = []
    for _ in range(rounds):
        began = clocks()
        ours()
        middle = clocks()
        theirs()
        pairs.append((middle - began, clocks() - middle))
    return np.median([b / a for a, b in pairs], axis=0), *np.median(pairs, axis=0)


@contextlib.contextmanager
def busy(processes):
    """Keep so many cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in others:
            one.kill()


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

    def plain_cv18():
        bootstrapped_loop(*sample)

    def our_cv18():
        cv18(*sample, DEPTH, BINS, bootstrap=RESAMPLES, permutations=0)

    def many_decoded():
        return [decode(data) for _ in range(100)]

    def decoded_by_pillow():
        return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _ in range(100)]

    of = f"CV18, {RESAMPLES} bootstraps, {ROWS:,} rows, depth {DEPTH}, {BINS} bins: against a loop over leaves"
    for name, ours, theirs, rounds, others in (
        (of, our_cv18, plain_cv18, 3, 0),
        (f"{of}, beside a busy process", our_cv18, plain_cv18, 3, 1),
        ("JPEG decoding 424×424 × 100: against Pillow", many_decoded, decoded_by_pillow, 5, 0),
    ):
        with busy(others):
            (wall, cpu), seconds, other = ratio(ours, theirs, rounds)
        print(
            f"{name}: {wall:.2f}× wall ({seconds[0]:.2f} s, {other[0]:.2f} s), "
            f"{cpu:.2f}× CPU ({seconds[1]:.2f} s, {other[1]:.2f} s)",
            flush=True,
        )
    for others in (0, 1):
        with busy(others):
            began = clocks()
            fit_transition(*sample[:2])
            wall, cpu = clocks() - began
        print(f"θ, likelihood, {ROWS:,} rows, beside {others} busy processes: {wall:.2f} s wall, {cpu:.2f} s CPU")
    subprocess.run([sys.executable, __file__, "memory"], check=True)


if __name__ == "__main__":
    statistics_of_a_large_catalogue() if sys.argv[1:] == ["memory"] else main()
