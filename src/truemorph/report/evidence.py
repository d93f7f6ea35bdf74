"""The galaxies of a report with all their label sets, joined galaxy by galaxy, and what is measured of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.binning import proportion_error
from truemorph.bias.estimate import Estimate
from truemorph.bias.likelihood import observables_of, observed_log_probabilities, posterior
from truemorph.bias.metrics import BiasResult
from truemorph.bias.transitions import DISK, Transition
from truemorph.catalogs.catalogue import classes_of, gold_classes, is_simulated, read_catalogue, rows_where
from truemorph.catalogs.label_sets import FIFTHS, LabelSet, fractions_by
from truemorph.catalogs.sampling import TEST
from truemorph.catalogs.selected import estimate_catalogue, from_same_images, rows_hash
from truemorph.classifiers.classifier import Classifier
from truemorph.errors import InputError
from truemorph.explain.catalogue import named_models
from truemorph.findings import Finding
from truemorph.io import read_toml
from truemorph.labelling.label import label_table
from truemorph.labelling.labeller import IN_SAMPLE
from truemorph.questions import columns_of, fraction_names
from truemorph.report.changes import AFTER, CHANGE, OURS, PICTURE, changes
from truemorph.report.measures import BiasTree, rows_in_bins, table_one
from truemorph.report.options import ReportOptions
from truemorph.tables import CatalogTable, missing_in, numeric_columns, read_table

OBSERVED = "observed labels"
TRUTH = "truth"
_ENOUGH_TO_TEST = 1000
_UNSTATED = "column gold"
_FEWEST = 10


def argument(alpha: np.ndarray, observables: np.ndarray, along: bool = False) -> np.ndarray:
    """What T depends on: α, or α and observables, of N galaxies (where one is missing, at the mean of the others).

    Or `along` a curve in α, shape (M,), at the means of the galaxies' observables, shape (N, J).
    """
    if not observables.shape[1]:
        return alpha
    mean = np.nanmean(observables, axis=0)
    others = np.tile(mean, (alpha.size, 1)) if along else np.where(np.isfinite(observables), observables, mean)
    return np.column_stack([alpha, others])


@dataclass(frozen=True)
class Model:
    """A model in the report, with its class probabilities of the N galaxies that are measured."""

    name: str
    classifier: Classifier
    p: np.ndarray  # (N,), of the second class, from the image or features
    after: np.ndarray  # (N,), given the observed label too
    observables: np.ndarray  # (N, J), what T depends on beside α

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return self.classifier.classes

    @property
    def transition(self) -> Transition:
        """T(α) that it was trained through."""
        return self.classifier.transition

    @cached_property
    def naive(self) -> bool:
        """Whether its T says that no label was ever flipped, so that the observed labels are correct."""
        if self.transition.n_observables:
            return False
        matrix = np.asarray(self.transition.matrix(np.array([1.0, 10.0, 100.0])))
        return bool(np.allclose(matrix, np.eye(matrix.shape[-1])))

    @property
    def probabilities(self) -> LabelSet:
        """Without the observed labels."""
        return LabelSet.of_two(f"{self.name}: p({self.classes[1]})", "probabilities", self.p, self.classes, self.name)

    @property
    def labels(self) -> LabelSet:
        """The more probable classes."""
        hard = np.where(self.probabilities.known, self.probabilities.labels, np.nan)
        return LabelSet.of_two(f"{self.name}: labels", "labels", hard, self.classes, self.name)

    @property
    def posterior(self) -> LabelSet | None:
        """None of a naive model, or if there is none of any galaxy."""
        if self.naive or not np.isfinite(self.after).any():
            return None
        return LabelSet.of_two(f"{self.name}: posterior", "posterior", self.after, self.classes, self.name)

    @property
    def best(self) -> LabelSet:
        """The posterior, or the probabilities of a model without."""
        return self.posterior or self.probabilities

    def of(self, rows: np.ndarray) -> Model:
        """That of some galaxies."""
        return replace(self, p=self.p[rows], after=self.after[rows], observables=self.observables[rows])

    def observed_probability(self, alpha: np.ndarray) -> np.ndarray:
        """p(ỹ = the second class | x, α) (eq. 3), shape (N,): testable without gold labels."""
        with np.errstate(divide="ignore"):
            log_p = np.log(self.probabilities.probabilities)
            log_observed = observed_log_probabilities(log_p, argument(alpha, self.observables), self.transition)
        return np.exp(log_observed)[:, DISK]


@dataclass(frozen=True)
class ShownEstimate:
    """The estimate of T(α) and of class fractions that a report shows, and where it is from."""

    estimate: Estimate
    origin: str  # in words, such as "fit.json"
    posterior: LabelSet | None = None  # given label and α, of the galaxies that are measured; of an estimate alone


@dataclass(frozen=True)
class Evidence:
    """The galaxies that a report measures, and all their label sets."""

    catalogue: CatalogTable
    frame: pl.DataFrame  # rows that are measured
    models: Sequence[Model]
    columns: Sequence[LabelSet]  # further labels that the catalogue brings
    truths: Mapping[str, LabelSet]  # gold labels by their definition
    options: ReportOptions
    tree: BiasTree
    shown: ShownEstimate | None
    which: str  # which galaxies these are, in words: those that every model labels
    # All galaxies of the catalogue, with ids as text, and as columns of `OURS` what each model says and gold labels,
    # under the names that they have in the gallery, and what changes.
    everything: pl.DataFrame
    left_out: Mapping[str, int] = field(default_factory=dict)  # by model: galaxies to measure without a label of it
    findings: Sequence[Finding] = ()  # about gold labels
    of_estimate: Sequence[Finding] = ()  # why there is no estimate, or none with gold labels, or one of other galaxies

    @property
    def path(self) -> Path:
        """Of the catalogue."""
        return Path(self.catalogue.path or "catalogue")

    @property
    def classes(self) -> tuple[str, str]:
        """Names of labels 0 and 1."""
        return classes_of(self.catalogue)

    @property
    def quantity(self) -> str:
        """Which fraction is measured, such as "disk fraction"."""
        return f"{self.classes[1]} fraction"

    @property
    def fraction_column(self) -> str:
        """Name of this fraction in tables, such as disk_fraction."""
        return next(iter(fraction_names(self.classes)))

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,)."""
        return self.tree.alpha

    @property
    def estimate(self) -> Estimate | None:
        """The estimate that the report shows."""
        return None if self.shown is None else self.shown.estimate

    @property
    def from_gold(self) -> bool:
        """Whether the estimate's class fractions are those of gold labels."""
        return self.estimate is not None and self.estimate.fractions.method == "gold"

    @cached_property
    def observed(self) -> LabelSet:
        """The observed labels."""
        return LabelSet.of_two(OBSERVED, "observed", self.frame["label"].to_numpy().astype(np.float64), self.classes)

    @property
    def truth(self) -> LabelSet | None:
        """Gold labels by the first definition."""
        return next(iter(self.truths.values()), None)

    @property
    def principal(self) -> Model | None:
        """The model that a report speaks of first: the last that is not naive, or the last."""
        models = self.models
        return next((one for one in reversed(models) if not one.naive), models[-1] if models else None)

    @property
    def corrector(self) -> Model | None:
        """The model whose class fractions are the corrected ones: the principal one, unless it is naive."""
        return None if self.principal is None or self.principal.naive else self.principal

    @property
    def corrected(self) -> LabelSet | None:
        """What the report says of each galaxy: by the principal model, or by the estimate alone."""
        if self.principal is not None:
            return self.principal.best
        return None if self.shown is None else self.shown.posterior

    @cached_property
    def sets(self) -> list[LabelSet]:
        """Every label set, in the order of tables."""
        own = [one for model in self.models for one in (model.labels, model.probabilities, model.posterior)]
        own.append(None if self.shown is None else self.shown.posterior)
        return [self.observed, *self.columns, *(one for one in own if one is not None), *self.truths.values()]

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

    @property
    def by(self) -> str:
        """The column in whose bins fractions are shown: that of the estimate, or α."""
        return "alpha" if self.estimate is None else self.estimate.fractions.by

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the estimate's bins, where its column has text."""
        return () if self.estimate is None else self.estimate.fractions.groups

    @property
    def bins(self) -> int | np.ndarray:
        """Edges of the estimate's bins, or a number of bins."""
        return FIFTHS if self.estimate is None else self.estimate.fractions.edges

    def fractions_of(self, sets: Sequence[LabelSet]) -> pl.DataFrame:
        """Fractions of the galaxies that are measured, in the bins of the estimate (see `fractions_by`)."""
        if self.groups:
            assert self.estimate is not None
            column = np.full(self.alpha.size, np.nan)
            for number, rows in enumerate(rows_in_bins(self.estimate.fractions, self.frame, str(self.path))):
                column[rows] = self.estimate.fractions.middles[number]
        else:
            column = self.alpha if self.by == "alpha" else self.frame[self.by].cast(pl.Float64).to_numpy()
        return fractions_by(column, sets, self.bins)

    @cached_property
    def correction(self) -> pl.DataFrame:
        """Fractions in bins of α, or of the column of the estimate: what the page's first figure and table show.

        `low`, `high`, `mean` (of the column), `galaxies`; `labelled`, `labelled_stderr`; `corrected`, `stderr`,
        `lowest`, `highest`; `gold`, `gold_stderr`. Without a model they are the estimate's own numbers, of its
        galaxies. With one they are its, of the galaxies that are measured, and the range spans its errors and the
        range of the estimate. Null where there is none.
        """
        names = ["low", "high", "mean", "galaxies"]
        estimate, model = self.estimate, self.corrector
        table = self.fractions_of([self.observed]).select(*names, labelled="fraction", labelled_stderr="stderr")
        value = error = low = high = gold = gold_error = np.full(table.height, np.nan)
        if estimate is not None:
            own = estimate.fractions
            value, error, low, high = (one[:, DISK] for one in (own.fractions, own.stderr, own.low, own.high))
            if model is None:
                labelled = own.labelled[:, DISK]
                columns = own.edges[:-1], own.edges[1:], own.middles, own.counts, labelled
                stderr = proportion_error(labelled, own.counts)
                table = pl.DataFrame(dict(zip(table.columns, (*columns, stderr), strict=True)))
        if self.from_gold:
            gold, gold_error = value, error
        elif self.truth is not None:
            by_bin = self.fractions_of([self.truth])
            gold = by_bin["fraction"].to_numpy()
            gold_error = np.zeros(table.height) if self.truth.known.all() else by_bin["stderr"].to_numpy()
        if model is not None:
            by_bin = self.fractions_of([model.best])
            value, error = by_bin["fraction"].to_numpy(), by_bin["stderr"].to_numpy()
            low, high = np.fmin(low, value - 1.96 * error), np.fmax(high, value + 1.96 * error)
        shown = {"corrected": value, "stderr": error, "lowest": low.clip(0, 1), "highest": high.clip(0, 1)}
        shown |= {"gold": gold, "gold_stderr": gold_error}
        return table.with_columns(pl.Series(name, one).fill_nan(None) for name, one in shown.items())


