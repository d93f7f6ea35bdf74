"""Tables of a report on questions of a decision tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.binning import Bins
from truemorph.bias.metrics.scores import balanced_accuracy
from truemorph.bias.population import PopulationFractions
from truemorph.catalogs.catalogue import rows_where
from truemorph.catalogs.label_sets import FIFTHS
from truemorph.catalogs.paths import asked_in, label_column, vote_column
from truemorph.report.answer_checks import gold_answers, hard_answers
from truemorph.report.answers import Answers, question_of
from truemorph.report.evidence import TRUTH
from truemorph.report.figures import by_name
from truemorph.report.measures import numbers_of
from truemorph.report.page import Table
from truemorph.results import number, with_error
from truemorph.tables import CatalogTable, numeric_columns

# Votes for a question that selections of published work ask for.
_USUAL_CUT = 10
ENDS = ("lowest", "highest", "all")


def fractions_of_sets(answers: Answers) -> list[tuple[str, np.ndarray]]:
    """The first quantity by each network, and by the truth of simulated galaxies, in the bins and last in all."""
    sets = [(model.name, model.probabilities) for model in answers.models]
    if answers.truth is not None and answers.truth.name == TRUTH:
        sets.append((TRUTH, answers.truth))
    return [(name, answers.fractions_of(one, answers.quantity)[0]) for name, one in sets]


def fraction_rows(one: PopulationFractions, answers: Answers | None) -> list[dict[str, Any]]:
    """Each fraction by labels, corrected, by networks and truth: in the lowest and highest bin, and of all galaxies."""
    rows, question = list[dict[str, Any]](), question_of(one)
    for name, each in one.ratios.items():
        about = {"question": question, "fraction": name}
        labels, corrected, low, high = (
            [*(array[b] for b in (0, -1)), each.total[k]]
            for k, array in ((0, each.labelled), (1, each.fraction), (3, each.low), (4, each.high))
        )
        ranges = {f"{end}_range": pair for end, pair in zip(ENDS, zip(low, high, strict=True), strict=True)}
        rows.append(about | {"labels": "observed"} | dict(zip(ENDS, labels, strict=True)))
        rows.append(about | {"labels": "corrected"} | dict(zip(ENDS, corrected, strict=True)) | ranges)
        if answers is not None and name == answers.quantity.name:
            for what, row in fractions_of_sets(answers):
                rows.append(about | {"labels": what} | dict(zip(ENDS, (row[0], row[-2], row[-1]), strict=True)))
    return rows


def overview_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table of all questions: each fraction by label set, in the lowest and highest bin, and of all galaxies."""
    sets = list(dict.fromkeys(row["labels"] for row in rows))
    by_set = {(row["fraction"], row["labels"]): row for row in rows}
    shown, cells = {label_set: ENDS if label_set == "corrected" else ENDS[:2] for label_set in sets}, []
    for name in dict.fromkeys(row["fraction"] for row in rows):
        cells.append(
            [name, *(range_cell(by_set.get((name, label_set)), end) for label_set in sets for end in shown[label_set])]
        )
    head = ["fraction", *(end for label_set in sets for end in shown[label_set])]
    groups = [("", 1), *((label_set, len(shown[label_set])) for label_set in sets)]
    note = "In the lowest and highest bin of each estimate, and of all galaxies; corrected fractions with 95 % ranges."
    return Table("Fractions", head, cells, note, groups)


def range_cell(row: Mapping[str, Any] | None, end: str) -> str:
    """A fraction with its range in brackets, if it has one; a dash without a row."""
    if row is None:
        return "–"
    around = row.get(f"{end}_range")
    return number(row[end]) + ("" if around is None else f" ({number(around[0], '.2f')} to {number(around[1], '.2f')})")


def gold_counts(one: PopulationFractions) -> np.ndarray:
    """Gold labels to which the question applies in each bin, shape (B,)."""
    assert one.gold_counts is not None
    return one.gold_counts


def bins_table(one: PopulationFractions, answers: Answers | None) -> Table:
    """Fractions in the bins of the estimate; the first also by networks, and the truth."""
    applies = one.applies
    assert applies is not None
    alone, sets = len(one.ratios) == 1, [] if answers is None else fractions_of_sets(answers)
    head = [*([] if alone else ["fraction"]), by_name(one.by), "galaxies", "applies to", "gold labels"]
    rows = []
    for k, (name, each) in enumerate(one.ratios.items()):
        for b in range(one.counts.size):
            rows.append(
                [
                    *([] if alone else [name]),
                    one.bin_name(b),
                    f"{one.counts[b]:,}",
                    with_error(applies.fraction[b], applies.stderr[b], ".2f"),
                    f"{gold_counts(one)[b]:,}",
                    number(each.labelled[b]),
                    with_error(each.fraction[b], each.stderr[b]),
                    f"{number(each.low[b])} to {number(each.high[b])}",
                    *(number(values[b]) if k == 0 else "–" for _, values in sets),
                ]
            )
    head += ["observed", "corrected", "range", *(name for name, _ in sets)]
    note = f"Assumed: {one.assumption}."
    if answers is not None and sets:
        note += f" Networks: Σ p({answers.answer}) / Σ p({answers.question} applies) of {answers.which}."
    return Table("Bins", head, rows, note)


def label_sets_table(answers: Answers) -> Table:
    """Drift with α of each label set, and how it compares with gold labels."""
    tree, quantity = answers.tree_of_bias, answers.quantity
    head, groups = ["labels", quantity.name], [("", 2)]
    head += ["above floor", "value", "floor"]
    groups.append((f"drift with α ({tree.measure})", 3))
    truth = answers.truth
    rows_of_gold, right = gold_answers(answers) if truth is not None else (np.array([], dtype=int), np.array([]))
    right_fractions = None if truth is None else answers.fractions_of(truth, quantity)[0][:-1]
    if truth is not None:
        head += ["balanced accuracy", f"error of {quantity.name} (rms)"]
        groups.append((f"vs {truth.name}", 2))
    rows = []
    for label_set in answers.sets:
        value, drift = answers.fractions_of(label_set, quantity)[0], answers.drift[label_set.name]
        cells = [label_set.name, number(value[-1])]
        measured = numbers_of(drift)
        cells += [number(measured["excess"]), number(measured["value"])]
        cells.append(with_error(measured["floor"], measured["floor_std"]))
        if right_fractions is not None:
            accuracy = balanced_accuracy(right, hard_answers(answers, label_set, rows_of_gold))
            off = float(np.sqrt(np.nanmean((value[:-1] - right_fractions) ** 2)))
            cells += ["–", "–"] if label_set is truth else [number(accuracy), number(off)]
        rows.append(cells)
    note = (
        f"On {answers.which}. Drift: of the answers where the question applies by the most probable class of each set, "
        f"in {f'{2**tree.depth} leaves, ' if tree.depth else ''}{tree.bins} bins of α; noise alone gives the floor."
    )
    if truth is not None:
        note += f" vs {truth.name}: {rows_of_gold.size:,} galaxies to which the question applies by these."
    return Table("Labels", head, rows, note, groups)


def asked_table(table: CatalogTable, one: PopulationFractions) -> Table:
    """Who was asked at which resolution: the selection that cuts in the number of votes make."""
    question = question_of(one)
    tree = asked_in(table, question).tree
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
    note = (
        "A selection by the number of votes selects by α, and by how the answer changes what volunteers say before. "
        "The corrected fractions use all galaxies."
    )
    return Table("Who was asked (fraction of the galaxies)", head, rows, note)
