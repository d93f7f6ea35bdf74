"""p(disk) of disks at lower resolution, in worse seeing or farther away, by networks of the leaderboard.

    python benchmarks/twins.py

Networks of the plain world (seed 0) are trained as for the leaderboard. Test disks with α > 18 are drawn
again at lower α. Tables of docs/simulator.md: mean p(disk), and the fraction of disks that volunteers label disk at
this α; and accuracies by octiles of α of the network trained on true classes.
"""

from dataclasses import replace

import numpy as np

from truemorph.benchmark.leaderboard import EPOCHS
from truemorph.benchmark.methods import METHODS, NETWORKS, benchmark_config
from truemorph.benchmark.worlds import Sizes, make_world
from truemorph.simulate import at_resolution, render, simulate_galaxies

LEVELS = (15.0, 12.0, 9.0, 6.0)
NAMES = {"naive": "naive", "ddb-right": "DDB, true T(α)", "truth": "trained on true classes"}
HOW = {"seeing": "worse seeing", "distance": "farther away"}
WELL_RESOLVED = 18.0


def main():
    sizes = Sizes()
    world = replace(make_world("plain", 0, sizes), config=benchmark_config(sizes.pixels, EPOCHS))
    predict = {name: METHODS[NETWORKS][name].run(world) for name in NAMES}

    test = world.scored
    chosen = test[(world.truth[test] == 1) & (world.alpha[test] > WELL_RESOLVED)]
    galaxies = simulate_galaxies(world.truth.size, 0, confounded=False)[chosen]
    print(f"## twins\n{chosen.size} disks; standard errors are below {0.5 / np.sqrt(chosen.size):.3f}.\n")
    print(f"| | volunteers | {' | '.join(NAMES.values())} |\n|---|---|---|---|---|")

    def line(title, labelled, images):
        means = " | ".join(f"{predict[name](images).mean():.3f}" for name in predict)
        print(f"| {title} | {labelled:.3f} | {means} |", flush=True)

    seen = 1 - world.transition.flip_probability(world.alpha[chosen])
    line("original", seen.mean(), world.images[chosen])
    for how in ("seeing", "distance"):
        for number, level in enumerate(LEVELS):
            moved = at_resolution(galaxies, np.full(chosen.size, level), how)
            images = np.stack([image for _, image in render(moved, sizes.pixels, 0, exposure=1 + number)])
            line(f"{HOW[how]}, α = {level:g}", 1 - world.transition.flip_probability(np.array([level]))[0], images)

    p = predict["truth"](world.images[test])
    right, true = (p > 0.5) == world.truth[test], world.truth[test]
    print("\n## twins_octiles\n| α | balanced accuracy |\n|---|---|")
    for part in np.array_split(np.argsort(world.alpha[test]), 8):
        balanced = np.mean([right[part][true[part] == y].mean() for y in (0, 1)])
        print(f"| {world.alpha[test][part].min():.1f} to {world.alpha[test][part].max():.1f} | {balanced:.3f} |")


if __name__ == "__main__":
    main()
