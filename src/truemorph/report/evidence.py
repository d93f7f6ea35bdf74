"""The galaxies of a report with all their label sets, joined galaxy by galaxy, and what is measured of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.bias.fractions import PopulationFractions, debiased_fractions
from truemorph.bias.likelihood import n_observables, posterior
from truemorph.bias.metrics import BiasResult
from truemorph.bias.study import TransitionStudy, study_transition
from truemorph.bias.transitions import CLASS_NAMES, COMPARED, DISK, SMOOTH, RayleighTransition, Transition
from truemorph.catalogs.catalogue import gold_classes, read_catalogue, rows_where
from truemorph.catalogs.sampling import TEST
from truemorph.catalogs.selected import from_same_images, select_rows
from truemorph.classifiers.checkpoint import Classifier
from truemorph.classifiers.fits import observables_of
from truemorph.errors import InputError
from truemorph.explain.catalogue import named_models
from truemorph.findings import Finding
from truemorph.io import read_toml
from truemorph.labelling.label import label_table
from truemorph.labelling.labeller import IN_SAMPLE
from truemorph.report.label_sets import AFTER, CHANGE, OURS, PICTURE, LabelSet, changes
from truemorph.report.table1 import FIFTHS, Tree, fractions_by, table_one
from truemorph.tables import CatalogTable, numeric_columns, read_table

if TYPE_CHECKING:
    from truemorph.report.writing import ReportOptions

OBSERVED = "observed labels"
TRUTH = "truth"
_ENOUGH_TO_TEST = 1000
_UNSTATED = "column gold"
_FEWEST = 10


@dataclass(frozen=True)
class Model:
    """A model in the report, with its p(disk) of the N galaxies that are measured."""

    name: str
    classifier: Classifier
    disk: np.ndarray  # (N,), of the image or features
    after: np.ndarray  # (N,), given the observed label too
    observables: np.ndarray  # (N, J), what T depends on beside α

    @property
    def transition(self) -> Transition:
        """T(α) that it was trained through."""
        return self.classifier.transition

    @cached_property
    def naive(self) -> bool:
        """Whether its T says that no label was ever flipped, so that the observed labels are correct."""
        if n_observables(self.transition):
            return False
        matrix = np.asarray(self.transition.matrix(np.array([1.0, 10.0, 100.0])))
        return bool(np.allclose(matrix, np.eye(matrix.shape[-1])))

    @property
    def probabilities(self) -> LabelSet:
        """Without the observed labels."""
        return LabelSet(f"{self.name}: p(disk)", "probabilities", self.disk, self.name)

    @property
    def labels(self) -> LabelSet:
        """The more probable classes."""
        hard = np.where(self.probabilities.known, self.probabilities.labels, np.nan)
        return LabelSet(f"{self.name}: labels", "labels", hard, self.name)

    @property
    def posterior(self) -> LabelSet | None:
        """None of a naive model, or if there is none of any galaxy."""
        if self.naive or not np.isfinite(self.after).any():
            return None
        return LabelSet(f"{self.name}: posterior", "posterior", self.after, self.name)

    @property
    def best(self) -> LabelSet:
        """The posterior, or the probabilities of a model without."""
        return self.posterior or self.probabilities

    def of(self, rows: np.ndarray) -> Model:
        """That of some galaxies."""
        return replace(self, disk=self.disk[rows], after=self.after[rows], observables=self.observables[rows])

    def resolution(self, alpha: np.ndarray) -> np.ndarray:
        """What T depends on: of the galaxies that are measured, or along a curve in α at the mean of the rest."""
        if not self.observables.size:
            return alpha
        mean = np.nanmean(self.observables, axis=0)
        others = self.observables if len(alpha) == len(self.observables) else np.tile(mean, (len(alpha), 1))
        return np.column_stack([alpha, np.where(np.isfinite(others), others, mean)])

    def observed_probability(self, alpha: np.ndarray) -> np.ndarray:
        """p(ỹ = disk | x, α) = Σ_y p(ỹ = disk | y, α) p(y | x) (eq. 3), shape (N,): testable without gold labels."""
        matrix = np.asarray(self.transition.matrix(self.resolution(alpha)))[:, :, DISK]
        return (1 - self.disk) * matrix[:, SMOOTH] + self.disk * matrix[:, DISK]


def _principal(models: Sequence[Model]) -> Model | None:
    """The last that is not naive, or the last."""
    return next((one for one in reversed(models) if not one.naive), models[-1] if models else None)


@dataclass(frozen=True)
class Evidence:
    """The galaxies that a report measures, and all their label sets."""

    catalogue: CatalogTable
    frame: pl.DataFrame  # rows that are measured
    models: Sequence[Model]
    columns: Sequence[LabelSet]  # further labels that the catalogue brings
    truths: Mapping[str, LabelSet]  # gold labels by definition of a disk
    options: ReportOptions
    tree: Tree
    study: TransitionStudy | None  # fit of T(α) to the whole catalogue
    which: str  # which galaxies these are, in words: those that every model labels
    # All galaxies of the catalogue, with ids as text, and as columns of `OURS` what each model says and gold labels,
    # under the names that they have in the gallery, and what the principal model changes.
    everything: pl.DataFrame
    left_out: Mapping[str, int] = field(default_factory=dict)  # by model: galaxies to measure without a label of it
    findings: Sequence[Finding] = ()  # about gold labels
    unfitted: Sequence[Finding] = ()  # why T(α) could not be fitted

    @property
    def path(self) -> Path:
        """Of the catalogue."""
        return Path(self.catalogue.path or "catalogue")

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,)."""
        return self.tree.alpha

    @cached_property
    def observed(self) -> LabelSet:
        """The observed labels."""
        return LabelSet(OBSERVED, "observed", self.frame["label"].to_numpy().astype(np.float64))

    @property
    def truth(self) -> LabelSet | None:
        """Gold labels by the first definition."""
        return next(iter(self.truths.values()), None)

    @property
    def principal(self) -> Model | None:
        """The model that a report speaks of first."""
        return _principal(self.models)

    @property
    def corrector(self) -> Model | None:
        """The model whose disk fractions are the corrected ones: the principal one, unless it is naive."""
        return None if self.principal is None or self.principal.naive else self.principal

    @cached_property
    def sets(self) -> list[LabelSet]:
        """Every label set, in the order of tables."""
        own = [one for model in self.models for one in (model.labels, model.probabilities, model.posterior) if one]
        return [self.observed, *self.columns, *own, *self.truths.values()]

    @cached_property
    def bias(self) -> dict[str, BiasResult | None]:
        """CV18 (CV14) by label set; None where a set has too few galaxies."""
        return {one.name: self.tree.bias(one) for one in self.sets}

    @cached_property
    def table(self) -> pl.DataFrame:
        """Table 1 (see `table_one`)."""
        return table_one(self.sets, self.alpha, self.bias, self.truths)

    def row(self, one: LabelSet) -> dict[str, float]:
        """Line of Table 1."""
        return self.table.row(by_predicate=pl.col("labels") == one.name, named=True)

    @property
    def gold_name(self) -> str:
        """What gold labels are called: the truth, where galaxies are simulated."""
        return TRUTH if any(one.name == TRUTH for one in self.truths.values()) else "gold labels"

    @cached_property
    def through(self) -> PopulationFractions | None:
        """Disk fractions in fifths of α from the observed labels, corrected through the fitted T(α)."""
        if self.study is None:
            return None
        return debiased_fractions(self.observed.labels, self.alpha, self.study.fit, bins=FIFTHS)

    @cached_property
    def by_gold(self) -> PopulationFractions | None:
        """Disk fractions in fifths of α from gold labels of some of the galaxies; None if there are none, or of all."""
        truth, own = self.truth, self.catalogue.metadata
        if truth is None or truth.known.all():
            return None
        given: dict[str, Any] = {}
        if own.get("gold_definition") in self.truths:  # then probability of selection and doubt are of these labels
            names = [one for one in ("gold_probability", "gold_uncertain") if one in self.frame.columns]
            given = {name: self.frame[name].cast(pl.Float64).fill_null(0.0).to_numpy() for name in names}
            if own.get("gold_experts"):
                given["gold_transition"] = RayleighTransition(own["gold_experts"]["upper"])
        with suppress(InputError):  # too few of them
            return debiased_fractions(self.observed.labels, self.alpha, gold=truth.labels, bins=FIFTHS, **given)
        return None

    @cached_property
    def correction(self) -> pl.DataFrame:
        """Disk fractions in fifths of α: what the headline, its figure and its table show.

        `low`, `high`, `mean` (α), `galaxies`; `labelled`, `labelled_stderr`; `corrected`, `stderr`, `lowest`, `highest`
        by the corrector, else from gold labels, else through the fitted T(α), null if there is none of these; `gold`,
        `gold_stderr` by the first definition of a disk. The range spans the errors of the model and everything that the
        fit's range spans, or is that of the gold labels.
        """
        table = fractions_by(self.alpha, [self.observed]).select(
            "low", "high", "mean", "galaxies", labelled="disk_fraction", labelled_stderr="stderr"
        )
        value = error = low = high = gold = gold_error = np.full(table.height, np.nan)
        direct = self.through if self.corrector is not None or self.by_gold is None else self.by_gold
        if direct is not None:
            parts = direct.fractions, direct.stderr, direct.low, direct.high
            value, error, low, high = (one[:, DISK] for one in parts)
        if self.corrector is not None:
            own = fractions_by(self.alpha, [self.corrector.best])
            value, error = own["disk_fraction"].to_numpy(), own["stderr"].to_numpy()
            low, high = np.fmin(low, value - 1.96 * error), np.fmax(high, value + 1.96 * error)
        if self.by_gold is not None:
            gold, gold_error = self.by_gold.fractions[:, DISK], self.by_gold.stderr[:, DISK]
        elif self.truth is not None and self.truth.known.all():
            gold = fractions_by(self.alpha, [self.truth])["disk_fraction"].to_numpy()
            gold_error = np.zeros(table.height)
        columns = {"corrected": value, "stderr": error, "lowest": low.clip(0, 1), "highest": high.clip(0, 1)}
        columns |= {"gold": gold, "gold_stderr": gold_error}
        return table.with_columns(pl.Series(name, one).fill_nan(None) for name, one in columns.items())


