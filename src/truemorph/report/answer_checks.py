"""Checks of a report on questions: the same as for two classes, with the fraction of each question's first answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.likelihood import observables_of
from truemorph.bias.metrics.scores import balanced_accuracy
from truemorph.catalogs.label_sets import LabelSet, nearly_one_class
from truemorph.findings import Finding
from truemorph.report.answers import Answers, Network
from truemorph.report.evidence import argument
from truemorph.report.lights import (
    GOLD,
    MODEL,
    Check,
    compared_numbers,
    drift_compared,
    fractions_compared,
    grouped,
    labels_compared,
    not_labelled,
    overconfident,
    predicted_labels,
    transitions_compared,
    treated_as_correct,
)
from truemorph.report.measures import accuracy_gain, chance_calibration_error, ratio_gain
from truemorph.report.page import Light
from truemorph.tables import numeric_columns

ESTIMATE = "Estimate"


def lights_of_questions(
    every: Sequence[Answers], estimates: Sequence[Check], more_checks: Iterable[Check] = ()
) -> tuple[Light, ...]:
    """Checks of gold labels, of the estimates and of networks, one light a group."""
    groups: Mapping[str, list[Check]] = {
        GOLD: [one for answers in every for one in _of_gold(answers)],
        ESTIMATE: list(estimates),
        MODEL: [*(network for answers in every for network in _of_networks(answers)), *more_checks],
    }
    return grouped({name: checks for name, checks in groups.items() if checks})


def _named(answers: Answers, model: Network) -> str:
    return f"{model.name} ({answers.question})" if len(model.classifier.heads) > 1 else model.name


def hard_answers(answers: Answers, one: LabelSet, rows: np.ndarray) -> np.ndarray:
    """Whether measured galaxies have the first answer by a label set if the question applies, 0 or 1."""
    above, below = answers.answered(one)[rows].T
    return (above > 0.5 * below).astype(np.int64)


def gold_answers(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Measured galaxies to which the question applies by gold labels, and whether they have the first answer."""
    assert answers.truth is not None
    above, below = np.nan_to_num(answers.answered(answers.truth)).T
    rows = np.flatnonzero(below > 0)
    return rows, (above[rows] > 0).astype(np.int64)


def _of_gold(answers: Answers) -> Iterator[Check]:
    """Whether networks bring fractions and answers nearer to gold labels."""
    truth = answers.truth
    if truth is None:
        return
    rows, right = gold_answers(answers)
    known = truth.of(answers.rows).known
    for model in [model for model in answers.models if not model.naive] or list(answers.models):
        if not rows.size:
            continue
        best = model.posterior or model.probabilities
        parts = (answers.answered(one)[known] for one in (truth, best, answers.observed))
        gain, error, own, other = ratio_gain(answers.inside[:-1, known], *parts)
        what = f"Error of the {answers.quantity.name}s of {best.name} (rms over {len(answers.inside) - 1} bins)"
        numbers = compared_numbers(own, other, error, truth.of(answers.rows))
        yield fractions_compared(what, gain, error, own, numbers)
        ours, theirs = (hard_answers(answers, one, rows) for one in (best, answers.observed))
        gain, error = accuracy_gain(right, ours, theirs)
        if np.isfinite(gain):
            own, other = (balanced_accuracy(right, one) for one in (ours, theirs))
            what = f"Balanced accuracy of {best.name} where {answers.question} applies"
            yield labels_compared(what, gain, error, compared_numbers(own, other, error, truth.of(answers.rows[rows])))


def _of_networks(answers: Answers) -> Iterator[Check]:
    judged = [model for model in answers.models if not model.naive]
    for model in answers.models:
        name = _named(answers, model)
        yield from not_labelled(name, answers.left_out.get(model.name, 0), answers.rows.size)
        yield from _one_class(answers, model, name)
    for model in judged or answers.models:
        name = _named(answers, model)
        if model.naive:
            yield treated_as_correct(name)
        else:
            yield from _predicted(answers, model, name)
            yield overconfident(name)
            yield from _against_estimate(answers, model, name)
        yield from _drift(answers, model, name)


def _one_class(answers: Answers, model: Network, name: str) -> Iterator[Finding]:
    """Whether a network gives nearly all galaxies one class, or nearly all to which the question applies one answer."""
    p = answers.measured(model.probabilities)
    for some in (p, p[p[:, 0] < 0.5, 1:]):
        found = np.bincount(some.argmax(axis=1), minlength=some.shape[1]) / max(len(some), 1)
        kind = answers.fractions.classes[-some.shape[1] :][int(found.argmax())]
        kind += f" where {answers.question} applies" if some is not p else ""
        for one in nearly_one_class(name, float(found.max()), kind):
            yield one
            return


def _predicted(answers: Answers, model: Network, name: str) -> Iterator[Check]:
    """Whether class probabilities and T(α) together predict the votes of those who were asked."""
    seen, votes = answers.predicted_votes(model), answers.votes
    asked = np.isfinite(seen) & np.isfinite(votes)
    if asked.any():
        by_chance = chance_calibration_error(seen[asked], (seen - votes)[asked] ** 2)
        yield predicted_labels(name, votes[asked], seen[asked], by_chance)


def _drift(answers: Answers, model: Network, name: str) -> Iterator[Check]:
    """Whether the drift of the answers with α falls, beyond its errors."""
    best = model.posterior or model.probabilities
    before, after = (answers.drift[one.name] for one in (answers.observed, best))
    if before is not None and after is not None:
        errors = [one.bootstrap_std if answers.options.bootstrap else one.floor_std for one in (before, after)]
        error = float(np.linalg.norm(np.array(errors, dtype=float)))
        yield drift_compared(name, answers.tree_of_bias.measure, before.excess, after.excess, error)


def _against_estimate(answers: Answers, model: Network, name: str) -> Iterator[Check]:
    """The T(α) that a network was trained through, beside that of the estimate."""
    own, fitted, frame = model.transition, answers.transition, answers.frame[answers.rows]
    assert isinstance(own, TreeTransition)
    if own.asked != fitted.asked:
        return
    matrices = []
    for one, about in ((own, model.curve), (fitted, answers.estimate.about)):
        others = numeric_columns(frame, observables_of(about, one), answers.source)
        matrices.append(np.asarray(one.matrix(argument(frame["alpha"].to_numpy(), others))))
    curve = answers.estimate.curve
    yield transitions_compared(name, matrices[0], matrices[1], f"{curve.family}, {curve.method}")
