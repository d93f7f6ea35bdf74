"""Gather the evidence of a report: read runs, an estimate and a catalogue, label what is not labelled, and join."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.curves.transitions import DISK, Transition
from truemorph.bias.estimate import Estimate, make_estimate
from truemorph.bias.likelihood import observables_of, posterior
from truemorph.bias.result import Settings
from truemorph.catalogs.catalogue import classes_of, gold_classes, is_simulated, read_catalogue, rows_where
from truemorph.catalogs.label_sets import FIFTHS, LabelSet
from truemorph.catalogs.sampling import TEST
from truemorph.catalogs.selected import from_same_images, rows_hash, rows_of
from truemorph.classifiers.classifier import Classifier
from truemorph.errors import InputError
from truemorph.explain.catalogue import named_models
from truemorph.findings import Finding
from truemorph.io import read_toml
from truemorph.labelling.label import label_table
from truemorph.labelling.labeller import IN_SAMPLE
from truemorph.questions import columns_of
from truemorph.report.changes import AFTER, CHANGE, OURS, PICTURE, changes
from truemorph.report.evidence import GOLD_LABELS, OBSERVED, TRUTH, UNSTATED, Evidence, Model, ShownEstimate
from truemorph.report.measures import BiasTree
from truemorph.report.options import ReportOptions
from truemorph.tables import CatalogTable, missing_in, numeric_columns, read_table

_ENOUGH_TO_TEST = 1000
_FEWEST = 10


def gather(sources: Sequence[Any], options: ReportOptions, files: Path) -> Evidence:
    """Read runs, an estimate and a catalogue, label what is not labelled (into the folder `files`), and join all."""
    runs, given = list[Any](), list[Any]()
    for source in sources:
        (given if isinstance(source, Estimate) or str(source).endswith(".json") else runs).append(source)
    if len(given) > 1:
        raise InputError("a report shows one estimate of T(α); write a page for each")
    classifiers = named_models(runs)
    path = Path(options.catalogue or trained_on(runs))
    catalogue = read_catalogue(path)
    frame = catalogue.frame.with_columns(pl.col("object_id").cast(pl.String))
    # Before hours of labelling, not after.
    shown, of_estimate = _shown_estimate(given, classifiers, catalogue, options)
    truths, findings = _truths(frame, catalogue, options, str(path))
    columns = _columns(frame, options, classes_of(catalogue), str(path))
    rows, which = measured_rows(frame, options, str(path), bool(runs))
    fractions = None if shown is None else shown.estimate.fractions
    by = [] if fractions is None or fractions.by == "alpha" or fractions.groups else [fractions.by]
    numeric_columns(frame, [*options.intrinsic, *options.distributions, *by], str(path))
    check_better(options)
    every = [OBSERVED, TRUTH, *classifiers, *(column.name for column in columns)]
    twice = next((name for name in every if every.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice!r} names two things in this report; rename a run's folder, or what `also` calls it")

    for name, one in classifiers.items():
        if tuple(one.classes) != classes_of(catalogue):
            wanted = " and ".join(classes_of(catalogue))
            raise InputError(f"{name}: its classes are {', '.join(one.classes)}, those of the catalogue {wanted}")
    tables = {file: read_table(file) for file in options.labels}
    for file, table in tables.items():
        if table.metadata.get("model_hash") not in {classifier.model_hash for classifier in classifiers.values()}:
            raise InputError(
                f"{file}: was not made by a model of this report; give the folder of the model that made these labels"
            )

    models = []
    for name, classifier in classifiers.items():
        labels = labels_by(name, classifier, path, list(tables.values()), files)
        model = _model(name, classifier, frame, labels)
        models.append(model)
        of = f"p({model.classes[1]})"
        said = {f"{of} of the picture": model.p, f"posterior {of}": model.after}
        frame = frame.with_columns(pl.Series(f"{OURS}{name}: {what}", one).fill_nan(None) for what, one in said.items())
    rows, which, left_out = labelled_rows(rows, which, {model.name: np.isfinite(model.p) for model in models})
    if rows.size < _FEWEST:
        raise InputError(
            f"{path}: {rows.size} galaxies to measure on have a label by every model, at least {_FEWEST} are needed "
            "(galaxies that a model's only member was trained on have none: train with `folds` 2 or more)"
        )
    intrinsic = numeric_columns(frame[rows], options.intrinsic, str(path)) if options.intrinsic else None
    evidence = Evidence(
        catalogue=catalogue,
        frame=frame,
        models=models,
        columns=[column.of(rows) for column in columns],
        truths={name: truth.of(rows) for name, truth in truths.items() if truth.known[rows].any()},
        options=options,
        tree=BiasTree.fitting(frame["alpha"].to_numpy()[rows], intrinsic, options.bootstrap, options.seed),
        shown=shown if not given or models else _with_posterior(shown, frame, str(path)),
        which=which,
        everything=frame,
        left_out=left_out,
        findings=findings,
        of_estimate=of_estimate,
    )
    everything = _with_changes(evidence, truths)
    measured = evidence.shown
    if measured is not None and measured.posterior is not None:
        measured = replace(measured, posterior=measured.posterior.of(rows))
    models = [model.of(rows) for model in models]
    return replace(evidence, frame=everything[rows], models=models, shown=measured, everything=everything)


def check_better(options: ReportOptions) -> None:
    """Raise an error if the folder of better images is absent."""
    if options.better is not None and not options.better.is_dir():
        raise InputError(f"{options.better}: no such folder of better images (files named <object id>.jpg)")


def trained_on(sources: Sequence[Path]) -> Path:
    """Return the catalogue that the first run was trained on."""
    for source in sources:
        if (Path(source) / "run.toml").is_file():
            named = Path(str(read_toml(Path(source) / "run.toml").get("catalogue") or ""))
            if not named.is_file():
                raise InputError(f"{named}: the catalogue of run {source} is not there; give `catalogue`")
            return named
    raise InputError("no run says which catalogue it was trained on; give one with `catalogue`")


def _shown_estimate(
    given: Sequence[Any], models: Mapping[str, Classifier], catalogue: CatalogTable, options: ReportOptions
) -> tuple[ShownEstimate | None, list[Finding]]:
    """The estimate that was given, or else that a model was trained through, or else one that is made here.

    That is made of all that the catalogue offers: with its gold labels, unless they are the truth of simulated
    galaxies, which is there to compare with.
    """
    for one in given:
        read = one if isinstance(one, Estimate) else Estimate.read(Path(one))
        return ShownEstimate(read, "the given estimate" if one is read else Path(one).name), rests_on(read, catalogue)
    for name, model in models.items():
        described = model.described["transition"]
        if "fractions" in described and described.get("rows_sha256") == rows_hash(
            catalogue, described.get("where", ())
        ):
            return ShownEstimate(Estimate.from_dict(described), f"the estimate that {name} was trained through"), []
    offered = [*options.gold, *(["gold"] if "gold" in catalogue.frame.columns else [])][:1]
    if is_simulated(catalogue.metadata) or (offered == ["gold"] and not catalogue.frame["gold"].count()):
        offered = []
    findings: list[Finding] = []
    for gold in (*offered, None):
        try:
            sample, context = rows_of(catalogue, gold=gold, where=options.where, intrinsic=options.intrinsic)
            made = make_estimate(sample, Settings(seed=options.seed), context=context, fraction_bins=FIFTHS)
            return ShownEstimate(made, f"made by this report{' with the gold labels' if gold else ''}"), findings
        except InputError as problem:
            what = "T(α) could not be estimated with the gold labels" if gold else "T(α) could not be estimated"
            text = f"{what}: {problem}."
            action = "Use more galaxies, or correct what this message names."
            findings.append(Finding("fit-failed", "caution", text, action))
    return None, findings


def rests_on(estimate: Estimate, catalogue: CatalogTable) -> list[Finding]:
    """Warn if an estimate rests on other galaxies than those of this catalogue."""
    if estimate.about.get("rows_sha256") == rows_hash(catalogue, estimate.about.get("where", ())):
        return []
    message = (
        f"The estimate rests on {estimate.curve.galaxies:,} galaxies, labels and α that are not those of this "
        "catalogue, so its class fractions need not hold here."
    )
    action = "Estimate T(α) with this catalogue (`truemorph transition`)."
    return [Finding("estimate-of-other-galaxies", "caution", message, action)]


def _with_posterior(shown: ShownEstimate | None, frame: pl.DataFrame, source: str) -> ShownEstimate | None:
    """Add what the estimate alone says of each galaxy, from its label and α: a correction without images."""
    if shown is None or len(shown.estimate.curve.classes) != 2:
        return shown
    curve = shown.estimate.curve
    names = observables_of(shown.estimate.about, curve.transition)
    p = np.full(frame.height, curve.class_fractions[DISK])
    after = _after(p, frame, curve.transition, numeric_columns(frame, names, source))
    name = f"{Path(shown.origin).stem}: posterior"
    return replace(shown, posterior=LabelSet.of_two(name, "posterior", after, curve.classes))


def _after(p: np.ndarray, frame: pl.DataFrame, transition: Transition, observables: np.ndarray) -> np.ndarray:
    """p(second class) given the observed label too, shape (N,), from that without, the catalogue's labels and T(α)."""
    usable, after = np.isfinite(p) & np.isfinite(observables).all(axis=1), np.full(p.size, np.nan)
    label, alpha = (frame[name].to_numpy()[usable] for name in ("label", "alpha"))
    more = observables[usable] if observables.shape[1] else None
    given = np.column_stack([1 - p, p])[usable]
    after[usable] = posterior(given, label, alpha, transition, observables=more)[:, DISK]
    return after


