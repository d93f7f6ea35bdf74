"""Networks that are tuned on gold labels after training through T(α): tables of docs/training.md.

    python benchmarks/gold_in_training.py worlds SEEDS DATA [WORLD ...] | selected DRAWS DATA

worlds: in each world of the leaderboards, with its sizes, a network through T(α) from 300 gold labels, and the same
network tuned on them. Results are kept in leaderboard/ to resume. WORLD, such as image_annotator, is one of them.
selected: networks of 4,000 galaxies, tuned on other draws of 300 gold labels: random ones; ones selected by label and
α, or by α alone, with and without their probabilities; and how often tuning says that T(α) does not explain them.
"""

import json
import sys
import tempfile
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import torch

import truemorph
from truemorph.benchmark.bars import answer_scores, make_bar_world
from truemorph.benchmark.leaderboard import EPOCHS, REAL_EPOCHS
from truemorph.benchmark.methods import benchmark_config, certain, network, of_votes, with_gold
from truemorph.benchmark.worlds import FILES, WITH_PICTURES, Sizes, make_world
from truemorph.bias.metrics.scores import score
from truemorph.catalogs.sampling import TRAIN
from truemorph.classifiers.callbacks import Unfinished
from truemorph.classifiers.classifier import contradictions
from truemorph.classifiers.rows import Gold, TrainingRows
from truemorph.classifiers.tuning import tuned
from truemorph.workers import worker_pool

ROOT = Path(__file__).resolve().parent.parent
BARS = "real bars"
WORLDS = (*WITH_PICTURES, BARS)
SCORES = {
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "log_loss": "log-loss",
    "fraction_rms_soft": "rms of the fraction",
}
GOLD, MORE = 300, 6  # gold labels; times as often as others galaxies are selected
SMALL = Sizes(4000, 400, 2000, 10, 48)


def world_of(world, seed, sizes, data):
    """A world with the settings of its networks, as in the leaderboards."""
    made = make_bar_world(world, seed, sizes, data) if world == BARS else make_world(world, seed, sizes, data)
    return replace(made, config=benchmark_config(sizes.pixels, REAL_EPOCHS if world in FILES else EPOCHS))


def sizes_of(world):
    """Numbers of galaxies in the leaderboards."""
    return Sizes(4000, 800, 1500) if world == BARS else Sizes()


def through_gold(world):
    """Train a network through T(α) of 300 gold labels."""
    transition = with_gold(world).transition
    if world.asked is None:
        return network(world, world.labels, transition)
    return network(world, world.labels, evidence=of_votes(world, transition))


def tune(world, model, gold, probability=1.0):
    """Tune a copy of a network on gold labels; `gold` has those of all galaxies."""
    rows, n = world.learning, len(world.names)
    selected = Gold(np.where(gold >= 0, probability, 0.0)[rows], certain(gold, n)[rows])
    columns = {"label": world.labels[rows], "alpha": world.alpha[rows], "split": world.split[rows]}
    asked = {} if world.asked is None else {"questions": (world.asked,)}
    training = TrainingRows(
        pl.DataFrame({"object_id": rows, **columns}), world.images[rows], label=world.names, gold=selected, **asked
    )
    result = {
        "weights": {name: torch.from_numpy(weights) for name, weights in model.members[0].items()},
        "temperature": model.temperatures[0],
        "normalisation": model.described["normalisation"],
        "built": model.described["built"],
    }
    train = np.flatnonzero(world.split[rows] == TRAIN)
    with tempfile.TemporaryDirectory() as folder:
        result = tuned(result, training, train, model.config, 0, "tuned", Unfinished(Path(folder)))
    described = model.described | {"temperatures": [result["temperature"]], "tuning": [result.get("tuning")]}
    return replace(model, members=[{name: w.numpy() for name, w in result["weights"].items()}], described=described)


def scores(world, model):
    rows = world.scored
    p = model.probabilities(world.images[rows])
    if world.asked is not None:
        every = np.zeros((world.truth.size, p.shape[1]))
        every[rows] = p
        found = answer_scores(world, p, p.argmax(axis=1))
    else:
        label = (p[:, 1] > 0.5).astype(np.int64)
        found = score(world.truth[rows], world.alpha[rows], label, p[:, 1], world.intrinsic[rows], world.seed)
    return {name: float(found[name]) for name in SCORES}


def quietly(function, task):
    torch.set_num_threads(1)
    with warnings.catch_warnings(action="ignore"):
        return function(*task)


