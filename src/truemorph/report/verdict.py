"""The answer in a sentence, and every reason to trust it or not, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from truemorph.bias.calibration import LEVEL
from truemorph.bias.diagnostics import ConfoundingCheck
from truemorph.bias.fractions import debiased_fractions
from truemorph.bias.metrics import MINIMUM_PER_BIN
from truemorph.bias.transitions import CLASS_NAMES, DISK
from truemorph.report.evidence import Evidence, ModelLabels
from truemorph.report.measures import LabelSet, accuracy_gain, fraction_gain, fractions_by
from truemorph.report.page import Check, Status

# Of class fractions, which people quote to two digits.
_SMALL = 0.05
_ONE_CLASS = 0.97
# Ways to T(α) that take class fractions to be the same at every α.
_ASSUMES_FLAT = ("likelihood", "binned")
_STATUS: dict[str, Status] = {"problem": "bad", "caution": "care", "note": "note"}


def answer(found: Evidence) -> str:
    """What came out, in one paragraph with numbers."""
    first, last = found.ends(found.crowd)
    sentences = [
        f"As people labelled them, the disk fraction {_course(first, last)} in the least resolved fifth to {last:.2f} "
        f"in the best resolved fifth of {found.which}."
    ]
    model = found.principal
    if model is not None:
        best, hard = model.posterior or model.probabilities, model.posterior or model.labels
        low, high = found.ends(best)
        sentences.append(
            f"By the {'posterior' if model.posterior else 'probabilities'} of {model.name} it goes from {low:.2f} to "
            f"{high:.2f}; {moved_words(found.row(hard))}."
        )
        before, after = found.row(found.crowd), found.row(model.probabilities)
        if before["excess"] is not None and after["excess"] is not None:
            sentences.append(
                f"{found.tree.measure} above sampling noise: {before['excess']:.3f} for people's labels, "
                f"{after['excess']:.3f} for the model's probabilities."
            )
        for definition in found.truths:
            rms, accuracy = f"fraction_rms: {definition}", f"balanced_accuracy: {definition}"
            own, crowd = found.row(best)[rms], before[rms]
            if own is None or crowd is None:
                continue
            text = (
                f"Against {truth_words(definition)} its disk fractions are wrong by {own:.3f} (rms over fifths of α), "
                f"people's by {crowd:.3f}"
            )
            if before[accuracy] is not None:
                text += (
                    f"; {'its labels' if hard is model.labels else 'labels after it'} reach a balanced accuracy of "
                    f"{found.row(hard)[accuracy]:.2f}, people's {before[accuracy]:.2f}"
                )
            sentences.append(text + ".")
    elif found.study is not None:
        fractions = found.study.fractions
        disk = fractions.fractions[:, DISK]
        sentences.append(
            f"Inverted through the fitted T(α) it goes from {disk[0]:.2f} ± {fractions.stderr[0, DISK]:.2f} to "
            f"{disk[-1]:.2f} ± {fractions.stderr[-1, DISK]:.2f} over {len(disk)} bins of {fractions.by}."
        )
    return " ".join(sentences)


def _course(first: float, last: float) -> str:
    verb = "stays at" if f"{first:.2f}" == f"{last:.2f}" else "rises from" if last > first else "falls from"
    return f"{verb} {first:.2f}"


def moved_words(row: dict[str, float]) -> str:
    """How many galaxies change class."""
    known, to_disk, to_smooth = (int(row[name] or 0) for name in ("galaxies", "to_disk", "to_smooth"))
    text = f"{to_disk:,} of {known:,} galaxies ({to_disk / max(known, 1):.0%}) change from smooth to disk"
    return text + (f", {to_smooth:,} from disk to smooth" if to_smooth else ", none the other way")


def truth_words(definition: str) -> str:
    """A definition as part of a sentence."""
    return f"the catalogue's {definition}" if definition.startswith("column ") else f"the truth ({definition})"


def checks(found: Evidence, extra: Sequence[Check] = ()) -> list[Check]:
    """Every check, problems first."""
    every = [*_of_truth(found), *_of_models(found), *_of_transition(found), *_of_sample(found), *extra]
    return sorted(every, key=lambda one: ("bad", "care", "good", "note").index(one.status))


def verdict(every: Sequence[Check]) -> Check:
    """All checks in one."""
    n_bad, n_care = (sum(one.status == status for one in every) for status in ("bad", "care"))
    if n_bad:
        return Check("bad", f"Don't rely on this correction yet: {_points(n_bad)} below {_says(n_bad)} against it.")
    if n_care:
        return Check(
            "care", f"Usable with care: no check failed, {_points(n_care)} below {_asks(n_care)} your judgement."
        )
    return Check("good", "No check failed.")


def _points(n: int) -> str:
    return "one point" if n == 1 else f"{n} points"


def _says(n: int) -> str:
    return "speaks" if n == 1 else "speak"


def _asks(n: int) -> str:
    return "asks for" if n == 1 else "ask for"


def _judged(found: Evidence) -> list[ModelLabels]:
    """Models that are to correct something; naive ones too where there are no others."""
    return [one for one in found.models if not one.naive] or list(found.models)


def _of_truth(found: Evidence) -> list[Check]:
    """Whether a correction brings labels and class fractions nearer to the truth, by each definition of a disk."""
    out = []
    for definition, truth in found.truths.items():
        for model in _judged(found):
            out += _nearer(found, model, definition, truth)
        if not found.models:
            out += _population_against(found, definition, truth)
    if len(found.truths) > 1:
        out.append(Check("note", "What counts as a disk decides: results are given by each definition of it."))
    if not found.truths:
        out.append(
            Check("care", "No galaxy's true class is known here: what is said of bias rests on assumptions alone.")
        )
    return out


def _nearer(found: Evidence, model: ModelLabels, definition: str, truth: LabelSet) -> list[Check]:
    """Fractions and labels of a model against people's, on the galaxies whose class is known, with errors."""
    rows = truth.known & model.probabilities.known
    if not rows.any():
        return []
    best, hard = model.posterior or model.probabilities, model.posterior or model.labels
    right, against = truth.disk[rows], f"against {truth_words(definition)} of {int(rows.sum()):,} galaxies"
    gain, error = fraction_gain(right, best.disk[rows], found.crowd.disk[rows], found.alpha[rows])
    own, crowd = (found.row(one)[f"fraction_rms: {definition}"] for one in (best, found.crowd))
    numbers = (
        f"the disk fractions of {best.name} are wrong by {own:.3f} (rms over fifths of α), people's by {crowd:.3f} "
        f"(error of the difference {error:.3f}), {against}"
    )
    out = [_gained(gain, error, "Nearer to the truth", "Farther from the truth than people's labels", numbers,
                   own < _SMALL)]  # fmt: skip
    gain, error = accuracy_gain(right.astype(np.int64), hard.labels[rows], found.crowd.labels[rows])
    if np.isfinite(gain):
        own, crowd = (found.row(one)[f"balanced_accuracy: {definition}"] for one in (hard, found.crowd))
        numbers = (
            f"balanced accuracy {own:.3f} for labels by {hard.name}, {crowd:.3f} for people's (error of the difference "
            f"{error:.3f}), {against}"
        )
        out.append(_gained(gain, error, "Labels are better", "Labels are worse than people's", numbers, True))
    return out


