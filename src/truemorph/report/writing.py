"""The report: everything put together and written."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.bias.curves.transitions import DISK, SMOOTH
from truemorph.catalogs.label_sets import ONE_CLASS, fractions_by
from truemorph.findings import Finding, Findings
from truemorph.io import plain, write_json
from truemorph.report.evidence import TRUTH, Evidence
from truemorph.report.figures import among_similar, bias_curve, calibration, capital, fractions
from truemorph.report.gallery import Changed, changed_galaxies, gallery_of
from truemorph.report.gather import gather
from truemorph.report.lights import DATA, MODEL, lights
from truemorph.report.networks import looks, training
from truemorph.report.options import ReportOptions
from truemorph.report.page import Page, Section, findings_of, folder_beside, verdict, write_illustrations, write_page
from truemorph.report.tables import (
    ENDS,
    asked_table,
    bins_table,
    confusion_table,
    fraction_rows,
    label_sets_table,
    overview_table,
    range_cell,
    settings_table,
)
from truemorph.results import Result, between, percent, text_table
from truemorph.tables import to_astropy, write_table


class ReportResult(Result):
    """What a report says.

    `content` has `headline`, `answer`, `verdict`, `findings`, `passed`, `fractions` (in the lowest and the highest bin,
    and of all galaxies), and `questions`: of each question `question`, `classes`, `measured_on`, `measure`, `table`
    (Table 1), `bins`, `transition` (the estimate), `estimate` (where it is from) and `changed`.
    """

    out: Path  # the page
    content: dict[str, Any]
    evidence: tuple[Evidence, ...]  # of each question
    findings: Findings

    def summary(self) -> str:
        """Return the table of fractions, the answer and the verdict as text."""
        said = self.content
        judged = self.content["verdict"]
        rows = [[row["fraction"], row["labels"], *(range_cell(row, end) for end in ENDS)] for row in said["fractions"]]
        lines = text_table(["fraction", "labels", "lowest bin", "highest bin", "all galaxies"], rows, left=(0, 1))
        after = [said["headline"], said["answer"], f"{judged['text']} {judged['reason']}", f"Next: {judged['next']}"]
        return "\n".join([*lines, *after, f"open {self.out}"])

    def to_dict(self) -> dict[str, Any]:
        """Return what the page says as plain values, for JSON."""
        return self.content

    def to_table(self) -> Any:
        """Return Table 1 of the first question; without galaxies its fractions."""
        first = self.evidence[0]
        return to_astropy(first.table if first.has_galaxies else first.correction)

    def draw(self, ax: Any) -> None:
        """Draw the corrected fractions of the first question."""
        self.evidence[0].estimate.draw(ax)


def make_report(
    sources: Sequence[Any], out: Path, options: ReportOptions, *, title: str = "", context: Sequence[Finding] = ()
) -> ReportResult:
    """Write a page about runs, estimates, or a catalogue alone.

    Sources are run folders of `truemorph train`, and estimates of `truemorph transition` (.json, or in memory), one of
    each question, whose numbers the page quotes. Figures as PDF and PNG, the data behind them, labels, and lists of all
    galaxies whose label changes go to `<name>_files` beside the page. `context` is what is known about these data
    beforehand.
    """
    files = folder_beside(out)
    every = gather(sources, options, files)
    trained, of_runs = training(every)
    maps, of_maps = (list(chain(*parts)) for parts in zip(*map(looks, every), strict=True))
    judged = [*lights(every, {MODEL: [*of_runs, *of_maps], DATA: context})]
    findings = findings_of(judged)
    first = every[0]
    changed = [changed_galaxies(each, options.galaxies // len(every)) for each in every] if first.has_galaxies else []
    rows = [row for evidence in every for row in fraction_rows(evidence)]
    names = ", ".join(first.names) or "labels and resolution"
    said = sentences(first)
    source = first.catalogue.metadata.get("source") or Path(first.source).name
    figures = list(map(fractions, every))
    sections = [
        section
        for k, (evidence, figure) in enumerate(zip(every, figures, strict=True))
        for section in _sections(evidence, figure if k else None, changed, len(every) > 1)
    ]
    if gallery := gallery_of(changed):
        sections.append(Section("Look at galaxies whose label changes", gallery=gallery))
    page = Page(
        title=title or (f"{source}: {names}" if first.has_galaxies else f"{first.quantity.name}s"),
        headline=said["headline"],
        answer=said["answer"],
        remark=" ".join([said["remark"], *(finding.message for finding in context)]),
        verdict=verdict(findings, said["reason"], said["next"]),
        first=figures[0],
        table=overview_table(rows),
        examples=changed[0].examples if changed else (),
        classes=(first.other, first.answer),
        used=[key for evidence in every for key in _used(evidence)],
        lights=judged,
        sections=sections,
        appendix=[
            *maps,
            *trained,
            Section("Settings", tables=[settings_table(every)]),
            Section("Methods", include="equations.html"),
            Section("How to cite", include="citation.html"),
        ],
    )
    write_illustrations([*page.figures, *(changed[0].drawn() if changed else ())], files / "figures")
    for listed in changed:
        write_table(listed.listed(), files / listed.file)
    write_page(page, out)
    content = plain(
        {
            "out": out,
            "headline": page.headline,
            "answer": page.answer,
            "verdict": page.verdict,
            "findings": findings,
            "passed": [{"name": name, "measured": measured} for light in judged for name, measured in light.passed],
            "fractions": rows,
            "questions": list(map(_told, every)),
        }
    )
    write_json(files / "report.json", content)
    return ReportResult(out, content, tuple(every), findings)


def _used(evidence: Evidence) -> Iterator[str]:
    """Methods, families and measures whose equations are shown."""
    yield from (evidence.fractions.method, evidence.estimate.transition.family)
    if evidence.has_galaxies:
        yield evidence.tree.measure
    for model in evidence.models:
        yield from ("model", model.transition.family)


def _told(evidence: Evidence) -> dict[str, Any]:
    """What a page says of a question, for JSON."""
    measured: dict[str, Any] = {}
    if evidence.has_galaxies:
        measured = {
            "definition": None if evidence.question else evidence.catalogue.metadata.get("definition"),
            "measured_on": evidence.which,
            "measure": evidence.tree.measure,
            "table": evidence.table.to_dicts(),
            "changed": int(evidence.changed.sum()),
        }
    return {
        "question": evidence.question,
        "classes": evidence.classes,
        "quantity": evidence.quantity.name,
        **measured,
        "bins": evidence.correction.to_dicts(),
        "transition": evidence.estimate.to_dict(),
        "estimate": evidence.origin,
    }


def sentences(evidence: Evidence) -> dict[str, str]:
    """What the first screen says: `headline`, `answer`, `remark`; and `reason` and `next` of a good verdict."""
    answer = list[str]()
    model = evidence.principal
    headline = _headline(evidence)
    if model is not None:
        share = evidence.view(model.labels).p
        p = np.nanmean(share) if np.isfinite(share).any() else 0.5  # it says that the question applies to none
        if max(p, 1 - p) >= ONE_CLASS:
            answer.append(headline)
            calls = f"calls {percent(max(p, 1 - p))} of the galaxies {(evidence.other, evidence.answer)[round(p)]}"
            headline = f"{model.name} {calls}: its labels carry little information."
    first, last = evidence.ends
    if first["corrected"] is not None:
        ends = (_with_range(row, evidence.from_gold) + place for row, place in _placed(evidence))
        how = "with gold labels" if evidence.from_gold else "from labels alone"
        text = f"Corrected {how}, the {evidence.quantity.name} is {' and '.join(ends)}"
        text += "" if evidence.from_gold else "; in brackets by the estimate's assumption"
        if model is not None and None not in (first["model"], last["model"]):
            by_model = " and ".join(percent(row["model"]) for row in (first, last))
            text += f"; the mean of the model's {model.best.kind} is {by_model}"
        if first["gold"] is not None:
            by_gold = " and ".join(percent(row["gold"], row["gold_stderr"]) for row in (first, last))
            text += f"; the truth is {by_gold}" if evidence.gold_name == TRUTH else f"; gold labels give {by_gold}"
        answer.append(text + ".")
    answer += _of_all(evidence)
    answer += _of_changes(evidence)
    return {"headline": headline, "answer": " ".join(answer), "remark": " ".join(_remark(evidence))} | _when_good(
        evidence
    )


def _with_range(row: Mapping[str, Any], value_first: bool) -> str:
    """A corrected fraction and its range in percent; without it, if all galaxies have gold labels."""
    value, spans = percent(row["corrected"]), f"{100 * row['lowest']:.0f} to {percent(row['highest'])}"
    if value_first and row["lowest"] == row["highest"]:
        return value
    return f"{value} (range {spans})" if value_first else f"{spans} ({value})"


def _placed(evidence: Evidence) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The rows of the lowest and the highest bin, and where these are, unless that is α."""
    for row in evidence.ends:
        yield row, "" if evidence.fractions.by == "alpha" else f" at {evidence.fractions.by_name} {row['bin']}"


