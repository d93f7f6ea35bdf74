"""Runs, labels and truths of a report, joined galaxy by galaxy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.bias.families import COMPARED
from truemorph.bias.likelihood import posterior
from truemorph.bias.study import TransitionStudy, study_transition
from truemorph.bias.transitions import CLASS_NAMES, DISK
from truemorph.catalogs.catalogue import gold_classes, read_catalogue, rows_where
from truemorph.catalogs.sampling import TEST
from truemorph.catalogs.selected import select_rows
from truemorph.classifiers.checkpoint import Classifier, load
from truemorph.errors import InputError, nearest
from truemorph.findings import Finding
from truemorph.io import read_toml
from truemorph.labelling.label import label_table
from truemorph.labelling.labeller import IN_SAMPLE
from truemorph.report.evidence import Evidence, ModelLabels, is_naive
from truemorph.report.gallery import AFTER, CHANGE, OURS, PICTURE, TRUE, changes
from truemorph.report.measures import LabelSet, Tree
from truemorph.report.options import ReportOptions
from truemorph.report.runs import Run, read_run, unique_names
from truemorph.tables import CatalogTable, numeric_columns, read_table

ENOUGH_TO_TEST = 1000
UNSTATED = "column gold"
_FEWEST = 10


@dataclass(frozen=True)
class Subject:
    """A model in the report.

    Attributes
    ----------
    name : str
    model : Classifier
    run : Run or None
        How it was trained, where that is known.
    catalogue : Path or None
        On what.
    said : polars.DataFrame or None
        Its labels.
    """

    name: str
    model: Classifier
    run: Run | None
    catalogue: Path | None
    said: pl.DataFrame | None = None


@dataclass(frozen=True)
class Gathered:
    """Everything a report is made of.

    Attributes
    ----------
    path : Path
        Of the catalogue.
    catalogue : CatalogTable
    subjects : sequence of Subject
    evidence : Evidence
        On the galaxies that are measured.
    everything : polars.DataFrame
        All galaxies of the catalogue, with ids as text, and under names that begin with `truemorph:` what each model
        says (`OURS` + "p0", "posterior0", "quality0", …), and true classes by name.
    findings : sequence of Finding
        Of reading and joining; those of the fit of T(α) are in `evidence.study`.
    """

    path: Path
    catalogue: CatalogTable
    subjects: Sequence[Subject]
    evidence: Evidence
    everything: pl.DataFrame
    findings: Sequence[Finding]

    @property
    def with_images(self) -> list[Subject]:
        """Models that see pictures."""
        return [one for one in self.subjects if one.model.uses_images]


def gather(sources: Sequence[Path], options: ReportOptions, files: Path) -> Gathered:
    """Read runs and catalogue, label what isn't labelled, and measure.

    Parameters
    ----------
    sources : sequence of Path
    options : ReportOptions
    files : Path
        Folder for labels that are made.

    Raises
    ------
    InputError
        If a source is not one, runs and catalogue don't go together, or a column is absent.
    """
    subjects = _subjects(sources)
    path = Path(options.catalogue or _catalogue_of(subjects))
    catalogue = read_catalogue(path)
    frame = catalogue.frame.with_columns(pl.col("object_id").cast(pl.String))
    frame = frame.drop([name for name in frame.columns if name.startswith(OURS)])
    # Before hours of labelling, not after.
    truths, findings = _truths(frame, catalogue, options, str(path))
    columns = _columns(frame, options, str(path))
    rows, which = _measured(frame, options, str(path), bool(subjects))
    if options.intrinsic or options.distributions:
        numeric_columns(frame, [*options.intrinsic, *options.distributions], str(path))
    if options.better is not None and not options.better.is_dir():
        raise InputError(f"{options.better}: no such folder of better images (files named <object id>.jpg)")
    _check_names(subjects, columns)

    subjects = [_labelled(one, path, frame, options, files) for one in subjects]
    left_out = {}
    for number, one in enumerate(subjects):
        frame = _joined(frame, one, number)
        left_out[one.name] = int(np.isnan(_values(frame, f"p{number}")[rows]).sum())
    # Every label set on the same galaxies: those of which all models say something.
    known = np.all([np.isfinite(_values(frame, f"p{number}")[rows]) for number in range(len(subjects))], axis=0)
    rows = rows[np.broadcast_to(known, rows.shape)]
    if rows.size < _FEWEST:
        raise InputError(
            f"{path}: {rows.size} galaxies to measure on have a label by every model, at least {_FEWEST} are needed "
            "(galaxies that a model's only member was trained on have none: train with `folds` 2 or more)"
        )
    if any(left_out.values()):
        which = f"{rows.size:,} of {which}"
    models = [
        ModelLabels.of(
            one.name,
            one.model.transition,
            _values(frame, f"p{number}")[rows],
            _values(frame, f"posterior{number}")[rows],
            one.model.uses_images,
        )
        for number, one in enumerate(subjects)
    ]
    intrinsic = numeric_columns(frame[rows], options.intrinsic, str(path)) if options.intrinsic else None
    study, unfitted = _study(catalogue, subjects, options)
    findings += unfitted
    evidence = Evidence(
        frame[rows],
        models,
        [one.of(rows) for one in columns],
        {name: one.of(rows) for name, one in truths.items() if one.of(rows).known.any()},
        options.intrinsic,
        Tree.fitting(frame["alpha"].to_numpy()[rows], intrinsic, options.bootstrap, options.seed),
        study,
        which,
        left_out,
    )
    return Gathered(path, catalogue, subjects, evidence, _with_changes(frame, evidence, subjects, truths), findings)


def _study(
    catalogue: CatalogTable, subjects: Sequence[Subject], options: ReportOptions
) -> tuple[TransitionStudy | None, list[Finding]]:
    """T(α) fitted to the catalogue, of the family that the last debiased model has; or why that can't be."""
    families = [one.model.transition.family for one in subjects if not is_naive(one.model.transition)]
    family = families[-1] if families and families[-1] in COMPARED else COMPARED[0]
    try:
        rows = select_rows(catalogue, options.where, options.intrinsic)
        # The report compares with gold labels; that this fit does without them is its purpose.
        rows = replace(rows, findings=tuple(one for one in rows.findings if one.code != "gold-unused"))
        study = study_transition(
            rows.labels,
            rows.alpha,
            family,
            **rows.for_study(),
            seed=options.seed,
        )
        return study, []
    except InputError as problem:
        return None, [
            Finding(
                "fit-failed",
                "caution",
                f"T(α) could not be fitted to these labels, so nothing was checked with it: {problem}.",
                "Use more galaxies, or correct what this message names.",
            )
        ]


