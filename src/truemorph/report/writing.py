"""The report: everything put together and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import Parameter

from truemorph.arguments import Count, Names, Paths, Rules, Seed
from truemorph.bias.transitions import DISK
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import plain, write_json
from truemorph.report.checks import checks, gold_words
from truemorph.report.distributions import distributions
from truemorph.report.evidence import Evidence, Model, gather
from truemorph.report.figures import illustrations, training_illustration
from truemorph.report.gallery import changed_galaxies, gallery_of, pairs_of, shown_galaxies
from truemorph.report.label_sets import CHANGE
from truemorph.report.maps import looks
from truemorph.report.page import Page, verdict, versions, write_illustrations, write_page
from truemorph.report.runs import compare_runs
from truemorph.results import Result
from truemorph.tables import CatalogTable, to_astropy, write_table


@Parameter(name="*")
@dataclass(frozen=True)
class ReportOptions:
    """What a report is to show.

    Attributes
    ----------
    catalogue : Path, optional
        Prepared; that of the first run if not given.
    labels : sequence of Path
        Labels that runs gave earlier, known by the hash of the model; others are made.
    gold : sequence of str
        Columns or rules ("t_type>=-3") that say what a disk truly is; column `gold` if there is one.
    intrinsic : sequence of str
        Columns that classes may depend on.
    also : sequence of str
        "NAME=COLUMN": further labels or disk fractions that the catalogue brings, such as Hart et al.'s.
    where : sequence of str
        "COLUMN=VALUE": galaxies to measure on.
    rows : {"auto", "test", "all"}
        Measure on test galaxies, or on all; "auto": on test galaxies if there are 1,000.
    distributions : sequence of str
        Columns whose distributions are compared between classes (Figure 3); `sersic_n` if there is one.
    sersic : int
        Measure Sérsic indices on the pictures of so many galaxies, drawn at random.
    field : str, optional
        What an image file is across, arcsec: a number or a column; for radii of maps, and the PSF of Sérsic profiles.
    better : Path, optional
        Folder of better images, OBJECT_ID.jpg.
    galaxies : int
        Most galaxies in the gallery.
    maps : int
        Most galaxies whose Grad-CAM maps are averaged, drawn at random; 0 for no maps at all.
    draws : int
        Networks of random weights that check the maps, two at least; 0 for no check.
    bootstrap : int
        Resamples for the errors of bias metrics.
    seed : int
        Random seed.

    Raises
    ------
    InputError
        If `rows` is something else, or `draws` is 1.
    """

    catalogue: Path | None = None
    labels: Paths = ()
    gold: Rules = ()
    intrinsic: Names = ()
    also: Rules = ()
    where: Rules = ()
    rows: Literal["auto", "test", "all"] = "auto"
    distributions: Names = ()
    sersic: Count = 0
    field: str | None = None
    better: Path | None = None
    galaxies: Count = 200
    maps: Count = 500
    draws: Count = 5
    bootstrap: Count = 100
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.rows not in ("auto", "test", "all"):
            raise InputError(f"`rows` is auto, test or all; got {self.rows!r}")
        if self.draws == 1:
            raise InputError("draws is 0, for no check of the maps, or two networks of random weights at least; got 1")


@dataclass(frozen=True, repr=False)
class ReportResult(Result):
    """What a report says.

    Attributes
    ----------
    out : Path
        The page.
    content : dict
        `answer`, `verdict`, `findings`, `passed`, `measured_on`, `measure`, `table`, `transition`, `changed`, `runs`,
        `maps`.
    evidence : Evidence
        The label sets and what was measured of them.
    findings : tuple of Finding
    """

    out: Path
    content: dict[str, Any]
    evidence: Evidence
    findings: tuple[Finding, ...]

    def summary(self) -> str:
        """Return Table 1's main columns, the answer and the verdict as text."""
        table, measure = self.content["table"], self.content["measure"]
        width = max(len(row["labels"]) for row in table)
        lines = [f"{'labels':{width}}  disk fraction  {measure} above noise"]
        for row in table:
            numbers = ("–" if row[name] is None else f"{row[name]:.3f}" for name in ("disk_fraction", "excess"))
            lines.append(f"{row['labels']:{width}}" + "".join(f"  {one:>13}" for one in numbers))
        return "\n".join([*lines, self.content["answer"], self.content["verdict"]["text"], f"open {self.out}"])

    def to_dict(self) -> dict[str, Any]:
        """Return what the page says as plain values, for JSON."""
        return self.content

    def to_table(self) -> Any:
        """Return Table 1 of the report."""
        return to_astropy(CatalogTable(self.evidence.table))

    def plot(self, ax: Any = None) -> Any:
        """Draw the corrected disk fraction against α, where T(α) could be fitted; returns matplotlib axes."""
        if self.evidence.study is None:
            raise InputError("this report has no fit of T(α) to draw")
        return self.evidence.study.plot(ax)


