"""What `benchmark` does: worlds and methods in, a leaderboard out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truemorph.errors import InputError


def run_benchmark(
    out: Path,
    *,
    catalogue_only: bool = False,
    quick: bool = False,
    worlds: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: int | None = None,
    data: Path | None = None,
    cache: Path | None = None,
    jobs: int | None = None,
    seed: int = 0,
    command: str = "",
    **sizes: int,
) -> dict[str, Any]:
    """Run a leaderboard and write it.

    Parameters
    ----------
    out : Path
        Folder for `leaderboard.json`, `.md`, `.html` and `.png`.
    catalogue_only : bool
        Labels, votes and columns alone: seconds instead of hours.
    quick : bool
        Plain and real worlds, six methods, one seed.
    worlds, methods : sequence of str
        Default: all.
    seeds : int, optional
        How many; default 3, 1 with `quick`.
    data : Path, optional
        Folder of real data; worlds that need it are left out where it is not given.
    cache : Path, optional
        Where stages are kept; default `<out>/cache`.
    jobs : int, optional
        Processes; default one, which computes on all cores, but one a core for catalogues.
    seed : int
        The first of the seeds.
    command : str
        What to write down as the command.
    **sizes : int
        Changes of `worlds.Sizes`, and `epochs`.

    Returns
    -------
    dict
        The content of `leaderboard.json`.

    Raises
    ------
    InputError
        If a world or method is unknown, or data are missing.
    """
    from truemorph.benchmark import catalogues, leaderboard, tables
    from truemorph.benchmark.worlds import WORLDS, Sizes, smaller

    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is a number of processes, 1 or more; got {jobs}")
    if data is not None and not data.is_dir():
        raise InputError(f"{data}: no such folder of real data")
    numbers = tuple(range(seed, seed + (seeds or (1 if quick else 3))))
    if catalogue_only:
        if worlds or methods or sizes or quick or cache:
            raise InputError(
                "--catalogue-only runs all of its worlds and methods: leave --quick, --worlds, --methods, "
                "--train, --test, "
                "--epochs and --cache out"
            )
        rows = catalogues.run_catalogues(numbers, data, jobs or os.cpu_count() or 1)
        plan = leaderboard.Plan(seeds=numbers, data=data, worlds=tuple(dict.fromkeys(row["world"] for row in rows)),
                                methods=tuple(dict.fromkeys(row["method"] for row in rows)))  # fmt: skip
        titles = {name: title for name, (title, _) in catalogues.METHODS.items()}
        titles |= {name: name for name in plan.methods if name not in titles}
        answer = "Labels, votes and catalogue columns alone, without images, on tables whose truth is known."
    else:
        from truemorph.benchmark.methods import METHODS, QUICK

        shortened = "epochs" in sizes
        epochs = sizes.pop("epochs", leaderboard.EPOCHS)
        chosen = tuple(worlds) or (("plain", "real") if quick else WORLDS)
        if data is None and "real" in chosen:
            if worlds:
                raise InputError("the real world needs --data, a folder with EFIGI's images and types")
            chosen = tuple(one for one in chosen if one != "real")
        plan = leaderboard.Plan(
            worlds=chosen,
            methods=tuple(methods) or (QUICK if quick else tuple(METHODS)),
            seeds=numbers,
            sizes=smaller(Sizes(), **sizes),
            epochs=epochs,
            real_epochs=epochs if shortened else leaderboard.REAL_EPOCHS,
            data=data,
        )
        rows = leaderboard.run_plan(plan, cache or out / "cache", jobs or 1)
        titles = {name: method.title for name, method in METHODS.items()}
        answer = "Networks trained on the same pictures and the same biased labels, by every method."
    trust = tables.RELABELLED if catalogue_only else tables.TRAINED
    content = leaderboard.described(plan, rows, command, trust)
    tables.write_leaderboard(content, titles, out, answer)
    return {**content, "titles": titles}
