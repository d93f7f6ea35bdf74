"""The page: everything put together and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.bias.transitions import DISK
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import plain, read_json, write_json
from truemorph.report import comparing, gallery, looking
from truemorph.report.checks import checks, gold_words
from truemorph.report.evidence import Evidence, is_naive
from truemorph.report.figures import leaderboard_figure
from truemorph.report.gathering import Gathered, Subject, gather
from truemorph.report.illustrate import illustrations, styles_for
from truemorph.report.options import ReportOptions
from truemorph.report.page import (
    Illustration,
    Page,
    Table,
    in_order,
    number,
    verdict,
    versions,
    with_error,
    write_illustrations,
    write_page,
)
from truemorph.report.runs import comparison, training_illustration
from truemorph.results import Result
from truemorph.tables import CatalogTable, to_astropy, write_table

_LISTED = 40
_number, _with_error = partial(number, missing=""), partial(with_error, missing="")


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
    board = _leaderboard(options)
    files = out.with_name(f"{out.stem}_files")
    found = gather(sources, options, files)
    evidence = found.evidence

    compared, measured = comparing.distributions(found, options)
    seen = looking.looks(found, options)
    runs = {one.name: one.run for one in found.subjects if one.run is not None}
    appendix, extra, content = comparison(list(runs.values()), list(runs)) if runs else ([], [], {})
    figures = [*illustrations(evidence), *compared, *seen.illustrations]
    if runs:
        figures.append(training_illustration(list(runs.values()), list(runs), styles_for(evidence)))
    figures += board
    shown = looking.shown_galaxies(found, options)
    entries = looking.entries(shown, found)
    with_pictures = any(one.thumbnail for one in entries)
    findings, passed = checks(evidence, [*found.findings, *extra, *measured, *seen.findings, *known])
    findings, passed = tuple(in_order(findings)), [*passed, *seen.passed]
    decided = verdict(findings)
    page = Page(
        title=title or _title(found),
        answer=answer(evidence),
        findings=findings,
        passed=passed,
        verdict=decided,
        tables=[_table_one(evidence), *_population_table(evidence)],
        illustrations=figures,
        appendix=[*([_changed_table(shown.galaxies)] if shown.galaxies and not with_pictures else []), *appendix],
        pairs=looking.pairs(shown, found),
        pairs_note=looking.pairs_note(shown, options),
        gallery=gallery.gallery_of(entries, shown.changed, found.everything.height) if with_pictures else None,
        methods=_methods(evidence, found.subjects),
        equations=True,
        settings=_settings(found, options),
        versions=versions(),
    )
    write_illustrations(figures + looking.pairs_illustration(shown), files / "figures")
    write_table(CatalogTable(looking.changed_galaxies(found)), files / "changed.ecsv")
    write_page(page, out)
    result: dict[str, Any] = plain(
        {
            "out": str(out),
            "answer": page.answer,
            "verdict": decided,
            "findings": [one.to_dict() for one in findings],
            "passed": [{"name": name, "measured": measured} for name, measured in passed],
            "measured_on": evidence.which,
            "measure": evidence.tree.measure,
            "table": evidence.table.to_dicts(),
            "transition": None if evidence.study is None else evidence.study.to_dict(),
            "changed": shown.changed,
            "runs": content,
            "maps": seen.content,
        }
    )
    write_json(files / "report.json", result)
    return ReportResult(out, result, evidence, findings)


def _leaderboard(options: ReportOptions) -> list[Illustration]:
    """The figure of a leaderboard, if one was given."""
    if options.leaderboard is None:
        return []
    try:
        content = read_json(options.leaderboard)
        rows = content["rows"]
        titles = {name: content.get("titles", {}).get(name, name) for name in dict.fromkeys(r["method"] for r in rows)}
        labels = {"balanced_accuracy": "balanced accuracy", "fraction_rms_soft": "fraction rms, soft"}
        figure = leaderboard_figure(rows, titles, labels, "truth")
        scores = [{"world": r["world"], "method": r["method"], **{f"{k}_mean": v for k, v in r["means"].items()},
                   **{f"{k}_std": v for k, v in r["stds"].items()}} for r in rows]  # fmt: skip
        data = pl.DataFrame(scores, infer_schema_length=None)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(
            f"{options.leaderboard}: not a leaderboard.json of `truemorph benchmark` ({problem})"
        ) from problem
    text = "Other ways to deal with biased labels, where the truth is known; mean and spread over seeds."
    return [Illustration("leaderboard", figure, text, text, data)]


def answer(found: Evidence) -> str:
    """What came out, in one paragraph with numbers."""
    first, last = found.ends(found.crowd)
    sentences = [
        f"As people labelled them, the disk fraction {_course(first, last)} in the least resolved fifth to {last:.2f} "
        f"in the best resolved fifth of {found.which}."
    ]
    model = found.principal
    if model is not None:
        best, hard = model.posterior or model.probabilities, model.posterior or model.labels
        low, high = found.ends(best)
        sentences.append(
            f"By the {'posterior' if model.posterior else 'probabilities'} of {model.name} it goes from {low:.2f} to "
            f"{high:.2f}; {moved_words(found.row(hard))}."
        )
        before, after = found.row(found.crowd), found.row(model.probabilities)
        if before["excess"] is not None and after["excess"] is not None:
            sentences.append(
                f"{found.tree.measure} above sampling noise: {before['excess']:.3f} for people's labels, "
                f"{after['excess']:.3f} for the model's probabilities."
            )
        for definition in found.truths:
            rms, accuracy = f"fraction_rms: {definition}", f"balanced_accuracy: {definition}"
            own, crowd = found.row(best)[rms], before[rms]
            if own is None or crowd is None:
                continue
            text = (
                f"Against {gold_words(definition)} its disk fractions are wrong by {own:.3f} (rms over fifths of α), "
                f"people's by {crowd:.3f}"
            )
            if before[accuracy] is not None:
                text += (
                    f"; {'its labels' if hard is model.labels else 'labels after it'} reach a balanced accuracy of "
                    f"{found.row(hard)[accuracy]:.2f}, people's {before[accuracy]:.2f}"
                )
            sentences.append(text + ".")
    elif found.study is not None:
        fractions = found.study.fractions
        disk = fractions.fractions[:, DISK]
        sentences.append(
            f"Inverted through the fitted T(α) it goes from {disk[0]:.2f} ± {fractions.stderr[0, DISK]:.2f} to "
            f"{disk[-1]:.2f} ± {fractions.stderr[-1, DISK]:.2f} over {len(disk)} bins of {fractions.by}."
        )
    return " ".join(sentences)


def _course(first: float, last: float) -> str:
    verb = "stays at" if f"{first:.2f}" == f"{last:.2f}" else "rises from" if last > first else "falls from"
    return f"{verb} {first:.2f}"


def moved_words(row: dict[str, float]) -> str:
    """How many galaxies change class."""
    known, to_disk, to_smooth = (int(row[name] or 0) for name in ("galaxies", "to_disk", "to_smooth"))
    text = f"{to_disk:,} of {known:,} galaxies ({to_disk / max(known, 1):.0%}) change from smooth to disk"
    return text + (f", {to_smooth:,} from disk to smooth" if to_smooth else ", none the other way")


def _title(found: Gathered) -> str:
    what = found.catalogue.metadata.get("source") or found.path.name
    names = ", ".join(one.name for one in found.subjects)
    return f"{what}: {names}" if names else f"{what}: labels and resolution"


def _table_one(found: Evidence) -> Table:
    """Table 1 of this report."""
    measure = found.tree.measure
    head = ["labels", "galaxies", "disk fraction"]
    for definition in found.truths:
        head += [f"balanced accuracy, {definition}", f"fraction rms, {definition}"]
    resampled = [f"{measure}, bootstrap"] if found.tree.bootstrap else []
    head += ["above noise", measure, *resampled, "floor", "accuracy", "precision", "to disk", "to smooth"]
    rows = []
    for row in found.table.iter_rows(named=True):
        cells = [
            row["labels"],
            f"{row['galaxies']:,}",
            _number(row["disk_fraction"]),
        ]
        for definition in found.truths:
            cells += [_number(row[f"{name}: {definition}"]) for name in ("balanced_accuracy", "fraction_rms")]
        cells += [
            *(_number(row[name]) for name in ("excess", "value")),
            *([_with_error(row["bootstrap_mean"], row["bootstrap_std"])] if resampled else []),
            _with_error(row["floor"], row["floor_std"]),
            *(_number(row[name]) for name in ("accuracy", "precision")),
            *(_number(row[name], ",d") for name in ("to_disk", "to_smooth")),
        ]
        rows.append(cells)
    how = f"{2**found.tree.depth} leaves of like {', '.join(found.intrinsic)}, " if found.intrinsic else ""
    resamples = (
        f", and mean ± standard deviation of {found.tree.bootstrap} bootstrap resamples (which lie higher, as in the "
        "paper's Table 1)"
        if found.tree.bootstrap
        else ""
    )
    note = (
        f"On {found.which}. {measure} with {how}{found.tree.bins} bins of α, as it is{resamples}. Labels that do not "
        "drift with α give the floor, not zero. What lies above it is drift: bias, or a real change of class with α "
        "among galaxies taken for alike; the row of the truth, where there is one, says how much of that there is. "
        "Accuracy and precision are against the crowd's labels, as in the paper: they say how alike, not how good."
    )
    if found.truths:
        note += " Fraction rms: error of the disk fraction over fifths of α."
    return Table("Table 1 of this report", head, rows, note)


def _population_table(found: Evidence) -> list[Table]:
    """People's labels inverted through the fitted T(α), with both errors."""
    if found.study is None:
        return []
    one = found.study.fractions
    numbers = zip(one.edges[:-1], one.edges[1:], one.counts, one.labelled[:, DISK], one.fractions[:, DISK],
                  one.stderr[:, DISK], one.low[:, DISK], one.high[:, DISK], strict=True)  # fmt: skip
    rows = [
        [f"{left:.1f} to {right:.1f}", f"{n:,.0f}", *(f"{value:.3f}" for value in (labelled, disk, error, low, high))]
        for left, right, n, labelled, disk, error, low, high in numbers
    ]
    others = "; ".join(one.alternatives) or "none"
    note = (
        f"Of {int(one.counts.sum()):,} galaxies of the catalogue, from people's labels alone, without any network. "
        f"Assumed: {one.assumption}. Lowest and highest: over the other fits that were made ({others}) and θ ± σ."
    )
    head = [one.by if one.by != "alpha" else "α", "galaxies", "as labelled", "inverted", "error", "lowest", "highest"]
    return [Table("Disk fractions inverted through T(α)", head, rows, note)]