def _of_all(evidence: Evidence) -> Iterator[str]:
    """The fraction of all galaxies of the estimate, and to how many the question applies."""
    total = evidence.total
    own = evidence.fractions
    value, spans = f"{total[0]:.3f}", between(*total[1:])
    if evidence.from_gold and total[1] == total[2]:
        text = f"{value}, by their gold labels"
    else:
        text = f"{value} (range {spans})" if evidence.from_gold else f"{spans} ({value})"
    yield f"Of all galaxies of the estimate, it is {text}."
    if evidence.quoted.tells_apart:
        *_, low, high = evidence.quoted.total
        yield f"If these galaxies are a random sample of a population, its fraction is {between(low, high)}."
    if own.of_some is not None:
        yield f"The question applies to {percent(own.of_some.total[1])} of the galaxies."


def _of_changes(evidence: Evidence) -> Iterator[str]:
    """How many galaxies change their label."""
    if not evidence.has_galaxies:
        return
    after = evidence.after
    galaxies = after.known.sum()
    if len(after.classes) > 2:
        yield f"{evidence.changed.sum():,} of {galaxies:,} galaxies change their label."
        return
    there, back = (np.sum(evidence.changed & (evidence.before == k)) for k in (0, 1))
    and_back = f"{back or 'none':{',' if back else ''}} from {after.classes[1]} to {after.classes[0]}"
    possible = np.nan_to_num(after.probabilities[evidence.before == DISK, SMOOTH]).any()  # by T(α)
    and_back += "" if back or possible else ", by assumption"
    change = f"change from {after.classes[0]} to {after.classes[1]}"
    yield f"{there:,} of {galaxies:,} galaxies ({percent(there / max(galaxies, 1))}) {change}, {and_back}."
    counted = np.mean(after.labels[after.known] == DISK)
    if not evidence.total[1] <= counted <= evidence.total[2]:
        yield f"Counted by these labels it would be {counted:.3f}: quote the fraction; labels are the likelier classes."


