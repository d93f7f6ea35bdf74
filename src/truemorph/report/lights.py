"""Checks of a report: what limits a result is a finding, what does not is a row with the number that was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from truemorph.bias.checks.selection import LEVEL
from truemorph.bias.curves.transitions import DISK
from truemorph.bias.metrics.scores import calibration_error
from truemorph.catalogs.label_sets import LabelSet, nearly_one_class
from truemorph.findings import Finding, unique
from truemorph.report.evidence import UNSTATED, Evidence, Model, argument
from truemorph.report.measures import accuracy_gain, chance_calibration_error, fraction_gain
from truemorph.report.page import Light, in_order
from truemorph.tables import numeric_columns

# Of class fractions, which are quoted to two digits.
_SMALL = 0.05
# Galaxies of each class that a statement about the dependence of classes on α needs.
FEWEST_OF_A_CLASS = 20
# Gold labels with which a correction through T(α) can be compared.
_FEWEST_GOLD = 100

GOLD, CURVE, MODEL, DATA = "Agreement with gold labels", "Bias curve", "Classifier", "Sample and data"

# What was found, or the name of a check that passed and what it measured.
Check = Finding | tuple[str, str]


def lights(evidence: Evidence, more_checks: Mapping[str, Iterable[Check]] | None = None) -> tuple[Light, ...]:
    """All checks of a report, one light a group: `GOLD`, `CURVE`, `MODEL`, `DATA`.

    `more_checks` were made elsewhere, by the name of their group.
    """
    groups = {GOLD: _of_gold, CURVE: _of_transition, MODEL: _of_models, DATA: _of_sample}
    return grouped({name: [*checks(evidence), *(more_checks or {}).get(name, ())] for name, checks in groups.items()})


def grouped(groups: Mapping[str, Sequence[Check]]) -> tuple[Light, ...]:
    """Return a light for each group of checks; a finding that several groups have is only in the first."""
    out, seen = list[Light](), set[Finding]()
    for name, checks in groups.items():
        findings = unique(check for check in checks if isinstance(check, Finding) and check not in seen)
        seen.update(findings)
        out.append(Light(name, in_order(findings), [check for check in checks if not isinstance(check, Finding)]))
    return tuple(out)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(values**2)))  # a fifth may be without gold labels


def compared_numbers(ours: float, theirs: float, error: float, truth: LabelSet) -> str:
    """Return the numbers of a comparison with gold labels as text."""
    against = f"against the {truth.name} of {int(truth.known.sum()):,} galaxies"
    return f"{ours:.3f}, observed labels {theirs:.3f}, error of the difference {error:.3f}, {against}"


def _judged(evidence: Evidence) -> list[Model]:
    """Models that are to correct something; naive ones too where there are no others."""
    return [model for model in evidence.models if not model.naive] or list(evidence.models)


def _of_gold(evidence: Evidence) -> Iterator[Check]:
    """Whether a correction brings labels and class fractions nearer to gold labels, by each definition."""
    for definition, truth in evidence.truths.items():
        for model in _judged(evidence):
            yield _fractions_against_gold(evidence, model, definition, truth)
            yield from _labels_against_gold(evidence, model, definition, truth)
        if not evidence.models:
            yield from _correction_against_gold(evidence, definition, truth)
    yield from evidence.findings
    # Where a fit to labels alone is all there is, its own finding says the same.
    if not evidence.truths and evidence.models and "gold-empty" not in {finding.code for finding in evidence.findings}:
        text = "No galaxy that is measured here has a gold label, so the correction is not compared with one."
        yield Finding("gold-missing", "caution", text, "Give gold labels (`gold`); a few hundred are enough.")


def _fractions_against_gold(evidence: Evidence, model: Model, definition: str, truth: LabelSet) -> Check:
    rows, best = truth.known, model.best
    gain, error = fraction_gain(truth.p[rows], best.p[rows], evidence.observed.p[rows], evidence.alpha[rows])
    off, before = (evidence.row(one)[f"fraction_rms: {definition}"] for one in (best, evidence.observed))
    what = f"Error of the {evidence.quantity}s of {best.name} (rms over fifths of α)"
    return fractions_compared(what, gain, error, off, compared_numbers(off, before, error, truth))


def _correction_against_gold(evidence: Evidence, definition: str, truth: LabelSet) -> Iterator[Check]:
    """Class fractions of the estimate against gold labels, unless it was made with these."""
    estimate = evidence.estimate
    if estimate is None or truth.known.sum() < _FEWEST_GOLD:
        return
    if evidence.from_gold and definition in (estimate.about.get("definition"), UNSTATED):
        return
    fractions, sets = estimate.fractions, (truth, evidence.observed)
    table = evidence.fractions_of(sets)
    by_gold, labelled = (table.filter(labels=label_set.name)["fraction"].to_numpy() for label_set in sets)
    after, error = _rms(fractions.fractions[:, DISK] - by_gold), _rms(fractions.stderr[:, DISK])
    before = _rms(labelled - by_gold)
    what = f"Error of the corrected {evidence.quantity}s (rms over {by_gold.size} bins)"
    yield fractions_compared(what, before - after, error, after, compared_numbers(after, before, error, truth))


def fractions_compared(what: str, gain: float, error: float, off: float, numbers: str) -> Check:
    """Fractions against the observed ones, by two errors of the difference."""
    measured = f"{what}: {numbers}."
    if gain < -2 * error:
        text = f"The corrected fractions are farther from the gold labels than the observed ones are. {measured}"
        action = "Do not use this correction for this definition; estimate T(α) with these gold labels (`gold`)."
        return Finding("fractions-worse", "problem", text, action)
    if gain <= 2 * error:
        text = f"The corrected fractions are not significantly nearer to the gold labels. {measured}"
        action = "Use more gold labels (`gold`), or more galaxies to train on."
        return Finding("fractions-not-better", "caution", text, action)
    if off >= _SMALL:
        text = "The corrected fractions are nearer to the gold labels than the observed labels are, but off by "
        action = "Quote this error with the fractions, or estimate T(α) with gold labels (`gold`)."
        return Finding("fractions-inaccurate", "caution", f"{text}{_SMALL} or more. {measured}", action)
    return what, numbers


def _labels_against_gold(evidence: Evidence, model: Model, definition: str, truth: LabelSet) -> Iterator[Check]:
    rows, best = truth.known, model.best
    gain, error = accuracy_gain(truth.labels[rows], best.labels[rows], evidence.observed.labels[rows])
    if not np.isfinite(gain):  # gold labels of one class
        return
    own, before = (evidence.row(one)[f"balanced_accuracy: {definition}"] for one in (best, evidence.observed))
    galaxies = model.classifier.uses_images or bool(model.classifier.config.features)
    what, numbers = f"Balanced accuracy of {best.name}", compared_numbers(own, before, error, truth)
    yield labels_compared(what, gain, error, numbers, galaxies)


def labels_compared(what: str, gain: float, error: float, numbers: str, galaxies: bool = True) -> Check:
    """Labels against the observed ones, by two errors; of a model that knows `galaxies`, or class fractions only."""
    if gain < -2 * error:
        text = "The model's labels agree less with the gold labels than the observed labels do."
        action = "Do not use these labels; check T(α) (`transition`), or train for more epochs, or on more galaxies."
        worse = Finding("labels-worse", "problem", f"{text} {what}: {numbers}.", action)
        action = "Use its class fractions and probabilities instead of its labels."
        return worse if galaxies else replace(worse, severity="caution", action=action)
    if gain <= 2 * error:
        text = "The model's labels agree with the gold labels about as often as the observed labels do."
        action = "Use more gold labels (`gold`), or more galaxies to train on."
        return Finding("labels-not-better", "caution", f"{text} {what}: {numbers}.", action)
    return what, numbers


def _of_models(evidence: Evidence) -> Iterator[Check]:
    for model in evidence.models:
        yield from not_labelled(model.name, evidence.left_out.get(model.name, 0), evidence.frame.height)
        p = float(model.labels.p.mean())
        yield from nearly_one_class(model.name, max(p, 1 - p), evidence.classes[round(p)])
    for model in _judged(evidence):
        if model.naive and not model.classifier.described["catalogue"].get("gold_definition"):
            yield treated_as_correct(model.name)
        yield _predicted_labels(evidence, model)
        yield from _bias(evidence, model)
        if not model.naive:
            yield from _against_fit(evidence, model)
        if model.posterior is not None and model.classifier.uses_images:
            yield overconfident(model.name)


def not_labelled(name: str, missing: int, labelled: int) -> Iterator[Finding]:
    """Whether many galaxies have no class probability by a model."""
    fraction = missing / (missing + labelled)
    if fraction > _SMALL:
        text = (
            f"{missing:,} galaxies ({fraction:.0%}) have no class probability by {name} and are left out "
            "here: no readable image, no value of a feature, or a label that its only member was trained on."
        )
        yield Finding("rows-not-labelled", "caution", text, "Check why they are missing; train with `folds` 2 or more.")


def treated_as_correct(name: str) -> Finding:
    """Say that a model is naive."""
    text = f"{name} was trained without a bias curve, so it treats the observed labels as correct."
    return Finding("labels-treated-as-correct", "caution", text, "Train with a bias curve (`transition`).")


def overconfident(name: str) -> Finding:
    """Say what the posterior of a network assumes."""
    text = (
        f"The posterior of {name} treats image and label as independent. They are not, because "
        "whoever labelled these galaxies saw the same pixels as the network, so it is slightly overconfident."
    )
    return Finding("posterior-overconfident", "note", text)


def _predicted_labels(evidence: Evidence, model: Model) -> Check:
    """Whether class probabilities and T(α) together predict the observed labels, beyond what chance alone gives."""
    seen = model.observed_probability(evidence.alpha)
    return predicted_labels(model.name, evidence.observed.p, seen, chance_calibration_error(seen))


def predicted_labels(name: str, labels: np.ndarray, seen: np.ndarray, by_chance: tuple[float, float]) -> Check:
    """Compare what a model predicts through T(α) with the labels, or fractions of votes; NaN where there are none.

    `by_chance` are the mean and scatter of the calibration error that so few galaxies have.
    """
    off, (chance, scatter) = calibration_error(labels, seen), by_chance
    beyond = float(np.sqrt(off**2 - chance**2)) if off > chance + 2 * scatter else 0.0
    what = f"Observed labels as {name} predicts them through T(α)"
    numbers = f"calibration error {off:.3f} (by chance {chance:.3f} ± {scatter:.3f})"
    if beyond < _SMALL / 2:
        return what, numbers
    if beyond < 1.5 * _SMALL:
        text = f"{what}: {numbers}. Its probabilities and T(α) together describe the labels only roughly."
        action = "Train for more epochs, on more galaxies, or through a T(α) of these labels (`transition`)."
        return Finding("labels-poorly-predicted", "caution", text, action)
    text = f"{what}: {numbers}. Its probabilities and T(α) together do not describe the labels of these galaxies."
    action = (
        "Check that it was trained through their T(α) (`transition`), on galaxies not selected by their votes, and on "
        "enough of them."
    )
    return Finding("labels-not-predicted", "problem", text, action)


def _bias(evidence: Evidence, model: Model) -> Iterator[Check]:
    """Whether the drift with α falls, beyond its errors."""
    rows = evidence.row(evidence.observed), evidence.row(model.best)
    if any(row["excess"] is None for row in rows):
        return
    before, after = (row["excess"] for row in rows)
    error = float(np.linalg.norm([row["bootstrap_std" if evidence.tree.bootstrap else "floor_std"] for row in rows]))
    yield drift_compared(model.name, evidence.tree.measure, before, after, error)


def drift_compared(name: str, measure: str, before: float, after: float, error: float) -> Check:
    """Drift of a model's probabilities with α against that of the observed labels."""
    what = f"Drift of {name} with resolution ({measure} above floor)"
    numbers = f"{after:.3f}, observed labels {before:.3f}, error of the difference {error:.3f}"
    if after - before > 2 * error:
        text = f"The class probabilities drift more with α than the observed labels. {what}: {numbers}."
        action = "Check T(α) (`transition`): a curve that is too wide over-corrects."
        return Finding("bias-increased", "problem", text, action)
    if before - after > 2 * error and after < before / 2:
        return what, numbers
    fell = "by less than half" if before - after > 2 * error else "by no more than the error"
    text = f"The drift with α falls {fell}. {what}: {numbers}."
    action = (
        "Check T(α) (`transition`), or give columns on which classes depend (`intrinsic`), or gold labels (`gold`)."
    )
    return Finding("bias-remains", "caution", text, action)