def gather(sources: Sequence[Path], options: ReportOptions, files: Path) -> Evidence:
    """Read runs and catalogue, label what isn't labelled (into the folder `files`), and join."""
    classifiers = named_models(sources)
    path = Path(options.catalogue or _trained_on(sources))
    catalogue = read_catalogue(path)
    frame = catalogue.frame.with_columns(pl.col("object_id").cast(pl.String))
    # Before hours of labelling, not after.
    truths, findings = _truths(frame, catalogue, options, str(path))
    columns = _columns(frame, options, str(path))
    rows, which = _measured(frame, options, str(path), bool(sources))
    numeric_columns(frame, [*options.intrinsic, *options.distributions], str(path))
    if options.better is not None and not options.better.is_dir():
        raise InputError(f"{options.better}: no such folder of better images (files named <object id>.jpg)")
    every = [OBSERVED, TRUTH, *classifiers, *(one.name for one in columns)]
    twice = next((name for name in every if every.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice!r} names two things in this report; rename a run's folder, or what `also` calls it")

    for name, one in classifiers.items():
        if tuple(one.classes) != CLASS_NAMES:
            raise InputError(f"{name}: its classes are {', '.join(one.classes)}; a report needs smooth and disk")
    given = {file: read_table(file) for file in options.labels}
    for file, table in given.items():
        if table.metadata.get("model_hash") not in {one.model_hash for one in classifiers.values()}:
            raise InputError(
                f"{file}: was not made by a model of this report; give the folder of the model that made these labels"
            )

    models, left_out, chosen = [], {}, rows
    for name, classifier in classifiers.items():
        labels = _labels(name, classifier, path, list(given.values()), files)
        model = _model(name, classifier, frame, labels)
        models.append(model)
        said = {"p(disk) of the picture": model.disk, "posterior p(disk)": model.after}
        frame = frame.with_columns(pl.Series(f"{OURS}{name}: {what}", one).fill_nan(None) for what, one in said.items())
        # Every label set on the same galaxies: those that all models label.
        known = np.isfinite(model.disk)
        left_out[name] = int((~known[chosen]).sum())
        rows = rows[known[rows]]
    if rows.size < _FEWEST:
        raise InputError(
            f"{path}: {rows.size} galaxies to measure on have a label by every model, at least {_FEWEST} are needed "
            "(galaxies that a model's only member was trained on have none: train with `folds` 2 or more)"
        )
    if any(left_out.values()):
        which = f"{rows.size:,} of {which}"
    intrinsic = numeric_columns(frame[rows], options.intrinsic, str(path)) if options.intrinsic else None
    study, unfitted = _study(catalogue, models, options)
    frame = _with_changes(frame, _principal(models), truths)
    return Evidence(
        catalogue=catalogue,
        frame=frame[rows],
        models=[one.of(rows) for one in models],
        columns=[one.of(rows) for one in columns],
        truths={name: one.of(rows) for name, one in truths.items() if one.known[rows].any()},
        options=options,
        tree=Tree.fitting(frame["alpha"].to_numpy()[rows], intrinsic, options.bootstrap, options.seed),
        study=study,
        which=which,
        everything=frame,
        left_out=left_out,
        findings=findings,
        unfitted=unfitted,
    )


def _trained_on(sources: Sequence[Path]) -> Path:
    """The catalogue that the first run was trained on."""
    for source in sources:
        if (source / "run.toml").is_file():
            named = Path(str(read_toml(source / "run.toml").get("catalogue") or ""))
            if not named.is_file():
                raise InputError(f"{named}: the catalogue of run {source} is not there; give `catalogue`")
            return named
    raise InputError("no run says which catalogue it was trained on; give one with `catalogue`")


def _study(
    catalogue: CatalogTable, models: Sequence[Model], options: ReportOptions
) -> tuple[TransitionStudy | None, list[Finding]]:
    """T(α) fitted to the catalogue, of the family that the last debiased model has; or why that can't be."""
    families = [one.transition.family for one in models if not one.naive]
    family = families[-1] if families and families[-1] in COMPARED else COMPARED[0]
    try:
        rows = select_rows(catalogue, options.where, options.intrinsic)
        # The report compares with gold labels; that this fit does without them is its purpose.
        kept = tuple(one for one in rows.context.findings if one.code != "gold-unused")
        context = replace(rows.context, findings=kept)
        return study_transition(rows.sample, family, context=context, seed=options.seed), []
    except InputError as problem:
        text = f"T(α) could not be fitted to these labels, so nothing was checked with it: {problem}."
        action = "Use more galaxies, or correct what this message names."
        return None, [Finding("fit-failed", "caution", text, action)]


def _labels(name: str, model: Classifier, path: Path, given: Sequence[CatalogTable], files: Path) -> pl.DataFrame:
    """A model's labels of the catalogue: those given, those of an earlier report, or new ones."""
    kept = files / "labels" / f"{name.replace(os.sep, '_')}.parquet"
    fresh = [kept] if kept.is_file() and kept.stat().st_mtime > path.stat().st_mtime else []
    for table in (*given, *map(read_table, fresh)):
        if table.metadata.get("model_hash") == model.model_hash and "p_disk" in table.frame.columns:
            return table.frame
    kept.parent.mkdir(parents=True, exist_ok=True)
    label_table(model, path, kept, max_bad=1.0)
    return read_table(kept).frame


def _model(name: str, model: Classifier, frame: pl.DataFrame, labels: pl.DataFrame) -> Model:
    """What a model says of all galaxies, NaN where it was trained on their labels.

    The posterior follows from p(disk), this catalogue's labels and the model's T(α).
    """
    unseen = labels.filter(pl.col("relation") != IN_SAMPLE).select(pl.col("object_id").cast(pl.String), "p_disk")
    joined = frame.select("object_id", "label", "alpha").join(unseen, on="object_id", how="left", maintain_order="left")
    disk = joined["p_disk"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    names = observables_of(model.described["transition"], model.transition)
    observables = numeric_columns(frame, names, "the catalogue")
    known, after = np.isfinite(disk) & np.isfinite(observables).all(axis=1), np.full(disk.size, np.nan)
    given = np.column_stack([1 - disk, disk])[known]
    label, alpha = (joined[one].to_numpy()[known] for one in ("label", "alpha"))
    more = observables[known] if names else None
    after[known] = posterior(given, label, alpha, model.transition, observables=more)[:, DISK]
    return Model(name, model, disk, after, observables)


def _measured(frame: pl.DataFrame, options: ReportOptions, source: str, models: bool) -> tuple[np.ndarray, str]:
    """Rows to measure on, and what they are called: of models on test galaxies, where these are enough."""
    chosen = rows_where(frame, options.where, source)
    what, test = "galaxies", chosen & (frame["split"] == TEST).to_numpy()
    if models and test.sum() >= _ENOUGH_TO_TEST and not any("split" in one for one in options.where):
        what, chosen = "test galaxies", test
    conditions = f" ({' and '.join(options.where)})" if options.where else ""
    return np.flatnonzero(chosen), f"{chosen.sum():,} {what}{conditions}"


def _truths(
    frame: pl.DataFrame, catalogue: CatalogTable, options: ReportOptions, source: str
) -> tuple[dict[str, LabelSet], list[Finding]]:
    """Gold labels by definition of a disk, and findings about them."""
    out, findings = {}, []
    if not options.gold:
        findings += from_same_images(catalogue.metadata)
    for rule in options.gold or (["gold"] if "gold" in frame.columns else []):
        classes, definition = gold_classes(frame, rule, source)
        if rule == "gold":
            definition = str(catalogue.metadata.get("gold_definition") or _UNSTATED)
            definition = _UNSTATED if definition.startswith("not stated") else definition
        if not (classes >= 0).any():
            text = f"No galaxy has a gold label by {rule}, so nothing is compared with it."
            findings.append(Finding("gold-empty", "caution", text, "Check the column or rule (`gold`)."))
            continue
        # Simulations keep the true class in a column of this name.
        simulated = definition.startswith(f"disk: {TRUTH} ")
        name = TRUTH if simulated else "gold labels" if definition == _UNSTATED else f"gold labels ({definition})"
        out[definition] = LabelSet(name, "truth", np.where(classes < 0, np.nan, classes).astype(np.float64))
    return out, findings


def _columns(frame: pl.DataFrame, options: ReportOptions, source: str) -> list[LabelSet]:
    """Labels that the catalogue brings."""
    out = []
    for given in options.also:
        name, equals, column = (part.strip() for part in given.partition("="))
        if not equals or not name or not column:
            raise InputError(f"`also` takes NAME=COLUMN, such as Hart2016=debiased_disk_fraction; got {given!r}")
        values = numeric_columns(frame, [column], source)[:, 0]
        if np.any((values < 0) | (values > 1)):
            raise InputError(f"{source}: `also` takes labels or disk fractions, 0 to 1; {column} has others")
        out.append(LabelSet(name, "column", values))
    return out


def _with_changes(frame: pl.DataFrame, model: Model | None, truths: Mapping[str, LabelSet]) -> pl.DataFrame:
    """All galaxies, with what the principal model makes of each, and gold labels in words."""
    classes = dict(enumerate(CLASS_NAMES))
    words = {
        OURS + one.name: pl.Series(one.labels).replace_strict(classes, default=None, return_dtype=pl.String)
        for one in truths.values()
    }
    picture = after = np.full(frame.height, np.nan)
    if model is not None:
        picture, after = model.disk, model.disk if model.naive else model.after
    changed = pl.Series(changes(frame["label"].to_numpy(), after), dtype=pl.String)
    ours = {PICTURE: pl.Series(picture).fill_nan(None), AFTER: pl.Series(after), CHANGE: changed}
    return frame.with_columns(**words, **ours)
