"""Other groups' answers to a question in a report: their fractions in the bins of an estimate, beside the corrected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.population import PopulationFractions
from truemorph.catalogs.other_labels import OtherLabels
from truemorph.catalogs.selected import filtered
from truemorph.plotting import ALPHA, BLUE, CYCLE, GREY, MARKERS, SKY, legend, plain_text
from truemorph.questions import Asked
from truemorph.report.figures import new_panel
from truemorph.report.measures import rows_in_bins
from truemorph.report.page import Illustration, Section, Table
from truemorph.results import number, with_error
from truemorph.tables import CatalogTable


def fractions_of_others(
    catalogue: CatalogTable, one: PopulationFractions, asked: Asked, others: Sequence[OtherLabels]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the fractions of other groups in the bins of an estimate, shape (B,), by quantity and label set.

    By majority paths, and as sums of fractions: Σ p(answer) / Σ p(the question applies).
    """
    source = str(catalogue.path or "catalogue")
    frame, _ = filtered(catalogue.frame, list(one.about["where"]), list(one.columns), source)
    inside = rows_in_bins(one, frame, source)
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in one.ratios}
    for other in others:
        for title, p in zip((other.name, f"{other.name}, fractions"), other.probabilities(frame, asked), strict=True):
            for quantity in one.quantities:
                if quantity.name in found:
                    found[quantity.name][title] = quantity.of(inside @ p)
    return found


def section_of_others(one: PopulationFractions, by: str, found: dict[str, dict[str, np.ndarray]]) -> Section:
    """Return a table and a figure of other groups' fractions beside the observed and the corrected ones."""
    titles = list(next(iter(found.values())))
    rows = []
    for name, sets in found.items():
        quoted = one.quoted[name]
        every = {"observed": quoted.labelled, **sets}
        for b in range(one.counts.size):
            shown = [f"{number(each[b])} ({number(each[b] - quoted.fraction[b], '+.3f')})" for each in every.values()]
            rows.append([name, one.bin_name(b), *shown, with_error(quoted.fraction[b], quoted.stderr[b])])
        rms = [np.sqrt(np.nanmean((each - quoted.fraction) ** 2)) for each in every.values()]
        rows.append([name, "rms difference", *map(number, rms), ""])
    note = (
        "In brackets: minus the corrected fraction. Each set is once by the majority at each gate, once as the sum of "
        "its fractions for the answer over the sum of those to which the question applies."
    )
    table = Table("Fractions", ["fraction", by, "observed labels", *titles, "corrected"], rows, note)
    figures = (_figure(one, found),) if one.edges.ndim == 1 else ()
    return Section(f"Labels of others: {one.about['question']}", figures=figures, tables=[table])


def _figure(one: PopulationFractions, found: dict[str, dict[str, np.ndarray]]) -> Illustration:
    """Draw the first quantity."""
    name, sets = next(iter(found.items()))
    quoted, x, axes = one.quoted[name], one.middles, new_panel()
    axes.fill_between(x, quoted.low, quoted.high, color=SKY, alpha=0.3, lw=0, label="95 % range")
    axes.errorbar(x, quoted.fraction, quoted.stderr, marker="D", ms=4, color=BLUE, label="corrected")
    axes.plot(x, quoted.labelled, "s--", ms=4, color=GREY, label="observed labels")
    for k, (title, values) in enumerate(sets.items()):  # of each group, dotted by majority and solid by fractions
        color = CYCLE[1 + k // 2 % (len(CYCLE) - 3)]
        axes.plot(x, values, marker=MARKERS[k % 2], ls=":-"[k % 2], ms=4, color=color, label=plain_text(title))
    axes.set(xlabel=ALPHA if one.by == "alpha" else plain_text(one.by), ylabel=name, ylim=(-0.02, 1.02))
    if one.groups:
        axes.set_xticks(x, map(plain_text, one.groups))
    legend(axes)
    data: dict[str, Any] = {one.by: x, "observed": quoted.labelled, **sets}
    data |= {"corrected": quoted.fraction, "stderr": quoted.stderr}
    caption = f"{name} by the labels of others, the observed labels, and corrected with gold labels (standard errors)."
    return Illustration(f"others_{one.about['question']}", axes.figure, caption, pl.DataFrame(data))