def _changed_table(shown: Sequence[gallery.Shown]) -> Table:
    """Galaxies that changed, where there are no pictures to show."""
    return Table(
        "Galaxies that change most surely",
        ["id", "change", "α", "votes for disk", "p(disk) after"],
        [
            [
                str(one.row["object_id"]),
                one.row[gallery.CHANGE],
                f"{one.row['alpha']:.1f}",
                _number(one.row.get("disk_fraction"), ".2f"),
                f"{one.row[gallery.AFTER]:.3f}",
            ]
            for one in shown[:_LISTED]
        ],
        "This catalogue has no pictures.",
    )


def _methods(found: Evidence, subjects: Sequence[Subject]) -> list[str]:
    out = []
    if found.study is not None:
        fit = found.study.fit
        out.append(f"T(α): {fit.family} family by {fit.method}, assuming that {fit.assumption}.")
    for one in subjects:
        assumed = one.model.described["transition"].get("assumption") or "no assumption recorded"
        out.append(f"{one.name}: trained through {_through(one)}; {assumed}.")
    if subjects:
        out.append(
            "Relabelling is out of fold: p(y | x) of a galaxy that helped to train comes from networks that never saw "
            "its label; the posterior then adds the crowd's label."
        )
    return out


def _through(one: Subject) -> str:
    """T(α) of a model, for people."""
    if is_naive(one.model.transition):
        return "no flips at all"
    described = one.model.described["transition"]
    errors = described.get("stderr") or {}
    said = []
    for name, value in described["parameters"].items():
        if isinstance(value, int | float):
            error = errors.get(name)
            said.append(f"{name} = {value:.4g}" + (f" ± {error:.2g}" if error else ""))
    return f"a {described['family']} T(α)" + (f", {', '.join(said)}" if said else "")


def _settings(found: Gathered, options: ReportOptions) -> dict[str, Any]:
    said = found.catalogue.metadata
    return {
        "catalogue": found.path.name,
        "α": said.get("alpha", "not stated"),
        "labels": f"{said.get('label_rule', 'not stated')}; votes: {said.get('votes', 'not stated')}",
        "definitions of a disk": "; ".join(found.evidence.truths) or "none",
        "intrinsic columns": ", ".join(options.intrinsic) or "none",
        "measured on": found.evidence.which,
        "bootstrap resamples": options.bootstrap,
        "seed": options.seed,
        **{f"model {one.name}": one.model.model_hash for one in found.subjects},
    }