def in_a_world(world, seed, data):
    """Scores through T(α), and tuned; resumes."""
    folder = ROOT / "leaderboard" / f"gold-{truemorph.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{world}-{seed}.json"
    if not path.is_file():
        made = world_of(world, seed, sizes_of(world), data)
        through = through_gold(made)
        gold = tune(made, through, made.gold)
        models = {"through T(α)": through, "tuned on gold labels": gold}
        tuning = gold.described["tuning"][0]
        row = {
            "scores": {name: scores(made, model) for name, model in models.items()},
            "epochs": tuning["epochs"],
            "told": bool(contradictions(gold.described)),
        }
        path.write_text(json.dumps(row))
    return world, json.loads(path.read_text())


def worlds(seeds, data, *names):
    chosen = [name.replace("_", " ") for name in names] or WORLDS
    tasks = [(world, seed, data) for seed, world in product(range(seeds), chosen)]
    with worker_pool(2) as pool:
        rows = list(pool.map(quietly, [in_a_world] * len(tasks), tasks))
    print(f"| world | network | {' | '.join(SCORES.values())} | epochs of tuning | said that T(α) does not explain |")
    print("|---|---|" + "---|" * (len(SCORES) + 2))
    for world in chosen:
        of_world = [row for name, row in rows if name == world]
        for trained in of_world[0]["scores"]:
            cells = []
            for name in SCORES:
                values = np.array([row["scores"][trained][name] for row in of_world])
                cells.append(
                    f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values[0]:.3f}"
                )
            more = [" ", " "]
            if trained.startswith("tuned"):
                epochs = ["–" if row["epochs"] is None else str(row["epochs"]) for row in of_world]
                more = [", ".join(epochs), f"{sum(row['told'] for row in of_world)} of {len(of_world)}"]
            print(f"| {world} | {trained} | {' | '.join([*cells, *more])} |")


def selection(world, way, seed):
    """300 gold labels of training galaxies, selected in a way; also the probabilities of selection."""
    rng, train = np.random.default_rng([seed, 64]), world.rows(TRAIN)
    far = world.alpha < np.median(world.alpha[train])
    often = {"random": far & False, "by α": far, "by label and α": far & (world.labels == 0)}[way]
    chance = np.where(often, MORE, 1.0)
    n = min(GOLD, train.size // 2)
    chance = np.minimum(chance * n / chance[train].sum(), 1)
    chosen = train[rng.random(train.size) < chance[train]]
    gold = np.full(world.truth.size, -1)
    gold[chosen] = world.truth[chosen]
    return gold, chance


def drawn_again(world, seed, draws, data):
    """Results of tuning one network on several draws of gold labels."""
    made = world_of(world, seed, SMALL, data)
    model, out = through_gold(made), []
    before = scores(made, model)
    for draw in range(draws):
        for way in ("random", "by α", "by label and α"):
            gold, chance = selection(made, way, 100 * seed + draw)
            for weighted in (True, False) if way == "by label and α" else (True,):
                again = tune(made, model, gold, chance if weighted else 1.0)
                told = bool(contradictions(again.described))
                out.append((world, way, weighted, told, before, scores(made, again)))
    return out


def selected(draws, data):
    tasks = [(world, seed, draws, data) for seed, world in product(range(2), WORLDS)]
    with worker_pool(2) as pool:
        every = [row for rows in pool.map(quietly, [drawn_again] * len(tasks), tasks) for row in rows]
    print("## gold_in_training_selected\n")
    print("| gold labels | counted | world | log-loss before | after | rms of the fraction before | after |")
    print("|---|---|---|---|---|---|---|")
    kinds = dict.fromkeys((way, weighted) for _, way, weighted, *_ in every)
    for (way, weighted), world in product(kinds, WORLDS):
        rows = [(row[4], row[5]) for row in every if row[:3] == (world, way, weighted)]
        cells = []
        for name in ("log_loss", "fraction_rms_soft"):
            cells += [f"{np.mean([row[k][name] for row in rows]):.3f}" for k in (0, 1)]
        counted = "each once" if way == "random" or not weighted else "1 / probability"
        print(f"| {way} | {counted} | {world} | {' | '.join(cells)} |")
    print("\n## gold_in_training_told\n")
    print("| world | said that T(α) does not explain gold labels |")
    print("|---|---|")
    for world in WORLDS:
        told = [row[3] for row in every if row[0] == world and row[2]]
        print(f"| {world} | {sum(told)} of {len(told)} |")


if __name__ == "__main__":
    what, number, data, *names = sys.argv[1:]
    {"worlds": worlds, "selected": selected}[what](int(number), Path(data), *names)
