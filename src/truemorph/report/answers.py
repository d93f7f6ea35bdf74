"""The galaxies of a report on a question of a decision tree: votes, networks and gold labels, in the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.binning import Bins
from truemorph.bias.curves.families import transition_from_dict
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import UNKNOWN, Transition
from truemorph.bias.estimate import Estimate
from truemorph.bias.likelihood import observables_of, posterior
from truemorph.bias.metrics.label_bias import BiasResult
from truemorph.bias.population import PopulationFractions
from truemorph.catalogs.catalogue import is_simulated
from truemorph.catalogs.label_sets import LabelSet
from truemorph.catalogs.paths import (
    asked_in,
    gold_column,
    majority_paths,
    path_labels,
    path_observations,
    votes_at_gates,
)
from truemorph.catalogs.question_gold import class_of_gold, gold_of_question
from truemorph.catalogs.selected import filtered, sample_weights
from truemorph.classifiers.classifier import Classifier
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.questions import Asked, Head, Quantity, columns_of
from truemorph.report.evidence import GOLD_LABELS, OBSERVED, TRUTH, argument
from truemorph.report.gather import labelled_rows, measured_rows, unseen_probabilities
from truemorph.report.measures import BiasTree, rows_in_bins
from truemorph.report.options import ReportOptions
from truemorph.tables import CatalogTable, numeric_columns


@dataclass(frozen=True)
class Network:
    """A network's class probabilities for a question, of all galaxies."""

    name: str
    classifier: Classifier
    head: Head
    curve: dict[str, Any]  # T(α) of this question, in the format of a fit file
    p: np.ndarray  # (N, K), NaN where it was trained on the label
    after: np.ndarray  # (N, K), given the galaxy's own votes too
    asked: Asked  # the question as the estimate asks it

    @cached_property
    def transition(self) -> Transition:
        """T(α) that it was trained through."""
        return transition_from_dict(self.curve)

    @property
    def naive(self) -> bool:
        """Whether the observed answers are correct in its training."""
        return not isinstance(self.transition, TreeTransition)

    @cached_property
    def answers(self) -> np.ndarray:
        """Answer of the estimate of each class, shape (K,)."""
        assert self.head.asked is not None
        return np.array(self.asked.answers_in(self.head.asked))

    @property
    def probabilities(self) -> LabelSet:
        """Probabilities of the answers from images or features alone."""
        return LabelSet(f"{self.name}: p", "probabilities", self._of_answers(self.p), self.asked.answers, self.name)

    @property
    def posterior(self) -> LabelSet | None:
        """Probabilities of the answers given the votes too; None if the network is naive."""
        if self.naive:
            return None
        p = self._of_answers(self.after)
        return LabelSet(f"{self.name}: posterior", "posterior", p, self.asked.answers, self.name)

    def _of_answers(self, p: np.ndarray) -> np.ndarray:
        return np.asarray(p @ np.eye(len(self.asked.answers))[self.answers])


