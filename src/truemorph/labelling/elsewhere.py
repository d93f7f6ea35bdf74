"""A model on another survey: whether its galaxies are like those of training, and their class fractions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from truemorph.bias.prior import reestimated_fractions
from truemorph.classifiers.classifier import Classifier
from truemorph.classifiers.held_out import BEYOND, Comparison, training_fractions
from truemorph.findings import Finding
from truemorph.labelling.output import UNLIKE, Counts
from truemorph.results import text_table

FALSE_ALARM = 0.01  # probability of the finding for galaxies like those of training
ASSUMED = "galaxies of a class look as in training, p(x | y), and only class fractions differ (Saerens et al. 2002)"
_SHOWN = 3
_LARGEST_ERROR = 0.5


def unlike_training(comparison: Comparison | None, counts: Counts) -> list[Finding]:
    """Return a finding if more galaxies than chance explains are unlike held-out training galaxies."""
    how = {one.removeprefix(f"{UNLIKE} "): number for one, number in counts.items() if one.startswith(UNLIKE)}
    beyond, labelled = sum(how.values()), counts["labelled"]
    if comparison is None or comparison.chance(beyond, labelled) > FALSE_ALARM:
        return []
    most = sorted(how, key=lambda one: (-how[one], one))[:_SHOWN]
    message = (
        f"{beyond:,} of {labelled:,} galaxies ({beyond / labelled:.1%}) are unlike training galaxies: beyond a limit "
        f"that {BEYOND:.0%} of held-out ones exceed. They differ most in "
        f"{', '.join(f'{one} ({how[one] / beyond:.0%})' for one in most)}. Class fractions from p(y | x) may be wrong, "
        "also if re-estimated."
    )
    action = (
        f"Look at some of them (column {UNLIKE}), check that images have the bands, stretch and scale of training, and "
        "correct fractions with gold labels of this survey."
    )
    return [Finding("unlike-training", "caution", message, action)]


def class_fractions(model: Classifier, p: np.ndarray) -> tuple[dict[str, Any], ...]:
    """Return the fraction of each class by the mean of p(y | x), (N, K), and re-estimated, with standard errors.

    Of a question also those of its answers if it applies.
    """
    rows = []
    for head in model.heads:
        own, every = p[:, head.part], list(range(len(head.classes)))
        scatter = (own - own.mean(axis=0)) / len(own)
        kinds = {"mean": (own.mean(axis=0), scatter.T @ scatter)}
        kinds["reestimated"] = reestimated_fractions(own, *training_fractions(model, head.columns))
        ratios = [(name, k, every) for k, name in enumerate(head.columns)]
        if head.question is not None:
            ratios += [(f"{head.classes[k]} if {head.question} applies", k, head.numbers) for k in head.numbers]
        for name, k, among in ratios:
            row: dict[str, Any] = {"class": name}
            for kind, (found, covariance) in kinds.items():
                # Propagated through the derivatives of the ratio found[k] / whole by each fraction.
                whole = max(found[among].sum(), 1e-300)
                slope = (np.eye(found.size)[k] - found[k] / whole * np.isin(every, among)) / whole
                error = np.sqrt(max(slope @ covariance @ slope, 0.0))
                row |= {kind: float(found[k] / whole), f"{kind}_stderr": float(error)}
            rows.append(row)
    return tuple(rows)


def fractions_told(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of class fractions."""

    def cell(value: float, error: float) -> str:
        # p(y | x) that hardly depends on x says nothing of other class fractions.
        return f"{value:.3f} ± {error:.3f}" if error < _LARGEST_ERROR else "not determined"

    kinds = ("mean", "reestimated")
    cells = [[one["class"], *(cell(one[kind], one[f"{kind}_stderr"]) for kind in kinds)] for one in rows]
    return [*text_table(["class", "mean p", "re-estimated"], cells), f"re-estimated: if {ASSUMED}"] if rows else []