def labels_by(name: str, model: Classifier, path: Path, given: Sequence[CatalogTable], files: Path) -> pl.DataFrame:
    """A model's labels of the catalogue: those given, those of an earlier report, or new ones."""
    kept = files / "labels" / f"{name.replace(os.sep, '_')}.parquet"
    fresh = [kept] if kept.is_file() and kept.stat().st_mtime > path.stat().st_mtime else []
    column = columns_of("p", model.classes)[1]
    for table in (*given, *map(read_table, fresh)):
        if table.metadata.get("model_hash") == model.model_hash and column in table.frame.columns:
            return table.frame
    kept.parent.mkdir(parents=True, exist_ok=True)
    label_table(model, path, kept, max_bad=1.0)
    return read_table(kept).frame


def unseen_probabilities(frame: pl.DataFrame, labels: pl.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Return columns of a model's labels for N galaxies, shape (N, C), NaN where it was trained on their labels."""
    unseen = labels.filter(pl.col("relation") != IN_SAMPLE).select(pl.col("object_id").cast(pl.String), *columns)
    joined = frame.select("object_id").join(unseen, on="object_id", how="left", maintain_order="left")
    return joined.select(pl.col(columns).cast(pl.Float64).fill_null(np.nan)).to_numpy()


def _model(name: str, model: Classifier, frame: pl.DataFrame, labels: pl.DataFrame) -> Model:
    """What a model says of all galaxies, NaN where it was trained on their labels.

    The posterior follows from these probabilities, this catalogue's labels and the model's T(α).
    """
    p = unseen_probabilities(frame, labels, columns_of("p", model.classes)[1:])[:, 0]
    names = observables_of(model.described["transition"], model.transition)
    observables = numeric_columns(frame, names, "the catalogue")
    return Model(name, model, p, _after(p, frame, model.transition, observables), observables)


def measured_rows(frame: pl.DataFrame, options: ReportOptions, source: str, models: bool) -> tuple[np.ndarray, str]:
    """Rows to measure on, and what they are called: of models on test galaxies, where these are enough."""
    chosen, _ = rows_where(frame, options.where, source)
    what, test = "galaxies", chosen & (frame["split"] == TEST).to_numpy()
    if models and test.sum() >= _ENOUGH_TO_TEST and not any("split" in one for one in options.where):
        what, chosen = "test galaxies", test
    conditions = f" ({' and '.join(options.where)})" if options.where else ""
    return np.flatnonzero(chosen), f"{chosen.sum():,} {what}{conditions}"


def labelled_rows(
    rows: np.ndarray, which: str, labelled: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, str, dict[str, int]]:
    """Keep the rows that all models label, so that every label set is measured on the same galaxies.

    `labelled` says for each model which galaxies it labels, shape (N,). Returns these rows, what they are called, and
    how many of the given rows each model lacks.
    """
    left_out = {name: int((~one[rows]).sum()) for name, one in labelled.items()}
    kept = rows[np.all([one[rows] for one in labelled.values()], axis=0)] if labelled else rows
    return kept, f"{kept.size:,} of {which}" if kept.size < rows.size else which, left_out


def _truths(
    frame: pl.DataFrame, catalogue: CatalogTable, options: ReportOptions, source: str
) -> tuple[dict[str, LabelSet], list[Finding]]:
    """Gold labels by their definition, and findings about them."""
    classes, out = classes_of(catalogue), dict[str, LabelSet]()
    findings = missing_in(frame, [*options.intrinsic, *options.distributions], source)
    if not options.gold:
        findings += from_same_images(catalogue.metadata)
    for rule in options.gold or (["gold"] if "gold" in frame.columns else []):
        known, definition, more = gold_classes(frame, rule, source)
        definition = f"{classes[1]}: {definition}"
        findings += more
        if rule == "gold":
            definition = str(catalogue.metadata.get("gold_definition") or UNSTATED)
            definition = UNSTATED if definition.startswith("not stated") else definition
        if not (known >= 0).any():
            text = f"No galaxy has a gold label by {rule}, so nothing is compared with it."
            findings.append(Finding("gold-empty", "caution", text, "Check the column or rule (`gold`)."))
            continue
        simulated = rule == "gold" and is_simulated(catalogue.metadata)
        name = TRUTH if simulated else GOLD_LABELS if definition == UNSTATED else f"gold labels ({definition})"
        out[definition] = LabelSet.of_two(name, "truth", np.where(known < 0, np.nan, known.astype(np.float64)), classes)
    return out, findings


def _columns(frame: pl.DataFrame, options: ReportOptions, classes: Sequence[str], source: str) -> list[LabelSet]:
    """Return the labels of the option `also`."""
    out = []
    for given in options.also:
        name, equals, column = (part.strip() for part in given.partition("="))
        if not equals or not name or not column:
            raise InputError(f"`also` takes NAME=COLUMN, such as Hart2016=debiased_fraction; got {given!r}")
        values = numeric_columns(frame, [column], source)[:, 0]
        if np.any((values < 0) | (values > 1)):
            raise InputError(f"{source}: `also` takes labels or fractions of votes, 0 to 1; {column} has others")
        out.append(LabelSet.of_two(name, "column", values, classes))
    return out


def _with_changes(evidence: Evidence, truths: Mapping[str, LabelSet]) -> pl.DataFrame:
    """All galaxies, with what the correction makes of each, and gold labels in words."""
    frame, model = evidence.everything, evidence.principal
    classes = dict(enumerate(evidence.classes))
    words = {
        OURS + truth.name: pl.Series(truth.labels).replace_strict(classes, default=None, return_dtype=pl.String)
        for truth in truths.values()
    }
    picture = np.full(frame.height, np.nan) if model is None else model.p
    after = picture if evidence.corrected is None else evidence.corrected.p
    changed = pl.Series(changes(frame["label"].to_numpy(), after, evidence.classes), dtype=pl.String)
    ours = {PICTURE: pl.Series(picture).fill_nan(None), AFTER: pl.Series(after), CHANGE: changed}
    return frame.with_columns(**words, **ours)