@dataclass(frozen=True)
class Answers:
    """The galaxies of a question's estimate, and all their label sets."""

    question: str
    estimate: Estimate
    catalogue: CatalogTable
    asked: Asked  # as the estimate asks it
    frame: pl.DataFrame  # all N galaxies that the estimate's conditions select, with ids as text
    models: Sequence[Network]
    options: ReportOptions
    rows: np.ndarray  # numbers of the galaxies that are measured
    which: str  # these, in words
    after: LabelSet  # p(class | votes, α) by the last network that is not naive, or by the estimate alone
    truth: LabelSet | None  # gold labels, in the classes of fractions
    known: np.ndarray  # (N,): class by gold labels, of those that the estimate's T(α) tells apart; -1 where unknown
    left_out: Mapping[str, int] = field(default_factory=dict)  # by network: galaxies without a probability
    findings: Sequence[Finding] = ()

    @property
    def fractions(self) -> PopulationFractions:
        """Fractions of the estimate."""
        return self.estimate.fractions

    @property
    def transition(self) -> TreeTransition:
        """T(α) of the estimate."""
        assert isinstance(self.estimate.transition, TreeTransition)
        return self.estimate.transition

    @property
    def quantity(self) -> Quantity:
        """The quantity that is named first, such as the bar fraction."""
        return self.fractions.quantities[0]

    @property
    def answer(self) -> str:
        """The answer whose fraction this is."""
        return self.asked.answers[self.asked.shown[0]]

    def number_in(self, model: Network) -> int:
        """Number of the first answer, or the first merged in it, among the classes of a network: maps explain it."""
        return int(self.shown_in(model)[0])

    def shown_in(self, model: Network) -> np.ndarray:
        """Numbers of the classes of a network that are the first answer, or were merged in it."""
        return np.flatnonzero(model.answers == self.asked.shown[0])

    @property
    def source(self) -> str:
        """The catalogue, for messages."""
        return str(self.catalogue.path or "catalogue")

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,)."""
        return self.frame["alpha"].to_numpy()

    @property
    def corrector(self) -> Network | None:
        """The last network that is not naive."""
        return next((model for model in reversed(self.models) if not model.naive), None)

    @cached_property
    def observed(self) -> LabelSet:
        """The majority path of each galaxy."""
        paths = majority_paths(self.frame, self.asked, self.source)
        answers = np.array(self.asked.answers_of_paths)[paths]
        return LabelSet(OBSERVED, "observed", np.eye(len(self.asked.answers))[answers], self.asked.answers)

    @cached_property
    def sets(self) -> list[LabelSet]:
        """Every label set of all galaxies, in the order of tables."""
        own = [one for model in self.models for one in (model.probabilities, model.posterior)]
        return [one for one in (self.observed, *own, self.truth) if one is not None]

    @cached_property
    def inside(self) -> np.ndarray:
        """Weight of each measured galaxy in the bins of the estimate, and last in all of them, shape (B + 1, M)."""
        bins = rows_in_bins(self.fractions, self.frame[self.rows], self.source)
        weights = sample_weights(self.frame[self.rows], "balance", self.source)
        weighted = bins if weights is None else bins * weights
        return np.concatenate([weighted, np.max(weighted, axis=0, keepdims=True)]).astype(float)

    def measured(self, one: LabelSet) -> np.ndarray:
        """Probabilities of the answers, shape (M, K), of the galaxies that are measured."""
        return one.probabilities[self.rows]

    def fractions_of(self, one: LabelSet, quantity: Quantity) -> tuple[np.ndarray, np.ndarray]:
        """A quantity of a label set in each bin, and last of all galaxies, and standard errors, shape (B + 1,) each."""
        p = self.measured(one)
        known = np.isfinite(p).all(axis=1)
        weights, p = self.inside[:, known], p[known]
        above = p @ np.array(quantity.numerator)
        below = np.ones(len(p)) if quantity.denominator is None else p @ np.array(quantity.denominator)
        with np.errstate(invalid="ignore", divide="ignore"):  # bins without such galaxies
            total = weights @ below
            value = (weights @ above) / total
            # Of a ratio of sums, by the scatter of its residuals.
            residual = above - value[:, None] * below
            return value, np.sqrt(np.sum((weights * residual) ** 2, axis=1)) / total

    def given_applies(self, one: LabelSet) -> np.ndarray:
        """p(answer | the question applies) of the first answer, shape (M,), of galaxies to which it does by this set.

        NaN where the probability that the question applies is ½ or less, or unknown.
        """
        p = self.measured(one)
        applies = p[:, 1:].sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.where(applies > 0.5, p @ np.array(self.quantity.numerator) / applies, np.nan)

    def answered(self, one: LabelSet) -> np.ndarray:
        """Numerator and denominator of the first quantity, shape (M, 2)."""
        assert self.quantity.denominator is not None
        weights = np.column_stack([self.quantity.numerator, self.quantity.denominator])
        return np.asarray(self.measured(one) @ weights)

    @cached_property
    def votes(self) -> np.ndarray:
        """Fraction of the votes for the first answer, shape (M,), NaN where nobody was asked."""
        counts = votes_at_gates(self.frame[self.rows], self.asked, self.source).columns[:, self.asked.parts[-1]]
        total, shown = counts.sum(axis=1), self._shown_answers
        return np.divide(counts[:, shown].sum(axis=1), total, out=np.full(total.size, np.nan), where=total > 0)

    @property
    def _shown_answers(self) -> np.ndarray:
        """Whether an answer of the tree is the first that is shown, or was merged in it, bool of shape (A,)."""
        return np.array(list(self.asked.numbers.values())) == self.asked.shown[0]

    def predicted_votes(self, model: Network) -> np.ndarray:
        """Fraction of the votes for the first answer that a network predicts, shape (M,).

        Through T(α), of galaxies with their votes at the gates, since these decide who is asked. NaN without T(α) of
        votes.
        """
        transition, frame = model.transition, self.frame[self.rows]
        if not isinstance(transition, TreeTransition) or transition.overdispersion is None:
            return np.full(self.rows.size, np.nan)
        names = observables_of(model.curve, transition)
        p = given_votes(model.p[self.rows], frame, transition, names, self.source, of_gates=True)
        at = argument(frame["alpha"].to_numpy(), numeric_columns(frame, names, self.source))
        means = np.exp(np.asarray(transition.log_answers(at, votes=True)[-1]))
        return np.asarray(np.sum(p * means[:, :, self._shown_answers].sum(axis=2), axis=1))

    @cached_property
    def tree_of_bias(self) -> BiasTree:
        """How finely drift is measured."""
        names, options = self.options.intrinsic, self.options
        intrinsic = numeric_columns(self.frame[self.rows], names, self.source) if names else None
        return BiasTree.fitting(self.alpha[self.rows], intrinsic, options.bootstrap, options.seed)

    @cached_property
    def drift(self) -> dict[str, BiasResult | None]:
        """CV18 (CV14) of the first answer by label set, of galaxies to which the question applies by this set."""
        classes = (f"not {self.answer}", self.answer)
        given = (
            LabelSet.of_two(label_set.name, label_set.kind, self.given_applies(label_set), classes)
            for label_set in self.sets
        )
        return {one.name: self.tree_of_bias.bias(one) for one in given}

    @cached_property
    def before(self) -> np.ndarray:
        """Class of the majority path, among those of `after`, shape (N,)."""
        through = self.transition if self.corrector is None else self.corrector.transition
        assert isinstance(through, TreeTransition)
        return path_labels(self.frame, through.asked, self.source)

    @cached_property
    def changed(self) -> np.ndarray:
        """Whether the most probable class is another than that of the majority path, shape (N,)."""
        return np.asarray(self.after.known & (self.after.labels != self.before))


def question_of(one: Estimate | PopulationFractions) -> str:
    """Return the question of an estimate, or of its fractions; InputError if they are of none."""
    fractions = one.fractions if isinstance(one, Estimate) else one
    if fractions.applies is None or "question" not in fractions.about:
        raise InputError("these are no fractions of a question; make them with truemorph transition and `question`")
    return str(fractions.about["question"])


def answers_to(
    estimate: Estimate,
    catalogue: CatalogTable,
    classifiers: Mapping[str, Classifier],
    labels: Mapping[str, pl.DataFrame],
    options: ReportOptions,
    gold: Sequence[str],
) -> Answers:
    """Join what the votes, networks and gold labels say of a question, galaxy by galaxy.

    `labels` are tables of `truemorph label` by the name of the network; `gold` rules for this question.
    """
    fractions, source = estimate.fractions, str(catalogue.path or "catalogue")
    question = str(fractions.about["question"])
    assert isinstance(estimate.transition, TreeTransition)
    asked = replace(estimate.transition.asked, tree=asked_in(catalogue, question).tree)
    frame = catalogue.frame.with_columns(pl.col("object_id").cast(pl.String))
    by = [] if fractions.by == "alpha" else [column for column in fractions.columns if column != "alpha"]
    frame, findings = filtered(frame, list(fractions.about["where"]), by, source)
    networks = [
        _network(name, model, number, asked, frame, labels[name], source)
        for name, model in classifiers.items()
        for number, head in enumerate(model.heads)
        if head.question == question
    ]
    for network in networks:
        assert network.head.asked is not None
        if [path.answers for path in network.head.asked.paths] != [path.answers for path in asked.paths]:
            raise InputError(
                f"{network.name} has other answers to {question!r} and its gates than the estimate; give that which "
                "it was trained through"
            )
    rows, which = measured_rows(frame, options, source, bool(networks))
    labelled = {network.name: np.isfinite(network.p).all(axis=1) for network in networks}
    rows, which, left_out = labelled_rows(rows, which, labelled)
    if not rows.size:
        raise InputError(
            f"{source}: no galaxy to measure on has a label by every network of {question!r} (galaxies that a "
            "network's only member was trained on have none: train with `folds` 2 or more)"
        )
    corrector = next((network for network in reversed(networks) if not network.naive), None)
    if corrector is None:
        after = _alone(estimate, frame, source)
    else:
        name, classes = f"{corrector.name}: posterior", corrector.head.classes
        after = LabelSet(name, "posterior", corrector.after, classes, corrector.name)
    truth, known, of_gold = _gold(estimate, catalogue, frame, asked, gold)
    return Answers(
        question=question,
        estimate=estimate,
        catalogue=catalogue,
        asked=asked,
        frame=frame,
        models=networks,
        options=options,
        rows=rows,
        which=which,
        after=after,
        truth=truth,
        known=known,
        left_out=left_out,
        findings=[one for one in (*findings, *of_gold) if one not in estimate.findings],
    )


def _network(
    name: str, model: Classifier, number: int, asked: Asked, frame: pl.DataFrame, labels: pl.DataFrame, source: str
) -> Network:
    """What a network says of all galaxies, NaN where it was trained on their labels.

    The posterior follows from these probabilities, this catalogue's votes and the network's T(α).
    """
    head, curve = model.heads[number], model.curves[number]
    p = unseen_probabilities(frame, labels, columns_of("p", head.columns))
    transition = transition_from_dict(curve)
    after = np.full(p.shape, np.nan)
    if isinstance(transition, TreeTransition):
        after = given_votes(p, frame, transition, observables_of(curve, transition), source)
    return Network(name, model, head, curve, p, after, asked)


def given_votes(
    p: np.ndarray,
    frame: pl.DataFrame,
    transition: TreeTransition,
    observables: Sequence[str],
    source: str,
    of_gates: bool = False,
) -> np.ndarray:
    """p(class | votes, α) from p(class) without the votes, shape (N, K); NaN where it or an observable is unknown.

    Given the votes at the gates, or those for the question too.
    """
    values = numeric_columns(frame, observables, source)
    usable = np.isfinite(p).all(axis=1) & np.isfinite(values).all(axis=1)
    known, out = frame.filter(pl.Series(usable)), np.full(p.shape, np.nan)
    votes = path_observations(known, transition, source)
    if of_gates:
        votes[:, transition.asked.parts[-1]] = 0
    more = values[usable] if observables else None
    out[usable] = posterior(p[usable], votes, known["alpha"].to_numpy(), transition, observables=more)
    return out


def _alone(estimate: Estimate, frame: pl.DataFrame, source: str) -> LabelSet:
    """What the estimate alone says of each galaxy: from its class fractions at this α, and the votes."""
    transition, fractions = estimate.transition, estimate.fractions
    assert isinstance(transition, TreeTransition)
    of = np.array(transition.asked.answers_of_classes)
    # T may tell apart paths to which the question does not apply; these have the same ratio at all α.
    total = estimate.curve.class_fractions
    parts = total / np.maximum(total @ (of[:, None] == of), 1e-12)
    if fractions.by == "alpha":
        by_galaxy = fractions.fractions[Bins.at(frame["alpha"].to_numpy(), fractions.edges).index]
    else:
        share = fractions.bin_weights / fractions.bin_weights.sum()
        by_galaxy = np.tile(share @ fractions.fractions, (frame.height, 1))
    prior = np.maximum(by_galaxy[:, of] * parts, 0)
    prior /= prior.sum(axis=1, keepdims=True)
    after = given_votes(prior, frame, transition, observables_of(estimate.about, transition), source)
    return LabelSet("estimate: posterior", "posterior", after, transition.asked.classes)


def rules_for(catalogue: CatalogTable, rules: Sequence[str], questions: Sequence[str]) -> dict[str, list[str]]:
    """Return the rules for gold labels that are of each question; InputError if one is of none of them."""
    found: dict[str, list[str]] = {question: [] for question in questions}
    source = str(catalogue.path or "catalogue")
    for rule in rules:
        problems = []
        for question, some in found.items():
            try:
                gold_of_question(catalogue.frame, asked_in(catalogue, question), rule, source)
            except InputError as problem:
                problems.append(problem)
            else:
                some.append(rule)
        if len(problems) == len(found):
            raise problems[0]
    return found


def _gold(
    estimate: Estimate, catalogue: CatalogTable, frame: pl.DataFrame, asked: Asked, rules: Sequence[str]
) -> tuple[LabelSet | None, np.ndarray, list[Finding]]:
    """Gold labels: by the rule that is given, or those of the catalogue, or those of the estimate; see `Answers`."""
    fractions, source = estimate.fractions, str(catalogue.path or "catalogue")
    column = gold_column(asked.question)
    own = [column] if column in frame.columns and frame[column].count() else []
    # Version 0.2 wrote no rule, which is the end of the definition then.
    by_estimate = fractions.about.get("gold_rule") or str(fractions.about["gold_definition"]).partition(": ")[2]
    rule = next(iter([*rules, *own, str(by_estimate)]))
    read = None
    with suppress(InputError):  # a definition in words
        read = gold_of_question(frame, asked, rule, source)
    if read is None or not read.names.count():
        return None, np.full(frame.height, UNKNOWN), []
    simulated = rule == column and is_simulated(catalogue.metadata)
    answers, paths = read.answers(asked), read.paths(asked)
    p = np.full((answers.size, len(asked.answers)), np.nan)
    p[answers >= 0] = np.eye(len(asked.answers))[answers[answers >= 0]]
    classes = class_of_gold(asked, answers, paths)
    return LabelSet(TRUTH if simulated else GOLD_LABELS, "truth", p, asked.answers), classes, read.findings