def make_report(
    sources: Sequence[Path],
    out: Path,
    options: ReportOptions | None = None,
    *,
    title: str = "",
    known: Sequence[Finding] = (),
) -> ReportResult:
    """Write a page about runs, or about a catalogue alone.

    Parameters
    ----------
    sources : sequence of Path
        Run folders of `truemorph train`; fits of `truemorph transition` (.json), for posteriors without images. May be
        empty if a catalogue is given.
    out : Path
        Page (.html). Figures as PDF and PNG, the data behind them, labels, and a list of all galaxies whose label
        changes go to `<name>_files` beside it.
    options : ReportOptions, optional
    title : str
        Of the page; from the catalogue and the runs if empty.
    known : sequence of Finding
        What is known about these data beforehand.

    Returns
    -------
    ReportResult

    Raises
    ------
    InputError
        If a source is not one, runs and catalogue don't go together, or a column is absent.
    """
    options = options or ReportOptions()
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{out}: a report is an .html file")
    files = out.with_name(f"{out.stem}_files")
    found = gather(sources, options, files)
    runs = {one.name: one.run for one in found.models if one.run is not None}
    compared, of_runs = compare_runs(runs) if runs else ({}, [])
    curves, of_columns = distributions(found, options)
    maps, of_maps, looked = looks(found, options)
    names = ", ".join(one.name for one in found.models) or "labels and resolution"
    findings, passed = checks(found, [*found.findings, *of_runs, *of_columns, *of_maps, *known])
    shown, unread = shown_galaxies(found, options)
    pairs, pairs_note, figure4 = pairs_of(shown, unread, found, options)
    figures = [*illustrations(found), *curves, *maps, *training_illustration(found)]
    page = Page(
        title=title or f"{found.catalogue.metadata.get('source') or found.path.name}: {names}",
        answer=answer(found),
        findings=findings,
        passed=passed,
        verdict=verdict(findings),
        illustrations=figures,
        pairs=pairs,
        pairs_note=pairs_note,
        gallery=gallery_of(shown, found),
        equations=True,
        versions=versions(),
    )
    write_illustrations(figures + figure4, files / "figures")
    write_table(CatalogTable(changed_galaxies(found)), files / "changed.ecsv")
    write_page(page, out, "evidence.html", found=found, shown=shown, runs=runs, compared=compared)
    content: dict[str, Any] = plain(
        {
            "out": str(out),
            "answer": page.answer,
            "verdict": page.verdict,
            "findings": [one.to_dict() for one in findings],
            "passed": [{"name": name, "measured": measured} for name, measured in passed],
            "measured_on": found.which,
            "measure": found.tree.measure,
            "table": found.table.to_dicts(),
            "transition": None if found.study is None else found.study.to_dict(),
            "changed": int((found.everything[CHANGE] != "").sum()),
            "runs": compared,
            "maps": looked,
        }
    )
    write_json(files / "report.json", content)
    return ReportResult(out, content, found, findings)


def answer(found: Evidence) -> str:
    """What came out, in one paragraph with numbers."""
    first, last = found.ends(found.crowd)
    course = "stays at" if f"{first:.2f}" == f"{last:.2f}" else "rises from" if last > first else "falls from"
    sentences = [
        f"By the volunteers' labels, the disk fraction {course} {first:.2f} in the least resolved fifth to {last:.2f} "
        f"in the best resolved fifth of {found.which}."
    ]
    if found.principal is not None:
        sentences += _answer_of(found, found.principal)
    elif found.study is not None:
        fractions = found.study.fractions
        disk, error = fractions.fractions[:, DISK], fractions.stderr[:, DISK]
        sentences.append(
            f"Corrected through the fitted T(α), it goes from {disk[0]:.2f} ± {error[0]:.2f} to {disk[-1]:.2f} ± "
            f"{error[-1]:.2f} over {len(disk)} bins of {fractions.by}."
        )
    return " ".join(sentences)


def _answer_of(found: Evidence, model: Model) -> list[str]:
    best, hard = model.best, model.best_labels
    low, high = found.ends(best)
    moved, before, after = found.row(hard), found.row(found.crowd), found.row(model.probabilities)
    known, to_disk, to_smooth = (int(moved[name] or 0) for name in ("galaxies", "to_disk", "to_smooth"))
    sentences = [
        f"By the {'posterior' if model.posterior else 'probabilities'} of {model.name} it goes from {low:.2f} to "
        f"{high:.2f}; {to_disk:,} of {known:,} galaxies ({to_disk / max(known, 1):.0%}) change from smooth to disk, "
        + (f"{to_smooth:,} from disk to smooth." if to_smooth else "none the other way.")
    ]
    if before["excess"] is not None and after["excess"] is not None:
        sentences.append(
            f"{found.tree.measure} above sampling noise is {before['excess']:.3f} for the volunteers' labels and "
            f"{after['excess']:.3f} for the model's probabilities."
        )
    for definition in found.truths:
        rms, accuracy = f"fraction_rms: {definition}", f"balanced_accuracy: {definition}"
        own, labelled = found.row(best)[rms], before[rms]
        if own is None or labelled is None:
            continue
        text = (
            f"Against {gold_words(definition)}, its disk fractions are off by {own:.3f} (rms over fifths of α), the "
            f"volunteers' by {labelled:.3f}"
        )
        if before[accuracy] is not None:
            text += (
                f"; labels by its {'posterior' if model.posterior else 'probabilities'} have a balanced accuracy of "
                f"{moved[accuracy]:.2f}, the volunteers' {before[accuracy]:.2f}"
            )
        sentences.append(text + ".")
    return sentences