def gather(sources: Sequence[Any], options: ReportOptions, files: Path) -> Evidence:
    """Read runs, estimate and catalogue, label what isn't labelled (into the folder `files`), and join."""
    runs, given = list[Any](), list[Any]()
    for one in sources:
        (given if isinstance(one, Estimate) or str(one).endswith(".json") else runs).append(one)
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
    if options.better is not None and not options.better.is_dir():
        raise InputError(f"{options.better}: no such folder of better images (files named <object id>.jpg)")
    every = [OBSERVED, TRUTH, *classifiers, *(one.name for one in columns)]
    twice = next((name for name in every if every.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice!r} names two things in this report; rename a run's folder, or what `also` calls it")

    for name, one in classifiers.items():
        if tuple(one.classes) != classes_of(catalogue):
            wanted = " and ".join(classes_of(catalogue))
            raise InputError(f"{name}: its classes are {', '.join(one.classes)}, those of the catalogue {wanted}")
    tables = {file: read_table(file) for file in options.labels}
    for file, table in tables.items():
        if table.metadata.get("model_hash") not in {one.model_hash for one in classifiers.values()}:
            raise InputError(
                f"{file}: was not made by a model of this report; give the folder of the model that made these labels"
            )

    models, left_out, chosen = [], {}, rows
    for name, classifier in classifiers.items():
        labels = labels_by(name, classifier, path, list(tables.values()), files)
        model = _model(name, classifier, frame, labels)
        models.append(model)
        of = f"p({model.classes[1]})"
        said = {f"{of} of the picture": model.p, f"posterior {of}": model.after}
        frame = frame.with_columns(pl.Series(f"{OURS}{name}: {what}", one).fill_nan(None) for what, one in said.items())
        # Every label set on the same galaxies: those that all models label.
        labelled = np.isfinite(model.p)
        left_out[name] = int((~labelled[chosen]).sum())
        rows = rows[labelled[rows]]
    if rows.size < _FEWEST:
        raise InputError(
            f"{path}: {rows.size} galaxies to measure on have a label by every model, at least {_FEWEST} are needed "
            "(galaxies that a model's only member was trained on have none: train with `folds` 2 or more)"
        )
    if any(left_out.values()):
        which = f"{rows.size:,} of {which}"
    intrinsic = numeric_columns(frame[rows], options.intrinsic, str(path)) if options.intrinsic else None
    evidence = Evidence(
        catalogue=catalogue,
        frame=frame,
        models=models,
        columns=[one.of(rows) for one in columns],
        truths={name: one.of(rows) for name, one in truths.items() if one.known[rows].any()},
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
    models = [one.of(rows) for one in models]
    return replace(evidence, frame=everything[rows], models=models, shown=measured, everything=everything)


def trained_on(sources: Sequence[Path]) -> Path:
    """The catalogue that the first run was trained on."""
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
        wanted: Any = {"where": options.where, "intrinsic": options.intrinsic, "gold": gold, "seed": options.seed}
        try:
            made = estimate_catalogue(catalogue, fraction_bins=FIFTHS, **wanted)
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


def _model(name: str, model: Classifier, frame: pl.DataFrame, labels: pl.DataFrame) -> Model:
    """What a model says of all galaxies, NaN where it was trained on their labels.

    The posterior follows from these probabilities, this catalogue's labels and the model's T(α).
    """
    column = columns_of("p", model.classes)[1]
    unseen = labels.filter(pl.col("relation") != IN_SAMPLE).select(pl.col("object_id").cast(pl.String), column)
    joined = frame.select("object_id").join(unseen, on="object_id", how="left", maintain_order="left")
    p = joined[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
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


def _truths(
    frame: pl.DataFrame, catalogue: CatalogTable, options: ReportOptions, source: str
) -> tuple[dict[str, LabelSet], list[Finding]]:
    """Gold labels by their definition, and findings about them."""
    classes, out, findings = (
        classes_of(catalogue),
        {},
        missing_in(frame, [*options.intrinsic, *options.distributions], source),
    )
    if not options.gold:
        findings += from_same_images(catalogue.metadata)
    for rule in options.gold or (["gold"] if "gold" in frame.columns else []):
        known, definition, more = gold_classes(frame, rule, source)
        definition = f"{classes[1]}: {definition}"
        findings += more
        if rule == "gold":
            definition = str(catalogue.metadata.get("gold_definition") or _UNSTATED)
            definition = _UNSTATED if definition.startswith("not stated") else definition
        if not (known >= 0).any():
            text = f"No galaxy has a gold label by {rule}, so nothing is compared with it."
            findings.append(Finding("gold-empty", "caution", text, "Check the column or rule (`gold`)."))
            continue
        simulated = rule == "gold" and is_simulated(catalogue.metadata)
        name = TRUTH if simulated else "gold labels" if definition == _UNSTATED else f"gold labels ({definition})"
        out[definition] = LabelSet.of_two(name, "truth", np.where(known < 0, np.nan, known.astype(np.float64)), classes)
    return out, findings


def _columns(frame: pl.DataFrame, options: ReportOptions, classes: Sequence[str], source: str) -> list[LabelSet]:
    """Labels that the catalogue brings."""
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
        OURS + one.name: pl.Series(one.labels).replace_strict(classes, default=None, return_dtype=pl.String)
        for one in truths.values()
    }
    picture = np.full(frame.height, np.nan) if model is None else model.p
    after = picture if evidence.corrected is None else evidence.corrected.p
    changed = pl.Series(changes(frame["label"].to_numpy(), after, evidence.classes), dtype=pl.String)
    ours = {PICTURE: pl.Series(picture).fill_nan(None), AFTER: pl.Series(after), CHANGE: changed}
    return frame.with_columns(**words, **ours)
