"""p(disk) of disks at lower resolution, in worse seeing or farther away, by networks of the leaderboard.

    python benchmarks/twins.py

Networks of the plain world (seed 0) are trained as for the leaderboard. Test disks with α > 18 are drawn
again at lower α. Printed: mean p(disk), and the fraction of disks that volunteers label disk at this α. The last lines
are accuracies by octiles of α of the network trained on true classes.
"""

import numpy as np

from truemorph.benchmark.leaderboard import EPOCHS
from truemorph.benchmark.methods import NETWORKS, Bench, benchmark_config, methods_of
from truemorph.benchmark.worlds import Sizes, make_world
from truemorph.simulate import at_resolution, render, simulate_galaxies

LEVELS = (15.0, 12.0, 9.0, 6.0)
WELL_RESOLVED = 18.0


def main():
    sizes = Sizes()
    world = make_world("plain", 0, sizes)
    bench = Bench(world, benchmark_config(sizes.pixels, EPOCHS))
    predict = {name: methods_of(NETWORKS)[name].run(bench).predict for name in ("naive", "ddb-right", "truth")}

    test = world.scored
    chosen = test[(world.truth[test] == 1) & (world.alpha[test] > WELL_RESOLVED)]
    galaxies = simulate_galaxies(world.truth.size, 0, confounded=False)[chosen]
    print(f"{chosen.size} disks, standard error of a mean at most {0.5 / np.sqrt(chosen.size):.3f}")
    print(f"{'':24}{'volunteers':>10}" + "".join(f"{name:>12}" for name in predict))

    def line(title, labelled, images):
        means = "".join(f"{predict[name](images).mean():12.3f}" for name in predict)
        print(f"{title:24}{labelled:10.3f}{means}", flush=True)

    seen = 1 - world.transition.flip_probability(world.alpha[chosen])
    line("original", seen.mean(), world.images[chosen])
    for how in ("seeing", "distance"):
        for number, level in enumerate(LEVELS):
            moved = at_resolution(galaxies, np.full(chosen.size, level), how)
            images = np.stack([image for _, image in render(moved, sizes.pixels, 0, exposure=1 + number)])
            line(f"{how}, α = {level:g}", 1 - world.transition.flip_probability(np.array([level]))[0], images)

    p = predict["truth"](world.images[test])
    right, true = (p > 0.5) == world.truth[test], world.truth[test]
    print("\ntrained on true classes, balanced accuracy by octiles of α:")
    for part in np.array_split(np.argsort(world.alpha[test]), 8):
        balanced = np.mean([right[part][true[part] == y].mean() for y in (0, 1)])
        print(f"α {world.alpha[test][part].min():5.1f} to {world.alpha[test][part].max():5.1f}: {balanced:.3f}")


if __name__ == "__main__":
    main()
