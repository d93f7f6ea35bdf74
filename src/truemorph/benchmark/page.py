"""The leaderboard for readers: a figure and a summary as Markdown and HTML, all scores as CSV and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.benchmark.figure import leaderboard_figure
from truemorph.io import write_json
from truemorph.report.page import Illustration, Page, Section, Table, number, with_error, write_page

# Each metric: its column head and what it is. All but the first are shown where a row has them.
METRICS = {
    "balanced_accuracy": (
        "balanced accuracy",
        "mean of the accuracies of smooth and of disk galaxies, at p(disk) = 0.5",
    ),
    "balanced_accuracy_at_fraction": (
        "balanced accuracy at mean p",
        "the same, with the mean of the method's p(disk) as threshold; best for calibrated probabilities",
    ),
    "auc": ("AUC", "area under the ROC curve"),
    "log_loss": ("log-loss", "mean of -ln p(true class)"),
    "calibration_error": ("calibration error", "mean distance between probability and frequency"),
    "fraction_rms_hard": ("fraction error, labels", "rms error of the disk fraction in five bins of α, from labels"),
    "fraction_rms_soft": ("fraction error, probabilities", "the same, from probabilities"),
    "cv18_excess": ("CV18 above floor", "drift of labels with α, above that of unbiased labels"),
    "accuracy_low": ("balanced accuracy, low α", "for the third of galaxies with the lowest α"),
    "accuracy_middle": ("middle α", "for the middle third"),
    "accuracy_high": ("high α", "for the third with the highest α"),
    "drift": (
        "shift with distance",
        "rms, over classes and distances, of the mean change of p(disk) when the same galaxies are moved away, to "
        "α / 1.5 and α / 2.5; not zero for an ideal classifier, because distant galaxies show less",
    ),
    "flip_rms": ("T(α) error", "rms error of the flip probabilities that the method assumed"),
    "seconds": ("CPU time (s)", "training, all cores together"),
}
_ACCURACY = ("balanced_accuracy",)
_ERROR = ("fraction_rms_soft", "fraction_rms_hard")
_PANELS = {
    "balanced accuracy (high is good)": _ACCURACY,
    "error of the disk fraction (low is good)": _ERROR,
}
SUMMARY = (
    "Balanced accuracy / rms error of the disk fraction over five bins of α, both vs truth. The error is that of the "
    "method's probabilities, or of its labels where it gives no probabilities."
)
TRAINED = (
    "Scored vs truth on test galaxies. All methods may use the same images, labels, votes and columns. Votes are used "
    "by matching and by the three DDB methods with votes. Intrinsic columns (in the real world, axis ratio and colour "
    "of the original image) are used by matching, by T(α) given intrinsic columns, and by DDB on votes and 300 gold "
    "labels. Methods with gold labels know 300 true classes.",
    "In the plain, confounded and real worlds, labels follow the paper's model, so DDB with the true T(α) has an "
    "advantage by construction. In the heavy-tailed world, the Rayleigh family is wrong. In the world of the image "
    "annotator, flips depend on the image, not only on class and α.",
)
RELABELLED = (
    "Methods relabel the galaxies whose labels they were given, and are scored on those without a gold label; DCV14 is "
    "out of fold. Methods with gold labels know 300 true classes.",
    "Truth of the real galaxies are experts' types, from the same SDSS images that the volunteers saw. There, α is "
    "R90 / σ_PSF (GZ1: g band, one seeing of 1.32 arcsec for all).",
    "Vote fractions of Hart et al. and of matching are used as p(disk), for which they were not made: compare their "
    "AUC and their fraction errors from labels. For real galaxies, the spread over seeds is that of folds and gold "
    "labels alone; the sampling error of an accuracy is about 0.02 for 690 galaxies (GZ2) and 0.006 for 8,966 (GZ1).",
)


def cell(row: Mapping[str, Any], metric: str) -> str:
    """Format a mean and its standard deviation over seeds."""
    mean, std = row["means"].get(metric), row["stds"].get(metric)
    if mean is None:
        return "–"
    if metric == "seconds":
        return f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}"
    return with_error(mean, std)


def _metrics_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [one for one in METRICS if any(row["means"].get(one) is not None for row in rows)]


def summary_table(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Table:
    """Balanced accuracy and fraction error of each method (rows) in each world (columns)."""
    worlds = list(dict.fromkeys(row["world"] for row in rows))
    means = {(row["method"], row["world"]): row["means"] for row in rows}

    def both(method: str, world: str) -> str:
        found = means.get((method, world))
        if found is None:
            return "–"
        return " / ".join(
            number(next((found[one] for one in metrics if found.get(one) is not None), None))
            for metrics in (_ACCURACY, _ERROR)
        )

    shown = [method for method in titles if any(method == row["method"] for row in rows)]
    lines = [[titles[method], *(both(method, world) for world in worlds)] for method in shown]
    return Table("Summary", ["method", *worlds], lines, SUMMARY)


def world_tables(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[Table]:
    """Return one table a world with all metrics, best balanced accuracy first."""
    tables = []
    for world in dict.fromkeys(row["world"] for row in rows):
        here = [row for row in rows if row["world"] == world]
        columns = _metrics_of(here)
        tables.append(
            Table(
                f"{world[0].upper()}{world[1:]}",
                ["method", *(METRICS[metric][0] for metric in columns)],
                [
                    [titles.get(row["method"], row["method"]), *(cell(row, metric) for metric in columns)]
                    for row in here
                ],
                f"{here[0]['definition']}; mean ± standard deviation over seeds ({max(row['seeds'] for row in here)}).",
            )
        )
    return tables


def scores_frame(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> pl.DataFrame:
    """Return all scores, one row a world and method; of each metric its mean over seeds and, as `_std`, its spread."""
    return pl.DataFrame(
        [
            {key: row[key] for key in ("world", "definition", "method")}
            | {"title": titles.get(row["method"], row["method"]), "seeds": row["seeds"]}
            | {
                f"{metric}{end}": None if (value := row[kind].get(metric)) is None else float(value)
                for metric in _metrics_of(rows)
                for end, kind in (("", "means"), ("_std", "stds"))
            }
            for row in rows
        ],
        infer_schema_length=None,
    )


def _measures() -> Table:
    return Table(
        "Columns", ["metric", "name in files", "meaning"], [[h, f"`{k}`", about] for k, (h, about) in METRICS.items()]
    )


def markdown(content: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Return figure, summary and meaning of the metrics as Markdown."""
    table = summary_table(content["rows"], titles)
    lines = [
        "# Leaderboard",
        *content["trust"],
        f"{table.note} All scores are in leaderboard.csv.",
        "![Balanced accuracy and error of the disk fraction of every method in every world](leaderboard.png)",
        table.markdown(),
        "## Metrics",
        _measures().markdown(),
        f"truemorph {content['truemorph_version']}, {content['date']}: `{content['command']}`",
    ]
    return "\n\n".join(lines) + "\n"


