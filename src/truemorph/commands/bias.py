"""truemorph bias: how much class fractions change with resolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.arguments import Count, Names, Rules, Seed, Table, Tables, listed, validated
from truemorph.bias.metrics.label_bias import COLUMNS, FLOOR, BiasResult, Reference
from truemorph.bias.plots import plot_label_sets
from truemorph.catalogs.catalogue import classes_of, read_catalogue
from truemorph.catalogs.columns import NAMED
from truemorph.catalogs.label_sets import LabelSet, answer_sets, fractions_by, join_labels, label_sets, sets_of_others
from truemorph.catalogs.other_labels import OtherLabels, Predictions, is_of_model, with_other_labels
from truemorph.catalogs.paths import asked_of, root_of
from truemorph.catalogs.selected import filtered
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings, unique
from truemorph.io import write_json
from truemorph.progress import progress
from truemorph.questions import Asked
from truemorph.report.measures import BiasTree
from truemorph.results import Result, text_facts, text_table
from truemorph.tables import CatalogTable, numeric_columns, read_table


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
    galaxies : int
    findings : tuple of Finding
    quantity : str
        Which fraction it is, such as "disk fraction".
    observables : dict of str to str
        If others than α are measured: the best bin of each observable, "first" or "last".
    by_observable : dict of str to dict of str to BiasResult
        The metric of each of them alone, by label set; `results` are the root mean square of all.
    fractions_by_observable : dict of str to dict of str to list of float
        Fraction of each label set in fifths of each; its name has the mean of each.

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
    findings: Findings
    quantity: str
    observables: dict[str, Reference] = field(default_factory=dict)
    by_observable: dict[str, dict[str, BiasResult]] = field(default_factory=dict)
    fractions_by_observable: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @property
    def _rows(self) -> dict[str, BiasResult]:
        """Results of all observables together, and of each."""
        return self.results | {
            f"{class_name}, {name}": result
            for name, of in self.by_observable.items()
            for class_name, result in of.items()
        }

    def summary(self) -> str:
        """Return the values and the fractions by α as text."""
        used = f"{max(result.n_objects for result in self.results.values()):,}"
        named = ", ".join(["α", *(observable for observable in self.observables if observable != "alpha")])
        cut = f"{f'{2**self.depth} leaves × ' if self.depth else ''}{self.bins} bins of {named}"
        fixed = f" at fixed {', '.join(self.intrinsic)}" if self.intrinsic else ""
        facts = [
            (self.measure, f"change of class fractions with {named}{fixed}; {used} galaxies in {cut}"),
            ("floor", FLOOR),
            ("α", self.alpha or "definition not known"),
        ]
        if self.observables:
            facts.append(("best bin", ", ".join(f"{name}: {best}" for name, best in self.observables.items())))
        tables = []
        for name, of in ({"alpha": self.fractions_by_alpha} | self.fractions_by_observable).items():
            at = f"{self.quantity} at {'α' if name == 'alpha' else name} ="
            rows = [
                [class_name, *(f"{value:.3f}" for value in values)]
                for class_name, values in of.items()
                if class_name != name
            ]
            tables += ["", *text_table([at, *(f"{value:.1f}" for value in of[name])], rows)]
        overview = text_table(COLUMNS, [row.cells(name) for name, row in self._rows.items()])
        return "\n".join([*text_facts(facts), "", *overview, *tables])

    def to_table(self) -> Any:
        """Return a table with one row per label set."""
        from astropy.table import vstack

        table = vstack([row.to_table() for row in self._rows.values()])
        table.add_column(list(self._rows), name="labels", index=0)
        table["labels"].info.description = "label set"
        return table

    def draw(self, ax: Any) -> None:
        """Draw the fraction of each label set against α."""
        results = self.by_observable.get("alpha", self.results)
        plot_label_sets(self.measure, results, self.fractions_by_alpha, self.quantity, ax)


@validated
def measure_bias(
    catalogue: Table,
    *,
    labels: Tables = (),
    intrinsic: Names = (),
    observables: Names = (),
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
        Labels of a model, from truemorph label; tables of other groups' answers, such as debiased votes or predictions
        of Zoobot, with the columns that a tree names (repeatable).
    intrinsic : sequence of str
        Columns of intrinsic properties for CV18, comma-separated.
    observables : sequence of str
        Columns of the image beside α, such as surface_brightness,snr: the metric is the root mean square over all of
        them, and given for each. Where galaxies are seen best is known for truemorph's columns (surface brightness:
        the first bin; snr and depth: the last); of others say it, as in mu_max_i=first.
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
        majority path it was asked; default its first, such as smooth or disk.
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
    source = table.source
    if "alpha" in intrinsic:
        raise InputError(
            "alpha is not an intrinsic property (`intrinsic`): name columns such as radius_kpc, M_r, redshift"
        )
    if out is not None and out.suffix != ".json":
        raise InputError(f"{out}: the result is written as JSON; choose a name that ends in .json")
    if depth is not None and not intrinsic:
        raise InputError("`depth` is the depth of a tree of intrinsic columns; name these columns too (`intrinsic`)")
    seen_best: dict[str, Reference] = dict(map(_with_reference, observables))
    if twice := [column for column in seen_best if column in ("alpha", *intrinsic)]:
        raise InputError(f"`observables`: {twice[0]} is measured already, or an intrinsic column; leave it out")
    named = [*intrinsic, *seen_best]
    asked = asked_of(table, question)
    table, others = _with_labels(table, asked, listed(labels))
    frame, noted = filtered(table.frame, list(where), named, source)
    fixed, values = np.split(numeric_columns(frame, named, source), [len(intrinsic)], axis=1)
    noted = [*table.findings, *noted]
    defined = table.metadata.get("alpha")
    alpha = frame["alpha"].to_numpy()
    if asked is None:
        classes = classes_of(table)
        shown = sets = [*label_sets(frame, classes), *sets_of_others(frame, root_of(table), others, classes)]
        quantity = f"{classes[1]} fraction"
    else:
        sets, shown = answer_sets(frame, asked, others, source)
        quantity = "fraction" if len(shown) > len(sets) else f"{shown[0].model} fraction"
    del table, frame  # the other columns of a large catalogue
    tree = BiasTree.fitting(sets[0], alpha, fixed, bootstrap, seed, depth, bins)
    alone = dict[str, BiasTree]()
    if observables:
        seen_best = {"alpha": "last", **seen_best}
        every = np.column_stack([alpha, values])
        alone = {
            column: replace(tree, alpha=every[:, k], reference=seen_best[column]) for k, column in enumerate(seen_best)
        }
        tree = replace(tree, alpha=every, reference=list(seen_best.values()))
    results, by_observable, too_few = _measured(sets, tree, alone)
    measured = BiasMeasurement(
        measure=tree.measure,
        results=results,
        fractions_by_alpha=_fractions_by("alpha", alpha, shown),
        alpha=defined,
        intrinsic=tuple(intrinsic),
        depth=tree.depth,
        bins=tree.bins,
        galaxies=alpha.size,
        findings=unique(noted, _of_label_sets(results), too_few),
        quantity=quantity,
        observables=seen_best,
        by_observable=by_observable,
        fractions_by_observable={
            name: _fractions_by(name, own.alpha, shown) for name, own in alone.items() if name != "alpha"
        },
    )
    if out is not None:
        write_json(out, measured.to_dict())
    return measured


def _measured(
    sets: Sequence[LabelSet], tree: BiasTree, alone: Mapping[str, BiasTree]
) -> tuple[dict[str, BiasResult], dict[str, dict[str, BiasResult]], list[Finding]]:
    """Measure label sets, also by each of several observables; return findings about those that are too small."""
    results, too_few = dict[str, BiasResult](), list[Finding]()
    by_observable = {name: dict[str, BiasResult]() for name in alone}
    for label_set in progress(len(sets), "measuring bias", "label sets", of=sets):
        name = label_set.name
        try:
            results[name] = tree.metric(label_set.probabilities)
            for observable, own in alone.items():
                by_observable[observable][name] = own.metric(label_set.probabilities)
        except InputError as problem:
            if label_set.known.all() or len(sets) == 1:  # then the tree is wrong for all galaxies
                raise
            n = f"{label_set.known.sum():,}"
            message = f"{name}: {n} are too few for this tree, so they were not measured ({problem})."
            action = "Use fewer bins (`bins`), a smaller tree (`depth`), or more such labels."
            too_few.append(Finding("labels-too-few", "caution", message, action))
    return results, by_observable, too_few


def _with_labels(
    table: CatalogTable, asked: Asked | None, tables: Sequence[Any]
) -> tuple[CatalogTable, list[OtherLabels | Predictions]]:
    """Add a model's labels, and other groups' answers, to a catalogue; galaxies without them are left out."""
    read = [read_table(source) for source in tables]
    by_model = [answers for answers in read if is_of_model(answers)] if asked is None else []
    if len(by_model) > 1:
        raise InputError("`labels` takes one table of a model's labels; measure others apart")
    for labels_of_model in by_model:
        frame, findings = join_labels(table, labels_of_model)
        table = replace(table, frame=frame, findings=(*table.findings, *findings))
    return with_other_labels(table, asked, [answers for answers in read if answers not in by_model])


def _with_reference(observable: str) -> tuple[str, Reference]:
    """Return the name of an observable and its best bin, which is given for columns that are not truemorph's."""
    name, _, reference = observable.partition("=")
    match reference or (NAMED[name].best if name in NAMED else ""):
        case "first":
            return name, "first"
        case "last":
            return name, "last"
    raise InputError(
        f"`observables`: say where galaxies are seen best: at small values, as of magnitudes ({name}=first), or at "
        f"large ones ({name}=last)"
    )


def _fractions_by(name: str, column: np.ndarray, sets: Sequence[LabelSet]) -> dict[str, list[float]]:
    """Return the fraction of every label set in fifths of a column, and the mean of the column in each."""
    rows = fractions_by(column, sets).group_by("labels", maintain_order=True).agg("mean", "fraction").rows()
    return {name: rows[0][1]} | {of: fractions for of, _, fractions in rows}


def _of_label_sets(results: dict[str, BiasResult]) -> Iterator[Finding]:
    """Return the findings of all label sets, with the name of the label set unless all share it."""
    without_columns = min(result.n_dropped for result in results.values())
    for name, result in results.items():
        for finding in result.findings:
            if not (finding.code == "rows-left-out" and result.n_dropped == without_columns):
                shared = all(finding in other.findings for other in results.values())
                yield finding if shared else replace(finding, message=f"{name}: {finding.message}")
