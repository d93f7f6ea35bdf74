"""Galaxies whose answer changes: the most probable class given the votes is not that of the majority path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.paths import vote_column
from truemorph.questions import columns_of, slug
from truemorph.report.answers import Answers
from truemorph.report.changes import AFTER, CHANGE, OURS, PICTURE, changed_to
from truemorph.report.gallery import (
    BETTER,
    MAP,
    SEEN,
    Shown,
    about_better,
    choose,
    formatted,
    in_gallery,
    largest_picture,
    pair,
    surest,
    with_pictures,
)
from truemorph.report.page import Gallery, Pair, Table

_BEFORE, _AFTER, _GOLD, _CHANCES = (OURS + name for name in ("majority", "most probable", "gold", "p"))


@dataclass(frozen=True)
class Changed:
    """The galaxies of a question whose answer changes."""

    answers: Answers
    frame: pl.DataFrame  # all galaxies, with what changes
    shown: Sequence[Shown]  # up to `galaxies` of those that change, with pictures where there are any
    note: str  # about better images

    @property
    def count(self) -> int:
        """Number of galaxies that change."""
        return int(self.answers.changed.sum())

    @property
    def imaged(self) -> bool:
        """Whether there are pictures."""
        return any(one.cropped is not None for one in self.shown)


def changed_answers(answers: Answers, galaxies: int) -> Changed:
    """Choose up to so many galaxies whose answer changes, and read their pictures."""
    classes, after, model = np.array(answers.after.classes), answers.after, answers.corrector
    majority, probable = classes[answers.before], classes[np.maximum(after.labels, 0)]
    text = [changed_to((one, other), 0, 1) for one, other in zip(majority, probable, strict=True)]
    best = np.nan_to_num(after.probabilities).max(axis=1)
    columns = {_BEFORE: majority, _AFTER: probable, CHANGE: np.where(answers.changed, text, "")}
    columns |= {AFTER: best, _CHANCES: after.probabilities}
    if model is not None:
        head, p = model.head, model.p
        answered = p[:, answers.shown_in(model)].sum(axis=1)
        columns[PICTURE] = answered / np.maximum(p[:, head.numbers].sum(axis=1), 1e-300)
    gold = pl.Series(_GOLD, np.append(answers.transition.asked.classes, "")[answers.known])
    frame = answers.frame.with_columns(*(pl.Series(name, column) for name, column in columns.items()), gold)
    shown, bad = with_pictures(
        choose(frame, galaxies, pl.col(AFTER)),
        answers.catalogue,
        answers.options,
        None if model is None else model.classifier,
        0 if model is None else model.head.start + answers.number_in(model),
    )
    return Changed(answers, frame, shown, about_better(shown, bad, answers.options))


def listed(changed: Changed) -> pl.DataFrame:
    """All galaxies that change, surest first: majority path, most probable class, and p of each class."""
    answers = changed.answers
    chances = zip(columns_of("posterior", answers.after.classes), answers.after.probabilities.T, strict=True)
    frame = changed.frame.with_columns(pl.Series(name, one) for name, one in chances)
    names = {"object_id": "object_id", _BEFORE: "observed_label", _AFTER: "most_probable", "alpha": "alpha"}
    names |= {one: one for one in ("ra", "dec", *columns_of("posterior", answers.after.classes))}
    chosen = choose(frame, frame.height, pl.col(AFTER))
    return chosen.select(pl.col(name).alias(to) for name, to in names.items() if name in chosen.columns)


def table_of_changes(changed: Changed, said: str) -> Table:
    """How many galaxies of each majority path have which most probable class; `said` is about the pictures below."""
    answers, classes = changed.answers, changed.answers.after.classes
    rows = []
    for k, name in enumerate(classes):
        of = answers.after.labels[(answers.before == k) & answers.after.known]
        counts = np.bincount(of, minlength=len(classes))
        rows.append([name, *(f"{one:,}" for one in counts), f"{counts.sum() - counts[k]:,}"])
    model = answers.corrector
    given = "its class fractions at this α" if model is None else f"p(class) of the network {model.name}"
    note = (
        f"{changed.count:,} of {answers.after.known.sum():,} galaxies have another most probable class than their "
        f"majority path, from {given} and their own votes, through T(α). They are listed in "
        f"changed_{slug(answers.question)}.ecsv among the page's files."
    )
    return Table(
        "Galaxies whose answer changes", ["majority path", *classes, "changed"], rows, f"{note} {said}".strip()
    )


def pairs_of_changes(changed: Changed) -> tuple[str, list[Pair]]:
    """The surest galaxies that change to the first answer, or else of all that change, with a sentence about them."""
    answers, shown = changed.answers, changed.shown
    to = answers.answer
    best = surest([one for one in shown if one.row[_AFTER] == to])
    of = f"the surest changes to {to}"
    if not best:
        best, of = surest(shown), "the surest changes"
    if not best:
        return "", []
    n = sum(BETTER in one.pictures for one in shown)
    middle = ", then a better image" if n else ""
    map_ = f", and what raises the score of {to} (Grad-CAM)" if any(MAP in one.pictures for one in best) else ""
    note = f"Galaxies below: {of}, each as it was labelled{middle}{map_}. {changed.note.replace('`', '')}"
    return note, [pair(one, _caption(answers, one.row), (SEEN, BETTER, MAP), tell_missing=n > 0) for one in best]


def _votes(answers: Answers, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Votes at each question, in words."""
    said = []
    for question in answers.transition.asked.questions:
        counts = {answer: float(row[vote_column(question.name, answer)] or 0) for answer in question.answers}
        some = ", ".join(f"{number:.0f} {answer}" for answer, number in counts.items() if number > 0)
        said.append((f"votes: {question.name}", some or "nobody was asked"))
    return said


