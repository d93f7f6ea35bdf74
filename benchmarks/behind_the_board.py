"""Single numbers that explain the leaderboard; docs/leaderboard.md gives some of them.

    python benchmarks/behind_the_board.py DATA

Networks (seed 0) are trained as for the leaderboard. DATA holds EFIGI's images and types.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from truemorph.benchmark.leaderboard import EPOCHS, REAL_EPOCHS
from truemorph.benchmark.methods import NETWORKS, Bench, benchmark_config, methods_of, undoubted
from truemorph.benchmark.worlds import Sizes, make_world
from truemorph.bias.scores import score
from truemorph.catalogs.sampling import TRAIN, UNUSED
from truemorph.simulate import simulate_galaxies

METHODS, SIZES = methods_of(NETWORKS), Sizes()


def bench_of(name, data=None):
    epochs = REAL_EPOCHS if name == "real" else EPOCHS
    return Bench(make_world(name, 0, SIZES, data), benchmark_config(SIZES.pixels, epochs))


def what_cleanlab_drops():
    bench = bench_of("plain")
    world, kept = bench.world, undoubted(bench)
    rows = world.rows("train", "validation")
    dropped, labels, truth, alpha = ~kept[rows], world.labels[rows], world.truth[rows], world.alpha[rows]
    low, wrong, disk = alpha < np.median(alpha), labels != truth, labels == 1
    print(f"cleanlab, plain world: drops {dropped.sum()} of {rows.size} labels")
    print(f"  wrong labels dropped: {dropped[wrong].mean():.3f} of {wrong.sum()}")
    for title, where in (("below", low), ("above", ~low)):
        here = disk & where
        print(
            f"  disk labels {title} median α dropped: {dropped[here].mean():.3f} of {here.sum()}, of which right:"
            f" {(truth[here] == 1).mean():.3f}"
        )


def what_the_annotator_teaches():
    bench = bench_of("image annotator")
    world, test = bench.world, bench.world.scored
    kind = simulate_galaxies(world.truth.size, 0, confounded=False)["type"].to_numpy()[test]
    high = world.alpha[test] > np.quantile(world.alpha[test], 2 / 3)
    print("\nimage annotator: fractions called disk, α in the upper third")
    pictures = world.images[test]
    called = {"labels": world.labels[test] == 1}
    for name in ("ddb-paper", "ddb-gold-votes", "truth"):
        called[METHODS[name].title] = METHODS[name].run(bench).predict(pictures) > 0.5
    for title, disk in called.items():
        fractions = ", ".join(f"{one} {disk[high & (kind == one)].mean():.2f}" for one in np.unique(kind))
        print(f"  {title}: {fractions}", flush=True)


def what_half_of_the_pictures_teach(data):
    bench = bench_of("real", data)
    world, train, test = bench.world, bench.world.rows(TRAIN), bench.world.scored
    split = world.split.copy()
    split[np.random.default_rng(1).choice(train, train.size // 2, replace=False)] = UNUSED
    # Half of the images with twice the epochs, for the same number of steps.
    once = bench.training
    twice = once.model_copy(update={"epochs": 2 * once.epochs, "patience": 2 * once.patience})
    half = Bench(replace(world, split=split), twice).trained(world.truth)
    pictures = world.images[test]
    print(f"\nreal world, {train.size} training images")
    for title, p in (
        ("true classes of half of them", half.predict(pictures)),
        *((METHODS[name].title, METHODS[name].run(bench).predict(pictures)) for name in ("truth", "ddb-right")),
    ):
        auc = score(world.truth[test], world.alpha[test], (p > 0.5).astype(int), p, None, 0)["auc"]
        print(f"  {title}: AUC {auc:.3f}", flush=True)


def main(data):
    what_cleanlab_drops()
    what_the_annotator_teaches()
    what_half_of_the_pictures_teach(Path(data))


if __name__ == "__main__":
    main(*sys.argv[1:])
