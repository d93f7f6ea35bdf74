"""truemorph bias: how much class fractions change with resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.arguments import Count, Names, Rules, Seed, Table, Tables, listed, validated
from truemorph.bias.metrics import COLUMNS, FLOOR, BiasResult
from truemorph.bias.plots import plot_label_sets
from truemorph.catalogs.catalogue import classes_of, read_catalogue, rows_where
from truemorph.catalogs.label_sets import LabelSet, fractions_by, join_labels, label_sets
from truemorph.catalogs.other_labels import OtherLabels, with_other_labels
from truemorph.catalogs.paths import answer_sets, tree_of
from truemorph.catalogs.selected import lacking_values
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.io import write_json
from truemorph.progress import progress
from truemorph.report.measures import BiasTree
from truemorph.results import Result, text_facts, text_table
from truemorph.tables import missing_in, numeric_columns


@dataclass(frozen=True, repr=False)
class BiasMeasurement(Result):
    """The bias metric of every label set of a catalogue, on the same galaxies with the same bins.

    Attributes
    ----------
    measure : str
        "CV14" or "CV18".
    results : dict of str to BiasResult
        By label set.
    fractions_by_alpha : dict of str to list of float
        Fraction of each label set in fifths of α; "alpha" has the mean α of each.
    alpha : str or None
        Definition of α.
    intrinsic : tuple of str
    depth, bins : int
        Levels of the tree of intrinsic columns, and bins of α.
    galaxies, galaxies_not_selected : int
    findings : tuple of Finding
    quantity : str
        Which fraction it is, such as "disk fraction".

    Examples
    --------
    >>> from truemorph import simulate_catalogue
    >>> measured = measure_bias(simulate_catalogue(4000, gold=400), bootstrap=0)
    >>> measured.measure, sorted(measured.results)
    ('CV14', ['gold labels', 'observed labels'])
    """

    measure: str
    results: dict[str, BiasResult]
    fractions_by_alpha: dict[str, list[float]]
    alpha: str | None
    intrinsic: tuple[str, ...]
    depth: int
    bins: int
    galaxies: int
    galaxies_not_selected: int
    findings: tuple[Finding, ...]
    quantity: str

    def summary(self) -> str:
        """Return the values and the fractions by α as text."""
        used = max(one.n_objects for one in self.results.values())
        cut = f"{self.bins} bins of α" if self.depth == 0 else f"{2**self.depth} leaves × {self.bins} bins of α"
        fixed = f" at fixed {', '.join(self.intrinsic)}" if self.intrinsic else ""
        facts = [
            (self.measure, f"change of class fractions with α{fixed}; {used:,} galaxies in {cut}"),
            ("floor", FLOOR),
        ]
        fractions = dict(self.fractions_by_alpha)
        header = [f"{self.quantity} at α =", *(f"{value:.1f}" for value in fractions.pop("alpha"))]
        rows = [[name, *(f"{value:.3f}" for value in values)] for name, values in fractions.items()]
        return "\n".join(
            [
                *text_facts([*facts, ("α", self.alpha or "definition not known")]),
                "",
                *text_table(COLUMNS, [one.cells(name) for name, one in self.results.items()]),
                "",
                *text_table(header, rows),
            ]
        )

    def to_table(self) -> Any:
        """Return a table with one row per label set."""
        from astropy.table import vstack

        table = vstack([one.to_table() for one in self.results.values()])
        table.add_column(list(self.results), name="labels", index=0)
        table["labels"].info.description = "label set"
        return table

    def plot(self, ax: Any = None) -> Any:
        """Draw the fraction of each label set against α; returns matplotlib axes."""
        return plot_label_sets(self.measure, self.results, self.fractions_by_alpha, self.quantity, ax)


@validated
def measure_bias(
    catalogue: Table,
    *,
    labels: Tables = (),
    intrinsic: Names = (),
    bins: int | None = None,
    depth: int | None = None,
    where: Rules = (),
    bootstrap: Count = 100,
    question: str | None = None,
    out: Path | None = None,
    seed: Seed = 0,
) -> BiasMeasurement:
    """Measure how much class fractions change with resolution (bias metrics CV14, CV18).

    Every label set of the catalogue (observed labels, gold labels, a model's labels) is measured on the same galaxies
    with the same bins: CV18 if intrinsic columns are given, otherwise CV14.

    Example: truemorph bias cat.parquet --labels labels.parquet --intrinsic radius_kpc,M_r,redshift

    Parameters
    ----------
    catalogue : path or table
        Prepared catalogue.
    labels : path or table, optional
        Labels of a model, from truemorph label. Of a question, tables of other groups' answers, such as debiased votes
        or predictions of Zoobot, with the columns that a tree names (repeatable).
    intrinsic : sequence of str
        Columns of intrinsic properties for CV18, comma-separated.
    bins : int, optional
        Number of bins of α; default: as many as possible with 25 galaxies in each.
    depth : int, optional
        Levels of the tree of intrinsic columns; default: as many as possible with 25 galaxies in each bin.
    where : sequence of str
        Select galaxies: COLUMN=VALUE, or SQL such as "petroMag_r < 17" (repeatable).
    bootstrap : int
        Number of bootstrap resamples for the error.
    question : str, optional
        Question of the catalogue's decision tree, such as bar, whose answers are measured, of the galaxies on whose
        majority path it was asked; default smooth or disk.
    out : path, optional
        Write the result here (.json).
    seed : int
        Random seed.

    Returns
    -------
    BiasMeasurement

    Raises
    ------
    InputError
        If a column is absent or there are too few galaxies.

    Examples
    --------
    >>> from truemorph import simulate_catalogue
    >>> measured = measure_bias(simulate_catalogue(2000), bootstrap=0)
    >>> measured.measure, bool(measured.results["observed labels"].excess > 0.1)
    ('CV14', True)
    """
    table = read_catalogue(catalogue)
    source = str(table.path or "catalogue")
    if "alpha" in intrinsic:
        raise InputError(
            "alpha is not an intrinsic property (`intrinsic`): name columns such as radius_kpc, M_r, redshift"
        )
    if out is not None and out.suffix != ".json":
        raise InputError(f"{out}: the result is written as JSON; choose a name that ends in .json")
    if depth is not None and not intrinsic:
        raise InputError("`depth` is the depth of a tree of intrinsic columns; name these columns too (`intrinsic`)")
    given, others, unlabelled = listed(labels), list[OtherLabels](), list[Finding]()
    if question is not None:
        table, others = with_other_labels(table, tree_of(table, question), question, given)
    elif len(given) > 1:
        raise InputError("`labels` takes one table of a model's labels; measure others apart")
    frame = table.frame
    if question is None and given:
        frame, unlabelled = join_labels(table, given[0])
    everything = frame.height
    chosen, sentinels = rows_where(frame, where, source)
    frame = frame.filter(pl.Series(chosen))
    columns = numeric_columns(frame, intrinsic, source) if intrinsic else None
    sentinels += missing_in(frame, intrinsic, source)
    selected, lacking = frame.height, []
    if columns is not None:  # all numbers are of the same galaxies
        complete = np.isfinite(columns)
        lacking = lacking_values(complete, intrinsic)
        rows = complete.all(axis=1)
        if not rows.any():
            raise InputError(f"{source}: no galaxy has a value in all of {', '.join(intrinsic)}")
        frame, columns = frame.filter(pl.Series(rows)), columns[rows]
    noted, defined = table.findings, table.metadata.get("alpha")
    alpha = frame["alpha"].to_numpy()
    if question is None:
        classes = classes_of(table)
        sets, shown, quantity = label_sets(frame, classes), None, f"{classes[1]} fraction"
    else:
        sets, shown = answer_sets(frame, tree_of(table, question), question, others)
        quantity = "fraction" if len(shown) > len(sets) else f"{shown[0].model} fraction"
    del table, frame  # the other columns of a large catalogue
    tree = BiasTree.fitting(alpha, columns, bootstrap, seed, depth, bins)
    results, too_few = {}, []
    with progress(len(sets), "measuring bias", "label sets") as bar:
        for one in sets:
            try:
                results[one.name] = tree.metric(one.values)
            except InputError as problem:
                if one.known.all() or len(sets) == 1:  # then the tree is wrong for all galaxies
                    raise
                too_few.append(_not_measured(one, problem))
            bar.update(1)
    measured = BiasMeasurement(
        measure=tree.measure,
        results=results,
        fractions_by_alpha=_fractions_by_alpha(alpha, sets if shown is None else shown),
        alpha=defined,
        intrinsic=tuple(intrinsic),
        depth=tree.depth,
        bins=tree.bins,
        galaxies=alpha.size,
        galaxies_not_selected=everything - selected,
        findings=unique(noted, unlabelled, sentinels, lacking, _of_label_sets(results), too_few),
        quantity=quantity,
    )
    if out is not None:
        write_json(out, measured.to_dict())
    return measured


def _fractions_by_alpha(alpha: np.ndarray, sets: Sequence[LabelSet]) -> dict[str, list[float]]:
    """Return the fraction of every label set in fifths of α, and the mean α of each."""
    table = fractions_by(alpha, sets)
    by_set = {one.name: table.filter(labels=one.name) for one in sets}
    means = next(iter(by_set.values()))["mean"].to_list()
    return {"alpha": means} | {name: own["fraction"].to_list() for name, own in by_set.items()}


def _not_measured(labels: LabelSet, problem: InputError) -> Finding:
    """Say why a label set that is known for a part of the galaxies could not be measured."""
    message = f"{labels.name}: {labels.known.sum():,} are too few for this tree, so they were not measured ({problem})."
    action = "Use fewer bins (`bins`), a smaller tree (`depth`), or more such labels."
    return Finding("labels-too-few", "caution", message, action)


def _of_label_sets(results: dict[str, BiasResult]) -> list[Finding]:
    """Return the findings of all label sets, with the name of the label set unless all share it."""
    found = []
    without_columns = min(one.n_dropped for one in results.values())
    for name, result in results.items():
        for one in result.findings:
            if not (one.code == "rows-left-out" and result.n_dropped == without_columns):
                shared = all(one in other.findings for other in results.values())
                found.append(one if shared else replace(one, message=f"{name}: {one.message}"))
    return found
