"""Training runs side by side: how each was trained, how it learned, and how biased its predictions are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import read_json, read_toml


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


def compare_runs(runs: Mapping[str, Run]) -> tuple[dict[str, Any], list[Finding]]:
    """By run: `measures`, means over members at the epochs that were kept, and `settings` that differ; and findings."""
    every = {key for run in runs.values() for key in run.settings} - {"out"}
    differing = sorted(key for key in every if len({json.dumps(run.settings.get(key)) for run in runs.values()}) > 1)
    content = {
        name: {"measures": _measures(run), "settings": {key: run.settings.get(key) for key in differing}}
        for name, run in runs.items()
    }
    if len({json.dumps(run.described["catalogue"]["sha256"]) for run in runs.values()}) < 2:
        return content, []
    return content, [
        Finding(
            "runs-differ-in-catalogue",
            "caution",
            "These models were not trained on the same catalogue, so differences between them have several causes.",
            "Train them on one catalogue to compare them.",
        )
    ]


def _measures(run: Run) -> dict[str, float | None]:
    kept = run.history.filter(pl.col("held_out_loss") == pl.col("held_out_loss").min().over("member"))
    kept = kept.unique("member", keep="first")
    by_member = run.history.group_by("member")
    columns = [name for name in kept.columns if name not in ("member", "epoch", "seconds", "train_loss")]
    seconds = by_member.agg(pl.col("seconds").max())["seconds"].sum()
    found: dict[str, Any] = {name: kept[name].mean() for name in columns}
    return found | {"epochs": by_member.len()["len"].mean(), "seconds": float(seconds)}