def write_leaderboard(content: Mapping[str, Any], titles: Mapping[str, str], out: Path) -> None:
    """Write `leaderboard.json`, `.csv`, `.md`, `.html` and `.png` to a folder.

    Parameters
    ----------
    content : mapping
        From `leaderboard.described`.
    titles : mapping
        Methods and their titles, in the order of the figure.
    out : Path
    """
    rows = content["rows"]
    write_json(out / "leaderboard.json", dict(content))
    scores_frame(rows, titles).write_csv(out / "leaderboard.csv")
    (out / "leaderboard.md").write_text(markdown(content, titles), encoding="utf-8")
    figure = leaderboard_figure(rows, titles, _PANELS)
    figure.savefig(out / "leaderboard.png", dpi=160)
    drawing = Illustration(
        "leaderboard",
        figure,
        "Balanced accuracy and error of the disk fraction of every method in every world; the tables have the numbers.",
        "Mean over seeds of each method (lines) in each world (markers); bars are standard deviations.",
    )
    about = {"command": content["command"], "date": content["date"], **content["plan"]}
    settings = Table("", (), [[name, str(value)] for name, value in about.items()])
    page = Page(
        title="truemorph leaderboard",
        answer="Networks trained on the same images and the same biased labels, scored vs truth."
        if content["plan"]["sizes"]
        else "Labels corrected from votes and catalogue columns, without images, scored vs truth.",
        sections=[
            Section("Scores", figures=[drawing], tables=[summary_table(rows, titles)], items=content["trust"]),
            Section("Every world", tables=[*world_tables(rows, titles), _measures()]),
        ],
        appendix=[Section("Settings", tables=[settings])],
        wide=True,
    )
    write_page(page, out / "leaderboard.html")
