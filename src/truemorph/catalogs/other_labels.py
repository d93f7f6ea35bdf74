"""Answers of other groups to a question: published fractions of votes, debiased ones, and predictions of networks.

Their tables are read by the columns that trees name. In each, values of a question's answers divided by their sum are
fractions: this holds for numbers of votes, fractions, and concentrations of Dirichlet distributions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.catalogue import ID_COLUMNS, as_ids
from truemorph.catalogs.columns import vote_findings
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.io import check_format
from truemorph.questions import Asked, Tree, VoteColumns, Votes, packaged_trees, slug
from truemorph.tables import CatalogTable, kind_of, numeric_columns, read_table

# Number of votes that fractions count as: about as many as Galaxy Zoo collects for each galaxy.
USUAL_VOTES = 40.0


@dataclass(frozen=True)
class OtherLabels:
    """Another group's answers to a question and its gates, as fractions in columns that a catalogue has been given."""

    name: str
    tree: Tree
    question: str
    columns: dict[str, tuple[str, ...]]  # of each gate
    answers: dict[str, str]  # to the question, and what the catalogue's tree calls them

    def votes(self, frame: pl.DataFrame) -> Votes:
        """Return the fractions as numbers of votes: of 40 for the first question."""
        values = {name: frame[name].to_numpy() for some in self.columns.values() for name in some}
        found = VoteColumns("fractions", self.columns, None)
        return Votes.from_columns(self.tree, self.question, found, values, np.full(frame.height, USUAL_VOTES))

    def probabilities(self, frame: pl.DataFrame, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        """Return answers by majority, shape (N, K), 0 or 1, and p(answer), from the fractions along each path.

        They are those of the catalogue's question, as `asked`.
        """
        votes, k = self.votes(frame), len(asked.answers)
        numbers = {theirs: asked.numbers[ours] for theirs, ours in self.answers.items()}
        chosen = np.array([numbers.get(path.answer or "", 0) for path in votes.asked.paths])[votes.paths]
        p = np.zeros((frame.height, k))
        for answer, column in zip(votes.asked.asked.answers, votes.counts[self.question].T, strict=True):
            if answer in numbers:
                p[:, numbers[answer]] += column / USUAL_VOTES
        p[:, 0] = 1 - p[:, 1:].sum(axis=1)
        return np.eye(k)[chosen], p


def with_other_labels(
    catalogue: CatalogTable, asked: Asked, sources: Sequence[Any]
) -> tuple[CatalogTable, list[OtherLabels]]:
    """Add other groups' answers to a catalogue, by id, as columns of fractions; galaxies without them are left out.

    Beside those of the catalogue's tree, a table may have the columns of another survey's.
    """
    own, question = asked.tree, asked.question
    others = list[OtherLabels]()
    for source in sources:
        table = read_table(source)
        about = str(table.path or kind_of(source))
        check_format(table.metadata, about)
        stem = Path(about).stem if table.path else f"labels {len(others) + 1}"
        name = stem if stem not in [other.name for other in others] else f"{stem} {len(others) + 1}"
        tree, columns = _columns(table.frame, own, question, about)
        fractions, findings = _fractions(table.frame, columns, question, about)
        named = {
            gate: tuple(f"votes_{slug(gate)}_{slug(answer)}: {name}" for answer in tree.question(gate).answers)
            for gate in columns
        }
        added = [pl.DataFrame(fractions[gate], schema=list(some)) for gate, some in named.items()]
        frame, left = _joined(catalogue.frame, table.frame, pl.concat(added, how="horizontal"), about)
        catalogue = replace(catalogue, frame=frame, findings=unique(catalogue.findings, findings, left))
        others.append(OtherLabels(name, tree, question, named, _same_answers(own, tree, question, about)))
    return catalogue, others


def _columns(frame: pl.DataFrame, own: Tree, question: str, about: str) -> tuple[Tree, dict[str, tuple[str, ...]]]:
    """Return the first tree whose columns a table has for a question and its gates, and these columns."""
    trees = [tree for tree in (own, *packaged_trees()) if question in [asked.name for asked in tree.questions]]
    for tree in trees:
        if found := tree.answer_columns(question, frame.columns):
            return tree, found
    # Of the tree of which the table has most columns.
    _, first = max((tree.absent_answer(question, frame.columns) for tree in trees), key=lambda one: one[0])
    raise InputError(
        f"{about}: lacks columns of answers to {question!r} or its gates; all answers of a tree are needed, artifacts "
        f"too, such as {first}; add or rename columns, or describe them in the catalogue's tree (`tree`: a TOML file)"
    )


def _fractions(
    frame: pl.DataFrame, columns: Mapping[str, tuple[str, ...]], question: str, about: str
) -> tuple[dict[str, np.ndarray], list[Finding]]:
    """Return the fractions of answers to each gate, shape (N, A), NaN where there are none."""
    values = {gate: numeric_columns(frame, names, about) for gate, names in columns.items()}
    findings = vote_findings(np.column_stack(list(values.values())), question, f"{about}: ")
    fractions = {}
    for gate, some in values.items():
        some = np.where(np.isfinite(some) & (some >= 0), some, 0.0)
        total = some.sum(axis=1, keepdims=True)
        fractions[gate] = np.divide(some, total, out=np.full(some.shape, np.nan), where=total > 0)
    return fractions, findings


def _joined(
    catalogue: pl.DataFrame, table: pl.DataFrame, added: pl.DataFrame, about: str
) -> tuple[pl.DataFrame, list[Finding]]:
    """Return the galaxies of a catalogue that a table has, with the added columns."""
    frame = catalogue.with_columns(pl.col("object_id").cast(pl.String))
    for name in (column for column in ID_COLUMNS if column in table.columns):
        ids = as_ids(table[name], about).cast(pl.String).alias("object_id")
        rows = added.with_columns(ids).filter(ids.is_in(frame["object_id"].implode()))
        if not rows.height:
            continue
        if (twice := rows["object_id"].is_duplicated()).any():
            raise InputError(f"{about}: has several rows of {rows['object_id'].filter(twice)[0]}; keep one a galaxy")
        left = frame.height - rows.height
        text = f"{left:,} of {frame.height:,} galaxies have no row in {about} and were left out."
        found = frame.join(rows, on="object_id", how="inner", maintain_order="left")
        return found, [Finding("rows-left-out", "note", text)] if left else []
    raise InputError(
        f"{about}: has none of this catalogue's galaxies; name its column of ids object_id, with the catalogue's ids"
    )


def _same_answers(own: Tree, other: Tree, question: str, about: str) -> dict[str, str]:
    """Return another tree's answers to a question as those of the catalogue's.

    If they differ, and the catalogue's are two, such as bar and no bar, the answers that each tree shows are the same.
    """
    ours, theirs = own.gold_answers(question), other.gold_answers(question)
    if set(theirs) <= set(ours):
        return {answer: answer for answer in theirs}
    shown, of_others = own.question(question).shown, other.question(question).shown
    if len(ours) == 2 and len(shown) == 1 and of_others:
        rest = next(answer for answer in ours if answer not in shown)
        return {answer: shown[0] if answer in of_others else rest for answer in theirs}
    raise InputError(
        f"{about}: its answers to {question!r} are {', '.join(theirs)} (tree {other.name}), but those of the catalogue "
        f"are {', '.join(ours)}; prepare the catalogue with a tree that has the same answers (`tree`)"
    )
