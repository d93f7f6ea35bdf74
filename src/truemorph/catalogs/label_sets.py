"""Label sets, such as the observed labels of galaxies, a model's, posteriors and gold labels; and their averages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from truemorph.arrays import ratio
from truemorph.bias.binning import Bins
from truemorph.bias.curves.transitions import UNKNOWN
from truemorph.catalogs.catalogue import classes_of
from truemorph.catalogs.other_labels import OtherLabels, Predictions, joined_by_id
from truemorph.catalogs.paths import gold_column, labels_of_answers, majority_paths
from truemorph.catalogs.question_gold import gold_of_question
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import check_format
from truemorph.questions import Asked, columns_of
from truemorph.tables import CatalogTable, name_of

Kind = Literal["observed", "column", "labels", "probabilities", "posterior", "truth"]
# Bins of α, or of another column, in tables and figures.
FIFTHS = 5
# From this fraction of one class on, labels say so little that their bias is not meaningful.
ONE_CLASS = 0.97


@dataclass(frozen=True)
class LabelSet:
    """Class probabilities, or labels, of N galaxies.

    Kinds are "column" (labels that a catalogue brings), "labels" (argmax of a model's probabilities), "posterior"
    (after the observed label), and as named.
    """

    name: str
    kind: Kind
    probabilities: np.ndarray  # (N, K); of labels 0 and 1; NaN where unknown
    classes: tuple[str, ...]  # (K,): names
    model: str = ""  # whose they are

    @classmethod
    def of_two(cls, name: str, kind: Kind, p: np.ndarray, classes: Sequence[str], model: str = "") -> LabelSet:
        """Those of two classes from the probability of the second, or labels 0 and 1, shape (N,), NaN where unknown."""
        return cls(name, kind, np.column_stack([1 - p, p]), tuple(classes), model)

    @property
    def p(self) -> np.ndarray:
        """Probability of the second class, whose fraction is counted, shape (N,)."""
        return self.probabilities[:, 1]

    @property
    def known(self) -> np.ndarray:
        """Where there is a value, shape (N,) of bool."""
        return np.isfinite(self.probabilities).all(axis=1)

    @property
    def labels(self) -> np.ndarray:
        """Most probable classes, shape (N,) of int; -1 where unknown."""
        return np.where(self.known, np.nan_to_num(self.probabilities).argmax(axis=1), UNKNOWN)

    @property
    def fraction(self) -> float:
        """Fraction of the second class, of the galaxies with a value; NaN if there are none."""
        return float(self.p[self.known].mean()) if self.known.any() else np.nan

    def of(self, rows: np.ndarray) -> LabelSet:
        """Those of some galaxies."""
        return replace(self, probabilities=self.probabilities[rows])


def fractions_by(values: np.ndarray, sets: Sequence[LabelSet], bins: int = FIFTHS) -> pl.DataFrame:
    """Fraction of the second class in bins of a column of equal counts.

    `labels`, `bin`, `low` and `high` edge, `mean` (of the column), `galaxies`, `fraction`, `stderr`. Galaxies
    without a finite value of the column are left out.
    """
    finite = np.isfinite(values)
    cut = Bins.cut(values[finite], bins)
    tables = []
    for label_set in sets:
        mean, error, counts = cut.averages(label_set.p[finite])
        columns = {
            "labels": label_set.name,
            "bin": np.arange(1, cut.count + 1),
            "low": cut.edges[:-1],
            "high": cut.edges[1:],
            "mean": cut.middles,
            "galaxies": counts,
            "fraction": mean,
            "stderr": error,
        }
        tables.append(pl.DataFrame(columns))
    return pl.concat(tables)


def nearly_one_class(name: str, fraction: float, kind: str) -> Iterator[Finding]:
    """Whether a model gives nearly all galaxies the same label."""
    if fraction >= ONE_CLASS:
        text = (
            f"{name} calls {fraction:.1%} of the galaxies {kind}, so its "
            "labels carry little information. Such labels have a small bias metric, which means nothing."
        )
        action = "Use its probabilities instead of its labels, or train for more epochs or on more galaxies."
        yield Finding("nearly-one-class", "caution", text, action)


def label_sets(frame: pl.DataFrame, classes: Sequence[str]) -> Iterator[LabelSet]:
    """Return the label sets of a joined table: the observed labels, and a model's hard, soft and posterior ones."""

    def values(*names: str) -> np.ndarray:
        return np.asarray(frame.select(names), float)

    yield LabelSet.of_two("observed labels", "observed", values("label")[:, 0], classes)
    if "model_label" in frame.columns:
        yield LabelSet.of_two("model labels", "labels", values("model_label")[:, 0], classes)
        yield LabelSet("model probabilities", "probabilities", values(*columns_of("p", classes)), tuple(classes))
    after = columns_of("posterior", classes)
    if after[1] in frame.columns:  # none of galaxies that the model memorised
        yield LabelSet("posterior probabilities", "posterior", values(*after), tuple(classes))
    if "gold" in frame.columns and frame["gold"].count():
        yield LabelSet.of_two("gold labels", "truth", values("gold")[:, 0], classes)


def answer_sets(
    frame: pl.DataFrame, asked: Asked, others: Sequence[OtherLabels | Predictions], source: str
) -> tuple[list[LabelSet], list[LabelSet]]:
    """Return the answers on the majority path, and gold ones, as label sets, NaN where the question was not asked.

    Those of other groups are on their own majority path, once by majority and once as fractions of the answers. The
    second list has the same for each answer that is shown, against all others.
    """
    every = np.eye(len(asked.answers))
    observed = every[np.array(asked.answers_of_paths)[majority_paths(frame, asked, source)]]
    labels: list[tuple[str, Kind, np.ndarray]] = [("observed labels", "observed", observed)]
    column = gold_column(asked.question)
    if column in frame.columns and frame[column].count():
        answers = gold_of_question(frame, asked, column, source).numbers
        labels.append(("gold labels", "truth", every[np.maximum(answers, 0)]))
    for other in others:
        chosen, p = other.probabilities(frame, asked)
        labels.append((other.name, "labels", chosen))
        on_path = (chosen[:, :1] == 0) & (p[:, 1:] > 0).any(axis=1, keepdims=True)
        labels.append((f"{other.name}, fractions", "probabilities", on_path * p))
    names, sets, shown = asked.answers[1:], [], []
    for name, kind, of_all in labels:
        of_answers = of_all[:, 1:]
        values = ratio(of_answers, of_answers.sum(axis=1, keepdims=True))
        sets.append(LabelSet(name, kind, values, names))
        for k in asked.shown:
            answer = asked.answers[k]
            title = name if len(asked.shown) == 1 else f"{name}: {answer}"
            shown.append(LabelSet.of_two(title, kind, values[:, k - 1], (f"not {answer}", answer), answer))
    return sets, shown


def sets_of_others(
    frame: pl.DataFrame, asked: Asked, others: Sequence[OtherLabels | Predictions], label: Sequence[str] | None
) -> list[LabelSet]:
    """Return other groups' answers, each by majority and as fractions: of all answers, or as classes of a `label`."""
    of_answers, classes = np.eye(len(asked.answers)), asked.answers
    if label is not None:
        labels, classes = labels_of_answers(asked), tuple(label)
        of_answers = (labels[:, None] == np.arange(len(label))).astype(float)
    sets = []
    for other in others:
        both = other.probabilities(frame, asked)
        for name, p in zip((other.name, f"{other.name}, fractions"), both, strict=True):
            values = p @ of_answers
            values = ratio(values, values.sum(axis=1, keepdims=True))
            sets.append(LabelSet(name, "column", values, classes, other.name))
    return sets


def join_labels(catalogue: CatalogTable, labels: CatalogTable) -> tuple[pl.DataFrame, list[Finding]]:
    """Return the rows of a catalogue that a model has labelled (`truemorph label`), with its labels.

    And a finding if rows are missing.
    """
    frame, source = labels.frame, str(labels.path or name_of(labels))
    check_format(labels.metadata, source)
    classes = classes_of(catalogue)
    needed = ("label", *columns_of("p", classes))
    names = (*needed, *columns_of("posterior", classes))
    columns = frame.select(pl.col(name).cast(pl.Float64, strict=False) for name in names if name in frame.columns)
    lacking = [name for name in needed if name not in frame.columns]
    lacking += [column.name for column in columns if column.null_count() > frame[column.name].null_count()]
    if lacking:
        raise InputError(
            f"{source}: has no numbers in {', '.join(lacking)}; make labels with truemorph label, or, for votes and "
            "predictions of others, name a question (`question`, such as smooth) for which the catalogue is prepared"
        )
    added = columns.rename({"label": "model_label"})
    return joined_by_id(catalogue.frame.drop(added.columns, strict=False), frame, added, source)