def _check_names(subjects: Sequence[Subject], columns: Sequence[LabelSet]) -> None:
    names = ["crowd", "truth", *(one.name for one in subjects), *(one.name for one in columns)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice!r} names two things in this report; rename a run's folder, or what `also` calls it")


def _subjects(sources: Sequence[Path]) -> list[Subject]:
    subjects = []
    names = [name.removesuffix(".json") for name in unique_names(sources)]
    if len(set(names)) < len(names):
        names = [str(source) for source in sources]
    for name, source in zip(names, sources, strict=True):
        run = read_run(source) if (source / "history.csv").is_file() else None
        subjects.append(Subject(name, load(source), run, _trained_on(source)))
    return subjects


def _trained_on(source: Path) -> Path | None:
    """The catalogue that a run folder names."""
    try:
        named = read_toml(source / "run.toml").get("catalogue")
    except InputError:
        return None
    return None if named is None else Path(named)


def _catalogue_of(subjects: Sequence[Subject]) -> Path:
    """The catalogue that the first run was trained on."""
    for one in subjects:
        if one.catalogue is not None:
            if not one.catalogue.is_file():
                raise InputError(f"{one.catalogue}: the catalogue of run {one.name} is not there; give `catalogue`")
            return one.catalogue
    raise InputError("no run says which catalogue it was trained on; give one with `catalogue`")


def _labelled(one: Subject, path: Path, frame: pl.DataFrame, options: ReportOptions, files: Path) -> Subject:
    """With the model's labels of the catalogue: those given, those of an earlier report, or new ones."""
    kept = files / "labels" / f"{one.name.replace(os.sep, '_')}.parquet"
    for candidate in (*options.labels, kept):
        if candidate is kept and not kept.is_file():
            continue
        table = read_table(candidate)
        if table.metadata.get("model_hash") != one.model.model_hash or "p_disk" not in table.frame.columns:
            continue
        ids = table.frame["object_id"].cast(pl.String)
        if candidate is not kept or kept.stat().st_mtime > path.stat().st_mtime:
            if not ids.is_in(frame["object_id"].implode()).any():
                raise InputError(f"{candidate}: labels none of the galaxies of {path}")
            return replace(one, said=table.frame)
    kept.parent.mkdir(parents=True, exist_ok=True)
    label_table(one.model, path, kept, max_bad=1.0)
    return replace(one, said=read_table(kept).frame)


