"""Training runs side by side: what differs, how each learned, and how biased its predictions are."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.errors import InputError
from truemorph.report.figures import training_figure
from truemorph.report.page import Page, Table, picture

_QUINTILES = 5


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    Attributes
    ----------
    name : str
    settings : dict
        Of `run.toml`, those of training without their prefix.
    described : dict
        Of `config.json`.
    history : polars.DataFrame
        One row an epoch and member.
    environment : dict
    """

    name: str
    settings: dict[str, Any]
    described: dict[str, Any]
    history: pl.DataFrame
    environment: dict[str, Any]


def read_run(folder: Path) -> Run:
    """Read what `truemorph train` wrote beside a model.

    Raises
    ------
    InputError
        If the folder is not a finished run of a network.
    """
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        history = pl.read_csv(folder / "history.csv")
    except (OSError, ValueError, pl.exceptions.PolarsError) as problem:
        unfinished = (folder / "unfinished").is_dir()
        advice = "finish it with the command that began it" if unfinished else "give a folder of `truemorph train`"
        raise InputError(f"{folder}: not a finished run of a network ({problem}); {advice}") from problem
    settings |= settings.pop("training", {})
    return Run(folder.name, settings, described, history, environment)


def best_epochs(run: Run) -> pl.DataFrame:
    """The epoch of each member whose weights were kept."""
    return run.history.filter(pl.col("held_out_loss") == pl.col("held_out_loss").min().over("member")).unique(
        "member", keep="first"
    )


def _unique_names(runs: Sequence[Run], folders: Sequence[Path]) -> list[str]:
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _measures(run: Run) -> dict[str, float | None]:
    """Means over members, at the epochs that were kept."""
    best, by_member = best_epochs(run), run.history.group_by("member")
    columns = [name for name in best.columns if name not in ("member", "epoch", "seconds", "train_loss")]
    seconds = by_member.agg(pl.col("seconds").max())["seconds"].sum()
    found: dict[str, Any] = {name: best[name].mean() for name in columns}
    return found | {"epochs": by_member.len()["len"].mean(), "seconds": float(seconds)}


def compare_runs(folders: Sequence[Path]) -> tuple[Page, dict[str, Any]]:
    """Put runs side by side.

    Parameters
    ----------
    folders : sequence of Path
        Run folders.

    Returns
    -------
    page : Page
    content : dict
        The same numbers: `runs` by name with `measures` and `settings` that differ.

    Raises
    ------
    InputError
        If one is not a finished run.
    """
    runs = [read_run(folder) for folder in folders]
    names = _unique_names(runs, folders)
    measures = [_measures(run) for run in runs]
    every = {key for run in runs for key in run.settings} - {"out"}
    differing = sorted(key for key in every if len({json.dumps(run.settings.get(key)) for run in runs}) > 1)
    disk = [f"fraction_disk_{number}" for number in range(1, _QUINTILES + 1)]

    def number(value: float | None, form: str = ".3f") -> str:
        return "–" if value is None else format(value, form)

    def bias(found: dict[str, float | None]) -> str:
        return next((f"{name[:4].upper()} {value:.3f}" for name, value in found.items() if "_excess" in name), "–")

    table = [
        [
            name,
            f"{run.described['transition']['family']}",
            number(found["held_out_loss"], ".4f"),
            *(number(found.get(key), ".2f") for key in disk),
            bias(found),
            number(found["epochs"], ".1f"),
            number(found["seconds"], ".0f"),
        ]
        for name, run, found in zip(names, runs, measures, strict=True)
    ]
    trained = {json.dumps(run.described["catalogue"]["sha256"]) for run in runs}
    trust = [
        "Everything is measured on each run's held-out galaxies, from the epochs whose weights were kept, mean over "
        "members; no true class enters.",
        "A held-out loss is minus the mean log-likelihood of what was observed, through the T(α) of its run: losses of "
        "runs with different T(α) say different things.",
        "Unbiased predictions have the same mean probability in every quintile of α only where true class fractions do "
        "not depend on α; the excess is the drift above sampling noise (CV18 among galaxies alike in the intrinsic "
        "columns of the run, CV14 without).",
    ]
    if len(trained) > 1:
        trust.append("Warning: these runs did not train on the same catalogue.")
    settings = Table(
        "Settings that differ",
        ["setting", *names],
        [[key, *(str(run.settings.get(key, "–")) for run in runs)] for key in differing],
        "" if differing else "None.",
    )
    where = ("accelerators", "cpus", "torch", "truemorph", "finished")
    environments = Table(
        "Where and when",
        ["", *names],
        [[key, *(str(run.environment.get(key, "–")) for run in runs)] for key in where],
    )
    through = {
        json.dumps(
            [*(run.described["transition"].get(key) for key in ("family", "parameters")), run.settings.get("votes")]
        )
        for run in runs
    }
    lead = min(zip(measures, names, strict=True), key=lambda one: one[0]["held_out_loss"] or float("inf"))
    if len(trained) > 1 or len(through) > 1:
        answer = "These runs learned different things: compare how their predictions drift with α, not their losses."
    else:
        answer = f"Lowest held-out loss: {lead[1]}, {number(lead[0]['held_out_loss'], '.4f')}."
    figure = training_figure({name: run.history for name, run in zip(names, runs, strict=True)})
    page = Page(
        title=f"Training runs: {', '.join(names)}",
        answer=answer,
        trust=trust,
        table_head=[
            "run",
            "T(α)",
            "held-out loss",
            *(f"p(disk), α {k}/5" for k in range(1, 6)),
            "bias above noise",
            "epochs",
            "seconds",
        ],
        table=table,
        table_note="p(disk): mean probability in quintiles of α, 1 the least resolved.",
        pictures=[
            picture(
                figure,
                "Held-out loss, mean disk probability of the least and best resolved fifth, and bias, by epoch.",
                "By epoch, mean over members that were still training: held-out loss; mean p(disk) of the least "
                "(dashed) and the best resolved fifth (solid) of held-out galaxies; drift with α above sampling noise.",
            )
        ],
        gallery_title="",
        gallery=[],
        methods=[
            "Medina-Rosales, Cabrera-Vives & Miller, MNRAS, arXiv:2308.11007: the likelihood through T(α).",
            "Cabrera-Vives, Miller & Schneider 2018: the bias measure by which predictions are watched.",
        ],
        tables=[settings, environments],
    )
    content = {
        "runs": {
            name: {"measures": found, "settings": {key: run.settings.get(key) for key in differing}}
            for name, run, found in zip(names, runs, measures, strict=True)
        }
    }
    return page, content
