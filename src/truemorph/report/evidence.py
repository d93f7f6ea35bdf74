"""What a report shows of one question: label sets of the galaxies that it measures, and what is measured of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.arrays import ratio
from truemorph.bias.binning import proportion_error
from truemorph.bias.curves.families import transition_from_dict
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import DISK, Transition
from truemorph.bias.estimate import Estimate
from truemorph.bias.likelihood import observables_of
from truemorph.bias.metrics.label_bias import BiasResult
from truemorph.bias.population import PopulationFractions, QuotedFraction
from truemorph.catalogs.label_sets import LabelSet
from truemorph.catalogs.paths import given_labels, path_labels, votes_at_gates
from truemorph.catalogs.selected import sample_weights
from truemorph.classifiers.classifier import Classifier, contradictions
from truemorph.findings import Finding
from truemorph.questions import Asked, Head, Quantity, slug
from truemorph.report.measures import BiasTree, bins_of, table_one
from truemorph.report.options import ReportOptions
from truemorph.tables import CatalogTable, numeric_columns

OBSERVED = "observed labels"
TRUTH = "truth"
GOLD_LABELS = "gold labels"


def numbers_of_bins(quoted: QuotedFraction) -> dict[str, np.ndarray]:
    """Columns of tables and figures with a fraction in the bins of an estimate, shape (B,) each."""
    return {
        "labelled": quoted.labelled,
        "corrected": quoted.fraction,
        "stderr": quoted.stderr,
        "lowest": quoted.low,
        "highest": quoted.high,
    }


@dataclass(frozen=True)
class Model:
    """A model's answer to a question: class probabilities of N galaxies."""

    name: str
    classifier: Classifier
    head: Head
    curve: dict[str, Any]  # T(α) that it was trained through, in the format of a fit file
    p: np.ndarray  # (N, K), from the image or features; NaN where it was trained on the label
    after: np.ndarray  # (N, K), given the observed labels too; NaN where these are not known
    classes: tuple[str, ...]  # (A,), whose fractions the report counts
    answers: np.ndarray  # (K,): which of these each class of the model is
    counted: str  # the one that is named first

    @property
    def title(self) -> str:
        """What messages call it, with the question if it answers several."""
        return f"{self.name} ({self.head.question})" if len(self.classifier.heads) > 1 else self.name

    @cached_property
    def transition(self) -> Transition:
        """T(α) that it was trained through."""
        return transition_from_dict(self.curve)

    @property
    def naive(self) -> bool:
        """Whether its T says that no label was ever flipped, so that the observed labels are correct."""
        return self.transition == MatrixTransition.identity(self.transition.n_classes)

    @property
    def probabilities(self) -> LabelSet:
        """Class probabilities from images or features alone."""
        return self._labels(f"p({self.counted})", "probabilities", self.p)

    @property
    def labels(self) -> LabelSet:
        """The more probable classes."""
        hard = np.eye(self.p.shape[1])[np.nan_to_num(self.p).argmax(axis=1)]
        return self._labels("labels", "labels", np.where(np.isfinite(self.p), hard, np.nan))

    @property
    def posterior(self) -> LabelSet | None:
        """Class probabilities given the observed labels too; None if the model is naive, or no galaxy has any."""
        if self.naive or not np.isfinite(self.after).any():
            return None
        return self._labels("posterior", "posterior", self.after)

    @cached_property
    def contradictions(self) -> list[Finding]:
        """What gold labels on which it was tuned say against its T(α); posteriors, which need it, are then worse."""
        return contradictions(self.classifier.described)

    @property
    def best(self) -> LabelSet:
        """The posterior if there is one, and T(α) is not contradicted; otherwise the probabilities."""
        return self.probabilities if self.contradictions else self.posterior or self.probabilities

    @property
    def explained(self) -> int:
        """Number of its (first) class that is the one that is named first, or was merged in it."""
        return self.answers.tolist().index(self.classes.index(self.counted))

    def _labels(self, what: str, kind: Any, p: np.ndarray) -> LabelSet:
        p = p @ np.eye(len(self.classes))[self.answers]
        return LabelSet(f"{self.name}: {what}", kind, p, self.classes, self.name)


