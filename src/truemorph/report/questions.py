"""The report on questions of a decision tree: fractions of their answers from votes and gold labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.binning import Bins
from truemorph.bias.plots import plot_fractions
from truemorph.bias.population import PopulationFractions, QuotedFraction
from truemorph.catalogs.catalogue import read_catalogue, rows_where
from truemorph.catalogs.label_sets import FIFTHS
from truemorph.catalogs.other_labels import with_other_labels
from truemorph.catalogs.paths import answer_sets, label_column, tree_of, vote_column
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.io import plain, write_json
from truemorph.report.figures import new_panel
from truemorph.report.measures import BiasTree
from truemorph.report.other_labels import fractions_of_others, section_of_others
from truemorph.report.page import (
    Illustration,
    Light,
    Page,
    Section,
    Table,
    in_order,
    number,
    verdict,
    with_error,
    write_illustrations,
    write_page,
)
from truemorph.results import Result, quantity_table, text_table
from truemorph.tables import numeric_columns

# Votes for a question that selections of published work ask for.
_USUAL_CUT = 10
_HEAD = ("fraction", "labels, lowest bin", "labels, highest", "corrected, lowest", "corrected, highest", "all galaxies")


@dataclass(frozen=True, repr=False)
class QuestionReport(Result):
    """What a report on questions says: `content` has `headline`, `answer`, `verdict`, `questions` and `findings`."""

    out: Path
    content: dict[str, Any]
    fractions: tuple[PopulationFractions, ...]
    findings: tuple[Finding, ...]

    def summary(self) -> str:
        """Return the table of fractions and the verdict as text."""
        rows = [row for one in self.fractions for row in _overview(one)]
        said, judged = self.content, self.content["verdict"]
        after = [said["headline"], said["answer"], f"{judged['text']} {judged['reason']}", f"open {self.out}"]
        return "\n".join([*text_table(_HEAD, rows), *after])

    def to_dict(self) -> dict[str, Any]:
        """Return what the page says as plain values, for JSON."""
        return self.content

    def to_table(self) -> Any:
        """Return the corrected fractions of all galaxies."""
        quoted = {name: one.total for each in self.fractions for name, one in each.ratios.items()}
        columns: dict[str, Any] = {"fraction": (list(quoted), "", "fraction of an answer where the question applies")}
        names = ("observed labels", "corrected", "standard error", "lower end of the range", "upper end of the range")
        columns |= {name: ([one[k] for one in quoted.values()], "", name) for k, name in enumerate(names)}
        return quantity_table(columns)

    def plot(self, ax: Any = None) -> Any:
        """Draw the fractions of the first question; returns matplotlib axes."""
        return plot_fractions(self.fractions[0], ax, {})


def report_questions(
    given: Sequence[PopulationFractions], out: Path, catalogue: Any = None, labels: Sequence[Any] = ()
) -> QuestionReport:
    """Write a page about fractions of questions; with their catalogue, also who was asked at which resolution.

    `labels` are tables of other groups' answers, which are shown beside the corrected fractions.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{out}: a report is an .html file")
    if any(one.applies is None or "question" not in one.about for one in given):
        raise InputError("these are no fractions of a question; make them with truemorph transition and `question`")
    if labels and catalogue is None:
        raise InputError("to show the labels of others, give the catalogue of these fractions too (`catalogue`)")
    others, joining = [], list[Finding]()
    for one in given if labels else ():
        question = str(one.about["question"])
        prepared = read_catalogue(catalogue)
        table, sets = with_other_labels(prepared, tree_of(prepared, question), question, labels)
        others.append((one, fractions_of_others(table, one, sets)))
        joining += table.findings
    findings = tuple(in_order(unique(*(one.findings for one in given), joining)))
    first = given[0]
    name, quoted = next(iter(first.ratios.items()))
    by = _column(first.by)
    applies = first.applies
    assert applies is not None
    low, high = (_said(quoted, b) for b in (0, -1))
    wrong = abs(quoted.labelled[0] - quoted.fraction[0]) > 2 * quoted.stderr[0]
    where = f"where {by} {'are' if ',' in first.by else 'is'} lowest"
    shown = f"The labels show a {name} of {_percent(quoted.labelled[0])} {where}; corrected, it is {low}."
    headline = shown if wrong else f"The {name} is {low} {where}; the labels show the same."
    labelled, value, _, least, most = quoted.total
    answer = (
        f"Corrected, it is {low} in the lowest bin of {by} and {high} in the highest; the labels give "
        f"{_percent(quoted.labelled[0])} and {_percent(quoted.labelled[-1])}. Of all galaxies together it is "
        f"{_percent(value)} (range {_percent(least)} to {_percent(most)}; labels {_percent(labelled)}). The question "
        f"applies to {_percent(applies.total[1])} of the galaxies."
    )
    every = [row for one in given for row in _overview(one)]
    sections = [Section("All questions", tables=[Table("Fractions", _HEAD, every)])] if len(given) > 1 else []
    sections += [_section(one, first) for one in given]
    sections += [section_of_others(one, _column(one.by), found) for one, found in others]
    if catalogue is not None:
        sections += [_asked(catalogue, one) for one in given]
    page = Page(
        title=f"{', '.join(str(one.about['question']) for one in given)}: fractions of answers",
        headline=headline,
        answer=answer,
        remark=" ".join(_remark(one) for one in given),
        verdict=verdict(
            findings,
            f"Ranges are 95 %, statistical; it is assumed that {first.assumption}.",
            "Quote the fractions with their ranges, and with the definition of the gold labels.",
        ),
        first=_figure(first),
        lights=[Light("Estimate", findings, [("Gold labels", f"{int(_gold(first).sum()):,}")])],
        sections=sections,
    )
    files = out.with_name(f"{out.stem}_files")
    write_illustrations(page.figures, files / "figures")
    write_page(page, out)
    content = plain(
        {
            "out": str(out),
            "headline": page.headline,
            "answer": page.answer,
            "verdict": page.verdict,
            "questions": [one.to_dict() for one in given],
            **({"other_labels": {str(one.about["question"]): found for one, found in others}} if others else {}),
            "findings": [one.to_dict() for one in findings],
        }
    )
    write_json(files / "report.json", content)
    return QuestionReport(out, content, tuple(given), findings)