def _remark(evidence: Evidence) -> Iterator[str]:
    """Definitions, and what the bins are of."""
    own = evidence.catalogue.metadata
    about = evidence.estimate.about
    if evidence.question is not None:
        answers = [name for name, part in zip(evidence.classes, evidence.quantity.counted, strict=True) if part]
        yield f"{capital(evidence.question)}: {', '.join(answers)}."
        if own.get("definition") and set(answers) == set(own.get("classes", ())):  # the catalogue's own question
            yield f"Definition: {own['definition'].rstrip('.')}."
        gold = about["gold_definition"].removeprefix(f"{evidence.question}: ")
        yield f"Gold labels of {evidence.question}: {gold}."
        yield f"α: {about['alpha'] or 'definition not known'}."
    elif own.get("definition"):
        yield f"Definition of {evidence.answer}: {own['definition'].rstrip('.')}."
    meant = about.get("gold_definition") if evidence.question is None and evidence.from_gold else None
    if meant not in (None, "not stated"):
        yield f"Gold labels: {meant}."
    if evidence.fractions.by == "alpha":
        first, last = evidence.ends
        yield (
            f"Poorly and well resolved: the lowest and the highest bin of α ({first['low']:.1f} to {first['high']:.1f} "
            f"and {last['low']:.1f} to {last['high']:.1f})."
        )
    if evidence.models:
        yield f"Models are measured on {evidence.which}."
    yield f"Estimate: {evidence.origin}."


