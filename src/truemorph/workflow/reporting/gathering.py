"""Runs, labels and truths of a report, joined galaxy by galaxy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.bias.transitions import CLASS_NAMES
from truemorph.catalogs.catalogue import read_catalogue, rows_where, trusted_classes
from truemorph.catalogs.sampling import TEST
from truemorph.catalogs.schema import nearest, numeric_columns
from truemorph.catalogs.tables import CatalogTable, read_table
from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError
from truemorph.labelling.labeller import IN_SAMPLE
from truemorph.labelling.predict import label_table
from truemorph.report.evidence import Evidence, ModelLabels
from truemorph.report.gallery import changes
from truemorph.report.measures import LabelSet, Tree
from truemorph.report.runs import Run, read_run, unique_names
from truemorph.workflow.fitting import study_transition
from truemorph.workflow.labelling import labelling_model
from truemorph.workflow.reporting.options import ReportOptions

ENOUGH_TO_TEST = 1000
UNSTATED = "column truth"


@dataclass(frozen=True)
class Subject:
    """A model in the report.

    Attributes
    ----------
    name : str
    model : Classifier
    run : Run or None
        How it was trained, where that is known.
    said : polars.DataFrame or None
        Its labels.
    """

    name: str
    model: Classifier
    run: Run | None
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
        All galaxies of the catalogue, with ids as text, and for model k `_p<k>`, `_posterior<k>`, `_quality<k>`;
        `after` and `p_of_picture` (p(disk) of the principal model), `change`, `true_class`, and a column for each
        definition of a disk.
    rows : array of int
        Which of them are measured.
    """

    path: Path
    catalogue: CatalogTable
    subjects: Sequence[Subject]
    evidence: Evidence
    everything: pl.DataFrame
    rows: np.ndarray

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
    path = options.catalogue or _catalogue_of(subjects)
    catalogue = read_catalogue(path)
    frame = catalogue.frame.with_columns(pl.col("object_id").cast(pl.String))
    # Before hours of labelling, not after.
    truths = _truths(frame, catalogue, options, str(path))
    columns = _columns(frame, options, str(path))
    rows, which = _measured(frame, options, str(path), bool(subjects))
    if options.intrinsic or options.compare:
        numeric_columns(frame, [*options.intrinsic, *options.compare], str(path))
    if options.better is not None and not options.better.is_dir():
        raise InputError(f"{options.better}: no such folder of better images (files named <object id>.jpg)")

    subjects = [_labelled(one, path, frame, options, files) for one in subjects]
    for number, one in enumerate(subjects):
        frame = _joined(frame, one, number)
    models = [
        ModelLabels.of(
            one.name,
            one.model.transition,
            _values(frame, f"_p{number}")[rows],
            _values(frame, f"_posterior{number}")[rows],
            one.model.uses_images,
        )
        for number, one in enumerate(subjects)
    ]
    intrinsic = numeric_columns(frame[rows], options.intrinsic, str(path)) if options.intrinsic else None
    evidence = Evidence(
        frame[rows],
        models,
        [one.of(rows) for one in columns],
        {name: one.of(rows) for name, one in truths.items()},
        options.intrinsic,
        Tree.fitting(frame["alpha"].to_numpy()[rows], intrinsic, options.bootstrap, options.seed),
        study_transition(catalogue, intrinsic=options.intrinsic, where=options.where, seed=options.seed),
        which,
    )
    return Gathered(path, catalogue, subjects, evidence, _with_changes(frame, evidence, subjects, truths), rows)


def _subjects(sources: Sequence[Path]) -> list[Subject]:
    subjects = []
    for name, source in zip(unique_names(sources), sources, strict=True):
        run = read_run(source) if (source / "history.csv").is_file() else None
        subjects.append(Subject(name.removesuffix(".json"), labelling_model(source), run))
    return subjects


def _catalogue_of(subjects: Sequence[Subject]) -> Path:
    """The catalogue that the first run was trained on."""
    for one in subjects:
        if one.run is not None and one.run.settings.get("catalogue"):
            path = Path(one.run.settings["catalogue"])
            if not path.is_file():
                raise InputError(f"{path}: the catalogue of run {one.name} is not there; give it with --catalogue")
            return path
    raise InputError("no run says which catalogue it was trained on; give one with --catalogue")


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
        if candidate is not kept or set(ids) == set(frame["object_id"]):
            if not ids.is_in(frame["object_id"].implode()).any():
                raise InputError(f"{candidate}: labels none of the galaxies of {path}")
            return replace(one, said=table.frame)
    kept.parent.mkdir(parents=True, exist_ok=True)
    label_table(one.model, path, kept, max_bad=1.0)
    return replace(one, said=read_table(kept).frame)


