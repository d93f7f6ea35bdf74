"""The answer in a sentence, and every reason to trust it or not, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from truemorph.bias.diagnostics import LEVEL
from truemorph.bias.metrics import MINIMUM_PER_BIN
from truemorph.bias.transitions import CLASS_NAMES, DISK
from truemorph.report.evidence import Evidence, ModelLabels
from truemorph.report.measures import fractions_by
from truemorph.report.page import Check

# Of class fractions, which people quote to two digits.
_SMALL = 0.05
_ONE_CLASS = 0.97


def answer(found: Evidence) -> str:
    """What came out, in one paragraph with numbers."""
    first, last = found.ends(found.crowd)
    verb = "rises" if last > first else "falls"
    sentences = [
        f"As people labelled them, the disk fraction {verb} from {first:.2f} in the least resolved fifth to {last:.2f} "
        f"in the best resolved fifth of {found.which}."
    ]
    model = found.principal
    if model is not None:
        best = model.posterior or model.probabilities
        low, high = found.ends(best)
        moved, counted = found.row(best), found.row(model.posterior or model.labels)
        sentences.append(
            f"By the {'posterior' if model.posterior else 'probabilities'} of {model.name} it goes from {low:.2f} to "
            f"{high:.2f}; {moved_words(counted)}."
        )
        before, after = found.row(found.crowd), found.row(model.probabilities)
        sentences.append(
            f"{found.tree.measure} above sampling noise: {before['excess']:.3f} for people's labels, "
            f"{after['excess']:.3f} for the model's probabilities."
        )
        for definition in found.truths:
            key = f"balanced_accuracy: {definition}"
            own, crowd = counted[key], before[key]
            if own is not None and crowd is not None:
                reaches = "it reaches" if model.posterior else "its labels reach"
                sentences.append(
                    f"Against {truth_words(definition)} {reaches} a balanced "
                    f"accuracy of {own:.2f}, people's labels {crowd:.2f}; its disk fractions are wrong by "
                    f"{moved[f'fraction_rms: {definition}']:.3f} (rms over fifths of α), people's by "
                    f"{before[f'fraction_rms: {definition}']:.3f}."
                )
    elif found.study is not None:
        fractions = found.study.fractions
        disk = fractions.fractions[:, DISK]
        sentences.append(
            f"Inverted through the fitted T(α) it goes from {disk[0]:.2f} ± {fractions.stderr[0, DISK]:.2f} to "
            f"{disk[-1]:.2f} ± {fractions.stderr[-1, DISK]:.2f} over {len(disk)} bins of {fractions.by}."
        )
    return " ".join(sentences)


def moved_words(row: dict[str, float]) -> str:
    """How many galaxies change class."""
    known, to_disk, to_smooth = (int(row[name] or 0) for name in ("galaxies", "to_disk", "to_smooth"))
    text = f"{to_disk:,} of {known:,} galaxies ({to_disk / max(known, 1):.0%}) change from smooth to disk"
    return text + (f", {to_smooth:,} from disk to smooth" if to_smooth else ", none the other way")


def truth_words(definition: str) -> str:
    """A definition as part of a sentence."""
    return definition if definition.startswith("column ") else f"the truth ({definition})"


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


def _of_truth(found: Evidence) -> list[Check]:
    """Whether a correction brings class fractions nearer to the truth, by each definition of a disk."""
    out = []
    for definition, truth in found.truths.items():
        key = f"fraction_rms: {definition}"
        crowd = found.row(found.crowd)[key]
        for model in found.models:
            own = found.row(model.probabilities)[key]
            if own is None or crowd is None or model.naive:
                continue
            numbers = (
                f"the disk fractions of {model.name} are wrong by {own:.3f} (rms over fifths of α), people's by "
                f"{crowd:.3f}, against {truth_words(definition)} of {int(truth.known.sum()):,} galaxies"
            )
            if own < crowd:
                out.append(Check("good" if own < _SMALL else "care", f"Nearer to the truth: {numbers}."))
            else:
                out.append(Check("bad", f"Farther from the truth than people's labels: {numbers}."))
        if not found.models and found.study is not None:
            out += _population_against(found, definition)
    if len(found.truths) > 1:
        out.append(Check("note", "What counts as a disk decides: results are given by each definition of it."))
    if not found.truths:
        out.append(
            Check(
                "care", "No galaxy's true class is known here: what is said below of bias rests on assumptions alone."
            )
        )
    return out


def _population_against(found: Evidence, definition: str) -> list[Check]:
    """Without a model: fractions inverted through T against true ones, in the bins of the inversion."""
    study = found.study
    if study is None or study.fractions.by != "alpha":
        return []
    fractions = study.fractions
    index = np.clip(np.searchsorted(fractions.edges[1:-1], found.alpha, side="right"), 0, fractions.counts.size - 1)
    truth = found.truths[definition]
    own, crowd = [], []
    for number in range(fractions.counts.size):
        rows = (index == number) & truth.known
        if rows.any():
            right = truth.disk[rows].mean()
            own.append(fractions.fractions[number, DISK] - right)
            crowd.append(found.crowd.disk[rows].mean() - right)
    if not own:
        return []
    after, before = (float(np.sqrt(np.mean(np.square(one)))) for one in (own, crowd))
    text = (
        f"inverted through T(α), disk fractions are wrong by {after:.3f}, people's by {before:.3f}, against "
        + truth_words(definition)
    )
    if after < before:
        return [Check("good" if after < _SMALL else "care", f"Nearer to the truth: {text}.")]
    return [Check("bad", f"Farther from the truth than people's labels: {text}.")]


def _of_models(found: Evidence) -> list[Check]:
    out = []
    for model in found.models:
        n = int(model.probabilities.known.sum())
        if n < found.frame.height:
            out.append(
                Check(
                    "note",
                    f"{model.name} says nothing of {found.frame.height - n:,} of {found.frame.height:,} galaxies (no "
                    "image, an image or a value that can't be read, or a galaxy that its only member was trained on).",
                )
            )
        labels = model.labels.labels[model.labels.known]
        if labels.size and max(labels.mean(), 1 - labels.mean()) > _ONE_CLASS:
            name = CLASS_NAMES[round(labels.mean())]
            out.append(
                Check(
                    "care",
                    f"{model.name} calls {max(labels.mean(), 1 - labels.mean()):.0%} of the galaxies {name}: its "
                    "labels say little, only its probabilities do. It may have been trained too "
                    "briefly, or the pictures show too little.",
                )
            )
        if model.naive:
            continue
        off = found.crowd_miscalibration(model)
        distance = f"{off:.3f} (mean distance of probability and frequency)"
        if off < 1.5 * _SMALL:
            out.append(
                Check(
                    "good" if off < _SMALL / 2 else "care",
                    f"Seen through its T(α), {model.name} predicts how people label to {distance}: p(disk) and T(α) "
                    "together fit what was observed. That alone can't tell them apart.",
                )
            )
        else:
            out.append(
                Check(
                    "bad",
                    f"Seen through its T(α), {model.name} does not predict how people label these galaxies: it "
                    f"is off by {distance}. It may have been trained on galaxies chosen by their votes, or through a "
                    "wrong T(α).",
                )
            )
        out.append(_of_bias(found, model))
        out += _against_inversion(found, model)
        if model.posterior is not None and model.sees_images:
            out.append(
                Check(
                    "note",
                    f"The posterior of {model.name} takes picture and label for two independent witnesses; people saw "
                    "the same pixels as the network, so it is somewhat too sure.",
                )
            )
    return out


def _of_bias(found: Evidence, model: ModelLabels) -> Check:
    """Whether the drift with α falls, beyond its errors."""
    rows = found.row(found.crowd), found.row(model.probabilities)
    before, after = (row["excess"] for row in rows)
    errors = [row["bootstrap_std"] if found.tree.bootstrap else row["floor_std"] for row in rows]
    error = float(np.linalg.norm(errors))
    numbers = f"{before:.3f} for people's labels, {after:.3f} with {model.name} (error of the difference {error:.3f})"
    measure = f"{found.tree.measure} above noise"
    if before - after > 2 * error:
        return Check("good" if after < before / 2 else "care", f"{measure} falls: {numbers}.")
    if after - before > 2 * error:
        return Check("bad", f"{measure} rises: {numbers}.")
    return Check("care", f"{measure} does not change beyond its error: {numbers}.")


def _against_inversion(found: Evidence, model: ModelLabels) -> list[Check]:
    """Two ways to the same fractions: the model's probabilities, and the crowd's labels inverted through T."""
    study = found.study
    if study is None or study.fractions.by != "alpha" or study.fractions.counts.size < 2:
        return []
    fractions = study.fractions
    own = fractions_by(found.alpha, [model.probabilities], fractions.counts.size)
    at = np.interp(own["mean"].to_numpy(), fractions.middles, fractions.fractions[:, DISK])
    error = np.interp(own["mean"].to_numpy(), fractions.middles, fractions.stderr[:, DISK])
    apart = float(np.sqrt(np.nanmean((own["disk_fraction"].to_numpy() - at) ** 2)))
    noise = float(np.sqrt(np.mean(error**2 + own["stderr"].to_numpy() ** 2)))
    beyond = float(np.sqrt(max(0.0, apart**2 - noise**2)))
    return [
        Check(
            "good" if beyond < _SMALL else "care",
            f"Mean p(disk) of {model.name} and people's labels inverted through T(α) differ by {apart:.3f} over bins "
            f"of α; their errors allow {noise:.3f}.",
        )
    ]


def _of_transition(found: Evidence) -> list[Check]:
    study = found.study
    if study is None:
        return []
    out = []
    check, fit = study.check, study.fit
    status = "care"
    if check.checked and not check.confounded:
        status = "good"
    elif check.checked and (check.unexplained or fit.method in ("likelihood", "binned")):
        status = "bad"
    out.append(Check(status, _sentence(check.statement)))  # type: ignore[arg-type]
    said = {check.statement}
    for text in study.described["warnings"]:
        if text not in said:
            out.append(Check("care", _sentence(text)))
            said.add(text)
    p_value = study.calibration.p_value
    out.append(
        Check(
            "good" if p_value >= LEVEL else "care",
            f"The {fit.family} curve {'agrees with' if p_value >= LEVEL else 'departs from'} the labels "
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
    out.append(
        Check("note", f"T(α) rests on the assumption: {fit.assumption}. {_capital(study.described['definition'])}.")
    )
    return out


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
                "No intrinsic columns were given (--intrinsic): a real change of class with α, because large galaxies "
                "are better resolved, say, counts as bias here.",
            )
        )
    return out


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    text = _capital(text.strip())
    return text + ("" if text.endswith(".") else ".")
