"""A model on another survey: whether its galaxies are like those of training, and their class fractions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from truemorph.bias.prior import HeldOut, certainty, reestimated_fractions
from truemorph.classifiers.classifier import Classifier
from truemorph.classifiers.held_out import BEYOND, Comparison, held_out_galaxies
from truemorph.findings import Finding
from truemorph.io import plain
from truemorph.labelling.output import UNLIKE, Counts
from truemorph.questions import Head, fraction_names
from truemorph.results import number, text_table, with_error
from truemorph.tables import CatalogTable

FALSE_ALARM = 0.01  # probability of the finding for galaxies like those of training
ASSUMED = "galaxies of a class look as in training, p(x | y), and only class fractions differ (Saerens et al. 2002)"
_SHOWN = 3
# Error above which a re-estimated fraction is not determined.
_LARGEST_ERROR = 0.5
_OF_ESTIMATE = ("estimate", "estimate_stderr", "estimate_low", "estimate_high")
# Least part of an estimate's galaxies that are labelled, so that its fractions are theirs.
_MOST_LABELLED = 0.95
# Standard errors of a finding; least logarithms of factors that matter.
_SIGNIFICANT, _NOT_CALIBRATED, _OTHER_CERTAINTY = 2.58, 0.1, 0.05
# Part of the variance of classes that p(y | x) explains if something was learned.
_LEARNED = 0.02


def unlike_training(comparison: Comparison | None, counts: Counts) -> Iterator[Finding]:
    """Return a finding if more galaxies than chance explains are unlike held-out training galaxies."""
    how = {name.removeprefix(f"{UNLIKE} "): number for name, number in counts.items() if name.startswith(UNLIKE)}
    beyond, labelled = sum(how.values()), counts["labelled"]
    if comparison is None or comparison.chance(beyond, labelled) > FALSE_ALARM:
        return
    most = sorted(how, key=lambda way: (-how[way], way))[:_SHOWN]
    message = (
        f"{beyond:,} of {labelled:,} galaxies ({beyond / labelled:.1%}) are unlike training galaxies: beyond a limit "
        f"that {BEYOND:.0%} of held-out ones exceed. They differ most in "
        f"{', '.join(f'{way} ({how[way] / beyond:.0%})' for way in most)}. Class fractions from p(y | x) may be wrong, "
        "also if re-estimated."
    )
    action = (
        f"Look at some of them (column {UNLIKE}), check that images have the bands, stretch and scale of training, and "
        "correct fractions with gold labels of this survey."
    )
    yield Finding("unlike-training", "caution", message, action)


def _is_own(curve: Mapping[str, Any], catalogue: CatalogTable | None, labelled: int) -> bool:
    """Whether the galaxies of a catalogue are those of an estimate that a model was trained through."""
    galaxies = curve.get("galaxies") or 0
    if catalogue is None or not _MOST_LABELLED * galaxies <= labelled <= galaxies:
        return False
    from truemorph.catalogs.selected import rows_hash  # with all of estimates, which take a second to import

    return bool(curve.get("rows_sha256") == rows_hash(catalogue, curve.get("where", ())))


def _estimated(head: Head, curve: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Return what an estimate says of the classes of a model, by name: value, error, lowest and highest value.

    The error is None if it rests on an assumption (labels alone).
    """
    from truemorph.bias.result import FittedCurve  # scipy's optimiser takes a second

    if head.asked is not None:
        # A ratio of one answer to all; the first of those that are equal.
        quoted = curve.get("fractions", {}).get("quantities", {}).values()
        ratios = [quantity for quantity in quoted if quantity["denominator"]]
        totals = {tuple(fraction["numerator"]): fraction["total"][1:5] for fraction in reversed(ratios)}
        every = np.eye(len(head.asked.answers)).tolist()
        of_classes = ((k, tuple(every[head.asked.answers_of_classes[k]])) for k in head.numbers)
        return {
            f"{head.classes[k]} if {head.question} applies": totals[numerator]
            for k, numerator in of_classes
            if numerator in totals
        }
    if len(head.classes) != 2 or "log_likelihood" not in curve:  # a curve that was given is no estimate
        return {}
    estimated = FittedCurve.from_dict(curve)
    [error] = (estimated.stderr[name] for name in fraction_names(head.classes))
    stderr = error if estimated.method == "gold" else None
    values = zip(head.columns, estimated.class_fractions.tolist(), estimated.ranges.tolist(), strict=True)
    return {name: [value, stderr, *ends] for name, value, ends in values}


