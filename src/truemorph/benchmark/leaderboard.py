"""The leaderboard: methods × worlds × seeds, resumable, as Markdown, JSON, a page and a figure."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from truemorph._version import __version__
from truemorph.benchmark.cache import Cache
from truemorph.benchmark.worlds import TWIN_FACTORS, TWINS, WORLDS, Sizes, make_world
from truemorph.bias.scores import drift, score
from truemorph.errors import InputError, TruemorphError, require_extra
from truemorph.findings import FindingWarning
from truemorph.workers import worker_pool

# The real world has fewer galaxies: more passes over them.
EPOCHS, REAL_EPOCHS = 10, 25


@dataclass(frozen=True)
class Plan:
    """What a leaderboard is to run.

    Attributes
    ----------
    worlds, methods : tuple of str
    seeds : tuple of int
    sizes : Sizes
    epochs, real_epochs : int
        Of every network, in the simulated worlds and in the real one.
    data : Path or None
        Folder of EFIGI's pictures and types.
    """

    worlds: tuple[str, ...] = WORLDS
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    sizes: Sizes = field(default_factory=Sizes)
    epochs: int = EPOCHS
    real_epochs: int = REAL_EPOCHS
    data: Path | None = None


def _run_one(task: tuple[str, int, str, Plan, Path, int]) -> dict[str, Any]:
    """One method on one world of one seed; a worker process of its own where there are several."""
    name, seed, method, plan, folder, threads = task
    import torch

    if threads:
        torch.set_num_threads(threads)
    from truemorph.benchmark.methods import METHODS, benchmark_config, test_rows
    from truemorph.benchmark.workbench import Workbench

    cache = Cache(folder)
    world = make_world(name, seed, plan.sizes, cache, plan.data)
    training = benchmark_config(plan.sizes.pixels, plan.real_epochs if name == "real" else plan.epochs)

    rows = test_rows(world)
    config = {
        "world": world.config,
        "method": method,
        "version": METHODS[method].version,
        "training": training.model_dump(mode="json"),
        "twins": [TWINS, *TWIN_FACTORS],
    }

    def learn() -> dict[str, Any]:
        """What takes long: training, and predictions for the test galaxies and their twins."""
        began = time.perf_counter()
        bench = Workbench(world, training, cache)
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always", FindingWarning)
            outcome = METHODS[method].run(bench)
        predict = outcome.predict
        if predict is not None:
            cache.array(
                "p", config, lambda: np.concatenate([predict(one) for one in (world.images[rows], *world.twins)])
            )
        said = {**outcome.said, "transition": repr(outcome.transition)}
        if doubts:
            said["doubts"] = sorted({str(one.message) for one in doubts})
        off = None
        if world.transition is not None and outcome.transition is not None:
            alpha = world.alpha[rows]
            away = outcome.transition.flip_probability(alpha) - world.transition.flip_probability(alpha)
            off = float(np.sqrt(np.mean(away**2)))
        print(f"{name} {seed} {method}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        given = None if outcome.labels is None else outcome.labels[rows].tolist()
        return {
            "said": said, "seconds": bench.seconds, "flip_rms": off, "predicts": predict is not None, "labels": given,
        }  # fmt: skip

    learned = cache.result("learned", config, learn)
    alpha, true = world.alpha[rows], world.truth[rows]
    p_disk, found_drift = None, float("nan")
    if learned["predicts"]:
        n = len(world.twins[0])
        every = cache.array("p", config, lambda: _missing(folder))
        p_disk, *twins = np.split(np.asarray(every), [rows.size + k * n for k in range(len(world.twins))])
        found_drift = drift(p_disk[:n], twins, true[:n])
    labels = np.array(learned["labels"]) if p_disk is None else (p_disk > 0.5).astype(np.int64)
    found: dict[str, float | None] = {
        **score(true, alpha, labels, p_disk, world.intrinsic[rows], seed), "drift": found_drift,
    }  # fmt: skip
    scores = {key: None if value is None or np.isnan(value) else value for key, value in found.items()}
    scores |= {"flip_rms": learned["flip_rms"], "seconds": learned["seconds"]}
    return {
        "world": name, "definition": world.definition, "seed": seed, "method": method, "scores": scores,
        "said": learned["said"],
    }  # fmt: skip


def _missing(folder: Path) -> np.ndarray:
    raise TruemorphError(f"{folder}: predictions of an earlier run are gone; delete the folder and run again")


def run_plan(plan: Plan, folder: Path, jobs: int = 1) -> list[dict[str, Any]]:
    """Run what is not yet in the cache.

    Parameters
    ----------
    plan : Plan
    folder : Path
        The cache; a run that was cut off goes on where it was.
    jobs : int
        Processes; with more than one, each computes in one thread.

    Returns
    -------
    list of dict
        `world`, `definition`, `seed`, `method`, `scores`, `said`.
    """
    from truemorph.benchmark.methods import METHODS

    unknown = [one for one in plan.worlds if one not in WORLDS] + [one for one in plan.methods if one not in METHODS]
    if unknown:
        raise InputError(
            f"no world or method {unknown[0]!r}; worlds: {', '.join(WORLDS)}; methods: {', '.join(METHODS)}"
        )
    # Worlds of one seed first, so that a run that is cut off has whole columns; naive before what builds on it.
    tasks = [
        (world, seed, method, plan, folder, 1 if jobs > 1 else 0)
        for seed in plan.seeds
        for world in plan.worlds
        for method in plan.methods
        if not (METHODS[method].knows_transition and world == "image annotator")
    ]
    if not tasks:
        raise InputError("nothing to run: nobody knows the right T(alpha) of somebody who looks at pictures")
    if "real" in plan.worlds and (plan.data is None or not (plan.data / "efigi_images.csv").is_file()):
        raise InputError(f"{plan.data}: no efigi_images.csv there; the real world needs it, or choose other `worlds`")
    require_extra("networks")
    if "cleanlab" in plan.methods:
        require_extra("benchmark")
    if jobs == 1:
        return [_run_one(task) for task in tasks]
    for world in plan.worlds:  # drawn once, by all cores, before workers want them
        for seed in plan.seeds:
            make_world(world, seed, plan.sizes, Cache(folder), plan.data)
    with worker_pool(jobs) as pool:
        return list(pool.map(_run_one, tasks))


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, best balanced accuracy first in each world.

    Returns
    -------
    list of dict
        `world`, `definition`, `method`, `seeds`, `means`, `stds` (metric to number or None).
    """
    out = []
    for world in dict.fromkeys(row["world"] for row in rows):
        here = [row for row in rows if row["world"] == world]
        lines = []
        for method in dict.fromkeys(row["method"] for row in here):
            found = [row for row in here if row["method"] == method]
            means, stds = {}, {}
            for metric in dict.fromkeys(name for row in found for name in row["scores"]):
                values = [row["scores"][metric] for row in found if row["scores"].get(metric) is not None]
                means[metric] = float(np.mean(values)) if values else None
                stds[metric] = float(np.std(values, ddof=1)) if len(values) > 1 else None
            lines.append(
                {"world": world, "definition": found[0]["definition"], "method": method, "seeds": len(found),
                 "means": means, "stds": stds}
            )  # fmt: skip
        out += sorted(lines, key=lambda line: -(line["means"]["balanced_accuracy"] or 0))
    return out


def described(plan: Plan, rows: Sequence[dict[str, Any]], command: str, trust: Sequence[str] = ()) -> dict[str, Any]:
    """The content of `leaderboard.json`."""
    return {
        "truemorph_version": __version__,
        "date": date.today().isoformat(),
        "command": command,
        "plan": {**asdict(plan), "data": str(plan.data) if plan.data else None},
        "trust": list(trust),
        "rows": summarise(rows),
        "runs": list(rows),
    }