def _joined(frame: pl.DataFrame, one: Subject, number: int) -> pl.DataFrame:
    """With p(disk), posterior and label quality of a model; empty where it was trained on the galaxy's label."""
    assert one.said is not None
    wanted = {
        "p_disk": f"_p{number}", "posterior_disk": f"_posterior{number}", "label_quality": f"_quality{number}",
        "relation": f"_relation{number}",
    }  # fmt: skip
    said = one.said.select(
        pl.col("object_id").cast(pl.String),
        *(pl.col(name).alias(to) for name, to in wanted.items() if name in one.said.columns),
    )
    joined = frame.join(said, on="object_id", how="left", maintain_order="left")
    memorised = pl.col(f"_relation{number}") == IN_SAMPLE
    return joined.with_columns(pl.when(memorised).then(None).otherwise(pl.col(f"_p{number}")).alias(f"_p{number}"))


def _values(frame: pl.DataFrame, name: str) -> np.ndarray:
    """A column as floats, NaN where empty; all NaN without the column."""
    if name not in frame.columns:
        return np.full(frame.height, np.nan)
    return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _measured(frame: pl.DataFrame, options: ReportOptions, source: str, models: bool) -> tuple[np.ndarray, str]:
    """Rows to measure on, and what they are called."""
    chosen = rows_where(frame, options.where, source)
    if not chosen.any():
        raise InputError(f"{source}: no galaxy meets {' and '.join(options.where)}")
    test = chosen & (frame["split"] == TEST).to_numpy()
    on_test = options.rows == "test" or (options.rows == "auto" and models and test.sum() >= ENOUGH_TO_TEST)
    rows = np.flatnonzero(test if on_test else chosen)
    if rows.size == 0:
        raise InputError(f"{source}: no test galaxies to measure on; use --rows all")
    which = f"{rows.size:,} {'test galaxies' if on_test else 'galaxies'}"
    return rows, which + (f" ({' and '.join(options.where)})" if options.where else "")


def _truths(frame: pl.DataFrame, catalogue: CatalogTable, options: ReportOptions, source: str) -> dict[str, LabelSet]:
    """True classes by definition of a disk."""
    rules = list(options.truth)
    if not rules and "truth" in frame.columns and frame["truth"].dtype.is_integer():
        rules = ["truth"]
    out = {}
    for rule in rules:
        classes, definition = trusted_classes(frame, rule, source)
        if rule == "truth":
            definition = str(catalogue.metadata.get("truth_definition") or UNSTATED)
            definition = UNSTATED if definition.startswith("not stated") else definition
        name = "truth" if definition == UNSTATED else f"truth, {definition}"
        out[definition] = LabelSet(name, "truth", np.where(classes < 0, np.nan, classes).astype(np.float64))
    return out


def _columns(frame: pl.DataFrame, options: ReportOptions, source: str) -> list[LabelSet]:
    """Labels that the catalogue brings."""
    out = []
    for given in options.also:
        name, equals, column = (part.strip() for part in given.partition("="))
        if not equals or not name or not column:
            raise InputError(f"--also takes NAME=COLUMN, such as Hart2016=debiased_disk_fraction; got {given!r}")
        if column not in frame.columns:
            raise InputError(f"{source}: no column {column!r} for --also; {nearest(column, frame.columns)}")
        values = numeric_columns(frame, [column], source)[:, 0]
        if np.any((values < 0) | (values > 1)):
            raise InputError(f"{source}: --also takes labels or disk fractions, 0 to 1; {column} has others")
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
        p, posterior = _values(frame, f"_p{number}"), _values(frame, f"_posterior{number}")
        after = p if principal.naive else np.where(np.isfinite(posterior), posterior, p)
        frame = frame.with_columns(p_of_picture=pl.Series(p).fill_nan(None))
    frame = frame.with_columns(after=pl.Series(after), change=pl.Series(changes(frame["label"].to_numpy(), after)))
    for number, one in enumerate(truths.values()):
        if number == 0:
            frame = frame.with_columns(true_class=pl.Series(one.labels).replace(-1, None))
        words = [None if k < 0 else CLASS_NAMES[k] for k in one.labels]
        frame = frame.with_columns(pl.Series(f"_{one.name}", words, dtype=pl.String))
    return frame
