"""Accuracy beside Zoobot: bars in the same images, learned from the same votes. A table of docs/comparison.md.

    python benchmarks/beside_zoobot.py DATA ZOOBOT_PYTHON [SEED ...]

ZOOBOT_PYTHON: the Python of an environment with Zoobot 2.9, whose training from scratch, loss, head, patience and
prediction are used as they are. All networks have the same backbone, random first weights, images and split as on
truemorph's board of bars (`truemorph benchmark --question bar`). Zoobot's train until a held-out loss stops falling.
"""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

PIXELS, TRAIN, VALIDATION, TEST, EPOCHS, PATIENCE, BATCH = 64, 2000, 400, 1500, 40, 8, 64
GOLD = 300
SEVERAL = 5  # predictions with dropout, whose mean counts
WORLDS = ("plain", "real bars")  # of the board
ZOOBOT = {"its augmentation": "default", "flips only": "flips"}


# In Zoobot's environment


def views(kind):
    """Transforms for training and for prediction."""
    from galaxy_datasets.transforms import default_view_config, fast_view_config, minimal_view_config

    if kind == "default":
        found = default_view_config(), minimal_view_config()
    else:
        found = fast_view_config(), fast_view_config()
        found[0].flip_prob = 0.5
    for one in found:
        one.output_size = PIXELS
    return found


def zoobot(folder):
    """Train on votes, then on gold labels; keep the predictions of all galaxies."""
    import logging
    import warnings

    import pandas as pd
    import torch
    from galaxy_datasets.pytorch.galaxy_datamodule import CatalogDataModule
    from galaxy_datasets.transforms import get_galaxy_transform
    from zoobot.pytorch.estimators.define_model import ZoobotTree
    from zoobot.pytorch.training import finetune, train_with_pytorch_lightning
    from zoobot.shared.schemas import Schema

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    folder = Path(folder)
    about = json.loads((folder / "about.json").read_text())
    table = pd.read_csv(folder / "table.csv", dtype={"id_str": str})
    schema = Schema(about["questions"], about["dependencies"])
    parts = {name: table[table["split"] == name].reset_index(drop=True) for name in ("train", "validation")}
    for kind in ZOOBOT.values():
        configs = views(kind)
        learning, inference = map(get_galaxy_transform, configs)
        _, trainer = train_with_pytorch_lightning.train_default_zoobot_from_scratch(
            save_dir=str(folder / kind), schema=schema, train_transform_cfg=configs[0], test_transform_cfg=configs[1],
            train_catalog=parts["train"], val_catalog=parts["validation"], test_catalog=parts["validation"],
            architecture_name="test_resnet", batch_size=BATCH, epochs=EPOCHS, patience=PATIENCE, gpus=0, num_workers=1,
            random_state=about["seed"],
        )  # fmt: skip
        tree = ZoobotTree.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
        print(f"{kind}: {trainer.current_epoch} epochs", file=sys.stderr)

        def keep(model, name, columns, times, inference=inference):
            """Predictions of all galaxies; ZoobotTree's own `predict_step` does not take its data module's batches."""
            data = CatalogDataModule(
                None, predict_catalog=table, test_transform=inference, batch_size=512, num_workers=1
            )
            data.setup("predict")
            model.eval()
            for number in range(times):
                with torch.inference_mode():
                    found = torch.cat([model(batch["image"]) for batch in data.predict_dataloader()])
                found = found.softmax(dim=1) if times == 1 else found
                pd.DataFrame(found.numpy(), columns=columns).to_csv(folder / f"{name}-{number}.csv", index=False)

        keep(tree, kind, schema.label_cols, SEVERAL)
        known = table[table["gold"] >= 0].reset_index(drop=True)
        stops = known.index % 5 == 0
        data = CatalogDataModule(
            ["gold"], train_catalog=known[~stops].reset_index(drop=True), num_workers=1, batch_size=BATCH,
            val_catalog=known[stops].reset_index(drop=True), train_transform=learning, test_transform=inference,
        )  # fmt: skip
        model = finetune.FinetuneableZoobotClassifier(
            num_classes=about["classes"], label_col="gold", encoder=tree.encoder, prog_bar=False
        )
        tuner = finetune.get_trainer(
            str(folder / f"{kind}-gold"), max_epochs=100, accelerator="cpu", patience=10, enable_progress_bar=False,
            num_sanity_val_steps=0, log_every_n_steps=1,
        )  # fmt: skip
        tuner.callbacks = [callback for callback in tuner.callbacks if type(callback).__name__ != "LearningRateMonitor"]
        tuner.fit(model, data)
        best = torch.load(tuner.checkpoint_callback.best_model_path, weights_only=False)["state_dict"]
        model.load_state_dict(best)
        print(f"{kind}, gold labels: {tuner.current_epoch} epochs", file=sys.stderr)
        keep(model, f"{kind}-gold", [f"class {k}" for k in range(about["classes"])], 1)


# In truemorph's


