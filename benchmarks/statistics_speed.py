"""Speed of the statistics and of decoding, as ratios to the obvious way, measured side by side.

Run by `make bench`. Each pair is timed in turn, A B A B …, and the median ratio is printed: machines are noisy.
"""

import io
import statistics
import time

import numpy as np
import simplejpeg
from PIL import Image

from truemorph.bias.metrics import cv18
from truemorph.images.decode import decode


def ratio(ours, theirs, rounds=5):
    """Median over rounds of (seconds theirs / seconds ours), and the median seconds of each."""
    pairs = []
    for _ in range(rounds):
        began = time.perf_counter()
        ours()
        middle = time.perf_counter()
        theirs()
        pairs.append((middle - began, time.perf_counter() - middle))
    return (
        statistics.median(b / a for a, b in pairs),
        *(statistics.median(p[k] for p in pairs) for k in (0, 1)),
    )


def main():
    rng = np.random.default_rng(0)
    n = 100_000
    labels, alpha, intrinsic = rng.integers(0, 2, n), rng.lognormal(2.3, 0.45, n), rng.normal(size=(n, 3))

    def carried():
        cv18(labels, alpha, intrinsic, 6, 8, bootstrap=10, floor="analytic")

    def row_by_row():
        for _ in range(10):
            rows = rng.integers(0, n, n)
            cv18(labels[rows], alpha[rows], intrinsic[rows], 6, 8, bootstrap=0, floor="analytic")

    image = rng.integers(0, 256, (424, 424, 3), dtype=np.uint8)
    data = simplejpeg.encode_jpeg(image, quality=90)

    def ours():
        for _ in range(100):
            decode(data)

    def pillow():
        for _ in range(100):
            np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    for name, a, b in (
        ("CV18 bootstrap, 100,000 galaxies × 10: carried orders against resorting each resample", carried, row_by_row),
        ("JPEG decoding 424×424 × 100: against Pillow", ours, pillow),
    ):
        times, seconds, other = ratio(a, b)
        print(f"{name}: {times:.2f}× ({seconds:.2f} s, {other:.2f} s)")


if __name__ == "__main__":
    main()
