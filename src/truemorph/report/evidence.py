"""The galaxies of a report with all their label sets, and what is measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.bias.binning import proportion_error
from truemorph.bias.curves.transitions import DISK, Transition
from truemorph.bias.estimate import Estimate
from truemorph.bias.likelihood import observed_log_probabilities
from truemorph.bias.metrics.label_bias import BiasResult
from truemorph.catalogs.catalogue import classes_of
from truemorph.catalogs.label_sets import FIFTHS, LabelSet, fractions_by
from truemorph.classifiers.classifier import Classifier
from truemorph.findings import Finding
from truemorph.questions import fraction_names
from truemorph.report.measures import BiasTree, rows_in_bins, table_one
from truemorph.report.options import ReportOptions
from truemorph.tables import CatalogTable

OBSERVED = "observed labels"
TRUTH = "truth"
GOLD_LABELS = "gold labels"
UNSTATED = "column gold"  # definition of gold labels that state none


def argument(alpha: np.ndarray, observables: np.ndarray, along: bool = False) -> np.ndarray:
    """What T depends on: α, or α and observables, of N galaxies (where one is missing, at the mean of the others).

    Or `along` a curve in α, shape (M,), at the means of the galaxies' observables, shape (N, J).
    """
    if not observables.shape[1]:
        return alpha
    mean = np.nanmean(observables, axis=0)
    others = np.tile(mean, (alpha.size, 1)) if along else np.where(np.isfinite(observables), observables, mean)
    return np.column_stack([alpha, others])


@dataclass(frozen=True)
class Model:
    """A model in the report, with its class probabilities of the N galaxies that are measured."""

    name: str
    classifier: Classifier
    p: np.ndarray  # (N,), of the second class, from the image or features
    after: np.ndarray  # (N,), given the observed label too
    observables: np.ndarray  # (N, J), what T depends on beside α

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return self.classifier.classes

    @property
    def transition(self) -> Transition:
        """T(α) that it was trained through."""
        return self.classifier.transition

    @cached_property
    def naive(self) -> bool:
        """Whether its T says that no label was ever flipped, so that the observed labels are correct."""
        if self.transition.n_observables:
            return False
        matrix = np.asarray(self.transition.matrix(np.array([1.0, 10.0, 100.0])))
        return bool(np.allclose(matrix, np.eye(matrix.shape[-1])))

    @property
    def probabilities(self) -> LabelSet:
        """Class probabilities from images or features alone."""
        return LabelSet.of_two(f"{self.name}: p({self.classes[1]})", "probabilities", self.p, self.classes, self.name)

    @property
    def labels(self) -> LabelSet:
        """The more probable classes."""
        hard = np.where(self.probabilities.known, self.probabilities.labels, np.nan)
        return LabelSet.of_two(f"{self.name}: labels", "labels", hard, self.classes, self.name)

    @property
    def posterior(self) -> LabelSet | None:
        """Class probabilities given the observed labels too; None if the model is naive, or no galaxy has any."""
        if self.naive or not np.isfinite(self.after).any():
            return None
        return LabelSet.of_two(f"{self.name}: posterior", "posterior", self.after, self.classes, self.name)

    @property
    def best(self) -> LabelSet:
        """The posterior if there is one, otherwise the probabilities."""
        return self.posterior or self.probabilities

    def of(self, rows: np.ndarray) -> Model:
        """The model, with the probabilities of some galaxies only."""
        return replace(self, p=self.p[rows], after=self.after[rows], observables=self.observables[rows])

    def observed_probability(self, alpha: np.ndarray) -> np.ndarray:
        """p(ỹ = the second class | x, α) (eq. 3), shape (N,): testable without gold labels."""
        with np.errstate(divide="ignore"):
            log_p = np.log(self.probabilities.probabilities)
            log_observed = observed_log_probabilities(log_p, argument(alpha, self.observables), self.transition)
        return np.exp(log_observed)[:, DISK]


@dataclass(frozen=True)
class ShownEstimate:
    """The estimate of T(α) and of class fractions that a report shows, and where it is from."""

    estimate: Estimate
    origin: str  # in words, such as "fit.json"
    posterior: LabelSet | None = None  # given label and α, of the galaxies that are measured; of an estimate alone


@dataclass(frozen=True)
class Evidence:
    """The galaxies that a report measures, and all their label sets."""

    catalogue: CatalogTable
    frame: pl.DataFrame  # rows that are measured
    models: Sequence[Model]
    columns: Sequence[LabelSet]  # other labels in columns of the catalogue (option `also`)
    truths: Mapping[str, LabelSet]  # gold labels by their definition
    options: ReportOptions
    tree: BiasTree
    shown: ShownEstimate | None
    which: str  # which galaxies these are, in words: those that every model labels
    # All galaxies of the catalogue, with ids as text. Columns whose names begin with `OURS` have what each model says,
    # gold labels (the gallery shows both under the rest of the name), and how the label of each galaxy changes.
    everything: pl.DataFrame
    left_out: Mapping[str, int] = field(default_factory=dict)  # by model: galaxies to measure without a label of it
    findings: Sequence[Finding] = ()  # about gold labels
    of_estimate: Sequence[Finding] = ()  # why there is no estimate, or none with gold labels, or one of other galaxies

    @property
    def path(self) -> Path:
        """File of the catalogue."""
        return Path(self.catalogue.path or "catalogue")

    @property
    def classes(self) -> tuple[str, str]:
        """Names of labels 0 and 1."""
        return classes_of(self.catalogue)

    @property
    def quantity(self) -> str:
        """Which fraction is measured, such as "disk fraction"."""
        return f"{self.classes[1]} fraction"

    @property
    def fraction_column(self) -> str:
        """Name of this fraction in tables, such as disk_fraction."""
        return next(iter(fraction_names(self.classes)))

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,)."""
        return self.tree.alpha

    @property
    def estimate(self) -> Estimate | None:
        """The estimate that the report shows."""
        return None if self.shown is None else self.shown.estimate

    @property
    def from_gold(self) -> bool:
        """Whether the estimate's class fractions are those of gold labels."""
        return self.estimate is not None and self.estimate.fractions.method == "gold"

    @cached_property
    def observed(self) -> LabelSet:
        """The observed labels."""
        return LabelSet.of_two(OBSERVED, "observed", self.frame["label"].to_numpy().astype(np.float64), self.classes)

    @property
    def truth(self) -> LabelSet | None:
        """Gold labels by the first definition."""
        return next(iter(self.truths.values()), None)

    @property
    def principal(self) -> Model | None:
        """The model that a report speaks of first: the last that is not naive, or the last."""
        models = self.models
        return next((model for model in reversed(models) if not model.naive), models[-1] if models else None)

    @property
    def corrector(self) -> Model | None:
        """The model that corrects labels: the principal one, unless it is naive."""
        return None if self.principal is None or self.principal.naive else self.principal

    @property
    def corrected(self) -> LabelSet | None:
        """What the report says of each galaxy: by the principal model, or by the estimate alone."""
        if self.principal is not None:
            return self.principal.best
        return None if self.shown is None else self.shown.posterior

    @cached_property
    def sets(self) -> list[LabelSet]:
        """Every label set, in the order of tables."""
        own = [one for model in self.models for one in (model.labels, model.probabilities, model.posterior)]
        own.append(None if self.shown is None else self.shown.posterior)
        return [self.observed, *self.columns, *(one for one in own if one is not None), *self.truths.values()]

    @cached_property
    def bias(self) -> dict[str, BiasResult | None]:
        """CV18 (CV14) by label set; None where a set has too few galaxies."""
        return {label_set.name: self.tree.bias(label_set) for label_set in self.sets}

    @cached_property
    def table(self) -> pl.DataFrame:
        """Table 1 (see `table_one`)."""
        return table_one(self.sets, self.alpha, self.bias, self.truths)

    def row(self, one: LabelSet) -> dict[str, float]:
        """Row of Table 1 of a label set."""
        return self.table.row(by_predicate=pl.col("labels") == one.name, named=True)

    @property
    def gold_name(self) -> str:
        """What gold labels are called: the truth, where galaxies are simulated."""
        return TRUTH if any(one.name == TRUTH for one in self.truths.values()) else GOLD_LABELS

    @property
    def by(self) -> str:
        """The column in whose bins fractions are shown: that of the estimate, or α."""
        return "alpha" if self.estimate is None else self.estimate.fractions.by

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the estimate's bins, where its column has text."""
        return () if self.estimate is None else self.estimate.fractions.groups

    @property
    def bins(self) -> int | np.ndarray:
        """Edges of the estimate's bins, or a number of bins."""
        return FIFTHS if self.estimate is None else self.estimate.fractions.edges

    def fractions_of(self, sets: Sequence[LabelSet]) -> pl.DataFrame:
        """Fractions of the galaxies that are measured, in the bins of the estimate (see `fractions_by`)."""
        if self.groups:
            assert self.estimate is not None
            column = np.full(self.alpha.size, np.nan)
            for number, rows in enumerate(rows_in_bins(self.estimate.fractions, self.frame, str(self.path))):
                column[rows] = self.estimate.fractions.middles[number]
        else:
            column = self.alpha if self.by == "alpha" else self.frame[self.by].cast(pl.Float64).to_numpy()
        return fractions_by(column, sets, self.bins)

    @cached_property
    def correction(self) -> pl.DataFrame:
        """Fractions in bins of α, or of the column of the estimate: what the page's first figure and table show.

        `low`, `high`, `mean` (of the column), `galaxies`; `labelled`, `labelled_stderr`; `corrected`, `stderr`,
        `lowest`, `highest`; `gold`, `gold_stderr`; `model`. Corrected fractions, their error and their range are those
        of the estimate, of its galaxies. The model's are means over the galaxies that are measured; they have no error,
        because that of training and calibration is not known. Null where there are none.
        """
        names = ["low", "high", "mean", "galaxies"]
        estimate, model = self.estimate, self.corrector
        table = self.fractions_of([self.observed]).select(*names, labelled="fraction", labelled_stderr="stderr")
        value = error = low = high = gold = gold_error = by_model = np.full(table.height, np.nan)
        if estimate is not None:
            own = estimate.fractions
            value, error, low, high = (one[:, DISK] for one in (own.fractions, own.stderr, own.low, own.high))
            if model is None:
                labelled = own.labelled[:, DISK]
                columns = own.edges[:-1], own.edges[1:], own.middles, own.counts, labelled
                stderr = proportion_error(labelled, own.counts)
                table = pl.DataFrame(dict(zip(table.columns, (*columns, stderr), strict=True)))
        if self.from_gold:
            gold, gold_error = value, error
        elif self.truth is not None:
            by_bin = self.fractions_of([self.truth])
            gold = by_bin["fraction"].to_numpy()
            gold_error = np.zeros(table.height) if self.truth.known.all() else by_bin["stderr"].to_numpy()
        if model is not None:
            by_model = self.fractions_of([model.best])["fraction"].to_numpy()
        shown = {"corrected": value, "stderr": error, "lowest": low.clip(0, 1), "highest": high.clip(0, 1)}
        shown |= {"gold": gold, "gold_stderr": gold_error, "model": by_model}
        return table.with_columns(pl.Series(name, one).fill_nan(None) for name, one in shown.items())
