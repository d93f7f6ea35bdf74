"""Run methods in worlds for several seeds; resumable."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.benchmark.bars import BAR, BAR_WORLDS, answer_scores, make_bar_world
from truemorph.benchmark.methods import METHODS, NETWORKS, TABLES, Method, Outcome, benchmark_config
from truemorph.benchmark.worlds import CLASSES, FILES, WITH_PICTURES, WITHOUT_PICTURES, Sizes, World, make_world
from truemorph.bias.metrics.scores import drift, score
from truemorph.errors import InputError, require_extra
from truemorph.findings import FindingWarning
from truemorph.io import content_hash, file_hash, plain, read_json, write_json
from truemorph.progress import tell
from truemorph.tables import frame_of_rows
from truemorph.workers import worker_pool

# More epochs for the real world, because it has fewer galaxies.
EPOCHS, REAL_EPOCHS = 10, 25
# What runs with different seeds have in common.
_RUN = ("world", "definition", "method")


@dataclass(frozen=True)
class Board:
    """Worlds, of which quick runs have the first and the last, and methods by name, in the order of the figure."""

    worlds: Sequence[str]
    methods: dict[str, Method]
    make: Callable[[str, int, Sizes | None, Path | None], World]
    of: str = CLASSES[1]  # class that is scored


BOARDS = {
    NETWORKS: Board(WITH_PICTURES, METHODS[NETWORKS], make_world),
    TABLES: Board(WITHOUT_PICTURES, METHODS[TABLES], make_world),
    BAR: Board(BAR_WORLDS, METHODS[BAR], make_bar_world, BAR),
}


@dataclass(frozen=True)
class Plan:
    """What to run."""

    worlds: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    sizes: Sizes | None  # of simulated worlds; None for catalogues without images
    epochs: int = EPOCHS  # of every network, in simulated worlds
    real_epochs: int = REAL_EPOCHS
    data: Path | None = None  # folder of real data
    question: str | None = None  # of a decision tree; default: smooth or disk

    @property
    def board(self) -> Board:
        """Its worlds and methods."""
        return BOARDS[self.question or (TABLES if self.sizes is None else NETWORKS)]

    def methods_in(self, world: str) -> list[str]:
        """Return the methods that can run in a world."""
        return [name for name in self.methods if world in (self.board.methods[name].worlds or [world])]


def _row(world: World, method: str, run: Callable[[World], Outcome]) -> dict[str, Any]:
    rows = world.scored
    began = time.process_time()
    with warnings.catch_warnings(action="ignore", category=FindingWarning):
        outcome = run(world)
    measured: dict[str, Any] = {"seconds": time.process_time() - began}
    p = None
    if isinstance(outcome, np.ndarray):
        p = outcome[rows]
    elif outcome is not None:
        p, *twins = map(outcome, (world.images[rows], *world.twins))
        if twins:
            n = len(world.twins[0])
            measured["drift"] = drift(p[:n], twins, world.truth[rows][:n])
    if world.images is not None:
        tell(f"{world.name} {world.seed} {method}: {measured['seconds']:.0f} s")
    labels = world.labels[rows]
    if p is not None:
        labels = p.argmax(axis=1) if p.ndim == 2 else (p > 0.5).astype(int)
    if world.votes is not None:
        scores = answer_scores(world, p, labels)
    else:
        scores = score(world.truth[rows], world.alpha[rows], labels, p, world.intrinsic[rows], world.seed)
    return {
        "world": world.name,
        "definition": f"{world.classes[1]} = {world.definition}",
        "seed": world.seed,
        "method": method,
        "scores": scores | measured,
    }


def _rows_of_world(task: tuple[str, int, Plan, Path]) -> list[dict[str, Any]]:
    """Run every method in one world with one seed; the task of a worker process."""
    name, seed, plan, folder = task
    training = None
    if plan.sizes is not None:
        training = benchmark_config(plan.sizes.pixels, plan.real_epochs if name in FILES else plan.epochs)
    config = {
        "version": __version__,
        "world": name,
        "seed": seed,
        "data": file_hash(plan.data / FILES[name]) if plan.data and name in FILES else None,
        "sizes": plan.sizes and asdict(plan.sizes),
        "training": training and training.model_dump(mode="json"),
        "question": plan.question,
    }
    world = None
    rows = []
    for method in plan.methods_in(name):
        path = folder / f"row-{content_hash({**config, 'method': method})[:16]}.json"
        if path.is_file():
            tell(f"{name} {seed} {method}: cached in {path}")
        else:
            world = world or replace(plan.board.make(name, seed, plan.sizes, plan.data), config=training)
            write_json(path, _row(world, method, plan.board.methods[method].run))
        rows.append(read_json(path))
    return rows


def run_plan(plan: Plan, folder: Path, jobs: int = 1) -> list[dict[str, Any]]:
    """Run the methods whose scores are not cached in the folder, in so many processes.

    Returns `world`, `definition`, `seed`, `method` and `scores` of each run.
    """
    for what, names, choices in ("world", plan.worlds, plan.board.worlds), ("method", plan.methods, plan.board.methods):
        for name in names:
            if name not in choices:
                raise InputError(f"no {what} {name!r}; {what}s: {', '.join(choices)}")
    for world in plan.worlds:
        if world in FILES and (plan.data is None or not (plan.data / FILES[world]).is_file()):
            raise InputError(
                f"the world {world!r} needs {FILES[world]}: give its folder (`data`), or choose other `worlds`"
            )
    if not any(plan.methods_in(world) for world in plan.worlds):
        what = "the true T(alpha), or debiased votes, which this world does not have"
        raise InputError(f"nothing to run: these methods need {what}; choose others")
    if plan.sizes:
        require_extra("networks")
    if "cleanlab" in plan.methods:
        require_extra("benchmark")
    # All worlds of a seed first, so that an interrupted run has complete seeds.
    tasks = [(world, seed, plan, folder) for seed in plan.seeds for world in plan.worlds]
    if jobs == 1:
        return [row for task in tasks for row in _rows_of_world(task)]
    with worker_pool(jobs) as pool:
        return [row for rows in pool.map(_rows_of_world, tasks) for row in rows]


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average over seeds; in each world, sort by balanced accuracy, best first.

    Returns `world`, `definition`, `method`, `seeds`, and `means` and `stds` by metric (None if there is no number).
    """
    runs = frame_of_rows([{key: row[key] for key in _RUN} | row["scores"] for row in rows])
    scores = pl.col([name for name in runs.columns if name not in _RUN])
    averages = runs.group_by(_RUN, maintain_order=True).agg(
        pl.len().alias("seeds"), means=pl.struct(scores.mean()), stds=pl.struct(scores.std())
    )
    worlds = list(dict.fromkeys(averages["world"]))
    return sorted(
        averages.to_dicts(), key=lambda line: (worlds.index(line["world"]), -(line["means"]["balanced_accuracy"] or 0))
    )


def described(plan: Plan, rows: Sequence[dict[str, Any]], trust: Sequence[str]) -> dict[str, Any]:
    """Return the content of `leaderboard.json`; titles are of the methods that ran."""
    return {
        "truemorph_version": __version__,
        "date": date.today().isoformat(),
        "plan": plain(asdict(plan)),
        "trust": trust,
        "titles": {row["method"]: plan.board.methods[row["method"]].title for row in rows},
        "rows": summarise(rows),
        "runs": rows,
    }
