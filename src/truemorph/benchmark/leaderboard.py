"""Run methods in worlds for several seeds; resumable."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.benchmark.bars import BAR, BAR_CLASSES, BAR_WORLDS, answer_scores, make_bar_world
from truemorph.benchmark.methods import METHODS, NETWORKS, QUICK, TABLES, Bench, Method, benchmark_config
from truemorph.benchmark.worlds import CLASSES, FILES, WITH_PICTURES, WITHOUT_PICTURES, Sizes, World, make_world
from truemorph.bias.metrics.scores import drift, score
from truemorph.errors import InputError, require_extra
from truemorph.findings import FindingWarning
from truemorph.io import content_hash, file_hash, plain, read_json, write_json
from truemorph.progress import tell
from truemorph.workers import worker_pool

# More epochs for the real world, because it has fewer galaxies.
EPOCHS, REAL_EPOCHS = 10, 25
# What runs with different seeds have in common.
_RUN = ("world", "definition", "method")


@dataclass(frozen=True)
class Board:
    """Worlds and methods of one board, in the order of its figure."""

    worlds: Sequence[str]
    methods: Sequence[Method]
    make: Callable[[str, int, Sizes | None, Path | None], World]
    classes: tuple[str, str] = CLASSES  # whose second one is scored
    real: str = "real"  # world of quick runs beside "plain"

    @property
    def quick(self) -> list[str]:
        """Methods of quick runs."""
        return [method.name for method in self.methods if method.name in QUICK]


BOARDS = {
    NETWORKS: Board(WITH_PICTURES, METHODS[NETWORKS], make_world),
    TABLES: Board(WITHOUT_PICTURES, METHODS[TABLES], make_world),
    BAR: Board(BAR_WORLDS, METHODS[BAR], make_bar_world, BAR_CLASSES, BAR_WORLDS[-1]),
}


@dataclass(frozen=True)
class Plan:
    """What to run."""

    worlds: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    sizes: Sizes | None = field(default_factory=Sizes)  # of simulated worlds; None for catalogues without images
    epochs: int = EPOCHS  # of every network, in simulated worlds
    real_epochs: int = REAL_EPOCHS
    data: Path | None = None  # folder of real data
    question: str | None = None  # of a decision tree; default: smooth or disk

    @property
    def board(self) -> Board:
        """Its worlds and methods."""
        return BOARDS[self.question or (TABLES if self.sizes is None else NETWORKS)]

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values, without a question that was not given."""
        given = {**asdict(self), "data": str(self.data) if self.data else None}
        return {name: value for name, value in given.items() if name != "question" or value}

    def methods_in(self, world: str) -> list[Method]:
        """Return the methods that can run in a world."""
        known = {method.name: method for method in self.board.methods}
        return [known[method] for method in self.methods if world in (known[method].worlds or [world])]


def _row(bench: Bench, method: Method) -> dict[str, Any]:
    world, rows, p = bench.world, bench.world.scored, None
    began, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings(action="ignore", category=FindingWarning):
        outcome = method.run(bench)
    measured: dict[str, Any] = {"seconds": time.process_time() - cpu}
    if outcome.p is not None:
        p = outcome.p[rows]
    if world.images is not None:
        if outcome.predict is not None:
            p, *twins = [outcome.predict(images) for images in (world.images[rows], *world.twins)]
            if twins:
                n = len(world.twins[0])
                measured["drift"] = drift(p[:n], twins, world.truth[rows][:n])
        tell(f"{world.name} {world.seed} {method.name}: {time.perf_counter() - began:.0f} s")
    if p is not None:
        labels = p.argmax(axis=1) if p.ndim == 2 else (p > 0.5).astype(np.int64)
    else:
        assert outcome.labels is not None
        labels = outcome.labels[rows]
    if world.votes is not None:
        scores = answer_scores(world, p, labels)
    else:
        scores = score(world.truth[rows], world.alpha[rows], labels, p, world.intrinsic[rows], world.seed)
    definition = f"{world.classes[1]} = {world.definition}"
    about = {"world": world.name, "definition": definition, "seed": world.seed, "method": method.name}
    return {**about, "scores": plain(scores | measured)}


def _rows_of_world(task: tuple[str, int, Plan, Path]) -> list[dict[str, Any]]:
    """Run every method in one world with one seed; the task of a worker process."""
    name, seed, plan, folder = task
    training = None
    if plan.sizes is not None:
        training = benchmark_config(plan.sizes.pixels, plan.real_epochs if name in FILES else plan.epochs)
        if parent_process() is not None:
            import torch

            torch.set_num_threads(1)
    config = {
        "version": __version__,
        "world": name,
        "seed": seed,
        "data": file_hash(plan.data / FILES[name]) if plan.data and name in FILES else None,
        "sizes": plan.sizes and asdict(plan.sizes),
        "training": training and training.model_dump(mode="json"),
        **({"question": plan.question} if plan.question else {}),
    }
    bench, rows = None, []
    for method in plan.methods_in(name):
        path = folder / f"row-{content_hash({**config, 'method': method.name})[:16]}.json"
        if path.is_file():
            tell(f"{name} {seed} {method.name}: cached in {path}")
        else:
            bench = bench or Bench(plan.board.make(name, seed, plan.sizes, plan.data), training)
            write_json(path, _row(bench, method))
        rows.append(read_json(path))
    return rows


def run_plan(plan: Plan, folder: Path, jobs: int = 1) -> list[dict[str, Any]]:
    """Run the methods whose scores are not cached in the folder, in so many processes.

    Returns `world`, `definition`, `seed`, `method` and `scores` of each run.
    """
    there, known = plan.board.worlds, [method.name for method in plan.board.methods]
    unknown = [world for world in plan.worlds if world not in there] + [
        method for method in plan.methods if method not in known
    ]
    if unknown:
        raise InputError(f"no world or method {unknown[0]!r}; worlds: {', '.join(there)}; methods: {', '.join(known)}")
    for world in plan.worlds:
        if world in FILES and (plan.data is None or not (plan.data / FILES[world]).is_file()):
            raise InputError(
                f"the world {world!r} needs {FILES[world]}: give its folder (`data`), or choose other `worlds`"
            )
    if not any(plan.methods_in(world) for world in plan.worlds):
        raise InputError("nothing to run: these methods need the true T(alpha), which does not exist in this world")
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
    runs = pl.DataFrame(
        [{key: row[key] for key in _RUN} | row["scores"] for row in rows], infer_schema_length=None
    ).with_columns(pl.col(pl.Null).cast(pl.Float64))
    scores = pl.col([name for name in runs.columns if name not in _RUN])
    averages = runs.group_by(_RUN, maintain_order=True).agg(
        pl.len().alias("seeds"), means=pl.struct(scores.mean()), stds=pl.struct(scores.std())
    )
    worlds = list(dict.fromkeys(averages["world"]))
    return sorted(
        averages.to_dicts(), key=lambda line: (worlds.index(line["world"]), -(line["means"]["balanced_accuracy"] or 0))
    )


def described(plan: Plan, rows: Sequence[dict[str, Any]], trust: Sequence[str] = ()) -> dict[str, Any]:
    """Return the content of `leaderboard.json`."""
    return {
        "truemorph_version": __version__,
        "date": date.today().isoformat(),
        "plan": plan.settings,
        "trust": list(trust),
        "rows": summarise(rows),
        "runs": list(rows),
    }