def class_fractions(
    model: Classifier, p: np.ndarray, catalogue: CatalogTable | None, labelled: int, curves: Sequence[Mapping[str, Any]]
) -> tuple[tuple[dict[str, Any], ...], list[Finding]]:
    """Return the fraction of each class, with findings: the mean of p(y | x), (N, K), and others with their errors.

    These are re-estimated ones, and those of estimates (`curves`, if none those that the model was trained through)
    if the `labelled` galaxies of the `catalogue` are their own. Of a question also those of its answers if it applies.
    The mean has no error: how far training and calibration are off is not known. Re-estimated fractions have one only
    if those of training rest on gold labels.
    """
    rows, findings = list[dict[str, Any]](), list[Finding]()
    for head, curve, quoted in zip(model.heads, model.curves, curves or model.curves, strict=True):
        mine, every = p[:, head.part], tuple(range(len(head.classes)))
        mean, held_out = mine.mean(axis=0), held_out_galaxies(model, head.columns)
        again, covariance = np.full(mean.size, np.nan), np.full((mean.size, mean.size), np.nan)
        if held_out is not None:
            again, covariance = reestimated_fractions(mine, held_out)
            findings += calibration_findings(mine, again, held_out)
        if mine.var(axis=0).sum() < _LEARNED * (mean * (1 - mean)).sum():
            message = (
                f"p(y | x) hardly varies from image to image (standard deviation {mine.std(axis=0).max():.3f}), so its "
                "mean is a fraction of the training galaxies, and says nothing of these."
            )
            action = "Train longer (`epochs`, `patience`) or on more or better images; use fractions of an estimate."
            findings.append(Finding("nothing-learned", "caution", message, action))
        ratios = [(name, k, every) for k, name in enumerate(head.columns)]
        if head.question is not None:
            ratios += [(f"{head.classes[k]} if {head.question} applies", k, head.numbers) for k in head.numbers]
        estimates = _estimated(head, curve)
        stated = _estimated(head, quoted) if _is_own(quoted, catalogue, labelled) else {}
        for name, k, among in ratios:
            inside = np.isin(np.arange(again.size), among)
            whole = max(again[inside].sum(), 1e-300)
            # Propagated through the derivatives of the ratio again[k] / whole by each fraction.
            slope = (np.eye(again.size)[k] - again[k] / whole * inside) / whole
            value, error = again[k] / whole, np.sqrt(np.fmax(slope @ covariance @ slope, 0.0))
            if not error <= _LARGEST_ERROR:  # p(y | x) that hardly depends on x says nothing of other class fractions
                value = np.nan
            trained, of_trained, *_ = estimates.get(name, [None] * 4)
            if trained is not None and of_trained is not None:  # the logit is off as that of training
                error = np.hypot(error, of_trained * value * (1 - value) / max(trained * (1 - trained), 1e-9))
            elif not model.trained_on.get("gold_definition"):  # trained through a T(α) whose errors are not known
                error = np.nan
            row = {
                "class": name,
                "mean": mean[k] / max(mean[inside].sum(), 1e-300),
                "reestimated": value,
                "reestimated_stderr": error,
            }
            rows.append(plain(row | dict(zip(_OF_ESTIMATE, stated.get(name, [None] * 4), strict=True))))
    weights = None if catalogue is None else catalogue.frame.get_column("sampling_weight", default=None)
    is_plain = weights is None or weights.n_unique() == 1  # otherwise the mean p is not of the same population
    return tuple(rows), findings + (_disagreement(rows) if is_plain else [])


def calibration_findings(p: np.ndarray, fractions: np.ndarray, held_out: HeldOut) -> Iterator[Finding]:
    """Return findings if p(y | x) is not calibrated on held-out galaxies, or is as sure as no held-out galaxies are."""
    factor, error = held_out.sharpness()
    if abs(factor) > max(_SIGNIFICANT * error, _NOT_CALIBRATED):
        message = (
            "p(y | x) is not calibrated: by held-out galaxies, its logits should be "
            f"{np.exp(factor):.2f} ± {np.exp(factor) * error:.2f} times as large. Re-estimated fractions allow for "
            "this, p(y | x) itself does not."
        )
        action = "Train on more galaxies, or with a preset that calibrates, such as quick (`preset`)."
        yield Finding("not-calibrated", "caution", message, action)
    ratio, error = certainty(p, fractions, held_out)
    if abs(ratio - 1) > _SIGNIFICANT * error and abs(np.log(ratio)) > _OTHER_CERTAINTY:
        message = (
            f"The model is {ratio:.2f} times as sure of these galaxies (mean log-odds) as other class fractions alone "
            "explain. So their images differ otherwise, and re-estimated fractions are wrong by more than their error."
        )
        action = "Correct fractions with gold labels of these galaxies."
        yield Finding("certainty-differs", "caution", message, action)


def _disagreement(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return a finding where a mean of p(y | x) is outside the range of an estimate of these galaxies."""
    apart = [row for row in rows if row["estimate"] is not None]
    apart = [row for row in apart if not row["estimate_low"] <= row["mean"] <= row["estimate_high"]]
    if not apart:
        return []
    listed = "; ".join(
        f"{row['class']} {row['mean']:.3f}, by the estimate {row['estimate_low']:.3f} to {row['estimate_high']:.3f}"
        for row in apart
    )
    message = f"The mean of p(y | x) disagrees with the estimate of these galaxies: {listed}."
    action = "Use the fractions of the estimate; train longer, or on more galaxies."
    return [Finding("fractions-disagree", "caution", message, action)]


def fractions_told(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of class fractions."""
    if not rows:
        return []
    cells = [
        [
            row["class"],
            number(row["mean"]),
            with_error(row["estimate"], row["estimate_stderr"]),
            *map(number, (row["estimate_low"], row["estimate_high"])),
            with_error(row["reestimated"], row["reestimated_stderr"]),
        ]
        for row in rows
    ]
    header = ["class", "mean p", "estimate", "lowest", "highest", "re-estimated"]
    return [*text_table(header, cells), f"re-estimated: if {ASSUMED}"]
