"""How the networks of a report were trained, and where they look: mean Grad-CAM maps and profiles (Figures 5 to 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np
import polars as pl

from truemorph.arguments import listed
from truemorph.catalogs.catalogue import image_folder
from truemorph.config import options_in
from truemorph.explain.catalogue import findings_of
from truemorph.findings import Finding
from truemorph.plotting import legend, plain_text
from truemorph.questions import slug
from truemorph.report.evidence import Evidence
from truemorph.report.figures import new_panel, styles_of
from truemorph.report.lights import Check
from truemorph.report.page import Illustration, Section, Table
from truemorph.tables import numeric_columns, read_table

# Networks of random weights that check the maps of each model.
_DRAWS = 5
_ABOUT_MAPS = (
    "Grad-CAM shows which parts of the picture raise a class score. It does not show that the network uses "
    "them as an astronomer would: see in the findings whether maps of random weights look the same, and do "
    "not read a bright frame or corner as structure."
)


def training(every: Sequence[Evidence]) -> tuple[list[Section], list[Finding]]:
    """A section about the networks among the models, with the settings that differ; and findings."""
    models = {model.name: model.classifier for evidence in every for model in evidence.models}
    settings: dict[str, dict[str, Any]] = {}
    histories: dict[str, pl.DataFrame] = {}
    catalogues = set()
    for name, model in models.items():
        folder = model.folder
        if folder is not None and (path := folder / "history.csv").is_file():
            run = {option.replace("-", "_"): value for option, value in options_in(folder / "run.toml").items()}
            settings[name] = run | model.config.model_dump(mode="json")
            history = histories[name] = read_table(path).frame
            numeric_columns(history, ["epoch", "held_out_loss", *history.columns], str(path))
            catalogues.add(model.trained_on["sha256"])
    if not histories:
        return [], []
    findings = []
    if len(catalogues) > 1:
        text = "These models were not trained on the same catalogue, so differences between them have several causes."
        action = "Train them on one catalogue to compare them."
        findings.append(Finding("runs-differ-in-catalogue", "caution", text, action))
    rows = []
    for key in sorted({key for run in settings.values() for key in run} - {"out"}):
        values = [", ".join(map(str, listed(run.get(key)))) or "–" for run in settings.values()]
        if len({*values}) > 1:
            rows.append([key, *values])
    tables = [Table("Settings that differ", ["setting", *settings], rows)] if rows else []
    return [Section("Training", figures=[_epochs(histories, every)], tables=tables)], findings


def _epochs(histories: Mapping[str, pl.DataFrame], every: Sequence[Evidence]) -> Illustration:
    """Held-out loss, probabilities of the first answers at both ends of α, and bias, by epoch."""
    styles = {name: style for evidence in every for name, style in styles_of(evidence).items()}
    answers = [evidence.answer for evidence in every]
    shown = [f"fraction_{slug(answer)}_{end}" for answer in answers for end in (1, 5)]
    mean_p = f"mean p({' or '.join(answers)})"
    left, middle, right = (new_panel() for _ in range(3))
    for name, history in histories.items():
        colour = styles[name]["color"]
        mean = history.group_by("epoch").mean().sort("epoch")
        epoch = mean["epoch"] + 1
        left.plot(epoch, mean["held_out_loss"], color=colour, marker=".", label=plain_text(name))
        for column in mean.columns:
            if column in shown:
                middle.plot(epoch, mean[column], "--" if column.endswith("1") else "-", color=colour, marker=".")
            elif "_excess" in column:
                right.plot(epoch, mean[column], color=colour, marker=".")
    left.set(xlabel="epoch", ylabel="held-out loss")
    middle.set(xlabel="epoch", ylabel=mean_p, ylim=(0, 1))
    right.set(xlabel="epoch", ylabel="drift with α above floor")
    right.set_ylim(bottom=0)
    legend(left)
    data = [history.select(pl.lit(name).alias("run"), pl.all()) for name, history in histories.items()]
    return Illustration(
        "training",
        [panel.figure for panel in (left, middle, right)],
        f"By epoch, mean over members that were still training: held-out loss; {mean_p} of the least (dashed) "
        "and the best resolved fifth (solid) of held-out galaxies; drift with α above the floor.",
        pl.concat(data, how="diagonal_relaxed"),
    )


def looks(evidence: Evidence) -> tuple[list[Section], list[Check]]:
    """A section with mean maps and profiles of at most `maps` galaxies, and checks; nothing without networks.

    Of a question they are of the galaxies that a model predicts to have the answer that is named first.
    """
    options, frame = evidence.options, evidence.frame
    if not options.maps or not evidence.models or "image" not in frame.columns:
        return [], []
    chosen, classes, of = list(evidence.models), evidence.classes, ""
    if evidence.question is not None:
        of = f" ({evidence.question})"
        classes = tuple(dict.fromkeys(model.head.columns[model.explained] for model in chosen))
        called = [model.p[evidence.rows].argmax(axis=1) == model.explained for model in chosen]
        frame = frame.filter(np.any(called, axis=0))
        chosen = list(compress(chosen, np.any(called, axis=1)))
    models = {model.name: model.classifier for model in chosen if model.classifier.uses_images}
    frame = frame.drop_nulls("image")
    if not models or frame.is_empty():
        return [], []
    from truemorph.explain.plots import mean_map_figure, profile_figure
    from truemorph.explain.study import PIXELS, explain, galaxies_of, profile_table

    if frame.height > options.maps:
        frame = frame.sample(options.maps, seed=options.seed)
    source = galaxies_of(frame, image_folder(evidence.catalogue))
    explanations = explain(models, source, frame.height, classes=classes, draws=_DRAWS, seed=options.seed)
    # Maps are an illustration here: labels and fractions do not depend on them.
    made: list[Check] = [replace(finding, severity="note") for finding in findings_of(explanations)]
    for name, explanation in explanations.items():
        if explanation.check is not None and explanation.check.passes:
            made.append((f"Maps of {name} against random weights", explanation.check.statement))
    what = "; ".join(
        f"{name}: {explanation.layer}, {explanation.cells}×{explanation.cells} cells"
        for name, explanation in explanations.items()
    )
    colours = {name: style["color"] for name, style in styles_of(evidence).items()}
    maps = Illustration(
        evidence.file_name("maps"),
        mean_map_figure(explanations),
        f"Where each model looks (paper, Figures 5 and 6): mean Grad-CAM map of the galaxies that it calls "
        f"{' or '.join(classes)}, {frame.height:,} in all. {what}; what is finer is interpolated.",
    )
    profiles = Illustration(
        evidence.file_name("profiles"),
        profile_figure(explanations, PIXELS, colours),
        "The same against distance from the centre (Figure 7); bands: standard errors over galaxies.",
        profile_table(explanations, PIXELS),
    )
    return [Section(f"Where the networks look (Grad-CAM){of}", _ABOUT_MAPS, [maps, profiles])], made