def _gained(gain: float, error: float, better: str, worse: str, numbers: str, good: bool) -> Check:
    """A comparison with people's labels: by more than two errors, or not."""
    if gain > 2 * error:
        return Check("good" if good else "care", f"{better}: {numbers}.")
    if gain < -2 * error:
        return Check("bad", f"{worse}: {numbers}.")
    return Check("care", f"No better and no worse than people's labels within the error: {numbers}.")


def _population_against(found: Evidence, definition: str, truth: LabelSet) -> list[Check]:
    """Without a model: the labels of galaxies of known class inverted through T, against their classes."""
    if found.study is None:
        return []
    rows = truth.known
    right, alpha, labels = truth.disk[rows], found.alpha[rows], found.crowd.labels[rows]
    bins = min(8, int(rows.sum()) // 50)
    if bins < 2:
        return []
    fractions = debiased_fractions(labels, alpha, found.study.fit.transition, bins=bins)
    index = np.clip(np.searchsorted(fractions.edges[1:-1], alpha, side="right"), 0, bins - 1)
    true, crowd = (np.bincount(index, one, bins) / np.bincount(index, minlength=bins) for one in (right, labels))
    after, before = (float(np.sqrt(np.mean((one - true) ** 2))) for one in (fractions.fractions[:, DISK], crowd))
    error = float(np.sqrt(np.mean(fractions.stderr[:, DISK] ** 2)))
    numbers = (
        f"inverted through T(α), disk fractions are wrong by {after:.3f} (rms over {bins} bins of α), people's by "
        f"{before:.3f}, against {truth_words(definition)} of {int(rows.sum()):,} galaxies; statistical error "
        f"{error:.3f}"
    )
    return [_gained(before - after, error / 2, "Nearer to the truth", "Farther from the truth than people's labels",
                    numbers, after < _SMALL)]  # fmt: skip


def _of_models(found: Evidence) -> list[Check]:
    out = []
    for model in found.models:
        missing = found.left_out.get(model.name, 0)
        if missing:
            share = missing / (missing + found.frame.height)
            out.append(
                Check(
                    "care" if share > _SMALL else "note",
                    f"{model.name} says nothing of {missing:,} galaxies ({share:.0%}), which are left out here: no "
                    "image, an image or a value that can't be read, or a galaxy that its only member was trained on.",
                )
            )
        labels = model.labels.labels[model.labels.known]
        if labels.size and max(labels.mean(), 1 - labels.mean()) > _ONE_CLASS:
            name = CLASS_NAMES[round(labels.mean())]
            out.append(
                Check(
                    "care",
                    f"{model.name} calls {max(labels.mean(), 1 - labels.mean()):.0%} of the galaxies {name}: its "
                    "labels say little, only its probabilities do. It may have been trained too briefly, or what it "
                    "sees says too little.",
                )
            )
    for model in _judged(found):
        if model.naive:
            out.append(Check("care", f"{model.name} takes labels at their word: it corrects nothing."))
        out += [_of_calibration(found, model), *_of_bias(found, model)]
        if not model.naive:
            out += [*_against_fit(found, model), *_against_inversion(found, model)]
        if model.posterior is not None and model.sees_images:
            out.append(
                Check(
                    "note",
                    f"The posterior of {model.name} takes picture and label for two independent witnesses; people saw "
                    "the same pixels as the network, so it is somewhat too sure.",
                )
            )
    return out


def _of_calibration(found: Evidence, model: ModelLabels) -> Check:
    """Whether p(disk) and T(α) together predict people's labels, beyond what chance alone gives."""
    off, chance, scatter = found.crowd_calibration_error(model)
    beyond = float(np.sqrt(off**2 - chance**2)) if off > chance + 2 * scatter else 0.0
    distance = f"{off:.3f} (mean distance of probability and frequency; by chance {chance:.3f} ± {scatter:.3f})"
    if beyond < 1.5 * _SMALL:
        return Check(
            "good" if beyond < _SMALL / 2 else "care",
            f"Seen through its T(α), {model.name} predicts how people label to {distance}: p(disk) and T(α) together "
            "fit what was observed. That alone can't tell them apart.",
        )
    return Check(
        "bad",
        f"Seen through its T(α), {model.name} does not predict how people label these galaxies: it is off by "
        f"{distance}. It may have been trained on galaxies chosen by their votes, or through a wrong T(α).",
    )


def _of_bias(found: Evidence, model: ModelLabels) -> list[Check]:
    """Whether the drift with α falls, beyond its errors."""
    rows = found.row(found.crowd), found.row(model.probabilities)
    if any(row["excess"] is None for row in rows):
        return []
    before, after = (row["excess"] for row in rows)
    errors = [row["bootstrap_std"] if found.tree.bootstrap else row["floor_std"] for row in rows]
    error = float(np.linalg.norm(errors))
    numbers = f"{before:.3f} for people's labels, {after:.3f} with {model.name} (error of the difference {error:.3f})"
    measure = f"{found.tree.measure} above noise"
    if before - after > 2 * error:
        return [Check("good" if after < before / 2 else "care", f"{measure} falls: {numbers}.")]
    if after - before > 2 * error:
        return [Check("bad", f"{measure} rises: {numbers}.")]
    return [Check("care", f"{measure} does not change beyond its error: {numbers}.")]


def _against_fit(found: Evidence, model: ModelLabels) -> list[Check]:
    """The T(α) that a model was trained through, beside the one fitted to these labels."""
    if found.study is None:
        return []
    own, fitted = (
        np.asarray(one.flip_probability(found.alpha)) for one in (model.transition, found.study.fit.transition)
    )
    apart = float(np.mean(np.abs(own - fitted)))
    return [
        Check(
            "good" if apart < _SMALL else "care",
            f"The flip probabilities that {model.name} was trained through and those fitted to these labels here "
            f"({found.study.fit.family}, {found.study.fit.method}) differ by {apart:.3f} (mean over galaxies).",
        )
    ]


def _against_inversion(found: Evidence, model: ModelLabels) -> list[Check]:
    """Two ways to the same fractions: the model's probabilities, and the crowd's labels inverted through T."""
    study = found.study
    if study is None or study.fractions.by != "alpha" or study.fractions.counts.size < 2:
        return []
    fractions = study.fractions
    own = fractions_by(found.alpha, [model.probabilities], fractions.counts.size).filter(pl.col("galaxies") > 0)
    at = np.interp(own["mean"].to_numpy(), fractions.middles, fractions.fractions[:, DISK])
    error = np.interp(own["mean"].to_numpy(), fractions.middles, fractions.stderr[:, DISK])
    apart = float(np.sqrt(np.nanmean((own["disk_fraction"].to_numpy() - at) ** 2)))
    noise = float(np.sqrt(np.mean(error**2 + own["stderr"].to_numpy() ** 2)))
    beyond = float(np.sqrt(max(0.0, apart**2 - noise**2)))
    return [
        Check(
            "good" if beyond < _SMALL else "care",
            f"Mean p(disk) of {model.name} and people's labels inverted through the T(α) fitted here differ by "
            f"{apart:.3f} over bins of α; their errors allow {noise:.3f}.",
        )
    ]


def _of_transition(found: Evidence) -> list[Check]:
    study = found.study
    if study is None:
        return []
    check, fit = study.check, study.fit
    trusted = [_by_truth(definition, one, fit.method) for definition, one in found.confounding.items()]
    out: list[Check] = list(trusted)
    if check.checked or not trusted:
        status: Status = "care"
        if check.checked and not check.confounded:
            status = "good"
        elif check.checked and (check.unexplained or fit.method in _ASSUMES_FLAT):
            status = "bad"
        out.append(Check(status, _sentence(check.statement)))
    shown_otherwise = ("fractions-drift", "family-rejected")
    out += [
        Check(_STATUS[one.severity], f"{one.message} {one.action}".strip())
        for one in study.findings
        if one.code not in shown_otherwise
    ]
    p_value = study.calibration.p_value
    out.append(
        Check(
            "good" if p_value >= LEVEL else "care",
            f"The {fit.family} curve fitted here {'agrees with' if p_value >= LEVEL else 'departs from'} the labels "
            f"(χ² over bins of the fitted probability, p = {p_value:.2g}).",
        )
    )
    fractions = study.fractions
    widths = fractions.high[:, DISK] - fractions.low[:, DISK]
    width = float(np.average(widths, weights=fractions.counts))
    out.append(
        Check(
            "good" if width < 2 * _SMALL else "care",
            f"Other families, estimators and θ ± σ move the disk fraction inverted through T(α) by {width:.2f} from "
            f"lowest to highest, mean over bins of α (up to {widths.max():.2f} in one).",
        )
    )
    out.append(Check("note", f"T(α) rests on the assumption: {fit.assumption}. {_capital(study.about['definition'])}."))
    return out


def _by_truth(definition: str, check: ConfoundingCheck, method: str) -> Check:
    """Whether true classes depend on α, by galaxies whose class is known."""
    status: Status = "good" if not check.confounded else "bad" if method in _ASSUMES_FLAT else "care"
    return Check(status, _sentence(f"By {truth_words(definition)}: {check.statement}"))


def _of_sample(found: Evidence) -> list[Check]:
    out = []
    per_bin = found.crowd.disk.size / (2**found.tree.depth * found.tree.bins)
    if per_bin < MINIMUM_PER_BIN:
        out.append(
            Check(
                "care",
                f"{per_bin:.0f} galaxies in a bin of {found.tree.measure}: values are mostly noise, look "
                "at the excess.",
            )
        )
    if found.tree.intrinsic is None:
        out.append(
            Check(
                "care",
                "No intrinsic columns were given (`intrinsic`): a real change of class with α, because large galaxies "
                "are better resolved, say, counts as bias here.",
            )
        )
    return out


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    text = _capital(text.strip())
    return text + ("" if text.endswith(".") else ".")
