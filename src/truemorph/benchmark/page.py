"""The leaderboard for readers: a figure, tables, and all scores as CSV and JSON."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from truemorph.benchmark.worlds import CLASSES
from truemorph.io import save_figure, write_file, write_json
from truemorph.plotting import CYCLE, MARKERS
from truemorph.report.page import Illustration, Page, Section, Table, write_page
from truemorph.results import number, with_error
from truemorph.tables import frame_of_rows

# Scores of a method in a world, averaged over seeds, as `summarise` makes them.
Row = Mapping[str, Any]
Rows = Sequence[Row]
# Column head and meaning of each metric. All but the first are shown where a row has them.
METRICS = {
    "balanced_accuracy": ("balanced accuracy", "mean of the accuracies of both classes, at p = 0.5"),
    "balanced_accuracy_at_fraction": (
        "balanced accuracy at mean p",
        "the same, with the mean of the method's p as threshold; best for calibrated probabilities",
    ),
    "auc": ("AUC", "area under the ROC curve"),
    "log_loss": ("log-loss", "mean of -ln p(true class)"),
    "calibration_error": ("calibration error", "mean distance between probability and frequency"),
    "fraction_rms_hard": ("fraction error, labels", "rms error of the fraction in five bins of α, from labels"),
    "fraction_rms_soft": ("fraction error, probabilities", "the same, from probabilities"),
    "cv18_excess": ("CV18 above floor", "drift of labels with α, above that of unbiased labels"),
    "accuracy_low": ("balanced accuracy, low α", "for the third of galaxies with the lowest α"),
    "accuracy_middle": ("middle α", "for the middle third"),
    "accuracy_high": ("high α", "for the third with the highest α"),
    "drift": (
        "shift with distance",
        "rms, over classes and distances, of the mean change of p when the same galaxies are moved away, to α / 1.5 "
        "and α / 2.5; not zero for an ideal classifier, because distant galaxies show less",
    ),
    "seconds": ("CPU time (s)", "training, all cores together"),
}
# Metrics of the figure and the summary, the second for methods that lack the first.
_ACCURACY = ("balanced_accuracy",)
_ERROR = ("fraction_rms_soft", "fraction_rms_hard")
_WIDTH = 5.4  # inches; text stays legible when the figure is 400 pixels wide
_LINE = 0.36  # inches a method
SUMMARY = (
    "Balanced accuracy / rms error of the {} fraction over five bins of α, both vs truth. The error is that of "
    "the method's probabilities, or of its labels where it gives no probabilities."
)
TRAINED = (
    "Scored vs truth on test galaxies. All methods may use the same images, labels, votes and columns. Votes are used "
    "by matching. Intrinsic columns (in the real world, axis ratio and colour of the original image) are used by "
    "matching and by T(α) given intrinsic columns. Methods with gold labels know 300 true classes.",
    "In the plain, confounded and real worlds, labels follow the paper's model, so DDB with the true T(α) has an "
    "advantage by construction.",
)
RELABELLED = (
    "Methods relabel the galaxies whose labels they were given, and are scored on those without a gold label; DCV14 is "
    "out of fold. Methods with gold labels know 300 true classes.",
    "Truth of the real galaxies are experts' types, from the same SDSS images that the volunteers saw. There, α is "
    "R90 / σ_PSF (GZ1: g band, one seeing of 1.32 arcsec for all), and the spread over seeds is that of folds and gold "
    "labels alone; the sampling error of an accuracy is about 0.02 for 690 galaxies (GZ2) and 0.006 for 8,966 (GZ1).",
    f"Vote fractions of Hart et al. and of matching are used as p({CLASSES[1]}), for which they were not made: compare "
    "their AUC and their fraction errors from labels.",
)
ANSWERED = (
    "Scored vs truth on test galaxies. Networks learn the paths to the answers. Accuracy, log-loss and calibration are "
    "those of p(bar | the question applies), where it truly applies; the bar fraction is {bar} / {no bar, bar} of all "
    "test galaxies, of majorities with a cut those with at least 10 votes.",
    "The volunteers of the real bars follow a known T(α) of paths, so DDB with the true T(α) has an advantage by "
    "construction. Those of the simulated worlds miss bars that are short relative to the PSF, which T(α) does not "
    "know.",
)


def _metrics_of(rows: Rows) -> list[str]:
    return [metric for metric in METRICS if any(row["means"].get(metric) is not None for row in rows)]


def _first_of(row: Row, metrics: Sequence[str]) -> tuple[float | None, float]:
    """Return mean and standard deviation of the first of the metrics that a row has."""
    name = next((metric for metric in metrics if row["means"].get(metric) is not None), metrics[0])
    return row["means"].get(name), row["stds"].get(name) or 0.0


def _by_world(rows: Rows) -> dict[str, dict[str, Row]]:
    worlds = dict[str, dict[str, Row]]()
    for row in rows:
        worlds.setdefault(row["world"], {})[row["method"]] = row
    return worlds


def draw_scores(
    panel: Any,
    rows: Rows,
    titles: Mapping[str, str],
    label: str = "balanced accuracy (high is good)",
    metrics: Sequence[str] = _ACCURACY,
) -> None:
    """Draw a score of every method, or another where it lacks that: a line a method, a marker a world."""
    worlds = _by_world(rows)
    methods = list(titles)
    for place in range(1, len(methods), 2):
        panel.axhspan(place - 0.5, place + 0.5, color="0.95", lw=0)
    for k, (world, here) in enumerate(worlds.items()):
        offset = 0.7 * ((k + 0.5) / len(worlds) - 0.5)
        places = [methods.index(name) + offset for name in here]
        x, errors = zip(*(_first_of(row, metrics) for row in here.values()), strict=True)
        color, marker = CYCLE[k % len(CYCLE)], MARKERS[k % len(MARKERS)]
        panel.errorbar(x, places, xerr=errors, fmt=marker, color=color, ms=4.5, lw=1, label=world)
    panel.set(ylim=(len(methods) - 0.5, -0.5), xlabel=label)
    panel.set_yticks(range(len(methods)), [fill(title, 24) for title in titles.values()])
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="0.85", lw=0.6)
    panel.set_axisbelow(True)


def leaderboard_figure(rows: Rows, titles: Mapping[str, str], of: str) -> Figure:
    """Draw both scores, one panel below the other."""
    figure = Figure(figsize=(_WIDTH, 2 * (0.6 + _LINE * len(titles)) + 0.6), layout="constrained")
    axes: Any = figure.subplots(2)
    draw_scores(axes[0], rows, titles)
    draw_scores(axes[1], rows, titles, f"error of the {of} fraction (low is good)", _ERROR)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(3, len(names)), frameon=False)
    return figure


def summary_table(rows: Rows, titles: Mapping[str, str], of: str) -> Table:
    """Balanced accuracy and fraction error of each method (rows) in each world (columns)."""
    worlds = _by_world(rows)

    def both(row: Row | None) -> str:
        return "–" if row is None else " / ".join(number(_first_of(row, metrics)[0]) for metrics in (_ACCURACY, _ERROR))

    lines = [[title, *(both(here.get(name)) for here in worlds.values())] for name, title in titles.items()]
    return Table("Summary", ["method", *worlds], lines, SUMMARY.format(of))


def world_tables(rows: Rows, titles: Mapping[str, str]) -> Iterator[Table]:
    """Return one table a world with all metrics, best balanced accuracy first."""
    for world, named in _by_world(rows).items():
        here = list(named.values())
        columns = _metrics_of(here)
        head = ["method", *(METRICS[metric][0] for metric in columns)]
        lines = [
            [
                titles[row["method"]],
                *(with_error(row["means"].get(column), row["stds"].get(column)) for column in columns),
            ]
            for row in here
        ]
        note = f"{here[0]['definition']}; mean ± standard deviation over seeds ({max(row['seeds'] for row in here)})."
        yield Table(f"{world[0].upper()}{world[1:]}", head, lines, note)


def scores_frame(rows: Rows, titles: Mapping[str, str]) -> pl.DataFrame:
    """Return all scores, one row a world and method; of each metric its mean over seeds and, as `_std`, its spread."""
    lines = []
    for row in rows:
        line = {
            "world": row["world"],
            "definition": row["definition"],
            "method": row["method"],
            "title": titles[row["method"]],
            "seeds": row["seeds"],
        }
        for metric in _metrics_of(rows):
            line |= {metric: row["means"].get(metric), f"{metric}_std": row["stds"].get(metric)}
        lines.append(line)
    return frame_of_rows(lines)


def write_leaderboard(content: Mapping[str, Any], out: Path, of: str) -> None:
    """Write `leaderboard.json`, `.csv`, `.html`, `.png` and the summary as `.md`; `of` is the scored class."""
    rows, titles = content["rows"], content["titles"]
    write_json(out / "leaderboard.json", content)
    write_file(out / "leaderboard.csv", scores_frame(rows, titles).write_csv())
    summary, figure = summary_table(rows, titles, of), leaderboard_figure(rows, titles, of)
    write_file(out / "leaderboard.md", f"{summary.markdown()}\n")
    save_figure(figure, out / "leaderboard.png", dpi=160)
    drawing = Illustration(
        "leaderboard",
        figure,
        f"Balanced accuracy and error of the {of} fraction: mean over seeds of each method (lines) in each world "
        "(markers); bars are standard deviations. The tables have the numbers.",
    )
    measures = Table(
        "Columns",
        ["metric", "name in files", "meaning"],
        [[head, f"`{name}`", about] for name, (head, about) in METRICS.items()],
    )
    about = {"date": content["date"], **content["plan"]}
    settings = Table("", (), [[name, str(value)] for name, value in about.items()])
    page = Page(
        title="truemorph leaderboard",
        answer="Networks trained on the same images and the same biased labels, scored vs truth."
        if content["plan"]["sizes"]
        else "Labels corrected from votes and catalogue columns, without images, scored vs truth.",
        sections=[
            Section("Scores", figures=[drawing], tables=[summary], items=content["trust"]),
            Section("Every world", tables=[*world_tables(rows, titles), measures]),
        ],
        appendix=[Section("Settings", tables=[settings])],
        wide=True,
    )
    write_page(page, out / "leaderboard.html")
