"""truemorph benchmark: a leaderboard of methods on data whose truth is known."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from truemorph.arguments import AtLeastOne, Names, Seed, validated
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.plotting import CYCLE, MARKERS, axes_or_new, legend, plain_text
from truemorph.results import Result, number, quantity_table, shortened, text_facts, text_table

# Scores of the table of a result.
_SCORES = ("balanced_accuracy", "log_loss", "fraction_rms_soft", "cv18_excess")


@dataclass(frozen=True, repr=False)
class Leaderboard(Result):
    """Scores of methods on worlds whose truth is known.

    Attributes
    ----------
    out : Path
        Folder with leaderboard.json, .csv, .md, .html and .png.
    content : dict
        The content of leaderboard.json, and `titles` of methods.
    findings : tuple of Finding

    Examples
    --------
    >>> import tempfile
    >>> options = {"catalogue_only": True, "worlds": ["plain"], "methods": ["labels"], "seeds": 1, "jobs": 1}
    >>> board = run_benchmark(out=Path(tempfile.mkdtemp()), **options)
    >>> [row["method"] for row in board.content["rows"]]
    ['labels']
    """

    out: Path
    content: dict[str, Any]
    findings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return the balanced accuracy of each method in each world as text."""
        keys = dict(zip(dict.fromkeys(row["world"] for row in self.content["rows"]), "ABCDEFGHIJ", strict=False))
        by_method: dict[str, dict[str, str]] = {}
        for row in self.content["rows"]:
            mean = number(row["means"].get("balanced_accuracy"), ".2f")
            by_method.setdefault(row["method"], {})[row["world"]] = mean
        rows = [[self._title(name), *(row.get(world, "–") for world in keys)] for name, row in by_method.items()]
        lines = [
            *text_facts([("worlds", "; ".join(f"{key} {world}" for world, key in keys.items()))]),
            *text_table(["balanced accuracy vs truth", *keys.values()], rows),
        ]
        return "\n".join([*lines, f"Next: open {self.out / 'leaderboard.html'}"])

    def _title(self, method: str) -> str:
        return shortened(str(self.content["titles"].get(method, method)), 40)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of leaderboard.json."""
        return self.content

    def to_table(self) -> Any:
        """Return a table with one row per world and method: mean scores over seeds."""
        rows = self.content["rows"]
        columns: dict[str, tuple[Any, str, str]] = {
            "world": ([row["world"] for row in rows], "", "simulated or real world"),
            "method": ([row["method"] for row in rows], "", "method"),
        }
        for metric in _SCORES:
            values = [row["means"].get(metric) for row in rows]
            columns[metric] = ([float("nan") if value is None else value for value in values], "", "mean over seeds")
        return quantity_table(columns)

    def plot(self, ax: Any = None) -> Any:
        """Draw the balanced accuracy of each method in each world; returns matplotlib axes."""
        ax = axes_or_new(ax, (6.4, 5))
        for k, world in enumerate(dict.fromkeys(row["world"] for row in self.content["rows"])):
            own = [row for row in self.content["rows"] if row["world"] == world]
            accuracies = [one["means"].get("balanced_accuracy") for one in own]
            titles = [plain_text(self._title(one["method"])) for one in own]
            color, marker = CYCLE[k % len(CYCLE)], MARKERS[k % len(MARKERS)]
            ax.plot(accuracies, titles, marker, color=color, label=plain_text(world))
        ax.set(xlabel="balanced accuracy vs truth")
        ax.invert_yaxis()
        legend(ax, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        return ax


@validated
def run_benchmark(
    *,
    out: Path,
    quick: bool = False,
    catalogue_only: bool = False,
    question: Literal["bar"] | None = None,
    data: Path | None = None,
    worlds: Names = (),
    methods: Names = (),
    seeds: AtLeastOne | None = None,
    train: AtLeastOne | None = None,
    test: AtLeastOne | None = None,
    epochs: AtLeastOne | None = None,
    jobs: AtLeastOne | None = None,
    seed: Seed = 0,
) -> Leaderboard:
    """Compare methods for biased labels on data whose truth is known.

    If interrupted, run the same command again to resume.

    Example: truemorph benchmark --quick --data shared/data --out leaderboard

    Parameters
    ----------
    out : path
        Folder for leaderboard.json, .csv, .md, .html and .png, and for intermediate results.
    quick : bool
        Use the plain and real worlds, six methods and one seed; takes minutes.
    catalogue_only : bool
        Use labels, votes and catalogue columns, without images; takes seconds.
    question : "bar", optional
        Compare networks for bars, from votes along a decision tree, instead of smooth or disk.
    data : path, optional
        Folder of real data; without it, only simulated worlds are used.
    worlds : sequence of str
        Worlds to use, comma-separated; default all.
    methods : sequence of str
        Methods to score, comma-separated; default all.
    seeds : int, optional
        Number of seeds; default 3, or 1 with quick.
    train : int, optional
        Training galaxies of a simulated world.
    test : int, optional
        Test galaxies of a simulated world.
    epochs : int, optional
        Number of epochs of every network.
    jobs : int, optional
        Number of processes; default 1, or one per core with `catalogue_only`.
    seed : int
        First seed.

    Returns
    -------
    Leaderboard

    Raises
    ------
    InputError
        If a world or method is unknown, or data are missing.

    Examples
    --------
    >>> run_benchmark(out="leaderboard", methods=["magic"])
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: no world or method 'magic'; worlds: ...
    """
    from truemorph.benchmark import page
    from truemorph.benchmark.leaderboard import BOARDS, EPOCHS, REAL_EPOCHS, Plan, described, run_plan
    from truemorph.benchmark.methods import NETWORKS, TABLES
    from truemorph.benchmark.worlds import FILES, Sizes

    sizes = {name: value for name, value in (("train", train), ("test", test)) if value is not None}
    if data is not None and not data.is_dir():
        raise InputError(f"{data}: no such folder of real data")
    if catalogue_only and (sizes or epochs or quick or question):
        left = "`quick`, `question`, `train`, `test` and `epochs`"
        raise InputError(f"`catalogue_only` trains no networks: leave {left} out")
    board = BOARDS[question or (TABLES if catalogue_only else NETWORKS)]
    every = ("plain", board.real) if quick else board.worlds
    chosen = tuple(worlds) or tuple(one for one in every if data is not None or one not in FILES)
    titles = {
        method.name: method.title for method in board.methods if not method.worlds or set(method.worlds) & set(chosen)
    }
    plan = Plan(
        worlds=chosen,
        methods=tuple(methods) or tuple(board.quick if quick else titles),
        seeds=tuple(range(seed, seed + (seeds or (1 if quick else 3)))),
        sizes=None if catalogue_only else replace(Sizes(), **sizes),
        epochs=epochs or EPOCHS,
        real_epochs=epochs or REAL_EPOCHS,
        data=data,
        question=question,
    )
    rows = run_plan(plan, out / "cache", jobs or (os.cpu_count() or 1 if catalogue_only else 1))
    trust = page.ANSWERED if question else page.RELABELLED if catalogue_only else page.TRAINED
    content = described(plan, rows, trust)
    page.write_leaderboard(content, titles, out, board.classes)
    return Leaderboard(out, {**content, "titles": titles})
