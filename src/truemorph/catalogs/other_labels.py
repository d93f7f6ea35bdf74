"""Answers of others to a question: published fractions of votes, debiased ones, and predictions of networks.

Tables of other groups are read by the columns that trees name. In each, values of a question's answers divided by their
sum are fractions: this holds for numbers of votes, fractions, and concentrations of Dirichlet distributions. Labels of
`truemorph label` have probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.arrays import ratio
from truemorph.catalogs.catalogue import ID_COLUMNS, TEXT_ID, classes_of
from truemorph.catalogs.columns import vote_findings
from truemorph.catalogs.crossmatch import match_ids
from truemorph.catalogs.paths import labels_of_answers, root_of, vote_column
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.io import check_format
from truemorph.questions import Asked, Tree, Votes, columns_of, nearest_columns, packaged_trees, possible_votes, slug
from truemorph.tables import CatalogTable, name_of, numeric_columns, read_table

# Number of votes that fractions count as: about as many as Galaxy Zoo collects for each galaxy.
USUAL_VOTES = 40.0
# Smallest probability of a model whose log-odds are used.
_LEAST = 1e-4


@dataclass(frozen=True)
class OtherLabels:
    """Another group's answers to a question and its gates, as fractions in columns that a catalogue has been given."""

    name: str
    tree: Tree
    question: str
    columns: dict[str, tuple[str, ...]]  # of each gate
    answers: dict[str, str]  # to the question, and what the catalogue's tree calls them

    def log_odds(self, frame: pl.DataFrame) -> np.ndarray:
        """Return the log-odds of the answers, shape (N, P), as of 40 votes."""
        return self.votes(frame).log_odds

    def votes(self, frame: pl.DataFrame) -> Votes:
        """Return the fractions as numbers of votes: of 40 for the first question."""
        values = {gate: frame.select(names).to_numpy() for gate, names in self.columns.items()}
        return Votes.from_columns(self.tree, self.question, values, np.full(frame.height, USUAL_VOTES))

    def probabilities(self, frame: pl.DataFrame, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        """Return answers by majority, shape (N, K), 0 or 1, and p(answer), from the fractions along each path.

        They are those of the catalogue's question, as `asked`.
        """
        votes, k = self.votes(frame), len(asked.answers)
        numbers = {theirs: asked.numbers[ours] for theirs, ours in self.answers.items()}
        chosen = np.array([numbers.get(path.answer or "", 0) for path in votes.asked.paths])[votes.paths]
        of_answers = [numbers.get(answer, 0) for answer in votes.asked.asked.answers]
        p = votes.counts[self.question] / USUAL_VOTES @ np.eye(k)[of_answers]
        p[:, 0] = 1 - p[:, 1:].sum(axis=1)
        return np.eye(k)[chosen], p


@dataclass(frozen=True)
class Predictions:
    """A model's probabilities of a question's answers, in columns that a catalogue has been given."""

    name: str
    applies: str | None  # column of p(the question applies); None of two classes
    answers: tuple[str, ...]  # columns of p(answer | it applies); of two classes p(second class)

    def log_odds(self, frame: pl.DataFrame) -> np.ndarray:
        """Return the log-odds of the probabilities, shape (N, P), without the most frequent of several answers."""
        p = frame.select(self.answers).to_numpy()
        if self.applies is not None:
            p = np.column_stack([frame[self.applies].to_numpy(), np.delete(p, p.mean(axis=0).argmax(), axis=1)])
        p = np.clip(p, _LEAST, 1 - _LEAST)
        return np.log(p / (1 - p))

    def probabilities(self, frame: pl.DataFrame, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        """Return the most probable answers, shape (N, K), 0 or 1, and the probabilities of all, as `OtherLabels`."""
        values = frame.select(self.answers).to_numpy()
        if self.applies is None:  # of the labels 0 and 1, each as the first answer that makes it
            labels, p = labels_of_answers(asked), np.zeros((frame.height, len(asked.answers)))
            p[:, [list(labels).index(0), list(labels).index(1)]] = np.column_stack([1 - values, values])
        else:
            applies = frame[self.applies].to_numpy()[:, None]
            p = np.column_stack([1 - applies, applies * values])
        return np.eye(len(asked.answers))[p.argmax(axis=1)], p


def is_of_model(table: CatalogTable) -> bool:
    """Whether a table has labels by a model of truemorph."""
    columns = table.frame.columns
    by_hand = "label" in columns and any(name.startswith("p_") for name in columns)
    return "model_hash" in table.metadata or "p_spread" in columns or by_hand


def hash_of_model(table: CatalogTable) -> Any:
    """Return the hash of the model that made labels, which CSV has in a column only; None if there is none."""
    own = table.frame["model_hash"].unique().to_list() if "model_hash" in table.frame.columns else []
    return table.metadata.get("model_hash", own[0] if len(own) == 1 else None)


# What a table says, its values as columns that a catalogue can be given, the rows that have them, and findings.
_Read = tuple[OtherLabels | Predictions, pl.DataFrame, pl.DataFrame, list[Finding]]


def with_other_labels(
    catalogue: CatalogTable, asked: Asked | None, sources: Sequence[Any]
) -> tuple[CatalogTable, list[OtherLabels | Predictions]]:
    """Add answers of others to a catalogue, by id, as columns; galaxies without them are left out.

    They are answers to a question, by default the first (None of two classes): of a model (`truemorph label`), or in
    the columns that the catalogue's tree, or another survey's, names.
    """
    others = list[OtherLabels | Predictions]()
    for source in sources:
        table = read_table(source)
        about = str(table.path or name_of(source))
        check_format(table.metadata, about)
        stem = Path(about).stem if table.path else f"labels {len(others) + 1}"
        name = stem if stem not in [other.name for other in others] else f"{stem} {len(others) + 1}"
        if is_of_model(table):
            read = _of_model(table.frame, asked, asked.classes if asked else classes_of(catalogue), name, about)
        else:
            read = _of_group(table.frame, root_of(catalogue) if asked is None else asked, name, about)
        other, added, rows, findings = read
        frame, left = joined_by_id(catalogue.frame, rows, added, about)
        catalogue = replace(catalogue, frame=frame, findings=unique(catalogue.findings, findings, left))
        others.append(other)
    return catalogue, others


def _of_model(frame: pl.DataFrame, asked: Asked | None, classes: Sequence[str], name: str, about: str) -> _Read:
    """Read a model's probabilities, of galaxies whose labels it has not seen."""
    columns = columns_of("p", classes)[1:]
    if asked is not None:
        answers = columns_of("p", asked.answers[1:])
        columns = [f"p_applies_{slug(asked.question)}", *(f"{column}_given_applies" for column in answers)]
    if lacking := [column for column in columns if column not in frame.columns]:
        apart = ", ".join(classes if asked is None else asked.answers[1:])
        raise InputError(f"{about}: no column {lacking[0]}; give labels of a model that tells {apart} apart (`labels`)")
    p = numeric_columns(frame, columns, about)
    has_p, seen = np.isfinite(p).all(axis=1), np.zeros(frame.height, bool)
    if np.any((p < 0) | (p > 1)):
        raise InputError(f"{about}: {' and '.join(columns)} must be probabilities, from 0 to 1")
    if "relation" in frame.columns:
        seen = frame["relation"].eq_missing("in_sample").to_numpy()
    usable, findings = has_p & ~seen, list[Finding]()
    if not usable.all():
        lacking = [f"{seen.sum():,} are of galaxies whose label the model has seen"] if seen.any() else []
        lacking += [f"{(~has_p).sum():,} have no number"] if not has_p.all() else []
        text = f"Predictions of {about} are not used for {(~usable).sum():,} galaxies: {'; '.join(lacking)}."
        action = (
            "Train with 5 folds (`folds`), and label again." if seen.any() else "Give numbers, or leave this table out."
        )
        findings.append(Finding("predictions-missing", "caution", text, action))
    if not usable.any():
        raise InputError(f"{findings[0].message} {findings[0].action}")
    named = [f"{name}: {column}" for column in columns]
    applies, answers = (None, named) if asked is None else (named[0], named[1:])
    other = Predictions(name, applies, tuple(answers))
    return other, pl.DataFrame(p[usable], schema=named), frame.filter(usable), findings


def _of_group(frame: pl.DataFrame, asked: Asked, name: str, about: str) -> _Read:
    """Read another group's answers, as fractions, NaN where there are none."""
    own, question = asked.tree, asked.question
    tree, columns = _columns(frame, own, question, about)
    values = {gate: numeric_columns(frame, names, about) for gate, names in columns.items()}
    findings = [*vote_findings(np.column_stack(list(values.values())), question, f"{about}: ")]
    named, added = dict[str, tuple[str, ...]](), list[pl.DataFrame]()
    for gate, numbers in values.items():
        named[gate] = tuple(f"{vote_column(gate, answer)}: {name}" for answer in tree.question(gate).answers)
        votes = possible_votes(numbers)
        added.append(pl.DataFrame(ratio(votes, votes.sum(axis=1, keepdims=True)), schema=list(named[gate])))
    other = OtherLabels(name, tree, question, named, _same_answers(own, tree, question, about))
    return other, pl.concat(added, how="horizontal"), frame, findings


def _columns(frame: pl.DataFrame, own: Tree, question: str, about: str) -> tuple[Tree, dict[str, tuple[str, ...]]]:
    """Return the first tree whose columns a table has for a question and its gates, and these columns."""
    trees = [tree for tree in (own, *packaged_trees()) if question in [other.name for other in tree.questions]]
    nearest = list[list[tuple[str, str]]]()
    for tree in trees:
        templates = (*tree.predictions, *tree.fractions, *tree.counts)  # another group's answers, or else votes
        columns, lacking = nearest_columns(tree.gates(question), templates, frame.columns)
        if not lacking:
            return tree, columns
        nearest.append(lacking)
    raise InputError(
        f"{about}: lacks columns of answers to {question!r} or its gates; all answers of a tree are needed, artifacts "
        f"too, such as {min(nearest, key=len)[0][1]}; add or rename columns, or describe them in the catalogue's tree "
        "(`tree`: a TOML file)"
    )


def joined_by_id(
    catalogue: pl.DataFrame, table: pl.DataFrame, added: pl.DataFrame, about: str
) -> tuple[pl.DataFrame, list[Finding]]:
    """Return the galaxies of a catalogue that a table has, with the added columns."""
    frame = catalogue.with_columns(TEXT_ID)
    for name in (column for column in ID_COLUMNS if column in table.columns):
        rows = match_ids(frame["object_id"], table[name], sources=("catalogue", about)).index
        matched = rows >= 0
        if not matched.any():
            continue
        joined = pl.concat([frame.filter(matched), added[rows[matched]]], how="horizontal")
        left = frame.height - joined.height
        text = f"{left:,} of {frame.height:,} galaxies have no row in {about} and were left out."
        return joined, [Finding("rows-left-out", "note", text)] if left else []
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