def write_for_zoobot(world, folder):
    """Write images, votes, split and gold labels as files."""
    import polars as pl
    from PIL import Image

    asked = world.votes.asked
    columns = {}
    for question in asked.questions:
        counts = world.votes.counts[question.name]
        columns |= {f"{question.name}_{answer}": k for answer, k in zip(question.answers, counts.T, strict=True)}
    ids = [str(number) for number in range(world.truth.size)]
    files = [str(folder / f"{one}.png") for one in ids]
    for file, image in zip(files, world.images, strict=True):
        Image.fromarray(image).save(file)
    table = pl.DataFrame({"id_str": ids, "file_loc": files, "split": world.split, "gold": world.gold, **columns})
    table.write_csv(folder / "table.csv")
    after = {question.name: next(iter(question.asked_after), None) for question in asked.questions}
    gates = {answer: f"{question.name}_{answer}" for question in asked.questions for answer in question.answers}
    about = {
        "seed": world.seed,
        "classes": len(asked.classes),
        "questions": {question.name: [f"_{answer}" for answer in question.answers] for question in asked.questions},
        "dependencies": {name: gates[answer] if answer else None for name, answer in after.items()},
    }
    (folder / "about.json").write_text(json.dumps(about))


def mean_votes(world, folder, kind):
    """Zoobot's expected fractions of answers, as 40 votes along the tree."""
    import polars as pl

    counts, reached = {}, {}
    for question in world.votes.asked.questions:
        names = [f"{question.name}_{answer}" for answer in question.answers]
        draws = [pl.read_csv(folder / f"{kind}-{number}.csv").select(names).to_numpy() for number in range(SEVERAL)]
        fractions = np.mean([one / one.sum(axis=1, keepdims=True) for one in draws], axis=0)
        asked = sum(reached[one] for one in question.asked_after) if question.asked_after else 40.0
        counts[question.name] = fractions * np.reshape(asked, (-1, 1))
        reached |= dict(zip(question.answers, counts[question.name].T, strict=True))
    return replace(world.votes, counts=counts)


def with_gold_labels(world, votes, seed):
    """Rms errors of the bar fractions of test galaxies from 300 of their gold labels: with predictions, and alone."""
    from question_fractions import Case, draw

    rows, asked = world.scored, world.votes.asked
    own = replace(votes, counts={name: count[rows] for name, count in votes.counts.items()})
    # Classes of the question: 0 where it does not apply.
    of_class = np.array([0 if one not in world.classes else 1 + world.classes.index(one) for one in asked.classes])
    case = Case(
        of_class[own.labels], world.alpha[rows], of_class[world.truth[rows]], asked.quantities,
        own.labels, own.log_odds, bins=5,
    )  # fmt: skip
    errors, alone, *_ = draw(case, GOLD, seed)
    return [np.sqrt(np.mean(one**2)) for one in (errors, alone)]


def compared(name, seed, data, python):
    """(Balanced accuracy or None, rms error of the bar fraction) by method."""
    from truemorph.benchmark.bars import answer_scores, make_bar_world
    from truemorph.benchmark.leaderboard import EPOCHS as OUR_EPOCHS
    from truemorph.benchmark.leaderboard import REAL_EPOCHS
    from truemorph.benchmark.methods import benchmark_config, ddb, path_votes, raw_counts, trained, with_gold
    from truemorph.benchmark.worlds import Sizes

    world, found = make_bar_world(name, seed, Sizes(TRAIN, VALIDATION, TEST, pixels=PIXELS), data), {}
    rows = world.scored

    def score(title, p):
        scores = answer_scores(world, p[rows], world.labels[rows])
        found[title] = scores["balanced_accuracy"], scores["fraction_rms_soft"]
        print(name, seed, title, *(f"{one:.3f}" for one in found[title]), file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_for_zoobot(world, folder)
        subprocess.run([python, __file__, "--zoobot", str(folder)], check=True, stdout=subprocess.DEVNULL)
        for title, kind in ZOOBOT.items():
            import polars as pl

            votes = mean_votes(world, folder, kind)
            score(f"Zoobot on votes, {title}", path_votes(votes))
            tuned = pl.read_csv(folder / f"{kind}-gold-0.csv").to_numpy()
            score(f"Zoobot on votes, then on {GOLD} gold labels, {title}", tuned)
            both, alone = with_gold_labels(world, votes, seed)
            found[f"Zoobot's predictions and {GOLD} other gold labels in truemorph, {title}"] = None, both
            found[f"{GOLD} other gold labels alone"] = None, alone
    world = replace(world, config=benchmark_config(PIXELS, REAL_EPOCHS if world.transition else OUR_EPOCHS))
    ours = {
        "truemorph on votes, without T": raw_counts,
        f"truemorph on votes, T of paths from {GOLD} gold labels": ddb(with_gold),
        "truemorph on true classes": lambda world: trained(world, world.truth),
    }
    for title, run in ours.items():
        score(title, run(world)(world.images))
    return found


def main(data, python, *seeds):
    cells = {}
    runs = [(name, int(seed)) for name in WORLDS for seed in seeds or (0, 1, 2)]
    with ProcessPoolExecutor(2) as pool:
        found = pool.map(partial(compared, data=Path(data), python=python), *zip(*runs, strict=True))
        for (name, _), titles in zip(runs, found, strict=True):
            for title, values in titles.items():
                cells.setdefault(title, {}).setdefault(name, []).append(values)
    print(f"| | {' | '.join(WORLDS)} |\n|---" + "|---" * len(WORLDS) + "|")
    for title, worlds in cells.items():
        shown = []
        for values in worlds.values():
            accuracy, rms = zip(*values, strict=True)
            shown.append(f"{'–' if None in accuracy else f'{np.mean(accuracy):.3f}'} / {np.mean(rms):.3f}")
        print(f"| {title} | {' | '.join(shown)} |")


if __name__ == "__main__":
    if sys.argv[1] == "--zoobot":
        zoobot(sys.argv[2])
    else:
        main(*sys.argv[1:])
