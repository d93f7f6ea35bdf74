"""What a classifier learns: questions, T(α) of what was observed of them, and their gold labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.curves.families import transition_from_dict, transition_to_dict
from truemorph.bias.curves.formulas import MatrixTransition, RayleighTransition
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import ANSWER_UNKNOWN, UNKNOWN, Transition
from truemorph.bias.fractions import unlike_labels
from truemorph.bias.likelihood import label_evidence, observables_of
from truemorph.bias.sample import Sample
from truemorph.catalogs.paths import asked_in, gold_column, path_evidence, path_labels
from truemorph.catalogs.question_gold import class_of_gold, told_apart
from truemorph.catalogs.selected import gold_labels, planned
from truemorph.classifiers.fits import fit_catalogue
from truemorph.classifiers.rows import Gold
from truemorph.config import OBSERVED, RunConfig
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.questions import Asked
from truemorph.tables import CatalogTable, numeric_columns

# A fit with one of these findings is used only if it is given.
_UNUSABLE = ("fraction-at-bound", "drift-reversed")
_IMPOSSIBLE = -1e4  # log-probability of labels that are impossible under T, so that a gold label can be their class
PLACE = "place in the catalogue"  # column of the row number, while galaxies are selected


@dataclass(frozen=True)
class GoldOfQuestion:
    """Gold labels of a question, for all N galaxies of a catalogue."""

    numbers: np.ndarray  # (N,): class, `UNKNOWN`, or `ANSWER_UNKNOWN`
    probability: np.ndarray  # (N,): of being selected for a gold label; 0 where there is none
    definition: str
    unsure: np.ndarray  # (N,) of bool: whether people could not tell the class
    findings: Sequence[Finding] = ()

    def at(self, places: np.ndarray) -> GoldOfQuestion:
        """Return those of some galaxies."""
        numbers, probability, unsure = (some[places] for some in (self.numbers, self.probability, self.unsure))
        return replace(self, numbers=numbers, probability=probability, unsure=unsure)

    def evidence(self, learned: Learned, alpha: np.ndarray) -> np.ndarray:
        """Return log p(gold label | class), shape (N, K); 0 where there is none, or people could not tell the class.

        Gold labels are correct, except those of experts whose own bias curve was measured.
        """
        assert learned.transition is not None
        out = np.zeros((self.numbers.size, learned.transition.n_classes))
        known = (self.numbers >= 0) & ~self.unsure
        experts = RayleighTransition(learned.experts) if learned.experts else MatrixTransition.identity(out.shape[1])
        out[known] = label_evidence(experts, self.numbers[known], alpha[known])
        if learned.asked is not None:
            inside = np.array(learned.asked.answers_of_classes) > 0
            out[np.ix_(self.numbers == ANSWER_UNKNOWN, ~inside)] = -np.inf
        return out


@dataclass(frozen=True)
class Learned:
    """A question that a classifier learns, and T(α) of what was observed."""

    asked: Asked | None  # None: the label
    curve: dict[str, Any]  # T(α) in the format of a fit file
    transition: Transition | None  # None: fitted with a logistic regression
    names: tuple[str, ...] = ()  # columns on which it depends in addition to α
    gold: GoldOfQuestion | None = None
    gold_alone: bool = False  # gold labels are learned instead of the observed ones
    experts: float | None = None  # θ of the experts' own bias curve
    findings: Sequence[Finding] = ()

    def evidence(self, frame: pl.DataFrame, source: str) -> np.ndarray:
        """Return log p(observed | class, α), shape (N, K), up to a constant of each galaxy."""
        assert self.transition is not None
        columns = numeric_columns(frame, ["alpha", *self.names], source)
        argument = columns if self.names else columns[:, 0]
        if isinstance(self.transition, TreeTransition):
            found = path_evidence(frame, self.transition, argument, source)
            return found - found.max(axis=1, keepdims=True)
        if self.asked is None or self.gold_alone:
            labels = frame["label"].to_numpy()
        else:
            labels = path_labels(frame, self.asked, source)
        return np.asarray(label_evidence(self.transition, labels, argument))

    def weighted(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Let a galaxy that was selected for a gold label stand for as many as its probability of selection says."""
        assert self.gold is not None
        probability = self.gold.probability[frame[PLACE]]
        if np.all(probability == 1):
            return frame
        weight = frame["sampling_weight"].to_numpy() if "sampling_weight" in frame.columns else 1.0
        return frame.with_columns(sampling_weight=pl.Series(weight / probability / np.mean(1 / probability)))


def learned_questions(catalogue: CatalogTable, run: RunConfig, curves: Sequence[Mapping[str, Any]]) -> list[Learned]:
    """Return the questions to learn, with T(α) of each; none for a logistic regression that fits it."""
    questions = [None if question is None else asked_in(catalogue, question) for question in run.question or (None,)]
    if run.gold_alone is not None:
        return [_gold_alone(catalogue, run.gold_alone, questions[0])]
    if run.naive:
        return [Learned(asked, *_correct(asked, "observed labels are correct (naive training)")) for asked in questions]
    if not curves and run.training.classifier != "network":
        return [Learned(None, {}, None)]
    is_given = bool(curves)
    if not is_given:
        fit, described = fit_catalogue(catalogue, where=run.where)
        problem = next((finding for finding in fit.findings if finding.code in _UNUSABLE), None)
        if problem is not None:
            raise InputError(
                f"{run.catalogue}: T(α) can't be fitted to these labels: {problem.message} Give a fit with gold labels "
                "or a known T(α) (`transition`). A fit without gold labels is used only if you give it."
            )
        curves = [described]
    return [_through(catalogue, run, dict(curve), is_given) for curve in curves]


