"""Checks of a report: what limits a result is a finding, what does not is a row with the number that was measured."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from truemorph.arrays import rms
from truemorph.bias.checks.selection import LEVEL
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import DISK, SMOOTH
from truemorph.bias.metrics.scores import calibration_error
from truemorph.catalogs.label_sets import LabelSet, nearly_one_class
from truemorph.findings import Finding, unique
from truemorph.report.evidence import TRUTH, Evidence, Model
from truemorph.report.measures import chance_calibration_error, compared_accuracies, fraction_errors, has_answer
from truemorph.report.page import Light, in_order

# Of class fractions, which are quoted to two digits.
_SMALL = 0.05
# Galaxies of each class that a statement about the dependence of classes on α needs.
FEWEST_OF_A_CLASS = 20
# Gold labels with which a correction through T(α) can be compared.
_FEWEST_GOLD = 100

GOLD, ESTIMATE, MODEL, DATA = "Agreement with gold labels", "Estimate", "Classifier", "Sample and data"

# What was found, or the name of a check that passed and what it measured.
Check = Finding | tuple[str, str]


def lights(every: Sequence[Evidence], more_checks: Mapping[str, Iterable[Check]] | None = None) -> Iterator[Light]:
    """All checks of a report on some questions, one light a group: `GOLD`, `ESTIMATE`, `MODEL`, `DATA`.

    `more_checks` were made elsewhere, by the name of their group.
    """
    groups = {GOLD: _of_gold, ESTIMATE: _of_estimate, MODEL: _of_models, DATA: _of_sample}
    seen = set[Finding]()
    for name, of_group in groups.items():
        checks = [check for evidence in every for check in of_group(evidence)] + [*(more_checks or {}).get(name, ())]
        if not checks:
            continue
        findings = unique(check for check in checks if isinstance(check, Finding) and check not in seen)
        seen.update(findings)
        yield Light(name, in_order(findings), [check for check in checks if not isinstance(check, Finding)])


def _of_gold(evidence: Evidence) -> Iterator[Check]:
    """Whether a correction brings labels and class fractions nearer to gold labels, by each definition."""
    for definition, truth in evidence.truths.items():
        for model in evidence.judged:
            yield from _against_gold(evidence, model, truth)
        if not evidence.models:
            yield from _correction_against_gold(evidence, definition, truth)
    yield from evidence.findings
    # Where a fit to labels alone is all there is, its own finding says the same.
    if not evidence.truths and evidence.models and "gold-empty" not in {finding.code for finding in evidence.findings}:
        text = "No galaxy that is measured here has a gold label, so the correction is not compared with one."
        yield Finding("gold-missing", "caution", text, "Give gold labels (`gold`); a few hundred are enough.")


def _against_gold(evidence: Evidence, model: Model, truth: LabelSet) -> Iterator[Check]:
    """Fractions of a model, and its labels of galaxies to which the question applies by gold labels."""
    best = model.best
    has_gold = np.isfinite(evidence.parts(truth)).all(axis=1)
    right, ours, theirs = (evidence.parts(labels)[has_gold] for labels in (truth, best, evidence.observed))
    applies = right[:, 1] > 0
    if not applies.any():
        return
    errors = fraction_errors(right, ours, theirs, evidence.alpha[has_gold])
    what = f"{evidence.quantity.name}s of {best.name} in fifths of α"
    yield from _fractions_compared(what, *errors, truth.of(evidence.rows))
    accuracies = compared_accuracies(*(has_answer(values[applies]) for values in (right, ours, theirs)))
    galaxies = model.classifier.uses_images or bool(model.classifier.features)
    yield from _labels_compared(f"Balanced accuracy of {best.name}", *accuracies, evidence.view(truth), galaxies)


def _correction_against_gold(evidence: Evidence, definition: str, truth: LabelSet) -> Iterator[Check]:
    """Fractions of the estimate against gold labels, unless it was made with these."""
    quoted = evidence.quoted
    if evidence.view(truth).known.sum() < _FEWEST_GOLD:
        return
    about = evidence.estimate.about
    own = about.get("definition") or about.get("gold_definition")
    if evidence.from_gold and truth.name != TRUTH and definition == own:
        return
    by_gold, labelled = (evidence.in_bins(labels)[0][:-1] for labels in (truth, evidence.observed))
    off, before, error = map(rms, (quoted.fraction - by_gold, labelled - by_gold, quoted.stderr))
    what = f"corrected {evidence.quantity.name}s in {by_gold.size} bins"
    yield from _fractions_compared(what, off, before, error, evidence.view(truth))


def _numbers(ours: float, theirs: float, error: float, truth: LabelSet) -> str:
    """Return the numbers of a comparison with gold labels as text."""
    known = f"the {truth.name} of {int(truth.known.sum()):,} galaxies"
    return f"{ours:.3f}, observed labels {theirs:.3f}, error of the difference {error:.3f}, against {known}"


def _fractions_compared(what: str, off: float, before: float, error: float, truth: LabelSet) -> Iterator[Check]:
    """Errors of fractions against those of the observed ones, by two errors of the difference."""
    numbers = _numbers(off, before, error, truth)
    if before - off < -2 * error:
        text = f"The {what} are farther from the gold labels than the observed ones are."
        action = "Do not use this correction for this definition; estimate T(α) with these gold labels (`gold`)."
        yield Finding("fractions-worse", "problem", f"{text} Error (rms): {numbers}.", action)
    elif before - off <= 2 * error:
        text = f"The {what} are not significantly nearer to the gold labels."
        action = "Use more gold labels (`gold`), or more galaxies to train on."
        yield Finding("fractions-not-better", "caution", f"{text} Error (rms): {numbers}.", action)
    elif off >= _SMALL:
        text = f"The {what} are nearer to the gold labels than the observed ones are, but off by {_SMALL} or more."
        action = "Quote this error with the fractions, or estimate T(α) with gold labels (`gold`)."
        yield Finding("fractions-inaccurate", "caution", f"{text} Error (rms): {numbers}.", action)
    elif np.isfinite(off):
        yield f"Error of the {what} (rms)", numbers


def _labels_compared(
    what: str, own: float, before: float, error: float, truth: LabelSet, galaxies: bool
) -> Iterator[Check]:
    """Labels against the observed ones, by two errors; of a model that knows `galaxies`, or class fractions only."""
    numbers = _numbers(own, before, error, truth)
    if own - before < -2 * error:
        text = "The model's labels agree less with the gold labels than the observed labels do."
        action = "Do not use these labels; check T(α) (`transition`), or train for more epochs, or on more galaxies."
        worse = Finding("labels-worse", "problem", f"{text} {what}: {numbers}.", action)
        action = "Use its class fractions and probabilities instead of its labels."
        yield worse if galaxies else replace(worse, severity="caution", action=action)
    elif own - before <= 2 * error:
        text = "The model's labels agree with the gold labels about as often as the observed labels do."
        action = "Use more gold labels (`gold`), or more galaxies to train on."
        yield Finding("labels-not-better", "caution", f"{text} {what}: {numbers}.", action)
    elif np.isfinite(own):  # else gold labels are of one class
        yield what, numbers


def _of_models(evidence: Evidence) -> Iterator[Check]:
    for model in evidence.models:
        yield from _not_labelled(evidence, model)
        yield from _one_class(evidence, model)
    for model in evidence.judged:
        if model.naive and not model.classifier.trained_on.get("gold_definition"):
            text = f"{model.title} was trained without a bias curve, so it treats the observed labels as correct."
            yield Finding("labels-treated-as-correct", "caution", text, "Train with a bias curve (`transition`).")
        yield from model.contradictions or _predicted_labels(evidence, model)
        yield from _drift(evidence, model)
        if not model.naive:
            yield from _against_estimate(evidence, model)
        if model.best.kind == "posterior" and model.classifier.uses_images:
            text = (
                f"The posterior of {model.title} treats image and label as independent. They are not, because "
                "whoever labelled these galaxies saw the same pixels as the network, so it is slightly overconfident."
            )
            yield Finding("posterior-overconfident", "note", text)


def _one_class(evidence: Evidence, model: Model) -> Iterator[Finding]:
    """Whether a model gives nearly all galaxies one class, or nearly all to which the question applies one answer."""
    p = model.probabilities.probabilities[evidence.rows]
    classes, applies = np.array(evidence.classes), evidence.quantity.counted > 0
    for of, where in ((np.ones_like(applies), ""), (applies, f" where {evidence.question} applies")):
        inside = p[p[:, of].sum(axis=1) > 0.5][:, of]
        share = np.bincount(inside.argmax(axis=1), minlength=of.sum()) / max(len(inside), 1)
        most = share.argmax()
        if findings := list(nearly_one_class(model.title, share[most], f"{classes[of][most]}{where}")):
            yield from findings
            return


def _not_labelled(evidence: Evidence, model: Model) -> Iterator[Finding]:
    """Whether many galaxies have no class probability by a model."""
    missing = evidence.left_out.get(model.name, 0)
    fraction = missing / (missing + evidence.rows.size)
    if fraction > _SMALL:
        text = (
            f"{missing:,} galaxies ({fraction:.0%}) have no class probability by {model.title} and are left out "
            "here: no readable image, no value of a feature, or a label that its only member was trained on."
        )
        yield Finding("rows-not-labelled", "caution", text, "Check why they are missing; train with `folds` 2 or more.")


def _predicted_labels(evidence: Evidence, model: Model) -> Iterator[Check]:
    """Whether class probabilities and T(α) together predict the observed labels, beyond what chance alone gives."""
    seen, voted = evidence.predicted(model), evidence.voted()
    finite = np.isfinite(seen) & np.isfinite(voted)
    if not finite.any():
        return
    variance = seen * (1 - seen) if evidence.asked is None else (seen - voted) ** 2  # of a single label, or of votes
    chance, scatter = chance_calibration_error(seen[finite], variance[finite])
    off = calibration_error(voted, seen)
    beyond = np.sqrt(off**2 - chance**2) if off > chance + 2 * scatter else 0.0
    what = f"Observed labels as {model.title} predicts them through T(α)"
    numbers = f"calibration error {off:.3f} (by chance {chance:.3f} ± {scatter:.3f})"
    if beyond < _SMALL / 2:
        yield what, numbers
    elif beyond < 1.5 * _SMALL:
        text = f"{what}: {numbers}. Its probabilities and T(α) together describe the labels only roughly."
        action = "Train for more epochs, on more galaxies, or through a T(α) of these labels (`transition`)."
        yield Finding("labels-poorly-predicted", "caution", text, action)
    else:
        text = f"{what}: {numbers}. Its probabilities and T(α) together do not describe the labels of these galaxies."
        action = (
            "Check that it was trained through their T(α) (`transition`), on galaxies not selected by their votes, and "
            "on enough of them."
        )
        yield Finding("labels-not-predicted", "problem", text, action)


def _drift(evidence: Evidence, model: Model) -> Iterator[Check]:
    """Whether the drift with α falls, beyond its errors."""
    rows = evidence.row(evidence.observed), evidence.row(model.best)
    before, after = (row["excess"] for row in rows)
    if None in (before, after):
        return
    error = np.linalg.norm([row["bootstrap_std" if evidence.tree.bootstrap else "floor_std"] for row in rows])
    what = f"Drift of {model.title} with resolution ({evidence.tree.measure} above floor)"
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
        action = (
            "Check T(α) (`transition`), or give columns on which classes depend (`intrinsic`), or gold labels (`gold`)."
        )
        yield Finding("bias-remains", "caution", text, action)


def _against_estimate(evidence: Evidence, model: Model) -> Iterator[Check]:
    """The T(α) that a model was trained through against that of the estimate, by its values for the same galaxies."""
    estimate = evidence.estimate
    curves = (model.transition, estimate.transition)
    kinds = [curve.asked if isinstance(curve, TreeTransition) else None for curve in curves]
    if kinds[0] != kinds[1]:
        return
    described = zip(curves, (model.curve, estimate.about), strict=True)
    first, second = (curve.matrix(evidence.argument(curve, about)) for curve, about in described)
    differences = np.abs(first - second)
    apart = np.mean(differences[:, DISK, SMOOTH] if kinds[0] is None else differences)
    what = f"T(α) of {model.title} against that of the estimate ({estimate.curve.family}, {estimate.curve.method})"
    numbers = f"{apart:.3f} (mean absolute difference)"
    if apart < _SMALL:
        yield what, numbers
    else:
        action = "Find out which T(α) is right with gold labels (`gold`), and train through it (`transition`)."
        yield Finding("transition-differs", "caution", f"{what}: {numbers}.", action)


def _of_estimate(evidence: Evidence) -> Iterator[Check]:
    """The estimate of T(α) and of class fractions: its own findings, and whether class fractions depend on α."""
    estimate = evidence.estimate
    yield from (*evidence.of_estimate, *estimate.findings)
    if estimate.check is not None and estimate.check.checked and not estimate.check.findings:
        yield "Constant class fractions", estimate.check.statement
    if estimate.calibration.p_value >= LEVEL:
        name = f"Fit of the {estimate.curve.family} family to the {'gold ' if evidence.from_gold else ''}labels"
        yield name, f"p = {estimate.calibration.p_value:.2g} (χ² over bins)"
    if evidence.question is not None and estimate.fractions.gold_counts is not None:
        yield f"Gold labels to which {evidence.question} applies", f"{estimate.fractions.gold_counts.sum():,}"
    widths = evidence.quoted.high - evidence.quoted.low
    what = f"Range of the {evidence.quantity.name}s"
    numbers = f"{widths.mean():.2f} wide (mean over bins; up to {widths.max():.2f})"
    if widths.mean() < 2 * _SMALL:
        yield what, numbers
    elif evidence.from_gold:
        missed = any(finding.code == "gold-misses" for finding in estimate.findings)
        why, more = ("miss a class", "better") if missed else ("are few", "more")
        text = f"{what}: {numbers}, because gold labels {why}."
        yield Finding("range-wide", "note", text, f"Quote the range, or use {more} gold labels (`gold`).")
    else:
        text = f"Labels alone leave the {evidence.quantity.name}s undetermined: their range is {numbers}."
        yield Finding("fractions-undetermined", "caution", text, "Quote the range, or give gold labels (`gold`).")


def _of_sample(evidence: Evidence) -> Iterator[Check]:
    if not evidence.has_galaxies:
        return
    measured = evidence.bias[evidence.observed.name]
    limits = list[Finding]() if measured is None else [*measured.findings]
    if not evidence.options.intrinsic:
        text = "Bias is measured without intrinsic columns, so a real change of class fractions with α counts as bias."
        action = "Give columns such as luminosity, physical size and redshift (`intrinsic`)."
        limits.append(Finding("intrinsic-missing", "caution", text, action))
    else:
        yield "Bias measured at fixed intrinsic properties", ", ".join(evidence.options.intrinsic)
    for finding in limits:  # fractions from gold labels do not rest on how bias is measured
        is_note = evidence.from_gold and finding.severity == "caution"
        yield replace(finding, severity="note") if is_note else finding