def _joined(frame: pl.DataFrame, one: Subject, number: int) -> pl.DataFrame:
    """With p(disk) of a model; and posterior and label quality from it, this catalogue's labels and the model's T(α).

    Empty where the model was trained on the galaxy's label.
    """
    assert one.said is not None
    p, relation = f"{OURS}p{number}", f"{OURS}relation{number}"
    wanted = {"p_disk": p, "relation": relation, "p_spread": f"{OURS}spread{number}"}
    said = one.said.select(
        pl.col("object_id").cast(pl.String),
        *(pl.col(name).alias(to) for name, to in wanted.items() if name in one.said.columns),
    )
    joined = frame.join(said, on="object_id", how="left", maintain_order="left")
    if relation in joined.columns:
        joined = joined.with_columns(pl.when(pl.col(relation) == IN_SAMPLE).then(None).otherwise(pl.col(p)).alias(p))
    disk, labels = _values(joined, f"p{number}"), joined["label"].to_numpy()
    known = np.isfinite(disk)
    after, quality = np.full(disk.size, np.nan), np.full(disk.size, np.nan)
    if known.any():
        given = np.column_stack([1 - disk[known], disk[known]])
        found = posterior(given, labels[known], joined["alpha"].to_numpy()[known], one.model.transition)
        after[known], quality[known] = found[:, DISK], found[np.arange(len(found)), labels[known]]
    return joined.with_columns(
        pl.Series(f"{OURS}posterior{number}", after).fill_nan(None),
        pl.Series(f"{OURS}quality{number}", quality).fill_nan(None),
    )


def _values(frame: pl.DataFrame, name: str) -> np.ndarray:
    """A column of ours as floats, NaN where empty."""
    return frame[OURS + name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _measured(frame: pl.DataFrame, options: ReportOptions, source: str, models: bool) -> tuple[np.ndarray, str]:
    """Rows to measure on, and what they are called."""
    chosen = rows_where(frame, options.where, source)
    if not chosen.any():
        raise InputError(f"{source}: no galaxy meets {' and '.join(options.where)}")
    test = chosen & (frame["split"] == TEST).to_numpy()
    on_test = options.rows == "test" or (options.rows == "auto" and models and test.sum() >= ENOUGH_TO_TEST)
    rows = np.flatnonzero(test if on_test else chosen)
    if rows.size == 0:
        raise InputError(f"{source}: no test galaxies to measure on; use `rows` all")
    which = f"{rows.size:,} {'test galaxies' if on_test else 'galaxies'}"
    return rows, which + (f" ({' and '.join(options.where)})" if options.where else "")


def _truths(
    frame: pl.DataFrame, catalogue: CatalogTable, options: ReportOptions, source: str
) -> tuple[dict[str, LabelSet], list[Finding]]:
    """Return gold classes by definition of a disk, and findings about them."""
    rules, findings = list(options.gold), []
    if not rules and "gold" in frame.columns:
        rules = ["gold"]
    out = {}
    for rule in rules:
        classes, definition = gold_classes(frame, rule, source)
        if rule == "gold":
            definition = str(catalogue.metadata.get("gold_definition") or UNSTATED)
            definition = UNSTATED if definition.startswith("not stated") else definition
        if not (classes >= 0).any():
            findings.append(
                Finding(
                    "gold-empty",
                    "caution",
                    f"No galaxy has a gold label by {rule}, so nothing is compared with it.",
                    "Check the column or rule (`gold`).",
                )
            )
            continue
        name = "gold labels" if definition == UNSTATED else f"gold labels, {definition}"
        out[definition] = LabelSet(name, "truth", np.where(classes < 0, np.nan, classes).astype(np.float64))
    return out, findings


def _columns(frame: pl.DataFrame, options: ReportOptions, source: str) -> list[LabelSet]:
    """Labels that the catalogue brings."""
    out = []
    for given in options.also:
        name, equals, column = (part.strip() for part in given.partition("="))
        if not equals or not name or not column:
            raise InputError(f"`also` takes NAME=COLUMN, such as Hart2016=debiased_disk_fraction; got {given!r}")
        if column not in frame.columns:
            raise InputError(f"{source}: no column {column!r} for `also`; {nearest(column, frame.columns)}")
        values = numeric_columns(frame, [column], source)[:, 0]
        if np.any((values < 0) | (values > 1)):
            raise InputError(f"{source}: `also` takes labels or disk fractions, 0 to 1; {column} has others")
        out.append(LabelSet(name, "column", values))
    return out


def _with_changes(
    frame: pl.DataFrame, evidence: Evidence, subjects: Sequence[Subject], truths: dict[str, LabelSet]
) -> pl.DataFrame:
    """With what the principal model makes of each galaxy, and true classes in words."""
    principal = evidence.principal
    after = np.full(frame.height, np.nan)
    if principal is not None:
        number = next(k for k, one in enumerate(subjects) if one.name == principal.name)
        p = _values(frame, f"p{number}")
        after = p if principal.naive else _values(frame, f"posterior{number}")
        frame = frame.with_columns(pl.Series(PICTURE, p).fill_nan(None))
    changed = changes(frame["label"].to_numpy(), after)
    frame = frame.with_columns(pl.Series(AFTER, after), pl.Series(CHANGE, changed, dtype=pl.String))
    for number, one in enumerate(truths.values()):
        if number == 0:
            frame = frame.with_columns(pl.Series(TRUE, one.labels).replace(-1, None))
        words = [None if k < 0 else CLASS_NAMES[k] for k in one.labels]
        frame = frame.with_columns(pl.Series(OURS + one.name, words, dtype=pl.String))
    return frame