def _column(name: str) -> str:
    return " and ".join("α" if one == "alpha" else one for one in name.split(","))


def _percent(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{100 * value:.0f} %"


def _said(one: QuotedFraction, b: int) -> str:
    return f"{_percent(one.fraction[b])} (range {_percent(one.low[b])} to {_percent(one.high[b])})"


def _gold(one: PopulationFractions) -> np.ndarray:
    assert one.gold_counts is not None
    return one.gold_counts


def _overview(one: PopulationFractions) -> list[list[str]]:
    """Return a row for each fraction: labels and corrected in the lowest and highest bin, and of all galaxies."""
    rows = []
    for name, each in one.ratios.items():
        labels = [number(each.labelled[b]) for b in (0, -1)]
        corrected = [f"{number(each.fraction[b])} ({number(each.low[b])} to {number(each.high[b])})" for b in (0, -1)]
        rows.append([name, *labels, *corrected, with_error(each.total[1], each.total[2])])
    return rows


def _remark(one: PopulationFractions) -> str:
    about = one.about
    return (
        f"Gold labels of {about['question']}: {about['gold_definition'].partition(': ')[2]}; "
        f"{int(_gold(one).sum()):,} galaxies to which it applies. α: {about['alpha'] or 'definition not known'}."
    )


def _figure(one: PopulationFractions) -> Illustration:
    axes = plot_fractions(one, new_panel(), {})
    names = ", ".join(one.ratios)
    caption = (
        f"{names} of {one.counts.sum():,} galaxies in bins of {_column(one.by)}, among those to which the question "
        "applies: by the observed labels (majority paths), and corrected with gold labels. Bars are standard errors, "
        "areas 95 % ranges."
    )
    data = pl.DataFrame({"galaxies": one.counts, "gold_labels": _gold(one)})
    for name, each in one.quoted.items():
        parts = {"observed": each.labelled, "corrected": each.fraction, "stderr": each.stderr}
        parts |= {"low": each.low, "high": each.high}
        data = data.with_columns(**{f"{name}, {what}": pl.Series(values) for what, values in parts.items()})
    return Illustration(f"fractions_{label_column(one.about['question'])}", axes.figure, caption, data)


def _section(one: PopulationFractions, first: PopulationFractions) -> Section:
    """A question: its figure, if it is not at the top of the page, and a table of its bins."""
    applies = one.applies
    assert applies is not None
    alone = len(one.ratios) == 1
    head = [*([] if alone else ["fraction"]), _column(one.by), "galaxies", "applies to", "gold labels"]
    rows = [
        [
            *([] if alone else [name]),
            ", ".join(number(value, ".2f") for value in np.atleast_1d(one.middles[b])),
            f"{one.counts[b]:,}",
            with_error(applies.fraction[b], applies.stderr[b], ".2f"),
            f"{_gold(one)[b]:,}",
            number(each.labelled[b]),
            with_error(each.fraction[b], each.stderr[b]),
            f"{number(each.low[b])} to {number(each.high[b])}",
        ]
        for name, each in one.ratios.items()
        for b in range(one.counts.size)
    ]
    head += ["observed", "corrected", "range"]
    figures = () if one is first else (_figure(one),)
    note = f"Assumed: {one.assumption}."
    return Section(str(one.about["question"]).capitalize(), figures=figures, tables=[Table("Bins", head, rows, note)])


def _asked(catalogue: Any, one: PopulationFractions) -> Section:
    """Who was asked at which resolution: the selection that cuts in the number of votes make."""
    table, question = read_catalogue(catalogue), str(one.about["question"])
    tree = tree_of(table, question)
    chosen, _ = rows_where(table.frame, one.about["where"], "catalogue")
    frame = table.frame.filter(pl.Series(chosen))
    ends = {each.name: each.answer is not None for each in tree.classes(question)}
    path = np.array([ends[name] for name in frame[label_column(question)].to_list()], dtype=float)
    answers = list(tree.question(question).answers)
    votes = numeric_columns(frame, [vote_column(question, answer) for answer in answers], "catalogue")
    total = votes.sum(axis=1)
    enough = total >= _USUAL_CUT
    alpha = frame["alpha"].to_numpy()
    cut = Bins.cut(alpha, FIFTHS)
    shown = tree.question(question).shown or answers[:1]
    majority = np.isin(votes.argmax(axis=1), [answers.index(answer) for answer in shown])
    columns = [
        cut.averages(values)[0]
        for values in (path, total, enough.astype(float), np.where(enough, majority.astype(float), np.nan))
    ]
    rows = [
        [f"{low:.1f} to {high:.1f}", number(asked), number(mean, ".1f"), number(part), number(answered)]
        for low, high, asked, mean, part, answered in zip(cut.edges[:-1], cut.edges[1:], *columns, strict=True)
    ]
    head = ["α", "on the majority path", "votes for the question", f"at least {_USUAL_CUT} votes"]
    head.append(f"{' or '.join(shown)} among these, by majority")
    drift = BiasTree.fitting(alpha, None, 0, 0).bias(answer_sets(frame, tree, question)[0][0])
    note = (
        "A selection by the number of votes selects by α, and by how the answer changes what volunteers say before. "
        "The corrected fractions use all galaxies."
    )
    if drift is not None:
        note += (
            f" Drift of the answers on the majority path with α: CV14 {drift.value:.3f}, {drift.excess:.3f} above the "
            "floor."
        )
    return Section(f"Who was asked: {question}", tables=[Table("Fraction of the galaxies", head, rows, note)])
