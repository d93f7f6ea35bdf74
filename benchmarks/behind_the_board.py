"""Why methods of the leaderboard do what they do: the single numbers that docs/leaderboard.md tells beside its tables.

    python benchmarks/behind_the_board.py leaderboard/cache DATA

Networks (seed 0) are taken from the leaderboard's cache, or trained into it. DATA holds EFIGI's images and types.
"""

import sys
from pathlib import Path

import numpy as np

from truemorph.benchmark.cache import Cache
from truemorph.benchmark.leaderboard import EPOCHS, REAL_EPOCHS
from truemorph.benchmark.methods import METHODS, benchmark_config, test_rows, undoubted
from truemorph.benchmark.workbench import Workbench, probabilities
from truemorph.benchmark.worlds import Sizes, make_world
from truemorph.bias.scores import score
from truemorph.catalogs.sampling import TRAIN
from truemorph.simulate import simulate_galaxies


def what_cleanlab_drops(cache, sizes):
    world = make_world("plain", 0, sizes, cache)
    kept = undoubted(Workbench(world, benchmark_config(sizes.pixels, EPOCHS), cache))
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


def what_the_annotator_teaches(cache, sizes):
    world = make_world("image annotator", 0, sizes, cache)
    bench, test = Workbench(world, benchmark_config(sizes.pixels, EPOCHS), cache), test_rows(world)
    kind = simulate_galaxies(sizes.all, 0, confounded=False)["type"].to_numpy()[test]
    high = world.alpha[test] > np.quantile(world.alpha[test], 2 / 3)
    print("\nimage annotator: shares called disk, α in the upper third")
    pictures = np.asarray(world.images[test])
    called = {"labels": world.labels[test] == 1}
    for name in ("ddb-paper", "ddb-gold-votes", "truth"):
        called[METHODS[name].title] = METHODS[name].run(bench).predict(pictures) > 0.5
    for title, disk in called.items():
        shares = ", ".join(f"{one} {disk[high & (kind == one)].mean():.2f}" for one in np.unique(kind))
        print(f"  {title}: {shares}", flush=True)


def what_half_of_the_pictures_teach(cache, sizes, data):
    world = make_world("real", 0, sizes, cache, Path(data))
    bench = Workbench(world, benchmark_config(sizes.pixels, REAL_EPOCHS), cache)
    train, test = world.rows(TRAIN), test_rows(world)
    left = np.ones(world.alpha.size, bool)
    left[np.random.default_rng(1).choice(train, train.size // 2, replace=False)] = False
    # Half of the pictures, twice the epochs: as many steps.
    config = bench.config.model_copy(update={"epochs": 2 * bench.config.epochs, "patience": 2 * bench.config.patience})
    half = Workbench(world, config, cache).network(world.truth, kept=left)
    pictures = np.asarray(world.images[test])
    print(f"\nreal world, {train.size} pictures to learn from")
    for title, p in (
        ("truth of half of them", probabilities(half, pictures)),
        *((METHODS[name].title, METHODS[name].run(bench).predict(pictures)) for name in ("truth", "ddb-right")),
    ):
        auc = score(world.truth[test], world.alpha[test], (p > 0.5).astype(int), p, None, 0)["auc"]
        print(f"  {title}: AUC {auc:.3f}", flush=True)


def main(folder, data):
    cache, sizes = Cache(Path(folder)), Sizes()
    what_cleanlab_drops(cache, sizes)
    what_the_annotator_teaches(cache, sizes)
    what_half_of_the_pictures_teach(cache, sizes, data)


if __name__ == "__main__":
    main(*sys.argv[1:])
