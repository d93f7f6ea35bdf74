"""Training runs side by side: what differs, how each learned, and how biased its predictions are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import read_json, read_toml
from truemorph.report.figures import training_figure
from truemorph.report.page import Illustration, Table, number
from truemorph.report.style import Style

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
        described = read_json(folder / "config.json")
        settings = read_toml(folder / "run.toml")
        environment = read_json(folder / "environment.json")
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


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Names of runs: of their folders, or whole paths where two folders are called the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _measures(run: Run) -> dict[str, float | None]:
    """Means over members, at the epochs that were kept."""
    best, by_member = best_epochs(run), run.history.group_by("member")
    columns = [name for name in best.columns if name not in ("member", "epoch", "seconds", "train_loss")]
    seconds = by_member.agg(pl.col("seconds").max())["seconds"].sum()
    found: dict[str, Any] = {name: best[name].mean() for name in columns}
    return found | {"epochs": by_member.len()["len"].mean(), "seconds": float(seconds)}


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "–" if value is None else str(value)


def comparison(runs: Sequence[Run], names: Sequence[str]) -> tuple[list[Table], list[Finding], dict[str, Any]]:
    """Training runs side by side.

    Parameters
    ----------
    runs : sequence of Run
    names : sequence of str

    Returns
    -------
    tables : list of Table
        What was measured on held-out galaxies, settings that differ, where and when.
    findings : list of Finding
    content : dict
        The same numbers by run: `measures`, and `settings` that differ.
    """
    measures = [_measures(run) for run in runs]
    every = {key for run in runs for key in run.settings} - {"out"}
    differing = sorted(key for key in every if len({json.dumps(run.settings.get(key)) for run in runs}) > 1)
    disk = [f"fraction_disk_{number}" for number in range(1, _QUINTILES + 1)]

    def bias(found: dict[str, float | None]) -> str:
        return next((f"{name[:4].upper()} {value:.3f}" for name, value in found.items() if "_excess" in name), "–")

    held_out = Table(
        "Training",
        ["run", "T(α)", "held-out loss", *(f"p(disk), α {k}/5" for k in range(1, 6)), "bias above noise", "epochs",
         "seconds"],
        [
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
        ],
        "Measured on each run's held-out galaxies, at the epochs whose weights were kept, mean over members; no true "
        "class enters. Held-out loss: minus the mean log-likelihood of what was observed, through the T(α) of the run: "
        "losses of runs with different T(α) say different things. p(disk): mean probability in fifths of α, 1 the "
        "least resolved. Bias: drift with α above sampling noise.",
    )  # fmt: skip
    tables = [held_out]
    if len(runs) > 1 and differing:
        rows = [[key, *(str(run.settings.get(key, "–")) for run in runs)] for key in differing]
        tables.append(Table("Settings that differ", ["setting", *names], rows))
    where = ("accelerators", "cpus", "torch", "truemorph", "finished")
    rows = [[key, *(_said(run.environment.get(key)) for run in runs)] for key in where]
    tables.append(Table("Where and when", ["", *names], rows))
    findings = []
    if len({json.dumps(run.described["catalogue"]["sha256"]) for run in runs}) > 1:
        findings.append(
            Finding(
                "runs-differ-in-catalogue",
                "caution",
                "These models were not trained on the same catalogue, so differences between them have several causes.",
                "Train them on one catalogue to compare them.",
            )
        )
    content = {
        name: {"measures": found, "settings": {key: run.settings.get(key) for key in differing}}
        for name, run, found in zip(names, runs, measures, strict=True)
    }
    return tables, findings, content


def training_illustration(runs: Sequence[Run], names: Sequence[str], styles: Mapping[str, Style]) -> Illustration:
    """How each run learned, epoch by epoch."""
    data = pl.concat(
        [run.history.select(pl.lit(name).alias("run"), pl.all()) for name, run in zip(names, runs, strict=True)],
        how="diagonal_relaxed",
    )
    return Illustration(
        "training",
        training_figure(
            {name: run.history for name, run in zip(names, runs, strict=True)},
            {name: styles[name]["color"] for name in names},
        ),
        "Held-out loss, mean disk probability of the least and best resolved fifth, and bias, by epoch.",
        "By epoch, mean over members that were still training: held-out loss; mean p(disk) of the least (dashed) and "
        "the best resolved fifth (solid) of held-out galaxies; drift with α above sampling noise.",
        data,
    )
