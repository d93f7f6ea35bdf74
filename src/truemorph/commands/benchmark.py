"""truemorph benchmark: a leaderboard of methods on data whose truth is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from truemorph.arguments import AtLeastOne, Names, Seed, validated
from truemorph.errors import InputError
from truemorph.findings import Findings
from truemorph.plotting import legend
from truemorph.results import Result, number, text_facts, text_table


class Leaderboard(Result):
    """Scores of methods on worlds whose truth is known.

    Attributes
    ----------
    out : Path
        Folder with leaderboard.json, .csv, .md, .html and .png.
    content : dict
        The content of leaderboard.json.
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
    findings: Findings = ()

    def summary(self) -> str:
        """Return the balanced accuracy of each method in each world as text."""
        means = {
            (row["world"], row["method"]): number(row["means"].get("balanced_accuracy"), ".2f")
            for row in self.content["rows"]
        }
        keys = dict(zip(dict.fromkeys(world for world, _ in means), "ABCDEFGHIJ", strict=False))
        titles = self.content["titles"]
        rows = [[title, *(means.get((world, name), "–") for world in keys)] for name, title in titles.items()]
        lines = text_facts([("worlds", "; ".join(f"{key} {world}" for world, key in keys.items()))])
        lines += text_table(["balanced accuracy vs truth", *keys.values()], rows)
        return "\n".join([*lines, f"Next: open {self.out / 'leaderboard.html'}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the content of leaderboard.json."""
        return self.content

    def to_table(self) -> Any:
        """Return leaderboard.csv as a table: one row per world and method."""
        from truemorph.benchmark.page import scores_frame
        from truemorph.tables import to_astropy

        return to_astropy(scores_frame(self.content["rows"], self.content["titles"]))

    _figure_size = 6.4, 5

    def draw(self, ax: Any) -> None:
        """Draw the balanced accuracy of each method in each world."""
        from truemorph.benchmark.page import draw_scores

        draw_scores(ax, self.content["rows"], self.content["titles"])
        legend(ax, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


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
        Use the plain and real worlds, a few methods and one seed; takes minutes.
    catalogue_only : bool
        Use labels, votes and catalogue columns, without images; takes a minute or two.
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
    truemorph.errors.InputError: no method 'magic'; methods: ...
    """
    from truemorph.benchmark import page
    from truemorph.benchmark.leaderboard import BOARDS, EPOCHS, REAL_EPOCHS, Plan, described, run_plan
    from truemorph.benchmark.methods import NETWORKS, QUICK, TABLES
    from truemorph.benchmark.worlds import FILES, Sizes

    if data is not None and not data.is_dir():
        raise InputError(f"{data}: no such folder of real data")
    if catalogue_only and (train or test or epochs or quick or question):
        raise InputError(
            "`catalogue_only` trains no networks: leave `quick`, `question`, `train`, `test` and `epochs` out"
        )
    board = BOARDS[question or (TABLES if catalogue_only else NETWORKS)]
    every = (board.worlds[0], board.worlds[-1]) if quick else board.worlds
    plan = Plan(
        worlds=tuple(worlds) or tuple(world for world in every if data is not None or world not in FILES),
        methods=tuple(methods) or tuple(name for name in board.methods if not quick or name in QUICK),
        seeds=tuple(range(seed, seed + (seeds or (1 if quick else 3)))),
        sizes=None if catalogue_only else Sizes(train or Sizes.train, test=test or Sizes.test),
        epochs=epochs or EPOCHS,
        real_epochs=epochs or REAL_EPOCHS,
        data=data,
        question=question,
    )
    rows = run_plan(plan, out / "cache", jobs or (os.cpu_count() or 1 if catalogue_only else 1))
    trust = page.ANSWERED if question else page.RELABELLED if catalogue_only else page.TRAINED
    content = described(plan, rows, trust)
    page.write_leaderboard(content, out, board.of)
    return Leaderboard(out, content)