def all_gold(learned: Sequence[Learned], frame: pl.DataFrame, source: str) -> Gold | None:
    """Return the evidence of labels and gold labels of all questions; None if no galaxy has a gold label to learn."""
    if all(question.gold is None or question.gold_alone for question in learned):
        return None
    place, alpha = frame[PLACE].to_numpy(), frame["alpha"].to_numpy()
    unselected, every = np.ones(place.size), []
    for question in learned:
        evidence = np.maximum(question.evidence(frame, source), _IMPOSSIBLE)
        if question.gold is not None:
            own = question.gold.at(place)
            of_gold = own.evidence(question, alpha)
            unselected *= 1 - np.where(of_gold.any(axis=1), own.probability, 0)
            evidence = evidence + of_gold
        every.append(evidence - evidence.max(axis=1, keepdims=True))
    gold = Gold(1 - unselected, np.concatenate(every, axis=1))
    return gold if gold.known.any() else None


def _through(catalogue: CatalogTable, run: RunConfig, described: dict[str, Any], is_given: bool) -> Learned:
    """Return a question to learn through an estimate, with a finding if its T(α) is unlike the labels."""
    _check_unit(described, catalogue, run.catalogue)
    transition = transition_from_dict(described)
    asked = transition.asked if isinstance(transition, TreeTransition) else None
    if asked is None and is_given:
        labels, alpha = (catalogue.frame[name].to_numpy() for name in ("label", "alpha"))
        unlike = [finding.to_dict() for finding in unlike_labels(transition, Sample.of(labels, alpha))]
        described |= {"findings": [*described.get("findings", ()), *unlike]} if unlike else {}
    learned = Learned(asked, described, transition, tuple(observables_of(described, transition)))
    rule = described.get("gold_rule")
    if rule is None or run.labels == OBSERVED or run.training.classifier != "network":
        return learned
    try:
        gold = _gold(catalogue, str(rule), asked)
    except InputError as problem:
        message = f"The gold labels behind T(α) can't be learned from this catalogue: {problem}."
        action = "Train on the catalogue of the estimate, or say that you do without (`labels` observed)."
        return replace(learned, findings=[Finding("gold-not-learned", "note", message, action)])
    experts = catalogue.metadata.get("gold_experts") if asked is None and rule == "gold" else None
    return replace(learned, gold=gold, experts=experts and experts["theta"])


def _check_unit(described: Mapping[str, Any], catalogue: CatalogTable, source: str) -> None:
    """Refuse T(α) for α in another unit than the catalogue's."""
    here = catalogue.metadata.get("alpha_psf")
    if described.get("alpha_psf") not in (None, here):
        raise InputError(
            f"{source}: T(alpha) is for alpha in units of the PSF's {described['alpha_psf']}, but this catalogue has "
            f"units of the PSF's {here}; fit it again or prepare with the same `psf`"
        )


def _correct(asked: Asked | None, which: str) -> tuple[dict[str, Any], Transition]:
    """Return the identity as T(α), described as in a fit file."""
    transition = MatrixTransition.identity(2 if asked is None else len(asked.classes))
    described = {**transition_to_dict(transition), "assumption": f"the {which}"}
    return described | ({} if asked is None else {"question": asked.question}), transition


def _gold(catalogue: CatalogTable, rule: str, asked: Asked | None) -> GoldOfQuestion:
    """Read gold labels of a question, as classes of T."""
    frame, question = catalogue.frame, None if asked is None else asked.question
    read = gold_labels(catalogue, frame, asked, rule, str(catalogue.path or "catalogue"))
    numbers = read.numbers
    if asked is not None and read.paths is not None:
        numbers = class_of_gold(asked, numbers, read.paths)
        numbers[(numbers == UNKNOWN) & (read.numbers == ANSWER_UNKNOWN)] = ANSWER_UNKNOWN
    own = "gold" if rule in ("gold", gold_column(question)) else rule
    selected, unsure = (
        planned(frame, own, gold_column(question, f"gold_{kind}")) for kind in ("probability", "uncertain")
    )
    labelled = numbers != UNKNOWN
    if selected is None or not selected[labelled].all():  # gold labels that were not planned are among them
        selected = np.ones(numbers.size)
    unsure = read.unsure if unsure is None else read.unsure | (unsure > 0)
    return GoldOfQuestion(numbers, np.where(labelled, selected, 0.0), read.definition, unsure, read.findings)


def _gold_alone(catalogue: CatalogTable, rule: str, asked: Asked | None) -> Learned:
    """Return a question of which gold labels are learned instead of the observed ones."""
    if asked is not None:
        read = gold_labels(catalogue, catalogue.frame, asked, rule, str(catalogue.path or "catalogue"))
        if read.paths is not None:
            asked, _ = told_apart(asked, read.numbers, read.paths)
    gold = _gold(catalogue, rule, asked)
    if asked is not None:
        gold = replace(gold, definition=f"{asked.question}: {gold.definition}")
    return Learned(asked, *_correct(asked, "gold labels are correct"), (), gold, True, findings=gold.findings)