def _against_fit(evidence: Evidence, model: Model) -> Iterator[Check]:
    """The T(α) that a model was trained through, beside the one fitted to these labels."""
    if evidence.estimate is None:
        return
    fit = evidence.estimate.curve
    names = evidence.estimate.about.get("observables", ())
    others = numeric_columns(evidence.frame, names, str(evidence.path))
    own = np.asarray(model.transition.flip_probability(argument(evidence.alpha, model.observables)))
    fitted = np.asarray(fit.transition.flip_probability(argument(evidence.alpha, others)))
    yield transitions_compared(model.name, own, fitted, f"{fit.family}, {fit.method}")


def transitions_compared(name: str, own: np.ndarray, fitted: np.ndarray, how: str) -> Check:
    """T(α) of a model against that of an estimate, by its values for the same galaxies."""
    apart = float(np.mean(np.abs(own - fitted)))
    what = f"T(α) of {name} against that of the estimate ({how})"
    numbers = f"{apart:.3f} (mean absolute difference)"
    if apart < _SMALL:
        return what, numbers
    action = "Find out which T(α) is right with gold labels (`gold`), and train through it (`transition`)."
    return Finding("transition-differs", "caution", f"{what}: {numbers}.", action)


def _of_transition(evidence: Evidence) -> Iterator[Check]:
    """The estimate of T(α) and of class fractions: its own findings, and whether class fractions depend on α."""
    yield from evidence.of_estimate
    estimate = evidence.estimate
    if estimate is None:
        return
    yield from estimate.findings
    if estimate.check is not None and estimate.check.checked and not estimate.check.findings:
        yield "Constant class fractions", estimate.check.statement
    if estimate.calibration.p_value >= LEVEL:
        name = f"Fit of the {estimate.curve.family} family to the {'gold ' if evidence.from_gold else ''}labels"
        yield name, f"p = {estimate.calibration.p_value:.2g} (χ² over bins)"
    fractions = estimate.fractions
    widths = fractions.high[:, DISK] - fractions.low[:, DISK]
    what = f"Range of the {evidence.quantity}s"
    numbers = f"{widths.mean():.2f} wide (mean over bins; up to {widths.max():.2f})"
    if widths.mean() < 2 * _SMALL:
        yield what, numbers
    elif evidence.from_gold:
        text = f"{what}: {numbers}, because there are few gold labels."
        yield Finding("range-wide", "note", text, "Quote the range, or use more gold labels (`gold`).")
    else:
        text = f"Labels alone leave the {evidence.quantity}s undetermined: their range is {numbers}."
        yield Finding("fractions-undetermined", "caution", text, "Quote the range, or give gold labels (`gold`).")


def _of_sample(evidence: Evidence) -> Iterator[Check]:
    measured = evidence.bias[evidence.observed.name]
    yield from () if measured is None else measured.findings
    if evidence.tree.intrinsic is None:
        text = "Bias is measured without intrinsic columns, so a real change of class fractions with α counts as bias."
        action = "Give columns such as luminosity, physical size and redshift (`intrinsic`)."
        yield Finding("intrinsic-missing", "caution", text, action)
    else:
        yield "Bias measured at fixed intrinsic properties", ", ".join(evidence.options.intrinsic)
