"""Compute labels from inputs: p(y | x), out of fold, and the posterior given the observed label.

Without a member that did not see a galaxy's label, the posterior is null: it would count the label twice.
"""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import Any, TypeVar

import numpy as np
import polars as pl

from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import Transition
from truemorph.catalogs.columns import ADDED, NAMED
from truemorph.catalogs.paths import given_labels, path_labels
from truemorph.classifiers.classifier import Classifier
from truemorph.classifiers.engines import Engine
from truemorph.classifiers.held_out import BEYOND, Comparison, measured
from truemorph.labelling.estimated import Estimated, regressed
from truemorph.labelling.sources import base_names
from truemorph.questions import Head, columns_of

NEW, IN_SAMPLE = "new", "in_sample"
UNLIKE = "unlike_training"  # name of a column
Value = TypeVar("Value")


def _by_name(ids: pl.Series, values: list[Value]) -> dict[str, Value]:
    """Return values by id as text, because ids of files are; and by the base name of ids where it is unique."""
    bases = base_names(ids)
    once = compress(zip(bases, values, strict=True), ~bases.is_duplicated())
    return {**dict(once), **dict(zip(ids.cast(pl.String), values, strict=True))}


@dataclass(frozen=True)
class Labeller:
    """Compute labels from rows of a source."""

    model: Classifier
    engine: Engine
    transitions: tuple[Transition, ...] = ()  # T(α) of each question, for posteriors
    observables: tuple[tuple[str, ...], ...] = ()  # columns on which each depends in addition to α
    observed: bool = False  # whether there are observed labels and α
    joined: pl.DataFrame | None = None  # prepared catalogue with the observed labels, if they are not in the source
    copied: dict[str, Any] = field(default_factory=lambda: {"object_id": pl.String})  # columns to copy, and their types

    @cached_property
    def columns(self) -> dict[str, tuple[Any, str]]:
        """Types and descriptions of the columns that are not copied; descriptions are ASCII only, for FITS."""
        mean, spread = "class probability from the model, mean over members", "standard deviation of p(y | x)"
        out = {"object_id": (self.copied["object_id"], NAMED["object_id"].description)}
        for head in self.model.heads:
            of = "" if head.question is None else f" of the question {head.question}"
            chances = zip(columns_of("p", head.columns), head.classes, strict=True)
            out |= {column: (pl.Float64, f"p(y = {name} | x){of}: {mean}") for column, name in chances}
            if head.question is not None:
                out[head.name("p_applies")] = pl.Float64, f"probability that {head.question} applies: {mean}"
                for column, name in zip(_given_applies(head), head.answers, strict=True):
                    out[column] = pl.Float64, f"probability of {name} if {head.question} applies"
        out["p_spread"] = pl.Float64, f"{spread} over members; missing if only one member labelled the galaxy"
        for head in self.model.heads:
            out[head.name("label")] = _kind(head), f"class with the largest p(y | x){_numbered(head)}"
        out["relation"] = pl.String, "role of the galaxy in training: new, out_of_fold, early_stopping or in_sample"
        if self.observed:
            for head in self.model.heads:
                out[head.name("observed_label")] = _kind(head), f"observed label{_numbered(head)}"
            out["alpha"], out["split"] = (pl.Float64, ADDED["alpha"]), (pl.String, ADDED["split"])
        if self.comparison is not None:
            limit = f"the limit that {BEYOND:.0%} of those exceed; missing within it"
            out[UNLIKE] = pl.String, f"in what it differs most from training galaxies, if beyond {limit}"
        for head in self.model.heads if self.transitions else ():
            condition = f"given x, the {'observed label' if head.question is None else 'votes'} and alpha"
            after = zip(columns_of("posterior", head.columns), head.classes, strict=True)
            out |= {column: (pl.Float64, f"posterior probability of {name}, {condition}") for column, name in after}
            largest = f"class with the largest posterior probability{_numbered(head)}"
            out[head.name("posterior_label")] = _kind(head), largest
            correct = "posterior probability that the observed label is correct"
            out[head.name("label_quality")] = pl.Float64, correct
        if self.regression is not None:
            by = "by regression, 0 or 1 with a gold label; missing for galaxies that are not the estimate's"
            names = zip(self.regression.columns[2:], self.model.curves[0]["fractions"]["classes"], strict=True)
            out |= {column: (pl.Float64, f"probability of {name} {by}") for column, name in names}
        return out | {"model_hash": (pl.String, "hash of the model's files")}

    @cached_property
    def regression(self) -> pl.DataFrame | None:
        """Probabilities of an estimate's galaxies by its regression on gold labels."""
        return self.model.by_regression if isinstance(self.model, Estimated) and self.observed else None

    @cached_property
    def comparison(self) -> Comparison | None:
        """With held-out training galaxies; None if the model has too few of them."""
        return Comparison.of(self.model, self.observed)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Types of all columns of the labels, in order."""
        return self.copied | {name: kind for name, (kind, _) in self.columns.items()}

    @cached_property
    def _seen(self) -> dict[str, tuple[str, int]]:
        """Role and fold of training galaxies."""
        return _by_name(self.model.seen["object_id"], list(self.model.seen.select("role", "fold").iter_rows()))

    def part_in_training(self, ids: pl.Series) -> tuple[list[str], np.ndarray]:
        """Return each galaxy's role and fold in training, by id or base name; "new" and -1 if it was not used."""
        names = zip(ids.cast(pl.String), base_names(ids), strict=True)
        seen = [self._seen.get(name) or self._seen.get(base, (NEW, -1)) for name, base in names]
        return [role for role, _ in seen], np.array([fold for _, fold in seen], dtype=int)

    def label(self, frame: pl.DataFrame, inputs: np.ndarray) -> pl.DataFrame:
        """Return labels, one row per row of a source and of its inputs (pixels or features)."""
        roles, fold = self.part_in_training(frame["object_id"])
        p, spread = self.model.out_of_fold(inputs, fold, self.engine.member)
        out: dict[str, Any] = frame.select(*self.copied).to_dict()
        for head in self.model.heads:
            out |= _chances(head, p[:, head.part])
        out |= {"p_spread": pl.Series(spread).fill_nan(None), "relation": roles, "model_hash": self.model.model_hash}
        if self.observed:
            observed = frame  # of the source, or of the other catalogue (null where it has no such id)
            if self.joined is not None:
                observed = self.joined.select(pl.all().gather(self.observed_rows(frame["object_id"])))
            out |= {"alpha": observed["alpha"], "split": observed["split"]}
            for k, head in enumerate(self.model.heads):
                out[head.name("observed_label")] = observed[head.name("label")]
                if self.transitions:
                    out |= self._posterior(observed, p[:, head.part], pl.Series(roles) != IN_SAMPLE, k)
        if self.regression is not None:
            out |= regressed(self.regression, frame["object_id"], out["alpha"]).to_dict()
        if self.comparison is not None:
            out[UNLIKE] = self.comparison.unlike(measured(self.model, inputs, out["alpha"] if self.observed else None))
        return pl.DataFrame(out).select(list(self.schema))

    @cached_property
    def _row(self) -> dict[str, int]:
        assert self.joined is not None
        return _by_name(self.joined["object_id"], list(range(self.joined.height)))

    def observed_rows(self, ids: pl.Series) -> pl.Series:
        """Return the row of each galaxy in the catalogue of observed labels; null if it is not there."""
        return pl.Series([self._row.get(galaxy) for galaxy in ids.cast(pl.String)], dtype=pl.UInt32)

    def _posterior(self, observed: pl.DataFrame, p: np.ndarray, fresh: pl.Series, number: int) -> dict[str, Any]:
        """Return the posterior's columns for a question; null without a label, in-sample, or without T's observables.

        Of a question, the votes at its gates are used, and not only the label.
        """
        head, transition, names = self.model.heads[number], self.transitions[number], self.observables[number]
        has_label = (observed[head.name("label")].is_not_null() & fresh).to_numpy()
        after = given_labels(np.where(has_label[:, None], p, np.nan), observed, transition, names, "the catalogue")
        usable = np.isfinite(after).all(axis=1)
        galaxies = observed.filter(usable)
        if isinstance(transition, TreeTransition):
            labels = path_labels(galaxies, transition.asked, "the catalogue")
        else:
            labels = galaxies["label"].to_numpy()
        quality = np.full(len(p), np.nan)
        quality[usable] = after[usable, labels]
        columns = [*columns_of("posterior", head.columns), head.name("label_quality")]
        out = pl.DataFrame(np.column_stack([after, quality]), columns, orient="row").fill_nan(None).to_dict()
        largest = _named(head, np.nan_to_num(after).argmax(axis=1))
        return out | {head.name("posterior_label"): largest.set(pl.Series(~usable), None)}


