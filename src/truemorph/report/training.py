"""How the models of a report were trained and learned, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from truemorph.findings import Finding
from truemorph.io import read_toml
from truemorph.plotting import plain_text
from truemorph.report.evidence import Evidence
from truemorph.report.figures import new_panel, styles_of
from truemorph.report.page import Illustration, Section, Table
from truemorph.tables import read_table


@dataclass(frozen=True)
class Run:
    """What `truemorph train` wrote beside a network."""

    settings: dict[str, Any]  # of run.toml, those of training without their prefix
    catalogue: Any  # sha256 of what it was trained on
    history: pl.DataFrame  # one row an epoch and member


def training(found: Evidence) -> tuple[list[Section], dict[str, Any], list[Finding]]:
    """A section about the networks among the models, what report.json says of each, and findings."""
    runs = {}
    for model in found.models:
        folder = model.classifier.folder
        if folder is not None and (folder / "history.csv").is_file():
            settings = read_toml(folder / "run.toml")
            settings |= settings.pop("training", {})
            history = read_table(folder / "history.csv").frame
            runs[model.name] = Run(settings, model.classifier.described["catalogue"]["sha256"], history)
    if not runs:
        return [], {}, []
    every = {key for run in runs.values() for key in run.settings} - {"out"}
    differing = sorted(key for key in every if len({json.dumps(run.settings.get(key)) for run in runs.values()}) > 1)
    content = {name: {"settings": {key: run.settings.get(key) for key in differing}} for name, run in runs.items()}
    findings = []
    if len({json.dumps(run.catalogue) for run in runs.values()}) > 1:
        text = "These models were not trained on the same catalogue, so differences between them have several causes."
        action = "Train them on one catalogue to compare them."
        findings.append(Finding("runs-differ-in-catalogue", "caution", text, action))
    rows = [[key, *(str(run.settings.get(key, "–")) for run in runs.values())] for key in differing]
    tables = [Table("Settings that differ", ["setting", *runs], rows)] if differing else []
    return [Section("Training", figures=[_epochs(runs, found)], tables=tables)], content, findings


def _epochs(runs: Mapping[str, Run], found: Evidence) -> Illustration:
    """Held-out loss, disk probabilities at both ends of α, and bias, by epoch."""
    styles = styles_of(found)
    left, middle, right = (new_panel() for _ in range(3))
    for name, run in runs.items():
        colour = styles[name]["color"]
        mean = run.history.group_by("epoch").mean().sort("epoch")
        epoch = mean["epoch"] + 1
        left.plot(epoch, mean["held_out_loss"], color=colour, marker=".", label=plain_text(name))
        for column, line in (("fraction_disk_1", "--"), ("fraction_disk_5", "-")):
            if column in mean.columns:
                middle.plot(epoch, mean[column], line, color=colour, marker=".")
        for column in mean.columns:
            if column.endswith("_excess"):
                right.plot(epoch, mean[column], color=colour, marker=".")
    left.set(xlabel="epoch", ylabel="held-out loss")
    middle.set(xlabel="epoch", ylabel="mean p(disk)", ylim=(0, 1))
    right.set(xlabel="epoch", ylabel="drift with α above floor")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    data = [run.history.select(pl.lit(name).alias("run"), pl.all()) for name, run in runs.items()]
    return Illustration(
        "training",
        [one.figure for one in (left, middle, right)],
        "Held-out loss, mean disk probability of the least and best resolved fifth, and bias, by epoch.",
        "By epoch, mean over members that were still training: held-out loss; mean p(disk) of the least (dashed) "
        "and the best resolved fifth (solid) of held-out galaxies; drift with α above the floor.",
        pl.concat(data, how="diagonal_relaxed"),
    )
