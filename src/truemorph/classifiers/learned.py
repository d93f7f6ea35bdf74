"""What a classifier learns: questions, T(α) of what was observed of them, and their gold labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.checks.diagnosis import diagnose
from truemorph.bias.curves.families import transition_from_dict, transition_to_dict
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.bias.curves.misses import misses_of_experts
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import ANSWER_UNKNOWN, UNKNOWN, Transition
from truemorph.bias.fitting import settings_for, solve
from truemorph.bias.fractions import unlike_labels
from truemorph.bias.likelihood import label_columns, label_evidence, observables_of
from truemorph.bias.result import Settings, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.catalogs.catalogue import label_classes
from truemorph.catalogs.paths import asked_in, asked_of, gold_column, path_evidence, path_labels
from truemorph.catalogs.question_gold import class_of_gold, experts_of, told_apart
from truemorph.catalogs.selected import GoldLabels, SampleOptions, gold_labels, planned, rows_of
from truemorph.classifiers.rows import Gold
from truemorph.config import OBSERVED, RunConfig
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.io import plain
from truemorph.questions import Asked
from truemorph.tables import CatalogTable, numeric_columns

# A fit with one of these findings is used only if it is given.
_UNUSABLE = ("fraction-at-bound", "drift-reversed")
_IMPOSSIBLE = -1e4  # log-probability of labels that are impossible under T, so that a gold label can be their class


@dataclass(frozen=True)
class Learned:
    """A question that a classifier learns, and T(α) of what was observed."""

    asked: Asked | None  # None: the label
    curve: dict[str, Any]  # T(α) in the format of a fit file
    transition: Transition | None  # None: fitted with a logistic regression
    names: tuple[str, ...] = ()  # columns on which it depends in addition to α
    gold_rule: str | None = None  # of gold labels that are learned beside what was observed
    gold_alone: pl.DataFrame | None = None  # the catalogue, with gold labels as labels, if these are learned instead
    gold_definition: str = ""  # of these
    findings: Sequence[Finding] = ()  # of these

    def evidence(self, frame: pl.DataFrame, source: str) -> np.ndarray:
        """Return log p(observed | class, α), shape (N, K), up to a constant of each galaxy."""
        assert self.transition is not None
        columns = numeric_columns(frame, ["alpha", *self.names], source)
        argument = columns if self.names else columns[:, 0]
        if isinstance(self.transition, TreeTransition):
            log_p = path_evidence(frame, self.transition, argument, source)
            return log_p - log_p.max(axis=1, keepdims=True)
        if self.asked is None or self.gold_alone is not None:
            labels = frame["label"].to_numpy()
        else:
            labels = path_labels(frame, self.asked, source)
        return label_columns(self.transition, labels, argument)


def learned_questions(catalogue: CatalogTable, run: RunConfig, curves: Sequence[Mapping[str, Any]]) -> list[Learned]:
    """Return the questions to learn, with T(α) of each; none for a logistic regression that fits it."""
    questions: list[Asked | None] = [asked_in(catalogue, question) for question in run.question]
    questions = questions or [asked_of(catalogue, None)]
    if run.gold_alone is not None:
        return [_gold_alone(catalogue, run.gold_alone, questions[0])]
    if run.naive:
        return [Learned(asked, *_correct(asked, "observed labels are correct (naive training)")) for asked in questions]
    if not curves and run.training.classifier != "network":
        SampleOptions().check(catalogue, questions[0])
        return [Learned(None, {}, None)]
    is_given = bool(curves)
    if not is_given:
        fit, described = fit_catalogue(catalogue, Settings(), run.where)
        problem = next((finding for finding in fit.findings if finding.code in _UNUSABLE), None)
        if problem is not None:
            raise InputError(
                f"{run.catalogue}: T(α) can't be fitted to these labels: {problem.message} Give a fit with gold labels "
                "or a known T(α) (`transition`). A fit without gold labels is used only if you give it."
            )
        curves = [described]
    return [_through(catalogue, run, dict(curve), is_given) for curve in curves]


def fit_catalogue(
    catalogue: CatalogTable, settings: Settings, where: Sequence[str]
) -> tuple[TransitionFit, dict[str, Any]]:
    """Fit T(α) to a catalogue's labels; also return the fit as it is written to a file.

    `where` has conditions that select rows.
    """
    sample, context = rows_of(catalogue, SampleOptions(where=where))
    fit = solve(sample, settings_for(sample, settings))
    fit = replace(fit, findings=diagnose(fit)[0])
    return fit, fit.to_dict() | dict(context.about) | {"findings": plain(unique(context.findings, fit.findings))}


def gold_evidence(learned: Sequence[Learned], catalogue: CatalogTable, frame: pl.DataFrame) -> Gold | None:
    """Return what labels and gold labels say of some galaxies of a catalogue; None without gold labels to learn.

    Gold labels are correct, but for those of experts whose own bias curve was measured. Where people could not tell the
    class, they say nothing.
    """
    source = catalogue.source
    unselected, every = np.ones(frame.height), []
    for question in learned if any(question.gold_rule for question in learned) else ():
        evidence = np.maximum(question.evidence(frame, source), _IMPOSSIBLE)
        if question.gold_rule is not None:
            gold, probability = _of_estimate(catalogue, frame, question.gold_rule, question.asked)
            rows, asked, classes = gold.numbers >= 0, question.asked, label_classes(catalogue)
            experts = experts_of(catalogue.metadata, classes).get(gold.rule, {})
            numbers = range(len(classes)) if asked is None else asked.of_paths
            seen = misses_of_experts(experts, classes if asked is None else asked.answers_by_gold, numbers)
            evidence[rows] += label_evidence(seen, gold.numbers[rows], frame["alpha"].to_numpy()[rows])
            if question.asked is not None:
                outside = np.array(question.asked.answers_of_classes) == 0
                evidence[np.ix_(gold.numbers == ANSWER_UNKNOWN, outside)] = -np.inf
            unselected *= 1 - probability
        every.append(evidence - evidence.max(axis=1, keepdims=True))
    return Gold(1 - unselected, np.hstack(every)) if np.any(unselected < 1) else None


def _through(catalogue: CatalogTable, run: RunConfig, described: dict[str, Any], is_given: bool) -> Learned:
    """Return a question to learn through an estimate, with a finding if its T(α) is unlike the labels."""
    here = catalogue.metadata.get("alpha_psf")
    if described.get("alpha_psf") not in (None, here):
        raise InputError(
            f"{run.catalogue}: T(alpha) is for alpha in units of the PSF's {described['alpha_psf']}, but this "
            f"catalogue has units of the PSF's {here}; fit it again or prepare with the same `psf`"
        )
    transition = transition_from_dict(described)
    asked = transition.asked if isinstance(transition, TreeTransition) else None
    if asked is None and transition.n_classes != 2:
        raise InputError(f"T(alpha) has {transition.n_classes} classes; the labels of {catalogue.source} have 2")
    if asked is None and is_given:
        unlike = plain([*unlike_labels(transition, Sample.of(catalogue.frame["label"], catalogue.frame["alpha"]))])
        described |= {"findings": [*described.get("findings", ()), *unlike]} if unlike else {}
    rule = described.get("gold_rule") if run.labels != OBSERVED and run.training.classifier == "network" else None
    if rule is not None:  # refused before images are read, if it can't be
        _of_estimate(catalogue, catalogue.frame, rule, asked)
    return Learned(asked, described, transition, tuple(observables_of(described, transition)), rule)


def _correct(asked: Asked | None, which: str) -> tuple[dict[str, Any], Transition]:
    """Return the identity as T(α), described as in a fit file."""
    transition = MatrixTransition.identity(2 if asked is None else len(asked.classes))
    described = {**transition_to_dict(transition), "assumption": f"the {which}"}
    return described | ({} if asked is None else {"question": asked.question}), transition


# Gold labels, with unknown numbers where people could not tell the class, and the probability of being selected for
# one, (N,); 0 where there is none.
_Gold = tuple[GoldLabels, np.ndarray]


def _of_estimate(catalogue: CatalogTable, frame: pl.DataFrame, rule: str, asked: Asked | None) -> _Gold:
    """Read the gold labels behind an estimate."""
    try:
        return _read_gold(catalogue, frame, rule, asked)
    except InputError as problem:
        raise InputError(
            f"{problem}; these gold labels are behind T(α): train on the catalogue of the estimate, or without them "
            "(`labels` observed)"
        ) from problem


def _read_gold(catalogue: CatalogTable, frame: pl.DataFrame, rule: str, asked: Asked | None) -> _Gold:
    """Read gold labels of some galaxies of a catalogue, as classes."""
    question = None if asked is None else asked.question
    read = gold_labels(catalogue, frame, asked, rule)
    numbers, own = read.numbers, "gold" if rule in ("gold", gold_column(question)) else rule
    if asked is not None:
        numbers = class_of_gold(asked, numbers, read.paths)
        numbers[(numbers == UNKNOWN) & (read.numbers == ANSWER_UNKNOWN)] = ANSWER_UNKNOWN
    selected, unsure = (
        planned(frame, own, gold_column(question, f"gold_{kind}")) for kind in ("probability", "uncertain")
    )
    if unsure is not None:
        numbers = np.where(unsure > 0, UNKNOWN, numbers)
    labelled = numbers != UNKNOWN
    if selected is None or not selected[labelled].all():  # gold labels that were not planned are among them
        selected = np.ones(numbers.size)
    return replace(read, numbers=numbers), np.where(labelled, selected, 0.0)


def _gold_alone(catalogue: CatalogTable, rule: str, asked: Asked | None) -> Learned:
    """Return a question of which gold labels are learned instead of the observed ones.

    A galaxy that was selected for a gold label is weighted by 1 / its probability of selection.
    """
    frame = catalogue.frame
    if asked is not None:
        read = gold_labels(catalogue, frame, asked, rule)
        asked, _ = told_apart(asked, read.numbers, read.paths)
    gold, probability = _read_gold(catalogue, frame, rule, asked)
    definition = gold.definition if asked is None else f"{asked.question}: {gold.definition}"
    frame = frame.with_columns(label=gold.numbers)
    if np.any(probability[gold.numbers >= 0] < 1):
        weight = frame.get_column("sampling_weight", default=1.0)
        frame = frame.with_columns(sampling_weight=weight / np.where(probability > 0, probability, 1))
    return Learned(asked, *_correct(asked, "gold labels are correct"), (), None, frame, definition, gold.findings)