def _caption(answers: Answers, row: Mapping[str, Any]) -> str:
    votes = "; ".join(some for _, some in _votes(answers, row) if some != "nobody was asked")
    gold = "" if not row[_GOLD] or answers.truth is None else f"; {answers.truth.name.removesuffix('s')}: {row[_GOLD]}"
    said = f"α = {row['alpha']:.1f}. Majority: {row[_BEFORE]} ({votes}); most probable: {row[_AFTER]}"
    return f"{said} (p = {row[AFTER]:.2f}){gold}. {row['object_id']}"


def gallery_of_changes(every: Sequence[Changed]) -> Gallery | None:
    """The galaxies of all questions that change, with pictures."""
    some = [(changed.answers, one) for changed in every for one in changed.shown if one.cropped is not None]
    if not some:
        return None
    limit = largest_picture([one for _, one in some])
    ranges = {"posterior": "p of the most probable class", "p": "p(answer | applies) of the picture", "alpha": "α"}
    choices = {"question": "question", "change": "change", "truth": "gold label", "split": "split"}
    galaxies = []
    for answers, one in some:
        row = one.row
        keys = {"posterior": row[AFTER], "p": row.get(PICTURE), "alpha": row["alpha"], "change": row[CHANGE]}
        keys |= {"truth": row[_GOLD] or None, "split": row.get("split")}
        keys |= {"question": answers.question} if len(every) > 1 else {}
        caption = [f"α {row['alpha']:.1f}, p {row[AFTER]:.2f}", row[CHANGE], *([row[_GOLD]] if row[_GOLD] else [])]
        chances = zip(answers.after.classes, row[_CHANCES], strict=True)
        details = [("α", formatted(row["alpha"])), ("majority path", row[_BEFORE]), *_votes(answers, row)]
        details += [(f"p({name}) after the votes", formatted(float(p))) for name, p in chances]
        more = (*answers.options.intrinsic, "radius", "psf_fwhm", "ra", "dec", "split")
        details += [(name, formatted(row[name])) for name in more if name in row]
        galaxies.append(in_gallery(one, caption, keys, details, limit))
    note = (
        "From the surest to the least sure of each question. Choose a galaxy for larger pictures and its values; the "
        "arrow keys go to the next. The page's files list all that change."
    )
    return Gallery(note, galaxies, ranges, choices)
