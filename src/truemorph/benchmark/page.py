"""The leaderboard for readers: Markdown, one HTML page, one figure, and the numbers as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from truemorph.benchmark.figure import leaderboard_figure
from truemorph.io import write_json
from truemorph.report.page import Illustration, Page, Section, Table, with_error, write_page

# Column heads; those after the first two are shown where any row has them.
HEADS = {
    "balanced_accuracy": "balanced accuracy",
    "balanced_accuracy_at_fraction": "… at own fraction",
    "auc": "AUC",
    "log_loss": "log-loss",
    "calibration_error": "calibration error",
    "fraction_rms_hard": "fraction rms, hard",
    "fraction_rms_soft": "fraction rms, soft",
    "cv18_excess": "CV18 excess",
    "accuracy_low": "accuracy, low α",
    "accuracy_middle": "middle α",
    "accuracy_high": "high α",
    "drift": "drift",
    "flip_rms": "T(α) rms",
    "seconds": "CPU seconds",
}
# What the numbers are, in tables and on the page.
NOTES = (
    "Balanced accuracy: mean of the fractions of smooth and of disk galaxies labelled right, at p = 0.5 (which "
    "flatters what leans to the rarer class) and at the method's own mean p (where a calibrated one is best, as "
    "both classes count the same), and by terciles of α at 0.5; AUC has no threshold. Calibration error: mean "
    "distance of probability and frequency. Fraction rms: error of the disk fraction over five bins of α, from "
    "labels (hard) and probabilities (soft). CV18 excess: drift of labels with α above sampling noise. Drift: mean "
    "shift of p(disk) when the same galaxies are farther away, at α / 1.5 and α / 2.5; where pictures say less it "
    "is not zero for the best of classifiers. T(α) rms: error of the flip probabilities trained through. CPU "
    "seconds: of learning, all cores together. Mean ± standard deviation over seeds."
)
TRAINED = (
    "Scored against the truth on galaxies that nothing was learned from. Every method may use the same pictures, "
    "labels, votes and columns. Votes are used by matching and the three DDB on votes; intrinsic columns by "
    "matching, conditional T(α), and DDB on votes and gold labels (in the real world axis ratio and colour of the "
    "undegraded picture); 300 true classes by the two with gold labels; the true T(α) by the two with the right "
    "T(α), and all of how votes come about by the one with the right model of votes; every true class by the one "
    "trained on the truth. Networks see the same number of pictures, but for what cleanlab drops and degraded "
    "copies add.",
    "In the plain, confounded and real worlds labels flip as the paper's model says: there the right T(α) can win "
    "by construction. Heavy tails break its family, the image annotator breaks its assumption that flips depend on "
    "class and α alone.",
)
RELABELLED = (
    "Relabelling: scored against the truth on the galaxies whose labels and votes were given, DCV14 out of fold. "
    "Three methods see 300 true classes, of galaxies that no method is scored on.",
    "Experts who typed the real galaxies saw the same SDSS pictures: their types are gold labels for a definition "
    "of a disk, and not the last truth. α is R90 over σ of the PSF there (GZ1: g band, one seeing of 1.32 arcsec "
    "for all).",
    "Vote fractions of Hart et al. and of matching are taken for p(disk), which they were not made to be: compare "
    "them by AUC and hard fractions. On real tables the spread over seeds is that of folds and gold rows alone; the"
    " sampling error of an accuracy is about 0.02 for 690 galaxies (GZ2) and 0.006 for 8,966 (GZ1).",
)


def cell(row: Mapping[str, Any], metric: str) -> str:
    """One number with its spread."""
    mean, std = row["means"].get(metric), row["stds"].get(metric)
    if mean is None:
        return "–"
    if metric == "seconds":
        return f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}"
    return with_error(mean, std)


def world_tables(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[Table]:
    """One table a world, best balanced accuracy first."""
    tables = []
    for world in dict.fromkeys(row["world"] for row in rows):
        here = [row for row in rows if row["world"] == world]
        columns = [one for one in HEADS if any(row["means"].get(one) is not None for row in here)]
        tables.append(
            Table(
                f"{world[0].upper()}{world[1:]}",
                ["method", *(HEADS[metric] for metric in columns)],
                [
                    [titles.get(row["method"], row["method"]), *(cell(row, metric) for metric in columns)]
                    for row in here
                ],
                f"{here[0]['definition']}; seeds: {max(row['seeds'] for row in here)}.",
            )
        )
    return tables


def markdown(content: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The tables as Markdown."""
    lines = [
        *content["trust"],
        "",
        NOTES,
        "",
        f"truemorph {content['truemorph_version']}, {content['date']}: `{content['command']}`",
    ]
    for table in world_tables(content["rows"], titles):
        lines += ["", f"## {table.title}", "", table.note, "", table.markdown()]
    return "\n".join(lines) + "\n"


def write_leaderboard(content: Mapping[str, Any], titles: Mapping[str, str], out: Path) -> None:
    """Write `leaderboard.json`, `.md`, `.html` and `.png` to a folder.

    Parameters
    ----------
    content : mapping
        From `leaderboard.described`.
    titles : mapping
        Methods and their names, in the order of the figure.
    out : Path
    """
    write_json(out / "leaderboard.json", dict(content))
    (out / "leaderboard.md").write_text(markdown(content, titles), encoding="utf-8")
    drawn = ("balanced_accuracy", "auc", "fraction_rms_soft")
    metrics = {metric: HEADS[metric] for metric in drawn}
    figure = leaderboard_figure(content["rows"], titles, metrics, "truth")
    figure.savefig(out / "leaderboard.png", dpi=130)
    tables = world_tables(content["rows"], titles)
    drawing = Illustration(
        "leaderboard",
        figure,
        "Balanced accuracy, AUC and error of the disk fraction of every method in every world, as in the tables.",
        "Mean and standard deviation over seeds. Blue: through T(α) or gold labels; orange: rivals; black, with a "
        "dotted line, where there is one: trained on the truth.",
    )
    about = {"command": content["command"], "date": content["date"], **content["plan"]}
    settings = Table("", (), [[name, str(value)] for name, value in about.items()])
    page = Page(
        title="truemorph leaderboard",
        answer="Networks trained on the same pictures and the same biased labels, by every method."
        if content["plan"]["sizes"]
        else "Labels, votes and catalogue columns alone, without images, on tables whose truth is known.",
        sections=[
            Section("Scores", figures=[drawing]),
            Section("Tables", NOTES, tables=tables),
            Section("Methods", items=[*content["trust"], *(f"{key}: {title}" for key, title in titles.items())]),
        ],
        appendix=[Section("Settings", tables=[settings])],
        wide=True,
    )
    write_page(page, out / "leaderboard.html")
