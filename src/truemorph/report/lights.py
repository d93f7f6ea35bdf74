"""Checks of a report: what limits a result is a finding, what does not is a row with the number that was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from truemorph.bias.checks import LEVEL
from truemorph.bias.scores import calibration_error
from truemorph.bias.transitions import DISK
from truemorph.catalogs.label_sets import LabelSet
from truemorph.findings import Finding, unique
from truemorph.report.evidence import Evidence, Model, argument
from truemorph.report.measures import accuracy_gain, chance_calibration_error, fraction_gain
from truemorph.report.page import Light, in_order
from truemorph.tables import numeric_columns

# Of class fractions, which are quoted to two digits.
_SMALL = 0.05
# A model that calls this fraction of the galaxies one class.
ONE_CLASS = 0.97
# Galaxies of each class that a statement about the dependence of classes on α needs.
FEWEST_OF_A_CLASS = 20
# Gold labels with which a correction through T(α) can be compared.
_FEWEST_GOLD = 100

GOLD, CURVE, MODEL, DATA = "Agreement with gold labels", "Bias curve", "Classifier", "Sample and data"

# What was found, or the name of a check that passed and what it measured.
Check = Finding | tuple[str, str]


def lights(evidence: Evidence, more_checks: Mapping[str, Iterable[Check]] | None = None) -> tuple[Light, ...]:
    """All checks of a report, one light a group: `GOLD`, `CURVE`, `MODEL`, `DATA`; no finding is in two of them.

    `more_checks` were made elsewhere, by the name of their group.
    """
    groups = {GOLD: _of_gold, CURVE: _of_transition, MODEL: _of_models, DATA: _of_sample}
    out: list[Light] = []
    seen: set[Finding] = set()
    for name, checks in groups.items():
        some = [*checks(evidence), *(more_checks or {}).get(name, ())]
        findings = unique(one for one in some if isinstance(one, Finding) and one not in seen)
        seen.update(findings)
        out.append(Light(name, in_order(findings), [one for one in some if not isinstance(one, Finding)]))
    return tuple(out)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(values**2)))  # a fifth may be without gold labels


def _numbers(ours: float, theirs: float, error: float, truth: LabelSet) -> str:
    against = f"against the {truth.name} of {int(truth.known.sum()):,} galaxies"
    return f"{ours:.3f}, observed labels {theirs:.3f}, error of the difference {error:.3f}, {against}"


def _judged(evidence: Evidence) -> list[Model]:
    """Models that are to correct something; naive ones too where there are no others."""
    return [one for one in evidence.models if not one.naive] or list(evidence.models)


def _of_gold(evidence: Evidence) -> Iterator[Check]:
    """Whether a correction brings labels and class fractions nearer to gold labels, by each definition."""
    for definition, truth in evidence.truths.items():
        for model in _judged(evidence):
            yield from _fractions_against_gold(evidence, model, definition, truth)
            yield from _labels_against_gold(evidence, model, definition, truth)
        if not evidence.models:
            yield from _correction_against_gold(evidence, definition, truth)
    yield from evidence.findings
    # Where a fit to labels alone is all there is, its own finding says the same.
    if not evidence.truths and evidence.models and "gold-empty" not in {one.code for one in evidence.findings}:
        text = "No galaxy that is measured here has a gold label, so the correction is not compared with one."
        yield Finding("gold-missing", "caution", text, "Give gold labels (`gold`); a few hundred are enough.")


def _fractions_against_gold(evidence: Evidence, model: Model, definition: str, truth: LabelSet) -> Iterator[Check]:
    rows, best = truth.known, model.best
    gain, error = fraction_gain(truth.p[rows], best.p[rows], evidence.observed.p[rows], evidence.alpha[rows])
    off, before = (evidence.row(one)[f"fraction_rms: {definition}"] for one in (best, evidence.observed))
    what = f"Error of the {evidence.quantity}s of {best.name} (rms over fifths of α)"
    yield from _fractions_compared(what, gain, error, off, _numbers(off, before, error, truth))


def _correction_against_gold(evidence: Evidence, definition: str, truth: LabelSet) -> Iterator[Check]:
    """Class fractions of the estimate against gold labels, unless it was made with these."""
    estimate = evidence.estimate
    if estimate is None or truth.known.sum() < _FEWEST_GOLD:
        return
    if evidence.from_gold and estimate.about.get("definition") == definition:
        return
    fractions, sets = estimate.fractions, (truth, evidence.observed)
    table = evidence.fractions_of(sets)
    by_gold, labelled = (table.filter(labels=one.name)["fraction"].to_numpy() for one in sets)
    after, error = _rms(fractions.fractions[:, DISK] - by_gold), _rms(fractions.stderr[:, DISK])
    before = _rms(labelled - by_gold)
    what = f"Error of the corrected {evidence.quantity}s (rms over {by_gold.size} bins)"
    yield from _fractions_compared(what, before - after, error, after, _numbers(after, before, error, truth))


def _fractions_compared(what: str, gain: float, error: float, off: float, numbers: str) -> Iterator[Check]:
    """Fractions against the observed ones, by two errors of the difference."""
    measured = f"{what}: {numbers}."
    if gain < -2 * error:
        text = f"The corrected fractions are farther from the gold labels than the observed ones are. {measured}"
        action = "Do not use this correction for this definition; estimate T(α) with these gold labels (`gold`)."
        yield Finding("fractions-worse", "problem", text, action)
    elif gain <= 2 * error:
        text = f"The corrected fractions are not significantly nearer to the gold labels. {measured}"
        action = "Use more gold labels (`gold`), or more galaxies to train on."
        yield Finding("fractions-not-better", "caution", text, action)
    elif off >= _SMALL:
        text = "The corrected fractions are nearer to the gold labels than the observed labels are, but off by "
        action = "Quote this error with the fractions, or estimate T(α) with gold labels (`gold`)."
        yield Finding("fractions-inaccurate", "caution", f"{text}{_SMALL} or more. {measured}", action)
    else:
        yield what, numbers


def _labels_against_gold(evidence: Evidence, model: Model, definition: str, truth: LabelSet) -> Iterator[Check]:
    rows, best = truth.known, model.best
    gain, error = accuracy_gain(truth.labels[rows], best.labels[rows], evidence.observed.labels[rows])
    if not np.isfinite(gain):  # gold labels of one class
        return
    own, before = (evidence.row(one)[f"balanced_accuracy: {definition}"] for one in (best, evidence.observed))
    what, numbers = f"Balanced accuracy of {best.name}", _numbers(own, before, error, truth)
    if gain < -2 * error:
        text = "The model's labels agree less with the gold labels than the observed labels do."
        action = "Do not use these labels; train a network for more epochs, or on more galaxies."
        worse = Finding("labels-worse", "problem", f"{text} {what}: {numbers}.", action)
        if model.classifier.uses_images or model.classifier.config.features:
            yield worse
        else:  # it knows class fractions, not galaxies
            action = "Use its class fractions and probabilities instead of its labels."
            yield replace(worse, severity="caution", action=action)
    elif gain <= 2 * error:
        text = "The model's labels agree with the gold labels about as often as the observed labels do."
        action = "Use more gold labels (`gold`), or more galaxies to train on."
        yield Finding("labels-not-better", "caution", f"{text} {what}: {numbers}.", action)
    else:
        yield what, numbers


def _of_models(evidence: Evidence) -> Iterator[Check]:
    for model in evidence.models:
        missing = evidence.left_out.get(model.name, 0)
        fraction = missing / (missing + evidence.frame.height)
        if fraction > _SMALL:
            text = (
                f"{missing:,} galaxies ({fraction:.0%}) have no class probability by {model.name} and are left out "
                "here: no readable image, no value of a feature, or a label that its only member was trained on."
            )
            action = "Check why they are missing; train with `folds` 2 or more."
            yield Finding("rows-not-labelled", "caution", text, action)
        p = float(model.labels.p.mean())
        if max(p, 1 - p) >= ONE_CLASS:
            text = (
                f"{model.name} calls {max(p, 1 - p):.1%} of the galaxies {evidence.classes[round(p)]}, so its "
                "labels carry little information. Such labels have a small bias metric, which means nothing."
            )
            action = "Use its probabilities instead of its labels, or train for more epochs or on more galaxies."
            yield Finding("nearly-one-class", "caution", text, action)
    for model in _judged(evidence):
        if model.naive and not model.classifier.described["catalogue"].get("gold_definition"):
            text = f"{model.name} was trained without a bias curve, so it treats the observed labels as correct."
            yield Finding("labels-treated-as-correct", "caution", text, "Train with a bias curve (`transition`).")
        yield _predicted_labels(evidence, model)
        yield from _bias(evidence, model)
        if not model.naive:
            yield from _against_fit(evidence, model)
        if model.posterior is not None and model.classifier.uses_images:
            text = (
                f"The posterior of {model.name} treats image and label as independent. They are not, because "
                "whoever labelled these galaxies saw the same pixels as the network, so it is slightly overconfident."
            )
            yield Finding("posterior-overconfident", "note", text)


def _predicted_labels(evidence: Evidence, model: Model) -> Check:
    """Whether class probabilities and T(α) together predict the observed labels, beyond what chance alone gives."""
    seen = model.observed_probability(evidence.alpha)
    off, (chance, scatter) = calibration_error(evidence.observed.p, seen), chance_calibration_error(seen)
    beyond = float(np.sqrt(off**2 - chance**2)) if off > chance + 2 * scatter else 0.0
    what = f"Observed labels as {model.name} predicts them through T(α)"
    numbers = f"calibration error {off:.3f} (by chance {chance:.3f} ± {scatter:.3f})"
    if beyond < _SMALL / 2:
        return what, numbers
    if beyond < 1.5 * _SMALL:
        text = f"{what}: {numbers}. Its probabilities and T(α) together describe the labels only roughly."
        action = "Train for more epochs, or through a T(α) that was fitted to these labels (`transition`)."
        return Finding("labels-poorly-predicted", "caution", text, action)
    text = f"{what}: {numbers}. Its probabilities and T(α) together do not describe the labels of these galaxies."
    action = "Check that it was trained through their T(α) (`transition`), on galaxies not selected by their votes."
    return Finding("labels-not-predicted", "problem", text, action)


def _bias(evidence: Evidence, model: Model) -> Iterator[Check]:
    """Whether the drift with α falls, beyond its errors."""
    rows = evidence.row(evidence.observed), evidence.row(model.best)
    if any(row["excess"] is None for row in rows):
        return
    before, after = (row["excess"] for row in rows)
    error = float(np.linalg.norm([row["bootstrap_std" if evidence.tree.bootstrap else "floor_std"] for row in rows]))
    what = f"Drift of {model.name} with resolution ({evidence.tree.measure} above floor)"
    numbers = f"{after:.3f}, observed labels {before:.3f}, error of the difference {error:.3f}"
    if after - before > 2 * error:
        text = f"The class probabilities drift more with α than the observed labels. {what}: {numbers}."
        action = "Check T(α) (`transition`): a curve that is too wide over-corrects."
        yield Finding("bias-increased", "problem", text, action)
    elif before - after > 2 * error and after < before / 2:
        yield what, numbers
    else:
        fell = "by less than half" if before - after > 2 * error else "by no more than the error"
        text = f"The drift with α falls {fell}. {what}: {numbers}."
        action = "Compare with gold labels (`gold`), or give columns on which classes depend (`intrinsic`)."
        yield Finding("bias-remains", "caution", text, action)


def _against_fit(evidence: Evidence, model: Model) -> Iterator[Check]:
    """The T(α) that a model was trained through, beside the one fitted to these labels."""
    if evidence.estimate is None:
        return
    fit = evidence.estimate.curve
    names = evidence.estimate.about.get("observables", ())
    others = numeric_columns(evidence.frame, names, str(evidence.path))
    own = np.asarray(model.transition.flip_probability(argument(evidence.alpha, model.observables)))
    fitted = np.asarray(fit.transition.flip_probability(argument(evidence.alpha, others)))
    apart = float(np.mean(np.abs(own - fitted)))
    what = f"T(α) of {model.name} against that of the estimate ({fit.family}, {fit.method})"
    numbers = f"{apart:.3f} (mean absolute difference)"
    if apart < _SMALL:
        yield what, numbers
    else:
        action = "Find out which T(α) is right with gold labels (`gold`), and train through it (`transition`)."
        yield Finding("transition-differs", "caution", f"{what}: {numbers}.", action)


def _of_transition(evidence: Evidence) -> Iterator[Check]:
    """The estimate of T(α) and of class fractions: its own findings, and whether class fractions depend on α."""
    yield from evidence.of_estimate
    estimate = evidence.estimate
    if estimate is None:
        return
    yield from estimate.findings
    if estimate.check.checked and not estimate.check.findings:
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
    elif evidence.from_gold:  # from labels alone, another finding gives the range
        text = f"{what}: {numbers}, because there are few gold labels."
        yield Finding("range-wide", "note", text, "Quote the range, or use more gold labels (`gold`).")


def _of_sample(evidence: Evidence) -> Iterator[Check]:
    measured = evidence.bias[evidence.observed.name]
    yield from () if measured is None else measured.findings
    if evidence.tree.intrinsic is None:
        text = "Bias is measured without intrinsic columns, so a real change of class fractions with α counts as bias."
        action = "Give columns such as luminosity, physical size and redshift (`intrinsic`)."
        yield Finding("intrinsic-missing", "caution", text, action)
    else:
        yield "Bias measured at fixed intrinsic properties", ", ".join(evidence.options.intrinsic)