def _headline(evidence: Evidence) -> str:
    """How the observed labels change with resolution, from the rows of the lowest and the highest bin of α."""
    name = evidence.quantity.name
    low, high = evidence.ends
    corrected, lowest = low["corrected"], low["lowest"]
    if evidence.fractions.by != "alpha":
        if not evidence.has_galaxies:
            ends = (f"{percent(row['labelled'])}{place}" for row, place in _placed(evidence))
            return f"The observed {name} is {' and '.join(ends)}."
        table = fractions_by(evidence.alpha, [evidence.view(evidence.observed)]).rename(
            {"fraction": "labelled", "stderr": "labelled_stderr"}
        )
        low, high, corrected = table.row(0, named=True), table.row(-1, named=True), None
    rise = high["labelled"] - low["labelled"]
    error = np.hypot(low["labelled_stderr"], high["labelled_stderr"])
    if rise > 2 * error and corrected is not None and lowest > low["labelled"]:
        missed = 1 - low["labelled"] / max(corrected, 1e-9)
        many = "most" if missed > 0.5 else "many" if missed > 0.2 else "some"
        who = "The simulated labels" if evidence.gold_name == TRUTH else "The observed labels"
        both = f"{percent(low['labelled'])} there and {percent(high['labelled'])} where galaxies are well resolved"
        return f"{who} miss {many} {evidence.answer} galaxies where resolution is poor: the {name} is {both}."
    if corrected is not None and not lowest <= low["labelled"] <= low["highest"]:
        value = f"corrected, it is {_with_range(low, True)}"
        return f"The labels show a {name} of {percent(low['labelled'])} where resolution is poor; {value}."
    course = "does not change significantly" if abs(rise) <= 2 * error else "rises" if rise > 0 else "falls"
    both = f"{percent(low['labelled'])} in poorly and {percent(high['labelled'])} in well resolved galaxies"
    why = " This may be bias or a real trend." if course == "rises" else ""
    return f"The observed {name} {course} with resolution: it is {both}.{why}"


def _when_good(evidence: Evidence) -> dict[str, str]:
    """Reason why a result is good, and what to do next."""
    reason, step = "", "Quote the corrected fractions with their range, and with the definition of the gold labels."
    if evidence.corrector is not None:
        for definition, truth in list(evidence.truths.items())[:1]:
            sets = evidence.corrector.best, evidence.observed
            own, labelled = (f"{evidence.row(label_set)[f'fraction_rms: {definition}']:.3f}" for label_set in sets)
            reason = f"The model's {evidence.quantity.name}s differ from the {truth.name} by {own} (rms over fifths of "
            reason += f"α), the observed ones by {labelled}."
        folder = evidence.corrector.classifier.folder
        step = f"Label more galaxies: truemorph label {folder} SOURCE --out labels.parquet"
        if evidence.gold_name == TRUTH:
            step = "Prepare your own galaxies: truemorph prepare VOTES --images FOLDER --out catalogue.parquet"
    return {"reason": reason, "next": step}


def _sections(evidence: Evidence, figure: Any, changed: Sequence[Changed], several: bool) -> Iterator[Section]:
    """What is not folded, of one question; `figure` has its fractions, unless it is at the top of the page."""
    of = f"{capital(evidence.title)}: " if several else ""
    figures = [] if figure is None else [figure]
    tables = [bins_table(evidence)]
    if evidence.has_galaxies:
        figures.append(bias_curve(evidence))
        tables += [asked_table(evidence)] if evidence.is_gated else []
    yield Section(f"{of}Fractions and the bias curve", figures=figures, tables=tables)
    if not evidence.has_galaxies:
        return
    if evidence.options.intrinsic:
        yield Section(f"{of}Does it hold among similar galaxies?", figures=[among_similar(evidence)])
    if evidence.models:
        tables = [] if evidence.truth is None else [confusion_table(evidence)]
        yield Section(f"{of}Calibration and confusion", figures=calibration(evidence), tables=tables)
    yield from (listed.section() for listed in changed if listed.evidence is evidence)
    yield Section(f"{of}Table 1", tables=[label_sets_table(evidence)])