@dataclass(frozen=True)
class Evidence:
    """The galaxies that a report measures, and all their label sets for one question.

    Label sets are of all N galaxies of the catalogue that the question's estimate selects. Without a catalogue there is
    only the estimate.
    """

    question: str | None  # None: the labels 0 and 1 of the catalogue
    classes: tuple[str, ...]  # (A,), whose fractions are counted
    quantity: Quantity  # that is named first, such as the disk fraction
    catalogue: CatalogTable  # all N galaxies, with ids as text
    rows: np.ndarray  # (M,): numbers of those that are measured, which every model labels
    which: str  # these, in words
    observed: LabelSet
    options: ReportOptions
    estimate: Estimate
    models: Sequence[Model] = ()
    others: Sequence[LabelSet] = ()  # of other groups
    truths: Mapping[str, LabelSet] = field(default_factory=dict)  # gold labels by their definition
    asked: Asked | None = None  # the question as the estimate asks it
    known: Mapping[str, np.ndarray] = field(default_factory=dict)  # (N,): classes by gold labels, or -1; by definition
    with_predictions: PopulationFractions | None = None  # by its gold labels, with the models' predictions beside votes
    origin: str = ""  # of the estimate, in words, such as "fit.json"
    names: Sequence[str] = ()  # of all models of the page
    left_out: Mapping[str, int] = field(default_factory=dict)  # by model: galaxies to measure without a label of it
    findings: Sequence[Finding] = ()  # about gold labels and the galaxies
    of_estimate: Sequence[Finding] = ()  # why there is no estimate, or none with gold labels, or one of other galaxies

    @property
    def everything(self) -> pl.DataFrame:
        """All N galaxies."""
        return self.catalogue.frame

    @property
    def has_galaxies(self) -> bool:
        """Whether there is a catalogue."""
        return self.everything.height > 0

    @property
    def frame(self) -> pl.DataFrame:
        """The galaxies that are measured."""
        return self.everything[self.rows]

    @property
    def source(self) -> str:
        """What messages call the catalogue."""
        return self.catalogue.source

    @property
    def title(self) -> str:
        """What the question is called on the page."""
        return self.question or f"{self.classes[0]} or {self.classes[1]}"

    def file_name(self, name: str) -> str:
        """What a figure or table of the question is called."""
        return name if self.question is None else f"{name}_{slug(self.question)}"

    @property
    def answer(self) -> str:
        """The class that is named first, such as disk."""
        return self.classes[np.argmax(self.quantity.numerator)]

    @property
    def other(self) -> str:
        """What galaxies are called that the question applies to, but that have another answer."""
        classes = zip(self.classes, self.quantity.counted, strict=True)
        rest = [name for name, part in classes if part and name != self.answer]
        return rest[0] if len(rest) == 1 else f"not {self.answer}"

    @property
    def is_gated(self) -> bool:
        """Whether only some galaxies are asked the question."""
        return self.asked is not None and len(self.asked.questions) > 1

    @property
    def alpha(self) -> np.ndarray:
        """Resolution of the galaxies that are measured, shape (M,)."""
        return self.frame["alpha"].to_numpy()

    @property
    def fractions(self) -> PopulationFractions:
        """Fractions of the estimate that the report shows."""
        return self.estimate.fractions

    @property
    def quoted(self) -> QuotedFraction:
        """What the estimate says of the quantity."""
        return self.fractions[self.quantity.name]

    @property
    def from_gold(self) -> bool:
        """Whether the estimate's class fractions are those of gold labels."""
        return self.fractions.method == "gold"

    @property
    def total(self) -> tuple[float, float, float]:
        """The quantity of all galaxies of the estimate, and its range."""
        if self.question is not None:
            _, value, _, low, high, *_ = self.quoted.total
            return value, low, high
        curve = self.estimate.curve
        return curve.class_fractions[DISK], *curve.fraction_range[curve.classes[DISK]]

    @property
    def truth(self) -> LabelSet | None:
        """Gold labels by the first definition."""
        return next(iter(self.truths.values()), None)

    @property
    def beside(self) -> dict[str, LabelSet]:
        """What stands beside the estimate, by its name: models, other groups, and gold labels that are not in it."""
        gold = [truth for truth in self.truths.values() if truth.name == TRUTH or not self.from_gold]
        return {model.name: model.best for model in self.models} | {
            labels.name: labels for labels in (*self.others, *gold)
        }

    @property
    def gold_name(self) -> str:
        """What gold labels are called: the truth, where galaxies are simulated."""
        return TRUTH if any(truth.name == TRUTH for truth in self.truths.values()) else GOLD_LABELS

    @property
    def principal(self) -> Model | None:
        """The model that a report speaks of first: the last that is not naive, or the last."""
        return next(reversed(self.judged), None)

    @property
    def corrector(self) -> Model | None:
        """The model that corrects labels: the principal one, unless it is naive."""
        return None if self.principal is None or self.principal.naive else self.principal

    @property
    def judged(self) -> list[Model]:
        """Models that are to correct something; naive ones too where there are no others."""
        return [model for model in self.models if not model.naive] or list(self.models)

    @cached_property
    def after(self) -> LabelSet:
        """What the report says of each galaxy, in classes of T: the corrector's posterior, or else by the estimate."""
        corrector = self.corrector
        if corrector is None or corrector.posterior is None:
            return self._by_estimate()
        return replace(corrector.posterior, probabilities=corrector.after, classes=corrector.head.classes)

    @cached_property
    def before(self) -> np.ndarray:
        """Observed labels, of the classes of `after`, shape (N,)."""
        corrector = self.corrector
        asked = self.asked if corrector is None or corrector.posterior is None else corrector.head.asked
        return self.observed.labels if asked is None else path_labels(self.everything, asked, self.source)

    def _by_estimate(self) -> LabelSet:
        """What the estimate alone says of each galaxy, from its class fractions and the observed labels."""
        transition, total = self.estimate.transition, self.estimate.curve.class_fractions
        prior = np.tile(total, (self.everything.height, 1))
        if isinstance(transition, TreeTransition):
            of = np.array(transition.asked.answers_of_classes)
            # T may tell apart paths to which the question does not apply; these have the same ratio at all α.
            parts = total / np.maximum(total @ (of[:, None] == of), 1e-12)
            bins = bins_of(self.fractions, self.everything, self.source)
            by_galaxy = self.fractions.fractions[bins.argmax(axis=0)]
            prior = np.maximum(by_galaxy[:, of] * parts, 0)
            prior /= prior.sum(axis=1, keepdims=True)
        p = given_labels(
            prior, self.everything, transition, observables_of(self.estimate.about, transition), self.source
        )
        return LabelSet(f"{Path(self.origin).stem}: posterior", "posterior", p, self.estimate.curve.classes)

    @property
    def changed(self) -> np.ndarray:
        """Whether the report says another class than the observed labels, shape (N,)."""
        return self.after.known & (self.after.labels != self.before)

    @cached_property
    def whole(self) -> list[LabelSet]:
        """Every label set of all galaxies, with all classes that are counted, in the order of tables."""
        own = [labels for model in self.models for labels in (model.labels, model.probabilities, model.posterior)]
        if self.has_galaxies and not self.after.model and self.after.classes == self.classes:
            own.append(self.after)
        return [self.observed, *self.others, *(labels for labels in own if labels is not None), *self.truths.values()]

    @cached_property
    def sets(self) -> list[LabelSet]:
        """The same of the galaxies that are measured, as two classes: the answer that is named first, and others.

        NaN where the question does not apply by the more probable class of a set.
        """
        return [self.view(labels) for labels in self.whole]

    def view(self, labels: LabelSet) -> LabelSet:
        """A label set of the galaxies that are measured, as one of `sets`."""
        p = np.where(self.parts(labels)[:, 1] > 0.5, self.given(labels), np.nan)
        return LabelSet.of_two(labels.name, labels.kind, p, (self.other, self.answer), labels.model)

    def parts(self, labels: LabelSet) -> np.ndarray:
        """Numerator and denominator of the quantity, of a label set of the galaxies that are measured, shape (M, 2)."""
        return labels.probabilities[self.rows] @ np.column_stack([self.quantity.numerator, self.quantity.counted])

    def given(self, labels: LabelSet) -> np.ndarray:
        """p(answer | the question applies) by a label set, shape (M,), NaN where it can't apply."""
        return self.quantity.of(labels.probabilities[self.rows])

    @cached_property
    def inside(self) -> np.ndarray:
        """Weight of each measured galaxy in the bins of fractions, and last in all of them, shape (B + 1, M)."""
        bins = bins_of(self.fractions, self.frame, self.source)
        weights = sample_weights(self.frame, "balance", self.source)
        weighted = bins * (1.0 if weights is None else weights)
        return np.vstack([weighted, weighted.max(axis=0)])

    def in_bins(self, labels: LabelSet) -> tuple[np.ndarray, np.ndarray]:
        """The quantity by a label set in each bin, and last of all galaxies, and binomial errors, shape (B + 1,)."""
        parts = self.parts(labels)
        finite = np.isfinite(parts).all(axis=1)
        weights, (above, below) = self.inside[:, finite], parts[finite].T
        total = weights @ below
        value = ratio(weights @ above, total)  # NaN in bins without such galaxies
        return value, proportion_error(value, ratio(total**2, weights**2 @ below**2))

    @cached_property
    def tree(self) -> BiasTree:
        """How finely bias is measured."""
        options = self.options
        intrinsic = numeric_columns(self.frame, options.intrinsic, self.source)
        return BiasTree.fitting(self.sets[0], self.alpha, intrinsic, options.bootstrap, options.seed)

    @cached_property
    def bias(self) -> dict[str, BiasResult | None]:
        """CV18 (CV14) by label set; None where a set has too few galaxies."""
        return {label_set.name: self.tree.bias(label_set) for label_set in self.sets}

    @cached_property
    def table(self) -> pl.DataFrame:
        """Table 1 (see `table_one`)."""
        parts = {labels.name: self.parts(labels) for labels in self.whole}
        truths = {definition: self.view(truth) for definition, truth in self.truths.items()}
        return table_one(self.sets, self.alpha, self.bias, truths, parts)

    def row(self, labels: LabelSet) -> dict[str, float]:
        """Row of Table 1 of a label set."""
        return self.table.row(by_predicate=pl.col("labels") == labels.name, named=True)

    @cached_property
    def correction(self) -> pl.DataFrame:
        """The quantity in bins of the estimate, or fifths of α: what the first figure and table show.

        `bin` (its name), `low`, `high`, `mean` (of the column), `galaxies`; `labelled`, `labelled_stderr`; `corrected`,
        `stderr`, `lowest`, `highest`; `gold`, `gold_stderr`; `model`. What the estimate says is of its galaxies, gold
        labels and models are of those that are measured. The model's are means of probabilities; they have no error,
        because that of training and calibration is not known. Null where there are none.
        """
        own, quoted = self.fractions, self.quoted
        plane = own.edges.ndim == 3
        nothing = np.full(own.counts.size, np.nan)
        low, high = (nothing if plane else own.edges[k : k - 1 or None] for k in (0, 1))
        applies = 1.0 if own.applies is None else own.applies.labelled
        columns: dict[str, Any] = {
            "bin": [own.bin_name(b) for b in range(own.counts.size)],
            "low": low,
            "high": high,
            "mean": nothing if plane else own.middles,
            "galaxies": own.counts,
            **numbers_of_bins(quoted),
            "labelled_stderr": proportion_error(quoted.labelled, own.counts * applies),
            **dict.fromkeys(("gold", "gold_stderr", "model"), nothing),
        }
        if self.truth is not None and (self.gold_name == TRUTH or not self.from_gold):
            columns["gold"], error = (array[:-1] for array in self.in_bins(self.truth))
            columns["gold_stderr"] = 0.0 if self.truth.of(self.rows).known.all() else error
        if self.corrector is not None:
            columns["model"] = self.in_bins(self.corrector.best)[0][:-1]
        return pl.DataFrame(columns).fill_nan(None)

    @property
    def ends(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The rows of `correction` of the lowest and of the highest bin."""
        return self.correction.row(0, named=True), self.correction.row(-1, named=True)

    @cached_property
    def votes(self) -> np.ndarray:
        """Votes for the answers of the tree to the question, shape (M, A)."""
        assert self.asked is not None
        return votes_at_gates(self.frame, self.asked, self.source).counts[self.asked.question]

    def argument(
        self, transition: Transition, described: Mapping[str, Any], grid: np.ndarray | None = None
    ) -> np.ndarray:
        """What T depends on: α, or α and observables, of the galaxies that are measured, shape (M,) or (M, 1 + J).

        Where an observable is missing, at the mean of the others. Or along a `grid` of α, at the means of all galaxies.
        """
        alpha, frame = (self.alpha, self.frame) if grid is None else (grid, self.everything)
        observables = numeric_columns(frame, observables_of(described, transition), self.source)
        if not observables.shape[1]:
            return alpha
        mean = np.nanmean(observables, axis=0)
        filled = np.where(np.isfinite(observables), observables, mean)
        return np.column_stack([alpha, filled if grid is None else np.tile(mean, (grid.size, 1))])

    def voted(self) -> np.ndarray:
        """What models predict through T: the observed label, or the fraction of votes for the answer, shape (M,)."""
        if self.asked is None:
            return self.given(self.observed)
        return ratio(self.votes[:, self.answers_shown].sum(axis=1), self.votes.sum(axis=1))

    def predicted(self, model: Model) -> np.ndarray:
        """The same as a model predicts it, shape (M,) (eq. 3): testable without gold labels.

        Votes of galaxies are predicted with their votes at the gates, since these decide who is asked. NaN where T is
        of labels along a tree, or says nothing.
        """
        transition = model.transition
        p = model.p[self.rows]
        at = self.argument(transition, model.curve)
        if self.asked is None:
            return np.sum(p * transition.matrix(at)[:, :, DISK], axis=1)
        if not isinstance(transition, TreeTransition) or transition.overdispersion is None:
            return np.full(self.rows.size, np.nan)
        names = observables_of(model.curve, transition)
        p = given_labels(p, self.frame, transition, names, self.source, gates=True)
        means = np.exp(transition.log_answers(at, votes=True)[-1])
        return np.sum(p * means[:, :, self.answers_shown].sum(axis=2), axis=1)

    @property
    def answers_shown(self) -> np.ndarray:
        """Whether an answer of the tree is the one that is named first, or was merged in it, bool of shape (A,)."""
        assert self.asked is not None
        return np.array(list(self.asked.numbers.values())) == self.classes.index(self.answer)
