"""The report on questions of a decision tree: fractions of their answers from votes and gold labels, and networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.bias.estimate import Estimate
from truemorph.bias.plots import plot_fractions
from truemorph.bias.population import PopulationFractions, QuotedFraction
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.other_labels import with_other_labels
from truemorph.catalogs.paths import asked_in
from truemorph.classifiers.classifier import Classifier
from truemorph.errors import InputError
from truemorph.explain.catalogue import named_models
from truemorph.findings import Finding
from truemorph.io import plain, read_toml, write_json
from truemorph.questions import slug
from truemorph.report.answer_changes import (
    Changed,
    changed_answers,
    gallery_of_changes,
    listed,
    pairs_of_changes,
    table_of_changes,
)
from truemorph.report.answer_checks import lights_of_questions
from truemorph.report.answer_figures import calibration_panels, curve_by_class, fractions_figure, styles_of_networks
from truemorph.report.answer_tables import (
    ENDS,
    asked_table,
    bins_table,
    fraction_rows,
    fractions_of_sets,
    gold_counts,
    label_sets_table,
    overview_table,
    range_cell,
)
from truemorph.report.answers import Answers, answers_to, question_of, rules_for
from truemorph.report.evidence import TRUTH
from truemorph.report.figures import by_name, capital
from truemorph.report.gather import check_better, labels_by, rests_on, trained_on
from truemorph.report.lights import Check
from truemorph.report.networks import ABOUT_MAPS, looks, training
from truemorph.report.options import ReportOptions
from truemorph.report.other_labels import fractions_of_others, section_of_others
from truemorph.report.page import (
    Illustration,
    Page,
    Pair,
    Section,
    checks_told,
    findings_of,
    folder_beside,
    verdict,
    write_illustrations,
    write_page,
)
from truemorph.results import Result, percent, quantity_table, text_table
from truemorph.tables import CatalogTable, read_table, write_table


@dataclass(frozen=True, repr=False)
class QuestionReport(Result):
    """What a report on questions says.

    `content` has `headline`, `answer`, `verdict`, `questions`, `fractions`, `changed` and `findings`.
    """

    out: Path
    content: dict[str, Any]
    fractions: tuple[PopulationFractions, ...]
    findings: tuple[Finding, ...]

    def summary(self) -> str:
        """Return the table of fractions and the verdict as text."""
        every = self.content["fractions"]
        rows = [[row["fraction"], row["labels"], *(range_cell(row, end) for end in ENDS)] for row in every]
        head = ["fraction", "labels", "lowest bin", "highest bin", "all galaxies"]
        said, judged = self.content, self.content["verdict"]
        after = [said["headline"], said["answer"], f"{judged['text']} {judged['reason']}", f"open {self.out}"]
        return "\n".join([*text_table(head, rows, left=(0, 1)), *after])

    def to_dict(self) -> dict[str, Any]:
        """Return what the page says as plain values, for JSON."""
        return self.content

    def to_table(self) -> Any:
        """Return the corrected fractions of all galaxies."""
        quoted = {name: ratio.total for each in self.fractions for name, ratio in each.ratios.items()}
        columns: dict[str, Any] = {"fraction": (list(quoted), "", "fraction of an answer where the question applies")}
        names = ("observed labels", "corrected", "standard error", "lower end of the range", "upper end of the range")
        columns |= {name: ([one[k] for one in quoted.values()], "", name) for k, name in enumerate(names)}
        return quantity_table(columns)

    def plot(self, ax: Any = None) -> Any:
        """Draw the fractions of the first question; returns matplotlib axes."""
        return plot_fractions(self.fractions[0], ax, {})


@dataclass(frozen=True)
class _Evidence:
    """What a page rests on."""

    given: Sequence[PopulationFractions]
    answers: Mapping[str, Answers]  # by question, of estimates with a catalogue
    models: Mapping[str, Classifier]
    catalogue: CatalogTable | None
    others: Sequence[tuple[PopulationFractions, dict[str, dict[str, np.ndarray]]]]
    checks: Sequence[Check]  # of the estimates


def report_questions(
    sources: Sequence[Any],
    out: Path,
    options: ReportOptions | None = None,
    *,
    title: str = "",
    context: Sequence[Finding] = (),
) -> QuestionReport:
    """Write a page about questions, with their catalogue also who was asked, and galaxies whose answer changes.

    Sources are estimates of questions (.json, or in memory) or their fractions, and run folders of networks that answer
    them; their estimates, if they are not given, are those that the networks were trained through. Tables among the
    `labels` that no network here made are other groups' answers, which are shown beside the corrected fractions.
    Figures, the data behind them and, for each question, a list of all galaxies whose answer changes go to
    `<name>_files` beside the page. `context` is what is known about these data beforehand.
    """
    options = options or ReportOptions()
    if options.also or options.distributions:
        name = "also" if options.also else "distributions"
        raise InputError(f"`{name}` is an option of reports on two classes, not on questions; leave it out")
    files = folder_beside(out)
    evidence = _gather(sources, options, files)
    given, every = evidence.given, list(evidence.answers.values())
    changed = {one.question: changed_answers(one, options.galaxies // len(every)) for one in every}
    maps, of_maps = _maps(evidence, options)
    counted = {one.answer: f"p({one.answer} | applies)" for one in every}
    networks = {network.name: network for one in every for network in one.models}
    runs = {name: network.classifier for name, network in networks.items()}
    trained, of_runs = training(runs, styles_of_networks(list(networks.values())), counted)
    judged = lights_of_questions(every, [*evidence.checks, *context], [*of_runs, *of_maps])
    findings = findings_of(judged)
    rows = [row for one in given for row in fraction_rows(one, evidence.answers.get(str(one.about["question"])))]
    first = given[0]
    figures = {str(one.about["question"]): _figure(one, evidence) for one in given}
    headline, answer = _sentences(evidence, changed)
    sections = [_section(one, figures, evidence, changed) for one in given]
    gallery = gallery_of_changes(list(changed.values()))
    if gallery is not None:
        sections.append(Section("Look at galaxies whose answer changes", gallery=gallery))
    sections += [section_of_others(one, by_name(one.by), found) for one, found in evidence.others]
    page = Page(
        title=title or f"{', '.join(figures)}: fractions of answers",
        headline=headline,
        answer=answer,
        remark=" ".join([*map(_remark, given), *(one.message for one in context)]),
        verdict=verdict(
            findings,
            f"Ranges are 95 %, statistical; it is assumed that {first.assumption}.",
            "Quote the fractions with their ranges, and with the definition of the gold labels.",
        ),
        first=next(iter(figures.values())),
        table=overview_table(rows),
        lights=judged,
        sections=sections,
        appendix=[*maps, *trained],
    )
    write_illustrations(page.figures, files / "figures")
    for question, one in changed.items():
        write_table(CatalogTable(listed(one)), files / f"changed_{slug(question)}.ecsv")
    write_page(page, out)
    others = {str(one.about["question"]): found for one, found in evidence.others}
    content = plain(
        {
            "out": str(out),
            "headline": page.headline,
            "answer": page.answer,
            "verdict": page.verdict,
            "questions": [one.to_dict() for one in given],
            "fractions": rows,
            "changed": {question: one.count for question, one in changed.items()},
            **({"other_labels": others} if others else {}),
            **checks_told(judged),
        }
    )
    write_json(files / "report.json", content)
    return QuestionReport(out, content, tuple(given), findings)


def _gather(sources: Sequence[Any], options: ReportOptions, files: Path) -> _Evidence:
    """Read estimates, runs and a catalogue, and label what is not labelled (into the folder `files`)."""
    estimates, runs = list[Estimate | PopulationFractions](), list[Any]()
    for source in sources:
        if isinstance(source, Estimate | PopulationFractions):
            estimates.append(source)
        elif str(source).endswith(".json"):
            estimates.append(Estimate.read(source))
        else:
            runs.append(source)
    models = named_models(runs)
    given = {question_of(estimate): estimate for estimate in estimates}
    if len(given) < len(estimates):
        raise InputError("these are several estimates of one question; write a page for each")
    for name, model in models.items():
        for head in model.heads:
            if head.question not in given:
                given[str(head.question)] = _trained_through(name, model, str(head.question))
    fractions = [one.fractions if isinstance(one, Estimate) else one for one in given.values()]
    path = options.catalogue or (trained_on(runs) if runs else None)
    if options.labels and path is None:
        raise InputError("to show the labels of others, give the catalogue of these fractions too (`catalogue`)")
    checks: list[Check] = [finding for one in given.values() for finding in one.findings]
    checks.append(("Gold labels", f"{sum(int(gold_counts(fraction).sum()) for fraction in fractions):,}"))
    if path is None:
        return _Evidence(fractions, {}, models, None, [], checks)
    check_better(options)
    catalogue = read_catalogue(path)
    tables = {label: read_table(label) for label in options.labels}
    hashes = {model.model_hash for model in models.values()}
    for file, table in tables.items():
        if (made_by := table.metadata.get("model_hash")) is not None and made_by not in hashes:
            raise InputError(f"{file}: was made by no model of this report; give the folder of that model too")
    own = [table for table in tables.values() if "model_hash" in table.metadata]
    labels = {name: labels_by(name, model, Path(path), own, files) for name, model in models.items()}
    rules = rules_for(catalogue, options.gold, list(given))
    answers = {}
    for question, one in given.items():
        if isinstance(one, Estimate):
            checks += rests_on(one, catalogue)
            answers[question] = answers_to(one, catalogue, models, labels, options, rules[question])
            checks += answers[question].findings
    others = []
    tables_of_others = [one for one, table in tables.items() if "model_hash" not in table.metadata]
    for each in fractions if tables_of_others else ():
        question = question_of(each)
        asked = answers[question].asked if question in answers else asked_in(catalogue, question)
        table, sets = with_other_labels(catalogue, asked, tables_of_others)
        others.append((each, fractions_of_others(table, each, asked, sets)))
        checks += table.findings
    return _Evidence(fractions, answers, models, catalogue, others, checks)


def _trained_through(name: str, model: Classifier, question: str) -> Estimate:
    """The estimate of a question that a run was trained through, from the file that the run names."""
    named: Any = None
    if model.folder is not None and (model.folder / "run.toml").is_file():
        named = read_toml(model.folder / "run.toml").get("transition")
    for file in [named] if isinstance(named, str) else named or ():
        if Path(file).is_file() and file.endswith(".json") and question_of(one := Estimate.read(file)) == question:
            return one
    raise InputError(f"{name} answers {question!r}; give an estimate of it too (truemorph transition with `question`)")


def _maps(evidence: _Evidence, options: ReportOptions) -> tuple[list[Section], list[Check]]:
    """A section with mean maps of the galaxies that networks predict to have the first answer to each question."""
    sections, checks = list[Section](), list[Check]()
    for answer in evidence.answers.values():
        if not options.maps or not answer.models or "image" not in answer.frame.columns:
            continue
        calls = np.stack([model.p.argmax(axis=1)[answer.rows] == answer.number_in(model) for model in answer.models])
        drawn = np.flatnonzero(calls.any(axis=0) & answer.frame["image"].is_not_null().to_numpy()[answer.rows])
        drawn = np.sort(np.random.default_rng(options.seed).permutation(drawn)[: options.maps])
        models = [model for model, called in zip(answer.models, calls[:, drawn], strict=True) if called.any()]
        if not models:
            continue
        frame = answer.frame[answer.rows[drawn]]
        explained = list(dict.fromkeys(model.head.columns[answer.number_in(model)] for model in models))
        found, more = looks(
            {model.name: model.classifier for model in models},
            frame,
            answer.catalogue,
            options,
            styles_of_networks(answer.models),
            explained,
        )
        checks += more
        named = [replace(figure, name=f"{figure.name}_{slug(answer.question)}") for figure in found]
        sections.append(Section(f"Where the networks look: {answer.question} (Grad-CAM)", ABOUT_MAPS, named))
    return sections, checks


def _said(one: QuotedFraction, b: int) -> str:
    return f"{percent(one.fraction[b])} (range {percent(one.low[b])} to {percent(one.high[b])})"


def _sentences(evidence: _Evidence, changed: Mapping[str, Changed]) -> tuple[str, str]:
    """Headline and answer, about the first question."""
    first = evidence.given[0]
    name, quoted = next(iter(first.ratios.items()))
    by, applies = by_name(first.by), first.applies
    assert applies is not None
    low, high = (_said(quoted, b) for b in (0, -1))
    wrong = abs(quoted.labelled[0] - quoted.fraction[0]) > 2 * quoted.stderr[0]
    where = f"where {by} {'are' if ',' in first.by else 'is'} lowest"
    of_bins = [f"the lowest bin of {by}", "the highest"]
    if first.groups:
        of_bins = [f"{by} {first.groups[b]}" for b in (0, -1)]
        where = f"in {of_bins[0]}"
    shown = f"The labels show a {name} of {percent(quoted.labelled[0])} {where}; corrected, it is {low}."
    agreed = f"The {name} is {low} {where}; the labels give {percent(quoted.labelled[0])}, within two errors."
    headline = shown if wrong else agreed
    labelled, value, _, least, most, *_ = quoted.total
    said = [
        f"Corrected, it is {low} in {of_bins[0]} and {high} in {of_bins[1]}; the labels give "
        f"{percent(quoted.labelled[0])} and {percent(quoted.labelled[-1])}. Of all galaxies together it is "
        f"{percent(value)} (range {percent(least)} to {percent(most)}; labels {percent(labelled)}). The question "
        f"applies to {percent(applies.total[1])} of the galaxies."
    ]
    answers = evidence.answers.get(question_of(first))
    for what, row in [] if answers is None else fractions_of_sets(answers):
        ends = " and ".join(percent(row[b]) for b in (0, -2))
        said.append(f"The truth is {ends}." if what == TRUTH else f"Network {what}: {ends}.")
    for question, one in changed.items():
        of = f" ({question})" if len(changed) > 1 else ""
        said.append(f"{one.count:,} of {one.answers.after.known.sum():,} galaxies change their answer{of}.")
    return headline, " ".join(said)


def _remark(one: PopulationFractions) -> str:
    about = one.about
    return (
        f"Gold labels of {about['question']}: {about['gold_definition'].partition(': ')[2]}; "
        f"{int(gold_counts(one).sum()):,} galaxies to which it applies. α: {about['alpha'] or 'definition not known'}."
    )


def _figure(one: PopulationFractions, evidence: _Evidence) -> Illustration:
    return fractions_figure(one, evidence.answers.get(question_of(one)))


def _section(
    one: PopulationFractions, figures: Mapping[str, Illustration], evidence: _Evidence, changed: Mapping[str, Changed]
) -> Section:
    """A question: figures but that at the top of the page, its bins, label sets, who was asked, and what changes."""
    question = question_of(one)
    answers = evidence.answers.get(question)
    beside = one is not evidence.given[0]
    drawn, tables = [figures[question]] if beside else [], [bins_table(one, answers)]
    pairs = list[Pair]()
    if answers is not None:
        calibrated = calibration_panels(answers)
        drawn += [curve_by_class(answers), *([] if calibrated is None else [calibrated])]
        tables.append(label_sets_table(answers))
    if evidence.catalogue is not None:
        tables.insert(0 if beside else len(tables), asked_table(evidence.catalogue, one))
    if answers is not None:
        said, pairs = pairs_of_changes(changed[question])
        tables.append(table_of_changes(changed[question], said))
    return Section(capital(question), figures=drawn, tables=tables, pairs=pairs, beside=beside)