def _kind(head: Head) -> Any:
    """Type of labels: numbers of two classes, names of a question's."""
    return pl.Int64 if head.question is None else pl.String


def _numbered(head: Head) -> str:
    return "" if head.question is not None else ": " + ", ".join(f"{k} {name}" for k, name in enumerate(head.classes))


def _named(head: Head, labels: np.ndarray) -> pl.Series:
    """Return labels as numbers, or as names of a question's classes."""
    numbers = pl.Series(labels.astype(int))
    return numbers if head.question is None else pl.Series(head.classes).gather(numbers)


def _given_applies(head: Head) -> list[str]:
    return [f"{column}_given_applies" for column in columns_of("p", [head.columns[k] for k in head.numbers])]


def _chances(head: Head, p: np.ndarray) -> dict[str, Any]:
    """Return class probabilities and the most probable class; of a question also whether it applies."""
    out: dict[str, Any] = dict(zip(columns_of("p", head.columns), p.T, strict=True))
    if head.question is not None:
        answers = p[:, head.numbers]
        out[head.name("p_applies")] = applies = np.minimum(answers.sum(axis=1), 1.0)  # not 1 + 2e-16
        out |= zip(_given_applies(head), answers.T / np.maximum(applies, 1e-300), strict=True)
    return out | {head.name("label"): _named(head, np.argmax(p, axis=1))}
